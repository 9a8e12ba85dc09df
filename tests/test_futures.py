"""concurrent.futures and goroutines: gort.futures, and the standard library's executors."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from model_support import EVERYWHERE, Operation, finish, operations, park, settle, spin_until

import gort
import gort.context
import gort.sync
from gort import aio, futures

everywhere = pytest.mark.parametrize("where", EVERYWHERE)


# ---- gort.futures -----------------------------------------------------------------------


@everywhere
def test_submit_map_and_errors(where: Any) -> None:
    def body() -> None:
        with futures.Executor(3) as pool:
            assert pool.submit(divmod, 7, 2).result() == (3, 1)
            assert pool.submit(dict, a=1).result(timeout=60) == {"a": 1}
            assert list(pool.map(pow, range(20), [2] * 20)) == [i * i for i in range(20)]
            failed = pool.submit(divmod, 1, 0)
            with pytest.raises(ZeroDivisionError):
                failed.result()
            assert isinstance(failed.exception(), ZeroDivisionError)
            assert pool.submit(int).exception() is None
            assert pool.submit(gort.current).result() is not None

    where(body)


@pytest.mark.parametrize("workers", [1, 3, None])
def test_at_most_so_many_run_at_a_time(workers: int | None) -> None:
    gate, begun = gort.Chan[None](), []

    def work(i: int) -> int:
        begun.append(i)
        gate.recv()
        return i

    with futures.Executor(workers) as pool:
        fs = [pool.submit(work, i) for i in range(7)]
        most = workers or 7
        for done in range(7):
            spin_until(lambda: len(begun) == min(7, done + most))  # noqa: B023
            gort.gosched()
            assert len(begun) == min(7, done + most)
            gate.send(None)
        assert [f.result() for f in fs] == list(range(7))
    assert sorted(begun) == list(range(7))
    assert workers != 1 or begun == list(range(7))


def test_cancel_before_it_begins_and_not_after() -> None:
    gate, called = gort.Chan[int](), []
    with futures.Executor(1) as pool:
        first, second, third = pool.submit(gate.recv), pool.submit(called.append, 2), pool.submit(called.append, 3)
        spin_until(first.running)
        assert not first.cancel()
        assert second.cancel()
        assert second.cancelled()
        with pytest.raises(concurrent.futures.CancelledError):
            second.result()
        gate.send(1)
        assert third.result() is None
    assert called == [3]


def test_shutdown_refuses_more_and_waits() -> None:
    gate = gort.Chan[int]()
    pool = futures.Executor(1)
    fs = [pool.submit(gate.recv) for _ in range(3)]
    pool.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(int)
    waiter = park(pool.shutdown)
    for i in range(3):
        gate.send(i)
    waiter.join()
    assert [f.result(timeout=0) for f in fs] == [0, 1, 2]


def test_shutdown_cancels_what_has_not_begun() -> None:
    gate = gort.Chan[int]()
    pool = futures.Executor(2)
    fs = [pool.submit(gate.recv) for _ in range(5)]
    spin_until(fs[1].running)
    waiter = park(pool.shutdown, cancel_futures=True)
    assert [f.cancelled() for f in fs] == [False, False, True, True, True]
    assert set(concurrent.futures.as_completed(fs[2:], timeout=60)) == set(fs[2:])
    gate.send(1)
    gate.send(2)
    waiter.join()
    assert sorted(f.result() for f in fs[:2]) == [1, 2]


def test_result_times_out_and_takes_a_context() -> None:
    gate = gort.Chan[int]()
    with futures.Executor() as pool:
        f = pool.submit(gate.recv)
        for call in (f.result, f.exception):
            with pytest.raises(TimeoutError):
                call(timeout=0.001)
            with pytest.raises(TimeoutError):
                call(0)
            ctx, cancel = gort.context.with_cancel(gort.context.background())
            g = park(call, ctx=ctx)
            cancel()
            with pytest.raises(gort.context.Canceled):
                g.join()
        g = park(f.result)
        assert g.wait_reason == "chan receive"
        gate.send(5)
        assert g.join() == 5


def test_a_call_that_ends_its_goroutine_is_cancelled_and_others_go_on() -> None:
    held: list[Any] = []

    def work() -> None:
        held.append(gort.current())
        gort.Chan().recv()

    with futures.Executor(1) as pool:
        killed, exited, last = pool.submit(work), pool.submit(gort.goexit), pool.submit(int)
        spin_until(lambda: held)
        settle(held[0])
        held[0].kill()
        for f in (killed, exited):
            with pytest.raises(concurrent.futures.CancelledError):
                f.result()
        assert last.result() == 0


def test_bad_arguments() -> None:
    for bad in (0, -1):
        with pytest.raises(ValueError, match=str(bad)):
            futures.Executor(bad)
    for wrong in ("3", 1.5):
        with pytest.raises(TypeError, match=str(wrong)):
            futures.Executor(wrong)  # type: ignore[arg-type]
    with futures.Executor() as pool, pytest.raises(TypeError, match="7"):
        pool.submit(7)  # type: ignore[arg-type]


def test_nothing_keeps_what_was_called() -> None:
    class Thing:
        pass

    thing = Thing()
    seen = weakref.ref(thing)
    with futures.Executor(1) as pool:
        f = pool.submit(lambda t: t, thing)
        assert f.result() is thing
        del thing, f
        pool.submit(int).result()
        gc.collect()
        assert seen() is None


def test_callbacks_wait_and_as_completed() -> None:
    gate, seen = gort.Chan[int](), []

    def body() -> None:
        with futures.Executor() as pool:
            slow, fast = pool.submit(gate.recv), pool.submit(pow, 2, 3)
            fast.add_done_callback(seen.append)
            done, left = concurrent.futures.wait([slow, fast], return_when=concurrent.futures.FIRST_COMPLETED)
            assert done == {fast}
            assert left == {slow}
            gate.send(1)
            assert [f.result() for f in concurrent.futures.as_completed([slow], timeout=60)] == [1]
            assert seen == [fast]

    gort.go(body).join()


@everywhere
def test_a_loop_runs_calls_in_it(where: Any) -> None:
    gate = gort.Chan[int]()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with futures.Executor(50) as pool:
            waits = [loop.run_in_executor(pool, gate.recv) for _ in range(50)]
            for i in range(50):
                await aio.send(gate, i)
            assert sorted(await asyncio.gather(*waits)) == list(range(50))
            with pytest.raises(ZeroDivisionError):
                await loop.run_in_executor(pool, divmod, 1, 0)
            f = pool.submit(pow, 2, 5)
            assert await asyncio.wrap_future(f) == 32

    where(lambda: aio.run(main()))


def test_submit_from_goroutines_and_threads_at_once() -> None:
    with futures.Executor(4) as pool, ThreadPoolExecutor(4) as threads:

        def work(start: int) -> int:
            return sum(f.result() for f in [pool.submit(pow, start + i, 1) for i in range(50)])

        gs = [gort.go(work, 1000 * i) for i in range(4)]
        fs = [threads.submit(work, 1000 * i) for i in range(4, 8)]
        total = sum(g.join() for g in gs) + sum(gort.blocking(f.result) for f in fs)
    assert total == sum(1000 * i * 50 + 1225 for i in range(8))


# ---- the standard library's thread pool -----------------------------------------------------


def test_200_goroutines_wait_for_results_of_a_thread_pool() -> None:
    """Each of them keeps an OS thread while it waits; the others go on."""
    gate = threading.Event()

    def body() -> list[int]:
        with ThreadPoolExecutor(4) as pool:

            def work(i: int) -> int:
                f = pool.submit(lambda: gate.wait(60) and i * i)
                return int(f.result(timeout=60))

            gs = [gort.go(work, i) for i in range(200)]
            ticker = gort.go(lambda: [gort.sleep(0.0001) for _ in range(20)])
            ticker.join()
            assert not any(g.done for g in gs)
            gate.set()
            return [g.join() for g in gs]

    assert gort.go(body).join() == [i * i for i in range(200)]


@pytest.mark.parametrize("op", operations(releasable=True))
def test_a_worker_thread_waits_for_everything_that_waits(op: Operation) -> None:
    wait = op.make()
    assert wait.release
    with ThreadPoolExecutor(1) as pool:
        f = pool.submit(wait.call)
        if op.name == "cond":  # a signal before the wait would be lost
            spin_until(lambda: (wait.release(), f.done())[1])  # type: ignore[misc]
        else:
            wait.release()
        gort.blocking(f.result, 60)


@pytest.mark.parametrize("op", operations(timed=True))
def test_a_worker_threads_wait_times_out(op: Operation) -> None:
    wait = op.make()
    with ThreadPoolExecutor(1) as pool:
        f = pool.submit(wait.call, timeout=0.001)
        with pytest.raises(TimeoutError):
            gort.blocking(f.result)
    wait.untouched()


def test_a_thread_pool_is_shut_down_by_a_goroutine_while_others_submit() -> None:
    pool = ThreadPoolExecutor(3)
    results: list[int] = []

    def submit() -> None:
        try:
            while True:
                results.append(pool.submit(int).result())
        except RuntimeError:
            pass

    def body() -> None:
        gs = [gort.go(submit) for _ in range(5)]
        gort.sleep(0.002)
        pool.shutdown()
        for g in gs:
            g.join()

    gort.go(body).join()
    assert set(results) <= {0}


def test_time_sleep_in_a_pool_and_goroutines_meet_in_a_wait_group() -> None:
    group = gort.sync.WaitGroup()
    group.add(30)

    def worker() -> None:
        time.sleep(0.001)
        group.done()

    with ThreadPoolExecutor(3) as pool:
        for _ in range(15):
            pool.submit(worker)
            gort.go(worker)
        group.wait(60)
    waiters = [gort.go(group.wait) for _ in range(3)]
    finish(*waiters)
