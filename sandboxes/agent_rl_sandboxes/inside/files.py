"""Reads, writes and lists files for the host, from inside the sandbox, so that no symlink leads the host astray.

Where the sandbox is a folder and nothing more (`beneath`), paths are resolved by the kernel below that folder: a link
that leads out of it, a race included, is refused.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from itertools import islice

from frames import CHUNK_BYTES, LENGTHS, Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_OPENAT2, _RESOLVE_BENEATH, _RESOLVE_NO_MAGICLINKS = 437, 0x08, 0x02
_SAFE = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC  # a FIFO must not hold us up


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def serve_files(stream: Stream, settings: dict[str, Any]) -> None:
    """Serve requests until the host hangs up. What the file system refuses is an answer with an `errno`."""
    workspace, beneath = settings["workspace"], settings.get("beneath", False)
    os.chdir(workspace)
    root = os.open(".", os.O_PATH | os.O_CLOEXEC) if beneath else None
    operations = {"read": _read, "write": _write, "list": _list}
    while True:
        request, length = stream.receive_header()
        path = request["path"]
        if root is not None:
            path = os.path.relpath(path, workspace) if path.startswith("/") else path
        try:
            operations[request["operation"]](stream, root, path, request, length)
        except OSError as error:
            stream.send({"errno": error.errno or errno.EIO})
        except ValueError:  # a NUL byte in the path
            stream.send({"errno": errno.EINVAL})


def _open(root: int | None, path: str, flags: int) -> int:
    if root is None:
        return os.open(path, flags | _SAFE, 0o644)
    how = _How(
        flags if flags & os.O_PATH else flags | _SAFE,
        0o644 if flags & os.O_CREAT else 0,
        _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS,
    )
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(_OPENAT2, root, os.fsencode(path), ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how)))
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    return fd


def _regular(fd: int) -> int:
    """The size of a regular file; anything else is refused."""
    status = os.fstat(fd)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "a folder")
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    return status.st_size


def _read(stream: Stream, root: int | None, path: str, request: dict[str, Any], length: int) -> None:
    fd = _open(root, path, os.O_RDONLY)
    try:
        size = _regular(fd)
        if not size:  # empty, or a file of /proc that does not know its size
            stream.send({}, os.read(fd, CHUNK_BYTES))
        elif size > request["max_bytes"]:
            raise OSError(errno.EFBIG, "larger than max_bytes")
        else:
            _stream_file(stream, fd, size)
    finally:
        os.close(fd)


def _stream_file(stream: Stream, fd: int, size: int) -> None:
    """Send a file a piece at a time: it may be larger than the memory that this process may use."""
    stream.write(LENGTHS.pack(2, size) + b"{}")
    while size:
        data = os.read(fd, min(size, CHUNK_BYTES)) or bytes(min(size, CHUNK_BYTES))  # it shrank meanwhile
        stream.write(data)
        size -= len(data)


def _write(stream: Stream, root: int | None, path: str, request: dict[str, Any], length: int) -> None:
    fd, failed = None, None
    try:
        _make_folders(root, os.path.dirname(path))
        fd = _open(root, path, os.O_WRONLY | os.O_CREAT)
        _regular(fd)
        os.ftruncate(fd, 0)
    except (OSError, ValueError) as error:
        failed = error
    while length:
        data = stream.read(min(length, CHUNK_BYTES))
        length -= len(data)
        view = memoryview(data)
        while view and failed is None and fd is not None:
            try:
                view = view[os.write(fd, view) :]
            except OSError as error:
                failed = error
    if fd is not None:
        os.close(fd)
    if failed is not None:
        raise failed
    stream.send({})


def _make_folders(root: int | None, path: str) -> None:
    if root is None:
        if path:
            os.makedirs(path, exist_ok=True)
        return
    done = ""
    for name in path.split("/"):
        if name in ("", "."):
            continue
        parent = _open(root, done or ".", os.O_PATH | os.O_DIRECTORY)
        try:
            os.mkdir(name, dir_fd=parent)
        except FileExistsError:
            pass
        finally:
            os.close(parent)
        done = f"{done}/{name}" if done else name


def _list(stream: Stream, root: int | None, path: str, request: dict[str, Any], length: int) -> None:
    fd = _open(root, path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with os.scandir(fd) as entries:
            found = [_describe(entry) for entry in islice(entries, request["max_entries"])]
    finally:
        os.close(fd)
    stream.send({"entries": found})


def _describe(entry: os.DirEntry[str]) -> tuple[str, str, int]:
    kind = "link" if entry.is_symlink() else "folder" if entry.is_dir() else "file" if entry.is_file() else "other"
    try:
        size = entry.stat(follow_symlinks=False).st_size if kind == "file" else 0
    except OSError:
        size = 0
    return os.fsencode(entry.name).decode("utf-8", "replace"), kind, size
