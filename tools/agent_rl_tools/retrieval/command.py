"""The commands `agent-rl index` and `agent-rl serve retriever`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import anyio
from pydantic import Field
from rich.console import Console

from agent_rl.config import Config
from agent_rl.errors import RolloutFailure, UserError
from agent_rl.options import OptionStyle, parse_options
from agent_rl.progress import counting_progress
from agent_rl_tools.retrieval.corpus import count_lines, read_corpus
from agent_rl_tools.retrieval.index import Embedding, IndexKind, build_index, open_index


class IndexConfig(Config):
    """Index a corpus of passages for search."""

    corpus: Path = Field(
        description="Passages, one per row of a .jsonl, .tsv or .csv file (also .gz): id, title and text, or contents."
    )
    output: Path = Field(description="The index's folder; it must not exist.")
    kind: IndexKind = Field(default="bm25", description="Find by words (bm25), by meaning (dense) or by both.")
    model: str = Field(default="", description="Embedding model of sentence-transformers, for dense and hybrid.")
    query_prefix: str = Field(default="", description="What the model wants before a query, such as 'query: '.")
    passage_prefix: str = Field(default="", description="What the model wants before a passage.")


class RetrieverConfig(Config):
    """Serve an index over HTTP, as Search-R1's retrieval server does."""

    index: Path = Field(description="Folder that `agent-rl index` wrote.")
    topk: int = Field(default=3, ge=1, description="Passages for requests that do not say how many they want.")
    host: str = Field(default="127.0.0.1", description="Where to listen; beyond this machine only with a token.")
    port: int = Field(default=8000, ge=0, le=65535, description="Where to listen; 0: any free port.")
    token_file: Path | None = Field(
        default=None, description="File with the token that clients must send; else AGENT_RL_SERVE_TOKEN is read."
    )


def index_command(argv: Sequence[str]) -> None:
    """Index a corpus of passages for search, by words (BM25), by meaning or by both."""
    config = parse_options(IndexConfig, argv, prog="agent-rl index", style=OptionStyle(positional="corpus"))
    index(config, Console(stderr=True, highlight=False, soft_wrap=True))


def serve_retriever_command(argv: Sequence[str]) -> None:
    """Serve an index of passages over HTTP, as Search-R1's retrieval server does."""
    config = parse_options(RetrieverConfig, argv, prog="agent-rl serve retriever")
    serve_retriever(config, Console(stderr=True, highlight=False, soft_wrap=True).print)


def index(config: IndexConfig, console: Console) -> None:
    """Build the index, with a progress bar. Raises `UserError` for a malformed corpus."""
    if config.kind != "bm25" and not config.model:
        raise UserError(f"An index of kind {config.kind} needs an embedding model: give --model.")
    embedding = Embedding(model=config.model, query_prefix=config.query_prefix, passage_prefix=config.passage_prefix)
    passages = read_corpus(config.corpus)
    with counting_progress(console, "indexing", count_lines(config.corpus)) as advance:
        count = build_index(
            config.output,
            passages,
            config.kind,
            embedding=embedding if config.kind != "bm25" else None,
            on_progress=lambda done: advance(done, ""),
        )
    console.print(f"{count:,} passages in {config.output}: search them with `agent-rl serve retriever --index`.")


def serve_retriever(config: RetrieverConfig, say: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM. `say` tells where. Raises `UserError` for an index that cannot be used."""
    anyio.run(_serve, config, say)


async def _serve(config: RetrieverConfig, say: Callable[[str], None]) -> None:
    from agent_rl.serve.command import cancel_on_signal, read_token
    from agent_rl.serve.server import with_token
    from agent_rl.web import listen, serving
    from agent_rl_tools.retrieval.server import retrieval_app

    token = read_token(config.host, config.token_file)
    try:
        opened = open_index(config.index)
    except RolloutFailure as error:
        raise UserError(str(error)) from error
    async with opened as retriever, anyio.create_task_group() as tasks:
        tasks.start_soon(cancel_on_signal, tasks.cancel_scope)
        listener = listen(config.host, config.port)
        address = f"http://{config.host}:{listener.getsockname()[1]}/retrieve"
        async with serving(with_token(retrieval_app(retriever, config.topk), token), listener):
            say(f"Serving {len(retriever):,} passages at {address}")
            await anyio.sleep_forever()
