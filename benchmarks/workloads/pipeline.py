"""What does a number cost that passes through a pipeline of three stages?

A source, a stage that adds one, and a sink that sums, joined by two channels as
in Go's blog ("Pipelines and cancellation"): unbuffered, closed by the sender,
received by a loop that ends there. The sum is checked.
"""

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Any

from benchmarks._workload import Outcome, check, per_op

PIPELINE = per_op("pipeline", "three stages joined by unbuffered channels", "item")


def _sum(n: int) -> int:
    return n * (n + 1) // 2  # of 0 + 1, 1 + 1, … (n - 1) + 1


def _gort_with(dtype: str | None) -> Callable[[int], Outcome]:
    def run(n: int) -> float:
        from gort import Chan, go

        raw: Chan[int] = Chan(dtype=dtype)
        done: Chan[int] = Chan(dtype=dtype)

        def source() -> None:
            for i in range(n):
                raw.send(i)
            raw.close()

        def stage() -> None:
            for v in raw:
                done.send(v + 1)
            done.close()

        def sink() -> int:
            total = 0
            for v in done:
                total += v
            return total

        start = perf_counter()
        go(source)
        go(stage)
        total = go(sink).join()
        seconds = perf_counter() - start
        check(total, _sum(n))
        return seconds

    return run


PIPELINE.peer("gort")(_gort_with(None))
PIPELINE.peer("gort-i64")(_gort_with("i64"))


# A queue of one is asyncio's nearest to an unbuffered channel; None is the end.
@PIPELINE.peer("asyncio", "uvloop")
async def _asyncio(n: int) -> float:
    raw: asyncio.Queue[int | None] = asyncio.Queue(1)
    done: asyncio.Queue[int | None] = asyncio.Queue(1)

    async def source() -> None:
        for i in range(n):
            await raw.put(i)
        await raw.put(None)

    async def stage() -> None:
        while (v := await raw.get()) is not None:
            await done.put(v + 1)
        await done.put(None)

    async def sink() -> int:
        total = 0
        while (v := await done.get()) is not None:
            total += v
        return total

    start = perf_counter()
    stages = asyncio.create_task(source()), asyncio.create_task(stage())
    total = await asyncio.create_task(sink())
    for task in stages:
        await task
    seconds = perf_counter() - start
    check(total, _sum(n))
    return seconds


@PIPELINE.peer("trio")
async def _trio(n: int) -> float:
    import trio

    raw_s, raw_r = trio.open_memory_channel[int](0)
    done_s, done_r = trio.open_memory_channel[int](0)

    async def source() -> None:
        async with raw_s:
            for i in range(n):
                await raw_s.send(i)

    async def stage() -> None:
        async with done_s:
            async for v in raw_r:
                await done_s.send(v + 1)

    total = 0
    start = perf_counter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source)
        nursery.start_soon(stage)
        async for v in done_r:
            total += v
    seconds = perf_counter() - start
    check(total, _sum(n))
    return seconds


@PIPELINE.peer("gevent")
def _gevent(n: int) -> float:
    import gevent
    from gevent.queue import Channel

    raw: Any = Channel()
    done: Any = Channel()

    def source() -> None:
        for i in range(n):
            raw.put(i)
        raw.put(StopIteration)  # gevent's way to end the loop

    def stage() -> None:
        for v in raw:
            done.put(v + 1)
        done.put(StopIteration)

    def sink() -> int:
        total = 0
        for v in done:
            total += v
        return total

    start = perf_counter()
    gevent.spawn(source)
    gevent.spawn(stage)
    total = gevent.spawn(sink).get()
    seconds = perf_counter() - start
    check(total, _sum(n))
    return seconds


@PIPELINE.peer("runloom")
def _runloom(n: int) -> float:
    from runloom_c import Chan, fiber

    raw, done, end = Chan(), Chan(), Chan(1)

    def source() -> None:
        for i in range(n):
            raw.send(i)
        raw.close()

    def stage() -> None:
        for v in raw:
            done.send(v + 1)
        done.close()

    def sink() -> None:
        total = 0
        for v in done:
            total += v
        end.send(total)

    start = perf_counter()
    fiber(source)
    fiber(stage)
    fiber(sink)
    total, _ok = end.recv()
    seconds = perf_counter() - start
    check(total, _sum(n))
    return seconds
