"""Our own episodes as parquet, without loss: a row for each, for `datasets.load_dataset("parquet", data_files=...)`.

The columns `task`, `record` and `tools` are JSON texts as in the store; the token rows are lists of lists, one for each
segment, with numbers of the same types as ours. What else there is (reward, stop_reason, ...) repeats the record, to
filter by.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from agent_rl.errors import UserError
from agent_rl.exchange.conversation import Row, grouped
from agent_rl.store.records import (
    task_from_json,
    task_to_json,
    tools_from_json,
    tools_to_json,
    trajectory_from_json,
    trajectory_to_json,
)
from agent_rl.types import Group, Segment, Trajectory

_TOKENS = {
    "token_ids": ("token_ids_T", np.int32),
    "response_mask": ("response_mask_T", np.bool_),
    "rollout_logprobs": ("rollout_logprobs_T", np.float32),
    "weight_versions": ("weight_versions_T", np.int32),
}
_READ = ["task", "record", "tools", *_TOKENS]
_ROWS_AT_ONCE = 64


def to_rows(group: Group) -> Iterator[Row]:
    """A row for each member; the columns of tokens hold numpy arrays."""
    for episode in group.trajectories:
        failure = episode.failure
        yield {
            "group": group.index,
            "member": episode.member,
            "task_id": group.task.id,
            "environment": group.task.environment,
            "reward": episode.reward if math.isfinite(episode.reward) else None,
            "stop_reason": str(episode.stop_reason),
            "failure_owner": None if failure is None else str(failure.owner),
            "turns": len(episode.turns),
            "sampled_tokens": episode.sampled_tokens,
            "task": task_to_json(group.task),
            "record": trajectory_to_json(episode),
            "tools": tools_to_json(episode.tools),
            **{name: [getattr(s, field) for s in episode.segments] for name, (field, _) in _TOKENS.items()},
        }


def from_rows(rows: Iterable[Row]) -> Iterator[Group]:
    """Inverse of `to_rows`, bit for bit."""
    yield from grouped(map(_episode, rows))


def _episode(row: Row) -> Trajectory:
    columns = [[np.array(part, dtype) for part in row[name]] for name, (_, dtype) in _TOKENS.items()]
    segments = tuple(Segment(*parts) for parts in zip(*columns, strict=True))
    tools = tools_from_json(row.get("tools", ""))  # older files have no such column
    return trajectory_from_json(row["record"], task_from_json(row["task"]), segments, tools)


# --- files ----------------------------------------------------------------------------------------------------------


@cache
def _schema() -> Any:
    import pyarrow as pa

    tokens = {"int32": pa.int32(), "bool": pa.bool_(), "float32": pa.float32()}
    return pa.schema(
        {
            "group": pa.int64(),
            "member": pa.int32(),
            "task_id": pa.string(),
            "environment": pa.string(),
            "reward": pa.float64(),
            "stop_reason": pa.string(),
            "failure_owner": pa.string(),
            "turns": pa.int32(),
            "sampled_tokens": pa.int32(),
            "task": pa.string(),
            "record": pa.string(),
            "tools": pa.string(),
            **{name: pa.list_(pa.list_(tokens[np.dtype(dtype).name])) for name, (_, dtype) in _TOKENS.items()},
        }
    )


def write(rows: Iterable[Row], path: Path, schema: Any = None) -> None:
    """A parquet file of these rows, a few at a time; by default with the columns of `to_rows`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = schema or _schema()
    pending: list[Row] = []
    with pq.ParquetWriter(path, columns, compression="zstd") as file:

        def flush() -> None:
            if pending:
                file.write_table(pa.Table.from_pylist(pending, schema=columns))
                pending.clear()

        for row in rows:
            pending.append(row)
            if len(pending) == _ROWS_AT_ONCE:
                flush()
        flush()


def read(path: Path) -> Iterator[Row]:
    """The rows of a file, a few at a time. Raises `UserError` when it is not one of ours."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path} cannot be read as parquet: {error}.") from error
    with file:
        there = set(file.schema_arrow.names)
        if missing := {"task", "record", *_TOKENS} - there:
            raise UserError(f"{path} is not an export of episodes: it has no column {sorted(missing)[0]!r}.")
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=[name for name in _READ if name in there]):
            yield from batch.to_pylist()


def verl_schema() -> Any:
    """The columns of verl's tasks."""
    import pyarrow as pa

    message = pa.struct({"role": pa.string(), "content": pa.string()})
    return pa.schema(
        {
            "data_source": pa.string(),
            "prompt": pa.list_(message),
            "ability": pa.string(),
            "reward_model": pa.struct({"style": pa.string(), "ground_truth": pa.string()}),
            "extra_info": pa.struct({"index": pa.int64(), "id": pa.string(), "data": pa.string()}),
        }
    )
