"""The stdlib's `ssl`, whose sockets park a goroutine where they would block an OS thread. Source: Python's ssl.

All of the stdlib's names are here. `SSLContext` and `SSLSocket` are subclasses of the stdlib's. One goroutine may read
from an SSLSocket while another writes; of several writers one writes at a time.

A context may be used by any number of goroutines at once, and costs much more to make than a connection
(`create_default_context()` reads all certificates of the system): make one, and keep it.
"""

from __future__ import annotations

import ssl as _stdlib
from collections.abc import Callable as _Callable
from ssl import *  # noqa: F403
from types import FunctionType as _FunctionType
from typing import Any, TypeVar

from gort import socket as _socket
from gort._core._runtime import Engine, _tls_errors

__all__ = [name for name in vars(_stdlib) if not name.startswith("_")]

_F = TypeVar("_F", bound=_Callable[..., Any])

_close_plain: _Callable[[Any], None] = _socket.socket._real_close  # type: ignore[attr-defined]
_tls_errors(_stdlib.SSLWantReadError, _stdlib.SSLWantWriteError)


class SSLSocket(_stdlib.SSLSocket, _socket.socket):  # type: ignore[no-redef]
    """A TLS socket, made by `SSLContext.wrap_socket()`, whose calls park the goroutine alone."""

    _non_blocking = True
    _engine: Engine | None = None

    @property
    def _sslobj(self) -> Engine | None:
        return self._engine

    @_sslobj.setter
    def _sslobj(self, obj: Any) -> None:
        self._engine = None if obj is None else Engine(obj, self)

    def _real_close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is None:
            _close_plain(self)
        else:
            engine.apart(lambda: _close_plain(self))

    def sendall(self, data: Any, flags: int = 0) -> None:
        """As the stdlib's; waiting parks the goroutine alone. What two of them send does not mix."""
        self._checkClosed()  # type: ignore[attr-defined]
        engine = self._engine
        if engine is None:
            _socket.socket.sendall(self, data, flags)
            return
        if flags != 0:
            raise ValueError(f"non-zero flags not allowed in calls to sendall() on {self.__class__}")
        with memoryview(data) as view, view.cast("B") as octets:
            engine.write_all(octets)


class SSLContext(_stdlib.SSLContext):  # type: ignore[no-redef]
    """The stdlib's context, making cooperative sockets."""

    sslsocket_class = SSLSocket


_names: dict[str, Any] = dict(vars(_stdlib))


def _ours(fn: _F) -> _F:
    """The same function, seeing the names of this module instead of the stdlib's."""
    made = _FunctionType(fn.__code__, _names, fn.__name__, fn.__defaults__, fn.__closure__)
    made.__kwdefaults__ = fn.__kwdefaults__
    made.__doc__, made.__module__, made.__annotations__ = fn.__doc__, __name__, fn.__annotations__
    _names[fn.__name__] = made
    return made  # type: ignore[return-value]


_names.update(SSLContext=SSLContext, create_connection=_socket.create_connection, socket=_socket.socket)

create_default_context = _ours(_stdlib.create_default_context)
_create_unverified_context = _ours(_stdlib._create_unverified_context)
_create_default_https_context = create_default_context
_create_stdlib_context = _names["_create_stdlib_context"] = _create_unverified_context
get_server_certificate = _ours(_stdlib.get_server_certificate)
if hasattr(_stdlib, "wrap_socket"):  # up to 3.11
    wrap_socket = _ours(_stdlib.wrap_socket)

_PATCHES: dict[str, dict[str, object]] = {}


def _patched() -> None:
    """The stdlib's classes stay: contexts made before make cooperative sockets from then on."""
    _stdlib.SSLContext.sslsocket_class = SSLSocket
