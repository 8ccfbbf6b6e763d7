"""`agent-rl doctor tokens`, and the refusal of `agent-rl train` to start with a parser or template that cannot work."""

import sys
from pathlib import Path

import pytest

from agent_rl.cli import main
from agent_rl.testing.tiny import make_model, make_tokenizer

GUESS = "agent_rl.testing.environments:GuessNumber"
MUTE = """
from agent_rl.environment import Environment
from agent_rl.types import Message, Step, Task


class Mute(Environment):
    @classmethod
    def tasks(cls, split, count, seed=0):
        return [Task("mute", ())]

    async def reset(self, task, seed):
        return (Message("user", "Hm?"),)

    async def step(self, action):
        return Step((), terminated=True)
"""


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "220")
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer without weights."""
    path = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer(["guess my number higher lower"] * 4, vocab_size=400).save_pretrained(path)
    return path


def test_a_sound_tokenizer_exits_with_0(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["doctor", "tokens", "--model", str(folder), "--env", GUESS]) == 0
    out = capsys.readouterr().out
    assert "masks cover exactly the sampled tokens" in out
    assert "no weights" in out
    assert "failed" not in out


def test_a_failed_check_exits_with_1_and_shows_the_mend(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["doctor", "tokens", "--model", str(folder), "--tool-parser", "glm"]) == 1
    out = capsys.readouterr().out
    assert "failed" in out
    assert "Choose the parser of the template's format (--tool-parser)" in out
    assert "written: '<tool_call>" in out


@pytest.mark.slow
def test_weights_are_used_where_there_are_some(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    tokenizer = make_tokenizer(["guess my number higher lower"] * 4, vocab_size=400)
    tokenizer.save_pretrained(tmp_path)
    make_model(tokenizer, max_context=4096).save_pretrained(tmp_path)
    assert main(["doctor", "tokens", "--model", str(tmp_path), "--env", GUESS, "--tasks", "2"]) == 0
    assert "max |difference| = " in capsys.readouterr().out
    assert main(["doctor", "tokens", "--model", str(tmp_path), "--env", GUESS, "--max-weights-gib", "0"]) == 0
    assert "max |difference| = " not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tool-parser", "hermess"], "Unknown tool parser 'hermess'. Did you mean 'hermes'?"),
        (["--env", "no-such-thing"], "Unknown environment 'no-such-thing'."),
        (["--env", GUESS, "--split", "tset"], "Unknown split 'tset'. Did you mean 'test'?"),
        (["--environment", GUESS], "Unknown option '--environment'."),
    ],
)
def test_what_is_not_there_is_one_sentence(
    folder: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["doctor", "tokens", "--model", str(folder), *options]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


def test_an_environment_without_references_cannot_be_demonstrated(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mute_environment.py").write_text(MUTE)
    assert main(["doctor", "tokens", "--model", str(folder), "--env", "mute_environment:Mute"]) == 2
    err = capsys.readouterr().err
    assert "nobody can demonstrate an episode; leave out --env." in err
    assert err.count("\n") == 1


def test_a_model_that_is_not_there_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["doctor", "tokens", "--model", str(tmp_path / "absent")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: Cannot load a tokenizer from")
    assert err.count("\n") == 1


RECIPE = """
import anyio
from pathlib import Path
from pydantic import Field
from agent_rl import config
from agent_rl.testing.environments import GuessNumber
from agent_rl.testing.tiny import make_model, make_tokenizer
from agent_rl.curriculum import shuffled_epochs
from agent_rl.train import train
from agent_rl.train_config import TrainConfig


class Config(TrainConfig):
    template: str | None = Field(None, description="Chat template.")


def started(report):
    raise AssertionError("the run has begun")


def main(config):
    tokenizer = make_tokenizer(["guess my number"] * 4, vocab_size=400)
    if config.template is not None:
        tokenizer.chat_template = config.template
    tasks = GuessNumber.tasks("train", 4)
    run = lambda: train(
        config, run_dir=Path("run"), model=make_model(tokenizer, max_context=16384), tokenizer=tokenizer,
        environment=lambda task: GuessNumber(), task_at=shuffled_epochs(tasks, 0), on_step=started,
    )
    anyio.run(run)
"""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tool-parser", "hermess"], "Unknown tool parser 'hermess'. Did you mean 'hermes'?"),
        (["--template", ""], "This tokenizer has no chat template; set its `chat_template`."),
        (["--template", "{{ messages[0].content }}"], "The chat template does not show"),
        (
            ["--template", "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}"],
            "without a special token; use one that does.",
        ),
    ],
)
def test_training_is_refused_before_it_begins(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "refused.py").write_text(RECIPE)
    (tmp_path / "run").mkdir()
    small = ["--steps", "1", "--groups-per-batch", "1", "--group-size", "1", "--limits.max-response-tokens", "2"]
    assert main(["train", "refused.py", *options, *small]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("error: ")
    assert message in err
