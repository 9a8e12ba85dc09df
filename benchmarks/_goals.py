"""The figures that gort has set out to reach, as ratios within one run.

They are shown, never asserted: a busy machine must not fail a test.
"""

from collections.abc import Callable
from dataclasses import dataclass

# The median of (workload, metric, peer), None if it was not measured.
Median = Callable[[str, str, str], float | None]


@dataclass(frozen=True)
class Goal:
    """gort's figure is at most `limit` (times `peer`'s same figure, if there is one)."""

    workload: str
    metric: str
    limit: float
    peer: str | None = None
    than: str | None = None  # another workload, for gort against itself
    ours: str = "gort"

    def __str__(self) -> str:
        what = self.workload if self.metric == "ns" else f"{self.workload} {self.metric}"
        if self.ours != "gort":
            what = f"{self.ours}'s {what}"
        if self.than:
            return f"{what} at most {self.limit:.3g} of {self.than}"
        if self.peer:
            return f"{what} at most {self.limit:.3g} of {self.peer}'s"
        return f"{what} at most {self.limit:,.6g}"

    def came_out(self, median: Median) -> float | None:
        """The ratio (or figure) as measured, None if it was not."""
        ours = median(self.workload, self.metric, self.ours)
        if self.peer is None and self.than is None:
            return ours
        theirs = median(self.than or self.workload, self.metric, self.peer or self.ours)
        return ours / theirs if ours is not None and theirs else None


GOALS = (
    Goal("spawn", "ns", 1.0, "go"),
    Goal("spawn", "ns", 0.1, "asyncio"),
    Goal("unbuffered", "ns", 0.75, "runloom"),
    Goal("buffered", "ns", 0.85, "runloom"),
    Goal("yield_two", "ns", 0.55, "runloom"),
    Goal("yield_two", "ns", 1.0, "go"),
    Goal("select2", "ns", 2.0, "go"),
    Goal("skynet", "ns", 2.0, "go"),
    Goal("sleepers", "cpu", 1.0, "go"),
    Goal("sleepers", "overrun", 1.0, "go"),
    Goal("mutex", "ns", 0.5, "asyncio"),
    *(Goal(f"ctx_{shape}", "cancel", 5.0, "go") for shape in ("tree", "done", "wide", "deep")),
    Goal("ctx_cancel", "ns", 1000.0),
    Goal("ctx_timeout", "ns", 3000.0),
    Goal("flight", "ns", 1000.0),
    Goal("allow", "ns", 1000.0),
    Goal("errgroup", "ns", 1.5, than="spawn"),
    Goal("parked_memory", "resident", 5.2 * 1024),
    Goal("million", "start", 10.0),
    Goal("million", "resident", 6000.0),
    *(
        Goal(f"{case}_p{procs}", "ns", 1.0, "go")
        for case in ("native_pingpong", "native_buffered", "native_spawn")
        for procs in (1, 2)
    ),
    Goal("native_forkjoin_p2", "ns", 1 / 1.7, than="native_forkjoin_p1"),
    # Nothing stalls the others.
    *(
        Goal(f"ticker_{kind}", metric, limit)
        for kind in ("sleep", "zlib", "sqlite_40us", "sqlite_50ms", "getaddrinfo", "file", "mixed")
        for metric, limit in (("p50", 1000.0), ("p99", 5000.0))
    ),
    Goal("hogs1", "p99", 12e3),
    Goal("hogs4", "p99", 25e3),
    Goal("hogs1", "loss", 1 / 0.9),
    Goal("hogs4", "loss", 1 / 0.9),
    *(Goal(f"interrupt_{doing}", "max", 50e3, ours="gort-main") for doing in ("compute", "recv", "call", "zlib")),
    Goal("beside_sleeps", "loss", 1 / 0.7),
    Goal("beside_sqlite", "loss", 1 / 0.5),
    Goal("beside_sqlite", "others", 1 / 0.5),
    Goal("files_sha256", "ns", 1 / 1.7, "asyncio"),
    Goal("files_zlib", "ns", 1 / 1.7, "asyncio"),
    # The network: the server on one core, the load on another.
    *(
        Goal("echo_500", metric, limit, peer, ours=ours)
        for ours in ("gort", "gort-socket")
        for metric, limit, peer in (
            ("ns", 1.0, "uvloop-protocol"),
            ("ns", 1 / 1.35, "uvloop"),
            ("ns", 1 / 1.8, "gevent"),
            ("ns", 1 / 1.8, "runloom-socket"),
            ("p99", 1.0, "go"),
        )
    ),
    Goal("idle_conns", "resident", 8.0 * 1024),
    Goal("http_hello", "ns", 1 / 2.5, "gevent"),
    Goal("http_hello", "ns", 1 / 3, "gunicorn-gevent"),
    Goal("http_flask", "ns", 1.0, "gunicorn-gevent"),
    # What sysmon may cost where nothing blocks.
    *(Goal(core, "ns", 1.02, "gort-nosysmon") for core in ("yield_two", "unbuffered", "buffered", "spawn")),
)
