"""Guidance left out of the context: the rows that the same words would be without it, with the tokens as sampled."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_rl.chat.codec import ChatCodec
from agent_rl.chat.conversation import Conversation
from agent_rl.credit import get_estimator
from agent_rl.credit.rows import to_rows
from agent_rl.guidance.context import left_out, without_guidance
from agent_rl.guidance.task import with_text
from agent_rl.testing.tiny import make_tokenizer
from agent_rl.types import FinishReason, Generation, Group, Guidance, Message, StopReason, Task, Trajectory, Turn

TEXTS = st.text(alphabet="ab 1\n<>|", min_size=1, max_size=12)
REWRITES = """\
{%- set ns = namespace(last=-1) %}
{%- for m in messages %}{%- if m.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}
{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' }}
{%- if m.role == 'assistant' and loop.index0 < ns.last %}{{- m.content.split('</think>')[-1] }}
{%- else %}{{- m.content }}{%- endif %}{{- '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""


def codec_of(template: str | None = None) -> ChatCodec:
    tokenizer = make_tokenizer(["go again Hint: a b 1 system user assistant <think> </think>"])
    if template is not None:
        tokenizer.chat_template = template
    return ChatCodec(tokenizer)


PLAIN, REWRITING = codec_of(), codec_of(REWRITES)


def play(codec: ChatCodec, task: Task, member: int, guidance: Guidance | None, said, answers) -> Trajectory:
    """An episode as `run_episode` records it, with log-probs and versions that count the tokens."""
    conversation = Conversation(codec)
    prompt = with_text(task.prompt, guidance.text if guidance else "")
    conversation.start(prompt)
    turns, count = [], 0
    for index, (text, answer) in enumerate(zip(said, [*answers, ""], strict=True)):
        ids_R = np.append(codec.encode_rendered(text), codec.stop_token_ids[0]).astype(np.int32)
        marks_R = np.arange(count, count + len(ids_R))
        count += len(ids_R)
        generation = Generation(ids_R, -marks_R.astype(np.float32) - 1, marks_R.astype(np.int32), FinishReason.STOP)
        response = conversation.append_response(generation)
        action, observed = Message("assistant", text), (Message("user", answer),)
        span = response.segment, response.start, response.end
        turns.append(Turn(index, *span, action, observed, float(index), {}, (), FinishReason.STOP))
        if index < len(said) - 1:
            conversation.append_observations(observed)
    segments = tuple(segment for segment in conversation.segments() if segment.response_mask_T.any())
    stop = StopReason.TERMINATED
    return Trajectory(task, 0, member, 7, prompt, segments, tuple(turns), stop, guidance=guidance)


def assert_as_played_alone(found: Trajectory, alone: Trajectory) -> None:
    for ours, expected in zip(found.segments, alone.segments, strict=True):
        for name in ("token_ids_T", "response_mask_T", "rollout_logprobs_T", "weight_versions_T"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(expected, name), err_msg=name)
            assert getattr(ours, name).dtype == getattr(expected, name).dtype
    assert [(t.segment, t.start, t.end) for t in found.turns] == [(t.segment, t.start, t.end) for t in alone.turns]


@pytest.mark.parametrize("codec", [PLAIN, REWRITING], ids=["plain", "rewriting"])
@settings(max_examples=40)
@given(prompt=TEXTS, text=TEXTS, said=st.lists(TEXTS, min_size=1, max_size=3), system=st.booleans(), data=st.data())
def test_the_rows_are_those_of_an_episode_without_guidance(codec, prompt, text, said, system, data):
    """Whatever is said: ids, mask, log-probs, versions and turns are those of the same words without guidance."""
    reasoned = [f"<think>{word}</think>{word}" if codec is REWRITING else word for word in said]
    answers = data.draw(st.lists(TEXTS, min_size=len(said) - 1, max_size=len(said) - 1))
    opening = ((Message("system", "go"),) if system else ()) + (Message("user", prompt),)
    task = Task("t", opening)
    sibling = play(codec, task, 0, None, ["else"], [])
    guided = play(codec, task, 1, Guidance("hint", text), reasoned, answers)
    found = without_guidance(Group(0, task, (sibling, guided))).trajectories[1]
    alone = play(codec, task, 1, None, reasoned, answers)
    assert_as_played_alone(found, alone)
    assert found.guidance == guided.guidance, "what helped it is still known"
    assert found.prompt == guided.prompt, "and so is what it saw"


def test_the_sampled_tokens_are_kept_as_sampled():
    """Ids that no encoder would give for the text (one token per letter) stay what was sampled."""
    task = Task("t", (Message("user", "go"),))
    sibling = play(PLAIN, task, 0, None, ["x"], [])
    guided = play(PLAIN, task, 1, Guidance("hint", "Hint: a b 1"), ["again"], [])
    letters = np.concatenate([PLAIN.encode_rendered(letter) for letter in "again"])
    assert len(letters) > len(PLAIN.encode_rendered("again")), "the vocabulary has the word as fewer tokens"
    [segment] = guided.segments
    start = guided.turns[0].start
    ids_T = np.concatenate((segment.token_ids_T[:start], letters)).astype(np.int32)
    mask_T = np.arange(len(ids_T)) >= start
    logprobs_T, versions_T = np.where(mask_T, -0.5, 0).astype(np.float32), np.where(mask_T, 3, -1).astype(np.int32)
    odd = replace(
        segment, token_ids_T=ids_T, response_mask_T=mask_T, rollout_logprobs_T=logprobs_T, weight_versions_T=versions_T
    )
    guided = replace(guided, segments=(odd,), turns=(replace(guided.turns[0], end=len(ids_T)),))
    found = left_out(guided, [sibling])
    assert found is not None
    [row] = found.segments
    np.testing.assert_array_equal(row.token_ids_T[row.response_mask_T], letters)
    np.testing.assert_array_equal(row.rollout_logprobs_T[row.response_mask_T], np.full(len(letters), -0.5))
    np.testing.assert_array_equal(row.token_ids_T[: found.turns[0].start], PLAIN.encode_prompt(task.prompt))


def test_where_it_cannot_be_exact_the_guidance_stays():
    task = Task("t", (Message("user", "go"),))
    hint = Guidance("hint", "Hint: a")
    sibling = play(PLAIN, task, 0, None, ["x"], [])
    guided = play(PLAIN, task, 1, hint, ["x", "y"], ["again"])
    assert left_out(guided, []) is None, "nobody shows how the episode opens without guidance"
    other = play(PLAIN, replace(task, prompt=(Message("user", "stop"),)), 0, None, ["x"], [])
    assert left_out(guided, [other]) is None, "a sibling that was told something else"
    silent = replace(sibling, segments=())
    assert left_out(guided, [silent]) is None, "one without tokens"
    assert left_out(guided, [silent, other, sibling]) is not None
    prefix = replace(guided, guidance=Guidance("prefix", actions=(Message("assistant", "x"),)))
    assert left_out(prefix, [sibling]) is None, "an expert's actions are where the policy begins"
    [segment] = guided.segments
    compacted = replace(segment, token_ids_T=segment.token_ids_T + 1)
    assert left_out(replace(guided, segments=(segment, compacted)), [sibling]) is None, "a row with another beginning"
    group = without_guidance(Group(0, task, (guided,)))
    assert group.trajectories == (guided,)


def test_the_learner_gets_ratios_against_the_log_probs_under_guidance():
    task = Task("t", (Message("user", "go"),))
    sibling = play(PLAIN, task, 0, None, ["x"], [])
    guided = play(PLAIN, task, 1, Guidance("hint", "Hint: b"), ["y", "z"], ["again"])
    group = without_guidance(Group(0, task, (sibling, guided)))
    rows = to_rows([group], get_estimator("dr_grpo")([group]), "token_mean")
    sampled = [row.rollout_logprobs_T[row.response_mask_T] for row in rows]
    np.testing.assert_array_equal(sampled[1], guided.segments[0].rollout_logprobs_T[guided.segments[0].response_mask_T])
    assert [float(row.weights_T[row.response_mask_T].min()) > 0 for row in rows] == [True, True]
    assert rows[1].advantages_T[rows[1].response_mask_T].tolist() == [0.5] * len(sampled[1])
