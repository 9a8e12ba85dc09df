"""A token bucket that limits how often things happen, as in Go's x/time/rate.

limiter = rate.Limiter(100, burst=10)       # 100 a second, 10 of them at once
limiter.wait(ctx=ctx)                       # until it may be
if not limiter.allow():                     # or: may it be now?
    raise TooMany
"""

from __future__ import annotations

import math
from collections.abc import Callable

from gort import time
from gort._core._runtime import Limiter, Reservation
from gort.sync import Mutex

__all__ = ["Limiter", "Reservation", "Sometimes", "every"]


def every(interval: float) -> float:
    """The limit of one event in `interval` seconds; no limit if that is 0 or less."""
    if math.isnan(interval):
        raise ValueError(f"interval must be a number of seconds, not {interval!r}")
    return 1.0 / interval if interval > 0 else math.inf


class Sometimes:
    """Does something now and then: the first time, and whenever one of its rules says so.

    first: the first so many calls. every: each so-manieth call, counted from the
    first. interval: when so many seconds have passed since it was last done.
    Source: Go's x/time/rate/sometimes.go.
    """

    __slots__ = ("__weakref__", "_count", "_last", "_mutex", "every", "first", "interval")

    def __init__(self, *, first: int = 0, every: int = 0, interval: float = 0.0) -> None:
        for name, value in (("first", first), ("every", every)):
            if not isinstance(value, int):
                raise TypeError(f"{name} must be an int, not {value!r}")
        if not isinstance(interval, (int, float)):
            raise TypeError(f"interval must be a number of seconds, not {interval!r}")
        if math.isnan(interval):
            raise ValueError(f"interval must be a number of seconds, not {interval!r}")
        self.first = first
        self.every = every
        self.interval = interval
        self._mutex = Mutex()
        self._count = 0
        self._last = 0.0

    def do(self, fn: Callable[[], object], /) -> None:
        """Call `fn()` if it is time. One call at a time: the others wait for it. Parks.

        If `fn` raises, the exception comes out, and the call does not count. `fn`
        must not call `do()` of the same object, which would wait for itself.
        """
        if not callable(fn):
            raise TypeError(f"do() needs a callable, not {fn!r}")
        with self._mutex:
            if self._is_time():
                fn()
                if self.interval > 0:
                    self._last = time.now()
            self._count += 1

    def _is_time(self) -> bool:
        return (
            self._count == 0
            or self._count < self.first
            or (self.every > 0 and self._count % self.every == 0)
            or (self.interval > 0 and time.now() - self._last >= self.interval)
        )
