"""`signal` for goroutines, for gort.monkey: what only the main thread may do, only the main goroutine may.

To CPython a goroutine that happens to run on the main thread is the main thread.
"""

from __future__ import annotations

import _signal
from collections.abc import Callable
from typing import Any

from gort._core import _runtime


def _in_place() -> list[tuple[Any, Callable[..., Any], bool]]:
    def only_main(name: str, why: str) -> tuple[Any, Callable[..., Any], bool]:
        old = getattr(_signal, name)
        stock = _runtime._keep(old)

        def call(*args: Any, **kwargs: Any) -> Any:
            if not _runtime._is_main():
                raise ValueError(why)
            return stock(*args, **kwargs)

        return old, call, False

    return [
        only_main("signal", "signal only works in main thread of the main interpreter"),
        only_main("set_wakeup_fd", "set_wakeup_fd only works in main thread of the main interpreter"),
    ]
