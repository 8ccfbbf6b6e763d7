"""Trajectories to bytes and back without loss. Knows the records of `agent_rl.types`; refuses to know the database.

A trajectory becomes two parts: a JSON text (messages, turns, rewards, failures), readable with any tool, and a blob
with the token rows. Floats survive bit for bit: JSON uses Python's shortest exact repr, the blob keeps float32 bits.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np

from agent_rl.errors import UserError
from agent_rl.types import (
    JSON,
    Failure,
    FinishReason,
    Guidance,
    IntArray,
    Message,
    Owner,
    Segment,
    StopReason,
    Task,
    ToolCall,
    ToolResult,
    Trajectory,
    Turn,
)

T = TypeVar("T")
Record: TypeAlias = dict[str, Any]

_UNKNOWN = Failure("not_recorded", Owner.FRAMEWORK, "", "Earlier versions only counted failed attempts.")


def checksum(task: str, record: str, token_rows: bytes, tools: str = "") -> int:
    """CRC-32 of what an episode is made of, to notice damage; 32 bits, unsigned."""
    return zlib.crc32(_bytes(tools), zlib.crc32(token_rows, zlib.crc32(_bytes(record), zlib.crc32(_bytes(task)))))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")  # as `database` reads what is damaged


# --- JSON -----------------------------------------------------------------------------------------------------------


def task_to_json(task: Task) -> str:
    """`task.data` comes back as JSON has it (a tuple inside as a list). Raises `UserError` when it is not JSON."""
    return _dumps(task, f"Task {task.id!r}")


def task_from_json(text: str) -> Task:
    """Inverse of `task_to_json`."""
    data: Record = json.loads(text)
    return _build(Task, data, prompt=_messages(data["prompt"]), tags=tuple(data["tags"]))


def tools_to_json(tools: Sequence[JSON]) -> str:
    """Empty for no tools. Raises `UserError` when a definition is not JSON."""
    return _dumps(tools, "The definition of a tool") if tools else ""


def tools_from_json(text: str) -> tuple[JSON, ...]:
    """Inverse of `tools_to_json`."""
    return tuple(json.loads(text)) if text else ()


def trajectory_to_json(trajectory: Trajectory) -> str:
    """All but the token rows, and the task and the tools, which are stored once for many.

    Raises `UserError` when a message, metric or state key holds something that is not JSON.
    """
    record = _fields(trajectory)
    del record["task"], record["segments"], record["tools"]
    return _dumps(record, f"Episode {trajectory.member} of task {trajectory.task.id!r}")


def trajectory_from_json(
    text: str, task: Task, segments: tuple[Segment, ...], tools: tuple[JSON, ...] = ()
) -> Trajectory:
    """Inverse of `trajectory_to_json`, given back what is stored elsewhere."""
    data: Record = json.loads(text)
    earlier = data.pop("earlier_failures", None) or [_fields(_UNKNOWN)] * (data.pop("attempts", 1) - 1)
    return _build(
        Trajectory,
        data,
        task=task,
        segments=segments,
        tools=tools,
        prompt=_messages(data["prompt"]),
        turns=tuple(map(_turn, data["turns"])),
        stop_reason=StopReason(data["stop_reason"]),
        failure=None if data["failure"] is None else _failure(data["failure"]),
        earlier_failures=tuple(map(_failure, earlier)),
        guidance=_guidance(data.get("guidance")),
    )


def _dumps(value: object, what: str) -> str:
    try:
        return json.dumps(value, default=_plain, separators=(",", ":"))
    except TypeError as error:
        raise UserError(f"{what} cannot be stored: {error}") from error


def _plain(value: object) -> object:
    """What `json` does not know by itself; tuples become lists, which the readers below turn back into tuples."""
    if isinstance(value, Turn):
        return _fields(value) | {"state_key": _plain_key(value.state_key)}
    if hasattr(value, "__dataclass_fields__"):
        return _fields(value)
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, object]", value))
    if isinstance(value, np.generic):
        return cast("object", value.item())
    raise TypeError(f"{type(value).__name__} is not a JSON value; use str, int, float, bool, list or dict.")


def _fields(record: Any) -> Record:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


def _plain_key(key: Hashable) -> object:
    """A state key: JSON scalars, bytes, and tuples of them. Lists are not hashable, so a list can only be a tuple."""
    if isinstance(key, tuple):
        return [_plain_key(part) for part in cast("tuple[Hashable, ...]", key)]
    if isinstance(key, bytes):
        return {"hex": key.hex()}
    if key is None or isinstance(key, str | int | float):
        return key
    if isinstance(key, np.generic):
        return cast("object", key.item())
    raise TypeError(f"a state key of type {type(key).__name__}; use str, bytes, int, float, bool or tuples of them.")


def _key(data: Any) -> Hashable:
    if isinstance(data, list):
        return tuple(map(_key, cast("list[Any]", data)))
    return bytes.fromhex(cast("dict[str, str]", data)["hex"]) if isinstance(data, dict) else data


def _build(record_type: type[T], data: Record, **parsed: object) -> T:
    """A field that an older row lacks takes its default."""
    return record_type(**data | parsed)


def _messages(data: Sequence[Record]) -> tuple[Message, ...]:
    return tuple(map(_message, data))


def _message(data: Record) -> Message:
    return _build(Message, data, tool_calls=tuple(ToolCall(**call) for call in data["tool_calls"]))


def _tool_result(data: Record) -> ToolResult:
    return _build(ToolResult, data, call=ToolCall(**data["call"]))


def _failure(data: Record) -> Failure:
    return _build(Failure, data, owner=Owner(data["owner"]))


def _guidance(data: Record | None) -> Guidance | None:
    return None if data is None else _build(Guidance, data, actions=_messages(data["actions"]))


def _turn(data: Record) -> Turn:
    return _build(
        Turn,
        data,
        action=_message(data["action"]),
        observations=_messages(data["observations"]),
        tool_results=tuple(map(_tool_result, data["tool_results"])),
        finish_reason=FinishReason(data["finish_reason"]),
        state_key=_key(data["state_key"]),
    )


# --- token rows -----------------------------------------------------------------------------------------------------

# Layout, little-endian: segments S (u32), size of the compressed part (u32), S lengths (u32); then the compressed
# token ids, response mask and weight versions; then the log-probs as they are (float32 hardly compresses).
# Versions and log-probs are kept for sampled tokens only: elsewhere they are -1 and 0 by definition of `Segment`.


def segments_to_blob(segments: Sequence[Segment]) -> bytes:
    """About 3 bytes per context token and 7 per sampled token, at most 12.

    Raises `ValueError` on a malformed segment (dtypes, unequal lengths, a log-prob on a token that was not sampled).
    """
    for segment in segments:
        _check(segment)
    ids_T = _joined([s.token_ids_T for s in segments], np.int32)
    mask_T = _joined([s.response_mask_T for s in segments], np.bool_)
    versions_R = _joined([s.weight_versions_T[s.response_mask_T] for s in segments], np.int32)
    logprobs_R = _joined([s.rollout_logprobs_T[s.response_mask_T] for s in segments], np.float32)
    packed = zlib.compress(_planes(ids_T) + np.packbits(mask_T).tobytes() + _planes(versions_R), level=1)
    lengths = [len(s.token_ids_T) for s in segments]
    return (
        struct.pack(f"<{len(lengths) + 2}I", len(lengths), len(packed), *lengths)
        + packed
        + logprobs_R.astype("<f4").tobytes()
    )


def segments_from_blob(blob: bytes) -> tuple[Segment, ...]:
    """Inverse of `segments_to_blob`; the arrays are writable copies."""
    count, size = struct.unpack_from("<2I", blob)
    lengths = struct.unpack_from(f"<{count}I", blob, 8)
    body = 8 + 4 * count
    packed = zlib.decompress(blob[body : body + size])
    tokens = sum(lengths)
    mask_end = 4 * tokens + (tokens + 7) // 8
    ids_T = _unplanes(packed[: 4 * tokens])
    mask_T = np.unpackbits(np.frombuffer(packed[4 * tokens : mask_end], np.uint8), count=tokens).astype(np.bool_)
    versions_T = np.full(tokens, -1, np.int32)
    versions_T[mask_T] = _unplanes(packed[mask_end:])
    logprobs_T = np.zeros(tokens, np.float32)
    logprobs_T[mask_T] = np.frombuffer(blob[body + size :], "<f4")
    cuts = np.cumsum(lengths)[:-1]
    rows = zip(*(np.split(row_T, cuts) for row_T in (ids_T, mask_T, logprobs_T, versions_T)), strict=True)
    return tuple(Segment(*(part.copy() for part in row)) for row in rows) if count else ()


def _check(segment: Segment) -> None:
    rows = (segment.token_ids_T, segment.response_mask_T, segment.rollout_logprobs_T, segment.weight_versions_T)
    if [row.dtype for row in rows] != [np.int32, np.bool_, np.float32, np.int32] or len(set(map(len, rows))) != 1:
        raise ValueError(f"malformed segment: {[(row.dtype.name, row.shape) for row in rows]}")
    context_T = ~segment.response_mask_T
    stray_logprobs = segment.rollout_logprobs_T.view(np.uint32)[context_T].any()
    if stray_logprobs or (segment.weight_versions_T[context_T] != -1).any():
        raise ValueError("malformed segment: a token that was not sampled has a log-prob or a weight version")


def _joined(rows: Sequence[Any], dtype: type[Any]) -> Any:
    return np.concatenate([np.empty(0, dtype), *rows])


def _planes(values_T: IntArray) -> bytes:
    """All lowest bytes, then all second bytes, ...: the upper bytes of ids and versions are runs, which compress."""
    return np.ascontiguousarray(values_T.astype("<i4").view(np.uint8).reshape(-1, 4).T).tobytes()


def _unplanes(data: bytes) -> IntArray:
    return np.ascontiguousarray(np.frombuffer(data, np.uint8).reshape(4, -1).T).view("<i4").ravel().astype(np.int32)
