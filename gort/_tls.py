"""TLS upon a `gort.net.Conn`, for gort.wsgi: OpenSSL between two buffers in memory (`ssl.SSLContext.wrap_bio`)."""

from __future__ import annotations

import ssl
from typing import Any

from gort import net
from gort.sync import Mutex
from gort.time import now

RECORD = 16384 + 256  # bytes read at once: a record
PIECE = 65536  # bytes encrypted at once


class Tls:
    """A TLS connection, with those of a Conn's methods that a server of streams needs.

    One goroutine may read and another write at once. Errors of TLS are `ssl.SSLError`, an OSError.
    """

    def __init__(self, conn: net.Conn, context: ssl.SSLContext, *, server_side: bool, server_name: str | None = None):
        self._conn = conn
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._in, self._out, server_side, server_name)
        self._mutex = Mutex()  # of OpenSSL's object, which takes one call at a time
        self._sending = Mutex()  # what it made goes out in the order in which it was made

    @property
    def local_addr(self) -> net.Addr:
        """This end's Addr."""
        return self._conn.local_addr

    @property
    def remote_addr(self) -> net.Addr | None:
        """The other end's Addr."""
        return self._conn.remote_addr

    @property
    def ssl_object(self) -> ssl.SSLObject:
        """For the certificate, the protocol and the like."""
        return self._object

    def handshake(self, *, timeout: float | None = None) -> None:
        """Agree on keys. Parks. Raises ssl.SSLError, TimeoutError or another OSError."""
        until = None if timeout is None else now() + timeout
        while True:
            with self._mutex:
                try:
                    self._object.do_handshake()
                    done = True
                except ssl.SSLWantReadError:
                    done = False
                except ssl.SSLError:
                    self._flush_quietly()  # the alert, which says why
                    raise
            self._flush(_left(until), None)
            if done:
                return
            if not self._receive(_left(until), None):
                raise ConnectionResetError("the stream ended within the handshake")

    def read(self, n: int, *, timeout: float | None = None, ctx: Any = None) -> bytes:
        """As `Conn.read()`; b"" also if the other end closed without saying so. Parks."""
        until = None if timeout is None else now() + timeout
        while True:
            with self._mutex:
                try:
                    return self._object.read(n)
                except ssl.SSLWantReadError:
                    pass
                except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                    return b""
            self._flush(_left(until), ctx)
            self._receive(_left(until), ctx)

    def write(self, data: Any, *, timeout: float | None = None, ctx: Any = None) -> None:
        """As `Conn.write()`, but `timeout` is within which the other end has to take some of it. Parks.

        After an exception nothing more can be written.
        """
        view = memoryview(data).cast("B")
        for at in range(0, len(view), PIECE):
            piece = view[at : at + PIECE]
            with self._mutex:
                while piece:
                    piece = piece[self._object.write(piece) :]
            self._flush(timeout, ctx)

    def _receive(self, timeout: float | None, ctx: Any) -> bool:
        data = self._conn.read(RECORD, timeout=timeout, ctx=ctx)
        with self._mutex:
            if data:
                self._in.write(data)
            else:
                self._in.write_eof()
        return bool(data)

    def _flush(self, timeout: float | None, ctx: Any) -> None:
        if not self._out.pending:
            return
        with self._sending:
            with self._mutex:
                data = self._out.read()
            view = memoryview(data)
            while view:
                try:
                    self._conn.write(view, timeout=timeout, ctx=ctx)
                    return
                except TimeoutError as e:
                    written = getattr(e, "written", 0)
                    if not written:
                        raise
                    view = view[written:]

    def _flush_quietly(self) -> None:
        """What can be sent at once."""
        try:
            self._conn.write(self._out.read(), timeout=0)
        except OSError:
            pass

    def close_write(self) -> None:
        """Tell the other end that no more comes, as far as that goes without waiting. Does not park."""
        if self._mutex.try_lock():
            try:
                self._object.unwrap()
            except (ssl.SSLError, ValueError):
                pass
            finally:
                self._mutex.unlock()
        self._flush_quietly()
        self._conn.close_write()

    def set_linger(self, seconds: float | None) -> None:
        """As `Conn.set_linger()`."""
        self._conn.set_linger(seconds)

    def set_deadline(self, seconds: float | None) -> None:
        """As `Conn.set_deadline()`."""
        self._conn.set_deadline(seconds)

    def close(self) -> None:
        """Close it. Does not park."""
        if not self._conn.closed:
            try:
                self.close_write()
            except OSError:
                pass
            self._conn.close()


def _left(until: float | None) -> float | None:
    return None if until is None else max(until - now(), 0.0)
