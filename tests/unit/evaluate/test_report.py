import json
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from agent_rl.evaluate.report import summarize, to_table
from agent_rl.evaluate.statistics import pass_at_k, pass_hat_k, proportion
from agent_rl.types import (
    Failure,
    FinishReason,
    Group,
    Message,
    Owner,
    Segment,
    StopReason,
    Task,
    ToolCall,
    ToolResult,
    Trajectory,
    Turn,
)

CALL = ToolCall("call_0", "look", {})
FAILED = Failure("timeout", Owner.SANDBOX, "step", "took too long")


def episode(task: Task, member: int, reward: float | Failure) -> Trajectory:
    """One turn with one tool error and one good call, 3 of 5 tokens sampled; a failed one has the best reward."""
    results = (ToolResult(CALL, "no", "no", 0.1), ToolResult(CALL, "yes", None, 0.1))
    failure = reward if isinstance(reward, Failure) else None
    turn = Turn(
        index=0,
        segment=0,
        start=2,
        end=5,
        action=Message("assistant", "", (CALL,)),
        observations=(),
        reward=1.0 if isinstance(reward, Failure) else reward,
        reward_terms={},
        tool_results=results,
        finish_reason=FinishReason.STOP,
    )
    mask_T = np.array([False, False, True, True, True])
    segment = Segment(np.zeros(5, np.int32), mask_T, np.zeros(5, np.float32), np.where(mask_T, 0, -1).astype(np.int32))
    return Trajectory(
        task=task,
        group_index=0,
        member=member,
        seed=0,
        prompt=(),
        segments=(segment,),
        turns=(turn,),
        stop_reason=StopReason.FAILURE if failure else StopReason.TERMINATED,
        failure=failure,
    )


def group(index: int, rewards: list[float | Failure], tags: tuple[str, ...] = ()) -> Group:
    task = Task(f"task-{index}", (), tags=tags)
    return Group(index, task, tuple(episode(task, member, reward) for member, reward in enumerate(rewards)))


def test_scores_are_means_over_tasks_with_the_intervals_of_the_statistics():
    report = summarize([group(0, [1, 1, 0, 0]), group(1, [0, 0, 0, 1]), group(2, [1, 1, 1, 1])], wall_s=2.0)
    successes, samples = [2, 1, 4], [4, 4, 4]
    assert report.overall.success == proportion(pass_at_k(successes, samples, 1))
    assert report.overall.success.value == pytest.approx(7 / 12)
    assert report.overall.pass_at == {k: proportion(pass_at_k(successes, samples, k)) for k in (1, 2, 4)}
    assert report.overall.pass_hat == {k: proportion(pass_hat_k(successes, samples, k)) for k in (1, 2, 4)}
    assert report.overall.reward.value == pytest.approx(7 / 12)
    assert (report.overall.tasks, report.overall.episodes) == (3, 12)


def test_costs_are_means_per_valid_episode():
    report = summarize([group(0, [1, 0]), group(1, [FAILED, 0])], wall_s=2.0)
    assert (report.turns, report.tool_calls, report.tool_errors) == (1.0, 2.0, 1.0)
    assert (report.tokens, report.tokens_per_s) == (9, 4.5)
    assert (report.tasks, report.episodes) == (2, 4)
    assert report.stop_reasons == {"terminated": 3}


def test_a_failure_is_excluded_and_counted_never_scored():
    healthy = summarize([group(0, [1, 0]), group(1, [1])], wall_s=1.0)
    failed = summarize([group(0, [1, FAILED, 0]), group(1, [1, FAILED]), group(2, [FAILED])], wall_s=1.0)
    assert failed.overall == healthy.overall
    assert failed.overall.success.value == 0.75
    assert failed.failures == {"sandbox": 3}
    assert (failed.tasks, failed.overall.tasks, failed.overall.episodes) == (3, 2, 3)


def test_a_task_with_too_few_valid_episodes_is_left_out_of_that_k_alone():
    score = summarize([group(0, [1, 0]), group(1, [1, FAILED])], wall_s=1.0).overall
    assert score.pass_hat[1].value == 0.75
    assert score.pass_hat[2].value == 0.0


@pytest.mark.parametrize(("samples", "ks"), [(1, [1]), (2, [1, 2]), (3, [1, 2]), (7, [1, 2, 4]), (8, [1, 2, 4, 8])])
def test_k_are_the_powers_of_two_up_to_the_samples(samples, ks):
    score = summarize([group(0, [1] * samples)], wall_s=1.0).overall
    assert list(score.pass_at) == list(score.pass_hat) == ks


def test_only_failures_leave_no_score():
    report = summarize([group(0, [FAILED, FAILED], tags=("hard",))], wall_s=1.0)
    assert report.overall is None
    assert report.by_tag == {}
    assert report.failures == {"sandbox": 2}
    assert report.turns == 0.0


def test_tags_are_scored_apart():
    groups = [group(0, [1], tags=("two_queries",)), group(1, [0], tags=("two_queries", "rare")), group(2, [1])]
    report = summarize(groups, wall_s=1.0)
    assert {tag: (s.tasks, s.success.value) for tag, s in report.by_tag.items()} == {
        "rare": (1, 0.0),
        "two_queries": (2, 0.5),
    }


@pytest.mark.parametrize(("threshold", "success"), [(1.0, 0.25), (0.5, 0.5), (0.3, 0.75), (0.0, 1.0)])
def test_an_episode_succeeds_when_its_reward_reaches_the_threshold(threshold, success):
    rewards = [0.7 + 0.1 + 0.1 + 0.1, 0.5, 0.3 - 1e-12, 0.0]
    assert rewards[0] < 1.0, "rounding must not turn a success into a failure"
    groups = [group(i, [reward]) for i, reward in enumerate(rewards)]
    assert summarize(groups, wall_s=1.0, success_threshold=threshold).overall.success.value == success


def test_the_bootstrap_is_another_interval_of_the_same_score():
    groups = [group(i, [1, i % 2, i % 3 == 0, 0]) for i in range(12)]
    analytic, bootstrap = (summarize(groups, wall_s=1.0, interval=i).overall for i in ("analytic", "bootstrap"))
    assert analytic.success.value == pytest.approx(bootstrap.success.value)
    assert analytic.success != bootstrap.success
    assert analytic.reward != bootstrap.reward
    assert analytic.success.low == pytest.approx(bootstrap.success.low, abs=0.1)


def test_the_report_is_json():
    report = summarize([group(0, [1, 0], tags=("hard",)), group(1, [FAILED, 0])], wall_s=2.0)
    data = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert data["overall"]["success"].keys() == {"value", "low", "high"}
    assert data["overall"]["pass_at"]["2"]["value"] == 1.0
    assert data["by_tag"]["hard"]["success"]["value"] == 0.5
    assert data["failures"] == {"sandbox": 1}
    assert data["wall_s"] == 2.0


def rendered(reports) -> str:
    console = Console(file=StringIO(), width=120)
    console.print(to_table(reports, title="success on [held-out] tasks"))
    return console.file.getvalue()


def test_the_table_shows_reports_side_by_side():
    before = summarize([group(0, [0, 1]), group(1, [0, FAILED])], wall_s=1.0)
    after = summarize([group(0, [1, 1]), group(1, [1, 1])], wall_s=1.0)
    text = rendered({"before": before, "after [bold]": after})
    rows = {line[:24].strip(): line[24:].split() for line in text.splitlines()}
    assert rows["success"] == ["25.0%", "100.0%"]
    assert rows["pass^2"] == ["0.0%", "100.0%"], "the failed sample is left out, and so is its task"
    assert rows["failures"] == ["1", "0"]
    assert rows["of the sandbox"] == ["1"]
    success = text.splitlines().index(next(line for line in text.splitlines() if line.startswith(" success")))
    low, dash, high = text.splitlines()[success + 1].split()[:3]
    assert dash == "-"
    assert float(low) < 25 < float(high), "the interval is below its value"
    assert "after [bold]" in text, "names are text, not markup"
    assert "[held-out]" in text


def test_the_table_of_an_evaluation_without_a_valid_episode_says_why():
    text = rendered({"policy": summarize([group(0, [FAILED])], wall_s=1.0)})
    assert "of the sandbox" in text
    assert "%" not in text
