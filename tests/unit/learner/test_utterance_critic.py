"""The utterance-level critic: exact values of a small task, targets that follow, packing, resuming."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from agent_rl.errors import ConfigError
from agent_rl.learner.bellman import find_utterances, returns_of
from agent_rl.learner.utterance_critic import (
    TurnEstimates,
    UtteranceCritic,
    UtteranceCriticConfig,
    explained_variance,
)
from agent_rl.testing.episodes import Played, make_trajectory
from agent_rl.types import Segment, StopReason

# Two turns. In the first, action 0 or 1 leads to state 2 or 3; in the second, action 0 or 1 ends it. Token ids are
# 10 + state and 20 + action, so that every context and utterance is one token.
REWARD = {(0, 0): 0.0, (0, 1): 1.0, (1, 0): 0.5, (1, 1): 0.25}
GAMMA = 0.8
UPDATES = 80
FAST = {"learning_rate": 3e-3, "betas": (0.9, 0.95), "gamma": GAMMA, "double": "independent", "tau": 0.2}


def small(make_model):
    return make_model("qwen3", num_hidden_layers=1)


def play(first, second, policy=0.5, stop_reason=StopReason.TERMINATED):
    """The episode of these actions, by a policy that takes action 1 with this probability."""
    episode = make_trajectory([Played(0.0), Played(REWARD[first, second])], stop_reason=stop_reason)
    ids = np.array([10, 20 + first, 12 + first, 20 + second], np.int32)
    logs = [0, np.log(policy if first else 1 - policy), 0, np.log(policy if second else 1 - policy)]
    old = episode.segments[0]
    segment = Segment(ids, old.response_mask_T, np.array(logs, np.float32), old.weight_versions_T)
    return replace(episode, segments=(segment,))


def sampled(count, policy, seed=0):
    rng = np.random.default_rng(seed)
    return [play(*(rng.random(2) < policy).astype(int).tolist(), policy) for _ in range(count)]


def exact(policy):
    """Q and V of both turns, by the four episodes."""
    mean = [(1 - policy) * REWARD[first, 0] + policy * REWARD[first, 1] for first in (0, 1)]
    q_first = [GAMMA * value for value in mean]
    v_first = (1 - policy) * q_first[0] + policy * q_first[1]
    return {episode: ([q_first[episode[0]], REWARD[episode]], [v_first, mean[episode[0]]]) for episode in REWARD}


def check(critic, policy, tolerance):
    for (first, second), (q, v) in exact(policy).items():
        found = critic.estimate([play(first, second)])
        np.testing.assert_allclose(found.q_U, q, atol=tolerance)
        np.testing.assert_allclose(found.v_U, v, atol=tolerance)


@pytest.mark.parametrize("loss", ["squared", "hl_gauss"])
def test_it_finds_the_exact_values_of_its_data(make_model, loss):
    """The stored actions are the policy's own: all four episodes, as often as it plays them."""
    options = FAST if loss == "squared" else {**FAST, "learning_rate": 1e-2}  # classes begin in the middle, far off
    critic = UtteranceCritic(small(make_model), UtteranceCriticConfig(loss=loss, actions="stored", **options))
    policy = 0.25
    episodes = [play(*pair, policy) for pair in [(0, 0)] * 9 + [(0, 1)] * 3 + [(1, 0)] * 3 + [(1, 1)]]
    for _ in range(UPDATES if loss == "squared" else 120):
        critic.update(episodes)
    check(critic, policy, tolerance=0.04)


def test_importance_gives_the_present_policys_values_from_another_ones_episodes(make_model):
    critic = UtteranceCritic(small(make_model), UtteranceCriticConfig(max_importance=4.0, **FAST))
    episodes, policy = [play(*pair) for pair in REWARD], 0.9
    ratios = [[(policy if action else 1 - policy) / 0.5 for action in pair] for pair in REWARD]
    for _ in range(UPDATES):
        critic.update(episodes, np.array(ratios, np.float64).flatten())
    check(critic, policy, tolerance=0.04)
    stored = UtteranceCritic(small(make_model), UtteranceCriticConfig(**FAST))
    for _ in range(UPDATES):
        stored.update(episodes)
    check(stored, 0.5, tolerance=0.04)  # unweighted, V is that of the policy that played


@pytest.mark.parametrize("advantage", ["q", "td"])
def test_both_kinds_of_advantages_are_exact_where_nothing_is_left_to_chance(make_model, advantage):
    """The same action always leads to the same state, so what followed is what was to be expected of it."""
    critic = UtteranceCritic(small(make_model), UtteranceCriticConfig(advantage=advantage, **FAST))
    for _ in range(UPDATES):
        critic.update([play(*pair) for pair in REWARD])
    for pair, (q, v) in exact(0.5).items():
        found = critic.estimate([play(*pair)])
        np.testing.assert_allclose(found.advantages_U, np.subtract(q, v), atol=0.06)
        of_the_heads = np.allclose(found.advantages_U, found.q_U - found.v_U, atol=1e-9)
        assert of_the_heads == (advantage == "q"), "the TD error reads V alone"


def test_a_cut_episode_is_worth_what_whole_ones_say_of_what_follows(make_model):
    """Only the first turn of some episodes was played: what follows is known from the others, with the same context."""
    critic = UtteranceCritic(small(make_model), UtteranceCriticConfig(**FAST))
    whole = [play(*pair) for pair in REWARD]
    cut = make_trajectory([Played(0.0)], stop_reason=StopReason.MAX_TURNS)
    old = cut.segments[0]
    cut = replace(cut, segments=(replace(old, token_ids_T=np.array([10, 21], np.int32)),))
    for _ in range(UPDATES):
        critic.update([*whole, cut, cut, cut, cut])
    found, expected = critic.estimate([cut]), exact(0.5)[1, 0]
    assert found.q_U[0] == pytest.approx(expected[0][0], abs=0.04)
    ended = replace(cut, stop_reason=StopReason.TERMINATED)
    ending = UtteranceCritic(small(make_model), UtteranceCriticConfig(**FAST))
    for _ in range(UPDATES):
        ending.update([*whole, ended, ended, ended, ended])
    assert ending.estimate([ended]).q_U[0] < 0.2, "an end of the task has nothing behind it"


def values_of(network, critic, episodes):
    return critic._read(network, find_utterances(episodes))


def test_the_target_follows_by_tau_and_only_after_the_step(make_model):
    episodes = sampled(8, 0.5)
    critic = UtteranceCritic(small(make_model), UtteranceCriticConfig(**FAST))
    before = {name: p.clone() for name, p in critic.state_dict()["target"].items()}
    critic.update(episodes)
    after = critic.state_dict()
    moved = 0.0
    for name, target in after["target"].items():
        expected = before[name] + 0.2 * (after["trainable"][name] - before[name])
        torch.testing.assert_close(target, expected)
        moved = max(moved, float((after["trainable"][name] - before[name]).abs().max()))
    assert moved > 0
    frozen = UtteranceCritic(small(make_model), UtteranceCriticConfig(**{**FAST, "tau": 1e-9}))
    for _ in range(30):
        frozen.update(episodes)
    q_S2, _ = values_of(frozen._target, frozen, episodes)
    np.testing.assert_allclose(q_S2, 0.0, atol=1e-5)
    assert frozen.estimate([play(0, 1)]).q_U[0] == pytest.approx(0.0, abs=0.05), "it has nothing to bootstrap from"


def test_both_critics_differ_from_the_first_step_on(make_model):
    critic = UtteranceCritic(small(make_model), UtteranceCriticConfig(**{**FAST, "double": "min"}))
    episodes = sampled(8, 0.5)
    q_S2, v_S2 = values_of(critic._network, critic, episodes)
    assert not q_S2.any()
    assert not v_S2.any()
    for _ in range(3):
        critic.update(episodes)
    q_S2, v_S2 = values_of(critic._network, critic, episodes)
    assert (np.abs(q_S2[:, 0] - q_S2[:, 1]) > 1e-4).any()
    assert (np.abs(v_S2[:, 0] - v_S2[:, 1]) > 1e-4).any()
    lower = critic.estimate(episodes)
    utterances = find_utterances(episodes)
    np.testing.assert_allclose(lower.q_U, q_S2[utterances.after_U].min(1))
    np.testing.assert_allclose(lower.v_U, v_S2[utterances.before_U].min(1))


def ragged():
    """Episodes of many lengths, one of them with a fork, one cut."""
    turns = [Played(0.1 * k, sampled=1 + k, context=2, fork=k == 2) for k in range(4)]
    return [
        make_trajectory(turns),
        make_trajectory(turns[:3], member=1, stop_reason=StopReason.MAX_TURNS),
        make_trajectory([Played(1.0, sampled=3, context=5)], member=2),
    ]


def test_an_update_does_not_depend_on_the_packing(make_model):
    weights, estimates = [], []
    for budget in (9, 10_000):
        config = UtteranceCriticConfig(token_budget=budget, **FAST)
        critic = UtteranceCritic(make_model("qwen3", torch.float64), config)
        for _ in range(4):
            critic.update(ragged())
        weights.append(torch.cat([p.flatten() for p in critic.state_dict()["trainable"].values()]))
        estimates.append(critic.estimate(ragged()))
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-5)  # targets are read in fp32
    np.testing.assert_allclose(estimates[0].q_U, estimates[1].q_U, rtol=1e-4)
    assert len(estimates[0].q_U) == 8


def test_it_reads_what_the_plain_model_says_of_prefixes(make_model):
    """Against one forward pass per prefix, by the bare model and heads."""
    critic = UtteranceCritic(make_model("qwen3", torch.float64), UtteranceCriticConfig(**FAST))
    for _ in range(5):
        critic.update(ragged())
    found = critic.estimate(ragged())
    q, v = [], []
    for episode in ragged():
        for turn in episode.turns:
            ids = torch.as_tensor(episode.segments[turn.segment].token_ids_T, dtype=torch.long)
            for end, heads, values in ((turn.end, (0, 1), q), (turn.start, (2, 3), v)):
                with torch.no_grad():
                    hidden = critic._network.model.model(ids[None, :end]).last_hidden_state[0, -1]
                    values.append(min(critic._network.heads[head](hidden).item() for head in heads))
    np.testing.assert_allclose(found.q_U, q, atol=1e-5)
    np.testing.assert_allclose(found.v_U, v, atol=1e-5)


@pytest.mark.parametrize("loss", ["squared", "hl_gauss"])
def test_it_goes_on_bit_for_bit(make_model, loss):
    config, episodes = UtteranceCriticConfig(loss=loss, **FAST), sampled(6, 0.5)
    critic = UtteranceCritic(make_model("qwen3"), config)
    critic.update(episodes)
    state = copy.deepcopy(critic.state_dict())
    other = UtteranceCritic(make_model("qwen3"), config)
    other.load_state_dict(state)
    assert critic.update(episodes) == other.update(episodes)
    assert critic.update(episodes) == other.update(episodes), "the target network is part of the state"
    assert np.array_equal(critic.estimate(episodes).q_U, other.estimate(episodes).q_U)
    with pytest.raises(ConfigError, match="another critic"):
        UtteranceCritic(small(make_model), UtteranceCriticConfig(loss="hl_gauss", bins=7)).load_state_dict(state)


def test_hl_gauss_starts_in_the_middle(make_model):
    config = UtteranceCriticConfig(loss="hl_gauss", low=-1.0, high=2.0)
    found = UtteranceCritic(make_model("llama"), config).estimate(ragged())
    np.testing.assert_allclose(found.q_U, 0.5, atol=1e-6)


def test_explained_variance_is_1_for_the_returns_and_0_for_a_constant():
    episodes = [play(*pair) for pair in REWARD]
    returns_U = returns_of(find_utterances(episodes), GAMMA)
    explained = explained_variance(TurnEstimates(returns_U, np.full(8, 0.3), np.zeros(8)), episodes, GAMMA)
    assert explained == {"q_explained_variance": pytest.approx(1.0), "v_explained_variance": pytest.approx(0.0)}
