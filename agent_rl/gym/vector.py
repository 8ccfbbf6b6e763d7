"""Many environments behind `gymnasium.vector.VectorEnv`: all step at once, on one event loop in one thread.

A step takes as long as the slowest environment's, not as long as all of them: waiting for tools, sandboxes and models
overlaps. Semantics are those of gymnasium's own `SyncVectorEnv`, in all three autoreset modes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import gymnasium
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from agent_rl.concurrency import collect
from agent_rl.errors import EnvironmentFailure, UserError
from agent_rl.gym.seat import Play, Seat, StepResult
from agent_rl.gym.text import AnyText
from agent_rl.gym.thread import EventLoopThread

T = TypeVar("T")

Texts = tuple[str, ...]
_UNMOVED = StepResult("", 0.0, False, False, {})


class GymnasiumVectorEnv(VectorEnv[Texts, Sequence[str], NDArray[Any]]):
    """`num_envs` environments of one kind, for one thread at a time; observations are a tuple of texts.

    `reset(seed=...)` gives environment i the seed `seed + i`, or takes a list; `options` may have a `reset_mask` as in
    gymnasium, and else go to each reset. `play` are the arguments of `Play`. When an environment fails or takes too
    long, the others finish their step, `EnvironmentFailure` says which it was, and all have to be reset.
    """

    def __init__(
        self,
        num_envs: int,
        environment: str,
        *,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        **play: Any,
    ) -> None:
        if num_envs < 1:
            raise UserError(f"num_envs must be at least 1, not {num_envs}.")
        self.num_envs = num_envs
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {"render_modes": ["ansi"], "render_fps": 1, "autoreset_mode": self.autoreset_mode}
        self.render_mode = render_mode
        self.single_action_space, self.single_observation_space = AnyText(), AnyText()
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        shared = Play(environment, **play)
        self._seats = [Seat(shared) for _ in range(num_envs)]
        self._rngs = [seeding.np_random()[0] for _ in range(num_envs)]
        self._observations = [""] * num_envs
        self._ended = np.zeros(num_envs, np.bool_)
        self._begun = np.zeros(num_envs, np.bool_)
        self._thread: EventLoopThread | None = None

    # --- gymnasium's interface ------------------------------------------------------------------------------------

    def reset(  # pyright: ignore[reportIncompatibleMethodOverride]  # a list of seeds, as its own environments take
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Texts, dict[str, Any]]:
        """Begin an episode everywhere, or where `options["reset_mask"]` says so: the opening texts."""
        seeds = self._seeds(seed)
        options = dict(options or {})
        mask = self._mask(options.pop("reset_mask", None))
        self._begun &= ~mask  # until it has worked
        if self._thread is None:
            self._thread = EventLoopThread()
        for index in _indices(mask):
            if seeds[index] is not None:
                self._rngs[index] = seeding.np_random(seeds[index])[0]
        begun = self._run({i: partial(self._seats[i].reset, options, self._rngs[i]) for i in _indices(mask)})
        infos: dict[str, Any] = {}
        for index, (text, info) in begun.items():
            self._observations[index] = text
            infos = self._add_info(infos, info, index)
        self._ended &= ~mask
        self._begun |= mask
        return tuple(self._observations), infos

    def step(self, actions: Sequence[str]) -> tuple[Texts, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """One action for each environment; where an episode has ended, the autoreset mode says what happens."""
        if not self._begun.all():
            raise gymnasium.error.ResetNeeded("call reset() before step()")
        if isinstance(actions, str) or len(actions) != self.num_envs:
            raise UserError(f"step() takes {self.num_envs} actions, one for each environment.")
        if self.autoreset_mode is AutoresetMode.DISABLED and self._ended.any():
            ended = _indices(self._ended)
            raise gymnasium.error.ResetNeeded(f"the episodes of {ended} have ended: reset them with a reset_mask")
        outcomes = self._run({i: partial(self._move, i, action) for i, action in enumerate(actions)})
        infos: dict[str, Any] = {}
        for index, (result, opening) in outcomes.items():
            if opening is not None and self.autoreset_mode is AutoresetMode.SAME_STEP:
                infos = self._add_info(infos, {"final_obs": result.observation, "final_info": result.info}, index)
            self._observations[index], info = opening or (result.observation, result.info)
            infos = self._add_info(infos, info, index)
        results = [result for result, _ in outcomes.values()]
        rewards = np.array([result.reward for result in results], np.float64)
        terminated, truncated = (np.array([result[field] for result in results], np.bool_) for field in (2, 3))
        self._ended = terminated | truncated
        return tuple(self._observations), rewards, terminated, truncated, infos

    def render(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]  # one render mode
        """The episodes so far."""
        return tuple(seat.render() for seat in self._seats)

    def close_extras(self, **kwargs: Any) -> None:
        """End the episodes and the thread."""
        thread, self._thread = self._thread, None
        self._begun[:] = False
        if thread is not None:
            try:
                thread.run(partial(collect, [partial(_settled, seat.close) for seat in self._seats]))
            finally:
                thread.close()

    # --- all at once ----------------------------------------------------------------------------------------------

    async def _move(self, index: int, action: str) -> tuple[StepResult, tuple[str, dict[str, Any]] | None]:
        """What became of the action, and the opening of the next episode where one has begun in this step."""
        seat, rng = self._seats[index], self._rngs[index]
        if self.autoreset_mode is AutoresetMode.NEXT_STEP and self._ended[index]:
            return _UNMOVED, await seat.reset(None, rng)
        result = await seat.step(action)
        ended = result.terminated or result.truncated
        restarts = ended and self.autoreset_mode is AutoresetMode.SAME_STEP
        return result, await seat.reset(None, rng) if restarts else None

    def _run(self, calls: Mapping[int, Callable[[], Awaitable[T]]]) -> dict[int, T]:
        """All calls at once. Every one comes to its end, before the first failure is raised."""
        assert self._thread is not None, "reset() comes first"
        settled = self._thread.run(partial(collect, [partial(_settled, call) for call in calls.values()]))
        for index, (_, error) in zip(calls, settled, strict=True):
            if error is not None:
                self._begun[list(calls)] = False
                error.add_note(f"in environment {index} of {self.num_envs}")
                raise error
        return {index: value for index, (value, _) in zip(calls, settled, strict=True)}  # pyright: ignore[reportReturnType]

    def _seeds(self, seed: int | Sequence[int | None] | None) -> Sequence[int | None]:
        if seed is None:
            return [None] * self.num_envs
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else seed
        if len(seeds) != self.num_envs:
            raise UserError(f"{len(seeds)} seeds for {self.num_envs} environments: give one for each, or a number.")
        return seeds

    def _mask(self, mask: Any) -> NDArray[np.bool_]:
        if mask is None:
            return np.ones(self.num_envs, np.bool_)
        given = np.asarray(mask)
        if given.shape != (self.num_envs,) or given.dtype != np.bool_ or not given.any():
            raise UserError(f"reset_mask must be {self.num_envs} booleans, at least one of them true.")
        return given


async def _settled(call: Callable[[], Awaitable[T]]) -> tuple[T | None, Exception | None]:
    try:
        return await call(), None
    except (EnvironmentFailure, UserError, gymnasium.error.Error) as error:
        return None, error


def _indices(mask: NDArray[np.bool_]) -> list[int]:
    return np.flatnonzero(mask).tolist()
