/* bubble.c - goroutines kept apart for tests: a fake clock, a seeded schedule.
 *
 * A bubble is a set of Python goroutines: the first one, and all that its members
 * start. It may have, each on its own,
 *   a fake clock (after Go's runtime/synctest.go): its members' timers are in the
 *     bubble's heap and its time stands still until all of them are durably
 *     blocked, that is, wait for what only a member or the clock can bring about;
 *   a seeded schedule: of the members that could run one does, which has the turn,
 *     and who gets it next is drawn from a seeded sequence. Then a run can be
 *     replayed (gort.testing.explore).
 *
 * Counting, with a fake clock: `running` is how many members are not durably
 * blocked. A park is durable if the wait says so (R_DURABLE); the stack that runs
 * next counts it when it commits the park, and a claim that finds PARKED counts it
 * back. So nothing is counted for a wait that was over before it was committed,
 * and running == 0 stays so until the root, the clock's keeper, or an outsider
 * wakes somebody. The one that makes it 0 wakes the root, which is not a member.
 *
 * The turn, with a seed: a member that becomes runnable goes to `ready` instead of
 * a run queue. The member that has the turn gives it up when it parks, yields or
 * ends, after all it woke have been queued; the next is drawn and put on a run
 * queue. While it sits in a C call or waits for the P it keeps the turn, but not in
 * blocking(): that may wait for another member. When it is back it queues for the
 * turn, so with blocking() a schedule depends on more than the seed.
 *
 * Who owns what: every member holds a reference, and so does whoever commits its
 * park: it may have run on and ended by then. b->lock guards what is under it
 * below; no other lock is taken with it held.
 */
#include "runtime.h"
#include "schedint.h"

#include <stdlib.h>
#include <string.h>

_Atomic int gort_nseeded;       /* how many bubbles with a seed there are */
static _Atomic uint64_t next_bubble = 1;
static gmutex all_lock;         /* guards the list of all; before b->lock */
static gort_bubble *all;

gort_bubble *bubble_new(bool fake, bool seeded, uint64_t seed, int strategy)
{
    gort_bubble *b = os_malloc(sizeof *b);
    if (!b) return NULL;
    memset(b, 0, sizeof *b);
    atomic_init(&b->refs, 1);
    b->id = atomic_fetch_add(&next_bubble, 1);
    b->fake = fake;
    b->seeded = seeded;
    b->rng = seed;
    b->strategy = strategy;
    b->low = BUBBLE_LOW;
    b->forced = -1;
    atomic_init(&b->tm.next, GORT_FOREVER);
    if (seeded) atomic_fetch_add(&gort_nseeded, 1);
    gmutex_lock(&all_lock);
    b->all_next = all;
    all = b;
    gmutex_unlock(&all_lock);
    return b;
}

void bubble_ref(gort_bubble *b) { atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed); }

void bubble_unref(gort_bubble *b)
{
    if (!b || atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) != 1) return;
    gmutex_lock(&all_lock);
    gort_bubble **p = &all;
    while (*p != b) p = &(*p)->all_next;
    *p = b->all_next;
    gmutex_unlock(&all_lock);
    if (b->seeded) atomic_fetch_sub(&gort_nseeded, 1);
    free(b->tm.heap);
    free(b->tm.tab);
    free(b->ready);
    free(b);
}

gort_bubble *bubble_current(void)
{
    M *m = getm();
    return m && m->curg ? m->curg->bubble : NULL;
}

bool bubble_foreign(uint64_t id)
{
    gort_bubble *b = bubble_current();
    return !b || b->id != id;
}

int64_t gort_clock_ns(void)
{
    gort_bubble *b = bubble_current();
    return b && b->fake ? atomic_load_explicit(&b->now, memory_order_relaxed) : gort_now_ns();
}

/* ---- counting members and those that run ------------------------------------------- */
static void kick_root(gort_bubble *b)
{
    G *ready = NULL;
    gmutex_lock(&b->lock);
    if (b->root_q.first) waitq_give(&b->root_q, 0, WC_OK, &ready);
    gmutex_unlock(&b->lock);
    if (ready) g_ready(ready);
}

static void one_less_runs(gort_bubble *b)
{
    if (atomic_fetch_sub(&b->running, 1) == 1) kick_root(b);
}

void bubble_enter(gfresh *f)
{
    gort_bubble *b = f->bubble;
    bubble_ref(b);
    atomic_fetch_add(&b->total, 1);
    atomic_fetch_add(&b->running, 1);
    if (!b->seeded) return;
    gmutex_lock(&b->lock);
    f->prio = BUBBLE_LOW + 1 + (uint32_t)(bubble_rand(b) >> 40);
    gmutex_unlock(&b->lock);
}

void bubble_leave(gort_bubble *b)
{
    atomic_fetch_sub(&b->total, 1);
    one_less_runs(b);
    bubble_turn_over(b);
    bubble_unref(b);
}

/* g's wait is about to be committed. */
void bubble_mark(G *g, int reason, const waitopt *o)
{
    gort_bubble *b = g->bubble;
    g->durable = b->fake && (reason & R_DURABLE) && (!o->done || o->done->bubble == b->id);
}

void bubble_commit_park(G *prev)
{
    gort_bubble *b = prev->bubble;
    bool durable = prev->durable; /* once PARKED is set it may be anywhere */
    bubble_ref(b);
    if (WK_CODE(atomic_fetch_or_explicit(&prev->wake, WK_PARKED, memory_order_acq_rel))) g_ready(prev);
    else if (durable) one_less_runs(b);
    bubble_turn_over(b);
    bubble_unref(b);
}

/* ---- the root -------------------------------------------------------------------------- */
int bubble_wait_idle(gort_bubble *b, const waitopt *o)
{
    sudog s;
    for (;;) { /* until it runs again an outsider may have woken one of them, by kill() */
        gmutex_lock(&b->lock);
        if (atomic_load(&b->running) == 0) {
            gmutex_unlock(&b->lock);
            return GORT_OK;
        }
        int code = wait_on(&b->root_q, &s, getg_waiter(o->python), &b->lock, true, R_BUBBLE_ROOT, o, false);
        if (code != WC_OK) return wait_error(code);
    }
}

/* All members but the caller are durably blocked when it returns. */
int bubble_wait(gort_bubble *b, const waitopt *o)
{
    sudog s;
    gmutex_lock(&b->lock);
    if (b->wait_q.first) {
        gmutex_unlock(&b->lock);
        return GORT_EINVAL;
    }
    return wait_error(wait_on(&b->wait_q, &s, getg_waiter(o->python), &b->lock, true, R_BUBBLE_WAIT | R_DURABLE, o,
                              false));
}

bool bubble_wake_waiter(gort_bubble *b)
{
    G *ready = NULL;
    gmutex_lock(&b->lock);
    bool any = b->wait_q.first && waitq_give(&b->wait_q, 0, WC_OK, &ready);
    gmutex_unlock(&b->lock);
    if (ready) g_ready(ready);
    return any;
}

/* The root, idle: let the clock go on to the next timer. False: there is none. */
bool bubble_advance(gort_bubble *b)
{
    int64_t next = atomic_load(&b->tm.next);
    if (next >= GORT_FOREVER - 1) return false; /* or one that is never due */
    if (next > b->now) atomic_store(&b->now, next);
    timers_run(&b->tm, b->now);
    return true;
}

/* ---- the turn ---------------------------------------------------------------------------- */
uint64_t bubble_rand(gort_bubble *b)
{   /* splitmix64, Steele, Lea and Flood 2014; b->lock, or the turn */
    uint64_t z = b->rng += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static uint32_t below(gort_bubble *b, uint32_t n) { return (uint32_t)((bubble_rand(b) >> 32) * n >> 32); }

uint32_t bubble_choose(uint32_t n)
{
    gort_bubble *b = bubble_current();
    if (!b || !b->seeded) return gort_rand(n);
    gmutex_lock(&b->lock);
    uint32_t k = below(b, n);
    gmutex_unlock(&b->lock);
    return k;
}

static int highest(gort_bubble *b)
{
    int best = 0;
    for (int i = 1; i < b->nready; i++)
        if (b->ready[i]->prio > b->ready[best]->prio) best = i;
    return best;
}

static G *draw(gort_bubble *b) /* lock held, nobody has the turn */
{
    if (b->nready == 0) return NULL;
    int i = b->forced >= 0 && b->forced < b->nready ? b->forced
          : b->strategy == BUBBLE_PCT ? highest(b) : (int)below(b, (uint32_t)b->nready);
    b->forced = -1;
    b->steps++;
    G *g = b->ready[i];
    b->nready--;
    memmove(&b->ready[i], &b->ready[i + 1], (size_t)(b->nready - i) * sizeof *b->ready);
    b->turn = true;
    return g;
}

static void push(gort_bubble *b, G *g) /* lock held */
{
    if (b->nready == b->cap) {
        int cap = b->cap ? b->cap * 2 : 16;
        G **r = realloc(b->ready, (size_t)cap * sizeof *r);
        if (!r) gort_fatal("out of memory (a seeded schedule's queue)");
        b->ready = r;
        b->cap = cap;
    }
    b->ready[b->nready++] = g;
}

void bubble_submit(G *g)
{
    gort_bubble *b = g->bubble;
    bubble_ref(b); /* once queued, g may run and end */
    gmutex_lock(&b->lock);
    push(b, g);
    G *next = b->turn ? NULL : draw(b);
    gmutex_unlock(&b->lock);
    bubble_unref(b);
    if (next) sched_submit(next);
}

void bubble_turn_over(gort_bubble *b)
{
    if (!b->seeded) return;
    gmutex_lock(&b->lock);
    b->turn = false;
    G *next = draw(b);
    gmutex_unlock(&b->lock);
    if (next) sched_submit(next);
}

void bubble_yielded(G *g)
{
    gort_bubble *b = g->bubble; /* nobody has the turn, so it lives until `next` runs */
    gmutex_lock(&b->lock);
    push(b, g);
    b->turn = false;
    G *next = draw(b);
    gmutex_unlock(&b->lock);
    if (next) sched_submit(next);
}

/* By PCT one that yields of its own will goes behind all others: it may be
 * polling for something that one of them does. */
void bubble_yields(G *g)
{
    gort_bubble *b = g->bubble;
    gmutex_lock(&b->lock);
    if (b->forced < 0) g->prio = --b->low;
    gmutex_unlock(&b->lock);
}

/* The running member is about to do something that others can see: may one of
 * those run first? True if it has let them. */
bool bubble_point(void)
{
    M *m = getm();
    G *g = m ? m->curg : NULL;
    gort_bubble *b = g ? g->bubble : NULL;
    if (!b || !b->seeded || g->kind != GK_PYTHON) return false;
    gmutex_lock(&b->lock);
    b->steps++;
    int to = -1;
    if (b->strategy == BUBBLE_PCT) {
        for (int i = 0; i < b->nchange; i++)
            if (b->change[i] == b->steps) g->prio = --b->low;
        if (b->nready) {
            int i = highest(b);
            if (b->ready[i]->prio > g->prio) to = i;
        }
    } else if (b->nready) {
        int i = (int)below(b, (uint32_t)b->nready + 1);
        if (i < b->nready) to = i;
    }
    b->forced = to;
    gmutex_unlock(&b->lock);
    if (to < 0) return false;
    g_yield_on(m);
    return true;
}

/* ---- fork ------------------------------------------------------------------------------------- */
/* The child has no members: who forked is none there, and has the real clock. */
static void forget(gort_bubble *b)
{
    atomic_store(&b->lock.v, 0);
    atomic_store(&b->total, 0);
    atomic_store(&b->running, 0);
    b->root_q = b->wait_q = (waitq){0};
    b->nready = 0;
    b->turn = false;
    b->forced = -1;
}

void bubbles_fork(int when)
{
    if (when == FORK_BEFORE) gmutex_lock(&all_lock);
    for (gort_bubble *b = all; b; b = b->all_next) {
        if (when == FORK_BEFORE) gmutex_lock(&b->lock);
        else if (when == FORK_PARENT) gmutex_unlock(&b->lock);
        else forget(b);
        timers_fork(&b->tm, when);
    }
    if (when == FORK_PARENT) gmutex_unlock(&all_lock);
    if (when == FORK_CHILD) atomic_store(&all_lock.v, 0);
}

/* ---- walks ----------------------------------------------------------------------------------- */
void bubble_each_fresh(void (*fn)(void *handle, void *), void *arg)
{
    gmutex_lock(&all_lock);
    for (gort_bubble *b = all; b; b = b->all_next) {
        gmutex_lock(&b->lock);
        for (int i = 0; i < b->nready; i++)
            if (b->ready[i]->kind == GK_FRESH) fn(b->ready[i]->handle, arg);
        gmutex_unlock(&b->lock);
    }
    gmutex_unlock(&all_lock);
}

timer *bubble_any_func_timer(gort_bubble *b)
{
    timer *found = NULL;
    gmutex_lock(&b->tm.lock);
    for (int32_t i = 0; i < atomic_load(&b->tm.n) && !found; i++) {
        timer *t = b->tm.tab[b->tm.heap[i].id].t;
        if (t->kind == TK_FUNC) found = t;
    }
    gmutex_unlock(&b->tm.lock);
    return found;
}
