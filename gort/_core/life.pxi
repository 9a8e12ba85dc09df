# life.pxi - start, run(), signals, and the end of the program.

import atexit as _atexit
import signal as _signal
import weakref as _weakref

cdef object unseen = _weakref.WeakSet()  # Failures that may be seen yet
cdef object pending_interrupt = None     # a KeyboardInterrupt for the main goroutine
cdef bint in_run = False


cdef Goroutine spawn_system(object fn):
    """A goroutine of the runtime's own: not counted, not dumped, no hope against a deadlock."""
    return spawn(fn, None, None, None, NULL, True)


# ---- signals: handlers run on the main thread, KeyboardInterrupt goes to the main goroutine
cdef int main_signals() except -1:
    """In the main goroutine: run the handlers of signals that came in, raise what is pending."""
    global pending_interrupt, gort_main_intr
    cdef G *g = gort_curg()
    if g == NULL or not g.main:
        return 0
    pyctx_check_signals()
    if pending_interrupt is not None:
        gort_main_intr = False
        e = pending_interrupt
        pending_interrupt = None
        raise e
    return 0


cdef void interrupt_main(object exc) noexcept:
    global pending_interrupt, gort_main_intr
    pending_interrupt = exc
    gort_main_intr = True  # for a main goroutine that does not wait yet
    wait_interrupt(gort_main_g, WC_INTR)


def _on_sigint(signum, frame):
    """SIGINT: KeyboardInterrupt in the main goroutine, whichever runs on the main thread now."""
    cdef G *g = gort_curg()
    if g == NULL or g.main:
        raise KeyboardInterrupt
    interrupt_main(KeyboardInterrupt())


# ---- the main thread: the one that runs the main goroutine, for threading as for CPython
cdef unsigned long main_ident


def _get_ident():
    """As `threading.get_ident()`, and the main goroutine's is the main thread's wherever it runs."""
    cdef G *g = gort_curg()
    return main_ident if g != NULL and g.main else get_ident()


# ---- run() and the end ----------------------------------------------------------
cdef list others():
    me = running()
    return [h for h in goroutines() if h is not me and h is not main_goroutine]


cdef int unwind(double limit) except -1:
    """Kill all other goroutines, each once, and wait until they are gone, or for `limit` seconds.

    Goroutines that those start meanwhile are killed as well. One that catches
    GoroutineExit and goes on is waited for.
    """
    cdef int64_t until = deadline_after(limit)
    killed = set()
    while True:
        alive = others()
        if not alive:
            return 0
        for h in alive:
            if h.id not in killed:
                killed.add(h.id)
                h.kill()
        for h in alive:
            try:
                h.join(None if until == GORT_FOREVER else (until - gort_now_ns()) / 1e9)
            except BaseException as e:
                if not h.done:
                    if isinstance(e, TimeoutError):
                        return 0
                    raise
                if isinstance(e, Exception):
                    call_excepthook(h, e)


def run(main, /, *args, **kwargs):
    """Run `main(*args, **kwargs)` as the main goroutine and return its result. Parks.

    When it returns or raises, the goroutines still alive are unwound with
    GoroutineExit, so that their `finally` blocks run, and waited for. Only on
    the main thread, in the main goroutine, and not within itself: RuntimeError.
    """
    global in_run
    cdef G *g = gort_curg()
    if not callable(main):
        raise TypeError(f"run() needs a callable, not {main!r}")
    if g == NULL or not g.main:
        raise RuntimeError("run() must be called in the main goroutine")
    if in_run:
        raise RuntimeError("run() is running already")
    in_run = True
    try:
        return main(*args, **kwargs)
    finally:
        try:
            unwind(MAX_SECONDS)
        finally:
            in_run = False


def _at_exit():
    """Unwind what lives, for a second; report what nobody saw; then let go of Python."""
    cdef G *g = gort_curg()
    if g != NULL and g.main:
        try:
            unwind(1.0)
        except BaseException as e:
            unraisable(e)
    for f in list(unseen):
        if not (<Failure>f).seen:
            (<Failure>f).seen = True
            report_unseen(<Failure>f)
    pyctx_stop()
    pyctx_free_pool()


cdef int _start_runtime() except -1:
    global main_goroutine, main_ident
    if _threading.current_thread() is not _threading.main_thread():
        raise RuntimeError("gort must be imported first in the main thread")
    pyctx_init()
    main_goroutine = Goroutine.__new__(Goroutine)
    main_goroutine.g = gort_main_g
    main_goroutine.node.id = gort_main_g.id
    main_goroutine._name = "main"
    gort_main_g.handle = <void *>main_goroutine
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _on_sigint)
        _signal.default_int_handler = _on_sigint  # which asyncio asks for
    main_ident = get_ident()
    _thread.get_ident = _threading.get_ident = _get_ident
    _replace_import_locks()
    _replace_rlocks()
    _atexit.register(_at_exit)
    return 0
