"""Rewritten contexts: what the policy sees stays bounded, what it sampled is trained once and weighs the same."""

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from agent_rl.chat.codec import ChatCodec
from agent_rl.credit import get_estimator
from agent_rl.credit.rows import to_rows
from agent_rl.engine.scripted import ScriptedEngine
from agent_rl.learner.attention import packed_attention
from agent_rl.learner.batch import pack
from agent_rl.learner.config import LearnerConfig
from agent_rl.learner.logprobs import trained_logprobs, trained_loss
from agent_rl.learner.objective import PolicyObjective
from agent_rl.learner.tensors import to_tensors
from agent_rl.rollout.context import DROPPED, CompactingAgent, ContextConfig, policy_agents
from agent_rl.rollout.episode import run_episode
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.testing.environments import CountUp, CountUpConfig
from agent_rl.testing.tiny import make_model, make_tokenizer
from agent_rl.types import Group, SamplingParams, StopReason

pytestmark = pytest.mark.anyio

CORPUS = [
    '<tool_call>\n{"name": "add", "arguments": {"amount": 1}}\n</tool_call>',
    "The total is 7.",
    "Count to 3.",
    DROPPED,
    "What you did so far, in your own words:\nI counted to 2.",
]
CALL = '<tool_call>\n{"name": "add", "arguments": {"amount": 1}}\n</tool_call>'


@pytest.fixture(scope="module", params=["appending", "rewriting"])
def codec(request) -> ChatCodec:
    """A template that only appends, and one that drops the reasoning of earlier turns."""
    tokenizer = make_tokenizer(CORPUS)
    if request.param == "rewriting":
        assert "message.content" in tokenizer.chat_template
        tokenizer.chat_template = tokenizer.chat_template.replace(
            "message.content",
            "(message.content if message.role != 'assistant' else message.content.split('</think>')[-1].lstrip('\\n'))",
        )
    codec = ChatCodec(tokenizer)
    assert codec.preserves_prefix == (request.param == "appending")
    return codec


async def play(codec, context, texts, *, turns, limits=None, seed=0, member=0, make_agent=None):
    """One episode of `texts`, said in turn; the trajectory, and what the policy saw before each."""
    left, requests = list(texts), []

    def respond(request):
        requests.append(request)
        text = left.pop(0)
        return [*codec.encode_rendered(text).tolist(), codec.stop_token_ids[0]]

    engine = ScriptedEngine(respond)
    trajectory = await run_episode(
        lambda task: CountUp(),
        make_agent(engine) if make_agent else policy_agents(engine, codec, SamplingParams(), context),
        CountUp.tasks("train", 1, config=CountUpConfig(turns=turns))[0],
        group_index=0,
        member=member,
        seed=seed,
        limits=limits or RolloutLimits(max_turns=turns, max_response_tokens=200, max_context_tokens=2000),
    )
    assert trajectory.failure is None, trajectory.failure
    prompts = [request.prompt_ids_T.tolist() for request in requests]
    assert_trained_once_in_context(trajectory, prompts)
    return trajectory, prompts


def assert_trained_once_in_context(trajectory, prompts):
    assert len(trajectory.turns) == len(prompts)
    for turn, prompt in zip(trajectory.turns, prompts, strict=True):
        segment = trajectory.segments[turn.segment]
        assert segment.token_ids_T[: turn.start].tolist() == prompt
        assert segment.response_mask_T[turn.start : turn.end].all()
    assert trajectory.sampled_tokens == sum(turn.end - turn.start for turn in trajectory.turns)


async def test_old_tool_results_are_dropped_and_the_episode_goes_on(codec):
    turns = 12
    context = ContextConfig(strategy="drop_tool_results", budget_tokens=500, keep_results=1)
    kept, unbounded = await play(codec, ContextConfig(), [CALL] * (turns - 1) + ["done"], turns=turns)
    dropped, prompts = await play(codec, context, [CALL] * (turns - 1) + ["done"], turns=turns)
    assert dropped.reward == kept.reward == 1.0
    assert len(dropped.segments) > 1
    assert len(unbounded[-1]) > len(prompts[-1])
    texts = [codec.decode(prompt) for prompt in prompts]
    last = next(text for text in texts if DROPPED in text)
    assert "The total is" in last.rpartition(DROPPED)[2], "the latest result stays"
    assert last.count(DROPPED) + last.count("The total is") == last.count("<tool_call>\n{") - codec.decode(
        prompts[0]
    ).count("<tool_call>\n{")
    assert not any(turn.internal for turn in dropped.turns)


async def test_a_summary_is_a_trained_turn_that_the_environment_never_sees(codec):
    turns = 6
    opening, next_prompt = (await play(codec, ContextConfig(), [CALL, "done"], turns=2))[1]
    turn = len(next_prompt) - len(opening)
    context = ContextConfig(strategy="summarize", budget_tokens=len(opening) + int(1.9 * turn))
    texts = [CALL, CALL, "I counted to 2.", CALL, CALL, "I counted to 4.", CALL, "done"]
    trajectory, prompts = await play(codec, context, texts, turns=turns)
    assert trajectory.stop_reason is StopReason.TERMINATED
    assert trajectory.reward == 1.0
    assert [turn.action.content for turn in trajectory.turns if turn.internal] == ["I counted to 2.", "I counted to 4."]
    assert trajectory.steps == turns
    after_first, after_second = codec.decode(prompts[3]), codec.decode(prompts[6])
    assert "I counted to 2." in after_first
    assert "The total is" not in after_first
    assert "I counted to 4." in after_second
    assert "I counted to 2." not in after_second, "the new summary replaces the old one"
    assert len(trajectory.segments) == 3


async def test_summaries_do_not_count_as_turns_of_the_limit(codec):
    opening = (await play(codec, ContextConfig(), ["done"], turns=1))[1][0]
    context = ContextConfig(strategy="summarize", budget_tokens=len(opening) + 10)
    limits = RolloutLimits(max_turns=2, max_response_tokens=200, max_context_tokens=2000)
    trajectory, _ = await play(codec, context, [CALL, "one", CALL, "two", "never"], turns=9, limits=limits)
    assert trajectory.stop_reason is StopReason.MAX_TURNS
    assert trajectory.steps == 2


async def test_thinking_in_chunks_sees_one_chunk_and_says_all(codec):
    thought = "".join(f"step {index}, then " for index in range(40))
    said = f"<think>\n{thought}\n</think>\n\ndone"
    ids = [*codec.encode_rendered(said).tolist(), codec.stop_token_ids[0]]
    chunk, carry = 60, 20
    given, prompts = 0, []

    def respond(request):
        nonlocal given
        prompts.append(request.prompt_ids_T.tolist())
        piece = ids[given : given + request.sampling.max_tokens]
        given += len(piece)
        return piece

    context = ContextConfig(strategy="chunk", chunk_tokens=chunk, carry_tokens=carry, max_chunks=100)
    trajectory = await run_episode(
        lambda task: CountUp(),
        policy_agents(ScriptedEngine(respond), codec, SamplingParams(), context),
        CountUp.tasks("train", 1, config=CountUpConfig(turns=1))[0],
        group_index=0,
        member=0,
        seed=0,
        limits=RolloutLimits(max_turns=1, max_response_tokens=1000, max_context_tokens=2000),
    )
    assert_trained_once_in_context(trajectory, prompts)
    *chunks, last = trajectory.turns
    assert trajectory.reward == 1.0
    assert all(turn.internal for turn in chunks)
    assert not last.internal
    assert last.action.content == "done"
    assert last.action.reasoning_content == thought
    assert trajectory.sampled_tokens == len(ids)
    opening = len(prompts[0])
    assert max(map(len, prompts)) == opening + carry
    assert len(trajectory.turns) == 1 + -(-(len(ids) - chunk) // (chunk - carry))


async def test_a_response_in_chunks_is_one_message_of_the_history(codec):
    thought = f"<think>\n{'step, then ' * 20}\n</think>\n\n{CALL}"
    left = [[*codec.encode_rendered(text).tolist(), codec.stop_token_ids[0]] for text in (thought, "done")]
    prompts = []

    def respond(request):
        prompts.append(codec.decode(request.prompt_ids_T))
        said, left[0] = left[0][: request.sampling.max_tokens], left[0][request.sampling.max_tokens :]
        if not left[0]:
            left.pop(0)
        return said

    trajectory = await run_episode(
        lambda task: CountUp(),
        policy_agents(
            ScriptedEngine(respond),
            codec,
            SamplingParams(),
            ContextConfig(strategy="chunk", chunk_tokens=60, max_chunks=100),
        ),
        CountUp.tasks("train", 1, config=CountUpConfig(turns=2))[0],
        group_index=0,
        member=0,
        seed=0,
        limits=RolloutLimits(max_turns=2, max_response_tokens=1000, max_context_tokens=2000),
    )
    assert trajectory.reward == 1.0
    assert len(prompts) > 3
    assert prompts[-1].count("<|im_start|>assistant") == 2
    assert "The total is 1." in prompts[-1]


async def test_too_many_chunks_are_a_response_that_is_too_long(codec):
    word = int(codec.encode_rendered("step")[0])
    trajectory = await run_episode(
        lambda task: CountUp(),
        policy_agents(
            ScriptedEngine(lambda request: [word] * request.sampling.max_tokens),
            codec,
            SamplingParams(),
            ContextConfig(strategy="chunk", chunk_tokens=20, max_chunks=3),
        ),
        CountUp.tasks("train", 1, config=CountUpConfig(turns=1))[0],
        group_index=0,
        member=0,
        seed=0,
        limits=RolloutLimits(max_turns=1, max_response_tokens=1000, max_context_tokens=2000),
    )
    assert trajectory.stop_reason is StopReason.RESPONSE_LENGTH
    assert trajectory.sampled_tokens == 20 + 10 + 10


class Verbatim:
    """A compaction that changes nothing: the same context in a new segment."""

    question = None

    def compact(self, opening, later, answer):
        return [*opening, *later]


@pytest.mark.slow
@pytest.mark.parametrize(
    "codec", ["appending"], indirect=True
)  # the other changes the context, and the gradient with it
@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean"])
async def test_an_episode_in_many_segments_has_the_gradient_of_the_whole(codec, aggregation):
    """Two members of one group, the first cut into segments at every observation."""

    def cutting(engine):
        return lambda _, key: CompactingAgent(engine, codec, SamplingParams(), key, 1, Verbatim())

    long, short = [CALL, CALL, CALL, "done"], ["no"]
    whole = [(await play(codec, None, texts, turns=4, member=i))[0] for i, texts in enumerate((long, short))]
    cut = [(await play(codec, None, long, turns=4, make_agent=cutting))[0], whole[1]]
    assert [len(episode.segments) for episode in (whole[0], cut[0])] == [1, 4]
    assert whole[0].reward != whole[1].reward
    torch.manual_seed(0)
    model = make_model(make_tokenizer(CORPUS)).double()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    gradients = [
        gradient(model, to_rows([group], get_estimator("grpo")([group]), aggregation))
        for group in (Group(0, members[0].task, tuple(members)) for members in (whole, cut))
    ]
    assert gradients[0].abs().max() > 1e-3
    difference = (gradients[0] - gradients[1]).abs().max() / gradients[0].abs().max()
    assert difference < 1e-6


def gradient(model, rows):
    total = sum(float(row.weights_T.sum()) for row in rows)
    model.zero_grad()
    for batch in pack(rows, 400):
        tensors = to_tensors(batch, torch.device("cpu"), total)
        objective = PolicyObjective(LearnerConfig(loss_options={"clip_low": 0.2, "clip_high": 0.2}))
        with packed_attention(model):
            old, _ = trained_logprobs(model, tensors, 1.0)
            on_policy = replace(tensors, trained=replace(tensors.trained, old_logprobs_K=old))
            trained_loss(model, on_policy, objective, 1.0).loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@pytest.mark.parametrize(
    ("fields", "mend"),
    [
        ({"strategy": "summarize"}, "needs budget_tokens"),
        ({"strategy": "chunk"}, "needs chunk_tokens"),
        ({"strategy": "keep", "budget_tokens": 100}, "has no budget_tokens"),
        ({"strategy": "summarize", "budget_tokens": 100, "keep_results": 1}, "has no keep_results"),
        ({"strategy": "chunk", "chunk_tokens": 10, "carry_tokens": 10}, "leaves a chunk of 10 nothing to add"),
    ],
)
def test_options_that_a_strategy_does_not_use_are_refused(fields, mend):
    with pytest.raises((ValidationError, ValueError), match=mend):
        ContextConfig(**fields)


def test_the_default_keeps_everything():
    assert ContextConfig().strategy == "keep"
