"""What do the small things of Go's library cost: a singleflight, a rate limiter, an error group?

- `flight`: `do()` of a key that nobody else asks for, with a function that returns at once;
- `allow`: a token of a limiter that always has one;
- `errgroup`: a group of 1,000 empty goroutines is made and waited for, per goroutine;
- `errgroup_limit`: the same with a limit of 10.

golang.org/x/ is not in Go's distribution: ../go/library.go has the same few lines by hand.
"""

import asyncio
from time import perf_counter

from benchmarks._workload import check, per_op

BATCH, LIMIT = 1_000, 10

FLIGHT = per_op("flight", "call a function through a singleflight, uncontended", "do")
ALLOW = per_op("allow", "ask a rate limiter that has a token", "allow")
ERRGROUP = per_op("errgroup", "run 1,000 empty goroutines in an error group", "goroutine", step=BATCH)
ERRGROUP_LIMIT = per_op("errgroup_limit", "the same, 10 at a time", "goroutine", step=BATCH)


def noop() -> None:
    """Do nothing: the goroutine whose life is measured."""


async def anoop() -> None:
    """Do nothing: the task whose life is measured."""


@FLIGHT.peer("gort")
def _flight(n: int) -> float:
    from gort.singleflight import Group

    group = Group[str, None]()
    start = perf_counter()
    for _ in range(n):
        group.do("key", noop)
    return perf_counter() - start


@ALLOW.peer("gort")
def _allow(n: int) -> float:
    from gort.rate import Limiter

    limiter = Limiter(1e9, 1 << 60)
    start = perf_counter()
    for _ in range(n):
        limiter.allow()
    took = perf_counter() - start
    check(limiter.allow(), True)
    return took


@ERRGROUP.peer("gort")
def _errgroup(n: int) -> float:
    from gort.errgroup import Group

    start = perf_counter()
    for _ in range(n // BATCH):
        group = Group()
        for _ in range(BATCH):
            group.go(noop)
        group.wait()
    return perf_counter() - start


@ERRGROUP_LIMIT.peer("gort")
def _errgroup_limit(n: int) -> float:
    from gort.errgroup import Group

    start = perf_counter()
    for _ in range(n // BATCH):
        group = Group(limit=LIMIT)
        for _ in range(BATCH):
            group.go(noop)
        group.wait()
    return perf_counter() - start


@ERRGROUP.peer("asyncio", "uvloop")
async def _taskgroup(n: int) -> float:
    start = perf_counter()
    for _ in range(n // BATCH):
        async with asyncio.TaskGroup() as group:
            for _ in range(BATCH):
                group.create_task(anoop())
    return perf_counter() - start


@ERRGROUP.peer("trio")
async def _nursery(n: int) -> float:
    import trio

    start = perf_counter()
    for _ in range(n // BATCH):
        async with trio.open_nursery() as nursery:
            for _ in range(BATCH):
                nursery.start_soon(anoop)
    return perf_counter() - start
