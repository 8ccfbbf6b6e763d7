"""The control socket: what `agent-rl ctl` can do to a run, and what it says when there is none."""

import json
import stat
from pathlib import Path

import anyio
import pytest

from agent_rl.control import WHERE, send_command, serve_control
from agent_rl.errors import UserError
from agent_rl.rollout.control import RolloutControl

pytestmark = pytest.mark.anyio


class Workers:
    wanted, there = 1, 1

    def resize(self, count):
        self.wanted = count


async def test_commands_reach_the_run(tmp_path):
    control = RolloutControl(4)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve_control, control, tmp_path)
        with anyio.fail_after(5):
            while not (tmp_path / WHERE).exists():  # noqa: ASYNC110  # no event tells the test
                await anyio.sleep(0.01)
        socket = Path(json.loads((tmp_path / WHERE).read_text())["socket"])
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
        with control.episode(3, 1, "task-7"):
            status = await send_command(tmp_path, ["status"])
            assert [(e["group"], e["member"], e["task"]) for e in status["running"]] == [(3, 1, "task-7")]
            await send_command(tmp_path, ["cancel", "3", "1"])
            await anyio.sleep_forever()
        assert (await send_command(tmp_path, ["pause"]))["paused"]
        assert not control.admission.is_open
        resumed = await send_command(tmp_path, ["resume"])
        assert (resumed["paused"], resumed["admitting"]) == (False, True)
        assert not (await send_command(tmp_path, ["drain"]))["admitting"]
        assert (await send_command(tmp_path, ["concurrency", "9"]))["concurrency"] == 9
        assert (await send_command(tmp_path, ["stop"]))["stopping"]
        with pytest.raises(UserError, match="no rollout workers: it is one process"):
            await send_command(tmp_path, ["workers", "2"])
        control.workers = Workers()
        assert (await send_command(tmp_path, ["workers", "3"]))["workers"] == "1 of 3"
        with pytest.raises(UserError, match="at least 1 worker"):
            await send_command(tmp_path, ["workers", "0"])
        for words, mend in (
            (["puase"], "Did you mean 'pause'"),
            (["cancel", "x", "1"], "not a whole number"),
            (["cancel", "8", "1"], "does not run"),
            (["concurrency", "0"], "at least 1"),
        ):
            with pytest.raises(UserError, match=mend):
                await send_command(tmp_path, words)
        async with await anyio.connect_unix(socket) as stranger:
            await stranger.send(b"x" * 20_000)
        assert (await send_command(tmp_path, ["status"]))["concurrency"] == 9, "a stranger's bytes harm nobody"
        tasks.cancel_scope.cancel()
    assert not (tmp_path / WHERE).exists()
    assert not socket.exists()  # noqa: ASYNC240


async def test_without_a_run_it_says_so(tmp_path):
    with pytest.raises(UserError, match="No run goes on in"):
        await send_command(tmp_path, ["status"])
    (tmp_path / WHERE).write_text(json.dumps({"socket": str(tmp_path / "gone.sock"), "pid": 1}))
    with pytest.raises(UserError, match="may have been killed"):
        await send_command(tmp_path, ["status"])
