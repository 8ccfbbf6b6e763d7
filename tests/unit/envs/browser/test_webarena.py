"""Rows in WebArena's format: reading, checks, and whole episodes on a real site."""

import http.server
import json
import threading

import pytest

from agent_rl import Message
from agent_rl.errors import UserError
from agent_rl.rewards.judge import JudgeConfig
from agent_rl.rows import Row, RowsConfig
from agent_rl_envs.browser import BrowserEnvConfig, BrowserEnvironment
from agent_rl_envs.browser.acting import act
from agent_rl_envs.browser.webarena.checks import clean, content_match, exact_match, must_include, url_match
from agent_rl_envs.browser.webarena.rows import read_task
from agent_rl_envs.browser.webarena.source import WebArenaConfig


def row(**changes):
    """As in WebArena's test.raw.json."""
    values = {
        "sites": ["shopping"],
        "task_id": 7,
        "require_login": False,
        "storage_state": "./.auth/shopping_state.json",
        "start_url": "__SHOPPING__",
        "intent": "How many hats are there?",
        "eval": {
            "eval_types": ["string_match"],
            "reference_answers": {"must_include": ["2"]},
            "reference_url": "",
            "program_html": None,
            "string_note": "",
            "reference_answer_raw_annotation": "2",
        },
        **changes,
    }
    return Row(values, "test.raw.json, item 1")


def checked(**check):
    return {"eval_types": list(check.pop("types")), "reference_answers": None, "reference_url": "", **check}


# --- checks ---------------------------------------------------------------------------------------------------------


def test_answers():
    assert clean(" 'Red Hat' ") == "red hat"
    assert exact_match('"YES"', "yes")
    assert not exact_match("yes!", "yes")
    assert must_include("Red and blue", ["red", "BLUE"])
    assert not must_include("Red and blue", ["red", "green"])
    assert must_include("there are 1 of them", ["1"])
    assert not must_include("there are 10 of them", ["1"])  # a single character is a word of its own
    assert must_include("there are 10 of them", ["1", "0"])


def test_addresses():
    reference = "http://shop.test/hats |OR| http://shop.test/caps?size=L"
    assert url_match("http://shop.test/hats/?size=L&x=1", reference)
    assert not url_match("http://shop.test/hats", reference)  # parameters of all references count
    assert url_match("http://shop.test/hats/red", "http://shop.test/hats/")
    assert not url_match("http://shop.test/", "http://shop.test/hats")


def test_contents():
    assert content_match("Ann &amp; Bob", {"exact_match": "ann & bob"})
    assert content_match("<p>Two hats</p>", {"must_include": ["three |OR| two", "hats"]})
    assert not content_match("<p>Two hats</p>", {"must_include": ["three |OR| two", "caps"]})
    with pytest.raises(ValueError, match="exact_match or must_include"):
        content_match("x", {"fuzzy": "x"})


# --- rows -----------------------------------------------------------------------------------------------------------

SITES = {"shopping": "http://127.0.0.1:7770/", "shopping_admin": "http://127.0.0.1:7780/admin"}


def test_addresses_are_filled_in():
    target = {"url": "__SHOPPING__/cart", "locator": "", "required_contents": {"must_include": ["__SHOPPING__"]}}
    task = read_task(row(eval=checked(types=["program_html"], program_html=[target])), SITES)
    assert task["url"] == "http://127.0.0.1:7770"
    assert task["eval"]["program_html"][0]["url"] == "http://127.0.0.1:7770/cart"
    assert task["sites"] == ["http://127.0.0.1:7770"]
    assert task["storage_state"] == ""
    assert read_task(row(start_url="__SHOPPING_ADMIN__/x"), SITES)["url"] == "http://127.0.0.1:7780/admin/x"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"start_url": "__GITLAB__"}, "Unknown site 'gitlab'"),
        ({"eval": {"eval_types": []}}, "eval_types is empty"),
        ({"eval": {"eval_types": ["page_image"]}}, "no kind of check 'page_image'"),
        ({"eval": {"eval_types": ["string_match"]}}, "needs reference_answers"),
        ({"eval": {"eval_types": ["string_match"], "reference_answers": {"near": "x"}}}, "no match 'near'"),
        ({"eval": {"eval_types": ["url_match"]}}, "needs reference_url"),
        ({"eval": {"eval_types": ["url_match"], "reference_url": "x", "url_note": "EXACT"}}, "GOLD in PRED"),
        ({"eval": {"eval_types": ["program_html"]}}, "program_html is empty"),
        ({"eval": {"eval_types": ["program_html"], "program_html": [{"url": "last"}]}}, "needs url and required"),
        ({"intent": 3}, "field 'intent' is wrong"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(changes, said):
    with pytest.raises(UserError, match=said) as caught:
        read_task(row(**changes), SITES)
    assert "test.raw.json, item 1" in str(caught.value)


def test_rows_with_programs_for_webarenas_own_sites_are_left_out():
    target = {"url": "func:shopping_get_latest_order_url()", "required_contents": {"must_include": ["x"]}}
    assert read_task(row(eval=checked(types=["program_html"], program_html=[target])), SITES) is None


# --- episodes -------------------------------------------------------------------------------------------------------


@pytest.fixture
def shop():
    """A site with a cart on the server's side."""
    cart = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/add":
                cart.append("Red hat")
            pages = {"/cart": f"<title>Cart</title><p id=cart>{', '.join(cart)}</p>"}
            text = pages.get(self.path, "<title>Shop</title><p>Two hats</p><a href=/add>Add</a> <a href=/cart>Cart</a>")
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def options(shop, tmp_path):
    def make(judge=None, **changes):
        path = tmp_path / "test.raw.json"
        path.write_text(json.dumps([dict(row(**changes).values)]))
        rows = RowsConfig(source=str(path), test_share=0.0)
        return BrowserEnvConfig(
            source="webarena", webarena=WebArenaConfig(rows=rows, sites={"shopping": shop}, judge=judge)
        )

    return make


@pytest.mark.anyio
async def test_answers_are_judged_at_the_end(options, opened):
    config = options()
    right, [_, user] = await opened(config)
    assert user.content.startswith("How many hats are there?\n\n")
    assert "Two hats" in user.content
    assert (await right.step(act("snapshot"))).terminated is False
    step = await right.step(act("stop", answer="There are 2."))
    assert (step.terminated, step.reward) == (True, 1.0)
    wrong, _ = await opened(config)
    assert (await wrong.step(Message("assistant", "22"))).reward == 0.0
    empty, _ = await opened(config)
    assert (await empty.step(act("stop"))).reward == 0.0


@pytest.mark.anyio
async def test_states_are_judged_on_the_site(options, opened):
    targets = [
        {
            "url": "__SHOPPING__/cart",
            "locator": "document.querySelector('#cart').outerText",
            "required_contents": {"exact_match": "Red hat"},
        },
        {"url": "last", "locator": "", "required_contents": {"must_include": ["Cart"]}},
    ]
    check = checked(types=["program_html", "url_match"], program_html=targets, reference_url="__SHOPPING__/add")
    config = options(eval=check)
    idle, _ = await opened(config)
    assert (await idle.step(Message("assistant", "done"))).reward == 0.0
    done, [_, user] = await opened(config)
    link = next(line for line in user.content.splitlines() if '"Add"' in line)
    await done.step(act("click", ref=link.split("]")[0].strip(" [")))
    assert (await done.step(Message("assistant", "done"))).reward == 1.0


@pytest.mark.anyio
async def test_an_element_that_is_not_there_is_not_found(options, opened):
    target = {"url": "last", "locator": "document.querySelector('#no').x", "required_contents": {"must_include": ["x"]}}
    config = options(eval=checked(types=["program_html"], program_html=[target]))
    environment, _ = await opened(config)
    assert (await environment.step(Message("assistant", "done"))).reward == 0.0


def test_fuzzy_answers_and_logins_need_their_options(options):
    fuzzy = checked(types=["string_match"])
    fuzzy["reference_answers"] = {"fuzzy_match": ["two"]}
    with pytest.raises(UserError, match=r"fuzzy_match needs a judge: give webarena\.judge"):
        BrowserEnvironment.tasks("train", 1, 0, options(eval=fuzzy))
    judge = JudgeConfig(model="judge")
    assert len(BrowserEnvironment.tasks("train", 1, 0, options(eval=fuzzy, judge=judge))) == 1
    with pytest.raises(UserError, match="needs rows"):
        BrowserEnvironment.tasks("train", 1, 0, BrowserEnvConfig(source="webarena"))


@pytest.mark.anyio
async def test_a_login_comes_from_its_folder(options, opened, tmp_path):
    config = options(require_login=True)
    with pytest.raises(UserError, match=r"give webarena\.logins"):
        await opened(config)
    webarena = config.webarena.model_copy(update={"logins": tmp_path})
    config = config.model_copy(update={"webarena": webarena})
    with pytest.raises(UserError, match=r"There is no .*shopping_state\.json"):
        await opened(config)
    cookie = {"name": "who", "value": "ann", "domain": "127.0.0.1", "path": "/", "expires": -1, "httpOnly": False}
    state = {"cookies": [{**cookie, "secure": False, "sameSite": "Lax"}], "origins": []}
    (tmp_path / "shopping_state.json").write_text(json.dumps(state))
    environment, _ = await opened(config)
    assert await environment.toolsets[0].page.evaluate("document.cookie") == "who=ann"
