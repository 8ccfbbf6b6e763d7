"""A PostgreSQL and a MariaDB of the test suite's own: on free ports of the loopback, in temporary folders, no root."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.ports import free_port

START_TIMEOUT_S = 60
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # ten times as fast, and gone with the machine
POSTGRES_OPTIONS = (
    "listen_addresses=127.0.0.1 fsync=off synchronous_commit=off full_page_writes=off wal_level=minimal "
    "max_wal_senders=0 autovacuum=off max_connections=60 shared_buffers=32MB"
).split()


@contextmanager
def postgres() -> Iterator[str]:
    """Its URL, of a superuser; raises `RuntimeError` with the reason when there can be none."""
    with postgres_home() as home, running_postgres(*home) as (url, _):
        yield url


@contextmanager
def postgres_home() -> Iterator[tuple[Path, list[str], int]]:
    """A folder with an empty cluster, the command that serves it, its port. Raises as `postgres` does."""
    found = [shutil.which("postgres"), *sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)]
    program = next((Path(os.path.realpath(path)) for path in found if path), None)
    if program is None:
        raise RuntimeError("needs PostgreSQL (apt install postgresql)")
    with _home("postgres") as (folder, user):
        data, port = folder / "data", free_port()
        _run([*user, str(program.with_name("initdb")), "-D", str(data), "-A", "trust", "-U", "postgres", "--no-sync"])
        options = [
            word
            for option in (*POSTGRES_OPTIONS, f"port={port}", f"unix_socket_directories={folder}")
            for word in ("-c", option)
        ]
        yield folder, [*user, str(program), "-D", str(data), *options], port


@contextmanager
def running_postgres(folder: Path, command: Sequence[str], port: int) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Its URL and process, for as long as the block runs: it can be started again, or killed."""
    fast_shutdown = signal.SIGINT  # SIGTERM waits for its clients
    url = f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
    with _server(command, url, folder / "log", fast_shutdown) as server:
        yield url, server


@contextmanager
def mariadb() -> Iterator[str]:
    """Its URL, of a user with all rights; raises `RuntimeError` with the reason when there can be none."""
    install, program = (
        shutil.which("mariadb-install-db"),
        shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin"),
    )
    if install is None or program is None:
        raise RuntimeError("needs MariaDB (apt install mariadb-server)")
    with _home("mysql") as (folder, user):
        data, port, init = folder / "data", free_port(), folder / "init.sql"
        _run(
            [
                *user,
                install,
                "--no-defaults",
                f"--datadir={data}",
                "--skip-test-db",
                "--auth-root-authentication-method=normal",
            ]
        )
        init.write_text(
            "CREATE USER 'admin'@'127.0.0.1' IDENTIFIED BY '';\n"  # one statement on each line
            "GRANT ALL ON *.* TO 'admin'@'127.0.0.1' WITH GRANT OPTION;\n"
        )
        init.chmod(0o644)
        options = [
            f"--datadir={data}",
            f"--socket={folder}/sock",
            "--bind-address=127.0.0.1",
            f"--port={port}",
            f"--pid-file={folder}/pid",
            f"--init-file={init}",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=32M",
            "--max-connections=60",
            "--skip-name-resolve",
        ]
        url = f"mysql+pymysql://admin@127.0.0.1:{port}/mysql"
        with _server([*user, program, "--no-defaults", *options], url, folder / "log"):
            yield url


@contextmanager
def _home(name: str) -> Iterator[tuple[Path, Sequence[str]]]:
    """A folder, and what to put before a command so that it does not run as root, which both servers refuse.

    It is not one of pytest's: those lie in one that each pytest which starts closes to everybody else.
    """
    with tempfile.TemporaryDirectory(prefix=f"agent-rl-{name}-", dir=MEMORY, ignore_cleanup_errors=True) as path:
        folder = Path(path)
        if os.getuid():
            yield folder, ()
            return
        if not shutil.which("setpriv"):
            raise RuntimeError("needs setpriv, to run as another user than root")
        shutil.chown(folder, name, name)
        yield folder, ("setpriv", f"--reuid={name}", f"--regid={name}", "--init-groups", "--pdeathsig", "KILL")


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=START_TIMEOUT_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {(done.stdout + done.stderr)[-500:]}")


@contextmanager
def _server(
    command: Sequence[str], url: str, log: Path, stop: signal.Signals = signal.SIGTERM
) -> Iterator[subprocess.Popen[bytes]]:
    """Its process, from the moment that a login at `url` succeeds."""
    with log.open("wb") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while refusal := _refusal(url):
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command} has no login ({refusal}): {log.read_text(errors='replace')[-500:]}")
            time.sleep(0.05)
        yield server
    finally:
        server.send_signal(stop)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(10)


def _refusal(url: str) -> str | None:
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    try:
        create_engine(url, poolclass=NullPool).connect().close()
    except SQLAlchemyError as error:
        return str(error)
    return None
