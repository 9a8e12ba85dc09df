"""What does it cost to let the other of two goroutines run?

Two goroutines do nothing but yield, so every yield is a switch to the other.
Python's loops repeat None: counting with `range` would make an int a turn, which
takes a fifth of the time that is measured and no part in a yield.
"""

import asyncio
from itertools import repeat
from time import perf_counter

from benchmarks._workload import per_op

YIELD_TWO = per_op("yield_two", "two goroutines yield to each other", "yield", step=2)


@YIELD_TWO.peer("gort", "gort-nosysmon")
def _gort(n: int) -> float:
    from gort import go, gosched

    def spin() -> None:
        for _ in repeat(None, n // 2):
            gosched()

    start = perf_counter()
    a, b = go(spin), go(spin)
    a.join()
    b.join()
    return perf_counter() - start


@YIELD_TWO.peer("gort-sleep0")
def _gort_sleep(n: int) -> float:
    from gort import go, sleep

    def spin() -> None:
        for _ in repeat(None, n // 2):
            sleep(0)

    start = perf_counter()
    a, b = go(spin), go(spin)
    a.join()
    b.join()
    return perf_counter() - start


@YIELD_TWO.peer("asyncio", "uvloop")
async def _asyncio(n: int) -> float:
    async def spin() -> None:
        for _ in repeat(None, n // 2):
            await asyncio.sleep(0)

    start = perf_counter()
    a, b = asyncio.create_task(spin()), asyncio.create_task(spin())
    await a
    await b
    return perf_counter() - start


@YIELD_TWO.peer("trio")
async def _trio(n: int) -> float:
    import trio

    async def spin() -> None:
        for _ in repeat(None, n // 2):
            await trio.lowlevel.checkpoint()

    start = perf_counter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(spin)
        nursery.start_soon(spin)
    return perf_counter() - start


@YIELD_TWO.peer("gevent")
def _gevent(n: int) -> float:
    import gevent

    def spin() -> None:
        for _ in repeat(None, n // 2):
            gevent.sleep(0)

    start = perf_counter()
    a, b = gevent.spawn(spin), gevent.spawn(spin)
    a.join()
    b.join()
    return perf_counter() - start


# Not a scheduler: each names the one to switch to, so this is the floor of
# switching stacks in C under CPython, not a yield.
@YIELD_TWO.peer("greenlet")
def _greenlet(n: int) -> float:
    from greenlet import greenlet

    def spin_a() -> None:
        for _ in repeat(None, n // 2):
            b.switch()

    def spin_b() -> None:
        for _ in repeat(None, n // 2):
            a.switch()

    a, b = greenlet(spin_a), greenlet(spin_b)
    start = perf_counter()
    a.switch()
    return perf_counter() - start


# The builtin that `runloom.yield_now` wraps, the fastest of its three forms.
@YIELD_TWO.peer("runloom")
def _runloom(n: int) -> float:
    from runloom_c import Chan, fiber, sched_yield

    end = Chan(2)

    def spin() -> None:
        for _ in repeat(None, n // 2):
            sched_yield()
        end.send(None)

    start = perf_counter()
    fiber(spin)
    fiber(spin)
    end.recv()
    end.recv()
    return perf_counter() - start
