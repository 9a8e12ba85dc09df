/* timer.c - timers: one 4-ary heap a P, as in Go's time.go.
 *
 * A timer is in the heap of one P from timer_add to its firing or timer_del;
 * its memory belongs to the caller (often a stack). Deletion is immediate, so a
 * timed wait that ends early leaves nothing behind. Firing copies fn, arg and seq under the lock and calls fn without it:
 * the timer may be gone by then, fn must rely on its copies alone (for a wait:
 * the sequence number in the wait word).
 *
 * tm->lock guards the heap. tm->next and tm->n mirror it for lock-free looks.
 * The timers are spread over many stacks, so moving one in the heap touches none
 * of them: the heap holds times and numbers (timer.id), and a table as dense
 * holds by number the timer and its place in the heap. The heap's unused end
 * holds the free numbers.
 * timer.tm is written by timer_add only, while the timer is in no heap.
 */
#include "runtime.h"

#include <stdlib.h>
#include <string.h>

#define FIRE_BATCH 32

static void put(timers *tm, int32_t i, timer_slot e)
{
    tm->heap[i] = e;
    tm->tab[e.id].pos = i;
}

static void sift_up(timers *tm, int32_t i)
{
    timer_slot e = tm->heap[i];
    while (i > 0) {
        int32_t up = (i - 1) / 4;
        if (tm->heap[up].when <= e.when) break;
        put(tm, i, tm->heap[up]);
        i = up;
    }
    put(tm, i, e);
}

static void sift_down(timers *tm, int32_t i, int32_t n)
{
    timer_slot e = tm->heap[i];
    for (;;) {
        int32_t c = 4 * i + 1, end = c + 4 < n ? c + 4 : n, best = c;
        if (c >= n) break;
        for (int32_t k = c + 1; k < end; k++)
            if (tm->heap[k].when < tm->heap[best].when) best = k;
        if (tm->heap[best].when >= e.when) break;
        put(tm, i, tm->heap[best]);
        i = best;
    }
    put(tm, i, e);
}

static void mirror(timers *tm, int32_t n)
{
    atomic_store_explicit(&tm->n, n, memory_order_relaxed);
    atomic_store(&tm->next, n ? tm->heap[0].when : GORT_FOREVER);
}

static void remove_at(timers *tm, int32_t i)
{
    int32_t n = atomic_load_explicit(&tm->n, memory_order_relaxed) - 1;
    int32_t id = tm->heap[i].id;
    timer *t = tm->tab[id].t;
    timer_slot last = tm->heap[n];
    tm->nchan -= t->kind == TK_CHAN;
    t->id = -1;
    tm->heap[n].id = id;
    if (i < n) {
        put(tm, i, last);
        if (i > 0 && tm->heap[(i - 1) / 4].when > last.when) sift_up(tm, i);
        else sift_down(tm, i, n);
    }
    mirror(tm, n);
}

/* The heap that serves the caller: its bubble's, its P's, else the Python domain's
 * first, else the native domain's. */
timers *timer_home(bool real)
{
    M *m = getm();
    if (!real && m && m->curg && unlikely(m->curg->bubble && m->curg->bubble->fake)) return &m->curg->bubble->tm;
    P *p = sched_own_p();
    if (p) return &p->tm;
    Dom *d = m ? m->dom : gort_python.main_m ? &gort_python : &gort_native;
    return &atomic_load(&d->allp[0])->tm;
}

static bool grow(timers *tm)
{
    int32_t n = tm->cap, cap = n ? n * 2 : 64;
    if (os_fail(OS_FAIL_MALLOC)) return false;
    timer_slot *h = realloc(tm->heap, (size_t)cap * sizeof *h);
    if (!h) return false;
    tm->heap = h;
    timer_entry *e = realloc(tm->tab, (size_t)cap * sizeof *e);
    if (!e) return false;
    tm->tab = e;
    for (; n < cap; n++) h[n].id = n;
    tm->cap = cap;
    return true;
}

int timer_add(timer *t, timers *tm, int64_t when)
{
    gmutex_lock(&tm->lock);
    int32_t n = atomic_load_explicit(&tm->n, memory_order_relaxed);
    if (n == tm->cap && !grow(tm)) {
        gmutex_unlock(&tm->lock);
        return GORT_ENOMEM;
    }
    t->tm = tm;
    t->id = tm->heap[n].id;
    tm->tab[t->id].t = t;
    tm->nchan += t->kind == TK_CHAN;
    tm->heap[n].when = when;
    sift_up(tm, n);
    mirror(tm, n + 1);
    bool first = tm->tab[t->id].pos == 0;
    gmutex_unlock(&tm->lock);
    if (first && tm->p) sched_timer_added(tm, when);
    return 0;
}

bool timer_del(timer *t)
{
    timers *tm = t->tm;
    if (!tm) return false;
    gmutex_lock(&tm->lock);
    bool pending = t->id >= 0;
    if (pending) remove_at(tm, tm->tab[t->id].pos);
    gmutex_unlock(&tm->lock);
    return pending;
}

/* Fire what is due. Whoever owns the P calls this, or a thief that looks for work. */
int64_t timers_run(timers *tm, int64_t now)
{
    for (;;) {
        int64_t next = atomic_load(&tm->next);
        if (next > now) return next;
        struct { timerfn fn; void *arg; uint64_t seq; } due[FIRE_BATCH];
        int k = 0;
        gmutex_lock(&tm->lock);
        while (k < FIRE_BATCH && atomic_load_explicit(&tm->n, memory_order_relaxed) &&
               tm->heap[0].when <= now) {
            timer *t = tm->tab[tm->heap[0].id].t;
            due[k].fn = t->fn;
            due[k].arg = t->arg;
            due[k++].seq = t->seq;
            if (t->kind == TK_CHAN) { /* it may be gone after the lock */
                gort_chan_ref(t->arg);
                atomic_store_explicit(&((gort_chan *)t->arg)->tfiring, t->seq + 1, memory_order_relaxed);
            }
            if (t->period > 0) { /* next time in step, but not in the past */
                int64_t step = t->period * ((now - tm->heap[0].when) / t->period);
                tm->heap[0].when += step; /* <= now */
                if (__builtin_add_overflow(tm->heap[0].when, t->period, &tm->heap[0].when))
                    tm->heap[0].when = GORT_FOREVER - 1;
                sift_down(tm, 0, atomic_load_explicit(&tm->n, memory_order_relaxed));
                mirror(tm, atomic_load_explicit(&tm->n, memory_order_relaxed));
            } else {
                remove_at(tm, 0);
            }
            /* Cold memory, both: the G that fn is to wake, and the next timer. */
            __builtin_prefetch(due[k - 1].arg, 1);
            __builtin_prefetch(tm->tab[tm->heap[0].id].t);
        }
        gmutex_unlock(&tm->lock);
        for (int i = 0; i < k; i++) due[i].fn(due[i].arg, due[i].seq, now);
    }
}

/* Before a look at a timer's channel that will not wait: fire what is due. Who
 * computes and looks again and again keeps all others from it (Go's maybeRunChan). */
void timers_poll(void)
{
    timers *tm = timer_home(false);
    if (atomic_load_explicit(&tm->next, memory_order_relaxed) != GORT_FOREVER) timers_run(tm, gort_clock_ns());
}

/* Could one of these make a goroutine run? One that feeds a channel on which
 * nobody waits could not. */
bool timers_hope(timers *tm)
{
    bool hope = false;
    gmutex_lock(&tm->lock);
    int32_t n = atomic_load_explicit(&tm->n, memory_order_relaxed);
    if (n > tm->nchan) hope = true;
    for (int32_t i = 0; i < n && !hope; i++) {
        timer *t = tm->tab[tm->heap[i].id].t;
        if (t->kind == TK_CHAN) {
            fork_check((gort_chan *)t->arg);
            hope = ((gort_chan *)t->arg)->recvq.first != NULL;
        }
    }
    gmutex_unlock(&tm->lock);
    return hope;
}

/* TK_CHAN: send the time, or drop it. A firing that stop() or reset() overtook
 * carries an old number. */
void timer_fire_chan(void *arg, uint64_t seq, int64_t now)
{
    gort_chan *c = arg;
    G *ready = NULL;
    double secs = (double)now / 1e9;
    uint64_t v;
    memcpy(&v, &secs, sizeof v);
    lock_if(c);
    if (c->tseq == seq) {
        chan_send_locked(c, v, &ready);
        atomic_store_explicit(&c->tfiring, 0, memory_order_relaxed);
    }
    gmutex_unlock(&c->lock);
    if (ready) g_ready(ready);
    gort_chan_unref(c);
}

/* Take a timer that feeds c back, so that nothing of it is received any more.
 * True if it was pending: in the heap, off it with its value on the way (Go's
 * isSending), or with the value in the buffer. */
bool timer_stop_chan(timer *t, gort_chan *c)
{
    bool pending = timer_del(t);
    lock_if(c);
    if (c->count || atomic_load_explicit(&c->tfiring, memory_order_relaxed) == c->tseq + 1) pending = true;
    c->tseq++;
    c->count = c->recvx = c->sendx = 0;
    gmutex_unlock(&c->lock);
    return pending;
}

/* In a fork's child: timers of waits were those of goroutines that are not here, so
 * they are dropped unseen, and so are functions that the parent will run. */
void timers_fork(timers *tm, int when)
{
    if (when == FORK_BEFORE) gmutex_lock(&tm->lock);
    if (when == FORK_PARENT) gmutex_unlock(&tm->lock);
    if (when != FORK_CHILD) return;
    atomic_store(&tm->lock.v, 0);
    int32_t n = 0, all = atomic_load(&tm->n);
    for (int32_t i = 0; i < all; i++) { /* keep those in front, with their numbers */
        timer_slot e = tm->heap[i];
        timer *t = tm->tab[e.id].t;
        bool keep = t->kind == TK_CHAN || t->inherited;
        if (!keep) {
            if (t->kind == TK_FUNC) t->id = -1;
            continue;
        }
        tm->heap[i] = tm->heap[n];
        put(tm, n++, e);
    }
    for (int32_t i = (n - 2) / 4; i >= 0 && n > 1; i--) sift_down(tm, i, n);
    mirror(tm, n);
}
