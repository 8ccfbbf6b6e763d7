"""When everything happened: a run as spans, for Perfetto or chrome://tracing. Knows records, and nothing that runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent_rl.types import Group, Trajectory

TRAINER = -1  # the process number of the trainer in a trace; groups have their own index


@dataclass(frozen=True, slots=True)
class Span:
    """Something that took time. `began_at` is in Unix seconds; spans of one group and member lie on one track."""

    name: str
    category: str
    began_at: float
    duration_s: float
    group: int
    member: int
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])


def episode_spans(episode: Trajectory) -> Iterator[Span]:
    """The episode, its setup, and per turn the generation and the step; gaps between them are waits."""

    def span(name: str, category: str, began_s: float, duration_s: float, **details: Any) -> Span:
        began_at = episode.began_at + began_s
        return Span(name, category, began_at, duration_s, episode.group_index, episode.member, details)

    yield span(
        episode.task.id,
        "episode",
        0.0,
        episode.duration_s,
        reward=episode.reward,
        stop_reason=str(episode.stop_reason),
        attempts=episode.attempts,
        failure=None if episode.failure is None else f"{episode.failure.owner}: {episode.failure.message}",
    )
    yield span("setup", "setup", 0.0, episode.setup_s)
    for turn in episode.turns:
        tokens = turn.end - turn.start
        versions = _versions(episode, turn.segment, turn.start, turn.end)
        yield span("generation", "generation", turn.began_s, turn.generation_s, tokens=tokens, weight_versions=versions)
        if not turn.internal:
            tools = [
                {"tool": result.call.name, "seconds": result.duration_s, "error": result.error}
                for result in turn.tool_results
            ]
            began_s = turn.began_s + turn.generation_s
            yield span("step", "step", began_s, turn.step_s, reward=turn.reward, tools=tools)


def _versions(episode: Trajectory, segment: int, start: int, end: int) -> list[int]:
    if segment >= len(episode.segments):
        return []
    return sorted(set(episode.segments[segment].weight_versions_T[start:end].tolist()))


def trainer_spans(steps: Iterable[Mapping[str, Any]]) -> Iterator[Span]:
    """Of each line of the metrics: the wait for rollouts, the learner's step, the update of the engine's weights."""
    for line in steps:
        ended_at = float(line["time_s"])
        parts = [("update weights", "time/update_weights_s"), ("learn", "time/learn_s")]
        for name, metric in [*parts, ("wait for rollouts", "time/rollout_wait_s")]:
            duration_s = float(line.get(metric) or 0.0)
            ended_at -= duration_s
            yield Span(name, "trainer", ended_at, duration_s, TRAINER, 0, {"step": line["step"]})


def chrome_trace(groups: Iterable[Group], steps: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The Trace Event Format: one process per group, one thread per member, microseconds since the first event."""
    played = list(groups)
    spans = [*trainer_spans(steps)]
    spans += [span for group in played for episode in group.trajectories for span in episode_spans(episode)]
    zero = min((span.began_at for span in spans), default=0.0)
    events: list[dict[str, Any]] = [_name("process_name", TRAINER, 0, "trainer")]
    for group in played:
        events.append(_name("process_name", group.index, 0, f"group {group.index}: {group.task.id}"))
        for episode in group.trajectories:
            events.append(_name("thread_name", group.index, episode.member, f"member {episode.member}"))
    for span in spans:
        events.append(
            {
                "name": span.name,
                "cat": span.category,
                "ph": "X",
                "ts": round(1e6 * (span.began_at - zero), 1),
                "dur": round(1e6 * span.duration_s, 1),
                "pid": span.group,
                "tid": span.member,
                "args": dict(span.details),
            }
        )
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _name(kind: str, pid: int, tid: int, name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": pid, "tid": tid, "args": {"name": name}}
