"""no_leaks(): no goroutine is left behind. After go.uber.org/goleak."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from gort._core._runtime import Goroutine, _dump, _goroutines, current, gosched, now, sleep

__all__ = ["LeakError", "no_leaks"]

ROUNDS = 1000  # and 100 for each: how often others may run before one that is never done counts as left


class LeakError(AssertionError):
    """Goroutines are left; the text has their stacks, `goroutines` their handles."""

    def __init__(self, message: str, goroutines: list[Goroutine[Any]]) -> None:
        super().__init__(message)
        self.goroutines = goroutines


def ids() -> set[int]:
    """Of all living goroutines."""
    return {h.id for h in _goroutines()}


def left_since(before: Collection[int]) -> list[Goroutine[Any]]:
    """The living goroutines that are not among `before`, nor the caller."""
    me = current()
    return [h for h in _goroutines() if h.id not in before and h is not me]


def settle(before: Collection[int], grace: float = 0.0) -> None:
    """Let those not among `before` run until all that are left wait, and for `grace` seconds more. Parks."""
    for _ in range(ROUNDS + 100 * len(left_since(before))):
        if all(h.state in ("waiting", "syscall") for h in left_since(before)):
            break
        if current() is None:
            sleep(0.001)  # a plain thread has no turn to give away
        else:
            gosched()
    until = now() + grace
    while grace > 0 and left_since(before) and now() < until:
        sleep(min(0.001, grace))


def dumps(goroutines: list[Goroutine[Any]]) -> str:
    """Their stacks in Go's form."""
    return "\n".join(_dump(h) for h in goroutines)


def describe(left: list[Goroutine[Any]]) -> str:
    """How many, and their dumps in Go's form."""
    what = "1 goroutine is" if len(left) == 1 else f"{len(left)} goroutines are"
    return f"{what} left:\n\n{dumps(left)}"


@contextmanager
def no_leaks(*, grace: float = 0.0) -> Iterator[None]:
    """Fail with LeakError if goroutines that were started within the block are alive at its end.

    First all that can run do so until they end or wait, so one that is about to
    end is no leak; `grace` is for how many seconds one may yet sleep or be in a
    blocking call (in a synctest bubble: of its clock). Who started one does not
    matter: other threads and goroutines should start none meanwhile. Those left
    are not killed. An exception of the block comes out, with the leaks as a note
    on it. Native goroutines are not looked at. Usable as a decorator,
    `@no_leaks()`. Parks at the end. TypeError or ValueError for a bad `grace`.
    """
    if not isinstance(grace, int | float):
        raise TypeError(f"grace must be a number of seconds, not {grace!r}")
    if not grace >= 0:
        raise ValueError(f"grace must not be negative, nor NaN: {grace!r}")
    before = ids()
    try:
        yield
    except BaseException as e:
        settle(before, grace)
        if left := left_since(before):
            e.add_note(describe(left))
        raise
    settle(before, grace)
    if left := left_since(before):
        raise LeakError(describe(left), left)
