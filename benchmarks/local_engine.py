"""Useful tokens per CPU second: the local engine against transformers' own generation, on the same model and requests.

    python benchmarks/local_engine.py [--rounds 3] [--seed 0]

Model: random Qwen3 of 10.9M parameters in fp32: 10 layers, hidden size 256, 8 query and 4 key/value heads of 32,
vocabulary 4096, tied. Requests: 32 greedy ones, prompts of 96-160 tokens; response lengths are the 32 quantiles of a
log-normal distribution (median 48, sigma 1) in random order, so that no seed is lucky.
One thread, CPU time of the whole process, contestants interleaved (A B B A) so that a slow moment hits both.

- engine: `LocalEngine`, all requests sent at once.
- generate: static batches, left padding, sdpa, dynamic cache. Every row ends at its own length, as with an end token,
  but computes on until its batch is done. Batches of 32 and of 8 are both measured; the faster counts.
- generate_batch: transformers' continuous batching, in a process of its own with a deadline (it may hang or fail).
- engine, deterministic: what the batch-invariant mode costs, on 4 of the requests.
- limit: FLOP of the useful tokens at the measured GEMM peak, plus reading keys and values at the measured bandwidth.

Before any timing all contestants must have sampled the same tokens.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

os.environ.setdefault("OMP_NUM_THREADS", "1")

import anyio
import numpy as np
import torch
from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM, StoppingCriteria, StoppingCriteriaList

from agent_rl.concurrency import collect
from agent_rl.engine import GenerationRequest
from agent_rl.engine.local import LocalEngine
from agent_rl.types import SamplingParams

REQUESTS, MEDIAN_TOKENS, SIGMA, VOCAB = 32, 48, 1.0, 4096
CONTINUOUS_DEADLINE_S = 300


@dataclass(frozen=True)
class Workload:
    model: Qwen3ForCausalLM
    prompts: list[np.ndarray]
    lengths: list[int]

    @property
    def useful(self) -> int:
        return sum(self.lengths)


def workload(seed: int) -> Workload:
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    config = Qwen3Config(
        vocab_size=VOCAB,
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=10,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    rng = np.random.default_rng(seed)
    prompts = [rng.integers(0, VOCAB, rng.integers(96, 161)).astype(np.int32) for _ in range(REQUESTS)]
    normal = statistics.NormalDist(math.log(MEDIAN_TOKENS), SIGMA)
    lengths = [round(math.exp(normal.inv_cdf((n + 0.5) / REQUESTS))) for n in range(REQUESTS)]
    return Workload(Qwen3ForCausalLM(config).eval(), prompts, rng.permutation(lengths).tolist())


# --- contestants: each returns the sampled tokens of every request ---------------------------------------------------


def engine(work: Workload, deterministic: bool = False) -> list[list[int]]:
    async def one(n: int, serving: LocalEngine) -> list[int]:
        sampling = SamplingParams(max_tokens=work.lengths[n], temperature=0.0)
        generation = await serving.generate(GenerationRequest(str(n), work.prompts[n], sampling, n))
        return generation.token_ids_R.tolist()

    async def main() -> list[list[int]]:
        async with LocalEngine(work.model, max_batch=REQUESTS, max_context=1024, deterministic=deterministic) as it:
            return await collect([lambda n=n: one(n, it) for n in range(len(work.prompts))])

    return anyio.run(main)


class RowLimits(StoppingCriteria):
    """Each row ends at its own length."""

    def __init__(self, prompt: int, lengths: list[int]) -> None:
        self.ends = torch.tensor(lengths) + prompt

    def __call__(self, input_ids: torch.Tensor, scores: object, **kwargs: object) -> torch.Tensor:
        return input_ids.shape[1] >= self.ends


def generate(work: Workload, batch: int) -> list[list[int]]:
    sampled: list[list[int]] = []
    for start in range(0, REQUESTS, batch):
        prompts, lengths = work.prompts[start : start + batch], work.lengths[start : start + batch]
        width = max(map(len, prompts))
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.from_numpy(prompt.astype(np.int64))
            mask[row, width - len(prompt) :] = 1
        output = work.model.generate(
            ids,
            attention_mask=mask,
            generation_config=GenerationConfig(do_sample=False, max_new_tokens=max(lengths), pad_token_id=0),
            stopping_criteria=StoppingCriteriaList([RowLimits(width, lengths)]),
        )
        sampled += [row[width : width + length].tolist() for row, length in zip(output, lengths, strict=True)]
    return sampled


def generate_batch(work: Workload) -> list[list[int]]:
    from transformers import ContinuousBatchingConfig

    # Without explicit sizes the cache takes 80% of the machine's memory each time.
    sizes = ContinuousBatchingConfig(page_size=32, num_blocks=REQUESTS * 24, max_batch_tokens=1024)
    greedy = GenerationConfig(do_sample=False, max_new_tokens=512, eos_token_id=-1, pad_token_id=0)
    sampled: dict[str, list[int]] = {}
    manager_context = work.model.continuous_batching_context_manager(
        generation_config=greedy, continuous_batching_config=sizes, block=True, timeout=5
    )
    with torch.no_grad(), manager_context as manager:
        for n, prompt in enumerate(work.prompts):
            manager.add_request(prompt.tolist(), request_id=str(n), max_new_tokens=work.lengths[n])
        while len(sampled) < REQUESTS:
            result = manager.get_result(timeout=1)
            if result is not None and result.is_finished():
                sampled[result.request_id] = list(result.generated_tokens)
            elif result is None and not manager.is_running():
                raise RuntimeError("the generation thread ended before the requests")
    return [sampled[str(n)] for n in range(REQUESTS)]


# --- measuring --------------------------------------------------------------------------------------------------------


def cpu_s(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


def abba(a: Callable[[], object], b: Callable[[], object], rounds: int) -> tuple[list[float], list[float]]:
    """CPU seconds of `a` and of `b`, in the order A B B A."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for which in (0, 1, 1, 0):
            times[which].append(cpu_s((a, b)[which]))
    return times


def best_of(run: Callable[[], object], repeats: int = 15) -> float:
    return min(cpu_s(run) for _ in range(repeats))


def limit_s(work: Workload) -> tuple[float, str]:
    """CPU seconds of the useful work at the measured GEMM peak and memory bandwidth, and how they are made up."""
    config = work.model.config
    matrix = torch.randn(1024, 1024)
    peak = 2 * 1024**3 / best_of(lambda: matrix @ matrix)
    big = torch.ones(1 << 25)  # 128 MiB: beyond the caches
    bandwidth = big.numel() * 4 / best_of(lambda: big.sum())
    head = config.vocab_size * config.hidden_size
    body = sum(p.numel() for p in work.model.parameters()) - head
    prompt = sum(map(len, work.prompts))
    flop = 2 * (body * (prompt + work.useful - REQUESTS) + head * work.useful)
    kv_bytes = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
    contexts = sum(sum(range(len(p), len(p) + n)) for p, n in zip(work.prompts, work.lengths, strict=True))
    seconds = flop / peak + kv_bytes * contexts / bandwidth
    made_of = (
        f"{flop / 1e9:.0f} GFLOP at {peak / 1e9:.0f} GFLOP/s + {kv_bytes * contexts / 1e9:.1f} GB of keys and values"
        f" at {bandwidth / 1e9:.1f} GB/s"
    )
    return seconds, made_of


def continuous_in_a_child(seed: int) -> tuple[float, list[list[int]]] | str:
    """CPU seconds and tokens of `generate_batch`, or why there are none."""
    command = [sys.executable, __file__, "--continuous", "--seed", str(seed)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CONTINUOUS_DEADLINE_S, check=False)
    except subprocess.TimeoutExpired:
        return f"no result within {CONTINUOUS_DEADLINE_S} s"
    if done.returncode != 0 or not done.stdout:
        return f"failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"
    result = json.loads(done.stdout.splitlines()[-1])
    return result["cpu_s"], result["sampled"]


def child(seed: int) -> None:
    work = workload(seed)
    generate_batch(work)
    sampled: list[list[int]] = []
    seconds = min(cpu_s(lambda: sampled.__setitem__(slice(None), generate_batch(work))) for _ in range(2))
    print(json.dumps({"cpu_s": seconds, "sampled": sampled}))


def report(name: str, useful: int, times: list[float]) -> None:
    middle = statistics.median(times)
    print(f"{name:34} {useful / middle:8.0f} tokens/CPU s   ({min(times):.2f}-{max(times):.2f} s, n={len(times)})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--continuous", action="store_true", help="run generate_batch alone and print JSON")
    options = parser.parse_args()
    if options.continuous:
        child(options.seed)
        return
    work = workload(options.seed)
    expected = engine(work)
    parameters = sum(p.numel() for p in work.model.parameters())
    print(
        f"model {parameters / 1e6:.1f}M parameters; {REQUESTS} requests, {sum(map(len, work.prompts))} prompt tokens,"
    )
    print(f"{work.useful} useful tokens, the longest response has {max(work.lengths)}; one thread, fp32, greedy")
    for batch in (REQUESTS, 8):
        assert generate(work, batch) == expected, f"generate in batches of {batch} sampled other tokens"
    print("same tokens from the engine and from generate: yes")

    ours, whole = abba(lambda: engine(work), lambda: generate(work, REQUESTS), options.rounds)
    more, eights = abba(lambda: engine(work), lambda: generate(work, 8), max(1, options.rounds // 2))
    ours += more
    report("engine", work.useful, ours)
    report("generate, one batch of 32", work.useful, whole)
    report("generate, batches of 8", work.useful, eights)
    continuous = continuous_in_a_child(options.seed)
    if isinstance(continuous, str):
        print(f"generate_batch: {continuous}")
    else:
        report("generate_batch (own process)", work.useful, continuous[:1])
        print(f"{'':34} same tokens: {'yes' if continuous[1] == expected else 'no'}")
    few = Workload(work.model, work.prompts[:4], work.lengths[:4])
    report("engine, deterministic", few.useful, [cpu_s(lambda: engine(few, deterministic=True))])
    seconds, made_of = limit_s(work)
    print(f"{'limit':34} {work.useful / seconds:8.0f} tokens/CPU s   ({made_of})")
    best = min(statistics.median(whole), statistics.median(eights))
    print(f"engine / best generate: {best / statistics.median(ours):.2f}x (target 2x)", end="; ")
    print(f"engine / limit: {seconds / statistics.median(ours):.0%}")


if __name__ == "__main__":
    main()
