# life.pxi - start, run(), signals, and the end of the program.

import atexit as _atexit
import os as _os
import signal as _signal
import weakref as _weakref

cdef object unseen = _weakref.WeakSet()  # Failures that may be seen yet
cdef object pending_interrupt = None     # a KeyboardInterrupt for the main goroutine
cdef bint in_run = False


cdef Goroutine spawn_system(object fn):
    """A goroutine of the runtime's own: not counted, not dumped, no hope against a deadlock."""
    return spawn(fn, None, None, None, NULL, True)


# ---- signals: handlers run on the main thread, KeyboardInterrupt goes to the main goroutine
cdef list main_calls = []                # handlers that are to run in the main goroutine: (function, number)


cdef int main_signals() except -1:
    """In the main goroutine: run the handlers of signals that came in, raise what is pending."""
    global pending_interrupt, gort_main_intr
    cdef G *g = gort_curg()
    if g == NULL or not g.main:
        return 0
    pyctx_check_signals()
    while main_calls:
        handler, number = main_calls.pop(0)
        if not main_calls and pending_interrupt is None:
            gort_main_intr = False
        handler(number, sys._getframe())
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


def _handle_in_main(handler, number):
    """Have a handler of signals run in the main goroutine, where it waits or when it next does."""
    global gort_main_intr
    main_calls.append((handler, number))
    gort_main_intr = True
    wait_interrupt(gort_main_g, WC_INTR)


def _main_due():
    """In the main goroutine: run the handlers that were left to it."""
    main_due()


def _on_sigint(signum, frame):
    """SIGINT: KeyboardInterrupt in the main goroutine, whichever runs on the main thread now."""
    cdef G *g = gort_curg()
    if g == NULL or g.main:
        raise KeyboardInterrupt
    interrupt_main(KeyboardInterrupt())


# ---- the main thread: the one that runs the main goroutine, for threading as for CPython
cdef object get_ident_fast(PyObject *self, PyObject *unused):
    cdef G *g = gort_curg()
    cdef Goroutine h
    if g == NULL or g.handle == NULL:
        return get_ident()
    h = <Goroutine>g.handle
    if g.main and h.thread is None:
        return pyctx_main_ident()
    h.named = True
    return h.node.id


cdef PyMethodDef IDENT_DEF
IDENT_DEF.ml_name = "get_ident"
IDENT_DEF.ml_meth = <void *>get_ident_fast
IDENT_DEF.ml_flags = METH_NOARGS
IDENT_DEF.ml_doc = """get_ident($module, /)
--

A number that names the calling goroutine or thread. The main goroutine's is the main thread's, of
another goroutine it is the one that `sys._current_frames()` knows it by.
"""


cdef object os_ident(object ident):
    """What the system knows a thread by; None if the number is that of a goroutine that it cannot know."""
    cdef Goroutine h = running()
    if type(ident) is not int:
        return ident
    if h is not None and h.node.id == ident:
        return get_ident()
    if any((<Goroutine>h).node.id == ident for h in goroutines()):
        return None
    return ident


def _guard_idents():
    """A goroutine's number is no address of a thread's, which is what these take it for."""
    kill, clock = gort_keep(_signal.pthread_kill), gort_keep(_time.pthread_getcpuclockid)

    def pthread_kill(thread_id, signalnum, /):
        known = os_ident(thread_id)
        if known is None:  # whoever is signalled, handlers run in the main goroutine
            return _os.kill(_os.getpid(), signalnum)
        return kill(known, signalnum)

    def pthread_getcpuclockid(thread_id, /):
        known = os_ident(thread_id)
        if known is None:
            raise ProcessLookupError(3, f"goroutine {thread_id} is no thread of its own")
        return clock(known)
    if not gort_replace(<PyObject *>_signal.pthread_kill, <PyObject *>pthread_kill, True):
        gort_replace(<PyObject *>_time.pthread_getcpuclockid, <PyObject *>pthread_getcpuclockid, True)


# ---- run() and the end ----------------------------------------------------------
cdef list others():
    me = running()
    return [h for h in goroutines() if h is not me and h is not main_goroutine and (<Goroutine>h).thread is None]


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
                if len(killed) % 4096 == 0 and gort_now_ns() > until:
                    return 0
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


# ---- fork -----------------------------------------------------------------------------
# csrc/fork.c says what is left in the child; this is what concerns Python's objects.
cdef Goroutine main_handle():
    """Of what is the main goroutine now: its own, or one made for it."""
    cdef Goroutine h
    if gort_main_g.handle != NULL:
        h = <Goroutine>gort_main_g.handle
        memset(&h.joiners.q, 0, sizeof(h.joiners.q))
    else:
        h = Goroutine.__new__(Goroutine)
        h._name = "main"
        h.node.id = gort_main_g.id
        h._done = gort_status(gort_main_g) == G_DEAD  # Python is used in a native goroutine
        if not h._done:
            h.g = gort_main_g
            gort_main_g.handle = <void *>h
    h.joiners.gen = gort_fork_gen
    return h


def _before_fork():
    """CPython's import lock is the OS thread's, and up to 3.12 it runs Python code while it holds it: stay."""
    cdef G *g = gort_curg()
    if g != NULL and g.lock_depth < 255:
        g.lock_depth += 1
        gort_m_lock(g)


def _after_fork():
    """In the child of `os.fork()`: the goroutine or thread that called it is the main goroutine."""
    global main_goroutine, main_who, pending_interrupt, in_run
    cdef Goroutine old = main_goroutine
    pyctx_forked()
    unlock_os_thread()
    pending_interrupt = None
    main_calls.clear()
    main_goroutine = main_handle()
    if main_goroutine is not old:
        in_run = False
        if not main_goroutine._done and gort_is_main_thread(gort_main_g):
            main_who = get_ident()
            end_with_thread()
    _name_main_thread()
    for f in list(unseen):
        (<Failure>f).seen = True  # the parent tells
    unseen.clear()
    _forget_imports()
    fork_service()


def _name_main_thread():
    """A goroutine's thread may have been given a dummy's name, which up to 3.12 threading takes for a main thread's."""
    main = _threading._main_thread
    if type(main) is _threading._DummyThread:
        main.__class__ = _threading._MainThread
        main._name = "MainThread"
        main._daemonic = False
        main._set_tstate_lock()


def _forget_imports():
    """Modules that others were just importing: their locks would stay locked, they half made."""
    for name, ref in list(_frozen_importlib._module_locks.items()):
        lock = ref()
        owner = getattr(lock, "owner", None)
        if owner is None or owner == whoami():
            continue
        _frozen_importlib._module_locks.pop(name, None)
        spec = getattr(sys.modules.get(name), "__spec__", None)
        if getattr(spec, "_initializing", False):
            del sys.modules[name]


cdef void end_child(object exc) noexcept:
    """The main goroutine of a fork's child, which go() started in an ancestor, has ended in `exc` or None.

    So does the program, as when the main thread's code has ended.
    """
    status = 0
    try:
        if isinstance(exc, SystemExit):
            status = exit_status(exc.code)
        elif exc is not None and not isinstance(exc, GoroutineExit):
            sys.excepthook(type(exc), exc, exc.__traceback__)
            status = 130 if isinstance(exc, KeyboardInterrupt) else 1
    except BaseException as e:
        unraisable(e)
        status = 1
    if hasattr(_threading, "_thread_shutdown") and not gort_on_main_m():
        # That of 3.13 knows by its OS thread which one ends, and would wait for it too.
        _threading._thread_shutdown = join_python_threads
    for last in (_threading._shutdown, _atexit._run_exitfuncs, flush_all):
        try:
            last()
        except BaseException as e:
            unraisable(e)
    _os._exit(status)


cdef int exit_status(object code) except -1:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def join_python_threads():
    """Wait for all threads that are no daemons, and for those that they start."""
    joined = {_threading._main_thread}
    while left := {
        t for t in _threading.enumerate() if not t.daemon and type(t) is not _threading._DummyThread
    } - joined:
        for thread in left:
            joined.add(thread)
            try:
                thread.join()
            except BaseException as e:
                unraisable(e)


def flush_all():
    for f in (sys.stdout, sys.stderr):
        if f is not None:
            f.flush()


class _LastWords:
    """In a thread's own state: when the thread ends, which is the main one of a fork's child, so does the program."""

    def __init__(self):
        self.gen = gort_fork_gen

    def __del__(self):
        if self.gen == gort_fork_gen:
            end_child(None)


cdef object last_words = _threading.local()


cdef int end_with_thread() except -1:
    last_words.object = _LastWords()
    return 0


def _dummies_are_no_daemons():
    """A thread inherits that from the one that makes it: one made in a goroutine is waited for at the end."""
    dummy = _threading._DummyThread
    init = dummy.__init__

    @cython.binding(True)  # else it is no method
    def __init__(self):
        init(self)
        if gort_curg() != NULL:
            self._daemonic = False
    dummy.__init__ = __init__


cdef int _start_runtime() except -1:
    global main_goroutine, main_who
    pyctx_init()
    main_goroutine = main_handle()
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _on_sigint)
        _signal.default_int_handler = _on_sigint  # which asyncio asks for
    main_who = get_ident()
    _thread.get_ident = _threading.get_ident = PyCFunction_NewEx(&IDENT_DEF, None, "_thread")
    gort_set_home()
    _replace_import_locks()
    _replace_rlocks()
    _guard_idents()
    _dummies_are_no_daemons()
    _atexit.register(_at_exit)
    _os.register_at_fork(before=_before_fork, after_in_child=_after_fork, after_in_parent=unlock_os_thread)
    return 0
