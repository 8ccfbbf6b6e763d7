"""What the store costs: a durable group against one fsync of as many bytes, bytes per token, questions, a watched step.

A group is 8 episodes of 6 turns and 2,048 tokens, half of them sampled. The variants take turns, so that a slow moment
hits all of them; medians. PostgreSQL runs on this machine with fsync on, where there is one.

    python benchmarks/store.py [FOLDER]
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from small_learner import CONFIG, training_row
from sqlalchemy import func, insert, select
from transformers import Qwen3ForCausalLM

from agent_rl.learner.config import LearnerConfig
from agent_rl.learner.learner import Learner
from agent_rl.learner.watch import Seen
from agent_rl.store import records, schema, trained_tokens
from agent_rl.store.journal import Journal
from agent_rl.store.opening import create_journal
from agent_rl.store.summaries import summary
from agent_rl.store.trained_tokens import TrainedTokens
from agent_rl.types import Group
from tests.unit.envs.sql import servers
from tests.unit.store.conftest import example_group, example_trajectory

ROUNDS, MEMBERS, TURNS, TOKENS = 40, 8, 6, 2048
EPISODES = 100_000


def milliseconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - began)


def group_of(index: int) -> Group:
    return example_group(index, members=MEMBERS, turns=TURNS, tokens=TOKENS)


def append_and_fsync(folder: Path, stack: ExitStack) -> None:
    """Milliseconds of `append_group` beside those of a plain file that is fsynced with as many bytes."""
    journals: dict[str, Journal] = {"SQLite": stack.enter_context(create_journal(folder / "sqlite"))}
    try:
        servers.MEMORY = None  # on a disk, like the others
        home, command, port = stack.enter_context(servers.postgres_home())
        durable = [word for option in ("fsync=on", "full_page_writes=on") for word in ("-c", option)]
        url, _ = stack.enter_context(servers.running_postgres(home, [*command, *durable], port))
        journals["PostgreSQL"] = stack.enter_context(create_journal(folder / "postgresql", store=url))
    except RuntimeError as reason:
        print(f"No PostgreSQL: {reason}")
    plain = stack.enter_context((folder / "plain").open("wb"))
    times: dict[str, list[float]] = {name: [] for name in ("one fsync", *journals)}
    stored = sum(len(row) for row in raw(group_of(0)))
    for index in range(ROUNDS):
        group = group_of(index)
        times["one fsync"].append(milliseconds(lambda: (plain.write(bytes(stored)), plain.flush(), os.fsync(plain))))
        for name, journal in journals.items():
            times[name].append(milliseconds(lambda journal=journal, group=group: journal.append_group(group)))
    limit = statistics.median(times["one fsync"])
    print(f"\nA durable group, {MEMBERS} episodes of {TOKENS} tokens, {stored / 1024:.0f} KiB:")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"  {name:10} {median:7.1f} ms  {median / limit:5.1f} x one fsync")
    prepared = statistics.median([milliseconds(lambda: raw(group_of(0))) for _ in range(9)])
    print(f"  of which    {prepared:7.1f} ms  JSON and compression, in any store")
    size = sum(path.stat().st_size for path in (folder / "sqlite").iterdir() if "wal" not in path.name)
    print(f"  store.db    {size / (ROUNDS * MEMBERS * TOKENS):7.1f} bytes per token, all tables, indices and messages")


def raw(group: Group) -> list[bytes]:
    return [
        part
        for t in group.trajectories
        for part in (records.trajectory_to_json(t).encode(), records.segments_to_blob(t.segments))
    ]


def bytes_per_token() -> None:
    episode = group_of(0).trajectories[0]
    rows = len(records.segments_to_blob(episode.segments)) / TOKENS
    rng = np.random.default_rng(0)
    logprobs_R = -rng.exponential(size=TOKENS).astype(np.float32)
    print(f"\nBytes per token: token rows {rows:.1f} (limit 12); what the trainer saw, per sampled token:")
    for name, advantages_R in (
        ("one advantage", np.full(TOKENS, 0.3)),
        ("an advantage per token", rng.normal(size=TOKENS)),
    ):
        seen = TrainedTokens(0, 0, 0, 1, logprobs_R, advantages_R.astype(np.float32), np.abs(logprobs_R))
        print(f"  {len(trained_tokens.to_blob(seen)) / TOKENS:.1f} with {name} (at most 10)")


def questions(folder: Path) -> None:
    """Filters, counts and pages over many episodes: the summaries alone."""
    with create_journal(folder / "many") as journal:
        fill(journal)
        columns = schema.trajectories.c
        mine = select(columns.group_index, columns.member, columns.reward).where(columns.run == journal.run)
        asked = {
            "page 1 by reward": mine.order_by(columns.reward.desc()).limit(50),
            "page 1,000 by turns": mine.order_by(columns.turns).limit(50).offset(50_000),
            "page 1 of one task": mine.where(columns.task_id == "task-7").limit(50),
            "count of failures": select(func.count()).where(
                columns.run == journal.run, columns.failure_owner.is_not(None)
            ),
            "count of reward > 0.5": select(func.count()).where(columns.run == journal.run, columns.reward > 0.5),
            "reward > 0.5 and long, page 1": mine.where(columns.reward > 0.5, columns.tokens > 900).limit(50),
        }
        print(f"\nQuestions about {EPISODES:,} episodes (SQLite):")
        for name, query in asked.items():
            times = [milliseconds(lambda query=query: journal.rows(query)) for _ in range(5)]
            print(f"  {statistics.median(times):7.1f} ms  {name}")


def fill(journal: Journal) -> None:
    rng = np.random.default_rng(0)
    episode = summary(example_trajectory(example_group(0).task, 0, 0, 2, 128)) | {"run": journal.run}
    heads = [
        {
            "run": journal.run,
            "index": g,
            "task_id": f"task-{g % 500}",
            "environment": "sql",
            "task": "",
            "finished_at": 0.0,
        }
        for g in range(EPISODES // MEMBERS)
    ]
    rows = [
        episode
        | {"group_index": n // MEMBERS, "member": n % MEMBERS, "task_id": f"task-{n // MEMBERS % 500}"}
        | {"reward": float(rng.random()), "turns": int(rng.integers(1, 20)), "tokens": int(rng.integers(1, 1000))}
        | {"failure_owner": "sandbox" if rng.random() < 0.01 else None}
        for n in range(EPISODES)
    ]
    journal._database.transact(
        lambda connection: (
            connection.execute(insert(schema.groups), heads),
            connection.execute(insert(schema.trajectories), rows),
        )
    )


def watched_step() -> None:
    """A step of the learner with and without looking at what its loss sees."""
    rng = np.random.default_rng(0)
    sampled_T = np.arange(512) % 64 >= 32
    rows = [
        training_row(rng.integers(0, CONFIG.vocab_size, 512), sampled_T, 1 - 2 * (n % 2), CONFIG.vocab_size)
        for n in range(8)
    ]
    learners = {True: learner(), False: learner()}
    times: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(7):
        for watched, one in learners.items():
            seen = Seen() if watched else None
            times[watched].append(milliseconds(lambda one=one, seen=seen: one.step(rows, seen=seen)))
    plain, watched = statistics.median(times[False][1:]), statistics.median(times[True][1:])
    tokens = int(sum(row.response_mask_T.sum() for row in rows))
    print(f"\nA step on {tokens} sampled tokens of 11M parameters: {plain:.0f} ms, watched {watched:.0f} ms", end=" ")
    print(f"({100 * (watched / plain - 1):+.1f} percent; fastest {min(times[True]) - min(times[False]):+.1f} ms)")


def learner() -> Learner:
    return Learner(Qwen3ForCausalLM(CONFIG), LearnerConfig(learning_rate=1e-5, token_budget=2048))


def main(folder: Path) -> None:
    with ExitStack() as stack:
        append_and_fsync(folder, stack)
    bytes_per_token()
    questions(folder)
    watched_step()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as created:
        main(Path(created))
