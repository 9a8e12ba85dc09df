/* sysmon.c - the thread that watches, after Go's sysmon: it owns no P.
 *
 * - Takes the P from an M whose Python goroutine sits in a call that released
 *   the GIL while other goroutines could run, or has computed for 10 ms while
 *   they could, and gives it to another M. The one that computes goes on without
 *   a P; it and the M that has it share the GIL by CPython's switch interval.
 * - Starts an M for a timer that is overdue while Ps are idle.
 * - Keeps the coarse clock, and prints GORT_DEBUG=schedtrace lines.
 * It polls every 20 us after it did something, doubling up to 10 ms after 1 ms
 * of nothing, and sleeps once every P of both domains has been idle for 10 ms.
 *
 * Retaking needs the GIL: all changes of m->p that a running Python goroutine
 * could see are made under it, so an M that comes back from its call and takes
 * the GIL sees at once whether it still has its P.
 */
#include "runtime.h"
#include "schedint.h"

#include <stdio.h>
#include <unistd.h>

#define POLL_MIN_NS 20000
#define POLL_MAX_NS 10000000
#define SLICE_NS 10000000       /* how long a goroutine may compute while others wait (Go) */

_Atomic int64_t gort_coarse_ns;
static _Atomic uint32_t sleeping; /* futex: 1 = sysmon sleeps until woken; 2: there is none yet */
static int64_t started_ns;
_Atomic bool sysmon_no_python;    /* the interpreter is going away */

void sysmon_wake(void)
{
    if (likely(!atomic_load(&sleeping))) return;
    if (atomic_exchange(&sleeping, 0) == 2) sysmon_start();
    else os_futex_wake(&sleeping, 1);
}

/* Most children call exec() or end soon: it is started when it is first missed. */
void sysmon_fork(void) { atomic_store(&sleeping, 2); }

static bool all_idle(Dom *d) { return atomic_load(&d->npidle) >= atomic_load(&d->nprocs); }

static uint64_t activity(Dom *d)
{
    uint64_t sum = 0;
    for (int i = 0; i < d->nallp; i++)
        sum += atomic_load_explicit(&atomic_load(&d->allp[i])->schedtick, memory_order_relaxed);
    return sum;
}

/* ---- retake: Python domain ------------------------------------------------ */
static bool stuck(Dom *d, P *p, uint32_t *tick, int64_t *since)
{   /* running, no scheduling since the last poll, and others could run */
    uint32_t t = atomic_load_explicit(&p->schedtick, memory_order_relaxed);
    bool same = t == *tick;
    *tick = t;
    if (!same) *since = gort_now_ns();
    if (!same || atomic_load(&p->status) != P_RUNNING) return false;
    return !runq_empty(p) || atomic_load(&d->runqsize) > 0 || atomic_load(&p->tm.next) <= gort_now_ns();
}

static bool retake(Dom *d)
{
    static uint32_t ticks[MAXPROCS];
    static int64_t since[MAXPROCS];
    bool did = false;
    for (int i = 0; i < d->nallp; i++) {
        P *p = atomic_load(&d->allp[i]);
        if (!stuck(d, p, &ticks[i], &since[i])) continue;
        M *m = atomic_load(&p->m);
        int how = m ? gort_py->detached(m) : 0; /* a guess, made sure of below */
        if (how != 1 && gort_now_ns() - since[i] < SLICE_NS) continue;
        void *save = gort_py->gil_enter();
        if (!save) return did;
        m = atomic_load(&p->m);
        bool take = stuck(d, p, &ticks[i], &since[i]) && m && m->p == p && m->curg;
        if (take) {
            if (how) atomic_store(&m->curg->status, G_SYSCALL);
            m->p = NULL;
            did = true;
            if (m == d->main_m && !m->curg->main) gort_py->move_off(m);
        }
        gort_py->gil_leave(save);
        if (take) m_start(d, p, false);
    }
    return did;
}

/* How many goroutines compute without a P, as long as one has it. */
static int hogs(Dom *d)
{
    int n = 0;
    gmutex_lock(&d->lock);
    bool wanted = atomic_load(&d->npidle) < d->nallp || d->timer_m;
    for (M *m = atomic_load(&d->allm); m && wanted; m = m->alllink) {
        /* Both are that thread's own: a guess. Gs stay mapped, a stale one does no harm. */
        P *p = __atomic_load_n(&m->p, __ATOMIC_RELAXED);
        G *g = __atomic_load_n(&m->curg, __ATOMIC_RELAXED);
        n += !m->idle && !p && g && atomic_load_explicit(&g->status, memory_order_relaxed) == G_RUNNING;
    }
    gmutex_unlock(&d->lock);
    return n;
}

/* ---- overdue timers --------------------------------------------------------- */
static bool overdue(Dom *d, int64_t now)
{
    if (atomic_load(&d->npidle) == 0) return false;
    bool due = false;
    for (int i = 0; i < d->nallp; i++) due |= atomic_load(&atomic_load(&d->allp[i])->tm.next) < now - POLL_MIN_NS;
    if (!due) return false;
    gmutex_lock(&d->lock);
    bool soon = d->timer_m && atomic_load(&d->timer_when) <= now; /* it is on its way */
    P *p = soon ? NULL : pidle_get(d);
    gmutex_unlock(&d->lock);
    return p && m_start(d, p, false);
}

/* ---- schedtrace --------------------------------------------------------------- */
typedef struct tally { int procs, idlep, ms, spin, idlem, queue; } tally;

static void tally_dom(Dom *d, tally *t)
{
    gmutex_lock(&d->lock);
    t->procs = atomic_load(&d->nprocs);
    t->idlep = atomic_load(&d->npidle);
    t->ms += d->nm;
    t->spin += atomic_load(&d->nmspinning);
    t->idlem += d->nmidle;
    t->queue += atomic_load(&d->runqsize);
    gmutex_unlock(&d->lock);
}

static int list_ps(Dom *d, char *buf, size_t room, bool ticks)
{
    int n = 0;
    for (int i = 0; i < atomic_load(&d->nprocs) && n >= 0 && (size_t)n + 24 < room; i++) {
        P *p = atomic_load(&d->allp[i]);
        uint32_t len = atomic_load(&p->runq_tail) - atomic_load(&p->runq_head);
        n += snprintf(buf + n, room - (size_t)n, " %u", ticks ? atomic_load_explicit(&p->schedtick, memory_order_relaxed) : len);
    }
    return n;
}

/* One line in the format of Go's schedtrace. gomaxprocs and idleprocs are the
 * native domain's; threads and queues are everybody's, the lists in brackets
 * begin with the Python domain's P. */
static void schedtrace(int64_t now)
{
    tally t = {0};
    Dom *doms[2] = { gort_py ? &gort_python : NULL, &gort_native };
    for (int i = 0; i < 2; i++)
        if (doms[i]) tally_dom(doms[i], &t);
    char buf[8192];
    size_t room = sizeof buf - 8;
    int n = snprintf(buf, room,
                     "SCHED %lldms: gomaxprocs=%d idleprocs=%d threads=%d spinningthreads=%d "
                     "needspinning=0 idlethreads=%d runqueue=%d [",
                     (long long)((now - started_ns) / 1000000), t.procs, t.idlep, t.ms, t.spin, t.idlem, t.queue);
    for (int i = 0; i < 2; i++)
        if (doms[i]) n += list_ps(doms[i], buf + n, room / 2 - (size_t)n, false);
    n += snprintf(buf + n, room - (size_t)n, " ] schedticks=[");
    for (int i = 0; i < 2; i++)
        if (doms[i]) n += list_ps(doms[i], buf + n, room - (size_t)n, true);
    n += snprintf(buf + n, sizeof buf - (size_t)n, " ]\n");
    if (write(2, buf, (size_t)n) < 0) return;
}

/* ---- the loop ------------------------------------------------------------------- */
static void *sysmon_main(void *arg)
{
    (void)arg;
    int64_t delay = POLL_MIN_NS, idle_rounds = 0;
    uint64_t last_act = 0;
    int sharing = 0;
    int64_t trace_ns = config_debug("schedtrace", 0) * 1000000, next_trace = started_ns;
    for (;;) {
        _Atomic uint32_t never = 0;
        os_futex_wait(&never, 0, delay);
        int64_t now = gort_now_ns();
        atomic_store_explicit(&gort_coarse_ns, now, memory_order_relaxed);
        bool did = overdue(&gort_native, now);
        if (gort_py) {
            did |= overdue(&gort_python, now);
            if (!atomic_load(&sysmon_no_python)) {
                did |= retake(&gort_python);
                int n = hogs(&gort_python);
                if (n != sharing) gort_py->share(sharing = n);
            }
        }
        if (trace_ns > 0 && now >= next_trace) {
            schedtrace(now);
            next_trace += trace_ns;
        }
        if (did) {
            delay = POLL_MIN_NS;
            idle_rounds = 0;
        } else if (++idle_rounds > 50) {
            delay = delay * 2 > POLL_MAX_NS ? POLL_MAX_NS : delay * 2;
        }
        /* Not at the first idle moment: to be woken for every short wait costs
         * more than to look a hundred times a second. */
        uint64_t act = activity(&gort_native) + (gort_py ? activity(&gort_python) : 0);
        bool quiet = delay == POLL_MAX_NS && act == last_act;
        last_act = act;
        if (!quiet || trace_ns > 0 || !all_idle(&gort_native) || (gort_py && !all_idle(&gort_python))) continue;
        atomic_store(&sleeping, 1);
        if (all_idle(&gort_native) && (!gort_py || all_idle(&gort_python)))
            os_futex_wait(&sleeping, 1, -1);
        atomic_store(&sleeping, 0);
        delay = POLL_MIN_NS;
        idle_rounds = 0;
    }
    return NULL;
}

void sysmon_start(void)
{
    started_ns = gort_now_ns();
    if (config_debug("nosysmon", 0)) return;
    if (os_thread_start(sysmon_main, NULL, (size_t)256 << 10) != 0)
        gort_warn("gort: no thread for sysmon could be started; blocked calls are not handed off");
}
