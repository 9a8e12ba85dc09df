"""select: forms of cases, readiness, fairness, duplicates, closing.

The comparison with a model is in test_model_chan.py.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from model_support import EVERYWHERE, PlainThread, nobody_receives, nobody_sends, park, settle

import gort

everywhere = pytest.mark.parametrize("where", EVERYWHERE)


def full(*values: Any, cap: int | None = None) -> Any:
    ch = gort.Chan(len(values) if cap is None else cap)
    for v in values:
        ch.send(v)
    return ch


# ---- results ---------------------------------------------------------------------


@everywhere
def test_a_receive_gives_index_value_and_ok(where: Any) -> None:
    a, b = gort.Chan(), full("v")
    assert where(lambda: gort.select(a, b)) == (1, "v", True)
    assert len(b) == 0


@everywhere
def test_a_send_gives_index_none_and_ok(where: Any) -> None:
    a, b = full(1), gort.Chan(1)
    assert where(lambda: gort.select((a, 2), (b, 3))) == (1, None, True)
    assert b.recv() == 3
    assert a.recv() == 1


@everywhere
def test_a_closed_channel_gives_none_and_not_ok(where: Any) -> None:
    ch = gort.Chan()
    ch.close()
    assert where(lambda: gort.select(gort.Chan(), ch)) == (1, None, False)


def test_a_closed_channel_is_drained_first() -> None:
    ch = full("last", cap=3)
    ch.close()
    assert gort.select(ch) == (0, "last", True)
    assert gort.select(ch) == (0, None, False)
    assert gort.select(ch) == (0, None, False)


def test_none_can_be_received_and_is_ok() -> None:
    assert gort.select(full(None)) == (0, None, True)


def test_the_result_can_be_unpacked() -> None:
    index, value, ok = gort.select(full("x"))
    assert (index, value, ok) == (0, "x", True)


def test_a_send_case_on_a_closed_channel_raises_chan_closed() -> None:
    ch = gort.Chan(1)
    ch.close()
    with pytest.raises(gort.ChanClosed):
        gort.select((ch, 1))
    with pytest.raises(gort.ChanClosed):
        gort.select(gort.Chan(), (ch, 1), default=True)


def test_a_send_case_on_a_closed_channel_beside_a_ready_one_is_chosen_at_times() -> None:
    dead, outcomes = gort.Chan(), Counter[str]()
    dead.close()
    for _ in range(200):
        ch = full("v")
        try:
            assert gort.select((dead, 1), ch) == (1, "v", True)
            outcomes["received"] += 1
        except gort.ChanClosed:
            assert len(ch) == 1
            outcomes["closed"] += 1
    assert outcomes["received"] > 40
    assert outcomes["closed"] > 40


def test_views_are_cases_too() -> None:
    ch = gort.Chan(1)
    assert gort.select((ch.sender(), "through a view")) == (0, None, True)
    assert gort.select(ch.receiver()) == (0, "through a view", True)


# ---- waiting ------------------------------------------------------------------------


def test_a_waiting_select_receives_what_comes_first() -> None:
    a, b = gort.Chan(), gort.Chan()
    g = park(gort.select, a, b)
    b.send("b")
    assert g.join() == (1, "b", True)
    nobody_receives(a)
    nobody_receives(b)


def test_a_waiting_select_sends_to_who_comes_first() -> None:
    a, b = gort.Chan(), gort.Chan()
    g = park(gort.select, (a, "to a"), (b, "to b"))
    assert b.recv() == "to b"
    assert g.join() == (1, None, True)
    nobody_sends(a)
    nobody_sends(b)


def test_a_waiting_select_is_woken_by_close() -> None:
    a, b = gort.Chan(), gort.Chan()
    g = park(gort.select, a, b)
    b.close()
    assert g.join() == (1, None, False)
    nobody_receives(a)


def test_a_waiting_send_case_raises_chan_closed_at_close() -> None:
    a, b = gort.Chan(), gort.Chan()
    g = park(gort.select, a, (b, 1))
    b.close()
    with pytest.raises(gort.ChanClosed):
        g.join()
    nobody_receives(a)


def test_a_waiting_select_takes_its_turn_among_plain_waiters() -> None:
    ch, got = gort.Chan(), []
    gs = [
        park(lambda: got.append(("recv", ch.recv()))),
        park(lambda: got.append(("select", gort.select(ch, gort.Chan())[1]))),
        park(lambda: got.append(("recv", ch.recv()))),
    ]
    for i in range(3):
        ch.send(i)
        settle(*gs[: i + 1])
    assert got == [("recv", 0), ("select", 1), ("recv", 2)]
    for g in gs:
        g.join()


def test_two_selects_meet() -> None:
    a, b = gort.Chan(), gort.Chan()
    g = park(gort.select, (a, "x"), b)
    assert gort.select(a, (b, "y")) in [(0, "x", True), (1, None, True)]
    assert g.join() in [(0, None, True), (1, "y", True)]


def test_only_one_case_of_a_waiting_select_fires() -> None:
    chans = [gort.Chan() for _ in range(5)]
    g = park(gort.select, *chans)
    done = []
    for i, ch in enumerate(chans):
        try:
            ch.send_nowait(i)
            done.append(i)
        except gort.WouldBlock:
            pass
    assert done == [0]
    assert g.join() == (0, 0, True)


@everywhere
def test_timeout_raises_timeout_error_and_none_waits(where: Any) -> None:
    with pytest.raises(TimeoutError):
        where(lambda: gort.select(gort.Chan(), timeout=0.01))
    assert gort.select(full(1), timeout=None) == (0, 1, True)


def test_a_ready_case_comes_before_a_timeout_of_zero() -> None:
    assert gort.select(gort.Chan(), full(1), timeout=0) == (1, 1, True)
    assert gort.select(gort.Chan(), full(1), timeout=-1) == (1, 1, True)


def test_select_without_a_case_waits_for_its_timeout() -> None:
    with pytest.raises(TimeoutError):
        gort.select(timeout=0.01)
    with pytest.raises(TimeoutError):
        gort.select(None, gort.NIL, timeout=0)


def test_select_from_plain_threads() -> None:
    a, b = gort.Chan(), gort.Chan()
    thread = PlainThread(lambda: [gort.select(a, b)[:2] for _ in range(20)])
    for i in range(10):
        a.send(i)
        b.send(i)
    got = thread.result()
    assert [v for i, v in got if i == 0] == list(range(10))
    assert [v for i, v in got if i == 1] == list(range(10))


# ---- default -------------------------------------------------------------------------


@everywhere
def test_default_with_nothing_ready(where: Any) -> None:
    a, b = gort.Chan(), full(1)
    assert where(lambda: gort.select(a, (b, 2), default=True)) == (-1, None, False)
    assert len(b) == 1
    nobody_receives(a)


def test_default_with_something_ready() -> None:
    assert gort.select(gort.Chan(), full("v"), default=True) == (1, "v", True)


def test_default_without_cases() -> None:
    assert gort.select(default=True) == (-1, None, False)
    assert gort.select(None, (None, 1), gort.NIL, default=True) == (-1, None, False)


def test_default_comes_before_a_timeout() -> None:
    assert gort.select(gort.Chan(), default=True, timeout=1000) == (-1, None, False)


def test_default_is_a_keyword() -> None:
    with pytest.raises(TypeError):
        gort.select(gort.Chan(), True)  # type: ignore[arg-type]


# ---- nil cases -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "nil", [None, gort.NIL, (None, 1), (gort.NIL, 1)], ids=["None", "NIL", "send-None", "send-NIL"]
)
def test_a_nil_case_is_never_ready_but_counts_as_a_place(nil: Any) -> None:
    assert gort.select(nil, full("v"), nil) == (1, "v", True)
    assert gort.select(nil, gort.Chan(), default=True) == (-1, None, False)
    with pytest.raises(TimeoutError):
        gort.select(nil, timeout=0)


def test_switching_a_case_off_with_none() -> None:
    """The idiom: a source that is drained is set to nil."""
    a, b, got = full(1, 2), full(3, 4, 5), []
    a.close()
    b.close()
    cases: list[Any] = [a, b]
    while any(cases):
        i, v, ok = gort.select(*cases)
        if ok:
            got.append(v)
        else:
            cases[i] = None
    assert sorted(got) == [1, 2, 3, 4, 5]


# ---- duplicates ---------------------------------------------------------------------------


def test_the_same_channel_several_times_receives_once() -> None:
    ch = full("a", "b")
    index, value, ok = gort.select(ch, ch, ch)
    assert index in (0, 1, 2)
    assert (value, ok, len(ch)) == ("a", True, 1)


def test_the_same_channel_several_times_waits_once() -> None:
    ch = gort.Chan()
    g = park(gort.select, ch, ch, ch)
    ch.send("once")
    index, value, ok = g.join()
    assert index in (0, 1, 2)
    assert (value, ok) == ("once", True)
    nobody_receives(ch)


def test_duplicate_send_cases_send_the_value_of_the_chosen_one() -> None:
    ch = gort.Chan()
    for _ in range(20):
        g = park(gort.select, (ch, "first"), (ch, "second"))
        value = ch.recv()
        assert g.join() == (["first", "second"].index(value), None, True)
        nobody_sends(ch)


def test_a_select_does_not_meet_itself() -> None:
    ch = gort.Chan()
    g = park(gort.select, ch, (ch, "to myself"))
    assert g.state == "waiting"
    ch.send("from another")
    assert g.join() == (0, "from another", True)
    nobody_sends(ch)
    nobody_receives(ch)


def test_two_selects_with_the_same_channel_both_ways_meet_each_other() -> None:
    for _ in range(50):
        ch = gort.Chan()
        g = park(gort.select, ch, (ch, "theirs"))
        mine = gort.select(ch, (ch, "mine"))
        theirs = g.join()
        assert (mine, theirs) in [
            ((0, "theirs", True), (1, None, True)),
            ((1, None, True), (0, "mine", True)),
        ]


def test_a_buffered_channel_both_ways_in_one_select() -> None:
    ch = gort.Chan(1)
    assert gort.select(ch, (ch, "x")) == (1, None, True)
    assert gort.select(ch, (ch, "y")) == (0, "x", True)


def test_closing_a_channel_that_stands_both_ways_in_a_waiting_select() -> None:
    ch = gort.Chan()
    g = park(gort.select, ch, (ch, 1))
    ch.close()
    try:
        assert g.join() == (0, None, False)
    except gort.ChanClosed:
        pass


# ---- fairness ---------------------------------------------------------------------------------


def chi_square(counts: list[int]) -> float:
    mean = sum(counts) / len(counts)
    return sum((c - mean) ** 2 / mean for c in counts)


# The 1 - 1e-9 quantiles of chi-square with 1, 3 and 9 degrees of freedom are 37.3, 44.9 and 61.1.
BOUND = {2: 37.3, 4: 44.9, 10: 61.1}
DRAWS = 4000


@pytest.mark.parametrize("n", BOUND)
@pytest.mark.parametrize("kind", ["closed", "buffered", "sends", "duplicates", "waiting-senders"])
def test_the_choice_among_ready_cases_is_uniform(n: int, kind: str) -> None:
    counts, gs = [0] * n, []
    if kind == "closed":
        cases: list[Any] = [gort.Chan() for _ in range(n)]
        for ch in cases:
            ch.close()
    elif kind == "buffered":
        cases = [full(*range(DRAWS)) for _ in range(n)]
    elif kind == "sends":
        cases = [(gort.Chan(DRAWS), i) for i in range(n)]
    elif kind == "duplicates":
        cases = [full(*range(DRAWS))] * n
    else:
        cases = [gort.Chan() for _ in range(n)]

        def feed(ch: Any) -> None:
            while True:
                try:
                    ch.send(None)
                except gort.ChanClosed:
                    return

        gs = [park(feed, ch) for ch in cases]
    for _ in range(DRAWS):
        settle(*gs)
        counts[gort.select(*cases)[0]] += 1
    assert chi_square(counts) < BOUND[n], counts
    for g, ch in zip(gs, cases, strict=False):
        ch.close()
        g.join()


def test_the_choice_is_not_the_same_sequence_every_time() -> None:
    closed = [gort.Chan() for _ in range(4)]
    for ch in closed:
        ch.close()
    runs = {tuple(gort.select(*closed)[0] for _ in range(40)) for _ in range(5)}
    assert len(runs) == 5


# ---- many cases ------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 3, 50, 1000])
def test_each_of_many_cases_is_found(n: int) -> None:
    chans = [gort.Chan() for _ in range(n)]
    for i in {0, n // 2, n - 1}:
        g = park(gort.select, *chans)
        chans[i].send(i)
        assert g.join() == (i, i, True)
    for ch in chans:
        nobody_receives(ch)


def test_many_goroutines_select_over_the_same_channels_in_different_order() -> None:
    """Locks are taken in one order whatever the order of the cases: no deadlock."""
    chans = [gort.Chan(dtype="i64") for _ in range(6)]
    stop = gort.Chan()

    def body(k: int) -> int:
        n, cases = 0, chans[k:] + chans[:k] + [stop]
        while True:
            i, _, _ = gort.select(*cases)
            if i == len(chans):
                return n
            n += 1

    gs = [gort.go(body, k) for k in range(6)]
    for i in range(600):
        chans[i * 7 % 6].send(i)
    stop.close()
    assert sum(g.join() for g in gs) == 600


# ---- bad cases -----------------------------------------------------------------------------------


class NoChannel:
    pass


@pytest.mark.parametrize(
    "case",
    [5, "ch", NoChannel(), [], (), (1, 2), ("ch", 1), {}],
    ids=["int", "str", "object", "list", "empty-tuple", "no-channel", "text", "dict"],
)
def test_a_bad_case_raises_type_error_at_once_and_nothing_happens(case: Any) -> None:
    ready = full("v")
    for cases in ((ready, case), (case, ready)):
        with pytest.raises(TypeError):
            gort.select(*cases)
        with pytest.raises(TypeError):
            gort.select(*cases, default=True)
    assert len(ready) == 1


@pytest.mark.parametrize("length", [1, 3])
def test_a_tuple_of_a_wrong_length_raises_type_error(length: int) -> None:
    ch = gort.Chan(5)
    with pytest.raises(TypeError):
        gort.select((ch, *range(length - 1)))
    assert len(ch) == 0


def test_a_receiver_cannot_stand_in_a_send_case() -> None:
    ch = gort.Chan(1)
    with pytest.raises(TypeError):
        gort.select((ch.receiver(), 1))
    assert len(ch) == 0


def test_a_sender_cannot_stand_in_a_receive_case() -> None:
    ch = full("v")
    with pytest.raises(TypeError):
        gort.select(ch.sender())
    assert len(ch) == 1


def test_a_bad_value_for_a_typed_case_raises_before_anything_waits() -> None:
    ch, other = gort.Chan(dtype="u8"), gort.Chan()
    with pytest.raises(OverflowError):
        gort.select(other, (ch, 256))
    with pytest.raises(TypeError):
        gort.select(other, (ch, "x"))
    nobody_receives(other)
    nobody_sends(ch)


def test_an_unknown_keyword_raises_type_error() -> None:
    with pytest.raises(TypeError):
        gort.select(full(1), defualt=True)  # type: ignore[call-arg]
