"""Budgets: what is counted, which tasks are left out, and what a resumed evaluation goes on with."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anyio
import numpy as np
import pytest

from agent_rl.config import build
from agent_rl.environment import Environment
from agent_rl.errors import ConfigError, UserError
from agent_rl.evaluate.budget import Budget, Spent, read_spent, write_spent
from agent_rl.evaluate.eval_config import EvalConfig
from agent_rl.evaluate.harness import evaluate, run
from agent_rl.evaluate.report import to_table
from agent_rl.rollout.agent import Action
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.store.opening import create_journal
from agent_rl.testing.environments import GuessNumber
from agent_rl.types import Message, Step, Task, Usage

GUESS = f"{GuessNumber.__module__}:GuessNumber"
LIMITS = RolloutLimits(max_turns=40)
TRUTH = 10 / 19  # of the lengths, 1 to 19, those up to 10 are won


class Lengths(Environment):
    """An episode takes as many turns as the task says; the long ones are lost. Some tasks hang."""

    @classmethod
    def tasks(cls, split, count, seed=0):
        turns = np.random.default_rng(seed).integers(1, 20, count).tolist()
        return [Task(f"t{i}", (Message("user", "?"),), {"turns": n}) for i, n in enumerate(turns)]

    async def reset(self, task, seed):
        self._left, self._hangs = task.data["turns"], task.data.get("hangs", False)
        self._reward = float(self._left <= 10)
        return task.prompt

    async def step(self, action):
        if self._hangs:
            await anyio.sleep_forever()
        self._left -= 1
        return Step((Message("user", "go on"),), 0.0 if self._left else self._reward, terminated=not self._left)


class Talker:
    """Ten tokens of prompt and five of answer a turn, or no count at all."""

    context_tokens = 0

    def __init__(self, usage):
        self._usage = usage

    def start(self, prompt, tools):
        pass

    async def act(self, turn, max_tokens):
        await anyio.lowlevel.checkpoint()
        return Action(Message("assistant", "."), usage=self._usage)

    def observe(self, messages):
        pass

    def segments(self):
        return ()

    async def close(self):
        pass


def talker(environment, key):
    return Talker(Usage(10, 5))


async def play(tasks, *, make_agent=talker, **options):
    groups = {}
    report = await evaluate(
        lambda task: Lengths(),
        tasks,
        make_agent,
        limits=LIMITS,
        on_group=lambda group: groups.update({group.index: group}),
        **options,
    )
    return report, groups


@pytest.mark.anyio
@pytest.mark.parametrize("tokens", [3000, 3100, 3200, 3300])
async def test_what_has_begun_is_finished_and_nothing_else_begins(tokens):
    tasks = Lengths.tasks("test", 60)
    report, groups = await play(tasks, samples=3, concurrency=4, budget=Budget(tokens=tokens))
    assert sorted(groups) == list(range(len(groups)))  # the first ones, none left out for its length
    assert report.tasks == report.overall.tasks == len(groups)
    assert all(len(group.valid) == 3 for group in groups.values())
    turns = sum(len(episode.turns) for group in groups.values() for episode in group.trajectories)
    assert (report.extent.spent.prompt_tokens, report.extent.spent.sampled_tokens) == (10 * turns, 5 * turns)
    assert tokens <= 15 * turns < tokens + 15 * 20 * (4 + 3)  # at most what ran, and the siblings of the last task
    assert (report.extent.limit, report.extent.planned_tasks, report.extent.cut_tasks) == ("tokens", 60, 0)
    assert report.failures == {}


@pytest.mark.anyio
async def test_a_budget_that_suffices_changes_nothing():
    tasks = Lengths.tasks("test", 20)
    free, _ = await play(tasks, samples=2)
    bounded, _ = await play(tasks, samples=2, budget=Budget(tokens=10**9, seconds=1000))
    assert free.overall == bounded.overall
    assert bounded.extent.limit == ""
    assert bounded.tasks == 20


@pytest.mark.anyio
async def test_the_tasks_that_are_scored_are_as_hard_as_the_others():
    """Long episodes are the failures here. Pooled over many budgets, the score of what is finished after the budget has
    no bias; that of what is finished within it is far too high."""

    async def pooled(grace):
        solved = tasks = 0
        for seed in range(30):
            budget = Budget(tokens=1200, grace=grace)
            report, _ = await play(Lengths.tasks("test", 30, seed), concurrency=8, budget=budget)
            tasks += report.tasks
            solved += round(report.overall.success.value * report.tasks)
        return solved / tasks, np.sqrt(TRUTH * (1 - TRUTH) / tasks)

    finished, error = await pooled(grace=4.0)
    assert abs(finished - TRUTH) < 3 * error
    cut, error = await pooled(grace=1.0)
    assert cut - TRUTH > 3 * error


@pytest.mark.anyio
async def test_at_the_hard_limit_running_episodes_are_cut_and_their_siblings_left_out():
    tasks = [Task(f"t{i}", (Message("user", "?"),), {"turns": n}) for i, n in enumerate([2, 2, 2, 9, 40, 40])]
    # The hard limit is 52 turns: one member of the fourth task has finished then, its sibling has not.
    report, groups = await play(tasks, samples=2, concurrency=7, budget=Budget(tokens=520, grace=1.5))
    assert sorted(groups) == [0, 1, 2]
    assert (report.extent.cut_tasks, report.extent.limit) == (3, "tokens")
    assert report.tasks == 3
    assert report.overall.success.value == 1.0
    assert 780 <= report.extent.spent.tokens <= 780 + 7 * 15


@pytest.mark.anyio
async def test_seconds_end_an_evaluation_whose_environment_hangs():
    tasks = [Task(f"t{i}", (Message("user", "?"),), {"turns": 1, "hangs": i == 1}) for i in range(4)]
    with anyio.fail_after(10):
        report, groups = await play(tasks, concurrency=4, samples=2, budget=Budget(seconds=0.1, grace=2))
    assert sorted(groups) == [0, 2, 3]
    assert (report.extent.limit, report.extent.cut_tasks) == ("seconds", 1)


@pytest.mark.anyio
async def test_a_resumed_evaluation_goes_on_with_what_is_left(tmp_path):
    tasks = Lengths.tasks("test", 12)
    whole, _ = await play(tasks, samples=2)
    ledger, spent = tmp_path / "spent.json", [0]
    for tokens in (600, 600, 1200, 10**6):
        with create_journal(tmp_path) as journal:
            report, _ = await play(
                tasks, samples=2, concurrency=3, budget=Budget(tokens=tokens), journal=journal, ledger=ledger
            )
        spent.append(report.extent.spent.tokens)
    assert spent[0] < spent[1] == spent[2] < spent[3] < spent[4]  # the second time nothing was left
    assert spent[4] == 15 * sum(task.data["turns"] for task in tasks) * 2
    assert report.extent.limit == ""
    assert report.overall == whole.overall
    assert read_spent(ledger).tokens == spent[4]


@pytest.mark.anyio
async def test_an_agent_that_tells_no_tokens_is_refused_when_they_are_limited():
    tasks = Lengths.tasks("test", 2)[:1]
    with pytest.RaisesGroup(pytest.RaisesExc(UserError, match="use budget.seconds"), flatten_subgroups=True):
        await play(tasks, make_agent=lambda environment, key: Talker(None), budget=Budget(tokens=100))
    report, _ = await play(tasks, make_agent=lambda environment, key: Talker(None), budget=Budget(seconds=100))
    assert report.tasks == 1


@pytest.mark.anyio
async def test_nothing_at_all_is_a_report_too():
    hanging = [Task(f"t{i}", (Message("user", "?"),), {"turns": 1, "hangs": True}) for i in range(3)]
    report, groups = await play(hanging, budget=Budget(seconds=0.01, grace=1))
    assert groups == {}
    assert report.overall is None
    assert (report.tasks, report.extent.limit) == (0, "seconds")
    assert to_table({"x": report}).row_count > 0


def test_dollars_are_tokens_times_prices():
    budget = Budget(dollars=1.0, input_price=2.0, output_price=10.0)
    assert budget.cost(Spent(300_000, 40_000)) == pytest.approx(1.0)
    assert budget.reached(Spent(300_000, 39_999)) == ""
    assert budget.reached(Spent(300_000, 40_000)) == "dollars"
    assert budget.reached(Spent(300_000, 40_000), times=2) == ""
    assert Budget().cost(Spent(1, 1)) is None


def test_the_ledger_survives_and_a_broken_one_is_explained(tmp_path):
    path = tmp_path / "spent.json"
    assert read_spent(path) == Spent()
    write_spent(path, Spent(3, 4, 5.5))
    assert read_spent(path) == Spent(3, 4, 5.5)
    path.write_text("{")
    with pytest.raises(UserError, match="remove it to count from zero"):
        read_spent(path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"budget": {"dollars": 1}}, "give input_price and output_price"),
        ({"budget": {"input_price": 1}}, "go together"),
        ({"budget": {"grace": 0.5}}, "grace"),
        ({"budget": {"tokens": 10}}, "only budget.seconds"),
        ({"budget": {"second": 10}}, "Did you mean 'budget.seconds'"),
    ],
)
def test_a_bad_budget_is_one_clear_sentence(fields, message):
    with pytest.raises(ConfigError, match=message):
        build(EvalConfig, {"environment": GUESS, "agent": "oracle"} | fields)


# --- an endpoint ----------------------------------------------------------------------------------------------------


@contextmanager
def endpoint(usage):
    """A chat endpoint that says 1, 3, 5, ... and counts as `usage` says."""

    class Counting(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            said = 1 + 2 * sum(message["role"] == "assistant" for message in body["messages"])
            choice = {"message": {"role": "assistant", "content": str(said)}, "finish_reason": "stop"}
            answer = json.dumps({"choices": [choice], "usage": usage}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Counting) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        finally:
            server.shutdown()
            thread.join()


def test_an_endpoints_own_count_is_what_dollars_are_reckoned_from(tmp_path):
    with endpoint({"prompt_tokens": 900, "completion_tokens": 100}) as url:
        base = {"environment": GUESS, "environment_options": {"high": 20}, "tasks": 6, "concurrency": 2}
        base |= {"agent": "openai", "model": "m", "base_url": url, "run_dir": str(tmp_path / "run")}
        base |= {"limits": {"max_turns": 20}}
        prices = {"input_price": 1.0, "output_price": 1.0}
        first = run(build(EvalConfig, base | {"budget": {"dollars": 0.006, "grace": 9, **prices}}))
        assert 0 < first.tasks < 6
        assert first.extent.limit == "dollars"
        turns = round(first.tasks * first.turns)
        assert (first.extent.spent.prompt_tokens, first.extent.spent.sampled_tokens) == (900 * turns, 100 * turns)
        assert first.extent.dollars == pytest.approx(1e-3 * turns)
        last = run(build(EvalConfig, base | {"budget": {"dollars": 1, **prices}, "resume": True}))
    assert (last.tasks, last.extent.limit) == (6, "")
    assert last.extent.dollars == pytest.approx(1e-3 * last.tasks * last.turns)
    assert json.loads((tmp_path / "run" / "report.json").read_text())["extent"]["planned_tasks"] == 6
