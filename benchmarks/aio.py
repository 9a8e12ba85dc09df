"""What it costs to go from asyncio to gort and back.

    python -m benchmarks.aio [--uvloop] [--quick]

For a loop in the main goroutine, in another one, and in a thread of its own. Microseconds.

- call: `await aio.call(f)`, a goroutine for each; beside it a thread of asyncio's default executor
- ping-pong: a coroutine sends to a goroutine and receives its answer
- receive: an idle loop receives from a goroutine that sends every 2 ms: from the send to the coroutine
- wake-up: the same by `loop.call_soon_threadsafe()`, without gort.aio
- run_coroutine: a goroutine awaits a coroutine; beside it `asyncio.run_coroutine_threadsafe().result()`
- crowd: 100 coroutines receive what 100 goroutines send, over one channel; an item
- ticker: how late a goroutine's `sleep(0.001)` comes beside the idle loop
"""

from __future__ import annotations

import argparse
import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import gort
from gort import aio

now = time.perf_counter


def quantiles(times: list[float]) -> str:
    times.sort()
    return f"p50 {times[len(times) // 2] * 1e6:7.1f}   p99 {times[len(times) * 99 // 100] * 1e6:7.1f}"


async def coroutine() -> int:
    return 1


async def each(n: int, start: Callable[[], Any]) -> str:
    times = []
    for _ in range(n):
        t = now()
        await start()
        times.append(now() - t)
    return quantiles(times)


async def call(n: int) -> str:
    return await each(n, lambda: aio.call(int))


async def executor(n: int) -> str:
    loop = asyncio.get_running_loop()
    return await each(n, lambda: loop.run_in_executor(None, int))


async def ping_pong(n: int) -> str:
    ping, pong = gort.Chan[int](), gort.Chan[int]()

    def echo() -> None:
        for v in ping:
            pong.send(v)

    async def once() -> None:
        await aio.send(ping, 1)
        await aio.recv(pong)

    g = gort.go(echo)
    result = await each(n, once)
    ping.close()
    await aio.join(g)
    return result


async def receive(n: int) -> str:
    ch, times = gort.Chan[float](), []

    def send() -> None:
        for _ in range(n // 10):
            gort.sleep(0.002)
            ch.send(now())
        ch.close()

    gort.go(send)
    async for sent in aio.iterate(ch):
        times.append(now() - sent)
    return quantiles(times)


async def wake_up(n: int) -> str:
    loop, over, times = asyncio.get_running_loop(), asyncio.Event(), []

    def arrived(sent: float) -> None:
        times.append(now() - sent)

    def wake() -> None:
        for _ in range(n // 10):
            gort.sleep(0.002)
            loop.call_soon_threadsafe(arrived, now())
        loop.call_soon_threadsafe(over.set)

    gort.go(wake)
    await over.wait()
    return quantiles(times)


def from_goroutine(run: Callable[[asyncio.AbstractEventLoop], Any]) -> Callable[[int], Any]:
    async def measure(n: int) -> str:
        loop, times = asyncio.get_running_loop(), []

        def drive() -> None:
            for _ in range(n):
                t = now()
                run(loop)
                times.append(now() - t)

        await aio.call(drive)
        return quantiles(times)

    return measure


run_coroutine = from_goroutine(lambda loop: aio.run_coroutine(coroutine(), loop))
threadsafe = from_goroutine(lambda loop: asyncio.run_coroutine_threadsafe(coroutine(), loop).result())


async def crowd(n: int) -> str:
    ch, share = gort.Chan[int](), max(1, n // 60)

    def send() -> None:
        for i in range(share):
            ch.send(i)

    async def recv() -> None:
        for _ in range(share):
            await aio.recv(ch)

    t = now()
    for _ in range(100):
        gort.go(send)
    await asyncio.gather(*[recv() for _ in range(100)])
    return f"mean {(now() - t) / 100 / share * 1e6:5.1f}"


async def ticker(n: int) -> str:
    times: list[float] = []

    def tick() -> None:
        for _ in range(n // 5):
            t = now()
            gort.sleep(0.001)
            times.append(now() - t - 0.001)

    await aio.join(gort.go(tick))
    return quantiles(times)


MEASURES = {
    "call": call,
    "  run_in_executor": executor,
    "ping-pong": ping_pong,
    "receive": receive,
    "  wake-up": wake_up,
    "run_coroutine": run_coroutine,
    "  threadsafe().result()": threadsafe,
    "crowd": crowd,
    "ticker": ticker,
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--uvloop", action="store_true", help="on uvloop")
    options.add_argument("--quick", action="store_true", help="only try whether it runs")
    given = options.parse_args()
    factory = None
    if given.uvloop:
        import uvloop

        factory = uvloop.new_event_loop
    n = 60 if given.quick else 3000

    def measure(where: str) -> None:
        for name, f in MEASURES.items():
            print(f"{where:10} {name:24} {aio.run(f(n), loop_factory=factory)}", flush=True)

    measure("main")
    gort.go(measure, "goroutine").join()
    thread = threading.Thread(target=measure, args=("thread",))
    thread.start()
    gort.blocking(thread.join)


if __name__ == "__main__":
    main()
