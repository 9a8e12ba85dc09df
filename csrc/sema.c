/* sema.c - Mutex, RWMutex, WaitGroup, Semaphore, and notify lists for Cond and join.
 *
 * After Go's sync package (mutex.go, rwmutex.go, waitgroup.go, and
 * x/sync/semaphore), on wait queues instead of runtime semaphores: the state and
 * its waiters share one lock, so a state machine of plain fields suffices.
 * Each structure's `lock` guards all its fields if `shared`, else the GIL does.
 *
 * Mutex: in normal mode unlock() wakes the first waiter, which competes with
 * newcomers; `woken` keeps it to one woken waiter at a time. A waiter that
 * failed to get it for 1 ms turns the mutex starving: unlock() then passes
 * ownership to the first waiter directly, until one got it quickly or was last.
 */
#include "runtime.h"

#include <stdlib.h>
#include <string.h>

#define STARVING_NS 1000000

/* ---- Mutex ------------------------------------------------------------ */
/* lock held: wake the first waiter to compete for the mutex. */
static G *mutex_wake(gort_mutex *m)
{
    G *ready = NULL;
    if (!m->locked && !m->woken && m->q.first) m->woken = waitq_give(&m->q, 0, WC_OK, &ready);
    return ready;
}

static int mutex_lock_slow(gort_mutex *m, const waitopt *o)
{
    G *g = getg_waiter(o->python);
    int64_t since = 0;
    sudog s;
    for (;;) { /* the lock is held here */
        bool again = since != 0;
        if (!again) since = gort_clock_ns();
        int code = wait_on(&m->q, &s, g, &m->lock, m->shared, R_MUTEX | durable_if(m->bubble), o, again);
        if (code != WC_OK) return wait_error(code);
        lock_if(m);
        if (s.val) { /* ownership came with the wake-up */
            if (!m->q.first || gort_clock_ns() - since < STARVING_NS) m->starving = false;
            unlock_if(m);
            return GORT_OK;
        }
        m->woken = false;
        if (!m->locked) {
            m->locked = true;
            unlock_if(m);
            return GORT_OK;
        }
        if (gort_clock_ns() - since > STARVING_NS) m->starving = true;
    }
}

int mutex_lock(gort_mutex *m, bool block, const waitopt *o)
{
    lock_if(m);
    if (likely(!m->locked && !m->starving)) {
        m->locked = true;
        unlock_if(m);
        return GORT_OK;
    }
    if (!block) {
        unlock_if(m);
        return GORT_EAGAIN;
    }
    return mutex_lock_slow(m, o);
}

int mutex_unlock(gort_mutex *m)
{
    G *ready = NULL;
    lock_if(m);
    if (unlikely(!m->locked)) {
        unlock_if(m);
        return GORT_EINVAL;
    }
    if (m->starving) {
        if (!waitq_give(&m->q, 1, WC_OK, &ready)) m->locked = m->starving = false; /* all gave up */
    } else {
        m->locked = false;
        if (m->q.first) ready = mutex_wake(m);
    }
    unlock_if(m);
    if (ready) g_ready(ready);
    return GORT_OK;
}

/* ---- RWMutex ---------------------------------------------------------- */
enum { READER = 0, WRITER = 1 };

/* lock held: let in whoever is first, and all readers up to the next writer.
 * Ownership goes with the wake-up. The chain of Gs to ready is returned. */
static G *rw_admit(gort_rwmutex *m)
{
    G *first = NULL, **last = &first;
    while (m->q.first && !m->writer) {
        uint8_t tag = m->q.first->tag;
        if (tag == WRITER && m->readers) break;
        sudog *s = m->q.first;
        G *g = s->g;
        waitq_remove(s);
        if (tag == WRITER) m->waiting_writers--;
        s->val = 1; /* says that the claimer did the bookkeeping */
        int r = wait_claim(g, s->ticket, WC_OK, 0);
        if (!r) continue;
        if (tag == WRITER) m->writer = true;
        else m->readers++;
        if (r == 2) chain_add(&last, g);
    }
    return first;
}

static void ready_chain(G *g)
{
    for (G *next; g; g = next) {
        next = g->link;
        g_ready(g);
    }
}

static int rw_wait(gort_rwmutex *m, uint8_t tag, int reason, const waitopt *o)
{
    sudog s;
    s.tag = tag;
    s.val = 0;
    if (tag == WRITER) m->waiting_writers++;
    int code = wait_on(&m->q, &s, getg_waiter(o->python), &m->lock, m->shared, reason | durable_if(m->bubble), o, false);
    if (code == WC_OK) return GORT_OK;
    lock_if(m);
    /* A writer that gives up no longer holds back the readers behind it. */
    if (tag == WRITER && !s.val) m->waiting_writers--;
    G *chain = rw_admit(m);
    unlock_if(m);
    ready_chain(chain);
    return wait_error(code);
}

int rwmutex_rlock(gort_rwmutex *m, bool block, const waitopt *o)
{
    lock_if(m);
    if (likely(!m->writer && !m->waiting_writers)) {
        m->readers++;
        unlock_if(m);
        return GORT_OK;
    }
    if (!block) {
        unlock_if(m);
        return GORT_EAGAIN;
    }
    return rw_wait(m, READER, R_RWMUTEX_R, o);
}

int rwmutex_lock(gort_rwmutex *m, bool block, const waitopt *o)
{
    lock_if(m);
    if (likely(!m->writer && !m->readers && !m->q.first)) {
        m->writer = true;
        unlock_if(m);
        return GORT_OK;
    }
    if (!block) {
        unlock_if(m);
        return GORT_EAGAIN;
    }
    return rw_wait(m, WRITER, R_RWMUTEX_W, o);
}

int rwmutex_runlock(gort_rwmutex *m)
{
    lock_if(m);
    if (m->readers == 0) {
        unlock_if(m);
        return GORT_EINVAL;
    }
    m->readers--;
    G *chain = m->readers || !m->q.first ? NULL : rw_admit(m);
    unlock_if(m);
    ready_chain(chain);
    return GORT_OK;
}

int rwmutex_unlock(gort_rwmutex *m)
{
    lock_if(m);
    if (!m->writer) {
        unlock_if(m);
        return GORT_EINVAL;
    }
    m->writer = false;
    G *chain = rw_admit(m);
    unlock_if(m);
    ready_chain(chain);
    return GORT_OK;
}

/* ---- notify list: Cond, join, WaitGroup -------------------------------- */
static G *wake_all(waitq *q)
{
    G *ready, *first = NULL, **last = &first;
    while (q->first) {
        if (waitq_give(q, 0, WC_OK, &ready) && ready) chain_add(&last, ready);
    }
    return first;
}

/* The lock is held (by the caller's lock_if) and released here. */
int notify_wait(gort_notify *n, int reason, const waitopt *o)
{
    sudog s;
    if (!n->shared) fork_check(n);
    return wait_error(wait_on(&n->q, &s, getg_waiter(o->python), &n->lock, n->shared, reason, o, false));
}

/* For join: behind all that is runnable, so that who joins a thousand finds the
 * others ended too, instead of being woken for each. The GIL is held. */
void notify_wake_last(gort_notify *n)
{
    fork_check(n);
    for (G *next, *g = wake_all(&n->q); g; g = next) {
        next = g->link;
        g_ready_last(g);
    }
}

void notify_wake(gort_notify *n, bool all)
{
    G *chain = NULL, *one = NULL;
    lock_if(n);
    if (all) chain = wake_all(&n->q);
    else if (n->q.first) waitq_give(&n->q, 0, WC_OK, &one);
    unlock_if(n);
    if (one) g_ready(one);
    else ready_chain(chain);
}

/* ---- WaitGroup -------------------------------------------------------- */
int wg_add(gort_wg *w, int64_t n)
{
    G *chain = NULL;
    int64_t sum;
    lock_if(w);
    if (__builtin_add_overflow(w->n, n, &sum) || sum < 0) {
        unlock_if(w);
        return GORT_EINVAL;
    }
    w->n = sum;
    if (sum == 0 && w->q.first) chain = wake_all(&w->q);
    unlock_if(w);
    ready_chain(chain);
    return GORT_OK;
}

int wg_wait(gort_wg *w, const waitopt *o)
{
    lock_if(w);
    if (w->n == 0) {
        unlock_if(w);
        return GORT_OK;
    }
    sudog s;
    return wait_error(wait_on(&w->q, &s, getg_waiter(o->python), &w->lock, w->shared, R_WAITGROUP | durable_if(w->bubble), o, false));
}

gort_wg *gort_wg_new(void)
{
    gort_wg *w = os_malloc(sizeof *w);
    if (!w) return NULL;
    memset(w, 0, sizeof *w);
    w->shared = true;
    return w;
}
void gort_wg_free(gort_wg *w)
{   /* the last gort_wg_done() may still be in its unlock */
    if (!w) return;
    lock_if(w);
    unlock_if(w);
    free(w);
}
int gort_wg_add(gort_wg *w, int64_t n) { return wg_add(w, n); }
int gort_wg_done(gort_wg *w) { return wg_add(w, -1); }
int gort_wg_wait(gort_wg *w) { return wg_wait(w, &wait_forever_native); }

/* ---- weighted semaphore ------------------------------------------------ */
static G *sema_admit(gort_sema *s) /* lock held: FIFO, a big one holds up small ones */
{
    G *first = NULL, **last = &first;
    for (sudog *w; (w = s->q.first) && s->size - s->cur >= w->n;) {
        G *g = w->g;
        int64_t n = w->n;
        waitq_remove(w);
        int r = wait_claim(g, w->ticket, WC_OK, 0);
        if (!r) continue;
        s->cur += n;
        if (r == 2) chain_add(&last, g);
    }
    return first;
}

int sema_acquire(gort_sema *s, int64_t n, bool block, const waitopt *o)
{
    lock_if(s);
    if (likely(s->size - s->cur >= n && !s->q.first)) {
        s->cur += n;
        unlock_if(s);
        return GORT_OK;
    }
    if (!block) {
        unlock_if(s);
        return GORT_EAGAIN;
    }
    if (n > s->size) { /* can never be: wait for its end, hold up nobody */
        unlock_if(s);
        return chan_nil_wait(R_SEMAPHORE | durable_if(s->bubble), o);
    }
    sudog w;
    w.n = n;
    int code = wait_on(&s->q, &w, getg_waiter(o->python), &s->lock, s->shared, R_SEMAPHORE | durable_if(s->bubble), o, false);
    if (code == WC_OK) return GORT_OK;
    lock_if(s); /* those behind us may fit */
    G *chain = sema_admit(s);
    unlock_if(s);
    ready_chain(chain);
    return wait_error(code);
}

int sema_release(gort_sema *s, int64_t n)
{
    lock_if(s);
    if (n > s->cur) {
        unlock_if(s);
        return GORT_EINVAL;
    }
    s->cur -= n;
    G *chain = s->q.first ? sema_admit(s) : NULL;
    unlock_if(s);
    ready_chain(chain);
    return GORT_OK;
}
