"""What the tests share: waiting without sleeping, plain threads, little programs, blocking calls.

Nothing here sleeps to synchronise. On a GIL build goroutines are switched only
at gort's calls, so `settle` (let others run until these wait or are done) makes
an interleaving certain; `PATIENCE` only bounds how long a broken build hangs.

`OPERATIONS` is the table of everything in gort that can wait. Kill, timeout,
context, deadlock, wait reasons and plain threads are each tested over the whole
table (test_waiting.py).
"""

from __future__ import annotations

import functools
import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import gort
import gort.errgroup
import gort.net
import gort.polling
import gort.rate
import gort.singleflight
import gort.sync
import gort.time

PATIENCE = 60.0


# ---- waiting without sleeping -------------------------------------------------


def spin_until(condition: Callable[[], object], what: str = "the condition") -> None:
    """Let others run until `condition()` holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true\n{gort.stack(all=True)}")
        gort.gosched()


def descriptors() -> int:
    """How many are open."""
    return len(os.listdir("/proc/self/fd"))


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Fails if the block leaves a goroutine or a descriptor behind."""
    before = descriptors()
    yield
    spin_until(lambda: gort.num_goroutine() == 1)
    gc.collect()
    gort.polling._forget()
    assert descriptors() <= before + 2, "descriptors left open"  # the poller's own two


def at_rest(g: Any) -> bool:
    return g.state in ("waiting", "dead")


def settle(*goroutines: Any) -> None:
    """Let others run until each of `goroutines` waits or is done."""
    for g in goroutines:  # one after the other first: thousands must not be looked at after every yield
        spin_until(functools.partial(at_rest, g), f"{g} at rest")
    spin_until(lambda: all(map(at_rest, goroutines)), "every goroutine at rest")


def park(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Start a goroutine and return its handle once it waits."""
    g = gort.go(fn, *args, **kwargs)
    settle(g)
    assert g.state == "waiting", f"{fn} did not wait: {g.state}"
    return g


def finish(*goroutines: Any) -> None:
    """Let others run until each of `goroutines` is done, without joining it."""
    spin_until(lambda: all(g.done for g in goroutines), "every goroutine done")


# ---- plain OS threads -----------------------------------------------------------


class PlainThread(threading.Thread):
    """An OS thread that keeps its function's result or exception."""

    def __init__(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(daemon=True)
        self._call: Any = (fn, args, kwargs)
        self._value: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        fn, args, kwargs = self._call
        self._call = None
        try:
            self._value = fn(*args, **kwargs)
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        gort.blocking(self.join, PATIENCE)
        assert not self.is_alive(), f"the thread hangs\n{gort.stack(all=True)}"
        if self._error is not None:
            raise self._error
        return self._value


def from_main(fn: Callable[[], Any]) -> Any:
    return fn()


def from_goroutine(fn: Callable[[], Any]) -> Any:
    return gort.go(fn).join()


def from_thread(fn: Callable[[], Any]) -> Any:
    return PlainThread(fn).result()


EVERYWHERE = [
    pytest.param(from_main, id="main"),
    pytest.param(from_goroutine, id="goroutine"),
    pytest.param(from_thread, id="thread"),
]


# ---- little programs in a process of their own --------------------------------------


def program_env(**env: str) -> dict[str, str]:
    """This process's environment without gort's own variables, plus `env`."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("GORT_", "GOMAXPROCS", "GOGC"))}
    here = str(Path(gort.__file__).resolve().parent.parent)
    clean["PYTHONPATH"] = os.pathsep.join(p for p in (here, os.environ.get("PYTHONPATH", "")) if p)
    return clean | env


def run_program(source: str, *, timeout: float = 120.0, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `source` as a program of its own; `timeout` only bounds how long a broken build hangs."""
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(source)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=program_env(**env),
        check=False,
    )


def output_of(source: str, **env: str) -> str:
    """The standard output of a little program that ends well."""
    done = run_program(source, **env)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


# ---- a context as gort.context makes them, by hand --------------------------------------


class HandMadeContext:
    """Go's four methods and nothing else."""

    def __init__(self) -> None:
        self._done = gort.Chan()
        self._err: BaseException | None = None

    def deadline(self) -> float | None:
        return None

    def done(self) -> gort.Chan[Any]:
        return self._done

    def err(self) -> BaseException | None:
        return self._err

    def value(self, key: object) -> object:
        return None

    def end(self, error: BaseException) -> None:
        self._err = error
        self._done.close()


# ---- everything that can wait ---------------------------------------------------------


@dataclass
class Wait:
    """One prepared call that has to wait.

    call       waits; takes `timeout` and `ctx` if the operation is timed
    release    lets it return, None where nothing can
    untouched  after a wait cut short: nobody waits any more, all is as before; cleans up
    """

    call: Callable[..., object]
    release: Callable[[], object] | None
    untouched: Callable[[], object]


@dataclass(frozen=True)
class Operation:
    """A kind of wait: `reason` as Go names it ("" where Go has none), `hope` if a timer or the network may end it."""

    name: str
    make: Callable[[], Wait]
    reason: str = ""
    timed: bool = True
    hope: bool = False


def nobody_receives(ch: gort.Chan[Any]) -> None:
    with pytest.raises(gort.WouldBlock):
        ch.send_nowait(0)


def nobody_sends(ch: gort.Chan[Any]) -> None:
    with pytest.raises(gort.WouldBlock):
        ch.recv_nowait()


def _recv() -> Wait:
    ch = gort.Chan()
    return Wait(ch.recv, lambda: ch.send(7), lambda: nobody_receives(ch))


def _recv_typed() -> Wait:
    ch = gort.Chan(dtype="i64")
    return Wait(ch.recv, lambda: ch.send(7), lambda: nobody_receives(ch))


def _recv_ok() -> Wait:
    ch = gort.Chan()
    return Wait(ch.recv_ok, lambda: ch.send(7), lambda: nobody_receives(ch))


def _recv_buffered() -> Wait:
    ch = gort.Chan(1)

    def untouched() -> None:
        ch.send_nowait(1)
        assert len(ch) == 1

    return Wait(ch.recv, lambda: ch.send(7), untouched)


def _iterate() -> Wait:
    ch = gort.Chan()
    return Wait(lambda: next(iter(ch)), lambda: ch.send(7), lambda: nobody_receives(ch))


def _send() -> Wait:
    ch = gort.Chan()
    return Wait(lambda **kw: ch.send(7, **kw), ch.recv, lambda: nobody_sends(ch))


def _send_typed() -> Wait:
    ch = gort.Chan(dtype="f64")
    return Wait(lambda **kw: ch.send(7.5, **kw), ch.recv, lambda: nobody_sends(ch))


def _send_full() -> Wait:
    ch = gort.Chan(1)
    ch.send("first")

    def untouched() -> None:
        assert ch.recv_nowait() == "first"
        nobody_sends(ch)

    return Wait(lambda **kw: ch.send("second", **kw), ch.recv, untouched)


def _select_recv() -> Wait:
    a, b = gort.Chan(), gort.Chan()

    def untouched() -> None:
        nobody_receives(a)
        nobody_receives(b)

    return Wait(lambda **kw: gort.select(a, b, **kw), lambda: b.send(7), untouched)


def _select_send() -> Wait:
    a, b = gort.Chan(), gort.Chan()

    def untouched() -> None:
        nobody_sends(a)
        nobody_sends(b)

    return Wait(lambda **kw: gort.select((a, 1), (b, 2), **kw), b.recv, untouched)


def _select_both() -> Wait:
    ch = gort.Chan()

    def untouched() -> None:
        nobody_sends(ch)
        nobody_receives(ch)

    return Wait(lambda **kw: gort.select(ch, (ch, 1), None, **kw), ch.recv, untouched)


def _nothing() -> None:
    pass


def _nil_recv() -> Wait:
    return Wait(gort.NIL.recv, None, _nothing)


def _nil_send() -> Wait:
    return Wait(lambda **kw: gort.NIL.send(1, **kw), None, _nothing)


def _select_nothing() -> Wait:
    return Wait(lambda **kw: gort.select(**kw), None, _nothing)


def _select_nil() -> Wait:
    return Wait(lambda **kw: gort.select(None, (None, 1), gort.NIL, (gort.NIL, 2), **kw), None, _nothing)


def _sleep() -> Wait:
    return Wait(lambda: gort.sleep(3600), None, _nothing)


def _timer() -> Wait:
    timer = gort.time.Timer(3600)

    def untouched() -> None:
        assert timer.stop()

    return Wait(timer.c.recv, lambda: timer.reset(0), untouched)


def _mutex() -> Wait:
    mu = gort.sync.Mutex()
    mu.lock()

    def call(**kw: Any) -> None:
        mu.lock(**kw)
        mu.unlock()

    def untouched() -> None:
        mu.unlock()
        assert mu.try_lock()
        mu.unlock()

    return Wait(call, mu.unlock, untouched)


def _rlock() -> Wait:
    rw = gort.sync.RWMutex()
    rw.lock()

    def call(**kw: Any) -> None:
        rw.rlock(**kw)
        rw.runlock()

    def untouched() -> None:
        rw.unlock()
        assert rw.try_lock()
        rw.unlock()

    return Wait(call, rw.unlock, untouched)


def _wlock(held_by_reader: bool) -> Wait:
    rw = gort.sync.RWMutex()
    (rw.rlock if held_by_reader else rw.lock)()
    give_up = rw.runlock if held_by_reader else rw.unlock

    def call(**kw: Any) -> None:
        rw.lock(**kw)
        rw.unlock()

    def untouched() -> None:
        give_up()
        assert rw.try_rlock()
        assert rw.try_rlock()
        rw.runlock()
        rw.runlock()
        assert rw.try_lock()
        rw.unlock()

    return Wait(call, give_up, untouched)


def _cond() -> Wait:
    mu = gort.sync.Mutex()
    cond = gort.sync.Cond(mu)

    def call(**kw: Any) -> None:
        with mu:
            cond.wait(**kw)

    def release() -> None:
        with mu:
            cond.signal()

    def untouched() -> None:
        assert mu.try_lock()
        mu.unlock()

    return Wait(call, release, untouched)


def _waitgroup() -> Wait:
    wg = gort.sync.WaitGroup()
    wg.add(1)

    def untouched() -> None:
        wg.done()
        wg.wait()

    return Wait(wg.wait, wg.done, untouched)


def _semaphore() -> Wait:
    sem = gort.sync.Semaphore(2)
    sem.acquire()

    def call(**kw: Any) -> None:
        sem.acquire(2, **kw)
        sem.release(2)

    def untouched() -> None:
        sem.release()
        assert sem.try_acquire(2)
        sem.release(2)

    return Wait(call, sem.release, untouched)


def _semaphore_oversize() -> Wait:
    sem = gort.sync.Semaphore(2)

    def untouched() -> None:
        assert sem.try_acquire(2)
        sem.release(2)

    return Wait(lambda **kw: sem.acquire(3, **kw), None, untouched)


def _join() -> Wait:
    gate = gort.Chan()
    target = gort.go(gate.recv_ok)

    def untouched() -> None:
        gate.close()
        assert target.join() == (None, False)

    return Wait(target.join, gate.close, untouched)


def _singleflight() -> Wait:
    group: gort.singleflight.Group[str, int] = gort.singleflight.Group()
    gate = gort.Chan[int]()
    leader = park(group.do, "key", gate.recv)

    def untouched() -> None:
        gate.send(7)
        assert leader.join() == (7, False)

    return Wait(lambda **kw: group.do("key", lambda: 8, **kw), lambda: gate.send(7), untouched)


def _rate() -> Wait:
    limiter = gort.rate.Limiter(1e-6, 1)
    limiter.wait()

    def untouched() -> None:
        assert limiter.tokens() > -0.1

    return Wait(limiter.wait, None, untouched)


def _errgroup() -> Wait:
    group, gate = gort.errgroup.Group(), gort.Chan()
    group.go(gate.recv)

    def untouched() -> None:
        assert group.ctx.err() is None
        gate.send(7)
        group.wait()

    return Wait(group.wait, lambda: gate.send(7), untouched)


def _errgroup_limit() -> Wait:
    group, gate = gort.errgroup.Group(limit=1), gort.Chan()
    group.go(gate.recv)

    def untouched() -> None:
        gate.send(7)
        group.wait()
        assert group.try_go(_nothing)
        group.wait()

    return Wait(lambda: group.go(_nothing), lambda: gate.send(7), untouched)


def _net_read() -> Wait:
    a, b = gort.net.pipe()

    def untouched() -> None:
        b.write(b"x")
        assert a.read(10) == b"x"
        a.close()
        b.close()

    return Wait(lambda **kw: _closing((a, b), a.read, 1, **kw), lambda: b.write(b"x"), untouched)


def _closing(conns: Any, call: Callable[..., object], *args: Any, **kw: Any) -> object:
    """Call it, and close these once it has returned."""
    result = call(*args, **kw)
    for conn in conns:
        conn.close()
    return result


def _net_write() -> Wait:
    a, b = gort.net.pipe()
    sent = 0
    try:
        while True:
            a.write(bytes(4096), timeout=0)
            sent += 4096
    except TimeoutError as e:
        sent += e.written  # type: ignore[attr-defined]

    def untouched() -> None:
        b.read_exactly(sent)
        a.write(b"next")
        assert b.read(100) == b"next"
        a.close()
        b.close()

    ended: list[int] = []

    def end() -> None:  # the later of the two closes them
        ended.append(1)
        if len(ended) == 2:
            a.close()
            b.close()

    def call(**kw: Any) -> None:
        a.write(b"x", **kw)
        end()

    def release() -> None:
        b.read_exactly(sent)
        end()

    return Wait(call, release, untouched)


def _net_turn() -> Wait:
    """Another goroutine reads already, and holds the turn."""
    a, b = gort.net.pipe()
    first = park(a.read_exactly, 1)

    def untouched() -> None:
        b.write(b"12")
        assert first.join() == b"1"
        assert a.read(10) == b"2"
        a.close()
        b.close()

    def call(**kw: Any) -> object:
        result = _closing((a, b), a.read, 10, **kw)
        first.join()
        return result

    return Wait(call, lambda: b.write(b"12"), untouched)


def _net_accept() -> Wait:
    listener = gort.net.listen("127.0.0.1:0")
    addr = listener.addr

    def untouched() -> None:
        with gort.net.dial(addr) as conn, listener.accept() as other:
            assert other.remote_addr == conn.local_addr
        listener.close()

    def call(**kw: Any) -> None:
        listener.accept(**kw).close()
        listener.close()

    return Wait(call, lambda: gort.net.dial(addr).close(), untouched)


def _net_packet() -> Wait:
    server = gort.net.listen_packet("127.0.0.1:0")
    addr = server.local_addr

    def send() -> None:
        with gort.net.dial_packet(addr) as client:
            client.write(b"x")

    def untouched() -> None:
        send()
        assert server.read(10) == b"x"
        server.close()

    return Wait(lambda **kw: _closing((server,), server.read_from, 10, **kw), send, untouched)


OPERATIONS = [
    Operation("chan-recv", _recv, "chan receive"),
    Operation("chan-recv-typed", _recv_typed, "chan receive"),
    Operation("chan-recv-ok", _recv_ok, "chan receive"),
    Operation("chan-recv-buffered", _recv_buffered, "chan receive"),
    Operation("chan-iterate", _iterate, "chan receive", timed=False),
    Operation("chan-send", _send, "chan send"),
    Operation("chan-send-typed", _send_typed, "chan send"),
    Operation("chan-send-full", _send_full, "chan send"),
    Operation("select-recv", _select_recv, "select"),
    Operation("select-send", _select_send, "select"),
    Operation("select-both", _select_both, "select"),
    Operation("select-nothing", _select_nothing, "select (no cases)"),
    Operation("select-nil", _select_nil),
    Operation("nil-recv", _nil_recv, "chan receive (nil chan)"),
    Operation("nil-send", _nil_send, "chan send (nil chan)"),
    Operation("sleep", _sleep, "sleep", timed=False, hope=True),
    Operation("timer", _timer, "chan receive", hope=True),
    Operation("mutex", _mutex, "sync.Mutex.Lock"),
    Operation("rwmutex-rlock", _rlock, "sync.RWMutex.RLock"),
    Operation("rwmutex-lock-after-reader", lambda: _wlock(True), "sync.RWMutex.Lock"),
    Operation("rwmutex-lock-after-writer", lambda: _wlock(False)),
    Operation("cond", _cond, "sync.Cond.Wait"),
    Operation("waitgroup", _waitgroup, "sync.WaitGroup.Wait"),
    Operation("semaphore", _semaphore),
    Operation("semaphore-oversize", _semaphore_oversize),
    Operation("join", _join),
    Operation("singleflight", _singleflight, "sync.WaitGroup.Wait"),
    Operation("rate", _rate, "sleep", timed=False, hope=True),  # its timeout does not wait
    Operation("errgroup", _errgroup, "sync.WaitGroup.Wait"),
    Operation("errgroup-limit", _errgroup_limit, timed=False),
    Operation("net-read", _net_read, "IO wait", hope=True),
    Operation("net-write", _net_write, "IO wait", hope=True),
    Operation("net-turn", _net_turn, "IO wait", hope=True),
    Operation("net-accept", _net_accept, "IO wait", hope=True),
    Operation("net-packet", _net_packet, "IO wait", hope=True),
]


def operations(**wanted: bool) -> list[Any]:
    """The rows of OPERATIONS with these attributes (`timed`, `hope`, `releasable`), for parametrize."""

    def fits(op: Operation) -> bool:
        has = {"timed": op.timed, "hope": op.hope, "named": op.reason != "", "releasable": op.name not in _FOR_EVER}
        return all(has[key] is value for key, value in wanted.items())

    return [pytest.param(op, id=op.name) for op in OPERATIONS if fits(op)]


_FOR_EVER = {"select-nothing", "select-nil", "nil-recv", "nil-send", "sleep", "semaphore-oversize", "rate"}
