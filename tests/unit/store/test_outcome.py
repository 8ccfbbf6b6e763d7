"""How a run ended, whatever ended it."""

import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from agent_rl.config import Config
from agent_rl.errors import ConfigError, UserError
from agent_rl.store.outcome import OUTCOME, Outcome, outcome_recorded, read_outcome
from agent_rl.store.run_folder import open_run


def ended(run_dir, error: BaseException | None) -> Outcome | None:
    with suppress(BaseException), outcome_recorded(run_dir):
        if error is not None:
            raise error
    return read_outcome(run_dir)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, Outcome("ended")),
        (KeyboardInterrupt(), Outcome("interrupted", "It was interrupted.")),
        (BaseExceptionGroup("", [KeyboardInterrupt()]), Outcome("interrupted", "It was interrupted.")),
        (UserError("Add memory."), Outcome("failed", "Add memory.")),
        (ExceptionGroup("", [ValueError("two\nlines")]), Outcome("failed", "ValueError: two lines")),
        (BaseExceptionGroup("", [KeyboardInterrupt(), KeyError("x")]), Outcome("failed", "KeyError: 'x'")),
        (MemoryError(), Outcome("failed", "MemoryError")),
    ],
)
def test_each_end_is_written(tmp_path, error, outcome):
    assert ended(tmp_path, error) == outcome


def test_the_outermost_block_has_the_last_word(tmp_path):
    with outcome_recorded(tmp_path):
        ended(tmp_path, ValueError("caught"))
        assert read_outcome(tmp_path) is None
    assert read_outcome(tmp_path) == Outcome("ended")


def test_a_forked_child_says_nothing(tmp_path):
    try:
        with outcome_recorded(tmp_path):
            if (child := os.fork()) == 0:
                raise SystemExit
            os.waitpid(child, 0)
            assert not (tmp_path / OUTCOME).exists()
    except SystemExit:
        os._exit(0)


def test_a_run_that_is_refused_keeps_the_outcome_that_it_had(tmp_path):
    class Options(Config):
        steps: int = 1

    with open_run(Options(), "x", tmp_path / "run", resume=False):
        pass
    with (
        pytest.raises(ConfigError, match="another config"),
        open_run(Options(steps=2), "x", tmp_path / "run", resume=True),
    ):
        pass
    assert read_outcome(tmp_path / "run") == Outcome("ended")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(ConfigError, match="is not empty"), open_run(Options(), "x", tmp_path / "mine", resume=False):
        pass
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_killed_run_leaves_no_outcome(tmp_path):
    program = (
        "import sys, time, pathlib\nfrom agent_rl.store.outcome import outcome_recorded\n"
        "with outcome_recorded(pathlib.Path(sys.argv[1])):\n    print('in', flush=True)\n    time.sleep(60)\n"
    )
    assert ended(tmp_path, None) == Outcome("ended")
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert read_outcome(tmp_path) is None
