"""What an evaluation can be told: who plays, and what is played. Knows the fields and how they fit together."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from agent_rl.chat.parsers import ToolParserName
from agent_rl.config import Config, field_paths
from agent_rl.engine.choose import EngineConfig
from agent_rl.evaluate.budget import Budget
from agent_rl.evaluate.report import IntervalMethod
from agent_rl.rollout.context import ContextConfig
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.store.url import StoreAddress
from agent_rl.tool.config import ToolsConfig


class ActorConfig(Config):
    """Who plays, where it runs, and where the result goes."""

    free: ClassVar[tuple[str, ...]] = (
        *("run_dir", "resume", "concurrency", "device", "interval", "success_threshold", "store_timeout_s"),
        *(f"budget.{name}" for name in field_paths(Budget)),
    )
    """What may differ when a run is resumed: it does not change the episodes."""

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
    concurrency: int = Field(default=64, ge=1, description="Episodes in flight.")
    temperature: float = Field(default=1.0, ge=0, description="Sampling temperature; 0 is greedy.")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Nucleus sampling.")
    engine: EngineConfig = Field(default_factory=EngineConfig, description="Where responses are sampled.")
    context: ContextConfig = Field(default_factory=ContextConfig, description="What happens to long contexts.")
    tools: ToolsConfig = Field(default_factory=ToolsConfig, description="How the environment's tools are run.")
    max_attempts: int = Field(default=3, ge=1, description="Attempts at an episode that infrastructure failures end.")
    tool_parser: ToolParserName = Field(
        default="hermes", description="Format of tool calls, by vLLM's name of the parser."
    )
    dtype: str = Field(default="float32", description="Type of the weights: float32, bfloat16 or float16.")
    device: str = Field(default="cpu", description="Where the model runs, such as cpu or cuda.")
    interval: IntervalMethod = Field(default="analytic", description="How intervals are computed.")
    seed: int = Field(default=0, ge=0, description="Key of every random stream, the choice of tasks included.")
    budget: Budget = Field(default_factory=Budget, description="What the evaluation may use up.")
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
        if self.agent in ("oracle", "random") and self.budget.needs_usage:
            raise ValueError(f"agent={self.agent} uses no tokens: only budget.seconds can limit it.")
        if self.resume and self.run_dir is None:
            raise ValueError("resume needs the folder to go on in: name it with run_dir.")
        if self.store and self.run_dir is None:
            raise ValueError("a store needs the folder of its run: name it with run_dir.")
        return self


class TasksConfig(Config):
    """What is played, and when it counts as solved."""

    environment: str = Field(description="Id of a registered environment, or package.module:Name.")
    environment_options: dict[str, int | float | bool | str] = Field(
        default_factory=dict, description="Options of the environment, such as sandbox.kind docker."
    )
    split: str = Field(default="test", description="Which tasks of the environment.")
    tasks: int = Field(default=100, ge=1, description="Number of tasks.")
    task_file: Path | None = Field(
        default=None,
        description="Play the first tasks of this file, such as `env select` writes, not a split's.",
    )
    samples: int = Field(default=1, ge=1, description="Episodes of each task.")
    limits: RolloutLimits = Field(
        default_factory=RolloutLimits,
        description="Limits of one episode; a model with fewer positions lowers max_context_tokens.",
    )
    success_threshold: float = Field(default=1.0, description="An episode succeeds when its reward reaches this.")


class EvalConfig(ActorConfig, TasksConfig):
    """Evaluate a policy on the held-out tasks of an environment."""
