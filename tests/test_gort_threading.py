"""gort.threading without any patch: the standard library's classes on locks that park, threads that are goroutines."""

from __future__ import annotations

import threading as stock
import time
from collections.abc import Callable
from typing import Any

import pytest
from model_support import PlainThread, finish, from_goroutine, from_main, from_thread, output_of, park, settle

import gort
from gort import threading

everywhere = pytest.mark.parametrize("where", [from_main, from_goroutine, from_thread])
Where = Callable[[Callable[[], Any]], Any]


def test_the_names_of_the_standard_module() -> None:
    missing = [n for n in stock.__all__ if not hasattr(threading, n)]
    assert missing == []
    assert set(threading.__all__) <= {*stock.__all__, "RLock"}
    assert threading.current_thread is stock.current_thread
    assert threading.get_ident is stock.get_ident
    assert threading.local is stock.local


@pytest.mark.parametrize("name", ["Thread", "Timer", "Condition", "Event", "Semaphore", "BoundedSemaphore", "Barrier"])
def test_its_classes_derive_from_the_standard_ones(name: str) -> None:
    ours, theirs = getattr(threading, name), getattr(stock, name)
    assert issubclass(ours, theirs) and ours is not theirs
    assert (ours.__name__, ours.__module__) == (name, "gort.threading")
    assert issubclass(threading.Timer, threading.Thread)
    assert issubclass(threading.BoundedSemaphore, threading.Semaphore)


def test_nothing_of_threading_is_changed() -> None:
    source = """
    import threading, _thread, queue, subprocess, time, os
    before = {m: dict(vars(m)) for m in (threading, queue, subprocess, time, os)}
    import gort
    imported = {m: dict(vars(m)) for m in before}
    import gort.threading, gort.queue, gort.subprocess, gort.monkey
    for m, names in imported.items():
        print(m.__name__, [n for n in names if vars(m).get(n) is not names[n]])
    lock = threading.Lock(); lock.acquire()
    print(gort.go(lock.acquire, timeout=0.01).join())
    seen = []
    t = threading.Thread(target=lambda: seen.append(gort.current()))
    t.start(); t.join()
    print(seen)
    """
    changed = output_of(source).splitlines()
    assert changed[0] in ("threading []", "threading ['_thread_shutdown']")
    assert changed[1:] == ["queue []", "subprocess []", "time []", "os []", "False", "[None]"]


# ---- Lock ------------------------------------------------------------------------------------


@everywhere
def test_a_lock(where: Where) -> None:
    def body() -> None:
        lock = threading.Lock()
        assert lock.acquire() is True and lock.locked()
        assert lock.acquire(False) is False
        assert lock.acquire(timeout=0.001) is False
        assert lock.acquire(timeout=0) is False
        assert "locked" in repr(lock)
        lock.release()
        assert not lock.locked()
        with lock as got:
            assert got is True and lock.locked()
        with pytest.raises(RuntimeError, match="release unlocked lock"):
            lock.release()

    where(body)


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ((False, 1), ValueError),
        ((True, -2), ValueError),
        ((True, threading.TIMEOUT_MAX * 2), OverflowError),
        ((True, "x"), TypeError),
    ],
)
def test_a_lock_refuses_what_the_standard_one_refuses(args: Any, error: Any) -> None:
    for lock in threading.Lock(), stock.Lock():
        with pytest.raises(error):
            lock.acquire(*args)
        assert not lock.locked()


def test_who_waits_for_a_lock_parks_and_is_served_in_turn() -> None:
    lock, order = threading.Lock(), []

    def want(i: int) -> None:
        with lock:
            order.append(i)

    lock.acquire()
    gs = [park(want, i) for i in range(5)]
    assert {g.wait_reason for g in gs} == {"sync.Mutex.Lock"}
    lock.release()
    for g in gs:
        g.join()
    assert order == list(range(5))


def test_a_killed_waiter_leaves_the_lock_alone() -> None:
    lock = threading.Lock()
    lock.acquire()
    first, second = park(lock.acquire), park(lock.acquire)
    first.kill()
    first.join()
    lock.release()
    assert second.join() is True
    assert lock.locked()


def test_goroutines_and_plain_threads_exclude_each_other() -> None:
    lock, n = threading.Lock(), 0

    def work() -> None:
        nonlocal n
        for _ in range(200):
            with lock:
                before = n
                gort.sleep(0)
                n = before + 1

    threads = [PlainThread(work) for _ in range(3)]
    gs = [gort.go(work) for _ in range(3)]
    for g in gs:
        g.join()
    for t in threads:
        t.result()
    assert n == 1200


# ---- what is made of locks ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "wait", "wake"),
    [
        (threading.Event, lambda e: e.wait(), lambda e: e.set()),
        (lambda: threading.Semaphore(0), lambda s: s.acquire(), lambda s: s.release()),
        (lambda: threading.BoundedSemaphore(1), lambda s: s.acquire() and s.acquire(), lambda s: s.release()),
        (lambda: threading.Barrier(2), lambda b: b.wait() in (0, 1), lambda b: b.wait()),
    ],
)
def test_each_parks_and_is_woken(make: Any, wait: Any, wake: Any) -> None:
    thing = make()
    g = park(wait, thing)
    assert g.state == "waiting"
    wake(thing)
    assert g.join() is True


def test_a_condition_parks_and_is_woken() -> None:
    cond, got = threading.Condition(), []

    def consume() -> None:
        with cond:
            got.append(cond.wait_for(lambda: items, timeout=60) and items.pop())

    items: list[int] = []
    gs = [park(consume) for _ in range(3)]
    with cond:
        items.extend([1, 2, 3])
        cond.notify_all()
    for g in gs:
        g.join()
    assert sorted(got) == [1, 2, 3]
    with cond:
        assert cond.wait(0.001) is False
    with pytest.raises(RuntimeError):
        cond.notify()


def test_a_broken_barrier() -> None:
    barrier = threading.Barrier(3)
    g = park(barrier.wait)
    barrier.abort()
    with pytest.raises(stock.BrokenBarrierError):
        g.join()
    assert barrier.broken


def test_a_bounded_semaphore_is_bounded() -> None:
    with pytest.raises(ValueError, match="released too many"):
        threading.BoundedSemaphore(1).release()


# ---- Thread ---------------------------------------------------------------------------------------


@everywhere
def test_a_thread_is_a_goroutine(where: Where) -> None:
    def body() -> None:
        def work(a: int, *, b: int) -> None:
            me = threading.current_thread()
            seen.append((gort.current(), me, me.ident == threading.get_ident(), me.is_alive(), a + b))

        seen: list[Any] = []
        t = threading.Thread(target=work, args=(1,), kwargs={"b": 2}, name="worker", daemon=True)
        assert not t.is_alive() and t.ident is None
        t.start()
        t.join()
        assert not t.is_alive()
        [(g, me, same, alive, total)] = seen
        assert isinstance(g, gort.Goroutine) and g is not gort.current()
        assert (me, same, alive, total) == (t, True, True, 3)
        assert t not in threading.enumerate()
        assert isinstance(t, stock.Thread)

    where(body)


def test_join_waits_no_longer_than_it_is_told() -> None:
    gate = threading.Event()
    t = threading.Thread(target=gate.wait)
    t.start()
    t.join(0)
    t.join(-1)
    t.join(0.001)
    assert t.is_alive() and t in threading.enumerate()
    joiners = [park(t.join) for _ in range(3)]
    gate.set()
    for g in joiners:
        g.join()
    assert not t.is_alive()
    t.join()


def test_misuse_of_a_thread() -> None:
    t = threading.Thread(target=lambda: errors.append(str(pytest.raises(RuntimeError, t.join).value)))
    errors: list[str] = []
    with pytest.raises(RuntimeError, match="before it is started"):
        t.join()
    t.start()
    t.join()
    assert errors == ["cannot join current thread"]
    with pytest.raises(RuntimeError, match="only be started once"):
        t.start()
    with pytest.raises(RuntimeError, match="active thread"):
        t.daemon = True


def test_a_subclass_with_a_run_of_its_own() -> None:
    class Mine(threading.Thread):
        result = 0

        def run(self) -> None:
            gort.sleep(0)
            self.result = 42

    t = Mine()
    t.start()
    t.join()
    assert t.result == 42


def test_an_exception_goes_to_the_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(stock, "excepthook", lambda args: seen.append((args.exc_type, args.thread)))
    t = threading.Thread(target=lambda: 1 / 0)
    t.start()
    t.join()
    assert seen == [(ZeroDivisionError, t)]


def test_goexit_and_kill_end_a_thread_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(stock, "excepthook", seen.append)
    t = threading.Thread(target=gort.goexit)
    t.start()
    t.join()
    handles: list[Any] = []
    t = threading.Thread(target=lambda: (handles.append(gort.current()), threading.Event().wait()))
    t.start()
    settle(*handles)
    handles[0].kill()
    t.join()
    assert seen == []


def test_a_goroutine_has_the_name_of_its_thread() -> None:
    gate = threading.Event()
    seen: list[Any] = []

    def work() -> None:
        seen.append(gort.current())
        gate.wait()

    t = threading.Thread(target=work, name="worker 7")
    t.start()
    assert seen[0].name == "worker 7"
    assert "threading.py" in gort.stack(all=True)
    gate.set()
    t.join()
    assert seen[0].name == "worker 7"


def test_a_timer() -> None:
    done = threading.Event()
    t, never = threading.Timer(0.001, done.set), threading.Timer(3600, done.clear)
    t.start()
    never.start()
    never.cancel()
    assert done.wait(60)
    t.join()
    never.join()
    assert done.is_set()


def test_locals_are_each_threads_own() -> None:
    local, ok = threading.local(), []

    def work(i: int) -> None:
        local.x = i
        gort.sleep(0)
        ok.append(local.x == i)

    ts = [threading.Thread(target=work, args=(i,)) for i in range(10)]
    for t in ts:
        t.start()
    for t in ts:
        t.join()
    assert ok == [True] * 10 and not hasattr(local, "x")


def test_what_a_thread_keeps_goes_with_it() -> None:
    import gc
    import weakref

    class Thing:
        pass

    def work(x: Thing) -> None:
        local.x = x

    local, thing = threading.local(), Thing()
    ref = weakref.ref(thing)
    t = threading.Thread(target=work, args=(thing,))
    t.start()
    t.join()
    del thing
    gc.collect()
    assert ref() is None
    ref2 = weakref.ref(t)
    del t
    gc.collect()
    assert ref2() is None


def test_the_end_of_the_program_waits_for_threads_but_not_for_daemons() -> None:
    source = """
    import gort
    from gort import threading
    def work(s, text):
        gort.sleep(s)
        print(text)
    threading.Thread(target=work, args=(0.05, "thread")).start()
    threading.Thread(target=work, args=(3600, "never"), daemon=True).start()
    print("main")
    """
    assert output_of(source) == "main\nthread\n"


def test_a_pool_of_the_standard_library_beside_it_at_the_end() -> None:
    source = """
    import concurrent.futures, gort
    from gort import threading
    pool = concurrent.futures.ThreadPoolExecutor(2)
    t = threading.Thread(target=lambda: print(pool.submit(int, "3").result()))
    t.start(); t.join()
    threading.Thread(target=lambda: (gort.sleep(0.02), print("end"))).start()
    """
    assert output_of(source) == "3\nend\n"


def test_fork_in_such_a_thread() -> None:
    source = """
    import os
    from gort import threading
    def work():
        pid = os.fork()
        if pid == 0:
            t = threading.Thread(target=print, args=("child's thread",), kwargs={"flush": True})
            t.start(); t.join()
            main = threading.current_thread() is threading.main_thread()
            print(main, other.is_alive(), threading.active_count(), flush=True)
            os._exit(3)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    gate = threading.Event()
    other = threading.Thread(target=gate.wait)
    other.start()
    t = threading.Thread(target=work)
    t.start(); t.join()
    gate.set()
    other.join()
    """
    assert output_of(source) == "child's thread\nTrue False 1\n3\n"


def test_the_standard_thread_beside_it_stays_a_thread() -> None:
    seen: list[Any] = []
    t = stock.Thread(target=lambda: seen.append((gort.current(), threading.current_thread())))
    t.start()
    gort.blocking(t.join)
    assert seen == [(None, t)]


def test_goroutines_have_numbers_of_their_own() -> None:
    idents = [gort.go(threading.get_ident).join() for _ in range(5)]
    assert len(set(idents)) == 5
    g = gort.go(lambda: (threading.get_ident(), gort.current().id))  # type: ignore[union-attr]
    a, b = g.join()
    assert a == b
    assert threading.get_ident() == stock.main_thread().ident


def test_current_thread_in_a_goroutine_leaves_nothing_behind() -> None:
    def body() -> bool:
        me = threading.current_thread()
        gort.sleep(0)
        return me is threading.current_thread() and isinstance(me, stock._DummyThread)

    before = len(stock._active)  # type: ignore[attr-defined]
    assert all(g.join() for g in [gort.go(body) for _ in range(20)])
    assert len(stock._active) == before  # type: ignore[attr-defined]


def test_a_thread_made_in_a_goroutine_is_no_daemon() -> None:
    for module in stock, threading:
        make: Any = module.Thread
        assert gort.go(lambda make=make: make().daemon).join() is False
        assert gort.go(lambda make=make: make(daemon=True).daemon).join() is True
    seen: list[Any] = []
    t = threading.Thread(target=lambda: seen.append(stock.Thread().daemon), daemon=True)
    t.start()
    t.join()
    assert seen == [True]


def test_many_threads_in_little_time() -> None:
    gate, ready = threading.Event(), threading.Semaphore(0)

    def work() -> None:
        ready.release()
        gate.wait()

    ts = [threading.Thread(target=work) for _ in range(1000)]
    for t in ts:
        t.start()
    for _ in ts:
        ready.acquire()
    gate.set()
    for t in ts:
        t.join()
    settle()
    assert time.monotonic() > 0 and not any(t.is_alive() for t in ts)
    finish()
