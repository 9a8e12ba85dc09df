"""What a workload is: one question, and one function per peer that answers it.

A peer's function takes the number of operations `n`, does them, and returns the
seconds they took, as it measured them itself (so that starting an event loop is
not counted), or a dict of metrics where seconds per operation is not the answer.
It runs in a task of the peer's own kind (see `_peers.drive`): never in a main
thread that the peer treats in a special way, unless the variant's name says so.

Peers are written `name` or `name-variant`: `gort-i64` is gort with a typed
channel. The part before the dash says which runtime runs it.
"""

from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, TypeVar

Outcome = float | dict[str, float]
PlainBody = Callable[[int], Outcome]
AsyncBody = Callable[[int], Coroutine[Any, Any, Outcome]]
Body = PlainBody | AsyncBody
B = TypeVar("B", bound=Body)


@dataclass(frozen=True)
class Metric:
    """One number that a workload yields. Less is better for all of them."""

    name: str
    unit: str
    meaning: str


@dataclass
class Workload:
    """A question, its size, and the peers' answers.

    `n` of None: the operations are alike and the child finds out how many fill
    `--target` seconds. Otherwise the size belongs to the question (100,000
    leaves) and is run `repeat` times per process.
    """

    name: str
    question: str
    metrics: tuple[Metric, ...]
    n: int | None = None
    n_quick: int | None = None
    repeat: int | None = None
    step: int = 1  # n is a multiple of this
    procs: int = 1  # cores it needs; of more than one, it may use all
    go: bool = True  # benchmarks/go has a function of this name
    peers: dict[str, Body] = field(default_factory=dict)
    cannot: dict[str, str] = field(default_factory=dict)

    def peer(self, *names: str) -> Callable[[B], B]:
        """Register a function for these peers."""

        def register(body: B) -> B:
            for name in names:
                self.peers[name] = body
            return body

        return register

    def lacks(self, peer: str, reason: str) -> None:
        """Say why a peer has no answer, so that no gap is silent."""
        self.cannot[peer] = reason


def check(got: object, want: object) -> None:
    """Refuse to time work that was not done."""
    if got != want:
        raise RuntimeError(f"wrong result: {got!r} instead of {want!r}")


def per_op(name: str, question: str, op: str, *, step: int = 1) -> Workload:
    """The usual kind: nanoseconds per operation, as many as fill the time."""
    return Workload(name, question, (Metric("ns", f"ns per {op}", question),), step=step)


def load(module: str) -> list[Workload]:
    """The workloads that one file defines."""
    found = vars(import_module(f"benchmarks.workloads.{module}")).values()
    return [w for w in found if isinstance(w, Workload)]


def files() -> Iterator[str]:
    """The names of the workload files, in the order of a reader's interest."""
    package = import_module("benchmarks.workloads")
    order: list[str] = list(package.ORDER)
    present = {m.name for m in iter_modules(package.__path__)}
    yield from (name for name in order if name in present)
    yield from sorted(present.difference(order))


def load_all() -> dict[str, list[Workload]]:
    """Every workload, by file."""
    return {name: load(name) for name in files()}
