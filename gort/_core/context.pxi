# context.pxi - gort.context: cancellation trees, deadlines, values; after Go's context/context.go.
#
# A context that can end (CancelContext) stands in the list of children of the nearest one above it that
# can end. The parent's list owns a reference to each child, until the child or the parent ends; `up` is
# borrowed, and whoever goes away with children left sets theirs to NULL. Values are contexts of their own
# that know the nearest one which is none (`base`): done(), err() and deadline() never walk a chain, and
# value(), repr() and deallocation walk it in a loop.
#
# What guards what: the GIL. `end`, the links and `ch` are read and changed by code that calls nothing of
# Python's in between: adopt(), unlink(), and the first half of end_tree(), which ends a whole subtree:
# sets `end`, closes the channels, chains the contexts by `next`. The second half works off that chain,
# which nobody else can reach: links of a context with an `end` never change. It stops timers, starts
# functions and drops references, each of which may run anybody's code. So whoever sees one context of a
# tree ended sees all of it ended, and `err()` never comes before the closed channel. A build without the
# GIL needs one lock around those three functions.
#
# Rejected: a set of children, as Go's map: 40 bytes and two hash operations a child. Recursion, as Go
# does: a goroutine's C stack ends at some thousand levels. A timer that holds no reference to its context:
# after_func() must call its function though nobody has kept the context.

cdef extern from *:
    """
    typedef struct gort_ctxnode {
        PyObject *up;                   /* in whose list it is; borrowed */
        PyObject *next, *prev;
        PyObject *first, *last;         /* its children, a reference each */
    } gort_ctxnode;
    typedef gort_ctxnode *(*gort_ctxnode_of)(PyObject *);
    static gort_ctxnode_of gort_ctxnode_get;
    static traverseproc gort_ctx_own_traverse;
    static inquiry gort_ctx_own_clear;
    static void gort_ctx_drop_children(gort_ctxnode *n)
    {
        for (PyObject *c; (c = n->first);) {
            gort_ctxnode *k = gort_ctxnode_get(c);
            n->first = k->next;
            if (!n->first) n->last = NULL;
            k->up = k->next = k->prev = NULL;
            if (n->first) gort_ctxnode_get(n->first)->prev = NULL;
            Py_DECREF(c);
        }
    }
    static int gort_ctx_traverse(PyObject *o, visitproc visit, void *arg)
    {
        for (PyObject *c = gort_ctxnode_get(o)->first; c; c = gort_ctxnode_get(c)->next) Py_VISIT(c);
        return gort_ctx_own_traverse(o, visit, arg);
    }
    static int gort_ctx_clear(PyObject *o)
    {
        gort_ctx_drop_children(gort_ctxnode_get(o));
        return gort_ctx_own_clear(o);
    }
    static void gort_ctx_fix_type(PyTypeObject *t, gort_ctxnode_of get)
    {
        gort_ctxnode_get = get;
        gort_ctx_own_traverse = t->tp_traverse;
        gort_ctx_own_clear = t->tp_clear;
        t->tp_traverse = gort_ctx_traverse;
        t->tp_clear = gort_ctx_clear;
        PyType_Modified(t);
    }
    static inline int gort_exc_raised(PyObject *e)
    {
        return ((PyBaseExceptionObject *)e)->traceback || ((PyBaseExceptionObject *)e)->context;
    }
    static inline void gort_exc_from(PyObject *e, PyObject *cause) { PyException_SetCause(e, Py_NewRef(cause)); }
    """
    ctypedef struct gort_ctxnode:
        PyObject *up
        PyObject *next
        PyObject *prev
        PyObject *first
        PyObject *last
    ctypedef gort_ctxnode *(*gort_ctxnode_of)(PyObject *) noexcept
    void gort_ctx_drop_children(gort_ctxnode *n)
    void gort_ctx_fix_type(void *t, gort_ctxnode_of get)
    bint gort_exc_raised(object e)
    void gort_exc_from(object e, object cause)
    enum: METH_NOARGS
    double Py_HUGE_VAL

# From K_EMPTY on it is one of ours, from K_CANCEL on a CancelContext.
cdef enum: K_OTHER, K_EMPTY, K_VALUE, K_WITHOUT, K_CANCEL, K_DEADLINE, K_AFTER
cdef enum: E_OTHER, E_CANCELED, E_DEADLINE


class Canceled(Exception):
    """The context was cancelled, by its cancel function or with its parent."""

    def __str__(self):
        return Exception.__str__(self) or "context canceled"


class DeadlineExceeded(TimeoutError):
    """The context's deadline has passed."""

    def __str__(self):
        return TimeoutError.__str__(self) or "context deadline exceeded"


for _cls in (Canceled, DeadlineExceeded):
    _cls.__module__ = "gort.context"

cdef object class_canceled = Canceled
cdef object class_deadline = DeadlineExceeded
cdef object CANCEL_KEY = object()       # value() of it is the nearest CancelContext, as Go's &cancelCtxKey
cdef object MODULE_NAME = "gort.context"
cdef tuple METHODS = ("deadline", "done", "err", "value")
cdef Chan CLOSED = Chan()               # done() of what had ended before anybody asked
gort_chan_close(CLOSED.c)


# ---- why a context ended: one for all that end together -----------------------------
@cython.final
@cython.freelist(64)
cdef class End:
    cdef int code                   # E_OTHER: `err` is a foreign parent's, given out as it is
    cdef object err                 # None: not asked for yet
    cdef object cause               # None: the error itself


cdef End new_end(int code, object err, object cause):
    cdef End e = End.__new__(End)
    e.code = code
    e.err = err
    e.cause = cause
    return e


cdef object make_error(End e):
    """A new exception of this end, or the foreign one."""
    if e.code == E_OTHER:
        return e.err
    err = class_canceled() if e.code == E_CANCELED else class_deadline()
    if e.cause is not None:
        gort_exc_from(err, e.cause)
    return err


cdef object error_of(End e):
    """The exception of this end: the same one until it has been raised, then another.

    One that is raised again and again would collect tracebacks, of all who raise
    it and of several goroutines in a jumble.
    """
    if e.err is None or (e.code != E_OTHER and gort_exc_raised(e.err)):
        err = make_error(e)  # may run a finaliser that asks for it, too
        if e.err is None or gort_exc_raised(e.err):
            e.err = err
    return e.err


# ---- the kinds of context ------------------------------------------------------------
cdef class Context:
    """Carries the end, a deadline and values of a task to all who work on it.

    `background()`, `with_cancel()` and their like make them. A class of one's own
    may derive from this one and override `deadline`, `done`, `err` and `value`;
    as it stands it is a context that never ends. Usable from goroutines and plain
    threads alike. Source: Go's context/context.go.
    """
    cdef uint8_t kind
    cdef object __weakref__

    def deadline(self):
        """When it will end, in seconds on the scale of `gort.time.now()`; None if that is not known."""
        return None

    def done(self):
        """The channel that is closed when it ends, the same at each call; NIL if it never can."""
        return NIL

    def err(self):
        """None until it has ended, then why: `Canceled` or `DeadlineExceeded`.

        It is the same instance at each call until that has been raised, and then
        a new one: no traceback grows.
        """
        return None

    def value(self, key):
        """The value that `with_value()` gave to a key equal to `key`, here or above; None if none did."""
        return None

    def wait(self, timeout=None, *, ctx=None):
        """Wait until it ends and return `err()`. Parks.

        Raises TimeoutError after `timeout` seconds, the error of `ctx` when that ends.
        """
        cdef uint64_t w = 0
        recv_slow(done_of(self), &w, GORT_EINTR, timeout, ctx)
        return self.err()

    def __repr__(self):
        return context_name(self)


@cython.final
cdef class EmptyContext(Context):
    cdef str name

    def __cinit__(self):
        self.kind = K_EMPTY
        self.name = "context.Background"

    def __init__(self):
        raise TypeError("background() and todo() give the empty contexts")


@cython.final
cdef class ValueContext(Context):
    cdef object parent, base, key, val

    def __cinit__(self):
        self.kind = K_VALUE

    def __init__(self):
        raise TypeError("a context with a value is made by with_value()")

    def __dealloc__(self):
        parent, self.parent = self.parent, None
        self.base = None
        let_go(parent)

    def deadline(self):
        """See `Context.deadline`."""
        return self.base.deadline()

    def done(self):
        """See `Context.done`."""
        return self.base.done()

    def err(self):
        """See `Context.err`."""
        return self.base.err()

    def value(self, key):
        """See `Context.value`."""
        return find_value(self, key)


@cython.final
cdef class DetachedContext(Context):
    cdef object parent

    def __cinit__(self):
        self.kind = K_WITHOUT

    def __init__(self):
        raise TypeError("a context without cancellation is made by without_cancel()")

    def __dealloc__(self):
        parent, self.parent = self.parent, None
        let_go(parent)

    def value(self, key):
        """See `Context.value`."""
        return find_value(self, key)


@cython.final
cdef class CancelContext(Context):
    cdef object parent
    cdef Chan ch                    # done(), once asked for
    cdef End end                    # None: it has not ended
    cdef gort_ctxnode n
    cdef object extra               # K_DEADLINE: the Timer; K_AFTER: the function, until started or stopped
    cdef object stop                # what a foreign parent's after_func() returned
    cdef double when                # the deadline, its own or inherited; infinite: none
    cdef uint64_t bubble            # in which it was made, if that has a clock of its own
    cdef object when_of             # a foreign context, whose deadline it is

    def __cinit__(self):
        self.kind = K_CANCEL
        self.when = Py_HUGE_VAL

    def __init__(self):
        raise TypeError("a context is made by with_cancel(), with_timeout() and their like")

    def __dealloc__(self):
        gort_ctx_drop_children(&self.n)
        parent, self.parent = self.parent, None
        let_go(parent)

    def deadline(self):
        """See `Context.deadline`."""
        if self.when_of is not None:
            return self.when_of.deadline()
        return None if self.when == Py_HUGE_VAL else self.when

    def done(self):
        """See `Context.done`."""
        return channel(self)

    def err(self):
        """See `Context.err`."""
        return None if self.end is None else error_of(self.end)

    def value(self, key):
        """See `Context.value`."""
        return find_value(self, key)


cdef gort_ctxnode *node_of(PyObject *o) noexcept:
    return &(<CancelContext>o).n
gort_ctx_fix_type(<void *>CancelContext, node_of)


cdef EmptyContext empty(str name):
    cdef EmptyContext c = EmptyContext.__new__(EmptyContext)
    c.name = name
    return c

cdef EmptyContext BACKGROUND = empty("context.Background")
cdef EmptyContext TODO = empty("context.TODO")


cdef inline int kind_of(object ctx) noexcept:
    return (<Context>ctx).kind if isinstance(ctx, Context) else K_OTHER


cdef inline object base_of(object ctx):
    """The nearest context that is no value: the one that ends and has the deadline."""
    return (<ValueContext>ctx).base if kind_of(ctx) == K_VALUE else ctx


cdef PyObject *take_parent(PyObject *o) noexcept:
    """The reference to its parent, which it loses; NULL if it is none of ours."""
    cdef int kind = kind_of(<object>o)
    if kind == K_VALUE:
        parent, (<ValueContext>o).parent = (<ValueContext>o).parent, None
        (<ValueContext>o).base = None  # which `parent` keeps for now
    elif kind == K_WITHOUT:
        parent, (<DetachedContext>o).parent = (<DetachedContext>o).parent, None
    elif kind >= K_CANCEL:
        parent, (<CancelContext>o).parent = (<CancelContext>o).parent, None
    else:
        return NULL
    Py_INCREF(parent)
    return <PyObject *>parent


cdef void let_go(object parent) noexcept:
    """Drop the parent of a context that goes away, and those above it that go with it: no recursion.

    Our caller's variable is the last reference to each but the first.
    """
    cdef PyObject *p = <PyObject *>parent
    cdef PyObject *q
    if Py_REFCNT(p) > 1:
        return
    p = take_parent(p)
    while p != NULL:
        q = take_parent(p) if Py_REFCNT(p) == 1 else NULL
        Py_DECREF(<object>p)
        p = q


cdef object find_value(object ctx, object key):
    cdef int kind
    while True:
        kind = kind_of(ctx)
        if kind == K_VALUE:
            if (<ValueContext>ctx).key is key or (<ValueContext>ctx).key == key:
                return (<ValueContext>ctx).val
            ctx = (<ValueContext>ctx).parent
        elif kind >= K_CANCEL:
            if key is CANCEL_KEY:
                return ctx
            ctx = (<CancelContext>ctx).parent
        elif kind == K_WITHOUT:
            if key is CANCEL_KEY:
                return None
            ctx = (<DetachedContext>ctx).parent
        elif kind == K_EMPTY:
            return None
        else:
            return ctx.value(key)


cdef str value_name(object v):
    """As Go's stringify: not a dump of what may be large, secret, or the context itself."""
    if v is None or isinstance(v, (str, int, float)):
        return str(v)
    return type(v).__qualname__


cdef str context_name(object ctx):
    cdef list parts = []
    cdef int kind
    while True:
        kind = kind_of(ctx)
        if kind == K_VALUE:
            parts.append(f".WithValue({value_name((<ValueContext>ctx).key)}, {value_name((<ValueContext>ctx).val)})")
            ctx = (<ValueContext>ctx).parent
        elif kind == K_WITHOUT:
            parts.append(".WithoutCancel")
            ctx = (<DetachedContext>ctx).parent
        elif kind == K_DEADLINE:
            left = (<CancelContext>ctx).when - seconds_now()
            parts.append(f".WithDeadline({(<CancelContext>ctx).when:.6f} [{left:.6f}s])")
            ctx = (<CancelContext>ctx).parent
        elif kind >= K_CANCEL:
            parts.append(".WithCancel" if kind == K_CANCEL else ".AfterFunc")
            ctx = (<CancelContext>ctx).parent
        else:
            break
    if kind == K_EMPTY:
        parts.append((<EmptyContext>ctx).name)
    elif type(ctx).__repr__ in (object.__repr__, Context.__repr__):
        parts.append(f"{type(ctx).__module__}.{type(ctx).__qualname__}")
    else:
        parts.append(repr(ctx))
    return "".join(reversed(parts))


# ---- done channels and errors, for all who wait ------------------------------------------
cdef Chan channel(CancelContext c):
    if c.ch is None:
        if c.end is not None:
            c.ch = CLOSED
        else:
            ch = Chan.__new__(Chan)
            (<Chan>ch).c = gort_chan_new(GORT_OBJ, 0)
            if (<Chan>ch).c == NULL:
                raise MemoryError("gort: no memory for a context's channel")
            (<Chan>ch).c.bubble = c.bubble
            if c.ch is None:  # making it may have run a finaliser
                c.ch = CLOSED if c.end is not None else ch
    return c.ch


cdef Chan foreign_done(object ctx):
    done = ctx.done()
    if isinstance(done, Receiver):
        done = (<Receiver>done).ch
    if not isinstance(done, Chan):
        raise TypeError(f"done() of a context must be a channel, not {done!r}, which {ctx!r} gives")
    return <Chan>done


cdef Chan done_of(object ctx):
    b = base_of(ctx)
    cdef int kind = kind_of(b)
    if kind >= K_CANCEL:
        return channel(<CancelContext>b)
    return foreign_done(b) if kind == K_OTHER else NIL


cdef object to_raise(object ctx):
    """The error of a context for us to raise: a new one, so that the context keeps no frames. None if it lives."""
    b = base_of(ctx)
    if kind_of(b) >= K_CANCEL:
        return None if (<CancelContext>b).end is None else make_error((<CancelContext>b).end)
    return b.err()


# ---- the tree -------------------------------------------------------------------------
cdef void adopt(CancelContext p, CancelContext c) noexcept:
    c.n.up = <PyObject *>p
    c.n.prev = p.n.last
    c.n.next = NULL
    if p.n.last != NULL:
        (<CancelContext>p.n.last).n.next = <PyObject *>c
    else:
        p.n.first = <PyObject *>c
    p.n.last = <PyObject *>c
    Py_INCREF(c)


cdef bint unlink(CancelContext c) noexcept:
    """Take it off its parent's list; true: the list's reference is the caller's now."""
    if c.n.up == NULL:
        return False
    if c.n.prev != NULL:
        (<CancelContext>c.n.prev).n.next = c.n.next
    else:
        (<CancelContext>c.n.up).n.first = c.n.next
    if c.n.next != NULL:
        (<CancelContext>c.n.next).n.prev = c.n.prev
    else:
        (<CancelContext>c.n.up).n.last = c.n.prev
    c.n.up = c.n.next = c.n.prev = NULL
    return True


cdef int end_tree(CancelContext top, End e, bint detach) except -1:
    """End a context and all below it, unless it has ended. `detach`: its parent need not know it any more."""
    cdef PyObject *p = <PyObject *>top
    cdef PyObject *tail = p
    cdef PyObject *next
    cdef bint owned
    if top.end is not None:
        return 0
    owned = unlink(top)
    while p != NULL:
        (<CancelContext>p).end = e
        if (<CancelContext>p).ch is not None:
            chan_close((<CancelContext>p).ch.c)
        (<CancelContext>p).n.up = (<CancelContext>p).n.prev = NULL
        if (<CancelContext>p).n.first != NULL:
            (<CancelContext>tail).n.next = (<CancelContext>p).n.first
            tail = (<CancelContext>p).n.last
            (<CancelContext>p).n.first = (<CancelContext>p).n.last = NULL
        p = (<CancelContext>p).n.next
    # From here on anybody's code may run.
    p = top.n.next
    top.n.next = NULL
    while p != NULL:
        next = (<CancelContext>p).n.next
        (<CancelContext>p).n.next = NULL
        if (<CancelContext>p).extra is not None:
            after_end(<CancelContext>p)
        Py_DECREF(<object>p)  # the list's
        p = next
    if top.extra is not None:
        after_end(top)
    if owned:
        Py_DECREF(top)
    if top.stop is not None:
        stop, top.stop = top.stop, None
        if detach:
            stop()
    return 0


cdef void after_end(CancelContext c) noexcept:
    if c.kind == K_DEADLINE:
        disarm(c)
    else:
        fn, c.extra = c.extra, None
        try:
            spawn(fn, None, None, None)
        except BaseException as e:
            unraisable(e)


cdef int propagate(CancelContext c) except -1:
    """Arrange for `c` to end with its parent."""
    b = base_of(c.parent)
    cdef int kind = kind_of(b)
    if kind >= K_CANCEL:
        join_tree(<CancelContext>b, c)
    elif kind == K_OTHER:
        propagate_foreign(b, c)
    return 0


cdef int join_tree(CancelContext p, CancelContext c) except -1:
    if p.end is not None:
        end_tree(c, p.end, False)
    else:
        adopt(p, c)
    return 0


cdef int propagate_foreign(object parent, CancelContext c) except -1:
    cdef Chan done = foreign_done(parent)
    if done.c == NULL:
        return 0
    if done.c.closed:
        end_with(parent, c)
        return 0
    inner = parent.value(CANCEL_KEY)
    if kind_of(inner) >= K_CANCEL and (<CancelContext>inner).ch is done:
        # it wraps one of ours and has its channel: no goroutine is needed
        join_tree(<CancelContext>inner, c)
        return 0
    after = getattr(parent, "after_func", None)
    if after is not None:
        stop = after(PyCFunction_NewEx(&FOREIGN_END_DEF, (parent, c), MODULE_NAME))
        if not callable(stop):
            raise TypeError(f"after_func() of a context must return a function, not {stop!r}, which {parent!r} gives")
        if c.end is None:
            c.stop = stop
        return 0
    channel(c)
    spawn(_watch, (parent, done, c), None, None)._name = "gort.context.watch"
    return 0


def _watch(parent, Chan done, CancelContext c):
    """The goroutine for a foreign parent that can neither be linked to nor calls us."""
    if select(done, c.ch)[0] == 0:
        end_with(parent, c)


cdef object foreign_end(PyObject *self, PyObject *unused):
    parent, c = <tuple>self
    end_with(parent, <CancelContext>c)


cdef int end_with(object parent, CancelContext c) except -1:
    """End `c` because its foreign parent has ended."""
    cdef int code = E_OTHER
    if c.end is not None:
        return 0
    try:
        err = parent.err()
        cause = cause_above(parent, err)
        if err is None or type(err) is class_canceled:
            code = E_CANCELED
        elif type(err) is class_deadline:
            code = E_DEADLINE
        elif not isinstance(err, BaseException):
            raise TypeError(f"err() of a context must be an exception or None, not {err!r}, which {parent!r} gives")
        end_tree(c, new_end(code, err, None if cause is err else cause), False)
    except BaseException:
        end_tree(c, new_end(E_CANCELED, None, None), False)  # ended it has
        raise
    return 0


cdef object cause_above(object ctx, object err):
    """The cause of a foreign context that ended with `err`."""
    if err is None:
        return None
    inner = ctx.value(CANCEL_KEY)
    if kind_of(inner) >= K_CANCEL and (<CancelContext>inner).end is not None:
        return cause_of((<CancelContext>inner).end)
    return err


cdef object cause_of(End e):
    return error_of(e) if e.cause is None else e.cause


# ---- deadlines: the only place that deals with clock and timers ------------------------
cdef inline double seconds_now() noexcept:
    return deadline_after(0.0) / 1e9


cdef int arm(CancelContext c, double left, object cause) except -1:
    """Let it end `left` seconds from now. The pending timer owns a reference to it."""
    cdef Timer t = func_timer(EXPIRE, (c, cause))
    t.f.t.inherited = True  # by a fork's child
    c.extra = t
    try:
        t.arm_func(left)
    except BaseException:
        c.extra = None
        raise
    if c.end is not None and c.extra is not None:
        disarm(c)  # a finaliser ended it while the timer was made
    return 0


cdef void disarm(CancelContext c) noexcept:
    cdef Timer t = <Timer>c.extra
    c.extra = None
    if timer_del(&t.f.t):
        Py_DECREF(t)  # the pending timer's


def _expire(CancelContext c, cause):
    """What the timer runs, in a goroutine of its own."""
    end_tree(c, new_end(E_DEADLINE, None, cause), True)

cdef object EXPIRE = _expire


# ---- the functions -----------------------------------------------------------------------
cdef int check_context(object ctx, str name) except -1:
    if isinstance(ctx, Context):
        return 0
    if ctx is not None:
        for method in METHODS:
            if not callable(getattr(ctx, method, None)):
                break
        else:
            return 0
    raise TypeError(f"{name} must be a context, not {ctx!r}")


cdef int check_cause(object cause) except -1:
    if cause is not None and not isinstance(cause, BaseException):
        raise TypeError(f"cause must be an exception or None, not {cause!r}")
    return 0


cdef CancelContext new_cancel(object parent, int kind):
    cdef CancelContext c = CancelContext.__new__(CancelContext)
    b = base_of(parent)
    cdef int above = kind_of(b)
    c.kind = kind
    c.parent = parent
    c.bubble = fake_bubble()
    if above >= K_CANCEL:
        c.when = (<CancelContext>b).when
        c.when_of = (<CancelContext>b).when_of
    elif above == K_OTHER:
        c.when_of = b
    return c


cdef tuple cancelable_pair(object parent, PyMethodDef *cancel):
    cdef CancelContext c = new_cancel(parent, K_CANCEL)
    pair = (c, PyCFunction_NewEx(cancel, c, MODULE_NAME))
    propagate(c)
    return pair


cdef tuple deadline_pair(object parent, double when, double left, object cause):
    cdef CancelContext c
    cdef double above
    if left >= MAX_SECONDS:
        return cancelable_pair(parent, &CANCEL_DEF)
    c = new_cancel(parent, K_DEADLINE)
    above = c.when
    if c.when_of is not None:
        theirs = c.when_of.deadline()
        if theirs is not None:
            above = theirs
    if above < when:
        return cancelable_pair(parent, &CANCEL_DEF)  # the parent's deadline comes first
    c.when = when
    c.when_of = None
    pair = (c, PyCFunction_NewEx(&CANCEL_DEF, c, MODULE_NAME))
    propagate(c)
    if c.end is None:
        if left <= 0:
            end_tree(c, new_end(E_DEADLINE, None, cause), True)
        else:
            try:
                arm(c, left, cause)
            except BaseException:
                end_tree(c, new_end(E_CANCELED, None, None), True)
                raise
    return pair


cdef object cancel_fast(PyObject *self, PyObject *unused):
    if (<CancelContext>self).end is None:
        end_tree(<CancelContext>self, new_end(E_CANCELED, None, None), True)


cdef object cancel_cause_fast(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names):
    cdef Py_ssize_t given = n + (0 if names == NULL else len(<tuple>names))
    if given > 1:
        raise TypeError(f"cancel() takes at most 1 argument ({given} given)")
    if names != NULL and given == 1 and (<tuple>names)[0] != "cause":
        raise TypeError(f"cancel() got an unexpected keyword argument {(<tuple>names)[0]!r}")
    cause = <object>args[0] if given else None
    check_cause(cause)
    if (<CancelContext>self).end is None:
        end_tree(<CancelContext>self, new_end(E_CANCELED, None, cause), True)


cdef object stop_fast(PyObject *self, PyObject *unused):
    cdef CancelContext c = <CancelContext>self
    if c.extra is None:
        return False
    fn, c.extra = c.extra, None
    end_tree(c, new_end(E_CANCELED, None, None), True)
    return True


cdef PyMethodDef CANCEL_DEF
CANCEL_DEF.ml_name = "cancel"
CANCEL_DEF.ml_meth = <void *>cancel_fast
CANCEL_DEF.ml_flags = METH_NOARGS
CANCEL_DEF.ml_doc = """cancel($self, /)
--

End the context, and all that derive from it, with Canceled. Once it has ended this does nothing.
Does not park, and does not wait for anybody's work to stop.
"""
cdef PyMethodDef CANCEL_CAUSE_DEF
CANCEL_CAUSE_DEF.ml_name = "cancel"
CANCEL_CAUSE_DEF.ml_meth = <void *>cancel_cause_fast
CANCEL_CAUSE_DEF.ml_flags = METH_FASTCALL | METH_KEYWORDS
CANCEL_CAUSE_DEF.ml_doc = """cancel($self, /, cause=None)
--

End the context, and all that derive from it, with Canceled; `cause(ctx)` will be `cause`, an exception.
Once it has ended this does nothing. Does not park.
"""
cdef PyMethodDef STOP_DEF
STOP_DEF.ml_name = "stop"
STOP_DEF.ml_meth = <void *>stop_fast
STOP_DEF.ml_flags = METH_NOARGS
STOP_DEF.ml_doc = """stop($self, /)
--

Do not call the function when the context ends. True if this call prevented it; False if the function
has been started, or was stopped before. Does not wait for the function.
"""
cdef PyMethodDef FOREIGN_END_DEF
FOREIGN_END_DEF.ml_name = "cancel"
FOREIGN_END_DEF.ml_meth = <void *>foreign_end
FOREIGN_END_DEF.ml_flags = METH_NOARGS
FOREIGN_END_DEF.ml_doc = """cancel($self, /)
--

End the child with its parent's error.
"""


def background():
    """The root of all contexts: never ends, has no deadline and no values."""
    return BACKGROUND


def todo():
    """As `background()`, for where it is not clear yet which context to use."""
    return TODO


def with_cancel(parent):
    """`(ctx, cancel)`: a context that ends when `cancel()` is called or `parent` ends.

    `cancel` must be called at last, for until then, or until `parent` ends, the
    parent keeps the context. It may be called more than once, by anybody. A
    parent that is not of this module needs a goroutine to watch it until then,
    unless it wraps one that is, or has a method `after_func(fn) -> stop`.
    Raises TypeError if `parent` is no context. Does not park.
    """
    check_context(parent, "parent")
    return cancelable_pair(parent, &CANCEL_DEF)


def with_cancel_cause(parent):
    """As `with_cancel()`, with a `cancel(cause=None)` that says why: `cause(ctx)` returns that exception."""
    check_context(parent, "parent")
    return cancelable_pair(parent, &CANCEL_CAUSE_DEF)


def with_deadline(parent, when, cause=None):
    """`(ctx, cancel)`: as `with_cancel()`, and the context ends with DeadlineExceeded at `when`.

    `when` is in seconds on the scale of `gort.time.now()`; the parent's deadline
    holds if it is earlier. `cause`, an exception, is what `cause(ctx)` returns if
    the deadline passes. Until then, unless `cancel()` is called, its timer keeps the
    context, and is hope in the sense of `Deadlock`. Raises TypeError for a bad argument,
    ValueError for a NaN.
    """
    check_context(parent, "parent")
    cdef double d = to_seconds(when, "when")
    check_cause(cause)
    return deadline_pair(parent, d, d - seconds_now(), cause)


def with_timeout(parent, seconds, cause=None):
    """`(ctx, cancel)`: `with_deadline()` with a deadline `seconds` from now; 0 or less: ended at once."""
    check_context(parent, "parent")
    cdef double d = to_seconds(seconds, "seconds")
    check_cause(cause)
    return deadline_pair(parent, seconds_now() + d, d, cause)


def with_value(parent, key, value):
    """A context that gives `value` for keys equal to `key`, and is `parent` otherwise.

    For what belongs to a request, not for optional arguments. A key of a class of
    one's own meets no other's. It needs no hash. TypeError if it is None.
    """
    check_context(parent, "parent")
    if key is None:
        raise TypeError("key must not be None")
    cdef ValueContext c = ValueContext.__new__(ValueContext)
    c.parent = parent
    c.base = base_of(parent)
    c.key = key
    c.val = value
    return c


def without_cancel(parent):
    """A context with the values of `parent` that never ends and has no deadline."""
    check_context(parent, "parent")
    cdef DetachedContext c = DetachedContext.__new__(DetachedContext)
    c.parent = parent
    return c


def cause(ctx):
    """Why it ended: what the first `cancel(cause)` at or above it, or its deadline, was given; else its `err()`.

    None as long as it has not ended.
    """
    check_context(ctx, "ctx")
    b = base_of(ctx)
    cdef int kind = kind_of(b)
    if kind >= K_CANCEL:
        return None if (<CancelContext>b).end is None else cause_of((<CancelContext>b).end)
    return cause_above(b, b.err()) if kind == K_OTHER else None


def context_after_func(ctx, fn):
    """gort.context.after_func."""
    check_context(ctx, "ctx")
    if not callable(fn):
        raise TypeError(f"after_func() needs a callable, not {fn!r}")
    cdef CancelContext c = new_cancel(ctx, K_AFTER)
    c.extra = fn
    stop = PyCFunction_NewEx(&STOP_DEF, c, MODULE_NAME)
    propagate(c)
    return stop


# For gort/context.py.
def check_context_arg(ctx, name="ctx"):
    """TypeError unless `ctx` is a context."""
    check_context(ctx, name)


def check_timeout_args(seconds, cause):
    """The seconds as a float; TypeError or ValueError if they, or the cause, are bad."""
    check_cause(cause)
    return to_seconds(seconds, "seconds")


def name_of_callable(fn):
    """The name of the goroutine that runs it."""
    return name_of(fn)
