"""What do 50,000 goroutines cost that sleep, each for a time of its own?

All are started at once and each sleeps once, for 10 ms to 1 s, by a fixed random
sequence that is the same in every peer. Measured are

- `cpu`: user and system time of the whole process, from the first start to the
  last end: what the timers and the wake-ups cost;
- `overrun`: wall time from the first start to the last end, less the longest
  sleep: what starting them all and being late at the end added to it.

Both are divided by the number of sleepers. A peer that rounds its timers has a
smaller `cpu` and shows it in `late`, the mean time by which a sleeper overslept
(each of them reads the clock twice for that; all peers do).
"""

import asyncio
from time import perf_counter, process_time

from benchmarks._workload import Metric, Workload, check

SLEEPERS, SLEEPERS_QUICK = 50_000, 5_000

SLEEP = Workload(
    "sleepers",
    "50,000 goroutines sleep once, 10 ms to 1 s",
    (
        Metric("cpu", "ns of CPU per sleeper", "user and system time, all threads"),
        Metric("overrun", "ns of wall per sleeper", "wall time beyond the longest sleep"),
        Metric("late", "ns overslept per sleeper", "mean time between due and awake"),
    ),
    n=SLEEPERS,
    n_quick=SLEEPERS_QUICK,
    repeat=1,
)


def _durations(n: int) -> list[float]:
    """Seconds to sleep: Knuth's MMIX generator, so that Go has the same ones."""
    x, out = 42, []
    for _ in range(n):
        x = (x * 6364136223846793005 + 1442695040888963407) % 2**64
        out.append((10_000 + (x >> 33) % 990_000) * 1e-6)
    return out


class _Clock:
    """Runs from its making to `result`; the sleepers add to `late` and `ended`."""

    def __init__(self, durations: list[float]) -> None:
        self.durations = durations
        self.late = 0.0
        self.ended = 0
        self.cpu = process_time()
        self.wall = perf_counter()

    def result(self) -> dict[str, float]:
        wall, cpu = perf_counter() - self.wall, process_time() - self.cpu
        n = len(self.durations)
        check(self.ended, n)
        scale = 1e9 / n
        return {"cpu": cpu * scale, "overrun": (wall - max(self.durations)) * scale, "late": self.late * scale}


@SLEEP.peer("gort")
def _gort(n: int) -> dict[str, float]:
    from gort import go, sleep

    def sleeper(seconds: float) -> None:
        due = perf_counter() + seconds
        sleep(seconds)
        clock.late += perf_counter() - due
        clock.ended += 1

    durations = _durations(n)
    clock = _Clock(durations)
    for g in [go(sleeper, d) for d in durations]:
        g.join()
    return clock.result()


@SLEEP.peer("asyncio", "uvloop")
async def _asyncio(n: int) -> dict[str, float]:
    async def sleeper(seconds: float) -> None:
        due = perf_counter() + seconds
        await asyncio.sleep(seconds)
        clock.late += perf_counter() - due
        clock.ended += 1

    durations = _durations(n)
    clock = _Clock(durations)
    for task in [asyncio.create_task(sleeper(d)) for d in durations]:
        await task
    return clock.result()


@SLEEP.peer("trio")
async def _trio(n: int) -> dict[str, float]:
    import trio

    async def sleeper(seconds: float) -> None:
        due = perf_counter() + seconds
        await trio.sleep(seconds)
        clock.late += perf_counter() - due
        clock.ended += 1

    durations = _durations(n)
    clock = _Clock(durations)
    async with trio.open_nursery() as nursery:
        for d in durations:
            nursery.start_soon(sleeper, d)
    return clock.result()


@SLEEP.peer("gevent")
def _gevent(n: int) -> dict[str, float]:
    import gevent

    def sleeper(seconds: float) -> None:
        due = perf_counter() + seconds
        gevent.sleep(seconds)
        clock.late += perf_counter() - due
        clock.ended += 1

    durations = _durations(n)
    clock = _Clock(durations)
    for g in [gevent.spawn(sleeper, d) for d in durations]:
        g.join()
    return clock.result()


@SLEEP.peer("runloom")
def _runloom(n: int) -> dict[str, float]:
    from runloom_c import Chan, fiber, sched_sleep

    end = Chan(n)

    def sleeper(seconds: float) -> None:
        due = perf_counter() + seconds
        sched_sleep(seconds)
        clock.late += perf_counter() - due
        clock.ended += 1
        end.send(None)

    durations = _durations(n)
    clock = _Clock(durations)
    for d in durations:
        fiber(lambda d=d: sleeper(d))
    for _ in durations:
        end.recv()
    return clock.result()
