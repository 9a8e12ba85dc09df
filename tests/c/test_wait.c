/* test_wait.c - the wait word: one claim wins, none is lost; wait queues; done channels. */
#include "ctest.h"

/* ---- the word ------------------------------------------------------------------ */
static void test_claim_wins_once_and_late_ones_lose(void)
{
    G *g = getg_waiter(false);
    uint64_t t1 = wait_begin(g);
    CHECK_EQ(wait_claim(g, t1 + ((uint64_t)1 << 24), WC_OK, 0), 0); /* not its ticket */
    CHECK_EQ(wait_claim(g, t1, WC_OK, 5), 1);                       /* not parked */
    CHECK_EQ(wait_claim(g, t1, WC_CLOSED, 6), 0);
    uint64_t w = wait_park(g, t1, R_SYSTEM, &wait_forever_native);
    CHECK_EQ(WK_CODE(w), WC_OK);
    CHECK_EQ(WK_INDEX(w), 5);
    CHECK(WK_SEQ(w) == t1);
    uint64_t t2 = wait_begin(g);
    CHECK(t2 != t1 && WK_SEQ(t2) == t2);
    CHECK_EQ(wait_claim(g, t1, WC_OK, 0), 0); /* late */
    CHECK_EQ(wait_claim(g, t2, WC_TIMEOUT, WK_MAXINDEX), 1);
    w = wait_park(g, t2, R_SYSTEM, &wait_forever_native);
    CHECK_EQ(WK_CODE(w), WC_TIMEOUT);
    CHECK_EQ(WK_INDEX(w), WK_MAXINDEX);
}

static void test_codes_and_errors(void)
{
    static const int map[][2] = {
        { WC_OK, GORT_OK }, { WC_CLOSED, GORT_ECLOSED }, { WC_TIMEOUT, GORT_ETIMEDOUT }, { WC_KILL, GORT_EKILLED },
        { WC_DEADLOCK, GORT_EDEADLOCK }, { WC_INTR, GORT_EINTR }, { WC_CTX, GORT_ECTX }, { WC_NOMEM, GORT_ENOMEM },
    };
    for (size_t i = 0; i < COUNT(map); i++) CHECK_EQ(wait_error(map[i][0]), map[i][1]);
    for (int i = 1; i < R_COUNT_; i++) CHECK(gort_reasons[i] && gort_reasons[i][0]);
}

/* A waiter, and claimers that all go for the same ticket. Each round has one
 * winner, whose index the waiter finds. */
enum { CLAIMERS = 4 };
typedef struct contest {
    G *g;
    uint64_t ticket;
    int64_t rounds;
    int64_t deadline_ns;        /* 0: none */
    _Atomic int64_t round;      /* of the waiter */
    _Atomic int64_t done[CLAIMERS];
    _Atomic int wins;
    _Atomic int winner;
    _Atomic int late_wins;
    int64_t timeouts;
} contest;
typedef struct claimer { contest *c; int i; } claimer;

static void contend(void *p)
{
    claimer *me = p;
    contest *c = me->c;
    uint64_t old = 0;
    G *old_g = NULL;
    for (int64_t r = 1; r <= c->rounds; r++) {
        UNTIL(atomic_load(&c->round) >= r);
        if (old && wait_claim(old_g, old, WC_OK, me->i)) atomic_fetch_add(&c->late_wins, 1);
        old = c->ticket;
        old_g = c->g;
        for (int k = (int)((uint64_t)r * (uint64_t)(me->i + 3) % 7) * 20; k > 0; k--) os_pause();
        int won = wait_claim(c->g, c->ticket, WC_OK, me->i);
        if (won) {
            atomic_fetch_add(&c->wins, 1);
            atomic_store(&c->winner, me->i);
            if (won == 2) g_ready(c->g);
        }
        atomic_store(&c->done[me->i], r);
    }
}
static void be_claimed(void *p)
{
    contest *c = p;
    for (int64_t r = 1; r <= c->rounds; r++) {
        c->g = getg_waiter(false);
        c->ticket = wait_begin(c->g);
        waitopt o = wait_forever_native;
        if (c->deadline_ns) o = within(r % c->deadline_ns);
        atomic_store(&c->round, r);
        for (int k = (int)(r % 5) * 30; k > 0; k--) os_pause();
        uint64_t w = wait_park(c->g, c->ticket, R_SYSTEM, &o);
        for (int i = 0; i < CLAIMERS; i++) UNTIL(atomic_load(&c->done[i]) >= r);
        if (WK_CODE(w) == WC_TIMEOUT) {
            CHECK(c->deadline_ns);
            CHECK(gort_now_ns() >= o.deadline);
            CHECK_EQ(atomic_load(&c->wins), 0);
            c->timeouts++;
        } else {
            CHECK_EQ(WK_CODE(w), WC_OK);
            CHECK_EQ(atomic_load(&c->wins), 1);
            CHECK_EQ(WK_INDEX(w), atomic_load(&c->winner));
        }
        CHECK(WK_SEQ(w) == c->ticket);
        atomic_store(&c->wins, 0);
    }
}
static void hold_contest(bool waiter_thread, int claimer_threads, int64_t rounds, int64_t deadline_ns)
{
    contest c = { .rounds = rounds, .deadline_ns = deadline_ns };
    claimer k[CLAIMERS];
    gort_wg *wg = group();
    start(wg, waiter_thread, be_claimed, &c);
    for (int i = 0; i < CLAIMERS; i++) {
        k[i] = (claimer){ &c, i };
        start(wg, i < claimer_threads, contend, &k[i]);
    }
    finish(wg);
    CHECK_EQ(atomic_load(&c.late_wins), 0);
}
static void contests(double rounds, int64_t deadline_ns)
{
    for (int procs = 1; procs <= 4; procs *= 2)
        for (int thread = 0; thread < 2; thread++)
            for (int claimer_threads = 0; claimer_threads <= CLAIMERS; claimer_threads += CLAIMERS / 2) {
                gort_maxprocs(procs);
                hold_contest(thread, claimer_threads, scaled(rounds, 50), deadline_ns);
            }
}
static void test_one_of_several_claimers_wins(void) { contests(1000, 0); }
static void test_claims_race_with_timeouts(void) { contests(500, 60000); }

/* ---- the claim meets the park at any moment ----------------------------------------- */
typedef struct handoff { G *_Atomic g; uint64_t ticket; int64_t rounds; } handoff;
static void claim_at_once(void *p)
{
    handoff *h = p;
    for (int64_t r = 0; r < h->rounds; r++) {
        G *g;
        for (int n = 0; !(g = atomic_exchange(&h->g, NULL)); n++)
            if (n % 64 == 63) os_yield_cpu();
        uint64_t ticket = h->ticket;
        for (int64_t k = r % 100; k > 0; k--) os_pause();
        CHECK(wait_wake(g, ticket, WC_OK, (int)(r % WK_MAXINDEX)));
    }
}
static void park_at_once(void *p)
{
    handoff *h = p;
    for (int64_t r = 0; r < h->rounds; r++) {
        G *g = getg_waiter(false);
        uint64_t ticket = wait_begin(g);
        h->ticket = ticket;
        atomic_store(&h->g, g);
        CHECK_EQ(WK_INDEX(wait_park(g, ticket, R_SYSTEM, &wait_forever_native)), r % WK_MAXINDEX);
    }
}

static void test_claim_at_any_moment_of_parking_is_kept(void)
{
    for (int procs = 1; procs <= 4; procs++)
        for (int thread = 0; thread < 2; thread++) {
            gort_maxprocs(procs);
            handoff h = { .rounds = scaled(TSAN ? 5000 : 20000, 500) };
            gort_wg *wg = group();
            start(wg, thread, park_at_once, &h);
            start(wg, true, claim_at_once, &h);
            finish(wg);
        }
}

static int interrupted;
static G *_Atomic victim;
static void be_interrupted(void *p)
{
    (void)p;
    G *g = getg_waiter(false);
    uint64_t t = wait_begin(g);
    atomic_store(&victim, g);
    interrupted = WK_CODE(wait_park(g, t, R_SYSTEM, &wait_forever_native));
}

static void test_interrupt_ends_any_wait_and_no_other(void)
{
    for (int thread = 0; thread < 2; thread++) {
        gort_wg *wg = group();
        atomic_store(&victim, NULL);
        start(wg, thread, be_interrupted, NULL);
        UNTIL(atomic_load(&victim) && wait_interrupt(atomic_load(&victim), WC_KILL));
        CHECK(!wait_interrupt(atomic_load(&victim), WC_KILL));
        finish(wg);
        CHECK_EQ(interrupted, WC_KILL);
    }
    CHECK(!wait_interrupt(getg_waiter(false), WC_KILL)); /* it runs */
}

/* ---- queues --------------------------------------------------------------------------- */
static void in_queue(waitq *q, sudog *const *want, int n)
{
    sudog *prev = NULL, *s = q->first;
    for (int i = 0; i < n; i++, prev = s, s = s->next) {
        CHECK(s == want[i]);
        CHECK(s->prev == prev && s->q == q);
    }
    CHECK(!s && q->last == prev);
}

static void test_queue_against_a_model(void)
{
    enum { N = 8 };
    waitq q = {0};
    sudog s[N] = {0}, *model[N];
    int n = 0;
    rnd r = { 11 };
    for (int step = 0; step < 20000; step++) {
        sudog *x = &s[rnd_below(&r, N)];
        if (x->q) {
            int at = 0;
            while (model[at] != x) at++;
            memmove(&model[at], &model[at + 1], sizeof *model * (size_t)(--n - at));
            waitq_remove(x);
            CHECK(!x->q);
        } else if (rnd_below(&r, 2)) {
            model[n++] = x;
            waitq_push(&q, x);
        } else {
            memmove(&model[1], &model[0], sizeof *model * (size_t)n++);
            model[0] = x;
            waitq_push_front(&q, x);
        }
        in_queue(&q, model, n);
    }
}

static void test_give_and_take_skip_who_is_claimed(void)
{
    G *g = getg_waiter(false), *ready = g;
    uint64_t v = 0;
    for (int take = 0; take < 2; take++) {
        waitq q = {0};
        uint64_t old = wait_begin(g), ticket;
        CHECK_EQ(wait_claim(g, old, WC_TIMEOUT, 0), 1);
        ticket = wait_begin(g);
        sudog a = { .g = g, .ticket = old, .val = 1 }, b = { .g = g, .ticket = ticket, .val = 2, .index = 9 },
              c = { .g = g, .ticket = ticket, .val = 3 };
        waitq_push(&q, &a);
        waitq_push(&q, &b);
        waitq_push(&q, &c);
        CHECK(take ? waitq_take(&q, &v, WC_OK, &ready) : waitq_give(&q, 77, WC_OK, &ready));
        CHECK(!ready); /* it has not parked */
        CHECK(!a.q && !b.q && c.q == &q);
        if (take) CHECK_EQ(v, 2);
        else CHECK_EQ(b.val, 77);
        CHECK_EQ(WK_INDEX(atomic_load(&g->wake)), 9);
        v = 55; /* the same waiter twice: it is claimed already */
        CHECK(!(take ? waitq_take(&q, &v, WC_OK, &ready) : waitq_give(&q, 78, WC_OK, &ready)));
        CHECK_EQ(v, 55);
        CHECK(!q.first && !q.last);
    }
}

/* ---- a context's done channel ------------------------------------------------------------ */
typedef struct ctxwait { gort_chan *c, *done; int r; int64_t v; _Atomic int *begun; int dir; } ctxwait;
static void wait_with_done(void *p)
{
    ctxwait *w = p;
    waitopt o = { .deadline = GORT_FOREVER, .done = w->done };
    uint64_t v = 99;
    if (w->begun) atomic_fetch_add(w->begun, 1);
    w->r = w->dir == GORT_SEND ? chan_send(w->c, 7, true, &o) : chan_recv(w->c, &v, true, &o);
    w->v = (int64_t)v;
}

static void test_done_channel_ends_a_wait(void)
{
    for (int i = 0; i < 8; i++) { /* 1: a thread, 2: send, 4: done before the wait */
        ctxwait w = { .c = gort_chan_new(GORT_I64, 0), .done = gort_chan_new(GORT_I64, 0), .dir = i >> 1 & 1 };
        gort_wg *wg = group();
        if (i & 4) CHECK_OK(gort_chan_close(w.done));
        start(wg, i & 1, wait_with_done, &w);
        if (!(i & 4)) {
            UNTIL(receivers(w.done) == 1);
            CHECK_OK(gort_chan_close(w.done));
        }
        finish(wg);
        CHECK_EQ(w.r, GORT_ECTX);
        CHECK(!w.c->recvq.first && !w.c->sendq.first && !w.done->recvq.first);
        gort_chan_unref(w.c);
        gort_chan_unref(w.done);
    }
}

static void test_done_channel_loses_to_the_event(void)
{
    ctxwait w = { .c = gort_chan_new(GORT_I64, 0), .done = gort_chan_new(GORT_I64, 0), .dir = GORT_RECV };
    gort_wg *wg = group();
    int64_t v = 5;
    start(wg, false, wait_with_done, &w);
    UNTIL(receivers(w.done) == 1);
    CHECK_OK(gort_chan_send(w.c, &v));
    CHECK_OK(gort_chan_close(w.done));
    finish(wg);
    CHECK_OK(w.r);
    CHECK_EQ(w.v, 5);
    CHECK(!w.done->recvq.first);
    gort_chan_unref(w.c);
    gort_chan_unref(w.done);
}

static void close_it(void *c) { CHECK_OK(gort_chan_close(c)); }
static void try_to_send(void *p)
{
    ctxwait *w = p;
    int64_t v = 5;
    w->r = GORT_EAGAIN;
    for (int i = 0; i < 200 && w->r == GORT_EAGAIN; i++) w->r = gort_chan_try_send(w->c, &v);
}

static void test_done_races_with_a_send(void)
{   /* the send succeeded if and only if the receive did */
    int both[2] = {0};
    for (int64_t round = scaled(3000, 200); round > 0; round--) {
        gort_maxprocs(1 + (int)(round % 4));
        ctxwait w = { .c = gort_chan_new(GORT_I64, 0), .done = gort_chan_new(GORT_I64, 0), .dir = GORT_RECV }, s = w;
        gort_wg *wg = group();
        start(wg, round % 5 == 0, wait_with_done, &w);
        if (round % 3) UNTIL(receivers(w.c) == 1);
        start(wg, false, try_to_send, &s);
        start(wg, round % 7 == 0, close_it, w.done);
        finish(wg);
        CHECK(w.r == GORT_OK || w.r == GORT_ECTX);
        CHECK_EQ(s.r == GORT_OK, w.r == GORT_OK);
        if (w.r == GORT_OK) CHECK_EQ(w.v, 5);
        CHECK(!w.c->recvq.first && !w.done->recvq.first);
        both[w.r == GORT_OK]++;
        gort_chan_unref(w.c);
        gort_chan_unref(w.done);
    }
}

/* ---- plain threads that come and go ---------------------------------------------------------- */
static void *one_exchange(void *p)
{
    gort_chan **c = p;
    int64_t v = os_gettid(), back;
    CHECK_OK(gort_chan_send(c[0], &v));
    CHECK_OK(gort_chan_recv(c[1], &back));
    return NULL;
}
static void echo_n(void *p)
{
    handoff *h = p;
    gort_chan **c = (gort_chan **)(void *)h->g;
    int64_t v;
    for (int64_t i = 0; i < h->rounds; i++) {
        CHECK_OK(gort_chan_recv(c[0], &v));
        CHECK_OK(gort_chan_send(c[1], &v));
    }
}

static void test_short_lived_threads_reuse_wait_records(void)
{
    int64_t n = scaled(500, 50);
    gort_chan *c[2] = { gort_chan_new(GORT_I64, 0), gort_chan_new(GORT_I64, 0) };
    handoff h = { .g = (G *)(void *)c, .rounds = 8 * n };
    gort_wg *wg = group();
    start(wg, false, echo_n, &h);
    for (int64_t i = 0; i < n; i++) {
        pthread_t th[8];
        for (int k = 0; k < 8; k++) CHECK(pthread_create(&th[k], NULL, one_exchange, c) == 0);
        for (int k = 0; k < 8; k++) pthread_join(th[k], NULL);
    }
    finish(wg);
    gort_chan_unref(c[0]);
    gort_chan_unref(c[1]);
}

/* A thread's last waits may be in destructors of thread-local data, after gort's
 * own has run: its record must not be another thread's by then. */
static pthread_key_t late_key;
static gort_chan *late_chan;
static _Atomic int late_results;
static G *late_g;
static void wait_in_destructor(void *p)
{
    int64_t v = 0;
    (void)p;
    late_g = getg_waiter(false);
    CHECK_OK(gort_chan_recv(late_chan, &v));
    CHECK_EQ(v, 6);
    atomic_fetch_add(&late_results, 1);
}
static void *wait_late(void *p)
{
    int64_t v;
    CHECK_EQ(gort_chan_recv_timeout(NULL, &v, 1000), GORT_ETIMEDOUT); /* it has a record now */
    CHECK(pthread_setspecific(late_key, p) == 0);
    return NULL;
}
static void *whose_record(void *p)
{
    *(G **)p = getg_waiter(false);
    return NULL;
}

static void test_wait_in_a_thread_local_destructor(void)
{
    pthread_t a, b;
    G *g = NULL;
    int64_t v = 6;
    getg_waiter(false); /* gort's key is made before ours, so its destructor comes first */
    CHECK(pthread_key_create(&late_key, wait_in_destructor) == 0);
    late_chan = gort_chan_new(GORT_I64, 0);
    CHECK(pthread_create(&a, NULL, wait_late, late_chan) == 0);
    UNTIL(receivers(late_chan) == 1);
    CHECK(pthread_create(&b, NULL, whose_record, &g) == 0);
    pthread_join(b, NULL);
    CHECK_OK(gort_chan_send(late_chan, &v));
    pthread_join(a, NULL);
    CHECK_EQ(atomic_load(&late_results), 1);
    CHECK(g != late_g);
    pthread_key_delete(late_key);
    gort_chan_unref(late_chan);
}

int main(int argc, char **argv)
{
    ctest_begin(argc, argv);
    RUN(test_claim_wins_once_and_late_ones_lose);
    RUN(test_codes_and_errors);
    RUN(test_one_of_several_claimers_wins);
    RUN(test_claims_race_with_timeouts);
    RUN(test_claim_at_any_moment_of_parking_is_kept);
    RUN(test_interrupt_ends_any_wait_and_no_other);
    RUN(test_queue_against_a_model);
    RUN(test_give_and_take_skip_who_is_claimed);
    RUN(test_done_channel_ends_a_wait);
    RUN(test_done_channel_loses_to_the_event);
    RUN(test_done_races_with_a_send);
    RUN(test_short_lived_threads_reuse_wait_records);
    RUN(test_wait_in_a_thread_local_destructor);
    return ctest_end();
}
