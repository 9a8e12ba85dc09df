"""`time` for goroutines, for gort.monkey."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from gort._core import _runtime


def _in_place() -> list[tuple[Any, Callable[..., Any], bool]]:
    return [(time.sleep, _runtime._time_sleep, False)]
