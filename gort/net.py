"""The network: TCP and Unix connections, listeners, UDP. Sources: Go's net and internal/poll.

A call on a socket that has to wait parks its goroutine alone. Addresses are text, `host:port`, `:port`,
`[::1]:80` or `unix:/path` (`unix:@name`: abstract). Calls that wait take `timeout=` in seconds and `ctx=`.

    with net.listen(":0") as listener:
        for conn in listener:
            go(serve, conn)
"""

from __future__ import annotations

import _socket
import os as _os
from functools import cache as _cache
from typing import Any, SupportsFloat, SupportsIndex

from gort import context as _context
from gort import time as _time
from gort._core._runtime import (
    Addr,
    Chan,
    Conn,
    ErrClosed,
    IncompleteRead,
    Listener,
    PacketConn,
    WouldBlock,
    _addr_family,
    _adopt_listener,
    _connect,
    _ip_addr,
    _listen,
    _packet,
    _seconds,
    _unix_addr,
    blocking,
    go,
    pipe,
    select,
)

__all__ = [
    "Addr",
    "Conn",
    "ErrClosed",
    "IncompleteRead",
    "Listener",
    "PacketConn",
    "dial",
    "dial_packet",
    "listen",
    "listen_fd",
    "listen_packet",
    "lookup",
    "pipe",
]

_Seconds = SupportsFloat | SupportsIndex

_FALLBACK_DELAY = 0.3  # seconds that the preferred family has ahead: RFC 6555, and Go
_SANE_MINIMUM = 2.0  # seconds that one address of several gets at least (Go's saneMinimum)


# ---- addresses ---------------------------------------------------------------------
def _text(address: object) -> str:
    if not isinstance(address, str):
        raise TypeError(f"address must be a str, not {address!r}")
    if "\0" in address:
        raise ValueError(f"address must not contain a null character: {address!r}")
    return address


def _unix(address: str) -> Addr | None:
    """The address of a Unix socket, None if it is no such."""
    if not address.startswith("unix:"):
        return None
    if address == "unix:":
        raise ValueError(f"address has no path: {address!r}")
    addr = _unix_addr(_os.fsencode(address[5:]))
    if addr is None:
        raise ValueError(f"address has too long a path, more than 107 bytes: {address!r}")
    return addr


def _split(address: str) -> tuple[str, str, int]:
    """Host, zone and port of a text as Go's SplitHostPort takes it."""
    host, colon, service = address.rpartition(":")
    if not colon:
        raise ValueError(f"address has no port: {address!r}")
    if host.startswith("["):
        if not host.endswith("]"):
            raise ValueError(f"address has no ] after its host: {address!r}")
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"address has too many colons (an IPv6 one wants brackets): {address!r}")
    if "[" in host or "]" in host:
        raise ValueError(f"address has a bracket out of place: {address!r}")
    host, _, zone = host.partition("%")
    return host, zone, _port(service, address)


def _port(service: str, address: str) -> int:
    if service.isascii() and service.isdigit():
        if (port := int(service)) > 65535:
            raise ValueError(f"address has a port above 65535: {address!r}")
        return port
    try:
        return _socket.getservbyname(service) if service else 0
    except OSError:
        raise ValueError(f"address has an unknown port {service!r}: {address!r}") from None


def _literal(address: object) -> Addr:
    """The address of a text with a literal IP address or a Unix path."""
    text = _text(address)
    if addr := _unix(text):
        return addr
    host, zone, port = _split(text)
    addr = _ip_addr(host, zone, port)
    if addr is None:
        raise ValueError(f"address must have a literal IP address here: {text!r}")
    return addr


def _getaddrinfo(host: str, kind: int) -> tuple[list[Any], OSError | None]:
    try:
        return _socket.getaddrinfo(host, None, type=kind), None
    except UnicodeError:
        return [], _socket.gaierror(_socket.EAI_NONAME, f"not a host name: {host!r}")
    except OSError as e:
        return [], e


def _resolve(host: str, timeout: _Seconds | None, ctx: Any) -> list[tuple[str, str]]:
    """The IP addresses of a name, with their zones, in the system's order of preference. Parks."""
    # In a goroutine of its own, for the C library's resolver cannot be called off.
    found, error = go(blocking, _getaddrinfo, host, _socket.SOCK_STREAM).join(timeout, ctx=ctx)
    if error is not None:
        if isinstance(error, _socket.gaierror):
            raise _socket.gaierror(error.errno, f"{error.strerror}: {host!r}") from None
        raise error
    ips: list[tuple[str, str]] = []
    for _, _, _, _, at in found:
        ip = at[0].partition("%")[0], str(at[3]) if len(at) > 2 and at[3] else ""
        if ip not in ips:
            ips.append(ip)
    return ips


def lookup(host: str, *, timeout: _Seconds | None = None, ctx: Any = None) -> list[str]:
    """The IP addresses of a host, the preferred ones first; `socket.gaierror` if it has none. May park.

    A name is resolved by the C library (`getaddrinfo`), in another OS thread.
    """
    host = _text(host)
    if _ip_addr(host, "", 0) is not None:
        return [host]
    return [f"{ip}%{zone}" if zone else ip for ip, zone in _resolve(host, timeout, ctx)]


def _addresses(address: str, default: str, timeout: _Seconds | None, ctx: Any) -> list[Addr]:
    """What a text means; without a host, `default`."""
    host, zone, port = _split(address)
    literal = _ip_addr(host or default, zone, port)
    if literal is not None:
        return [literal]
    if zone:
        raise ValueError(f"address has an unknown zone {zone!r}: {address!r}")
    made = (_ip_addr(ip, zone, port) for ip, zone in _resolve(host, timeout, ctx))
    return [addr for addr in made if addr is not None]


# ---- listening -----------------------------------------------------------------------
@_cache
def _have_ipv6() -> bool:
    loopback = _ip_addr("::1", "", 0)
    assert loopback is not None
    try:
        _listen(loopback, 0, False).close()
    except OSError:
        return False
    return True


def _bind_address(address: object) -> Addr:
    text = _text(address)
    if addr := _unix(text):
        return addr
    found = _addresses(text, "::" if _have_ipv6() else "0.0.0.0", None, None)
    # Of a name's addresses an IPv4 one first, as Go does.
    return next((a for a in found if _addr_family(a) == _socket.AF_INET), found[0])


def listen(address: str, *, backlog: int = 1024, reuse_port: bool = False) -> Listener:
    """Listen for connections at `address`; without a host, on all of IPv6 and IPv4. Parks for a host name only.

    Port 0 is one that is free: see the listener's `addr`. `backlog` connections may wait to be accepted
    (the system limits it). With `reuse_port` several listeners, of several processes, share the port.
    Raises ValueError for a text that is no address, OSError if it cannot be listened at.
    """
    if not isinstance(backlog, int) or isinstance(backlog, bool):
        raise TypeError(f"backlog must be an int, not {backlog!r}")
    if backlog < 0:
        raise ValueError(f"backlog must not be negative: {backlog!r}")
    return _listen(_bind_address(address), min(backlog, 0x7FFFFFFF), bool(reuse_port))


def listen_fd(fd: int) -> Listener:
    """The Listener of a descriptor of a socket that listens already: from a parent process, or from systemd.

    It belongs to the Listener from then on, which closes it; `os.dup()` it to keep one. Others may accept from the
    same socket meanwhile. It is put into non-blocking mode, for all who share it. Raises TypeError, ValueError if
    the socket does not listen for streams, OSError if it is none; the descriptor is as before then.
    """
    if not isinstance(fd, int) or isinstance(fd, bool):
        raise TypeError(f"fd must be an int, not {fd!r}")
    if fd < 0:
        raise ValueError(f"fd must not be negative: {fd!r}")
    sock = _socket.socket(fileno=fd)
    try:
        listens = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN)
        inet = sock.family in (_socket.AF_INET, _socket.AF_INET6)
        if not listens or sock.type != _socket.SOCK_STREAM or not (inet or sock.family == _socket.AF_UNIX):
            raise ValueError(f"fd must be of a socket that listens for streams, TCP or Unix: {fd!r}")
        sock.setblocking(False)
        return _adopt_listener(fd, inet)
    finally:
        sock.detach()


def listen_packet(address: str, *, reuse_port: bool = False) -> PacketConn:
    """A UDP socket, or a Unix one for packets, bound to `address`. See `listen()`."""
    return _packet(_bind_address(address), False, bool(reuse_port))


# ---- dialing ---------------------------------------------------------------------------
def dial(address: str, *, timeout: _Seconds | None = None, ctx: Any = None, local_address: str | None = None) -> Conn:
    """Connect to `address` and return the connection. Parks.

    The addresses of a name are tried one after the other; if it has some of IPv6 and of IPv4, those
    of the second family in parallel, 0.3 s after the first (RFC 8305; Go's dialParallel). `timeout`
    covers the look-up of the name too, and is shared out among the addresses. `local_address`, with
    a literal IP address, is where the connection comes from. Raises the first address's OSError,
    `socket.gaierror` if there is none, TimeoutError, or ValueError for a text that is no address.
    """
    text = _text(address)
    local = None if local_address is None else _literal(local_address)
    if unix := _unix(text):
        return _connect(unix, local, timeout, ctx)
    if timeout is None:
        return _dial(text, local, ctx)
    with _context.timeout(_seconds(timeout, "timeout"), parent=ctx) as limited:
        try:
            return _dial(text, local, limited)
        except _context.DeadlineExceeded:
            if ctx is not None and ctx.err() is not None:
                raise ctx.err() from None
            raise TimeoutError(110, "timed out", text) from None


def _dial(address: str, local: Addr | None, ctx: Any) -> Conn:
    addresses = _addresses(address, "127.0.0.1", None, ctx)
    if not addresses:
        raise _socket.gaierror(_socket.EAI_NODATA, f"no suitable address: {address!r}")
    if len(addresses) == 1:
        return _dial_one(addresses[0], local, None, ctx)
    family = _addr_family(addresses[0])
    primaries = [a for a in addresses if _addr_family(a) == family]
    fallbacks = [a for a in addresses if _addr_family(a) != family]
    if not fallbacks:
        return _dial_serial(primaries, local, ctx)
    return _dial_parallel(primaries, fallbacks, local, ctx)


def _dial_one(addr: Addr, local: Addr | None, timeout: float | None, ctx: Any) -> Conn:
    for _ in range(3):
        conn = _connect(addr, local, timeout, ctx)
        # Nobody listens, and the port that the system chose for us is that very one: it
        # is connected to itself (Go's selfConnect).
        if local is not None or addr.startswith("unix:") or conn.local_addr != conn.remote_addr:
            break
        conn.close()
    else:
        raise ConnectionRefusedError(111, "connected to itself", addr)
    return conn


def _dial_serial(addresses: list[Addr], local: Addr | None, ctx: Any) -> Conn:
    """One after the other; the error of the first."""
    first: OSError | None = None
    for i, addr in enumerate(addresses):
        share: float | None = None
        deadline = None if ctx is None else ctx.deadline()
        if deadline is not None and i + 1 < len(addresses):
            # Go's partialDeadline: an even share, but not too short a one
            left = deadline - _time.now()
            share = max(left / (len(addresses) - i), min(left, _SANE_MINIMUM))
        try:
            return _dial_one(addr, local, share, ctx)
        except OSError as e:
            if ctx is not None and ctx.err() is not None:
                raise
            if first is None:
                first = e
            else:
                first.add_note(f"then: {e}")
    assert first is not None
    raise first


def _dial_parallel(primaries: list[Addr], fallbacks: list[Addr], local: Addr | None, ctx: Any) -> Conn:
    """Two `_dial_serial` race, the first with a head start. The loser's connection is closed."""
    results: Chan[tuple[bool, Conn | None, BaseException | None]] = Chan(2)
    over, cancel = _context.with_cancel(_context.background() if ctx is None else ctx)

    def race(primary: bool) -> None:
        conn, error = None, None
        try:
            conn = _dial_serial(primaries if primary else fallbacks, local, over)
        except Exception as e:
            error = e
        if conn is not None and over.err() is not None:  # too late
            conn.close()
            conn = None
        results.send((primary, conn, error))
        if over.err() is not None:
            close_rest()

    def close_rest() -> None:
        while True:
            try:
                conn = results.recv_nowait()[1]
            except WouldBlock:
                return
            if conn is not None:
                conn.close()

    timer = _time.Timer(_FALLBACK_DELAY)
    running = 1
    first: BaseException | None = None
    try:
        go(race, True)
        while running:
            value: Any
            index, value, _ = select(results, timer.c, ctx=ctx)
            if index == 1:
                running += 1
                go(race, False)
                continue
            primary, won, error = value
            running -= 1
            if won is not None:
                assert isinstance(won, Conn)
                return won
            if primary or first is None:
                first = error
            if primary and timer.stop():
                running += 1
                go(race, False)
        assert first is not None
        raise first
    finally:
        timer.stop()
        cancel()
        close_rest()


def dial_packet(address: str, *, timeout: _Seconds | None = None, ctx: Any = None) -> PacketConn:
    """A UDP socket, or a Unix one for packets, that sends to `address` and hears it alone. Parks for a name only."""
    text = _text(address)
    addr = _unix(text) or _addresses(text, "127.0.0.1", timeout, ctx)[0]
    return _packet(addr, True, False)
