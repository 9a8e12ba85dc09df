"""A goroutine's interpreter state is its own across waits: it has its own PyThreadState.

Exceptions being handled, generators, context variables, thread-locals, decimal
contexts, recursion depth, trace functions; and waits in the middle of C code.
"""

from __future__ import annotations

import contextlib
import contextvars
import decimal
import functools
import itertools
import json
import re
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from model_support import PlainThread, park

import gort
import gort.time

PARK = [
    pytest.param(gort.gosched, id="gosched"),
    pytest.param(lambda: gort.sleep(0.0001), id="sleep"),
    pytest.param(lambda: gort.select(gort.time.after(0.0001)), id="select"),
    pytest.param(lambda: gort.blocking(lambda: None), id="blocking"),
]
each_park = pytest.mark.parametrize("pause", PARK)


def together(bodies: list[Any]) -> list[Any]:
    gs = [gort.go(body) for body in bodies]
    return [g.join() for g in gs]


# ---- exceptions -----------------------------------------------------------------------


@each_park
def test_the_exception_being_handled_is_the_goroutines_own(pause: Any) -> None:
    def body(kind: type[Exception]) -> Any:
        for i in range(20):
            try:
                raise kind(i)
            except kind as error:
                pause()
                assert sys.exc_info()[1] is error
                try:
                    raise LookupError
                except LookupError as inner:
                    pause()
                    assert inner.__context__ is error
                    assert sys.exc_info()[1] is inner
                pause()
                assert sys.exc_info()[1] is error
            pause()
            assert sys.exc_info() == (None, None, None)
        return kind

    kinds = [ValueError, TypeError, OSError, KeyError]
    assert together([functools.partial(body, k) for k in kinds]) == kinds


@each_park
def test_a_bare_raise_reraises_the_goroutines_own_exception(pause: Any) -> None:
    def body(text: str) -> str:
        with pytest.raises(ValueError, match=text):
            try:
                raise ValueError(text)
            except ValueError:
                pause()
                raise
        return text

    assert together([functools.partial(body, f"number {i}") for i in range(10)]) == [f"number {i}" for i in range(10)]


def test_an_exception_raised_in_one_goroutine_has_no_context_of_another() -> None:
    gate = gort.Chan()

    def handler() -> None:
        try:
            raise ValueError("being handled")
        except ValueError:
            gate.recv()

    def clean() -> BaseException:
        try:
            raise KeyError
        except KeyError as error:
            return error

    g = park(handler)
    assert gort.go(clean).join().__context__ is None
    gate.send(None)
    g.join()


def test_starting_a_goroutine_inside_except_gives_it_a_clean_state() -> None:
    try:
        raise ValueError
    except ValueError:
        assert gort.go(sys.exc_info).join() == (None, None, None)


def test_finally_and_with_blocks_survive_waits() -> None:
    log: list[str] = []

    @contextlib.contextmanager
    def block(name: str) -> Iterator[None]:
        gort.gosched()
        try:
            yield
        finally:
            gort.gosched()
            log.append(name)

    def body(name: str) -> None:
        with contextlib.suppress(ZeroDivisionError), block(name):
            gort.gosched()
            divmod(1, 0)

    together([functools.partial(body, str(i)) for i in range(10)])
    assert sorted(log) == [str(i) for i in range(10)]


def test_exception_groups_survive_waits() -> None:
    def body() -> list[int]:
        seen = []
        try:
            raise ExceptionGroup("group", [ValueError(1), TypeError(2), ValueError(3)])
        except* ValueError as some:
            gort.gosched()
            seen += [e.args[0] for e in some.exceptions]
        except* TypeError as some:
            gort.gosched()
            seen += [e.args[0] for e in some.exceptions]
        return seen

    assert together([body] * 5) == [[1, 3, 2]] * 5


# ---- generators and coroutines ----------------------------------------------------------


@each_park
def test_generators_may_wait_in_their_body(pause: Any) -> None:
    def numbers(n: int) -> Iterator[int]:
        for i in range(n):
            pause()
            yield i
            pause()

    assert together([lambda: list(numbers(10))] * 5) == [list(range(10))] * 5


def test_a_generator_waiting_inside_except_keeps_its_exception() -> None:
    def numbers(kind: type[Exception]) -> Iterator[Any]:
        try:
            raise kind
        except kind:
            for _ in range(5):
                gort.gosched()
                yield sys.exc_info()[0]

    def body(kind: type[Exception]) -> set[Any]:
        seen = set()
        for value in numbers(kind):
            gort.gosched()
            assert sys.exc_info()[0] is None
            seen.add(value)
        return seen

    assert together([functools.partial(body, k) for k in (ValueError, KeyError)]) == [{ValueError}, {KeyError}]


def test_a_generator_may_be_continued_by_another_goroutine() -> None:
    def numbers() -> Iterator[int]:
        for i in itertools.count():
            gort.gosched()
            yield i

    it = numbers()
    assert [gort.go(next, it).join() for _ in range(5)] == [0, 1, 2, 3, 4]
    assert PlainThread(next, it).result() == 5
    assert next(it) == 6


def test_a_generator_that_waits_in_one_goroutine_cannot_be_entered_by_another() -> None:
    gate = gort.Chan()

    def numbers() -> Iterator[Any]:
        yield gate.recv()

    it = numbers()
    g = park(next, it)
    with pytest.raises(ValueError, match="already executing"):
        next(it)
    gate.send("value")
    assert g.join() == "value"


def test_yield_from_and_close_across_waits() -> None:
    log = []

    def inner() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            gort.gosched()
            log.append("closed")

    def outer() -> Iterator[int]:
        yield from inner()

    def body() -> None:
        it = outer()
        next(it)
        gort.gosched()
        it.close()

    together([body] * 3)
    assert log == ["closed"] * 3


def test_coroutines_driven_by_hand_may_wait() -> None:
    async def inner(x: int) -> int:
        gort.gosched()
        return x + 1

    async def outer(x: int) -> int:
        return await inner(x) + await inner(x)

    def body(x: int) -> int:
        try:
            outer(x).send(None)
        except StopIteration as stop:
            return stop.value
        raise AssertionError

    assert together([functools.partial(body, i) for i in range(5)]) == [2 * i + 2 for i in range(5)]


# ---- context variables, thread-locals, decimal -----------------------------------------------


def test_context_variables_are_the_goroutines_own() -> None:
    var: contextvars.ContextVar[int] = contextvars.ContextVar("var", default=-1)

    def body(i: int) -> int:
        assert var.get() == -1
        token = var.set(i)
        for _ in range(5):
            gort.gosched()
            assert var.get() == i
        var.reset(token)
        gort.gosched()
        return var.get()

    assert together([functools.partial(body, i) for i in range(10)]) == [-1] * 10
    assert var.get() == -1


def test_waiting_inside_context_run() -> None:
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var")

    def inside(text: str) -> str:
        var.set(text)
        gort.gosched()
        return var.get()

    def body(text: str) -> str:
        context = contextvars.Context()
        assert context.run(inside, text) == text
        assert var.get("unset") == "unset"
        return context[var]

    texts = [f"text {i}" for i in range(10)]
    assert together([functools.partial(body, t) for t in texts]) == texts


def test_a_context_entered_by_a_waiting_goroutine_is_entered() -> None:
    context, gate = contextvars.Context(), gort.Chan()
    g = park(context.run, gate.recv)
    with pytest.raises(RuntimeError, match="already entered"):
        context.run(print)
    gate.send("out")
    assert g.join() == "out"
    assert context.run(lambda: "free again") == "free again"


def test_thread_locals_are_the_goroutines_own() -> None:
    local = threading.local()
    local.value = "main's"

    def body(i: int) -> int:
        assert not hasattr(local, "value")
        local.value = i
        for _ in range(5):
            gort.gosched()
            assert local.value == i
        return local.value

    assert together([functools.partial(body, i) for i in range(10)]) == list(range(10))
    assert local.value == "main's"


def test_a_reused_goroutine_starts_with_fresh_locals_and_context() -> None:
    """Dead goroutines are pooled with their thread states; nothing may shine through."""
    local = threading.local()
    var: contextvars.ContextVar[int] = contextvars.ContextVar("var", default=-1)

    def body(i: int) -> None:
        assert not hasattr(local, "value")
        assert var.get() == -1
        assert decimal.getcontext().prec == 28
        assert sys.exc_info() == (None, None, None)
        assert sys.gettrace() is None
        local.value = i
        var.set(i)
        decimal.getcontext().prec = 5

    for i in range(200):
        gort.go(body, i).join()


def test_thread_local_values_go_away_with_the_goroutine() -> None:
    import weakref

    class Thing:
        pass

    local, seen = threading.local(), []

    def body() -> None:
        local.thing = Thing()
        seen.append(weakref.ref(local.thing))

    for _ in range(10):
        gort.go(body).join()
    for _ in range(20):
        gort.go(lambda: None).join()
    assert [ref() for ref in seen] == [None] * 10


def test_decimal_contexts_are_the_goroutines_own() -> None:
    def body(prec: int) -> str:
        with decimal.localcontext() as context:
            context.prec = prec
            for _ in range(5):
                gort.gosched()
            return str(decimal.Decimal(1) / decimal.Decimal(3))

    assert together([functools.partial(body, p) for p in range(1, 11)]) == ["0." + "3" * p for p in range(1, 11)]


# ---- waits inside C code ------------------------------------------------------------------------


@each_park
def test_a_sort_key_may_wait(pause: Any) -> None:
    def key(x: int) -> int:
        pause()
        return -x

    values = list(range(10))
    assert together([lambda: sorted(values, key=key)] * 4) == [values[::-1]] * 4


def test_comparisons_may_wait() -> None:
    @functools.total_ordering
    class Item:
        def __init__(self, x: int) -> None:
            self.x = x

        def __eq__(self, other: Any) -> bool:
            gort.gosched()
            return bool(self.x == other.x)

        def __lt__(self, other: Any) -> bool:
            gort.gosched()
            return bool(self.x < other.x)

        def __hash__(self) -> int:
            gort.gosched()
            return self.x

    def body() -> list[int]:
        items = sorted(Item(x * 7 % 10) for x in range(10))
        table = {item: item.x for item in items}
        return [table[item] for item in items]

    assert together([body] * 4) == [list(range(10))] * 4


def test_callbacks_of_re_map_and_json_may_wait() -> None:
    def word(match: re.Match[str]) -> str:
        gort.gosched()
        return match[0].upper()

    def default(x: object) -> str:
        gort.gosched()
        return repr(x)

    def hook(pairs: dict[str, Any]) -> dict[str, Any]:
        gort.gosched()
        return pairs

    def body() -> Any:
        return (
            re.sub(r"\w+", word, "a b c"),
            list(map(lambda x: gort.gosched() or x, [1, 2])),
            json.dumps([{1}], default=default),
            json.loads('{"a": {"b": 1}}', object_hook=hook),
        )

    assert together([body] * 4) == [("A B C", [1, 2], '["{1}"]', {"a": {"b": 1}})] * 4


def test_descriptors_and_attribute_hooks_may_wait() -> None:
    class Lazy:
        @property
        def value(self) -> int:
            gort.gosched()
            return 1

        def __getattr__(self, name: str) -> str:
            gort.gosched()
            return name

        def __setattr__(self, name: str, value: Any) -> None:
            gort.gosched()
            super().__setattr__(name, value)

    def body() -> Any:
        lazy = Lazy()
        lazy.x = 2
        return lazy.value, lazy.x, lazy.missing

    assert together([body] * 4) == [(1, 2, "missing")] * 4


def test_a_finalizer_may_wait() -> None:
    log = []

    class Thing:
        def __del__(self) -> None:
            gort.gosched()
            log.append(gort.current().id)

    def body() -> int:
        thing = Thing()
        del thing
        return gort.current().id

    ids = together([body] * 5)
    assert sorted(log) == sorted(ids)


def test_class_bodies_and_decorators_may_wait() -> None:
    def body() -> int:
        class Made:
            gort.gosched()
            x = 1
            gort.gosched()

        @functools.lru_cache
        def cached(x: int) -> int:
            gort.gosched()
            return x + 1

        return Made.x + cached(1) + cached(1)

    assert together([body] * 4) == [5] * 4


def test_comprehensions_and_star_calls_may_wait() -> None:
    def pause(x: int) -> int:
        gort.gosched()
        return x

    def body() -> Any:
        return [pause(x) for x in range(5)], {pause(x): pause(-x) for x in range(3)}, max(*(pause(x) for x in range(5)))

    assert together([body] * 4) == [([0, 1, 2, 3, 4], {0: 0, 1: -1, 2: -2}, 4)] * 4


def test_exec_eval_and_import_in_goroutines() -> None:
    def body(i: int) -> Any:
        scope: dict[str, Any] = {"gort": gort}
        exec(f"gort.gosched()\nx = {i}", scope)
        import colorsys

        return eval("x + gort.go(lambda: 1).join()", scope), colorsys.__name__

    assert together([functools.partial(body, i) for i in range(5)]) == [(i + 1, "colorsys") for i in range(5)]


def test_a_wait_in_a_module_being_imported(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "waits_on_import.py").write_text("import gort\ngort.sleep(0.001)\nvalue = gort.current().id\n")
    monkeypatch.syspath_prepend(tmp_path)

    def body() -> int:
        import waits_on_import  # type: ignore[import-not-found]

        return waits_on_import.value

    assert len(set(together([body] * 4))) == 1
    sys.modules.pop("waits_on_import", None)


# ---- recursion depth ---------------------------------------------------------------------------------


def depth(n: int, at_the_bottom: Any) -> Any:
    return at_the_bottom() if n == 0 else depth(n - 1, at_the_bottom)


def test_each_goroutine_counts_its_own_recursion() -> None:
    """Ten goroutines 400 deep at once: one shared counter would pass the limit of 1,000."""
    gate = gort.Chan()
    gs = [park(depth, 400, gate.recv) for _ in range(10)]
    assert depth(300, lambda: "main too") == "main too"
    for i in range(10):
        gate.send(i)
    assert sorted(g.join() for g in gs) == list(range(10))


def test_recursion_inside_except_with_waits() -> None:
    def down(n: int) -> int:
        try:
            raise ValueError(n)
        except ValueError as error:
            gort.gosched()
            below = down(n - 1) if n else 0
            assert sys.exc_info()[1] is error
            return below + 1

    assert together([lambda: down(100)] * 5) == [101] * 5


def test_a_recursion_error_in_one_goroutine_leaves_the_others_alone() -> None:
    def endless() -> Any:
        return endless()

    gate = gort.Chan()
    g = park(depth, 300, gate.recv)
    with pytest.raises(RecursionError):
        gort.go(endless).join()
    assert gort.go(depth, 300, lambda: "fine").join() == "fine"
    gate.send("fine too")
    assert g.join() == "fine too"


def test_recursion_error_can_be_caught_where_it_happens_and_again() -> None:
    def endless() -> Any:
        return endless()

    def body() -> int:
        caught = 0
        for _ in range(5):
            try:
                endless()
            except RecursionError:
                caught += 1
                gort.gosched()
        return caught

    assert together([body] * 3) == [5] * 3


# ---- tracing ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def hooks(set_hook: Any, hook: Any, old: Any) -> Iterator[None]:
    set_hook(hook)
    try:
        yield
    finally:
        set_hook(old)


def traced_function() -> int:
    gort.gosched()
    return 1


def test_threading_settrace_reaches_new_goroutines() -> None:
    called = []

    def tracer(frame: Any, event: str, arg: Any) -> Any:
        called.append((event, frame.f_code.co_name, gort.current().id))

    with hooks(threading.settrace, tracer, threading.gettrace()):
        g = gort.go(traced_function)
        assert g.join() == 1
    assert ("call", "traced_function", g.id) in called
    called.clear()
    gort.go(traced_function).join()
    assert called == []


def test_threading_setprofile_reaches_new_goroutines() -> None:
    called = []

    def profiler(frame: Any, event: str, arg: Any) -> None:
        called.append((event, frame.f_code.co_name))

    with hooks(threading.setprofile, profiler, threading.getprofile()):
        gort.go(traced_function).join()
    assert ("call", "traced_function") in called
    assert ("return", "traced_function") in called
    called.clear()
    gort.go(traced_function).join()
    assert called == []


def test_a_trace_function_is_the_goroutines_own() -> None:
    lines: list[str] = []

    def tracer(frame: Any, event: str, arg: Any) -> Any:
        lines.append(frame.f_code.co_name)
        return tracer

    def traced() -> None:
        sys.settrace(tracer)
        try:
            traced_function()
            assert sys.gettrace() is tracer
        finally:
            sys.settrace(None)

    def untraced() -> Any:
        for _ in range(5):
            gort.gosched()
        return sys.gettrace()

    before = sys.gettrace()
    assert together([untraced, traced, untraced]) == [None, None, None]
    assert sys.gettrace() is before
    assert "traced_function" in lines
    assert "untraced" not in lines
