"""gort.patterns: streams, in every way that they may end; and what each function does."""

from __future__ import annotations

import doctest
import functools
import gc
import itertools
import sys
import time
import traceback
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_support import EVERYWHERE, HandMadeContext, PlainThread, output_of, park, settle, spin_until

import gort
from gort import context, patterns, sync
from gort.patterns import Stream


class Boom(Exception):
    pass


def alone() -> None:
    """All goroutines but main end."""
    spin_until(lambda: gort.num_goroutine() == 1, "one goroutine")


def same(x: Any) -> Any:
    return x


def failing(n: int) -> Iterator[int]:
    yield from range(n)
    raise Boom(n)


def channel_of(items: Iterable[Any]) -> gort.Chan[Any]:
    items = list(items)
    ch = gort.Chan[Any](len(items))
    for item in items:
        ch.send(item)
    ch.close()
    return ch


# Each makes one or more streams that give what the source gives.
Maker = Callable[..., tuple[Stream[Any], ...]]


def one(make: Callable[..., Stream[Any]]) -> Maker:
    return lambda *args, **kw: (make(*args, **kw),)


def flat(make: Callable[..., Stream[Any]]) -> Maker:
    return lambda *args, **kw: (patterns.stage(lambda items: items[0], make(*args, **kw)),)


def until_never(source: Any, ctx: Any = None) -> Stream[Any]:
    return patterns.or_done(gort.Chan[Any]() if ctx is None else ctx, source)


MAKERS: dict[str, Maker] = {
    "generate": one(patterns.generate),
    "generate-buffered": one(functools.partial(patterns.generate, buffer=3)),
    "stage": one(functools.partial(patterns.stage, same)),
    "stage-workers": one(lambda source, **kw: patterns.stage(same, source, 4, **kw)),
    "stage-buffered": one(lambda source, **kw: patterns.stage(same, source, 2, buffer=2, **kw)),
    "pipeline": one(lambda source, **kw: patterns.pipeline(source, same, (same, 3), same, **kw)),
    "pipeline-empty": one(patterns.pipeline),
    "map": one(lambda source, **kw: patterns.map(same, source, 4, **kw)),
    "map-buffered": one(lambda source, **kw: patterns.map(same, source, 2, buffer=3, **kw)),
    "map-one": one(lambda source, **kw: patterns.map(same, source, 1, **kw)),
    "map-unordered": one(lambda source, **kw: patterns.map(same, source, 4, ordered=False, **kw)),
    "merge": one(patterns.merge),
    "merge-three": one(lambda source, **kw: patterns.merge(source, [], [], **kw)),
    "tee": functools.partial(patterns.tee, n=3),
    "fan_out": functools.partial(patterns.fan_out, n=3),
    "batch": flat(lambda source, **kw: patterns.batch(source, 1, **kw)),
    "batch-timed": flat(lambda source, **kw: patterns.batch(source, 1, 3600, **kw)),
    "throttle": one(lambda source, **kw: patterns.throttle(source, 0, **kw)),
    "or_done": one(until_never),
    "deep": one(lambda source, **kw: patterns.generate(patterns.map(same, patterns.merge(source), 3), **kw)),
}

makers = pytest.mark.parametrize("make", [pytest.param(m, id=name) for name, m in MAKERS.items()])
# For or_done() the end of a context is no error.
makers_with_context = pytest.mark.parametrize(
    "make", [pytest.param(m, id=name) for name, m in MAKERS.items() if name != "or_done"]
)
sources = pytest.mark.parametrize(
    "source_of", [pytest.param(list, id="list"), pytest.param(iter, id="iterator"),
                  pytest.param(channel_of, id="channel"), pytest.param(patterns.generate, id="stream")]
)  # fmt: skip


def drain(streams: Iterable[Stream[Any]], read: Callable[[Stream[Any]], Any] = list) -> list[Any]:
    """Read them all at once; the results of `read`."""
    goroutines = [gort.go(read, s) for s in streams]
    return [g.join() for g in goroutines]


def outcome_of(stream: Stream[Any]) -> tuple[list[Any], BaseException | None]:
    items = []
    try:
        for item in stream:
            items.append(item)
    except BaseException as e:
        return items, e
    return items, None


# ---- every way to end, for every kind of stream ---------------------------------------


@makers
@sources
def test_all_items_come_and_the_goroutines_go(make: Maker, source_of: Callable[[Any], Any]) -> None:
    streams = make(source_of(range(20)))
    items = list(itertools.chain(*drain(streams)))
    assert set(items) == set(range(20))
    assert len(items) in (20, 60)
    assert gort.num_goroutine() == 1
    for s in streams:
        assert list(s) == []
        assert s.recv_ok() == (None, False)
        with pytest.raises(gort.ChanClosed):
            s.recv()
        with pytest.raises(gort.ChanClosed):
            s.recv_nowait()


@makers
def test_an_empty_source_gives_an_empty_stream(make: Maker) -> None:
    assert all(items == [] for items in drain(make([])))
    assert gort.num_goroutine() == 1


@makers
@pytest.mark.parametrize("read", [0, 1, 5])
@pytest.mark.parametrize("how", ["close", "with", "drop", "error"])
def test_an_endless_stream_may_be_left(make: Maker, read: int, how: str) -> None:
    gc.disable()  # `drop` is to do without a collection
    try:
        streams = make(patterns.generate(itertools.count()) if read == 1 else itertools.count())

        def take(s: Stream[Any]) -> None:
            for _ in itertools.islice(s, read):
                pass

        drain(streams, take)
        if how == "close":
            for s in streams:
                s.close()
                assert list(s) == []
                s.close()
            assert gort.num_goroutine() == 1
        elif how == "with":
            for s in streams:
                with s as entered:
                    assert entered is s
            assert gort.num_goroutine() == 1
        elif how == "error":
            for s in streams:
                with pytest.raises(Boom), s:
                    raise Boom
            assert gort.num_goroutine() == 1
        else:
            s = None  # type: ignore[assignment]
            del streams
            alone()
    finally:
        gc.enable()


@makers
def test_a_reader_that_is_killed_leaves_nothing(make: Maker) -> None:
    gate = gort.Chan[Any]()  # the source waits, and so do the readers

    def read() -> None:
        readers = [gort.go(list, s) for s in make(gate)]
        settle(*readers)
        for r in readers:
            r.kill()
            assert r.join() is None

    gc.disable()
    try:
        gort.go(read).join()
        alone()
    finally:
        gc.enable()
    with pytest.raises(gort.WouldBlock):
        gate.send_nowait(1)


@makers
def test_a_loop_that_raises_leaves_nothing(make: Maker) -> None:
    def read(s: Iterator[Any]) -> None:
        for _ in s:
            raise Boom

    def all_of_it() -> None:
        for g in [gort.go(read, s) for s in make(itertools.count())]:
            with pytest.raises(Boom):
                g.join()

    all_of_it()
    gc.collect()
    alone()


@makers
@pytest.mark.parametrize("before", [0, 1, 10])
def test_an_error_of_the_source_is_raised_in_the_reader(make: Maker, before: int) -> None:
    streams = make(failing(before))
    for items, error in drain(streams, outcome_of):
        assert isinstance(error, Boom)
        assert error.args == (before,)
        assert set(items) <= set(range(before))
        assert "failing" in [f.name for f in traceback.extract_tb(error.__traceback__)]
    assert gort.num_goroutine() == 1
    for s in streams:
        for read in (lambda s: next(s), lambda s: s.recv(), lambda s: s.recv_ok(), lambda s: s.recv_nowait()):
            with pytest.raises(Boom) as caught:
                read(s)
            names = [f.name for f in traceback.extract_tb(caught.value.__traceback__)]
            assert names.count("failing") == 1
            assert len(names) < 8  # however often it is raised
        s.close()


@makers
def test_an_error_nobody_received_is_told(make: Maker, panics: list[Any]) -> None:
    closed = make(failing(0))
    spin_until(lambda: all(s.closed for s in closed), "the error")
    for s in closed:
        s.close()
    assert gort.num_goroutine() == 1
    assert {type(e) for _, e in panics} == {Boom}
    panics.clear()

    s = None  # type: ignore[assignment]
    closed = make(failing(0))
    spin_until(lambda: all(s.closed for s in closed), "the error")
    alone()
    closed = ()
    gc.collect()
    assert {type(e) for _, e in panics} == {Boom}


@makers
def test_a_context_ends_it(make: Maker) -> None:
    ctx, cancel = context.with_cancel(context.background())
    streams = make(gort.NIL, ctx=ctx)
    readers = [gort.go(outcome_of, s) for s in streams]
    settle(*readers)
    cancel()
    results = [r.join() for r in readers]
    if make is not MAKERS["or_done"]:  # where it is no error
        assert all(isinstance(error, context.Canceled) for _, error in results)
    alone()
    for s in streams:
        s.close()


@makers_with_context
def test_a_context_that_has_ended_lets_nothing_begin(make: Maker) -> None:
    ctx, cancel = context.with_cancel(context.background())
    cancel()
    taken: list[int] = []
    source = (taken.append(n) for n in itertools.count())
    for items, error in drain(make(source, ctx=ctx), outcome_of):
        assert items == []
        assert isinstance(error, context.Canceled)
    assert len(taken) <= 4  # by the stages before the last, which alone has the context
    alone()


@pytest.mark.parametrize("name", ["generate", "stage-workers", "map", "map-unordered", "merge", "tee", "fan_out"])
def test_a_context_that_has_ended_starts_no_goroutine(name: str) -> None:
    ctx, cancel = context.with_cancel(context.background())
    cancel()
    made = gort.go(int).id
    streams = MAKERS[name](itertools.count(), ctx=ctx)
    assert gort.go(int).id == made + 1
    for s in streams:
        with pytest.raises(context.Canceled):
            next(s)
    alone()


class Thing:
    pass


@pytest.mark.parametrize("how", ["close", "drop", "end"])
def test_a_context_does_not_keep_what_has_ended(how: str) -> None:
    ctx, cancel = context.with_cancel(context.background())
    thing = Thing()
    gone = weakref.ref(thing)
    gc.disable()
    try:
        s = patterns.generate([thing, 7][: 1 if how == "end" else 2], buffer=1, ctx=ctx)
        del thing
        spin_until(lambda: len(s) == 1, "an item in the buffer")
        if how == "close":
            s.close()
        elif how == "end":
            assert len(list(s)) == 1
        s = None  # type: ignore[assignment]
        alone()
        assert gone() is None
    finally:
        gc.enable()
    cancel()
    alone()


def test_streams_that_are_held_end_with_what_is_made_from_them() -> None:
    held = [patterns.generate(itertools.count())]
    for _ in range(3):
        held.append(patterns.stage(same, held[-1]))
    last = patterns.stage(same, held[-1])
    assert next(last) == 0
    del last
    assert all(s.closed for s in held)
    alone()


def test_a_function_that_never_waits_is_ended_too() -> None:
    """By the thread that waits for it; it gives up the GIL, but does not park."""

    def call() -> None:
        patterns.for_each(lambda _: time.sleep(0.0001), itertools.count(), 1, timeout=0.001)

    with pytest.raises(TimeoutError):
        PlainThread(call).result()
    alone()


@makers
def test_a_context_of_ones_own_ends_it(make: Maker) -> None:
    ctx = HandMadeContext()
    streams = make(gort.NIL, ctx=ctx)
    readers = [gort.go(outcome_of, s) for s in streams]
    settle(*readers)
    ctx.end(Boom())
    for r in readers:
        _, error = r.join()
        assert isinstance(error, Boom) or make is MAKERS["or_done"]
    alone()


@makers
def test_a_goroutine_that_ends_itself_is_an_error(make: Maker) -> None:
    def source() -> Iterator[int]:
        yield 0
        gort.goexit()

    for _, error in drain(make(source()), outcome_of):
        assert isinstance(error, RuntimeError)
        assert "goexit" in str(error)
    alone()


@makers
def test_a_stop_iteration_is_an_error(make: Maker) -> None:
    class Odd:
        """Raises StopIteration where no iterator should: in __iter__'s place of another."""

        def __init__(self) -> None:
            self.first = True

        def __iter__(self) -> Iterator[int]:
            return patterns.stage(self.call, [1, 2])

        def call(self, n: int) -> int:
            raise StopIteration

    for items, error in drain(make(Odd()), outcome_of):
        assert items == []
        assert isinstance(error, RuntimeError)
        assert isinstance(error.__cause__, StopIteration)
    alone()


@makers
@pytest.mark.parametrize("where", EVERYWHERE)
def test_it_is_read_from_everywhere(make: Maker, where: Callable[[Callable[[], Any]], Any]) -> None:
    def read() -> None:
        streams = make(range(10))
        threads = [PlainThread(list, s) for s in streams]
        items = list(itertools.chain(*(t.result() for t in threads)))
        assert set(items) == set(range(10))
        with make(itertools.count())[0] as s:
            assert s.recv() == 0
        with pytest.raises(TimeoutError):
            make(gort.NIL)[0].recv(0.001)

    where(read)
    gc.collect()
    alone()


@makers
def test_closing_it_wakes_another_reader(make: Maker) -> None:
    streams = make(gort.NIL)
    readers = [park(list, s) for s in streams]
    for s in streams:
        s.close()
    assert [r.join() for r in readers] == [[] for _ in readers]
    assert gort.num_goroutine() == 1


@makers
def test_several_read_one(make: Maker) -> None:
    streams = make(range(50))
    items = list(itertools.chain(*drain([s for s in streams for _ in range(3)])))
    assert sorted(items) in (sorted(range(50)), sorted([*range(50)] * 3))


@makers
def test_it_can_be_selected_from(make: Maker) -> None:
    streams = make(range(3))
    left = list(streams)
    seen = set()
    while left:
        i, value, ok = gort.select(*left)
        if ok:
            seen.add(value)
        else:
            assert left.pop(i).recv_ok() == (None, False)
    assert seen == {0, 1, 2}


def test_closing_waits_for_cleanup_and_no_longer_than_told() -> None:
    gate = gort.Chan[None]()
    ended = []

    def stubborn(n: int) -> None:
        try:
            gort.NIL.recv()
        finally:
            gate.recv_ok()
            ended.append(n)

    s = patterns.stage(stubborn, [1, 2, 3], 2)
    spin_until(lambda: gort.stack(all=True).count("nil chan") == 2, "two calls")
    with pytest.raises(TimeoutError):
        s.close(0.001)
    ctx, cancel = context.with_cancel(context.background())
    cancel()
    with pytest.raises(context.Canceled):
        s.close(ctx=ctx)
    closer = park(s.close)
    gate.close()
    closer.join()
    assert sorted(ended) == [1, 2]


def test_a_reader_waits_for_the_others_to_end_before_it_gets_the_error() -> None:
    ended = []

    def work(n: int) -> None:
        if n == 3:
            raise Boom
        try:
            gort.NIL.recv()
        finally:
            gort.sleep(0.001)
            ended.append(n)

    s = patterns.stage(work, range(4), 4)
    with pytest.raises(Boom):
        s.recv()
    assert sorted(ended) == [0, 1, 2]
    assert gort.num_goroutine() == 1


def test_a_stream_may_be_closed_by_the_function_it_calls() -> None:
    box: list[Stream[Any]] = []

    def work(n: int) -> int:
        box[0].close()
        return n

    box.append(patterns.stage(work, range(10), 3))
    assert list(box[0]) == []
    alone()
    box.clear()


def test_errors_of_others_are_told_to_the_excepthook(panics: list[Any]) -> None:
    barrier = gort.Chan[None]()

    def work(n: int) -> None:
        barrier.recv_ok()
        raise Boom(n)

    s = patterns.stage(work, range(3), 3)
    spin_until(lambda: gort.stack(all=True).count("[chan receive]") == 3, "three calls")
    barrier.close()
    with pytest.raises(Boom) as caught:
        next(s)
    errors = {caught.value.args[0], *(e.args[0] for _, e in panics)}
    assert errors == {0, 1, 2}
    assert len(panics) == 2
    assert all(g.name == "gort.patterns.stage" for g, _ in panics)


def test_the_context_s_errors_of_others_are_told_to_nobody() -> None:
    ctx, cancel = context.with_cancel(context.background())
    s = patterns.stage(lambda _: gort.NIL.recv(ctx=ctx), range(3), 3)
    spin_until(lambda: gort.stack(all=True).count("nil chan") == 3, "three calls")
    cancel()
    with pytest.raises(context.Canceled):
        next(s)


def test_a_keyboard_interrupt_comes_once() -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(patterns.stage(interrupt, [1]))
    gort.gosched()


def test_run_unwinds_streams() -> None:
    assert (
        output_of("""
        import gort
        from gort import patterns
        from itertools import count
        def main():
            global kept
            kept = [patterns.generate(count()), patterns.map(abs, count(), 3), *patterns.tee(count())]
            return [next(s) for s in kept[:2]]
        print(gort.run(main))
        print(gort.num_goroutine())
        kept = patterns.generate(patterns.map(abs, count(), 3))  # alive at the end of the program
        next(kept)
    """)
        == "[0, 0]\n1\n"
    )


def test_a_deadlock_is_seen_through_streams() -> None:
    with pytest.raises(gort.Deadlock):
        next(patterns.map(lambda _: gort.NIL.recv(), itertools.count(), 2))
    alone()


@pytest.mark.parametrize("how", ["close", "drop", "error", "drain"])
def test_a_thousand_stages_end_without_recursion(how: str) -> None:
    s: Stream[int] = patterns.generate(
        failing(3) if how == "error" else range(3) if how == "drain" else itertools.count()
    )
    for _ in range(1000):
        s = patterns.stage(same, s)
    assert next(s) == 0
    if how == "close":
        s.close()
        assert gort.num_goroutine() == 1
    elif how == "error":
        items, error = outcome_of(s)
        assert (items, type(error)) == ([1, 2], Boom)
        assert gort.num_goroutine() == 1
    elif how == "drain":
        assert list(s) == [1, 2]
        assert gort.num_goroutine() == 1
    del s
    alone()


def test_streams_are_not_made_by_hand() -> None:
    for cls in (patterns.Stream, patterns.Subscription):
        with pytest.raises(TypeError, match="is made by"):
            cls(gort.Chan())


def test_a_stream_says_what_it_is() -> None:
    s = patterns.generate([1])
    assert repr(s) == "<Stream of gort.patterns.generate open>"
    s.close()
    assert repr(s) == "<Stream of gort.patterns.generate ended>"


# ---- map, stage ---------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 5), max_size=30), st.integers(1, 6), st.booleans(), st.integers(0, 4),
    st.sampled_from([list, iter, channel_of, patterns.generate]),
)  # fmt: skip
def test_map_is_the_builtin_map(
    yields: list[int], workers: int, ordered: bool, buffer: int, source_of: Callable[[Any], Any]
) -> None:
    def work(item: tuple[int, int]) -> int:
        n, turns = item
        for _ in range(turns):  # so they do not come in order by themselves
            gort.gosched()
        return n

    items = list(enumerate(yields))
    got = list(patterns.map(work, source_of(items), workers, ordered=ordered, buffer=buffer))
    assert (got if ordered else sorted(got)) == [n for n, _ in items]
    assert gort.num_goroutine() == 1


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(1, 6), st.integers(0, 4), st.data(),
)  # fmt: skip
def test_an_ordered_map_raises_in_order(yields: list[int], workers: int, buffer: int, data: st.DataObject) -> None:
    bad = data.draw(st.integers(0, len(yields) - 1))

    def work(item: tuple[int, int]) -> int:
        n, turns = item
        for _ in range(turns):
            gort.gosched()
        if n == bad:
            raise Boom(n)
        return n

    items, error = outcome_of(patterns.map(work, enumerate(yields), workers, buffer=buffer))
    assert items == list(range(bad))
    assert isinstance(error, Boom)
    assert gort.num_goroutine() == 1


@given(st.integers(0, 20), st.integers(1, 6))
def test_an_ordered_map_gives_all_results_before_its_source_failed(n: int, workers: int) -> None:
    def slow(i: int) -> int:
        for _ in range(20 - i):
            gort.gosched()
        return i

    items, error = outcome_of(patterns.map(slow, failing(n), workers))
    assert items == list(range(n))
    assert isinstance(error, Boom)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("buffer", [0, 2])
def test_map_takes_no_more_than_its_look_ahead(ordered: bool, workers: int, buffer: int) -> None:
    taken: list[int] = []

    def source() -> Iterator[int]:
        for n in itertools.count():
            taken.append(n)
            yield n

    with patterns.map(same, source(), workers, ordered=ordered, buffer=buffer) as s:
        for received in range(20):
            for _ in range(200):
                gort.gosched()
            assert len(taken) == received + workers + buffer
            next(s)


def test_map_calls_so_many_at_once() -> None:
    now, most = 0, 0

    def work(n: int) -> int:
        nonlocal now, most
        now += 1
        most = max(most, now)
        gort.sleep(0.0005)
        now -= 1
        return n

    assert list(patterns.map(work, range(40), 5)) == list(range(40))
    assert most == 5


def test_a_slow_item_holds_up_no_more_than_the_look_ahead() -> None:
    gate = gort.Chan[None]()
    done: list[int] = []

    def work(n: int) -> int:
        if n == 0:
            gate.recv_ok()
        done.append(n)
        return n

    s = patterns.map(work, range(10), 2, buffer=3)
    reader = park(list, s)
    for _ in range(200):
        gort.gosched()
    assert done == [1, 2, 3, 4]
    gate.close()
    assert reader.join() == list(range(10))


def test_a_later_error_of_an_ordered_map_waits_for_its_turn(panics: list[Any]) -> None:
    gate = gort.Chan[None]()

    def work(n: int) -> int:
        if n == 0:
            gate.recv_ok()
            raise Boom(0)
        raise Boom(1)

    s = patterns.map(work, [0, 1, 2, 3], 2)
    reader = park(outcome_of, s)
    gate.close()
    items, error = reader.join()
    assert (items, error.args) == ([], (0,))
    assert [e.args for _, e in panics] == [(1,)]


def test_results_are_not_kept() -> None:
    gone: list[weakref.ref[Thing]] = []

    def make(_: int) -> Thing:
        thing = Thing()
        gone.append(weakref.ref(thing))
        return thing

    for s in (patterns.map(make, range(4), 2), patterns.stage(make, range(4)), patterns.generate(make(n) for n in [1])):
        for thing in s:
            del thing
    assert [r() for r in gone] == [None] * 9


# ---- for_each --------------------------------------------------------------------------


@given(st.lists(st.integers()), st.integers(1, 5))
def test_for_each_calls_for_each(items: list[int], workers: int) -> None:
    seen: list[int] = []
    assert patterns.for_each(seen.append, iter(items), workers) is None
    assert sorted(seen) == sorted(items)
    assert gort.num_goroutine() == 1


def test_for_each_raises_the_first_error_and_ends_the_rest() -> None:
    ended = []

    def work(n: int) -> None:
        if n == 2:
            raise Boom
        try:
            gort.NIL.recv()
        finally:
            ended.append(n)

    with pytest.raises(Boom):
        patterns.for_each(work, itertools.count(), 3)
    assert sorted(ended) == [0, 1]
    assert gort.num_goroutine() == 1


def test_for_each_ends_with_time_and_context_and_kill() -> None:
    def wait(_: int) -> None:
        gort.NIL.recv()

    with pytest.raises(TimeoutError):
        patterns.for_each(wait, range(3), 2, timeout=0.001)
    assert gort.num_goroutine() == 1
    ctx, cancel = context.with_timeout(context.background(), 0.001)
    with pytest.raises(context.DeadlineExceeded):
        patterns.for_each(wait, range(3), 2, ctx=ctx)
    cancel()
    alone()
    g = park(patterns.for_each, wait, range(3), 2)
    g.kill()
    assert g.join() is None
    assert gort.num_goroutine() == 1


# ---- merge, tee, fan_out, or_done, pipeline ----------------------------------------------


@given(st.lists(st.lists(st.integers(), max_size=6), max_size=5), st.integers(0, 3))
def test_merge_gives_each_source_in_its_order(lists: list[list[int]], buffer: int) -> None:
    tagged = [[(i, n) for n in items] for i, items in enumerate(lists)]
    got = list(patterns.merge(*tagged, buffer=buffer))
    assert [[x for x in got if x[0] == i] for i in range(len(lists))] == tagged


def test_the_first_error_ends_a_merge() -> None:
    _, error = outcome_of(patterns.merge(gort.NIL, patterns.generate(itertools.count()), failing(2)))
    assert isinstance(error, Boom)
    assert gort.num_goroutine() == 1


def test_fan_in_is_merge() -> None:
    assert patterns.fan_in is patterns.merge


@given(st.lists(st.integers(), max_size=20), st.integers(1, 4), st.integers(0, 3))
def test_tee_gives_everything_to_each(items: list[int], n: int, buffer: int) -> None:
    assert drain(patterns.tee(items, n, buffer=buffer)) == [items] * n


@given(st.lists(st.integers(), max_size=20), st.integers(1, 4), st.integers(0, 3))
def test_fan_out_gives_each_item_to_one(items: list[int], n: int, buffer: int) -> None:
    got = drain(patterns.fan_out(items, n, buffer=buffer))
    assert sorted(itertools.chain(*got)) == sorted(items)


@pytest.mark.parametrize("buffer", [0, 2])
def test_a_reader_of_a_tee_gets_no_further_ahead(buffer: int) -> None:
    a, b = patterns.tee(itertools.count(), buffer=buffer)
    for n in range(buffer + 1):
        assert next(a) == n
    with pytest.raises(TimeoutError):
        a.recv(0.001)
    assert next(b) == 0
    assert next(a) == buffer + 1
    a.close()
    b.close()


@pytest.mark.parametrize("split", [patterns.tee, patterns.fan_out])
def test_a_reader_that_leaves_is_not_waited_for(split: Callable[..., Any]) -> None:
    a, b, c = split(range(6), 3)
    got = [next(a) for _ in range(1)]
    b.close()
    c.close()
    got += a
    assert got == list(range(6))
    assert gort.num_goroutine() == 1


def test_fan_out_loses_nothing_when_a_reader_leaves() -> None:
    a, b = patterns.fan_out(range(6), 2)
    for _ in range(10):
        gort.gosched()  # it waits with the first item in hand
    b.close()
    assert list(a) == list(range(6))


def test_the_source_of_a_tee_lives_until_the_last_reader_leaves() -> None:
    source = patterns.generate(itertools.count())
    a, b = patterns.tee(source)
    a.close()
    assert next(b) == 0
    assert not source.closed
    b.close()
    assert source.closed
    assert gort.num_goroutine() == 1


def test_or_done_ends_with_a_channel_or_a_context_and_without_an_error() -> None:
    for way in ("close", "send", "cancel"):
        ch = gort.Chan[Any](1)
        ctx, cancel = context.with_cancel(context.background())
        s = patterns.or_done(ctx if way == "cancel" else ch.receiver(), gort.NIL)
        reader = park(list, s)
        ends: dict[str, Callable[[], object]] = {
            "close": ch.close, "send": functools.partial(ch.send, 1), "cancel": cancel,
        }  # fmt: skip
        ends[way]()
        assert reader.join() == []
        cancel()
        assert gort.num_goroutine() == 1


def test_or_done_takes_nothing_once_done() -> None:
    done, source = gort.Chan[None](), gort.Chan[int](1)
    done.close()
    source.send(7)
    assert list(patterns.or_done(done, source)) == []
    assert len(source) == 1


def test_or_done_ends_while_it_waits_for_its_reader() -> None:
    done = gort.Chan[None]()
    s = patterns.or_done(done, [1, 2, 3])
    for _ in range(10):
        gort.gosched()
    done.close()
    assert list(s) in ([], [1])


def test_a_pipeline_runs_all_stages_at_once() -> None:
    gates = [gort.Chan[int]() for _ in range(3)]

    def through(gate: gort.Chan[int]) -> Callable[[int], int]:
        return lambda n: gate.recv()

    s = patterns.pipeline(range(9), *(through(g) for g in gates))
    for i, gate in enumerate(gates):
        gate.send(i)  # the stage of this gate has an item
    for gate in gates[:2]:
        gate.send(9)
    reader = gort.go(next, s)
    assert reader.join() == 2
    s.close()


def test_a_pipeline_of_no_stages_is_its_source() -> None:
    assert list(patterns.pipeline([1, 2])) == [1, 2]


# ---- the clock -----------------------------------------------------------------------------


@given(st.lists(st.integers()), st.integers(1, 7), st.sampled_from([None, 3600.0, 0]))
def test_batches_are_the_input_again(items: list[int], size: int, seconds: float | None) -> None:
    batches = list(patterns.batch(items, size, seconds))
    assert list(itertools.chain(*batches)) == items
    assert all(1 <= len(b) <= size for b in batches)
    if seconds != 0:
        assert all(len(b) == size for b in batches[:-1])
    assert gort.num_goroutine() == 1


def test_a_batch_that_is_old_enough_is_sent() -> None:
    ch = gort.Chan[int]()
    s = patterns.batch(ch, 3, 0.01)
    ch.send(1)
    ch.send(2)
    assert next(s) == [1, 2]
    ch.send(3)
    ch.send(4)
    ch.send(5)
    assert next(s) == [3, 4, 5]
    ch.close()
    assert list(s) == []


def test_what_came_before_an_error_is_a_batch() -> None:
    items, error = outcome_of(patterns.batch(failing(5), 2))
    assert items == [[0, 1], [2, 3], [4]]
    assert isinstance(error, Boom)


def test_debounce_sends_the_last_of_a_burst() -> None:
    ch = gort.Chan[int]()
    s = patterns.debounce(ch, 0.01)
    for n in range(5):
        ch.send(n)
    assert next(s) == 4
    ch.send(5)
    assert next(s) == 5
    ch.send(6)
    ch.close()
    assert list(s) == [6]
    assert gort.num_goroutine() == 1


def test_debounce_gives_a_late_reader_the_newest() -> None:
    ch = gort.Chan[int]()
    s = patterns.debounce(ch, 0)
    ch.send(1)
    spin_until(lambda: "_select_put" in gort.stack(all=True), "an offer")
    ch.send(2)
    spin_until(lambda: "_select_put" in gort.stack(all=True), "an offer")
    assert next(s) == 2
    ch.close()


def test_debounce_sends_the_last_before_an_error() -> None:
    items, error = outcome_of(patterns.debounce(failing(3), 3600))
    assert items == [2]
    assert isinstance(error, Boom)


def test_throttle_lets_one_through_in_a_while() -> None:
    assert list(patterns.throttle(range(100), 3600)) == [0]
    ch = gort.Chan[int]()
    s = patterns.throttle(ch, 0.005)
    ch.send(1)
    assert next(s) == 1
    ch.send(2)
    gort.sleep(0.006)
    ch.send(3)
    got = next(s)
    assert got in (2, 3)
    ch.close()


# ---- bad input --------------------------------------------------------------------------------

F = same
BAD: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: patterns.generate(7), TypeError, "iterable must be a channel or an iterable, not 7"),  # type: ignore[arg-type]
    (lambda: patterns.generate([], buffer=-1), ValueError, "buffer must be at least 0, not -1"),
    (lambda: patterns.generate([], buffer=True), TypeError, "buffer must be an int, not True"),
    (lambda: patterns.generate([], ctx="ctx"), TypeError, "ctx must be a context, not 'ctx'"),  # type: ignore[arg-type]
    (lambda: patterns.stage(7, []), TypeError, "fn must be callable, not 7"),  # type: ignore[arg-type]
    (lambda: patterns.stage(F, 7), TypeError, "source must be a channel or an iterable, not 7"),  # type: ignore[arg-type]
    (lambda: patterns.stage(F, [], 0), ValueError, "workers must be at least 1, not 0"),
    (lambda: patterns.stage(F, [], 1.5), TypeError, "workers must be an int, not 1.5"),  # type: ignore[arg-type]
    (lambda: patterns.map(F, 7, 2), TypeError, "iterable must be a channel or an iterable, not 7"),  # type: ignore[arg-type]
    (lambda: patterns.map(F, 7, 1), TypeError, "iterable must be a channel or an iterable, not 7"),  # type: ignore[arg-type]
    (lambda: patterns.map(F, [], 0), ValueError, "workers must be"),
    (lambda: patterns.map(F, [], 2, buffer=-1), ValueError, "buffer must be"),
    (lambda: patterns.map(None, [], 2), TypeError, "fn must be"),  # type: ignore[arg-type]
    (lambda: patterns.for_each(F, 7, 2), TypeError, "iterable must be"),  # type: ignore[arg-type]
    (lambda: patterns.for_each(F, [], 0), ValueError, "workers must be"),
    (lambda: patterns.for_each(F, [], 1, timeout="1"), TypeError, "timeout must be"),  # type: ignore[arg-type]
    (lambda: patterns.pipeline(itertools.count(), F, 7), TypeError, "stage 1 must be callable, not 7"),  # type: ignore[call-overload]
    (lambda: patterns.pipeline([], F, (F, 0)), ValueError, "the workers of stage 1 must be at least 1, not 0"),
    (lambda: patterns.pipeline(itertools.count(), F, ctx=7), TypeError, "ctx must be"),  # type: ignore[call-overload]
    (lambda: patterns.merge([], 7), TypeError, "source 1 must be a channel or an iterable, not 7"),
    (lambda: patterns.tee([], 0), ValueError, "n must be at least 1, not 0"),
    (lambda: patterns.tee(7), TypeError, "source must be"),  # type: ignore[arg-type]
    (lambda: patterns.fan_out([], 0), ValueError, "n must be at least 1, not 0"),
    (lambda: patterns.or_done(7, []), TypeError, "done must be a context or a channel, not 7"),  # type: ignore[arg-type]
    (lambda: patterns.or_done(gort.Chan(), 7), TypeError, "source must be"),  # type: ignore[arg-type]
    (lambda: patterns.batch(itertools.count(), 0), ValueError, "size must be at least 1, not 0"),
    (lambda: patterns.batch(itertools.count(), 1, "1"), TypeError, "seconds must be a number of seconds, not '1'"),  # type: ignore[arg-type]
    (lambda: patterns.batch(itertools.count(), 1, float("nan")), ValueError, "seconds must be .*nan"),
    (lambda: patterns.batch(7, 1), TypeError, "source must be"),  # type: ignore[arg-type]
    (lambda: patterns.batch(itertools.count(), 1, buffer=-1), ValueError, "buffer must be"),
    (lambda: patterns.debounce(itertools.count(), None), TypeError, "seconds must be"),  # type: ignore[arg-type]
    (lambda: patterns.throttle(itertools.count(), 1, ctx=7), TypeError, "ctx must be"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("call", "error", "words"), BAD)
def test_bad_input_is_named_and_starts_nothing(call: Callable[[], object], error: type[Exception], words: str) -> None:
    if "timeout" in words:
        with pytest.raises(error, match=words):
            call()
        alone()
        return
    made = gort.go(int).id
    gort.gosched()
    with pytest.raises(error, match=words):
        call()
    assert gort.go(int).id == made + 1, "a goroutine was started"
    alone()


def test_the_doctests() -> None:
    names = ["gort.patterns", *(n for n in sys.modules if n.startswith("gort.patterns."))]
    results = [doctest.testmod(sys.modules[name]) for name in names]
    assert sum(r.failed for r in results) == 0
    assert sum(r.attempted for r in results) > 30
    alone()


def test_a_shared_source_is_asked_by_one_at_a_time() -> None:
    mutex = sync.Mutex()

    def source() -> Iterator[int]:
        for n in range(20):
            assert mutex.try_lock()
            gort.gosched()
            mutex.unlock()
            yield n

    assert sorted(patterns.stage(same, source(), 4)) == list(range(20))
