"""`concurrent.futures` with goroutines: an Executor whose workers are goroutines.

    with futures.Executor(max_workers=100) as pool:
        pages = list(pool.map(fetch, urls))

Its futures are `concurrent.futures.Future`s: `as_completed()`, `loop.run_in_executor(pool, fn)` and the like take
them. In a goroutine their `result()` parks, while that of any other future blocks an OS thread for as long.
"""

from __future__ import annotations

import concurrent.futures
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from gort._core._runtime import Chan, GoroutineExit
from gort.sync import Mutex, WaitGroup

if TYPE_CHECKING:
    from gort._core._runtime import _Context, _Seconds

__all__ = ["Executor", "Future"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Future(concurrent.futures.Future[_R]):
    """The result to be of a call, as `concurrent.futures.Future`; made by `Executor.submit()`."""

    def __init__(self) -> None:
        super().__init__()
        ended: Chan[None] = Chan()
        self._ended = ended
        self.add_done_callback(lambda _: ended.close())

    def result(self, timeout: _Seconds | None = None, *, ctx: _Context | None = None) -> _R:
        """Wait for the end of the call; return its result or raise its exception. Parks.

        Raises TimeoutError after `timeout` seconds, `concurrent.futures.CancelledError` if it was cancelled
        or its goroutine killed.
        """
        self._ended.recv_ok(timeout, ctx=ctx)
        return super().result(0)

    def exception(self, timeout: _Seconds | None = None, *, ctx: _Context | None = None) -> BaseException | None:
        """Wait for the end of the call; return its exception, or None. Otherwise as `result()`."""
        self._ended.recv_ok(timeout, ctx=ctx)
        return super().exception(0)


class Executor(concurrent.futures.Executor):
    """Calls functions in goroutines, at most `max_workers` at a time; None is no limit.

    As `concurrent.futures.ThreadPoolExecutor`, but that each call has a goroutine of its own and that nobody
    waits for it at the end of the program: shut it down, best as a context manager. Raises ValueError or
    TypeError for a bad `max_workers`.
    """

    def __init__(self, max_workers: int | None = None) -> None:
        if max_workers is not None:
            if not isinstance(max_workers, int):
                raise TypeError(f"max_workers must be an int or None, not {max_workers!r}")
            if max_workers <= 0:
                raise ValueError(f"max_workers must be greater than 0, not {max_workers!r}")
        self._max_workers = max_workers
        self._mutex = Mutex()  # guards what follows
        self._running = 0
        self._pending: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._closed = False
        self._group = WaitGroup()

    def submit(self, fn: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_R]:
        """Have `fn(*args, **kwargs)` called in a goroutine; return the future of its result. Does not wait.

        Raises RuntimeError after `shutdown()`, TypeError if `fn` is not callable.
        """
        if not callable(fn):
            raise TypeError(f"submit() needs a callable, not {fn!r}")
        future: Future[_R] = Future()
        with self._mutex:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._pending.append((future, lambda: fn(*args, **kwargs)))
            self._start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and wait until all have ended. Parks.

        With `cancel_futures` those that have not begun are cancelled; without `wait` it returns at once.
        """
        with self._mutex:
            self._closed = True
            canceled = list(self._pending) if cancel_futures else []
            if cancel_futures:
                self._pending.clear()
        for future, _ in canceled:
            if future.cancel():
                future.set_running_or_notify_cancel()
        if wait:
            self._group.wait()

    def _start(self) -> None:  # with the mutex
        if self._pending and (self._max_workers is None or self._running < self._max_workers):
            self._running += 1
            future, call = self._pending.popleft()
            self._group.go(self._work, future, call)

    def _work(self, future: Future[Any], call: Callable[[], Any]) -> None:
        try:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except GoroutineExit:
                    future.set_exception(concurrent.futures.CancelledError())
                    raise
                except BaseException as e:
                    future.set_exception(e)
        finally:
            del future, call  # an exception's traceback names this frame
            with self._mutex:
                self._running -= 1
                self._start()
