"""sync.WaitGroup, Once, once_func, once_value, Cond, Pool, Semaphore and Map."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from model_support import EVERYWHERE, PlainThread, park, settle, spin_until

import gort
from gort.sync import Cond, Map, Mutex, Once, Pool, RWMutex, Semaphore, WaitGroup, once_func, once_value

everywhere = pytest.mark.parametrize("where", EVERYWHERE)


# ---- WaitGroup --------------------------------------------------------------------


@everywhere
def test_wait_of_nothing_returns(where: Any) -> None:
    wg = WaitGroup()
    assert where(wg.wait) is None
    wg.add(1)
    wg.done()
    assert where(wg.wait) is None


@everywhere
def test_wait_returns_when_all_are_done(where: Any) -> None:
    wg, done = WaitGroup(), []

    def body(i: int) -> None:
        gort.gosched()
        done.append(i)
        wg.done()

    wg.add(5)
    gs = [gort.go(body, i) for i in range(5)]
    where(wg.wait)
    assert sorted(done) == [0, 1, 2, 3, 4]
    for g in gs:
        g.join()


def test_all_waiters_wake_at_once() -> None:
    wg = WaitGroup()
    wg.add(2)
    gs = [park(wg.wait) for _ in range(10)]
    thread = PlainThread(wg.wait)
    wg.done()
    settle(*gs)
    assert all(g.state == "waiting" for g in gs)
    wg.done()
    for g in gs:
        g.join()
    thread.result()


def test_a_wait_group_can_be_used_again() -> None:
    wg = WaitGroup()
    for _ in range(5):
        wg.add(1)
        g = park(wg.wait)
        wg.done()
        g.join()


def test_add_may_be_negative_but_not_the_counter() -> None:
    wg = WaitGroup()
    wg.add(3)
    wg.add(-2)
    g = park(wg.wait)
    wg.add(-1)
    g.join()
    for bad in (wg.done, lambda: wg.add(-1), lambda: wg.add(-(2**40))):
        with pytest.raises(RuntimeError):
            bad()
    wg.add(1)
    with pytest.raises(TimeoutError):
        wg.wait(timeout=0)
    wg.done()
    wg.wait()


def test_a_counter_too_low_changes_nothing() -> None:
    wg = WaitGroup()
    wg.add(2)
    g = park(wg.wait)
    with pytest.raises(RuntimeError):
        wg.add(-3)
    settle(g)
    assert g.state == "waiting"
    wg.add(-2)
    g.join()


@pytest.mark.parametrize("value", ["1", None, 1.5, []])
def test_add_of_no_integer_raises_type_error(value: Any) -> None:
    wg = WaitGroup()
    with pytest.raises(TypeError):
        wg.add(value)
    wg.wait()


def test_go_counts_up_and_down() -> None:
    wg, done = WaitGroup(), []
    for i in range(5):
        wg.go(done.append, i)
    wg.wait()
    assert sorted(done) == [0, 1, 2, 3, 4]


def test_go_counts_down_also_if_the_function_raises(panics: list[Any]) -> None:
    wg = WaitGroup()
    for i in range(3):
        wg.go(divmod, i, 0)
    wg.wait()
    spin_until(lambda: len(panics) == 3)
    assert all(isinstance(exc, ZeroDivisionError) for _, exc in panics)


def test_go_counts_down_also_after_goexit() -> None:
    wg = WaitGroup()
    wg.go(gort.goexit)
    wg.wait()


def test_go_of_a_non_callable_raises_type_error_and_counts_nothing() -> None:
    wg = WaitGroup()
    with pytest.raises(TypeError):
        wg.go(5)  # type: ignore[arg-type]
    wg.wait()


# ---- Once ---------------------------------------------------------------------------


def test_once_runs_the_first_function_only() -> None:
    once, ran = Once(), []
    for i in range(3):
        assert once.do(lambda i=i: ran.append(i)) is None
    assert ran == [0]


def test_everybody_waits_for_the_first() -> None:
    once, gate, log = Once(), gort.Chan(), []

    def first() -> None:
        gate.recv()
        log.append("first")

    g = park(once.do, first)
    gs = [park(once.do, lambda: log.append("never")) for _ in range(5)]
    thread = PlainThread(once.do, lambda: log.append("never"))
    gate.send(None)
    for h in [g, *gs]:
        h.join()
    thread.result()
    assert log == ["first"]


def test_a_once_whose_function_raised_is_done() -> None:
    once, ran = Once(), []
    with pytest.raises(ZeroDivisionError):
        once.do(lambda: divmod(1, 0))
    once.do(lambda: ran.append(1))
    assert ran == []


def test_a_once_whose_function_was_killed_is_done() -> None:
    once, ran = Once(), []
    g = park(once.do, lambda: gort.sleep(3600))
    waiter = park(once.do, lambda: ran.append(1))
    g.kill()
    g.join()
    waiter.join()
    once.do(lambda: ran.append(2))
    assert ran == []


@pytest.mark.parametrize("value", [5, None])
def test_once_of_a_non_callable_raises_type_error_and_is_not_done(value: Any) -> None:
    once, ran = Once(), []
    with pytest.raises(TypeError):
        once.do(value)
    once.do(lambda: ran.append(1))
    assert ran == [1]


def test_once_func_calls_it_once() -> None:
    ran = []
    fn = once_func(lambda: ran.append(1))
    assert [fn(), fn(), fn()] == [None] * 3
    assert ran == [1]


def test_once_value_gives_the_first_value_always() -> None:
    fn = once_value(object)
    assert fn() is fn() is fn()


def test_once_value_computes_once_for_all_goroutines() -> None:
    gate, calls = gort.Chan(), []

    def compute() -> Any:
        calls.append(1)
        return gate.recv()

    fn = once_value(compute)
    gs = [park(fn) for _ in range(10)]
    gate.send("value")
    assert [g.join() for g in gs] == ["value"] * 10
    assert calls == [1]


@pytest.mark.parametrize("make", [once_func, once_value])
def test_a_function_that_raised_raises_the_same_every_time(make: Any) -> None:
    calls = []

    def fail() -> None:
        calls.append(1)
        raise ValueError("every time")

    fn, seen = make(fail), []
    for _ in range(3):
        with pytest.raises(ValueError, match="every time") as caught:
            fn()
        seen.append(caught.value)
    assert calls == [1]
    assert seen[0] is seen[1] is seen[2]


@pytest.mark.parametrize("make", [once_func, once_value])
def test_once_functions_of_a_non_callable_raise_type_error(make: Any) -> None:
    with pytest.raises(TypeError):
        make(5)


# ---- Cond -----------------------------------------------------------------------------


def waiters(cond: Any, lock: Any, n: int, log: list[int]) -> list[Any]:
    def body(i: int) -> None:
        with lock:
            assert cond.wait() is None
            log.append(i)

    return [park(body, i) for i in range(n)]


def test_signal_wakes_one_first_come_first_served() -> None:
    mu, log = Mutex(), []
    cond = Cond(mu)
    gs = waiters(cond, mu, 3, log)
    for i in range(3):
        cond.signal()
        gs[i].join()
        assert log == list(range(i + 1))


def test_broadcast_wakes_all() -> None:
    mu, log = Mutex(), []
    cond = Cond(mu)
    gs = waiters(cond, mu, 10, log)
    cond.broadcast()
    for g in gs:
        g.join()
    assert sorted(log) == list(range(10))


def test_a_signal_that_nobody_waits_for_is_gone() -> None:
    mu, log = Mutex(), []
    cond = Cond(mu)
    cond.signal()
    cond.broadcast()
    (g,) = waiters(cond, mu, 1, log)
    assert g.state == "waiting"
    cond.signal()
    g.join()


def test_wait_gives_the_lock_up_and_takes_it_again() -> None:
    mu = Mutex()
    cond = Cond(mu)
    (g,) = waiters(cond, mu, 1, [])
    assert mu.try_lock()
    cond.signal()
    for _ in range(5):
        gort.gosched()
    assert not g.done
    mu.unlock()
    g.join()
    assert mu.try_lock()
    mu.unlock()


def test_wait_without_the_lock_raises_runtime_error() -> None:
    mu = Mutex()
    cond = Cond(mu)
    with pytest.raises(RuntimeError):
        cond.wait()
    assert mu.try_lock()
    mu.unlock()
    (g,) = waiters(cond, mu, 1, [])
    cond.signal()
    g.join()


def test_a_timed_out_wait_holds_the_lock_again() -> None:
    mu = Mutex()
    cond = Cond(mu)
    with mu:
        with pytest.raises(TimeoutError):
            cond.wait(timeout=0.01)
        assert not mu.try_lock()
    assert mu.try_lock()
    mu.unlock()


def test_a_timed_out_waiter_takes_no_signal() -> None:
    mu, log = Mutex(), []
    cond = Cond(mu)
    with mu, pytest.raises(TimeoutError):
        cond.wait(timeout=0)
    (g,) = waiters(cond, mu, 1, log)
    cond.signal()
    g.join()
    assert log == [0]


def test_cond_over_a_rwmutex() -> None:
    rw = RWMutex()
    cond = Cond(rw)

    def body() -> None:
        with rw.writer():
            cond.wait()

    g = park(body)
    with rw.writer():
        cond.signal()
    g.join()
    assert rw.try_lock()
    rw.unlock()


def test_a_bounded_queue_of_cond_and_mutex() -> None:
    mu, items, taken = Mutex(), [], []
    not_empty, not_full = Cond(mu), Cond(mu)

    def produce(n: int) -> None:
        for i in range(n):
            with mu:
                while len(items) >= 3:
                    not_full.wait()
                items.append(i)
                not_empty.signal()

    def consume(n: int) -> None:
        for _ in range(n):
            with mu:
                while not items:
                    not_empty.wait()
                taken.append(items.pop(0))
                not_full.signal()

    gs = [gort.go(produce, 100) for _ in range(2)] + [gort.go(consume, 50) for _ in range(3)]
    thread = PlainThread(consume, 50)
    for g in gs:
        g.join()
    thread.result()
    assert sorted(taken) == sorted([*range(100), *range(100)])


@pytest.mark.parametrize("value", [5, None, "lock"])
def test_cond_of_no_lock_raises_type_error(value: Any) -> None:
    with pytest.raises(TypeError):
        Cond(value)


# ---- Pool ------------------------------------------------------------------------------------


def test_an_empty_pool_makes_new_ones() -> None:
    made = []

    def new() -> list[int]:
        made.append(1)
        return []

    pool = Pool(new)
    a, b = pool.get(), pool.get()
    assert (a, b) == ([], [])
    assert a is not b
    assert len(made) == 2


def test_a_pool_gives_back_what_was_put() -> None:
    pool = Pool(list)
    x = pool.get()
    assert pool.put(x) is None
    assert pool.get() is x
    assert pool.get() is not x


def test_nobody_gets_what_another_one_has() -> None:
    pool, held = Pool(list), set()

    def body() -> None:
        for _ in range(50):
            x = pool.get()
            assert id(x) not in held
            held.add(id(x))
            gort.gosched()
            held.remove(id(x))
            pool.put(x)

    gs = [gort.go(body) for _ in range(10)]
    thread = PlainThread(body)
    for g in gs:
        g.join()
    thread.result()


def test_an_exception_of_new_comes_out_of_get() -> None:
    pool = Pool(lambda: divmod(1, 0))
    with pytest.raises(ZeroDivisionError):
        pool.get()
    pool.put(7)
    assert pool.get() == 7


def test_a_pool_of_a_non_callable_raises_type_error() -> None:
    with pytest.raises(TypeError):
        Pool(5)  # type: ignore[arg-type]


# ---- Semaphore --------------------------------------------------------------------------------


@everywhere
def test_acquire_and_release(where: Any) -> None:
    sem = Semaphore(3)

    def body() -> None:
        assert sem.acquire() is None
        sem.acquire(2)
        assert sem.try_acquire() is False
        assert sem.release(2) is None
        assert sem.try_acquire(2) is True
        sem.release(3)

    where(body)
    assert sem.try_acquire(3)


def test_at_most_n_are_in() -> None:
    sem, inside, most = Semaphore(3), 0, 0

    def body() -> None:
        nonlocal inside, most
        for _ in range(20):
            sem.acquire()
            inside += 1
            most = max(most, inside)
            gort.gosched()
            inside -= 1
            sem.release()

    gs = [gort.go(body) for _ in range(10)]
    for g in gs:
        g.join()
    assert most == 3


def test_a_semaphore_is_first_come_first_served_whatever_the_weight() -> None:
    sem, order = Semaphore(4), []

    def body(name: str, n: int) -> None:
        sem.acquire(n)
        order.append(name)

    sem.acquire(4)
    gs = [park(body, "big", 4), park(body, "small", 1), park(body, "middle", 2)]
    sem.release(3)
    settle(*gs)
    assert order == []
    assert sem.try_acquire() is False, "a try may not overtake who waits"
    sem.release(1)
    gs[0].join()
    settle(*gs)
    assert order == ["big"]
    sem.release(1)
    gs[1].join()
    assert order == ["big", "small"]
    sem.release(2)
    gs[2].join()
    assert order == ["big", "small", "middle"]


def test_one_release_lets_several_in() -> None:
    sem = Semaphore(5)
    sem.acquire(5)
    gs = [park(sem.acquire, n) for n in (1, 2, 2)]
    sem.release(5)
    for g in gs:
        g.join()
    assert not sem.try_acquire()


def test_releasing_more_than_is_held_raises_runtime_error_and_changes_nothing() -> None:
    sem = Semaphore(3)
    with pytest.raises(RuntimeError):
        sem.release()
    sem.acquire(2)
    with pytest.raises(RuntimeError):
        sem.release(3)
    assert sem.try_acquire(1) is True
    assert sem.try_acquire(1) is False
    sem.release(3)
    with pytest.raises(RuntimeError):
        sem.release()


def test_acquiring_more_than_the_size_waits_and_holds_up_nobody() -> None:
    sem = Semaphore(2)
    g = park(sem.acquire, 3)
    assert sem.try_acquire(2) is True
    other = park(sem.acquire, 1)
    sem.release(2)
    other.join()
    sem.release(1)
    settle(g)
    assert g.state == "waiting"
    g.kill()
    assert g.join() is None
    with pytest.raises(TimeoutError):
        sem.acquire(3, timeout=0.01)
    assert sem.try_acquire(3) is False
    assert sem.try_acquire(2) is True


def test_a_big_acquire_that_timed_out_lets_the_small_ones_behind_it_in() -> None:
    sem = Semaphore(3)
    sem.acquire(2)
    big = gort.go(lambda: pytest.raises(TimeoutError, sem.acquire, 3, timeout=0.02))
    settle(big)
    small = park(sem.acquire, 1)
    big.join()
    small.join()
    sem.release(3)
    assert sem.try_acquire(3)


@pytest.mark.parametrize("n", [-1, -(2**40)])
def test_negative_weights_raise_value_error(n: int) -> None:
    sem = Semaphore(2)
    for bad in (lambda: sem.acquire(n), lambda: sem.try_acquire(n), lambda: sem.release(n), lambda: Semaphore(n)):
        with pytest.raises(ValueError):
            bad()
    assert sem.try_acquire(2)


@pytest.mark.parametrize("n", ["1", 1.5, []])
def test_weights_that_are_no_integers_raise_type_error(n: Any) -> None:
    sem = Semaphore(2)
    for bad in (lambda: sem.acquire(n), lambda: sem.try_acquire(n), lambda: sem.release(n), lambda: Semaphore(n)):
        with pytest.raises(TypeError):
            bad()
    assert sem.try_acquire(2)


# ---- Map ---------------------------------------------------------------------------------------


def test_load_and_store() -> None:
    m = Map()
    assert m.load("k") == (None, False)
    assert m.store("k", 1) is None
    assert m.load("k") == (1, True)
    m.store("k", None)
    assert m.load("k") == (None, True)


def test_load_or_store() -> None:
    m = Map()
    assert m.load_or_store("k", 1) == (1, False)
    assert m.load_or_store("k", 2) == (1, True)
    assert m.load("k") == (1, True)


def test_load_and_delete() -> None:
    m = Map()
    assert m.load_and_delete("k") == (None, False)
    m.store("k", 1)
    assert m.load_and_delete("k") == (1, True)
    assert m.load("k") == (None, False)


def test_delete() -> None:
    m = Map()
    assert m.delete("k") is None
    m.store("k", 1)
    m.delete("k")
    assert m.load("k") == (None, False)


def test_swap() -> None:
    m = Map()
    assert m.swap("k", 1) == (None, False)
    assert m.swap("k", 2) == (1, True)
    assert m.load("k") == (2, True)


def test_compare_and_swap() -> None:
    m = Map()
    assert m.compare_and_swap("k", None, 1) is False
    assert m.load("k") == (None, False)
    m.store("k", 1)
    assert m.compare_and_swap("k", 2, 3) is False
    assert m.compare_and_swap("k", 1, 3) is True
    assert m.load("k") == (3, True)


def test_compare_and_delete() -> None:
    m = Map()
    assert m.compare_and_delete("k", None) is False
    m.store("k", 1)
    assert m.compare_and_delete("k", 2) is False
    assert m.compare_and_delete("k", 1) is True
    assert m.load("k") == (None, False)


def test_range_shows_every_pair() -> None:
    m, seen = Map(), {}
    for i in range(10):
        m.store(i, str(i))
    assert m.range(lambda k, v: seen.setdefault(k, v) is not None) is None
    assert seen == {i: str(i) for i in range(10)}


def test_range_ends_at_false() -> None:
    m, seen = Map(), []
    for i in range(10):
        m.store(i, i)
    m.range(lambda k, v: bool(seen.append(k)) or len(seen) < 3)
    assert len(seen) == 3


def test_the_map_may_change_under_range() -> None:
    m, seen = Map(), []
    for i in range(10):
        m.store(i, i)

    def visit(k: int, v: int) -> bool:
        seen.append(k)
        m.delete(k)
        m.store(k + 1000 if k < 1000 else k, v)
        gort.gosched()
        return True

    m.range(visit)
    assert set(range(10)) <= set(seen)
    assert len(seen) == len(set(seen))


def test_an_exception_comes_out_of_range() -> None:
    m = Map()
    m.store(1, 0)
    with pytest.raises(ZeroDivisionError):
        m.range(divmod)
    assert m.load(1) == (0, True)


def test_clear() -> None:
    m, seen = Map(), []
    for i in range(10):
        m.store(i, i)
    assert m.clear() is None
    m.range(lambda k, v: seen.append(k) is None)
    assert seen == []
    assert m.load(1) == (None, False)


def test_an_unhashable_key_raises_type_error() -> None:
    m = Map()
    for bad in (lambda: m.load([]), lambda: m.store([], 1), lambda: m.swap([], 1), lambda: m.delete([])):
        with pytest.raises(TypeError):
            bad()
    m.store(1, 1)
    assert m.load(1) == (1, True)


def test_one_of_many_wins_load_or_store() -> None:
    m, wins = Map(), []

    def body(i: int) -> None:
        gort.gosched()
        _, loaded = m.load_or_store("k", i)
        if not loaded:
            wins.append(i)

    gs = [gort.go(body, i) for i in range(20)]
    threads = [PlainThread(body, i) for i in range(20, 24)]
    for g in gs:
        g.join()
    for t in threads:
        t.result()
    assert len(wins) == 1
    assert m.load("k") == (wins[0], True)


def test_compare_and_swap_counts_right_under_contention() -> None:
    m = Map()
    m.store("n", 0)

    def body() -> None:
        for _ in range(100):
            while True:
                n, _ = m.load("n")
                gort.gosched()
                if m.compare_and_swap("n", n, n + 1):
                    break

    gs = [gort.go(body) for _ in range(4)]
    thread = threading.Thread(target=body)
    thread.start()
    for g in gs:
        g.join()
    gort.blocking(thread.join)
    assert m.load("n") == (500, True)
