"""No group is ever too old when it is trained on, and none is thrown away for age: in virtual time, with any delays."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import anyio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_rl.rollout.control import RolloutControl
from agent_rl.rollout.manager import RolloutManager
from agent_rl.rollout.order import ConsumptionOrder
from agent_rl.rollout.staleness import StalenessGate
from agent_rl.types import Group, Message, StopReason, Task, Trajectory

TASK = Task("task", (Message("user", "go"),))
STEPS = 6


@dataclass
class Trainer:
    """A trainer that only counts, and episodes that only wait; delays and the filter come from hypothesis."""

    max_staleness: int
    groups_per_batch: int
    group_size: int
    max_concurrent_episodes: int
    overtake: int
    delay_s: Callable[[str, int], float]
    has_signal: Callable[[int], bool]
    version: int = 0
    started: dict[int, int] = field(default_factory=dict)
    finished: set[int] = field(default_factory=set)
    handed_out: list[int] = field(default_factory=list)
    ages: list[int] = field(default_factory=list)
    most_in_flight: int = 0
    first_unconsumed: int = -1

    async def play(self, task: Task, *, group_index: int, member: int, seed: int) -> Trajectory:
        self.started.setdefault(group_index, self.version)
        self.most_in_flight = max(self.most_in_flight, self.gate.in_flight)
        await anyio.sleep(self.delay_s("episode", group_index + 1000 * member))
        return Trajectory(task, group_index, member, seed, task.prompt, (), (), StopReason.TERMINATED)

    async def note(self, group: Group) -> None:
        self.finished.add(group.index)

    async def train(self) -> None:
        self.gate = StalenessGate(self.max_staleness, self.groups_per_batch)
        order = ConsumptionOrder(self.groups_per_batch, self.max_staleness, self.overtake)
        manager = RolloutManager(
            self.play,
            lambda index: TASK,
            group_size=self.group_size,
            gate=self.gate,
            order=order,
            seed=0,
            control=RolloutControl(self.max_concurrent_episodes),
            on_group=self.note,
        )
        async with manager:
            batch: list[Group] = []
            async for group in manager.groups():
                self.handed_out.append(group.index)
                if not self.has_signal(group.index):
                    order.drop()
                    self.gate.release()
                    continue
                batch.append(group)
                if len(batch) == self.groups_per_batch:
                    await self.step(batch)
                    if self.version == STEPS:
                        break
                    order.finish_batch()
                    self.gate.release(len(batch))
                    batch = []
            self.first_unconsumed = manager.first_unconsumed

    async def step(self, batch: list[Group]) -> None:
        self.ages += [self.version - self.started[group.index] for group in batch]
        await anyio.sleep(self.delay_s("step", self.version))
        self.version += 1


def run(trainer: Trainer) -> Trainer:
    clock = trio.testing.MockClock(autojump_threshold=0)
    anyio.run(trainer.train, backend="trio", backend_options={"clock": clock})
    return trainer


@settings(max_examples=60)
@given(
    max_staleness=st.integers(0, 3),
    groups_per_batch=st.integers(1, 4),
    group_size=st.integers(1, 3),
    max_concurrent_episodes=st.integers(1, 12),
    overtake=st.integers(0, 12),
    seed=st.integers(0, 2**32),
    share_dropped=st.sampled_from([0.0, 0.3, 0.8]),
    longest_step_s=st.sampled_from([0.0, 1.0, 20.0]),
)
def test_age_is_bounded_and_nothing_is_lost(
    max_staleness, groups_per_batch, group_size, max_concurrent_episodes, overtake, seed, share_dropped, longest_step_s
):
    longest_s = {"episode": 10.0, "step": longest_step_s}
    trainer = run(
        Trainer(
            max_staleness,
            groups_per_batch,
            group_size,
            max_concurrent_episodes,
            overtake,
            delay_s=lambda what, which: longest_s[what] * Random(f"{seed} {what} {which}").random(),
            has_signal=lambda index: Random(f"{seed} {index}").random() >= share_dropped,
        )
    )
    assert len(trainer.ages) == STEPS * groups_per_batch
    assert max(trainer.ages) <= max_staleness
    assert trainer.most_in_flight <= (max_staleness + 1) * groups_per_batch
    consumed = trainer.handed_out
    assert len(set(consumed)) == len(consumed), "no group twice"
    assert set(range(trainer.first_unconsumed)) <= set(consumed), "nothing is left behind"
    if overtake == 0:
        assert consumed == list(range(len(consumed))), "logical order"
    for position, index in enumerate(consumed):
        overtaken = set(range(index)) - set(consumed[:position])
        assert len(overtaken) <= overtake
    assert trainer.finished == set(trainer.started), "leaving the block waits for the groups that run"


def test_the_whole_bound_is_used():
    """Steps much slower than episodes: rollouts run ahead as far as they may, but not further."""
    for max_staleness in range(4):
        trainer = run(
            Trainer(
                max_staleness, 2, 2, 64, 0, lambda what, which: {"episode": 1.0, "step": 100.0}[what], lambda i: True
            )
        )
        assert max(trainer.ages) == max_staleness


def test_overtaking_spares_the_wait_for_long_episodes():
    """One group in four takes ten times as long: batches of four no longer wait for it, and it is still trained on."""

    def trained_after_s(overtake: int) -> float:
        def delay_s(what: str, which: int) -> float:
            if what == "step":
                return 0.1
            return 10.0 if which % 4 == 0 else 1.0

        clock = trio.testing.MockClock(autojump_threshold=0)
        trainer = Trainer(3, 4, 1, 64, overtake, delay_s, lambda index: True)
        ended: list[float] = []

        async def timed() -> None:
            await trainer.train()
            ended.append(anyio.current_time())

        began = 0.0

        async def main() -> None:
            nonlocal began
            began = anyio.current_time()
            await timed()

        anyio.run(main, backend="trio", backend_options={"clock": clock})
        assert max(trainer.ages) <= 3
        return ended[0] - began

    assert trained_after_s(12) < 0.75 * trained_after_s(0)
