"""Object channels: order, buffering, closing, views, iteration, the nil channel.

Timeouts, kill and contexts of the waits are in test_waiting.py, typed channels
in test_chan_typed.py, the comparison with a model in test_model_chan.py.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest
from model_support import EVERYWHERE, PlainThread, nobody_receives, nobody_sends, park, settle

import gort

every_cap = pytest.mark.parametrize("cap", [0, 1, 2, 5])
everywhere = pytest.mark.parametrize("where", EVERYWHERE)


def drain(ch: Any) -> list[Any]:
    return list(ch)


# ---- making one ---------------------------------------------------------------------


def test_a_channel_is_unbuffered_unless_told() -> None:
    ch = gort.Chan()
    assert (ch.cap, len(ch), ch.closed) == (0, 0, False)


def test_cap_by_position_and_by_name() -> None:
    assert gort.Chan(3).cap == gort.Chan(cap=3).cap == 3


def test_dtype_and_name_are_keywords_only() -> None:
    with pytest.raises(TypeError):
        gort.Chan(1, "i64")  # type: ignore[misc]
    assert gort.Chan(1, dtype=None, name="work").cap == 1


def test_repr_shows_the_name() -> None:
    assert "work" in repr(gort.Chan(1, name="work"))


@pytest.mark.parametrize("cap", [-1, -sys.maxsize, -(2**100), sys.maxsize, 2**62, 2**64, 2**100])
def test_a_cap_below_zero_or_too_large_raises_value_error(cap: int) -> None:
    with pytest.raises(ValueError):
        gort.Chan(cap)


@pytest.mark.parametrize("cap", ["3", 1.5, None, [], b"1", 2.0])
def test_a_cap_that_is_no_integer_raises_type_error(cap: Any) -> None:
    with pytest.raises(TypeError):
        gort.Chan(cap)


def test_a_cap_may_be_anything_with_an_index() -> None:
    class Three:
        def __index__(self) -> int:
            return 3

    assert gort.Chan(Three()).cap == 3


@pytest.mark.parametrize("ch", [gort.Chan(), gort.Chan(3), gort.Chan(dtype="i64"), gort.NIL])
def test_a_channel_is_always_true(ch: Any) -> None:
    assert bool(ch) is True


def test_a_closed_channel_is_true_too() -> None:
    ch = gort.Chan()
    ch.close()
    assert bool(ch) is True


def test_channels_are_compared_by_identity() -> None:
    a, b = gort.Chan(), gort.Chan()
    assert a != b
    assert len({a, b, a}) == 2


# ---- sending and receiving -------------------------------------------------------------


@every_cap
@everywhere
def test_values_arrive_as_the_same_objects_in_order(cap: int, where: Any) -> None:
    ch = gort.Chan(cap)
    values = [object(), None, 0, "", [], gort.Chan, ch, ValueError("a value")]

    def send() -> None:
        for v in values:
            assert ch.send(v) is None
        ch.close()

    g = gort.go(send)
    got = where(lambda: drain(ch))
    assert [id(v) for v in got] == [id(v) for v in values]
    g.join()


@every_cap
def test_cap_values_fit_without_waiting(cap: int) -> None:
    ch = gort.Chan(cap)
    for i in range(cap):
        assert len(ch) == i
        ch.send(i)
    assert len(ch) == cap
    with pytest.raises(gort.WouldBlock):
        ch.send_nowait("one more")
    assert [ch.recv() for _ in range(cap)] == list(range(cap))
    assert len(ch) == 0


@every_cap
def test_the_sender_is_never_more_than_cap_ahead(cap: int) -> None:
    """The k-th receive from a channel of capacity C happens before the (k+C)-th send returns."""
    ch, sent = gort.Chan(cap), []

    def send() -> None:
        for i in range(cap + 10):
            ch.send(i)
            sent.append(i)

    g = park(send)
    for k in range(10):
        assert len(sent) == cap + k
        assert ch.recv() == k
        settle(g)
    g.join()
    assert len(ch) == cap


def test_a_send_happens_before_the_receive_returns() -> None:
    ch, box = gort.Chan(), []

    def send() -> None:
        box.append("written before")
        ch.send(None)

    g = gort.go(send)
    ch.recv()
    assert box == ["written before"]
    g.join()


def test_an_unbuffered_send_returns_only_when_received() -> None:
    ch = gort.Chan()
    g = park(ch.send, 1)
    gort.gosched()
    assert not g.done
    assert ch.recv() == 1
    g.join()


@every_cap
def test_senders_are_served_first_come_first_served(cap: int) -> None:
    ch = gort.Chan(cap)
    for i in range(cap):
        ch.send(i)
    gs = [park(ch.send, i) for i in range(cap, cap + 10)]
    assert [ch.recv() for _ in range(cap + 10)] == list(range(cap + 10))
    for g in gs:
        g.join()


@every_cap
def test_receivers_are_served_first_come_first_served(cap: int) -> None:
    ch, got = gort.Chan(cap), []
    gs = [park(lambda i=i: got.append((i, ch.recv()))) for i in range(10)]
    for i in range(10):
        ch.send(i)
    for g in gs:
        g.join()
    assert sorted(got) == [(i, i) for i in range(10)]


def test_a_waiting_senders_value_goes_behind_the_buffer() -> None:
    ch = gort.Chan(2)
    ch.send(0)
    ch.send(1)
    gs = [park(ch.send, i) for i in (2, 3)]
    assert ch.recv() == 0
    assert len(ch) == 2
    with pytest.raises(gort.WouldBlock):
        ch.send_nowait("may not overtake")
    assert [ch.recv() for _ in range(3)] == [1, 2, 3]
    for g in gs:
        g.join()


def test_len_counts_the_buffer_not_the_waiting() -> None:
    ch = gort.Chan(1)
    ch.send(0)
    gs = [park(ch.send, i) for i in (1, 2, 3)]
    assert len(ch) == 1
    for i in range(4):
        assert ch.recv() == i
    for g in gs:
        g.join()


def test_recv_ok_tells_a_value_from_the_end() -> None:
    ch = gort.Chan(2)
    ch.send(None)
    ch.send("x")
    ch.close()
    assert [ch.recv_ok() for _ in range(4)] == [(None, True), ("x", True), (None, False), (None, False)]


def test_send_nowait_hands_over_to_a_waiting_receiver() -> None:
    ch = gort.Chan()
    g = park(ch.recv)
    assert ch.send_nowait("now") is None
    assert g.join() == "now"


def test_recv_nowait_takes_from_a_waiting_sender() -> None:
    ch = gort.Chan()
    g = park(ch.send, "now")
    assert ch.recv_nowait() == "now"
    g.join()


@everywhere
@every_cap
def test_nowait_raises_would_block_where_it_would_have_to_wait(cap: int, where: Any) -> None:
    ch = gort.Chan(cap)

    def body() -> None:
        nobody_sends(ch)
        for i in range(cap):
            ch.send_nowait(i)
        nobody_receives(ch)

    where(body)
    assert len(ch) == cap


def test_a_ready_channel_serves_whatever_the_timeout() -> None:
    ch = gort.Chan(1)
    for timeout in (0, -1, 0.0, 1e-9, 10, None):
        ch.send(timeout, timeout=timeout)
        assert ch.recv(timeout=timeout) == timeout
        ch.send(timeout, timeout=timeout)
        assert ch.recv_ok(timeout=timeout) == (timeout, True)


def test_a_ring_keeps_its_order_over_many_rounds() -> None:
    ch, expect, sent = gort.Chan(7), 0, 0
    for i in range(200):
        for _ in range(i % 8):
            if len(ch) < 7:
                ch.send(sent)
                sent += 1
        for _ in range(i % 5):
            if len(ch):
                assert ch.recv() == expect
                expect += 1
    while len(ch):
        assert ch.recv() == expect
        expect += 1
    assert expect == sent


def test_a_channel_through_a_channel() -> None:
    requests = gort.Chan()

    def serve() -> None:
        for answer in requests:
            answer.send("answer")

    g = gort.go(serve)
    for _ in range(3):
        mine = gort.Chan()
        requests.send(mine)
        assert mine.recv() == "answer"
    requests.close()
    g.join()


def test_the_prime_sieve() -> None:
    """The classic: a chain of goroutines over unbuffered channels."""

    def generate(out: Any) -> None:
        i = 2
        while True:
            out.send(i)
            i += 1

    def sift(inp: Any, out: Any, prime: int) -> None:
        for i in inp:
            if i % prime:
                out.send(i)

    def main() -> list[int]:
        primes, ch = [], gort.Chan()
        gort.go(generate, ch)
        for _ in range(30):
            primes.append(ch.recv())
            ch1 = gort.Chan()
            gort.go(sift, ch, ch1, primes[-1])
            ch = ch1
        return primes

    primes = gort.run(main)
    assert primes[:10] == [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]
    assert primes[-1] == 113


# ---- closing --------------------------------------------------------------------------------


@every_cap
def test_close_marks_the_channel_closed(cap: int) -> None:
    ch = gort.Chan(cap)
    assert ch.closed is False
    assert ch.close() is None
    assert ch.closed is True


@everywhere
def test_closing_twice_raises_chan_closed(where: Any) -> None:
    ch = gort.Chan()
    ch.close()
    with pytest.raises(gort.ChanClosed):
        where(ch.close)
    assert ch.closed


@every_cap
@everywhere
def test_send_to_a_closed_channel_raises_chan_closed(cap: int, where: Any) -> None:
    ch = gort.Chan(cap)
    ch.close()
    for send in (ch.send, ch.send_nowait, lambda v: ch.send(v, timeout=0), lambda v: ch.send(v, timeout=1)):
        with pytest.raises(gort.ChanClosed):
            where(lambda send=send: send(1))
    assert len(ch) == 0


@every_cap
@everywhere
def test_recv_on_closed_and_drained_channel_raises_chan_closed(cap: int, where: Any) -> None:
    ch = gort.Chan(cap)
    for i in range(cap):
        ch.send(i)
    ch.close()
    assert [where(ch.recv) for _ in range(cap)] == list(range(cap))
    for recv in (ch.recv, ch.recv_nowait, lambda: ch.recv(timeout=0), lambda: ch.recv(timeout=1)):
        for _ in range(2):
            with pytest.raises(gort.ChanClosed):
                where(recv)
    assert where(ch.recv_ok) == (None, False)


def test_len_of_a_closed_channel_counts_what_is_left() -> None:
    ch = gort.Chan(3)
    ch.send(1)
    ch.send(2)
    ch.close()
    assert (len(ch), ch.cap) == (2, 3)
    ch.recv()
    assert len(ch) == 1


def test_close_wakes_every_waiting_receiver() -> None:
    ch = gort.Chan()
    plain = [park(ch.recv) for _ in range(20)]
    with_ok = [park(ch.recv_ok) for _ in range(20)]
    loops = [park(drain, ch) for _ in range(20)]
    ch.close()
    for g in plain:
        with pytest.raises(gort.ChanClosed):
            g.join()
    assert [g.join() for g in with_ok] == [(None, False)] * 20
    assert [g.join() for g in loops] == [[]] * 20


@every_cap
def test_close_with_many_waiting_senders_fails_each_of_them_and_keeps_the_buffer(cap: int) -> None:
    ch = gort.Chan(cap)
    for i in range(cap):
        ch.send(i)
    gs = [park(ch.send, "never received") for _ in range(100)]
    ch.close()
    for g in gs:
        with pytest.raises(gort.ChanClosed):
            g.join()
    assert drain(ch) == list(range(cap))
    with pytest.raises(gort.ChanClosed):
        ch.send(1)
    with pytest.raises(gort.ChanClosed):
        ch.close()
    assert ch.recv_ok() == (None, False)


def test_close_wakes_receivers_in_plain_threads() -> None:
    ch = gort.Chan()
    threads = [PlainThread(ch.recv_ok) for _ in range(4)]
    ch.close()
    assert [t.result() for t in threads] == [(None, False)] * 4


def test_close_wakes_senders_in_plain_threads() -> None:
    ch = gort.Chan()
    threads = [PlainThread(ch.send, 1) for _ in range(4)]
    ch.close()
    for t in threads:
        with pytest.raises(gort.ChanClosed):
            t.result()


def test_iteration_ends_when_the_channel_is_closed_and_drained() -> None:
    ch = gort.Chan(5)
    for i in range(5):
        ch.send(i)
    ch.close()
    assert drain(ch) == [0, 1, 2, 3, 4]
    assert drain(ch) == []


def test_iteration_waits_for_more() -> None:
    ch = gort.Chan()
    g = park(drain, ch)
    for i in range(5):
        ch.send(i)
    assert not g.done
    ch.close()
    assert g.join() == [0, 1, 2, 3, 4]


def test_breaking_out_of_iteration_leaves_the_rest() -> None:
    ch = gort.Chan(3)
    for i in range(3):
        ch.send(i)
    for v in ch:
        assert v == 0
        break
    assert len(ch) == 2
    assert ch.recv() == 1


def test_many_iterate_over_one_channel() -> None:
    ch = gort.Chan()
    gs = [gort.go(drain, ch) for _ in range(7)]
    for i in range(100):
        ch.send(i)
    ch.close()
    assert sorted(v for g in gs for v in g.join()) == list(range(100))


# ---- views ----------------------------------------------------------------------------------


def test_a_sender_can_send() -> None:
    ch = gort.Chan(2)
    tx = ch.sender()
    tx.send(1)
    tx.send_nowait(2)
    with pytest.raises(gort.WouldBlock):
        tx.send_nowait(3)
    with pytest.raises(TimeoutError):
        tx.send(3, timeout=0)
    assert [ch.recv(), ch.recv()] == [1, 2]


def test_a_receiver_can_receive() -> None:
    ch = gort.Chan(4)
    for i in range(4):
        ch.send(i)
    rx = ch.receiver()
    assert rx.recv() == 0
    assert rx.recv_nowait() == 1
    assert rx.recv_ok() == (2, True)
    ch.close()
    assert drain(rx) == [3]
    assert rx.recv_ok() == (None, False)


@pytest.mark.parametrize("use", [lambda rx: rx.send(1), lambda rx: rx.send_nowait(1), lambda rx: rx.close()])
def test_a_receiver_cannot_send_or_close(use: Any) -> None:
    ch = gort.Chan(1)
    with pytest.raises((AttributeError, TypeError)):
        use(ch.receiver())
    assert (len(ch), ch.closed) == (0, False)


@pytest.mark.parametrize(
    "use", [lambda tx: tx.recv(), lambda tx: tx.recv_ok(), lambda tx: tx.recv_nowait(), lambda tx: next(iter(tx))]
)
def test_a_sender_cannot_receive(use: Any) -> None:
    ch = gort.Chan(1)
    ch.send(1)
    with pytest.raises((AttributeError, TypeError)):
        use(ch.sender())
    assert len(ch) == 1


def test_a_sender_can_close_as_in_go() -> None:
    ch = gort.Chan()
    ch.sender().close()
    assert ch.closed


def test_a_view_keeps_its_channel_alive() -> None:
    tx = gort.Chan(1, name="kept").sender()
    tx.send(1)


def test_views_wait_and_wake_each_other() -> None:
    ch = gort.Chan()
    g = park(ch.receiver().recv)
    ch.sender().send("across")
    assert g.join() == "across"


# ---- the nil channel --------------------------------------------------------------------------


def test_nil_has_length_and_capacity_zero() -> None:
    assert (len(gort.NIL), gort.NIL.cap) == (0, 0)


def test_nil_is_never_ready() -> None:
    nobody_sends(gort.NIL)
    nobody_receives(gort.NIL)


def test_closing_nil_raises_chan_closed() -> None:
    with pytest.raises(gort.ChanClosed):
        gort.NIL.close()
    nobody_receives(gort.NIL)


def test_sends_and_receives_on_nil_do_not_meet() -> None:
    gs = [park(gort.NIL.recv), park(gort.NIL.send, 1), park(gort.NIL.recv_ok)]
    for _ in range(10):
        gort.gosched()
    assert [g.state for g in gs] == ["waiting"] * 3
    for g in gs:
        g.kill()
        assert g.join() is None


# ---- exceptions leave the channel usable ----------------------------------------------------------


def test_an_exception_thrown_in_beside_a_wait_leaves_no_waiter() -> None:
    """What ends a wait early (here a timeout) takes it off the queue for good."""
    ch = gort.Chan()
    for _ in range(10):
        with pytest.raises(TimeoutError):
            ch.recv(timeout=0.0001)
        with pytest.raises(TimeoutError):
            ch.send(1, timeout=0.0001)
    nobody_receives(ch)
    nobody_sends(ch)


def test_ten_thousand_waiters_on_one_channel() -> None:
    ch = gort.Chan()
    gs = [gort.go(ch.recv) for _ in range(10_000)]
    settle(*gs)
    for i in range(10_000):
        ch.send(i)
    assert sorted(g.join() for g in gs) == list(range(10_000))
