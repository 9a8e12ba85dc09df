"""The stdlib's `socket`, whose sockets park a goroutine where they would block an OS thread. Source: Python's socket.

All of the stdlib's names are here. `socket` is a subclass of the stdlib's class and does what that does, timeouts
and non-blocking mode included; only its waiting is different, and that

- `close()` ends it: calls in progress raise OSError(EBADF);
- so does `Goroutine.kill()`, with GoroutineExit;
- one `sendall()` ends before the next one of the same socket begins.

Names are looked up in other OS threads, at most 64 at a time (`getaddrinfo()` and its kin).
Any goroutine or thread may use a socket, and several at once.
"""

from __future__ import annotations

import _socket
import errno as _errno
import os as _os
import socket as _stdlib
import sys as _sys
from collections.abc import Callable as _Callable
from socket import *  # noqa: F403
from types import FunctionType as _FunctionType
from typing import Any, TypeVar

from gort import selectors as _selectors
from gort import sync as _sync
from gort._core._runtime import (
    _sock_begin,
    _sock_class,
    _sock_connect,
    _sock_detach,
    _sock_force,
    _sock_limits,
    _sock_retry,
    blocking,
)

__all__ = list(_stdlib.__all__)

_F = TypeVar("_F", bound=_Callable[..., Any])

_READ, _WRITE = 0, 1
_DONTWAIT = _socket.MSG_DONTWAIT
_LOOKUPS = 64  # at a time, each in an OS thread

_LIMITS = _socket.SO_RCVTIMEO, _socket.SO_SNDTIMEO

_base = _socket.socket
_lookups = _sync.Semaphore(_LOOKUPS)


def _after_fork() -> None:
    """Those who were looking up names are not in the child."""
    global _lookups
    _lookups = _sync.Semaphore(_LOOKUPS)


_os.register_at_fork(after_in_child=_after_fork)


# ---- names -------------------------------------------------------------------------
def _look_up(fn: _Callable[..., Any], *args: Any) -> Any:
    lookups = _lookups
    lookups.acquire()
    try:
        return blocking(fn, *args)
    finally:
        lookups.release()


def _is_literal(host: object) -> bool:
    """Whether the C library need not ask anybody."""
    if host is None or isinstance(host, bytes | bytearray):
        host = (host or b"").decode("latin-1")
    if not isinstance(host, str):
        return True  # which is an error
    return not host or ":" in host or host.replace(".", "").isdigit() or host == "<broadcast>"


def getaddrinfo(host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> list[Any]:  # type: ignore[no-redef]
    """As the stdlib's; a name is looked up in another OS thread. May park."""
    if _is_literal(host):
        found = _getaddrinfo(host, port, family, type, proto, flags)
    else:
        found = _look_up(_getaddrinfo, host, port, family, type, proto, flags)
    return [(_AddressFamily(af), _SocketKind(kind), proto, name, at) for af, kind, proto, name, at in found]


def _AddressFamily(value: int) -> int:
    try:
        return _stdlib.AddressFamily(value)
    except ValueError:
        return value


def _SocketKind(value: int) -> int:
    try:
        return _stdlib.SocketKind(value)
    except ValueError:
        return value


_getaddrinfo = _socket.getaddrinfo
_getnameinfo = _socket.getnameinfo
_gethostbyname = _socket.gethostbyname
_gethostbyname_ex = _socket.gethostbyname_ex
_gethostbyaddr = _socket.gethostbyaddr


def getnameinfo(sockaddr: Any, flags: int) -> tuple[str, str]:  # type: ignore[no-redef]
    """As the stdlib's; asked in another OS thread. May park."""
    if not isinstance(sockaddr, tuple) or not isinstance(flags, int) or flags & _socket.NI_NUMERICHOST:
        return _getnameinfo(sockaddr, flags)
    found: tuple[str, str] = _look_up(_getnameinfo, sockaddr, flags)
    return found


def gethostbyname(hostname: str, /) -> str:  # type: ignore[no-redef]
    """As the stdlib's; a name is looked up in another OS thread. May park."""
    if _is_literal(hostname):
        return _gethostbyname(hostname)
    found: str = _look_up(_gethostbyname, hostname)
    return found


def gethostbyname_ex(hostname: str, /) -> tuple[str, list[str], list[str]]:  # type: ignore[no-redef]
    """As the stdlib's, in another OS thread. May park."""
    found: tuple[str, list[str], list[str]] = _look_up(_gethostbyname_ex, hostname)
    return found


def gethostbyaddr(ip_address: str, /) -> tuple[str, list[str], list[str]]:  # type: ignore[no-redef]
    """As the stdlib's, in another OS thread. May park."""
    found: tuple[str, list[str], list[str]] = _look_up(_gethostbyaddr, ip_address)
    return found


def _numeric(sock: socket, address: Any) -> Any:
    """The address with the name in it looked up."""
    if not isinstance(address, tuple) or len(address) < 2 or _is_literal(address[0]):
        return address
    family = _base.family.__get__(sock)
    if family not in (_socket.AF_INET, _socket.AF_INET6):
        return address
    found = _look_up(_getaddrinfo, address[0], None, family, _socket.SOCK_DGRAM)
    return (found[0][4][0], *address[1:])


# ---- sockets ---------------------------------------------------------------------------
class _SocketType(type):
    """`isinstance()` of a socket made before the stdlib was patched holds too."""

    def __instancecheck__(cls, instance: object) -> bool:
        if cls is socket:
            return isinstance(instance, _stdlib_socket)
        return type.__instancecheck__(cls, instance)

    def __subclasscheck__(cls, subclass: type) -> bool:
        if cls is socket:
            return issubclass(subclass, _stdlib_socket)
        return type.__subclasscheck__(cls, subclass)


_stdlib_socket = _stdlib.socket


class socket(_stdlib_socket, metaclass=_SocketType):  # type: ignore[no-redef]
    """A socket of the stdlib's whose calls park the goroutine alone where they would have to wait."""

    __slots__ = ("_state",)  # _sock_class() hides it from Python
    _non_blocking = False  # underneath, whatever the timeout

    def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:
        if fileno is None:
            if family == -1:
                family = _socket.AF_INET
            if type == -1:
                type = _socket.SOCK_STREAM
            if proto == -1:
                proto = 0
        _base.__init__(self, family, type, proto, fileno)
        self._io_refs = 0
        self._closed = False
        _sock_begin(self, fileno is not None, self._non_blocking)

    @property
    def timeout(self) -> float | None:
        """The timeout in seconds, None for none."""
        return self.gettimeout()

    def detach(self) -> int:
        """As the stdlib's; who waits in a call on it gets OSError(EBADF)."""
        self._closed = True
        if _base.fileno(self) >= 0:
            _sock_detach(self)
        return _base.detach(self)

    def setsockopt(self, level: int, optname: int, *args: Any) -> None:
        """As the stdlib's."""
        _base.setsockopt(self, level, optname, *args)
        if optname in _LIMITS and level == _socket.SOL_SOCKET:
            _sock_limits(self)

    def bind(self, address: Any, /) -> None:
        """As the stdlib's; parks for a host name only."""
        _base.bind(self, _numeric(self, address))

    def connect(self, address: Any, /) -> None:
        """As the stdlib's; waiting parks the goroutine alone."""
        error = _sock_connect(self, _numeric(self, address))
        if error:
            raise OSError(error, _os.strerror(error))

    def connect_ex(self, address: Any, /) -> int:
        """As the stdlib's; waiting parks the goroutine alone."""
        address = _numeric(self, address)
        try:
            error: int = _sock_connect(self, address)
        except TimeoutError:
            return _errno.EWOULDBLOCK
        return error

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        """As the stdlib's; waiting parks the goroutine alone."""
        got: tuple[bytes, Any] = _sock_retry(self, _recvfrom, (self, bufsize, flags | _DONTWAIT), _READ, flags)
        return got

    def recvfrom_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        """As the stdlib's; waiting parks the goroutine alone."""
        args = self, buffer, nbytes, flags | _DONTWAIT
        got: tuple[int, Any] = _sock_retry(self, _recvfrom_into, args, _READ, flags)
        return got

    def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /) -> Any:
        """As the stdlib's; waiting parks the goroutine alone."""
        args = self, bufsize, ancbufsize, flags | _DONTWAIT
        return _sock_retry(self, _recvmsg, args, _READ, flags)

    def recvmsg_into(self, buffers: Any, ancbufsize: int = 0, flags: int = 0, /) -> Any:
        """As the stdlib's; waiting parks the goroutine alone."""
        args = self, _again(buffers), ancbufsize, flags | _DONTWAIT
        return _sock_retry(self, _recvmsg_into, args, _READ, flags)

    def sendto(self, data: Any, *args: Any) -> int:
        """As the stdlib's; waiting, for a host name too, parks the goroutine alone."""
        if len(args) == 1:
            flags, address = 0, args[0]
        elif len(args) == 2:
            flags, address = args
        else:
            raise TypeError(f"sendto() takes 2 or 3 arguments ({1 + len(args)} given)")
        every = self, data, flags | _DONTWAIT, _numeric(self, address)
        sent: int = _sock_retry(self, _sendto, every, _WRITE, flags)
        return sent

    def _sendfile_use_sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        forced = self._non_blocking or self.gettimeout() is not None
        if forced:
            return int(_sendfile(self, file, offset, count))
        _sock_force(self, True)
        try:
            return int(_sendfile(self, file, offset, count))
        finally:
            if _base.fileno(self) >= 0:
                _sock_force(self, False)

    def sendmsg(self, buffers: Any, ancdata: Any = (), flags: int = 0, address: Any = None, /) -> int:
        """As the stdlib's; waiting parks the goroutine alone."""
        args = self, _again(buffers), _again(ancdata), flags | _DONTWAIT
        if address is not None:
            args = *args, _numeric(self, address)  # type: ignore[assignment]
        sent: int = _sock_retry(self, _sendmsg, args, _WRITE, flags)
        return sent


def _again(items: Any) -> Any:
    """What can be iterated over more than once."""
    return items if isinstance(items, list | tuple) or not hasattr(items, "__iter__") else list(items)


_recvfrom, _recvfrom_into = _base.recvfrom, _base.recvfrom_into
_recvmsg, _recvmsg_into = _base.recvmsg, _base.recvmsg_into
_sendto, _sendmsg = _base.sendto, _base.sendmsg
_sock_class(socket, _base)


# ---- the stdlib's functions, making sockets of ours -----------------------------------------
_names: dict[str, Any] = dict(vars(_stdlib))


def _ours(fn: _F) -> _F:
    """The same function, seeing the names of this module instead of the stdlib's."""
    made = _FunctionType(fn.__code__, _names, fn.__name__, fn.__defaults__, fn.__closure__)
    made.__kwdefaults__ = fn.__kwdefaults__
    made.__doc__, made.__module__, made.__annotations__ = fn.__doc__, __name__, fn.__annotations__
    _names[fn.__name__] = made
    return made  # type: ignore[return-value]


_names.update(
    socket=socket,
    selectors=_selectors,
    getaddrinfo=getaddrinfo,
    getnameinfo=getnameinfo,
    gethostbyname=gethostbyname,
    gethostbyname_ex=gethostbyname_ex,
    gethostbyaddr=gethostbyaddr,
)

_sendfile = _ours(_stdlib_socket._sendfile_use_sendfile)  # type: ignore[attr-defined]
fromfd = _ours(_stdlib.fromfd)
socketpair = _ours(_stdlib.socketpair)
create_connection = _ours(_stdlib.create_connection)
create_server = _ours(_stdlib.create_server)
has_dualstack_ipv6 = _ours(_stdlib.has_dualstack_ipv6)
getfqdn = _ours(_stdlib.getfqdn)

if "multiprocessing.reduction" in _sys.modules:  # which sends sockets to other processes
    _reduction = _sys.modules["multiprocessing.reduction"]
    _reduction.register(socket, _reduction._reduce_socket)

# The stdlib's other functions find these where they look for them.
_PATCHES: dict[str, dict[str, object]] = {
    "socket": {
        "socket": socket,
        "getaddrinfo": getaddrinfo,
        "getnameinfo": getnameinfo,
        "gethostbyname": gethostbyname,
        "gethostbyname_ex": gethostbyname_ex,
        "gethostbyaddr": gethostbyaddr,
    }
}
