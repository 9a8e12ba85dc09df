"""Plain threads in numbers, at their end, and interrupted. One by one they are in test_threads.py, test_waiting.py."""

from __future__ import annotations

import ctypes
import threading
from typing import Any

import pytest
from model_support import HandMadeContext, Operation, PlainThread, operations, output_of, park

import gort
import gort.context
import gort.errgroup
import gort.rate
import gort.singleflight
import gort.sync

MANY = 100


def many(fn: Any) -> list[Any]:
    """The results of `fn(i)` in MANY threads at once."""
    return [t.result() for t in [PlainThread(fn, i) for i in range(MANY)]]


# ---- a hundred at once --------------------------------------------------------------


@pytest.mark.parametrize("dtype", [None, "i64"])
def test_a_ring_of_threads_and_goroutines(dtype: Any) -> None:
    ring = [gort.Chan[int](dtype=dtype) for _ in range(MANY)]

    def station(i: int) -> None:
        for v in ring[i]:
            ring[(i + 1) % MANY].send(v + 1)
        if i + 1 < MANY:
            ring[i + 1].close()

    threads = [PlainThread(station, i) for i in range(1, MANY, 2)]
    gs = [gort.go(station, i) for i in range(2, MANY, 2)]
    value = 0
    for _ in range(5):
        ring[1].send(value)
        value = ring[0].recv()
    assert value == 5 * (MANY - 1)
    ring[1].close()
    for t in threads:
        t.result()
    for g in gs:
        g.join()


def test_a_hundred_threads_and_each_lock() -> None:
    mutex, rw, sem = gort.sync.Mutex(), gort.sync.RWMutex(), gort.sync.Semaphore(3)
    once, group, counts = gort.sync.Once(), gort.sync.WaitGroup(), [0, 0, 0, 0]
    cond, turn = gort.sync.Cond(gort.sync.Mutex()), 0
    group.add(MANY)

    def work(i: int) -> None:
        nonlocal turn
        once.do(lambda: counts.__setitem__(3, counts[3] + 1))
        with mutex:
            counts[0] += 1
        with rw.writer() if i % 3 == 0 else rw.reader():
            counts[1] += i % 3 == 0
        sem.acquire(1 + i % 3)
        counts[2] += 1
        sem.release(1 + i % 3)
        with cond.L:
            while turn != i:
                cond.wait()
            turn += 1
            cond.broadcast()
        group.done()
        group.wait()

    many(work)
    assert counts == [MANY, (MANY + 2) // 3, MANY, 1]
    assert turn == MANY


def test_a_hundred_threads_select_against_each_other() -> None:
    a, b = gort.Chan[int](), gort.Chan[int]()

    def work(i: int) -> int:
        total = 0
        for _ in range(20):
            _, value, ok = gort.select(a, (b, 1)) if i % 2 else gort.select((a, 1), b)
            assert ok
            total += value or 0
        return total

    assert sum(many(work)) == 20 * MANY // 2


def test_the_end_of_a_context_ends_a_hundred_waits() -> None:
    ch = gort.Chan[int]()
    ctx, cancel = gort.context.with_cancel(gort.context.background())
    waiting = gort.sync.WaitGroup()
    waiting.add(MANY)

    def work(i: int) -> None:
        waiting.done()
        with pytest.raises(gort.context.Canceled):
            if i % 3 == 0:
                ch.recv(ctx=ctx)
            elif i % 3 == 1:
                gort.sleep(3600, ctx=ctx)
            else:
                gort.select(ch, None, ctx=ctx)

    threads = [PlainThread(work, i) for i in range(MANY)]
    waiting.wait()
    cancel()
    for t in threads:
        t.result()
    with pytest.raises(gort.WouldBlock):
        ch.send_nowait(1)


def test_timeouts_of_a_hundred_threads_lose_nothing() -> None:
    ch, taken = gort.Chan[int](), []

    def work(i: int) -> int:
        missed = 0
        for k in range(10):
            if i % 2:
                while True:
                    try:
                        ch.send(100 * i + k, timeout=0.0005)
                        break
                    except TimeoutError:
                        missed += 1
            else:
                while True:
                    try:
                        taken.append(ch.recv(timeout=0.0005))
                        break
                    except TimeoutError:
                        missed += 1
        return missed

    many(work)
    assert sorted(taken) == [100 * i + k for i in range(1, MANY, 2) for k in range(10)]


def test_a_hundred_threads_and_the_library() -> None:
    flight: gort.singleflight.Group[str, int] = gort.singleflight.Group()
    limiter = gort.rate.Limiter(1e6, 10)
    calls, gate = [], gort.Chan[None]()

    def slow() -> int:
        calls.append(1)
        gate.recv_ok()
        return 7

    def work(i: int) -> int:
        limiter.wait()
        with gort.errgroup.Group(limit=2) as group:
            for k in range(3):
                group.go(pow, i, k)
        if i == 0:
            gort.sleep(0.001)
            gate.close()
        return flight.do("key", slow)[0] + gort.go(pow, i, 1).join()

    assert many(work) == [7 + i for i in range(MANY)]
    assert calls


# ---- interrupted, and at their end ---------------------------------------------------------


@pytest.mark.parametrize("op", operations(timed=True))
def test_a_threads_wait_cut_short_leaves_all_as_it_was(op: Operation) -> None:
    wait, ctx = op.make(), HandMadeContext()

    class Over(Exception):
        pass

    thread = PlainThread(wait.call, ctx=ctx)
    ctx.end(Over())
    with pytest.raises(Over):
        thread.result()
    with pytest.raises(TimeoutError):
        PlainThread(wait.call, timeout=0.0005).result()
    with pytest.raises(TimeoutError):
        PlainThread(wait.call, timeout=0).result()
    wait.untouched()


def test_an_asynchronous_exception_comes_when_the_wait_ends_and_loses_no_turn() -> None:
    """As with threading.Lock: PyThreadState_SetAsyncExc does not reach into a wait."""
    ch, began = gort.Chan[int](), gort.Chan[None]()

    class Stop(Exception):
        pass

    def work() -> None:
        began.close()
        ch.recv()
        for _ in range(1000):
            pass

    thread = PlainThread(work)
    began.recv_ok()
    assert thread.ident
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Stop)) == 1
    sender = gort.go(ch.send, 1)
    with pytest.raises(Stop):
        thread.result()
    sender.kill()  # which waits in vain if the exception came before the receive
    sender.join()
    with pytest.raises(gort.WouldBlock):
        ch.send_nowait(2)


def test_threads_that_end_while_others_wait_for_the_same() -> None:
    ch = gort.Chan[int]()
    stay = [PlainThread(ch.recv) for _ in range(5)] + [park(ch.recv) for _ in range(5)]
    for _ in range(50):
        with pytest.raises(TimeoutError):
            PlainThread(ch.recv, timeout=0.0001).result()
    for i in range(10):
        ch.send(i)
    got = [s.result() if isinstance(s, PlainThread) else s.join() for s in stay]
    assert sorted(got) == list(range(10))


def test_a_mutex_held_by_a_thread_that_is_gone_can_be_unlocked_by_others() -> None:
    mutex = gort.sync.Mutex()
    PlainThread(mutex.lock).result()
    g = park(mutex.lock)
    mutex.unlock()
    g.join()
    mutex.unlock()


def test_a_goroutine_outlives_the_thread_that_waits_for_it() -> None:
    gate = gort.Chan[int]()
    g = park(gate.recv)
    with pytest.raises(TimeoutError):
        PlainThread(g.join, timeout=0.001).result()
    gate.send(3)
    assert PlainThread(g.join).result() == 3


def test_thread_identity_is_untouched_by_gort() -> None:
    def work(i: int) -> bool:
        before = threading.get_ident(), threading.current_thread()
        gort.sleep(0)
        gort.go(int).join()
        gort.lock_os_thread()
        gort.unlock_os_thread()
        assert gort.blocking(threading.get_ident) == before[0]
        return before == (threading.get_ident(), threading.current_thread()) and gort.current() is None

    assert all(many(work))


def test_goexit_in_a_thread_is_refused() -> None:
    with pytest.raises(RuntimeError, match="outside of a goroutine"):
        PlainThread(gort.goexit).result()


def test_ctrl_c_interrupts_main_while_threads_wait() -> None:
    out = output_of(
        """
        import os, signal, threading, time
        import gort
        ch, waiting = gort.Chan(), gort.sync.WaitGroup()
        waiting.add(10)
        got = []
        def work():
            waiting.done()
            got.append(ch.recv_ok())
        threads = [threading.Thread(target=work) for _ in range(10)]
        for t in threads:
            t.start()
        waiting.wait()
        main = gort.current()
        def interrupt():
            start.recv_ok()
            while main.wait_reason != "chan receive":
                gort.gosched()
            os.kill(os.getpid(), signal.SIGINT)
        start = gort.Chan()
        threads.append(threading.Thread(target=interrupt))
        threads[-1].start()
        start.close()
        try:
            gort.Chan().recv(timeout=60)
        except KeyboardInterrupt:
            print("interrupted")
        ch.close()
        for t in threads:
            t.join()
        print(got.count((None, False)))
        """
    )
    assert out.split() == ["interrupted", "10"]


def test_a_program_ends_though_daemon_threads_wait() -> None:
    out = output_of(
        """
        import threading
        import gort
        ch, waiting = gort.Chan(), gort.sync.WaitGroup()
        waiting.add(30)
        def work(i):
            waiting.done()
            if i % 3 == 0:
                ch.recv()
            elif i % 3 == 1:
                gort.sleep(3600)
            else:
                gort.select(ch, None, timeout=3600)
        for i in range(30):
            threading.Thread(target=work, args=(i,), daemon=True).start()
        waiting.wait()
        print("end")
        """
    )
    assert out.split() == ["end"]
