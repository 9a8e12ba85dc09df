"""Locks and atomics that nobody contends for.

Subtract `bench_nothing` of bench_goroutine.py, the cost of the measuring itself.
"""

from pytest_benchmark.fixture import BenchmarkFixture

from gort import atomic, sync


def bench_mutex_lock_unlock(benchmark: BenchmarkFixture) -> None:
    mutex = sync.Mutex()

    def op() -> None:
        mutex.lock()
        mutex.unlock()

    benchmark(op)


def bench_mutex_with(benchmark: BenchmarkFixture) -> None:
    mutex = sync.Mutex()

    def op() -> None:
        with mutex:
            pass

    benchmark(op)


def bench_mutex_try_lock_unlock(benchmark: BenchmarkFixture) -> None:
    mutex = sync.Mutex()

    def op() -> None:
        mutex.try_lock()
        mutex.unlock()

    benchmark(op)


def bench_rwmutex_rlock_runlock(benchmark: BenchmarkFixture) -> None:
    mutex = sync.RWMutex()

    def op() -> None:
        mutex.rlock()
        mutex.runlock()

    benchmark(op)


def bench_rwmutex_lock_unlock(benchmark: BenchmarkFixture) -> None:
    mutex = sync.RWMutex()

    def op() -> None:
        mutex.lock()
        mutex.unlock()

    benchmark(op)


def bench_waitgroup_add_done_wait(benchmark: BenchmarkFixture) -> None:
    group = sync.WaitGroup()

    def op() -> None:
        group.add(1)
        group.done()
        group.wait()

    benchmark(op)


def bench_semaphore_acquire_release(benchmark: BenchmarkFixture) -> None:
    semaphore = sync.Semaphore(4)

    def op() -> None:
        semaphore.acquire()
        semaphore.release()

    benchmark(op)


def bench_once_done(benchmark: BenchmarkFixture) -> None:
    once = sync.Once()
    once.do(lambda: None)
    benchmark(lambda: once.do(print))


def bench_pool_get_put(benchmark: BenchmarkFixture) -> None:
    pool = sync.Pool(object)
    benchmark(lambda: pool.put(pool.get()))


def bench_map_load(benchmark: BenchmarkFixture) -> None:
    table: sync.Map[str, int] = sync.Map()
    table.store("key", 1)
    benchmark(lambda: table.load("key"))


def bench_map_store(benchmark: BenchmarkFixture) -> None:
    table: sync.Map[str, int] = sync.Map()
    benchmark(lambda: table.store("key", 1))


def bench_int64_add(benchmark: BenchmarkFixture) -> None:
    number = atomic.Int64()
    benchmark(lambda: number.add(1))


def bench_int64_load(benchmark: BenchmarkFixture) -> None:
    number = atomic.Int64()
    benchmark(number.load)


def bench_int64_compare_and_swap(benchmark: BenchmarkFixture) -> None:
    number = atomic.Int64()
    benchmark(lambda: number.compare_and_swap(0, 0))


def bench_bool_store(benchmark: BenchmarkFixture) -> None:
    flag = atomic.Bool()
    benchmark(lambda: flag.store(True))


def bench_ref_swap(benchmark: BenchmarkFixture) -> None:
    ref: atomic.Ref[object] = atomic.Ref(None)
    item = object()
    benchmark(lambda: ref.swap(item))
