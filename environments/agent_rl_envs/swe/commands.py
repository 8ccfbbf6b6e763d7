"""Programs on the host, git above all: with a deadline, without the user's settings, and with errors that say why."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent_rl.errors import EnvironmentFailure, UserError

_LAST = 800  # characters of an error that are shown
_NO_SETTINGS = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_DATE": "2000-01-01T00:00:00Z",
    "GIT_COMMITTER_DATE": "2000-01-01T00:00:00Z",
}
_GIT_TIMEOUT_S = 600.0


def run(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    stdin: str = "",
    environment: Mapping[str, str] | None = None,
    timeout_s: float = _GIT_TIMEOUT_S,
) -> str:
    """What it prints. At the deadline it is killed with all that it started.

    Raises `UserError` where it fails or is not installed, `EnvironmentFailure` of kind `timeout` at the deadline.
    """
    what = " ".join(command[:4])
    try:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    except OSError as error:
        raise UserError(f"{command[0]} cannot be run ({error.strerror}): install it.") from error
    try:
        out, errors = process.communicate(stdin.encode("utf-8", "surrogateescape"), timeout_s)
    except subprocess.TimeoutExpired as error:
        raise EnvironmentFailure(f"`{what}` took longer than {timeout_s:g} s.", kind="timeout") from error
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode:
        said = (errors or out).decode("utf-8", "replace").strip()[-_LAST:]
        raise UserError(f"`{what}` failed with exit code {process.returncode}: {said}")
    return out.decode("utf-8", "surrogateescape")


def git(*arguments: str, cwd: Path | None = None, stdin: str = "", index: Path | None = None) -> str:
    """Run git. See `run`."""
    environment = {**_NO_SETTINGS, **({"GIT_INDEX_FILE": str(index)} if index else {})}
    return run(["git", *arguments], cwd=cwd, stdin=stdin, environment=environment)


def commit_all(folder: Path) -> None:
    """Make a folder a repository of one commit, which is all the history that there is."""
    git("init", "-q", "-b", "main", cwd=folder)
    for name, value in {"user.name": "agent", "user.email": "agent@localhost", "gc.auto": "0"}.items():
        git("config", name, value, cwd=folder)
    git("add", "-A", cwd=folder)
    git("commit", "-q", "--allow-empty", "-m", "The repository as it is", cwd=folder)


def apply(patch: str, folder: Path) -> None:
    """Apply a diff to a folder that is no repository. Raises `UserError` where it does not fit."""
    if patch.strip():
        environment = {**_NO_SETTINGS, "GIT_CEILING_DIRECTORIES": str(folder.parent)}  # not in a repository above it
        text = patch if patch.endswith("\n") else f"{patch}\n"
        run(["git", "apply", "--whitespace=nowarn"], cwd=folder, stdin=text, environment=environment)
