"""What do lock and unlock of a mutex cost that nobody else wants?"""

import asyncio
from time import perf_counter

from benchmarks._workload import per_op

MUTEX = per_op("mutex", "lock and unlock an uncontended mutex", "lock + unlock")


@MUTEX.peer("gort")
def _gort(n: int) -> float:
    from gort.sync import Mutex

    mutex = Mutex()
    start = perf_counter()
    for _ in range(n):
        mutex.lock()
        mutex.unlock()
    return perf_counter() - start


@MUTEX.peer("gort-with")
def _gort_with(n: int) -> float:
    from gort.sync import Mutex

    mutex = Mutex()
    start = perf_counter()
    for _ in range(n):
        with mutex:
            pass
    return perf_counter() - start


@MUTEX.peer("asyncio", "uvloop")
async def _asyncio(n: int) -> float:
    lock = asyncio.Lock()
    start = perf_counter()
    for _ in range(n):
        await lock.acquire()
        lock.release()
    return perf_counter() - start


# acquire() is a checkpoint: it lets the others run even if the lock is free.
@MUTEX.peer("trio")
async def _trio(n: int) -> float:
    import trio

    lock = trio.Lock()
    start = perf_counter()
    for _ in range(n):
        await lock.acquire()
        lock.release()
    return perf_counter() - start


# gevent has no plain mutex; its fastest is a semaphore of one.
@MUTEX.peer("gevent")
def _gevent(n: int) -> float:
    from gevent.lock import Semaphore

    lock = Semaphore(1)
    start = perf_counter()
    for _ in range(n):
        lock.acquire()
        lock.release()
    return perf_counter() - start


@MUTEX.peer("runloom")
def _runloom(n: int) -> float:
    from runloom_c import Mutex

    mutex = Mutex()
    start = perf_counter()
    for _ in range(n):
        mutex.lock()
        mutex.unlock()
    return perf_counter() - start


# For reference: the lock of the OS threads, in C, nothing but a flag if free.
@MUTEX.peer("threading")
def _threading(n: int) -> float:
    from threading import Lock

    lock = Lock()
    start = perf_counter()
    for _ in range(n):
        lock.acquire()
        lock.release()
    return perf_counter() - start
