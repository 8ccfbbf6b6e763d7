"""Containers of a Docker daemon: any image with a Python and a bash, a system of its own, optionally under gVisor.

Untrusted programs get a read-only root file system, no network, no capabilities and no way to new privileges;
workspace, home and /tmp are in memory. With `writable` they are the container's root and may write everywhere.
Programs are reached over streams of `docker exec`, whose keeper is copied in, so that the daemon may be on another
machine.

The first process (`inside/container.py`) is out of reach of the programs, and ends those that
the host gives up. It lives as long as the stream that it reads: if we are killed, it ends, and the daemon removes all.
"""

from __future__ import annotations

import functools
import io
import secrets
import socket
import struct
import tarfile
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import anyio

from agent_rl.concurrency import in_thread, shielded
from agent_rl.errors import SandboxFailure
from agent_rl.sandbox import ExecResult, Guarantee, Guarantees, SandboxConfig
from agent_rl_sandboxes import seccomp
from agent_rl_sandboxes.docker_images import committed, connect, find_image, remove_image
from agent_rl_sandboxes.over_streams import Connection, Program, StreamSandbox
from agent_rl_sandboxes.streams import HostStream, StreamBroken

if TYPE_CHECKING:
    from docker import DockerClient

T = TypeVar("T")
_PROGRAMS, _HOME = "/run/agent-rl", "/home/agent"
_FIRST_UID = 1_000_000_000  # from here on users own nothing on any host
_INSIDE = Path(__file__).with_name("inside")
_ALONE = ("-I", "-S", "-X", f"pycache_prefix={_PROGRAMS}/cache", "-c")  # no code of others: neither .pth nor .pyc
_FIRST = """
import compileall, io, runpy, sys, tarfile
tarfile.open(fileobj=io.BytesIO(sys.stdin.buffer.read({size}))).extractall({folder!r})
compileall.compile_dir({folder!r}, quiet=2)
sys.path.insert(0, {folder!r})
runpy.run_module("container", run_name="__main__")
"""
_KEEP = """
import os, runpy, sys
os.environ.pop("HOSTNAME", None)
sys.path.insert(0, {folder!r})
import processes
if {is_filtered}:
    processes.filter_system_calls({folder!r} + "/filter-" + os.uname().machine)
if sys.argv[1] == "python":
    import site
    site.main()
runpy.run_module("keeper", run_name="__main__")
"""
_LEAST_CLOSE_S = 5.0  # what had too little time to start must be removed all the same
_ROOT_CAPABILITIES = "CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE SETGID SETUID".split()  # for installing
_CPU_PERIOD_US = 100_000
_SENTRY_THREADS = 512  # gVisor's own threads count as the container's
_HEADER = struct.Struct(">BxxxL")  # of a piece of a stream: which output, how long


class _DaemonStream(HostStream):
    """A container's program: what it writes comes in pieces with headers, standard error among them."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._pieces = bytearray()

    def hang_up(self) -> None:
        """Close it; the daemon passes on the end of the program's input only if it comes before the connection's."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        self.close()

    def tell(self, line: str) -> None:
        """Send a short line, without waiting. The program may be gone."""
        with suppress(OSError):
            self._socket.send(f"{line}\n".encode())

    def has_ended(self) -> bool:
        """Whether the program is gone."""
        try:
            return not self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _accept(self, data: bytes) -> None:
        self._pieces += data
        while len(self._pieces) >= _HEADER.size:
            output, length = _HEADER.unpack_from(self._pieces)
            end = _HEADER.size + length
            if len(self._pieces) < end:
                return
            if output == 1:
                self._received += self._pieces[_HEADER.size : end]
            del self._pieces[:end]


class _Exec(Connection):
    """A program that was started by `docker exec`."""

    def __init__(self, stream: _DaemonStream, give_up: Callable[[], None]) -> None:
        self.stream = stream
        self._hang_up, self._give_up = stream.hang_up, give_up

    def end(self) -> None:
        """See `Connection.end`: its keeper sees the end of its input; if it cannot, the first process ends it."""
        self._hang_up()
        self._give_up()


class DockerSandbox(StreamSandbox):
    """A container."""

    def __init__(self, config: SandboxConfig) -> None:
        super().__init__()
        self._config = config
        self._client: DockerClient | None = None
        self._name = f"agent-rl-{secrets.token_hex(8)}"  # chosen here, so that it can be removed whatever happens
        uid = 0 if config.writable else _FIRST_UID + secrets.randbelow(_FIRST_UID)
        self._user = f"{uid}:{uid}"
        self._python = config.python or "python3"
        self._making = threading.Lock()  # held by the thread that makes the container, or removes it
        self._life: _DaemonStream | None = None  # the container ends with it
        self._asking = anyio.Lock()
        self._is_filtered = config.runtime != "runsc"  # gVisor is a kernel of its own
        self._warnings = ""  # of the daemon: limits that it cannot keep
        self._parent: DockerSandbox | None = None  # of a fork that has all of its files
        self._fork_image = ""
        self._closed = False

    @classmethod
    def strength(cls) -> int:
        """A boundary by the kernel, around any image."""
        return 8

    @classmethod
    def unavailable(cls, config: SandboxConfig) -> str | None:
        """See `Sandbox.unavailable`."""
        try:
            import docker  # noqa: F401  # pyright: ignore[reportUnusedImport]
        except ImportError:
            return "install the extra: pip install 'agent-rl[docker]'."
        if not config.image:
            return "it needs an image: set `image` to one that has python3 and bash, or to a folder with a Dockerfile."
        if config.read_only:
            return "a container is not given host paths (read_only): put them into the image, or take bubblewrap."
        return None

    # --- life ---

    @classmethod
    async def open(cls, config: SandboxConfig) -> Self:
        """See `Sandbox.open`."""
        return await cls._open(config, None)

    @classmethod
    async def _open(cls, config: SandboxConfig, parent: DockerSandbox | None) -> Self:
        sandbox = cls(config)
        sandbox._parent = parent if config.writable else None
        try:
            with anyio.fail_after(config.start_timeout_s):
                await sandbox._start()
                await sandbox._fill(parent)
        except BaseException as error:
            await sandbox.close()
            if isinstance(error, TimeoutError):
                message = f"A container did not start in {config.start_timeout_s:g} s: raise start_timeout_s."
                raise SandboxFailure(message, kind="timeout") from error
            raise
        return sandbox

    async def _start(self) -> None:
        programs = _programs()
        life = await _blocking(partial(self._make, _FIRST.format(folder=_PROGRAMS, size=len(programs))))
        try:
            await life.send(programs)
            await life.read(len("done"))
        except StreamBroken as error:
            raise self._unusable() from error

    def _make(self, first: str) -> _DaemonStream:
        """Make the container and start it. If we are cancelled, this thread goes on, and `_remove` waits for it."""
        with self._making:
            if self._closed:
                raise SandboxFailure("This sandbox is closed.", kind="closed", retryable=False)
            self._client = connect()
            api = self._client.api
            options = self._options(self._image(self._client), first)
            self._warnings = " ".join(api.create_container(**options)["Warnings"] or ())
            streams = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
            self._life = _DaemonStream(_own(api.attach_socket(self._name, streams)))
            try:
                api.start(self._name)
            except Exception as error:
                if "executable file not found" in str(error) or "no such file or directory" in str(error):
                    raise self._unusable() from error
                raise
            return self._life

    def _image(self, client: DockerClient) -> str:
        if self._parent is None:
            return find_image(client, self._config.image, network=self._config.network)
        self._fork_image = committed(client.api, self._parent._name)
        return self._fork_image

    def _options(self, image: str, first: str) -> dict[str, Any]:
        """The container that the daemon is asked for."""
        assert self._client is not None
        config, uid = self._config, self._user.partition(":")[0]
        pids = max(config.max_processes, _SENTRY_THREADS) if config.runtime == "runsc" else config.max_processes
        memory, file_bytes = config.memory_mb * 2**20, config.max_file_mb * 2**20
        in_memory = f"rw,nosuid,nodev,exec,uid={uid},gid={uid},mode=0755,size={config.disk_mb}m"
        return {
            "name": self._name,
            "image": image,
            "command": [self._python, *_ALONE, first],
            "stdin_open": True,
            "entrypoint": "",
            "user": "0:0",
            "working_dir": config.workspace,
            "network_disabled": not config.network,
            "environment": {
                **({"HOME": "/root", "USER": "root"} if config.writable else {"HOME": _HOME, "USER": "agent"}),
                **{"TMPDIR": "/tmp", "LANG": "C.UTF-8"},
                **config.environment,
            },
            "labels": {"agent-rl": "sandbox"},
            "host_config": self._client.api.create_host_config(
                auto_remove=True,
                network_mode="bridge" if config.network else "none",
                mem_limit=memory,
                memswap_limit=memory,
                cpu_period=_CPU_PERIOD_US,  # not nano_cpus: more processors than there are would be refused
                cpu_quota=max(1000, int(config.cpus * _CPU_PERIOD_US)),
                pids_limit=pids,
                read_only=not config.writable,
                shm_size=f"{config.disk_mb}m",
                tmpfs={
                    **({} if config.writable else dict.fromkeys((config.workspace, _HOME, "/tmp"), in_memory)),
                    _PROGRAMS: "rw,mode=0755",
                },
                cap_drop=["ALL"],
                # The first process must end programs of other users.
                cap_add=_ROOT_CAPABILITIES if config.writable else ["KILL"],
                security_opt=["no-new-privileges"],
                runtime=config.runtime or None,
                ulimits=[
                    {"Name": "fsize", "Soft": file_bytes, "Hard": file_bytes},
                    {"Name": "nofile", "Soft": 4096, "Hard": 4096},
                    {"Name": "core", "Soft": 0, "Hard": 0},
                ],
            ),
        }

    def _unusable(self) -> SandboxFailure:
        return SandboxFailure(
            f"The image {self._config.image!r} cannot be used: it needs {self._python} 3.9 or newer, tar and bash.",
            kind="image",
            retryable=False,
        )

    async def _fill(self, parent: DockerSandbox | None) -> None:
        """The workspace's first content: of the base folder, or all that a parent wrote."""
        if self._parent is not None:
            return
        if parent is not None:
            most = 2 * self._config.disk_mb * 2**20
            places = [path.lstrip("/") for path in (self._config.workspace, _HOME, "tmp")]
            packed = await parent.exec(["tar", "-C", "/", "-cf", "-", *places], max_output_bytes=most)
            await self._unpack(_checked(packed, "packed"), "/")
        elif self._config.base is not None:
            packed = await in_thread(partial(_tar, self._config.base))
            await self._unpack(packed, "/" if self._config.writable else self._config.workspace)

    async def _unpack(self, packed: bytes, folder: str) -> None:
        command = ["tar", "-C", folder, "--no-same-owner", "--no-overwrite-dir", "-xf", "-"]
        _checked(await self.exec(command, stdin=packed, timeout_s=self._config.start_timeout_s), "unpacked")

    async def fork(self) -> Self:
        """See `Sandbox.fork`. Copies what was written.

        With `writable`, raises `SandboxFailure` of kind `tampered` where what keeps a sandbox was changed: a fork is
        then as good as a new one for judging what programs did.
        """
        self.check_alive()
        return await type(self)._open(self._config.model_copy(update={"base": None}), self)

    async def close(self) -> None:
        """See `Sandbox.close`."""
        if self._closed:
            return
        self._closed = True
        self.hang_up()
        async with shielded(max(self._config.start_timeout_s, _LEAST_CLOSE_S)):
            await _blocking(self._remove)

    def _remove(self) -> None:
        """Remove the container, in a thread, which goes on if nobody waits for it any more."""
        from docker.errors import APIError

        with self._making:
            if self._client is None:
                return
            try:
                self._client.api.remove_container(self._name, force=True)
            except APIError as error:
                if error.status_code not in (404, 409):  # it is not there, or on its way out with its first process
                    raise
            finally:
                if self._life is not None:
                    self._life.hang_up()
                if self._fork_image:
                    remove_image(self._client.api, self._fork_image)
                self._client.close()

    # --- streams ---

    @property
    def workspace(self) -> str:
        """See `Sandbox.workspace`."""
        return self._config.workspace

    async def connect(self, program: Program) -> Connection:
        """See `StreamSandbox.connect`."""
        self.check_alive()
        assert self._life is not None
        token, is_given_up = secrets.token_hex(8), threading.Event()
        give_up = partial(self._life.tell, token)
        keep = _KEEP.format(folder=_PROGRAMS, is_filtered=self._is_filtered)
        command = [self._python, *_ALONE, keep, program, token]
        try:
            with anyio.fail_after(self._config.start_timeout_s):
                return _Exec(await _blocking(partial(self._exec, command, is_given_up)), give_up)
        except BaseException as error:
            is_given_up.set()  # if the program has not started yet, its thread hangs up; else the first process ends it
            give_up()
            if isinstance(error, TimeoutError):
                raise SandboxFailure("The Docker daemon did not start a program in time.", kind="timeout") from error
            raise

    def _exec(self, command: list[str], is_given_up: threading.Event) -> _DaemonStream:
        from docker.errors import APIError

        assert self._client is not None
        api = self._client.api
        try:
            made = api.exec_create(self._name, command, stdin=True, user=self._user, workdir=self._config.workspace)
            stream = _DaemonStream(_own(api.exec_start(made["Id"], socket=True)))
        except APIError as error:
            if error.status_code in (404, 409):  # there is no such container, or it does not run
                raise _died() from error
            raise
        if is_given_up.is_set():
            stream.hang_up()
        return stream

    def check_alive(self) -> None:
        """See `Sandbox.check_alive`."""
        if self._closed or self._life is None:
            raise SandboxFailure("This sandbox is closed.", kind="closed", retryable=False)
        if self._life.has_ended():
            raise _died()

    async def confirm_alive(self) -> None:
        """See `StreamSandbox.confirm_alive`. A dying container's streams end in any order: ask its first process."""
        self.check_alive()
        assert self._life is not None
        try:
            async with self._asking:
                with anyio.fail_after(self._config.start_timeout_s, shield=True):  # else an answer would be left over
                    await self._life.send(b"\n")
                    await self._life.read(1)
        except (StreamBroken, TimeoutError) as error:
            raise _died() from error

    @property
    def guarantees(self) -> Guarantees:
        """See `Sandbox.guarantees`. The daemon warns of limits that its machine does not have."""
        config, warnings = self._config, self._warnings.lower()
        by = f"container ({config.runtime})" if config.runtime else "container"
        pids = config.max_processes
        files, users = (
            ("a copy of the image, and /sys, read-only", "the container's root, with few capabilities")
            if config.writable
            else (
                "the image and /sys, read-only; workspace, home and /tmp of its own",
                "a user of its own that owns nothing, no capabilities, no new privileges",
            )
        )
        return Guarantees(
            filesystem=Guarantee(True, f"{by}: {files}"),
            network=Guarantee(
                not config.network,
                "the daemon's bridge, as asked" if config.network else "a namespace with nothing in it",
            ),
            processes=Guarantee("pids" not in warnings, f"process namespace, at most {pids}; all die with it"),
            memory=Guarantee("memory" not in warnings, f"{config.memory_mb} MB, control group, no swap"),
            disk=Guarantee(
                not config.writable,
                "only each file's size"
                if config.writable
                else f"file systems in memory of {config.disk_mb} MB each, counted there too",
            ),
            cpu=Guarantee("cpu" not in warnings, f"{config.cpus:g} processors, control group"),
            time=Guarantee(True, "killed at the deadline; the container's first process, out of reach, sees to it"),
            users=Guarantee(not config.writable, users),
            system_calls=Guarantee(
                True,
                "seccomp filter: no mounts, namespaces, tracing, keys, modules, io_uring, bpf; and Docker's"
                if self._is_filtered
                else "gVisor's own kernel",
            ),
        )


def _died() -> SandboxFailure:
    return SandboxFailure("The container has died: its first process was killed or ended.", kind="died")


# --- the daemon -----------------------------------------------------------------------------------------------------


async def _blocking(call: Callable[[], T]) -> T:
    """Calls of the SDK, in a thread; their failures are the sandbox's."""
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    try:
        return await in_thread(call)
    except (DockerException, RequestException, OSError) as error:
        raise SandboxFailure(f"Docker refused: {error}.", kind="docker") from error


def _own(response: Any) -> socket.socket:
    """The bare socket of a stream of the SDK's, ours alone."""
    bare: socket.socket = response._sock
    own = bare.dup()
    response.close()
    bare.close()
    return own


def _tar(folder: Path) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name)
    return packed.getvalue()


@functools.cache
def _programs() -> bytes:
    """A tar of what runs inside, and of the filters of system calls: root's, readable by all, whoever we are."""
    files = {path.name: path.read_bytes() for path in sorted(_INSIDE.glob("*.py"))}
    files |= {f"filter-{machine}": seccomp.program(machine) for machine in seccomp.MACHINES}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def _checked(result: ExecResult, what: str) -> bytes:
    if result.exit_code != 0 or result.truncated:
        raise SandboxFailure(
            f"The workspace could not be {what}: {result.stderr.decode('utf-8', 'replace')}", kind="files"
        )
    return result.stdout
