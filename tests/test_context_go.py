"""The behaviour of Go's own tests for `context` (context_test.go, x_test.go, afterfunc_test.go, net_test.go).

Where Go looks at a context's children, these tests look at who is kept alive; where it waits for a short
time to see that nothing happens, they let every goroutine come to rest.
"""

from __future__ import annotations

import gc
import random
import re
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from model_support import PATIENCE, PlainThread, park, settle, spin_until

import gort
from gort import context
from gort.context import Canceled, Context, DeadlineExceeded, background
from gort.sync import Mutex, WaitGroup
from gort.time import now

SHORT = 0.001
LONG = 1000 * 3600.0


@pytest.fixture(autouse=True)
def leaves_no_deadline_behind() -> Iterator[None]:
    """A pending deadline is hope, and would keep a later test from its deadlock."""
    yield
    gc.collect()
    spin_until(lambda: not any(type(o) is gort.time.Timer for o in gc.get_objects()), "the end of all deadlines")


def is_done(ctx: Any) -> bool:
    index, value, ok = gort.select(ctx.done(), default=True)
    assert value is None and not ok
    return bool(index == 0)


def assert_ended(ctx: Any, error: type[BaseException] = Canceled) -> None:
    assert is_done(ctx)
    assert type(ctx.err()) is error


def assert_alive(ctx: Any) -> None:
    assert not is_done(ctx)
    assert ctx.err() is None
    assert context.cause(ctx) is None


def ended_in_time(ctx: Any) -> None:
    ctx.done().recv_ok(timeout=PATIENCE)


def kept_alive(ref: weakref.ref[Any]) -> bool:
    gc.collect()
    return ref() is not None


class OtherContext:
    """Delegates to a context of the module, as a Go struct that embeds one."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def deadline(self) -> float | None:
        deadline: float | None = self.inner.deadline()
        return deadline

    def done(self) -> gort.Chan[Any]:
        done: gort.Chan[Any] = self.inner.done()
        return done

    def err(self) -> BaseException | None:
        err: BaseException | None = self.inner.err()
        return err

    def value(self, key: object) -> Any:
        return self.inner.value(key)


class DoneContext(OtherContext):
    """Has a done channel of its own."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.own = gort.Chan[None]()

    def done(self) -> gort.Chan[Any]:
        return self.own


# ---- context_test.go --------------------------------------------------------------------------


def test_parent_finishes_child() -> None:
    called = gort.Chan[str](1)
    parent, cancel = context.with_cancel(background())
    cancel_child, _ = context.with_cancel(parent)
    value_child = context.with_value(parent, "key", "value")
    timer_child, _ = context.with_timeout(value_child, LONG)
    context.after_func(parent, lambda: called.send("called"))
    all_of_them = (parent, cancel_child, value_child, timer_child)
    for ctx in all_of_them:
        assert_alive(ctx)
    cancel()
    for ctx in all_of_them:
        assert_ended(ctx)
    assert called.recv(timeout=PATIENCE) == "called"
    assert_ended(context.with_value(parent, "key", "value"))


@pytest.mark.parametrize("cancelable", [False, True])
def test_child_finishes_first(cancelable: bool) -> None:
    parent, stop = context.with_cancel(background())
    if not cancelable:
        parent = background()
    child, cancel = context.with_cancel(parent)
    assert_alive(parent)
    assert_alive(child)
    cancel()
    assert_ended(child)
    assert_alive(parent)
    ref = weakref.ref(child)
    del child, cancel
    assert not kept_alive(ref), "the child's cancel did not remove it from its parent"
    stop()


@pytest.mark.parametrize("make", [context.with_cancel, lambda parent: context.with_timeout(parent, 3600)])
def test_cancel_removes(make: Callable[[Any], Any]) -> None:
    parent, stop = context.with_cancel(background())
    child, cancel = make(parent)
    ref = weakref.ref(child)
    del child
    assert kept_alive(ref)
    cancel()
    del cancel
    assert not kept_alive(ref)
    stop()


def test_stop_removes_an_after_func() -> None:
    class Fn:
        def __call__(self) -> None:
            raise AssertionError("called")

    parent, cancel = context.with_cancel(background())
    fn = Fn()
    ref = weakref.ref(fn)
    stop = context.after_func(parent, fn)
    del fn
    assert kept_alive(ref)
    assert stop()
    assert not kept_alive(ref)
    cancel()


def test_custom_context_goroutines() -> None:
    """A goroutine watches a parent with a channel of its own, and no other."""
    had = gort.num_goroutine()

    def made(n: int) -> bool:
        spin_until(lambda: gort.num_goroutine() == had + n, f"{n} goroutines")
        return True

    own = DoneContext(background())
    _, cancel0 = context.with_cancel(own)
    assert made(1)
    cancel0()
    assert made(0)
    _, cancel0 = context.with_timeout(own, LONG)
    assert made(1)
    cancel0()
    assert made(0)

    ctx1, cancel1 = context.with_cancel(background())
    ctx2 = OtherContext(ctx1)
    ctx3, cancel3 = context.with_cancel(ctx2)
    assert made(0)
    _, cancel3b = context.with_cancel(DoneContext(ctx2))
    assert made(1), "ctx1 does not provide the channel and must not be used"
    ctx4, cancel4 = context.with_timeout(ctx3, LONG)
    ctx5, cancel5 = context.with_cancel(ctx4)
    cancel5()
    _, cancel6 = context.with_timeout(ctx5, LONG)
    cancel6()
    cancel1()
    _, cancel7 = context.with_cancel(ctx5)
    cancel7()
    cancel4()
    cancel3()
    assert made(1)
    cancel3b()
    assert made(0)


# ---- x_test.go ------------------------------------------------------------------------------------


def test_background() -> None:
    assert_alive(background())
    assert background() is background()
    assert repr(background()) == str(background()) == "context.Background"


def test_todo() -> None:
    assert_alive(context.todo())
    assert repr(context.todo()) == "context.TODO"


def test_with_cancel() -> None:
    c1, cancel = context.with_cancel(background())
    assert repr(c1) == "context.Background.WithCancel"
    o = OtherContext(c1)
    c2, _ = context.with_cancel(o)
    for ctx in (c1, o, c2):
        assert ctx.done() is not gort.NIL
        assert_alive(ctx)
    cancel()
    for ctx in (c1, o, c2):  # at once
        assert_ended(ctx)


@pytest.mark.parametrize("how", ["deadline", "timeout"])
@pytest.mark.parametrize("wrapped", ["plain", "other", "other+long"])
def test_deadline_and_timeout(how: str, wrapped: str) -> None:
    c: Any
    if how == "deadline":
        c, cancel = context.with_deadline(background(), now() + SHORT)
    else:
        c, cancel = context.with_timeout(background(), SHORT)
    assert repr(c).startswith("context.Background.WithDeadline(")
    if wrapped != "plain":
        c = OtherContext(c)
    if wrapped == "other+long":
        c, cancel = context.with_deadline(c, now() + LONG)
    ended_in_time(c)
    assert_ended(c, DeadlineExceeded)
    cancel()
    assert_ended(c, DeadlineExceeded)


@pytest.mark.parametrize("ago", [0.0, SHORT, LONG])
def test_a_deadline_that_has_passed_ends_the_context_at_once(ago: float) -> None:
    c, cancel = context.with_deadline(background(), now() - ago)
    assert_ended(c, DeadlineExceeded)
    cancel()
    assert_ended(c, DeadlineExceeded)


def test_canceled_timeout() -> None:
    c, cancel_timeout = context.with_timeout(background(), PATIENCE)
    c, cancel = context.with_timeout(OtherContext(c), LONG)
    cancel()
    assert_ended(c)
    cancel_timeout()


class Key1(int):
    def __eq__(self, other: object) -> bool:
        return type(other) is Key1 and int(self) == int(other)

    __hash__ = int.__hash__


class Key2(Key1):
    def __eq__(self, other: object) -> bool:
        return type(other) is Key2 and int(self) == int(other)

    __hash__ = int.__hash__


def test_values() -> None:
    k1, k2, k3 = Key1(1), Key2(1), Key2(3)

    def check(ctx: Context | OtherContext, *values: object) -> None:
        assert (ctx.value(Key1(1)), ctx.value(Key2(1)), ctx.value(Key2(3))) == values

    c0 = background()
    check(c0, None, None, None)
    c1 = context.with_value(c0, k1, "c1k1")
    check(c1, "c1k1", None, None)
    assert repr(c1) == "context.Background.WithValue(1, c1k1)"
    c2 = context.with_value(c1, k2, "c2k2")
    check(c2, "c1k1", "c2k2", None)
    c3 = context.with_value(c2, k3, "c3k3")
    check(c3, "c1k1", "c2k2", "c3k3")
    c4 = context.with_value(c3, k1, None)
    check(c4, None, "c2k2", "c3k3")
    assert repr(c4) == (
        "context.Background.WithValue(1, c1k1).WithValue(1, c2k2).WithValue(3, c3k3).WithValue(1, None)"
    )
    o0 = OtherContext(background())
    check(o0, None, None, None)
    o1 = OtherContext(context.with_value(background(), k1, "c1k1"))
    check(o1, "c1k1", None, None)
    o2 = context.with_value(o1, k2, "o2k2")
    check(o2, "c1k1", "o2k2", None)
    o3 = OtherContext(context.with_value(o2, k3, "o3k3"))
    check(o3, "c1k1", "o2k2", "o3k3")
    o4 = OtherContext(context.with_value(o3, k1, None))
    check(o4, None, "o2k2", "o3k3")


@pytest.mark.parametrize("threads", [False, True])
def test_simultaneous_cancels(threads: bool) -> None:
    root, cancel = context.with_cancel(background())
    cancels = {root: cancel}
    queue = [root]
    while queue and len(cancels) < 100:
        parent = queue.pop(0)
        for _ in range(4):
            ctx, cancel = context.with_cancel(parent)
            cancels[ctx] = cancel
            queue.append(ctx)
    calls = list(cancels.values())
    random.shuffle(calls)
    if threads:
        workers = [PlainThread(lambda part=calls[i::4]: [c() for c in part]) for i in range(4)]
    else:
        wg = WaitGroup()
        for call in calls:
            wg.go(call)
    contexts = list(cancels)
    random.shuffle(contexts)
    for ctx in contexts:
        ended_in_time(ctx)
        assert_ended(ctx)
    if threads:
        for worker in workers:
            worker.result()
    else:
        wg.wait(timeout=PATIENCE)


def test_interlocked_cancels() -> None:
    parent, cancel_parent = context.with_cancel(background())
    child, cancel_child = context.with_cancel(parent)

    def interlock() -> None:
        parent.done().recv_ok()
        cancel_child()

    g = gort.go(interlock)
    cancel_parent()
    ended_in_time(child)
    g.join()


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("timeout", [False, True])
def test_layers(seed: int, timeout: bool) -> None:
    r = random.Random(seed)
    values: list[object] = []
    cancels: list[Callable[[], None]] = []
    timers = 0
    ctx = background()
    i = 0
    while i < 30 or not timers or not cancels or not values:
        i += 1
        match r.randrange(3):
            case 0:
                v = object()
                ctx = context.with_value(ctx, v, v)
                values.append(v)
            case 1:
                ctx, cancel = context.with_cancel(ctx)
                cancels.append(cancel)
            case 2:
                ctx, cancel = context.with_timeout(ctx, SHORT if timeout else LONG)
                cancels.append(cancel)
                timers += 1
    assert repr(ctx).startswith("context.Background.")
    assert all(ctx.value(v) is v for v in values)
    if timeout:
        ended_in_time(ctx)
        assert_ended(ctx, DeadlineExceeded)
    else:
        assert_alive(ctx)
        r.choice(cancels)()
        assert_ended(ctx)
    assert all(ctx.value(v) is v for v in values)
    for cancel in cancels:
        cancel()


def test_with_cancel_of_a_canceled_parent() -> None:
    parent, cancel = context.with_cancel_cause(background())
    because = RuntimeError("because")
    cancel(because)
    child, _ = context.with_cancel(parent)
    assert_ended(child)
    assert context.cause(child) is because


def test_with_cancel_of_a_parent_that_is_canceled_meanwhile() -> None:
    for _ in range(100):
        parent, cancel = context.with_cancel_cause(background())
        because = RuntimeError("because")
        thread = PlainThread(cancel, because)
        child, _ = context.with_cancel(parent)
        ended_in_time(child)
        thread.result()
        assert_ended(child)
        assert context.cause(child) is because


def test_with_value_checks_the_key() -> None:
    with pytest.raises(TypeError, match="key"):
        context.with_value(background(), None, "bar")
    ctx = context.with_value(background(), [1], "lists are comparable in Python")
    assert ctx.value([1]) == "lists are comparable in Python"


def test_a_none_parent_is_refused() -> None:
    nothing: Any = None
    for derive in (
        context.with_cancel,
        context.with_cancel_cause,
        context.without_cancel,
        lambda p: context.with_deadline(p, now() + SHORT),
        lambda p: context.with_timeout(p, SHORT),
        lambda p: context.with_value(p, "foo", "bar"),
        lambda p: context.after_func(p, print),
    ):
        with pytest.raises(TypeError, match="None"):
            derive(nothing)


def test_deadline_exceeded_is_a_timeout_error() -> None:
    """TestDeadlineExceededSupportsTimeout and TestDeadlineExceededIsNetError, in Python's terms."""
    assert issubclass(DeadlineExceeded, TimeoutError)
    assert not issubclass(Canceled, TimeoutError)
    assert (str(Canceled()), str(DeadlineExceeded())) == ("context canceled", "context deadline exceeded")


PARENT_CAUSE = RuntimeError("parent cause")
CHILD_CAUSE = RuntimeError("child cause")
TOO_SLOW = RuntimeError("too slow")
FINISHED_EARLY = RuntimeError("finished early")
FOREVER = 1e6


def _with_cancel() -> Any:
    ctx, cancel = context.with_cancel(background())
    cancel()
    return ctx


def _with_cancel_cause() -> Any:
    ctx, cancel = context.with_cancel_cause(background())
    cancel(PARENT_CAUSE)
    return ctx


def _with_cancel_cause_none() -> Any:
    ctx, cancel = context.with_cancel_cause(background())
    cancel(None)
    return ctx


def _parent_cause_before_child() -> Any:
    parent, cancel_parent = context.with_cancel_cause(background())
    ctx, cancel_child = context.with_cancel_cause(parent)
    cancel_parent(PARENT_CAUSE)
    cancel_child(CHILD_CAUSE)
    return ctx


def _parent_cause_after_child() -> Any:
    parent, cancel_parent = context.with_cancel_cause(background())
    ctx, cancel_child = context.with_cancel_cause(parent)
    cancel_child(CHILD_CAUSE)
    cancel_parent(PARENT_CAUSE)
    return ctx


def _parent_cause_before_none() -> Any:
    parent, cancel_parent = context.with_cancel_cause(background())
    ctx, cancel_child = context.with_cancel(parent)
    cancel_parent(PARENT_CAUSE)
    cancel_child()
    return ctx


def _parent_cause_after_none() -> Any:
    parent, cancel_parent = context.with_cancel_cause(background())
    ctx, cancel_child = context.with_cancel(parent)
    cancel_child()
    cancel_parent(PARENT_CAUSE)
    return ctx


def _child_cause_after_none() -> Any:
    parent, cancel_parent = context.with_cancel(background())
    ctx, cancel_child = context.with_cancel_cause(parent)
    cancel_parent()
    cancel_child(CHILD_CAUSE)
    return ctx


def _child_cause_before_none() -> Any:
    parent, cancel_parent = context.with_cancel(background())
    ctx, cancel_child = context.with_cancel_cause(parent)
    cancel_child(CHILD_CAUSE)
    cancel_parent()
    return ctx


def _timeout(seconds: float, cause: BaseException | None) -> Any:
    ctx, cancel = context.with_timeout(background(), seconds, cause)
    cancel()
    return ctx


def _timeout_stacked(seconds: float) -> Any:
    parent, cancel = context.with_cancel_cause(background())
    ctx, _ = context.with_timeout(parent, seconds, TOO_SLOW)
    cancel(FINISHED_EARLY)
    return ctx


def _without_cancel() -> Any:
    parent, cancel = context.with_cancel_cause(background())
    ctx = context.without_cancel(parent)
    cancel(FINISHED_EARLY)
    return ctx


class CustomContext:
    """A context of one's own above one of the module, as Go's test has it."""

    def __init__(self, parent: Context) -> None:
        self.parent = parent
        self.own = gort.Chan[None]()
        self.error: BaseException | None = None
        self.follower = context.after_func(parent, lambda: self.end(parent.err()))

    def end(self, error: BaseException | None) -> None:
        if self.error is None:
            self.error = error
            self.own.close()

    def deadline(self) -> float | None:
        return self.parent.deadline()

    def done(self) -> gort.Chan[Any]:
        return self.own

    def err(self) -> BaseException | None:
        return self.error

    def value(self, key: object) -> Any:
        return self.parent.value(key)


def _custom_alone() -> Any:
    ctx, _ = context.with_cancel_cause(background())
    custom = CustomContext(ctx)
    custom.end(Canceled())
    custom.follower()
    return custom


def _custom_after_parent() -> Any:
    ctx, cancel = context.with_cancel_cause(background())
    custom = CustomContext(ctx)
    cancel(PARENT_CAUSE)
    custom.end(Canceled())
    return custom


def _custom_before_parent() -> Any:
    ctx, cancel = context.with_cancel_cause(background())
    custom = CustomContext(ctx)
    custom.end(Canceled())
    cancel(PARENT_CAUSE)
    return custom


CAUSES: list[Any] = [
    pytest.param(make, error, cause, id=name)
    for name, make, error, cause in [
        ("background", background, None, None),
        ("todo", context.todo, None, None),
        ("with_cancel", _with_cancel, Canceled, Canceled),
        ("with_cancel_cause", _with_cancel_cause, Canceled, PARENT_CAUSE),
        ("with_cancel_cause none", _with_cancel_cause_none, Canceled, Canceled),
        ("parent cause before child", _parent_cause_before_child, Canceled, PARENT_CAUSE),
        ("parent cause after child", _parent_cause_after_child, Canceled, CHILD_CAUSE),
        ("parent cause before none", _parent_cause_before_none, Canceled, PARENT_CAUSE),
        ("parent cause after none", _parent_cause_after_none, Canceled, Canceled),
        ("child cause after none", _child_cause_after_none, Canceled, Canceled),
        ("child cause before none", _child_cause_before_none, Canceled, CHILD_CAUSE),
        ("with_timeout", lambda: _timeout(0, None), DeadlineExceeded, DeadlineExceeded),
        ("with_timeout canceled", lambda: _timeout(FOREVER, None), Canceled, Canceled),
        ("with_timeout cause", lambda: _timeout(0, TOO_SLOW), DeadlineExceeded, TOO_SLOW),
        ("with_timeout cause canceled", lambda: _timeout(FOREVER, TOO_SLOW), Canceled, Canceled),
        ("with_timeout cause stacked", lambda: _timeout_stacked(0), DeadlineExceeded, TOO_SLOW),
        ("with_timeout cause stacked canceled", lambda: _timeout_stacked(FOREVER), Canceled, FINISHED_EARLY),
        ("without_cancel", lambda: context.without_cancel(background()), None, None),
        ("without_cancel canceled", _without_cancel, None, None),
        ("without_cancel timeout", lambda: context.without_cancel(_timeout(0, TOO_SLOW)), None, None),
        ("parent of custom context not canceled", _custom_alone, Canceled, Canceled),
        ("parent of custom context is canceled before", _custom_after_parent, Canceled, PARENT_CAUSE),
        ("parent of custom context is canceled after", _custom_before_parent, Canceled, PARENT_CAUSE),
    ]
]


@pytest.mark.parametrize(("make", "error", "cause"), CAUSES)
def test_cause(make: Callable[[], Any], error: type[BaseException] | None, cause: object) -> None:
    ctx = make()
    if error is None:
        assert ctx.err() is None
        assert context.cause(ctx) is None
        return
    assert type(ctx.err()) is error
    if isinstance(cause, type):
        assert type(context.cause(ctx)) is cause
        assert context.cause(ctx) is ctx.err()
    else:
        assert context.cause(ctx) is cause


def test_cause_while_it_is_set() -> None:
    because = RuntimeError("because")
    ctx, cancel = context.with_cancel_cause(background())
    thread = PlainThread(cancel, because)
    spin_until(lambda: context.cause(ctx) is not None, "a cause")
    assert context.cause(ctx) is because
    thread.result()


def test_without_cancel() -> None:
    ctx = context.without_cancel(context.with_value(background(), "key", "value"))
    assert ctx.deadline() is None
    assert ctx.done() is gort.NIL
    assert ctx.err() is None
    assert ctx.value("key") == "value"
    assert repr(ctx) == "context.Background.WithValue(key, value).WithoutCancel"


def test_custom_context_propagation() -> None:
    because = RuntimeError("because")
    ctx1, cancel1 = context.with_cancel_cause(background())
    ctx2 = DoneContext(ctx1)
    ctx3, cancel3 = context.with_cancel(ctx2)
    cancel1(because)
    assert not is_done(ctx3), "only ctx2's own channel counts"
    ctx2.own.close()
    ended_in_time(ctx3)
    assert_ended(ctx3)
    assert context.cause(ctx3) is because
    cancel3()


class CauseContext:
    """Go's customCauseContext."""

    def __init__(self) -> None:
        self.mu = Mutex()
        self.own = gort.Chan[None]()
        self.error: BaseException | None = None
        self.cancel_child: Callable[[], None] | None = None

    def deadline(self) -> None:
        return None

    def done(self) -> gort.Chan[Any]:
        with self.mu:
            return self.own

    def err(self) -> BaseException | None:
        with self.mu:
            return self.error

    def value(self, key: object) -> None:
        return None

    def cancel(self) -> None:
        with self.mu:
            self.error = Canceled()
            self.own.close()
            child = self.cancel_child
        if child is not None:
            child()


def test_custom_context_cause() -> None:
    custom = CauseContext()
    custom.cancel()
    assert context.cause(custom) is custom.err() is not None

    custom = CauseContext()
    ctx, cancel = context.with_cancel_cause(custom)
    because = RuntimeError("because")
    cancel(because)
    assert_ended(ctx)
    assert context.cause(ctx) is because
    assert custom.err() is None
    assert context.cause(custom) is None
    custom.cancel()
    assert_ended(ctx)
    assert context.cause(ctx) is because
    assert context.cause(custom) is custom.err() is not None

    custom = CauseContext()
    ctx, custom.cancel_child = context.with_cancel(custom)
    custom.cancel()
    assert_ended(ctx)
    assert type(context.cause(ctx)) is Canceled


def test_after_func_is_called_after_cancel() -> None:
    ctx, cancel = context.with_cancel(background())
    called = gort.Chan[None]()
    stop = context.after_func(ctx, called.close)
    g = park(called.recv_ok)
    cancel()
    g.join()
    assert stop() is False


def test_after_func_is_called_after_a_timeout() -> None:
    ctx, cancel = context.with_timeout(background(), SHORT)
    called = gort.Chan[None]()
    context.after_func(ctx, called.close)
    called.recv_ok(timeout=PATIENCE)
    cancel()


def test_after_func_is_called_at_once_if_the_context_has_ended() -> None:
    ctx, cancel = context.with_cancel(background())
    cancel()
    called = gort.Chan[None]()
    stop = context.after_func(ctx, called.close)
    called.recv_ok(timeout=PATIENCE)
    assert stop() is False


def test_after_func_is_not_called_after_stop() -> None:
    ctx, cancel = context.with_cancel(background())
    called = gort.Chan[None]()
    stop = context.after_func(ctx, called.close)
    assert stop() is True
    cancel()
    witness = gort.Chan[None]()
    context.after_func(ctx, witness.close)
    witness.recv_ok(timeout=PATIENCE)
    assert not called.closed
    assert stop() is False


def test_after_func_is_called_asynchronously() -> None:
    """Cancelling does not wait for the functions."""
    ctx, cancel = context.with_cancel(background())
    called = gort.Chan[None]()
    stop = context.after_func(ctx, lambda: called.send(None))
    cancel()
    called.recv(timeout=PATIENCE)
    assert not stop()


def test_err_does_not_come_before_done() -> None:
    for _ in range(10):
        ctx, cancel = context.with_cancel(background())
        done = ctx.done()
        thread = PlainThread(cancel)
        spin_until(lambda ctx=ctx: ctx.err() is not None, "the error")  # type: ignore[misc]
        assert done.closed
        thread.result()


# ---- afterfunc_test.go ------------------------------------------------------------------------------


class AfterFuncContext:
    """A context with an `after_func` method."""

    def __init__(self) -> None:
        self.own: gort.Chan[None] | None = None
        self.error: BaseException | None = None
        self.functions: dict[object, Callable[[], object]] = {}

    def deadline(self) -> None:
        return None

    def done(self) -> gort.Chan[Any]:
        if self.own is None:
            self.own = gort.Chan()
        return self.own

    def err(self) -> BaseException | None:
        return self.error

    def value(self, key: object) -> None:
        return None

    def after_func(self, fn: Callable[[], object]) -> Callable[[], bool]:
        key = object()
        self.functions[key] = fn
        return lambda: self.functions.pop(key, None) is not None

    def cancel(self, error: BaseException) -> None:
        self.error = error
        for fn in self.functions.values():
            gort.go(fn)
        self.functions = {}


@pytest.mark.parametrize("make", [context.with_cancel, lambda parent: context.with_timeout(parent, LONG)])
def test_a_custom_context_with_after_func_cancels(make: Callable[[Any], Any]) -> None:
    ctx0 = AfterFuncContext()
    before = gort.num_goroutine()
    ctx1, cancel = make(ctx0)
    assert gort.num_goroutine() == before
    error = Canceled()
    ctx0.cancel(error)
    ended_in_time(ctx1)
    assert ctx1.err() is error
    cancel()


def test_after_func_of_a_custom_context_with_after_func() -> None:
    ctx0 = AfterFuncContext()
    called = gort.Chan[None]()
    stop = context.after_func(ctx0, called.close)
    ctx0.cancel(Canceled())
    called.recv_ok(timeout=PATIENCE)
    assert stop() is False


def test_cancel_unregisters_from_a_custom_context() -> None:
    ctx0 = AfterFuncContext()
    _, cancel1 = context.with_cancel(ctx0)
    _, cancel2 = context.with_timeout(ctx0, LONG)
    stop = context.after_func(ctx0, print)
    assert len(ctx0.functions) == 3
    cancel1()
    cancel2()
    assert len(ctx0.functions) == 1
    assert stop() is True
    assert len(ctx0.functions) == 0


# ---- example_test.go, in spirit ------------------------------------------------------------------------


def test_a_generator_ends_with_its_context() -> None:
    def generate(ctx: Context) -> gort.Chan[int]:
        out = gort.Chan[int]()

        def produce() -> None:
            n = 1
            while gort.select(ctx.done(), (out, n))[0] == 1:
                n += 1

        gort.go(produce)
        return out

    ctx, cancel = context.with_cancel(background())
    got = []
    for n in generate(ctx):
        got.append(n)
        if n == 5:
            break
    cancel()
    assert got == [1, 2, 3, 4, 5]


def test_after_func_interrupts_a_cond_wait() -> None:
    mu = Mutex()
    cond = gort.sync.Cond(mu)

    def wait_on(ctx: Context) -> BaseException | None:
        def wake() -> None:
            with mu:
                cond.broadcast()

        stop = context.after_func(ctx, wake)
        with mu:
            while ctx.err() is None:
                cond.wait()
        stop()
        return ctx.err()

    pairs = [context.with_cancel(background()) for _ in range(4)]
    waiters = [park(wait_on, ctx) for ctx, _ in pairs]
    for i, (_, cancel) in enumerate(pairs):
        cancel()
        assert isinstance(waiters[i].join(), Canceled)
        settle(*waiters)
        assert [g.done for g in waiters] == [True] * (i + 1) + [False] * (3 - i)


def test_merged_cancellation() -> None:
    """example_test.go, ExampleAfterFunc_merge."""

    def merge(ctx: Context, other: Context) -> tuple[Context, Callable[[], None]]:
        merged, cancel = context.with_cancel_cause(ctx)
        stop = context.after_func(other, lambda: cancel(context.cause(other)))

        def cancel_both() -> None:
            stop()
            cancel(Canceled())

        return merged, cancel_both

    ctx1, cancel1 = context.with_cancel_cause(background())
    ctx2, cancel2 = context.with_cancel_cause(background())
    merged, cancel = merge(ctx1, ctx2)
    because = RuntimeError("ctx2 canceled")
    cancel2(because)
    assert isinstance(merged.wait(timeout=PATIENCE), Canceled)
    assert context.cause(merged) is because
    cancel()
    cancel1()


def test_the_deadline_in_the_repr() -> None:
    ctx, cancel = context.with_deadline(background(), now() + 3600)
    assert re.fullmatch(r"context\.Background\.WithDeadline\(\d+\.\d{6} \[3599\.\d{6}s\]\)", repr(ctx))
    cancel()
