"""The control socket of a run: one line of JSON in, one line out, for whoever may enter the run's folder.

The server side wraps a `RolloutControl`; the client side is what `agent-rl ctl` uses. The socket lies in a folder of
its own, since the path of a Unix socket may have about a hundred bytes only; the run's folder says where.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream

from agent_rl.errors import UserError, not_found
from agent_rl.rollout.control import RolloutControl

WHERE = "control.json"
_LONGEST_LINE = 10_000
_CONNECT_TIMEOUT_S = 5.0

CONTROL_COMMANDS = {
    "status": "what runs",
    "pause": "start no episode and no turn",
    "resume": "undo pause and drain",
    "drain": "start no new episode, and wait until those that run have ended",
    "cancel GROUP MEMBER": "end one episode, as a failure that nobody retries",
    "concurrency N": "how many episodes may run at once",
    "workers N": "how many rollout workers to have, of a run on a cluster",
    "stop": "end after the present training step, with a checkpoint to resume from",
}


async def serve_control(control: RolloutControl, run_dir: Path) -> None:
    """Answer commands until cancelled. Only the user who started the run can connect."""
    with tempfile.TemporaryDirectory(prefix="agent-rl-") as folder:  # readable by its owner alone
        path = Path(folder, "control.sock")
        where = run_dir / WHERE
        async with await anyio.create_unix_listener(path, mode=0o600) as listener:
            where.write_text(json.dumps({"socket": str(path), "pid": os.getpid()}), encoding="utf-8")
            try:
                await listener.serve(lambda stream: _answer(control, stream))
            finally:
                where.unlink(missing_ok=True)


async def _answer(control: RolloutControl, stream: anyio.abc.SocketStream) -> None:
    try:
        async with stream:
            line = await BufferedByteReceiveStream(stream).receive_until(b"\n", _LONGEST_LINE)
            try:
                answer = await _obey(control, json.loads(line))
            except (UserError, ValueError) as error:
                answer = {"error": str(error)}
            await stream.send(json.dumps(answer).encode() + b"\n")
    except (anyio.BrokenResourceError, anyio.EndOfStream, anyio.IncompleteRead, anyio.DelimiterNotFound):
        pass  # the client went away, or spoke something else; the run goes on


async def _obey(control: RolloutControl, words: Sequence[str]) -> dict[str, Any]:
    match list(words):
        case ["pause"]:
            control.pause()
        case ["resume"]:
            control.resume()
        case ["drain"]:
            await control.drain()
        case ["stop"]:
            control.stop()
        case ["concurrency", number]:
            control.set_concurrency(_whole(number))
        case ["workers", number]:
            control.set_workers(_whole(number))
        case ["cancel", group, member]:
            control.cancel(_whole(group), _whole(member))
        case ["status"]:
            pass
        case _:
            raise not_found("control command", " ".join(words), CONTROL_COMMANDS)
    return _status(control)


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise UserError(f"{text!r} is not a whole number.")
    return int(text)


def _status(control: RolloutControl) -> dict[str, Any]:
    now, workers = anyio.current_time(), control.workers
    return {
        "paused": not control.turns.is_open,
        "admitting": control.admission.is_open,
        "stopping": control.stopping,
        "concurrency": control.concurrency,
        **({"workers": f"{workers.there} of {workers.wanted}"} if workers else {}),
        "running": [
            {"group": e.group, "member": e.member, "task": e.task_id, "seconds": round(now - e.began, 1)}
            for e in control.running
        ],
    }


# --- the client -----------------------------------------------------------------------------------------------------


async def send_command(run_dir: Path, words: Sequence[str]) -> Mapping[str, Any]:
    """The run's status after it obeyed. Raises `UserError` when no run goes on there, or it refuses."""
    where = run_dir / WHERE
    if not where.is_file():
        raise UserError(f"No run goes on in {run_dir}: give the run folder of one that does.")
    socket = json.loads(where.read_text("utf-8"))["socket"]
    try:
        with anyio.fail_after(_CONNECT_TIMEOUT_S):
            stream = await anyio.connect_unix(socket)
        async with stream:
            await stream.send(json.dumps(list(words)).encode() + b"\n")
            receiver = BufferedByteReceiveStream(stream)
            answer = json.loads(b"".join([part async for part in receiver]))
    except (OSError, TimeoutError, anyio.BrokenResourceError, ValueError) as error:
        raise UserError(f"The run in {run_dir} does not answer; it may have been killed: resume it.") from error
    if "error" in answer:
        raise UserError(answer["error"])
    return answer
