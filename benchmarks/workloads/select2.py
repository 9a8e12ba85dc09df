"""What does a receive cost that takes from whichever of two channels is ready?

Two producers send on an unbuffered channel each; one goroutine receives with
select, as many times as both send together.
"""

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Any

from benchmarks._workload import Outcome, per_op

SELECT2 = per_op("select2", "select over two unbuffered channels", "receive", step=2)


def _gort_with(dtype: str | None) -> Callable[[int], Outcome]:
    def run(n: int) -> float:
        from gort import Chan, go, select

        a: Chan[int] = Chan(dtype=dtype)
        b: Chan[int] = Chan(dtype=dtype)

        def produce(ch: Chan[int]) -> None:
            for i in range(n // 2):
                ch.send(i)

        def consume() -> None:
            for _ in range(n):
                select(a, b)

        start = perf_counter()
        producers = go(produce, a), go(produce, b)
        go(consume).join()
        for g in producers:
            g.join()
        return perf_counter() - start

    return run


SELECT2.peer("gort")(_gort_with(None))
SELECT2.peer("gort-i64")(_gort_with("i64"))


# asyncio cannot wait for one of two queues; what its documentation offers is to
# wait for one of two tasks that get from them, and to keep the other task.
@SELECT2.peer("asyncio", "uvloop")
async def _asyncio(n: int) -> float:
    a: asyncio.Queue[int] = asyncio.Queue(1)
    b: asyncio.Queue[int] = asyncio.Queue(1)

    async def produce(queue: asyncio.Queue[int]) -> None:
        for i in range(n // 2):
            await queue.put(i)

    async def consume() -> None:
        source = {asyncio.create_task(q.get()): q for q in (a, b)}
        received = 0
        while received < n:
            done, _ = await asyncio.wait(source, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
                received += 1
                queue = source.pop(task)
                source[asyncio.create_task(queue.get())] = queue
        for task in source:
            task.cancel()

    start = perf_counter()
    producers = asyncio.create_task(produce(a)), asyncio.create_task(produce(b))
    await asyncio.create_task(consume())
    for task in producers:
        await task
    return perf_counter() - start


# The same idea in gevent's words: wait for one of two greenlets.
@SELECT2.peer("gevent")
def _gevent(n: int) -> float:
    import gevent
    from gevent.queue import Channel

    a: Any = Channel()
    b: Any = Channel()

    def produce(ch: Any) -> None:
        for i in range(n // 2):
            ch.put(i)

    def consume() -> None:
        source = {gevent.spawn(ch.get): ch for ch in (a, b)}
        received = 0
        while received < n:
            for getter in gevent.wait(list(source), count=1):
                getter.get()
                received += 1
                ch = source.pop(getter)
                source[gevent.spawn(ch.get)] = ch
        gevent.killall(list(source))

    start = perf_counter()
    producers = gevent.spawn(produce, a), gevent.spawn(produce, b)
    gevent.spawn(consume).join()
    for g in producers:
        g.join()
    return perf_counter() - start


SELECT2.lacks("trio", "no select; trio waits for one thing at a time per task")


@SELECT2.peer("runloom")
def _runloom(n: int) -> float:
    from runloom_c import Chan, fiber, select

    a, b, end = Chan(), Chan(), Chan(1)

    def produce(ch: Any) -> None:
        for i in range(n // 2):
            ch.send(i)

    def consume() -> None:
        cases = [("recv", a), ("recv", b)]
        for _ in range(n):
            select(cases)
        end.send(None)

    start = perf_counter()
    fiber(lambda: produce(a))
    fiber(lambda: produce(b))
    fiber(consume)
    end.recv()
    return perf_counter() - start
