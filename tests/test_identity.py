"""What the standard library ties to threads, in goroutines: locks, imports, buffers, logs, names.

Each test runs in a goroutine and in a plain thread, which start more goroutines; those that block in C keep
an OS thread each. That state which is the thread's to CPython is each goroutine's own is in
test_own_state.py, and `threading.RLock` in test_rlock.py.
"""

from __future__ import annotations

import functools
import importlib
import io
import logging
import os
import queue
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from model_support import PlainThread, from_goroutine, from_thread, settle

import gort
import gort.sync

Where = Callable[[Callable[[], Any]], Any]
aside = pytest.mark.parametrize(
    "where", [pytest.param(from_goroutine, id="goroutine"), pytest.param(from_thread, id="thread")]
)


def all_of(n: int, fn: Callable[[int], Any]) -> list[Any]:
    """`fn(i)` in n goroutines and, every third, in a plain thread; their results."""
    started: list[Any] = [PlainThread(fn, i) if i % 3 == 2 else gort.go(fn, i) for i in range(n)]
    return [s.result() if isinstance(s, PlainThread) else s.join() for s in started]


# ---- threading's locks ----------------------------------------------------------------


@aside
@pytest.mark.parametrize("pause", [gort.gosched, lambda: gort.sleep(0.0001), lambda: time.sleep(0.0001)])
def test_a_lock_excludes(where: Where, pause: Callable[[], None]) -> None:
    lock, inside, count = threading.Lock(), [], 0

    def work(i: int) -> None:
        nonlocal count
        for _ in range(10):
            with lock:
                inside.append(i)
                before = count
                pause()
                assert inside == [i]
                inside.clear()
                count = before + 1

    where(lambda: all_of(9, work))
    assert count == 90


@aside
def test_who_wants_a_held_lock_stalls_nobody_else(where: Where) -> None:
    lock = threading.Lock()

    def body() -> None:
        lock.acquire()
        wanted: gort.Chan[None] = gort.Chan()

        def want() -> bool:
            wanted.close()
            return lock.acquire()

        g = gort.go(want)
        wanted.recv_ok()
        for _ in range(10):
            assert gort.go(lambda: "meanwhile").join() == "meanwhile"
        assert not g.done
        assert not lock.acquire(timeout=0.001)
        gort.go(lock.release).join()  # a Lock has no owner
        assert g.join() is True
        lock.release()

    where(body)


@aside
def test_a_condition_hands_items_over(where: Where) -> None:
    cond, items, got = threading.Condition(), [], []

    def consume() -> None:
        for _ in range(10):
            with cond:
                assert cond.wait_for(lambda: items, timeout=60)
                got.append(items.pop())

    def produce(start: int) -> None:
        for i in range(start, start + 10):
            with cond:
                items.append(i)
                gort.gosched()
                cond.notify()
            gort.sleep(0)

    where(lambda: all_of(8, lambda i: produce(100 * i) if i % 2 else consume()))
    assert sorted(got) == [100 * i + k for i in (1, 3, 5, 7) for k in range(10)]


def test_condition_waits_time_out_and_refuse_who_does_not_hold_it() -> None:
    cond = threading.Condition()

    def body() -> None:
        with cond:
            assert cond.wait(0.001) is False
            with pytest.raises(RuntimeError):
                gort.go(cond.wait, 0).join()
            with pytest.raises(RuntimeError):
                gort.go(cond.notify).join()

    from_goroutine(body)


@aside
def test_an_event_wakes_all(where: Where) -> None:
    event = threading.Event()

    def work(i: int) -> bool:
        if i == 4:
            gort.sleep(0.001)
            event.set()
        return event.wait(60)

    assert where(lambda: all_of(9, work)) == [True] * 9
    assert gort.go(threading.Event().wait, 0.001).join() is False


@aside
def test_a_semaphore_lets_so_many_in(where: Where) -> None:
    sem, inside, most = threading.BoundedSemaphore(3), 0, 0

    def work(_: int) -> None:
        nonlocal inside, most
        for _ in range(5):
            with sem:
                inside += 1
                most = max(most, inside)
                gort.gosched()
                inside -= 1

    where(lambda: all_of(9, work))
    assert 1 <= most <= 3
    assert inside == 0
    with pytest.raises(ValueError, match="released too many"):
        sem.release()


@aside
def test_a_barrier_is_passed_by_all_or_broken(where: Where) -> None:
    barrier = threading.Barrier(6)

    def work(_: int) -> list[int]:
        return [barrier.wait(60) for _ in range(4)]

    rounds = where(lambda: all_of(6, work))
    for places in zip(*rounds, strict=True):
        assert sorted(places) == [0, 1, 2, 3, 4, 5]

    def alone(i: int) -> None:
        with pytest.raises(threading.BrokenBarrierError):
            barrier.wait(0.001 if i == 0 else 60)

    where(lambda: all_of(3, alone))


@aside
@pytest.mark.parametrize(
    "kind", [queue.Queue, queue.LifoQueue, queue.PriorityQueue, queue.SimpleQueue], ids=lambda kind: kind.__name__
)
@pytest.mark.parametrize("size", [0, 2])
def test_a_queue_loses_nothing(where: Where, kind: Any, size: int) -> None:
    if kind is queue.SimpleQueue and size:
        pytest.skip("a SimpleQueue has no size")
    q: Any = kind() if kind is queue.SimpleQueue else kind(size)

    def work(i: int) -> list[int]:
        if i < 4:
            for k in range(20):
                q.put(100 * i + k)
                if k % 5 == 0:
                    gort.sleep(0)
            return []
        got = []
        for _ in range(20):
            got.append(q.get(timeout=60))
            if kind is not queue.SimpleQueue:
                q.task_done()
        return got

    parts = where(lambda: all_of(8, work))
    assert sorted(v for part in parts for v in part) == [100 * i + k for i in range(4) for k in range(20)]
    if kind is not queue.SimpleQueue:
        gort.go(q.join).join()
    with pytest.raises(queue.Empty):
        gort.go(q.get, timeout=0.001).join()


def test_a_thread_started_and_joined_by_a_goroutine() -> None:
    ch = gort.Chan[int]()

    def body() -> int:
        threads = [threading.Thread(target=ch.send, args=(i,)) for i in range(5)]
        for t in threads:
            t.start()
        total = sum(ch.recv() for _ in threads)
        for t in threads:
            t.join(60)
            assert not t.is_alive()
        return total

    assert sum(g.join() for g in [gort.go(body) for _ in range(4)]) == 40


# ---- imports ----------------------------------------------------------------------------


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Writes modules that can be imported, and forgets them again."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(**sources: str) -> None:
        for name, source in sources.items():
            (tmp_path / f"{name}.py").write_text(source)
        importlib.invalidate_caches()

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("gort_test_"):
            del sys.modules[name]


PAUSES = ["gort.sleep(0.002)", "time.sleep(0.002)", "gort.blocking(time.sleep, 0.002)", "gort.gosched()"]


@aside
@pytest.mark.parametrize("pause", PAUSES)
def test_a_slow_module_is_imported_once_and_whole(where: Where, pause: str, modules: Any) -> None:
    modules(gort_test_slow=f"import time, gort\nrun = []\n{pause}\nrun.append(1)\n{pause}\nlast = 'whole'\n")

    def work(i: int) -> Any:
        if i % 2:
            import gort_test_slow as module  # type: ignore[import-not-found]

            return module, module.last
        module = importlib.import_module("gort_test_slow")
        return module, module.last

    found = where(lambda: all_of(9, work))
    assert {last for _, last in found} == {"whole"}
    assert len({id(module) for module, _ in found}) == 1
    assert found[0][0].run == [1]


@aside
@pytest.mark.parametrize("pause", PAUSES)
def test_circular_imports_from_both_ends_at_once_do_not_deadlock(where: Where, pause: str, modules: Any) -> None:
    modules(
        gort_test_a=f"import time, gort\n{pause}\nimport gort_test_b\n{pause}\nlast = 'a'\n",
        gort_test_b=f"import time, gort\n{pause}\nimport gort_test_c\n{pause}\nlast = 'b'\n",
        gort_test_c=f"import time, gort\n{pause}\nimport gort_test_a\n{pause}\nlast = 'c'\n",
    )
    names = ["gort_test_a", "gort_test_b", "gort_test_c"]
    where(lambda: all_of(9, lambda i: importlib.import_module(names[i % 3])))
    assert [sys.modules[name].last for name in names] == ["a", "b", "c"]


@aside
def test_the_import_lock_is_one_for_importlib_and_who_takes_it_by_hand(where: Where, modules: Any) -> None:
    """As CPython's own: finders are called under it, and whoever holds it keeps others from looking for modules."""
    import _imp

    held = []

    class Finder:
        def find_spec(self, name: str, path: Any, target: Any = None) -> None:
            if name == "gort_test_found":
                held.append((name, _imp.lock_held()))

    modules(gort_test_found="last = 'whole'\n")
    finder = Finder()
    sys.meta_path.insert(0, finder)  # type: ignore[arg-type]
    try:
        _imp.acquire_lock()
        g = gort.go(where, lambda: importlib.import_module("gort_test_found"))
        for _ in range(10):
            gort.sleep(0.001)
        held.append(("", _imp.lock_held()))
        _imp.release_lock()
        assert g.join().last == "whole"
    finally:
        sys.meta_path.remove(finder)  # type: ignore[arg-type]
    assert held == [("", True), ("gort_test_found", True)]
    assert not _imp.lock_held()


@aside
def test_a_module_that_fails_fails_for_all_and_can_be_tried_again(where: Where, modules: Any) -> None:
    modules(gort_test_bad="import gort\ngort.sleep(0.001)\nraise LookupError('not today')\n")

    def work(_: int) -> None:
        with pytest.raises(LookupError, match="not today"):
            importlib.import_module("gort_test_bad")

    where(lambda: all_of(6, work))
    assert "gort_test_bad" not in sys.modules
    modules(gort_test_bad="last = 'whole, now that it does'\n")
    assert importlib.import_module("gort_test_bad").last.startswith("whole")


def test_a_goroutine_killed_while_it_imports_lets_the_others_try(modules: Any) -> None:
    modules(gort_test_held="import builtins\nbuiltins.gort_test_gate()\nlast = 'whole'\n")
    gate: gort.Chan[int] = gort.Chan()
    import builtins

    attempts: list[int] = []

    def wait_in_the_first_attempt() -> None:
        attempts.append(1)
        if len(attempts) == 1:
            gate.recv()

    builtins.gort_test_gate = wait_in_the_first_attempt  # type: ignore[attr-defined]
    try:

        def body() -> None:
            first = gort.go(importlib.import_module, "gort_test_held")
            settle(first)
            second = gort.go(importlib.import_module, "gort_test_held")
            gort.gosched()  # and so it waits for the first, or will
            first.kill()
            assert first.join() is None
            assert second.join().last == "whole"

        from_goroutine(body)
    finally:
        del builtins.gort_test_gate


# ---- files --------------------------------------------------------------------------------


@aside
def test_lines_written_by_many_arrive_whole(where: Where, tmp_path: Path) -> None:
    read, write = os.pipe()
    lines: list[bytes] = []

    def drain() -> None:
        with open(read, "rb") as f:
            lines.extend(f)

    reader = PlainThread(drain)
    with open(write, "wb", buffering=256) as f:

        def work(i: int) -> None:
            for k in range(50):
                f.write(b"%d %d %s\n" % (i, k, b"x" * 200))
                if k % 10 == 0:
                    f.flush()
                    gort.gosched()

        where(lambda: all_of(9, work))
    reader.result()
    assert len(lines) == 450
    for i in range(9):
        assert [line for line in lines if line.startswith(b"%d " % i)] == [
            b"%d %d %s\n" % (i, k, b"x" * 200) for k in range(50)
        ]


@aside
def test_a_buffered_reader_gives_each_byte_once(where: Where) -> None:
    read, write = os.pipe()
    data = bytes(range(256)) * 64

    def feed() -> None:
        with open(write, "wb", buffering=0) as out:
            for i in range(0, len(data), 100):
                out.write(data[i : i + 100])

    with open(read, "rb", buffering=128) as f:

        def work(_: int) -> int:
            n = 0
            while chunk := f.read(48):
                n += sum(chunk)
                gort.gosched()
            return n

        feeder = PlainThread(feed)
        assert sum(where(lambda: all_of(6, work))) == sum(data)
        feeder.result()


def test_a_buffer_over_a_raw_file_that_parks_is_never_shared() -> None:
    """CPython knows the owner of a buffer's lock by the OS thread: there others are refused, elsewhere they wait."""

    class Slow(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            gate.recv_ok()
            got.append(bytes(data))
            return len(data)

    def second() -> int | str:
        try:
            return f.write(b"y" * 100)
        except RuntimeError as e:
            return str(e)

    got: list[bytes] = []
    gate: gort.Chan[None] = gort.Chan()
    f = io.BufferedWriter(Slow(), 16)
    first = gort.go(f.write, b"x" * 100)
    settle(first)
    other = gort.go(second)
    for _ in range(100):
        gort.gosched()
    gate.close()
    assert first.join() == 100
    answer = other.join()
    f.close()
    written = b"".join(got)
    if answer == 100:
        assert written == b"x" * 100 + b"y" * 100
    else:
        assert isinstance(answer, str) and "reentrant call" in answer
        assert written == b"x" * 100


# ---- logging --------------------------------------------------------------------------------


@aside
def test_records_of_many_goroutines_and_threads_are_lines_of_their_own(where: Where, tmp_path: Path) -> None:
    logger = logging.getLogger("gort.test_identity")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    handler = logging.FileHandler(tmp_path / "log")
    handler.setFormatter(logging.Formatter("%(message)s|%(funcName)s"))
    logger.addHandler(handler)

    def work(i: int) -> None:
        for k in range(20):
            logger.info("%d %d", i, k)
            if k % 5 == 0:
                gort.blocking(time.sleep, 0)  # and so on another OS thread
            logging.getLogger(f"gort.test_identity.{i}.{k}").info("child %d %d", i, k)
            gort.gosched()

    try:
        where(lambda: all_of(9, work))
    finally:
        logger.removeHandler(handler)
        handler.close()
    lines = (tmp_path / "log").read_text().splitlines()
    wanted = [f"{what}{i} {k}|work" for what in ("", "child ") for i in range(9) for k in range(20)]
    assert sorted(lines) == sorted(wanted)


def test_a_handler_that_logs_and_parks_neither_deadlocks_nor_lets_others_in() -> None:
    inner, busy, seen = logging.getLogger("gort.test_inner"), [], []
    inner.propagate = False
    inner.addHandler(logging.NullHandler())

    class Chatty(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            assert not busy
            busy.append(1)
            gort.sleep(0)
            inner.warning("about to write")
            if record.args:
                logger.warning("again")  # the same handler's lock once more, which its owner may
            seen.append(record.getMessage())
            busy.clear()

        def handle(self, record: logging.LogRecord) -> bool:
            with self.lock:  # type: ignore[union-attr]
                if busy:
                    seen.append(record.getMessage())
                else:
                    self.emit(record)
            return True

    logger = logging.getLogger("gort.test_outer")
    logger.propagate = False
    handler = Chatty()
    logger.addHandler(handler)
    try:
        for g in [gort.go(logger.warning, "%d", i) for i in range(20)]:
            g.join()
    finally:
        logger.removeHandler(handler)
    assert sorted(seen) == sorted([str(i) for i in range(20)] + ["again"] * 20)


# ---- caches -----------------------------------------------------------------------------------


@aside
def test_cached_properties_and_lru_caches_of_many(where: Where) -> None:
    class Thing:
        @functools.cached_property
        def value(self) -> object:
            gort.sleep(0.001)
            return object()

    calls = []

    @functools.lru_cache(maxsize=8)
    def square(n: int) -> int:
        calls.append(n)
        gort.sleep(0)
        return n * n

    thing = Thing()

    def work(i: int) -> list[int]:
        assert thing.value is not None
        return [square((i + k) % 12) for k in range(24)]

    for i, got in enumerate(where(lambda: all_of(9, work))):
        assert got == [((i + k) % 12) ** 2 for k in range(24)]
    assert thing.value is thing.value
    if sys.version_info < (3, 12):  # where it has a lock, one of gort's
        assert len({id(v) for v in where(lambda: all_of(3, lambda _: thing.value))}) == 1
    info = square.cache_info()
    assert info.hits + info.misses == 9 * 24
    assert info.misses == len(calls)


# ---- names ------------------------------------------------------------------------------------


def test_a_goroutine_has_the_name_of_the_thread_it_is_on() -> None:
    """Threads are not goroutines: `gort.current()` names these."""

    def body() -> bool:
        gort.lock_os_thread()  # else it may change between two looks at it
        thread = threading.current_thread()
        same = thread.ident == threading.get_ident() and thread.native_id == threading.get_native_id()
        gort.unlock_os_thread()
        return same and thread is not threading.main_thread()

    assert all(g.join() for g in [gort.go(body) for _ in range(5)])
    assert threading.current_thread() is threading.main_thread()


def test_a_goroutine_locked_to_its_thread_keeps_its_name() -> None:
    def body() -> bool:
        gort.lock_os_thread()
        ident = threading.get_ident()
        local = threading.local()
        local.mine = ident
        for i in range(20):
            gort.sleep(0.0001 if i % 2 else 0)
            gort.blocking(time.sleep, 0)
            if threading.get_ident() != ident or local.mine != ident:
                return False
        gort.unlock_os_thread()
        return ident != threading.main_thread().ident

    assert all(g.join() for g in [gort.go(body) for _ in range(5)])


def test_a_dictionary_by_goroutine_survives_moves() -> None:
    """What to use where a program keys by `get_ident()`."""
    seen: dict[Any, int] = {}

    def body(i: int) -> int:
        seen[gort.current()] = i
        gort.blocking(time.sleep, 0.0001)
        gort.sleep(0.0001)
        return seen.pop(gort.current())

    assert [g.join() for g in [gort.go(body, i) for i in range(20)]] == list(range(20))
    assert not seen


def test_sqlite_connections_ask_for_the_thread() -> None:
    def pinned() -> int:
        gort.lock_os_thread()
        db = sqlite3.connect(":memory:")
        total = 0
        for i in range(10):
            gort.sleep(0)
            gort.blocking(time.sleep, 0)
            total += db.execute("select ?", (i,)).fetchone()[0]
        db.close()
        gort.unlock_os_thread()
        return total

    def shared(mutex: gort.sync.Mutex, db: sqlite3.Connection) -> int:
        total = 0
        for i in range(10):
            with mutex:
                total += gort.blocking(lambda i=i: db.execute("select ?", (i,)).fetchone()[0])
        return total

    assert [g.join() for g in [gort.go(pinned) for _ in range(4)]] == [45] * 4
    db = sqlite3.connect(":memory:", check_same_thread=False)
    mutex = gort.sync.Mutex()
    assert [g.join() for g in [gort.go(shared, mutex, db) for _ in range(4)]] == [45] * 4
    db.close()


def test_a_connection_of_another_thread_is_refused_and_not_corrupted() -> None:
    def body() -> None:
        gort.lock_os_thread()
        db = sqlite3.connect(":memory:")
        with pytest.raises(sqlite3.ProgrammingError, match="same thread"):
            PlainThread(db.execute, "select 1").result()
        assert db.execute("select 1").fetchone() == (1,)
        db.close()
        gort.unlock_os_thread()

    gort.go(body).join()


def test_a_callback_from_c_goes_on_on_its_os_thread() -> None:
    """SQLite holds its connection's lock while it calls back, and the lock is the OS thread's."""
    program = """
import ctypes, sqlite3, threading, time
import gort

places = []
def odd():
    before = threading.get_native_id()
    for _ in range(5):
        gort.sleep(0.001)
        gort.gosched()
    gort.blocking(time.sleep, 0.001)
    places.append((before, threading.get_native_id()))
    return 1

def query():
    db = sqlite3.connect(":memory:", check_same_thread=False)
    db.create_function("odd", 0, odd)
    for _ in range(5):
        assert db.execute("select odd()").fetchone() == (1,)
    ctypes.CFUNCTYPE(None)(odd)()

def block():
    while not stop:
        time.sleep(0.0007)
        gort.gosched()

stop = []
blockers = [gort.go(block) for _ in range(3)]
gs = [gort.go(query) for _ in range(10)]
query()
for g in gs:
    g.join()
stop.append(1)
for g in blockers:
    g.join()
print(len(places), [p for p in places if p[0] != p[1]], len(set(places)) > 1)
"""
    r = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (r.stdout, r.stderr, r.returncode) == ("66 [] True\n", "", 0)
