"""explore(): run a concurrent function under many schedules; replay the one that fails.

A schedule is the sequence of answers to one question: which goroutine goes on now?
It is asked wherever a goroutine parks, yields or ends, and before every operation of
gort's that others could notice (channels, locks, atomics, go, ...). The answers are
drawn from a seeded sequence, so the seed is the schedule.

Sources: random walk and PCT as in Burckhardt, Kothari, Musuvathi, Nagarakatte, "A
Randomized Scheduler with Probabilistic Guarantees of Finding Bugs" (ASPLOS 2010);
Microsoft's CHESS and Coyote, and Rust's shuttle, are tools of the kind.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from gort._core._runtime import Bubble, Deadlock, Goroutine

Strategy = Literal["mixed", "random", "priority"]

DEPTH = 4  # a schedule by priorities changes them at most this often
SHOWN = 40  # steps of the trace in an error's text


class Step(NamedTuple):
    """What a goroutine was about to do when it was asked who goes on."""

    goroutine: int  # numbered from 0, the function itself, in the order of their first step
    name: str
    operation: str
    file: str
    line: int


@dataclass(frozen=True)
class Failure:
    """A run that failed."""

    schedule: str  # what `replay()` takes
    run: int  # the how many-th it was, from 1
    error: BaseException
    goroutine: str  # in which it was raised, or "" for a deadlock
    exact: bool  # whether the replay failed in the same way
    trace: list[Step] = field(repr=False)


class ExploreError(AssertionError):
    """A schedule was found that makes the function fail; its cause is the error."""

    def __init__(self, failure: Failure, runs: int) -> None:
        self.failure = failure
        where = f" in goroutine {failure.goroutine}" if failure.goroutine else ""
        error = f"{type(failure.error).__name__}: {failure.error}".rstrip(": ").partition("\n")[0]
        lines = [
            f"run {failure.run} of {runs} failed{where}: {error}",
            f'replay it with gort.testing.replay(fn, "{failure.schedule}")',
        ]
        if not failure.exact:
            lines.append(
                "The replay went another way: the function depends on more than the schedule "
                "(real time, random numbers, other threads, state kept between runs)."
            )
        shown = failure.trace[-SHOWN:]
        if shown:
            lines.append(f"the last {len(shown)} of {len(failure.trace)} steps:")
        for s in shown:
            where = f"{Path(s.file).name}:{s.line}" if s.file else "(no Python code)"
            lines.append(f"  {s.goroutine:>3} {s.name:<24} {s.operation:<22} {where}")
        super().__init__("\n".join(lines))


class _Run(NamedTuple):
    error: BaseException | None
    goroutine: str
    steps: int
    trace: list[Step]


def explore(
    fn: Callable[[], object],
    /,
    *,
    runs: int = 1000,
    seed: int | None = None,
    strategy: Strategy = "mixed",
    max_steps: int = 20_000,
) -> None:
    """Call `fn()` `runs` times, each under another schedule; raise ExploreError at the first that fails.

    A run fails if `fn` or one of the goroutines that it starts ends in an
    exception nobody saw, if they wait for each other for ever, if some still
    wait when `fn` has returned, or if there is no end in sight after
    `max_steps` steps. It happens in a bubble as `synctest.run()` makes it, so
    sleeps and timeouts take no time. `fn` must begin anew each time, and depend
    on nothing but the schedule; it is the schedules of goroutines that are
    explored, not of plain threads.

    `seed` (an int; a random one by default) makes the whole exploration the
    same again. `strategy`: "random" draws each choice, "priority" (PCT) lets
    the goroutine of the highest priority run and changes priorities at few
    points, which finds bugs that need a long time in one goroutine; "mixed"
    does both in turn. Raises TypeError or ValueError for bad arguments,
    RuntimeError within a bubble. Parks.
    """
    _check(fn, max_steps)
    if not isinstance(runs, int) or isinstance(runs, bool):
        raise TypeError(f"runs must be an int, not {runs!r}")
    if runs < 1:
        raise ValueError(f"runs must be positive, not {runs!r}")
    if strategy not in ("mixed", "random", "priority"):
        raise ValueError(f'strategy must be "mixed", "random" or "priority", not {strategy!r}')
    if seed is not None and not isinstance(seed, int):
        raise TypeError(f"seed must be an int or None, not {seed!r}")
    draw = random.Random(seed)
    longest = 1
    for run in range(1, runs + 1):
        by_priority = strategy == "priority" or (strategy == "mixed" and run % 2 == 0)
        bits = draw.getrandbits(64)
        changes = sorted(draw.randint(1, longest) for _ in range(draw.randrange(DEPTH + 1))) if by_priority else None
        result = _once(fn, bits, changes, max_steps)
        longest = max(longest, min(result.steps, max_steps))
        if result.error is not None:
            again = _once(fn, bits, changes, max_steps, trace=True)
            exact = type(again.error) is type(result.error) and again.steps == result.steps
            failure = Failure(_encode(bits, changes), run, result.error, result.goroutine, exact, again.trace)
            raise ExploreError(failure, runs) from result.error


def replay(fn: Callable[[], object], schedule: str, /, *, max_steps: int = 20_000) -> None:
    """Call `fn()` once, under the schedule that an ExploreError named; raise what failed there. Parks.

    The error itself is raised, so that a debugger or a test sees it. Returns if
    nothing fails. ValueError for a text that is no schedule.
    """
    _check(fn, max_steps)
    bits, changes = _decode(schedule)
    result = _once(fn, bits, changes, max_steps)
    if result.error is not None:
        raise result.error


def _check(fn: Callable[[], object], max_steps: int) -> None:
    if not callable(fn):
        raise TypeError(f"explore() and replay() need a callable, not {fn!r}")
    if not isinstance(max_steps, int) or isinstance(max_steps, bool):
        raise TypeError(f"max_steps must be an int, not {max_steps!r}")
    if max_steps < 1:
        raise ValueError(f"max_steps must be positive, not {max_steps!r}")
    if Bubble.inside():
        raise RuntimeError("explore() and replay() cannot be called within a bubble")


def _once(fn: Callable[[], object], bits: int, changes: list[int] | None, max_steps: int, trace: bool = False) -> _Run:
    bubble = Bubble(fake=True, seed=bits, changes=changes, limit=max_steps, catch=True, trace=trace)
    main = bubble.go(fn)
    error: BaseException | None = None
    name = ""
    try:
        over = bubble.drive(main)
        steps, taken = bubble.steps, _steps(bubble.trace or [])
        failed = bubble.unseen()
        if failed:
            error, name = failed[0][1], _label(failed[0][0])
        elif bubble.overrun:
            error = TimeoutError(f"no end in sight after {max_steps} steps\n\n{bubble.dump()}")
        elif not over:
            what = "fn has returned but blocked goroutines remain" if main.done else "all goroutines are asleep"
            error = Deadlock(f"{what}\n\n{bubble.dump()}")
    finally:
        bubble.unwind(main)
    bubble.unseen()  # what the unwinding brought up is not the schedule's
    return _Run(error, name, steps, taken)


def _label(g: Goroutine[object]) -> str:
    return f"{g.id} ({g.name})"


def _steps(notes: list[tuple[Goroutine[object], str, str, int]]) -> list[Step]:
    number: dict[int, int] = {}
    return [Step(number.setdefault(g.id, len(number)), g.name, op, file, line) for g, op, file, line in notes]


def _encode(bits: int, changes: list[int] | None) -> str:
    return f"{bits:016x}" + ("" if changes is None else "/" + ",".join(map(str, changes)))


def _decode(schedule: str) -> tuple[int, list[int] | None]:
    if not isinstance(schedule, str):
        raise TypeError(f"schedule must be a str, not {schedule!r}")
    bits, slash, changes = schedule.partition("/")
    try:
        if len(bits) != 16:
            raise ValueError
        return int(bits, 16), [int(c) for c in changes.split(",") if c] if slash else None
    except ValueError:
        raise ValueError(f"schedule must be one that an ExploreError named, not {schedule!r}") from None
