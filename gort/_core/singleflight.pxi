# singleflight.pxi - gort.singleflight: x/sync/singleflight.
#
# A Flight is one call of a function and all who wait for it; its counter is 1
# until it has landed. It is in its group's dict until then, or until forget().
# A flight whose leader is itself brought to an end (killed, goexit, Ctrl-C) is
# void: what ended it was meant for the leader alone, so each of those who wait
# tries again, and the first to come leads with its own function.

from collections import namedtuple as _namedtuple

Result = _namedtuple("Result", "value err shared", module="gort.singleflight")
Result.__doc__ = "What `do_chan()` sends: `err` is the exception that the function raised, or None; see `do()` for `shared`."


@cython.final
cdef class Flight(Owner):
    cdef SingleFlight group
    cdef object key
    cdef object value, exc, tb
    cdef bint void
    cdef Py_ssize_t dups
    cdef object fn, ch              # of do_chan(): what its goroutine calls, where the result goes
    cdef list others                # (fn, channel) of each do_chan() that came later

    def __init__(self):
        raise TypeError("a Flight is made by Group.do() and Group.do_chan()")

    cdef bint failed(self, Failure f) noexcept:
        f.seen = True               # there was no memory for the goroutine
        self.exc = f.exc
        return True

    cdef void ended(self) noexcept:
        if self.w.n != 0:           # its goroutine never began
            try:
                if self.exc is None:
                    self.void = True
                    self.exc = GoroutineExit()
                self.group.land(self)
            except BaseException as e:
                unraisable(e)

    def run(self):
        """The goroutine of do_chan()."""
        fn, self.fn = self.fn, None
        if fn is None:
            raise RuntimeError("it runs once, in the goroutine of do_chan()")
        try:
            self.value = fn()
        except BaseException as e:
            self.void = not isinstance(e, Exception)
            self.exc = e
        self.group.land(self)

    cdef int deliver(self, ch, exc) except -1:
        try:
            ch.send_nowait(Result(self.value, exc, self.dups > 0))
        except (ChanClosed, WouldBlock):
            pass                    # the user's own doing
        return 0


@cython.final
cdef class SingleFlight:
    """Group(): has a function called once for all who ask for the same key at the same time.

    Keys are compared as a dict's are; an unhashable key raises TypeError. Source:
    Go's x/sync/singleflight.
    """
    cdef dict flights
    cdef gort_mutex m
    cdef object __weakref__

    def __cinit__(self):
        self.flights = {}
        self.m.bubble = fake_bubble() != 0

    @classmethod
    def __class_getitem__(cls, item):
        return _types.GenericAlias(cls, item)

    cdef Flight board(self, Flight mine):
        """The flight of that key: `mine` if there was none."""
        if self.m.locked or self.m.starving:
            wait_with(op_lock, &self.m, None, None)
        else:
            self.m.locked = True
        try:
            return self.flights.setdefault(mine.key, mine)
        finally:
            mutex_unlock(&self.m)

    cdef int land(self, Flight f) except -1:
        """It is over: forget it, and tell all who wait for it."""
        put_off = None
        try:
            put_off = lock_surely(&self.m)
            try:
                if self.flights.get(f.key) is f:
                    del self.flights[f.key]
            finally:
                mutex_unlock(&self.m)
        finally:
            wg_add(&f.w, -1)
            if f.ch is not None:
                f.deliver(f.ch, f.exc)
            if f.others is not None:
                self.deliver_others(f)
        if put_off is not None:
            raise put_off
        return 0

    cdef int deliver_others(self, Flight f) except -1:
        for fn, ch in f.others:
            if not f.void:
                f.deliver(ch, f.exc)
                continue
            try:
                self.start(f.key, fn, ch)
            except BaseException as e:
                f.deliver(ch, e)
        return 0

    cdef int start(self, key, fn, ch) except -1:
        cdef Flight mine = new_flight(self, key)
        cdef Flight f = self.board(mine)
        cdef Goroutine g
        if f is not mine:
            f.dups += 1
            if f.others is None:
                f.others = []
            f.others.append((fn, ch))
            return 0
        mine.fn = fn
        mine.ch = ch
        try:
            g = spawn(mine.run, None, None, mine)
            g._name = name_of(fn)
        except BaseException as e:
            mine.void = True
            mine.exc = e
            mine.ch = None          # the caller gets the exception itself
            self.land(mine)
            raise
        return 0

    def do(self, key, fn, timeout=None, *, ctx=None):
        """`(fn(), shared)`; if a call for `key` is under way, its value instead. Parks.

        `shared` says whether the value was given to others as well. What `fn`
        raises comes out here, and in all who waited for it. If the caller whose
        `fn` runs is itself ended (by `kill()`, `goexit()`, Ctrl-C: whatever is
        not an Exception), one of those who wait calls its own `fn`. `timeout` (in
        seconds: TimeoutError) and `ctx` end the wait for somebody else's call,
        which goes on; a call of one's own they do not end. `fn` must not call
        `do()` of the same group and key, which would wait for itself.
        """
        cdef Flight f, mine
        cdef waitopt o
        cdef int r, may = -1
        if not callable(fn):
            raise TypeError(f"do() needs a callable, not {fn!r}")
        mine = new_flight(self, key)
        while True:
            f = self.board(mine)
            if f is mine:
                break
            if may < 0:
                may = wait_options(&o, timeout, ctx)
            f.dups += 1
            try:
                while f.w.n != 0:
                    if not may:
                        not_in_time(ctx)
                    r = wg_wait(&f.w, &o)
                    if r != GORT_OK:
                        raise_wait(r, ctx)
            except BaseException:
                f.dups -= 1
                raise
            if f.void:
                continue
            if f.exc is not None:
                raise_again(f.exc, f.tb)
            return f.value, True
        try:
            mine.value = fn()
        except BaseException as e:
            mine.void = not isinstance(e, Exception)
            mine.exc = e
            mine.tb = e.__traceback__
            raise
        finally:
            self.land(mine)
        return mine.value, mine.dups > 0

    def do_chan(self, key, fn):
        """As `do()`, but `fn` runs in a goroutine of its own; a channel that gets the Result. Does not park.

        The channel is not closed. An exception of `fn` is the result's `err`,
        whichever it is.
        """
        if not callable(fn):
            raise TypeError(f"do_chan() needs a callable, not {fn!r}")
        ch = Chan(1)
        self.start(key, fn, ch)
        return ch

    def forget(self, key):
        """The next `do()` with this key calls its function, also if a call is under way."""
        hash(key)  # an empty dict would not ask
        wait_with(op_lock, &self.m, None, None)
        try:
            self.flights.pop(key, None)
        finally:
            mutex_unlock(&self.m)


cdef Flight new_flight(SingleFlight group, object key):
    cdef Flight f = Flight.__new__(Flight)
    f.group = group
    f.key = key
    f.w.n = 1
    return f


cdef object lock_surely(gort_mutex *m):
    """Lock it; a kill or Ctrl-C that comes meanwhile is put off, and returned."""
    put_off = None
    while True:
        try:
            wait_with(op_lock, m, None, None)
            return put_off
        except (GoroutineExit, KeyboardInterrupt) as e:
            put_off = e


(<PyTypeObject *>SingleFlight).tp_name = "gort.singleflight.Group"
