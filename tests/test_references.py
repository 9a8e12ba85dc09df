"""Who keeps what alive: channels own their values, nothing leaks, the cyclic collector sees through."""

from __future__ import annotations

import gc
import sys
import weakref
from typing import Any

import pytest
from model_support import finish, park

import gort
import gort.sync
import gort.time


class Thing:
    pass


def gone(ref: Any) -> bool:
    gc.collect()
    return ref() is None


# ---- channels ---------------------------------------------------------------------


def test_a_value_in_the_buffer_is_kept_alive_and_then_let_go() -> None:
    ch = gort.Chan(1)
    thing = Thing()
    ref = weakref.ref(thing)
    ch.send(thing)
    del thing
    assert ref() is not None
    assert isinstance(ch.recv(), Thing)
    assert ref() is None


def test_the_values_of_a_channel_go_away_with_it() -> None:
    ch = gort.Chan(5)
    things = [Thing() for _ in range(5)]
    refs = [weakref.ref(t) for t in things]
    for t in things:
        ch.send(t)
    del things, t
    ch.close()
    assert all(ref() is not None for ref in refs)
    del ch
    assert all(ref() is None for ref in refs)


@pytest.mark.parametrize("cap", [0, 1, 3])
def test_passing_a_value_leaves_its_reference_count(cap: int) -> None:
    ch, thing = gort.Chan(cap), Thing()
    before = sys.getrefcount(thing)

    def send() -> None:
        for _ in range(100):
            ch.send(thing)

    g = gort.go(send)
    for _ in range(100):
        assert ch.recv() is thing
    g.join()
    del g
    assert sys.getrefcount(thing) == before


def test_every_way_a_send_can_fail_leaves_the_reference_count() -> None:
    thing = Thing()
    ch, closed = gort.Chan(), gort.Chan()
    closed.close()
    before = sys.getrefcount(thing)
    for _ in range(10):
        with pytest.raises(TimeoutError):
            ch.send(thing, timeout=0.0001)
        with pytest.raises(gort.WouldBlock):
            ch.send_nowait(thing)
        with pytest.raises(gort.ChanClosed):
            closed.send(thing)
        with pytest.raises(TimeoutError):
            gort.select((ch, thing), (ch, thing), timeout=0.0001)
        with pytest.raises(gort.ChanClosed):
            gort.select((closed, thing))
        assert gort.select((ch, thing), default=True) == (-1, None, False)
        with pytest.raises(TypeError):
            gort.select((ch, thing), 5)
        g = park(lambda: ch.send(thing))
        g.kill()
        g.join()
        g = park(lambda: gort.select((ch, thing), (ch, thing), ch))
        g.kill()
        g.join()
        del g
    gc.collect()
    assert sys.getrefcount(thing) == before


def test_senders_failed_by_close_let_their_values_go() -> None:
    ch, refs = gort.Chan(), []

    def send() -> None:
        thing = Thing()
        refs.append(weakref.ref(thing))
        try:
            ch.send(thing)
        except gort.ChanClosed:
            pass

    gs = [park(send) for _ in range(10)]
    ch.close()
    for g in gs:
        g.join()
    assert all(ref() is None for ref in refs)


def test_select_lets_go_of_the_values_it_did_not_send() -> None:
    a, b = gort.Chan(), gort.Chan(1)
    thing = Thing()
    ref = weakref.ref(thing)
    assert gort.select((a, thing), (b, "other")) == (1, None, True)
    del thing
    assert ref() is None


def test_a_received_value_is_not_kept_by_select() -> None:
    ch = gort.Chan(1)
    ch.send(Thing())
    _, thing, _ = gort.select(ch)
    ref = weakref.ref(thing)
    del thing
    assert ref() is None


def test_a_cycle_through_a_channels_buffer_is_collected() -> None:
    thing: Any = Thing()
    thing.ch = gort.Chan(1)
    thing.ch.send(thing)
    ref = weakref.ref(thing)
    del thing
    assert gone(ref)


def test_a_channel_in_its_own_buffer_is_collected() -> None:
    ch: Any = gort.Chan(2)
    thing = Thing()
    ref = weakref.ref(thing)
    ch.send(ch)
    ch.send(thing)
    del ch, thing
    assert gone(ref)


def test_a_cycle_through_two_channels_and_views_is_collected() -> None:
    a, b, thing = gort.Chan(1), gort.Chan(2), Thing()
    ref = weakref.ref(thing)
    a.send(b.sender())
    b.send(a.receiver())
    b.send(thing)
    del a, b, thing
    assert gone(ref)


def test_the_collector_sees_the_values_in_a_buffer() -> None:
    ch, thing = gort.Chan(3), Thing()
    ch.send(1)
    assert ch.recv() == 1
    ch.send(thing)
    assert gc.is_tracked(ch)
    assert any(x is thing for x in gc.get_referents(ch))


def test_a_collection_amid_waiting_goroutines_harms_nobody() -> None:
    ch = gort.Chan()
    gs = [park(ch.send, Thing()) for _ in range(50)]
    gc.collect()
    assert all(isinstance(ch.recv(), Thing) for _ in range(50))
    for g in gs:
        g.join()


def test_typed_channels_are_freed_with_values_inside() -> None:
    before = sys.getallocatedblocks()
    for _ in range(2000):
        ch = gort.Chan(10, dtype="i64")
        ch.send(1)
    del ch
    assert sys.getallocatedblocks() - before < 200


# ---- goroutines ------------------------------------------------------------------------


def test_arguments_are_let_go_when_the_goroutine_ends() -> None:
    thing, other = Thing(), Thing()
    refs = weakref.ref(thing), weakref.ref(other)
    g = gort.go(lambda *args, **kwargs: None, thing, key=other)
    del thing, other
    finish(g)
    assert [r() for r in refs] == [None, None]
    g.join()


def test_arguments_are_kept_while_it_waits() -> None:
    gate, thing = gort.Chan(), Thing()
    ref = weakref.ref(thing)
    g = park(lambda x: gate.recv(), thing)
    del thing
    assert ref() is not None
    gate.send(None)
    g.join()
    assert ref() is None


def test_the_function_is_let_go_when_the_goroutine_ends() -> None:
    class Callable:
        def __call__(self) -> int:
            return 1

    fn = Callable()
    ref = weakref.ref(fn)
    g = gort.go(fn)
    del fn
    assert g.join() == 1
    assert ref() is None


def test_the_arguments_of_a_goroutine_killed_before_its_start_are_let_go() -> None:
    thing = Thing()
    ref = weakref.ref(thing)
    g = gort.go(lambda x: None, thing)
    del thing
    g.kill()
    g.join()
    assert ref() is None


def test_the_locals_of_a_killed_goroutine_are_let_go() -> None:
    refs = []

    def body() -> None:
        thing = Thing()
        refs.append(weakref.ref(thing))
        gort.sleep(3600)

    g = park(body)
    g.kill()
    g.join()
    assert refs[0]() is None


def test_a_result_lives_as_long_as_the_handle() -> None:
    g = gort.go(Thing)
    finish(g)
    ref = weakref.ref(g.join())
    assert ref() is g.join()
    del g
    assert ref() is None


def test_an_exception_lives_no_longer_than_the_handle_and_its_catcher() -> None:
    class Failure(Exception):
        pass

    def fail() -> None:
        raise Failure

    g = gort.go(fail)
    try:
        g.join()
    except Failure as error:
        ref = weakref.ref(error)
    del g
    assert gone(ref)


def test_a_cycle_through_a_goroutines_result_is_collected() -> None:
    def make() -> Any:
        thing: Any = Thing()
        thing.g = gort.go(lambda: thing)
        thing.g.join()
        return weakref.ref(thing)

    assert gone(make())


def test_a_handle_kept_in_its_own_goroutines_frame_goes_away() -> None:
    refs: list[Any] = []

    def body() -> None:
        me = gort.current()  # noqa: F841
        thing = Thing()
        refs.append(weakref.ref(thing))

    gort.go(body).join()
    assert gone(refs[0])


# ---- leaks in the large ------------------------------------------------------------------


def growth(work: Any) -> int:
    """Blocks allocated by a second and third round, which pools filled by the first need no more."""
    work()
    gc.collect()
    before = sys.getallocatedblocks()
    work()
    work()
    gc.collect()
    return sys.getallocatedblocks() - before


def _spawn() -> None:
    for _ in range(5):
        gs = [gort.go(lambda x: [x], i) for i in range(400)]
        for g in gs:
            g.join()


def _messages() -> None:
    ch = gort.Chan(3)

    def send() -> None:
        for i in range(2000):
            ch.send([i])
        ch.close()

    g = gort.go(send)
    assert sum(v[0] for v in ch) == 1999000
    g.join()


def _selects() -> None:
    a, b = gort.Chan(), gort.Chan(1)
    stop = gort.Chan()

    def loop() -> None:
        while gort.select(a, b, stop)[0] != 2:
            pass

    g = gort.go(loop)
    for i in range(1000):
        gort.select((a, [i]), (b, [i]))
    stop.close()
    g.join()


def _timeouts() -> None:
    ch = gort.Chan()
    for _ in range(500):
        with pytest.raises(TimeoutError):
            ch.recv(timeout=0)
        with pytest.raises(TimeoutError):
            gort.select(ch, (ch, 1), timeout=1e-6)


def _timers() -> None:
    timers = [gort.time.Timer(3600) for _ in range(1000)]
    for t in timers[::2]:
        t.stop()
    for _ in range(1000):
        gort.time.after(3600)
    for _ in range(200):
        gort.time.after(0).recv()


def _kills() -> None:
    gs = [gort.go(gort.sleep, 3600) for _ in range(500)]
    for g in gs:
        g.kill()
    for g in gs:
        g.join()


def _failures() -> None:
    for _ in range(500):
        with pytest.raises(ZeroDivisionError):
            gort.go(divmod, 1, 0).join()


def _locks() -> None:
    for _ in range(500):
        mu, rw = gort.sync.Mutex(), gort.sync.RWMutex()
        with mu, rw.reader():
            pass
        wg, sem, m = gort.sync.WaitGroup(), gort.sync.Semaphore(1), gort.sync.Map()
        wg.go(lambda: None)
        wg.wait()
        sem.acquire()
        m.store(1, [1])
        gort.sync.Cond(mu).broadcast()


@pytest.mark.parametrize(
    "work", [_spawn, _messages, _selects, _timeouts, _timers, _kills, _failures, _locks], ids=lambda f: f.__name__[1:]
)
def test_nothing_accumulates(work: Any) -> None:
    assert growth(work) < 500
