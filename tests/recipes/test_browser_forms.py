"""The recipe of web pages on the shipped sites: it runs to the end in a real browser."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from agent_rl.cli import main

SMALLEST = [
    *("--steps", "1", "--groups-per-batch", "2", "--group-size", "2", "--eval-tasks", "4"),
    *("--warm-start.demonstrations", "8", "--warm-start.max-steps", "4", "--warm-start.check-every", "4"),
    *("--warm-start.max-implausible", "1", "--warm-start.last-steps", "2", "--warm-start.check-episodes", "2"),
]


@pytest.mark.slow
def test_the_sites_are_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not any(map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))):
        pytest.skip("Chromium is not installed: apt install chromium-headless-shell")
    folder = tmp_path / "run"
    sites = ["--templates", "phone_of_contact", "--max-actions", "2"]
    limits = ["--limits.max-context-tokens", "6000", "--limits.max-turns", "4"]
    assert main(["train", "browser_forms", "--run-dir", str(folder), *SMALLEST, *sites, *limits]) == 0
    (advice,) = [line for line in capsys.readouterr().out.splitlines() if "agent-rl eval browser" in line]
    assert "source sites" in advice
    assert "sites.templates phone_of_contact" in advice
    report = json.loads((folder / "report.json").read_text())
    assert (report["steps"], report["oracle"]["value"]) == (1, 1.0)
    assert "in my contacts? Answer with the number" in (folder / "transcript_after.md").read_text("utf-8")
