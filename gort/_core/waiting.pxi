# waiting.pxi - timeouts and contexts: arguments of every call that may wait.

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject *o)

cdef waitopt FOREVER
FOREVER.deadline = GORT_FOREVER
FOREVER.done = NULL
FOREVER.python = True

cdef double MAX_SECONDS = 9e9  # some 285 years: further off is for ever


cdef double to_seconds(object value, str name) except? -1.0:
    """A duration: any real number but NaN; negative counts as zero."""
    cdef double d
    if not isinstance(value, (int, float)) and not (hasattr(value, "__float__") or hasattr(value, "__index__")):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if isinstance(value, (str, bytes)):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    try:
        d = float(value)
    except OverflowError:
        d = MAX_SECONDS if value > 0 else 0.0
    if d != d:
        raise ValueError(f"{name} must be a number of seconds, not {value!r}")
    return d if d > 0 else 0.0


def _seconds(value, str name):
    return to_seconds(value, name)


cdef int64_t deadline_after(double seconds) noexcept:
    cdef int64_t now = gort_clock_ns()
    if seconds >= MAX_SECONDS or <int64_t>(seconds * 1e9) >= GORT_FOREVER - now:
        return GORT_FOREVER  # a fake clock may stand anywhere
    return now + <int64_t>(seconds * 1e9)


cdef int wait_options(waitopt *o, object timeout, object ctx) except -1:
    """Fill `o`. Returns 1 if the caller may wait, 0 if the time is up already."""
    cdef double seconds
    o.deadline = GORT_FOREVER
    o.done = NULL
    o.python = True
    if ctx is not None:
        base = base_of(ctx)
        if kind_of(base) != K_OTHER:
            o.done = done_of(base).c  # which `base` keeps
            ctx = None
    if ctx is not None:
        if not hasattr(ctx, "done") or not hasattr(ctx, "err"):
            hint = "; enter it using `with`" if hasattr(ctx, "__enter__") else ""
            raise TypeError(f"ctx must be a context, not {ctx!r}{hint}")
        done = ctx.done()
        if not isinstance(done, (Chan, Receiver)):
            raise TypeError(f"ctx must be a context, whose done() is a channel, not {ctx!r}")
        held = (<Receiver>done).ch if isinstance(done, Receiver) else done
        # the variable that names it, and for a view the view's reference
        if Py_REFCNT(<PyObject *>held) <= (2 if held is done else 2 if Py_REFCNT(<PyObject *>done) == 1 else 1):
            raise TypeError(f"ctx.done() must return the same channel each time, which {ctx!r} does not")
        o.done = case_chan(done)  # ctx keeps it alive until the wait takes a reference
    if timeout is not None:
        seconds = to_seconds(timeout, "timeout")
        if seconds == 0.0:
            return 0
        o.deadline = deadline_after(seconds)
    return 1


cdef int not_in_time(object ctx) except -1:
    """The call cannot be done at once and must not wait: a kill, the context, the time."""
    cdef G *g = gort_curg()
    if g != NULL and g.kill_pending:
        raise_wait(GORT_EKILLED, None)
    if ctx is not None:
        err = to_raise(ctx)
        if err is not None:
            raise err
    raise TimeoutError("timed out")
