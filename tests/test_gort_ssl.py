"""gort.ssl: TLS sockets that wait by parking."""

from __future__ import annotations

import contextlib
import errno
import os
import socket as stdlib_socket
import ssl as stdlib
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from model_support import EVERYWHERE, PATIENCE, PlainThread, finish, no_descriptor_left, park, settle, spin_until

import gort
from gort import go, socket, ssl, sync

everywhere = pytest.mark.parametrize("where", EVERYWHERE)
CERTIFICATE = str(Path(__file__).with_name("data") / "localhost.pem")
Pair = tuple[Any, Any]


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    with no_descriptor_left():
        yield


def server_context() -> Any:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


def client_context() -> Any:
    return ssl.create_default_context(cafile=CERTIFICATE)


SERVER, CLIENT = server_context(), client_context()


def plain_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        a = socket.create_connection(listener.getsockname())
        return a, listener.accept()[0]


def tls_pair(client: Any = None, server: Any = None) -> Pair:
    """The client's end and the server's."""
    a, b = plain_pair()
    g = go((server or SERVER).wrap_socket, b, server_side=True)
    conn = (client or CLIENT).wrap_socket(a, server_hostname="localhost")
    return conn, g.join()


@pytest.fixture(params=["TLSv1_2", "TLSv1_3"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    context = client_context()
    context.maximum_version = ssl.TLSVersion[request.param]
    a, b = tls_pair(context)
    with a, b:
        assert a.version() == request.param.replace("_", ".")
        yield a, b


def fill(s: Any) -> None:
    """Write until it would wait; what has begun must be gone on with."""
    s.setblocking(False)
    with contextlib.suppress(ssl.SSLWantWriteError):
        while True:
            s.send(bytes(1 << 14))
    s.settimeout(None)


# ---- what there is -------------------------------------------------------------------------
def test_every_public_name_of_the_stdlib_is_there() -> None:
    assert [n for n in vars(stdlib) if not n.startswith("_") and not hasattr(ssl, n)] == []
    assert ssl.SSLError is stdlib.SSLError


def test_what_is_made_is_the_stdlibs_too() -> None:
    assert isinstance(SERVER, stdlib.SSLContext)
    assert type(CLIENT) is ssl.SSLContext
    assert type(ssl._create_unverified_context()) is ssl.SSLContext
    assert type(ssl._create_default_https_context()) is ssl.SSLContext
    a, b = tls_pair()
    with a, b:
        for s in (a, b):
            assert type(s) is ssl.SSLSocket
            assert isinstance(s, stdlib.SSLSocket)
            assert isinstance(s, socket.socket)
            assert isinstance(s, stdlib_socket.socket)
        assert a.getpeercert()["subject"] == ((("commonName", "localhost"),),)
        assert a.cipher() and a.context is CLIENT and not a.server_side and b.server_side
        assert a.server_hostname == "localhost" and a.session is not None and not a.session_reused
        assert a.get_channel_binding() is not None
        assert "gort.ssl.SSLSocket" in repr(a)
    with pytest.raises(TypeError):
        ssl.SSLSocket()


def test_a_context_of_the_stdlibs_makes_the_stdlibs_sockets() -> None:
    """Unless it is patched: see gort.monkey."""
    a, b = plain_pair()
    context = stdlib.create_default_context(cafile=CERTIFICATE)
    g = go(SERVER.wrap_socket, b, server_side=True)
    s = context.wrap_socket(stdlib_socket.socket(fileno=a.detach()), server_hostname="localhost")
    with s, g.join() as t:
        assert type(s) is stdlib.SSLSocket
        h = go(s.sendall, b"x")
        assert t.recv(1) == b"x"
        h.join()


# ---- reading and writing ---------------------------------------------------------------------
READING: dict[str, Callable[[Any], bytes]] = {
    "recv": lambda s: s.recv(100),
    "recv_into": lambda s: bytes((b := bytearray(100))[: s.recv_into(b)]),
    "read": lambda s: s.read(100),
    "read_into": lambda s: bytes((b := bytearray(100))[: s.read(100, b)]),
}
WRITING: dict[str, Callable[[Any, bytes], object]] = {
    "send": lambda s, data: s.send(data),
    "sendall": lambda s, data: s.sendall(data),
    "write": lambda s, data: s.write(data),
}
reading = pytest.mark.parametrize("read", READING.values(), ids=list(READING))
writing = pytest.mark.parametrize("write", WRITING.values(), ids=list(WRITING))


@everywhere
@reading
def test_reading_waits(pair: Pair, where: Any, read: Any) -> None:
    a, b = pair
    g = go(b.sendall, b"hello")  # which runs once we wait
    assert where(lambda: read(a)) == b"hello"
    g.join()


@writing
def test_writing_waits_for_room(pair: Pair, write: Any) -> None:
    a, b = pair
    total = [0]

    def send() -> None:
        for _ in range(200):
            data = bytes(100_000)
            total[0] += len(data) if (n := write(a, data)) is None else n  # type: ignore[operator]
        a.shutdown(socket.SHUT_WR)

    g = go(send)
    settle(g)
    assert not g.done
    got = 0
    while data := b.recv(1 << 16):
        got += len(data)
    g.join()
    assert got == total[0]


@everywhere
def test_large_amounts_both_ways(pair: Pair, where: Any) -> None:
    a, b = pair
    data = os.urandom(2_000_000)

    def echo() -> None:
        left = len(data)
        while left:
            piece = b.recv(65536)
            left -= len(piece)
            b.sendall(piece)

    got = bytearray()

    def read() -> None:
        while len(got) < len(data):
            got.extend(a.recv(65536))

    gs = [go(echo), go(read)]
    where(lambda: a.sendall(memoryview(data)))
    finish(*gs)
    assert got == data


def test_what_several_write_does_not_mix(pair: Pair) -> None:
    a, b = pair
    size = 200_000
    gs = [go(a.sendall, bytes([i]) * size) for i in range(6)]
    got = bytearray()
    while len(got) < 6 * size:
        got += b.recv(65536)
    finish(*gs)
    assert {bytes(got[i : i + size]) for i in range(0, len(got), size)} == {bytes([i]) * size for i in range(6)}


def test_several_readers_and_threads(pair: Pair) -> None:
    a, b = pair
    total, n = [0], 20_000

    def reader() -> None:
        while data := b.recv(7):
            total[0] += len(data)

    gs = [park(reader) for _ in range(5)]
    threads = [PlainThread(reader) for _ in range(2)]
    for i in range(n // 10):
        a.sendall(b"0123456789")
        if i % 3 == 0:
            gort.gosched()
    spin_until(lambda: total[0] == n, "all is received")
    a.shutdown(socket.SHUT_WR)
    finish(*gs)
    for t in threads:
        t.result()


def test_makefile_and_sendfile(pair: Pair, tmp_path: Path) -> None:
    a, b = pair
    path = tmp_path / "file"
    path.write_bytes(os.urandom(300_000))
    with a.makefile("rb") as f, path.open("rb") as source:
        g = go(b.sendfile, source)
        assert f.read(300_000) == path.read_bytes()
        assert g.join() == 300_000


def test_what_is_not_allowed_of_tls_sockets(pair: Pair) -> None:
    a, _ = pair
    for call in (
        lambda: a.recv(1, 1),
        lambda: a.sendall(b"x", 1),
        lambda: a.sendto(b"x", ("127.0.0.1", 1)),
        lambda: a.recvfrom(1),
        lambda: a.sendmsg([b"x"]),
        lambda: a.dup(),
        lambda: a.sendall("text"),
    ):
        with pytest.raises((ValueError, NotImplementedError, TypeError)):
            call()


# ---- timeouts, closing, killing --------------------------------------------------------------
@reading
def test_a_read_that_is_not_in_time(pair: Pair, read: Any) -> None:
    a, b = pair
    a.settimeout(0.005)
    with pytest.raises(TimeoutError, match="timed out"):
        read(a)
    a.setblocking(False)
    with pytest.raises(ssl.SSLWantReadError):
        read(a)
    a.settimeout(None)
    b.sendall(b"later")
    assert read(a) == b"later"
    assert a.gettimeout() is None and a.getblocking()


@writing
def test_a_write_that_is_not_in_time(pair: Pair, write: Any) -> None:
    a, _ = pair
    a.settimeout(0.005)
    with pytest.raises(TimeoutError, match="timed out"):
        while True:
            write(a, bytes(1 << 14))
    a.setblocking(False)
    with pytest.raises(ssl.SSLWantWriteError):
        while True:
            write(a, bytes(1 << 14))


def test_a_handshake_that_is_not_in_time() -> None:
    a, b = plain_pair()
    with b:
        a.settimeout(0.005)
        with pytest.raises(TimeoutError, match="handshake operation timed out"):
            CLIENT.wrap_socket(a, server_hostname="localhost")


def test_the_timeout_goes_over_to_the_tls_socket() -> None:
    a, b = plain_pair()
    a.settimeout(25)
    g = go(SERVER.wrap_socket, b, server_side=True)
    with CLIENT.wrap_socket(a, server_hostname="localhost") as s, g.join() as t:
        assert s.gettimeout() == 25.0 and t.gettimeout() is None
        assert a.fileno() == -1


def test_handshake_by_hand_in_non_blocking_mode() -> None:
    a, b = plain_pair()
    b.setblocking(False)
    g = go(CLIENT.wrap_socket, a, server_hostname="localhost")
    t = SERVER.wrap_socket(b, server_side=True, do_handshake_on_connect=False)
    with t:
        with pytest.raises(ssl.SSLWantReadError):
            t.do_handshake()
        t.do_handshake(block=True)
        g.join().close()


@reading
def test_closing_wakes_who_reads(pair: Pair, read: Any) -> None:
    a, _ = pair
    gs = [park(read, a) for _ in range(3)]
    a.close()
    for g in gs:
        with pytest.raises(OSError) as e:
            g.join()
        assert e.value.errno == errno.EBADF


def test_closing_wakes_who_writes(pair: Pair) -> None:
    a, _ = pair
    fill(a)
    gs = [park(a.sendall, bytes(1 << 14)) for _ in range(3)]
    a.close()
    for g in gs:
        with pytest.raises(OSError) as e:
            g.join()
        assert e.value.errno == errno.EBADF


def test_a_kill_while_reading_loses_nothing(pair: Pair) -> None:
    a, b = pair
    first, second = park(a.recv, 10), park(a.recv, 10)
    first.kill()
    assert first.join() is None
    b.sendall(b"kept")
    assert second.join() == b"kept"


def test_a_kill_in_the_handshake() -> None:
    a, b = plain_pair()
    with b:
        g = park(CLIENT.wrap_socket, a, server_hostname="localhost")
        g.kill()
        assert g.join() is None
        assert b.recv(10_000)  # the hello
        assert b.recv(10) == b""  # and it has closed its end


def test_unwrap_gives_the_plain_socket_back(pair: Pair) -> None:
    a, b = pair
    g = go(b.unwrap)
    plain_a, plain_b = a.unwrap(), g.join()
    h = park(plain_a.recv, 10)
    plain_b.sendall(b"plain")
    assert h.join() == b"plain"
    plain_a.settimeout(0.005)
    with pytest.raises(TimeoutError):
        plain_a.recv(1)
    plain_a.settimeout(None)
    fd = plain_a.detach()
    with socket.socket(fileno=fd) as s:
        assert os.get_blocking(fd)
        plain_b.sendall(b"x")
        assert s.recv(1) == b"x"


# ---- faults --------------------------------------------------------------------------------------
def reset(s: Any) -> None:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def test_tls_to_a_plain_port() -> None:
    a, b = plain_pair()
    with b:
        b.sendall(b"220 mail.example ready\r\n")
        with pytest.raises(ssl.SSLError, match=r"WRONG_VERSION_NUMBER|wrong version|record layer"):
            CLIENT.wrap_socket(a, server_hostname="localhost")
    assert a.fileno() == -1


def test_plain_text_to_a_tls_port() -> None:
    a, b = plain_pair()
    with a:
        a.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises(ssl.SSLError, match=r"(?i)http.request"):
            SERVER.wrap_socket(b, server_side=True)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_the_other_side_goes_in_the_handshake(how: str) -> None:
    a, b = plain_pair()
    g = park(CLIENT.wrap_socket, a, server_hostname="localhost")
    b.recv(100)
    reset(b) if how == "reset" else b.close()
    with pytest.raises(OSError) as e:
        g.join()
    assert isinstance(e.value, ssl.SSLEOFError | ConnectionResetError | ssl.SSLSyscallError | BrokenPipeError)


def test_the_other_side_goes_without_a_goodbye(pair: Pair) -> None:
    a, b = pair
    g = park(a.recv, 10)
    stdlib_socket.socket(fileno=b.detach()).close()
    assert g.join() == b""  # suppress_ragged_eofs
    a.suppress_ragged_eofs = False
    with pytest.raises(ssl.SSLEOFError):
        a.recv(10)


def test_a_reset_in_the_middle(pair: Pair) -> None:
    a, b = pair
    g = park(a.recv, 10)
    reset(b)
    if sys.version_info >= (3, 13):
        with pytest.raises(ConnectionResetError):
            g.join()
    else:
        assert g.join() == b""  # before, the stdlib took it for an end without a goodbye
    with pytest.raises(OSError):
        while True:
            a.sendall(bytes(1 << 14))


def test_an_end_by_tcp_alone(pair: Pair) -> None:
    """To OpenSSL the connection has failed then; writing says so instead of waiting."""
    a, b = pair
    g = park(a.recv, 10)
    stdlib_socket.socket.shutdown(b, socket.SHUT_WR)
    assert g.join() == b""
    for _ in range(2):
        with pytest.raises(ssl.SSLEOFError):
            a.sendall(b"still")


def test_garbage_in_the_middle(pair: Pair) -> None:
    a, b = pair
    os.write(b.fileno(), b"this is no TLS record at all, not in the least")
    with pytest.raises(ssl.SSLError):
        a.recv(100)


def test_a_wrong_certificate_or_name() -> None:
    for context, name in ((ssl.create_default_context(), "localhost"), (CLIENT, "elsewhere.example")):
        a, b = plain_pair()
        g = go(SERVER.wrap_socket, b, server_side=True)
        with pytest.raises(ssl.SSLCertVerificationError):
            context.wrap_socket(a, server_hostname=name)
        with pytest.raises(OSError):
            g.join().recv(1)  # 1.3: the server hears of it with its first read


# ---- servers ---------------------------------------------------------------------------------------
def test_sni_chooses_the_context() -> None:
    server, other = server_context(), server_context()
    seen = []

    def choose(conn: Any, name: str, context: Any) -> None:
        gort.sleep(0.001)  # it may park
        seen.append((type(conn), name, context is server))
        conn.context = other

    server.sni_callback = choose
    a, b = tls_pair(None, server)
    with a, b:
        assert seen == [(ssl.SSLSocket, "localhost", True)]
        assert b.context is other


def test_a_callback_may_close_the_connection() -> None:
    server = server_context()
    server.sni_callback = lambda conn, name, context: conn.close()
    a, b = plain_pair()
    g = go(server.wrap_socket, b, server_side=True)
    with pytest.raises(OSError):
        CLIENT.wrap_socket(a, server_hostname="localhost")
    with pytest.raises((OSError, ValueError)):
        g.join()


def test_many_clients_share_two_contexts() -> None:
    served = sync.WaitGroup()

    def serve(conn: socket.socket) -> None:
        with SERVER.wrap_socket(conn, server_side=True) as s:
            while data := s.recv(1000):
                s.sendall(data)

    def client(i: int) -> None:
        s = CLIENT.wrap_socket(socket.create_connection(listener.getsockname()), server_hostname="localhost")
        with s:
            for k in range(5):
                text = f"{i} says {k}".encode()
                s.sendall(text)
                assert s.recv(1000) == text

    def accept() -> None:
        for _ in range(40):
            served.go(serve, listener.accept()[0])

    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        acceptor = go(accept)
        threads = [PlainThread(lambda i=i: client(i)) for i in range(5)]  # type: ignore[misc]
        finish(*[go(client, i) for i in range(5, 40)])
        for t in threads:
            t.result()
        acceptor.join()
        served.wait()


def test_a_listener_may_be_wrapped() -> None:
    with SERVER.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True) as listener:
        g = park(listener.accept)
        s = CLIENT.wrap_socket(socket.socket(), server_hostname="localhost")
        with s:
            s.connect(listener.getsockname())
            t, address = g.join()
            with t:
                assert address == s.getsockname()
                t.sendall(b"hello")
                assert s.recv(10) == b"hello"


def test_a_session_is_used_again() -> None:
    context = client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    a, b = tls_pair(context)
    with a, b:
        session = a.session
    c, d = plain_pair()
    g = go(SERVER.wrap_socket, d, server_side=True)
    with context.wrap_socket(c, server_hostname="localhost", session=session) as s, g.join():
        assert s.session_reused


def test_get_server_certificate() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            conn, _ = listener.accept()
            with contextlib.suppress(OSError), SERVER.wrap_socket(conn, server_side=True) as s:
                s.recv(1)

        g = go(serve)
        pem = ssl.get_server_certificate(listener.getsockname(), timeout=PATIENCE)
        g.join()
    assert pem.strip() in Path(CERTIFICATE).read_text()
