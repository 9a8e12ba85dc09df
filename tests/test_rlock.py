"""threading.RLock belongs to a goroutine, not to the OS thread it happens to run on."""

import logging
import threading
import unittest

import pytest

import gort
from gort import Chan, go, gosched, sleep

RLock = threading.RLock


def test_two_goroutines_of_one_thread_exclude_each_other() -> None:
    lock, inside = RLock(), []

    def work(i: int) -> None:
        for _ in range(5):
            with lock, lock:
                inside.append(i)
                gosched()
                sleep(0)
                assert inside == [i]
                inside.clear()

    for g in [go(work, i) for i in range(10)]:
        g.join()


def test_the_owner_is_the_same_on_another_thread() -> None:
    """blocking() moves it off the main thread, and a park may bring it back on any."""
    lock = RLock()

    def work() -> None:
        with lock:
            before = threading.get_native_id()
            assert gort.blocking(threading.get_native_id) != before or before != threading.main_thread().native_id
            with lock:
                sleep(0.001)

    for g in [go(work) for _ in range(5)]:
        g.join()


def test_goroutines_and_threads_exclude_each_other() -> None:
    lock, n = RLock(), 0

    def work() -> None:
        nonlocal n
        for _ in range(20):
            with lock:
                seen = n
                sleep(0)
                n = seen + 1

    threads = [threading.Thread(target=work) for _ in range(3)]
    for t in threads:
        t.start()
    for g in [go(work) for _ in range(3)]:
        g.join()
    for t in threads:
        t.join()
    assert n == 120


def test_release_by_another_goroutine_is_refused() -> None:
    lock = RLock()
    lock.acquire()

    def release() -> None:
        with pytest.raises(RuntimeError, match="un-acquired"):
            lock.release()
        assert not lock.acquire(blocking=False)
        assert not lock.acquire(timeout=0.001)

    go(release).join()
    lock.release()
    with pytest.raises(RuntimeError, match="un-acquired"):
        lock.release()


def test_a_kill_while_it_waits_leaves_it_as_it_was() -> None:
    lock = RLock()
    with lock:
        g = go(lock.acquire)
        gosched()
        g.kill()
        g.join()
    with lock:
        pass


def test_condition_and_logging_use_it() -> None:
    assert type(RLock()) is type(threading.Condition()._lock)  # type: ignore[attr-defined]
    assert type(logging._lock) is type(RLock())  # type: ignore[attr-defined]
    assert type(threading._active_limbo_lock) is type(RLock())  # type: ignore[attr-defined]
    locks = [h().lock for h in logging._handlerList if h()]  # type: ignore[attr-defined]
    assert {type(lock) for lock in locks if lock is not None} <= {type(RLock())}


def test_log_records_of_goroutines_that_wait_while_they_are_written() -> None:
    """The handler's lock is held across a park; on CPython's lock the others would walk in."""
    written: list[tuple[str, str]] = []
    busy = []

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            assert not busy
            busy.append(1)
            sleep(0.0001)
            written.append((record.getMessage(), record.name))
            busy.clear()

    logger = logging.getLogger("gort.test")
    handler = Slow()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        for g in [go(logger.info, "%d", i) for i in range(50)]:
            g.join()
    finally:
        logger.removeHandler(handler)
    assert sorted(int(m) for m, _ in written) == list(range(50))


def test_a_queue_between_goroutines_and_condition_timeouts() -> None:
    cond, items = threading.Condition(), []
    done = Chan[int]()

    def take() -> None:
        with cond:
            while not items:
                cond.wait(0.001)
            done.send(items.pop())

    go(gort.blocking, take)
    with cond:
        items.append(7)
        cond.notify()
    assert done.recv() == 7


def test_pythons_own_tests() -> None:
    lock_tests = pytest.importorskip("test.lock_tests", reason="CPython's tests are not installed")

    class Tests(lock_tests.RLockTests):  # type: ignore[misc, name-defined]
        locktype = staticmethod(threading.RLock)

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Tests).run(result)
    assert result.testsRun > 10
    assert not result.failures, result.failures[0][1]
    assert not result.errors, result.errors[0][1]


def test_arguments_are_ignored_and_subclasses_allowed_as_of_cpythons() -> None:
    class Named(type(RLock())):  # type: ignore[misc]
        def __init__(self, name: str, *, size: int) -> None:
            super().__init__()
            self.name, self.size = name, size

    lock = Named("n", size=3)
    assert (lock.name, lock.size) == ("n", 3)
    with lock, lock:
        assert lock._is_owned()
    assert not lock._is_owned()
