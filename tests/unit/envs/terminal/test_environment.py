"""Episodes of `terminal`: the agent's time, its tools, the oracle, tasks that are made up."""

import json

import numpy as np
import pytest

from agent_rl.config import load_config
from agent_rl.errors import ConfigError, UserError
from agent_rl_envs.terminal import TerminalConfig, TerminalEnvironment
from tests.unit.envs.terminal.conftest import HARBOR, Episode, played, write

pytestmark = pytest.mark.anyio


async def test_made_up_tasks_need_no_folder(held, config):
    config = config.model_copy(update={"source": None})
    tasks = TerminalEnvironment.tasks("test", 15, 0, config)
    task = next(task for task in tasks if task.tags == ("kind:log_analysis",))
    assert json.loads(json.dumps(dict(task.data))) == dict(task.data)
    async with Episode(config, task) as episode:
        first = await episode.environment.step(episode.environment.oracle_action())
        assert (first.reward, first.terminated) == (0.0, False)
        last = await episode.environment.step(episode.environment.oracle_action())
    assert (last.reward, last.terminated, last.info.reward_terms["tests"]) == (1.0, True, 1.0)


async def test_the_solution_of_a_folder_is_played(held, config):
    solution = {
        "solution/solve.sh": "bash $(dirname $0)/more.sh $VALUE",
        "solution/more.sh": "echo $1 > /app/answer.txt\n",
    }
    toml = HARBOR["task.toml"] + '[solution]\nenv = { VALUE = "42" }\n'
    folder = write(config.source, HARBOR, **solution, **{"task.toml": toml})
    (folder / "solution" / "bytes.bin").write_bytes(bytes(range(256)))
    async with Episode(config) as episode:
        await episode.environment.step(episode.environment.oracle_action())
        assert await episode.run("wc -c < /solution/bytes.bin") == "256"
        assert (await episode.submit()).reward == 1.0


async def test_the_tasks_time_ends_the_episode(held, config):
    """What is there then is graded."""
    toml = HARBOR["task.toml"].replace("timeout_sec = 60", "timeout_sec = 0.2")
    write(config.source, HARBOR, **{"task.toml": toml})
    for clock, is_cut in (("wall", True), ("tools", True), ("off", False)):
        async with Episode(config.model_copy(update={"time_limit": clock})) as episode:
            step = await episode.environment.step(_bash("echo 42 > answer.txt; sleep 0.3; echo done"))
        assert step.messages[0].content == "done"
        assert (step.truncated, step.terminated) == (is_cut, False)
        assert (step.reward, step.info.reward_terms.get("submitted")) == ((1.0, 0.0) if is_cut else (0.0, None))


def _bash(command: str):
    from tests.unit.envs.terminal.conftest import call

    return call("bash", command=command)


async def test_a_message_without_tools_is_graded_as_it_stands(held, config):
    from agent_rl.types import Message

    write(config.source, HARBOR)
    async with Episode(config) as episode:
        await episode.run("echo 42 > answer.txt")
        step = await episode.environment.step(Message("assistant", "I am done."))
    assert (step.reward, step.info.reward_terms["submitted"]) == (1.0, 0.0)


async def test_siblings_have_a_system_each(held, config):
    write(config.source, HARBOR)
    async with Episode(config) as one, Episode(config) as other:
        await one.run("echo 42 > answer.txt; echo x > /etc/mine; sleep 100 &")
        assert await other.run("ls -A /app; ls /etc/mine 2>/dev/null; ps ax | grep -c '[s]leep 100'") != ""
        assert "mine" not in await other.run("ls /etc")
        assert ((await one.submit()).reward, (await other.submit()).reward) == (1.0, 0.0)


async def test_random_moves_are_well_formed(held, config):
    write(config.source, HARBOR)
    rng = np.random.default_rng(0)
    async with Episode(config) as episode:
        for _ in range(12):
            step = await episode.environment.step(episode.environment.random_action(rng))
            assert all(result.error is None for result in step.info.tool_results)
            if step.terminated:
                break


async def test_a_folder_that_is_gone_is_said(held, config):
    folder = write(config.source, HARBOR)
    [task] = TerminalEnvironment.tasks("train", 1, 0, config)
    folder.rename(folder.with_name("moved"))
    with pytest.raises(UserError, match="of the task tasks is gone"):
        async with Episode(config, task):
            pass


async def test_no_hidden_text_is_left_readable_while_others_are_graded(held, config):
    """The tests are put into the fork only: the agent's own sandbox never has them."""
    write(config.source, HARBOR)
    async with Episode(config) as episode:
        sandbox = episode.environment._tools.sandbox
        problem = episode.environment._opened
        bench, world = episode.environment._bench, episode.environment._world
        assert (await played(config)).reward == 0.0
        assert await bench.judge.is_sound(problem, world)
        assert (await sandbox.exec("ls /tests /logs", cwd="/")).exit_code == 2


def test_bad_options_are_explained():
    with pytest.raises(ConfigError, match=r"no term 'solve'\. Did you mean 'solved'\? Terms: "):
        load_config(TerminalConfig, None, {"weights": {"solve": 1.0}})
    assert load_config(TerminalConfig, None, {"weights": {"checker.speed": 1.0}}).weights == {"checker.speed": 1.0}
