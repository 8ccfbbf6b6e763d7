"""A shipped recipe on two nodes that this machine plays, from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.recipes.conftest import SMALL


@pytest.mark.slow
def test_a_recipe_runs_on_two_nodes(tmp_path: Path) -> None:
    start = "import sys; from agent_rl.cli import main; sys.exit(main())"
    shape = ["--cluster.nodes", "2", "--cluster.inference-replicas", "1"]
    command = [sys.executable, "-c", start, "train", "quickstart", "--run-dir", str(tmp_path / "run"), *SMALL, *shape]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert rows[-1]["cluster/workers"] >= 1
    assert json.loads((tmp_path / "run" / "report.json").read_text())["oracle"]["value"] == 1.0
