"""`subprocess` for goroutines: the standard library's own code, whose waits for a process and its pipes park.

Works as it is, with the standard library patched (gort.monkey) or not. `Popen` derives from that of `subprocess`. Of
thousands of processes waited for at once none needs an OS thread: the end of a process is seen by its pidfd, and a
pipe is read when there is something in it. Pipes stay in blocking mode, for the child has the other end alone.
"""

from __future__ import annotations

import io as _io
import os as _os
import subprocess as _stock
import time as _time
import warnings as _warnings
from typing import TYPE_CHECKING, Any

import gort.selectors
import gort.threading
from gort import _stdlib
from gort._core import _runtime
from gort._core._runtime import RLock

if TYPE_CHECKING:
    from subprocess import (
        DEVNULL,
        PIPE,
        STDOUT,
        CalledProcessError,
        CompletedProcess,
        Popen,
        SubprocessError,
        TimeoutExpired,
        call,
        check_call,
        check_output,
        getoutput,
        getstatusoutput,
        run,
    )

_PIPE_BUF = 4096  # a pipe that is ready for writing has room for so many bytes


# ---- pipes ----------------------------------------------------------------------------
class _Pipe(_io.FileIO):
    """One end of a pipe: a goroutine that would wait parks."""

    def readinto(self, buffer: Any, /) -> Any:
        _runtime._ready(self.fileno(), False)
        return super().readinto(buffer)

    def read(self, size: int | None = -1, /) -> Any:
        if size is None or size < 0:
            return self.readall()
        _runtime._ready(self.fileno(), False)
        return super().read(size)

    def readall(self) -> Any:
        parts: list[bytes] = []
        while True:
            part = self.read(65536)
            if not part:
                return b"".join(parts) if parts or part is not None else None
            parts.append(part)

    def write(self, data: Any, /) -> Any:
        if _runtime.current() is None:
            return super().write(data)
        done = 0
        with memoryview(data).cast("B") as view:
            while True:
                _runtime._ready(self.fileno(), True)
                n = super().write(view[done : done + _PIPE_BUF])
                if n is None:
                    return done or None
                done += n
                if done == len(view):
                    return done


def _one_at_a_time(base: type, *methods: str) -> dict[str, Any]:
    """`base`'s methods, each under `self._turn`: its own lock is an OS thread's, which a parked goroutine leaves."""

    def method(name: str) -> Any:
        stock = getattr(base, name)

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            with self._turn:
                return stock(self, *args, **kwargs)

        call.__name__, call.__qualname__, call.__doc__ = name, f"{base.__name__}.{name}", stock.__doc__
        return call

    return {name: method(name) for name in methods}


class _Reader(_io.BufferedReader):
    def __init__(self, raw: Any, size: int) -> None:
        self._turn = RLock()
        super().__init__(raw, size)

    locals().update(
        _one_at_a_time(
            _io.BufferedReader, "read", "read1", "readinto", "readinto1", "readline", "readlines", "peek", "__next__",
            "close",
        )
    )  # fmt: skip


class _Writer(_io.BufferedWriter):
    def __init__(self, raw: Any, size: int) -> None:
        self._turn = RLock()
        super().__init__(raw, size)

    locals().update(_one_at_a_time(_io.BufferedWriter, "write", "flush", "writelines", "close"))


def _open(file: Any, mode: str = "r", buffering: int = -1, *args: Any, **kwargs: Any) -> Any:
    """`io.open`, for the pipes of a Popen."""
    if not isinstance(file, int) or mode not in ("rb", "wb") or args or kwargs:
        return open(file, mode, buffering, *args, **kwargs)
    raw = _Pipe(file, mode)
    if buffering == 0:
        return raw
    if buffering == 1:
        _warnings.warn(
            "line buffering (buffering=1) isn't supported in binary mode, the default buffer size will be used",
            RuntimeWarning,
            2,
        )
    size = buffering if buffering > 1 else _io.DEFAULT_BUFFER_SIZE
    return _Reader(raw, size) if mode == "rb" else _Writer(raw, size)


_cooperative_io: Any = _stdlib.module(_io, open=_open)
_stock_wait = _stock.Popen._wait  # type: ignore[attr-defined]


def _wait(self: Any, timeout: float | None) -> Any:
    """`Popen._wait()`, which CPython does by looking every 50 ms if there is a timeout."""
    if timeout is None or timeout <= 0 or self.returncode is not None or _runtime.current() is None:
        return _plain_wait(self, timeout)
    if not _runtime._wait_process(self.pid, timeout):
        timeout_now = 0.0
    else:
        timeout_now = timeout
    try:
        return _plain_wait(self, timeout_now)
    except _stock.TimeoutExpired:
        raise _stock.TimeoutExpired(self.args, timeout) from None


_plain_wait: Any = _stock_wait


if not TYPE_CHECKING:
    _cooperative_os = _stdlib.module(
        _os, read=_runtime._os_read, write=_runtime._os_write, waitpid=_runtime._os_waitpid
    )
    _cooperative_time = _stdlib.module(_time, sleep=_runtime._time_sleep)
    _names = _stdlib.names(
        _stock,
        __name__,
        {
            "os": _cooperative_os,
            "time": _cooperative_time,
            "io": _cooperative_io,
            "threading": gort.threading,
            "_PopenSelector": gort.selectors.PollSelector,
        },
    )
    _plain_wait = _stdlib.function(_stock_wait, _names, __name__)
    Popen = _names["Popen"] = _stdlib.cls(_stock.Popen, _names, __name__, _wait=_wait)
    for _name in ("run", "call", "check_call", "check_output", "getoutput", "getstatusoutput"):
        globals()[_name] = _names[_name] = _stdlib.function(getattr(_stock, _name), _names, __name__)

    def __getattr__(name: str) -> object:
        return getattr(_stock, name)


__all__ = [
    "DEVNULL",
    "PIPE",
    "STDOUT",
    "CalledProcessError",
    "CompletedProcess",
    "Popen",
    "SubprocessError",
    "TimeoutExpired",
    "call",
    "check_call",
    "check_output",
    "getoutput",
    "getstatusoutput",
    "run",
]

# ---- for gort.monkey ----------------------------------------------------------------
_PATCHES: dict[str, dict[str, object]] = {
    "subprocess": {"io": _cooperative_io, "_PopenSelector": gort.selectors.PollSelector}
}
_METHODS: list[tuple[type, str, Any]] = [(_stock.Popen, "_wait", _wait)]
