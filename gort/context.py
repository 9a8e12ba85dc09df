"""Cancellation, deadlines and values that cross goroutines, as in Go's `context`.

    ctx, cancel = context.with_timeout(context.background(), 1.5)
    try:
        reply = requests.recv(ctx=ctx)
    finally:
        cancel()

Everything that waits takes `ctx=` and raises the context's error once it has ended: `Canceled`, or
`DeadlineExceeded`, which is a TimeoutError too. That exception is a new one for each who waits, with the
cause (see `cause()`) as its `__cause__`.

A context is passed on explicitly, as in Go, best as the first argument. Whoever would rather not can bind
one to the running `contextvars` context: `use(ctx)`, `timeout(seconds)` and `cancelable()` do so for a
`with` block, and `current()` gives it back. A new goroutine starts with an empty `contextvars` context, as
a thread does: it inherits no variable of its creator's, and its `current()` is `background()`. `go(ctx, fn,
...)` starts one that has `ctx` there; `go(contextvars.copy_context().run, fn, ...)` of `gort` hands on all
variables.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar as _ContextVar
from contextvars import Token as _Token
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, final

from gort._core import _runtime
from gort._core._runtime import (
    Canceled,
    Context,
    DeadlineExceeded,
    Goroutine,
    background,
    cause,
    todo,
    with_cancel,
    with_cancel_cause,
    with_deadline,
    with_timeout,
    with_value,
    without_cancel,
)

if TYPE_CHECKING:
    from gort._core._runtime import _Parent, _Seconds

__all__ = [
    "Canceled",
    "Context",
    "DeadlineExceeded",
    "after_func",
    "background",
    "cancelable",
    "cause",
    "current",
    "go",
    "timeout",
    "todo",
    "use",
    "with_cancel",
    "with_cancel_cause",
    "with_deadline",
    "with_timeout",
    "with_value",
    "without_cancel",
]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_C = TypeVar("_C", bound="_Parent")

_BACKGROUND = background()
_current: _ContextVar[Any] = _ContextVar("gort.context", default=_BACKGROUND)


def after_func(ctx: _Parent, fn: Callable[[], object], /) -> Callable[[], bool]:
    """Call `fn()` in a goroutine of its own once `ctx` has ended; at once if it has. Does not park.

    Returns `stop`: `stop()` is true if that call prevented `fn` from being called, and false if it has
    been started or was stopped before. Raises TypeError if `ctx` is no context or `fn` not callable.
    """
    return _runtime.context_after_func(ctx, fn)


def current() -> Context:
    """The context that is bound in the running `contextvars` context; `background()` if none is."""
    ctx: Context = _current.get()
    return ctx


class use(Generic[_C]):  # a function to its users
    """`with use(ctx):` binds `ctx` as the `current()` context for the block; its value is `ctx`.

    Raises TypeError if `ctx` is no context.
    """

    __slots__ = ("_ctx", "_token")

    def __init__(self, ctx: _C) -> None:
        _runtime.check_context_arg(ctx)
        self._ctx = ctx
        self._token: _Token[Any] | None = None

    def __enter__(self) -> _C:
        if self._token is not None:
            raise RuntimeError("this use() is entered already")
        self._token = _current.set(self._ctx)
        return self._ctx

    def __exit__(self, *exc: object) -> None:
        token, self._token = self._token, None
        if token is not None:
            _current.reset(token)


class _Block:
    """A context that lives as long as a `with` block, and is the current one there."""

    __slots__ = ("_cancel", "_parent", "_token")

    def __init__(self, parent: _Parent | None) -> None:
        if parent is not None:
            _runtime.check_context_arg(parent, "parent")
        self._parent = parent
        self._cancel: Callable[[], None] | None = None
        self._token: _Token[Any] | None = None

    def _make(self, parent: _Parent) -> tuple[Context, Callable[[], None]]:
        return with_cancel(parent)

    def __enter__(self) -> Context:
        if self._cancel is not None:
            raise RuntimeError(f"this {type(self).__name__}() is entered already")
        parent = self._parent
        ctx, self._cancel = self._make(_current.get() if parent is None else parent)
        self._token = _current.set(ctx)
        return ctx

    def __exit__(self, *exc: object) -> None:
        cancel, self._cancel = self._cancel, None
        token, self._token = self._token, None
        try:
            if token is not None:
                _current.reset(token)
        finally:
            if cancel is not None:
                cancel()


@final
class cancelable(_Block):
    """`with cancelable() as ctx:` gives a context that ends with the block, or with its parent.

    It derives from `parent`, or from `current()`, and is `current()` itself within the block. Neither end
    of the block parks. Raises TypeError if `parent` is no context.
    """

    __slots__ = ()

    def __init__(self, parent: _Parent | None = None) -> None:
        super().__init__(parent)


@final
class timeout(_Block):
    """`with timeout(seconds) as ctx:` gives a context that ends with the block, or `seconds` after its beginning.

    Otherwise as `cancelable()`. What waits with `ctx=ctx` then raises DeadlineExceeded; the block itself
    is not interrupted. `cause` is for `with_timeout()`. Raises TypeError or ValueError for a bad argument.
    """

    __slots__ = ("_cause", "_seconds")

    def __init__(self, seconds: _Seconds, parent: _Parent | None = None, *, cause: BaseException | None = None) -> None:
        super().__init__(parent)
        self._seconds = _runtime.check_timeout_args(seconds, cause)
        self._cause = cause

    def _make(self, parent: _Parent) -> tuple[Context, Callable[[], None]]:
        return with_timeout(parent, self._seconds, self._cause)


def go(ctx: _Parent, fn: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> Goroutine[_R]:
    """Start `fn(*args, **kwargs)` as a goroutine whose `current()` is `ctx`. Does not park.

    `ctx` is not passed to `fn`, and its end does not end the goroutine. Raises TypeError if `ctx` is no
    context or `fn` not callable.
    """
    _runtime.check_context_arg(ctx)
    if not callable(fn):
        raise TypeError(f"go() needs a callable, not {fn!r}")
    g = _runtime.go(_bound, ctx, fn, args, kwargs)
    g.name = _runtime.name_of_callable(fn)
    return g


def _bound(ctx: Any, fn: Callable[..., _R], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _R:
    _current.set(ctx)  # of the goroutine's own contextvars context, which ends with it
    return fn(*args, **kwargs)
