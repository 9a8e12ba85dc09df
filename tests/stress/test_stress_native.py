"""Typed channels in real parallelism: native C goroutines, Python goroutines and plain threads together."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
from model_native import ECLOSED, OK, Job, start
from model_stress import exactly_once, join_all, scaled, share
from model_support import PlainThread

import gort

pytestmark = pytest.mark.stress

procs = pytest.mark.parametrize("procs", [2, 4])


def counters(n: int) -> Any:
    return (ctypes.c_uint8 * n)()


def once_each(seen: Any, got: list[int], n: int) -> None:
    """The messages that C counted in `seen` and those that Python has in `got` are each of 0..n-1 once."""
    total = bytearray(seen)
    for v in got:
        total[v] += 1
    assert len(total) == n
    lost, doubled = total.count(0), n - total.count(0) - total.count(1)
    assert (lost, doubled) == (0, 0), f"{lost} lost, {doubled} doubled"


@procs
@pytest.mark.parametrize("cap", [0, 1, 64])
def test_c_goroutines_alone(native_lib: Any, procs: int, cap: int) -> None:
    gort.gomaxprocs(procs)
    n = scaled(2_000_000)
    ch, seen = gort.Chan(cap, dtype="i64"), counters(n)
    takers = [Job(inp=ch.ptr, seen=ctypes.addressof(seen)) for _ in range(4)]
    makers = [Job(out=ch.ptr, first=part.start, count=len(part)) for part in share(n, 4)]
    consuming = [start(native_lib.consume, job) for job in takers]
    producing = [start(native_lib.produce, job) for job in makers]
    for g in producing:
        g.join()
    ch.close()
    for g in consuming:
        g.join()
    assert [job.status for job in makers] == [OK] * 4
    assert [job.status for job in takers] == [ECLOSED] * 4
    assert sum(job.count for job in takers) == n
    assert sum(job.sum for job in takers) == n * (n - 1) // 2
    once_each(seen, [], n)


@procs
@pytest.mark.parametrize("cap", [0, 16])
def test_c_goroutines_python_goroutines_and_threads_together(native_lib: Any, procs: int, cap: int) -> None:
    gort.gomaxprocs(procs)
    n = scaled(200_000)
    ch: Any = gort.Chan(cap, dtype="i64")
    seen, parts = counters(n), share(n, 6)

    def produce(part: range) -> None:
        for v in part:
            ch.send(v)

    def consume() -> list[int]:
        return list(ch)

    c_jobs = [Job(inp=ch.ptr, seen=ctypes.addressof(seen)) for _ in range(2)]
    c_takers = [start(native_lib.consume, job) for job in c_jobs]
    takers = [gort.go(consume), gort.go(consume), PlainThread(consume), PlainThread(consume)]
    made = [Job(out=ch.ptr, first=part.start, count=len(part)) for part in parts[:2]]
    c_makers = [start(native_lib.produce, job) for job in made]
    makers: list[Any] = [gort.go(produce, part) for part in parts[2:4]] + [PlainThread(produce, p) for p in parts[4:]]
    for g in c_makers:
        g.join()
    join_all(makers)
    ch.close()
    got = [v for part in join_all(takers) for v in part]
    for g in c_takers:
        g.join()
    once_each(seen, got, n)


@procs
def test_a_chain_of_c_and_python_stages(native_lib: Any, procs: int) -> None:
    gort.gomaxprocs(procs)
    n, stages = scaled(40_000), 6
    chans: list[Any] = [gort.Chan(i % 3, dtype="i64") for i in range(stages + 1)]

    def relay(inp: Any, out: Any) -> None:
        for v in inp:
            out.send(v * 2 + 1)
        out.close()

    jobs, workers, natives = [], [], []
    for i in range(stages):
        if i % 2:
            workers.append(gort.go(relay, chans[i], chans[i + 1]))
        else:
            jobs.append(Job(inp=chans[i].ptr, out=chans[i + 1].ptr))
            natives.append(start(native_lib.relay, jobs[-1]))

    def feed() -> None:
        for i in range(n):
            chans[0].send(i)
        chans[0].close()

    workers.append(gort.go(feed))
    assert list(chans[-1]) == [(i + 1) * 2**stages - 1 for i in range(n)]
    join_all(workers)
    for g in natives:
        g.join()


@procs
def test_selects_in_c_and_python_on_the_same_channels(native_lib: Any, procs: int) -> None:
    gort.gomaxprocs(procs)
    a, b = gort.Chan(dtype="i64"), gort.Chan(1, dtype="i64")
    jobs = [Job(inp=a.ptr, out=b.ptr, first=10**9 * (k + 1)) for k in range(3)]
    natives = [start(native_lib.select_loop, job) for job in jobs]

    def body(base: int) -> tuple[int, list[int]]:
        sent, got = 0, []
        for i in range(scaled(30_000)):
            k, v, ok = gort.select((a, base + i), b)
            assert ok
            if k == 0:
                sent += base + i
            else:
                got.append(v)
        return sent, got

    workers: list[Any] = [gort.go(body, 10**5 * k) for k in range(3)] + [PlainThread(body, 10**6)]
    results = join_all(workers)
    b.close()
    got = [v for _, part in results for v in part] + list(b)
    a.close()
    for g in natives:
        g.join()
    assert sum(job.sum for job in jobs) == sum(sent for sent, _ in results)
    for k, job in enumerate(jobs):
        base = 10**9 * (k + 1)
        mine = sorted(v for v in got if base <= v < base + 10**9)
        assert mine == list(range(base, job.first))


@procs
def test_timeouts_in_c_race_with_receivers(native_lib: Any, procs: int) -> None:
    """Sends with tiny timeouts from C: each that was counted as sent is received once, no other."""
    gort.gomaxprocs(procs)
    n = scaled(120_000)
    ch: Any = gort.Chan(dtype="i64")
    sent, parts = counters(n), share(n, 4)
    jobs = [
        Job(out=ch.ptr, first=part.start, count=len(part), timeout_ns=10_000 * i, seen=ctypes.addressof(sent))
        for i, part in enumerate(parts)
    ]
    natives = [start(native_lib.send_racing, job) for job in jobs]
    done = gort.Chan()

    def receive() -> list[int]:
        got = []
        while True:
            k, v, _ = gort.select(ch, done)
            if k == 1:
                return got
            got.append(v)

    def receive_with_timeouts() -> list[int]:
        got = []
        while not done.closed:
            try:
                got.append(ch.recv(timeout=1e-5))
            except TimeoutError:
                gort.gosched()
        return got

    takers = [gort.go(receive), gort.go(receive_with_timeouts), PlainThread(receive_with_timeouts)]
    for g in natives:
        g.join()
    done.close()
    got = [v for part in join_all(takers) for v in part]
    assert sorted(got) == [v for v in range(n) if sent[v]]
    assert sum(job.sum for job in jobs) == len(got)


@procs
def test_trees_of_c_goroutines(native_lib: Any, procs: int) -> None:
    gort.gomaxprocs(procs)
    jobs = [Job(count=13) for _ in range(scaled(60))]
    natives = [start(native_lib.grow_tree, job) for job in jobs]
    for g in natives:
        g.join()
    assert [job.sum for job in jobs] == [2**14 - 1] * len(jobs)


@procs
def test_close_races_with_c_senders(native_lib: Any, procs: int) -> None:
    gort.gomaxprocs(procs)
    for trial in range(scaled(1_000)):
        ch: Any = gort.Chan(trial % 3, dtype="i64")
        seen = counters(4_000)
        makers = [Job(out=ch.ptr, first=1000 * k, count=1000) for k in range(3)]
        takers = [Job(inp=ch.ptr, seen=ctypes.addressof(seen)) for _ in range(2)]
        natives = [start(native_lib.consume, job) for job in takers]
        natives += [start(native_lib.produce, job) for job in makers]
        got: list[int] = []
        try:
            while len(got) < trial % 20:
                got.append(ch.recv(timeout=0.001))  # the C receivers may have taken all
        except TimeoutError:
            pass
        ch.close()
        got += list(ch)
        for g in natives:
            g.join()
        for v in got:
            seen[v] += 1
        # What each sender got rid of before the end was received once, the rest never.
        for k in range(3):
            mine = bytes(seen)[1000 * k : 1000 * (k + 1)]
            assert mine == b"\1" * makers[k].sum + b"\0" * (1000 - makers[k].sum)


@procs
def test_gomaxprocs_changes_under_load(native_lib: Any, procs: int) -> None:
    n = scaled(2_000_000)
    ch, seen = gort.Chan(4, dtype="i64"), counters(n)
    takers = [Job(inp=ch.ptr, seen=ctypes.addressof(seen)) for _ in range(3)]
    makers = [Job(out=ch.ptr, first=part.start, count=len(part)) for part in share(n, 3)]
    natives = [start(native_lib.consume, job) for job in takers]
    producing = [start(native_lib.produce, job) for job in makers]
    k = 0
    while not all(g.done for g in producing):
        gort.gomaxprocs(1 + k % procs)
        k += 1
        gort.sleep(0.0005)
    ch.close()
    for g in natives + producing:
        g.join()
    exactly_once((v for v in range(n) if seen[v] == 1), n)


@procs
def test_many_native_goroutines_come_and_go(native_lib: Any, procs: int) -> None:
    gort.gomaxprocs(procs)
    ch: Any = gort.Chan(16, dtype="i64")
    n = scaled(50_000)
    jobs = [Job(out=ch.ptr, first=i, count=1) for i in range(n)]

    def launch(part: range) -> None:
        for g in [start(native_lib.produce, jobs[i]) for i in part]:
            g.join()

    launchers: list[Any] = [gort.go(launch, part) for part in share(n, 2)]
    exactly_once((ch.recv() for _ in range(n)), n)
    join_all(launchers)


@pytest.mark.parametrize("cap", [0, 1, 64])
def test_python_goroutines_send_from_c_code_without_the_gil(native_lib: Any, cap: int) -> None:
    """Their P may be taken away at any moment meanwhile, so they put nothing on its queue."""
    n = scaled(200_000)
    ch: Any = gort.Chan(cap, dtype="i64")
    jobs = [Job(out=ch.ptr, first=part.start, count=len(part)) for part in share(n, 3)]

    def call(job: Job) -> None:
        native_lib.produce(ctypes.addressof(job))

    native_lib.produce.argtypes = [ctypes.c_void_p]
    takers = [gort.go(list, ch) for _ in range(3)]
    join_all([gort.go(call, job) for job in jobs])
    ch.close()
    assert [job.status for job in jobs] == [OK] * 3
    exactly_once((v for g in takers for v in g.join()), n)
