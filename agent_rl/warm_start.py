"""A short supervised warm start: imitate demonstrations until the policy behaves like its demonstrator, then stop.

The demonstrator is the environment's random agent: it knows the format and the work flow, not the strategy, so that
whatever the policy gains later is reinforcement learning's. Imitation ends on behaviour, not on loss: as long as calls
are malformed or values copied wrongly, rewards are too rare to learn from; beyond that, more imitation teaches nothing.
Then the learning rate falls to 0, which sharpens what the policy is sure of.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio.to_thread
from pydantic import Field

from agent_rl.chat.codec import ChatCodec
from agent_rl.config import Config
from agent_rl.engine.local import LocalEngine
from agent_rl.environment import Environment
from agent_rl.evaluate.harness import evaluate
from agent_rl.evaluate.report import Report
from agent_rl.learner.demonstrations import demonstration_rows
from agent_rl.learner.learner import Learner, LearnerConfig
from agent_rl.rollout.agent import EpisodeKey, PolicyAgent, RandomAgent
from agent_rl.rollout.episode import EnvironmentFactory, run_episode
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.rollout.manager import run_tasks
from agent_rl.seeding import derive_seed, stream
from agent_rl.tool.config import ToolsConfig
from agent_rl.tool.services import tool_services
from agent_rl.types import JSON, Message, SamplingParams, Step, Task, TrainingRow, Trajectory
from agent_rl.wrapper import EnvironmentWrapper

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from agent_rl.tool import Tool


class WarmStartConfig(Config):
    """How long and how fast to imitate."""

    demonstrations: int = Field(default=1500, ge=1, description="Episodes of the demonstrator.")
    batch_rows: int = Field(default=16, ge=1, description="Demonstrations in one optimizer step.")
    max_steps: int = Field(default=1200, ge=1, description="Optimizer steps after which imitation has failed.")
    last_steps: int = Field(default=150, ge=0, description="Steps in which the learning rate falls to 0, at the end.")
    check_every: int = Field(default=50, ge=1, description="Steps between looks at the policy's behaviour.")
    check_episodes: int = Field(default=128, ge=1, description="Episodes in one look.")
    max_implausible: float = Field(
        default=0.05, ge=0, le=1, description="End when so few of the actions are none of the demonstrator's."
    )
    learner: LearnerConfig = Field(default_factory=LearnerConfig, description="Optimiser of the imitation.")


@dataclass(frozen=True, slots=True)
class WarmStartReport:
    """How a look at the policy came out, after `step` optimizer steps.

    `implausible` is the share of its actions that the demonstrator would not have taken in the same state.
    """

    step: int
    loss: float
    implausible: float
    policy: Report


@dataclass(frozen=True, slots=True)
class Demonstration:
    """An episode of the demonstrator, and the tools that it was offered."""

    episode: Trajectory
    tools: Sequence[Tool]


async def demonstrate(
    environment: EnvironmentFactory, tasks: Sequence[Task], limits: RolloutLimits, seed: int
) -> list[Demonstration]:
    """One episode of the random agent per task; those that count."""
    offered: dict[str, Sequence[Tool]] = {}
    async with tool_services(ToolsConfig()):
        agent = functools.partial(_Demonstrator, offered)
        play = functools.partial(run_episode, environment, agent, limits=limits)
        groups = await run_tasks(play, tasks, group_size=1, seed=seed, max_concurrent_episodes=16)
    return [Demonstration(episode, offered[episode.task.id]) for group in groups for episode in group.valid]


class _Demonstrator(RandomAgent):
    """The random agent, which tells what tools it was offered: by task, and equal ones once."""

    def __init__(self, offered: dict[str, Sequence[Tool]], environment: Environment, key: EpisodeKey) -> None:
        super().__init__(environment, derive_seed(key.seed, key.task_id, key.member))
        self._offered = offered
        self._task_id = key.task_id

    def start(self, prompt: Sequence[Message], tools: Sequence[Tool]) -> None:
        shown = [tool.definition for tool in tools]
        same = (other for other in self._offered.values() if [tool.definition for tool in other] == shown)
        self._offered[self._task_id] = next(same, tools)


async def warm_start(
    config: WarmStartConfig,
    *,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    environment: EnvironmentFactory,
    demonstrations: Sequence[Demonstration],
    check_tasks: Sequence[Task],
    limits: RolloutLimits,
    seed: int,
    finished: Callable[[WarmStartReport], bool],
) -> WarmStartReport | None:
    """Train `model` in place until `finished` says so of a look at its behaviour, and then for `last_steps` more.

    The usual `finished` is `behaves_like_demonstrator`. Returns the last look; `None`: `max_steps` were too few.
    """
    codec = ChatCodec(tokenizer)
    rows = [row for shown in demonstrations for row in demonstration_rows(codec, shown.episode, shown.tools)]
    engine = LocalEngine(model, max_batch=config.check_episodes, max_context=limits.max_context_tokens)
    learner = Learner(copy.deepcopy(model), config.learner, seed=seed)

    async def look(step: int, loss: float) -> WarmStartReport:
        await engine.update_weights(learner.weights(), step)
        tally = _Tally()
        policy = await evaluate(
            lambda task: _Watched(environment(task), tally),
            check_tasks[: config.check_episodes],
            lambda _, key: PolicyAgent(engine, codec, SamplingParams(), key),
            seed=derive_seed(seed, "warm start", step),
            concurrency=config.check_episodes,
            limits=limits,
        )
        return WarmStartReport(step, loss, tally.implausible / max(1, tally.actions), policy)

    async with engine:
        step = 0
        while True:
            steps = min(config.check_every, config.max_steps - step)
            loss = await anyio.to_thread.run_sync(_imitate, learner, rows, config.batch_rows, step, steps, seed)
            step += steps
            report = await look(step, loss)
            if finished(report):
                break
            if step == config.max_steps:
                return None
        if not config.last_steps:
            return report
        learner.cool_down(config.last_steps)
        loss = await anyio.to_thread.run_sync(_imitate, learner, rows, config.batch_rows, step, config.last_steps, seed)
        return await look(step + config.last_steps, loss)


def _imitate(
    learner: Learner, rows: Sequence[TrainingRow], batch_rows: int, start: int, steps: int, seed: int
) -> float:
    """Optimizer steps `start, start + 1, ...`; returns the loss of the last one."""
    loss = 0.0
    for step in range(start, start + steps):
        picks = stream(seed, "imitation", step).choice(len(rows), min(batch_rows, len(rows)), replace=False)
        loss = learner.supervised_step([rows[i] for i in picks])["loss"]
    return loss


def behaves_like_demonstrator(report: WarmStartReport, config: WarmStartConfig) -> bool:
    """Calls are well formed and values copied: nearly every action is one that the demonstrator might have taken."""
    return report.implausible <= config.max_implausible


# --- is an action one of the demonstrator's? ------------------------------------------------------------------------


_DRAWS = 128  # actions of the random agent that stand for all that it might do in one state; a hit ends the drawing


@dataclass(slots=True)
class _Tally:
    actions: int = 0
    implausible: int = 0


class _Watched(EnvironmentWrapper):
    """Counts the actions that the environment's random agent would not have taken."""

    def __init__(self, inner: Environment, tally: _Tally) -> None:
        super().__init__(inner)
        self._tally = tally

    async def reset(self, task: Task, seed: int) -> Sequence[Message]:
        self._draws = stream("plausible actions", seed)
        return await super().reset(task, seed)

    async def step(self, action: Message) -> Step:
        plausible = (self.inner.random_action(self._draws) for _ in range(_DRAWS))
        self._tally.actions += 1
        self._tally.implausible += not any(_says(action) == _says(other) for other in plausible)
        return await super().step(action)


def _says(action: Message) -> tuple[str, list[tuple[str, JSON]]]:
    """What matters of a message; ids of calls do not."""
    return action.content.strip(), [(call.name, call.arguments) for call in action.tool_calls]
