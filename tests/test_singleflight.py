"""gort.singleflight: the behaviour of x/sync/singleflight's own tests, ends of leaders and waiters, bad input."""

from __future__ import annotations

import gc
import traceback
import weakref
from typing import Any

import pytest
from model_support import EVERYWHERE, HandMadeContext, PlainThread, finish, output_of, park, settle, spin_until

import gort
from gort import context
from gort.atomic import Int64
from gort.singleflight import Group, Result

everywhere = pytest.mark.parametrize("where", EVERYWHERE)


def never() -> Any:
    raise AssertionError("must not be called")


class Flights:
    """A group with a call for "key" under way, which ends as `end()` says; `led` is its goroutine."""

    def __init__(self) -> None:
        self.group = Group[Any, Any]()
        self.gate = gort.Chan[Any]()
        self.led = park(self.group.do, "key", self.fn)

    def fn(self) -> Any:
        value = self.gate.recv()
        if isinstance(value, BaseException):
            raise value
        return value

    def waiters(self, n: int, fn: Any = never) -> list[Any]:
        return [park(self.group.do, "key", fn) for _ in range(n)]

    def end(self, value: Any) -> None:
        self.gate.send(value)


# ---- do ---------------------------------------------------------------------------------


@everywhere
def test_do_gives_the_value_of_the_function(where: Any) -> None:
    group = Group[str, str]()
    assert where(lambda: group.do("key", lambda: "bar")) == ("bar", False)
    assert where(lambda: group.do("key", lambda: "again")) == ("again", False)


@everywhere
def test_do_raises_what_the_function_raises(where: Any) -> None:
    group, error = Group[str, None](), ValueError("no")

    def fail() -> None:
        raise error

    with pytest.raises(ValueError, match="no") as caught:
        where(lambda: group.do("key", fail))
    assert caught.value is error
    assert where(lambda: group.do("key", lambda: None)) == (None, False)


def test_one_call_for_all_who_ask_at_the_same_time() -> None:
    flights = Flights()
    gs = flights.waiters(10)
    value = object()
    thread = PlainThread(flights.group.do, "key", lambda: value)  # it may come too late
    flights.end(value)
    assert flights.led.join() == (value, True)
    assert all(g.join() == (value, True) for g in gs)
    assert thread.result()[0] is value


def test_plain_threads_share_a_call() -> None:
    group, gate, calls = Group[str, int](), gort.Chan[int](), []

    def fn() -> int:
        calls.append(1)
        return gate.recv()

    threads = [PlainThread(group.do, "key", fn) for _ in range(4)]
    spin_until(lambda: calls)
    results = []
    while len(results) < 4:
        for t in list(threads):
            if not t.is_alive():
                results.append(t.result())
                threads.remove(t)
        try:
            gate.send(7, timeout=0.001)  # to whoever leads now, if a thread was late
        except TimeoutError:
            pass
    assert {value for value, _ in results} == {7}


def test_keys_do_not_disturb_each_other() -> None:
    flights = Flights()
    assert flights.group.do("other", lambda: 1) == (1, False)
    assert flights.group.do(("key",), lambda: 2) == (2, False)
    other = Group[str, int]()
    assert other.do("key", lambda: 3) == (3, False)
    flights.end(4)
    assert flights.led.join() == (4, False)


def test_keys_are_those_of_a_dict() -> None:
    group, gate = Group[float, int](), gort.Chan[int]()
    g = park(group.do, 1, gate.recv)
    same = park(group.do, 1.0, never)
    gate.send(5)
    assert (g.join(), same.join()) == ((5, True), (5, True))


def test_a_call_within_a_call_for_another_key() -> None:
    group = Group[int, int]()

    def depth(n: int) -> int:
        return group.do(n - 1, lambda: depth(n - 1))[0] + 1 if n else 0

    assert group.do(20, lambda: depth(20)) == (20, False)


def test_calls_one_after_the_other_are_all_made() -> None:
    group, calls = Group[str, None](), []
    for i in range(100):
        group.do("key", lambda i=i: calls.append(i))  # type: ignore[misc]
    assert calls == list(range(100))


def test_a_call_within_a_call_for_the_same_key_is_a_deadlock() -> None:
    program = """
        import gort
        from gort.singleflight import Group
        group = Group()
        try:
            group.do("key", lambda: group.do("key", int))
        except gort.Deadlock as error:
            print("sync.WaitGroup.Wait" in str(error))
        print(group.do("key", int))
    """
    assert output_of(program) == "True\n(0, False)\n"


# ---- errors -----------------------------------------------------------------------------


def test_everybody_gets_the_exception() -> None:
    flights, error = Flights(), ValueError("shared")
    gs = flights.waiters(5)
    flights.end(error)
    for g in [flights.led, *gs]:
        with pytest.raises(ValueError, match="shared") as caught:
            g.join()
        assert caught.value is error


def test_a_shared_exception_keeps_the_traceback_of_its_function_and_no_others() -> None:
    flights, error = Flights(), ValueError("shared")
    lengths, names = [], []

    def wait() -> None:
        try:
            flights.group.do("key", never)
        except ValueError as e:
            frames = traceback.extract_tb(e.__traceback__)
            lengths.append(len(frames))
            names.append([f.name for f in frames if "test_singleflight" in f.filename])

    gs = [park(wait) for _ in range(20)]
    flights.end(error)
    with pytest.raises(ValueError, match="shared"):
        flights.led.join()
    for g in gs:
        g.join()
    assert len(set(lengths)) == 1
    assert names == [["wait", "fn"]] * 20


def test_a_shared_exception_keeps_its_own_context() -> None:
    group, gate = Group[str, None](), gort.Chan[None]()

    def fail() -> None:
        gate.recv()
        try:
            raise KeyError("inner")
        except KeyError:
            raise ValueError("outer")  # noqa: B904

    def lead() -> None:
        with pytest.raises(ValueError, match="outer"):
            group.do("key", fail)

    def wait() -> BaseException | None:
        try:
            raise OSError("the waiter's own affair")
        except OSError:
            with pytest.raises(ValueError, match="outer") as caught:
                group.do("key", never)
        return caught.value.__context__

    led, waiting = park(lead), park(wait)
    gate.send(None)
    led.join()
    assert repr(waiting.join()) == "KeyError('inner')"


# ---- ends of leaders --------------------------------------------------------------------


def test_a_killed_leader_leaves_the_call_to_one_who_waits() -> None:
    flights, calls = Flights(), []

    def second() -> Any:
        calls.append(1)
        return flights.gate.recv()

    gs = flights.waiters(5, second)
    flights.led.kill()
    assert flights.led.join() is None
    settle(*gs)
    assert calls == [1]
    flights.end("value")
    assert [g.join() for g in gs] == [("value", True)] * 5


def test_the_last_to_lead_shares_with_nobody() -> None:
    flights = Flights()
    (g,) = flights.waiters(1, lambda: "own")
    flights.led.kill()
    assert g.join() == ("own", False)


def test_goexit_in_the_function_ends_all_who_call_it() -> None:
    group, ended = Group[str, None](), []

    def body() -> None:
        try:
            group.do("key", gort.goexit)
        finally:
            ended.append(1)

    gs = [gort.go(body) for _ in range(5)]
    assert [g.join() for g in gs] == [None] * 5
    assert len(ended) == 5


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), BaseException("odd")])
def test_what_is_no_exception_is_for_the_leader_alone(error: BaseException) -> None:
    group, gate, caught = Group[str, str](), gort.Chan[None](), []

    def end() -> str:
        gate.recv()
        raise error

    def lead() -> None:
        try:
            group.do("key", end)
        except BaseException as e:
            caught.append(e)

    led = park(lead)
    waiting = park(group.do, "key", lambda: "own")
    gate.send(None)
    led.join()
    assert caught == [error]
    assert waiting.join() == ("own", False)


def test_ctrl_c_in_the_main_goroutine_is_not_passed_on() -> None:
    program = """
        import os, signal, gort
        from gort.singleflight import Group
        group, log = Group(), []
        def interrupted():
            os.kill(os.getpid(), signal.SIGINT)
            gort.Chan().recv(timeout=60)
        def wait():
            try:
                log.append(group.do("key", lambda: "own"))
            except BaseException as error:
                log.append(error)
        def lead():
            g.append(gort.go(wait))
            gort.gosched()
            interrupted()
        g = []
        try:
            group.do("key", lead)
        except KeyboardInterrupt:
            log.append("KeyboardInterrupt")
        g[0].join()
        print(sorted(log, key=str))
    """
    assert output_of(program) == "[('own', False), 'KeyboardInterrupt']\n"


def test_the_end_of_run_leaves_a_group_as_new() -> None:
    program = """
        import gort
        from gort.singleflight import Group
        group = Group()
        def main():
            for _ in range(3):
                gort.go(group.do, "key", gort.Chan().recv)
            gort.gosched()
            gort.go(group.do, "unborn", int)
            channels.append(group.do_chan("unborn chan", int))
            channels.append(group.do_chan("unborn chan", int))
        for _ in range(2):
            channels = []
            gort.run(main)
            print(group.do("key", int), group.do("unborn", int), group.do("unborn chan", int))
            print(type(channels[0].recv().err).__name__, channels[1].recv().value in (0, None))
    """
    lines = output_of(program).splitlines()
    assert lines == ["(0, False) (0, False) (0, False)", "GoroutineExit True"] * 2


# ---- ends of waiters --------------------------------------------------------------------


def test_a_waiter_that_gives_up_leaves_the_call_alone() -> None:
    flights, ctx = Flights(), HandMadeContext()
    timed = gort.go(flights.group.do, "key", never, 0.001)
    killed = park(flights.group.do, "key", never)
    ended = park(lambda: flights.group.do("key", never, ctx=ctx))
    killed.kill()
    ctx.end(ZeroDivisionError())
    assert killed.join() is None
    with pytest.raises(TimeoutError):
        timed.join()
    with pytest.raises(ZeroDivisionError):
        ended.join()
    flights.end("value")
    assert flights.led.join() == ("value", False)


def test_a_timeout_is_for_the_wait_and_not_for_ones_own_call() -> None:
    group = Group[str, int]()
    ctx, cancel = context.with_cancel(context.background())
    cancel()
    assert group.do("key", lambda: 1, timeout=0) == (1, False)
    assert group.do("key", lambda: 2, 0, ctx=ctx) == (2, False)
    flights = Flights()
    with pytest.raises(TimeoutError):
        flights.group.do("key", never, timeout=0)
    with pytest.raises(context.Canceled):
        flights.group.do("key", never, ctx=ctx)
    flights.end(None)
    assert flights.led.join() == (None, False)


def test_a_timeout_counts_from_the_call_though_leaders_die() -> None:
    flights = Flights()
    start = gort.time.now()
    g = gort.go(flights.group.do, "key", never, 0.05)
    spin_until(lambda: gort.time.now() - start > 0.01)
    # another leader takes the place of the first before the waiter runs again
    flights.group.forget("key")
    second = park(flights.group.do, "key", flights.fn)
    flights.led.kill()
    with pytest.raises(TimeoutError):
        g.join()
    flights.end(1)
    assert second.join() == (1, False)


# ---- do_chan ----------------------------------------------------------------------------


@everywhere
def test_do_chan_sends_the_result(where: Any) -> None:
    group = Group[str, str]()
    ch = where(lambda: group.do_chan("key", lambda: "bar"))
    assert isinstance(ch, gort.Chan)
    result = where(ch.recv)
    assert result == Result("bar", None, False) == ("bar", None, False)
    assert (result.value, result.err, result.shared) == ("bar", None, False)
    assert (len(ch), ch.closed) == (0, False)


def test_do_chan_does_not_wait_and_needs_no_receiver() -> None:
    group = Group[str, int]()
    ran: list[int] = []
    group.do_chan("key", lambda: ran.append(1) or 1)
    assert ran == []
    spin_until(lambda: gort.num_goroutine() == 1)
    assert ran == [1]
    assert group.do("key", lambda: 2) == (2, False)


def test_do_chan_sends_the_exception() -> None:
    group, error = Group[str, None](), ValueError("no")

    def fail() -> None:
        raise error

    result = group.do_chan("key", fail).recv()
    assert result == (None, error, False)
    assert [f.name for f in traceback.extract_tb(error.__traceback__)][-1] == "fail"


def test_do_and_do_chan_share_a_call() -> None:
    group, gate = Group[str, int](), gort.Chan[int]()
    first = group.do_chan("key", gate.recv)
    second = group.do_chan("key", never)
    g = park(group.do, "key", never)
    gate.send(7)
    assert first.recv() == second.recv() == (7, None, True)
    assert g.join() == (7, True)
    flights = Flights()
    ch = flights.group.do_chan("key", never)
    flights.end(8)
    assert ch.recv() == (8, None, True)
    assert flights.led.join() == (8, True)


def test_do_waits_with_the_exception_of_do_chan() -> None:
    group, gate, error = Group[str, None](), gort.Chan[None](), ValueError("no")

    def fail() -> None:
        gate.recv()
        raise error

    ch = group.do_chan("key", fail)
    g = park(group.do, "key", never)
    gate.send(None)
    assert ch.recv().err is error
    with pytest.raises(ValueError, match="no"):
        g.join()


@pytest.mark.parametrize("error", [gort.GoroutineExit, SystemExit, KeyboardInterrupt])
def test_what_is_no_exception_is_the_err_of_do_chan_and_not_passed_on(error: type[BaseException]) -> None:
    group, gate = Group[str, Any](), gort.Chan[None]()

    def end() -> None:
        gate.recv()
        raise error

    own = group.do_chan("key", end)
    chan = group.do_chan("key", lambda: "chan")
    g = park(group.do, "key", lambda: "do")
    gate.send(None)
    result = own.recv()
    assert isinstance(result.err, error)
    assert chan.recv().value in ("chan", "do")
    assert g.join()[0] in ("chan", "do")


def test_do_chan_takes_over_from_a_killed_leader() -> None:
    flights = Flights()
    first = flights.group.do_chan("key", flights.gate.recv)
    second = flights.group.do_chan("key", flights.gate.recv)
    flights.led.kill()
    flights.led.join()
    flights.end("value")
    assert first.recv() == second.recv() == ("value", None, True)


def test_the_goroutine_of_do_chan_is_named_after_the_function() -> None:
    group, gate = Group[str, None](), gort.Chan[None]()
    names = []

    def what_it_does() -> None:
        names.append(gort.current().name)  # type: ignore[union-attr]
        gate.recv()

    ch = group.do_chan("key", what_it_does)
    spin_until(lambda: names)
    assert names[0].endswith("what_it_does")
    gate.send(None)
    ch.recv()


def test_a_channel_that_its_receiver_has_closed_disturbs_nobody() -> None:
    flights = Flights()
    closed, full, other = (flights.group.do_chan("key", never) for _ in range(3))
    closed.close()
    full.send_nowait("something else")
    flights.end(1)
    assert other.recv() == (1, None, True)
    assert flights.led.join() == (1, True)
    assert full.recv() == "something else"


def test_no_memory_for_the_goroutine_of_do_chan_is_its_result() -> None:
    program = """
        import gort
        from gort._core._runtime import fail_next
        from gort.singleflight import Group
        group = Group()
        fail_next("guard", 1, 2)
        first, second = group.do_chan("key", int), group.do_chan("key", int)
        results = [first.recv(), second.recv()]
        print({type(r.err).__name__ for r in results}, {r.shared for r in results})
        print(group.do("key", int), gort.num_goroutine())
    """
    assert output_of(program) == "{'MemoryError'} {True}\n(0, False) 1\n"


# ---- forget -----------------------------------------------------------------------------


def test_forget_lets_the_next_call_be_made() -> None:
    flights = Flights()
    early = flights.waiters(2)
    flights.group.forget("key")
    unblock = gort.Chan[int]()
    second = flights.group.do_chan("key", unblock.recv)
    flights.end(1)
    assert flights.led.join() == (1, True)
    assert [g.join() for g in early] == [(1, True)] * 2
    third = flights.group.do_chan("key", never)  # the end of the first did not forget the second
    unblock.send(2)
    assert second.recv() == third.recv() == (2, None, True)


def test_forget_of_an_unknown_key_does_nothing() -> None:
    group = Group[str, int]()
    assert group.forget("key") is None  # type: ignore[func-returns-value]
    assert group.do("key", lambda: 1) == (1, False)


def test_forget_while_nobody_waits() -> None:
    flights = Flights()
    flights.group.forget("key")
    assert flights.group.do("key", lambda: 2) == (2, False)
    flights.end(1)
    assert flights.led.join() == (1, False)


# ---- odd keys, bad input ------------------------------------------------------------------


def test_a_key_whose_hash_parks() -> None:
    class Slow:
        def __init__(self) -> None:
            self.calls = 0

        def __hash__(self) -> int:
            self.calls += 1
            gort.gosched()
            return 1

        def __eq__(self, other: object) -> bool:
            gort.gosched()
            return isinstance(other, Slow)

    group = Group[Slow, int]()
    calls, active = [], Int64()

    def fn() -> int:
        calls.append(active.add(1))
        gort.gosched()
        active.add(-1)
        return 1

    gs = [gort.go(group.do, Slow(), fn) for _ in range(50)]
    assert all(g.join()[0] == 1 for g in gs)
    assert 1 <= len(calls) <= 50
    assert set(calls) == {1}


def test_a_killed_leader_with_such_a_key_still_lands() -> None:
    gate = gort.Chan[None]()
    block = False

    class Slow:
        def __hash__(self) -> int:
            if block:
                gate.recv()
            return 1

    key, group, start = Slow(), Group[Slow, int](), gort.Chan[int]()
    led = park(group.do, key, start.recv)
    block = True
    holder = park(group.do, Slow(), lambda: 2)  # holds the group's lock, in the hash of its key
    block = False
    start.send(1)
    settle(led)
    led.kill()
    settle(led)
    gate.send(None)
    assert holder.join() == (2, False)
    assert led.join() is None
    assert group.do(key, lambda: 3) == (3, False)


def test_a_key_that_cannot_be_hashed_raises_type_error() -> None:
    group = Group[Any, int]()
    for call in (lambda: group.do([], never), lambda: group.do_chan({}, never), lambda: group.forget([])):
        with pytest.raises(TypeError, match="unhashable"):
            call()
    assert group.do("key", lambda: 1) == (1, False)


def test_what_cannot_be_called_raises_type_error() -> None:
    group = Group[str, Any]()
    with pytest.raises(TypeError, match=r"do\(\) needs a callable, not 5"):
        group.do("key", 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"do_chan\(\) needs a callable, not None"):
        group.do_chan("key", None)  # type: ignore[arg-type]
    assert group.do("key", lambda: 1) == (1, False)


def test_a_function_with_the_wrong_arguments_raises_as_any_other() -> None:
    group = Group[str, Any]()
    with pytest.raises(TypeError):
        group.do("key", lambda x: x)  # type: ignore[arg-type, misc]
    assert isinstance(group.do_chan("key", lambda x: x).recv().err, TypeError)  # type: ignore[arg-type, misc]


# ---- what it keeps ------------------------------------------------------------------------


class Thing:
    pass


def test_nothing_of_a_call_is_kept() -> None:
    group = Group[Any, Thing]()
    key, fn = Thing(), Thing
    value, _ = group.do(key, fn)
    refs = [weakref.ref(key), weakref.ref(value)]
    del key, value
    assert [r() for r in refs] == [None, None]
    ch = group.do_chan(Thing(), Thing)
    result = ch.recv()
    ref = weakref.ref(result.value)
    spin_until(lambda: gort.num_goroutine() == 1)
    del result
    assert ref() is None


def test_a_group_in_its_own_calls_frame_goes_away() -> None:
    group = Group[str, Any]()
    ref = weakref.ref(group)

    def fail(frames: Any = group) -> None:
        raise ValueError

    result = group.do_chan("key", fail).recv()
    assert isinstance(result.err, ValueError)
    finish()
    spin_until(lambda: gort.num_goroutine() == 1)
    del group, fail, result
    gc.collect()
    assert ref() is None


def test_many_calls_by_many_goroutines_and_threads() -> None:
    group, made = Group[int, int](), []

    def fn() -> int:
        made.append(1)
        gort.gosched()
        return 5

    def body() -> None:
        for i in range(200):
            value, _ = group.do(i % 7, fn)
            assert value == 5
            if i % 10 == 0:
                group.forget(i % 7)

    threads = [PlainThread(body) for _ in range(3)]
    gs = [gort.go(body) for _ in range(10)]
    for g in gs:
        g.join()
    for t in threads:
        t.result()
    assert 200 / 7 < len(made) < 13 * 200
