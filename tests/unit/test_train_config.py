"""What a training run refuses before it starts."""

import pytest

from agent_rl.config import build
from agent_rl.errors import ConfigError
from agent_rl.train import TrainConfig


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"estimator": "gpro"}, "Unknown estimator 'gpro'. Did you mean 'grpo'?"),
        ({"estimator": "gigpo", "estimator_options": {"gama": 1}}, "Did you mean 'gamma'?"),
        ({"shaping": "clip_proces"}, "Did you mean 'clip_process'?"),
        ({"shaping": "concise", "shaping_options": {"wait": 1}}, "option of the shaping concise 'wait'"),
        ({"shaping_options": {"at": 0.5}}, "set shaping to clip_process"),
        ({"reward_band": [0.8, 0.2]}, "write the lower bound first"),
        ({"critic": {"loss": "hl_gauss"}}, "the estimator grpo uses no critic"),
        ({"estimator": "token_gae", "critic": {"lost": 1}}, "Did you mean 'critic.loss'?"),
        ({"learner": {"correction": "truncate"}}, "set old_logprobs to recompute"),
    ],
)
def test_refused(values, says):
    with pytest.raises(ConfigError) as error:
        build(TrainConfig, values)
    assert says in str(error.value)
