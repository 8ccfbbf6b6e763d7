"""Sampling: distributions, truncation, edge cases of the inverse CDF, rows that do not see each other."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_rl.engine.local.sampling import sample, uniforms
from agent_rl.types import SamplingParams

ALMOST_ONE = 1.0 - 2.0**-53


def draw(logits: torch.Tensor, params: SamplingParams, count: int) -> torch.Tensor:
    """Tokens for `count` evenly spread uniforms: their shares are the probabilities, up to 1 / count."""
    spread = [(n + 0.5) / count for n in range(count)]
    return sample(logits.expand(count, -1), [params] * count, spread)[0]


def shares(logits: torch.Tensor, params: SamplingParams, count: int = 4000) -> torch.Tensor:
    return torch.bincount(draw(logits, params, count), minlength=logits.shape[-1]) / count


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_follow_the_softmax_at_the_temperature(temperature: float) -> None:
    logits = torch.tensor([1.0, -0.5, 2.0, 0.0])
    expected = (logits / temperature).softmax(-1)
    assert torch.allclose(shares(logits, SamplingParams(temperature=temperature)), expected, atol=1e-3)


def test_truncation_keeps_the_likeliest_in_their_proportions() -> None:
    logits = torch.tensor([0.1, 0.4, 0.3, 0.2]).log()
    assert torch.allclose(shares(logits, SamplingParams(top_k=2)), torch.tensor([0, 4 / 7, 3 / 7, 0]), atol=1e-3)
    # 0.4 + 0.3 reaches 0.65; 0.4 alone reaches 0.4.
    assert torch.allclose(shares(logits, SamplingParams(top_p=0.65)), torch.tensor([0, 4 / 7, 3 / 7, 0]), atol=1e-3)
    assert shares(logits, SamplingParams(top_p=0.4))[1] == 1.0
    # top-p is a share of what top-k leaves: of 4/7 and 3/7, the first alone reaches 0.5.
    assert shares(logits, SamplingParams(top_k=2, top_p=0.5))[1] == 1.0


def test_the_likeliest_token_always_stays() -> None:
    assert shares(torch.tensor([0.0, 1.0, 0.5]), SamplingParams(top_p=0.0))[1] == 1.0


def test_logprobs_are_those_before_truncation_and_of_temperature_one_when_greedy() -> None:
    logits = torch.tensor([[0.3, 1.2, -0.7, 0.9]])
    ids, logprobs = sample(logits, [SamplingParams(temperature=0.5, top_k=1)], [0.4])
    assert torch.allclose(logprobs, (logits / 0.5).log_softmax(-1)[:, ids[0]])
    ids, logprobs = sample(logits, [SamplingParams(temperature=0.0)], [0.99])
    assert ids.tolist() == [1]
    assert torch.allclose(logprobs, logits.log_softmax(-1)[:, 1])


@settings(max_examples=200)
@given(
    seed=st.integers(0, 2**31),
    vocab=st.integers(1, 3000),
    scale=st.floats(0.0, 60.0),
    uniform=st.sampled_from([0.0, 2.0**-53, 0.25, 1 - 2.0**-24, ALMOST_ONE]) | st.floats(0, ALMOST_ONE),
    top_k=st.integers(0, 5),
    top_p=st.sampled_from([0.1, 0.9, 1.0]),
)
def test_no_impossible_token_for_any_uniform(seed, vocab, scale, uniform, top_k, top_p) -> None:
    """Tokens of probability zero (-inf or underflown logits, or truncated) never come out, whatever the rounding."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, vocab, generator=generator) * scale
    banned = torch.rand(1, vocab, generator=generator) < 0.5
    banned[0, int(logits.argmax())] = False
    logits = logits.masked_fill(banned, float("-inf"))
    ids, logprobs = sample(logits, [SamplingParams(top_k=top_k, top_p=top_p)], [uniform])
    token = int(ids[0])
    assert torch.isfinite(logprobs).all()
    assert not banned[0, token]
    if top_k:
        probs = logits[0].log_softmax(-1).exp()
        assert int((probs > probs[token]).sum()) < top_k


def test_trailing_zeros_are_not_reached_by_rounding() -> None:
    """Two thousand equal tokens do not sum to exactly 1 in fp32; behind them are tokens of probability zero."""
    for size in range(900, 2000, 37):
        logits = torch.cat([torch.zeros(size), torch.full((50,), float("-inf"))])[None]
        ids, _ = sample(logits, [SamplingParams()], [ALMOST_ONE])
        assert int(ids[0]) == size - 1


@settings(max_examples=50)
@given(rows=st.integers(1, 9), seed=st.integers(0, 1000))
def test_rows_do_not_see_each_other(rows: int, seed: int) -> None:
    kinds = itertools.cycle(
        [SamplingParams(), SamplingParams(temperature=0.0), SamplingParams(temperature=0.7, top_k=3, top_p=0.8)]
    )
    params = list(itertools.islice(kinds, rows))
    logits = torch.randn(rows, 31, generator=torch.Generator().manual_seed(seed))
    points = torch.rand(rows, generator=torch.Generator().manual_seed(seed + 1)).tolist()
    ids, logprobs = sample(logits, params, points)
    for n in range(rows):
        alone_ids, alone_logprobs = sample(logits[n : n + 1], params[n : n + 1], points[n : n + 1])
        assert int(alone_ids[0]) == int(ids[n])
        assert torch.allclose(alone_logprobs[0], logprobs[n])


def test_uniforms_are_one_stream_per_seed() -> None:
    first, again, other = (list(itertools.islice(uniforms(seed), 200)) for seed in (5, 5, 6))
    assert first == again
    assert first != other
    assert len(set(first)) == 200
    assert all(0 <= uniform < 1 for uniform in first)
