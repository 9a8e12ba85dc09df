"""What the workloads about stalling share: blocking calls, and one program on every peer.

A `Kind` is a call that keeps its OS thread for a while. A `Kit` is what a peer's
users would write around it: how they start a task, how they sleep, how they make
such a call and how they pass messages. So that one program serves all of them,
the kits of peers with `await` are `AsyncKit`, the others `Kit`.

Peers that can only switch where they are told to yield after each call. That is
all that is done for them; gort's goroutines just call.
"""

import asyncio
import os
import socket
import sqlite3
import tempfile
import threading
import time
import zlib
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from math import ceil, inf
from pathlib import Path
from queue import SimpleQueue
from random import Random
from time import perf_counter
from typing import Any, TypeVar

T = TypeVar("T")
Call = Callable[[], object]

PERIOD = 0.001  # seconds between two ticks
FILE_SIZE, PIECE = 50 << 20, 1 << 20
# SQLite counts to a number: 200 are some 40 us, 250,000 some 50 ms.
COUNT = "with recursive c(n) as (select 1 union all select n + 1 from c where n < ?) select count(*) from c"


# ---- blocking calls ----------------------------------------------------------
@contextmanager
def _sleep(seconds: float, n: int) -> Iterator[list[Call]]:
    yield [partial(time.sleep, seconds)] * n


@contextmanager
def _zlib(n: int) -> Iterator[list[Call]]:
    yield [partial(zlib.compress, text(1 << 20, seed)) for seed in range(n)]


@contextmanager
def _sqlite(rows: int, n: int) -> Iterator[list[Call]]:
    """A connection each. A goroutine may go on in another OS thread, hence check_same_thread."""

    def query(db: sqlite3.Connection) -> None:
        if db.execute(COUNT, (rows,)).fetchone() != (rows,):
            raise RuntimeError("sqlite counted wrong")

    dbs = [sqlite3.connect(":memory:", check_same_thread=False) for _ in range(n)]
    yield [partial(query, db) for db in dbs]
    for db in dbs:
        db.close()


@contextmanager
def _getaddrinfo(n: int) -> Iterator[list[Call]]:
    yield [partial(socket.getaddrinfo, "localhost", 80)] * n


@contextmanager
def _file(n: int) -> Iterator[list[Call]]:
    """All read one file, which the kernel has in memory, as it has just been written."""

    def read() -> None:
        # In pieces: a bytes object of 50 MB is freed by munmap, which takes
        # milliseconds with the GIL held, and no thread could do anything then.
        size = 0
        with open(path, "rb", buffering=0) as file:
            while piece := file.read(PIECE):
                size += len(piece)
        if size != FILE_SIZE:
            raise RuntimeError("the file was not read whole")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "large")
        path.write_bytes(os.urandom(PIECE) * (FILE_SIZE // PIECE))
        yield [read] * n


def text(size: int, seed: int) -> bytes:
    """Bytes that compress as prose does, about by half."""
    return bytes(Random(seed).choices(b"etaoin shrdlucmfgypwbvk\n", k=size))


Kind = Callable[[int], Any]  # n -> a context manager with n calls, one for each who calls
KINDS: dict[str, Kind] = {
    "sleep": partial(_sleep, 0.05),
    "zlib": _zlib,
    "sqlite_40us": partial(_sqlite, 200),
    "sqlite_50ms": partial(_sqlite, 250_000),
    "getaddrinfo": _getaddrinfo,
    "file": _file,
}
SHORT_SLEEP: Kind = partial(_sleep, 0.001)
SQLITE_40US = KINDS["sqlite_40us"]


@contextmanager
def nothing(n: int) -> Iterator[list[Call]]:
    """Nobody calls."""
    yield []


@contextmanager
def mixed(n: int) -> Iterator[list[Call]]:
    """The kinds in turn."""
    with ExitStack() as stack:
        kinds = list(KINDS.values())
        yield [stack.enter_context(kinds[i % len(kinds)](1))[0] for i in range(n)]


# ---- peers without await -------------------------------------------------------
@dataclass(frozen=True)
class Kit:
    """What a program needs of a peer."""

    start: Callable[[Callable[[], T]], Callable[[], T]]  # a task; what is returned waits for its result
    sleep: Callable[[float], object]
    call: Callable[[Call], object]  # make a blocking call
    channel: Callable[[], tuple[Callable[[Any], object], Callable[[], Any]]]  # send and receive; unbuffered if it can
    compute: Callable[[Callable[[float], int], float], int] = lambda fn, end: fn(end)  # run what computes


def _gort() -> Kit:
    from gort import Chan, go, sleep

    def channel() -> tuple[Callable[[Any], object], Callable[[], Any]]:
        ch: Chan[Any] = Chan()
        return ch.send, ch.recv

    return Kit(lambda fn: go(fn).join, sleep, _plainly, channel)


def _gort_blocking() -> Kit:
    """The user says which calls block."""
    from dataclasses import replace

    from gort import blocking

    return replace(_gort(), call=blocking)


def _gevent() -> Kit:
    import gevent
    from gevent.queue import Channel

    def channel() -> tuple[Callable[[Any], object], Callable[[], Any]]:
        ch: Any = Channel()
        return ch.put, ch.get

    def call(fn: Call) -> None:
        fn()
        gevent.sleep(0)

    return Kit(lambda fn: gevent.spawn(fn).get, gevent.sleep, call, channel)


def _gevent_threads() -> Kit:
    """Blocking calls go to gevent's own pool of ten threads."""
    from dataclasses import replace

    import gevent

    pool: Any = gevent.get_hub().threadpool
    return replace(_gevent(), call=pool.apply, compute=lambda fn, end: pool.apply(fn, (end,)))


def _threading() -> Kit:
    def start(fn: Callable[[], T]) -> Callable[[], T]:
        got: list[T] = []
        thread = threading.Thread(target=lambda: got.append(fn()))
        thread.start()

        def join() -> T:
            thread.join()
            return got[0]

        return join

    def channel() -> tuple[Callable[[Any], object], Callable[[], Any]]:
        queue: SimpleQueue[Any] = SimpleQueue()
        return queue.put, queue.get

    return Kit(start, time.sleep, _plainly, channel)


def _plainly(call: Call) -> None:
    call()


KITS: dict[str, Callable[[], Kit]] = {
    "gort": _gort,
    "gort-blocking": _gort_blocking,
    "gevent": _gevent,
    "gevent-threads": _gevent_threads,
    "threading": _threading,
}


# ---- asyncio ---------------------------------------------------------------------
@dataclass(frozen=True)
class AsyncKit:
    """The same for coroutines; tasks and sleep are asyncio's."""

    call: Callable[[Call], Awaitable[object]]
    compute: Callable[[Callable[[float], int], float], Coroutine[Any, Any, int]]


async def _in_the_loop(call: Call) -> None:
    call()
    await asyncio.sleep(0)


async def _compute_in_the_loop(fn: Callable[[float], int], end: float) -> int:
    return fn(end)


@contextmanager
def _asyncio() -> Iterator[AsyncKit]:
    yield AsyncKit(_in_the_loop, _compute_in_the_loop)


@contextmanager
def _asyncio_threads() -> Iterator[AsyncKit]:
    """Blocking calls go to threads, as many as there are callers in any workload."""
    with ThreadPoolExecutor(8) as pool:
        loop = asyncio.get_running_loop()

        async def compute(fn: Callable[[float], int], end: float) -> int:
            return await loop.run_in_executor(pool, fn, end)

        yield AsyncKit(partial(loop.run_in_executor, pool), compute)


ASYNC_KITS: dict[str, Callable[[], Any]] = {"asyncio": _asyncio, "asyncio-threads": _asyncio_threads}


# ---- the programs: a ticker, callers, a pair that passes messages ------------------
# Each runs until the clock shows `end` and at least one round.
QUIET = 0.02  # seconds that the ticker has for itself, before what counts begins


@dataclass
class Span:
    """What counts; the ticker is there before it is known when that begins and ends."""

    begin: float = inf
    end: float = inf

    def starts(self, seconds: float) -> float:
        self.begin = perf_counter()
        self.end = self.begin + seconds
        return self.end


def tick(kit: Kit, span: Span) -> list[float]:
    """Sleep 1 ms again and again: seconds by which each sleep was late that ended in the span, or ended it."""
    late = []
    now = perf_counter()
    while now < span.end:
        due = now + PERIOD
        kit.sleep(PERIOD)
        now = perf_counter()
        if now >= span.begin:
            late.append(now - due)
    return late


async def tick_async(span: Span) -> list[float]:
    """As tick()."""
    late = []
    now = perf_counter()
    while now < span.end:
        due = now + PERIOD
        await asyncio.sleep(PERIOD)
        now = perf_counter()
        if now >= span.begin:
            late.append(now - due)
    return late


def tick_beside(
    kit: Kit, seconds: float, programs: Iterable[Callable[[float], int]]
) -> tuple[list[float], list[int], float]:
    """The ticker, and then the others beside it, which are told when to end: lateness, results, seconds."""
    span = Span()
    late = kit.start(partial(tick, kit, span))
    kit.sleep(QUIET)
    end = span.starts(seconds)
    done = together(kit, [partial(program, end) for program in programs])
    ended = late()  # waits for the end if there are no others
    return ended, done, perf_counter() - span.begin


async def tick_beside_async(
    seconds: float, programs: Iterable[Callable[[float], Coroutine[Any, Any, int]]]
) -> tuple[list[float], list[int], float]:
    """As tick_beside()."""
    span = Span()
    late = asyncio.create_task(tick_async(span))
    await asyncio.sleep(QUIET)
    end = span.starts(seconds)
    done = await together_async(program(end) for program in programs)
    return await late, done, perf_counter() - span.begin


def keep_calling(kit: Kit, call: Call, end: float) -> int:
    """How often it was called."""
    calls = 0
    while perf_counter() < end:
        kit.call(call)
        calls += 1
    return calls


async def keep_calling_async(kit: AsyncKit, call: Call, end: float) -> int:
    """As keep_calling()."""
    calls = 0
    while perf_counter() < end:
        await kit.call(call)
        calls += 1
    return calls


BATCH = 20  # round trips between two looks at the clock


def pair(kit: Kit, end: float) -> int:
    """Two pass numbers to and fro over two channels: how many round trips."""
    there_send, there_recv = kit.channel()
    back_send, back_recv = kit.channel()

    def echo() -> None:
        while (v := there_recv()) is not None:
            back_send(v)

    other = kit.start(echo)
    trips = 0
    while perf_counter() < end:
        for _ in repeat(None, BATCH):
            there_send(trips)
            if back_recv() != trips:
                raise RuntimeError("a message was lost")
            trips += 1
    there_send(None)
    other()
    return trips


async def pair_async(end: float) -> int:
    """As pair(). As in `unbuffered`, a queue of one is the nearest that asyncio has to a channel."""
    there: asyncio.Queue[int | None] = asyncio.Queue(1)
    back: asyncio.Queue[int] = asyncio.Queue(1)

    async def echo() -> None:
        while (v := await there.get()) is not None:
            await back.put(v)

    other = asyncio.create_task(echo())
    trips = 0
    while perf_counter() < end:
        for _ in repeat(None, BATCH):
            await there.put(trips)
            if await back.get() != trips:
                raise RuntimeError("a message was lost")
            trips += 1
    await there.put(None)
    await other
    return trips


def together(kit: Kit, programs: Iterable[Callable[[], T]]) -> list[T]:
    """Run them all at once; their results."""
    return [join() for join in [kit.start(p) for p in programs]]


async def together_async(programs: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """As together()."""
    return [await task for task in [asyncio.create_task(p) for p in programs]]


# ---- what came out -------------------------------------------------------------------
def lateness(late: list[float]) -> dict[str, float]:
    """Median, 99th percentile and greatest, in microseconds."""
    late = sorted(late)
    return {name: late[ceil(share * len(late)) - 1] * 1e6 for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1))}
