"""Litmus tests of docs/memory_model.md, the Python side: what happens before what.

Each hands plain data (a list's items, an attribute) over by one operation, many
times, between goroutines, plain threads, and one of each, with threads that take
turns often. On a GIL build they check the order of the steps within each
operation; on a free-threaded one the memory order as well. The native domain's
are in tests/c/test_litmus.c, where ThreadSanitizer looks on.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import model_native
import pytest
from model_stress import join_all, scaled
from model_support import PlainThread, output_of, settle, spin_until

import gort
from gort.atomic import Bool, Int64, Ref
from gort.sync import Cond, Map, Mutex, Once, Pool, RWMutex, Semaphore, WaitGroup, once_func, once_value
from gort.time import Ticker, Timer, after, after_func

Start = Callable[..., Any]
SIDES = [
    pytest.param((gort.go, gort.go), id="goroutines"),
    pytest.param((gort.go, PlainThread), id="goroutine-thread"),
    pytest.param((PlainThread, gort.go), id="thread-goroutine"),
    pytest.param((PlainThread, PlainThread), id="threads"),
]
sides = pytest.mark.parametrize("sides", SIDES)


@pytest.fixture(autouse=True)
def brisk() -> Iterator[None]:
    """Threads take turns every 10 us instead of 5 ms."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def rounds(pair: tuple[Start, Start], n: int = 60) -> int:
    return scaled(n) if pair == (gort.go, gort.go) else scaled(n // 6, 3)


# ---- message passing: write, release | acquire, read ---------------------------------------


@dataclass
class Edge:
    """Two operations of which the first happens before the second returns; `clean_up` after both."""

    release: Callable[[], object]
    acquire: Callable[[], object]
    clean_up: Callable[[], object] = field(default=lambda: None)


def until(condition: Callable[[], object]) -> Callable[[], None]:
    return lambda: spin_until(condition)


def chan_edge(cap: int, dtype: Any) -> Callable[[], Edge]:
    def make() -> Edge:
        c: gort.Chan[int] = gort.Chan(cap, dtype=dtype)
        return Edge(lambda: c.send(1), c.recv)

    return make


def unbuffered_receive() -> Edge:
    c: gort.Chan[int] = gort.Chan()
    return Edge(c.recv, lambda: c.send(1))


def receive_of_a_full_buffer() -> Edge:
    c: gort.Chan[int] = gort.Chan(2)
    c.send(1)
    c.send(2)
    return Edge(c.recv, lambda: c.send(3))


def non_blocking() -> Edge:
    c: gort.Chan[int] = gort.Chan(1)

    def got() -> bool:
        return gort.select(c, default=True)[0] == 0

    return Edge(lambda: c.send_nowait(1), until(got))


def select_send() -> Edge:
    c: gort.Chan[int] = gort.Chan()
    return Edge(lambda: gort.select((c, 1), gort.Chan()), c.recv)


def select_receive() -> Edge:
    c: gort.Chan[int] = gort.Chan()
    return Edge(lambda: c.send(1), lambda: gort.select(gort.Chan(), c))


def close() -> Edge:
    c: gort.Chan[int] = gort.Chan()
    return Edge(c.close, c.recv_ok)


def close_of_an_iteration() -> Edge:
    c: gort.Chan[int] = gort.Chan(1)
    return Edge(c.close, lambda: list(c))


def close_of_a_sender() -> Edge:
    c: gort.Chan[int] = gort.Chan()
    return Edge(c.close, lambda: pytest.raises(gort.ChanClosed, c.send, 1))


def mutex() -> Edge:
    mu = Mutex()
    mu.lock()
    return Edge(mu.unlock, mu.lock)


def mutex_try() -> Edge:
    mu = Mutex()
    mu.lock()
    return Edge(mu.unlock, until(mu.try_lock))


def write_then_read() -> Edge:
    rw = RWMutex()
    rw.lock()
    return Edge(rw.unlock, rw.rlock)


def read_then_write() -> Edge:
    rw = RWMutex()
    rw.rlock()
    return Edge(rw.runlock, rw.lock)


def wait_group() -> Edge:
    wg = WaitGroup()
    wg.add(1)
    return Edge(wg.done, wg.wait)


def semaphore() -> Edge:
    sem = Semaphore(3)
    sem.acquire(2)
    return Edge(lambda: sem.release(2), lambda: sem.acquire(3))


def condition(wake: str) -> Callable[[], Edge]:
    def make() -> Edge:
        mu = Mutex()
        cond, waits = Cond(mu), Bool()

        def wait() -> None:
            with mu:
                waits.store(True)
                cond.wait()

        def signal() -> None:
            spin_until(waits.load)
            with mu:
                pass  # it waits now: it had the lock
            getattr(cond, wake)()

        return Edge(signal, wait)

    return make


def sync_map() -> Edge:
    m: Map[str, int] = Map()
    return Edge(lambda: m.store("k", 1), until(lambda: m.load("k")[1]))


def sync_map_swap() -> Edge:
    m: Map[str, int] = Map()
    return Edge(lambda: m.load_or_store("k", 1), until(lambda: m.compare_and_swap("k", 1, 2)))


def pool() -> Edge:
    p: Pool[int] = Pool()
    return Edge(lambda: p.put(1), until(p.get))


def int64_store() -> Edge:
    a = Int64()
    return Edge(lambda: a.store(1), until(a.load))


def int64_add() -> Edge:
    a = Int64()
    return Edge(a.add, until(lambda: a.compare_and_swap(1, 2)))


def bool_swap() -> Edge:
    a = Bool()
    return Edge(lambda: a.swap(True), until(lambda: a.swap(False)))


def ref_store() -> Edge:
    a: Ref[Any] = Ref()
    return Edge(lambda: a.store([1]), until(a.load))


def timer_reset() -> Edge:
    t = Timer(3600)
    return Edge(lambda: t.reset(0), t.c.recv)


def ticker_reset() -> Edge:
    t = Ticker(3600)
    return Edge(lambda: t.reset(1e-9), t.c.recv, t.stop)


def timer_of_a_function() -> Edge:
    ran: gort.Chan[None] = gort.Chan(1)
    t = after_func(3600, ran.send, None)
    return Edge(lambda: t.reset(0), ran.recv)


EDGES: list[Any] = [
    *(
        pytest.param(chan_edge(cap, dtype), id=f"send of {dtype or 'objects'}, capacity {cap}")
        for cap in (0, 1, 3)
        for dtype in (None, "i64", "u8")
    ),
    *(
        pytest.param(make, id=make.__name__)
        for make in (
            unbuffered_receive,
            receive_of_a_full_buffer,
            non_blocking,
            select_send,
            select_receive,
            close,
            close_of_an_iteration,
            close_of_a_sender,
            mutex,
            mutex_try,
            write_then_read,
            read_then_write,
            wait_group,
            semaphore,
            sync_map,
            sync_map_swap,
            pool,
            int64_store,
            int64_add,
            bool_swap,
            ref_store,
            timer_reset,
            ticker_reset,
            timer_of_a_function,
        )
    ),
    pytest.param(condition("signal"), id="signal"),
    pytest.param(condition("broadcast"), id="broadcast"),
]


class Data:
    """Plain attributes; nothing guards them."""

    x = 0
    y = 0


@sides
@pytest.mark.parametrize("make", EDGES)
def test_what_was_written_before_the_one_is_seen_after_the_other(
    sides: tuple[Start, Start], make: Callable[[], Edge]
) -> None:
    for i in range(1, rounds(sides, 24) + 1):
        edge, data = make(), Data()

        def write(edge: Edge = edge, data: Data = data, i: int = i) -> None:
            data.x = i
            data.y = -i
            edge.release()

        def read(edge: Edge = edge, data: Data = data) -> tuple[int, int]:
            edge.acquire()
            return data.x, data.y

        a, b = sides
        if i % 2:
            workers = [a(write), b(read)]
        else:
            workers = [b(read), a(write)][::-1]
        assert join_all(workers)[1] == (i, -i)
        edge.clean_up()


# ---- goroutines: their start and their end ----------------------------------------------------


@pytest.mark.parametrize("start", [gort.go, PlainThread])
def test_go_happens_before_the_function_begins(start: Start) -> None:
    def body(data: list[int], i: int) -> None:
        assert data == [i]

    def spawn(i: int) -> None:
        data = [0]
        data[0] = i
        g = gort.go(body, data, i)
        wg = WaitGroup()
        wg.go(body, data, i)
        wg.wait()
        g.join()

    join_all([start(spawn, i) for i in range(scaled(200) if start is gort.go else scaled(20))])


@pytest.mark.parametrize("start", [gort.go, PlainThread])
@pytest.mark.parametrize("see", ["join", "done", "state", "failed join"])
def test_the_end_of_a_goroutine_happens_before_it_is_seen(start: Start, see: str) -> None:
    class Failed(Exception):
        pass

    def body(data: Data, i: int) -> int:
        data.x = i
        gort.gosched()
        data.y = i
        if see == "failed join":
            raise Failed
        return i

    def watch(i: int) -> None:
        data = Data()
        g = gort.go(body, data, i)
        if see == "failed join":
            with pytest.raises(Failed):
                g.join()
        else:
            if see == "done":
                spin_until(lambda: g.done)
            elif see == "state":
                spin_until(lambda: g.state == "dead")
            assert g.join() == i
        assert (data.x, data.y) == (i, i)

    join_all([start(watch, i) for i in range(scaled(100) if start is gort.go else scaled(15))])


def test_a_finally_block_happens_before_the_join_of_a_killed_goroutine() -> None:
    for i in range(1, scaled(100)):
        data = Data()

        def body(data: Data = data, i: int = i) -> None:
            try:
                gort.sleep(3600)
            finally:
                assert data.x == i, "kill() happens before GoroutineExit is raised"
                data.y = i

        g = gort.go(body)
        settle(g)
        data.x = i
        g.kill()
        g.join()
        assert data.y == i


def test_what_all_did_happens_before_run_returns() -> None:
    out = output_of(
        """
        import gort

        done, begun = [], gort.Chan(100)

        def body(i):
            begun.send(None)
            try:
                gort.sleep(3600)
            finally:
                gort.gosched()
                done.append(i)

        def main():
            for i in range(100):
                gort.go(body, i)
            for _ in range(100):
                begun.recv()
            return len(done)

        print(gort.run(main), len(done))
        """
    )
    assert out.split() == ["0", "100"]


def test_a_failure_happens_before_the_excepthook_and_that_before_the_wait_returns(panics: list[Any]) -> None:
    for i in range(1, scaled(50)):
        wg, data = WaitGroup(), Data()

        def body(data: Data = data, i: int = i) -> None:
            data.x = i
            raise ValueError(i)

        wg.go(body)
        wg.wait()
        assert data.x == i
        assert [exc.args[0] for _, exc in panics] == list(range(1, i + 1))


# ---- the rules with numbers -------------------------------------------------------------------


@sides
@pytest.mark.parametrize("dtype", [None, "i64"])
@pytest.mark.parametrize("cap", [1, 2, 5])
def test_the_kth_receive_happens_before_send_k_plus_c_returns(sides: tuple[Start, Start], cap: int, dtype: Any) -> None:
    """Slots of a ring of C + 2: a slot is written again only when its reader is done with it."""
    c: gort.Chan[int] = gort.Chan(cap, dtype=dtype)
    n, slots = rounds(sides, 400), [0] * (cap + 2)

    def send() -> None:
        for i in range(n):
            slots[i % (cap + 2)] = i
            c.send(i)

    def receive() -> None:
        v = c.recv()
        for _ in range(1, n):
            assert slots[v % (cap + 2)] == v  # read before the next receive
            v = c.recv()

    a, b = sides
    join_all([a(send), b(receive)])


@sides
@pytest.mark.parametrize("lock", ["mutex", "rwmutex", "semaphore", "channel", "cond"])
def test_what_a_lock_guards_is_never_lost(sides: tuple[Start, Start], lock: str) -> None:
    """A read and a write with a switch between them; the n-th unlock happens before the next lock returns."""
    mu, rw, sem, c, total = Mutex(), RWMutex(), Semaphore(2), gort.Chan[None](1), 0
    cond, held = Cond(Mutex()), False
    n = rounds(sides, 100)

    def enter() -> None:
        nonlocal held
        with cond.L:
            while held:
                cond.wait()
            held = True

    def leave() -> None:
        nonlocal held
        with cond.L:
            held = False
            cond.signal()

    ops: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "mutex": (mu.lock, mu.unlock),
        "rwmutex": (rw.lock, rw.unlock),
        "semaphore": (lambda: sem.acquire(2), lambda: sem.release(2)),
        "channel": (lambda: c.send(None), c.recv),
        "cond": (enter, leave),
    }
    lock_it, unlock_it = ops[lock]

    def body() -> None:
        nonlocal total
        for i in range(n):
            lock_it()
            before = total
            if i % 4 == 0:
                gort.gosched()
            total = before + 1
            unlock_it()

    join_all([start(body) for start in sides for _ in range(2)])
    assert total == 4 * n


def test_without_a_lock_an_update_across_a_switch_is_lost() -> None:
    """The page's example of what is not guaranteed, and the same with an atomic."""
    total, right = 0, Int64()

    def body() -> None:
        nonlocal total
        before = total
        gort.gosched()
        total = before + 1
        right.add(1)

    join_all([gort.go(body) for _ in range(10)])
    assert right.load() == 10
    assert total < 10


@sides
@pytest.mark.parametrize("kind", ["Once", "once_func", "once_value"])
def test_the_function_of_a_once_happens_before_every_call_of_it_returns(sides: tuple[Start, Start], kind: str) -> None:
    for i in range(1, rounds(sides, 40) + 1):
        once, data = Once(), Data()

        def fn(data: Data = data, i: int = i) -> int:
            data.x = i
            gort.gosched()
            data.y = i
            return i

        calls: dict[str, Callable[[], object]] = {
            "Once": lambda once=once, fn=fn: once.do(fn),  # type: ignore[misc]
            "once_func": once_func(fn),
            "once_value": once_value(fn),
        }
        call = calls[kind]

        def body(call: Callable[[], object] = call, data: Data = data) -> tuple[int, int]:
            call()
            return data.x, data.y

        assert join_all([start(body) for start in sides for _ in range(2)]) == [(i, i)] * 4


@sides
def test_every_done_happens_before_every_wait_returns(sides: tuple[Start, Start]) -> None:
    for i in range(1, rounds(sides, 30) + 1):
        wg, data = WaitGroup(), [0] * 6
        wg.add(6)

        def work(k: int, wg: WaitGroup = wg, data: list[int] = data, i: int = i) -> None:
            data[k] = i
            wg.done()

        def wait(wg: WaitGroup = wg, data: list[int] = data) -> list[int]:
            wg.wait()
            return list(data)

        a, b = sides
        waiters = [b(wait), a(wait)]
        workers = [(a, b)[k % 2](work, k) for k in range(6)]
        assert join_all(waiters) == [[i] * 6] * 2
        join_all(workers)


def test_a_value_from_a_timer_comes_after_what_its_maker_did() -> None:
    def body(i: int) -> None:
        data = Data()

        def fire(data: Data = data) -> None:
            assert data.x == i
            data.y = i
            out.send(None)

        out: gort.Chan[None] = gort.Chan(1)
        data.x = i
        after_func(1e-6, fire)
        after(1e-6).recv()
        out.recv()
        assert data.y == i

    join_all([gort.go(body, i) for i in range(scaled(50))] + [PlainThread(body, i) for i in range(3)])


def test_edges_add_up_over_goroutines_and_threads() -> None:
    """A chain through a channel, a mutex, a wait group, an atomic and a join."""
    for i in range(1, scaled(30)):
        data, c, mu, wg, flag = Data(), gort.Chan[int](), Mutex(), WaitGroup(), Int64()
        mu.lock()
        wg.add(1)

        def first(data: Data = data, c: gort.Chan[int] = c, i: int = i) -> None:
            data.x = i
            c.send(1)

        def second(c: gort.Chan[int] = c, mu: Mutex = mu) -> None:
            c.recv()
            mu.unlock()

        def third(mu: Mutex = mu, wg: WaitGroup = wg) -> None:
            mu.lock()
            wg.done()

        def fourth(wg: WaitGroup = wg, flag: Int64 = flag) -> None:
            wg.wait()
            flag.store(1)

        def fifth(data: Data = data, flag: Int64 = flag) -> int:
            spin_until(flag.load)
            return data.x

        start = (gort.go, PlainThread) if i % 5 == 0 else (gort.go, gort.go)
        workers = [start[k % 2](fn) for k, fn in enumerate((fifth, fourth, third, second, first))]
        assert join_all(workers)[0] == i


# ---- atomics are sequentially consistent ---------------------------------------------------------


class Gate:
    """Lets a number of threads and goroutines begin as nearly at once as may be."""

    def __init__(self, n: int) -> None:
        self.left = Int64(n)

    def pass_(self) -> None:
        self.left.add(-1)
        while self.left.load() > 0:
            gort.gosched()


def run_litmus(
    pair: tuple[Start, Start], make: Callable[[Gate], list[Callable[[], Any]]], n: int
) -> Iterator[list[Any]]:
    """The results of the functions of `make`, run beside each other, n times."""
    for _ in range(n):
        size = len(make(Gate(0)))
        gate = Gate(size)
        fns = make(gate)

        def body(fn: Callable[[], Any], gate: Gate = gate) -> Any:
            gate.pass_()
            return fn()

        yield join_all([pair[k % 2](body, fn) for k, fn in enumerate(fns)])


@sides
def test_store_buffering_is_not_seen(sides: tuple[Start, Start]) -> None:
    """x=1; read y | y=1; read x: not both 0."""

    def make(gate: Gate) -> list[Callable[[], int]]:
        x, y = Int64(), Int64()
        return [lambda: (x.store(1), y.load())[1], lambda: (y.store(1), x.load())[1]]

    for result in run_litmus(sides, make, rounds(sides)):
        assert result != [0, 0]


@sides
def test_load_buffering_is_not_seen(sides: tuple[Start, Start]) -> None:
    """read x; y=1 | read y; x=1: not both 1."""

    def make(gate: Gate) -> list[Callable[[], int]]:
        x, y = Int64(), Int64()
        return [lambda: (x.load(), y.store(1))[0], lambda: (y.load(), x.store(1))[0]]

    for result in run_litmus(sides, make, rounds(sides)):
        assert result != [1, 1]


@sides
def test_independent_reads_of_independent_writes_agree_on_an_order(sides: tuple[Start, Start]) -> None:
    """x=1 | y=1 | read x, y | read y, x: not x before y for the one and y before x for the other."""

    def make(gate: Gate) -> list[Callable[[], Any]]:
        x, y = Int64(), Int64()
        return [
            lambda: x.store(1),
            lambda: (x.load(), y.load()),
            lambda: y.store(1),
            lambda: (y.load(), x.load()),
        ]

    for _, one, _, other in run_litmus(sides, make, rounds(sides)):
        assert not (one == (1, 0) and other == (1, 0))


@sides
def test_reads_of_one_variable_do_not_go_back(sides: tuple[Start, Start]) -> None:
    """Coherence: each reader sees the writes in one order."""

    def make(gate: Gate) -> list[Callable[[], Any]]:
        x: Ref[int] = Ref(0)
        return [
            lambda: [x.store(i) for i in range(1, 20)],
            lambda: [x.load() for _ in range(30)],
            lambda: [x.load() for _ in range(30)],
        ]

    for _, *reads in run_litmus(sides, make, rounds(sides, 30)):
        for seen in reads:
            assert seen == sorted(seen)


@sides
def test_each_swap_and_each_cas_happens_once(sides: tuple[Start, Start]) -> None:
    """A read-modify-write is one step: every value is taken by exactly one."""
    ref, wins, n = Ref[Any](None), Int64(), rounds(sides, 200)
    counter = Int64()

    def body() -> None:
        for _ in range(n):
            ticket = object()
            if ref.compare_and_swap(None, ticket):
                wins.add(1)
                assert ref.swap(None) is ticket
            while True:
                v = counter.load()
                if counter.compare_and_swap(v, v + 1):
                    break

    join_all([start(body) for start in sides for _ in range(2)])
    assert counter.load() == 4 * n
    assert ref.load() is None
    assert 0 < wins.load() <= 4 * n


@sides
@pytest.mark.parametrize("dtype", [None, "u8"])
def test_channels_do_not_buffer_stores(sides: tuple[Start, Start], dtype: Any) -> None:
    """Store buffering with channels as variables: one of two sees what the other put in."""

    def make(gate: Gate) -> list[Callable[[], bool]]:
        x, y = gort.Chan[int](1, dtype=dtype), gort.Chan[int](1, dtype=dtype)

        def body(mine: gort.Chan[int], other: gort.Chan[int]) -> bool:
            mine.send_nowait(1)
            return gort.select(other, default=True)[0] == 0

        return [lambda: body(x, y), lambda: body(y, x)]

    for result in run_litmus(sides, make, rounds(sides)):
        assert any(result)


# ---- the two domains --------------------------------------------------------------------------------


def test_what_goes_through_a_native_goroutine_carries_everything_along(native_lib: Any) -> None:
    """Python's data by way of C and back; and C's plain data at the join."""
    a, b = gort.Chan[int](2, dtype="i64"), gort.Chan[int](2, dtype="i64")
    n = scaled(500)
    slots = [0] * n
    job = model_native.Job(inp=a.ptr, out=b.ptr)
    native = model_native.start(native_lib.relay, job)

    def send() -> None:
        for i in range(n):
            slots[i] = i + 1
            a.send(i)
        a.close()

    g = gort.go(send)
    for i, v in enumerate(b):
        assert v == 2 * i + 1
        assert slots[i] == i + 1
    g.join()
    native.join()
    assert (job.count, job.status) == (n, model_native.ECLOSED)


# ---- plain threads: what gort does not change --------------------------------------------------------


def test_the_threading_module_orders_goroutines_too() -> None:
    """Thread.start and join, as CPython has it, beside goroutines."""
    for i in range(1, scaled(20)):
        data = Data()

        def body(data: Data = data, i: int = i) -> None:
            assert data.x == i
            data.y = i

        def launch(data: Data = data, i: int = i, body: Callable[[], None] = body) -> None:
            data.x = i
            t = threading.Thread(target=body)
            t.start()
            gort.blocking(t.join)
            assert data.y == i

        gort.go(launch).join()


# ---- contexts and groups ------------------------------------------------------------------------------


@sides
@pytest.mark.parametrize("see", ["done", "err", "wait", "ctx=", "after_func", "child"])
def test_cancelling_happens_before_the_end_of_a_context_is_seen(sides: tuple[Start, Start], see: str) -> None:
    context = pytest.importorskip("gort.context")
    for i in range(1, rounds(sides, 24) + 1):
        ctx, cancel = context.with_cancel(context.background())
        child, stop_child = context.with_cancel(ctx)
        ran: gort.Chan[None] = gort.Chan(1)
        if see == "after_func":
            context.after_func(ctx, lambda ran=ran: ran.send(None))
        data = Data()

        def write(data: Data = data, cancel: Any = cancel, i: int = i) -> None:
            data.x = i
            cancel()

        def read(data: Data = data, ctx: Any = ctx, child: Any = child, ran: gort.Chan[None] = ran) -> int:
            if see == "done":
                ctx.done().recv_ok()
            elif see == "err":
                spin_until(lambda: ctx.err() is not None)
            elif see == "wait":
                ctx.wait()
            elif see == "ctx=":
                with pytest.raises(context.Canceled):
                    gort.Chan[int]().recv(ctx=ctx)
            elif see == "after_func":
                ran.recv()
            else:
                child.done().recv_ok()
            return data.x

        a, b = sides
        assert join_all([a(write), b(read)])[1] == i
        stop_child()


def test_what_a_group_did_happens_before_its_wait_returns() -> None:
    errgroup = pytest.importorskip("gort.errgroup")
    for i in range(1, scaled(50)):
        data, group = [0] * 5, errgroup.Group()

        def body(k: int, data: list[int] = data, i: int = i) -> None:
            gort.gosched()
            data[k] = i

        for k in range(5):
            group.go(body, k)
        group.wait()
        assert data == [i] * 5


def test_a_failure_happens_before_the_end_of_the_groups_context() -> None:
    errgroup = pytest.importorskip("gort.errgroup")
    for i in range(1, scaled(50)):
        data, group = Data(), errgroup.Group()

        def fail(data: Data = data, i: int = i) -> None:
            data.x = i
            raise ValueError(i)

        def watch(data: Data = data, group: Any = group, i: int = i) -> None:
            group.ctx.wait()
            assert data.x == i

        group.go(watch)
        group.go(fail)
        with pytest.raises(ValueError, match=str(i)):
            group.wait()


@sides
def test_the_one_call_happens_before_each_do_returns(sides: tuple[Start, Start]) -> None:
    singleflight = pytest.importorskip("gort.singleflight")
    for i in range(1, rounds(sides, 24) + 1):
        group, data = singleflight.Group(), Data()

        def fn(data: Data = data, i: int = i) -> int:
            data.x = i
            gort.gosched()
            data.y = i
            return i

        def do(group: Any = group, fn: Callable[[], int] = fn, data: Data = data) -> tuple[int, int, int]:
            return group.do("key", fn)[0], data.x, data.y

        assert join_all([start(do) for start in sides for _ in range(2)]) == [(i, i, i)] * 4
