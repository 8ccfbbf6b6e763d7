"""`search`: passages that fit a question, from whatever `Retriever` is behind it.

Here are a full-text index in one SQLite file, ranked by BM25, and a client of retrieval servers of the Search-R1 kind.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Hashable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Protocol, Self

import anyio
import httpx
from pydantic import Field

from agent_rl import ToolError, Toolset, tool
from agent_rl.concurrency import in_thread
from agent_rl.errors import ToolFailure, UserError
from agent_rl.frozen import record


@record
class Passage:
    """A piece of text that can be found. `id` names it in citations; `score` is higher for what fits better."""

    id: str
    text: str
    title: str = ""
    score: float = 0.0


class Retriever(Protocol):
    """What finds passages."""

    async def search(self, query: str, count: int) -> Sequence[Passage]:
        """At most `count` passages, the best first. Raises `ToolError` for a query that makes no sense."""
        ...


class SearchTool(Toolset):
    """Search with a retriever that all episodes share. `max_results` bounds what the model may ask for."""

    def __init__(self, retriever: Retriever, *, results: int = 3, max_results: int = 10) -> None:
        self._retriever = retriever
        self._results, self._max_results = results, max_results

    @tool(effects="read_only", retries=2, timeout_s=60.0)
    async def search(self, query: str, count: Annotated[int, Field(ge=1)] | None = None) -> str:
        """Search for passages.

        Args:
            query: What to look for; a few words.
            count: How many passages to show.
        """
        wanted = min(count or self._results, self._max_results)
        passages = await self._retriever.search(query, wanted)
        return "\n\n".join(map(describe, passages)) or "Nothing was found."

    def state_key(self) -> Hashable:
        """Searching changes nothing; another corpus has other results."""
        return id(self._retriever)


def describe(passage: Passage) -> str:
    """What a model reads of a passage."""
    title = f" {passage.title}" if passage.title else ""
    return f"[{passage.id}]{title}\n{passage.text}"


# --- a full-text index ----------------------------------------------------------------------------------------------


class FullTextIndex:
    """Passages in an SQLite file with a full-text index (FTS5), ranked by BM25 over title and text.

    Building streams: memory does not grow with the corpus. Reading takes a connection for each thread.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UserError(f"There is no index {path}: build one with FullTextIndex.build(path, passages).")
        self._path = path
        self._free: list[sqlite3.Connection] = []

    @classmethod
    def build(cls, path: Path, passages: Iterable[Passage], *, batch: int = 10_000) -> Self:
        """Write a new index. Raises `UserError` when there is one already."""
        if path.exists():
            raise UserError(f"{path} exists already: remove it, or build the index elsewhere.")
        unfinished = path.with_name(f"{path.name}.part")
        unfinished.unlink(missing_ok=True)
        connection = sqlite3.connect(unfinished)
        try:
            connection.execute("PRAGMA journal_mode = off")
            connection.execute("PRAGMA synchronous = off")
            connection.execute(
                "CREATE VIRTUAL TABLE passage USING fts5(id UNINDEXED, title, text, tokenize = 'porter unicode61')"
            )
            rows: list[tuple[str, str, str]] = []
            for passage in passages:
                rows.append((passage.id, passage.title, passage.text))
                if len(rows) == batch:
                    connection.executemany("INSERT INTO passage VALUES (?, ?, ?)", rows)
                    rows.clear()
            connection.executemany("INSERT INTO passage VALUES (?, ?, ?)", rows)
            connection.execute("INSERT INTO passage (passage) VALUES ('optimize')")
            connection.commit()
        finally:
            connection.close()
        unfinished.replace(path)  # an interrupted build leaves nothing that looks like an index
        return cls(path)

    async def search(self, query: str, count: int) -> Sequence[Passage]:
        """See `Retriever.search`."""
        words = re.findall(r"\w+", query)[:64]
        if not words:
            raise ToolError("The query has no words.")
        return await in_thread(partial(self._search, " OR ".join(f'"{word}"' for word in words), count))

    def _search(self, match: str, count: int) -> list[Passage]:
        connection = self._free.pop() if self._free else self._connect()
        try:
            rows = connection.execute(
                "SELECT id, text, title, -bm25(passage, 0, 2, 1) FROM passage WHERE passage MATCH ? "
                "ORDER BY bm25(passage, 0, 2, 1) LIMIT ?",
                (match, count),
            ).fetchall()
        finally:
            self._free.append(connection)
        return [Passage(*row) for row in rows]

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, check_same_thread=False)

    def close(self) -> None:
        """Close all connections; none may be in use."""
        while self._free:
            self._free.pop().close()


# --- a retrieval server ---------------------------------------------------------------------------------------------


class RetrievalServer:
    """A client of a server that answers `POST /retrieve` as Search-R1's does (arXiv:2503.09516).

    It takes `{"queries": [...], "topk": n, "return_scores": true}` and gives `{"result": [[{"document": {"contents":
    "title\\ntext"}, "score": s}]]}`.
    """

    def __init__(self, url: str, *, timeout_s: float = 30.0, max_connections: int = 64) -> None:
        self._url = url
        limits = httpx.Limits(max_connections=max_connections)
        self._client = httpx.AsyncClient(timeout=timeout_s, limits=limits)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        with anyio.CancelScope(shield=True):  # closing sockets does not wait
            await self._client.aclose()

    async def search(self, query: str, count: int) -> Sequence[Passage]:
        """See `Retriever.search`. Raises `ToolFailure` when the server does not answer as it should."""
        request = {"queries": [query], "topk": count, "return_scores": True}
        try:
            response = await self._client.post(self._url, json=request)
            response.raise_for_status()
            return [_passage(found) for found in response.json()["result"][0]]
        except httpx.HTTPError as error:
            raise ToolFailure(f"The retrieval server {self._url} failed: {error!r}", kind="http") from error
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ToolFailure(f"The retrieval server {self._url} gave no result list.", kind="protocol") from error


def _passage(found: dict[str, Any]) -> Passage:
    document = found.get("document", found)
    title, _, text = str(document["contents"]).partition("\n")
    return Passage(str(document.get("id", title)), text, title.strip('"'), float(found.get("score", 0.0)))
