"""gort and asyncio: coroutines that wait for goroutines, and goroutines that wait for coroutines.

In a coroutine, on any asyncio loop (uvloop's too), wherever that runs:

    value = await aio.recv(ch)                          # also send, recv_ok, select, join
    async for value in aio.iterate(ch): ...
    await aio.call(wait_group.wait)                     # whatever may park or block, in a goroutine

In a goroutine or thread other than the loop's:

    reply = aio.run_coroutine(client.get(url), loop, timeout=5)

And `aio.run(main())` runs a loop in the calling goroutine, while the others go on.

**Cancellation.** `task.cancel()`, and so `asyncio.timeout()`, ends such a wait as `Goroutine.kill()` does,
and the `await` raises CancelledError once the wait has ended: then nothing was received, and nothing sent. If
it has been done by then the `await` gives its result, so that no value is lost, and the task's cancellation
comes at its next one.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from gort._core._runtime import (
    Chan,
    ChanClosed,
    Deadlock,
    Goroutine,
    GoroutineExit,
    Receiver,
    Sender,
    go,
    lock_os_thread,
    unlock_os_thread,
)
from gort._core._runtime import select as _select

if TYPE_CHECKING:
    from gort._core._runtime import _Case, _Context, _Seconds

__all__ = ["call", "iterate", "join", "recv", "recv_ok", "run", "run_coroutine", "select", "send"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_T = TypeVar("_T")


# ---- coroutines that wait for goroutines --------------------------------------------
class _Call:
    """A function that a goroutine runs for a coroutine.

    The goroutine sets `over` last; the loop's thread reads it, so it is enough that Python's own
    operations are atomic. `began` and `given_up` make one of both sides see the other: a goroutine that
    is killed before it begins would tell nobody.
    """

    __slots__ = ("args", "began", "error", "fn", "future", "given_up", "kwargs", "loop", "over", "value")

    def __init__(self, loop: asyncio.AbstractEventLoop, fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self.loop = loop
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self.future: asyncio.Future[None] = loop.create_future()
        self.began = self.given_up = self.over = False
        self.value: Any = None
        self.error: BaseException | None = None

    def body(self) -> None:
        self.began = True
        try:
            if self.given_up:
                raise GoroutineExit
            self.value = self.fn(*self.args, **self.kwargs)
        except BaseException as e:
            self.error = e
        self.over = True
        while True:
            try:
                self.loop.call_soon_threadsafe(self.wake)
            except GoroutineExit:  # a kill that came too late
                continue
            except RuntimeError:  # the loop is closed, and nobody waits any more
                if self.error is not None:
                    raise self.error from None
            return

    def wake(self) -> None:
        if not self.future.done():
            self.future.set_result(None)

    def give_up(self, g: Goroutine[None]) -> None:
        self.given_up = True
        if self.began:
            g.kill()


async def _wait(fn: Callable[..., _R], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _R:
    """Call `fn` in a goroutine; see the module's docstring."""
    loop = asyncio.get_running_loop()
    call = _Call(loop, fn, args, kwargs)
    g = go(call.body)
    canceled: asyncio.CancelledError | None = None
    try:
        while not call.over:
            try:
                await call.future
            except asyncio.CancelledError as e:
                canceled = e
                if not call.over:
                    call.future = loop.create_future()
                    call.give_up(g)
        if canceled is not None and isinstance(call.error, GoroutineExit):
            raise canceled
    except BaseException:  # the coroutine was closed, or CancelledError again
        if not call.over:
            call.give_up(g)
        raise
    else:
        if canceled is not None:
            _cancel_later(loop, canceled)
        if call.error is None:
            result: _R = call.value
            return result
        if isinstance(call.error, GoroutineExit):
            return None  # type: ignore[return-value]  # as join()
        raise call.error
    finally:
        canceled = None
        call.error = None  # which names this frame in its traceback


def _cancel_later(loop: asyncio.AbstractEventLoop, e: asyncio.CancelledError) -> None:
    """Have the running task, whose cancellation came too late, cancelled where it waits next.

    Unless whoever cancelled it has taken that back by then (`uncancel`), as a timeout whose block ends does.
    """
    task = asyncio.current_task(loop)
    if task is None:
        return
    asked = task.cancelling()

    def cancel() -> None:
        if not task.done() and asked and task.cancelling() >= asked:
            task.uncancel()
            task.cancel(*e.args)

    loop.call_soon(cancel)


async def call(fn: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
    """Call `fn(*args, **kwargs)` in a goroutine and await its result; an exception of `fn` comes out.

    For whatever parks or blocks: `await call(mutex.lock)`, `call(group.wait)`, `call(ctx.wait)`. It sees the
    coroutine's context variables. None if it ends in `goexit()`. Cancellation kills the goroutine and waits for
    its end, see above; where `fn` blocks in C that is when it comes back. Raises TypeError if `fn` is not
    callable.
    """
    if not callable(fn):
        raise TypeError(f"call() needs a callable, not {fn!r}")
    return await _wait(contextvars.copy_context().run, (fn, *args), kwargs)


async def recv(ch: Chan[_T] | Receiver[_T], /) -> _T:
    """Receive from a channel, as `Chan.recv()`. Raises ChanClosed once it is closed and drained."""
    value, ok = await recv_ok(ch)
    if not ok:
        raise ChanClosed("receive from a closed channel")
    return value


async def recv_ok(ch: Chan[_T] | Receiver[_T], /) -> tuple[_T | Any, bool]:
    """Receive from a channel, as `Chan.recv_ok()`: `(value, True)`, or `(zero, False)` at its end."""
    if not isinstance(ch, (Chan, Receiver)):
        raise TypeError(f"ch must be a channel to receive from, not {ch!r}")
    i, value, ok = _select(ch, default=True)
    return (value, ok) if i == 0 else await _wait(ch.recv_ok, (), {})


async def send(ch: Chan[_T] | Sender[_T], value: _T, /) -> None:
    """Send to a channel, as `Chan.send()`. Raises ChanClosed if it is or gets closed."""
    if not isinstance(ch, (Chan, Sender)):
        raise TypeError(f"ch must be a channel to send to, not {ch!r}")
    i, _, _ = _select((ch, value), default=True)
    if i != 0:
        await _wait(ch.send, (value,), {})


@overload
async def select(*cases: Chan[_T] | Receiver[_T] | None, default: bool = False) -> tuple[int, _T | Any, bool]: ...
@overload
async def select(*cases: _Case, default: bool = False) -> tuple[int, Any, bool]: ...
async def select(*cases: Any, default: bool = False) -> tuple[int, Any, bool]:
    """Wait until one of `cases` can go on, as `gort.select()`, with its cases, result and exceptions."""
    result = _select(*cases, default=True)
    return result if result[0] >= 0 or default else await _wait(_select, cases, {})


async def join(g: Goroutine[_R], /) -> _R:
    """Await the end of a goroutine: its function's result, or its exception raised; as `Goroutine.join()`."""
    if not isinstance(g, Goroutine):
        raise TypeError(f"g must be a Goroutine, not {g!r}")
    return g.join() if g.done else await _wait(g.join, (), {})


async def iterate(ch: Chan[_T] | Receiver[_T], /) -> AsyncIterator[_T]:
    """`async for value in iterate(ch)` receives until the channel is closed and drained."""
    while True:
        value, ok = await recv_ok(ch)
        if not ok:
            return
        yield value


# ---- goroutines that wait for coroutines --------------------------------------------
class _Run(Generic[_T]):
    """An awaitable that a loop runs for a goroutine, which is told by the closing of `over`."""

    __slots__ = ("awaitable", "error", "future", "given_up", "loop", "over")

    def __init__(self, awaitable: Awaitable[_T], loop: asyncio.AbstractEventLoop) -> None:
        self.awaitable: Awaitable[_T] | None = awaitable
        self.loop = loop
        self.over: Chan[None] = Chan()
        self.future: asyncio.Future[_T] | None = None
        self.error: BaseException | None = None
        self.given_up = False

    def begin(self) -> None:  # in the loop
        awaitable, self.awaitable = self.awaitable, None
        assert awaitable is not None
        try:
            if self.given_up:
                _discard(awaitable)
                raise asyncio.CancelledError
            self.future = asyncio.ensure_future(awaitable, loop=self.loop)
        except BaseException as e:  # or a future of another loop, say
            self.error = e
            self.over.close()
        else:
            self.future.add_done_callback(lambda _: self.over.close())

    def cancel(self) -> None:  # in the loop
        if self.future is not None:
            self.future.cancel()

    def give_up(self) -> bool:
        """Whether its end will come."""
        self.given_up = True
        try:
            self.loop.call_soon_threadsafe(self.cancel)
        except RuntimeError:  # closed
            return False
        return True

    def result(self) -> _T:
        if self.error is not None:
            raise self.error
        assert self.future is not None
        return self.future.result()


def _discard(awaitable: Awaitable[object]) -> None:
    if isinstance(awaitable, Coroutine):
        awaitable.close()  # no warning that it was never awaited


_ended: Chan[None] = Chan()
_ended.close()


def run_coroutine(
    awaitable: Awaitable[_T],
    loop: asyncio.AbstractEventLoop,
    *,
    timeout: _Seconds | None = None,
    ctx: _Context | None = None,
) -> _T:
    """Run a coroutine in `loop`, or await a future or task of it; return the result or raise the exception.

    For goroutines and threads other than the loop's own, which get RuntimeError. Parks. After `timeout` seconds,
    or at the end of `ctx`, the task is cancelled and its end waited for, as in `asyncio.wait_for()`; then
    TimeoutError or the context's error is raised, unless there is a result after all. A goroutine that is killed
    cancels it and goes. Raises CancelledError if somebody else cancels the task, RuntimeError if the loop is
    closed. A loop that does not run is waited for.
    """
    if not isinstance(awaitable, Awaitable):
        raise TypeError(f"run_coroutine() needs a coroutine or a future, not {awaitable!r}")
    if not isinstance(loop, asyncio.AbstractEventLoop):
        raise TypeError(f"loop must be an event loop, not {loop!r}")
    _ended.recv_ok(timeout, ctx=ctx)  # raises what a bad timeout or ctx raises, and does nothing else
    if asyncio._get_running_loop() is loop:
        _discard(awaitable)
        raise RuntimeError("run_coroutine() would wait for the loop that it is called in: use await")
    run = _Run(awaitable, loop)
    try:
        loop.call_soon_threadsafe(run.begin)
    except BaseException as e:
        run.given_up = True
        if isinstance(e, RuntimeError):  # closed
            _discard(awaitable)
        raise
    try:
        run.over.recv_ok(timeout, ctx=ctx)
    except BaseException as e:
        if not run.give_up() or not isinstance(e, Exception) or isinstance(e, Deadlock):
            raise
        run.over.recv_ok()
        try:
            return run.result()
        except asyncio.CancelledError:
            raise e from None
    return run.result()


# ---- a loop in a goroutine ----------------------------------------------------------
def run(
    main: Coroutine[Any, Any, _T],
    /,
    *,
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> _T:
    """`asyncio.run()` in the calling goroutine, which keeps the OS thread it is on until the end.

    The others go on while the loop waits. Several goroutines may each run a loop. `loop_factory` is, for
    example, `uvloop.new_event_loop`. Raises RuntimeError if a loop runs in the calling goroutine already.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("aio.run() cannot be called from a running event loop")
    lock_os_thread()  # loops know their thread; and a goroutine other than the main one leaves the main thread
    try:
        with asyncio.Runner(debug=debug, loop_factory=loop_factory) as runner:
            return runner.run(main)
    finally:
        unlock_os_thread()
