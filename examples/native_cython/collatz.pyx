# cython: language_level=3
"""Longest Collatz chains, searched by native goroutines: `cimport gort` gives gort.h to Cython."""
from libc.stdint cimport int64_t, uintptr_t

cimport gort
import gort
import gort.native


cdef struct Job:
    gort.gort_chan *starts
    gort.gort_chan *best
    int64_t stretch


cdef int64_t chain(int64_t n) noexcept nogil:
    cdef int64_t steps = 0
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps += 1
    return steps


cdef void search(void *arg) noexcept nogil:
    """A native goroutine: for every start received, send the number with the longest chain of its stretch."""
    cdef Job *job = <Job *>arg
    cdef int64_t start, n, steps, longest, best
    while gort.gort_chan_recv(job.starts, &start) == gort.GORT_OK:
        longest, best = -1, start
        for n in range(start, start + job.stretch):
            steps = chain(n)
            if steps > longest:
                longest, best = steps, n
        if gort.gort_chan_send(job.best, &best) != gort.GORT_OK:
            return


def longest_chain(int64_t limit, int64_t stretch=10_000):
    """The number below `limit` (rounded up to whole stretches) with the longest chain, and its length."""
    stretches = range(1, limit, stretch)
    starts, best = gort.Chan(len(stretches), dtype="i64"), gort.Chan(dtype="i64")
    for start in stretches:
        starts.send(start)
    starts.close()
    cdef Job job
    job.starts, job.best = <gort.gort_chan *><uintptr_t>starts.ptr, <gort.gort_chan *><uintptr_t>best.ptr
    job.stretch = stretch
    workers = [gort.native.go(<uintptr_t>&search, <uintptr_t>&job) for _ in range(gort.num_cpu())]
    try:
        found = max((chain(n), -n) for n in [best.recv() for _ in stretches])
    finally:
        best.close()
        for w in workers:  # the channels and `job`, which lives on this stack, have to outlive them
            w.join()
    return -found[1], found[0]
