"""Our client and our server understand each other, and both understand Search-R1's."""

import json
import os
import signal
import subprocess
import sys

import anyio
import httpx
import pytest
from rich.console import Console

from agent_rl.cli import main
from agent_rl.errors import ConfigError, ToolError, ToolFailure, UserError
from agent_rl.web import listen, serving
from agent_rl_tools.retrieval import RetrievalServer, build_index
from agent_rl_tools.retrieval.command import IndexConfig, RetrieverConfig, index, serve_retriever
from agent_rl_tools.retrieval.server import retrieval_app
from agent_rl_tools.search import Passage

pytestmark = pytest.mark.anyio
FOUND = [Passage("7", 'the "text"\nof two lines', "Title", 2.5), Passage("8", "more", "", 1.0)]

# As the client of Search-R1 (search_r1/llm_agent/generation.py) sends it, and its server answers it.
SEARCH_R1_REQUEST = {"queries": ["What is the capital of France?"], "topk": 2, "return_scores": True}
SEARCH_R1_ANSWER = {
    "result": [
        [
            {"document": {"id": "1046", "contents": '"Paris"\nParis is the capital of France.'}, "score": 0.86},
            {"document": {"id": "77", "contents": '"France"\nFrance is a country.'}, "score": 0.81},
        ]
    ]
}


class Fixed:
    now = most = 0

    async def search(self, query, count):
        if not query:
            raise ToolError("empty")
        if query == "broken":
            raise ToolFailure("the index is gone")
        self.now += 1
        Fixed.most = max(self.most, self.now)
        await anyio.sleep(0.01)
        self.now -= 1
        return FOUND[:count]


@pytest.fixture
async def address():
    listener = listen("127.0.0.1", 0)
    async with serving(retrieval_app(Fixed()), listener):
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/retrieve"


async def post(address, **content):
    async with httpx.AsyncClient() as client:
        return await client.post(address, **content)


async def test_our_client_asks_our_server(address):
    async with RetrievalServer(address) as client:
        assert await client.search("anything", 5) == FOUND
        assert await client.search("anything", 1) == FOUND[:1]
        with pytest.raises(ToolFailure, match="failed"):
            await client.search("broken", 1)


async def test_requests_of_search_r1_are_answered_in_its_shape(address):
    answer = (await post(address, json=SEARCH_R1_REQUEST)).json()
    [[first, second]] = answer["result"]
    [[expected, _]] = SEARCH_R1_ANSWER["result"]
    assert answer.keys() == SEARCH_R1_ANSWER.keys()
    assert first.keys() == expected.keys()
    assert first["document"].keys() == expected["document"].keys()
    assert first == {"document": {"id": "7", "contents": '"Title"\nthe "text"\nof two lines'}, "score": 2.5}
    without = (await post(address, json={"queries": ["x", "y"]})).json()["result"]
    assert without == [[first["document"], second["document"]]] * 2


async def test_answers_of_search_r1_are_understood():
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=SEARCH_R1_ANSWER))
    async with RetrievalServer("http://there/retrieve") as client:
        client._client = httpx.AsyncClient(transport=transport)
        assert await client.search("x", 2) == [
            Passage("1046", "Paris is the capital of France.", "Paris", 0.86),
            Passage("77", "France is a country.", "France", 0.81),
        ]


async def test_a_batch_runs_at_once_and_one_empty_query_does_not_spoil_it(address):
    answer = await post(address, json={"queries": ["x"] * 200 + [""], "topk": 1, "return_scores": True})
    assert Fixed.most > 100
    assert [len(found) for found in answer.json()["result"]] == [1] * 200 + [0]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"queries": "x"}', b'{"queries": ["x"], "topk": 0}', b'{"queries": [1]}', b"\xff"]
)
async def test_a_malformed_request_is_refused_with_the_reason(address, body):
    answer = await post(address, content=body)
    assert answer.status_code == 422
    assert answer.json()["detail"]


async def test_a_failure_of_the_index_is_a_500(address):
    answer = await post(address, json={"queries": ["x", "broken"]})
    assert (answer.status_code, answer.json()) == (500, {"detail": "the index is gone"})


# --- commands -------------------------------------------------------------------------------------------------------


def corpus(folder, rows):
    path = folder / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_index_builds_and_says_how_many(tmp_path, capsys):
    path = corpus(tmp_path, [{"id": i, "contents": f'"Title {i}"\ntext {i}'} for i in range(3)])
    assert main(["index", str(path), "--output", str(tmp_path / "out")]) == 0
    assert "3 passages" in capsys.readouterr().err
    assert main(["index", str(path), "--output", str(tmp_path / "out")]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["index", str(path), "--output", str(tmp_path / "new"), "--kind", "dense"]) == 2
    assert "give --model" in capsys.readouterr().err


def test_a_malformed_corpus_is_one_sentence(tmp_path):
    path = corpus(tmp_path, [{"id": 1, "text": "x"}, {"id": 2, "txt": "x"}])
    with pytest.raises(UserError, match=r"corpus.jsonl, line 2: there is no field 'text'"):
        index(IndexConfig(corpus=path, output=tmp_path / "out"), Console(quiet=True))


def test_beyond_this_machine_only_with_a_token(tmp_path, monkeypatch):
    monkeypatch.delenv("AGENT_RL_SERVE_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="set a token"):
        serve_retriever(RetrieverConfig(index=tmp_path, host="0.0.0.0"), print)
    with pytest.raises(UserError, match="There is no index"):
        serve_retriever(RetrieverConfig(index=tmp_path, port=0), print)


@pytest.mark.slow
async def test_the_command_serves_until_it_is_told_to_stop(tmp_path):
    build_index(tmp_path / "i", [Passage("1", "Horses eat hay.", "Horses")])
    arguments = ["serve", "retriever", "--index", str(tmp_path / "i"), "--port", "0"]
    environment = {**os.environ, "AGENT_RL_SERVE_TOKEN": "secret"}
    with subprocess.Popen(  # noqa: ASYNC220  # started once, and its first line is waited for
        [sys.executable, "-m", "agent_rl.cli", *arguments], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stderr is not None
            said = process.stderr.readline()
            assert said.startswith("Serving 1 passages at http://127.0.0.1:")
            url = said.split()[-1]
            async with RetrievalServer(url, token="secret") as client:
                assert [passage.id for passage in await client.search("hay", 3)] == ["1"]
            async with RetrievalServer(url) as client:
                with pytest.raises(ToolFailure, match="401"):
                    await client.search("hay", 3)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
