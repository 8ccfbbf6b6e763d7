import numpy as np

from agent_rl_envs.browser.acting import plausible_texts, random_move
from agent_rl_tools.browser import Node, PageView, render


def view_of(*nodes):
    return PageView("http://shop.test/", "Shop", tuple(nodes), (0, 100, 100, 300))


def node(role, ref="", name="", *, value="", states=(), box=(0, 0, 10, 10), depth=0):
    return Node(depth, ref, role, name, value, states, box)


PAGE = view_of(
    node("text", name="Size"),
    node("textbox", "e1"),
    node("combobox", "e2", value="S"),
    node("option", name="S", depth=1),
    node("option", name="L", depth=1),
    node("button", "e3", "Buy", states=("disabled",)),
    node("link", "e4", "Below", box=(0, 200, 10, 10)),
)


def test_texts_come_from_the_instruction():
    assert plausible_texts('Enter "Ann Lee" and "x1".') == ["Ann Lee", "x1"]
    assert plausible_texts("Select 11/05/2016 as it is") == ["Select", "11/05/2016"]
    assert plausible_texts("a b") == ["text"]


def test_moves_fit_the_elements_in_view():
    rng = np.random.default_rng(0)
    offered = {"browser_click", "browser_type", "browser_select"}
    moves = {str(random_move(PAGE, 'Enter "7"', rng, offered).tool_calls[0]) for _ in range(200)}
    calls = [random_move(PAGE, 'Enter "7"', rng, offered).tool_calls[0] for _ in range(200)]
    assert {call.name for call in calls} == {"browser_type", "browser_select"}
    assert {call.arguments.get("text") for call in calls} == {"7", None}
    assert {call.arguments.get("option") for call in calls} == {"S", "L", None}
    assert len(moves) == 3
    assert random_move(PAGE, "", rng, {"browser_click", "browser_snapshot"}).tool_calls[0].name == "browser_snapshot"
    assert random_move(PAGE, "", rng, set()).tool_calls == ()


def test_a_view_as_text():
    tree = render(PAGE, "tree", viewport_only=True, max_chars=1000)
    assert tree.splitlines() == [
        "Size",
        '[e1] textbox = ""',
        '[e2] combobox = "S"',
        '  option "S"',
        '  option "L"',
        '[e3] button "Buy" (disabled)',
        "[Not shown: 200 pixels below. Scroll to see them.]",
    ]
    elements = render(PAGE, "elements", viewport_only=False, max_chars=1000)
    assert '[e2] combobox = "S" of S | L' in elements
    assert '[e4] link "Below"' in elements
    assert "option" not in elements
    assert render(PAGE, "text", viewport_only=True, max_chars=1000).splitlines()[:2] == ["Size", "Buy"]
    assert "more lines do not fit" in render(PAGE, "tree", viewport_only=True, max_chars=30)
