"""Folders of tasks: which there are, in which format, which split has them, and what is said of those left out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from agent_rl.errors import UserError
from agent_rl.seeding import derive_seed, stream
from agent_rl_envs.terminal.formats import harbor, terminal_bench
from agent_rl_envs.terminal.problems import Problem, Unsupported

OnUnsupported: TypeAlias = Literal["skip", "error"]
_READERS: dict[str, Callable[[Path], Problem]] = {
    harbor.MARK: harbor.read_harbor,
    terminal_bench.MARK: terminal_bench.read_terminal_bench,
}
_DEEPEST = 4
_SHARES = 10_000
_LOG = logging.getLogger(__name__)


def read_task(folder: Path) -> Problem:
    """The task in a folder. Raises `UserError` and `Unsupported`."""
    for mark, read in _READERS.items():
        if (folder / mark).is_file():
            return read(folder)
    raise UserError(f"{folder} is no task: it has neither {' nor '.join(_READERS)}.")


def find_tasks(source: Path, split: str, test_share: float) -> list[Path]:
    """Folders of a split's tasks, sorted; of all, if the split is empty. Raises `UserError` where there are none.

    Tasks in folders called train and test belong there; of others, names decide. A single task is in both.
    """
    if not source.is_dir():
        raise UserError(f"The folder of tasks {source} is not there: give a folder with tasks, or one task's own.")
    if split and (source / split).is_dir():
        found = _below(source / split, 0)
    else:
        found = _below(source, 0)
        if split and len(found) > 1:
            found = [folder for folder in found if _is_test(source, folder, test_share) == (split == "test")]
    if not found:
        marks, of = " or ".join(_READERS), f" for the split {split}" if split else ""
        raise UserError(f"{source} has no tasks{of}: a task is a folder with {marks}.")
    return found


def _below(folder: Path, depth: int) -> list[Path]:
    if any((folder / mark).is_file() for mark in _READERS):
        return [folder]
    if depth == _DEEPEST:
        return []
    inner = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [task for path in inner for task in _below(path, depth + 1)]


def _is_test(source: Path, folder: Path, share: float) -> bool:
    return derive_seed("terminal split", str(folder.relative_to(source))) % _SHARES < share * _SHARES


def sample_tasks(
    folders: Sequence[Path],
    count: int,
    seed: int,
    on_unsupported: OnUnsupported,
    why_not: Callable[[Problem], str | None],
) -> list[Problem]:
    """`count` tasks that can be run, in an order drawn by `seed`; fewer where there are no more.

    `why_not` says of a task why it cannot be run here. Raises `UserError` for that with `on_unsupported="error"`, and
    where none is left.
    """
    problems: list[Problem] = []
    refused: Counter[str] = Counter()
    for index in stream("terminal tasks", seed).permutation(len(folders)):
        if len(problems) == count:
            break
        folder = folders[int(index)]
        try:
            problem = read_task(folder)
            reason = why_not(problem)
        except Unsupported as error:
            problem, reason = None, str(error)
        if reason is None and problem is not None:
            problems.append(problem)
        elif on_unsupported == "error":
            raise UserError(f"The task {folder} cannot be run here: {reason} (`on_unsupported skip` leaves it out).")
        else:
            refused[f"{folder.name}: {reason}"] += 1
    if refused:
        _LOG.warning("%d tasks are left out: %s.", len(refused), "; ".join(sorted(refused)))
    if refused and not problems:
        raise UserError(f"None of the tasks can be run here: {'; '.join(sorted(refused)[:3])}.")
    return problems
