"""The workloads of the native domain: C against gort.h beside the same in Go.

Each is run on one P pinned to one core, and on two Ps on all cores.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Native:
    """A C program's case, and Go's workload of the same name, on some Ps."""

    case: str  # of native/PROGRAM.c, and of go/
    program: str
    procs: int
    question: str
    op: str

    @property
    def name(self) -> str:
        """As it is asked for and printed."""
        return f"{self.case}_p{self.procs}"


_CASES = (
    ("native_pingpong", "pingpong", "round trip over unbuffered channels", "round trip"),
    ("native_buffered", "buffered", "send and receive through capacity 128", "item"),
    ("native_spawn", "spawn", "start 1,000, then wait for all", "goroutine"),
    ("native_contended", "contended", "4 producers, 4 consumers, unbuffered", "item"),
    ("native_contended128", "contended", "4 producers, 4 consumers, capacity 128", "item"),
    ("native_forkjoin", "forkjoin", "a tree of work, balanced by stealing", "leaf of 4 us"),
)

NATIVE = tuple(
    Native(case, program, procs, f"{question}, {procs} P", op)
    for case, program, question, op in _CASES
    for procs in (1, 2)
)
