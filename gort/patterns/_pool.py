"""A pool that runs tasks, so many at once, and gives a handle for each.

Each task is a goroutine of its own, and a worker is but the right to run: an
error ends a task, never a worker, and a pool at rest holds no goroutine. A task
that finds no worker free waits on a channel of its own, its turn, for one that
ends to hand it on: in the order of submission, which the scheduler does not keep.

The goroutine keeps its error. Who waits for the pool joins it, though, and so
takes on to see that the error is not lost: a Task that goes away with an error
that nobody received tells the excepthook.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, TypeVarTuple

import gort
from gort import context, sync, time
from gort.patterns._stream import (
    check_callable,
    check_context,
    check_count,
    check_seconds,
    foreign_part,
    outcome,
    raise_clean,
    unreceived,
)

if TYPE_CHECKING:
    from gort._core._runtime import _Context, _Parent, _Seconds

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Ts = TypeVarTuple("Ts")


class Task(Generic[T_co]):
    """The handle of what was submitted to a `WorkerPool`."""

    __slots__ = ("__weakref__", "_cancelled", "_g", "_gone", "_returned", "_seen", "_started", "_waits")

    _g: gort.Goroutine[T_co]

    def __init__(self) -> None:
        self._waits: tuple[WorkerPool, gort.Chan[None]] | None = None  # for its turn
        # _started is set before _cancelled is read, and the other way about: one side sees the other.
        self._started = self._cancelled = False
        self._returned = self._gone = self._seen = False

    @property
    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._g.done

    def exception(self, timeout: _Seconds | None = None, *, ctx: _Context | None = None) -> BaseException | None:
        """Wait until it has ended; what `result()` would raise, or None. Parks.

        Raises TimeoutError after `timeout` seconds, and the context's error when `ctx` ends.
        """
        failure = outcome(self._g, timeout, ctx)
        self._seen = True
        if failure is None and not self._returned:
            return context.Canceled("the task was cancelled")
        return failure

    def result(self, timeout: _Seconds | None = None, *, ctx: _Context | None = None) -> T_co:
        """Wait until it has ended; what its function returned, or its exception raised. Parks.

        Raises Canceled for one that was cancelled, TimeoutError after `timeout`
        seconds, and the context's error when `ctx` ends.
        """
        failure = self.exception(timeout, ctx=ctx)
        if failure is not None:
            try:
                raise_clean(failure)
            finally:
                del failure, self
        return self._g.join()

    def cancel(self) -> None:
        """Do not run it, or, if it runs, kill it where it waits. Does not wait for its end."""
        self._cancelled = True
        if self._started:
            self._g.kill()
        elif (waits := self._waits) is not None:
            pool, turn = waits
            pool._withdraw(turn)

    def __del__(self) -> None:
        g = getattr(self, "_g", None)  # it has none yet if it could not be started
        if g is not None and not self._seen and g.done and (failure := outcome(g)) is not None:
            unreceived(g, failure)

    def __repr__(self) -> str:
        how = "running" if not self.done else "returned" if self._returned else "failed or cancelled"
        return f"<Task {self._g.name!r} {how}>"


def _run(
    pool: WorkerPool, task: Task[Any], turn: gort.Chan[None] | None, fn: Callable[..., Any], args: tuple[Any, ...]
) -> Any:
    error: BaseException | None = None
    at_work = turn is None
    try:
        if turn is not None:
            _, at_work = turn.recv_ok()
        task._started = True
        if at_work and not task._cancelled:
            result = fn(*args)
            task._returned = True
            return result
        return None
    except gort.GoroutineExit:
        return None
    except BaseException as e:
        error = e
    finally:
        task._waits = None
        pool._hand_on(turn, at_work)
        pool._leave(task)
    try:
        del pool, task, fn, args
        raise error.with_traceback(foreign_part(error.__traceback__))
    finally:
        del error


def _cancel(ref: weakref.ref[WorkerPool]) -> None:
    if (pool := ref()) is not None:
        pool.cancel()


class WorkerPool:
    """Runs what is submitted to it, at most `n` functions at once.

    `queue` is how many more may wait for their turn, which comes in the order in
    which they were submitted: none unless told, None for any number. An error
    ends its task only. At the end of a `with` block the pool is closed and all
    tasks awaited; an exception of the block cancels them first. The end of `ctx`
    cancels them, too. Raises TypeError or ValueError for a bad argument. Usable
    from goroutines and plain threads alike.

    >>> with WorkerPool(2) as pool:
    ...     tasks = [pool.submit(pow, 2, n) for n in range(4)]
    >>> [task.result() for task in tasks]
    [1, 2, 4, 8]
    """

    def __init__(self, n: int, queue: int | None = 0, *, ctx: _Parent | None = None) -> None:
        check_count(n, "n", 1)
        check_context(ctx)
        if queue is not None:
            check_count(queue, "queue", 0)
        self._ctx = ctx
        self._free = n  # workers; guarded by _mutex, as _waiting
        self._waiting: deque[gort.Chan[None]] = deque()
        self._room: gort.Chan[None] | None = None if queue is None else gort.Chan(n + queue)
        self._closed = gort.Chan[None]()
        self._mutex = sync.Mutex()  # also: a task is in `_tasks` before the pool is closed, or not started
        self._tasks: set[Task[Any]] = set()
        self._unwatch = context.after_func(ctx, _bound(weakref.ref(self))) if ctx is not None else None

    @property
    def closed(self) -> bool:
        """Whether it takes no more tasks."""
        return self._closed.closed

    def submit(
        self,
        fn: Callable[[*Ts], T],
        /,
        *args: *Ts,
        timeout: _Seconds | None = None,
        ctx: _Context | None = None,
    ) -> Task[T]:
        """Run `fn(*args)` in the pool; the task's handle. Parks while there is no room for it.

        Raises TimeoutError after `timeout` seconds without room, the context's
        error when `ctx` or the pool's ends, RuntimeError once the pool is closed.
        An error of `fn` that nobody asks the handle for goes to `gort.excepthook`.
        """
        check_callable(fn)
        self._check_open()
        if self._room is not None:
            i, _, _ = gort.select((self._room, None), self._closed, timeout=timeout, ctx=ctx)
            if i == 1:
                self._check_open()
        return self._start(fn, args)

    def try_submit(self, fn: Callable[[*Ts], T], /, *args: *Ts) -> Task[T] | None:
        """As `submit()`, but None at once if there is no room."""
        check_callable(fn)
        self._check_open()
        if self._room is not None:
            try:
                self._room.send_nowait(None)
            except gort.WouldBlock:
                return None
        return self._start(fn, args)

    def _check_open(self) -> None:
        if self._ctx is not None and (error := self._ctx.err()) is not None:
            raise error
        if self._closed.closed:
            raise RuntimeError("the pool is closed")

    def _start(self, fn: Callable[..., T], args: tuple[Any, ...]) -> Task[T]:
        """With room for it taken."""
        task: Task[T] = Task()
        started = False
        try:
            with self._mutex:
                self._check_open()
                turn: gort.Chan[None] | None = None
                if not self._free:
                    turn = gort.Chan(1)
                    task._waits = self, turn
                task._g = gort.go(_run, self, task, turn, fn, args)
                started = True
                task._g.name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
                self._tasks.add(task)
                if turn is None:
                    self._free -= 1
                else:
                    self._waiting.append(turn)
        finally:
            if not started:
                self._leave(task)
        if task._gone:
            self._tasks.discard(task)
        return task

    def _withdraw(self, turn: gort.Chan[None]) -> None:
        """It is not to wait for its turn any more."""
        with self._mutex:
            if turn in self._waiting:
                self._waiting.remove(turn)
                turn.close()

    def _hand_on(self, turn: gort.Chan[None] | None, at_work: bool) -> None:
        """A task has ended: its worker, if it has one, is for the next."""
        while True:
            try:
                self._mutex.lock()
                break
            except gort.GoroutineExit:  # it ends anyhow
                pass
        try:
            if turn is not None and not at_work:  # withdrawn, or killed while it waited
                if turn in self._waiting:
                    self._waiting.remove(turn)
                at_work = len(turn) == 1
            if at_work and self._waiting:
                self._waiting.popleft().send_nowait(None)
            elif at_work:
                self._free += 1
        finally:
            self._mutex.unlock()

    def _leave(self, task: Task[Any]) -> None:
        """It has ended, or was not started. Does not wait."""
        task._gone = True
        self._tasks.discard(task)
        if self._room is not None:
            self._room.recv_nowait()

    def drain(self, timeout: _Seconds | None = None, *, ctx: _Context | None = None) -> None:
        """Wait until no task is left. Parks. Raises TimeoutError after `timeout` seconds, or the context's error."""
        left = timeout
        until = None if timeout is None else time.now() + check_seconds(timeout, "timeout")
        while self._tasks:
            for task in list(self._tasks):
                if until is not None:
                    left = until - time.now()
                outcome(task._g, left, ctx)
                self._tasks.discard(task)

    def cancel(self) -> None:
        """Take no more tasks and cancel those there are. Does not wait for their end."""
        self._refuse()
        for task in list(self._tasks):
            task.cancel()

    def close(self, timeout: _Seconds | None = None, *, ctx: _Context | None = None) -> None:
        """Take no more tasks, and wait until those there are have ended. Parks. As `drain()` otherwise."""
        self._refuse()
        self.drain(timeout, ctx=ctx)

    def _refuse(self) -> None:
        with self._mutex:
            if not self._closed.closed:
                self._closed.close()
        if self._unwatch is not None:
            self._unwatch()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, exc: object, tb: object) -> None:
        if exc is not None:
            self.cancel()
        self.close()

    def __del__(self) -> None:
        if (unwatch := getattr(self, "_unwatch", None)) is not None:
            unwatch()


def _bound(ref: weakref.ref[WorkerPool]) -> Callable[[], None]:
    return lambda: _cancel(ref)
