"""A tiny policy that knows the format and the work flow of an environment, made on the spot: nothing is downloaded.

It imitates the environment's random agent (`warm_start`), with a tokenizer made for just these conversations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from agent_rl.environment import EnvironmentSpec
from agent_rl.errors import UserError
from agent_rl.progress import counting_progress
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.seeding import derive_seed
from agent_rl.warm_start import (
    Demonstration,
    WarmStartConfig,
    WarmStartReport,
    behaves_like_demonstrator,
    demonstrate,
    warm_start,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

START = "start"  # the folder of the policy that reinforcement learning starts from, in the run's
_ATTEMPTS = 3
_READ_BY_THE_TOKENIZER = 400  # demonstrations


@dataclass(frozen=True, slots=True)
class Imitation:
    """Whom to imitate: the random agent of `environment`, under the limits of the episodes to come."""

    environment: EnvironmentSpec
    options: WarmStartConfig
    limits: RolloutLimits
    seed: int

    async def demonstrations(self) -> list[Demonstration]:
        """One for each of as many training tasks."""
        tasks = self.environment.tasks("train", self.options.demonstrations, self.seed + 1)
        return await demonstrate(self.environment, tasks, self.limits, self.seed)

    async def imitate(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        demonstrations: Sequence[Demonstration],
        finished: Callable[[WarmStartReport], bool],
        options: WarmStartConfig | None = None,
    ) -> WarmStartReport | None:
        """Train `model` in place until `finished` says so; see `warm_start`."""
        options = options or self.options
        return await warm_start(
            options,
            model=model,
            tokenizer=tokenizer,
            environment=self.environment,
            demonstrations=demonstrations,
            check_tasks=self.environment.tasks("train", options.check_episodes, self.seed),
            limits=self.limits,
            seed=self.seed,
            finished=finished,
        )


async def starting_policy(
    imitation: Imitation, folder: Path, console: Console, *, hidden_size: int, vocabulary: Sequence[str]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The tiny policy in `folder/start`, made first if it is not there. Raises `UserError` when imitation fails."""
    from agent_rl.learner.policy import load_policy, save_policy
    from agent_rl.testing.tiny import make_tokenizer, render_episode

    start = folder / START
    if not start.is_dir():
        demonstrations = await imitation.demonstrations()
        texts = [render_episode(shown.episode, shown.tools) for shown in demonstrations[:_READ_BY_THE_TOKENIZER]]
        tokenizer = make_tokenizer(texts, vocabulary)
        model = await _imitator(imitation, tokenizer, console, demonstrations, hidden_size)
        unfinished = folder / f"{START}.tmp"
        save_policy(model, tokenizer, unfinished)
        unfinished.rename(start)
    return load_policy(start)


async def _imitator(
    imitation: Imitation,
    tokenizer: PreTrainedTokenizerBase,
    console: Console,
    demonstrations: Sequence[Demonstration],
    hidden_size: int,
) -> PreTrainedModel:
    """A tiny model that acts like its demonstrator. Some random weights never learn to copy: others are tried then."""
    from agent_rl.testing.tiny import make_model

    options, context = imitation.options, imitation.limits.max_context_tokens
    for attempt in range(_ATTEMPTS):
        seed = derive_seed(imitation.seed, "imitator", attempt) if attempt else imitation.seed
        model = make_model(tokenizer, hidden_size=hidden_size, heads=4, max_context=max(context, 1024), seed=seed)
        with counting_progress(console, "imitating", options.max_steps) as advance:

            def finished(report: WarmStartReport, advance: Callable[[int, str], None] = advance) -> bool:
                advance(report.step, f"odd actions {report.implausible:.0%}  loss {report.loss:.3f}")
                return behaves_like_demonstrator(report, options)

            if await imitation.imitate(model, tokenizer, demonstrations, finished) is not None:
                return model
    raise UserError(
        f"The warm start failed {_ATTEMPTS} times: after {options.max_steps} steps the policy still did not act like "
        "its demonstrator. Raise --warm-start.max-steps or --warm-start.max-implausible, or take another --seed."
    )
