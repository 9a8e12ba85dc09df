"""A WSGI server: HTTP/1.1 on gort.net, a goroutine a connection. PEP 3333; httptools parses.

    from gort import wsgi

    wsgi.serve(app, "127.0.0.1:8000")

An application may wait in any way: what parks in gort lets the others go on, and what blocks in C is handed off.
`python -m gort.wsgi module:app --bind :8000` serves from the command line, `gort.gunicorn` is a worker for gunicorn.
docs/wsgi.md has the options.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from gort import net
from gort._core._runtime import Chan, Goroutine, WaitGroup, current, go, sleep
from gort._http import Connection
from gort._wsgi import Access, FileWrapper, Input, RequestError, header_line
from gort.context import Canceled, background, with_cancel
from gort.sync import Semaphore
from gort.time import now as monotonic

if TYPE_CHECKING:
    import ssl

    from _typeshed.wsgi import WSGIApplication

    from gort._wsgi import Stream

__all__ = ["Access", "Connection", "FileWrapper", "Input", "RequestError", "Server", "serve"]

_ACCEPT_PAUSE = 0.05  # seconds after an accept that failed for no reason we know


def _number(name: str, value: Any, least: float, none: float | None) -> Any:
    """A limit or a number of seconds; None means `none`."""
    if value is None:
        return none
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number or None, not {value!r}")
    if not value >= least:
        raise ValueError(f"{name} must be at least {least}, not {value!r}")
    return value


class Server:
    """Listens from its making on; `serve_forever()` serves the application, until `shutdown()` or `close()`.

    address: as `gort.net.listen()` takes it, or several of them; or `net.Listener`s, which are the server's then
    ssl_context: an `ssl.SSLContext` with a certificate: HTTPS
    backlog, reuse_port: as `gort.net.listen()` takes them
    max_connections: that are served at once; further ones wait to be accepted
    keep_alive: seconds that a connection waits for its next request; 0: a request a connection
    header_timeout: seconds for a request's head, from its first byte on, and for a new connection's first byte
    body_timeout: seconds that a read of the body waits for some of it
    write_timeout: seconds within which the client has to take some of the answer
    max_request_line: bytes of the request's target (414)
    max_headers, max_field_size, max_header_size: header fields, bytes of one and of all together (431)
    max_body: bytes of a request's body (413)
    access_log: a `logging.Logger`, which gets a line of the combined format for each request, or a function of an
        `Access`
    error_log: a `logging.Logger`, by default "gort.wsgi"
    errors: `wsgi.errors`, by default sys.stderr
    environ: more for each request's environ, as SCRIPT_NAME
    server_header: the Server header's value; None: no such header

    None for a limit or a time means that there is none. Raises OSError if it cannot listen, ValueError or TypeError
    for a bad argument. Use it as a context manager, or close it.
    """

    def __init__(
        self,
        app: WSGIApplication,
        address: str | net.Listener | Iterable[str | net.Listener] = "127.0.0.1:8000",
        *,
        ssl_context: ssl.SSLContext | None = None,
        backlog: int = 1024,
        reuse_port: bool = False,
        max_connections: int | None = None,
        keep_alive: float | None = 5.0,
        header_timeout: float | None = 30.0,
        body_timeout: float | None = 30.0,
        write_timeout: float | None = 30.0,
        max_request_line: int | None = 8190,
        max_headers: int | None = 100,
        max_field_size: int | None = 8190,
        max_header_size: int | None = 65536,
        max_body: int | None = None,
        access_log: logging.Logger | Callable[[Access], object] | None = None,
        error_log: logging.Logger | None = None,
        errors: Any = None,
        environ: Mapping[str, Any] | None = None,
        server_header: str | None = "gort",
    ) -> None:
        if not callable(app):
            raise TypeError(f"app must be callable, not {app!r}")
        if ssl_context is not None and not hasattr(ssl_context, "wrap_bio"):
            raise TypeError(f"ssl_context must be an ssl.SSLContext, not {ssl_context!r}")
        if access_log is not None and not callable(access_log) and not isinstance(access_log, logging.Logger):
            raise TypeError(f"access_log must be a logging.Logger or callable, not {access_log!r}")
        if environ is not None and not isinstance(environ, Mapping):
            raise TypeError(f"environ must be a mapping or None, not {environ!r}")
        self.app: Callable[..., Any] = app
        self.keep_alive: float | None = _number("keep_alive", keep_alive, 0, None)
        self.header_timeout: float = _number("header_timeout", header_timeout, 0, math.inf)
        self.body_timeout: float | None = _number("body_timeout", body_timeout, 0, None)
        self.write_timeout: float | None = _number("write_timeout", write_timeout, 0, None)
        self.max_request_line: int = _number("max_request_line", max_request_line, 1, sys.maxsize)
        self.max_headers: int = _number("max_headers", max_headers, 1, sys.maxsize)
        self.max_field_size: int = _number("max_field_size", max_field_size, 1, sys.maxsize)
        self.max_header_size: int = _number("max_header_size", max_header_size, 1, sys.maxsize)
        self.max_body: int | None = _number("max_body", max_body, 0, None)
        connections = _number("max_connections", max_connections, 1, None)
        self.error_log = logging.getLogger("gort.wsgi") if error_log is None else error_log
        self.access = _access(access_log)
        self.closing = False
        self.max_head = self.max_request_line + self.max_header_size + 1024
        self._context = ssl_context
        self._errors = errors
        self._slots = None if connections is None else Semaphore(connections)
        self._second = 0
        self._started = False
        self._server_line = b"" if server_header is None else header_line("Server", server_header)
        self._fixed: tuple[bytes, ...] = ()
        self._base: dict[str, Any] = {
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http" if ssl_context is None else "https",
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.input_terminated": True,
            "SERVER_SOFTWARE": "gort",
            "SCRIPT_NAME": "",
            **({} if environ is None else environ),
        }
        # Cancelled when the server shuts down; who waits for a request waits with it.
        self.serving, self._stop_serving = with_cancel(background())
        self._active: dict[Goroutine[Any], net.Conn | None] = {}  # goroutines of connections; None: hijacked
        self._closed = False
        self._running = WaitGroup()  # connections
        self._accepting = WaitGroup()  # a goroutine for each listener
        self._listeners = _listeners(address, backlog, reuse_port)

    @property
    def addr(self) -> net.Addr:
        """Where it listens; the first address, if there are several."""
        return self._listeners[0].addr

    @property
    def addrs(self) -> list[net.Addr]:
        """Where it listens."""
        return [listener.addr for listener in self._listeners]

    @property
    def connections(self) -> int:
        """How many connections are served."""
        return len(self._active)

    # ---- serving
    def serve_forever(self) -> None:
        """Accept connections and serve them, until `shutdown()` or `close()` has ended the last one. Parks.

        An exception that ends it, as KeyboardInterrupt, leaves the server serving. Raises RuntimeError if it is
        called twice.
        """
        if self._started:
            raise RuntimeError("serve_forever() has been called already")
        self._started = True
        for listener in self._listeners:
            self._accepting.go(self._accept, listener)
        self._accepting.wait()
        self._running.wait()

    def _accept(self, listener: net.Listener) -> None:
        slots = self._slots
        while True:
            try:
                if slots is not None:
                    slots.acquire(ctx=self.serving)
                try:
                    conn = listener.accept()
                except BaseException:
                    if slots is not None:
                        slots.release()
                    raise
            except (net.ErrClosed, Canceled):
                return
            except OSError:
                if self.closing:
                    return
                self.error_log.exception("cannot accept at %s", listener.addr)
                sleep(_ACCEPT_PAUSE)
                continue
            try:
                self._running.go(self._serve, conn)
            except BaseException:
                conn.close()
                if slots is not None:
                    slots.release()
                self.error_log.exception("no goroutine for the connection from %s", conn.remote_addr)

    def _serve(self, conn: net.Conn) -> None:
        g = current()
        assert g is not None
        self._active[g] = conn
        try:
            if self._closed:
                return
            if self._context is None:
                Connection(self, conn).run()
            elif (stream := self._tls(conn)) is not None:
                Connection(self, stream).run()
        finally:
            if self._active.pop(g) is not None:
                conn.close()
            if self._slots is not None:
                self._slots.release()

    def _tls(self, conn: net.Conn) -> Stream | None:
        from gort._tls import Tls

        assert self._context is not None
        try:
            stream = Tls(conn, self._context, server_side=True)
            stream.handshake(timeout=self.header_timeout)
        except OSError as e:
            self.error_log.debug("no TLS with %s: %s", conn.remote_addr, e)
            return None
        return stream

    def shutdown(self, timeout: float | None = None) -> bool:
        """Stop accepting, let the requests that have begun be answered, close the connections that wait. Parks.

        After `timeout` seconds what is left is cut off, as `close()` does. Returns whether nothing was left. A
        request that calls it waits for itself.
        """
        seconds = _number("timeout", timeout, -math.inf, None)
        self.closing = True
        self._stop_serving()
        for listener in self._listeners:
            listener.close()
        until = None if seconds is None else monotonic() + seconds
        try:
            for group in (self._accepting, self._running):
                group.wait(None if until is None else max(until - monotonic(), 0.0))
        except TimeoutError:
            self.close()
            return False
        self.close()
        return True

    def close(self) -> None:
        """Stop at once: close all connections and kill their goroutines. Does not park.

        Hijacked connections belong to the application, and stay open.
        """
        self.closing = self._closed = True
        self._stop_serving()
        for listener in self._listeners:
            listener.close()
        me = current()
        for g, conn in list(self._active.items()):
            if conn is not None:
                conn.close()
            if g is not me:
                g.kill()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "closing" if self.closing else "serving" if self._started else "open"
        return f"<Server {state} {', '.join(self.addrs)} connections={self.connections}>"

    # ---- what connections ask for
    def hijacked(self, connection: Connection) -> None:
        """The application has taken it over."""
        if connection.goroutine in self._active:
            self._active[connection.goroutine] = None

    def environ_of(self, connection: Connection) -> dict[str, Any]:
        """What the environs of a connection's requests have in common."""
        conn = connection.conn
        local, remote = conn.local_addr, conn.remote_addr
        environ = self._base.copy()
        environ["wsgi.errors"] = sys.stderr if self._errors is None else self._errors
        environ["gort.conn"] = connection
        if local.startswith("unix:"):
            environ["SERVER_NAME"] = "localhost"
            environ["SERVER_PORT"] = "80" if self._context is None else "443"
            environ["REMOTE_ADDR"] = ""
        else:
            environ["SERVER_NAME"] = local.host
            environ["SERVER_PORT"] = str(local.port)
            environ["REMOTE_ADDR"] = "" if remote is None else remote.host
            environ["REMOTE_PORT"] = "" if remote is None else str(remote.port)
        return environ

    def fixed_headers(self, given: int) -> bytes:
        """Server and Date, without those the application has given (1: Server, 2: Date)."""
        second = int(time.time())
        if second != self._second:
            date = f"Date: {formatdate(second, usegmt=True)}\r\n".encode()
            self._fixed = self._server_line + date, date, self._server_line, b""
            self._second = second
        return self._fixed[given]


def _access(log: Any) -> Callable[[Access], object] | None:
    if isinstance(log, logging.Logger):
        logger = log
        return lambda access: logger.info("%s", access.combined())
    return log  # type: ignore[no-any-return]


def _listeners(address: Any, backlog: int, reuse_port: bool) -> list[net.Listener]:
    if not isinstance(address, (str, net.Listener, Iterable)):
        raise TypeError(f"address must be a str, a net.Listener or several of them, not {address!r}")
    many = [address] if isinstance(address, (str, net.Listener)) else list(address)
    if not many:
        raise ValueError("address must be at least one")
    made: list[net.Listener] = []
    try:
        for one in many:
            if isinstance(one, net.Listener):
                made.append(one)
            else:
                made.append(net.listen(one, backlog=backlog, reuse_port=reuse_port))
    except BaseException:
        for listener in made:
            listener.close()
        raise
    return made


def serve(
    app: WSGIApplication,
    address: str | net.Listener | Iterable[str | net.Listener] = "127.0.0.1:8000",
    *,
    graceful_timeout: float | None = 30.0,
    **options: Any,
) -> None:
    """Serve a WSGI application until Ctrl-C, then let requests end within `graceful_timeout` seconds. Parks.

    For the options see `Server`.
    """
    with Server(app, address, **options) as server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            server.shutdown(graceful_timeout)


# ---- the command line ------------------------------------------------------------------
def load(name: str) -> Any:
    """The application that `module:attribute` names; `module:attribute()` calls for it. Raises ValueError."""
    module, colon, attribute = name.partition(":")
    if not colon:
        attribute = "application"
    call = attribute.endswith("()")
    if not module or not attribute.removesuffix("()"):
        raise ValueError(f"an application is named module:attribute, not {name!r}")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as e:
        if e.name is None or not f"{module}.".startswith(f"{e.name}."):
            raise RuntimeError(f"{module!r} cannot be imported") from e  # what it imports is missing
        raise ValueError(f"there is no module {module!r}: {e}") from None
    for part in attribute.removesuffix("()").split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ValueError(f"there is no {attribute!r} in {module!r}") from None
    if call:
        try:
            inspect.signature(found).bind()
        except TypeError as e:
            raise ValueError(f"{name!r} cannot be called without arguments: {e}") from None
        except ValueError:
            pass  # it has no signature
        found = found()
    if not callable(found):
        raise ValueError(f"{name!r} is no application: {found!r} cannot be called")
    return found


def _limit(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        return None if text == "none" else kind(text)

    parse.__name__ = kind.__name__
    return parse


_SECONDS = {
    "keep_alive": "a connection waits so long for its next request; 0: a request a connection",
    "header_timeout": "for a request's head",
    "body_timeout": "for some more of the body",
    "write_timeout": "for the client to take some of the answer",
}
_LIMITS = {
    "max_connections": "connections served at once",
    "max_request_line": "bytes of the request's target",
    "max_headers": "header fields",
    "max_field_size": "bytes of a header field",
    "max_header_size": "bytes of all header fields",
    "max_body": "bytes of a request's body",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gort.wsgi", description="Serve a WSGI application.")
    parser.add_argument("app", help="module:attribute; module:factory() calls for it")
    parser.add_argument(
        "-b", "--bind", action="append", metavar="ADDRESS", help="host:port, :port or unix:/path; again for more"
    )
    parser.add_argument("--chdir", metavar="DIR", help="change to this directory first")
    parser.add_argument("--certfile", help="PEM file of the certificate: HTTPS")
    parser.add_argument("--keyfile", help="PEM file of its key, if it is not in the same file")
    parser.add_argument("--access-log", metavar="FILE", help="the access log, - for standard output")
    parser.add_argument(
        "--graceful-timeout",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="what runs at a signal has so long to end (default: %(default)g)",
    )
    parser.add_argument(
        "--backlog", type=int, default=1024, metavar="N", help="connections not yet accepted (default: %(default)s)"
    )
    parser.add_argument("--reuse-port", action="store_true", help="let other processes listen on the same port")
    defaults = inspect.signature(Server).parameters
    for kind, metavar, options in ((float, "SECONDS", _SECONDS), (int, "N", _LIMITS)):
        for name, text in options.items():
            default = defaults[name].default
            parser.add_argument(
                f"--{name.replace('_', '-')}",
                type=_limit(kind),
                metavar=metavar,
                default=argparse.SUPPRESS,
                help=f"{text} (default: {'none' if default is None else format(default, 'g')})",
            )
    return parser


def main(args: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = _parser()
    options = vars(parser.parse_args(args))
    if (chdir := options.pop("chdir")) is not None:
        os.chdir(chdir)
    sys.path.insert(0, os.getcwd())
    binds = options.pop("bind") or ["127.0.0.1:8000"]
    graceful = options.pop("graceful_timeout")
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    try:
        app = load(options.pop("app"))
        options["access_log"] = _access_logger(options.pop("access_log"))
        certfile, keyfile = options.pop("certfile"), options.pop("keyfile")
        if keyfile is not None and certfile is None:
            parser.error("--keyfile needs --certfile")
        options["ssl_context"] = _ssl_context(certfile, keyfile)
        server = Server(app, binds, **options)
    except (OSError, TypeError, ValueError) as e:
        parser.exit(1, f"{parser.prog}: {e}\n")
    stop: Chan[None] = Chan()

    def ask(number: int, frame: object) -> None:
        if stop.closed:
            raise SystemExit(128 + number)  # they insist
        stop.close()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    with server:
        go(server.serve_forever)
        server.error_log.info("serving at %s", ", ".join(server.addrs))
        stop.recv_ok()
        server.error_log.info("shutting down")
        if not server.shutdown(graceful):
            server.error_log.warning("some requests did not end within %s s", graceful)
    return 0


def _ssl_context(certfile: str | None, keyfile: str | None) -> ssl.SSLContext | None:
    if certfile is None:
        return None
    import ssl

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certfile, keyfile)
    except OSError as e:  # it does not say which file
        raise OSError(f"no certificate and key in {certfile!r}{f' and {keyfile!r}' if keyfile else ''}: {e}") from None
    return context


def _access_logger(path: str | None) -> logging.Logger | None:
    if path is None:
        return None
    logger = logging.getLogger("gort.wsgi.access")
    handler = logging.StreamHandler(sys.stdout) if path == "-" else logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.propagate = False
    return logger


if __name__ == "__main__":
    sys.exit(main())
