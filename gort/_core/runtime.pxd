# runtime.pxd - csrc/runtime.h and csrc/pyctx.h, as far as the bindings use them.
from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint64_t

cdef extern from "runtime.h" nogil:
    ctypedef struct G
    ctypedef struct gmutex:
        pass
    ctypedef struct sudog:
        pass
    ctypedef struct waitq:
        sudog *first
    ctypedef struct M:
        G *curg
    ctypedef struct Dom:
        pass
    ctypedef struct stackpool "struct stackpool":
        pass
    ctypedef struct timers:
        int64_t next
    ctypedef struct gort_bubble:
        bint fake, seeded
        uint64_t id, steps, limit
        int64_t now, total, running
        timers tm
        void *owner
        uint64_t change[8]
        int nchange
    ctypedef struct G:
        void *handle
        gort_bubble *bubble
        void *ts
        M *lockedm
        uint64_t id
        uint8_t status
        uint8_t kind
        uint8_t reason
        bint kill_pending
        bint system
        bint main
        uint8_t lock_depth
        int64_t wait_since
        void (*fn)(void *)
        void *arg
    ctypedef struct gfresh:
        G *link
        gort_bubble *bubble
        void *handle
        uint64_t id
        void (*fn)(void *) noexcept
        void *arg
        uint8_t status
        bint kill_pending
        bint system
        G **slot
        void (*failed)(void *) noexcept
    ctypedef struct gort_chan:
        gmutex lock
        uint8_t shared, dtype, closed, timer
        size_t cap, count, sendx, recvx
        uint64_t tseq, bubble
        void *buf
    ctypedef struct waitopt:
        int64_t deadline
        gort_chan *done
        bint python
    ctypedef void (*timerfn)(void *, uint64_t, int64_t) noexcept nogil
    ctypedef struct timer:
        timerfn fn
        void *arg
        uint64_t seq
        int32_t id
        uint8_t kind
        bint inherited
        int64_t period
    ctypedef struct scase:
        gort_chan *c
        uint64_t val
        uint8_t dir
    ctypedef struct gort_mutex:
        bint shared, locked, starving, woken, bubble
        waitq q
    ctypedef struct gort_rwmutex:
        bint shared, writer, bubble
        int64_t readers
    ctypedef struct gort_wg:
        bint shared, bubble
        int64_t n
    ctypedef struct gort_sema:
        bint shared, bubble
        int64_t size, cur
    ctypedef struct gort_notify:
        bint shared
        uint16_t gen
        waitq q
    ctypedef struct native_job:
        uint64_t id

    enum: G_IDLE, G_RUNNABLE, G_RUNNING, G_SYSCALL, G_WAITING, G_DEAD
    enum: GK_PYTHON, GK_NATIVE
    enum: R_JOIN, R_COND, R_SYSTEM, R_CHAN_RECV, R_SLEEP, R_DURABLE
    enum: WC_KILL, WC_INTR
    enum: TK_WAIT, TK_CHAN, TK_FUNC
    enum: GORT_OK, GORT_ECLOSED, GORT_EAGAIN, GORT_ETIMEDOUT, GORT_ENOMEM, GORT_EINVAL
    enum: GORT_EKILLED, GORT_EDEADLOCK, GORT_EINTR, GORT_ECTX, GORT_EBUBBLE
    enum: GORT_OBJ, GORT_I64, GORT_F64, GORT_U8, GORT_PTR, GORT_RECV, GORT_SEND
    int64_t GORT_FOREVER
    int64_t gort_coarse_ns
    const char *gort_reasons[1]
    Dom gort_python "gort_python"
    Dom gort_native "gort_native"
    G *gort_main_g
    bint gort_main_intr, gort_stopped
    uint16_t gort_fork_gen
    stackpool *py_stacks "gort_python.stacks"

    M *getm()
    void g_start_fresh(gfresh *f)
    void g_yield()
    void g_yield_on(M *m)
    int64_t sched_ngo(Dom *d)
    void sched_blocking_enter(G *g)
    void sched_blocking_exit(G *g)
    bint wait_interrupt(G *g, int code)
    const char *g_status_name(G *g)
    int os_ncpu()

    gort_chan *gort_chan_new(int dtype, size_t cap)
    void gort_chan_ref(gort_chan *c)
    void gort_chan_unref(gort_chan *c)
    size_t gort_chan_len(gort_chan *c)
    size_t gort_chan_cap(gort_chan *c)
    int gort_chan_close(gort_chan *c)
    int chan_close(gort_chan *c)
    int chan_send(gort_chan *c, uint64_t v, bint block, const waitopt *o)
    int chan_recv(gort_chan *c, uint64_t *v, bint block, const waitopt *o)
    int chan_recv_locked(gort_chan *c, uint64_t *v, G **ready)
    int select_go(const scase *cases, int n, bint block, const waitopt *o, uint64_t *val, int *ok)
    void gmutex_lock(gmutex *m)
    void gmutex_unlock(gmutex *m)

    int mutex_lock(gort_mutex *m, bint block, const waitopt *o)
    int mutex_unlock(gort_mutex *m)
    int rwmutex_rlock(gort_rwmutex *m, bint block, const waitopt *o)
    int rwmutex_runlock(gort_rwmutex *m)
    int rwmutex_lock(gort_rwmutex *m, bint block, const waitopt *o)
    int rwmutex_unlock(gort_rwmutex *m)
    int wg_add(gort_wg *w, int64_t n)
    int wg_wait(gort_wg *w, const waitopt *o)
    int sema_acquire(gort_sema *s, int64_t n, bint block, const waitopt *o)
    int sema_release(gort_sema *s, int64_t n)
    int notify_wait(gort_notify *n, int reason, const waitopt *o)
    void notify_wake(gort_notify *n, bint all)
    void notify_wake_last(gort_notify *n)

    int timer_add(timer *t, timers *tm, int64_t when)
    bint timer_del(timer *t)
    timers *timer_home(bint real)
    void timer_fire_chan(void *chan, uint64_t seq, int64_t now)
    bint timer_stop_chan(timer *t, gort_chan *c)
    int sleep_until(int64_t when, const waitopt *o)

    enum: BUBBLE_RANDOM, BUBBLE_PCT, BUBBLE_CHANGES
    int gort_nseeded
    gort_bubble *bubble_new(bint fake, bint seeded, uint64_t seed, int strategy)
    void bubble_ref(gort_bubble *b)
    void bubble_unref(gort_bubble *b)
    gort_bubble *bubble_current()
    bint bubble_foreign(uint64_t id)
    int64_t gort_clock_ns()
    int bubble_wait_idle(gort_bubble *b, const waitopt *o)
    int bubble_wait(gort_bubble *b, const waitopt *o)
    bint bubble_wake_waiter(gort_bubble *b)
    bint bubble_point()
    timer *bubble_any_func_timer(gort_bubble *b)

    native_job *job_start(void (*fn)(void *) noexcept nogil, void *arg)
    int job_join(native_job *j, const waitopt *o)
    bint job_done(native_job *j)
    void job_unref(native_job *j)
    int64_t gort_now_ns()
    int gort_maxprocs(int n)
    int64_t gort_num_native()
    void gort_yield_thread "os_yield_cpu"()
    void os_fail_set(int what, int64_t after, int64_t times)

cdef extern from "runtime.h": # they call back with the GIL held
    bint bubble_advance(gort_bubble *b)
    int64_t timers_run(timers *tm, int64_t now)
    void sched_each_fresh(Dom *d, void (*fn)(void *, void *) noexcept, void *arg)
    void stack_each(stackpool *sp, bint (*fn)(G *, void *) noexcept, void *arg)

cdef extern from "pyctx.h":
    int pyctx_init() except -1
    int pyctx_check_signals() except -1
    const char *pyctx_swap_name()
    int pyctx_forked() except -1
    unsigned long pyctx_main_ident()
    void pyctx_stop()
    void pyctx_free_pool()
    object pyctx_frame_or_none(G *g)
    void pyctx_dead(G *g)

cdef extern from *:
    """
    #define gort_ref(o) ((uint64_t)(uintptr_t)Py_NewRef(o))
    #define gort_steal(w) ((PyObject *)(uintptr_t)(w))
    static inline G *gort_curg(void) { M *m = getm(); G *g = m ? m->curg : NULL; return g && g->kind == GK_PYTHON ? g : NULL; }
    static inline M *gort_g_m(G *g) { return g->m; }
    static inline void gort_m_lock(G *g) { g->lockedm = g->m; g->m->lockedg = g; }
    static inline void gort_m_unlock(G *g) { g->m->lockedg = NULL; g->lockedm = g->main ? gort_python.main_m : NULL; }
    void sched_move(G *g);
    /* The main goroutine, but for a fork's child whose main goroutine go() once started. */
    static inline int gort_is_main_thread(G *g) { return g->main && !g->stack_lo; }
    static inline void gort_check_chan(gort_chan *c) { fork_check(c); }
    static inline int gort_on_main_m(void) { return getm() == gort_python.main_m; }
    static inline int gort_status(G *g) { return atomic_load_explicit(&g->status, memory_order_relaxed); }
    """
    uint64_t gort_ref(object o)
    object gort_steal(uint64_t w)
    G *gort_curg() nogil
    void gort_m_lock(G *g) nogil
    void gort_m_unlock(G *g) nogil
    int gort_status(G *g) nogil
    int gort_on_main_m() nogil
    bint gort_is_main_thread(G *g) nogil
    void sched_move(G *g)
