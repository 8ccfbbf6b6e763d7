"""The utterance critic among groups: what it is asked, what it gives to credit, how its parts are put together."""

import copy
import functools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from agent_rl.errors import ConfigError
from agent_rl.learner.bellman import find_utterances
from agent_rl.learner.config import LearnerConfig
from agent_rl.learner.critic import Critic, CriticConfig
from agent_rl.learner.learner import Learner
from agent_rl.learner.utterance_critic import TurnEstimates, UtteranceCriticConfig
from agent_rl.store.opening import create_journal, open_journal
from agent_rl.store.replay import Replay
from agent_rl.testing.episodes import Played, make_group, make_trajectory
from agent_rl.testing.tiny import make_model, make_tokenizer
from agent_rl.types import TrainingRow
from agent_rl.valuation import Surroundings, open_valuation
from agent_rl.valuation.utterance import UtteranceValuation, importance

FAST = {"learning_rate": 3e-3, "updates": 3, "groups_per_update": 2}


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(["a b c"], vocab_size=270)


@pytest.fixture(scope="module")
def model(tokenizer):
    return make_model(tokenizer, hidden_size=32, layers=1, heads=1)


def groups():
    """Two groups with a fork, a turn without tokens, a cut episode and a failed one."""
    turns = [Played(0.0, sampled=2), Played(0.0, sampled=0), Played(1.0, sampled=3, context=3, fork=True)]
    first = make_group(
        make_trajectory(turns), make_trajectory(turns, member=1), make_trajectory(turns, member=2, failed=True)
    )
    second = [make_trajectory([Played(0.0, context=4)], member=i) for i in range(2)]
    return [first, replace(make_group(*second), index=1)]


def journal_of(path, groups):
    with create_journal(path) as journal:
        for group in groups:
            journal.append_group(group)
    return functools.partial(open_journal, path)


def as_sampled(rows):
    """The policy is the one that sampled."""
    return [row.rollout_logprobs_T for row in rows]


def opened(path, model, token=None, **options):
    learner = SimpleNamespace(logprobs=as_sampled)
    around = Surroundings(model, learner, journal_of(path, groups()), lambda group: group, steps=3, seed=0)
    return open_valuation("utterance", token or CriticConfig(), UtteranceCriticConfig(**{**FAST, **options}), around)


def test_turns_without_tokens_have_no_advantage_and_the_others_have(tmp_path, model):
    with opened(tmp_path / "j", model) as valuation:
        for step in range(8):
            values, report = valuation.assess(groups(), step)
    assert [[len(a) for a in value.advantages] for value in values] == [[3, 3], [1, 1]]
    assert values[0].advantages[0][1] == 0.0
    assert values[0].advantages[0][0] != 0.0
    np.testing.assert_array_equal(*values[0].advantages)  # the same tokens are worth the same
    assert values[0].baseline is None
    assert report["importance"] == pytest.approx(1.0)
    assert {"q_loss", "v_loss", "q_explained_variance", "v_explained_variance", "target_lag"} <= report.keys()
    assert values[0].advantages[0][2] > values[1].advantages[0][0], "the rewarded turn is worth more than the other"


def test_no_batch_no_lesson(tmp_path, model):
    with opened(tmp_path / "j", model) as valuation:
        before = copy.deepcopy(valuation.state_dict())
        assert valuation.assess([], 0) == ([], {})
        silent = make_group(make_trajectory([Played(sampled=0)]), make_trajectory([], member=1))
        values, report = valuation.assess([silent], 0)
        assert ([a.tolist() for a in values[0].advantages], report) == ([[0.0], []], {})
    for name, parameter in valuation.state_dict()["utterance"]["trainable"].items():
        assert torch.equal(parameter, before["utterance"]["trainable"][name])


class Settled:
    """A critic that has learnt all that it will: the advantage of utterance u is 0.1 u."""

    config = UtteranceCriticConfig(**FAST)

    def update(self, episodes, weights_U=None):
        return {}

    def estimate(self, episodes):
        count = len(find_utterances(episodes).next_U)
        q_U = 0.1 * np.arange(count)
        return TurnEstimates(q_U, np.zeros(count), q_U)


def test_a_baseline_learns_the_advantage_inside_of_a_turn(tmp_path, model):
    token = CriticConfig(learning_rate=5e-3)
    with create_journal(tmp_path) as journal:
        baseline = Critic(copy.deepcopy(model), token)
        valuation = UtteranceValuation(Settled(), Replay(journal, 9, 0), as_sampled, baseline)
        first, _ = valuation.assess(groups()[:1], 0)
        for step in range(1, 90):
            values, report = valuation.assess(groups()[:1], step)
    assert not any(row.any() for rows in first[0].baseline for row in rows), "a new baseline expects nothing"
    assert report["baseline_loss"] < 0.01
    # Both members said the same: what is to be expected is the mean of the advantages of both.
    first_turn, second_turn = (0.0 + 0.2) / 2, (0.1 + 0.3) / 2
    np.testing.assert_allclose(values[0].baseline[0][0], [0, first_turn, first_turn, 0], atol=0.05)
    np.testing.assert_allclose(values[0].baseline[0][1], [0, 0, 0, second_turn, second_turn, second_turn], atol=0.05)


def test_state_goes_on_bit_for_bit_with_both_critics(tmp_path, model):
    options = {"token_baseline": True, "updates": 1}
    with opened(tmp_path / "j", model, CriticConfig(learning_rate=3e-3), **options) as valuation:
        valuation.assess(groups(), 0)
        state = copy.deepcopy(valuation.state_dict())
        expected = [valuation.assess(groups(), step) for step in (1, 2)]
    with opened(tmp_path / "k", model, CriticConfig(learning_rate=3e-3), **options) as other:
        other.load_state_dict(state)
        for step, (values, report) in enumerate(expected, start=1):
            found, again = other.assess(groups(), step)
            assert again == report
            for one, two in zip(values, found, strict=True):
                for rows, twins in ((one.advantages, two.advantages), *zip(one.baseline, two.baseline, strict=True)):
                    assert all(np.array_equal(row, twin) for row, twin in zip(rows, twins, strict=True))


def test_importance_is_the_ratio_of_whole_turns(model):
    learner = Learner(copy.deepcopy(model), LearnerConfig(token_budget=8))
    episodes = [episode for group in groups() for episode in group.valid]
    found = importance(learner.logprobs, episodes, limit=1e9)
    expected = []
    for episode in episodes:
        for turn in episode.turns:
            if turn.end > turn.start:
                ids = torch.as_tensor(episode.segments[turn.segment].token_ids_T, dtype=torch.long)
                with torch.no_grad():
                    logprobs = model(ids[None]).logits[0].log_softmax(-1)
                places = range(turn.start, turn.end)
                expected.append(np.exp(sum(float(logprobs[t - 1, ids[t]]) + 0.5 for t in places)))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert len(found) == 6
    assert importance(lambda rows: [0 * row.rollout_logprobs_T for row in rows], episodes, limit=1.5).max() == 1.5


def test_the_learner_scores_weighted_tokens_alone(model):
    ids = np.array([5, 6, 7, 8], np.int32)
    weights = np.array([0, 1, 0, 1], np.float32)
    zeros = np.zeros(4, np.float32)
    row = TrainingRow(ids, weights > 0, zeros, zeros, weights, np.zeros(4, np.int32))
    unweighted = replace(row, weights_T=zeros)
    learner = Learner(copy.deepcopy(model), LearnerConfig(), temperature=2.0)
    silent, scored = learner.logprobs([unweighted, row])
    with torch.no_grad():
        logprobs = (model(torch.as_tensor(ids, dtype=torch.long)[None]).logits[0] / 2.0).log_softmax(-1)
    assert not silent.any()
    np.testing.assert_allclose(scored, [0, logprobs[0, 6], 0, logprobs[2, 8]], rtol=1e-5)


def test_the_critic_may_start_from_another_checkpoint_of_the_same_tokens(tmp_path, model, tokenizer):
    wide = make_model(tokenizer, hidden_size=64, layers=1, heads=1)
    for folder, saved, vocabulary in (("wide", wide, tokenizer), ("other", None, None)):
        if saved is None:
            vocabulary = make_tokenizer(["other text here"] * 9, vocab_size=280)
            saved = make_model(vocabulary, hidden_size=32, layers=1, heads=1)
        saved.save_pretrained(tmp_path / folder)
        vocabulary.save_pretrained(tmp_path / folder)
    with opened(tmp_path / "j", model, checkpoint=str(tmp_path / "wide")) as valuation:
        valuation.assess(groups(), 0)
        parameters = valuation.state_dict()["utterance"]["trainable"]
        assert parameters["heads.0.0.weight"].shape == (64, 64)
    with (
        pytest.raises(ConfigError, match="the same tokenizer"),
        opened(tmp_path / "j", model, checkpoint=str(tmp_path / "other")),
    ):
        pass
