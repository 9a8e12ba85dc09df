"""How late is a goroutine that wakes every millisecond, beside eight that block?

Each of the eight does nothing but one call, again and again: `time.sleep(0.05)`,
`zlib.compress` of 1 MB, an SQLite query of about 40 us or 50 ms, `getaddrinfo`,
reading a file of 50 MB, a MB at a time, that is in the page cache. Nothing is patched, and gort is
not told that these calls block (but in `gort-blocking`). `ticker_mixed` has all of
them at once, `ticker_alone` none: what the machine itself adds. It is measured

- `p50`, `p99`, `max`: by how much a sleep of 1 ms was late. The next one begins
  when the last has ended, so a stall of 400 ms is one late tick, not 400: look at
  `max` as well;
- `work`: wall time per call of the eight together, so that nobody ticks well by
  keeping the others out.

It runs on all cores, for the calls do.
"""

from functools import partial

from benchmarks import _beside
from benchmarks._workload import Body, Metric, Workload

CALLERS = 8
# In the first second those who compress all end at once, again and again, and the p99 is 6 to 7 ms; then
# they drift apart.
MILLISECONDS, MILLISECONDS_QUICK = 5000, 100

LATE = (
    Metric("p50", "us late, median", "by how much a sleep of 1 ms was late: median"),
    Metric("p99", "us late, 99th percentile", "by how much a sleep of 1 ms was late: 99th percentile"),
    Metric("max", "us late at most", "by how much a sleep of 1 ms was late: greatest"),
)
WORK = Metric("work", "us per call", "wall time per call of all the others together")


def _plain(kind: _beside.Kind, peer: str) -> Body:
    def run(n: int) -> dict[str, float]:
        kit = _beside.KITS[peer]()
        with kind(CALLERS) as calls:
            programs = [partial(_beside.keep_calling, kit, call) for call in calls]
            return _outcome(*_beside.tick_beside(kit, n / 1000, programs))

    return run


def _async(kind: _beside.Kind, peer: str) -> Body:
    async def run(n: int) -> dict[str, float]:
        with kind(CALLERS) as calls, _beside.ASYNC_KITS[peer]() as kit:
            programs = [partial(_beside.keep_calling_async, kit, call) for call in calls]
            return _outcome(*await _beside.tick_beside_async(n / 1000, programs))

    return run


def _outcome(late: list[float], done: list[int], seconds: float) -> dict[str, float]:
    outcome = _beside.lateness(late)
    if done:
        outcome["work"] = seconds / max(sum(done), 1) * 1e6
    return outcome


def _ticker(name: str, question: str, kind: _beside.Kind) -> Workload:
    workload = Workload(
        f"ticker_{name}",
        question,
        LATE if kind is _beside.nothing else (*LATE, WORK),
        n=MILLISECONDS,
        n_quick=MILLISECONDS_QUICK,
        repeat=1,
        procs=2,
        go=False,
    )
    for peer in _beside.KITS:
        workload.peer(peer)(_plain(kind, peer))
    for peer in _beside.ASYNC_KITS:
        workload.peer(peer)(_async(kind, peer))
    workload.lacks("go", "it would call other libraries, in C or of its own")
    return workload


KINDS = _beside.KINDS
ALONE = _ticker("alone", "a tick of 1 ms, nothing beside it", _beside.nothing)
SLEEP = _ticker("sleep", "a tick of 1 ms beside 8 in time.sleep(0.05)", KINDS["sleep"])
ZLIB = _ticker("zlib", "a tick of 1 ms beside 8 that compress 1 MB", KINDS["zlib"])
SQLITE_40US = _ticker("sqlite_40us", "a tick of 1 ms beside 8 with SQLite queries of 40 us", KINDS["sqlite_40us"])
SQLITE_50MS = _ticker("sqlite_50ms", "a tick of 1 ms beside 8 with SQLite queries of 50 ms", KINDS["sqlite_50ms"])
GETADDRINFO = _ticker("getaddrinfo", "a tick of 1 ms beside 8 in getaddrinfo", KINDS["getaddrinfo"])
FILE = _ticker("file", "a tick of 1 ms beside 8 that read a file of 50 MB", KINDS["file"])
MIXED = _ticker("mixed", "a tick of 1 ms beside 8 that do all of these", _beside.mixed)
