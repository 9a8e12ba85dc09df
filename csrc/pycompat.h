/* pycompat.h - every difference between the CPython versions that gort knows of.
 *
 * Included by pyctx.c alone. Each pyc_* is one thing that pyctx.c wants to say
 * about a thread state or the GIL, in the words of the version compiled for.
 */
#ifndef GORT_PYCOMPAT_H
#define GORT_PYCOMPAT_H

#define PY_SSIZE_T_CLEAN
#ifndef Py_BUILD_CORE_MODULE
#define Py_BUILD_CORE_MODULE 1
#endif
#include <Python.h>
#include "pthread.h"

#if PY_VERSION_HEX < 0x030B0000 || PY_VERSION_HEX >= 0x03100000
#error "gort supports CPython 3.11 to 3.15"
#endif
#ifdef Py_GIL_DISABLED
#error "gort does not support free-threaded builds of CPython yet"
#endif

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#include "internal/pycore_runtime.h"
#include "internal/pycore_interp.h"
#include "internal/pycore_frame.h"
#include "internal/pycore_code.h"
#include "internal/pycore_ceval.h"
#if PY_VERSION_HEX >= 0x030E0000
#include "internal/pycore_interpframe_structs.h"
#endif
#pragma GCC diagnostic pop

#define PYC_312 (PY_VERSION_HEX >= 0x030C0000)
#define PYC_313 (PY_VERSION_HEX >= 0x030D0000)
#define PYC_314 (PY_VERSION_HEX >= 0x030E0000)
#define PYC_315 (PY_VERSION_HEX >= 0x030F0000)

/* May the fields that PyThreadState_Swap maintains be written by us? Known and
 * tested for these; later versions take the stock path. */
#define PYC_KNOWS_SWAP (PYC_312 && !PYC_314)

/* ---- the GILState key --------------------------------------------------- */
#if PYC_315
/* a thread-local of CPython's own, which its swap keeps; out of our reach */
static inline void pyc_set_key(PyThreadState *ts) { (void)ts; }
#else
#if PYC_312
#define pyc_autotss (_PyRuntime.autoTSSkey)
#else
#define pyc_autotss (_PyRuntime.gilstate.autoTSSkey)
#endif
static inline void pyc_set_key(PyThreadState *ts) { pthread_setspecific(pyc_autotss._key, ts); }
#endif

/* ---- the GIL ------------------------------------------------------------- */
static inline struct _gil_runtime_state *pyc_gil(PyInterpreterState *interp)
{
#if PYC_312
    return interp->ceval.gil;
#else
    (void)interp;
    return &_PyRuntime.ceval.gil;
#endif
}
static inline int pyc_gil_locked(PyInterpreterState *interp)
{
    return __atomic_load_n((int *)(void *)&pyc_gil(interp)->locked, __ATOMIC_RELAXED) > 0;
}

/* Does a thread wait for the GIL? The waiters' count of glibc's condition variable (its
 * low bits are flags); elsewhere that is not to be seen. */
static inline int pyc_gil_wanted(PyInterpreterState *interp)
{
#ifdef __GLIBC__
    return __atomic_load_n(&pyc_gil(interp)->cond.__data.__wrefs, __ATOMIC_RELAXED) >= 8;
#else
    (void)interp;
    return 0;
#endif
}

static inline unsigned long pyc_gil_switches(PyInterpreterState *interp) { return __atomic_load_n(&pyc_gil(interp)->switch_number, __ATOMIC_RELAXED); }

static inline void *pyc_gil_holder(PyInterpreterState *interp)
{   /* a guess if the caller has not the GIL; only to be compared */
#if PYC_312
    return __atomic_load_n((void **)(void *)&pyc_gil(interp)->last_holder, __ATOMIC_RELAXED);
#else
    (void)interp;
    return _PyThreadState_UncheckedGet();
#endif
}

/* Wait for who has seen ts hold the GIL, and may write to it on that account; before
 * it is deleted. */
static inline void pyc_unheld(PyThreadState *ts)
{
#if PYC_313
    struct _gil_runtime_state *gil = pyc_gil(ts->interp);
    pthread_mutex_lock(&gil->mutex);
    pthread_mutex_unlock(&gil->mutex);
#else
    (void)ts;
#endif
}

/* ---- bits of a thread state's status -------------------------------------- */
static inline void pyc_unbind_key(PyThreadState *ts)
{   /* the next attach will set the key of the thread that does it */
#if PYC_312
    ts->_status.bound_gilstate = 0;
#else
    (void)ts;
#endif
}

#if PYC_KNOWS_SWAP
/* What PyThreadState_Swap does, without giving the GIL away. */
static inline void pyc_fast_swap(PyThreadState **slot, PyThreadState *from, PyThreadState *to)
{
    from->_status.active = 0;
    from->_status.bound_gilstate = 0;
    pyc_set_key(to);
    to->_status.bound_gilstate = 1;
    to->_status.active = 1;
#if PYC_313
    from->_status.holds_gil = 0;
    to->_status.holds_gil = 1;
    __atomic_store_n(&from->state, 0 /* _Py_THREAD_DETACHED */, __ATOMIC_RELEASE);
    __atomic_store_n(&to->state, 1 /* _Py_THREAD_ATTACHED */, __ATOMIC_RELEASE);
#endif
#if PYC_313
    /* A request to drop the GIL that came just as `to` was left has been met since, or
     * is made again in time; take_gil() clears it likewise. Kept, it would let drop_gil()
     * wait for a taker that there may not be. */
    if (__builtin_expect(__atomic_load_n(&to->eval_breaker, __ATOMIC_RELAXED) & 1u, 0))
        __atomic_fetch_and(&to->eval_breaker, ~(uintptr_t)1, __ATOMIC_SEQ_CST);
#endif
    *slot = to;
    /* whom a thread that waits for the GIL asks to drop it */
    __atomic_store_n((PyThreadState **)(void *)&pyc_gil(to->interp)->last_holder, to, __ATOMIC_RELAXED);
}
#endif

/* Must this swap be CPython's own? From 3.13 a request to drop the GIL and the
 * word of pending calls are bits of one thread state, which must be honoured
 * before it is left; and a state takes over the version of the instrumentation
 * (sys.monitoring, settrace) when it is attached, the high bits of the word. */
static inline int pyc_stock_swap_due(PyThreadState *from, PyThreadState *to)
{
#if PYC_313
    uintptr_t f = __atomic_load_n(&from->eval_breaker, __ATOMIC_RELAXED);
    uintptr_t t = __atomic_load_n(&to->eval_breaker, __ATOMIC_RELAXED);
    return ((f ^ t) & ~(uintptr_t)0xff) != 0 || (f & 5u) != 0;
#else
    (void)from;
    (void)to;
    return 0;
#endif
}

/* ---- signals ---------------------------------------------------------------- */
static inline int pyc_signals_pending(PyThreadState *main_ts)
{
#if PYC_313
    return (__atomic_load_n(&main_ts->eval_breaker, __ATOMIC_RELAXED) & 2u) != 0;
#else
    (void)main_ts;
    return __atomic_load_n((int *)(void *)&_PyRuntime.ceval.signals_pending, __ATOMIC_RELAXED);
#endif
}
static inline void pyc_signals_taken(PyThreadState *main_ts)
{
#if PYC_313
    __atomic_fetch_and(&main_ts->eval_breaker, ~(uintptr_t)2, __ATOMIC_SEQ_CST);
#else
    (void)main_ts;
    __atomic_store_n((int *)(void *)&_PyRuntime.ceval.signals_pending, 0, __ATOMIC_SEQ_CST);
#endif
}
static inline void pyc_signals_again(PyThreadState *main_ts)
{
#if PYC_313
    __atomic_fetch_or(&main_ts->eval_breaker, (uintptr_t)2, __ATOMIC_SEQ_CST);
#else
    __atomic_store_n((int *)(void *)&_PyRuntime.ceval.signals_pending, 1, __ATOMIC_SEQ_CST);
    __atomic_store_n((int *)(void *)&main_ts->interp->ceval.eval_breaker, 1, __ATOMIC_SEQ_CST);
#endif
}
static inline void pyc_signals_forward(PyThreadState *main_ts, PyThreadState *to)
{   /* 3.13 tells only the main thread state; the one that runs there must know */
#if PYC_313
    if (__builtin_expect(__atomic_load_n(&main_ts->eval_breaker, __ATOMIC_RELAXED) & 2u, 0))
        __atomic_fetch_or(&to->eval_breaker, (uintptr_t)2, __ATOMIC_SEQ_CST);
#else
    (void)main_ts;
    (void)to;
#endif
}

static inline void pyc_set_main(PyThreadState *ts)
{   /* in a fork's child: whom signals are announced to */
#if PYC_313
    _PyRuntime.main_tstate = ts;
#else
    (void)ts;
#endif
}

static inline void pyc_set_main_thread(unsigned long ident) { _PyRuntime.main_thread = ident; }

/* ---- preemption --------------------------------------------------------------- */
#if PYC_312
/* Have whoever holds the GIL call fn(NULL) between two bytecodes. Needs no GIL. */
static inline int pyc_call_soon(PyInterpreterState *interp, int (*fn)(void *))
{
    return (int)_PyEval_AddPendingCall(interp, fn, NULL, 0);
}
/* In fn: others may make pending calls while it does not return. */
static inline void pyc_preempting(PyInterpreterState *interp)
{
#if PYC_313
    interp->ceval.pending.handling_thread = NULL;
#else
    interp->ceval.pending.busy = 0;
#endif
}
#else
/* Up to 3.11 only the main thread makes pending calls; a trace function is called at
 * the next instruction of ts. The GIL is held. */
static int (*pyc_soon)(void *);
static int pyc_trace(PyObject *obj, PyFrameObject *f, int what, PyObject *arg)
{
    (void)obj;
    (void)what;
    (void)arg;
    PyThreadState_Get()->c_tracefunc = NULL; /* its caller sees to the rest */
    for (_PyInterpreterFrame *i = f->f_frame; i; i = i->previous)
        if (i->frame_obj) i->frame_obj->f_trace_opcodes = 0;
    return pyc_soon(NULL);
}
static inline int pyc_call_soon(PyThreadState *ts, int (*fn)(void *))
{
    if (ts->c_tracefunc || ts->tracing || !ts->cframe) return -1; /* a debugger's */
    pyc_soon = fn;
    PyFrameObject *f = PyThreadState_GetFrame(ts);
    if (!f) return -1;
    f->f_trace_opcodes = 1;
    Py_DECREF(f);
    ts->c_tracefunc = pyc_trace;
    ts->cframe->use_tracing = 255;
    return 0;
}
static inline void pyc_preempting(PyInterpreterState *interp) { (void)interp; }
#endif

/* ---- recursion and the C stack ------------------------------------------------ */
/* From 3.14 CPython looks at the stack pointer, before that it counts: nested C
 * calls, and up to 3.11 Python's with them. */
#define PYC_COUNTS_C (!PYC_314)

#if PYC_COUNTS_C
static inline volatile int *pyc_calls_left(PyThreadState *ts)
{
#if PYC_312
    return &ts->c_recursion_remaining;
#else
    return &ts->recursion_remaining;
#endif
}
/* How many a goroutine may nest; all: how many a new thread state has left. */
static inline int pyc_calls_limit(PyThreadState *ts, int all)
{
#if PYC_312
    (void)ts;
    return all;
#else
    (void)all;
    return ts->recursion_limit;
#endif
}
#endif

static inline void pyc_limit_c_stack(PyThreadState *ts, char *lo, char *hi)
{
#if PYC_314
    PyUnstable_ThreadState_SetStackProtection(ts, lo, (size_t)(hi - lo));
#else
    (void)ts;
    (void)lo;
    (void)hi;
#endif
}

/* ---- state a dead goroutine must not leave to the next -------------------------- */
static inline void pyc_clear_extra(PyThreadState *ts)
{
#if PYC_313
    Py_CLEAR(ts->threading_local_key);
    Py_CLEAR(ts->threading_local_sentinel);
#else
    (void)ts;
#endif
}

/* ---- the running frame, for a signal handler ------------------------------------- */
static inline struct _PyInterpreterFrame *pyc_top_frame(PyThreadState *ts)
{
#if PYC_313
    return ts->current_frame;
#else
    return ts->cframe ? ts->cframe->current_frame : NULL;
#endif
}
static inline PyCodeObject *pyc_frame_code(struct _PyInterpreterFrame *f)
{
#if PYC_312
    if (f->owner >= 3) return NULL; /* the interpreter's own entry frame */
#endif
#if PYC_314
    PyObject *o = (PyObject *)(f->f_executable.bits & ~(uintptr_t)3);
#elif PYC_313
    PyObject *o = f->f_executable;
#else
    PyObject *o = (PyObject *)f->f_code;
#endif
    return o && Py_IS_TYPE(o, &PyCode_Type) ? (PyCodeObject *)o : NULL;
}
static inline int pyc_frame_lasti(struct _PyInterpreterFrame *f, PyCodeObject *co)
{
#if PYC_313
    return (int)((char *)f->instr_ptr - (char *)_PyCode_CODE(co));
#else
    return (int)((char *)f->prev_instr - (char *)_PyCode_CODE(co));
#endif
}
#endif
