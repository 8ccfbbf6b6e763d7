"""Each curriculum reaches the target sooner than uniform sampling, in the world of the benchmark that is its own."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from agent_rl.curriculum.config import CurriculumConfig

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "curricula.py"
_spec = importlib.util.spec_from_file_location("curricula", SCRIPT)
assert _spec is not None
assert _spec.loader is not None
curricula = sys.modules[_spec.name] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(curricula)


@pytest.mark.parametrize(
    ("name", "seeds"),
    [
        ("sec", 4),
        ("dump", 4),
        ("band", 4),
        pytest.param("domain_weights", 4, marks=pytest.mark.slow),
        pytest.param("weakness", 8, marks=pytest.mark.slow),
        pytest.param("gvm", 10, marks=pytest.mark.slow),
        pytest.param("horizon", 3, marks=pytest.mark.slow),
    ],
)
def test_a_curriculum_reaches_the_target_sooner_than_uniform_sampling(name: str, seeds: int):
    world, config = curricula.CASES[name]
    costs = [curricula.run(world, config, seed).cost for seed in range(seeds)]
    uniform = [curricula.run(world, CurriculumConfig(), seed).cost for seed in range(seeds)]
    found = curricula.ratio(costs, uniform)
    assert found.high < 1, f"{found} times the cost of uniform sampling"
