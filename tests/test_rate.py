"""gort.rate: the behaviour of x/time/rate's own tests, bad input, waits cut short, concurrency.

`at=` stands for the clock, so nothing here depends on how long anything takes.
"""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from model_support import EVERYWHERE, HandMadeContext, PlainThread, park, settle, spin_until

import gort
from gort import context, rate
from gort.rate import Limiter, Reservation, Sometimes, every

everywhere = pytest.mark.parametrize("where", EVERYWHERE)

# A time as a float cannot hold exactly, and multiples of 0.1 s after it.
T0 = 98765.4321
D = 0.1
T = [T0 + i * D for i in range(10)]


def allows(limiter: Limiter, *steps: tuple[float, int, bool]) -> None:
    for i, (at, n, ok) in enumerate(steps):
        assert limiter.allow(n, at=at) is ok, f"step {i}: allow({n}, at=T0+{at - T0:.1f})"


def reserve(limiter: Limiter, at: float, n: int, act: float | None) -> Reservation:
    """Reserve at `at`; to act at `act`, None: not ok."""
    r = limiter.reserve(n, at=at)
    assert r.ok is (act is not None)
    if act is None:
        assert r.delay_from(at) == math.inf
    else:
        assert r.delay_from(T0) == pytest.approx(act - T0, abs=1e-8)
    return r


# ---- every ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "limit"),
    [
        (0, math.inf),
        (-1, math.inf),
        (1e-9, 1e9),
        (1e-3, 1e3),
        (0.01, 100),
        (0.1, 10),
        (1, 1),
        (2.5, 0.4),
        (10, 0.1),
        (9e9, 1 / 9e9),
        (math.inf, 0),
    ],
)
def test_every_is_the_limit_of_one_event_in_an_interval(interval: float, limit: float) -> None:
    assert every(interval) == pytest.approx(limit)


def test_every_of_no_number_raises() -> None:
    with pytest.raises(ValueError, match=r"interval.*nan"):
        every(math.nan)
    with pytest.raises(TypeError):
        every("1")  # type: ignore[arg-type]


# ---- allow ------------------------------------------------------------------------------


def test_burst_of_one() -> None:
    allows(
        Limiter(10, 1),
        (T[0], 1, True),
        (T[0], 1, False),
        (T[0], 1, False),
        (T[1], 1, True),
        (T[1], 1, False),
        (T[1], 1, False),
        (T[2], 2, False),
        (T[2], 1, True),
        (T[2], 1, False),
    )


def test_burst_of_three() -> None:
    allows(
        Limiter(10, 3),
        (T[0], 2, True),
        (T[0], 2, False),
        (T[0], 1, True),
        (T[0], 1, False),
        (T[1], 4, False),
        (T[2], 1, True),
        (T[3], 1, True),
        (T[4], 1, True),
        (T[4], 1, True),
        (T[4], 1, False),
        (T[4], 1, False),
        (T[9], 3, True),
        (T[9], 0, True),
    )


def test_a_clock_that_jumps_back_takes_nothing_away() -> None:
    allows(
        Limiter(10, 3),
        (T[1], 1, True),
        (T[0], 1, True),
        (T[0], 1, True),
        (T[0], 1, False),
        (T[0], 1, False),
        (T[1], 1, True),
        (T[1], 1, False),
        (T[1], 1, False),
        (T[2], 1, True),
        (T[2], 1, False),
        (T[2], 1, False),
    )


@pytest.mark.parametrize("limit", [0.7692307692307693, 10, 3, 1 / 3])
def test_a_token_is_there_when_its_time_has_come(limit: float) -> None:
    limiter = Limiter(limit, 1)
    at = T0
    for _ in range(1000):  # however `at` is rounded
        assert limiter.allow(at=at)
        assert not limiter.allow(at=at)
        at += 1 / limit + 1e-9


def test_every_tenth_of_a_second_exactly_one_token_comes() -> None:
    limiter = Limiter(10, 1)
    for i in range(1000):
        assert limiter.allow(at=T0 + i / 10)
        assert not limiter.allow(at=T0 + i / 10 + 0.0999)


def test_a_limit_of_nothing_grants_the_burst_and_no_more() -> None:
    allows(Limiter(0, 1), (T[0], 1, True), (T[0], 1, False), (T0 + 1e6, 1, False))


def test_a_tiny_limit_grants_the_burst_and_next_to_nothing() -> None:
    allows(Limiter(1e-10, 1), (T[0], 1, True), (T[0], 1, False), (T0 + 1e6, 1, False))


def test_a_limit_raised_from_nothing_refills() -> None:
    limiter = Limiter(0, 1)
    allows(limiter, (T[0], 1, True), (T[0], 1, False), (T[1], 1, False))
    limiter.set_limit(10, at=T[1])
    allows(limiter, (T[1], 1, False), (T[2], 1, True), (T[2], 1, False))


def test_a_limiter_set_anew_after_it_was_emptied() -> None:
    limiter = Limiter(10, 1)
    allows(limiter, (T[0], 1, True), (T[0], 1, False))
    limiter.set_limit(0, at=T[0])
    allows(limiter, (T[5], 1, False))
    limiter.set_burst(2, at=T[5])
    limiter.set_limit(20, at=T[5])
    allows(limiter, (T[5], 1, False), (T[6], 2, True))


def test_no_limit_allows_everything_whatever_the_burst() -> None:
    limiter = Limiter(math.inf, 0)
    allows(limiter, (T[0], 1, True), (T[0], 1000, True), (T[0], 2**62, True), (T[0] - 1, 5, True))
    assert limiter.reserve(5).delay == 0.0
    limiter.wait(7)


def test_a_burst_of_nothing_allows_nothing() -> None:
    limiter = Limiter(10, 0)
    allows(limiter, (T[0], 1, False), (T[9], 1, False), (T[9], 0, True))
    assert not limiter.reserve().ok
    with pytest.raises(ValueError, match="burst of 0"):
        limiter.wait()


def test_the_longest_time_overflows_nothing() -> None:
    limiter = Limiter(1e-18, 2**62)
    allows(limiter, (-4e9, 2**62, True), (4e9, 1, False))
    assert limiter.reserve(2**62, at=4e9).delay_from(-4e9) == math.inf
    limiter = Limiter(1e300, 2**62)
    allows(limiter, (-4e9, 2**62, True), (4e9, 2**62, True))


@everywhere
def test_without_at_the_present_counts(where: Any) -> None:
    limiter = Limiter(every(3600), 2)
    assert where(lambda: [limiter.allow() for _ in range(4)]) == [True, True, False, False]
    assert limiter.allow(at=gort.time.now() + 3601)


# ---- tokens, limit, burst ---------------------------------------------------------------


def test_tokens_come_with_time_up_to_the_burst() -> None:
    limiter = Limiter(10, 4)
    assert limiter.tokens(at=T[0]) == 4
    assert limiter.allow(3, at=T[0])
    assert [round(limiter.tokens(at=T[i]), 6) for i in range(5)] == [1, 2, 3, 4, 4]
    assert limiter.reserve(4, at=T[0]).ok
    assert limiter.tokens(at=T[0]) == pytest.approx(-3)
    assert Limiter(math.inf, 3).tokens() == 3


def test_limit_and_burst_can_be_read_and_set() -> None:
    limiter = Limiter(limit_per_second=2.5, burst=3)
    assert (limiter.limit, limiter.burst) == (2.5, 3)
    limiter.set_limit(math.inf)
    limiter.set_burst(5)
    assert (limiter.limit, limiter.burst) == (math.inf, 5)
    assert repr(limiter) == "<Limiter inf/s burst 5>"


def test_a_smaller_burst_takes_the_tokens_above_it_away() -> None:
    limiter = Limiter(10, 5)
    limiter.set_burst(2, at=T[0])
    assert limiter.tokens(at=T[0]) == 2
    allows(limiter, (T[0], 3, False), (T[0], 2, True), (T[0], 1, False))


def test_tokens_between_two_limits_come_at_the_rate_of_their_time() -> None:
    limiter = Limiter(10, 100)
    assert limiter.allow(100, at=T[0])
    limiter.set_limit(100, at=T[5])
    assert limiter.tokens(at=T[6]) == pytest.approx(5 + 10)


def test_numbers_of_every_kind_are_limits() -> None:
    for limit in (10, 10.0, Fraction(10), Decimal(10)):
        assert Limiter(limit, 1).limit == 10.0  # type: ignore[arg-type]
    assert Limiter(10**400, 1).limit == math.inf


# ---- reservations -----------------------------------------------------------------------


def test_simple_reservations() -> None:
    limiter = Limiter(10, 2)
    reserve(limiter, T[0], 2, T[0])
    reserve(limiter, T[0], 2, T[2])
    reserve(limiter, T[3], 2, T[4])


def test_reservations_and_allowances_mixed() -> None:
    limiter = Limiter(10, 2)
    reserve(limiter, T[0], 3, None)
    reserve(limiter, T[0], 2, T[0])
    allows(limiter, (T[1], 2, False))
    reserve(limiter, T[1], 2, T[2])
    allows(limiter, (T[1], 1, False), (T[3], 1, True))


def test_cancelling_what_is_not_ok_does_nothing() -> None:
    limiter = Limiter(10, 2)
    reserve(limiter, T[0], 2, T[0])
    reserve(limiter, T[0], 3, None).cancel_at(T[0])
    reserve(limiter, T[0], 2, T[2])


def test_cancelling_the_last_gives_its_tokens_back() -> None:
    limiter = Limiter(10, 2)
    reserve(limiter, T[0], 2, T[0])
    reserve(limiter, T[0], 2, T[2]).cancel_at(T[1])
    reserve(limiter, T[1], 2, T[2])


def test_cancelling_too_late_does_nothing() -> None:
    limiter = Limiter(10, 2)
    reserve(limiter, T[0], 2, T[0])
    reserve(limiter, T[0], 2, T[2]).cancel_at(T[3])
    reserve(limiter, T[3], 2, T[4])


def test_tokens_that_later_ones_wait_behind_do_not_come_back() -> None:
    limiter = Limiter(10, 2)
    reserve(limiter, T[0], 2, T[0])
    r = reserve(limiter, T[0], 1, T[1])
    reserve(limiter, T[0], 1, T[2])
    r.cancel_at(T[0])
    reserve(limiter, T[0], 1, T[3])


def test_one_of_two_tokens_comes_back() -> None:
    limiter = Limiter(10, 2)
    reserve(limiter, T[0], 2, T[0])
    r = reserve(limiter, T[0], 2, T[2])
    reserve(limiter, T[0], 1, T[3])
    r.cancel_at(T[2])
    reserve(limiter, T[2], 2, T[4])


def test_cancelling_several() -> None:
    limiter = Limiter(10, 4)
    reserve(limiter, T[0], 4, T[0])
    a = reserve(limiter, T[0], 3, T[3])
    reserve(limiter, T[0], 1, T[4])
    c = reserve(limiter, T[0], 1, T[5])
    c.cancel_at(T[1])  # gives 1 back
    a.cancel_at(T[1])  # gives 2 back, as if c had never been
    reserve(limiter, T[1], 3, T[5])


def test_a_reservation_after_the_clock_jumped_back() -> None:
    limiter = Limiter(10, 2)
    reserve(limiter, T[1], 2, T[1])
    reserve(limiter, T[0], 1, T[1])  # more than limit and burst
    reserve(limiter, T[2], 2, T[3])


def test_cancelling_after_the_clock_jumped_back() -> None:
    limiter = Limiter(10, 2)
    reserve(limiter, T[1], 2, T[1])
    r = reserve(limiter, T[1], 2, T[3])
    reserve(limiter, T[1], 1, T[4])
    r.cancel_at(T[0])  # gives 1 back
    reserve(limiter, T[1], 2, T[4])  # more than limit and burst


def test_a_new_limit_holds_for_later_reservations() -> None:
    limiter = Limiter(5, 2)
    reserve(limiter, T[0], 2, T[0])
    reserve(limiter, T[0], 2, T[4])
    limiter.set_limit(10, at=T[2])
    reserve(limiter, T[2], 1, T[4])  # more than limit and burst


def test_a_new_burst_holds_for_later_reservations() -> None:
    limiter = Limiter(5, 2)
    reserve(limiter, T[0], 2, T[0])
    reserve(limiter, T[0], 2, T[4])
    limiter.set_burst(4, at=T[3])
    reserve(limiter, T[0], 4, T[9])  # more than limit and burst


def test_cancelling_after_a_new_limit() -> None:
    limiter = Limiter(5, 2)
    reserve(limiter, T[0], 2, T[0])
    r = reserve(limiter, T[0], 2, T[4])
    limiter.set_limit(10, at=T[2])
    r.cancel_at(T[2])  # gives 2 back
    reserve(limiter, T[2], 2, T[3])


def test_a_reservation_cancelled_twice_gives_back_no_more_than_the_burst() -> None:
    limiter = Limiter(10, 2)
    r = limiter.reserve(2, at=T[5])
    r.cancel_at(T[0])
    r.cancel_at(T[0])
    assert limiter.tokens(at=T[0]) == 2


def test_a_reservation_at_a_limit_of_nothing_never_comes() -> None:
    limiter = Limiter(0, 1)
    assert limiter.allow(at=T[0])
    r = limiter.reserve(at=T[0])
    assert r.ok
    assert r.delay_from(T[9]) == r.delay == math.inf
    assert limiter.tokens(at=T[0]) == -1
    r.cancel_at(T[1])
    assert limiter.tokens(at=T[1]) == 0


def test_delay_counts_down_to_nothing() -> None:
    r = Limiter(every(3600), 1).reserve()
    assert r.delay == 0
    limiter = Limiter(10, 1)
    limiter.reserve(at=T[0])
    r = limiter.reserve(at=T[0])
    assert [round(r.delay_from(T[i]), 6) for i in range(3)] == [0.1, 0.0, 0.0]
    later = Limiter(every(3600), 1)
    assert later.allow()
    r = later.reserve()
    assert 3590 < r.delay <= 3600
    r.cancel()
    assert -0.01 < later.tokens() < 0.01
    assert "Reservation of 1, delay 3" in repr(r)
    assert repr(limiter.reserve(2)) == "<Reservation of 2, not ok>"


# ---- wait -------------------------------------------------------------------------------


@everywhere
def test_wait_returns_at_once_while_there_are_tokens(where: Any) -> None:
    limiter = Limiter(every(3600), 3)
    where(lambda: limiter.wait())
    where(lambda: limiter.wait(2, timeout=0))
    assert not limiter.allow()


@everywhere
def test_wait_waits_until_the_tokens_are_there(where: Any) -> None:
    limiter = Limiter(200, 2)

    def body() -> float:
        start = gort.time.now()
        limiter.wait(2)
        limiter.wait(2)
        limiter.wait(2)
        return gort.time.now() - start

    assert where(body) >= 0.0199


def test_those_who_wait_are_served_one_behind_the_other() -> None:
    limiter = Limiter(every(3600), 2)
    limiter.wait(2)
    gs, ahead = [], 0
    for n in (2, 1, 2):
        gs.append(park(limiter.wait, n))
        ahead += n
        r = limiter.reserve()
        assert r.delay == pytest.approx((ahead + 1) * 3600, abs=300)
        r.cancel()
    for g in gs:
        g.kill()
        g.join()


def test_waiting_for_more_than_the_burst_raises_value_error_and_takes_nothing() -> None:
    limiter = Limiter(10, 3)
    with pytest.raises(ValueError, match="n must be at most the burst of 3, not 4"):
        limiter.wait(4)
    assert limiter.tokens() == 3


def test_a_context_that_has_ended_ends_the_wait_even_if_there_are_tokens() -> None:
    limiter = Limiter(10, 3)
    ctx, cancel = context.with_cancel(context.background())
    cancel()
    with pytest.raises(context.Canceled):
        limiter.wait(1, ctx)
    assert limiter.tokens() == 3
    with pytest.raises(ValueError, match="burst"):  # this is looked at first
        limiter.wait(4, ctx)


def test_the_end_of_the_context_ends_the_wait_and_gives_the_tokens_back() -> None:
    limiter = Limiter(every(3600), 3)
    ctx, cancel = context.with_cancel(context.background())
    limiter.wait(2, ctx)
    g = park(limiter.wait, 3, ctx)
    assert limiter.tokens() < -1.9
    cancel()
    with pytest.raises(context.Canceled):
        g.join()
    assert limiter.tokens() > 0.9
    limiter.wait(1, timeout=0)


@pytest.mark.parametrize("how", ["kill", "thread"])
def test_a_wait_cut_short_gives_the_tokens_back(how: str) -> None:
    limiter, ctx = Limiter(every(3600), 1), HandMadeContext()
    limiter.wait()
    if how == "kill":
        g = park(limiter.wait)
        g.kill()
        assert g.join() is None
    else:
        thread = PlainThread(limiter.wait, 1, ctx)
        spin_until(lambda: limiter.tokens() < -0.9)
        ctx.end(ZeroDivisionError())
        with pytest.raises(ZeroDivisionError):
            thread.result()
    assert limiter.tokens() > -0.1


def test_a_wait_cut_short_gives_back_what_nobody_waits_behind() -> None:
    limiter = Limiter(every(3600), 2)
    limiter.wait(2)
    first, second = park(limiter.wait, 2), park(limiter.wait, 1)
    first.kill()
    first.join()
    assert limiter.tokens() == pytest.approx(-2, abs=0.01)  # one of the two came back
    second.kill()
    second.join()


@everywhere
def test_a_timeout_that_is_too_short_raises_at_once_and_takes_nothing(where: Any) -> None:
    limiter = Limiter(every(3600), 2)
    limiter.wait(1)
    for timeout in (0, -1, 60, 3590):
        with pytest.raises(context.DeadlineExceeded, match="2 tokens"):
            where(lambda timeout=timeout: limiter.wait(2, timeout=timeout))
    with pytest.raises(TimeoutError):
        limiter.wait(2, timeout=60)
    assert limiter.tokens() > 0.99
    limiter.wait(1, timeout=0)


@everywhere
def test_a_deadline_that_is_too_near_raises_at_once_and_takes_nothing(where: Any) -> None:
    limiter = Limiter(every(3600), 3)
    ctx, cancel = context.with_timeout(context.background(), 60)
    limiter.wait(2, ctx)
    with pytest.raises(context.DeadlineExceeded):
        where(lambda: limiter.wait(3, ctx))
    assert ctx.err() is None
    assert limiter.tokens() > 0.99
    limiter.wait(1, ctx, timeout=3600)
    cancel()


def test_the_nearer_of_timeout_and_deadline_counts() -> None:
    limiter = Limiter(every(100), 1)
    limiter.wait()
    ctx, cancel = context.with_timeout(context.background(), 1000)
    with pytest.raises(context.DeadlineExceeded):
        limiter.wait(ctx=ctx, timeout=50)
    g = park(lambda: limiter.wait(ctx=ctx, timeout=500))
    g.kill()
    g.join()
    cancel()


def test_a_deadline_that_has_passed_raises_though_its_context_has_not_ended() -> None:
    class Late(HandMadeContext):
        def deadline(self) -> float | None:
            return gort.time.now() - 1

    limiter = Limiter(10, 1)
    with pytest.raises(context.DeadlineExceeded):
        limiter.wait(1, Late())
    assert limiter.tokens() == 1
    Limiter(math.inf, 0).wait(1, Late())


@pytest.mark.parametrize("deadline", [None, math.inf, 1e300])
def test_a_context_without_a_deadline_to_speak_of_is_no_hindrance(deadline: float | None) -> None:
    class Timeless(HandMadeContext):
        def deadline(self) -> float | None:
            return deadline

    limiter = Limiter(500, 1)
    for _ in range(2):
        limiter.wait(1, Timeless())


def test_a_context_of_two_methods_will_do() -> None:
    class Least:
        def __init__(self) -> None:
            self.ch = gort.Chan[None]()

        def done(self) -> gort.Chan[None]:
            return self.ch

        def err(self) -> Exception | None:
            return None

    limiter = Limiter(500, 1)
    for _ in range(2):
        limiter.wait(ctx=Least())


def test_at_a_limit_of_nothing_wait_waits_for_its_context() -> None:
    limiter = Limiter(0, 1)
    limiter.wait()
    with pytest.raises(context.DeadlineExceeded):
        limiter.wait(timeout=1e9)
    ctx, cancel = context.with_cancel(context.background())
    g = park(limiter.wait, 1, ctx)
    cancel()
    with pytest.raises(context.Canceled):
        g.join()
    assert limiter.tokens() == 0


def test_a_canceled_wait_leaves_no_reference_to_its_context() -> None:
    limiter = Limiter(every(3600), 1)
    limiter.wait()
    ctx, cancel = context.with_cancel(context.background())
    g = park(limiter.wait, 1, ctx)
    cancel()
    with pytest.raises(context.Canceled):
        g.join()
    assert limiter.reserve().delay < 3600


# ---- concurrency ------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [0, 4])
def test_simultaneous_requests_get_the_burst_and_no_more(threads: int) -> None:
    limiter, granted = Limiter(every(3600), 500), []

    def body() -> None:
        for _ in range(100):
            if limiter.allow():
                granted.append(1)
            gort.gosched()

    workers: list[Any] = [PlainThread(body) for _ in range(threads)]
    gs = [gort.go(body) for _ in range(10)]
    for g in gs:
        g.join()
    for w in workers:
        w.result()
    assert len(granted) == 500


def test_many_waiters_get_one_token_each() -> None:
    limiter = Limiter(20000, 5)
    start = gort.time.now()
    gs = [gort.go(limiter.wait) for _ in range(200)]
    for g in gs:
        g.join()
    elapsed = gort.time.now() - start
    assert elapsed >= 195 / 20000 - 1e-6
    assert limiter.tokens() <= 5


def test_waiters_of_which_some_are_killed_leave_the_limiter_even() -> None:
    limiter = Limiter(every(3600), 10)
    limiter.wait(10)
    gs = [park(limiter.wait) for _ in range(10)]
    for g in reversed(gs):
        g.kill()
        g.join()
    assert limiter.tokens() == pytest.approx(0, abs=0.1)


# ---- bad input --------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["10", b"1", None, [], 1j])
def test_a_limit_that_is_no_number_raises_type_error(limit: Any) -> None:
    with pytest.raises(TypeError, match="limit must be a number"):
        Limiter(limit, 1)
    limiter = Limiter(10, 1)
    with pytest.raises(TypeError, match="limit must be a number"):
        limiter.set_limit(limit)
    assert limiter.limit == 10


@pytest.mark.parametrize("limit", [-1, -1e-9, -math.inf, math.nan])
def test_a_limit_below_nothing_raises_value_error(limit: float) -> None:
    with pytest.raises(ValueError, match="limit must"):
        Limiter(limit, 1)
    limiter = Limiter(10, 1)
    with pytest.raises(ValueError, match="limit must"):
        limiter.set_limit(limit)
    assert limiter.limit == 10


def test_a_burst_that_will_not_do_raises() -> None:
    limiter = Limiter(10, 1)
    for make in (lambda b: Limiter(10, b), limiter.set_burst):
        for burst in (1.5, "1", None):
            with pytest.raises(TypeError, match="burst must be an int"):
                make(burst)
        for number in (-1, 2**63):
            with pytest.raises(ValueError, match="burst"):
                make(number)
    assert limiter.burst == 1


def test_a_number_of_tokens_that_will_not_do_raises_and_takes_nothing() -> None:
    limiter = Limiter(every(3600), 1)
    for call in (limiter.allow, limiter.reserve, limiter.wait):
        for n in (1.0, "1", None):
            with pytest.raises(TypeError, match="n must be an int"):
                call(n)  # type: ignore[operator]
        for number in (-1, 2**63):
            with pytest.raises(ValueError, match="n "):
                call(number)  # type: ignore[operator]
    assert limiter.tokens() == 1


def test_a_time_that_will_not_do_raises_and_changes_nothing() -> None:
    limiter = Limiter(10, 5)
    r = limiter.reserve()
    tokens = limiter.tokens(at=T0)
    calls: list[Any] = [
        lambda at: limiter.allow(at=at),
        lambda at: limiter.reserve(at=at),
        lambda at: limiter.tokens(at=at),
        lambda at: limiter.set_limit(1, at=at),
        lambda at: limiter.set_burst(1, at=at),
        r.delay_from,
        r.cancel_at,
    ]
    for call in calls:
        with pytest.raises(TypeError, match="at must be a time"):
            call("now")
        for at in (math.inf, -math.inf, math.nan, 1e10):
            with pytest.raises(ValueError, match="at must be a time"):
                call(at)
    for call in (r.delay_from, r.cancel_at):
        with pytest.raises(TypeError, match="at must be a time"):
            call(None)
    assert (limiter.limit, limiter.burst, limiter.tokens(at=T0)) == (10, 5, tokens)


def test_what_is_no_context_or_timeout_raises_and_takes_nothing() -> None:
    limiter = Limiter(10, 1)
    with pytest.raises(TypeError, match="ctx must be a context"):
        limiter.wait(1, 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="timeout"):
        limiter.wait(timeout="1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="timeout"):
        limiter.wait(timeout=math.nan)
    assert limiter.tokens() == 1


def test_a_reservation_is_not_made_by_hand() -> None:
    with pytest.raises(TypeError, match=r"reserve\(\)"):
        Reservation()


# ---- Sometimes --------------------------------------------------------------------------


def runs(sometimes: Sometimes, calls: int) -> list[int]:
    ran: list[int] = []
    for i in range(calls):
        sometimes.do(lambda i=i: ran.append(i))  # type: ignore[misc]
    return ran


@pytest.mark.parametrize(
    ("rules", "ran"),
    [
        ({}, [0]),
        ({"first": 0}, [0]),
        ({"first": 1}, [0]),
        ({"first": 3}, [0, 1, 2]),
        ({"every": 1}, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ({"every": 4}, [0, 4, 8]),
        ({"first": 2, "every": 5}, [0, 1, 5]),
        ({"first": 3, "every": 2}, [0, 1, 2, 4, 6, 8]),
        ({"first": -3, "every": -2, "interval": -1}, [0]),
        ({"interval": 1e-9, "every": 3}, None),
        ({"interval": 3600}, [0]),
        ({"interval": 3600, "first": 2}, [0, 1]),
    ],
)
def test_sometimes_does_it_when_a_rule_says_so(rules: dict[str, Any], ran: list[int] | None) -> None:
    got = runs(Sometimes(**rules), 10)
    if ran is None:
        assert got[0] == 0
        assert {3, 6, 9} <= set(got)
    else:
        assert got == ran


def test_sometimes_does_it_again_when_the_interval_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [T0]
    monkeypatch.setattr(rate.time, "now", lambda: now[0])
    sometimes, ran = Sometimes(interval=2), []
    for i in range(10):
        sometimes.do(lambda i=i: ran.append(i))  # type: ignore[misc]
        now[0] += 0.75
    assert ran == [0, 3, 6, 9]


def test_sometimes_does_one_at_a_time() -> None:
    sometimes, gate, inside = Sometimes(every=1), gort.Chan(), []

    def slow() -> None:
        inside.append("slow")
        gate.recv()
        inside.append("slow done")

    first = park(sometimes.do, slow)
    second = park(sometimes.do, lambda: inside.append("quick"))
    gate.send(None)
    first.join()
    second.join()
    assert inside == ["slow", "slow done", "quick"]


def test_what_raises_does_not_count() -> None:
    sometimes, ran = Sometimes(first=1), []

    def fail() -> None:
        raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            sometimes.do(fail)
    sometimes.do(lambda: ran.append(1))
    sometimes.do(lambda: ran.append(2))
    assert ran == [1]


def test_sometimes_goes_on_after_a_kill() -> None:
    sometimes, ran = Sometimes(first=1), []
    g = park(sometimes.do, gort.Chan().recv)
    waiting = park(sometimes.do, lambda: ran.append(1))
    g.kill()
    g.join()
    settle(waiting)
    waiting.join()
    assert ran == [1]


def test_bad_rules_raise() -> None:
    for name in ("first", "every"):
        with pytest.raises(TypeError, match=f"{name} must be an int"):
            Sometimes(**{name: 1.5})
    with pytest.raises(TypeError, match="interval must be a number"):
        Sometimes(interval="1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="interval must be a number"):
        Sometimes(interval=math.nan)
    with pytest.raises(TypeError, match="callable"):
        Sometimes().do(5)  # type: ignore[arg-type]
