"""What does a leaf of a tree of goroutines cost that sum themselves up?

The skynet benchmark (github.com/atemerev/skynet) at a tenth of its size: a
goroutine starts ten children, each of them ten, until there are 100,000 leaves;
every one sends its number, or its children's sum, to its parent. 111,111
goroutines and 11,111 unbuffered channels in all, and the sum is checked.
"""

import asyncio
from time import perf_counter
from typing import Any

from benchmarks._workload import Metric, Workload, check

LEAVES, LEAVES_QUICK = 100_000, 10_000

SKYNET = Workload(
    "skynet",
    "sum 100,000 leaves, ten children a node, over channels",
    (Metric("ns", "ns per leaf", "wall time divided by the leaves"),),
    n=LEAVES,
    n_quick=LEAVES_QUICK,
    repeat=3,
)


def _sum(leaves: int) -> int:
    return leaves * (leaves - 1) // 2


@SKYNET.peer("gort")
def _gort(leaves: int) -> float:
    from gort import Chan, go

    def skynet(parent: Chan[int], number: int, size: int) -> None:
        if size == 1:
            parent.send(number)
            return
        ch: Chan[int] = Chan()
        size //= 10
        for i in range(10):
            go(skynet, ch, number + i * size, size)
        parent.send(sum([ch.recv() for _ in range(10)]))

    start = perf_counter()
    ch: Chan[int] = Chan()
    go(skynet, ch, 0, leaves)
    total = ch.recv()
    seconds = perf_counter() - start
    check(total, _sum(leaves))
    return seconds


# Unbounded queues: the fastest ones, and nothing is gained by a bound here.
@SKYNET.peer("asyncio", "uvloop")
async def _asyncio(leaves: int) -> float:
    running: set[asyncio.Task[None]] = set()  # the loop itself keeps no task alive

    async def skynet(parent: asyncio.Queue[int], number: int, size: int) -> None:
        if size == 1:
            parent.put_nowait(number)
            return
        queue: asyncio.Queue[int] = asyncio.Queue()
        size //= 10
        children = [asyncio.create_task(skynet(queue, number + i * size, size)) for i in range(10)]
        total = 0
        for _ in children:
            total += await queue.get()
        parent.put_nowait(total)

    start = perf_counter()
    queue: asyncio.Queue[int] = asyncio.Queue()
    running.add(asyncio.create_task(skynet(queue, 0, leaves)))
    total = await queue.get()
    seconds = perf_counter() - start
    check(total, _sum(leaves))
    return seconds


@SKYNET.peer("trio")
async def _trio(leaves: int) -> float:
    import trio

    async def skynet(parent: trio.MemorySendChannel[int], number: int, size: int) -> None:
        if size == 1:
            await parent.send(number)
            return
        sender, receiver = trio.open_memory_channel[int](0)
        size //= 10
        total = 0
        async with trio.open_nursery() as nursery:
            for i in range(10):
                nursery.start_soon(skynet, sender, number + i * size, size)
            for _ in range(10):
                total += await receiver.receive()
        await parent.send(total)

    start = perf_counter()
    sender, receiver = trio.open_memory_channel[int](0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(skynet, sender, 0, leaves)
        total = await receiver.receive()
    seconds = perf_counter() - start
    check(total, _sum(leaves))
    return seconds


@SKYNET.peer("gevent")
def _gevent(leaves: int) -> float:
    import gevent
    from gevent.queue import Channel

    def skynet(parent: Any, number: int, size: int) -> None:
        if size == 1:
            parent.put(number)
            return
        ch: Any = Channel()
        size //= 10
        for i in range(10):
            gevent.spawn(skynet, ch, number + i * size, size)
        parent.put(sum([ch.get() for _ in range(10)]))

    start = perf_counter()
    ch: Any = Channel()
    gevent.spawn(skynet, ch, 0, leaves)
    total = ch.get()
    seconds = perf_counter() - start
    check(total, _sum(leaves))
    return seconds


@SKYNET.peer("runloom")
def _runloom(leaves: int) -> float:
    from runloom_c import Chan, fiber

    def skynet(parent: Any, number: int, size: int) -> None:
        if size == 1:
            parent.send(number)
            return
        ch = Chan()
        size //= 10
        for i in range(10):
            fiber(lambda i=i: skynet(ch, number + i * size, size))
        parent.send(sum([ch.recv()[0] for _ in range(10)]))

    start = perf_counter()
    ch = Chan()
    fiber(lambda: skynet(ch, 0, leaves))
    total, _ok = ch.recv()
    seconds = perf_counter() - start
    check(total, _sum(leaves))
    return seconds
