"""One request while it runs: what was sampled so far, and when it ends. Knows nothing of batches or rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import anyio
import numpy as np

from agent_rl.engine.base import GenerationRequest
from agent_rl.engine.local.sampling import uniforms
from agent_rl.types import FinishReason, Generation

Decode = Callable[[Sequence[int]], str]


@dataclass(slots=True, eq=False)
class Job:
    """A request, its response so far, and the event that is set when it has ended (`finish` is then set)."""

    request: GenerationRequest
    limit: int
    decode: Decode | None = None
    done: anyio.Event = field(default_factory=anyio.Event)
    tokens: list[int] = field(default_factory=list[int])
    logprobs: list[float] = field(default_factory=list[float])
    versions: list[int] = field(default_factory=list[int])
    finish: FinishReason | None = None
    uniforms: Iterator[float] = field(init=False)

    def __post_init__(self) -> None:
        self.uniforms = uniforms(self.request.seed)

    def accept(self, token: int, logprob: float, version: int) -> bool:
        """Append a sampled token; true when the response ends with it."""
        self.tokens.append(token)
        self.logprobs.append(logprob)
        self.versions.append(version)
        sampling = self.request.sampling
        if token in sampling.stop_token_ids or (sampling.stop and self._stop_string()):
            self.finish = FinishReason.STOP
        elif len(self.tokens) >= self.limit:
            self.finish = FinishReason.LENGTH
        return self.finish is not None

    def _stop_string(self) -> bool:
        """Whether the text just completed a stop string. Only the tail that can hold one is decoded."""
        assert self.decode is not None
        stop = self.request.sampling.stop
        # A character takes at most 4 byte-level tokens; one more character covers a cut at the left edge.
        tail = 4 * (max(map(len, stop)) + 1)
        text = self.decode(self.tokens[-tail:])
        return any(string in text for string in stop)

    def generation(self) -> Generation:
        """What an ended job has sampled."""
        assert self.finish is not None
        return Generation(
            token_ids_R=np.asarray(self.tokens, dtype=np.int32),
            logprobs_R=np.asarray(self.logprobs, dtype=np.float32),
            weight_versions_R=np.asarray(self.versions, dtype=np.int32),
            finish_reason=self.finish,
        )
