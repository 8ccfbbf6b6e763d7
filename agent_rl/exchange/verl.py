"""verl's files: tasks as its `RLHFDataset` reads them, and rollouts as its trainer dumps them.

    tasks (parquet)   data_source, prompt, ability, reward_model {style, ground_truth}, extra_info
    rollouts (JSONL)  input, output, gts, score, step

A dump has texts, as its tokenizer decodes them without special tokens: role and content, a line each. Neither can be
read back: tasks have no episodes, and texts do not say who spoke.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from agent_rl.exchange.conversation import Row, completion_of, prompt_of
from agent_rl.types import Group


def task_rows(group: Group) -> Iterator[Row]:
    """One row for the task. What the environment knows of it is a JSON text: rows of a parquet file have one schema."""
    task = group.task
    data = json.dumps(dict(task.data))
    prompt = task.prompt or (group.trajectories[0].prompt if group.trajectories else ())
    yield {
        "data_source": task.environment or "agent_rl",
        "prompt": [{"role": message.role, "content": message.content} for message in prompt],
        "ability": ",".join(task.tags),
        "reward_model": {"style": "rule", "ground_truth": data},
        "extra_info": {"index": group.index, "id": task.id, "data": data},
    }


def rollout_rows(group: Group, step: int = 0) -> Iterator[Row]:
    """A row for each valid member."""
    for episode in group.valid:
        yield {
            "input": _text(prompt_of(episode)),
            "output": _text(completion_of(episode)),
            "gts": json.dumps(dict(group.task.data)),
            "score": episode.reward,
            "step": step,
            "uid": group.task.id,
            "turns": episode.steps,
        }


def _text(messages: Sequence[dict[str, Any]]) -> str:
    return "\n".join(f"{message['role']}\n{_content(message)}" for message in messages)


def _content(message: dict[str, Any]) -> str:
    calls = [json.dumps(call["function"]) for call in message.get("tool_calls", ())]
    return "\n".join([message["content"] or "", *calls]).strip()
