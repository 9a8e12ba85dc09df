"""What Go's own tests of package time check of timers and tickers, for gort.time.

Each test names the Go test it stands for; what test_time.py covers in full is not
repeated. Order and counts, and "not before its time"; how late something comes is
the benchmarks' business. Not here: TestIssue5745 (a nil *Timer), TestManualTicker
and TestTickerStopWithDirectInitialization (a Ticker made by hand).
"""

from __future__ import annotations

import gc
import random
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from model_stress import join_all, scaled
from model_support import PlainThread, nobody_sends, output_of, park, settle, spin_until

import gort
from gort.atomic import Bool, Int64
from gort.sync import WaitGroup
from gort.time import Ticker, Timer, after, after_func, now, tick

NEVER = 3600.0


class FuncTimer:
    """Go's newTimerFunc: a timer's channel fed by an after_func timer."""

    def __init__(self, d: float) -> None:
        self.c: gort.Chan[float] = gort.Chan(1)
        self.t = after_func(d, self.fire)

    def fire(self) -> None:
        self.c.send(now())

    def stop(self) -> bool:
        return self.t.stop()

    def reset(self, d: float) -> bool:
        return self.t.reset(d)


KINDS = [pytest.param(Timer, id="chan"), pytest.param(FuncTimer, id="func")]
kinds = pytest.mark.parametrize("new", KINDS)
STARTS = [pytest.param(gort.go, id="goroutines"), pytest.param(PlainThread, id="threads")]
starts = pytest.mark.parametrize("start", STARTS)


def busy(seconds: float) -> None:
    """Compute, without a call of gort."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


@pytest.fixture
def collector() -> Iterator[None]:
    """Go's tests run the collector beside the timers."""
    stop = Bool()

    def collect() -> None:
        while not stop.load():
            gc.collect(0)
            gort.sleep(1e-9)

    g = gort.go(collect)
    yield
    stop.store(True)
    g.join()


# ---- sleep_test.go: sleep ----------------------------------------------------------------


def test_a_sleep_is_not_cut_short_by_what_happens_meanwhile() -> None:
    """TestSleep: there it is a signal."""
    stop = Bool()

    def bustle() -> None:
        while not stop.load():
            gort.sleep(0.0005)

    g = gort.go(bustle)
    start = now()
    gort.sleep(0.02)
    assert now() - start >= 0.02
    stop.store(True)
    g.join()


def test_sleep_of_nothing_a_hundred_times() -> None:
    """TestSleepZeroDeadlock."""
    g = gort.go(lambda: [gc.collect(0) for _ in range(100)])
    for _ in range(100):
        gort.sleep(0)
        tmp = gort.Chan[bool](1)
        tmp.send(True)
        tmp.recv()
    g.join()


def test_huge_and_negative_durations() -> None:
    """TestOverflowSleep: the one does not overflow to a short time, the other is none."""
    for big in (float(2**63), 1e300, float("inf"), 2**63 - 1, 10**400):
        g = park(gort.sleep, big)
        assert gort.select(after(big), after(0.002))[0] == 1
        assert g.state == "waiting"
        g.kill()
        g.join()
    for neg in (-float(2**63), -1e300, float("-inf"), -(10**400)):
        gort.sleep(neg)
        assert gort.select(after(neg), after(NEVER))[0] == 0


def test_a_period_that_would_overflow_does_not() -> None:
    """TestOverflowPeriodRuntimeTimer: nor does it keep other timers from firing."""
    for period in (1e300, float("inf"), 9e9, 2**62):
        t = Ticker(period)
        after(0.001).recv()
        nobody_sends(t.c)
        t.reset(0.001)
        t.c.recv()
        t.reset(period)
        nobody_sends(t.c)
        assert t.stop() is True


# ---- sleep_test.go: after and after_func ----------------------------------------------------


def test_a_function_that_starts_the_next_one() -> None:
    """TestAfterFunc: each waits on while the next ones run."""
    left, out, gate = 10, gort.Chan[bool](), gort.Chan[None]()

    def fn() -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            after_func(0, fn)
            gate.recv_ok()
        else:
            out.send(True)

    after_func(0, fn)
    out.recv()
    gate.close()


def test_after_func_comes_in_between_two_that_are_always_ready() -> None:
    """TestAfterFuncStarvation."""
    wg, stop, c = WaitGroup(), Bool(), gort.Chan[bool](1)

    def send() -> None:
        while not stop.load():
            c.send(True)
        c.close()

    def receive() -> None:
        for _ in c:
            pass

    wg.go(send)
    wg.go(receive)
    after_func(1e-6, stop.store, True)
    wg.wait()


def test_afters_one_by_one_take_their_time() -> None:
    """TestAfterTick."""
    start = now()
    for _ in range(10):
        after(0.002).recv()
    assert now() - start >= 0.02


@kinds
def test_a_timer_that_was_stopped_does_not_run_though_a_later_one_does(new: Any) -> None:
    """TestAfterStop."""
    early = after_func(NEVER / 2, lambda: None)
    ran = gort.Chan[bool](1)
    t0, t1, last = new(NEVER), after_func(NEVER, ran.send, True), Timer(0.002)
    assert t0.stop() is True
    assert t1.stop() is True
    last.c.recv()
    nobody_sends(t0.c)
    nobody_sends(ran)
    assert t0.stop() is False
    assert t1.stop() is False
    assert early.stop() is True


@kinds
def test_timers_fire_in_the_order_of_their_times(new: Any) -> None:
    """TestAfterQueuing: equal ones may swap, others not, whoever made them first."""
    delta = 0.004
    slots = [5, 3, 6, 6, 6, 1, 1, 2, 7, 9, 4, 8, 0]
    start = now()
    timers = [(slot, new(slot * delta)) for slot in slots]
    cases = [t.c for _, t in timers]
    fired: dict[int, float] = {}
    while len(fired) < len(slots):
        i, at, _ = gort.select(*(c if i not in fired else None for i, c in enumerate(cases)))
        fired[i] = at
        assert at >= start + slots[i] * delta
    if new is Timer:  # of the others the time is taken when their goroutines run
        times = sorted((at, slots[i]) for i, at in fired.items())
        by_time = [at for at, _ in times]
        for slot in set(slots):
            mine = [at for at, s in times if s == slot]
            assert all(at >= max(mine) or s <= slot for at, s in times), (slot, times)
        assert by_time == sorted(by_time)


@kinds
def test_no_stopped_timer_runs(new: Any) -> None:
    """TestTimerStopStress: a hundred are stopped before their time, by as many goroutines."""

    def body() -> None:
        t = new(NEVER)
        gort.sleep(0.001)
        assert t.stop() is True
        nobody_sends(t.c)

    join_all([gort.go(body) for _ in range(100)])


@kinds
def test_reset_of_one_that_is_pending_and_of_one_that_fired(new: Any) -> None:
    """TestReset."""
    t = new(NEVER)
    gort.sleep(0.001)
    assert t.reset(NEVER) is True, "it has not fired"
    gort.sleep(0.001)
    nobody_sends(t.c)
    assert t.reset(0.001) is True
    t.c.recv()
    assert t.reset(NEVER) is False, "it has"
    assert t.stop() is True


@pytest.mark.parametrize("call", [lambda t: t.stop(), lambda t: t.reset(1)])
@pytest.mark.parametrize("cls", [Timer, Ticker])
def test_a_timer_that_nobody_made_refuses(cls: Any, call: Callable[[Any], object]) -> None:
    """TestZeroTimerResetPanics, TestZeroTimerStopPanics."""
    for _ in range(2):
        with pytest.raises(RuntimeError, match="not made by"):
            call(cls.__new__(cls))


@pytest.mark.parametrize("kind", ["chan", "func", "cache"])
def test_timers_of_nothing_are_not_missed(kind: str) -> None:
    """TestZeroTimer."""
    cached = FuncTimer(NEVER)

    def again() -> FuncTimer:
        cached.reset(0)
        return cached

    new: Callable[[], Any] = {"chan": lambda: Timer(0), "func": lambda: FuncTimer(0), "cache": again}[kind]
    last = 0.0
    for _ in range(scaled(2000)):
        at = new().c.recv()
        assert at >= last
        last = at
    cached.stop()


def test_moving_a_timer_to_the_past_again_and_again() -> None:
    """TestTimerModifiedEarlier: it is not dropped."""
    for _ in range(scaled(100)):
        t = FuncTimer(NEVER)
        for _ in range(10):
            if not t.stop():
                t.c.recv()
            t.reset(-1.7e9)
        t.c.recv()
        assert t.stop() is False


def test_moving_timers_earlier_and_later() -> None:
    """TestAdjustTimers: in any order none of the times is lost."""
    rnd = random.Random()
    timers: list[Any] = [None] * 100
    states = [0] * len(timers)
    left = list(range(len(timers)))
    while left:
        k = rnd.randrange(len(left))
        i = left[k]
        t, state = timers[i], states[i]
        states[i] += 1
        if state == 0:
            timers[i] = FuncTimer(0)
        elif state in (1, 9):
            t.c.recv()
        elif state in (2, 4, 6):
            assert t.reset({2: 60, 4: 180, 6: 120}[state]) is False
        elif state in (3, 5, 7):
            assert t.stop() is True
        elif state == 8:
            assert t.reset(0) is False
        else:
            left[k] = left[-1]
            left.pop()


# ---- races: what stop() and reset() say ------------------------------------------------------


@pytest.fixture
def brisk() -> Iterator[None]:
    """Threads that take turns often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@starts
@pytest.mark.parametrize("call", ["stop", "reset"])
def test_what_was_not_received_was_pending(brisk: None, start: Any, call: str) -> None:
    """TestStopResult, TestResetResult: at whatever moment, and then it is not received.

    In gort a value that was on its way from the heap to the channel was dropped by
    stop(), which said false; test_timer.c has that very moment.
    """

    def stop(t: Timer) -> bool:
        return t.stop() if call == "stop" else t.reset(NEVER)

    def body() -> None:
        for _ in range(scaled(20)):
            t1, t2 = Timer(0.0005), Timer(0.0005)
            i, _, ok = gort.select(t1.c, t2.c)
            assert ok
            taken, other = (t1, t2) if i == 0 else (t2, t1)
            assert stop(other) is True
            nobody_sends(other.c)
            assert stop(taken) is False
            t1.stop()
            t2.stop()

    join_all([start(body) for _ in range(20 if start is gort.go else 4)])


def test_each_setting_of_a_timer_fires_once_or_was_pending(brisk: None) -> None:
    """A timer set n times by many: the receives and the true results of reset() and stop() make n."""
    t = Timer(NEVER)
    settings, pending, stop = Int64(1), Int64(), Bool()
    received = Int64()

    def set_it(seed: int) -> None:
        rnd = random.Random(seed)
        for _ in range(scaled(300)):
            settings.add(1)
            pending.add(t.reset(rnd.choice((0.0, 1e-6, 2e-5, NEVER))))
            if rnd.random() < 0.3:
                gort.gosched()
            if rnd.random() < 0.1:
                busy(2e-5)

    def receive() -> None:
        while not stop.load():
            if gort.select(t.c, default=True)[0] == 0:
                received.add(1)
            gort.gosched()

    setters = [gort.go(set_it, 1), gort.go(set_it, 2), PlainThread(set_it, 3)]
    receivers = [gort.go(receive), PlainThread(receive)]
    join_all(setters)
    stop.store(True)
    join_all(receivers)
    pending.add(t.stop())
    assert received.load() + pending.load() == settings.load()
    nobody_sends(t.c)


@starts
def test_each_setting_of_an_after_func_runs_once_or_was_pending(brisk: None, start: Any) -> None:
    """The same for functions: true from stop() means that it does not run, false that it does."""
    ran, settings, pending = Int64(), Int64(1), Int64()
    t = after_func(NEVER, ran.add)

    def set_it(seed: int) -> None:
        rnd = random.Random(seed)
        for _ in range(scaled(200)):
            settings.add(1)
            pending.add(t.reset(rnd.choice((0.0, 1e-6, 2e-5, NEVER))))
            if rnd.random() < 0.5:
                gort.gosched()

    join_all([start(set_it, seed) for seed in range(3)])
    pending.add(t.stop())
    spin_until(lambda: ran.load() + pending.load() == settings.load(), "each setting")
    for _ in range(20):
        gort.gosched()
    assert ran.load() + pending.load() == settings.load()


def test_many_wait_for_one_ticker() -> None:
    """TestMultiWakeupTicker."""
    t = Ticker(1e-6)

    def body() -> None:
        for _ in range(scaled(300)):
            gort.select(t.c, after(0.001))

    join_all([gort.go(body) for _ in range(4)] + [PlainThread(body)])
    t.stop()


def test_many_take_and_reset_one_timer() -> None:
    """TestMultiWakeupTimer."""
    t = Timer(1e-9)

    def body() -> None:
        for _ in range(scaled(1000)):
            gort.select(t.c, default=True)
            t.reset(1e-9)

    join_all([gort.go(body) for _ in range(2)] + [PlainThread(body) for _ in range(2)])
    t.stop()
    nobody_sends(t.c)


def test_reset_of_a_subclass_does_not_rely_on_its_stop() -> None:
    """With stop() overridden a reset() put the timer into the heap twice: memory corruption."""
    out = output_of(
        """
        import gort
        from gort.time import Timer

        class Mine(Timer):
            def stop(self):
                return True

        t = Mine(3600)
        print([t.reset(0.0001) for _ in range(100)] == [True] * 100)
        t.c.recv()
        del t
        gort.sleep(0.001)
        for t in [Timer(0.0001) for _ in range(1000)]:
            t.c.recv()
        print("ok")
        """
    )
    assert out.split() == ["True", "ok"]


# ---- a goroutine that computes and looks -------------------------------------------------------


@pytest.mark.parametrize("look", ["recv_nowait", "default", "timeout", "beside a ready case"])
@starts
def test_who_computes_and_looks_sees_that_it_is_time(start: Any, look: str) -> None:
    """Go's maybeRunChan: a receive fires its timer itself if nobody else did.

    Here nobody could: the one who looks has the P, and never waits.
    """
    ready = gort.Chan[None]()
    ready.close()

    def seen(c: gort.Chan[float]) -> bool:
        if look == "default":
            return gort.select(c, default=True)[0] == 0
        if look == "beside a ready case":
            return gort.select(c, ready)[0] == 0
        try:
            if look == "timeout":
                c.recv(timeout=0)
            else:
                c.recv_nowait()
        except (gort.WouldBlock, TimeoutError):
            return False
        return True

    def body() -> None:
        for make in (Timer, Ticker):
            begin = now()
            t: Any = make(0.002)
            hang = time.monotonic() + 60
            while not seen(t.c):
                assert time.monotonic() < hang, "it never came"
            assert now() >= begin + 0.002
            t.stop()

    join_all([start(body)])


# ---- tick_test.go --------------------------------------------------------------------------------


def test_ticks_and_then_slower_ticks() -> None:
    """TestTicker: five of 2 ms, five of 4 ms, and none after the stop."""
    delta, count = 0.002, 5
    t = Ticker(delta)
    start = now()
    ticks = [t.c.recv() for _ in range(count)]
    assert ticks[0] >= start + delta
    t.reset(2 * delta)
    changed = now()
    slow = [t.c.recv() for _ in range(count)]
    assert slow[0] >= changed + 2 * delta
    assert ticks + slow == sorted(ticks + slow)
    t.stop()
    gort.sleep(2 * delta)
    nobody_sends(t.c)


def test_ticks_beside_the_collector(collector: None) -> None:
    """TestTickerStress."""
    t = Ticker(1e-9)
    for _ in range(100):
        t.c.recv()
    t.stop()


def test_a_ticker_that_is_always_due_keeps_nobody_from_the_gil() -> None:
    """An M that found nothing but that ticker's next tick went round and round with the GIL."""
    out = output_of(
        """
        import time, gort
        from gort.time import Ticker

        t = Ticker(1e-9)
        for _ in range(10):
            g = gort.go(lambda: None)
            gort.blocking(time.sleep, 0.0001)
            g.join()
        t.stop()
        print("ok")
        """
    )
    assert out == "ok\n"


def test_many_take_ticks_beside_the_collector(collector: None) -> None:
    """TestTickerConcurrentStress."""
    t = Ticker(1e-9)
    join_all([gort.go(lambda: [t.c.recv() for _ in range(30)]) for _ in range(10)])
    t.stop()


def test_tickers_come_and_go() -> None:
    """TestTeardown."""
    for _ in range(3):
        t = Ticker(0.002)
        t.c.recv()
        t.stop()


def test_timeouts_amid_a_ping_pong() -> None:
    """TestLongAdjustTimers: thousands of stopped timers hold up neither the scheduler nor each other."""
    wg = WaitGroup()
    for _ in range(scaled(500)):
        wg.go(gort.sleep, 1e-5)
    inq, outq = gort.Chan[int](), gort.Chan[int]()

    def queue() -> None:
        q: list[int] = []
        while True:
            i, v, ok = gort.select((outq, q[0]) if q else None, inq)
            if i == 0:
                q.pop(0)
            elif ok:
                q.append(v)
            else:
                outq.close()
                return

    wg.go(queue)
    for n in range(scaled(30)):
        for i in range(20):
            inq.send(n * 20 + i)
        for i in range(20):
            index, v, ok = gort.select(outq, after(NEVER))
            assert (index, v, ok) == (0, n * 20 + i, True)
    inq.close()
    wg.wait()


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: after(NEVER), id="After"),
        pytest.param(lambda: tick(NEVER), id="Tick"),
        pytest.param(lambda: Timer(NEVER), id="NewTimer"),
        pytest.param(lambda: Ticker(NEVER), id="NewTicker"),
        pytest.param(lambda: (t := Timer(NEVER), t.stop())[0], id="NewTimerStop"),
        pytest.param(lambda: (t := Ticker(NEVER), t.stop())[0], id="NewTickerStop"),
        pytest.param(lambda: (t := after_func(NEVER, print), t.stop())[0], id="AfterFuncStop"),
    ],
)
def test_a_timer_that_nobody_can_reach_goes_away(make: Callable[[], Any]) -> None:
    """TestTimerGC: long before its time."""
    things = [make() for _ in range(100)]
    refs = [weakref.ref(t) for t in things]
    del things
    gc.collect()
    assert [r() for r in refs if r() is not None] == []


def test_a_pending_after_func_is_kept() -> None:
    """Go: a function's timer is reachable while it is pending."""
    ran = gort.Chan[bool](1)
    ref = weakref.ref(after_func(0.002, ran.send, True))
    gc.collect()
    assert ran.recv() is True
    gc.collect()
    spin_until(lambda: ref() is None)


class TickerTimer:
    """Go's tickerTimer: a Ticker with the results of a Timer."""

    def __init__(self, d: float) -> None:
        self.t = Ticker(d)
        self.c = self.t.c

    def stop(self) -> bool:
        return bool(self.t.stop())

    def reset(self, d: float) -> bool:
        return bool(self.t.reset(d))


@pytest.mark.parametrize("make", [Timer, TickerTimer])
def test_the_channel_of_a_timer(make: Any) -> None:
    """TestChan: what len, cap, stop and reset do in every state of a timer and a ticker."""
    ticker = make is TickerTimer
    t = make(10000)
    c = t.c

    def a_tick() -> None:
        assert isinstance(c.recv(timeout=60), float)  # the time only bounds how long a broken build hangs

    t.stop()
    nobody_sends(c)
    assert t.reset(10000) is False
    nobody_sends(c)
    assert t.reset(1e-9) is True
    gort.sleep(0.0005)
    assert (len(c), c.cap) == (0, 0)
    a_tick()

    # A second one is due if it is a ticker; reset does not let it through.
    gort.sleep(0.0005)
    assert t.reset(10000) is ticker
    nobody_sends(c)
    t.reset(10000)

    # Reset while somebody waits: far away, then near.
    g = park(c.recv)
    t.reset(20000)
    for _ in range(5):
        gort.gosched()
    assert g.state == "waiting"
    t.reset(1e-9)
    g.join()
    if ticker:
        a_tick()
    else:
        nobody_sends(c)
    assert t.stop() is ticker
    nobody_sends(c)

    # Two selects wait, and one of them gets a timer's value.
    t.reset(10000)
    stop, got = gort.Chan[None](), Int64()

    def wait() -> None:
        if gort.select(c, stop)[0] == 0:
            got.add(1)

    gs = [park(wait), park(wait)]
    t.reset(0.0005)
    spin_until(got.load)
    t.stop()
    stop.close()
    join_all(gs)
    assert got.load() in ((1, 2) if ticker else (1,))
    t.stop()
    nobody_sends(c)

    # Nobody is woken by a timer that is stopped.
    stop = gort.Chan()
    gs = [park(lambda: gort.select(c, stop)[0]) for _ in range(2)]
    settle(*gs)
    stop.close()
    assert [g.join() for g in gs] == [1, 1]

    # Stop and reset keep old values from being received (go.dev/issue/37196).
    t.reset(1e-9)
    gort.sleep(0.0005)
    assert t.stop() is True
    nobody_sends(c)
    assert t.reset(NEVER) is False
    nobody_sends(c)
    assert t.reset(1e-9) is True
    a_tick()
    gort.sleep(0.0005)
    if ticker:
        a_tick()
        gort.sleep(0.0005)
    else:
        nobody_sends(c)
    assert t.reset(NEVER) is ticker
    nobody_sends(c)
    assert t.stop() is True


@pytest.mark.parametrize("start", [after, tick])
def test_the_value_is_the_time_of_firing_not_of_the_receive(start: Callable[[float], gort.Chan[float]]) -> None:
    """TestAfterTimes, TestTickTimes."""
    c = start(0.001)
    gort.sleep(0.02)  # somebody has to run the timers meanwhile
    looked = now()
    at = c.recv()
    assert at < looked, "it was due long before the receive"


# ---- timers and plain threads -----------------------------------------------------------------------


def test_timers_of_threads_that_are_gone_fire() -> None:
    timers: list[Timer] = []
    out = gort.Chan[bool](1)

    def make() -> None:
        timers.append(Timer(0.001))
        after_func(0.001, out.send, True)

    thread = threading.Thread(target=make)
    thread.start()
    gort.blocking(thread.join)
    assert timers[0].c.recv() <= now()
    assert out.recv() is True
