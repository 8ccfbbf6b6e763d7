"""Suites: the average and its interval, the folder, resuming, comparing, and what the command says."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from agent_rl import cli
from agent_rl.config import build, load_config
from agent_rl.errors import ConfigError, UserError
from agent_rl.evaluate import compare_suites
from agent_rl.evaluate.budget import read_spent
from agent_rl.evaluate.compare import CompareConfig
from agent_rl.evaluate.harness import SPENT
from agent_rl.evaluate.macro import macro_average
from agent_rl.evaluate.statistics import Estimate, mean, proportion
from agent_rl.evaluate.suite import SuiteConfig, run
from agent_rl.store.opening import open_journal
from agent_rl.testing.environments import CountUp, GuessNumber

GUESS, COUNT = (f"{kind.__module__}:{kind.__name__}" for kind in (GuessNumber, CountUp))
FILE = f"""
[[entries]]
name = "easy"
environment = "{GUESS}"
environment_options = {{high = 10}}
tasks = 8
samples = 2
limits = {{max_turns = 4}}

[[entries]]
name = "hard"
environment = "{GUESS}"
tasks = 12
limits = {{max_turns = 5}}
weight = 3.0
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "suite.toml"
    path.write_text(FILE)
    return path


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """Folder and report of the suite, played by the random agent and by the oracle. Read only."""
    folder = tmp_path_factory.mktemp("played")
    path = folder / "suite.toml"
    path.write_text(FILE)
    return {
        agent: (folder / agent, run(config(path, agent=agent, run_dir=str(folder / agent))))
        for agent in ("random", "oracle")
    }


def config(file: Path, **fields) -> SuiteConfig:
    return load_config(SuiteConfig, file, {"agent": "random", **fields})


# --- the average ----------------------------------------------------------------------------------------------------


def test_the_macro_average_by_hand():
    half = macro_average([Estimate(0.2, 0.1, 0.4), Estimate(0.6, 0.3, 0.7)])
    assert half.value == pytest.approx(0.4)
    assert half.low == pytest.approx(0.4 - np.hypot(0.1, 0.3) / 2)
    assert half.high == pytest.approx(0.4 + np.hypot(0.2, 0.1) / 2)
    weighted = macro_average([Estimate(0.2, 0.1, 0.4), Estimate(0.6, 0.3, 0.7)], [1, 3])
    assert weighted.value == pytest.approx(0.5)
    assert macro_average([Estimate(0.2, 0.1, 0.4)]) == Estimate(0.2, pytest.approx(0.1), pytest.approx(0.4))
    for bad in ([], [Estimate(0, 0, 1)] * 2):
        with pytest.raises(ValueError, match="macro-average"):
            macro_average(bad, [1.0])


@pytest.mark.parametrize("score", [proportion, mean])
def test_its_interval_holds_the_truth_95_times_in_100(score):
    rng, truth, weights = np.random.default_rng(1), np.array([0.95, 0.5, 0.1]), [1.0, 2.0, 1.0]
    tasks, average = (100, 60, 200), float(np.average([0.95, 0.5, 0.1], weights=weights))
    held = 0
    for _ in range(500):
        estimates = [score((rng.random(n) < p).astype(float)) for n, p in zip(tasks, truth, strict=True)]
        found = macro_average(estimates, weights)
        held += found.low <= average <= found.high
    assert 461 <= held <= 489  # 475, within three standard errors


# --- a run ----------------------------------------------------------------------------------------------------------


def test_each_entry_is_an_evaluation_of_its_own_and_the_suite_their_average(played):
    folder, report = played["random"]
    assert list(report.reports) == ["easy", "hard"]
    assert (report.reports["easy"].episodes, report.reports["hard"].episodes) == (16, 12)
    values = [entry.overall.success.value for entry in report.reports.values()]
    assert report.success.value == pytest.approx((values[0] + 3 * values[1]) / 4)
    assert values[0] > values[1] > 0
    assert json.loads((folder / "report.json").read_text()) == json.loads(json.dumps(report.to_json()))
    for name, count in (("easy", 8), ("hard", 12)):
        with open_journal(folder / name) as journal:
            assert len(journal.load_groups()) == count
        assert (folder / name / "report.json").is_file()


@pytest.fixture
def shares(monkeypatch):
    """The seconds that each entry may take, in the order of play."""
    seconds, real = [], run.__globals__["play"]

    async def play(config, *rest):
        seconds.append(config.budget.seconds)
        return await real(config, *rest)

    monkeypatch.setitem(run.__globals__, "play", play)
    return seconds


def test_a_suite_that_breaks_off_goes_on_where_it_stopped(file, tmp_path, played, shares):
    (_, whole), folder = played["random"], tmp_path / "run"
    seen = []

    def stop(group):
        seen.append(group)
        if len(seen) == 11:
            raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, BaseExceptionGroup)):
        run(config(file, run_dir=str(folder), concurrency=1), on_group=stop)
    assert not (folder / "report.json").exists()
    with pytest.raises(ConfigError, match="not empty: add --resume"):
        run(config(file, run_dir=str(folder)))
    before = [(group.task.id, group.trajectories[0].began_at) for group in seen]
    again, spent_s = [], read_spent(folder / "easy" / SPENT).seconds
    shares.clear()
    resumed = config(file, **{"run_dir": str(folder), "resume": True, "budget.seconds": 100.0})
    report = run(resumed, on_group=again.append)
    assert spent_s > 0
    left_s = 100 - report.reports["easy"].extent.spent.seconds
    assert shares == pytest.approx([spent_s, left_s])  # all that is left is for the one that is not finished
    assert {name: entry.overall for name, entry in report.reports.items()} == {
        name: entry.overall for name, entry in whole.reports.items()
    }
    assert set(before) <= {(group.task.id, group.trajectories[0].began_at) for group in again}
    file.write_text(FILE.replace("high = 10", "high = 11"))
    with pytest.raises(ConfigError, match="high"):
        run(config(file, run_dir=str(folder), resume=True))


def test_a_finished_suite_that_is_resumed_plays_nothing(file, tmp_path, played, monkeypatch):
    source, whole = played["random"]
    folder = shutil.copytree(source, tmp_path / "run")

    async def reset(*_):
        raise AssertionError("it is played again")

    monkeypatch.setattr(GuessNumber, "reset", reset)
    seen = []
    report = run(config(file, run_dir=str(folder), resume=True), on_group=seen.append)
    assert len(seen) == 20
    assert report.success == whole.success


def test_a_budget_is_shared_and_what_is_left_is_the_next_ones(file, tmp_path, shares):
    report = run(config(file, **{"budget.seconds": 100.0, "run_dir": str(tmp_path / "run")}))
    assert shares[0] == pytest.approx(100 * 16 / 28)
    assert shares[1] == pytest.approx(100 - report.reports["easy"].extent.spent.seconds)
    nothing = run(config(file, **{"budget.seconds": 0.0}))
    assert nothing.success is None
    assert [entry.tasks for entry in nothing.reports.values()] == [0, 0]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "a suite needs entries"),
        ([{"environment": GUESS}, {"environment": GUESS}], "2 entries are called 'GuessNumber'"),
        ([{"environment": GUESS, "name": "../up"}], "name"),
        ([{"environment": GUESS, "weight": 0}], "weight"),
        ([{"environment": GUESS, "temperature": 1}], "temperature"),
        ([{"name": "x"}], "environment"),
    ],
)
def test_a_bad_suite_is_one_clear_sentence(entries, message):
    with pytest.raises(ConfigError, match=message):
        build(SuiteConfig, {"agent": "oracle", "entries": entries})


def test_nothing_is_played_when_a_later_entry_cannot_be():
    entries = [{"environment": GUESS}, {"environment": COUNT, "split": "tset"}]
    played = []
    with pytest.raises(UserError, match="Unknown split 'tset'"):
        run(build(SuiteConfig, {"agent": "oracle", "entries": entries}), on_group=played.append)
    assert played == []


# --- two suites -----------------------------------------------------------------------------------------------------


def test_two_suites_are_compared_entry_by_entry(played, tmp_path):
    (first, a), (second, b) = played["random"], played["oracle"]
    found = compare_suites.run(CompareConfig(runs=(first, second), output=tmp_path / "found.json"))
    assert found.a.value == pytest.approx(a.success.value)
    assert found.b.value == pytest.approx(b.success.value)
    assert found.difference.value == pytest.approx(b.success.value - a.success.value)
    assert found.difference.low < found.difference.value < found.difference.high
    assert json.loads((tmp_path / "found.json").read_text())["entries"]["hard"]["paired"]["tasks"] == 12


def test_entries_of_one_suite_only_are_named_and_other_weights_refused(played, tmp_path):
    first, other = played["random"][0], tmp_path / "other"
    shutil.copytree(first, other)
    text = (other / "config.json").read_text()
    (other / "config.json").write_text(text.replace('"hard"', '"harder"'))
    assert compare_suites.run(CompareConfig(runs=(first, other))).unmatched == ("hard", "harder")
    assert "3.0" in text
    (other / "config.json").write_text(text.replace("3.0", "2.0"))
    with pytest.raises(UserError, match="weigh 'hard' differently"):
        compare_suites.run(CompareConfig(runs=(first, other)))


def test_the_commands(file, played, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    a, b = str(played["random"][0]), str(tmp_path / "b")
    assert cli.main(["suite", str(file), "--agent", "oracle", "--run-dir", b]) == 0
    assert "macro-average" in capsys.readouterr().out
    assert cli.main(["compare", a, b]) == 0
    out = capsys.readouterr().out
    assert "macro-average" in out
    assert "hard" in out
    assert cli.main(["suite"]) == 2
    assert "Name the file of the suite" in capsys.readouterr().err
    assert cli.main(["suite", str(file)]) == 2
    assert "a policy needs a model" in capsys.readouterr().err
    file.write_text(FILE + "colour = 3\n")
    assert cli.main(["suite", str(file), "--agent", "oracle"]) == 2
    assert "entries.1.colour" in capsys.readouterr().err
