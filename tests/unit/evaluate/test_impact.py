"""Learning impact against the authors' loop (GAIR-NLP/LIMR, lim_selection.py), and tasks kept from a journal."""

import math
from dataclasses import replace

import numpy as np
import pytest

from agent_rl.cli import main
from agent_rl.errors import ConfigError
from agent_rl.evaluate.impact import filled, impacts
from agent_rl.store.opening import create_journal
from agent_rl.store.tasks import read_tasks
from agent_rl.testing.episodes import Played, make_group, make_trajectory
from agent_rl.types import Message, Task

NAN = math.nan


def slow_impact(curves, i):
    deviation = most = 0.0
    for k in range(len(curves[0])):
        mean = sum(curve[k] for curve in curves) / len(curves)
        deviation += (curves[i][k] - mean) ** 2
        most += (1 - mean) ** 2
    return 1 - deviation / most


def test_it_is_the_published_formula():
    curves = np.random.default_rng(0).random((7, 5)).round(2)
    assert impacts(curves) == pytest.approx([slow_impact(curves.tolist(), i) for i in range(7)], rel=1e-12)


def test_what_follows_the_mean_has_the_greatest_impact():
    rising, mastered, hopeless = [0.0, 0.5, 1.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]
    steady, solved, never = impacts(np.array([rising, mastered, hopeless]))
    assert steady > max(solved, never)
    assert solved == pytest.approx(0)
    with pytest.raises(ConfigError, match="nothing to align with"):
        impacts(np.ones((3, 2)))


def test_an_epoch_without_an_episode_has_the_next_one_s_value():
    curves = np.array([[NAN, 0.25, 0.5], [NAN, NAN, 0.5], [0.25, NAN, 0.5], [0.25, 0.5, NAN]])
    for row in (authors := curves.copy()):
        for i in range(2):
            if math.isnan(row[i]) and not math.isnan(row[i + 1]):
                row[i] = row[i + 1]
    np.testing.assert_equal(filled(curves), authors)


CURVES = {  # of four episodes each: how many succeed in each epoch, None where all were lost
    "mastered": [4, 4, 4],
    "rising": [1, 2, 4],
    "hopeless": [0, 0, 0],
    "late": [0, None, 3],
    "lost": [1, 2, None],
    "once": [2],
}


@pytest.fixture
def run(tmp_path):
    """A run whose groups visit the tasks in turn."""
    folder, index = tmp_path / "run", 0
    with create_journal(folder) as journal:
        for epoch in range(3):
            for name, wins in CURVES.items():
                if epoch >= len(wins):
                    continue
                won = wins[epoch]
                members = [
                    make_trajectory([Played(float(won or 0) > i)], member=i, failed=won is None, task=name)
                    for i in range(4)
                ]
                group = make_group(*members, index=index)
                task = Task(name, (Message("user", name),), {"n": len(name)}, "toy")
                episodes = tuple(replace(episode, task=task) for episode in group.trajectories)
                journal.append_group(replace(group, task=task, trajectories=episodes))
                index += 1
    return folder


def expected(least):
    """Names by the slow formula; what was lost has the value of the next visit."""
    curves = {"mastered": [1, 1, 1], "rising": [0.25, 0.5, 1], "hopeless": [0, 0, 0], "late": [0, 0.75, 0.75]}
    return [name for i, name in enumerate(curves) if slow_impact(list(curves.values()), i) >= least]


@pytest.mark.parametrize("least", [-1.0, 0.3, 0.8])
def test_tasks_are_kept_from_the_journal(run, tmp_path, capsys, least):
    output = tmp_path / "kept.jsonl"
    words = ["env", "impact", str(run), "--epochs", "3", "--min-impact", str(least), "--output", str(output)]
    assert main(words) == 0
    kept = read_tasks(output)
    assert [task.id for task in kept] == expected(least)
    assert all(task.data == {"n": len(task.id)} and task.environment == "toy" for task in kept)
    assert f"{4 - len(kept)} align less than {least:g}, 2 were not measured" in capsys.readouterr().out.replace(
        "\n", " "
    )
    assert main(words) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_run_that_is_too_short_says_so(run, tmp_path, capsys):
    assert main(["env", "impact", str(run), "--output", str(tmp_path / "kept.jsonl")]) == 2
    assert "a curve needs two visits, so set epochs" in capsys.readouterr().err.replace("\n", " ")
