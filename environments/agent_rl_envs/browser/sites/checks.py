"""Whether a task is done: the final database against the wanted one as a whole, and an answer against the right one.

Pure. Texts are compared without case, repeated blanks and what may stand around them (quotes, full stops); ids of
added rows are not compared.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from agent_rl_envs.browser.sites.database import Record, Row, Tables, row_of

What: TypeAlias = Literal["added", "changed", "removed"]
_NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Change:
    """One row that differs: its values if it was added, the new values if it was changed."""

    what: What
    table: str
    id: int
    values: Row

    def same(self, other: Change) -> bool:
        """Whether both say the same; which id an added row got does not matter."""
        if (self.what, self.table) != (other.what, other.table) or self.values.keys() != other.values.keys():
            return False
        if self.what != "added" and self.id != other.id:
            return False
        return all(_plain(value) == _plain(other.values[name]) for name, value in self.values.items())


def added(record: Record) -> Change:
    """This record is wanted, all of it."""
    return Change("added", record.__tablename__, 0, _values(record))


def changed(record: Record, **values: Any) -> Change:
    """These columns of a record are wanted to be so; at least one is another now."""
    return Change("changed", record.__tablename__, record.id, values)


def removed(record: Record) -> Change:
    """This record is not wanted any more."""
    return Change("removed", record.__tablename__, record.id, {})


def changes(before: Tables, after: Tables) -> list[Change]:
    """What differs between two states, row by row."""
    found: list[Change] = []
    for table, old in before.items():
        new = after[table]
        found += [Change("removed", table, id, {}) for id in old.keys() - new.keys()]
        found += [Change("added", table, id, _without_id(new[id])) for id in sorted(new.keys() - old.keys())]
        for id in old.keys() & new.keys():
            if differing := {name: value for name, value in new[id].items() if value != old[id][name]}:
                found.append(Change("changed", table, id, differing))
    return found


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many of the wanted changes were made, of how many, and how many others."""

    made: int
    wanted: int
    others: int


def compare(before: Tables, after: Tables, wanted: Sequence[Change]) -> Outcome:
    """Each wanted change counts once."""
    left = changes(before, after)
    made = 0
    for one in wanted:
        met = next((change for change in left if change.same(one)), None)
        if met is not None:
            left.remove(met)
            made += 1
    return Outcome(made, len(wanted), len(left))


def says(reply: str, answer: str) -> bool:
    """Whether a reply is the answer: the same text, the same texts between commas in any order, or, for a number, one
    with that number alone in it."""
    if _plain(reply) == _plain(answer):
        return True
    if "," in answer and sorted(map(_plain, reply.split(","))) == sorted(map(_plain, answer.split(","))):
        return True
    numbers = [float(number.replace(",", "")) for number in _NUMBER.findall(reply)]
    return bool(_NUMBER.fullmatch(answer)) and numbers == [float(answer)]


def _plain(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return " ".join(value.split()).casefold().strip(" '\".")


def _values(record: Record) -> Row:
    kept = {column.name for column in record.__table__.columns if not column.info.get("incidental")}
    return _without_id({name: value for name, value in row_of(record).items() if name in kept})


def _without_id(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != "id"}
