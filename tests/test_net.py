"""gort.net: connections, listeners, packets; deadlines, closing, errors. The poller itself is in test_netpoll.py."""

from __future__ import annotations

import errno
import gc
import hashlib
import os
import random
import re
import resource
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_support import EVERYWHERE, PATIENCE, PlainThread, no_descriptor_left, park, settle, spin_until

import gort
from gort import context, go, net

everywhere = pytest.mark.parametrize("where", EVERYWHERE)


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    with no_descriptor_left():
        yield


def tcp_pair(address: str = "127.0.0.1:0") -> tuple[net.Conn, net.Conn]:
    """The dialing end and the accepted one."""
    with net.listen(address) as listener:
        g = go(listener.accept)
        conn = net.dial(listener.addr)
        return conn, g.join()


def unix_pair() -> tuple[net.Conn, net.Conn]:
    return net.pipe()


PAIRS = [pytest.param(tcp_pair, id="tcp"), pytest.param(unix_pair, id="unix")]
pairs = pytest.mark.parametrize("make", PAIRS)
Make = Callable[[], tuple[net.Conn, net.Conn]]


def fill(conn: net.Conn) -> int:
    """Write until it would wait; how many bytes that took."""
    conn.set_option(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)  # or the system gives it more later
    sent, piece = 0, bytes(1 << 16)
    while True:
        try:
            conn.write(piece, timeout=0)
            sent += len(piece)
        except TimeoutError as e:
            return sent + e.written  # type: ignore[attr-defined,no-any-return]


def echo(conn: net.Conn) -> None:
    with conn:
        while data := conn.read(65536):
            conn.write(data)


def serve(listener: net.Listener, handle: Callable[[net.Conn], object]) -> None:
    for conn in listener:
        go(handle, conn)


# ---- bytes there and back ---------------------------------------------------------


@pairs
@everywhere
def test_what_one_end_writes_the_other_reads(make: Make, where: Callable[[Callable[[], Any]], Any]) -> None:
    a, b = make()

    def talk() -> bytes:
        a.write(b"hello")
        assert b.read(100) == b"hello"
        b.write(bytearray(b"back"))
        return a.read(3) + a.read(100)

    with a, b:
        assert where(talk) == b"back"


@pairs
def test_echo_on_many_connections_at_once(make: Make) -> None:
    def client(i: int) -> None:
        a, b = make()
        g = go(echo, b)
        with a:
            for k in range(20):
                text = f"{i} says {k}".encode() * (1 + k)
                a.write(text)
                assert a.read_exactly(len(text)) == text
        g.join()

    for g in [go(client, i) for i in range(50)]:
        g.join()


def test_a_server_of_many_connections() -> None:
    with net.listen("127.0.0.1:0") as listener:
        server = go(serve, listener, echo)

        def client(i: int) -> None:
            with net.dial(listener.addr) as conn:
                for k in range(10):
                    conn.write(b"%d:%d\n" % (i, k))
                    assert conn.read_exactly(len(b"%d:%d\n" % (i, k))) == b"%d:%d\n" % (i, k)

        for g in [go(client, i) for i in range(200)]:
            g.join()
    server.join()


@pairs
def test_megabytes_arrive_whole_and_in_order(make: Make) -> None:
    data = random.Random(1).randbytes(8 << 20)
    a, b = make()

    def send() -> None:
        a.write(data)
        a.close()

    g = go(send)
    got = hashlib.sha256()
    with b:
        while piece := b.read(1 << 20):
            got.update(piece)
    g.join()
    assert got.digest() == hashlib.sha256(data).digest()


@pairs
def test_read_gives_what_is_there_and_never_more(make: Make) -> None:
    a, b = make()
    with a, b:
        a.write(b"0123456789")
        assert b.read(4) == b"0123"
        assert b.read(0) == b""
        assert b.read(100) == b"456789"


@pairs
def test_a_read_after_a_short_one_waits_and_sees_the_next(make: Make) -> None:
    # After a short read the next one waits without trying first.
    a, b = make()
    with a, b:
        for k in range(50):
            g = park(b.read, 1000)
            a.write(b"%d" % k)
            assert g.join() == b"%d" % k


@pairs
def test_a_short_read_then_the_end(make: Make) -> None:
    a, b = make()
    with b:
        a.write(b"last words")
        a.close()
        assert b.read(1000) == b"last words"
        assert b.read(1000) == b""
        assert b.read(1000) == b""


@pairs
def test_the_end_comes_between_a_short_read_and_the_next(make: Make) -> None:
    a, b = make()
    with b:
        a.write(b"x")
        assert b.read(1000) == b"x"
        a.close()
        assert b.read(1000) == b""


@pairs
def test_bytes_and_the_end_that_come_between_two_reads(make: Make) -> None:
    a, b = make()
    with b:
        a.write(b"x")
        assert b.read(1000) == b"x"
        a.write(b"y")
        a.close()
        assert b.read(1000) == b"y"
        assert b.read(1000) == b""


@pairs
def test_read_into_uses_the_buffer_it_is_given(make: Make) -> None:
    a, b = make()
    buffer = bytearray(8)
    with a, b:
        a.write(b"0123456789")
        assert b.read_into(buffer) == 8
        assert buffer == b"01234567"
        assert b.read_into(memoryview(buffer)[2:6]) == 2
        assert buffer == b"01894567"
        assert b.read_into(bytearray()) == 0
        a.close_write()
        assert b.read_into(buffer) == 0
        with pytest.raises((TypeError, BufferError)):
            b.read_into(b"read only")


@pairs
def test_read_exactly_waits_for_all_of_it(make: Make) -> None:
    a, b = make()
    with a, b:
        g = park(b.read_exactly, 10)
        for piece in (b"012", b"3456", b"789abc"):
            a.write(piece)
            settle(g)
        assert g.join() == b"0123456789"
        assert b.read(10) == b"abc"
        assert b.read_exactly(0) == b""


@pairs
def test_read_exactly_at_the_end_says_what_had_come(make: Make) -> None:
    a, b = make()
    with b:
        a.write(b"abc")
        a.close()
        with pytest.raises(net.IncompleteRead, match="after 3 of 5 bytes") as e:
            b.read_exactly(5)
        assert (e.value.partial, e.value.expected) == (b"abc", 5)
        assert isinstance(e.value, EOFError)
        assert b.read(5) == b""


@pairs
def test_what_an_interrupted_read_exactly_had_is_read_by_the_next(make: Make) -> None:
    a, b = make()
    with a, b:
        a.write(b"abcdef")
        with pytest.raises(TimeoutError):
            b.read_exactly(8, timeout=0.01)
        assert b.read(2) == b"ab"
        buffer = bytearray(2)
        assert b.read_into(buffer) == 2
        assert buffer == b"cd"
        a.write(b"gh")
        assert b.read_exactly(4) == b"efgh"
        g = park(b.read_exactly, 3)
        a.write(b"X")
        settle(g)
        spin_until(lambda: g.wait_reason == "IO wait")
        g.kill()
        g.join()
        assert b.read(10) == b"X"


@pairs
def test_writev_sends_its_pieces_in_order(make: Make) -> None:
    rnd = random.Random(2)
    pieces = [rnd.randbytes(rnd.choice([0, 1, 10, 1000])) for _ in range(3000)] + [rnd.randbytes(1 << 20)]
    a, b = make()
    with b:
        g = go(lambda: (a.writev(pieces), a.close()))
        got = b""
        while data := b.read(1 << 20):
            got += data
        g.join()
    assert got == b"".join(pieces)


def test_writev_takes_any_buffers_and_nothing_else() -> None:
    a, b = net.pipe()
    with a, b:
        a.writev([b"ab", bytearray(b"cd"), memoryview(b"xefx")[1:3]])
        assert b.read(10) == b"abcdef"
        a.writev([])
        a.writev(iter([b""]))
        with pytest.raises(TypeError):
            a.writev([b"never sent", "text"])  # type: ignore[list-item]
        with pytest.raises(TimeoutError):
            b.read(10, timeout=0)


@pairs
def test_sendfile_sends_a_file_or_a_part_of_it(make: Make, tmp_path: Path) -> None:
    data = random.Random(3).randbytes(3 << 20)
    path = tmp_path / "file"
    path.write_bytes(data)
    a, b = make()

    def receive(n: int) -> Any:
        return go(b.read_exactly, n)

    with a, b, path.open("rb") as file:
        g = receive(len(data))
        assert a.sendfile(file) == len(data)
        assert g.join() == data
        assert file.tell() == 0
        g = receive(1000)
        assert a.sendfile(file, 5000, 1000) == 1000
        assert g.join() == data[5000:6000]
        assert a.sendfile(file.fileno(), len(data) + 10) == 0
        assert a.sendfile(file, count=0) == 0
        with pytest.raises(ValueError, match="offset"):
            a.sendfile(file, -1)
        with pytest.raises(TypeError, match=r"file must be .*'path'"):
            a.sendfile("path")  # type: ignore[arg-type]
        with pytest.raises(OverflowError, match="n is too large: 1000"):
            b.read(10**30)
        assert a.sendfile(file, 0, 10) == 10
        assert b.read(10) == data[:10]


@pairs
def test_half_close_ends_one_direction(make: Make) -> None:
    a, b = make()
    with a, b:
        a.write(b"request")
        a.close_write()
        assert b.read(100) == b"request"
        assert b.read(100) == b""
        b.write(b"answer")
        assert a.read(100) == b"answer"
        with pytest.raises(BrokenPipeError):
            a.write(b"more")


@pairs
def test_half_close_wakes_the_reader_of_the_other_end(make: Make) -> None:
    a, b = make()
    with a, b:
        g = park(b.read, 10)
        a.close_write()
        assert g.join() == b""


@pairs
def test_close_read_ends_reading_here(make: Make) -> None:
    a, b = make()
    with a, b:
        g = park(a.read, 10)
        a.close_read()
        assert g.join() == b""
        a.write(b"still")
        assert b.read(10) == b"still"


# ---- several goroutines on one connection ------------------------------------------------


@pairs
def test_one_goroutine_reads_while_another_writes(make: Make) -> None:
    a, b = make()
    with a, b:
        reader = park(a.read, 10)
        sent = fill(a)
        writer = park(a.write, b"!" * 100)
        assert not reader.done
        b.write(b"to the reader")
        assert reader.join() == b"to the rea"
        assert len(b.read_exactly(sent + 100)) == sent + 100
        writer.join()


@pairs
def test_whole_writes_of_several_goroutines_do_not_mix(make: Make) -> None:
    a, b = make()
    size, writers, times = 100_000, 8, 4

    def write(i: int) -> None:
        for _ in range(times):
            a.write(bytes([i]) * size)

    with a, b:
        gs = [go(write, i) for i in range(writers)]
        seen = []
        for _ in range(writers * times):
            data = b.read_exactly(size)
            assert len(set(data)) == 1
            seen.append(data[0])
        assert sorted(seen) == sorted(list(range(writers)) * times)
        for g in gs:
            g.join()


@pairs
def test_several_readers_get_a_message_each(make: Make) -> None:
    a, b = make()
    with a, b:
        gs = [park(b.read_exactly, 4) for _ in range(20)]
        for i in range(20):
            a.write(struct.pack("<i", i))
        # In the order in which they began to wait.
        assert [struct.unpack("<i", g.join())[0] for g in gs] == list(range(20))


@pairs
def test_a_killed_writer_in_the_queue_holds_up_nobody(make: Make) -> None:
    a, b = make()
    with a, b:
        sent = fill(a)
        gs = [park(a.write, bytes([i]) * 10) for i in range(3)]
        gs[1].kill()
        gs[1].join()
        b.read_exactly(sent)
        assert b.read_exactly(20) == bytes([0]) * 10 + bytes([2]) * 10
        for g in gs:
            g.join()


@pairs
def test_a_reader_in_the_queue_times_out_alone(make: Make) -> None:
    a, b = make()
    with a, b:
        first = park(b.read, 10)
        with pytest.raises(TimeoutError):
            b.read(10, timeout=0.005)
        with pytest.raises(TimeoutError):
            b.read(10, timeout=0)
        with pytest.raises(TimeoutError):
            b.read(10, ctx=context.with_timeout(context.background(), 0.005)[0])
        a.write(b"for the first")
        assert first.join() == b"for the fi"


# ---- deadlines -----------------------------------------------------------------------------


WAITS: list[Any] = [
    pytest.param(lambda c: c.read(10), "read", id="read"),
    pytest.param(lambda c: c.read_into(bytearray(10)), "read", id="read_into"),
    pytest.param(lambda c: c.read_exactly(10), "read", id="read_exactly"),
    pytest.param(lambda c: c.write(b"x" * 10), "write", id="write"),
    pytest.param(lambda c: c.writev([b"x", b"y"]), "write", id="writev"),
]
waits = pytest.mark.parametrize(("call", "side"), WAITS)


def stuck(make: Make) -> tuple[net.Conn, net.Conn]:
    """A connection on which reads and writes wait."""
    a, b = make()
    fill(a)
    return a, b


@pairs
@waits
def test_a_deadline_set_before_ends_the_wait(make: Make, call: Any, side: str) -> None:
    a, b = stuck(make)
    with a, b:
        a.set_deadline(0.01)
        with pytest.raises(TimeoutError):
            call(a)
        with pytest.raises(TimeoutError):  # and every later one, at once
            call(a)


@pairs
@waits
def test_a_deadline_set_while_it_waits_ends_the_wait(make: Make, call: Any, side: str) -> None:
    a, b = stuck(make)
    with a, b:
        g = park(call, a)
        (a.set_read_deadline if side == "read" else a.set_write_deadline)(0)
        with pytest.raises(TimeoutError):
            g.join()


@waits
def test_a_deadline_of_one_side_leaves_the_other_alone(call: Any, side: str) -> None:
    a, b = stuck(tcp_pair)
    with a, b:
        g = park(call, a)
        (a.set_write_deadline if side == "read" else a.set_read_deadline)(0)
        settle(g)
        assert g.state == "waiting"
        a.set_deadline(0)
        with pytest.raises(TimeoutError):
            g.join()


@pairs
def test_a_deadline_that_is_put_off_or_lifted_does_not_end_the_wait(make: Make) -> None:
    a, b = make()
    with a, b:
        a.set_deadline(0)
        a.set_deadline(None)
        g = park(a.read, 10)
        a.set_read_deadline(0.001)
        a.set_read_deadline(1000)
        gort.sleep(0.01)
        b.write(b"in time")
        assert g.join() == b"in time"


def test_a_new_deadline_lets_it_read_again() -> None:
    a, b = net.pipe()
    with a, b:
        b.write(b"abc")
        a.set_read_deadline(0)
        with pytest.raises(TimeoutError) as e:
            a.read(10)  # though there is something
        assert e.value.errno == errno.ETIMEDOUT
        a.set_read_deadline(1000)
        assert a.read(10) == b"abc"


def test_a_negative_deadline_is_now_and_an_endless_one_is_none() -> None:
    a, b = net.pipe()
    with a, b:
        a.set_deadline(-5)
        with pytest.raises(TimeoutError):
            a.read(1)
        a.set_deadline(float("inf"))
        b.write(b"x")
        assert a.read(1) == b"x"


@pytest.mark.parametrize("bad", ["1", float("nan"), [], b"2"])
def test_a_deadline_must_be_a_number(bad: Any) -> None:
    a, b = net.pipe()
    with a, b:
        with pytest.raises((TypeError, ValueError), match="seconds"):
            a.set_deadline(bad)
        b.write(b"as before")
        assert a.read(9) == b"as before"


def test_a_timeout_tells_how_much_was_written() -> None:
    a, b = tcp_pair()
    with a, b:
        data = random.Random(4).randbytes(32 << 20)
        with pytest.raises(TimeoutError) as e:
            a.write(data, timeout=0.01)
        written = e.value.written  # type: ignore[attr-defined]
        assert 0 < written < len(data)
        a.close_write()
        got = b""
        while piece := b.read(1 << 20):
            got += piece
        assert got == data[:written]


def test_timeout_zero_does_what_it_can() -> None:
    a, b = net.pipe()
    with a, b:
        a.write(b"abc", timeout=0)
        assert b.read(10, timeout=0) == b"abc"
        for _ in range(2):
            with pytest.raises(TimeoutError):
                b.read(10, timeout=0)
    with net.listen("127.0.0.1:0") as listener:
        with pytest.raises(TimeoutError):
            listener.accept(timeout=0)
        with net.dial(listener.addr):
            listener.accept(timeout=0).close()


# ---- closing ----------------------------------------------------------------------------------


@pairs
@waits
def test_close_wakes_who_waits(make: Make, call: Any, side: str) -> None:
    a, b = stuck(make)
    with b:
        g = park(call, a)
        a.close()
        with pytest.raises(net.ErrClosed, match="use of closed network connection") as e:
            g.join()
        assert e.value.errno == errno.EBADF
        assert isinstance(e.value, OSError)


@pairs
def test_close_wakes_both_sides_and_the_queue(make: Make) -> None:
    a, b = stuck(make)
    with b:
        gs = [park(call, a) for call in (lambda c: c.read(1), lambda c: c.write(b"x")) for _ in range(3)]
        a.close()
        for g in gs:
            with pytest.raises(net.ErrClosed):
                g.join()


@waits
def test_every_call_on_a_closed_connection_says_so(call: Any, side: str) -> None:
    a, b = tcp_pair()
    b.close()
    a.close()
    a.close()
    with pytest.raises(net.ErrClosed):
        call(a)
    for use in (
        lambda: a.set_deadline(1),
        lambda: a.close_write(),
        lambda: a.close_read(),
        lambda: a.set_no_delay(True),
        lambda: a.set_linger(0),
        lambda: a.set_keep_alive(30),
        lambda: a.sendfile(0),
    ):
        with pytest.raises(net.ErrClosed):
            use()
    assert a.closed
    assert a.fileno() == -1


def test_a_closed_connection_still_knows_its_addresses() -> None:
    a, b = tcp_pair()
    b.close()
    a.close()
    assert a.remote_addr == b.local_addr
    assert a.local_addr == b.remote_addr
    assert "closed" in repr(a) and str(a.remote_addr) in repr(a)
    with pytest.raises(net.ErrClosed) as e:
        a.read(1)
    assert e.value.filename == a.remote_addr


@pairs
def test_the_descriptor_is_closed_though_a_woken_reader_has_not_run(make: Make) -> None:
    a, b = make()
    with b:
        g = park(a.read, 1)
        fd = a.fileno()
        a.close()
        assert not g.done
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
        with pytest.raises(net.ErrClosed):
            g.join()


def test_a_descriptor_number_that_is_used_again_wakes_nobody_of_before() -> None:
    for _ in range(200):
        a, b = net.pipe()
        g = park(a.read, 1)
        a.close()
        c, d = net.pipe()  # has the number
        b.close()
        d.write(b"x")
        assert c.read(1) == b"x"
        with pytest.raises(net.ErrClosed):
            g.join()
        c.close()
        d.close()


def test_a_connection_nobody_has_is_closed_with_a_warning() -> None:
    a, b = net.pipe()
    with b:
        with pytest.warns(ResourceWarning, match="unclosed <Conn"):
            del a
            gc.collect()
        assert b.read(1) == b""


def test_a_listener_nobody_has_is_closed_with_a_warning() -> None:
    listener = net.listen("127.0.0.1:0")
    addr = listener.addr
    with pytest.warns(ResourceWarning, match="unclosed <Listener"):
        del listener
        gc.collect()
    with pytest.raises(ConnectionRefusedError):
        net.dial(addr)


@everywhere
def test_close_from_anywhere_wakes_a_goroutine(where: Callable[[Callable[[], Any]], Any]) -> None:
    a, b = net.pipe()
    with b:
        g = park(a.read, 1)
        where(a.close)
        with pytest.raises(net.ErrClosed):
            g.join()


def test_close_wakes_a_plain_thread() -> None:
    a, b = net.pipe()
    with b:
        thread = PlainThread(a.read, 1)
        other = PlainThread(b.read, 1)
        gort.sleep(0.01)
        a.close()
        with pytest.raises(net.ErrClosed):
            thread.result()
        assert other.result() == b""


# ---- the other end ------------------------------------------------------------------------------


def test_a_reset_ends_reads_and_writes_that_wait() -> None:
    a, b = stuck(tcp_pair)
    with a:
        reader, writer = park(a.read, 1), park(a.write, b"x")
        b.set_linger(0)
        b.close()  # sends RST
        results = []
        for g in (reader, writer):
            try:
                results.append(g.join())
            except OSError as e:
                results.append(e)
                assert e.filename == a.remote_addr
        assert any(isinstance(r, ConnectionResetError) for r in results), results
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            a.write(b"x" * 100)


def test_resets_in_the_middle_of_many_connections() -> None:
    rnd = random.Random(5)
    with net.listen("127.0.0.1:0") as listener:
        ended: list[object] = []

        def handle(conn: net.Conn) -> None:
            try:
                echo(conn)
                ended.append(None)
            except OSError as e:
                ended.append(e)

        server = go(serve, listener, handle)

        def client(i: int) -> None:
            with net.dial(listener.addr) as conn:
                for _ in range(rnd.randrange(5)):
                    conn.write(b"x" * 1000)
                    conn.read_exactly(1000)
                if i % 2:
                    conn.write(b"y" * 100000)
                    conn.set_linger(0)

        for g in [go(client, i) for i in range(100)]:
            g.join()
        spin_until(lambda: len(ended) == 100)
        for e in ended:
            assert e is None or isinstance(e, (ConnectionResetError, BrokenPipeError)), e
        with net.dial(listener.addr) as conn:  # it goes on
            conn.write(b"and now?")
            assert conn.read_exactly(8) == b"and now?"
    server.join()


def test_a_write_to_an_end_that_is_gone() -> None:
    a, b = net.pipe()
    b.close()
    with a, pytest.raises(BrokenPipeError) as e:
        a.write(b"x")
    assert e.value.errno == errno.EPIPE
    assert e.value.written == 0  # type: ignore[attr-defined]


# ---- listening and dialing --------------------------------------------------------------------------


def test_nobody_listens() -> None:
    with net.listen("127.0.0.1:0") as listener:
        addr = listener.addr
    with pytest.raises(ConnectionRefusedError) as e:
        net.dial(addr)
    assert e.value.errno == errno.ECONNREFUSED
    assert e.value.filename == addr
    assert str(addr) in str(e.value)


def test_an_address_is_text_with_a_host_and_a_port() -> None:
    with net.listen("127.0.0.1:0") as listener:
        addr = listener.addr
        assert isinstance(addr, str)
        assert addr == f"127.0.0.1:{addr.port}"
        assert addr.host == "127.0.0.1"
        assert 0 < addr.port < 65536


IPV6 = pytest.mark.skipif(not net._have_ipv6(), reason="no IPv6 here")


@IPV6
def test_ipv6() -> None:
    a, b = tcp_pair("[::1]:0")
    with a, b:
        assert a.remote_addr is not None
        assert a.remote_addr.host == "::1"
        assert re.fullmatch(r"\[::1\]:\d+", a.local_addr)
        a.write(b"six")
        assert b.read(3) == b"six"


@IPV6
def test_without_a_host_it_listens_on_both_families() -> None:
    with net.listen(":0") as listener:
        port = listener.addr.port
        assert listener.addr == f"[::]:{port}"
        for host in ("127.0.0.1", "[::1]", ""):
            g = go(listener.accept)
            with net.dial(f"{host}:{port}") as conn, g.join() as other:
                # An IPv4 address shows as one, though the socket is of IPv6.
                assert other.remote_addr == conn.local_addr


@IPV6
def test_an_ipv6_address_alone_does_not_take_the_ipv4_port() -> None:
    with net.listen("[::1]:0") as six, net.listen(f"127.0.0.1:{six.addr.port}") as four:
        assert four.addr.port == six.addr.port


def test_a_name_and_a_service() -> None:
    with net.listen("localhost:0") as listener:
        g = go(listener.accept)
        with net.dial(f"localhost:{listener.addr.port}", timeout=PATIENCE), g.join():
            pass
    assert net._split("example.org:http") == ("example.org", "", 80)


def test_lookup() -> None:
    assert "127.0.0.1" in net.lookup("localhost")
    assert net.lookup("192.0.2.7") == ["192.0.2.7"]
    with pytest.raises(socket.gaierror, match="no-such-host"):
        net.lookup("no-such-host.invalid", timeout=PATIENCE)
    with pytest.raises(socket.gaierror):
        net.lookup("a" * 70 + ".example", timeout=PATIENCE)
    with pytest.raises(TimeoutError):
        net.lookup("localhost", timeout=0)


BAD = [
    "",
    "localhost",
    "127.0.0.1",
    "::1:80",
    "[::1:80",
    "[::1]",
    "[::1]80",
    "a]:80",
    "127.0.0.1:65536",
    "127.0.0.1:-1",
    "127.0.0.1:no-such-service",
    "127.0.0.1:٣",
    "[fe80::1%no-such-interface]:80",
    "unix:",
    "unix:" + "x" * 108,
    "local\0host:80",
]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("call", [net.listen, net.dial, net.listen_packet, net.dial_packet])
def test_a_bad_address_is_named(call: Any, bad: str) -> None:
    with pytest.raises(ValueError, match="address") as e:
        call(bad)
    assert repr(bad) in str(e.value)


@pytest.mark.parametrize("bad", [None, 80, b"127.0.0.1:80", ("127.0.0.1", 80)])
@pytest.mark.parametrize("call", [net.listen, net.dial, net.listen_packet, net.dial_packet, net.lookup])
def test_an_address_must_be_text(call: Any, bad: Any) -> None:
    with pytest.raises(TypeError, match="address must be a str"):
        call(bad)


def test_bad_sizes_are_named() -> None:
    a, b = net.pipe()
    with a, b:
        for call in (a.read, a.read_exactly):
            with pytest.raises(ValueError, match="n must not be negative"):
                call(-1)
            for bad in ("1", 1.5, None):
                with pytest.raises(TypeError, match="n must be an int"):
                    call(bad)  # type: ignore[operator]
        with pytest.raises(OverflowError):
            a.read(1 << 70)
        with pytest.raises(TypeError, match="bytes-like"):
            a.write("text")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="idle"):
            a.set_keep_alive(0)
        b.write(b"as before")
        assert a.read(100) == b"as before"
    for backlog in (-1, "5", 1.5):
        with pytest.raises((TypeError, ValueError), match="backlog"):
            net.listen("127.0.0.1:0", backlog=backlog)  # type: ignore[arg-type]


@pytest.mark.parametrize("cls", [net.Conn, net.Listener, net.PacketConn])
def test_it_cannot_be_made_directly(cls: Any) -> None:
    with pytest.raises(TypeError, match="not made directly"):
        cls()
    empty = cls.__new__(cls)
    for name, args in (
        ("read", (1,)),
        ("write", (b"",)),
        ("writev", ([b"x"],)),
        ("sendfile", (0,)),
        ("accept", ()),
        ("read_from", (1,)),
        ("write_to", (b"", "127.0.0.1:1")),
        ("set_deadline", (1,)),
        ("close_write", ()),
        ("close_read", ()),
        ("set_linger", (1,)),
        ("set_option", (1, 1, 1)),
    ):
        if hasattr(empty, name):
            with pytest.raises(TypeError, match="not made directly"):
                getattr(empty, name)(*args)
    empty.close()
    assert empty.closed and empty.fileno() == -1 and "not made" in repr(empty)


def test_the_port_is_taken() -> None:
    with net.listen("127.0.0.1:0") as listener:
        with pytest.raises(OSError, match="in use") as e:
            net.listen(listener.addr)
        assert e.value.errno == errno.EADDRINUSE
        assert e.value.filename == listener.addr


def test_a_port_is_free_again_once_its_listener_is_closed() -> None:
    listener = net.listen("127.0.0.1:0")
    g = park(listener.accept)
    with net.dial(listener.addr), g.join():
        g = park(listener.accept)
        listener.close()
        net.listen(listener.addr).close()  # though the accept has not returned yet, and connections live
    with pytest.raises(net.ErrClosed):
        g.join()


def test_reuse_port_lets_several_listen() -> None:
    with net.listen("127.0.0.1:0", reuse_port=True) as one, net.listen(one.addr, reuse_port=True) as two:
        got: gort.Chan[int] = gort.Chan(100)
        gs = [go(serve, listener, lambda c, i=i: (c.close(), got.send(i))) for i, listener in enumerate((one, two))]
        for _ in range(100):
            net.dial(one.addr).close()
        assert {got.recv() for _ in range(100)} <= {0, 1}
    for g in gs:
        g.join()


def test_unix_sockets(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with net.listen(f"unix:{path}") as listener:
        assert listener.addr == f"unix:{path}"
        assert listener.addr.host == str(path)
        g = go(listener.accept)
        with net.dial(listener.addr) as a, g.join() as b:
            assert a.remote_addr == listener.addr
            a.write(b"hi")
            assert b.read(2) == b"hi"
        with pytest.raises(OSError, match="in use"):
            net.listen(f"unix:{path}")
    assert not path.exists()
    with pytest.raises(FileNotFoundError):
        net.dial(f"unix:{path}")


def test_abstract_unix_sockets() -> None:
    name = f"unix:@gort-test-{os.getpid()}"
    with net.listen(name) as listener:
        assert listener.addr == name
        g = go(listener.accept)
        with net.dial(name) as a, g.join() as b:
            b.write(b"hi")
            assert a.read(2) == b"hi"


def test_local_address() -> None:
    with net.listen("127.0.0.1:0") as listener:
        g = go(listener.accept)
        with net.dial(listener.addr, local_address="127.0.0.2:0") as conn, g.join() as other:
            assert conn.local_addr.host == "127.0.0.2"
            assert other.remote_addr == conn.local_addr
        with pytest.raises(ValueError, match="literal"):
            net.dial(listener.addr, local_address="localhost:0")
        with pytest.raises(OSError, match="Cannot assign"):
            net.dial(listener.addr, local_address="192.0.2.1:0")


def test_tcp_options_are_gos() -> None:
    a, b = tcp_pair()
    with a, b:
        for conn in (a, b):
            with socket.socket(fileno=os.dup(conn.fileno())) as s:
                assert s.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
                assert s.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                assert s.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 15
                assert s.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 15
                assert s.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 9
                assert not os.get_inheritable(conn.fileno())
        a.set_no_delay(False)
        a.set_keep_alive(60)
        a.set_option(socket.SOL_SOCKET, socket.SO_RCVBUF, 50000)
        with socket.socket(fileno=os.dup(a.fileno())) as s:
            assert s.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
            assert s.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
            assert s.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 100000
            a.set_keep_alive(None)
            assert s.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
        with pytest.raises(OSError, match="Protocol not available"):
            a.set_option(socket.SOL_SOCKET, 9999, 1)


# ---- dialing several addresses -----------------------------------------------------------------------


@pytest.fixture
def full() -> Iterator[net.Addr]:
    """An address that does not answer: its queue of connections is full."""
    listener = net.listen("127.0.0.1:0", backlog=0)
    waiting = []
    while True:
        try:
            waiting.append(net.dial(listener.addr, timeout=0.05))
        except TimeoutError:
            break
    yield listener.addr
    for conn in waiting:
        conn.close()
    listener.close()


def names(monkeypatch: pytest.MonkeyPatch, *ips: str) -> None:
    monkeypatch.setattr(net, "_resolve", lambda host, timeout, ctx: [(ip, "") for ip in ips])


def test_dial_times_out(full: net.Addr) -> None:
    with pytest.raises(TimeoutError) as e:
        net.dial(full, timeout=0.01)
    assert str(full) in str(e.value)
    with pytest.raises(TimeoutError):
        net.dial(full, timeout=0)


def test_dial_ends_with_its_context(full: net.Addr) -> None:
    ctx, cancel = context.with_cancel(context.background())
    g = park(net.dial, full, ctx=ctx)
    cancel()
    with pytest.raises(context.Canceled):
        g.join()
    with pytest.raises(context.Canceled):
        net.dial(full, ctx=ctx, timeout=5)


def test_dial_is_killed(full: net.Addr) -> None:
    g = park(net.dial, full)
    assert g.wait_reason == "IO wait"
    g.kill()
    g.join()


def test_the_next_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, "127.0.0.9", "127.0.0.1")
    with net.listen("127.0.0.1:0") as listener:
        g = go(listener.accept)
        with net.dial(f"name:{listener.addr.port}") as conn, g.join():
            assert conn.remote_addr == listener.addr


def test_the_first_addresss_error_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, "127.0.0.9", "127.0.0.8")
    with net.listen("127.0.0.1:0") as listener:
        with pytest.raises(ConnectionRefusedError) as e:
            net.dial(f"name:{listener.addr.port}")
        assert e.value.filename.startswith("127.0.0.9:")
        assert "127.0.0.8" in e.value.__notes__[0]


@IPV6
def test_the_other_familys_address_is_tried_at_once_if_the_first_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(net, "_FALLBACK_DELAY", 1000.0)
    names(monkeypatch, "::1", "127.0.0.1")
    with net.listen("127.0.0.1:0") as listener:
        g = go(listener.accept)
        with net.dial(f"name:{listener.addr.port}") as conn, g.join():
            assert conn.remote_addr == listener.addr


@IPV6
def test_the_other_familys_address_wins_if_the_first_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, full: net.Addr
) -> None:
    monkeypatch.setattr(net, "_FALLBACK_DELAY", 0.01)
    names(monkeypatch, "127.0.0.1", "::1")
    with net.listen(f"[::1]:{full.port}") as listener:
        g = go(listener.accept)
        with net.dial(f"name:{full.port}") as conn, g.join():
            assert conn.remote_addr == listener.addr


@IPV6
def test_both_families_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, "::1", "127.0.0.9")
    with net.listen("127.0.0.1:0") as listener, pytest.raises(ConnectionRefusedError) as e:
        net.dial(f"name:{listener.addr.port}")
    assert e.value.filename.startswith("[::1]:")


@IPV6
def test_the_connection_that_lost_the_race_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    # Both answer, at about the same time; the fixtures see to it that nothing is left.
    monkeypatch.setattr(net, "_FALLBACK_DELAY", 0.0)
    names(monkeypatch, "::1", "127.0.0.1")
    with net.listen(":0") as listener:
        server = go(serve, listener, echo)
        for _ in range(50):
            with net.dial(f"name:{listener.addr.port}") as conn:
                conn.write(b"x")
                assert conn.read(1) == b"x"
    server.join()


def test_a_silent_first_address_leaves_time_for_the_second(monkeypatch: pytest.MonkeyPatch, full: net.Addr) -> None:
    monkeypatch.setattr(net, "_SANE_MINIMUM", 0.01)
    names(monkeypatch, "127.0.0.1", "127.0.0.7")
    with net.listen(f"127.0.0.7:{full.port}") as listener:
        g = go(listener.accept)
        with net.dial(f"name:{full.port}", timeout=1.0) as conn, g.join():
            assert conn.remote_addr == listener.addr


# ---- a descriptor that listens already ----------------------------------------------


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_listen_fd(family: int, tmp_path: Path) -> None:
    sock = socket.socket(family)
    try:
        sock.bind(
            str(tmp_path / "s")
            if family == socket.AF_UNIX
            else ("::1" if family == socket.AF_INET6 else "127.0.0.1", 0)
        )
    except OSError:
        sock.close()
        pytest.skip("no IPv6 here")
    sock.listen()
    with net.listen_fd(os.dup(sock.fileno())) as listener, net.listen_fd(sock.detach()) as other:
        assert listener.addr == other.addr
        a, b = park(listener.accept), park(other.accept)
        conns = [net.dial(listener.addr) for _ in range(2)]
        for g in (a, b):
            if family != socket.AF_UNIX:
                assert os_option(g.join(), socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            conns.append(g.join())
        for conn in conns:
            conn.close()
    assert (tmp_path / "s").exists() is (family == socket.AF_UNIX)  # it is not ours


def os_option(conn: net.Conn, level: int, name: int) -> int:
    with socket.socket(fileno=os.dup(conn.fileno())) as sock:
        return sock.getsockopt(level, name)


def test_listen_fd_refuses_what_does_not_listen() -> None:
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp, open(os.devnull) as file:
        for sock in (tcp, udp):
            with pytest.raises(ValueError, match="listens for streams"):
                net.listen_fd(sock.fileno())
            assert sock.getblocking() and sock.getsockname()
        with pytest.raises(OSError):
            net.listen_fd(file.fileno())
        assert file.read() == ""
    for bad in ("1", None, 1.0, True):
        with pytest.raises(TypeError, match="fd must be an int"):
            net.listen_fd(bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="negative"):
        net.listen_fd(-1)


# ---- accepting -------------------------------------------------------------------------------------------


def test_iteration_over_a_listener_ends_when_it_is_closed() -> None:
    listener = net.listen("127.0.0.1:0")
    g = park(lambda: [c.close() for c in listener])
    net.dial(listener.addr).close()
    settle(g)
    listener.close()
    g.join()
    with pytest.raises(net.ErrClosed):
        listener.accept()


def test_accept_has_a_deadline_and_a_timeout() -> None:
    with net.listen("127.0.0.1:0") as listener:
        with pytest.raises(TimeoutError):
            listener.accept(timeout=0.005)
        g = park(listener.accept)
        listener.set_deadline(0)
        with pytest.raises(TimeoutError):
            g.join()


def test_an_accept_storm() -> None:
    n = 500
    with net.listen("127.0.0.1:0", backlog=n) as listener:
        acceptors = [go(serve, listener, echo) for _ in range(4)]
        hold: gort.Chan[None] = gort.Chan()

        def client() -> None:
            with net.dial(listener.addr, timeout=PATIENCE) as conn:
                conn.write(b"hello")
                assert conn.read_exactly(5) == b"hello"
                hold.recv_ok()

        gs = [go(client) for _ in range(n)]
        settle(*gs)
        hold.close()
        for g in gs:
            g.join()
    for g in acceptors:
        g.join()


def test_accept_without_descriptors_goes_on_when_there_are_some() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with net.listen("127.0.0.1:0") as listener:
        with socket.create_connection(("127.0.0.1", listener.addr.port)) as first:
            taken = []
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 10, hard))
            try:
                while True:
                    try:
                        taken.append(os.open("/dev/null", os.O_RDONLY))
                    except OSError as e:
                        assert e.errno == errno.EMFILE
                        break
                g = park(listener.accept)
                with pytest.raises(TimeoutError):
                    g.join(timeout=0.05)
                with pytest.raises(OSError, match="Too many open files"):
                    net.dial(listener.addr)
                late = park(listener.accept, timeout=0.05)
                with pytest.raises(TimeoutError):
                    late.join()
            finally:
                for fd in taken:
                    os.close(fd)
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            with g.join() as conn:
                first.sendall(b"served after all")
                assert conn.read_exactly(16) == b"served after all"
        g = park(listener.accept)
        listener.close()
        with pytest.raises(net.ErrClosed):
            g.join()


@pytest.mark.slow
def test_thousands_of_connections_and_descriptors_beyond_1024() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    want = 8200
    if hard != resource.RLIM_INFINITY and hard < want:
        pytest.skip(f"the system allows {hard} descriptors only")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, want), hard))
    n = 4000
    try:
        with net.listen("127.0.0.1:0", backlog=n) as listener:
            server = go(serve, listener, echo)
            conns = [net.dial(listener.addr, timeout=PATIENCE) for _ in range(n)]
            assert conns[-1].fileno() > 1024
            for k in range(2):
                for i, conn in enumerate(conns):
                    conn.write(b"%d" % (i + k))
                for i, conn in enumerate(conns):
                    assert conn.read(100) == b"%d" % (i + k)
            for conn in conns:
                conn.close()
        server.join()
        spin_until(lambda: gort.num_goroutine() == 1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---- packets -------------------------------------------------------------------------------------------------


def test_packets_there_and_back() -> None:
    with net.listen_packet("127.0.0.1:0") as server, net.dial_packet(server.local_addr) as client:
        assert client.remote_addr == server.local_addr
        assert server.remote_addr is None
        g = park(server.read_from, 100)
        client.write(b"one")
        data, addr = g.join()
        assert (data, addr) == (b"one", client.local_addr)
        server.write_to(b"two", addr)
        assert client.read(100) == b"two"
        server.write_to(b"", str(addr))  # as text, and an empty packet
        assert client.read(100) == b""
        server.write_to(b"three", net.Addr(str(addr)))
        assert client.read(100) == b"three"
        client.write(b"0123456789")
        assert server.read(4) == b"0123"  # the rest is lost
        client.write(b"next")
        assert server.read(100) == b"next"


@IPV6
def test_packets_of_both_families_at_one_socket() -> None:
    with net.listen_packet(":0") as server:
        for host in ("127.0.0.1", "[::1]"):
            with net.dial_packet(f"{host}:{server.local_addr.port}") as client:
                client.write(b"ping")
                data, addr = server.read_from(100)
                assert (data, addr) == (b"ping", client.local_addr)
                server.write_to(b"pong", addr)
                assert client.read(100) == b"pong"
                server.write_to(b"pong", str(addr))
                assert client.read(100) == b"pong"


def test_unix_packets(tmp_path: Path) -> None:
    path = f"unix:{tmp_path}/a"
    with net.listen_packet(path) as server, net.listen_packet(f"unix:{tmp_path}/b") as client:
        client.write_to(b"hello", path)
        assert server.read_from(10) == (b"hello", f"unix:{tmp_path}/b")
    assert not list(tmp_path.iterdir())


def test_packet_waits_end_as_others_do() -> None:
    server = net.listen_packet("127.0.0.1:0")
    with pytest.raises(TimeoutError):
        server.read(1, timeout=0.005)
    with pytest.raises(TimeoutError):
        server.read(1, timeout=0)
    server.set_read_deadline(0)
    with pytest.raises(TimeoutError):
        server.read(1)
    server.set_read_deadline(None)
    g = park(server.read_from, 1)
    server.close()
    with pytest.raises(net.ErrClosed):
        g.join()


def test_a_packet_nobody_takes_and_one_too_big() -> None:
    with net.listen_packet("127.0.0.1:0") as gone:
        addr = gone.local_addr
    with net.dial_packet(addr) as client:
        client.write(b"x")
        with pytest.raises(ConnectionRefusedError) as e:
            client.read(1)
        assert e.value.filename == addr
        with pytest.raises(OSError, match="too long"):
            client.write(bytes(70000))
    with net.listen_packet("127.0.0.1:0") as client:
        with pytest.raises(OSError, match="Destination address required"):
            client.write(b"to whom?")
        with pytest.raises(ValueError, match="literal"):
            client.write_to(b"x", "localhost:80")
        with pytest.raises(TypeError, match="address"):
            client.write_to(b"x", ("127.0.0.1", 80))  # type: ignore[arg-type]


# ---- odds and ends ----------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=3000), max_size=20), st.lists(st.integers(1, 5000), min_size=1, max_size=10))
def test_the_stream_is_the_bytes_written_however_they_are_cut(writes: list[bytes], reads: list[int]) -> None:
    a, b = net.pipe()
    g = go(lambda: ([a.write(w) for w in writes], a.close()))
    got, k = b"", 0
    with b:
        while data := b.read(reads[k % len(reads)]):
            assert len(data) <= reads[k % len(reads)]
            got += data
            k += 1
    g.join()
    assert got == b"".join(writes)


def test_a_busy_connection_does_not_keep_others_from_theirs() -> None:
    a, b = net.pipe()
    c, d = net.pipe()
    over = False

    def busy() -> None:
        while not over:
            a.write(b"x")
            b.read(1)  # never waits

    with a, b, c, d:
        g = go(busy)
        other = go(echo, d)
        for _ in range(20):
            c.write(b"ping")
            assert c.read(4) == b"ping"
        over = True
        g.join()
        c.close()
        other.join()


def test_a_busy_connection_can_be_killed() -> None:
    a, b = net.pipe()
    log: list[int] = []

    def busy() -> None:
        while True:
            a.write(b"x")
            b.read(1)
            log.append(1)

    with a, b:
        g = go(busy)
        spin_until(lambda: log)
        g.kill()
        g.join()


def test_an_exception_pickles() -> None:
    import pickle

    e = pickle.loads(pickle.dumps(net.IncompleteRead(b"ab", 3)))
    assert (e.partial, e.expected) == (b"ab", 3)
    with net.listen("127.0.0.1:0") as listener:
        assert pickle.loads(pickle.dumps(listener.addr)) == listener.addr


def test_main_is_interrupted_in_the_middle_of_a_read() -> None:
    program = """
        import os, signal, threading
        from gort import net
        a, b = net.pipe()
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            a.read(1)
        except KeyboardInterrupt:
            print("interrupted")
        b.write(b"x")
        print(a.read(1))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60)
    assert done.stdout == "interrupted\nb'x'\n", done.stderr


def test_a_signal_handler_that_returns_does_not_end_a_write() -> None:
    program = """
        import os, signal, threading, gort
        from gort import net
        a, b = net.pipe()
        seen = []
        signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        def later():
            while not seen:
                gort.sleep(0.001)
            return b.read_exactly(4 << 20)
        g = gort.go(later)
        a.write(b"y" * (4 << 20))
        print(len(g.join()), seen)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60)
    assert done.stdout == "4194304 [1]\n", done.stderr


def test_connections_left_open_at_the_end_of_the_program() -> None:
    program = """
        import gort
        from gort import net
        listener = net.listen("127.0.0.1:0")
        def serve():
            for conn in listener:
                gort.go(conn.read, 10)
        gort.go(serve)
        kept = [net.dial(listener.addr) for _ in range(10)]
        gort.go(kept[0].read, 1)
        gort.sleep(0.01)
        print("end")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("end\n", "")


def test_connecting_and_closing_leaks_no_memory() -> None:
    def once() -> None:
        a, b = tcp_pair()
        g = go(echo, b)
        a.write(b"x" * 100)
        a.set_deadline(100)
        a.read_exactly(100)
        a.close()
        g.join()

    def rss() -> int:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1])
        raise LookupError

    for _ in range(200):
        once()
    gc.collect()
    before = rss()
    for _ in range(1000):
        once()
    gc.collect()
    assert rss() - before < 2000, "KB grown"


def test_no_warning_where_all_is_closed() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        a, b = tcp_pair()
        a.close()
        b.close()
        del a, b
        gc.collect()


def test_plain_threads_talk_to_each_other_while_main_sits_in_a_call() -> None:
    a, b = net.pipe()

    def ping() -> None:
        for _ in range(200):
            a.write(b"x")
            a.read(1)
        a.close()

    with b:
        one = threading.Thread(target=ping)
        two = threading.Thread(target=lambda: [b.write(d) for d in iter(lambda: b.read(1), b"")])
        one.start()
        two.start()
        one.join(PATIENCE)  # not known to gort: main has the P and lets go of the GIL
        two.join(PATIENCE)
        assert not one.is_alive() and not two.is_alive()


def test_urgent_data_hides_nothing_from_the_reader() -> None:
    """A read stops at the urgent mark; what comes after it has not been told of again."""
    with net.listen("127.0.0.1:0") as listener:
        client = socket.create_connection(("127.0.0.1", int(listener.addr.port)))
        with listener.accept() as conn, client:
            reader = go(conn.read, 100)
            settle(reader)
            client.send(b"abc")
            client.send(b"X", socket.MSG_OOB)
            client.send(b"def")
            got = reader.join()
            while len(got) < 6:
                got += conn.read(100)
            assert got == b"abcdef"


def test_a_packet_of_a_nameless_unix_socket_cannot_be_answered(tmp_path: Path) -> None:
    with net.listen_packet(f"unix:{tmp_path}/s") as server, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.sendto(b"hi", f"{tmp_path}/s")
        data, addr = server.read_from(10)
        assert data == b"hi"
        with pytest.raises(OSError, match="no name") as info:
            server.write_to(b"x", addr)
        assert info.value.errno == errno.EDESTADDRREQ


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_deadline_goes_on_in_a_forks_child() -> None:
    program = """
import os, sys, gort
from gort import net
a, b = net.pipe()
c, d = net.pipe()
a.set_deadline(30)
c.set_deadline(0.05)
pid = os.fork()
if pid == 0:
    a.close()
    for i in range(100):
        gort.go(gort.sleep, 0.001 * i)
    try:
        c.read(1)
    except TimeoutError:
        os._exit(7)
    os._exit(1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 7)
"""
    r = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True)
    assert (r.stderr, r.returncode) == ("", 0)
