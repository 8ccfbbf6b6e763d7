"""The task factory on a small package: what is kept, what is rejected and why, resumed and repeated."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from agent_rl.errors import UserError
from agent_rl.rows import RowsConfig
from agent_rl_envs.swe import SweConfig, SweEnvironment
from agent_rl_envs.swe.command import MakeConfig, PrepareConfig, make, prepare, write_tasks
from agent_rl_envs.swe.factory.bugs import Bug
from agent_rl_envs.swe.factory.make import Tried, Workshop
from agent_rl_envs.swe.factory.mutations import Mutation
from agent_rl_envs.swe.factory.survey import candidates, files_with_tests, survey
from agent_rl_envs.swe.generator import make_problems
from tests.unit.envs.swe.conftest import WHOLE

pytestmark = pytest.mark.anyio

TEST = """
import unittest
import calc


class Calc(unittest.TestCase):
    def test_add(self):
        self.assertEqual(calc.add(2, 3), 5)

    def test_double(self):
        self.assertEqual(calc.double(2), 4)

    def test_wait(self):
        self.assertEqual(calc.wait(3), 0)

    def test_always_fails(self):
        self.fail()

    def test_order(self):
        self.assertEqual("".join({"a", "b", "c", "d"}), calc.same())
"""
SOURCE = WHOLE + (
    "\n\ndef wait(n):\n    while n > 0:\n        n -= 1\n    return n\n"
    "\n\ndef same():\n    return ''.join({'a', 'b', 'c', 'd'})\n"
    "\n\ndef unused(a):\n    return a + 1\n"
)


@pytest.fixture
async def workshop(shop):
    clean = shop.problem({"calc.py": SOURCE, "tests/test_calc.py": TEST}, fail_to_pass=(), pass_to_pass=(), patch="")
    repository = await shop.repositories.prepare(clean)
    found = await survey(clean, repository, shop.judge)
    return Workshop(clean, repository, shop.repositories, shop.judge, found)


def mutation(workshop: Workshop, kind: str, replacement: str, function: str = "add") -> tuple[str, Mutation]:
    return next(
        (path, one)
        for path, one in candidates(workshop.repository.folder, workshop.survey)
        if (one.kind, one.replacement, one.function) == (kind, replacement, function)
    )


async def test_a_survey_knows_which_tests_pass_and_what_they_enter(workshop):
    names = {test.rpartition("::")[2] for test in workshop.survey.tests}
    assert names == {"test_add", "test_double", "test_wait", "test_order"}
    assert workshop.survey.covering["calc.py:1"] == ("tests/test_calc.py::Calc::test_add",)
    assert {one.function for _, one in candidates(workshop.repository.folder, workshop.survey)} == {
        "add",
        "double",
        "wait",
        "same",
    }
    assert files_with_tests(workshop.repository.folder) == ["tests/test_calc.py"]


async def test_a_bug_that_tests_notice_is_kept(workshop):
    path, one = mutation(workshop, "operator", "-")
    bug = await workshop.verify(path, one)
    assert isinstance(bug, Bug)
    assert bug.failing == ("tests/test_calc.py::Calc::test_add",)
    problem = workshop.problem(bug)
    assert "-    return a - b\n+    return a + b" in problem.patch
    assert "self.assertEqual(calc.add(2, 3), 5)" in problem.statement
    assert "`-1`" in problem.statement
    assert problem.patch not in problem.statement
    assert len(problem.pass_to_pass) == 3


@pytest.mark.parametrize(
    ("kind", "replacement", "function", "reason"),
    [
        ("operator", "+=", "wait", "does not end"),
        ("comparison", ">=", "wait", "kept"),
        ("constant", "1", "wait", "kept"),
    ],
)
async def test_why_others_are_not(workshop, kind, replacement, function, reason):
    outcome = await workshop.verify(*mutation(workshop, kind, replacement, function))
    assert ("kept" if isinstance(outcome, Bug) else outcome) == reason


async def test_a_bug_that_nobody_notices(workshop):
    unnoticed = Mutation("add", 1, "operator", SOURCE.index("a + b"), SOURCE.index("a + b") + 5, "b + a")
    assert await workshop.verify("calc.py", unnoticed) == "not noticed"


async def test_a_bug_that_shows_only_sometimes(workshop):
    """Here with the first seed of hashes alone, of which each run has another."""
    place = SOURCE.index("''.join")
    once = "'x' * (__import__('os').environ['PYTHONHASHSEED'] == '0') + "
    sometimes = Mutation("same", SOURCE[:place].count("\n"), "constant", place, place, once)
    assert await workshop.verify("calc.py", sometimes) == "differs from run to run"


async def test_what_is_no_program(workshop):
    assert await workshop.verify("calc.py", Mutation("add", 1, "x", 0, 3, "(")) == "no program"


async def test_a_run_goes_on_where_it_was_and_repeats(workshop, tmp_path: Path, monkeypatch):
    tried = Tried(tmp_path / "tried.jsonl")
    bugs, rejected = await workshop.find_bugs(2, 0, 1, tried, lambda kept, seen: None)
    assert len(bugs) == 2
    assert len({bug.place for bug in bugs}) == 2
    with tried.path.open("a") as file:
        file.write('{"id": "half a li')  # killed while it wrote

    async def not_again(self, path, one):
        raise AssertionError("it was tried already")

    monkeypatch.setattr(Workshop, "verify", not_again)
    again = await workshop.find_bugs(2, 0, 1, Tried.load(tried.path), lambda kept, seen: None)
    assert again == (bugs, rejected)


@pytest.mark.parametrize("split", ["function", "package"])
def test_train_and_test_share_nothing(split: str, tmp_path: Path):
    config = MakeConfig(packages=("a",), output=tmp_path, split=split, test_share=0.4)  # type: ignore[arg-type]
    problems = make_problems("train", 40, 0, (1,))
    made = {f"package{i}": [(f"f{j % 5}", problem) for j, problem in enumerate(problems[i::8])] for i in range(8)}
    assert write_tasks(config, made) == 40
    rows = {name: (tmp_path / f"{name}.jsonl").read_text().splitlines() for name in ("train", "test")}
    assert rows["train"]
    assert rows["test"]
    places = {problem.id: (name, place) for name, entries in made.items() for place, problem in entries}
    parts = 2 if split == "function" else 1
    seen = {name: {places[json.loads(line)["instance_id"]][:parts] for line in lines} for name, lines in rows.items()}
    assert not seen["train"] & seen["test"]
    before = (tmp_path / "train.jsonl").read_bytes()
    write_tasks(config, dict(reversed(made.items())))
    assert (tmp_path / "train.jsonl").read_bytes() == before


async def test_packages_that_cannot_be_used_are_left_out(tmp_path: Path):
    said = io.StringIO()
    config = MakeConfig(packages=("packaging==24.0",), output=tmp_path / "out")
    with pytest.raises(UserError, match="No task could be made"):
        await make(config, Console(file=said, width=200))
    assert "pytest imports it" in said.getvalue()


async def test_repositories_of_rows_are_prepared_before(tmp_path: Path):
    config = MakeConfig(packages=("a",), output=tmp_path, test_share=0.5)
    write_tasks(config, {"s": [("f", problem) for problem in make_problems("train", 2, 0, (1,))]})
    said = io.StringIO()
    await prepare(PrepareConfig(source=str(tmp_path), cache=tmp_path / "cache"), Console(file=said, width=200))
    assert "2 of 2 repositories are ready" in said.getvalue()
    assert len(list((tmp_path / "cache/layers").iterdir())) == 2


@pytest.mark.slow
async def test_two_real_packages(open_folder: Path):
    """Fetched from the package index, installed, broken, and mended by the oracle."""
    output = open_folder / "tasks"
    config = MakeConfig(packages=("inflection==0.5.1", "toolz==1.0.0"), output=output, count=4, test_share=0.5)
    try:
        await make(config, Console(quiet=True))
    except UserError as error:
        pytest.skip(f"the package index cannot be reached: {error}")
    from agent_rl.tool.config import ToolsConfig
    from agent_rl.tool.services import tool_services

    options = SweConfig(rows=RowsConfig(source=str(output)))
    tasks = [*SweEnvironment.tasks("train", 9, 0, options), *SweEnvironment.tasks("test", 9, 0, options)]
    assert len(tasks) == 4
    assert {task.tags[0] for task in tasks} == {"inflection", "toolz"}
    async with tool_services(ToolsConfig(cache="off")):
        for task in tasks:
            environment = SweEnvironment(options)
            try:
                await environment.reset(task, 0)
                steps = [await environment.step(environment.oracle_action()) for _ in range(2)]
            finally:
                await environment.close()
            assert steps[-1].reward == 1.0
