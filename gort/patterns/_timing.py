"""Streams that look at the clock, or at somebody who ends them. Time is taken from gort.time alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import gort
from gort import time
from gort.patterns._flow import receiver
from gort.patterns._stream import Crew, Stream, check_context, check_count, check_seconds

if TYPE_CHECKING:
    from gort._core._runtime import _Context, _Parent, _Seconds

T = TypeVar("T")


def _select_put(crew: Crew, value: object, *others: gort.Chan[Any] | gort.Receiver[Any]) -> tuple[int, Any, bool]:
    """Send `value`, or receive from another; the goroutine ends if nobody wants it any more."""
    try:
        return gort.select((crew.outs[0], value), *others)
    except gort.ChanClosed:
        raise gort.GoroutineExit from None


def _until(crew: Crew, done: gort.Chan[Any] | gort.Receiver[Any], source: gort.Receiver[Any]) -> None:
    while gort.select(done, default=True)[0] == -1:
        i, value, ok = gort.select(done, source)
        if i == 0:
            return
        if not ok:
            source.recv_ok()  # raises what ended it
            return
        if _select_put(crew, value, done)[0] == 1:
            return


def or_done(done: _Context | gort.Chan[Any] | gort.Receiver[Any], source: Iterable[T], *, buffer: int = 0) -> Stream[T]:
    """A stream of `source` that ends when it does, or when `done` does.

    `done` is a context, or a channel that is closed or sends something. Its end
    is no error: the stream just ends. Raises TypeError or ValueError for a bad
    argument. Does not park.

    >>> import gort
    >>> stop = gort.Chan()
    >>> stream = or_done(stop, iter(int, 1))
    >>> next(stream)
    0
    >>> stop.close()
    >>> len(list(stream)) <= 1
    True
    """
    ended: Any = done
    if not isinstance(done, gort.Chan | gort.Receiver):
        ended = done.done() if callable(getattr(done, "done", None)) else None
        if not isinstance(ended, gort.Chan | gort.Receiver):
            raise TypeError(f"done must be a context or a channel, not {done!r}")
    check_count(buffer, "buffer", 0)
    source = receiver(source)
    return Crew("or_done", [source], buffer=buffer).start_one((_until, ended, source))


def _batches(crew: Crew, source: gort.Receiver[Any], size: int, seconds: float | None) -> None:
    ok = True
    while ok:
        value, ok = source.recv_ok()
        if not ok:
            return
        items = [value]
        timer = None if seconds is None else time.Timer(seconds)
        while len(items) < size:
            i, value, ok = gort.select(source, None if timer is None else timer.c)
            if i == 1 or not ok:
                ok = i == 1
                break
            items.append(value)
        if timer is not None:
            timer.stop()
        crew.put(items)
    source.recv_ok()  # raises what ended it


def batch(
    source: Iterable[T], size: int, seconds: _Seconds | None = None, *, buffer: int = 0, ctx: _Parent | None = None
) -> Stream[list[T]]:
    """A stream of lists of up to `size` items of `source`.

    A list is full, or its first item came `seconds` ago, or `source` has ended.
    None is empty. An error of `source` comes after the items before it. The end
    of `ctx` ends the stream with the context's error. Raises TypeError or
    ValueError for a bad argument. Does not park.

    >>> list(batch("abcde", 2))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    check_count(size, "size", 1)
    limit = None if seconds is None else check_seconds(seconds, "seconds")
    return _timed("batch", source, buffer, ctx, _batches, size, limit)


def _timed(
    name: str, source: Iterable[Any], buffer: int, ctx: _Parent | None, body: object, *args: object
) -> Stream[Any]:
    check_count(buffer, "buffer", 0)
    check_context(ctx)
    source = receiver(source)
    return Crew(name, [source], buffer=buffer, ctx=ctx).start_one((body, source, *args))


def _last_ones(crew: Crew, source: gort.Receiver[Any], seconds: float) -> None:
    while not crew.over:
        value, ok = source.recv_ok()
        if not ok:
            return
        timer = time.Timer(seconds)
        while not crew.over:
            i, newer, ok = gort.select(source, timer.c)
            if i == 1:  # quiet for long enough
                i, newer, ok = _select_put(crew, value, source)
                if i == 0:
                    break
            if not ok:
                timer.stop()
                crew.put(value)
                source.recv_ok()  # raises what ended it
                return
            value = newer
            timer.reset(seconds)


def debounce(source: Iterable[T], seconds: _Seconds, *, ctx: _Parent | None = None) -> Stream[T]:
    """A stream of the items of `source` after which nothing came for `seconds`.

    Of items that come closer together only the last is sent, and the last of
    all when `source` ends, at once. An item that waits for the reader gives way
    to a newer one. The end of `ctx` ends the stream with the context's error.
    Raises TypeError or ValueError for a bad argument. Does not park.

    >>> list(debounce(["g", "go", "gor", "gort"], 0.2))
    ['gort']
    """
    return _timed("debounce", source, 0, ctx, _last_ones, check_seconds(seconds, "seconds"))


def _spaced(crew: Crew, source: gort.Receiver[Any], seconds: float) -> None:
    due = -float("inf")
    for value in source:
        if crew.over:
            return
        now = time.now()
        if now >= due:
            due = now + seconds
            crew.put(value)


def throttle(source: Iterable[T], seconds: _Seconds, *, ctx: _Parent | None = None) -> Stream[T]:
    """A stream of the items of `source` without those that come within `seconds` of the last that was sent.

    The end of `ctx` ends the stream with the context's error. Raises TypeError
    or ValueError for a bad argument. Does not park.

    >>> list(throttle(["crash", "crash", "crash"], 60))
    ['crash']
    """
    return _timed("throttle", source, 0, ctx, _spaced, check_seconds(seconds, "seconds"))
