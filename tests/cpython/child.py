"""Run one module of CPython's own tests in one of six places; run.py starts this, one process a module.

    python child.py PLACE MODULE EVENTS [--only FILE] [--skip FILE]

PLACE is `main` (the main thread, gort is not imported), `thread` (a plain
threading.Thread, neither), `goroutine`, `busy`: a goroutine that yields
before each test, beside one that ticks each millisecond, so that the scheduler
has reason to move it to another OS thread; `patched`: the main goroutine, as
`python -m gort` runs it; or `network`: after the patch of sockets, TLS and select
alone. EVENTS is a file that gets one line
of JSON as a test begins and one as it ends: it says which test was running when
the process died. FILE holds test ids, one a line.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
import traceback
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Events:
    """Lines of JSON, appended with a descriptor of their own each time: tests close what they did not open."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self.pid = os.getpid()
        self.os = {name: getattr(os, name) for name in ("open", "write", "close", "getpid")}  # tests replace these

    def put(self, **event: object) -> None:
        if self.os["getpid"]() != self.pid:
            return  # a forked child that came back here
        fd = self.os["open"](self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            self.os["write"](fd, json.dumps(event).encode() + b"\n")
        finally:
            self.os["close"](fd)


class Result(unittest.TestResult):
    """Every outcome as an event; of a test with subtests the worst."""

    RANK = ("passed", "skipped", "expected failure", "failed", "error")

    def __init__(self, events: Events, before: Callable[[], object]) -> None:
        super().__init__()
        self.events = events
        self.before = before
        self.outcome = ""
        self.text = ""
        self.began = 0.0

    def note(self, test: Any, outcome: str, text: str = "") -> None:
        if not self.began:  # setUpClass, setUpModule and their like: no test is running
            self.events.put(end=test.id(), outcome=outcome, seconds=0, text=text[-4000:])
        elif not self.outcome or self.RANK.index(outcome) > self.RANK.index(self.outcome):
            self.outcome, self.text = outcome, text

    def startTest(self, test: Any) -> None:
        self.before()
        self.outcome, self.text = "", "neither passed nor failed: interrupted"
        self.began = time.perf_counter()
        self.events.put(start=test.id())

    def stopTest(self, test: Any) -> None:
        if not self.began:
            return  # 3.12.1 skips without a start
        seconds = round(time.perf_counter() - self.began, 3)
        self.began = 0.0
        self.events.put(end=test.id(), outcome=self.outcome or "error", seconds=seconds, text=self.text[-4000:])

    def explain(self, err: Any) -> str:
        try:
            return "".join(traceback.format_exception(*err))
        except Exception as exc:
            return f"{err[0]} ({exc!r} when formatted)"

    def addSuccess(self, test: Any) -> None:
        self.note(test, "passed", "")

    def addFailure(self, test: Any, err: Any) -> None:
        self.note(test, "failed", self.explain(err))

    def addError(self, test: Any, err: Any) -> None:
        self.note(test, "error", self.explain(err))

    def addSkip(self, test: Any, reason: str) -> None:
        self.note(test, "skipped", str(reason))

    def addExpectedFailure(self, test: Any, err: Any) -> None:
        self.note(test, "expected failure")

    def addUnexpectedSuccess(self, test: Any) -> None:
        self.note(test, "failed", "unexpected success")

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        if err is not None:
            kind = "failed" if issubclass(err[0], test.failureException) else "error"
            self.note(test, kind, f"{subtest}\n{self.explain(err)}")


def each_test(suite: Any) -> Iterator[Any]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from each_test(test)
        else:
            yield test


def keep(suite: unittest.TestSuite, wanted: Callable[[str], bool]) -> None:
    """Drop the other tests from the suite, which keeps its shape: fixtures depend on it."""
    kept: list[Any] = []
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            keep(test, wanted)
            kept.append(test)
        elif wanted(test.id()):
            kept.append(test)
    suite._tests = kept


def lines(path: str | None) -> set[str]:
    return set(Path(path).read_text().splitlines()) if path else set()


def run_module(module: str, events: Events, only: set[str], skip: set[str], before: Callable[[], object]) -> None:
    """Load and run it. Everything, also the import of the module, happens in the place that is tested."""
    try:
        from test import support

        # `python -m test` without -u: no network, no minutes of CPU, no gigabytes
        support.use_resources = ["network"] if module == "test_socketserver" else []  # it needs the loopback alone
        support.verbose = 0
        loaded = importlib.import_module(f"test.{module}")
        loader = unittest.TestLoader()
        suite = loader.loadTestsFromModule(loaded)
        if hasattr(loaded, "test_main") and not suite.countTestCases():
            raise unittest.SkipTest("has nothing that unittest can load")
        for error in loader.errors:
            events.put(end=f"load test.{module}", outcome="error", seconds=0, text=error[-4000:])
        keep(suite, lambda name: (not only or name in only) and name not in skip)
        suite.run(Result(events, before))
    except unittest.SkipTest as exc:
        events.put(module="skipped", text=str(exc))
    except KeyboardInterrupt:  # ends a suite, whoever raised it
        events.put(module="interrupted", text=traceback.format_exc()[-4000:])
    except BaseException:
        events.put(module="error", text=traceback.format_exc()[-4000:])
        raise
    else:
        events.put(module="done")


def nothing() -> None:
    pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("place", choices=["main", "thread", "goroutine", "busy", "patched", "inside", "network"])
    parser.add_argument("module")
    parser.add_argument("events")
    parser.add_argument("--only")
    parser.add_argument("--skip")
    args = parser.parse_args()
    if args.place == "patched":
        import runpy

        sys.path[0] = str(ROOT)
        sys.argv[:] = ["", __file__, "inside", *sys.argv[2:]]
        runpy._run_module_as_main("gort", alter_argv=False)  # type: ignore[attr-defined]
        return
    work = args.module, Events(args.events), lines(args.only), lines(args.skip)
    sys.path.pop(0)  # our own directory
    sys.argv[1:] = []
    if args.place in ("main", "inside"):
        run_module(*work, nothing)
    elif args.place == "thread":
        import threading

        thread = threading.Thread(target=run_module, args=(*work, nothing))
        thread.start()
        to_the_end(thread.join, lambda: not thread.is_alive())
    else:
        sys.path.insert(0, str(ROOT))
        import gort

        sys.path.pop(0)
        if args.place == "network":
            from gort import monkey

            others = ("time", "threading", "queue", "subprocess", "os", "signal")
            monkey.patch_all(**dict.fromkeys(others, False))
            run_module(*work, nothing)
            return
        if args.place == "busy":
            gort.go(tick)
            g = gort.go(run_module, *work, gort.gosched)
        else:
            g = gort.go(run_module, *work, nothing)
        to_the_end(g.join, lambda: g.done)


def to_the_end(join: Callable[[], object], done: Callable[[], bool]) -> None:
    """Tests send themselves SIGINT, which the main thread or goroutine gets."""
    while True:
        try:
            join()
            return
        except KeyboardInterrupt:
            if done():
                return


def tick() -> None:
    import gort

    while True:
        gort.sleep(0.001)


if __name__ == "__main__":
    main()
