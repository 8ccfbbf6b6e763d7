"""The formats by name, and how their files are written and read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from agent_rl.errors import UserError, not_found
from agent_rl.exchange import atif, chat, parquet, verifiers, verifiers_traces, verl
from agent_rl.exchange.conversation import Row
from agent_rl.types import Group


class Format(NamedTuple):
    """`read` is None where a file does not hold enough to be read back."""

    write: Callable[[Iterable[Group], Path], None]
    read: Callable[[Path], Iterator[Group]] | None = None


def _jsonl(to_rows: Callable[[Group], Iterator[Row]]) -> Callable[[Iterable[Group], Path], None]:
    def write(groups: Iterable[Group], path: Path) -> None:
        with path.open("w", encoding="utf-8") as file:
            for group in groups:
                file.writelines(f"{json.dumps(row)}\n" for row in to_rows(group))

    return write


def _from_jsonl(from_rows: Callable[[Iterable[Row]], Iterator[Group]]) -> Callable[[Path], Iterator[Group]]:
    def read(path: Path) -> Iterator[Group]:
        lines = _Lines(path)
        try:
            yield from from_rows(lines)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            what = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise UserError(f"{path}, line {lines.number}: {what}.") from error

    return read


class _Lines:
    """The objects in a file of JSON lines; `number` is that of the last one read, from 1."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.number = 0

    def __iter__(self) -> Iterator[Row]:
        with self._path.open(encoding="utf-8") as file:
            for self.number, line in enumerate(file, 1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise ValueError(f"a row is a JSON object, not {type(row).__name__}")
                    yield row


def _write_parquet(groups: Iterable[Group], path: Path) -> None:
    parquet.write((row for group in groups for row in parquet.to_rows(group)), path)


def _read_parquet(path: Path) -> Iterator[Group]:
    return parquet.from_rows(parquet.read(path))


def _write_verl(groups: Iterable[Group], path: Path) -> None:
    rows = (row for group in groups for row in verl.task_rows(group))
    parquet.write(rows, path, parquet.verl_schema())


FORMATS: Mapping[str, Format] = {
    "atif": Format(_jsonl(atif.to_rows), _from_jsonl(atif.from_rows)),
    "chat": Format(_jsonl(chat.to_rows), _from_jsonl(chat.from_rows)),
    "parquet": Format(_write_parquet, _read_parquet),
    "verifiers": Format(_jsonl(verifiers.to_rows), _from_jsonl(verifiers.from_rows)),
    "verifiers_traces": Format(_jsonl(verifiers_traces.to_rows), _from_jsonl(verifiers_traces.from_rows)),
    "verl": Format(_write_verl),
    "verl_rollouts": Format(_jsonl(verl.rollout_rows)),
}


def get_format(name: str) -> Format:
    """By name. Raises `NotFoundError` for an unknown one."""
    if name not in FORMATS:
        raise not_found("format", name, FORMATS)
    return FORMATS[name]


def write_groups(groups: Iterable[Group], path: Path, format: str) -> None:
    """A file of these groups, there under its name when it is complete.

    Raises `UserError` when it exists already, or cannot be written.
    """
    if path.exists():
        raise UserError(f"{path} exists already: name another file, or remove it.")
    unfinished = path.with_name(f"{path.name}.part")
    try:
        get_format(format).write(groups, unfinished)
        unfinished.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        unfinished.unlink(missing_ok=True)


def read_groups(path: Path, format: str) -> Iterator[Group]:
    """The groups of a file, one after another.

    Raises `UserError` for a format that cannot be read back, and where the file is not of it.
    """
    read = get_format(format).read
    if read is None:
        there = ", ".join(name for name, known in FORMATS.items() if known.read is not None)
        raise UserError(f"A file of {format} does not hold enough to be read back; these do: {there}.")
    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    return read(path)
