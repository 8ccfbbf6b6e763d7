"""What a template makes, and the checks that it may ask for (`check.py` carries them out)."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

HOME = "/app"
Check: TypeAlias = dict[str, Any]
Files: TypeAlias = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Draft:
    """A task. `files` and `setup`, a script run there, make its folder; `solution` is a script that runs there too."""

    instruction: str
    checks: Sequence[Check]
    solution: str
    files: Files = field(default_factory=dict[str, str])
    setup: str = ""


WORDS = (
    "amber anchor apple arrow aspen badge basin beacon birch blaze bloom bolt bronze brook cabin candle canyon cedar "
    "chalk cherry cliff cloud clover cobalt copper coral crane creek crown delta desert dune eagle ember falcon fern "
    "field flint forest frost garden garnet glacier granite grove harbor hazel heron hollow indigo iris island ivory "
    "jade juniper kestrel lagoon lantern larch laurel lemon lily linen lotus lunar maple marble meadow mesa mint "
    "mirror moss nectar oak oasis ocean olive onyx opal orchid otter pearl pebble pepper pine plum pond poplar prairie "
    "quartz quill rain raven reef ridge river robin rose ruby saffron sage sand sapphire shadow shell sierra silver "
    "slate snow spark spruce star stone storm summit sun swan thistle thunder tide timber topaz trail tulip valley "
    "velvet violet walnut water willow wind winter wolf wren zephyr"
).split()


class Dice:
    """Chance, with the draws that templates need."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def number(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return self._random.randint(low, high)

    def one(self, *things: Any) -> Any:
        """One of these."""
        return self._random.choice(things)

    def some(self, things: Sequence[Any], count: int) -> list[Any]:
        """`count` different ones, in an order of chance."""
        return self._random.sample(things, min(count, len(things)))

    def words(self, count: int) -> list[str]:
        """Different words."""
        return self.some(WORDS, count)

    def text(self, lines: int) -> str:
        """Lines of words."""
        return "".join(f"{' '.join(self.words(self.number(2, 7)))}\n" for _ in range(lines))


def sha256(text: str) -> str:
    """Of a text's bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


def same_text(path: str, text: str, *, in_order: bool = True) -> Check:
    """The file has this text."""
    return {"kind": "text", "name": f"{path} is right", "path": f"{HOME}/{path}", "text": text, "sorted": not in_order}


def same_value(path: str, value: object) -> Check:
    """The file has this JSON."""
    return {"kind": "value", "name": f"{path} is right", "path": f"{HOME}/{path}", "value": value}


def untouched(files: Files, *paths: str) -> list[Check]:
    """These files (all of them, if none is named) are as they were."""
    chosen = paths or tuple(files)
    return [
        {"kind": "content", "name": f"{path} is as it was", "path": f"{HOME}/{path}", "sha256": sha256(files[path])}
        for path in chosen
    ]


def prints(name: str, command: Sequence[str], output: str, **more: object) -> Check:
    """The command prints this."""
    return {"kind": "runs", "name": name, "command": list(command), "folder": HOME, "output": output, **more}
