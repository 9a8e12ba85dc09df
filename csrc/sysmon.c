/* sysmon.c - the thread that watches, after Go's sysmon: it owns no P.
 *
 * - Takes the P from an M whose Python goroutine sits in a call that released
 *   the GIL while other goroutines could run, and gives it to another M.
 * - Preempts a Python goroutine that computes for 1 ms while others could run, or
 *   for 10 ms while only such could: it calls sched_preempt() between two bytecodes.
 * - Wakes the main goroutine for a signal that the main thread, which computes or
 *   sits in a call, does not handle; one that is runnable goes before all others.
 * - Starts an M for a timer that is overdue while Ps are idle, and where no thread could
 *   be had for one; fires the timers itself while there is none.
 * - Polls the network if nobody did for 1 ms. From an M whose goroutine sits in a call
 *   for over 1 ms it also takes the P if nothing but the network could need it.
 * - Keeps the coarse clock, and prints GORT_DEBUG=schedtrace lines.
 * It polls every 20 us after it did something, doubling up to 10 ms after 1 ms
 * of nothing (to 1 or 2 ms while a goroutine has the GIL; while one sits in a call to 100 us
 * if others wait, else to the next timer or arrival), and sleeps once every P of both domains has been idle
 * for 10 ms and the main thread is not in a call.
 *
 * Who lost its P in a call goes on without one from call to call, and is let in when it
 * comes back by whoever schedules (ctx_offer). Of calls that compute (zlib, SQLite) more than
 * a few a processor do harm: many then contend for it and the GIL, and the kernel preempts
 * who has that. From there on (crowded) the P stays for 10 ms.
 *
 * Retaking needs the GIL: all changes of m->p that a running Python goroutine
 * could see are made under it, so an M that comes back from its call and takes
 * the GIL sees at once whether it still has its P.
 */
#include "netpoll.h"
#include "schedint.h"

#include <stdio.h>
#include <unistd.h>

#define POLL_MIN_NS 20000
#define POLL_MAX_NS 10000000
#define SLICE_NS 10000000       /* how long one may compute while others wait who do so too (Go) */
#define TURN_NS 1000000         /* ... while others wait who do not */
#define CALM_NS 100000000       /* for so long after somebody did, look for such twice as often */
#define OWN_SLICE 100000        /* the kernel's slice for sysmon */
#define M_SLICE 200000          /* ... for the Ms, once somebody lost its P in a call */
#define CALL_SLICE 6000000      /* ... and for who lost its P in a call; the default is 0.7 to 3 ms */
#define CALL_NS 100000          /* a call this long while others could run is worth another thread */
#define CROWD 4                 /* calls that compute, per processor: with more of them the P stays for 10 ms */
#define NET_NS 1000000          /* how long one may sit in a call while nobody polls the network */

_Atomic int64_t gort_coarse_ns;
static _Atomic uint32_t sleeping; /* futex: 1 = sysmon sleeps until woken; 2: there is none yet, who wakes it starts it */
static int64_t started_ns;
static _Atomic bool slices;       /* the Ms have short ones */
static bool in_call;              /* a P's goroutine sits in one, so it seemed */
static int64_t turn_ns;           /* GORT_DEBUG=turn=US, or TURN_NS; small ones find races */
int64_t gort_blocked_ns;          /* GORT_DEBUG=blocked=MS: tell who holds the GIL for so long */
_Atomic bool sysmon_no_python;    /* the interpreter is going away */
_Atomic int sysmon_tid;           /* its thread, 0 if there is none */

/* While a P's goroutine sits in a call sysmon may sleep for 10 ms; but who becomes
 * runnable meanwhile should not wait for so long. */
static _Atomic uint32_t watching; /* futex */
void sysmon_nudge(void)
{
    if (likely(!atomic_load(&watching))) return;
    if (atomic_exchange(&watching, 0)) os_futex_wake(&watching, 1);
}

void sysmon_wake(void)
{
    if (likely(!atomic_load(&sleeping))) return;
    if (atomic_exchange(&sleeping, 0) == 2) sysmon_start();
    else os_futex_wake(&sleeping, 1);
}

/* Most children call exec() or end soon: it is started when it is first missed. */
static gmutex probe_lock;         /* nothing is locked within: a child shall not inherit what crowded() opens */
void sysmon_fork(int when)
{
    if (when == FORK_BEFORE) gmutex_lock(&probe_lock);
    else if (when == FORK_PARENT) gmutex_unlock(&probe_lock);
    if (when != FORK_CHILD) return;
    atomic_store(&probe_lock.v, 0);
    atomic_store(&sleeping, 2);
    atomic_store(&sysmon_tid, 0);
    atomic_store(&watching, 0);
    atomic_store(&slices, false);
    in_call = false;
}

static bool all_idle(Dom *d)
{
    if (d->main_m && !__atomic_load_n(&d->main_m->idle, __ATOMIC_RELAXED)) return false;
    return atomic_load(&d->npidle) >= atomic_load(&d->nprocs);
}

static bool starved(void) { return atomic_load(&gort_native.starved) || atomic_load(&gort_python.starved); }

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
    int64_t now = gort_now_ns();
    M *m = atomic_load(&p->m);
    if (netpoll_wanted() && now - *since > NET_NS && m && gort_py->detached(m) == 1) return true;
    return !runq_empty(p) || atomic_load(&d->runqsize) > 0 || atomic_load(&p->tm.next) <= now;
}

/* Calls that compute (zlib) may have more threads than there are processors: whoever
 * has the P shall not wait for their slices, which may last until a tick of 4 ms. So who
 * loses its P in a call gets a long slice, and from the first time on the others a short
 * one: EEVDF runs a thread that wakes up at once if its deadline, which is its slice from
 * now, comes before those of all that are owed some time. (Not before: a server that is
 * woken for each request by a client on its processor is better off with a few at a time.)
 * m may have come back by now; then it goes on like that until it gets a P again. */
static void m_demote(Dom *d, M *m)
{
    if (atomic_load(&m->demoted)) return;
    if (!atomic_exchange(&slices, true))
        for (M *other = atomic_load(&d->allm); other; other = other->alllink) {
            int tid = atomic_load(&other->tid);
            if (tid) os_slice(tid, M_SLICE); /* else it does so itself */
        }
    os_slice(atomic_load(&m->tid), CALL_SLICE); /* first: who has the long slice has the mark */
    atomic_store(&m->demoted, true);
}
void sysmon_promote(M *m) /* the calling one */
{
    atomic_store(&m->demoted, false);
    os_slice(0, M_SLICE);
}

void sysmon_slice(void) /* of a new M; it has stored its tid */
{
    if (atomic_load(&slices)) os_slice(0, M_SLICE);
}

/* Its goroutine lost the P in a call and has not been in the runtime since. A guess. */
static bool in_long_call(M *m)
{
    G *g = __atomic_load_n(&m->curg, __ATOMIC_RELAXED);
    return g && !__atomic_load_n(&m->p, __ATOMIC_RELAXED) && atomic_load_explicit(&g->status, memory_order_relaxed) == G_SYSCALL;
}

/* Do so many compute in their calls that one more could but take a processor from them?
 * Each makes the turns of the others, and of who has the GIL, come later. */
static bool crowded(Dom *d, int64_t now)
{
    static int64_t looked;
    static bool yes;
    if (now - looked < TURN_NS) return yes;
    looked = now;
    int limit = CROWD * os_ncpu(), calls = 0, run = 0, tries = 2 * limit;
    for (M *m = atomic_load(&d->allm); m; m = m->alllink) calls += in_long_call(m);
    gmutex_lock(&probe_lock);
    for (M *m = calls < limit ? NULL : atomic_load(&d->allm); m && run < limit && tries; m = m->alllink)
        if (in_long_call(m)) {
            run += os_thread_runs(atomic_load(&m->tid));
            tries--;
        }
    gmutex_unlock(&probe_lock);
    return yes = run >= limit;
}

static bool retake(Dom *d, int64_t now, int64_t *most)
{
    static uint32_t ticks[MAXPROCS];
    static int64_t since[MAXPROCS];
    bool did = false;
    in_call = false;
    for (int i = 0; i < d->nallp; i++) {
        P *p = atomic_load(&d->allp[i]);
        bool wait = stuck(d, p, &ticks[i], &since[i]);
        M *m = atomic_load(&p->m);
        int how = m && atomic_load(&p->status) == P_RUNNING ? gort_py->detached(m) : 0; /* a guess, made sure of below */
        if (how == 1) {
            int64_t next = runq_empty(p) && atomic_load(&d->runqsize) == 0 ? atomic_load(&p->tm.next) - now : CALL_NS;
            if (netpoll_wanted() && next > NET_NS) next = NET_NS;
            if (next < *most) *most = next < POLL_MIN_NS ? POLL_MIN_NS : next;
            in_call = true;
        }
        if (!wait || !how) continue;
        if (now - since[i] < POLL_MAX_NS && (how == 2 || crowded(d, now))) continue;
        void *save = gort_py->gil_enter();
        if (!save) return did;
        m = atomic_load(&p->m);
        bool take = stuck(d, p, &ticks[i], &since[i]) && m && m->p == p && m->curg && gort_py->detached(m);
        if (take) {
            atomic_store(&m->curg->status, G_SYSCALL);
            m->p = NULL;
            did = true;
        }
        gort_py->gil_leave(save);
        if (take) {
            m_demote(d, m);
            m_start(d, p, false);
        }
    }
    return did;
}

/* ---- preempt: Python domain ----------------------------------------------- */
/* Who could run but for m, whose goroutine has computed for so long? */
static bool others_wait(Dom *d, M *m, int64_t now, int64_t ran)
{
    int preempted = atomic_load(&d->npreq);
    if (atomic_load_explicit(&d->main_first, memory_order_relaxed)) return true;
    if (atomic_load(&d->runqsize) > preempted || (preempted && ran >= SLICE_NS)) return true;
    for (int i = 0; i < d->nallp; i++) {
        P *p = atomic_load(&d->allp[i]);
        if (!runq_empty(p) || atomic_load(&p->tm.next) <= now) return true;
        /* m has lost its own, and another waits for the GIL with it */
        if (atomic_load(&p->status) == P_RUNNING && atomic_load(&p->m) != m) return true;
    }
    return false;
}

/* When to look again. */
static int64_t preempt(Dom *d, int64_t now)
{
    static M *last;
    static uint64_t turn;
    static int64_t since, asked;
    uint64_t t;
    M *m = gort_py->running(d, &t);
    if (!m) return POLL_MAX_NS;
    if (m != last || t != turn) {
        last = m;
        turn = t;
        since = now;
        atomic_store(&m->preempt, 0);
    } else if (now - since >= turn_ns && (gort_blocked_ns || others_wait(d, m, now, now - since))) {
        bool again = atomic_load(&m->preempt) != 0;
        if (!again || now - asked >= TURN_NS) { /* it may have come to another thread */
            if (!again) atomic_store(&m->preempt, now);
            asked = now;
            gort_py->preempt(m);
        }
    }
    return now - asked < CALM_NS ? turn_ns : 2 * turn_ns;
}

/* The main thread looks for signals when it goes idle and between bytecodes of the
 * main goroutine. That may wait while the thread computes for another, or is in a call;
 * and it is not told of them while the main goroutine sits in a call elsewhere, nor when
 * another thread got it, or itself after its last look and before it slept. */
static void signals(Dom *d, int64_t now)
{
    static int64_t since;
    if (!d->main_m || !gort_py->signals()) {
        since = GORT_FOREVER;
        return;
    }
    if (since == GORT_FOREVER) since = now;
    if (now - since < TURN_NS) return; /* mostly it is handled at once */
    if (wait_interrupt(gort_main_g, WC_INTR)) return;
    M *m = __atomic_load_n(&gort_main_g->m, __ATOMIC_RELAXED);
    if (atomic_load(&gort_main_g->status) == G_RUNNABLE) atomic_store(&d->main_first, true);
    else if (m != d->main_m && __atomic_load_n(&m->curg, __ATOMIC_RELAXED) == gort_main_g) os_interrupt(atomic_load(&m->tid));
}

/* ---- what nobody sees to ------------------------------------------------------ */
/* An idle P, and a timer that is overdue; or no thread was to be had for it when one was
 * wanted (m_start), whatever for. While there is none, sysmon fires the timers. */
static bool overdue(Dom *d, int64_t now)
{
    if (atomic_load(&d->npidle) == 0) return false;
    bool starved = atomic_exchange(&d->starved, false), due = starved;
    for (int i = 0; i < d->nallp; i++) due |= atomic_load(&atomic_load(&d->allp[i])->tm.next) < now - POLL_MIN_NS;
    if (!due) return false;
    gmutex_lock(&d->lock);
    bool soon = !starved && d->timer_m && atomic_load(&d->timer_when) <= now; /* it is on its way */
    P *p = soon ? NULL : pidle_get(d);
    gmutex_unlock(&d->lock);
    if (!p) return false;
    int zero = 0; /* who spins wakes the next M when it finds something */
    if (m_start(d, p, starved && atomic_compare_exchange_strong(&d->nmspinning, &zero, 1))) return true;
    for (int i = 0; i < d->nallp; i++) timers_run(&atomic_load(&d->allp[i])->tm, now);
    return false;
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
    atomic_store(&sysmon_tid, os_gettid());
    os_slice(0, OWN_SLICE);
    int64_t delay = POLL_MIN_NS, most = POLL_MAX_NS, idle_rounds = 0;
    uint64_t last_act = 0;
    int64_t trace_ns = config_debug("schedtrace", 0) * 1000000, next_trace = started_ns;
    for (;;) {
        _Atomic uint32_t never = 0;
        int64_t nap = delay < most ? delay : most;
        if (in_call && nap > TURN_NS / 10) os_futex_wait(&watching, 1, nap);
        else os_futex_wait(&never, 0, nap);
        most = POLL_MAX_NS;
        int64_t now = gort_now_ns();
        atomic_store(&watching, in_call); /* before it looks who waits */
        atomic_store_explicit(&gort_coarse_ns, now, memory_order_relaxed);
        bool did = overdue(&gort_native, now) | netpoll_watch(now);
        if (gort_py) {
            did |= overdue(&gort_python, now);
            if (!atomic_load(&sysmon_no_python)) {
                did |= retake(&gort_python, now, &most);
                int64_t soon = preempt(&gort_python, now);
                if (soon < most) most = soon;
                signals(&gort_python, now);
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
        if (gort_py && !atomic_load(&sysmon_no_python) && gort_py->signals()) quiet = false;
        if (!quiet || trace_ns > 0 || netpoll_wanted() || !all_idle(&gort_native) || (gort_py && !all_idle(&gort_python))) continue;
        if (starved()) continue;
        atomic_store(&sleeping, 1);
        if (all_idle(&gort_native) && (!gort_py || all_idle(&gort_python)) && !starved())
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
    turn_ns = config_debug("turn", TURN_NS / 1000) * 1000;
    gort_blocked_ns = config_debug("blocked", 0) * 1000000;
    if (config_debug("nosysmon", 0)) return;
    if (os_thread_start(sysmon_main, NULL, (size_t)256 << 10) == 0) return;
    static bool told;
    if (!told) gort_warn("gort: no thread for sysmon could be started; until there is one blocked calls are not handed off");
    told = true;
    atomic_store(&sleeping, 2);
}
