"""Starting, ending and switching goroutines.

What is measured runs in the goroutine of the test, and each timed call does what
its name says once, or as often as the number at the end of its name.
"""

from pytest_benchmark.fixture import BenchmarkFixture

import gort
from gort import Chan, go, gosched


def nothing() -> None:
    """The empty goroutine, and the empty operation."""


def bench_nothing(benchmark: BenchmarkFixture) -> None:
    """The cost of the measuring: subtract it."""
    benchmark(nothing)


def bench_go_join(benchmark: BenchmarkFixture) -> None:
    benchmark(lambda: go(nothing).join())


def bench_go_join_in_goroutine_x100(benchmark: BenchmarkFixture) -> None:
    """From a goroutine that is not tied to the main thread."""

    def driver() -> None:
        for _ in range(100):
            go(nothing).join()

    benchmark(lambda: go(driver).join())


def bench_go_with_arguments_join(benchmark: BenchmarkFixture) -> None:
    def add(a: int, b: int, *, c: int) -> int:
        return a + b + c

    benchmark(lambda: go(add, 1, 2, c=3).join())


def bench_go_join_failing(benchmark: BenchmarkFixture) -> None:
    """The exception of a goroutine, raised again by join()."""

    def fail() -> None:
        raise ValueError

    def op() -> None:
        try:
            go(fail).join()
        except ValueError:
            pass

    benchmark(op)


def bench_go_join_all_x1000(benchmark: BenchmarkFixture) -> None:
    def op() -> None:
        for g in [go(nothing) for _ in range(1000)]:
            g.join()

    benchmark(op)


def bench_gosched_alone(benchmark: BenchmarkFixture) -> None:
    """Nobody else is there to run."""
    benchmark(gosched)


def bench_sleep_0(benchmark: BenchmarkFixture) -> None:
    benchmark(lambda: gort.sleep(0))


def bench_gosched_between_two_x1000(benchmark: BenchmarkFixture) -> None:
    def spin() -> None:
        for _ in range(500):
            gosched()

    def op() -> None:
        a, b = go(spin), go(spin)
        a.join()
        b.join()

    benchmark(op)


def bench_round_trip_x1000(benchmark: BenchmarkFixture) -> None:
    """Over two unbuffered channels, both ends in goroutines."""

    def op() -> None:
        there: Chan[int] = Chan()
        back: Chan[int] = Chan()

        def echo() -> None:
            for v in there:
                back.send(v)

        def ping() -> None:
            for i in range(1000):
                there.send(i)
                back.recv()
            there.close()

        a, b = go(echo), go(ping)
        a.join()
        b.join()

    benchmark(op)


def bench_current(benchmark: BenchmarkFixture) -> None:
    benchmark(gort.current)


def bench_num_goroutine(benchmark: BenchmarkFixture) -> None:
    benchmark(gort.num_goroutine)
