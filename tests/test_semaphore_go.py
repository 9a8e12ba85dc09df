"""What x/sync/semaphore's tests and Go's oncefunc_test.go and map_test.go ask of gort.sync, beyond test_sync.py."""

from __future__ import annotations

import random
import traceback
from typing import Any

import pytest
from model_support import EVERYWHERE, PlainThread, park, settle, spin_until

import gort
from gort import context
from gort.atomic import Int64
from gort.errgroup import Group
from gort.sync import Map, Pool, Semaphore, once_func, once_value

everywhere = pytest.mark.parametrize("where", EVERYWHERE)


# ---- Semaphore ----------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [0, 3])
def test_a_hammered_semaphore_never_holds_more_than_its_size(threads: int) -> None:
    size = 8
    sem, held = Semaphore(size), Int64()

    def hammer(n: int, seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(100):
            sem.acquire(n)
            assert held.add(n) <= size
            for _ in range(rng.randrange(3)):
                gort.gosched()
            held.add(-n)
            sem.release(n)

    gs = [gort.go(hammer, n, n) for n in range(size + 1)]
    ts = [PlainThread(hammer, n, n) for n in range(1, threads + 1)]
    for g in gs:
        g.join()
    for t in ts:
        t.result()
    assert sem.try_acquire(size)


def test_release_of_what_nobody_acquired_raises_and_changes_nothing() -> None:
    sem = Semaphore(1)
    with pytest.raises(RuntimeError, match="release of 1"):
        sem.release(1)
    assert [sem.try_acquire(), sem.try_acquire()] == [True, False]
    with pytest.raises(RuntimeError, match="release of 2"):
        sem.release(2)
    assert not sem.try_acquire()
    sem.release()


def test_try_acquire() -> None:
    sem = Semaphore(2)
    sem.acquire()
    tries = [sem.try_acquire(), sem.try_acquire()]
    sem.release(2)
    tries.append(sem.try_acquire())
    sem.acquire()
    tries.append(sem.try_acquire())
    assert tries == [True, False, True, False]


def test_acquire_with_a_deadline() -> None:
    sem = Semaphore(2)

    def attempt(seconds: float) -> bool:
        with context.timeout(seconds) as ctx:
            try:
                sem.acquire(ctx=ctx)
            except context.DeadlineExceeded:
                return False
            return True

    sem.acquire()
    tries = [attempt(60), attempt(0.002)]
    sem.release(2)
    tries.append(attempt(60))
    sem.acquire()
    tries.append(attempt(0.002))
    assert tries == [True, False, True, False]


def test_more_than_the_size_holds_up_nobody() -> None:
    sem = Semaphore(2)
    ctx, cancel = context.with_cancel(context.background())
    oversize = park(lambda: sem.acquire(3, ctx=ctx))
    with Group() as group:
        for _ in range(6):

            def body() -> None:
                with sem:
                    gort.gosched()

            group.go(body)
    cancel()
    with pytest.raises(context.Canceled):
        oversize.join()


def test_a_large_acquire_does_not_starve() -> None:
    size = 4
    sem, running = Semaphore(size), True

    def small() -> None:
        while running:
            gort.gosched()
            sem.release()
            sem.acquire()
        sem.release()

    gs = []
    for _ in range(size):
        sem.acquire()
        gs.append(gort.go(small))
    sem.acquire(size)
    running = False
    sem.release(size)
    for g in gs:
        g.join()


@pytest.mark.parametrize("how", ["cancel", "kill", "timeout"])
def test_a_waiter_at_the_head_that_gives_up_lets_the_others_through(how: str) -> None:
    sem = Semaphore(10)
    sem.acquire(1)
    ctx, cancel = context.with_cancel(context.background())
    writer = gort.go(lambda: sem.acquire(10, timeout=0.05 if how == "timeout" else None, ctx=ctx))
    settle(writer)
    readers = [gort.go(sem.acquire, n) for n in (1, 8)]
    settle(*readers)  # they wait, unless the timeout was quicker
    behind = park(sem.acquire, 1)
    assert not sem.try_acquire()
    if how == "kill":
        writer.kill()
        assert writer.join() is None
    else:
        if how == "cancel":
            cancel()
        with pytest.raises((context.Canceled, TimeoutError)):
            writer.join()
    for g in readers:
        g.join()
    settle(behind)
    assert behind.state == "waiting"
    sem.release(10)
    behind.join()
    sem.release()
    cancel()


def test_a_waiter_amid_the_queue_that_gives_up_changes_nothing_for_the_others() -> None:
    sem, order = Semaphore(3), []
    sem.acquire(3)

    def body(n: int) -> None:
        sem.acquire(n)
        order.append(n)

    first, second, third = park(body, 2), park(body, 3), park(body, 1)
    second.kill()
    second.join()
    assert order == []
    sem.release(2)
    first.join()
    settle(third)
    assert order == [2]
    sem.release(1)
    third.join()
    assert order == [2, 1]


@everywhere
def test_a_context_that_has_ended_acquires_nothing_though_there_is_room(where: Any) -> None:
    sem = Semaphore(2)
    ctx, cancel = context.with_cancel(context.background())
    where(lambda: sem.acquire(ctx=ctx))
    cancel()
    for n in (0, 1, 2):
        with pytest.raises(context.Canceled):
            where(lambda n=n: sem.acquire(n, ctx=ctx))
        with pytest.raises(context.Canceled):
            where(lambda n=n: sem.acquire(n, timeout=0, ctx=ctx))
    sem.release()
    assert sem.try_acquire(2)


def test_a_context_that_ends_before_the_release_wins() -> None:
    # golang.org/issue/63615
    sem = Semaphore(2)
    ctx, cancel = context.with_cancel(context.background())
    sem.acquire()

    def end() -> None:
        while sem.try_acquire():  # until the acquire below waits
            sem.release()
            gort.gosched()
        cancel()
        sem.release()

    g = gort.go(end)
    with pytest.raises(context.Canceled):
        sem.acquire(2, ctx=ctx)
    g.join()
    assert sem.try_acquire(2)


def test_nothing_can_be_acquired_of_a_semaphore_of_nothing_but_nothing() -> None:
    sem = Semaphore(0)
    sem.acquire(0)
    sem.release(0)
    assert sem.try_acquire(0)
    assert not sem.try_acquire(1)
    with pytest.raises(TimeoutError):
        sem.acquire(timeout=0)


# ---- once_func, once_value ------------------------------------------------------------------


@pytest.mark.parametrize("make", [once_func, once_value])
def test_what_a_once_function_raises_again_does_not_grow(make: Any) -> None:
    def fail() -> None:
        raise ValueError("every time")

    def call() -> list[str]:
        with pytest.raises(ValueError, match="every time") as caught:
            fn()
        return [f.name for f in traceback.extract_tb(caught.value.__traceback__) if "semaphore" in f.filename]

    fn = make(fail)
    assert [call() for _ in range(5)] == [["call", "fail"]] * 5


def test_what_a_once_function_raises_keeps_its_context() -> None:
    def fail() -> None:
        try:
            raise KeyError("inner")
        except KeyError:
            raise ValueError("outer")  # noqa: B904

    fn = once_func(fail)
    for _ in range(2):
        try:
            raise OSError("the caller's own affair")
        except OSError:
            with pytest.raises(ValueError, match="outer") as caught:
                fn()
        assert repr(caught.value.__context__) == "KeyError('inner')"


@pytest.mark.parametrize("make", [once_func, once_value])
def test_the_end_of_the_first_caller_is_not_the_end_of_the_others(make: Any) -> None:
    fn = make(gort.Chan().recv)
    first, second = park(fn), park(fn)
    first.kill()
    assert first.join() is None
    with pytest.raises(RuntimeError, match="GoroutineExit"):
        second.join()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="GoroutineExit"):
            fn()


def test_a_once_function_lets_its_function_go() -> None:
    import weakref

    class Callable:
        def __call__(self) -> int:
            return 5

    inner = Callable()
    fn, ref = once_value(inner), weakref.ref(inner)
    del inner
    assert ref() is not None
    assert [fn(), fn()] == [5, 5]
    assert ref() is None


def test_what_join_raises_again_does_not_grow() -> None:
    def fail() -> None:
        raise ValueError

    g = gort.go(fail)
    lengths = set()
    for _ in range(5):
        with pytest.raises(ValueError) as caught:
            g.join()
        lengths.add(len(traceback.extract_tb(caught.value.__traceback__)))
    assert len(lengths) == 1


# ---- Map, Pool --------------------------------------------------------------------------------


def test_range_while_the_map_changes_sees_each_key_at_most_once() -> None:
    m: Map[int, int] = Map()
    for i in range(100):
        m.store(i, 0)
    seen: list[int] = []

    def visit(key: int, value: int) -> None:
        seen.append(key)
        m.delete(key + 1)
        m.store(key + 1000, 0)
        m.store(key, value + 1)
        gort.gosched()

    m.range(visit)
    assert len(seen) == len(set(seen))
    assert {k for k in seen if k < 100} == set(range(0, 100, 2))


def test_range_sees_what_was_there_all_the_time() -> None:
    m: Map[int, int] = Map()
    stop = False
    for i in range(512):
        m.store(i, i)

    def churn(start: int) -> None:
        i = start
        while not stop:
            m.store(i % 512, i % 512)
            m.load_and_delete(1000 + i % 7)
            m.store(1000 + i % 7, i)
            i += 1
            gort.gosched()

    gs = [gort.go(churn, i * 100) for i in range(4)]
    thread = PlainThread(churn, 7)
    for _ in range(20):
        seen: dict[int, int] = {}
        m.range(seen.__setitem__)
        assert all(seen[i] == i for i in range(512))
        gort.gosched()
    stop = True
    for g in gs:
        g.join()
    thread.result()


def test_clear_and_store_at_the_same_time_lose_no_later_store() -> None:
    m: Map[int, int] = Map()
    g = gort.go(lambda: [(m.clear(), gort.gosched()) for _ in range(200)])
    while not g.done:
        m.store(1, 1)
        m.load_or_store(2, 2)
        gort.gosched()
    g.join()
    m.store(3, 3)
    assert m.load(3) == (3, True)
    m.clear()
    found: list[int] = []
    m.range(lambda k, v: found.append(k))
    assert found == []


def test_compare_and_swap_on_what_is_not_there_does_nothing() -> None:
    m: Map[str, Any] = Map()
    assert not m.compare_and_swap("key", None, 1)
    assert not m.compare_and_delete("key", None)
    assert m.load("key") == (None, False)
    assert m.swap("key", None) == (None, False)
    assert m.compare_and_swap("key", None, 1)
    assert m.compare_and_delete("key", 1)
    assert not m.compare_and_delete("key", 1)


def test_a_pool_gives_each_value_to_one_at_a_time() -> None:
    pool, held = Pool(object), set()

    def body() -> None:
        for _ in range(100):
            x = pool.get()
            assert x not in held
            held.add(x)
            gort.gosched()
            held.remove(x)
            pool.put(x)

    gs, thread = [gort.go(body) for _ in range(8)], PlainThread(body)
    for g in gs:
        g.join()
    thread.result()
    spin_until(lambda: not held)
