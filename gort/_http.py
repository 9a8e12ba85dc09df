"""HTTP/1.1 for gort.wsgi: what a connection reads, and what it answers. RFC 9110, RFC 9112, PEP 3333.

A `Connection` belongs to one goroutine, which reads requests, calls the application and answers, one after the
other. httptools parses; its callbacks put requests on `ready`, for one read may bring several (pipelining), and
pieces of a body into its `Input`. Nothing is read from the client but when somebody waits for it: the goroutine for
the next head, or the application for more of a body.

What is wrong with a request becomes `fault`, and nothing after it is looked at. It is answered when all the requests
before it are, and that ends the connection: past a mistake nobody knows where the next request begins.
"""

from __future__ import annotations

import os
import re
import stat
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote_to_bytes

from gort._core._runtime import Mutex, current
from gort.context import Canceled
from gort.time import now

try:
    from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
except ImportError as e:
    raise ImportError("gort.wsgi parses HTTP with httptools: pip install 'gort[wsgi]', or pip install httptools") from e

if TYPE_CHECKING:
    from gort._core._runtime import Addr, Goroutine
    from gort.wsgi import Server

Environ = dict[str, Any]
Headers = list[tuple[str, str]]

HEAD_READ = 16384  # bytes of one read that waits for a request; bounds what pipelining can pile up
BODY_READ = 65536
DRAIN = 256 << 10  # bytes of a body nobody wanted that are read, to go on with the connection (Go's http.Server)
SMALL = 64 << 10  # a body up to this is copied behind its head, to go in one piece
LINGER_SECONDS = 1.0  # that a refused client may go on sending, lest the refusal be lost to a reset
LINGER_BYTES = 4 << 20
NAMES = 1024  # entries of the caches

REASONS = {
    400: "Bad Request",
    408: "Request Timeout",
    413: "Content Too Large",
    414: "URI Too Long",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    505: "HTTP Version Not Supported",
}


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


# ---- the environ's names ------------------------------------------------------------
_keys: dict[bytes, str | None] = {}  # of header names as clients write them


def _key(name: bytes) -> str | None:
    """The environ's key of a header; None if it has none.

    Headers with an underscore are dropped, or X_Real_Ip would pass for the proxy's X-Real-Ip.
    """
    text = name.decode("latin-1").upper()
    key: str | None
    if "_" in text:
        key = None
    elif text in ("CONTENT-TYPE", "CONTENT-LENGTH"):
        key = text.replace("-", "_")
    else:
        key = "HTTP_" + text.replace("-", "_")
    if len(name) <= 64:
        if len(_keys) >= NAMES:
            _keys.clear()
        _keys[name] = key
    return key


_SINGLE = {"HTTP_HOST", "CONTENT_TYPE", "CONTENT_LENGTH"}


# ---- a request -----------------------------------------------------------------------
class Request:
    """A request whose head has come. `body` is None if it has none."""

    __slots__ = ("body", "environ", "http11", "keep_alive", "upgrade")

    def __init__(self, environ: Environ, body: Input | None, http11: bool, keep_alive: bool) -> None:
        self.environ = environ
        self.body = body
        self.http11 = http11
        self.keep_alive = keep_alive
        self.upgrade = False  # the parser stopped after its head: what follows may be another protocol


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
        """Descriptor, position and the bytes from there to the end; None if sendfile(2) is not for it."""
        try:
            fd, at = self.filelike.fileno(), self.filelike.tell()
            status = os.fstat(fd)
        except (AttributeError, OSError, ValueError):
            return None
        if not isinstance(fd, int) or not isinstance(at, int) or not stat.S_ISREG(status.st_mode):
            return None
        return fd, at, max(status.st_size - at, 0)


# ---- what is answered -------------------------------------------------------------------
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

    __slots__ = (
        "_bodiless",
        "_chunked",
        "_connection",
        "_fixed",
        "_left",
        "_length",
        "_lines",
        "_request",
        "_started",
        "broken",
        "close",
        "complete",
        "head_sent",
        "headers",
        "sent",
        "status",
    )

    def __init__(self, connection: Connection, request: Request) -> None:
        self._connection = connection
        self._request = request
        self.status: str | None = None
        self.headers: Headers = []
        self.head_sent = False
        self.sent = 0  # bytes of the body
        self.broken = False  # the client is gone
        self.complete = False
        self.close = not request.keep_alive
        self._chunked = False

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
        line = header_line(name, value)
        lower = name.lower()
        if lower == "content-length":
            if not (value.isascii() and value.isdigit()):
                raise ValueError(f"header Content-Length must be digits, not {value!r}")
            if self._length is not None:
                raise ValueError("header Content-Length is given twice")
            self._length = int(value)
            return b"" if self._bodiless and self._started[9:12] == b"204" else line
        if lower == "server":
            self._fixed |= 1
        elif lower == "date":
            self._fixed |= 2
        elif len(line) <= 128 and type(name) is str and type(value) is str:
            if len(_lines) >= NAMES:
                _lines.clear()
            _lines[item] = line
        return line

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

    def _put(self, data: bytes) -> None:
        try:
            write_all(self._connection.conn, data, self._connection.server.write_timeout)
        except OSError:
            self.broken = True
            raise

    # ---- the body
    def write(self, data: bytes) -> None:
        """What start_response() gives, and each block of an iterable. Parks."""
        if type(data) is not bytes and not isinstance(data, bytes):
            raise TypeError(f"the body must be made of bytes, not {data!r}")
        size = len(data)
        if not self.head_sent:
            pieces = self._head(None)
            if self._bodiless:
                data = b""
            elif self._chunked:
                if size:
                    pieces += (b"%x\r\n" % size, data, b"\r\n")
            else:
                self._count(size)
                pieces.append(data)
            self.head_sent = True
            self._put(b"".join(pieces))
        elif self._bodiless or not size:
            return
        elif self._chunked:
            self._put(b"".join((b"%x\r\n" % size, data, b"\r\n")))
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
            if not self._bodiless:
                self.sent = len(body)
                if len(body) > SMALL:
                    self._put(b"".join(pieces))
                    self._put(body)
                    return
                pieces.append(body)
            self._put(b"".join(pieces))
            return
        if body:
            self.write(body)
        if self._chunked:
            self._put(b"0\r\n\r\n")
        elif self._left and not self._bodiless:
            raise ValueError(f"the body is {self._left} bytes shorter than Content-Length says, {self._length}")

    def send(self, result: Any) -> None:
        """All that an application returned. Parks."""
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
        written = getattr(e, "written", 0)
        if not written:
            raise
        view = memoryview(data)
        while written:
            view = view[written:]
            try:
                conn.write(view, timeout=timeout)
                return
            except TimeoutError as again:
                written = getattr(again, "written", 0)
                if not written:
                    raise


# ---- a connection -------------------------------------------------------------------------
class Connection:
    """A client's connection: reads its requests, has them answered. In `environ["gort.conn"]`."""

    def __init__(self, server: Server, conn: Stream) -> None:
        self.server = server
        self.conn = conn
        self.sendfile: Any = getattr(conn, "sendfile", None)
        self.goroutine: Goroutine[Any] | None = None
        self.ready: deque[Request] = deque()
        self.fault: tuple[int, str] | None = None
        self._parser: HttpRequestParser | None = HttpRequestParser(self)
        self._base: Environ = {}
        self._request: Request | None = None  # the one that is answered
        self._response: Response | None = None
        self._hijacked = False
        # Of the head that is coming in:
        self._environ: Environ | None = None
        self._url = b""
        self._fields = self._size = 0
        self._head = 0  # bytes of it, counted by whole reads
        self._deadline = 0.0  # when it must be complete
        # The body that is coming in, and the bytes that told nothing of it since it last grew.
        self._body: Input | None = None
        self._idle_bytes = 0
        self._rest: bytes | None = None  # after an upgrade
        self._resumed = False  # the parser reads a head of our making
        self._keeps = server.keep_alive != 0
        self._max_line = server.max_request_line
        self._max_fields = server.max_headers
        self._max_field = server.max_field_size
        self._max_size = server.max_header_size

    # ---- httptools calls these
    def on_url(self, url: bytes) -> None:
        if self._environ is None:
            if self.fault or self._resumed:
                return
            self._environ = self._base.copy()
            self._url = url
        else:
            self._url += url
        if len(self._url) > self._max_line:
            self._refuse(414, "the request's target is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        environ = self._environ
        if environ is None:
            self._trailer()
            return
        size = len(name) + len(value) + 4
        self._fields += 1
        self._size += size
        if self._fields > self._max_fields or size > self._max_field or self._size > self._max_size:
            self._refuse(431, "too many header fields, or too large ones")
            return
        try:
            key = _keys[name]
        except KeyError:
            key = _key(name)
        if key is None:
            return
        text = value.decode("latin-1")
        if key in environ:
            if key in _SINGLE:
                self._refuse(400, f"header {name.decode('latin-1')} is given twice")
                return
            text = f"{environ[key]}{'; ' if key == 'HTTP_COOKIE' else ','}{text}"
        environ[key] = text

    def _trailer(self) -> None:
        """Trailers are not kept."""
        self._fields += 1
        if self._fields > self._max_fields and self.fault is None:
            self.fault = 431, "too many trailer fields"

    def on_headers_complete(self) -> None:
        environ, parser = self._environ, self._parser
        self._fields = self._size = 0
        self._resumed = False
        if environ is None or parser is None:
            return
        self._environ = None
        self._head = 0
        self._deadline = 0.0
        version = parser.get_http_version()
        http11 = version == "1.1"
        if not http11 and version != "1.0":
            self.fault = 505, "HTTP/1.1 and HTTP/1.0 are spoken here"
            return
        environ["SERVER_PROTOCOL"] = "HTTP/1.1" if http11 else "HTTP/1.0"
        environ["REQUEST_METHOD"] = parser.get_method().decode("latin-1")
        self._target(environ)
        if http11 and "HTTP_HOST" not in environ:
            self.fault = 400, "no Host header"
        body = None
        if "CONTENT_LENGTH" in environ or "HTTP_TRANSFER_ENCODING" in environ:
            body = self._body_of(environ, http11)
        if self.fault is not None:
            return
        self._body = body
        environ["wsgi.input"] = NO_BODY if body is None else body
        self.ready.append(Request(environ, body, http11, self._keeps and parser.should_keep_alive()))

    def _target(self, environ: Environ) -> None:
        url = self._url
        environ["RAW_URI"] = environ["REQUEST_URI"] = url.decode("latin-1")
        if not url.startswith(b"/"):
            if environ["REQUEST_METHOD"] == "CONNECT":
                url = b""
            elif url != b"*":  # RFC 9112, 3.2.2: absolute, as to a proxy
                scheme, found, rest = url.partition(b"://")
                if not found or scheme.lower() not in (b"http", b"https"):
                    self.fault = 400, "the request's target is neither a path nor a URL"
                    return
                end = min(i for i in (rest.find(b"/"), rest.find(b"?"), len(rest)) if i >= 0)
                environ["HTTP_HOST"] = rest[:end].rpartition(b"@")[2].decode("latin-1")
                url = rest[end:]
                if not url.startswith(b"/"):
                    url = b"/" + url
        url = url.partition(b"#")[0]
        path, _, query = url.partition(b"?")
        if b"%" in path:
            path = unquote_to_bytes(path)
        environ["PATH_INFO"] = path.decode("latin-1")
        environ["QUERY_STRING"] = query.decode("latin-1")
        if script := environ["SCRIPT_NAME"]:
            info: str = environ["PATH_INFO"]
            if info.startswith(script) and info[len(script) : len(script) + 1] in ("", "/"):
                environ["PATH_INFO"] = info[len(script) :]

    def _body_of(self, environ: Environ, http11: bool) -> Input | None:
        coding = environ.get("HTTP_TRANSFER_ENCODING")
        length = None
        if coding is not None:
            if "CONTENT_LENGTH" in environ or not http11:
                self.fault = 400, "Transfer-Encoding with Content-Length, or in HTTP/1.0"
                return None
            if coding.strip().lower() != "chunked":
                self.fault = 501, "no Transfer-Encoding but chunked is understood"
                return None
        else:
            digits = environ["CONTENT_LENGTH"]
            if not (digits.isascii() and digits.isdigit()):
                self.fault = 400, "Content-Length is not a number"
                return None
            length = int(digits)
            if length == 0:
                return None
            if self.server.max_body is not None and length > self.server.max_body:
                self.fault = 413, "the body is too large"
                return None
        expect = environ.get("HTTP_EXPECT")
        if expect is not None and expect.lower() != "100-continue":
            self.fault = 417, "no expectation but 100-continue is met"
            return None
        return Input(self, length, expect is not None and http11)

    def on_chunk_header(self) -> None:
        self._idle_bytes = 0

    def on_body(self, data: bytes) -> None:
        body = self._body
        if body is None or self.fault is not None:
            return
        self._idle_bytes = 0
        body.expect = False  # it did not wait
        body.received += len(data)
        limit = self.server.max_body
        if limit is not None and body.received > limit:
            self.fault = 413, "the body is too large"
        else:
            body.chunks.append(data)

    def on_message_complete(self) -> None:
        body, self._body = self._body, None
        self._fields = 0
        if body is not None and self.fault is None:
            body.complete = True

    def _refuse(self, status: int, text: str) -> None:
        """Of the head that is coming in."""
        if self.fault is None:
            self.fault = status, text
        self._environ = None

    # ---- reading
    def _parse(self, data: bytes) -> None:
        if self.fault is not None or self._parser is None:
            return
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as e:
            self._upgrade(data[e.args[0] :])
        except HttpParserError as e:
            if self.fault is None:
                self.fault = 400, str(e.__context__ or e) or "malformed request"

    def _upgrade(self, rest: bytes) -> None:
        """The parser has stopped after a head that asks for another protocol."""
        self._parser = None
        if self.fault is not None:
            return
        request = self.ready[-1]
        body = request.body
        self._rest = rest
        if body is None:
            request.upgrade = True
            if request.environ["REQUEST_METHOD"] == "CONNECT":
                request.keep_alive = False  # or the tunnel's bytes would be read as requests
            return
        # It also has a body, of which the parser knows nothing any more. It gets it by a head that asks for nothing.
        body.complete = False
        framing = "Transfer-Encoding: chunked" if body.expected is None else f"Content-Length: {body.expected}"
        self._resume(body, f"POST / HTTP/1.1\r\n{framing}\r\n\r\n".encode())

    def _resume(self, body: Input | None, head: bytes = b"") -> None:
        rest, self._rest = self._rest or b"", None
        self._parser = HttpRequestParser(self)
        self._body = body
        if head:
            self._resumed = True
            self._parse(head)
        self._parse(rest)

    def _next(self) -> Request | None:
        """The next request, None if there is none. Parks. Raises RequestError."""
        while not self.ready:
            if self.fault is not None:
                raise RequestError(*self.fault)
            if self._rest is not None:
                self._resume(None)
            elif not self._read_head():
                return None
        return self.ready.popleft()

    def _read_head(self) -> bool:
        """Read some of a head. False if there is none, and none to be waited for."""
        server = self.server
        started = self._environ is not None or self._head > 0
        try:
            if started:
                if not self._deadline:
                    self._deadline = now() + server.header_timeout
                data = self.conn.read(HEAD_READ, timeout=max(self._deadline - now(), 0.0))
            else:
                timeout = server.header_timeout if self._request is None else server.keep_alive
                data = self.conn.read(HEAD_READ, timeout=timeout, ctx=server.serving)
        except Canceled:  # the server is shutting down; what has come already is served
            try:
                data = self.conn.read(HEAD_READ, timeout=0)
            except OSError:
                return False
        except TimeoutError:
            if started:
                raise RequestError(408, "the head of the request did not come in time") from None
            return False
        except OSError:
            return False
        if not data:
            return False
        self._parse(data)
        if not self.ready and self.fault is None:
            if not started:
                self._deadline = now() + server.header_timeout
            self._head += len(data)
            if self._head > server.max_head:
                self.fault = (431, "the head is too large") if self._environ is not None else (400, "malformed request")
        return True

    def read_body(self, body: Input) -> None:
        """Read some of a body. Parks. Raises RequestError."""
        if self.fault is None:
            if body.expect:
                body.expect = False
                self._continue()
            try:
                data = self.conn.read(BODY_READ, timeout=self.server.body_timeout)
            except TimeoutError:
                self.fault = 408, "the body of the request did not come in time"
            except OSError as e:
                self.fault = 0, f"the client is gone: {e}"
            else:
                if not data:
                    self.fault = 0, "the client is gone: the stream ended within the body"
                self._idle_bytes += len(data)
                self._parse(data)
                if self._idle_bytes > self.server.max_head and not body.complete and self.fault is None:
                    self.fault = 400, "a chunk's head or the trailer is too large"
        if self.fault is not None and not body.complete and not body.chunks:
            raise RequestError(*self.fault)

    def _continue(self) -> None:
        if self._response is None or self._response.head_sent:
            return
        try:
            write_all(self.conn, b"HTTP/1.1 100 Continue\r\n\r\n", self.server.write_timeout)
        except OSError as e:
            self.fault = 0, f"the client is gone: {e}"

    # ---- serving
    def run(self) -> None:
        """Serve the connection to its end."""
        self.goroutine = current()
        try:
            self._base = self.server.environ_of(self)
            while (request := self._next()) is not None:
                self._request = request
                if not self._answer(request):
                    return
        except RequestError as e:
            self._refused(e)
        except Exception:
            self.server.error_log.exception("error on the connection from %s", self.conn.remote_addr)
        finally:
            if not self._hijacked:
                self.conn.close()
            self._parser = self._request = self._response = None
            self._base = {}

    def _answer(self, request: Request) -> bool:
        """Answer a request; whether the connection goes on."""
        server = self.server
        environ = request.environ
        access = server.access
        started = now() if access is not None else 0.0
        response = self._response = Response(self, request)
        good = False
        try:
            result = server.app(environ, response.start_response)
            kind = type(result)
            if kind is list or kind is tuple:
                if not self._hijacked:
                    response.send(result)
                    response.complete = True
            else:
                try:
                    if not self._hijacked:
                        response.send(result)
                        response.complete = True
                finally:
                    if (close := getattr(result, "close", None)) is not None:
                        close()
            good = True
        except RequestError as e:
            self._failed(response, e.status, e, log=not self.fault or self.fault[0] != e.status)
        except (Exception, SystemExit) as e:
            self._failed(response, 500, e, log=not response.broken)
        if access is not None and not self._hijacked:
            self._log(environ, response, now() - started)
        if self._hijacked or not good:
            return False
        body = request.body
        if body is not None and not body.finish():
            self._linger()
            return False
        if response.close:
            if self.ready or request.upgrade or body is not None:
                self._linger()
            return False
        return True

    def _failed(self, response: Response, status: int, error: BaseException, *, log: bool) -> None:
        if log:
            environ = response._request.environ
            line = f"{environ['REQUEST_METHOD']} {environ['RAW_URI']}"
            self.server.error_log.error("error in the answer to %s", line, exc_info=error)
        if self._hijacked:
            return
        if response.complete:
            self._linger()  # it was close() that failed
            return
        if response.broken or response.head_sent or not status:
            self._abort()
            return
        response.status = f"{status} {REASONS[status]}"
        response.headers = []
        head_only = response._request.environ["REQUEST_METHOD"] == "HEAD"
        response.sent = self._say(status, REASONS[status], head_only)

    def _say(self, status: int, text: str, head_only: bool = False) -> int:
        """Answer with a status and a line of text, and no more after that."""
        body = f"{text}\n".encode("latin-1", "replace")
        head = f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        tail = f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        if head_only:
            body = b""
        data = b"".join((head.encode(), self.server.fixed_headers(0), tail.encode(), body))
        try:
            write_all(self.conn, data, self.server.write_timeout)
            self._linger()
        except OSError:
            pass
        return len(body)

    def _refused(self, error: RequestError) -> None:
        """The next request is none."""
        if error.status:
            self.server.error_log.debug("%s from %s: %s", error.status, self.conn.remote_addr, error)
            sent = self._say(error.status, str(error))
            if self.server.access is not None:
                status = f"{error.status} {REASONS[error.status]}"
                self._record(Access({**self._base}, status, [], sent, 0.0))

    def _log(self, environ: Environ, response: Response, seconds: float) -> None:
        self._record(
            Access(environ, response.status or "499 Client Closed Request", response.headers, response.sent, seconds)
        )

    def _record(self, access: Access) -> None:
        try:
            self.server.access(access)  # type: ignore[misc]
        except Exception:
            self.server.error_log.exception("error in the access log")

    # ---- the end
    def _abort(self) -> None:
        """Let the client see that something is missing."""
        try:
            self.conn.set_linger(0)
        except OSError:
            pass
        self.conn.close()

    def _linger(self) -> None:
        """Read on for a while: to close with bytes unread would reset the connection, and what was sent be lost."""
        try:
            self.conn.close_write()
            until = now() + LINGER_SECONDS
            left = LINGER_BYTES
            while left > 0 and (more := until - now()) > 0:
                data = self.conn.read(BODY_READ, timeout=more)
                if not data:
                    return
                left -= len(data)
        except OSError:
            pass

    # ---- for the application
    def hijack(self) -> tuple[Stream, bytes]:
        """Take the connection over: the connection, and what has been read of it after the request's head.

        For protocols that begin with an Upgrade request, as WebSocket, or with CONNECT. To be called by the
        application before it answers; it answers by itself, on the connection, and has to close it. What the
        application returns afterwards is dropped. Does not park. Raises RuntimeError if the request does not ask
        for an upgrade, or has a body.
        """
        request, response = self._request, self._response
        if request is None or response is None or response.head_sent or not request.upgrade or self._rest is None:
            raise RuntimeError("hijack() is for an Upgrade or CONNECT request without a body, once, before its answer")
        self._hijacked = True
        self.server.hijacked(self)
        rest, self._rest = self._rest, None
        return self.conn, rest
