"""A run has a folder of its own: never mixed with another run, found again for a resume, never resumed differently."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent_rl.config import Config, load_config
from agent_rl.errors import ConfigError
from agent_rl.store.run_folder import open_run


class Options(Config):
    rate: float = 1.0
    steps: int = 5


def test_a_new_run_writes_its_config_and_refuses_a_used_folder(tmp_path: Path) -> None:
    folder = open_run(Options(rate=2.0), "demo", tmp_path / "run", resume=False)
    assert load_config(Options, folder / "config.json") == Options(rate=2.0)
    with pytest.raises(ConfigError, match="not empty: add --resume"):
        open_run(Options(), "demo", tmp_path / "run", resume=False)


def test_a_run_without_a_folder_gets_one_under_its_name_and_resume_finds_the_latest(tmp_path: Path) -> None:
    for name, modified_s in (("demo-1", 100), ("demo-2", 300), ("other-3", 900)):
        folder = open_run(Options(), "x", tmp_path / name, resume=False)
        os.utime(folder / "config.json", (modified_s, modified_s))
    assert open_run(Options(), "demo", None, resume=True, root=tmp_path).name == "demo-2"
    new = open_run(Options(), "demo", None, resume=False, root=tmp_path)
    assert new.parent == tmp_path
    assert new.name.startswith("demo-")


def test_resume_needs_a_run_and_the_same_options(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run to resume"):
        open_run(Options(), "demo", tmp_path / "nothing", resume=True)
    with pytest.raises(ConfigError, match="no run of 'demo'"):
        open_run(Options(), "demo", None, resume=True, root=tmp_path)
    open_run(Options(), "demo", tmp_path / "run", resume=False)
    with pytest.raises(ConfigError, match=r"rate \(was 1.0, now 3.0\)"):
        open_run(Options(rate=3.0), "demo", tmp_path / "run", resume=True)
    assert open_run(Options(steps=9), "demo", tmp_path / "run", resume=True, free=("steps",)) == tmp_path / "run"
