"""The folder of one run: `config.json`, `metrics.jsonl`, `store.db`, `checkpoints/`, and at the end `report.json`."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path

from agent_rl.config import Config, check_same_config, dump_config, load_config
from agent_rl.errors import ConfigError

CONFIG_FILE = "config.json"
REPORT = "report.json"


def open_run(
    config: Config,
    name: str,
    run_dir: Path | None,
    *,
    resume: bool,
    free: Collection[str] = (),
    root: Path | None = None,
) -> Path:
    """Create the run's folder, or find the one to resume, and return it.

    Without `run_dir` a new run gets `runs/<name>-<time>`, and a resumed one is the latest of that name. `free` are the
    fields that may differ on resume. Raises `ConfigError` when a folder is in use, missing, or of another config.
    """
    root = root or Path("runs")
    if resume:
        folder = run_dir or _latest(root, name)
        if not (folder / CONFIG_FILE).is_file():
            raise ConfigError(f"There is no run to resume in {str(folder)!r}: it has no {CONFIG_FILE}.")
        check_same_config(load_config(type(config), folder / CONFIG_FILE), config, free=free)
    else:
        folder = run_dir or root / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"The run folder {str(folder)!r} is not empty: add --resume, or name another one.")
        folder.mkdir(parents=True, exist_ok=True)
    dump_config(config, folder / CONFIG_FILE)
    return folder


def _latest(root: Path, name: str) -> Path:
    folders = [path for path in root.glob(f"{name}-*") if (path / CONFIG_FILE).is_file()]
    if not folders:
        raise ConfigError(f"There is no run of {name!r} to resume under {str(root)!r}: name one with --run-dir.")
    return max(folders, key=lambda path: (path / CONFIG_FILE).stat().st_mtime)
