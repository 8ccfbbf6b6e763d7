"""A driver: runs tests with unittest and reports each. Files are modules below the workspace: tests/test_x.py.

Canaries are tests that must fail, at the beginning and at the end: where one does not, the tests were tampered with.
"""

from __future__ import annotations

import sys

sys.path[:] = [path for path in sys.path if path]  # not the workspace: nothing there may stand in for a library

import json  # noqa: E402
import os  # noqa: E402
import unittest  # noqa: E402

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

_LONGEST_MESSAGE = 1500


class Reporter(unittest.TestResult):
    """Takes down what came of each test."""

    def __init__(self, order: dict[str, Any], names: dict[str, str]) -> None:
        super().__init__()
        self.order, self.names = order, names
        self.root = os.getcwd()
        self.files: dict[str, str] = {}
        fd, word, write, dumps = order.pop("fd"), order.pop("word"), os.write, json.dumps

        def emit(record: dict[str, Any]) -> None:
            left = ("%s %s\n" % (word, dumps(record))).encode()  # noqa: UP031
            while left:
                left = left[write(fd, left) :]

        self.emit = emit

    def startTest(self, test: Any) -> None:
        """With `trace`, take down which functions it enters."""
        super().startTest(test)
        self.entered: set[Any] = set()
        entered = self.entered

        def on_event(frame: FrameType, event: str, argument: object) -> None:
            if event == "call":
                entered.add(frame.f_code)

        if self.order["trace"]:
            sys.setprofile(on_event)

    def stopTest(self, test: Any) -> None:
        """See `startTest`."""
        sys.setprofile(None)
        if self.order["trace"]:
            self.emit({"entered": self.name(test), "functions": _places(self.entered, self.root)})
        super().stopTest(test)

    def name(self, test: Any) -> str:
        """As pytest would call it."""
        id = test.id()
        return self.names.get(id) or _node(id)

    def tell(self, test: Any, outcome: str, problem: Any = None) -> None:
        """One outcome, with what went wrong."""
        self.emit({"test": self.name(test), "outcome": outcome})
        if problem is not None:
            kind, value, traceback = problem
            file = getattr(sys.modules.get(type(test).__module__), "__file__", "")
            lines: list[int] = []
            last = ""
            while traceback is not None:
                last = traceback.tb_frame.f_code.co_filename
                if last == file:
                    lines.append(traceback.tb_lineno)
                traceback = traceback.tb_next
            by_test = last == file or "/unittest/" in last
            record = {"failure": self.name(test), "error": kind.__name__, "message": _cut(value), "by_test": by_test}
            self.emit({**record, "line": lines[-1] if lines else 0})

    def addSuccess(self, test: Any) -> None:
        """Passed."""
        self.tell(test, "passed")

    def addError(self, test: Any, err: Any) -> None:
        """Failed."""
        self.tell(test, "failed", err)

    def addFailure(self, test: Any, err: Any) -> None:
        """Failed."""
        self.tell(test, "failed", err)

    def addSkip(self, test: Any, reason: str) -> None:
        """Not run."""
        self.tell(test, "skipped")

    def addExpectedFailure(self, test: Any, err: Any) -> None:
        """Failed, as it should."""
        self.tell(test, "xfailed")

    def addUnexpectedSuccess(self, test: Any) -> None:
        """Passed, and should not."""
        self.tell(test, "failed")

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        """A part of a test."""
        if err is not None:
            self.tell(test, "failed", err)


def canary(name: str, kind: int) -> unittest.TestCase:
    """A test that must fail."""

    def fail(self: unittest.TestCase) -> None:
        if kind == 0:
            with self.assertRaises(ZeroDivisionError):  # noqa: PT027
                pass
        elif kind == 1:
            self.assertEqual(kind, 0)  # noqa: PT009
        else:
            raise AssertionError(kind)

    return type("Test", (unittest.TestCase,), {name: fail})(name)


def load(files: list[str], only: set[str] | None) -> list[Any]:
    """The tests of these files, in order."""
    found: list[Any] = []
    waiting: list[Any] = [unittest.defaultTestLoader.loadTestsFromName(_module(file)) for file in files]
    while waiting:
        test = waiting.pop(0)
        if isinstance(test, unittest.TestSuite):
            waiting[:0] = list(test)
        elif only is None or _node(test.id()) in only:
            found.append(test)
    return found


def _module(file: str) -> str:
    return file[: -len(".py")].replace("/", ".") if file.endswith(".py") else file.replace("/", ".")


def _node(id: str) -> str:
    """`tests.test_x.Case.test_y` as tests/test_x.py::Case::test_y."""
    parts = id.split(".")
    return "/".join(parts[:-2]) + ".py::" + "::".join(parts[-2:])


def _places(codes: set[Any], root: str) -> list[tuple[str, int]]:
    """File and first line of functions that are the repository's."""
    start = root.rstrip("/") + "/"
    return sorted({(c.co_filename[len(start) :], c.co_firstlineno) for c in codes if c.co_filename.startswith(start)})


def _cut(value: object) -> str:
    try:
        return str(value)[:_LONGEST_MESSAGE]
    except Exception:
        return ""


def main() -> None:
    """Read the order, run, report the end, and leave at once: what the repository does at exit is of no interest."""
    order = json.loads(sys.stdin.read())
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    paths = [os.path.normpath(os.path.join(os.getcwd(), path)) for path in order["python_path"]]
    names: dict[str, str] = {}
    reporter = Reporter(order, names)
    canaries = [canary(name, kind) for kind, name in enumerate(order["canaries"])]
    sys.path[:0] = [*paths, os.getcwd()]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    tests = load(order["files"], None if order["only"] is None else set(order["only"]))
    for test, name in zip(canaries, order["canaries"]):  # noqa: B905  # Python 3.7
        names[test.id()] = "%s::%s" % (order["files"][0], name)  # noqa: UP031
    unittest.TestSuite([*canaries[1::2], *tests, *canaries[::2]]).run(reporter)
    reporter.emit({"end": 0})
    os._exit(0)


if __name__ == "__main__":
    main()
