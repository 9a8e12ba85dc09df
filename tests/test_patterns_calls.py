"""gort.patterns: with_timeout, hedge, first."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import pytest
from model_support import EVERYWHERE, HandMadeContext, park, settle, spin_until

import gort
from gort import context, patterns
from gort.context import Context


class Boom(Exception):
    pass


def alone() -> None:
    spin_until(lambda: gort.num_goroutine() == 1, "one goroutine")


def wait(ctx: Context) -> Any:
    return gort.NIL.recv()


def wait_with(ctx: Context) -> Any:
    return gort.NIL.recv(ctx=ctx)


def boom(ctx: Context, *args: object) -> Any:
    raise Boom(*args)


# ---- with_timeout -------------------------------------------------------------------


@pytest.mark.parametrize("where", EVERYWHERE)
def test_with_timeout_gives_the_result(where: Callable[[Callable[[], Any]], Any]) -> None:
    def add(ctx: Context, a: int, b: int) -> tuple[int, bool]:
        return a + b, ctx.deadline() is not None and ctx.err() is None

    assert where(lambda: patterns.with_timeout(3600, add, 1, 2)) == (3, True)
    assert where(lambda: patterns.with_timeout(3600, lambda ctx: None)) is None
    assert gort.num_goroutine() == 1


def test_with_timeout_raises_the_error_where_it_came_up() -> None:
    with pytest.raises(Boom) as caught:
        patterns.with_timeout(3600, boom, "why")
    assert caught.value.args == ("why",)
    names = [f.name for f in traceback.extract_tb(caught.value.__traceback__)]
    assert names[-1] == "boom"
    assert gort.num_goroutine() == 1


@pytest.mark.parametrize("fn", [wait, wait_with, lambda ctx: gort.sleep(3600)])
@pytest.mark.parametrize("where", EVERYWHERE)
def test_when_the_time_is_up_the_call_is_gone(
    fn: Callable[[Context], Any], where: Callable[[Callable[[], Any]], Any]
) -> None:
    with pytest.raises(context.DeadlineExceeded):
        where(lambda: patterns.with_timeout(0.001, fn))
    assert gort.num_goroutine() == 1


def test_no_time_at_all() -> None:
    with pytest.raises(TimeoutError):
        patterns.with_timeout(0, wait)
    with pytest.raises(TimeoutError):
        patterns.with_timeout(-1, wait)
    alone()


def test_cleanup_is_awaited_when_the_time_is_up() -> None:
    ended = []

    def careful(ctx: Context) -> None:
        try:
            gort.NIL.recv()
        finally:
            gort.sleep(0.001)
            ended.append(True)

    with pytest.raises(TimeoutError):
        patterns.with_timeout(0.001, careful)
    assert ended == [True]


def test_a_late_result_counts() -> None:
    def partial(ctx: Context) -> str:
        try:
            gort.NIL.recv()
        except gort.GoroutineExit:
            return "partial"
        return "whole"

    assert patterns.with_timeout(0.001, partial) == "partial"


def test_a_late_error_counts() -> None:
    def fails(ctx: Context) -> None:
        try:
            gort.NIL.recv()
        finally:
            raise Boom

    with pytest.raises(Boom):
        patterns.with_timeout(0.001, fails)


def test_the_parent_context_ends_it() -> None:
    ctx, cancel = context.with_cancel(context.background())
    g = park(patterns.with_timeout, 3600, wait, ctx=ctx)
    cancel()
    with pytest.raises(context.Canceled):
        g.join()
    assert gort.num_goroutine() == 1
    mine = HandMadeContext()
    g = park(lambda: patterns.with_timeout(3600, wait, ctx=mine))
    mine.end(Boom())
    with pytest.raises(Boom):
        g.join()
    alone()


def test_the_values_of_the_parent_are_seen() -> None:
    ctx = context.with_value(context.background(), "key", "value")
    assert patterns.with_timeout(1, lambda c: c.value("key"), ctx=ctx) == "value"


def test_the_context_ends_with_the_call() -> None:
    ctx = patterns.with_timeout(3600, lambda ctx: ctx)
    assert isinstance(ctx.err(), context.Canceled)


def test_a_killed_caller_takes_the_call_along() -> None:
    ended = []

    def careful(ctx: Context) -> None:
        try:
            gort.NIL.recv()
        finally:
            ended.append(True)

    g = park(patterns.with_timeout, 3600, careful)
    spin_until(lambda: gort.num_goroutine() == 3 and "nil chan" in gort.stack(all=True), "the call")
    g.kill()
    assert g.join() is None
    assert ended == [True]
    assert gort.num_goroutine() == 1


def test_an_error_in_the_cleanup_of_a_killed_caller_is_told(panics: list[Any]) -> None:
    def fails(ctx: Context) -> None:
        try:
            gort.NIL.recv()
        finally:
            raise Boom

    g = park(patterns.with_timeout, 3600, fails)
    spin_until(lambda: "nil chan" in gort.stack(all=True), "the call")
    g.kill()
    assert g.join() is None
    assert [type(e) for _, e in panics] == [Boom]


def test_a_call_that_ends_its_goroutine_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="goexit"):
        patterns.with_timeout(3600, lambda ctx: gort.goexit())


# ---- hedge and first --------------------------------------------------------------------


def test_a_quick_first_attempt_is_the_only_one() -> None:
    calls = []

    def quick(ctx: Context) -> int:
        calls.append(ctx)
        return 7

    assert patterns.hedge(quick, 3600, 5) == 7
    assert len(calls) == 1
    assert isinstance(calls[0].err(), context.Canceled)
    assert gort.num_goroutine() == 1


@pytest.mark.parametrize("where", EVERYWHERE)
def test_a_slow_attempt_is_helped_by_another(where: Callable[[Callable[[], Any]], Any]) -> None:
    calls, ended = [], []

    def second_is_quick(ctx: Context) -> int:
        calls.append(len(calls))
        n = calls[-1]
        if n == 1:
            return n
        try:
            return gort.NIL.recv()  # type: ignore[no-any-return]
        finally:
            ended.append(n)

    assert where(lambda: patterns.hedge(second_is_quick, 0.001)) == 1
    assert (calls, ended) == ([0, 1], [0])
    assert gort.num_goroutine() == 1


def test_a_failed_attempt_is_followed_at_once() -> None:
    calls = []

    def third_is_well(ctx: Context) -> str:
        calls.append(1)
        if len(calls) < 3:
            raise Boom
        return "well"

    assert patterns.hedge(third_is_well, 3600, 3) == "well"


def test_a_slow_attempt_may_win_after_others_failed() -> None:
    gate = gort.Chan[str]()
    calls = []

    def first_is_slow(ctx: Context) -> str:
        calls.append(1)
        if len(calls) == 1:
            return gate.recv()
        raise Boom

    g = gort.go(patterns.hedge, first_is_slow, 0, 3)
    spin_until(lambda: len(calls) == 3, "three attempts")
    settle(g)
    gate.send("slow")
    assert g.join() == "slow"


def test_if_all_fail_all_errors_come() -> None:
    calls = []

    def fails(ctx: Context) -> None:
        calls.append(1)
        raise Boom(len(calls))

    with pytest.raises(ExceptionGroup) as caught:
        patterns.hedge(fails, 3600, 3)
    assert [e.args for e in caught.value.exceptions] == [(1,), (2,), (3,)]
    assert all([f.name for f in traceback.extract_tb(e.__traceback__)] == ["fails"] for e in caught.value.exceptions)
    with pytest.raises(ExceptionGroup, match="all 1 attempts failed"):
        patterns.hedge(fails, 0, 1)


def test_an_exit_among_the_errors_stays_one() -> None:
    def leave(ctx: Context) -> None:
        raise SystemExit

    with pytest.raises(BaseExceptionGroup) as caught:
        patterns.hedge(leave, 0, 2)
    assert not isinstance(caught.value, Exception)


def test_an_attempt_that_ends_its_goroutine_has_failed() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        patterns.first(lambda ctx: gort.goexit(), boom)
    assert {type(e) for e in caught.value.exceptions} == {RuntimeError, Boom}


def test_a_loser_that_fails_in_its_cleanup_is_told(panics: list[Any]) -> None:
    started = gort.Chan[None](1)

    def loser(ctx: Context) -> None:
        started.send(None)
        try:
            gort.NIL.recv()
        finally:
            raise Boom

    def winner(ctx: Context) -> int:
        started.recv()
        gort.gosched()
        return 1

    assert patterns.first(loser, winner) == 1
    assert [type(e) for _, e in panics] == [Boom]
    assert panics[0][0].name == "gort.patterns.first"


def test_losers_that_heed_their_context_are_no_error() -> None:
    def winner(ctx: Context) -> int:
        spin_until(lambda: "nil chan" in gort.stack(all=True), "the loser")
        return 1

    assert patterns.first(wait_with, winner) == 1
    assert gort.num_goroutine() == 1


@pytest.mark.parametrize("race", [lambda ctx: patterns.hedge(wait, 0, 3, ctx=ctx),
                                  lambda ctx: patterns.first(wait, wait, ctx=ctx)])  # fmt: skip
def test_a_context_ends_a_race(race: Callable[[Any], object]) -> None:
    ctx, cancel = context.with_cancel(context.background())
    g = gort.go(race, ctx)
    spin_until(lambda: gort.stack(all=True).count("nil chan") >= 2, "the attempts")
    cancel()
    with pytest.raises(context.Canceled):
        g.join()
    assert gort.num_goroutine() == 1
    with pytest.raises(context.Canceled):
        race(ctx)
    alone()


def test_a_killed_caller_takes_the_race_along() -> None:
    g = gort.go(patterns.hedge, wait, 0, 3)
    spin_until(lambda: gort.stack(all=True).count("nil chan") == 3, "the attempts")
    g.kill()
    assert g.join() is None
    assert gort.num_goroutine() == 1


def test_first_calls_all_at_once() -> None:
    a, b = gort.Chan[None](), gort.Chan[None]()

    def one(ctx: Context) -> int:
        a.send(None)
        return b.recv()  # type: ignore[func-returns-value, return-value]

    def two(ctx: Context) -> str:
        a.recv()
        return "both ran"

    assert patterns.first(one, two) == "both ran"


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: patterns.with_timeout("1", wait), TypeError, "seconds must be a number of seconds, not '1'"),
        (lambda: patterns.with_timeout(float("nan"), wait), ValueError, "seconds must be"),
        (lambda: patterns.with_timeout(1, 7), TypeError, "fn must be callable, not 7"),
        (lambda: patterns.with_timeout(1, wait, ctx=7), TypeError, "ctx must be a context, not 7"),
        (lambda: patterns.hedge(7, 1), TypeError, "fn must be callable, not 7"),
        (lambda: patterns.hedge(wait, None), TypeError, "delay must be"),
        (lambda: patterns.hedge(wait, 1, 0), ValueError, "n must be at least 1, not 0"),
        (lambda: patterns.hedge(wait, 1, ctx=7), TypeError, "ctx must be"),
        (lambda: patterns.first(), ValueError, "at least one"),
        (lambda: patterns.first(wait, 7), TypeError, "function 1 must be callable, not 7"),
        (lambda: patterns.first(wait, ctx=7), TypeError, "ctx must be"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
    assert gort.num_goroutine() == 1
