"""Tests in a bubble with a clock of its own. Source: Go's testing/synctest and runtime/synctest.go.

Goroutines started in a bubble belong to it. Its clock (`gort.time.now()`, sleeps,
timers, timeouts, deadlines) begins at 0 and stands still while one of them runs;
when all of them are durably blocked it jumps to the next timer. So an hour of
timeouts takes as long as the code that they run, and a test of them is exact.

Durably blocked means waiting for what only the bubble's own goroutines or its clock
can bring about: in `sleep`, `Cond.wait`, `join` of one of them, `select` without a
case, and on channels, locks, semaphores and WaitGroups that were made in the bubble.
Goroutines in a blocking call, or waiting for something from outside, are not, and
the clock waits for them. (Go's locks never count; those made in a bubble are its
own here, so that a lock held across a sleep does not stop the clock.)
"""

from collections.abc import Callable
from typing import TypeVar

from gort._core._runtime import Bubble, Deadlock, bubble_wait_others

__all__ = ["run", "wait"]

T = TypeVar("T")


def run(fn: Callable[[], T], /) -> T:
    """Call `fn()` in a new bubble, and return its result when all of the bubble's goroutines have ended.

    Raises what `fn` raises, having ended the others by GoroutineExit. Raises
    Deadlock, with their stacks, if they wait for each other with no timer left,
    or if some still wait when `fn` has returned: the clock stops then, as in Go.
    RuntimeError within a bubble, TypeError if `fn` is not callable. Channels and
    timers of the bubble cannot be used from outside of it, also not afterwards:
    RuntimeError. From any thread. Parks.
    """
    if not callable(fn):
        raise TypeError(f"run() needs a callable, not {fn!r}")
    if Bubble.inside():
        raise RuntimeError("synctest.run() was called within a bubble")
    bubble = Bubble(fake=True)
    main = bubble.go(fn)
    try:
        # When fn has raised, those it left behind are not the news.
        if not bubble.drive(main) and not (main.done and main._failed):
            what = (
                "main bubble goroutine has exited but blocked goroutines remain"
                if main.done
                else "all goroutines in bubble are blocked"
            )
            raise Deadlock(f"deadlock: {what}\n\n{bubble.dump()}")
    finally:
        bubble.unwind(main)
    return main.join()


def wait() -> None:
    """Wait until all other goroutines of the bubble are durably blocked. Parks.

    RuntimeError outside of a bubble, and while another of its goroutines does so.
    """
    bubble_wait_others()
