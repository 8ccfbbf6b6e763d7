"""The rollout engine over wall time: spans of the episodes of some groups, and of the trainer meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from agent_rl.store import schema
from agent_rl.store.journal import Journal
from agent_rl.trace import episode_spans, trainer_spans
from agent_rl.types import Trajectory
from agent_rl.view.summary import trainer_lines

MOST_GROUPS = 64
_NAMES = {"setup": "setup", "generation": "generation", "step": "tools"}


def timeline(journal: Journal, run_dir: Path, first: int, count: int) -> dict[str, Any]:
    """`episodes` of the first `count` groups from index `first`, with `spans` of (kind, seconds since the episode
    began, seconds); `trainer` spans of (kind, Unix seconds, seconds) in the same window; `groups`: one more than the
    last index.
    """
    columns = schema.groups.c
    own = columns.run == journal.run
    query = select(columns.index).where(own, columns.index >= first).order_by(columns.index).limit(count)
    played = journal.read_groups([index for (index,) in journal.rows(query)])
    episodes = [episode_lane(episode) for group in played.values() for episode in group.trajectories]
    [(last,)] = journal.rows(select(func.max(columns.index)).where(own))
    return {
        "episodes": episodes,
        "trainer": trainer_lane(run_dir, episodes),
        "groups": 0 if last is None else last + 1,
    }


def episode_lane(episode: Trajectory) -> dict[str, Any]:
    """One episode's row."""
    spans = [
        [_NAMES[span.category], round(span.began_at - episode.began_at, 6), span.duration_s]
        for span in episode_spans(episode)
        if span.category in _NAMES and span.duration_s > 0
    ]
    failure = episode.failure
    return {
        "group": episode.group_index,
        "member": episode.member,
        "task": episode.task.id,
        "began_at": episode.began_at,
        "duration_s": episode.duration_s,
        "reward": episode.reward,
        "failure": None if failure is None else f"{failure.owner}: {failure.message}",
        "spans": spans,
    }


def trainer_lane(run_dir: Path, episodes: list[dict[str, Any]]) -> list[list[Any]]:
    """What the trainer did while these episodes ran."""
    began = min((episode["began_at"] for episode in episodes), default=0.0)
    ended = max((episode["began_at"] + episode["duration_s"] for episode in episodes), default=0.0)
    return [
        [span.name, span.began_at, span.duration_s]
        for span in trainer_spans(trainer_lines(run_dir))
        if span.duration_s > 0 and span.began_at < ended and span.began_at + span.duration_s > began
    ]
