"""The stdlib's `select`, whose waits park the goroutine alone. Source: Python's select.

(`gort.select` is the one of channels.)

All of the stdlib's names are here. `select()`, `poll()` and `epoll()` ask the system first; only what has to wait
waits in gort's poller, and then asks again. So results and errors are the stdlib's.
"""

from __future__ import annotations

import os as _os
import select as _stdlib
from collections.abc import Callable as _Callable
from collections.abc import Iterable as _Iterable
from contextlib import suppress as _suppress
from select import *  # noqa: F403
from typing import Any, Self

from gort._core._runtime import Watch, _deadline, _time_left, sleep

__all__ = [name for name in vars(_stdlib) if not name.startswith("_")]

_POOLED = 64  # epoll instances that are kept for the next wait

_Lists = tuple[list[Any], list[Any], list[Any]]
_Events = list[tuple[int, int]]

_select: _Callable[..., _Lists] = _stdlib.select
_poll: Any = _stdlib.poll
_epoll: Any = _stdlib.epoll
_IN, _PRI, _OUT = _stdlib.POLLIN, _stdlib.POLLPRI, _stdlib.POLLOUT
_READING = _IN | _stdlib.POLLRDNORM
_WRITING = _OUT | _stdlib.POLLWRNORM


# ---- waiting for some of several descriptors -------------------------------------------
class _Set:
    """An epoll instance, which the poller can wait for as for any other descriptor."""

    def __init__(self) -> None:
        self.epoll = _epoll()
        self.watch = Watch(self.epoll.fileno())

    def close(self) -> None:
        self.watch.close()
        self.epoll.close()


_pool: list[_Set] = []


def _forget() -> None:
    """In a fork's child: the instances are the parent's too."""
    while _pool:
        _pool.pop().close()


_os.register_at_fork(after_in_child=_forget)


def _wait_for_any(fds: dict[int, int], deadline: int | None, ready: _Callable[[], Any]) -> Any:
    """The first true result of `ready()`, or the last one when the time is up. fds: the events of each."""
    if not fds:
        while deadline is None or _time_left(deadline) > 0:
            sleep(3600.0 if deadline is None else _time_left(deadline))
        return ready()
    if len(fds) == 1:
        ((fd, events),) = fds.items()
        if events and (events & _READING == events or events & _WRITING == events):
            return _wait_for_one(fd, events & _WRITING == events, deadline, ready)
    used = _pool.pop() if _pool else _Set()
    added = []
    clean = False
    try:
        for fd, events in fds.items():
            try:
                used.epoll.register(fd, events)
                added.append(fd)
            except (PermissionError, FileNotFoundError):
                pass  # a file, of which nothing is asked
        while True:
            in_time = used.watch.wait(False, deadline)
            found = ready()
            if found or not in_time:
                break
            used.epoll.poll(0)  # what is not ready any more is not reported again
        with _suppress(OSError):
            for fd in added:
                used.epoll.unregister(fd)
            clean = True
        return found
    finally:
        # One that is closed by now may live on in a duplicate, and in the set.
        if clean and len(_pool) < _POOLED:
            _pool.append(used)
        else:
            used.close()


def _wait_for_one(fd: int, write: bool, deadline: int | None, ready: _Callable[[], Any]) -> Any:
    watch = Watch(fd)
    try:
        while True:
            in_time = watch.wait(write, deadline)
            found = ready()
            if found or not in_time:
                return found
    finally:
        watch.close()


# ---- select ----------------------------------------------------------------------------
def _fileno(file: Any) -> int:
    return file if isinstance(file, int) else file.fileno()


def select(  # type: ignore[no-redef]
    rlist: _Iterable[Any], wlist: _Iterable[Any], xlist: _Iterable[Any], timeout: float | None = None, /
) -> _Lists:
    """As the stdlib's; waiting parks the goroutine alone."""
    if timeout is not None and not isinstance(timeout, int | float):
        return _select(rlist, wlist, xlist, timeout)
    if timeout is not None and not timeout > 0:  # also what is wrong
        return _select(rlist, wlist, xlist, timeout)
    lists: list[Any] = [
        list(x) if hasattr(x, "__iter__") and not isinstance(x, list) else x for x in (rlist, wlist, xlist)
    ]
    found = _select(*lists, 0)
    if any(found):
        return found
    deadline = None if timeout is None else _deadline(timeout)
    fds: dict[int, int] = {}
    for files, events in zip(lists, (_IN, _OUT, _PRI), strict=True):
        for file in files:
            fd = _fileno(file)
            fds[fd] = fds.get(fd, 0) | events
    kept = [found]

    def ready() -> bool:
        kept[0] = _select(*lists, 0)
        return any(kept[0])

    _wait_for_any(fds, deadline, ready)
    return kept[0]


# ---- poll ------------------------------------------------------------------------------
class poll:  # type: ignore[no-redef]
    """`poll()` makes a new polling object, as the stdlib's. (No function: it stands in classes.)"""

    def __new__(cls) -> _Poll:  # type: ignore[misc]
        self = object.__new__(_Poll)
        self._poll = _poll()
        self._fds = {}
        self._busy = False
        return self


class _Poll:
    """What `poll()` makes."""

    __slots__ = ("__weakref__", "_busy", "_fds", "_poll")
    _poll: Any
    _fds: dict[int, int]
    _busy: bool

    def __new__(cls) -> Self:
        raise TypeError(f"cannot create '{cls.__module__}.{cls.__qualname__}' instances")

    def register(self, fd: Any, eventmask: int = _IN | _PRI | _OUT, /) -> None:
        """Ask for events of a descriptor."""
        self._poll.register(fd, eventmask)
        self._fds[_fileno(fd)] = int(eventmask)

    def modify(self, fd: Any, eventmask: int, /) -> None:
        """Ask for other ones; FileNotFoundError for one that is not registered."""
        self._poll.modify(fd, eventmask)
        self._fds[_fileno(fd)] = int(eventmask)

    def unregister(self, fd: Any, /) -> None:
        """Ask no more; KeyError for one that is not registered."""
        self._poll.unregister(fd)
        self._fds.pop(_fileno(fd), None)

    def poll(self, timeout: float | None = None, /) -> _Events:
        """The events there are, as (descriptor, events); wait at most `timeout` milliseconds. May park."""
        if self._busy:
            raise RuntimeError("concurrent poll() invocation")
        if timeout is not None and (not isinstance(timeout, int | float) or not -1e6 <= timeout <= 2**31 - 1):
            wrong: _Events = self._poll.poll(timeout)
            return wrong
        found: _Events = self._poll.poll(0)
        if found or (timeout is not None and 0 <= timeout and timeout == 0):
            return found
        deadline = None if timeout is None or timeout < 0 else _deadline(timeout / 1e3)
        self._busy = True
        try:
            found = _wait_for_any(dict(self._fds), deadline, lambda: self._poll.poll(0))
        finally:
            self._busy = False
        return found


# ---- epoll -----------------------------------------------------------------------------
class epoll:  # type: ignore[no-redef]
    """As the stdlib's polling object. Closing it ends the waits on it with ValueError."""

    __slots__ = ("__weakref__", "_epoll", "_watch")

    def __init__(self, sizehint: int = -1, flags: int = 0) -> None:
        self._epoll = _epoll(sizehint, flags)
        self._watch: Watch | None = None

    @classmethod
    def fromfd(cls, fd: int, /) -> Self:
        """The polling object of an epoll instance's descriptor."""
        self = cls.__new__(cls)
        self._epoll = _epoll.fromfd(fd)
        self._watch = None
        return self

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return bool(self._epoll.closed)

    def fileno(self) -> int:
        """Its file descriptor."""
        return int(self._epoll.fileno())

    def close(self) -> None:
        """Close the instance. Closing it again does nothing."""
        if self._watch is not None:
            self._watch.close()
        self._epoll.close()

    def __enter__(self) -> Self:
        self._epoll.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def register(self, fd: Any, eventmask: int = _IN | _PRI | _OUT) -> None:
        """Ask for events of a descriptor."""
        self._epoll.register(fd, eventmask)

    def modify(self, fd: Any, eventmask: int) -> None:
        """Ask for other ones."""
        self._epoll.modify(fd, eventmask)

    def unregister(self, fd: Any) -> None:
        """Ask no more."""
        self._epoll.unregister(fd)

    def poll(self, timeout: float | None = None, maxevents: int = -1) -> _Events:
        """The events there are, as (descriptor, events); wait at most `timeout` seconds. May park."""
        if timeout is not None and not isinstance(timeout, int | float):
            wrong: _Events = self._epoll.poll(timeout, maxevents)
            return wrong
        found: _Events = self._epoll.poll(0, maxevents)
        if found or (timeout is not None and timeout == 0):
            return found
        if timeout is not None and not -1e6 <= timeout <= 2**31 / 1e3:
            if timeout > 0:
                timeout = None if timeout == float("inf") else timeout
            self._epoll.poll(0 if timeout is None else timeout, maxevents)
        deadline = None if timeout is None or timeout < 0 else _deadline(timeout)
        if self._watch is None:
            self._watch = Watch(self._epoll.fileno())
        while True:
            try:
                in_time = self._watch.wait(False, deadline)
            except OSError:
                if not self._epoll.closed:
                    raise
                raise ValueError("I/O operation on closed epoll object") from None
            found = self._epoll.poll(0, maxevents)
            if found or not in_time:
                return found


_PATCHES: dict[str, dict[str, object]] = {"select": {"select": select, "poll": poll, "epoll": epoll}}
