"""What a run is, from its folder: kind, status, progress, settings, evaluations, checkpoints, metrics."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent_rl.store.checkpoint import list_checkpoints
from agent_rl.store.journal import Journal
from agent_rl.store.lock import LOCK
from agent_rl.store.metrics import JSONL
from agent_rl.store.outcome import read_outcome
from agent_rl.store.run_folder import CONFIG_FILE, DEFAULTS_FILE, REPORT
from agent_rl.view import queries
from agent_rl.view.reading import RunFolder, changed_at, read_json

_QUIET_S = 300.0  # a run on another machine that wrote nothing for so long has ended
_OWNER = re.compile(r"process (?P<process>\d{1,9}) on (?P<host>.+)")  # what `lock.this_process` says
_STEP = re.compile(r'\{"step": (\d+)')


def summary(run: RunFolder, journal: Journal | None) -> dict[str, Any]:
    """A line of the list of runs. `step` of `steps`: training steps, or the tasks of an evaluation."""
    config = read_json(run.path / CONFIG_FILE)
    found = _nothing() if journal is None else queries.totals(journal)
    kind = "eval" if "samples" in config else "train"
    step = found["groups"] if kind == "eval" else last_step(run.path)
    steps = config.get("tasks" if kind == "eval" else "steps")
    status, reason = _status(run.path, step, steps)
    return found | {
        "id": run.id,
        "path": str(run.path),
        "kind": kind,
        "environment": config.get("environment") or found["environment"] or "",
        "status": status,
        "reason": reason,
        "step": step,
        "steps": steps,
        "changed_at": changed_at(run.path),
    }


def overview(run: RunFolder, journal: Journal | None) -> dict[str, Any]:
    """All that the page of a run shows but its metrics and settings."""
    found = summary(run, journal)
    stored = [] if journal is None else [_evaluation(*entry) for entry in queries.evaluations(journal)]
    reports = read_json(run.path / REPORT)
    if "overall" in reports:
        stored.append(_evaluation("evaluation", None, reports))
    stored += [_evaluation(name, None, report) for name, report in reports.get("evaluations", {}).items()]
    return found | {
        "note": "" if journal else "No group of episodes is finished yet.",
        "evaluations": stored,
        "failures": [] if journal is None else queries.failures(journal),
        "checkpoints": _checkpoints(run.path),
    }


def threshold(run: RunFolder) -> float:
    """The reward from which an episode is a success."""
    return float(read_json(run.path / CONFIG_FILE).get("success_threshold", 1.0))


def _nothing() -> dict[str, Any]:
    return {"episodes": 0, "groups": 0, "reward": None, "sampled_tokens": 0, "began_at": None} | {
        "environment": None,
        "environments": 0,
    }


def _status(folder: Path, step: int, steps: int | None) -> tuple[str, str]:
    """`running`, `finished`, `stopped` or `failed`, and why in one sentence, where there is something to say.

    What ended in peace is finished at its last step or with a report. Who left no word was killed.
    """
    lock, report, outcome = folder / LOCK, folder / REPORT, read_outcome(folder)
    done = report.is_file() or (steps is not None and step >= steps)
    if outcome is not None:
        peaceful = "finished" if done else "stopped"
        return {"ended": peaceful, "interrupted": "stopped", "failed": "failed"}[outcome.end], outcome.reason
    if not lock.is_file() or (report.is_file() and report.stat().st_mtime >= lock.stat().st_mtime):
        return ("finished" if done else "stopped"), ""
    if _owner_lives(lock):
        return "running", ""
    owner = lock.read_text("utf-8", errors="replace").strip()
    return "failed", f"{owner[:1].upper()}{owner[1:]} was killed, or its machine went down."


def _owner_lives(lock: Path) -> bool:
    """As the file says; to try the lock might turn a run away that is about to take it."""
    owner = _OWNER.match(lock.read_text("utf-8", errors="replace"))
    if owner is None or owner["host"] != socket.gethostname():
        return time.time() - changed_at(lock.parent) < _QUIET_S
    try:
        os.kill(int(owner["process"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _evaluation(name: str, step: int | None, report: Mapping[str, Any]) -> dict[str, Any]:
    overall = report.get("overall") or {}
    return {
        "name": name,
        "step": step,
        "success": overall.get("success"),
        "reward": overall.get("reward"),
        "tasks": report.get("tasks"),
        "episodes": report.get("episodes"),
    }


def _checkpoints(folder: Path) -> list[dict[str, Any]]:
    return [
        {
            "step": checkpoint.step,
            "weight_version": checkpoint.weight_version,
            "next_group": checkpoint.next_group_index,
            "bytes": sum(file.stat().st_size for file in checkpoint.path.rglob("*") if file.is_file()),
        }
        for checkpoint in reversed(list_checkpoints(folder))
    ]


# --- metrics --------------------------------------------------------------------------------------------------------


def metrics(folder: Path, after: int = -1) -> dict[str, Any]:
    """`steps` above `after`, and `series`: a value per step (or None) by name. A torn last line is left out."""
    lines = [line for text in _lines(folder) if _step(text) > after and (line := _parsed(text)) is not None]
    names = dict.fromkeys(name for line in lines for name in line if name not in ("step", "time_s"))
    series = {name: [line.get(name) for line in lines] for name in names}
    return {"steps": [line["step"] for line in lines], "series": series}


def last_step(folder: Path) -> int:
    """The last training step that was logged, 0 before the first."""
    return max((_step(text) for text in _lines(folder)[-2:]), default=0)


def trainer_lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of the metrics, for the trainer's side of a timeline."""
    return [line for text in _lines(folder) if (line := _parsed(text)) is not None]


def _lines(folder: Path) -> list[str]:
    path = folder / JSONL
    return path.read_text("utf-8", errors="replace").splitlines() if path.is_file() else []


def _step(text: str) -> int:
    """Without parsing the line: a run may have many thousands."""
    found = _STEP.match(text)
    return int(found[1]) if found else 0


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        line = json.loads(text, parse_constant=lambda _: None)
    except ValueError:
        return None
    return line if isinstance(line, dict) and "step" in line and "time_s" in line else None


# --- settings -------------------------------------------------------------------------------------------------------


def settings(folder: Path) -> list[dict[str, Any]]:
    """Every setting of the run by path, with its default where that is known, and whether it differs from it."""
    values, defaults = (_flat(read_json(folder / name)) for name in (CONFIG_FILE, DEFAULTS_FILE))
    return [
        {"path": path, "value": value, "changed": path not in defaults or defaults[path] != value}
        | ({"default": defaults[path]} if path in defaults else {})
        for path, value in values.items()
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found
