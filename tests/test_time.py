"""gort.time: Go 1.23's channel timers, tickers, after_func and now."""

from __future__ import annotations

import time
from typing import Any

import pytest
from model_support import EVERYWHERE, nobody_sends, park, settle, spin_until

import gort
from gort.time import Ticker, Timer, after, after_func, now, tick

everywhere = pytest.mark.parametrize("where", EVERYWHERE)


def test_now_is_monotonic_seconds() -> None:
    before = time.monotonic()
    value = now()
    after_it = time.monotonic()
    assert isinstance(value, float)
    assert before - 1e-6 <= value <= after_it + 1e-6
    assert now() <= now()


# ---- after and Timer ------------------------------------------------------------------


@everywhere
def test_after_carries_the_firing_time_on_the_scale_of_now(where: Any) -> None:
    start = now()
    fired = where(lambda: after(0.03).recv())
    assert start + 0.03 <= fired <= now()


@pytest.mark.parametrize("d", [0, -1, -0.5])
def test_a_timer_of_nothing_or_less_is_due_at_once(d: float) -> None:
    before = now()
    assert before <= after(d).recv() <= now()
    assert before <= Timer(d).c.recv() <= now()


def test_a_timer_fires_once() -> None:
    t = Timer(0.001)
    t.c.recv()
    with pytest.raises(TimeoutError):
        t.c.recv(timeout=0.01)


def test_a_timer_channel_looks_unbuffered() -> None:
    """Go 1.23: len and cap of a timer's channel are 0, also when it is due."""
    t = Timer(0.001)
    assert (len(t.c), t.c.cap) == (0, 0)
    gort.sleep(0.002)
    assert (len(t.c), t.c.cap) == (0, 0)
    assert t.c.recv() is not None


def test_a_due_timer_can_be_received_without_waiting() -> None:
    t = Timer(0.001)
    gort.sleep(0.002)
    assert t.c.recv_nowait() <= now()
    nobody_sends(t.c)


def test_a_timer_that_is_not_due_is_not_ready() -> None:
    t = Timer(3600)
    nobody_sends(t.c)
    assert gort.select(t.c, default=True) == (-1, None, False)
    assert t.stop() is True


def test_timers_in_a_select() -> None:
    slow, fast = Timer(3600), Timer(0.01)
    index, fired, ok = gort.select(slow.c, fast.c, gort.Chan())
    assert (index, ok) == (1, True)
    assert fired <= now()
    assert slow.stop() is True
    assert fast.stop() is False


def test_stop_tells_whether_the_timer_was_pending() -> None:
    t = Timer(3600)
    assert t.stop() is True
    assert t.stop() is False
    fired = Timer(0)
    fired.c.recv()
    assert fired.stop() is False


def test_after_stop_nothing_is_received_though_it_was_due() -> None:
    t = Timer(0.001)
    gort.sleep(0.002)
    assert t.stop() is True, "due, but not yet received: still pending"
    nobody_sends(t.c)
    assert t.stop() is False


def test_reset_tells_whether_the_timer_was_pending() -> None:
    t = Timer(3600)
    assert t.reset(3600) is True
    assert t.stop() is True
    assert t.reset(0.001) is False
    t.c.recv()
    assert t.reset(3600) is False
    assert t.stop() is True


def test_after_reset_no_stale_value_is_received() -> None:
    t = Timer(0.001)
    gort.sleep(0.002)
    start = now()
    assert t.reset(0.02) is True, "due, but not yet received: still pending"
    assert t.c.recv() >= start + 0.02
    nobody_sends(t.c)


def test_reset_to_a_nearer_time_wakes_who_waits() -> None:
    t = Timer(3600)
    g = park(t.c.recv)
    assert t.reset(0.001) is True
    assert g.join() <= now()


def test_stop_leaves_who_waits_waiting() -> None:
    t = Timer(0.05)
    g = gort.go(t.c.recv)
    settle(g)
    if t.stop():
        gort.sleep(0.06)
        settle(g)
        assert g.state == "waiting"
        assert t.reset(0) is False
    g.join()


def test_a_stopped_timer_can_be_started_again() -> None:
    t = Timer(3600)
    for _ in range(5):
        t.stop()
        t.reset(0.001)
        t.c.recv()


def test_one_value_for_many_receivers() -> None:
    t = Timer(0.005)
    gs = [park(t.c.recv) for _ in range(3)]
    spin_until(lambda: any(g.done for g in gs))
    settle(*gs)
    assert sorted(g.state for g in gs) == ["dead", "waiting", "waiting"]
    for g in gs:
        g.kill()
        g.join()


def test_no_timer_fires_before_its_time() -> None:
    delays, start = (0.03, 0.01, 0.02), now()
    cases = [Timer(d).c for d in delays]
    seen = set()
    for _ in delays:
        i, fired, ok = gort.select(*cases)
        assert ok
        assert fired >= start + delays[i]
        seen.add(i)
    assert seen == {0, 1, 2}


def test_thousands_of_timers() -> None:
    start = now()
    timers = [Timer(0.001 * (i % 50)) for i in range(5000)]
    for i, t in enumerate(timers):
        if i % 3 == 0:
            t.stop()
    for i, t in enumerate(timers):
        if i % 3:
            assert t.c.recv() >= start + 0.001 * (i % 50)
        else:
            nobody_sends(t.c)


def test_a_timer_of_which_only_the_channel_is_kept_fires() -> None:
    assert Timer(0.005).c.recv() <= now()


def test_a_timeout_by_select_and_after() -> None:
    never = gort.Chan()
    assert gort.select(never, after(0.01))[0] == 1


@pytest.mark.parametrize("value", ["1", None, [], 1j])
@pytest.mark.parametrize("make", [after, tick, Timer, Ticker, lambda d: after_func(d, print)])
def test_a_duration_that_is_no_number_raises_type_error(make: Any, value: Any) -> None:
    with pytest.raises(TypeError):
        make(value)


@pytest.mark.parametrize("make", [after, tick, Timer, Ticker, lambda d: after_func(d, print)])
def test_a_duration_of_nan_raises_value_error(make: Any) -> None:
    with pytest.raises(ValueError):
        make(float("nan"))


def test_reset_of_no_number_changes_nothing() -> None:
    t = Timer(3600)
    with pytest.raises(TypeError):
        t.reset("1")  # type: ignore[arg-type]
    assert t.stop() is True


# ---- Ticker and tick ---------------------------------------------------------------------


def test_a_ticker_ticks_at_its_interval() -> None:
    start = now()
    t = Ticker(0.01)
    ticks = [t.c.recv() for _ in range(4)]
    t.stop()
    assert ticks == sorted(ticks)
    for i, at in enumerate(ticks, 1):
        assert at >= start + 0.01 * i - 1e-6


def test_a_ticker_drops_ticks_for_a_slow_receiver() -> None:
    t = Ticker(0.05)
    gort.sleep(0.4)
    start = now()
    # At most one was kept and one is due now; the third is still to come, the fourth 0.05 s after it.
    for _ in range(4):
        t.c.recv()
    assert now() >= start + 0.05
    t.stop()
    nobody_sends(t.c)


def test_a_stopped_ticker_ticks_no_more() -> None:
    t = Ticker(0.001)
    t.c.recv()
    gort.sleep(0.003)
    t.stop()
    nobody_sends(t.c)
    gort.sleep(0.003)
    nobody_sends(t.c)


def test_stop_does_not_close_a_tickers_channel() -> None:
    t = Ticker(0.001)
    t.stop()
    assert t.c.closed is False


def test_reset_changes_the_interval_and_starts_it_again() -> None:
    t = Ticker(3600)
    t.reset(0.005)
    start = now()
    t.c.recv()
    t.stop()
    start = now()
    t.reset(0.02)
    assert t.c.recv() >= start + 0.02
    t.stop()


def test_a_ticker_channel_looks_unbuffered() -> None:
    t = Ticker(0.001)
    gort.sleep(0.003)
    assert (len(t.c), t.c.cap) == (0, 0)
    t.stop()


@pytest.mark.parametrize("d", [0, -1, 0.0, -0.001])
def test_a_ticker_of_nothing_or_less_raises_value_error(d: float) -> None:
    with pytest.raises(ValueError):
        Ticker(d)
    t = Ticker(3600)
    with pytest.raises(ValueError):
        t.reset(d)
    t.stop()


@pytest.mark.parametrize("d", [0, -1, 0.0, -0.001])
def test_tick_of_nothing_or_less_is_nil(d: float) -> None:
    assert tick(d) is gort.NIL


def test_tick_ticks() -> None:
    start = now()
    c = tick(0.005)
    assert c.recv() >= start + 0.005
    c.recv()


def test_tickers_that_nobody_keeps_go_away() -> None:
    for _ in range(1000):
        tick(0.001)
    assert tick(0.001).recv() <= now()


# ---- after_func -----------------------------------------------------------------------------


def test_after_func_runs_it_in_a_goroutine_of_its_own() -> None:
    out = gort.Chan(1)
    start = now()
    after_func(0.02, lambda a, b: out.send((a, b, now(), gort.current().id)), 1, 2)
    a, b, at, goroutine = out.recv()
    assert (a, b) == (1, 2)
    assert at >= start + 0.02
    assert goroutine != 1


def test_after_func_stopped_in_time_does_not_run() -> None:
    ran: list[int] = []
    t = after_func(0.05, ran.append, 1)
    stopped = t.stop()
    assert t.stop() is False
    gort.sleep(0.06)
    assert ran == ([] if stopped else [1])
    assert after_func(3600, ran.append, 2).stop() is True


def test_after_func_that_ran_is_not_pending() -> None:
    out = gort.Chan(1)
    t = after_func(0, out.send, 1)
    out.recv()
    assert t.stop() is False


def test_after_func_reset_runs_it_again() -> None:
    out = gort.Chan(2)
    t = after_func(0.001, out.send, "ran")
    assert out.recv() == "ran"
    assert t.reset(0.001) is False
    assert out.recv() == "ran"


def test_after_func_reset_before_it_ran_moves_it() -> None:
    out = gort.Chan(1)
    t = after_func(3600, lambda: out.send(now()))
    start = now()
    assert t.reset(0.01) is True
    assert out.recv() >= start + 0.01


def test_a_failing_after_func_goes_to_the_excepthook(panics: list[Any]) -> None:
    after_func(0.001, divmod, 1, 0)
    gort.sleep(0.002)
    spin_until(lambda: panics)
    assert isinstance(panics[0][1], ZeroDivisionError)


def test_after_func_runs_though_its_timer_is_gone() -> None:
    out = gort.Chan(1)
    after_func(0.005, out.send, "ran")
    assert out.recv() == "ran"


@pytest.mark.parametrize("value", [5, None, "fn"])
def test_after_func_of_a_non_callable_raises_type_error(value: Any) -> None:
    with pytest.raises(TypeError):
        after_func(0.001, value)


def test_after_func_callbacks_may_wait_without_holding_up_other_timers() -> None:
    gate, out = gort.Chan(), gort.Chan(1)
    after_func(0.001, gate.recv)
    after_func(0.002, out.send, "on time")
    assert out.recv() == "on time"
    gate.send(None)


def test_zero_delay_after_func_storm() -> None:
    out = gort.Chan(1000)
    for i in range(1000):
        after_func(0, out.send, i)
    assert sorted(out.recv() for _ in range(1000)) == list(range(1000))
