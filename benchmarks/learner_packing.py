"""One optimizer step on ragged rollouts: packed (ours), padded (the usual GRPO compute path), and the machine's limit.

32 rollouts of log-normal length, a prompt each, an 11M-parameter Qwen3. The padded path is what TRL's GRPOTrainer
computes without fused kernels: prompts padded left, completions right, micro-batches of 8, sdpa attention with a mask,
logits of all completion positions. The limit is the step's useful matrix products at the rate of a large fp32 product.
CPU time of one thread; the variants take turns so that a slow moment hits all of them; the fastest round counts.

    python benchmarks/learner_packing.py
"""

import copy
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from agent_rl.learner.learner import Learner, LearnerConfig
from agent_rl.types import TrainingRow

ROLLOUTS, MICRO_BATCH, ROUNDS = 32, 8, 3
CONFIG = Qwen3Config(
    vocab_size=12_288,
    hidden_size=384,
    intermediate_size=1024,
    num_hidden_layers=4,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=64,
    max_position_embeddings=2048,
    tie_word_embeddings=True,
)
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
        zeros_T = np.zeros(length, np.float32)
        rows.append(
            TrainingRow(
                token_ids_T=rng.integers(0, CONFIG.vocab_size, length).astype(np.int32),
                response_mask_T=sampled_T,
                rollout_logprobs_T=np.where(sampled_T, -np.log(CONFIG.vocab_size), 0).astype(np.float32),
                advantages_T=np.where(sampled_T, rng.normal(), zeros_T).astype(np.float32),
                weights_T=sampled_T.astype(np.float32),
                weight_versions_T=np.where(sampled_T, 0, -1).astype(np.int32),
            )
        )
    return rows, prompts.tolist()


class PaddedTrainer:
    """The same loss and optimizer on padded micro-batches."""

    def __init__(self, model: PreTrainedModel, rows: Sequence[TrainingRow], prompts: Sequence[int]) -> None:
        self.model = model.eval()
        self.model.set_attn_implementation("sdpa")
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNER.learning_rate, weight_decay=0.0, fused=True)
        self.total_weight = float(sum(row.weights_T.sum() for row in rows))
        parts = [range(start, start + MICRO_BATCH) for start in range(0, len(rows), MICRO_BATCH)]
        self.batches = [self._pad([rows[i] for i in part], [prompts[i] for i in part]) for part in parts]

    def _pad(self, rows: Sequence[TrainingRow], prompts: Sequence[int]) -> dict[str, torch.Tensor]:
        left, right = max(prompts), max(len(r.token_ids_T) - p for r, p in zip(rows, prompts, strict=True))
        names = ("token_ids_T", "rollout_logprobs_T", "advantages_T", "weights_T")
        padded = {name: np.zeros((len(rows), left + right), getattr(rows[0], name).dtype) for name in names}
        attention_mask = np.zeros((len(rows), left + right), np.int64)
        for i, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
            span = slice(left - prompt, left - prompt + len(row.token_ids_T))
            attention_mask[i, span] = 1
            for name, array in padded.items():
                array[i, span] = getattr(row, name)
        completion = {name: torch.from_numpy(array[:, left:]) for name, array in padded.items()}
        ids, mask = torch.from_numpy(padded["token_ids_T"]).long(), torch.from_numpy(attention_mask)
        return completion | {"ids": ids, "mask": mask, "positions": (mask.cumsum(1) - 1).clamp(min=0)}

    def step(self) -> float:
        self.optimizer.zero_grad()
        total = 0.0
        for batch in self.batches:
            kept = batch["token_ids_T"].shape[1]
            logits = self.model(
                input_ids=batch["ids"],
                attention_mask=batch["mask"],
                position_ids=batch["positions"],
                logits_to_keep=kept + 1,
                use_cache=False,
            ).logits[:, :-1]
            logprobs = logits.log_softmax(-1).gather(-1, batch["token_ids_T"].long().unsqueeze(-1)).squeeze(-1)
            ratio = (logprobs - batch["rollout_logprobs_T"]).exp()
            clipped = ratio.clamp(1 - CLIP["clip_low"], 1 + CLIP["clip_high"])
            surrogate = torch.minimum(ratio * batch["advantages_T"], clipped * batch["advantages_T"])
            loss = -(surrogate * batch["weights_T"]).sum() / self.total_weight
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), LEARNER.max_grad_norm)
        self.optimizer.step()
        return total


def cpu_s(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def timed_step(step: Callable[[], float]) -> tuple[float, float]:
    """CPU seconds and the loss."""
    losses: list[float] = []
    return cpu_s(lambda: losses.append(step())), losses[0]


def useful_flop(model: PreTrainedModel, rows: Sequence[TrainingRow]) -> float:
    """Matrix products that no exact method avoids: 2 FLOP forward and 4 backward per weight and token."""
    tokens = sum(len(row.token_ids_T) - 1 for row in rows)
    trained = sum(int((row.weights_T > 0).sum()) for row in rows)
    head = CONFIG.vocab_size * CONFIG.hidden_size
    body = sum(p.numel() for p in model.parameters() if p.ndim > 1) - head
    visible_pairs = sum(len(row.token_ids_T) ** 2 / 2 for row in rows)
    attention = 12 * CONFIG.num_hidden_layers * CONFIG.num_attention_heads * CONFIG.head_dim * visible_pairs
    return 6 * body * tokens + 6 * head * trained + attention


def gemm_rate(size: int = 1536) -> float:
    """FLOP per second of a large fp32 product."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    return 2 * size**3 / min(cpu_s(lambda: a @ b) for _ in range(3))


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows, prompts = make_rows()
    model = Qwen3ForCausalLM(CONFIG)
    padded = PaddedTrainer(copy.deepcopy(model), rows, prompts)
    learner = Learner(model, LEARNER)
    packed_rounds, padded_rounds, rates = [], [], []
    for _ in range(ROUNDS):
        packed_rounds.append(timed_step(lambda: learner.step(rows)["loss"]))
        padded_rounds.append(timed_step(padded.step))
        rates.append(gemm_rate())
    packed_s, padded_s = min(packed_rounds)[0], min(padded_rounds)[0]
    tokens, flop = sum(len(row.token_ids_T) for row in rows), useful_flop(model, rows)
    limit_s = flop / max(rates)
    computed = sum(batch["ids"].numel() for batch in padded.batches)
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"{parameters:.1f}M parameters, {tokens} real tokens in {ROLLOUTS} rollouts, {computed} when padded")
    print(f"loss of the last step: packed {packed_rounds[-1][1]:.6f}, padded {padded_rounds[-1][1]:.6f}")
    print(f"{'':8} {'real tokens / CPU s':>20} {'GFLOP/s useful':>15} {'of the limit':>13}")
    for name, seconds in (("packed", packed_s), ("padded", padded_s), ("limit", limit_s)):
        print(f"{name:8} {tokens / seconds:20.0f} {flop / seconds / 1e9:15.1f} {limit_s / seconds:13.0%}")
    print(f"packed / padded: {padded_s / packed_s:.2f}x")


if __name__ == "__main__":
    main()
