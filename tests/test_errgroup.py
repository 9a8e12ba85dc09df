"""gort.errgroup: the behaviour of x/sync/errgroup's own tests, blocks, all errors, kills, bad input."""

from __future__ import annotations

import gc
import sys
import traceback
import weakref
from typing import Any

import pytest
from model_support import EVERYWHERE, HandMadeContext, PlainThread, output_of, park, settle, spin_until

import gort
from gort import context, rate, singleflight
from gort.atomic import Int64
from gort.errgroup import Group
from gort.sync import Semaphore

everywhere = pytest.mark.parametrize("where", EVERYWHERE)


class Doom(Exception):
    """The error of a goroutine."""


def fail(error: BaseException) -> None:
    raise error


def nothing() -> None:
    pass


def until_cancelled(group: Group) -> None:
    """Wait for the end of the group and raise its error."""
    gort.NIL.recv(ctx=group.ctx)


# ---- wait -------------------------------------------------------------------------------


@everywhere
def test_wait_of_an_empty_group_returns(where: Any) -> None:
    assert where(Group().wait) is None


@everywhere
def test_wait_returns_when_all_have_ended(where: Any) -> None:
    def body() -> list[int]:
        group, done = Group(), []

        def work(i: int) -> None:
            gort.gosched()
            done.append(i)

        for i in range(50):
            group.go(work, i)
        assert group.wait() is None  # type: ignore[func-returns-value]
        return done

    assert sorted(where(body)) == list(range(50))


@pytest.mark.parametrize("pattern", ["", "-", "1", "1-", "1-2"])
def test_wait_raises_the_first_error_every_time(pattern: str) -> None:
    group, first = Group(), None
    for what in pattern:
        if what == "-":
            group.go(nothing)
        else:
            error = Doom(what)
            group.go(fail, error)
            first = first or error
        if first is None:
            group.wait()
        else:
            with pytest.raises(Doom) as caught:
                group.wait()
            assert caught.value is first


def test_the_first_to_fail_is_the_first_error() -> None:
    group, gates = Group(), [gort.Chan[None]() for _ in range(3)]

    def body(i: int) -> None:
        gates[i].recv()
        raise Doom(i)

    for i in range(3):
        group.go(body, i)
    for i in (1, 2, 0):
        gates[i].send(None)
    with pytest.raises(Doom, match=r"^1$"):
        group.wait()


@everywhere
def test_wait_waits_for_the_others_though_one_has_failed(where: Any) -> None:
    group, gate, done = Group(), gort.Chan[None](), []

    def slow() -> None:
        gate.recv()
        done.append(1)

    group.go(slow)
    group.go(fail, Doom())
    waiting = park(group.wait)
    assert done == []
    gate.send(None)
    with pytest.raises(Doom):
        waiting.join()
    with pytest.raises(Doom):
        where(group.wait)
    assert done == [1]


def test_several_may_wait() -> None:
    group, gate = Group(), gort.Chan[None]()

    def body() -> None:
        gate.recv()
        raise Doom

    group.go(body)
    gs = [park(group.wait) for _ in range(3)]
    thread = PlainThread(group.wait)
    gate.send(None)
    for join in [*(g.join for g in gs), thread.result]:
        with pytest.raises(Doom):
            join()


def test_goroutines_may_start_others() -> None:
    group, leaves = Group(), []

    def tree(depth: int) -> None:
        if depth == 0:
            leaves.append(1)
        else:
            group.go(tree, depth - 1)
            group.go(tree, depth - 1)

    group.go(tree, 7)
    group.wait()
    assert len(leaves) == 128


def test_arguments_and_keywords_are_the_functions() -> None:
    group, seen = Group(), []

    def body(*args: object, **kwargs: object) -> None:
        seen.append((args, kwargs))

    group.go(body, 1, timeout=2, ctx=3, fn=4, self=5)
    group.wait()
    assert group.try_go(body)
    group.wait()
    assert seen == [((1,), {"timeout": 2, "ctx": 3, "fn": 4, "self": 5}), ((), {})]


def test_the_error_comes_with_the_traceback_of_its_goroutine() -> None:
    group = Group()

    def inner() -> None:
        raise Doom

    def outer() -> None:
        inner()

    def wait() -> list[str]:
        with pytest.raises(Doom) as caught:
            group.wait()
        frames = traceback.extract_tb(caught.value.__traceback__)
        return [f.name for f in frames if "test_errgroup" in f.filename]

    group.go(outer)
    for _ in range(5):  # and with no other, however often it is raised
        assert wait() == ["wait", "outer", "inner"]


def test_raising_the_error_leaves_its_context() -> None:
    group = Group()
    group.go(fail, Doom())
    try:
        raise OSError("the waiter's own affair")
    except OSError:
        with pytest.raises(Doom) as caught:
            group.wait()
    assert caught.value.__context__ is None


def test_errors_do_not_go_to_the_excepthook(panics: list[Any]) -> None:
    group = Group()
    for _ in range(5):
        group.go(fail, Doom())
    with pytest.raises(Doom):
        group.wait()
    del group
    gc.collect()
    assert panics == []


def test_an_error_that_nobody_waits_for_goes_to_the_excepthook_once(panics: list[Any]) -> None:
    group = Group()
    for i in range(5):
        group.go(fail, Doom(i))
    spin_until(lambda: gort.num_goroutine() == 1)
    assert panics == []
    del group
    gc.collect()
    assert [type(error) for _, error in panics] == [Doom]


def test_a_timeout_ends_the_wait_and_leaves_the_group_as_it_is() -> None:
    group, gate, ctx = Group(), gort.Chan[None](), HandMadeContext()
    group.go(gate.recv)
    for timeout in (0, 0.001):
        with pytest.raises(TimeoutError):
            group.wait(timeout=timeout)
    ctx.end(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        group.wait(ctx=ctx)
    assert group.ctx.err() is None
    gate.send(None)
    group.wait(timeout=60)


# ---- ctx --------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["", "-", "1", "1-"])
def test_the_context_is_cancelled_by_wait_at_the_latest(pattern: str) -> None:
    group, error = Group(context.background()), Doom()
    ctx = group.ctx
    for what in pattern:
        assert group.try_go(*((nothing,) if what == "-" else (fail, error)))
    try:
        group.wait()
    except Doom as e:
        assert e is error
        assert "1" in pattern
    assert ctx.done().closed
    assert isinstance(ctx.err(), context.Canceled)
    if "1" in pattern:
        assert context.cause(ctx) is error
    else:
        assert isinstance(context.cause(ctx), context.Canceled)


def test_the_first_error_cancels_the_others() -> None:
    group, error = Group(), Doom()
    causes: list[BaseException | None] = []

    def body() -> None:
        try:
            until_cancelled(group)
        finally:
            causes.append(context.cause(group.ctx))

    for _ in range(5):
        group.go(body)
    group.go(fail, error)
    with pytest.raises(Doom) as caught:
        group.wait()
    assert caught.value is error
    assert causes == [error] * 5


def test_the_context_is_that_of_the_parent_with_an_end_of_its_own() -> None:
    parent, cancel = context.with_timeout(context.with_value(context.background(), "user", "me"), 3600)
    group = Group(parent)
    assert group.ctx.value("user") == "me"
    assert group.ctx.deadline() == parent.deadline()
    group.go(until_cancelled, group)
    cancel()
    with pytest.raises(context.Canceled):
        group.wait()
    other = Group(parent)
    assert other.ctx.err() is not None
    other.go(nothing)
    other.wait()


def test_the_end_of_the_group_is_not_the_parents() -> None:
    parent, cancel = context.with_cancel(context.background())
    group = Group(ctx=parent)
    group.go(fail, Doom())
    with pytest.raises(Doom):
        group.wait()
    assert parent.err() is None
    cancel()


def test_a_parent_that_is_not_of_gort_will_do() -> None:
    parent = HandMadeContext()
    group = Group(parent)
    group.go(until_cancelled, group)
    parent.end(Doom("parent"))
    with pytest.raises(Doom, match="parent"):
        group.wait()
    other = HandMadeContext()
    with Group(other) as group:
        group.go(nothing)
    assert group.ctx.err() is not None
    assert other.err() is None


# ---- limits -----------------------------------------------------------------------------


def test_try_go_starts_up_to_the_limit() -> None:
    group, ch = Group(), gort.Chan[None]()
    group.set_limit(42)
    for _ in range(42):
        assert group.try_go(ch.send, None)
    assert not group.try_go(ch.send, None)
    for _ in range(42):
        ch.recv()
    group.wait()
    assert group.try_go(ch.send, None)
    ch.recv()
    group.wait()
    group.set_limit(1)
    assert group.try_go(ch.send, None)
    assert not group.try_go(ch.send, None)
    ch.recv()
    group.wait()
    group.set_limit(0)
    assert not any(group.try_go(ch.send, None) for _ in range(1000))
    group.wait()


@everywhere
def test_no_more_than_the_limit_run_at_a_time(where: Any) -> None:
    active, seen = Int64(), set()

    def body() -> None:
        seen.add(active.add(1))
        gort.gosched()
        active.add(-1)

    def start() -> None:
        group = Group(limit=10)
        for _ in range(1000):
            group.go(body)
        group.wait()

    where(start)
    assert active.load() == 0
    assert max(seen) == 10


def test_go_waits_for_its_turn_and_keeps_the_order() -> None:
    group, gate, order = Group(limit=1), gort.Chan[None](), []

    def body(i: int) -> None:
        gate.recv()
        order.append(i)

    group.go(body, 0)
    gs = [park(group.go, body, i) for i in range(1, 5)]
    assert not group.try_go(nothing)
    for _ in range(5):
        gate.send(None)
    for g in gs:
        g.join()
    group.wait()
    assert order == [0, 1, 2, 3, 4]


def test_a_killed_go_starts_nothing_and_takes_no_place() -> None:
    group, gate = Group(limit=1), gort.Chan[None]()
    group.go(gate.recv)
    killed, next_one = park(group.go, fail, Doom()), park(group.go, nothing)
    killed.kill()
    killed.join()
    gate.send(None)
    next_one.join()
    group.wait()
    assert group.try_go(nothing)
    group.wait()


def test_every_end_of_a_goroutine_gives_its_place_back() -> None:
    group = Group(limit=1)
    handles: list[Any] = []

    def suicide() -> None:
        handles.append(gort.current())
        gort.NIL.recv()

    for end in (nothing, gort.goexit, suicide, lambda: fail(Doom())):
        assert group.try_go(end)
        settle()
        if end is suicide:
            spin_until(lambda: handles and handles[0].state == "waiting")
            handles[0].kill()
        spin_until(lambda: gort.num_goroutine() == 1)
    assert group.try_go(nothing)
    with pytest.raises(Doom):
        group.wait()


def test_a_limit_of_nothing_refuses_and_go_waits_for_ever() -> None:
    group = Group(limit=0)
    assert not group.try_go(nothing)
    g = park(group.go, nothing)
    g.kill()
    g.join()
    group.wait()
    program = """
        import gort
        from gort.errgroup import Group
        try:
            Group(limit=0).go(print)
        except gort.Deadlock:
            print("Deadlock")
    """
    assert output_of(program) == "Deadlock\n"


@pytest.mark.parametrize(("given", "limit"), [(None, None), (-1, None), (-(10**30), None), (0, 0), (7, 7)])
def test_the_limit_can_be_read(given: int | None, limit: int | None) -> None:
    assert Group(limit=given).limit == limit
    group = Group(limit=3)
    group.set_limit(given)
    assert group.limit == limit


@pytest.mark.parametrize("limit", [None, 3])
def test_the_limit_cannot_be_changed_while_goroutines_run(limit: int | None) -> None:
    group, gate = Group(limit=limit), gort.Chan[None]()
    group.go(gate.recv)
    group.go(gate.recv)
    for new in (5, 0, -1, None):
        with pytest.raises(RuntimeError, match="while 2 goroutines"):
            group.set_limit(new)
    assert group.limit == limit
    gate.send(None)
    gate.send(None)
    group.wait()
    group.set_limit(5)
    assert group.limit == 5


# ---- ends that are no errors, and errors that are no Exception ----------------------------


def test_goexit_and_kill_are_no_errors() -> None:
    group, handles = Group(), []

    def body() -> None:
        handles.append(gort.current())
        gort.NIL.recv()

    group.go(gort.goexit)
    group.go(body)
    spin_until(lambda: handles and handles[0].state == "waiting")
    handles[0].kill()
    group.wait()
    assert isinstance(context.cause(group.ctx), context.Canceled)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), BaseException("odd")])
def test_other_ends_come_out_of_wait(error: BaseException) -> None:
    group = Group()
    group.go(fail, error)
    with pytest.raises(type(error)) as caught:
        group.wait()
    assert caught.value is error
    assert context.cause(group.ctx) is error


def test_a_goroutine_killed_before_its_start_is_counted_off() -> None:
    program = """
        import gort
        from gort.errgroup import Group
        group = Group(limit=2)
        def main():
            group.go(print, "never")
            group.go(print, "never")
        gort.run(main)
        group.wait(timeout=0)
        print(group.try_go(int), group.try_go(int), group.try_go(int))
        group.wait()
    """
    assert output_of(program) == "True True False\n"


def test_no_memory_for_a_goroutine_is_an_error_of_the_group() -> None:
    program = """
        import gort
        from gort.errgroup import Group
        from gort._core._runtime import fail_next
        group = Group(limit=1)
        fail_next("guard", 1, 2)
        group.go(int)
        try:
            group.wait()
        except MemoryError as error:
            print("MemoryError", gort.context.cause(group.ctx) is error)
        print(group.try_go(int), group.try_go(int))
    """
    assert output_of(program) == "MemoryError True\nTrue False\n"


def test_join_of_a_handle_raises_the_error_too() -> None:
    group, handles = Group(), []

    def body() -> None:
        handles.append(gort.current())
        raise Doom

    group.go(body)
    with pytest.raises(Doom):
        group.wait()
    with pytest.raises(Doom):
        handles[0].join()


# ---- all errors ---------------------------------------------------------------------------


def test_all_errors_come_in_the_order_of_their_starts() -> None:
    group, gates = Group(all_errors=True), [gort.Chan[None]() for _ in range(5)]
    errors = [Doom(i) for i in range(5)]

    def body(i: int) -> None:
        gates[i].recv()
        raise errors[i]

    for i in range(5):
        group.go(body, i)
        group.go(nothing)
    for i in (3, 1, 4, 0, 2):
        gates[i].send(None)
    for _ in range(2):
        with pytest.raises(ExceptionGroup) as caught:
            group.wait()
        assert list(caught.value.exceptions) == errors
    assert context.cause(group.ctx) is errors[3]
    assert group.all_errors


def test_a_single_error_comes_in_a_group_too_and_none_does_not() -> None:
    group = Group(all_errors=True)
    group.go(nothing)
    group.wait()
    error = Doom()
    group.go(fail, error)
    with pytest.raises(ExceptionGroup) as caught:
        group.wait()
    assert caught.value.exceptions == (error,)


def test_a_group_with_an_error_that_is_no_exception() -> None:
    group, errors = Group(all_errors=True), [Doom(), SystemExit(1)]
    for error in errors:
        group.go(fail, error)
    with pytest.raises(BaseExceptionGroup) as caught:
        group.wait()
    assert list(caught.value.exceptions) == errors
    assert not isinstance(caught.value, ExceptionGroup)


# ---- as a context manager -------------------------------------------------------------------


@everywhere
def test_the_block_waits_at_its_end(where: Any) -> None:
    def body() -> list[int]:
        done = []

        def work(i: int) -> None:
            gort.gosched()
            done.append(i)

        with Group() as group:
            assert isinstance(group, Group)
            for i in range(10):
                group.go(work, i)
        assert isinstance(group.ctx.err(), context.Canceled)
        return done

    assert sorted(where(body)) == list(range(10))


def test_the_block_raises_the_first_error_at_its_end() -> None:
    error, ran = Doom(), []
    with pytest.raises(Doom) as caught, Group() as group:
        group.go(fail, error)
        group.go(fail, Doom())
        group.go(ran.append, 1)
    assert caught.value is error
    assert ran == [1]


def test_an_exception_of_the_block_cancels_the_group_and_comes_out_after_the_wait() -> None:
    error, log = Doom("block"), []

    def body(group: Group) -> None:
        try:
            until_cancelled(group)
        finally:
            gort.gosched()
            log.append(context.cause(group.ctx))

    with pytest.raises(Doom) as caught, Group() as group:
        group.go(body, group)
        group.go(body, group)
        gort.gosched()
        raise error
    assert caught.value is error
    assert log == [error, error]


def test_the_blocks_own_exception_comes_out_though_a_goroutine_failed_before(panics: list[Any]) -> None:
    error = Doom("block")
    with pytest.raises(Doom) as caught, Group() as group:
        group.go(fail, OSError())
        until_done(group)
        raise error
    assert caught.value is error
    del group
    gc.collect()
    assert panics == []


def until_done(group: Group) -> None:
    group.ctx.wait()  # type: ignore[attr-defined]


def test_an_echo_of_the_first_error_in_the_block_gives_way_to_it() -> None:
    error = Doom("goroutine")
    with pytest.raises(Doom) as caught, Group() as group:
        group.go(fail, error)
        until_cancelled(group)
    assert caught.value is error
    with pytest.raises(Doom), Group() as group:
        group.go(fail, error)
        inner, cancel = context.with_cancel(group.ctx)
        try:
            gort.NIL.recv(ctx=inner)
        finally:
            cancel()


def test_a_cancellation_from_above_comes_out_itself() -> None:
    parent, cancel = context.with_cancel_cause(context.background())
    with pytest.raises(context.Canceled), Group(parent) as group:
        group.go(until_cancelled, group)
        cancel(OSError("from above"))
        until_cancelled(group)
    assert isinstance(context.cause(group.ctx), OSError)


def test_what_wait_raised_in_the_block_comes_out_once() -> None:
    error = Doom()
    with pytest.raises(Doom) as caught, Group() as group:
        group.go(fail, error)
        group.wait()
    assert caught.value is error
    with pytest.raises(ExceptionGroup) as both, Group(all_errors=True) as group:
        group.go(fail, error)
        group.wait()
    assert both.value.exceptions == (error,)


def test_with_all_errors_the_blocks_exception_is_the_first_of_them() -> None:
    errors = [Doom("block"), Doom("a"), Doom("b")]

    def body(group: Group, error: Exception) -> None:
        group.ctx.done().recv_ok()
        raise error

    with pytest.raises(ExceptionGroup) as caught, Group(all_errors=True) as group:
        group.go(body, group, errors[1])
        group.go(body, group, errors[2])
        raise errors[0]
    assert list(caught.value.exceptions) == errors
    with pytest.raises(Doom) as alone, Group(all_errors=True) as group:
        group.go(nothing)
        raise errors[0]
    assert alone.value is errors[0]
    with pytest.raises(SystemExit), Group(all_errors=True) as group:
        group.go(body, group, errors[1])
        raise SystemExit


def test_kill_in_the_block_cancels_the_group_and_waits_for_it() -> None:
    log = []

    def body(group: Group) -> None:
        try:
            until_cancelled(group)
        finally:
            gort.gosched()
            log.append("goroutine")

    def block() -> None:
        try:
            with Group() as group:
                group.go(body, group)
                gort.NIL.recv()
        finally:
            log.append("block")

    g = park(block)
    g.kill()
    assert g.join() is None
    assert log == ["goroutine", "block"]


def test_kill_at_the_end_of_the_block_cancels_the_group_and_waits_for_it() -> None:
    log = []

    def body(group: Group) -> None:
        try:
            until_cancelled(group)
        finally:
            log.append(type(context.cause(group.ctx)))

    def block() -> None:
        with Group() as group:
            group.go(body, group)
        log.append("never")

    g = park(block)
    g.kill()
    assert g.join() is None
    assert log == [gort.GoroutineExit]


def test_a_second_kill_gets_out_of_a_block_whose_goroutines_do_not_heed() -> None:
    gate = gort.Chan[None]()

    def block() -> None:
        with Group() as group:
            group.go(gate.recv)

    g = park(block)
    g.kill()
    settle(g)
    assert g.state == "waiting"
    g.kill()
    assert g.join() is None
    gate.send(None)
    spin_until(lambda: gort.num_goroutine() == 1)


def test_a_deadlock_at_the_end_of_the_block_cancels_the_group() -> None:
    program = """
        import gort
        from gort.errgroup import Group
        def heed(group):
            try:
                gort.NIL.recv(ctx=group.ctx)
            finally:
                print("cancelled")
        try:
            with Group() as group:
                group.go(heed, group)
        except gort.Deadlock:
            print("Deadlock")
        try:
            with Group() as group:
                group.go(gort.NIL.recv)
        except gort.Deadlock:
            print("Deadlock again")
    """
    assert output_of(program) == "cancelled\nDeadlock\nDeadlock again\n"


def test_ctrl_c_at_the_end_of_the_block_cancels_the_group_and_waits_for_it() -> None:
    program = """
        import os, signal, gort
        from gort.errgroup import Group
        def body(group):
            os.kill(os.getpid(), signal.SIGINT)
            try:
                gort.Chan().recv(ctx=group.ctx, timeout=60)
            finally:
                gort.gosched()
                print("goroutine", type(gort.context.cause(group.ctx)).__name__)
        try:
            with Group() as group:
                group.go(body, group)
        except KeyboardInterrupt:
            print("block")
    """
    assert output_of(program) == "goroutine KeyboardInterrupt\nblock\n"


def test_blocks_in_blocks() -> None:
    error, log = Doom(), []

    def inner(outer: Group, i: int) -> None:
        with Group(outer.ctx) as group:
            for _ in range(3):
                group.go(until_cancelled, group)
            log.append(i)
            if i == 2:
                raise error

    with pytest.raises(Doom) as caught, Group() as group:
        for i in range(5):
            group.go(inner, group, i)
    assert caught.value is error
    assert 2 in log


# ---- bad input ------------------------------------------------------------------------------


@pytest.mark.parametrize("fn", [None, 5, "x"])
def test_what_cannot_be_called_raises_type_error_and_takes_no_place(fn: Any) -> None:
    group = Group(limit=1)
    with pytest.raises(TypeError, match=r"^go\(\) needs a callable"):
        group.go(fn)
    with pytest.raises(TypeError, match=r"try_go\(\) needs a callable"):
        group.try_go(fn)
    with pytest.raises(TypeError):
        group.go()  # type: ignore[call-arg]
    assert group.try_go(nothing)
    group.wait()


@pytest.mark.parametrize("limit", [1.0, True, "1", []])
def test_a_limit_that_is_no_int_raises_type_error(limit: Any) -> None:
    with pytest.raises(TypeError, match="limit must be an int or None"):
        Group(limit=limit)
    group = Group(limit=2)
    with pytest.raises(TypeError, match="limit must be an int or None"):
        group.set_limit(limit)
    assert group.limit == 2


def test_a_limit_too_large_raises_value_error() -> None:
    with pytest.raises(ValueError, match="limit is too large"):
        Group(limit=2**63)
    group = Group(limit=2)
    with pytest.raises(ValueError, match="limit is too large"):
        group.set_limit(2**63)
    assert group.limit == 2
    assert [group.try_go(gort.gosched) for _ in range(3)] == [True, True, False]
    group.wait()


@pytest.mark.parametrize("ctx", [5, "ctx", object()])
def test_what_is_no_context_raises_type_error(ctx: Any) -> None:
    with pytest.raises(TypeError, match="ctx must be a context"):
        Group(ctx)
    group, gate = Group(), gort.Chan[None]()
    group.go(gate.recv)
    with pytest.raises(TypeError, match="ctx must be a context"):
        group.wait(ctx=ctx)
    gate.send(None)
    group.wait()


# ---- references, load -------------------------------------------------------------------------


class Thing:
    pass


def test_a_group_goes_away_with_all_it_knows() -> None:
    refs = []

    def body(thing: Thing, group: Group) -> None:
        raise Doom

    for all_errors in (False, True):
        group, thing = Group(all_errors=all_errors), Thing()
        refs += [weakref.ref(group), weakref.ref(thing), weakref.ref(group.ctx)]
        group.go(body, thing, group)
        with pytest.raises((Doom, ExceptionGroup)):
            group.wait()
        del group, thing
    gc.collect()
    assert [r() for r in refs] == [None] * 6


def test_a_group_that_ended_is_let_go_by_its_parent() -> None:
    parent, cancel = context.with_cancel(context.background())
    refs = []
    for _ in range(3):
        with Group(parent) as group:
            group.go(nothing)
        refs.append(weakref.ref(group.ctx))
    del group
    assert [r() for r in refs] == [None] * 3
    cancel()


def test_arguments_are_let_go_when_the_goroutine_ends() -> None:
    group, gate, thing = Group(), gort.Chan[None](), Thing()
    ref = weakref.ref(thing)
    group.go(lambda x: None, thing)
    group.go(gate.recv)
    del thing
    spin_until(lambda: ref() is None)
    gate.send(None)
    group.wait()


def test_nothing_accumulates() -> None:
    parent, cancel = context.with_cancel(context.background())
    flights, limiter = singleflight.Group[int, object](), rate.Limiter(1e9, 10)

    def work() -> None:
        for i in range(100):
            with pytest.raises(Doom), Group(parent, limit=3, all_errors=False) as group:
                group.go(nothing)
                group.go(fail, Doom())
            with Group(parent) as group:
                group.go(nothing)
                group.try_go(gort.goexit)
            flights.do(i, object)
            flights.do_chan(i, object).recv()
            with pytest.raises(Doom):
                flights.do(i, lambda: fail(Doom()))
            limiter.wait(timeout=1)
            limiter.reserve().cancel()

    work()
    gc.collect()
    before = sys.getallocatedblocks()
    work()
    work()
    gc.collect()
    assert sys.getallocatedblocks() - before < 500
    cancel()


def test_threads_and_goroutines_use_one_group() -> None:
    group, done, sem = Group(limit=5), [], Semaphore(5)

    def body() -> None:
        assert sem.try_acquire()
        gort.gosched()
        done.append(1)
        sem.release()

    def start() -> None:
        for _ in range(100):
            group.go(body)

    threads = [PlainThread(start) for _ in range(3)]
    gs = [gort.go(start) for _ in range(3)]
    for g in gs:
        g.join()
    for t in threads:
        t.result()
    group.wait()
    assert len(done) == 600
