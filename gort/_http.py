"""HTTP/1.1 for gort.wsgi: what a connection reads, and what it answers. RFC 9110, RFC 9112, PEP 3333.

A `Connection` belongs to one goroutine, which reads requests, calls the application and answers, one after the
other. httptools parses; its callbacks put requests on `ready`, for one read may bring several (pipelining), and
pieces of a body into its `Input`. Nothing is read from the client but when somebody waits for it: the goroutine for
the next head, or the application for more of a body.

What is wrong with a request becomes `fault`, and nothing after it is looked at. It is answered when all the requests
before it are, and that ends the connection: past a mistake nobody knows where the next request begins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from gort._core._runtime import current
from gort._wsgi import NAMES, NO_BODY, Access, Environ, Input, RequestError, Response, Stream, write_all
from gort.context import Canceled
from gort.time import now

try:
    from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser
except ImportError as e:
    raise ImportError("gort.wsgi parses HTTP with httptools: pip install 'gort[wsgi]', or pip install httptools") from e

if TYPE_CHECKING:
    from gort._core._runtime import Goroutine
    from gort.wsgi import Server

HEAD_READ = 16384  # bytes of one read that waits for a request; bounds what pipelining can pile up
BODY_READ = 65536
# Seconds that a connection waits for a request on its way when the server shuts down: an idle one, and a new one, whose
# client has reason to expect an answer (Go's http.Server gives it five).
LAST_LOOK = 0.01
FIRST_LOOK = 1.0
LINGER_SECONDS = 1.0  # that a refused client may go on sending, lest the refusal be lost to a reset
LINGER_BYTES = 4 << 20

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


# ---- a connection -------------------------------------------------------------------------
class Connection:
    """A client's connection: reads its requests, has them answered. In `environ["gort.conn"]`."""

    __slots__ = (
        "_base",
        "_body",
        "_deadline",
        "_environ",
        "_fields",
        "_fresh",
        "_head",
        "_hijacked",
        "_idle_bytes",
        "_keeps",
        "_max_field",
        "_max_fields",
        "_max_line",
        "_max_size",
        "_parser",
        "_request",
        "_response",
        "_rest",
        "_resumed",
        "_size",
        "_url",
        "conn",
        "fault",
        "goroutine",
        "ready",
        "sendfile",
        "server",
    )

    def __init__(self, server: Server, conn: Stream) -> None:
        self.server = server
        self.conn = conn
        self.sendfile: Any = getattr(conn, "sendfile", None)
        self.goroutine: Goroutine[Any] | None = None
        self.ready: list[Request] = []
        self.fault: tuple[int, str] | None = None
        self._parser: HttpRequestParser | None = HttpRequestParser(self)
        self._base: Environ = {}
        self._request: Request | None = None  # the one that is answered
        self._response: Response | None = None
        self._fresh = True  # no request has come yet
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
        target = environ["RAW_URI"] = environ["REQUEST_URI"] = url.decode("latin-1")
        if target[0] == "/" and "%" not in target and "#" not in target and not environ["SCRIPT_NAME"]:
            environ["PATH_INFO"], _, environ["QUERY_STRING"] = target.partition("?")
            return
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
        except HttpParserCallbackError as e:
            self.server.error_log.error("a request could not be read", exc_info=e.__context__)
            self.fault = 500, REASONS[500]
        except HttpParserError as e:
            if self.fault is None:
                self.fault = 400, str(e) or "malformed request"

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
        return self.ready.pop(0)

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
                timeout = server.header_timeout if self._fresh else server.keep_alive
                data = self.conn.read(HEAD_READ, timeout=timeout, ctx=server.serving)
        except Canceled:  # the server is shutting down; what has come already is served
            data = self._look(FIRST_LOOK if self._fresh else LAST_LOOK)
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

    def _look(self, timeout: float) -> bytes:
        """What comes within this time; b"" if nothing does."""
        for wait in (timeout, 0.0):  # the second time for what came as late as the process itself
            try:
                return self.conn.read(HEAD_READ, timeout=wait)
            except TimeoutError:
                pass
            except OSError:
                break
        return b""

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

    def blame(self, request: Request) -> None:
        """A framework answers 500 where a read of the body failed: raise that, a RequestError, which says more."""
        body = request.body
        if self.fault is not None and body is not None and not body.complete:
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
            while self._serve_one():
                pass
        except RequestError as e:
            self._refused(e)
        except Exception:
            self.server.error_log.exception("error on the connection from %s", self.conn.remote_addr)
        finally:
            if not self._hijacked:
                self.conn.close()
            self._parser = None
            self._base = {}

    def _serve_one(self) -> bool:
        """Have the next request answered; whether the connection goes on. Nothing of it is kept."""
        request = self._request = self._next()
        if request is None:
            return False
        self._fresh = False
        try:
            return self._answer(request)
        finally:
            self._request = self._response = None

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
        if status and status not in REASONS:  # a RequestError of the application's own making
            status = 500
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
