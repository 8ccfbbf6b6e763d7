"""docs/credit.md has every estimator, shaping, aggregation, loss, correction and divergence."""

from pathlib import Path
from typing import get_args

import pytest

from agent_rl.credit import (
    CRITIC_ESTIMATORS,
    EPISODE_ESTIMATORS,
    SHAPINGS,
    STEP_ESTIMATORS,
    UTTERANCE_ESTIMATORS,
    Aggregation,
)
from agent_rl.learner.imitation_losses import IMITATION_LOSSES
from agent_rl.learner.losses import LOSSES
from agent_rl.learner.mismatch import CORRECTIONS
from agent_rl.learner.penalties import DIVERGENCES, EXACT_DIVERGENCES

PAGE = (Path(__file__).parents[2] / "docs/credit.md").read_text("utf-8")
ESTIMATORS = {*EPISODE_ESTIMATORS, *STEP_ESTIMATORS, *CRITIC_ESTIMATORS, *UTTERANCE_ESTIMATORS}
CREDIT = {*ESTIMATORS, *SHAPINGS, *get_args(Aggregation)}
TERMS = {*DIVERGENCES, *EXACT_DIVERGENCES, *IMITATION_LOSSES}
NAMES = sorted({*CREDIT, *LOSSES, *CORRECTIONS, *TERMS} - {"best_of_group"})


@pytest.mark.parametrize("name", NAMES)
def test_it_is_in_the_table(name):
    assert f"| `{name}` |" in PAGE
