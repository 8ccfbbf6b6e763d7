"""What an episode of `terminal` costs beside its commands: making a system, entering it, and grading.

Each figure has its limit beside it, measured in turn with it: for a reset, opening an empty sandbox of the same kind;
for a reset by copy, copying the same files; for grading, the same checker run in a sandbox that is open already.

    python benchmarks/terminal_episodes.py [--source FOLDER]      # a folder of tasks; none: one that is made up
"""

from __future__ import annotations

import argparse
import logging
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import anyio

from agent_rl.sandbox import SandboxConfig, open_sandbox
from agent_rl_envs.terminal.bench import Bench, open_bench
from agent_rl_envs.terminal.checking import check, run_script
from agent_rl_envs.terminal.formats.folders import find_tasks, read_task
from agent_rl_envs.terminal.made.make import find_made, write_folder
from agent_rl_envs.terminal.problems import Problem

REPEATS = 15


def show(what: str, seconds: float, limit: float, is_what: str) -> None:
    print(f"{what:<44}{1e3 * seconds:>9.1f} ms   limit {1e3 * limit:.1f} ms ({is_what})", flush=True)


async def resets(world: SandboxConfig) -> None:
    assert world.base is not None
    own, empty, copied = list[float](), list[float](), list[float]()
    for _ in range(REPEATS):
        for config, times in ((world, own), (SandboxConfig(), empty)):
            began = time.perf_counter()
            async with await open_sandbox(config) as sandbox:
                times.append(time.perf_counter() - began)
                await sandbox.exec(["true"])
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            began = time.perf_counter()
            shutil.copytree(world.base, Path(folder) / "copy", symlinks=True)
            copied.append(time.perf_counter() - began)
    show("reset (overlay)", statistics.median(own), statistics.median(empty), "an empty sandbox")
    by_copy, copy = statistics.median(map(sum, zip(empty, copied, strict=True))), statistics.median(copied)
    show("reset (copy: an empty sandbox and the copy)", by_copy, copy, "the copy")


async def grading(bench: Bench, problem: Problem, world: SandboxConfig) -> None:
    assert problem.solution is not None
    graded, bare, forks = list[float](), list[float](), list[float]()
    for _ in range(REPEATS):
        async with await open_sandbox(world) as sandbox:
            await run_script(sandbox, problem.solution, world.workspace, 60)
            began = time.perf_counter()
            async with await sandbox.fork() as court:
                forks.append(time.perf_counter() - began)
                bare.append((await check(problem, court, 60)).duration_s)
            began = time.perf_counter()
            verdict = await bench.judge.judge(problem, world, sandbox)
            graded.append(time.perf_counter() - began)
            assert verdict.solved, verdict
    show("grading", statistics.median(graded), statistics.median(bare), "the checker, in an open sandbox")
    over = statistics.median(a - b for a, b in zip(graded, bare, strict=True))
    show("grading beyond the checker", over, statistics.median(forks), "the fork alone")


async def measure(source: Path | None) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as temporary:
        root = Path(temporary)
        root.chmod(0o755)  # noqa: ASYNC240  # nothing else runs
        folder = root / "task"
        if source is None:
            write_folder(find_made("count_files", "train", 0), folder)
        else:
            folder = find_tasks(source, "train", 0.0)[0]
        problem = read_task(folder)
        async with open_bench(root, SandboxConfig(max_processes=256), "task", 2, 600, 600) as bench:
            began = time.perf_counter()
            world = await bench.worlds.prepare(problem)
            print(f"{'making its system, once':<44}{1e3 * (time.perf_counter() - began):>9.1f} ms")
            await resets(world)
            await grading(bench, problem, world)


if __name__ == "__main__":
    logging.disable(logging.INFO)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path)
    anyio.run(measure, parser.parse_args().source)
