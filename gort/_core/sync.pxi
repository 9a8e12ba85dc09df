# sync.pxi - gort.sync: Go's sync package and x/sync/semaphore on csrc/sema.c.
# Object state here is guarded by the GIL (their `shared` flags are 0).

cdef int wait_with(int (*op)(void *, bint, const waitopt *) noexcept, void *obj, object timeout, object ctx) except -1:
    """Do a waiting operation with a timeout or context, or go on with one that was interrupted."""
    cdef waitopt o
    cdef int r
    cdef int may = wait_options(&o, timeout, ctx)
    while True:
        r = op(obj, may, &o)
        if r == GORT_OK:
            return 0
        if r == GORT_EAGAIN:
            not_in_time(ctx)
        raise_wait(r, ctx)


cdef int op_lock(void *m, bint block, const waitopt *o) noexcept:
    return mutex_lock(<gort_mutex *>m, block, o)
cdef int op_rlock(void *m, bint block, const waitopt *o) noexcept:
    return rwmutex_rlock(<gort_rwmutex *>m, block, o)
cdef int op_wlock(void *m, bint block, const waitopt *o) noexcept:
    return rwmutex_lock(<gort_rwmutex *>m, block, o)
cdef int op_wg(void *w, bint block, const waitopt *o) noexcept:
    if (<gort_wg *>w).n == 0:
        return GORT_OK
    return wg_wait(<gort_wg *>w, o) if block else GORT_EAGAIN


@cython.final
cdef class Mutex:
    """Mutual exclusion between goroutines and threads; not reentrant; a context manager.

    Starvation-free: who has waited for over 1 ms gets it next. Any goroutine
    may unlock it. Source: Go's sync/mutex.go.
    """
    cdef gort_mutex m
    cdef object __weakref__

    def __cinit__(self):
        self.m.bubble = fake_bubble() != 0

    def lock(self, timeout=None, *, ctx=None):
        """Lock it; waits until it is free. TimeoutError after `timeout` seconds. Parks."""
        point(b"Mutex.lock")
        cdef int r
        if not self.m.locked and not self.m.starving:
            self.m.locked = True
            return
        if timeout is None and ctx is None:
            r = mutex_lock(&self.m, True, &FOREVER)
            if r == GORT_OK:
                return
            raise_wait(r, None)
        wait_with(op_lock, &self.m, timeout, ctx)

    def try_lock(self):
        """Lock it if it is free; whether it was."""
        point(b"Mutex.try_lock")
        return mutex_lock(&self.m, False, &FOREVER) == GORT_OK

    def unlock(self):
        """Unlock it; RuntimeError if it is not locked."""
        point(b"Mutex.unlock")
        if mutex_unlock(&self.m) != GORT_OK:
            raise RuntimeError("unlock of unlocked Mutex")

    @property
    def locked(self):
        """Whether somebody holds it."""
        return self.m.locked

    def __enter__(self):
        self.lock()
        return self

    def __exit__(self, *exc):
        self.unlock()

    def __repr__(self):
        return f"<Mutex {'locked' if self.m.locked else 'unlocked'}>"


@cython.final
cdef class RWMutex:
    """Many readers or one writer. A waiting writer holds back new readers.

    Source: Go's sync/rwmutex.go.
    """
    cdef gort_rwmutex m
    cdef object __weakref__

    def __cinit__(self):
        self.m.bubble = fake_bubble() != 0

    def rlock(self, timeout=None, *, ctx=None):
        """Lock it for reading. TimeoutError after `timeout` seconds. Parks."""
        point(b"RWMutex.rlock")
        wait_rw(self, op_rlock, timeout, ctx)

    def lock(self, timeout=None, *, ctx=None):
        """Lock it for writing. TimeoutError after `timeout` seconds. Parks."""
        point(b"RWMutex.lock")
        wait_rw(self, op_wlock, timeout, ctx)

    def try_rlock(self):
        """Lock it for reading if that needs no waiting; whether it did."""
        point(b"RWMutex.try_rlock")
        return rwmutex_rlock(&self.m, False, &FOREVER) == GORT_OK

    def try_lock(self):
        """Lock it for writing if that needs no waiting; whether it did."""
        point(b"RWMutex.try_lock")
        return rwmutex_lock(&self.m, False, &FOREVER) == GORT_OK

    def runlock(self):
        """Undo one `rlock()`; RuntimeError if there is none."""
        point(b"RWMutex.runlock")
        if rwmutex_runlock(&self.m) != GORT_OK:
            raise RuntimeError("runlock of unlocked RWMutex")

    def unlock(self):
        """Undo `lock()`; RuntimeError if it is not locked for writing."""
        point(b"RWMutex.unlock")
        if rwmutex_unlock(&self.m) != GORT_OK:
            raise RuntimeError("unlock of unlocked RWMutex")

    def reader(self):
        """A context manager (and locker) that holds it for reading."""
        return RWLocker(self, False)

    def writer(self):
        """A context manager (and locker) that holds it for writing."""
        return RWLocker(self, True)

    def __repr__(self):
        return f"<RWMutex {'locked' if self.m.writer else f'{self.m.readers} readers'}>"


cdef int wait_rw(RWMutex self, int (*op)(void *, bint, const waitopt *) noexcept, object timeout, object ctx) except -1:
    if op(&self.m, False, &FOREVER) == GORT_OK:
        return 0
    return wait_with(op, &self.m, timeout, ctx)


@cython.final
cdef class RWLocker:
    """One side of an RWMutex as a lock: `lock`, `unlock`, `with`."""
    cdef RWMutex m
    cdef bint write

    def __cinit__(self, RWMutex m not None, bint write):
        self.m = m
        self.write = write

    def lock(self, timeout=None, *, ctx=None):
        """See `RWMutex.lock` or `rlock`. Parks."""
        if self.write:
            self.m.lock(timeout, ctx=ctx)
        else:
            self.m.rlock(timeout, ctx=ctx)

    def unlock(self):
        """See `RWMutex.unlock` or `runlock`."""
        if self.write:
            self.m.unlock()
        else:
            self.m.runlock()

    def __enter__(self):
        self.lock()
        return self

    def __exit__(self, *exc):
        self.unlock()


@cython.final
cdef class WaitGroup(Owner):
    """Waits for a number of goroutines to end. Source: Go's sync/waitgroup.go."""
    cdef object __weakref__

    def add(self, n=1):
        """Change the counter by `n`; RuntimeError, and no change, if it went below zero."""
        point(b"WaitGroup.add")
        if not isinstance(n, int):
            raise TypeError(f"n must be an int, not {n!r}")
        if not -0x8000000000000000 <= n <= 0x7FFFFFFFFFFFFFFF or wg_add(&self.w, n) != GORT_OK:
            raise RuntimeError(f"negative or too large WaitGroup counter: {self.w.n} + {n}")

    def done(self):
        """`add(-1)`."""
        point(b"WaitGroup.done")
        if wg_add(&self.w, -1) != GORT_OK:
            raise RuntimeError("negative WaitGroup counter: 0 + -1")

    def wait(self, timeout=None, *, ctx=None):
        """Wait until the counter is zero. TimeoutError after `timeout` seconds. Parks."""
        point(b"WaitGroup.wait")
        if self.w.n == 0:
            return
        wait_with(op_wg, &self.w, timeout, ctx)

    def go(self, fn, /, *args, **kwargs):
        """Start `fn` as a goroutine that counts until it ends, also if it raises.

        Its exception goes to `gort.excepthook`.
        """
        point(b"WaitGroup.go")
        if not callable(fn):
            raise TypeError(f"go() needs a callable, not {fn!r}")
        if wg_add(&self.w, 1) != GORT_OK:
            raise RuntimeError("too large WaitGroup counter")
        try:
            spawn(fn, args, kwargs if kwargs else None, self)
        except BaseException:
            wg_add(&self.w, -1)
            raise

    def __repr__(self):
        return f"<WaitGroup {self.w.n}>"


@cython.final
cdef class Once:
    """Does something once. Source: Go's sync/once.go."""
    cdef gort_mutex m
    cdef bint finished
    cdef object __weakref__

    def __cinit__(self):
        self.m.bubble = fake_bubble() != 0

    def do(self, fn, /):
        """Call `fn()` if this is the first call; return when the first call is over. Parks.

        If `fn` raises, the exception comes out here, and it counts as done.
        """
        point(b"Once.do")
        cdef int r
        if self.finished:
            return
        if not callable(fn):
            raise TypeError(f"do() needs a callable, not {fn!r}")
        wait_with(op_lock, &self.m, None, None)
        try:
            if not self.finished:
                try:
                    fn()
                finally:
                    self.finished = True
        finally:
            mutex_unlock(&self.m)


def once_func(fn, /):
    """A function that calls `fn()` once; each call raises what that call raised. Source: Go's sync/oncefunc.go.

    But GoroutineExit, KeyboardInterrupt and their like are for the first caller
    alone; the others get RuntimeError.
    """
    value = once_value(fn)

    def once():
        value()
    return once


def once_value(fn, /):
    """A function that calls `fn()` once and returns its value, or raises what it raised, each time; see `once_func()`."""
    if not callable(fn):
        raise TypeError(f"once_value() needs a callable, not {fn!r}")
    once = Once()
    result = error = tb = None

    def call():
        nonlocal result, error, tb, fn
        try:
            result = fn()
        except Exception as e:
            error, tb = e, e.__traceback__
        except BaseException as e:
            error = RuntimeError(f"there is no value, for the function was ended by {e!r}")
            raise
        finally:
            fn = None

    def value():
        once.do(call)
        if error is not None:
            raise_again(error, tb)
        return result
    return value


cdef struct cond_waiter:
    gort_notify n
    bint notified
    cond_waiter *next
    cond_waiter *prev


@cython.final
cdef class Cond:
    """A condition variable on a lock (`lock`, `unlock`). Source: Go's sync/cond.go."""
    cdef readonly object L
    cdef cond_waiter *first
    cdef cond_waiter *last
    cdef uint16_t gen               # of the fork in which the waiters wait
    cdef object __weakref__

    def __init__(self, lock):
        if not hasattr(lock, "lock") or not hasattr(lock, "unlock"):
            raise TypeError(f"Cond needs a lock with lock() and unlock(), not {lock!r}")
        self.L = lock

    cdef void fork_check(self) noexcept:
        if self.gen != gort_fork_gen:
            self.gen = gort_fork_gen
            self.first = self.last = NULL

    cdef void unlink(self, cond_waiter *w) noexcept:
        if w.prev != NULL:
            w.prev.next = w.next
        else:
            self.first = w.next
        if w.next != NULL:
            w.next.prev = w.prev
        else:
            self.last = w.prev

    def wait(self, timeout=None, *, ctx=None):
        """Unlock the lock, wait for a `signal()` or `broadcast()`, lock it again. Parks.

        TimeoutError after `timeout` seconds. The lock is held again however it
        ends. As in Go, call it in a loop that checks the condition.
        """
        point(b"Cond.wait")
        cdef cond_waiter w
        cdef waitopt o
        cdef int r, may = wait_options(&o, timeout, ctx)
        memset(&w, 0, sizeof(w))
        self.fork_check()
        # Queued first, as in Go: a lock of the user's own may let others run in its
        # unlock(), and what they signal as soon as they hold the lock is for us.
        w.prev = self.last
        if self.last != NULL:
            self.last.next = &w
        else:
            self.first = &w
        self.last = &w
        try:
            self.L.unlock()
        except BaseException:
            if w.notified:
                self.signal()
            else:
                self.unlink(&w)
            raise
        try:
            while not w.notified:
                if not may:
                    not_in_time(ctx)
                r = notify_wait(&w.n, R_COND | R_DURABLE, &o)
                if r != GORT_OK:
                    raise_wait(r, ctx)
        except BaseException:
            if w.notified:
                self.signal()  # it came too late for us: to the next one
            raise
        finally:
            if not w.notified:
                self.unlink(&w)
            relock(self.L)

    def signal(self):
        """Wake one waiter, the first."""
        point(b"Cond.signal")
        self.fork_check()
        cdef cond_waiter *w = self.first
        if w != NULL:
            self.unlink(w)
            w.notified = True
            notify_wake(&w.n, False)

    def broadcast(self):
        """Wake all waiters."""
        point(b"Cond.broadcast")
        self.fork_check()
        while self.first != NULL:
            self.signal()


cdef int relock(object lock) except -1:
    """Lock again after Cond.wait; a kill or Ctrl-C that comes meanwhile is put off until it is locked."""
    put_off = None
    while True:
        try:
            lock.lock()
            break
        except (GoroutineExit, KeyboardInterrupt) as e:
            put_off = e
    if put_off is not None:
        raise put_off
    return 0


@cython.final
cdef class Semaphore:
    """A weighted semaphore of size `n`, FIFO. Source: x/sync/semaphore."""
    cdef gort_sema s
    cdef object __weakref__

    def __cinit__(self, *args, **kwargs):
        self.s.bubble = fake_bubble() != 0

    def __init__(self, n):
        self.s.size = weight(n, "n")

    def acquire(self, n=1, timeout=None, *, ctx=None):
        """Take `n`; waits until they are free. TimeoutError after `timeout` seconds. Parks.

        More than the size waits for its timeout or context, and holds up nobody.
        A context that has ended raises its error even if `n` are free, as in Go.
        """
        point(b"Semaphore.acquire")
        cdef waitopt o
        cdef int r, may
        cdef int64_t k = weight(n, "n")
        if ctx is None and sema_acquire(&self.s, k, False, &FOREVER) == GORT_OK:
            return
        may = wait_options(&o, timeout, ctx)
        error = None if ctx is None else to_raise(ctx)
        if error is not None:
            raise error
        while True:
            r = sema_acquire(&self.s, k, may, &o)
            if r == GORT_OK:
                return
            if r == GORT_EAGAIN:
                not_in_time(ctx)
            raise_wait(r, ctx)

    def try_acquire(self, n=1):
        """Take `n` if that needs no waiting; whether it did."""
        point(b"Semaphore.try_acquire")
        return sema_acquire(&self.s, weight(n, "n"), False, &FOREVER) == GORT_OK

    def release(self, n=1):
        """Give `n` back; RuntimeError, and no change, if that is more than is held."""
        point(b"Semaphore.release")
        if sema_release(&self.s, weight(n, "n")) != GORT_OK:
            raise RuntimeError(f"release of {n} from a Semaphore that holds {self.s.cur}")

    def __enter__(self):
        self.acquire()
        return self

    def __exit__(self, *exc):
        self.release()

    def __repr__(self):
        return f"<Semaphore {self.s.cur} of {self.s.size} held>"


cdef int64_t weight(object n, str name) except? -1:
    if not isinstance(n, int):
        raise TypeError(f"{name} must be an int, not {n!r}")
    if n < 0:
        raise ValueError(f"{name} must not be negative, not {n!r}")
    if n > 0x7FFFFFFFFFFFFFFF:
        raise ValueError(f"{name} is too large: {n!r}")
    return n


class Pool:
    """Keeps values for reuse: `get()` gives one that was `put()`, else `new()`. Source: Go's sync/pool.go.

    Without `new` an empty pool gives None. What is in it may go away at any
    garbage collection in Go; here it keeps at most `MAX` values.
    """

    MAX = 1024
    __slots__ = ("_items", "new", "__weakref__")

    def __init__(self, new=None):
        if new is not None and not callable(new):
            raise TypeError(f"new must be callable, not {new!r}")
        self.new = new
        self._items = []

    __class_getitem__ = classmethod(_types.GenericAlias)

    def get(self):
        """A value from the pool, or a new one."""
        point(b"Pool.get")
        try:
            return self._items.pop()
        except IndexError:
            return self.new() if self.new is not None else None

    def put(self, x):
        """Give `x` back. None is ignored, as Go ignores nil."""
        point(b"Pool.put")
        if x is not None and len(self._items) < self.MAX:
            self._items.append(x)


cdef object ABSENT = object()


@cython.final
cdef class Map:
    """A dict for many goroutines, with Go's atomic operations. Source: Go's sync/map.go.

    Keys are compared as a dict's are; an unhashable key raises TypeError. The
    comparisons of `compare_and_*` are `==`. Each operation is done with a lock
    held, which a key's own `__eq__` must therefore not need.
    """
    cdef dict d
    cdef gort_mutex m
    cdef object __weakref__

    def __cinit__(self):
        self.d = {}
        self.m.bubble = fake_bubble() != 0

    @classmethod
    def __class_getitem__(cls, item):
        return _types.GenericAlias(cls, item)

    def load(self, key):
        """`(value, True)`, or `(None, False)`."""
        point(b"Map.load")
        cdef dict d = self.d  # ours while a key's __eq__ may run: clear() lets go of it
        v = d.get(key, ABSENT)
        return (None, False) if v is ABSENT else (v, True)

    def store(self, key, value):
        """Set the value of `key`."""
        self.swap(key, value)

    def load_or_store(self, key, value):
        """`(present value, True)`, or `(value, False)` having stored it."""
        point(b"Map.load_or_store")
        wait_with(op_lock, &self.m, None, None)
        try:
            v = self.d.get(key, ABSENT)
            if v is not ABSENT:
                return v, True
            self.d[key] = value
            return value, False
        finally:
            mutex_unlock(&self.m)

    def load_and_delete(self, key):
        """`(value, True)` having deleted it, or `(None, False)`."""
        point(b"Map.load_and_delete")
        hash(key)  # an empty dict would not ask
        wait_with(op_lock, &self.m, None, None)
        try:
            v = self.d.pop(key, ABSENT)
        finally:
            mutex_unlock(&self.m)
        return (None, False) if v is ABSENT else (v, True)

    def delete(self, key):
        """Delete `key` if it is there."""
        self.load_and_delete(key)

    def swap(self, key, value):
        """Set the value; `(previous, True)`, or `(None, False)` if there was none."""
        point(b"Map.swap")
        wait_with(op_lock, &self.m, None, None)
        try:
            v = self.d.get(key, ABSENT)
            self.d[key] = value
        finally:
            mutex_unlock(&self.m)
        return (None, False) if v is ABSENT else (v, True)

    def compare_and_swap(self, key, old, new):
        """Set `new` if the value is `old`; whether it was."""
        point(b"Map.compare_and_swap")
        wait_with(op_lock, &self.m, None, None)
        try:
            v = self.d.get(key, ABSENT)
            if v is ABSENT or not (v is old or v == old):
                return False
            self.d[key] = new
            return True
        finally:
            mutex_unlock(&self.m)

    def compare_and_delete(self, key, old):
        """Delete `key` if its value is `old`; whether it was."""
        point(b"Map.compare_and_delete")
        wait_with(op_lock, &self.m, None, None)
        try:
            v = self.d.get(key, ABSENT)
            if v is ABSENT or not (v is old or v == old):
                return False
            del self.d[key]
            return True
        finally:
            mutex_unlock(&self.m)

    def range(self, fn, /):
        """Call `fn(key, value)` for each entry until it returns False.

        No snapshot, as in Go: each key is visited once, what is stored or
        deleted meanwhile may or may not be seen.
        """
        cdef dict d
        point(b"Map.range")
        for k in list(self.d):
            d = self.d
            v = d.get(k, ABSENT)
            if v is not ABSENT and fn(k, v) is False:
                return

    def clear(self):
        """Delete all entries."""
        cdef dict old
        point(b"Map.clear")
        wait_with(op_lock, &self.m, None, None)
        try:
            old = self.d  # goes after the unlock: a value's finaliser may use the map
            self.d = {}
        finally:
            mutex_unlock(&self.m)
