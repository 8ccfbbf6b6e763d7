"""What the viewer asks a journal: plain dictionaries, a page at a time. Only one episode is read whole.

`source_files.js` answers the same filters for an exported run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field
from sqlalchemy import ColumnElement, FromClause, Select, and_, case, func, literal, or_, select

from agent_rl.config import Config
from agent_rl.errors import UserError
from agent_rl.store import schema
from agent_rl.store.journal import Journal
from agent_rl.view.sql import TaskIsTagged, TaskSays, Whole, contains, contains_in_json

BINS = 24
LONGEST_PAGE = 1000
TAGGED_GROUPS = 2000  # the groups whose tags are offered as filters
MOST_PARTNERS = 64
MOST_CHOICES = 100
_SUMMARY = ("group", "reward", "outcome", "tokens", "sampled_tokens", "attempts", "step")

_groups, _episodes, _records, _consumed = schema.groups.c, schema.trajectories.c, schema.records.c, schema.consumed.c

COLUMNS: dict[str, ColumnElement[Any]] = {
    "group": _episodes.group_index,
    "member": _episodes.member,
    "task": _episodes.task_id,
    "environment": _episodes.environment,
    "reward": _episodes.reward,
    "stop_reason": _episodes.stop_reason,
    "failure_owner": _episodes.failure_owner,
    "failure_kind": _episodes.failure_kind,
    "turns": _episodes.turns,
    "tool_calls": _episodes.tool_calls,
    "tool_errors": _episodes.tool_errors,
    "tokens": _episodes.tokens,
    "sampled_tokens": _episodes.sampled_tokens,
    "attempts": _episodes.attempts,
    "duration_s": _episodes.duration_s,
    "step": _consumed.step,
}
"""What the table of episodes shows of each, and can be sorted by."""


_TRAINED = and_(_consumed.run == _episodes.run, _consumed.group_index == _episodes.group_index)
_TABLE = schema.trajectories.outerjoin(schema.consumed, _TRAINED)


class EpisodeQuery(Config):
    """Which episodes, in which order. Ranges include their ends; an episode without the value is not in one."""

    task: str = Field(default="", description="Part of the task's id or text, in any case.")
    outcome: Literal["", "success", "unsuccessful", "excluded"] = Field(
        default="", description="Whether it reached the threshold of success, or counts for nothing."
    )
    stop: str = Field(default="", description="Why it ended.")
    owner: str = Field(default="", description="Who is to blame for its failure.")
    kind: str = Field(default="", description="What failed.")
    tag: str = Field(default="", description="A tag of its task.")
    environment: str = Field(default="", description="The environment of its task.")
    reward_min: float | None = Field(default=None, description="The least reward.")
    reward_max: float | None = Field(default=None, description="The largest reward.")
    turns_min: float | None = Field(default=None, description="The fewest turns.")
    turns_max: float | None = Field(default=None, description="The most turns.")
    tokens_min: float | None = Field(default=None, description="The fewest tokens, of all segments.")
    tokens_max: float | None = Field(default=None, description="The most tokens, of all segments.")
    duration_min: float | None = Field(default=None, description="The shortest, in seconds.")
    duration_max: float | None = Field(default=None, description="The longest, in seconds.")
    step_min: float | None = Field(default=None, description="The first training step that consumed it.")
    step_max: float | None = Field(default=None, description="The last training step that consumed it.")
    sort: str = Field(default="group", description="A column; a minus before it sorts downwards.")
    offset: int = Field(default=0, ge=0, description="Episodes that are skipped.")
    limit: int = Field(default=100, ge=0, le=LONGEST_PAGE, description="Episodes that are returned.")


# --- the table of episodes ------------------------------------------------------------------------------------------


def episodes(journal: Journal, asked: EpisodeQuery, threshold: float) -> dict[str, Any]:
    """A page of the table: how many there are (`all`), how many were asked for (`total`), `rows`, and a histogram of
    the rewards of those. Raises `UserError` for a column that does not exist.
    """
    wanted = [_episodes.run == journal.run, *_conditions(journal, asked, threshold)]
    order = _order(asked.sort)
    about_steps = asked.sort.removeprefix("-") == "step" or (asked.step_min, asked.step_max) != (None, None)
    source = _TABLE if about_steps else schema.trajectories  # the join doubles the time
    sums = select(func.count(), func.min(_episodes.reward), func.max(_episodes.reward)).select_from(source)
    [(total, low, high)] = journal.rows(sums.where(*wanted))
    keys = select(_episodes.group_index, _episodes.member).select_from(source).where(*wanted).order_by(*order)
    shown = keys.offset(asked.offset).limit(asked.limit).subquery()
    same = and_(_episodes.group_index == shown.c.group_index, _episodes.member == shown.c.member)
    rows = _table(threshold, where=[_episodes.run == journal.run]).join(shown, same).order_by(*order)
    return {
        "all": count(journal),
        "total": total,
        "rows": [dict(row._mapping) for row in journal.rows(rows)],
        "histogram": [] if low is None else _histogram(journal, source, wanted, low, high),
    }


def choices(journal: Journal) -> dict[str, list[str]]:
    """The values that the filters of a run can have."""
    columns = {
        "stop": _episodes.stop_reason,
        "owner": _episodes.failure_owner,
        "kind": _episodes.failure_kind,
        "environment": _episodes.environment,
    }
    query = select(*columns.values()).where(_episodes.run == journal.run).distinct()  # one pass for all
    seen = journal.rows(query)
    found = {"outcome": ["success", "unsuccessful", "excluded"]}
    for place, name in enumerate(columns):
        found[name] = sorted({row[place] for row in seen} - {None})[:MOST_CHOICES]
    tasks = select(_groups.task).where(_groups.run == journal.run).order_by(_groups.index).limit(TAGGED_GROUPS)
    found["tag"] = sorted({tag for (task,) in journal.rows(tasks) for tag in json.loads(task)["tags"]})
    return found


def count(journal: Journal) -> int:
    """Episodes in all."""
    return journal.rows(select(func.count()).select_from(schema.trajectories).where(_episodes.run == journal.run))[0][0]


def partners(journal: Journal, task: str, threshold: float) -> list[dict[str, Any]]:
    """The first episodes of a task."""
    query = _table(threshold, where=[_episodes.run == journal.run, _episodes.task_id == task])
    return [dict(row._mapping) for row in journal.rows(query.order_by(*_order("group")).limit(MOST_PARTNERS))]


def _table(threshold: float, *, where: list[ColumnElement[bool]]) -> Select[Any]:
    shown = [column.label(name) for name, column in COLUMNS.items()]
    return select(*shown, _outcome(threshold).label("outcome")).select_from(_TABLE).where(*where)


def _outcome(threshold: float) -> ColumnElement[str]:
    return case(
        (_episodes.failure_owner.is_not(None), "excluded"),
        (_episodes.reward >= threshold - 1e-9, "success"),
        else_="unsuccessful",
    )


def _conditions(journal: Journal, asked: EpisodeQuery, threshold: float) -> list[ColumnElement[bool]]:
    at_least: Mapping[ColumnElement[Any], float | None] = {
        _episodes.reward: asked.reward_min,
        _episodes.turns: asked.turns_min,
        _episodes.tokens: asked.tokens_min,
        _episodes.duration_s: asked.duration_min,
        _consumed.step: asked.step_min,
    }
    at_most: Mapping[ColumnElement[Any], float | None] = {
        _episodes.reward: asked.reward_max,
        _episodes.turns: asked.turns_max,
        _episodes.tokens: asked.tokens_max,
        _episodes.duration_s: asked.duration_max,
        _consumed.step: asked.step_max,
    }
    found = [column >= value for column, value in at_least.items() if value is not None]
    found += [column <= value for column, value in at_most.items() if value is not None]
    equal = {
        _episodes.stop_reason: asked.stop,
        _episodes.failure_owner: asked.owner,
        _episodes.failure_kind: asked.kind,
        _episodes.environment: asked.environment,
    }
    found += [column == value for column, value in equal.items() if value]
    if asked.outcome:  # in words that an index knows
        excluded, reached = _episodes.failure_owner.is_not(None), _episodes.reward >= threshold - 1e-9
        missed = or_(~reached, _episodes.reward.is_(None))
        found += {
            "excluded": [excluded],
            "success": [~excluded, reached],
            "unsuccessful": [~excluded, missed],
        }[asked.outcome]
    if asked.task:
        said = TaskSays(_groups.task, contains(asked.task), contains_in_json(asked.task))
        named = or_(_groups.task_id.icontains(asked.task, autoescape=True), said)
        found.append(_of_groups(journal, named))
    if asked.tag:
        found.append(_of_groups(journal, TaskIsTagged(_groups.task, literal(asked.tag))))
    return found


def _of_groups(journal: Journal, condition: ColumnElement[bool]) -> ColumnElement[bool]:
    return _episodes.group_index.in_(select(_groups.index).where(_groups.run == journal.run, condition))


def _order(sort: str) -> list[ColumnElement[Any]]:
    name = sort.removeprefix("-")
    if name not in COLUMNS:
        raise UserError(f"Episodes cannot be sorted by {name!r}: choose one of {', '.join(COLUMNS)}.")
    column = COLUMNS[name]
    rest = [_episodes.group_index, _episodes.member]
    if name == "group":
        return [column.desc() if sort.startswith("-") else column, _episodes.member]
    return [(column.desc() if sort.startswith("-") else column.asc()).nulls_last(), *rest]


def _histogram(
    journal: Journal, source: FromClause, wanted: list[ColumnElement[bool]], low: float, high: float
) -> list[dict[str, Any]]:
    width = (high - low) / BINS or 1.0
    bins = BINS if high > low else 1
    position = _bin(low, width, bins)
    query = select(position, func.count()).select_from(source).where(*wanted).group_by(position)
    counts: dict[int | None, int] = dict(tuple(row) for row in journal.rows(query))  # None: without a reward
    return [{"low": low + i * width, "high": low + (i + 1) * width, "count": counts.get(i, 0)} for i in range(bins)]


def _bin(low: float, width: float, bins: int) -> ColumnElement[int]:
    position = Whole((_episodes.reward - low) / width)
    return case((position >= bins, bins - 1), else_=position)


# --- one episode ----------------------------------------------------------------------------------------------------


def episode(journal: Journal, group: int, member: int, threshold: float) -> dict[str, Any]:
    """All that was recorded of an episode but its tokens, with its siblings. Numbers that JSON does not know (NaN) are
    words. Raises `UserError` when there is none.
    """
    this = and_(_records.run == journal.run, _records.group_index == group, _records.member == member)
    query = select(_records.record, _groups.task).join(
        schema.groups, and_(_groups.run == _records.run, _groups.index == _records.group_index)
    )
    found = journal.rows(query.where(this))
    if not found:
        raise UserError(f"There is no episode {member} of group {group} in this run.")
    record, task = (json.loads(text, parse_constant=str) for text in found[0])
    siblings = _table(threshold, where=[_episodes.run == journal.run, _episodes.group_index == group])
    rows = [dict(row._mapping) for row in journal.rows(siblings.order_by(_episodes.member))]
    own = next(row for row in rows if row["member"] == member)
    names = ("member", "reward", "outcome", "stop_reason", "failure_owner", "turns")
    summary = {name: own[name] for name in _SUMMARY}
    del record["group_index"], task["prompt"]
    return record | summary | {"task": task, "siblings": [{name: row[name] for name in names} for row in rows]}


# --- the whole run --------------------------------------------------------------------------------------------------


def totals(journal: Journal) -> dict[str, Any]:
    """Sums over all episodes; `reward` is the mean of those that count."""
    counts = _episodes.failure_owner.is_(None)
    query = select(
        func.count().label("episodes"),
        func.count(_episodes.group_index.distinct()).label("groups"),
        func.avg(case((counts, _episodes.reward))).label("reward"),
        func.sum(_episodes.sampled_tokens).label("sampled_tokens"),
        func.min(_episodes.began_at).label("began_at"),
        func.min(_episodes.environment).label("environment"),
        func.count(_episodes.environment.distinct()).label("environments"),
    ).where(_episodes.run == journal.run)
    return dict(journal.rows(query)[0]._mapping)


def failures(journal: Journal) -> list[dict[str, Any]]:
    """Excluded episodes by owner and kind, the most frequent first."""
    what = (_episodes.failure_owner, _episodes.failure_kind)
    query = (
        select(*what, func.count())
        .where(_episodes.run == journal.run, _episodes.failure_owner.is_not(None))
        .group_by(*what)
        .order_by(func.count().desc(), *what)
    )
    return [{"owner": owner, "kind": kind, "count": number} for owner, kind, number in journal.rows(query)]


def evaluations(journal: Journal) -> list[tuple[str, int, dict[str, Any]]]:
    """`(name, step, report)` of all evaluations that the journal has."""
    columns = schema.evaluations.c
    query = select(columns.name, columns.step, columns.report).where(columns.run == journal.run)
    return [(name, step, json.loads(report)) for name, step, report in journal.rows(query.order_by(columns.step))]
