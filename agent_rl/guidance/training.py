"""What the training loop needs of guidance: who plays groups, in which environments, and what credit sees of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from agent_rl.guidance.config import GuidanceConfig
from agent_rl.guidance.context import left_out, without_guidance
from agent_rl.guidance.environment import GuidedEnvironments
from agent_rl.guidance.group import GuidedGroups
from agent_rl.rollout.agent import OracleAgent
from agent_rl.rollout.episode import EnvironmentFactory, run_episode
from agent_rl.rollout.group import PlayGroup, run_group
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.types import Group, Trajectory


class Guided:
    """Guided training, or plain training where no kind of guidance is chosen.

    `environment` makes the environments that episodes are played in, here or in other processes; `play_group` plays a
    group of them.
    """

    def __init__(self, config: GuidanceConfig, environment: EnvironmentFactory, limits: RolloutLimits) -> None:
        self._config = config
        self.environment = environment
        self.play_group: PlayGroup = run_group
        if config.kind != "none":
            expert = partial(run_episode, environment, lambda inside, key: OracleAgent(inside), limits=limits)
            self.environment = GuidedEnvironments(environment)
            self.play_group = GuidedGroups(config, expert)

    def in_context(self, group: Group) -> Group:
        """The group in the context that training sees: as sampled, or without guidance."""
        return group if self._config.in_context else without_guidance(group)

    def credited(self, group: Group) -> Group:
        """The members that are credited together. Guided ones replace the worst, join all, or are left out."""
        guided = [episode for episode in group.valid if episode.guidance is not None]
        if self._config.credit == "join" or not guided:
            return group
        plain = [episode for episode in group.valid if episode.guidance is None]
        worst = sorted(plain, key=lambda episode: episode.reward)[: len(guided)]
        gone = {episode.member for episode in (worst if self._config.credit == "replace" else guided)}
        return replace(group, trajectories=tuple(t for t in group.trajectories if t.member not in gone))

    def metrics(self, groups: Sequence[Group]) -> dict[str, float]:
        """Of the groups of a batch, as played: how many were guided, with what success, and that of the policy alone.

        `kept_in_context` counts guided episodes whose guidance could not be left out exactly.
        """
        if self._config.kind == "none":
            return {}
        episodes = [episode for group in groups for episode in group.valid]
        guided = [episode for episode in episodes if episode.guidance is not None]
        members = [[e for e in group.valid if e.guidance is not None] for group in groups]
        helped = [of_group for of_group in members if of_group]
        metrics = {
            "guided_groups": len(helped) / max(1, len(groups)),
            "unguided_success": self._success([episode for episode in episodes if episode.guidance is None]),
        }
        if helped:
            metrics |= {
                "guided_success": self._success(guided),
                "rescued_groups": sum(self._success(of_group) > 0 for of_group in helped) / len(helped),
                "rounds": sum(max(_round(e) for e in of_group) for of_group in helped) / len(helped),
            }
        if not self._config.in_context:
            metrics["kept_in_context"] = float(sum(map(_kept, groups)))
        return metrics

    def _success(self, episodes: Sequence[Trajectory]) -> float:
        return sum(episode.reward >= self._config.success for episode in episodes) / max(1, len(episodes))


def _round(episode: Trajectory) -> int:
    return 0 if episode.guidance is None else episode.guidance.round


def _kept(group: Group) -> int:
    plain = [episode for episode in group.valid if episode.guidance is None]
    return sum(episode.guidance is not None and left_out(episode, plain) is None for episode in group.valid)
