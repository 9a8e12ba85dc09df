"""Can there be a million goroutines, and how long do they take to come and go?

A million are started and wait on one channel, then it is closed and they end.
Measured are `start` (until the last one has parked), `end` (from the close until
the last one has returned) and `resident` and `tables` as in parked_memory.py,
for all of them together. The number of those that parked and that returned is
checked. asyncio and trio are there for scale.
"""

import asyncio
from time import perf_counter

from benchmarks import _proc
from benchmarks._workload import Metric, Workload, check

GOROUTINES, GOROUTINES_QUICK = 1_000_000, 50_000

MILLION = Workload(
    "million",
    "start, park and end a million goroutines",
    (
        Metric("start", "s", "from the first start until all have parked"),
        Metric("end", "s", "from the close until all have returned"),
        Metric("resident", "MB", "growth of the resident set"),
        Metric("tables", "MB", "growth of the page tables"),
    ),
    n=GOROUTINES,
    n_quick=GOROUTINES_QUICK,
    repeat=1,
)

for _peer in ("gevent", "runloom"):
    MILLION.lacks(_peer, "left out: they would take 8 GB and more")
MILLION.lacks("uvloop", "left out: its tasks are asyncio's")


class _Count:
    """How many have parked and returned, and since when."""

    def __init__(self) -> None:
        self.started = self.ended = 0
        self.rss, self.tables = _proc.rss(), _proc.page_tables()
        self.clock = perf_counter()
        self.out: dict[str, float] = {}

    def parked(self) -> None:
        self.out["start"] = perf_counter() - self.clock
        self.out["resident"] = (_proc.rss() - self.rss) / 1e6
        self.out["tables"] = (_proc.page_tables() - self.tables) / 1e6
        check(self.ended, 0)
        self.clock = perf_counter()

    def gone(self, n: int) -> dict[str, float]:
        self.out["end"] = perf_counter() - self.clock
        check((self.started, self.ended), (n, n))
        return self.out


@MILLION.peer("gort")
def _gort(n: int) -> dict[str, float]:
    from gort import Chan, go, gosched, num_goroutine

    before = num_goroutine()
    count = _Count()
    gate: Chan[None] = Chan()

    def park() -> None:
        count.started += 1
        gate.recv_ok()
        count.ended += 1

    for _ in range(n):
        go(park)
    while count.started < n:
        gosched()
    count.parked()
    gate.close()
    while num_goroutine() > before:
        gosched()
    return count.gone(n)


@MILLION.peer("asyncio")
async def _asyncio(n: int) -> dict[str, float]:
    count = _Count()
    gate = asyncio.Event()

    async def park() -> None:
        count.started += 1
        await gate.wait()
        count.ended += 1

    tasks = [asyncio.create_task(park()) for _ in range(n)]
    while count.started < n:
        await asyncio.sleep(0)
    count.parked()
    gate.set()
    for task in tasks:
        await task
    return count.gone(n)


@MILLION.peer("trio")
async def _trio(n: int) -> dict[str, float]:
    import trio

    count = _Count()
    gate = trio.Event()

    async def park() -> None:
        count.started += 1
        await gate.wait()
        count.ended += 1

    async with trio.open_nursery() as nursery:
        for _ in range(n):
            nursery.start_soon(park)
        while count.started < n:
            await trio.lowlevel.checkpoint()
        count.parked()
        gate.set()
    return count.gone(n)
