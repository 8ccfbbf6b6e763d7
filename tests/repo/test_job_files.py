"""The job files for clusters: well-formed, and with options that exist."""

import itertools
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from agent_rl.cli import load_recipe
from agent_rl.config import field_paths

FILES = Path(__file__).parents[2] / "docs" / "cluster"
SBATCH, RAYJOB = FILES / "job.sbatch", FILES / "rayjob.yaml"


def check_options(text: str) -> None:
    given = {word[2:].replace("-", "_") for word in re.findall(r"--[a-z][\w.-]*", text)}
    assert any(option.startswith("cluster.") for option in given)
    assert given <= set(field_paths(load_recipe("search").config))


def test_slurm():
    text = SBATCH.read_text("utf-8")
    subprocess.run(["bash", "-n", SBATCH], check=True)
    command = text.split("set -euo pipefail")[1]
    check_options(command.replace("--address", "").replace("--min-nodes", ""))
    ours = re.findall(r"^#SBATCH --([\w-]+)", text, re.MULTILINE)
    assert {"nodes", "ntasks-per-node", "requeue"} <= set(ours)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed: bash alone has read it")
def test_slurm_with_shellcheck():
    subprocess.run(["shellcheck", SBATCH], check=True)


def test_kubernetes():
    job = yaml.safe_load(RAYJOB.read_text("utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[:3] == ["agent-rl", "train", "search"]
    check_options(job["spec"]["entrypoint"])
    cluster = job["spec"]["rayClusterSpec"]
    [gpus] = cluster["workerGroupSpecs"]
    per_node = int(gpus["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
    options = dict(itertools.pairwise(words))
    wanted = int(options["--cluster.inference-replicas"]) + int(options["--cluster.learner-ranks"])
    assert wanted == gpus["replicas"] * per_node, "every GPU has work"
    assert int(options["--cluster.nodes"]) == gpus["replicas"] + 1, "and the head"
