"""What the metrics of a training step say goes wrong, and what helps; told once each, as a warning.

The bounds are far from what a healthy run shows: a warning is worth a look at the run. `SYMPTOMS` has them all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_log = logging.getLogger(__name__)

MOVED_NATS = 0.1
"""From here on tokens are judged by a policy that would hardly have sampled them; PPO's early stop: about 0.015."""
MISMATCH_NATS = 0.05
"""Engines with other kernels in bf16 differ from the learner by 0.01 to 0.02."""
FAILED_SHARE = 0.25
CUT_SHARE = 0.75


@dataclass(frozen=True, slots=True)
class Symptom:
    """`shows` looks at the metrics of a step; `advice` is formatted with what it returns, after `steps` in a row."""

    shows: Callable[[Mapping[str, float]], float | None]
    advice: str
    steps: int = 1


def _other_prompt(metrics: Mapping[str, float]) -> bool:
    """Where guidance is left out, tokens are judged after another prompt than they were sampled after."""
    return "guidance/kept_in_context" in metrics


def _moved(metrics: Mapping[str, float]) -> float | None:
    nats = metrics.get("learner/approx_kl", 0.0)
    return nats if nats > MOVED_NATS and not _other_prompt(metrics) else None


def _mismatch(metrics: Mapping[str, float]) -> float | None:
    """Only where the engine had the learner's weights: with staleness the difference is the policy's own."""
    nats = metrics.get("learner/mismatch_abs", 0.0)
    stale = metrics.get("rollout/staleness_max", 0.0) > 0
    return nats if nats > MISMATCH_NATS and not stale and not _other_prompt(metrics) else None


def _skipped(metrics: Mapping[str, float]) -> float | None:
    return metrics.get("learner/skipped_steps") or None


def _failed(metrics: Mapping[str, float]) -> float | None:
    failed = metrics.get("rollout/episodes_failed", 0.0)
    share = failed / max(1.0, failed + metrics.get("rollout/episodes", 0.0))
    return share if share > FAILED_SHARE else None


def _cut(metrics: Mapping[str, float]) -> float | None:
    share = metrics.get("rollout/truncated", 0.0)
    return share if share > CUT_SHARE else None


def _nothing_learned(metrics: Mapping[str, float]) -> float | None:
    """The reward of a batch whose groups all went without signal."""
    return metrics.get("rollout/reward", 0.0) if metrics.get("rollout/groups_trained") == 0 else None


SYMPTOMS = (
    Symptom(
        _moved,
        "the policy moved {:.2f} nats per token from the one of learner.old_logprobs: lower learner.learning_rate or "
        "max_staleness, or make groups_per_batch larger.",
    ),
    Symptom(
        _mismatch,
        "the engine's log-probs are {:.2f} nats per token from the learner's, for the same weights: give both the same "
        "dtype, or set learner.old_logprobs to recompute and a learner.correction.",
    ),
    Symptom(
        _skipped,
        "{:.0f} optimizer steps were left out, their gradient was not finite: lower learner.learning_rate, or train in "
        "a dtype with more range.",
    ),
    Symptom(
        _failed,
        "{:.0%} of episodes failed and count for nothing: `agent-rl view` shows why, by their owner.",
    ),
    Symptom(
        _cut,
        "{:.0%} of episodes are still cut short by a limit: raise the environment's, or those under limits.",
        steps=20,
    ),
    Symptom(
        _nothing_learned,
        "no group of the last steps had siblings that scored differently (mean reward {:.2f}), so that there was "
        "nothing to learn: take tasks of another difficulty (`agent-rl env select`), or a larger group_size.",
        steps=5,
    ),
)


class Health:
    """Says what it sees, each symptom once."""

    def __init__(self) -> None:
        self._seen = [0] * len(SYMPTOMS)  # steps in a row

    def look(self, step: int, metrics: Mapping[str, float]) -> None:
        """At the metrics of a training step."""
        for number, symptom in enumerate(SYMPTOMS):
            if self._seen[number] == symptom.steps:
                continue  # was told
            found = symptom.shows(metrics)
            self._seen[number] = 0 if found is None else self._seen[number] + 1
            if found is not None and self._seen[number] == symptom.steps:
                _log.warning("Step %d: %s", step, symptom.advice.format(found))
