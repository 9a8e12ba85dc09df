# errors.pxi - gort's exceptions, and the only map from the runtime's codes to them.

class ChanClosed(Exception):
    """The channel is closed: a send to it, a receive from a drained one, a second close."""

class WouldBlock(Exception):
    """A `*_nowait` call would have had to wait."""

class Deadlock(RuntimeError):
    """Every goroutine waits for something that only another goroutine could provide.

    Raised in the main goroutine; the text holds the dump of all goroutines.
    """

class GoroutineExit(BaseException):
    """Raised in a goroutine that is to end: by `goexit()`, `Goroutine.kill()`, or the end of `run()`."""

for _cls in (ChanClosed, WouldBlock, Deadlock, GoroutineExit):
    _cls.__module__ = "gort"


cdef int raise_wait(int code, object ctx) except -1:
    """Raise what a wait that ended with `code` owes its caller. Returns if the wait is to be tried again."""
    cdef G *g
    if code == GORT_ETIMEDOUT:
        raise TimeoutError("timed out")
    if code == GORT_ECLOSED:
        raise ChanClosed("channel is closed")
    if code == GORT_EKILLED:
        g = gort_curg()
        g.kill_pending = False
        raise GoroutineExit()
    if code == GORT_EINTR:
        main_signals()
        return 0
    if code == GORT_EDEADLOCK:
        if gort_stopped:
            raise Deadlock("the program is ending: no goroutine is left to end the wait")
        raise Deadlock("all goroutines are asleep - deadlock!\n\n" + dump_all(running(), True))
    if code == GORT_ECTX:
        err = to_raise(ctx)
        raise class_canceled() if err is None else err
    if code == GORT_EAGAIN:
        raise WouldBlock("the operation would have to wait")
    if code == GORT_EBUBBLE:
        raise RuntimeError("a channel of a synctest bubble was used from outside of it")
    if code == GORT_ENOMEM:
        raise MemoryError("gort: no memory for a wait")
    raise SystemError(f"gort: unexpected result {code} of a wait")


cdef extern from *:
    """
    /* Raise `e` as it was raised elsewhere: with that traceback, which so does
     * not grow from one raise to the next, and with the context it has. */
    static int gort_raise_again(PyObject *e, PyObject *tb)
    {
        PyErr_Restore(Py_NewRef((PyObject *)Py_TYPE(e)), Py_NewRef(e), tb == Py_None ? NULL : Py_NewRef(tb));
        return -1;
    }
    """
    int raise_again "gort_raise_again"(object e, object tb) except -1
