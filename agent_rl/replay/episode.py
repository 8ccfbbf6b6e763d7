"""One stored episode again: its responses in a fresh environment, or the same streams of the same policy."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from agent_rl.errors import UserError
from agent_rl.evaluate.actor import fitted, model_source, positions_of
from agent_rl.guidance.environment import GuidedEnvironments
from agent_rl.guidance.task import guided_task
from agent_rl.replay.differences import Difference, first_difference, first_token_difference
from agent_rl.replay.recorded import END_OF_RECORD, RecordedAgent
from agent_rl.replay.settings import RunSettings
from agent_rl.rollout.agent import MakeAgent
from agent_rl.rollout.context import policy_agents
from agent_rl.rollout.episode import EnvironmentFactory, run_episode
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.store.checkpoint import MODEL, list_checkpoints
from agent_rl.tool.services import TokenEnds, tool_services
from agent_rl.types import StopReason, Trajectory

_OUTSIDE = (StopReason.TIME_LIMIT, StopReason.FAILURE)


async def replay(environment: EnvironmentFactory, episode: Trajectory, settings: RunSettings) -> Difference | None:
    """Play the stored responses into a fresh environment: where does it answer differently?

    `None`: nowhere. Raises `UserError` when it cannot be set up any more.
    """
    limits = settings.limits
    again = await _play(
        environment, lambda _, key: RecordedAgent(episode, limits.max_context_tokens), episode, limits, settings, None
    )
    beyond = again.failure is not None and again.failure.kind == END_OF_RECORD
    if again.failure is not None and not beyond and episode.failure is None:
        raise UserError(f"The episode cannot be played again: {again.failure.message}.")
    return first_difference(episode, again, ends=not (beyond and episode.stop_reason in _OUTSIDE))


async def resample(
    environment: EnvironmentFactory, episode: Trajectory, settings: RunSettings, model: str
) -> Difference | None:
    """Let the policy in `model` play the episode from the same random streams: which bit is another?

    The engine is the local one, deterministic; only that engine promises equal bits. Raises `UserError` for an episode
    without tokens, and for one whose tokens come from several weight versions.
    """
    version = weight_version(episode)
    async with _policy(settings, model, version) as (make_agent, limits, ends):
        again = await _play(environment, make_agent, episode, limits, settings, ends)
    if again.failure is not None and episode.failure is None:
        raise UserError(f"The episode cannot be played again: {again.failure.message}.")
    return first_token_difference(episode, again) or first_difference(episode, again)


async def _play(
    environment: EnvironmentFactory,
    make_agent: MakeAgent,
    episode: Trajectory,
    limits: RolloutLimits,
    settings: RunSettings,
    ends: TokenEnds | None,
) -> Trajectory:
    async with tool_services(settings.tools, ends):
        return await run_episode(
            GuidedEnvironments(environment),
            make_agent,
            guided_task(episode.task, episode.guidance),
            group_index=episode.group_index,
            member=episode.member,
            seed=episode.seed,
            limits=limits,
        )


@asynccontextmanager
async def _policy(
    settings: RunSettings, model: str, version: int
) -> AsyncGenerator[tuple[MakeAgent, RolloutLimits, TokenEnds], None]:
    import torch

    from agent_rl.chat.codec import ChatCodec
    from agent_rl.engine.local import LocalEngine
    from agent_rl.learner.policy import load_policy

    torch.set_num_threads(settings.threads)  # the order of sums is part of the bits
    policy, tokenizer = load_policy(model, dtype=settings.dtype)
    codec = ChatCodec(tokenizer, settings.tool_parser)
    limits = fitted(settings.limits, positions_of(policy))
    async with LocalEngine(
        policy, max_batch=settings.max_batch, max_context=limits.max_context_tokens, deterministic=True
    ) as engine:
        await engine.update_weights({}, version)
        yield policy_agents(engine, codec, settings.sampling, settings.context), limits, codec.ends


def weight_version(episode: Trajectory) -> int:
    """The one that sampled all tokens. Raises `UserError` when there is none, or more than one."""
    rows = [segment.weight_versions_T[segment.response_mask_T] for segment in episode.segments]
    versions = np.unique(np.concatenate(rows)).tolist() if rows else []
    if not versions:
        raise UserError("The episode has no tokens, so nothing can be sampled anew: an endpoint or a reference acted.")
    if len(versions) > 1:
        raise UserError(
            f"The weights changed from version {versions[0]} to {versions[-1]} while the episode was played: only "
            "episodes of one version can be sampled anew."
        )
    return versions[0]


def model_of(run_dir: Path, episode: Trajectory, settings: RunSettings) -> str:
    """Where the weights are that sampled the episode. Raises `UserError` when the run does not have them."""
    version = weight_version(episode)
    checkpoints = {checkpoint.weight_version: checkpoint.path for checkpoint in list_checkpoints(run_dir)}
    if version in checkpoints:
        return str(checkpoints[version] / MODEL)
    if settings.model and version == 0:
        return model_source(settings.model)
    there = ", ".join(map(str, sorted(checkpoints))) or "none"
    raise UserError(
        f"The run has no checkpoint of weight version {version} (it has: {there}): name the model with "
        "--model, or train with a higher keep_checkpoints and a lower checkpoint_every."
    )
