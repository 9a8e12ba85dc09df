"""asyncio and goroutines: coroutines that wait for goroutines, and the other way round."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import random
import re
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from model_support import (
    EVERYWHERE,
    HandMadeContext,
    Operation,
    PlainThread,
    finish,
    operations,
    output_of,
    park,
    settle,
    spin_until,
)

import gort
import gort.context
import gort.sync
from gort import aio
from gort._core._runtime import _goroutines

try:
    import uvloop
except ImportError:
    uvloop = None

Where = Callable[[Callable[[], Any]], Any]
Main = Callable[[], Coroutine[Any, Any, Any]]
everywhere = pytest.mark.parametrize("where", EVERYWHERE)
every = pytest.mark.parametrize("op", operations())
releasable = pytest.mark.parametrize("op", operations(releasable=True))
no_uvloop = pytest.mark.skipif(uvloop is None, reason="uvloop is not installed")


@pytest.fixture(params=["asyncio", pytest.param("uvloop", marks=no_uvloop)])
def run(request: pytest.FixtureRequest) -> Callable[[Main], Any]:
    """Run a coroutine function on one kind of loop or the other, in debug mode."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else None
    return lambda main: aio.run(main(), debug=True, loop_factory=factory)


async def until_parked(before: set[int]) -> Any:
    """Let the loop run until there is a goroutine that was not there, and waits."""
    while True:
        await asyncio.sleep(0)
        new = [g for g in _goroutines() if g.id not in before]
        if new:
            settle(new[0])
            return new[0]


async def begun(coro: Coroutine[Any, Any, Any]) -> tuple[asyncio.Task[Any], Any]:
    """A task of `coro`, and the goroutine that waits for it."""
    before = {g.id for g in _goroutines()}
    task = asyncio.create_task(coro)
    return task, await until_parked(before)


# ---- coroutines that wait for goroutines --------------------------------------------


@everywhere
def test_a_coroutine_and_a_goroutine_play_ping_pong(where: Where, run: Any) -> None:
    ping, pong = gort.Chan[int](), gort.Chan[int]()

    def echo() -> None:
        for v in ping:
            pong.send(v + 1)
        pong.close()

    async def main() -> list[int]:
        g = gort.go(echo)
        got = []
        for i in range(20):
            await aio.send(ping, i)
            got.append(await aio.recv(pong))
        ping.close()
        await aio.join(g)
        assert await aio.recv_ok(pong) == (None, False)
        with pytest.raises(gort.ChanClosed):
            await aio.recv(pong)
        return got

    assert where(lambda: run(main)) == list(range(1, 21))


@everywhere
def test_iterate_ends_when_the_channel_is_closed_and_drained(where: Where, run: Any) -> None:
    ch = gort.Chan[int](2)

    def produce() -> None:
        for i in range(30):
            ch.send(i)
        ch.close()

    async def main() -> list[int]:
        gort.go(produce)
        return [v async for v in aio.iterate(ch.receiver())]

    assert where(lambda: run(main)) == list(range(30))


def test_two_coroutines_of_one_loop_meet_on_a_channel(run: Any) -> None:
    ch = gort.Chan[int]()

    async def produce() -> None:
        for i in range(20):
            await aio.send(ch.sender(), i)
        ch.close()

    async def main() -> list[int]:
        task = asyncio.create_task(produce())
        got = [v async for v in aio.iterate(ch)]
        await task
        return got

    assert run(main) == list(range(20))


def test_select_waits_for_the_first_that_can_go_on(run: Any) -> None:
    a, b, c = gort.Chan[str](), gort.Chan[str](), gort.Chan[str](1)

    async def main() -> None:
        assert await aio.select(a, b, default=True) == (-1, None, False)
        assert await aio.select(a, None, (c, "x")) == (2, None, True)
        task, _ = await begun(aio.select(a, b))
        b.send("y")
        assert await task == (1, "y", True)
        task, _ = await begun(aio.select((a, "z")))
        assert a.recv() == "z"
        assert await task == (0, None, True)
        with pytest.raises(TypeError, match="case 0"):
            await aio.select(7)  # type: ignore[call-overload]
        a.close()
        assert await aio.select(a, b) == (0, None, False)
        with pytest.raises(gort.ChanClosed):
            await aio.select((a, "late"))

    run(main)


def test_join_gives_the_result_or_raises(run: Any) -> None:
    gate = gort.Chan[int]()

    async def main() -> None:
        g = gort.go(gate.recv)
        task, _ = await begun(aio.join(g))
        gate.send(5)
        assert await task == 5
        assert await aio.join(g) == 5
        with pytest.raises(ZeroDivisionError):
            await aio.join(gort.go(divmod, 1, 0))
        g = park(gate.recv)
        task, _ = await begun(aio.join(g))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not g.done
        g.kill()
        assert await aio.join(g) is None

    run(main)


def test_call_returns_raises_and_hands_arguments_on(run: Any) -> None:
    class Fault(Exception):
        pass

    def fail() -> None:
        raise Fault

    async def main() -> None:
        assert await aio.call(divmod, 7, 2) == (3, 1)
        assert await aio.call(dict, a=1) == {"a": 1}
        with pytest.raises(Fault):
            await aio.call(fail)
        assert await aio.call(gort.goexit) is None
        assert await aio.call(gort.current) is not None

    run(main)


def test_a_goroutine_killed_by_others_gives_none(run: Any) -> None:
    async def main() -> None:
        task, g = await begun(aio.call(gort.Chan().recv))
        g.kill()
        assert await task is None

    run(main)


def test_call_sees_the_coroutines_context_variables(run: Any) -> None:
    var = contextvars.ContextVar("var", default=0)

    async def main() -> None:
        var.set(1)
        assert await aio.call(var.get) == 1
        await aio.call(var.set, 2)
        assert var.get() == 1
        with gort.context.cancelable() as ctx:
            assert await aio.call(gort.context.current) is ctx

    run(main)


@pytest.mark.parametrize(
    "fn",
    [aio.recv, aio.recv_ok, lambda x: aio.send(x, 1), aio.join, aio.call],
    ids=["recv", "ok", "send", "join", "call"],
)
def test_bad_arguments_are_named(fn: Any) -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match="7"):
            await fn(7)

    aio.run(main())


def test_a_bad_value_for_a_typed_channel_is_the_senders(run: Any) -> None:
    ch = gort.Chan[int](1, dtype="u8")

    async def main() -> None:
        with pytest.raises(OverflowError):
            await aio.send(ch, 300)
        await aio.send(ch, 255)
        assert await aio.recv(ch) == 255
        ch.close()
        assert await aio.recv_ok(ch) == (0, False)

    run(main)


@everywhere
@releasable
def test_call_waits_for_everything_that_waits(where: Where, op: Operation) -> None:
    async def main() -> None:
        wait = op.make()
        assert wait.release
        task, _ = await begun(aio.call(wait.call))
        if op.name == "cond":
            while not task.done():
                wait.release()
                await asyncio.sleep(0)
        else:
            await aio.call(wait.release)
        await task

    where(lambda: aio.run(main()))


# ---- cancellation -------------------------------------------------------------------


@every
def test_cancellation_ends_the_wait_and_leaves_all_as_it_was(op: Operation) -> None:
    async def main() -> None:
        wait = op.make()
        task, g = await begun(aio.call(wait.call))
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError) as e:
            await task
        assert e.value.args in (("enough",), ())
        assert task.cancelled()
        assert await aio.join(g) is None
        wait.untouched()

    aio.run(main())


def test_a_call_that_has_not_begun_never_begins(run: Any) -> None:
    called = []

    async def main() -> None:
        task = asyncio.create_task(aio.call(called.append, 1))
        hog = gort.go(lambda: gate.recv())  # so that the goroutine below need not be the next
        await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            assert not called
        else:
            assert called
        gate.send(None)
        await aio.join(hog)

    gate = gort.Chan[None]()
    run(main)


@pytest.mark.parametrize("first", ["value", "cancellation"])
def test_a_value_taken_is_delivered_and_the_cancellation_comes_at_the_next_await(first: str, run: Any) -> None:
    ch, got, log = gort.Chan[str](), [], []

    async def receive() -> None:
        got.append(await aio.recv(ch))
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError as e:
            log.append(e.args)
            raise

    async def main() -> None:
        task, _ = await begun(receive())
        if first == "value":
            ch.send_nowait("kept")
            task.cancel("late")
        else:
            task.cancel("late")
            ch.send_nowait("kept")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert got == ["kept"]
        assert log == [("late",)]
        assert task.cancelled()
        assert task.cancelling() == 1

    run(main)


def test_a_send_that_was_taken_has_happened(run: Any) -> None:
    ch, log = gort.Chan[int](), []

    async def send() -> None:
        await aio.send(ch, 1)
        log.append("sent")
        await asyncio.sleep(3600)

    async def main() -> None:
        task, _ = await begun(send())
        assert ch.recv_nowait() == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert log == ["sent"]

    run(main)


def test_a_task_that_ends_with_the_value_is_not_cancelled(run: Any) -> None:
    ch = gort.Chan[str]()

    async def main() -> None:
        task, _ = await begun(aio.recv(ch))
        ch.send_nowait("kept")
        task.cancel()
        assert await task == "kept"

    run(main)


def test_a_timeout_that_comes_too_late_leaves_no_cancellation_behind(run: Any) -> None:
    ch = gort.Chan[str]()

    async def receive() -> str:
        async with asyncio.timeout(None) as limit:
            limits.append(limit)
            got = await aio.recv(ch)
        for _ in range(10):
            await asyncio.sleep(0)
        return got

    async def main() -> None:
        task, _ = await begun(receive())
        limits[0].reschedule(asyncio.get_running_loop().time() - 1)
        ch.send_nowait("kept")
        assert await task == "kept"
        assert task.cancelling() == 0

    limits: list[Any] = []
    run(main)


def test_timeouts_of_asyncio_end_a_wait(run: Any) -> None:
    ch = gort.Chan[int]()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await aio.recv(ch)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(aio.recv(ch), 0.001)
        with pytest.raises(gort.WouldBlock):
            ch.send_nowait(1)

    run(main)


def test_a_context_ends_a_wait(run: Any) -> None:
    async def main() -> None:
        ctx, cancel = gort.context.with_cancel(gort.context.background())
        task, _ = await begun(aio.call(gort.Chan().recv, ctx=ctx))
        until, _ = await begun(aio.call(ctx.wait))
        cancel()
        with pytest.raises(gort.context.Canceled):
            await task
        assert isinstance(await until, gort.context.Canceled)

    run(main)


def test_a_function_that_goes_on_when_it_is_killed_is_waited_for(run: Any) -> None:
    ch, more = gort.Chan[int](), gort.Chan[int]()

    def stubborn() -> int:
        try:
            return ch.recv()
        except gort.GoroutineExit:
            return more.recv()

    async def main() -> None:
        task, g = await begun(aio.call(stubborn))
        task.cancel()
        while g.done or g.stack()[-1].line != "return more.recv()":
            await asyncio.sleep(0)
        spin_until(lambda: g.state == "waiting")
        assert not task.done()
        more.send(7)
        assert await task == 7

    run(main)


def test_a_second_cancellation_kills_again(run: Any) -> None:
    ch = gort.Chan[int]()
    kills = []

    def stubborn() -> int:
        while True:
            try:
                return ch.recv()
            except gort.GoroutineExit:
                kills.append(1)
                if len(kills) == 3:
                    raise

    async def main() -> None:
        task, g = await begun(aio.call(stubborn))
        for n in range(1, 4):
            task.cancel()
            while len(kills) < n:
                await asyncio.sleep(0)
            spin_until(lambda: g.done or g.state == "waiting")
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)


def test_a_coroutine_that_is_closed_kills_the_goroutine(run: Any) -> None:
    ch = gort.Chan[int]()

    async def main() -> None:
        before = {g.id for g in _goroutines()}
        coro = aio.recv(ch)
        coro.send(None)
        g = await until_parked(before)
        coro.close()
        assert await aio.join(g) is None
        with pytest.raises(gort.WouldBlock):
            ch.send_nowait(1)

    run(main)


def test_a_task_that_nobody_else_holds_lives_on(run: Any) -> None:
    ch, got = gort.Chan[int](), []

    async def receive() -> None:
        got.append(await aio.recv(ch))

    async def main() -> None:
        task, _ = await begun(receive())
        del task
        gc.collect()
        ch.send(7)
        while not got:
            await asyncio.sleep(0)

    run(main)
    assert got == [7]


def test_an_exception_for_a_closed_loop_goes_to_the_excepthook(panics: list[Any]) -> None:
    gate = gort.Chan[int]()
    loop = asyncio.new_event_loop()

    def fail() -> None:
        gate.recv()
        raise ValueError("nobody is there")

    before = {g.id for g in _goroutines()}
    task = loop.create_task(aio.call(fail))
    g = loop.run_until_complete(until_parked(before))
    loop.close()
    gate.send(1)
    finish(g)
    loop.set_exception_handler(lambda loop, context: None)  # "Task was destroyed but it is pending!"
    del g, task
    gc.collect()
    assert [str(e) for _, e in panics] == ["nobody is there"]


def test_nothing_keeps_a_value_or_an_exception() -> None:
    class Thing(Exception):
        pass

    def fail(error: Thing) -> None:
        raise error

    async def main() -> None:
        ch = gort.Chan[Thing]()
        task, _ = await begun(aio.recv(ch))
        thing = Thing()
        seen = weakref.ref(thing)
        ch.send(thing)
        assert await task is thing
        del thing, task
        spin_until(lambda: gort.num_goroutine() == 1)
        await asyncio.sleep(0)
        assert seen() is None
        error = Thing()
        seen = weakref.ref(error)
        try:
            await aio.call(fail, error)
        except Thing as e:
            assert e is error
        del error
        spin_until(lambda: gort.num_goroutine() == 1)
        await asyncio.sleep(0)
        gc.collect()
        assert seen() is None

    aio.run(main())


@pytest.mark.stress
def test_no_value_is_lost_whatever_is_cancelled(run: Any) -> None:
    """Goroutines and threads send; coroutines receive, and are cancelled or time out at every moment."""
    ch, rng, got = gort.Chan[int](), random.Random(1), []
    senders, each = 4, 100

    def produce(start: int) -> None:
        for i in range(start, start + each):
            ch.send(i)
            if i % 7 == 0:
                gort.sleep(0.0001)

    async def receive(how: int) -> None:
        if how == 0:
            got.append(await aio.recv(ch))
        elif how == 1:
            async with asyncio.timeout(rng.random() * 0.0004):
                got.append(await aio.recv(ch))
        elif how == 2 and sys.version_info >= (3, 12):  # up to 3.11 it drops what came when it was cancelled
            got.append(await asyncio.wait_for(aio.recv(ch), rng.random() * 0.0004))
        else:
            _, value, _ = await aio.select(gort.NIL, ch)
            got.append(value)

    async def main() -> None:
        gs = [gort.go(produce, 1000 * i) for i in range(senders)]
        threads = [PlainThread(produce, 10000 * i) for i in range(1, 3)]
        while len(got) < (senders + len(threads)) * each:
            left = (senders + len(threads)) * each - len(got)
            tasks = [asyncio.create_task(receive(rng.randrange(4))) for _ in range(min(8, left))]
            for _ in range(rng.randrange(4)):
                await asyncio.sleep(0)
            for task in tasks:
                if rng.random() < 0.4:
                    task.cancel()
            if left < 8:
                await asyncio.sleep(0.002)
                for task in tasks:
                    task.cancel()
            else:
                _, late = await asyncio.wait(tasks, timeout=0.01)
                for task in late:
                    task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                assert result is None or isinstance(result, (asyncio.CancelledError, TimeoutError))
        for g in gs:
            await aio.join(g)
        for t in threads:
            await aio.call(t.result)

    run(main)
    wanted = [1000 * i + k for i in range(senders) for k in range(each)]
    wanted += [10000 * i + k for i in range(1, 3) for k in range(each)]
    assert sorted(got) == sorted(wanted)


# ---- goroutines that wait for coroutines --------------------------------------------


class LoopThread:
    """A loop that runs beside, in a thread or in a goroutine."""

    def __init__(self, kind: str, factory: Any) -> None:
        self.ready: gort.Chan[None] = gort.Chan()
        self._factory = factory
        self._end = gort.go(self._run).join if kind == "goroutine" else PlainThread(self._run).result
        self.ready.recv_ok()

    def _run(self) -> None:
        aio.run(self._main(), debug=True, loop_factory=self._factory)

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.ready.close()
        await self._stop.wait()

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._end()


@pytest.fixture(
    params=[
        "thread",
        "goroutine",
        pytest.param("uvloop-thread", marks=no_uvloop),
        pytest.param("uvloop", marks=no_uvloop),
    ]
)
def loop(request: pytest.FixtureRequest) -> Any:
    beside = LoopThread(
        "thread" if "thread" in request.param else "goroutine",
        uvloop.new_event_loop if "uvloop" in request.param else None,
    )
    yield beside.loop
    beside.stop()


async def add(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b


@everywhere
def test_run_coroutine_gives_the_result_or_raises(where: Where, loop: Any) -> None:
    async def fail() -> None:
        raise LookupError("no")

    def body() -> None:
        assert [aio.run_coroutine(add(i, 1), loop) for i in range(20)] == list(range(1, 21))
        with pytest.raises(LookupError, match="no"):
            aio.run_coroutine(fail(), loop)
        assert aio.run_coroutine(add(1, 2), loop, timeout=60, ctx=gort.context.background()) == 3

    where(body)


def test_many_goroutines_run_coroutines_at_once(loop: Any) -> None:
    gs = [gort.go(aio.run_coroutine, add(i, i), loop) for i in range(200)]
    assert [g.join() for g in gs] == [2 * i for i in range(200)]


def test_run_coroutine_awaits_a_future_or_task_of_the_loop(loop: Any) -> None:
    async def make() -> tuple[Any, Any]:
        return asyncio.get_running_loop().create_future(), asyncio.create_task(add(3, 4))

    future, task = aio.run_coroutine(make(), loop)
    loop.call_soon_threadsafe(future.set_result, 5)
    assert aio.run_coroutine(future, loop) == 5
    assert aio.run_coroutine(task, loop) == 7
    other = asyncio.new_event_loop()
    try:
        with pytest.raises(ValueError, match="loop"):
            aio.run_coroutine(other.create_future(), loop)
    finally:
        other.close()


class Slow:
    """A coroutine that waits, and says how it ended."""

    def __init__(self) -> None:
        self.begun: gort.Chan[None] = gort.Chan()
        self.ended: gort.Chan[str] = gort.Chan(1)

    async def body(self) -> None:
        self.begun.close()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.ended.send_nowait("cancelled")
            raise


def test_a_timeout_cancels_the_task(loop: Any) -> None:
    slow = Slow()
    with pytest.raises(TimeoutError):
        aio.run_coroutine(slow.body(), loop, timeout=0.01)
    assert not slow.begun.closed or slow.ended.recv_nowait() == "cancelled"
    slow = Slow()
    with pytest.raises(TimeoutError):
        aio.run_coroutine(slow.body(), loop, timeout=0)
    assert not slow.begun.closed or slow.ended.recv_nowait() == "cancelled"


@pytest.mark.parametrize("kind", ["gort", "by hand"])
def test_the_end_of_a_context_cancels_the_task(loop: Any, kind: str) -> None:
    slow = Slow()
    ctx: Any
    if kind == "gort":
        ctx, end = gort.context.with_cancel(gort.context.background())
    else:
        ctx = HandMadeContext()
        end = lambda: ctx.end(gort.context.Canceled("over"))  # noqa: E731
    g = gort.go(aio.run_coroutine, slow.body(), loop, ctx=ctx)
    slow.begun.recv_ok()
    end()
    with pytest.raises(gort.context.Canceled):
        g.join()
    assert slow.ended.recv_nowait() == "cancelled"


def test_kill_cancels_the_task(loop: Any) -> None:
    slow = Slow()
    g = gort.go(aio.run_coroutine, slow.body(), loop)
    slow.begun.recv_ok()
    g.kill()
    assert g.join() is None
    assert slow.ended.recv() == "cancelled"


def test_a_result_in_spite_of_the_cancellation_is_returned(loop: Any) -> None:
    async def body(fail: bool, begun: gort.Chan[None]) -> str:
        begun.close()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            if fail:
                raise LookupError("while it was cancelled") from None
        return "done"

    def canceled(fail: bool) -> Any:
        begun: gort.Chan[None] = gort.Chan()
        ctx, cancel = gort.context.with_cancel(gort.context.background())
        g = gort.go(aio.run_coroutine, body(fail, begun), loop, ctx=ctx)
        begun.recv_ok()
        cancel()
        return g.join()

    assert canceled(fail=False) == "done"
    with pytest.raises(LookupError):
        canceled(fail=True)


def test_a_task_that_others_cancel_raises_cancelled_error(loop: Any) -> None:
    async def suicide() -> None:
        task = asyncio.current_task()
        assert task
        task.cancel()
        await asyncio.sleep(0)

    with pytest.raises(asyncio.CancelledError):
        aio.run_coroutine(suicide(), loop)


def test_run_coroutine_in_its_own_loop_is_refused(run: Any) -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="use await"):
            aio.run_coroutine(add(1, 2), asyncio.get_running_loop())

    run(main)


def test_run_coroutine_refuses_what_it_cannot_run(loop: Any) -> None:
    closed = asyncio.new_event_loop()
    closed.close()
    with pytest.raises(RuntimeError, match="closed"):
        aio.run_coroutine(add(1, 2), closed)
    with pytest.raises(TypeError, match="7"):
        aio.run_coroutine(7, loop)  # type: ignore[arg-type]
    coro = add(1, 2)
    with pytest.raises(TypeError, match="loop must be"):
        aio.run_coroutine(coro, None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="timeout"):
        aio.run_coroutine(coro, loop, timeout="1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="ctx"):
        aio.run_coroutine(coro, loop, ctx=7)  # type: ignore[arg-type]
    assert aio.run_coroutine(coro, loop) == 3  # it is as it was


def test_a_loop_that_nobody_runs_is_a_deadlock() -> None:
    idle = asyncio.new_event_loop()
    try:
        with pytest.raises(gort.Deadlock):
            aio.run_coroutine(add(1, 2), idle)
        idle.run_until_complete(asyncio.sleep(0))  # what was given up does not begin
    finally:
        idle.close()


# ---- loops in goroutines ------------------------------------------------------------


def test_several_loops_in_goroutines_and_a_thread_at_once(run: Any) -> None:
    """A ring: each loop receives from the one before and sends to the next."""
    n, rounds = 5, 20
    ring = [gort.Chan[int]() for _ in range(n)]

    async def station(i: int) -> int:
        last = 0
        for _ in range(rounds):
            last = await aio.recv(ring[i])
            await aio.send(ring[(i + 1) % n], last + 1)
        return last

    gs = [gort.go(run, lambda i=i: station(i)) for i in range(1, n - 1)]
    thread = PlainThread(run, lambda: station(n - 1))

    async def head() -> int:
        value = 0
        for _ in range(rounds):
            await aio.send(ring[1], value)
            value = await aio.recv(ring[0])
        return value

    assert run(head) == rounds * (n - 1)
    assert [g.join() for g in gs] == [(rounds - 1) * (n - 1) + i for i in range(n - 2)]
    assert thread.result() == rounds * (n - 1) - 1


@everywhere
def test_a_loop_that_waits_does_not_stall_the_goroutines(where: Where, run: Any) -> None:
    a, b = gort.Chan[int](), gort.Chan[int]()

    def bounce(inp: gort.Chan[int], out: gort.Chan[int]) -> None:
        for v in inp:
            out.send(v + 1)
            gort.sleep(0.0001)

    async def main() -> int:
        over, loop = asyncio.Event(), asyncio.get_running_loop()

        def drive() -> int:
            v = 0
            for _ in range(50):
                a.send(v)
                v = b.recv()
            a.close()
            loop.call_soon_threadsafe(over.set)
            return v

        gort.go(bounce, a, b)
        g = gort.go(drive)
        await over.wait()
        return g.join()

    assert where(lambda: run(main)) == 50


def test_goroutines_that_compute_do_not_stall_a_loop(run: Any) -> None:
    stop = False

    def compute() -> None:
        while not stop:
            pass

    async def main() -> None:
        nonlocal stop
        g = gort.go(compute)
        for _ in range(5):
            await asyncio.sleep(0.001)
        stop = True
        await aio.join(g)

    run(main)


def test_run_returns_raises_and_lets_the_thread_go() -> None:
    async def fail() -> None:
        raise LookupError

    def body() -> bool:
        assert aio.run(add(1, 2)) == 3
        with pytest.raises(LookupError):
            aio.run(fail())
        return "locked to thread" in gort.stack()

    assert gort.go(body).join() is False

    async def nested() -> None:
        coro = add(1, 2)
        with pytest.raises(RuntimeError, match="cannot be called from a running event loop"):
            aio.run(coro)
        coro.close()

    aio.run(nested())


def test_the_main_goroutine_goes_on_beside_a_loop_in_another() -> None:
    hold: gort.Chan[None] = gort.Chan()
    ticks = 0

    async def main() -> None:
        await aio.recv_ok(hold)

    g = gort.go(lambda: aio.run(main()))
    for _ in range(20):
        gort.sleep(0.0005)
        ticks += 1
    hold.close()
    g.join()
    assert ticks == 20


def test_kill_of_a_goroutine_whose_loop_awaits(run: Any) -> None:
    """It runs in C, so the kill comes at its next wait; the loop's own tasks end as asyncio has it."""
    gate: gort.Chan[int] = gort.Chan()

    async def main() -> str:
        await aio.recv(gate)
        gort.gosched()  # where the kill is seen
        return "not reached"

    before = {g.id for g in _goroutines()}
    g = gort.go(run, main)
    spin_until(lambda: len({h.id for h in _goroutines() if h.state == "waiting"} - before - {g.id}) == 1)
    g.kill()
    gate.send(1)
    assert g.join() is None


def test_subprocesses_and_servers_in_a_loop_in_a_goroutine(run: Any) -> None:
    async def main() -> bytes:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write((await reader.readline()).upper())
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"hello\n")
            line = await reader.readline()
            writer.close()
            await writer.wait_closed()
        return line

    assert gort.go(run, main).join() == b"HELLO\n"


def test_threads_of_the_default_executor_use_channels(run: Any) -> None:
    ch = gort.Chan[int]()

    async def main() -> int:
        loop = asyncio.get_running_loop()
        sends = [loop.run_in_executor(None, ch.send, i) for i in range(20)]
        total = sum([await aio.recv(ch) for _ in sends])
        await asyncio.gather(*sends)
        return total

    assert run(main) == 190
    assert not [t for t in threading.enumerate() if t.name.startswith("asyncio_")]


def test_the_documentations_program_prints_what_is_written() -> None:
    page = (Path(__file__).parent.parent / "docs" / "aio.md").read_text(encoding="utf-8")
    found = re.search(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```\n", page, re.DOTALL | re.MULTILINE)
    assert found
    assert output_of(found[1]) == found[2]
