"""A curriculum in the whole loop: it follows results, a crash changes nothing, and its limits and sizes are kept."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import anyio
import pytest
import torch

from agent_rl.curriculum.config import CurriculumConfig
from agent_rl.store.opening import open_journal

SCRIPT = Path(__file__).with_name("train_parity.py")
_spec = importlib.util.spec_from_file_location("train_parity", SCRIPT)
assert _spec is not None
assert _spec.loader is not None
parity = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(parity)

CURRICULUM = CurriculumConfig(
    kind="sec",
    options={"temperature": 0.2},
    domain="task",
    sizes="gvm",
    first_turns=1,
    growth="linear",
    growth_steps=4,
)


class Crash(Exception):
    pass


def run(run_dir: Path, config, **options):
    run_dir.mkdir(exist_ok=True)
    return anyio.run(lambda: parity.train_parity(run_dir, config, curriculum=CURRICULUM, **options))


def crash_at(step: int):
    def on_step(report) -> None:
        if report.step == step:
            raise Crash

    return on_step


def played(run_dir: Path) -> tuple[list[tuple[int, str, int]], list[int]]:
    """Task and size of each group, and its longest episode."""
    with open_journal(run_dir) as journal:
        groups = sorted(journal.load_groups().items())
    found = [(index, group.task.id, len(group.trajectories)) for index, group in groups]
    return found, [max(episode.steps for episode in group.trajectories) for _, group in groups]


def metrics_of(run_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def learned(row: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name.startswith(("curriculum/", "learner/grad_norm"))}


@pytest.mark.parametrize("step", [3, pytest.param(5, marks=pytest.mark.slow)])
def test_a_crash_between_checkpoints_changes_nothing_that_is_played(tmp_path: Path, step: int) -> None:
    config = parity.parity_config(steps=6, groups_per_batch=3, refills_per_batch=1)

    _, expected = run(tmp_path / "whole", config)
    with pytest.raises(ExceptionGroup):
        run(tmp_path / "crashed", config, on_step=crash_at(step))
    _, model = run(tmp_path / "crashed", config, resume=True)
    assert played(tmp_path / "crashed") == played(tmp_path / "whole")
    whole, crashed = metrics_of(tmp_path / "whole"), metrics_of(tmp_path / "crashed")
    assert [learned(row) for row in crashed] == [learned(row) for row in whole]
    for one, other in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(one, other)

    assert len({size for _, _, size in played(tmp_path / "whole")[0]}) > 1
    assert len({row["curriculum/weight/parity-0"] for row in whole}) > 2, "it follows results"
    assert all(sum(v for n, v in row.items() if "/share/" in n) == pytest.approx(1) for row in whole)
    assert [row["curriculum/max_turns"] for row in whole] == [2, 2, 2, 3, 3, 3]


def test_groups_in_flight_keep_what_was_decided_when_they_were_admitted(tmp_path: Path) -> None:
    """With staleness, the groups in flight at a crash were admitted by what was known steps before."""
    config = parity.parity_config(steps=6, max_staleness=1, checkpoint_every=1)
    with pytest.raises(ExceptionGroup):
        run(tmp_path / "run", config, on_step=crash_at(3))
    run(tmp_path / "run", config, resume=True)
    with open_journal(tmp_path / "run") as journal:
        groups, consumed = journal.load_groups(), journal.consumed()
    for row, (_, batch) in zip(metrics_of(tmp_path / "run"), consumed, strict=True):
        tasks = [groups[index].task.id for index in batch]
        shares = {name: row[f"curriculum/share/{name}"] for name in tasks}
        assert shares == {name: tasks.count(name) / len(tasks) for name in tasks}, "it knows what it gave to whom"
    _, longest = played(tmp_path / "run")
    assert max(longest[:4]) == 1, "admitted at step 0, when one turn was all"
    assert max(longest) == 2
