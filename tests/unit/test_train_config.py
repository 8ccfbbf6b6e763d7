"""What a training run refuses before it starts."""

import pytest
from pydantic import Field

from agent_rl.config import build
from agent_rl.errors import ConfigError
from agent_rl.train_config import TrainConfig


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"estimator": "gpro"}, "Unknown estimator 'gpro'. Did you mean 'grpo'?"),
        ({"estimator": "gigpo", "estimator_options": {"gama": 1}}, "Did you mean 'gamma'?"),
        ({"shaping": "clip_proces"}, "Did you mean 'clip_process'?"),
        ({"shaping": "concise", "shaping_options": {"wait": 1}}, "option of the shaping concise 'wait'"),
        ({"shaping_options": {"at": 0.5}}, "set shaping to clip_process"),
        ({"reward_band": [0.8, 0.2]}, "write the lower bound first"),
        ({"critic": {"loss": "hl_gauss"}}, "the estimator grpo uses no critic of tokens"),
        ({"estimator": "token_gae", "utterance_critic": {"tau": 0.2}}, "uses no critic of turns"),
        ({"estimator": "archer", "utterance_critic": {"double": "max"}}, "utterance_critic.double"),
        ({"estimator": "archer", "utterance_critic": {"low": 1.0}}, "has to be below high"),
        ({"estimator": "token_gae", "critic": {"lost": 1}}, "Did you mean 'critic.loss'?"),
        ({"learner": {"correction": "truncate"}}, "set old_logprobs to recompute"),
    ],
)
def test_refused(values, says):
    with pytest.raises(ConfigError) as error:
        build(TrainConfig, values)
    assert says in str(error.value)


def test_a_token_baseline_is_a_critic_of_tokens():
    values = {"estimator": "archer", "utterance_critic": {"token_baseline": True}, "critic": {"learning_rate": 1e-4}}
    assert build(TrainConfig, values).critic.learning_rate == 1e-4


def test_another_estimator_is_not_given_the_options_of_the_usual_one():
    class Recipe(TrainConfig):
        estimator: str = Field(default="gigpo")
        estimator_options: dict[str, float] = Field(default={"step_weight": 0.5})

    assert build(Recipe, {}).estimator_options == {"step_weight": 0.5}
    assert build(Recipe, {"estimator": "gigpo", "steps": 3}).estimator_options == {"step_weight": 0.5}
    assert build(Recipe, {"estimator": "rloo"}).estimator_options == {}
    assert build(Recipe, {"estimator": "gigpo", "estimator_options": {"gamma": 0.5}}).estimator_options == {
        "gamma": 0.5
    }
    assert build(Recipe, {"estimator": "token_gae", "estimator_options": {"lam": 0.9}}).estimator == "token_gae"
