import json
import subprocess
import sys

import pytest

from agent_rl.store.metrics import MetricsLogger
from agent_rl.trackers import TrackedRun
from agent_rl.trackers.config import TrackersConfig


def opened(run_dir, resume_step=-1):
    return MetricsLogger(TrackedRun(run_dir, resume_step), TrackersConfig())


def lines(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def scalars(run_dir):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir / "tensorboard"))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_each_step_is_one_flushed_line(tmp_path):
    with opened(tmp_path) as logger:
        logger.log(0, {"reward/mean": 0.25})
        logger.log(1, {"reward/mean": 0.5, "loss": 2})
        found = lines(tmp_path)
    assert [line.pop("time_s") > 1e9 for line in found] == [True, True]
    assert found == [{"step": 0, "reward/mean": 0.25}, {"step": 1, "reward/mean": 0.5, "loss": 2}]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_is_null_in_strict_json(tmp_path, value):
    with opened(tmp_path) as logger:
        logger.log(0, {"ratio": value})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))["ratio"] is None


def test_tensorboard_reads_the_scalars(tmp_path):
    with opened(tmp_path) as logger:
        for step in range(3):
            logger.log(step, {"reward/mean": step / 4})
    assert scalars(tmp_path) == {"reward/mean": [(0, 0.0), (1, 0.25), (2, 0.5)]}


def test_a_resumed_run_has_every_step_once(tmp_path):
    with opened(tmp_path) as logger:
        for step in range(1, 8):
            logger.log(step, {"reward/mean": 0.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "reward/me')  # what a crash leaves
    with opened(tmp_path, resume_step=4) as logger:
        for step in range(5, 9):
            logger.log(step, {"reward/mean": 1.0})
    assert [(line["step"], line["reward/mean"]) for line in lines(tmp_path)] == [
        *((step, 0.0) for step in range(1, 5)),
        *((step, 1.0) for step in range(5, 9)),
    ]
    assert scalars(tmp_path)["reward/mean"] == [*((s, 0.0) for s in range(1, 5)), *((s, 1.0) for s in range(5, 9))]


def test_a_new_run_starts_from_an_empty_file(tmp_path):
    with opened(tmp_path) as logger:
        logger.log(0, {"reward/mean": 0.0})
    opened(tmp_path).close()
    assert lines(tmp_path) == []


@pytest.mark.parametrize("step", [3, 2, 1])
def test_a_step_is_logged_once_and_in_order(tmp_path, step):
    with opened(tmp_path, resume_step=2) as logger:
        logger.log(3, {"reward/mean": 0.0})
        with pytest.raises(ValueError, match=f"step {step} is logged after step 3"):
            logger.log(step, {"reward/mean": 0.0})
    assert len(lines(tmp_path)) == 1


def test_the_store_does_not_import_torch(tmp_path):
    script = (
        "import sys; from pathlib import Path;"
        "import agent_rl.store.checkpoint, agent_rl.store.journal, agent_rl.store.records;"
        "from agent_rl.store.metrics import MetricsLogger;"
        "from agent_rl.trackers import TrackedRun; from agent_rl.trackers.config import TrackersConfig;"
        f"logger = MetricsLogger(TrackedRun(Path({str(tmp_path)!r})), TrackersConfig());"
        "logger.log(0, {'a': 1.0}); logger.close();"
        "assert not {'torch', 'tensorflow', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
