"""Tasks that are made up: solvable, not solved already, as different as their numbers, and valid for Harbor."""

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from rich.console import Console

from agent_rl.errors import NotFoundError
from agent_rl.sandbox import SandboxConfig, open_sandbox
from agent_rl_envs.terminal.checking import check, run_script
from agent_rl_envs.terminal.command import MakeConfig, make
from agent_rl_envs.terminal.formats.folders import find_tasks, read_task
from agent_rl_envs.terminal.made import check as checker
from agent_rl_envs.terminal.made.make import TEMPLATES, find_made, is_test, make_tasks, write_folder
from agent_rl_envs.terminal.worlds.prepared import Worlds

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def launcher(open_folder):
    async with await open_sandbox(SandboxConfig(kind="bubblewrap")) as sandbox:
        yield sandbox


@pytest.mark.parametrize("template", TEMPLATES)
async def test_the_solution_and_nothing_less_is_right(launcher, open_folder, tmp_path, template):
    write_folder(find_made(template, "train", 5), tmp_path)
    problem = read_task(tmp_path)
    assert problem.solution is not None
    config = await Worlds(open_folder / "cache", SandboxConfig(max_processes=256), "task", 60).prepare(problem)
    async with await open_sandbox(config) as sandbox:
        async with await sandbox.fork() as untouched:
            before = await check(problem, untouched, 60)
        await run_script(sandbox, problem.solution, config.workspace, 60)
        async with await sandbox.fork() as solved:
            after = await check(problem, solved, 60)
    assert (before.status, before.reward) == ("done", 0.0), before.said
    assert (after.status, after.reward, after.tests) == ("done", 1.0, 1.0), after.said


def test_splits_share_no_task():
    train, test = ([made.draft for made in make_tasks(split, 300, 0)] for split in ("train", "test"))
    assert all(not is_test(draft) for draft in train)
    assert all(is_test(draft) for draft in test)
    asked = {(draft.instruction, str(draft.files), draft.setup) for draft in train}
    assert len(asked) == 300
    assert not asked & {(draft.instruction, str(draft.files), draft.setup) for draft in test}


def test_a_seed_says_which_tasks():
    ids = [made.id for made in make_tasks("train", 30, 1)]
    assert ids == [made.id for made in make_tasks("train", 30, 1)]
    assert not set(ids) & {made.id for made in make_tasks("train", 30, 2)}
    assert len({id.rpartition("/")[2].partition("-")[0] for id in ids}) == len(TEMPLATES)
    one = make_tasks("train", 1, 1)[0]
    assert find_made(one.template, "train", one.number).files() == one.files()
    with pytest.raises(NotFoundError, match="Unknown template 'link'"):
        find_made("link", "train", 0)


def test_the_command_writes_folders_that_are_read(tmp_path):
    config = MakeConfig(output=tmp_path / "tasks", count=20, test_share=0.25)
    said = io.StringIO()
    make(config, Console(file=said))
    assert "20 tasks in" in said.getvalue()
    assert [len(find_tasks(config.output, split, 0.5)) for split in ("train", "test")] == [15, 5]
    kept = find_tasks(config.output, "train", 0.5)[0] / "instruction.md"
    kept.write_text("mine")
    make(config, Console(file=said))
    assert kept.read_text() == "mine"


class Folder:
    """A place for the checker to look at, with `holds` for one expectation."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, text: str) -> str:
        (self.path / name).write_text(text)
        return str(self.path / name)

    def holds(self, kind: str, **more: object) -> bool:
        return checker.holds({"kind": kind, "name": "x", **more})


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_texts_and_values(folder):
    path = folder.write("a", "b  \na\n\n")
    assert folder.holds("text", path=path, text="b\na")
    assert not folder.holds("text", path=path, text="a\nb")
    assert folder.holds("text", path=path, text="a\nb", sorted=True)
    assert not folder.holds("text", path=f"{path}x", text="a")
    path = folder.write("a.json", json.dumps({"n": 3, "f": 0.1 + 0.2, "l": [1, None], "b": True}))
    right = {"n": 3, "f": 0.3, "l": [1, None], "b": True}
    assert folder.holds("value", path=path, value=right)
    for change in ({"n": "3"}, {"b": 1}, {"l": [1]}, {"f": 0.31}, {"x": 1}):
        assert not folder.holds("value", path=path, value={**right, **change})


def test_schedules_are_compared_by_when_they_run(folder):
    path = folder.write("c", "# mine\n\n0,30 */6 * * 1-5 /bin/a --x\n5 4 * * 0 /bin/b\n")
    right = [["/bin/b", "5 4 * * 7"], ["/bin/a --x", "*/30 0,6,12,18 * * 1,2,3,4,5"]]
    assert folder.holds("cron", path=path, entries=right)
    for wrong in (
        right[:1],
        [*right, right[0]],
        [["/bin/b", "5 4 * * 1"], right[1]],
        [["/bin/c", "5 4 * * 0"], right[1]],
    ):
        assert not folder.holds("cron", path=path, entries=wrong)
    assert not folder.holds("cron", path=folder.write("d", "61 4 * * 0 /bin/b\n"), entries=[["/bin/b", "1 4 * * 0"]])


def test_archives_and_links(folder):
    source = folder.write("a.txt", "a")
    with tarfile.open(folder.path / "a.tar.gz", "w:gz") as tar:
        tar.add(source, "p/a.txt")
    right = {"p/a.txt": "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"}
    packed = str(folder.path / "a.tar.gz")
    assert folder.holds("archive", path=packed, compression="gz", files=right)
    assert not folder.holds("archive", path=packed, compression="xz", files=right)
    assert not folder.holds("archive", path=packed, compression="gz", files={**right, "p/b": "x"})
    (folder.path / "relative").symlink_to("a.txt")
    (folder.path / "absolute").symlink_to(source)
    for name, relative, held in (("relative", True, True), ("absolute", True, False), ("absolute", False, True)):
        assert folder.holds("link", path=str(folder.path / name), target=source, relative=relative) is held
    assert not folder.holds("link", path=source, target=source, relative=False)


def test_programs_are_run_with_what_they_need(folder):
    script = f"read x; cat {folder.path}/in/f; echo $x; exit 3"
    command = {
        "command": ["/bin/bash", "-c", script],
        "folder": str(folder.path),
        "files": {f"{folder.path}/in/f": "f\n"},
    }
    assert holds_apart("runs", **command, stdin="hello\n", output="f\nhello", exit_code=3)
    assert not holds_apart("runs", **command, stdin="hello\n", output="f\nhello")
    assert not holds_apart("runs", **command, stdin="you\n", output="f\nhello", exit_code=3)


def holds_apart(kind: str, **more: object) -> bool:
    """In a process of its own: a checker that has run a program kills all of its children, here the test's servers."""
    script = f"import json, runpy; print(runpy.run_path({checker.__file__!r})['holds'](json.loads(input())))"
    question = json.dumps({"kind": kind, "name": "x", **more})
    command = [sys.executable, "-c", script]
    return subprocess.run(command, input=question, text=True, capture_output=True, check=True).stdout == "True\n"
