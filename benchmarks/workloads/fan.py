"""What does an item cost when many goroutines share one end of a channel?

`fan_in`: 100 producers send on one unbuffered channel, one consumer receives.
`fan_out`: one producer sends, 100 workers receive in turn. Starting and ending
the hundred is part of it, and small beside the items.
"""

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Any

from benchmarks._workload import Outcome, check, per_op

MANY = 100

FAN_IN = per_op("fan_in", "100 producers, one unbuffered channel, one consumer", "item", step=MANY)
FAN_OUT = per_op("fan_out", "one producer, one unbuffered channel, 100 workers", "item", step=MANY)


def _gort_in_with(dtype: str | None) -> Callable[[int], Outcome]:
    def run(n: int) -> float:
        from gort import Chan, go

        ch: Chan[int] = Chan(dtype=dtype)

        def produce() -> None:
            for i in range(n // MANY):
                ch.send(i)

        def consume() -> None:
            for _ in range(n):
                ch.recv()

        start = perf_counter()
        producers = [go(produce) for _ in range(MANY)]
        go(consume).join()
        for g in producers:
            g.join()
        return perf_counter() - start

    return run


def _gort_out_with(dtype: str | None) -> Callable[[int], Outcome]:
    def run(n: int) -> float:
        from gort import Chan, go

        ch: Chan[int] = Chan(dtype=dtype)

        def produce() -> None:
            for i in range(n):
                ch.send(i)
            ch.close()

        def work() -> int:
            count = 0
            for _ in ch:
                count += 1
            return count

        start = perf_counter()
        workers = [go(work) for _ in range(MANY)]
        go(produce)
        total = sum(g.join() for g in workers)
        seconds = perf_counter() - start
        check(total, n)
        return seconds

    return run


FAN_IN.peer("gort")(_gort_in_with(None))
FAN_IN.peer("gort-i64")(_gort_in_with("i64"))
FAN_OUT.peer("gort")(_gort_out_with(None))
FAN_OUT.peer("gort-i64")(_gort_out_with("i64"))


# A queue of one stands for the unbuffered channel, as in unbuffered.py.
@FAN_IN.peer("asyncio", "uvloop")
async def _asyncio_in(n: int) -> float:
    queue: asyncio.Queue[int] = asyncio.Queue(1)

    async def produce() -> None:
        for i in range(n // MANY):
            await queue.put(i)

    async def consume() -> None:
        for _ in range(n):
            await queue.get()

    start = perf_counter()
    producers = [asyncio.create_task(produce()) for _ in range(MANY)]
    await asyncio.create_task(consume())
    for task in producers:
        await task
    return perf_counter() - start


@FAN_OUT.peer("asyncio", "uvloop")
async def _asyncio_out(n: int) -> float:
    queue: asyncio.Queue[int | None] = asyncio.Queue(1)

    async def produce() -> None:
        for i in range(n):
            await queue.put(i)
        for _ in range(MANY):
            await queue.put(None)

    async def work() -> int:
        count = 0
        while await queue.get() is not None:
            count += 1
        return count

    start = perf_counter()
    workers = [asyncio.create_task(work()) for _ in range(MANY)]
    producer = asyncio.create_task(produce())
    total = 0
    for task in workers:
        total += await task
    await producer
    seconds = perf_counter() - start
    check(total, n)
    return seconds


@FAN_IN.peer("trio")
async def _trio_in(n: int) -> float:
    import trio

    sender, receiver = trio.open_memory_channel[int](0)

    async def produce() -> None:
        for i in range(n // MANY):
            await sender.send(i)

    async def consume() -> None:
        for _ in range(n):
            await receiver.receive()

    start = perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(MANY):
            nursery.start_soon(produce)
        nursery.start_soon(consume)
    return perf_counter() - start


@FAN_OUT.peer("trio")
async def _trio_out(n: int) -> float:
    import trio

    sender, receiver = trio.open_memory_channel[int](0)
    counts: list[int] = []

    async def produce() -> None:
        async with sender:
            for i in range(n):
                await sender.send(i)

    async def work() -> None:
        count = 0
        async for _ in receiver:
            count += 1
        counts.append(count)

    start = perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(MANY):
            nursery.start_soon(work)
        nursery.start_soon(produce)
    seconds = perf_counter() - start
    check(sum(counts), n)
    return seconds


@FAN_IN.peer("gevent")
def _gevent_in(n: int) -> float:
    import gevent
    from gevent.queue import Channel

    ch: Any = Channel()

    def produce() -> None:
        for i in range(n // MANY):
            ch.put(i)

    def consume() -> None:
        for _ in range(n):
            ch.get()

    start = perf_counter()
    producers = [gevent.spawn(produce) for _ in range(MANY)]
    gevent.spawn(consume).join()
    for g in producers:
        g.join()
    return perf_counter() - start


@FAN_OUT.peer("gevent")
def _gevent_out(n: int) -> float:
    import gevent
    from gevent.queue import Channel

    ch: Any = Channel()

    def produce() -> None:
        for i in range(n):
            ch.put(i)
        for _ in range(MANY):
            ch.put(StopIteration)

    def work() -> int:
        count = 0
        for _ in ch:
            count += 1
        return count

    start = perf_counter()
    workers = [gevent.spawn(work) for _ in range(MANY)]
    gevent.spawn(produce)
    total = sum(g.get() for g in workers)
    seconds = perf_counter() - start
    check(total, n)
    return seconds


@FAN_IN.peer("runloom")
def _runloom_in(n: int) -> float:
    from runloom_c import Chan, fiber

    ch, end = Chan(), Chan(1)

    def produce() -> None:
        for i in range(n // MANY):
            ch.send(i)

    def consume() -> None:
        for _ in range(n):
            ch.recv()
        end.send(None)

    start = perf_counter()
    for _ in range(MANY):
        fiber(produce)
    fiber(consume)
    end.recv()
    return perf_counter() - start


@FAN_OUT.peer("runloom")
def _runloom_out(n: int) -> float:
    from runloom_c import Chan, fiber

    ch, end = Chan(), Chan(MANY)

    def produce() -> None:
        for i in range(n):
            ch.send(i)
        ch.close()

    def work() -> None:
        count = 0
        for _ in ch:
            count += 1
        end.send(count)

    start = perf_counter()
    for _ in range(MANY):
        fiber(work)
    fiber(produce)
    total = sum(end.recv()[0] for _ in range(MANY))
    seconds = perf_counter() - start
    check(total, n)
    return seconds
