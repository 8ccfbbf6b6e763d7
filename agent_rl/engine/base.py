"""What every inference engine offers: token ids in; ids, log-probs and weight version out. No text, no messages."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from agent_rl.frozen import record
from agent_rl.types import Generation, IntArray, SamplingParams

if TYPE_CHECKING:
    import torch


@record(eq=False)
class GenerationRequest:
    """Continue `prompt_ids_T`, the whole context of one episode so far.

    Requests of one `session` (an episode) share their cache: an engine keeps it between turns and computes only the
    part of the prompt that is new, as long as the earlier prompt and its response are a prefix. `seed` keys the random
    stream of this response alone, so that the sample does not depend on what else runs.
    """

    session: str
    prompt_ids_T: IntArray
    sampling: SamplingParams
    seed: int


class Engine(Protocol):
    """An inference engine, used as `async with engine:`."""

    @property
    def weight_version(self) -> int:
        """Version of the weights that the next token is sampled with."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> bool | None: ...

    async def generate(self, request: GenerationRequest) -> Generation:
        """Sample one response. When cancelled, the engine stops working on it at once and frees what it held.

        Raises `ProviderFailure` when an external server fails, `ConfigError` when the prompt cannot fit the model.
        """
        ...

    async def abort(self, session: str) -> None:
        """End a running request of `session`: its `generate` returns what was sampled, with reason `abort`."""
        ...

    async def release(self, session: str) -> None:
        """Forget the session and free its cache. Unknown sessions are fine."""
        ...

    async def update_weights(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """Swap weights between two steps, without draining: running requests go on with the new version."""
        ...
