"""`queue` for goroutines: the standard library's own code on locks that park.

Works as it is, with the standard library patched (gort.monkey) or not. The classes derive from those of `queue`.
Plain threads may use them too.
"""

from __future__ import annotations

import _queue
import queue as _stock
from collections.abc import Callable
from queue import Empty, Full
from typing import TYPE_CHECKING, Any

import gort.threading
from gort import _stdlib
from gort._core import _runtime

if TYPE_CHECKING:
    from queue import LifoQueue, PriorityQueue, Queue, SimpleQueue
else:
    _names = _stdlib.names(_stock, __name__, {"threading": gort.threading})
    for _name in ("Queue", "PriorityQueue", "LifoQueue"):
        globals()[_name] = _names[_name] = _stdlib.cls(getattr(_stock, _name), _names, __name__)
    if hasattr(_stock, "ShutDown"):  # 3.13
        ShutDown = _stock.ShutDown

    class SimpleQueue(_queue.SimpleQueue):
        """`queue.SimpleQueue`, whose `get()` parks."""

        def put(self, item, block=True, timeout=None):
            """Put the item on the queue. Never waits; the other arguments are ignored."""
            _runtime._simple_put(self, item)

        def get(self, block=True, timeout=None):
            """Remove and return an item; waits for one, `timeout` seconds at most, or raises Empty. Parks."""
            return _runtime._simple_get(self, block, timeout)

        def put_nowait(self, item):
            """`put(item)`."""
            _runtime._simple_put(self, item)


__all__ = ["Empty", "Full", "LifoQueue", "PriorityQueue", "Queue", "SimpleQueue"]
if hasattr(_stock, "ShutDown"):
    __all__ += ["ShutDown"]


# ---- for gort.monkey ----------------------------------------------------------------
def _in_place() -> list[tuple[Any, Callable[..., Any], bool]]:
    return [
        (_queue.SimpleQueue.get, _runtime._simple_get, False),
        (_queue.SimpleQueue.put, _runtime._simple_put, True),
        (_queue.SimpleQueue.put_nowait, _runtime._simple_put, True),
    ]


def _patched() -> None:
    from gort import monkey

    if not monkey.is_patched("threading"):  # then the locks of queues made from now on are ours
        vars(_stock)["threading"] = gort.threading
