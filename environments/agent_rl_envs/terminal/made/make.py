"""Tasks out of templates: drawn by number, each in one split for good, written as directories of Harbor."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from agent_rl.errors import not_found
from agent_rl.seeding import derive_seed, stream
from agent_rl_envs.cache import Cache, key_of
from agent_rl_envs.terminal.made import check
from agent_rl_envs.terminal.made.draft import HOME, Dice, Draft
from agent_rl_envs.terminal.made.templates import NEEDS, TEMPLATES

_TEST_SHARE = 8  # one of so many tasks is for the test split
_NUMBERS = 2**31
_TRIES = 1000
_SYSTEM_PATH = "/usr/bin:/bin"
_DOCKERFILE = f"""FROM python:3.12-bookworm
WORKDIR {HOME}
"""
_COPY = f"COPY files/ {HOME}/\n"
_SETUP = "COPY setup.sh /tmp/setup.sh\nRUN bash /tmp/setup.sh && rm /tmp/setup.sh\n"
_TEST = """#!/bin/bash
mkdir -p /logs/verifier
/usr/bin/env python3 -I /tests/check.py /tests/expected.json /logs/verifier
"""
_CONFIG = """schema_version = "1.1"

[metadata]
author_name = "agent-rl"
difficulty = "easy"
category = "{template}"

[verifier]
timeout_sec = 120.0

[agent]
timeout_sec = 600.0

[environment]
build_timeout_sec = 600.0
cpus = 1
memory_mb = 512
storage_mb = 256
allow_internet = false
"""


@dataclass(frozen=True, slots=True)
class Made:
    """A task that is made up."""

    template: str
    split: str
    number: int
    draft: Draft

    @property
    def id(self) -> str:
        """Its name among all."""
        return f"terminal/{self.split}/{self.template}-{self.number}"

    @property
    def instruction(self) -> str:
        """What the agent is asked."""
        return self.draft.instruction

    def files(self) -> dict[str, str]:
        """The directory of Harbor, by path."""
        draft = self.draft
        dockerfile = _DOCKERFILE + (_COPY if draft.files else "") + (_SETUP if draft.setup else "")
        world = {f"environment/files/{path}": text for path, text in draft.files.items()}
        setup = {"environment/setup.sh": f"set -e\ncd {HOME}\n{draft.setup}"} if draft.setup else {}
        return {
            "instruction.md": f"{draft.instruction}\n",
            "task.toml": _CONFIG.format(template=self.template),
            "environment/Dockerfile": dockerfile,
            **world,
            **setup,
            "tests/test.sh": _TEST,
            "tests/check.py": Path(check.__file__).read_text("utf-8"),
            "tests/expected.json": json.dumps(list(draft.checks), indent=1, ensure_ascii=False),
            "solution/solve.sh": f"#!/bin/bash\nset -e\ncd {HOME}\n{draft.solution}",
        }


def make_tasks(split: str, count: int, seed: int) -> list[Made]:
    """`count` different tasks, of each template as many. Templates whose programs are not here are left out."""
    names = [name for name in TEMPLATES if all(shutil.which(tool, path=_SYSTEM_PATH) for tool in NEEDS.get(name, ()))]
    rng = stream("terminal made", split, seed)
    order = [names[int(index)] for index in rng.permutation(len(names))]
    numbers = rng.choice(_NUMBERS, size=count, replace=False)
    return [find_made(order[index % len(order)], split, int(number)) for index, number in enumerate(numbers)]


def find_made(template: str, split: str, number: int) -> Made:
    """The task of that number. What it asks decides the split it may be in."""
    if template not in TEMPLATES:
        raise not_found("template", template, TEMPLATES)
    for attempt in range(_TRIES):
        draft = TEMPLATES[template](Dice(derive_seed("terminal draft", template, split, number, attempt)))
        if is_test(draft) == (split == "test"):
            return Made(template, split, number, draft)
    raise AssertionError(f"{template} makes no tasks for {split}")


def is_test(draft: Draft) -> bool:
    """Whether a task belongs to the test split: by what it asks and gives alone."""
    return derive_seed("terminal made", draft.instruction, *draft.files.values(), draft.setup) % _TEST_SHARE == 0


def write_folder(made: Made, folder: Path) -> None:
    """Write its directory. Blocks."""
    for name, text in made.files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        path.chmod(0o755 if name.endswith(".sh") else 0o644)


def write_task(made: Made, root: Path, timeout_s: float) -> Path:
    """The task's folder below `root`, written if it is not there. Blocks."""
    key = key_of(*(part for pair in sorted(made.files().items()) for part in pair))
    return Cache(root, timeout_s).moved("made", key, lambda part: write_folder(made, part))
