"""Repositories are prepared once, whole, and from whatever they come from."""

import io
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest

from agent_rl.errors import EnvironmentFailure, UserError
from agent_rl.sandbox import SandboxConfig
from agent_rl_envs.cache import Cache, key_of
from agent_rl_envs.swe.command import source_of
from agent_rl_envs.swe.commands import commit_all, git, run
from agent_rl_envs.swe.packages import declared_test_requirements, python_paths
from agent_rl_envs.swe.problems import Problem, Source
from agent_rl_envs.swe.repositories import Repositories, Repository, Runtime, root_for
from agent_rl_envs.swe.sources import fetch


def test_a_thing_is_made_once_by_whoever_comes_first(tmp_path: Path):
    cache, made = Cache(tmp_path, 10.0), list[str]()

    def make(part: Path) -> None:
        made.append(part.name)
        time.sleep(0.1)
        (part / "x").write_text("1")

    threads = [threading.Thread(target=cache.moved, args=("trees", "k", make)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == ["k.part"]
    assert (tmp_path / "trees/k/x").read_text() == "1"


def test_what_failed_half_way_is_not_there_and_is_made_anew(tmp_path: Path):
    cache = Cache(tmp_path, 10.0)

    def fail(part: Path) -> None:
        (part / "half").touch()
        raise ValueError("broken")

    def succeed(part: Path) -> None:
        assert not list(part.iterdir())

    for place in (cache.moved, cache.in_place):
        with pytest.raises(ValueError, match="broken"):
            place("trees", "k", fail)
        place("trees", "k", succeed)


def test_kill_9_in_the_middle_leaves_nothing_half_made(tmp_path: Path):
    program = (
        "import pathlib, sys, time\n"
        "from agent_rl_envs.cache import Cache\n"
        "def make(part):\n (part / 'half').touch(); print('half', flush=True); time.sleep(60)\n"
        f"Cache(pathlib.Path({str(tmp_path)!r}), 10.0).moved('trees', 'k', make)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"half\n"
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "trees/k").exists()
    assert not list(Cache(tmp_path, 10.0).moved("trees", "k", lambda part: None).iterdir())


def test_waiting_for_another_process_has_an_end(tmp_path: Path):
    cache, ready, go = Cache(tmp_path, 0.1), threading.Event(), threading.Event()

    def make(part: Path) -> None:
        ready.set()
        go.wait(20)

    thread = threading.Thread(target=cache.moved, args=("trees", "k", make))
    thread.start()
    ready.wait(20)
    with pytest.raises(EnvironmentFailure, match="has been preparing"):
        cache.moved("trees", "k", make)
    go.set()
    thread.join()


def test_rows_of_the_factory_bring_their_repositories(tmp_path: Path):
    (tmp_path / "prepared").mkdir()
    (tmp_path / "train.jsonl").touch()
    assert root_for(str(tmp_path)) == root_for(str(tmp_path / "train.jsonl")) == tmp_path / "prepared"
    assert root_for("") != tmp_path / "prepared"


def test_a_program_is_killed_at_its_deadline_with_its_children():
    with pytest.raises(EnvironmentFailure, match="took longer than"):
        run(["sh", "-c", "sleep 60 & sleep 60"], timeout_s=0.2)
    with pytest.raises(UserError, match="exit code 3: no"):
        run(["sh", "-c", "echo no >&2; exit 3"])
    with pytest.raises(UserError, match="install it"):
        run(["no-such-program"])


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """A git repository with three commits, and a folder that `git archive` would leave out."""
    folder = tmp_path / "origin"
    folder.mkdir()
    (folder / ".gitattributes").write_text("tests export-ignore\n")
    (folder / "tests").mkdir()
    (folder / "tests/test_a.py").write_text("")
    (folder / "a.py").write_text("1")
    commit_all(folder)
    for text in ("2", "3"):
        (folder / "a.py").write_text(text)
        git("commit", "-qam", text, cwd=folder)
    return folder


def commits(folder: Path) -> list[str]:
    return git("log", "--format=%H", cwd=folder).split()


def test_the_files_of_a_commit(history: Path, tmp_path: Path):
    cache = Cache(tmp_path / "cache", 10.0)
    for index, commit in enumerate([*commits(history), f"{commits(history)[0]}^"]):
        folder = tmp_path / f"tree{index}"
        folder.mkdir()
        fetch(Source("git", str(history), commit), folder, cache, 10.0)
        assert (folder / "a.py").read_text() == ("3", "2", "1", "2")[index]
        assert sorted(path.name for path in folder.iterdir()) == [".gitattributes", "a.py", "tests"]


def test_a_commit_that_came_later_is_fetched(history: Path, tmp_path: Path):
    cache = Cache(tmp_path / "cache", 10.0)
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    fetch(Source("git", str(history), commits(history)[0]), tmp_path / "one", cache, 10.0)
    (history / "a.py").write_text("4")
    git("commit", "-qam", "4", cwd=history)
    fetch(Source("git", str(history), commits(history)[0]), tmp_path / "two", cache, 10.0)
    assert (tmp_path / "two/a.py").read_text() == "4"


def test_an_unknown_commit_is_said(history: Path, tmp_path: Path):
    (tmp_path / "tree").mkdir()
    with pytest.raises(UserError):
        fetch(Source("git", str(history), "0" * 40), tmp_path / "tree", Cache(tmp_path / "cache", 10.0), 10.0)


def test_layers_share_files_and_leave_the_tree_alone(history: Path, tmp_path: Path):
    repositories = Repositories(tmp_path / "cache", SandboxConfig(), 10.0)
    repositories.runtime = lambda source: Runtime("python3")  # type: ignore[method-assign]
    patch = "--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-3\n\\ No newline at end of file\n+9\n"
    source = Source("git", str(history), commits(history)[0])
    made = repositories.prepared(Problem("p", "", source, ("t",), bug_patch=patch))
    tree = repositories.tree(source)
    assert (made.folder / "a.py").read_text() == "9\n"
    assert (tree / "a.py").read_text() == "3"
    assert (made.folder / ".gitattributes").samefile(tree / ".gitattributes")
    assert git("status", "--porcelain", cwd=made.folder) == ""
    assert set(made.manifest) == {".gitattributes", "a.py", "tests/test_a.py"}


def test_a_patch_that_does_not_fit_is_said(history: Path, tmp_path: Path):
    repositories = Repositories(tmp_path / "cache", SandboxConfig(), 10.0)
    source = Source("git", str(history), commits(history)[0])
    patch = "--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-8\n+9\n"
    with pytest.raises(UserError, match="git apply"):
        repositories.prepared(Problem("p", "", source, ("t",), bug_patch=patch))


def test_what_tests_need_is_read_from_pyproject(tmp_path: Path):
    (tmp_path / "pyproject.toml").write_text(
        "[project.optional-dependencies]\ntest = ['a>=1']\ndocs = ['no']\n"
        "[dependency-groups]\ntests = ['b', {include-group = 'base'}]\nbase = ['c', {include-group = 'tests'}]\n"
    )
    assert declared_test_requirements(tmp_path) == ["a>=1", "b", "c"]
    assert declared_test_requirements(tmp_path / "none") == []


def test_where_a_repository_is_imported_from(tmp_path: Path):
    assert python_paths(tmp_path) == (".",)
    (tmp_path / "src").mkdir()
    assert python_paths(tmp_path) == ("src", ".")


def test_what_a_package_is_called(history: Path):
    assert source_of(str(history), (), 60.0) == Source("git", str(history), commits(history)[0])
    assert source_of("click==8.1.7", ("x",), 60.0) == Source("package", "click==8.1.7", requires=("x",))
    with pytest.raises(UserError, match="pytest imports it"):
        source_of("packaging==24.0", (), 60.0)
    with pytest.raises(UserError, match="neither a folder nor the name"):
        source_of("../nowhere", (), 60.0)


def test_keys_differ_with_every_part():
    assert len({key_of("a", "b"), key_of("ab"), key_of("b", "a"), key_of("a", "b", "")}) == 4


def test_an_image_is_unpacked_with_its_python(tmp_path: Path):
    from agent_rl_envs.swe.repositories import _unpack

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("./a.py")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"1"))
    (tmp_path / "part").mkdir()
    _unpack(packed.getvalue(), "/opt/python", tmp_path / "part")
    assert (tmp_path / "part/tree/a.py").read_text() == "1"
    assert (tmp_path / "part/python").read_text() == "/opt/python"


def test_a_repository_of_an_image_is_where_it_was(tmp_path: Path):
    """So that what is installed in it from there is found, and the image's own copy, with its history, is not."""
    repository = Repository(tmp_path, tmp_path, {}, Runtime("/opt/bin/python"))
    config = repository.workspace(SandboxConfig(kind="docker"), Source("image", "some:image"))
    assert (config.image, config.workspace, config.base) == ("some:image", "/testbed", tmp_path)
    assert config.environment["PYTHONPATH"].split(":")[0] == "/testbed/."
    assert config.environment["PATH"].split(":")[0] == "/opt/bin"
