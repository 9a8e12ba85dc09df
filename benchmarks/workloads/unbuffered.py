"""How long is a round trip between two goroutines over unbuffered channels?

One sends a number on the first channel and waits for it on the second; the
other sends back what it gets. Two sends, two receives, two switches.
"""

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Any

from benchmarks._workload import Outcome, per_op

UNBUFFERED = per_op("unbuffered", "round trip over two unbuffered channels", "round trip")  # fmt: skip


def _gort_with(dtype: str | None) -> Callable[[int], Outcome]:
    def run(n: int) -> float:
        from gort import Chan, go

        there: Chan[int] = Chan(dtype=dtype)
        back: Chan[int] = Chan(dtype=dtype)

        def echo() -> None:
            for _ in range(n):
                back.send(there.recv())

        def ping() -> float:
            start = perf_counter()
            for i in range(n):
                there.send(i)
                back.recv()
            return perf_counter() - start

        other = go(echo)
        seconds: float = go(ping).join()
        other.join()
        return seconds

    return run


UNBUFFERED.peer("gort", "gort-nosysmon")(_gort_with(None))
UNBUFFERED.peer("gort-i64")(_gort_with("i64"))


@UNBUFFERED.peer("gort-main")
def _gort_main(n: int) -> float:
    """The same with the main goroutine, tied to the main thread, as one of the two."""
    from gort import Chan, go

    there: Chan[int] = Chan()
    back: Chan[int] = Chan()

    def echo() -> None:
        for _ in range(n):
            back.send(there.recv())

    other = go(echo)
    start = perf_counter()
    for i in range(n):
        there.send(i)
        back.recv()
    seconds = perf_counter() - start
    other.join()
    return seconds


# asyncio has no channel that hands over from task to task. A queue of one is the
# nearest; in a ping-pong it is never full, so put() does not wait, and there are
# two switches to a round trip, as with channels.
@UNBUFFERED.peer("asyncio", "uvloop")
async def _asyncio(n: int) -> float:
    there: asyncio.Queue[int] = asyncio.Queue(1)
    back: asyncio.Queue[int] = asyncio.Queue(1)

    async def echo() -> None:
        for _ in range(n):
            await back.put(await there.get())

    other = asyncio.create_task(echo())
    start = perf_counter()
    for i in range(n):
        await there.put(i)
        await back.get()
    seconds = perf_counter() - start
    await other
    return seconds


@UNBUFFERED.peer("trio")
async def _trio(n: int) -> float:
    import trio

    there_s, there_r = trio.open_memory_channel[int](0)
    back_s, back_r = trio.open_memory_channel[int](0)

    async def echo() -> None:
        for _ in range(n):
            await back_s.send(await there_r.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(echo)
        start = perf_counter()
        for i in range(n):
            await there_s.send(i)
            await back_r.receive()
        seconds = perf_counter() - start
    return seconds


# gevent's Channel is a rendezvous like Go's; a Queue(1) is 10 % faster but none.
@UNBUFFERED.peer("gevent")
def _gevent(n: int) -> float:
    import gevent
    from gevent.queue import Channel

    there: Any = Channel()
    back: Any = Channel()

    def echo() -> None:
        for _ in range(n):
            back.put(there.get())

    other = gevent.spawn(echo)
    start = perf_counter()
    for i in range(n):
        there.put(i)
        back.get()
    seconds = perf_counter() - start
    other.join()
    return seconds


@UNBUFFERED.peer("runloom")
def _runloom(n: int) -> float:
    from runloom_c import Chan, fiber

    there, back = Chan(), Chan()

    def echo() -> None:
        for _ in range(n):
            v, _ok = there.recv()
            back.send(v)

    fiber(echo)
    start = perf_counter()
    for i in range(n):
        there.send(i)
        back.recv()
    return perf_counter() - start
