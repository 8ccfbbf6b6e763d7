"""A Docker daemon of the test suite's own, and an image made of this machine's programs: no registry, no network."""

import io
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path

IMAGE = "agent-rl-test:1"
PROGRAMS = (
    "basename bash cat chmod cp dd dirname echo env false find grep head id kill ln ls mkdir mkfifo mknod mount mv "
    "nohup pgrep printf ps pwd python3 readlink rm sed seq setsid sh sleep sort stat stdbuf su sudo tail tar tee test "
    "timeout touch tr true umount uname unshare wc whoami xargs yes"
).split()


@contextmanager
def docker_daemon(folder: Path):
    """The URL of a daemon that has `IMAGE`; raises `RuntimeError` with the reason when there can be none."""
    if url := os.environ.get("AGENT_RL_TEST_DOCKER"):
        yield url
        return
    if not shutil.which("dockerd") or os.getuid():
        raise RuntimeError("needs dockerd (apt install docker.io) and root, or AGENT_RL_TEST_DOCKER=URL")
    url = f"unix://{folder}/docker.sock"
    options = "--iptables=false --ip-forward=false --ip-masq=false --bridge=none --storage-driver=overlay2".split()
    places = ["-H", url, "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "-p", f"{folder}/pid"]
    with (folder / "log").open("wb") as log:
        start = ["setpriv", "--pdeathsig", "TERM", "dockerd"]  # a suite that is killed leaves no daemon
        daemon = subprocess.Popen([*start, *places, *options], stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_for(folder / "docker.sock", daemon, folder / "log")
        import_image(url)
        yield url
    finally:
        daemon.terminate()
        daemon.wait(30)
        subprocess.run(["umount", f"{folder}/data"], check=False, capture_output=True)  # a mount that daemons leave


def _wait_for(path: Path, daemon: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        with socket.socket(socket.AF_UNIX) as sock, suppress(OSError):
            return sock.connect(str(path))
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"dockerd does not start: {log.read_text()[-500:]}")
        time.sleep(0.1)


def import_image(url: str) -> None:
    """Make `IMAGE` known to the daemon at `url`."""
    import docker

    with closing(docker.DockerClient(base_url=url, timeout=120)) as client:
        client.api.import_image_from_data(_file_system(), repository=IMAGE.split(":")[0], tag="1")


def _file_system() -> bytes:
    """A tar of the programs, what they are linked with, and the system's Python."""
    python = Path("/usr/bin/python3").resolve()
    files = {Path("/usr/bin/python3"), python}
    for name in PROGRAMS:
        if path := shutil.which(name, path="/usr/bin:/bin"):
            files |= {Path(path), Path(path).resolve()}
    library = Path(f"/usr/lib/{python.name}")
    modules = [p for p in library.rglob("*") if p.is_file() and not {"test", "idlelib"} & set(p.parts)]
    linked = {*files, *(p for p in modules if p.suffix == ".so")}
    listed = subprocess.run(["ldd", *map(str, linked)], capture_output=True, text=True, check=False).stdout
    words = {word for word in listed.split() if word.startswith("/") and not word.endswith(":")}
    everything = sorted({*files, *modules, *(Path(word) for word in words)})
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for folder in ("bin", "lib", "lib64"):
            link = tarfile.TarInfo(folder)
            link.type, link.linkname = tarfile.SYMTYPE, f"usr/{folder}"
            tar.addfile(link)
        for folder in ("tmp", "workspace", "home", "run", "etc", "proc", "dev", "sys"):
            made = tarfile.TarInfo(folder)
            made.type, made.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(made)
        for path in everything:
            real = path.resolve() if path.parts[1] in ("lib", "lib64", "bin") else path
            name = str(path) if path.parts[1] == "usr" else f"/usr{path}"
            tar.add(real, name.lstrip("/"), recursive=False)
    return packed.getvalue()


if __name__ == "__main__":
    import_image(sys.argv[1])
