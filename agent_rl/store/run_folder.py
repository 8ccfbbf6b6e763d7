"""The folder of one run.

`config.json`, and in `defaults.json` what it would be if nothing had been said; `metrics.jsonl`, `checkpoints/`, at the
end `report.json`; `store.db`, unless the store is elsewhere;
`run.json`, which says where and which run of it this is; `lock`, which has one owner; `outcome.json`, how it ended.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from agent_rl.config import Config, check_same_config, dump_config, dump_defaults, load_config
from agent_rl.errors import ConfigError
from agent_rl.store.identity import Identity, read_identity, write_identity
from agent_rl.store.lock import LOCK, owned
from agent_rl.store.outcome import outcome_recorded

CONFIG_FILE = "config.json"
DEFAULTS_FILE = "defaults.json"
REPORT = "report.json"


@contextmanager
def open_run(
    config: Config,
    name: str,
    run_dir: Path | None,
    *,
    resume: bool,
    free: Collection[str] = (),
    root: Path | None = None,
) -> Generator[Path]:
    """Create the run's folder, or find the one to resume, and own it while the block runs.

    Without `run_dir` a new run gets `runs/<name>-<time>`, and a resumed one is that of this name which was opened last.
    `free` are the fields that may differ on resume. Raises `ConfigError` when a folder is missing, used, or of another
    config, `UserError` when another process owns it.
    """
    root = root or Path("runs")
    if resume:
        folder = run_dir or _latest(root, name)
        if not (folder / CONFIG_FILE).is_file():
            raise ConfigError(f"There is no run to resume in {str(folder)!r}: it has no {CONFIG_FILE}.")
    else:
        folder = run_dir or root / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
        _check_unused(folder)
        folder.mkdir(parents=True, exist_ok=True)
    with owned(folder):
        if resume:
            check_same_config(load_config(type(config), folder / CONFIG_FILE), config, free=free)
        else:
            _check_unused(folder)
        dump_config(config, folder / CONFIG_FILE)  # first: from here on, the run can be resumed
        dump_defaults(type(config), folder / DEFAULTS_FILE)
        identity = read_identity(folder) or Identity(uuid.uuid4().hex)
        latest = max((_opened(path) for path in folder.parent.iterdir()), default=0)
        write_identity(folder, replace(identity, opened=latest + 1))
        with outcome_recorded(folder):
            yield folder


def _check_unused(folder: Path) -> None:
    """A run that was killed before it had written its config has left nothing."""
    nothing = (LOCK, f"{CONFIG_FILE}.part")
    if folder.exists() and (not folder.is_dir() or any(path.name not in nothing for path in folder.iterdir())):
        raise ConfigError(f"The run folder {str(folder)!r} is not empty: add --resume, or name another one.")


def _latest(root: Path, name: str) -> Path:
    folders = [path for path in root.glob(f"{name}-*") if (path / CONFIG_FILE).is_file()]
    if not folders:
        raise ConfigError(f"There is no run of {name!r} to resume under {str(root)!r}: name one with --run-dir.")
    return max(folders, key=lambda path: (_opened(path), path.name))


def _opened(folder: Path) -> int:
    identity = read_identity(folder) if folder.is_dir() else None
    return identity.opened if identity is not None else 0
