"""How the episodes of a run were played, as its folder says: of an evaluation, a recipe, or a training of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from agent_rl.config import Config, build, read_values
from agent_rl.rollout.context import ContextConfig
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.store.run_folder import CONFIG_FILE
from agent_rl.tool.config import ToolsConfig
from agent_rl.types import SamplingParams

C = TypeVar("C", bound=Config)


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What a run's config has of this. `model` is what an evaluation loaded; training has checkpoints."""

    limits: RolloutLimits
    tools: ToolsConfig
    context: ContextConfig
    sampling: SamplingParams
    tool_parser: Any
    environment: str
    environment_options: Mapping[str, Any]
    agent: str
    model: str
    dtype: str
    max_batch: int
    threads: int


def read_settings(run_dir: Path) -> RunSettings:
    """From `config.json`; without one (`train` was called from Python), all have their defaults."""
    path = run_dir / CONFIG_FILE
    values = read_values(path) if path.is_file() else {}

    def part(kind: type[C], name: str) -> C:
        return build(kind, cast("dict[str, Any]", values.get(name, {})), where=f", {name} in {path}")

    return RunSettings(
        limits=part(RolloutLimits, "limits"),
        tools=part(ToolsConfig, "tools"),
        context=part(ContextConfig, "context"),
        sampling=SamplingParams(temperature=values.get("temperature", 1.0), top_p=values.get("top_p", 1.0)),
        tool_parser=values.get("tool_parser", "hermes"),
        environment=values.get("environment", ""),
        environment_options=values.get("environment_options", {}),
        agent=values.get("agent", "policy"),
        model=values.get("model") or "",
        dtype=values.get("dtype", "float32"),
        max_batch=values.get("max_concurrent_episodes", values.get("concurrency", 1)),
        threads=values.get("threads", 1),
    )
