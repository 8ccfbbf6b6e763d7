import logging
import os
import shutil
import signal
import sys
from itertools import count
from pathlib import Path

import pytest
import torch

from agent_rl.store import checkpoint as checkpoints
from agent_rl.store.checkpoint import Checkpoint, list_checkpoints, load_latest, save_checkpoint


def save(run_dir: Path, step: int, **options) -> Checkpoint:
    state = {"model": {"w": torch.full((4, 3), float(step), dtype=torch.bfloat16)}, "lr": [0.1], "step": step}
    position = {"step": step, "next_group_index": 8 * step, "weight_version": step, "seed": 7}
    return save_checkpoint(run_dir, state, **position, **options)


def folders(run_dir: Path) -> list[str]:
    return sorted(path.name for path in (run_dir / "checkpoints").iterdir())


def test_the_latest_comes_back_with_its_position(tmp_path):
    save(tmp_path, 1)
    saved = save(tmp_path, 2)
    loaded, state = load_latest(tmp_path)
    assert loaded == saved
    assert loaded == Checkpoint(tmp_path / "checkpoints/step-00000002", 2, 16, 2, 7)
    assert state["step"] == 2
    assert state["lr"] == [0.1]
    torch.testing.assert_close(state["model"]["w"], torch.full((4, 3), 2.0, dtype=torch.bfloat16), rtol=0, atol=0)


def test_a_run_without_checkpoints_has_no_latest(tmp_path):
    assert load_latest(tmp_path / "nothing") is None
    assert list_checkpoints(tmp_path / "nothing") == []


def test_only_the_newest_are_kept(tmp_path):
    for step in (2, 4, 6, 8):
        save(tmp_path, step, keep=3)
    assert [c.step for c in list_checkpoints(tmp_path)] == [4, 6, 8]
    save(tmp_path, 10, keep=1)
    assert folders(tmp_path) == ["step-00000010"]


def test_an_exported_folder_is_part_of_the_checkpoint(tmp_path):
    def export(folder: Path):
        (folder / "model").mkdir()
        (folder / "model" / "config.json").write_text("{}")

    saved = save(tmp_path, 1, export=export)
    assert (saved.path / "model" / "config.json").read_text() == "{}"
    (saved.path / "model" / "config.json").write_text("{ }")
    assert load_latest(tmp_path) is None


def test_saving_a_step_again_replaces_it(tmp_path):
    save(tmp_path, 1)
    save_checkpoint(tmp_path, {"again": True}, step=1, next_group_index=9, weight_version=1, seed=7)
    loaded, state = load_latest(tmp_path)
    assert loaded.next_group_index == 9
    assert state == {"again": True}
    assert folders(tmp_path) == ["step-00000001"]


def test_a_state_that_needs_pickled_code_is_refused_when_it_is_saved_not_when_it_is_needed(tmp_path):
    save(tmp_path, 1)
    with pytest.raises(TypeError, match="not a tensor or plain container"):
        save_checkpoint(tmp_path, {"path": Path()}, step=2, next_group_index=0, weight_version=0, seed=0)
    assert load_latest(tmp_path)[0].step == 1


def flip_a_bit(path: Path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "a flipped bit": lambda folder: flip_a_bit(folder / "state.pt"),
    "a truncated file": lambda folder: os.truncate(folder / "state.pt", 100),
    "a missing file": lambda folder: (folder / "state.pt").unlink(),
    "a missing manifest": lambda folder: (folder / "manifest.json").unlink(),
    "a torn manifest": lambda folder: os.truncate(folder / "manifest.json", 40),
    "an empty manifest": lambda folder: (folder / "manifest.json").write_text("{}"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_latest_falls_back_to_the_one_before_with_a_warning(tmp_path, caplog, damage):
    save(tmp_path, 1)
    DAMAGES[damage](save(tmp_path, 2).path)
    with caplog.at_level(logging.WARNING):
        loaded, state = load_latest(tmp_path)
    assert loaded.step == state["step"] == 1
    assert "step-00000002 is corrupt" in caplog.text
    assert folders(tmp_path) == ["corrupt-step-00000002", "step-00000001"]
    save(tmp_path, 2, keep=1)
    assert load_latest(tmp_path)[0].step == 2


def test_looking_at_a_run_in_progress_changes_nothing(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "checkpoints" / "tmp-step-00000002").mkdir()
    (tmp_path / "checkpoints" / "step-00000003").mkdir()
    assert [c.step for c in list_checkpoints(tmp_path)] == [1]
    assert len(folders(tmp_path)) == 3


def kill_at_file_operation(number: int, folder: Path, operation) -> bool:
    """Run `operation` in a forked process that SIGKILLs itself before its n-th file operation under `folder`.

    Returns whether it lived to the end.
    """
    pid = os.fork()
    if pid == 0:
        left = number

        def hook(event: str, args: tuple) -> None:
            nonlocal left
            if any(str(folder) in str(arg) for arg in args if isinstance(arg, str | Path)):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        try:
            operation()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return not os.WIFSIGNALED(status)


@pytest.mark.parametrize("again", [False, True], ids=["next step", "same step again"])
def test_kill_9_before_any_file_operation_of_a_save_leaves_a_loadable_checkpoint(tmp_path, caplog, again):
    save(tmp_path / "base", 1)
    save(tmp_path / "base", 2)
    step = 2 if again else 3
    for number in count(1):
        run_dir = tmp_path / f"killed-{number}"
        shutil.copytree(tmp_path / "base", run_dir)
        lived = kill_at_file_operation(number, run_dir, lambda run_dir=run_dir: save(run_dir, step, keep=2))
        loaded, state = load_latest(run_dir)
        assert loaded.step == state["step"]
        assert loaded.step in ({1, 2} if again else {2, 3})
        assert not [name for name in folders(run_dir) if not name.startswith("step-")], "leftovers are removed"
        save(run_dir, step + 1)
        assert load_latest(run_dir)[0].step == step + 1
        if lived:
            break
    assert loaded.step == step
    assert number > 10, "the fault injection must have seen the writes"
    assert not caplog.records, "a kill must never look like corruption"


@pytest.mark.parametrize("name", ["write_file", "_write_manifest", "_fsync_tree", "_fsync"])
def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path, monkeypatch, name):
    save(tmp_path, 1)

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, name, full)
        with pytest.raises(OSError, match="No space"):
            save(tmp_path, 2)
    assert [c.step for c in list_checkpoints(tmp_path)] == [1]
    save(tmp_path, 2)
    assert load_latest(tmp_path)[0].step == 2


def test_every_byte_is_synced_before_the_rename(tmp_path, monkeypatch):
    """Without this, power loss could leave a renamed folder of empty files: nothing else in the tests would notice."""
    synced: list[str] = []
    rename = Path.rename

    def fsync(path: Path) -> None:
        synced.append(path.name)

    def record_rename(self: Path, target: Path):
        synced.append(f"rename {target.name}")
        return rename(self, target)

    monkeypatch.setattr(checkpoints, "_fsync", fsync)
    monkeypatch.setattr(Path, "rename", record_rename)
    save(tmp_path, 1)
    assert set(synced[:2]) == {"state.pt", "manifest.json"}
    assert synced[2:] == ["tmp-step-00000001", "rename step-00000001", "checkpoints"]
