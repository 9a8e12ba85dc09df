# errgroup.pxi - gort.errgroup: x/sync/errgroup.
#
# The runtime tells the group of each goroutine's end, and of its exception
# (Owner, g.pxi): none runs in a wrapper, and one that is killed before it began
# is counted too. An exception that nobody waits for goes to the excepthook when
# the group goes away, as a goroutine's does when its handle goes.

cdef int op_one(void *s, bint block, const waitopt *o) noexcept:
    return sema_acquire(<gort_sema *>s, 1, block, o)


@cython.final
cdef class ErrGroup(Owner):
    """Group(ctx=None, limit=None, *, all_errors=False): goroutines that work on one task; `wait()` raises its error.

    The first exception of a goroutine cancels the group's context, `ctx`, with
    that exception as its cause; so does the end of `wait()`. Its parent is the
    argument `ctx`, if given. At most `limit` goroutines run at a time; None, or a
    number below 0, is no limit. With `all_errors`, `wait()` raises an
    ExceptionGroup of all exceptions, in the order in which their goroutines were
    started. What GoroutineExit ends (`goexit()`, `kill()`) counts as done, as for
    `Goroutine.join()`; every other exception, SystemExit and KeyboardInterrupt
    too, is an error of the group.

    As a context manager it waits at the end of the block. An exception of the
    block cancels the context, and comes out when all goroutines have ended; but
    if it is only the Canceled that follows from a goroutine's error, that error
    comes out. If the wait at the end is interrupted (`kill()`, Ctrl-C), the
    context is cancelled and the wait goes on until it is interrupted again.
    Source: Go's x/sync/errgroup.
    """
    cdef gort_sema s                # the limit
    cdef bint limited
    cdef readonly bint all_errors
    cdef CancelContext context
    cdef Failure first
    cdef list failures              # with all_errors: every Failure
    cdef object __weakref__

    def __cinit__(self, ctx=None, limit=None, *, all_errors=False):
        self.set_limit(limit)
        self.s.bubble = fake_bubble() != 0
        if ctx is None:
            ctx = BACKGROUND
        check_context(ctx, "ctx")
        self.all_errors = all_errors
        self.context = new_cancel(ctx, K_CANCEL)
        propagate(self.context)

    @property
    def ctx(self):
        """The context of the group, cancelled at the first exception and when `wait()` returns."""
        return self.context

    @property
    def limit(self):
        """How many goroutines may run at a time; None: any number."""
        return self.s.size if self.limited else None

    def set_limit(self, limit):
        """Change the limit; RuntimeError if goroutines of the group are running."""
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool)):
            raise TypeError(f"limit must be an int or None, not {limit!r}")
        if self.w.n != 0:
            raise RuntimeError(f"the limit cannot be changed while {self.w.n} goroutines of the group are running")
        self.limited = limit is not None and limit >= 0
        self.s.size = weight(limit, "limit") if self.limited else 0

    cdef void cancel(self, object exc) noexcept:
        try:
            end_tree(self.context, new_end(E_CANCELED, None, exc), True)
        except BaseException as e:  # of a parent that is not of gort
            unraisable(e)

    cdef bint failed(self, Failure f) noexcept:
        if self.all_errors:
            if self.failures is None:
                self.failures = []
            self.failures.append(f)
        if self.first is not None:
            f.seen = True           # it, or the list of all, is what comes out
            return True
        self.first = f
        self.cancel(f.exc)
        return True

    cdef void ended(self) noexcept:
        if self.limited:
            sema_release(&self.s, 1)
        wg_add(&self.w, -1)

    cdef int start(self, fn, tuple args, dict kwargs) except -1:
        """The caller has acquired one of `limit`."""
        wg_add(&self.w, 1)
        try:
            spawn(fn, args, kwargs if kwargs else None, self)
        except BaseException:
            self.ended()
            raise
        return 0

    def go(self, fn, /, *args, **kwargs):
        """Start `fn(*args, **kwargs)` as a goroutine of the group; waits while `limit` of them run. May park.

        With a limit of 0 it waits for ever.
        """
        if not callable(fn):
            raise TypeError(f"go() needs a callable, not {fn!r}")
        if self.limited:
            wait_with(op_one, &self.s, None, None)
        self.start(fn, args, kwargs)

    def try_go(self, fn, /, *args, **kwargs):
        """As `go()` if that needs no waiting; whether it has started one. Does not park."""
        if not callable(fn):
            raise TypeError(f"try_go() needs a callable, not {fn!r}")
        if self.limited and sema_acquire(&self.s, 1, False, &FOREVER) != GORT_OK:
            return False
        self.start(fn, args, kwargs)
        return True

    def wait(self, timeout=None, *, ctx=None):
        """Wait until all goroutines have ended, cancel the group's context, raise the first exception. Parks.

        Raises TimeoutError after `timeout` seconds, or the error of `ctx`, and
        leaves the group as it is. May be called again, and raises the same again.
        """
        if self.w.n != 0:
            wait_with(op_wg, &self.w, timeout, ctx)
        self.outcome(None)

    cdef int outcome(self, object exc) except -1:
        """Raise what is to come out, if anything; `exc` is the block's exception."""
        cdef bint seen
        if self.context.end is None:
            self.cancel(None)
        if self.first is None:
            return 0
        seen, self.first.seen = self.first.seen, True
        if exc is not None:
            if seen:
                return 0            # what wait() raised, or what came of it
            if isinstance(exc, class_canceled) and self.context.end.cause is self.first.exc:
                exc = None          # an echo of the first error
            elif not (self.all_errors and isinstance(exc, Exception)):
                return 0
        if not self.all_errors:
            raise_again(self.first.exc, self.first.tb)
        errors = [] if exc is None else [exc]
        errors += [(<Failure>f).exc for f in sorted(self.failures, key=_goroutine_id)]
        raise BaseExceptionGroup("errors of a group of goroutines", errors)

    def __enter__(self):
        return self

    def __exit__(self, cls, exc, tb):
        interrupted = None
        if exc is not None:
            self.cancel(exc)
        while self.w.n != 0:
            try:
                wait_with(op_wg, &self.w, None, None)
            except BaseException as e:
                if interrupted is not None:
                    raise
                interrupted = e
                self.cancel(e)
        if interrupted is not None:
            if self.first is not None:
                self.first.seen = True
            raise interrupted
        self.outcome(exc)

    def __repr__(self):
        return f"<Group of {self.w.n} running goroutines>"


def _goroutine_id(Failure f):
    return f.id


(<PyTypeObject *>ErrGroup).tp_name = "gort.errgroup.Group"
