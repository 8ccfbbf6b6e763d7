"""docs/credit.md has every estimator, loss, correction and divergence."""

from pathlib import Path

import pytest

from agent_rl.credit import BATCH_ESTIMATORS, CRITIC_ESTIMATORS, GROUP_ESTIMATORS
from agent_rl.learner.imitation_losses import IMITATION_LOSSES
from agent_rl.learner.losses import LOSSES
from agent_rl.learner.mismatch import CORRECTIONS
from agent_rl.learner.penalties import DIVERGENCES, EXACT_DIVERGENCES

PAGE = (Path(__file__).parents[2] / "docs/credit.md").read_text("utf-8")
TERMS = {*DIVERGENCES, *EXACT_DIVERGENCES, *IMITATION_LOSSES}
NAMES = sorted(
    {*GROUP_ESTIMATORS, *BATCH_ESTIMATORS, *CRITIC_ESTIMATORS, *LOSSES, *CORRECTIONS, *TERMS} - {"best_of_group"}
)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_in_the_table(name):
    assert f"| `{name}` |" in PAGE
