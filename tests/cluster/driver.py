"""A run with a Ray of its own: `python -m tests.cluster.driver FOLDER [--resume] [--slow]`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from agent_rl.cluster.site import open_cluster
from agent_rl.cluster_config import ClusterConfig
from tests.cluster.conftest import run

if __name__ == "__main__":
    folder, *options = sys.argv[1:]
    with open_cluster(ClusterConfig()) as site:
        run(
            Path(folder),
            config={"checkpoint_every": 1},
            site=site,
            resume="--resume" in options,
            on_step=lambda report: time.sleep(5.0 if "--slow" in options else 0.0),
        )
