# rlock.pxi - threading.RLock for goroutines.
#
# CPython's own is its owner's OS thread's: two goroutines on one thread are one owner
# to it, and a goroutine that another thread resumes no longer is. So gort puts this one
# in its place, for all that is made from then on; and for the locks of `logging`, which
# are made before.

cdef uint64_t main_who  # the main goroutine, wherever it runs; what the main thread was called before


cdef uint64_t whoami() noexcept:
    """Who calls: a goroutine, or a plain thread; the main goroutine is the main thread."""
    cdef G *g = gort_curg()
    if g == NULL:
        return get_ident()
    return main_who if gort_is_main_thread(g) else <uint64_t>g

cdef extern from "Python.h":
    unsigned long get_ident "PyThread_get_thread_ident"()


cdef class RLock:
    """`threading.RLock`, whose owner is a goroutine or a plain thread. Its methods may park.

    As of CPython's own, arguments are ignored and subclasses allowed.
    """
    cdef gort_mutex m
    cdef uint64_t owner
    cdef int64_t count
    cdef object __weakref__

    def __cinit__(self, *args, **kwargs):
        self.m.bubble = fake_bubble() != 0

    def acquire(self, blocking=True, timeout=-1):
        """Lock it, once more if it is the caller's; whether that was done. As `threading.RLock.acquire`."""
        cdef uint64_t me = whoami()
        cdef double seconds
        if not blocking and timeout != -1:
            raise ValueError("can't specify a timeout for a non-blocking call")
        if timeout < 0 and timeout != -1:
            raise ValueError("timeout value must be a non-negative number")
        if timeout > _threading.TIMEOUT_MAX:
            raise OverflowError("timeout value is too large")
        if self.owner == me:
            self.count += 1
            return True
        point(b"RLock.acquire")
        if not self.m.locked and not self.m.starving:
            self.m.locked = True
        elif not blocking:
            return False
        else:
            try:
                wait_with(op_lock, &self.m, None if timeout == -1 else timeout, None)
            except TimeoutError:
                return False
        self.owner = me
        self.count = 1
        return True

    def release(self):
        """Undo one `acquire()`; RuntimeError if it is not the caller's."""
        if self.owner != whoami() or self.count == 0:
            raise RuntimeError("cannot release un-acquired lock")
        self.count -= 1
        if self.count == 0:
            self.owner = 0
            mutex_unlock(&self.m)

    def __enter__(self):
        return self.acquire()

    def __exit__(self, *exc):
        self.release()

    def locked(self):
        """Whether somebody holds it."""
        return self.count > 0

    def _is_owned(self):
        return self.count > 0 and self.owner == whoami()

    def _recursion_count(self):
        return self.count if self.owner == whoami() else 0

    def _release_save(self):
        if self.count == 0:
            raise RuntimeError("cannot release un-acquired lock")
        state = self.count, self.owner
        self.count = 0
        self.owner = 0
        mutex_unlock(&self.m)
        return state

    def _acquire_restore(self, state):
        wait_with(op_lock, &self.m, None, None)
        self.count, self.owner = state

    def _at_fork_reinit(self):
        memset(&self.m, 0, sizeof(self.m))
        self.owner = 0
        self.count = 0

    def __repr__(self):
        what = "locked" if self.count else "unlocked"
        return f"<{what} gort.RLock object owner={self.owner} count={self.count} at {<uint64_t><void *>self:#x}>"


def _replace_rlocks():
    """Put it where CPython's stands, and in the place of the free ones that modules and `logging` have by now."""
    import functools
    import _thread
    old = type(_threading._active_limbo_lock)
    _thread.RLock = RLock
    _threading._CRLock = RLock
    if hasattr(functools, "RLock"):
        functools.RLock = RLock
    for module in list(sys.modules.values()):
        names = getattr(module, "__dict__", None)
        if type(names) is not dict:
            continue
        for name in [name for name, value in list(names.items()) if type(value) is old]:
            if names[name].acquire(False):
                names[name].release()
                names[name] = RLock()
    logging = sys.modules.get("logging")
    if logging is None:
        return
    for ref in list(logging._handlerList):
        handler = ref()
        lock = getattr(handler, "lock", None)
        if lock is not None and type(lock) is old and lock.acquire(False):
            lock.release()
            handler.lock = RLock()
