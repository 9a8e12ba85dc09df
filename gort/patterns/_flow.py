"""Streams from streams: sources, stages, maps, splitting and merging."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, overload

import gort
from gort import sync
from gort.patterns._stream import (
    Crew,
    Shared,
    Stream,
    as_failure,
    check_callable,
    check_context,
    check_count,
    iterate,
)

if TYPE_CHECKING:
    from gort._core._runtime import _Parent, _Seconds

T = TypeVar("T")
U = TypeVar("U")
V = TypeVar("V")
W = TypeVar("W")


def receiver(source: Iterable[T]) -> gort.Chan[T] | gort.Receiver[T]:
    """`source` if it is a channel, or else a stream of it."""
    if isinstance(source, gort.Chan | gort.Receiver):
        return source
    it = iterate(source)
    return Crew("generate").start_one((_feed, it))


# ---- sources and stages -----------------------------------------------------------


def _feed(crew: Crew, it: Iterator[object]) -> None:
    for item in it:
        crew.put(item)


def generate(iterable: Iterable[T], *, buffer: int = 0, ctx: _Parent | None = None) -> Stream[T]:
    """A stream of what `iterable` yields, which a goroutine runs through as fast as it is read.

    `buffer` items may be ahead of the reader, besides the one that is being
    sent. The end of `ctx` ends the stream with the context's error. Raises
    TypeError or ValueError for a bad argument. Does not park.

    >>> with generate(iter(int, 1)) as zeros:
    ...     next(zeros), next(zeros)
    (0, 0)
    """
    it = iterate(iterable, "iterable")
    return Crew("generate", [iterable], buffer=buffer, ctx=ctx).start_one((_feed, it))


def _apply(crew: Crew, fn: Callable[[Any], object], items: Iterator[Any]) -> None:
    for item in items:
        crew.put(fn(item))


def stage(
    fn: Callable[[T], U], source: Iterable[T], workers: int = 1, *, buffer: int = 0, ctx: _Parent | None = None
) -> Stream[U]:
    """A stream of `fn(item)` for each item of `source`, computed by `workers` goroutines.

    The results come as they are ready; with one worker that is in order. The
    first error, of `fn` or of `source`, ends the stream, and with it the work on
    other items. At most `workers + buffer` items are taken that the reader has
    not received. The end of `ctx` ends the stream with the context's error.
    Raises TypeError or ValueError for a bad argument. Does not park.

    >>> squares = stage(lambda n: n * n, range(5), workers=3)
    >>> sorted(squares)
    [0, 1, 4, 9, 16]
    """
    return _stage("stage", fn, source, workers, buffer, ctx)


def _stage(
    name: str,
    fn: Callable[[T], U],
    source: Iterable[T],
    workers: int,
    buffer: int,
    ctx: _Parent | None,
    called: str = "source",
) -> Stream[U]:
    check_callable(fn)
    check_count(workers, "workers", 1)
    it = iterate(source, called)
    crew = Crew(name, [source], buffer=buffer, ctx=ctx)
    items = it if workers == 1 else Shared(it)
    return crew.start_one(*[(_apply, fn, items)] * workers)


_Stage: TypeAlias = Callable[[T], U] | tuple[Callable[[T], U], int]


@overload
def pipeline(source: Iterable[T], /, *, ctx: _Parent | None = None) -> Stream[T]: ...
@overload
def pipeline(source: Iterable[T], s1: _Stage[T, U], /, *, ctx: _Parent | None = None) -> Stream[U]: ...
@overload
def pipeline(
    source: Iterable[T], s1: _Stage[T, U], s2: _Stage[U, V], /, *, ctx: _Parent | None = None
) -> Stream[V]: ...
@overload
def pipeline(
    source: Iterable[T], s1: _Stage[T, U], s2: _Stage[U, V], s3: _Stage[V, W], /, *, ctx: _Parent | None = None
) -> Stream[W]: ...
@overload
def pipeline(source: Iterable[Any], /, *stages: _Stage[Any, Any], ctx: _Parent | None = None) -> Stream[Any]: ...
def pipeline(source: Iterable[Any], /, *stages: _Stage[Any, Any], ctx: _Parent | None = None) -> Stream[Any]:
    """`source` through one `stage()` after the other, all at work at once.

    A stage is a function of one item, or `(function, workers)`. Raises TypeError
    or ValueError for a bad argument, before anything has started. Does not park.

    >>> words = pipeline(["1", "2", "3"], int, (lambda n: n * n, 4), str)
    >>> sorted(words)
    ['1', '4', '9']
    """
    steps = []
    for i, step in enumerate(stages):
        fn, workers = step if isinstance(step, tuple) and len(step) == 2 else (step, 1)
        check_callable(fn, f"stage {i}")
        steps.append((fn, check_count(workers, f"the workers of stage {i}", 1)))
    check_context(ctx)
    if not steps:
        return generate(source, ctx=ctx)
    for i, (fn, workers) in enumerate(steps):
        source = _stage("pipeline", fn, source, workers, 0, ctx if i == len(steps) - 1 else None)
    assert isinstance(source, Stream)
    return source


# ---- maps -----------------------------------------------------------------------------


class _Ordered(Generic[T, U]):
    """What the workers of an ordered map share.

    A token is held for each item that was taken and whose result the reader has
    not received. Whoever lays down the result that is next in turn sends it, and
    all that follow it, unless another is at it. A worker whose item failed lays
    down the error and returns it; the crew ends when that is in turn.
    """

    def __init__(self, fn: Callable[[T], U], it: Iterator[T], ahead: int) -> None:
        self.fn = fn
        self.it = it
        self.tokens = sync.Semaphore(ahead)
        self.taking = sync.Mutex()  # guards `it`, `taken`
        self.taken = 0
        self.over = False  # no more items are to be taken
        self.laying = sync.Mutex()  # guards `ready`, `turn`, `sending`
        self.ready: dict[int, tuple[Any, BaseException | None]] = {}
        self.turn = 0
        self.sending = False

    def take(self) -> tuple[int, Any, BaseException | None] | None:
        with self.taking:
            if self.over:
                return None
            item, error = None, None
            try:
                item = next(self.it)
            except StopIteration:
                self.over = True
                return None
            except gort.GoroutineExit:
                raise
            except BaseException as e:
                self.over = True
                error = e
            i = self.taken
            self.taken += 1
            return i, item, error

    def work(self, crew: Crew) -> BaseException | None:
        while not crew.over:  # ended by this one, it is not killed
            self.tokens.acquire()
            if (got := self.take()) is None:
                self.tokens.release()
                return None
            i, item, error = got
            result = got = None
            if error is None:
                try:
                    result = self.fn(item)
                except gort.GoroutineExit:
                    raise
                except BaseException as e:
                    self.over = True
                    error = as_failure(e)
            item = None
            self.lay_down(crew, i, result, error)
            if error is not None:
                try:
                    return error
                finally:
                    del error
            result = None
        return None

    def lay_down(self, crew: Crew, i: int, result: Any, error: BaseException | None) -> None:
        with self.laying:
            self.ready[i] = result, error
            if self.sending:
                return
            self.sending = True
        while True:
            with self.laying:
                if self.turn not in self.ready:
                    self.sending = False
                    return
                result, error = self.ready.pop(self.turn)
                self.turn += 1
            if error is not None:
                crew.end(error)
                return
            crew.put(result)
            self.tokens.release()


def map(
    fn: Callable[[T], U],
    iterable: Iterable[T],
    workers: int,
    *,
    ordered: bool = True,
    buffer: int = 0,
    ctx: _Parent | None = None,
) -> Stream[U]:
    """As the builtin `map(fn, iterable)`, with `workers` calls of `fn` at once.

    Lazy, over an endless iterable too: at most `workers + buffer` items are taken
    that the reader has not received. With `ordered` the results, and the first
    error, come in the order of the items; otherwise as they are ready. An error
    of `fn` or of `iterable` ends the stream, and with it the work on other
    items; one that comes of such work nevertheless goes to `gort.excepthook`.
    The end of `ctx` ends the stream with the context's error. Raises TypeError
    or ValueError for a bad argument. Does not park.

    >>> from itertools import count, islice
    >>> with map(lambda n: n * n, count(), workers=4) as squares:
    ...     list(islice(squares, 5))
    [0, 1, 4, 9, 16]
    """
    check_callable(fn)
    check_count(workers, "workers", 1)
    check_count(buffer, "buffer", 0)
    if not ordered or workers == 1:
        return _stage("map", fn, iterable, workers, buffer, ctx, "iterable")
    shared = _Ordered(fn, iterate(iterable, "iterable"), workers + buffer)
    return Crew("map", [iterable], ctx=ctx).start_one(*[(_work, shared)] * workers)


def _work(crew: Crew, shared: _Ordered[Any, Any]) -> BaseException | None:
    return shared.work(crew)


def _call_each(crew: Crew, fn: Callable[[Any], object], items: Iterator[Any]) -> None:
    for item in items:
        if crew.over:
            return
        fn(item)


def for_each(
    fn: Callable[[T], object],
    iterable: Iterable[T],
    workers: int,
    *,
    timeout: _Seconds | None = None,
    ctx: _Parent | None = None,
) -> None:
    """Call `fn(item)` for each item, `workers` calls at once, and wait for them. Parks.

    Raises the first error, of `fn` or of `iterable`; the calls that still run
    are killed where they wait, and awaited. So they are after `timeout` seconds,
    for TimeoutError, and at the end of `ctx`, for its error. Raises TypeError
    or ValueError for a bad argument.

    >>> seen = []
    >>> for_each(seen.append, range(5), workers=2)
    >>> sorted(seen)
    [0, 1, 2, 3, 4]
    """
    check_callable(fn)
    check_count(workers, "workers", 1)
    it = iterate(iterable, "iterable")
    crew = Crew("for_each", [iterable], ctx=ctx)
    items = it if workers == 1 else Shared(it)
    with crew.start_one(*[(_call_each, fn, items)] * workers) as stream:
        stream.recv_ok(timeout)


# ---- several to one, and one to several ------------------------------------------------


def merge(*sources: Iterable[T], buffer: int = 0, ctx: _Parent | None = None) -> Stream[T]:
    """Fan-in: a stream of the items of all `sources`, as they come.

    The first error of a source ends it. Raises TypeError or ValueError for a bad
    argument. Does not park.

    >>> sorted(merge([1, 2], generate([3]), range(4, 6)))
    [1, 2, 3, 4, 5]
    """
    its = [iterate(s, f"source {i}") for i, s in enumerate(sources)]
    return Crew("merge", sources, buffer=buffer, ctx=ctx).start_one(*[(_feed, it) for it in its])


fan_in = merge


def _split(crew: Crew, it: Iterator[Any], to_each: bool) -> None:
    outs = crew.outs
    for item in it:
        waiting = outs = [out for out in outs if not out.closed]
        if not outs:
            return
        while waiting:
            try:
                i, _, _ = gort.select(*[(out, item) for out in waiting])
            except gort.ChanClosed:
                waiting = [out for out in waiting if not out.closed]
                continue
            waiting = waiting[:i] + waiting[i + 1 :] if to_each else []


def tee(source: Iterable[T], n: int = 2, *, buffer: int = 0, ctx: _Parent | None = None) -> tuple[Stream[T], ...]:
    """`n` streams that each get every item of `source`.

    A reader gets at most `buffer + 1` items ahead of the slowest. One that closes
    its stream is no longer waited for. An error of `source` reaches all of them.
    Raises TypeError or ValueError for a bad argument. Does not park.

    >>> a, b = tee("ab")
    >>> [(next(a), next(b)) for _ in range(2)]
    [('a', 'a'), ('b', 'b')]
    """
    check_count(n, "n", 1)
    it = iterate(source)
    return tuple(Crew("tee", [source], outs=n, buffer=buffer, ctx=ctx).start((_split, it, True)))


def fan_out(source: Iterable[T], n: int, *, buffer: int = 0, ctx: _Parent | None = None) -> tuple[Stream[T], ...]:
    """`n` streams that share the items of `source`: each goes to one whose reader is ready.

    No item is lost when one of them is closed, but for those in its buffer. An
    error of `source` reaches all of them. Raises TypeError or ValueError for a
    bad argument. Does not park.

    >>> a, b = fan_out(range(4), 2)
    >>> sorted([next(a), next(a), next(b), next(b)])
    [0, 1, 2, 3]
    """
    check_count(n, "n", 1)
    it = iterate(source)
    return tuple(Crew("fan_out", [source], outs=n, buffer=buffer, ctx=ctx).start((_split, it, False)))
