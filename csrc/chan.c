/* chan.c - channels, after Go's chan.go (hchan, direct hand-off, close).
 *
 * Invariants, under the channel's lock (shared channels) or the GIL:
 *   at least one of sendq and recvq holds no waiter that is still unclaimed,
 *     but for one G that waits in both by select;
 *   for cap > 0: count > 0 means recvq has none, count < cap means sendq has none.
 * Elements are words: an object reference (owned by the channel while it is in
 * the buffer), or a raw value; the u8 buffer keeps a byte each.
 *
 * A waiting sender leaves its element in its sudog, a waiting receiver finds it
 * there; both sides touch it under the lock before the claim, so neither looks
 * at the other's stack afterwards. `closed` and `count` are also read without
 * the lock for the fast paths that must not wait; those reads are single words.
 */
#include "runtime.h"

#include <stdlib.h>
#include <string.h>

#define CAP_LIMIT ((size_t)1 << 47) /* bytes: more than an address space has */

static inline uint64_t buf_get(gort_chan *c, size_t i)
{
    return c->dtype == GORT_U8 ? ((uint8_t *)c->buf)[i] : ((uint64_t *)c->buf)[i];
}
static inline void buf_set(gort_chan *c, size_t i, uint64_t v)
{
    if (c->dtype == GORT_U8) ((uint8_t *)c->buf)[i] = (uint8_t)v;
    else ((uint64_t *)c->buf)[i] = v;
}
static inline size_t next_i(gort_chan *c, size_t i) { return i + 1 == c->cap ? 0 : i + 1; }

gort_chan *gort_chan_new(int dtype, size_t cap)
{
    if (dtype < GORT_OBJ || dtype > GORT_PTR || cap > CAP_LIMIT / 8) return NULL;
    gort_chan *c = os_malloc(sizeof *c);
    if (!c) return NULL;
    memset(c, 0, sizeof *c);
    c->dtype = (uint8_t)dtype;
    /* Objects need the GIL at every touch; it is their channel's lock. */
    c->shared = dtype != GORT_OBJ;
    c->cap = cap;
    atomic_init(&c->refs, 1);
    atomic_init(&c->gen, gort_fork_gen);
    if (cap && !(c->buf = os_fail(OS_FAIL_MALLOC) ? NULL : calloc(cap, gort_chan_elemsize(c)))) {
        free(c);
        return NULL;
    }
    return c;
}

void gort_chan_ref(gort_chan *c) { atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed); }

void gort_chan_unref(gort_chan *c)
{
    if (!c || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1) return;
    lock_if(c); /* whose send or close we got may still be in its unlock */
    unlock_if(c);
    free(c->buf);
    free(c);
}

size_t gort_chan_elemsize(const gort_chan *c) { return c->dtype == GORT_U8 ? 1 : 8; }
size_t gort_chan_cap(const gort_chan *c) { return c && !c->timer ? c->cap : 0; }

size_t gort_chan_len(gort_chan *c)
{
    if (!c || c->timer) return 0; /* a timer's channel looks unbuffered, Go 1.23 */
    lock_if(c);
    size_t n = c->count;
    unlock_if(c);
    return n;
}

int chan_nil_wait(int reason, const waitopt *o)
{
    waitq q = {0};
    sudog s = {0};
    return wait_error(wait_on(&q, &s, getg_waiter(o->python), NULL, false, reason, o, false));
}

/* Send without waiting; the lock is held. *ready: to be readied after unlocking. */
int chan_send_locked(gort_chan *c, uint64_t v, G **ready)
{
    if (unlikely(c->closed)) return GORT_ECLOSED;
    if (c->recvq.first && waitq_give(&c->recvq, v, WC_OK, ready)) return GORT_OK;
    if (c->count == c->cap) return GORT_EAGAIN;
    buf_set(c, c->sendx, v);
    c->sendx = next_i(c, c->sendx);
    c->count++;
    return GORT_OK;
}

/* Receive without waiting; likewise. GORT_ECLOSED comes with *v = 0. */
int chan_recv_locked(gort_chan *c, uint64_t *v, G **ready)
{
    uint64_t w;
    if (c->count > 0) {
        *v = buf_get(c, c->recvx);
        c->recvx = next_i(c, c->recvx);
        if (c->sendq.first && waitq_take(&c->sendq, &w, WC_OK, ready)) {
            /* it was full, so the waiting sender's element goes where ours was */
            buf_set(c, c->sendx, w);
            c->sendx = next_i(c, c->sendx);
        } else {
            c->count--;
        }
        return GORT_OK;
    }
    if (c->sendq.first && waitq_take(&c->sendq, v, WC_OK, ready)) return GORT_OK;
    if (!c->closed) return GORT_EAGAIN;
    *v = 0;
    return GORT_ECLOSED;
}

int chan_send(gort_chan *c, uint64_t v, bool block, const waitopt *o)
{
    if (unlikely(!c)) return block ? chan_nil_wait(R_CHAN_SEND_NIL | R_DURABLE, o) : GORT_EAGAIN;
    if (unlikely(c->bubble && bubble_foreign(c->bubble))) return GORT_EBUBBLE;
    G *ready = NULL;
    lock_if(c);
    int r = chan_send_locked(c, v, &ready);
    if (r != GORT_EAGAIN || !block) {
        unlock_if(c);
        if (ready) g_ready(ready);
        return r;
    }
    sudog s;
    s.val = v;
    return wait_error(wait_on(&c->sendq, &s, getg_waiter(o->python), &c->lock, c->shared,
                              R_CHAN_SEND | durable_if(c->bubble), o, false));
}

int chan_recv(gort_chan *c, uint64_t *v, bool block, const waitopt *o)
{
    if (unlikely(!c)) return block ? chan_nil_wait(R_CHAN_RECV_NIL | R_DURABLE, o) : GORT_EAGAIN;
    if (unlikely(c->bubble && bubble_foreign(c->bubble))) return GORT_EBUBBLE;
    if (!block && c->timer) timers_poll();
    G *ready = NULL;
    lock_if(c);
    int r = chan_recv_locked(c, v, &ready);
    if (r != GORT_EAGAIN || !block) {
        unlock_if(c);
        if (ready) g_ready(ready);
        return r;
    }
    sudog s;
    s.val = 0;
    int code = wait_on(&c->recvq, &s, getg_waiter(o->python), &c->lock, c->shared,
                       R_CHAN_RECV | durable_if(c->bubble), o, false);
    *v = code == WC_OK ? s.val : 0;
    return wait_error(code);
}

int gort_chan_close(gort_chan *c)
{
    if (!c) return GORT_ECLOSED;
    if (unlikely(c->bubble && bubble_foreign(c->bubble))) return GORT_EBUBBLE;
    return chan_close(c);
}

int chan_close(gort_chan *c)
{
    lock_if(c);
    if (c->closed) {
        unlock_if(c);
        return GORT_ECLOSED;
    }
    c->closed = 1;
    /* All waiters are claimed under the lock and readied after it. A claimed G
     * is on no queue, so its link is free to chain them. */
    G *ready, *first = NULL, **last = &first;
    while (c->recvq.first || c->sendq.first) {
        uint64_t v;
        bool got = c->recvq.first ? waitq_give(&c->recvq, 0, WC_CLOSED, &ready)
                                  : waitq_take(&c->sendq, &v, WC_CLOSED, &ready);
        if (got && ready) chain_add(&last, ready);
    }
    unlock_if(c);
    for (G *next; first; first = next) {
        next = first->link;
        g_ready(first);
    }
    return GORT_OK;
}

/* ---- the public interface: elements by address ------------------------- */
static uint64_t load_elem(gort_chan *c, const void *e)
{
    uint64_t v = 0;
    if (c) memcpy(&v, e, gort_chan_elemsize(c));
    return v;
}
static void store_elem(gort_chan *c, void *e, uint64_t v)
{
    if (c && e) memcpy(e, &v, gort_chan_elemsize(c));
}
static waitopt opt_after(int64_t ns)
{
    waitopt o = { .deadline = GORT_FOREVER };
    int64_t now;
    if (ns != GORT_FOREVER && ns > 0 && (now = gort_now_ns()) < GORT_FOREVER - ns) o.deadline = now + ns;
    return o;
}

int gort_chan_send(gort_chan *c, const void *e)
{
    return chan_send(c, load_elem(c, e), true, &wait_forever_native);
}
int gort_chan_recv(gort_chan *c, void *e)
{
    uint64_t v = 0;
    int r = chan_recv(c, &v, true, &wait_forever_native);
    if (r == GORT_OK || r == GORT_ECLOSED) store_elem(c, e, v);
    return r;
}
int gort_chan_send_timeout(gort_chan *c, const void *e, int64_t ns)
{
    waitopt o = opt_after(ns);
    return chan_send(c, load_elem(c, e), ns > 0, &o);
}
int gort_chan_recv_timeout(gort_chan *c, void *e, int64_t ns)
{
    waitopt o = opt_after(ns);
    uint64_t v = 0;
    int r = chan_recv(c, &v, ns > 0, &o);
    if (r == GORT_OK || r == GORT_ECLOSED) store_elem(c, e, v);
    return r;
}
int gort_chan_try_send(gort_chan *c, const void *e) { return gort_chan_send_timeout(c, e, 0); }
int gort_chan_try_recv(gort_chan *c, void *e) { return gort_chan_recv_timeout(c, e, 0); }

int gort_select(gort_case *cases, int n, int64_t timeout_ns)
{
    if (n < 0 || n > WK_MAXINDEX) return GORT_EINVAL;
    for (int i = 0; i < n; i++)
        if (cases[i].dir != GORT_RECV && cases[i].dir != GORT_SEND) return GORT_EINVAL;
    scase small[8], *sc = small;
    if (n > 8 && !(sc = os_malloc((size_t)n * sizeof *sc))) return GORT_ENOMEM;
    for (int i = 0; i < n; i++) {
        sc[i].c = cases[i].c;
        sc[i].dir = (uint8_t)cases[i].dir;
        sc[i].val = cases[i].dir == GORT_SEND ? load_elem(cases[i].c, cases[i].elem) : 0;
    }
    waitopt o = opt_after(timeout_ns);
    uint64_t v = 0;
    int ok = 0;
    int i = select_go(sc, n, timeout_ns > 0, &o, &v, &ok);
    if (i >= 0) {
        cases[i].ok = ok;
        if (cases[i].dir == GORT_RECV) store_elem(cases[i].c, cases[i].elem, v);
    }
    if (sc != small) free(sc);
    return i;
}
