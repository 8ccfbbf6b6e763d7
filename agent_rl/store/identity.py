"""`RUN/run.json`: which run of which store a folder belongs to. Written before the first episode, and atomically."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from agent_rl.errors import UserError

RUN_FILE = "run.json"


@dataclass(frozen=True, slots=True)
class Identity:
    """`store` is a URL without password, empty for SQLite in the folder. `opened` counts up among the runs beside it:
    the latest one is that with the highest number, whatever the clock said.
    """

    id: str
    store: str = ""
    opened: int = 0


def read_identity(run_dir: Path) -> Identity | None:
    """`None` where no run has begun. Raises `UserError` when the file is damaged."""
    path = run_dir / RUN_FILE
    try:
        return Identity(**json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): restore it, it names the run and its store.") from error


def write_identity(run_dir: Path, identity: Identity) -> None:
    """Replaces the file."""
    unfinished = run_dir / f"{RUN_FILE}.part"
    unfinished.write_text(json.dumps(dataclasses.asdict(identity), indent=1) + "\n", encoding="utf-8")
    unfinished.replace(run_dir / RUN_FILE)
