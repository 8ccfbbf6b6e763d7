"""The quickstart's reinforcement learning under TRL's GRPOTrainer: the same start, tasks, reward and settings.

    pip install -c constraints.txt ".[bench]"
    agent-rl train quickstart --run-dir runs/mine
    python benchmarks/trl_grpo.py runs/mine

Takes the warm-started policy of a finished quickstart, trains it once with the recipe and once with TRL (1.16), and
measures both on the same held-out tasks with our harness. Both see as many episodes, minibatches and optimizer steps,
with the same learning rate, clip range, loss aggregation and advantages (GRPO). What cannot be made equal: TRL
generates with transformers' `generate`, a batch at a time; the recipe's rollouts run while its learner works, with one
step of lag.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import torch
from rich.console import Console
from rich.table import Table

from agent_rl.chat.codec import ChatCodec
from agent_rl.cli import load_recipe
from agent_rl.config import load_config
from agent_rl.curriculum import shuffled_epochs
from agent_rl.engine.local import LocalEngine
from agent_rl.evaluate.harness import evaluate
from agent_rl.evaluate.statistics import Estimate
from agent_rl.learner.policy import load_policy
from agent_rl.rollout.agent import PolicyAgent
from agent_rl.train import train
from agent_rl.types import Message, SamplingParams, Task, ToolCall
from agent_rl_envs.sql_lookup import SqlLookup, SqlLookupConfig

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)  # of the run, where the reward of training is shown
HERMES = {  # how TRL is to read responses; as TRL itself does for Qwen3
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "tool_calls": {
            "open": "<tool_call>",
            "close_pattern": r"</tool_call>\s*",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close_pattern": r"<\|im_end\|>\s*", "content": "text"},
    },
}


@dataclass
class Outcome:
    """What one trainer did: mean training reward of each batch, success on held-out tasks, seconds."""

    rewards: list[float]
    success: Estimate
    wall_s: float
    cpu_s: float


class TrlSql:
    """The sql environment as TRL wants it: public methods are tools, `reset` gets a row of the dataset."""

    def __init__(self) -> None:
        self.sql = SqlLookup()

    def reset(self, index: int, **row: Any) -> None:
        asyncio.run(self._open(Task("", (), {**json.loads(row["data"]), "index": index})))

    async def _open(self, task: Task) -> None:
        await self.sql.close()
        self.sql = SqlLookup()
        await self.sql.reset(task, 0)

    async def schema(self) -> str:
        """Show the tables and columns of the database."""
        return await self._call("schema")

    async def query(self, sql: str) -> str:
        """Run one SELECT statement.

        Args:
            sql: The statement.
        """
        return await self._call("query", sql=sql)

    async def _call(self, name: str, **arguments: str) -> str:
        step = await self.sql.step(Message("assistant", "", (ToolCall("call", name, arguments),)))
        return step.messages[0].content


async def score(environment: TrlSql, completion: Sequence[dict[str, Any]]) -> float:
    """The environment's own score of the last message."""
    last = completion[-1]
    if last["role"] != "assistant" or last.get("tool_calls"):
        return 0.0
    return (await environment.sql.answer(Message("assistant", last.get("content") or ""))).reward


def rewards(completions: Sequence[Any], environments: Sequence[TrlSql], **_: Any) -> list[float | None]:
    """TRL's reward function."""
    return [asyncio.run(score(e, c)) for e, c in zip(environments, completions, strict=True)]


def with_trl(config: Any, start: Path, tasks: Sequence[Task]) -> tuple[list[float], Any]:
    """Train `start` with TRL. Returns the reward of each batch and the model."""
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    model, tokenizer = load_policy(start)
    tokenizer.response_template = HERMES
    tokenizer.chat_template = with_tools_as_they_were_learned(str(tokenizer.chat_template))
    learner, batch = config.learner, config.groups_per_batch * config.group_size
    rows = [
        {
            "prompt": [{"role": m.role, "content": m.content} for m in task.prompt],
            "index": task.data["index"],
            "data": json.dumps(task.data),
        }
        for task in tasks
    ]
    with tempfile.TemporaryDirectory() as folder:
        arguments = GRPOConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            per_device_train_batch_size=batch // learner.minibatches,
            steps_per_generation=learner.minibatches,
            num_generations=config.group_size,
            max_steps=config.steps * learner.minibatches,
            learning_rate=learner.learning_rate,
            lr_scheduler_type=learner.schedule,
            warmup_steps=learner.warmup_steps,
            adam_beta1=learner.betas[0],
            adam_beta2=learner.betas[1],
            weight_decay=learner.weight_decay,
            max_grad_norm=learner.max_grad_norm,
            beta=0.0,
            epsilon=learner.loss_options.get("clip_low", 0.2),
            epsilon_high=learner.loss_options.get("clip_high", 0.28),
            loss_type="dapo",
            scale_rewards="group",
            temperature=config.temperature,
            top_k=0,
            max_completion_length=256,
            max_tool_calling_iterations=config.limits.max_turns - 1,
            shuffle_dataset=False,
            logging_steps=learner.minibatches,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            seed=config.seed,
        )
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=rewards,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            environment_factory=TrlSql,
        )
        trainer.remove_callback(PrinterCallback)  # a line of metrics per step
        trainer.train()
    return [entry["reward"] for entry in trainer.state.log_history if "reward" in entry], model.eval()


def with_tools_as_they_were_learned(template: str) -> str:
    """The chat template with our rendering of the tools: TRL's has other spaces and an entry for the return type."""
    each = "{%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}"
    assert template.count(each) == 1, "the quickstart's template"
    text = "".join("\n" + json.dumps(tool.definition, ensure_ascii=False) for tool in SqlLookup().tools)
    return template.replace(each, "{{- " + json.dumps(text) + " }}")


def with_agent_rl(config: Any, start: Path, tasks: Sequence[Task]) -> tuple[list[float], Any]:
    """Train `start` as the quickstart does. Returns the reward of each batch and the model."""
    model, tokenizer = load_policy(start)
    rewards: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        anyio.run(
            partial(
                train,
                config,
                run_dir=Path(folder),
                model=model,
                tokenizer=tokenizer,
                environment=lambda task: SqlLookup(),
                task_at=lambda index: tasks[index],
                on_step=lambda report: rewards.append(report.metrics["rollout/reward"]),
            )
        )
    return rewards, model


def measure(config: Any, start: Path, model: Any, tasks: Sequence[Task]) -> Estimate:
    """Success on held-out tasks."""
    codec = ChatCodec(load_policy(start)[1], config.tool_parser)

    async def play() -> Estimate:
        context = config.limits.max_context_tokens
        async with LocalEngine(model, max_batch=config.max_concurrent_episodes, max_context=context) as engine:
            report = await evaluate(
                lambda task: SqlLookup(),
                tasks,
                lambda _, key: PolicyAgent(engine, codec, SamplingParams(), key),
                limits=config.limits,
                seed=config.seed,
            )
        assert report.overall is not None
        return report.overall.success

    return anyio.run(play)


def run(trainer: Callable[..., tuple[list[float], Any]], config: Any, start: Path, test: Sequence[Task]) -> Outcome:
    """Train and measure, with the clocks around training only."""
    count = config.steps * config.groups_per_batch
    task_at = shuffled_epochs(
        SqlLookup.tasks("train", count, config.seed, SqlLookupConfig(two_query_share=config.two_query_share)),
        config.seed,
    )
    wall, cpu = time.perf_counter(), time.process_time()
    rewards, model = trainer(config, start, [task_at(index) for index in range(count)])
    wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    return Outcome(rewards, measure(config, start, model, test), wall_s, cpu_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run_dir", type=Path, help="folder of a quickstart run, for its warm-started policy")
    parser.add_argument("--steps", type=int, help="training steps; as in the run, if not given")
    options = parser.parse_args()
    recipe, start = load_recipe("quickstart"), options.run_dir / "start"
    config: Any = load_config(recipe.config, options.run_dir / "config.json")
    config = config.model_copy(update={"steps": options.steps or config.steps})
    torch.set_num_threads(config.threads)
    options = SqlLookupConfig(two_query_share=config.two_query_share)
    test = SqlLookup.tasks("test", config.eval_tasks, config.seed, options)
    before = measure(config, start, load_policy(start)[0], test)
    batch = f"{config.groups_per_batch} x {config.group_size}"
    table = Table(title=f"{config.steps} steps of {batch} episodes from {start}")
    shown = [f"reward at {share:.0%}" for share in SHARES]
    for column in ("", "before", "after", *shown, "wall", "CPU", "CPU / agent-rl's"):
        table.add_column(column, justify="right")
    ours = None
    for name, trainer in (("agent-rl", with_agent_rl), ("TRL", with_trl)):
        outcome = run(trainer, config, start, test)
        ours = ours or outcome
        tenth = max(1, config.steps // 10)
        ends = [max(1, round(share * len(outcome.rewards))) for share in SHARES]
        rewards = [sum(part) / len(part) for part in (outcome.rewards[max(0, end - tenth) : end] for end in ends)]
        table.add_row(
            name,
            f"{before.value:.1%}",
            f"{outcome.success.value:.1%} [{100 * outcome.success.low:.0f}, {100 * outcome.success.high:.0f}]",
            *(f"{value:.2f}" for value in rewards),
            f"{outcome.wall_s:.0f} s",
            f"{outcome.cpu_s:.0f} s",
            f"{outcome.cpu_s / ours.cpu_s:.2f}x",
        )
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
