"""Locks and counters under load, held by goroutines and plain threads; invariants are checked inside."""

from __future__ import annotations

import random
from typing import Any

import pytest
from model_stress import join_all, scaled
from model_support import PlainThread

import gort
from gort.atomic import Int64
from gort.sync import Cond, Map, Mutex, Once, RWMutex, Semaphore, WaitGroup

pytestmark = pytest.mark.stress


class Box:
    """A counter that shows a lost update."""

    def __init__(self) -> None:
        self.value = 0
        self.inside = 0


def pauses(seed: int) -> Any:
    """A function that sometimes lets others run."""
    rng = random.Random(seed)
    return lambda: gort.gosched() if rng.random() < 0.3 else None


@pytest.mark.parametrize("timeout", [None, 1e-5])
def test_a_mutex_excludes_whoever_comes(timeout: float | None) -> None:
    mu, box, n = Mutex(), Box(), scaled(4_000)

    def body(seed: int) -> int:
        pause, done = pauses(seed), 0
        for _ in range(n):
            try:
                mu.lock(timeout=timeout)
            except TimeoutError:
                continue
            box.inside += 1
            assert box.inside == 1
            before = box.value
            pause()
            box.value = before + 1
            box.inside -= 1
            mu.unlock()
            done += 1
        return done

    workers: list[Any] = [gort.go(body, k) for k in range(8)] + [PlainThread(body, k) for k in range(8, 11)]
    assert sum(join_all(workers)) == box.value


def test_killed_lockers_leave_the_mutex_usable() -> None:
    for trial in range(scaled(2_000)):
        mu, box = Mutex(), Box()

        def body(mu: Mutex = mu, box: Box = box) -> None:
            while True:
                with mu:
                    box.inside += 1
                    assert box.inside == 1
                    box.inside -= 1
                gort.gosched()
                if box.value > 50:
                    return
                box.value += 1

        gs = [gort.go(body) for _ in range(10)]
        rng = random.Random(trial)
        for g in rng.sample(gs, 6):
            for _ in range(rng.randrange(8)):
                gort.gosched()
            g.kill()
        join_all(gs)
        assert mu.try_lock()


def test_a_rwmutex_keeps_writers_alone() -> None:
    rw, box, n = RWMutex(), Box(), scaled(8_000)
    data = [0, 0]

    def read(seed: int) -> None:
        pause = pauses(seed)
        for _ in range(n):
            with rw.reader():
                box.inside += 1
                assert box.inside > 0
                a = data[0]
                pause()
                assert data == [a, a]
                box.inside -= 1

    def write(seed: int) -> None:
        pause = pauses(seed)
        for i in range(n):
            try:
                rw.lock(timeout=None if i % 3 else 1e-5)
            except TimeoutError:
                continue
            assert box.inside == 0
            data[0] += 1
            pause()
            data[1] += 1
            rw.unlock()

    workers: list[Any] = [gort.go(read, k) for k in range(6)] + [gort.go(write, k) for k in range(3)]
    workers += [PlainThread(read, 10), PlainThread(write, 11)]
    join_all(workers)
    assert data[0] == data[1]
    assert rw.try_lock()


def test_killed_writers_and_readers_leave_the_rwmutex_usable() -> None:
    for trial in range(scaled(1_000)):
        rw, stop = RWMutex(), Int64()

        def read(rw: RWMutex = rw, stop: Int64 = stop) -> None:
            while not stop.load():
                with rw.reader():
                    gort.gosched()

        def write(rw: RWMutex = rw, stop: Int64 = stop) -> None:
            while not stop.load():
                with rw.writer():
                    gort.gosched()

        gs = [gort.go(read) for _ in range(6)] + [gort.go(write) for _ in range(4)]
        rng = random.Random(trial)
        for g in rng.sample(gs, 6):
            for _ in range(rng.randrange(20)):
                gort.gosched()
            g.kill()
        stop.store(1)
        join_all(gs)
        assert rw.try_lock()


def test_a_semaphore_is_never_overdrawn() -> None:
    size, n = 7, scaled(10_000)
    sem, held = Semaphore(size), Int64()

    def body(seed: int) -> None:
        rng, pause = random.Random(seed), pauses(seed)
        for _ in range(n):
            w = rng.randint(1, size)
            try:
                sem.acquire(w, timeout=rng.choice([None, None, 1e-5]))
            except TimeoutError:
                continue
            assert held.add(w) <= size
            pause()
            held.add(-w)
            sem.release(w)

    workers: list[Any] = [gort.go(body, k) for k in range(8)] + [PlainThread(body, k) for k in range(8, 10)]
    join_all(workers)
    assert held.load() == 0
    assert sem.try_acquire(size)


def test_wait_groups_never_let_go_early() -> None:
    for _ in range(scaled(2_000)):
        wg, done = WaitGroup(), Int64()

        def work(wg: WaitGroup = wg, done: Int64 = done) -> None:
            gort.gosched()
            done.add(1)
            wg.done()

        def wait(wg: WaitGroup = wg, done: Int64 = done) -> int:
            wg.wait()
            return done.load()

        wg.add(20)
        waiters: list[Any] = [gort.go(wait) for _ in range(5)] + [PlainThread(wait)]
        workers = [gort.go(work) for _ in range(20)]
        assert join_all(waiters) == [20] * 6
        join_all(workers)


def test_a_bounded_queue_of_cond_and_mutex_loses_nothing() -> None:
    mu, items, n = Mutex(), list[int](), scaled(40_000)
    not_empty, not_full = Cond(mu), Cond(mu)

    def produce(base: int) -> None:
        for v in range(base, base + n):
            with mu:
                while len(items) >= 4:
                    not_full.wait()
                items.append(v)
                not_empty.signal()

    def consume() -> list[int]:
        got = []
        for _ in range(n):
            with mu:
                while not items:
                    not_empty.wait()
                got.append(items.pop(0))
                not_full.signal()
        return got

    takers: list[Any] = [gort.go(consume), gort.go(consume), PlainThread(consume)]
    makers: list[Any] = [gort.go(produce, 10**6), PlainThread(produce, 2 * 10**6), gort.go(produce, 3 * 10**6)]
    join_all(makers)
    got = sorted(v for part in join_all(takers) for v in part)
    assert got == [v for k in (1, 2, 3) for v in range(k * 10**6, k * 10**6 + n)]


def test_broadcasts_reach_every_round_of_waiters() -> None:
    """A barrier: nobody is in round k + 1 before all were in round k."""
    mu, parties, rounds = Mutex(), 12, scaled(3_000)
    cond, count, turn = Cond(mu), 0, 0

    def body() -> None:
        nonlocal count, turn
        for k in range(rounds):
            with mu:
                assert turn == k
                count += 1
                if count == parties:
                    count, turn = 0, turn + 1
                    cond.broadcast()
                else:
                    while turn == k:
                        cond.wait()

    workers: list[Any] = [gort.go(body) for _ in range(parties - 3)] + [PlainThread(body) for _ in range(3)]
    join_all(workers)
    assert turn == rounds


def test_once_is_once_for_all() -> None:
    for _ in range(scaled(6_000)):
        once, ran = Once(), Int64()

        def first(ran: Int64 = ran) -> None:
            gort.gosched()
            ran.add(1)

        def body(once: Once = once, ran: Int64 = ran, first: Any = first) -> int:
            once.do(first)
            return ran.load()

        workers: list[Any] = [gort.go(body) for _ in range(8)]
        assert join_all(workers) == [1] * 8


def test_a_map_under_traffic() -> None:
    m, n = Map(), scaled(30_000)

    def body(seed: int) -> int:
        rng, balance = random.Random(seed), 0
        for _ in range(n):
            k = rng.randrange(20)
            if rng.random() < 0.5:
                balance += not m.load_or_store(k, seed)[1]
            else:
                balance -= m.load_and_delete(k)[1]
            if rng.random() < 0.1:
                gort.gosched()
        return balance

    workers: list[Any] = [gort.go(body, k) for k in range(6)] + [PlainThread(body, 10)]
    balance = sum(join_all(workers))
    left: list[int] = []
    m.range(lambda k, v: left.append(k) is None)
    assert balance == len(left)
