"""The tokens of an episode as the trainer saw them, with their texts. Loads a tokenizer when asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from sqlalchemy import select

from agent_rl.errors import UserError
from agent_rl.store import records, schema
from agent_rl.store.checkpoint import MODEL, list_checkpoints
from agent_rl.store.journal import Journal
from agent_rl.store.run_folder import CONFIG_FILE
from agent_rl.types import FloatArray, Segment
from agent_rl.view.reading import read_json

Decode: TypeAlias = Callable[[Sequence[int]], str]

_LONGEST_CHARACTER = 4  # bytes in UTF-8, and so tokens
_DIGITS = 6
NO_TOKENIZER = "No tokenizer was found in the run's folder or under its model's name: tokens are shown as numbers."
NOT_TRAINED = "The trainer's log-probs, advantages and entropies were not kept for this episode."


class Tokenizers:
    """The tokenizers of runs, loaded once each. Several threads may ask."""

    def __init__(self) -> None:
        self._loading = threading.Lock()
        self._found: dict[Path, Decode | None] = {}

    def of(self, run_dir: Path) -> Decode | None:
        """What turns ids of this run into text; None where there is no tokenizer on this machine."""
        with self._loading:
            if self._found.get(run_dir) is None:  # a run that goes on may have its first checkpoint by now
                self._found[run_dir] = _find(run_dir)
            return self._found[run_dir]


def overlay(journal: Journal, group: int, member: int, decode: Decode | None) -> dict[str, Any]:
    """Each segment's tokens with all that is known of them, `texts` (None without a tokenizer), and a `note` of what is
    missing. Values are None on tokens that have none. Raises `UserError` when there is no such episode.
    """
    columns = schema.records.c
    query = select(columns.record, columns.token_rows).where(
        columns.run == journal.run, columns.group_index == group, columns.member == member
    )
    found = journal.rows(query)
    if not found:
        raise UserError(f"There is no episode {member} of group {group} in this run.")
    record, blob = found[0]
    segments = records.segments_from_blob(blob)
    turns = _turns(record, segments)
    trained = _trained(journal, group, member, segments)
    described = [
        {
            "ids": segment.token_ids_T.tolist(),
            "mask": segment.response_mask_T.astype(int).tolist(),
            "logprobs": _numbers(segment.rollout_logprobs_T, segment.response_mask_T),
            "versions": _where(segment.weight_versions_T.tolist(), segment.response_mask_T),
            "turns": turns[i],
            "fork": _fork(segments, i),
            "trained": trained.get(i),
        }
        for i, segment in enumerate(segments)
    ]
    texts = None if decode is None else [token_texts(segment.token_ids_T.tolist(), decode) for segment in segments]
    missing = [NO_TOKENIZER] * (decode is None) + [NOT_TRAINED] * (not trained)
    return {"segments": described, "texts": texts, "note": " ".join(missing) if segments else ""}


def token_texts(ids: Sequence[int], decode: Decode) -> list[str]:
    """The text of each token in its place. The first token of a character has all of it, the others none."""
    texts: list[str] = []
    while len(texts) < len(ids):
        at = len(texts)
        before = ids[at - 1 : at] if at else ids[:0]  # some tokenizers drop the space before a first word
        known = len(decode(before)) if at else 0
        pieces = [decode([*before, *ids[at : at + size]])[known:] for size in range(1, _LONGEST_CHARACTER + 1)]
        whole = next((size for size, piece in enumerate(pieces, 1) if "\ufffd" not in piece), 1)
        texts += [pieces[whole - 1], *[""] * (min(whole, len(ids) - at) - 1)]
    return texts


def _turns(record: str, segments: Sequence[Segment]) -> list[list[int | None]]:
    """For each token the turn that sampled it."""
    turns: list[list[int | None]] = [[None] * len(segment.token_ids_T) for segment in segments]
    for turn in json.loads(record)["turns"]:
        if turn["segment"] < len(turns):
            span = slice(turn["start"], turn["end"])
            turns[turn["segment"]][span] = [turn["index"]] * len(turns[turn["segment"]][span])
    return turns


def _fork(segments: Sequence[Segment], index: int) -> dict[str, int] | None:
    """Where a segment leaves the earlier one that it shares most with."""
    if index == 0:
        return None
    shared = [_common(segments[i].token_ids_T, segments[index].token_ids_T) for i in range(index)]
    nearest = int(np.argmax(shared))
    return {"from": nearest, "at": shared[nearest]}


def _common(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> int:
    """The length of the common beginning."""
    size = min(len(a), len(b))
    different = np.flatnonzero(a[:size] != b[:size])
    return int(different[0]) if len(different) else size


def _trained(journal: Journal, group: int, member: int, segments: Sequence[Segment]) -> dict[int, dict[str, Any]]:
    """What the trainer saw of each segment, the last time that it trained on it."""
    found: dict[int, dict[str, Any]] = {}
    for tokens in journal.trained_tokens(group):
        if tokens.member == member and tokens.segment < len(segments):
            mask_T = segments[tokens.segment].response_mask_T
            values = {"logprobs": tokens.logprobs_R, "advantages": tokens.advantages_R, "entropies": tokens.entropies_R}
            found[tokens.segment] = {"step": tokens.step} | {
                name: _numbers(_spread(values_R, mask_T), mask_T) for name, values_R in values.items()
            }
    return found


def _spread(values_R: FloatArray, mask_T: np.ndarray[Any, Any]) -> FloatArray:
    values_T = np.full(len(mask_T), np.nan, np.float32)
    values_T[mask_T] = values_R
    return values_T


def _numbers(values_T: FloatArray, mask_T: np.ndarray[Any, Any]) -> list[float | None]:
    """With as many digits as float32 has; None outside the mask, and where there is no number."""
    return [
        float(f"{value:.{_DIGITS}g}") if sampled and np.isfinite(value) else None
        for value, sampled in zip(values_T.tolist(), mask_T.tolist(), strict=True)
    ]


def _where(values: list[int], mask_T: np.ndarray[Any, Any]) -> list[int | None]:
    return [value if sampled else None for value, sampled in zip(values, mask_T.tolist(), strict=True)]


# --- tokenizers -----------------------------------------------------------------------------------------------------


def _find(run_dir: Path) -> Decode | None:
    """From the run's latest checkpoint, from what it started with, or by the name of its model. Downloads nothing."""
    folders = [checkpoint.path / MODEL for checkpoint in reversed(list_checkpoints(run_dir))]
    folders += [run_dir / "start", run_dir / "engine_model"]
    model = str(read_json(run_dir / CONFIG_FILE).get("model") or "")
    if model:
        source = Path(model)
        folders += [checkpoint.path / MODEL for checkpoint in reversed(list_checkpoints(source))]
        folders += [source, source / MODEL]
    for folder in folders:
        if (folder / "tokenizer.json").is_file():
            return _fast(folder / "tokenizer.json")
    for source in [*(str(folder) for folder in folders if (folder / "tokenizer_config.json").is_file()), model]:
        if source and (decode := _any_kind(source)) is not None:
            return decode
    return None


def _fast(path: Path) -> Decode | None:
    """Without transformers, whose import takes seconds."""
    from tokenizers import Tokenizer

    try:
        tokenizer = cast(Any, Tokenizer).from_file(str(path))
    except Exception:  # noqa: BLE001  # the library raises bare exceptions; a broken file is no reason to show nothing
        return None
    return lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=False))


def _any_kind(source: str) -> Decode | None:
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, ImportError):
        return None
    return lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
