"""One optimizer step on ragged rollouts: our packed learner, TRL's GRPOTrainer, and the machine's limit.

    pip install -c constraints.txt ".[bench]"
    python benchmarks/learner_packing.py

32 rollouts of log-normal length, a prompt each, an 11M-parameter Qwen3. TRL's part is its own code: its trainer pads a
step's prompts left and its completions right, to one width for all, and computes micro-batches of 8 with sdpa
attention and its chunked head, without activation checkpointing (so that it is faster, not smaller). Both are checked
to give the same loss and gradient. The limit is the step's useful matrix products at the rate of a large fp32 product.
CPU time of one thread; the variants take turns so that a slow moment hits all of them; the fastest round counts. Memory
is what torch's allocator takes at the peak of a step, beside weights and optimizer.
"""

import copy
import math
import os
import tempfile
from collections.abc import Sequence

import numpy as np
import torch
from datasets import Dataset
from machine import cpu_s, gemm_rate, peak_bytes
from rich.console import Console
from rich.table import Table
from small_learner import CONFIG, training_row
from transformers import PreTrainedModel, Qwen3ForCausalLM
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import pad, split_tensor_dict

from agent_rl.learner.learner import Learner, LearnerConfig
from agent_rl.testing.tiny import make_tokenizer
from agent_rl.types import TrainingRow

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
ROLLOUTS, MICRO_BATCH, ROUNDS = 32, 8, 3
CLIP = {"clip_low": 0.2, "clip_high": 0.28}
LEARNER = LearnerConfig(learning_rate=1e-6, token_budget=4096, loss_options=CLIP)


def make_rows() -> tuple[list[TrainingRow], list[int]]:
    """Rows and their prompt lengths. Every fourth stretch of a completion is a tool's reply: not trained."""
    rng = np.random.default_rng(0)
    prompts = rng.integers(40, 120, ROLLOUTS)
    completions = np.clip(rng.lognormal(np.log(120), 0.9, ROLLOUTS), 8, 1024).astype(int)
    rows = []
    for prompt, completion in zip(prompts, completions, strict=True):
        length = int(prompt + completion)
        sampled_T = (np.arange(length) >= prompt) & ((np.arange(length) - prompt) % 64 < 48)
        ids_T = rng.integers(0, CONFIG.vocab_size, length)
        rows.append(training_row(ids_T, sampled_T, rng.normal(), CONFIG.vocab_size))
    return rows, prompts.tolist()


class TRL:
    """The same loss and optimizer by TRL's GRPOTrainer: its padding, forward, fused head and loss are its own code."""

    def __init__(self, model: PreTrainedModel, rows: Sequence[TrainingRow], prompts: Sequence[int]) -> None:
        self.rows, self.prompts = rows, prompts
        with tempfile.TemporaryDirectory() as folder:
            self.trainer = GRPOTrainer(
                model,
                reward_funcs=lambda completions, **_: [0.0] * len(completions),
                processing_class=make_tokenizer(["a few words"]),
                train_dataset=Dataset.from_list([{"prompt": "a"}] * ROLLOUTS),
                args=GRPOConfig(
                    output_dir=folder,
                    use_cpu=True,
                    report_to=[],
                    bf16=False,
                    per_device_train_batch_size=MICRO_BATCH,
                    gradient_accumulation_steps=ROLLOUTS // MICRO_BATCH,
                    num_generations=2,
                    gradient_checkpointing=False,  # on by default: less memory, a third more time
                    loss_type="dapo",  # a mean over all tokens
                    epsilon=CLIP["clip_low"],
                    epsilon_high=CLIP["clip_high"],
                    beta=0.0,
                ),
            )
        self.trainer.current_gradient_accumulation_steps = ROLLOUTS // MICRO_BATCH  # what its loop sets
        self.model = self.trainer.model.eval()
        self.model.set_attn_implementation("sdpa")
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=LEARNER.learning_rate, weight_decay=0, fused=True
        )
        self.batches = split_tensor_dict(self._pad(), ROLLOUTS // MICRO_BATCH)
        self.computed = sum(b["prompt_ids"].numel() + b["completion_ids"].numel() for b in self.batches)

    def _pad(self) -> dict[str, torch.Tensor]:
        """As its `_generate_and_score_completions` leaves them: all rollouts of a step to one width."""

        def both(name: str, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
            cut = [
                torch.as_tensor(getattr(row, name)[part], dtype=dtype)
                for row, prompt in zip(self.rows, self.prompts, strict=True)
                for part in (slice(prompt), slice(prompt, None))
            ]
            return pad(cut[::2], padding_side="left"), pad(cut[1::2], padding_side="right")

        prompt_ids, completion_ids = both("token_ids_T", torch.long)
        lengths = [torch.ones(len(row.token_ids_T), dtype=torch.long) for row in self.rows]
        pairs = list(zip(lengths, self.prompts, strict=True))
        return {
            "prompt_ids": prompt_ids,
            "completion_ids": completion_ids,
            "prompt_mask": pad([ones[:prompt] for ones, prompt in pairs], padding_side="left"),
            "completion_mask": pad([ones[prompt:] for ones, prompt in pairs], padding_side="right"),
            "tool_mask": both("response_mask_T", torch.long)[1],
            "advantages": both("advantages_T", torch.float32)[1],
            "old_per_token_logps": both("rollout_logprobs_T", torch.float32)[1],
        }

    def step(self) -> tuple[float, float]:
        """The loss, and the norm of the gradient before it is clipped."""
        total = torch.tensor(sum(int(row.response_mask_T.sum()) for row in self.rows))
        self.optimizer.zero_grad()
        loss = 0.0
        for batch in self.batches:
            part = self.trainer._compute_loss(self.model, {**batch, "num_items_in_batch": total})
            part.backward()
            loss += part.item()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), LEARNER.max_grad_norm)
        self.optimizer.step()
        return loss, norm.item()


def check(learner: Learner, trl: TRL, rows: Sequence[TrainingRow]) -> None:
    """One step of each. Raises `AssertionError` unless both have the same loss and gradient."""
    report, (loss, norm) = learner.step(rows), trl.step()
    assert math.isclose(report["loss"], loss, rel_tol=1e-5), (report["loss"], loss)
    assert math.isclose(report["grad_norm"], norm, rel_tol=1e-4), (report["grad_norm"], norm)
    ours, theirs = (torch.cat([p.grad.flatten() for p in m.parameters()]) for m in (learner.model, trl.model))
    assert (ours - theirs).norm() <= 1e-4 * theirs.norm()


def useful_flop(model: PreTrainedModel, rows: Sequence[TrainingRow]) -> float:
    """Matrix products that no exact method avoids: 2 FLOP forward and 4 backward per weight and token."""
    tokens = sum(len(row.token_ids_T) - 1 for row in rows)
    trained = sum(int((row.weights_T > 0).sum()) for row in rows)
    head = CONFIG.vocab_size * CONFIG.hidden_size
    body = sum(p.numel() for p in model.parameters() if p.ndim > 1) - head
    visible_pairs = sum(len(row.token_ids_T) ** 2 / 2 for row in rows)
    attention = 12 * CONFIG.num_hidden_layers * CONFIG.num_attention_heads * CONFIG.head_dim * visible_pairs
    return 6 * body * tokens + 6 * head * trained + attention


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows, prompts = make_rows()
    model = Qwen3ForCausalLM(CONFIG)
    trl = TRL(copy.deepcopy(model), rows, prompts)
    learner = Learner(model, LEARNER)
    check(learner, trl, rows)
    steps = {"agent-rl": lambda: learner.step(rows), "TRL": trl.step}
    memory = {name: peak_bytes(step) for name, step in steps.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    rates = []
    for _ in range(ROUNDS):
        for name, step in steps.items():
            times[name].append(cpu_s(step))
        rates.append(gemm_rate())
    seconds = {name: min(measured) for name, measured in times.items()}
    tokens, flop = sum(len(row.token_ids_T) for row in rows), useful_flop(model, rows)
    limit_s = flop / max(rates)
    parameters = sum(p.numel() for p in model.parameters())
    print(
        f"{parameters / 1e6:.1f}M parameters, {tokens} real tokens in {ROLLOUTS} rollouts, {trl.computed} when padded"
    )
    table = Table()
    for column in ("", "CPU s", "real tokens / s", "useful GFLOP/s", "of the limit", "peak MiB"):
        table.add_column(column, justify="right")
    for name, time_s in {**seconds, "limit": limit_s}.items():
        size = f"{memory[name] / 2**20:,.0f}" if name in memory else ""
        rate = f"{flop / time_s / 1e9:.1f}"
        table.add_row(name, f"{time_s:.2f}", f"{tokens / time_s:,.0f}", rate, f"{limit_s / time_s:.0%}", size)
    Console().print(table)
    faster, smaller = seconds["TRL"] / seconds["agent-rl"], memory["agent-rl"] / memory["TRL"]
    print(f"{faster:.1f} times as fast as TRL, {smaller:.2f} of its memory")


if __name__ == "__main__":
    main()
