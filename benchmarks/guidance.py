"""Does guidance teach what no attempt finds alone? Locks whose code is the reward's secret, for a tiny policy.

A lock has five keys of eight colours; only the whole code, key after key, is worth something: an attempt of the policy,
which knows the format and follows hints, succeeds once in 8^5 = 32,768. Each kind of guidance trains the same policy
for the same number of steps. What is printed is how often it opens the locks without any guidance, the mean over
seeds with Student's 95% interval, and the share of groups that had something to teach.

    python benchmarks/guidance.py --seeds 5
    python benchmarks/guidance.py --seeds 1 --only "none;prefix"
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from agent_rl.chat.codec import ChatCodec
from agent_rl.chat.wire import message_to_wire
from agent_rl.curriculum import shuffled_epochs
from agent_rl.engine.local import LocalEngine
from agent_rl.environment import Environment
from agent_rl.evaluate.harness import evaluate
from agent_rl.evaluate.statistics import mean
from agent_rl.guidance.config import GuidanceConfig, TeacherConfig
from agent_rl.guidance.task import with_text
from agent_rl.imitation import ImitationConfig
from agent_rl.learner.config import ImitationLossConfig, LearnerConfig
from agent_rl.learner.demonstrations import chat_rows
from agent_rl.learner.learner import Learner
from agent_rl.learner.policy import load_policy, save_policy
from agent_rl.rollout.agent import PolicyAgent
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.seeding import stream
from agent_rl.testing.tiny import make_model, make_tokenizer
from agent_rl.train import train
from agent_rl.train_config import TrainConfig
from agent_rl.types import Group, Message, SamplingParams, Step, StepInfo, Task

KEYS = "alpha beta gamma delta epsilon".split()
COLOURS = "red blue green white black pink grey gold".split()
NAMES = "ash birch cedar elm fir hazel larch maple".split()
LOCKS = 3  # that are to be opened; the others are only talked about
LIMITS = RolloutLimits(max_turns=len(KEYS), max_response_tokens=4, max_context_tokens=512)


class Lock(Environment):
    """Say the keys of a lock, one in a turn. Whether they are right is told by the reward alone, at the end."""

    @classmethod
    def tasks(cls, split: str, count: int, seed: int = 0) -> Sequence[Task]:
        """Locks with codes drawn by `seed`; the same of any split, for what is learnt here is them."""
        return [lock(name, drawn(stream(seed, name))) for name in NAMES[:count]]

    async def reset(self, task: Task, seed: int) -> Sequence[Message]:
        self._code: list[str] = task.data["code"]
        self._said: list[str] = []
        return task.prompt

    async def step(self, action: Message) -> Step:
        self._said.append(action.content.strip())
        if len(self._said) < len(KEYS):
            return Step((asked(len(self._said)),))
        right = float(np.mean([said == colour for said, colour in zip(self._said, self._code, strict=True)]))
        return Step((), float(right == 1), terminated=True, info=StepInfo(metrics={"right": right}))

    def oracle_action(self) -> Message:
        return Message("assistant", self._code[len(self._said)])


def asked(key: int) -> Message:
    return Message("user", f"{KEYS[key]}?")


def drawn(rng: np.random.Generator) -> list[str]:
    return [COLOURS[i] for i in rng.integers(len(COLOURS), size=len(KEYS))]


def lock(name: str, code: Sequence[str]) -> Task:
    points = [f"{key} {colour}" for key, colour in zip(KEYS, code, strict=True)]
    data = {"code": list(code), "hint": points, "knowledge": points, "reference": "\n".join(points)}
    return Task(name, (Message("user", f"lock {name}. {asked(0).content}"),), data)


# --- a policy that knows the format and follows guidance ----------------------------------------------------------


def chat(rng: np.random.Generator) -> list[Message]:
    """A made-up lock, played by somebody who says what the guidance tells of it, and any symbol elsewhere."""
    task = lock(str(rng.choice(NAMES)), drawn(rng))
    points: list[str] = task.data["hint"]
    kind = rng.choice(["none", "hint", "knowledge", "critique"])
    count = 0 if kind == "none" else int(rng.integers(1, len(KEYS) + 1))
    known: Sequence[int] = sorted(rng.permutation(len(KEYS))[:count])
    if kind == "hint":
        known = range(len(known))
    told = [points[i] for i in known]
    if kind == "hint":
        text = "Hint: " + "\n".join(told)
    elif kind == "knowledge":
        text = "What you need to know:\n" + "\n".join(f"- {point}" for point in told)
    elif kind == "critique":
        end = str(rng.choice(COLOURS))[-1]  # of what the failed attempt said, as `attempt_chars` 1 shows it
        text = f"An earlier attempt, which failed:\n{end}\nWhat was wrong with it: " + "\n".join(told)
    else:
        text = ""
    said = [colour if i in known else str(rng.choice(COLOURS)) for i, colour in enumerate(task.data["code"])]
    return talk(with_text(task.prompt, text), said)


def talk(prompt: Sequence[Message], said: Sequence[str]) -> list[Message]:
    messages = [*prompt, Message("assistant", said[0])]
    for i, colour in enumerate(said[1:], start=1):
        messages += [asked(i), Message("assistant", colour)]
    return messages


def make_follower(folder: Path, steps: int, seed: int = 0) -> None:
    """A tiny model after imitation of such chats; it takes some minutes."""
    rng = stream(seed, "chats")
    texts = ["\n".join(f"{m.role}\n{m.content}" for m in chat(rng)) for _ in range(200)]
    tokenizer = make_tokenizer(texts, words=[*NAMES, *KEYS, *COLOURS], vocab_size=400)
    model = make_model(tokenizer, hidden_size=64, layers=2, heads=4, max_context=512, seed=seed)
    codec = ChatCodec(tokenizer)
    options = LearnerConfig(
        learning_rate=4e-3, warmup_steps=50, schedule="linear", total_steps=steps, betas=(0.9, 0.95)
    )
    learner = Learner(model, options, seed=seed)
    for step in range(1, steps + 1):
        loss = learner.supervised_step([row for _ in range(32) for row in chat_rows(codec, chat(rng))])["loss"]
        if step % 100 == 0:
            print(f"imitated for {step} of {steps} steps, loss {loss:.2f}", flush=True)
    save_policy(learner.model, tokenizer, folder, learner.weights())


# --- the arms ------------------------------------------------------------------------------------------------------


@contextmanager
def teacher() -> Iterator[str]:
    """A teacher behind an OpenAI-compatible endpoint, who reads the reference out to the pupil."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][0]["content"]
            points = "\n".join(line for line in question.splitlines() if line.split(" ")[0] in KEYS)
            choice = {"message": {"role": "assistant", "content": points}, "finish_reason": "stop"}
            body = json.dumps({"choices": [choice]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def arms(url: str, demonstrations: Path) -> dict[str, dict[str, Any]]:
    """What each arm changes in the configuration."""
    scaffold = {"share": 1 / len(KEYS), "rounds": len(KEYS) - 1, "attempts": 8}
    imitation = ImitationLossConfig(coefficient=1.0)
    shaped = ImitationLossConfig(coefficient=1.0, loss="shaped")
    return {
        "none": {},
        "hint, in context": {"guidance": GuidanceConfig(kind="hint", **scaffold)},
        "hint, left out": {"guidance": GuidanceConfig(kind="hint", share=1.0, in_context=False)},
        "knowledge, left out": {
            "guidance": GuidanceConfig(kind="knowledge", rounds=len(KEYS), attempts=5, in_context=False)
        },
        "critique, left out, imitated": {
            "guidance": GuidanceConfig(
                kind="critique",
                in_context=False,
                credit="imitation",
                attempt_chars=1,
                teacher=TeacherConfig(model="teacher", base_url=url),
            ),
            "imitation": shaped,
        },
        "prefix": {"guidance": GuidanceConfig(kind="prefix", **scaffold)},
        "hardest imitated": {
            "imitation": imitation,
            "source": ImitationConfig(demonstrations=demonstrations, rows=8, only="hardest"),
        },
    }


def config_of(arm: dict[str, Any], steps: int, seed: int) -> TrainConfig:
    return TrainConfig(
        steps=steps,
        groups_per_batch=8,
        group_size=8,
        limits=LIMITS,
        max_concurrent_episodes=128,
        checkpoint_every=10_000,
        trained_tokens_every=0,
        estimator="dr_grpo",
        guidance=arm.get("guidance", GuidanceConfig()),
        imitation=arm.get("source", ImitationConfig()),
        learner=LearnerConfig(
            learning_rate=1e-3, minibatches=2, betas=(0.9, 0.95), loss="cispo", imitation=arm.get("imitation")
        ),
        seed=seed,
    )


async def alone(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tasks: Sequence[Task], seed: int
) -> tuple[float, float]:
    """How often the policy opens the locks without guidance, and the share of keys that it says right."""
    codec, groups = ChatCodec(tokenizer), list[Group]()
    async with LocalEngine(model, max_batch=128, max_context=512) as engine:
        report = await evaluate(
            lambda task: Lock(),
            tasks,
            lambda _, key: PolicyAgent(engine, codec, SamplingParams(), key),
            samples=64,
            seed=seed,
            concurrency=128,
            limits=LIMITS,
            on_group=groups.append,
        )
    right = [episode.metrics.get("right", 0.0) for group in groups for episode in group.valid]
    return report.overall.success.value, float(np.mean(right))


def write_demonstrations(path: Path, tasks: Sequence[Task]) -> Path:
    chats = {task.id: talk(task.prompt, task.data["code"]) for task in tasks}
    rows = [{"task": id, "messages": [message_to_wire(m) for m in messages]} for id, messages in chats.items()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def signal_of(run_dir: Path, steps: int) -> float:
    """The share of groups that were trained on in the first half."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text("utf-8").splitlines()]
    return float(np.mean([row["rollout/groups_trained"] / row["rollout/groups"] for row in rows[: steps // 2]]))


async def run_seed(start: Path, seed: int, names: Sequence[str], steps: int) -> dict[str, tuple[float, ...]]:
    """For each arm: what the policy does alone after training, and the share of groups with signal before that."""
    model, tokenizer = load_policy(start)
    tasks = Lock.tasks("train", LOCKS, seed)
    found: dict[str, tuple[float, ...]] = {"before": (*await alone(model, tokenizer, tasks, seed), 0.0)}
    with tempfile.TemporaryDirectory() as folder, teacher() as url:
        shown = write_demonstrations(Path(folder, "shown.jsonl"), tasks)
        for name, arm in arms(url, shown).items():
            if name not in names:
                continue
            began, run_dir = time.perf_counter(), Path(folder, name)
            trained = copy.deepcopy(model)
            await train(
                config_of(arm, steps, seed),
                run_dir=run_dir,
                model=trained,
                tokenizer=tokenizer,
                environment=lambda task: Lock(),
                task_at=shuffled_epochs(tasks, seed),
            )
            found[name] = (*await alone(trained, tokenizer, tasks, seed), signal_of(run_dir, steps))
            took_s = time.perf_counter() - began
            opened, right, signal = found[name]
            print(
                f"seed {seed}, {name}: {opened:.3f}, keys {right:.3f}, signal {signal:.2f}, {took_s:.0f} s", flush=True
            )
    return found


def main() -> None:
    """Train every arm with every seed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--only", default="", help="arms, separated by ;")
    parser.add_argument("--start", type=Path, help="where the policy is that follows hints; made there if it is not")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = options.only.split(";") if options.only else list(arms("http://", Path()))
    with tempfile.TemporaryDirectory() as folder:
        start = options.start or Path(folder, "start")
        if not start.is_dir():
            make_follower(start, steps=1500)
        found = [anyio.run(run_seed, start, seed, names, options.steps) for seed in range(options.seeds)]
    print(
        f"| guidance | locks opened alone after {options.steps} steps | keys right | groups with signal, first half |"
    )
    print("|---|---|---|---|")
    for name in found[0]:
        *scores, signal = (mean(np.array(values)) for values in zip(*(of_seed[name] for of_seed in found), strict=True))
        cells = [f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]" for score in scores]
        print(f"| {name} | {' | '.join(cells)} | {signal.value:.2f} |")


if __name__ == "__main__":
    main()
