"""How busy rollouts keep an engine: 16 slots, 64 episodes in flight, log-normal tool latencies, resets of r seconds.

The limit is queueing theory's: with N episodes in flight whose cycle takes c seconds, g of them in one of S slots, the
slots cannot be busier than min(1, N g / (S c)). It is computed from the very latencies that were drawn. Measured from
when the slots have filled until the last episode begins, in virtual time (exact, and the same at each run) and, with
`--real`, in real time, where the event loop's own work counts too. `--trl` puts TRL's asynchronous rollout worker
beside it: its own loop, with the same slots and the same latencies, in place of its requests to a server.

    python benchmarks/busy_fraction.py --real --trl
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio
import trio.testing

from agent_rl.chat.codec import ChatCodec
from agent_rl.concurrency import collect
from agent_rl.engine.base import GenerationRequest
from agent_rl.engine.scripted import ScriptedEngine
from agent_rl.rollout.agent import PolicyAgent
from agent_rl.rollout.episode import run_episode
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.rollout.manager import run_tasks
from agent_rl.seeding import stream
from agent_rl.testing.environments import CountUp
from agent_rl.testing.tiny import make_tokenizer
from agent_rl.types import Generation, Message, SamplingParams, Step, Task

SLOTS, IN_FLIGHT, GROUP_SIZE, TURNS = 16, 64, 8, 6
GENERATION_S, TOOL_S, TOOL_SIGMA, REWARD_S = 0.05, 0.08, 1.0, 0.02
RESETS_S = (0.0, 0.05, 0.2, 1.0)
GOAL = 0.95
CALL = '<tool_call>\n{"name": "add", "arguments": {"amount": 1}}\n</tool_call>'


@dataclass
class Meter:
    """The slots' busy time and the episodes' cycle, between two moments."""

    began: float = 0.0
    ended: float = 0.0
    busy_s: float = 0.0
    busy: int = 0
    changed: float = 0.0
    cycles_s: list[float] = field(default_factory=list)

    def begin(self, reset_s: float, episodes: int, now: float) -> list[float]:
        """One more episode of `episodes`; the latencies of its tools."""
        started = len(self.cycles_s)
        if started == IN_FLIGHT:
            self.began = now
        if started == episodes - 1:
            self.count(0, now)
            self.ended = now
        drawn = stream("tools", started).lognormal(-0.5 * TOOL_SIGMA**2, TOOL_SIGMA, TURNS - 1)
        latencies: list[float] = (TOOL_S * drawn).tolist()
        self.cycles_s.append(reset_s + REWARD_S + TURNS * GENERATION_S + sum(latencies))
        return latencies

    def count(self, change: int, now: float) -> None:
        """`change` more slots are busy from `now` on."""
        if self.began and not self.ended:
            self.busy_s += self.busy * (now - max(self.changed, self.began))
        self.busy += change
        self.changed = now

    def fraction(self) -> float:
        return self.busy_s / (SLOTS * (self.ended - self.began))

    def bound(self) -> float:
        """From the latencies that episodes really had: what they would take if no slot were ever waited for."""
        cycle_s = sum(self.cycles_s) / len(self.cycles_s)
        return min(1.0, IN_FLIGHT * TURNS * GENERATION_S / (SLOTS * cycle_s))


class SlotEngine(ScriptedEngine):
    """Each response takes `GENERATION_S` in one of `SLOTS` slots."""

    def __init__(self, respond: Any, meter: Meter) -> None:
        super().__init__(respond)
        self._slots = anyio.Semaphore(SLOTS)
        self._meter = meter

    async def generate(self, request: GenerationRequest) -> Generation:
        async with self._slots:
            self._meter.count(1, anyio.current_time())
            try:
                await anyio.sleep(GENERATION_S)
                return await super().generate(request)
            finally:
                self._meter.count(-1, anyio.current_time())


class SlowCountUp(CountUp):
    """Tools with log-normal latencies, and a reset and a reward that take their time."""

    def __init__(self, reset_s: float, meter: Meter, episodes: int) -> None:
        self._reset_s = reset_s
        self._meter = meter
        self._episodes = episodes

    async def reset(self, task: Task, seed: int) -> Sequence[Message]:
        self._latencies = self._meter.begin(self._reset_s, self._episodes, anyio.current_time())
        await anyio.sleep(self._reset_s)
        return await super().reset(task, seed)

    async def step(self, action: Message) -> Step:
        await anyio.sleep(self._latencies.pop() if action.tool_calls else REWARD_S)
        return await super().step(action)


async def measure(codec: ChatCodec, reset_s: float, episodes: int) -> Meter:
    meter = Meter()
    stop = codec.stop_token_ids[0]
    call, answer = ([*codec.encode_rendered(text).tolist(), stop] for text in (CALL, "done"))
    played: dict[str, int] = {}

    def respond(request: GenerationRequest) -> Sequence[int]:
        turn = played[request.session] = played.get(request.session, 0) + 1
        return answer if turn == TURNS else call

    engine = SlotEngine(respond, meter)
    play = partial(
        run_episode,
        lambda task: SlowCountUp(reset_s, meter, episodes),
        lambda _, key: PolicyAgent(engine, codec, SamplingParams(), key),
        limits=RolloutLimits(max_turns=TURNS),
    )
    tasks = CountUp.tasks("train", episodes // GROUP_SIZE, turns=TURNS)
    groups = await run_tasks(play, tasks, group_size=GROUP_SIZE, seed=0, max_concurrent_episodes=IN_FLIGHT)
    assert all(episode.reward == 1.0 for group in groups for episode in group.trajectories)
    return meter


def measure_trl(reset_s: float, episodes: int) -> Meter:
    """TRL's rollout loop in real time; only its request for one turn is replaced."""
    import asyncio
    import queue
    import threading
    import time
    from types import SimpleNamespace

    from accelerate import PartialState
    from datasets import Dataset
    from trl.experimental.async_grpo.async_rollout_worker import _AsyncRolloutLoop
    from trl_grpo import HERMES

    PartialState()  # for its logging
    meter = Meter()
    tokenizer: Any = make_tokenizer([CALL, "The total is 7.", "Count to 5."])
    tokenizer.response_template = HERMES
    call, answer = (tokenizer.encode(text + "<|im_end|>") for text in (CALL, "done"))

    class Counter:
        def reset(self, **row: Any) -> None:
            if len(meter.cycles_s) >= episodes:
                self._latencies = [0.0] * TURNS
                loop._loop.call_soon_threadsafe(loop._stop_event.set)
                return
            self._latencies = meter.begin(reset_s, episodes, loop._loop.time())
            time.sleep(reset_s)

        async def add(self, amount: int) -> str:
            """Add to the total.

            Args:
                amount: How much.
            """
            await asyncio.sleep(self._latencies.pop())
            return "The total is 7."

        async def get_reward(self) -> float:
            await asyncio.sleep(REWARD_S)
            return 1.0

    class Loop(_AsyncRolloutLoop):
        async def _run_loops(self, stop_event: asyncio.Event) -> None:
            loops = (self._generate_loop, self._score_loop)  # and no HTTP session
            await collect([partial(one, stop_event=stop_event) for one in loops])

        async def _generate_one_turn(self, prompt_ids: list[int]) -> tuple[list[int], list[float]]:
            async with slots:
                meter.count(1, self._loop.time())
                await asyncio.sleep(GENERATION_S)
                meter.count(-1, self._loop.time())
            said = answer if tokenizer.decode(prompt_ids).count("The total is 7.") == TURNS - 1 else call
            return said, [0.0] * len(said)

    slots = asyncio.Semaphore(SLOTS)
    shared = {"model_version_value": SimpleNamespace(value=0), "heartbeat_value": SimpleNamespace(value=0.0)}
    queues = {name: queue.Queue() for name in ("rollout_buffer", "exception_info_queue", "metrics_queue")}
    loop = Loop(
        model_name="none",
        dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": "Count to 5."}]}]),
        reward_funcs=[],
        processing_class=tokenizer,
        eos_token_ids=[tokenizer.eos_token_id],
        failed_event=threading.Event(),
        environment_factory=Counter,
        num_generations=GROUP_SIZE,
        max_inflight_tasks=IN_FLIGHT,
        max_tool_calling_iterations=TURNS,
        **shared,
        **queues,
    )
    loop.run()
    return meter


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--episodes", type=int, default=640)
    parser.add_argument("--real", action="store_true", help="in real time, too: about two minutes")
    parser.add_argument("--trl", action="store_true", help="TRL's rollout worker beside it, in real time")
    options = parser.parse_args()
    codec = ChatCodec(make_tokenizer([CALL, "The total is 7.", "Count to 5."]))
    print(
        f"{SLOTS} slots, {IN_FLIGHT} episodes in flight, {TURNS} turns of {GENERATION_S} s; tools {TOOL_S} s on average"
    )
    print(f"{'':>9}  {'reset s':>8}  {'busy':>7}  {'limit':>7}  {'busy / limit':>12}   (goal: at least {GOAL})")
    for name in ("virtual", "real") if options.real else ("virtual",):
        for reset_s in RESETS_S:
            clock = trio.testing.MockClock(autojump_threshold=0)
            backend: Any = {"backend": "trio", "backend_options": {"clock": clock}} if name == "virtual" else {}
            meter: Meter = anyio.run(measure, codec, reset_s, options.episodes, **backend)
            busy, bound = meter.fraction(), meter.bound()
            print(f"{name:>9}  {reset_s:8.2f}  {busy:7.1%}  {bound:7.1%}  {busy / bound:12.3f}")
    for reset_s in RESETS_S if options.trl else ():
        few = round(30 / reset_s) if reset_s else options.episodes  # its resets come one after another
        meter = measure_trl(reset_s, max(2 * IN_FLIGHT, min(options.episodes, few)))
        busy, bound = meter.fraction(), meter.bound()
        print(f"{'TRL':>9}  {reset_s:8.2f}  {busy:7.1%}  {bound:7.1%}  {busy / bound:12.3f}")


if __name__ == "__main__":
    main()
