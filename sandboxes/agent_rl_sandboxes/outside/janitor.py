"""The janitor: makes one sandbox's folder and control groups, starts its first process, and removes all of it.

Knows where files lie and how they are limited, shared and forked. Does not know what the sandbox is: the command to
start comes from the backend.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path
from typing import Any, NamedTuple

import mounts
import processes
from cgroups import Groups
from frames import Ended, Stream

FOLDERS = ("workspace", "home", "tmp")


class Place(NamedTuple):
    """Where sandboxes live, and what the machine allows there."""

    root: Path
    can_mount: bool
    can_overlay: bool


def own_sandbox(place: Place, stream: Stream, control: int) -> None:
    """Make what the first frame asks for, and remove it when the host says so or is gone."""
    processes.adopt_orphans()
    try:
        order, seccomp = stream.receive()
    except Ended:
        return
    storage, groups = Storage(place, order), None
    try:
        try:
            storage.make()
            groups = Groups(f"agent-rl-{place.root.name}-{order['name']}", order["limits"])
            _start(order, groups, control, seccomp, storage.folder / "log")
        except OSError as error:
            stream.send({"failed": str(error)})
        else:
            stream.send({"storage": storage.kind, "enforced": groups.enforced})
        os.close(control)
        while True:
            request, _ = stream.receive()
            if request.get("close"):
                break
            stream.send({"log": storage.log()})
    except Ended:
        pass
    finally:
        problem = _clean_up(storage, groups)
    try:
        stream.send({"closed": True, "problem": problem})
    except Ended:
        pass


def _clean_up(storage: Storage, groups: Groups | None) -> str:
    """Remove everything; what could not be removed, in words."""
    try:
        processes.end_descendants()
        storage.remove()
    except OSError as error:
        return str(error)
    return "" if groups is None or groups.remove() else "a control group could not be removed"


def _start(order: dict[str, Any], groups: Groups, control: int, seccomp: bytes, log: Path) -> None:
    """Fork and become the sandbox's first process: descriptor 3 is its socket, 4 its system call filter."""
    filter_fd = os.memfd_create("seccomp")
    os.write(filter_fd, seccomp)
    os.lseek(filter_fd, 0, os.SEEK_SET)
    if not os.fork():
        try:
            output = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
            null = os.open(os.devnull, os.O_RDONLY)
            groups.enter()
            sources = [os.dup(fd) for fd in (null, output, output, control, filter_fd)]
            for target, fd in enumerate(sources):
                os.dup2(fd, target)
            os.closerange(5, 4096)
            if order["uid"] is not None:
                os.setgroups([])
                os.setresgid(order["uid"], order["uid"], order["uid"])
                os.setresuid(order["uid"], order["uid"], order["uid"])
            os.execve(order["argv"][0], order["argv"], order["environment"])
        except OSError as error:
            os.write(2, f"{order['argv'][0]}: {error}\n".encode())
        finally:
            os._exit(127)
    os.close(filter_fd)


class Storage:
    """The files of one sandbox: a workspace, a home and a folder for temporary files, together at most `disk_mb`.

    With mounts: one tmpfs, and an overlay where there is a base. Without: folders, and a copy of the base.
    """

    def __init__(self, place: Place, order: dict[str, Any]) -> None:
        self.place, self.order = place, order
        self.folder = place.root / order["name"]
        self.data = self._data(order["name"])
        self.kind = "tmpfs" if place.can_mount else "folder"
        self.mounted: list[Path] = []

    def _data(self, name: str) -> Path:
        """Where the files of the sandbox called `name` really are."""
        return self.place.root / name / "disk" if self.place.can_mount else self.place.root / name

    def make(self) -> None:
        """Create all folders, filled from the parent if there is one. Raises `OSError`."""
        order, owner = self.order, self.order["uid"]
        self.folder.mkdir(mode=0o711)
        if self.place.can_mount:
            self.data.mkdir()
            if not mounts.try_tmpfs(self.data, order["limits"]["disk_mb"], "mode=0711"):
                raise OSError(errno.EPERM, "a file system in memory cannot be mounted")
            self.mounted.append(self.data)
        for name in FOLDERS:
            (self.data / name).mkdir()
            if order["parent"]:
                copy_tree(self._data(order["parent"]) / name, self.data / name, owner)
            if owner is not None:
                os.chown(self.data / name, owner, owner)
        base = Path(order["base"]) if order["base"] else None
        if base is not None and self.place.can_overlay and mounts.can_be_lower(base):
            self._overlay(base, owner)
        elif base is not None and not order["parent"]:
            copy_tree(base, self.data / "workspace", owner)
        for name in FOLDERS:
            self._show(name)
        for name in order["folders"]:
            self._ensure_folder(self.folder / "workspace" / name, owner)

    def _show(self, name: str) -> None:
        """The data at the path that the sandbox is started with."""
        target = self.folder / name
        if self.place.can_mount and target not in self.mounted:
            target.mkdir()
            mounts.bind(self.data / name, target)
            self.mounted.append(target)

    def _ensure_folder(self, path: Path, owner: int | None) -> None:
        try:
            path.mkdir(mode=0o755)
        except FileExistsError:
            if path.is_symlink() or not path.is_dir():
                raise
            return
        if owner is not None:
            os.chown(path, owner, owner)

    def _overlay(self, base: Path, owner: int | None) -> None:
        lower, work, target = base, self.data / "work", self.folder / "workspace"
        work.mkdir()
        target.mkdir()
        if owner is not None and base.stat().st_uid != owner:
            lower = self.folder / "base"
            lower.mkdir()
            if not mounts.bind_as_owner(base, lower, owner):
                raise OSError(
                    errno.ENOSYS, "this kernel cannot show the base folder as another user's (idmapped mounts)"
                )
            self.mounted.append(lower)
        mounts.overlay(lower, self.data / "workspace", work, target)
        self.mounted.append(target)
        self.kind = "overlay"

    def log(self) -> str:
        """The last words of the first process."""
        try:
            return (self.folder / "log").read_text("utf-8", "replace")[-2000:].strip()
        except OSError:
            return ""

    def remove(self) -> None:
        """Unmount and delete. Raises `OSError`."""
        for target in reversed(self.mounted):
            mounts.unmount(target)
        if self.folder.exists():
            shutil.rmtree(self.folder)


def copy_tree(source: Path, target: Path, owner: int | None = None) -> None:
    """Copy what is in `source` into the folder `target`: links as links, overlay's own marks too.

    Works by descriptors and never follows a link, so that a program that still changes `source` cannot lead us out.
    """
    opened = [os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW) for path in (source, target)]
    try:
        _copy_folder(opened[0], opened[1], owner)
    finally:
        for fd in opened:
            os.close(fd)


def _copy_folder(source: int, target: int, owner: int | None) -> None:
    with os.scandir(source) as entries:
        names = [entry.name for entry in entries]
    for name in names:
        try:
            status = os.stat(name, dir_fd=source, follow_symlinks=False)
            kind = stat.S_IFMT(status.st_mode)
            if kind == stat.S_IFLNK:
                os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            elif kind == stat.S_IFCHR and status.st_rdev == 0:  # overlay's mark of a deleted file
                os.mknod(name, stat.S_IFCHR, 0, dir_fd=target)
            elif kind in (stat.S_IFDIR, stat.S_IFREG):
                _copy_entry(name, source, target, status, owner)
            else:
                continue  # sockets, pipes and devices are not files of the workspace
        except FileNotFoundError:
            continue  # deleted meanwhile
        if os.getuid() == 0:  # else all of it is ours
            uid, gid = (status.st_uid, status.st_gid) if owner is None else (owner, owner)
            os.chown(name, uid, gid, dir_fd=target, follow_symlinks=False)
        if kind != stat.S_IFLNK:
            os.chmod(name, stat.S_IMODE(status.st_mode) & 0o777, dir_fd=target)


def _copy_entry(name: str, source: int, target: int, status: os.stat_result, owner: int | None) -> None:
    is_folder = stat.S_ISDIR(status.st_mode)
    nofollow = os.O_NOFOLLOW | os.O_NONBLOCK | (os.O_DIRECTORY if is_folder else 0)
    old = os.open(name, os.O_RDONLY | nofollow, dir_fd=source)
    try:
        if is_folder:
            os.mkdir(name, 0o700, dir_fd=target)
            new = os.open(name, os.O_RDONLY | nofollow, dir_fd=target)
        else:
            new = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=target)
        try:
            if is_folder:
                _copy_folder(old, new, owner)
            else:
                while os.sendfile(new, old, None, 2**26):
                    pass
            for attribute in os.listxattr(old):
                if attribute.startswith("user."):
                    os.setxattr(new, attribute, os.getxattr(old, attribute))
            os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
        finally:
            os.close(new)
    finally:
        os.close(old)
