"""Learning-rate schedules: pure functions of the number of optimizer steps taken."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

Schedule: TypeAlias = Literal["constant", "linear", "cosine"]


def lr_factor(step: int, schedule: Schedule, warmup_steps: int, total_steps: int | None) -> float:
    """The share of the peak learning rate at optimizer step `step` (from 0).

    Rises linearly over `warmup_steps`, then stays (`constant`) or falls to 0 at `total_steps` (`linear`, `cosine`).
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if schedule == "constant" or total_steps is None:
        return 1.0
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return 1.0 - progress if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
