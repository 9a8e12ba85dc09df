# chan.pxi - Chan, its one-way views, NIL, and select().

cdef extern from *:
    """
    #include <string.h>
    static inline uint64_t gort_f2w(double d) { uint64_t w; memcpy(&w, &d, 8); return w; }
    static inline double gort_w2f(uint64_t w) { double d; memcpy(&d, &w, 8); return d; }
    /* Elements of an object channel are references that Python's collector must see. */
    static int (*gort_chan_base_traverse)(PyObject *, visitproc, void *);
    static int (*gort_chan_base_clear)(PyObject *);
    typedef gort_chan *(*gort_chan_of)(PyObject *);
    static gort_chan_of gort_get_chan;
    static int gort_chan_traverse(PyObject *o, visitproc visit, void *arg)
    {
        gort_chan *c = gort_get_chan(o);
        if (c && c->dtype == GORT_OBJ)
            for (size_t i = 0; i < c->count; i++)
                Py_VISIT((PyObject *)(uintptr_t)((uint64_t *)c->buf)[(c->recvx + i) % c->cap]);
        return gort_chan_base_traverse ? gort_chan_base_traverse(o, visit, arg) : 0;
    }
    static void gort_chan_drain(gort_chan *c)
    {
        uint64_t v;
        G *ready = NULL;
        if (!c || c->dtype != GORT_OBJ) return;
        gort_check_chan(c);
        while (c->count && chan_recv_locked(c, &v, &ready) == GORT_OK) {
            if (ready) g_ready(ready);
            ready = NULL;
            Py_XDECREF((PyObject *)(uintptr_t)v);
        }
    }
    static int gort_chan_clear(PyObject *o)
    {
        gort_chan_drain(gort_get_chan(o));
        return gort_chan_base_clear ? gort_chan_base_clear(o) : 0;
    }
    static void gort_chan_fix_type(PyTypeObject *t, gort_chan_of get)
    {
        gort_get_chan = get;
        gort_chan_base_traverse = t->tp_traverse;
        gort_chan_base_clear = t->tp_clear;
        t->tp_traverse = gort_chan_traverse;
        t->tp_clear = gort_chan_clear;
        PyType_Modified(t);
    }
    """
    uint64_t gort_f2w(double d)
    double gort_w2f(uint64_t w)
    void gort_chan_drain(gort_chan *c)
    ctypedef gort_chan *(*gort_chan_of)(PyObject *) noexcept
    void gort_chan_fix_type(void *t, gort_chan_of get)

cdef dict DTYPES = {None: GORT_OBJ, "i64": GORT_I64, "f64": GORT_F64, "u8": GORT_U8, "ptr": GORT_PTR}
cdef tuple DTYPE_NAMES = (None, "i64", "f64", "u8", "ptr")
cdef uint64_t PTR_MAX = 0xFFFFFFFFFFFFFFFF


cdef int to_word(int dtype, object v, uint64_t *w) except -1:
    """A value as the raw word of a typed channel. TypeError, OverflowError."""
    if dtype == GORT_F64:
        if not isinstance(v, (float, int)) and not hasattr(v, "__float__") or isinstance(v, (str, bytes)):
            raise TypeError(f"a channel of f64 takes numbers, not {v!r}")
        w[0] = gort_f2w(<double>v)
        return 0
    if not isinstance(v, int):
        if not hasattr(v, "__index__"):
            raise TypeError(f"a channel of {DTYPE_NAMES[dtype]} takes integers, not {v!r}")
        v = v.__index__()
    if dtype == GORT_I64:
        if not -0x8000000000000000 <= v <= 0x7FFFFFFFFFFFFFFF:
            raise OverflowError(f"{v!r} does not fit a channel of i64")
        w[0] = <uint64_t><int64_t>v
    elif dtype == GORT_U8:
        if not 0 <= v <= 255:
            raise OverflowError(f"{v!r} does not fit a channel of u8")
        w[0] = <uint64_t>v
    else:
        if not 0 <= v <= PTR_MAX:
            raise OverflowError(f"{v!r} does not fit a channel of ptr")
        w[0] = <uint64_t>v
    return 0


cdef inline object from_word(int dtype, uint64_t w):
    """The value of a word; an object channel's reference is taken over."""
    if dtype == GORT_OBJ:
        return gort_steal(w)
    if dtype == GORT_F64:
        return gort_w2f(w)
    if dtype == GORT_I64:
        return <int64_t>w
    return w


cdef inline object zero_of(int dtype):
    return None if dtype == GORT_OBJ else from_word(dtype, 0)


cdef inline int put_word(int dtype, object v, uint64_t *w) except -1:
    """As to_word; an object channel gets a new reference."""
    if dtype == GORT_OBJ:
        w[0] = gort_ref(v)
        return 0
    return to_word(dtype, v, w)


cdef inline void drop_word(int dtype, uint64_t w) noexcept:
    """Take back what put_word made and the channel did not take."""
    if dtype == GORT_OBJ:
        Py_XDECREF(<PyObject *>w)


cdef class Chan:
    """A channel, as in Go: `Chan(cap=0, *, dtype=None, name=None)`.

    `cap` elements fit its buffer; with 0 a send waits for its receive. `dtype`
    is None (any object) or "i64", "f64", "u8", "ptr": raw values, which native
    goroutines can exchange too. FIFO among senders and among receivers.

    >>> ch = Chan(1)
    >>> ch.send("hello")
    >>> ch.recv()
    'hello'

    Raises ValueError if `cap` is negative or larger than any memory, TypeError
    if it is no integer, ValueError for an unknown `dtype`. A channel is always
    true. Usable from goroutines and plain threads alike.
    """
    cdef gort_chan *c               # NULL: the nil channel
    cdef uint8_t dt
    cdef object _name
    cdef object __weakref__

    def __init__(self, cap=0, *, dtype=None, name=None):
        if self.c != NULL:
            raise RuntimeError("a channel is made once")
        if not isinstance(cap, int):
            if not hasattr(cap, "__index__"):
                raise TypeError(f"cap must be an integer, not {cap!r}")
            cap = cap.__index__()
        if cap < 0:
            raise ValueError(f"cap must not be negative, not {cap!r}")
        if cap > 0x7FFFFFFFFFFF // 8:
            raise ValueError(f"cap is too large: {cap!r}")
        if dtype is not None and not isinstance(dtype, str):
            raise TypeError(f"dtype must be a str or None, not {dtype!r}")
        try:
            self.dt = DTYPES[dtype]
        except KeyError:
            raise ValueError(f'dtype must be None, "i64", "f64", "u8" or "ptr", not {dtype!r}') from None
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a str or None, not {name!r}")
        self._name = name
        self.c = gort_chan_new(self.dt, cap)
        if self.c == NULL:
            raise MemoryError(f"no memory for a channel of capacity {cap}")
        self.c.bubble = fake_bubble()

    @classmethod
    def __class_getitem__(cls, item):
        return _types.GenericAlias(cls, item)

    def __dealloc__(self):
        if self.c != NULL:
            gort_chan_drain(self.c)
            gort_chan_unref(self.c)

    def __len__(self):
        return gort_chan_len(self.c)

    def __bool__(self):
        return True

    def __iter__(self):
        return ChanIterator(self)

    def __repr__(self):
        if self.c == NULL:
            return "gort.NIL"
        parts = [f"cap={self.cap}", f"len={len(self)}"]
        if self.dt:
            parts.append(f"dtype={self.dtype!r}")
        if self._name is not None:
            parts.insert(0, repr(self._name))
        if self.c.closed:
            parts.append("closed")
        return f"<Chan {' '.join(parts)}>"

    @property
    def cap(self):
        """How many elements fit the buffer."""
        return gort_chan_cap(self.c)

    @property
    def closed(self):
        """Whether `close()` was called."""
        return self.c != NULL and self.c.closed != 0

    @property
    def dtype(self):
        """The element type as given."""
        return DTYPE_NAMES[self.dt]

    @property
    def name(self):
        """The name as given."""
        return self._name

    @property
    def ptr(self):
        """The address of its `gort_chan` for C code; typed channels only. Valid while the Chan lives."""
        if self.dt == GORT_OBJ:
            raise TypeError("only a typed channel can be used from C")
        return <uint64_t>self.c

    def send(self, value, timeout=None, *, ctx=None):
        """Send `value`; waits until there is room or a receiver. Parks.

        Raises ChanClosed if the channel is closed, also while it waits;
        TimeoutError after `timeout` seconds; the context's error when `ctx` ends.
        TypeError or OverflowError if the value does not fit the dtype.
        """
        point(b"Chan.send")
        cdef uint64_t w
        cdef int r
        put_word(self.dt, value, &w)
        if timeout is None and ctx is None:
            r = chan_send(self.c, w, True, &FOREVER)
            if r == GORT_OK:
                return
        else:
            r = GORT_EINTR
        send_slow(self, w, r, timeout, ctx)

    def recv(self, timeout=None, *, ctx=None):
        """Receive a value; waits until there is one. Parks.

        Raises ChanClosed once the channel is closed and drained; TimeoutError
        after `timeout` seconds; the context's error when `ctx` ends.
        """
        point(b"Chan.recv")
        cdef uint64_t w = 0
        cdef int r
        if timeout is None and ctx is None:
            r = chan_recv(self.c, &w, True, &FOREVER)
            if r == GORT_OK:
                return from_word(self.dt, w)
        else:
            r = GORT_EINTR
        if recv_slow(self, &w, r, timeout, ctx):
            return from_word(self.dt, w)
        raise ChanClosed("receive from a closed channel")

    def recv_ok(self, timeout=None, *, ctx=None):
        """Like `recv()`, but returns `(value, True)`, or `(zero, False)` once closed and drained."""
        point(b"Chan.recv_ok")
        cdef uint64_t w = 0
        cdef int r = GORT_EINTR
        if timeout is None and ctx is None:
            r = chan_recv(self.c, &w, True, &FOREVER)
            if r == GORT_OK:
                return from_word(self.dt, w), True
        if recv_slow(self, &w, r, timeout, ctx):
            return from_word(self.dt, w), True
        return zero_of(self.dt), False

    def send_nowait(self, value):
        """Send `value` if that needs no waiting; else raise WouldBlock. ChanClosed if closed."""
        point(b"Chan.send_nowait")
        cdef uint64_t w
        put_word(self.dt, value, &w)
        cdef int r = chan_send(self.c, w, False, &FOREVER)
        if r != GORT_OK:
            drop_word(self.dt, w)
            raise_wait(r, None)

    def recv_nowait(self):
        """Receive a value if there is one; else raise WouldBlock. ChanClosed once closed and drained."""
        point(b"Chan.recv_nowait")
        cdef uint64_t w = 0
        cdef int r = chan_recv(self.c, &w, False, &FOREVER)
        if r != GORT_OK:
            raise_wait(r, None)
        return from_word(self.dt, w)

    def close(self):
        """Close it: receivers get what is left, then the end; senders get ChanClosed.

        Raises ChanClosed if it is closed already, or nil.
        """
        point(b"Chan.close")
        cdef int r = gort_chan_close(self.c)
        if r == GORT_EBUBBLE:
            raise_wait(r, None)
        if r != GORT_OK:
            raise ChanClosed("close of nil channel" if self.c == NULL else "close of closed channel")

    def sender(self):
        """A view of the channel that can only send (and close)."""
        return Sender(self)

    def receiver(self):
        """A view of the channel that can only receive."""
        return Receiver(self)


cdef int send_slow(Chan ch, uint64_t w, int r, object timeout, object ctx) except -1:
    """Go on with a send that came back with `r`, or that has a timeout or context."""
    cdef waitopt o
    cdef int may
    try:
        if r != GORT_EINTR:
            raise_wait(r, ctx)
        main_signals()
        may = wait_options(&o, timeout, ctx)
        while True:
            r = chan_send(ch.c, w, may, &o)
            if r == GORT_OK:
                return 0
            if r == GORT_EAGAIN:
                not_in_time(ctx)
            raise_wait(r, ctx)
    except BaseException:
        drop_word(ch.dt, w)
        raise


cdef int recv_slow(Chan ch, uint64_t *w, int r, object timeout, object ctx) except -1:
    """Likewise for a receive: 1 = received, 0 = closed and drained."""
    cdef waitopt o
    cdef int may
    if r == GORT_ECLOSED:
        return 0
    if r != GORT_EINTR:
        raise_wait(r, ctx)
    main_signals()
    may = wait_options(&o, timeout, ctx)
    while True:
        r = chan_recv(ch.c, w, may, &o)
        if r == GORT_OK:
            return 1
        if r == GORT_ECLOSED:
            return 0
        if r == GORT_EAGAIN:
            not_in_time(ctx)
        raise_wait(r, ctx)


@cython.final
cdef class ChanIterator:
    cdef Chan ch

    def __cinit__(self, Chan ch not None):
        self.ch = ch

    def __iter__(self):
        return self

    def __next__(self):
        cdef uint64_t w = 0
        point(b"Chan.recv")
        cdef int r = chan_recv(self.ch.c, &w, True, &FOREVER)
        if r != GORT_OK and not recv_slow(self.ch, &w, r, None, None):
            raise StopIteration
        return from_word(self.ch.dt, w)


cdef class Sender:
    """The sending end of a channel."""
    cdef Chan ch

    def __cinit__(self, Chan ch not None):
        self.ch = ch

    @classmethod
    def __class_getitem__(cls, item):
        return _types.GenericAlias(cls, item)

    def send(self, value, timeout=None, *, ctx=None):
        """See `Chan.send`."""
        self.ch.send(value, timeout, ctx=ctx)

    def send_nowait(self, value):
        """See `Chan.send_nowait`."""
        self.ch.send_nowait(value)

    def close(self):
        """See `Chan.close`."""
        self.ch.close()

    def __len__(self):
        return len(self.ch)

    def __bool__(self):
        return True

    @property
    def cap(self):
        """See `Chan.cap`."""
        return self.ch.cap

    @property
    def closed(self):
        """See `Chan.closed`."""
        return self.ch.closed

    def __repr__(self):
        return f"<Sender of {self.ch!r}>"


cdef class Receiver:
    """The receiving end of a channel."""
    cdef Chan ch

    def __cinit__(self, Chan ch not None):
        self.ch = ch

    @classmethod
    def __class_getitem__(cls, item):
        return _types.GenericAlias(cls, item)

    def recv(self, timeout=None, *, ctx=None):
        """See `Chan.recv`."""
        return self.ch.recv(timeout, ctx=ctx)

    def recv_ok(self, timeout=None, *, ctx=None):
        """See `Chan.recv_ok`."""
        return self.ch.recv_ok(timeout, ctx=ctx)

    def recv_nowait(self):
        """See `Chan.recv_nowait`."""
        return self.ch.recv_nowait()

    def __iter__(self):
        return ChanIterator(self.ch)

    def __len__(self):
        return len(self.ch)

    def __bool__(self):
        return True

    @property
    def cap(self):
        """See `Chan.cap`."""
        return self.ch.cap

    @property
    def closed(self):
        """See `Chan.closed`."""
        return self.ch.closed

    def __repr__(self):
        return f"<Receiver of {self.ch!r}>"


NIL = Chan.__new__(Chan)
cdef gort_chan *chan_of(PyObject *o) noexcept:
    return (<Chan>o).c
gort_chan_fix_type(<void *>Chan, chan_of)


# ---- select ---------------------------------------------------------------------
cdef gort_chan *case_chan(object o) except? NULL:
    if type(o) is Chan or isinstance(o, Chan):
        return (<Chan>o).c
    return (<Receiver>o).ch.c


cdef int parse_case(object case, scase *k, int i) except -1:
    cdef Chan ch
    if isinstance(case, (Chan, Receiver)) or case is None:
        k.dir = GORT_RECV
        k.c = NULL if case is None else case_chan(case)
        k.val = 0
        return 0
    if not isinstance(case, tuple) or len(<tuple>case) != 2:
        raise TypeError(f"case {i} must be a channel or a (channel, value) tuple, not {case!r}")
    to = (<tuple>case)[0]
    k.dir = GORT_SEND
    if isinstance(to, Chan):
        ch = <Chan>to
    elif isinstance(to, Sender):
        ch = (<Sender>to).ch
    elif to is None:
        k.c = NULL
        k.val = 0
        return 0
    else:
        raise TypeError(f"case {i} must send to a channel, not to {to!r}")
    k.val = 0
    k.c = NULL
    if ch.c != NULL:
        put_word(ch.dt, (<tuple>case)[1], &k.val)
        k.c = ch.c
    return 0


cdef tuple select_result(int i, scase *k, uint64_t val, int ok):
    if k.dir == GORT_SEND:
        if not ok:
            raise ChanClosed("send on closed channel")
        k.val = 0  # the channel has taken it over
        return i, None, True
    if not ok:
        return i, zero_of(k.c.dtype), False
    return i, from_word(k.c.dtype, val), True


def select(*cases, default=False, timeout=None, ctx=None):
    """Wait until one of `cases` can go on, do it, and return `(index, value, ok)`. Parks.

    A case is a channel (receive), a tuple `(channel, value)` (send), or a nil
    channel (NIL, None, `(None, value)`), which is never ready. Among several
    ready ones the choice is uniformly random. `ok` is False only for a receive
    from a closed channel. With `default=True` and nothing ready it returns
    `(-1, None, False)` at once. Raises ChanClosed if a send on a closed channel
    is chosen, TimeoutError after `timeout` seconds, TypeError for a bad case.
    Source: Go's runtime/select.go.
    """
    cdef scase small[4]
    cdef scase *sc = small
    cdef waitopt o
    cdef Py_ssize_t n = len(cases), made = 0, j
    cdef int may = 1, i, ok = 0
    cdef uint64_t val = 0
    point(b"select")
    if n > 4:
        if n > 65534:
            raise ValueError(f"select() takes at most 65534 cases, not {n}")
        sc = <scase *>PyMem_Malloc(n * sizeof(scase))
        if sc == NULL:
            raise MemoryError()
    try:
        while made < n:
            parse_case(cases[made], &sc[made], made)
            made += 1
        if timeout is None and ctx is None:
            o = FOREVER
        else:
            may = wait_options(&o, timeout, ctx)
        while True:
            i = select_go(sc, <int>n, may and not default, &o, &val, &ok)
            if i >= 0:
                return select_result(i, &sc[i], val, ok)
            if i == GORT_EAGAIN:
                if default:
                    return -1, None, False
                not_in_time(ctx)
            raise_wait(i, ctx)
    finally:
        for j in range(made):
            if sc[j].dir == GORT_SEND and sc[j].val and sc[j].c != NULL:
                drop_word(sc[j].c.dtype, sc[j].val)
        if sc != small:
            PyMem_Free(sc)
