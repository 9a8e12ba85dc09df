"""gort.socket: the stdlib's sockets, waiting by parking. Where the stdlib has an answer, it is compared with."""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import gc
import os
import pickle
import resource
import select
import socket as stdlib
import struct
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from model_support import (
    EVERYWHERE,
    PATIENCE,
    PlainThread,
    finish,
    no_descriptor_left,
    output_of,
    park,
    settle,
    spin_until,
)

import gort
import gort.polling
from gort import blocking, go, socket, sync

everywhere = pytest.mark.parametrize("where", EVERYWHERE)
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    with no_descriptor_left():
        yield


@pytest.fixture
def closing() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def tcp() -> Pair:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        a = socket.create_connection(listener.getsockname())
        return a, listener.accept()[0]


def tcp6() -> Pair:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        a = socket.create_connection(listener.getsockname()[:2])
        return a, listener.accept()[0]


def unix() -> Pair:
    return socket.socketpair()


def udp() -> Pair:
    a, b = socket.socket(type=socket.SOCK_DGRAM), socket.socket(type=socket.SOCK_DGRAM)
    a.bind(("127.0.0.1", 0))
    b.bind(("127.0.0.1", 0))
    a.connect(b.getsockname())
    b.connect(a.getsockname())
    return a, b


def unix_packets() -> Pair:
    return socket.socketpair(type=socket.SOCK_DGRAM)


ALL = [tcp, tcp6, unix, udp, unix_packets]
STREAMS = [tcp, tcp6, unix]
PACKETS = [udp, unix_packets]


@pytest.fixture(params=ALL)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    a, b = request.param()
    with a, b:
        yield a, b


@pytest.fixture(params=STREAMS)
def stream(request: pytest.FixtureRequest) -> Iterator[Pair]:
    a, b = request.param()
    with a, b:
        yield a, b


@pytest.fixture
def conn() -> Iterator[Pair]:
    a, b = tcp()
    with a, b:
        yield a, b


def fill(s: socket.socket) -> int:
    """Send until it would wait."""
    timeout, n = s.gettimeout(), 0
    s.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            n += s.send(bytes(1 << 12))
    s.settimeout(timeout)
    return n


def drain(s: socket.socket, n: int) -> None:
    while n:
        n -= len(s.recv(min(n, 1 << 16)))


def reset(s: socket.socket) -> None:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


RECEIVING: dict[str, Callable[[socket.socket], bytes]] = {
    "recv": lambda s: s.recv(100),
    "recv_into": lambda s: bytes((b := bytearray(100))[: s.recv_into(b)]),
    "recvfrom": lambda s: s.recvfrom(100)[0],
    "recvfrom_into": lambda s: bytes((b := bytearray(100))[: s.recvfrom_into(b)[0]]),
    "recvmsg": lambda s: s.recvmsg(100)[0],
    "recvmsg_into": lambda s: bytes((b := bytearray(100))[: s.recvmsg_into([b])[0]]),
    "recvmsg_into a generator": lambda s: bytes((b := bytearray(100))[: s.recvmsg_into(x for x in [b])[0]]),
    "peek": lambda s: s.recv(s.recv(100, socket.MSG_PEEK).__len__()),
}
SENDING: dict[str, Callable[[socket.socket, bytes], object]] = {
    "send": lambda s, data: s.send(data),
    "sendall": lambda s, data: s.sendall(data),
    "sendmsg": lambda s, data: s.sendmsg([data[:1], memoryview(data)[1:]]),
    "sendmsg of a generator": lambda s, data: s.sendmsg((x for x in [data]), (y for y in ())),
}
receiving = pytest.mark.parametrize("receive", RECEIVING.values(), ids=list(RECEIVING))
sending = pytest.mark.parametrize("send", SENDING.values(), ids=list(SENDING))


# ---- what there is -----------------------------------------------------------------------
def test_every_public_name_of_the_stdlib_is_there() -> None:
    missing = [n for n in stdlib.__all__ if getattr(socket, n, None) is None]
    assert missing == []
    assert set(socket.__all__) == set(stdlib.__all__)
    assert socket.AF_INET is stdlib.AF_INET
    assert socket.timeout is TimeoutError


def test_a_socket_is_one_of_the_stdlibs_too() -> None:
    with socket.socket() as ours, stdlib.socket() as theirs:
        assert isinstance(ours, stdlib.socket)
        assert isinstance(theirs, socket.socket)
        assert not isinstance(3, socket.socket)
        assert issubclass(socket.socket, stdlib.socket) and issubclass(stdlib.socket, socket.socket)

        class Derived(socket.socket):
            pass

        assert not isinstance(ours, Derived) and not issubclass(stdlib.socket, Derived)
        assert repr(ours).startswith(f"<gort.socket.socket fd={ours.fileno()}, family=")
        with pytest.raises(TypeError, match="cannot pickle"):
            pickle.dumps(ours)


def test_nothing_of_ours_can_be_reached_from_python() -> None:
    with socket.socket() as s:
        assert not hasattr(s, "_state")
        with pytest.raises(AttributeError):
            s._state = 3


def test_one_that_was_never_made_has_a_bad_descriptor() -> None:
    s = socket.socket.__new__(socket.socket)
    for call in (lambda: s.recv(1), lambda: s.sendall(b"x"), s.accept, lambda: s.settimeout(1), lambda: s.recvmsg(1)):
        with pytest.raises(OSError) as e:
            call()
        assert e.value.errno == errno.EBADF
    assert s.fileno() == -1 and s.gettimeout() is None and s.getblocking()


def test_other_objects_are_refused() -> None:
    with stdlib.socket() as theirs:
        for method in (socket.socket.recv, socket.socket.settimeout):
            with pytest.raises(TypeError):
                method(theirs, 1)
        with pytest.raises(TypeError):
            socket.socket.recv(3, 1)


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.recv(),
        lambda s: s.recv(-1),
        lambda s: s.recv("x"),
        lambda s: s.recv(1.5),
        lambda s: s.recv(1 << 80),
        lambda s: s.recv(1, 1 << 40),
        lambda s: s.recv_into(b"readonly"),
        lambda s: s.recv_into(bytearray(3), 4),
        lambda s: s.recv_into(bytearray(3), -1),
        lambda s: s.recv_into(),
        lambda s: s.recv_into(bytearray(3), nothing=1),
        lambda s: s.recv_into(bytearray(3), buffer=bytearray(3)),
        lambda s: s.send(),
        lambda s: s.send("text"),
        lambda s: s.sendall(None),
        lambda s: s.sendall(b"x", 0, 0),
        lambda s: s.sendto(b"x"),
        lambda s: s.recvfrom(-1),
        lambda s: s.recvmsg("x"),
        lambda s: s.settimeout(-1),
        lambda s: s.settimeout("x"),
        lambda s: s.settimeout(float("nan")),
        lambda s: s.settimeout(1e300),
        lambda s: s.settimeout(1 << 100),
        lambda s: s.connect(("127.0.0.1",)),
        lambda s: s.connect(("127.0.0.1", 1 << 20)),
        lambda s: s.bind("nowhere"),
    ],
)
def test_bad_arguments_raise_what_the_stdlib_raises(call: Callable[[Any], object]) -> None:
    raised = []
    for module in (stdlib, socket):
        with module.socket() as s:
            s.settimeout(5)
            with pytest.raises(Exception) as e:
                call(s)
            raised.append(type(e.value))
            assert s.gettimeout() == 5
    assert raised[0] is raised[1]


# ---- sending and receiving ------------------------------------------------------------------
@everywhere
@receiving
def test_receiving_waits_for_what_is_sent(pair: Pair, where: Any, receive: Any) -> None:
    a, b = pair
    g = go(a.sendall, b"hello")  # which runs once we wait
    assert where(lambda: receive(b)) == b"hello"
    g.join()


@everywhere
@sending
def test_sending_waits_for_room(stream: Pair, where: Any, send: Any) -> None:
    a, b = stream
    n = fill(a)
    g = go(drain, b, n)
    where(lambda: send(a, b"!"))
    g.join()
    assert b.recv(10) == b"!"


@everywhere
def test_a_large_sendall_arrives_whole(stream: Pair, where: Any) -> None:
    a, b = stream
    data = os.urandom(3_000_000)
    got = bytearray()

    def read() -> None:
        while len(got) < len(data):
            got.extend(b.recv(100_000))

    g = go(read)
    where(lambda: a.sendall(data))
    g.join()
    assert got == data


def test_recv_of_every_size(stream: Pair) -> None:
    a, b = stream
    for n in (1, 100, 16384, 65535, 65536, 65537, 200_000, 2_000_000):
        data = os.urandom(n)
        g = go(a.sendall, data)
        got = bytearray()
        while len(got) < n:
            got += b.recv(n)
        g.join()
        assert got == data
    assert b.recv(0) == b""


def test_a_large_packet_is_received_whole() -> None:
    a, b = unix_packets()
    with a, b:
        a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400_000)
        data = os.urandom(100_000)
        for _ in range(3):
            a.send(data)
            assert b.recv(200_000) == data
        a.send(b"")
        assert b.recv(10) == b""


def test_flags_of_recv(conn: Pair) -> None:
    a, b = conn
    a.sendall(b"abcdef")
    assert b.recv(3, socket.MSG_PEEK) == b"abc"
    assert b.recv(3) == b"abc"
    g = park(b.recv, 10, socket.MSG_WAITALL)
    a.sendall(b"ghi")
    settle(g)
    assert not g.done
    a.sendall(b"jklm")
    assert g.join() == b"defghijklm"
    buffer = bytearray(6)
    g = park(b.recv_into, buffer, 6, socket.MSG_WAITALL)
    a.sendall(b"1234")
    settle(g)
    a.sendall(b"56")
    assert g.join() == 6 and buffer == b"123456"
    with pytest.raises(BlockingIOError):
        b.recv(1, socket.MSG_DONTWAIT)
    with pytest.raises(BlockingIOError):
        b.recvmsg(1, 0, socket.MSG_ERRQUEUE)


def test_a_short_read_and_then_others_lose_nothing(conn: Pair) -> None:
    """What a recv() took for all there was may be less by the time of the next one."""
    a, b = conn
    for other in RECEIVING.values():
        g = park(b.recv, 100)
        a.sendall(b"x")
        assert g.join() == b"x"  # all there was
        g = park(other, b)
        a.sendall(b"0123456789" * 30)
        got = g.join()
        assert len(got) in (100, 300)
        while len(got) < 300:
            got += b.recv(100)
        assert got == b"0123456789" * 30


def test_urgent_data_in_the_middle_does_not_stop_a_reader(conn: Pair) -> None:
    a, b = conn
    g = park(b.recv, 100)
    a.sendall(b"1")
    assert g.join() == b"1"  # the poller knows it from now on
    b.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    got = b""
    a.sendall(b"abc")
    a.send(b"!", socket.MSG_OOB)
    a.sendall(b"def")
    while len(got) < 7:
        got += b.recv(100)
    assert got == b"abc!def"


def test_the_end_of_the_stream(stream: Pair) -> None:
    a, b = stream
    g = park(b.recv, 10)
    a.shutdown(socket.SHUT_WR)
    assert g.join() == b""
    assert b.recv(10) == b""
    b.sendall(b"the other way")  # half-open
    assert a.recv(100) == b"the other way"


def test_a_reset_in_the_middle(conn: Pair) -> None:
    a, b = conn
    g = park(b.recv, 10)
    reset(a)
    with pytest.raises(ConnectionResetError):
        g.join()
    with pytest.raises(BrokenPipeError):
        while True:
            b.sendall(b"x")


def test_a_reset_wakes_a_sender(conn: Pair) -> None:
    a, b = conn
    fill(a)
    g = park(a.sendall, bytes(100_000))
    reset(b)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        g.join()


def test_shutdown_of_ones_own_side_wakes_the_reader(stream: Pair) -> None:
    a, _ = stream
    g = park(a.recv, 10)
    a.shutdown(socket.SHUT_RD)
    assert g.join() == b""


@pytest.mark.parametrize("make", PACKETS)
def test_sendto_and_recvfrom(make: Any) -> None:
    if make is udp:
        a, b = socket.socket(type=socket.SOCK_DGRAM), socket.socket(type=socket.SOCK_DGRAM)
        a.bind(("127.0.0.1", 0))
        b.bind(("127.0.0.1", 0))
    else:
        a, b = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
        a.bind(f"\0gort-a-{os.getpid()}")
        b.bind(f"\0gort-b-{os.getpid()}")
    with a, b:
        g = park(b.recvfrom, 100)
        assert a.sendto(b"packet", b.getsockname()) == 6
        assert g.join() == (b"packet", a.getsockname())
        assert a.sendto(b"again", 0, b.getsockname()) == 5
        assert b.recvfrom(2) == (b"ag", a.getsockname())


def test_sendto_a_full_unix_socket_waits_for_room() -> None:
    a, b, other = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(3))
    with a, b, other:
        b.bind(f"\0gort-full-{os.getpid()}")
        other.setblocking(False)
        n = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                other.sendto(b"x", b.getsockname())
                n += 1
        a.settimeout(0.01)
        with pytest.raises(TimeoutError):
            a.sendto(b"last", b.getsockname())
        a.settimeout(None)
        g = park(a.sendto, b"last", b.getsockname())
        for _ in range(n):
            b.recv(10)
        assert b.recv(10) == b"last"
        g.join()


def test_descriptors_are_sent_and_received() -> None:
    a, b = unix()
    with a, b, socket.socket() as s:
        g = park(socket.recv_fds, b, 10, 2)
        socket.send_fds(a, [b"fds"], [s.fileno()])
        data, fds, _, _ = g.join()
        assert data == b"fds"
        with socket.socket(fileno=fds[0]) as same:
            assert os.path.sameopenfile(same.fileno(), s.fileno())
        a.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [s.fileno()]))])
        _, anc, _, _ = b.recvmsg(1, socket.CMSG_LEN(4))
        os.close(array.array("i", anc[0][2])[0])


@pytest.mark.parametrize("timeout", [None, 30.0])
def test_sendfile(tmp_path: Path, stream: Pair, timeout: float | None) -> None:
    a, b = stream
    a.settimeout(timeout)
    path = tmp_path / "file"
    path.write_bytes(os.urandom(10_000_000))
    with path.open("rb") as f:
        g = go(a.sendfile, f, 10, 9_000_000)
        settle(g)
        assert not g.done
        got = bytearray()
        while len(got) < 9_000_000:
            got += b.recv(1 << 16)
        assert g.join() == 9_000_000
        assert f.tell() == 9_000_010
    assert got == path.read_bytes()[10:9_000_010]
    assert a.gettimeout() == timeout
    assert is_blocking(a) == (timeout is None)


def test_makefile(stream: Pair) -> None:
    a, b = stream
    with a.makefile("rwb") as f, b.makefile("r", encoding="utf-8", newline="\n") as g:
        f.write(b"one\ntwo\n")
        f.flush()
        assert [g.readline(), g.readline()] == ["one\n", "two\n"]
        line = park(f.readline)
        b.sendall(b"half")
        settle(line)
        assert not line.done
        b.sendall(b" line\n")
        assert line.join() == b"half line\n"
    a.settimeout(0.01)
    with a.makefile("rb") as f, pytest.raises(TimeoutError):
        f.read(1)


# ---- timeouts and modes --------------------------------------------------------------------------
@everywhere
@receiving
def test_a_receive_that_is_not_in_time(pair: Pair, where: Any, receive: Any) -> None:
    _, b = pair
    b.settimeout(0.005)
    with pytest.raises(TimeoutError) as e:
        where(lambda: receive(b))
    assert e.value.args == ("timed out",)
    b.setblocking(False)
    with pytest.raises(BlockingIOError) as blocked:
        where(lambda: receive(b))
    assert blocked.value.errno == errno.EAGAIN


@sending
def test_a_send_that_is_not_in_time(stream: Pair, send: Any) -> None:
    a, _ = stream
    a.settimeout(0.005)
    with pytest.raises(TimeoutError):
        while True:
            send(a, bytes(100_000))
    a.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:  # what TCP has sent meanwhile has made room
            send(a, bytes(100_000))


def test_accept_and_connect_that_are_not_in_time(closing: contextlib.ExitStack) -> None:
    listener = closing.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
    listener.settimeout(0.005)
    with pytest.raises(TimeoutError):
        listener.accept()
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.accept()
    waiting = []
    while True:  # until its queue is full, and connecting is not answered any more
        s = closing.enter_context(socket.socket())
        s.settimeout(0.05)
        waiting.append(s)
        if s.connect_ex(listener.getsockname()):
            break
    s = closing.enter_context(socket.socket())
    s.settimeout(0.005)
    with pytest.raises(TimeoutError):
        s.connect(listener.getsockname())
    s = closing.enter_context(socket.socket())
    s.settimeout(0.005)
    assert s.connect_ex(listener.getsockname()) == errno.EWOULDBLOCK
    s = closing.enter_context(socket.socket())
    s.setblocking(False)
    assert s.connect_ex(listener.getsockname()) == errno.EINPROGRESS


def is_blocking(s: socket.socket | int) -> bool:
    return not fcntl.fcntl(s, fcntl.F_GETFL) & os.O_NONBLOCK


@pytest.mark.parametrize("module", [stdlib, socket], ids=["stdlib", "gort"])
def test_timeouts_and_the_descriptors_mode(module: Any) -> None:
    a, b = module.socketpair()
    with a, b:
        assert (a.gettimeout(), a.timeout, a.getblocking(), is_blocking(a)) == (None, None, True, True)
        for value, seconds in ((1, 1.0), (0.25, 0.25), (1e-10, 1e-9), (1 / 3, 0.333333334), (True, 1.0), (10**6, 1e6)):
            a.settimeout(value)
            assert (a.gettimeout(), a.timeout, a.getblocking(), is_blocking(a)) == (seconds, seconds, True, False)
        for value in (0, 0.0, -0.0, False):
            a.settimeout(value)
            assert (a.gettimeout(), a.getblocking(), is_blocking(a)) == (0.0, False, False)
        a.setblocking(True)
        assert (a.gettimeout(), is_blocking(a)) == (None, True)
        a.setblocking(False)
        assert (a.gettimeout(), is_blocking(a)) == (0.0, False)
        a.settimeout(None)
        assert is_blocking(a)
        with a.dup() as c:
            assert c.gettimeout() is None
    with module.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as s:
        assert (s.gettimeout(), s.type, is_blocking(s)) == (0.0, socket.SOCK_STREAM, False)
    module.setdefaulttimeout(2.5)
    try:
        with module.socket() as s:
            assert (s.gettimeout(), is_blocking(s)) == (2.5, False)
    finally:
        module.setdefaulttimeout(None)
    for s in (a, module.socket()):
        s.close()
        for call in (lambda s=s: s.settimeout(1), lambda s=s: s.setblocking(True)):
            with pytest.raises(OSError) as e:
                call()
            assert e.value.errno == errno.EBADF


def test_connecting_and_accepting_leave_the_mode_as_it_was() -> None:
    a, b = tcp()
    with a, b:
        assert is_blocking(a) and is_blocking(b) and a.gettimeout() is b.gettimeout() is None
    listener = socket.create_server(("127.0.0.1", 0))
    g = park(listener.accept)
    with socket.create_connection(listener.getsockname(), timeout=5) as c:
        assert c.gettimeout() == 5.0 and not is_blocking(c)
        g.join()[0].close()
    fd = listener.detach()
    assert is_blocking(fd)
    with socket.socket(fileno=fd) as listener, socket.socket() as c:
        listener.settimeout(0)
        c.connect(listener.getsockname())
        assert is_blocking(c)


def test_the_kernels_own_timeouts_count_in_blocking_mode(pair: Pair) -> None:
    _, b = pair
    b.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 5000))
    for receive in RECEIVING.values():
        with pytest.raises(BlockingIOError):
            receive(b)
    with b.dup() as c, pytest.raises(BlockingIOError):
        c.recv(1)


# ---- closing, killing -----------------------------------------------------------------------------


@receiving
def test_closing_wakes_who_receives(pair: Pair, receive: Any) -> None:
    _, b = pair
    gs = [park(receive, b) for _ in range(3)]
    b.close()
    for g in gs:
        with pytest.raises(OSError) as e:
            g.join()
        assert e.value.errno == errno.EBADF


@sending
def test_closing_wakes_who_sends(stream: Pair, send: Any) -> None:
    a, _ = stream
    fill(a)
    gs = [park(send, a, b"xyz") for _ in range(3)]
    a.close()
    for g in gs:
        with pytest.raises(OSError) as e:
            g.join()
        assert e.value.errno == errno.EBADF


def test_closing_wakes_who_accepts_and_who_connects(closing: contextlib.ExitStack) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    gs = [park(listener.accept) for _ in range(3)]
    full = closing.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
    while True:
        s = closing.enter_context(socket.socket())
        s.settimeout(0.05)
        if s.connect_ex(full.getsockname()):
            break
    s = socket.socket()
    gs.append(park(s.connect, full.getsockname()))
    listener.close()
    s.close()
    for g in gs:
        with pytest.raises(OSError) as e:
            g.join()
        assert e.value.errno == errno.EBADF


def test_closing_wakes_plain_threads() -> None:
    a, b = tcp()
    began = sync.Semaphore(3)

    def receive() -> None:
        began.release()
        b.recv(10)

    began.acquire(3)
    threads = [PlainThread(receive) for _ in range(3)]
    began.acquire(3)
    gort.sleep(0.01)  # most wait by then; to come later is an error as well
    b.close()
    for t in threads:
        with pytest.raises(OSError) as e:
            t.result()
        assert e.value.errno == errno.EBADF
    a.close()


def test_detach_wakes_who_waits_and_gives_the_descriptor_away() -> None:
    a, b = tcp()
    g = park(b.recv, 10)
    fd = b.detach()
    with pytest.raises(OSError) as e:
        g.join()
    assert e.value.errno == errno.EBADF
    assert b.fileno() == -1 and b.detach() == -1
    with socket.socket(fileno=fd) as again, a:
        g = park(again.recv, 10)
        a.sendall(b"still open")
        assert g.join() == b"still open"


def test_after_close_everything_has_a_bad_descriptor() -> None:
    a, b = tcp()
    b.recv_into  # noqa: B018
    a.sendall(b"x")
    b.recv(1)
    a.close()
    b.close()
    calls: list[Callable[[], object]] = [lambda r=r: r(b) for r in RECEIVING.values()]  # type: ignore[misc]
    calls += [lambda s=s: s(b, b"x") for s in SENDING.values()]  # type: ignore[misc]
    calls += [b.accept, lambda: b.connect(("127.0.0.1", 1)), lambda: b.connect_ex(("127.0.0.1", 1))]
    for call in calls:
        try:
            assert call() == errno.EBADF
        except OSError as e:
            assert e.errno == errno.EBADF


def test_a_kill_ends_the_wait_and_loses_nothing(pair: Pair) -> None:
    a, b = pair
    for receive in RECEIVING.values():
        first, second = park(receive, b), park(receive, b)
        first.kill()
        assert first.join() is None
        a.sendall(b"kept")
        assert second.join() == b"kept"


def test_a_killed_sendall_makes_room_for_the_next(conn: Pair) -> None:
    a, b = conn
    n = fill(a)
    first, second = park(a.sendall, b"1"), park(a.sendall, b"2")
    first.kill()
    assert first.join() is None
    drain(b, n)
    second.join()
    assert b.recv(10) == b"2"


def test_an_unclosed_socket_warns_and_is_closed() -> None:
    a, b = tcp()
    g = park(b.recv, 1)  # so that the poller knows it
    a.sendall(b"x")
    g.join()
    with pytest.warns(ResourceWarning, match="unclosed <gort.socket.socket fd="):
        del b, g
        gc.collect()
    assert a.recv(10) == b""
    a.close()


def test_the_poller_forgets_a_descriptor_that_is_used_again() -> None:
    for _ in range(50):
        a, b = tcp()
        with a, b:
            g = park(b.recv, 10)
            a.sendall(b"x")
            assert g.join() == b"x"


def test_two_sockets_of_one_descriptor(conn: Pair) -> None:
    a, b = conn
    same = socket.socket(fileno=b.fileno())
    gs = [park(b.recv, 1), park(same.recv, 1)]
    a.sendall(b"12")
    assert {g.join() for g in gs} == {b"1", b"2"}
    same.detach()
    g = park(b.recv, 1)
    a.sendall(b"3")
    assert g.join() == b"3"


def test_duplicates_wait_for_themselves(conn: Pair) -> None:
    a, b = conn
    copies = [b.dup() for _ in range(5)]
    gs = [park(c.recv, 1) for c in copies]
    b.close()
    for c in copies[:2]:
        c.close()
    a.sendall(b"345")
    assert {g.join() for g in gs[2:]} == {b"3", b"4", b"5"}
    for g in gs[:2]:
        with pytest.raises(OSError):
            g.join()
    for c in copies:
        c.close()


# ---- several at once -------------------------------------------------------------------------------
def test_several_receivers_share_what_comes(pair: Pair) -> None:
    a, b = pair
    gs = [park(b.recv, 1) for _ in range(20)]
    for i in range(20):
        a.sendall(bytes([i]))
    assert sorted(g.join() for g in gs) == [bytes([i]) for i in range(20)]


def test_every_way_to_receive_at_once(conn: Pair) -> None:
    """Some keep the GIL through the system call, some do not; no edge may be lost between them."""
    a, b = conn
    ways: list[Callable[[], int]] = [
        lambda: len(b.recv(3)),
        lambda: b.recv_into(bytearray(3)),
        lambda: len(b.recvfrom(3)[0]),
        lambda: len(b.recvmsg(3)[0]),
    ]
    total, n = [0], 30_000

    def reader(way: Callable[[], int]) -> None:
        while got := way():
            total[0] += got

    gs = [park(reader, way) for way in ways * 3]
    threads = [PlainThread(lambda way=way: reader(way)) for way in ways]  # type: ignore[misc]
    for _ in range(n // 10):
        a.sendall(b"0123456789")
        if total[0] % 7 == 0:
            gort.gosched()
    spin_until(lambda: total[0] == n, "all is received")
    a.shutdown(socket.SHUT_WR)
    finish(*gs)
    for t in threads:
        t.result()


def test_what_two_sendalls_send_does_not_mix(stream: Pair) -> None:
    a, b = stream
    size = 100_000
    gs = [go(a.sendall, bytes([i]) * size) for i in range(8)]
    got = bytearray()
    while len(got) < 8 * size:
        got += b.recv(70_000)
    finish(*gs)
    runs = {bytes(got[i : i + size]) for i in range(0, len(got), size)}
    assert runs == {bytes([i]) * size for i in range(8)}


def test_one_reads_while_another_writes(stream: Pair) -> None:
    a, b = stream

    def echo() -> None:
        while data := b.recv(65536):
            b.sendall(data)
        b.shutdown(socket.SHUT_WR)

    g = go(echo)
    data = os.urandom(2_000_000)
    writer = go(lambda: (a.sendall(data), a.shutdown(socket.SHUT_WR)))
    got = bytearray()
    while piece := a.recv(65536):
        got += piece
    assert got == data
    finish(g, writer)


def test_goroutines_and_threads_on_many_connections() -> None:
    served = sync.WaitGroup()

    def serve(s: socket.socket) -> None:
        with s:
            while data := s.recv(4096):
                s.sendall(data)

    def client(i: int) -> None:
        with socket.create_connection(listener.getsockname(), timeout=PATIENCE) as s:
            for k in range(20):
                text = f"{i}.{k}".encode()
                s.sendall(text)
                got = b""
                while len(got) < len(text):
                    got += s.recv(100)
                assert got == text

    def accept() -> None:
        for _ in range(60):
            served.go(serve, listener.accept()[0])

    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        acceptor = go(accept)
        threads = [PlainThread(lambda i=i: client(i)) for i in range(10)]  # type: ignore[misc]
        finish(*[go(client, i) for i in range(10, 60)])
        for t in threads:
            t.result()
        acceptor.join()
        served.wait()


def test_more_than_1024_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 3000:
        pytest.skip(f"only {hard} descriptors are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        pairs = [socket.socketpair() for _ in range(1100)]
        gs = [park(b.recv, 10) for _, b in pairs]
        for i, (a, _) in enumerate(pairs):
            a.sendall(b"%d" % i)
        assert [g.join() for g in gs] == [b"%d" % i for i in range(1100)]
        for a, b in pairs:
            a.close()
            b.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---- accepting and connecting ------------------------------------------------------------------------
def test_without_descriptors_accept_raises_and_goes_on_later(closing: contextlib.ExitStack) -> None:
    listener = closing.enter_context(socket.create_server(("127.0.0.1", 0)))
    client = closing.enter_context(socket.create_connection(listener.getsockname()))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    top = os.dup(0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (top, hard))
    os.close(top)
    held = []
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.dup(0))
        for _ in range(3):
            with pytest.raises(OSError) as e:
                listener.accept()
            assert e.value.errno == errno.EMFILE
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    conn, address = listener.accept()
    with conn:
        assert address == client.getsockname()


def test_accept_of_each_family(tmp_path: Path, closing: contextlib.ExitStack) -> None:
    path = str(tmp_path / "socket")
    for family, at in (
        (socket.AF_INET, ("127.0.0.1", 0)),
        (socket.AF_INET6, ("::1", 0)),
        (socket.AF_UNIX, path),
        (socket.AF_UNIX, f"\0gort-{os.getpid()}".encode()),
    ):
        names = []
        for module in (stdlib, socket):
            with module.socket(family) as listener:
                listener.bind(at)
                listener.listen()
                with module.socket(family) as c:
                    if family == socket.AF_UNIX and at != path:
                        c.bind(f"\0gort-client-{os.getpid()}")
                    g = park(listener.accept) if module is socket else None
                    c.connect(listener.getsockname())
                    conn, name = g.join() if g else listener.accept()
                    with conn:
                        assert type(conn) is module.socket
                        assert (conn.family, conn.type, conn.proto) == (family, socket.SOCK_STREAM, listener.proto)
                        assert conn.gettimeout() is None and not conn.get_inheritable()
                        assert name == c.getsockname()
                    names.append(type(name))
            if at == path:
                os.unlink(path)
        assert names[0] is names[1]


def test_several_accept_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        gs = [park(listener.accept) for _ in range(10)]
        clients = [socket.create_connection(listener.getsockname()) for _ in range(10)]
        assert {g.join()[1] for g in gs} == {c.getsockname() for c in clients}
        for c in clients:
            c.close()
        for g in gs:
            g.join()[0].close()


def test_a_refused_connection() -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        at = s.getsockname()
    for timeout in (None, 5.0):
        with socket.socket() as s:
            s.settimeout(timeout)
            with pytest.raises(ConnectionRefusedError):
                s.connect(at)
        with socket.socket() as s:
            s.settimeout(timeout)
            assert s.connect_ex(at) == errno.ECONNREFUSED
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(at, timeout)
    with socket.socket(socket.AF_UNIX) as s, pytest.raises(FileNotFoundError):
        s.connect("/nonexistent/gort")


def test_connecting_to_a_full_unix_listener_waits(tmp_path: Path, closing: contextlib.ExitStack) -> None:
    path = str(tmp_path / "socket")
    listener = closing.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(path)
    listener.listen(0)
    first = closing.enter_context(socket.socket(socket.AF_UNIX))
    first.connect(path)
    second = closing.enter_context(socket.socket(socket.AF_UNIX))
    second.settimeout(1)
    with pytest.raises(BlockingIOError):  # as in the stdlib
        second.connect(path)
    second.settimeout(None)
    g = go(second.connect, path)
    spin_until(lambda: g.state == "syscall")
    closing.enter_context(listener.accept()[0])
    g.join()
    closing.enter_context(listener.accept()[0])


def test_connecting_in_non_blocking_mode() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as s:
        s.setblocking(False)
        assert s.connect_ex(listener.getsockname()) == errno.EINPROGRESS
        assert select.select([], [s], [], PATIENCE)[1] == [s]
        assert s.connect_ex(listener.getsockname()) in (0, errno.EISCONN)
        listener.accept()[0].close()


# ---- names ------------------------------------------------------------------------------------------
def test_names_are_looked_up_beside_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    began, free = threading.Event(), threading.Event()

    def slow(host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> Any:
        began.set()
        assert free.wait(PATIENCE)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port or 0))]

    monkeypatch.setattr(socket, "_getaddrinfo", slow)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        g = go(socket.create_connection, ("name.example", listener.getsockname()[1]))
        h = go(socket.getaddrinfo, "name.example", 80)
        spin_until(began.is_set)  # while it waits, we run
        assert not g.done and not h.done
        free.set()
        g.join().close()
        assert h.join() == [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))]
        with socket.socket() as s:
            s.connect(("name.example", listener.getsockname()[1]))


def test_names_and_numbers_as_in_the_stdlib() -> None:
    for args in (("127.0.0.1", 80), ("::1", "http"), (None, 0), ("localhost", 80), (b"127.0.0.1", b"80")):
        assert socket.getaddrinfo(*args) == stdlib.getaddrinfo(*args)  # type: ignore[arg-type]
    assert socket.gethostbyname("127.0.0.1") == "127.0.0.1"
    assert socket.gethostbyname("localhost") == stdlib.gethostbyname("localhost")
    assert socket.gethostbyname_ex("localhost") == stdlib.gethostbyname_ex("localhost")
    assert socket.gethostbyaddr("127.0.0.1") == stdlib.gethostbyaddr("127.0.0.1")
    assert socket.getnameinfo(("127.0.0.1", 80), 0) == stdlib.getnameinfo(("127.0.0.1", 80), 0)
    assert socket.getfqdn("localhost") == stdlib.getfqdn("localhost")


@pytest.mark.parametrize(
    "call",
    [
        lambda: socket.getaddrinfo("nonexistent.invalid", 80),
        lambda: socket.gethostbyname("nonexistent.invalid"),
        lambda: socket.create_connection(("nonexistent.invalid", 80)),
        lambda: socket.socket().connect(("nonexistent.invalid", 80)),
        lambda: socket.socket().bind(("nonexistent.invalid", 80)),
        lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("nonexistent.invalid", 80)),
    ],
)
def test_a_name_that_does_not_exist(call: Callable[[], object]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        with pytest.raises(socket.gaierror) as e:
            call()
        assert e.value.errno in (socket.EAI_NONAME, socket.EAI_AGAIN, socket.EAI_NODATA, socket.EAI_FAIL)
        del e
        gc.collect()
    for bad in ("x" * 300, "a..b", "\0"):
        raised = []
        for module in (stdlib, socket):
            with pytest.raises((OSError, UnicodeError, ValueError)) as e2:
                module.getaddrinfo(bad, 80)
            raised.append(type(e2.value))
        assert raised[0] is raised[1]


# ---- other processes --------------------------------------------------------------------------------
def test_a_forked_child_uses_the_sockets_it_inherits() -> None:
    output = output_of("""
        import os
        from gort import go, socket
        listener = socket.create_server(("127.0.0.1", 0))
        a, b = socket.socketpair()
        waiting = go(b.recv, 10)
        acceptor = go(listener.accept)
        c = socket.create_connection(listener.getsockname())
        acceptor.join()[0].close()
        pid = os.fork()
        if pid == 0:
            child = socket.create_connection(listener.getsockname())
            child.sendall(b"from the child")
            a.sendall(b"to b")
            assert child.recv(10) == b"ok"
            os._exit(0)
        conn, _ = listener.accept()
        print(waiting.join(), conn.recv(100))
        conn.sendall(b"ok")
        print(os.waitpid(pid, 0)[1])
    """)
    assert output == "b'to b' b'from the child'\n0\n"


def test_a_program_without_gort_can_use_the_descriptor() -> None:
    """The mode is that of the open file, which both share."""
    a, b = unix()
    with a, b:
        g = park(b.recv, 1)
        a.sendall(b"x")
        g.join()
        code = "import os, sys; fd = int(sys.argv[1]); os.write(fd, b'ready'); os.write(fd, os.read(fd, 10))"
        import subprocess

        child = subprocess.Popen([sys.executable, "-c", code, str(b.fileno())], pass_fds=[b.fileno()])
        assert a.recv(5) == b"ready"  # and it waits in read() now
        a.sendall(b"echo")
        assert a.recv(4) == b"echo"
        assert blocking(child.wait) == 0
