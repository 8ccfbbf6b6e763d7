"""The recipes of games, apps and SQL at small scale: they run to the end, on what their options say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent_rl.cli import main
from tests.recipes.conftest import SMALL


def train(recipe: str, folder: Path, *options: str) -> dict[str, Any]:
    assert main(["train", recipe, "--run-dir", str(folder), *SMALL, *options]) == 0
    return json.loads((folder / "report.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("game", ["maze", "bandit", "wordle"])
def test_a_game_is_trained(game: str, tmp_path: Path) -> None:
    report = train("games", tmp_path / "run", "--game", game, "--warm-start.max-steps", "10")
    assert report["steps"] == 2
    assert report["oracle"]["value"] == 1.0
    assert report["random"]["value"] < 0.6
    threshold = json.loads((tmp_path / "run/config.json").read_text())["success_threshold"]
    assert threshold == (0.6 if game == "bandit" else 1.0)
    assert report["tokens"] > 0


@pytest.mark.slow
def test_options_reach_the_game(tmp_path: Path) -> None:
    train("games", tmp_path / "run", "--steps", "1", "--options", "size", "4")
    assert "maze of 4 rows" in (tmp_path / "run/transcript_after.md").read_text("utf-8")


@pytest.mark.slow
def test_apps_are_trained(tmp_path: Path) -> None:
    report = train("apps", tmp_path / "run", "--templates", "create_note", "--limits.max-turns", "3")
    assert report["steps"] == 2
    assert report["oracle"]["value"] == 1.0
    assert report["random"]["value"] < 0.5


@pytest.mark.slow
def test_sql_is_trained_with_partial_rewards(tmp_path: Path) -> None:
    report = train("sql", tmp_path / "run", "--limits.max-response-tokens", "32")
    assert (report["steps"], report["oracle"]["value"]) == (2, 1.0)
    shown = json.loads((tmp_path / "run/config.json").read_text())["sql"]["weights"]
    assert shown == {"execution": 1.0, "syntax": 0.1, "schema_linking": 0.1, "ngram": 0.1, "format": 0.1}
