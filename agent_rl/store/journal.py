"""The journal of a run: finished groups, what training consumed, evaluations. Knows the database, not the trainer.

Durability. SQLite in WAL mode with `synchronous=FULL`: when `append_group` returns, the group has been fsynced and
survives kill -9 and power loss. (`NORMAL` would survive kill -9 but may lose the last commits with the power, and then
a durable checkpoint could name groups that are gone.) A group takes seconds to roll out; one fsync is milliseconds.

Resume. After a crash the trainer loads checkpoint (step s, next group n), calls `rewind(s)`, takes `load_groups(n)`
without running them again, and trains steps s + 1, ... on the same groups in the same order.

Calls block: an asynchronous caller makes them in a worker thread. One thread at a time may use a `Journal`.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from sqlalchemy import ColumnElement, create_engine, delete, event, insert, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import DatabaseError, IntegrityError

from agent_rl.errors import UserError
from agent_rl.store import records, schema
from agent_rl.types import Group, Trajectory

LOCK_TIMEOUT_S = 30


class Score(NamedTuple):
    """What became of an episode. `reward` is None where it is not a number; `failure_owner` where nothing failed."""

    group_index: int
    task_id: str
    reward: float | None
    failure_owner: str | None


class Journal:
    """Opens or creates the journal at `path`; use it as a context manager, or call `close`.

    Raises `UserError` when the file is not a journal of this version.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        url = URL.create("sqlite", database=str(self.path))
        self._engine = create_engine(url, connect_args={"timeout": LOCK_TIMEOUT_S})
        event.listen(self._engine, "connect", _configure)
        try:
            self._open()
        except DatabaseError as error:
            self.close()
            raise UserError(f"{self.path} cannot be opened as a journal: {error.orig}") from error

    def _open(self) -> None:
        with self._engine.begin() as connection:
            schema.metadata.create_all(connection)
            version = connection.execute(select(schema.store.c.version)).scalar()
            if version is None:
                connection.execute(insert(schema.store).values(version=schema.SCHEMA_VERSION))
        if version not in (None, schema.SCHEMA_VERSION):
            self.close()
            raise UserError(
                f"{self.path} has schema version {version}, this agent-rl reads version {schema.SCHEMA_VERSION}: "
                "use the agent-rl that wrote it, or another run folder."
            )

    # --- groups ---

    def append_group(self, group: Group) -> None:
        """Durable on return. A group that is already there stays as it is: it may have been trained on.

        Raises `UserError` when a record holds something that is not JSON, `ValueError` on a malformed segment or when
        a member is not an episode of the group's task.
        """
        row = {
            "index": group.index,
            "task_id": group.task.id,
            "environment": group.task.environment,
            "task": records.task_to_json(group.task),
            "finished_at": time.time(),
        }
        present = select(schema.groups.c.index).where(schema.groups.c.index == group.index)
        members = [_trajectory_row(group, trajectory) for trajectory in group.trajectories]
        with self._engine.begin() as connection:
            if connection.execute(present).first() is None:
                connection.execute(insert(schema.groups), row)
                if members:
                    connection.execute(insert(schema.trajectories), members)

    def load_groups(self, from_index: int = 0) -> dict[int, Group]:
        """All groups with an index of at least `from_index`, ascending (gaps are possible); members by `member`."""
        return self._read(schema.groups.c.index >= from_index, schema.trajectories.c.group_index >= from_index)

    def read_groups(self, indices: Sequence[int]) -> dict[int, Group]:
        """The groups of these indices, ascending; those that are not there are left out."""
        return self._read(schema.groups.c.index.in_(indices), schema.trajectories.c.group_index.in_(indices))

    def scores(self) -> list[Score]:
        """The outcome of every episode, by group and member, without reading the episodes."""
        groups, members = schema.groups.c, schema.trajectories.c
        query = (
            select(groups.index, groups.task_id, members.reward, members.failure_owner)
            .join(schema.trajectories, members.group_index == groups.index)
            .order_by(groups.index, members.member)
        )
        with self._engine.connect() as connection:
            return [Score(*row) for row in connection.execute(query)]

    def _read(self, of_groups: ColumnElement[bool], of_members: ColumnElement[bool]) -> dict[int, Group]:
        groups, members = schema.groups.c, schema.trajectories.c
        heads = select(groups.index, groups.task).where(of_groups).order_by(groups.index)
        bodies = (
            select(members.group_index, members.record, members.token_rows)
            .where(of_members)
            .order_by(members.group_index, members.member)
        )
        with self._engine.connect() as connection:
            tasks = {index: records.task_from_json(task) for index, task in connection.execute(heads)}
            trajectories: dict[int, list[Trajectory]] = {index: [] for index in tasks}
            for index, record, token_rows in connection.execute(bodies):
                segments = records.segments_from_blob(token_rows)
                trajectories[index].append(records.trajectory_from_json(record, tasks[index], segments))
        return {index: Group(index, task, tuple(trajectories[index])) for index, task in tasks.items()}

    # --- consumption ---

    def mark_consumed(self, step: int, indices: Sequence[int]) -> None:
        """Record that training step `step` consumes these groups in this order. Repeating a step replaces its record.

        Raises `ValueError` when a group is not in the journal, or belongs to another step.
        """
        rows = [{"group_index": index, "step": step, "position": i} for i, index in enumerate(indices)]
        try:
            with self._engine.begin() as connection:
                connection.execute(delete(schema.consumed).where(schema.consumed.c.step == step))
                if rows:
                    connection.execute(insert(schema.consumed), rows)
        except IntegrityError as error:
            raise ValueError(f"step {step} cannot consume {indices}: a group is unknown or consumed before") from error

    def consumed(self) -> list[tuple[int, tuple[int, ...]]]:
        """`(step, group indices in the order of the batch)`, by ascending step."""
        columns = schema.consumed.c
        query = select(columns.step, columns.group_index).order_by(columns.step, columns.position)
        with self._engine.connect() as connection:
            rows = [(int(step), int(index)) for step, index in connection.execute(query)]
        return [(step, tuple(i for _, i in batch)) for step, batch in itertools.groupby(rows, key=lambda row: row[0])]

    def latest_consumed(self, count: int) -> list[int]:
        """The last `count` groups that were consumed, in the order of consumption."""
        columns = schema.consumed.c
        query = select(columns.group_index).order_by(columns.step.desc(), columns.position.desc()).limit(count)
        with self._engine.connect() as connection:
            return [int(index) for index in connection.execute(query).scalars()][::-1]

    def rewind(self, step: int) -> None:
        """Forget what was consumed and evaluated after `step`, for a trainer that resumes there. Groups stay."""
        with self._engine.begin() as connection:
            connection.execute(delete(schema.consumed).where(schema.consumed.c.step > step))
            connection.execute(delete(schema.evaluations).where(schema.evaluations.c.step > step))

    # --- evaluations ---

    def add_evaluation(self, name: str, step: int, report: Mapping[str, Any]) -> None:
        """Store a JSON report under (name, step), replacing an earlier one."""
        columns = schema.evaluations.c
        row = {"name": name, "step": step, "report": json.dumps(dict(report))}
        with self._engine.begin() as connection:
            connection.execute(delete(schema.evaluations).where(columns.name == name, columns.step == step))
            connection.execute(insert(schema.evaluations), row)

    def evaluations(self, name: str) -> list[tuple[int, dict[str, Any]]]:
        """`(step, report)` by ascending step."""
        columns = schema.evaluations.c
        query = select(columns.step, columns.report).where(columns.name == name).order_by(columns.step)
        with self._engine.connect() as connection:
            return [(int(step), json.loads(report)) for step, report in connection.execute(query)]

    # --- lifetime ---

    def close(self) -> None:
        """Idempotent."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


def _configure(connection: Any, _record: object) -> None:
    """Set up each new SQLite connection; the reasons are in the docstring of the module."""
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _trajectory_row(group: Group, trajectory: Trajectory) -> dict[str, Any]:
    if trajectory.task != group.task:
        raise ValueError(f"group {group.index} has an episode of task {trajectory.task.id!r}, not {group.task.id!r}")
    results = [result for turn in trajectory.turns for result in turn.tool_results]
    failure = trajectory.failure
    return {
        "group_index": group.index,
        "member": trajectory.member,
        "reward": trajectory.reward if math.isfinite(trajectory.reward) else None,
        "stop_reason": str(trajectory.stop_reason),
        "failure_owner": str(failure.owner) if failure else None,
        "failure_kind": failure.kind if failure else None,
        "turns": len(trajectory.turns),
        "tool_calls": len(results),
        "tool_errors": sum(result.error is not None for result in results),
        "tokens": sum(len(segment.token_ids_T) for segment in trajectory.segments),
        "sampled_tokens": trajectory.sampled_tokens,
        "attempts": trajectory.attempts,
        "setup_s": trajectory.setup_s,
        "generation_s": sum(turn.generation_s for turn in trajectory.turns),
        "step_s": sum(turn.step_s for turn in trajectory.turns),
        "duration_s": trajectory.duration_s,
        "record": records.trajectory_to_json(trajectory),
        "token_rows": records.segments_to_blob(trajectory.segments),
    }
