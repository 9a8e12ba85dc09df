"""How much memory does a goroutine hold that waits, at 100,000 of them?

All of them wait for the same thing, which ends them all afterwards: a receive
from a channel that will be closed, or an event. Nobody keeps a handle to them,
except where a task would die without one. Measured between before the first
start and after the last one has parked:

- `resident`: growth of the resident set (`Rss` of /proc/self/smaps_rollup);
- `tables`: growth of the page tables (`VmPTE`), which the kernel does not count
  as resident but which are memory all the same.
"""

import asyncio
import gc
from typing import Any

from benchmarks import _proc
from benchmarks._workload import Metric, Workload, check

GOROUTINES, GOROUTINES_QUICK = 100_000, 10_000

PARKED = Workload(
    "parked_memory",
    "memory of a parked goroutine, at 100,000",
    (
        Metric("resident", "bytes per goroutine", "growth of the resident set"),
        Metric("tables", "bytes per goroutine", "growth of the page tables"),
    ),
    n=GOROUTINES,
    n_quick=GOROUTINES_QUICK,
    repeat=1,
)


class _Scale:
    """Weighs the process at its making and at `result`."""

    def __init__(self) -> None:
        self.started = self.ended = 0
        gc.collect()
        self.rss, self.tables = _proc.rss(), _proc.page_tables()

    def result(self, n: int) -> dict[str, float]:
        check(self.started, n)
        check(self.ended, 0)
        rss, tables = _proc.rss() - self.rss, _proc.page_tables() - self.tables
        return {"resident": rss / n, "tables": tables / n}


@PARKED.peer("gort")
def _gort(n: int) -> dict[str, float]:
    from gort import Chan, go, gosched

    scale = _Scale()
    gate: Chan[None] = Chan()

    def park() -> None:
        scale.started += 1
        gate.recv_ok()
        scale.ended += 1

    for _ in range(n):
        go(park)
    while scale.started < n:
        gosched()
    weight = scale.result(n)
    gate.close()
    while scale.ended < n:
        gosched()
    return weight


@PARKED.peer("asyncio", "uvloop")
async def _asyncio(n: int) -> dict[str, float]:
    scale = _Scale()
    gate = asyncio.Event()

    async def park() -> None:
        scale.started += 1
        await gate.wait()
        scale.ended += 1

    tasks = [asyncio.create_task(park()) for _ in range(n)]
    while scale.started < n:
        await asyncio.sleep(0)
    weight = scale.result(n)
    gate.set()
    for task in tasks:
        await task
    check(scale.ended, n)
    return weight


@PARKED.peer("trio")
async def _trio(n: int) -> dict[str, float]:
    import trio

    scale = _Scale()
    gate = trio.Event()

    async def park() -> None:
        scale.started += 1
        await gate.wait()
        scale.ended += 1

    async with trio.open_nursery() as nursery:
        for _ in range(n):
            nursery.start_soon(park)
        while scale.started < n:
            await trio.lowlevel.checkpoint()
        weight = scale.result(n)
        gate.set()
    check(scale.ended, n)
    return weight


@PARKED.peer("gevent")
def _gevent(n: int) -> dict[str, float]:
    import gevent
    from gevent.event import Event

    scale = _Scale()
    gate: Any = Event()

    def park() -> None:
        scale.started += 1
        gate.wait()
        scale.ended += 1

    for _ in range(n):
        gevent.spawn(park)
    while scale.started < n:
        gevent.sleep(0)
    weight = scale.result(n)
    gate.set()
    while scale.ended < n:
        gevent.sleep(0)
    return weight


@PARKED.peer("runloom")
def _runloom(n: int) -> dict[str, float]:
    from runloom_c import Chan, fiber, sched_yield

    scale = _Scale()
    gate = Chan()

    def park() -> None:
        scale.started += 1
        gate.recv()
        scale.ended += 1

    for _ in range(n):
        fiber(park)
    while scale.started < n:
        sched_yield()
    weight = scale.result(n)
    gate.close()
    while scale.ended < n:
        sched_yield()
    return weight
