"""Bugs that can be planted in a function: small edits of its source, all else left as it is, comments included.

Knows Python's syntax. Does not know whether a test notices. Positions are bytes, as `ast` counts them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARISONS: dict[type[ast.cmpop], tuple[str, ...]] = {
    ast.Lt: ("<=", ">"),
    ast.LtE: ("<",),
    ast.Gt: (">=", "<"),
    ast.GtE: (">",),
    ast.Eq: ("!=",),
    ast.NotEq: ("==",),
    ast.In: ("not in",),
    ast.NotIn: ("in",),
    ast.Is: ("is not",),
    ast.IsNot: ("is",),
}
_OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "+",
    ast.Div: "*",
    ast.FloorDiv: "*",
    ast.Mod: "//",
    ast.BitOr: "&",
    ast.BitAnd: "|",
    ast.LShift: ">>",
    ast.RShift: "<<",
}
_OTHER_NAMES = {
    "min": "max",
    "max": "min",
    "any": "all",
    "all": "any",
    "lower": "upper",
    "upper": "lower",
    "startswith": "endswith",
    "endswith": "startswith",
    "lstrip": "rstrip",
    "rstrip": "lstrip",
    "partition": "rpartition",
    "rpartition": "partition",
    "find": "rfind",
    "rfind": "find",
    "append": "extend",
    "union": "intersection",
    "floor": "ceil",
    "ceil": "floor",
}
_LEAVING = (ast.Return, ast.Raise, ast.Continue, ast.Break)
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Mutation:
    """An edit of one function. `first_line` is that of the function, its decorators included."""

    function: str
    first_line: int
    kind: str
    start: int
    end: int
    replacement: str

    def applied(self, source: bytes) -> bytes:
        """The source with it."""
        return source[: self.start] + self.replacement.encode() + source[self.end :]

    def is_possible(self, source: bytes) -> bool:
        """Whether what it makes is another program, and one at all."""
        try:
            return ast.dump(ast.parse(self.applied(source))) != ast.dump(ast.parse(source))
        except (SyntaxError, ValueError):
            return False


def mutations(source: bytes) -> list[Mutation]:
    """All bugs for all functions of a module. Of some nothing comes: see `Mutation.is_possible`."""
    try:
        source.decode()
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # among them what is not written in UTF-8
        return []
    text = _Text(source)
    found = [
        Mutation(name, _first_line(function), kind, start, end, replacement)
        for name, function in _functions(tree, "")
        for kind, start, end, replacement in _edits_of(function, text)
    ]
    return list(dict.fromkeys(found))


class _Text:
    """Source by positions of nodes."""

    def __init__(self, source: bytes) -> None:
        self.source = source
        self._starts = [0, *(match.end() for match in re.finditer(rb"\n", source))]

    def start(self, node: ast.expr | ast.stmt) -> int:
        """Where a node begins."""
        return self._starts[node.lineno - 1] + node.col_offset

    def end(self, node: ast.expr | ast.stmt) -> int:
        """Where it ends."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._starts[node.end_lineno - 1] + node.end_col_offset

    def of(self, node: ast.expr | ast.stmt) -> str:
        """A node's own text."""
        return self.source[self.start(node) : self.end(node)].decode()


Edit = tuple[str, int, int, str]


def _functions(node: ast.AST, above: str) -> Iterator[tuple[str, Function]]:
    """Functions and methods with their qualified names; those inside others belong to the outer one."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function):
            yield above + child.name, child
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{above}{child.name}.")
        elif isinstance(child, ast.If | ast.Try | ast.With):
            yield from _functions(child, above)


def _first_line(function: Function) -> int:
    return min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])


def _edits_of(function: Function, text: _Text) -> Iterator[Edit]:
    yield from _stub(function, text)
    yield from _moved_return(function, text)
    for default in (*function.args.defaults, *function.args.kw_defaults):
        if isinstance(default, ast.Constant):
            yield from _constant(default, text, "default")
    for statement in function.body:
        for node in ast.walk(statement):
            if isinstance(node, ast.expr):
                yield from _expression(node, text)
            elif isinstance(node, ast.stmt):
                yield from _statement(node, text)
            for name in ("body", "orelse", "finalbody"):
                block: object = getattr(node, name, None)
                if isinstance(block, list):
                    yield from _deletions([entry for entry in block if isinstance(entry, ast.stmt)], text)
    yield from _deletions(function.body, text)


# --- expressions ----------------------------------------------------------------------------------------------------


def _expression(node: ast.expr, text: _Text) -> Iterator[Edit]:
    if isinstance(node, ast.Compare):
        yield from _compare(node, text)
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        yield from _between(node.left, node.right, _OPERATORS[type(node.op)], "operator", text)
    elif isinstance(node, ast.BoolOp):
        other = "or" if isinstance(node.op, ast.And) else "and"
        yield from _between(node.values[0], node.values[1], other, "boolean", text)
        yield "removed_condition", text.start(node), text.start(node.values[1]), ""
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "removed_not", text.start(node), text.end(node), text.of(node.operand)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "removed_minus", text.start(node), text.end(node), text.of(node.operand)
    elif isinstance(node, ast.Constant):
        yield from _constant(node, text, "constant")
    elif isinstance(node, ast.Call):
        yield from _call(node, text)
    elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice):
        yield from _slice(node.slice, text)
    elif isinstance(node, ast.IfExp):
        body, orelse = text.of(node.body), text.of(node.orelse)
        yield "swapped_branches", text.start(node), text.end(node), f"{orelse} if {text.of(node.test)} else {body}"


def _compare(node: ast.Compare, text: _Text) -> Iterator[Edit]:
    left = node.left
    for operator, right in zip(node.ops, node.comparators, strict=True):
        for other in _COMPARISONS.get(type(operator), ()):
            yield from _between(left, right, other, "comparison", text)
        left = right


def _between(left: ast.expr, right: ast.expr, other: str, kind: str, text: _Text) -> Iterator[Edit]:
    """Another operator between two operands, in whatever brackets and lines they stand."""
    start, end = text.end(left), text.start(right)
    between = text.source[start:end].decode()
    match = re.search(r"not\s+in\b|is\s+not\b|[a-z]+|[-+*/%<>=!&|]+", between)
    if match and "#" not in between:
        yield kind, start + len(between[: match.start()].encode()), start + len(between[: match.end()].encode()), other


def _constant(node: ast.Constant, text: _Text, kind: str) -> Iterator[Edit]:
    value: object = node.value
    others: tuple[str, ...] = ()
    if isinstance(value, bool):
        others = (str(not value),)
    elif isinstance(value, int):
        others = (str(value + 1), str(value - 1)) if value > 0 else ("1",)
    elif isinstance(value, float):
        others = (repr(value * 2 or 1.0),)
    elif value == "":
        others = ("' '",)
    elif value == " ":
        others = ("''",)
    for other in others:
        yield kind, text.start(node), text.end(node), other


def _call(node: ast.Call, text: _Text) -> Iterator[Edit]:
    first = node.args[:2]
    if len(first) == 2 and not any(isinstance(argument, ast.Starred) for argument in first):
        swapped = f"{text.of(first[1])}, {text.of(first[0])}"
        yield "swapped_arguments", text.start(first[0]), text.end(first[1]), swapped
    if isinstance(node.func, ast.Name):
        name, end = node.func.id, text.end(node.func)
        if name == "range" and node.args and not node.keywords:
            stop = node.args[0] if len(node.args) == 1 else node.args[1]
            yield "off_by_one", text.end(stop), text.end(stop), " - 1"
            yield "off_by_one", text.end(stop), text.end(stop), " + 1"
        elif name in ("sorted", "list", "abs", "set", "reversed") and len(node.args) == 1 and not node.keywords:
            yield "removed_call", text.start(node), text.end(node), text.of(node.args[0])
    elif isinstance(node.func, ast.Attribute):
        name, end = node.func.attr, text.end(node.func)
        if name in ("strip", "lower", "upper", "copy", "rstrip", "lstrip") and not node.args:
            yield "removed_call", text.start(node), text.end(node), text.of(node.func.value)
    else:
        return
    if name in _OTHER_NAMES:
        yield "wrong_function", end - len(name.encode()), end, _OTHER_NAMES[name]
    for keyword in node.keywords:
        if keyword.arg in ("reverse", "key", "default", "strict", "end", "sep"):
            start = text.start(keyword.value) - len(keyword.arg.encode()) - 1
            yield "removed_argument", start, text.end(keyword.value), ""


def _slice(node: ast.Slice, text: _Text) -> Iterator[Edit]:
    for bound in (node.lower, node.upper):
        if bound is not None and not isinstance(bound, ast.Constant | ast.UnaryOp):
            yield "off_by_one", text.end(bound), text.end(bound), " + 1"
            yield "off_by_one", text.end(bound), text.end(bound), " - 1"


# --- statements -----------------------------------------------------------------------------------------------------


def _statement(node: ast.stmt, text: _Text) -> Iterator[Edit]:
    if isinstance(node, ast.If | ast.While) and not isinstance(node.test, ast.UnaryOp | ast.Compare):
        yield "negated_condition", text.start(node.test), text.end(node.test), f"not ({text.of(node.test)})"
    if isinstance(node, ast.AugAssign) and type(node.op) in _OPERATORS:
        yield from _between(node.target, node.value, f"{_OPERATORS[type(node.op)]}=", "operator", text)
    elif isinstance(node, ast.Break):
        yield "continue_for_break", text.start(node), text.end(node), "continue"
    elif isinstance(node, ast.Continue):
        yield "break_for_continue", text.start(node), text.end(node), "break"
    elif isinstance(node, ast.Return) and node.value is not None and not isinstance(node.value, ast.Constant):
        yield "returns_nothing", text.start(node), text.end(node), "return None"
        if isinstance(node.value, ast.Tuple) and len(node.value.elts) == 2:
            first, second = map(text.of, node.value.elts)
            yield "swapped_values", text.start(node), text.end(node), f"return {second}, {first}"
    elif isinstance(node, ast.Try):
        for handler in node.handlers:
            if isinstance(handler.type, ast.Tuple) and len(handler.type.elts) > 1:
                kept = text.of(handler.type.elts[0])
                yield "narrowed_exception", text.start(handler.type), text.end(handler.type), kept


def _deletions(block: list[ast.stmt], text: _Text) -> Iterator[Edit]:
    """Statements that do something and are left out, and guards."""
    for statement in block:
        if isinstance(statement, ast.If):
            leaves = isinstance(statement.body[-1], _LEAVING) and not statement.orelse
            kind = "removed_guard" if leaves else "deleted_branch"
            yield kind, text.start(statement), text.end(statement), "pass"
            if statement.orelse and not isinstance(statement.orelse[0], ast.If):
                start, end = text.end(statement.body[-1]), text.end(statement.orelse[-1])
                yield "deleted_branch", start, end, ""
        elif isinstance(statement, ast.AugAssign | ast.Assert) or (
            isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call | ast.Await)
        ):
            yield "deleted_statement", text.start(statement), text.end(statement), "pass"


def _moved_return(function: Function, text: _Text) -> Iterator[Edit]:
    """Return in the loop what should be returned after it."""
    if len(function.body) < 2 or not isinstance(function.body[-1], ast.Return):
        return
    loop, last = function.body[-2], function.body[-1]
    if isinstance(loop, ast.For | ast.While) and not loop.orelse and last.value is not None:
        inner = loop.body[-1]
        indent = " " * loop.body[0].col_offset
        yield "early_return", text.end(inner), text.end(inner), f"\n{indent}{text.of(last)}"


def _stub(function: Function, text: _Text) -> Iterator[Edit]:
    """The body gone, for somebody to write anew from what the docstring says."""
    body = function.body
    has_docstring = isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
    rest = body[1:] if has_docstring else body
    if rest and len(rest) + sum(1 for node in rest for _ in ast.walk(node)) > 12:
        yield "stub", text.start(rest[0]), text.end(rest[-1]), "raise NotImplementedError"
