"""What a training loop asks of a learner, wherever that is: `Learner` here, or one in other processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from agent_rl.errors import UserError
from agent_rl.types import FloatArray, IntArray, TrainingRow

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from agent_rl.learner.watch import Seen


class LearnerLost(UserError):
    """A process of the learner has ended: the run can go on from its last checkpoint, with another learner."""


class PolicyLearner(Protocol):
    """Training rows in, new weights out; `Learner` has the words."""

    @property
    def has_values(self) -> bool:
        """Whether a value head learns on the policy."""
        ...

    def step(
        self,
        rows: Sequence[TrainingRow],
        groups: Sequence[int] | None = None,
        *,
        version: int | None = None,
        imitated: Sequence[TrainingRow] = (),
        seen: Seen | None = None,
    ) -> dict[str, float]:
        """See `Learner.step`."""
        ...

    def values(self, rows: Sequence[IntArray]) -> list[FloatArray]:
        """See `Learner.values`."""
        ...

    def logprobs(self, rows: Sequence[TrainingRow]) -> list[FloatArray]:
        """See `Learner.logprobs`."""
        ...

    def weights(self) -> Mapping[str, torch.Tensor]:
        """See `Learner.weights`."""
        ...

    def save(self, folder: Path) -> None:
        """See `Learner.save`."""
        ...

    def load(self, folder: Path) -> None:
        """See `Learner.load`."""
        ...

    def save_pretrained(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """See `Learner.save_pretrained`."""
        ...
