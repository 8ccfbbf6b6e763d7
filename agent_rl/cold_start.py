"""A cold start: maximum likelihood on a file of demonstrations, before reinforcement learning and apart from it.

It teaches a checkpoint a format or a way of working that it would not find by itself, such as code inside of reasoning
(ReTool, arXiv:2504.11536), or actions that were made from tutorials (Synatra, arXiv:2409.15637).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field
from rich.console import Console

from agent_rl.chat.codec import ChatCodec
from agent_rl.chat.parsers import ToolParserName
from agent_rl.config import Config
from agent_rl.learner.config import LearnerConfig
from agent_rl.progress import counting_progress
from agent_rl.seeding import stream
from agent_rl.starting_policy import START

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class ColdStartConfig(Config):
    """What a checkpoint imitates before reinforcement learning begins, and how."""

    demonstrations: Path | None = Field(
        default=None, description="JSON lines of chats (messages, and tools if any were offered); none: no cold start."
    )
    epochs: int = Field(default=2, ge=1, description="Passes over the demonstrations.")
    batch_rows: int = Field(default=32, ge=1, description="Demonstrations in one optimizer step.")
    learner: LearnerConfig = Field(
        default=LearnerConfig(learning_rate=1e-5), description="Optimiser of the cold start."
    )


def cold_started(
    config: ColdStartConfig,
    demonstrations: Path,
    source: str,
    folder: Path,
    console: Console,
    *,
    dtype: str,
    device: str,
    parser: ToolParserName,
    seed: int,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The checkpoint `source` after its cold start: what is in `folder/start`, made first if it is not there.

    Every assistant message is trained; what tools returned is context. Raises `UserError` for a malformed file.
    """
    from agent_rl.learner.demonstrations import read_demonstrations
    from agent_rl.learner.learner import Learner
    from agent_rl.learner.policy import load_policy, save_policy

    start = folder / START
    if not start.is_dir():
        model, tokenizer = load_policy(source, dtype=dtype, device=device)
        of_tasks = read_demonstrations(ChatCodec(tokenizer, parser), demonstrations)
        rows = [row for of_task in of_tasks.values() for row in of_task]
        batches = list(_batches(len(rows), config, seed))
        learner = Learner(model, config.learner.for_run(len(batches)), seed=seed)
        with counting_progress(console, "cold start", len(batches)) as advance:
            for step, picks in enumerate(batches):
                loss = learner.supervised_step([rows[i] for i in picks])["loss"]
                advance(step + 1, f"loss {loss:.3f}")
        unfinished = folder / f"{START}.tmp"
        save_policy(model, tokenizer, unfinished, learner.weights())
        unfinished.rename(start)
    return load_policy(start, dtype=dtype, device=device)


def _batches(count: int, config: ColdStartConfig, seed: int) -> Iterator[list[int]]:
    for epoch in range(config.epochs):
        order = stream(seed, "cold start", epoch).permutation(count).tolist()
        for start in range(0, count, config.batch_rows):
            yield order[start : start + config.batch_rows]
