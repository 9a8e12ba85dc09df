/* test_litmus.c - docs/memory_model.md, the C side: what happens before what.
 *
 * Plain data, written without an atomic, is handed over through each primitive and
 * read on the other side, in real parallelism: goroutines among themselves, and
 * with plain threads. A wrong value is a failure anywhere; a missing edge is one
 * under ThreadSanitizer (`make tsan CTESTS=build/tsan/ctest/test_litmus`).
 */
#include "ctest.h"

enum { WORDS = 16 }; /* more than a cache line holds */
typedef struct data { uint64_t w[WORDS]; } data;

static void put(data *d, uint64_t v)
{
    for (int i = 0; i < WORDS; i++) d->w[i] = v + (uint64_t)i;
}
static void see(const data *d, uint64_t v)
{
    for (int i = 0; i < WORDS; i++) CHECK_EQ(d->w[i], v + (uint64_t)i);
}

/* Who plays the two sides: goroutines or plain threads. */
static const struct { bool a, b; } kinds[] = { { false, false }, { false, true }, { true, false }, { true, true } };

enum { BY_RECV, BY_TRY, BY_TIMEOUT, BY_SELECT, HOWS };
typedef struct pair {
    gort_chan *c, *back;                /* what it goes through, and what comes back */
    data d, answer;
    int64_t rounds;
    int how;
} pair;

static void both(void (*a)(void *), void (*b)(void *), void *arg)
{
    pair *p = arg;
    for (size_t k = 0; k < COUNT(kinds); k++) {
        p->rounds = scaled(kinds[k].a || kinds[k].b || p->how == BY_TRY ? 200 : 2000, 20);
        gort_wg *wg = group();
        start(wg, kinds[k].a, a, arg);
        start(wg, kinds[k].b, b, arg);
        finish(wg);
    }
}

/* ---- go -------------------------------------------------------------------------- */
typedef struct birth { data d; uint64_t v; gort_wg *wg; int depth; } birth;
static void born(void *p)
{
    birth *b = p;
    see(&b->d, b->v);
    put(&b->d, b->v + 1);
    if (b->depth-- > 0) CHECK_OK(gort_go(born, (b->v++, b)));
    else gort_wg_done(b->wg);
}
static void test_what_was_written_before_go_is_seen_by_the_goroutine(void)
{
    enum { N = 64 };
    static birth b[N];
    for (int64_t n = scaled(100, 10); n > 0; n--) {
        gort_wg *wg = group();
        CHECK_OK(gort_wg_add(wg, N));
        for (int i = 0; i < N; i++) {
            b[i] = (birth){ .v = (uint64_t)(n * N + i), .wg = wg, .depth = 3 };
            put(&b[i].d, b[i].v);
            go(born, &b[i]);
        }
        finish(wg);
        for (int i = 0; i < N; i++) see(&b[i].d, b[i].v + 1); /* and its end by the wait */
    }
}

/* ---- channels: a send before its receive, and the way back ------------------------- */
static void send_by(gort_chan *c, int64_t v, int how)
{
    int r;
    switch (how) {
    case BY_RECV: CHECK_OK(gort_chan_send(c, &v)); break;
    case BY_TRY:
        while ((r = gort_chan_try_send(c, &v)) == GORT_EAGAIN) gort_yield();
        CHECK_OK(r);
        break;
    case BY_TIMEOUT:
        while ((r = gort_chan_send_timeout(c, &v, 100000)) == GORT_ETIMEDOUT) { }
        CHECK_OK(r);
        break;
    default: {
        gort_chan *never = gort_chan_new(GORT_I64, 0);
        gort_case k[] = { { never, GORT_RECV, NULL, 0 }, { c, GORT_SEND, &v, 0 } };
        CHECK_EQ(gort_select(k, 2, GORT_FOREVER), 1);
        CHECK_EQ(k[1].ok, 1);
        gort_chan_unref(never);
    } }
}
static int64_t recv_by(gort_chan *c, int how)
{
    int64_t v = -1;
    int r;
    switch (how) {
    case BY_RECV: CHECK_OK(gort_chan_recv(c, &v)); break;
    case BY_TRY:
        while ((r = gort_chan_try_recv(c, &v)) == GORT_EAGAIN) gort_yield();
        CHECK_OK(r);
        break;
    case BY_TIMEOUT:
        while ((r = gort_chan_recv_timeout(c, &v, 100000)) == GORT_ETIMEDOUT) { }
        CHECK_OK(r);
        break;
    default: {
        gort_chan *never = gort_chan_new(GORT_I64, 0);
        gort_case k[] = { { c, GORT_RECV, &v, 0 }, { never, GORT_RECV, NULL, 0 } };
        CHECK_EQ(gort_select(k, 2, GORT_FOREVER), 0);
        CHECK_EQ(k[0].ok, 1);
        gort_chan_unref(never);
    } }
    return v;
}

/* Message passing, and an answer by the same rule. */
static void mp_send(void *arg)
{
    pair *p = arg;
    for (int64_t i = 0; i < p->rounds; i++) {
        put(&p->d, (uint64_t)i);
        send_by(p->c, i, p->how);
        CHECK_EQ(recv_by(p->back, p->how), i);
        see(&p->answer, (uint64_t)i * 3);
    }
}
static void mp_recv(void *arg)
{
    pair *p = arg;
    for (int64_t i = 0; i < p->rounds; i++) {
        CHECK_EQ(recv_by(p->c, p->how), i);
        see(&p->d, (uint64_t)i);
        put(&p->answer, (uint64_t)i * 3);
        send_by(p->back, i, p->how);
    }
}
static void test_a_send_happens_before_its_receive_returns(void)
{
    for (size_t cap = 0; cap < 3; cap++)
        for (int how = 0; how < HOWS; how++) {
            if (how == BY_TRY && cap == 0) continue; /* two that only try do not meet */
            pair p = { .c = gort_chan_new(GORT_I64, cap), .back = gort_chan_new(GORT_I64, cap), .how = how };
            both(mp_send, mp_recv, &p);
            gort_chan_unref(p.c);
            gort_chan_unref(p.back);
        }
}

/* Unbuffered: what the receiver did before its receive is seen after the send. */
static void back_send(void *arg)
{
    pair *p = arg;
    for (int64_t i = 0; i < p->rounds; i++) {
        send_by(p->c, i, p->how);
        see(&p->d, (uint64_t)i);
        send_by(p->c, i, p->how); /* done reading */
    }
}
static void back_recv(void *arg)
{
    pair *p = arg;
    for (int64_t i = 0; i < p->rounds; i++) {
        put(&p->d, (uint64_t)i);
        CHECK_EQ(recv_by(p->c, p->how), i);
        CHECK_EQ(recv_by(p->c, p->how), i);
    }
}
static void test_an_unbuffered_receive_happens_before_the_send_returns(void)
{
    for (int how = 0; how < HOWS; how++) {
        if (how == BY_TRY) continue;
        pair p = { .c = gort_chan_new(GORT_I64, 0), .how = how };
        both(back_send, back_recv, &p);
        gort_chan_unref(p.c);
    }
}

/* The k-th receive from a channel of capacity C happens before the (k+C)-th send
 * returns: slots of a ring, handed out by sends and back by receives. */
enum { RING = 4 };
typedef struct ring { gort_chan *c; data slot[RING + 1]; int64_t rounds; } ring;
static void ring_send(void *arg)
{   /* slot i is free again once send i - 1 has returned: the (i - 1 - RING)-th receive came first */
    ring *r = arg;
    for (int64_t i = 0; i < r->rounds; i++) {
        put(&r->slot[i % (RING + 1)], (uint64_t)i);
        CHECK_OK(gort_chan_send(r->c, &i));
    }
}
static void ring_recv(void *arg)
{   /* reads slot i - 1 after receive i - 1 and before receive i */
    ring *r = arg;
    int64_t v;
    CHECK_OK(gort_chan_recv(r->c, &v));
    for (int64_t i = 1; i < r->rounds; i++) {
        CHECK_EQ(v, i - 1);
        see(&r->slot[v % (RING + 1)], (uint64_t)v);
        CHECK_OK(gort_chan_recv(r->c, &v));
    }
}
static void test_the_kth_receive_happens_before_send_k_plus_c_returns(void)
{
    for (size_t k = 0; k < COUNT(kinds); k++) {
        ring r = { .c = gort_chan_new(GORT_I64, RING - 1), .rounds = scaled(kinds[k].a || kinds[k].b ? 2000 : 20000, 500) };
        gort_wg *wg = group();
        start(wg, kinds[k].a, ring_send, &r);
        start(wg, kinds[k].b, ring_recv, &r);
        finish(wg);
        gort_chan_unref(r.c);
    }
}

/* A channel of capacity C as a semaphore: with 1, a lock. */
typedef struct guarded { gort_chan *c; gort_mutex mu; gort_rwmutex rw; gort_sema sem; data d; int64_t n, rounds; int how; } guarded;
enum { G_CHAN, G_MUTEX, G_RWMUTEX, G_SEMA, GUARDS };
static void guard_in(guarded *g)
{
    int64_t one = 1;
    switch (g->how) {
    case G_CHAN: CHECK_OK(gort_chan_send(g->c, &one)); break;
    case G_MUTEX: CHECK_OK(mutex_lock(&g->mu, true, &wait_forever_native)); break;
    case G_RWMUTEX: CHECK_OK(rwmutex_lock(&g->rw, true, &wait_forever_native)); break;
    default: CHECK_OK(sema_acquire(&g->sem, 2, true, &wait_forever_native));
    }
}
static void guard_out(guarded *g)
{
    int64_t v;
    switch (g->how) {
    case G_CHAN: CHECK_OK(gort_chan_recv(g->c, &v)); break;
    case G_MUTEX: CHECK_OK(mutex_unlock(&g->mu)); break;
    case G_RWMUTEX: CHECK_OK(rwmutex_unlock(&g->rw)); break;
    default: CHECK_OK(sema_release(&g->sem, 2));
    }
}
static void guard_count(void *arg)
{
    guarded *g = arg;
    for (int64_t i = 0; i < g->rounds; i++) {
        guard_in(g);
        see(&g->d, (uint64_t)g->n);
        put(&g->d, (uint64_t)++g->n);
        if (i % 16 == 0) gort_yield();
        guard_out(g);
    }
}
static void guard_read(void *arg)
{   /* readers of the RWMutex among each other, writers kept out */
    guarded *g = arg;
    for (int64_t i = 0; i < g->rounds; i++) {
        CHECK_OK(rwmutex_rlock(&g->rw, true, &wait_forever_native));
        see(&g->d, (uint64_t)g->n);
        CHECK_OK(rwmutex_runlock(&g->rw));
    }
}
static void test_what_a_lock_guards_needs_no_atomics(void)
{
    for (int how = 0; how < GUARDS; how++) {
        guarded g = { .c = gort_chan_new(GORT_I64, 1), .how = how, .rounds = scaled(500, 50) };
        g.mu.shared = g.rw.shared = g.sem.shared = true;
        g.sem.size = 2;
        put(&g.d, 0);
        gort_wg *wg = group();
        for (int i = 0; i < 4; i++) start(wg, i == 3, guard_count, &g);
        if (how == G_RWMUTEX)
            for (int i = 0; i < 3; i++) start(wg, i == 2, guard_read, &g);
        finish(wg);
        CHECK_EQ(g.n, 4 * g.rounds);
        see(&g.d, (uint64_t)g.n);
        gort_chan_unref(g.c);
    }
}

/* ---- close ---------------------------------------------------------------------------- */
typedef struct ending { gort_chan *c; data d; uint64_t v; int how; } ending;
static void close_it(void *arg)
{
    ending *e = arg;
    put(&e->d, e->v);
    CHECK_OK(gort_chan_close(e->c));
}
static void see_closed(void *arg)
{
    ending *e = arg;
    int64_t v;
    int r;
    if (e->how == BY_TRY) {
        while ((r = gort_chan_try_recv(e->c, &v)) == GORT_EAGAIN) gort_yield();
        CHECK_EQ(r, GORT_ECLOSED);
    } else if (e->how == BY_SELECT) {
        gort_case k[] = { { NULL, GORT_RECV, NULL, 0 }, { e->c, GORT_RECV, &v, 1 } };
        CHECK_EQ(gort_select(k, 2, GORT_FOREVER), 1);
        CHECK_EQ(k[1].ok, 0);
    } else {
        CHECK_EQ(gort_chan_recv(e->c, &v), GORT_ECLOSED);
    }
    see(&e->d, e->v);
}
static void test_a_close_happens_before_a_receive_that_says_so(void)
{
    for (int64_t n = scaled(600, 60); n > 0; n--) {
        bool threads = n % 10 == 0;
        ending e = { .c = gort_chan_new(GORT_I64, n % 3), .v = (uint64_t)n, .how = (int)(n % HOWS) };
        gort_wg *wg = group();
        for (int i = 0; i < 3; i++) start(wg, threads && i == 0, see_closed, &e);
        start(wg, threads && n % 20 == 0, close_it, &e);
        finish(wg);
        gort_chan_unref(e.c);
    }
}

/* ---- wait groups and joins ---------------------------------------------------------------- */
typedef struct worker { gort_wg *wg; data d; uint64_t v; } worker;
static void work(void *arg)
{
    worker *w = arg;
    put(&w->d, w->v);
    CHECK_OK(gort_wg_done(w->wg));
}
typedef struct watcher { worker *w; int n; } watcher;
static void watch(void *arg)
{
    watcher *a = arg;
    CHECK_OK(gort_wg_wait(a->w[0].wg));
    for (int i = 0; i < a->n; i++) see(&a->w[i].d, a->w[i].v);
}
static void test_each_done_happens_before_each_wait_returns(void)
{
    enum { N = 8 };
    for (int64_t n = scaled(400, 40); n > 0; n--) {
        worker w[N];
        gort_wg *wg = group(), *watchers = group();
        CHECK_OK(gort_wg_add(wg, N));
        watcher a = { w, N };
        for (int i = 0; i < N; i++) w[i] = (worker){ .wg = wg, .v = (uint64_t)(n * N + i) };
        for (int i = 0; i < 2; i++) start(watchers, n % 10 == 0 && i, watch, &a);
        for (int i = 0; i < N; i++) go(work, &w[i]);
        CHECK_OK(gort_wg_wait(wg));
        for (int i = 0; i < N; i++) see(&w[i].d, w[i].v);
        finish(watchers);
        gort_wg_free(wg);
    }
}

static void job_body(void *arg)
{
    worker *w = arg;
    see(&w->d, w->v);
    put(&w->d, w->v + 7);
}
static void test_the_end_of_a_job_happens_before_its_join_returns(void)
{
    for (int64_t n = scaled(2000, 100); n > 0; n--) {
        worker w = { .v = (uint64_t)n };
        put(&w.d, w.v);
        native_job *j = job_start(job_body, &w);
        CHECK(j != NULL);
        if (n % 2) while (!job_done(j)) gort_yield();
        CHECK_OK(job_join(j, &wait_forever_native));
        see(&w.d, w.v + 7);
        job_unref(j);
    }
}

/* ---- timers ---------------------------------------------------------------------------------- */
typedef struct alarm_clock { timer t; data d; uint64_t v; gort_chan *c; } alarm_clock;
static void ring_it(void *arg, uint64_t seq, int64_t now)
{
    alarm_clock *a = arg;
    (void)now;
    see(&a->d, a->v);
    put(&a->d, a->v + seq);
    int64_t one = 1;
    CHECK_OK(gort_chan_try_send(a->c, &one));
}
static void set_alarm(void *arg)
{
    int64_t rounds = scaled(100, 10), v;
    (void)arg;
    alarm_clock a = { .c = gort_chan_new(GORT_I64, 1) };
    for (int64_t i = 0; i < rounds; i++) {
        a.v = (uint64_t)i;
        put(&a.d, a.v);
        a.t = (timer){ .fn = ring_it, .arg = &a, .seq = 5, .kind = TK_FUNC };
        CHECK_OK(timer_add(&a.t, timer_home(true), gort_now_ns() + i % 3 * 20000));
        CHECK_OK(gort_chan_recv(a.c, &v));
        see(&a.d, a.v + 5);
    }
    gort_chan_unref(a.c);
}
static void test_setting_a_timer_happens_before_it_fires(void)
{
    gort_wg *wg = group();
    for (int i = 0; i < 4; i++) start(wg, false, set_alarm, NULL);
    finish(wg);
}

/* ---- chains: the edges add up ------------------------------------------------------------------- */
typedef struct hop { gort_chan *in, *out; data *d; int64_t rounds; } hop;
static void hand_on(void *arg)
{
    hop *h = arg;
    for (int64_t i = 0, v; i < h->rounds; i++) {
        CHECK_OK(gort_chan_recv(h->in, &v));
        see(h->d, (uint64_t)v);
        put(h->d, (uint64_t)++v);
        CHECK_OK(gort_chan_send(h->out, &v));
    }
}
static void test_a_chain_of_hand_overs_carries_everything_along(void)
{
    enum { N = 6 };
    data d;
    gort_chan *c[N + 1];
    hop h[N];
    gort_wg *wg = group();
    int64_t rounds = scaled(1000, 50);
    for (int i = 0; i <= N; i++) c[i] = gort_chan_new(GORT_I64, (size_t)i % 3);
    for (int i = 0; i < N; i++) {
        h[i] = (hop){ c[i], c[i + 1], &d, rounds };
        start(wg, i == 2, hand_on, &h[i]);
    }
    for (int64_t i = 0, v; i < rounds; i++) {
        put(&d, (uint64_t)i * 100);
        v = i * 100;
        CHECK_OK(gort_chan_send(c[0], &v));
        CHECK_OK(gort_chan_recv(c[N], &v));
        CHECK_EQ(v, i * 100 + N);
        see(&d, (uint64_t)v);
    }
    finish(wg);
    for (int i = 0; i <= N; i++) gort_chan_unref(c[i]);
}

/* ---- store buffering, with channels as the variables ----------------------------------------------- */
typedef struct sb { gort_chan *x, *y; int r[2]; _Atomic int at_start; } sb;
static void sb_run(sb *s, gort_chan *mine, gort_chan *other, int *r)
{
    int64_t v = 1;
    atomic_fetch_add(&s->at_start, 1);
    for (int n = 0; atomic_load(&s->at_start) < 2; n++) ctest_nap(n);
    CHECK_OK(gort_chan_try_send(mine, &v));
    *r = gort_chan_try_recv(other, &v);
}
static void sb_a(void *arg) { sb_run(arg, ((sb *)arg)->x, ((sb *)arg)->y, &((sb *)arg)->r[0]); }
static void sb_b(void *arg) { sb_run(arg, ((sb *)arg)->y, ((sb *)arg)->x, &((sb *)arg)->r[1]); }
static void test_channels_do_not_buffer_stores(void)
{   /* each puts something in and looks into the other's: one of them sees it */
    for (int64_t n = scaled(2000, 100); n > 0; n--) {
        sb s = { .x = gort_chan_new(GORT_U8, 1), .y = gort_chan_new(GORT_U8, 1) };
        gort_wg *wg = group();
        start(wg, n % 50 == 0, sb_a, &s);
        start(wg, n % 100 == 0, sb_b, &s);
        finish(wg);
        CHECK(s.r[0] == GORT_OK || s.r[1] == GORT_OK);
        gort_chan_unref(s.x);
        gort_chan_unref(s.y);
    }
}

/* ---- the last use of a channel ------------------------------------------------------------------------ */
/* Who got what it waited for may drop the channel, though the other side is still
 * within its call: an answer is often the last thing that is sent. */
typedef struct last { gort_chan *c; gort_wg *wg; int how; } last;
static void answer(void *arg)
{
    last l = *(last *)arg;
    int64_t v = 42;
    free(arg);
    if (l.how == 0) CHECK_OK(gort_chan_close(l.c));
    else CHECK_OK(gort_chan_send(l.c, &v));
    gort_wg_done(l.wg);
}
static void ask(void *arg)
{
    gort_wg *wg = group();
    (void)arg;
    for (int64_t n = scaled(4000, 200); n > 0; n--) {
        last l = { gort_chan_new(GORT_I64, (size_t)(n % 3 == 2)), wg, (int)(n % 3) };
        int64_t v;
        CHECK_OK(gort_wg_add(wg, 1));
        last *copy = malloc(sizeof *copy);
        *copy = l;
        go(answer, copy);
        CHECK_EQ(gort_chan_recv(l.c, &v), l.how ? GORT_OK : GORT_ECLOSED);
        CHECK_EQ(v, l.how ? 42 : 0);
        gort_chan_unref(l.c);
        if (n % 64 == 0) CHECK_OK(gort_wg_wait(wg));
    }
    finish(wg);
}
static void test_who_has_the_answer_may_drop_the_channel(void)
{
    gort_wg *wg = group();
    for (int i = 0; i < 3; i++) start(wg, i == 2, ask, NULL);
    finish(wg);
}

int main(int argc, char **argv)
{
    ctest_begin(argc, argv);
    if (gort_maxprocs(0) < 4) gort_maxprocs(4);
    RUN(test_what_was_written_before_go_is_seen_by_the_goroutine);
    RUN(test_a_send_happens_before_its_receive_returns);
    RUN(test_an_unbuffered_receive_happens_before_the_send_returns);
    RUN(test_the_kth_receive_happens_before_send_k_plus_c_returns);
    RUN(test_what_a_lock_guards_needs_no_atomics);
    RUN(test_a_close_happens_before_a_receive_that_says_so);
    RUN(test_each_done_happens_before_each_wait_returns);
    RUN(test_the_end_of_a_job_happens_before_its_join_returns);
    RUN(test_setting_a_timer_happens_before_it_fires);
    RUN(test_a_chain_of_hand_overs_carries_everything_along);
    RUN(test_channels_do_not_buffer_stores);
    RUN(test_who_has_the_answer_may_drop_the_channel);
    return ctest_end();
}
