"""Where the parts of a training run are. `train` asks a `Site` for them; here is the site that is this process.

Another site may put the learner and the players into other processes and on other machines (`agent_rl.cluster`).
"""

from __future__ import annotations

import copy
import functools
import gc
from collections.abc import AsyncGenerator, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from agent_rl.chat.codec import ChatCodec
from agent_rl.engine.base import Engine
from agent_rl.engine.choose import open_engine
from agent_rl.errors import ConfigError
from agent_rl.learner.base import PolicyLearner
from agent_rl.learner.frozen_policy import load_teacher
from agent_rl.learner.learner import Learner
from agent_rl.rollout.context import policy_agents
from agent_rl.rollout.control import Gate, RolloutControl
from agent_rl.rollout.episode import EnvironmentFactory, run_episode
from agent_rl.rollout.group import PlayWithin
from agent_rl.tool.services import ToolServices, tool_services
from agent_rl.train_config import TrainConfig
from agent_rl.types import SamplingParams

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from agent_rl.gateway.program import MakeProgram
    from agent_rl.learner.critic_config import CriticConfig
    from agent_rl.learner.ranks import Ranks

ENGINE_MODEL = "engine_model"  # where vLLM finds the model that it starts with


@dataclass(frozen=True, slots=True, eq=False)
class Cast:
    """All that a process needs to play episodes of a run."""

    config: TrainConfig
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    environment: EnvironmentFactory
    program: MakeProgram | None = None


class Players(Protocol):
    """Who plays a run's episodes with the policy."""

    @property
    def play(self) -> PlayWithin:
        """Plays one episode."""
        ...

    async def update_weights(self, learner: PolicyLearner, version: int) -> None:
        """From here on the policy samples with the learner's weights, called `version`."""
        ...

    def metrics(self) -> dict[str, float]:
        """What happened since the last time."""
        ...


class Site(Protocol):
    """Where the parts of a run are. A lost player is replaced; a lost learner raises `LearnerLost`."""

    @property
    def learners(self) -> int:
        """How many learners a run may use up, one after the other."""
        ...

    def learner(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        config: TrainConfig,
        values: CriticConfig | None,
    ) -> AbstractAsyncContextManager[PolicyLearner]:
        """A learner with a copy of `model`."""
        ...

    def players(self, cast: Cast, folder: Path, control: RolloutControl) -> AbstractAsyncContextManager[Players]:
        """The players, who obey `control`: they wait before a turn while its gate is closed. `folder` is the run's."""
        ...


class ThisProcess:
    """Everything is here, but for a learner that is spread over `ranks`, if there are any."""

    learners = 1

    def __init__(self, ranks: Ranks | None = None) -> None:
        self._ranks = ranks

    @asynccontextmanager
    async def learner(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        config: TrainConfig,
        values: CriticConfig | None,
    ) -> AsyncGenerator[PolicyLearner, None]:
        """See `Site.learner`."""
        yield make_learner(model, tokenizer, config, values, self._ranks)

    @asynccontextmanager
    async def players(self, cast: Cast, folder: Path, control: RolloutControl) -> AsyncGenerator[Players, None]:
        """See `Site.players`."""
        codec = ChatCodec(cast.tokenizer, cast.config.tool_parser)
        async with (
            engine_of(cast, codec, folder / ENGINE_MODEL, cast.config.max_concurrent_episodes) as engine,
            tool_services(cast.config.tools, codec.ends) as lent,
        ):
            with lasting():
                async with open_play(cast, codec, engine, control.turns) as play:
                    yield _PlayersHere(play, engine, lent)


@dataclass(frozen=True, slots=True)
class _PlayersHere:
    play: PlayWithin
    engine: Engine
    lent: ToolServices

    async def update_weights(self, learner: PolicyLearner, version: int) -> None:
        await self.engine.update_weights(learner.weights(), version)

    def metrics(self) -> dict[str, float]:
        return {
            f"tools/{name}": value for name, value in (self.lent.cache.metrics() if self.lent.cache else {}).items()
        }


def make_learner(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    config: TrainConfig,
    values: CriticConfig | None,
    ranks: Ranks | None,
) -> Learner:
    """A learner with a copy of `model`, here or on all ranks."""
    options = config.learner.for_run(config.steps * config.learner.minibatches * config.learner.epochs)
    make = Learner if ranks is None else ranks.learner
    return make(
        copy.deepcopy(model) if ranks is None else model,  # on several ranks it makes copies that fit
        options,
        temperature=config.temperature,
        seed=config.seed,
        teacher=load_teacher(options.distillation, model, tokenizer),
        values=values,
    )


def engine_of(cast: Cast, codec: ChatCodec, folder: Path, max_batch: int) -> AbstractAsyncContextManager[Engine]:
    """The engine that the run's config asks for, for `max_batch` episodes at once."""
    config = cast.config
    return open_engine(
        config.engine,
        cast.model,
        cast.tokenizer,
        codec.encode_rendered,
        folder=folder,
        max_batch=max_batch,
        max_context=config.limits.max_context_tokens,
        deterministic=config.deterministic,
    )


@asynccontextmanager
async def open_play(cast: Cast, codec: ChatCodec, engine: Engine, turns: Gate) -> AsyncGenerator[PlayWithin, None]:
    """Who acts: the policy's own agent, or programs through a gateway that is open for as long."""
    config, sampling = cast.config, SamplingParams(temperature=cast.config.temperature)
    if cast.program is None:
        make_agent = policy_agents(engine, codec, sampling, config.context)
        yield functools.partial(run_episode, cast.environment, make_agent, limits=config.limits, turns=turns)
    else:
        from agent_rl.gateway.program import programs

        if config.context.strategy != "keep":
            raise ConfigError("Programs manage their own context: leave out context.strategy.")
        async with programs(cast.environment, cast.program, config.limits)(engine, codec, sampling) as play:
            yield play


@contextmanager
def lasting() -> Generator[None, None, None]:
    """What exists now lasts as long as the block, so that garbage collection need not look through it again and again.

    With torch and transformers loaded one full collection takes 0.3 s, which halts every episode.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
