"""Episodes on MiniWoB++ pages in a real Chromium."""

import json

import numpy as np
import pytest

from agent_rl import Message, ToolCall
from agent_rl.errors import UserError
from agent_rl_envs.browser import BrowserEnvConfig, BrowserEnvironment
from agent_rl_envs.browser.acting import act
from agent_rl_envs.browser.miniwob.pages import page_names
from agent_rl_envs.browser.miniwob.solvers import SOLVERS

FAST = "click-test-2,click-button,enter-text,focus-text-2,click-checkboxes,choose-list,login-user,navigate-tree"


async def solve(environment):
    """The oracle's episode: its last step and how many actions it took."""
    for turn in range(1, 20):
        step = await environment.step(environment.oracle_action())
        if step.terminated or step.truncated:
            return step, turn
    raise AssertionError("the oracle does not come to an end")


@pytest.mark.anyio
@pytest.mark.parametrize("page", FAST.split(","))
async def test_the_oracle_solves(page, config, opened):
    environment, [system, user] = await opened(config(page))
    assert (system.role, user.role) == ("system", "user")
    step, _ = await solve(environment)
    assert step.terminated
    assert step.reward == 1.0
    assert step.info.reward_terms == {"success": 1.0, "score": 1.0, "invalid_actions": 0.0, "actions": 1.0}


@pytest.mark.anyio
@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in SOLVERS if page not in FAST.split(",")])
async def test_the_oracle_solves_the_other_pages(page, config, opened):
    for task in BrowserEnvironment.tasks("test", 2, 1, config(page)):
        step, _ = await solve((await opened(config(page), task))[0])
        assert step.reward == 1.0


@pytest.mark.anyio
@pytest.mark.slow
async def test_all_pages_load_and_take_a_random_action(config, opened):
    assert len(page_names()) == 130
    rng = np.random.default_rng(0)
    for page in page_names():
        environment, [_, user] = await opened(config(page))
        assert len(user.content.split("\n\n")[0]) > 5, page
        step = await environment.step(environment.random_action(rng))
        assert all(result.error in (None, "tool_error") for result in step.info.tool_results), page
        await environment.close()


@pytest.mark.anyio
async def test_the_same_task_looks_the_same_and_another_seed_does_not(config, opened):
    one, two = BrowserEnvironment.tasks("train", 2, 0, config("click-button"))
    first = (await opened(config("click-button"), one))[1]
    assert (await opened(config("click-button"), one))[1] == first
    assert (await opened(config("click-button"), two))[1] != first


@pytest.mark.anyio
async def test_a_wrong_click_fails_and_an_answer_ends(config, opened):
    wrong, _ = await opened(config("click-test-2"))
    good = wrong.oracle_action().tool_calls[0].arguments["ref"]
    step = await wrong.step(act("click", ref="e1" if good == "e2" else "e2"))
    assert (step.terminated, step.reward, step.info.reward_terms["score"]) == (True, 0.0, -1.0)
    said, _ = await opened(config("click-test-2"))
    step = await said.step(Message("assistant", "done"))
    assert (step.terminated, step.reward) == (True, 0.0)
    stopped, _ = await opened(config("click-test-2"))
    step = await stopped.step(act("stop", answer="done"))
    assert (step.terminated, step.reward) == (True, 0.0)


@pytest.mark.anyio
async def test_mistakes_are_counted_and_the_budget_ends_it(config, opened):
    weights = {"success": 1.0, "invalid_actions": -0.1}
    environment, _ = await opened(config("click-test-2", max_actions=2, weights=weights))
    step = await environment.step(act("click", ref="e99"))
    assert (step.terminated, step.truncated, step.reward) == (False, False, -0.1)
    assert step.info.tool_results[0].error == "tool_error"
    step = await environment.step(act("snapshot"))
    assert (step.terminated, step.truncated, step.reward) == (False, True, 0.0)
    assert step.info.reward_terms["score"] == -1.0


@pytest.mark.anyio
async def test_another_page_or_a_new_load_is_not_the_task(config, opened):
    for name in ("goes to another page", "loads the page anew"):
        environment, _ = await opened(config("click-button"))
        step = await environment.step(environment.cheats()[name][0])
        assert (step.terminated, step.reward) == (True, 0.0), name


@pytest.mark.anyio
async def test_only_the_tasks_own_site_is_reached(config, opened):
    environment, _ = await opened(config("click-test-2"))
    step = await environment.step(act("navigate", url="http://example.org/"))
    assert "may not be opened. Allowed: 127.0.0.1" in step.messages[0].content
    wider, _ = await opened(config("click-test-2", allowed_hosts=("cdn.test",)))
    step = await wider.step(act("navigate", url="http://example.org/"))
    assert "cdn.test" in step.messages[0].content


@pytest.mark.anyio
async def test_tools_are_those_that_are_offered(config, opened):
    environment, [system, _] = await opened(config("click-test-2", actions="click, type"))
    assert [tool.name for tool in environment.tools] == ["browser_click", "browser_type"]
    assert "reply without a tool call" in system.content
    step = await environment.step(Message("assistant", "", (ToolCall("1", "browser_navigate", {"url": "x"}),)))
    assert step.info.tool_results[0].error == "unknown_tool"


@pytest.mark.anyio
async def test_curricula_shorten_and_solve_beforehand(config, opened):
    pages = config("login-user")
    whole, _ = await opened(pages)
    step, needed = await solve(whole)
    assert (step.reward, needed) == (1.0, 3)
    half, [_, user] = await opened(pages, solved_share=0.7)
    assert user.content.count('= ""') == 0  # both fields are filled in
    step, left = await solve(half)
    assert (step.reward, left) == (1.0, 1)
    nearly, _ = await opened(pages, solved_share=1.0)
    assert (await nearly.step(Message("assistant", "done"))).reward == 0.0  # never the last action
    short, _ = await opened(pages, max_actions=2)
    step, done = await solve(short)
    assert (step.truncated, step.reward, done) == (True, 0.0, 2)


@pytest.mark.anyio
async def test_a_demonstrator_with_little_noise_mostly_solves(config, opened):
    rng, rewards = np.random.default_rng(0), []
    for task in BrowserEnvironment.tasks("train", 4, 0, config("click-button")):
        environment, _ = await opened(config("click-button", noise=0.01), task)
        rewards.append((await environment.step(environment.random_action(rng))).reward)
    assert rewards == [1.0] * 4


def test_tasks_are_shared_out_by_the_parity_of_their_seeds(config):
    train, test = (BrowserEnvironment.tasks(split, 50, 3, config(FAST)) for split in ("train", "test"))
    assert {task.data["seed"] % 2 for task in train} == {0}
    assert {task.data["seed"] % 2 for task in test} == {1}
    assert {task.tags[0] for task in train} == set(FAST.split(","))
    assert json.loads(json.dumps(train[0].data)) == train[0].data
    with pytest.raises(UserError, match="Unknown split"):
        BrowserEnvironment.tasks("dev", 1, 0, config())
    with pytest.raises(UserError, match="Did you mean 'click-test'"):
        BrowserEnvironment.tasks("train", 1, 0, config("clik-test"))


def test_options_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match=r"there is no action 'clik'\. Did you mean 'click'"):
        BrowserEnvConfig(actions="type,clik")
    with pytest.raises(ValueError, match="there is no term 'sucess'"):
        BrowserEnvConfig(weights={"sucess": 1.0})
