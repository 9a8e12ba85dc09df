"""Calls with a limit of time, and calls that race each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

import gort
from gort import context, time
from gort.patterns._stream import (
    as_failure,
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
    from gort._core._runtime import _Parent, _Seconds

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def _keep(results: list[Any], fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
    results.append(fn(*args))


def with_timeout(
    seconds: _Seconds, fn: Callable[[context.Context, *Ts], T], /, *args: *Ts, ctx: _Parent | None = None
) -> T:
    """Call `fn(limited, *args)`, where `limited` is a context that ends after `seconds`; its result. Parks.

    `fn` runs in a goroutine of its own. When the time is up, or `ctx` ends,
    that is killed where it waits, and awaited: no call goes on behind the
    caller's back, and one that sits in `gort.blocking()` is waited for. Then
    DeadlineExceeded, a TimeoutError, is raised, or what `ctx` ended with. If
    `fn` yet returns, or raises another exception than that kill, that is the
    outcome. Raises TypeError or ValueError for a bad argument.

    >>> with_timeout(60, lambda ctx, name: f"hello {name}", "ada")
    'hello ada'
    """
    limit = check_seconds(seconds, "seconds")
    check_callable(fn)
    check_context(ctx)
    limited, cancel = context.with_timeout(context.background() if ctx is None else ctx, limit)
    results: list[T] = []
    try:
        g = gort.go(_keep, results, fn, (limited, *args))
        g.name = "gort.patterns.with_timeout"
        try:
            failure = outcome(g, None, limited)
        except BaseException as e:
            g.kill()
            failure = outcome(g)
            if not isinstance(e, Exception) or limited.err() is None:  # it is the caller that is to end
                if failure is not None:
                    unreceived(g, failure)
                raise
            if failure is None and not results:
                raise
    finally:
        cancel()
    try:
        if failure is not None:
            raise_clean(failure)
    finally:
        del failure
    if not results:
        raise RuntimeError("fn was ended by goexit() or kill()")
    return results[0]


# ---- races ----------------------------------------------------------------------------


def _attempt(
    ctx: context.Context, results: gort.Chan[tuple[bool, Any]], fn: Callable[[context.Context], object]
) -> None:
    """Send `(True, result)` or `(False, error)`. An error that comes after the race is the goroutine's own."""
    try:
        value = fn(ctx)
    except gort.GoroutineExit:
        results.send((False, RuntimeError("an attempt was ended by goexit() or kill()")))
    except BaseException as e:
        if ctx.err() is None:
            results.send((False, as_failure(e)))
        elif not isinstance(e, context.Canceled | context.DeadlineExceeded):
            e.__traceback__ = foreign_part(e.__traceback__)
            raise
    else:
        results.send((True, value))


def _race(name: str, fns: list[Callable[[context.Context], T]], delay: float, ctx: _Parent | None) -> T:
    check_context(ctx)
    own, cancel = context.with_cancel(context.background() if ctx is None else ctx)
    results = gort.Chan[Any](len(fns))  # room for all: no attempt waits to report
    failures: list[BaseException] = []
    attempts: list[gort.Goroutine[None]] = []
    timer = time.Timer(0)
    try:
        while len(failures) < len(fns):
            more = len(attempts) < len(fns)
            i, result, _ = gort.select(results, timer.c if more else None, ctx=own)
            if i == 0:
                ok, value = result
                if ok:
                    return value  # type: ignore[no-any-return]
                failures.append(value)
            if more:
                g = gort.go(_attempt, own, results, fns[len(attempts)])
                g.name = f"gort.patterns.{name}"
                attempts.append(g)
                timer.reset(delay)
    finally:
        timer.stop()
        cancel()
        for g in attempts:
            g.kill()
        for g in attempts:
            if (late := outcome(g)) is not None:
                unreceived(g, late)
            late = None
    for e in failures:
        e.__traceback__ = foreign_part(e.__traceback__)
    try:
        raise BaseExceptionGroup(f"all {len(failures)} attempts failed", failures)
    finally:
        del failures


def hedge(fn: Callable[[context.Context], T], delay: _Seconds, n: int = 2, *, ctx: _Parent | None = None) -> T:
    """The result of `fn(ctx)`, called again if it takes longer than `delay` seconds or fails; `n` times at most. Parks.

    The first success counts. The context that the calls get then ends, and
    those that still run are killed where they wait, and awaited. If all fail,
    their errors are raised as an exception group; if `ctx` ends, its error is.
    Raises TypeError or ValueError for a bad argument.

    >>> hedge(lambda ctx: "answer", 0.1)
    'answer'
    """
    check_callable(fn)
    seconds = check_seconds(delay, "delay")
    return _race("hedge", [fn] * check_count(n, "n", 1), seconds, ctx)


def first(*fns: Callable[[context.Context], T], ctx: _Parent | None = None) -> T:
    """The result of the first of `fns`, all called with a context at once, that returns. Parks.

    As for `hedge()`, the others are ended, and if all fail their errors are
    raised as an exception group. ValueError without a function.

    >>> first(lambda ctx: ctx.wait(), lambda ctx: "quick")
    'quick'
    """
    if not fns:
        raise ValueError("first() needs at least one function")
    for i, fn in enumerate(fns):
        check_callable(fn, f"function {i}")
    return _race("first", list(fns), 0.0, ctx)
