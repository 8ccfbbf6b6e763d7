"""What the page asks for, by name: one function for the server and for the export. Plain data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agent_rl.errors import UserError
from agent_rl.store.journal import Journal
from agent_rl.view import queries, summary, timeline, tokens
from agent_rl.view.queries import EpisodeQuery
from agent_rl.view.reading import Library, RunFolder

STATIC = Path(__file__).with_name("static")
"""The page that asks."""


class Answers:
    """Everything about the runs of a library. Threads may share it. All raise `UserError` for what is not there."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._tokenizers = tokens.Tokenizers()

    def runs(self) -> dict[str, Any]:
        """The list of runs, and where they were looked for."""
        return {"where": self._library.where, "runs": [self._line(run) for run in self._library.runs()]}

    def overview(self, run: RunFolder) -> dict[str, Any]:
        """The run's page."""
        return summary.overview(run, self._library.journal(run))

    def episodes(self, run: RunFolder, asked: EpisodeQuery) -> dict[str, Any]:
        """A page of the table of episodes."""
        journal = self._library.journal(run)
        if journal is None:
            return {"all": 0, "total": 0, "rows": [], "histogram": []}
        return queries.episodes(journal, asked, summary.threshold(run))

    def choices(self, run: RunFolder) -> dict[str, list[str]]:
        """The values that filters can have."""
        journal = self._library.journal(run)
        return {} if journal is None else queries.choices(journal)

    def episode(self, run: RunFolder, group: int, member: int) -> dict[str, Any]:
        """One episode without its tokens."""
        return queries.episode(self._journal(run), group, member, summary.threshold(run))

    def tokens(self, run: RunFolder, group: int, member: int) -> dict[str, Any]:
        """The tokens of one episode."""
        return tokens.overlay(self._journal(run), group, member, self._tokenizers.of(run.path))

    def timeline(self, run: RunFolder, first: int, count: int) -> dict[str, Any]:
        """Spans of some groups."""
        return timeline.timeline(self._journal(run), run.path, first, min(count, timeline.MOST_GROUPS))

    def partners(self, task: str) -> dict[str, Any]:
        """Episodes of a task in all runs."""
        found: list[dict[str, Any]] = []
        for run in self._library.runs():
            if (journal := self._library.journal(run)) is not None:
                same = queries.partners(journal, task, summary.threshold(run))
                found += [{"run": run.id, **row} for row in same]
        return {"episodes": found}

    def _line(self, run: RunFolder) -> dict[str, Any]:
        try:
            return summary.summary(run, self._library.journal(run))
        except UserError as error:
            return summary.summary(run, None) | {"status": "unreadable", "environment": str(error)}

    def _journal(self, run: RunFolder) -> Journal:
        journal = self._library.journal(run)
        if journal is None:
            raise UserError(f"The run {run.id} has no finished group of episodes yet.")
        return journal


def to_json(content: object) -> str:
    """ASCII, whatever the text holds (also half of a surrogate pair); numbers that JSON does not know become words."""
    try:
        return json.dumps(content, separators=(",", ":"), allow_nan=False)
    except ValueError:
        return json.dumps(json.loads(json.dumps(content), parse_constant=str), separators=(",", ":"))
