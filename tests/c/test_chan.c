/* test_chan.c - channels: every result in every state, then counting under stress. */
#include "ctest.h"

#include <math.h>

/* ---- results -------------------------------------------------------------------- */
static void test_new_refuses_bad_arguments(void)
{
    CHECK(!gort_chan_new(-1, 0));
    CHECK(!gort_chan_new(GORT_PTR + 1, 0));
    CHECK(!gort_chan_new(GORT_I64, SIZE_MAX));
    CHECK(!gort_chan_new(GORT_I64, SIZE_MAX / 8));
    CHECK(!gort_chan_new(GORT_U8, (size_t)1 << 50));
}

static void test_len_cap_and_element_size(void)
{
    static const size_t sizes[] = { [GORT_I64] = 8, [GORT_F64] = 8, [GORT_U8] = 1, [GORT_PTR] = 8 };
    for (int t = GORT_I64; t <= GORT_PTR; t++)
        for (size_t cap = 0; cap < 4; cap++) {
            gort_chan *c = gort_chan_new(t, cap);
            CHECK_EQ(gort_chan_elemsize(c), sizes[t]);
            CHECK_EQ(gort_chan_cap(c), cap);
            uint64_t v = 0;
            for (size_t i = 0; i < cap; i++) {
                CHECK_EQ(gort_chan_len(c), i);
                CHECK_OK(gort_chan_try_send(c, &v));
            }
            CHECK_EQ(gort_chan_len(c), cap);
            CHECK_EQ(gort_chan_try_send(c, &v), GORT_EAGAIN);
            gort_chan_unref(c);
        }
    CHECK_EQ(gort_chan_len(NULL), 0);
    CHECK_EQ(gort_chan_cap(NULL), 0);
}

static void test_elements_of_each_type_come_out_as_they_went_in(void)
{
    int64_t i64[] = { 0, -1, INT64_MIN, INT64_MAX };
    double f64[] = { 0.0, -0.0, 1.5, HUGE_VAL }, d;
    uint8_t u8[] = { 0, 1, 200, 255 }, guard[3] = { 0xaa, 0, 0xaa };
    void *ptr[] = { NULL, &d, guard, (void *)UINTPTR_MAX }, *p;
    int64_t n;
    gort_chan *a = gort_chan_new(GORT_I64, 4), *b = gort_chan_new(GORT_F64, 4), *c = gort_chan_new(GORT_U8, 4),
              *e = gort_chan_new(GORT_PTR, 4);
    for (int round = 0; round < 3; round++) { /* the ring wraps around */
        for (int i = 0; i < 4 - round; i++) {
            CHECK_OK(gort_chan_send(a, &i64[i]));
            CHECK_OK(gort_chan_send(b, &f64[i]));
            CHECK_OK(gort_chan_send(c, &u8[i]));
            CHECK_OK(gort_chan_send(e, &ptr[i]));
        }
        for (int i = 0; i < 4 - round; i++) {
            CHECK_OK(gort_chan_recv(a, &n));
            CHECK(n == i64[i]);
            CHECK_OK(gort_chan_recv(b, &d));
            CHECK(memcmp(&d, &f64[i], sizeof d) == 0);
            CHECK_OK(gort_chan_recv(c, &guard[1]));
            CHECK(guard[0] == 0xaa && guard[1] == u8[i] && guard[2] == 0xaa);
            CHECK_OK(gort_chan_recv(e, &p));
            CHECK(p == ptr[i]);
        }
    }
    gort_chan_unref(a);
    gort_chan_unref(b);
    gort_chan_unref(c);
    gort_chan_unref(e);
}

static void test_results_on_an_open_channel(void)
{
    int64_t v = 5, t;
    gort_chan *c = gort_chan_new(GORT_I64, 1), *u = gort_chan_new(GORT_I64, 0);
    CHECK_EQ(gort_chan_try_recv(c, &v), GORT_EAGAIN);
    CHECK_EQ(gort_chan_recv_timeout(c, &v, 0), GORT_EAGAIN);
    CHECK_EQ(gort_chan_recv_timeout(c, &v, -1), GORT_EAGAIN);
    CHECK_EQ(gort_chan_recv_timeout(c, &v, INT64_MIN), GORT_EAGAIN);
    t = gort_now_ns();
    CHECK_EQ(gort_chan_recv_timeout(c, &v, 2 * MS), GORT_ETIMEDOUT);
    CHECK(gort_now_ns() - t >= 2 * MS);
    CHECK_EQ(v, 5); /* untouched by all of these */
    CHECK_OK(gort_chan_send_timeout(c, &v, INT64_MAX));
    CHECK_EQ(gort_chan_try_send(c, &v), GORT_EAGAIN);
    CHECK_EQ(gort_chan_send_timeout(c, &v, -1), GORT_EAGAIN);
    t = gort_now_ns();
    CHECK_EQ(gort_chan_send_timeout(c, &v, 2 * MS), GORT_ETIMEDOUT);
    CHECK(gort_now_ns() - t >= 2 * MS);
    CHECK_OK(gort_chan_recv(c, NULL)); /* dropped */
    CHECK_EQ(gort_chan_len(c), 0);
    CHECK_EQ(gort_chan_try_send(u, &v), GORT_EAGAIN);
    CHECK_EQ(gort_chan_send_timeout(u, &v, MS), GORT_ETIMEDOUT);
    CHECK_EQ(gort_chan_try_recv(u, &v), GORT_EAGAIN);
    CHECK_EQ(waiting(&u->lock, &u->sendq), 0);
    CHECK_EQ(waiting(&c->lock, &c->sendq) + waiting(&c->lock, &c->recvq), 0);
    gort_chan_unref(c);
    gort_chan_unref(u);
}

static void test_results_on_a_closed_channel(void)
{
    for (size_t cap = 0; cap < 3; cap++) {
        gort_chan *c = gort_chan_new(GORT_I64, cap);
        int64_t v = 9;
        for (size_t i = 0; i < cap; i++) CHECK_OK(gort_chan_send(c, &v));
        CHECK_OK(gort_chan_close(c));
        CHECK_EQ(gort_chan_close(c), GORT_ECLOSED);
        CHECK_EQ(gort_chan_send(c, &v), GORT_ECLOSED);
        CHECK_EQ(gort_chan_try_send(c, &v), GORT_ECLOSED);
        CHECK_EQ(gort_chan_send_timeout(c, &v, MS), GORT_ECLOSED);
        for (size_t i = 0; i < cap; i++) { /* what was sent before comes out */
            v = 0;
            CHECK_OK(i ? gort_chan_recv(c, &v) : gort_chan_try_recv(c, &v));
            CHECK_EQ(v, 9);
        }
        v = 9;
        CHECK_EQ(gort_chan_recv(c, &v), GORT_ECLOSED);
        CHECK_EQ(v, 0);
        v = 9;
        CHECK_EQ(gort_chan_try_recv(c, &v), GORT_ECLOSED);
        CHECK_EQ(v, 0);
        v = 9;
        CHECK_EQ(gort_chan_recv_timeout(c, &v, MS), GORT_ECLOSED);
        CHECK_EQ(v, 0);
        CHECK_EQ(gort_chan_recv(c, NULL), GORT_ECLOSED);
        CHECK_EQ(gort_chan_close(c), GORT_ECLOSED);
        gort_chan_unref(c);
    }
}

static void test_nil_channel_is_never_ready(void)
{
    int64_t v = 5;
    CHECK_EQ(gort_chan_try_send(NULL, &v), GORT_EAGAIN);
    CHECK_EQ(gort_chan_try_recv(NULL, &v), GORT_EAGAIN);
    CHECK_EQ(gort_chan_send_timeout(NULL, &v, MS), GORT_ETIMEDOUT);
    CHECK_EQ(gort_chan_recv_timeout(NULL, &v, MS), GORT_ETIMEDOUT);
    CHECK_EQ(v, 5);
    CHECK_EQ(gort_chan_close(NULL), GORT_ECLOSED);
    gort_chan_unref(NULL);
}
static void nil_in_goroutine(void *p) { test_nil_channel_is_never_ready(); gort_wg_done(p); }
static void results_in_goroutine(void *p)
{
    test_results_on_an_open_channel();
    test_results_on_a_closed_channel();
    test_elements_of_each_type_come_out_as_they_went_in();
    gort_wg_done(p);
}
static void test_the_same_results_in_a_goroutine(void)
{
    gort_wg *wg = group();
    gort_wg_add(wg, 2);
    go(nil_in_goroutine, wg);
    go(results_in_goroutine, wg);
    finish(wg);
}

/* ---- one waits, one comes ------------------------------------------------------------ */
typedef struct op {
    gort_chan *c;
    int64_t v;
    int64_t timeout;    /* 0: no */
    int r;
    int order;
    bool send;
    _Atomic bool ended;
} op;
static _Atomic int order;
static void do_op(void *p)
{
    op *o = p;
    int64_t t = o->timeout ? o->timeout : GORT_FOREVER;
    o->r = o->send ? gort_chan_send_timeout(o->c, &o->v, t) : gort_chan_recv_timeout(o->c, &o->v, t);
    o->order = atomic_fetch_add(&order, 1);
    atomic_store(&o->ended, true);
}

static void test_a_waiting_one_gets_its_result(void)
{
    for (int i = 0; i < 16; i++) { /* 1: a thread waits, 2: it sends, 4: buffered, 8: it is closed */
        bool thread = i & 1, send = i & 2, closed = i & 8;
        gort_chan *c = gort_chan_new(GORT_I64, i & 4 ? 2 : 0);
        int64_t v = 1;
        if (send) while (gort_chan_try_send(c, &v) == GORT_OK) {}
        gort_wg *wg = group();
        op o = { .c = c, .v = 42, .send = send };
        start(wg, thread, do_op, &o);
        UNTIL((send ? senders(c) : receivers(c)) == 1);
        v = 7;
        if (closed) CHECK_OK(gort_chan_close(c));
        else CHECK_OK(send ? gort_chan_recv(c, &v) : gort_chan_send(c, &v));
        finish(wg);
        CHECK_EQ(o.r, closed ? GORT_ECLOSED : GORT_OK);
        if (!send) CHECK_EQ(o.v, closed ? 0 : 7);
        if (send && !closed) { /* what was in the buffer came first */
            CHECK_EQ(v, i & 4 ? 1 : 42);
            while (gort_chan_try_recv(c, &v) == GORT_OK) {}
            CHECK_EQ(v, 42);
        }
        gort_chan_unref(c);
    }
}

static void test_waiting_ones_are_served_in_order(void)
{
    enum { N = 50 };
    for (int send = 0; send < 2; send++) {
        gort_maxprocs(1); /* so that the order of the results is that of the wake-ups */
        gort_chan *c = gort_chan_new(GORT_I64, 0);
        gort_wg *wg = group();
        op o[N];
        for (int i = 0; i < N; i++) {
            o[i] = (op){ .c = c, .v = 100 + i, .send = send };
            start(wg, i % 5 == 4, do_op, &o[i]);
            UNTIL((send ? senders(c) : receivers(c)) == i + 1);
        }
        for (int i = 0; i < N; i++) {
            int64_t v = i;
            CHECK_OK(send ? gort_chan_recv(c, &v) : gort_chan_send(c, &v));
            if (send) CHECK_EQ(v, 100 + i);
        }
        finish(wg);
        for (int i = 0; i < N; i++) {
            CHECK_OK(o[i].r);
            if (!send) CHECK_EQ(o[i].v, i);
        }
        gort_chan_unref(c);
    }
}

static void test_a_timed_out_waiter_is_skipped(void)
{
    for (int send = 0; send < 2; send++)
        for (int thread = 0; thread < 2; thread++) {
            gort_chan *c = gort_chan_new(GORT_I64, 0);
            gort_wg *wg = group(), *wg2 = group();
            op late = { .c = c, .v = 1, .timeout = 3 * MS, .send = send }, good = { .c = c, .v = 2, .send = send };
            start(wg, thread, do_op, &late);
            UNTIL((send ? senders(c) : receivers(c)) == 1 || atomic_load(&late.ended));
            start(wg2, thread, do_op, &good);
            finish(wg);
            CHECK_EQ(late.r, GORT_ETIMEDOUT);
            CHECK_EQ(late.v, 1);
            UNTIL((send ? senders(c) : receivers(c)) == 1);
            int64_t v = 3;
            CHECK_OK(send ? gort_chan_recv(c, &v) : gort_chan_send(c, &v));
            finish(wg2);
            CHECK_OK(good.r);
            CHECK_EQ(send ? v : good.v, send ? 2 : 3);
            gort_chan_unref(c);
        }
}

static void test_closing_wakes_all_that_wait(void)
{
    enum { N = 60 };
    for (int procs = 1; procs <= 4; procs *= 2)
        for (int send = 0; send < 2; send++) {
            gort_maxprocs(procs);
            gort_chan *c = gort_chan_new(GORT_I64, (size_t)send * 3);
            int64_t v = 1;
            while (send && gort_chan_try_send(c, &v) == GORT_OK) {}
            gort_wg *wg = group();
            op o[N];
            for (int i = 0; i < N; i++) {
                o[i] = (op){ .c = c, .v = 5, .timeout = i % 3 ? 0 : 60000 * MS, .send = send };
                start(wg, i % 4 == 3, do_op, &o[i]);
            }
            UNTIL((send ? senders(c) : receivers(c)) == N);
            CHECK_OK(gort_chan_close(c));
            finish(wg);
            for (int i = 0; i < N; i++) {
                CHECK_EQ(o[i].r, GORT_ECLOSED);
                CHECK_EQ(o[i].v, send ? 5 : 0);
            }
            CHECK_EQ(gort_chan_len(c), send * 3);
            gort_chan_unref(c);
        }
}

/* Threads and goroutines that wait on many channels which several others close at
 * once: a woken thread may be on the next channel before its waker is through. */
enum { CLOSE_CHANS = 40 };
typedef struct close_race { gort_chan *c[CLOSE_CHANS]; _Atomic int next; _Atomic int ready; int waiters; } close_race;
static void wait_on_each(void *p)
{
    close_race *r = p;
    for (int i = 0; i < CLOSE_CHANS; i++) {
        int64_t v = 3;
        atomic_fetch_add(&r->ready, 1);
        CHECK_EQ(gort_chan_recv(r->c[i], &v), GORT_ECLOSED);
        CHECK_EQ(v, 0);
    }
}
static void close_next(void *p)
{
    close_race *r = p;
    for (int i; (i = atomic_fetch_add(&r->next, 1)) < CLOSE_CHANS;) {
        UNTIL(receivers(r->c[i]) >= 1 + r->waiters / 2);
        CHECK_OK(gort_chan_close(r->c[i]));
    }
}

static void test_closing_many_channels_loses_no_waiter(void)
{
    for (int64_t round = scaled(100, 10); round > 0; round--)
        for (int procs = 1; procs <= 4; procs *= 2) {
            gort_maxprocs(procs);
            close_race r = { .waiters = 12 };
            for (int i = 0; i < CLOSE_CHANS; i++) r.c[i] = gort_chan_new(GORT_I64, 0);
            gort_wg *wg = group();
            for (int i = 0; i < r.waiters; i++) start(wg, i % 2, wait_on_each, &r);
            for (int i = 0; i < 3; i++) start(wg, i == 1, close_next, &r);
            finish(wg);
            for (int i = 0; i < CLOSE_CHANS; i++) gort_chan_unref(r.c[i]);
        }
}

/* ---- producers and consumers --------------------------------------------------------------- */
/* Each message is unique: producer p sends p * n .. p * n + n - 1. `seen` counts
 * each of them; the sum and the number are checked at the end. */
typedef struct mill {
    gort_chan *c;
    int64_t n;
    _Atomic int64_t sent, got, sum;
    _Atomic int next;
    int64_t timeout;        /* of sends and receives; 0: none */
    _Atomic uint8_t *seen;
} mill;

static void produce(void *p)
{
    mill *m = p;
    int64_t first = atomic_fetch_add(&m->next, 1) * m->n, ok = 0;
    rnd r = { (uint64_t)first };
    for (int64_t v = first; v < first + m->n; v++) {
        int e;
        do {
            e = m->timeout ? gort_chan_send_timeout(m->c, &v, 1 + rnd_below(&r, (uint32_t)m->timeout))
                           : gort_chan_send(m->c, &v);
        } while (e == GORT_ETIMEDOUT);
        CHECK_OK(e);
        ok++;
    }
    atomic_fetch_add(&m->sent, ok);
}
static void consume(void *p)
{
    mill *m = p;
    int64_t sum = 0, got = 0, v;
    rnd r = { (uint64_t)(uintptr_t)&sum };
    for (;;) {
        v = -1;
        int e = m->timeout ? gort_chan_recv_timeout(m->c, &v, 1 + rnd_below(&r, (uint32_t)m->timeout))
                           : gort_chan_recv(m->c, &v);
        if (e == GORT_ETIMEDOUT) {
            CHECK_EQ(v, -1);
            continue;
        }
        if (e == GORT_ECLOSED) break;
        CHECK_OK(e);
        CHECK_EQ(atomic_fetch_add(&m->seen[v], 1), 0);
        sum += v;
        got++;
    }
    atomic_fetch_add(&m->sum, sum);
    atomic_fetch_add(&m->got, got);
}

static void run_mill(size_t cap, int producers, int consumers, int64_t n, int threads_every, int64_t timeout)
{
    mill m = { .c = gort_chan_new(GORT_I64, cap), .n = n, .timeout = timeout };
    int64_t total = producers * n;
    m.seen = calloc((size_t)total, 1);
    gort_wg *from = group(), *to = group();
    for (int i = 0; i < consumers; i++) start(to, threads_every && i % threads_every == 0, consume, &m);
    for (int i = 0; i < producers; i++) start(from, threads_every && i % threads_every == 1 % threads_every, produce, &m);
    finish(from);
    CHECK_OK(gort_chan_close(m.c));
    finish(to);
    CHECK_EQ(atomic_load(&m.sent), total);
    CHECK_EQ(atomic_load(&m.got), total);
    CHECK_EQ(atomic_load(&m.sum), total * (total - 1) / 2);
    for (int64_t i = 0; i < total; i++) CHECK_EQ(atomic_load(&m.seen[i]), 1);
    CHECK(!m.c->recvq.first && !m.c->sendq.first);
    free((void *)m.seen);
    gort_chan_unref(m.c);
}

static void each_kind(int64_t n, int threads_every, int64_t timeout)
{
    static const size_t caps[] = { 0, 1, 3, 64 };
    for (int procs = 1; procs <= 8; procs *= 2)
        for (size_t i = 0; i < COUNT(caps); i++) {
            gort_maxprocs(procs);
            run_mill(caps[i], 4, 4, n, threads_every, timeout);
            run_mill(caps[i], 1, 8, n, threads_every, timeout);
            run_mill(caps[i], 8, 1, n / 4 + 1, threads_every, timeout);
        }
}

static void test_goroutines_lose_and_double_nothing(void) { each_kind(scaled(TSAN ? 1000 : 5000, 200), 0, 0); }
static void test_goroutines_and_threads_lose_and_double_nothing(void) { each_kind(scaled(500, 50), 2, 0); }
static void test_threads_lose_and_double_nothing(void) { each_kind(scaled(200, 25), 1, 0); }
static void test_timeouts_lose_and_double_nothing(void) { each_kind(scaled(TSAN ? 300 : 1000, 100), 0, 20000); }
static void test_timeouts_of_threads_too(void) { each_kind(scaled(200, 25), 2, 50000); }

/* Senders race with a close: each message is either received, or its send said
 * that the channel was closed. */
typedef struct closing { gort_chan *c; _Atomic int64_t ok_sum, ok, got, got_sum; _Atomic int started; } closing;
static void send_until_closed(void *p)
{
    closing *k = p;
    int64_t v = atomic_fetch_add(&k->started, 1) * 1000000, ok = 0, sum = 0;
    for (;; v++) {
        int e = v % 3 ? gort_chan_send(k->c, &v) : gort_chan_send_timeout(k->c, &v, 1 + v % 30000);
        if (e == GORT_ETIMEDOUT) continue;
        if (e == GORT_ECLOSED) break;
        CHECK_OK(e);
        ok++;
        sum += v;
    }
    atomic_fetch_add(&k->ok, ok);
    atomic_fetch_add(&k->ok_sum, sum);
}
static void recv_until_closed(void *p)
{
    closing *k = p;
    int64_t v, n = 0, sum = 0;
    while (gort_chan_recv(k->c, &v) == GORT_OK) {
        n++;
        sum += v;
        if (n == 100) gort_chan_close(k->c); /* several may try */
    }
    atomic_fetch_add(&k->got, n);
    atomic_fetch_add(&k->got_sum, sum);
}

static void test_close_races_with_sends(void)
{
    for (int64_t round = scaled(100, 10); round > 0; round--)
        for (int procs = 1; procs <= 4; procs *= 2) {
            gort_maxprocs(procs);
            closing k = { .c = gort_chan_new(GORT_I64, (size_t)round % 3) };
            gort_wg *wg = group();
            for (int i = 0; i < 4; i++) {
                start(wg, i == 3, send_until_closed, &k);
                start(wg, i == 2, recv_until_closed, &k);
            }
            finish(wg);
            CHECK_EQ(atomic_load(&k.ok), atomic_load(&k.got));
            CHECK_EQ(atomic_load(&k.ok_sum), atomic_load(&k.got_sum));
            gort_chan_unref(k.c);
        }
}

/* A buffered channel as Go's memory model has it: the k-th receive happens before
 * the (k+C)-th send is done, so what it guards needs no other lock. */
typedef struct guarded { gort_chan *c; int64_t n; int64_t plain; int64_t rounds; } guarded;
static void add_guarded(void *p)
{
    guarded *g = p;
    for (int64_t i = 0; i < g->rounds; i++) {
        uint8_t b = 1;
        CHECK_OK(gort_chan_send(g->c, &b));
        g->plain++; /* ThreadSanitizer looks at this */
        CHECK_OK(gort_chan_recv(g->c, &b));
    }
}

static void test_channel_of_one_is_a_lock(void)
{
    for (int procs = 1; procs <= 4; procs *= 2) {
        gort_maxprocs(procs);
        guarded g = { .c = gort_chan_new(GORT_U8, 1), .rounds = scaled(TSAN ? 1000 : 5000, 200) };
        gort_wg *wg = group();
        for (int i = 0; i < 5; i++) start(wg, i == 4, add_guarded, &g);
        finish(wg);
        CHECK_EQ(g.plain, 5 * g.rounds);
        gort_chan_unref(g.c);
    }
}

int main(int argc, char **argv)
{
    ctest_begin(argc, argv);
    RUN(test_new_refuses_bad_arguments);
    RUN(test_len_cap_and_element_size);
    RUN(test_elements_of_each_type_come_out_as_they_went_in);
    RUN(test_results_on_an_open_channel);
    RUN(test_results_on_a_closed_channel);
    RUN(test_nil_channel_is_never_ready);
    RUN(test_the_same_results_in_a_goroutine);
    RUN(test_a_waiting_one_gets_its_result);
    RUN(test_waiting_ones_are_served_in_order);
    RUN(test_a_timed_out_waiter_is_skipped);
    RUN(test_closing_wakes_all_that_wait);
    RUN(test_closing_many_channels_loses_no_waiter);
    RUN(test_goroutines_lose_and_double_nothing);
    RUN(test_goroutines_and_threads_lose_and_double_nothing);
    RUN(test_threads_lose_and_double_nothing);
    RUN(test_timeouts_lose_and_double_nothing);
    RUN(test_timeouts_of_threads_too);
    RUN(test_close_races_with_sends);
    RUN(test_channel_of_one_is_a_lock);
    return ctest_end();
}
