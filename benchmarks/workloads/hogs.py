"""How late is a goroutine that wakes every millisecond, beside others that compute?

A hog is a Python function that computes and never calls the runtime: one, or four
of them. Python's switch interval is as it is by default, 5 ms. Measured are

- `p50`, `p99`, `max`: as in `ticker`;
- `loss`: the time that the hogs together take for a turn of their loop beside the
  ticker, over what one takes with nothing beside it, measured before and after
  in the same process. 1.11: they keep 90 %, with what the
  ticker itself uses not taken off.

It runs on all cores, as programs do: more than one is of no use to Python, but
who waits for the GIL waits on the other core.
"""

from functools import partial
from time import perf_counter

from benchmarks import _beside
from benchmarks._workload import Body, Metric, Workload
from benchmarks.workloads.ticker import LATE, MILLISECONDS, MILLISECONDS_QUICK

CYCLES = 3
ALONE = 0.25  # seconds that a hog is measured alone, for each second beside the ticker


def compute(end: float) -> int:
    """Compute until then: how many turns. One is some 15 us."""
    turns = 0
    x = 1
    while perf_counter() < end:
        for _ in range(300):
            x = x * 1103515245 + 12345 & 0x7FFFFFFF
        turns += 1
    return turns


def _plain(hogs: int, peer: str) -> Body:
    def run(n: int) -> dict[str, float]:
        kit = _beside.KITS[peer]()
        outcome = _Outcome(n)
        for _ in range(CYCLES):
            outcome.alone()
            outcome.beside(*_beside.tick_beside(kit, outcome.seconds, [partial(kit.compute, compute)] * hogs))
        outcome.alone()
        return outcome.told()

    return run


def _async(hogs: int, peer: str) -> Body:
    async def run(n: int) -> dict[str, float]:
        outcome = _Outcome(n)
        with _beside.ASYNC_KITS[peer]() as kit:
            for _ in range(CYCLES):
                outcome.alone()
                outcome.beside(
                    *await _beside.tick_beside_async(outcome.seconds, [partial(kit.compute, compute)] * hogs)
                )
        outcome.alone()
        return outcome.told()

    return run


class _Outcome:
    """Adds up the turns of the hogs, beside the ticker and alone."""

    def __init__(self, n: int) -> None:
        self.seconds = n / 1000 / CYCLES
        self.late: list[float] = []
        self.turns, self.took = 0, 0.0
        self.turns_alone, self.took_alone = 0, 0.0

    def alone(self) -> None:
        start = perf_counter()
        self.turns_alone += compute(start + self.seconds * ALONE)
        self.took_alone += perf_counter() - start

    def beside(self, late: list[float], turns: list[int], seconds: float) -> None:
        self.late += late
        self.turns += sum(turns)
        self.took += seconds

    def told(self) -> dict[str, float]:
        loss = self.turns_alone / self.took_alone * self.took / self.turns
        return {**_beside.lateness(self.late), "loss": loss}


def _hogs(hogs: int, question: str) -> Workload:
    loss = Metric("loss", "x the time per turn", "time per turn of the hogs' loop, over that of one alone")
    workload = Workload(
        f"hogs{hogs}",
        question,
        (*LATE, loss),
        n=MILLISECONDS,
        n_quick=MILLISECONDS_QUICK,
        repeat=1,
        procs=2,
        go=False,
    )
    for peer in _beside.KITS:
        if peer != "gort-blocking":  # it computes, so there is nothing to say
            workload.peer(peer)(_plain(hogs, peer))
    for peer in _beside.ASYNC_KITS:
        workload.peer(peer)(_async(hogs, peer))
    workload.lacks("go", "the question is Python's GIL")
    return workload


ONE = _hogs(1, "a tick of 1 ms beside a Python function that computes")
FOUR = _hogs(4, "a tick of 1 ms beside 4 Python functions that compute")
