"""What does it cost to start a goroutine that does nothing, and to join it?

`spawn`: 1,000 are started, then all are joined, per goroutine. `spawn1`: each is
joined before the next is started, so nothing overlaps and nothing is batched.
"""

import asyncio
from time import perf_counter

from benchmarks._workload import per_op

BATCH = 1_000

SPAWN = per_op("spawn", "start 1,000 empty goroutines, then join all", "goroutine", step=BATCH)  # fmt: skip
SPAWN1 = per_op("spawn1", "start one empty goroutine and join it", "goroutine")


def noop() -> None:
    """Do nothing: the goroutine whose life is measured."""


async def anoop() -> None:
    """Do nothing: the task whose life is measured."""


@SPAWN.peer("gort", "gort-main", "gort-nosysmon")
def _gort(n: int) -> float:
    from gort import go

    start = perf_counter()
    for _ in range(n // BATCH):
        for g in [go(noop) for _ in range(BATCH)]:
            g.join()
    return perf_counter() - start


@SPAWN1.peer("gort", "gort-main")
def _gort1(n: int) -> float:
    from gort import go

    start = perf_counter()
    for _ in range(n):
        go(noop).join()
    return perf_counter() - start


# Awaiting task by task is the fastest way to join them all; gather() and
# TaskGroup, which most people write, take half as long again.
@SPAWN.peer("asyncio", "uvloop")
async def _asyncio(n: int) -> float:
    create_task = asyncio.get_running_loop().create_task
    start = perf_counter()
    for _ in range(n // BATCH):
        for t in [create_task(anoop()) for _ in range(BATCH)]:
            await t
    return perf_counter() - start


@SPAWN.peer("asyncio-gather", "uvloop-gather")
async def _asyncio_gather(n: int) -> float:
    start = perf_counter()
    for _ in range(n // BATCH):
        await asyncio.gather(*[anoop() for _ in range(BATCH)])
    return perf_counter() - start


@SPAWN1.peer("asyncio", "uvloop")
async def _asyncio1(n: int) -> float:
    create_task = asyncio.get_running_loop().create_task
    start = perf_counter()
    for _ in range(n):
        await create_task(anoop())
    return perf_counter() - start


@SPAWN.peer("trio")
async def _trio(n: int) -> float:
    import trio

    start = perf_counter()
    for _ in range(n // BATCH):
        async with trio.open_nursery() as nursery:
            for _ in range(BATCH):
                nursery.start_soon(anoop)
    return perf_counter() - start


@SPAWN1.peer("trio")
async def _trio1(n: int) -> float:
    import trio

    start = perf_counter()
    for _ in range(n):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(anoop)
    return perf_counter() - start


# Joining one by one is a little faster than gevent.joinall().
@SPAWN.peer("gevent")
def _gevent(n: int) -> float:
    import gevent

    start = perf_counter()
    for _ in range(n // BATCH):
        for g in [gevent.spawn(noop) for _ in range(BATCH)]:
            g.join()
    return perf_counter() - start


@SPAWN1.peer("gevent")
def _gevent1(n: int) -> float:
    import gevent

    start = perf_counter()
    for _ in range(n):
        gevent.spawn(noop).join()
    return perf_counter() - start


# runloom has no join. Its `fiber` in C is the fastest way to spawn on a build
# with the GIL (`runloom.fiber` adds a Python wrapper and costs 2.5 times as
# much); looking at `.done` between yields is the fastest way to wait for the
# end: a WaitGroup, its documented way, takes 1.0 us, a channel 0.5 us.
@SPAWN.peer("runloom")
def _runloom(n: int) -> float:
    from runloom_c import fiber, sched_yield

    start = perf_counter()
    for _ in range(n // BATCH):
        for g in [fiber(noop) for _ in range(BATCH)]:
            while not g.done:
                sched_yield()
    return perf_counter() - start


@SPAWN1.peer("runloom")
def _runloom1(n: int) -> float:
    from runloom_c import fiber, sched_yield

    start = perf_counter()
    for _ in range(n):
        g = fiber(noop)
        while not g.done:
            sched_yield()
    return perf_counter() - start
