"""gort.testing.synctest: bubbles with a clock of their own. After the tests of Go's internal/synctest."""

from __future__ import annotations

import _thread
import gc
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_support import finish, park, settle

import gort
from gort.sync import Cond, Mutex, Once, RWMutex, Semaphore, WaitGroup
from gort.testing import no_leaks, synctest
from gort.time import Ticker, Timer, after, after_func, now, sleep, tick

BLOCKED = "deadlock: all goroutines in bubble are blocked\n\n"
REMAIN = "deadlock: main bubble goroutine has exited but blocked goroutines remain\n\n"
OUTSIDE = "synctest bubble was used from outside of it"


def in_bubble(fn: Callable[[], Any]) -> Callable[[], None]:
    """The test function runs in a bubble, and leaves nothing."""

    def test() -> None:
        with no_leaks():
            synctest.run(fn)

    test.__name__, test.__doc__ = fn.__name__, fn.__doc__
    return test


class in_thread:
    """A plain thread that calls `fn`; `join()` raises what it raised."""

    def __init__(self, fn: Callable[[], Any]) -> None:
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self.body, args=(fn,))
        self.thread.start()

    def body(self, fn: Callable[[], Any]) -> None:
        try:
            fn()
        except BaseException as e:
            self.error = e

    def join(self) -> None:
        gort.blocking(self.thread.join)
        if self.error is not None:
            raise self.error


# ---- run() and wait() ---------------------------------------------------------------
def test_run_returns_the_result() -> None:
    assert synctest.run(lambda: 42) == 42


def test_run_raises_what_fn_raises_and_ends_the_others() -> None:
    ended = []

    def other() -> None:
        try:
            sleep(100)
        finally:
            ended.append(now())

    def body() -> None:
        gort.go(other)
        gort.go(gort.Chan().recv)
        sleep(1)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        synctest.run(body)
    assert ended == [1.0]
    assert gort.num_goroutine() == 1


@pytest.mark.parametrize("bad", [None, 5, "run"])
def test_run_needs_a_callable(bad: Any) -> None:
    with pytest.raises(TypeError, match=repr(bad)):
        synctest.run(bad)


@in_bubble
def test_nested_run() -> None:
    for fn in (synctest.run, lambda f: gort.go(synctest.run, f).join()):
        with pytest.raises(RuntimeError, match="within a bubble"):
            fn(int)


def test_wait_outside() -> None:
    for call in (synctest.wait, lambda: gort.go(synctest.wait).join(), lambda: in_thread(synctest.wait).join()):
        with pytest.raises(RuntimeError, match="outside of a bubble"):
            call()


@in_bubble
def test_wait_alone() -> None:
    synctest.wait()
    synctest.wait()
    assert now() == 0.0


@in_bubble
def test_wait_until_others_are_done() -> None:
    done = []
    ch = gort.Chan[int]()

    def relay() -> None:
        count = ch.recv()
        if count == 0:
            done.append(True)
        else:
            gort.go(relay)
            ch.send(count - 1)

    gort.go(relay)
    ch.send(100)
    synctest.wait()
    assert done == [True]


@in_bubble
def test_wait_does_not_let_the_clock_go_on() -> None:
    woken = []
    gort.go(lambda: (sleep(1), woken.append(now())))
    synctest.wait()
    assert not woken and now() == 0.0
    sleep(1)
    synctest.wait()
    assert woken == [1.0] and now() == 1.0


@in_bubble
def test_racing_waits() -> None:
    def busy() -> None:
        for _ in range(10):
            gort.gosched()

    gort.go(busy)
    first = gort.go(synctest.wait)
    while first.state != "waiting":
        gort.gosched()
    assert first.wait_reason == "synctest.Wait"
    with pytest.raises(RuntimeError, match="in progress in another goroutine"):
        synctest.wait()
    first.join()
    synctest.wait()


@in_bubble
def test_wait_is_durable_blocking_for_the_clock() -> None:
    """One waits, the other sleeps: wait() returns, then the clock goes on."""
    order = []
    gort.go(lambda: (sleep(1), order.append("slept")))
    gort.go(lambda: (synctest.wait(), order.append("waited")))
    sleep(2)
    assert order == ["waited", "slept"]


@in_bubble
def test_killed_in_wait() -> None:
    entered = []

    def waits() -> None:
        entered.append(1)
        synctest.wait()

    g = gort.go(waits)
    while not entered:
        gort.gosched()
    g.kill()
    assert g.join() is None
    synctest.wait()


# ---- the clock --------------------------------------------------------------------------
@in_bubble
def test_clock_begins_at_0_and_jumps() -> None:
    assert now() == 0.0
    assert gort.go(now).join() == 0.0
    sleep(1)
    assert now() == 1.0
    sleep(1e-9)
    assert now() == 1.000000001
    sleep(3600 * 24 * 365)
    assert now() == pytest.approx(1 + 3600 * 24 * 365)


def test_clock_of_others_is_not_touched() -> None:
    before = now()
    synctest.run(lambda: sleep(1e6))
    assert before <= now() < before + 1e5


@in_bubble
def test_sleepers_wake_in_their_order() -> None:
    woken = []
    for d in (3, 1, 2, 5, 4):
        gort.go(lambda d=d: (sleep(d), woken.append((d, now()))))
    sleep(10)
    assert woken == [(d, float(d)) for d in (1, 2, 3, 4, 5)]


@in_bubble
def test_sleep_of_0_and_less_does_not_move_it() -> None:
    sleep(0)
    sleep(-1)
    gort.gosched()
    assert now() == 0.0


@in_bubble
def test_timer() -> None:
    t = Timer(5)
    assert t.c.recv() == 5.0 == now()
    assert t.stop() is False


@in_bubble
def test_timer_read_after_its_time_carries_its_time() -> None:
    t = Timer(1)
    sleep(2)
    assert t.c.recv_nowait() == 1.0
    assert now() == 2.0


@in_bubble
def test_timer_reset() -> None:
    t = Timer(1)
    assert t.c.recv() == 1.0
    assert t.reset(2) is False
    assert t.c.recv() == 3.0
    t.reset(3)
    sleep(1)
    assert t.reset(3) is True
    assert t.c.recv() == 7.0


@in_bubble
def test_no_stale_value_after_reset_or_stop() -> None:
    t = Timer(1)
    sleep(2)
    assert t.reset(5) is True  # due, not received
    with pytest.raises(gort.WouldBlock):
        t.c.recv_nowait()
    assert t.stop() is True
    sleep(10)
    with pytest.raises(gort.WouldBlock):
        t.c.recv_nowait()


@in_bubble
def test_timer_of_0_fires_at_once() -> None:
    t = Timer(0)
    assert t.c.recv_nowait() == 0.0
    sleep(1)
    t.reset(-5)
    assert gort.select(t.c, default=True) == (0, 1.0, True)
    assert gort.select(after(0), default=True) == (0, 1.0, True)


@in_bubble
def test_reset_to_0_over_and_over_ends() -> None:  # golang.org/issue/76052
    t, stop = Timer(0), gort.Chan[None]()

    def drain() -> None:
        while gort.select(stop, t.c)[0] == 1:
            pass

    gort.go(drain)
    for _ in range(3):
        synctest.wait()
        t.reset(0)
    stop.close()


@in_bubble
def test_ticker() -> None:
    t = Ticker(3)
    assert [t.c.recv() for _ in range(3)] == [3.0, 6.0, 9.0]
    sleep(7)  # two ticks, one is dropped
    assert t.c.recv() == 12.0
    assert t.c.recv() == 18.0
    t.reset(10)
    assert t.c.recv() == 28.0
    t.stop()
    with pytest.raises(gort.WouldBlock):
        t.c.recv_nowait()
    assert tick(1).recv() == 29.0


@in_bubble
def test_ticker_of_centuries_does_not_overflow() -> None:
    t = Ticker(8e9)
    assert t.c.recv() == 8e9
    sleep(1.2e9)
    assert now() == 9.2e9
    with pytest.raises(gort.WouldBlock):
        t.c.recv_nowait()
    assert t.stop() is True


@in_bubble
def test_sleep_past_the_end_of_the_clock_is_for_ever() -> None:
    sleep(8e9)
    g = gort.go(sleep, 8e9)
    sleep(1e9)
    assert g.state == "waiting"
    g.kill()


@pytest.mark.parametrize("wait", [lambda: sleep(float("inf")), lambda: Timer(float("inf")).c.recv()])
def test_what_never_comes_is_no_timer(wait: Callable[[], Any]) -> None:
    with pytest.raises(gort.Deadlock):
        synctest.run(wait)


@in_bubble
def test_after_func() -> None:
    ran = []

    def later(x: int) -> None:
        ran.append((x, now()))
        gort.go(lambda: (sleep(1), ran.append((x + 1, now()))))

    after_func(1, later, 1)
    stopped = after_func(2, later, 9)
    assert stopped.stop() is True
    again = after_func(5, later, 3)
    assert again.reset(2) is True
    sleep(3)
    synctest.wait()
    assert ran == [(1, 1.0), (3, 2.0), (2, 2.0), (4, 3.0)] or ran == [(1, 1.0), (2, 2.0), (3, 2.0), (4, 3.0)]


@in_bubble
def test_after_func_of_0_runs_before_all_block() -> None:
    ran = gort.atomic.Bool(False)
    after_func(0, ran.store, True)
    while not ran.load():
        gort.gosched()
    seen = []
    after_func(0, seen.append, 1)
    synctest.wait()
    assert seen == [1]


def test_after_func_pending_at_the_end_never_runs() -> None:
    ran: list[int] = []
    timers = []

    def body() -> None:
        timers.append(after_func(1, ran.append, 1))
        after_func(2, ran.append, 2)

    synctest.run(body)
    gc.collect()
    assert not ran
    with pytest.raises(RuntimeError, match=OUTSIDE):
        timers[0].stop()
    with pytest.raises(RuntimeError, match=OUTSIDE):
        timers[0].reset(1)


def test_pending_functions_are_let_go() -> None:
    import weakref

    class Thing:
        def run(self) -> None: ...

    refs = []

    def body() -> None:
        thing = Thing()
        refs.append(weakref.ref(thing))
        after_func(1, thing.run)

    synctest.run(body)
    gc.collect()
    assert refs[0]() is None


@in_bubble
def test_hour_of_timeouts_and_retries() -> None:
    """Each attempt times out after 30 s, the pause doubles up to a minute."""
    replies = gort.Chan[None]()
    attempts, pause = 0, 1.0
    while now() < 3600:
        attempts += 1
        with pytest.raises(TimeoutError):
            replies.recv(timeout=30)
        sleep(pause)
        pause = min(pause * 2, 60)
    # 31+32+34+38+46+62 = 243, then 90 each
    assert attempts == 6 + 38 and now() == 243 + 38 * 90


@in_bubble
def test_ten_thousand_goroutines() -> None:
    woken = []
    wg = WaitGroup()
    for i in range(10_000):
        wg.go(lambda i=i: (sleep((i * 7919) % 10_000), woken.append(now())))
    wg.wait()
    assert woken == [float(i) for i in range(10_000)]


# ---- timeouts ------------------------------------------------------------------------------
@in_bubble
def test_timeouts_are_on_its_clock() -> None:
    m, rw, s, wg, ch, full = Mutex(), RWMutex(), Semaphore(1), WaitGroup(), gort.Chan[int](), gort.Chan[int](1)
    cond = Cond(Mutex())
    sleeper = gort.go(sleep, 1000)
    m.lock()
    rw.lock()
    s.acquire()
    wg.add(1)
    full.send(1)
    cond.L.lock()
    waits: list[Callable[[float], Any]] = [
        lambda t: ch.recv(timeout=t), lambda t: ch.recv_ok(timeout=t), lambda t: full.send(2, timeout=t),
        lambda t: m.lock(timeout=t), lambda t: rw.lock(timeout=t), lambda t: rw.rlock(timeout=t),
        lambda t: s.acquire(timeout=t), lambda t: s.acquire(5, timeout=t), lambda t: wg.wait(timeout=t),
        lambda t: cond.wait(timeout=t), lambda t: gort.select(ch, (full, 1), timeout=t),
        lambda t: gort.select(timeout=t), lambda t: sleeper.join(timeout=t), lambda t: gort.NIL.recv(timeout=t),
        lambda t: gort.NIL.send(1, timeout=t),
    ]  # fmt: skip
    for i, wait in enumerate(waits):
        assert now() == i * 7.0
        with pytest.raises(TimeoutError):
            wait(7)
    cond.L.unlock()
    wg.done()
    sleeper.join()
    assert now() == 1000.0


@in_bubble
def test_timeout_that_is_not_needed_leaves_no_timer() -> None:
    ch = gort.Chan[int]()
    gort.go(lambda: (sleep(1), ch.send(5)))
    assert ch.recv(timeout=100) == 5
    assert now() == 1.0


# ---- what blocks durably --------------------------------------------------------------------
def durable_cases() -> dict[str, Callable[[], Callable[[], Any]]]:
    """By name: makes things, and returns what waits for something that is done after a second."""

    def later(fn: Callable[..., Any], *args: Any) -> None:
        gort.go(lambda: (sleep(1), fn(*args)))

    def recv() -> Any:
        ch = gort.Chan[int]()
        later(ch.send, 1)
        return ch.recv

    def send() -> Any:
        ch = gort.Chan[int]()
        later(ch.recv)
        return lambda: ch.send(1)

    def select() -> Any:
        a, b = gort.Chan[int](), gort.Chan[int]()
        later(b.close)
        return lambda: gort.select(a, b, (a, 1), gort.NIL)

    def mutex() -> Any:
        m = Mutex()
        m.lock()
        later(m.unlock)
        return m.lock

    def rlock() -> Any:
        m = RWMutex()
        m.lock()
        later(m.unlock)
        return m.rlock

    def wlock() -> Any:
        m = RWMutex()
        m.rlock()
        later(m.runlock)
        return m.lock

    def semaphore() -> Any:
        s = Semaphore(2)
        s.acquire(2)
        later(s.release, 2)
        return s.acquire

    def waitgroup() -> Any:
        wg = WaitGroup()
        wg.add(1)
        later(wg.done)
        return wg.wait

    def cond() -> Any:
        c = Cond(Mutex())
        later(c.broadcast)

        def wait() -> None:
            c.L.lock()
            c.wait()
            c.L.unlock()

        return wait

    def join() -> Any:
        return gort.go(sleep, 1).join

    def once() -> Any:
        o = Once()
        gort.go(o.do, lambda: sleep(1))
        gort.gosched()
        return lambda: o.do(int)

    return {f.__name__: f for f in (recv, send, select, mutex, rlock, wlock, semaphore, waitgroup, cond, join, once)}


@pytest.mark.parametrize("name", durable_cases())
def test_waiting_for_the_bubbles_own_lets_the_clock_go_on(name: str) -> None:
    def body() -> None:
        durable_cases()[name]()()
        assert now() == 1.0

    synctest.run(body)


OUTSIDE_CASES: dict[str, Callable[[Callable[[Callable[[], Any]], Any]], Callable[[], Any]]] = {}


def outside_case(fn: Any) -> Any:
    OUTSIDE_CASES[fn.__name__] = fn
    return fn


@outside_case
def receive(later: Any) -> Any:
    ch = gort.Chan[int]()
    later(lambda: ch.send(1))
    return ch.recv


@outside_case
def receive_closed(later: Any) -> Any:
    ch = gort.Chan[int]()
    later(ch.close)
    return ch.recv_ok


@outside_case
def send(later: Any) -> Any:
    ch = gort.Chan[int]()
    later(ch.recv)
    return lambda: ch.send(1)


@outside_case
def select_mixed(later: Any) -> Any:
    ch = gort.Chan[int]()
    later(ch.close)
    return lambda: gort.select(gort.Chan(), ch)


@outside_case
def lock(later: Any) -> Any:
    m = Mutex()
    m.lock()
    later(m.unlock)
    return m.lock


@outside_case
def rwlock(later: Any) -> Any:
    m = RWMutex()
    m.lock()
    later(m.unlock)
    return m.rlock


@outside_case
def acquire(later: Any) -> Any:
    s = Semaphore(1)
    s.acquire()
    later(s.release)
    return s.acquire


@outside_case
def wait_group(later: Any) -> Any:
    wg = WaitGroup()
    wg.add(1)
    later(wg.done)
    return wg.wait


@outside_case
def join_outsider(later: Any) -> Any:
    ch = gort.Chan[int](1)
    g = park(ch.recv)
    later(lambda: ch.send(1))
    return g.join


@outside_case
def blocking(later: Any) -> Any:
    ev = threading.Event()
    later(ev.set)
    return lambda: gort.blocking(ev.wait)


class Ctx:
    """A context from outside: it ends when its channel is closed."""

    def __init__(self) -> None:
        self.ch = gort.Chan[None]()

    def done(self) -> gort.Chan[None]:
        return self.ch

    def err(self) -> Exception | None:
        return KeyError("ended") if self.ch.closed else None


@outside_case
def context_of_outside(later: Any) -> Any:
    ctx = Ctx()
    later(ctx.ch.close)

    def wait() -> None:
        with pytest.raises(KeyError, match="ended"):
            gort.Chan().recv(ctx=ctx)

    return wait


@pytest.mark.parametrize("name", OUTSIDE_CASES)
def test_waiting_for_something_outside_stops_the_clock(name: str) -> None:
    held: list[Callable[[], Any]] = []
    wait = OUTSIDE_CASES[name](held.append)
    seen = []
    started = gort.Chan[None](1)

    def body() -> None:
        sleeper = gort.go(sleep, 10)
        started.send(None)
        wait()
        seen.append((now(), sleeper.done))
        sleeper.join()
        seen.append((now(), sleeper.done))

    main = gort.go(synctest.run, body)
    started.recv()
    for _ in range(20):
        gort.gosched()
    assert not main.done and not seen
    held[0]()
    main.join()
    assert seen == [(0.0, False), (10.0, True)]


def test_timer_from_outside_runs_on_the_real_clock() -> None:
    t = Timer(0.005)

    def body() -> None:
        sleeper = gort.go(sleep, 100)
        t.c.recv()
        assert now() == 0.0 and t.stop() is False
        sleeper.join()

    synctest.run(body)


def test_timer_from_outside_may_be_reset_within() -> None:
    ran = gort.Chan[float]()
    t = after_func(1000, lambda: ran.send(now()))

    def body() -> None:
        assert t.reset(0.001) is True
        assert ran.recv() > 0.0

    synctest.run(body)


@in_bubble
def test_lock_held_across_a_sleep() -> None:
    m, order = Mutex(), []

    def worker(i: int) -> None:
        with m:
            sleep(1)
            order.append((i, now()))

    for i in range(3):
        gort.go(worker, i)
    sleep(10)
    assert sorted(t for _, t in order) == [1.0, 2.0, 3.0]


@in_bubble
def test_cond_signal_and_broadcast() -> None:
    c, woken = Cond(Mutex()), []

    def waiter() -> None:
        with c.L:  # type: ignore[attr-defined]
            c.wait()
            woken.append(now())

    for _ in range(3):
        gort.go(waiter)
    sleep(1)
    c.signal()
    sleep(1)
    c.broadcast()
    synctest.wait()
    assert woken == [1.0, 2.0, 2.0]


# ---- inside and outside -------------------------------------------------------------------
CHANNEL_USES: dict[str, Callable[[gort.Chan[Any]], Any]] = {
    "send": lambda ch: ch.send(1),
    "send_nowait": lambda ch: ch.send_nowait(1),
    "recv": lambda ch: ch.recv(),
    "recv_ok": lambda ch: ch.recv_ok(),
    "recv_nowait": lambda ch: ch.recv_nowait(),
    "recv with a timeout": lambda ch: ch.recv(timeout=1),
    "close": lambda ch: ch.close(),
    "iterate": lambda ch: next(iter(ch)),
    "receiver": lambda ch: ch.receiver().recv(),
    "sender": lambda ch: ch.sender().send(1),
    "select receive": lambda ch: gort.select(gort.NIL, ch),
    "select send": lambda ch: gort.select((ch, 1), default=True),
    "as a context": lambda ch: gort.sleep(1, ctx=_context_on(ch)),
}


def _context_on(ch: gort.Chan[Any]) -> Ctx:
    ctx = Ctx()
    ctx.ch = ch
    return ctx


def made_inside(make: Callable[[], Any]) -> Any:
    return synctest.run(make)


@pytest.mark.parametrize("where", ["outside", "thread", "other bubble"])
@pytest.mark.parametrize("use", [u for u in CHANNEL_USES if u != "as a context"])
def test_channel_moved_out(use: str, where: str) -> None:
    ch = made_inside(lambda: gort.Chan(1))

    def call() -> None:
        with pytest.raises(RuntimeError, match=f"a channel of a {OUTSIDE}"):
            CHANNEL_USES[use](ch)

    if where == "outside":
        call()
    elif where == "thread":
        in_thread(call).join()
    else:
        synctest.run(call)
    assert len(ch) == 0 and ch.cap == 1 and not ch.closed


@pytest.mark.parametrize("use", ["stop", "reset", "receive"])
@pytest.mark.parametrize("make", [lambda: Timer(1), lambda: Ticker(1)])
def test_timer_moved_out(make: Callable[[], Any], use: str) -> None:
    t = made_inside(make)
    calls: dict[str, Callable[[], Any]] = {"stop": t.stop, "reset": lambda: t.reset(1), "receive": lambda: t.c.recv()}
    with pytest.raises(RuntimeError, match=OUTSIDE):
        calls[use]()


@in_bubble
def test_thread_started_within_is_outside() -> None:
    ch, errors = gort.Chan[int](1), []

    def body() -> None:
        try:
            ch.send(1)
        except RuntimeError as e:
            errors.append(e)

    t = threading.Thread(target=body)
    t.start()
    gort.blocking(t.join)
    assert len(errors) == 1 and OUTSIDE in str(errors[0])


def test_values_cross_on_channels_made_outside() -> None:
    ask, reply = gort.Chan[int](), gort.Chan[int]()
    gort.go(lambda: [reply.send(x * x) for x in ask])

    def body() -> list[int]:
        squares = []
        for i in range(5):
            ask.send(i)
            squares.append(reply.recv())
            sleep(1)
        assert now() == 5.0
        return squares

    assert synctest.run(body) == [0, 1, 4, 9, 16]
    ask.close()


# ---- several bubbles, from everywhere --------------------------------------------------------
def clock_program(n: int) -> Callable[[], float]:
    def body() -> float:
        ch = gort.Chan[float]()

        def worker() -> None:
            for _ in range(10):
                sleep(n)
            ch.send(now())

        gort.go(worker)
        return ch.recv()

    return body


def test_bubbles_are_independent() -> None:
    gs = [gort.go(synctest.run, clock_program(n)) for n in range(1, 21)]
    assert [g.join() for g in gs] == [10.0 * n for n in range(1, 21)]


def test_run_from_plain_threads() -> None:
    results: dict[int, float] = {}
    ts = [in_thread(lambda n=n: results.__setitem__(n, synctest.run(clock_program(n)))) for n in range(1, 9)]
    for t in ts:
        t.join()
    assert results == {n: 10.0 * n for n in range(1, 9)}


def test_one_bubble_after_the_other() -> None:
    for _ in range(200):
        assert synctest.run(clock_program(1)) == 10.0


# ---- deadlocks and ends -------------------------------------------------------------------------
def test_deadlock_of_all() -> None:
    def stuck() -> None:
        gort.select()

    with pytest.raises(gort.Deadlock) as caught:
        synctest.run(stuck)
    assert str(caught.value).startswith(BLOCKED)
    assert "[select (no cases)]:\nstuck(...)\n" in str(caught.value)


def test_deadlock_when_main_has_ended() -> None:
    ended = []

    def stuck(ch: gort.Chan[int]) -> None:
        try:
            ch.recv()
        finally:
            ended.append(True)

    with pytest.raises(gort.Deadlock) as caught:
        synctest.run(lambda: gort.go(stuck, gort.Chan[int]()))
    assert str(caught.value).startswith(REMAIN)
    assert "[chan receive]:\nstuck(...)\n" in str(caught.value)
    assert ended == [True]


@pytest.mark.parametrize("wait", [lambda: tick(1).recv(), lambda: sleep(1), lambda: gort.Chan().recv(timeout=1)])
def test_clock_stops_when_main_has_ended(wait: Callable[[], Any]) -> None:
    with pytest.raises(gort.Deadlock) as caught:
        synctest.run(lambda: gort.go(wait) and None)
    assert str(caught.value).startswith(REMAIN)


def test_others_may_finish_after_main() -> None:
    ran = []

    def chain(n: int) -> None:
        gort.gosched()
        ran.append(n)
        if n:
            gort.go(chain, n - 1)

    synctest.run(lambda: gort.go(chain, 10) and None)
    assert ran == list(range(10, -1, -1))


def test_deadlock_with_outside_is_the_programs() -> None:
    """It waits for something outside that nobody outside can do."""
    ch = gort.Chan[int]()
    with pytest.raises(gort.Deadlock, match="all goroutines are asleep"):
        synctest.run(ch.recv)


def test_finally_blocks_may_sleep_when_unwound() -> None:
    log = []

    def cleans_up() -> None:
        try:
            gort.Chan().recv()
        finally:
            sleep(3)
            log.append(now())

    with pytest.raises(gort.Deadlock):
        synctest.run(lambda: gort.go(cleans_up) and None)
    assert log == [3.0]


def test_goroutine_that_catches_goroutine_exit_now_and_then() -> None:
    caught = []

    def stubborn() -> None:
        while len(caught) < 3:
            try:
                sleep(1)
            except gort.GoroutineExit:
                caught.append(now())

    with pytest.raises(gort.Deadlock):
        synctest.run(lambda: gort.go(stubborn) and None)
    assert len(caught) == 3


@pytest.mark.parametrize("wait", [lambda ch: ch.recv(), lambda ch: sleep(1)])
def test_goroutine_that_always_catches_it_does_not_hang_run(wait: Callable[[Any], Any]) -> None:
    free, gs = gort.atomic.Bool(False), []

    def stubborn() -> None:
        ch = gort.Chan[int]()
        while not free.load():
            try:
                wait(ch)
            except gort.GoroutineExit:
                pass

    with pytest.raises(gort.Deadlock):
        synctest.run(lambda: gs.append(gort.go(stubborn)))
    assert gs[0].state == "waiting"
    free.store(True)
    gs[0].kill()  # its bubble is over, and it lives still
    finish(gs[0])


def test_goexit_of_main() -> None:
    assert synctest.run(gort.goexit) is None


def test_kill_inside() -> None:
    def body() -> float:
        g = gort.go(sleep, 100)
        synctest.wait()
        g.kill()
        assert g.join() is None
        fresh = gort.go(sleep, 100)
        fresh.kill()
        assert fresh.join() is None
        return now()

    assert synctest.run(body) == 0.0


def test_kill_from_outside() -> None:
    members = []

    def body() -> float:
        members.append(gort.go(gort.Chan().recv))
        outside.recv()
        sleep(1)
        return now()

    outside = gort.Chan[None]()
    main = gort.go(synctest.run, body)
    while not members:
        gort.gosched()
    settle(members[0])
    members[0].kill()
    finish(members[0])
    outside.send(None)
    assert main.join() == 1.0


def test_kill_of_one_that_runs_in_a_bubble_unwinds_the_bubble() -> None:
    log = []

    def other() -> None:
        try:
            gort.Chan().recv()
        finally:
            log.append("unwound")

    def body() -> None:
        gort.go(other)
        outside.recv()

    outside = gort.Chan[None]()
    root = park(synctest.run, body)
    assert root.wait_reason == "synctest.Run"
    root.kill()
    assert root.join() is None
    assert log == ["unwound"]


def test_kills_while_the_clock_runs() -> None:
    """From outside, at any moment: whoever is hit ends, the clock of the others is right."""
    stop = gort.atomic.Bool(False)
    victims: deque[tuple[Any, gort.Chan[None]]] = deque()

    def killer() -> None:
        while not stop.load():
            while victims:
                g, killed = victims.popleft()
                g.kill()
                killed.send(None)
            gort.gosched()

    def body(killed: gort.Chan[None]) -> None:
        for i in range(200):
            g = gort.go(gort.Chan().recv)
            victims.append((g, killed))
            sleep(1)
            killed.recv()  # the killer is outside: else it might be taken for a deadlock
            g.join()
            assert now() == i + 1.0

    k = gort.go(killer)
    outside = gort.Chan[None](1), gort.Chan[None](1)
    t = in_thread(lambda: synctest.run(lambda: body(outside[0])))
    synctest.run(lambda: body(outside[1]))
    t.join()
    stop.store(True)
    k.join()


def test_keyboard_interrupt() -> None:
    log = []

    def other() -> None:
        try:
            gort.blocking(entered.set)
            outside.recv()
        finally:
            log.append("unwound")

    entered, outside = threading.Event(), gort.Chan[None]()

    def interrupt() -> None:
        entered.wait()
        _thread.interrupt_main()

    t = threading.Thread(target=interrupt)
    t.start()
    with pytest.raises(KeyboardInterrupt):
        synctest.run(other)
    t.join()
    assert log == ["unwound"]


def test_exception_nobody_saw(panics: list[Any]) -> None:
    def broken() -> None:
        sleep(1)
        raise ValueError("lost")

    def body() -> None:
        gort.go(broken)
        sleep(2)

    synctest.run(body)
    ((_, exc),) = panics
    assert isinstance(exc, ValueError)


@in_bubble
def test_exception_by_join() -> None:
    def broken() -> None:
        sleep(1)
        raise ValueError("seen")

    with pytest.raises(ValueError, match="seen"):
        gort.go(broken).join()


def test_bubbles_leave_no_references() -> None:
    import weakref

    class Thing: ...

    refs = []

    def body() -> None:
        thing = Thing()
        refs.append(weakref.ref(thing))
        ch = gort.Chan[Thing](1)
        ch.send(thing)
        t = Ticker(1)
        gort.go(lambda: (t.c.recv(), ch.recv())).join()

    synctest.run(body)
    gc.collect()
    assert refs[0]() is None


@in_bubble
def test_timers_that_nobody_holds_are_let_go() -> None:
    for i in range(1000):
        after(10 + i)
        Timer(10 + i)
    del i
    gc.collect()
    sleep(1)
    assert now() == 1.0


# ---- against a simulation ---------------------------------------------------------------------
Program = list[list[tuple[str, int]]]

# Times of sleeps are powers of 4 and used once for each worker, so no two events coincide
# unless a channel makes them so.
STEPS = st.lists(st.tuples(st.sampled_from(["sleep", "send", "recv"]), st.integers(0, 2)), max_size=6)


def simulate(program: Program, durations: list[list[int]], cap: int) -> tuple[list[Any], bool]:
    """A discrete-event simulation: (time, worker, step) of each step's end as a set for each time, and whether
    all came to an end."""
    clock, events = 0, []
    pcs = [0] * len(program)
    wake: dict[int, int] = {}
    buffers = [0, 0, 0]
    senders: list[deque[int]] = [deque() for _ in range(3)]
    receivers: list[deque[int]] = [deque() for _ in range(3)]
    ready = deque(range(len(program)))

    def over(w: int) -> None:
        events.append((clock, w, pcs[w]))
        pcs[w] += 1
        ready.append(w)

    while True:
        while ready:
            w = ready.popleft()
            if pcs[w] == len(program[w]):
                continue
            op, k = program[w][pcs[w]]
            if op == "sleep":
                wake[w] = clock + durations[w][pcs[w]]
            elif op == "send":
                if receivers[k]:
                    over(receivers[k].popleft())
                    over(w)
                elif buffers[k] < cap:
                    buffers[k] += 1
                    over(w)
                else:
                    senders[k].append(w)
            elif senders[k]:
                over(senders[k].popleft())
                over(w)
            elif buffers[k]:
                buffers[k] -= 1
                over(w)
            else:
                receivers[k].append(w)
        if not wake:
            return events, all(pc == len(p) for pc, p in zip(pcs, program, strict=True))
        w = min(wake, key=wake.__getitem__)
        clock = wake.pop(w)
        over(w)


@given(st.lists(STEPS, min_size=1, max_size=5), st.integers(0, 2))
def test_random_programs_agree_with_a_simulation(program: Program, cap: int) -> None:
    """One worker of a channel's each side, so that the order in which workers of one time run does not matter."""
    # each channel end belongs to the first worker that uses it: what others would do there, they sleep
    owner: dict[tuple[str, int], int] = {}
    program = [
        [(op, k) if op == "sleep" or owner.setdefault((op, k), w) == w else ("sleep", k) for op, k in steps]
        for w, steps in enumerate(program)
    ]
    # 1, 2, 4, ...: no sum of some equals that of others
    numbers = iter(range(100))
    durations = [[1 << next(numbers) for _ in steps] for steps in program]
    expected, complete = simulate(program, durations, cap)
    events: list[Any] = []

    def worker(w: int, chans: list[gort.Chan[int]]) -> None:
        for i, (op, k) in enumerate(program[w]):
            if op == "sleep":
                sleep(durations[w][i])
            elif op == "send":
                chans[k].send(w)
            else:
                chans[k].recv()
            events.append((now(), w, i))

    def body() -> None:
        chans = [gort.Chan[int](cap) for _ in range(3)]
        gs = [gort.go(worker, w, chans) for w in range(len(program))]
        for g in gs:
            g.join()

    if complete:
        synctest.run(body)
    else:
        with pytest.raises(gort.Deadlock):
            synctest.run(body)
    assert sorted(events) == sorted(expected)
    times = [t for t, _, _ in events]
    assert times == sorted(times)
    for w in range(len(program)):  # each in its order
        assert [e for e in events if e[1] == w] == [e for e in expected if e[1] == w]
