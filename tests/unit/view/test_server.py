import json
from dataclasses import replace

import httpx
import pytest

from agent_rl.store.opening import open_journal
from agent_rl.types import Group, Task
from agent_rl.view.answers import to_json
from agent_rl.view.server import make_app

from .conftest import task, trajectory  # isort: skip

TOKEN = "secret-token"
BASE = "http://127.0.0.1:8000"


@pytest.fixture
async def client(library):
    app = make_app(library, TOKEN)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE) as client:
        yield client


@pytest.fixture
async def reader(client):
    """A client that came with the token."""
    assert (await client.get("/", params={"token": TOKEN})).status_code == 200
    return client


pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/api/runs", "/api/runs/demo/episodes", "/nowhere"])
async def test_nobody_gets_in_without_the_token(client, path):
    for given in ({}, {"token": ""}, {"token": "wrong"}, {"token": "gehéim"}):
        answer = await client.get(path, params=given)
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers
        assert "demo" not in answer.text
    client.cookies.set("agent_rl_view_00000000", TOKEN)
    assert (await client.get(path)).status_code == 403, "the cookie's name is the server's own"


async def test_the_token_becomes_a_cookie_that_scripts_and_other_sites_cannot_use(client):
    answer = await client.get("/", params={"token": TOKEN})
    assert answer.status_code == 200
    cookie = answer.headers["set-cookie"]
    assert cookie.endswith("; HttpOnly; SameSite=Strict; Path=/")
    assert (await client.get("/api/runs")).status_code == 200
    assert "set-cookie" not in (await client.get("/api/runs")).headers


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8000", "", "0.0.0.0"])
async def test_a_name_that_is_not_this_machine_is_refused(reader, host):
    answer = await reader.get("/api/runs", headers={"Host": host}, params={"token": TOKEN})
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:9", "[::1]:8000"])
async def test_this_machine_has_several_names(reader, host):
    assert (await reader.get("/api/runs", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/api/runs", "/api/runs/nowhere/overview", "/nowhere"])
async def test_every_answer_has_the_headers(reader, path):
    headers = (await reader.get(path)).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"


async def test_the_page_names_only_files_that_are_there(reader):
    page = (await reader.get("/")).text
    names = [part.split('"')[0] for part in page.split('"static/')[1:]]
    assert len(names) > 20
    for name in names:
        assert (await reader.get(f"/static/{name}")).status_code == 200


async def test_files_outside_are_out_of_reach(reader):
    for path in ("/static/../server.py", "/static/%2e%2e/server.py", "/static//etc/passwd"):
        assert (await reader.get(path)).status_code == 404


async def test_answers(reader):
    [run] = (await reader.get("/api/runs")).json()["runs"]
    assert (run["id"], run["episodes"]) == ("demo", 12)
    assert (await reader.get("/api/runs/demo/overview")).json()["step"] == 2
    assert (await reader.get("/api/runs/demo/metrics", params={"after": 1})).json()["steps"] == [2]
    page = (await reader.get("/api/runs/demo/episodes", params={"reward_min": "0.5", "limit": 2, "task": ""})).json()
    assert (page["total"], len(page["rows"])) == (6, 2)
    assert (await reader.get("/api/runs/demo/episodes/1/3")).json()["failure"]["owner"] == "sandbox"
    assert len((await reader.get("/api/runs/demo/episodes/1/1/tokens")).json()["segments"]) == 2
    assert len((await reader.get("/api/runs/demo/timeline", params={"count": 2})).json()["episodes"]) == 8
    assert len((await reader.get("/api/partners", params={"task": "task-1"})).json()["episodes"]) == 4
    assert "easy" in (await reader.get("/api/runs/demo/choices")).json()["tag"]


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/api/runs/dem/overview", 404, "demo"),
        ("/api/runs/demo/episodes/9/0", 400, "no episode 0 of group 9"),
        ("/api/runs/demo/episodes?reward_min=much", 400, "reward_min"),
        ("/api/runs/demo/episodes?sort=blob", 400, "blob"),
        ("/api/runs/demo/timeline?first=x", 400, "first must be a whole number"),
        ("/api/nothing", 404, "Not Found"),
    ],
)
async def test_a_mistake_is_one_sentence(reader, path, status, said):
    answer = await reader.get(path)
    assert answer.status_code == status
    assert said in answer.json()["error"]


async def test_only_reading_is_possible(reader):
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert (await reader.request(method, "/api/runs")).status_code == 405


async def test_text_that_is_no_unicode_arrives(run_dir, reader):
    odd = Task("\ud800<script>", task(0).prompt, {"x": float("inf")}, "\u202e", ("\0",))
    with open_journal(run_dir) as writer:
        writer.append_group(Group(8, odd, (replace(trajectory(task(0), 8, 0), task=odd),)))
    answer = await reader.get("/api/runs/demo/episodes/8/0")
    assert answer.json()["task"] == {
        "id": "\ud800<script>",
        "data": {"x": "Infinity"},
        "environment": "\u202e",
        "tags": ["\0"],
    }
    assert answer.content.isascii()


def test_numbers_that_json_does_not_know_are_words():
    assert json.loads(to_json({"a": [float("nan"), 1.5]})) == {"a": ["NaN", 1.5]}
