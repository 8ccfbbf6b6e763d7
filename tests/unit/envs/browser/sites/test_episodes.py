"""Episodes on the sites in a real Chromium."""

import os
import signal
from collections import Counter
from functools import partial

import anyio
import numpy as np
import pytest

from agent_rl import Message
from agent_rl.concurrency import collect
from agent_rl.errors import EnvironmentFailure
from agent_rl.tool import share
from agent_rl_envs.browser import BrowserEnvConfig, BrowserEnvironment
from agent_rl_envs.browser.acting import act
from agent_rl_envs.browser.sites import serving
from agent_rl_envs.browser.sites.checks import says
from agent_rl_envs.browser.sites.source import SitesConfig
from agent_rl_envs.browser.sites.templates import TEMPLATES
from agent_rl_tools.browser import ViewConfig

pytestmark = pytest.mark.anyio
FAST = (
    "how_many_rated",
    "reply_to_thread",
    "archive_all_from",
    "settle_invoice",
    "register_with_dinner",
    "delete_event",
)
FAST_CROSS = "shop_by_mail"


def sites(templates="", **options):
    view = ViewConfig(observation="elements", header=True)
    return BrowserEnvConfig(source="sites", sites=SitesConfig(templates=templates, worlds=9), view=view, **options)


async def solve(environment):
    """The oracle's episode: its last step and how many actions it took."""
    for turn in range(1, 40):
        step = await environment.step(environment.oracle_action())
        assert all(result.error is None for result in step.info.tool_results), step.messages
        if step.terminated or step.truncated:
            return step, turn
    raise AssertionError("the oracle does not come to an end")


async def nearly(environment):
    """All of the oracle's actions but the last one, which ends the episode."""
    while (action := environment.oracle_action()).tool_calls:
        assert not (await environment.step(action)).terminated
    return action


async def check_solved(name, opened):
    environment, [_, user] = await opened(sites(name))
    problem = environment._assignment._problem
    step, turns = await solve(environment)
    assert (step.terminated, step.reward) == (True, 1.0), (name, user.content.splitlines()[0], dict(step.info.metrics))
    assert step.info.reward_terms["score"] == 1.0
    assert turns <= problem.actions + 1
    return problem, environment.toolsets[0].view


@pytest.mark.parametrize("name", [*FAST, FAST_CROSS])
async def test_the_oracle_solves(name, opened):
    await check_solved(name, opened)


@pytest.mark.slow
@pytest.mark.parametrize("app", [*serving.APP_NAMES, "cross"])
async def test_the_oracle_solves_every_template(app, opened):
    async def solved(name):
        problem, view = await check_solved(name, opened)
        seen = {text for node in view.nodes for text in (node.name, node.value)}
        computed = name in ("owed_by_customer", "how_many_events")  # is added up, not read
        if problem.answer and not computed:
            for part in problem.answer.split(", "):
                assert any(says(text, part) or part in text for text in seen), f"{name}: the answer is not on the page"

    names = [name for name, (of, _) in TEMPLATES.items() if of == app and name not in (*FAST, FAST_CROSS)]
    await collect([partial(solved, name) for name in names])


async def test_nothing_done_is_nothing_earned_and_an_answer_does_not_count_for_a_change(opened):
    for answer in ("done", "", "success=true"):
        environment, _ = await opened(sites("put_into_cart"))
        step = await environment.step(Message("assistant", answer))
        assert (step.terminated, step.reward, step.info.reward_terms["score"]) == (True, 0.0, 0.0)


async def test_whoever_does_more_than_was_asked_loses(opened):
    environment, _ = await opened(sites("change_cart", weights={"success": 1.0, "score": 0.5}))
    last = await nearly(environment)
    view = environment.toolsets[0].view
    target = next(node.ref for node in view.elements("button") if node.name.startswith("Remove"))
    await environment.step(act("click", ref=target))
    step = await environment.step(last)
    assert (step.info.reward_terms["success"], step.reward) == (0.0, 0.0)
    assert step.info.metrics["changes_beside"] >= 1


async def test_a_part_of_what_is_wanted_is_progress(opened):
    config = sites("settle_reports", weights={"success": 1.0, "score": 0.5})
    environment, _ = await opened(config)
    for _ in range(2):  # to the page, and the first report
        await environment.step(environment.oracle_action())
    step = await environment.step(act("stop"))
    terms = step.info.reward_terms
    assert (terms["success"], 0 < terms["score"] < 0.5, step.reward) == (0.0, True, 0.5 * terms["score"])


async def test_for_a_question_nothing_may_change(opened):
    environment, _ = await opened(sites("price_of_product"))
    answer = (await nearly(environment)).content
    await environment.step(act("navigate", url="http://mail.test/"))
    view = environment.toolsets[0].view
    await environment.step(act("click", ref=next(view.elements("checkbox")).ref))
    await environment.step(act("select", ref=view.find("combobox", "With the checked mails").ref, option="star"))
    await environment.step(act("click", ref=view.find("button", "Apply").ref))
    step = await environment.step(act("stop", answer=answer))
    assert (step.info.reward_terms["success"], step.info.metrics["changes_beside"]) == (0.0, 1.0)


async def test_cheats_earn_nothing(opened):
    for name in ("price_of_product", "reply_to_thread"):
        environment, _ = await opened(sites(name))
        cheats = environment.cheats()
        for moves in cheats.values():
            environment, _ = await opened(sites(name))
            for move in moves:
                step = await environment.step(move)
            assert (step.terminated, step.reward) == (True, 0.0)
        assert len(cheats) == 5


async def test_only_the_sites_are_reached_and_their_databases_are_not(opened):
    environment, _ = await opened(sites("price_of_product"))
    cheats = environment.cheats()
    for name in ("asks the server", "goes elsewhere"):
        step = await environment.step(cheats[name][0])
        assert "may not be opened. Allowed: shop.test:80, forum.test:80" in step.messages[0].content
    step = await environment.step(cheats["asks the site for its database"][0])
    assert "Not Found" in step.messages[0].content
    step = await environment.step(act("navigate", url="http://forum.test/"))
    assert "Gardening" in step.messages[0].content


async def test_siblings_see_the_same_and_not_each_other(opened):
    config = sites("take_from_cart")
    task = BrowserEnvironment.tasks("train", 1, 0, config)[0]
    one, said = await opened(config, task)
    other, said_other = await opened(config, task)
    assert said == said_other
    assert one.state_key() == other.state_key()
    await nearly(one)
    step = await other.step(act("navigate", url="http://shop.test/cart"))
    assert Counter(step.messages[0].content.split())["[e7]"] == 1
    assert (await one.step(act("stop"))).reward == 1.0
    assert (await other.step(act("stop"))).reward == 0.0


async def test_sixteen_at_once_are_apart(opened):
    config = sites("take_from_cart")
    tasks = BrowserEnvironment.tasks("train", 16, 0, config)
    environments = [(await opened(config, task))[0] for task in tasks]

    async def play(environment):
        return (await solve(environment))[0].reward

    rewards = await collect([lambda one=one: play(one) for one in environments])
    assert rewards == [1.0] * 16


async def test_curricula(opened):
    config = sites("register_with_dinner")
    whole, _ = await opened(config)
    _, needed = await solve(whole)
    half, [_, user] = await opened(config, solved_share=0.5)
    assert "page 2 of 3" in user.content
    step, left = await solve(half)
    assert (step.reward, left) == (1.0, needed - (needed - 1) // 2)
    anew, _ = await opened(sites("put_into_cart"), solved_share=0.5)  # what the oracle has tried out is undone
    assert (await solve(anew))[0].reward == 1.0
    short, _ = await opened(config, max_actions=3)
    step, _ = await solve(short)
    assert (step.truncated, step.reward, step.info.reward_terms["score"]) == (True, 0.0, 0.0)


async def test_the_oracle_goes_on_after_a_wrong_turn(opened):
    environment, _ = await opened(sites("change_plan"))
    await environment.step(environment.oracle_action())
    view = environment.toolsets[0].view
    await environment.step(act("click", ref=view.find("link", "Export").ref))
    step, _ = await solve(environment)
    assert step.reward == 1.0


async def test_the_oracle_needs_no_more_tools_than_its_task(opened):
    environment, [system, _] = await opened(sites("phone_of_contact", actions="click"))
    assert "reply without a tool call" in system.content
    assert (await solve(environment))[0].reward == 1.0


async def test_a_random_agent_is_answered(opened):
    rng = np.random.default_rng(0)
    environment, _ = await opened(sites(max_actions=40))
    for _ in range(15):
        step = await environment.step(environment.random_action(rng))
        assert all(result.error in (None, "tool_error") for result in step.info.tool_results)
        assert "does not work" not in step.messages[0].content
    step = await environment.step(act("stop"))  # no page has failed, or this would be a failure of ours
    assert step.reward == 0.0


# --- what goes wrong ------------------------------------------------------------------------------------------------


async def server(run):
    return (await share("browser sites", serving.open_sites))._server.process


async def test_a_killed_server_is_our_failure_and_another_one_is_started(opened, run):
    environment, _ = await opened(sites("put_into_cart"))
    await environment.step(environment.oracle_action())
    process = await server(run)
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    with pytest.raises(EnvironmentFailure, match="has died"):
        await environment.step(environment.oracle_action())
    await environment.close()
    again, _ = await opened(sites("put_into_cart"))
    assert (await server(run)).pid != process.pid
    assert (await solve(again))[0].reward == 1.0


@pytest.mark.slow
async def test_a_server_that_hangs_is_replaced(opened, run, monkeypatch):
    await opened(sites("put_into_cart"))
    process = await server(run)
    (await share("browser sites", serving.open_sites))._server.client.timeout = 0.3
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(EnvironmentFailure, match="does not answer"):
        await opened(sites("put_into_cart"))
    with anyio.fail_after(10):
        await process.wait()
    assert (await solve((await opened(sites("take_from_cart")))[0]))[0].reward == 1.0


async def test_databases_are_dropped_with_their_episodes(opened, run):
    environment, _ = await opened(sites("put_into_cart"))
    held = environment._assignment._sites
    await held.image()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await environment.close()
    with pytest.raises(EnvironmentFailure):
        await held.image()
    await environment.close()


async def test_a_server_that_does_not_start_is_our_failure(monkeypatch):
    monkeypatch.setattr(serving, "_MODULE", "agent_rl_no_such_module")
    async with serving.open_sites() as held:
        with pytest.raises(EnvironmentFailure, match="does not start"):
            await held.open(b"")
