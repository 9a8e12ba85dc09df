/* pyctx.c - each Python goroutine's own PyThreadState, and how an M attaches it.
 *
 * The only file that knows CPython's internals (by way of pycompat.h).
 *
 * Owns: G.ts and M.ts. M.ts is the thread state that this M has attached; while
 * it is not NULL the M holds the GIL, or its goroutine does whatever it likes
 * with it inside a C call. A parked goroutine's thread state is attached
 * nowhere, but for the one an M keeps while its g0 looks for work.
 *
 * Rules, learnt from CPython 3.11 to 3.15:
 *   - The GILState key of an OS thread must name the thread state that runs on
 *     it, else PyGILState_Ensure in callbacks picks a wrong one. 3.11 never sets
 *     it in a swap; 3.12 on does, if bound_gilstate is off. So that bit is
 *     cleared whenever a state leaves its thread, and the key with it: another
 *     thread's key must never name a state that may be freed.
 *   - The stock swap of 3.12 on drops and retakes the GIL (some 50 ns). The fast
 *     one writes the same fields and the hidden thread-local slot, whose place
 *     is found at the start and proved by watching stock swaps move it. Where
 *     that fails the stock swap is used.
 *   - From 3.13 a request to drop the GIL is a bit of one thread state, that of
 *     gil->last_holder: the fast swap updates the latter, and leaves it to the
 *     stock one whenever a word of a thread state must be passed on.
 *   - The first datastack chunk lives in the goroutine's stack slot; it must be
 *     taken out before a state is cleared, for CPython would unmap it.
 *
 * Everything here runs with the GIL held but for attach, signals, dump, and the
 * first look of detached().
 */
#define _GNU_SOURCE
#include "pycompat.h"
#include "netpoll.h"
#include "pyctx.h"
#include "schedint.h"

#include <link.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DS_HEAD 1152            /* first frames on the hot page: 2 or 3 shallow ones */
#define DS_TAIL 16384

static PyThreadState *main_ts;
static unsigned long main_ident; /* of the main thread. CPython takes for it whichever runs the main
                                    goroutine: that one handles signals */
static PyThreadState *helper_ts; /* for threads of ours that need the GIL */
static gmutex helper_lock;
static gmutex new_lock;          /* up to 3.12: a thread state is being made */
static int64_t dead_threads;     /* CPython still counts them: their fork's parent has them */
static _Atomic bool helper_in;   /* helper_ts holds the GIL */
static bool fast;

/* ---- the hidden slot of the current thread state --------------------------- */
static char *thread_pointer(void) { return __builtin_thread_pointer(); }

/* Never inlined: its address belongs to the OS thread, which a switch changes. */
__attribute__((unused)) static NOINLINE PyThreadState **current_slot(void)
{
    return (PyThreadState **)(void *)(thread_pointer() + gort_ts_slot);
}

#if PYC_KNOWS_SWAP
typedef struct finder { void *probe; ptrdiff_t off[16]; int n; } finder;

static int find_slots(struct dl_phdr_info *info, size_t size, void *arg)
{
    finder *f = arg;
    (void)size;
    if (!info->dlpi_tls_data) return 0;
    const char *lo = NULL, *hi = NULL;
    size_t tls = 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
        const char *at = (const char *)info->dlpi_addr + ph->p_vaddr;
        if (ph->p_type == PT_TLS) tls = ph->p_memsz;
        if (ph->p_type == PT_LOAD && (const char *)&_PyRuntime >= at && (const char *)&_PyRuntime < at + ph->p_memsz) {
            lo = at;
            hi = at + ph->p_memsz;
        }
    }
    if (!lo || !hi) return 0; /* not the module that CPython lives in */
    char *data = info->dlpi_tls_data;
    for (size_t i = 0; i + sizeof(void *) <= tls; i += sizeof(void *))
        if (*(void **)(void *)(data + i) == f->probe && f->n < 16) f->off[f->n++] = data + i - thread_pointer();
    return 1;
}

/* Find the one word that follows what stock swaps say the current state is. */
static void find_slot(void)
{
    PyThreadState *a = PyThreadState_Get(), *b = PyThreadState_New(a->interp);
    if (!b) {
        PyErr_Clear();
        return;
    }
    finder f = { .probe = a };
    dl_iterate_phdr(find_slots, &f);
    for (int round = 0; round < 4; round++) {
        PyThreadState *now = round % 2 ? a : b;
        PyThreadState_Swap(now);
        int n = 0;
        for (int i = 0; i < f.n; i++)
            if (*(void **)(void *)(thread_pointer() + f.off[i]) == now) f.off[n++] = f.off[i];
        f.n = n;
    }
    if (f.n == 1) {
        gort_ts_slot = f.off[0];
        fast = true;
        pyc_fast_swap(current_slot(), a, b); /* and the other way round: does CPython see it? */
        bool ok = PyThreadState_Get() == b && PyGILState_GetThisThreadState() == b;
        pyc_fast_swap(current_slot(), b, a);
        fast = ok && PyThreadState_Get() == a && PyGILState_GetThisThreadState() == a;
        if (!fast) gort_ts_slot = 0;
    }
    PyThreadState_Clear(b);
    pyc_unbind_key(b);
    PyThreadState_Delete(b);
}
#else
static void find_slot(void) {}
#endif

/* ---- the warning zone of a stack (stack.c) -------------------------------------- */
#if PYC_COUNTS_C
#define STACK_ZONE ((size_t)64 << 10) /* getaddrinfo takes 35 KB of C stack */
/* Counted calls smaller than this on the average are what fills the stack: nested
 * sorts, the fattest, take 1.7 KB a counted call. Otherwise it is one fat call
 * that counts nothing, such as getaddrinfo, and no fault of the counted ones. */
#define FAT_CALL 4096

static int calls_all; /* that CPython lets a new thread nest */

/* In the signal handler, on the thread that runs g. The counter it changes may be
 * in a register of the code that it interrupts, and the change be lost: the next
 * step of the zone changes it again. */
static void ctx_deep(G *g, size_t used)
{
    volatile int *left = pyc_calls_left(g->ts);
    int taken = pyc_calls_limit(g->ts, calls_all) - *left - g->cut;
    if (*left <= 0 || (size_t)taken < used / FAT_CALL) return;
    g->cut += *left;
    *left = 0;
}

NOINLINE void pyctx_shallow(G *g)
{
    if (!stack_is_shallow(g, __builtin_frame_address(0))) return;
    stack_shallow(g);
    *pyc_calls_left(g->ts) += g->cut;
    g->cut = 0;
}

static void zone_init(void)
{
    calls_all = *pyc_calls_left(helper_ts);
    stackpool_zone(gort_python.stacks, gort_stack_bytes / 4 < STACK_ZONE ? gort_stack_bytes / 4 : STACK_ZONE);
}
#else
#define ctx_deep NULL
void pyctx_shallow(G *g) { (void)g; }
static void zone_init(void) {}
#endif

/* ---- attaching --------------------------------------------------------------- */
static void attach_ts(PyThreadState *ts)
{   /* no state attached, the GIL not held */
    pyc_unbind_key(ts);
    PyEval_RestoreThread(ts);
#if !PYC_312
    pyc_set_key(ts);
#endif
}

static void detach_ts(PyThreadState *ts)
{
    pyc_set_key(NULL); /* a thread without a state must not name one */
    pyc_unbind_key(ts);
    PyEval_SaveThread();
}

/* py-spy takes a state for busy if the OS thread that it names is; so the one that
 * nobody runs names sysmon's, which sleeps. */
static inline void runs_on(PyThreadState *ts, int tid) { ts->native_thread_id = (unsigned long)tid; }
static inline void runs_nowhere(PyThreadState *ts)
{
    runs_on(ts, atomic_load_explicit(&sysmon_tid, memory_order_relaxed));
}

/* Signal handlers are Python code that CPython runs in its main thread, and that is the OS
 * thread of the main goroutine while that one runs (or sits in a call), and else none: a
 * handler's exception shall come to nobody else. sysmon wakes the main goroutine for it. */
static void main_arrives(void)
{
    pyc_set_main_thread(PyThread_get_thread_ident());
    if (unlikely(pyc_signals_pending(main_ts))) pyc_signals_again(main_ts);
}
static void main_leaves(void) { pyc_set_main_thread(0); }

static void ctx_attach(M *m, G *to)
{
    attach_ts(to->ts);
    m->ts = to->ts;
    runs_on(to->ts, m->tid);
    if (unlikely(to->ts == main_ts)) main_arrives();
}

static void ctx_detach(M *m)
{
    PyThreadState *ts = m->ts;
    m->ts = NULL;
    runs_nowhere(ts);
    if (unlikely(ts == main_ts)) main_leaves();
    detach_ts(ts);
}

/* A goroutine that comes back from a blocking call waits for the GIL, and CPython would
 * have it wait for the switch interval of 5 ms. So whoever schedules lets it in, as often
 * as leaves it half of the time. */
#define OFFER_NS 20000    /* a turn at least */
#define OFFER_MOST 5000000 /* ... and at most, after somebody kept the GIL for long */
#define OFFER_WAIT 50000  /* who is let in mostly wakes up and is in its next call sooner; that is */
#define OFFER_PAUSE 2000  /* one that lasts (a query of SQLite drops the GIL nine times, mostly for less) */
static int64_t offer_next; /* GIL */

static NOINLINE bool offer_gil(PyThreadState *from, PyThreadState *to)
{
    int64_t start = gort_now_ns(), now, busy;
    if (start < offer_next) return false;
    unsigned long before = pyc_gil_switches(main_ts->interp);
    detach_ts(from);
    now = busy = start;
    while (now - start < OFFER_WAIT && now - busy < OFFER_PAUSE) {
        os_yield_cpu();
        now = gort_now_ns();
        if (pyc_gil_switches(main_ts->interp) == before || pyc_gil_locked(main_ts->interp)) busy = now;
    }
    attach_ts(to);
    now = gort_now_ns();
    int64_t took = now - start < OFFER_NS ? OFFER_NS : now - start;
    offer_next = now + (took > OFFER_MOST ? OFFER_MOST : took);
    return true;
}

static void ctx_offer(M *m)
{
    if (unlikely(pyc_gil_wanted(main_ts->interp))) offer_gil(m->ts, m->ts);
}

static void ctx_swap(M *m, G *to)
{
    PyThreadState *from = m->ts, *ts = to->ts;
    m->ts = ts;
    runs_nowhere(from);
    runs_on(ts, m->tid);
    if (unlikely(pyc_gil_wanted(main_ts->interp)) && offer_gil(from, ts)) {
        /* it is done, by way of no state at all */
    } else
#if PYC_KNOWS_SWAP
    if (likely(fast && !pyc_stock_swap_due(from, ts))) {
        pyc_fast_swap(current_slot(), from, ts);
    } else
#endif
    {
        pyc_unbind_key(from);
        pyc_unbind_key(ts);
#if PYC_312
        pyc_set_key(NULL);
#endif
        PyThreadState_Swap(ts);
#if !PYC_312
        pyc_set_key(ts);
#endif
    }
    if (unlikely(from == main_ts)) main_leaves();
    else if (unlikely(ts == main_ts)) main_arrives();
}

static void *ctx_release(void) { return PyEval_SaveThread(); }
static void ctx_acquire(void *ts) { PyEval_RestoreThread(ts); }

static void *ctx_gil_enter(void)
{
    if (atomic_load(&sysmon_no_python)) return NULL;
    gmutex_lock(&helper_lock);
    if (atomic_load(&sysmon_no_python)) {
        gmutex_unlock(&helper_lock);
        return NULL;
    }
    attach_ts(helper_ts);
    atomic_store(&helper_in, true);
    return helper_ts;
}

static void ctx_gil_leave(void *ts)
{
    atomic_store(&helper_in, false);
    detach_ts(ts);
    gmutex_unlock(&helper_lock);
}

/* ---- the life of a goroutine's thread state ------------------------------------ */
static _Atomic uint64_t ts_serial = (uint64_t)1 << 62; /* ids of ours, never CPython's */

static void set_chunk(G *g, PyThreadState *ts)
{
    _PyStackChunk *c = (_PyStackChunk *)(void *)g->ds_lo;
    c->previous = NULL;
    c->size = (size_t)(g->ds_hi - g->ds_lo);
    c->top = 0;
    ts->datastack_chunk = c;
    ts->datastack_top = &c->data[1]; /* data[0] of a root chunk stays free */
    ts->datastack_limit = (PyObject **)(void *)g->ds_hi;
}

static bool give_ts(G *g)
{
    if (!PYC_313) gmutex_lock(&new_lock);
    PyThreadState *ts = PyThreadState_New(main_ts->interp); /* needs no GIL */
    if (!PYC_313) gmutex_unlock(&new_lock);
    if (!ts) return false;
    if (helper_ts) runs_nowhere(helper_ts); /* by now there is a sysmon */
    set_chunk(g, ts);
    pyc_limit_c_stack(ts, g->stack_lo, g->stack_hi);
    g->ts = ts;
    return true;
}

/* f's turn to run: give it a G. On the stack of a G that ended or parked, with
 * the GIL, or on g0, maybe without it. */
static G *ctx_start(gfresh *f, G *on)
{
    G *g = on ? on : g_new(&gort_python);
    if (unlikely(!g || (!g->ts && !give_ts(g)))) {
        if (g) g_discard(g);
        if (getm()->curg) return NULL; /* no place to run Python code: g0 tries again */
        if (getm()->ts) ctx_detach(getm()); /* it is a parked goroutine's */
        void *save = ctx_gil_enter();
        if (!save) return NULL; /* Python is going away */
        sched_uncount(f);
        f->failed(f->handle);
        ctx_gil_leave(save);
        return NULL;
    }
    /* contextvars cache by (id, version): a state used again is another one */
    ((PyThreadState *)g->ts)->id = ++ts_serial;
    /* what sys._current_frames, faulthandler and debuggers know it by */
    ((PyThreadState *)g->ts)->thread_id = (unsigned long)f->id;
    g->id = f->id;
    g->handle = f->handle;
    g->bubble = f->bubble;
    g->prio = f->prio;
    g->fn = f->fn;
    g->arg = f->arg;
    g->kill_pending = f->kill_pending;
    g->system = f->system;
    *f->slot = g;
    atomic_store_explicit(&g->status, G_RUNNABLE, memory_order_relaxed);
    return g;
}

/* On g's own state, as its last act: leave nothing to the next goroutine. */
void pyctx_dead(G *g)
{
    PyThreadState *ts = g->ts;
    if (unlikely(g->deep)) pyctx_shallow(g);
    if (ts->c_tracefunc) PyEval_SetTrace(NULL, NULL);
    if (ts->c_profilefunc) PyEval_SetProfile(NULL, NULL);
    if (unlikely(PyErr_Occurred() != NULL)) PyErr_Clear();
    /* Clearing may run code that makes new entries; three rounds, then let be. */
    for (int i = 0; i < 3 && (ts->dict || ts->context); i++) {
        Py_CLEAR(ts->dict);
        Py_CLEAR(ts->context);
    }
    ts->context_ver = 1;
    Py_CLEAR(ts->async_exc);
    Py_CLEAR(ts->async_gen_firstiter);
    Py_CLEAR(ts->async_gen_finalizer);
    pyc_clear_extra(ts);
    ts->coroutine_origin_tracking_depth = 0;
    ts->gilstate_counter = 1;
}

static void ctx_drop(G *g)
{
    PyThreadState *ts = g->ts;
    g->ts = NULL;
    ts->datastack_chunk = NULL;
    ts->datastack_top = ts->datastack_limit = NULL;
    PyThreadState_Clear(ts);
    pyc_unbind_key(ts);
    pyc_unheld(ts);
    PyThreadState_Delete(ts);
}

/* ---- what the scheduler asks ------------------------------------------------------ */
static bool ctx_has_gil(M *m) { return _PyThreadState_UncheckedGet() == m->ts; }

static bool ctx_signals(void) { return pyc_signals_pending(main_ts); }

int pyctx_check_signals(void)
{
    pyc_signals_taken(main_ts);
    if (PyErr_CheckSignals() == 0) return 0;
    pyc_signals_again(main_ts); /* a handler raised: others may be left, as CPython's own caller does */
    return -1;
}

/* m's goroutine has released the GIL and nobody else has it: it sits in a call,
 * and others could run. Read without the GIL this is a guess; a caller that has
 * the GIL itself knows that m's goroutine has not. */
static int ctx_detached(M *m)
{
    if (atomic_load_explicit(&helper_in, memory_order_relaxed) || !pyc_gil_locked(main_ts->interp)) return 1;
    return pyc_gil_holder(main_ts->interp) == m->ts ? 0 : 2;
}

static bool is_ours(PyThreadState *ts)
{
    return ts == main_ts || ts == helper_ts || ts->id > (uint64_t)1 << 62;
}

/* How many Python threads are there that are neither goroutines nor waiting in
 * gort without an end? The count is CPython's; the list, which a goroutine each
 * makes long, is walked only when the count says that nobody is left. */
static bool foreign_threads(void)
{
    int64_t waiting = waiters_stuck();
    if (main_ts->interp->threads.count - dead_threads > waiting) return true;
    int64_t n = 0;
    for (PyThreadState *ts = PyInterpreterState_ThreadHead(main_ts->interp); ts; ts = PyThreadState_Next(ts))
        n += !is_ours(ts);
    return n > waiting;
}

/* Has the program handlers of signals of its own? Each might wake somebody. SIGINT's tells how CPython's
 * handler looks to the kernel; another one than Python's default there is not seen. */
static bool handles_signals(void)
{
    PyOS_sighandler_t python = PyOS_getsig(SIGINT);
    if (python == SIG_DFL || python == SIG_IGN) return false;
    for (int n = 1; n < NSIG; n++)
        if (n != SIGINT && PyOS_getsig(n) == python) return true;
    return false;
}

/* m has nothing to run. See api.md: is there anybody left who could wake one? */
static int ctx_deadlock(M *m)
{
    Dom *d = m->dom;
    G *g = gort_main_g;
    if (atomic_load(&g->status) != G_WAITING || WK_CODE(atomic_load(&g->wake)) || g->kill_pending) return 0;
    if (netpoll_any()) return 0; /* somebody waits for the network */
    for (int i = 0; i < d->nallp; i++)
        if (timers_hope(&atomic_load(&d->allp[i])->tm)) return 0;
    if (sched_busy(d, m)) return -1; /* its M may go idle without a P, and then nobody looks */
    for (int i = 0; i < gort_native.nallp; i++)
        if (timers_hope(&atomic_load(&gort_native.allp[i])->tm)) return -1;
    if (sched_busy(&gort_native, NULL)) return -1;
    if (handles_signals()) return 0;
    void *save = NULL;
    if (!m->ts && !(save = ctx_gil_enter())) return 0;
    bool left = foreign_threads() || sched_busy(d, m) || !runq_empty(m->p) || pyc_signals_pending(main_ts);
    int r = left ? -1 : wait_interrupt(g, WC_DEADLOCK);
    if (save) ctx_gil_leave(save);
    return r;
}

/* ---- dumps ---------------------------------------------------------------------------- */
static void put(int fd, const char *s, size_t n)
{
    if (write(fd, s, n) < 0) return;
}

static void put_str(int fd, PyObject *o)
{
    if (!o || !PyUnicode_Check(o) || !PyUnicode_IS_COMPACT_ASCII(o)) {
        put(fd, "???", 3);
        return;
    }
    size_t n = (size_t)PyUnicode_GET_LENGTH(o);
    put(fd, PyUnicode_DATA(o), n < 500 ? n : 500);
}

static void put_num(int fd, long v)
{
    char buf[24], *p = buf + sizeof buf;
    do *--p = (char)('0' + v % 10);
    while ((v /= 10) > 0);
    put(fd, p, (size_t)(buf + sizeof buf - p));
}

/* Async-signal-safe: reads the frames, allocates nothing. */
static void ctx_dump(int fd, G *g)
{
    PyThreadState *ts = g->ts;
    int depth = 0;
    for (struct _PyInterpreterFrame *f = pyc_top_frame(ts); f; f = f->previous) {
        PyCodeObject *co = pyc_frame_code(f);
        if (!co) continue;
        if (++depth > 100) {
            put(fd, "\t...\n", 5);
            return;
        }
        put_str(fd, co->co_qualname);
        put(fd, "()\n\t", 4);
        put_str(fd, co->co_filename);
        put(fd, ":", 1);
        int line = PyCode_Addr2Line(co, pyc_frame_lasti(f, co));
        put_num(fd, line > 0 ? line : 0);
        put(fd, "\n", 1);
    }
}

/* ---- preemption ---------------------------------------------------------------------- */
static M *ctx_running(Dom *d, uint64_t *turn)
{
    if (!pyc_gil_locked(main_ts->interp)) return NULL;
    void *ts = pyc_gil_holder(main_ts->interp);
    P *p = atomic_load(&d->allp[0]);
    M *m = atomic_load(&p->m);
    if (m && __atomic_load_n(&m->ts, __ATOMIC_RELAXED) == ts) {
        *turn = atomic_load_explicit(&p->schedtick, memory_order_relaxed);
        return m;
    }
    *turn = (uint64_t)1 << 32 | pyc_gil_switches(main_ts->interp);
    gmutex_lock(&d->lock);
    for (m = atomic_load(&d->allm); m; m = m->alllink)
        if (__atomic_load_n(&m->ts, __ATOMIC_RELAXED) == ts) break;
    gmutex_unlock(&d->lock);
    return m;
}

/* GORT_DEBUG=blocked: g has just come back from a call that did not release the GIL,
 * so that nobody could be handed anything. */
static void tell_held(G *g, int64_t held)
{
    char buf[128];
    int n = snprintf(buf, sizeof buf, "gort: goroutine %llu held the GIL for %lld ms in one call:\n",
                     (unsigned long long)g->id, (long long)(held / 1000000));
    put(2, buf, (size_t)n);
    ctx_dump(2, g);
}

/* Called by CPython between two bytecodes of who has the GIL, who is not always the
 * one that was meant. */
static _Atomic int64_t preempt_queued; /* from 3.12: since when such a call is on its way; 0: it is not */
static int preempt_here(void *arg)
{
    (void)arg;
    atomic_store(&preempt_queued, 0);
    M *m = getm();
    G *g = m ? m->curg : NULL;
    if (!g || g->kind != GK_PYTHON || m->ts != PyThreadState_Get() || atomic_load(&sysmon_no_python)) return 0;
    int64_t asked = atomic_exchange(&m->preempt, 0);
    if (!asked) return 0;
    int64_t held = gort_now_ns() - asked;
    if (gort_blocked_ns && held >= gort_blocked_ns) tell_held(g, held);
    pyc_preempting(main_ts->interp);
    sched_preempt(g);
    return 0;
}

#define PREEMPT_AGAIN 1000000
static bool ctx_preempt(M *m)
{
#if PYC_312
    (void)m;
    /* CPython notes it in one thread state or word, where a swap at that moment may lose it */
    int64_t now = gort_now_ns(), since = atomic_load(&preempt_queued);
    if (since && now - since < PREEMPT_AGAIN) return true;
    atomic_store(&preempt_queued, now);
    return pyc_call_soon(main_ts->interp, preempt_here) == 0;
#else
    void *save = ctx_gil_enter();
    if (!save) return false;
    bool ok = m->ts && pyc_call_soon(m->ts, preempt_here) == 0;
    ctx_gil_leave(save);
    return ok;
#endif
}

PyObject *pyctx_frame_or_none(G *g)
{
    PyObject *f = g->ts ? (PyObject *)PyThreadState_GetFrame(g->ts) : NULL;
    return f ? f : Py_NewRef(Py_None);
}

/* ---- fork --------------------------------------------------------------------------------- */
/* The list of thread states is to be whole in the child. From 3.13 CPython sees to it
 * that none is made meanwhile; before, others than ours are made with the GIL. */
static void ctx_fork_before(void)
{
    if (!PYC_313) gmutex_lock(&new_lock);
}
static void ctx_fork_parent(void)
{
    if (!PYC_313) gmutex_unlock(&new_lock);
}

static void *ctx_fork_ts(void) { return PyGILState_GetThisThreadState(); }

/* CPython is about to clear all states but ts, which would unmap the chunks and run
 * destructors for goroutines whose frames go on to refer to what is destroyed. Ours
 * are taken off its list instead, and left as they are. */
static void ctx_fork_child(void *keep)
{
    PyInterpreterState *interp = main_ts->interp;
    PyThreadState *first = NULL, *last = NULL, *next;
    atomic_store(&helper_lock.v, 0);
    atomic_store(&helper_in, false);
    atomic_store(&new_lock.v, 0);
    atomic_store(&preempt_queued, 0);
    atomic_store(&sysmon_no_python, true); /* until pyctx_forked() */
    if (!keep) return;
    for (PyThreadState *ts = interp->threads.head; ts; ts = next) {
        next = ts->next;
        if (ts != keep && is_ours(ts)) continue;
        ts->prev = last;
        if (last) last->next = ts;
        else first = ts;
        last = ts;
    }
    if (last) last->next = NULL;
    interp->threads.head = first;
    helper_ts = NULL;
    main_ts = keep;
    main_ident = main_ts->thread_id = PyThread_get_thread_ident();
    pyc_set_main(keep);
}

int pyctx_forked(void)
{
    dead_threads = main_ts->interp->threads.count;
    pyc_set_main(main_ts);
    if (!(helper_ts = PyThreadState_New(main_ts->interp))) {
        PyErr_NoMemory();
        return -1;
    }
    helper_ts->thread_id = 0;
    atomic_store(&sysmon_no_python, false);
    sysmon_wake();
    return 0;
}

/* ---- start and end ------------------------------------------------------------------------ */
static const pyhooks hooks = {
    .swap = ctx_swap, .attach = ctx_attach, .detach = ctx_detach,
    .release = ctx_release, .acquire = ctx_acquire, .deadlock = ctx_deadlock,
    .signals = ctx_signals, .dump = ctx_dump, .detached = ctx_detached,
    .gil_enter = ctx_gil_enter, .gil_leave = ctx_gil_leave, .drop = ctx_drop, .start = ctx_start,
    .has_gil = ctx_has_gil, .running = ctx_running, .offer = ctx_offer, .preempt = ctx_preempt,
    .deep = ctx_deep, .shallow = pyctx_shallow,
    .fork_before = ctx_fork_before, .fork_parent = ctx_fork_parent, .fork_child = ctx_fork_child, .fork_ts = ctx_fork_ts,
};

unsigned long pyctx_main_ident(void) { return main_ident; }
const char *pyctx_swap_name(void) { return fast ? "fast" : "stock"; }
void pyctx_use_stock_swap(void) { fast = false; }

int pyctx_init(void)
{
    main_ts = PyThreadState_Get();
    main_ident = PyThread_get_thread_ident();
    if (!(helper_ts = PyThreadState_New(main_ts->interp))) {
        PyErr_NoMemory();
        return -1;
    }
    gort_ts_callbacks = offsetof(PyThreadState, gilstate_counter);
    helper_ts->thread_id = 0; /* not the main thread's, to whoever looks for that */
    find_slot();
    if (config_debug("stockswap", 0)) fast = false;
    if (gort_init_python(&hooks, DS_HEAD, DS_TAIL, main_ts)) {
        PyErr_SetString(PyExc_MemoryError, "gort: no memory for the runtime");
        return -1;
    }
    if (pyctx_builtins_init() < 0) return -1;
    zone_init();
    return 0;
}

void pyctx_stop(void)
{
    atomic_store(&sysmon_no_python, true);
    atomic_store(&gort_stopped, true);
    /* 3.12 and 3.13 let the thread by which they know the finalising state go on, too: that shall
     * not be the main thread, if it is in a call of another goroutine. */
    PyThreadState_Get()->thread_id = PyThread_get_thread_ident();
    /* Whoever is in there waits for our GIL: let it through. */
    PyThreadState *ts = PyEval_SaveThread();
    gmutex_lock(&helper_lock);
    gmutex_unlock(&helper_lock);
    PyEval_RestoreThread(ts);
}

void pyctx_free_pool(void)
{
    Dom *d = &gort_python;
    for (G *g; (g = sched_pool_take(d));) {
        if (g->ts) ctx_drop(g);
        stack_free(d->stacks, g);
    }
}
