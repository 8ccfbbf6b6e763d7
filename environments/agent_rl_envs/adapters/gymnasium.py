"""Any gymnasium environment as ours: actions are read from the model's text, observations are put into words.

Tasks are seeds. An action that cannot be read goes back to the model and is no step of the simulator.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from agent_rl.config import Config
from agent_rl.environment import BlockingEnvironment
from agent_rl.errors import ToolError, UserError
from agent_rl.types import Message, Step, StepInfo, Task
from agent_rl_envs.adapters.seeds import seed_tasks

if TYPE_CHECKING:
    import gymnasium

    from agent_rl_envs.adapters.spaces import ActionText

_ACTION_NAMES: Mapping[str, tuple[str, ...]] = {
    "FrozenLake-v1": ("left", "down", "right", "up"),
    "FrozenLake8x8-v1": ("left", "down", "right", "up"),
    "CliffWalking-v1": ("up", "right", "down", "left"),
    "Taxi-v4": ("south", "north", "east", "west", "pickup", "dropoff"),
    "Blackjack-v1": ("stick", "hit"),
}


class GymnasiumConfig(Config):
    """Options of `gymnasium`."""

    env: str = Field(default="FrozenLake-v1", description="Gymnasium id; module:Name-v0 imports the module first.")
    kwargs: dict[str, Any] = Field(default_factory=dict, description="Arguments for gymnasium.make.")
    instructions: str = Field(default="", description="What the model is told first; how to act is added.")
    action_names: tuple[str, ...] = Field(
        default=(), description="Names of the actions of a choice, in order; empty: known names, else numbers."
    )
    observation: str = Field(default="{observation}", description="Template of what the model reads each turn.")
    render: bool | None = Field(
        default=None, description="Show what render_mode ansi draws as the observation; none: where there is one."
    )


_DEFAULTS = GymnasiumConfig()


class GymnasiumEnvironment(BlockingEnvironment):
    """One episode of a gymnasium environment, made from the task's seed."""

    config_type = GymnasiumConfig

    def __init__(self, config: GymnasiumConfig = _DEFAULTS) -> None:
        self._config = config
        self._env: gymnasium.Env[Any, Any] | None = None
        self._actions: ActionText | None = None
        self._draws = False

    @classmethod
    def tasks(cls, split: str, count: int, seed: int = 0, config: GymnasiumConfig = _DEFAULTS) -> Sequence[Task]:
        """Seeds of the simulator."""
        _registered(config)
        return seed_tasks("gymnasium", config.env, split, count, seed, config.instructions or f"Play {config.env}.")

    def blocking_reset(self, task: Task, seed: int) -> Sequence[Message]:
        """The instructions, how to act, and the first observation. `seed` is not used: siblings start alike."""
        import gymnasium

        from agent_rl_envs.adapters.spaces import action_text, can_draw

        config = self._config
        id = _registered(config)
        self._draws = can_draw(id) if config.render is None else config.render
        options: dict[str, Any] = {"render_mode": "ansi", **config.kwargs} if self._draws else config.kwargs
        self._env = gymnasium.make(id, **options)
        names = config.action_names or _ACTION_NAMES.get(id, ())
        self._actions = action_text(self._env.action_space, names)
        observation, _ = self._env.reset(seed=task.data["seed"])
        told = "\n".join([message.content for message in task.prompt])
        return (Message("system", f"{told}\n{self._actions.help}"), Message("user", self._shown(observation)))

    def blocking_step(self, action: Message) -> Step:
        """One step of the simulator, or what is wrong with the action."""
        assert self._env is not None, "reset() comes first"
        assert self._actions is not None, "reset() comes first"
        try:
            chosen = self._actions.read(action.content)
        except ToolError as error:
            return Step((Message("user", str(error)),), info=StepInfo(metrics={"unreadable_actions": 1.0}))
        observation, reward, terminated, truncated, _ = self._env.step(chosen)
        info = StepInfo(reward_terms={"reward": float(reward)})
        return Step(
            (Message("user", self._shown(observation)),), float(reward), bool(terminated), bool(truncated), info
        )

    def blocking_close(self) -> None:
        """Close the simulator."""
        env, self._env = self._env, None
        if env is not None:
            env.close()

    def random_action(self, rng: np.random.Generator) -> Message:
        """Any element of the action space."""
        assert self._env is not None, "reset() comes first"
        assert self._actions is not None, "reset() comes first"
        space = self._env.action_space
        space.seed(int(rng.integers(2**31)))
        return Message("assistant", self._actions.write(space.sample()))

    def _shown(self, observation: Any) -> str:
        from agent_rl_envs.adapters.spaces import observation_text, rendered_text

        assert self._env is not None, "reset() comes first"
        text = rendered_text(self._env.render()) if self._draws else observation_text(observation)
        return self._config.observation.replace("{observation}", text)


def _registered(config: GymnasiumConfig) -> str:
    """The id without the module, which is imported. Raises `UserError` where there is no such environment."""
    import gymnasium

    module, _, id = config.env.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        gymnasium.spec(id)
    except (gymnasium.error.Error, ImportError) as error:
        raise UserError(f"Gymnasium has no environment {config.env!r}: {error}") from error
    return id
