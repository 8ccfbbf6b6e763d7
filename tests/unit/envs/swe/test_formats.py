"""Rows as they are published, field by field; what is wrong is told with file, line and field."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from agent_rl.errors import UserError
from agent_rl.rows import Row, RowsConfig, read_rows
from agent_rl_envs.swe import SweConfig, SweEnvironment
from agent_rl_envs.swe.formats import problem_of, to_row
from agent_rl_envs.swe.generator import make_problems
from agent_rl_envs.swe.patches import touched, unified_diff
from agent_rl_envs.swe.problems import Source, to_data

FIX = unified_diff("src/click/core.py", "a\n", "b\n")
TESTS = unified_diff("tests/test_core.py", "a\n", "c\n")
SWE_BENCH = {
    "repo": "pallets/click",
    "instance_id": "pallets__click-1234",
    "base_commit": "a" * 40,
    "patch": FIX,
    "test_patch": TESTS,
    "problem_statement": "It does not click.",
    "hints_text": "Look at core.",
    "created_at": "2020-01-01T00:00:00Z",
    "version": "8.0",
    "FAIL_TO_PASS": '["tests/test_core.py::test_a"]',
    "PASS_TO_PASS": '["tests/test_core.py::test_b", "tests/test_other.py::test_c"]',
    "environment_setup_commit": "b" * 40,
    "difficulty": "15 min - 1 hour",
}
R2E = {
    "repo_name": "aiohttp",
    "docker_image": "namanjain12/aiohttp_final:abc",
    "commit_hash": "c" * 40,
    "problem_statement": "It hangs.",
    "parsed_commit_content": json.dumps(
        {
            "file_diffs": [
                {
                    "header": {"file": {"path": "aiohttp/web.py"}},
                    "old_file_content": "x = 1\n",
                    "new_file_content": "x = 2\n",
                },
                {"header": {"file": {"path": "tests/test_web.py"}}, "old_file_content": "", "new_file_content": "y\n"},
            ]
        }
    ),
    "execution_result_content": json.dumps(
        {
            "test_file_names": ["test_1.py", "__init__.py"],
            "test_file_codes": ["def test_x(): pass\n", ""],
            "old_commit_res_stdout": "PASSED r2e_tests/test_1.py::TestWeb::test_old\nFAILED test_1.py::test_x\n",
        }
    ),
    "expected_output_json": json.dumps({"TestWeb.test_old": "PASSED", "test_x": "PASSED", "test_slow": "FAILED"}),
}


def row(values, **changes):
    return Row({**values, **changes}, "rows.jsonl, line 3")


def test_swe_bench():
    problem = problem_of(row(SWE_BENCH), "swe_bench")
    assert problem.source == Source("git", "https://github.com/pallets/click.git", "a" * 40, "8.0")
    assert problem.fail_to_pass == ("tests/test_core.py::test_a",)
    assert problem.pass_to_pass == ("tests/test_core.py::test_b", "tests/test_other.py::test_c")
    assert problem.test_files == ("tests/test_core.py", "tests/test_other.py")
    assert (problem.patch, problem.test_patch) == (FIX, TESTS)
    assert problem.hints == "Look at core."
    assert problem.tags == ("pallets/click", "15 min - 1 hour")


def test_images_as_they_are_published():
    images = {
        format: problem_of(row(SWE_BENCH, version=None), format, images=True).source.name
        for format in ("swe_bench", "swe_gym")
    }
    assert images == {
        "swe_bench": "swebench/sweb.eval.x86_64.pallets_1776_click-1234:latest",
        "swe_gym": "xingyaoww/sweb.eval.x86_64.pallets_s_click-1234:latest",
    }
    assert problem_of(row(R2E), "r2e", images=True).source == Source("image", "namanjain12/aiohttp_final:abc")


def test_swe_gym_has_lists():
    problem = problem_of(row(SWE_BENCH, FAIL_TO_PASS=["tests/test_core.py::test_a"], PASS_TO_PASS=[]), "swe_gym")
    assert (problem.fail_to_pass, problem.pass_to_pass) == (("tests/test_core.py::test_a",), ())


def test_bare_names_are_of_the_patched_files():
    problem = problem_of(row(SWE_BENCH, FAIL_TO_PASS='["test_a"]', PASS_TO_PASS="[]"), "swe_bench")
    assert problem.test_files == ("tests/test_core.py",)


def test_tests_of_another_runner_are_left_out():
    assert problem_of(row(SWE_BENCH, FAIL_TO_PASS='["test_a (forms.tests.FormTest)"]'), "swe_bench") is None


def test_r2e():
    problem = problem_of(row(R2E), "r2e")
    assert problem.source == Source("git", "https://github.com/aio-libs/aiohttp.git", "c" * 40 + "^")
    assert problem.fail_to_pass == ("test_x",)
    assert problem.pass_to_pass == ("TestWeb.test_old",)
    assert touched(problem.test_patch) == ("r2e_tests/test_1.py",)
    assert problem.test_files == ("r2e_tests/test_1.py",)
    assert touched(problem.patch) == ("aiohttp/web.py",)


def test_the_factorys_rows_come_back(tmp_path: Path):
    problems = [replace(p, hints="h") for p in make_problems("train", 3, 0, (1, 2))]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(to_row(problem)) + "\n" for problem in problems))
    rows = read_rows(RowsConfig(source=str(tmp_path)), "train")
    assert [problem_of(one, "tasks") for one in rows] == problems


def test_tasks_of_rows(tmp_path: Path):
    path = tmp_path / "lite.jsonl"
    path.write_text(json.dumps(SWE_BENCH) + "\n" + json.dumps({**SWE_BENCH, "FAIL_TO_PASS": ["test_a (x.Y)"]}) + "\n")
    config = SweConfig(rows=RowsConfig(source=str(path), test_share=1.0), format="swe_bench", hints=True)
    [task] = SweEnvironment.tasks("test", 5, config=config)
    assert task.id == "pallets__click-1234"
    assert task.prompt[-1].content == "It does not click.\n\nHints:\nLook at core."
    assert json.loads(json.dumps(task.data)) == {"problem": to_data(problem_of(row(SWE_BENCH), "swe_bench"))}
    plain = config.model_copy(update={"hints": False})
    assert SweEnvironment.tasks("test", 5, config=plain)[0].prompt[-1].content == "It does not click."


@pytest.mark.parametrize(
    ("format", "values", "message"),
    [
        ("swe_bench", {"FAIL_TO_PASS": "[]"}, "field 'FAIL_TO_PASS' is wrong: there is no test"),
        ("swe_bench", {"FAIL_TO_PASS": "[1]"}, "field 'FAIL_TO_PASS' is wrong: it must be a list of texts"),
        ("swe_bench", {"FAIL_TO_PASS": "[x"}, "field 'FAIL_TO_PASS' is not valid JSON"),
        ("swe_bench", {"problem_statement": None}, "there is no field 'problem_statement'"),
        ("tasks", {"source": "ftp"}, "field 'source' is wrong: 'ftp' is none of"),
        ("tasks", {"source": "git", "driver": "nose"}, "field 'driver' is wrong: 'nose' is neither"),
    ],
)
def test_mistakes_name_line_and_field(format, values, message):
    with pytest.raises(UserError, match=r"rows.jsonl, line 3: " + message):
        problem_of(row(SWE_BENCH, **values), format)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"repo_name": "unheard"}, "field 'repo_name' is wrong: where 'unheard' can be cloned from"),
        ({"expected_output_json": "{}"}, "field 'expected_output_json' is wrong"),
        ({"execution_result_content": "{}"}, "field 'execution_result_content' is wrong"),
    ],
)
def test_mistakes_in_r2e_rows(values, message):
    with pytest.raises(UserError, match=message):
        problem_of(row(R2E, **values), "r2e")
