"""Runs as a folder that works from disk: the same page, and its data as scripts, for a page from disk may not fetch.

    OUT/index.html, OUT/static/      the page
    OUT/agent-rl-view.json           says that this folder is an export
    OUT/data/runs.js                 the list of runs; each has a number
    OUT/data/0/overview.js, metrics.js, choices.js, settings.js
    OUT/data/0/table-0000.js         rows of the table of episodes, in pages
    OUT/data/0/episodes-0000.js, tokens-0000.js, timeline-0000.js     whole groups, loaded when one is looked at

Each script is one call with a name and a JSON text; the text is a string literal in ASCII without "<", so that nothing
in it can end the script or begin anything else.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import select

from agent_rl.errors import ConfigError, UserError
from agent_rl.store import schema
from agent_rl.store.journal import Journal
from agent_rl.types import Trajectory
from agent_rl.view import queries, summary, timeline
from agent_rl.view.answers import STATIC, Answers, to_json
from agent_rl.view.queries import EpisodeQuery
from agent_rl.view.reading import Library, RunFolder

MARK = "agent-rl-view.json"
PAGE_EPISODES = 500
PAGE_BYTES = 8_000_000
TEXT = 500  # characters of a task's prompt that its filter looks at


def export(library: Library, out: Path, on_run: Callable[[str], object] = lambda id: None) -> int:
    """Write all runs of the library to `out` and return how many. `on_run` hears the name of each before it is written.

    An earlier export there is replaced. Raises `ConfigError` when `out` holds something else, `UserError` when there is
    nothing to write.
    """
    runs = library.runs()
    if not runs:
        raise UserError(f"There are no runs in {library.where}: name folders that `agent-rl train` or `eval` wrote.")
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / MARK).is_file())):
        raise ConfigError(f"{out} is not empty and no earlier export: name another folder.")
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).write_text(json.dumps({"format": 1}) + "\n", encoding="utf-8")
    shutil.rmtree(out / "data", ignore_errors=True)
    shutil.copytree(STATIC, out / "static", dirs_exist_ok=True)
    (out / "static" / "index.html").unlink()
    page = (STATIC / "index.html").read_text("utf-8").replace('data-source="server"', 'data-source="files"')
    (out / "index.html").write_text(page, encoding="utf-8")
    answers = Answers(library)
    listed = answers.runs()
    for number, run in enumerate(runs):
        on_run(run.id)
        line = next(line for line in listed["runs"] if line["id"] == run.id)
        line |= {"number": number, "tables": 0, "groups": 0} | _Export(
            out / "data", number, run, answers, library
        ).write()
    _write(out / "data", "runs", listed)
    return len(runs)


class _Page:
    """Episodes that lie in the same files."""

    def __init__(self) -> None:
        self.episodes: dict[str, Any] = {}
        self.tokens: dict[str, Any] = {}
        self.lanes: list[dict[str, Any]] = []
        self._bytes = 0

    @property
    def full(self) -> bool:
        """Whether another group belongs on another page."""
        return len(self.lanes) >= PAGE_EPISODES or self._bytes >= PAGE_BYTES

    def add(self, episode: Trajectory, described: dict[str, Any], tokens: dict[str, Any]) -> None:
        """Put an episode on it."""
        key = f"{episode.group_index}/{episode.member}"
        self.episodes[key] = described
        self.tokens[key] = tokens
        self.lanes.append(timeline.episode_lane(episode))
        self._bytes += len(to_json(described)) + len(to_json(tokens))


class _Export:
    """One run on its way to `data/NUMBER`."""

    def __init__(self, data: Path, number: int, run: RunFolder, answers: Answers, library: Library) -> None:
        self._data = data
        self._number = number
        self._run = run
        self._answers = answers
        self._journal = library.journal(run)

    def write(self) -> dict[str, int]:
        """Returns how many pages the table has, and one more than the last group's index."""
        self._file("overview", self._answers.overview(self._run))
        self._file("metrics", summary.metrics(self._run.path))
        self._file("settings", {"settings": summary.settings(self._run.path)})
        self._file("choices", self._answers.choices(self._run))
        if self._journal is None:
            return {}
        pages = self._groups(self._journal)
        return {"tables": self._tables(self._journal, pages), "groups": max(pages, default=-1) + 1}

    def _groups(self, journal: Journal) -> dict[int, int]:
        """Write the episodes; returns the page that each group is on."""
        pages: dict[int, int] = {}
        page = _Page()
        number = 0
        for index in _indices(journal):
            pages[index] = number
            for episode in journal.read_groups([index])[index].trajectories:
                place = self._run, index, episode.member
                page.add(episode, self._answers.episode(*place), self._answers.tokens(*place))
            if page.full:
                self._page(page, number)
                page, number = _Page(), number + 1
        if page.lanes:
            self._page(page, number)
        return pages

    def _page(self, page: _Page, number: int) -> None:
        trainer = timeline.trainer_lane(self._run.path, page.lanes)
        self._file(f"episodes-{number:04}", page.episodes)
        self._file(f"tokens-{number:04}", page.tokens)
        self._file(f"timeline-{number:04}", {"episodes": page.lanes, "trainer": trainer})

    def _tables(self, journal: Journal, pages: dict[int, int]) -> int:
        """Write the rows of the table; returns the number of its pages."""
        columns = [*queries.COLUMNS, "outcome"]
        number = 0
        while True:
            asked = EpisodeQuery(offset=number * queries.LONGEST_PAGE, limit=queries.LONGEST_PAGE)
            rows = queries.episodes(journal, asked, summary.threshold(self._run))["rows"]
            if not rows:
                return number
            tasks = _tasks(journal, sorted({row["group"] for row in rows}))
            shown = {group: {**task, "page": pages[group]} for group, task in tasks.items()}
            cells = [[row[column] for column in columns] for row in rows]
            self._file(f"table-{number:04}", {"columns": columns, "rows": cells, "tasks": shown})
            number += 1

    def _file(self, name: str, content: object) -> None:
        _write(self._data, f"{self._number}/{name}", content)


def as_script(name: str, content: object) -> str:
    """A script that hands `content` to the page under `name`."""
    text = json.dumps(to_json(content)).replace("<", "\\u003c")
    return f"view.deliver({json.dumps(name)}, {text});\n"


def _write(data: Path, name: str, content: object) -> None:
    path = data / f"{name}.js"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(as_script(name, content), encoding="ascii")


def _indices(journal: Journal) -> Iterator[int]:
    columns = schema.groups.c
    for (index,) in journal.rows(select(columns.index).where(columns.run == journal.run).order_by(columns.index)):
        yield index


def _tasks(journal: Journal, indices: list[int]) -> dict[int, dict[str, Any]]:
    columns = schema.groups.c
    query = select(columns.index, columns.task).where(columns.run == journal.run, columns.index.in_(indices))
    found: dict[int, dict[str, Any]] = {}
    for index, text in journal.rows(query):
        task = json.loads(text)
        words = " ".join([task["id"], *(message["content"] for message in task["prompt"])])
        found[index] = {"tags": task["tags"], "text": words[:TEXT]}
    return found
