/* fork.c - fork(): in the child there is the goroutine that called it, and no other.
 *
 * States. The forker is a Python goroutine, a native one, or a plain thread. In the
 * child its OS thread is the only one. A Python goroutine, whichever it was, and a
 * Python thread that was none, is the main goroutine there; a native one goes on as
 * it was; a thread without Python is just that. All else is as after gort_init(): Ps
 * idle, queues empty, no M but the forker's, Ms and sysmon started when needed.
 *
 * Before the fork (pthread_atfork, so for every fork() in C too; vfork and
 * posix_spawn need none of this) all locks are taken whose data the child needs, in
 * the order of runtime.h: sysmon.c's probe_lock -> bubbles -> their timers -> timers of the Ps -> dom.lock
 * (python, native) -> stackpool.lock -> waiters_lock, then pyctx.c's. All are held for
 * some tens of instructions, and by nobody who waits for the GIL, which the forker
 * may have; helper_lock is, so it is not taken but made anew, with the thread state
 * that it guards.
 *
 * What is not under these locks may be copied half changed, and the memory of the
 * goroutines that are not there, and of the threads, who knows when. So the child
 * looks at none of it:
 *   - Gs, thread states, pools and stacks of others are left where they are. They
 *     cost no memory as long as the parent does not change them; what they refer to
 *     is never released. G.gen keeps them out of all walks.
 *   - Run queues, idle lists and counts are made anew.
 *   - Channels and locks are many, and nobody knows them all. Each has the number of
 *     the fork in which it was last used (gen); fork_check() at the begin of every
 *     operation finds an older one, and forgets the waiters, which are not here, and
 *     the lock's holder if a native goroutine or a thread had it at that moment.
 *     What a vanished goroutine holds in the sense of the program, a Mutex, stays
 *     held, as with threads.
 *   - Handles (Goroutine, NativeGoroutine) have such a number as well.
 * Timers are kept if they feed a channel or end a context (timers_fork).
 *
 * The Python side, where objects are, follows when CPython has restored itself:
 * pyctx_forked() and _after_fork() of life.pxi, by os.register_at_fork.
 */
#include "runtime.h"
#include "netpoll.h"
#include "schedint.h"

#include <pthread.h>

uint16_t gort_fork_gen;
static int held[2];             /* so many Ps' timers of each domain are locked */
static Dom *const doms[2] = { &gort_python, &gort_native };
static gmutex old_lock;         /* one of those who find something old at a time */

/* ---- something old -------------------------------------------------------- */
/* The first of several threads that find it does the work. */
#define RENEW(x, ...) do { \
    gmutex_lock(&old_lock); \
    if (atomic_load(&(x)->gen) != gort_fork_gen) { \
        atomic_store(&(x)->lock.v, 0); \
        __VA_ARGS__ \
        atomic_store(&(x)->gen, gort_fork_gen); \
    } \
    gmutex_unlock(&old_lock); } while (0)

/* A typed channel may have been copied in the midst of a send: what it holds may be
 * wrong by one element then, but never anything else. */
NOINLINE void fork_chan(gort_chan *c)
{
    RENEW(c, {
        c->recvq = c->sendq = (waitq){0};
        atomic_store(&c->tfiring, 0);
        if (c->shared && c->cap) {
            if (c->count > c->cap) c->count = c->cap;
            c->recvx %= c->cap;
            c->sendx = (c->recvx + c->count) % c->cap;
        }
    });
}
NOINLINE void fork_mutex(struct gort_mutex *m) { RENEW(m, m->q = (waitq){0}; m->woken = m->starving = false;); }
NOINLINE void fork_rwmutex(struct gort_rwmutex *m) { RENEW(m, m->q = (waitq){0}; m->waiting_writers = 0;); }
NOINLINE void fork_wg(struct gort_wg *w) { RENEW(w, w->q = (waitq){0};); }
NOINLINE void fork_sema(struct gort_sema *s) { RENEW(s, s->q = (waitq){0};); }
NOINLINE void fork_notify(struct gort_event_q *n) { RENEW(n, n->q = (waitq){0};); }

/* ---- before, and in the parent --------------------------------------------- */
static void all_timers(Dom *d, int n, int when)
{
    for (int i = 0; i < n; i++) timers_fork(&atomic_load(&d->allp[i])->tm, when);
}

static void lock_dom(int k)
{
    Dom *d = doms[k];
    for (;;) {
        all_timers(d, held[k] = atomic_load(&d->nallp), FORK_BEFORE);
        gmutex_lock(&d->lock);
        if (atomic_load(&d->nallp) == held[k]) return;
        gmutex_unlock(&d->lock); /* there are more by now */
        all_timers(d, held[k], FORK_PARENT);
    }
}

static void before(void)
{
    sysmon_fork(FORK_BEFORE);
    bubbles_fork(FORK_BEFORE);
    for (int k = 0; k < 2; k++) lock_dom(k);
    for (int k = 0; k < 2; k++) stackpool_fork(doms[k]->stacks, FORK_BEFORE);
    waiters_fork(FORK_BEFORE);
    if (gort_py) gort_py->fork_before();
}

static void parent(void)
{
    if (gort_py) gort_py->fork_parent();
    waiters_fork(FORK_PARENT);
    for (int k = 1; k >= 0; k--) {
        stackpool_fork(doms[k]->stacks, FORK_PARENT);
        gmutex_unlock(&doms[k]->lock);
        all_timers(doms[k], held[k], FORK_PARENT);
    }
    bubbles_fork(FORK_PARENT);
    sysmon_fork(FORK_PARENT);
}

/* ---- in the child ------------------------------------------------------------ */
static void renew_p(P *p)
{
    atomic_store(&p->m, NULL);
    atomic_store(&p->status, P_DEAD);
    p->link = NULL;
    atomic_store(&p->runq_head, 0);
    atomic_store(&p->runq_tail, 0);
    atomic_store(&p->runnext, NULL);
    p->next_streak = 0;
    p->gfree = NULL;
    p->ngfree = 0;
    atomic_store(&p->created, 0);
    atomic_store(&p->ended, 0);
    timers_fork(&p->tm, FORK_CHILD);
}

/* m, the forker's if it is of this domain, is all that is left of d. */
static void renew_dom(Dom *d, M *m)
{
    atomic_store(&d->lock.v, 0);
    d->midle = d->mspare = d->timer_m = NULL;
    d->nmidle = 0;
    atomic_store(&d->nmspinning, 0);
    atomic_store(&d->timer_when, GORT_FOREVER);
    d->runq_first = d->runq_last = NULL;
    atomic_store(&d->runqsize, 0);
    d->preq_first = d->preq_last = NULL;
    atomic_store(&d->npreq, 0);
    atomic_store(&d->main_first, false);
    atomic_store(&d->starved, false);
    d->gfree = NULL;
    atomic_store(&d->ngfree, 0);
    atomic_store(&d->created, m && !m->curg->system);
    atomic_store(&d->allm, m);
    d->nm = m != NULL;
    d->pidle = NULL;
    atomic_store(&d->npidle, 0);
    for (int i = 0; i < d->nallp; i++) renew_p(atomic_load(&d->allp[i]));
    for (int i = atomic_load(&d->nprocs); --i >= 0;) {
        P *p = atomic_load(&d->allp[i]);
        if (i == 0 && m) p_acquire(m, p);
        else pidle_put(d, p);
    }
}

static void renew_m(M *m)
{
    G *g = m->curg;
    m->nextp = NULL;
    m->nextg = NULL;
    m->link = m->alllink = NULL;
    m->spinning = m->idle = false;
    if (m->lockedg != g) m->lockedg = NULL;
    atomic_store(&m->note, 0);
    atomic_store(&m->preempt, 0);
    atomic_store(&m->tid, os_gettid());
    g->gen = gort_fork_gen;
    g->bubble = NULL;
    g->durable = g->noturn = false;
    atomic_store(&g->status, G_RUNNING);
}

/* Whoever has Python in the child, has the main goroutine. */
static void renew_main(M *m)
{
    static G nobody = { .kind = GK_PYTHON, .main = true, .status = G_DEAD };
    M *own = m && m->dom == &gort_python ? m : NULL;
    void *ts = own ? own->ts : gort_py->fork_ts();
    gort_python.main_m = own;
    gort_main_g = &nobody;
    atomic_store(&gort_main_intr, false);
    gort_py->fork_child(ts);
    if (own) {
        gort_main_g = own->curg;
        gort_main_g->main = true;
        gort_main_g->lockedm = own;
    } else if (ts && !m && sched_adopt_main(ts) != 0) {
        gort_fatal("out of memory (the main goroutine of a fork's child)");
    }
}

static void child(void)
{
    M *m = getm();
    gort_fork_gen++;
    atomic_store(&old_lock.v, 0);
    if (m) renew_m(m);
    bubbles_fork(FORK_CHILD);
    for (int k = 0; k < 2; k++) {
        renew_dom(doms[k], m && m->dom == doms[k] ? m : NULL);
        stackpool_fork(doms[k]->stacks, FORK_CHILD);
    }
    waiters_fork(FORK_CHILD);
    netpoll_fork_child();
    if (m && m->curg->kind == GK_NATIVE) native_fork(m->curg);
    sysmon_fork(FORK_CHILD);
    if (gort_py) renew_main(m);
}

void fork_install(void)
{
    if (pthread_atfork(before, parent, child) != 0) gort_warn("gort: out of memory; fork() will not be safe");
}
