"""A driver: runs tests with pytest and reports each. Everything of pytest is imported before the repository is.

Canaries are tests that must fail, at the beginning and at the end: where one does not, the tests were tampered with.
"""

from __future__ import annotations

import sys

sys.path[:] = [path for path in sys.path if path]  # not the workspace: nothing there may stand in for a library

import json  # noqa: E402
import os  # noqa: E402
import unittest  # noqa: E402

import pytest  # noqa: E402

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from types import FrameType
    from typing import Any


_LONGEST_MESSAGE = 1500


class Reporter:
    """The plugin."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self.root = os.getcwd()
        self.only = None if order["only"] is None else set(order["only"])
        fd, word, write, dumps = order.pop("fd"), order.pop("word"), os.write, json.dumps

        def emit(record: dict[str, Any]) -> None:
            left = ("%s %s\n" % (word, dumps(record))).encode()  # noqa: UP031
            while left:
                left = left[write(fd, left) :]

        self.emit = emit

    @pytest.hookimpl(tryfirst=True)
    def pytest_load_initial_conftests(self) -> None:
        """Only now, after plugins were looked for, may the repository be imported."""
        paths = [os.path.normpath(os.path.join(self.root, path)) for path in self.order["python_path"]]
        sys.path[:0] = paths
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> Generator[None, Any, None]:
        """In this process, whatever the repository's settings say of others (xdist)."""
        if getattr(config.option, "numprocesses", None):
            config.option.numprocesses = 0
        yield

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Keep those that are asked for, and put canaries around them."""
        if self.only is not None:
            items[:] = [item for item in items if item.nodeid in self.only]
        if not items:
            return
        path = items[0].nodeid.partition("::")[0]
        for index, name in enumerate(self.order["canaries"]):
            canary = Canary.from_parent(session, name=name, nodeid="%s::%s" % (path, name), kind=index)  # noqa: UP031
            items.insert(0 if index % 2 else len(items), canary)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Each phase that says something about the test."""
        outcome = "xfailed" if report.skipped and hasattr(report, "wasxfail") else report.outcome
        if report.when == "call" or outcome != "passed":
            self.emit({"test": report.nodeid, "outcome": outcome})

    def pytest_exception_interact(self, node: Any, call: pytest.CallInfo[Any], report: Any) -> None:
        """What went wrong, and in which line of the test."""
        if not isinstance(report, pytest.TestReport) or call.excinfo is None:
            self.emit({"collect": report.nodeid, "message": _cut(getattr(report, "longrepr", ""))})
            return
        lines = [entry.lineno + 1 for entry in call.excinfo.traceback if str(entry.path) == str(node.path)]
        last = str(call.excinfo.traceback[-1].path)
        by_test = last == str(node.path) or "/unittest/" in last or "/_pytest/" in last
        self.emit(
            {
                "failure": report.nodeid,
                "error": call.excinfo.typename,
                "message": _cut(call.excinfo.value),
                "line": lines[-1] if lines else 0,
                "by_test": by_test,
            }
        )

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, None]:
        """With `trace`: which functions of the repository a test enters."""
        if not self.order["trace"]:
            yield
            return
        entered: set[Any] = set()

        def on_event(frame: FrameType, event: str, argument: object) -> None:
            if event == "call":
                entered.add(frame.f_code)

        sys.setprofile(on_event)
        try:
            yield
        finally:
            sys.setprofile(None)
            self.emit({"entered": item.nodeid, "functions": _places(entered, self.root)})


class Canary(pytest.Item):
    """A test that must fail."""

    def __init__(self, kind: int = 0, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.kind = kind

    def runtest(self) -> None:
        """Fail in one of the ways that tests do."""
        if self.kind == 0:
            with pytest.raises(ZeroDivisionError):
                pass
        elif self.kind == 1:
            unittest.TestCase().assertEqual(self.kind, 0)  # noqa: PT009
        else:
            raise AssertionError(self.kind)

    def reportinfo(self) -> Any:
        """Nowhere."""
        return self.path, 0, self.name


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
    reporter = Reporter(order)
    options = ["-p", "no:cacheprovider", "-p", "no:randomly", "--maxfail=1000000", "-q", "--tb=short", "--no-header"]
    code = pytest.main([*options, *order["files"]], plugins=[reporter])
    reporter.emit({"end": int(code)})
    os._exit(0)


if __name__ == "__main__":
    main()
