/* runq.h - what a P's owner does with its own run queue; see runq.c for the rest.
 *
 * The owner takes runnext at most NEXT_STREAK times in a row while the ring has
 * work: two goroutines that only wake each other must not starve the rest (Go's
 * sysmon preempts the shared time slice instead).
 */
#ifndef GORT_RUNQ_H
#define GORT_RUNQ_H

#define NEXT_STREAK 64

/* Move half of the full ring [h, t) and g to the global queue; false: try again. */
bool runq_put_slow(P *p, G *g, uint32_t h, uint32_t t);

static inline void ring_put(P *p, G *g)
{
    for (;;) {
        uint32_t h = atomic_load_explicit(&p->runq_head, memory_order_acquire);
        uint32_t t = atomic_load_explicit(&p->runq_tail, memory_order_relaxed);
        if (likely(t - h < RUNQ_SIZE)) {
            atomic_store_explicit(&p->runq[t % RUNQ_SIZE], g, memory_order_relaxed);
            atomic_store_explicit(&p->runq_tail, t + 1, memory_order_release);
            return;
        }
        if (runq_put_slow(p, g, h, t)) return;
    }
}

static inline G *swap_next(P *p, G *g)
{
    if (!p->solo) return atomic_exchange_explicit(&p->runnext, g, memory_order_acq_rel);
    G *old = atomic_load_explicit(&p->runnext, memory_order_relaxed);
    atomic_store_explicit(&p->runnext, g, memory_order_release);
    return old;
}

static inline bool runq_has_room(P *p)
{
    return atomic_load_explicit(&p->runq_tail, memory_order_relaxed) -
           atomic_load_explicit(&p->runq_head, memory_order_acquire) < RUNQ_SIZE;
}

/* Owner only. With next, g runs next and what was there goes to the ring. */
static inline void runq_put(P *p, G *g, bool next)
{
    if (next) {
        G *old = swap_next(p, g);
        if (!old) return;
        g = old;
    }
    ring_put(p, g);
}

static inline G *take_next(P *p)
{
    if (!atomic_load_explicit(&p->runnext, memory_order_relaxed)) return NULL;
    return swap_next(p, NULL);
}

/* Owner only. */
static inline G *runq_get(P *p)
{
    uint32_t h = atomic_load_explicit(&p->runq_head, memory_order_acquire);
    uint32_t t = atomic_load_explicit(&p->runq_tail, memory_order_relaxed);
    if (h == t || ++p->next_streak < NEXT_STREAK) {
        G *g = take_next(p);
        if (g) return g;
    }
    p->next_streak = 0;
    while (h != t) {
        G *g = atomic_load_explicit(&p->runq[h % RUNQ_SIZE], memory_order_relaxed);
        if (p->solo) {
            atomic_store_explicit(&p->runq_head, h + 1, memory_order_release);
            return g;
        }
        if (atomic_compare_exchange_weak_explicit(&p->runq_head, &h, h + 1, memory_order_acq_rel,
                                                  memory_order_acquire))
            return g;
    }
    return take_next(p);
}

static inline bool runq_empty(P *p)
{   /* runnext may be kicked to the ring between the reads: look twice */
    for (;;) {
        uint32_t h = atomic_load(&p->runq_head), t = atomic_load(&p->runq_tail);
        G *next = atomic_load(&p->runnext);
        if (t == atomic_load(&p->runq_tail)) return h == t && !next;
    }
}
#endif
