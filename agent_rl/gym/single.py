"""One environment behind `gymnasium.Env`."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium

from agent_rl.gym.seat import Play, Seat
from agent_rl.gym.text import AnyText
from agent_rl.gym.thread import EventLoopThread


class GymnasiumEnv(gymnasium.Env[str, str]):
    """One of our environments behind gymnasium's synchronous interface, for one thread at a time.

    `reset(seed=...)` draws one of the first `tasks` tasks of the split; `options` may name one instead: `task` is its
    number or its id, `split` its split. Everything asynchronous runs in a thread of this instance until `close`.
    `play` are the arguments of `Play`. Raises `EnvironmentFailure` where the environment fails or takes too long.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012  # as gymnasium declares it

    def __init__(self, environment: str, *, render_mode: str | None = None, **play: Any) -> None:
        self.action_space = AnyText()
        self.observation_space = AnyText()
        self.render_mode = render_mode
        self._seat = Seat(Play(environment, **play))
        self._thread: EventLoopThread | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """The opening messages as a text."""
        super().reset(seed=seed)
        if self._thread is None:
            self._thread = EventLoopThread()
        return self._thread.run(partial(self._seat.reset, options, self.np_random))

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """What the environment answers to the text, tool calls in it included."""
        if self._thread is None:
            raise gymnasium.error.ResetNeeded("call reset() before step()")
        return self._thread.run(partial(self._seat.step, action))

    def render(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]  # it has one render mode
        """The episode so far, one message after another."""
        return self._seat.render()

    def close(self) -> None:
        """End the episode and the thread. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is not None:
            try:
                thread.run(self._seat.close)
            finally:
                thread.close()
