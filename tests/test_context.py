"""gort.context beyond Go's own tests: waits, errors, depth, memory, foreign parents, contextvars, bad input."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import gc
import inspect
import math
import pickle
import sys
import traceback
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from model_support import (
    EVERYWHERE,
    PATIENCE,
    HandMadeContext,
    Operation,
    PlainThread,
    from_goroutine,
    operations,
    output_of,
    park,
    settle,
    spin_until,
)

import gort
from gort import context
from gort._core import _runtime
from gort.context import Canceled, DeadlineExceeded, background
from gort.time import now

everywhere = pytest.mark.parametrize("where", EVERYWHERE)
timed = pytest.mark.parametrize("op", operations(timed=True))
DEEP = 20_000


@pytest.fixture(autouse=True)
def leaves_no_deadline_behind() -> Iterator[None]:
    """A pending deadline is hope, and would keep a later test from its deadlock."""
    yield
    gc.collect()
    spin_until(lambda: not any(type(o) is gort.time.Timer for o in gc.get_objects()), "the end of all deadlines")


class Thing:
    """Something to have weak references to."""


def gone(ref: weakref.ref[Any]) -> bool:
    gc.collect()
    return ref() is None


DERIVE: list[Callable[[Any], Any]] = [
    context.with_cancel,
    context.with_cancel_cause,
    lambda parent: context.with_timeout(parent, 3600),
    lambda parent: context.with_deadline(parent, now() + 3600),
]
derivation = pytest.mark.parametrize("derive", DERIVE, ids=["cancel", "cause", "timeout", "deadline"])


def derived(parent: Any) -> list[Any]:
    """One of each kind, with the functions that end them."""
    return [derive(parent) for derive in DERIVE]


# ---- a context by itself ---------------------------------------------------------------------


def test_done_is_the_same_channel_each_time() -> None:
    for ctx, cancel in derived(background()):
        done = ctx.done()
        assert done is ctx.done()
        assert not done.closed
        cancel()
        assert done is ctx.done()
        assert done.closed


def test_done_of_a_context_that_had_ended_before() -> None:
    ctx, cancel = context.with_cancel(background())
    cancel()
    assert ctx.done() is ctx.done()
    assert ctx.done().closed


@pytest.mark.parametrize("ctx", [background(), context.todo(), context.with_value(background(), 1, 1)])
def test_what_never_ends_has_the_nil_channel(ctx: Any) -> None:
    assert ctx.done() is gort.NIL
    assert ctx.deadline() is None
    with pytest.raises(TimeoutError, match="timed out"):
        ctx.wait(timeout=0.001)


def test_a_value_is_otherwise_its_parent() -> None:
    ctx, cancel = context.with_timeout(background(), 3600)
    inner = context.with_value(context.with_value(ctx, 1, 1), 2, 2)
    assert inner.done() is ctx.done()
    assert inner.deadline() == ctx.deadline()
    cancel()
    assert inner.err() is ctx.err()
    assert inner.wait() is ctx.err()
    assert context.cause(inner) is ctx.err()


def test_values_of_a_canceled_context_stay() -> None:
    ctx, cancel = context.with_cancel(context.with_value(background(), "k", "v"))
    cancel()
    assert ctx.value("k") == "v"
    assert ctx.value("other") is None
    assert ctx.value(None) is None


def test_keys_are_compared_by_identity_or_equality() -> None:
    class Never:
        def __eq__(self, other: object) -> bool:
            return False

        __hash__ = None  # type: ignore[assignment]

    key = Never()
    ctx = context.with_value(background(), key, "never")
    assert ctx.value(key) == "never"
    assert ctx.value(Never()) is None
    assert context.with_value(ctx, (1, [2]), "x").value((1, [2])) == "x"


def test_a_comparison_that_raises_comes_out() -> None:
    class Bad:
        def __eq__(self, other: object) -> bool:
            raise LookupError("no")

        __hash__ = None  # type: ignore[assignment]

    with pytest.raises(LookupError):
        context.with_value(background(), Bad(), 1).value(2)


@everywhere
def test_wait_returns_the_error(where: Any) -> None:
    ctx, cancel = context.with_cancel(background())
    g = gort.go(cancel)
    assert isinstance(where(ctx.wait), Canceled)
    assert ctx.wait(timeout=0) is ctx.err()
    g.join()


@everywhere
def test_wait_raises_after_its_timeout_and_the_context_lives_on(where: Any) -> None:
    ctx, cancel = context.with_cancel(background())
    with pytest.raises(TimeoutError, match="timed out") as caught:
        where(lambda: ctx.wait(timeout=0.001))
    assert type(caught.value) is TimeoutError
    with pytest.raises(TimeoutError):
        where(lambda: ctx.wait(timeout=0))
    assert ctx.err() is None
    cancel()


def test_wait_ends_with_another_context() -> None:
    ctx, cancel = context.with_cancel(background())
    other, cancel_other = context.with_cancel(background())
    g = park(lambda: ctx.wait(ctx=other))
    assert g.wait_reason == "chan receive"
    cancel_other()
    with pytest.raises(Canceled):
        g.join()
    assert ctx.err() is None
    cancel()


@everywhere
def test_cancel_works_from_everywhere(where: Any) -> None:
    ctx, cancel = context.with_cancel(background())
    child, _ = context.with_timeout(ctx, 3600)
    g = park(child.wait)
    where(cancel)
    assert isinstance(g.join(), Canceled)


def test_cancel_is_idempotent_and_the_first_cause_wins() -> None:
    ctx, cancel = context.with_cancel_cause(background())
    first, second = RuntimeError("first"), RuntimeError("second")
    cancel(cause=first)
    error = ctx.err()
    cancel(second)
    cancel()
    assert context.cause(ctx) is first
    assert ctx.err() is error


def test_cancel_is_a_function() -> None:
    _, cancel = context.with_cancel(background())
    stop = context.after_func(background(), print)
    for fn, name in ((cancel, "cancel"), (stop, "stop")):
        assert inspect.isroutine(fn)
        assert fn.__name__ == name
        assert inspect.getdoc(fn)
    assert str(inspect.signature(context.with_cancel_cause(background())[1])) == "(cause=None)"
    assert stop()


def test_canceled_by_many_threads_at_once() -> None:
    for _ in range(20):
        ctx, cancel = context.with_cancel_cause(background())
        child, _ = context.with_cancel(ctx)
        causes = [RuntimeError(str(i)) for i in range(4)]
        threads = [PlainThread(cancel, cause) for cause in causes]
        for thread in threads:
            thread.result()
        assert context.cause(ctx) in causes
        assert context.cause(child) is context.cause(ctx)


# ---- deadlines ---------------------------------------------------------------------------------


def test_the_deadline_is_on_the_scale_of_now() -> None:
    before = now()
    ctx, cancel = context.with_timeout(background(), 5)
    deadline = ctx.deadline()
    assert deadline is not None
    assert before + 5 <= deadline <= now() + 5
    when = now() + 7.25
    ctx2, cancel2 = context.with_deadline(ctx, when)
    assert ctx2.deadline() == deadline, "the parent's comes first"
    ctx3, cancel3 = context.with_deadline(background(), when)
    assert ctx3.deadline() == when
    for end in (cancel, cancel2, cancel3):
        end()
    assert ctx3.deadline() == when, "also after the end"


def test_the_deadline_goes_down_the_tree() -> None:
    top, cancel = context.with_timeout(background(), 5)
    ctx, _ = context.with_cancel(context.with_value(top, 1, 1))
    lower, _ = context.with_timeout(ctx, 1)
    assert ctx.deadline() == top.deadline()
    assert lower.deadline() < top.deadline()  # type: ignore[operator]
    assert context.without_cancel(lower).deadline() is None
    cancel()


def test_a_context_does_not_end_before_its_deadline() -> None:
    for _ in range(20):
        ctx, cancel = context.with_timeout(background(), 0.001)
        ctx.wait()
        assert now() >= ctx.deadline() - 1e-6  # type: ignore[operator]
        cancel()


def test_a_child_ends_with_its_parents_deadline_and_cause() -> None:
    late = RuntimeError("late")
    ctx, cancel = context.with_timeout(background(), 0.001, late)
    child, cancel_child = context.with_timeout(ctx, 3600, RuntimeError("later"))
    assert isinstance(child.wait(timeout=PATIENCE), DeadlineExceeded)
    assert context.cause(child) is context.cause(ctx) is late
    cancel_child()
    cancel()


@pytest.mark.parametrize("seconds", [math.inf, 1e300, 10**400, 9e9])
def test_endless_timeouts_are_no_deadline(seconds: Any) -> None:
    ctx, cancel = context.with_timeout(background(), seconds)
    assert ctx.deadline() is None
    assert ctx.err() is None
    cancel()
    assert isinstance(ctx.err(), Canceled)


@pytest.mark.parametrize("seconds", [0, -1, -math.inf, -(10**400), 0.0])
def test_a_timeout_of_nothing_or_less(seconds: Any) -> None:
    ctx, cancel = context.with_timeout(background(), seconds)
    assert isinstance(ctx.err(), DeadlineExceeded)
    cancel()


def test_many_deadlines_at_once() -> None:
    contexts = [context.with_timeout(background(), 0.001 * (i % 7))[0] for i in range(500)]
    assert all(isinstance(ctx.wait(timeout=PATIENCE), DeadlineExceeded) for ctx in contexts)


def test_a_cancelled_deadline_does_not_fire() -> None:
    ctx, cancel = context.with_timeout(background(), 0.001, RuntimeError("late"))
    cancel()
    witness, _ = context.with_timeout(background(), 0.002)
    assert isinstance(witness.wait(timeout=PATIENCE), DeadlineExceeded)
    assert isinstance(ctx.err(), Canceled)
    assert context.cause(ctx) is ctx.err()


# ---- errors ------------------------------------------------------------------------------------


def test_the_error_is_one_until_it_is_raised() -> None:
    parent, cancel = context.with_cancel(background())
    child, _ = context.with_cancel(parent)
    cancel()
    error = parent.err()
    assert error is parent.err() is child.err() is context.cause(child)
    with pytest.raises(Canceled) as caught:
        raise error  # type: ignore[misc]
    assert caught.value is error
    assert parent.err() is not error
    assert parent.err() is parent.err() is child.err()


@everywhere
def test_raising_the_error_again_and_again_grows_no_traceback(where: Any) -> None:
    ctx, cancel = context.with_cancel(background())
    cancel()
    depths = set()

    def body() -> None:
        for _ in range(20):
            try:
                raise ctx.err()  # type: ignore[misc]
            except Canceled as e:
                depths.add(len(traceback.extract_tb(e.__traceback__)))
                assert e.__context__ is None

    where(body)
    assert depths == {1}


def test_each_wait_raises_an_error_of_its_own() -> None:
    ctx, cancel = context.with_cancel(background())
    error = None
    waiters = [park(gort.Chan().recv, ctx=ctx) for _ in range(3)]
    cancel()
    error = ctx.err()
    raised = []
    for g in waiters:
        with pytest.raises(Canceled) as caught:
            g.join()
        raised.append(caught.value)
    assert len({id(e) for e in (*raised, error)}) == 4
    assert ctx.err() is error, "it was not raised"
    assert error is not None and error.__traceback__ is None


def test_a_wait_leaves_no_frames_with_the_context() -> None:
    ctx, cancel = context.with_cancel(background())
    cancel()
    refs = []

    def body() -> None:
        local = Thing()
        refs.append(weakref.ref(local))
        gort.Chan().recv(ctx=ctx)

    with pytest.raises(Canceled):
        body()
    assert gone(refs[0])
    assert ctx.err() is not None


def test_the_cause_is_the_causes_cause() -> None:
    because = RuntimeError("because")
    ctx, cancel = context.with_cancel_cause(background())
    cancel(because)
    with pytest.raises(Canceled) as caught:
        gort.sleep(5, ctx=ctx)
    assert caught.value.__cause__ is because
    assert ctx.err().__cause__ is because  # type: ignore[union-attr]
    assert because.__traceback__ is None
    late, _ = context.with_timeout(background(), 0, because)
    with pytest.raises(DeadlineExceeded) as caught2:
        gort.Chan().recv(ctx=late)
    assert caught2.value.__cause__ is because


def test_any_exception_may_be_a_cause() -> None:
    for cause in (GeneratorExit(), KeyboardInterrupt(), gort.GoroutineExit(), ExceptionGroup("g", [ValueError()])):
        ctx, cancel = context.with_cancel_cause(background())
        cancel(cause)
        assert context.cause(ctx) is cause


@pytest.mark.parametrize("cls", [Canceled, DeadlineExceeded])
def test_the_exceptions(cls: Any) -> None:
    assert cls.__module__ == "gort.context"
    assert str(cls("no time")) == "no time"
    twin = pickle.loads(pickle.dumps(cls("x")))
    assert (type(twin), twin.args) == (cls, ("x",))
    assert type(copy.copy(cls())) is cls


# ---- ctx= ----------------------------------------------------------------------------------------


@timed
@everywhere
def test_every_wait_ends_with_a_cancelled_context(op: Operation, where: Any) -> None:
    wait = op.make()
    ctx, cancel = context.with_cancel(background())
    canceler = gort.go(cancel)

    def body() -> None:
        with pytest.raises(Canceled):
            wait.call(ctx=ctx)

    where(body)
    canceler.join()
    wait.untouched()


@timed
def test_every_wait_ends_with_a_deadline(op: Operation) -> None:
    wait = op.make()
    with context.timeout(0.002) as ctx, pytest.raises(DeadlineExceeded):
        wait.call(ctx=context.with_value(ctx, "key", "value"))
    wait.untouched()


@timed
def test_no_wait_begins_with_a_context_that_has_ended(op: Operation) -> None:
    wait = op.make()
    ctx, cancel = context.with_cancel(background())
    cancel()
    for c in (ctx, context.with_value(ctx, 1, 2)):
        with pytest.raises(Canceled):
            wait.call(ctx=c)
        with pytest.raises(Canceled):
            wait.call(ctx=c, timeout=0)
    wait.untouched()


@timed
@pytest.mark.parametrize("ctx", [background(), context.without_cancel(background())])
def test_a_wait_with_a_context_that_never_ends(op: Operation, ctx: Any) -> None:
    wait = op.make()
    with pytest.raises(TimeoutError, match="timed out"):
        wait.call(ctx=ctx, timeout=0)
    g = park(lambda: wait.call(ctx=ctx))
    g.kill()
    g.join()
    wait.untouched()


@timed
def test_a_kill_while_waiting_with_a_context(op: Operation) -> None:
    wait = op.make()
    ctx, cancel = context.with_cancel(background())
    g = park(lambda: wait.call(ctx=ctx))
    g.kill()
    g.join()
    cancel()
    wait.untouched()


def test_sleep_ends_with_its_context() -> None:
    ctx, cancel = context.with_cancel(background())
    g = park(lambda: gort.sleep(3600, ctx=ctx))
    cancel()
    with pytest.raises(Canceled):
        g.join()


def test_a_thousand_waiters_on_one_context() -> None:
    ctx, cancel = context.with_cancel(background())
    waiters = [gort.go(ctx.wait) for _ in range(1000)]
    settle(*waiters)
    cancel()
    errors = {id(g.join()) for g in waiters}
    assert errors == {id(ctx.err())}


def test_a_killed_waiter_leaves_the_context_as_it_was() -> None:
    ctx, cancel = context.with_cancel(background())
    killed, waiter = park(ctx.wait), park(ctx.wait)
    killed.kill()
    assert killed.join() is None
    assert waiter.state == "waiting"
    cancel()
    assert waiter.join() is ctx.err()


def test_waiting_for_what_never_ends_is_a_deadlock() -> None:
    out = output_of(
        """
        import gort
        from gort import context

        for ctx in (context.background(), context.with_cancel(context.background())[0]):
            try:
                ctx.wait()
            except gort.Deadlock as e:
                print("chan receive" in str(e))
        ctx, _ = context.with_timeout(context.background(), 0.01)
        try:
            gort.NIL.recv(ctx=ctx)
        except context.DeadlineExceeded:
            print("in time")
        """
    )
    assert out.split("\n")[:3] == ["True", "True", "in time"]


# ---- trees: deep, wide, changing ------------------------------------------------------------------


def deep(kind: str, n: int = DEEP) -> tuple[list[Any], Callable[[], None]]:
    top, cancel = context.with_cancel(background())
    chain: list[Any] = [top]
    for i in range(n):
        if kind == "value" or (kind == "mixed" and i % 2):
            chain.append(context.with_value(chain[-1], i, i))
        else:
            chain.append(context.with_cancel(chain[-1])[0])
    return chain, cancel


@pytest.mark.parametrize("kind", ["cancel", "value", "mixed"])
@pytest.mark.parametrize("where", EVERYWHERE)
def test_a_deep_tree(kind: str, where: Any) -> None:
    """In a goroutine the C stack is small: nothing may recurse."""

    def body() -> None:
        chain, cancel = deep(kind)
        leaf = chain[-1]
        assert leaf.value("nobody's") is None
        if kind == "value":
            assert leaf.value(0) == 0
        assert repr(leaf).count(".With") == DEEP + 1
        assert leaf.deadline() is None
        if kind != "cancel":
            ref = weakref.ref(chain[0])
        else:
            ref = weakref.ref(chain[1])
        cancel()
        assert all(type(ctx.err()) is Canceled for ctx in chain)
        del chain, cancel, leaf
        assert gone(ref)

    where(body)


@pytest.mark.parametrize("kind", ["cancel", "value", "mixed"])
def test_a_deep_tree_that_nobody_cancels_is_collected(kind: str) -> None:
    def body() -> None:
        chain, cancel = deep(kind)
        ref = weakref.ref(chain[0])
        leaf = weakref.ref(chain[-1])
        del chain, cancel
        assert gone(ref)
        assert gone(leaf)

    from_goroutine(body)


def test_a_deep_chain_without_cancellation_goes_without_the_collector() -> None:
    def body() -> None:
        ctx = top = context.with_value(background(), "top", 1)
        for i in range(DEEP):
            ctx = context.with_value(context.without_cancel(ctx), i, i)
        ref = weakref.ref(top)
        del top
        gc.disable()
        try:
            del ctx
            assert ref() is None
        finally:
            gc.enable()

    from_goroutine(body)


def test_a_wide_tree_ends_as_one() -> None:
    root, cancel = context.with_cancel(background())
    leaves = [context.with_cancel(context.with_value(root, i, i))[0] for i in range(10_000)]
    waiters = [park(leaves[i].wait) for i in (0, 5_000, 9_999)]
    cancel()
    assert all(leaf.err() is root.err() for leaf in leaves)
    assert [g.join() for g in waiters] == [root.err()] * 3


def test_children_leave_in_any_order() -> None:
    root, cancel = context.with_cancel(background())
    pairs = [context.with_cancel(root) for _ in range(9)]
    for i in (0, 8, 4, 3, 5):
        pairs[i][1]()
    left = [pairs[i][0] for i in (1, 2, 6, 7)]
    assert [ctx.err() for ctx in left] == [None] * 4
    refs = [weakref.ref(ctx) for ctx, _ in pairs]
    del pairs
    gc.collect()
    assert [i for i, ref in enumerate(refs) if ref() is not None] == [1, 2, 6, 7]
    late, _ = context.with_cancel(root)
    cancel()
    assert all(isinstance(ctx.err(), Canceled) for ctx in (*left, late))


def test_a_subtree_ends_alone() -> None:
    root, cancel = context.with_cancel(background())
    a, cancel_a = context.with_cancel_cause(root)
    b, _ = context.with_cancel(root)
    a1, a2 = context.with_cancel(a)[0], context.with_timeout(a, 3600)[0]
    because = RuntimeError("because")
    cancel_a(because)
    assert [context.cause(ctx) for ctx in (root, a, a1, a2, b)] == [None, because, because, because, None]
    cancel()
    assert context.cause(a1) is because
    assert isinstance(context.cause(b), Canceled)


@pytest.mark.stress
def test_trees_that_threads_and_goroutines_change_at_once() -> None:
    """Deriving, cancelling from below, waiting and timers, while the root is cancelled."""

    def work(k: int, root: Any, found: list[Any], enough: list[bool]) -> None:
        for n in range(300):
            if enough:
                break
            parent = found[(k * 31 + n * 17) % len(found)] if found and n % 3 else root
            ctx, end = context.with_timeout(parent, 0.0005) if n % 5 == 0 else context.with_cancel(parent)
            context.after_func(ctx, lambda: None)
            found.append(ctx)
            if n % 4 == 0:
                end()
            if n % 8 == 0:
                gort.gosched()

    for seed in range(20):
        root, cancel = context.with_cancel_cause(background())
        because = RuntimeError(str(seed))
        all_of_them: list[Any] = []
        enough: list[bool] = []
        threads = [PlainThread(work, k, root, all_of_them, enough) for k in range(2)]
        goroutines = [gort.go(work, k, root, all_of_them, enough) for k in range(2, 5)]
        spin_until(lambda found=all_of_them: len(found) > 200, "some contexts")
        cancel(because)
        enough.append(True)
        for thread in threads:
            thread.result()
        for g in goroutines:
            g.join()
        for ctx in all_of_them:
            assert isinstance(ctx.wait(timeout=PATIENCE), (Canceled, DeadlineExceeded))
        spin_until(lambda: gort.num_goroutine() == 1, "the functions' end")


# ---- memory ------------------------------------------------------------------------------------------


@derivation
def test_a_cancelled_context_goes_at_once(derive: Callable[[Any], Any]) -> None:
    ctx, cancel = derive(background())
    ref = weakref.ref(ctx)
    gc.disable()
    try:
        ctx.done()
        cancel()
        assert ctx.err() is not None
        del ctx, cancel
        assert ref() is None
    finally:
        gc.enable()


@derivation
def test_a_child_that_is_not_cancelled_stays_until_its_parent_ends(derive: Callable[[Any], Any]) -> None:
    parent, cancel = context.with_cancel(background())
    ref = weakref.ref(derive(parent)[0])
    assert not gone(ref)
    cancel()
    assert gone(ref)


def test_a_context_with_a_deadline_stays_until_then() -> None:
    """after_func() counts on it, though nobody else has the context."""
    called = gort.Chan[str]()
    context.after_func(context.with_timeout(background(), 0.002)[0], lambda: called.send("called"))
    gc.collect()
    assert called.recv(timeout=PATIENCE) == "called"


def test_reference_counts_come_back() -> None:
    parent, cancel = context.with_cancel(background())
    key, value, cause, fn = Thing(), Thing(), RuntimeError(), lambda: None
    things = (parent, key, value, cause, fn)
    gc.collect()
    before = [sys.getrefcount(x) for x in things]
    for _ in range(100):
        ctx, end = context.with_cancel_cause(context.with_value(parent, key, value))
        child, end_child = context.with_timeout(ctx, 3600, cause)
        stop = context.after_func(child, fn)
        end(cause)
        assert not stop()
        assert ctx.value(key) is value
        assert context.cause(child) is cause
        end_child()
        stop = context.after_func(parent, fn)
        assert stop()
    del ctx, end, child, end_child, stop
    spin_until(lambda: gort.num_goroutine() == 1)
    gc.collect()
    assert [sys.getrefcount(x) for x in things] == before
    cancel()


@pytest.mark.parametrize("i", range(4))
def test_cycles_through_values_are_collected(i: int) -> None:
    holder = Thing()
    holder.ctx = context.with_value(background(), "self", holder)  # type: ignore[attr-defined]
    if i < 2:
        make = (context.with_cancel, context.with_cancel_cause)[i]
        holder.ctx, holder.cancel = make(holder.ctx)  # type: ignore[attr-defined]
        holder.child, holder.cancel_child = context.with_cancel(holder.ctx)  # type: ignore[attr-defined]
        holder.stop = context.after_func(holder.ctx, holder.ctx.err)  # type: ignore[attr-defined]
    elif i == 2:
        holder.ctx = context.without_cancel(holder.ctx)  # type: ignore[attr-defined]
    else:
        holder.ctx, cancel = context.with_cancel_cause(holder.ctx)  # type: ignore[attr-defined]
        cause = RuntimeError()
        cause.holder = holder  # type: ignore[attr-defined]
        cancel(cause)
        del cancel, cause
    ref = weakref.ref(holder)
    del holder
    assert gone(ref)


def test_the_collector_sees_the_children_of_a_living_context() -> None:
    root, cancel = context.with_cancel(background())
    thing = Thing()
    context.with_cancel(context.with_value(root, "thing", thing))
    ref = weakref.ref(thing)
    del thing
    assert not gone(ref)
    assert any(isinstance(o, context.Context) for o in gc.get_referents(root))
    cancel()
    assert gone(ref)


def test_finalisers_may_use_the_tree_that_is_ending() -> None:
    root, cancel = context.with_cancel(background())
    seen: list[Any] = []

    class Noisy:
        def __del__(self) -> None:
            ctx, end = context.with_cancel(root)
            seen.append((root.err(), ctx.err()))
            end()
            cancel()
            gort.gosched()

    for i in range(50):
        context.with_cancel(context.with_value(root, i, Noisy()))
    cancel()
    assert len(seen) == 50
    assert all(above is below is not None for above, below in seen)


def test_no_memory_for_a_channel() -> None:
    ctx, cancel = context.with_cancel(background())
    _runtime.fail_next("malloc")
    try:
        with pytest.raises(MemoryError):
            ctx.done()
    finally:
        _runtime.fail_next("malloc", times=0)
    assert not ctx.done().closed
    cancel()
    assert ctx.done().closed


# ---- after_func ------------------------------------------------------------------------------------------


def test_after_func_runs_once_in_a_goroutine_of_its_own() -> None:
    ctx, cancel = context.with_cancel(background())
    ran: list[Any] = []
    stops = [context.after_func(ctx, lambda: ran.append(gort.current())) for _ in range(3)]
    assert stops[1]()
    cancel()
    cancel()
    assert ran == [], "cancel does not run it itself"
    spin_until(lambda: len(ran) == 2)
    assert len({g.id for g in ran}) == 2
    assert [stop() for stop in stops] == [False] * 3


def test_the_functions_of_a_whole_tree_run() -> None:
    ctx, cancel = context.with_cancel(background())
    ran: list[int] = []
    for i in range(100):
        child, _ = context.with_cancel(ctx)
        context.after_func(context.with_value(child, 1, 1), lambda i=i: ran.append(i))
    cancel()
    spin_until(lambda: len(ran) == 100)
    assert sorted(ran) == list(range(100))


def test_a_function_that_raises_goes_to_the_excepthook(panics: list[Any]) -> None:
    ctx, cancel = context.with_cancel(background())

    def bad() -> None:
        raise LookupError("bad")

    context.after_func(ctx, bad)
    cancel()
    spin_until(lambda: panics)
    assert isinstance(panics[0][1], LookupError)


def test_after_func_of_what_never_ends() -> None:
    stop = context.after_func(background(), print)
    assert stop() is True
    assert stop() is False


def test_stop_from_many_threads_is_true_once() -> None:
    for _ in range(20):
        ctx, cancel = context.with_cancel(background())
        ran: list[int] = []
        stop = context.after_func(ctx, lambda ran=ran: ran.append(1))
        threads = [PlainThread(stop) for _ in range(3)]
        cancel()
        stopped = [t.result() for t in threads].count(True)
        spin_until(lambda: gort.num_goroutine() == 1)
        assert stopped + len(ran) == 1


# ---- foreign parents --------------------------------------------------------------------------------------


class Wrapper:
    """Forwards to another context, which may be exchanged."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def test_a_hand_made_parent() -> None:
    parent = HandMadeContext()
    ctx, cancel = context.with_cancel(context.with_value(parent, 1, 2))
    stopped, _ = context.with_cancel(parent)
    child, _ = context.with_timeout(ctx, 3600)
    spin_until(lambda: gort.num_goroutine() == 3)
    settle(*_runtime_watchers())
    assert ctx.err() is None
    error = LookupError("my own")
    parent.end(error)
    assert ctx.wait(timeout=PATIENCE) is error
    assert context.cause(child) is child.err() is stopped.wait() is error
    with pytest.raises(LookupError) as caught:
        gort.Chan().recv(ctx=child)
    assert caught.value is error
    cancel()


def _runtime_watchers() -> list[Any]:
    return [g for g in gc.get_objects() if isinstance(g, gort.Goroutine) and g.name == "gort.context.watch"]


def test_a_hand_made_parent_that_has_ended() -> None:
    parent = HandMadeContext()
    error = LookupError()
    parent.end(error)
    for ctx, cancel in derived(parent):
        assert ctx.err() is error
        cancel()
    called = gort.Chan[int](1)
    stop = context.after_func(parent, lambda: called.send(1))
    assert called.recv() == 1
    assert not stop()


def test_the_watching_goroutine_ends_with_the_child() -> None:
    parent = HandMadeContext()
    _, cancel = context.with_cancel(parent)
    spin_until(lambda: gort.num_goroutine() == 2)
    cancel()
    spin_until(lambda: gort.num_goroutine() == 1)


def test_a_hand_made_parent_from_a_plain_thread() -> None:
    parent = HandMadeContext()
    ctx, _ = PlainThread(context.with_cancel, parent).result()
    PlainThread(parent.end, LookupError()).result()
    assert isinstance(PlainThread(ctx.wait).result(), LookupError)


def test_the_deadline_of_a_foreign_parent() -> None:
    parent: Any = HandMadeContext()
    parent.deadline = lambda: 5.0
    ctx, cancel = context.with_cancel(context.with_value(parent, 1, 1))
    later, cancel_later = context.with_deadline(ctx, now() + 10)
    assert ctx.deadline() == later.deadline() == 5.0
    parent.deadline = lambda: None
    assert ctx.deadline() is None
    cancel()
    cancel_later()


def test_a_subclass_of_context() -> None:
    class Mine(context.Context):
        def __init__(self) -> None:
            self.ch = gort.Chan[None]()

        def done(self) -> gort.Chan[Any]:
            return self.ch

        def err(self) -> BaseException | None:
            return DeadlineExceeded("mine") if self.ch.closed else None

        def value(self, key: object) -> object:
            return 7 if key == "seven" else None

    mine = Mine()
    ctx, cancel = context.with_cancel(mine)
    assert ctx.value("seven") == 7
    assert "Mine" in repr(mine)
    assert repr(ctx) == repr(mine) + ".WithCancel"
    g = park(mine.wait)
    mine.ch.close()
    assert str(g.join()) == "mine"
    assert isinstance(ctx.wait(timeout=PATIENCE), DeadlineExceeded)
    cancel()
    plain = context.Context()
    assert (plain.deadline(), plain.done(), plain.err(), plain.value(1)) == (None, gort.NIL, None, None)


def test_the_repr_of_a_foreign_parent() -> None:
    class Shown(HandMadeContext):
        def __repr__(self) -> str:
            return "<shown>"

    assert repr(context.without_cancel(Shown())) == "<shown>.WithoutCancel"
    assert repr(context.without_cancel(HandMadeContext())).startswith("model_support.HandMadeContext.")


def test_a_view_as_done_channel() -> None:
    parent: Any = HandMadeContext()
    view = parent._done.receiver()
    parent.done = lambda: view
    ctx, _ = context.with_cancel(parent)
    parent.end(Canceled())
    assert isinstance(ctx.wait(timeout=PATIENCE), Canceled)


def test_a_parent_that_ended_without_an_error_counts_as_canceled() -> None:
    parent: Any = HandMadeContext()
    ctx, _ = context.with_cancel(parent)
    parent.end(None)
    assert isinstance(ctx.wait(timeout=PATIENCE), Canceled)
    assert isinstance(context.with_cancel(parent)[0].err(), Canceled)
    with pytest.raises(Canceled):
        gort.Chan().recv(ctx=parent)


def test_an_error_of_a_foreign_parent_is_reported_and_the_child_ends(panics: list[Any]) -> None:
    parent: Any = HandMadeContext()
    ctx, _ = context.with_cancel(parent)

    def bad() -> None:
        raise LookupError("bad")

    parent.err = bad
    parent._done.close()
    assert isinstance(ctx.wait(timeout=PATIENCE), Canceled)
    spin_until(lambda: panics)
    assert isinstance(panics[0][1], LookupError)
    with pytest.raises(LookupError):
        context.with_cancel(parent)
    parent.err = lambda: "no exception"
    with pytest.raises(TypeError, match="no exception"):
        context.with_cancel(parent)


def test_waiting_with_a_wrapper_and_with_values_above_foreign_contexts() -> None:
    inner, cancel = context.with_cancel(background())
    hand_made = HandMadeContext()
    error = LookupError()
    contexts = [Wrapper(inner), context.with_value(Wrapper(inner), 1, 1), context.with_value(hand_made, 1, 1)]
    waiters = [park(gort.Chan().recv, ctx=ctx) for ctx in contexts]
    cancel()
    hand_made.end(error)
    for g, kind in zip(waiters, (Canceled, Canceled, LookupError), strict=True):
        with pytest.raises(kind):
            g.join()
    assert contexts[2].err() is error


def test_a_wrapper_that_lets_its_context_go() -> None:
    """The child stands in the list of a context that nobody has any more."""
    inner, cancel_inner = context.with_cancel(background())
    wrapper = Wrapper(inner)
    ctx, cancel = context.with_cancel(wrapper)
    assert gort.num_goroutine() == 1
    ref = weakref.ref(inner)
    wrapper.inner = background()
    del inner, cancel_inner
    assert gone(ref)
    assert ctx.err() is None
    child, _ = context.with_cancel(ctx)
    cancel()
    assert isinstance(child.err(), Canceled)


class Registry(HandMadeContext):
    """A foreign context with `after_func`, which does as it is told."""

    def __init__(self, register: Callable[[Any], Any]) -> None:
        super().__init__()
        self.after_func = register


def test_after_func_of_a_foreign_parent_may_call_at_once() -> None:
    parent: Any = Registry(lambda fn: fn() or (lambda: False))
    ctx, cancel = context.with_cancel(parent)
    assert isinstance(ctx.err(), Canceled)
    cancel()


def test_what_stop_of_a_foreign_parent_raises_comes_out_after_the_end() -> None:
    def stop() -> bool:
        raise LookupError("stop")

    ctx, cancel = context.with_cancel(Registry(lambda fn: stop))
    child, _ = context.with_cancel(ctx)
    with pytest.raises(LookupError):
        cancel()
    assert isinstance(child.err(), Canceled)
    cancel()


def test_a_bad_after_func_of_a_foreign_parent() -> None:
    def bad(fn: Any) -> None:
        raise LookupError("bad")

    with pytest.raises(LookupError):
        context.with_cancel(Registry(bad))
    with pytest.raises(TypeError, match="after_func"):
        context.with_cancel(Registry(lambda fn: None))


# ---- contextvars ------------------------------------------------------------------------------------------


def test_current_is_background_at_first() -> None:
    assert context.current() is background()
    assert from_goroutine(context.current) is background()
    assert PlainThread(context.current).result() is background()


def test_use_binds_for_the_block() -> None:
    a, b = context.with_value(background(), "a", 1), HandMadeContext()
    with context.use(a) as got:
        assert got is context.current() is a
        with pytest.raises(LookupError), context.use(b):
            assert context.current() is b
            raise LookupError
        assert context.current() is a
    assert context.current() is background()


@pytest.mark.parametrize("make", [lambda **kw: context.timeout(3600, **kw), context.cancelable])
def test_a_block_is_current_and_is_cancelled_at_its_end(make: Any) -> None:
    outer = context.with_value(background(), "k", "v")
    with context.use(outer):
        with make() as ctx:
            assert context.current() is ctx
            assert ctx.value("k") == "v"
            with make() as inner:
                assert context.current() is inner
            assert isinstance(inner.err(), Canceled)
            assert ctx.err() is None
            with make(parent=background()) as other:
                assert other.value("k") is None
        assert isinstance(ctx.err(), Canceled)
        assert context.current() is outer
    with pytest.raises(LookupError), make() as ctx:
        raise LookupError
    assert isinstance(ctx.err(), Canceled)
    assert context.current() is background()


def test_the_time_of_a_timeout_block_starts_with_the_block() -> None:
    block = context.timeout(5)
    before = now()
    with block as ctx:
        assert ctx.deadline() >= before + 5  # type: ignore[operator]
    late = RuntimeError("late")
    with context.timeout(0, cause=late) as ctx:
        assert context.cause(ctx) is late
    with context.timeout(0.001) as ctx:
        with pytest.raises(DeadlineExceeded):
            gort.NIL.recv(ctx=ctx)
        assert isinstance(ctx.err(), DeadlineExceeded)


@pytest.mark.parametrize("make", [context.cancelable, lambda: context.timeout(1), lambda: context.use(background())])
def test_a_block_may_be_used_again_but_not_within_itself(make: Any) -> None:
    block = make()
    for _ in range(2):
        with block, pytest.raises(RuntimeError, match="entered"), block:
            pass
    assert context.current() is background()


def test_a_block_that_is_killed_cancels_its_context() -> None:
    seen: list[Any] = []

    def body() -> None:
        with context.cancelable() as ctx:
            seen.append(ctx)
            gort.NIL.recv()

    g = park(body)
    g.kill()
    g.join()
    assert isinstance(seen[0].err(), Canceled)


def test_a_goroutine_inherits_nothing_unless_it_is_told() -> None:
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="default")
    token = var.set("main's")
    ctx = context.with_value(background(), "k", "v")
    with context.use(ctx):
        assert gort.go(context.current).join() is background()
        assert gort.go(var.get).join() == "default"
        assert context.go(ctx, context.current).join() is ctx
        assert context.go(background(), context.current).join() is background()
        assert gort.go(contextvars.copy_context().run, var.get).join() == "main's"
        assert gort.go(contextvars.copy_context().run, context.current).join() is ctx
    var.reset(token)


def test_what_a_goroutine_binds_is_its_own() -> None:
    a, b = (context.with_value(background(), "k", x) for x in "ab")
    gate = gort.Chan[None]()

    def body() -> Any:
        first = context.current().value("k")
        with context.cancelable():
            gate.recv_ok()
            return first, context.current().value("k")

    gs = [context.go(ctx, body) for ctx in (a, b, a)]
    settle(*gs)
    assert context.current() is background()
    gate.close()
    assert [g.join() for g in gs] == [("a", "a"), ("b", "b"), ("a", "a")]
    assert gort.go(context.current).join() is background(), "nothing is left on a stack used again"


def test_context_go_starts_a_function_with_its_arguments() -> None:
    def fn(*args: int, **kwargs: int) -> tuple[object, ...]:
        return args, kwargs, context.current()

    ctx, cancel = context.with_cancel(background())
    g = context.go(ctx, fn, 1, 2, ctx=3, fn=4)
    assert g.name == fn.__qualname__
    assert g.join() == ((1, 2), {"ctx": 3, "fn": 4}, ctx)
    cancel()
    assert context.go(ctx, fn).join() == ((), {}, ctx), "the end of the context ends no goroutine"

    def bad() -> None:
        raise LookupError("bad")

    with pytest.raises(LookupError):
        context.go(ctx, bad).join()


def test_current_in_asyncio_tasks() -> None:
    ctx = context.with_value(background(), "k", "v")

    async def task() -> object:
        return context.current()

    async def main() -> object:
        with context.use(ctx):
            return await asyncio.create_task(task())

    assert asyncio.run(main()) is ctx


# ---- bad input ------------------------------------------------------------------------------------------------


class NoValue:
    deadline = done = err = staticmethod(lambda: None)


C: Any = context  # what type checkers would find is the matter here
BAD: list[Any] = [
    (lambda: C.with_cancel(5), TypeError, "parent must be a context, not 5"),
    (lambda: C.with_cancel(NoValue()), TypeError, "parent must be a context"),
    (lambda: C.with_cancel_cause("x"), TypeError, "parent must be a context, not 'x'"),
    (lambda: C.with_timeout(None, 1), TypeError, "parent must be a context, not None"),
    (lambda: C.with_timeout(background(), "1"), TypeError, "seconds.*'1'"),
    (lambda: C.with_timeout(background(), None), TypeError, "seconds.*None"),
    (lambda: C.with_timeout(background(), math.nan), ValueError, "seconds.*nan"),
    (lambda: C.with_deadline(background(), math.nan), ValueError, "when.*nan"),
    (lambda: C.with_deadline(background(), []), TypeError, "when.*\\[\\]"),
    (lambda: C.with_timeout(background(), 1, "why"), TypeError, "cause.*'why'"),
    (lambda: C.with_deadline(background(), 1, LookupError), TypeError, "cause.*LookupError"),
    (lambda: C.with_cancel_cause(background())[1]("why"), TypeError, "cause.*'why'"),
    (lambda: C.with_cancel_cause(background())[1](None, None), TypeError, "1 argument"),
    (lambda: C.with_cancel_cause(background())[1](why=None), TypeError, "'why'"),
    (lambda: C.with_cancel_cause(background())[1](None, cause=None), TypeError, "1 argument"),
    (lambda: C.with_cancel(background())[1](None), TypeError, "no arguments"),
    (lambda: C.after_func(background(), 5), TypeError, "callable, not 5"),
    (lambda: C.after_func(5, print), TypeError, "ctx must be a context, not 5"),
    (lambda: C.cause(None), TypeError, "ctx must be a context, not None"),
    (lambda: C.without_cancel(5), TypeError, "parent must be a context, not 5"),
    (lambda: C.use(5), TypeError, "ctx must be a context, not 5"),
    (lambda: C.go(5, print), TypeError, "ctx must be a context, not 5"),
    (lambda: C.go(background(), 5), TypeError, "callable, not 5"),
    (lambda: C.timeout("1"), TypeError, "seconds.*'1'"),
    (lambda: C.timeout(math.nan), ValueError, "seconds.*nan"),
    (lambda: C.timeout(1, 5), TypeError, "parent must be a context, not 5"),
    (lambda: C.timeout(1, cause=5), TypeError, "cause.*5"),
    (lambda: C.cancelable(5), TypeError, "parent must be a context, not 5"),
    (lambda: C.with_cancel(background())[0].wait(timeout="1"), TypeError, "timeout.*'1'"),
    (lambda: C.with_cancel(background())[0].wait(ctx=1), TypeError, "ctx.*1"),
    (lambda: type(C.with_cancel(background())[0])(), TypeError, "with_cancel"),
    (lambda: type(C.with_value(background(), 1, 1))(), TypeError, "with_value"),
    (lambda: type(C.without_cancel(background()))(), TypeError, "without_cancel"),
    (lambda: type(background())(), TypeError, "background"),
]


@pytest.mark.parametrize(("call", "error", "text"), BAD)
def test_bad_input(call: Callable[[], object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()
    assert gort.num_goroutine() == 1


@pytest.mark.parametrize("done", [None, 5, "channel"])
def test_a_parent_whose_done_is_no_channel(done: Any) -> None:
    parent: Any = HandMadeContext()
    parent.done = lambda: done
    with pytest.raises(TypeError, match="must be a channel"):
        context.with_cancel(parent)


def test_bad_cancels_change_nothing() -> None:
    ctx, cancel = context.with_cancel_cause(background())
    with pytest.raises(TypeError):
        cancel("why")  # type: ignore[arg-type]
    assert ctx.err() is None
    cancel()


KINDS = [
    background(),
    context.with_value(background(), 1, 1),
    context.without_cancel(background()),
    context.with_cancel(background())[0],
]


@pytest.mark.parametrize("ctx", KINDS, ids=lambda ctx: type(ctx).__name__)
def test_half_made_contexts_do_no_harm(ctx: Any) -> None:
    half = type(ctx).__new__(type(ctx))
    for use in (
        half.deadline,
        half.done,
        half.err,
        lambda: half.value(1),
        lambda: repr(half),
        lambda: half.wait(timeout=0),
        lambda: context.cause(half),
        lambda: context.with_cancel(half),
        lambda: context.with_timeout(half, 0),
        lambda: gort.Chan().recv(ctx=half, timeout=0),
        lambda: context.after_func(half, print),
    ):
        try:
            use()
        except (AttributeError, TypeError, TimeoutError):
            pass


@pytest.mark.parametrize("ctx", KINDS, ids=lambda ctx: type(ctx).__name__)
def test_the_kinds_cannot_be_derived_from_or_written_to(ctx: Any) -> None:
    with pytest.raises(TypeError):
        type("Mine", (type(ctx),), {})
    with pytest.raises(AttributeError):
        ctx.anything = 1
    assert isinstance(ctx, context.Context)
