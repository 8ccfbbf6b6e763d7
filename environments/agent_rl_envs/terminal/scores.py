"""What checkers say, read: reward files of Harbor, reports of tests (CTRF), pytest's summary. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, cast

_SUMMARY = re.compile(r"^=+ short test summary info =+$", re.MULTILINE)
_OUTCOME = re.compile(r"^(PASSED|FAILED|ERROR|XFAIL|XPASS)\s+(\S+)", re.MULTILINE)
_PASSES = ("PASSED", "XFAIL", "XPASS")
_COLORS = re.compile(r"\x1b\[[0-9;]*m")
REWARD = "reward"


class Garbled(Exception):
    """A checker said something that cannot be read as a reward."""


def read_rewards(text: str | None, table: str | None) -> dict[str, float]:
    """Rewards by name, from `reward.json`, or else from `reward.txt`. Raises `Garbled`."""
    if table is None and text is None:
        raise Garbled("it wrote neither reward.txt nor reward.json")
    if table is None:
        return {REWARD: _number(cast(str, text).strip(), "reward.txt")}
    try:
        values = json.loads(table)
    except ValueError as error:
        raise Garbled(f"reward.json is no JSON ({error})") from error
    if isinstance(values, int | float):
        values = {REWARD: values}
    if not isinstance(values, dict) or not values:
        raise Garbled("reward.json is no object of numbers")
    return {str(name): _number(value, "reward.json") for name, value in cast(dict[str, object], values).items()}


def _number(value: object, where: str) -> float:
    try:
        number = float(cast(Any, value))
    except (TypeError, ValueError) as error:
        raise Garbled(f"{where} has {str(value)[:80]!r} for a number") from error
    if not math.isfinite(number):
        raise Garbled(f"{where} has {number} for a number")
    return number


def overall(rewards: Mapping[str, float]) -> float:
    """The one called `reward`, or else the mean of all."""
    return rewards[REWARD] if REWARD in rewards else sum(rewards.values()) / len(rewards)


def passed_of_report(report: str) -> float | None:
    """The share of tests that passed by a report in the Common Test Report Format; `None` if it tells none."""
    try:
        summary = json.loads(report)["results"]["summary"]
        tests, passed = int(summary["tests"]) - int(summary.get("skipped", 0)), int(summary["passed"])
    except (ValueError, KeyError, TypeError):
        return None
    return passed / tests if tests > 0 and 0 <= passed <= tests else None


def passed_of_pytest(output: str) -> float | None:
    """The share of tests that passed by pytest's last summary (`-rA`); `None` if there is none, or it names no test."""
    parts = _SUMMARY.split(_COLORS.sub("", output))
    if len(parts) == 1:
        return None
    outcomes: dict[str, bool] = {}
    for outcome, test in _OUTCOME.findall(parts[-1]):
        outcomes[test] = outcomes.get(test, True) and outcome in _PASSES
    return sum(outcomes.values()) / len(outcomes) if outcomes else None
