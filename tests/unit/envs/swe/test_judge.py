"""Attempts are graded by what they do to a clean repository, and by nothing else that they try."""

from dataclasses import replace

import pytest

from agent_rl.errors import GraderFailure
from agent_rl.sandbox import open_sandbox
from agent_rl_envs.swe.judge import collect_changes, counted, read_run
from agent_rl_envs.swe.patches import Changes, unified_diff
from agent_rl_envs.swe.repositories import patch_of, solution_of
from tests.unit.envs.swe.conftest import BROKEN, UNITTEST, WHOLE

pytestmark = pytest.mark.anyio

HOOK = """
import pytest


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    outcome.get_result().outcome = "passed"
"""
PATCHED_PYTEST = """
import sys
runner = sys.modules.get("_pytest.runner")
if runner:
    real = runner.CallInfo.from_call.__func__
    def from_call(cls, func, when, reraise=None):
        return real(cls, (lambda: None) if when == "call" else func, when, reraise)
    runner.CallInfo.from_call = classmethod(from_call)
"""


FORGES = """
import os
for fd in range(3, 99):
    try: os.write(fd, b'{"test": "tests/test_calc.py::Calc::test_add", "outcome": "passed"}\\n{"end": 0}\\n')
    except OSError: pass
"""


async def verdict(shop, problem, write):
    repository = await shop.repositories.prepare(problem)
    changes = counted(Changes({path: text.encode() for path, text in write.items()}), problem)
    return await shop.judge.judge(problem, repository, changes)


async def test_the_solution_resolves_and_nothing_else_does(shop):
    problem = shop.problem()
    solved = await verdict(shop, problem, {"calc.py": WHOLE})
    assert (solved.resolved, solved.fail_to_pass, solved.pass_to_pass) == (True, 1.0, 1.0)
    not_solved = await verdict(shop, problem, {"calc.py": BROKEN + "\n"})
    assert (not_solved.resolved, not_solved.fail_to_pass, not_solved.pass_to_pass) == (False, 0.0, 1.0)
    assert not_solved.failing == problem.fail_to_pass
    failure = not_solved.run.failures[problem.fail_to_pass[0]]
    assert (failure.error, failure.message, failure.by_test) == ("AssertionError", "-1 != 5", True)
    assert UNITTEST.splitlines()[failure.line - 1].strip() == "self.assertEqual(calc.add(2, 3), 5)"


async def test_breaking_something_else_is_seen(shop):
    broken = await verdict(shop, shop.problem(), {"calc.py": WHOLE.replace("2 * a", "3 * a")})
    assert (broken.resolved, broken.fail_to_pass, broken.pass_to_pass) == (False, 1.0, 0.0)


async def test_hidden_tests_are_the_graders_alone(shop):
    hidden = UNITTEST.replace("class Calc", "class More").replace("add(2, 3), 5", "add(0, 1), 1")
    problem = shop.problem(
        fail_to_pass=("tests/test_more.py::More::test_add",),
        test_patch=unified_diff("tests/test_more.py", None, hidden),
    )
    repository = await shop.repositories.prepare(problem)
    assert not (repository.folder / "tests/test_more.py").exists()
    assert (await verdict(shop, problem, {"calc.py": WHOLE})).resolved
    assert not (await verdict(shop, problem, {"calc.py": BROKEN, "tests/test_more.py": "pass"})).resolved


async def test_what_an_agent_changed_is_found(shop):
    problem = shop.problem({"data.bin": "x", "old.py": "1"})
    repository = await shop.repositories.prepare(problem)
    async with await open_sandbox(repository.workspace(shop.config, problem.source)) as sandbox:
        assert (await collect_changes(sandbox, repository)).paths == ()
        await sandbox.exec(
            "sed -i 's/a - b/a + b/' calc.py; rm old.py; mkdir new; echo 1 > new/x.py; touch data.bin; "
            "ln -s calc.py link.py; rm -rf .git; mkdir __pycache__; echo 1 > __pycache__/calc.cpython-311.pyc"
        )
        changes = await collect_changes(sandbox, repository)
    assert changes.write == {"calc.py": WHOLE.encode(), "new/x.py": b"1\n"}
    assert changes.delete == ("old.py",)
    assert "-    return a - b\n+    return a + b\n" in patch_of(changes, repository)


async def test_a_flood_of_files_is_no_attempt(shop):
    problem = shop.problem()
    repository = await shop.repositories.prepare(problem)
    async with await open_sandbox(repository.workspace(shop.config, problem.source)) as sandbox:
        await sandbox.exec("head -c 20000000 /dev/zero > big")
        changes = await collect_changes(sandbox, repository)
    assert changes.too_large
    assert not changes.paths


async def test_paths_that_lead_out_are_no_part_of_an_attempt(shop, monkeypatch):
    """An image's own Python could be made to tell anything."""
    told = '{"write": {"../x": "", "/etc/x": "", "a/../../x": "", "ok.py": ""}, "delete": ["../y"], "too_large": false}'
    problem = shop.problem()
    repository = await shop.repositories.prepare(problem)
    async with await open_sandbox(repository.workspace(shop.config, problem.source)) as sandbox:
        for text, paths in ((told, ("ok.py",)), ("no json", ()), ("[]", ()), ('{"write": 1}', ())):
            monkeypatch.setattr("agent_rl_envs.swe.judge.program", lambda name, text=text: f"print({text!r})")
            assert (await collect_changes(sandbox, repository)).paths == paths


async def test_a_folder_can_become_a_file(shop):
    problem = shop.problem({"calc.py": "", "calc/__init__.py": BROKEN}, patch="x")
    repository = await shop.repositories.prepare(problem)
    changes = Changes({"calc.py": WHOLE.encode()}, ("calc/__init__.py",))
    assert (await shop.judge.judge(problem, repository, changes)).resolved
    other = Changes({"tests/data": b"x", "calc": b"x", "calc.py": WHOLE.encode()}, ("calc/__init__.py",))
    assert (await shop.judge.judge(problem, repository, other)).resolved


async def test_history_ends_with_the_base(shop):
    """Neither the fix nor anything else of the source's history can be read."""
    problem = shop.problem()
    repository = await shop.repositories.prepare(problem)
    async with await open_sandbox(repository.workspace(shop.config, problem.source)) as sandbox:
        log = await sandbox.exec("git log --all --format=%s; git reflog | wc -l; git status --porcelain")
    assert log.output == "The repository as it is\n1\n"


async def test_the_solution_as_changes(shop):
    problem = shop.problem({"gone.py": "x = 1\n"})
    patch = problem.patch + unified_diff("gone.py", "x = 1\n", None) + unified_diff("new/n.py", None, "y = 1\n")
    repository = await shop.repositories.prepare(problem)
    changes = solution_of(replace(problem, patch=patch), repository)
    assert changes.write == {"calc.py": WHOLE.encode(), "new/n.py": b"y = 1\n"}
    assert changes.delete == ("gone.py",)
    assert (repository.folder / "gone.py").exists()


# --- what tries to win without mending anything ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["tests/test_calc.py", "conftest.py", "tests/conftest.py", "pytest.ini", "setup.cfg", "pyproject.toml", "x.pth"],
)
async def test_files_of_tests_and_settings_do_not_count(shop, path):
    changes = Changes({path: b"import os; os._exit(0)", "calc.py": b""}, ("tests/__init__.py",))
    assert counted(changes, shop.problem()).paths == ("calc.py",)


async def test_a_file_that_the_solution_changes_counts(shop):
    problem = shop.problem()
    allowed = replace(problem, patch=problem.patch + unified_diff("setup.cfg", None, "[x]\n"))
    assert counted(Changes({"setup.cfg": b"[x]"}), allowed).paths == ("setup.cfg",)
    hidden = replace(allowed, test_patch=unified_diff("setup.cfg", None, "[x]\n"))
    assert counted(Changes({"setup.cfg": b"[x]"}), hidden).paths == ()


@pytest.mark.parametrize(
    ("evil", "status"),
    [
        ("import unittest\nunittest.TestCase.assertEqual = lambda *a: None\n", "tampered"),
        ("import unittest\nunittest.case.TestCase.run = lambda s, r: r.addSuccess(s)\n", "tampered"),
        ("import os\nos._exit(0)\n", "failed"),
        ("import sys\nsys.exit(0)\n", "failed"),
        (FORGES, "tampered"),
    ],
    ids=["weak asserts", "no tests", "leaves", "leaves politely", "forges"],
)
async def test_hostile_sources_win_nothing(shop, evil, status):
    found = await verdict(shop, shop.problem(), {"calc.py": evil + BROKEN})
    assert not found.resolved
    assert found.run.status == status
    assert found.fail_to_pass == 0.0


async def test_the_workspace_stands_in_for_no_library(shop):
    """A module called like one of the standard library's is not what the tests are run with."""
    fake = "class TestCase: pass\nclass TestResult: pass\n"
    found = await verdict(shop, shop.problem(), {"unittest/__init__.py": fake, "json.py": "", "sitecustomize.py": "x"})
    assert found.run.outcomes == {
        "tests/test_calc.py::Calc::test_add": "failed",
        "tests/test_calc.py::Calc::test_double": "passed",
    }


@pytest.mark.parametrize("path", ["evil.py", "calc.py"])
async def test_pytest_is_not_taken_over(own_shop, path):
    """By what a source does when it is imported, or by a plugin that metadata in the workspace names."""
    problem = own_shop.problem(driver="pytest")
    repository = await own_shop.repositories.prepare(problem)
    write = {
        "evil-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: evil\nVersion: 1\n",
        "evil-1.dist-info/entry_points.txt": "[pytest11]\nevil = evil\n",
        "pytest.py": "raise SystemExit(0)",
        "evil.py": HOOK,
        "calc.py": (PATCHED_PYTEST if path == "calc.py" else "") + BROKEN,
    }
    everything = Changes({name: text.encode() for name, text in write.items()})  # even what does not count
    found = await own_shop.judge.judge(problem, repository, everything)
    assert not found.resolved
    assert found.run.status == ("tampered" if path == "calc.py" else "done")
    assert found.run.holds(problem.fail_to_pass[0]) is False or found.fail_to_pass == 0.0


async def test_pytest_grades(own_shop):
    problem = own_shop.problem(driver="pytest")
    assert (await verdict(own_shop, problem, {"calc.py": WHOLE})).resolved
    failed = await verdict(own_shop, problem, {"calc.py": BROKEN + "# same\n"})
    assert (failed.fail_to_pass, failed.pass_to_pass) == (0.0, 1.0)
    assert failed.run.failures[problem.fail_to_pass[0]].message.startswith("assert -1 == 5")


async def test_functions_that_tests_enter_are_traced(shop, own_shop):
    for one, driver in ((shop, "unittest"), (own_shop, "pytest")):
        problem = one.problem(driver=driver)
        repository = await one.repositories.prepare(problem)
        run = await one.judge.run(problem, repository, Changes(), trace=True)
        entered = {test.rpartition("::")[2]: list(places) for test, places in run.entered.items()}
        assert ("calc.py", 1) in entered["test_add"]
        assert ("calc.py", 5) not in entered["test_add"]
        assert ("calc.py", 5) in entered["test_double"]


# --- test suites that misbehave -------------------------------------------------------------------------------------

HANG = "while True: pass\n"
FORKS = "import os, time\nfor _ in range(400):\n    if not os.fork():\n        time.sleep(60)\n"
FLOOD = "import sys\nfor _ in range(200): sys.stdout.write('x' * 10**6)\n"
DELETES = "import shutil\nshutil.rmtree('.', ignore_errors=True)\n"
KILLS = "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nos.kill(-1, signal.SIGKILL)\n"


@pytest.mark.parametrize("evil", [HANG, FORKS, KILLS], ids=["hangs", "forks", "kills"])
async def test_an_attempt_that_misbehaves_has_failed(shop, evil):
    problem = shop.problem(timeout_s=3.0 if evil == HANG else 8.0)
    found = await verdict(shop, problem, {"calc.py": evil + WHOLE})
    assert not found.resolved
    assert found.run.status != "done"
    assert (await verdict(shop, problem, {"calc.py": WHOLE})).resolved


@pytest.mark.parametrize("evil", [FLOOD, DELETES], ids=["floods", "deletes"])
async def test_what_only_makes_a_mess_is_graded(shop, evil):
    """It ends, and within its limits: what tests print is cut, and its repository is a copy."""
    problem = shop.problem()
    found = await verdict(shop, problem, {"calc.py": WHOLE + evil})
    assert found.run.status == "done"
    assert len(found.run.tail) <= 20_000
    assert (await verdict(shop, problem, {"calc.py": WHOLE})).resolved


@pytest.mark.parametrize("evil", ["while True: pass\n", "import os\nos._exit(3)\n"], ids=["hang", "leave"])
async def test_tests_that_never_worked_are_the_graders_fault(shop, evil):
    problem = shop.problem({"tests/test_calc.py": UNITTEST + evil}, timeout_s=3.0)
    with pytest.raises(GraderFailure, match="do not work even with the solution"):
        await verdict(shop, problem, {"calc.py": BROKEN + "# tried\n"})


# --- reading reports ------------------------------------------------------------------------------------------------


def told(*records, status="done", forged=0):
    return {"status": status, "records": list(records), "forged": forged, "tail": "", "duration_s": 0.1}


CANARY = {"test": "a.py::test_c", "outcome": "failed"}
PASSED = {"test": "a.py::test_x", "outcome": "passed"}
END = {"end": 0}


def test_a_run_is_done_when_it_says_so_and_its_canaries_fail():
    assert read_run(told(CANARY, PASSED, END), ["test_c"]).status == "done"
    assert read_run(told(CANARY, PASSED), ["test_c"]).status == "failed"
    assert read_run(told(PASSED, END), ["test_c"]).status == "tampered"
    assert read_run(told({**CANARY, "outcome": "passed"}, PASSED, END), ["test_c"]).status == "tampered"
    assert read_run(told(CANARY, PASSED, END, forged=1), ["test_c"]).status == "tampered"
    assert read_run(told(CANARY, PASSED, END, status="late"), ["test_c"]).status == "late"


def test_a_test_counts_by_the_worst_that_was_reported():
    failed = {**PASSED, "outcome": "failed"}
    for records in ((PASSED, failed), (failed, PASSED)):
        assert not read_run(told(CANARY, *records, END), ["test_c"]).holds("a.py::test_x")


def test_a_test_without_a_file_holds_where_all_of_that_name_do():
    one, other = ({"test": f"{path}::Case::test_x", "outcome": "passed"} for path in ("a.py", "b.py"))
    assert read_run(told(CANARY, one, other, END), ["test_c"]).holds("Case.test_x")
    assert not read_run(told(CANARY, one, {**other, "outcome": "failed"}, END), ["test_c"]).holds("Case.test_x")
    assert not read_run(told(CANARY, END), ["test_c"]).holds("Case.test_x")
