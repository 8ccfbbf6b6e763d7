"""Killed at a hundred random points, a run ends as if nothing had happened: nothing lost, nothing trained on twice."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("kill_anywhere.py")
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # kill -9 takes nothing from a disk that it has
KILLS = 100


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_a_run_that_is_killed_anywhere_equals_the_undisturbed_one(kind: str) -> None:
    seed = int(os.environ.get("KILL_SEED", random.SystemRandom().randrange(2**32)))
    sys.stdout.write(f"\nKILL_SEED={seed} repeats these kills\n")
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        command = [sys.executable, str(SCRIPT), kind, folder, str(KILLS), str(seed)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    runs = [json.loads(line) for line in done.stdout.splitlines()]
    assert [run["differs"] for run in runs] == [[]] * len(runs)
    assert sum(run["killed"] for run in runs) == KILLS
