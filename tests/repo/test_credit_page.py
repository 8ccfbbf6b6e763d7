"""docs/credit.md has every estimator, loss and correction."""

from pathlib import Path

import pytest

from agent_rl.credit import BATCH_ESTIMATORS, CRITIC_ESTIMATORS, GROUP_ESTIMATORS, UTTERANCE_ESTIMATORS
from agent_rl.learner.losses import LOSSES
from agent_rl.learner.mismatch import CORRECTIONS
from agent_rl.learner.penalties import DIVERGENCES

PAGE = (Path(__file__).parents[2] / "docs/credit.md").read_text("utf-8")
NAMES = sorted(
    {
        *(*GROUP_ESTIMATORS, *BATCH_ESTIMATORS, *CRITIC_ESTIMATORS, *UTTERANCE_ESTIMATORS),
        *(*LOSSES, *CORRECTIONS, *DIVERGENCES),
    }
    - {"best_of_group"}
)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_in_the_table(name):
    assert f"| `{name}` |" in PAGE
