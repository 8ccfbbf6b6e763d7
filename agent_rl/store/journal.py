"""The journal of a run: finished groups, what training consumed and saw, evaluations. Knows no trainer.

When `append_group` returns, the group survives kill -9 and power loss (see `database`). A group takes seconds to roll
out; one fsync is milliseconds.

Resume. After a crash the trainer loads checkpoint (step s, next group n), calls `rewind(s)`, takes `load_groups(n)`
without running them again, and trains steps s + 1, ... on the same groups in the same order.

Calls block: an asynchronous caller makes them in a worker thread. One thread at a time may use a `Journal`.
"""

from __future__ import annotations

import functools
import itertools
import json
import logging
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from sqlalchemy import ColumnElement, Connection, Executable, Table, and_, delete, insert, select, true, update
from sqlalchemy.exc import IntegrityError

from agent_rl.errors import UserError
from agent_rl.store import records, schema, summaries, trained_tokens
from agent_rl.store.checkpoint import FOLDER, Checkpoint
from agent_rl.store.database import Database
from agent_rl.store.trained_tokens import TrainedTokens
from agent_rl.types import Group, Task, Trajectory

_log = logging.getLogger(__name__)


class Score(NamedTuple):
    """What became of an episode. `reward` is None where it is not a number; `failure_owner` where nothing failed."""

    group_index: int
    task_id: str
    reward: float | None
    failure_owner: str | None


class Journal:
    """The journal of the run whose `schema.runs.key` is `run`. Owns the database. `store.opening` makes one.

    Use it as a context manager, or call `close`. All methods raise `UserError` when the database cannot be used.
    """

    def __init__(self, database: Database, run: int) -> None:
        self.run = run
        self._database = database

    # --- groups ---

    def append_group(self, group: Group) -> None:
        """Durable on return. A group that is already there stays as it is: it may have been trained on.

        Raises `UserError` when a record holds something that is not JSON, `ValueError` on a malformed segment or when
        a member is not an episode of the group's task.
        """
        found = summaries.rows_of(group, self.run)
        there = select(schema.groups.c.index).where(self._own(schema.groups), schema.groups.c.index == group.index)

        def work(connection: Connection) -> None:
            if connection.execute(there).first() is None:
                for table, rows in found:
                    if table is schema.tool_sets:
                        self._keep_tool_sets(connection, rows)
                    else:
                        connection.execute(insert(table), rows)

        self._database.transact(work)

    def _keep_tool_sets(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert those that are new. One that is damaged is made good: its hash says what it was."""
        known = self._definitions(connection, schema.tool_sets.c.hash.in_([row["hash"] for row in rows]))
        for row in rows:
            same = and_(self._own(schema.tool_sets), schema.tool_sets.c.hash == row["hash"])
            if row["hash"] not in known:
                connection.execute(insert(schema.tool_sets), row)
            elif known[row["hash"]] != row["definitions"]:
                connection.execute(update(schema.tool_sets).where(same).values(definitions=row["definitions"]))

    def _definitions(self, connection: Connection, which: ColumnElement[bool]) -> dict[str | None, str]:
        """The texts of tool sets by hash, and nothing for episodes that have none."""
        columns = schema.tool_sets.c
        found = connection.execute(select(columns.hash, columns.definitions).where(self._own(schema.tool_sets), which))
        return {None: "", **dict(found.tuples().all())}

    def load_groups(self, from_index: int = 0) -> dict[int, Group]:
        """All groups with an index of at least `from_index`, ascending (gaps are possible); members by `member`."""
        return self._read(schema.groups.c.index >= from_index, schema.records.c.group_index >= from_index)

    def read_groups(self, indices: Sequence[int]) -> dict[int, Group]:
        """The groups of these indices, ascending; those that are not there are left out."""
        return self._read(schema.groups.c.index.in_(indices), schema.records.c.group_index.in_(indices))

    def _read(self, of_groups: ColumnElement[bool], of_members: ColumnElement[bool]) -> dict[int, Group]:
        groups, members = schema.groups.c, schema.records.c
        heads = select(groups.index, groups.task).where(self._own(schema.groups), of_groups).order_by(groups.index)
        bodies = (
            select(members.group_index, members.record, members.token_rows, members.tools, members.checksum)
            .where(self._own(schema.records), of_members)
            .order_by(members.group_index, members.member)
        )
        used = schema.tool_sets.c.hash.in_(select(members.tools).where(self._own(schema.records), of_members))

        def work(connection: Connection) -> dict[int, Group]:
            texts: dict[int, str] = dict(connection.execute(heads).tuples().all())
            trajectories: dict[int, list[Trajectory]] = {index: [] for index in texts}
            tasks: dict[int, Task] = {}
            definitions = self._definitions(connection, used)
            tools_from_json = functools.cache(records.tools_from_json)
            for index, record, token_rows, hash, checksum in connection.execute(bodies):
                tools = definitions.get(hash, "")
                if checksum != records.checksum(texts[index], record, token_rows, tools):
                    raise UserError(
                        f"Group {index} in {self._database.name} is damaged: it differs from its checksum. Restore the "
                        "store from a copy, or begin another run."
                    )
                task = tasks.setdefault(index, records.task_from_json(texts[index]))
                segments = records.segments_from_blob(token_rows)
                episode = records.trajectory_from_json(record, task, segments, tools_from_json(tools))
                trajectories[index].append(episode)
            return {
                index: Group(index, tasks.get(index) or records.task_from_json(text), tuple(trajectories[index]))
                for index, text in texts.items()
            }

        return self._database.transact(work)

    def set_aside_damaged(self, folder: Path) -> list[int]:
        """Move groups that differ from their checksum into `folder`, to be rolled out again. For the run's owner.

        Returns their indices. A consumed group stays where it is: training saw it, so nothing can take its place.
        """
        groups, members = schema.groups.c, schema.records.c
        query = (
            select(
                *(groups.index, groups.task, members.member),
                *(members.record, members.token_rows, members.tools, members.checksum),
            )
            .join_from(
                schema.groups, schema.records, and_(members.run == groups.run, members.group_index == groups.index)
            )
            .where(self._own(schema.groups))
            .where(groups.index.not_in(select(schema.consumed.c.group_index).where(self._own(schema.consumed))))
        )

        def work(connection: Connection) -> list[int]:
            damaged: defaultdict[int, list[str]] = defaultdict(list)
            tools = self._definitions(connection, true())
            for index, task, member, record, token_rows, hash, checksum in connection.execute(query):
                if checksum != records.checksum(task, record, token_rows, tools.get(hash, "")):
                    damaged[index].append(f"{member} {task!r} {record!r} {token_rows.hex()}\n")
            for index, lines in damaged.items():
                aside = folder / f"damaged-group-{index:08d}.txt"
                aside.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")
                connection.execute(delete(schema.groups).where(self._own(schema.groups), groups.index == index))
                _log.warning("Group %d is damaged: set aside as %s, to be rolled out again", index, aside)
            return sorted(damaged)

        return self._database.transact(work)

    # --- questions ---

    def environment(self) -> dict[str, Any] | None:
        """What the run played, as `registry.environment_to_json` writes it; None where nothing is known of it."""
        [(text,)] = self.rows(select(schema.runs.c.environment).where(schema.runs.c.key == self.run))
        return None if text is None else json.loads(text)

    def rows(self, query: Executable) -> Sequence[Any]:
        """What a query of the tables in `schema` finds. It has to say `run == journal.run` itself."""
        return self._database.transact(lambda connection: connection.execute(query).all())

    def scores(self) -> list[Score]:
        """The outcome of every episode, by group and member, without reading the episodes."""
        members = schema.trajectories.c
        query = (
            select(members.group_index, members.task_id, members.reward, members.failure_owner)
            .where(self._own(schema.trajectories))
            .order_by(members.group_index, members.member)
        )
        return [Score(*row) for row in self.rows(query)]

    # --- what the trainer did ---

    def mark_consumed(self, step: int, indices: Sequence[int]) -> None:
        """Record that training step `step` consumes these groups in this order. Repeating a step replaces its record.

        Raises `ValueError` when a group is not in the journal, or belongs to another step.
        """
        rows = [{"run": self.run, "group_index": index, "step": step, "position": i} for i, index in enumerate(indices)]
        try:
            self._replace(schema.consumed, schema.consumed.c.step == step, rows)
        except IntegrityError as error:
            raise ValueError(f"step {step} cannot consume {indices}: a group is unknown or consumed before") from error

    def consumed(self) -> list[tuple[int, tuple[int, ...]]]:
        """`(step, group indices in the order of the batch)`, by ascending step."""
        columns = schema.consumed.c
        query = select(columns.step, columns.group_index).where(self._own(schema.consumed))
        rows = self.rows(query.order_by(columns.step, columns.position))
        return [
            (step, tuple(index for _, index in batch)) for step, batch in itertools.groupby(rows, lambda row: row[0])
        ]

    def latest_consumed(self, count: int) -> list[int]:
        """The last `count` groups that were consumed, in the order of consumption."""
        columns = schema.consumed.c
        query = select(columns.group_index).where(self._own(schema.consumed))
        rows = self.rows(query.order_by(columns.step.desc(), columns.position.desc()).limit(count))
        return [index for (index,) in rows][::-1]

    def add_trained_tokens(self, step: int, tokens: Sequence[TrainedTokens]) -> None:
        """Keep what the trainer saw at step `step`. Repeating a step replaces its record."""
        rows = [
            {
                "run": self.run,
                "group_index": one.group_index,
                "member": one.member,
                "segment": one.segment,
                "step": step,
                "seen": trained_tokens.to_blob(one),
            }
            for one in tokens
        ]
        self._replace(schema.trained_tokens, schema.trained_tokens.c.step == step, rows)

    def trained_tokens(self, group_index: int) -> list[TrainedTokens]:
        """What the trainer saw of a group, by member, segment and step."""
        columns = schema.trained_tokens.c
        query = (
            select(columns.member, columns.segment, columns.step, columns.seen)
            .where(self._own(schema.trained_tokens), columns.group_index == group_index)
            .order_by(columns.member, columns.segment, columns.step)
        )
        return [
            TrainedTokens(group_index, member, segment, step, *trained_tokens.from_blob(seen))
            for member, segment, step, seen in self.rows(query)
        ]

    def index_checkpoints(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Record which checkpoints there are: all of them, for the folders are the truth."""
        columns = schema.checkpoints.c

        def work(connection: Connection) -> None:
            steps = [checkpoint.step for checkpoint in checkpoints]
            connection.execute(
                delete(schema.checkpoints).where(self._own(schema.checkpoints), columns.step.not_in(steps))
            )
            known = set(connection.execute(select(columns.step).where(self._own(schema.checkpoints))).scalars())
            rows = [
                {
                    "run": self.run,
                    "step": checkpoint.step,
                    "path": f"{FOLDER}/{checkpoint.path.name}",
                    "next_group_index": checkpoint.next_group_index,
                    "weight_version": checkpoint.weight_version,
                    "saved_at": time.time(),
                }
                for checkpoint in checkpoints
                if checkpoint.step not in known
            ]
            if rows:
                connection.execute(insert(schema.checkpoints), rows)

        self._database.transact(work)

    def rewind(self, step: int) -> None:
        """Forget what was consumed, seen and evaluated after `step`, for a trainer that resumes there. Groups stay."""

        def work(connection: Connection) -> None:
            for table in (schema.consumed, schema.trained_tokens, schema.evaluations):
                connection.execute(delete(table).where(self._own(table), table.c.step > step))

        self._database.transact(work)

    # --- evaluations ---

    def add_evaluation(self, name: str, step: int, report: Mapping[str, Any]) -> None:
        """Store a JSON report under (name, step), replacing an earlier one."""
        columns = schema.evaluations.c
        row = {"run": self.run, "name": name, "step": step, "report": json.dumps(dict(report))}
        self._replace(schema.evaluations, and_(columns.name == name, columns.step == step), [row])

    def evaluations(self, name: str) -> list[tuple[int, dict[str, Any]]]:
        """`(step, report)` by ascending step."""
        columns = schema.evaluations.c
        query = select(columns.step, columns.report).where(self._own(schema.evaluations), columns.name == name)
        return [(step, json.loads(report)) for step, report in self.rows(query.order_by(columns.step))]

    # --- lifetime ---

    def close(self) -> None:
        """Idempotent."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def _own(self, table: Table) -> ColumnElement[bool]:
        return table.c.run == self.run

    def _replace(self, table: Table, which: ColumnElement[bool], rows: Sequence[Mapping[str, Any]]) -> None:
        def work(connection: Connection) -> None:
            connection.execute(delete(table).where(self._own(table), which))
            if rows:
                connection.execute(insert(table), rows)

        self._database.transact(work)
