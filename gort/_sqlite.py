"""`sqlite3` for threads that are goroutines, for gort.monkey.

A connection asks for the OS thread that it was made in, which a goroutine changes. So one that is made by a goroutine
is made without that question, unless it is asked for. SQLite itself has locks (`sqlite3.threadsafety` is 3).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gort._core import _runtime


def _in_place() -> list[tuple[Any, Callable[..., Any], bool]]:
    try:
        import sqlite3
    except ImportError:
        return []
    if sqlite3.threadsafety != 3:
        return []
    stock = _runtime._keep(sqlite3.connect)

    def connect(*args: Any, **kwargs: Any) -> Any:
        if len(args) < 5:  # database, timeout, detect_types, isolation_level, check_same_thread
            kwargs.setdefault("check_same_thread", False)
        return stock(*args, **kwargs)

    return [(sqlite3.connect, connect, False)]
