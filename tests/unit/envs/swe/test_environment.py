"""Episodes of `swe` in real sandboxes: tools, submissions, guidance, rewards, and cheats that earn nothing."""

import json
import shutil

import anyio
import numpy as np
import pytest

from agent_rl.config import load_config
from agent_rl.environment import EnvironmentSpec
from agent_rl.errors import ConfigError, UserError
from agent_rl.testing import check_environment
from agent_rl.testing.environment_check import CheckOptions
from agent_rl.types import Message, ToolCall
from agent_rl_envs.swe import SweConfig, SweEnvironment

pytestmark = pytest.mark.anyio


@pytest.fixture
def config(open_folder):
    if not shutil.which("bwrap"):
        pytest.skip("the default sandbox needs bubblewrap: apt install bubblewrap")
    return SweConfig(cache=open_folder / "cache", bugs=(1,))


def call(tool: str, **arguments: object) -> Message:
    return Message("assistant", "", (ToolCall("c", tool, arguments),))


class Episode:
    """One that is closed in the end."""

    def __init__(self, config: SweConfig, task=None) -> None:
        self.environment = SweEnvironment(config)
        self.task = task or SweEnvironment.tasks("train", 1, 0, config)[0]

    async def __aenter__(self):
        await self.environment.reset(self.task, 0)
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.environment.close()

    async def do(self, tool: str, **arguments: object):
        return await self.environment.step(call(tool, **arguments))

    async def solve(self):
        return await self.environment.step(self.environment.oracle_action())


async def test_the_solution_is_rewarded(held, config):
    async with Episode(config) as episode:
        applied = await episode.solve()
        assert (applied.reward, applied.terminated) == (0.0, False)
        end = await episode.solve()
    assert (end.reward, end.terminated) == (1.0, True)
    assert end.info.reward_terms == {
        "resolved": 1.0,
        "fail_to_pass": 1.0,
        "pass_to_pass": 1.0,
        "patch_similarity": 1.0,
        "submitted": 1.0,
    }
    assert end.info.metrics["attempts"] == 1.0
    json.dumps(episode.task.data)


async def test_tools_work_on_the_repository(held, config):
    async with Episode(config) as episode:
        assert "src/" in (await episode.do("view", path=".")).messages[0].content
        found = (await episode.do("search", pattern=r"^def is_leap", files="*.py")).messages[0].content
        assert found == "./src/pantry/dates.py:12:def is_leap(year: int) -> bool:"
        await episode.do("bash", command="cd src/pantry; X=1")
        assert (await episode.do("bash", command="basename $PWD; echo $X")).messages[0].content == "pantry\n1"
        ran = await episode.do("bash", command="python3 -c 'import pantry.texts; print(pantry.__file__)'")
        assert ran.messages[0].content == "/workspace/src/pantry/__init__.py"
        assert "Nothing matches" in (await episode.do("search", pattern="no such line")).messages[0].content
        assert (await episode.do("search", pattern="(")).info.tool_results[0].error == "tool_error"


async def test_what_is_read_is_limited(held, config):
    async with Episode(config.model_copy(update={"max_observation_chars": 300})) as episode:
        shown = (await episode.do("bash", command="seq 10000")).messages[0].content
    assert len(shown) < 500
    assert shown.startswith("1\n2\n")


async def test_doing_nothing_earns_nothing(held, config):
    async with Episode(config) as episode:
        end = await episode.do("submit")
    assert end.terminated
    assert end.info.reward_terms == {
        "resolved": 0.0,
        "fail_to_pass": 0.0,
        "pass_to_pass": 0.0,
        "patch_similarity": 0.0,
        "submitted": 1.0,
    }


async def test_an_answer_without_submit_is_graded_too(held, config):
    async with Episode(config) as episode:
        await episode.solve()
        end = await episode.environment.step(Message("assistant", "I am done."))
    assert (end.reward, end.info.reward_terms["submitted"]) == (1.0, 0.0)


async def test_weights_make_the_reward(held, config):
    weighted = config.model_copy(update={"weights": {"resolved": 1.0, "patch_similarity": 0.5, "submitted": 0.1}})
    async with Episode(weighted) as episode:
        await episode.solve()
        assert (await episode.solve()).reward == pytest.approx(1.6)


async def test_guidance_and_another_attempt(held, config):
    async with Episode(config.model_copy(update={"attempts": 2})) as episode:
        problem = episode.task.data["problem"]
        path = problem["patch"].split("--- a/")[1].split("\n")[0]
        await episode.do("bash", command=f"echo '# nothing' >> {path}")
        told = await episode.do("submit")
        assert not told.terminated
        message = told.messages[-1].content
        assert problem["fail_to_pass"][0] in message
        assert f"Files to look at:\n- {path}" in message
        assert "What went wrong:" in message
        await episode.do("bash", command="git checkout -q .")
        await episode.environment.step(call("bash", command=f"git apply <<'E'\n{problem['patch']}E"))
        end = await episode.do("submit")
    assert (end.reward, end.terminated, end.info.metrics["attempts"]) == (1.0, True, 2.0)


async def test_guidance_can_be_silent(held, config):
    silent = config.model_copy(update={"attempts": 2, "guidance": ()})
    async with Episode(silent) as episode:
        message = (await episode.do("submit")).messages[-1].content
    assert message.startswith("Nothing was submitted")
    assert "test_" not in message
    assert ".py" not in message


@pytest.mark.slow
async def test_cheats_are_not_rewarded(held, config):
    async with Episode(config) as episode:
        scripts = episode.environment.cheats()
    assert len(scripts) >= 12
    for name, script in scripts.items():
        async with Episode(config) as episode:
            steps = [await episode.environment.step(message) for message in script]
        assert steps[-1].reward == 0.0, name
        assert steps[-1].terminated, name


async def test_random_moves_are_well_formed(held, config):
    async with Episode(config) as episode:
        names = {tool.name for tool in episode.environment.tools}
        for seed in range(8):
            [move] = episode.environment.random_action(np.random.default_rng(seed)).tool_calls
            assert move.name in names


async def test_closing_twice_and_when_cancelled(held, config):
    episode = Episode(config)
    with anyio.CancelScope() as scope:
        async with episode:
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    await episode.environment.close()


@pytest.mark.slow
async def test_the_environment_passes_its_check(config):
    await check_environment(EnvironmentSpec(SweEnvironment, config), CheckOptions(tasks=2))


def test_options_that_make_no_sense():
    for options in ({"weights": {"solved": 1.0}}, {"attempts": 0}, {"bugs": ()}, {"guidance": ("answer",)}):
        with pytest.raises(ConfigError):
            load_config(SweConfig, overrides=options)


def test_an_unknown_split():
    with pytest.raises(UserError, match="Unknown split 'dev'"):
        SweEnvironment.tasks("dev", 1)
