"""What is left of the throughput of two goroutines that pass messages, beside blocking calls?

The two do round trips over two unbuffered channels, as in `unbuffered`. Beside
them are eight goroutines in a loop over `time.sleep(0.001)`, or one in a loop
over an SQLite query of about 40 us: calls so short that it may cost more to run
others meanwhile than they take. Measured are

- `ns`: per round trip, beside them;
- `loss`: that over what a round trip costs undisturbed;
- `others`: the wall time of a call of theirs beside the two, over undisturbed.

Undisturbed means: in the same process, in turn with the others beside.
"""

from collections.abc import Callable
from functools import partial
from time import perf_counter

from benchmarks import _beside
from benchmarks._workload import Body, Metric, Workload

MILLISECONDS, MILLISECONDS_QUICK = 3000, 400

METRICS = (
    Metric("ns", "ns per round trip", "round trip over two unbuffered channels, beside the others"),
    Metric("loss", "x undisturbed", "the time of a round trip beside the others, over undisturbed"),
    Metric("others", "x undisturbed", "the time of a call of theirs beside the two, over undisturbed"),
)


# (round trips, calls): each undisturbed, and both, again and again.
PHASES = 5 * ((True, False), (True, True), (False, True), (True, True))


class _Rates:
    """Adds up round trips, calls and seconds, by phase."""

    def __init__(self, n: int) -> None:
        self.seconds = n / 1000 / len(PHASES)
        self.trips = {False: 0, True: 0}  # by whether the others were there
        self.calls = {False: 0, True: 0}
        self.took = dict.fromkeys(PHASES, 0.0)

    def add(self, messages: bool, others: bool, done: list[int], seconds: float) -> None:
        if messages:
            self.trips[others] += done[0]
        if others:
            self.calls[messages] += sum(done[messages:])
        self.took[messages, others] += seconds

    def outcome(self) -> dict[str, float]:
        took = self.took
        # Where one side had no turn at all: as if it had had one.
        trips = max(self.trips[True], 1) / took[True, True]
        calls = max(self.calls[True], 1) / took[True, True]
        return {
            "ns": 1e9 / trips,
            "loss": self.trips[False] / took[True, False] / trips,
            "others": self.calls[False] / took[False, True] / calls,
        }


def _plain(kind: _beside.Kind, callers: int, peer: str) -> Body:
    def run(n: int) -> dict[str, float]:
        kit = _beside.KITS[peer]()
        rates = _Rates(n)
        with kind(callers) as calls:
            for messages, others in PHASES:
                start = perf_counter()
                end = start + rates.seconds
                programs: list[Callable[[], int]] = [partial(_beside.pair, kit, end)] if messages else []
                programs += [partial(_beside.keep_calling, kit, c, end) for c in calls if others]
                done = _beside.together(kit, programs)
                rates.add(messages, others, done, perf_counter() - start)
        return rates.outcome()

    return run


def _async(kind: _beside.Kind, callers: int, peer: str) -> Body:
    async def run(n: int) -> dict[str, float]:
        rates = _Rates(n)
        with kind(callers) as calls, _beside.ASYNC_KITS[peer]() as kit:
            for messages, others in PHASES:
                start = perf_counter()
                end = start + rates.seconds
                programs = [_beside.pair_async(end)] if messages else []
                programs += [_beside.keep_calling_async(kit, c, end) for c in calls if others]
                done = await _beside.together_async(programs)
                rates.add(messages, others, done, perf_counter() - start)
        return rates.outcome()

    return run


def _beside_of(name: str, question: str, kind: _beside.Kind, callers: int) -> Workload:
    workload = Workload(
        f"beside_{name}",
        question,
        METRICS,
        n=MILLISECONDS,
        n_quick=MILLISECONDS_QUICK,
        repeat=1,
        procs=2,
        go=False,
    )
    for peer in _beside.KITS:
        workload.peer(peer)(_plain(kind, callers, peer))
    for peer in _beside.ASYNC_KITS:
        workload.peer(peer)(_async(kind, callers, peer))
    workload.lacks("go", "it would call other libraries, in C or of its own")
    return workload


SLEEPS = _beside_of("sleeps", "round trips beside 8 in time.sleep(0.001)", _beside.SHORT_SLEEP, 8)
SQLITE = _beside_of("sqlite", "round trips beside a loop of SQLite queries of 40 us", _beside.SQLITE_40US, 1)
