"""What the recipes share: patching, 200 goroutines at once, a goroutine that ticks meanwhile, and the report.

A recipe is a program: `python tests/recipes/programs/redis_.py` uses the library as it is, with `--patched` or under
`python -m gort` it is cooperative. It checks what it got, and its last line says how each step went, in JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any, TypeVar

import gort

R = TypeVar("R")

GOROUTINES = 200
PERIOD = 0.005  # of the goroutine that ticks, seconds

_monotonic = time.monotonic
_steps: list[dict[str, Any]] = []


def patch_if_asked() -> None:
    """gort.monkey.patch_all() if the program was called with --patched; before the library is imported."""
    if "--patched" in sys.argv:
        from gort import monkey

        monkey.patch_all()


def patched() -> bool:
    """Whether the standard library is cooperative now, by --patched or `python -m gort`."""
    return "gort.monkey" in sys.modules and sys.modules["gort.monkey"].is_patched("socket")


def each(fn: Callable[[int], R], n: int = GOROUTINES) -> list[R]:
    """fn(0) ... fn(n - 1), in n goroutines at once: the results, or the first error; the others are killed then."""
    ended = gort.Chan[tuple[int, Any, BaseException | None]](n)

    def one(i: int) -> None:
        try:
            ended.send((i, fn(i), None))
        except BaseException as e:
            ended.send((i, None, e))

    goroutines = [gort.go(one, i) for i in range(n)]
    results: dict[int, R] = {}
    for _ in goroutines:
        i, result, error = ended.recv()
        if error is not None:
            for g in goroutines:
                g.kill()
            raise error
        results[i] = result
    return [results[i] for i in range(n)]


class Ticker:
    """A goroutine that sleeps for PERIOD again and again: what the others leave to it."""

    def __init__(self) -> None:
        self.ticks, self.stall = 0, 0.0  # stall: the longest time that a tick came too late, seconds
        self.threads = 0  # the most OS threads seen
        self._last = _monotonic()
        self._going = True
        self._goroutine = gort.go(self._tick)

    def _tick(self) -> None:
        while self._going:
            gort.sleep(PERIOD)
            self.ticks += 1
            self._note()
            self.threads = max(self.threads, os.stat("/proc/self/task").st_nlink - 2)

    def _note(self) -> None:
        now = _monotonic()
        self.stall = max(self.stall, now - self._last - PERIOD)
        self._last = now

    def stop(self) -> None:
        self._note()  # the one that should have come by now
        self._going = False
        self._goroutine.join()


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """Measure the block, a step of the recipe, and see that a ticking goroutine went on meanwhile."""
    ticker, start = Ticker(), _monotonic()
    try:
        yield
        seconds, ticks = _monotonic() - start, ticker.ticks
    finally:
        ticker.stop()
    assert ticks > 0 or seconds < 1, f"{name}: nothing else ran during its {seconds:.3f} s"
    stall = ticker.stall * 1000
    how = f"{seconds:.2f} s, {ticks} ticks, longest stall {stall:.1f} ms, {ticker.threads} OS threads"
    print(f"  {name}: {how}", flush=True)
    _steps.append({"name": name, "seconds": seconds, "ticks": ticks, "stall": stall, "threads": ticker.threads})


@contextlib.contextmanager
def raises(*errors: type[BaseException]) -> Iterator[None]:
    """The block must end in one of the errors."""
    try:
        yield
    except errors:
        return
    raise AssertionError(f"no {' or '.join(e.__name__ for e in errors)}")


def run(main: Callable[[], None], *distributions: str) -> None:
    """Run a recipe's `main` as the main goroutine and report; `distributions` are the packages it is about."""
    versions = {name: metadata.version(name) for name in distributions}
    print(f"{', '.join(' '.join(item) for item in versions.items())}{', patched' if patched() else ''}", flush=True)
    gort.run(main)
    report = {"patched": patched(), "python": platform.python_version(), "versions": versions, "steps": _steps}
    print(json.dumps(report))
