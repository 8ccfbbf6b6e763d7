"""A run folder whose every episode is known: 3 groups of 4, with failures, tags, forks and what the trainer saw."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from agent_rl.store.opening import create_journal
from agent_rl.store.trained_tokens import TrainedTokens
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
from agent_rl.view.reading import Library
from tests.unit.store.conftest import postgresql, server, store  # noqa: F401  # fixtures

TAGS = (("easy",), ("hard", "50%_off"), ())
PROMPTS = ("Count to ten.", "Größe von 5% /tmp?", 'Say "done".')


def segment(ids: list[int], sampled: list[bool], version: int = 3) -> Segment:
    mask_T = np.array(sampled)
    return Segment(
        np.array(ids, np.int32),
        mask_T,
        np.where(mask_T, np.float32(-0.25), np.float32(0)),
        np.where(mask_T, version, -1).astype(np.int32),
    )


def turn(index: int, reward: float, segment: int, start: int, end: int) -> Turn:
    call = ToolCall("call_0", "shell", {"command": "ls -l"})
    result = ToolResult(call, "total 0", None if index else "timeout", 0.5)
    return Turn(
        index=index,
        segment=segment,
        start=start,
        end=end,
        action=Message("assistant", f"turn {index}", (call,), reasoning_content="Hm."),
        observations=(Message("tool", "total 0", tool_call_id="call_0"),),
        reward=reward,
        reward_terms={"progress": reward},
        tool_results=(result,),
        finish_reason=FinishReason.STOP,
        began_s=1.0 + 2.0 * index,
        generation_s=1.0,
        step_s=0.5,
    )


def trajectory(task: Task, group: int, member: int) -> Trajectory:
    """Member 0 gets 1, member 1 gets 0.5 over two segments, member 2 nothing, member 3 is lost."""
    rewards = {0: [0.0, 1.0], 1: [0.25, 0.25], 2: [0.0], 3: [0.0]}[member]
    first = segment([1, 2, 3, 4, 5], [False, False, True, True, False])
    rewritten = segment([1, 2, 3, 9, 8], [False, False, False, False, True])
    segments = (first, rewritten) if member == 1 else (first,)
    spans = [(0, 2, 4), (1, 4, 5)] if member == 1 else [(0, 2, 3), (0, 3, 4)]
    failure = Failure("crash", Owner.SANDBOX, "step", "the sandbox is gone", "Traceback ...") if member == 3 else None
    return Trajectory(
        task=task,
        group_index=group,
        member=member,
        seed=7,
        prompt=task.prompt,
        segments=segments,
        turns=tuple(turn(i, reward, *spans[i]) for i, reward in enumerate(rewards)),
        stop_reason=StopReason.FAILURE if failure else StopReason.TERMINATED if member < 2 else StopReason.MAX_TURNS,
        failure=failure,
        began_at=1_700_000_000.0 + 10 * group,
        setup_s=0.5,
        duration_s=5.0 + member,
        metrics={"visits": 2.0},
        earlier_failures=(Failure("timeout", Owner.PROVIDER, "generation", "too slow"),) if group == 2 else (),
    )


def task(index: int) -> Task:
    return Task(f"task-{index}", (Message("user", PROMPTS[index]),), {"answer": 10}, f"env-{index % 2}", TAGS[index])


def write_run(folder: Path, url: str = "", **config: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"steps": 4, **config}))
    with create_journal(folder, store=url) as journal:
        for index in range(3):
            members = tuple(trajectory(task(index), index, member) for member in range(4))
            journal.append_group(Group(index, task(index), members))
        journal.mark_consumed(1, [0, 1])
        journal.add_trained_tokens(1, [seen(0, 0), seen(0, 1)])
        journal.add_evaluation("held out", 1, {"overall": {"success": {"value": 0.5, "low": 0.4, "high": 0.6}}})
    lines = [
        {"step": step, "time_s": 1_700_000_000.0 + 10 * step, "rollout/reward": step / 4, "time/learn_s": 2.0}
        for step in (1, 2)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def seen(group: int, member: int) -> TrainedTokens:
    values = np.array([-0.5, np.nan], np.float32)
    return TrainedTokens(group, member, 0, 1, values, np.array([2, -2], np.float32), np.array([0.5, 1], np.float32))


@pytest.fixture
def run_dir(tmp_path):
    return write_run(tmp_path / "runs" / "demo")


@pytest.fixture
def library(run_dir):
    opened = Library([run_dir.parent])
    yield opened
    opened.close()


@pytest.fixture
def journal(library):
    return library.journal(library.run("demo"))
