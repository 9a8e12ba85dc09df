"""Count primes in C, on all cores, with goroutines that never need the GIL; cffi compiles the C.

Python sends where each stretch begins through a typed channel and receives the
counts through another. Needs cffi and a C compiler: pip install gort[examples]
"""

import importlib
import sys
import tempfile

from cffi import FFI

import gort
import gort.native

STRETCH = 50_000
DECLARED = """
    typedef struct { uintptr_t starts, counts; int64_t stretch; } job;
    void count_primes(void *arg);
"""
SOURCE = r"""
#include "gort.h"

typedef struct { uintptr_t starts, counts; int64_t stretch; } job;

static int is_prime(int64_t n)
{
    for (int64_t d = 2; d * d <= n; d++)
        if (n % d == 0) return 0;
    return n > 1;
}

/* A native goroutine: until `starts` is closed, count a stretch and send the count. */
static void count_primes(void *arg)
{
    const job *j = arg;
    int64_t n;
    while (gort_chan_recv((gort_chan *)j->starts, &n) == GORT_OK) {
        int64_t count = 0;
        for (int64_t end = n + j->stretch; n < end; n++) count += is_prime(n);
        if (gort_chan_send((gort_chan *)j->counts, &count) != GORT_OK) return;
    }
}
"""


def main(limit: int = 2_000_000) -> None:
    builder = FFI()
    builder.cdef(DECLARED)
    builder.set_source("_count_primes", SOURCE, include_dirs=[gort.get_include()])
    with tempfile.TemporaryDirectory() as folder:
        builder.compile(folder)
        sys.path.insert(0, folder)
        gort.native.load_global()  # where the C code finds gort_chan_send and its like
        compiled = importlib.import_module("_count_primes")
    ffi, lib = compiled.ffi, compiled.lib

    stretches = range(0, limit, STRETCH)
    starts, counts = gort.Chan[int](len(stretches), dtype="i64"), gort.Chan[int](dtype="i64")
    job = ffi.new("job *", {"starts": starts.ptr, "counts": counts.ptr, "stretch": STRETCH})
    for start in stretches:
        starts.send(start)
    starts.close()
    workers = [gort.native.go(ffi.addressof(lib, "count_primes"), job) for _ in range(gort.num_cpu())]
    try:
        total = sum(counts.recv() for _ in stretches)
    finally:
        counts.close()
        for w in workers:  # the channels have to outlive them
            w.join()
    print(f"{total:,} primes below {limit:,}, counted by {len(workers)} native goroutines")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
