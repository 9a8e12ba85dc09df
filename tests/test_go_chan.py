"""What Go's own tests of channels and select check (runtime/chan_test.go, test/chan/*.go).

Each test names the Go test it stands for; what test_chan.py, test_select.py and the
stress tests cover in full is not repeated. The tests of stacks that shrink while a
goroutine waits have no object here: stacks do not move.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from model_stress import join_all, scaled
from model_support import PlainThread, nobody_sends, park, settle

import gort
from gort.atomic import Int64
from gort.sync import Mutex, WaitGroup

STARTS = [pytest.param(gort.go, id="goroutines"), pytest.param(PlainThread, id="threads")]
starts = pytest.mark.parametrize("start", STARTS)
DTYPES = [None, "i64"]
dtypes = pytest.mark.parametrize("dtype", DTYPES)
CAPS = [0, 1, 2, 7, 64]
NONE = (-1, None, False)


# ---- runtime/chan_test.go --------------------------------------------------------------


@dtypes
@pytest.mark.parametrize("cap", CAPS)
def test_a_receive_from_an_empty_channel_waits(cap: int, dtype: Any) -> None:
    """TestChan, first part."""
    c: gort.Chan[int] = gort.Chan(cap, dtype=dtype)
    gs = [park(c.recv), park(c.recv_ok)]
    assert gort.select(c, default=True)[0] == -1
    c.send(1)
    c.send(2)
    assert [g.join() for g in gs] == [1, (2, True)]


@dtypes
@pytest.mark.parametrize("cap", CAPS)
def test_a_send_to_a_full_channel_waits(cap: int, dtype: Any) -> None:
    """TestChan, second part."""
    c: gort.Chan[int] = gort.Chan(cap, dtype=dtype)
    for i in range(cap):
        c.send(i)
    g = park(c.send, cap)
    assert gort.select((c, 0), default=True)[0] == -1
    assert [c.recv() for _ in range(cap + 1)] == list(range(cap + 1))
    g.join()


@dtypes
@pytest.mark.parametrize("cap", CAPS)
def test_a_closed_channel_gives_what_is_left_and_then_zeros(cap: int, dtype: Any) -> None:
    """TestChan, third part."""
    c: gort.Chan[int] = gort.Chan(cap, dtype=dtype)
    for i in range(cap):
        c.send(i)
    c.close()
    assert [c.recv() for _ in range(cap)] == list(range(cap))
    zero = None if dtype is None else 0
    for _ in range(3):
        assert c.recv_ok() == (zero, False)
        assert gort.select(c) == (0, zero, False)


@dtypes
@starts
@pytest.mark.parametrize("cap", CAPS)
def test_four_send_and_four_receive(cap: int, dtype: Any, start: Any) -> None:
    """TestChan, fifth part: each value comes as often as it was sent, in each sender's order."""
    senders, n = 4, scaled(100)
    c: gort.Chan[int] = gort.Chan(cap, dtype=dtype)
    got: list[list[int]] = [[] for _ in range(senders)]

    def send(p: int) -> None:
        for i in range(n):
            c.send(i * senders + p)

    def receive(mine: list[int]) -> None:
        for _ in range(n):
            mine.append(c.recv())

    join_all([start(send, p) for p in range(senders)] + [start(receive, mine) for mine in got])
    assert sorted(v for mine in got for v in mine) == list(range(senders * n))
    for mine in got:
        for p in range(senders):
            of_one = [v for v in mine if v % senders == p]
            assert of_one == sorted(of_one)


def not_ready(c: gort.Chan[int]) -> bool:
    return gort.select(c, default=True)[0] == -1


@dtypes
@starts
def test_a_channel_that_holds_a_value_is_ready_while_it_is_closed(start: Any, dtype: Any) -> None:
    """TestNonblockRecvRace."""
    for _ in range(scaled(300) if start is gort.go else scaled(40)):
        c: gort.Chan[int] = gort.Chan(1, dtype=dtype)
        c.send(1)
        g = start(not_ready, c)
        c.close()
        c.recv_ok()
        assert join_all([g]) == [False]


@dtypes
@starts
@pytest.mark.parametrize("close", [False, True])
def test_a_select_acts_on_one_moment(start: Any, dtype: Any, close: bool) -> None:
    """TestNonblockSelectRace, TestNonblockSelectRace2: one of two is ready at any time."""

    def look(a: gort.Chan[int], b: gort.Chan[int]) -> int:
        return gort.select(a, b, default=True)[0]

    for _ in range(scaled(300) if start is gort.go else scaled(40)):
        c1: gort.Chan[int] = gort.Chan(1, dtype=dtype)
        c2: gort.Chan[int] = gort.Chan(0 if close else 1, dtype=dtype)
        c1.send(1)
        g = start(look, c1, c2)
        if close:
            c2.close()
        else:
            c2.send(1)
        gort.select(c1, default=True)
        assert join_all([g])[0] != -1


@dtypes
@starts
@pytest.mark.parametrize("cap", [0, 10])
def test_two_selects_that_send_and_receive_on_one_channel(start: Any, cap: int, dtype: Any) -> None:
    """TestSelfSelect: unbuffered, nobody receives what it sent itself."""
    c: gort.Chan[int] = gort.Chan(cap, dtype=dtype)
    rounds = scaled(200)

    def body(p: int) -> None:
        for i in range(rounds):
            if p == 0 or i % 2 == 0:
                index, v, ok = gort.select((c, p), c)
                received = index == 1
            else:
                index, v, ok = gort.select(c, (c, p))
                received = index == 0
            assert ok
            assert not (received and cap == 0 and v == p), "received its own"

    if cap == 0:  # both do the same number, so each round of one pairs with one of the other
        join_all([start(body, p) for p in range(2)])
        return
    workers = [start(body, p) for p in range(2)]
    join_all(workers)


@dtypes
@starts
def test_sends_receives_and_selects_on_four_channels(start: Any, dtype: Any) -> None:
    """TestSelectStress: ten workers, and no deadlock."""
    c = [gort.Chan[int](cap, dtype=dtype) for cap in (0, 0, 2, 3)]
    n = scaled(100) if start is gort.go else scaled(30)

    def send(k: int) -> None:
        for _ in range(n):
            c[k].send(0)

    def receive(k: int) -> None:
        for _ in range(n):
            c[k].recv()

    def select_all(cases: list[Any], order: list[int]) -> None:
        left = [n] * 4
        for _ in range(4 * n):
            i = gort.select(*(cases[k] if left[k] else None for k in order))[0]
            left[order[i]] -= 1

    workers = [start(send, k) for k in range(4)] + [start(receive, k) for k in range(4)]
    workers.append(start(select_all, [(ch, 0) for ch in c], [3, 2, 0, 1]))
    workers.append(start(select_all, c, [0, 1, 2, 3]))
    join_all(workers)
    for ch in c:
        nobody_sends(ch)


def test_a_select_over_two_that_are_always_ready_is_fair() -> None:
    """TestSelectFairness: within ten sigmas, beside two that are never ready."""
    trials = 2000
    c1, c2 = gort.Chan[int](trials + 1), gort.Chan[int](trials + 1)
    for _ in range(trials + 1):
        c1.send(1)
        c2.send(2)
    c3, c4, out, done = gort.Chan[int](), gort.Chan[int](), gort.Chan[int](), gort.Chan[None]()

    def body() -> None:
        while True:
            _, v, _ = gort.select(c3, c4, c1, c2)
            if gort.select((out, v), done)[0] == 1:
                return

    g = gort.go(body)
    ones = sum(out.recv() == 1 for _ in range(trials))
    done.close()
    g.join()
    assert abs(ones - trials / 2) <= 10 * math.sqrt(trials / 4)


def test_an_object_with_a_nondefault_case_is_taken_once() -> None:
    """TestChanSendInterface: the same object in several cases."""

    class Thing:
        pass

    m = Thing()
    c: gort.Chan[Thing] = gort.Chan(1)
    c.send(m)
    assert gort.select((c, m), default=True) == NONE
    assert gort.select((c, m), (c, Thing()), default=True) == NONE
    assert c.recv() is m
    nobody_sends(c)


@dtypes
@pytest.mark.parametrize("cap", [0, 100])
def test_a_select_of_two_sends_sends_both_values(cap: int, dtype: Any) -> None:
    """TestPseudoRandomSend. One that waited was always woken by its first case."""
    n = 100
    c: gort.Chan[int] = gort.Chan(cap, dtype=dtype)
    got: list[int] = []
    m = Mutex()
    m.lock()

    def receive() -> None:
        for _ in range(n):
            gort.gosched()
            got.append(c.recv())
        m.unlock()

    g = gort.go(receive)
    for _ in range(n):
        gort.select((c, 1), (c, 0))
    m.lock()  # waits
    g.join()
    assert n / 10 < sum(got) < n * 9 / 10


@dtypes
@pytest.mark.parametrize("n", [2, 5, 20])
def test_a_waiting_select_of_one_channel_is_woken_by_any_of_its_cases(n: int, dtype: Any) -> None:
    """The same for receives, and for more cases than are sorted by insertion."""
    seen = set()
    c: gort.Chan[int] = gort.Chan(dtype=dtype)
    for _ in range(30 * n):
        g = park(gort.select, *[c] * n)
        c.send(1)
        seen.add(g.join()[0])
    assert seen == set(range(n))


@starts
def test_many_consumers_of_one_queue(start: Any) -> None:
    """TestMultiConsumer."""
    workers, n = 23 if start is gort.go else 5, scaled(2000)
    pn = [2, 3, 7, 11, 13, 17, 19, 23, 27, 31]
    q, r = gort.Chan[int](workers * 3), gort.Chan[int](workers * 3)
    wg = WaitGroup()
    wg.add(workers)

    def work(w: int) -> None:
        for v in q:
            if pn[w % len(pn)] == v:
                gort.gosched()
            r.send(v)
        wg.done()

    def feed() -> None:
        for i in range(n):
            q.send(pn[i % len(pn)])
        q.close()
        wg.wait()
        r.close()

    everybody = [start(work, w) for w in range(workers)] + [start(feed)]
    got = list(r)
    join_all(everybody)
    assert len(got) == n
    assert sum(got) == sum(pn[i % len(pn)] for i in range(n))


def test_a_select_with_a_channel_twice_takes_both_places_back() -> None:
    """TestSelectDuplicateChannel: what it left in the queue was woken in place of the next one."""
    c, d, e = gort.Chan[int](), gort.Chan[int](), gort.Chan[int]()

    def a() -> None:
        gort.select(c, c, d)
        e.send(9)

    ga = park(a)
    gb = park(c.recv)
    d.send(7)
    assert e.recv() == 9
    c.send(8)
    ga.join()
    assert gb.join() == 8


def test_what_a_woken_select_did_not_choose_stays_as_it_was() -> None:
    """TestSelectStackAdjust: a close wakes it by d, and what c would have given is not touched."""
    c, d = gort.Chan[Any](), gort.Chan[Any]()
    gs = [park(gort.select, c, None, d, None), park(gort.select, c, c, d, d)]
    d.close()
    results = [g.join() for g in gs]
    assert results[0] == (2, None, False)
    assert results[1][0] in (2, 3)
    g = park(c.send, "kept")
    assert c.recv() == "kept"
    g.join()


# ---- test/chan/*.go ---------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 100, 1000])
def test_a_chain_of_goroutines_passes_values_in_order(n: int) -> None:
    """goroutines.go, fifo.go: each hands on to its right what comes from its left."""

    def link(left: gort.Chan[int], right: gort.Chan[int]) -> None:
        left.send(right.recv() + 1)

    leftmost = right = gort.Chan[int]()
    gs = []
    for _ in range(n):
        left, right = right, gort.Chan[int]()
        gs.append(gort.go(link, left, right))
    gs.append(gort.go(right.send, 0))
    assert leftmost.recv() == n
    join_all(gs)


def test_synchronous_fifo_by_a_chain_of_gates() -> None:
    """fifo.go, SynchFifo: each receiver waits for the one before it; the values come in order."""
    ch: gort.Chan[int] = gort.Chan()
    first = gate = gort.Chan[int]()
    out: list[int] = []

    def take(before: gort.Chan[int], after: gort.Chan[int]) -> None:
        before.recv()
        out.append(ch.recv())
        after.send(1)

    gs = []
    for _ in range(10):
        before, gate = gate, gort.Chan[int]()
        gs.append(gort.go(take, before, gate))
    first.send(0)
    for i in range(10):
        ch.send(i)
    gate.recv()
    join_all(gs)
    assert out == list(range(10))


@starts
def test_two_selects_over_the_same_channels_lose_nothing(start: Any) -> None:
    """doubleselect.go: a sender over four channels, four readers into one, each value once."""
    n = scaled(300)
    cs = [gort.Chan[int]() for _ in range(4)]
    merged: gort.Chan[int] = gort.Chan()
    done = gort.Chan[None]()

    def send() -> None:
        for i in range(n):
            gort.select(*((c, i) for c in cs))
        for c in cs:
            c.close()

    def mux(c: gort.Chan[int]) -> None:
        for v in c:
            merged.send(v)
        done.send(None)

    def finish() -> None:
        for _ in cs:
            done.recv()
        merged.close()

    workers = [start(send), start(finish)] + [start(mux, c) for c in cs]
    got = list(merged)
    join_all(workers)
    assert sorted(got) == list(range(n))


def waits(fn: Callable[[], object]) -> bool:
    """Does it wait? It is killed then."""
    g = gort.go(fn)
    settle(g)
    if g.state == "dead":
        g.join()
        return False
    g.kill()
    g.join()
    return True


NEVER_READY = [
    pytest.param(lambda: gort.NIL.send(7), id="send to nil"),
    pytest.param(lambda: gort.NIL.recv(), id="receive from nil"),
    pytest.param(lambda: gort.select(), id="empty select"),
    pytest.param(lambda: gort.select((gort.NIL, 7)), id="select send to nil"),
    pytest.param(lambda: gort.select(gort.NIL), id="select receive from nil"),
    pytest.param(lambda: gort.select((gort.NIL, 7), gort.NIL), id="select both on nil"),
    pytest.param(lambda: gort.Chan().send(7), id="unbuffered send"),
    pytest.param(lambda: gort.Chan().recv(), id="unbuffered receive"),
    pytest.param(lambda: gort.select((gort.Chan(), 7)), id="unbuffered select send"),
    pytest.param(lambda: gort.select(gort.Chan()), id="unbuffered select receive"),
    pytest.param(lambda: (c := gort.Chan(10), [c.send(i) for i in range(11)]), id="full send"),
    pytest.param(lambda: gort.Chan(10).recv(), id="empty receive"),
    pytest.param(lambda: (c := gort.Chan(1), c.send(1), gort.select((c, 2), gort.NIL)), id="select full send"),
    pytest.param(lambda: gort.select(gort.Chan(10)), id="select empty receive"),
]
ALWAYS_READY = [
    pytest.param(lambda: gort.Chan(10).send(7), id="buffered send"),
    pytest.param(lambda: (c := gort.Chan(10), c.send(1), c.recv()), id="buffered receive"),
    pytest.param(lambda: gort.select((gort.Chan(10), 7)), id="select buffered send"),
    pytest.param(lambda: (c := gort.Chan(10), c.send(1), gort.select(c)), id="select buffered receive"),
    pytest.param(lambda: gort.select((gort.NIL, 7), default=True), id="nil send with default"),
    pytest.param(lambda: gort.select(gort.NIL, default=True), id="nil receive with default"),
    pytest.param(lambda: gort.select(default=True), id="default alone"),
    pytest.param(lambda: gort.select((gort.Chan(), 7), default=True), id="unbuffered send with default"),
    pytest.param(lambda: gort.select(gort.Chan(), default=True), id="unbuffered receive with default"),
    pytest.param(lambda: (c := gort.Chan(), c.close(), c.recv_ok()), id="closed receive"),
    pytest.param(lambda: (c := gort.Chan(), c.close(), gort.select(c)), id="closed select receive"),
]


@pytest.mark.parametrize("fn", NEVER_READY)
def test_what_waits_for_ever(fn: Callable[[], object]) -> None:
    """select3.go."""
    assert waits(fn)


@pytest.mark.parametrize("fn", ALWAYS_READY)
def test_what_does_not_wait(fn: Callable[[], object]) -> None:
    """select3.go."""
    assert not waits(fn)


def test_a_waiting_select_leaves_no_trace_in_the_channels_it_did_not_choose() -> None:
    """select6.go, select2.go: no element and no waiter, however often."""
    c1, c2 = gort.Chan[int](), gort.Chan[int]()
    for _ in range(200):
        g = park(gort.select, c1, (c2, 1), c1, (c2, 2))
        if _ % 2:
            c1.send(5)
            assert g.join()[1] == 5
        else:
            assert c2.recv() in (1, 2)
            g.join()
        nobody_sends(c2)
        assert gort.select((c1, 0), default=True) == NONE, "nobody receives"


def test_receives_beside_each_other_in_all_forms() -> None:
    """select7.go, doubleselect.go: each form of receive wakes each form of send."""

    def recv1(c: gort.Chan[int]) -> object:
        return c.recv()

    def recv2(c: gort.Chan[int]) -> object:
        return gort.select(c)[1]

    def recv3(c: gort.Chan[int]) -> object:
        return gort.select(c, gort.Chan())[1]

    def recv4(c: gort.Chan[int]) -> object:
        return next(iter(c))

    def send1(recv: Callable[[gort.Chan[int]], object]) -> None:
        c: gort.Chan[int] = gort.Chan()
        g = park(recv, c)
        c.send(1)
        assert g.join() == 1

    def send2(recv: Callable[[gort.Chan[int]], object]) -> None:
        c: gort.Chan[int] = gort.Chan()
        g = park(recv, c)
        assert gort.select((c, 1)) == (0, None, True)
        assert g.join() == 1

    def send3(recv: Callable[[gort.Chan[int]], object]) -> None:
        c: gort.Chan[int] = gort.Chan()
        g = park(recv, c)
        assert gort.select((c, 1), gort.Chan()) == (0, None, True)
        assert g.join() == 1

    def send4(recv: Callable[[gort.Chan[int]], object]) -> None:
        c: gort.Chan[int] = gort.Chan()
        g = park(c.send, 1)
        assert recv(c) == 1
        g.join()

    for send in (send1, send2, send3, send4):
        for recv in (recv1, recv2, recv3, recv4):
            send(recv)


def test_permissions() -> None:
    """perm.go: what does not compile there has no such method here."""
    c: gort.Chan[int] = gort.Chan(1)
    for view, missing in (
        (c.sender(), ("recv", "recv_ok", "recv_nowait", "__iter__")),
        (c.receiver(), ("send", "send_nowait", "close")),
    ):
        for name in missing:
            assert not hasattr(view, name)


@starts
def test_a_counter_behind_a_channel_of_one(start: Any) -> None:
    """zerosize.go, and the memory model's lock: a buffered channel of one is a mutex."""
    lock: gort.Chan[None] = gort.Chan(1)
    inside, total = Int64(), 0

    def body() -> None:
        nonlocal total
        for _ in range(scaled(100)):
            lock.send(None)
            assert inside.add(1) == 1
            before = total
            if before % 8 == 0:
                gort.gosched()
            total = before + 1
            inside.add(-1)
            lock.recv()

    join_all([start(body) for _ in range(4)])
    assert total == 4 * scaled(100)
