"""What the tests of gort.wsgi share: servers, a client that says exactly what it is told to, parsed answers."""

from __future__ import annotations

import gc
import http.client
import io
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_support import PATIENCE, descriptors, spin_until

import gort
from gort import go, net, wsgi

App = Callable[[dict[str, Any], Any], Any]
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
GET_CLOSE = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
CERTIFICATE = Path(__file__).with_name("wsgi_certificate.pem")  # self-signed, with its key


def hello(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def echo(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return [body]


@contextmanager
def nothing_left() -> Iterator[None]:
    """No goroutine and no descriptor is left of what the block has done."""
    goroutines, before = gort.num_goroutine(), descriptors()
    yield
    spin_until(lambda: gort.num_goroutine() <= goroutines, "goroutines ended")
    gc.collect()
    assert descriptors() <= before + 2, "descriptors left open"  # the poller's own two


@contextmanager
def serving(app: App = hello, address: str = "127.0.0.1:0", **options: Any) -> Iterator[wsgi.Server]:
    """A server that is closed, with all it has started, at the end of the block."""
    with wsgi.Server(app, address, **options) as server:
        g = go(server.serve_forever)
        try:
            yield server
        finally:
            server.close()
            g.join(PATIENCE)


def dial(server: wsgi.Server) -> net.Conn:
    conn = net.dial(server.addr)
    conn.set_deadline(PATIENCE)
    return conn


def read_all(conn: Any) -> bytes:
    pieces = []
    while data := conn.read(65536):
        pieces.append(data)
    return b"".join(pieces)


def talk(server: wsgi.Server, data: bytes) -> bytes:
    """All that a client gets who says `data` and then no more."""
    with dial(server) as conn:
        conn.write(data)
        conn.close_write()
        return read_all(conn)


@dataclass
class Answer:
    status: int
    reason: str
    headers: http.client.HTTPMessage
    body: bytes
    version: int

    def __getitem__(self, name: str) -> str | None:
        return self.headers[name]


class _Answers(io.BytesIO):
    def makefile(self, mode: str) -> Any:
        return self

    def close(self) -> None:
        pass


def answers(data: bytes, *methods: str) -> list[Answer]:
    """The standard library's opinion of a stream of answers; of GET requests, if `methods` does not say otherwise."""
    stream = _Answers(data)
    found: list[Answer] = []
    while stream.tell() < len(data):
        method = methods[len(found)] if len(found) < len(methods) else "GET"
        response = http.client.HTTPResponse(stream, method=method)  # type: ignore[arg-type]
        response.begin()
        found.append(Answer(response.status, response.reason, response.headers, response.read(), response.version))
    return found


def answer(data: bytes, method: str = "GET") -> Answer:
    (one,) = answers(data, method)
    return one


def get(server: wsgi.Server, path: str = "/", *headers: str, method: str = "GET") -> Answer:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *headers, "", ""]
    return answer(talk(server, "\r\n".join(lines).encode("latin-1")), method)


def read_answer(conn: Any, method: str = "GET") -> Answer:
    """One answer of a connection that stays open; nothing after it may have come."""
    data = b""
    while True:
        piece = conn.read(65536)
        if not piece:
            raise EOFError(f"the connection ended after {data!r}")
        data += piece
        if b"\r\n\r\n" in data:
            try:
                return answer(data, method)
            except http.client.IncompleteRead:
                pass


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


def client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
