"""Plain OS threads beside goroutines. That each wait works from a thread is in test_waiting.py."""

from __future__ import annotations

import concurrent.futures
import threading
from typing import Any

import pytest
from model_support import PlainThread, output_of, park, spin_until

import gort
import gort.sync
import gort.time


def test_a_thread_is_no_goroutine_and_has_no_handle() -> None:
    assert PlainThread(lambda: (gort.current(), gort.num_goroutine())).result() == (None, 1)


def test_two_threads_meet_without_any_goroutine() -> None:
    ping, pong = gort.Chan(), gort.Chan()

    def echo() -> int:
        n = 0
        for v in ping:
            pong.send(v)
            n += 1
        return n

    def drive() -> bool:
        for i in range(200):
            ping.send(i)
            if pong.recv() != i:
                return False
        ping.close()
        return True

    a, b = PlainThread(echo), PlainThread(drive)
    assert b.result() is True
    assert a.result() == 200


@pytest.mark.parametrize("dtype", [None, "i64"])
@pytest.mark.parametrize("cap", [0, 1, 8])
def test_a_thread_feeds_goroutines(cap: int, dtype: Any) -> None:
    ch = gort.Chan(cap, dtype=dtype)

    def produce() -> None:
        for i in range(300):
            ch.send(i)
        ch.close()

    thread = PlainThread(produce)
    gs = [gort.go(lambda: list(ch)) for _ in range(3)]
    parts = [g.join() for g in gs]
    thread.result()
    assert sorted(v for part in parts for v in part) == list(range(300))
    for part in parts:
        assert part == sorted(part)


@pytest.mark.parametrize("dtype", [None, "i64"])
@pytest.mark.parametrize("cap", [0, 1, 8])
def test_goroutines_feed_threads(cap: int, dtype: Any) -> None:
    ch = gort.Chan(cap, dtype=dtype)
    threads = [PlainThread(lambda: list(ch)) for _ in range(3)]

    def produce(start: int) -> None:
        for i in range(start, start + 100):
            ch.send(i)

    gs = [gort.go(produce, start) for start in (0, 100, 200)]
    for g in gs:
        g.join()
    ch.close()
    assert sorted(v for t in threads for v in t.result()) == list(range(300))


def test_go_and_join_from_threads() -> None:
    def work(n: int) -> int:
        gs = [gort.go(pow, i, 2) for i in range(n)]
        return sum(g.join() for g in gs)

    threads = [PlainThread(work, 50) for _ in range(4)]
    assert [t.result() for t in threads] == [sum(i * i for i in range(50))] * 4


def test_join_raises_in_a_thread() -> None:
    def work() -> None:
        gort.go(divmod, 1, 0).join()

    with pytest.raises(ZeroDivisionError):
        PlainThread(work).result()


def test_a_mutex_between_threads_and_goroutines() -> None:
    mu, counter = gort.sync.Mutex(), 0

    def body(pause: Any) -> None:
        nonlocal counter
        for _ in range(200):
            with mu:
                before = counter
                pause()
                counter = before + 1

    gs = [gort.go(body, gort.gosched) for _ in range(3)]
    threads = [PlainThread(body, lambda: None) for _ in range(3)]
    for g in gs:
        g.join()
    for t in threads:
        t.result()
    assert counter == 1200


def test_a_select_in_a_thread_and_one_in_a_goroutine_meet() -> None:
    a, b = gort.Chan(), gort.Chan()

    def left() -> list[int]:
        return [gort.select((a, 1), b)[0] for _ in range(100)]

    def right() -> list[int]:
        return [gort.select(a, (b, 2))[0] for _ in range(100)]

    thread = PlainThread(left)
    got = gort.go(right).join()
    assert got == thread.result()


def test_timers_and_sleep_in_threads() -> None:
    def work() -> float:
        start = gort.time.now()
        gort.sleep(0.01)
        fired = gort.time.after(0.01).recv()
        return fired - start

    threads = [PlainThread(work) for _ in range(4)]
    assert all(t.result() >= 0.02 for t in threads)


def test_a_thread_that_ends_leaves_nothing_behind() -> None:
    ch = gort.Chan(1)
    for i in range(200):
        t = PlainThread(ch.send, i)
        assert ch.recv() == i
        t.result()
    assert gort.num_goroutine() == 1


def test_threads_that_never_saw_gort_may_receive_what_they_wait_for() -> None:
    results = gort.Chan(8)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(results.send, i) for i in range(8)]
        got = sorted(results.recv() for _ in range(8))
        for f in futures:
            gort.blocking(f.result)
    assert got == list(range(8))


def test_a_plain_lock_held_by_a_thread_stalls_only_who_wants_it() -> None:
    lock = threading.Lock()
    lock.acquire()
    g = gort.go(gort.blocking, lock.acquire)
    spin_until(lambda: g.state == "syscall")
    assert gort.go(lambda: "meanwhile").join() == "meanwhile"
    lock.release()
    assert g.join() is True
    lock.release()


def test_kill_of_a_goroutine_started_by_a_thread_that_is_gone() -> None:
    g = PlainThread(gort.go, gort.sleep, 3600).result()
    spin_until(lambda: g.state == "waiting")
    g.kill()
    assert g.join() is None


def test_closing_from_a_thread_wakes_goroutines_and_threads() -> None:
    ch = gort.Chan()
    gs = [park(ch.recv_ok) for _ in range(5)]
    threads = [PlainThread(ch.recv_ok) for _ in range(5)]
    PlainThread(ch.close).result()
    assert [g.join() for g in gs] == [(None, False)] * 5
    assert [t.result() for t in threads] == [(None, False)] * 5


def test_waitgroup_across_kinds() -> None:
    wg = gort.sync.WaitGroup()
    wg.add(6)
    waiters = [park(wg.wait), park(wg.wait)]
    thread = PlainThread(wg.wait)
    gs = [gort.go(wg.done) for _ in range(3)]
    threads = [PlainThread(wg.done) for _ in range(3)]
    for g in waiters + gs:
        g.join()
    for t in [thread, *threads]:
        t.result()


def test_an_import_that_failed_in_another_thread_may_succeed_in_the_main_one() -> None:
    program = """
        import threading

        def first():
            try:
                import gort
            except RuntimeError as e:
                print(e)

        thread = threading.Thread(target=first)
        thread.start(), thread.join()
        import gort
        print(gort.go(lambda: 1).join())
    """
    assert output_of(program) == "gort must be imported first in the main thread\n1\n"
