/* sched.c - the scheduler: switch, park, ready, find the next goroutine.
 *
 * After Go's proc.go, in its vocabulary. What is different, and why:
 *   - A goroutine that parks switches straight to the next one on its P's queue;
 *     g0 runs only when the queue is empty or something else is due.
 *   - A park is committed by the stack that runs next (after_switch); until then
 *     nobody may run the parked G. The wait word (runtime.h) keeps wake-ups.
 *   - An M may run a G without owning a P: a Python goroutine whose P was handed
 *     off while it sat in a C call, or that asked for it (blocking). It may call
 *     anything; when it parks, the M finds itself without a P and goes idle.
 *
 * Ms, Ps and their hand-over are in proc.c; the watching thread is in sysmon.c.
 *
 * Wake-up of idle Ms, "submit, then look": a submitter puts work on a queue,
 * fences, and looks at npidle/nmspinning; an M that goes idle announces it,
 * fences, and looks at all queues again. One of the two sees the other (Go's
 * "worker thread parking/unparking"). A domain with one P needs none of it: its
 * owner is awake, or the P is idle and the work is injected under dom.lock.
 *
 * Ownership: M fields belong to the thread of that M unless runtime.h says
 * otherwise; P fields to the M that owns the P.
 */
#define _GNU_SOURCE
#include "netpoll.h"
#include "schedint.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#elif defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define SCHED_TICK 61u          /* look at the global queue every so often (Go) */
#ifdef __x86_64__
#define TIMER_CYCLES 60000u     /* look at the clock this often: 15 to 60 us */
#else
#define TIMER_CYCLES 1000u
#endif
#define POLL_CYCLES (2 * TIMER_CYCLES) /* and at the network, with something else to run all the time */
#define FAR_CYCLES (50 * TIMER_CYCLES) /* and at all of these, where SCHED_TICK goroutines take long: 1 to 3 ms */
#define SHARE_NS 1000000        /* the preempted get on again after others have had so long */
#define RUNNEXT_NS 3000         /* how long a thief leaves a runnext alone */
#define GFREE_LOCAL 64          /* dead Gs a P keeps for itself (multi-P domains) */
#define GFREE_MAX 65536         /* dead Gs a domain keeps with their stacks, some 300 MB */

Dom gort_native = { .kind = GK_NATIVE }, gort_python = { .kind = GK_PYTHON };
const pyhooks *gort_py;
G *gort_main_g;
_Atomic bool gort_main_intr, gort_stopped;
static _Atomic uint64_t next_goid = 1;
static _Atomic uint64_t next_seed = 1; /* of wait words: no two Gs start alike */

/* ---- current M -------------------------------------------------------- */
static __thread M *tls_m;

NOINLINE M *getm(void) { return tls_m; }
void sched_set_m(M *m) { tls_m = m; }

uint32_t gort_rand(uint32_t n)
{
    static __thread uint32_t seed;
    uint32_t x = seed;
    if (unlikely(!x)) x = (uint32_t)(uintptr_t)&seed ^ (uint32_t)cycles() ^ 0x9e3779b9u;
    if (!x) x = 1;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    seed = x;
    return (uint32_t)((uint64_t)x * n >> 32);
}

/* ---- making and freeing Gs -------------------------------------------- */
#if defined(__SANITIZE_THREAD__)
static void fiber_new(G *g) { if (!g->fiber) g->fiber = __tsan_create_fiber(0); }
static void fiber_end(G *g) { __tsan_destroy_fiber(g->fiber); g->fiber = NULL; }
#elif GORT_SANITIZE_FIBERS
static void fiber_new(G *g) { g->fiber = NULL; }
static void fiber_end(G *g) { (void)g; }
#else
static void fiber_new(G *g) { (void)g; }
static void fiber_end(G *g) { (void)g; }
#endif

/* Where an OS thread has its Python thread state, from the thread pointer on; 0: gort_py->has_gil() knows */
ptrdiff_t gort_ts_slot;

/* The P that the caller may use. C code that a Python goroutine has called and that has
 * released the GIL has none: sysmon may take it away at any moment. Not inlined, as getm(). */
NOINLINE P *sched_own_p(void)
{
    M *m = tls_m;
    if (!m) return NULL;
    if (m->dom == &gort_python && m->curg) {
        if (likely(gort_ts_slot)) {
            char *tp = __builtin_thread_pointer();
            if (unlikely(*(void **)(void *)(tp + gort_ts_slot) != m->ts)) return NULL;
        } else if (!gort_py->has_gil(m)) {
            return NULL;
        }
    }
    return m->p;
}

static P *own_p(Dom *d)
{
    P *p = sched_own_p();
    return p && p->dom == d ? p : NULL;
}

static G *gfree_take(Dom *d, P *p)
{
    if (p && !p->gfree && atomic_load_explicit(&d->ngfree, memory_order_relaxed) > 0) {
        gmutex_lock(&d->lock); /* fetch half a P's share */
        for (int i = 0; i < GFREE_LOCAL / 2 && d->gfree; i++) {
            G *g = d->gfree;
            d->gfree = g->link;
            atomic_fetch_sub(&d->ngfree, 1);
            g->link = p->gfree;
            p->gfree = g;
            p->ngfree++;
        }
        gmutex_unlock(&d->lock);
    }
    G *g = NULL;
    if (p) {
        if (!(g = p->gfree)) return NULL;
        p->gfree = g->link;
        p->ngfree--;
    } else if (atomic_load_explicit(&d->ngfree, memory_order_relaxed) > 0) {
        gmutex_lock(&d->lock);
        if ((g = d->gfree)) {
            d->gfree = g->link;
            atomic_fetch_sub(&d->ngfree, 1);
        }
        gmutex_unlock(&d->lock);
    }
    return g;
}

/* The pools are full: give g's memory back. For Python Gs the GIL is held. */
static void g_drop(G *g)
{
    Dom *d = g->dom;
    if (g->ts) gort_py->drop(g);
    fiber_end(g);
    stack_free(d->stacks, g);
}

G *sched_pool_take(Dom *d) { return gfree_take(d, own_p(d)); }

static void gfree_put(Dom *d, P *p, G *g)
{
    M *m = getm();
    /* On g0 the M may still have g's thread state attached: that one must live. */
    bool keep = g->ts && m && m->ts == g->ts;
    if (p && (keep || p->ngfree < (d->kind == GK_PYTHON ? GFREE_MAX : GFREE_LOCAL))) {
        g->link = p->gfree;
        p->gfree = g;
        p->ngfree++;
        return;
    }
    G *drop = NULL;
    gmutex_lock(&d->lock);
    for (G *next; g; g = next) { /* g, and with a full local pool half of that */
        next = p && d->kind != GK_PYTHON && p->ngfree > GFREE_LOCAL / 2 ? p->gfree : NULL;
        if (next) {
            p->gfree = next->link;
            p->ngfree--;
        }
        bool full = !keep && atomic_load_explicit(&d->ngfree, memory_order_relaxed) >= GFREE_MAX;
        G **to = full ? &drop : &d->gfree;
        g->link = *to;
        *to = g;
        if (!full) atomic_fetch_add(&d->ngfree, 1);
    }
    gmutex_unlock(&d->lock);
    for (G *next; drop; drop = next) {
        next = drop->link;
        g_drop(drop);
    }
}

/* What the first switch to a stack finds: zeroed registers and where to go. */
static void *fresh_stack(char *hi, void (*tramp)(void))
{
    uintptr_t *sp = (uintptr_t *)(void *)((uintptr_t)hi & ~(uintptr_t)15);
#if defined(__x86_64__)
    *--sp = (uintptr_t)tramp; /* leaves the stack aligned for tramp's call */
    for (int i = 0; i < 6; i++) *--sp = 0;
#else
    sp -= 20;
    memset(sp, 0, 160);
    sp[1] = (uintptr_t)tramp;
#endif
    return sp;
}

G *g_new(Dom *d)
{
    G *g = gfree_take(d, own_p(d));
    if (unlikely(!g)) {
        if (!(g = stack_alloc(d->stacks))) return NULL;
        g->kind = (uint8_t)d->kind;
        g->dom = d;
        atomic_store_explicit(&g->wake, atomic_fetch_add(&next_seed, 1) << 44, memory_order_relaxed);
    }
    fiber_new(g);
    g->sp = fresh_stack(g->stack_hi, gort_g_tramp);
    g->m = NULL;
    g->gen = gort_fork_gen;
    g->reason = R_NONE;
    atomic_store_explicit(&g->status, G_IDLE, memory_order_relaxed);
    return g;
}

uint64_t g_new_id(void) { return atomic_fetch_add_explicit(&next_goid, 1, memory_order_relaxed); }

static void count_created(Dom *d, P *p)
{
    if (p) {
        int64_t n = atomic_load_explicit(&p->created, memory_order_relaxed);
        atomic_store_explicit(&p->created, n + 1, memory_order_relaxed);
    } else {
        atomic_fetch_add_explicit(&d->created, 1, memory_order_relaxed);
    }
}

static void count_ended(Dom *d, P *p)
{
    if (p) {
        int64_t n = atomic_load_explicit(&p->ended, memory_order_relaxed);
        /* release: who sees that none is left sees what they did */
        atomic_store_explicit(&p->ended, n + 1, memory_order_release);
    } else {
        atomic_fetch_sub_explicit(&d->created, 1, memory_order_relaxed);
    }
}

void sched_uncount(gfresh *f)
{
    if (!f->system) count_ended(&gort_python, NULL);
    if (f->bubble) bubble_leave(f->bubble);
    f->bubble = NULL;
}

int64_t sched_ngo(Dom *d)
{
    /* The ended first: one that lives all the while is then never missed, and
     * neither is one that a living one starts. */
    int64_t n = 0;
    for (int i = 0; i < d->nallp; i++) n -= atomic_load(&atomic_load(&d->allp[i])->ended);
    for (int i = 0; i < d->nallp; i++) n += atomic_load(&atomic_load(&d->allp[i])->created);
    return n + atomic_load(&d->created);
}

void g_discard(G *g)
{
    atomic_store_explicit(&g->status, G_DEAD, memory_order_relaxed);
    gfree_put(g->dom, own_p(g->dom), g);
}

/* ---- submitting work --------------------------------------------------- */
/* From outside g's domain, or without a P: through the global queue. */
void sched_inject(Dom *d, G *g)
{
    gmutex_lock(&d->lock);
    globq_put(d, g);
    P *p = pidle_get(d);
    gmutex_unlock(&d->lock);
    if (p) m_start(d, p, false);
    else sysmon_nudge();
}

static void submit_to(Dom *d, G *g, bool next)
{
    P *p = own_p(d);
    if (unlikely(!p)) {
        sched_inject(d, g);
        return;
    }
    runq_put(p, g, next);
    if (atomic_load_explicit(&d->nprocs, memory_order_relaxed) > 1) sched_wakep(d);
}

static void submit(G *g, bool next)
{
    if (unlikely(g->bubble && g->bubble->seeded)) bubble_submit(g);
    else submit_to(g->dom, g, next);
}

void sched_submit(G *g) { submit_to(&gort_python, g, false); }

/* From outside, without a G of its own yet. Only the Python domain has such. */
void g_start_fresh(gfresh *f)
{
    M *m = getm();
    P *p = m && m->dom == &gort_python ? m->p : NULL;
    f->kind = GK_FRESH;
    f->link = NULL;
    f->lockedm = NULL;
    f->id = g_new_id();
    if (!f->system) count_created(&gort_python, p);
    atomic_store_explicit(&f->status, G_RUNNABLE, memory_order_relaxed);
    if (!f->bubble && !f->system && m && m->curg) f->bubble = m->curg->bubble;
    if (unlikely(f->bubble != NULL)) {
        bubble_enter(f);
        if (f->bubble->seeded) {
            bubble_submit((G *)f);
            return;
        }
    }
    if (likely(p)) runq_put(p, (G *)f, true);
    else sched_inject(&gort_python, (G *)f);
}

/* Those still in the queues. Under the GIL only injections can come between. */
void sched_each_fresh(Dom *d, void (*fn)(void *handle, void *), void *arg)
{
    for (int i = 0; i < d->nallp; i++) {
        P *p = atomic_load(&d->allp[i]);
        G *g = atomic_load(&p->runnext);
        if (g && g->kind == GK_FRESH) fn(g->handle, arg);
        for (uint32_t k = atomic_load(&p->runq_head); k != atomic_load(&p->runq_tail); k++)
            if ((g = atomic_load(&p->runq[k % RUNQ_SIZE]))->kind == GK_FRESH) fn(g->handle, arg);
    }
    gmutex_lock(&d->lock);
    for (G *g = d->runq_first; g; g = g->link)
        if (g->kind == GK_FRESH) fn(g->handle, arg);
    gmutex_unlock(&d->lock);
    bubble_each_fresh(fn, arg);
}

void g_start(G *g)
{
    GASSERT(atomic_load(&g->status) == G_IDLE);
    if (!g->system) count_created(g->dom, own_p(g->dom));
    atomic_store_explicit(&g->status, G_RUNNABLE, memory_order_relaxed);
    submit(g, true);
}

static void make_ready(G *g, bool next)
{
    if (unlikely(g->kind == GK_THREAD)) {
        os_futex_wake((_Atomic uint32_t *)(void *)&g->wake, 1);
        return;
    }
    GASSERT(atomic_load(&g->status) == G_WAITING);
    atomic_store_explicit(&g->status, G_RUNNABLE, memory_order_relaxed);
    submit(g, next);
}

void g_ready(G *g) { make_ready(g, true); }
void g_ready_last(G *g) { make_ready(g, false); }

/* A chain of claimed Gs, in order (Go's injectglist): onto the ring while it has room and
 * nobody is in the global queue, else behind those, as who yields goes. A ring that
 * overflowed would put the first ones last. How many there were. */
int g_ready_list(G *first)
{
    P *p = sched_own_p();
    G *rest[2] = {0}, **last[2] = { &rest[0], &rest[1] };
    int n = 0;
    for (G *g = first, *next; g; g = next, n++) {
        next = g->link;
        GASSERT(atomic_load(&g->status) == G_WAITING);
        atomic_store_explicit(&g->status, G_RUNNABLE, memory_order_relaxed);
        int py = g->dom == &gort_python;
        if (unlikely(g->bubble && g->bubble->seeded)) {
            bubble_submit(g);
        } else if (p && p->dom == g->dom && !rest[py] && runq_has_room(p) &&
                   atomic_load(&g->dom->runqsize) <= atomic_load(&g->dom->npreq)) {
            ring_put(p, g);
        } else {
            g->link = NULL;
            *last[py] = g;
            last[py] = &g->link;
        }
    }
    for (int py = 0; py < 2; py++) {
        Dom *d = py ? &gort_python : &gort_native;
        P *idle = NULL;
        if (rest[py]) {
            gmutex_lock(&d->lock);
            for (G *g = rest[py], *next; g; g = next) {
                next = g->link;
                globq_put(d, g);
            }
            idle = pidle_get(d);
            gmutex_unlock(&d->lock);
        }
        if (idle) m_start(d, idle, false);
        else if (rest[py]) sysmon_nudge();
    }
    if (n && p && atomic_load_explicit(&p->dom->nprocs, memory_order_relaxed) > 1) sched_wakep(p->dom);
    return n;
}

/* An idle P and no M that looks for work: start one (Go's wakep). */
void sched_wakep(Dom *d)
{
    atomic_thread_fence(memory_order_seq_cst); /* pairs with the one in find_runnable */
    if (atomic_load_explicit(&d->npidle, memory_order_relaxed) == 0) return;
    int zero = 0;
    if (atomic_load_explicit(&d->nmspinning, memory_order_relaxed) != 0 ||
        !atomic_compare_exchange_strong(&d->nmspinning, &zero, 1))
        return;
    gmutex_lock(&d->lock);
    P *p = pidle_get(d);
    gmutex_unlock(&d->lock);
    if (p) m_start(d, p, true);
    else atomic_fetch_sub(&d->nmspinning, 1);
}

/* ---- switching --------------------------------------------------------- */
static void commit(M *m, G *prev, int how)
{
    switch (how) {
    case C_PARK:
        if (unlikely(prev->bubble != NULL)) bubble_commit_park(prev);
        else if (WK_CODE(atomic_fetch_or_explicit(&prev->wake, WK_PARKED, memory_order_acq_rel))) g_ready(prev);
        break;
    case C_YIELD:
        if (unlikely(prev->bubble && prev->bubble->seeded)) {
            bubble_yielded(prev);
            break;
        } /* fall through */
    case C_REJOIN:
        if (unlikely(prev->noturn)) {
            prev->noturn = false;
            bubble_submit(prev);
            break;
        }
        /* Those in the global queue were there first (Go always yields to it). */
        if (!m->p || atomic_load_explicit(&m->dom->runqsize, memory_order_relaxed) > 0) {
            sched_inject(m->dom, prev);
            break;
        }
        runq_put(m->p, prev, false); /* not seen by those who looked since it left */
        if (atomic_load_explicit(&m->dom->nprocs, memory_order_relaxed) > 1) sched_wakep(m->dom);
        break;
    case C_PREEMPT: {
        Dom *d = m->dom;
        gmutex_lock(&d->lock);
        preq_put(d, prev);
        P *p = pidle_get(d);
        gmutex_unlock(&d->lock);
        if (p) m_start(d, p, false);
        break;
    }
    case C_DEAD:
        fiber_end(prev);
        gfree_put(m->dom, m->p, prev);
        break;
    case C_MOVE:
        m_run_without_p(m->dom, prev);
        break;
    }
}

/* On the new stack: attach its thread state, then let go of the previous G. */
static NOINLINE void after_switch(void)
{
    M *m = tls_m;
    G *g = m->curg;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(g ? g->fiber : m->g0.fiber, NULL, NULL);
#endif
    if (g && m->ts != g->ts) {
        if (m->ts) gort_py->swap(m, g);
        else gort_py->attach(m, g);
        m = tls_m;
    }
    if (unlikely(g && g->deep && gort_py)) gort_py->shallow(g);
    G *prev = m->prev;
    int how = m->commit;
    m->prev = NULL;
    m->commit = C_NONE;
    if (how) commit(m, prev, how);
}

static void switch_to(M *m, G *from, G *to, int how)
{
    m->prev = from;
    m->commit = how;
    if (to == &m->g0) {
        m->curg = NULL;
    } else {
        GASSERT(atomic_load(&to->status) == G_RUNNABLE);
        m->curg = to;
        to->m = m;
        atomic_store_explicit(&to->status, G_RUNNING, memory_order_relaxed);
    }
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(to->fiber, 0);
#elif defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(how == C_DEAD ? NULL : &from->fiber, to->stack_lo,
                                   (size_t)(to->stack_hi - to->stack_lo));
#endif
    gort_switch(&from->sp, to->sp);
    after_switch();
}

static inline bool timers_look(P *p)
{
    if (likely(atomic_load_explicit(&p->tm.n, memory_order_relaxed) == 0)) return false;
    return cycles() - p->timer_tsc > TIMER_CYCLES;
}

static inline bool poll_due(P *p) { return cycles() - p->poll_tsc > POLL_CYCLES; }
static int poll_network(Dom *d, P *p)
{
    p->poll_tsc = cycles();
    return netpoll_now(d);
}

static inline uint32_t next_tick(P *p) /* only the owner writes it */
{
    uint32_t t = atomic_load_explicit(&p->schedtick, memory_order_relaxed) + 1;
    atomic_store_explicit(&p->schedtick, t, memory_order_relaxed);
    return t;
}

/* The next G on m's own queue, if nothing else is due that only g0 does. */
static inline G *next_local(M *m)
{
    P *p = m->p;
    if (unlikely(!p || m->lockedg)) return NULL;
    if (unlikely(next_tick(p) % SCHED_TICK == 0 || timers_look(p))) return NULL;
    G *to = runq_get(p);
    if (to && unlikely(to->lockedm && to->lockedm != m)) {
        runq_put(p, to, true);
        return NULL;
    }
    return to;
}

/* Leave the running g: straight to the next one, or to g0. */
static void leave_now(M *m, G *g, int how)
{
    G *to = next_local(m);
    if (to && to->kind == GK_FRESH) {
        G *f = to;
        if (!(to = gort_py->start((gfresh *)f, NULL))) runq_put(m->p, f, true); /* g0 reports it */
    }
    switch_to(m, g, to ? to : &m->g0, how);
}

/* ... and go on on the same OS thread, which runs nothing else meanwhile. */
static NOINLINE void leave_pinned(M *m, G *g, int how)
{
    M *locked = g->lockedm; /* the main goroutine's is the main M, wherever it runs */
    G *lockedg = m->lockedg;
    g->lockedm = m;
    m->lockedg = g;
    leave_now(m, g, how);
    m->lockedg = lockedg;
    g->lockedm = locked;
}

/* A library that has called Python back may hold locks that belong to the OS thread:
 * SQLite has its connection's. */
size_t gort_ts_callbacks; /* offset of the thread state's int that is above 1 then */
static inline bool in_callback(G *g)
{
    return g->ts && *(int *)(void *)((char *)g->ts + gort_ts_callbacks) > 1;
}

static inline void leave(M *m, G *g, int how)
{
    if (unlikely(in_callback(g))) leave_pinned(m, g, how);
    else leave_now(m, g, how);
}

bool sched_movable(G *g) { return !g->lockedm && !in_callback(g); }

void sched_park(G *g)
{
    M *m = getm();
    GASSERT(m->curg == g);
    leave(m, g, C_PARK);
}

void g_yield(void)
{
    M *m = getm();
    if (m && m->curg) g_yield_on(m);
    else os_yield_cpu();
}

void g_yield_on(M *m)
{
    P *p = m->p;
    G *g = m->curg;
    if (unlikely(g->bubble && g->bubble->seeded)) {
        if (!p) {
            sched_rejoin(g);
            m = getm();
        }
        bubble_yields(g);
    } else if (p && atomic_load_explicit(&m->dom->runqsize, memory_order_relaxed) == 0 && runq_empty(p) &&
               !timers_look(p) && !(netpoll_any() && poll_due(p) && poll_network(m->dom, p) > 0)) {
        if (m->ts) gort_py->offer(m);
        return;
    }
    if (unlikely(atomic_load_explicit(&gort_stopped, memory_order_relaxed)) && g->main) return;
    atomic_store_explicit(&g->status, G_RUNNABLE, memory_order_relaxed);
    leave(m, g, C_YIELD);
}

void sched_move(G *g) /* go on on an M that owns no P */
{
    atomic_store_explicit(&g->status, G_RUNNABLE, memory_order_relaxed);
    leave(getm(), g, C_MOVE);
}

void sched_rejoin(G *g) /* on an M without a P: queue up for one */
{
    atomic_store_explicit(&g->status, G_RUNNABLE, memory_order_relaxed);
    leave(getm(), g, C_REJOIN);
}

/* Between two bytecodes of g, which has computed for long: let others run first. It
 * goes on on the same OS thread, by which a library's locks, CPython's too, may know it. */
void sched_preempt(G *g)
{
    M *m = getm();
    P *p = m->p;
    if (p && runq_empty(p) && atomic_load(&m->dom->runqsize) == 0 && atomic_load(&p->tm.next) > gort_now_ns()) return;
    uint8_t status = atomic_load_explicit(&g->status, memory_order_relaxed); /* in blocking() maybe */
    atomic_store_explicit(&g->status, G_RUNNABLE, memory_order_relaxed);
    leave_pinned(m, g, C_PREEMPT);
    atomic_store_explicit(&g->status, status, memory_order_relaxed);
}

/* g's function has returned. Returns if g's stack goes on as another goroutine:
 * one that has not started yet needs no switch, and finds warm caches. */
static void g_finished(M *m, G *g)
{
    if (!g->system) count_ended(m->dom, m->p);
    if (!g->main) g->lockedm = NULL;
    if (unlikely(m->lockedg == g)) m->lockedg = NULL;
    g->lock_depth = 0;
    g->system = false;
    g->kill_pending = false;
    atomic_store_explicit(&g->status, G_DEAD, memory_order_relaxed);
    if (unlikely(g->bubble != NULL)) {
        gort_bubble *b = g->bubble;
        g->bubble = NULL;
        g->durable = false;
        bubble_leave(b);
    }
    G *to = next_local(m);
    if (to && to->kind == GK_FRESH) {
        if (gort_py->start((gfresh *)to, g)) {
            atomic_store_explicit(&g->status, G_RUNNING, memory_order_relaxed);
            return;
        }
        to = NULL;
    }
    switch_to(m, g, to ? to : &m->g0, C_DEAD);
    gort_throw("g_finished: a dead goroutine was resumed");
}

/* The first C function on a goroutine's stack; called by gort_g_tramp. */
_Noreturn void g_entry(void)
{
    after_switch();
    G *g = getm()->curg;
    for (;;) {
        g->fn(g->arg);
        g_finished(getm(), g);
    }
}

/* ---- finding work ------------------------------------------------------ */
static void run_all_timers(Dom *d, P *p, int64_t now)
{
    p->timer_tsc = cycles();
    for (int i = 0; i < d->nallp; i++) {
        P *q = atomic_load_explicit(&d->allp[i], memory_order_acquire);
        if (atomic_load_explicit(&q->tm.next, memory_order_relaxed) <= now) timers_run(&q->tm, now);
    }
}

/* Is what q runs next still the same after a while? Two goroutines that wake each
 * other, or a producer that is about to block, are best left to their own P (Go
 * sleeps for as long before it takes a runnext). */
static bool next_is_stuck(P *q)
{
    G *next = atomic_load_explicit(&q->runnext, memory_order_relaxed);
    if (!next || atomic_load_explicit(&q->status, memory_order_relaxed) != P_RUNNING) return next != NULL;
    for (int64_t until = gort_now_ns() + RUNNEXT_NS; gort_now_ns() < until;)
        for (int i = 0; i < 8; i++) os_pause();
    return atomic_load_explicit(&q->runnext, memory_order_relaxed) == next;
}

static G *steal_work(M *m)
{
    Dom *d = m->dom;
    int n = d->nallp;
    for (int pass = 0; pass < 4; pass++) {
        int start = (int)(fastrand(m) % (uint32_t)n);
        for (int i = 0; i < n; i++) {
            P *q = atomic_load(&d->allp[(start + i) % n]);
            if (q == m->p) continue;
            if (pass == 3) { /* last: its timers, and what it was about to run */
                int64_t next = atomic_load(&q->tm.next);
                if (next != GORT_FOREVER && next <= gort_now_ns()) {
                    timers_run(&q->tm, gort_now_ns());
                    G *g = runq_get(m->p);
                    if (g) return g;
                }
            }
            G *g = runq_steal(m->p, q, pass == 3 && next_is_stuck(q));
            if (g) return g;
        }
    }
    return NULL;
}

static bool work_anywhere(Dom *d)
{
    if (atomic_load(&d->runqsize) > 0) return true;
    int64_t now = 0;
    for (int i = 0; i < d->nallp; i++) {
        P *q = atomic_load(&d->allp[i]);
        if (!runq_empty(q)) return true;
        int64_t next = atomic_load(&q->tm.next);
        if (next != GORT_FOREVER && next <= (now ? now : (now = gort_now_ns()))) return true;
    }
    return false;
}

static void stop_spinning(M *m)
{
    if (!m->spinning) return;
    m->spinning = false;
    atomic_fetch_sub(&m->dom->nmspinning, 1);
}

static G *globq_take(Dom *d, P *p, int max)
{
    if (atomic_load_explicit(&d->runqsize, memory_order_relaxed) == 0) return NULL;
    gmutex_lock(&d->lock);
    G *g = globq_get(d, p, max);
    gmutex_unlock(&d->lock);
    return g;
}

static G *preq_take(Dom *d, int64_t now)
{
    if (atomic_load_explicit(&d->npreq, memory_order_relaxed) == 0) return NULL;
    if (now < atomic_load_explicit(&d->preq_since, memory_order_relaxed) + SHARE_NS) return NULL;
    gmutex_lock(&d->lock);
    G *g = preq_get(d);
    gmutex_unlock(&d->lock);
    return g;
}

/* Is it time to look at what only g0 looks at, the P's own queue or not? Sysmon may take a P
 * from one call of 10 ms after the other, and SCHED_TICK of those are too many; then they
 * and the others go in turn. */
static bool far_due(P *p)
{
    if (atomic_load_explicit(&p->schedtick, memory_order_relaxed) % SCHED_TICK == 0) return true;
    uint64_t now = cycles();
    if (p->far_tsc && now - p->far_tsc > FAR_CYCLES) {
        p->far_tsc = 0; /* not the next time */
        return true;
    }
    if (!p->far_tsc) p->far_tsc = now;
    return false;
}

/* On g0: a runnable G. Blocks. May come back with m->p NULL and a G to run so. */
static G *find_runnable(M *m)
{
    Dom *d = m->dom;
    int recheck = 0;
    bool look = d->kind == GK_PYTHON;
top:
    if (unlikely(!m->p)) m_stop(m, recheck < 0, look);
    look = false;
    if (unlikely(m->nextg != NULL)) {
        gmutex_lock(&d->lock);
        G *g = m->nextg;
        m->nextg = NULL;
        gmutex_unlock(&d->lock);
        return g;
    }
    P *p = m->p;
    if (unlikely(p->id >= atomic_load_explicit(&d->nprocs, memory_order_relaxed))) {
        bool was_spinning = m->spinning;
        stop_spinning(m);
        p_retire(m);
        if (was_spinning) sched_wakep(d); /* a submitter may have counted on it */
        goto top;
    }
    G *g;
    if (unlikely(atomic_load_explicit(&d->main_first, memory_order_relaxed))) {
        atomic_store(&d->main_first, false); /* sysmon says it again, if need be */
        gmutex_lock(&d->lock);
        bool pulled = runq_pull(d, p, gort_main_g);
        gmutex_unlock(&d->lock);
        if (pulled) return gort_main_g;
    }
    if (far_due(p)) {
        int64_t now = gort_now_ns();
        run_all_timers(d, p, now);
        if (netpoll_any() && poll_due(p)) poll_network(d, p);
        p->far_turn = !p->far_turn;
        if (p->far_turn && (g = globq_take(d, p, 1))) return g;
        if ((g = preq_take(d, now))) return g;
        if ((g = globq_take(d, p, 1))) return g;
    } else if (atomic_load_explicit(&p->tm.n, memory_order_relaxed)) {
        p->timer_tsc = cycles();
        timers_run(&p->tm, gort_now_ns());
    }
    if ((g = runq_get(p))) return g;
    if ((g = globq_take(d, p, 0))) return g;
    if (netpoll_any() && poll_network(d, p) > 0) goto top;
    if ((g = preq_take(d, GORT_FOREVER))) return g;
    int n = atomic_load(&d->nprocs);
    if (d->nallp > 1 && (m->spinning || 2 * atomic_load(&d->nmspinning) < n - atomic_load(&d->npidle))) {
        if (!m->spinning) {
            m->spinning = true;
            atomic_fetch_add(&d->nmspinning, 1);
        }
        if ((g = steal_work(m))) return g;
        if (!runq_empty(p)) goto top; /* a timer it ran readied some */
    }
    if (d->kind == GK_PYTHON && !work_anywhere(d)) {
        if ((recheck = gort_py->deadlock(m)) > 0) goto top;
    }
    /* Nothing: announce that this M is idle, then look once more. */
    gmutex_lock(&d->lock);
    if (atomic_load(&d->runqsize) > 0) {
        gmutex_unlock(&d->lock);
        goto top;
    }
    p_release(m);
    gmutex_unlock(&d->lock);
    bool was_spinning = m->spinning;
    stop_spinning(m);
    atomic_thread_fence(memory_order_seq_cst); /* pairs with the one in sched_wakep */
    if (work_anywhere(d)) {
        gmutex_lock(&d->lock);
        P *q = pidle_get(d);
        if (q) p_acquire(m, q);
        gmutex_unlock(&d->lock);
        if (q) sysmon_wake(); /* it may have found all Ps idle in between */
        /* A timer that is due again and again (a ticker's of 1 ns) and wakes nobody keeps
         * m here, and with it the GIL, which another thread may wait for. */
        if (q && m->ts) gort_py->detach(m);
        if (q && was_spinning) {
            m->spinning = true;
            atomic_fetch_add(&d->nmspinning, 1);
        }
    }
    goto top;
}

/* The scheduler loop of an M, on its g0. Each round runs one G; it comes back
 * here when somebody switched to g0. */
_Noreturn void sched_loop(M *m)
{
    Dom *d = m->dom;
    for (;;) {
        if (unlikely(m->lockedg != NULL)) {
            m_stop_locked(m); /* until nextg is the locked one */
        }
        G *g = find_runnable(m);
        if (m->spinning) {
            stop_spinning(m);
            if (atomic_load(&d->nprocs) > 1) sched_wakep(d);
        }
        if (unlikely(g->lockedm && g->lockedm != m) && m_start_locked(m, g)) continue;
        if (g->kind == GK_FRESH && !(g = gort_py->start((gfresh *)g, NULL))) continue;
        if (m->p) {
            next_tick(m->p);
            if (unlikely(atomic_load_explicit(&m->demoted, memory_order_relaxed))) sysmon_promote(m);
        }
        switch_to(m, &m->g0, g, C_NONE);
    }
}


/* The calling thread becomes m, running g on the stack it has; m's scheduler
 * gets a stack of its own. */
int sched_adopt(M *m, G *g)
{
    size_t size = (size_t)256 << 10;
    char *stk = os_reserve(size);
    if (!stk) return GORT_ENOMEM;
    os_guard(stk, os_page_size(), 0, 1);
    m->g0.stack_lo = stk + os_page_size();
    m->g0.stack_hi = stk + size;
    m->g0.sp = fresh_stack(m->g0.stack_hi, gort_g0_tramp);
    fiber_new(&m->g0);
#if defined(__SANITIZE_THREAD__)
    g->fiber = __tsan_get_current_fiber();
#endif
    g->id = g_new_id();
    g->gen = gort_fork_gen;
    g->dom = m->dom;
    g->m = m;
    atomic_store(&g->wake, atomic_fetch_add(&next_seed, 1) << 44);
    atomic_fetch_add(&m->dom->created, 1);
    tls_m = m;
    atomic_store(&g->status, G_RUNNABLE);
    m->nextg = g;
    switch_to(m, g, &m->g0, C_NONE); /* g0_entry comes back at once */
    return 0;
}

void sched_g0_here(M *m)
{
    m->g0.m = m;
#if defined(__SANITIZE_THREAD__)
    m->g0.fiber = __tsan_get_current_fiber();
#elif defined(__SANITIZE_ADDRESS__)
    pthread_attr_t a;
    void *lo = NULL;
    size_t n = 0;
    if (pthread_getattr_np(pthread_self(), &a) == 0) {
        pthread_attr_getstack(&a, &lo, &n);
        pthread_attr_destroy(&a);
    }
    m->g0.stack_lo = lo;
    m->g0.stack_hi = (char *)lo + n;
#endif
}

/* Up to 3.13 CPython ends threads that want the GIL while it finalises. The main goroutine,
 * and with it the stack that the main thread began on, may be on another thread by then, and
 * glibc ends a thread on that stack: over the frames in use. So M0 stays, as all do from 3.14.
 * With exceptions pthread_cleanup_push() is another one, which works in an unwound frame only. */
#ifdef __EXCEPTIONS
#error "compile this with -fno-exceptions"
#endif
static void stay(void *arg)
{
    (void)arg;
    for (;;) pause();
}

/* The first C function on M0's g0. */
_Noreturn void g0_entry(void)
{
    after_switch();
    M *m = getm();
    G *g = m->nextg;
    m->nextg = NULL;
    pthread_cleanup_push(stay, NULL); /* it is called on this stack, whatever M0 runs */
    switch_to(m, &m->g0, g, C_NONE);
    sched_loop(m);
    pthread_cleanup_pop(0);
}
