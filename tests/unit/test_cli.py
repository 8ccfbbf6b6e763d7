"""The command line: recipes with typed options, mistakes as one sentence and exit code 2, bugs with their traceback."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest

from agent_rl import cli
from agent_rl.cli import main
from agent_rl.errors import UserError
from agent_rl.options import parse_options
from agent_rl.tool import tool

RECIPE = '''"""Multiply, slowly."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from pydantic import Field

from agent_rl import cli, config
from sibling import NAME


class Optimiser(config.Config):
    lr: float = Field(1e-3, gt=0, description="Learning rate.")
    warmup_steps: int = Field(0, description="Warm-up.")


class Config(config.Config):
    """Options of the multiplication."""

    steps: int = Field(3, ge=1, description="How many steps.")
    mode: Literal["fast", "exact"] = Field("fast", description="How to do it.")
    hard: bool = Field(False, description="The hard way.")
    model: str | None = Field(None, description="Folder.")
    optimiser: Optimiser = Field(default_factory=Optimiser, description="Optimiser.")
    critic: Optimiser | None = Field(None, description="Critic; none by default.")


def main(config: Config) -> None:
    if config.model == "bug":
        raise RuntimeError("a bug")
    sys.stdout.write(f"{NAME} {config.model_dump()} {Path(__file__).name}")


if __name__ == "__main__":
    cli.run_recipe(Config, main)
'''


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    (tmp_path / "multiply.py").write_text(RECIPE)
    (tmp_path / "sibling.py").write_text("NAME = 'multiply'\n")
    return str(tmp_path / "multiply.py")


def fails(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one sentence on stderr that `agent-rl argv` fails with."""
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err.removeprefix("error: ").rstrip("\n")


def test_a_recipe_gets_its_options(recipe: str, capsys: pytest.CaptureFixture[str]):
    assert main(["train", recipe]) == 0
    assert "'steps': 3" in capsys.readouterr().out
    assert (
        main(["train", recipe, "--steps=5", "--hard", "--optimiser.lr", "0.5", "--model", "m", "--mode", "exact"]) == 0
    )
    out = capsys.readouterr().out
    assert out == (
        "multiply {'steps': 5, 'mode': 'exact', 'hard': True, 'model': 'm', "
        "'optimiser': {'lr': 0.5, 'warmup_steps': 0}, 'critic': None} multiply.py"
    )


def test_a_config_file_gives_defaults_that_options_override(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "options.toml"
    file.write_text("steps = 7\nhard = true\n[optimiser]\nlr = 0.1\nwarmup_steps = 2\n")
    for argv in (["--config", str(file), "--optimiser.lr", "0.2"], ["--optimiser.lr", "0.2", f"--config={file}"]):
        assert main(["train", recipe, *argv]) == 0
        out = capsys.readouterr().out
        assert "'steps': 7" in out
        assert "'hard': True" in out
        assert "{'lr': 0.2, 'warmup_steps': 2}" in out


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([], set()),
        (["--steps", "3"], {"steps"}),
        (["--steps=4", "--no-hard"], {"steps", "hard"}),
        (["--critic.lr", "0.1", "--optimiser.lr=1"], {"critic", "optimiser"}),
        (["--config", "FILE", "--mode", "fast"], {"steps", "mode"}),
    ],
)
def test_what_was_told_is_known(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], told: set[str]
):
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "options.toml"
    file.write_text("steps = 3\n")
    argv = [str(file) if word == "FILE" else word for word in argv]
    config = parse_options(runpy.run_path(recipe)["Config"], argv, prog="x")
    assert config.model_fields_set == told


def test_a_nested_config_exists_once_one_of_its_options_is_given(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["train", recipe, "--critic.warmup-steps", "4"]) == 0
    assert "'critic': {'lr': 0.001, 'warmup_steps': 4}" in capsys.readouterr().out
    (tmp_path / "options.toml").write_text("critic.lr = 0.1")
    assert main(["train", recipe, "--config", str(tmp_path / "options.toml"), "--critic.warmup-steps", "4"]) == 0
    assert "'critic': {'lr': 0.1, 'warmup_steps': 4}" in capsys.readouterr().out
    assert "critic.lr: Input should be greater than 0" in fails(capsys, "train", recipe, "--critic.lr", "0")


def test_help_shows_descriptions_and_defaults(recipe: str, capsys: pytest.CaptureFixture[str]):
    assert main(["train", recipe, "--help"]) == 0
    out = capsys.readouterr().out
    for text in ("Options of the multiplication.", "--config FILE", "--steps INT", "How many steps. (default: 3)"):
        assert text in out
    assert "--optimiser.warmup-steps INT" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stepz", "3"], "Unknown option '--stepz'. Did you mean '--steps'?"),
        (["--lr=3"], "Unknown option '--lr=3'. Did you mean '--optimiser.lr'?"),
        (["--optimiser.warm-steps", "3"], "Did you mean '--optimiser.warmup-steps'?"),
        (["--qqq"], "Unknown option '--qqq'. See agent-rl train"),
        (["5"], "Unexpected argument '5': options are written --name value; see agent-rl train"),
        (["--steps", "0"], "Bad Config: steps: Input should be greater than or equal to 1, got 0"),
        (["--optimiser.lr", "-1"], "Bad Config: optimiser.lr: Input should be greater than 0, got -1.0"),
        (["--config"], "--config needs the path of a TOML or JSON file."),
        (["--config", "absent.toml"], "The config file absent.toml cannot be read: No such file or directory."),
    ],
)
def test_bad_options_are_one_sentence(
    recipe: str, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    assert message in fails(capsys, "train", recipe, *options)


@pytest.mark.parametrize("options", [["--steps", "many"], ["--mode", "slow"], ["--steps"]])
def test_values_of_the_wrong_type_exit_with_2_and_no_traceback(
    recipe: str, options: list[str], capsys: pytest.CaptureFixture[str]
):
    assert main(["train", recipe, *options]) == 2
    err = capsys.readouterr().err
    assert options[0] in err
    assert "Traceback" not in err


def test_recipes_that_are_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "quickstart.py").write_text('"""Learn fast."""\n')
    monkeypatch.setattr(cli, "_shipped_recipes", lambda: {"quickstart": tmp_path / "quickstart.py"})
    assert fails(capsys, "train", "quickstrat") == (
        "Unknown recipe 'quickstrat'. Did you mean 'quickstart'? Known: quickstart. "
        "Or give the path of a script that ends in .py."
    )
    assert "There is no script nowhere.py" in fails(capsys, "train", "nowhere.py")
    assert "is not a recipe: it must define `Config`" in fails(capsys, "train", "quickstart")
    for argv in (["train"], ["train", "--help"]):
        assert main(argv) == 0
        assert "quickstart  Learn fast." in capsys.readouterr().out


def test_unknown_commands(capsys: pytest.CaptureFixture[str]):
    assert "Unknown command 'trian'. Did you mean 'train'?" in fails(capsys, "trian")
    assert "Unknown command 'env lst'. Did you mean 'env list'?" in fails(capsys, "env", "lst")
    assert "Unknown command 'env'. Did you mean 'env list'?" in fails(capsys, "env")
    assert "Unexpected argument 'all'" in fails(capsys, "env", "list", "all")


def test_the_overview_names_every_command(capsys: pytest.CaptureFixture[str]):
    for argv in ([], ["--help"], ["-h"]):
        assert main(argv) == 0
        out = capsys.readouterr().out
        assert all(f"agent-rl {name}" in out for name in cli.commands())


def test_packages_add_commands(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    installed = {"serve.cake": "builtins:print", "gone": "no_such_package:go"}
    monkeypatch.setattr("agent_rl.registry.commands", lambda: installed)
    assert main(["serve", "cake", "--big"]) == 0  # not `serve` with the target cake
    assert capsys.readouterr().out == "['--big']\n"
    assert "no_such_package" in fails(capsys, "gone")
    assert main([]) == 0
    assert "no_such_package" in capsys.readouterr().out


def test_lists_show_what_can_be_loaded_and_why_not(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    targets = {"guess": "agent_rl.testing.environments:GuessNumber", "gone": "no_such_package:Gone"}
    monkeypatch.setattr("agent_rl.registry.environments", lambda: targets)
    monkeypatch.setattr("agent_rl.registry.get_environment", _loader(targets))
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["env", "list"]) == 0
    out = capsys.readouterr().out
    assert "Find a hidden number" in out
    assert "there is no module 'no_such_package'" in out
    monkeypatch.setattr("agent_rl.registry.tools", lambda: {"hello": "here:hello"})
    monkeypatch.setattr("agent_rl.registry.get_tool", lambda id: tool(hello))
    assert main(["tool", "list"]) == 0
    assert "hello  here:hello  Say hello." in capsys.readouterr().out


async def hello() -> str:
    """Say hello.

    More.
    """
    return "hello"


def _loader(targets: dict[str, str]):
    from agent_rl.registry import get_environment

    return lambda id: get_environment(targets[id])


GUESS = "agent_rl.testing.environments:GuessNumber"


def test_eval_prints_scores_with_intervals(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    folder = tmp_path / "run"
    assert main(["eval", GUESS, "--agent", "oracle", "-n", "5", "-r", "2", "-c", "3", "--run-dir", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "100.0%" in out
    assert " - 100.0" in out, "the interval"
    assert "5 x 2" in out
    config, report = (json.loads((folder / name).read_text()) for name in ("config.json", "report.json"))
    assert (config["tasks"], config["samples"], config["concurrency"]) == (5, 2, 3)
    assert report["overall"]["success"]["value"] == 1.0


def test_rollout_prints_a_few_transcripts(capsys: pytest.CaptureFixture[str]):
    assert main(["rollout", GUESS, "--agent", "oracle"]) == 0
    assert capsys.readouterr().out.count("*reward 1, terminated") == 3
    assert main(["rollout", GUESS, "--agent", "oracle", "-n", "2"]) == 0
    out = capsys.readouterr().out
    assert out.count("*reward 1, terminated") == 2
    assert "Guess my number" in out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["eval", "no-such-thing", "--agent", "oracle"], "Unknown environment 'no-such-thing'. "),
        (["eval", GUESS], "Bad EvalConfig: a policy needs a model: give a hub id or a folder"),
        (["eval", GUESS, "--agent", "oracle", "--split", "tset"], "Unknown split 'tset'. Did you mean 'test'?"),
        (["eval", GUESS, "--agnet", "oracle"], "Unknown option '--agnet'. Did you mean '--agent'?"),
        (["rollout", "my.project:Env", "--agent", "oracle"], "there is no module 'my'; install its package, or run"),
    ],
)
def test_an_evaluation_that_cannot_start_says_why(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert message in fails(capsys, *argv)


def test_an_evaluation_of_nothing_names_what_is_missing(capsys: pytest.CaptureFixture[str]):
    assert main(["eval", "--agent", "oracle"]) == 2
    assert "ENVIRONMENT" in capsys.readouterr().err


@pytest.mark.slow
def test_a_bad_model_folder_is_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert "There is no model folder" in fails(capsys, "eval", GUESS, "--model", str(tmp_path / "absent"))
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in fails(capsys, "eval", GUESS, "--model", str(tmp_path / "empty"))


# --- exit codes -----------------------------------------------------------------------------------------------------


def test_a_user_error_inside_task_groups_is_still_one_sentence(capsys: pytest.CaptureFixture[str]):
    async def nested() -> None:
        async with anyio.create_task_group() as outer, anyio.create_task_group() as inner:
            inner.start_soon(anyio.sleep, 10)
            outer.start_soon(anyio.sleep, 10)
            raise UserError("a folder [of yours] is missing")

    assert cli._guarded(lambda: anyio.run(nested)) == 2
    assert capsys.readouterr().err == "error: a folder [of yours] is missing\n"


def test_a_bug_beside_a_user_error_keeps_its_traceback():
    def both() -> None:
        raise ExceptionGroup("two", [UserError("mistake"), RuntimeError("a bug")])

    with pytest.raises(ExceptionGroup):
        cli._guarded(both)


def test_a_bug_keeps_its_traceback(recipe: str):
    with pytest.raises(RuntimeError, match="a bug"):
        main(["train", recipe, "--model", "bug"])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), BaseExceptionGroup("", [KeyboardInterrupt()])])
def test_an_interrupt_is_130(error: BaseException):
    def interrupted() -> None:
        raise error

    assert cli._guarded(interrupted) == 130


@pytest.mark.parametrize(("code", "expected"), [(None, 0), (0, 0), (3, 3)])
def test_a_recipe_may_exit_by_itself(code: int | None, expected: int):
    assert cli._guarded(lambda: sys.exit(code)) == expected


def run(*argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *argv], cwd=cwd, capture_output=True, text=True, timeout=240)


def test_a_script_and_the_command_do_the_same(recipe: str, tmp_path: Path):
    command = "import sys; from agent_rl.cli import main; sys.exit(main())"
    direct = run(recipe, "--steps", "4", cwd=tmp_path)
    through = run("-c", command, "train", recipe, "--steps", "4", cwd=tmp_path)
    assert (direct.returncode, through.returncode) == (0, 0)
    assert direct.stdout == through.stdout != ""
    failed = run(recipe, "--stepz", "4", cwd=tmp_path)
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: Unknown option '--stepz'. Did you mean '--steps'?")
    bug = run(recipe, "--model", "bug", cwd=tmp_path)
    assert bug.returncode == 1
    assert "RuntimeError: a bug" in bug.stderr


def test_ctrl_c_ends_a_running_recipe_with_130(tmp_path: Path):
    script = tmp_path / "forever.py"
    script.write_text(
        "import anyio, pathlib\nfrom agent_rl import cli, config\n"
        "async def work():\n    pathlib.Path('started').touch()\n    await anyio.sleep_forever()\n"
        "class Config(config.Config): ...\n"
        "cli.run_recipe(Config, lambda config: anyio.run(work))\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script)],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores SIGINT, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=240)
    assert (process.returncode, err) == (130, "")


@pytest.mark.parametrize("argv", [["env", "list"], ["eval", "--help"]])
def test_a_reader_who_goes_is_no_bug(argv: list[str]):
    code = f"import sys; from agent_rl.cli import main; sys.exit(main({argv}))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert (process.stderr.read(), process.wait(240)) == (b"", 1)


def test_the_users_project_is_importable(tmp_path: Path):
    (tmp_path / "my_project.py").write_text("NAME = 'mine'\n")
    code = "from agent_rl import cli\ndef f():\n    import my_project\nraise SystemExit(cli._guarded(f))"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "script.py").write_text(code)
    assert run("elsewhere/script.py", cwd=tmp_path).returncode == 0


def test_help_imports_nothing_heavy():
    code = "import sys; from agent_rl.cli import main; main(['--help']); main(['train', '--help'])\n"
    code += "assert not {'torch', 'transformers', 'tyro', 'sqlalchemy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, stdout=subprocess.DEVNULL)
