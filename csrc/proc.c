/* proc.c - Ms and Ps: starting, stopping, handing over; the domains' set-up.
 *
 * A P is either owned by one M (p->m, m->p, status RUNNING), or on its domain's
 * idle list (dom.lock), or DEAD (above nprocs). An M is either running (a G, or
 * its g0 looking for one), or idle: m->idle is set under dom.lock, and whoever
 * clears it owns the right to wake it, having put what it is to do into nextp
 * and nextg. Idle Ms are on dom.midle, but for one that is locked to a G and
 * waits for just that. Ms are never freed.
 *
 * Timers while Ps are idle: one idle M, dom.timer_m, sleeps until the earliest
 * timer of the domain. It is appointed when it goes idle and dismissed when it
 * is woken; a timer that comes in earlier kicks it (sched_timer_added). Should
 * it be needed while nobody holds the office, sysmon finds the overdue timer.
 */
#define _GNU_SOURCE
#include "netpoll.h"
#include "schedint.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define M_STACK ((size_t)1 << 20)
#define RECHECK_NS 100000000    /* deadlock is looked for again after that */
#define SIGNAL_NS 10000000000   /* ... and a signal that came just before the main M slept, should sysmon miss it */

static _Atomic uint32_t next_mid;
static int max_ms;               /* of a domain */
static sigset_t python_mask;     /* the main thread's when gort was imported */

/* ---- Ps ---------------------------------------------------------------- */
P *pidle_get(Dom *d) /* dom.lock held */
{
    P *p = d->pidle;
    if (!p) return NULL;
    d->pidle = p->link;
    p->link = NULL;
    atomic_fetch_sub(&d->npidle, 1);
    return p;
}

void pidle_put(Dom *d, P *p) /* dom.lock held; owned by nobody */
{
    atomic_store(&p->m, NULL);
    if (p->id >= atomic_load(&d->nprocs)) {
        atomic_store(&p->status, P_DEAD);
        return;
    }
    atomic_store(&p->status, P_IDLE);
    p->link = d->pidle;
    d->pidle = p;
    atomic_fetch_add(&d->npidle, 1);
}

void p_acquire(M *m, P *p)
{
    atomic_store(&p->m, m);
    atomic_store(&p->status, P_RUNNING);
    m->p = p;
}

void p_release(M *m) /* dom.lock held */
{
    P *p = m->p;
    m->p = NULL;
    pidle_put(m->dom, p);
}

/* m's P is above nprocs: its work goes to the global queue, and it dies. */
void p_retire(M *m)
{
    Dom *d = m->dom;
    P *p = m->p;
    for (G *g; (g = runq_get(p));) {
        gmutex_lock(&d->lock);
        globq_put(d, g);
        gmutex_unlock(&d->lock);
    }
    gmutex_lock(&d->lock);
    p_release(m);
    P *q = atomic_load(&d->runqsize) > 0 ? pidle_get(d) : NULL;
    gmutex_unlock(&d->lock);
    if (q) m_start(d, q, false);
}

/* ---- waking and sleeping ------------------------------------------------ */
static void m_wake(M *m)
{
    atomic_store(&m->note, 1);
    if (unlikely(atomic_load(&m->in_poll))) netpoll_break();
    else os_futex_wake(&m->note, 1);
}

/* false: the time was up, or a signal came */
static bool m_sleep(M *m, int64_t timeout_ns)
{
    while (atomic_exchange(&m->note, 0) == 0) {
        if (timeout_ns == 0) return false;
        if (os_futex_wait(&m->note, 0, timeout_ns) < 0 && (errno == ETIMEDOUT || errno == EINTR))
            return atomic_exchange(&m->note, 0) != 0;
    }
    return true;
}

static void midle_remove(M *m) /* dom.lock held */
{
    Dom *d = m->dom;
    m->idle = false;
    if (d->timer_m == m) d->timer_m = NULL;
    for (M **at = &d->midle; *at; at = &(*at)->link)
        if (*at == m) {
            *at = m->link;
            m->link = NULL;
            d->nmidle--;
            return;
        }
}

static M *midle_get(Dom *d) /* dom.lock held */
{   /* The main thread first: the main goroutine runs nowhere else. */
    M *m = d->main_m && d->main_m->idle && !d->main_m->lockedg ? d->main_m : d->midle;
    if (m) midle_remove(m);
    return m;
}

static void *m_main(void *arg)
{
    M *m = arg;
    sched_set_m(m);
    atomic_store(&m->tid, os_gettid());
    if (m->dom == &gort_python) {
        /* What Python code starts inherits the mask: threads, and child processes for good. */
        pthread_sigmask(SIG_SETMASK, &python_mask, NULL);
        sysmon_slice();
    }
    fatal_altstack();
    sched_g0_here(m);
    sched_loop(m);
}

static M *m_alloc(Dom *d)
{
    gmutex_lock(&d->lock);
    M *m = d->mspare;
    if (m) d->mspare = m->link;
    gmutex_unlock(&d->lock);
    if (!m && !(m = os_malloc(sizeof *m))) return NULL;
    memset(m, 0, sizeof *m);
    m->dom = d;
    m->id = atomic_fetch_add(&next_mid, 1);
    m->rng = m->id * 2654435769u + 1;
    m->g0.kind = GK_G0;
    m->g0.dom = d;
    return m;
}

static void m_publish(Dom *d, M *m) /* dom.lock held */
{
    m->alllink = atomic_load(&d->allm);
    atomic_store(&d->allm, m);
}

/* A new M that starts with nextp and nextg as set by the caller; NULL: no
 * memory or no thread to be had, nothing has changed. */
static M *m_new(Dom *d, P *p, G *g, bool spinning)
{
    gmutex_lock(&d->lock);
    bool room = d->nm < max_ms;
    if (room) d->nm++;
    gmutex_unlock(&d->lock);
    M *m = room ? m_alloc(d) : NULL;
    if (m) {
        m->nextg = g;
        m->spinning = spinning;
        if (p) p_acquire(m, p);
        gmutex_lock(&d->lock);
        m_publish(d, m);
        gmutex_unlock(&d->lock);
        if (os_thread_start(m_main, m, M_STACK) == 0) return m;
        gmutex_lock(&d->lock); /* others may have seen it in allm: it stays there */
        for (M *prev = NULL, *x = atomic_load(&d->allm); x; prev = x, x = x->alllink)
            if (x == m) {
                if (prev) prev->alllink = m->alllink;
                else atomic_store(&d->allm, m->alllink);
                break;
            }
        m->link = d->mspare;
        d->mspare = m;
        gmutex_unlock(&d->lock);
    }
    if (room) {
        gmutex_lock(&d->lock);
        d->nm--;
        gmutex_unlock(&d->lock);
    }
    static _Atomic bool told;
    if (!atomic_exchange(&told, true))
        gort_warn("gort: no more threads to be had: goroutines wait for those that compute or sit in calls");
    return NULL;
}

/* A runnable G whose own M waits for just that one (m_stop_locked). */
static G *locked_get(Dom *d, P *p) /* dom.lock held; p is the caller's */
{
    for (G *g; (g = runq_get(p));) globq_put(d, g);
    for (G *g = d->runq_first; g; g = g->link)
        if (g->lockedm && g->lockedm->lockedg == g && !g->lockedm->nextg && runq_pull(d, p, g)) return g;
    return NULL;
}

/* Let some M run with p, which the caller took off the idle list or gives up.
 * If there is no thread to be had, somebody goes on who has one: the next of the
 * preempted, or who is locked to it. Without such the P goes idle, and its work waits
 * for an M that comes back, or until sysmon has tried again; false then. */
bool m_start(Dom *d, P *p, bool spinning)
{
    gmutex_lock(&d->lock);
    M *m = midle_get(d);
    if (m) {
        m->spinning = spinning;
        m->nextp = p;
        p_owner(p, m);
    }
    gmutex_unlock(&d->lock);
    if (m) {
        m_wake(m);
        sysmon_wake();
        return true;
    }
    if (m_new(d, p, NULL, spinning)) {
        sysmon_wake();
        return true;
    }
    if (spinning) atomic_fetch_sub(&d->nmspinning, 1);
    gmutex_lock(&d->lock);
    G *g = preq_get(d);
    if (!g) g = locked_get(d, p);
    if (g) {
        m = g->lockedm; /* it waits for g, or is about to */
        m->nextg = g;
        m->nextp = p;
        p_owner(p, m);
        if (m->idle) midle_remove(m);
    } else {
        pidle_put(d, p);
        atomic_store(&d->starved, true);
    }
    gmutex_unlock(&d->lock);
    if (g) m_wake(m);
    sysmon_wake();
    return g;
}

/* Is there an M at all, or can there be one? */
bool m_ensure(Dom *d)
{
    gmutex_lock(&d->lock);
    bool have = d->nm > 0;
    P *p = have ? NULL : pidle_get(d);
    gmutex_unlock(&d->lock);
    return have || !p || m_start(d, p, false);
}

static int64_t earliest_timer(Dom *d)
{
    int64_t when = GORT_FOREVER;
    for (int i = 0; i < d->nallp; i++) {
        int64_t next = atomic_load(&atomic_load(&d->allp[i])->tm.next);
        if (next < when) when = next;
    }
    return when;
}

/* With many timers it pays to wake for several at once: 0.25 us later for each,
 * up to 0.25 ms. (Go rounds all its idle waits up to a millisecond.) */
static int64_t timer_slack(Dom *d)
{
    int64_t n = 0;
    for (int i = 0; i < d->nallp; i++) n += atomic_load(&atomic_load(&d->allp[i])->tm.n);
    return n < 1000 ? n * 250 : 250000;
}

/* The network has n events, and m holds the poller's office. With an idle P the Gs go
 * to its queue, and m runs them; without, to the global queue of their domain. */
static void m_deliver(M *m, int n)
{
    Dom *d = m->dom;
    if (n > 0) {
        gmutex_lock(&d->lock);
        if (m->idle && d->pidle) {
            midle_remove(m);
            p_acquire(m, pidle_get(d));
        } else if (m->nextp) {
            m->p = m->nextp;
            m->nextp = NULL;
        }
        gmutex_unlock(&d->lock);
    }
    netpoll_leave(n);
}

/* Announce that m is idle, and sleep: on its futex, or in the network poller on
 * behalf of an idle P. False: it was woken, and not idle any more; true: it took
 * itself off, for a signal, a kick, a timer that is due, or with m->p for the network. */
static bool m_idle_once(M *m, bool recheck, bool listed)
{
    Dom *d = m->dom; /* dom.lock held, released here */
    int64_t when = GORT_FOREVER;
    m->idle = true;
    if (listed) {
        m->link = d->midle;
        d->midle = m;
        d->nmidle++;
        /* The owner of a P tells nobody of a timer it adds, so the one who holds
         * the office may sleep for longer than that: then it is ours. */
        if (d->pidle) when = earliest_timer(d);
        if (d->timer_m && when >= atomic_load(&d->timer_when)) when = GORT_FOREVER;
        if (when != GORT_FOREVER) {
            d->timer_m = m;
            atomic_store(&d->timer_when, when);
        }
    }
    /* Who holds the only P sees to the network itself. */
    bool poll = listed && netpoll_any() && (d->pidle || !d->solo) && (d->kind == GK_PYTHON || !gort_py) && netpoll_enter();
    gmutex_unlock(&d->lock);
    int64_t timeout = -1;
    if (when != GORT_FOREVER) {
        timeout = when - gort_now_ns() + timer_slack(d);
        if (timeout < 0) timeout = 0;
    }
    if (recheck && (timeout < 0 || timeout > RECHECK_NS)) timeout = RECHECK_NS;
    if (m->ts) gort_py->detach(m);
    if (unlikely(atomic_load_explicit(&m->demoted, memory_order_relaxed))) sysmon_promote(m); /* to wake up at once */
    if (m == d->main_m && (timeout < 0 || timeout > SIGNAL_NS)) timeout = SIGNAL_NS;
    if (m == d->main_m && gort_py->signals() && wait_interrupt(gort_main_g, WC_INTR)) timeout = 0;
    int events = 0;
    if (poll) events = netpoll_sleep(m, timeout);
    else m_sleep(m, timeout);
    atomic_store_explicit(&gort_coarse_ns, gort_now_ns(), memory_order_relaxed);
    if (poll) m_deliver(m, events);
    if (m == d->main_m && gort_py->signals()) wait_interrupt(gort_main_g, WC_INTR);
    gmutex_lock(&d->lock);
    if (!m->idle) return false;
    midle_remove(m);
    return true;
}

/* Without a P: idle until there is one, or a G to run without. With look it takes an
 * idle one at once: it has run a G without a P, which may have been the last that
 * could wake another, and the M that waited to look again may be the one that ran it. */
void m_stop(M *m, bool recheck, bool look)
{
    Dom *d = m->dom;
    gmutex_lock(&d->lock);
    while (!m->nextg) {
        /* Injected since m looked, and no thread could be started for it? */
        if (d->pidle && (look || atomic_load(&d->runqsize) > 0 || !runq_empty(d->pidle))) {
            p_acquire(m, pidle_get(d));
            break;
        }
        bool self = m_idle_once(m, recheck, true);
        if (self && !m->p && d->pidle && !m->nextg) p_acquire(m, pidle_get(d));
        if (m->nextp) {
            m->p = m->nextp;
            m->nextp = NULL;
        }
        if (m->p) break;
    }
    gmutex_unlock(&d->lock);
    if (m->p) sysmon_wake(); /* it sleeps while all Ps are idle */
}

/* m is locked to a G that is not running: give the P away, wait for the G. */
void m_stop_locked(M *m)
{
    Dom *d = m->dom;
    if (m->p && m->nextg != m->lockedg) {
        P *p = m->p; /* to another M in any case: somebody must look for a deadlock */
        m->p = NULL;
        m_start(d, p, false);
    }
    gmutex_lock(&d->lock);
    while (m->nextg != m->lockedg) m_idle_once(m, false, false);
    if (m->nextp) {
        m->p = m->nextp;
        m->nextp = NULL;
    }
    gmutex_unlock(&d->lock);
}

/* m found g, which is locked to another M: that one gets g, and the P too if it
 * is idle. A busy one runs g without a P when it gets to it. False: g is the main
 * goroutine, and the main thread is another one's; m shall run it. */
bool m_start_locked(M *m, G *g)
{
    Dom *d = m->dom;
    M *to = g->lockedm;
    /* It gave up the P that m has since, so m sees the lockedg it set before. */
    if (g->main && (__atomic_load_n(&to->curg, __ATOMIC_RELAXED) || (to->lockedg && to->lockedg != g))) return false;
    gmutex_lock(&d->lock);
    GASSERT(!to->nextg);
    to->nextg = g;
    bool wake = to->idle;
    if (wake) {
        midle_remove(to);
        if (m->p) {
            to->nextp = m->p;
            p_owner(m->p, to);
            m->p = NULL;
        }
    }
    gmutex_unlock(&d->lock);
    if (wake) {
        if (m->ts) gort_py->detach(m); /* `to` will want the GIL */
        m_wake(to);
    }
    return true;
}

/* Let an M without a P run g (blocking calls). If there is none, g is queued. */
void m_run_without_p(Dom *d, G *g)
{
    gmutex_lock(&d->lock);
    M *m = d->midle;
    if (m && m == d->main_m) m = m->link;
    if (m) {
        midle_remove(m);
        m->nextg = g;
    }
    gmutex_unlock(&d->lock);
    if (m) m_wake(m);
    else if (!m_new(d, NULL, g, false)) sched_inject(d, g);
}

/* Give up m's P: to an M if there is work or a timer for it, else it is idle. */
void p_handoff(M *m)
{
    Dom *d = m->dom;
    P *p = m->p;
    m->p = NULL;
    if (!runq_empty(p) || atomic_load(&d->runqsize) > 0 || earliest_timer(d) != GORT_FOREVER || netpoll_wanted()) {
        m_start(d, p, false);
        return;
    }
    gmutex_lock(&d->lock);
    bool work = atomic_load(&d->runqsize) > 0;
    if (!work) pidle_put(d, p);
    gmutex_unlock(&d->lock);
    if (work) m_start(d, p, false);
}

/* ---- blocking() --------------------------------------------------------- */
void sched_blocking_enter(G *g)
{
    M *m = getm();
    if (unlikely(atomic_load(&gort_stopped)) && g->main) return;
    atomic_store_explicit(&g->status, G_SYSCALL, memory_order_relaxed);
    if (unlikely(g->bubble && g->bubble->seeded)) { /* it may wait there for another member */
        g->noturn = true;
        bubble_turn_over(g->bubble);
    }
    if (m == m->dom->main_m && sched_movable(g)) {
        sched_move(g); /* the main thread stays free for the main goroutine */
        atomic_store_explicit(&g->status, G_SYSCALL, memory_order_relaxed);
    } else if (m->p) {
        p_handoff(m);
    }
}

void sched_blocking_exit(G *g)
{
    M *m = getm();
    Dom *d = m->dom;
    if (unlikely(atomic_load(&gort_stopped)) && g->main) return;
    if (unlikely(g->noturn)) {
        atomic_store_explicit(&g->status, G_RUNNABLE, memory_order_relaxed);
        sched_rejoin(g);
        return;
    }
    atomic_store_explicit(&g->status, G_RUNNING, memory_order_relaxed);
    if (m->p) return;
    if (m == d->main_m || m->lockedg) {
        gmutex_lock(&d->lock);
        P *p = pidle_get(d);
        if (p) p_acquire(m, p);
        gmutex_unlock(&d->lock);
        if (p) {
            sysmon_wake(); /* it sleeps while all Ps are idle */
            return;
        }
    }
    atomic_store_explicit(&g->status, G_RUNNABLE, memory_order_relaxed);
    sched_rejoin(g);
}

/* ---- timers and kicks --------------------------------------------------- */
static void kick_locked(M *m) { m_wake(m); } /* m is idle; it takes itself off */

void sched_timer_added(timers *tm, int64_t when)
{
    P *p = tm->p;
    Dom *d = p->dom;
    if (sched_own_p() == p) return; /* its owner looks at it in time, or sysmon does */
    P *start = NULL;
    gmutex_lock(&d->lock);
    if (d->timer_m) {
        if (when < atomic_load(&d->timer_when)) kick_locked(d->timer_m);
    } else if (d->pidle) {
        if (d->midle) kick_locked(d->midle);
        else start = pidle_get(d);
    }
    gmutex_unlock(&d->lock);
    if (start) m_start(d, start, false);
    else sysmon_nudge();
}

void sched_kick(Dom *d, M *m)
{
    gmutex_lock(&d->lock);
    if (!m) m = d->midle;
    if (m && m->idle) kick_locked(m);
    gmutex_unlock(&d->lock);
}

/* Somebody who is not on a P waits for the network, or the office was held when an M
 * went to sleep: if all Ps are idle and nobody polls, have an M do so. */
void sched_poller_wanted(void)
{
    Dom *d = gort_py ? &gort_python : &gort_native;
    P *start = NULL;
    if (!netpoll_wanted()) return;
    gmutex_lock(&d->lock);
    if (d->pidle) {
        if (d->midle) kick_locked(d->midle);
        else start = pidle_get(d);
    }
    gmutex_unlock(&d->lock);
    if (start) m_start(d, start, false);
}

/* Does any M but `me` run a G or have one to run? */
bool sched_busy(Dom *d, M *me)
{
    bool busy = atomic_load(&d->runqsize) > 0;
    gmutex_lock(&d->lock);
    for (M *m = atomic_load(&d->allm); m && !busy; m = m->alllink)
        busy = m != me && (!m->idle || m->nextg || m->nextp);
    gmutex_unlock(&d->lock);
    return busy;
}

/* ---- set-up -------------------------------------------------------------- */
static P *p_new(Dom *d, int id)
{
    P *p = aligned_alloc(64, (sizeof *p + 63) / 64 * 64);
    if (!p) return NULL;
    memset(p, 0, sizeof *p);
    p->id = id;
    p->dom = d;
    p->solo = d->solo;
    p->tm.p = p;
    atomic_store(&p->tm.next, GORT_FOREVER);
    return p;
}

/* Returns the previous number, or GORT_ENOMEM. Ps above n retire when their M
 * gets to its scheduler. */
int sched_set_procs(Dom *d, int n)
{
    if (n > MAXPROCS) n = MAXPROCS;
    gmutex_lock(&d->lock);
    int old = atomic_load(&d->nprocs);
    for (int i = d->nallp; i < n; i++) {
        P *p = p_new(d, i);
        if (!p) {
            gmutex_unlock(&d->lock);
            return GORT_ENOMEM;
        }
        atomic_store(&p->status, P_DEAD);
        atomic_store(&d->allp[i], p);
        d->nallp = i + 1;
    }
    atomic_store(&d->nprocs, n);
    P *all = d->pidle; /* sort the idle ones anew */
    d->pidle = NULL;
    atomic_store(&d->npidle, 0);
    for (P *next; all; all = next) {
        next = all->link;
        pidle_put(d, all);
    }
    for (int i = 0; i < n; i++) {
        P *p = atomic_load(&d->allp[i]);
        if (atomic_load(&p->status) == P_DEAD) pidle_put(d, p);
    }
    gmutex_unlock(&d->lock);
    if (n > old && old) sched_wakep(d);
    return old;
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int init_result;

static void init_once(void)
{
    gort_stack_bytes = (size_t)config_size("GORT_STACK", (int64_t)gort_stack_bytes, 16 << 10, 1 << 30);
    waiters_init();
    max_ms = (int)config_debug("maxms", MAXMS);
    gort_native.stacks = stackpool_new(gort_stack_bytes, 0, 0);
    int n = (int)config_int("GOMAXPROCS", os_ncpu(), 1, MAXPROCS);
    atomic_store(&gort_native.timer_when, GORT_FOREVER);
    atomic_store(&gort_python.timer_when, GORT_FOREVER);
    atomic_store(&gort_coarse_ns, gort_now_ns());
    init_result = !gort_native.stacks || sched_set_procs(&gort_native, n) < 0 ? GORT_ENOMEM : 0;
    config_check();
    fatal_install();
    fork_install();
    if (init_result == 0) sysmon_start();
}

int gort_init(void)
{
    pthread_once(&once, init_once);
    return init_result;
}

/* The calling thread becomes the Python domain's M0, and what it runs now
 * becomes the main goroutine, on the stack it has. */
int sched_adopt_main(void *ts)
{
    Dom *d = &gort_python;
    int r;
    M *m = m_alloc(d);
    G *g = calloc(1, sizeof *g);
    if (!m || !g) return GORT_ENOMEM;
    g->kind = GK_PYTHON;
    g->main = true;
    g->lockedm = m;
    g->ts = ts;
    m->ts = ts;
    atomic_store(&m->tid, os_gettid());
    gort_main_g = g;
    pthread_sigmask(SIG_SETMASK, NULL, &python_mask);
    if ((r = sched_adopt(m, g))) return r;
    gmutex_lock(&d->lock);
    d->nm++;
    d->main_m = m;
    m_publish(d, m);
    p_acquire(m, pidle_get(d));
    gmutex_unlock(&d->lock);
    fatal_altstack();
    return 0;
}

int gort_init_python(const pyhooks *h, size_t ds_head, size_t ds_tail, void *ts)
{
    Dom *d = &gort_python;
    int r = gort_init();
    if (r) return r;
    if (!(d->stacks = stackpool_new(gort_stack_bytes, ds_head, ds_tail))) return GORT_ENOMEM;
    d->solo = true;
    if (sched_set_procs(d, 1) < 0) return GORT_ENOMEM;
    gort_py = h;
    return sched_adopt_main(ts);
}
