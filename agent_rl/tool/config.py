"""What a run may say about all tools of its episodes."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import Field

from agent_rl.config import Config

Cached: TypeAlias = Literal["off", "pure", "read_only"]


class ToolsConfig(Config):
    """How the tools of a run are run.

    Results of pure tools are cached unless told otherwise: to declare a tool pure is to promise that it makes no
    difference. That read-only tools depend on nothing but `state_key()` nobody promised yet, so it is asked for.
    """

    cache: Cached = Field(
        default="pure",
        description="Whose results are kept: pure tools', also read-only ones' among siblings in one state, or none.",
    )
    cache_mb: int = Field(default=64, ge=1, description="Memory for kept results, in MiB.")
    max_output_tokens: int | None = Field(
        default=None, ge=1, description="Tokens of one tool output that the model reads; none: as each tool declares."
    )
