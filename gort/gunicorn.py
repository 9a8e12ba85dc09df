"""A worker for gunicorn whose requests are goroutines: `gunicorn -k gort.gunicorn.Worker module:app`.

The worker process serves gunicorn's listening sockets with a `gort.wsgi.Server`; gunicorn's settings apply as with
its gevent worker, see docs/wsgi.md. In the worker `gort.monkey.patch_all()` makes the standard library cooperative,
before the application is loaded (with `--preload` after that, which it is made for).
"""

from __future__ import annotations

import ipaddress
import itertools
import logging
import os
import sys
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from gunicorn.glogging import Logger
from gunicorn.http.wsgi import FileWrapper, WSGIErrorsWrapper
from gunicorn.sock import ssl_context
from gunicorn.workers.base import Worker as _Base

from gort import net
from gort._core._runtime import Chan, ChanClosed, go
from gort.wsgi import Access, Server

__all__ = ["Worker"]

_HEARTBEAT = 1.0  # seconds


class _Request:
    """A request as gunicorn's hooks and loggers know it."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self.method = environ.get("REQUEST_METHOD", "-")
        self.uri = environ.get("RAW_URI", "-")
        self.path = environ.get("PATH_INFO", "-")
        self.query = environ.get("QUERY_STRING", "")
        self.fragment = ""
        self.scheme = environ.get("wsgi.url_scheme", "http")
        self.version = (1, 0) if environ.get("SERVER_PROTOCOL") == "HTTP/1.0" else (1, 1)
        self.remote_addr = (environ.get("REMOTE_ADDR", ""), environ.get("REMOTE_PORT", ""))
        self.headers = [(k[5:].replace("_", "-"), v) for k, v in environ.items() if k.startswith("HTTP_")]
        for key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            if key in environ:
                self.headers.append((key.replace("_", "-"), environ[key]))


class _Response:
    """An answer as gunicorn's hooks and loggers know it."""

    def __init__(self, access: Access) -> None:
        self.status = access.status
        self.headers = access.headers
        self.sent = self.response_length = access.sent
        self.headers_sent = True

    @property
    def status_code(self) -> int:
        return int(self.status[:3])


class Worker(_Base):  # type: ignore[misc]
    """gunicorn's worker with goroutines."""

    alive: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.worker_connections: int = self.cfg.worker_connections
        self.server: Server | None = None
        self._over: Chan[None] | None = None  # closed when the worker is to end

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """gunicorn calls it before it starts workers."""
        if getattr(cfg, "proxy_protocol", False) not in (False, "off"):
            log.warning("the gort worker does not know the PROXY protocol: proxy_protocol is ignored")

    # ---- the process
    def init_process(self) -> None:
        """Begin, in the new process."""
        self._over = Chan()
        try:
            from gort import monkey  # type: ignore[attr-defined, unused-ignore]
        except ImportError:
            pass
        else:
            monkey.patch_all()
        super().init_process()

    def run(self) -> None:
        """Serve until gunicorn says otherwise."""
        assert self._over is not None
        self.server = server = self._server()
        with server:
            serving = go(server.serve_forever)
            while self.alive and not serving.done:
                self._beat()
                try:
                    self._over.recv_ok(self._interval())
                except TimeoutError:
                    pass
            self.alive = False
            ending = go(server.shutdown, self.cfg.graceful_timeout)
            while True:
                try:
                    all_ended = ending.join(self._interval())
                    break
                except TimeoutError:
                    self._beat()
            if not all_ended:
                self.log.warning("Worker graceful timeout (pid:%s)", self.pid)
            if serving.done:
                serving.join()

    def _interval(self) -> float:
        return min(_HEARTBEAT, self.timeout / 2) if self.timeout else _HEARTBEAT

    def _beat(self) -> None:
        self.notify()
        if self.alive and self.ppid != os.getppid():
            self.log.info("Parent changed, shutting down: %s", self)
            self.alive = False

    def _end(self) -> None:
        """Leave the loop of run()."""
        self.alive = False
        if self._over is not None:
            try:
                self._over.close()
            except ChanClosed:
                pass

    # ---- signals
    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM: answer what has begun, then end."""
        self._end()

    def handle_quit(self, sig: int, frame: Any) -> None:
        """SIGINT, SIGQUIT: end at once."""
        self._end()
        self.cfg.worker_int(self)
        sys.exit(0)

    # ---- the server
    def _server(self) -> Server:
        cfg = self.cfg
        listeners: list[str | net.Listener] = []
        try:
            for sock in self.sockets:
                fd = os.dup(sock.fileno())
                try:
                    listeners.append(net.listen_fd(fd))
                except BaseException:
                    os.close(fd)
                    raise
            fields, field = cfg.limit_request_fields or None, cfg.limit_request_field_size or None
            return Server(
                self._app(),
                listeners,
                ssl_context=ssl_context(cfg) if cfg.is_ssl else None,
                max_connections=self.worker_connections,
                keep_alive=cfg.keepalive or 0,
                max_request_line=cfg.limit_request_line or None,
                max_headers=fields,
                max_field_size=None if field is None else field + 4,
                max_header_size=None if field is None or fields is None else fields * (field + 4),
                access_log=self._access(),
                error_log=logging.getLogger("gunicorn.error"),
                errors=WSGIErrorsWrapper(cfg),
                environ={
                    "wsgi.multiprocess": cfg.workers > 1,
                    "SERVER_SOFTWARE": "gunicorn",
                    "SCRIPT_NAME": os.environ.get("SCRIPT_NAME", ""),
                    **({"wsgi.file_wrapper": FileWrapper} if cfg.sendfile is False else {}),
                },
                server_header="gunicorn",
            )
        except BaseException:
            for listener in listeners:
                if isinstance(listener, net.Listener):
                    listener.close()
            raise

    def _app(self) -> Callable[..., Iterable[bytes]]:
        """The application, and what gunicorn does around each call of it."""
        app, scheme, before = self.wsgi, self._scheme, self._hook("pre_request")
        secure = {"HTTP_" + k.upper().replace("-", "_"): v for k, v in self.cfg.secure_scheme_headers.items()}
        calls = itertools.count(1)
        if before is None and self.log.error_log.isEnabledFor(logging.DEBUG):
            before = self.cfg.pre_request

        def call(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            self.nr = n = next(calls)
            if n == self.max_requests and self.alive:
                self.log.info("Autorestarting worker after current request.")
                self._last()
            for key in secure:
                if key in environ and not scheme(environ, secure):
                    start_response("400 Bad Request", [("Content-Type", "text/plain")])
                    return [b"Contradictory scheme headers\n"]
            if before is not None:
                before(self, _Request(environ))
            result: Iterable[bytes] = app(environ, start_response)
            return result

        return call

    def _last(self) -> None:
        assert self.server is not None
        self.server.closing = True  # this answer, and all after it, close their connections
        self._end()

    def _scheme(self, environ: dict[str, Any], secure: dict[str, str]) -> bool:
        """Believe a trusted proxy's headers about https; False if they contradict each other."""
        if self._trusts(environ["REMOTE_ADDR"]):
            says = {environ[key] == value for key, value in secure.items() if key in environ}
            if len(says) > 1:
                return False
            environ["wsgi.url_scheme"] = "https" if says == {True} else "http"
        return True

    def _trusts(self, address: str) -> bool:
        allowed: list[str] = self.cfg.forwarded_allow_ips
        if not address or "*" in allowed or address in allowed:  # a Unix socket's peers have no address
            return True
        try:
            ip = ipaddress.ip_address(address)
            return any(ip in ipaddress.ip_network(text, strict=False) for text in allowed if "/" in text)
        except ValueError:
            return False

    def _hook(self, name: str) -> Callable[..., Any] | None:
        """A hook of gunicorn's configuration, if it has been set."""
        setting = self.cfg.settings[name]
        function = setting.get()
        default = setting.default
        if function is default or getattr(function, "__code__", 0) is getattr(default, "__code__", 1):
            return None
        return getattr(self.cfg, name)  # type: ignore[no-any-return]

    def _access(self) -> Callable[[Access], None] | None:
        """What is done when a request is over: gunicorn's access log, and its hook."""
        cfg, log, after = self.cfg, self.log, self._hook("post_request")
        plain = type(log) is Logger
        logs = not plain or cfg.accesslog or cfg.logconfig or cfg.logconfig_dict or getattr(cfg, "logconfig_json", None)
        if not logs and not (cfg.syslog and not cfg.disable_redirect_access_to_syslog):
            log = None
        if log is None and after is None:
            return None

        def over(access: Access) -> None:
            environ = access.environ
            environ.setdefault("REQUEST_METHOD", "-")
            environ.setdefault("RAW_URI", "-")
            environ.setdefault("SERVER_PROTOCOL", "-")
            request, response = _Request(environ), _Response(access)
            if log is not None:
                log.access(response, request, environ, timedelta(seconds=access.seconds))
            if after is not None:
                after(self, request, environ, response)

        return over
