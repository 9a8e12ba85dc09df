"""Channel operations that do not wait, one call at a time.

Subtract `bench_nothing` of bench_goroutine.py, the cost of the measuring itself.
"""

from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from gort import Chan, WouldBlock, select

DTYPES = [None, "i64", "f64", "u8"]
typed = pytest.mark.parametrize("dtype", DTYPES, ids=["object", "i64", "f64", "u8"])


def value(dtype: str | None) -> float:
    """Something that fits; the same object every time, so that none is made."""
    return 1.0 if dtype == "f64" else 1


@typed
def bench_send_recv(benchmark: BenchmarkFixture, dtype: str | None) -> None:
    ch: Chan[float] = Chan(1, dtype=dtype)
    item = value(dtype)

    def op() -> None:
        ch.send(item)
        ch.recv()

    benchmark(op)


@typed
def bench_send_recv_nowait(benchmark: BenchmarkFixture, dtype: str | None) -> None:
    ch: Chan[float] = Chan(1, dtype=dtype)
    item = value(dtype)

    def op() -> None:
        ch.send_nowait(item)
        ch.recv_nowait()

    benchmark(op)


@typed
def bench_send_recv_ok(benchmark: BenchmarkFixture, dtype: str | None) -> None:
    ch: Chan[float] = Chan(1, dtype=dtype)
    item = value(dtype)

    def op() -> None:
        ch.send(item)
        ch.recv_ok()

    benchmark(op)


def bench_send_recv_with_timeout(benchmark: BenchmarkFixture) -> None:
    ch: Chan[int] = Chan(1)

    def op() -> None:
        ch.send(1, timeout=1.0)
        ch.recv(timeout=1.0)

    benchmark(op)


def bench_recv_nowait_empty(benchmark: BenchmarkFixture) -> None:
    ch: Chan[int] = Chan(1)

    def op() -> None:
        try:
            ch.recv_nowait()
        except WouldBlock:
            pass

    benchmark(op)


def bench_recv_closed(benchmark: BenchmarkFixture) -> None:
    ch: Chan[int] = Chan()
    ch.close()
    benchmark(ch.recv_ok)


def bench_fill_and_iterate_100(benchmark: BenchmarkFixture) -> None:
    def op() -> None:
        ch: Chan[int] = Chan(100)
        for i in range(100):
            ch.send(i)
        ch.close()
        for _ in ch:
            pass

    benchmark(op)


def bench_len(benchmark: BenchmarkFixture) -> None:
    ch: Chan[int] = Chan(1)
    benchmark(lambda: len(ch))


def bench_cap(benchmark: BenchmarkFixture) -> None:
    ch: Chan[int] = Chan(1)
    benchmark(lambda: ch.cap)


def bench_closed(benchmark: BenchmarkFixture) -> None:
    ch: Chan[int] = Chan(1)
    benchmark(lambda: ch.closed)


@pytest.mark.parametrize("cap", [0, 128])
def bench_new(benchmark: BenchmarkFixture, cap: int) -> None:
    def op() -> Chan[int]:
        return Chan(cap)

    benchmark(op)


@pytest.mark.parametrize("count", [1, 2, 8])
def bench_select_default(benchmark: BenchmarkFixture, count: int) -> None:
    """None of the cases is ready."""
    cases: list[Chan[int]] = [Chan() for _ in range(count)]
    benchmark(_select_call(cases))


def _select_call(cases: list[Chan[int]]) -> Callable[[], object]:
    if len(cases) == 1:
        (only,) = cases
        return lambda: select(only, default=True)
    if len(cases) == 2:
        a, b = cases
        return lambda: select(a, b, default=True)
    return lambda: select(*cases, default=True)


def bench_select_ready(benchmark: BenchmarkFixture) -> None:
    """A send, and a select over two channels of which one is ready."""
    ready: Chan[int] = Chan(1)
    never: Chan[int] = Chan()

    def op() -> None:
        ready.send(1)
        select(ready, never)

    benchmark(op)


def bench_select_send_ready(benchmark: BenchmarkFixture) -> None:
    """A select that sends or receives, of which the send is ready, and a receive."""
    ready: Chan[int] = Chan(1)
    never: Chan[int] = Chan()

    def op() -> None:
        select((ready, 1), never)
        ready.recv()

    benchmark(op)
