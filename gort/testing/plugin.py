"""The pytest plugin: each test function runs as a goroutine of its own.

It is off unless asked for: by `--gort`, `gort = true` in the configuration,
`@pytest.mark.gort` on a test, class or module, or `--gort-seed=N`. The options
are declared in `gort_pytest.py`, which pytest finds by itself.

Only the call runs so; fixtures stay in the main goroutine. A test fails
  - if goroutines that were started meanwhile are left when it has ended, and no
    more of them can run. They are killed and unwound, so the next test starts clean;
  - if it and they wait for each other for ever: a deadlock, with all stacks;
  - if a goroutine ended in an exception that nobody saw (`gort.excepthook`).
`@pytest.mark.gort(leaks=False, panics=False)` turns the first and the last off,
`@pytest.mark.gort(False)` leaves a test in the main goroutine. With `--gort-seed=N`
a test's goroutines get their turns in an order drawn from N and the test's id, so
that one test alone runs as it did among all. Coroutine functions and
`unittest.TestCase` are left alone: others run those.
"""

from __future__ import annotations

import contextvars
import functools
import hashlib
import traceback
from collections.abc import Callable
from typing import Any

import pytest

import gort
from gort._core._runtime import Bubble
from gort.testing._leaks import describe, dumps, ids, left_since, settle

__all__ = ["as_goroutine"]

# `-p gort.testing.plugin` works too, where the entry point is not installed.
pytest_plugins = ["gort_pytest"]

KILLS = 100  # how often one that catches GoroutineExit is killed
ENDING = 1.0  # seconds for goroutines in blocking calls, once killed


class Settings:
    """What the command line and the markers say of one test; the nearest marker goes before the others."""

    def __init__(self, item: pytest.Function) -> None:
        self.leaks = self.panics = True
        self.seed: int | None = None
        self.note = ""  # for the report of a failure
        for marker in reversed([*item.iter_markers("gort")]):
            self.mark(*marker.args, **marker.kwargs)
        n = item.config.option.gort_seed
        if self.seed is not None:
            self.note = f"the schedule is drawn from the marker's seed={self.seed}"
            self.seed &= (1 << 64) - 1
        elif n is not None:
            self.note = f"--gort-seed={n} replays this schedule"
            digest = hashlib.sha256(f"{n} {item.nodeid}".encode()).digest()
            self.seed = int.from_bytes(digest[:8], "little")

    def mark(
        self, enabled: bool = True, *, leaks: bool | None = None, panics: bool | None = None, seed: int | None = None
    ) -> None:
        if seed is not None and not isinstance(seed, int):
            raise TypeError(f"seed must be an int or None, not {seed!r}")
        self.leaks = self.leaks if leaks is None else leaks
        self.panics = self.panics if panics is None else panics
        self.seed = self.seed if seed is None else seed


class Outcome:
    """How the test's function ended."""

    result: object = None
    error: BaseException | None = None
    done = False

    def of(self, context: contextvars.Context, fn: Callable[..., object], kwargs: dict[str, Any]) -> None:
        __tracebackhide__ = True
        try:
            self.result = context.run(fn, **kwargs)
        except BaseException as e:
            self.error = e
        self.done = True


def unwind(before: set[int]) -> list[gort.Goroutine[Any]]:
    """Kill those not among `before` until they have ended; those that have not. Parks."""
    for _ in range(KILLS):
        left = left_since(before)
        for h in left:
            h.kill()
        if not left:
            return []
        del left
        settle(before, ENDING if any(h.state == "syscall" for h in left_since(before)) else 0.0)
    return left_since(before)


def panic(g: gort.Goroutine[Any], exc: BaseException) -> str:
    text = "".join(traceback.format_exception(exc))
    return f"panic in goroutine {g.id} ({g.name}), which nobody joined:\n{text}"


def judge(settings: Settings, fn: Callable[..., object], kwargs: dict[str, Any]) -> tuple[Outcome, list[str]]:
    """Run `fn(**kwargs)` as a goroutine: how it ended, and what is wrong besides. Parks."""
    outcome, wrong = Outcome(), []
    panics: list[tuple[gort.Goroutine[Any], BaseException]] = []
    before, hook = ids(), gort.excepthook
    gort.excepthook = lambda g, exc: panics.append((g, exc))
    try:
        go = gort.go if settings.seed is None else Bubble(fake=False, seed=settings.seed).go
        g = go(outcome.of, contextvars.copy_context(), fn, kwargs)
        try:
            g.join()
        except gort.Deadlock:
            wrong.append("deadlock: all goroutines wait for each other\n\n" + dumps(left_since(())))
        if not wrong:
            settle(before)
            left = left_since(before)
            if left and settings.leaks:
                wrong.append(describe(left))
            del left
        if outcome.done and isinstance(outcome.error, gort.GoroutineExit):
            outcome.error = None
            wrong.append("the test was ended by goexit() or kill()")
        elif not outcome.done and not wrong:
            wrong.append("the test was killed before it began")
    finally:
        stuck = unwind(before)
        gort.excepthook = hook
    if not outcome.done or (wrong and isinstance(outcome.error, gort.GoroutineExit)):
        outcome.error = None  # our own kill
    if stuck:
        wrong.append("kill() does not end them: " + describe(stuck))
    if settings.panics:
        wrong += [panic(*p) for p in panics if not isinstance(p[1], SystemExit)]
    return outcome, wrong


def as_goroutine(item: pytest.Function, fn: Callable[..., object]) -> Callable[..., object]:
    """`fn`, to be called as a goroutine and judged by what it leaves."""
    settings = Settings(item)

    @functools.wraps(fn)
    def call(**kwargs: Any) -> object:
        __tracebackhide__ = True
        outcome, wrong = judge(settings, fn, kwargs)
        error = outcome.error
        try:
            if settings.note and (wrong or error is not None):
                item.add_report_section("call", "gort", settings.note)
            if wrong and (error is None or isinstance(error, pytest.skip.Exception)):
                pytest.fail("\n".join(wrong), pytrace=False)
            if wrong:  # the test's own failure is the news
                item.add_report_section("call", "goroutines", "\n".join(wrong))
            if error is not None:
                raise error
            return outcome.result
        finally:
            del outcome, error  # it and its traceback refer to each other

    return call
