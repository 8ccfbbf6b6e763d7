"""Worlds without docker: a root folder made as the Dockerfile says, over this machine's own programs.

The Dockerfile's base is not there: its tools are taken to be those of this machine, which are read-only. Which tasks
that will do for is in `refusals.py`.
"""

from __future__ import annotations

import io
import shlex
import tarfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from agent_rl.concurrency import in_thread
from agent_rl.errors import EnvironmentFailure, UserError
from agent_rl.sandbox import ExecResult, Sandbox, SandboxConfig, open_sandbox
from agent_rl_envs.terminal.worlds.dockerfile import Copy, Dockerfile, Run

_SKELETON = "mkdir -p /home /mnt /opt /srv /var/cache /var/lib /var/log /var/spool; mkdir -m 1777 /var/tmp"
_STAGED = "/.agent-rl-copy"
_MOUNTED = ("passwd", "group", "hosts", "nsswitch.conf", "ld.so.preload", "ld.so.cache", "mime.types", "localtime")
_LONGEST = 2**30
_LAST = 600  # characters of an error that are shown


async def build_root(recipe: Dockerfile, context: Path, config: SandboxConfig, timeout_s: float) -> bytes:
    """A tar of the root folder that the Dockerfile makes. `timeout_s` is for each instruction.

    Raises `UserError` for an instruction that fails, `EnvironmentFailure` at the deadline, `SandboxFailure`.
    """
    config = config.model_copy(update={"writable": True, "base": None, "workspace": "/"})
    async with await open_sandbox(config) as sandbox:
        await sandbox.exec(_SKELETON, timeout_s=timeout_s)
        for step in recipe.steps:
            if isinstance(step, Run):
                done = await _run(sandbox, step, timeout_s)
            else:
                done = await _copy(sandbox, step, context, timeout_s)
            if done.timed_out:
                raise EnvironmentFailure(
                    f"{context}/Dockerfile, line {step.line} took longer than {timeout_s:g} s.", kind="timeout"
                )
            if done.exit_code != 0:
                raise UserError(
                    f"{context}/Dockerfile, line {step.line} failed with exit code {done.exit_code}: "
                    f"{done.output.strip()[-_LAST:]}"
                )
        excluded = [f"--exclude=./etc/{name}" for name in _MOUNTED]
        command = ["tar", "-C", "/", "--one-file-system", *excluded, "-cf", "-", "."]
        packed = await sandbox.exec(command, timeout_s=timeout_s, max_output_bytes=_LONGEST)
    if packed.exit_code != 0 or packed.truncated:
        raise EnvironmentFailure(f"The world of {context} cannot be read: {packed.output[-_LAST:]}", kind="build")
    return packed.stdout


async def _run(sandbox: Sandbox, step: Run, timeout_s: float) -> ExecResult:
    command = (*step.shell, step.command) if isinstance(step.command, str) else step.command
    return await sandbox.exec(list(command), env=step.environment, cwd=step.folder, timeout_s=timeout_s)


async def _copy(sandbox: Sandbox, step: Copy, context: Path, timeout_s: float) -> ExecResult:
    """As COPY: of a folder what is in it, a file by its name or under the target's."""
    names = [name for source in step.sources for name in _matching(context, source)]
    script = [f"set -e; mkdir {_STAGED}; tar -C {_STAGED} --no-same-owner -xpf -"]
    target = shlex.quote(step.target)
    for index, name in enumerate(names):
        staged = f"{_STAGED}/{index}"
        if step.mode:
            script.append(f"find {staged} -depth -exec chmod {shlex.quote(step.mode)} {{}} +")
        if (context / name).is_dir():
            script.append(f"mkdir -p {target}; cp -a {staged}/. {target}")
        else:
            into = f"{target.rstrip('/')}/{shlex.quote(Path(name).name)}"
            to_folder = f"mkdir -p {target}; cp -a {staged} {into}"
            to_file = f"mkdir -p $(dirname {target}); cp -a {staged} {target}"
            is_folder = "true" if step.target.endswith("/") else f"[ -d {target} ]"
            script.append(f"if {is_folder}; then {to_folder}; else {to_file}; fi")
    script.append(f"rm -rf {_STAGED}")
    packed = await in_thread(partial(_packed, context, names))
    return await sandbox.exec("\n".join(script), stdin=packed, timeout_s=timeout_s)


def _matching(context: Path, source: str) -> list[str]:
    """Paths in the context. Raises `UserError` where there are none, or where they lead out of it."""
    pattern = source.lstrip("/").rstrip("/") or "."
    found = [context] if pattern in (".", "./") else sorted(context.glob(pattern.removeprefix("./")))
    root = context.resolve()
    if not found or any(not path.resolve().is_relative_to(root) for path in found):
        raise UserError(f"{context}/Dockerfile copies {source}, which is not in its folder.")
    return [str(path.relative_to(context)) for path in found]


def _packed(context: Path, names: Sequence[str]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for index, name in enumerate(names):
            tar.add(context / name, str(index))
    return packed.getvalue()


def unpack_root(packed: bytes, folder: Path) -> None:
    """Into an empty folder, with the modes that files have, but for those that give rights. Blocks."""
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter=_kept)


def _kept(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
    checked = tarfile.tar_filter(member, folder)
    return checked.replace(mode=(member.mode or 0) & 0o777)
