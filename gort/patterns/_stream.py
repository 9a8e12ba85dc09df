"""Streams, and the goroutines behind them.

A `Crew` is the goroutines that feed one stream or, of tee() and fan_out(),
several. It is over when the last of them has returned, when one of them fails,
when its context ends, or when all its streams are closed or gone, whichever is
first: `end()` settles which. That closes the channels and kills the goroutines
that are left; none of this waits, so a finaliser may do it. Whoever then finds
a stream at its end waits in `settle()` for the goroutines to be gone. A crew
owns the streams it reads from and ends them too.

An error has one owner. The goroutine that failed keeps it, in its handle; the
first one of a crew is raised in whoever reads the stream. What nobody received
goes to `gort.excepthook`: told by `settle()`, or by the runtime once the handles
are gone. Frames of this package are taken off its traceback, as they would
hold crew and handles in a cycle with it.

No lock is held where a crew ends. A goroutine that is killed before it began
never runs, so nothing may be left to the goroutines that only they can do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar

import gort
from gort import atomic, context, sync
from gort._core._runtime import Receiver  # while gort itself is being imported

if TYPE_CHECKING:
    from gort._core._runtime import _Context, _Parent, _Seconds

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_HERE = str(Path(__file__).parent)


# ---- arguments ------------------------------------------------------------------


def check_count(value: object, name: str, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value!r}")
    return value


def check_seconds(value: Any, name: str) -> float:
    if isinstance(value, str | bytes) or not (hasattr(value, "__float__") or hasattr(value, "__index__")):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    seconds = float(value)
    if seconds != seconds:
        raise ValueError(f"{name} must be a number of seconds, not {value!r}")
    return max(0.0, seconds)


def check_callable(value: object, name: str = "fn") -> None:
    if not callable(value):
        raise TypeError(f"{name} must be callable, not {value!r}")


def check_context(value: object) -> None:
    if value is not None and not all(callable(getattr(value, m, None)) for m in ("deadline", "done", "err", "value")):
        raise TypeError(f"ctx must be a context, not {value!r}")


# ---- errors -----------------------------------------------------------------------


def foreign_part(tb: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame on that is not gort's."""
    while tb is not None and tb.tb_frame.f_code.co_filename.startswith((_HERE, "gort/_core/")):
        tb = tb.tb_next
    return tb


def as_failure(error: BaseException) -> BaseException:
    """What to give to a reader: a StopIteration would look like the end to him (PEP 479)."""
    if isinstance(error, StopIteration):
        failure = RuntimeError("a function of a stream raised StopIteration")
        failure.__cause__ = error
        return failure
    return error


def raise_clean(error: BaseException) -> NoReturn:
    try:
        raise error.with_traceback(foreign_part(error.__traceback__))
    finally:
        del error


def outcome(
    g: gort.Goroutine[Any], timeout: _Seconds | None = None, ctx: _Context | None = None
) -> BaseException | None:
    """Wait until `g` is gone, and return what it failed with. Parks.

    What ends the wait of the caller is raised.
    """
    try:
        g.join(timeout, ctx=ctx)
    except BaseException as e:
        if g.done:
            try:
                g.join()
            except BaseException as failure:
                if failure is e:
                    return failure
        raise
    return None


def unreceived(g: gort.Goroutine[Any], error: BaseException) -> None:
    gort.excepthook(g, error.with_traceback(foreign_part(error.__traceback__)))


# ---- a crew --------------------------------------------------------------------------


class Crew:
    __slots__ = (
        "_culprit",
        "_handles",
        "_living",
        "_open",
        "_over",
        "_settling",
        "_told",
        "_trace",
        "_unwatch",
        "ctx",
        "error",
        "name",
        "outs",
        "upstream",
    )

    def __init__(
        self, name: str, sources: Iterable[object] = (), *, outs: int = 1, buffer: int = 0, ctx: _Parent | None = None
    ) -> None:
        check_count(buffer, "buffer", 0)
        check_context(ctx)
        self.name = f"gort.patterns.{name}"
        self.ctx = ctx
        self.upstream = tuple(s for s in sources if isinstance(s, Stream))
        self.outs = [gort.Chan[Any](buffer) for _ in range(outs)]
        self.error: BaseException | None = None  # set before the channels are closed
        self._open = atomic.Int64(outs)  # streams that are not closed
        self._over = atomic.Bool()
        self._living = atomic.Int64()  # goroutines that have not returned
        self._handles: list[gort.Goroutine[Any]] = []
        self._settling = sync.Mutex()
        self._culprit: gort.Goroutine[Any] | None = None  # who failed with `error`
        self._told = False  # somebody has received `error`
        self._trace: TracebackType | None = None  # of `error`, before anybody has raised it again
        self._unwatch: Callable[[], bool] | None = None

    def start(self, *jobs: tuple[Any, ...]) -> list[Stream[Any]]:
        """Run each job `(body, *args)` as `body(crew, *args)` in a goroutine; the streams that they feed.

        A body that returns an exception has failed with it, but has ended the
        crew itself, or left that to another.
        """
        streams = [_stream(self, out) for out in self.outs]
        if self.ctx is not None and (error := self.ctx.err()) is not None:
            self.end(error)
            return streams
        if not jobs:
            self.end(None)
            return streams
        if self.ctx is not None:
            self._unwatch = context.after_func(self.ctx, self._context_ended)
        self._living.store(len(jobs))
        for body, *args in jobs:
            g = gort.go(_member, self, body, args)
            g.name = self.name
            self._handles.append(g)
        if self._over.load():  # seen from another OS thread than theirs
            self.kill()
        return streams

    def start_one(self, *jobs: tuple[Any, ...]) -> Stream[Any]:
        return self.start(*jobs)[0]

    def put(self, value: object) -> None:
        """Send `value` to the one stream; ends the goroutine if nobody wants it any more."""
        try:
            self.outs[0].send(value)
        except gort.ChanClosed:
            raise gort.GoroutineExit from None

    def end(self, error: BaseException | None, *, kill: bool = True) -> bool:
        """It is over, with this error; whether it was not before. Waits for nothing."""
        if not self._end(error, kill):
            return False
        todo = list(self.upstream)  # no recursion: a sieve is some hundreds of streams deep
        while todo:
            if (crew := todo.pop()._abandon()) is not None and crew._end(None, True):
                todo += crew.upstream
        return True

    def _end(self, error: BaseException | None, kill: bool) -> bool:
        if self._over.swap(True):
            return False
        self.error = error
        if error is not None:
            self._trace = foreign_part(error.__traceback__)
        if kill:
            self.kill()
        for out in self.outs:
            close_quietly(out)
        if self._unwatch is not None:
            self._unwatch()
        return True

    @property
    def over(self) -> bool:
        """Whether it has ended; a body that may run on without a wait has to ask."""
        return self._over.load()

    def kill(self) -> None:
        me = gort.current()
        for g in self._handles:
            if g is not me:
                g.kill()

    def _context_ended(self) -> None:
        assert self.ctx is not None
        self.end(self.ctx.err())

    def close_one(self) -> bool:
        """One of the streams is closed; whether it was the last."""
        return self._open.add(-1) == 0

    def leave(self) -> None:
        """One of the goroutines has returned."""
        if self._living.add(-1) == 0:
            self.end(None, kill=False)

    def settle(
        self, deliver: bool, timeout: _Seconds | None = None, ctx: _Context | None = None
    ) -> BaseException | None:
        """Wait until the goroutines, and those of the streams they read, are gone. Parks.

        Then return the error if it is to be delivered, or else tell the
        excepthook of it, unless somebody has received it.
        """
        todo, settled = [self], []
        while todo:
            crew = todo.pop()
            if crew._over.load():
                crew._join(timeout, ctx)
                if crew is not self or not deliver:
                    crew._tell()
                settled.append(crew)
                for stream in crew.upstream:
                    stream._discard()
                    todo.append(stream._crew)
        for crew in settled:
            crew.upstream = ()
        if not deliver or self.error is None:
            return None
        self._told = True
        return self.error.with_traceback(self._trace)

    def _join(self, timeout: _Seconds | None, ctx: _Context | None) -> None:
        me = gort.current()
        with _locked(self._settling, timeout, ctx):
            while self._handles:
                g = self._handles[-1]
                if g is not me:
                    failure = outcome(g, timeout, ctx)
                    if failure is not None and failure is self.error:
                        self._culprit = g
                    elif failure is not None:
                        unreceived(g, failure)
                    del failure
                self._handles.pop()

    def _tell(self) -> None:
        if self.error is not None and self._culprit is not None and not self._told:
            self._told = True
            unreceived(self._culprit, self.error)

    def expects(self, error: BaseException) -> bool:
        """Whether `error`, which came after the end, is but a consequence of it."""
        return error is self.error or isinstance(error, context.Canceled | context.DeadlineExceeded)


def _member(crew: Crew, body: Callable[..., BaseException | None], args: list[Any]) -> None:
    error: BaseException | None = None
    try:
        error = body(crew, *args)
    except gort.GoroutineExit:
        # If it was not the crew that killed it, its reader must not wait for ever.
        crew.end(RuntimeError(f"a goroutine of {crew.name} was ended by goexit() or kill()"))
    except BaseException as e:
        error = as_failure(e)
        if crew.end(error):
            # The runtime would interrupt the main goroutine, too.
            error = None if isinstance(error, KeyboardInterrupt) else error
        elif crew.expects(error):
            error = None
    finally:
        crew.leave()
    if error is not None:
        try:
            del crew, body, args
            raise error.with_traceback(foreign_part(error.__traceback__))
        finally:
            del error


class _locked:
    """`with _locked(mutex, timeout, ctx):`."""

    __slots__ = ("_args", "_mutex")

    def __init__(self, mutex: sync.Mutex, timeout: _Seconds | None, ctx: _Context | None) -> None:
        self._mutex = mutex
        self._args = timeout, ctx

    def __enter__(self) -> None:
        timeout, ctx = self._args
        self._mutex.lock(timeout, ctx=ctx)

    def __exit__(self, *exc: object) -> None:
        self._mutex.unlock()


def close_quietly(ch: gort.Chan[Any]) -> None:
    try:
        ch.close()
    except gort.ChanClosed:
        pass


# ---- a stream ------------------------------------------------------------------------


class Owner(Receiver[T_co]):
    """The receiving end of a channel that is given up with it."""

    _out: gort.Chan[Any]
    _gone: atomic.Bool  # given up

    def __init__(self, ch: object = None) -> None:
        raise TypeError(f"a {type(self).__name__} is made by the functions of gort.patterns")

    def _give_up(self) -> None:
        """Nobody will read it any more. Must not wait."""
        raise NotImplementedError

    def _why(self, timeout: _Seconds | None, ctx: _Context | None) -> BaseException | None:
        """It is closed and drained, and was not given up: the error that ended it, to be raised, or None."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[T_co]:
        return self

    def __next__(self) -> T_co:
        value, ok = super().recv_ok()
        if ok:
            return value
        try:
            self._ended()
            raise StopIteration
        finally:
            del self  # which the traceback of its error would keep

    def recv(self, timeout: _Seconds | None = None, *, ctx: _Context | None = None) -> T_co:
        """See `Chan.recv`; raises the error that ended it, if one did."""
        value, ok = super().recv_ok(timeout, ctx=ctx)
        if ok:
            return value
        self._ended(timeout, ctx)
        raise gort.ChanClosed(f"receive from {self!r}")

    def recv_ok(self, timeout: _Seconds | None = None, *, ctx: _Context | None = None) -> tuple[T_co | Any, bool]:
        """See `Chan.recv_ok`; raises the error that ended it, if one did."""
        value, ok = super().recv_ok(timeout, ctx=ctx)
        if not ok:
            self._ended(timeout, ctx)
        return value, ok

    def recv_nowait(self) -> T_co:
        """See `Chan.recv_nowait`; raises the error that ended it, if one did."""
        try:
            return super().recv_nowait()
        except gort.ChanClosed:
            pass
        self._ended()
        raise gort.ChanClosed(f"receive from {self!r}")

    def close(self) -> None:
        """End it; what is left in it is dropped. Closing it again does nothing."""
        self._discard()

    def _discard(self) -> None:
        self._let_go()
        try:
            while True:
                self._out.recv_nowait()
        except (gort.ChanClosed, gort.WouldBlock):
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _ended(self, timeout: _Seconds | None = None, ctx: _Context | None = None) -> None:
        if not self._gone.load() and (error := self._why(timeout, ctx)) is not None:
            try:
                raise error
            finally:
                del error, self

    def _let_go(self) -> None:
        if not self._gone.swap(True):
            close_quietly(self._out)
            self._give_up()

    def __del__(self) -> None:
        if hasattr(self, "_gone"):
            self._let_go()


class Stream(Owner[T_co]):
    """The receiving end of a channel, and the owner of the goroutines that feed it.

    It is an iterator, and a `Receiver`: `recv()`, `recv_ok()`, `recv_nowait()`
    with timeout and context, `select()`. At its end those raise the error that
    ended it, if one did, once its goroutines are gone, and so does every later
    call. `select()` only says that it has ended (`ok` is False); `recv_ok()`
    then says how.

    `close()`, the end of a `with` block, and the loss of the last reference end
    it early: its goroutines, and those of the streams it is made from, are
    killed where they wait. A stream that was given to a function of this module
    belongs to what that function returns. Several may read one at once.

    The functions of `gort.patterns` make it.
    """

    _crew: Crew

    def close(self, timeout: _Seconds | None = None, *, ctx: _Context | None = None) -> None:
        """End it, and wait until its goroutines are gone. Parks.

        What is left in it is dropped. An error that nobody received goes to
        `gort.excepthook`. If the wait is cut short, by TimeoutError after
        `timeout` seconds or the context's error, the goroutines end
        nevertheless. Closing it again does nothing.
        """
        super().close()
        self._crew.settle(False, timeout, ctx)

    def _give_up(self) -> None:
        if self._crew.close_one():
            self._crew.end(None)

    def _abandon(self) -> Crew | None:
        """As `_let_go()`, but the crew, if this was its last stream, is left to the caller to end."""
        if self._gone.swap(True):
            return None
        close_quietly(self._out)
        return self._crew if self._crew.close_one() else None

    def _why(self, timeout: _Seconds | None, ctx: _Context | None) -> BaseException | None:
        return self._crew.settle(True, timeout, ctx)

    def __repr__(self) -> str:
        return f"<Stream of {self._crew.name} {'ended' if self.closed else 'open'}>"


def _stream(crew: Crew, out: gort.Chan[Any]) -> Stream[Any]:
    stream: Stream[Any] = Stream.__new__(Stream, out)  # type: ignore[call-arg]
    stream._crew = crew
    stream._out = out
    stream._gone = atomic.Bool()
    return stream


# ---- what streams are made from ----------------------------------------------------------


def iterate(source: Iterable[T], name: str = "source") -> Iterator[T]:
    try:
        return iter(source)
    except TypeError:
        raise TypeError(f"{name} must be a channel or an iterable, not {source!r}") from None


class Shared(Generic[T]):
    """An iterator for several goroutines at once."""

    __slots__ = ("_it", "_mutex", "_over")

    def __init__(self, it: Iterator[T]) -> None:
        self._it = it
        self._mutex = sync.Mutex()
        self._over = False

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._mutex:
            if self._over:
                raise StopIteration
            try:
                return next(self._it)
            except BaseException:
                self._over = True
                raise
