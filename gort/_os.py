"""`os` for goroutines, for gort.monkey."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from gort._core import _runtime


def _in_place() -> list[tuple[Any, Callable[..., Any], bool]]:
    return [
        (os.read, _runtime._os_read, False),
        (os.write, _runtime._os_write, False),
        (os.waitpid, _runtime._os_waitpid, False),
        (os.wait4, _runtime._os_wait4, False),
        (os.waitid, _runtime._os_waitid, False),
    ]
