"""What recipes have in common: references, a policy to start from, training, the same policy after, a report.

A recipe is a config, an environment and this. It says what is special; `run` does the rest in the same order for all.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import anyio
import torch
from pydantic import Field, model_validator
from rich.console import Console

from agent_rl.cold_start import ColdStartConfig, cold_started
from agent_rl.config import changed_fields
from agent_rl.controls import only_imitate, shuffle_rewards
from agent_rl.curriculum import TaskSampler
from agent_rl.curriculum.config import CurriculumConfig
from agent_rl.environment import EnvironmentSpec
from agent_rl.errors import UserError
from agent_rl.evaluate.harness import evaluate
from agent_rl.evaluate.report import Report
from agent_rl.evaluate.run_report import AFTER, BEFORE, ORACLE, RANDOM, RunReport
from agent_rl.learner import ranks
from agent_rl.learner.config import LearnerConfig
from agent_rl.progress import training_progress
from agent_rl.rollout.agent import MakeAgent, OracleAgent, PolicyAgent, random_agent
from agent_rl.site import Site, ThisProcess
from agent_rl.starting_policy import Imitation, starting_policy
from agent_rl.store.run_folder import open_run
from agent_rl.store.tasks import read_tasks
from agent_rl.train import train
from agent_rl.train_config import TrainConfig
from agent_rl.types import SamplingParams, Task
from agent_rl.warm_start import WarmStartConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from agent_rl.gateway.program import Program

OpenProgram: TypeAlias = "Callable[[], AbstractAsyncContextManager[Program]]"
"""Opens the agent program that acts in the episodes of training, in place of the policy's own agent."""

Curriculum: TypeAlias = Callable[[TaskSampler], TaskSampler]
"""Makes another order, or other versions, of the tasks of training."""

_FREE = (
    "run_dir",
    "resume",
    "steps",
    "cluster",
    "store_timeout_s",
    "trackers",
    "opentelemetry",
)  # may differ on resume


class RecipeConfig(TrainConfig):
    """Options of every recipe. A recipe adds its own, and gives those of its environment other defaults."""

    steps: int = Field(default=80, ge=1, description="Training steps, one batch of groups each.")
    model: str | None = Field(
        default=None, description="Hub id or folder of a checkpoint; none: a tiny model made here, after imitation."
    )
    hidden_size: int = Field(default=64, ge=32, description="Width of the tiny model.")
    device: str = Field(default="cpu", description="Where a checkpoint runs, such as cpu or cuda.")
    dtype: str = Field(default="float32", description="Type of a checkpoint's weights.")
    warm_start: WarmStartConfig = Field(
        default=WarmStartConfig(learner=LearnerConfig(learning_rate=5e-3, warmup_steps=50, betas=(0.9, 0.95))),
        description="Imitation of the environment's random agent, from which the tiny model starts.",
    )
    cold_start: ColdStartConfig = Field(
        default_factory=ColdStartConfig, description="Demonstrations that a checkpoint imitates before RL."
    )
    learner: LearnerConfig = Field(
        default=LearnerConfig(learning_rate=1e-3, schedule="linear", warmup_steps=20, minibatches=4, betas=(0.9, 0.95)),
        description="Loss and optimiser of RL.",
    )
    curriculum: CurriculumConfig = Field(
        default_factory=CurriculumConfig, description="Which tasks come when, as training goes; see docs/curriculum.md."
    )
    control: Literal["none", "shuffled_rewards", "supervised_only"] = Field(
        default="none",
        description="Show that the gain is RL's: shuffle rewards inside groups, or only go on imitating.",
    )
    control_s: float = Field(default=120.0, gt=0, description="How long the control supervised_only imitates.")
    threads: int = Field(
        default=1, ge=1, description="Threads of one matrix product on the CPU; a tiny model needs only one."
    )
    eval_tasks: int = Field(default=256, ge=1, description="Held-out tasks that every agent is measured on.")
    task_file: Path | None = Field(
        default=None, description="Train on the tasks of this file, such as `agent-rl env select` writes."
    )
    success_threshold: float = Field(default=1.0, description="An episode succeeds when its reward reaches this.")
    run_dir: Path | None = Field(default=None, description="The run's folder; none: a new one under runs/.")
    resume: bool = Field(default=False, description="Go on with the run in run_dir, or with the latest one.")

    @model_validator(mode="after")
    def _starts_somewhere(self) -> Self:
        if self.cold_start != ColdStartConfig() and (self.model is None or self.cold_start.demonstrations is None):
            raise ValueError("a cold start takes a checkpoint and a file: set model and cold_start.demonstrations.")
        return self


def run(
    config: RecipeConfig,
    name: str,
    environment: EnvironmentSpec,
    *,
    demonstrated: EnvironmentSpec | None = None,
    vocabulary: Sequence[str] = (),
    program: OpenProgram | None = None,
    curriculum: Curriculum | None = None,
) -> dict[str, Any]:
    """Run the recipe called `name` and return its report (`report.json`).

    Without a checkpoint in `config.model`, a tiny policy first imitates the random agent of `demonstrated` (by default
    the environment itself); `vocabulary` are words that its tokenizer keeps whole. With `program`, an agent program
    acts in training. `curriculum` changes which task comes when. Under torchrun, rank 0 does all this with a learner on
    all ranks, and the others return an empty report. Raises `UserError` for what cannot be run.
    """
    timeout_s = config.learner.rank_timeout_s
    if ranks.follows():
        torch.set_num_threads(config.threads)
        ranks.follow(timeout_s)
        return {}
    torch.set_num_threads(config.threads)
    if not config.resume:  # its config is the one that was checked, and what is used up may be gone
        _check_named(config)
    imitation = Imitation(demonstrated or environment, config.warm_start, config.limits, config.seed)
    with (
        open_run(config, name, config.run_dir, resume=config.resume, free=_FREE) as folder,
        _site(config) as site,
    ):
        return anyio.run(_Run(config, folder, environment, imitation, vocabulary, program, curriculum, site).go)


def _check_named(config: RecipeConfig) -> None:
    """What is read only later has to be there now: a mistyped path is not to cost a warm start. Raises `UserError`."""
    from agent_rl.learner.policy import check_checkpoint

    teacher = config.learner.distillation and config.learner.distillation.teacher
    for source in (config.model, teacher, config.utterance_critic.checkpoint, *config.learner.reference.soup):
        if source is not None:
            check_checkpoint(source)
    for file in (config.task_file, config.cold_start.demonstrations):
        if file is not None and not file.is_file():
            raise UserError(f"There is no file {str(file)!r}.")


@contextmanager
def _site(config: RecipeConfig) -> Generator[Site, None, None]:
    """Where the run is: on a cluster, or in this process with the learner on all ranks that torchrun has started."""
    if config.cluster is None:
        with ranks.lead(config.learner.rank_timeout_s) as others:
            yield ThisProcess(others)
        return
    try:
        from agent_rl.cluster.site import open_cluster
    except ImportError as error:
        raise UserError(f"cluster needs the package {error.name}: install agent-rl[ray].") from error
    with open_cluster(config.cluster) as site:
        yield site


@dataclass(frozen=True, slots=True)
class _Run:
    config: RecipeConfig
    folder: Path
    environment: EnvironmentSpec
    imitation: Imitation
    vocabulary: Sequence[str]
    program: OpenProgram | None
    curriculum: Curriculum | None
    site: Site
    console: Console = field(default_factory=Console)

    async def go(self) -> dict[str, Any]:
        config, began = self.config, time.perf_counter()
        report = RunReport(self.folder, self.console)
        test = self.environment.tasks("test", config.eval_tasks, config.seed)
        report.add(RANDOM, await self._play(test, random_agent))
        report.add(ORACLE, await self._play(test, lambda environment, key: OracleAgent(environment)))
        model, tokenizer = await self._start()
        report.add(BEFORE, await self._measure(test, model, tokenizer, report, "before"))
        tokens = await self._learn(model, tokenizer)
        report.add(AFTER, await self._measure(test, model, tokenizer, report, "after"))
        id, options = test[0].environment, _as_options(changed_fields(self.environment.config))
        return report.finish(
            title=f"{len(test)} held-out tasks of {id}",
            next_commands=[
                f"agent-rl eval {id} --model {self.folder} -n 200 -r 4{options}   # pass@k and pass^k of the policy",
                f"agent-rl rollout {id} --model {self.folder} -n 3{options}       # watch it work",
                f"tensorboard --logdir {self.folder}/tensorboard        # every metric of the run",
            ],
            steps=config.steps,
            tokens=tokens,
            seed=config.seed,
            control=config.control,
            resumed=config.resume,  # then the wall time is that since the run was resumed
            wall_s=time.perf_counter() - began,
        )

    async def _start(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The checkpoint that was asked for, or the tiny policy."""
        from agent_rl.learner.policy import load_policy

        config = self.config
        if config.model is not None:
            place: Any = {"dtype": config.dtype, "device": config.device}
            if (shown := config.cold_start.demonstrations) is None:
                return load_policy(config.model, **place)
            place |= {"parser": config.tool_parser, "seed": config.seed}
            return cold_started(config.cold_start, shown, config.model, self.folder, self.console, **place)
        return await starting_policy(
            self.imitation, self.folder, self.console, hidden_size=config.hidden_size, vocabulary=self.vocabulary
        )

    async def _learn(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
        """Reinforcement learning, or the control in its place; returns the tokens that were sampled."""
        config = self.config
        if config.control == "supervised_only":
            await only_imitate(self.imitation, config.learner, config.control_s, model, tokenizer, self.console)
            return 0
        if config.task_file is not None:
            tasks = read_tasks(config.task_file)
        else:
            tasks = self.environment.tasks("train", config.steps * config.groups_per_batch, config.seed)
        curriculum = config.curriculum.open(
            tasks,
            seed=config.seed,
            group_size=config.group_size,
            least=config.min_group_members,
            limits=config.limits,
            success=config.success_threshold,
            change=self.curriculum or (lambda sampler: sampler),
        )
        async with self._programs() as program:
            with training_progress(self.console, config.steps, "reinforcing") as on_step:
                progress = await train(
                    config,
                    run_dir=self.folder,
                    model=model,
                    tokenizer=tokenizer,
                    environment=self.environment,
                    task_at=curriculum,
                    resume=config.resume,
                    on_step=on_step,
                    transform_group=shuffle_rewards if config.control == "shuffled_rewards" else lambda group: group,
                    program=None if program is None else lambda environment: program,
                    site=self.site,
                )
        return progress.sampled_tokens

    @asynccontextmanager
    async def _programs(self) -> AsyncGenerator[Program | None, None]:
        if self.program is None:
            yield None
        else:
            async with self.program() as program:
                yield program

    async def _measure(
        self,
        tasks: Sequence[Task],
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        report: RunReport,
        name: str,
    ) -> Report:
        """The policy's success as it samples in training, without any choice of decoding, and without any program."""
        from agent_rl.chat.codec import ChatCodec
        from agent_rl.engine.local import LocalEngine

        config = self.config
        codec, sampling = ChatCodec(tokenizer, config.tool_parser), SamplingParams(temperature=config.temperature)
        context = config.limits.max_context_tokens
        async with LocalEngine(model, max_batch=config.max_concurrent_episodes, max_context=context) as engine:
            return await self._play(tasks, lambda _, key: PolicyAgent(engine, codec, sampling, key), report, name)

    async def _play(
        self, tasks: Sequence[Task], make_agent: MakeAgent, report: RunReport | None = None, name: str = ""
    ) -> Report:
        config = self.config
        return await evaluate(
            self.environment,
            tasks,
            make_agent,
            seed=config.seed,
            concurrency=config.max_concurrent_episodes,
            limits=config.limits,
            tools=config.tools,
            success_threshold=config.success_threshold,
            on_group=report.transcripts(name) if report is not None else lambda group: None,
        )


def _as_options(fields: Mapping[str, object]) -> str:
    """Fields of an environment as the command line takes them; those that are no single value have no such form."""
    plain = {path: str(value) for path, value in fields.items() if isinstance(value, int | float | str)}
    words = [word for path, value in plain.items() for word in (path, shlex.quote(value))]
    return f" --environment-options {' '.join(words)}" if words else ""
