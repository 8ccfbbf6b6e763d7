"""The checker of tasks that are made up: reads what is expected, looks, and says what holds. A program of its own.

    python3 -I check.py EXPECTED.json FOLDER

Writes FOLDER/ctrf.json and FOLDER/reward.txt, 1 if all holds and else 0. All that it needs is read before any program
of the agent's is run, and all that those start has ended before it writes. Standard library only, Python 3.9.
"""

from __future__ import annotations

import csv
import ctypes
import hashlib
import io
import json
import os
import signal
import stat
import subprocess
import sys
import tarfile
import time
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PR_SET_CHILD_SUBREAPER = 36
_LONGEST_RUN_S = 20
_FIELDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))


def text(check: dict[str, Any]) -> bool:
    """A file's text, blanks at its end aside; the order of lines does not count with `sorted`."""
    found = Path(check["path"]).read_text("utf-8").rstrip().split("\n")
    wanted = check["text"].rstrip().split("\n")
    found = [line.rstrip() for line in found]
    return sorted(found) == sorted(wanted) if check.get("sorted") else found == wanted


def value(check: dict[str, Any]) -> bool:
    """A JSON file's value; numbers to a billionth."""
    return _alike(json.loads(Path(check["path"]).read_text("utf-8")), check["value"])


def _alike(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return (
            isinstance(found, dict) and set(found) == set(wanted) and all(_alike(found[k], wanted[k]) for k in wanted)
        )
    if isinstance(wanted, list):
        if not isinstance(found, list) or len(found) != len(wanted):
            return False
        return all(_alike(found[index], wanted[index]) for index in range(len(wanted)))
    if isinstance(wanted, float) or isinstance(found, float):
        numbers = isinstance(found, (int, float)) and isinstance(wanted, (int, float))
        return numbers and abs(found - wanted) <= 1e-9 * max(1.0, abs(wanted))
    return type(found) is type(wanted) and found == wanted


def table(check: dict[str, Any]) -> bool:
    """A CSV file's rows, header included."""
    rows = list(csv.reader(io.StringIO(Path(check["path"]).read_text("utf-8"))))
    return [row for row in rows if row] == check["rows"]


def mode(check: dict[str, Any]) -> bool:
    """A path's permissions."""
    return oct(stat.S_IMODE(os.lstat(check["path"]).st_mode)) == check["mode"]


def link(check: dict[str, Any]) -> bool:
    """A symbolic link that leads to a path; `relative` if it must be written so."""
    path = Path(check["path"])
    is_written_so = not check["relative"] or not path.readlink().is_absolute()
    return path.is_symlink() and is_written_so and str(path.resolve()) == check["target"]


def absent(check: dict[str, Any]) -> bool:
    """Nothing is there."""
    return not os.path.lexists(check["path"])


def content(check: dict[str, Any]) -> bool:
    """A regular file's SHA-256."""
    path = Path(check["path"])
    return not path.is_symlink() and hashlib.sha256(path.read_bytes()).hexdigest() == check["sha256"]


def archive(check: dict[str, Any]) -> bool:
    """The files of a tar, compressed as its name says, and nothing else but folders."""
    with tarfile.open(check["path"], "r:" + check["compression"]) as tar:
        members = [member for member in tar.getmembers() if not member.isdir()]
        found = {member.name: _digest(tar, member) for member in members}
    return len(found) == len(members) and found == check["files"]


def _digest(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    data = tar.extractfile(member) if member.isreg() else None
    return hashlib.sha256(data.read()).hexdigest() if data else "no file"


def cron(check: dict[str, Any]) -> bool:
    """A crontab whose commands start at exactly the same times."""
    lines = [line.split(None, 5) for line in Path(check["path"]).read_text("utf-8").splitlines()]
    entries = [line for line in lines if line and not line[0].startswith("#")]
    found = sorted((line[5].strip(), _schedule(line[:5])) for line in entries)
    return found == sorted((command, _schedule(plan.split())) for command, plan in check["entries"])


def _schedule(fields: list[str]) -> list[list[int]]:
    return [_times(field, bounds) for field, bounds in zip(fields, _FIELDS)]  # noqa: B905  # not in Python 3.9


def _times(field: str, bounds: tuple[int, int]) -> list[int]:
    """The numbers that a field of a crontab stands for."""
    first, last = bounds
    found = set[int]()
    for part in field.split(","):
        span, _, step = part.partition("/")
        low, _, high = span.partition("-")
        if span == "*":
            numbers = range(first, last + 1, int(step or 1))
        else:
            end = int(high) if high else (last if step else int(low))
            numbers = range(int(low), end + 1, int(step or 1))
        found.update(0 if number == 7 and bounds == (0, 6) else number for number in numbers)
    if not found or min(found) < first or max(found) > last:
        raise ValueError(field)
    return sorted(found)


def runs(check: dict[str, Any]) -> bool:
    """A command's exit code and output. Files that it needs are written first."""
    for path, written in check.get("files", {}).items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(written, "utf-8")
    process = subprocess.Popen(
        check["command"],
        cwd=check["folder"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(check.get("stdin", "").encode(), _LONGEST_RUN_S)
    finally:
        end_all()
    same = output.decode("utf-8", "replace").rstrip() == check["output"].rstrip()
    return same and process.returncode == check.get("exit_code", 0)


def end_all() -> None:
    """End everything that was started, whatever it forked into: orphans are this process's children."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        try:
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii").split()
        except OSError:
            return
        if not children:
            return
        for pid in map(int, children):
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except OSError:
                pass


KINDS = {
    function.__name__: function for function in (text, value, table, mode, link, absent, content, archive, cron, runs)
}


def holds(check: dict[str, Any]) -> bool:
    """Whether one thing is as expected; what cannot be looked at is not."""
    try:
        return KINDS[check["kind"]](check)
    except Exception:  # noqa: BLE001  # whatever the agent left there
        return False


def main() -> None:
    """See the module."""
    expected, folder = json.loads(Path(sys.argv[1]).read_text("utf-8")), Path(sys.argv[2])
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    results = [(check["name"], holds(check)) for check in expected]
    end_all()
    passed = sum(held for _, held in results)
    summary = {"tests": len(results), "passed": passed, "failed": len(results) - passed, "skipped": 0}
    tests = [{"name": name, "status": "passed" if held else "failed", "duration": 0} for name, held in results]
    report = {"results": {"tool": {"name": "check.py"}, "summary": summary, "tests": tests}}
    folder.mkdir(parents=True, exist_ok=True)
    for name, said in (("ctrf.json", json.dumps(report)), ("reward.txt", f"{int(passed == len(results))}\n")):
        if os.path.lexists(folder / name):
            (folder / name).unlink()
        (folder / name).write_text(said, "utf-8")
    sys.stdout.write("".join(f"{'ok' if held else 'NOT OK'}  {name}\n" for name, held in results))


if __name__ == "__main__":
    main()
