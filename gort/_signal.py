"""`signal` for goroutines, for gort.monkey: what only the main thread may do, only the main goroutine may.

To CPython a goroutine that happens to run on the main thread is the main thread. So handlers are wrapped: one that
is called there hands over to the main goroutine, where what it raises belongs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from gort._core import _runtime

_c: Any = importlib.import_module("_signal")


class _Handler:
    """A handler of signals, in the main goroutine."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, number: int, frame: Any) -> Any:
        if _runtime._is_main():
            _runtime._main_due()  # those that came before
            return self.function(number, frame)
        _runtime._handle_in_main(self.function, number)


_stock_signal: Any = _runtime._keep(_c.signal)
_stock_getsignal: Any = _runtime._keep(_c.getsignal)
_stock_wakeup: Any = _runtime._keep(_c.set_wakeup_fd)


def _inside(handler: Any) -> Any:
    return handler.function if type(handler) is _Handler else handler


def _set(signalnum: Any, handler: Any, /) -> Any:
    if not _runtime._is_main():
        raise ValueError("signal only works in main thread of the main interpreter")
    if callable(handler) and handler is not _runtime._on_sigint:
        handler = _Handler(handler)
    return _inside(_stock_signal(signalnum, handler))


def _get(signalnum: Any, /) -> Any:
    return _inside(_stock_getsignal(signalnum))


def _set_wakeup_fd(*args: Any, **kwargs: Any) -> Any:
    if not _runtime._is_main():
        raise ValueError("set_wakeup_fd only works in main thread of the main interpreter")
    return _stock_wakeup(*args, **kwargs)


def _in_place() -> list[tuple[Any, Callable[..., Any], bool]]:
    return [
        (_c.signal, _set, False),
        (_c.getsignal, _get, True),
        (_c.set_wakeup_fd, _set_wakeup_fd, False),
    ]


def _patched() -> None:
    """Handlers that were set before."""
    if _runtime._is_main():
        _wrap()
    else:
        _runtime._handle_in_main(lambda *_: _wrap(), 0)


def _wrap() -> None:
    for number in _c.valid_signals():
        handler = _stock_getsignal(number)
        if callable(handler) and type(handler) is not _Handler and handler is not _runtime._on_sigint:
            _stock_signal(number, _Handler(handler))
