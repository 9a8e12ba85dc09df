"""gort.wsgi against clients that are broken, slow, gone or malicious: the server goes on, and nothing leaks."""

from __future__ import annotations

import http.client
import logging
import os
import re
import resource
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_support import PATIENCE, settle, spin_until

import gort
from gort import go, net, wsgi

pytest.importorskip("httptools", reason="httptools is not installed: gort.wsgi is NOT TESTED")

from wsgi_support import (
    GET,
    GET_CLOSE,
    answer,
    answers,
    client_context,
    descriptors,
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
def leaves_nothing(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No goroutine, no descriptor, and no error in the log: none of this is the server's or the application's fault."""
    caplog.set_level(logging.INFO, "gort.wsgi")
    with nothing_left():
        yield
    assert not caplog.records


def settle_server(server: wsgi.Server) -> None:
    settle(*server._active)


def served(server: wsgi.Server) -> bool:
    return get(server).status == 200


# ---- malformed requests ----------------------------------------------------------------

POST = b"POST /p HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

MALFORMED = {
    "empty line": b"\r\n\r\n\0",
    "garbage": b"\x00\x01\x02\r\n\r\n",
    "no method": b"/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "no such method": b"FETCH / HTTP/1.1\r\nHost: x\r\n\r\n",
    "lower case": b"get / HTTP/1.1\r\nHost: x\r\n\r\n",
    "no target": b"GET HTTP/1.1\r\nHost: x\r\n\r\n",
    "no version": b"GET /\r\nHost: x\r\n\r\n",
    "no such protocol": b"GET / HTTQ/1.1\r\nHost: x\r\n\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\nHost: x\r\n\r\n",
    "HTTP/11": b"GET / HTTP/11\r\nHost: x\r\n\r\n",
    "target with a space": b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "target with a control": b"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n",
    "target with NUL": b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "two types": b"GET / HTTP/1.1\r\nHost: x\r\nContent-Type: a\r\nContent-Type: b\r\n\r\n",
    "line without a colon": b"GET / HTTP/1.1\r\nHost: x\r\nabc\r\n\r\n",
    "space before the colon": b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    "header name with a space": b"GET / HTTP/1.1\r\nHost: x\r\nA B: c\r\n\r\n",
    "header without a name": b"GET / HTTP/1.1\r\nHost: x\r\n: c\r\n\r\n",
    "header with NUL": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n",
    "header with a bare CR": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\rC: d\r\n\r\n",
    "bare LF": b"GET / HTTP/1.1\nHost: x\n\n",
    "folded header": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "space before the first header": b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a TLS hello": bytes.fromhex("16030100c6010000c20303") + bytes(190),
    "an SSH hello": b"SSH-2.0-OpenSSH_9.2\r\n",
}

# What two servers in a row might understand differently.
SMUGGLING = {
    "length and chunked": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    "the same length twice": POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde",
    "list of lengths": POST + b"Content-Length: 5, 5\r\n\r\nabcde",
    "signed length": POST + b"Content-Length: +5\r\n\r\nabcde",
    "negative length": POST + b"Content-Length: -5\r\n\r\nabcde",
    "hexadecimal length": POST + b"Content-Length: 0x5\r\n\r\nabcde",
    "length with an underscore": POST + b"Content-Length: 1_0\r\n\r\nabcdeabcde",
    "empty length": POST + b"Content-Length:\r\n\r\n",
    "huge length": POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "chunked in HTTP/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked in a list": POST + b"Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
    "chunked first": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "gzip": POST + b"Transfer-Encoding: gzip\r\n\r\nabc",
    "xchunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "quoted chunked": POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "chunked with a tab": POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "space before the colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "empty coding": POST + b"Transfer-Encoding:\r\n\r\n",
    "upgrade with both": POST
    + b"Upgrade: a\r\nConnection: upgrade\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
}

# Of a chunked body; what is before them is good.
BAD_CHUNKS = {
    "no size": b"\r\n",
    "letters": b"xyz\r\n",
    "negative": b"-1\r\na",
    "signed": b"+1\r\na\r\n0\r\n\r\n",
    "0x": b"0x1\r\na\r\n0\r\n\r\n",
    "space before": b" 1\r\na\r\n0\r\n\r\n",
    "space behind": b"1 \r\na\r\n0\r\n\r\n",
    "too large for any machine": b"fffffffffffffffff\r\n",
    "too long": b"1\r\nab\r\n0\r\n\r\n",
    "bare LF behind the size": b"1\na\r\n0\r\n\r\n",
    "bare LF behind the data": b"1\r\na\n0\r\n\r\n",
    "no end of the data": b"1\r\na0\r\n\r\n",
    "bad extension": b"1;\x00\r\na\r\n0\r\n\r\n",
    "bad trailer": b"0\r\nA B: c\r\n\r\n",
    "line end in an extension": b"1;a\nb\r\na\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", MALFORMED | SMUGGLING)
@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "byte by byte"])
def test_malformed_requests_are_refused(name: str, at_once: bool) -> None:
    request = (MALFORMED | SMUGGLING)[name]
    calls: list[dict[str, Any]] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        calls.append(environ)
        return hello(environ, start_response)

    with serving(app) as server:
        with dial(server) as conn:
            if at_once:
                conn.write(request + GET)
            else:
                try:
                    for i in range(len(request)):
                        conn.write(request[i : i + 1])
                except OSError:
                    pass  # refused already
                try:
                    conn.close_write()
                except OSError:
                    pass
            got = answer(read_all(conn))
        assert got.status in ({501, 400} if name in SMUGGLING else {400, 505})
        assert got["Connection"] == "close"
        assert not calls
        assert served(server)


@pytest.mark.parametrize("name", BAD_CHUNKS)
@pytest.mark.parametrize("before", [b"", b"3\r\nabc\r\n"])
def test_bad_chunks(name: str, before: bytes) -> None:
    with serving(echo) as server:
        got = answer(talk(server, CHUNKED + before + BAD_CHUNKS[name] + GET))
        assert (got.status, got["Connection"]) == (400, "close")
        assert served(server)


def test_what_comes_before_the_mistake_is_answered() -> None:
    with serving(echo) as server:
        good = POST + b"Content-Length: 3\r\n\r\nabc"
        got = answers(talk(server, good + GET + good + b"garbage"))
        assert [(a.status, a.body) for a in got[:3]] == [(200, b"abc"), (200, b""), (200, b"abc")]
        assert [a.status for a in got[3:]] == [400]


# ---- fuzzing -----------------------------------------------------------------------------

VALID = [
    GET,
    GET_CLOSE,
    POST + b"Content-Length: 10\r\n\r\n0123456789",
    CHUNKED + b"3\r\nabc\r\n5;a=b\r\n01234\r\n0\r\nTrailer: 1\r\n\r\n",
    b"HEAD /a%20b?c=d#e HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    POST + b"Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nab",
    b"CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n",
    b"OPTIONS http://a/b HTTP/1.1\r\nHost: x\r\nCookie: a\r\nCookie: b\r\n\r\n",
]
SPICE = [
    b"\r\n",
    b"\r",
    b"\n",
    b"\0",
    b" ",
    b":",
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b"Content-Length: 3\r\n",
    b"\xff",
    b"%",
    b"HTTP/1.1",
    b"-1",
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Valid requests, one after the other, of which something was cut, doubled, changed or put in."""
    data = bytearray(b"".join(draw(st.lists(st.sampled_from(VALID), min_size=1, max_size=4))))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        end = draw(st.integers(at, min(at + 20, len(data))))
        how = draw(st.sampled_from(["cut", "double", "put", "change", "end"]))
        if how == "cut":
            del data[at:end]
        elif how == "double":
            data[at:at] = data[at:end]
        elif how == "put":
            data[at:at] = draw(st.one_of(st.sampled_from(SPICE), st.binary(max_size=8)))
        elif how == "change" and data:
            data[at] = draw(st.integers(0, 255))
        elif how == "end":
            del data[end:]
    return bytes(data)


STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


def check_stream(data: bytes) -> None:
    """Answers, as far as they can be told apart without the methods; the last may have closed the connection."""
    assert data == b"" or data.startswith(b"HTTP/1.1 ")
    for status in STATUS.findall(data):
        assert status in (b"100", b"200", b"400", b"408", b"413", b"414", b"417", b"431", b"501", b"505"), data


@settings(max_examples=300)
@given(st.data())
def test_fuzz(data: st.DataObject) -> None:
    """The server answers or closes, and neither hangs nor leaks; cut anywhere, the stream means the same."""
    server = _fuzzed()
    stream = data.draw(st.one_of(mutated(), st.binary(max_size=200)))
    whole = talk_quietly(server, [stream])
    check_stream(whole)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=4)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    cut = talk_quietly(server, pieces)
    check_stream(cut)
    assert statuses(cut) == statuses(whole)


def statuses(data: bytes) -> list[bytes]:
    """Without 100, which depends on whether the body is there already."""
    return [status for status in STATUS.findall(data) if status != b"100"]


def talk_quietly(server: wsgi.Server, pieces: list[bytes]) -> bytes:
    with dial(server) as conn:
        try:
            for piece in pieces:
                conn.write(piece)
                if len(pieces) > 1:
                    gort.gosched()
            conn.close_write()
        except OSError:
            pass  # it has closed before it heard all
        got = b""
        try:
            while data := conn.read(65536):
                got += data
        except ConnectionResetError:
            pass
        return got


_running: list[wsgi.Server] = []


def _fuzzed() -> wsgi.Server:
    return _running[0]


@pytest.fixture(autouse=True)
def fuzzed_server(request: pytest.FixtureRequest, leaves_nothing: None) -> Iterator[None]:
    """One server for all examples of the fuzz tests; what they leave behind shows at the end."""
    if not request.node.name.startswith("test_fuzz"):
        yield
        return
    with serving(echo) as server:
        _running.append(server)
        before = descriptors()
        try:
            yield
            spin_until(lambda: not server.connections, "connections ended")
            assert descriptors() <= before + 2, "descriptors left open"
            assert served(server)
        finally:
            _running.clear()


# ---- cut anywhere ------------------------------------------------------------------------

PIPELINE = (
    b"GET /1 HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n"
    b"POST /2 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"
    b"POST /3 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x\r\nc\r\n0\r\nT: t\r\n\r\n"
    b"GET /4 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
)
BODIES = [b"/1:", b"/2:body", b"/3:abc", b"/4:"]


def path_and_body(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    body = environ["wsgi.input"].read()
    start_response("200 OK", [])
    return [environ["PATH_INFO"].encode(), b":", body]


def test_pipelined_requests_cut_at_every_point() -> None:
    with serving(path_and_body) as server:
        for cut in range(len(PIPELINE) + 1):
            with dial(server) as conn:
                conn.write(PIPELINE[:cut])
                settle_server(server)  # it has read that
                conn.write(PIPELINE[cut:])
                assert [a.body for a in answers(read_all(conn))] == BODIES, cut


def test_pipelined_requests_byte_by_byte() -> None:
    with serving(path_and_body) as server, dial(server) as conn:
        for i in range(len(PIPELINE)):
            conn.write(PIPELINE[i : i + 1])
            settle_server(server)
        assert [a.body for a in answers(read_all(conn))] == BODIES


# ---- clients that go away -------------------------------------------------------------------


def reset(conn: net.Conn) -> None:
    conn.set_linger(0)
    conn.close()


@pytest.mark.parametrize("end", [reset, net.Conn.close, net.Conn.close_write], ids=["reset", "close", "half close"])
def test_the_client_is_gone_at_every_point_of_its_request(end: Any) -> None:
    with serving(path_and_body) as server:
        for cut in range(0, len(PIPELINE), 3):
            with dial(server) as conn:
                conn.write(PIPELINE[:cut])
                if cut % 2:
                    settle_server(server)
                end(conn)
                if not conn.closed:
                    try:
                        check_stream(read_all(conn))
                    except ConnectionResetError:
                        pass  # the body was not complete
        spin_until(lambda: not server.connections, "connections ended")
        assert served(server)


def test_the_client_is_gone_in_the_middle_of_the_answer() -> None:
    closed: list[int] = []

    class Endless:
        def __iter__(self) -> Iterator[bytes]:
            while True:
                yield bytes(10_000)

        def close(self) -> None:
            closed.append(1)

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        return Endless()

    with serving(app) as server:
        for i in range(30):
            with dial(server) as conn:
                conn.write(GET)
                conn.read_exactly(1 + i * 5000)
                if i % 2:
                    reset(conn)
        spin_until(lambda: len(closed) == 30 and not server.connections, "answers ended")


def test_the_client_is_gone_in_the_middle_of_a_file(tmp_path: Any) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(30_000_000))

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](path.open("rb"))

    with serving(app) as server:
        for end in (reset, net.Conn.close):
            with dial(server) as conn:
                conn.write(GET)
                conn.read_exactly(100_000)
                end(conn)
        spin_until(lambda: not server.connections, "connections ended")


def test_the_application_learns_that_the_client_is_gone() -> None:
    seen: list[tuple[int, str]] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        try:
            environ["wsgi.input"].read()
        except wsgi.RequestError as e:
            seen.append((e.status, str(e)))
            raise
        return []

    with serving(app) as server:
        for end in (reset, net.Conn.close):
            with dial(server) as conn:
                conn.write(POST + b"Content-Length: 10\r\n\r\nabc")
                settle_server(server)
                end(conn)
            spin_until(lambda: not server.connections, "connections ended")
    assert [status for status, _ in seen] == [0, 0]
    assert all("the client is gone" in text for _, text in seen)


# ---- clients that are slow or silent ------------------------------------------------------------


def test_slow_loris() -> None:
    """Clients that send a byte now and then hold nobody up, and are let go after `header_timeout` from their first."""
    with serving(header_timeout=0.2) as server:
        slow = [dial(server) for _ in range(100)]

        def drip(conn: net.Conn) -> bytes:
            with conn:
                try:
                    for byte in GET * 100:
                        conn.write(bytes([byte]))
                        gort.sleep(0.02)
                except OSError:
                    pass
                try:
                    return read_all(conn)
                except ConnectionResetError:
                    return b""

        drips = [go(drip, conn) for conn in slow]
        for _ in range(50):
            assert served(server)
        for g in drips:
            data = g.join()
            assert data == b"" or answer(data).status == 408
        spin_until(lambda: not server.connections, "connections ended")


def test_half_open_peers() -> None:
    """Who has vanished without a word costs a connection for no longer than the timeout of what it was at."""
    options = dict.fromkeys(["header_timeout", "keep_alive", "body_timeout", "write_timeout"], 0.1)

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        environ["wsgi.input"].read()
        start_response("200 OK", [])
        return iter([bytes(1 << 20)] * (64 if environ["PATH_INFO"] == "/large" else 1))

    with serving(app, **options) as server:
        silent = [dial(server) for _ in range(5)]
        silent[1].write(GET[:10])
        silent[2].write(POST + b"Content-Length: 3\r\n\r\na")
        silent[3].write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        silent[4].write(GET)
        read_answer(silent[4])
        spin_until(lambda: not server.connections, "connections ended")
        for conn in silent:
            conn.close()


def test_a_client_that_pipelines_and_never_reads() -> None:
    """It is not read from while its answers wait: what it sends stays with it."""
    with serving(lambda e, s: s("200 OK", []) and [bytes(100_000)], write_timeout=None) as server:
        conn = dial(server)

        def send() -> None:
            with pytest.raises(OSError):
                while True:
                    conn.write(GET * 1000)

        g = go(send)
        spin_until(
            lambda: (
                g.state == "waiting" and server.connections == 1 and all(c.state == "waiting" for c in server._active)
            )
        )
        (connection,) = (c for c in server._active)
        assert connection.wait_reason == "IO wait"
        assert served(server)
        conn.close()
        g.join()
        spin_until(lambda: not server.connections, "connections ended")


# ---- too many ------------------------------------------------------------------------------------------


def test_accept_storm() -> None:
    with serving() as server:
        for end in (reset, net.Conn.close):
            conns = [dial(server) for _ in range(300)]
            for conn in conns[::2]:
                conn.write(GET)
            for conn in conns:
                end(conn)
        assert served(server)
        spin_until(lambda: not server.connections, "connections ended")


@pytest.fixture
def no_more_descriptors() -> Iterator[Any]:
    """A function that uses up all descriptors but some, and gives one that returns them."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []

    def give_back() -> None:
        while taken:
            os.close(taken.pop())

    def use_up(but: int) -> Any:
        try:
            while True:
                taken.append(os.dup(2))
        except OSError:
            for _ in range(but):
                os.close(taken.pop())
        return give_back

    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, limits[0]), limits[1]))
    yield use_up
    give_back()
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_descriptor_exhaustion(no_more_descriptors: Any) -> None:
    """Nobody is accepted then, and the server goes on when there are some again."""
    with serving() as server, dial(server) as old:
        assert (old.write(GET), read_answer(old).status)[1] == 200
        give_back = no_more_descriptors(1)
        with dial(server) as new:  # it took the last
            new.write(GET)
            for _ in range(5):
                old.write(GET)
                assert read_answer(old).status == 200
            assert server.connections == 1
            give_back()
            assert read_answer(new).status == 200


def test_max_connections_under_a_storm() -> None:
    with serving(max_connections=3) as server:
        for g in [go(served, server) for _ in range(100)]:
            assert g.join()


# ---- TLS ------------------------------------------------------------------------------------------------


def test_tls_to_a_plain_port() -> None:
    with serving() as server:

        def client() -> None:
            conn = http.client.HTTPSConnection(
                "127.0.0.1", server.addr.port, context=client_context(), timeout=PATIENCE
            )
            try:
                with pytest.raises(ssl.SSLError):
                    conn.request("GET", "/")
            finally:
                conn.close()

        gort.blocking(client)
        assert served(server)


@pytest.mark.parametrize("data", [GET, b"", b"\x16\x03\x01", os.urandom(500)])
def test_other_things_to_a_tls_port(data: bytes) -> None:
    with serving(ssl_context=server_context()) as server:
        try:
            assert not talk(server, data).startswith(b"HTTP")
        except ConnectionResetError:
            pass
        spin_until(lambda: not server.connections, "connections ended")


def test_a_tls_handshake_that_stalls() -> None:
    with serving(ssl_context=server_context(), header_timeout=0.05) as server, dial(server) as conn:
        conn.write(b"\x16\x03\x01")
        assert conn.read(100) == b""


def test_tls_clients_that_go_away() -> None:
    with serving(path_and_body, ssl_context=server_context()) as server:

        def client(cut: int) -> None:
            conn = http.client.HTTPSConnection(
                "127.0.0.1", server.addr.port, context=client_context(), timeout=PATIENCE
            )
            conn.connect()
            conn.sock.sendall(PIPELINE[:cut])
            conn.close()

        for cut in range(0, len(PIPELINE), 20):
            gort.blocking(client, cut)
        spin_until(lambda: not server.connections, "connections ended")


# ---- the server is killed --------------------------------------------------------------------------------


def test_connections_killed_wherever_they_are() -> None:
    """A kill arrives at any wait; the connection is closed, the others go on."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        environ["wsgi.input"].read()
        start_response("200 OK", [])
        yield bytes(5_000_000)

    with serving(app) as server:
        for cut in range(0, len(PIPELINE), 10):
            with dial(server) as conn:
                conn.write(PIPELINE[:cut])
                spin_until(lambda: server.connections == 1)
                settle_server(server)
                for g in list(server._active):
                    g.kill()
                try:
                    read_all(conn)
                except ConnectionResetError:
                    pass
                spin_until(lambda: not server.connections, "connection ended")
        assert served(server)
