"""The doctor finds what is broken, says what to do about it, and has nothing to say of what is not."""

import re
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import numpy as np
import pytest
from tokenizers import normalizers
from transformers import PreTrainedTokenizerFast

from agent_rl.chat import ChatCodec
from agent_rl.doctor.checks import Check, check_logprobs, check_masks, check_sampled_ids, same_arguments
from agent_rl.doctor.conversations import Replay, scripts
from agent_rl.doctor.episodes import Case, Demonstrator, Played, play
from agent_rl.doctor.model import sampled_by
from agent_rl.doctor.tokens import TokensConfig, examine, mock_cases
from agent_rl.engine.base import GenerationRequest
from agent_rl.engine.local import LocalEngine
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.testing.tiny import CHAT_TEMPLATE, make_model, make_tokenizer
from agent_rl.types import Generation, Segment, Task

NAMES = {
    "template": "the template writes every conversation",
    "round trip": "text survives encoding and decoding",
    "contexts": "contexts read as the template writes them",
    "history": "history is only appended to",
    "parser": "the parser 'hermes' reads what the template writes",
    "ids": "training ids are the sampled ids",
    "masks": "masks cover exactly the sampled tokens",
    "logprobs": "log-probs are those of a forward pass",
}
THINKING = CHAT_TEMPLATE.replace(
    "{{- '<|im_start|>' + message.role + '\\n' + (message.content or '') }}",
    "{%- set thought = message.reasoning_content -%}"
    "{%- set thought = '<think>\\n' + thought + '\\n</think>\\n\\n' if thought else '' -%}"
    "{{- '<|im_start|>' + message.role + '\\n' }}{{- thought + (message.content or '') }}",
)
STRIPS = THINKING.replace(
    "{{- thought + (message.content or '') }}",
    "{%- set shown = thought + (message.content or '') -%}"
    "{{- shown if loop.last else shown.split('</think>\\n\\n')[-1] }}",
)
REORDERS = CHAT_TEMPLATE.replace(
    "message.content + '\\n</tool_response>'",
    "(messages[loop.index0 + 1] if not loop.last and messages[loop.index0 + 1].role == 'tool'"
    " else messages[loop.index0 - 1] if messages[loop.index0 - 1].role == 'tool' else message).content"
    " + '\\n</tool_response>'",
)


def tokenizer(template: str = CHAT_TEMPLATE) -> PreTrainedTokenizerFast:
    made = make_tokenizer(["where is it there no one two look at done"] * 4, vocab_size=400)
    made.chat_template = template
    return made


def examined(made: PreTrainedTokenizerFast, parser: str = "hermes", **options: Any) -> dict[str, Check]:
    """Checks by the short names above."""
    config = TokensConfig(model="tiny", tool_parser=parser)
    checks = anyio.run(partial(examine, config, ChatCodec(made, parser), mock_cases(made), **options))
    found = {check.name.replace(repr(parser), "'hermes'"): check for check in checks}
    assert set(found) == set(NAMES.values())
    return {short: found[name] for short, name in NAMES.items()}


def verdicts(checks: dict[str, Check]) -> dict[str, str]:
    return {short: check.verdict for short, check in checks.items() if check.verdict != "ok"}


def test_a_sound_tokenizer_passes_without_a_model():
    checks = examined(tokenizer(THINKING))
    assert verdicts(checks) == {"logprobs": "skipped"}
    assert checks["parser"].found == "21 turns, 11 calls"
    assert "0 forks at 14" in checks["history"].found


def test_a_template_that_strips_reasoning_is_reported_with_its_rate_and_the_first_lost_token():
    checks = examined(tokenizer(STRIPS))
    assert verdicts(checks) == {"history": "note", "logprobs": "skipped"}
    assert "2 forks at 14 turn boundaries (14%)" in checks["history"].found
    assert "row before: '<think>" in checks["history"].evidence
    assert "row after: '<tool_call>" in checks["history"].evidence


def test_a_template_that_does_not_write_reasoning_is_noted():
    checks = examined(tokenizer())
    assert verdicts(checks) == {"parser": "note", "logprobs": "skipped"}
    assert "'I should look.' is not in" in checks["parser"].evidence


def test_a_template_that_reorders_results_is_followed():
    assert examined(tokenizer(REORDERS))["contexts"].verdict == "ok"


def test_a_codec_that_takes_a_reordering_template_for_a_verbatim_one_is_reported(monkeypatch):
    def cut(codec, roles):
        marks = [f"mark-{index}-" for index in range(len(roles))]
        messages = [{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)]
        return tuple(re.split("mark-[0-9]-", codec._render_suffix(messages)))

    monkeypatch.setattr(ChatCodec, "_cut", cut)
    check = examined(tokenizer(REORDERS))["contexts"]
    assert check.verdict == "failed"
    assert "'two calls in one message', turn 1" in check.found
    template, got = check.evidence.splitlines()[1:]
    assert template.strip().startswith("template: 'two")
    assert got.strip().startswith("engine got: 'one")


def test_a_tokenizer_that_alters_text_is_reported():
    lossy = tokenizer(THINKING)
    lossy.backend_tokenizer.normalizer = normalizers.Lowercase()
    check = examined(lossy)["round trip"]
    assert check.verdict == "failed"
    assert "Zoë" in check.evidence
    assert "zoë" in check.evidence


def test_a_template_that_refuses_tools_is_reported():
    refuses = "{%- for m in messages if m.role == 'tool' %}{{ raise_exception('no tools') }}{%- endfor %}" + THINKING
    checks = examined(tokenizer(refuses))
    assert verdicts(checks) == {"template": "failed", "logprobs": "skipped"}
    assert "6 of 7" in checks["template"].found
    assert "no tools" in checks["template"].evidence


def test_nothing_played_is_not_fine():
    made = tokenizer(THINKING)
    checks = anyio.run(examine, TokensConfig(model="tiny"), ChatCodec(made), [])
    assert {check.name for check in checks if check.verdict == "ok"} == {NAMES["round trip"]}


@pytest.mark.parametrize("parser", ["qwen3_coder", "glm", "mistral", "react", "xml"])
def test_the_wrong_parser_is_reported(parser: str):
    check = examined(tokenizer(THINKING), parser)["parser"]
    assert check.verdict == "failed"
    assert "--tool-parser" in check.mend
    assert "<tool_call>" in check.evidence


# --- with a model ---------------------------------------------------------------------------------------------------


class Liar(LocalEngine):
    async def generate(self, request: GenerationRequest) -> Generation:
        honest = await super().generate(request)
        return replace(honest, logprobs_R=honest.logprobs_R - np.float32(0.01))


@pytest.mark.slow
def test_a_model_is_examined_and_a_lying_engine_found_out():
    made = tokenizer(THINKING)
    model = make_model(made, max_context=4096)
    checks = examined(made, model=model)
    assert verdicts(checks) == {}
    assert "tolerance 0.001" in checks["logprobs"].found
    lying = examined(made, model=model, make_engine=lambda model, size: Liar(model, max_batch=4, max_context=size))
    assert verdicts(lying) == {"logprobs": "failed"}
    assert "max |difference| = 0.01 " in lying["logprobs"].found
    assert "first at token" in lying["logprobs"].evidence
    assert ">>" in lying["logprobs"].evidence


@pytest.mark.slow
def test_the_models_episodes_have_several_turns_in_one_context():
    made = tokenizer(THINKING)
    model = make_model(made, max_context=4096)
    episodes = anyio.run(sampled_by, model, ChatCodec(made), mock_cases(made)[:2], 0)
    assert [len(played.trajectory.turns) for played in episodes] == [3, 2]
    assert all(len(played.trajectory.segments) == 1 for played in episodes)


# --- rows that are assembled wrongly --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def codec() -> ChatCodec:
    return ChatCodec(tokenizer(THINKING))


@pytest.fixture
def played(codec: ChatCodec) -> Played:
    script = scripts(["<s>"])[0]
    case = Case(Task(script.name, script.prompt), lambda: Replay(script))
    limits = RolloutLimits(max_context_tokens=2**16)
    return anyio.run(
        lambda: play(case, lambda environment: Demonstrator(codec, environment.oracle_action), codec, limits, 0)
    )


def with_segment(played: Played, **changes: Any) -> Played:
    (segment,) = played.trajectory.segments
    return replace(played, trajectory=replace(played.trajectory, segments=(replace(segment, **changes),)))


def changed(row: Any, index: int, value: Any) -> Any:
    copy = row.copy()
    copy[index] = value
    return copy


def test_an_honest_row_passes(codec: ChatCodec, played: Played):
    assert check_sampled_ids(codec, [played]).verdict == "ok"
    assert check_masks(codec, [played]).verdict == "ok"


def test_every_changed_id_is_reported_at_its_place(codec: ChatCodec, played: Played):
    (segment,) = played.trajectory.segments
    for index in range(0, len(segment.token_ids_T), 7):
        bad = with_segment(played, token_ids_T=changed(segment.token_ids_T, index, 5))
        check = check_sampled_ids(codec, [bad])
        assert check.verdict == "failed"
        assert f"first difference at token {index}, after" in check.evidence


@pytest.mark.parametrize(
    ("row", "value"), [("response_mask_T", None), ("rollout_logprobs_T", 0.5), ("weight_versions_T", 7)]
)
def test_every_wrong_entry_beside_the_ids_is_reported(codec: ChatCodec, played: Played, row: str, value: Any):
    (segment,) = played.trajectory.segments
    for index in range(0, len(segment.token_ids_T), 7):
        entries = getattr(segment, row)
        bad = with_segment(played, **{row: changed(entries, index, not entries[index] if value is None else value)})
        check = check_masks(codec, [bad])
        assert check.verdict == "failed"
        assert f"of token {index} is " in check.found
        assert f"[{segment.token_ids_T[index]}]<<" in check.evidence


def test_a_response_that_is_not_trained_is_reported(codec: ChatCodec, played: Played):
    (segment,) = played.trajectory.segments
    check = check_masks(codec, [with_segment(played, response_mask_T=np.zeros_like(segment.response_mask_T))])
    assert check.verdict == "failed"
    assert f"{int(segment.response_mask_T.sum())} tokens are wrong" in check.found


def test_the_tolerance_decides_on_logprobs(codec: ChatCodec):
    mask_T = np.array([False, True, True])
    engine_T = np.array([0, -1, -2], np.float32)
    segment = Segment(np.array([5, 6, 7], np.int32), mask_T, engine_T, np.array([-1, 0, 0]))
    forward_T = np.array([9, -1, -2.25], np.float32)  # what is not sampled does not count
    assert check_logprobs(codec, [(segment, forward_T)], 0.3).verdict == "ok"
    bad = check_logprobs(codec, [(segment, forward_T)], 0.2)
    assert (bad.verdict, "0.25" in bad.found, "first at token 2" in bad.evidence) == ("failed", True, True)
    assert check_logprobs(codec, [], 0.2).verdict == "skipped"


def test_arguments_are_compared_as_the_format_gives_them():
    assert same_arguments({"a": 1, "b": [None], "c": "1"}, {"a": 1, "b": [None], "c": "1"})
    assert same_arguments({"a": 1, "b": [None], "c": "1"}, {"a": "1", "b": "[null]", "c": "1"})
    assert not same_arguments({"a": "1"}, {"a": 1})
    assert not same_arguments({"a": 1}, {"a": 1, "b": 2})
