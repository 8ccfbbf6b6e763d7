"""The space of all texts, which observations and actions are."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

_LONGEST = 1 << 24  # characters of a text
_SAMPLED = 64


class AnyText(gymnasium.spaces.Text):
    """Every text. Samples are short and plain, since gymnasium wants some."""

    def __init__(self, seed: int | np.random.Generator | None = None) -> None:
        super().__init__(_LONGEST, min_length=0, seed=seed)

    def contains(self, x: Any) -> bool:
        """Whether it is a text at all."""
        return isinstance(x, str)

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """A text of at most 64 letters and digits."""
        length = int(self.np_random.integers(_SAMPLED + 1))
        return "".join(self.np_random.choice(self.character_list, size=length).tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AnyText)

    def __hash__(self) -> int:
        return hash(AnyText)

    def __repr__(self) -> str:
        return "AnyText()"
