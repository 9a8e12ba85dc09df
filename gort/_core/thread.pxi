# thread.pxi - threading for goroutines: what gort.threading, gort.queue, gort.subprocess and gort.monkey are made of.
#
# Two kinds of things stand here. `Lock`, `ThreadHandle`, the waits for descriptors and processes work as they are.
# The rest makes the standard library's own cooperative, in place: the C function in the PyMethodDef of a builtin
# function or method becomes one of ours (as in csrc/pyctx_builtins.c), so that whoever has the Python object already,
# be it as a default argument, gets ours too. Ours calls theirs, unless a goroutine would have to wait there.
#
# A stock lock keeps its state in its semaphore. A goroutine that finds it taken waits in a queue of ours, found by the
# lock's address; each release wakes the first of that queue, to try again. Who has waited for a millisecond is given
# the lock without its being released, or others might take it for ever. Plain threads wait on the semaphore as before.
#
# Subinterpreters share the PyMethodDefs; their threads, and threads of ours that run them, get theirs.

cdef extern from *:
    """
    /* The goroutine that calls; NULL in a plain thread, and where a goroutine runs another interpreter. */
    static inline G *gort_here(void)
    {
        M *m = getm();
        G *g = m ? m->curg : NULL;
        return g && g->kind == GK_PYTHON && (PyThreadState *)g->ts == PyThreadState_Get() ? g : NULL;
    }
    static PyInterpreterState *gort_interp; /* whose objects all goroutines use */
    static inline int gort_is_home(void) { return PyInterpreterState_Get() == gort_interp; }
    static void gort_set_home(void) { gort_interp = PyInterpreterState_Get(); }

    /* ---- replacing in place ------------------------------------------------------------- */
    static PyMethodDef *gort_def(PyObject *f)
    {
        if (PyCFunction_Check(f)) return ((PyCFunctionObject *)f)->m_ml;
        if (Py_TYPE(f) == &PyMethodDescr_Type) return ((PyMethodDescrObject *)f)->d_method;
        return NULL;
    }
    #define GORT_KINDS (METH_VARARGS | METH_KEYWORDS | METH_NOARGS | METH_O | METH_FASTCALL | METH_METHOD)

    /* A replacement that is any callable. A function of C does not know which Python function it is: one for each. */
    #define GORT_SPOTS 48
    static struct { PyMethodDef *def, stock; PyObject *ours; int method, home; } gort_spot[GORT_SPOTS];
    static int gort_nspots;

    static PyObject *gort_redirect(int i, PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names)
    {
        PyObject *small[8], **all = small, *r;
        Py_ssize_t k = n + (names ? PyTuple_GET_SIZE(names) : 0);
        if (!gort_spot[i].method) return PyObject_Vectorcall(gort_spot[i].ours, args, (size_t)n, names);
        if (k + 1 > 8 && !(all = PyMem_Malloc((size_t)(k + 1) * sizeof *all))) return PyErr_NoMemory();
        all[0] = self;
        for (Py_ssize_t j = 0; j < k; j++) all[j + 1] = args[j];
        r = PyObject_Vectorcall(gort_spot[i].ours, all, (size_t)n + 1, names);
        if (all != small) PyMem_Free(all);
        return r;
    }
    static PyObject *gort_redirect_tuple(int i, PyObject *self, PyObject *args, PyObject *kwargs)
    {
        PyObject *all, *r;
        if (!gort_spot[i].method) return PyObject_Call(gort_spot[i].ours, args, kwargs);
        all = PyTuple_New(PyTuple_GET_SIZE(args) + 1);
        if (!all) return NULL;
        PyTuple_SET_ITEM(all, 0, Py_NewRef(self));
        for (Py_ssize_t j = 0; j < PyTuple_GET_SIZE(args); j++)
            PyTuple_SET_ITEM(all, j + 1, Py_NewRef(PyTuple_GET_ITEM(args, j)));
        r = PyObject_Call(gort_spot[i].ours, all, kwargs);
        Py_DECREF(all);
        return r;
    }

    typedef PyObject *(*gort_kw)(PyObject *, PyObject *, PyObject *);
    typedef PyObject *(*gort_fast)(PyObject *, PyObject *const *, Py_ssize_t);
    typedef PyObject *(*gort_fastkw)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
    typedef PyObject *(*gort_meth)(PyObject *, PyTypeObject *, PyObject *const *, Py_ssize_t, PyObject *);
    /* numbered 10 to 17, 20 to 27, ..., which SPOT() makes 0, 1, 2, ... */
    #define SPOT(n) ((n / 10 - 1) * 8 + n % 10)
    #define THEIRS(n) gort_spot[SPOT(n)].stock.ml_meth
    #define OURS(n) (gort_spot[SPOT(n)].home ? gort_is_home() : gort_here() != NULL)
    #define GORT_SPOT(i)                                                                                             \\
    static PyObject *gort_o##i(PyObject *s, PyObject *a)                                                             \\
    { return OURS(i) ? gort_redirect(SPOT(i), s, &a, 1, NULL) : THEIRS(i)(s, a); }                                   \\
    static PyObject *gort_n##i(PyObject *s, PyObject *a)                                                             \\
    { return OURS(i) ? gort_redirect(SPOT(i), s, NULL, 0, NULL) : THEIRS(i)(s, a); }                                 \\
    static PyObject *gort_v##i(PyObject *s, PyObject *a)                                                             \\
    { return OURS(i) ? gort_redirect_tuple(SPOT(i), s, a, NULL) : THEIRS(i)(s, a); }                                 \\
    static PyObject *gort_k##i(PyObject *s, PyObject *a, PyObject *k)                                                \\
    { return OURS(i) ? gort_redirect_tuple(SPOT(i), s, a, k) : ((gort_kw)(void *)THEIRS(i))(s, a, k); }              \\
    static PyObject *gort_f##i(PyObject *s, PyObject *const *a, Py_ssize_t n)                                        \\
    { return OURS(i) ? gort_redirect(SPOT(i), s, a, n, NULL) : ((gort_fast)(void *)THEIRS(i))(s, a, n); }            \\
    static PyObject *gort_w##i(PyObject *s, PyObject *const *a, Py_ssize_t n, PyObject *k)                           \\
    { return OURS(i) ? gort_redirect(SPOT(i), s, a, n, k) : ((gort_fastkw)(void *)THEIRS(i))(s, a, n, k); }          \\
    static PyObject *gort_m##i(PyObject *s, PyTypeObject *t, PyObject *const *a, Py_ssize_t n, PyObject *k)          \\
    { return OURS(i) ? gort_redirect(SPOT(i), s, a, n, k) : ((gort_meth)(void *)THEIRS(i))(s, t, a, n, k); }
    #define EIGHT(M, d) M(d##0) M(d##1) M(d##2) M(d##3) M(d##4) M(d##5) M(d##6) M(d##7)
    #define ALL_SPOTS(M) EIGHT(M, 1) EIGHT(M, 2) EIGHT(M, 3) EIGHT(M, 4) EIGHT(M, 5) EIGHT(M, 6)
    ALL_SPOTS(GORT_SPOT)
    #define SEVEN(n) { (void *)gort_o##n, (void *)gort_n##n, (void *)gort_v##n, (void *)gort_k##n, \\
                       (void *)gort_f##n, (void *)gort_w##n, (void *)gort_m##n },
    static void *const gort_stubs[GORT_SPOTS][7] = { ALL_SPOTS(SEVEN) };

    /* 0, or -1 without an exception: what f is cannot be replaced so. */
    static int gort_replace(PyObject *f, PyObject *ours, int home)
    {
        static const int kinds[7] = { METH_O, METH_NOARGS, METH_VARARGS, METH_VARARGS | METH_KEYWORDS, METH_FASTCALL,
                                      METH_FASTCALL | METH_KEYWORDS, METH_METHOD | METH_FASTCALL | METH_KEYWORDS };
        PyMethodDef *def = gort_def(f);
        int i, k;
        if (!def) return -1;
        for (i = 0; i < gort_nspots; i++)
            if (gort_spot[i].def == def) return 0;
        for (k = 0; k < 7 && (def->ml_flags & GORT_KINDS) != kinds[k]; k++) {}
        if (k == 7 || i == GORT_SPOTS) return -1;
        gort_spot[i].def = def;
        gort_spot[i].stock = *def;
        gort_spot[i].ours = Py_NewRef(ours);
        gort_spot[i].method = !PyCFunction_Check(f);
        gort_spot[i].home = home;
        gort_nspots++;
        def->ml_meth = (PyCFunction)gort_stubs[i][k];
        return 0;
    }

    /* A function like f, a builtin one, that does what f does now, whatever becomes of f. */
    static PyObject *gort_keep(PyObject *f)
    {
        PyCFunctionObject *c = (PyCFunctionObject *)f;
        PyMethodDef *def;
        PyTypeObject *cls = NULL;
        if (Py_TYPE(f) != &PyCFunction_Type || !(def = PyMem_Malloc(sizeof *def))) return Py_NewRef(f);
        *def = *c->m_ml;
        for (int i = 0; i < gort_nspots; i++)
            if (gort_spot[i].def == c->m_ml) *def = gort_spot[i].stock;
        return PyCMethod_New(def, c->m_self, c->m_module, cls);
    }
    static PyObject *gort_keep_method(PyObject *f)
    {
        PyMethodDef *def;
        if (Py_TYPE(f) != &PyMethodDescr_Type || !(def = PyMem_Malloc(sizeof *def))) return Py_NewRef(f);
        *def = *((PyMethodDescrObject *)f)->d_method;
        for (int i = 0; i < gort_nspots; i++)
            if (gort_spot[i].def == ((PyMethodDescrObject *)f)->d_method) *def = gort_spot[i].stock;
        return PyDescr_NewMethod(((PyDescrObject *)f)->d_type, def);
    }

    /* ---- stock locks ------------------------------------------------------------------------ */
    static PyCFunction gort_their_acquire, gort_their_release; /* for all names that they have */
    static PyObject *gort_no_wait; /* (False,) */

    #if PY_VERSION_HEX < 0x030E0000
    typedef struct { PyObject_HEAD PyThread_type_lock lock; PyObject *weak; char locked; } gort_stock_lock;
    static inline int gort_lock_try(PyObject *o)
    {
        gort_stock_lock *l = (gort_stock_lock *)o;
        if (!PyThread_acquire_lock(l->lock, NOWAIT_LOCK)) return 0;
        l->locked = 1;
        return 1;
    }
    static inline int gort_lock_locked(PyObject *o) { return ((gort_stock_lock *)o)->locked; }
    #else
    static int gort_lock_try(PyObject *o)
    {
        PyObject *r = ((gort_kw)(void *)gort_their_acquire)(o, gort_no_wait, NULL);
        int got = r == Py_True;
        Py_XDECREF(r);
        return r ? got : -1;
    }
    static inline int gort_lock_locked(PyObject *o)
    {
        PyObject *r = PyObject_CallMethod(o, "locked", NULL);
        int yes = r == Py_True;
        Py_XDECREF(r);
        return yes;
    }
    #endif

    static int gort_lock_wait(PyObject *o, PyObject *args, PyObject *kwargs); /* below: 1, 0 or -1 */
    static int gort_lock_pass(PyObject *o);                                   /* 1: it is somebody else's now */
    static int64_t gort_lock_queues;

    static PyObject *gort_lock_acquire(PyObject *o, PyObject *args, PyObject *kwargs)
    {
        int got;
        if (PyTuple_GET_SIZE(args) == 0 && !kwargs && (got = gort_lock_try(o)) != 0)
            return got < 0 ? NULL : Py_NewRef(Py_True);
        if (!gort_is_home()) return ((gort_kw)(void *)gort_their_acquire)(o, args, kwargs);
        got = gort_lock_wait(o, args, kwargs);
        if (got == 2) return ((gort_kw)(void *)gort_their_acquire)(o, args, kwargs);
        return got < 0 ? NULL : Py_NewRef(got ? Py_True : Py_False);
    }
    static PyObject *gort_lock_release(PyObject *o, PyObject *args)
    {
        if (gort_lock_queues && gort_is_home() && gort_lock_locked(o)) {
            int r = gort_lock_pass(o);
            if (r) Py_RETURN_NONE;
        }
        return gort_their_release(o, args);
    }
    /* 0, or -1: the type's methods are not what is known of them. */
    static int gort_replace_lock(PyTypeObject *type)
    {
        static const char *const names[] = { "acquire", "acquire_lock", "__enter__",
                                             "release", "release_lock", "__exit__" };
        static const int flags[] = { METH_VARARGS | METH_KEYWORDS, METH_VARARGS | METH_KEYWORDS,
                                     METH_VARARGS | METH_KEYWORDS, METH_NOARGS, METH_NOARGS, METH_VARARGS };
        PyMethodDef *defs[6];
        if (gort_their_acquire) return 0;
        for (int i = 0; i < 6; i++) {
            PyObject *f = PyDict_GetItemString(type->tp_dict, names[i]);
            defs[i] = f ? gort_def(f) : NULL;
            if (!defs[i] || (defs[i]->ml_flags & GORT_KINDS) != flags[i]) return -1;
            if (defs[i]->ml_meth != defs[i / 3 * 3]->ml_meth) return -1;
        }
        if (!(gort_no_wait = PyTuple_Pack(1, Py_False))) {
            PyErr_Clear();
            return -1;
        }
        gort_their_acquire = defs[0]->ml_meth;
        gort_their_release = defs[3]->ml_meth;
        for (int i = 0; i < 6; i++)
            defs[i]->ml_meth = i < 3 ? (PyCFunction)(void *)gort_lock_acquire : gort_lock_release;
        return 0;
    }
    """
    G *gort_here()
    bint gort_is_home()
    void gort_set_home()
    int gort_replace(PyObject *f, PyObject *ours, bint home)
    object gort_keep(object f)
    object gort_keep_method(object f)
    int gort_replace_lock(PyTypeObject *type)
    int gort_lock_try(PyObject *o) except -1
    PyObject *gort_their_release_of "gort_their_release"(PyObject *o, PyObject *args)
    int64_t gort_lock_queues
    enum: R_MUTEX, R_IO

cdef extern from *:
    """
    #include <fcntl.h>
    #include <poll.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    #ifndef SYS_pidfd_open
    #define SYS_pidfd_open 434
    #endif
    static int gort_pidfd(int pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }
    static int gort_dup(int fd) { return fcntl(fd, F_DUPFD_CLOEXEC, 0); }
    /* Whether read() or write() on fd would wait: it is not ready, not in non-blocking mode, and no error. */
    static int gort_would_wait(int fd, int side)
    {
        struct pollfd p = { .fd = fd, .events = side == PD_READ ? POLLIN : POLLOUT };
        int flags;
        if (poll(&p, 1, 0) != 0) return 0;
        flags = fcntl(fd, F_GETFL);
        if (flags < 0 || (flags & O_NONBLOCK)) return 0;
        return (flags & O_ACCMODE) != (side == PD_READ ? O_WRONLY : O_RDONLY);
    }
    /* What CPython says of an exception that ends a thread. */
    static void gort_thread_failed(PyObject *fn)
    {
    #if PY_VERSION_HEX >= 0x030D0000
        PyErr_FormatUnraisable("Exception ignored in thread started by %R", fn);
    #else
        _PyErr_WriteUnraisableMsg("in thread started by", fn);
    #endif
    }
    """
    int gort_pidfd(int pid)
    int gort_dup(int fd)
    bint gort_would_wait(int fd, int side)
    void gort_thread_failed(PyObject *fn)

cdef int64_t PATIENCE = 10 * 365 * 86400 * <int64_t>1000000000


cdef inline void patient(waitopt *o) noexcept:
    """A handler of signals may end what the standard library waits for: it is no deadlock of the main goroutine."""
    cdef G *g
    if o.deadline == GORT_FOREVER:
        g = gort_curg()
        if g != NULL and g.main:
            o.deadline = gort_now_ns() + PATIENCE


# ---- queues of waiters, by address ---------------------------------------------------------
cdef struct lock_waiter:
    gort_notify n
    bint woken                      # has been taken off its queue
    bint granted                    # and need not try
    int64_t since
    lock_waiter *next
    lock_waiter *prev

cdef struct lock_queue:
    void *key
    lock_queue *link
    lock_waiter *first
    lock_waiter *last
    bint turn

cdef extern from *:
    """
    static inline size_t gort_hash(void *p) { return (size_t)((uintptr_t)p >> 4) * (size_t)0x9E3779B97F4A7C15u >> 20; }
    """
    size_t gort_hash(void *p)

cdef lock_queue **lock_table = NULL
cdef size_t lock_room = 0           # a power of two
cdef lock_queue *lock_spare = NULL
cdef uint16_t lock_gen = 0
cdef int64_t STARVING_NS = 1000000


cdef void locks_forked() noexcept:
    """In a fork's child nobody waits: what there was is left where it lies."""
    global lock_table, lock_room, lock_spare, lock_gen, gort_lock_queues
    lock_gen = gort_fork_gen
    lock_table = NULL
    lock_room = 0
    lock_spare = NULL
    gort_lock_queues = 0


cdef lock_queue *lock_find(void *key) noexcept:
    cdef lock_queue *q
    if lock_gen != gort_fork_gen:
        locks_forked()
    if lock_room == 0:
        return NULL
    q = lock_table[gort_hash(key) & (lock_room - 1)]
    while q != NULL and q.key != key:
        q = q.link
    return q


cdef int lock_grow() except -1:
    global lock_table, lock_room
    cdef size_t room = lock_room * 2 if lock_room else 64, i, at
    cdef lock_queue **table = <lock_queue **>PyMem_Malloc(room * sizeof(lock_queue *))
    cdef lock_queue *q
    cdef lock_queue *after
    if table == NULL:
        raise MemoryError("gort: no memory for a wait")
    memset(table, 0, room * sizeof(lock_queue *))
    for i in range(lock_room):
        q = lock_table[i]
        while q != NULL:
            after = q.link
            at = gort_hash(q.key) & (room - 1)
            q.link = table[at]
            table[at] = q
            q = after
    PyMem_Free(lock_table)
    lock_table = table
    lock_room = room
    return 0


cdef int lock_enqueue(void *key, lock_waiter *w, bint front) except -1:
    global lock_spare, gort_lock_queues
    cdef lock_queue *q = lock_find(key)
    cdef size_t at
    if q == NULL:
        if <size_t>gort_lock_queues >= lock_room:
            lock_grow()
        q = lock_spare
        if q != NULL:
            lock_spare = q.link
        else:
            q = <lock_queue *>PyMem_Malloc(sizeof(lock_queue))
            if q == NULL:
                raise MemoryError("gort: no memory for a wait")
        memset(q, 0, sizeof(lock_queue))
        q.key = key
        at = gort_hash(key) & (lock_room - 1)
        q.link = lock_table[at]
        lock_table[at] = q
        gort_lock_queues += 1
    w.woken = w.granted = False
    if q.first == NULL:
        w.next = w.prev = NULL
        q.first = q.last = w
    elif front:
        w.prev = NULL
        w.next = q.first
        q.first.prev = w
        q.first = w
    else:
        w.next = NULL
        w.prev = q.last
        q.last.next = w
        q.last = w
    return 0


cdef void lock_dequeue(lock_queue *q, lock_waiter *w) noexcept:
    global lock_spare, gort_lock_queues
    cdef lock_queue **at
    if w.prev != NULL:
        w.prev.next = w.next
    else:
        q.first = w.next
    if w.next != NULL:
        w.next.prev = w.prev
    else:
        q.last = w.prev
    if q.first == NULL:
        at = &lock_table[gort_hash(q.key) & (lock_room - 1)]
        while at[0] != q:
            at = &at[0].link
        at[0] = q.link
        q.link = lock_spare
        lock_spare = q
        gort_lock_queues -= 1


cdef int wait_at(void *key, lock_waiter *w, bint again, int reason, const waitopt *o) except -1:
    """Park until `wake_at(key)`, or the deadline: 1 or 0. Raises what else ends a wait."""
    cdef int r
    memset(&w.n, 0, sizeof(gort_notify))
    w.n.gen = gort_fork_gen
    if not again:
        w.since = gort_now_ns()
    lock_enqueue(key, w, again)
    try:
        while not w.woken:
            r = notify_wait(&w.n, reason, o)
            if r == GORT_ETIMEDOUT and not w.woken:
                return 0
            if r != GORT_OK and not w.woken:
                raise_wait(r, None)
        return 1
    finally:
        if not w.woken:
            lock_dequeue(lock_find(key), w)


cdef bint wake_at(void *key, bint grant) noexcept:
    """Wake the first who waits there; with `grant`, whether it was given what it waits for."""
    cdef lock_queue *q = lock_find(key)
    cdef lock_waiter *w
    cdef bint granted = False
    if q == NULL:
        return False
    w = q.first
    if grant and gort_now_ns() - w.since > STARVING_NS:
        q.turn = not q.turn  # else a plain thread that waits as well might never get it
        granted = q.turn
    lock_dequeue(q, w)
    w.woken = True
    w.granted = granted
    notify_wake(&w.n, False)
    return granted


cdef int lock_pass "gort_lock_pass"(PyObject *o) noexcept:
    return wake_at(o, True)


cdef set theirs = set()             # ids of stock locks that CPython itself releases


cdef int lock_wait "gort_lock_wait"(PyObject *o, PyObject *args, PyObject *kwargs) except -1:
    """acquire(): whether it was; 2 if CPython's own is to do it, also if the arguments are wrong."""
    cdef object a = <object>args, blocking = True, timeout = -1
    cdef lock_waiter w
    cdef waitopt opt = FOREVER
    cdef bint again = False
    cdef double seconds
    w.granted = False
    cdef Py_ssize_t n = len(<tuple>a), left
    if n > 2:
        return 2
    if n:
        blocking = (<tuple>a)[0]
    if n == 2:
        timeout = (<tuple>a)[1]
    if kwargs != NULL:
        left = len(<dict>kwargs)
        if n < 1 and "blocking" in <object>kwargs:
            blocking = (<dict>kwargs)["blocking"]
            left -= 1
        if n < 2 and "timeout" in <object>kwargs:
            timeout = (<dict>kwargs)["timeout"]
            left -= 1
        if left:
            return 2
    if type(timeout) is not int and type(timeout) is not float:
        return 2
    if timeout != -1:
        if not blocking or not 0 <= timeout <= TIMEOUT_MAX:
            return 2
        seconds = timeout
        if seconds == 0.0:
            blocking = False
        else:
            opt.deadline = deadline_after(seconds)
    if not blocking:
        return gort_lock_try(o)
    if gort_here() == NULL or (theirs and <uint64_t>o in theirs):
        return 2
    patient(&opt)
    while not gort_lock_try(o):
        if not wait_at(o, &w, again, R_MUTEX, &opt):
            return 0
        if w.granted:
            break
        again = True
    if again or w.granted:
        try:
            main_due()
        except BaseException:
            lock_unlock(o)
            raise
    return 1


cdef inline int main_due() except -1:
    """After a wait: the main goroutine runs the handlers that were left to it when it was to run already."""
    cdef G *g
    if gort_main_intr:
        g = gort_curg()
        if g != NULL and g.main:
            main_signals()
    return 0


cdef extern from *:
    """
    static int gort_lock_unlock(PyObject *o)
    {
        PyObject *r = gort_lock_release(o, NULL);
        Py_XDECREF(r);
        return r ? 0 : -1;
    }
    """
    int lock_unlock "gort_lock_unlock"(PyObject *o) except -1

cdef double TIMEOUT_MAX = _threading.TIMEOUT_MAX


# ---- Lock --------------------------------------------------------------------------------------
cdef class Lock:
    """`threading.Lock` for goroutines and threads, be the standard library patched or not. Its methods may park."""
    cdef gort_mutex m
    cdef object __weakref__

    def __cinit__(self):
        self.m.bubble = fake_bubble() != 0

    def acquire(self, blocking=True, timeout=-1):
        """Lock it; whether that was done. As `threading.Lock.acquire`."""
        cdef waitopt o = FOREVER
        cdef int r
        cdef double seconds
        point(b"Lock.acquire")
        if not blocking and timeout != -1:
            raise ValueError("can't specify a timeout for a non-blocking call")
        if timeout != -1:
            if timeout < 0:
                raise ValueError("timeout value must be a non-negative number")
            if timeout > TIMEOUT_MAX:
                raise OverflowError("timeout value is too large")
        if not self.m.locked and not self.m.starving:
            self.m.locked = True
            return True
        if not blocking:
            return False
        if timeout != -1:
            seconds = timeout
            if seconds == 0.0:
                return False
            o.deadline = deadline_after(seconds)
        patient(&o)
        while True:
            r = mutex_lock(&self.m, True, &o)
            if r == GORT_OK:
                return True
            if r == GORT_ETIMEDOUT:
                return False
            raise_wait(r, None)

    def release(self):
        """Unlock it, whoever locked it; RuntimeError if it is not locked."""
        point(b"Lock.release")
        if mutex_unlock(&self.m) != GORT_OK:
            raise RuntimeError("release unlocked lock")

    def locked(self):
        """Whether somebody holds it."""
        return self.m.locked

    acquire_lock = acquire
    release_lock = release
    locked_lock = locked

    def __enter__(self):
        if not self.m.locked and not self.m.starving and not gort_nseeded:
            self.m.locked = True
            return True
        return self.acquire()

    def __exit__(self, *exc):
        self.release()

    def _at_fork_reinit(self):
        memset(&self.m, 0, sizeof(self.m))

    def __repr__(self):
        what = "locked" if self.m.locked else "unlocked"
        return f"<{what} gort.threading.Lock object at {<uint64_t><void *>self:#x}>"


# ---- threads -------------------------------------------------------------------------------------
cdef dict waited_for = {}           # goroutines that are non-daemon threads, where CPython asks who is (3.13)
cdef int64_t nthreads = 0
cdef uint16_t nthreads_gen = 0


@cython.final
cdef class ThreadHandle:
    """What threading knows of a thread that is a goroutine: `_thread._ThreadHandle` from 3.13 on."""
    cdef Goroutine g
    cdef object sentinel            # a lock that is released at its end (up to 3.12)
    cdef bint starting
    cdef object __weakref__

    @property
    def ident(self):
        """Its `threading.get_ident()`; 0 before it has started."""
        return 0 if self.g is None else self.g.node.id

    def join(self, timeout=None):
        """Wait for its end, or for `timeout` seconds. Parks."""
        cdef waitopt o = FOREVER
        cdef int r
        cdef double seconds
        if self.g is None:
            raise RuntimeError("thread not started")
        self.g.settle()
        if self.g._done:
            return
        if self.g.g != NULL and self.g.g == gort_curg():
            raise RuntimeError("Cannot join current thread")
        if timeout is not None:
            seconds = float(timeout)
            if seconds == 0.0:
                return
            if seconds > 0:
                o.deadline = deadline_after(seconds)
        patient(&o)
        while not self.g._done:
            r = notify_wait(&self.g.joiners, R_JOIN, &o)
            if r == GORT_ETIMEDOUT:
                return
            if r != GORT_OK:
                raise_wait(r, None)
        main_due()

    def is_done(self):
        """Whether it has ended."""
        if self.g is None:
            return False
        self.g.settle()
        return self.g._done

    def _set_done(self):
        if self.g is None:
            raise RuntimeError("thread not started")

    def __repr__(self):
        return f"<ThreadHandle object: ident={self.ident}>"


cdef int thread_ended(Goroutine g) except -1:
    global nthreads
    cdef ThreadHandle h = g.thread
    waited_for.pop(g.node.id, None)
    if nthreads_gen == gort_fork_gen:
        nthreads -= 1
    lock, h.sentinel = h.sentinel, None
    if lock is not None and lock.locked():
        lock.release()
    return 0


cdef void thread_failed(Goroutine g, object e) noexcept:
    """Its function has raised: SystemExit is its end, of anything else sys.unraisablehook is told."""
    if isinstance(e, SystemExit):
        return
    PyErr_SetObject(type(e), e)
    gort_thread_failed(<PyObject *>g.what)


cdef void thread_not_started(Goroutine g) noexcept:
    """There was no memory for it. Whoever waits in `Thread.start()` is told that it has begun; it has ended."""
    try:
        thread = getattr(g.what, "__self__", None)
        if isinstance(thread, _threading.Thread):
            _threading._limbo.pop(thread, None)
            thread._is_stopped = True
            thread._started.set()
        unraisable(RuntimeError("can't start new thread"))
    except BaseException as e:
        unraisable(e)


cdef object thread_name(Goroutine g):
    thread = getattr(g.what, "__self__", None)
    if isinstance(thread, _threading.Thread) and thread._initialized:
        return thread.name
    return name_of(g.what)


cdef int forget_dummy(Goroutine g) except -1:
    """threading may have made a Thread for a goroutine that asked who it is."""
    _threading._active.pop(g.node.id, None)
    return 0


cdef ThreadHandle start_thread(object fn, object args, object kwargs, ThreadHandle h, bint daemon):
    global nthreads, nthreads_gen
    cdef Goroutine g
    if h is None:
        h = ThreadHandle.__new__(ThreadHandle)
    elif h.g is not None or h.starting:
        raise RuntimeError("thread already started")
    if gort_stopped:
        raise RuntimeError("can't create new thread at interpreter shutdown")
    h.starting = True
    try:
        g = spawn(fn, args, kwargs, None, NULL, False, h)
    finally:
        h.starting = False
    h.g = g
    if nthreads_gen != gort_fork_gen:
        nthreads_gen = gort_fork_gen
        nthreads = 0
    nthreads += 1
    if not daemon:
        waited_for[g.node.id] = h
    return h


def _start_new_thread(function, args, kwargs=None, /):
    """`_thread.start_new_thread`: start a goroutine, return its `get_ident()`."""
    if not callable(function):
        raise TypeError("first arg must be callable")
    if not isinstance(args, tuple):
        raise TypeError("2nd arg must be a tuple")
    if kwargs is not None and not isinstance(kwargs, dict):
        raise TypeError("optional 3rd arg must be a dictionary")
    sys.audit("_thread.start_new_thread", function, args, kwargs)
    return start_thread(function, tuple(args), dict(kwargs) if kwargs else None, None, True).g.node.id


def _start_joinable_thread(function, handle=None, daemon=True):
    """`_thread.start_joinable_thread` (3.13)."""
    if not callable(function):
        raise TypeError("thread function must be callable")
    if handle is not None and not isinstance(handle, ThreadHandle):
        thread = getattr(function, "__self__", None)
        if getattr(thread, "_handle", None) is not handle:
            raise TypeError("'handle' must be a _ThreadHandle")
        handle = thread._handle = ThreadHandle()  # a Thread that was made before the patch
    sys.audit("_thread.start_joinable_thread", function, bool(daemon), handle)
    return start_thread(function, None, None, handle, bool(daemon))


def _set_sentinel(make):
    """`_thread._set_sentinel` (up to 3.12): a lock that the end of this thread releases."""
    cdef Goroutine g = running()
    lock = make()
    if g is not None and g.thread is not None:
        (<ThreadHandle>g.thread).sentinel = lock
    return lock


def _is_thread():
    """Whether the caller is a goroutine that threading has started."""
    cdef Goroutine g = running()
    return g is not None and g.thread is not None


def _join_threads():
    """Wait for the non-daemon threads that are goroutines. Parks."""
    cdef ThreadHandle h
    while waited_for:
        for ident, h in list(waited_for.items()):
            if h.g is not running():
                h.join()
            waited_for.pop(ident, None)


def _thread_count():
    """How many goroutines threading has started that have not ended."""
    return nthreads if nthreads_gen == gort_fork_gen else 0


def _is_home():
    """Whether the calling code runs in the interpreter in which gort was started."""
    return gort_is_home()


# ---- time, descriptors, processes -----------------------------------------------------------------
_stock_sleep = gort_keep(_time.sleep)
_stock_read = gort_keep(_os.read)
_stock_write = gort_keep(_os.write)
_stock_waitpid = gort_keep(_os.waitpid)
_stock_wait4 = gort_keep(_os.wait4)
_stock_waitid = gort_keep(_os.waitid)


def _time_sleep(seconds, /):
    """`time.sleep`. Parks."""
    cdef double d
    cdef waitopt o = FOREVER
    cdef int64_t until
    cdef int r
    if type(seconds) is float or type(seconds) is int:
        if 0 < seconds < 1e9:
            d = seconds
            until = deadline_after(d)
            while True:
                r = sleep_until(until, &o)
                if r == GORT_OK:
                    main_due()
                    return
                raise_wait(r, None)
        if seconds == 0:
            gosched_fast(NULL, NULL, 0)
            return
    return _stock_sleep(seconds)


cdef int wait_fd(int fd, bint own, int side, double seconds) except -1:
    """Park until a call on it would not wait, or has news to tell; 0 if `seconds` (negative: for ever) have passed.

    Of a descriptor that is not ours, and maybe not this process's alone, a
    duplicate is watched: its mode is left as it is. 2: it cannot be watched.
    """
    cdef waitopt o = FOREVER
    cdef gort_pd *pd
    cdef int r
    if not own:
        fd = gort_dup(fd)
        if fd < 0:
            return 2
    pd = pd_open(fd, False)
    if pd == NULL:
        c_close(fd)
        raise MemoryError("gort: no memory for a wait")
    if seconds >= 0:
        o.deadline = deadline_after(seconds)
    patient(&o)
    try:
        pd_turn(pd, side, &FOREVER)
        try:
            while True:
                r = pd_wait(pd, side, &o)
                if r == GORT_OK:
                    return 1
                if r == GORT_ETIMEDOUT:
                    return 0
                if r <= NET_SYS:
                    return 2
                raise_wait(r, None)
        finally:
            pd_done(pd, side)
    finally:
        pd_close(pd)
        pd_free(pd)
        main_due()


def _os_read(fd, n, /):
    """`os.read`: a goroutine parks until there is something to read."""
    if type(fd) is int and 0 <= fd <= 0x7FFFFFFF and gort_would_wait(fd, PD_READ):
        wait_fd(fd, False, PD_READ, -1.0)
    return _stock_read(fd, n)


def _os_write(fd, data, /):
    """`os.write`: a goroutine parks until there is room."""
    if type(fd) is int and 0 <= fd <= 0x7FFFFFFF and gort_would_wait(fd, PD_WRITE):
        wait_fd(fd, False, PD_WRITE, -1.0)
    return _stock_write(fd, data)


def _ready(int fd, bint write):
    """Park while a read or write of a descriptor would wait."""
    cdef int side = PD_WRITE if write else PD_READ
    if gort_here() != NULL and gort_would_wait(fd, side):
        wait_fd(fd, False, side, -1.0)


def _is_main():
    """Whether the caller is the main goroutine."""
    cdef G *g = gort_here()
    return g != NULL and g.main


def _wait_process(int pid, seconds=None):
    """Wait until the process has ended, or for `seconds`. Parks.

    True: it has, or there is none, or the kernel cannot tell. Nothing is reaped.
    """
    cdef int fd = gort_pidfd(pid)
    if fd < 0:
        return True
    return wait_fd(fd, True, PD_READ, -1.0 if seconds is None else to_seconds(seconds, "seconds")) != 0


def _os_waitpid(pid, options, /):
    """`os.waitpid`: of one process, a goroutine parks until it has ended."""
    if type(pid) is int and type(options) is int and 0 < pid <= 0x7FFFFFFF and options == 0:
        done = _stock_waitpid(pid, _os.WNOHANG)
        if done[0]:
            return done
        _wait_process(pid)
    return _stock_waitpid(pid, options)


def _os_wait4(pid, options):
    """`os.wait4`: of one process, a goroutine parks until it has ended."""
    if type(pid) is int and type(options) is int and 0 < pid <= 0x7FFFFFFF and options == 0:
        done = _stock_wait4(pid, _os.WNOHANG)
        if done[0]:
            return done
        _wait_process(pid)
    return _stock_wait4(pid, options)


def _os_waitid(idtype, id, options, /):
    """`os.waitid`: of one process, a goroutine parks until it has ended."""
    if (idtype == _os.P_PID and type(id) is int and type(options) is int and 0 < id <= 0x7FFFFFFF
            and options & ~_os.WNOWAIT == _os.WEXITED):
        done = _stock_waitid(idtype, id, options | _os.WNOHANG)
        if done is not None:
            return done
        _wait_process(id)
    return _stock_waitid(idtype, id, options)


# ---- queue.SimpleQueue ------------------------------------------------------------------------------
cdef dict simple_types = {}
cdef object method_descriptor = type(_queue.SimpleQueue.get)


cdef tuple simple_stock(object cls):
    """CPython's get, put and empty of a SimpleQueue. `_queue` may be there more than once (import_fresh_module)."""
    for base in cls.__mro__:
        names = base.__dict__
        if type(names.get("get_nowait")) is method_descriptor:
            break
    else:
        raise TypeError(f"a SimpleQueue is needed, not a {cls.__name__}")
    found = simple_types.get(base)
    if found is None:
        found = gort_keep_method(names["get"]), gort_keep_method(names["put"]), names["empty"]
        simple_types[base] = found
    simple_types[cls] = found
    return found


cdef inline tuple simple_of(object q):
    found = simple_types.get(type(q))
    return simple_stock(type(q)) if found is None else found


def _simple_get(self, block=True, timeout=None):
    """`queue.SimpleQueue.get`: a goroutine parks until there is an item."""
    cdef lock_waiter w
    cdef waitopt o = FOREVER
    cdef bint again = False
    cdef double seconds
    get, _, empty = simple_of(self)
    if not block or not empty(self):
        return get(self, block, timeout)
    if timeout is not None:
        if type(timeout) is not int and type(timeout) is not float or not 0 < timeout <= TIMEOUT_MAX:
            return get(self, block, timeout)
        seconds = timeout
        o.deadline = deadline_after(seconds)
    patient(&o)
    while True:
        if not wait_at(<void *>self, &w, again, R_CHAN_RECV, &o):
            return get(self, False)  # raises queue.Empty
        if not empty(self):
            return get(self, False)
        again = True


def _simple_put(self, item, block=True, timeout=None):
    """`queue.SimpleQueue.put`."""
    simple_of(self)[1](self, item, block, timeout)
    if gort_lock_queues:
        wake_at(<void *>self, False)


# ---- what gort.monkey does -----------------------------------------------------------------------------
def _keep(function):
    """A builtin function like this one, that goes on to do what it did before it was replaced."""
    return gort_keep(function)


def _replace(function, ours, home=False):
    """Have a builtin function or method call `ours` from now on, in goroutines; with `home`, in plain threads too.

    False if it is none of those that can be replaced so.
    """
    return gort_replace(<PyObject *>function, <PyObject *>ours, home) == 0


def _replace_locks():
    """Have goroutines park where they wait for a lock of CPython's, be it old or new. False if it is not as known."""
    kind = type(_thread.allocate_lock())
    for thread in list(_threading._active.values()):
        sentinel = getattr(thread, "_tstate_lock", None)
        if sentinel is not None:
            keep_theirs(sentinel)
    return gort_replace_lock(<PyTypeObject *>kind) == 0


cdef int keep_theirs(object lock) except -1:
    """Of a lock that CPython releases in C, at the end of a plain thread, nobody of ours is told."""
    key = <uint64_t><void *>lock
    theirs.add(key)
    _weakref.finalize(lock, theirs.discard, key).atexit = False
    return 0


def _keep_theirs(lock):
    keep_theirs(lock)
