"""The hidden checker, in real sandboxes: what it says, what it cannot say, and agents that would rather say it."""

import pytest

from agent_rl.errors import GraderFailure
from agent_rl_envs.terminal.cheating import cheating_commands
from tests.unit.envs.terminal.conftest import HARBOR, TERMINAL_BENCH, Episode, played, write

pytestmark = pytest.mark.anyio
SOLVE = "echo 42 > /app/answer.txt"
VERIFIER = "mkdir -p /logs/verifier\n"


async def test_what_the_checker_writes_is_the_reward(held, config):
    write(config.source, HARBOR)
    right, wrong = await played(config, SOLVE), await played(config)
    assert (right.reward, right.terminated, right.info.reward_terms["solved"]) == (1.0, True, 1.0)
    assert (wrong.reward, wrong.terminated, wrong.info.reward_terms["solved"]) == (0.0, True, 0.0)
    assert right.info.metrics["checker_s"] > 0


async def test_several_rewards_and_a_report_of_tests(held, config):
    checker = (
        VERIFIER
        + """echo '{"speed": 0.5, "size": 1.0}' > /logs/verifier/reward.json; echo 0 > /logs/verifier/reward.txt
echo '{"results": {"summary": {"tests": 4, "passed": 3}}}' > /logs/verifier/ctrf.json"""
    )
    write(config.source, HARBOR, **{"tests/test.sh": checker})
    step = await played(config.model_copy(update={"weights": {"checker.speed": 2.0, "tests": 1.0}}))
    assert step.reward == 1.75
    assert step.info.reward_terms == {
        "solved": 0.0,
        "reward": 0.75,
        "tests": 0.75,
        "submitted": 1.0,
        "checker.speed": 0.5,
        "checker.size": 1.0,
    }
    with pytest.raises(GraderFailure, match="gives no 'fun'"):
        await played(config.model_copy(update={"weights": {"checker.fun": 1.0}}))


async def test_a_task_of_terminal_bench(held, config):
    write(config.source, TERMINAL_BENCH)
    right, wrong = await played(config, SOLVE), await played(config)
    assert (right.reward, right.info.reward_terms["tests"]) == (1.0, 1.0)
    assert (wrong.reward, wrong.info.reward_terms["tests"]) == (0.0, 0.5)
    async with Episode(config) as episode:
        found = await episode.run("ls /app; echo $COLOR; ls /tests /oracle")
        assert found.splitlines()[:3] == ["Dockerfile", "data.txt", "green"]


async def test_nothing_of_the_checker_is_there_before_it_runs(held, config):
    write(config.source, HARBOR, **{"tests/test.sh": HARBOR["tests/test.sh"] + "# mark-7f3a\n"})
    async with Episode(config) as episode:
        found = await episode.run(
            "ls /tests /solution /logs; grep -rsl mark-7f3a /app /etc /tmp /root /run /var /opt /home"
        )
        assert "test.sh" not in found
        assert (await episode.submit()).reward == 0.0


BROKEN = {
    "hangs": "sleep 100",
    "says nothing": "true",
    "says what is no number": VERIFIER + "echo great > /logs/verifier/reward.txt",
    "says what is no finite number": VERIFIER + "echo '{\"a\": NaN}' > /logs/verifier/reward.json",
    "writes without end": VERIFIER + "yes > /logs/verifier/reward.txt",
    "forks without end": "f() { f | f & }; f; sleep 5",
    "kills everything": "kill -9 -1; sleep 5",
}


@pytest.mark.parametrize("how", BROKEN)
async def test_a_checker_that_does_not_work_is_the_graders_failure(held, config, how):
    toml = HARBOR["task.toml"].replace("timeout_sec = 20", "timeout_sec = 2")
    write(config.source, HARBOR, **{"tests/test.sh": BROKEN[how], "task.toml": toml})
    with pytest.raises(GraderFailure, match="does not work even on its solution") as info:
        await played(config, SOLVE)
    assert (info.value.kind, info.value.retryable) == ("broken_checker", False)


@pytest.mark.parametrize("how", BROKEN)
async def test_an_agent_that_breaks_the_checker_earns_nothing(held, config, how):
    """The checker runs a program of the agent's, and works on the solution: then it is no accident."""
    checker = f"[ -x /app/run.sh ] && . /app/run.sh\n{HARBOR['tests/test.sh']}"
    toml = HARBOR["task.toml"].replace("timeout_sec = 20", "timeout_sec = 2")
    write(config.source, HARBOR, **{"tests/test.sh": checker, "task.toml": toml})
    step = await played(config, f"{SOLVE}; cat > run.sh <<'E'\n{BROKEN[how]}\nexit\nE\nchmod 755 run.sh")
    assert (step.reward, step.terminated) == (0.0, True)
    assert any(name.startswith("checker_") and name != "checker_s" for name in step.info.metrics)


async def test_what_the_agent_left_running_is_gone(held, config):
    """Before the tests are put in: they would be read, and rewards written, as fast as a loop can."""
    checker = f"ps ax -o args | grep -c '[l]eft-behind' > /app/seen\nsleep 0.5\n{HARBOR['tests/test.sh']}"
    checker += "[ $(cat /app/seen) = 0 ] || echo 0.5 > /logs/verifier/reward.txt\n"
    write(config.source, HARBOR, **{"tests/test.sh": checker})
    left = (
        "cat > /tmp/left-behind <<'E'\nmkdir -p /logs/verifier\n"
        "while :; do echo 1 > /logs/verifier/reward.txt; cat /tests/* > /app/stolen; done\nE\n"
    )
    step = await played(
        config, left, "for i in 1 2 3; do setsid nohup bash /tmp/left-behind >/dev/null 2>&1 & done; true"
    )
    assert step.reward == 0.0


@pytest.mark.parametrize("name", cheating_commands())
async def test_cheats_earn_nothing_and_are_no_failures(held, config, name):
    write(config.source, HARBOR)
    assert (await played(config, cheating_commands()[name])).reward == 0.0


async def test_what_was_left_in_the_way_costs_nothing(held, config):
    """Files where the tests, their logs and their settings go do not make a task that is done undone."""
    write(config.source, HARBOR)
    left = (
        "mkdir -p /tests /logs/verifier; echo exit > /tests/test.sh; echo x > /logs/verifier/reward.txt; "
        "rm -rf /tests /logs; ln -s /app /tests; echo file > /logs; "
        "echo 'exit 1' >> ~/.bashrc; export PATH=/nowhere; alias bash=false"
    )
    assert (await played(config, SOLVE, left)).reward == 1.0


async def test_the_solution_alone_decides_for_whom_a_failure_counts(held, config):
    """Without one, a checker that ends on the untouched system is taken to work."""
    checker = "[ -e /app/bad ] && exit\n" + HARBOR["tests/test.sh"]
    write(config.source, HARBOR, **{"tests/test.sh": checker, "solution/solve.sh": None})
    assert (await played(config, "touch bad")).reward == 0.0
