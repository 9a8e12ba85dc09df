"""gort.atomic: Int64, Bool and Ref."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
from model_support import PlainThread

import gort
from gort.atomic import Bool, Int64, Ref

TOP, BOTTOM = 2**63 - 1, -(2**63)


def test_zero_values() -> None:
    assert Int64().load() == 0
    assert Bool().load() is False
    assert Ref().load() is None


@pytest.mark.parametrize("value", [0, 1, -1, TOP, BOTTOM])
def test_int64_stores_and_loads(value: int) -> None:
    x = Int64()
    assert x.store(value) is None
    assert x.load() == value


def test_int64_add_returns_the_new_value() -> None:
    x = Int64()
    assert x.add(5) == 5
    assert x.add(-7) == -2
    assert x.load() == -2


def test_int64_add_wraps_around() -> None:
    x = Int64()
    x.store(TOP)
    assert x.add(1) == BOTTOM
    assert x.add(-1) == TOP
    assert x.add(TOP) == -2
    x.store(BOTTOM)
    assert x.add(BOTTOM) == 0


def test_int64_swap_returns_the_old_value() -> None:
    x = Int64()
    assert x.swap(3) == 0
    assert x.swap(TOP) == 3
    assert x.load() == TOP


def test_int64_compare_and_swap() -> None:
    x = Int64()
    assert x.compare_and_swap(1, 2) is False
    assert x.load() == 0
    assert x.compare_and_swap(0, 2) is True
    assert x.load() == 2


@pytest.mark.parametrize("value", [2**63, BOTTOM - 1, 10**30])
def test_an_int_out_of_range_raises_overflow_error_and_changes_nothing(value: int) -> None:
    x = Int64()
    x.store(7)
    for bad in (x.store, x.swap, lambda v: x.compare_and_swap(7, v)):
        with pytest.raises(OverflowError):
            bad(value)
    assert x.load() == 7


@pytest.mark.parametrize("value", ["1", None, 1.5, []])
def test_what_is_no_int_raises_type_error_and_changes_nothing(value: Any) -> None:
    x = Int64()
    x.store(7)
    for bad in (x.store, x.swap, x.add, lambda v: x.compare_and_swap(7, v)):
        with pytest.raises(TypeError):
            bad(value)
    assert x.load() == 7


def test_int64_counts_right_from_threads_and_goroutines() -> None:
    x = Int64()

    def body() -> None:
        for i in range(1000):
            x.add(1)
            if i % 100 == 0:
                gort.gosched()

    gs = [gort.go(body) for _ in range(5)]
    threads = [PlainThread(body) for _ in range(4)]
    for g in gs:
        g.join()
    for t in threads:
        t.result()
    assert x.load() == 9000


def test_bool() -> None:
    x = Bool()
    assert x.store(True) is None
    assert x.load() is True
    assert x.swap(False) is True
    assert x.compare_and_swap(True, False) is False
    assert x.compare_and_swap(False, True) is True
    assert x.load() is True


def test_ref_holds_any_object() -> None:
    x, a, b = Ref(), object(), object()
    assert x.store(a) is None
    assert x.load() is a
    assert x.swap(b) is a
    assert x.load() is b


def test_ref_compares_by_identity() -> None:
    x, a = Ref(), [1]
    x.store(a)
    assert x.compare_and_swap([1], "new") is False
    assert x.compare_and_swap(a, "new") is True
    assert x.load() == "new"


def test_ref_compare_and_swap_from_none() -> None:
    x = Ref()
    assert x.compare_and_swap(None, "first") is True
    assert x.compare_and_swap(None, "second") is False
    assert x.load() == "first"


class Thing:
    pass


def test_a_ref_keeps_its_object_and_lets_go_of_the_old() -> None:
    x, thing = Ref(), Thing()
    seen = weakref.ref(thing)
    x.store(thing)
    del thing
    assert seen() is not None
    x.store(None)
    assert seen() is None


def test_a_cycle_through_a_ref_is_collected() -> None:
    thing: Any = Thing()
    thing.ref = Ref()
    thing.ref.store(thing)
    seen = weakref.ref(thing)
    del thing
    gc.collect()
    assert seen() is None
