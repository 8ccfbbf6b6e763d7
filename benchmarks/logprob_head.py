"""Log-probs of a large vocabulary, forward and backward: ours, the naive head, and the two of TRL.

    pip install -c constraints.txt ".[bench]"
    python benchmarks/logprob_head.py

2048 tokens, hidden size 512, vocabulary 65,536, fp32; the loss counts all tokens, or every fourth. TRL's are called,
not imitated: `selective_log_softmax` on all logits, and the chunked head of its trainers, which on a CPU scores all
tokens and masks. Ours and TRL's chunked head give the entropy too. All are checked to give the same loss and
gradients. CPU time of one thread; the variants take turns, the fastest round counts. Memory is what torch's allocator
holds at the peak beside the inputs. The limits are the products that no exact method avoids (6 FLOP per token, hidden
unit and vocabulary entry, at the rate of a large product), and the gradients themselves.
"""

import torch
from machine import cpu_s, gemm_rate, peak_bytes
from rich.console import Console
from rich.table import Table
from trl.kernels import ChunkedLogProbFunction
from trl.trainer.utils import selective_log_softmax

from agent_rl.learner.head import Head, head_loss
from agent_rl.learner.objective import Likelihood
from agent_rl.learner.tensors import TrainedTokens

N, H, V, ROUNDS = 2048, 512, 65_536, 5
TRL_CHUNK = 32_768  # the width that TRL's trainers use


class Inputs:
    """Hidden states, a head and targets, of which the loss counts those in `trained`."""

    def __init__(self, fraction: float) -> None:
        torch.manual_seed(0)
        self.hidden = torch.randn(N, H).requires_grad_()
        self.weight = (torch.randn(V, H) * H**-0.5).requires_grad_()
        self.targets = torch.randint(0, V, (N,))
        self.trained = torch.arange(N) % round(1 / fraction) == 0
        self.weights = self.trained / self.trained.sum()

    def naive(self) -> torch.Tensor:
        logprobs = (self.hidden @ self.weight.T).log_softmax(-1).gather(1, self.targets[:, None])
        return -(self.weights * logprobs.squeeze(1)).sum()

    def selective(self) -> torch.Tensor:
        return -(self.weights * selective_log_softmax(self.hidden @ self.weight.T, self.targets)).sum()

    def chunked(self) -> torch.Tensor:
        found = ChunkedLogProbFunction.apply(
            self.hidden, self.weight, None, self.targets, 1.0, TRL_CHUNK, None, 1.0, ("entropy",)
        )
        return -(self.weights * found[0]).sum()

    def ours(self) -> torch.Tensor:
        sources = self.trained.nonzero().squeeze(1)
        weights, zeros = self.weights[sources], torch.zeros(len(sources))
        targets = self.targets[sources]
        numbers = zeros.long()  # of rows, turns and weight versions
        tokens = TrainedTokens(targets, weights, *[zeros] * 3, zeros + 1, *[numbers] * 3, zeros, zeros)
        hidden = self.hidden.index_select(0, sources)
        return head_loss(Head(self.weight, None, 1.0, torch.float32), hidden, tokens, Likelihood()).loss

    def differentiate(self, name: str) -> float:
        """The loss. The gradients are left in `hidden` and `weight`."""
        self.hidden.grad = self.weight.grad = None
        loss: torch.Tensor = getattr(self, name)()
        loss.backward()
        return loss.item()

    def gradients(self) -> list[torch.Tensor]:
        assert self.hidden.grad is not None
        assert self.weight.grad is not None
        return [self.hidden.grad, self.weight.grad]


NAMES = {"naive": "naive", "selective": "TRL selective_log_softmax", "chunked": "TRL chunked head", "ours": "ours"}


def check(inputs: Inputs) -> None:
    """Raises `AssertionError` when two variants differ."""
    expected = inputs.differentiate("naive"), inputs.gradients()
    for name in NAMES:
        loss = inputs.differentiate(name)
        torch.testing.assert_close(loss, expected[0], rtol=1e-5, atol=0)
        for actual, reference in zip(inputs.gradients(), expected[1], strict=True):
            assert (actual - reference).norm() <= 1e-5 * reference.norm(), name


def measure(inputs: Inputs) -> tuple[dict[str, float], dict[str, int], float]:
    """CPU seconds and peak bytes of each variant, and the rate of matrix products."""
    times: dict[str, list[float]] = {name: [] for name in NAMES}
    rates = []
    for _ in range(ROUNDS):
        for name, measured in times.items():
            measured.append(cpu_s(lambda name=name: inputs.differentiate(name)))
        rates.append(gemm_rate())
    memory = {name: peak_bytes(lambda name=name: inputs.differentiate(name)) for name in NAMES}
    return {name: min(measured) for name, measured in times.items()}, memory, max(rates)


def main() -> None:
    torch.set_num_threads(1)
    for fraction in (1.0, 0.25):
        inputs = Inputs(fraction)
        check(inputs)
        seconds, memory, rate = measure(inputs)
        limit_s, floor = 6 * fraction * N * H * V / rate, 4 * (N * H + V * H)
        table = Table(title=f"{N} tokens, {fraction:.0%} of them trained; {rate / 1e9:.0f} GFLOP/s")
        for column in ("head", "CPU s", "of naive", "peak MiB", "of naive "):
            table.add_column(column, justify="left" if column == "head" else "right")
        rows = {NAMES[name]: (seconds[name], memory[name]) for name in NAMES} | {"limit": (limit_s, floor)}
        for name, (time_s, size) in rows.items():
            shares = time_s / seconds["naive"], size / memory["naive"]
            table.add_row(name, f"{time_s:.2f}", f"{shares[0]:.2f}", f"{size / 2**20:,.0f}", f"{shares[1]:.2f}")
        Console().print(table)


if __name__ == "__main__":
    main()
