"""Typed channels: raw values, zero values, and what does not fit fails at the sender."""

from __future__ import annotations

import math
from typing import Any

import pytest
from model_support import EVERYWHERE, PlainThread, nobody_receives, nobody_sends, park, settle

import gort

everywhere = pytest.mark.parametrize("where", EVERYWHERE)

GOOD = {
    "i64": [0, 1, -1, 42, 2**63 - 1, -(2**63), True],
    "f64": [0.0, -0.0, 1.5, -1e308, 5e-324, math.inf, -math.inf, 7, True, 2**53],
    "u8": [0, 1, 127, 128, 255, True],
    "ptr": [0, 1, 4096, 2**47, 2**63, 2**64 - 1],
}
TOO_LARGE = {
    "i64": [2**63, -(2**63) - 1, 10**30, -(10**30)],
    "f64": [10**400, -(10**400)],
    "u8": [256, -1, 1000, 10**30],
    "ptr": [-1, 2**64, 10**30],
}
WRONG = {
    "i64": [None, "1", 1.5, 1.0, b"1", [], object()],
    "f64": [None, "1.5", b"1", [], 1j, object()],
    "u8": [None, "1", 1.5, b"1", []],
    "ptr": [None, "1", 1.5, b"1", []],
}
ZERO = {"i64": 0, "f64": 0.0, "u8": 0, "ptr": 0}

every_dtype = pytest.mark.parametrize("dtype", list(GOOD))


def rows(table: dict[str, list[Any]]) -> list[Any]:
    return [pytest.param(dtype, v, id=f"{dtype}-{v!r:.20}") for dtype, values in table.items() for v in values]


@pytest.mark.parametrize(("dtype", "value"), rows(GOOD))
@pytest.mark.parametrize("cap", [0, 2])
def test_a_value_that_fits_arrives_as_it_was_sent(dtype: str, value: Any, cap: int) -> None:
    ch = gort.Chan(cap, dtype=dtype)
    g = gort.go(ch.send, value)
    got = ch.recv()
    g.join()
    assert got == value
    assert type(got) is (float if dtype == "f64" else int)
    assert math.copysign(1, got) == math.copysign(1, value)


def test_nan_arrives_as_nan() -> None:
    ch = gort.Chan(1, dtype="f64")
    ch.send(math.nan)
    assert math.isnan(ch.recv())


@pytest.mark.parametrize(("dtype", "value"), rows(TOO_LARGE))
@everywhere
def test_a_value_out_of_range_raises_overflow_error_and_the_channel_is_as_before(
    dtype: str, value: Any, where: Any
) -> None:
    ch = gort.Chan(2, dtype=dtype)
    ch.send(1)
    for send in (ch.send, ch.send_nowait, ch.sender().send, lambda v: gort.select((ch, v))):
        with pytest.raises(OverflowError):
            where(lambda send=send: send(value))
        assert len(ch) == 1
    ch.send(2)
    assert [ch.recv(), ch.recv()] == [1, 2]


@pytest.mark.parametrize(("dtype", "value"), rows(WRONG))
def test_a_value_of_a_wrong_type_raises_type_error_and_the_channel_is_as_before(dtype: str, value: Any) -> None:
    ch = gort.Chan(2, dtype=dtype)
    ch.send(1)
    for send in (ch.send, ch.send_nowait, ch.sender().send, lambda v: gort.select((ch, v))):
        with pytest.raises(TypeError):
            send(value)
        assert len(ch) == 1
    assert ch.recv() == 1


@every_dtype
def test_a_bad_value_does_not_disturb_a_waiting_receiver(dtype: str) -> None:
    ch = gort.Chan(dtype=dtype)
    g = park(ch.recv)
    with pytest.raises(TypeError):
        ch.send("bad")
    with pytest.raises(OverflowError):
        ch.send(10**400)
    settle(g)
    assert g.state == "waiting"
    ch.send(1)
    assert g.join() == 1


@every_dtype
def test_a_bad_value_raises_even_where_the_channel_is_full_or_closed_or_waited_for(dtype: str) -> None:
    ch = gort.Chan(1, dtype=dtype)
    ch.send(1)
    with pytest.raises(TypeError):
        ch.send("bad", timeout=1000)
    with pytest.raises(OverflowError):
        ch.send(10**400, timeout=1000)
    assert ch.recv() == 1


@every_dtype
def test_the_end_of_a_typed_channel_is_the_zero_value(dtype: str) -> None:
    ch = gort.Chan(1, dtype=dtype)
    ch.send(1)
    ch.close()
    assert ch.recv_ok() == (1, True)
    value, ok = ch.recv_ok()
    assert (value, ok) == (ZERO[dtype], False)
    assert type(value) is type(ZERO[dtype])
    index, value, ok = gort.select(ch)
    assert (index, value, ok) == (0, ZERO[dtype], False)
    assert type(value) is type(ZERO[dtype])
    with pytest.raises(gort.ChanClosed):
        ch.recv()
    assert list(ch) == []


@every_dtype
def test_a_receiver_waiting_at_the_close_gets_the_zero_value(dtype: str) -> None:
    ch = gort.Chan(dtype=dtype)
    a, b = park(ch.recv_ok), park(gort.select, ch)
    ch.close()
    assert a.join() == (ZERO[dtype], False)
    assert b.join() == (0, ZERO[dtype], False)


@every_dtype
def test_zero_values_can_be_sent(dtype: str) -> None:
    ch = gort.Chan(1, dtype=dtype)
    ch.send(ZERO[dtype])
    assert ch.recv_ok() == (ZERO[dtype], True)


@every_dtype
@pytest.mark.parametrize("cap", [0, 1, 3])
def test_typed_channels_keep_their_order(dtype: str, cap: int) -> None:
    ch = gort.Chan(cap, dtype=dtype)

    def send() -> None:
        for i in range(100):
            ch.send(i)
        ch.close()

    g = gort.go(send)
    assert list(ch) == list(range(100))
    g.join()


@every_dtype
def test_typed_channels_are_fifo_among_waiters(dtype: str) -> None:
    ch = gort.Chan(dtype=dtype)
    senders = [park(ch.send, i) for i in range(5)]
    assert [ch.recv() for _ in range(5)] == [0, 1, 2, 3, 4]
    receivers = [park(ch.recv) for _ in range(5)]
    for i in range(5):
        ch.send(i)
    assert [g.join() for g in receivers] == [0, 1, 2, 3, 4]
    for g in senders:
        g.join()
    nobody_sends(ch)
    nobody_receives(ch)


@every_dtype
def test_close_with_waiting_senders_on_a_typed_channel(dtype: str) -> None:
    ch = gort.Chan(1, dtype=dtype)
    ch.send(1)
    gs = [park(ch.send, 2) for _ in range(20)]
    ch.close()
    for g in gs:
        with pytest.raises(gort.ChanClosed):
            g.join()
    assert list(ch) == [1]


@every_dtype
def test_typed_channels_work_from_plain_threads(dtype: str) -> None:
    ch = gort.Chan(dtype=dtype)
    thread = PlainThread(lambda: [ch.recv() for _ in range(50)])
    for i in range(50):
        ch.send(i)
    assert thread.result() == list(range(50))


@every_dtype
def test_len_cap_and_closed_of_a_typed_channel(dtype: str) -> None:
    ch = gort.Chan(3, dtype=dtype)
    ch.send(1)
    ch.send(1)
    assert (len(ch), ch.cap, ch.closed) == (2, 3, False)
    ch.close()
    assert (len(ch), ch.cap, ch.closed) == (2, 3, True)
    with pytest.raises(gort.ChanClosed):
        ch.close()


@every_dtype
def test_a_typed_channel_has_the_address_of_its_c_part(dtype: str) -> None:
    a, b = gort.Chan(dtype=dtype), gort.Chan(dtype=dtype)
    assert isinstance(a.ptr, int)
    assert a.ptr != 0
    assert a.ptr != b.ptr


@pytest.mark.parametrize("dtype", ["i32", "I64", "", "object", "f", "u8 "])
def test_an_unknown_dtype_raises_value_error(dtype: str) -> None:
    with pytest.raises(ValueError, match=r"dtype"):
        gort.Chan(dtype=dtype)  # type: ignore[call-overload]


@pytest.mark.parametrize("dtype", [5, int, b"i64", 1.5])
def test_a_dtype_that_is_no_text_raises_at_once(dtype: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        gort.Chan(dtype=dtype)


@every_dtype
def test_a_typed_channel_too_large_raises_value_error(dtype: str) -> None:
    for cap in (-1, 2**62, 2**100):
        with pytest.raises(ValueError):
            gort.Chan(cap, dtype=dtype)


def test_u8_elements_are_packed_or_not_but_never_mixed_up() -> None:
    ch = gort.Chan(256, dtype="u8")
    for i in range(256):
        ch.send(i)
    assert [ch.recv() for _ in range(256)] == list(range(256))
