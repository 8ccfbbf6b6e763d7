"""Mounts by system call: private namespaces, tmpfs, overlays, folders shown with other owners. Nothing of sandboxes."""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE, _MNT_DETACH = 2, 4, 4096, 16384, 1 << 18, 2
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_AT_FDCWD, _OPEN_TREE_CLONE, _AT_EMPTY_PATH, _MOVE_MOUNT_F_EMPTY_PATH = -100, 1, 0x1000, 4
_MOUNT_ATTR_IDMAP = 0x00100000


class _MountAttributes(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd"))


def enter_own_namespace() -> bool:
    """Leave the host's mounts alone from now on; False where the kernel does not let us."""
    uid, gid = os.getuid(), os.getgid()
    try:
        _unshare(_CLONE_NEWNS if uid == 0 else _CLONE_NEWUSER | _CLONE_NEWNS)
        if uid:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
            Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
        mount("none", Path("/"), "", _MS_REC | _MS_PRIVATE)
    except OSError:
        return False
    return True


def try_tmpfs(folder: Path, size_mb: int = 64, options: str = "mode=0711") -> bool:
    """Mount a file system in memory, of at most `size_mb`; False where that is not allowed."""
    try:
        mount("agent-rl", folder, "tmpfs", _MS_NOSUID | _MS_NODEV, f"size={size_mb}m,{options}")
    except OSError:
        return False
    return True


def bind(source: Path, target: Path) -> None:
    """Show `source` at `target` too."""
    mount(str(source), target, "", _MS_BIND)


def overlay(lower: Path, upper: Path, work: Path, target: Path) -> None:
    """Show `lower` at `target`, with every change kept in `upper`. Unsynced: it does not survive the machine."""
    for path in (lower, upper, work):
        if set(str(path)) & set(",:\\"):
            raise OSError(f"an overlay cannot be made of {path}: its name has one of ,:\\")
    options = f"lowerdir={lower},upperdir={upper},workdir={work},userxattr"
    try:
        mount("overlay", target, "overlay", _MS_NOSUID | _MS_NODEV, f"{options},volatile")
    except OSError:  # kernels before 5.10 know no volatile
        mount("overlay", target, "overlay", _MS_NOSUID | _MS_NODEV, options)


def can_be_lower(folder: Path) -> bool:
    """Whether files of `folder` can be changed in an overlay: without root, only those of our own user and group.

    The folder stands for all that is in it.
    """
    status = folder.stat()
    return os.getuid() == 0 or (status.st_uid, status.st_gid) == (os.getuid(), os.getgid())


def can_overlay(scratch: Path) -> bool:
    """Whether `overlay` works in this place."""
    folders = [scratch / "probe" / name for name in ("lower", "upper", "work", "merged")]
    for folder in folders:
        folder.mkdir(parents=True)
    try:
        overlay(*folders)
        unmount(folders[-1])
    except OSError:
        return False
    finally:
        shutil.rmtree(scratch / "probe", ignore_errors=True)
    return True


def bind_as_owner(source: Path, target: Path, owner: int) -> bool:
    """Show `source` at `target` with what its owner owns owned by `owner`; False where the kernel cannot (idmap)."""
    status = source.stat()
    users = _namespace_mapping(status.st_uid, status.st_gid, owner)
    try:
        tree = _call(_OPEN_TREE, _AT_FDCWD, os.fsencode(source), _OPEN_TREE_CLONE | os.O_CLOEXEC)
        attributes = _MountAttributes(_MOUNT_ATTR_IDMAP, 0, 0, users)
        size = ctypes.c_size_t(ctypes.sizeof(attributes))
        _call(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, ctypes.byref(attributes), size)
        _call(_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH)
        os.close(tree)
    except OSError:
        return False
    finally:
        os.close(users)
    return True


def _namespace_mapping(uid: int, gid: int, owner: int) -> int:
    """A user namespace that maps `uid` and `gid` to `owner`, as a descriptor."""
    ready, done = os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        try:
            _unshare(_CLONE_NEWUSER)
            os.write(ready[1], b"1")
            os.close(done[1])
            os.read(done[0], 1)
        finally:
            os._exit(0)
    try:
        os.close(ready[1])
        os.read(ready[0], 1)
        Path(f"/proc/{pid}/uid_map").write_text(f"{uid} {owner} 1")
        Path(f"/proc/{pid}/gid_map").write_text(f"{gid} {owner} 1")
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        for fd in (ready[0], *done):
            os.close(fd)
        os.waitpid(pid, 0)


def unmount(target: Path) -> None:
    """Unmount now, whoever still uses it."""
    _checked(_LIBC.umount2(os.fsencode(target), _MNT_DETACH), target)


def mount(source: str, target: Path, kind: str, flags: int, options: str = "") -> None:
    """mount(2). Raises `OSError`."""
    texts = [os.fsencode(text) or None for text in (source, str(target), kind)]
    _checked(_LIBC.mount(*texts, ctypes.c_ulong(flags), options.encode() or None), target)


def _unshare(flags: int) -> None:
    _checked(_LIBC.unshare(flags), "unshare")


def _call(number: int, *arguments: object) -> int:
    return _checked(_LIBC.syscall(ctypes.c_long(number), *arguments), number)


def _checked(result: int, what: object) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(what))
    return result
