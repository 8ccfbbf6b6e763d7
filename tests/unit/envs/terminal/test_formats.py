"""Task directories as they are published: read without conversion, refused in words."""

import logging

import pytest

from agent_rl.errors import UserError
from agent_rl.sandbox import SandboxConfig
from agent_rl_envs.terminal import TerminalConfig, TerminalEnvironment
from agent_rl_envs.terminal.formats.folders import find_tasks, read_task, sample_tasks
from agent_rl_envs.terminal.problems import Unsupported
from tests.unit.envs.terminal.conftest import HARBOR, TERMINAL_BENCH, write


def test_a_task_of_harbor(tmp_path):
    toml = """
schema_version = "1.1"
artifacts = ["/app/out"]
[task]
name = "org/answer"
[metadata]
difficulty = "hard"
category = "math"
anything = [1, 2]
[verifier]
timeout_sec = 7
env = { MODEL = "${MODEL:-small}" }
user = "root"
[agent]
timeout_sec = 30.5
[solution]
env = { FAST = "1" }
[environment]
docker_image = "org/answer:3"
build_timeout_sec = 100.0
cpus = 2
memory = "2G"
storage = "512M"
allow_internet = false
env = { COLOR = "red" }
"""
    folder = write(tmp_path / "answer", HARBOR, **{"task.toml": toml, "tests/data/x.csv": "1\n"})
    problem = read_task(folder)
    assert (problem.id, problem.layout, problem.instruction) == ("answer", "harbor", "Write 42 to /app/answer.txt.")
    assert (problem.agent_timeout_s, problem.tags) == (30.5, ("difficulty:hard", "category:math"))
    world = problem.world
    assert (world.image, world.context, world.wants_network) == ("org/answer:3", folder / "environment", False)
    assert (world.memory_mb, world.cpus, world.disk_mb, world.environment) == (2048, 2.0, 512, {"COLOR": "red"})
    assert (problem.checker.path, problem.checker.timeout_s) == ("/tests/test.sh", 7.0)
    assert set(problem.checker.files) == {"test.sh", "data/x.csv"}
    assert problem.checker.environment == {"MODEL": "small"}
    assert problem.solution is not None
    assert (problem.solution.path, problem.solution.environment) == ("/solution/solve.sh", {"FAST": "1"})


def test_a_task_of_harbor_without_what_is_optional(tmp_path):
    folder = write(tmp_path / "t", HARBOR, **{"task.toml": 'version = "1.0"\n', "solution/solve.sh": None})
    problem = read_task(folder)
    assert (problem.solution, problem.agent_timeout_s, problem.checker.timeout_s) == (None, None, 600.0)
    assert (problem.world.memory_mb, problem.world.disk_mb, problem.world.wants_network) == (2048, 10240, True)


def test_a_task_of_terminal_bench(tmp_path):
    problem = read_task(write(tmp_path / "answer", TERMINAL_BENCH))
    assert (problem.layout, problem.instruction) == ("terminal_bench", "Write 42 to /app/answer.txt.")
    assert set(problem.checker.files) == {"run-tests.sh", "test_outputs.py"}
    assert problem.checker.environment == {"TEST_DIR": "/tests"}
    assert (problem.checker.timeout_s, problem.agent_timeout_s) == (20.0, 60.0)
    assert problem.solution is not None
    assert problem.solution.path == "/oracle/solution.sh"
    assert problem.world.environment == {"COLOR": "green"}
    assert {"tests", "solution.sh", "run-tests.sh", "task.yaml"} <= set(problem.world.hidden)


@pytest.mark.parametrize(
    ("files", "changes", "sentence"),
    [
        (HARBOR, {"task.toml": "[verifier]\ntimeout_sec = 'x'"}, r"task\.toml: verifier\.timeout_sec must be a number"),
        (HARBOR, {"task.toml": "[verifier]\ntimeout_sec = -1"}, r"task\.toml: verifier\.timeout_sec must be above 0"),
        (HARBOR, {"task.toml": "[environment]\nmemory = 'much'"}, r"environment\.memory must be a size such as 2G"),
        (HARBOR, {"task.toml": "[environment"}, r"task\.toml: this is not TOML"),
        (HARBOR, {"task.toml": "verifier = 3"}, r"task\.toml: verifier must be a table"),
        (HARBOR, {"instruction.md": None}, r"instruction\.md is missing"),
        (HARBOR, {"tests/test.sh": None}, r"test\.sh is missing"),
        (HARBOR, {"environment/Dockerfile": None}, r"Dockerfile is missing, and .*task\.toml names no"),
        (TERMINAL_BENCH, {"task.yaml": "difficulty: easy"}, r"task\.yaml: instruction is missing"),
        (TERMINAL_BENCH, {"task.yaml": "a: ["}, r"task\.yaml: this is not YAML"),
        (TERMINAL_BENCH, {"task.yaml": "just text"}, r"task\.yaml: the file must be a table"),
        (TERMINAL_BENCH, {"run-tests.sh": None}, r"run-tests\.sh is missing"),
        (TERMINAL_BENCH, {"Dockerfile": None}, r"Dockerfile is missing"),
        ({"readme": ""}, {}, r"is no task: it has neither task\.toml nor task\.yaml"),
    ],
)
def test_what_is_broken_is_said_with_file_and_field(tmp_path, files, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        read_task(write(tmp_path / "t", files, **changes))


def test_files_from_elsewhere_are_not_taken_along(tmp_path):
    folder = write(tmp_path / "t", HARBOR, **{"tests/inner": "x"})
    (folder / "tests" / "stolen").symlink_to("/etc/passwd")
    (folder / "tests" / "own").symlink_to("inner")
    assert set(read_task(folder).checker.files) == {"test.sh", "inner", "own"}


def _service(text: str) -> str:
    return f"services:\n  client:\n    {text}\n"


@pytest.mark.parametrize(
    ("files", "changes", "reason"),
    [
        (HARBOR, {"task.toml": "[environment]\ngpus = 1"}, r"environment\.gpus: sandboxes have no GPU"),
        (HARBOR, {"task.toml": "[[environment.mcp_servers]]\nname = 'x'"}, r"environment\.mcp_servers: "),
        (HARBOR, {"task.toml": "[environment]\nos = 'windows'"}, r"environment\.os: only Linux"),
        (HARBOR, {"task.toml": "[environment]\nallowed_hosts = ['x.org']"}, r"environment\.network_mode: "),
        (HARBOR, {"task.toml": "[environment]\nmemory_gb = 2"}, r"environment\.memory_gb: this key is not known"),
        (HARBOR, {"task.toml": "[environment.healthcheck]\ncommand = 'x'"}, r"environment\.healthcheck: "),
        (HARBOR, {"task.toml": "[verifier]\nenvironment_mode = 'separate'"}, r"verifier\.environment_mode: "),
        (
            HARBOR,
            {"task.toml": "[verifier]\nenv = { KEY = '${KEY}' }"},
            r"verifier\.env: \$\{KEY\} is a variable of the",
        ),
        (HARBOR, {"task.toml": "[agent]\nuser = 'dev'"}, r"agent\.user: agent and verifier are root here, not dev"),
        (HARBOR, {"task.toml": "[[steps]]\nname = 'a'"}, r"steps: tasks of several steps"),
        (HARBOR, {"environment/docker-compose.yaml": "services:\n  main: {}\n  db: {}\n"}, r"not db, main"),
        (TERMINAL_BENCH, {"docker-compose.yaml": _service("privileged: true")}, r"services\.client\.privileged: "),
        (TERMINAL_BENCH, {"docker-compose.yaml": _service("volumes: ['./x:/x']")}, r"volumes: \./x:/x is not mounted"),
        (TERMINAL_BENCH, {"docker-compose.yaml": _service("build: ../base")}, r"build\.context: .*not \.\./base"),
        (TERMINAL_BENCH, {"docker-compose.yaml": _service("secrets: [a]")}, r"services\.client\.secrets: this key"),
        (TERMINAL_BENCH, {"task.yaml": "instruction: x\nparser_name: swebench"}, r"parser_name: only what pytest"),
        (TERMINAL_BENCH, {"task.yaml": "instruction: x\nrun_tests_in_same_shell: true"}, r"run_tests_in_same_shell: "),
    ],
)
def test_what_cannot_be_done_here_is_refused_by_name(tmp_path, files, changes, reason):
    with pytest.raises(Unsupported, match=reason):
        read_task(write(tmp_path / "t", files, **changes))


def test_folders_are_searched_and_split(tmp_path):
    for number in range(30):
        write(tmp_path / "all" / f"deep{number % 2}" / f"t{number}", HARBOR)
    train, test = (find_tasks(tmp_path / "all", split, 0.3) for split in ("train", "test"))
    assert set(train) | set(test) == set(find_tasks(tmp_path / "all", "", 0.3))
    assert not set(train) & set(test)
    assert 3 <= len(test) <= 16
    for split in ("train", "test"):
        write(tmp_path / "split" / split / "one", TERMINAL_BENCH)
        assert find_tasks(tmp_path / "split", split, 0.0) == [tmp_path / "split" / split / "one"]
    one = tmp_path / "all" / "deep0" / "t0"
    assert find_tasks(one, "train", 0.5) == find_tasks(one, "test", 0.5) == [one]
    with pytest.raises(
        UserError, match=r"no tasks for the split test: a task is a folder with task\.toml or task\.yaml"
    ):
        find_tasks(tmp_path / "all", "test", 0.0)
    with pytest.raises(UserError, match="is not there"):
        find_tasks(tmp_path / "nowhere", "train", 0.0)


def test_what_is_left_out_is_said(tmp_path, caplog):
    write(tmp_path / "good", HARBOR)
    write(tmp_path / "gpu", HARBOR, **{"task.toml": "[environment]\ngpus = 1"})
    write(tmp_path / "odd", HARBOR)
    folders = find_tasks(tmp_path, "", 0.0)

    def why_not(problem):
        return "it is odd" if problem.id == "odd" else None

    with caplog.at_level(logging.WARNING):
        problems = sample_tasks(folders, 5, 0, "skip", why_not)
    assert [problem.id for problem in problems] == ["good"]
    assert "2 tasks are left out: gpu: environment.gpus: sandboxes have no GPU; odd: it is odd." in caplog.text
    with pytest.raises(UserError, match=r"(gpu|odd) cannot be run here: .* \(`on_unsupported skip` leaves it out\)"):
        sample_tasks(folders, 5, 0, "error", why_not)
    with pytest.raises(UserError, match="None of the tasks can be run here: odd: it is odd"):
        sample_tasks([tmp_path / "odd"], 1, 0, "skip", why_not)


def test_tasks_tell_nothing_but_the_instruction(tmp_path):
    write(tmp_path / "t", HARBOR)
    [task] = TerminalEnvironment.tasks("train", 3, 0, TerminalConfig(source=tmp_path))
    assert task.prompt[-1].content == "Write 42 to /app/answer.txt."
    assert (task.environment, task.id, task.tags) == ("terminal", "t", ("difficulty:easy",))
    with pytest.raises(UserError, match="Unknown split 'dev'"):
        TerminalEnvironment.tasks("dev", 1)


@pytest.mark.parametrize(
    ("dockerfile", "script", "reason"),
    [
        ("FROM x\nRUN apt-get update\n", "", r"Dockerfile: `apt-get update` needs the network"),
        ("FROM x\n", "uvx pytest\n", r"test\.sh: `uvx` needs the network"),
    ],
)
def test_in_docker_some_tasks_need_a_network(tmp_path, dockerfile, script, reason):
    write(tmp_path / "t", HARBOR, **{"environment/Dockerfile": dockerfile, "tests/test.sh": script})
    without = TerminalConfig(source=tmp_path, sandbox=SandboxConfig(kind="docker"))
    with pytest.raises(UserError, match=f"None of the tasks can be run here: .*{reason}"):
        TerminalEnvironment.tasks("train", 1, 0, without)
    given = without.model_copy(update={"sandbox": SandboxConfig(kind="docker", network=True)})
    assert len(TerminalEnvironment.tasks("train", 1, 0, given)) == 1


@pytest.mark.parametrize(
    ("dockerfile", "script", "reason"),
    [
        ("FROM alpine:3\n", "", r"FROM alpine:3: `bases` does not say"),
        ("FROM python:3\nRUN apt-get update && apt-get install -y vim\n", "", r"line 2: `apt-get update` would change"),
        ("FROM python:3\nRUN pip install -q numpy\n", "", r"line 2: `pip install` would change"),
        ("FROM python:3\nRUN curl -O x.org\n", "", r"line 2: `curl` needs the network"),
        ("FROM python:3\n", "# apt-get install x\ncurl -LsSf x.org | sh\n", r"test\.sh: `curl` needs the network"),
        ("FROM python:3\nFROM python:3\n", "", r"line 2: several stages"),
    ],
)
def test_without_docker_some_tasks_cannot_be_run(tmp_path, dockerfile, script, reason):
    write(tmp_path / "t", HARBOR, **{"environment/Dockerfile": dockerfile, "tests/test.sh": script})
    with pytest.raises(UserError, match=f"None of the tasks can be run here: .*{reason}"):
        TerminalEnvironment.tasks("train", 1, 0, TerminalConfig(source=tmp_path))
