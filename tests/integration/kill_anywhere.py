"""Started by test_kill_anywhere.py: lives of training and evaluation that are killed at random points.

    python kill_anywhere.py train|evaluate FOLDER KILLS SEED

Everything is imported once; each life is a forked child, before any thread is started. A child is killed by its parent
after a random time, or kills itself at a random one of its events (opens, renames, removals; beginnings and ends of
transactions). When a life reaches its end before it is killed, its run is compared with the undisturbed one and the
next run begins. Prints a line of JSON for each run: how far it was at each death, and what differs in the end.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import torch
from sqlalchemy import func, select
from train_parity import parity_config, train_parity

from agent_rl.curriculum.config import CurriculumConfig
from agent_rl.errors import UserError
from agent_rl.evaluate.harness import EvalConfig
from agent_rl.evaluate.harness import run as run_evaluation
from agent_rl.registry import environment_spec
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.store import schema
from agent_rl.store.checkpoint import list_checkpoints
from agent_rl.store.database import Database
from agent_rl.store.metrics import JSONL
from agent_rl.store.opening import open_journal

WATCHED = ("open", "os.", "shutil.", "sqlite3.", "store.")
TRAINING = parity_config(
    steps=4,
    group_size=3,
    checkpoint_every=1,
    max_concurrent_episodes=1,  # always one row in a batch: deterministic, and cheaper than many that are
    deterministic=False,
    limits=RolloutLimits(max_turns=3, max_response_tokens=4, max_context_tokens=96),
)
CURRICULUM = CurriculumConfig(kind="sec", sizes="gvm", first_turns=1, growth_steps=3)
EVALUATION = EvalConfig(environment="guess_number", agent="random", split="train", tasks=40, concurrency=2)


# --- the two kinds of run ---


def train(run_dir: Path) -> None:
    _, model = anyio.run(functools.partial(train_parity, run_dir, TRAINING, curriculum=CURRICULUM, resume=True))
    weights = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters()))
    (run_dir / "weights").write_text(weights.hexdigest())


def evaluate(run_dir: Path) -> None:
    resume = (run_dir / "config.json").is_file()
    run_evaluation(EVALUATION.model_copy(update={"run_dir": run_dir, "resume": resume}))


def what_happened(run_dir: Path) -> dict[str, Any]:
    """All that must not depend on how often a run was killed; digests of what is long."""
    with open_journal(run_dir) as journal:
        groups = journal.load_groups()
        seen = [tokens for index in groups for tokens in journal.trained_tokens(index)]
        found: dict[str, Any] = {"consumed": journal.consumed()}
    found["groups"] = {
        index: _digest(
            [
                (
                    e.task.id,
                    e.member,
                    e.seed,
                    str(e.stop_reason),
                    [(t.action.content, t.reward, t.start, t.end) for t in e.turns],
                )
                for e in group.trajectories
            ],
            *(row for e in group.trajectories for s in e.segments for row in _rows(s)),
        )
        for index, group in groups.items()
    }
    found["seen"] = _digest(
        [(one.group_index, one.member, one.segment, one.step) for one in seen],
        *(row for one in seen for row in (one.logprobs_R, one.advantages_R, one.entropies_R)),
    )
    if (weights := run_dir / "weights").is_file():
        found["weights"] = weights.read_text()
        found["metrics"] = [json.loads(line)["step"] for line in (run_dir / JSONL).read_text().splitlines()]
        last = list_checkpoints(run_dir)[-1]  # killed before it removed an older one, a run may keep one more
        found["checkpoint"] = (last.step, last.next_group_index, last.weight_version)
    else:
        report = json.loads((run_dir / "report.json").read_text())
        # How long it took and what was spent count the episodes that a death cut short.
        left_out = ("wall_s", "tokens_per_s", "extent")
        found["report"] = {name: value for name, value in report.items() if name not in left_out}
    return found


def _rows(segment: Any) -> list[Any]:
    return [segment.token_ids_T, segment.response_mask_T, segment.rollout_logprobs_T, segment.weight_versions_T]


def _digest(plain: object, *arrays: Any) -> str:
    digest = hashlib.sha256(repr(plain).encode())
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()


def groups_in(run_dir: Path) -> int:
    """How many are stored."""
    try:
        with open_journal(run_dir) as journal:
            [(groups,)] = journal.rows(select(func.count()).select_from(schema.groups))
    except UserError:  # it died before it had a store
        return 0
    return groups


# --- lives ---


def live(body: Callable[[Path], None], run_dir: Path, *, die_at_event: int = 0, count: Path | None = None) -> int:
    """Fork a child that runs `body`; returns its pid. It dies at its `die_at_event`-th watched event, if it gets there.

    `count` is written with the number of events, and the modules that were needed.
    """
    if pid := os.fork():
        return pid
    events = 0

    def watch(name: str, _: object) -> None:
        nonlocal events
        if name.startswith(WATCHED):
            events += 1
            if events == die_at_event:
                os.kill(os.getpid(), signal.SIGKILL)

    def watched_transact(database: Database, work: Any) -> Any:
        watch("store.begin", None)
        result = transact(database, work)
        watch("store.end", None)
        return result

    status, transact = 1, Database.transact
    try:
        sys.addaudithook(watch)
        Database.transact = watched_transact
        body(run_dir)
        if count is not None:
            count.write_text(json.dumps([events, sorted(sys.modules)]))
        status = 0
    except BaseException:  # noqa: BLE001  # a child must not go on as its parent
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def ended(pid: int, after_s: float | None) -> bool:
    """Kill the child after that time. Whether it had reached its end; raises when it failed."""
    deadline = None if after_s is None else time.monotonic() + after_s
    while True:
        done, status = os.waitpid(pid, 0 if deadline is None else os.WNOHANG)
        if done:
            break
        if deadline is not None and time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            deadline = None
        else:
            time.sleep(0.001)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    if os.WEXITSTATUS(status):
        raise RuntimeError("a life failed: its traceback is above")
    return True


def main(kind: str, folder: Path, kills: int, seed: int) -> None:
    body = {"train": train, "evaluate": evaluate}[kind]
    rng = random.Random(seed)
    life_s, events = 0.0, 0
    for name in ("first", "whole"):
        began = time.monotonic()
        assert ended(live(body, folder / name, count=folder / "events"), None)
        life_s = time.monotonic() - began
        events, modules = json.loads((folder / "events").read_text())
        for module in modules:  # what a life imports late, or most deaths would be while it does
            if module not in sys.modules:
                with suppress(ImportError):
                    importlib.import_module(module)
    expected = what_happened(folder / "whole")
    killed = number = 0
    while killed < kills:
        run_dir, deaths = folder / f"run-{number}", []
        while True:
            by_event = rng.random() < 0.5
            at = rng.random() * (events if by_event else life_s)
            last = killed + len(deaths) >= kills
            pid = live(body, run_dir, die_at_event=1 + int(at) if by_event and not last else 0)
            if ended(pid, None if by_event or last else at):
                break
            deaths.append(groups_in(run_dir) / len(expected["groups"]))
        found = what_happened(run_dir)
        differs = sorted(name for name in expected if found[name] != expected[name])
        print(json.dumps({"deaths": deaths, "differs": differs}), flush=True)  # noqa: T201
        killed, number = killed + len(deaths), number + 1
        shutil.rmtree(run_dir)


if __name__ == "__main__":
    torch.set_num_threads(1)
    environment_spec(EVALUATION.environment)  # imports it
    gc.collect()
    gc.freeze()  # or each life would look through all of torch
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
