/* wait.c - how a G waits and is woken: the wait word, sudogs, wait queues, and the
 * records of plain threads that wait.
 *
 * The protocol stands in runtime.h. A wait queue belongs to its channel, lock or
 * handle and is guarded by that owner's lock (on GIL builds by the GIL, where
 * the owner is not shared); a sudog belongs to its waiter's stack and is on one
 * queue at most.
 *
 * Rejected: Go's way of holding the channel lock until the parking stack is
 * left (unlockf). It needs the lock to survive a stack switch, and a Python
 * thread state's swap may drop the GIL in between.
 */
#include "schedint.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#define LAST_LOOK_NS 10000000

const waitopt wait_forever_native = { .deadline = GORT_FOREVER };

const char *const gort_reasons[R_COUNT_] = {
    [R_NONE] = "", [R_CHAN_RECV] = "chan receive", [R_CHAN_SEND] = "chan send",
    [R_CHAN_RECV_NIL] = "chan receive (nil chan)", [R_CHAN_SEND_NIL] = "chan send (nil chan)",
    [R_SELECT] = "select", [R_SELECT_NONE] = "select (no cases)", [R_SLEEP] = "sleep",
    [R_MUTEX] = "sync.Mutex.Lock", [R_RWMUTEX_R] = "sync.RWMutex.RLock",
    [R_RWMUTEX_W] = "sync.RWMutex.Lock", [R_COND] = "sync.Cond.Wait",
    [R_WAITGROUP] = "sync.WaitGroup.Wait", [R_SEMAPHORE] = "semacquire", [R_JOIN] = "join",
    [R_IO] = "IO wait", [R_SYSTEM] = "system goroutine (idle)",
    [R_BUBBLE_ROOT] = "synctest.Run", [R_BUBBLE_WAIT] = "synctest.Wait",
};

/* ---- who waits ---------------------------------------------------------- */
static __thread G *tls_waiter;
static gmutex waiters_lock;
static G *waiters_free;         /* records of threads that ended; never freed */
static G *waiters_all;          /* every record, by way of arg; waiters_lock */
static pthread_key_t waiter_key;

static void waiter_release(void *p)
{
    G *g = p;
    tls_waiter = NULL; /* a later destructor of this thread may wait again */
    gmutex_lock(&waiters_lock);
    g->link = waiters_free;
    waiters_free = g;
    gmutex_unlock(&waiters_lock);
}
void waiters_init(void) { pthread_key_create(&waiter_key, waiter_release); }

/* The record that waits for a plain OS thread. Late claimers may still look at
 * it when the thread is gone, so records are reused, not freed. */
static NOINLINE G *thread_waiter(void)
{
    G *g = tls_waiter;
    if (likely(g != NULL)) return g;
    gort_init();
    gmutex_lock(&waiters_lock);
    if ((g = waiters_free)) waiters_free = g->link;
    gmutex_unlock(&waiters_lock);
    if (!g) {
        if (!(g = calloc(1, sizeof *g))) gort_fatal("out of memory (a thread's wait record)");
        g->kind = GK_THREAD;
        g->status = G_RUNNING;
        atomic_store(&g->wake, (uint64_t)1 << 24);
        gmutex_lock(&waiters_lock);
        g->arg = waiters_all;
        waiters_all = g;
        gmutex_unlock(&waiters_lock);
    }
    pthread_setspecific(waiter_key, g);
    return tls_waiter = g;
}

/* In a fork's child no thread waits: their records are free again. */
void waiters_fork(int when)
{
    if (when == FORK_BEFORE) gmutex_lock(&waiters_lock);
    else if (when == FORK_PARENT) gmutex_unlock(&waiters_lock);
    if (when != FORK_CHILD) return;
    atomic_store(&waiters_lock.v, 0);
    waiters_free = NULL;
    for (G *g = waiters_all; g; g = g->arg) {
        g->endless = false;
        atomic_store(&g->status, G_RUNNING);
        if (g == tls_waiter) continue;
        g->link = waiters_free;
        waiters_free = g;
    }
}

int64_t waiters_stuck(void)
{
    int64_t n = 0;
    gmutex_lock(&waiters_lock);
    for (G *g = waiters_all; g; g = g->arg) n += g->endless && !WK_CODE(atomic_load(&g->wake));
    gmutex_unlock(&waiters_lock);
    return n;
}

/* With python, the caller holds the GIL: a Python goroutine parks. Without it,
 * it may be C code that a Python goroutine called with the GIL released: then
 * its thread waits, as in any other blocking C call. */
G *getg_waiter(bool python)
{
    M *m = getm();
    /* Python code in a native goroutine's callback is like a thread: its thread state stays here. */
    if (likely(m && m->curg) && m->curg->kind == (python ? GK_PYTHON : GK_NATIVE) &&
        !(unlikely(atomic_load_explicit(&gort_stopped, memory_order_relaxed)) && m->curg->main))
        return m->curg;
    return thread_waiter();
}

/* ---- queues ----------------------------------------------------------- */
void waitq_push(waitq *q, sudog *s)
{
    s->q = q;
    s->next = NULL;
    s->prev = q->last;
    if (q->last) q->last->next = s;
    else q->first = s;
    q->last = s;
}

void waitq_push_front(waitq *q, sudog *s)
{
    s->q = q;
    s->prev = NULL;
    s->next = q->first;
    if (q->first) q->first->prev = s;
    else q->last = s;
    q->first = s;
}

void waitq_remove(sudog *s)
{
    waitq *q = s->q;
    if (s->prev) s->prev->next = s->next;
    else q->first = s->next;
    if (s->next) s->next->prev = s->prev;
    else q->last = s->prev;
    s->q = NULL;
}

bool waitq_give(waitq *q, uint64_t v, int code, G **ready)
{
    for (sudog *s; (s = q->first);) {
        G *g = s->g;
        waitq_remove(s);
        s->val = v;
        int r = wait_claim(g, s->ticket, code, s->index); /* s is gone if it is won */
        if (likely(r)) {
            *ready = r == 2 ? g : NULL;
            return true;
        }
    }
    return false;
}

bool waitq_take(waitq *q, uint64_t *v, int code, G **ready)
{
    for (sudog *s; (s = q->first);) {
        G *g = s->g;
        waitq_remove(s);
        uint64_t val = s->val;
        int r = wait_claim(g, s->ticket, code, s->index);
        if (likely(r)) {
            *v = val;
            *ready = r == 2 ? g : NULL;
            return true;
        }
    }
    return false;
}

/* ---- the wait word ---------------------------------------------------- */
uint64_t wait_begin(G *g)
{
    uint64_t w = WK_SEQ(atomic_load_explicit(&g->wake, memory_order_relaxed)) + ((uint64_t)1 << 24);
    atomic_store_explicit(&g->wake, w, memory_order_relaxed);
    return w;
}

int wait_claim(G *g, uint64_t ticket, int code, int index)
{
    uint64_t w = atomic_load_explicit(&g->wake, memory_order_relaxed);
    do {
        if ((w & ~(uint64_t)WK_PARKED) != ticket) return 0;
    } while (!atomic_compare_exchange_weak_explicit(&g->wake, &w,
                                                    WK_MAKE(ticket, code, index) | (w & WK_PARKED),
                                                    memory_order_acq_rel, memory_order_relaxed));
    if (!(w & WK_PARKED)) return 1;
    if (unlikely(g->durable)) atomic_fetch_add(&g->bubble->running, 1);
    return 2;
}

bool wait_interrupt(G *g, int code)
{
    uint64_t w = atomic_load_explicit(&g->wake, memory_order_relaxed);
    if (WK_CODE(w)) return false;
    uint8_t st = atomic_load_explicit(&g->status, memory_order_relaxed);
    return st == G_WAITING && wait_wake(g, WK_SEQ(w), code, 0);
}

static void fire_timeout(void *arg, uint64_t seq, int64_t now)
{
    (void)now;
    wait_wake(arg, seq, WC_TIMEOUT, 0);
}

static int64_t clamp_wait(int64_t deadline)
{
    int64_t left = deadline - gort_now_ns();
    return left < 0 ? 0 : left;
}

/* At the end of the program only a native goroutine can wake the main one. */
static bool last_one(void)
{
    M *m = getm();
    return m && m->curg == gort_main_g;
}

static uint64_t thread_park(G *g, uint64_t ticket, const waitopt *o)
{
    uint64_t w = atomic_load_explicit(&g->wake, memory_order_acquire);
    if (WK_CODE(w)) return w;
    g->endless = o->python && o->deadline == GORT_FOREVER;
    void *save = o->python ? gort_py->release() : NULL;
    /* PARKED tells the claimer that there is somebody to be woken by a futex. */
    w = atomic_fetch_or_explicit(&g->wake, WK_PARKED, memory_order_acq_rel) | WK_PARKED;
    while (!WK_CODE(w)) {
        int64_t left = o->deadline == GORT_FOREVER ? -1 : clamp_wait(o->deadline);
        if (left < 0 && unlikely(atomic_load(&gort_stopped)) && last_one()) {
            if (!sched_busy(&gort_native, NULL) && g->reason != R_IO) wait_claim(g, ticket, WC_DEADLOCK, 0);
            else os_futex_wait((_Atomic uint32_t *)(void *)&g->wake, (uint32_t)w, LAST_LOOK_NS);
        } else if (left == 0 ||
            (os_futex_wait((_Atomic uint32_t *)(void *)&g->wake, (uint32_t)w, left) < 0 &&
             errno == ETIMEDOUT))
            wait_claim(g, ticket, WC_TIMEOUT, 0);
        w = atomic_load_explicit(&g->wake, memory_order_acquire);
    }
    if (o->python) gort_py->acquire(save);
    g->endless = false;
    return w;
}

void sched_park(G *g); /* sched.c: leave g's stack, to be committed by C_PARK */

uint64_t wait_park(G *g, uint64_t ticket, int reason, const waitopt *o)
{
    g->reason = (uint8_t)(reason & ~R_DURABLE);
    if (unlikely(g->bubble != NULL)) bubble_mark(g, reason, o);
    g->wait_since = atomic_load_explicit(&gort_coarse_ns, memory_order_relaxed);
    atomic_store_explicit(&g->status, G_WAITING, memory_order_relaxed);
    if (g->kind == GK_THREAD) {
        uint64_t w = thread_park(g, ticket, o);
        atomic_store_explicit(&g->status, G_RUNNING, memory_order_relaxed);
        return w;
    }
    timer t;
    t.tm = NULL;
    if (unlikely(g->kill_pending)) {
        wait_claim(g, ticket, WC_KILL, 0);
    } else if (o->deadline != GORT_FOREVER) {
        t.fn = fire_timeout;
        t.arg = g;
        t.seq = ticket;
        t.kind = TK_WAIT;
        t.inherited = false;
        t.period = 0;
        if (timer_add(&t, timer_home(false), o->deadline) != 0) wait_claim(g, ticket, WC_NOMEM, 0);
    }
    if (unlikely(g->main) && (atomic_load(&gort_main_intr) || gort_py->signals())) wait_claim(g, ticket, WC_INTR, 0);
    sched_park(g);
    uint64_t w = atomic_load_explicit(&g->wake, memory_order_acquire);
    if (t.tm && WK_CODE(w) != WC_TIMEOUT) timer_del(&t);
    return w;
}

int wait_error(int code)
{
    switch (code) {
    case WC_OK: return GORT_OK;
    case WC_CLOSED: return GORT_ECLOSED;
    case WC_TIMEOUT: return GORT_ETIMEDOUT;
    case WC_KILL: return GORT_EKILLED;
    case WC_DEADLOCK: return GORT_EDEADLOCK;
    case WC_INTR: return GORT_EINTR;
    case WC_CTX: return GORT_ECTX;
    case WC_NOMEM: return GORT_ENOMEM;
    }
    gort_throw("wait_error: bad wake code");
}

/* ---- a context's done channel: ends a wait beside its own event -------- */
void wait_done_push(gort_chan *done, sudog *ds, G *g, uint64_t ticket)
{
    gort_chan_ref(done); /* until wait_done_pop */
    ds->q = NULL;
    ds->g = g;
    ds->ticket = ticket;
    ds->index = WK_DONE;
    lock_if(done);
    if (done->closed) wait_claim(g, ticket, WC_CTX, WK_DONE);
    else waitq_push(&done->recvq, ds);
    unlock_if(done);
}

bool wait_done_pop(gort_chan *done, sudog *ds, uint64_t w)
{
    lock_if(done);
    if (ds->q) waitq_remove(ds);
    unlock_if(done);
    gort_chan_unref(done);
    return WK_INDEX(w) == WK_DONE;
}

int wait_on(waitq *q, sudog *s, G *g, gmutex *l, bool shared, int reason, const waitopt *o, bool front)
{
    uint64_t ticket = wait_begin(g);
    s->g = g;
    s->ticket = ticket;
    s->index = 0;
    if (front) waitq_push_front(q, s);
    else waitq_push(q, s);
    if (shared) gmutex_unlock(l);
    sudog ds;
    if (unlikely(o->done != NULL)) wait_done_push(o->done, &ds, g, ticket);
    uint64_t w = wait_park(g, ticket, reason, o);
    int code = WK_CODE(w);
    if (unlikely(o->done != NULL) && wait_done_pop(o->done, &ds, w)) code = WC_CTX;
    if (code == WC_OK || code == WC_CLOSED) return code; /* the claimer dequeued s */
    if (shared) gmutex_lock(l);
    if (s->q) waitq_remove(s);
    if (shared) gmutex_unlock(l);
    return code;
}
