"""The training loop: tasks -> groups -> journal -> credit -> learner -> weights. The one place where the parts meet.

One loop serves every `max_staleness`: with 0 the gate admits exactly one batch, so that rollouts wait for the learner;
above 0 the same code overlaps them. Batches are assembled in the logical order of groups, never in order of arrival.

Resume. A group is durable in the journal before it is trained on, and a checkpoint names the first group that it has
not consumed. After a kill the loop goes back to the last checkpoint, takes the groups after it from the journal and
trains them again in the same order: the same weights, and no rollout is lost.
"""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from agent_rl.batches import Batch, assemble, batch_metrics
from agent_rl.chat.codec import ChatCodec
from agent_rl.control import serve_control
from agent_rl.credit import get_estimator, get_shaping, mean_reward_within
from agent_rl.credit.rows import row_groups, row_places, to_rows
from agent_rl.curriculum import Curriculum, TaskSampler
from agent_rl.environment import EnvironmentSpec
from agent_rl.errors import UserError
from agent_rl.guidance.training import Guided
from agent_rl.health import Health
from agent_rl.imitation import Imitated, imitated
from agent_rl.learner.base import LearnerLost, PolicyLearner
from agent_rl.learner.watch import Seen
from agent_rl.mix import Mix
from agent_rl.otel import OpenTelemetry
from agent_rl.rollout.control import RolloutControl
from agent_rl.rollout.episode import EnvironmentFactory
from agent_rl.rollout.manager import RolloutManager
from agent_rl.rollout.order import ConsumptionOrder
from agent_rl.rollout.staleness import StalenessGate
from agent_rl.site import Cast, Players, Site, ThisProcess
from agent_rl.store.checkpoint import LEARNER, MODEL, list_checkpoints, load_latest, save_checkpoint
from agent_rl.store.disk import told_when_full
from agent_rl.store.journal import Journal
from agent_rl.store.lock import owned
from agent_rl.store.metrics import MetricsLogger
from agent_rl.store.opening import create_journal, open_journal
from agent_rl.store.outcome import outcome_recorded
from agent_rl.store.trained_tokens import TrainedTokens
from agent_rl.trackers import TrackedRun
from agent_rl.train_config import TrainConfig
from agent_rl.types import Group, Task, TrainingRow
from agent_rl.valuation import Surroundings, Valuation, open_valuation

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from agent_rl.gateway.program import MakeProgram


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run is; part of every checkpoint."""

    step: int = 0
    next_group: int = 0
    sampled_tokens: int = 0


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one training step did; `metrics` is what the trackers got."""

    step: int
    steps: int
    metrics: Mapping[str, float]


async def train(
    config: TrainConfig,
    *,
    run_dir: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    environment: EnvironmentFactory,
    task_at: TaskSampler | Curriculum,
    resume: bool = False,
    on_step: Callable[[StepReport], None] = lambda report: None,
    transform_group: Callable[[Group], Group] = lambda group: group,
    program: MakeProgram | None = None,
    site: Site | None = None,
) -> Progress:
    """Train `model` in place and return how far it got: the engine serves it, the learner has a copy of its own.

    With `program`, agent programs act in the episodes, through a gateway (see `agent_rl.gateway`), instead of the
    policy's own agent. `task_at` may be a curriculum that follows results. `transform_group` sees each group before
    credit (shaping, controls); the journal keeps what really happened. `site` is where the parts of the run are, by
    default this process. With `resume`, the run in `run_dir` goes on from its last checkpoint; so it does when the site
    has another learner for one that is lost. Raises `UserError` for bad options and when every episode of a batch
    fails.
    """
    codec = ChatCodec(tokenizer, config.tool_parser)  # first: it refuses templates that cannot be used
    shape = get_shaping(config.shaping, config.shaping_options)

    guided = Guided(config.guidance, environment, config.limits)

    def seen(group: Group) -> Group:
        return shape(transform_group(guided.in_context(group)))

    def seen_by_credit(group: Group) -> Group:
        return guided.credited(seen(group))

    plan = _Plan(
        Cast(config, model, tokenizer, guided.environment, program),
        run_dir,
        environment if isinstance(environment, EnvironmentSpec) else None,
        task_at if isinstance(task_at, Curriculum) else Curriculum(task_at, config.group_size),
        guided,
        imitated(config.imitation, codec, config.seed, seen) if config.learner.imitation is not None else None,
        seen_by_credit,
        on_step,
    )
    untaught = plan.curriculum.state_dict()
    site = site or ThisProcess()
    left = site.learners
    with owned(run_dir), outcome_recorded(run_dir), told_when_full(run_dir):
        while True:
            left -= 1
            plan.curriculum.load_state_dict(untaught)
            try:
                async with _open_run(plan, site, resume) as run:
                    await run.go()
                    await anyio.to_thread.run_sync(run.bring_home, model)
                    return run.progress
            except* LearnerLost:
                if not left:
                    raise
                resume = True


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """What a run was told, however often it is opened."""

    cast: Cast
    run_dir: Path
    environment: EnvironmentSpec | None  # for the store, if it can be written down
    curriculum: Curriculum
    guided: Guided
    imitate: Imitated | None
    seen_by_credit: Callable[[Group], Group]
    on_step: Callable[[StepReport], None]


@asynccontextmanager
async def _open_run(plan: _Plan, site: Site, resume: bool) -> AsyncGenerator[_Run, None]:
    """The run with all that it needs, at its last checkpoint or at its start."""
    cast, config, run_dir = plan.cast, plan.cast.config, plan.run_dir
    kind = get_estimator(config.estimator, config.estimator_options).critic
    values = config.critic if kind == "token" and config.critic.trunk == "policy" else None
    progress, critic_state = Progress(), None
    async with site.learner(cast.model, cast.tokenizer, config, values) as learner:
        with ExitStack() as extras:
            journal = extras.enter_context(
                create_journal(
                    run_dir,
                    store=config.store,
                    config=config,
                    environment=plan.environment,
                    timeout_s=config.store_timeout_s,
                )
            )
            if resume and (latest := load_latest(run_dir)) is not None:
                checkpoint, state = latest
                await anyio.to_thread.run_sync(learner.load, checkpoint.path / LEARNER)
                critic_state = state.get("critic")
                plan.curriculum.load_state_dict(state["curriculum"])
                progress = Progress(checkpoint.step, checkpoint.next_group_index, state["sampled_tokens"])
            tracked = TrackedRun(run_dir, progress.step, config.model_dump(mode="json"))
            logger = extras.enter_context(MetricsLogger(tracked, config.trackers))
            _resume(journal, run_dir, progress)
            open_own = functools.partial(open_journal, run_dir, store=config.store, timeout_s=config.store_timeout_s)
            around = Surroundings(
                cast.model, learner, open_own, plan.seen_by_credit, steps=config.steps, seed=config.seed
            )
            critic = extras.enter_context(open_valuation(kind, config.critic, config.utterance_critic, around))
            if critic is not None and critic_state is not None:
                critic.load_state_dict(critic_state)
            telemetry = extras.enter_context(OpenTelemetry()) if config.opentelemetry else None
            control = RolloutControl(config.max_concurrent_episodes)
            async with site.players(cast, run_dir, control) as players:
                yield _Run(plan, learner, players, critic, journal, logger, control, telemetry, progress)


def _resume(journal: Journal, run_dir: Path, progress: Progress) -> None:
    """Make the journal agree with the checkpoint that the run goes on from."""
    journal.rewind(progress.step)
    journal.set_aside_damaged(run_dir)
    journal.index_checkpoints(list_checkpoints(run_dir))


class _Run:
    """A running training: what the loop carries from one step to the next."""

    def __init__(
        self,
        plan: _Plan,
        learner: PolicyLearner,
        players: Players,
        critic: Valuation | None,
        journal: Journal,
        logger: MetricsLogger,
        control: RolloutControl,
        telemetry: OpenTelemetry | None,
        progress: Progress,
    ) -> None:
        self.progress = progress
        self._config = config = plan.cast.config
        self._run_dir = plan.run_dir
        self._tokenizer = plan.cast.tokenizer
        self._curriculum = plan.curriculum
        self._guided = plan.guided
        self._imitate = plan.imitate
        self._seen_by_credit = plan.seen_by_credit
        self._on_step = plan.on_step
        self._learner = learner
        self._players = players
        self._critic = critic
        self._journal = journal
        self._journal_turn = anyio.Lock()
        self._logger = logger
        self._control = control
        self._telemetry = telemetry
        self._estimator = get_estimator(config.estimator, config.estimator_options)
        self._mix = Mix()
        self._health = Health()
        self._trained_tokens = list[TrainedTokens]()  # of the step that is being recorded

    async def go(self) -> None:
        """Train until the last step, or until an operator stops the run."""
        config, start, control, curriculum = self._config, self.progress, self._control, self._curriculum
        gate = StalenessGate(config.max_staleness, config.groups_per_batch)
        order = ConsumptionOrder(config.groups_per_batch, config.max_staleness, config.overtake)
        consumed = self._consumed_ahead()
        curriculum.begin(gate.capacity)
        finished = self._journal.load_groups(start.next_group)
        for group in finished.values():
            self._mix.dispatch(group.task)
            self._mix.finish(group)

        def dispatch(index: int) -> Task:
            task = curriculum.task_at(index)
            self._mix.dispatch(task)
            return task

        manager = RolloutManager(
            curriculum.within_limits(self._players.play),
            dispatch,
            group_size=curriculum.group_size,
            gate=gate,
            order=order,
            seed=config.seed,
            control=control,
            max_attempts=config.max_attempts,
            start_index=start.next_group,
            stop_index=self._stop_index(len(consumed)),
            consumed=consumed,
            finished=finished,
            on_group=self._make_durable,
            play_group=self._guided.play_group,
        )

        await self._players.update_weights(self._learner, start.step)
        async with anyio.create_task_group() as beside:
            beside.start_soon(serve_control, control, self._run_dir)
            async with manager:
                await self._consume(manager, order, gate)
            beside.cancel_scope.cancel()

    def bring_home(self, model: PreTrainedModel) -> None:
        """Blocking. What was learned, into `model`: engines in other processes have models of their own."""
        targets = model.state_dict()
        for name, weight in self._learner.weights().items():
            targets[name].copy_(weight)

    async def _consume(self, manager: RolloutManager, order: ConsumptionOrder, gate: StalenessGate) -> None:
        """Train on batch after batch until the last step, or until an operator stops the run."""
        config = self._config

        def drop() -> None:
            order.drop()
            self._curriculum.admit(1)
            gate.release()

        began = time.perf_counter()
        async for batch in assemble(
            manager.groups(),
            config.groups_per_batch,
            config.refills_per_batch,
            drop,
            config.min_group_members,
            self._teaches,
        ):
            wait_s = time.perf_counter() - began
            await self._train_on(batch, manager.first_unconsumed, wait_s)
            if self.progress.step >= config.steps or self._control.stopping:
                break
            order.finish_batch()
            self._curriculum.admit(batch.held)
            gate.release(batch.held)
            began = time.perf_counter()

    def _teaches(self, group: Group) -> bool:
        """Whether the group goes into the loss."""
        in_band = self._config.reward_band is None or mean_reward_within(group, *self._config.reward_band)
        if self._config.learner.distillation is not None:  # a teacher has something to say where rewards are equal
            return in_band and bool(group.valid)
        return in_band and self._estimator.has_signal(self._seen_by_credit(group))

    def _consumed_ahead(self) -> set[int]:
        """The groups that overtook others before the checkpoint that this run goes on from."""
        indices = {index for _, step_indices in self._journal.consumed() for index in step_indices}
        return {index for index in indices if index >= self.progress.next_group}

    def _stop_index(self, consumed_ahead: int) -> int | None:
        """The first group that no step needs. Unknown with refills: then the last step ends the stream."""
        config, progress = self._config, self.progress
        if config.refills_per_batch:
            return None
        return progress.next_group + consumed_ahead + (config.steps - progress.step) * config.groups_per_batch

    async def _make_durable(self, group: Group) -> None:
        async with self._journal_turn:
            await anyio.to_thread.run_sync(self._journal.append_group, group)
        self._mix.finish(group)
        if self._telemetry is not None:
            self._telemetry.export(group)

    async def _train_on(self, batch: Batch, next_group: int, rollout_wait_s: float) -> None:
        """One step: credit, learner, new weights into the engine, then the records of it."""
        _refuse_total_failure(batch)
        self._mix.consume(batch.groups)
        version = self.progress.step
        began = time.perf_counter()
        learned = await anyio.to_thread.run_sync(self._learn, batch)
        learn_s = time.perf_counter() - began
        updating = time.perf_counter()
        await self._players.update_weights(self._learner, version + 1)
        update_s = time.perf_counter() - updating
        tokens = sum(episode.sampled_tokens for group in batch.groups for episode in group.trajectories)
        self.progress = Progress(version + 1, next_group, self.progress.sampled_tokens + tokens)
        wall_s = rollout_wait_s + time.perf_counter() - began
        metrics = {
            **{f"rollout/{name}": value for name, value in batch_metrics(batch, version).items()},
            **{f"mix/{name}": value for name, value in self._mix.metrics().items()},
            **self._players.metrics(),
            **{f"curriculum/{name}": value for name, value in self._curriculum.metrics().items()},
            **{f"guidance/{name}": value for name, value in self._guided.metrics(batch.groups).items()},
            **learned,
            "time/rollout_wait_s": rollout_wait_s,
            "time/learn_s": learn_s,
            "time/update_weights_s": update_s,
            "time/sampled_tokens_per_s": tokens / wall_s,
        }
        async with self._journal_turn:
            await anyio.to_thread.run_sync(self._record, batch, metrics)
        self._health.look(self.progress.step, metrics)
        self._on_step(StepReport(self.progress.step, self._config.steps, metrics))

    def _learn(self, batch: Batch) -> dict[str, float]:
        """Blocking: values, credit, and a step of critic and policy."""
        groups, critic, metrics = [self._seen_by_credit(group) for group in batch.trained], self._critic, {}
        values = None
        if critic is not None:
            values, report = critic.assess(groups, self.progress.step)
            metrics = {f"critic/{name}": value for name, value in report.items()}
        advantages = self._estimator(groups, values)
        self._curriculum.observe(batch.groups, dict(zip([g.index for g in groups], advantages, strict=True)))
        rows = to_rows(groups, advantages, self._config.aggregation)
        if critic is not None and values is not None:
            rows = critic.prepare_rows(rows, groups, values)
        shown = [] if self._imitate is None else self._imitate(batch.groups, self.progress.step)
        if (rows or shown) and (critic is None or self.progress.step >= critic.alone_steps):
            every = self._config.trained_tokens_every
            seen = Seen() if every and (self.progress.step + 1) % every == 0 else None
            report = self._learner.step(rows, row_groups(groups), version=self.progress.step, imitated=shown, seen=seen)
            self._trained_tokens = [] if seen is None else self._trained(groups, rows, seen)
            metrics |= {f"learner/{name}": value for name, value in report.items()}
        return metrics

    def _trained(self, groups: Sequence[Group], rows: Sequence[TrainingRow], seen: Seen) -> list[TrainedTokens]:
        step, places = self.progress.step + 1, row_places(groups)
        return [
            TrainedTokens(
                *(episode.group_index, episode.member, segment, step),
                *(values_T[row.response_mask_T] for values_T in (logprobs_T, row.advantages_T, entropies_T)),
            )
            for (_, episode, segment), row, logprobs_T, entropies_T in zip(
                places, rows, seen.logprobs, seen.entropies, strict=True
            )
        ]

    def _state(self) -> dict[str, Any]:
        """What a checkpoint holds beside the journal's position and what `_export` writes. Live tensors."""
        state = {"sampled_tokens": self.progress.sampled_tokens, "curriculum": self._curriculum.state_dict()}
        return state if self._critic is None else {**state, "critic": self._critic.state_dict()}

    def _export(self, folder: Path) -> None:
        self._learner.save(folder / LEARNER)
        self._learner.save_pretrained(folder / MODEL, self._tokenizer)

    def _record(self, batch: Batch, metrics: Mapping[str, float]) -> None:
        """Blocking: journal, trackers, and a checkpoint when one is due."""
        config, progress = self._config, self.progress
        self._journal.mark_consumed(progress.step, [group.index for group in batch.groups])
        if self._trained_tokens:
            self._journal.add_trained_tokens(progress.step, self._trained_tokens)
            self._trained_tokens = []
        self._logger.log(progress.step, metrics)
        due = progress.step % config.checkpoint_every == 0
        if due or progress.step == config.steps or self._control.stopping:
            save_checkpoint(
                self._run_dir,
                self._state(),
                step=progress.step,
                next_group_index=progress.next_group,
                weight_version=progress.step,
                seed=config.seed,
                export=self._export,
                keep=config.keep_checkpoints,
            )
            self._journal.index_checkpoints(list_checkpoints(self._run_dir))


def _refuse_total_failure(batch: Batch) -> None:
    """A batch in which nothing counts is a broken set-up, not bad luck: going on would burn time and teach nothing."""
    failures = [e.failure for group in batch.groups for e in group.trajectories if e.failure is not None]
    if failures and not any(group.valid for group in batch.groups):
        raise UserError(
            f"All {len(failures)} episodes of a batch failed; the last one is the {failures[-1].owner}'s: "
            f"{failures[-1].message}. The run's store has every traceback."
        )
