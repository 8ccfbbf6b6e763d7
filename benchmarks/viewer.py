"""How long the viewer lets a reader wait on a run of 100,000 episodes, in a real Chromium.

    python benchmarks/viewer.py [EPISODES]

The run is made by SQL: copies of one group of eight episodes, with rewards, turns and tokens of their own. The first
page is timed with a server that has opened nothing yet and a file that was dropped from the page cache. Beside it
stands what no viewer can beat: Chromium opening an empty page, and one pass of SQLite over the table.
"""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from agent_rl.store.opening import create_journal
from agent_rl.testing.episodes import Played, make_group, make_trajectory

MEMBERS = 8
SHOWN = "document.querySelector('#page')?.dataset.shows === location.hash && !!document.querySelector('#total')"
DEADLINE_S = 20
FIRST_PAGE_GOAL_S, FILTER_GOAL_S = 2.0, 0.3
FILTERS = {
    "reward at least 0.9": "reward_min=0.9",
    "long, by tokens": "turns_min=6&sort=-tokens",
    "text of the task": "task=task%20777",
    "failures": "outcome=excluded&sort=-duration_s",
    "last page": "offset=99900",
}
COPIES = """
WITH RECURSIVE copy(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM copy WHERE i < {groups})
INSERT INTO {table} ({columns}) SELECT {values} FROM {table}, copy WHERE {key} = 0
"""
OWN = {
    "index": "i",
    "group_index": "i",
    "task_id": "'task ' || i",
    "task": "replace(task, 'task 0', 'task ' || i)",
    "reward": "abs(random()) % 101 / 100.0",
    "turns": "1 + abs(random()) % 12",
    "tokens": "200 + abs(random()) % 4000",
    "duration_s": "abs(random()) % 600 / 10.0",
    "failure_owner": "CASE WHEN abs(random()) % 50 = 0 THEN 'sandbox' END",
    "failure_kind": "CASE WHEN abs(random()) % 50 = 0 THEN 'crash' END",
}


def write_run(folder: Path, episodes: int) -> None:
    members = [make_trajectory([Played(sampled=40, context=60)] * 4, member=i, task="task 0") for i in range(MEMBERS)]
    with create_journal(folder) as journal:
        journal.append_group(make_group(*members))
    with closing(sqlite3.connect(folder / "store.db")) as store, store:
        for table, key in (("groups", '"index"'), ("trajectories", "group_index"), ("records", "group_index")):
            columns = [name for _, name, *_ in store.execute(f"PRAGMA table_info({table})")]
            values = ", ".join(OWN.get(name, f'"{name}"') for name in columns)
            names = ", ".join(f'"{name}"' for name in columns)
            groups = episodes // MEMBERS - 1
            store.execute(COPIES.format(groups=groups, table=table, columns=names, values=values, key=key))


def forget(path: Path) -> None:
    """Drop a file from the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def show(page: Page, address: str) -> None:
    """Go there, and wait until the page shows it."""
    page.goto(address)
    deadline = time.monotonic() + DEADLINE_S
    while not page.evaluate(SHOWN):
        if time.monotonic() > deadline:
            raise TimeoutError(page.inner_text("#page"))
        time.sleep(0.005)


def filter_s(page: Page, table: str, query: str) -> float:
    show(page, table)
    return seconds(lambda: show(page, f"{table}?{query}"))


def scan_s(path: Path) -> float:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as store:
        return seconds(lambda: store.execute("SELECT sum(reward + turns + tokens) FROM trajectories").fetchone())


def measure(page: Page, address: str, store: Path) -> None:
    base, _, token = address.partition("?")
    table = f"{base}#/r/large/episodes"
    forget(store)
    first = seconds(lambda: show(page, f"{base}?{token}#/r/large/episodes"))
    blank = page.context.new_page()
    empty = seconds(lambda: blank.goto("about:blank"))
    print(
        f"{'first page, cold':24}{first:8.3f} s   goal {FIRST_PAGE_GOAL_S} s   an empty page {empty:.3f} s", flush=True
    )
    for name, query in FILTERS.items():
        taken = min(filter_s(page, table, query) for _ in range(3))
        print(f"{name:24}{taken:8.3f} s   goal {FILTER_GOAL_S} s   one scan {scan_s(store):.3f} s", flush=True)


def main() -> None:
    episodes = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    chromium = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))))
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        folder = Path(scratch, "runs", "large")
        write_run(folder, episodes)
        store = folder / "store.db"
        print(f"{episodes:,} episodes, {store.stat().st_size / 1e6:.0f} MB")
        command = [sys.executable, "-m", "agent_rl.cli", "view", str(folder.parent), "--no-browser"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                address = re.search(r"http://\S+", server.stdout.readline())[0]
                page = playwright.chromium.launch(executable_path=chromium).new_context().new_page()
                measure(page, address, store)
            finally:
                server.terminate()


if __name__ == "__main__":
    main()
