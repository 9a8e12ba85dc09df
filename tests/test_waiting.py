"""What holds for everything that can wait: kill, timeout, context, deadlock, reasons, threads.

Each test runs over the table `OPERATIONS` of model_support.py.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
from model_support import (
    EVERYWHERE,
    HandMadeContext,
    Operation,
    PlainThread,
    from_goroutine,
    from_main,
    operations,
    park,
    spin_until,
)

import gort

every = pytest.mark.parametrize("op", operations())
releasable = pytest.mark.parametrize("op", operations(releasable=True))
timed = pytest.mark.parametrize("op", operations(timed=True))
hopeless = pytest.mark.parametrize("op", operations(hope=False))
everywhere = pytest.mark.parametrize("where", EVERYWHERE)


# ---- waiting and being released -----------------------------------------------------


@every
def test_a_waiting_goroutine_is_in_state_waiting(op: Operation) -> None:
    wait = op.make()
    g = park(wait.call)
    assert g.state == "waiting"
    assert not g.done
    assert g.wait_reason
    g.kill()
    g.join()
    wait.untouched()


@pytest.mark.parametrize("op", operations(named=True))
def test_wait_reason_is_gos(op: Operation) -> None:
    wait = op.make()
    g = park(wait.call)
    assert g.wait_reason == op.reason
    assert f"goroutine {g.id} [{op.reason}]:\n" in gort.stack(all=True)
    g.kill()
    g.join()
    wait.untouched()


@releasable
def test_the_wait_ends_when_what_it_waits_for_comes(op: Operation) -> None:
    wait = op.make()
    assert wait.release
    g = park(wait.call)
    wait.release()
    g.join()
    assert g.state == "dead"


@releasable
def test_main_waits_until_a_goroutine_releases_it(op: Operation) -> None:
    wait = op.make()
    assert wait.release
    g = gort.go(wait.release)
    wait.call()
    g.join()


@releasable
def test_a_plain_thread_waits_as_a_goroutine_does(op: Operation) -> None:
    wait = op.make()
    assert wait.release
    thread = PlainThread(wait.call)
    # A signal before the thread waits would be lost, as Go's is: release until it is through.
    if op.name == "cond":
        spin_until(lambda: (wait.release(), not thread.is_alive())[1])  # type: ignore[misc]
    else:
        wait.release()
    thread.result()


@releasable
def test_a_plain_thread_releases_main(op: Operation) -> None:
    wait = op.make()
    assert wait.release
    if op.name == "cond":
        g = park(wait.call)
        PlainThread(wait.release).result()
        g.join()
        return
    thread = PlainThread(wait.release)
    wait.call()
    thread.result()


# ---- kill ---------------------------------------------------------------------------


@every
def test_kill_ends_the_wait_and_join_gives_none(op: Operation) -> None:
    wait = op.make()
    g = park(wait.call)
    assert g.kill() is None
    assert g.join() is None
    assert g.done
    wait.untouched()


@every
def test_kill_raises_goroutine_exit_and_runs_finally(op: Operation) -> None:
    wait, log = op.make(), []

    def body() -> None:
        try:
            wait.call()
        except Exception as error:
            log.append(error)
        except gort.GoroutineExit:
            log.append("GoroutineExit")
            raise
        finally:
            log.append("finally")

    g = park(body)
    g.kill()
    assert g.join() is None
    assert log == ["GoroutineExit", "finally"]
    wait.untouched()


@every
def test_a_caught_goroutine_exit_is_over(op: Operation) -> None:
    wait, ch = op.make(), gort.Chan()

    def body() -> Any:
        with pytest.raises(gort.GoroutineExit):
            wait.call()
        gort.gosched()
        return ch.recv()  # a later wait is not disturbed

    g = park(body)
    g.kill()
    ch.send("went on")
    assert g.join() == "went on"
    wait.untouched()


@every
def test_a_killed_goroutine_may_wait_again_for_the_same(op: Operation) -> None:
    wait = op.make()

    def body() -> None:
        with pytest.raises(gort.GoroutineExit):
            wait.call()
        wait.call()

    g = park(body)
    g.kill()
    spin_until(lambda: g.state in ("waiting", "dead"))
    if wait.release:
        wait.release()
    else:
        g.kill()
    g.join()


@every
def test_kill_from_a_plain_thread(op: Operation) -> None:
    wait = op.make()
    g = park(wait.call)
    PlainThread(g.kill).result()
    assert g.join() is None
    wait.untouched()


@every
def test_kill_before_the_start_leaves_the_structure_alone(op: Operation) -> None:
    wait = op.make()
    g = gort.go(wait.call)
    g.kill()
    assert g.join() is None
    wait.untouched()


# ---- timeouts -------------------------------------------------------------------------


@timed
@everywhere
def test_a_timeout_raises_timeout_error_after_its_time(op: Operation, where: Any) -> None:
    wait = op.make()

    def body() -> int:
        start = time.monotonic_ns()
        with pytest.raises(TimeoutError):
            wait.call(timeout=0.02)
        return time.monotonic_ns() - start

    assert where(body) >= 20_000_000
    wait.untouched()


@timed
@everywhere
@pytest.mark.parametrize("timeout", [0, 0.0, -1, -0.25])
def test_a_timeout_of_nothing_or_less_raises_at_once(op: Operation, where: Any, timeout: float) -> None:
    wait = op.make()

    def body() -> None:
        with pytest.raises(TimeoutError):
            wait.call(timeout=timeout)

    where(body)
    wait.untouched()


@timed
def test_a_long_timeout_is_no_hindrance(op: Operation) -> None:
    wait = op.make()
    g = park(lambda: wait.call(timeout=3600))
    if wait.release:
        wait.release()
    else:
        g.kill()
    g.join()


@timed
def test_timeout_none_waits_for_ever(op: Operation) -> None:
    wait = op.make()
    g = park(lambda: wait.call(timeout=None, ctx=None))
    g.kill()
    g.join()
    wait.untouched()


@timed
def test_kill_ends_a_wait_with_a_timeout(op: Operation) -> None:
    wait = op.make()
    g = park(lambda: wait.call(timeout=3600))
    g.kill()
    assert g.join() is None
    wait.untouched()


@timed
@pytest.mark.parametrize("timeout", ["1", [], 1j])
def test_a_timeout_that_is_no_number_raises_type_error_at_once(op: Operation, timeout: Any) -> None:
    wait = op.make()
    with pytest.raises(TypeError):
        wait.call(timeout=timeout)
    wait.untouched()


# ---- contexts ---------------------------------------------------------------------------


class Ended(Exception):
    """The end of a hand-made context."""


@timed
@everywhere
def test_the_end_of_the_context_ends_the_wait_with_its_error(op: Operation, where: Any) -> None:
    wait, ctx, error = op.make(), HandMadeContext(), Ended()

    def body() -> BaseException:
        with pytest.raises(Ended) as caught:
            wait.call(ctx=ctx)
        return caught.value

    ender = gort.go(ctx.end, error)
    assert where(body) is error
    ender.join()
    wait.untouched()


@timed
def test_a_waiting_goroutine_is_ended_by_its_context(op: Operation) -> None:
    wait, ctx = op.make(), HandMadeContext()
    g = park(lambda: wait.call(ctx=ctx))
    ctx.end(Ended())
    with pytest.raises(Ended):
        g.join()
    wait.untouched()


@timed
def test_a_context_that_has_ended_ends_the_wait_at_once(op: Operation) -> None:
    wait, ctx = op.make(), HandMadeContext()
    ctx.end(Ended())
    with pytest.raises(Ended):
        wait.call(ctx=ctx)
    wait.untouched()


@timed
def test_the_timeout_comes_before_a_living_context(op: Operation) -> None:
    wait, ctx = op.make(), HandMadeContext()
    with pytest.raises(TimeoutError):
        wait.call(timeout=0.01, ctx=ctx)
    wait.untouched()


@timed
def test_a_context_with_the_nil_channel_never_ends(op: Operation) -> None:
    wait, ctx = op.make(), HandMadeContext()
    ctx._done = gort.NIL
    g = park(lambda: wait.call(ctx=ctx))
    g.kill()
    g.join()
    wait.untouched()


@timed
def test_what_is_no_context_raises_type_error_at_once(op: Operation) -> None:
    wait = op.make()
    with pytest.raises(TypeError):
        wait.call(ctx=5)
    wait.untouched()


@pytest.mark.parametrize("op", operations(timed=True, releasable=True))
def test_what_is_waited_for_comes_before_the_context_ends(op: Operation) -> None:
    wait, ctx = op.make(), HandMadeContext()
    assert wait.release
    g = park(lambda: wait.call(ctx=ctx))
    wait.release()
    g.join()
    ctx.end(Ended())  # nobody is left to hear of it


# ---- deadlock -----------------------------------------------------------------------------


@hopeless
def test_main_waiting_alone_raises_deadlock(op: Operation) -> None:
    wait = op.make()
    with pytest.raises(gort.Deadlock) as caught:
        wait.call()
    assert "goroutine 1 [" in str(caught.value)
    wait.untouched()


@hopeless
def test_main_waiting_beside_a_hopeless_goroutine_raises_deadlock(op: Operation) -> None:
    wait, other = op.make(), op.make()
    g = park(other.call)
    with pytest.raises(gort.Deadlock) as caught:
        wait.call()
    assert "goroutine 1 [" in str(caught.value)
    assert f"goroutine {g.id} [{g.wait_reason}]:" in str(caught.value)
    wait.untouched()
    g.kill()
    assert g.join() is None
    other.untouched()


@pytest.mark.parametrize("op", operations(timed=True, hope=False))
@pytest.mark.parametrize("where", [from_main, from_goroutine])
def test_a_timeout_is_hope(op: Operation, where: Any) -> None:
    wait = op.make()

    def body() -> None:
        with pytest.raises(TimeoutError):
            wait.call(timeout=0.001)

    where(body)
    wait.untouched()
