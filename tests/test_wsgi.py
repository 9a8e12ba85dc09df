"""gort.wsgi: requests, answers, bodies, limits, shutdown. What goes wrong on purpose is in test_wsgi_faults.py."""

from __future__ import annotations

import gzip
import http.client
import io
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest
from model_support import EVERYWHERE, PATIENCE, park, program_env, settle, spin_until

import gort
from gort import go, net, wsgi

pytest.importorskip("httptools", reason="httptools is not installed: gort.wsgi is NOT TESTED")

from wsgi_support import (
    CERTIFICATE,
    GET,
    GET_CLOSE,
    answer,
    answers,
    client_context,
    dial,
    echo,
    get,
    hello,
    nothing_left,
    read_all,
    read_answer,
    server_context,
    serving,
    talk,
)


@pytest.fixture(autouse=True)
def leaves_nothing() -> Iterator[None]:
    with nothing_left():
        yield


@pytest.fixture
def errors(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "gort.wsgi")
    return caplog


def tracebacks(log: pytest.LogCaptureFixture) -> list[str]:
    return [repr(r.exc_info[1]) for r in log.records if r.exc_info and r.exc_info[1]]


# ---- a request and its answer --------------------------------------------------------


def test_hello() -> None:
    with serving() as server:
        data = talk(server, GET)
    head, _, body = data.partition(b"\r\n\r\n")
    assert body == b"hello"
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 200 OK"
    assert re.fullmatch(r"Date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", lines[2])
    assert [lines[1], *lines[3:]] == ["Server: gort", "Content-Type: text/plain", "Content-Length: 5"]


@pytest.mark.parametrize("where", EVERYWHERE)
def test_it_serves_from_everywhere(where: Any) -> None:
    """The client and the server's life are in the main goroutine, in another one, or in a plain thread."""

    def life() -> bytes:
        with wsgi.Server(hello, "127.0.0.1:0") as server:
            go(server.serve_forever)
            data = talk(server, GET)
            assert server.shutdown(PATIENCE)
            return data

    assert answer(where(life)).body == b"hello"


def environ_of(server_options: dict[str, Any], request: bytes) -> dict[str, Any]:
    seen: list[dict[str, Any]] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append(environ)
        return hello(environ, start_response)

    with serving(app, **server_options) as server:
        assert answer(talk(server, request)).status == 200
        seen[0]["port"] = str(server.addr.port)
    return seen[0]


def test_environ() -> None:
    stderr = io.StringIO()
    environ = environ_of(
        {"errors": stderr},
        b"PATCH /a%20b/%C3%A9%2F?q=%20&x HTTP/1.1\r\nHost: example.org:80\r\nX-Many: 1\r\ncontent-type: text/x\r\n"
        b"x-many: 2\r\nCookie: a=1\r\nCookie: b=2\r\nContent-Length: 0\r\nX-Latin: \xe9\r\nX-Empty:\r\n\r\n",
    )
    port = environ.pop("port")
    assert environ.pop("REMOTE_PORT").isdigit()
    assert type(environ) is dict
    assert environ.pop("wsgi.input").read() == b""
    assert environ.pop("wsgi.errors") is stderr
    assert isinstance(environ.pop("gort.conn"), wsgi.Connection)
    assert environ == {
        "REQUEST_METHOD": "PATCH",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a b/\xc3\xa9/",
        "QUERY_STRING": "q=%20&x",
        "RAW_URI": "/a%20b/%C3%A9%2F?q=%20&x",
        "REQUEST_URI": "/a%20b/%C3%A9%2F?q=%20&x",
        "CONTENT_TYPE": "text/x",
        "CONTENT_LENGTH": "0",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "gort",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "example.org:80",
        "HTTP_X_MANY": "1,2",
        "HTTP_COOKIE": "a=1; b=2",
        "HTTP_X_LATIN": "\xe9",
        "HTTP_X_EMPTY": "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": wsgi.FileWrapper,
        "wsgi.input_terminated": True,
    }


def test_errors_go_to_stderr_by_default() -> None:
    assert environ_of({}, GET)["wsgi.errors"] is sys.stderr


def test_headers_with_an_underscore_are_dropped() -> None:
    """X_Real_Ip must not pass for X-Real-Ip, which a proxy sets."""
    environ = environ_of({}, b"GET / HTTP/1.1\r\nHost: x\r\nX-Real-Ip: 1\r\nX_Real_Ip: 2\r\nX_Other: 3\r\n\r\n")
    assert environ["HTTP_X_REAL_IP"] == "1"
    assert "HTTP_X_OTHER" not in environ


@pytest.mark.parametrize(
    ("target", "path", "query", "host"),
    [
        ("/", "/", "", "x"),
        ("/?", "/", "", "x"),
        ("//a//b", "//a//b", "", "x"),
        ("/a?b?c", "/a", "b?c", "x"),
        ("/%", "/%", "", "x"),
        ("/a;b=c/../d", "/a;b=c/../d", "", "x"),
        ("/a#b", "/a", "", "x"),
        ("http://example.org", "/", "", "example.org"),
        ("http://example.org:81/a?b", "/a", "b", "example.org:81"),
        ("HTTPS://user@example.org/a", "/a", "", "example.org"),
        ("http://example.org?b=/", "/", "b=/", "example.org"),
    ],
)
def test_targets(target: str, path: str, query: str, host: str) -> None:
    environ = environ_of({}, f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert (environ["PATH_INFO"], environ["QUERY_STRING"], environ["HTTP_HOST"]) == (path, query, host)
    assert environ["RAW_URI"] == target


def test_asterisk() -> None:
    assert environ_of({}, b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")["PATH_INFO"] == "*"


def test_script_name_is_taken_off_the_path() -> None:
    options = {"environ": {"SCRIPT_NAME": "/app", "my.key": 1}}
    environ = environ_of(options, b"GET /app/x HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"], environ["my.key"]) == ("/app", "/x", 1)
    environ = environ_of(options, b"GET /apple HTTP/1.1\r\nHost: x\r\n\r\n")
    assert environ["PATH_INFO"] == "/apple"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_the_standard_librarys_validator_is_content(
    method: str, version: str, errors: pytest.LogCaptureFixture
) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        body = environ["wsgi.input"].read(10_000)
        rest = [environ["wsgi.input"].readline(100), *environ["wsgi.input"]]
        assert rest == [b""]
        environ["wsgi.errors"].write("")
        environ["wsgi.errors"].flush()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return iter([b"<", body, b">"])

    with serving(validator(app)) as server:
        for body in ("", "abc"):
            request = f"{method} /a?b HTTP/{version}\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}"
            got = answer(talk(server, request.encode()), method)
            assert (got.status, got.body) == (200, b"" if method == "HEAD" else f"<{body}>".encode())
    assert not tracebacks(errors)


def test_keep_alive() -> None:
    with serving() as server, dial(server) as conn:
        for _ in range(3):
            conn.write(GET)
            assert read_answer(conn).body == b"hello"
        assert server.connections == 1
        conn.write(GET_CLOSE)
        got = answer(read_all(conn))
        assert got["Connection"] == "close"


def test_http_1_0_closes_unless_asked() -> None:
    with serving() as server:
        with dial(server) as conn:
            conn.write(b"GET / HTTP/1.0\r\n\r\n")
            got = answer(read_all(conn))
            assert (got["Connection"], got["Content-Length"], got.body) == ("close", "5", b"hello")
        with dial(server) as conn:
            for _ in range(2):
                conn.write(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
                assert read_answer(conn)["Connection"] == "keep-alive"


def test_keep_alive_of_zero_is_a_request_a_connection() -> None:
    with serving(keep_alive=0) as server, dial(server) as conn:
        conn.write(GET)
        assert answer(read_all(conn))["Connection"] == "close"


def test_pipelined_requests_are_answered_in_order() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = environ["wsgi.input"].read()
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode() + body]

    requests = b"".join(
        b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET /%d- HTTP/1.1\r\nHost: x\r\n\r\n" % (i, i)
        for i in range(500)
    )
    with serving(app) as server:
        got = [a.body for a in answers(talk(server, requests))]
    assert got == [text for i in range(500) for text in (b"/%dabc" % i, b"/%d-" % i)]


def test_what_follows_a_close_is_not_looked_at() -> None:
    with serving() as server:
        assert len(answers(talk(server, GET + GET_CLOSE + GET + b"garbage"))) == 2


# ---- answers ------------------------------------------------------------------------------


def test_head_has_no_body() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "5")])
        return [b"hello"]

    with serving(app) as server:
        data = talk(server, b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n" + GET)
        first, second = answers(data, "HEAD", "GET")
    assert (first["Content-Length"], first.body, second.body) == ("5", b"", b"hello")


@pytest.mark.parametrize("kind", [list, iter])
@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_answers_that_never_have_a_body(status: str, kind: Any) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response(status, [("X-A", "1")])
        return kind([b"dropped"])

    with serving(app) as server:
        first, second = answers(talk(server, GET + GET))
    assert (first.status, first.body, first["Content-Length"], first["Transfer-Encoding"]) == (
        int(status[:3]),
        b"",
        None,
        None,
    )
    assert second["X-A"] == "1"


def generator(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b""
    yield b"one "
    yield b""
    yield b"two"


def test_generators_are_chunked() -> None:
    with serving(generator) as server:
        data = talk(server, GET + GET)
        assert b"\r\n\r\n4\r\none \r\n3\r\ntwo\r\n0\r\n\r\n" in data
        assert [a.body for a in answers(data)] == [b"one two", b"one two"]


def test_http_1_0_ends_with_the_connection() -> None:
    with serving(generator) as server:
        got = answer(talk(server, b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"))
    assert (got["Transfer-Encoding"], got["Connection"], got.body) == (None, "close", b"one two")


def test_every_block_is_sent_at_once() -> None:
    gate: gort.Chan[None] = gort.Chan()

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"first"
        gate.recv()
        yield b"second"

    with serving(app) as server, dial(server) as conn:
        conn.write(GET_CLOSE)
        data = b""
        while b"first\r\n" not in data:
            data += conn.read(1000)
        gate.send(None)
        assert answer(data + read_all(conn)).body == b"firstsecond"


def test_an_empty_iterable() -> None:
    for empty in ([], (), iter([]), [b""], iter([b"", b""])):

        def app(environ: dict[str, Any], start_response: Any, empty: Any = empty) -> Any:
            start_response("200 OK", [])
            return empty

        with serving(app) as server:
            got = answer(talk(server, GET))
            assert (got["Content-Length"], got.body) == ("0", b"")


def test_a_large_body() -> None:
    body = os.urandom(5_000_000)

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [body]

    with serving(app) as server:
        assert answer(talk(server, GET)).body == body


def test_large_blocks() -> None:
    blocks = [os.urandom(size) for size in (65535, 65536, 65537, 1, 300_000)]

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", str(sum(map(len, blocks))))] if environ["QUERY_STRING"] else [])
        return iter(blocks)

    with serving(app) as server:
        for query in ("", "?length"):
            assert get(server, f"/{query}").body == b"".join(blocks)


def test_flask() -> None:
    flask = pytest.importorskip("flask", reason="flask is not installed: Flask on gort.wsgi is NOT TESTED")
    app = flask.Flask("test")

    @app.route("/upload/<name>", methods=["POST"])
    def upload(name: str) -> Any:
        gort.sleep(0.001)  # others have their turn
        return {"name": name, "path": flask.request.path, "size": len(flask.request.get_data())}

    @app.route("/stream")
    def stream() -> Any:
        return flask.Response(flask.stream_with_context(flask.request.args[k] for k in "ab"), mimetype="text/plain")

    @app.route("/file")
    def file() -> Any:
        return flask.send_file(__file__)

    with serving(app) as server:

        def client(i: int) -> None:
            chunked = b"POST /upload/%d HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % i
            data = talk(server, chunked + b"%x\r\n" % (i + 1) + bytes(i + 1) + b"\r\n0\r\n\r\n")
            assert json.loads(answer(data).body) == {"name": f"{i}", "path": f"/upload/{i}", "size": i + 1}

        for g in [go(client, i) for i in range(100)]:
            g.join()
        assert get(server, "/stream?a=1&b=2").body == b"12"
        assert get(server, "/file").body == Path(__file__).read_bytes()
        assert get(server, "/file", method="HEAD")["Content-Length"] == str(Path(__file__).stat().st_size)
        assert get(server, "/none").status == 404


def test_the_write_callable() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [])
        write(b"")
        write(b"a")
        write(b"b")
        return [b"c", b"d"]

    with serving(app) as server:
        assert [a.body for a in answers(talk(server, GET + GET))] == [b"abcd", b"abcd"]


def test_write_with_a_length() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "3")])(b"ab")
        return [b"c"]

    with serving(app) as server:
        got = answer(talk(server, GET))
        assert (got["Content-Length"], got["Transfer-Encoding"], got.body) == ("3", None, b"abc")


def test_headers_of_the_application_come_first() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response(
            "200 Fine",
            [("Server", "mine"), ("Date", "today"), ("X-A", " 1\xe9 "), ("Set-Cookie", "a"), ("Set-Cookie", "b")],
        )
        return [b""]

    with serving(app) as server:
        for _ in range(2):
            got = get(server)
            assert (got.reason, got["Server"], got["Date"], got.headers.get_all("Set-Cookie")) == (
                "Fine",
                "mine",
                "today",
                ["a", "b"],
            )
            assert got["X-A"] == "1\xe9"


def test_no_server_header() -> None:
    with serving(server_header=None) as server:
        got = get(server)
        assert got["Server"] is None and got["Date"]


class Body:
    """An iterable that tells whether it was closed."""

    def __init__(self, *blocks: Any) -> None:
        self.blocks = iter(blocks)
        self.closed = 0

    def __iter__(self) -> Iterator[Any]:
        for block in self.blocks:
            if isinstance(block, BaseException):
                raise block
            yield block

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", ["200 OK", "304 Not Modified"])
@pytest.mark.parametrize("blocks", [(), (b"a",), (b"a", ValueError("broken")), (ValueError("broken"),), ("text",)])
def test_the_iterable_is_always_closed(method: str, status: str, blocks: Any, errors: pytest.LogCaptureFixture) -> None:
    body = Body(*blocks)

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response(status, [])
        return body

    with serving(app) as server:
        try:
            talk(server, method.encode() + GET[3:])
        except ConnectionResetError:
            assert len(blocks) == 2
        spin_until(lambda: body.closed)
    assert body.closed == 1
    assert ("ValueError('broken')" in tracebacks(errors)) is any(isinstance(b, ValueError) for b in blocks)


def test_the_iterable_is_closed_when_the_client_is_gone(errors: pytest.LogCaptureFixture) -> None:
    body = Body(*[bytes(65536)] * 10_000)

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        return body

    with serving(app) as server:
        with dial(server) as conn:
            conn.write(GET)
            conn.read_exactly(100_000)
        spin_until(lambda: body.closed)
    assert not tracebacks(errors)


def test_an_error_in_close_is_logged(errors: pytest.LogCaptureFixture) -> None:
    class Bad(Body):
        def close(self) -> None:
            raise RuntimeError("close failed")

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", "1")])
        return Bad(b"a")

    with serving(app) as server:
        assert answer(talk(server, GET)).body == b"a"
        spin_until(lambda: tracebacks(errors) == ["RuntimeError('close failed')"])


# ---- files ----------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(3_000_000))
    return path


@pytest.mark.parametrize("request_line", [b"GET / HTTP/1.1", b"GET / HTTP/1.0", b"HEAD / HTTP/1.1"])
@pytest.mark.parametrize("length", [None, 1000, 2_000_000])
@pytest.mark.parametrize("buffered", [True, False])
def test_files_go_by_sendfile(file: Path, request_line: bytes, length: int | None, buffered: bool) -> None:
    content = file.read_bytes()[1000:]
    opened: list[Any] = []

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [] if length is None else [("Content-Length", str(length))])
        f = file.open("rb", -1 if buffered else 0)
        opened.append(f)
        assert f.read(1000) != b""
        wrapped = environ["wsgi.file_wrapper"](f, 8192)
        wrapped.__class__.__next__ = no_iteration
        return wrapped

    def no_iteration(self: Any) -> bytes:
        raise AssertionError("it was iterated over")

    original = wsgi.FileWrapper.__next__
    try:
        with serving(app) as server:
            method = request_line[:4].decode().strip()
            got = answer(talk(server, request_line + b"\r\nHost: x\r\n\r\n"), method)
    finally:
        wsgi.FileWrapper.__next__ = original  # type: ignore[method-assign]
    expected = content if length is None else content[:length]
    assert got["Content-Length"] == str(len(expected))
    assert got.body == (b"" if method == "HEAD" else expected)
    assert opened[0].closed


@pytest.mark.parametrize("make", [io.BytesIO, lambda data: type("F", (), {"read": io.BytesIO(data).read})()])
def test_other_files_are_read(make: Any) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](make(b"x" * 100_000))

    with serving(app) as server:
        assert answer(talk(server, GET)).body == b"x" * 100_000


def test_a_file_whose_descriptor_is_of_something_else(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "file.gz", "wb") as f:
        f.write(b"x" * 10_000)

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](gzip.open(tmp_path / "file.gz"))

    with serving(app) as server:
        assert answer(talk(server, GET)).body == b"x" * 10_000


def test_a_file_behind_write(file: Path) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])(b"before ")
        return environ["wsgi.file_wrapper"](file.open("rb"))

    with serving(app) as server:
        first, second = answers(talk(server, GET + GET))
    assert first.body == second.body == b"before " + file.read_bytes()


def test_a_pipe_as_a_file() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        r, w = os.pipe()
        os.write(w, b"piped")
        os.close(w)
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](os.fdopen(r, "rb"))

    with serving(app) as server:
        assert answer(talk(server, GET)).body == b"piped"


def test_a_file_shorter_than_its_length(file: Path, errors: pytest.LogCaptureFixture) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", "4000000")])
        return environ["wsgi.file_wrapper"](file.open("rb"))

    with serving(app) as server, dial(server) as conn:
        conn.write(GET)
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            answer(read_all(conn))
        spin_until(lambda: "shorter" in str(tracebacks(errors)))


# ---- bodies ------------------------------------------------------------------------------------

FRAMINGS = {
    "length": b"Content-Length: 26\r\n\r\nabcdefghij\nklmnopq\nrstuvwx",
    "chunked": b"Transfer-Encoding: chunked\r\n\r\n5;ext=1\r\nabcde\r\n1\r\nf\r\n14\r\nghij\nklmnopq\nrstuvwx\r\n"
    b"0\r\nTrailer: x\r\n\r\n",
}
LINES = [b"abcdefghij\n", b"klmnopq\n", b"rstuvwx"]
framings = pytest.mark.parametrize("framing", FRAMINGS)


@framings
@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        (["read()"], [b"".join(LINES)]),
        (["read(-1)", "read()"], [b"".join(LINES), b""]),
        (["read(None)"], [b"".join(LINES)]),
        (["read(0)", "read(3)", "read(100)", "read(1)"], [b"", b"abc", b"".join(LINES)[3:], b""]),
        (["readline()", "readline(3)", "readline(0)", "readline(None)"], [LINES[0], b"klm", b"", b"nopq\n"]),
        (["readlines()", "readline()"], [LINES, b""]),
        (["readlines(5)", "readlines(100)"], [LINES[:1], LINES[1:]]),
        (["__iter__().__next__()", "read(1)"], [LINES[0], b"k"]),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_wsgi_input(framing: str, calls: list[str], expected: list[Any], at_once: bool) -> None:
    got: list[Any] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["REQUEST_METHOD"] == "POST":
            got.extend(eval(f"body.{call}", {"body": environ["wsgi.input"]}) for call in calls)
        start_response("200 OK", [])
        return [b"."]

    request = b"POST / HTTP/1.1\r\nHost: x\r\n" + FRAMINGS[framing]
    with serving(app) as server:
        if at_once:
            data = talk(server, request + GET)
        else:
            with dial(server) as conn:
                for i in range(len(request)):
                    conn.write(request[i : i + 1])
                conn.write(GET)
                conn.close_write()
                data = read_all(conn)
        assert [a.body for a in answers(data)] == [b".", b"."]
    assert got == expected


@framings
def test_the_body_is_read_when_it_is_asked_for(framing: str) -> None:
    """Back-pressure: who does not read keeps the client waiting."""
    gate: gort.Chan[None] = gort.Chan()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        gate.recv()
        start_response("200 OK", [])
        return [str(len(environ["wsgi.input"].read())).encode()]

    size = 30_000_000
    if framing == "length":
        head, body, tail = b"Content-Length: %d\r\n\r\n" % size, bytes(size), b""
    else:
        head, body, tail = b"Transfer-Encoding: chunked\r\n\r\n", b"%x\r\n" % size + bytes(size), b"\r\n0\r\n\r\n"
    with serving(app) as server, dial(server) as conn:
        conn.write(b"POST / HTTP/1.1\r\nHost: x\r\n" + head)
        writer = park(conn.write, body + tail)
        assert writer.state == "waiting"
        gate.send(None)
        assert read_answer(conn).body == str(size).encode()
        writer.join()


@framings
@pytest.mark.parametrize("size", [100_000, 10_000_000])
def test_a_body_that_nobody_reads(framing: str, size: int) -> None:
    """A small rest is read and dropped, for a large one the connection is closed; the answer arrives all the same."""
    if framing == "length":
        request = b"Content-Length: %d\r\n\r\n" % size + bytes(size)
    else:
        request = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % size + bytes(size) + b"\r\n0\r\n\r\n"
    with serving() as server, dial(server) as conn:

        def send() -> None:
            try:
                conn.write(b"POST / HTTP/1.1\r\nHost: x\r\n" + request + GET)
                conn.close_write()
            except OSError:
                assert size > 1_000_000

        writer = go(send)
        data = b""
        try:
            while piece := conn.read(65536):
                data += piece
        except ConnectionResetError:
            assert size > 1_000_000
        got = answers(data)
        assert [a.body for a in got] == [b"hello"] * (2 if size < 1_000_000 else 1)
        writer.join()


def test_a_body_that_is_half_read() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["wsgi.input"].read(2)]

    with serving(app) as server:
        data = talk(server, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcde" + GET)
        assert [a.body for a in answers(data)] == [b"ab", b""]


def test_the_input_is_of_no_use_afterwards() -> None:
    kept: list[Any] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        kept.append(environ["wsgi.input"])
        return hello(environ, start_response)

    with serving(app) as server:
        talk(server, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab")
        spin_until(lambda: not server.connections)
        with pytest.raises(ValueError, match="after the request is over"):
            kept[0].read()


def test_two_goroutines_may_read_one_body() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = environ["wsgi.input"]
        parts = [g.join() for g in [go(body.read, 7) for _ in range(4)]]
        start_response("200 OK", [])
        return [b"".join(sorted(parts))]

    with serving(app) as server, dial(server) as conn:
        conn.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 28\r\n\r\n")
        for c in b"aaaaaaabbbbbbbcccccccddddddd":
            conn.write(bytes([c]))
        assert read_answer(conn).body == b"aaaaaaabbbbbbbcccccccddddddd"


def test_expect_100_continue() -> None:
    with serving(echo) as server, dial(server) as conn:
        conn.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-Continue\r\n\r\n")
        assert conn.read(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        conn.write(b"abc")
        assert read_answer(conn).body == b"abc"
        conn.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc")
        assert read_answer(conn).body == b"abc"  # the body was there already: no 100


def test_expect_without_interest_in_the_body() -> None:
    """Nobody knows whether the body will come: the connection ends."""
    with serving() as server, dial(server) as conn:
        conn.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        got = read_answer(conn)
        assert (got.status, got["Connection"]) == (200, "close")
        assert conn.read(100) == b""


def test_no_100_continue_for_http_1_0_and_after_the_head() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"<"
        yield environ["wsgi.input"].read()

    with serving(app) as server:
        request = b"POST / HTTP/%s\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        for version in (b"1.0", b"1.1"):
            with dial(server) as conn:
                conn.write(request % version)
                data = b""
                while b"<" not in data:
                    data += conn.read(1000)
                conn.write(b"abc")
                assert answer(data + read_all(conn)).body == b"<abc"


def test_other_expectations_are_refused() -> None:
    with serving(echo) as server:
        request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: more\r\n\r\nabc"
        assert answer(talk(server, request)).status == 417


# ---- applications that misbehave ----------------------------------------------------------------


def failing(what: Any) -> Any:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/good":
            return hello(environ, start_response)
        return what(environ, start_response)

    return app


def raises(environ: dict[str, Any], start_response: Any) -> Any:
    raise ZeroDivisionError("in the application")


def exits(environ: dict[str, Any], start_response: Any) -> Any:
    sys.exit(3)


def nothing(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [])


def no_start(environ: dict[str, Any], start_response: Any) -> Any:
    return [b"hello"]


def no_start_lazily(environ: dict[str, Any], start_response: Any) -> Any:
    yield b"hello"


def twice(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [])
    start_response("200 OK", [])
    return []


def status_of(status: Any) -> Any:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response(status, [])
        return []

    return app


def headers_of(headers: Any) -> Any:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", headers)
        return [b"12345"]

    return app


def body_of(body: Any) -> Any:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        return body

    return app


@pytest.mark.parametrize(
    "what",
    [
        raises,
        exits,
        nothing,
        no_start,
        no_start_lazily,
        twice,
        *map(
            status_of,
            [200, b"200 OK", "OK", "200 OK\r\nX: 1", "099 Low", "100 Continue", "2000 OK", "", None, "200 \u20ac"],
        ),
        *map(
            headers_of,
            [
                None,
                (("A", "b"),),
                {"A": "b"},
                ["A: b"],
                [("A", "b", "c")],
                [["A", "b"]],
                [("A", 1)],
                [(b"A", b"b")],
                [("A", "b\r\nSet-Cookie: c")],
                [("A", "b\n")],
                [("A", "\0")],
                [("A", "\u20ac")],
                [("A\r\nB", "c")],
                [("A B", "c")],
                [("A:", "c")],
                [("", "c")],
                [("Connection", "close")],
                [("transfer-encoding", "chunked")],
                [("Keep-Alive", "1")],
                [("Upgrade", "h2c")],
                [("Content-Length", "-1")],
                [("Content-Length", "5"), ("content-length", "5")],
                [("Content-Length", "4")],
                [("Content-Length", "6")],
            ],
        ),
        *map(body_of, ["text", ["text"], ["a", b"b"], [None], 7, iter(["text"]), iter([bytearray(b"x"), None])]),
    ],
    ids=str,
)
def test_a_failing_application_is_500_and_the_server_goes_on(what: Any, errors: pytest.LogCaptureFixture) -> None:
    with serving(failing(what)) as server:
        got = get(server)
        assert (got.status, got.body, got["Connection"]) == (500, b"Internal Server Error\n", "close")
        assert len(tracebacks(errors)) == 1
        assert get(server, "/good").body == b"hello"
    assert len(tracebacks(errors)) == 1


def too_long(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [("Content-Length", "3")])
    yield b"ab"
    yield b"cd"


def too_short(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [("Content-Length", "3")])
    yield b"ab"


def breaks(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [])
    yield b"ab"
    raise ValueError("broken")


@pytest.mark.parametrize("what", [too_long, too_short, breaks])
def test_an_answer_that_fails_half_way_is_aborted(what: Any, errors: pytest.LogCaptureFixture) -> None:
    with serving(failing(what)) as server:
        with dial(server) as conn, pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            conn.write(GET)
            answer(read_all(conn))
        spin_until(lambda: len(tracebacks(errors)) == 1)
        assert get(server, "/good").body == b"hello"


def test_http_1_0_sees_that_it_was_aborted() -> None:
    """Where the end of the connection is the end of the body, nothing but a reset tells."""
    with serving(breaks) as server, dial(server) as conn:
        conn.write(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            read_all(conn)


def test_exc_info_replaces_the_answer() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("X-A", "1"), ("Content-Length", "7")])
        try:
            raise ValueError("first")
        except ValueError:
            start_response("500 Sorry", [("X-B", "2")], sys.exc_info())
        return [b"sorry"]

    with serving(app) as server:
        got = get(server)
    assert (got.status, got.reason, got["X-A"], got["X-B"], got.body) == (500, "Sorry", None, "2", b"sorry")


def test_exc_info_is_raised_once_the_head_is_sent(errors: pytest.LogCaptureFixture) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        yield b"a"
        try:
            raise ValueError("second")
        except ValueError:
            start_response("500 Sorry", [], sys.exc_info())

    with serving(app) as server, dial(server) as conn:
        conn.write(GET)
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            answer(read_all(conn))
        spin_until(lambda: tracebacks(errors) == ["ValueError('second')"])


def test_a_killed_request_ends_its_connection() -> None:
    body = Body()

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        me = gort.current()
        assert me is not None
        me.kill()
        body.blocks = iter(lambda: gort.sleep(3600), 1)
        return body

    with serving(app) as server, dial(server) as conn:
        conn.write(GET)
        assert conn.read(100) == b""
        spin_until(lambda: body.closed)
        assert server.connections == 0


# ---- limits ----------------------------------------------------------------------------------------


def status_for(request: bytes, **options: Any) -> int:
    with serving(echo, **options) as server, dial(server) as conn:
        conn.write(request)
        return answer(read_all(conn)).status


def with_headers(*lines: bytes) -> bytes:
    return b"".join(
        [b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", *(line + b"\r\n" for line in lines), b"\r\n"]
    )


@pytest.mark.parametrize(
    ("options", "good", "bad", "status"),
    [
        ({"max_request_line": 10}, b"GET /23456789 HTTP/1.0\r\n\r\n", b"GET /23456789ab HTTP/1.0\r\n\r\n", 414),
        ({}, b"GET /%s HTTP/1.0\r\n\r\n" % (b"a" * 8189), b"GET /%s HTTP/1.0\r\n\r\n" % (b"a" * 8190), 414),
        ({}, GET_CLOSE, b"GET /" + b"a" * 100_000, 414),  # without an end
        ({"max_headers": 4}, with_headers(b"A: 1", b"B: 2"), with_headers(b"A: 1", b"B: 2", b"C: 3"), 431),
        ({}, with_headers(*[b"A: 1"] * 98), with_headers(*[b"A: 1"] * 99), 431),
        ({"max_field_size": 20}, with_headers(b"A: " + b"a" * 15), with_headers(b"A: " + b"a" * 16), 431),
        ({}, with_headers(b"A: " + b"a" * 8185), with_headers(b"A: " + b"a" * 8186), 431),
        ({"max_header_size": 100}, with_headers(b"A: " + b"a" * 50), with_headers(b"A: " + b"a" * 90), 431),
        ({}, with_headers(*[b"A: " + b"a" * 8000] * 8), with_headers(*[b"A: " + b"a" * 8000] * 9), 431),
        ({}, GET_CLOSE, b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 200_000, 431),  # without an end
        (
            {"max_body": 3},
            b"POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc",
            b"POST / HTTP/1.0\r\nContent-Length: 4\r\n\r\nabcd",
            413,
        ),
        (
            {"max_body": 3},
            b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
            b"\r\n",
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n",
            413,
        ),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_limits(options: dict[str, Any], good: bytes, bad: bytes, status: int, at_once: bool) -> None:
    assert status_for(good, **options) == 200
    if at_once:
        assert status_for(bad, **options) == status
        return
    with serving(echo, **options) as server, dial(server) as conn:

        def send() -> None:
            try:
                for i in range(0, len(bad), 997):
                    conn.write(bad[i : i + 997])
            except OSError:
                pass  # it did not want to hear it all

        g = go(send)
        assert answer(read_all(conn)).status == status
        conn.close()
        g.join()


def test_no_limits() -> None:
    options = dict.fromkeys(["max_request_line", "max_headers", "max_field_size", "max_header_size", "max_body"])
    request = b"GET /" + b"a" * 100_000 + b" HTTP/1.0\r\n" + b"A: 1\r\n" * 1000 + b"B: " + b"b" * 100_000 + b"\r\n\r\n"
    assert status_for(request, **options) == 200


def test_a_trailer_is_limited_too() -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    assert status_for(head + b"A: 1\r\n" * 101 + b"\r\n") == 431
    assert status_for(head + b"A: " + b"a" * 100_000) == 400
    assert status_for(head[:-3] + b"3;" + b"a" * 100_000) == 400  # a chunk's extension


def test_the_application_sees_what_is_wrong_with_the_body(errors: pytest.LogCaptureFixture) -> None:
    seen: list[tuple[int, str]] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        for _ in range(2):
            try:
                environ["wsgi.input"].read()
            except wsgi.RequestError as e:
                seen.append((e.status, str(e)))
        start_response("422 Mine", [])
        return [b"mine"]

    with serving(app, max_body=3) as server:
        got = answer(
            talk(server, b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n")
        )
    assert (got.status, got["Connection"], got.body) == (422, "close", b"mine")
    assert seen == [(413, "the body is too large")] * 2
    assert not tracebacks(errors)


def test_max_connections() -> None:
    entered: gort.Chan[str] = gort.Chan(10)
    gate: gort.Chan[None] = gort.Chan()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        entered.send(environ["PATH_INFO"])
        gate.recv()
        return hello(environ, start_response)

    with serving(app, max_connections=2) as server:
        clients = [go(get, server, f"/{i}") for i in range(3)]
        entered.recv()
        entered.recv()
        settle(*clients)
        assert server.connections == 2 and not len(entered)
        for _ in range(3):
            gate.send(None)
        assert [g.join().status for g in clients] == [200] * 3


# ---- time --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("caught", "status"), [("500 Oops", 413), ("400 Mine", 400)])
def test_a_framework_that_makes_500_of_a_bodys_fault(caught: str, status: int) -> None:
    """Its own answer stands if it knows better than 500."""

    def app(environ: Any, start_response: Any) -> Any:
        try:
            environ["wsgi.input"].read()
        except OSError:
            start_response(caught, [])
            return iter([b"mine"])
        start_response("200 OK", [])
        return [b""]

    with serving(app, max_body=3) as server, dial(server) as conn:
        conn.write(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
        assert answer(read_all(conn)).status == status


def test_a_slow_head_is_408() -> None:
    with serving(header_timeout=0.05) as server, dial(server) as conn:
        conn.write(b"GET / HTT")
        assert answer(read_all(conn)).status == 408


def test_a_silent_client_is_let_go() -> None:
    with serving(header_timeout=0.05) as server, dial(server) as conn:
        assert conn.read(100) == b""


def test_an_idle_connection_is_let_go() -> None:
    with serving(keep_alive=0.05) as server, dial(server) as conn:
        conn.write(GET)
        assert answer(read_all(conn))["Connection"] is None


def test_a_slow_body_is_408() -> None:
    with serving(echo, body_timeout=0.05) as server, dial(server) as conn:
        conn.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabc")
        got = answer(read_all(conn))
        assert (got.status, got["Connection"]) == (408, "close")


def test_no_timeouts() -> None:
    options = dict.fromkeys(["keep_alive", "header_timeout", "body_timeout", "write_timeout"])
    with serving(echo, **options) as server, dial(server) as conn:
        conn.write(b"POST / HT")
        settle_server(server)
        conn.write(b"TP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabc")
        settle_server(server)
        conn.write(b"de")
        assert read_answer(conn).body == b"abcde"
        conn.write(GET)
        assert read_answer(conn).body == b""


def settle_server(server: wsgi.Server) -> None:
    """Let its connections do what they can."""
    settle(*server._active)


def test_a_client_that_does_not_read_is_let_go(errors: pytest.LogCaptureFixture) -> None:
    body = Body(*[bytes(1 << 20)] * 100)

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        return body

    with serving(app, write_timeout=0.1) as server, dial(server) as conn:
        conn.write(GET)
        spin_until(lambda: body.closed)
        assert sum(1 for _ in body.blocks) > 0
        spin_until(lambda: not server.connections)
    assert not tracebacks(errors)


def test_a_client_that_reads_slowly_is_served() -> None:
    """`write_timeout` is for progress, not for the whole answer."""
    body = os.urandom(8_000_000)

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        return [body]

    with serving(app, write_timeout=0.3) as server, dial(server) as conn:
        conn.set_option(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        conn.write(GET_CLOSE)
        data = []
        started = gort.time.now()
        while piece := conn.read(65536):
            data.append(piece)
            if gort.time.now() - started < 1.0:
                gort.sleep(0.05)
        assert answer(b"".join(data)).body == body


# ---- the end ------------------------------------------------------------------------------------------


def test_shutdown_lets_requests_end() -> None:
    entered, gate = gort.Chan[None](), gort.Chan[None]()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        entered.send(None)
        gate.recv()
        return hello(environ, start_response)

    with serving(app) as server, dial(server) as conn:
        conn.write(GET + GET)
        entered.recv()
        g = park(server.shutdown, PATIENCE)
        with pytest.raises(ConnectionRefusedError):
            net.dial(server.addr)
        gate.send(None)
        got = answer(read_all(conn))  # one answer, not two
        assert (got.body, got["Connection"]) == (b"hello", "close")
        assert g.join() is True
        assert server.closing and server.connections == 0


def test_shutdown_closes_idle_connections() -> None:
    with serving(keep_alive=None, header_timeout=None) as server:
        fresh, idle = dial(server), dial(server)
        idle.write(GET)
        read_answer(idle)
        spin_until(lambda: server.connections == 2)
        assert server.shutdown(PATIENCE)
        assert fresh.read(1) == idle.read(1) == b""
        fresh.close()
        idle.close()


def test_shutdown_waits_a_moment_for_the_first_request_of_a_connection() -> None:
    with serving() as server, dial(server) as conn:
        spin_until(lambda: server.connections == 1)
        settle_server(server)
        g = park(server.shutdown, PATIENCE)
        conn.write(GET)
        got = answer(read_all(conn))
        assert (got.body, got["Connection"]) == (b"hello", "close")
        assert g.join()


def test_shutdown_serves_what_has_come_already() -> None:
    """A request that came just before is answered, or its connection closed without a word."""
    with serving() as server:
        conns = [dial(server) for _ in range(20)]
        for conn in conns:
            conn.write(GET)
            read_answer(conn)
        for conn in conns:
            conn.write(GET)
        server.shutdown(PATIENCE)
        for conn in conns:
            data = read_all(conn)
            assert data == b"" or answer(data).body == b"hello"
            conn.close()


def test_shutdown_cuts_off_after_its_timeout() -> None:
    unwound: list[int] = []
    entered: gort.Chan[None] = gort.Chan()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        try:
            entered.send(None)
            gort.sleep(3600)
        finally:
            unwound.append(1)
        return []

    with serving(app) as server, dial(server) as conn:
        conn.write(GET)
        entered.recv()
        assert server.shutdown(0.05) is False
        assert conn.read(100) == b""
        spin_until(lambda: unwound)


def test_close_ends_everything() -> None:
    entered: gort.Chan[None] = gort.Chan()

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"a"
        entered.send(None)
        gort.sleep(3600)

    with serving(app) as server, dial(server) as busy, dial(server) as idle:
        busy.write(GET)
        entered.recv()
        server.close()
        server.close()
        assert b"a" in read_all(busy) and idle.read(1) == b""
        assert server.shutdown(PATIENCE)


def test_an_application_may_close_its_server() -> None:
    with serving(lambda e, s: servers[0].close() or hello(e, s)) as server:
        servers = [server]
        with dial(server) as conn:
            conn.write(GET)
            assert read_all(conn) == b""


def test_serve_forever_only_once() -> None:
    with serving() as server:
        get(server)
        with pytest.raises(RuntimeError, match="called already"):
            server.serve_forever()


def test_a_server_that_never_served() -> None:
    with wsgi.Server(hello, "127.0.0.1:0") as server:
        assert server.shutdown(PATIENCE)
    with wsgi.Server(hello, "127.0.0.1:0") as server:
        server.close()
        server.serve_forever()  # returns at once


# ---- logs -----------------------------------------------------------------------------------------------


def test_the_access_log() -> None:
    seen: list[wsgi.Access] = []
    with serving(failing(raises), access_log=seen.append) as server:
        get(server, '/good?a="b"', "Referer: http://\\r", 'User-Agent: a "quoted" \xe9')
        get(server, "/bad", method="HEAD")
        talk(server, b"garbage\r\n\r\n")
    good, bad, none = seen
    when = r"\[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]"
    line = good.combined()
    assert re.fullmatch(rf'127\.0\.0\.1 - - {when} "GET /good\?a=.* HTTP/1.1" 200 5 ".*" ".*"', line), line
    assert line.endswith(r'"GET /good?a=\x22b\x22 HTTP/1.1" 200 5 "http://\x5cr" "a \x22quoted\x22 \xe9"')
    assert (good.status, good.headers, good.sent) == ("200 OK", [("Content-Type", "text/plain")], 5)
    assert good.seconds >= 0
    assert (bad.status, bad.sent, bad.request_line) == ("500 Internal Server Error", 0, "HEAD /bad HTTP/1.1")
    assert (none.status, none.request_line) == ("400 Bad Request", "-")
    assert '"-" 400 ' in none.combined()


def test_the_access_log_of_logging(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "test.access")
    with serving(access_log=logging.getLogger("test.access")) as server:
        get(server, "/100%25")
    (record,) = caplog.records
    assert '"GET /100%25 HTTP/1.1" 200 5 "-" "-"' in record.getMessage()


def test_a_failing_access_log_disturbs_nobody(errors: pytest.LogCaptureFixture) -> None:
    def broken(access: wsgi.Access) -> None:
        raise ValueError("no log")

    with serving(access_log=broken) as server:
        assert len(answers(talk(server, GET + GET))) == 2
    assert tracebacks(errors) == ["ValueError('no log')"] * 2


def test_errors_name_the_request(errors: pytest.LogCaptureFixture) -> None:
    with serving(raises) as server:
        get(server, "/a?b", method="PUT")
    assert [r.getMessage() for r in errors.records] == ["error in the answer to PUT /a?b"]
    assert "ZeroDivisionError: in the application" in errors.text


# ---- taking a connection over --------------------------------------------------------------------------


def shout(environ: dict[str, Any], start_response: Any) -> Any:
    """A protocol that answers in capitals."""
    conn, data = environ["gort.conn"].hijack()
    with conn:
        conn.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: shout\r\nConnection: Upgrade\r\n\r\n")
        while data or (data := conn.read(1000)):
            conn.write(data.upper())
            data = b""


UPGRADE = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: shout\r\nConnection: Upgrade\r\n"


def test_hijack() -> None:
    with serving(shout) as server:
        data = talk(server, UPGRADE + b"\r\nearly")
        assert data.partition(b"\r\n\r\n")[2] == b"EARLY"
        with dial(server) as conn:
            conn.write(UPGRADE + b"\r\n")
            assert conn.read(1000).startswith(b"HTTP/1.1 101 ")
            conn.write(b"later")
            assert conn.read_exactly(5) == b"LATER"


def test_hijack_connect() -> None:
    with serving(shout) as server:
        data = talk(server, b"CONNECT example.org:80 HTTP/1.1\r\nHost: example.org:80\r\n\r\nGET / HTTP/1.1\r\n")
        assert data.endswith(b"GET / HTTP/1.1\r\n".upper())


def test_a_hijacked_connection_outlives_its_server() -> None:
    taken: gort.Chan[Any] = gort.Chan(1)

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        taken.send(environ["gort.conn"].hijack())
        return []

    with serving(app) as server, dial(server) as client:
        client.write(UPGRADE + b"\r\nab")
        conn, rest = taken.recv()
        assert rest == b"ab"
        assert server.shutdown(PATIENCE)
    with pytest.raises(OSError):
        client.write(b"x")
    conn.close()


def test_an_upgrade_that_is_not_taken() -> None:
    """The request is answered as any other, and the connection goes on in HTTP/1.1."""
    with serving(echo) as server:
        body = UPGRADE.replace(b"GET", b"POST") + b"Content-Length: 3\r\n\r\nabc"
        chunked = UPGRADE.replace(b"GET", b"POST") + b"Transfer-Encoding: chunked\r\n\r\n3\r\ndef\r\n0\r\n\r\n"
        data = talk(server, UPGRADE + b"\r\n" + GET + body + chunked + body + GET)
        assert [a.body for a in answers(data)] == [b"", b"", b"abc", b"def", b"abc", b""]
        with dial(server) as conn:
            for i in range(len(body)):
                conn.write(body[i : i + 1])
            assert read_answer(conn).body == b"abc"


def test_connect_that_is_not_taken() -> None:
    """The bytes of the tunnel are not taken for requests."""
    with serving() as server:
        got = answer(talk(server, b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n" + GET))
        assert got["Connection"] == "close"


@pytest.mark.parametrize("request_", [GET, UPGRADE.replace(b"GET", b"POST") + b"Content-Length: 1\r\n\r\na"])
def test_hijack_is_for_upgrades(request_: bytes, errors: pytest.LogCaptureFixture) -> None:
    with serving(shout) as server:
        assert answer(talk(server, request_)).status == 500
    assert "hijack() is for an Upgrade" in str(tracebacks(errors))


def test_hijack_comes_before_the_answer(errors: pytest.LogCaptureFixture) -> None:
    def late(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])(b"a")
        environ["gort.conn"].hijack()

    def again(environ: dict[str, Any], start_response: Any) -> Any:
        conn, _ = environ["gort.conn"].hijack()
        with conn:
            environ["gort.conn"].hijack()

    for app in (late, again):
        with serving(app) as server, dial(server) as conn:
            conn.write(UPGRADE + b"\r\n")
            try:
                read_all(conn)
            except ConnectionResetError:
                pass
        spin_until(lambda: "hijack() is for an Upgrade" in str(tracebacks(errors)))
        errors.clear()


# ---- where it listens -----------------------------------------------------------------------------------


def test_unix_socket(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append(environ)
        return hello(environ, start_response)

    access: list[wsgi.Access] = []
    with serving(validator(app), f"unix:{tmp_path}/socket", access_log=access.append) as server:
        assert get(server, "/", method="GET").body == b"hello"
        assert server.addr == f"unix:{tmp_path}/socket"
    assert [seen[0][k] for k in ("SERVER_NAME", "SERVER_PORT", "REMOTE_ADDR")] == ["localhost", "80", ""]
    assert access[0].combined().startswith("- - - [")
    assert not (tmp_path / "socket").exists()


def test_several_addresses_and_a_listener_of_ones_own(tmp_path: Path) -> None:
    mine = net.listen("127.0.0.1:0")
    with wsgi.Server(hello, ["127.0.0.1:0", f"unix:{tmp_path}/s", mine]) as server:
        g = go(server.serve_forever)
        assert server.addrs[1:] == [f"unix:{tmp_path}/s", mine.addr]
        for addr in server.addrs:
            with net.dial(addr) as conn:
                conn.write(GET_CLOSE)
                assert answer(read_all(conn)).body == b"hello"
        server.shutdown(PATIENCE)
        g.join()
    assert mine.closed


def test_ipv6() -> None:
    try:
        listener = net.listen("[::1]:0")
    except OSError:
        pytest.skip("no IPv6 here")
    with wsgi.Server(lambda e, s: s("200 OK", []) and [e["SERVER_NAME"].encode()], listener) as server:
        go(server.serve_forever)
        assert get(server).body == b"::1"
        server.shutdown(PATIENCE)


def test_tls() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = environ["wsgi.input"].read()
        start_response("200 OK", [])
        return [environ["wsgi.url_scheme"].encode(), body]

    body = os.urandom(1_000_000)
    with serving(app, ssl_context=server_context()) as server:

        def client() -> list[bytes]:
            conn = http.client.HTTPSConnection(
                "127.0.0.1", server.addr.port, context=client_context(), timeout=PATIENCE
            )
            got = []
            for _ in range(3):
                conn.request("POST", "/", body)
                got.append(conn.getresponse().read())
            conn.close()
            return got

        clients = [go(gort.blocking, client) for _ in range(5)]
        for g in clients:
            assert g.join() == [b"https" + body] * 3


def test_tls_files_and_shutdown(file: Path) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](file.open("rb"))

    with serving(app, ssl_context=server_context(), keep_alive=None) as server:
        conn = http.client.HTTPSConnection("127.0.0.1", server.addr.port, context=client_context(), timeout=PATIENCE)
        gort.blocking(conn.request, "GET", "/")
        assert gort.blocking(lambda: conn.getresponse().read()) == file.read_bytes()
        assert server.shutdown(PATIENCE)
        assert gort.blocking(conn.sock.recv, 1) == b""  # and no error: it was closed in order
        conn.close()


# ---- bad arguments -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "options"),
    [
        (TypeError, {"app": 7}),
        (TypeError, {"address": 80}),
        (TypeError, {"address": [80]}),
        (ValueError, {"address": []}),
        (ValueError, {"address": "localhost"}),
        (ValueError, {"address": ["127.0.0.1:0", "nowhere"]}),
        (TypeError, {"ssl_context": True}),
        (TypeError, {"access_log": "file"}),
        (TypeError, {"keep_alive": "5"}),
        (ValueError, {"keep_alive": -1}),
        (ValueError, {"header_timeout": float("nan")}),
        (TypeError, {"max_headers": True}),
        (ValueError, {"max_headers": 0}),
        (ValueError, {"max_connections": 0}),
        (ValueError, {"max_body": -1}),
        (ValueError, {"server_header": "a\r\nb"}),
        (TypeError, {"server_header": 7}),
        (TypeError, {"backlog": "1"}),
        (TypeError, {"environ": 5}),
    ],
)
def test_bad_arguments(error: type[Exception], options: dict[str, Any]) -> None:
    arguments = {"app": hello, "address": "127.0.0.1:0", **options}
    (name,) = options
    with pytest.raises(error, match=name if name != "server_header" else "[Hh]eader"):
        wsgi.Server(**arguments)


@pytest.mark.parametrize(("timeout", "error"), [("x", TypeError), (float("nan"), ValueError)])
def test_a_bad_timeout_of_shutdown_leaves_the_server_running(timeout: Any, error: type[Exception]) -> None:
    with wsgi.Server(hello, "127.0.0.1:0") as server:
        with pytest.raises(error, match="timeout must be"):
            server.shutdown(timeout)
        go(server.serve_forever)
        conn = http.client.HTTPConnection(server.addr.host, server.addr.port, timeout=PATIENCE)
        gort.blocking(conn.request, "GET", "/")
        assert gort.blocking(conn.getresponse).status == 200
        conn.close()


def test_an_address_in_use() -> None:
    with net.listen("127.0.0.1:0") as listener, pytest.raises(OSError, match="in use"):
        wsgi.Server(hello, ["127.0.0.1:0", str(listener.addr)])


def test_without_httptools_it_says_what_to_install() -> None:
    program = "import sys; sys.modules['httptools'] = None\nimport gort.wsgi"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=program_env(), check=False
    )
    assert "pip install 'gort[wsgi]'" in done.stderr


# ---- the command line ---------------------------------------------------------------------------------------


class Program:
    """`python -m gort.wsgi` in a process of its own."""

    def __init__(self, folder: Path, *args: str) -> None:
        (folder / "my_app.py").write_text(
            textwrap.dedent("""
            import time

            def app(environ, start_response):
                if environ["PATH_INFO"] == "/slow":
                    start_response("200 OK", [])
                    def slow():
                        yield b"a"
                        time.sleep(0.3)
                        yield b"b"
                    return slow()
                start_response("200 OK", [("Content-Type", "text/plain")])
                return [b"hello"]

            class holder:
                def factory():
                    return app

            application = app
            """)
        )
        command = [sys.executable, "-m", "gort.wsgi", *args]
        self.process = subprocess.Popen(
            command, cwd=folder, env=program_env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def address(self) -> str:
        assert self.process.stderr is not None
        line = gort.blocking(self.process.stderr.readline)
        found = re.search(r"serving at (\S+)$", line.strip())
        assert found, line + self.process.stderr.read()
        return found[1]

    def end(self) -> tuple[int, str, str]:
        out, err = gort.blocking(self.process.communicate, timeout=PATIENCE)
        return self.process.returncode, out, err

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        gort.blocking(self.process.wait)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


@pytest.mark.parametrize("name", ["my_app:app", "my_app", "my_app:holder.factory()"])
def test_command_line(tmp_path: Path, name: str) -> None:
    with Program(tmp_path, name, "--bind", "127.0.0.1:0", "--access-log", "-", "--keep-alive", "none") as program:
        address = program.address()
        with net.dial(address) as conn:
            conn.write(GET)
            assert read_answer(conn).body == b"hello"
            program.process.send_signal(signal.SIGTERM)
            assert conn.read(1) == b""
        code, out, err = program.end()
    assert code == 0 and '"GET / HTTP/1.1" 200 5' in out and "shutting down" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_command_line_ends_gracefully(tmp_path: Path, number: signal.Signals) -> None:
    with Program(tmp_path, "my_app:app", "-b", "127.0.0.1:0") as program, net.dial(program.address()) as conn:
        conn.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        data = conn.read(1000)
        program.process.send_signal(number)
        assert answer(data + read_all(conn)).body == b"ab"
        assert program.end()[0] == 0


def test_command_line_tls(tmp_path: Path) -> None:
    with Program(tmp_path, "my_app:app", "-b", "127.0.0.1:0", "--certfile", str(CERTIFICATE)) as program:
        port = program.address().rpartition(":")[2]
        conn = http.client.HTTPSConnection("127.0.0.1", int(port), context=client_context(), timeout=PATIENCE)
        gort.blocking(conn.request, "GET", "/")
        assert gort.blocking(lambda: conn.getresponse().read()) == b"hello"
        conn.close()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere:app"], "No module named 'nowhere'"),
        (["my_app:nothing"], "there is no 'nothing' in 'my_app'"),
        (["my_app:time"], "cannot be called"),
        (["my_app:app", "-b", "nowhere"], "address has no port"),
        (["my_app:app", "--max-headers", "0"], "max_headers must be at least 1"),
        (["my_app:app()"], "'my_app:app()' cannot be called without arguments"),
        (["my_app:app", "--certfile", "missing"], "'missing': [Errno 2] No such file"),
    ],
)
def test_command_line_errors(tmp_path: Path, args: list[str], message: str) -> None:
    with Program(tmp_path, *args) as program:
        code, _, err = program.end()
    assert code == 1 and message in err and "Traceback" not in err


def test_command_line_help_tells_each_option_and_its_default(tmp_path: Path) -> None:
    with Program(tmp_path, "--help") as program:
        code, out, _ = program.end()
    out = " ".join(out.split())
    assert code == 0
    for text in ("--keep-alive SECONDS a connection waits", "(default: 65536)", "(default: none)", "(default: 5)"):
        assert text in out


def test_command_line_a_key_without_its_certificate(tmp_path: Path) -> None:
    with Program(tmp_path, "my_app:app", "--keyfile", str(CERTIFICATE)) as program:
        code, _, err = program.end()
    assert code == 2 and "--keyfile needs --certfile" in err


def test_command_line_what_the_module_imports_is_missing(tmp_path: Path) -> None:
    (tmp_path / "needy.py").write_text("import nowhere_to_be_found\n")
    with Program(tmp_path, "needy:app") as program:
        code, _, err = program.end()
    assert code == 1 and 'needy.py", line 1' in err and "'nowhere_to_be_found'" in err


def test_serve_ends_with_ctrl_c(tmp_path: Path) -> None:
    source = """
        import os, signal, gort
        from gort import wsgi
        def app(environ, start_response):
            os.kill(os.getpid(), signal.SIGINT)
            gort.sleep(0.1)
            start_response("200 OK", [])
            return [b"the last"]
        listener = gort.net.listen("127.0.0.1:0")
        def client():
            with gort.net.dial(listener.addr) as conn:
                conn.write(b"GET / HTTP/1.0\\r\\n\\r\\n")
                print(conn.read(10000)[-8:], conn.read(1))
        g = gort.go(client)
        wsgi.serve(app, listener)
        g.join()
        print("done")
    """
    command = [sys.executable, "-c", textwrap.dedent(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=program_env(), check=False)
    assert (done.stdout, done.stderr) == ("b'the last' b''\ndone\n", "")


def test_many_clients_at_once() -> None:
    """Goroutines wait in the application while others are served."""
    waiting: gort.Chan[None] = gort.Chan()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/wait":
            waiting.recv()
        else:
            time.sleep(0)
        return hello(environ, start_response)

    with serving(validator(app)) as server:
        stuck = [go(get, server, "/wait") for _ in range(50)]
        for g in [go(get, server) for _ in range(200)]:
            assert g.join().body == b"hello"
        for _ in stuck:
            waiting.send(None)
        assert [g.join().status for g in stuck] == [200] * 50
