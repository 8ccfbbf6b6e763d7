"""Agent programs that act through the gateway become ordinary trajectories, and their failures have owners."""

import sys
from functools import partial

import anyio
import httpx
import pytest

from agent_rl.chat.wire import message_to_wire
from agent_rl.engine.scripted import ScriptedEngine
from agent_rl.errors import ConfigError
from agent_rl.gateway.command import Command
from agent_rl.gateway.program import run_program
from agent_rl.gateway.server import Gateway
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.testing.environments import GuessNumber
from agent_rl.types import Owner, SamplingParams, StopReason

pytestmark = pytest.mark.anyio
SCRIPT = """
import json, os, sys, urllib.request
messages = [{"role": "user", "content": sys.argv[1]}]
body = json.dumps({"model": os.environ["OPENAI_MODEL"], "messages": messages}).encode()
url = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
print(json.load(urllib.request.urlopen(request))["choices"][0]["message"]["content"])
"""


TOOLS = [{"type": "function", "function": {"name": "look", "description": "", "parameters": {"type": "object"}}}]


async def ask(assignment, **options) -> str:
    """The smallest agent there is: one question, whose answer is the answer."""
    async with httpx.AsyncClient(timeout=30) as http:
        body = {"model": assignment.model, "messages": [message_to_wire(m) for m in assignment.prompt], **options}
        reply = await http.post(f"{assignment.base_url}/chat/completions", json=body)
        return reply.raise_for_status().json()["choices"][0]["message"]["content"]


async def play(program, engine, codec, limits=None):
    (task,) = GuessNumber.tasks("train", 1)
    async with engine, Gateway(engine, codec, SamplingParams()) as gateway:
        return await run_program(
            gateway,
            lambda task: GuessNumber(),
            lambda environment: program,
            task,
            group_index=1,
            member=2,
            seed=3,
            limits=limits or RolloutLimits(),
        )


@pytest.fixture
def hidden() -> str:
    (task,) = GuessNumber.tasks("train", 1)
    return str(task.data["hidden"])


async def test_the_tools_of_an_episode_are_those_that_the_program_offered(codec, saying, hidden):
    assert (await play(ask, saying(hidden), codec)).tools == ()
    offered = await play(partial(ask, tools=TOOLS), saying(hidden), codec)
    assert offered.tools == tuple(TOOLS)


async def test_a_function_plays_and_the_environment_judges(codec, saying, hidden):
    trajectory = await play(ask, saying(hidden), codec)
    assert (trajectory.reward, trajectory.stop_reason) == (1.0, StopReason.TERMINATED)
    assert (trajectory.group_index, trajectory.member) == (1, 2)
    assert [turn.action.content for turn in trajectory.turns] == [hidden]
    assert trajectory.sampled_tokens == len(codec.encode_rendered(hidden)) + 1


async def test_a_command_finds_the_policy_in_its_environment(codec, saying, hidden):
    command = Command([sys.executable, "-c", SCRIPT, "{prompt}"])
    trajectory = await play(command, saying(hidden), codec)
    assert trajectory.failure is None
    assert (trajectory.reward, trajectory.terminated) == (1.0, True)
    assert "Guess my number" in trajectory.prompt[0].content


async def test_failures_of_programs_have_owners(codec, saying):
    async def silent(assignment):
        return "7"

    crashed = await play(Command([sys.executable, "-c", "raise SystemExit(3)"]), saying("1"), codec)
    assert (crashed.failure.owner, crashed.stop_reason) == (Owner.ENVIRONMENT, StopReason.FAILURE)
    assert "exit code 3" in crashed.failure.message
    unasked = await play(silent, saying("1"), codec)
    assert (unasked.failure.kind, unasked.failure.owner) == ("no_requests", Owner.ENVIRONMENT)

    def gone(request):
        raise ConnectionError("refused")

    provider = await play(ask, ScriptedEngine(gone), codec)
    assert provider.failure.owner is Owner.PROVIDER, "whatever the program made of it"
    with pytest.raises(ExceptionGroup) as stopped:
        await play(Command(["no-such-program-anywhere"]), saying("1"), codec)
    assert stopped.group_contains(ConfigError, match="cannot be started")


async def test_a_program_that_hangs_is_cut_off_with_its_children(codec, saying):
    hurry = RolloutLimits(
        generation_timeout_s=0.3, step_timeout_s=0.2, episode_timeout_s=1.5, close_timeout_s=1, setup_timeout_s=1
    )
    began = anyio.current_time()
    hung = await play(Command([sys.executable, "-c", "import time; time.sleep(60)"]), saying("1"), codec, hurry)
    assert (hung.failure.owner, hung.failure.kind) == (Owner.ENVIRONMENT, "timeout")
    assert anyio.current_time() - began < 20
