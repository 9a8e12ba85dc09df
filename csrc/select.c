/* select.c - wait on several channels at once, after Go's select.go.
 *
 * 1. Lock all channels, in address order (unshared ones need no lock).
 * 2. Look for a ready case in random order; all orders are equally likely, so
 *    the choice is uniform among the ready ones.
 * 3. None: put a sudog on every channel's queue, all with one ticket, unlock,
 *    park. Whoever completes a case claims the ticket with the case's index.
 * 4. Woken: lock again, take the losers' sudogs back.
 * A channel may stand in several cases, as sender and receiver too: while it is
 * locked by us nobody can pair us with ourselves, and afterwards a claim of our
 * own ticket by ourselves is impossible, for we are parked.
 */
#include "runtime.h"

#include <stdlib.h>

#define SMALL 8

typedef struct order { uint16_t lock, poll; } order;

/* Cases of one channel are queued in random order too, or a waiting select would
 * always be woken by the first of them (Go's lockorder starts as its pollorder). */
static void lock_as_polled(order *o, int n)
{
    for (int i = 0; i < n; i++) o[i].lock = o[i].poll;
}

static void sort_by_address(const scase *sc, order *o, int n)
{   /* heap sort for large ones as in Go; insertion below that */
    if (n <= 16) {
        for (int i = 1; i < n; i++) {
            uint16_t k = o[i].lock;
            int j = i;
            for (; j > 0 && sc[o[j - 1].lock].c > sc[k].c; j--) o[j].lock = o[j - 1].lock;
            o[j].lock = k;
        }
        return;
    }
    for (int end = n, start = n / 2; end > 1;) {
        if (start > 0) start--;
        else {
            end--;
            uint16_t t = o[end].lock;
            o[end].lock = o[0].lock;
            o[0].lock = t;
        }
        int root = start;
        for (int c; (c = 2 * root + 1) < end; root = c) {
            if (c + 1 < end && sc[o[c].lock].c < sc[o[c + 1].lock].c) c++;
            if (sc[o[root].lock].c >= sc[o[c].lock].c) break;
            uint16_t t = o[root].lock;
            o[root].lock = o[c].lock;
            o[c].lock = t;
        }
    }
}

static void lock_all(const scase *sc, const order *o, int n)
{
    gort_chan *last = NULL;
    for (int i = 0; i < n; i++) {
        gort_chan *c = sc[o[i].lock].c;
        if (c != last) lock_if(c);
        last = c;
    }
}

static void unlock_all(const scase *sc, const order *o, int n)
{
    for (int i = n - 1; i >= 0; i--) {
        gort_chan *c = sc[o[i].lock].c;
        if (i > 0 && sc[o[i - 1].lock].c == c) continue;
        unlock_if(c);
    }
}

/* 0: not ready; 1: done; *ok = 0: its channel is closed. The channel is locked. */
static int try_case(const scase *k, uint64_t *val, int *ok, G **ready)
{
    int r = k->dir == GORT_RECV ? chan_recv_locked(k->c, val, ready) : chan_send_locked(k->c, k->val, ready);
    *ok = r == GORT_OK;
    return r != GORT_EAGAIN;
}

/* No case is ready and all channels are locked: wait. Returns as select_go. */
static int select_wait(const scase *cases, order *ord, int n, sudog *sd, const waitopt *o, uint64_t *val, int *ok)
{
    G *g = getg_waiter(o->python);
    uint64_t ticket = wait_begin(g);
    bool durable = true;
    for (int i = 0; i < n; i++) {
        const scase *k = &cases[ord[i].lock];
        sudog *s = &sd[i];
        s->g = g;
        s->ticket = ticket;
        s->index = ord[i].lock;
        s->val = k->val;
        durable &= k->c->bubble != 0;
        waitq_push(k->dir == GORT_RECV ? &k->c->recvq : &k->c->sendq, s);
    }
    unlock_all(cases, ord, n);
    sudog ds;
    if (o->done) wait_done_push(o->done, &ds, g, ticket);
    uint64_t w = wait_park(g, ticket, (n ? R_SELECT : R_SELECT_NONE) | durable_if(durable), o);
    int code = WK_CODE(w), chosen = WK_INDEX(w);
    if (o->done && wait_done_pop(o->done, &ds, w)) code = WC_CTX;
    bool hit = code == WC_OK || code == WC_CLOSED;
    lock_all(cases, ord, n);
    for (int i = 0; i < n; i++) {
        sudog *s = &sd[i];
        if (hit && ord[i].lock == chosen) *val = s->val; /* its claimer dequeued it */
        else if (s->q) waitq_remove(s);
    }
    unlock_all(cases, ord, n);
    if (!hit) return wait_error(code);
    *ok = code == WC_OK;
    if (!*ok || cases[chosen].dir == GORT_SEND) *val = 0;
    return chosen;
}

int select_go(const scase *cases, int n, bool block, const waitopt *o, uint64_t *val, int *ok)
{
    order small_o[SMALL], *ord = small_o;
    sudog small_s[SMALL], *sd = small_s;
    void *mem = NULL;
    if (n > SMALL) {
        if (n > WK_MAXINDEX - 1) return GORT_EINVAL;
        if (!(mem = os_malloc((size_t)n * (sizeof *ord + sizeof *sd)))) return GORT_ENOMEM;
        sd = mem;
        ord = (order *)(void *)(sd + n);
    }
    int live = 0, chosen = GORT_EAGAIN;
    bool shared = false, timed = false;
    for (int i = 0; i < n; i++) { /* random poll order, an inside-out shuffle */
        if (!cases[i].c) continue;
        if (unlikely(cases[i].c->bubble && bubble_foreign(cases[i].c->bubble))) {
            free(mem);
            return GORT_EBUBBLE;
        }
        fork_check(cases[i].c);
        shared |= cases[i].c->shared;
        timed |= cases[i].c->timer;
        uint32_t j = !live ? 0 : unlikely(gort_nseeded) ? bubble_choose((uint32_t)live + 1) : gort_rand((uint32_t)live + 1);
        ord[live].poll = ord[j].poll;
        ord[j].poll = (uint16_t)i;
        live++;
    }
    *ok = 0;
    *val = 0;
    if (unlikely(timed)) timers_poll();
    if (shared) {
        lock_as_polled(ord, live);
        sort_by_address(cases, ord, live);
        lock_all(cases, ord, live);
    }
    G *ready = NULL;
    for (int i = 0; i < live; i++)
        if (try_case(&cases[ord[i].poll], val, ok, &ready)) {
            chosen = ord[i].poll;
            break;
        }
    if (chosen >= 0 || !block) {
        if (shared) unlock_all(cases, ord, live);
        if (ready) g_ready(ready);
    } else {
        if (!shared) lock_as_polled(ord, live);
        chosen = select_wait(cases, ord, live, sd, o, val, ok);
    }
    free(mem);
    return chosen;
}
