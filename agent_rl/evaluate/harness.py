"""Run a policy, or a reference agent, over held-out tasks and score it. The same rollout code as in training.

Knows how to set an evaluation up. What the scores are is in `report`, how their intervals come about in `statistics`.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import anyio
from pydantic import Field, model_validator

from agent_rl.chat.parsers import ToolParserName
from agent_rl.config import Config
from agent_rl.engine.choose import EngineConfig
from agent_rl.engine.openai import OpenAIClient
from agent_rl.errors import UserError
from agent_rl.evaluate.report import IntervalMethod, Report, summarize
from agent_rl.registry import environment_spec
from agent_rl.rollout.agent import MakeAgent, OracleAgent, random_agent
from agent_rl.rollout.context import ContextConfig, policy_agents
from agent_rl.rollout.episode import EnvironmentFactory, run_episode
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.rollout.manager import run_tasks
from agent_rl.rollout.openai import OpenAIAgent
from agent_rl.store.checkpoint import MODEL, list_checkpoints
from agent_rl.store.disk import told_when_full
from agent_rl.store.journal import Journal
from agent_rl.store.opening import create_journal
from agent_rl.store.run_folder import REPORT, open_run
from agent_rl.store.tasks import read_tasks
from agent_rl.store.url import StoreAddress
from agent_rl.tool.config import ToolsConfig
from agent_rl.tool.services import TokenEnds, tool_services
from agent_rl.types import Group, SamplingParams, Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class EvalConfig(Config):
    """Evaluate a policy on the held-out tasks of an environment."""

    free: ClassVar[tuple[str, ...]] = (
        "run_dir",
        "resume",
        "concurrency",
        "device",
        "interval",
        "success_threshold",
        "store_timeout_s",
    )
    """What may differ when a run is resumed: it does not change the episodes."""

    environment: str = Field(description="Id of a registered environment, or package.module:Name.")
    environment_options: dict[str, int | float | bool | str] = Field(
        default_factory=dict, description="Options of the environment, such as sandbox.kind docker."
    )
    agent: Literal["policy", "openai", "oracle", "random"] = Field(
        default="policy",
        description="Who acts: the model, a model behind an OpenAI-compatible endpoint, or a reference.",
    )
    model: str = Field(
        default="",
        description="Hub id, model folder, checkpoint, run folder (its latest checkpoint); or an endpoint's model.",
    )
    base_url: str = Field(
        default="https://api.openai.com/v1",
        description="The endpoint of agent=openai; its key is read from OPENAI_API_KEY.",
    )
    split: str = Field(default="test", description="Which tasks of the environment.")
    tasks: int = Field(default=100, ge=1, description="Number of tasks.")
    task_file: Path | None = Field(
        default=None,
        description="Play the first tasks of this file, such as `env select` writes, not a split's.",
    )
    samples: int = Field(default=1, ge=1, description="Episodes of each task.")
    concurrency: int = Field(default=64, ge=1, description="Episodes in flight.")
    temperature: float = Field(default=1.0, ge=0, description="Sampling temperature; 0 is greedy.")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Nucleus sampling.")
    limits: RolloutLimits = Field(
        default_factory=RolloutLimits,
        description="Limits of one episode; a model with fewer positions lowers max_context_tokens.",
    )
    engine: EngineConfig = Field(default_factory=EngineConfig, description="Where responses are sampled.")
    context: ContextConfig = Field(default_factory=ContextConfig, description="What happens to long contexts.")
    tools: ToolsConfig = Field(default_factory=ToolsConfig, description="How the environment's tools are run.")
    max_attempts: int = Field(default=3, ge=1, description="Attempts at an episode that infrastructure failures end.")
    tool_parser: ToolParserName = Field(
        default="hermes", description="Format of tool calls, by vLLM's name of the parser."
    )
    dtype: str = Field(default="float32", description="Type of the weights: float32, bfloat16 or float16.")
    device: str = Field(default="cpu", description="Where the model runs, such as cpu or cuda.")
    success_threshold: float = Field(default=1.0, description="An episode succeeds when its reward reaches this.")
    interval: IntervalMethod = Field(default="analytic", description="How intervals are computed.")
    seed: int = Field(default=0, ge=0, description="Key of every random stream, the choice of tasks included.")
    run_dir: Path | None = Field(
        default=None, description="Keep every episode and the report in this folder, to resume, compare and look at."
    )
    store: StoreAddress = Field(
        default="", description="URL of a PostgreSQL that keeps the episodes; none: store.db in run_dir."
    )
    store_timeout_s: float = Field(
        default=30.0, gt=0, description="How long the store may be locked or away before the evaluation stops."
    )
    resume: bool = Field(default=False, description="Go on in run_dir: tasks that are finished are not played again.")

    @model_validator(mode="after")
    def _only_a_policy_has_a_model(self) -> Self:
        if self.agent == "policy" and not self.model:
            raise ValueError("a policy needs a model: give a hub id or a folder, or choose agent=oracle or random.")
        if self.agent == "openai" and not self.model:
            raise ValueError("agent=openai needs a model: the name that the endpoint knows it by.")
        if self.agent in ("oracle", "random") and self.model:
            raise ValueError(f"agent={self.agent} uses no model: leave out model={self.model}, or agent.")
        if self.resume and self.run_dir is None:
            raise ValueError("resume needs the folder to go on in: name it with run_dir.")
        if self.store and self.run_dir is None:
            raise ValueError("a store needs the folder of its run: name it with run_dir.")
        return self


async def evaluate(
    environment: EnvironmentFactory,
    tasks: Sequence[Task],
    make_agent: MakeAgent,
    *,
    limits: RolloutLimits,
    samples: int = 1,
    seed: int = 0,
    concurrency: int = 64,
    max_attempts: int = 3,
    success_threshold: float = 1.0,
    interval: IntervalMethod = "analytic",
    on_group: Callable[[Group], object] = lambda group: None,
    tools: ToolsConfig | None = None,
    token_ends: TokenEnds | None = None,
    journal: Journal | None = None,
) -> Report:
    """Play `samples` episodes of every task and score them. `on_group` sees each task's episodes when they are done.

    With a `journal` each task's episodes are durable before `on_group` sees them. Those that it holds are not played
    again: `on_group` sees them first, and they are scored like the others (`wall_s` is that of this call).
    `token_ends`, such as a codec's `ends`, measures tool outputs where they are limited in tokens.

    Episodes that end in an infrastructure failure are tried `max_attempts` times, then excluded and counted, never
    scored as 0. The same seed plays the same episodes on a deterministic engine, for any concurrency.
    """

    journal_turn = anyio.Lock()

    async def keep(group: Group) -> None:
        if journal is not None:
            async with journal_turn:
                await anyio.to_thread.run_sync(journal.append_group, group)
        on_group(group)

    finished = {} if journal is None else await anyio.to_thread.run_sync(journal.load_groups)
    _check_same(finished, tasks)
    for group in finished.values():
        on_group(group)
    began = time.perf_counter()
    async with tool_services(tools or ToolsConfig(), token_ends) as lent:
        groups = await run_tasks(
            partial(run_episode, environment, make_agent, limits=limits),
            tasks,
            group_size=samples,
            seed=seed,
            max_concurrent_episodes=concurrency,
            max_attempts=max_attempts,
            finished=finished,
            on_group=keep,
        )
    wall_s = time.perf_counter() - began
    report = summarize(groups, wall_s=wall_s, success_threshold=success_threshold, interval=interval)
    return replace(report, tool_metrics=lent.cache.metrics() if lent.cache else {})


def run(config: EvalConfig, on_group: Callable[[Group], object] = lambda group: None) -> Report:
    """What `agent-rl eval` does: find the environment, load the model, evaluate, keep what was asked for.

    Raises `UserError` for an unknown environment, split or option, and for a model that cannot be used.
    """
    if config.run_dir is None:
        return anyio.run(play, config, on_group)
    with (
        open_run(config, "eval", config.run_dir, resume=config.resume, free=config.free) as folder,
        told_when_full(folder),
        create_journal(folder, store=config.store, config=config, timeout_s=config.store_timeout_s) as journal,
    ):
        journal.set_aside_damaged(folder)
        report = anyio.run(play, config, on_group, journal)
        (folder / REPORT).write_text(json.dumps(report.to_json(), indent=2) + "\n", encoding="utf-8")
    return report


def _check_same(finished: Mapping[int, Group], tasks: Sequence[Task]) -> None:
    for index, group in finished.items():
        if index >= len(tasks) or group.task.id != tasks[index].id:
            raise UserError(
                f"Task {group.task.id!r} of the folder is not among those to play: the environment's tasks have "
                "changed. Evaluate in a new folder."
            )


async def play(config: EvalConfig, on_group: Callable[[Group], object], journal: Journal | None = None) -> Report:
    """`evaluate` with everything that the config names. Raises `UserError` like `run`."""
    environment = environment_spec(config.environment, config.environment_options)
    if config.task_file is not None:
        tasks = read_tasks(config.task_file)[: config.tasks]
    else:
        tasks = environment.tasks(config.split, config.tasks, config.seed)
    async with _actor(config) as (make_agent, limits, token_ends):
        return await evaluate(
            environment,
            tasks,
            make_agent,
            limits=limits,
            samples=config.samples,
            seed=config.seed,
            concurrency=config.concurrency,
            max_attempts=config.max_attempts,
            success_threshold=config.success_threshold,
            interval=config.interval,
            on_group=on_group,
            tools=config.tools,
            token_ends=token_ends,
            journal=journal,
        )


@asynccontextmanager
async def _actor(config: EvalConfig) -> AsyncGenerator[tuple[MakeAgent, RolloutLimits, TokenEnds | None], None]:
    """Who acts, the limits that fit it, its measure of tokens if it has one; holds the engine while it is open."""
    if config.agent == "oracle":
        yield lambda environment, _: OracleAgent(environment), config.limits, None
    elif config.agent == "random":
        yield random_agent, config.limits, None
    elif config.agent == "openai":
        sampling = SamplingParams(temperature=config.temperature, top_p=config.top_p)
        async with OpenAIClient(config.model, config.base_url, max_concurrency=config.concurrency) as client:
            yield lambda _, key: OpenAIAgent(client, sampling, key), config.limits, None
    else:
        from agent_rl.chat.codec import ChatCodec
        from agent_rl.engine.choose import open_engine
        from agent_rl.learner.policy import load_policy

        model, tokenizer = load_policy(model_source(config.model), dtype=config.dtype, device=config.device)
        codec = ChatCodec(tokenizer, config.tool_parser)
        limits = _fitted(config.limits, model)
        sampling = SamplingParams(temperature=config.temperature, top_p=config.top_p)
        with tempfile.TemporaryDirectory(prefix="agent-rl-") as folder:
            async with open_engine(
                config.engine,
                model,
                tokenizer,
                codec.encode_rendered,
                folder=Path(folder),
                max_batch=config.concurrency,
                max_context=limits.max_context_tokens,
            ) as engine:
                yield policy_agents(engine, codec, sampling, config.context), limits, codec.ends


def _fitted(limits: RolloutLimits, model: PreTrainedModel) -> RolloutLimits:
    config: Any = model.config
    positions: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    context = min(limits.max_context_tokens, positions or limits.max_context_tokens)
    response = min(limits.max_response_tokens, context - 1)
    return limits.model_copy(update={"max_context_tokens": context, "max_response_tokens": response})


def model_source(source: str) -> str:
    """What to load the model from: a checkpoint stands for the model in it, a run folder for its latest checkpoint."""
    folder = Path(source)
    if checkpoints := list_checkpoints(folder):
        folder = checkpoints[-1].path
    return str(folder / MODEL) if (folder / MODEL).is_dir() else source
