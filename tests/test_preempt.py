"""A goroutine that computes does not keep the others from running."""

import sys

import gort
from gort import Chan, go, gosched, sleep


def test_the_main_goroutine_computes_while_another_runs() -> None:
    done = []
    go(done.append, 1)
    while not done:
        pass


def test_a_goroutine_computes_until_another_ends_it() -> None:
    def until_told() -> int:
        turns = 0
        while not told:
            turns += 1
        return turns

    told: list[int] = []
    gs = [go(until_told) for _ in range(4)]

    def tell() -> None:
        for _ in range(5):
            sleep(0.001)
        told.append(1)

    go(gort.blocking, tell).join()
    assert all(g.join() > 0 for g in gs)


def test_those_that_compute_all_get_on() -> None:
    counts = [0] * 5

    def count(i: int) -> None:
        while min(counts) < 1000:
            counts[i] += 1

    for g in [go(count, i) for i in range(len(counts))]:
        g.join()
    assert min(counts) >= 1000


def test_channels_timers_and_starts_go_on_beside_hogs() -> None:
    stop: list[int] = []

    def hog() -> None:
        while not stop:
            pass

    def work() -> int:
        a, b = Chan[int](), Chan[int](dtype="i64")
        go(lambda: [b.send(v) for v in a])
        total = 0
        for i in range(200):
            a.send(i)
            total += b.recv()
        a.close()
        sleep(0.001)
        for g in [go(gosched) for _ in range(100)]:
            g.join()
        return total

    hogs = [go(hog) for _ in range(3)]
    try:
        assert go(gort.blocking, lambda: go(work).join()).join() == sum(range(200))
    finally:
        stop.append(1)
    for g in hogs:
        g.join()


def test_one_that_lost_its_p_parks_and_is_killed_as_any_other() -> None:
    ch, stop = Chan[int](), []

    def hog() -> int:
        while not stop:
            pass
        return ch.recv()

    g, h = go(hog), go(hog)

    def end() -> None:
        sleep(0.05)
        stop.append(1)
        ch.send(5)

    go(gort.blocking, end).join()
    assert {x.done for x in (g, h)} == {True, False}
    left = h if g.done else g
    left.kill()
    assert left.join() is None
    assert (g if left is h else h).join() == 5


def test_the_switch_interval_is_the_users_again() -> None:
    before = sys.getswitchinterval()
    stop: list[int] = []

    def hog() -> None:
        while not stop:
            pass

    hogs = [go(hog) for _ in range(3)]

    def shorter() -> None:
        while sys.getswitchinterval() >= before:
            sleep(0.001)
        stop.append(1)

    go(gort.blocking, shorter).join()
    for g in hogs:
        g.join()
    while sys.getswitchinterval() != before:
        sleep(0.001)
