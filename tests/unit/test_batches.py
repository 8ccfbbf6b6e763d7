"""Batches are cut in logical order; groups without signal are replaced only as far as the refills go."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from agent_rl.batches import Batch, assemble, batch_metrics
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

pytestmark = pytest.mark.anyio
TASK = Task("t", ())


def episode(group: int, member: int, reward: float, *, failed: bool = False, version: int = 0) -> Trajectory:
    mask = np.array([False, True, True])
    segment = Segment(
        np.arange(3, dtype=np.int32), mask, np.zeros(3, np.float32), np.where(mask, version, -1).astype(np.int32)
    )
    result = ToolResult(ToolCall("c", "f", {}), "no", "tool_error", 0.0)
    turn = Turn(0, 0, 1, 3, Message("assistant", "x"), (), reward, {}, (result,), FinishReason.STOP)
    failure = Failure("crash", Owner.SANDBOX, "step", "gone") if failed else None
    reason = StopReason.FAILURE if failed else StopReason.TERMINATED
    return Trajectory(TASK, group, member, 0, (), (segment,), (turn,), reason, failure)


def group(index: int, rewards: Sequence[float]) -> Group:
    return Group(index, TASK, tuple(episode(index, member, reward) for member, reward in enumerate(rewards)))


async def batches(signals: str, size: int, refills: int) -> tuple[list[Batch], int]:
    """`signals` has `s` for a group with signal and `.` for one without; also how many were dropped."""
    dropped = 0

    def drop() -> None:
        nonlocal dropped
        dropped += 1

    async def groups() -> AsyncIterator[Group]:
        for index, signal in enumerate(signals):
            yield group(index, (0, 1) if signal == "s" else (1, 1))

    return [batch async for batch in assemble(groups(), size, refills, drop)], dropped


async def test_without_refills_a_batch_is_the_next_groups_with_or_without_signal() -> None:
    found, dropped = await batches("s.s...ss", 4, 0)
    assert [[g.index for g in batch.groups] for batch in found] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [[g.index for g in batch.trained] for batch in found] == [[0, 2], [6, 7]]
    assert [batch.held for batch in found] == [4, 4]
    assert dropped == 0


async def test_refills_replace_groups_without_signal_up_to_their_number() -> None:
    found, dropped = await batches("s..s" + "...s" + "ss", 2, 2)
    assert [[g.index for g in batch.groups] for batch in found] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [batch.held for batch in found] == [2, 2, 2], "slots still held are the size of a batch"
    assert [len(batch.trained) for batch in found] == [2, 1, 2]
    assert dropped == 4


async def test_a_group_with_too_few_valid_members_trains_nothing() -> None:
    async def groups() -> AsyncIterator[Group]:
        for index, failed in enumerate((0, 1, 2)):
            members = [episode(index, m, float(m % 2), failed=m >= 4 - failed) for m in range(4)]
            yield Group(index, TASK, tuple(members))

    [batch] = [batch async for batch in assemble(groups(), 3, 0, lambda: None, min_members=3)]
    assert [group.index for group in batch.trained] == [0, 1]
    assert [group.index for group in batch.idle] == [2]


async def test_an_unfinished_batch_is_not_handed_out() -> None:
    found, _ = await batches("sss", 2, 0)
    assert len(found) == 1


def test_metrics_leave_failures_out_and_count_them_by_owner() -> None:
    members = (episode(0, 0, 1.0, version=3), episode(0, 1, 0.0, version=5), episode(0, 2, 9.0, failed=True))
    metrics = batch_metrics(Batch((Group(0, TASK, members),), (), 1), weight_version=5)
    assert metrics["reward"] == 0.5
    assert metrics["tool_errors"] == 1.0
    assert metrics["sampled_tokens"] == 2.0
    assert metrics["episodes_failed"] == 1.0
    assert metrics["failures/sandbox"] == 1.0
    assert metrics["retries"] == 0.0


def test_metrics_count_retries_by_owner_of_those_that_count_too() -> None:
    lost = Failure("crash", Owner.PROVIDER, "generation", "gone")
    members = (
        replace(episode(0, 0, 1.0), earlier_failures=(lost, replace(lost, owner=Owner.TOOL))),
        replace(episode(0, 1, 0.0, failed=True), earlier_failures=(lost,)),
    )
    metrics = batch_metrics(Batch((Group(0, TASK, members),), (), 1), weight_version=5)
    assert (metrics["retries"], metrics["retries/provider"], metrics["retries/tool"]) == (3.0, 2.0, 1.0)


def test_metrics_know_how_old_the_weights_were() -> None:
    members = (episode(0, 0, 1.0, version=3), episode(0, 1, 0.0, version=5))
    metrics = batch_metrics(Batch((Group(0, TASK, members),), (), 1), weight_version=5)
    assert (metrics["staleness_mean"], metrics["staleness_max"]) == (1.0, 2.0)
