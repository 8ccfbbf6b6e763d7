"""Training on a disk that fills up, by a clock that jumps, in a folder that is not its own."""

from __future__ import annotations

import importlib.util
import itertools
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest
import torch

from agent_rl import cli
from agent_rl.config import Config
from agent_rl.environment import EnvironmentSpec
from agent_rl.errors import UserError
from agent_rl.store.lock import owned
from agent_rl.store.opening import open_journal
from agent_rl.store.outcome import Outcome, read_outcome

SCRIPT = Path(__file__).with_name("train_parity.py")
FULL_DISK = Path(__file__).with_name("full_disk.py")
_spec = importlib.util.spec_from_file_location("train_parity", SCRIPT)
assert _spec is not None
assert _spec.loader is not None
parity = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(parity)

YEAR_S = 365 * 24 * 3600.0


def run(run_dir: Path, **changes):
    config = parity.parity_config(**{"steps": 2, "group_size": 2, **changes})
    return anyio.run(lambda: parity.train_parity(run_dir, config, resume=True))


def test_a_clock_that_jumps_by_years_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, expected = run(tmp_path / "steady")
    jumps, now = itertools.cycle([20 * YEAR_S, -30 * YEAR_S, 0.0]), time.time
    monkeypatch.setattr(time, "time", lambda: now() + next(jumps))
    run(tmp_path / "jumping", steps=1)
    _, model = run(tmp_path / "jumping")
    with open_journal(tmp_path / "steady") as one, open_journal(tmp_path / "jumping") as other:
        assert other.consumed() == one.consumed()
        groups, twins = other.load_groups(), one.load_groups()
    assert groups.keys() == twins.keys()
    for index, group in groups.items():
        for episode, twin in zip(group.trajectories, twins[index].trajectories, strict=True):
            assert [turn.action for turn in episode.turns] == [turn.action for turn in twin.turns]
            assert 0 <= episode.setup_s <= episode.duration_s < 60
            assert all(0 <= turn.began_s + turn.generation_s + turn.step_s < 60 for turn in episode.turns)
    for parameter, other_parameter in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(parameter, other_parameter)
    seconds = [
        value
        for line in (tmp_path / "jumping" / "metrics.jsonl").read_text().splitlines()
        for name, value in json.loads(line).items()
        if name.startswith("time/") and name.endswith("_s") and "per_s" not in name
    ]
    assert seconds
    assert all(0 <= value < 60 for value in seconds)


class Lost(parity.Parity):
    async def reset(self, task, seed):
        raise RuntimeError("the house is gone")


def test_a_training_says_how_it_ended(tmp_path: Path) -> None:
    run(tmp_path, steps=1)
    assert read_outcome(tmp_path) == Outcome("ended")
    config = parity.parity_config(steps=1, max_attempts=1)
    with pytest.raises(ExceptionGroup):
        anyio.run(lambda: parity.train_parity(tmp_path / "lost", config, EnvironmentSpec(Lost, Config())))
    outcome = read_outcome(tmp_path / "lost")
    assert outcome is not None
    assert outcome.end == "failed"
    assert "the house is gone" in outcome.reason


def test_training_in_a_folder_of_another_process_is_refused(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from agent_rl.store.lock import owned\n"
        "with owned(Path(sys.argv[1])): print('owned', flush=True); time.sleep(100)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout.readline() == "owned\n"
        with pytest.raises(UserError, match=f"is in use by process {owner.pid} on"):
            run(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["lock"]
        owner.kill()
    with owned(tmp_path):
        pass


def test_a_second_evaluation_of_a_folder_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["eval", "guess_number", "--agent", "random", "-n", "2", "--run-dir", str(tmp_path / "run")]
    assert cli.main(command) == 0
    program = (
        "import sys; from pathlib import Path; from agent_rl.store.lock import owned\n"
        "with owned(Path(sys.argv[1])): print('owned', flush=True); sys.stdin.read()\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        assert owner.stdout.readline() == "owned\n"
        before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
        capsys.readouterr()
        assert cli.main([*command, "--resume"]) == 2
        error = capsys.readouterr().err
        assert f"is in use by process {owner.pid} on" in error
        assert len(error.strip().splitlines()) == 1
        assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    assert cli.main([*command, "--resume"]) == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_full_disk_is_one_sentence_and_resume_goes_on_exactly(tmp_path: Path) -> None:
    """On a small file system of its own; each size lets another file be the one that finds no room."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("needs unshare -rm, to mount a small file system")
    sizes = ["60", "250", "500", "1000"]
    command = ["unshare", "-rm", sys.executable, str(FULL_DISK), str(tmp_path), *sizes]
    done = subprocess.run(command, capture_output=True, text=True, timeout=850, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    runs = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(runs) == len(sizes)
    for found in runs:
        assert " is full" in found["error"]
        assert found["error"].endswith("free space, then go on with --resume.")
        assert found["same"], found
