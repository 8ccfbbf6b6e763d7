"""What a page looks like to a model: rows of roles, names and ids, as text of a limited length. Pure.

An id (`e5`, in a frame `f1e5`) is an element's as long as its document lives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from agent_rl.errors import ToolError

Observation: TypeAlias = Literal["tree", "elements", "text"]
"""`tree`: the accessibility tree. `elements`: a line for each text and each element that can be acted on, and nothing
else. `text`: what can be read, without ids."""

Box: TypeAlias = tuple[int, int, int, int]
"""x, y, width, height in pixels of the viewport."""

_READ = frozenset("text heading img status dialog cell columnheader listitem".split())
_FIELDS = frozenset("textbox searchbox spinbutton slider combobox listbox".split())


@dataclass(frozen=True, slots=True)
class Node:
    """An element, or a run of text (role `text`). `ref` is empty for what cannot be acted on."""

    depth: int
    ref: str
    role: str
    name: str
    value: str
    states: tuple[str, ...]
    box: Box


@dataclass(frozen=True, slots=True)
class PageView:
    """A page as it was looked at. `scroll` is: scrolled to, height and width of the viewport, height of the page."""

    url: str
    title: str
    nodes: tuple[Node, ...]
    scroll: tuple[float, float, float, float]

    def elements(self, *roles: str) -> Iterator[Node]:
        """What can be acted on, of these roles, or of any."""
        return (node for node in self.nodes if node.ref and (not roles or node.role in roles))

    def find(self, role: str, name: str) -> Node | None:
        """The first element of this role and name."""
        return next((node for node in self.elements(role) if node.name == name), None)

    def options(self, ref: str) -> list[str]:
        """What a list offers."""
        at = next((i for i, node in enumerate(self.nodes) if node.ref == ref), len(self.nodes))
        depth, found = self.nodes[at].depth if at < len(self.nodes) else 0, list[str]()
        for node in self.nodes[at + 1 :]:
            if node.depth <= depth or node.role != "option":
                break
            found.append(node.name)
        return found

    def sees(self, node: Node) -> bool:
        """Whether any of it is inside the viewport."""
        x, y, width, height = node.box
        _, inner_height, inner_width, _ = self.scroll
        return x < inner_width and y < inner_height and x + width > 0 and y + height > 0


def read_view(looked: Mapping[str, Any], frames: Sequence[tuple[str, Box, Mapping[str, Any]]] = ()) -> PageView:
    """What `page.js` saw, with the contents of frames after them. A frame comes with its prefix and its place."""
    nodes = list(_nodes(looked["rows"], "", (0, 0, 0, 0)))
    for prefix, place, inner in frames:
        nodes.append(Node(0, "", "iframe", inner["title"] or inner["url"], "", (), place))
        nodes.extend(_nodes(inner["rows"], prefix, place))
    return PageView(looked["url"], looked["title"], tuple(nodes), tuple(looked["scroll"]))


def _nodes(rows: Sequence[Sequence[Any]], prefix: str, place: Box) -> Iterator[Node]:
    for depth, ref, role, name, value, states, (x, y, width, height) in rows:
        box = (x + place[0], y + place[1], width, height)
        yield Node(depth + bool(prefix), f"{prefix}e{ref}" if ref else "", role, name, value, tuple(states), box)


def parse_ref(ref: str) -> tuple[int, int]:
    """Number of the frame (0: the page itself) and of the element. Raises `ToolError`."""
    frame, separator, element = ref.strip(" []").removeprefix("ref=").rpartition("e")
    if separator and element.isdecimal() and (not frame or (frame[0] == "f" and frame[1:].isdecimal())):
        return int(frame[1:] or 0), int(element)
    raise ToolError(f"{ref!r} is no ref: refs are like e5, and stand in square brackets before the elements.")


# --- as text --------------------------------------------------------------------------------------------------------


def render(view: PageView, kind: Observation, *, viewport_only: bool, max_chars: int) -> str:
    """The page as text. What does not fit is left out from the end on, and a last line says how much that is."""
    nodes = _joined([node for node in view.nodes if not viewport_only or view.sees(node)])
    if kind == "tree":
        lines = [_tree_line(node) for node in nodes]
    elif kind == "elements":
        lines = list(_element_lines(nodes))
    else:
        lines = [node.name for node in nodes if node.name and node.role not in ("row", "option", "img")]
    notes = _scroll_notes(view) if viewport_only else []
    return "\n".join([*_fitting(lines, max_chars), *notes])


def _tree_line(node: Node) -> str:
    ref = f"[{node.ref}] " if node.ref else ""
    return f"{'  ' * min(node.depth, 20)}{ref}{_described(node)}"


def _element_lines(nodes: Sequence[Node]) -> Iterator[str]:
    for at, node in enumerate(nodes):
        if node.role == "option" and not node.ref:
            continue
        if node.ref:
            options = [] if node.role not in ("combobox", "listbox") else _options_after(nodes, at)
            yield f"[{node.ref}] {_described(node)}{' of ' + ' | '.join(options) if options else ''}"
        elif node.role in _READ and node.name:
            yield node.name


def _options_after(nodes: Sequence[Node], at: int) -> list[str]:
    found: list[str] = []
    for node in nodes[at + 1 :]:
        if node.role != "option" or node.ref:
            break
        found.append(node.name)
    return found


def _described(node: Node) -> str:
    if node.role == "text":
        return node.name
    name = f' "{node.name}"' if node.name else ""
    value = f' = "{node.value}"' if node.value or (node.role in _FIELDS and node.ref) else ""
    states = f" ({', '.join(node.states)})" if node.states else ""
    return f"{node.role}{name}{value}{states}"


def _joined(nodes: Sequence[Node]) -> list[Node]:
    """Neighbouring runs of text as one."""
    joined: list[Node] = []
    for node in nodes:
        before = joined[-1] if joined else None
        if before is not None and node.role == before.role == "text" and node.depth == before.depth:
            joined[-1] = Node(node.depth, "", "text", f"{before.name} {node.name}", "", (), before.box)
        else:
            joined.append(node)
    return joined


def _fitting(lines: Sequence[str], max_chars: int) -> list[str]:
    total = 0
    for kept, line in enumerate(lines):
        total += len(line) + 1
        if total > max_chars:
            return [*lines[:kept], f"[... {len(lines) - kept} more lines do not fit and are not shown ...]"]
    return list(lines)


def _scroll_notes(view: PageView) -> list[str]:
    top, inner, _, height = view.scroll
    above, below = round(top), round(height - top - inner)
    notes = [f"{above} pixels above"] if above > 0 else []
    notes += [f"{below} pixels below"] if below > 0 else []
    return [f"[Not shown: {', '.join(notes)}. Scroll to see them.]"] if notes else []
