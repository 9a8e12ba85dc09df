"""Go's `sync` package, and the weighted semaphore of x/sync."""

from gort._core._runtime import (
    Cond,
    Map,
    Mutex,
    Once,
    Pool,
    RWMutex,
    Semaphore,
    WaitGroup,
    once_func,
    once_value,
)

__all__ = ["Cond", "Map", "Mutex", "Once", "Pool", "RWMutex", "Semaphore", "WaitGroup", "once_func", "once_value"]
