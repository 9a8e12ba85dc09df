"""What does an item cost that goes through a channel of capacity 128?

One goroutine sends numbers, another receives them. `buffered` receives with the
plain receive call, a known number of times; `buffered_iter` with the loop over
the channel that ends when it is closed, where a peer has such a loop.
"""

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Any

from benchmarks._workload import Outcome, per_op

CAP = 128

BUFFERED = per_op("buffered", "send and receive through capacity 128", "item")
ITER = per_op("buffered_iter", "the same, received by a loop over the channel", "item")


def _gort_with(dtype: str | None, iterate: bool) -> Callable[[int], Outcome]:
    def run(n: int) -> float:
        from gort import Chan, go

        ch: Chan[int] = Chan(CAP, dtype=dtype)

        def produce() -> None:
            for i in range(n):
                ch.send(i)
            ch.close()

        def consume() -> None:
            for _ in range(n):
                ch.recv()

        def drain() -> None:
            for _ in ch:
                pass

        start = perf_counter()
        producer = go(produce)
        go(drain if iterate else consume).join()
        producer.join()
        return perf_counter() - start

    return run


BUFFERED.peer("gort", "gort-nosysmon")(_gort_with(None, False))
BUFFERED.peer("gort-i64")(_gort_with("i64", False))
ITER.peer("gort")(_gort_with(None, True))
ITER.peer("gort-i64")(_gort_with("i64", True))


@BUFFERED.peer("asyncio", "uvloop")
async def _asyncio(n: int) -> float:
    queue: asyncio.Queue[int] = asyncio.Queue(CAP)

    async def produce() -> None:
        for i in range(n):
            await queue.put(i)

    async def consume() -> None:
        for _ in range(n):
            await queue.get()

    start = perf_counter()
    producer = asyncio.create_task(produce())
    await asyncio.create_task(consume())
    await producer
    return perf_counter() - start


for _peer in ("asyncio", "uvloop"):
    ITER.lacks(_peer, "asyncio.Queue is not iterable")


@BUFFERED.peer("trio")
async def _trio(n: int) -> float:
    import trio

    sender, receiver = trio.open_memory_channel[int](CAP)

    async def produce() -> None:
        for i in range(n):
            await sender.send(i)

    async def consume() -> None:
        for _ in range(n):
            await receiver.receive()

    start = perf_counter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        nursery.start_soon(consume)
    return perf_counter() - start


@ITER.peer("trio")
async def _trio_iter(n: int) -> float:
    import trio

    sender, receiver = trio.open_memory_channel[int](CAP)

    async def produce() -> None:
        for i in range(n):
            await sender.send(i)
        await sender.aclose()

    async def drain() -> None:
        async for _ in receiver:
            pass

    start = perf_counter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        nursery.start_soon(drain)
    return perf_counter() - start


def _gevent_with(iterate: bool) -> Callable[[int], Outcome]:
    def run(n: int) -> float:
        import gevent
        from gevent.queue import SimpleQueue

        queue: Any = SimpleQueue(CAP)  # Queue without task_done(), 10 % faster

        def produce() -> None:
            for i in range(n):
                queue.put(i)
            if iterate:
                queue.put(StopIteration)  # gevent's way to end the loop

        def consume() -> None:
            for _ in range(n):
                queue.get()

        def drain() -> None:
            for _ in queue:
                pass

        start = perf_counter()
        producer = gevent.spawn(produce)
        gevent.spawn(drain if iterate else consume).join()
        producer.join()
        return perf_counter() - start

    return run


BUFFERED.peer("gevent")(_gevent_with(False))
ITER.peer("gevent")(_gevent_with(True))


def _runloom_with(iterate: bool) -> Callable[[int], Outcome]:
    def run(n: int) -> float:
        from runloom_c import Chan, fiber

        ch = Chan(CAP)
        end = Chan(1)

        def produce() -> None:
            for i in range(n):
                ch.send(i)
            ch.close()

        def consume() -> None:
            for _ in range(n):
                ch.recv()
            end.send(None)

        def drain() -> None:
            for _ in ch:
                pass
            end.send(None)

        start = perf_counter()
        fiber(produce)
        fiber(drain if iterate else consume)
        end.recv()
        return perf_counter() - start

    return run


BUFFERED.peer("runloom")(_runloom_with(False))
ITER.peer("runloom")(_runloom_with(True))
