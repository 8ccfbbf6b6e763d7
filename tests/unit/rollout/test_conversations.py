"""A system message opens a conversation: what the next role sees begins there, whoever acts."""

from types import SimpleNamespace

import pytest

from agent_rl.engine.scripted import ScriptedEngine
from agent_rl.environment import Environment
from agent_rl.learner.demonstrations import demonstration_rows
from agent_rl.rollout.agent import EpisodeKey
from agent_rl.rollout.context import ContextConfig, policy_agents
from agent_rl.rollout.episode import run_episode
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.rollout.openai import OpenAIAgent
from agent_rl.types import FinishReason, Message, SamplingParams, Step, StepInfo, Task

pytestmark = pytest.mark.anyio

FIRST = (Message("system", "You ask."), Message("user", "The secret is 7."))
SECOND = (Message("system", "You answer."), Message("user", "What is it?"))
TASK = Task("relay", FIRST)


class Relay(Environment):
    """Two turns of one role, two of another."""

    @classmethod
    def tasks(cls, split, count, seed=0):
        return [TASK]

    async def reset(self, task, seed):
        self.turns = 0
        return task.prompt

    async def step(self, action):
        self.turns += 1
        info = StepInfo(tag="asks" if self.turns <= 2 else "answers")
        said = SECOND if self.turns == 2 else (Message("user", "go on"),)
        return Step(said, float(self.turns == 4), terminated=self.turns == 4, info=info)


CONTEXTS = {
    "keep": ContextConfig(),
    "drop": ContextConfig(strategy="drop_tool_results", budget_tokens=10),
    "chunk": ContextConfig(strategy="chunk", chunk_tokens=200),
}


@pytest.mark.parametrize("context", CONTEXTS)
async def test_the_next_role_sees_nothing_of_the_last(codec, saying, context):
    engine, prompts = saying(["one", "two", "three", "four"]), []

    async def recorded(request, generate=engine.generate):
        prompts.append(codec.decode(request.prompt_ids_T))
        return await generate(request)

    engine.generate = recorded
    agents = policy_agents(engine, codec, SamplingParams(), CONTEXTS[context])
    limits = RolloutLimits(max_turns=9, max_response_tokens=100, max_context_tokens=2000)
    episode = await run_episode(lambda _: Relay(), agents, TASK, group_index=0, member=0, seed=0, limits=limits)
    assert episode.failure is None
    assert [turn.tag for turn in episode.turns] == ["asks", "asks", "answers", "answers"]
    assert prompts[0] in prompts[1] or context == "drop"
    assert "secret" in prompts[1]
    assert "What is it?" in prompts[2]
    for later in prompts[2:]:
        assert not any(word in later for word in ("secret", "You ask", "one", "two"))
    assert "three" in prompts[3]
    assert episode.turns[2].segment > episode.turns[1].segment
    rows = demonstration_rows(codec, episode, ())
    assert ["secret" in codec.decode(row.token_ids_T) for row in rows] == [True, False]


async def test_a_summary_is_of_the_conversation_that_is_going_on(codec):
    seen = []

    def respond(request):
        prompt = codec.decode(request.prompt_ids_T)
        seen.append(prompt)
        said = "in short" if "nearly full" in prompt else "well"
        return [*codec.encode_rendered(said).tolist(), codec.stop_token_ids[0]]

    context = ContextConfig(strategy="summarize", budget_tokens=60)
    agents = policy_agents(ScriptedEngine(respond), codec, SamplingParams(), context)
    limits = RolloutLimits(max_turns=9, max_response_tokens=100, max_context_tokens=2000)
    episode = await run_episode(lambda _: Relay(), agents, TASK, group_index=0, member=0, seed=0, limits=limits)
    assert episode.failure is None
    assert sum(turn.internal for turn in episode.turns) == 2, "each conversation was too long once"
    assert "secret" in seen[2], "the summary is that of the first"
    assert "You answer" in seen[-1]
    assert "secret" not in seen[-1]


async def test_an_endpoint_is_asked_anew(codec):
    asked = []

    async def complete(messages, tools, sampling, seed):
        asked.append([message["content"] for message in messages])
        echo = {"role": "assistant", "content": "so"}
        return SimpleNamespace(
            message=Message("assistant", "so"), echo=echo, usage=None, finish_reason=FinishReason.STOP
        )

    agent = OpenAIAgent(SimpleNamespace(complete=complete), SamplingParams(), EpisodeKey(0, "relay", 0))
    episode = await run_episode(
        lambda _: Relay(), lambda *_: agent, TASK, group_index=0, member=0, seed=0, limits=RolloutLimits()
    )
    assert episode.reward == 1.0
    assert asked[1] == ["You ask.", "The secret is 7.", "so", "go on"]
    assert asked[2:] == [["You answer.", "What is it?"], ["You answer.", "What is it?", "so", "go on"]]
