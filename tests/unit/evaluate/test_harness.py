import json
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from agent_rl.chat.codec import ChatCodec
from agent_rl.config import build
from agent_rl.engine.scripted import ScriptedEngine
from agent_rl.errors import ConfigError, ModelError, UserError
from agent_rl.evaluate.harness import EvalConfig, evaluate, model_source, run
from agent_rl.rollout.agent import OracleAgent, PolicyAgent, RandomAgent
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.store.checkpoint import save_checkpoint
from agent_rl.store.opening import create_journal
from agent_rl.store.tasks import write_tasks
from agent_rl.testing.environments import FaultyEnvironment, GuessNumber, GuessNumberConfig
from agent_rl.testing.tiny import make_model, make_tokenizer
from agent_rl.types import SamplingParams

LIMITS = RolloutLimits(max_turns=5, max_response_tokens=16, max_context_tokens=512)
TASKS = GuessNumber.tasks("test", 12, config=GuessNumberConfig(high=20))
GUESS = f"{GuessNumber.__module__}:GuessNumber"


def oracle(environment, key):
    return OracleAgent(environment)


def guess_at_random(environment, key):
    return RandomAgent(environment, key.turn_seeds()(0))


# --- evaluate -------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_oracle_is_the_ceiling_and_chance_is_below():
    best = await evaluate(lambda task: GuessNumber(), TASKS, oracle, limits=LIMITS)
    chance = await evaluate(lambda task: GuessNumber(), TASKS, guess_at_random, limits=LIMITS, samples=4)
    assert best.overall.success.value == 1.0
    assert best.overall.success.low < 1.0
    assert 0.2 < chance.overall.success.value < 0.9
    assert list(chance.overall.pass_at) == [1, 2, 4]
    assert chance.overall.pass_at[4].value > chance.overall.success.value > chance.overall.pass_hat[4].value
    assert chance.episodes == 48
    assert chance.tokens == 0


@pytest.mark.anyio
async def test_a_policy_is_scored_the_same_for_any_concurrency():
    codec = ChatCodec(make_tokenizer(["Guess my number. It is from 0 to 19.", "higher", "lower", "correct"]))

    def respond(request):
        guess = np.random.default_rng(request.seed).integers(20)
        return [*codec.encode_rendered(str(guess)).tolist(), codec.stop_token_ids[0]]

    async def score(concurrency):
        make_agent = partial(policy_agent, ScriptedEngine(respond), codec)
        return await evaluate(
            lambda task: GuessNumber(), TASKS, make_agent, limits=LIMITS, samples=4, seed=3, concurrency=concurrency
        )

    one, many = await score(1), await score(64)
    assert one.overall == many.overall
    assert one.tokens == many.tokens > 0
    assert 0 < one.overall.success.value < 1


def policy_agent(engine, codec, environment, key):
    return PolicyAgent(engine, codec, SamplingParams(), key)


@pytest.mark.anyio
async def test_infrastructure_failures_are_excluded_and_counted():
    broken = TASKS[:5]

    def environment(task):
        return FaultyEnvironment(GuessNumber(), {"step": "crash"} if task in broken else {})

    groups = []
    report = await evaluate(
        environment, TASKS, oracle, limits=LIMITS, samples=2, max_attempts=1, on_group=groups.append
    )
    assert {episode.attempts for group in groups for episode in group.trajectories} == {1}
    assert report.overall.success.value == 1.0
    assert (report.overall.tasks, report.overall.episodes) == (7, 14)
    assert report.failures == {"environment": 10}


@pytest.mark.anyio
async def test_every_task_is_shown_when_it_is_done():
    seen = []
    await evaluate(lambda task: GuessNumber(), TASKS, oracle, limits=LIMITS, samples=2, on_group=seen.append)
    assert sorted(group.task.id for group in seen) == sorted(task.id for task in TASKS)
    assert all(len(group.trajectories) == 2 for group in seen)


# --- run ------------------------------------------------------------------------------------------------------------


def config(**fields) -> EvalConfig:
    fields = {"environment": GUESS, "tasks": 6, "limits": LIMITS, "environment_options": {"high": 20}} | fields
    return build(EvalConfig, fields)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """A random policy with 256 positions, fewer than the limits allow."""
    tokenizer = make_tokenizer(["Guess my number. It is from 0 to 19.", "higher", "lower", "correct"])
    folder = tmp_path_factory.mktemp("policy")
    make_model(tokenizer, hidden_size=32, layers=1, heads=1, max_context=256).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_model_folder_is_evaluated_and_the_result_written(tmp_path, model_folder):
    folder = tmp_path / "run"
    options = {"model": str(model_folder), "samples": 2, "temperature": 0.7, "run_dir": str(folder)}
    report = run(config(**options))
    assert report.overall.episodes == 12
    assert report.failures == {}
    assert report.tokens > 0
    assert json.loads((folder / "report.json").read_text()) == json.loads(json.dumps(report.to_json()))
    assert build(EvalConfig, json.loads((folder / "config.json").read_text())) == config(**options)
    with create_journal(folder) as journal:
        assert [len(group.valid) for group in journal.load_groups().values()] == [2] * 6


def test_what_is_finished_is_not_played_again(tmp_path):
    """The evaluation breaks off after each second task; what comes out in the end is that of one without a break."""
    folder, rewards = tmp_path / "run", {}
    options = {"agent": "random", "samples": 3, "concurrency": 1, "tasks": 7}

    def play(resume):
        played = 0

        def stop(group):
            nonlocal played
            played += group.index not in rewards
            rewards.setdefault(group.index, [episode.reward for episode in group.trajectories])
            if played == 2:
                raise KeyboardInterrupt

        return run(config(**options, run_dir=str(folder), resume=resume), on_group=stop)

    for attempt in range(3):
        with pytest.raises((KeyboardInterrupt, BaseExceptionGroup)):
            play(resume=attempt > 0)
        assert len(rewards) == 2 * (attempt + 1)
    report, whole = play(resume=True), run(config(**options))
    assert report.overall == whole.overall
    assert report.episodes == 21


def test_a_folder_of_other_tasks_is_refused(tmp_path):
    path, folder = tmp_path / "tasks.jsonl", tmp_path / "run"
    options = {"agent": "oracle", "run_dir": str(folder), "task_file": str(path)}
    write_tasks(path, TASKS[:3])
    run(config(**options))
    with pytest.raises(ConfigError, match="not empty: add --resume"):
        run(config(**options))
    with pytest.raises(ConfigError, match="resume needs the folder"):
        config(agent="oracle", resume=True)
    with pytest.raises(ConfigError, match="seed"):
        run(config(**options, resume=True, seed=1))
    write_tasks(path, TASKS[1:4])
    with pytest.raises(UserError, match="tasks have changed"):
        run(config(**options, resume=True))


@pytest.mark.parametrize(("temperature", "distinct"), [(0.0, 1), (1.0, 4)])
def test_the_policy_samples_at_the_temperature(model_folder, temperature, distinct):
    groups = []
    run(config(model=str(model_folder), tasks=1, samples=4, temperature=temperature), on_group=groups.append)
    rows = {episode.segments[0].token_ids_T.tobytes() for episode in groups[0].trajectories}
    assert len(rows) == distinct


def test_threshold_and_interval_reach_the_score():
    assert run(config(agent="oracle", success_threshold=1.5)).overall.success.value == 0.0
    analytic, bootstrap = (run(config(agent="random", samples=4, interval=i)) for i in ("analytic", "bootstrap"))
    assert analytic.overall.success.value == pytest.approx(bootstrap.overall.success.value)
    assert analytic.overall.success != bootstrap.overall.success


def test_references_need_no_model():
    assert run(config(agent="oracle")).overall.success.value == 1.0
    assert run(config(agent="random", samples=8)).overall.success.value < 1.0


def test_the_seed_chooses_the_tasks():
    def hidden(seed):
        groups = []
        run(config(agent="oracle", seed=seed), on_group=groups.append)
        return [group.task.data["hidden"] for group in sorted(groups, key=lambda group: group.index)]

    assert hidden(1) == hidden(1) != hidden(2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"agent": "policy"}, "a policy needs a model"),
        ({"agent": "oracle", "model": "x"}, "uses no model"),
        ({"agent": "oracle", "temperatur": 0.5}, "Did you mean 'temperature'"),
        ({"agent": "oracle", "samples": 0}, "samples"),
        ({"agent": "oracle", "interval": "exact"}, "interval"),
    ],
)
def test_a_bad_config_is_one_clear_sentence(fields, message):
    with pytest.raises(ConfigError, match=message):
        config(**fields)


def test_a_missing_environment_split_model_or_folder_is_one_clear_sentence(tmp_path):
    with pytest.raises(UserError, match="Unknown environment"):
        run(config(environment="gess", agent="oracle"))
    with pytest.raises(UserError, match="Unknown split 'tset'"):
        run(config(agent="oracle", split="tset"))
    with pytest.raises(ModelError, match="no model folder"):
        run(config(model=str(tmp_path / "nothing")))


# --- model_source ---------------------------------------------------------------------------------------------------


def test_a_run_folder_stands_for_the_model_of_its_latest_checkpoint(tmp_path):
    def export(folder):
        (folder / "model").mkdir()

    position = {"next_group_index": 0, "weight_version": 0, "seed": 0}
    first, last = (save_checkpoint(tmp_path, {}, step=step, export=export, **position) for step in (3, 20))
    assert model_source(str(tmp_path)) == str(last.path / "model")
    assert model_source(str(first.path)) == str(first.path / "model")
    assert model_source(str(last.path / "model")) == str(last.path / "model")
    assert model_source("Qwen/Qwen3-0.6B") == "Qwen/Qwen3-0.6B"


class Counting(BaseHTTPRequestHandler):
    """A chat endpoint that says 1, 3, 5, ... as the conversation goes on."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = 1 + 2 * sum(message["role"] == "assistant" for message in body["messages"])
        choice = {"message": {"role": "assistant", "content": str(said)}, "finish_reason": "stop"}
        answer = json.dumps({"choices": [choice], "usage": {"total_tokens": 9}, "model": body["model"]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments):
        pass


def test_a_model_behind_an_endpoint_is_evaluated():
    with ThreadingHTTPServer(("127.0.0.1", 0), Counting) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}/v1"
            groups = []
            limits = LIMITS.model_copy(update={"max_turns": 10})
            counting = config(agent="openai", model="counting", base_url=url, limits=limits)
            report = run(counting, on_group=groups.append)
        finally:
            server.shutdown()
            thread.join()
    assert report.overall.success.value == 1.0
    for group in groups:
        (episode,) = group.trajectories
        assert episode.segments == ()
        assert len(episode.turns) == 1 + episode.task.data["hidden"] // 2
    with pytest.raises(ConfigError, match="agent=openai needs a model"):
        config(agent="openai")
