"""Containers of a Docker daemon: any image with a Python and a shell, a system of its own, optionally under gVisor.

Untrusted programs get a read-only root file system, no network, no capabilities and no way to new privileges;
workspace, home and /tmp are in memory. Programs are reached over streams of `docker exec`, whose keeper is copied in,
so that the daemon may be on another machine.

A container lives as long as the stream that its first process reads: if we are killed, the daemon ends and removes it.
"""

from __future__ import annotations

import io
import socket
import struct
import tarfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import anyio

from agent_rl.concurrency import in_thread, shielded
from agent_rl.errors import SandboxFailure, UserError
from agent_rl.sandbox import ExecResult, Guarantee, Guarantees, SandboxConfig
from agent_rl_sandboxes.over_streams import Connection, Program, StreamSandbox
from agent_rl_sandboxes.streams import HostStream, StreamBroken

if TYPE_CHECKING:
    from docker import DockerClient

T = TypeVar("T")
_PROGRAMS, _HOME = "/run/agent-rl", "/home/agent"
_USER = "1000:1000"
_INSIDE = Path(__file__).with_name("inside")
_UNPACK = """
import compileall, sys, tarfile
tarfile.open(fileobj=sys.stdin.buffer, mode="r|").extractall({folder!r})
compileall.compile_dir({folder!r}, quiet=2)
print("done")
"""
_KEEP = """
import os, runpy, sys
os.environ.pop("HOSTNAME", None)
sys.path.insert(0, {folder!r})
runpy.run_module("keeper", run_name="__main__")
"""
_SENTRY_THREADS = 512  # gVisor's own threads count as the container's
_HEADER = struct.Struct(">BxxxL")  # of a piece of a stream: which output, how long


class _ExecStream(HostStream):
    """The stream of an exec: what it writes comes in pieces with headers, standard error among them."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._pieces = bytearray()

    def hang_up(self) -> None:
        """Close it; the daemon passes on the end of the program's input only if it comes before the connection's."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        self.close()

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

    def __init__(self, stream: _ExecStream) -> None:
        self.stream = stream
        self._hang_up = stream.hang_up

    def end(self) -> None:
        """See `Connection.end`: the keeper sees the end of its input and ends all that it started."""
        self._hang_up()


class DockerSandbox(StreamSandbox):
    """A container."""

    def __init__(self, config: SandboxConfig, client: DockerClient) -> None:
        super().__init__()
        self._config = config
        self._client = client
        self._container = ""
        self._life: socket.socket | None = None  # the container ends with it
        self._python = config.python or "python3"
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
        if config.read_only or config.network:
            asked = "host paths (read_only)" if config.read_only else "the host's network"
            return f"a container is not given {asked}: put what it needs into the image, or take bubblewrap."
        return None

    # --- life ---

    @classmethod
    async def open(cls, config: SandboxConfig) -> Self:
        """See `Sandbox.open`."""
        return await cls._open(config, None)

    @classmethod
    async def _open(cls, config: SandboxConfig, parent: DockerSandbox | None) -> Self:
        sandbox = cls(config, await _client())
        try:
            with anyio.fail_after(config.start_timeout_s):
                await sandbox._start()
                await sandbox._fill(parent)
        except BaseException as error:
            await sandbox.close()
            if isinstance(error, TimeoutError):
                message = f"A container did not start in {config.start_timeout_s:g} s."
                raise SandboxFailure(message, kind="timeout") from error
            raise
        return sandbox

    async def _start(self) -> None:
        image = await _blocking(partial(_image, self._client, self._config.image))
        # Cancelled in between, the thread goes on; what it made is removed by the daemon, whose stream then closes.
        self._container, self._life = await _blocking(partial(self._create, image))
        await self._run_as_root(_UNPACK.format(folder=_PROGRAMS), _tar(_INSIDE, "*.py"))

    def _create(self, image: str) -> tuple[str, socket.socket]:
        config, api = self._config, self._client.api
        pids = max(config.max_processes, _SENTRY_THREADS) if config.runtime == "runsc" else config.max_processes
        memory = config.memory_mb * 2**20
        in_memory = f"rw,nosuid,nodev,exec,uid=1000,gid=1000,mode=0755,size={config.disk_mb}m"
        container: str = api.create_container(
            image,
            ["cat"],
            stdin_open=True,
            entrypoint="",
            user=_USER,
            working_dir=config.workspace,
            network_disabled=True,
            environment={"HOME": _HOME, "TMPDIR": "/tmp", "USER": "agent", "LANG": "C.UTF-8", **config.environment},
            labels={"agent-rl": "sandbox"},
            host_config=api.create_host_config(
                auto_remove=True,
                network_mode="none",
                mem_limit=memory,
                memswap_limit=memory,
                nano_cpus=int(config.cpus * 1e9),
                pids_limit=pids,
                read_only=True,
                tmpfs={config.workspace: in_memory, _HOME: in_memory, "/tmp": in_memory, _PROGRAMS: "rw,mode=0755"},
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                init=True,
                runtime=config.runtime or None,
                ulimits=[
                    {"Name": "fsize", "Soft": config.max_file_mb * 2**20, "Hard": config.max_file_mb * 2**20},
                    {"Name": "nofile", "Soft": 4096, "Hard": 4096},
                    {"Name": "core", "Soft": 0, "Hard": 0},
                ],
            ),
        )["Id"]
        try:
            life = api.attach_socket(container, {"stdin": 1, "stream": 1})
            api.start(container)
        except BaseException:
            api.remove_container(container, force=True)
            raise
        return container, _own(life)

    async def _fill(self, parent: DockerSandbox | None) -> None:
        """The workspace's first content: of the base folder, or all that a parent wrote."""
        if parent is not None:
            most = 2 * self._config.disk_mb * 2**20
            places = [path.lstrip("/") for path in (self._config.workspace, _HOME, "tmp")]
            packed = await parent.exec(["tar", "-C", "/", "-cf", "-", *places], max_output_bytes=most)
            await self._unpack(_checked(packed, "packed"), "/")
        elif self._config.base is not None:
            packed = await in_thread(partial(_tar, self._config.base, "*"))
            await self._unpack(packed, self._config.workspace)

    async def _unpack(self, packed: bytes, folder: str) -> None:
        command = ["tar", "-C", folder, "--no-same-owner", "--no-overwrite-dir", "-xf", "-"]
        _checked(await self.exec(command, stdin=packed, timeout_s=self._config.start_timeout_s), "unpacked")

    async def fork(self) -> Self:
        """See `Sandbox.fork`. Copies what was written."""
        self.check_alive()
        return await type(self)._open(self._config.model_copy(update={"base": None}), self)

    async def close(self) -> None:
        """See `Sandbox.close`."""
        if self._closed:
            return
        self._closed = True
        self.hang_up()
        async with shielded(self._config.start_timeout_s):
            try:
                if self._container:
                    await _blocking(partial(_remove, self._client, self._container))
            finally:
                if self._life is not None:
                    self._life.close()
                await in_thread(self._client.close)

    # --- streams ---

    @property
    def workspace(self) -> str:
        """See `Sandbox.workspace`."""
        return self._config.workspace

    async def connect(self, program: Program) -> Connection:
        """See `StreamSandbox.connect`."""
        self.check_alive()
        return await self._exec([self._python, "-I", "-c", _KEEP.format(folder=_PROGRAMS), program], _USER)

    async def _exec(self, command: list[str], user: str) -> _Exec:
        api = self._client.api

        def start() -> socket.socket:
            made = api.exec_create(self._container, command, stdin=True, user=user, workdir=self._config.workspace)
            return _own(api.exec_start(made["Id"], socket=True))

        with anyio.fail_after(self._config.start_timeout_s):
            return _Exec(_ExecStream(await _blocking(start)))

    async def _run_as_root(self, code: str, stdin: bytes) -> None:
        """Run Python as the container's root, whose files programs cannot change. It ends with its input."""
        program = await self._exec([self._python, "-I", "-c", code], "0:0")
        try:
            await program.stream.send(stdin)
            if await program.stream.read(4) != b"done":
                raise StreamBroken("it failed")
        except StreamBroken as error:
            raise SandboxFailure(
                f"The image {self._config.image!r} cannot be used: it needs {self._python} 3.9 or newer, tar and bash.",
                kind="image",
                retryable=False,
            ) from error
        finally:
            program.end()

    def check_alive(self) -> None:
        """See `Sandbox.check_alive`."""
        if self._closed or self._life is None:
            raise SandboxFailure("This sandbox is closed.", kind="closed", retryable=False)
        try:
            if not self._life.recv(1, socket.MSG_PEEK):
                raise SandboxFailure("The container has died.", kind="died")
        except BlockingIOError:
            pass
        except ConnectionResetError as error:
            raise SandboxFailure("The container has died.", kind="died") from error

    @property
    def guarantees(self) -> Guarantees:
        """See `Sandbox.guarantees`."""
        config = self._config
        by = f"container ({config.runtime})" if config.runtime else "container"
        return Guarantees(
            filesystem=Guarantee(True, f"{by}: the image, read-only; workspace, home and /tmp of its own"),
            network=Guarantee(True, "a network namespace with nothing in it"),
            processes=Guarantee(True, f"process namespace, at most {config.max_processes}; all die with it"),
            memory=Guarantee(True, f"{config.memory_mb} MB, control group, no swap"),
            disk=Guarantee(True, f"file systems in memory of {config.disk_mb} MB each"),
            cpu=Guarantee(True, f"{config.cpus:g} processors"),
            time=Guarantee(True, "at its deadline a call is given up; what fights back ends with the container"),
            users=Guarantee(True, "user 1000, no capabilities, no new privileges"),
            system_calls=Guarantee(
                True, "gVisor's own kernel" if config.runtime == "runsc" else "Docker's default seccomp filter"
            ),
        )


# --- the daemon -----------------------------------------------------------------------------------------------------


async def _client() -> DockerClient:
    import docker
    from docker.errors import DockerException

    try:
        return await in_thread(partial(docker.from_env, timeout=60))
    except DockerException as error:
        raise UserError(
            "The Docker daemon cannot be reached: start it, and set DOCKER_HOST if it is not at its usual place."
        ) from error


async def _blocking(call: Callable[[], T]) -> T:
    """A call of the SDK, whose failures are the sandbox's."""
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    try:
        return await in_thread(call)
    except (DockerException, RequestException, OSError) as error:
        raise SandboxFailure(f"Docker refused: {error}.", kind="docker") from error


def _image(client: DockerClient, image: str) -> str:
    """The id of an image, built if it is a folder. Raises `UserError` when there is none."""
    from docker.errors import BuildError, ImageNotFound

    if (Path(image) / "Dockerfile").is_file():
        try:
            built, _ = client.images.build(path=image, network_mode="none", rm=True)
        except BuildError as error:
            raise UserError(f"The image of {image!r} cannot be built: {error}.") from error
        return str(built.id)
    try:
        return str(client.images.get(image).id)
    except ImageNotFound as error:
        raise UserError(
            f"There is no image {image!r} here: docker pull {image}, or give a folder with a Dockerfile."
        ) from error


def _remove(client: DockerClient, container: str) -> None:
    from docker.errors import APIError, NotFound

    try:
        client.api.remove_container(container, force=True)
    except NotFound:
        pass
    except APIError as error:
        if error.status_code != 409:  # its removal is under way, since its first process has ended
            raise


def _own(response: Any) -> socket.socket:
    """The bare socket of a stream of the SDK's, non-blocking and ours alone."""
    bare: socket.socket = response._sock
    own = bare.dup()
    response.close()
    bare.close()
    own.setblocking(False)
    return own


def _tar(folder: Path, pattern: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path in sorted(folder.glob(pattern)):
            tar.add(path, path.name)
    return packed.getvalue()


def _checked(result: ExecResult, what: str) -> bytes:
    if result.exit_code != 0 or result.truncated:
        raise SandboxFailure(
            f"The workspace could not be {what}: {result.stderr.decode('utf-8', 'replace')}", kind="files"
        )
    return result.stdout
