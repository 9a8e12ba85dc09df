"""gort.polling, the stdlib's `select`, and gort.selectors: waiting for some of many descriptors by parking."""

from __future__ import annotations

import contextlib
import os
import resource
import select as stdlib
import selectors as stdlib_selectors
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from model_support import EVERYWHERE, PATIENCE, PlainThread, no_descriptor_left, output_of, park, settle

import gort
from gort import blocking, go, polling, selectors
from gort import socket as gort_socket

everywhere = pytest.mark.parametrize("where", EVERYWHERE)
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    with no_descriptor_left():
        yield


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    made = [socket.socketpair() for _ in range(5)]
    yield made
    for a, b in made:
        a.close()
        b.close()


def wait_select(readers: list[socket.socket], timeout: float | None) -> list[int]:
    return [s.fileno() for s in polling.select(readers, [], [], timeout)[0]]


def wait_poll(readers: list[socket.socket], timeout: float | None) -> list[int]:
    p = polling.poll()
    for s in readers:
        p.register(s, polling.POLLIN)
    return [fd for fd, _ in p.poll(None if timeout is None else timeout * 1000)]


def wait_epoll(readers: list[socket.socket], timeout: float | None) -> list[int]:
    with polling.epoll() as p:
        for s in readers:
            p.register(s, polling.EPOLLIN)
        return [fd for fd, _ in p.poll(timeout)]


def wait_selector(cls: Any) -> Callable[[list[socket.socket], float | None], list[int]]:
    def wait(readers: list[socket.socket], timeout: float | None) -> list[int]:
        with cls() as p:
            for s in readers:
                p.register(s, selectors.EVENT_READ)
            return [key.fd for key, _ in p.select(timeout)]

    return wait


WAYS = [
    pytest.param(wait_select, id="select"),
    pytest.param(wait_poll, id="poll"),
    pytest.param(wait_epoll, id="epoll"),
    pytest.param(wait_selector(selectors.SelectSelector), id="SelectSelector"),
    pytest.param(wait_selector(selectors.PollSelector), id="PollSelector"),
    pytest.param(wait_selector(selectors.EpollSelector), id="EpollSelector"),
]
ways = pytest.mark.parametrize("wait", WAYS)


# ---- what there is -----------------------------------------------------------------------
def test_every_public_name_of_the_stdlib_is_there() -> None:
    for ours, theirs in ((polling, stdlib), (selectors, stdlib_selectors)):
        names = [n for n in vars(theirs) if not n.startswith("_") and n not in ("select", "math", "sys")]
        assert [n for n in names if not hasattr(ours, n)] == []
        assert set(ours.__all__) <= set(dir(ours))
    assert callable(polling.select) and callable(gort.select)
    assert gort.select is not polling.select


def test_selectors_are_the_stdlibs_too() -> None:
    assert issubclass(selectors.DefaultSelector, stdlib_selectors.EpollSelector)
    assert issubclass(selectors.PollSelector, stdlib_selectors.PollSelector)
    assert issubclass(selectors.SelectSelector, stdlib_selectors.BaseSelector)


# ---- waiting -------------------------------------------------------------------------------
@everywhere
@ways
@pytest.mark.parametrize("n", [1, 5])
def test_it_waits_for_the_first(pairs: list[Pair], wait: Any, where: Any, n: int) -> None:
    readers = [b for _, b in pairs[:n]]
    g = go(pairs[n - 1][0].send, b"x")  # which runs once we wait
    assert where(lambda: wait(readers, None)) == [readers[n - 1].fileno()]
    g.join()


@ways
@pytest.mark.parametrize("n", [1, 5])
def test_others_run_meanwhile(pairs: list[Pair], wait: Any, n: int) -> None:
    readers = [b for _, b in pairs[:n]]
    gs = [park(wait, readers, PATIENCE) for _ in range(20)]
    assert {g.wait_reason for g in gs} == {"IO wait"}
    pairs[0][0].send(b"x")
    assert [g.join() for g in gs] == [[readers[0].fileno()]] * 20


@ways
@pytest.mark.parametrize("n", [0, 1, 5])
def test_the_time_is_up(pairs: list[Pair], wait: Any, n: int) -> None:
    readers = [b for _, b in pairs[:n]]
    for timeout in (0, 0.005):
        assert wait(readers, timeout) == []


@ways
def test_what_is_ready_is_told_at_once_and_again(pairs: list[Pair], wait: Any) -> None:
    readers = [b for _, b in pairs]
    for a, _ in pairs[1:3]:
        a.send(b"x")
    for timeout in (0, PATIENCE, None):
        assert sorted(wait(readers, timeout)) == sorted(b.fileno() for b in readers[1:3])
    readers[1].recv(1)
    assert wait(readers, None) == [readers[2].fileno()]


@ways
def test_a_kill_ends_it(pairs: list[Pair], wait: Any) -> None:
    for n in (0, 1, 5):
        readers = [b for _, b in pairs[:n]]
        if n == 0 and wait is not wait_select:
            continue
        g = park(wait, readers, None)
        g.kill()
        assert g.join() is None


@ways
def test_the_sockets_own_waits_go_on_beside_it(wait: Any) -> None:
    a, b = gort_socket.socketpair()
    with a, b:
        reader = park(b.recv, 1)
        g = park(wait, [b], None)
        a.sendall(b"12")
        assert reader.join() == b"1"
        assert g.join() == [b.fileno()]
        assert b.recv(1) == b"2"


@ways
def test_the_other_sides_end(pairs: list[Pair], wait: Any) -> None:
    g = park(wait, [b for _, b in pairs], None)
    pairs[3][0].close()
    assert g.join() == [pairs[3][1].fileno()]


@ways
def test_descriptors_that_are_used_again(wait: Any) -> None:
    """An instance of epoll is used for many waits; what was closed in between must not show up."""
    for _ in range(30):
        a, b = socket.socketpair()
        c, d = socket.socketpair()
        with a, b, c, d:
            g = park(wait, [b, d], None)
            a.send(b"x")
            assert g.join() == [b.fileno()]


def test_a_descriptor_closed_while_it_is_waited_for() -> None:
    a, b = socket.socketpair()
    c, d = socket.socketpair()
    with a, c, d:
        copy = b.dup()
        g = park(wait_poll, [b, d], 0.05)
        fd = b.fileno()
        b.close()
        a.send(b"x")  # the copy is ready, and epoll still tells of it under the old number
        assert g.join() in ([], [fd])
        copy.close()
        assert wait_poll([d], 0.005) == []


# ---- events ----------------------------------------------------------------------------------
def test_the_events_of_poll(pairs: list[Pair]) -> None:
    a, b = pairs[0]
    for cls in (stdlib.poll, polling.poll):
        p = cls()
        p.register(a.fileno())
        assert p.poll(1000) == [(a.fileno(), stdlib.POLLOUT)]
        p.modify(a, stdlib.POLLIN)
        assert p.poll(0) == []
        p.unregister(a)
        with pytest.raises(KeyError):
            p.unregister(a)
        with pytest.raises(FileNotFoundError):
            p.modify(a, 1)
        with pytest.raises((TypeError, ValueError)):
            p.register("x")
        for wrong in ("x", 1 << 40, [1]):
            with pytest.raises((TypeError, OverflowError)):
                p.poll(wrong)
    p = polling.poll()
    p.register(a, stdlib.POLLIN)
    g = park(p.poll)
    b.close()
    assert g.join() == [(a.fileno(), stdlib.POLLIN | stdlib.POLLHUP)]
    p = polling.poll()
    p.register(pairs[1][0], 0)  # asks for nothing, and still hears of the end
    g = park(p.poll)
    pairs[1][1].close()
    assert g.join() == [(pairs[1][0].fileno(), stdlib.POLLHUP)]


def test_a_closed_descriptor_in_poll_and_select() -> None:
    a, b = socket.socketpair()
    fd = a.fileno()
    p = polling.poll()
    p.register(fd)
    a.close()
    assert p.poll(None) == [(fd, stdlib.POLLNVAL)]
    with b:
        for lists in (([fd], [], []), ([b, fd], [], []), ([], [fd], []), ([], [], [fd])):
            with pytest.raises(OSError):
                polling.select(*lists, 1)
    for wrong in (
        ([-1], [], []),
        (["x"], [], []),
        (3, [], []),
        ([], [], [], "x"),
        ([], [], [], -1),
        ([1 << 20], [], []),
    ):
        raised = []
        for module in (stdlib, polling):
            with pytest.raises(Exception) as e:
                module.select(*wrong)
            raised.append(type(e.value))
        assert raised[0] is raised[1]


def test_select_of_reading_writing_and_urgent_data() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        a = socket.create_connection(listener.getsockname())
        b, _ = listener.accept()
    with a, b:
        assert polling.select([b], [b], [b]) == ([], [b], [])
        g = park(polling.select, [b], (), {b})
        a.send(b"!", socket.MSG_OOB)
        assert g.join() == ([], [], [b])
        a.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                a.send(bytes(1 << 16))
        g = park(polling.select, [a], [a], [])
        b.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                b.recv(1 << 20)
        assert g.join() == ([], [a], [])


def test_files_are_always_ready(tmp_path: Path) -> None:
    with open(tmp_path / "file", "w+") as f:
        assert polling.select([f], [f], [], None) == ([f], [f], [])
        p = polling.poll()
        p.register(f)
        assert p.poll() == [(f.fileno(), stdlib.POLLIN | stdlib.POLLOUT)]
        p.register(f, 0)
        assert p.poll(5) == []
        with polling.epoll() as e, pytest.raises(PermissionError):
            e.register(f)


def test_pipes() -> None:
    r, w = os.pipe()
    try:
        g = park(polling.select, [r], [], [])
        os.write(w, b"x")
        assert g.join() == ([r], [], [])
        os.read(r, 1)
        p = polling.poll()
        p.register(r, polling.POLLIN)
        g = park(p.poll)
    finally:
        os.close(w)
    assert g.join() == [(r, polling.POLLHUP)]
    os.close(r)


def test_one_poll_at_a_time(pairs: list[Pair]) -> None:
    p = polling.poll()
    p.register(pairs[0][1], polling.POLLIN)
    g = park(p.poll)
    with pytest.raises(RuntimeError, match="concurrent poll"):
        p.poll(0)
    pairs[0][0].send(b"x")
    g.join()
    assert p.poll(0)
    with pytest.raises(TypeError, match="cannot create"):
        type(p)()


# ---- epoll -----------------------------------------------------------------------------------
def test_epoll_of_several_goroutines(pairs: list[Pair]) -> None:
    with polling.epoll() as e:
        assert not e.closed and e.fileno() >= 0
        for _, b in pairs:
            e.register(b, polling.EPOLLIN | polling.EPOLLONESHOT)
        gs = [park(e.poll, None, 1) for _ in pairs]
        for a, _ in pairs:
            a.send(b"x")
        assert sorted(g.join()[0][0] for g in gs) == sorted(b.fileno() for _, b in pairs)
        e.modify(pairs[0][1], polling.EPOLLIN)
        assert e.poll(0) == [(pairs[0][1].fileno(), polling.EPOLLIN)]
        e.unregister(pairs[0][1])
        with pytest.raises(FileNotFoundError):
            e.unregister(pairs[0][1])
        with pytest.raises(FileExistsError):
            e.register(pairs[1][1])
        for wrong in (("x",), (0.1, 0), (0.1, -2), (float("nan"),)):
            with pytest.raises((TypeError, ValueError)):
                e.poll(*wrong)


def test_edges_of_epoll(pairs: list[Pair]) -> None:
    a, b = pairs[0]
    with polling.epoll() as e:
        e.register(b, polling.EPOLLIN | polling.EPOLLET)
        for _ in range(3):
            g = park(e.poll)
            a.send(b"x")
            assert g.join() == [(b.fileno(), polling.EPOLLIN)]
            assert e.poll(0.005) == []


def test_closing_an_epoll_wakes_who_waits(pairs: list[Pair]) -> None:
    e = polling.epoll()
    e.register(pairs[0][1], polling.EPOLLIN)
    gs = [park(e.poll) for _ in range(3)]
    e.close()
    for g in gs:
        with pytest.raises(ValueError, match="closed epoll"):
            g.join()
    e.close()
    assert e.closed
    for call in (e.poll, e.fileno, lambda: e.register(0)):
        with pytest.raises(ValueError, match="closed epoll"):
            call()


def test_epoll_from_a_descriptor(pairs: list[Pair]) -> None:
    with stdlib.epoll() as theirs:
        theirs.register(pairs[0][1], polling.EPOLLIN)
        ours = polling.epoll.fromfd(os.dup(theirs.fileno()))
        g = park(ours.poll)
        pairs[0][0].send(b"x")
        assert g.join() == [(pairs[0][1].fileno(), polling.EPOLLIN)]
        ours.close()


def test_what_is_registered_during_the_wait(pairs: list[Pair]) -> None:
    with polling.epoll() as e:
        g = park(e.poll)
        pairs[0][0].send(b"x")
        e.register(pairs[0][1], polling.EPOLLIN)
        assert g.join() == [(pairs[0][1].fileno(), polling.EPOLLIN)]


def test_more_than_1024_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 3000:
        pytest.skip(f"only {hard} descriptors are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    made = [socket.socketpair() for _ in range(1200)]
    try:
        readers = [b for _, b in made]
        assert readers[-1].fileno() > 2000
        for wait in (wait_poll, wait_epoll, wait_selector(selectors.PollSelector)):
            g = park(wait, readers, None)
            made[-1][0].send(b"x")
            assert g.join() == [readers[-1].fileno()]
            readers[-1].recv(1)
        with pytest.raises(ValueError, match="out of range"):
            polling.select(readers, [], [], 1)
    finally:
        for a, b in made:
            a.close()
            b.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_threads_and_goroutines_at_once(pairs: list[Pair]) -> None:
    readers = [b for _, b in pairs]
    began = threading.Barrier(3)

    def waiting() -> list[int]:
        began.wait(PATIENCE)
        return wait_select(readers, PATIENCE)

    threads = [PlainThread(waiting) for _ in range(2)]
    gs = [go(wait_select, readers, PATIENCE) for _ in range(10)]
    settle(*gs)
    blocking(began.wait, PATIENCE)
    pairs[2][0].send(b"x")
    assert [g.join() for g in gs] == [[readers[2].fileno()]] * 10
    assert [t.result() for t in threads] == [[readers[2].fileno()]] * 2


def test_a_forked_child_has_sets_of_its_own() -> None:
    output = output_of("""
        import os, socket
        from gort import go, polling
        pairs = [socket.socketpair() for _ in range(2)]
        readers = [b for _, b in pairs]
        g = go(polling.select, readers, [], [])
        def wake(pair): pair[0].send(b"x")
        go(wake, pairs[0])
        g.join(); pairs[0][1].recv(1)          # there is a set in the pool now
        waiting = go(polling.select, readers, [], [])
        go(lambda: None).join()
        pid = os.fork()
        if pid == 0:
            go(wake, pairs[1])
            assert polling.select(readers, [], [])[0] == [readers[1]]
            readers[1].recv(1)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        wake(pairs[0])
        print(bool(waiting.join()[0]))  # maybe what the child was sent: they share the sockets
    """)
    assert output == "True\n"


def test_asyncio_runs_on_the_patched_selectors() -> None:
    output = output_of("""
        import asyncio
        from gort import go, selectors, sleep
        ticks = []
        def tick():
            while True:
                sleep(0.001)
                ticks.append(1)
        async def main():
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"hello\\n")
            print(await reader.readline())
            await asyncio.sleep(0.05)
            writer.close()
            server.close()
        async def serve(reader, writer):
            writer.write(await reader.readline())
            writer.close()
        go(tick)
        asyncio.run(main(), loop_factory=lambda: asyncio.SelectorEventLoop(selectors.DefaultSelector())) \\
            if __import__("sys").version_info >= (3, 12) else \\
            asyncio.SelectorEventLoop(selectors.DefaultSelector()).run_until_complete(main())
        print(len(ticks) > 3)
    """)
    assert output == "b'hello\\n'\nTrue\n"
