"""A server that forks a process for every stream it is handed, like inetd, so that nothing is relayed.

It runs twice: on the host as the launcher (each stream becomes a janitor that owns one sandbox), and as the first
process inside each sandbox (each stream becomes a keeper that runs one command or session). Forking an interpreter
that has all imports done takes 2 ms where a fresh one takes 20.

A request is one packet: JSON `{"id": n, "program": name}` with the stream's descriptor attached, or `{"kill": n}`.
When its own socket is closed, everything below it is killed and it ends.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket

import processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Program = Callable[[list[int]], None]  # gets the descriptors that came with the request


def serve(
    control: socket.socket,
    programs: Mapping[str, Program],
    chores: Sequence[Callable[[], object]],
    grace_s: float = 0.0,
) -> None:
    """Serve until `control` is closed, then leave the servers `grace_s` to end by themselves.

    Each of the `chores` is done once, when there is nothing else to do.
    """
    wake_read, wake_write = os.pipe()
    for fd in (wake_read, wake_write):
        os.set_blocking(fd, False)
    signal.signal(signal.SIGCHLD, processes.wake_up)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    servers: dict[int, int] = {}  # pid -> id
    poller = select.poll()
    poller.register(control, select.POLLIN)
    poller.register(wake_read, select.POLLIN)
    left = list(chores)
    while True:
        ready = poller.poll(0 if left else None)
        if left and not ready:
            left.pop(0)()
        for fd, _ in ready:
            if fd == wake_read:
                os.read(wake_read, 4096)
                for pid in processes.reap():
                    servers.pop(pid, None)
                _end_orphans(servers)
            elif not _request(control, programs, servers, (wake_read, wake_write)):
                return processes.end_children(grace_s)


def _request(
    control: socket.socket, programs: Mapping[str, Program], servers: dict[int, int], own_fds: tuple[int, int]
) -> bool:
    """Handle one packet; False at the end."""
    try:
        packet, fds, _, _ = socket.recv_fds(control, 65536, 4)
    except ConnectionResetError:
        return False
    if not packet:
        return False
    request = json.loads(packet)
    if "kill" in request:
        for pid, id in servers.items():
            if id == request["kill"]:
                processes.send_signal(pid, signal.SIGKILL)
    elif request["program"] in programs and fds:
        pid = os.fork()
        if not pid:
            control.close()
            for fd in own_fds:
                os.close(fd)
            _become(programs[request["program"]], fds)
        servers[pid] = request["id"]
    for fd in fds:
        os.close(fd)
    return True


def _become(program: Program, fds: list[int]) -> None:
    """The rest of the forked process's life."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)  # what is ignored stays so in every program that it starts
        program(fds)
        code = 0
    except BaseException:  # the last frame of this process: the host sees its stream end
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def _end_orphans(servers: Mapping[int, int]) -> None:
    """A child that is no server was left behind by one that was killed."""
    while strays := [pid for pid in processes.children(os.getpid()) if pid not in servers]:
        for pid in strays:
            for below in (pid, *processes.descendants(pid)):
                processes.send_signal(below, signal.SIGKILL)
        for pid in strays:
            try:
                os.waitpid(pid, 0)
            except ChildProcessError:
                pass
