"""Trackers: each against its real service on this machine, and what happens when a service fails."""

import logging
import struct
import sys
import threading
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent_rl.errors import ConfigError, UserError
from agent_rl.trackers import TrackedRun, open_trackers, register_tracker
from agent_rl.trackers.config import MlflowConfig, PrometheusConfig, TrackersConfig, TrackioConfig, WandbConfig
from agent_rl.trackers.mlflow import mlflow_name
from agent_rl.trackers.prometheus import open_prometheus, prometheus_name


def log(config: TrackersConfig, run: TrackedRun, steps: range, factor: float = 1.0) -> None:
    trackers = open_trackers(config.model_copy(update={"tensorboard": False}), run)
    for step in steps:
        for tracker in trackers:
            tracker.log(step, {"reward/mean": step * factor, "pass@1": 0.5})
    for tracker in trackers:
        tracker.close()


def wandb_records(folder: Path):
    """What W&B's offline files hold: a header of 7 bytes, then a LevelDB log of its records."""
    from wandb.proto.wandb_internal_pb2 import Record

    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        data, at = path.read_bytes(), 7
        while at < len(data):
            length, kind = struct.unpack("<4xHB", data[at : at + 7])
            assert kind == 1, "a record in one piece"
            yield Record.FromString(data[at + 7 : at + 7 + length])
            at += 7 + length


@pytest.mark.slow
def test_wandb_gets_a_run_and_goes_on_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    config = TrackersConfig(wandb=WandbConfig(project="demo", tags=("a",)))
    log(config, TrackedRun(tmp_path, -1, {"lr": 0.1}), range(3))
    log(config, TrackedRun(tmp_path, 0), range(1, 3), factor=2.0)
    records = list(wandb_records(tmp_path))
    runs = [record.run for record in records if record.HasField("run")]
    assert {(run.run_id, run.project, *run.tags) for run in runs} == {
        ((tmp_path / "wandb_id").read_text(), "demo", "a")
    }
    rows = [{"".join(item.nested_key) or item.key: item.value_json for item in r.history.item} for r in records]
    seen = [(int(row["step"]), float(row["reward/mean"])) for row in rows if row]
    assert seen == [(0, 0.0), (1, 1.0), (2, 2.0), (1, 2.0), (2, 4.0)], "a step that is done again is taken"


@pytest.mark.slow
def test_mlflow_gets_a_run_and_goes_on_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import mlflow
    from mlflow.store.tracking.file_store import FileStore

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a database of its own takes half a minute to make
    uri = str(tmp_path / "mlruns")
    config = TrackersConfig(mlflow=MlflowConfig(experiment="demo", tracking_uri=uri))
    many = {f"option{i}": i for i in range(150)}
    writing, log_batch = threading.Lock(), FileStore.log_batch

    def slow_log_batch(*arguments: object, **named: object) -> None:
        assert writing.acquire(blocking=False), "one step at a time, and in order"
        time.sleep(0.02)
        log_batch(*arguments, **named)
        writing.release()

    monkeypatch.setattr(FileStore, "log_batch", slow_log_batch)
    log(config, TrackedRun(tmp_path, -1, {"learner": {"rate": 0.1}, **many}), range(3))
    log(config, TrackedRun(tmp_path, 0, {"learner": {"rate": 0.2}}), range(1, 3), factor=2.0)
    client = mlflow.MlflowClient(uri)
    [run] = client.search_runs([client.get_experiment_by_name("demo").experiment_id])
    assert run.info.status == "FINISHED"
    assert (run.data.params["learner.rate"], len(run.data.params)) == ("0.1", 151)
    history = client.get_metric_history(run.info.run_id, "reward/mean")
    assert [(point.step, point.value) for point in history] == [(0, 0.0), (1, 1.0), (2, 2.0), (1, 2.0), (2, 4.0)]
    assert run.data.metrics["pass_1"] == 0.5


def test_trackio_gets_a_run_and_goes_on_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    inits, logged, finished = [], [], []

    def init(project, **options):
        inits.append((project, options["name"], options["resume"]))
        return SimpleNamespace(
            log=lambda metrics, step: logged.append((step, metrics["reward/mean"])), finish=lambda: finished.append(1)
        )

    monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(init=init))
    log(TrackersConfig(trackio=TrackioConfig(project="demo")), TrackedRun(tmp_path), range(2))
    tmp_path.rename(moved := tmp_path.with_name("moved"))
    log(TrackersConfig(trackio=TrackioConfig(project="demo")), TrackedRun(moved, 0), range(1, 2))
    assert inits == [("demo", tmp_path.name, "allow")] * 2
    assert (logged, len(finished)) == ([(0, 0.0), (1, 1.0), (1, 1.0)], 2)


def test_prometheus_reads_the_last_step(tmp_path: Path):
    tracker = open_prometheus(PrometheusConfig(port=0))(TrackedRun(tmp_path / "my run"))
    try:
        for step in range(3):
            tracker.log(step, {"reward/mean": step / 4, "ratio": float("nan")})
        with urllib.request.urlopen(f"http://127.0.0.1:{tracker.port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    finally:
        tracker.close()
    assert 'agent_rl_reward_mean{run="my run"} 0.5\n' in text
    assert 'agent_rl_step{run="my run"} 2.0\n' in text
    assert 'agent_rl_ratio{run="my run"} NaN\n' in text


def test_a_taken_port_is_one_sentence_and_leaves_nothing_open(tmp_path: Path):
    first = open_prometheus(PrometheusConfig(port=0))(TrackedRun(tmp_path))
    closed = []
    register_tracker("closing", lambda run: SimpleNamespace(log=lambda *_: None, close=lambda: closed.append(1)))
    try:
        with pytest.raises(UserError, match=r"cannot listen at .*: set trackers\.prometheus\.port"):
            open_trackers(
                TrackersConfig(custom=("closing",), prometheus=PrometheusConfig(port=first.port)), TrackedRun(tmp_path)
            )
    finally:
        first.close()
    assert closed == [1]


@pytest.mark.parametrize(
    ("module", "config", "extra"),
    [
        ("wandb", TrackersConfig(wandb=WandbConfig()), "wandb"),
        ("mlflow", TrackersConfig(mlflow=MlflowConfig()), "mlflow"),
        ("trackio", TrackersConfig(trackio=TrackioConfig()), "trackio"),
        ("prometheus_client", TrackersConfig(prometheus=PrometheusConfig()), "serve"),
    ],
)
def test_a_service_that_is_not_installed_is_one_sentence(tmp_path, monkeypatch, module, config, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"is not installed: pip install 'agent-rl\[{extra}\]'"):
        open_trackers(config, TrackedRun(tmp_path))


def test_a_tracker_of_ones_own_may_fail_and_the_run_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    asked = []

    class Broken:
        def __init__(self, run: TrackedRun) -> None:
            asked.append(run.resume_step)

        def log(self, step, metrics):
            asked.append(step)
            raise ConnectionError("no route")

        def close(self):
            raise ConnectionError("still no route")

    register_tracker("broken", Broken)
    with caplog.at_level(logging.WARNING):
        log(TrackersConfig(custom=("broken",)), TrackedRun(tmp_path, 4), range(5, 8))
    assert asked == [4, 5, 6, 7], "asked again at every step: it may have come back"
    assert [r.getMessage() for r in caplog.records] == [
        "broken does not take metrics, the run goes on without it: no route"
    ]


def test_a_tracker_that_cannot_start_is_one_sentence(tmp_path: Path):
    def start(run: TrackedRun):
        raise ConnectionError("no route")

    register_tracker("unreachable", start)
    with pytest.raises(UserError, match="unreachable cannot be started: no route"):
        open_trackers(TrackersConfig(custom=("unreachable",)), TrackedRun(tmp_path))


def test_names_that_the_services_take():
    assert mlflow_name("eval/pass@1 %") == "eval/pass_1 _"
    assert prometheus_name("reward/mean") == "agent_rl_reward_mean"
