"""What a source of browser tasks implements: which tasks there are, and for an episode, where it begins, how its site
is seeded, when it is over and how good it was. Knows no source.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from agent_rl.types import Message, Task
from agent_rl_tools.browser import BrowserTools, PageConfig, PageView, Route


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an episode came out. `score` is the task's own reward, on its own scale."""

    success: bool
    score: float
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])


class Assignment(abc.ABC):
    """One task for one episode: a site that is there, and its checker."""

    url: str
    """Where the browser begins."""
    allowed_hosts: tuple[str, ...] | None = None
    """Entries of an `AllowList`; none: the host and port of `url` alone."""
    page: PageConfig = PageConfig()
    """Clock, chance, cookies."""
    routes: Mapping[str, Route] = MappingProxyType({})
    """Servers on this machine that stand in for hosts."""

    @abc.abstractmethod
    async def prepare(self, browser: BrowserTools) -> str:
        """Bring the opened page, and whatever is behind it, to the state that the seed says; the instruction."""

    @abc.abstractmethod
    async def verdict(self, browser: BrowserTools, answer: str | None, *, last: bool) -> Verdict | None:
        """Asked after every action, and for the last time with `last`; then it has to say.

        `answer` is what the model said at the end; `None` when it said nothing (yet), or ran out of actions.
        """

    def oracle(self, view: PageView) -> Message:
        """The best next action on a page that looks like this. Raises `NotImplementedError` where there is none."""
        raise NotImplementedError(f"{type(self).__name__} has no oracle")

    def cheats(self) -> Mapping[str, Sequence[Message]]:
        """Ways to be rewarded without doing the task, turn by turn, which must fail; for `agent-rl env check`."""
        return {}

    def secrets(self) -> Sequence[str]:
        """Texts that no message may show."""
        return ()

    async def close(self) -> None:  # noqa: B027  # most hold nothing
        """Release what this episode alone holds; idempotent."""


class TaskSource(abc.ABC):
    """Where tasks come from. What all episodes share (a server, a database) is opened with `agent_rl.tool.share`."""

    @abc.abstractmethod
    def tasks(self, split: str, count: int, seed: int) -> Sequence[Task]:
        """See `Environment.tasks`; `split` is `train` or `test`."""

    @abc.abstractmethod
    async def open(self, task: Task, seed: int) -> Assignment:
        """The task for one episode, with its site running. `seed` is that of `reset`."""
