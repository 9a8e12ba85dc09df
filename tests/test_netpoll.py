"""The network poller beside the rest of the runtime: who polls when, hope, blocking calls, threads, bubbles.

What the poller does for one descriptor is tested in C (tests/c/test_netpoll.c) and in test_net.py.
"""

from __future__ import annotations

import gc
import random
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import pytest
from model_support import PATIENCE, PlainThread, park, spin_until

import gort
import gort.sync
from gort import context, go, net
from gort.testing import synctest


def run(program: str, **env: str) -> str:
    import os

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **env},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def echo(conn: net.Conn) -> None:
    with conn:
        while data := conn.read(1000):
            conn.write(data)


# ---- who polls ---------------------------------------------------------------------


def test_all_wait_for_the_network_alone() -> None:
    a, b = net.pipe()
    g = go(echo, b)
    with a:
        for i in range(1000):
            a.write(b"%d" % i)
            assert a.read(10) == b"%d" % i
    g.join()


def test_the_network_is_heard_while_goroutines_run_all_the_time() -> None:
    a, b = net.pipe()
    over = False

    def busy() -> None:
        while not over:
            gort.gosched()

    gs = [go(busy) for _ in range(3)]
    g = go(echo, b)
    with a:
        for _ in range(100):
            a.write(b"x")
            assert a.read(1) == b"x"
    over = True
    for each in (*gs, g):
        each.join()


def test_the_network_is_heard_though_the_run_queue_is_always_full() -> None:
    a, b = net.pipe()
    over = False

    def busy() -> None:
        while not over:
            gort.gosched()

    gs = [go(busy) for _ in range(1000)]  # more than a P's ring holds
    g = go(echo, b)
    with a:
        for _ in range(20):
            a.write(b"x")
            assert a.read(1) == b"x"
    over = True
    for each in (*gs, g):
        each.join()


def test_the_network_is_heard_while_a_goroutine_computes() -> None:
    a, b = net.pipe()
    over = False

    def compute() -> None:
        x = 1
        while not over:
            x = x * 3 % 1000003

    hog = go(compute)
    g = go(echo, b)
    with a:
        for _ in range(10):
            a.write(b"x")
            assert a.read(1) == b"x"
    over = True
    hog.join()
    g.join()


def test_the_network_is_heard_while_main_sits_in_a_call() -> None:
    a, b = net.pipe()
    seen = threading.Event()
    g = go(echo, b)

    def client() -> None:
        with a:
            for _ in range(20):
                a.write(b"x")
                a.read(1)
        seen.set()

    h = go(client)
    assert seen.wait(PATIENCE)  # lets go of the GIL, and says nothing to gort
    g.join()
    h.join()


@pytest.mark.parametrize("locked", [False, True])
def test_the_network_is_heard_beside_blocking_calls(locked: bool) -> None:
    a, b = net.pipe()
    g = go(echo, b)

    def sleeper() -> None:
        if locked:
            gort.lock_os_thread()
        for _ in range(20):
            gort.blocking(time.sleep, 0.001)

    gs = [go(sleeper) for _ in range(5)]
    with a:
        for _ in range(200):
            a.write(b"x")
            assert a.read(1) == b"x"
    for each in (*gs, g):
        each.join()


def test_timers_go_off_while_the_network_is_silent_and_the_other_way_round() -> None:
    a, b = net.pipe()
    with a, b:
        quiet = park(a.read, 1)
        for _ in range(10):
            gort.sleep(0.002)
        late = park(gort.sleep, 1000)
        b.write(b"x")
        assert quiet.join() == b"x"
        late.kill()
        late.join()


def test_a_thread_hears_the_network_when_all_goroutines_sleep() -> None:
    a, b = net.pipe()
    with a, b:
        thread = PlainThread(a.read, 1)
        gort.sleep(0.005)
        other = PlainThread(lambda: (time.sleep(0.005), b.write(b"x")))
        assert thread.result() == b"x"
        other.result()


def test_threads_and_goroutines_on_one_connection() -> None:
    a, b = net.pipe()
    n = 200

    def send(k: int) -> None:
        for _ in range(n):
            a.write(bytes([k]) * 10)

    def receive() -> list[bytes]:
        return [b.read_exactly(10) for _ in range(n)]

    with a, b:
        senders = [PlainThread(send, 1), PlainThread(send, 2)]
        gs = [go(send, k) for k in (3, 4)]
        receivers = [PlainThread(receive) for _ in range(2)]
        others = [go(receive) for _ in range(2)]
        got = [m for t in receivers for m in t.result()] + [m for g in others for m in g.join()]
        for t in senders:
            t.result()
        for g in gs:
            g.join()
    assert sorted(got) == sorted(bytes([k]) * 10 for k in (1, 2, 3, 4) for _ in range(n))


def test_many_wake_at_once_and_none_is_overtaken_by_many() -> None:
    n = 600  # more than one look at the kernel gives, and than a P's ring holds
    pairs = [net.pipe() for _ in range(n)]
    woken: list[int] = []

    def wait(i: int) -> None:
        pairs[i][0].read(1)
        woken.append(i)

    gs = [park(wait, i) for i in range(n)]
    order = list(range(n))
    random.Random(1).shuffle(order)
    for i in order:
        pairs[i][1].write(b"x")
    for g in gs:
        g.join()
    assert sorted(woken) == sorted(order)
    # At every 61st tick one of the global queue runs before those in the ring.
    ran = {i: k for k, i in enumerate(woken)}
    assert max(ran[i] - k for k, i in enumerate(order)) < 64
    for a, b in pairs:
        a.close()
        b.close()


# ---- hope ------------------------------------------------------------------------------


def test_a_goroutine_in_io_wait_is_hope() -> None:
    ch: gort.Chan[bytes] = gort.Chan()
    a, b = net.pipe()
    with a, b:
        go(lambda: ch.send(a.read(1)))
        threading.Timer(0.3, b.write, (b"x",)).start()  # longer than the deadlock's look
        assert ch.recv() == b"x"


def test_a_connection_on_which_nobody_waits_is_no_hope() -> None:
    a, b = net.pipe()
    with a, b:
        g = park(a.read, 1)
        b.write(b"x")
        g.join()
        with pytest.raises(gort.Deadlock):
            gort.Chan().recv()


def test_a_killed_reader_is_no_hope() -> None:
    a, b = net.pipe()
    with a, b:
        g = park(a.read, 1)
        go(g.kill)
        with pytest.raises(gort.Deadlock):
            gort.Chan().recv()
        g.join()


# ---- killing, storms -----------------------------------------------------------------------


def test_a_kill_and_the_bytes_that_come_with_it() -> None:
    # Either the read ends before the bytes are taken, or they are its result.
    a, b = net.pipe()
    with a, b:
        for i in range(200):
            got: list[bytes] = []
            g = park(lambda got=got: got.append(a.read(1)))
            if i % 2:
                b.write(b"x")
                g.kill()
            else:
                g.kill()
                b.write(b"x")
            g.join()
            if not got:
                got.append(a.read(1))
            assert got == [b"x"]


def test_a_storm_of_everything() -> None:
    rnd = random.Random(7)
    until = time.monotonic() + 1.0

    def client(addr: str) -> None:
        while time.monotonic() < until:
            try:
                with net.dial(addr, timeout=PATIENCE) as conn:
                    for _ in range(rnd.randrange(6)):
                        what = rnd.randrange(8)
                        if what == 0:
                            conn.set_deadline(rnd.random() / 1000)
                        elif what == 1:
                            conn.read(10, timeout=rnd.random() / 1000)
                        elif what == 2:
                            conn.set_linger(0)
                            break
                        elif what == 3:
                            conn.read(1, ctx=context.with_timeout(context.background(), rnd.random() / 1000)[0])
                        elif what == 4:
                            go(conn.close)
                        else:
                            text = b"x" * rnd.randrange(1, 3000)
                            conn.write(text)
                            conn.read_exactly(len(text))
            except (TimeoutError, net.ErrClosed, net.IncompleteRead, ConnectionError, context.DeadlineExceeded):
                pass

    def serve(conn: net.Conn) -> None:
        try:
            echo(conn)
        except ConnectionError:
            pass

    def accept() -> None:
        for conn in listener:
            go(serve, conn)

    with net.listen("127.0.0.1:0") as listener:
        server = go(accept)
        clients = [go(client, listener.addr) for _ in range(20)]
        victims = [go(client, listener.addr) for _ in range(10)]
        threads = [PlainThread(client, listener.addr) for _ in range(2)]
        for g in victims:
            gort.sleep(0.02)
            g.kill()
        for g in (*clients, *victims):
            g.join()
        for t in threads:
            t.result()
    server.join()
    spin_until(lambda: gort.num_goroutine() == 1)
    gc.collect()


# ---- other parts of the runtime ---------------------------------------------------------------


def test_a_bubbles_goroutine_in_io_wait_is_not_durably_blocked() -> None:
    a, b = net.pipe()

    def inside() -> bytes:
        g = go(a.read, 1)
        threading.Timer(0.05, b.write, (b"x",)).start()
        data: bytes = g.join()
        return data

    with a, b:
        assert synctest.run(inside) == b"x"


def test_without_sysmon_and_with_stock_swaps() -> None:
    program = """
        from gort import go, net, run
        def echo(conn):
            with conn:
                while data := conn.read(100):
                    conn.write(data)
        def main():
            with net.listen("127.0.0.1:0") as listener:
                g = go(lambda: [go(echo, conn) for conn in listener])
                for _ in range(20):
                    with net.dial(listener.addr) as conn:
                        for i in range(20):
                            conn.write(b"%d" % i)
                            assert conn.read(10) == b"%d" % i
            g.join()
            print("done")
        run(main)
    """
    for debug in ("nosysmon=1", "stockswap=1"):
        assert run(program, GORT_DEBUG=debug) == "done\n"


def test_the_poller_is_not_started_by_a_program_without_network() -> None:
    program = """
        import os, gort
        before = len(os.listdir("/proc/self/fd"))
        gort.go(gort.sleep, 0.01).join()
        print(len(os.listdir("/proc/self/fd")) - before)
    """
    assert run(program) == "0\n"


@pytest.mark.parametrize("failing", range(1, 6))
def test_no_memory_for_a_socket_or_a_wait(failing: int) -> None:
    # More connections than there are free slots, with one allocation after the other failing.
    from gort._core import _runtime

    made: list[Any] = []
    failed = 0
    try:
        for _ in range(300):
            _runtime.fail_next("malloc", after=failing, times=1)
            try:
                made.extend(net.pipe())
            except MemoryError:
                failed += 1
    finally:
        _runtime.fail_next("malloc", times=0)
    assert failed or made
    a, b = net.pipe()
    made += [a, b]
    g = park(a.read, 1)
    b.write(b"x")
    assert g.join() == b"x"
    for conn in made:
        conn.close()
