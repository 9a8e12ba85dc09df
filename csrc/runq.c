/* runq.c - run queues: a P's local ring and runnext, the domain's global queue.
 *
 * After Go's proc.go (runqput, runqget, runqgrab). The ring has one producer,
 * its owner P, and many consumers: the owner and thieves advance runq_head by
 * CAS; only the owner advances runq_tail. runnext holds the G just readied,
 * which inherits the time slice. A thief may read a slot that is overwritten
 * meanwhile: its CAS on the head then fails, so the slots are atomics.
 *
 * A solo P (the Python domain's on a GIL build) has no thieves, so its owner needs
 * no read-modify-write at all: plain loads and stores of the same atomics.
 * The owner's own operations are inline, in runq.h.
 *
 * Gs that were preempted wait on a queue of the domain's own: however many compute,
 * together they are one share beside those that come and go.
 */
#include "runtime.h"

bool runq_put_slow(P *p, G *g, uint32_t h, uint32_t t)
{   /* move half of the ring and g to the global queue */
    G *batch[RUNQ_SIZE / 2 + 1];
    uint32_t n = (t - h) / 2;
    for (uint32_t i = 0; i < n; i++)
        batch[i] = atomic_load_explicit(&p->runq[(h + i) % RUNQ_SIZE], memory_order_relaxed);
    if (!atomic_compare_exchange_strong_explicit(&p->runq_head, &h, h + n, memory_order_release,
                                                 memory_order_relaxed))
        return false;
    batch[n++] = g;
    gmutex_lock(&p->dom->lock);
    for (uint32_t i = 0; i < n; i++) globq_put(p->dom, batch[i]);
    gmutex_unlock(&p->dom->lock);
    return true;
}

/* Take half of the victim's ring; of an empty one its runnext, if asked to.
 * Returns one G to run; the others are on the thief's ring. */
G *runq_steal(P *thief, P *victim, bool steal_next)
{
    uint32_t tt = atomic_load_explicit(&thief->runq_tail, memory_order_relaxed);
    for (;;) {
        uint32_t h = atomic_load_explicit(&victim->runq_head, memory_order_acquire);
        uint32_t t = atomic_load_explicit(&victim->runq_tail, memory_order_acquire);
        uint32_t n = t - h;
        n -= n / 2;
        if (n == 0) {
            if (!steal_next || !atomic_load_explicit(&victim->runnext, memory_order_relaxed)) return NULL;
            return atomic_exchange_explicit(&victim->runnext, NULL, memory_order_acq_rel);
        }
        if (n > RUNQ_SIZE / 2) continue; /* head and tail read inconsistently */
        for (uint32_t i = 0; i < n; i++) {
            G *g = atomic_load_explicit(&victim->runq[(h + i) % RUNQ_SIZE], memory_order_relaxed);
            atomic_store_explicit(&thief->runq[(tt + i) % RUNQ_SIZE], g, memory_order_relaxed);
        }
        if (!atomic_compare_exchange_strong_explicit(&victim->runq_head, &h, h + n,
                                                     memory_order_acq_rel, memory_order_relaxed))
            continue;
        n--; /* the last one is run by the thief at once */
        G *g = atomic_load_explicit(&thief->runq[(tt + n) % RUNQ_SIZE], memory_order_relaxed);
        if (n) atomic_store_explicit(&thief->runq_tail, tt + n, memory_order_release);
        return g;
    }
}

void globq_put(Dom *d, G *g)
{
    g->link = NULL;
    if (d->runq_last) d->runq_last->link = g;
    else d->runq_first = g;
    d->runq_last = g;
    atomic_fetch_add(&d->runqsize, 1);
}

/* One G to run, and p's share of the others (up to max, 0: a fair share) onto
 * p's ring, which the caller knows to have room. */
G *globq_get(Dom *d, P *p, int max)
{
    int size = atomic_load_explicit(&d->runqsize, memory_order_relaxed) -
               atomic_load_explicit(&d->npreq, memory_order_relaxed);
    if (size == 0) return NULL;
    int n = size / atomic_load_explicit(&d->nprocs, memory_order_relaxed) + 1;
    if (n > size) n = size;
    if (max > 0 && n > max) n = max;
    if (n > (int)RUNQ_SIZE / 2) n = RUNQ_SIZE / 2;
    G *first = NULL;
    for (int i = 0; i < n; i++) {
        G *g = d->runq_first;
        d->runq_first = g->link;
        if (!d->runq_first) d->runq_last = NULL;
        g->link = NULL;
        if (!first) first = g;
        else ring_put(p, g);
    }
    atomic_fetch_sub(&d->runqsize, n);
    return first;
}

void preq_put(Dom *d, G *g)
{
    g->link = NULL;
    if (d->preq_last) d->preq_last->link = g;
    else d->preq_first = g;
    d->preq_last = g;
    atomic_fetch_add(&d->npreq, 1);
    atomic_fetch_add(&d->runqsize, 1);
    atomic_store(&d->preq_since, gort_now_ns());
}

G *preq_get(Dom *d)
{
    G *g = d->preq_first;
    if (!g) return NULL;
    d->preq_first = g->link;
    if (!d->preq_first) d->preq_last = NULL;
    g->link = NULL;
    atomic_fetch_sub(&d->runqsize, 1);
    atomic_fetch_sub(&d->npreq, 1);
    return g;
}

static bool unlink_from(G **first, G **last, G *g)
{
    for (G *prev = NULL, *x = *first; x; prev = x, x = x->link) {
        if (x != g) continue;
        if (prev) prev->link = g->link;
        else *first = g->link;
        if (*last == g) *last = prev;
        g->link = NULL;
        return true;
    }
    return false;
}

/* Take g out of p's own queue, the global one or the preempted, wherever it is; the others
 * keep their order. Linear: for what happens once in a while. */
bool runq_pull(Dom *d, P *p, G *g)
{
    G *next = take_next(p);
    if (next == g) return true;
    bool found = false;
    uint32_t n = atomic_load_explicit(&p->runq_tail, memory_order_relaxed) -
                 atomic_load_explicit(&p->runq_head, memory_order_acquire);
    for (G *x; n && (x = runq_get(p)); n--) { /* once around */
        if (x == g) found = true;
        else ring_put(p, x);
    }
    if (next) runq_put(p, next, true);
    if (found) return true;
    bool preempted = unlink_from(&d->preq_first, &d->preq_last, g);
    found = preempted || unlink_from(&d->runq_first, &d->runq_last, g);
    if (found) atomic_fetch_sub(&d->runqsize, 1);
    if (preempted) atomic_fetch_sub(&d->npreq, 1);
    return found;
}
