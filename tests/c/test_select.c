/* test_select.c - select: results, the uniform choice, many cases, races, counting. */
#include "ctest.h"

#define RECV(ch, p) ((gort_case){ .c = (ch), .dir = GORT_RECV, .elem = (p), .ok = -1 })
#define SEND(ch, p) ((gort_case){ .c = (ch), .dir = GORT_SEND, .elem = (p), .ok = -1 })
static bool unwatched(gort_chan *c) { return !receivers(c) && !senders(c); }

/* ---- results -------------------------------------------------------------------------- */
static void test_bad_arguments_are_refused(void)
{
    gort_case k = { .dir = 2 };
    CHECK_EQ(gort_select(&k, 1, 0), GORT_EINVAL);
    CHECK_EQ(gort_select(NULL, -1, 0), GORT_EINVAL);
    CHECK_EQ(gort_select(NULL, 1 << 16, 0), GORT_EINVAL);
}

static void test_nothing_ready(void)
{
    int64_t v = 5, w = 6;
    gort_chan *c = gort_chan_new(GORT_I64, 0), *full = gort_chan_new(GORT_I64, 1);
    CHECK_OK(gort_chan_send(full, &v));
    gort_case k[] = { RECV(c, &w), SEND(full, &v), RECV(NULL, &w), SEND(c, &v), SEND(NULL, NULL) };
    for (int n = 0; n <= 5; n++) {
        CHECK_EQ(gort_select(k, n, 0), GORT_EAGAIN);
        CHECK_EQ(gort_select(k, n, INT64_MIN), GORT_EAGAIN);
        int64_t t = gort_now_ns();
        CHECK_EQ(gort_select(k, n, 2 * MS), GORT_ETIMEDOUT); /* nor does it meet itself on c */
        CHECK(gort_now_ns() - t >= 2 * MS);
        CHECK(unwatched(c) && unwatched(full));
    }
    CHECK_EQ(w, 6);
    for (int i = 0; i < 5; i++) CHECK_EQ(k[i].ok, -1);
    gort_chan_unref(c);
    gort_chan_unref(full);
}

static void test_ready_cases(void)
{
    int64_t v = 5, w = 6;
    gort_chan *c = gort_chan_new(GORT_I64, 1), *idle = gort_chan_new(GORT_I64, 0);
    gort_case k[] = { RECV(NULL, &w), SEND(c, &v), RECV(idle, &w) };
    CHECK_EQ(gort_select(k, 3, GORT_FOREVER), 1);
    CHECK_EQ(k[1].ok, 1);
    k[1] = RECV(c, &w);
    CHECK_EQ(gort_select(k, 3, 0), 1);
    CHECK(k[1].ok == 1 && w == 5);
    CHECK_OK(gort_chan_send(c, &v));
    CHECK_OK(gort_chan_close(c));
    k[1].elem = NULL; /* dropped */
    CHECK_EQ(gort_select(k, 3, 1), 1);
    CHECK_EQ(k[1].ok, 1);
    k[1] = RECV(c, &w);
    CHECK_EQ(gort_select(k, 3, 1), 1);
    CHECK(k[1].ok == 0 && w == 0);
    k[1] = SEND(c, &v);
    CHECK_EQ(gort_select(k, 3, 1), 1);
    CHECK_EQ(k[1].ok, 0);
    CHECK_EQ(k[0].ok, -1);
    gort_chan_unref(c);
    gort_chan_unref(idle);
}

static void test_elements_keep_their_width(void)
{
    uint8_t b[3] = { 1, 2, 3 };
    gort_chan *c = gort_chan_new(GORT_U8, 1);
    gort_case k = SEND(c, &b[1]);
    CHECK_EQ(gort_select(&k, 1, 0), 0);
    b[1] = 9;
    k = RECV(c, &b[1]);
    CHECK_EQ(gort_select(&k, 1, 0), 0);
    CHECK(b[0] == 1 && b[1] == 2 && b[2] == 3);
    gort_chan_unref(c);
}

static void results(void *p)
{
    (void)p;
    test_nothing_ready();
    test_ready_cases();
}
static void test_the_same_in_a_goroutine(void)
{
    gort_wg *wg = group();
    start(wg, false, results, NULL);
    finish(wg);
}

/* ---- the choice is uniform ------------------------------------------------------------------ */
/* n cases, of which `ready` are; odd ones of these send. Every `same`-th is of one
 * and the same channel. */
static void draw(int n, int ready, int same)
{
    gort_chan *c[100], *shared = gort_chan_new(GORT_I64, 1 << 20);
    gort_case k[100];
    int64_t v = 1, w, count[100] = {0}, rounds = (SANITIZED ? 400 : 2000) * ready;
    for (int i = 0; i < 1000; i++) CHECK_OK(gort_chan_send(shared, &v));
    for (int i = 0; i < n; i++) {
        bool is_ready = i * ready / n != (i + 1) * ready / n; /* spread evenly */
        c[i] = gort_chan_new(GORT_I64, 1 << 16);
        gort_chan *of = same && i % same == 0 ? shared : c[i];
        if (!is_ready) k[i] = RECV(i % 3 ? NULL : c[i], &w);
        else if (i % 2 && of != shared) k[i] = SEND(of, &v);
        else k[i] = RECV(of, &w);
    }
    for (int64_t r = 0; r < rounds; r++) {
        for (int i = 0; i < n; i++) /* whoever receives finds something */
            if (k[i].dir == GORT_RECV && (k[i].c == c[i] || k[i].c == shared) && gort_chan_len(k[i].c) == 0 &&
                i * ready / n != (i + 1) * ready / n)
                CHECK_OK(gort_chan_send(k[i].c, &v));
        int i = gort_select(k, n, r % 2);
        CHECK(i >= 0 && i < n && k[i].ok == 1 && i * ready / n != (i + 1) * ready / n);
        count[i]++;
    }
    double want = (double)rounds / ready, chi = 0;
    for (int i = 0; i < n; i++)
        if (i * ready / n != (i + 1) * ready / n) chi += ((double)count[i] - want) * ((double)count[i] - want) / want;
    /* mean ready - 1, variance 2 (ready - 1): this fails less than once in 10^8 */
    int df = ready - 1;
    if (chi > df + 45 + df / 2.0) {
        fprintf(stderr, "n=%d ready=%d same=%d chi-square %.1f\n", n, ready, same, chi);
        CHECK(!"uniform");
    }
    for (int i = 0; i < n; i++) gort_chan_unref(c[i]);
    gort_chan_unref(shared);
}
static void test_the_choice_among_ready_ones_is_uniform(void)
{
    static const int t[][3] = { { 2, 2, 0 }, { 3, 3, 0 }, { 3, 2, 0 }, { 8, 8, 0 }, { 9, 9, 0 }, { 9, 4, 0 },
                                { 17, 17, 0 }, { 30, 10, 0 }, { 4, 4, 2 }, { 6, 6, 1 }, { 20, 20, 3 } };
    for (size_t i = 0; i < COUNT(t); i++) draw(t[i][0], t[i][1], t[i][2]);
}

/* ---- one waits, one comes -------------------------------------------------------------------- */
typedef struct waiter {
    gort_case *k;
    int n, r;
    int64_t timeout;
} waiter;
static void do_select(void *p)
{
    waiter *w = p;
    w->r = gort_select(w->k, w->n, w->timeout ? w->timeout : GORT_FOREVER);
}

static void test_one_to_a_hundred_cases_wake_by_each(void)
{
    gort_maxprocs(2);
    rnd r = { ctest_seed() };
    for (int n = 1; n <= 100; n += n < 20 ? 1 : 8)
        for (int how = 0; how < 6; how++) { /* 0, 1: send, receive; 2, 3: close; +4: it is ready beforehand */
            gort_chan *c[100];
            gort_case k[100];
            int64_t v[100], x = 77;
            for (int i = 0; i < n; i++) {
                c[i] = gort_chan_new(GORT_I64, how >= 4);
                v[i] = i;
                k[i] = rnd_below(&r, 4) ? RECV(c[i], &v[i]) : RECV(NULL, NULL);
            }
            int hit = (int)rnd_below(&r, (uint32_t)n);
            bool sends = how == 1 || how == 3;
            k[hit] = sends ? SEND(c[hit], &v[hit]) : RECV(c[hit], &v[hit]);
            waiter w = { .k = k, .n = n };
            if (how == 4) CHECK_OK(gort_chan_send(c[hit], &x));
            if (how == 5) CHECK_OK(gort_chan_close(c[hit]));
            gort_wg *wg = group();
            start(wg, rnd_below(&r, 3) == 0, do_select, &w);
            if (how < 4) UNTIL(sends ? senders(c[hit]) : receivers(c[hit]));
            if (how == 0) CHECK_OK(gort_chan_send(c[hit], &x));
            if (how == 1) CHECK_OK(gort_chan_recv(c[hit], &x));
            if (how == 2 || how == 3) CHECK_OK(gort_chan_close(c[hit]));
            finish(wg);
            CHECK_EQ(w.r, hit);
            bool closed = how == 2 || how == 3 || how == 5;
            CHECK_EQ(k[hit].ok, !closed);
            if (how == 1) CHECK_EQ(x, hit);
            if (!sends) CHECK_EQ(v[hit], closed ? 0 : 77);
            for (int i = 0; i < n; i++) {
                if (i != hit) CHECK(v[i] == i && k[i].ok == -1);
                CHECK(unwatched(c[i]));
                gort_chan_unref(c[i]);
            }
        }
}

static void test_a_channel_in_several_cases(void)
{
    for (int thread = 0; thread < 2; thread++)
        for (int send = 0; send < 2; send++) {
            gort_chan *c = gort_chan_new(GORT_I64, 0);
            int64_t v[4] = { 10, 11, 12, 13 }, x = 5;
            gort_case k[4] = { RECV(c, &v[0]), SEND(c, &v[1]), RECV(c, &v[2]), SEND(c, &v[3]) };
            waiter w = { .k = k, .n = 4 };
            gort_wg *wg = group();
            start(wg, thread, do_select, &w);
            UNTIL(receivers(c) == 2 && senders(c) == 2);
            CHECK_OK(send ? gort_chan_send(c, &x) : gort_chan_recv(c, &x));
            finish(wg);
            CHECK(w.r >= 0 && w.r < 4 && k[w.r].dir == (send ? GORT_RECV : GORT_SEND));
            if (send) CHECK_EQ(v[w.r], 5);
            else CHECK_EQ(x, 10 + w.r);
            CHECK(unwatched(c));
            gort_chan_unref(c);
        }
}

/* Each both sends to and receives from the one channel: they meet each other only. */
typedef struct meeting { gort_chan *c; int64_t n; _Atomic int64_t sent, got; } meeting;
static void send_or_recv(void *p)
{
    meeting *m = p;
    for (int64_t i = 0; i < m->n; i++) {
        int64_t v = (int64_t)(uintptr_t)&v, w = 0;
        gort_case k[2] = { SEND(m->c, &v), RECV(m->c, &w) };
        int r = gort_select(k, 2, GORT_FOREVER);
        if (r == 0) {
            atomic_fetch_add(&m->sent, 1);
        } else {
            CHECK(r == 1 && k[1].ok && w != v);
            atomic_fetch_add(&m->got, 1);
        }
    }
}
static void test_senders_and_receivers_in_one_meet_others_only(void)
{
    for (int procs = 1; procs <= 4; procs *= 2) {
        gort_maxprocs(procs);
        meeting m = { .c = gort_chan_new(GORT_I64, 0), .n = scaled(3000, 300) };
        gort_wg *wg = group();
        /* with two each step of one is one of the other, so both end */
        for (int i = 0; i < 2; i++) start(wg, i, send_or_recv, &m);
        finish(wg);
        CHECK_EQ(m.sent, m.n);
        CHECK_EQ(m.got, m.n);
        CHECK(unwatched(m.c));
        gort_chan_unref(m.c);
    }
}

/* ---- races ------------------------------------------------------------------------------------- */
static void close_it(void *c) { CHECK_OK(gort_chan_close(c)); }
static void test_close_of_several_races_with_the_wait(void)
{
    enum { N = 12 };
    for (int64_t round = scaled(400, 40); round > 0; round--) {
        gort_maxprocs(1 + (int)(round % 4));
        gort_chan *c[N];
        gort_case k[3][N];
        waiter w[3];
        int64_t v = 1;
        gort_wg *wg = group();
        for (int i = 0; i < N; i++) c[i] = gort_chan_new(GORT_I64, 0);
        for (int s = 0; s < 3; s++) {
            for (int i = 0; i < N; i++) k[s][i] = i % 2 && s != 1 ? SEND(c[i], &v) : RECV(c[i], NULL);
            w[s] = (waiter){ .k = k[s], .n = N, .timeout = s == 2 ? 50000 : 0 };
            start(wg, s == 0 && round % 3 == 0, do_select, &w[s]);
        }
        for (int i = 0; i < 4; i++) start(wg, i == 2, close_it, c[i * 3]);
        finish(wg);
        for (int s = 0; s < 3; s++) {
            bool late = w[s].r == GORT_ETIMEDOUT;
            CHECK(late ? s == 2 : w[s].r >= 0 && (!k[s][w[s].r].ok ? w[s].r % 3 == 0 : w[s].r % 2 == 1));
        }
        for (int i = 0; i < N; i++) {
            CHECK(unwatched(c[i]));
            gort_chan_unref(c[i]);
        }
    }
}

/* Selectors over the same channels, each sending its messages and receiving
 * whatever comes, in cases put together at random. */
enum { CHANS = 5 };
typedef struct market {
    gort_chan *c[CHANS];
    int64_t n;
    _Atomic uint8_t *seen;
    _Atomic int next;
    _Atomic int64_t got, sum, timeouts;
    gort_wg *sending;
} market;
static void trade(void *p)
{
    market *m = p;
    int me = atomic_fetch_add(&m->next, 1);
    int64_t v = me * m->n, end = v + m->n, in, got = 0, sum = 0, late = 0;
    rnd r = { ctest_seed() ^ (uint64_t)me };
    bool closed[CHANS] = {0};
    for (int open = CHANS; open;) {
        gort_case k[24];
        int n = 1 + (int)rnd_below(&r, rnd_below(&r, 4) ? 8 : 24);
        for (int i = 0; i < n; i++) {
            uint32_t at = rnd_below(&r, CHANS);
            if (v < end && rnd_below(&r, 2)) k[i] = SEND(m->c[at], &v);
            else k[i] = RECV(closed[at] || rnd_below(&r, 16) == 0 ? NULL : m->c[at], &in);
        }
        int i = gort_select(k, n, rnd_below(&r, 3) ? 1 + rnd_below(&r, 100000) : 0);
        if (i < 0) {
            CHECK(i == GORT_EAGAIN || i == GORT_ETIMEDOUT);
            late++;
            if (i == GORT_EAGAIN) gort_yield();
            continue;
        }
        if (k[i].dir == GORT_SEND) {
            CHECK(k[i].ok == 1 && v < end);
            if (++v == end) gort_wg_done(m->sending);
        } else if (k[i].ok) {
            CHECK_EQ(atomic_fetch_add(&m->seen[in], 1), 0);
            got++;
            sum += in;
        } else {
            for (int a = 0; a < CHANS; a++)
                if (m->c[a] == k[i].c) closed[a] = true;
            open--;
        }
    }
    atomic_fetch_add(&m->got, got);
    atomic_fetch_add(&m->sum, sum);
    atomic_fetch_add(&m->timeouts, late);
}
static void test_selectors_over_shared_channels_lose_and_double_nothing(void)
{
    enum { WORKERS = 9 };
    for (int procs = 1; procs <= 8; procs *= 2)
        for (int threads = 0; threads < 3; threads++) { /* none, every third, all */
            gort_maxprocs(procs);
            market m = { .n = scaled(threads ? 300 : 1500, 50), .sending = group() };
            int64_t total = WORKERS * m.n;
            m.seen = calloc((size_t)total, 1);
            for (int i = 0; i < CHANS; i++) m.c[i] = gort_chan_new(GORT_I64, (size_t)(i / 2));
            CHECK_OK(gort_wg_add(m.sending, WORKERS));
            gort_wg *wg = group();
            for (int i = 0; i < WORKERS; i++) start(wg, threads == 2 || (threads && i % 3 == 0), trade, &m);
            finish(m.sending);
            for (int i = 0; i < CHANS; i++) CHECK_OK(gort_chan_close(m.c[i]));
            finish(wg);
            CHECK_EQ(m.got, total);
            CHECK_EQ(m.sum, total * (total - 1) / 2);
            for (int64_t i = 0; i < total; i++) CHECK_EQ(atomic_load(&m.seen[i]), 1);
            for (int i = 0; i < CHANS; i++) {
                CHECK(unwatched(m.c[i]));
                gort_chan_unref(m.c[i]);
            }
            free((void *)m.seen);
        }
}

int main(int argc, char **argv)
{
    ctest_begin(argc, argv);
    RUN(test_bad_arguments_are_refused);
    RUN(test_nothing_ready);
    RUN(test_ready_cases);
    RUN(test_elements_keep_their_width);
    RUN(test_the_same_in_a_goroutine);
    RUN(test_the_choice_among_ready_ones_is_uniform);
    RUN(test_one_to_a_hundred_cases_wake_by_each);
    RUN(test_a_channel_in_several_cases);
    RUN(test_senders_and_receivers_in_one_meet_others_only);
    RUN(test_close_of_several_races_with_the_wait);
    RUN(test_selectors_over_shared_channels_lose_and_double_nothing);
    return ctest_end();
}
