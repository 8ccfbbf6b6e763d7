"""What an episode of `swe` costs beside its tests: reset, grading, and whole episodes per second.

Each figure has its limit beside it, measured in turn with it: for a reset, opening an empty sandbox of the same kind;
for a reset by copy (where overlays cannot be mounted), copying the same files; for grading, the same tests run by
Python in an open sandbox, without any environment; for episodes, the tests that they have to run.

    python benchmarks/swe_episodes.py [--rows FOLDER]      # a folder of `agent-rl swe make`; none: the shipped package
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio

from agent_rl.environment import Environment, EnvironmentSpec
from agent_rl.evaluate.harness import evaluate
from agent_rl.rollout.agent import EpisodeKey, OracleAgent
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.rows import RowsConfig
from agent_rl.sandbox import open_sandbox
from agent_rl_envs.swe import SweConfig, SweEnvironment
from agent_rl_envs.swe.bench import Bench, open_bench
from agent_rl_envs.swe.problems import Problem, from_data
from agent_rl_envs.swe.repositories import Repository, solution_of

REPEATS, EPISODES, CONCURRENT = 15, 24, 4
TESTS = {
    "unittest": "{python} -m unittest -q {modules}",
    "pytest": "{python} -m pytest -q -p no:cacheprovider {files}",
}


def oracle(environment: Environment, key: EpisodeKey) -> OracleAgent:
    return OracleAgent(environment)


async def timed(action: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await action()
    return time.perf_counter() - began


def show(what: str, seconds: float, goal: str, limit: float, is_what: str) -> None:
    print(f"{what:<44}{1e3 * seconds:>9.1f} ms   goal {goal:<10} limit {1e3 * limit:.1f} ms ({is_what})", flush=True)


async def resets(bench: Bench, problem: Problem, repository: Repository) -> None:
    own, empty, copies, copied = list[float](), list[float](), list[float](), list[float]()

    async def reset() -> None:
        async with await bench.workspace(problem, repository) as sandbox:
            own.append(time.perf_counter() - began)
            await sandbox.exec(["true"])

    for _ in range(REPEATS):
        began = time.perf_counter()
        await reset()
        began = time.perf_counter()
        async with await open_sandbox(bench.sandbox) as sandbox:
            empty.append(time.perf_counter() - began)
            await sandbox.exec(["true"])
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            began = time.perf_counter()
            shutil.copytree(repository.folder, Path(folder) / "copy", symlinks=True)
            copied.append(time.perf_counter() - began)
        copies.append(copied[-1] + empty[-1])
    show("reset (overlay)", statistics.median(own), "< 100", statistics.median(empty), "an empty sandbox")
    by_copy, copy = statistics.median(copies), statistics.median(copied)
    show("reset (copy: an empty sandbox and the copy)", by_copy, "< 1000", copy, "the copy")


async def grading(bench: Bench, problem: Problem, repository: Repository) -> float:
    """The judge against the bare tests, in turn; returns the seconds of these."""
    changes, runtime = solution_of(problem, repository), repository.runtime
    modules = " ".join(path.removesuffix(".py").replace("/", ".") for path in problem.test_files)
    command = TESTS[problem.driver].format(python=runtime.python, modules=modules, files=" ".join(problem.test_files))
    graded, bare, inner = list[float](), list[float](), list[float]()
    async with await open_sandbox(repository.court(bench.sandbox, problem.source)) as sandbox:
        for path, content in changes.write.items():
            await sandbox.write(path, content)
        for _ in range(REPEATS):
            began = time.perf_counter()
            verdict = await bench.judge.judge(problem, repository, changes)
            graded.append(time.perf_counter() - began)
            assert verdict.resolved, verdict
            inner.append(verdict.run.duration_s)
            bare.append(await timed(lambda: sandbox.exec(command, timeout_s=300)))
    over = statistics.median(a - b for a, b in zip(graded, bare, strict=True))
    outside = statistics.median(a - b for a, b in zip(graded, inner, strict=True))
    show("grading", statistics.median(graded), "", statistics.median(bare), "the tests, in an open sandbox")
    show("grading beyond the bare tests", over, "< 300", 0.0, "nothing")
    show("  of that outside of the driver's process", outside, "", 0.0, "nothing")
    return statistics.median(bare)


async def episodes(spec: EnvironmentSpec, config: SweConfig, tests_s: float) -> None:
    tasks = spec.tasks("train", EPISODES)
    limits = RolloutLimits(max_turns=4)
    await evaluate(spec, tasks, oracle, limits=limits, concurrency=CONCURRENT)  # prepares
    began = time.perf_counter()
    report = await evaluate(spec, tasks, oracle, limits=limits, concurrency=CONCURRENT)
    took = time.perf_counter() - began
    assert report.overall is not None
    assert report.overall.reward.value == 1.0, report
    most = min(config.judges, os.cpu_count() or 1) / tests_s
    rate = len(tasks) / took
    print(f"{rate:.2f} episodes/s, {CONCURRENT} at once   limit {most:.2f} (the tests, {config.judges} at once)")


async def measure(rows: str) -> None:
    config = SweConfig(rows=RowsConfig(source=rows, test_share=0.0)) if rows else SweConfig()
    spec = EnvironmentSpec(SweEnvironment, config)
    problem = from_data(spec.tasks("train", 1)[0].data["problem"])
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        await anyio.Path(folder).chmod(0o755)
        cache = config.cache or (Path(rows) / "prepared" if rows else Path(folder))
        spec = EnvironmentSpec(SweEnvironment, config.model_copy(update={"cache": cache}))
        tests = len(problem.fail_to_pass) + len(problem.pass_to_pass)
        print(f"task {problem.id}, {tests} tests; load of the machine {os.getloadavg()[0]:.1f}")
        async with open_bench(config.sandbox, cache, 1, 300.0, 900.0) as bench:
            began = time.perf_counter()
            repository = await bench.repository(problem)
            print(f"preparing the repository, once: {time.perf_counter() - began:.2f} s")
            async with await open_sandbox(config.sandbox):  # the launcher is there, as in a run
                await resets(bench, problem, repository)
                tests_s = await grading(bench, problem, repository)
        await episodes(spec, config, tests_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", default="", help="folder that `agent-rl swe make` wrote")
    logging.disable(logging.INFO)
    anyio.run(measure, parser.parse_args().rows)


if __name__ == "__main__":
    main()
