"""A run as spans: times in order, every turn once, and the same in the Chrome trace and in OpenTelemetry."""

import json

import anyio
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agent_rl.cli import main
from agent_rl.otel import OpenTelemetry
from agent_rl.rollout.agent import OracleAgent
from agent_rl.rollout.episode import run_episode
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.rollout.manager import run_tasks
from agent_rl.store.opening import create_journal
from agent_rl.testing.environments import FaultyEnvironment, GuessNumber
from agent_rl.trace import TRAINER, chrome_trace, episode_spans


@pytest.fixture(scope="module")
def groups():
    """Two groups of two; every step of the second takes a moment."""
    return anyio.run(play_all)


async def play_all():
    async def play(task, *, group_index, member, seed):
        return await run_episode(
            lambda task: FaultyEnvironment(GuessNumber(), {"step": "slow"} if group_index else {}),
            lambda environment, _: OracleAgent(environment),
            task,
            group_index=group_index,
            member=member,
            seed=seed,
            limits=RolloutLimits(),
        )

    return await run_tasks(play, GuessNumber.tasks("train", 2), group_size=2, seed=0, max_concurrent_episodes=4)


def test_spans_of_an_episode_lie_inside_of_it_and_in_order(groups):
    for group in groups:
        for episode in group.trajectories:
            whole, setup, *turns = episode_spans(episode)
            assert whole.duration_s == episode.duration_s > 0
            assert [span.category for span in turns] == ["generation", "step"] * len(episode.turns)
            ends = setup.began_at + setup.duration_s
            for span in turns:
                assert span.began_at >= ends - 1e-3
                ends = span.began_at + span.duration_s
            assert ends <= whole.began_at + whole.duration_s + 1e-3
    slow = [span.duration_s for span in episode_spans(groups[1].trajectories[0]) if span.category == "step"]
    assert max(slow) > 0.001


def test_the_command_writes_what_perfetto_reads(groups, tmp_path, capsys):
    with create_journal(tmp_path) as journal:
        for group in groups:
            journal.append_group(group)
    line = {
        "step": 1,
        "time_s": groups[0].trajectories[0].began_at + 5,
        "time/learn_s": 2.0,
        "time/rollout_wait_s": 1.0,
    }
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    assert main(["trace", str(tmp_path)]) == 0
    assert "ui.perfetto.dev" in capsys.readouterr().out
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    durations = [event for event in events if event["ph"] == "X"]
    assert min(event["ts"] for event in durations) == 0
    assert {event["pid"] for event in events} == {TRAINER, 0, 1}
    steps = sum(event["cat"] == "step" for event in durations)
    assert steps == sum(episode.steps for group in groups for episode in group.trajectories)
    learn = next(event for event in durations if event["name"] == "learn")
    assert learn["dur"] == 2e6
    assert events == chrome_trace(groups, [line])["traceEvents"]


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    assert main(["trace", str(tmp_path)]) == 2
    assert "There are no episodes in" in capsys.readouterr().err


def test_opentelemetry_gets_the_same_spans(groups):
    memory, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    with OpenTelemetry(provider) as telemetry:
        for group in groups:
            telemetry.export(group)
        finished = memory.get_finished_spans()
    expected = [span for group in groups for episode in group.trajectories for span in episode_spans(episode)]
    assert len(finished) == len(expected)
    parents = {span.context.span_id: span for span in finished if span.parent is None}
    assert len(parents) == 4
    for span in finished:
        if span.parent is not None:
            parent = parents[span.parent.span_id]
            assert span.attributes["agent_rl.member"] == parent.attributes["agent_rl.member"]
            assert parent.start_time - 10**6 <= span.start_time <= span.end_time <= parent.end_time + 10**6
