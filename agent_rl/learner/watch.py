"""What the loss saw of each token when a step saw it first, without another forward pass. For people to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from agent_rl.learner.loss_result import LossResult
from agent_rl.learner.objective import Objective
from agent_rl.learner.tensors import PackedTensors, TrainedTokens
from agent_rl.types import FloatArray, TrainingRow


@dataclass(slots=True, eq=False)
class Seen:
    """The policy's log-probs and entropies (nats), an array `_T` for each row: NaN on tokens without weight.

    They are those of the first optimizer step that a row takes part in.
    """

    logprobs: list[FloatArray] = field(default_factory=list[FloatArray])
    entropies: list[FloatArray] = field(default_factory=list[FloatArray])


class Watch:
    """Looks over the shoulder of the objective while one minibatch of `rows` is differentiated."""

    def __init__(self, rows: Sequence[TrainingRow]) -> None:
        self.rows = rows
        self._spans = list[tuple[torch.Tensor, torch.Tensor]]()
        self._found = [np.full((2, len(row.token_ids_T)), np.nan, np.float32) for row in rows]

    def over(self, objective: Objective) -> Objective:
        """The same objective, observed, for one batch."""
        self._spans.clear()
        return _Watched(objective, self._spans)

    def take(self, batch: PackedTensors) -> None:
        """Keep what was observed of the batch."""
        if not batch.trained.weights_K.any():  # another rank's batch, repeated to keep this one in step
            return
        seen_2K = torch.stack([torch.cat(values) for values in zip(*self._spans, strict=True)]).float().cpu().numpy()
        documents_K = batch.trained.documents_K.cpu().numpy()
        bounds = np.searchsorted(documents_K, np.arange(1, len(batch.rows_D)))
        for row, part_2K in zip(batch.rows_D, np.split(seen_2K, bounds, axis=1), strict=True):
            self._found[row][:, self.rows[row].weights_T != 0] = part_2K

    def found(self) -> list[FloatArray]:
        """Log-probs and entropies of each row, shape (2, T)."""
        return self._found


def gather(
    rows: Sequence[TrainingRow], watches: Sequence[Watch], total: Callable[[FloatArray], FloatArray] | None
) -> Seen:
    """What was seen of `rows`, dealt to minibatches in any order. `total` sums over ranks, each of which saw a part."""
    of_row = {id(row): found for watch in watches for row, found in zip(watch.rows, watch.found(), strict=True)}
    found = [of_row[id(row)] for row in rows]
    if total is not None:
        flat_2N = total(np.nan_to_num(np.concatenate(found, axis=1)))
        flat_2N[:, np.concatenate([row.weights_T for row in rows]) == 0] = np.nan
        found = np.split(flat_2N, np.cumsum([len(row.token_ids_T) for row in rows])[:-1], axis=1)
    return Seen([one[0] for one in found], [one[1] for one in found])


class _Watched:
    def __init__(self, objective: Objective, spans: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        self._objective, self._spans = objective, spans
        self.whole_rows, self.whole_vocabulary = objective.whole_rows, objective.whole_vocabulary

    def __call__(self, tokens: TrainedTokens, logprobs: torch.Tensor, entropy: torch.Tensor) -> LossResult:
        self._spans.append((logprobs.detach(), entropy.detach()))
        return self._objective(tokens, logprobs, entropy)

    def of_distributions(self, tokens: TrainedTokens, logprobs_KV: torch.Tensor) -> LossResult:
        return self._objective.of_distributions(tokens, logprobs_KV)
