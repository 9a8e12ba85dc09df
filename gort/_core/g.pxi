# g.pxi - goroutines: go(), the Goroutine handle, what Go's package runtime has.

cdef extern from *:
    """
    /* The exception just raised, with its traceback, as an owned reference. */
    static PyObject *gort_raised(void)
    {
    #if PY_VERSION_HEX >= 0x030C0000
        return PyErr_GetRaisedException();
    #else
        PyObject *t, *v, *tb;
        PyErr_Fetch(&t, &v, &tb);
        PyErr_NormalizeException(&t, &v, &tb);
        if (tb) PyException_SetTraceback(v, tb);
        Py_XDECREF(t);
        Py_XDECREF(tb);
        return v;
    #endif
    }
    static inline PyObject *gort_qualname(PyObject *fn)
    {
        PyObject *n = PyFunction_Check(fn) ? ((PyFunctionObject *)fn)->func_qualname : Py_None;
        return Py_NewRef(n);
    }
    """
    object gort_raised_steal "gort_raised"()
    object gort_take "(PyObject *)"(PyObject *o)
    object gort_qualname(object fn)
    void PyErr_WriteUnraisable(PyObject *o)
    void PyErr_SetObject(object t, object v)
    PyObject *raw_call "PyObject_Call"(PyObject *fn, PyObject *args, PyObject *kwargs)
    PyObject *raw_vectorcall "PyObject_Vectorcall"(PyObject *fn, PyObject *const *args, size_t n, PyObject *names)
    PyObject *PyDict_GetItemWithError(PyObject *d, PyObject *k)
    ctypedef struct PyMethodDef:
        const char *ml_name
        void *ml_meth
        int ml_flags
        const char *ml_doc
    enum: METH_FASTCALL, METH_KEYWORDS
    object PyCFunction_NewEx(PyMethodDef *d, object self, object module)
    object PyTuple_New(Py_ssize_t n)
    void PyTuple_SET_ITEM(object t, Py_ssize_t i, object o)

cdef PyObject *threading_dict = <PyObject *>_threading.__dict__
cdef object TRACE_HOOK = sys.intern("_trace_hook")
cdef object PROFILE_HOOK = sys.intern("_profile_hook")
cdef Goroutine main_goroutine


@cython.final
cdef class Failure:
    """The exception of a goroutine that nobody has seen yet; with it goes the last who could.

    An object of its own: its finaliser runs before the collector clears a cycle
    (handle, exception, frame), and handles without a failure need none.
    """
    cdef uint64_t id
    cdef object name, exc, tb
    cdef bint seen
    cdef object __weakref__

    def __del__(self):
        if not self.seen:
            self.seen = True
            report_unseen(self)


cdef class Owner:
    """What counts goroutines until they end, be it before they began: a WaitGroup, an errgroup, a Flight."""
    cdef gort_wg w

    def __cinit__(self):
        self.w.bubble = fake_bubble() != 0

    cdef bint failed(self, Failure f) noexcept:
        """One ended in an exception; whether that is taken care of."""
        return False

    cdef void ended(self) noexcept:
        """One has ended."""
        wg_add(&self.w, -1)


@cython.freelist(1024)
@cython.final
cdef class Goroutine:
    """A handle of a goroutine; `go()` makes it."""
    cdef G *g                       # while it has one: from its start to its end
    cdef gfresh node                # what is queued before it has
    cdef object what                # the function; after the end its name
    cdef object args                # a tuple, (tuple, dict), or None; until it starts
    cdef object value               # the result, or a Failure
    cdef object _name               # as assigned
    cdef PyObject *owner            # the Owner that counts it; a reference
    cdef object thread              # a ThreadHandle, if threading started it
    cdef gort_notify joiners        # GIL
    cdef bint _done
    cdef bint named                 # asked for its get_ident(): threading may know it by that
    cdef object __weakref__

    def __init__(self):
        raise TypeError("a Goroutine is made by gort.go()")

    @classmethod
    def __class_getitem__(cls, item):
        return _types.GenericAlias(cls, item)

    cdef inline void settle(self) noexcept:
        """In a fork's child, the first to look at one that is not here finds it ended."""
        if self.joiners.gen != gort_fork_gen:
            self.vanish()

    cdef void vanish(self) noexcept:
        self.joiners.gen = gort_fork_gen
        memset(&self.joiners.q, 0, sizeof(self.joiners.q))
        if not self._done:
            try:
                self.what = name_of(self.what)
            except BaseException:
                self.what = "?"
            self._done = True
            self.g = NULL

    @property
    def id(self):
        """Its number: unique, never used again."""
        return self.node.id

    @property
    def name(self):
        """The function's qualified name, or what was assigned."""
        if self._name is not None:
            return self._name
        self.settle()
        if self._done:
            return self.what
        return name_of(self.what) if self.thread is None else thread_name(self)

    @name.setter
    def name(self, value):
        if not isinstance(value, str):
            raise TypeError(f"name must be a str, not {value!r}")
        self._name = value

    @property
    def done(self):
        """Whether it has ended."""
        self.settle()
        return self._done

    @property
    def _failed(self):
        """Whether it has ended in an exception (other than GoroutineExit)."""
        return type(self.value) is Failure

    @property
    def state(self):
        """"runnable", "running", "waiting", "syscall" or "dead"."""
        self.settle()
        if self.g == NULL:
            return "dead" if self._done else "runnable"
        return (<bytes>g_status_name(self.g)).decode()

    @property
    def wait_reason(self):
        """Go's words for what it waits for ("chan receive", ...), "" if it does not wait."""
        self.settle()
        if self.g == NULL or gort_status(self.g) != G_WAITING:
            return ""
        return (<bytes>gort_reasons[self.g.reason]).decode()

    def join(self, timeout=None, *, ctx=None):
        """Wait until it has ended; return its function's result or raise its exception.

        None after `goexit()` or `kill()`. Raises TimeoutError after `timeout`
        seconds, RuntimeError for the calling goroutine itself. May park.
        """
        cdef waitopt o
        cdef int may, r
        point(b"join")
        self.settle()
        if not self._done:
            if self.g != NULL and self.g == gort_curg():
                raise RuntimeError("a goroutine cannot join itself")
            may = wait_options(&o, timeout, ctx)
            while not self._done:
                if not may:
                    not_in_time(ctx)
                r = notify_wait(&self.joiners, R_JOIN | (R_DURABLE if is_member(self) else 0), &o)
                if r != GORT_OK:
                    raise_wait(r, ctx)
        if type(self.value) is Failure:
            (<Failure>self.value).seen = True
            raise_again((<Failure>self.value).exc, (<Failure>self.value).tb)
        return self.value

    def kill(self):
        """Raise GoroutineExit in it where it waits, or at its next wait if it runs.

        Before it has started its body never runs. No effect on one that has
        ended. Does not wait for the end: `join()` does.
        """
        self.settle()
        if self._done:
            return
        if self.g == NULL:
            self.node.kill_pending = True
            return
        self.g.kill_pending = True
        wait_interrupt(self.g, WC_KILL)

    def stack(self):
        """Its Python stack, outermost first, as a traceback.StackSummary."""
        import traceback
        self.settle()
        if self.g == NULL:
            return traceback.StackSummary()
        frame = pyctx_frame_or_none(self.g)
        if frame is None:
            return traceback.StackSummary()
        return traceback.extract_stack(frame)

    def __repr__(self):
        return f"<Goroutine {self.id} {self.name!r} {self.state}>"


cdef object name_of(object fn):
    name = gort_qualname(fn)
    if name is None:
        name = getattr(fn, "__qualname__", None) or getattr(fn, "__name__", None) or type(fn).__qualname__
    return name


cdef void report_unseen(Failure f) noexcept:
    """The handle is gone: tell the hook, with one made anew."""
    cdef Goroutine h
    try:
        h = Goroutine.__new__(Goroutine)
        h.node.id = f.id
        h._name = f.name
        h._done = True
        h.value = f
        call_excepthook(h, f.exc)
    except BaseException as e:
        unraisable(e)


cdef void unraisable(object exc) noexcept:
    """sys.unraisablehook, whose argument only CPython itself can make."""
    PyErr_SetObject(type(exc), exc)
    PyErr_WriteUnraisable(NULL)


cdef void call_excepthook(Goroutine g, object exc) noexcept:
    hook = excepthook
    try:
        import gort
        hook = gort.excepthook
        hook(g, exc)
    except BaseException as e:
        unraisable(e)
        try:
            if hook is not excepthook:
                excepthook(g, exc)
        except BaseException:
            pass


def excepthook(goroutine, exc):
    """Print the traceback of `exc` under `panic in goroutine N` to stderr; the program goes on.

    Assign another function to `gort.excepthook` to replace it; should that one
    fail, this is told, and `exc` printed nevertheless. With
    GORT_PANIC=crash it ends the process as Go does, with status 2. SystemExit
    is passed over, as `threading.excepthook` does.
    """
    import os, traceback
    if isinstance(exc, SystemExit):
        return
    err = sys.stderr
    if err is not None:
        text = "".join(traceback.format_exception(type(exc), exc, exc.__traceback__))
        err.write(f"panic in goroutine {goroutine.id} ({goroutine.name}):\n{text}")
        err.flush()
    if os.environ.get("GORT_PANIC") == "crash":
        if err is not None:
            err.write("\n" + stack(all=True))
            err.flush()
        if sys.stdout is not None:
            sys.stdout.flush()
        os._exit(2)


# ---- a goroutine's life ------------------------------------------------------
cdef int install_hooks() except -1:
    """As threading.Thread does: debuggers and coverage see new goroutines."""
    cdef PyObject *hook = PyDict_GetItemWithError(threading_dict, <PyObject *>TRACE_HOOK)
    if hook != NULL and <object>hook is not None:
        sys.settrace(<object>hook)
    hook = PyDict_GetItemWithError(threading_dict, <PyObject *>PROFILE_HOOK)
    if hook != NULL and <object>hook is not None:
        sys.setprofile(<object>hook)
    return 0


cdef void fail(Goroutine self, object e) noexcept:
    cdef Failure f
    if isinstance(e, GoroutineExit):
        return
    if self.thread is not None:
        thread_failed(self, e)
        return
    if isinstance(e, KeyboardInterrupt) and (self.owner == NULL or type(<object>self.owner) is WaitGroup):
        interrupt_main(e)
        return
    f = Failure.__new__(Failure)
    f.id = self.node.id
    f.exc = e
    f.tb = e.__traceback__
    try:
        f.name = self.name
    except BaseException:
        f.name = "?"
    self.value = f
    # without an owner, and with ours and the runtime's reference alone, nobody will ever ask
    cdef bint kept = (<Owner>self.owner).failed(f) if self.owner != NULL else Py_REFCNT(<PyObject *>self) > 2
    if caught(self, f):
        return
    if kept:
        unseen.add(f)
    else:
        f.seen = True
        call_excepthook(self, e)


cdef void finish(Goroutine self) noexcept:
    """What is known of the end is set: tell everybody."""
    cdef PyObject *owner = self.owner
    try:
        self.what = name_of(self.what) if self.thread is None else thread_name(self)
    except BaseException:
        self.what = "?"
    self._done = True
    if self.g != NULL:
        self.g.handle = NULL
        self.g = NULL
    if owner != NULL:
        self.owner = NULL
        (<Owner>owner).ended()
        Py_DECREF(<object>owner)
    if self.thread is not None or self.named:
        try:
            if self.named:
                forget_dummy(self)
            if self.thread is not None:
                thread_ended(self)
                self.thread = None  # they refer to each other
        except BaseException as e:
            unraisable(e)
    if self.joiners.q.first != NULL:
        notify_wake_last(&self.joiners)
    Py_DECREF(self)  # the runtime's


cdef void not_started(void *handle) noexcept:
    """There was no memory for its stack or thread state when its turn came."""
    if (<Goroutine>handle).thread is not None:
        thread_not_started(<Goroutine>handle)
    else:
        fail(<Goroutine>handle, MemoryError("gort: no memory for a goroutine's stack"))
    (<Goroutine>handle).args = None
    finish(<Goroutine>handle)


cdef void body(void *arg) noexcept:
    cdef Goroutine self = <Goroutine>arg
    cdef PyObject *res = NULL
    fn, args = self.what, self.args
    self.args = None
    # an M without the GIL may have started it while kill() still saw the node
    if not self.g.kill_pending and not self.node.kill_pending:
        try:
            install_hooks()
        except BaseException as e:
            unraisable(e)
        if args is None:
            res = raw_vectorcall(<PyObject *>fn, NULL, 0, NULL)
        elif type((<tuple>args)[len(<tuple>args) - 1]) is KwArgs:
            kw = (<tuple>args)[len(<tuple>args) - 1]
            args = (<tuple>args)[:len(<tuple>args) - 1]
            res = raw_call(<PyObject *>fn, <PyObject *>args, <PyObject *>((<KwArgs>kw).d))
            kw = None
        else:
            res = raw_call(<PyObject *>fn, <PyObject *>args, NULL)
        if self.g.main:
            end_child(None if res != NULL else gort_raised_steal())
        if res == NULL:
            e = gort_raised_steal()
            fail(self, e)
            e = None
        else:
            self.value = gort_take(res)
    fn = args = None
    pyctx_dead(self.g)  # it may run Python code; once joined, a goroutine is gone
    finish(self)


cdef void g_main(void *arg) noexcept:
    cdef G *g = (<Goroutine>arg).g
    body(arg)
    pyctx_dead(g)


@cython.final
cdef class KwArgs:
    """Keyword arguments of a goroutine to be: the last item of its args."""
    cdef dict d


cdef Goroutine spawn(object fn, object args, object kwargs, Owner owner, gort_bubble *bubble=NULL, bint system=False,
                     object thread=None):
    if not callable(fn):
        raise TypeError(f"go() needs a callable, not {fn!r}")
    if gort_stopped:
        raise RuntimeError("go(): the program is ending")
    cdef Goroutine self = Goroutine.__new__(Goroutine)
    cdef KwArgs kw
    if args is not None and not args:
        args = None
    if kwargs is not None:
        kw = KwArgs.__new__(KwArgs)
        kw.d = kwargs
        args = (args or ()) + (kw,)
    self.what = fn
    self.args = args
    self.thread = thread
    if owner is not None:
        self.owner = <PyObject *>owner
        Py_INCREF(owner)
    self.joiners.gen = gort_fork_gen
    self.node.fn = g_main
    self.node.failed = not_started
    self.node.arg = self.node.handle = <void *>self
    self.node.slot = &self.g
    self.node.system = system
    self.node.bubble = bubble  # NULL: the caller's
    Py_INCREF(self)
    g_start_fresh(&self.node)
    return self


cdef object go_fast(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names):
    """go(), called without a tuple and a dict being made for the arguments."""
    cdef object rest = None, kwargs = None, g
    cdef Py_ssize_t i
    if n == 0:
        raise TypeError("go() needs a callable as its first argument")
    if n > 1:
        rest = PyTuple_New(n - 1)
        for i in range(1, n):
            o = <object>args[i]
            Py_INCREF(o)
            PyTuple_SET_ITEM(rest, i - 1, o)
    if names != NULL:
        kwargs = {}
        for i in range(len(<tuple>names)):
            kwargs[(<tuple>names)[i]] = <object>args[n + i]
    g = spawn(<object>args[0], rest, kwargs, None)
    point(b"go")
    return g


cdef object gosched_fast(PyObject *self, PyObject *const *args, Py_ssize_t n):
    cdef M *m = getm()
    cdef G *g = NULL if m == NULL else m.curg
    if n:
        raise TypeError(f"gosched() takes no arguments ({n} given)")
    if g == NULL or g.kind != GK_PYTHON:
        with nogil:
            gort_yield_thread()
        return None
    if gort_nseeded:
        step(b"gosched")
    if not g.kill_pending:
        g_yield_on(m)
        if not g.kill_pending:
            return None
    raise_wait(GORT_EKILLED, None)


cdef PyMethodDef GO_DEF
GO_DEF.ml_name = "go"
GO_DEF.ml_meth = <void *>go_fast
GO_DEF.ml_flags = METH_FASTCALL | METH_KEYWORDS
GO_DEF.ml_doc = """go($module, fn, /, *args, **kwargs)
--

Start `fn(*args, **kwargs)` as a goroutine and return its handle. Does not park.

Raises TypeError if `fn` is not callable. If there is no memory for its stack
when its turn comes, it ends with MemoryError instead. From any thread.
"""
cdef PyMethodDef GOSCHED_DEF
GOSCHED_DEF.ml_name = "gosched"
GOSCHED_DEF.ml_meth = <void *>gosched_fast
GOSCHED_DEF.ml_flags = METH_FASTCALL
GOSCHED_DEF.ml_doc = """gosched($module, /)
--

Let other goroutines run; a wait in the sense of `kill()`. Parks.
"""
# CPython calls these without an intermediate vectorcall (CALL_BUILTIN_FAST).
go = PyCFunction_NewEx(&GO_DEF, None, "gort")
gosched = PyCFunction_NewEx(&GOSCHED_DEF, None, "gort")


cdef Goroutine running():
    """The calling goroutine, or None in a plain OS thread."""
    cdef G *g = gort_curg()
    if g == NULL or g.handle == NULL:
        return None
    return <Goroutine>g.handle


def current():
    """The calling goroutine's handle; None in a plain OS thread."""
    return running()


def num_goroutine():
    """How many Python goroutines there are, the main one included."""
    return sched_ngo(&gort_python)


def num_cpu():
    """How many CPUs this process may use."""
    return os_ncpu()


def gomaxprocs(n=None):
    """The number of Ps of the native domain; with `n` (an int), set it and return the previous.

    `n` below 1 changes nothing. On a GIL build the Python domain has one P.
    """
    if n is None:
        return gort_maxprocs(0)
    if not isinstance(n, int) or isinstance(n, bool):
        raise TypeError(f"n must be an int or None, not {n!r}")
    r = gort_maxprocs(max(0, min(n, 1024)))
    if r < 0:
        raise MemoryError("gort: no memory for more Ps")
    return r


cdef int check_kill() except -1:
    cdef G *g = gort_curg()
    if g != NULL and g.kill_pending:
        raise_wait(GORT_EKILLED, None)
    main_signals()
    return 0


def sleep(seconds, *, ctx=None):
    """Park the goroutine for at least `seconds`; 0 or less lets others run."""
    cdef waitopt o
    cdef int64_t until
    cdef int r
    cdef double d = to_seconds(seconds, "seconds")
    wait_options(&o, None, ctx)
    if gort_nseeded and d > 0:
        step(b"sleep")
    if d == 0.0:
        gosched_fast(NULL, NULL, 0)
        return
    until = deadline_after(d)
    while True:
        r = sleep_until(until, &o)
        if r == GORT_OK:
            return
        raise_wait(r, ctx)


def goexit():
    """End this goroutine: its `finally` blocks run, `join()` gives None."""
    if gort_curg() == NULL:
        raise RuntimeError("goexit() was called outside of a goroutine")
    raise GoroutineExit()


def lock_os_thread():
    """Pin the goroutine to its OS thread, on which no other runs meanwhile. Nestable.

    Does nothing in a plain OS thread.
    """
    cdef G *g = gort_curg()
    if g == NULL:
        return
    if g.lock_depth == 255:
        raise RuntimeError("lock_os_thread() nested more than 255 deep")
    if not g.main and gort_on_main_m():
        sched_move(g)  # the main thread is the main goroutine's
        if gort_on_main_m():
            raise MemoryError("gort: no thread for lock_os_thread()")
    g.lock_depth += 1
    gort_m_lock(g)


def unlock_os_thread():
    """Undo one `lock_os_thread()`; one too many does nothing."""
    cdef G *g = gort_curg()
    if g == NULL or g.lock_depth == 0:
        return
    g.lock_depth -= 1
    if g.lock_depth == 0:
        gort_m_unlock(g)


def blocking(fn, /, *args, **kwargs):
    """Call `fn(*args, **kwargs)` where its blocking disturbs nobody, and return its result.

    The goroutine gives up its P, and moves off the main thread, for the time of
    the call: others run as soon as `fn` releases the GIL. Its state is "syscall"
    meanwhile. In a plain OS thread it is a plain call. May park at the end.
    """
    cdef G *g = gort_curg()
    if g == NULL:
        return fn(*args, **kwargs)
    check_kill()
    sched_blocking_enter(g)
    try:
        return fn(*args, **kwargs)
    finally:
        sched_blocking_exit(g)


# ---- dumps --------------------------------------------------------------------
cdef bint collect(G *g, void *arg) noexcept:
    cdef int st = gort_status(g)
    if st != G_IDLE and st != G_DEAD and g.handle != NULL and not g.system and not g.main:
        try:
            (<list>arg).append(<Goroutine>g.handle)
        except MemoryError:
            pass
    return True


cdef void collect_fresh(void *handle, void *arg) noexcept:
    try:
        if not (<Goroutine>handle).node.system:
            (<list>arg).append(<Goroutine>handle)
    except MemoryError:
        pass


cdef list goroutines():
    """All living ones, by id."""
    cdef list found = [] if main_goroutine._done else [main_goroutine]
    sched_each_fresh(&gort_python, collect_fresh, <void *>found)
    stack_each(py_stacks, collect, <void *>found)
    return sorted(found, key=lambda g: g.id)


cdef str header(Goroutine h, bint waiting=False):
    cdef G *g = h.g
    what = h.wait_reason or h.state
    if waiting and g != NULL:
        what = (<bytes>gort_reasons[g.reason]).decode()
    if g == NULL:
        return f"goroutine {h.id} [{what}]:"
    if gort_status(g) == G_WAITING:
        mins = (gort_now_ns() - g.wait_since) // 60_000_000_000
        if mins >= 1:
            what += f", {mins} minutes"
    if g.lock_depth:
        what += ", locked to thread"
    return f"goroutine {h.id} [{what}]:"


cdef str dump_one(Goroutine h, bint waiting=False):
    lines = [header(h, waiting)]
    for f in reversed(h.stack()):
        lines.append(f"{f.name}(...)")
        lines.append(f"\t{f.filename}:{f.lineno}")
    return "\n".join(lines) + "\n"


def _goroutines():
    """Handles of all living goroutines but the runtime's own, by id; the main one is the first."""
    return goroutines()


def _dump(Goroutine h not None):
    """Its dump in Go's form."""
    return dump_one(h)


def stack(all=False):
    """A dump of this goroutine, or of all of them, in Go's form.

    A header like `goroutine 7 [chan receive, 3 minutes]:`, then its Python
    frames, innermost first. With `all` the calling goroutine comes first.
    """
    me = running()
    if not all:
        return dump_one(me) if me is not None else ""
    return dump_all(me, False)


cdef str dump_all(Goroutine me, bint waiting):
    """Of every goroutine; with `waiting`, the calling one as it was in the wait that just ended."""
    parts = [dump_one(me, waiting)] if me is not None else []
    parts += [dump_one(h) for h in goroutines() if h is not me]
    return "\n".join(parts)
