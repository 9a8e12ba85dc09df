"""What Go's own tests of package sync check, for gort.sync.

Each test names the Go test it stands for; those whose behaviour test_sync.py and
test_mutex.py cover in full are not repeated. Go's goroutines are goroutines here,
some of them plain threads. Not here: TestWaitGroupAlign, TestNilPool (no such
things in Python), TestPoolDequeue and TestPoolChain (parts of Go's Pool), and
what counts allocations.
"""

from __future__ import annotations

import copy
import gc
import traceback
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_stress import join_all, scaled
from model_support import PlainThread, output_of, park, run_program, settle, spin_until

import gort
from gort.atomic import Bool, Int64
from gort.sync import Cond, Map, Mutex, Once, Pool, RWMutex, Semaphore, WaitGroup, once_func, once_value

STARTS = [pytest.param(gort.go, id="goroutines"), pytest.param(PlainThread, id="threads")]
starts = pytest.mark.parametrize("start", STARTS)
Start = Callable[..., Any]


# ---- mutex_test.go -----------------------------------------------------------------


@starts
def test_hammered_semaphore(start: Start) -> None:
    """TestSemaphore."""
    sem, inside = Semaphore(1), Int64()

    def hammer(loops: int) -> None:
        for _ in range(loops):
            sem.acquire()
            assert inside.add(1) == 1
            inside.add(-1)
            sem.release()

    join_all([start(hammer, scaled(300)) for _ in range(10)])
    assert sem.try_acquire()


@starts
def test_hammered_mutex(start: Start) -> None:
    """TestMutex: every third try only tries."""
    mu, inside = Mutex(), 0

    def hammer(loops: int) -> None:
        nonlocal inside
        for i in range(loops):
            if i % 3 == 0:
                if not mu.try_lock():
                    continue
            else:
                mu.lock()
            inside += 1
            assert inside == 1
            if i % 16 == 0:
                gort.gosched()
            inside -= 1
            mu.unlock()

    join_all([start(hammer, scaled(300)) for _ in range(10)])
    assert mu.try_lock()


def locked_mutex() -> Mutex:
    mu = Mutex()
    mu.lock()
    return mu


def read_locked() -> RWMutex:
    rw = RWMutex()
    rw.rlock()
    return rw


def write_locked() -> RWMutex:
    rw = RWMutex()
    rw.lock()
    return rw


def lock_of(make: Callable[[], Any], *calls: str) -> Any:
    lock = make()
    for name in calls:
        getattr(lock, name)()
    return lock


@pytest.mark.parametrize(
    ("make", "before", "last"),
    [
        pytest.param(Mutex, [], "unlock", id="Mutex.Unlock"),
        pytest.param(locked_mutex, ["unlock"], "unlock", id="Mutex.Unlock2"),
        pytest.param(RWMutex, [], "unlock", id="RWMutex.Unlock"),
        pytest.param(read_locked, [], "unlock", id="RWMutex.Unlock2"),
        pytest.param(write_locked, ["unlock"], "unlock", id="RWMutex.Unlock3"),
        pytest.param(RWMutex, [], "runlock", id="RWMutex.RUnlock"),
        pytest.param(write_locked, [], "runlock", id="RWMutex.RUnlock2"),
        pytest.param(read_locked, ["runlock"], "runlock", id="RWMutex.RUnlock3"),
    ],
)
def test_misuse_of_a_lock_says_unlocked(make: Callable[[], Any], before: list[str], last: str) -> None:
    """TestMutexMisuse; in Go it is fatal, here the lock stays as it was."""
    lock = lock_of(make, *before)
    as_it_was = repr(lock)
    with pytest.raises(RuntimeError, match="unlocked"):
        getattr(lock, last)()
    assert repr(lock) == as_it_was


@starts
def test_a_mutex_is_fair_to_who_comes_seldom(start: Start) -> None:
    """TestMutexFairness: one holds it nearly always, the other one gets it all the same, ten times."""
    mu, stop = Mutex(), Bool()

    def hog() -> None:
        while not stop.load():
            mu.lock()
            gort.sleep(0.0001)
            mu.unlock()

    def guest() -> None:
        for _ in range(10):
            gort.sleep(0.0001)
            mu.lock()
            mu.unlock()

    h = start(hog)
    g = start(guest)
    join_all([g])
    stop.store(True)
    join_all([h])


# ---- rwmutex_test.go ---------------------------------------------------------------


@starts
@pytest.mark.parametrize("readers", [1, 3, 4])
def test_parallel_readers(start: Start, readers: int) -> None:
    """TestParallelReaders: all are in at once."""
    rw = RWMutex()
    locked, unlock, done = gort.Chan[bool](), gort.Chan[bool](), gort.Chan[bool]()

    def reader() -> None:
        rw.rlock()
        locked.send(True)
        unlock.recv()
        rw.runlock()
        done.send(True)

    workers = [start(reader) for _ in range(readers)]
    for _ in range(readers):
        locked.recv()
    assert not rw.try_lock()
    for _ in range(readers):
        unlock.send(True)
    for _ in range(readers):
        done.recv()
    join_all(workers)
    assert rw.try_lock()


@starts
@pytest.mark.parametrize("readers", [1, 3, 10])
def test_hammered_rwmutex(start: Start, readers: int) -> None:
    """TestRWMutex, HammerRWMutex: the activity is the readers, or 10,000 for a writer."""
    rw, activity, rounds = RWMutex(), Int64(), scaled(60)

    def read() -> None:
        for i in range(rounds):
            with rw.reader():
                assert 1 <= activity.add(1) < 10000
                if i % 4 == 0:
                    gort.gosched()
                activity.add(-1)

    def write() -> None:
        for i in range(rounds):
            with rw.writer():
                assert activity.add(10000) == 10000
                if i % 4 == 0:
                    gort.gosched()
                activity.add(-10000)

    half = readers // 2
    workers = [start(write), *(start(read) for _ in range(half)), start(write)]
    join_all(workers + [start(read) for _ in range(readers - half)])
    assert activity.load() == 0
    assert rw.try_lock()


def test_the_readers_side_is_a_locker() -> None:
    """TestRLocker: each lock of it counts, and together they keep a writer out."""
    rw = RWMutex()
    rl = rw.reader()
    rlocked, wlocked = gort.Chan[bool](1), gort.Chan[bool](1)
    n = 10

    def body() -> None:
        for _ in range(n):
            rl.lock()
            rl.lock()
            rlocked.send(True)
            rw.lock()
            wlocked.send(True)

    g = gort.go(body)
    for _ in range(n):
        rlocked.recv()
        rl.unlock()
        settle(g)
        assert gort.select(wlocked, default=True)[0] == -1, "one lock is left"
        rl.unlock()
        wlocked.recv()
        settle(g)
        assert gort.select(rlocked, default=True)[0] == -1, "the writer has it"
        rw.unlock()
    g.join()


# ---- waitgroup_test.go ---------------------------------------------------------------


@starts
def test_two_wait_groups_as_barriers_again_and_again(start: Start) -> None:
    """TestWaitGroup."""
    a, b, n = WaitGroup(), WaitGroup(), 16
    for _ in range(8):
        a.add(n)
        b.add(n)
        exited = gort.Chan[bool](n)

        def body(exited: gort.Chan[bool] = exited) -> None:
            a.done()
            b.wait()
            exited.send(True)

        workers = [start(body) for _ in range(n)]
        a.wait()
        for _ in range(n):
            assert len(exited) == 0, "released too soon"
            b.done()
        for _ in range(n):
            exited.recv()
        join_all(workers)


def test_a_negative_wait_group_says_so() -> None:
    """TestWaitGroupMisuse."""
    wg = WaitGroup()
    wg.add(1)
    wg.done()
    with pytest.raises(RuntimeError, match="negative WaitGroup counter"):
        wg.done()


@starts
def test_wait_does_not_return_before_the_last_is_done(start: Start) -> None:
    """TestWaitGroupRace."""

    def count(n: Int64, wg: WaitGroup) -> None:
        n.add(1)
        wg.done()

    for _ in range(scaled(1000) if start is gort.go else scaled(100)):
        wg, n = WaitGroup(), Int64()
        wg.add(1)
        a = start(count, n, wg)
        wg.add(1)
        b = start(count, n, wg)
        wg.wait()
        assert n.load() == 2, "spurious wake-up"
        join_all([a, b])


def test_an_exception_is_reported_before_wait_returns(panics: list[Any]) -> None:
    """TestIssue76126: the panic of a function of WaitGroup.go comes before the end of the wait."""
    for i in range(1, 20):
        wg = WaitGroup()
        wg.go(divmod, 1, 0)
        wg.wait()
        assert len(panics) == i


def test_a_crash_ends_the_process_before_wait_returns() -> None:
    """TestIssue76126, the program."""
    done = run_program(
        """
        import gort.sync
        wg = gort.sync.WaitGroup()
        def fail():
            raise ValueError("test")
        wg.go(fail)
        wg.wait()
        print("Wait returned")
        """,
        GORT_PANIC="crash",
    )
    assert done.returncode == 2
    assert "ValueError: test" in done.stderr
    assert "Wait returned" not in done.stdout


# ---- once_test.go, oncefunc_test.go -----------------------------------------------------


@starts
def test_once_whoever_comes(start: Start) -> None:
    """TestOnce: and whoever returns from do() sees what it did."""
    for _ in range(scaled(20)):
        once, calls = Once(), []

        def slow(calls: list[int] = calls) -> None:
            gort.gosched()
            calls.append(1)

        def body(once: Once = once, slow: Callable[[], None] = slow, calls: list[int] = calls) -> None:
            once.do(slow)
            assert calls == [1]

        join_all([start(body) for _ in range(10)])
        assert calls == [1]


def test_once_value_of_a_tuple() -> None:
    """TestOnceValues: Go's pair is a tuple."""
    calls = []

    def fn() -> tuple[int, int]:
        calls.append(1)
        return len(calls), len(calls) + 1

    f = once_value(fn)
    assert [f() for _ in range(11)] == [(1, 2)] * 11


@pytest.mark.parametrize("make", [once_func, once_value])
def test_a_once_function_that_ended_its_goroutine_is_not_called_twice(make: Any) -> None:
    """TestOnceFuncGoexit: unspecified in Go, here the others are told that there is no result."""
    calls = []

    def fn() -> None:
        calls.append(1)
        gort.goexit()

    f = make(fn)
    assert gort.go(f).join() is None
    for _ in range(2):
        with pytest.raises(RuntimeError):
            gort.go(f).join()
    assert calls == [1]


def once_func_fails() -> None:
    raise ValueError("x")


@pytest.mark.parametrize("make", [once_func, once_value])
def test_the_traceback_goes_to_where_it_was_raised(make: Any) -> None:
    """TestOnceFuncPanicTraceback; here every call's does."""
    f = make(once_func_fails)
    for _ in range(2):
        with pytest.raises(ValueError, match="x") as caught:
            f()
        assert "once_func_fails" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]


@pytest.mark.parametrize("make", [once_func, once_value])
def test_the_function_is_let_go_once_it_was_called(make: Any) -> None:
    """TestOnceXGC. Where it raised, its frame lives on in the traceback, as is Python's manner."""

    class Buffer:
        pass

    def wrap() -> tuple[Any, Any]:
        buf = Buffer()

        def fn() -> None:
            buf.used = True  # type: ignore[attr-defined]

        return make(fn), weakref.ref(buf)

    f, ref = wrap()
    gc.collect()
    assert ref() is not None, "let go too early"
    f()
    gc.collect()
    assert ref() is None
    f()


def depth(error: BaseException) -> int:
    return len(traceback.extract_tb(error.__traceback__))


@pytest.mark.parametrize("again", ["once_func", "once_value", "join"])
def test_raising_the_same_again_does_not_grow_its_traceback(again: str) -> None:
    """Each raise added the frames of its caller to the traceback, and so kept them for ever."""
    f: Any = {"once_func": once_func, "once_value": once_value}.get(again, lambda fn: gort.go(fn).join)(once_func_fails)
    depths = set()
    for _ in range(5):
        with pytest.raises(ValueError, match="x") as caught:
            f()
        depths.add(depth(caught.value))
    assert len(depths) == 1


# ---- cond_test.go --------------------------------------------------------------------------


def assert_empty(ch: gort.Chan[Any], what: str) -> None:
    for _ in range(3):
        gort.gosched()
    assert len(ch) == 0, what


@starts
def test_signal_wakes_one_at_a_time(start: Start) -> None:
    """TestCondSignal."""
    m, n = Mutex(), 2
    c = Cond(m)
    running, awake = gort.Chan[bool](n), gort.Chan[bool](n)

    def body() -> None:
        m.lock()
        running.send(True)
        c.wait()
        awake.send(True)
        m.unlock()

    workers = [start(body) for _ in range(n)]
    for _ in range(n):
        running.recv()
    for _ in range(n):
        assert_empty(awake, "not asleep")
        with m:
            c.signal()
        awake.recv()
        assert_empty(awake, "too many awake")
    c.signal()
    join_all(workers)


def test_signals_go_to_who_waits_longest() -> None:
    """TestCondSignalGenerations: though each new waiter comes as the one before it is woken."""
    m, n = Mutex(), 100
    c = Cond(m)
    running, awake = gort.Chan[bool](n), gort.Chan[int](n)

    def body(i: int) -> None:
        m.lock()
        running.send(True)
        c.wait()
        awake.send(i)
        m.unlock()

    gs = []
    for i in range(n):
        gs.append(gort.go(body, i))
        if i:
            assert awake.recv() == i - 1
        running.recv()
        with m:
            c.signal()
    join_all(gs)


@starts
def test_each_broadcast_wakes_each_once(start: Start) -> None:
    """TestCondBroadcast."""
    m, n = Mutex(), 30 if start is gort.go else 8
    c = Cond(m)
    running, awake = gort.Chan[int](n), gort.Chan[int](n)
    leave = False

    def body(g: int) -> None:
        m.lock()
        while not leave:
            running.send(g)
            c.wait()
            awake.send(g)
        m.unlock()

    workers = [start(body, g) for g in range(n)]
    for i in range(n):
        for _ in range(n):
            running.recv()  # a deadlock unless n are running
        if i == n - 1:
            with m:
                leave = True
        assert len(awake) == 0, "not asleep"
        with m:
            c.broadcast()
        assert {awake.recv() for _ in range(n)} == set(range(n))
    join_all(workers)
    assert len(running) == 0, "did not leave"
    c.broadcast()


def three_hand_a_value_on(start: Start) -> None:
    x, c = 0, Cond(Mutex())

    def first() -> None:
        nonlocal x
        with c.L:
            x = 1
            c.wait()
            assert x == 2
            x = 3
            c.signal()

    def second() -> None:
        nonlocal x
        while True:
            with c.L:
                if x == 1:
                    x = 2
                    c.signal()
                    return
            gort.gosched()

    def third() -> None:
        while True:
            with c.L:
                if x == 2:
                    c.wait()
                    assert x == 3
                    return
                if x == 3:
                    return
            gort.gosched()

    join_all([start(first), start(second), start(third)])


@starts
def test_three_hand_a_value_on_by_signals(start: Start) -> None:
    """TestRace."""
    for _ in range(scaled(20)):
        three_hand_a_value_on(start)


def broadcast_beside_a_newcomer() -> None:
    m, done, ch = Mutex(), False, gort.Chan[None]()
    c = Cond(m)

    def waiter() -> None:
        with m:
            ch.send(None)
            c.wait()
        ch.send(None)

    def late() -> None:
        with m:
            while not done:
                c.wait()

    g = gort.go(waiter)
    ch.recv()
    with m:
        pass  # it waits now, for it had the lock
    others = [gort.go(c.broadcast), gort.go(late)]
    ch.recv()  # the first one is woken, whoever else is
    with m:
        done = True
    c.broadcast()
    join_all([g, *others])


def test_a_broadcast_is_not_stolen_by_who_comes_later() -> None:
    """TestCondSignalStealing."""
    for _ in range(scaled(200)):
        broadcast_beside_a_newcomer()


@pytest.mark.parametrize("make", [Mutex, RWMutex, WaitGroup, Once, lambda: Cond(Mutex()), lambda: Semaphore(1), Map])
def test_what_goroutines_wait_on_cannot_be_copied(make: Any) -> None:
    """TestCondCopy, and what Go's vet says of the others."""
    with pytest.raises(TypeError):
        copy.copy(make())


class TalkativeLock:
    """A lock written in Python that lets others run in its unlock()."""

    def __init__(self) -> None:
        self.mu = Mutex()

    def lock(self) -> None:
        self.mu.lock()

    def unlock(self) -> None:
        self.mu.unlock()
        gort.gosched()


def test_a_signal_given_as_soon_as_the_lock_is_free_is_not_lost() -> None:
    """Go queues the waiter before it unlocks; gort queued it after, and others ran in between."""
    lock = TalkativeLock()
    c, ready = Cond(lock), False

    def waker() -> None:
        nonlocal ready
        lock.lock()
        ready = True
        c.signal()
        lock.unlock()

    lock.lock()
    g = gort.go(waker)
    while not ready:
        c.wait()
    lock.unlock()
    g.join()


def test_a_waiter_whose_unlock_failed_is_not_signalled() -> None:
    class Failing(TalkativeLock):
        fails = True

        def unlock(self) -> None:
            if self.fails:
                gort.gosched()
                raise ZeroDivisionError
            super().unlock()

    lock = Failing()
    c = Cond(lock)

    def body() -> None:
        lock.lock()
        c.wait()
        lock.unlock()

    g = gort.go(body)  # runs as soon as the first one's unlock() lets it
    lock.lock()
    with pytest.raises(ZeroDivisionError):
        c.wait()
    lock.fails = False
    lock.unlock()
    settle(g)
    assert g.wait_reason == "sync.Cond.Wait"
    c.signal()
    g.join()

    lock.fails = True
    signaller = gort.go(c.signal)  # of a wait that fails: it is handed on to the next one
    lock.lock()
    with pytest.raises(ZeroDivisionError):
        c.wait()
    signaller.join()
    lock.fails = False
    lock.unlock()


# ---- pool_test.go ----------------------------------------------------------------------------


def test_a_pool_gives_back_all_that_was_put_and_then_none() -> None:
    """TestPool; which comes first is nobody's business."""
    p: Pool[Any] = Pool()
    assert p.get() is None
    p.put("a")
    p.put("b")
    assert {p.get(), p.get()} == {"a", "b"}
    assert p.get() is None
    for _ in range(100):
        p.put("c")
    assert [p.get() for _ in range(101)] == ["c"] * 100 + [None]


def test_a_pool_asks_new_only_if_it_is_empty() -> None:
    """TestPoolNew."""
    made = Int64()
    p = Pool(lambda: made.add(1))
    assert [p.get(), p.get()] == [1, 2]
    p.put(42)
    assert [p.get(), p.get()] == [42, 3]


class Value:
    pass


@pytest.mark.parametrize("drain", [True, False])
def test_a_pool_keeps_nothing_that_was_got_or_with_it(drain: bool) -> None:
    """TestPoolGC, TestPoolRelease."""
    p: Pool[Any] = Pool()
    refs = []
    for _ in range(100):
        v = Value()
        refs.append(weakref.ref(v))
        p.put(v)
        del v
    if drain:
        for _ in range(100):
            p.get()
        assert p.get() is None
    else:
        del p
    gc.collect()
    assert [r() for r in refs if r() is not None] == []


def test_a_pool_keeps_a_bounded_number() -> None:
    """TestPoolRelease: what is in a pool does not pile up for ever."""
    p: Pool[Any] = Pool()
    n = 4 * Pool.MAX  # type: ignore[attr-defined, unused-ignore]
    for i in range(1, n + 1):
        p.put(i)
    kept = 0
    while p.get() is not None:
        kept += 1
    assert 0 < kept < n


@starts
def test_pool_stress(start: Start) -> None:
    """TestPoolStress; and no value is with two at once."""
    p: Pool[list[int]] = Pool(lambda: [0])
    rounds = scaled(300)

    def body() -> None:
        for i in range(rounds):
            v = p.get()
            v[0] += 1
            assert v == [1]
            if i % 8 == 0:
                gort.gosched()
            v[0] -= 1
            p.put(v)

    join_all([start(body) for _ in range(10)])


# ---- map_test.go ------------------------------------------------------------------------------


class MutexMap:
    """Go's reference map: a dict behind a lock, in the plainest words."""

    def __init__(self) -> None:
        self.d: dict[Any, Any] = {}

    def load(self, k: Any) -> tuple[Any, bool]:
        return self.d.get(k), k in self.d

    def store(self, k: Any, v: Any) -> None:
        self.d[k] = v

    def load_or_store(self, k: Any, v: Any) -> tuple[Any, bool]:
        loaded = k in self.d
        return self.d.setdefault(k, v), loaded

    def load_and_delete(self, k: Any) -> tuple[Any, bool]:
        loaded = k in self.d
        return self.d.pop(k, None), loaded

    def delete(self, k: Any) -> None:
        self.d.pop(k, None)

    def swap(self, k: Any, v: Any) -> tuple[Any, bool]:
        before = self.load(k)
        self.d[k] = v
        return before

    def compare_and_swap(self, k: Any, old: Any, new: Any) -> bool:
        same = k in self.d and bool(self.d[k] == old)
        if same:
            self.d[k] = new
        return same

    def compare_and_delete(self, k: Any, old: Any) -> bool:
        same = k in self.d and bool(self.d[k] == old)
        if same:
            del self.d[k]
        return same

    def clear(self) -> None:
        self.d.clear()

    def range(self, fn: Callable[[Any, Any], bool]) -> None:
        for k, v in list(self.d.items()):
            if not fn(k, v):
                return


KEYS = st.one_of(st.integers(0, 3), st.none(), st.sampled_from(["", "a", (), (1, 2)]))
VALUES = st.one_of(st.integers(0, 2), st.none())
CALLS = st.one_of(
    st.tuples(st.sampled_from(["load", "load_and_delete", "delete"]), KEYS),
    st.tuples(st.sampled_from(["store", "load_or_store", "swap", "compare_and_delete"]), KEYS, VALUES),
    st.tuples(st.just("compare_and_swap"), KEYS, VALUES, VALUES),
    st.tuples(st.just("clear")),
)


@given(st.lists(CALLS, max_size=30))
def test_a_map_does_what_a_locked_dict_does(calls: list[tuple[Any, ...]]) -> None:
    """TestMapMatchesRWMutex, TestMapMatchesDeepCopy, TestMapMatchesHashTrieMap."""
    m: Map[Any, Any] = Map()
    ref = MutexMap()
    for name, *args in calls:
        assert getattr(m, name)(*args) == getattr(ref, name)(*args), (name, args)
    final: list[tuple[Any, Any]] = []
    m.range(lambda k, v: final.append((k, v)) is None)
    assert dict(final) == ref.d
    assert len(final) == len(ref.d)


@starts
def test_range_beside_stores_sees_each_key_once(start: Start) -> None:
    """TestConcurrentRange."""
    size, done = 64, Bool()
    m: Map[int, int] = Map()
    for n in range(1, size + 1):
        m.store(n, n)

    def writer(g: int) -> None:
        i = 0
        while not done.load():
            i += 1
            for n in range(1, size):
                if (n * i + g) % 7 == 0:
                    m.store(n, n * i * g)
                else:
                    m.load(n)
            gort.gosched()

    workers = [start(writer, g) for g in (1, 2)]
    for _ in range(scaled(30)):
        seen: set[int] = set()

        def visit(k: int, v: int, seen: set[int] = seen) -> bool:
            assert v % k == 0
            assert k not in seen
            seen.add(k)
            if k % 16 == 0:
                gort.gosched()
            return True

        m.range(visit)
        assert len(seen) == size
    done.store(True)
    join_all(workers)


def test_deleted_keys_are_let_go() -> None:
    """TestIssue40999."""
    m: Map[Any, Any] = Map()
    m.store(None, ())
    refs = []
    for _ in range(10):
        p = Value()
        refs.append(weakref.ref(p))
        m.store(p, ())
        m.delete(p)
        del p
    gc.collect()
    assert [r() for r in refs] == [None] * 10


def test_range_within_range() -> None:
    """TestMapRangeNestedCall."""
    m: Map[int, str] = Map()
    for i, v in enumerate(["hello", "world", "Go"]):
        m.store(i, v)

    def inner(k: int, v: str) -> bool:
        assert m.load(k) == (v, True)
        assert m.load_or_store(42, "dummy") == ("dummy", False)
        m.store(42, "sync.Map")
        assert m.load_and_delete(42) == ("sync.Map", True)
        return True

    def outer(k: int, v: str) -> bool:
        m.range(inner)
        m.delete(k)
        return True

    m.range(outer)
    left: list[int] = []
    m.range(lambda k, v: left.append(k) is None)
    assert left == []


@starts
def test_clear_beside_stores_and_loads(start: Start) -> None:
    """TestConcurrentClear: a load sees the value that belongs to its key, or none."""
    m: Map[int, int] = Map()

    def load(k: int) -> None:
        for _ in range(10):
            assert m.load(k) in ((k * 10, True), (None, False))
            gort.gosched()

    def clear() -> None:
        for _ in range(10):
            m.clear()
            gort.gosched()

    def store(k: int) -> None:
        for _ in range(10):
            m.store(k, k * 10)
            gort.gosched()

    workers = [start(f, k) for k in range(10) for f in (store, load)] + [start(clear) for _ in range(10)]
    join_all(workers)
    m.clear()
    m.range(lambda k, v: pytest.fail(f"{k}: {v} after clear"))


def test_a_key_whose_comparison_clears_the_map() -> None:
    """clear() freed the dict under a lookup that was running the key's __eq__: a segfault."""
    out = output_of(
        """
        from gort.sync import Map

        m, junk, clears = Map(), [], False

        class Key:
            def __hash__(self):
                return 1
            def __eq__(self, other):
                global clears
                if clears:
                    clears = False
                    m.clear()
                    junk.extend({j: j for j in range(10)} for _ in range(20))
                return False

        def fill():
            for i in range(3):
                m.store(Key(), i)

        def visit(k, v):
            global clears
            clears = True
            return True

        for _ in range(50):
            fill()
            clears = True
            assert m.load(Key()) == (None, False)
            fill()
            m.range(visit)
            clears = False
            m.clear()
        print("ok")
        """,
        PYTHONMALLOC="debug",
    )
    assert out == "ok\n"


def test_a_value_whose_finaliser_uses_the_map_may_be_cleared() -> None:
    """clear() let go of the values while it held the map's lock, which the finaliser then waited for."""
    m: Map[Any, Any] = Map()

    class Registered:
        def __del__(self) -> None:
            m.store("gone", m.load(1))

    m.store(0, Registered())
    m.store(1, 1)
    m.clear()
    assert m.load("gone") == ((None, False), True)


# ---- waits that end with what they were for --------------------------------------------------


def test_a_goroutine_killed_in_once_do_of_another_leaves_it_to_the_first() -> None:
    """Go has no kill; who waits in do() and is killed neither runs the function nor ends it."""
    once, gate, ran = Once(), gort.Chan[None](), []

    def fn() -> None:
        gate.recv()
        ran.append(1)

    first = park(once.do, fn)
    second = park(once.do, fn)
    second.kill()
    second.join()
    assert ran == []
    gate.send(None)
    first.join()
    spin_until(lambda: ran)
    once.do(fn)
    assert ran == [1]
