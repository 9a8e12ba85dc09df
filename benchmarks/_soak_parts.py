"""What the soak mixes: each part is a round that does something, checks all of it and leaves nothing.

A round gets a random generator of its own, takes up to a second or so, and
returns how many messages, calls or jobs it has accounted for. It raises where
something was lost, doubled, mixed up or ended in a wrong way, and hangs where a
wake-up was lost; `soak.py` runs them all beside each other and watches.

To keep apart what is gort's fault: rounds share nothing but what is written at
the top of this file, wait for all that they started, and bound no time but where
a signal or a process is owed.
"""

import asyncio
import contextvars
import ctypes
import decimal
import functools
import gc
import hashlib
import importlib
import json
import logging
import multiprocessing
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import weakref
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count, pairwise
from pathlib import Path
from random import Random
from typing import Any

import gort
import gort.atomic
import gort.native
import gort.sync
import gort.time
from benchmarks._beside import COUNT, text
from benchmarks._build import OUT

Round = Callable[[Random], int]
PROCESS_TIMEOUT = 60.0  # seconds for a child process, or a signal handler, on the busiest machine
TEXT = text(200_000, 1)
TEXT_SHA256 = hashlib.sha256(TEXT).hexdigest()


@dataclass(frozen=True)
class Part:
    """A round, how many goroutines run it again and again, and what it is about."""

    name: str
    round: Round
    workers: int
    about: str


PARTS: dict[str, Part] = {}


def part(workers: int) -> Callable[[Round], Round]:
    """Register a round; its docstring says what it is about."""

    def register(fn: Round) -> Round:
        name = fn.__name__.rstrip("_")
        PARTS[name] = Part(name, fn, workers, fn.__doc__ or "")
        return fn

    return register


def check(ok: object, text: str) -> None:
    """Fail: not `assert`, for -O must not make the soak idle."""
    if not ok:
        raise AssertionError(text)


def exactly_once(got: Iterable[int], want: Iterable[int]) -> int:
    """Fail unless both have the same numbers as often; how many."""
    got, want = sorted(got), sorted(want)
    if got != want:
        lost, extra = sorted(set(want) - set(got)), sorted(set(got) - set(want))
        raise AssertionError(f"sent {len(want)}, got {len(got)}: lost {lost[:10]}, never sent {extra[:10]}")
    return len(got)


# ---- odd places to wait in -----------------------------------------------------------
# Each calls fn, which parks or blocks, and returns what it returned.
def _in_sort_key(fn: Callable[[], Any]) -> Any:
    got: list[Any] = []

    def key(_: int) -> int:
        got.append(fn())
        return 0

    sorted([1], key=key)
    return got[0]


def _in_generator(fn: Callable[[], Any]) -> Any:
    def gen() -> Iterator[Any]:
        try:
            yield fn()
        finally:
            gort.gosched()

    return next(iter(list(gen())))


def _in_except(fn: Callable[[], Any]) -> Any:
    try:
        raise KeyError("odd")
    except KeyError as error:
        got = fn()
        check(sys.exc_info()[1] is error, f"the handled exception became {sys.exc_info()[1]!r}")
        return got


def _in_finally(fn: Callable[[], Any]) -> Any:
    try:
        return None
    finally:
        return fn()  # noqa: B012


def _in_property(fn: Callable[[], Any]) -> Any:
    class Odd:
        @property
        def value(self) -> Any:
            return fn()

    return Odd().value


def _in_context(fn: Callable[[], Any]) -> Any:
    return contextvars.Context().run(fn)


def _in_json(fn: Callable[[], Any]) -> Any:
    got: list[Any] = []
    json.dumps(object(), default=lambda _: got.append(fn()))
    return got[0]


def _in_deep_calls(fn: Callable[[], Any]) -> Any:
    def down(n: int) -> Any:
        return down(n - 1) if n else functools.reduce(lambda a, _: fn(), [1], None)

    return down(50)


# Where what fn raises would be swallowed: not for those that are killed.
def _in_del(fn: Callable[[], Any]) -> Any:
    got: list[Any] = []

    class Odd:
        def __del__(self) -> None:
            got.append(fn())

    Odd()
    return got[0]


def _in_ctypes_callback(fn: Callable[[], Any]) -> Any:
    got: list[Any] = []
    ctypes.CFUNCTYPE(None)(lambda: got.append(fn()))()
    return got[0]


def _in_sqlite_function(fn: Callable[[], Any]) -> Any:
    got: list[Any] = []
    db = sqlite3.connect(":memory:", check_same_thread=False)
    db.create_function("odd", 0, lambda: got.append(fn()))
    db.execute("select odd()").fetchone()
    db.close()
    return got[0]


KILLABLE_PLACES = [
    _in_sort_key, _in_generator, _in_except, _in_property, _in_context, _in_json, _in_deep_calls,
]  # fmt: skip
PLACES = [*KILLABLE_PLACES, _in_finally, _in_del, _in_ctypes_callback, _in_sqlite_function]


# ---- calls that block ----------------------------------------------------------------
def _sleeps(rng: Random) -> None:
    time.sleep(rng.choice([0, 1e-5, 1e-3, 0.02]))


def _compresses(rng: Random) -> None:
    cut = rng.randrange(len(TEXT))
    check(zlib.decompress(zlib.compress(TEXT[cut:])) == TEXT[cut:], "zlib gave other bytes back")


def _hashes(rng: Random) -> None:
    check(hashlib.sha256(TEXT).hexdigest() == TEXT_SHA256, "a wrong SHA-256")


def _queries(rng: Random) -> None:
    db = sqlite3.connect(":memory:", check_same_thread=False)
    try:
        for rows in rng.choices([10, 200, 2000], k=20) + [rng.choice([1, 100_000])]:
            check(db.execute(COUNT, (rows,)).fetchone() == (rows,), "sqlite counted wrong")
    finally:
        db.close()


def _looks_up(rng: Random) -> None:
    check(socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM), "no address of localhost")


def _reads(rng: Random) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(TEXT)
        file.seek(0)
        got = b"".join(iter(lambda: file.read(rng.choice([1000, 30_000])), b""))
    check(got == TEXT, "a file was read wrong")


def _pipes(rng: Random) -> None:
    r, w = os.pipe()
    try:
        writer = gort.go(after, 0.001, os.write, w, b"x")
        check(os.read(r, 10) == b"x", "a pipe gave something else")
        writer.join()
    finally:
        os.close(r)
        os.close(w)


def after(seconds: float, fn: Callable[..., Any], *args: Any) -> Any:
    """fn(*args), after a sleep."""
    gort.sleep(seconds)
    return fn(*args)


BLOCKING = [_sleeps, _compresses, _hashes, _queries, _looks_up, _reads]


def stumble(rng: Random) -> None:
    """Now and then something between two messages that takes time, in one way or another."""
    x = rng.random()
    if x < 0.05:
        gort.gosched()
    elif x < 0.06:
        time.sleep(1e-4)
    elif x < 0.065:
        gort.sleep(1e-3)
    elif x < 0.067:
        rng.choice(BLOCKING)(rng)
    elif x < 0.09:
        rng.choice(PLACES)(gort.gosched)


# ---- messages --------------------------------------------------------------------------
@part(2)
def channels(rng: Random) -> int:
    """producers and consumers on one channel, goroutines and plain threads"""
    ch: Any = gort.Chan(rng.choice([0, 0, 1, 4, 128]), dtype=rng.choice([None, None, "i64"]))
    each = rng.randrange(20, 200)

    def produce(base: int, seed: int) -> list[int]:
        own = Random(seed)
        for v in range(base, base + each):
            stumble(own)
            if own.random() < 0.05:
                own.choice(PLACES)(functools.partial(ch.send, v))
            else:
                ch.send(v)
        return list(range(base, base + each))

    def consume(seed: int) -> list[int]:
        own, got = Random(seed), []
        for v in ch:
            got.append(v)
            stumble(own)
        return got

    consumers = [start(rng, consume, rng.random()) for _ in range(rng.randrange(1, 6))]
    producers = [start(rng, produce, 1000 * k, rng.random()) for k in range(rng.randrange(1, 6))]
    sent = [v for join in producers for v in join()]
    ch.close()
    return exactly_once([v for join in consumers for v in join()], sent)


def start(rng: Random, fn: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    """In a goroutine, or once in eight times in a plain thread; what is returned waits for the result."""
    if rng.randrange(8):
        return gort.go(fn, *args).join
    got: Any = gort.Chan(1)

    def run() -> None:
        try:
            got.send((fn(*args), None))
        except BaseException as error:
            got.send((None, error))

    thread = threading.Thread(target=run)
    thread.start()

    def join() -> Any:
        result, error = got.recv()
        thread.join()
        if error:
            raise error
        return result

    return join


@part(2)
def selects(rng: Random) -> int:
    """all send and receive by select on three channels, with timeouts, while these are closed"""
    chans: list[Any] = [gort.Chan(i % 3, dtype="i64" if i == 2 else None) for i in range(3)]
    sent: list[int] = []
    got: list[int] = []

    def send(base: int, seed: int) -> None:
        own = Random(seed)
        for v in range(base, base + 100):
            stumble(own)
            try:
                gort.select(*((ch, v) for ch in chans), timeout=own.choice([None, 1e-4, 1e-3]))
                sent.append(v)
            except TimeoutError:
                pass
            except gort.ChanClosed:
                return

    def receive(seed: int) -> None:
        own = Random(seed)
        cases: list[Any] = own.sample(chans, 3)
        while any(cases):
            try:
                i, v, ok = gort.select(*cases, timeout=own.choice([None, 1e-4, 1e-3]))
            except TimeoutError:
                continue
            if ok:
                got.append(v)
            else:
                cases[i] = None
            stumble(own)

    joins = [start(rng, receive, rng.random()) for _ in range(3)]
    joins += [start(rng, send, 1000 * k, rng.random()) for k in range(4)]
    gort.sleep(rng.random() * 0.05)
    for ch in rng.sample(chans, 3):
        ch.close()
        gort.sleep(rng.random() * 0.005)
    for join in joins:
        join()
    return exactly_once(got, sent)


@part(1)
def ring(rng: Random) -> int:
    """a token through a ring of 50 goroutines"""
    nodes = [gort.Chan[int]() for _ in range(50)]

    def node(inp: gort.Chan[int], out: gort.Chan[int]) -> None:
        for v in inp:
            out.send(v + 1)
        out.close()

    gs = [gort.go(node, a, b) for a, b in pairwise(nodes)]
    for i in range(20):
        nodes[0].send(i)
        check(nodes[-1].recv() == i + 49, "a token was changed on its way")
    nodes[0].close()
    for g in gs:
        g.join()
    return 20 * 50


NATIVE_SOURCE = r"""
#include "gort.h"
typedef struct { gort_chan *in, *out; int64_t status; } pump;
void pump_run(void *p)
{
    pump *j = p;
    int64_t v;
    while ((j->status = gort_chan_recv(j->in, &v)) == 0) {
        if (v % 64 == 0) gort_sleep_ns(100000);
        if (v % 16 == 0) gort_yield();
        v++;
        if ((j->status = gort_chan_send(j->out, &v))) return;
    }
    gort_chan_close(j->out);
}
"""


class _Pump(ctypes.Structure):
    _fields_ = (("inp", ctypes.c_void_p), ("out", ctypes.c_void_p), ("status", ctypes.c_int64))


@functools.cache
def native_library() -> Any:
    """Compiled and loaded when first asked for; the soak does so before it begins."""
    OUT.mkdir(parents=True, exist_ok=True)
    source, library = OUT / f"soak-{os.getpid()}.c", OUT / f"libsoak-{os.getpid()}.so"
    source.write_text(NATIVE_SOURCE)
    try:
        command = ["cc", "-O1", "-shared", "-fPIC", "-I", gort.get_include(), str(source), "-o", str(library)]
        subprocess.run(command, check=True)
        gort.native.load_global()
        return ctypes.CDLL(str(library))
    finally:
        source.unlink()
        library.unlink(missing_ok=True)


@part(1)
def native(rng: Random) -> int:
    """numbers through a chain of native goroutines, sent and received by Python's"""
    links: list[Any] = [gort.Chan(rng.choice([0, 1, 16]), dtype="i64") for _ in range(4)]
    jobs = [_Pump(a.ptr, b.ptr) for a, b in pairwise(links)]
    pumps = [gort.native.go(native_library().pump_run, job) for job in jobs]
    n = rng.randrange(100, 1000)

    def feed(own: Random) -> None:
        for v in range(n):
            links[0].send(v)
            stumble(own)
        links[0].close()

    feeder = gort.go(feed, Random(rng.random()))
    got = list(links[-1])
    feeder.join()
    for p in pumps:
        p.join()
    check(got == [v + 3 for v in range(n)], f"{n} sent through native goroutines, {len(got)} came back or changed")
    return n


# ---- locks -------------------------------------------------------------------------------
@part(1)
def locks(rng: Random) -> int:
    """Mutex, RWMutex, Semaphore, Cond and WaitGroup, with waits and blocking calls inside"""
    mutex, rw, sem, wg = gort.sync.Mutex(), gort.sync.RWMutex(), gort.sync.Semaphore(3), gort.sync.WaitGroup()
    cond = gort.sync.Cond(mutex)
    total = pair_a = pair_b = inside = queued = taken = 0

    def add(own: Random) -> None:
        nonlocal total, pair_a, pair_b, inside, queued
        for _ in range(15):
            with mutex:
                old = total
                stumble(own)
                total = old + 1
                queued += 1
                cond.signal()
            with rw.writer():
                pair_a += 1
                stumble(own)
                pair_b += 1
            with rw.reader():
                check(pair_a == pair_b, "a reader beside a writer")
                stumble(own)
            with sem:
                inside += 1
                check(inside <= 3, f"{inside} hold a semaphore of 3")
                stumble(own)
                inside -= 1

    def take() -> None:
        nonlocal queued, taken
        while True:
            with mutex:
                while queued == 0:
                    if taken == 120:
                        cond.broadcast()
                        return
                    cond.wait()
                queued -= 1
                taken += 1
                if taken == 120:
                    cond.broadcast()

    joins = [start(rng, add, Random(rng.random())) for _ in range(8)]
    for _ in range(3):
        wg.go(take)
    for join in joins:
        join()
    wg.wait()
    check((total, pair_a, pair_b, taken, queued) == (120, 120, 120, 120, 0), f"counts: {total, pair_a, taken, queued}")
    return 120 * 4


_names = count()


class _Kept(logging.Handler):
    """Keeps the records, and sees whether two are in its lock at once."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[str] = []
        self.busy = False

    def emit(self, record: logging.LogRecord) -> None:
        check(not self.busy, "two in a logging handler at once")
        self.busy = True
        gort.gosched()
        self.kept.append(record.getMessage())
        self.busy = False


@part(1)
def stdlib_locks(rng: Random) -> int:
    """threading's Lock and RLock, logging and buffered files, used by goroutines that wait inside"""
    lock, rlock = threading.Lock(), threading.RLock()
    handler = _Kept()
    logger = logging.Logger("soak")
    logger.addHandler(handler)
    total, owner = 0, 0

    def body(me: int, own: Random) -> None:
        nonlocal total, owner
        for i in range(10):
            with lock:
                old = total
                stumble(own)
                total = old + 1
            with rlock:
                check(owner == 0, f"{me} is in an RLock with {owner}")
                owner = me
                with rlock:
                    gort.gosched()
                    stumble(own)
                check(owner == me, f"{owner} came into the RLock of {me}")
                owner = 0
            logger.warning("%d %d", me, i)
            with file_lock:
                file.write(f"{me} {i}\n".encode())

    with tempfile.TemporaryFile() as file:
        file_lock = threading.Lock()
        joins = [start(rng, body, k + 1, Random(rng.random())) for k in range(5)]
        for join in joins:
            join()
        file.seek(0)
        lines = file.read().decode().splitlines()
    want = sorted(f"{k + 1} {i}" for k in range(5) for i in range(10))
    check(total == 50, f"a lock let {50 - total} updates be lost")
    check(sorted(handler.kept) == want, "log records were lost")
    check(sorted(lines) == want, "lines of a file were lost")
    return 150


@part(1)
def imports(rng: Random) -> int:
    """four import one slow module at once: each gets the whole of it, which ran once"""
    name = f"_soak_module_{os.getpid()}_{next(_names)}"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, f"{name}.py").write_text(
            "import builtins, gort, time\n"
            "builtins._soak_imports = getattr(builtins, '_soak_imports', 0) + 1\n"
            f"{rng.choice(['time.sleep(0.01)', 'gort.sleep(0.01)', 'gort.gosched()'])}\n"
            "whole = True\n"
        )
        sys.path.insert(0, folder)
        try:
            joins = [start(rng, importlib.import_module, name) for _ in range(4)]
            modules = [join() for join in joins]
        finally:
            sys.path.remove(folder)
            sys.path_importer_cache.pop(folder, None)
    check(all(getattr(m, "whole", False) for m in modules), "half a module was imported")
    check(len(set(map(id, modules))) == 1, "two modules of one name")
    del sys.modules[name]
    return 4


# ---- time ----------------------------------------------------------------------------------
@part(1)
def timers(rng: Random) -> int:
    """timers that are stopped, reset or left to fire; sleeps never too short; tickers"""
    fired: list[int] = []
    done: Any = gort.Chan(1000)

    def fire(i: int) -> None:
        fired.append(i)
        done.send(i)

    due = set()
    for i in range(100):
        timer = gort.time.after_func(rng.choice([0, 1e-5, 1e-3, 60]), fire, i)
        stumble(rng)
        if not timer.stop():
            due.add(i)
        elif rng.random() < 0.3:
            timer.reset(1e-5)
            due.add(i)

    def nap(d: float) -> None:
        begin = gort.time.now()
        gort.sleep(d)
        check(gort.time.now() - begin >= d - 1e-6, f"a sleep of {d} was too short")

    naps = [gort.go(nap, rng.random() * 0.02) for _ in range(50)]
    ticker = gort.time.Ticker(0.001)
    ticks = [ticker.c.recv() for _ in range(5)]
    ticker.stop()
    check(ticks == sorted(ticks), "ticks went backwards")
    for g in naps:
        g.join()
    for _ in due:
        done.recv()
    exactly_once(fired, due)
    return 155


# ---- blocking, computing, state ---------------------------------------------------------------
@part(4)
def blocking(rng: Random) -> int:
    """sleep, zlib, hashlib, sqlite, getaddrinfo, files, pipes: nothing patched"""
    n = rng.randrange(1, 10)
    for _ in range(n):
        call = rng.choice([*BLOCKING, _pipes])
        if rng.random() < 0.2:
            gort.blocking(call, rng)
        else:
            call(rng)
    return n


@part(2)
def hogs(rng: Random) -> int:
    """a function that computes for up to 50 ms"""
    end = time.perf_counter() + rng.random() * 0.05
    x = turns = 0
    while time.perf_counter() < end:
        for i in range(1000):
            x = (x * 31 + i) & 0xFFFF
        turns += 1
    gort.sleep(0.05)
    return 1


_local = threading.local()
_var: contextvars.ContextVar[int] = contextvars.ContextVar("soak")


@part(2)
def state(rng: Random) -> int:
    """threading.local, context variables, decimal's context, exceptions: each goroutine its own"""

    def body(me: int, own: Random) -> None:
        _local.me = me
        _var.set(me)
        decimal.getcontext().prec = me + 5
        for _ in range(20):
            try:
                raise ValueError(me)
            except ValueError as error:
                stumble(own)
                check(sys.exc_info()[1] is error, "another exception than the one being handled")
            own.choice(BLOCKING if own.random() < 0.05 else [lambda _: gort.gosched()])(own)
            found = (_local.me, _var.get(), decimal.getcontext().prec)
            check(found == (me, me, me + 5), f"{me} found {found}")

    gs = [gort.go(body, k, Random(rng.random())) for k in range(8)]
    for g in gs:
        g.join()
    return 160


# ---- ends ------------------------------------------------------------------------------------
@part(2)
def kills(rng: Random) -> int:
    """killed while they wait, block or compute, in odd places: each ends, its finally runs once"""
    begun: list[int] = []
    ended: list[int] = []
    never: Any = gort.Chan()
    mutex = gort.sync.Mutex()
    full = gort.sync.Semaphore(1)
    full.acquire()
    waits: list[Callable[[Random], object]] = [
        lambda own: never.recv(),
        lambda own: gort.select(never, (never, 1)),
        lambda own: gort.sleep(60),
        lambda own: gort.NIL.recv(),
        lambda own: full.acquire(),
        lambda own: own.choice(KILLABLE_PLACES)(never.recv),
        lambda own: own.choice(KILLABLE_PLACES)(lambda: gort.sleep(60)),
        lambda own: own.choice(BLOCKING)(own),
        lambda own: sum(range(100_000)),
    ]

    def body(me: int, own: Random) -> None:
        begun.append(me)
        try:
            while True:
                with mutex:
                    gort.gosched()
                own.choice(waits)(own)
                gort.gosched()
        finally:
            gort.sleep(own.choice([0, 1e-4]))  # it may wait in its last moments too
            ended.append(me)

    n = 12
    gs = [gort.go(body, k, Random(rng.random())) for k in range(n)]
    gort.sleep(rng.random() * 0.02)
    for g in rng.sample(gs, n):
        if rng.random() < 0.5:
            gort.sleep(rng.random() * 0.002)
        if rng.random() < 0.2:
            thread = threading.Thread(target=g.kill)
            thread.start()
            thread.join()
        else:
            g.kill()
    for g in gs:
        check(g.join() is None, "a killed goroutine has a result")
    with mutex:
        pass
    return exactly_once(ended, begun) + n


class Expected(Exception):
    """Raised on purpose, and reported to the excepthook if nobody joins."""


unseen = gort.atomic.Int64()  # how many the excepthook was called with


@part(1)
def exceptions(rng: Random) -> int:
    """exceptions that are joined, by several; those that nobody joins reach the excepthook"""

    def fail(i: int, own: Random) -> None:
        try:
            stumble(own)
            raise Expected(i)
        finally:
            gort.gosched()

    def join(g: gort.Goroutine[None], i: int) -> None:
        try:
            g.join()
        except Expected as error:
            check(error.args == (i,), f"{error!r} came out of {i}")
        else:
            raise AssertionError("an exception was lost")

    for i in range(20):
        g = gort.go(fail, i, Random(rng.random()))
        joiners = [gort.go(join, g, i) for _ in range(3)]
        for j in joiners:
            j.join()
    before, alone = unseen.load(), 5
    for i in range(alone):
        gort.go(fail, i, Random(rng.random()))
    while unseen.load() < before + alone:
        gort.sleep(0.001)
    check(unseen.load() == before + alone, "the excepthook was called too often")
    return 65


@part(1)
def recursion(rng: Random) -> int:
    """recursion without end, in Python and in C, becomes RecursionError in a goroutine"""

    def down(n: int) -> int:
        return down(n + 1) + 1

    def parse() -> Any:
        return json.loads("[" * 100_000)

    def body(fn: Callable[[], Any]) -> None:
        try:
            fn()
        except RecursionError:
            gort.gosched()
            return
        raise AssertionError("no RecursionError")

    fns: list[Callable[[], Any]] = [lambda: down(0), _deep_repr, parse]
    for g in [gort.go(body, fn) for fn in rng.sample(fns, 3)]:
        g.join()
    return 3


def deepen(goroutines: int) -> None:
    """Make the stacks of so many goroutines as deep as any part of the soak will.

    gort keeps the stacks of dead goroutines, with all the pages that were ever
    touched. Left to chance, one after another would become deep within the first
    half hour, and hide what really grows.
    """
    gate: Any = gort.Chan()

    def body() -> None:
        try:
            _deep_repr()
        except RecursionError:
            pass
        gate.recv_ok()

    gs = []
    for _ in range(goroutines):  # one after another: those that compute at once need a thread each
        gs.append(gort.go(body))
        while gs[-1].wait_reason != "chan receive":
            gort.gosched()
    gate.close()
    for g in gs:
        g.join()


def _deep_repr() -> str:
    nested: list[Any] = []
    for _ in range(20_000):
        nested = [nested]
    try:
        return repr(nested)
    finally:
        while nested:  # freed from the outside in, or that would be a recursion too
            nested = nested.pop()


def _note(ended: list[int], i: int, _: object) -> None:
    ended.append(i)


@part(1)
def garbage(rng: Random) -> int:
    """cycles of channels and goroutines' handles, weak references, collections in between"""

    class Node:
        def __init__(self, ch: Any) -> None:
            self.ch, self.me = ch, self

    ended: list[int] = []
    keep = []
    n, lived = 200, 0

    def live() -> None:
        nonlocal lived
        gort.gosched()
        lived += 1

    node: Any
    for i in range(n):
        inner: Any = gort.Chan(2)
        node = Node(inner)
        inner.send(node)
        inner.send(gort.go(live))
        keep.append(weakref.ref(node, functools.partial(_note, ended, i)))
        if i % 50 == 0:
            stumble(rng)
    node = inner = None
    while lived < n:
        gort.sleep(0.001)
    for _ in range(1000):
        gc.collect()  # does nothing while another goroutine's has not ended
        if len(ended) == n:
            break
        gort.sleep(0.001)
    check(len(ended) == n, f"{n - len(ended)} of {n} cycles were not collected")
    return n


# ---- other threads, other loops -------------------------------------------------------------------
@part(1)
def executors(rng: Random) -> int:
    """jobs in a ThreadPoolExecutor that talk to goroutines; threads that come and go"""
    ch: Any = gort.Chan(rng.choice([0, 2]))

    def job(v: int) -> int:
        ch.send(v)
        return v * v

    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(job, v) for v in range(40)]
        got = [ch.recv() for _ in futures]
        check([f.result() for f in futures] == [v * v for v in range(40)], "wrong results of futures")
    threads = [threading.Thread(target=ch.send, args=(v,)) for v in range(40, 50)]
    for t in threads:
        t.start()
    got += [ch.recv() for _ in threads]
    for t in threads:
        t.join()
    return exactly_once(got, range(50))


@part(1)
def asyncio_(rng: Random) -> int:
    """asyncio loops in a goroutine, and in a thread beside it"""

    async def square(v: int) -> int:
        await asyncio.sleep(rng.random() * 0.005)
        return v * v

    async def main() -> list[int]:
        rest = asyncio.to_thread(time.sleep, 0.001)
        got = await asyncio.gather(*(square(v) for v in range(20)))
        await rest
        return got

    def run() -> list[int]:
        return asyncio.run(main())

    for join in [gort.go(run).join, start(Random(0), run)]:
        check(join() == [v * v for v in range(20)], "wrong results of asyncio")
    return 40


# ---- signals and processes ---------------------------------------------------------------------------
@dataclass
class Signals:
    """What the handlers saw. They run in the main thread; `soak.py` sets them."""

    window: bool = False  # the main goroutine is where it can take a KeyboardInterrupt
    sent: int = 0
    ints: int = 0
    raised: int = 0
    caught: int = 0
    users: int = 0
    alarms: int = 0
    unasked: bool = False  # somebody pressed Ctrl-C
    begin: float = 0.0  # of the kill() under way
    worst: float = 0.0  # seconds from kill() to the handler
    within: Counter[float] = field(default_factory=Counter)  # how many took at most so many seconds

    def began(self) -> None:
        """A handler begins."""
        took = time.monotonic() - self.begin
        self.worst = max(self.worst, took)
        self.within.update(bound for bound in (0.001, 0.01, 0.05, 0.25) if took <= bound)

    def on_int(self, *_: object) -> None:
        self.began()
        self.ints += 1
        if self.ints > self.sent:
            self.unasked = True
        if self.window:
            self.window = False
            self.raised += 1
            raise KeyboardInterrupt

    def on_user(self, *_: object) -> None:
        self.began()
        self.users += 1

    def on_alarm(self, *_: object) -> None:
        self.alarms += 1


SIGNALS = Signals()


@part(1)
def signals(rng: Random) -> int:
    """SIGINT becomes KeyboardInterrupt in the main goroutine, SIGUSR1's handler runs, once each"""
    for which in rng.sample([signal.SIGINT, signal.SIGUSR1], 2):
        before = SIGNALS.ints + SIGNALS.users
        SIGNALS.sent += which == signal.SIGINT
        SIGNALS.begin = time.monotonic()
        os.kill(os.getpid(), which)
        while SIGNALS.ints + SIGNALS.users == before:
            gort.sleep(0.001)
            check(time.monotonic() - SIGNALS.begin < PROCESS_TIMEOUT, f"{which.name} was not handled")
        check(SIGNALS.ints + SIGNALS.users == before + 1, f"{which.name} was handled twice")
    gort.sleep(0.05)
    return 2


@part(1)
def processes(rng: Random) -> int:
    """subprocess: output, exit status, input through a pipe"""
    done = subprocess.run(["cat"], input=TEXT, capture_output=True, check=True, timeout=PROCESS_TIMEOUT)
    check(done.stdout == TEXT, "cat gave other bytes back")
    status = rng.randrange(100)
    check(subprocess.call(["sh", "-c", f"exit {status}"]) == status, "a wrong exit status")
    return 2


@part(1)
def fork(rng: Random) -> int:
    """os.fork in a goroutine; the child uses goroutines, channels and timers of its own"""
    status = rng.randrange(1, 90)
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            ch: Any = gort.Chan()
            gort.go(after, 0.001, ch.send, status)
            code = ch.recv()
        finally:
            os._exit(code)
    return exited(pid, status)


def exited(pid: int, want: int) -> int:
    """Wait for a child without blocking, and kill it if it hangs."""
    end = time.monotonic() + PROCESS_TIMEOUT
    while not (found := os.waitpid(pid, os.WNOHANG))[0]:
        gort.sleep(0.002)
        if time.monotonic() > end:
            os.kill(pid, signal.SIGABRT)
            os.waitpid(pid, 0)
            raise AssertionError(f"a forked child hung for {PROCESS_TIMEOUT:.0f} s")
    got = os.waitstatus_to_exitcode(found[1])
    check(got == want, f"a forked child ended with {got} instead of {want}")
    return 1


def double(v: int) -> int:
    """In a child process."""
    ch: Any = gort.Chan()
    gort.go(ch.send, 2 * v)
    got: int = ch.recv()
    return got


def _mp_child(v: int, pipe: Any) -> None:
    pipe.send(double(v))
    pipe.close()


# start() asks after all children. Two that ask after the same one at a time get in each other's way, in CPython
# (threads as well): the exit code is then None for a while, or 255 for good.
_children = gort.sync.Mutex()


def _exit_code(child: Any) -> Any:
    with _children:
        return child.exitcode


def _multiprocessing(method: str, rng: Random) -> int:
    v = rng.randrange(1000)
    context = multiprocessing.get_context(method)
    here, there = context.Pipe(duplex=False)
    child: Any = context.Process(target=_mp_child, args=(v, there))  # type: ignore[attr-defined]
    with _children:
        child.start()
    there.close()
    try:
        check(here.poll(PROCESS_TIMEOUT), f"a child by {method} said nothing in {PROCESS_TIMEOUT:.0f} s")
        check(here.recv() == 2 * v, f"a child by {method} said something else")
    finally:
        here.close()
        end = time.monotonic() + PROCESS_TIMEOUT
        while (code := _exit_code(child)) is None and time.monotonic() < end:
            time.sleep(0.001)
        if code is None:
            child.kill()
            child.join()
    check(code == 0, f"a child by {method} ended with {code}")
    child.close()
    return 1


@part(1)
def mp_fork(rng: Random) -> int:
    """multiprocessing by fork"""
    return _multiprocessing("fork", rng)


@part(1)
def mp_spawn(rng: Random) -> int:
    """multiprocessing by spawn and forkserver"""
    gort.sleep(0.2)  # each takes a tenth of a second of one core
    return _multiprocessing(rng.choice(["spawn", "forkserver"]), rng)
