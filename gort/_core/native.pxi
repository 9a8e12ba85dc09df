# native.pxi - native goroutines started from Python; gort/native.py finds the addresses.

@cython.final
cdef class NativeGoroutine:
    """A handle of a native goroutine; `gort.native.go()` makes it."""
    cdef native_job *j
    cdef object keep                # what the C function may still use
    cdef object __weakref__

    def __init__(self):
        raise TypeError("a NativeGoroutine is made by gort.native.go()")

    @property
    def id(self):
        """Its goroutine id; 0 before it has started."""
        return self.j.id

    @property
    def done(self):
        """Whether its function has returned."""
        return bool(job_done(self.j))

    def join(self, timeout=None, *, ctx=None):
        """Wait until its function has returned. TimeoutError after `timeout` seconds. Parks."""
        cdef waitopt o
        cdef int r, may
        if job_done(self.j):
            return
        may = wait_options(&o, timeout, ctx)
        while not job_done(self.j):
            if not may:
                not_in_time(ctx)
            r = job_join(self.j, &o)
            if r != GORT_OK:
                raise_wait(r, ctx)

    def __repr__(self):
        return f"<NativeGoroutine {self.id} {'done' if self.done else 'alive'}>"

    def __dealloc__(self):
        if self.j != NULL:
            if not job_done(self.j):
                native_kept.append(self.keep)  # still in use: never let go
            job_unref(self.j)


cdef list native_kept = []


def native_start(uint64_t fn, uint64_t arg, keep):
    """Run the C function at `fn` with `arg` as a native goroutine. MemoryError without a thread for it."""
    cdef NativeGoroutine h = NativeGoroutine.__new__(NativeGoroutine)
    h.j = job_start(<void (*)(void *) noexcept nogil>fn, <void *>arg)
    if h.j == NULL:
        raise MemoryError("gort: no memory or thread for a native goroutine")
    h.keep = keep
    return h


def num_native():
    """How many native goroutines are alive."""
    return gort_num_native()


def fail_next(what, after=1, times=1):
    """Fault injection for tests: the `after`-th call of "mmap", "thread", "guard" or "malloc" fails."""
    os_fail_set(["mmap", "thread", "guard", "malloc"].index(what), after, times)


def swap_name():
    """How thread states are swapped here: "fast" or "stock"."""
    return (<bytes>pyctx_swap_name()).decode()
