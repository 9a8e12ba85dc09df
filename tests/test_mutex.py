"""sync.Mutex and sync.RWMutex. Waits cut short are in test_waiting.py, a model in test_model_sync.py."""

from __future__ import annotations

from typing import Any

import pytest
from model_support import EVERYWHERE, PlainThread, park, settle

import gort
from gort.sync import Mutex, RWMutex

everywhere = pytest.mark.parametrize("where", EVERYWHERE)


def is_free(mu: Any) -> bool:
    if not mu.try_lock():
        return False
    mu.unlock()
    return True


# ---- Mutex --------------------------------------------------------------------------


@everywhere
def test_lock_and_unlock(where: Any) -> None:
    mu = Mutex()

    def body() -> None:
        assert mu.lock() is None
        assert not is_free(mu)
        assert mu.unlock() is None

    where(body)
    assert is_free(mu)


def test_try_lock_tells_whether_it_got_it() -> None:
    mu = Mutex()
    assert mu.try_lock() is True
    assert mu.try_lock() is False
    mu.unlock()
    assert mu.try_lock() is True
    mu.unlock()


def test_a_mutex_is_a_context_manager() -> None:
    mu = Mutex()
    with mu:
        assert not is_free(mu)
    assert is_free(mu)
    with pytest.raises(ValueError), mu:
        raise ValueError
    assert is_free(mu)


@everywhere
def test_unlocking_an_unlocked_mutex_raises_runtime_error(where: Any) -> None:
    mu = Mutex()
    for _ in range(2):
        with pytest.raises(RuntimeError):
            where(mu.unlock)
    with mu:
        pass
    with pytest.raises(RuntimeError):
        where(mu.unlock)
    assert is_free(mu)


def test_one_goroutine_at_a_time() -> None:
    mu, inside, counter = Mutex(), 0, 0

    def body() -> None:
        nonlocal inside, counter
        for _ in range(50):
            with mu:
                inside += 1
                assert inside == 1
                before = counter
                gort.gosched()
                counter = before + 1
                inside -= 1

    gs = [gort.go(body) for _ in range(10)]
    for g in gs:
        g.join()
    assert counter == 500


def test_one_goroutine_may_lock_and_another_unlock() -> None:
    mu = Mutex()
    gort.go(mu.lock).join()
    assert not is_free(mu)
    PlainThread(mu.unlock).result()
    assert is_free(mu)


def test_a_mutex_is_not_reentrant() -> None:
    mu = Mutex()
    with mu, pytest.raises(gort.Deadlock):
        mu.lock()
    assert is_free(mu)


def test_waiters_get_it_first_come_first_served() -> None:
    mu, order = Mutex(), []

    def body(i: int) -> None:
        with mu:
            order.append(i)

    mu.lock()
    gs = [park(body, i) for i in range(10)]
    mu.unlock()
    for g in gs:
        g.join()
    assert order == list(range(10))


def test_a_waiter_of_over_a_millisecond_gets_it_next() -> None:
    """Starvation mode: who unlocks and locks again in a loop cannot keep it for ever."""
    mu, got = Mutex(), []

    def body() -> None:
        with mu:
            got.append(True)

    mu.lock()
    g = park(body)
    gort.sleep(0.01)
    rounds = 0
    while not got:
        mu.unlock()
        mu.lock()
        gort.gosched()
        rounds += 1
    mu.unlock()
    g.join()
    assert rounds <= 3


def test_each_of_many_starved_waiters_gets_it() -> None:
    mu, got = Mutex(), []

    def body(i: int) -> None:
        with mu:
            got.append(i)

    mu.lock()
    gs = [park(body, i) for i in range(20)]
    gort.sleep(0.01)
    rounds = 0
    while len(got) < 20:
        mu.unlock()
        mu.lock()
        gort.gosched()
        rounds += 1
    mu.unlock()
    for g in gs:
        g.join()
    assert rounds <= 60
    assert got == list(range(20))


def test_unlock_does_not_wait_for_the_next_owner() -> None:
    mu = Mutex()
    mu.lock()
    g = park(mu.lock)
    mu.unlock()
    mu2 = Mutex()
    with mu2:
        pass
    g.join()
    mu.unlock()


def test_a_timed_out_lock_leaves_the_others_in_order() -> None:
    mu, order = Mutex(), []

    def body(i: int, timeout: float | None) -> None:
        try:
            mu.lock(timeout=timeout)
        except TimeoutError:
            order.append(-i)
            return
        order.append(i)
        mu.unlock()

    mu.lock()
    gs = []
    for i in range(1, 7):
        gs.append(gort.go(body, i, 0.02 if i % 2 else None))
        settle(*gs)
    for g in gs[::2]:
        g.join()
    mu.unlock()
    for g in gs:
        g.join()
    assert sorted(order[:3]) == [-5, -3, -1]
    assert order[3:] == [2, 4, 6]


# ---- RWMutex --------------------------------------------------------------------------


@everywhere
def test_readers_share_and_exclude_writers(where: Any) -> None:
    rw = RWMutex()

    def body() -> None:
        rw.rlock()
        rw.rlock()
        assert rw.try_rlock() is True
        assert rw.try_lock() is False
        for _ in range(3):
            rw.runlock()
        assert rw.try_lock() is True
        rw.unlock()

    where(body)


@everywhere
def test_a_writer_excludes_everybody(where: Any) -> None:
    rw = RWMutex()

    def body() -> None:
        rw.lock()
        assert rw.try_lock() is False
        assert rw.try_rlock() is False
        rw.unlock()
        assert rw.try_rlock() is True
        rw.runlock()

    where(body)


def test_reader_and_writer_are_context_managers() -> None:
    rw = RWMutex()
    with rw.reader():
        assert rw.try_rlock()
        rw.runlock()
        assert not rw.try_lock()
    with rw.writer():
        assert not rw.try_rlock()
    with pytest.raises(ValueError), rw.reader():
        raise ValueError
    with pytest.raises(ValueError), rw.writer():
        raise ValueError
    assert is_free(rw)


def test_two_readers_in_with_blocks_at_once() -> None:
    rw = RWMutex()
    with rw.reader(), rw.reader():
        assert not rw.try_lock()
    assert is_free(rw)


@everywhere
def test_unlocking_what_is_not_locked_raises_runtime_error(where: Any) -> None:
    rw = RWMutex()
    for unlock in (rw.unlock, rw.runlock):
        with pytest.raises(RuntimeError):
            where(unlock)
    rw.rlock()
    with pytest.raises(RuntimeError):
        where(rw.unlock)
    rw.runlock()
    rw.lock()
    with pytest.raises(RuntimeError):
        where(rw.runlock)
    rw.unlock()
    assert is_free(rw)


def test_a_waiting_writer_holds_back_new_readers() -> None:
    rw, order = RWMutex(), []

    def write() -> None:
        with rw.writer():
            order.append("write")

    def read() -> None:
        with rw.reader():
            order.append("read")

    rw.rlock()
    writer = park(write)
    assert rw.try_rlock() is False
    readers = [park(read) for _ in range(3)]
    assert order == []
    rw.runlock()
    for g in [writer, *readers]:
        g.join()
    assert order == ["write", "read", "read", "read"]


def test_readers_that_waited_for_a_writer_go_before_the_next_writer() -> None:
    rw, order = RWMutex(), []

    def write() -> None:
        with rw.writer():
            order.append("write")

    def read() -> None:
        with rw.reader():
            order.append("read")

    rw.lock()
    readers = [park(read) for _ in range(3)]
    writers = [park(write) for _ in range(2)]
    rw.unlock()
    for g in readers + writers:
        g.join()
    assert order == ["read", "read", "read", "write", "write"]


def test_readers_that_waited_are_in_together() -> None:
    rw, meet = RWMutex(), gort.Chan()

    def read(send: bool) -> None:
        with rw.reader():
            if send:
                meet.send(None)  # only possible while the other is in too
            else:
                meet.recv()

    rw.lock()
    a, b = park(read, True), park(read, False)
    rw.unlock()
    a.join()
    b.join()


def test_the_last_reader_lets_the_writer_in() -> None:
    rw = RWMutex()
    for _ in range(3):
        rw.rlock()
    g = park(rw.lock)
    rw.runlock()
    rw.runlock()
    settle(g)
    assert g.state == "waiting"
    rw.runlock()
    g.join()
    assert not rw.try_rlock()
    rw.unlock()


def test_a_writer_that_timed_out_lets_the_readers_it_held_back_in() -> None:
    rw = RWMutex()
    rw.rlock()
    writer = gort.go(lambda: pytest.raises(TimeoutError, rw.lock, timeout=0.02))
    settle(writer)
    reader = park(rw.rlock)
    writer.join()
    reader.join()
    rw.runlock()
    rw.runlock()
    assert is_free(rw)


def test_readers_never_see_a_writer() -> None:
    rw, data = RWMutex(), [0, 0]

    def write() -> None:
        for _ in range(30):
            with rw.writer():
                data[0] += 1
                gort.gosched()
                data[1] += 1

    def read() -> None:
        for _ in range(60):
            with rw.reader():
                a = data[0]
                gort.gosched()
                assert a == data[0] == data[1]

    gs = [gort.go(write) for _ in range(3)] + [gort.go(read) for _ in range(5)]
    for g in gs:
        g.join()
    assert data == [90, 90]
