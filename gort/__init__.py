"""gort: Go's runtime for Python.

Layout: `gort/_core/` is the extension (thin Cython on the C runtime in csrc/);
the modules beside this file re-export it by topic. Read `HACKING.md` for the
order in which to read the C files.

Importing gort makes the main thread goroutine 1.
"""

from __future__ import annotations

from pathlib import Path as _Path

from gort import atomic, context, errgroup, errors, native, net, patterns, rate, singleflight, sync, time
from gort._core._runtime import (
    NIL,
    Chan,
    ChanClosed,
    Deadlock,
    Goroutine,
    GoroutineExit,
    Receiver,
    Sender,
    WouldBlock,
    blocking,
    current,
    excepthook,
    go,
    goexit,
    gomaxprocs,
    gosched,
    lock_os_thread,
    num_cpu,
    num_goroutine,
    run,
    select,
    sleep,
    stack,
    unlock_os_thread,
)

__version__ = "0.1.0"

__all__ = [
    "NIL",
    "Chan",
    "ChanClosed",
    "Deadlock",
    "Goroutine",
    "GoroutineExit",
    "Receiver",
    "Sender",
    "WouldBlock",
    "atomic",
    "blocking",
    "context",
    "current",
    "errgroup",
    "errors",
    "excepthook",
    "get_include",
    "go",
    "goexit",
    "gomaxprocs",
    "gosched",
    "lock_os_thread",
    "native",
    "net",
    "num_cpu",
    "num_goroutine",
    "patterns",
    "rate",
    "run",
    "select",
    "singleflight",
    "sleep",
    "stack",
    "sync",
    "time",
    "unlock_os_thread",
]


def get_include() -> str:
    """The directory of `gort.h`, for C compilers."""
    return str(_Path(__file__).parent / "include")
