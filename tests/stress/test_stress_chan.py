"""Channels under load: Python goroutines and plain threads; every message is counted."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
from model_stress import exactly_once, in_senders_order, join_all, scaled, share
from model_support import PlainThread

import gort
import gort.sync
import gort.time

pytestmark = pytest.mark.stress


def producers_and_consumers(ch: Any, n: int, producers: list[Any], consumers: list[Any]) -> None:
    """`producers` and `consumers` are the ways to start one: gort.go or PlainThread."""
    parts = share(n, len(producers))

    def produce(part: range) -> None:
        for v in part:
            ch.send(v)

    def consume() -> list[int]:
        return list(ch)

    takers = [start(consume) for start in consumers]
    makers = [start(produce, part) for start, part in zip(producers, parts, strict=True)]
    join_all(makers)
    ch.close()
    results = join_all(takers)
    for got in results:
        in_senders_order(got, parts)
    exactly_once((v for got in results for v in got), n)


@pytest.mark.parametrize("cap", [0, 1, 16])
@pytest.mark.parametrize("dtype", [None, "i64"])
def test_goroutines_lose_and_double_nothing(cap: int, dtype: Any) -> None:
    producers_and_consumers(gort.Chan(cap, dtype=dtype), scaled(400_000), [gort.go] * 8, [gort.go] * 8)


@pytest.mark.parametrize("cap", [0, 1, 16])
@pytest.mark.parametrize("dtype", [None, "i64"])
def test_goroutines_and_threads_lose_and_double_nothing(cap: int, dtype: Any) -> None:
    mixed = [gort.go, PlainThread] * 3
    producers_and_consumers(gort.Chan(cap, dtype=dtype), scaled(120_000), mixed, mixed)


@pytest.mark.parametrize("cap", [0, 4])
def test_threads_alone_lose_and_double_nothing(cap: int) -> None:
    producers_and_consumers(gort.Chan(cap), scaled(80_000), [PlainThread] * 4, [PlainThread] * 4)


def test_a_ring_of_goroutines_passes_tokens() -> None:
    size, rounds, tokens = 500, scaled(400), 7
    ring = [gort.Chan() for _ in range(size)]

    def node(inp: Any, out: Any) -> None:
        for v in inp:
            out.send(v + 1)
        out.close()

    gs = [gort.go(node, ring[i], ring[i + 1]) for i in range(size - 1)]

    def feed() -> None:
        for t in range(tokens):
            ring[0].send(t)

    for _ in range(rounds):
        feeder = gort.go(feed)
        assert [ring[-1].recv() for _ in range(tokens)] == [t + size - 1 for t in range(tokens)]
        feeder.join()
    ring[0].close()
    join_all(gs)


def test_close_races_with_senders_and_receivers() -> None:
    """A send that returned is received exactly once; one that raised is never received."""
    for trial in range(scaled(1_500)):
        ch: Any = gort.Chan(trial % 4)
        sent, got = [], []

        def send(base: int, ch: Any = ch, sent: list[int] = sent) -> None:
            try:
                for i in range(50):
                    ch.send(base + i)
                    sent.append(base + i)
            except gort.ChanClosed:
                pass

        def receive(ch: Any = ch, got: list[int] = got) -> None:
            for v in ch:
                got.append(v)

        def close(ch: Any = ch, n: int = trial % 40) -> None:
            for _ in range(n):
                gort.gosched()
            ch.close()

        workers = [gort.go(send, 100 * k) for k in range(4)] + [gort.go(receive) for _ in range(3)]
        workers += [PlainThread(send, 1000), PlainThread(receive)] if trial % 5 == 0 else []
        workers.append(gort.go(close))
        join_all(workers)
        assert sorted(sent) == sorted(got)


@pytest.mark.parametrize("cap", [0, 2])
@pytest.mark.parametrize("start", [gort.go, PlainThread], ids=["goroutines", "threads"])
def test_timeouts_race_with_sends(cap: int, start: Any) -> None:
    """A send is received exactly once if it returned, never if it timed out."""
    ch: Any = gort.Chan(cap)
    n = scaled(40_000 if start is gort.go else 20_000)

    def send(base: int) -> list[int]:
        rng, sent = random.Random(base), []
        for i in range(n):
            try:
                ch.send(base + i, timeout=rng.choice([0, 1e-6, 2e-5, 1e-4]))
                sent.append(base + i)
            except TimeoutError:
                pass
        return sent

    done = gort.Chan()

    def receive(seed: int) -> list[int]:
        rng, got = random.Random(seed), []
        while not done.closed:
            try:
                got.append(ch.recv(timeout=rng.choice([0, 1e-6, 2e-5, 1e-4])))
            except TimeoutError:
                gort.gosched()
        return got

    takers = [gort.go(receive, k) for k in range(2)]
    sent = [v for part in join_all([start(send, 10**6 * k) for k in range(6)]) for v in part]
    done.close()
    got = [v for part in join_all(takers) for v in part]
    while True:
        try:
            got.append(ch.recv_nowait())
        except gort.WouldBlock:
            break
    assert sorted(sent) == sorted(got)


def test_kills_race_with_sends() -> None:
    """A killed receiver has its value or left it; a killed sender's value arrived or did not: never both."""
    for trial in range(scaled(400)):
        ch: Any = gort.Chan(trial % 3)
        sent, got = [], []

        def send(base: int, ch: Any = ch, sent: list[int] = sent) -> None:
            for i in range(20):
                ch.send(base + i)
                sent.append(base + i)

        def receive(ch: Any = ch, got: list[int] = got) -> None:
            while True:
                got.append(ch.recv())

        senders = [gort.go(send, 100 * k) for k in range(6)]
        receivers = [gort.go(receive) for _ in range(6)]
        rng = random.Random(trial)
        victims = senders[:3] + receivers[:3]
        rng.shuffle(victims)

        def kill(gs: list[Any] = victims, rng: random.Random = rng) -> None:
            for g in gs:
                for _ in range(rng.randrange(5)):
                    gort.gosched()
                g.kill()

        join_all([PlainThread(kill) if trial % 3 == 0 else gort.go(kill)])
        join_all(senders)
        while True:
            try:
                got.append(ch.recv_nowait())
            except gort.WouldBlock:
                break
        for g in receivers:
            g.kill()
        join_all(receivers)
        assert sorted(sent) == sorted(got)


def test_select_races_with_close() -> None:
    """Many select over the same channels, in many orders, while these are closed one after the other."""
    for trial in range(scaled(1_000)):
        chans: list[Any] = [gort.Chan(i % 3, dtype="i64" if i % 2 else None) for i in range(5)]
        sent: list[int] = []

        def select_receive(k: int, chans: list[Any] = chans) -> list[int]:
            cases: list[Any] = chans[k:] + chans[:k]
            got = []
            while any(cases):
                i, v, ok = gort.select(*cases)
                if ok:
                    got.append(v)
                else:
                    cases[i] = None
            return got

        def select_send(base: int, chans: list[Any] = chans, sent: list[int] = sent) -> None:
            for v in range(base, base + 40):
                try:
                    gort.select(*((ch, v) for ch in chans))
                    sent.append(v)
                except gort.ChanClosed:
                    pass

        def close_all(chans: list[Any] = chans, trial: int = trial) -> None:
            for ch in random.Random(trial).sample(chans, len(chans)):
                for _ in range(trial % 7):
                    gort.gosched()
                ch.close()

        receivers = [gort.go(select_receive, k) for k in range(5)]
        workers: list[Any] = [gort.go(select_send, 1000 * k) for k in range(4)]
        if trial % 6 == 0:
            workers.append(PlainThread(select_send, 9000))
            receivers.append(PlainThread(select_receive, 2))
        workers.append(gort.go(close_all))
        join_all(workers)
        got = [v for part in join_all(receivers) for v in part]
        assert sorted(sent) == sorted(got)


def test_selects_with_timeouts_race_with_each_other() -> None:
    a, b = gort.Chan(), gort.Chan(1)
    n = scaled(60_000)

    def body(base: int) -> tuple[list[int], list[int]]:
        rng, sent, got = random.Random(base), [], []
        for i in range(n):
            try:
                k, v, _ = gort.select(a, (b, base + i), b, (a, base + i), timeout=rng.choice([0, 1e-6, 5e-5]))
            except TimeoutError:
                continue
            if k in (0, 2):
                got.append(v)
            else:
                sent.append(base + i)
        return sent, got

    workers: list[Any] = [gort.go(body, 10**6 * k) for k in range(1, 5)] + [PlainThread(body, 10**6 * 9)]
    results = join_all(workers)
    left = [b.recv_nowait()] if len(b) else []
    assert sorted(v for sent, _ in results for v in sent) == sorted([v for _, got in results for v in got] + left)


def test_a_crowd_meets_at_one_channel() -> None:
    """Everybody both sends and receives by select; the numbers sent and received agree at the end."""
    ch: Any = gort.Chan()
    stop = gort.Chan()

    def body(base: int) -> tuple[int, int]:
        sent = got = i = 0
        while True:
            k, v, _ = gort.select(ch, (ch, base + i), stop)
            if k == 2:
                return sent, got
            if k == 0:
                got += v
            else:
                sent += base + i
            i += 1

    gs = [gort.go(body, 1000 * k) for k in range(30)]
    for _ in range(scaled(800)):
        gort.gosched()
    stop.close()
    results = join_all(gs)
    assert sum(sent for sent, _ in results) == sum(got for _, got in results) > 0


def test_spawn_storm() -> None:
    """Goroutines that start goroutines, fail, are joined by several: every result arrives."""

    def tree(depth: int) -> int:
        if depth == 0:
            return 1
        return 1 + sum(g.join() for g in [gort.go(tree, depth - 1) for _ in range(3)])

    def fail(i: int) -> None:
        gort.gosched()
        raise ValueError(i)

    for _ in range(scaled(12)):
        assert gort.go(tree, 8).join() == (3**9 - 1) // 2
    gs = [gort.go(fail, i) for i in range(scaled(30_000))]
    for i, g in enumerate(gs):
        with pytest.raises(ValueError, match=str(i)):
            g.join()


def test_short_lived_threads_come_and_go() -> None:
    ch: Any = gort.Chan()
    n = scaled(3_000)

    def starter(part: range) -> None:
        for v in part:
            threading.Thread(target=ch.send, args=(v,)).start()

    gs = [gort.go(starter, part) for part in share(n, 4)]
    got = [ch.recv() for _ in range(n)]
    join_all(gs)
    exactly_once(got, n)
    for t in threading.enumerate():
        if t is not threading.current_thread() and not isinstance(t, threading._DummyThread):
            gort.blocking(t.join)


def test_collections_amid_the_traffic() -> None:
    """Cyclic garbage through channels while messages fly and the collector runs often."""
    import gc

    class Node:
        def __init__(self, ch: Any) -> None:
            self.ch, self.me = ch, self

    old = gc.get_threshold()
    gc.set_threshold(50, 5, 5)
    try:
        ch: Any = gort.Chan(4)

        def produce() -> None:
            for _ in range(scaled(20_000)):
                ch.send(Node(gort.Chan(1)))
                inner = gort.Chan(1)
                inner.send(Node(inner))

        gs = [gort.go(produce) for _ in range(4)]
        for _ in range(4 * scaled(20_000)):
            node = ch.recv()
            node.ch.send(node)
        join_all(gs)
    finally:
        gc.set_threshold(*old)


def test_timers_are_stopped_and_reset_from_everywhere() -> None:
    """What was stopped never fires; what was left fires once."""
    fired: list[int] = []
    n = scaled(4_000)

    def body(base: int) -> set[int]:
        rng, expected = random.Random(base), set()
        for i in range(base, base + n):
            t = gort.time.after_func(rng.choice([0, 1e-5, 1e-3, 60]), fired.append, i)
            if rng.random() < 0.5:
                gort.gosched()
            if not t.stop():
                expected.add(i)
            elif rng.random() < 0.3:
                t.reset(1e-5)
                expected.add(i)
        return expected

    workers: list[Any] = [gort.go(body, 10**6 * k) for k in range(3)] + [PlainThread(body, 10**7)]
    expected = set().union(*join_all(workers))
    while len(fired) < len(expected):
        gort.sleep(0.001)
    gort.sleep(0.005)
    assert len(fired) == len(set(fired))
    assert set(fired) == expected


def test_sleepers_by_the_thousand() -> None:
    n = scaled(60_000)

    def nap(i: int) -> bool:
        start, d = gort.time.now(), (i * 7919 % 1000) * 1e-5
        gort.sleep(d)
        return gort.time.now() - start >= d - 1e-9

    gs = [gort.go(nap, i) for i in range(n)]
    assert all(join_all(gs))


def test_kill_storm_in_all_kinds_of_waits() -> None:
    from model_support import OPERATIONS

    for round_ in range(scaled(200)):
        waits = [op.make() for op in OPERATIONS for _ in range(3)]
        gs = [gort.go(w.call) for w in waits]
        for _ in range(round_ % 4):
            gort.gosched()
        if round_ % 2:
            PlainThread(lambda gs=gs: [g.kill() for g in gs]).result()
        else:
            for g in gs:
                g.kill()
        assert join_all(gs) == [None] * len(gs)
        for w in waits:
            w.untouched()
