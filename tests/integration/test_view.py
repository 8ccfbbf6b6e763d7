"""The viewer in a real Chromium, served and from disk: it shows what was recorded, and nothing recorded can act in it.

Screenshots are kept in `test-artifacts/view/`.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from agent_rl.store import schema
from agent_rl.store.lock import owned
from agent_rl.store.opening import create_journal, open_journal
from agent_rl.testing.episodes import Played, make_trajectory
from agent_rl.types import Failure, FinishReason, Group, Message, Owner, Task, ToolCall, ToolResult, Trajectory, Turn

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")

ROOT = Path(__file__).parents[2]
VIEW = [sys.executable, "-m", "agent_rl.cli", "view"]
SHOTS = ROOT / "test-artifacts" / "view"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium is not installed: apt install chromium-headless-shell"
)

TRAIN = Path(__file__).with_name("train_parity.py")
STEPS = 4
# What has `content-visibility: auto` has no text before the first frame that it stands in.
PAINTED = "new Promise((painted) => requestAnimationFrame(() => requestAnimationFrame(painted)))"
LONG = "0123456789abcdef\n" * 300_000  # 5.1 MB
ATTACKS = (
    "<script>console.log('ran')</script>",
    "<img src=x onerror=console.log(1)>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "</script><script>alert(1)</script>\u2028",
    "\x1b[31mred\x1b[0m\x1b]0;title\x07",
    "\u202egnp.exe\u2066\u200b\ufeff",
    "\x00\x7f\x85",
    "\ud800",
    "{{constructor.constructor('alert(1)')()}}",
)


# --- runs -----------------------------------------------------------------------------------------------------------


def train(folder: Path) -> None:
    """A real run: a few steps of a tiny model, in a process of its own as Playwright has this one's event loop."""
    subprocess.run([sys.executable, str(TRAIN), str(folder), str(STEPS)], cwd=ROOT, check=True, timeout=240)
    config = {"steps": STEPS, "groups_per_batch": 2, "group_size": 4}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "defaults.json").write_text(json.dumps({**config, "group_size": 8}))


def write_hostile(folder: Path) -> None:
    """Group 0: attacks wherever there is text. Group 1: 5 MB in one message. Group 2: 10,000 messages."""
    with create_journal(folder) as journal:
        attack = "\n".join(ATTACKS)
        task = Task(attack[:200], (Message("user", attack),), {attack: attack}, ATTACKS[1], ATTACKS)
        members = (hostile(task, 0, 0, ATTACKS), hostile(task, 0, 1, ATTACKS[1:]))
        journal.append_group(Group(0, task, members))
        long = Task("long", (Message("user", LONG),), {"answer": LONG})
        journal.append_group(Group(1, long, (hostile(long, 1, 0, [LONG]),)))
        many = Task("many", (Message("user", "Go on."),))
        journal.append_group(Group(2, many, (hostile(many, 2, 0, [f"message {i}" for i in range(5000)]),)))


def hostile(task: Task, group: int, member: int, texts: Sequence[str]) -> Trajectory:
    played = make_trajectory([Played(fork=i == 1) for i in range(len(texts))], task=task.id)
    turns = tuple(
        replace(hostile_turn(i, text), segment=turn.segment, start=turn.start, end=turn.end)
        for i, (turn, text) in enumerate(zip(played.turns, texts, strict=True))
    )
    metrics = {ATTACKS[0]: 1.0}
    place = {"task": task, "group_index": group, "member": member, "prompt": task.prompt}
    earlier = (Failure("crash", Owner.SANDBOX, texts[0][:99], texts[0][:999]),)
    return replace(played, turns=turns, metrics=metrics, earlier_failures=earlier, **place)


def hostile_turn(index: int, text: str) -> Turn:
    call = ToolCall(text[:99], text[:99], {text[:99]: text, "nested": {"list": [text[:99]]}})
    return Turn(
        index=index,
        segment=0,
        start=0,
        end=0,
        action=Message("assistant", text, (call,), reasoning_content=text[:999]),
        observations=(Message("tool", text, tool_call_id=text[:99]),),
        reward=0.0,
        reward_terms={text[:99]: 0.0},
        tool_results=(ToolResult(call, text[:99], text[:99], 0.1),),
        finish_reason=FinishReason.STOP,
        tag=text[:99],
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("view") / "runs"
    train(folder / "parity")
    write_hostile(folder / "hostile")
    return folder


@pytest.fixture(scope="module")
def trained(runs) -> str:
    """The place of an episode that was trained on: one of a group without signal is not."""
    with open_journal(runs / "parity") as journal:
        columns = schema.trained_tokens.c
        group, member = journal.rows(select(columns.group_index, columns.member).limit(1))[0]
        return f"{group}/{member}"


# --- the page, from two sources -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(runs):
    """The address of `agent-rl view`, with its token."""
    command = [*VIEW, str(runs), "--no-browser"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        # A shell's background job ignores SIGINT, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout is not None
        yield re.search(r"http://\S+", process.stdout.readline())[0]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130, "Ctrl-C ends it"


@pytest.fixture(scope="module")
def static(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "out"
    subprocess.run([*VIEW, str(runs), "--static", str(out)], cwd=ROOT, check=True, timeout=240)
    return (out / "index.html").as_uri()


@pytest.fixture(scope="module")
def chromium():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


def wait_until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


class Viewer:
    """A tab that fails the test when the page says anything on the console, opens a dialog or asks another server."""

    def __init__(self, browser, url: str, width: int = 1600, theme: str = "light") -> None:
        self.base = url.partition("?")[0]
        self._context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
        self.page = self._context.new_page()
        self.page.set_default_timeout(20_000)
        self.said: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.said.append(f"dialog {dialog.message}"), dialog.dismiss()))
        self.page.on("request", lambda request: request.url.startswith(self._origin) or self.said.append(request.url))
        self._origin = self.base.rpartition("/")[0]
        self.page.goto(url)
        self._ready()

    def open(self, route: str) -> None:
        self.page.goto(f"{self.base}#/{route}")
        self._ready()

    def _ready(self) -> None:
        self.until("document.querySelector('#page').dataset.shows === location.hash")
        self.page.evaluate(PAINTED)
        assert self.page.locator("#page [role=alert]").count() == 0, self.page.inner_text("#page")

    def press(self, keys: str) -> None:
        for key in keys.split():
            before = self.route()
            self.page.keyboard.press(key)
            if key in ("Enter", "Escape", "]", "[", "o", "e", "g", "l"):
                wait_until(lambda before=before: self.route() != before, f"{key} leads away from {before}")
                self._ready()

    def until(self, expression: str) -> None:
        """Wait for an expression to hold. Playwright's own way would need `unsafe-eval`, which the page forbids."""
        wait_until(lambda: self.page.evaluate(expression), expression)

    def route(self) -> str:
        return self.page.evaluate("decodeURIComponent(location.hash)")

    def overflow(self) -> int:
        return self.page.evaluate("document.documentElement.scrollWidth - innerWidth")

    def close(self) -> None:
        self._context.close()
        assert self.said == []


@pytest.fixture(params=["served", "static"])
def address(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def viewer(chromium, address):
    opened = Viewer(chromium, address)
    yield opened
    opened.close()


@pytest.fixture
def live(chromium, served):
    opened = Viewer(chromium, served)
    yield opened
    opened.close()


PAGES = {
    "runs": "",
    "overview": "r/parity",
    "compared": "r/parity?with=hostile",
    "episodes": "r/parity/episodes?sort=-reward",
    "episode": "r/parity/e/1/2",
    "tokens": "r/parity/e/1/2?tab=tokens&colour=trainer",
    "pair": "r/parity/e/1/2/vs/parity/1/3",
    "timeline": "r/parity/timeline?count=6",
    "hostile": "r/hostile/e/0/0",
}


@pytest.mark.parametrize("width", [400, 1600])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_fits_and_is_kept_as_a_picture(chromium, address, width, theme):
    viewer = Viewer(chromium, address, width, theme)
    source = "static" if address.startswith("file:") else "served"
    SHOTS.mkdir(parents=True, exist_ok=True)
    for name, route in PAGES.items():
        viewer.open(route)
        assert viewer.overflow() <= 0, f"{name} scrolls sideways at {width} px"
        viewer.page.screenshot(path=SHOTS / f"{name}-{width}-{theme}-{source}.png")
    viewer.close()


# --- what it shows --------------------------------------------------------------------------------------------------


def test_the_overview_shows_what_was_logged(viewer):
    viewer.open("r/parity")
    text = viewer.page.inner_text("#page")
    assert f"{STEPS} / {STEPS}" in text
    assert "rollout/reward" in text
    assert f"step {STEPS}" in text, "the checkpoint"
    viewer.page.get_by_role("searchbox", name="Find a metric").fill("grad_norm")
    assert viewer.page.locator("figure.chart").count() == 1
    viewer.page.locator(".plot").focus()
    viewer.press("Home")
    assert viewer.page.locator(".readout").inner_text().endswith("@1")


def test_settings_say_what_differs(live):
    live.open("r/parity")
    live.page.get_by_role("heading", name="Settings that differ").wait_for()
    row = live.page.locator(".config tr", has_text="group_size")
    row.wait_for()
    assert [cell.strip() for cell in row.inner_text().split("\t")] == ["group_size", "4", "was 8"]


def test_filters_live_in_the_address_and_back_undoes_them(viewer):
    viewer.open("r/parity/episodes")
    page = viewer.page
    assert page.inner_text("#total") == f"{8 * STEPS} episodes"
    page.get_by_role("searchbox").fill("parity-1")
    viewer.until("location.hash.includes('task=parity-1')")
    viewer.until("document.querySelector('#total')?.innerText !== '32 episodes'")
    assert page.evaluate("document.activeElement.name") == "task", "the reader types on"
    assert all("parity-1" in row for row in page.locator("tbody tr").all_inner_texts())
    page.go_back()
    viewer.until("document.querySelector('#total')?.innerText === '32 episodes'")
    page.locator(".histogram button:enabled").first.click()
    viewer.until("location.hash.includes('reward_max')")
    page.get_by_role("button", name="reward", exact=True).click()
    viewer.until("location.hash.includes('sort=-reward')")


def test_both_sources_give_the_same_answers(chromium, served, static):
    asked = [
        {},
        {"reward_min": 1},
        {"sort": "-tokens", "limit": 7, "offset": 3},
        {"sort": "step"},
        {"task": "PARITY-2"},
        {"task": "say 3", "turns_min": 2},
        {"outcome": "success", "sort": "-reward"},
        {"stop": "terminated", "step_max": 2},
        {"owner": "tool"},
        {"reward_min": 0.5, "reward_max": 1.5, "duration_min": 0},
    ]
    script = """async (asked) => [
        await Promise.all(asked.map((query) => view.source.episodes("parity", query))),
        await view.source.choices("parity"), await view.source.metrics("parity"),
        await view.source.episode("parity", 1, 2), await view.source.tokens("parity", 1, 2),
        await view.source.timeline("parity", 1, 2), await view.source.partners("parity-1"),
    ]"""
    answers = []
    for url in (served, static):
        viewer = Viewer(chromium, url)
        answers.append(viewer.page.evaluate(script, asked))
        viewer.close()
    live, files = answers
    for query, a, b in zip(asked, live[0], files[0], strict=True):
        shown = [[{name: row[name] for name in live[0][0]["rows"][0]} for row in one["rows"]] for one in (a, b)]
        assert shown[0] == shown[1], query
        assert {**a, "rows": 0} == {**b, "rows": 0}, query
    for a, b in zip(live[1:5], files[1:5], strict=True):
        assert a == b
    assert live[5]["episodes"] == files[5]["episodes"]
    ids = [[(one["run"], one["group"], one["member"]) for one in answer[6]["episodes"]] for answer in answers]
    assert ids[0] == ids[1]


def test_the_token_overlay_has_both_sides_of_the_ratio(viewer, trained):
    viewer.open(f"r/parity/e/{trained}?tab=tokens&colour=ratio")
    page = viewer.page
    assert not page.locator("select[aria-label='Colour by'] option:disabled").count(), "all quantities were recorded"
    page.locator(".piece.sampled [data-i]").first.hover()
    card = page.inner_text(".token-card")
    for name in ("id", "sampled log-prob", "trainer log-prob", "advantage", "entropy", "weight version"):
        assert f"{name}\n" in card
    assert "⟨" not in card
    page.get_by_label("Colour by").select_option("version")
    assert "colour=version" in viewer.route()
    assert page.locator(".token.kind").count() > 0
    page.locator(".tokens").focus()
    viewer.press("ArrowRight ArrowRight")
    assert page.locator(".here").get_attribute("data-i") is not None


def test_forks_are_tabs(viewer):
    viewer.open("r/hostile/e/0/0?tab=tokens")
    viewer.page.get_by_role("button", name="segment 2").click()
    viewer.page.get_by_text("Shares its first").wait_for()
    assert "segment=1" in viewer.route()


def test_side_by_side_marks_the_first_difference(viewer):
    viewer.open("r/hostile/e/0/0/vs/hostile/0/1")
    assert viewer.page.inner_text(".difference") == "First difference: turn 1"
    viewer.open("r/hostile/e/0/0/vs/hostile/0/0")
    assert viewer.page.locator(".difference").count() == 0


def test_the_timeline_can_be_read_and_opened(viewer):
    viewer.open("r/parity/timeline?count=2")
    canvas = viewer.page.locator("canvas")
    drawn = "canvas => new Set(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data).size"
    assert canvas.evaluate(drawn) > 10, "something is drawn"
    canvas.focus()
    viewer.press("ArrowDown ArrowDown +")
    assert "generation" in viewer.page.inner_text(".detail")
    viewer.press("Enter")
    assert viewer.route() == "#/r/parity/e/0/0"


def test_a_run_that_goes_on_grows_on_the_page(live, runs):
    folder = runs / "growing"
    folder.mkdir()
    line = {"step": 1, "time_s": time.time(), "rollout/reward": 0.25}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    with owned(folder):
        live.open("r/growing")
        assert live.page.locator(".readout").first.inner_text() == "0.25"
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line | {"step": 2, "rollout/reward": 0.75}) + "\n")
        live.until("document.querySelector('.readout')?.innerText === '0.75'")
    shutil.rmtree(folder)


# --- keyboard -------------------------------------------------------------------------------------------------------


def test_everything_is_within_reach_of_the_keyboard(viewer):
    page = viewer.page
    page.get_by_role("link", name="parity").wait_for()
    viewer.press("/")
    page.keyboard.type("parity")
    page.keyboard.press("Escape")  # out of the field
    viewer.press("j Enter")
    assert viewer.route() == "#/r/parity"
    viewer.press("e j j Enter")
    assert viewer.route() == "#/r/parity/e/0/1"
    viewer.press("]")
    assert viewer.route() == "#/r/parity/e/0/2"
    viewer.press("[")
    viewer.press("j j")
    last = min(2, page.locator(".turn").count()) - 1
    assert viewer.route() == f"#/r/parity/e/0/1?turn={last}"
    assert page.evaluate("document.activeElement.dataset.turn") == str(last)
    viewer.press("o")
    assert "tab=tokens" in viewer.route()
    page.keyboard.press("?")
    assert page.locator("dialog[open]").count() == 1
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    theme = page.evaluate("view.theme.current()")
    viewer.press("t")
    assert page.evaluate("view.theme.current()") != theme
    viewer.press("Escape")
    assert viewer.route() == "#/r/parity/episodes"
    viewer.press("l Escape Escape")
    assert viewer.route() == "#/"


# --- text that nobody vouches for -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "route", ["r/hostile", "r/hostile/episodes", "r/hostile/e/0/0", "r/hostile/e/0/0?tab=tokens", "r/hostile/timeline"]
)
def test_hostile_text_neither_acts_nor_hides(viewer, route):
    viewer.open(route)
    page = viewer.page
    for summary in page.locator("#page summary").all():
        summary.click()
    assert page.locator("#page").locator("script, img, iframe, svg[onload], [onmouseover], [onerror]").count() == 0
    invisible = r"[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]"
    assert page.evaluate(f"!/{invisible}/u.test(document.querySelector('#page').textContent)")
    if route.startswith("r/hostile/e/0/0") and "tab" not in route:
        text = page.inner_text("#page")
        assert "<script>console.log('ran')</script>" in text, "shown as it is"
        for mark in ("␛[31m", "␀", "⟨RLO⟩", "⟨ZWSP⟩", "⟨BOM⟩", "⟨D800⟩", "⟨LS⟩"):
            assert mark in text
        assert page.locator("bdi").count() > 20


def test_a_hostile_address_is_only_an_unknown_page(viewer):
    for attack in (
        "r/<img src=x onerror=alert(1)>",
        "r/%E0%A4",
        "r/parity/e/0/0/vs/</script>/0/0",
        "javascript:alert(1)",
    ):
        viewer.page.goto(f"{viewer.base}#/{attack}")
        viewer.page.locator("#page [role=alert]").wait_for()
        assert viewer.page.locator("#page img").count() == 0
    viewer.said[:] = [line for line in viewer.said if "404" not in line and "400" not in line]


def test_failures_of_earlier_attempts_are_told(viewer):
    viewer.open("r/hostile/e/0/0")
    assert "Attempt 1: sandbox" in " ".join(viewer.page.inner_text(".columns").split())


def test_five_megabytes_are_cut_and_shown_when_asked_for(viewer):
    viewer.open("r/hostile/e/1/0")
    page = viewer.page
    length = "document.querySelector('.message.user .text').textContent.length"
    assert page.evaluate(length) < 50_000
    page.locator(".message.user .more").click()
    viewer.until(f"{length} >= {len(LONG)}")
    page.get_by_role("link", name="Episodes").click()
    viewer.until("document.querySelector('#total')?.innerText === '4 episodes'")


def test_ten_thousand_messages_come_as_they_are_needed(viewer):
    viewer.open("r/hostile/e/2/0")
    assert 10 < viewer.page.locator(".turn").count() < 1000
    viewer.open("r/hostile/e/2/0?turn=4990")
    viewer.until("document.activeElement?.dataset.turn === '4990'")
    assert viewer.page.locator("[data-turn='4990']").is_visible()
