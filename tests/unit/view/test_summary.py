import json
import os
import socket
import subprocess
import sys

import pytest

from agent_rl.config import dump_defaults
from agent_rl.errors import UserError
from agent_rl.evaluate.harness import EvalConfig
from agent_rl.store.lock import LOCK, owned
from agent_rl.store.outcome import outcome_recorded
from agent_rl.view import summary
from agent_rl.view.reading import RunFolder


def said(run_dir):
    found = summary.summary(RunFolder("demo", run_dir), None)
    return found["status"], found["reason"]


def status(run_dir):
    return said(run_dir)[0]


def test_a_run_that_ended_says_how(run_dir):
    with owned(run_dir):
        with outcome_recorded(run_dir):
            assert status(run_dir) == "running"
        assert said(run_dir) == ("stopped", ""), "before its last step, by an operator"
        with pytest.raises(ExceptionGroup), outcome_recorded(run_dir):
            raise ExceptionGroup("tasks", [ExceptionGroup("more", [UserError("The disk is full.")])])
    assert said(run_dir) == ("failed", "The disk is full.")
    (run_dir / "report.json").write_text("{}")
    assert status(run_dir) == "failed", "with a report of an earlier day"
    with owned(run_dir), outcome_recorded(run_dir):
        os.utime(run_dir / "report.json", (1e9, 1e9))
        assert status(run_dir) == "running", "resumed"
    assert said(run_dir) == ("finished", "")


def test_a_run_that_somebody_owns_is_running(run_dir):
    assert status(run_dir) == "stopped"
    with owned(run_dir):
        assert status(run_dir) == "running"
    killed = f"process {2**22 + 1} on {socket.gethostname()}\n"  # nobody took it away
    (run_dir / LOCK).write_text(killed)
    assert said(run_dir) == ("failed", f"P{killed.strip()[1:]} was killed, or its machine went down.")


def test_a_run_on_another_machine_is_running_as_long_as_it_writes(run_dir):
    (run_dir / LOCK).write_text("process 1 on far-away\n")
    assert status(run_dir) == "running"
    for path in run_dir.iterdir():
        os.utime(path, (1e9, 1e9))
    assert status(run_dir) == "failed"


def test_a_run_at_its_last_step_or_with_a_report_is_finished(run_dir):
    with owned(run_dir):
        (run_dir / "report.json").write_text("{}")
    assert status(run_dir) == "finished", "whatever process has that number now"
    (run_dir / "report.json").unlink()
    (run_dir / LOCK).unlink()
    (run_dir / "config.json").write_text(json.dumps({"steps": 2}))
    assert status(run_dir) == "finished"


def test_a_finished_run_that_goes_on_is_running(run_dir):
    (run_dir / "report.json").write_text("{}")
    os.utime(run_dir / "report.json", (1e9, 1e9))
    with owned(run_dir):
        assert status(run_dir) == "running"


def test_the_overview_of_a_training_run(run_dir, journal):
    found = summary.overview(RunFolder("demo", run_dir), journal)
    assert (found["kind"], found["step"], found["steps"], found["episodes"]) == ("train", 2, 4, 12)
    [evaluation] = found["evaluations"]
    assert (evaluation["name"], evaluation["step"], evaluation["success"]["value"]) == ("held out", 1, 0.5)
    assert found["failures"][0]["owner"] == "sandbox"


def test_the_overview_of_an_evaluation(run_dir, journal):
    config = EvalConfig(environment="maze", agent="oracle", tasks=3, samples=4)
    (run_dir / "config.json").write_text(config.model_dump_json())
    dump_defaults(EvalConfig, run_dir / "defaults.json")
    report = {"overall": {"success": {"value": 0.2, "low": 0.1, "high": 0.3}}, "tasks": 3, "episodes": 12}
    (run_dir / "report.json").write_text(json.dumps(report))
    found = summary.overview(RunFolder("demo", run_dir), journal)
    assert (found["kind"], found["environment"], found["step"], found["steps"]) == ("eval", "maze", 3, 3)
    assert [(entry["name"], entry["episodes"]) for entry in found["evaluations"]] == [
        ("held out", None),
        ("evaluation", 12),
    ]
    changed = {entry["path"]: entry for entry in summary.settings(run_dir) if entry["changed"]}
    assert changed.keys() == {"environment", "agent", "tasks", "samples"}
    assert (changed["samples"]["value"], changed["samples"]["default"]) == (4, 1)
    assert "default" not in changed["environment"]


def test_a_page_needs_neither_torch_nor_the_classes_of_options(run_dir):
    program = (
        "import sys, pathlib\nfrom agent_rl.view.answers import Answers\nfrom agent_rl.view.reading import Library\n"
        "from agent_rl.view import server, summary\n"
        "library = Library([pathlib.Path(sys.argv[1])])\n[run] = library.runs()\n"
        "Answers(library).overview(run), summary.settings(run.path)\n"
        "assert not {'torch', 'transformers', 'agent_rl.train_config'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", program, str(run_dir)], check=True, timeout=120)


def test_metrics_after_a_step_without_the_torn_line(run_dir):
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "time_s": 1.0, "rollout/reward": NaN, "new": 1}\n{"step": 4, "time_')
    everything = summary.metrics(run_dir)
    assert everything["steps"] == [1, 2, 3]
    assert everything["series"]["rollout/reward"] == [0.25, 0.5, None]
    assert everything["series"]["new"] == [None, None, 1]
    assert summary.metrics(run_dir, after=2) == {"steps": [3], "series": {"rollout/reward": [None], "new": [1]}}
    assert summary.metrics(run_dir / "nowhere") == {"steps": [], "series": {}}


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_config_that_is_being_written_is_no_error(run_dir, text):
    (run_dir / "config.json").write_text(text)
    assert summary.summary(RunFolder("demo", run_dir), None)["steps"] is None
    assert summary.settings(run_dir) == []
