"""What Linux offers to keep hold of processes: adopt orphans, find descendants, end them all. Standard library only.

Whoever adopts orphans (`adopt_orphans`) is the parent of everything that its descendants leave behind, even of what
called setsid and forked twice, so that nothing can outlive `end_descendants`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import time
from collections.abc import Callable

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_CHILD_SUBREAPER, _FILTER = 4, 22, 36, 2


def adopt_orphans() -> None:
    """Become the parent of orphaned descendants."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def hide_memory(hidden: bool = True) -> None:
    """Whether /proc/self/mem, environ and ptrace are closed to other processes of this user."""
    _prctl(_PR_SET_DUMPABLE, 0 if hidden else 1)


def filter_system_calls(path: str) -> None:
    """Install the filter in a file (`struct sock_filter` after another) for this process and all that it starts."""
    with open(path, "rb") as file:
        data = file.read()
    instructions = ctypes.create_string_buffer(data, len(data))
    _prctl(_PR_SET_SECCOMP, _FILTER, struct.pack("@HP", len(data) // 8, ctypes.addressof(instructions)))


def _prctl(option: int, value: int, more: bytes | None = None) -> None:
    if _LIBC.prctl(option, value, more, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def reap() -> dict[int, int]:
    """Collect the children that have ended: pid to wait status."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if not pid:
            return ended
        ended[pid] = status


def has_children() -> bool:
    """Whether a child is left, ended or not."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def children(pid: int) -> list[int]:
    """The processes whose parent is `pid`, those that have ended included."""
    try:
        found = list[int]()
        for thread in os.listdir(f"/proc/{pid}/task"):  # pathlib is slow to import and to use
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
        return found
    except OSError:  # gone, or a kernel without that file
        return [child for child in everything() if _parent(child) == pid]


def everything() -> list[int]:
    """All processes."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


def descendants(pid: int) -> list[int]:
    """All processes below `pid`."""
    found, left = list[int](), [pid]
    while left:
        below = children(left.pop())
        found += below
        left += below
    return found


def end_descendants(timeout_s: float = 5.0) -> dict[int, int]:
    """Kill everything below this process and collect it: pid to wait status. Raises `TimeoutError`.

    A fork bomb cannot run away from that, see `kill_all`.
    """
    deadline = time.monotonic() + timeout_s
    ended = reap()
    while has_children():
        if time.monotonic() > deadline:
            raise TimeoutError("processes survive being killed")
        kill_all(lambda: set(descendants(os.getpid())))
        time.sleep(0.0002)
        ended.update(reap())
    return ended


def kill_all(find: Callable[[], set[int]]) -> None:
    """Kill what `find` finds. First all are stopped, until a look finds none that is not."""
    stopped: set[int] = set()
    while fresh := find() - stopped:
        for pid in fresh:
            send_signal(pid, signal.SIGSTOP)
        stopped |= fresh
    for pid in stopped:
        send_signal(pid, signal.SIGKILL)


def end_children(grace_s: float) -> None:
    """Wait until all children have ended, and end those that have not after `grace_s`."""
    deadline = time.monotonic() + grace_s
    while has_children() and time.monotonic() < deadline:
        reap()
        time.sleep(0.001)
    end_descendants()


def offer_to_out_of_memory() -> None:
    """When memory runs out, this process and those it starts go before the one that keeps the sandbox."""
    hide_memory(False)  # else the file is root's
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("800")
    except OSError:
        pass  # a hint: without it the kernel picks the largest, which is rarely the keeper
    hide_memory(True)


def wake_up(number: int, frame: object) -> None:
    """A signal handler that does nothing: with one in place, the signal writes to the wake-up descriptor."""


def send_signal(pid: int, number: int) -> None:
    """Signal a process that may be gone."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def signal_group(pid: int, number: int) -> None:
    """Signal a process group that may be gone."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def exit_code(status: int | None) -> int | None:
    """As a shell tells it: 128 + the signal's number for what a signal ended."""
    if status is None:
        return None
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
