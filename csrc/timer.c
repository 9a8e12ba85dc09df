/* timer.c - timers: one 4-ary heap a P, as in Go's time.go.
 *
 * A timer is in the heap of one P from timer_add to its firing or timer_del;
 * its memory belongs to the caller (often a stack). Deletion is immediate: the
 * heap position is in the timer, so a timed wait that ends early leaves nothing
 * behind. Firing copies fn, arg and seq under the lock and calls fn without it:
 * the timer may be gone by then, fn must rely on its copies alone (for a wait:
 * the sequence number in the wait word).
 *
 * tm->lock guards the heap. tm->next and tm->n mirror it for lock-free looks.
 * The heap holds the times beside the timers, which are spread over many stacks:
 * a comparison need not touch them.
 * timer.p is written by timer_add only, while the timer is in no heap.
 */
#include "runtime.h"

#include <stdlib.h>
#include <string.h>

#define FIRE_BATCH 32

static void put(timers *tm, int32_t i, timer_slot e)
{
    tm->heap[i] = e;
    e.t->pos = i;
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
    timer *t = tm->heap[i].t;
    timer_slot last = tm->heap[n];
    tm->nchan -= t->kind == TK_CHAN;
    t->pos = -1;
    if (i < n) {
        put(tm, i, last);
        if (i > 0 && tm->heap[(i - 1) / 4].when > last.when) sift_up(tm, i);
        else sift_down(tm, i, n);
    }
    mirror(tm, n);
}

/* The P whose heap serves the caller: its own, else the Python domain's first,
 * else the native domain's. */
P *timer_home(void)
{
    M *m = getm();
    if (m && m->p) return m->p;
    Dom *d = m ? m->dom : gort_python.main_m ? &gort_python : &gort_native;
    return atomic_load(&d->allp[0]);
}

int timer_add(timer *t, P *p, int64_t when)
{
    timers *tm = &p->tm;
    gmutex_lock(&tm->lock);
    int32_t n = atomic_load_explicit(&tm->n, memory_order_relaxed);
    if (n == tm->cap) {
        int32_t cap = n ? n * 2 : 64;
        timer_slot *h = os_fail(OS_FAIL_MALLOC) ? NULL : realloc(tm->heap, (size_t)cap * sizeof *h);
        if (!h) {
            gmutex_unlock(&tm->lock);
            return GORT_ENOMEM;
        }
        tm->heap = h;
        tm->cap = cap;
    }
    t->p = p;
    tm->nchan += t->kind == TK_CHAN;
    tm->heap[n] = (timer_slot){ when, t };
    sift_up(tm, n);
    mirror(tm, n + 1);
    bool first = t->pos == 0;
    gmutex_unlock(&tm->lock);
    if (first) sched_timer_added(p, when);
    return 0;
}

bool timer_del(timer *t)
{
    if (!t->p) return false;
    timers *tm = &t->p->tm;
    gmutex_lock(&tm->lock);
    bool pending = t->pos >= 0;
    if (pending) remove_at(tm, t->pos);
    gmutex_unlock(&tm->lock);
    return pending;
}

/* Fire what is due. Whoever owns p calls this, or a thief that looks for work. */
int64_t timers_run(P *p, int64_t now)
{
    timers *tm = &p->tm;
    for (;;) {
        int64_t next = atomic_load(&tm->next);
        if (next > now) return next;
        struct { timerfn fn; void *arg; uint64_t seq; } due[FIRE_BATCH];
        int k = 0;
        gmutex_lock(&tm->lock);
        while (k < FIRE_BATCH && atomic_load_explicit(&tm->n, memory_order_relaxed) &&
               tm->heap[0].when <= now) {
            timer *t = tm->heap[0].t;
            due[k].fn = t->fn;
            due[k].arg = t->arg;
            due[k++].seq = t->seq;
            if (t->kind == TK_CHAN) gort_chan_ref(t->arg); /* may be gone after the lock */
            if (t->period > 0) { /* next time in step, but not in the past */
                tm->heap[0].when += t->period * (1 + (now - tm->heap[0].when) / t->period);
                sift_down(tm, 0, atomic_load_explicit(&tm->n, memory_order_relaxed));
                mirror(tm, atomic_load_explicit(&tm->n, memory_order_relaxed));
            } else {
                remove_at(tm, 0);
            }
        }
        gmutex_unlock(&tm->lock);
        for (int i = 0; i < k; i++) due[i].fn(due[i].arg, due[i].seq, now);
    }
}

/* Could a timer of p make a goroutine run? One that feeds a channel on which
 * nobody waits could not. */
bool timers_hope(P *p)
{
    timers *tm = &p->tm;
    bool hope = false;
    gmutex_lock(&tm->lock);
    int32_t n = atomic_load_explicit(&tm->n, memory_order_relaxed);
    if (n > tm->nchan) hope = true;
    for (int32_t i = 0; i < n && !hope; i++) {
        timer *t = tm->heap[i].t;
        if (t->kind == TK_CHAN) hope = ((gort_chan *)t->arg)->recvq.first != NULL;
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
    gmutex_lock(&c->lock);
    if (c->tseq == seq) chan_send_locked(c, v, &ready);
    gmutex_unlock(&c->lock);
    if (ready) g_ready(ready);
    gort_chan_unref(c);
}
