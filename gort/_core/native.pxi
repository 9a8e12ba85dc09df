# native.pxi - native goroutines started from Python; gort/native.py finds the addresses.

@cython.final
cdef class NativeGoroutine:
    """A handle of a native goroutine; `gort.native.go()` makes it."""
    cdef native_job *j
    cdef object keep                # what the C function may still use
    cdef object __weakref__

    def __init__(self):
        raise TypeError("a NativeGoroutine is made by gort.native.go()")

    cdef native_job *job(self) except NULL:
        if self.j == NULL:
            raise TypeError("a NativeGoroutine is made by gort.native.go()")
        return self.j

    @property
    def id(self):
        """Its number: unique, never used again."""
        return self.job().id

    @property
    def done(self):
        """Whether its function has returned."""
        return bool(job_done(self.job()))

    def join(self, timeout=None, *, ctx=None):
        """Wait until its function has returned. TimeoutError after `timeout` seconds. Parks."""
        cdef waitopt o
        cdef int r, may
        if job_done(self.job()):
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
                keep_until_done(self.j, self.keep)
            else:
                job_unref(self.j)


cdef class _Kept:
    """What a native goroutine still uses whose handle is gone."""
    cdef native_job *j
    cdef object keep


cdef list native_kept = []


cdef void keep_until_done(native_job *j, object keep) noexcept:
    """Takes over the handle's reference to `j`; lets go of those that are done."""
    global native_kept
    cdef _Kept k
    alive = []
    for k in native_kept:
        if job_done(k.j):
            job_unref(k.j)
        else:
            alive.append(k)
    k = _Kept.__new__(_Kept)
    k.j = j
    k.keep = keep
    alive.append(k)
    native_kept = alive


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
