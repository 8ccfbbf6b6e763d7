"""Pure functions from recorded episodes to a verdict, with the first token that disagrees in its context."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from agent_rl.chat.codec import ChatCodec
from agent_rl.doctor.episodes import Played
from agent_rl.types import FloatArray, IntArray, Message, Segment, Turn

Verdict: TypeAlias = Literal["ok", "note", "failed", "skipped"]
LOGPROBS = "log-probs are those of a forward pass"
_CONTEXT = 8  # tokens shown on either side of a difference


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check. `mend` says what to do about it, `evidence` shows the first place that is wrong."""

    name: str
    verdict: Verdict
    found: str
    mend: str = ""
    evidence: str = ""


def _counted(name: str, count: int, found: str) -> Check:
    """What was found right, unless there was nothing to look at."""
    return Check(name, "ok", found) if count else Check(name, "skipped", "nothing to look at")


def _where(episode: Played, turn: Turn) -> str:
    return f"Task {episode.trajectory.task.id!r}, turn {turn.index}"


def check_sampled_ids(codec: ChatCodec, episodes: Sequence[Played]) -> Check:
    """The row that is trained up to the end of each response is the prompt that the engine got, and what it sampled."""
    name = "training ids are the sampled ids"
    for episode in episodes:
        for turn, sample in zip(episode.trajectory.turns, episode.samples, strict=True):
            row_T = episode.trajectory.segments[turn.segment].token_ids_T[: turn.end]
            sampled_T = np.concatenate((sample.prompt_ids_T, sample.generation.token_ids_R))
            if not np.array_equal(row_T, sampled_T):
                where = f"{_where(episode, turn)}: the row differs from what was sampled."
                mend = "What assembles the row encodes text again: append the engine's ids as they are."
                return Check(name, "failed", where, mend, difference(codec, ("sampled", sampled_T), ("trained", row_T)))
    tokens = sum(episode.trajectory.sampled_tokens for episode in episodes)
    turns = sum(len(episode.samples) for episode in episodes)
    return _counted(name, tokens, f"{tokens} tokens of {turns} turns in {len(episodes)} episodes")


def check_masks(codec: ChatCodec, episodes: Sequence[Played]) -> Check:
    """Mask, log-probs and weight versions of a row are the engine's on sampled tokens, and 0, 0 and -1 elsewhere."""
    name = "masks cover exactly the sampled tokens"
    for episode in episodes:
        for number, segment in enumerate(episode.trajectory.segments):
            expected = _expected_row(episode, number, len(segment.token_ids_T))
            actual = (segment.response_mask_T, segment.rollout_logprobs_T, segment.weight_versions_T)
            for what, should_T, is_T in zip(("mask", "log-prob", "weight version"), expected, actual, strict=True):
                wrong = np.flatnonzero(should_T != is_T)
                if len(wrong):
                    where = f"Task {episode.trajectory.task.id!r}: the {what} of token {wrong[0]} is {is_T[wrong[0]]}, "
                    where += f"not {should_T[wrong[0]]}; {len(wrong)} tokens are wrong."
                    mend = "Take the spans from the turns of the trajectory, not from the text."
                    return Check(name, "failed", where, mend, around(codec, segment.token_ids_T, int(wrong[0])))
    tokens = sum(len(segment.token_ids_T) for episode in episodes for segment in episode.trajectory.segments)
    sampled = sum(episode.trajectory.sampled_tokens for episode in episodes)
    return _counted(name, tokens, f"{sampled} of {tokens} tokens are trained, each with log-prob and weight version")


def _expected_row(episode: Played, number: int, length: int) -> tuple[Any, Any, Any]:
    mask_T, logprobs_T, versions_T = np.zeros(length, bool), np.zeros(length, np.float32), np.full(length, -1)
    for turn, sample in zip(episode.trajectory.turns, episode.samples, strict=True):
        if turn.segment == number:
            start = len(sample.prompt_ids_T)
            end = start + len(sample.generation.token_ids_R)
            mask_T[start:end] = True
            logprobs_T[start:end] = sample.generation.logprobs_R[: length - start]
            versions_T[start:end] = sample.generation.weight_versions_R[: length - start]
    return mask_T, logprobs_T, versions_T


def check_contexts(codec: ChatCodec, episodes: Sequence[Played]) -> Check:
    """What the engine got, put together turn by turn, reads as the template writes the whole conversation."""
    name = "contexts read as the template writes them"
    prompts = 0
    for episode in episodes:
        history = codec.template_messages(episode.trajectory.prompt)
        for turn, sample in zip(episode.trajectory.turns, episode.samples, strict=True):
            whole_T = codec.encode_rendered(codec.render(history, episode.tools))
            if codec.decode(whole_T) != codec.decode(sample.prompt_ids_T):
                where = f"{_where(episode, turn)}: the two differ."
                mend = "The template writes a message differently in some contexts: use one that does not."
                shown = difference(codec, ("template", whole_T), ("engine got", sample.prompt_ids_T))
                return Check(name, "failed", where, mend, shown)
            prompts += 1
            history.append(codec.template_response(sample.generation.token_ids_R))
            history += codec.template_messages(turn.observations)
    return _counted(name, prompts, f"{prompts} prompts")


def check_history(codec: ChatCodec, episodes: Sequence[Played]) -> Check:
    """Whether a longer conversation keeps the tokens of its beginning, or how often it does not."""
    name = "history is only appended to"
    boundaries = sum(max(0, len(episode.trajectory.turns) - 1) for episode in episodes)
    forked = [episode for episode in episodes if len(episode.trajectory.segments) > 1]
    forks = sum(len(episode.trajectory.segments) - 1 for episode in forked)
    if not forks:
        note = "" if codec.preserves_prefix else "; it is rendered in full each turn, since it may rewrite"
        return _counted(name, boundaries, f"0 forks at {boundaries} turn boundaries{note}")
    found = f"The template rewrites history: {forks} forks at {boundaries} turn boundaries ({forks / boundaries:.0%})."
    mend = "Each fork starts a new row, whose context is computed again: a template that keeps history saves that."
    first = forked[0].trajectory.segments
    evidence = difference(codec, ("row before", first[0].token_ids_T), ("row after", first[1].token_ids_T))
    return Check(name, "note", found, mend, evidence)


def check_round_trip(codec: ChatCodec, texts: Sequence[str]) -> Check:
    """Text survives encoding and decoding, and none of it becomes a special token."""
    name = "text survives encoding and decoding"
    for text in texts:
        (quoted,) = codec.template_messages([Message("user", text)])
        ids_T = codec.encode_rendered(str(quoted["content"]))
        if codec.decode(ids_T) != text:
            mend = "The model reads and writes altered text: use a tokenizer without normalisation, such as byte-level."
            evidence = f"{text!r}\n-> {ids_T.tolist()}\n-> {codec.decode(ids_T)!r}"
            return Check(name, "failed", "A text comes back altered.", mend, evidence)
    return Check(name, "ok", f"{len(texts)} texts")


def check_parser(codec: ChatCodec, episodes: Sequence[Played], tool_parser: str) -> Check:
    """The parser finds in each demonstrated turn the message that the template wrote there."""
    name = f"the parser {tool_parser!r} reads what the template writes"
    turns, calls, left_out = 0, 0, list[str]()
    for episode in episodes:
        for turn, sample in zip(episode.trajectory.turns, episode.samples, strict=True):
            assert sample.action is not None, "demonstrations only"
            text, where = codec.decode(sample.generation.token_ids_R), _where(episode, turn)
            if complaint := _misread(sample.action, turn.action, text):
                mend = "Choose the parser of the template's format (--tool-parser), or a template that writes calls."
                evidence = f"written: {text!r}\nread:    {turn.action!r}"
                return Check(name, "failed", f"{where}: {complaint}.", mend, evidence)
            left_out += [f"{where}: {part!r} is not in {text!r}" for part in _left_out(sample.action, text)]
            turns, calls = turns + 1, calls + len(sample.action.tool_calls)
    if left_out:
        found = f"{turns} turns, {calls} calls; the template leaves out text or reasoning of {len(left_out)} turns."
        return Check(name, "note", found, "Demonstrations lose that text; sampled turns do not.", left_out[0])
    return _counted(name, turns, f"{turns} turns, {calls} calls")


def _misread(meant: Message, read: Message, text: str) -> str:
    """What is wrong with the message that was read from `text`, or nothing."""
    if len(read.tool_calls) != len(meant.tool_calls):
        return f"{len(meant.tool_calls)} calls were written and {len(read.tool_calls)} read"
    for wrote, got in zip(meant.tool_calls, read.tool_calls, strict=True):
        if got.error is not None:
            return f"a call was not understood ({got.error})"
        if wrote.name != got.name or not same_arguments(dict(wrote.arguments), dict(got.arguments)):
            return f"{wrote.name}({dict(wrote.arguments)}) was read as {got.name}({dict(got.arguments)})"
    lost = _left_out(meant, text)
    if (meant.content.strip() or None) not in lost and meant.content.strip() != read.content.strip():
        return f"the text {meant.content!r} was read as {read.content!r}"
    reasoning = (meant.reasoning_content or "").strip()
    if reasoning not in ("", *lost) and reasoning != (read.reasoning_content or "").strip():
        return "the reasoning was not told from the answer"
    return ""


def _left_out(meant: Message, text: str) -> list[str]:
    """Content and reasoning that the template did not write."""
    parts = (meant.content.strip(), (meant.reasoning_content or "").strip())
    return [part for part in parts if part not in text]


def same_arguments(wrote: dict[str, Any], read: dict[str, Any]) -> bool:
    """Whether arguments are the same, where formats without types give text."""
    return wrote.keys() == read.keys() and all(
        read[key] == value or read[key] == _as_text(value) for key, value in wrote.items()
    )


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def check_logprobs(codec: ChatCodec, compared: Sequence[tuple[Segment, FloatArray]], tolerance: float) -> Check:
    """The engine's log-probs are those of a forward pass; `compared` has segments with the forward's log-probs."""
    differences = [
        (float(np.abs(segment.rollout_logprobs_T - forward_T)[segment.response_mask_T].max()), segment, forward_T)
        for segment, forward_T in compared
    ]
    if not differences:
        return Check(LOGPROBS, "skipped", "nothing was sampled: no prompt fits the model's context")
    worst, segment, forward_T = max(differences, key=lambda entry: entry[0])
    tokens = sum(int(segment.response_mask_T.sum()) for segment, _ in compared)
    found = f"max |difference| = {worst:.2g} over {tokens} tokens (tolerance {tolerance:g})"
    if worst <= tolerance:
        return Check(LOGPROBS, "ok", found)
    gaps_T = np.where(segment.response_mask_T, np.abs(segment.rollout_logprobs_T - forward_T), 0)
    at = int(np.argmax(gaps_T > tolerance))
    evidence = f"first at token {at}: engine {segment.rollout_logprobs_T[at]:.6f}, forward {forward_T[at]:.6f}\n"
    mend = "Engine and learner compute different things: compare dtype, temperature, attention and positions."
    return Check(LOGPROBS, "failed", found, mend, evidence + around(codec, segment.token_ids_T, at))


# --- evidence -------------------------------------------------------------------------------------------------------


def difference(codec: ChatCodec, one: tuple[str, IntArray], other: tuple[str, IntArray]) -> str:
    """The first token in which two rows differ: its number, what precedes it, and what follows on both sides."""
    (one_name, one_T), (other_name, other_T) = one, other
    shared = min(len(one_T), len(other_T))
    unequal = np.flatnonzero(one_T[:shared] != other_T[:shared])
    at = int(unequal[0]) if len(unequal) else shared
    width = max(len(one_name), len(other_name))
    lines = [f"first difference at token {at}, after {codec.decode(one_T[max(0, at - _CONTEXT) : at])!r}"]
    for name, ids_T in ((one_name, one_T), (other_name, other_T)):
        ids = ids_T[at : at + _CONTEXT]
        lines.append(
            f"{name:>{width}}: {codec.decode(ids)!r} {ids.tolist()}" if len(ids) else f"{name:>{width}}: (ends)"
        )
    return "\n".join(lines)


def around(codec: ChatCodec, ids_T: IntArray, at: int) -> str:
    """Token `at` between its neighbours."""
    before, after = ids_T[max(0, at - _CONTEXT) : at], ids_T[at + 1 : at + 1 + _CONTEXT]
    return f"{codec.decode(before)!r} >>{codec.decode(ids_T[at : at + 1])!r} [{ids_T[at]}]<< {codec.decode(after)!r}"
