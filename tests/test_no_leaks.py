"""gort.testing.no_leaks: goroutines that outlive a block."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from model_support import output_of

import gort
from gort.testing import LeakError, no_leaks, synctest


@pytest.fixture
def gate() -> Iterator[gort.Chan[None]]:
    """A channel for goroutines to wait on; those that do end with the test."""
    ch = gort.Chan[None]()
    yield ch
    ch.close()


def waiter(ch: gort.Chan[None]) -> None:
    ch.recv_ok()


def test_nothing_started_nothing_left() -> None:
    with no_leaks():
        pass


def test_joined_goroutines_are_no_leak() -> None:
    with no_leaks():
        assert gort.go(int, "7").join() == 7


def test_leak_is_reported_with_its_stack(gate: gort.Chan[None]) -> None:
    with pytest.raises(LeakError) as caught, no_leaks():
        g = gort.go(waiter, gate)
    text = str(caught.value)
    assert text.startswith("1 goroutine is left:\n\n")
    assert f"goroutine {g.id} [chan receive]:\nwaiter(...)\n\t{__file__}:" in text
    assert caught.value.goroutines == [g]
    assert isinstance(caught.value, AssertionError)


def test_each_leak_is_reported(gate: gort.Chan[None]) -> None:
    with pytest.raises(LeakError, match=r"^3 goroutines are left") as caught, no_leaks():
        gs = [gort.go(waiter, gate) for _ in range(3)]
    assert caught.value.goroutines == gs


def test_not_yet_started_goroutines_get_their_chance() -> None:
    program = """
        import gort
        from gort.testing import no_leaks

        ran = []
        with no_leaks():
            for i in range(100):
                gort.go(ran.append, i)
            assert not ran
        assert sorted(ran) == list(range(100))
    """
    # A turn of 100 s: who starts them is not preempted meanwhile.
    assert output_of(program, GORT_DEBUG="turn=100000000") == ""


def test_those_on_their_way_out_get_their_chance(gate: gort.Chan[None]) -> None:
    steps = []

    def slow() -> None:
        for i in range(50):
            gort.gosched()
            steps.append(i)

    def starts_another() -> None:
        gort.gosched()
        gort.go(slow)

    with no_leaks():
        gort.go(starts_another)
    assert len(steps) == 50


def test_one_that_is_never_done_is_a_leak() -> None:
    stop = gort.atomic.Bool(False)

    def spin() -> None:
        while not stop.load():
            gort.gosched()

    with pytest.raises(LeakError, match="1 goroutine is left"), no_leaks():
        g = gort.go(spin)
    stop.store(True)
    g.join()


def test_goroutines_from_before_do_not_count(gate: gort.Chan[None]) -> None:
    g = gort.go(waiter, gate)
    with no_leaks():
        pass
    assert not g.done


def test_ones_from_before_may_end_within(gate: gort.Chan[None]) -> None:
    gort.go(waiter, gate)
    with no_leaks():
        gate.send(None)


def test_who_started_it_does_not_matter(gate: gort.Chan[None]) -> None:
    with pytest.raises(LeakError), no_leaks():
        t = threading.Thread(target=gort.go, args=(waiter, gate))
        t.start()
        t.join()


def test_exception_of_the_block_comes_out_with_a_note(gate: gort.Chan[None]) -> None:
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught, no_leaks():
        gort.go(waiter, gate)
        raise error
    assert caught.value is error
    (note,) = error.__notes__
    assert note.startswith("1 goroutine is left:\n\n") and "waiter(...)" in note


def test_exception_without_a_leak_has_no_note() -> None:
    error = KeyError("mine")
    with pytest.raises(KeyError), no_leaks():
        raise error
    assert not hasattr(error, "__notes__")


def test_as_a_decorator_anew_at_each_call(gate: gort.Chan[None]) -> None:
    @no_leaks()
    def call(fn: Callable[..., Any], *args: Any) -> Any:
        """Mine."""
        gort.go(fn, *args)
        return 5

    assert call.__doc__ == "Mine."
    assert call(int) == 5
    for _ in range(2):
        with pytest.raises(LeakError, match="1 goroutine"):
            call(waiter, gate)
    assert call(int) == 5


def test_within_a_goroutine(gate: gort.Chan[None]) -> None:
    def body() -> None:
        with no_leaks():
            gort.go(int)
        with pytest.raises(LeakError), no_leaks():
            gort.go(waiter, gate)

    gort.go(body).join()


def test_within_a_plain_thread(gate: gort.Chan[None]) -> None:
    caught: list[BaseException] = []

    def body() -> None:
        try:
            with no_leaks():
                gort.go(int)
            with no_leaks():
                gort.go(waiter, gate)
        except LeakError as e:
            caught.append(e)

    t = threading.Thread(target=body)
    t.start()
    gort.blocking(t.join)
    (error,) = caught
    assert "waiter(...)" in str(error)


def test_grace_waits_for_those_that_sleep() -> None:
    def body() -> None:
        with pytest.raises(LeakError, match=r"\[sleep\]"), no_leaks():
            gort.go(gort.sleep, 1.0)
        with no_leaks(grace=2.0):
            gort.go(gort.sleep, 1.5)
        assert gort.time.now() == pytest.approx(1.5, abs=0.01)
        with pytest.raises(LeakError, match=r"\[sleep\]"), no_leaks(grace=1):
            g = gort.go(gort.sleep, 3.0)
        g.join()

    synctest.run(body)


def test_grace_waits_for_a_blocking_call() -> None:
    entered, leave = threading.Event(), threading.Event()

    def body() -> None:
        entered.set()
        leave.wait()

    with pytest.raises(LeakError, match=r"\[syscall\]"), no_leaks():
        g = gort.go(gort.blocking, body)
        gort.blocking(entered.wait)
    with no_leaks(grace=30.0):
        h = gort.go(gort.blocking, leave.wait)
        gort.go(leave.set)
    g.join()
    h.join()


def test_nested_blocks(gate: gort.Chan[None]) -> None:
    with no_leaks():
        g = gort.go(waiter, gate)
        with no_leaks():
            gort.go(int)
        gate.send(None)
    assert g.done


@pytest.mark.parametrize(("grace", "error"), [("1", TypeError), (None, TypeError), (-1, ValueError)])
def test_bad_grace(grace: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="grace"), no_leaks(grace=grace):
        pass
