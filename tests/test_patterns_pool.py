"""gort.patterns.WorkerPool and its tasks."""

from __future__ import annotations

import gc
import traceback
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_support import EVERYWHERE, HandMadeContext, PlainThread, finish, output_of, park, settle, spin_until

import gort
from gort import context, sync
from gort.patterns import Task, WorkerPool


class Boom(Exception):
    pass


def boom(*args: object) -> Any:
    raise Boom(*args)


def alone() -> None:
    spin_until(lambda: gort.num_goroutine() == 1, "one goroutine")


def waiting(n: int) -> None:
    """`n` tasks wait on the nil channel."""
    spin_until(lambda: gort.stack(all=True).count("nil chan") == n, f"{n} waiting tasks")


@given(st.integers(1, 5), st.sampled_from([0, 1, 3, None]), st.lists(st.tuples(st.integers(0, 4), st.booleans())))
def test_each_task_has_its_result(n: int, queue: int | None, jobs: list[tuple[int, bool]]) -> None:
    now, most = 0, 0

    def work(i: int, turns: int, fails: bool) -> int:
        nonlocal now, most
        now += 1
        most = max(most, now)
        for _ in range(turns):
            gort.gosched()
        now -= 1
        if fails:
            raise Boom(i)
        return i

    with WorkerPool(n, queue) as pool:
        tasks = [pool.submit(work, i, *job) for i, job in enumerate(jobs)]
    assert most <= n
    alone()
    for i, (task, (_, fails)) in enumerate(zip(tasks, jobs, strict=True)):
        assert task.done
        error = task.exception()
        assert (type(error), error.args) == (Boom, (i,)) if fails else error is None
        if fails:
            with pytest.raises(Boom):
                task.result()
        else:
            assert task.result() == i


def test_as_many_run_at_once_as_there_are_workers() -> None:
    barrier = sync.WaitGroup()
    barrier.add(3)

    def meet() -> None:
        barrier.done()
        barrier.wait()

    with WorkerPool(3) as pool:
        for _ in range(3):
            pool.submit(meet)


def test_an_error_ends_its_task_only() -> None:
    with WorkerPool(1) as pool:
        bad = [pool.submit(boom, i) for i in range(5)]
        good = pool.submit(pow, 2, 3)
        assert good.result() == 8
        for i, task in enumerate(bad):
            with pytest.raises(Boom) as caught:
                task.result()
            assert caught.value.args == (i,)
            assert [f.name for f in traceback.extract_tb(caught.value.__traceback__)][-1] == "boom"


@pytest.mark.parametrize("queue", [0, 2])
def test_submit_waits_for_room(queue: int) -> None:
    pool = WorkerPool(2, queue)
    gate = gort.Chan[int]()
    tasks = [pool.submit(gate.recv) for _ in range(2 + queue)]
    assert pool.try_submit(gate.recv) is None
    with pytest.raises(TimeoutError):
        pool.submit(gate.recv, timeout=0.001)
    with pytest.raises(TimeoutError):
        pool.submit(gate.recv, timeout=0)
    ctx, cancel = context.with_cancel(context.background())
    g = park(pool.submit, gate.recv, ctx=ctx)
    cancel()
    with pytest.raises(context.Canceled):
        g.join()
    g = park(pool.submit, gate.recv)
    gate.send(0)
    tasks.append(g.join())
    for i in range(1, 3 + queue):
        gate.send(i)
    assert sorted(t.result() for t in tasks) == list(range(3 + queue))
    pool.close()
    alone()


def test_a_pool_without_end_of_queue_never_waits() -> None:
    gate = gort.Chan[None]()
    started: list[int] = []

    def work(i: int) -> int:
        started.append(i)
        gate.recv_ok()
        return i

    with WorkerPool(2, None) as pool:
        tasks = [pool.submit(work, i) for i in range(50)]
        spin_until(lambda: len(started) == 2, "two tasks")
        for _ in range(20):
            gort.gosched()
        assert sorted(started) == [0, 1]
        gate.close()
        assert [t.result() for t in tasks] == list(range(50))
        assert sorted(started) == list(range(50))


def test_tasks_start_in_the_order_of_submission() -> None:
    started: list[int] = []
    with WorkerPool(1, None) as pool:
        for i in range(50):
            pool.submit(started.append, i)
    assert started == list(range(50))


@pytest.mark.parametrize("where", EVERYWHERE)
def test_a_pool_works_from_everywhere(where: Callable[[Callable[[], Any]], Any]) -> None:
    def use() -> list[int]:
        with WorkerPool(2, 1) as pool:
            return [t.result() for t in [pool.submit(abs, -i) for i in range(20)]]

    assert where(use) == list(range(20))


def test_a_pool_is_shared_by_threads() -> None:
    with WorkerPool(3, 2) as pool:
        threads = [PlainThread(lambda: [pool.submit(abs, -i).result() for i in range(200)]) for _ in range(4)]
        for t in threads:
            assert t.result() == list(range(200))


# ---- waiting for a task -----------------------------------------------------------------


def test_a_wait_for_a_result_ends_with_time_and_context() -> None:
    with WorkerPool(1) as pool:
        task = pool.submit(gort.NIL.recv)
        with pytest.raises(TimeoutError):
            task.result(0.001)
        with pytest.raises(TimeoutError):
            task.exception(timeout=0)
        ctx = HandMadeContext()
        g = park(lambda: task.result(ctx=ctx))
        ctx.end(Boom())
        with pytest.raises(Boom):
            g.join()
        assert not task.done
        task.cancel()


def test_a_killed_waiter_does_not_kill_the_task() -> None:
    gate = gort.Chan[int]()
    with WorkerPool(1) as pool:
        task = pool.submit(gate.recv)
        g = park(task.result)
        g.kill()
        assert g.join() is None
        gate.send(7)
        assert task.result() == 7


# ---- errors nobody asks for ----------------------------------------------------------------


def test_an_error_that_nobody_can_ask_for_is_told(panics: list[Any]) -> None:
    gc.disable()
    try:
        pool = WorkerPool(2)
        pool.submit(boom, 1)
        alone()
        assert [e.args for _, e in panics] == [(1,)]
        assert panics[0][0].name == "boom"
        pool.close()
        task = pool2_task = WorkerPool(2).submit(boom, 2)
        alone()
        assert len(panics) == 1
        del task, pool2_task
        assert [e.args for _, e in panics] == [(1,), (2,)]
    finally:
        gc.enable()


def test_an_error_that_only_close_saw_is_told(panics: list[Any]) -> None:
    with WorkerPool(2) as pool:
        tasks = [pool.submit(boom, i) for i in range(4)]
    assert panics == []
    with pytest.raises(Boom):
        tasks[1].result()
    assert isinstance(tasks[2].exception(), Boom)
    del tasks
    gc.collect()
    assert sorted(e.args for _, e in panics) == [(0,), (3,)]


def test_an_error_is_told_at_the_end_of_the_program() -> None:
    for how in ("close", "drain", "closed.__class__"):  # the last does nothing
        assert "fail ValueError('unseen')" in output_of(f"""
            import gort
            from gort.patterns import WorkerPool
            def hook(g, e):
                print(g.name, repr(e), flush=True)
            gort.excepthook = hook
            pool = WorkerPool(1)
            def fail():
                raise ValueError("unseen")
            kept = pool.submit(fail)
            gort.gosched()
            pool.{how}()
        """)


# ---- cancelling ---------------------------------------------------------------------------


def test_a_task_that_runs_is_killed_where_it_waits() -> None:
    ended = []

    def work() -> None:
        try:
            gort.NIL.recv()
        finally:
            ended.append(True)

    with WorkerPool(1) as pool:
        task = pool.submit(work)
        waiting(1)
        task.cancel()
        with pytest.raises(context.Canceled):
            task.result()
        assert isinstance(task.exception(), context.Canceled)
        assert ended == [True]
        assert pool.submit(abs, -1).result() == 1  # its worker is free again


def test_a_task_that_waits_for_its_turn_never_runs() -> None:
    ran = []
    gate = gort.Chan[None]()
    with WorkerPool(1, 2) as pool:
        first = pool.submit(gate.recv_ok)
        fresh = pool.submit(ran.append, 1)
        fresh.cancel()  # its goroutine has not begun
        queued = pool.submit(ran.append, 2)
        settle(queued._g)
        queued.cancel()  # waits for its turn
        for task in (fresh, queued):
            with pytest.raises(context.Canceled):
                task.result()
        again = [pool.submit(abs, -1, timeout=0) for _ in range(2)]  # there is room again
        gate.close()
        assert first.result() == (None, False)
        assert [t.result() for t in again] == [1, 1]
    assert ran == []


def test_a_fresh_task_never_runs_once_cancelled() -> None:
    ran: list[int] = []
    with WorkerPool(3) as pool:
        tasks = [pool.submit(ran.append, i) for i in range(3)]
        for task in tasks:
            task.cancel()
        assert all(isinstance(t.exception(), context.Canceled) for t in tasks)
        assert [pool.submit(abs, i).result() for i in range(5)] == [0, 1, 2, 3, 4]
    assert ran == []


def test_a_task_whose_turn_has_come_may_be_cancelled_yet() -> None:
    ran: list[int] = []
    gate = gort.Chan[None]()
    with WorkerPool(1, 2) as pool:
        first, second, third = pool.submit(gate.recv), pool.submit(ran.append, 2), pool.submit(ran.append, 3)
        settle(first._g, second._g, third._g)

        def finish_and_cancel() -> None:
            gate.send(None)
            while pool._waiting and pool._waiting[0] is second._waits[1]:  # type: ignore[index]
                gort.gosched()
            second.cancel()

        gort.go(finish_and_cancel).join()
        assert third.result() is None
    assert second.done
    assert ran in ([3], [2, 3])


@pytest.mark.parametrize("gone_first", [True, False])
def test_a_task_killed_from_outside_while_it_waits_for_its_turn_leaves_it_to_others(gone_first: bool) -> None:
    gate = gort.Chan[None]()
    with WorkerPool(1, 2) as pool:
        first, second, third = pool.submit(gate.recv_ok), pool.submit(abs, -2), pool.submit(abs, -3)
        settle(first._g, second._g, third._g)
        second._g.kill()
        if gone_first:
            settle(second._g)
        gate.close()  # or else its turn comes when it is about to end
        assert third.result() == 3
        with pytest.raises(context.Canceled):
            second.result()
    assert pool._free == 1


def test_a_task_may_decline_to_be_cancelled() -> None:
    def stubborn() -> str:
        try:
            gort.NIL.recv()
        except gort.GoroutineExit:
            return "no"
        return "?"

    with WorkerPool(1) as pool:
        task = pool.submit(stubborn)
        waiting(1)
        task.cancel()
        assert task.result() == "no"
        task.cancel()
        assert task.result() == "no"


def test_cancel_ends_all_and_takes_no_more() -> None:
    pool = WorkerPool(2, 3)
    tasks = [pool.submit(gort.NIL.recv) for _ in range(5)]
    waiting(2)
    submitter = park(pool.submit, abs, 1)
    pool.cancel()
    pool.close()
    assert pool.closed
    for task in tasks:
        with pytest.raises(context.Canceled):
            task.result()
    with pytest.raises(RuntimeError, match="the pool is closed"):
        submitter.join()
    alone()


def test_an_exception_of_the_block_cancels_the_tasks() -> None:
    with pytest.raises(Boom), WorkerPool(2) as pool:
        task = pool.submit(gort.NIL.recv)
        raise Boom
    assert isinstance(task.exception(), context.Canceled)
    alone()


def test_a_context_cancels_the_tasks() -> None:
    ctx, cancel = context.with_cancel(context.background())
    with WorkerPool(2, ctx=ctx) as pool:
        tasks = [pool.submit(gort.NIL.recv) for _ in range(2)]
        submitter = park(pool.submit, abs, 1)
        cancel()
        for task in tasks:
            with pytest.raises(context.Canceled):
                task.result()
        for call in (submitter.join, lambda: pool.submit(abs, 1), lambda: pool.try_submit(abs, 1)):
            with pytest.raises(context.Canceled):
                call()
    alone()


def test_a_pool_that_is_dropped_is_not_kept_by_its_context() -> None:
    ctx, cancel = context.with_cancel(context.background())
    pool = WorkerPool(2, ctx=ctx)
    task = pool.submit(abs, -1)
    gone = weakref.ref(pool)
    del pool
    assert task.result() == 1
    alone()
    assert gone() is None
    cancel()
    alone()


def test_a_goroutine_that_ends_itself_ends_its_task() -> None:
    with WorkerPool(1) as pool:
        with pytest.raises(context.Canceled):
            pool.submit(gort.goexit).result()
        assert pool.submit(abs, -1).result() == 1


# ---- closing ----------------------------------------------------------------------------------


def test_close_waits_and_takes_no_more() -> None:
    pool = WorkerPool(2, 1)
    gate = gort.Chan[int]()
    tasks = [pool.submit(gate.recv) for _ in range(3)]
    submitter = park(pool.submit, abs, 1)
    with pytest.raises(TimeoutError):
        pool.close(0.001)
    with pytest.raises(RuntimeError, match="the pool is closed"):
        submitter.join()
    for submit in (pool.submit, pool.try_submit):
        with pytest.raises(RuntimeError, match="the pool is closed"):
            submit(abs, 1)
    closer = park(pool.close)
    for i in range(3):
        gate.send(i)
    closer.join()
    assert sorted(t.result() for t in tasks) == [0, 1, 2]
    pool.close()
    alone()


def test_drain_waits_and_the_pool_goes_on() -> None:
    pool = WorkerPool(2, None)
    seen: list[int] = []

    def work(n: int) -> None:
        gort.gosched()
        if n:
            pool.submit(work, n - 1)
        seen.append(n)

    pool.submit(work, 5)
    pool.drain()
    assert sorted(seen) == [0, 1, 2, 3, 4, 5]
    blocked = pool.submit(gort.NIL.recv)
    with pytest.raises(TimeoutError):
        pool.drain(0.001)
    ctx, cancel = context.with_cancel(context.background())
    cancel()
    with pytest.raises(context.Canceled):
        pool.drain(ctx=ctx)
    blocked.cancel()
    pool.drain()
    assert not pool.closed
    pool.close()


def test_a_task_cannot_wait_for_its_own_pool() -> None:
    with WorkerPool(1) as pool, pytest.raises(RuntimeError, match="cannot join itself"):
        pool.submit(pool.drain).result()


def test_a_killed_owner_takes_its_tasks_along() -> None:
    def own() -> None:
        with WorkerPool(2) as pool:
            pool.submit(gort.NIL.recv)
            pool.submit(gort.NIL.recv)
            gort.NIL.recv()

    g = gort.go(own)
    waiting(3)
    g.kill()
    finish(g)
    alone()


def test_run_unwinds_a_pool() -> None:
    assert (
        output_of("""
        import gort
        from gort.patterns import WorkerPool
        def own():
            with WorkerPool(2, 5) as pool:
                for _ in range(5):
                    pool.submit(gort.NIL.recv)
                gort.NIL.recv()
        def main():
            gort.go(own)
            gort.gosched()
            return "done"
        print(gort.run(main), gort.num_goroutine())
    """)
        == "done 1\n"
    )


def test_a_task_says_what_it_is() -> None:
    with WorkerPool(1) as pool:
        task: Task[int] = pool.submit(abs, -1)
        assert repr(task) == "<Task 'abs' running>"
        task.result()
        assert repr(task) == "<Task 'abs' returned>"
        bad = pool.submit(boom)
        assert isinstance(bad.exception(), Boom)
        assert repr(bad) == "<Task 'boom' failed or cancelled>"


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: WorkerPool(0), ValueError, "n must be at least 1, not 0"),
        (lambda: WorkerPool("2"), TypeError, "n must be an int, not '2'"),
        (lambda: WorkerPool(1, -1), ValueError, "queue must be at least 0, not -1"),
        (lambda: WorkerPool(1, 1.5), TypeError, "queue must be an int, not 1.5"),
        (lambda: WorkerPool(1, ctx=7), TypeError, "ctx must be a context, not 7"),
        (lambda: WorkerPool(1).submit(7), TypeError, "fn must be callable, not 7"),
        (lambda: WorkerPool(1).try_submit(7), TypeError, "fn must be callable, not 7"),
        (lambda: WorkerPool(1).submit(abs, 1, timeout="1"), TypeError, "timeout must be"),
        (lambda: WorkerPool(1).submit(abs, 1, ctx=7), TypeError, "ctx must be"),
        (lambda: WorkerPool(1).drain("1"), TypeError, "timeout must be"),
        (lambda: WorkerPool(1).close(float("nan")), ValueError, "timeout must be"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
    alone()
