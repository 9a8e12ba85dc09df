"""`threading` for goroutines: the standard library's own code on locks that park, and threads that are goroutines.

Works as it is, with the standard library patched (gort.monkey) or not. The classes derive from those of `threading`,
and share its registry: `threading.current_thread()`, `enumerate()` and `main_thread()` know the threads of both.
Plain threads may use all of it too. What is not here is that of `threading`.
"""

from __future__ import annotations

import _thread
import os as _os
import sys
import threading as _threading
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gort import _stdlib
from gort._core import _runtime
from gort._core._runtime import RLock

if TYPE_CHECKING:
    from threading import (
        TIMEOUT_MAX,
        Barrier,
        BoundedSemaphore,
        BrokenBarrierError,
        Condition,
        Event,
        ExceptHookArgs,
        Lock,
        Semaphore,
        Thread,
        ThreadError,
        Timer,
        active_count,
        current_thread,
        enumerate,
        excepthook,
        get_ident,
        get_native_id,
        getprofile,
        gettrace,
        local,
        main_thread,
        setprofile,
        settrace,
        stack_size,
    )
else:
    from gort._core._runtime import Lock


_stock_make: Any = vars(_threading)["_make_invoke_excepthook"]


def _make_invoke_excepthook() -> Callable[[Any], None]:
    invoke = _stock_make()

    def invoke_excepthook(thread: Any) -> None:
        if not isinstance(sys.exception(), _runtime.GoroutineExit):  # the end of a goroutine, but no failure
            invoke(thread)

    return invoke_excepthook


_names: dict[str, Any] = {}
if not TYPE_CHECKING:
    _names = _stdlib.names(
        _threading,
        __name__,
        {
            "Lock": Lock,
            "RLock": RLock,
            "_allocate_lock": Lock,
            "_start_new_thread": _runtime._start_new_thread,
            "_set_sentinel": lambda: _runtime._set_sentinel(Lock),
            "_make_invoke_excepthook": _make_invoke_excepthook,
            "_ThreadHandle": _runtime.ThreadHandle,
            "_start_joinable_thread": _runtime._start_joinable_thread,
        },
    )
    for _name in ("Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier", "Thread", "Timer"):
        globals()[_name] = _names[_name] = _stdlib.cls(getattr(_threading, _name), _names, __name__)

    def __getattr__(name: str) -> object:
        return getattr(_threading, name)


__all__ = [
    "TIMEOUT_MAX",
    "Barrier",
    "BoundedSemaphore",
    "BrokenBarrierError",
    "Condition",
    "Event",
    "ExceptHookArgs",
    "Lock",
    "RLock",
    "Semaphore",
    "Thread",
    "ThreadError",
    "Timer",
    "active_count",
    "current_thread",
    "enumerate",
    "excepthook",
    "get_ident",
    "get_native_id",
    "getprofile",
    "gettrace",
    "local",
    "main_thread",
    "setprofile",
    "settrace",
    "stack_size",
]


def _after_fork() -> None:
    # What threading has made anew.
    for name in ("_active_limbo_lock", "_shutdown_locks_lock", "_shutdown_locks", "_main_thread"):
        if hasattr(_threading, name):
            _names[name] = getattr(_threading, name)


_os.register_at_fork(after_in_child=_after_fork)

if hasattr(_threading, "_thread_shutdown"):  # from 3.13 on CPython waits for its own threads, not for locks
    _stock_shutdown: Callable[[], None] = _threading._thread_shutdown

    def _shutdown() -> None:
        _runtime._join_threads()
        _stock_shutdown()
        _runtime._join_threads()

    _threading._thread_shutdown = _shutdown


# ---- for gort.monkey ----------------------------------------------------------------
def _in_place() -> list[tuple[Any, Callable[..., Any], bool]]:
    """(builtin function, what it becomes, whether in plain threads too)."""
    found: list[tuple[Any, Callable[..., Any], bool]] = [
        (_thread.start_new_thread, _runtime._start_new_thread, True),
        (_thread.start_new, _runtime._start_new_thread, True),
    ]
    count, hook = _runtime._keep(_thread._count), _runtime._keep(_thread._excepthook)
    found.append((_thread._count, lambda: count() + _runtime._thread_count(), True))

    def excepthook(args: Any, /) -> None:
        if issubclass(args.exc_type, _runtime.GoroutineExit | SystemExit):
            return
        if args.thread is not None:
            hook(args)
        elif (stderr := sys.stderr) is not None:  # in C it names the OS thread
            print(f"Exception in thread {_threading.get_ident()}:", file=stderr, flush=True)
            traceback.print_exception(args.exc_type, args.exc_value, args.exc_traceback, file=stderr)
            stderr.flush()

    found.append((_thread._excepthook, excepthook, False))
    if hasattr(_thread, "start_joinable_thread"):
        found.append((_thread.start_joinable_thread, _runtime._start_joinable_thread, True))
    if hasattr(_thread, "_set_sentinel"):
        sentinel = _runtime._keep(_thread._set_sentinel)

        def set_sentinel() -> object:
            if _runtime.current() is not None:
                return _runtime._set_sentinel(_thread.allocate_lock)
            lock = sentinel()
            _runtime._keep_theirs(lock)
            return lock

        found.append((_thread._set_sentinel, set_sentinel, True))
    return found


def _patched() -> str | None:
    if _runtime._replace_locks():
        return None
    return "the locks of this Python are not known: a goroutine that waits for one blocks an OS thread"


_PATCHES: dict[str, dict[str, object]] = {"threading": {"_make_invoke_excepthook": _make_invoke_excepthook}}
if hasattr(_thread, "_ThreadHandle"):
    _PATCHES["_thread"] = {"_ThreadHandle": _runtime.ThreadHandle}
    _PATCHES["threading"].update(_PATCHES["_thread"])
