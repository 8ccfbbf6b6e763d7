"""A short supervised warm start: imitate demonstrations until the policy behaves like its demonstrator, then stop.

The demonstrator is the environment's random agent: it knows the format and the work flow, not the strategy, so that
whatever the policy gains later is reinforcement learning's. Imitation ends on behaviour, not on loss: as long as calls
are malformed or values copied wrongly, rewards are too rare to learn from; beyond that, more imitation teaches nothing.
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
from agent_rl.evaluate.report import Report, summarize
from agent_rl.learner.demonstrations import demonstration_rows
from agent_rl.learner.learner import Learner, LearnerConfig
from agent_rl.rollout.agent import PolicyAgent, random_agent
from agent_rl.rollout.episode import run_episode
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.rollout.manager import run_tasks
from agent_rl.seeding import derive_seed, stream
from agent_rl.types import Group, SamplingParams, Task, TrainingRow

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class WarmStartConfig(Config):
    """How long and how fast to imitate."""

    demonstrations: int = Field(default=1500, ge=1, description="Episodes of the demonstrator.")
    batch_rows: int = Field(default=16, ge=1, description="Demonstrations in one optimizer step.")
    max_steps: int = Field(default=600, ge=1, description="Optimizer steps at most.")
    check_every: int = Field(default=50, ge=1, description="Steps between looks at the policy's behaviour.")
    check_episodes: int = Field(default=128, ge=1, description="Episodes in one look.")
    stop_at: float = Field(default=0.95, gt=0, description="Stop when success is this share of the demonstrator's.")
    max_tool_errors: float = Field(default=0.01, ge=0, description="... and tool errors per episode are at most this.")
    learner: LearnerConfig = Field(default_factory=LearnerConfig, description="Optimiser of the imitation.")


@dataclass(frozen=True, slots=True)
class WarmStartReport:
    """How a look at the policy came out, after `step` optimizer steps."""

    step: int
    loss: float
    policy: Report
    demonstrator: Report


async def demonstrate(
    environment: Callable[[], Environment], tasks: Sequence[Task], limits: RolloutLimits, seed: int
) -> list[Group]:
    """One episode of the random agent per task."""
    play = functools.partial(run_episode, lambda task: environment(), random_agent, limits=limits)
    return await run_tasks(play, tasks, group_size=1, seed=seed, max_concurrent_episodes=16)


async def warm_start(
    config: WarmStartConfig,
    *,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    environment: Callable[[], Environment],
    demonstrations: Sequence[Group],
    check_tasks: Sequence[Task],
    limits: RolloutLimits,
    seed: int,
    finished: Callable[[WarmStartReport], bool],
) -> WarmStartReport:
    """Train `model` in place until `finished` says so of a look at its behaviour, which is returned.

    The usual `finished` is `behaves_like_demonstrator`; `max_steps` ends it in any case.
    """
    codec = ChatCodec(tokenizer)
    episodes = [episode for group in demonstrations for episode in group.valid]
    rows = demonstration_rows(codec, episodes, environment().tools)
    demonstrator = summarize(demonstrations, wall_s=1.0)
    engine = LocalEngine(model, max_batch=config.check_episodes, max_context=limits.max_context_tokens)
    learner = Learner(copy.deepcopy(model), config.learner.for_run(config.max_steps), seed=seed)
    async with engine:
        step = 0
        while True:
            loss = await anyio.to_thread.run_sync(_imitate, learner, rows, config, step, seed)
            step = min(step + config.check_every, config.max_steps)
            await engine.update_weights(learner.weights(), step)
            policy = await evaluate(
                lambda task: environment(),
                check_tasks[: config.check_episodes],
                lambda _, key: PolicyAgent(engine, codec, SamplingParams(), key),
                seed=derive_seed(seed, "warm start", step),
                concurrency=config.check_episodes,
                limits=limits,
            )
            report = WarmStartReport(step, loss, policy, demonstrator)
            if finished(report) or step == config.max_steps:
                return report


def _imitate(learner: Learner, rows: Sequence[TrainingRow], config: WarmStartConfig, start: int, seed: int) -> float:
    """The optimizer steps until the next look; returns the loss of the last one."""
    loss = 0.0
    for step in range(start, min(start + config.check_every, config.max_steps)):
        picks = stream(seed, "imitation", step).choice(len(rows), min(config.batch_rows, len(rows)), replace=False)
        loss = learner.supervised_step([rows[i] for i in picks])["loss"]
    return loss


def behaves_like_demonstrator(report: WarmStartReport, config: WarmStartConfig) -> bool:
    """Well-formed calls, and as much success as picking at random brings: values are copied as they should be."""
    policy, demonstrator = report.policy, report.demonstrator
    if policy.overall is None or demonstrator.overall is None or policy.tool_errors > config.max_tool_errors:
        return False
    return policy.overall.success.value >= config.stop_at * demonstrator.overall.success.value
