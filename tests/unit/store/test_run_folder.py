"""A run has a folder of its own: never mixed with another run, found again for a resume, never resumed differently,
and never used by two processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent_rl.config import Config, load_config
from agent_rl.errors import ConfigError, UserError
from agent_rl.store.identity import read_identity
from agent_rl.store.lock import owned
from agent_rl.store.run_folder import open_run


class Options(Config):
    rate: float = 1.0
    steps: int = 5


def opened(config: Config, name: str, run_dir: Path | None, **options) -> Path:
    """Opened and closed again."""
    with open_run(config, name, run_dir, **options) as folder:
        return folder


def test_a_new_run_writes_its_config_and_refuses_a_used_folder(tmp_path: Path) -> None:
    folder = opened(Options(rate=2.0), "demo", tmp_path / "run", resume=False)
    assert load_config(Options, folder / "config.json") == Options(rate=2.0)
    assert load_config(Options, folder / "defaults.json") == Options()
    with pytest.raises(ConfigError, match="not empty: add --resume"):
        opened(Options(), "demo", tmp_path / "run", resume=False)


def test_resume_finds_the_run_that_was_opened_last_whatever_the_clock_says(tmp_path: Path) -> None:
    for name, modified_s in (("demo-2031", 900), ("demo-2026", 300), ("demo-1999", 100), ("other-3", 999)):
        folder = opened(Options(), "x", tmp_path / name, resume=False)
        os.utime(folder / "config.json", (modified_s, modified_s))
    assert opened(Options(), "demo", None, resume=True, root=tmp_path).name == "demo-1999"
    opened(Options(), "demo", tmp_path / "demo-2026", resume=True)
    assert opened(Options(), "demo", None, resume=True, root=tmp_path).name == "demo-2026"
    new = opened(Options(), "demo", None, resume=False, root=tmp_path)
    assert new.parent == tmp_path
    assert new.name.startswith("demo-")
    assert opened(Options(), "demo", None, resume=True, root=tmp_path) == new


def test_resume_needs_a_run_and_the_same_options(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run to resume"):
        opened(Options(), "demo", tmp_path / "nothing", resume=True)
    with pytest.raises(ConfigError, match="no run of 'demo'"):
        opened(Options(), "demo", None, resume=True, root=tmp_path)
    opened(Options(), "demo", tmp_path / "run", resume=False)
    with pytest.raises(ConfigError, match=r"rate \(was 1.0, now 3.0\)"):
        opened(Options(rate=3.0), "demo", tmp_path / "run", resume=True)
    assert opened(Options(steps=9), "demo", tmp_path / "run", resume=True, free=("steps",)) == tmp_path / "run"


def test_a_run_keeps_its_identity(tmp_path: Path) -> None:
    opened(Options(), "demo", tmp_path / "run", resume=False)
    first = read_identity(tmp_path / "run")
    opened(Options(), "demo", tmp_path / "run", resume=True)
    again = read_identity(tmp_path / "run")
    assert first is not None
    assert again is not None
    assert (again.id, again.opened) == (first.id, first.opened + 1)
    (tmp_path / "run" / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run.json is damaged"):
        opened(Options(), "demo", tmp_path / "run", resume=True)


# --- one owner ---

OWNER = """
import os, sys, time
from pathlib import Path
from agent_rl.store.lock import owned
with owned(Path(sys.argv[1])):
    if len(sys.argv) > 2 and os.fork() == 0:  # a child that outlives its parent
        os.write(1, f"{os.getpid()}\\n".encode())
        time.sleep(60)
    else:
        os.write(1, f"{os.getpid()}\\n".encode())
        time.sleep(60)
"""


@contextmanager
def other_owner(folder: Path, *arguments: str):
    command = [sys.executable, "-c", OWNER, str(folder), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        pids = [int(process.stdout.readline()) for _ in range(1 + len(arguments))]
        try:
            yield process, pids
        finally:
            process.kill()


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_second_process_is_refused_with_the_owner_and_changes_nothing(tmp_path: Path) -> None:
    folder = opened(Options(), "demo", tmp_path / "run", resume=False)
    with other_owner(folder) as (process, _):
        before = content_of(folder)
        with pytest.raises(UserError) as refused:
            opened(Options(steps=9), "demo", folder, resume=True, free=("steps",))
        owner = f"process {process.pid} on {socket.gethostname()}"
        assert str(refused.value) == (
            f"The run folder {str(folder)!r} is in use by {owner}: wait for it, end it, or name another folder."
        )
        assert content_of(folder) == before


def test_a_killed_owner_owns_nothing_even_if_a_forked_child_lives_on(tmp_path: Path) -> None:
    with other_owner(tmp_path, "fork") as (process, pids):
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        child = next(pid for pid in pids if pid != process.pid)
        os.kill(child, 0)  # it is there
        with owned(tmp_path):
            pass
        os.kill(child, signal.SIGKILL)


def test_a_process_may_take_what_it_owns_again_and_frees_it_at_the_end(tmp_path: Path) -> None:
    def can_be_had() -> bool:
        with other_owner_or_none(tmp_path) as line:
            return line.strip().isdigit()

    with owned(tmp_path):
        with owned(tmp_path):
            pass
        assert not can_be_had()
    assert can_be_had()


@contextmanager
def other_owner_or_none(folder: Path):
    command = [sys.executable, "-c", OWNER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        yield process.stdout.readline()
        process.kill()


def test_a_folder_that_was_only_ever_locked_is_new(tmp_path: Path) -> None:
    with owned(tmp_path / "run"):
        pass
    assert opened(Options(), "demo", tmp_path / "run", resume=False) == tmp_path / "run"
