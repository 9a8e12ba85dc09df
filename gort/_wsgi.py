"""What PEP 3333 asks of a server: wsgi.input, start_response, write, wsgi.file_wrapper; the access log's records."""

from __future__ import annotations

import io
import os
import re
import stat
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from gort._core._runtime import Mutex

if TYPE_CHECKING:
    from gort._core._runtime import Addr
    from gort._http import Connection, Request

Environ = dict[str, Any]
Headers = list[tuple[str, str]]

DRAIN = 256 << 10  # bytes of a body nobody wanted that are read, to go on with the connection (Go's http.Server)
SMALL = 64 << 10  # bytes of a body that are copied behind the head, to go in one piece
NAMES = 1024  # entries of a cache


class Stream(Protocol):
    """What the server asks of a connection: gort.net.Conn, or TLS upon one."""

    @property
    def local_addr(self) -> Addr: ...
    @property
    def remote_addr(self) -> Addr | None: ...
    def read(self, n: int, *, timeout: float | None = None, ctx: Any = None) -> bytes: ...
    def write(self, data: Any, *, timeout: float | None = None, ctx: Any = None) -> None: ...
    def close(self) -> None: ...
    def close_write(self) -> None: ...
    def set_linger(self, seconds: float | None) -> None: ...


class RequestError(OSError):
    """A request cannot be read, or not to its end. `status` is what it is answered with; 0: its client is gone."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status

    def __reduce__(self) -> tuple[Any, ...]:
        return RequestError, (self.status, *self.args)


class Access:
    """A request that is over, for the access log. `seconds` is from its head to the last byte handed to the system."""

    __slots__ = ("environ", "headers", "seconds", "sent", "status")

    def __init__(self, environ: Environ, status: str, headers: Headers, sent: int, seconds: float) -> None:
        self.environ = environ
        self.status = status  # "200 OK"
        self.headers = headers  # the application's
        self.sent = sent  # bytes of the body
        self.seconds = seconds

    @property
    def request_line(self) -> str:
        """As it came, or "-" if it never did."""
        env = self.environ
        if "RAW_URI" not in env:
            return "-"
        return f"{env['REQUEST_METHOD']} {env['RAW_URI']} {env['SERVER_PROTOCOL']}"

    def combined(self) -> str:
        """In the combined log format of Apache and nginx."""
        env = self.environ
        when = time.strftime("%d/%b/%Y:%H:%M:%S %z")
        line, referer, agent = (
            _quote(text) for text in (self.request_line, env.get("HTTP_REFERER", "-"), env.get("HTTP_USER_AGENT", "-"))
        )
        host = env.get("REMOTE_ADDR") or "-"
        return f'{host} - - [{when}] "{line}" {self.status[:3]} {self.sent} "{referer}" "{agent}"'


_UNPRINTABLE = re.compile(r'[\x00-\x1f"\\\x7f-\xff]')


def _quote(text: str) -> str:
    return _UNPRINTABLE.sub(lambda m: f"\\x{ord(m[0]):02x}", text)


# ---- the body of a request ----------------------------------------------------------------
class NoBody:
    """`wsgi.input` of a request without a body."""

    __slots__ = ()

    def read(self, size: int | None = -1) -> bytes:
        return b""

    def readline(self, size: int | None = -1) -> bytes:
        return b""

    def readlines(self, hint: int | None = -1) -> list[bytes]:
        return []

    def __iter__(self) -> Iterator[bytes]:
        return iter(())


NO_BODY = NoBody()


class Input:
    """`wsgi.input`: reads from the client when it is asked to, and not beyond the end of the body.

    Raises RequestError if the body does not come to its end: it is malformed, too large or too slow, or the client
    is gone; ValueError once the request is over.
    """

    __slots__ = ("_connection", "_mutex", "_piece", "chunks", "complete", "expect", "expected", "received")

    def __init__(self, connection: Connection, expected: int | None, expect: bool) -> None:
        self._connection: Connection | None = connection
        self._mutex = Mutex()
        self._piece = b""  # the head of what has come, before `chunks`
        self.chunks: deque[bytes] = deque()
        self.complete = False
        self.expected = expected  # Content-Length, None if it is chunked
        self.expect = expect  # the client waits for a 100 Continue
        self.received = 0

    def _take(self) -> bytes:
        """The next piece, b"" at the end. Parks. With the mutex."""
        if self._piece:
            piece, self._piece = self._piece, b""
            return piece
        while not self.chunks:
            if self.complete:
                return b""
            if self._connection is None:
                raise ValueError("wsgi.input is read after the request is over")
            self._connection.read_body(self)
        return self.chunks.popleft()

    def read(self, size: int | None = -1) -> bytes:
        """`size` bytes, fewer at the end; all that is left without a size. Parks."""
        left = sys.maxsize if size is None or size < 0 else size
        pieces: list[bytes] = []
        with self._mutex:
            try:
                while left and (piece := self._take()):
                    if len(piece) > left:
                        self._piece = piece[left:]
                        piece = piece[:left]
                    pieces.append(piece)
                    left -= len(piece)
            except BaseException:
                self._put_back(pieces)
                raise
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readline(self, size: int | None = -1) -> bytes:
        """A line, with its end, of at most `size` bytes; b"" at the end of the body. Parks."""
        left = sys.maxsize if size is None or size < 0 else size
        pieces: list[bytes] = []
        with self._mutex:
            try:
                while left and (piece := self._take()):
                    end = min(piece.find(b"\n") + 1 or len(piece), left)
                    if end < len(piece):
                        self._piece = piece[end:]
                        piece = piece[:end]
                    pieces.append(piece)
                    left -= end
                    if piece.endswith(b"\n"):
                        break
            except BaseException:
                self._put_back(pieces)
                raise
        return b"".join(pieces)

    def _put_back(self, pieces: list[bytes]) -> None:
        if pieces:
            self._piece = b"".join([*pieces, self._piece])

    def readlines(self, hint: int | None = -1) -> list[bytes]:
        """Lines, up to the end or until they make `hint` bytes. Parks."""
        lines: list[bytes] = []
        total = 0
        while line := self.readline():
            lines.append(line)
            total += len(line)
            if hint is not None and 0 < hint <= total:
                break
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def finish(self) -> bool:
        """Read to the end what the application did not want; False if the connection is of no more use. Parks."""
        with self._mutex:
            connection, self._connection = self._connection, None
            if not self.complete and (not self.drainable or connection is None):
                return False
            self._piece = b""
            self.chunks.clear()
            limit = self.received + DRAIN
            while not self.complete:
                assert connection is not None
                try:
                    connection.read_body(self)
                except RequestError:
                    return False
                self.chunks.clear()
                if self.received > limit:
                    return False
        return True

    @property
    def drainable(self) -> bool:
        """Whether it is worth while to read to its end."""
        if self.expect:
            return self.complete
        return self.expected is None or self.expected - self.received <= DRAIN


# ---- what is answered -------------------------------------------------------------------
_FILES = (io.FileIO, io.BufferedReader, io.BufferedRandom)


class FileWrapper:
    """`wsgi.file_wrapper`: an open file as a response. One of the system's is sent by sendfile(2)."""

    def __init__(self, filelike: Any, block_size: int = 65536) -> None:
        self.filelike = filelike
        self.block_size = block_size
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        data: bytes = self.filelike.read(self.block_size)
        if data:
            return data
        raise StopIteration

    def regular(self) -> tuple[int, int, int] | None:
        """Descriptor, position and the bytes from there to the end; None if sendfile(2) is not for it.

        It is for those of open() only: a gzip.GzipFile has a descriptor too, of something else than what it reads.
        """
        file = self.filelike
        if type(file) not in _FILES or type(getattr(file, "raw", file)) is not io.FileIO:
            return None
        try:
            fd, at = file.fileno(), file.tell()
            status = os.fstat(fd)
        except (OSError, ValueError):
            return None
        return (fd, at, max(status.st_size - at, 0)) if stat.S_ISREG(status.st_mode) else None


_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_TEXT = re.compile(r"[ \t\x21-\x7e\x80-\xff]*").fullmatch
_STATUS = re.compile(r"[2-9][0-9]{2} [ \t\x21-\x7e\x80-\xff]*|[2-9][0-9]{2}").fullmatch
_HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
}
_lines: dict[Any, bytes] = {}  # of headers that were found good and mean nothing to the server
_lengths: dict[Any, bytes] = {}  # ... that are a good Content-Length
_statuses: dict[str, tuple[bytes, bool]] = {}


def _status(status: Any) -> tuple[bytes, bool]:
    """The status line, and whether such a response has no body."""
    if not isinstance(status, str):
        raise TypeError(f"status must be a str, not {status!r}")
    if not _STATUS(status):
        raise ValueError(f"status must be three digits, from 200 on, a space and a text: {status!r}")
    made = f"HTTP/1.1 {status}\r\n".encode("latin-1"), status[:3] in ("204", "304")
    if len(_statuses) >= NAMES:
        _statuses.clear()
    _statuses[str(status)] = made
    return made


def header_line(name: Any, value: Any) -> bytes:
    """A header as it is sent; raises for one that an application must not set."""
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError(f"headers must be pairs of str, not {(name, value)!r}")
    if not _TOKEN(name):
        raise ValueError(f"header name is not a token: {name!r}")
    if not _TEXT(value):
        raise ValueError(f"header {name} has a value with a control or a non-latin-1 character: {value!r}")
    if name.lower() in _HOP_BY_HOP:
        raise ValueError(f"header {name} is hop-by-hop, which is the server's business (PEP 3333)")
    return f"{name}: {value.strip()}\r\n".encode("latin-1")


class Response:
    """The answer to one request: start_response, write, and what becomes of the iterable."""

    # Most of them stay as they are.
    status: str | None = None
    headers: Headers = []  # noqa: RUF012 - replaced, never changed
    head_sent = False
    sent = 0  # bytes of the body
    broken = False  # the client is gone
    complete = False
    _chunked = False

    def __init__(self, connection: Connection, request: Request) -> None:
        self._connection = connection
        self._request = request
        self.close = not request.keep_alive

    def start_response(self, status: str, headers: Headers, exc_info: Any = None) -> Callable[[bytes], None]:
        if exc_info:
            try:
                if self.head_sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self.status is not None:
            raise AssertionError("start_response() is called again without exc_info")
        try:
            self._started, self._bodiless = _statuses[status]
        except (KeyError, TypeError):
            self._started, self._bodiless = _status(status)
        if type(headers) is not list:
            raise TypeError(f"headers must be a list, not {headers!r}")
        self._length: int | None = None
        self._fixed = 0  # bit 0: the application sets Server, bit 1: Date
        lines: list[bytes] = []
        for item in headers:
            try:
                lines.append(_lines[item])
            except (KeyError, TypeError):
                if line := self._header(item):
                    lines.append(line)
        self._lines = lines
        self.status = status
        self.headers = headers
        return self.write

    def _header(self, item: Any) -> bytes:
        if type(item) is not tuple or len(item) != 2:
            raise TypeError(f"headers must be pairs of str, not {item!r}")
        name, value = item
        length = _lengths.get(item)
        if length is not None:
            return self._content_length(value, length)
        line = header_line(name, value)
        lower = name.lower()
        if lower == "server":
            self._fixed |= 1
            return line
        if lower == "date":
            self._fixed |= 2
            return line
        cache = _lines
        if lower == "content-length":
            if not (value.isascii() and value.isdigit()):
                raise ValueError(f"header Content-Length must be digits, not {value!r}")
            cache = _lengths
        if len(line) <= 128 and type(name) is str and type(value) is str:
            if len(cache) >= NAMES:
                cache.clear()
            cache[item] = line
        return line if cache is _lines else self._content_length(value, line)

    def _content_length(self, value: str, line: bytes) -> bytes:
        if self._length is not None:
            raise ValueError("header Content-Length is given twice")
        self._length = int(value)
        return b"" if self._bodiless and self._started[9:12] == b"204" else line

    # ---- the head
    def _head(self, total: int | None) -> list[bytes]:
        """The head's pieces; total: the length of the body, if all of it is known."""
        connection, request = self._connection, self._request
        if request.environ["REQUEST_METHOD"] == "HEAD":
            self._bodiless = True
        pieces = [self._started, connection.server.fixed_headers(self._fixed), *self._lines]
        if self._length is not None:
            if total is not None and total != self._length and not self._bodiless:
                raise ValueError(f"the body has {total} bytes, and Content-Length says {self._length}")
        elif not self._bodiless or (total and self._started[9:12] not in (b"204", b"304")):  # that is, HEAD
            if total is not None:
                self._length = total
                pieces.append(b"Content-Length: %d\r\n" % total)
            elif request.http11:
                self._chunked = True
                pieces.append(b"Transfer-Encoding: chunked\r\n")
            else:
                self.close = True
        self._left = self._length
        body = request.body
        if connection.server.closing:
            self.close = True
        elif body is not None and not body.complete and (connection.fault is not None or not body.drainable):
            self.close = True
        if self.close:
            pieces.append(b"Connection: close\r\n\r\n")
        elif request.http11:
            pieces.append(b"\r\n")
        else:
            pieces.append(b"Connection: keep-alive\r\n\r\n")
        return pieces

    def _put(self, data: bytes | memoryview) -> None:
        conn, timeout = self._connection.conn, self._connection.server.write_timeout
        try:
            try:
                conn.write(data, timeout=timeout)
            except TimeoutError as e:
                write_rest(conn, data, timeout, e)
        except OSError:
            self.broken = True
            raise

    def _put_all(self, before: list[bytes], data: bytes, after: bytes = b"") -> None:
        """In one piece, if that costs no large copy."""
        if len(data) <= SMALL:
            self._put(b"".join((*before, data, after)))
            return
        self._put(b"".join((*before, data[:SMALL])))
        self._put(memoryview(data)[SMALL:])
        if after:
            self._put(after)

    # ---- the body
    def write(self, data: bytes) -> None:
        """What start_response() gives, and each block of an iterable. Parks."""
        if type(data) is not bytes and not isinstance(data, bytes):
            raise TypeError(f"the body must be made of bytes, not {data!r}")
        size = len(data)
        if not self.head_sent:
            pieces = self._head(None)
            after = b""
            if self._bodiless:
                data = b""
            elif not self._chunked:
                self._count(size)
            elif size:
                pieces.append(b"%x\r\n" % size)
                after = b"\r\n"
            self.head_sent = True
            self._put_all(pieces, data, after)
        elif self._bodiless or not size:
            return
        elif self._chunked:
            self._put_all([b"%x\r\n" % size], data, b"\r\n")
        else:
            self._count(size)
            self._put(data)
        self.sent += len(data)

    def _count(self, size: int) -> None:
        if self._left is not None:
            if size > self._left:
                raise ValueError(f"the body is longer than Content-Length says, {self._length}")
            self._left -= size

    def _end(self, body: bytes) -> None:
        """The last of the body, perhaps all of it."""
        if not self.head_sent:
            pieces = self._head(len(body))
            self._left = 0
            self.head_sent = True
            if self._bodiless:
                body = b""
            self._put_all(pieces, body)
            self.sent = len(body)
            return
        if body:
            self.write(body)
        if self._chunked:
            self._put(b"0\r\n\r\n")
        elif self._left and not self._bodiless:
            raise ValueError(f"the body is {self._left} bytes shorter than Content-Length says, {self._length}")

    def send(self, result: Any) -> None:
        """All that an application returned. Parks."""
        if self.status is not None and self.status[:3] == "500" and not self.head_sent:
            self._connection.blame(self._request)
        kind = type(result)
        if self.status is None and (kind is list or kind is tuple or kind is FileWrapper):
            raise AssertionError("the application did not call start_response()")
        if kind is list or kind is tuple:
            body = result[0] if len(result) == 1 else b"".join(result)
            if type(body) is not bytes and not isinstance(body, bytes):
                raise TypeError(f"the body must be made of bytes, not {body!r}")
            self._end(body)
        elif kind is FileWrapper and (file := result.regular()) is not None and self._connection.sendfile is not None:
            self._send_file(*file)
        else:
            for block in result:
                if block:
                    if self.status is None:
                        raise AssertionError("the application did not call start_response()")
                    self.write(block)
            if self.status is None:
                raise AssertionError("the application did not call start_response()")
            self._end(b"")

    def _send_file(self, fd: int, at: int, size: int) -> None:
        if not self.head_sent:  # by write()
            pieces = self._head(size if self._length is None else None)
            self.head_sent = True
            self._put(b"".join(pieces))
        limit = size if self._left is None else min(size, self._left)
        if self._bodiless:
            return
        if self._chunked:
            if limit:
                self._put(b"%x\r\n" % limit)
                self._copy_file(fd, at, limit)
                self._put(b"\r\n")
            self._put(b"0\r\n\r\n")
            return
        self._copy_file(fd, at, limit)
        if self._left is not None:
            self._left -= limit
        self._end(b"")

    def _copy_file(self, fd: int, at: int, size: int) -> None:
        sendfile, timeout = self._connection.sendfile, self._connection.server.write_timeout
        while size:
            try:
                n = sendfile(fd, at, size, timeout=timeout)
            except TimeoutError as e:
                n = getattr(e, "written", 0)
                if not n:
                    self.broken = True
                    raise
            except OSError:
                self.broken = True
                raise
            if n == 0:
                raise ValueError(f"the file has become {size} bytes shorter while it was sent")
            at += n
            size -= n
            self.sent += n


def write_all(conn: Stream, data: Any, timeout: float | None) -> None:
    """Write all of it, as long as the other side takes some within `timeout` seconds. Parks."""
    try:
        conn.write(data, timeout=timeout)
    except TimeoutError as e:
        write_rest(conn, data, timeout, e)


def write_rest(conn: Stream, data: Any, timeout: float | None, error: TimeoutError) -> None:
    """Go on after `error`, which is raised if nothing at all was written. Parks."""
    view = memoryview(data)
    while written := getattr(error, "written", 0):
        view = view[written:]
        try:
            conn.write(view, timeout=timeout)
            return
        except TimeoutError as again:
            error = again
    raise error
