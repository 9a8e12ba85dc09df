/* test_faults.c - memory, threads and guards that are not to be had: what each call
 * returns then, and that everything goes on afterwards.
 *
 * Each in a process of its own (CHILD), where there is no pool to live on yet.
 */
#include "ctest.h"

static void fail_off(void)
{
    for (int i = 0; i < OS_FAIL_COUNT_; i++) os_fail_set(i, 0, 0);
}

/* ---- everything works ------------------------------------------------------------------ */
static void count_one(void *n) { atomic_fetch_add((_Atomic int64_t *)n, 1); }
typedef struct pair { gort_chan *a, *b; int64_t n, sum; } pair;
static void pass_on(void *arg)
{
    pair *p = arg;
    int64_t v;
    while (gort_chan_recv(p->a, &v) == GORT_OK) {
        if (v % 16 == 0) CHECK_OK(gort_sleep_ns(1000));
        CHECK_OK(gort_chan_send(p->b, &v));
    }
    CHECK_OK(gort_chan_close(p->b));
}
static void feed(void *arg)
{
    pair *p = arg;
    for (int64_t v = 0; v < p->n; v++) CHECK_OK(gort_chan_send_timeout(p->a, &v, 10000 * MS));
    CHECK_OK(gort_chan_close(p->a));
}
static void all_is_well(void)
{
    fail_off();
    enum { N = TSAN ? 100 : 500 }; /* it makes a fiber for each */
    _Atomic int64_t n = 0;
    for (int i = 0; i < N; i++) go(count_one, (void *)&n);
    UNTIL(atomic_load(&n) == N);
    pair p = { gort_chan_new(GORT_I64, 0), gort_chan_new(GORT_I64, 2), 200, 0 };
    gort_chan *idle[9];
    gort_case k[10];
    for (int i = 0; i < 9; i++) k[i] = (gort_case){ .c = idle[i] = gort_chan_new(GORT_U8, 1), .dir = GORT_RECV };
    int64_t v, got = 0;
    k[9] = (gort_case){ .c = p.b, .dir = GORT_RECV, .elem = &v };
    gort_wg *wg = group();
    start(wg, false, feed, &p);
    start(wg, false, pass_on, &p);
    for (; CHECK(gort_select(k, 10, 20000 * MS) == 9), k[9].ok; got++) p.sum += v;
    CHECK_EQ(got, p.n);
    CHECK_EQ(p.sum, p.n * (p.n - 1) / 2);
    finish(wg);
    native_job *j = job_start(count_one, (void *)&n);
    CHECK(j != NULL);
    CHECK_OK(job_join(j, &wait_forever_native));
    job_unref(j);
    CHECK_EQ(n, N + 1);
    for (int i = 0; i < 9; i++) gort_chan_unref(idle[i]);
    gort_chan_unref(p.a);
    gort_chan_unref(p.b);
    ctest_settle();
}

/* ---- the first goroutine ------------------------------------------------------------------ */
static void refuse(int what, int64_t after)
{
    _Atomic int64_t n = 0;
    os_fail_set(what, after, 1);
    CHECK_EQ(gort_go(count_one, (void *)&n), GORT_ENOMEM);
    CHECK_EQ(gort_num_native(), 0);
    os_fail_set(what, 1, 3);
    for (int i = 0; i < 3; i++) CHECK_EQ(gort_go(count_one, (void *)&n), GORT_ENOMEM);
    CHECK_EQ(atomic_load(&n), 0);
    all_is_well();
}
static void first_go_without_thread(void) { refuse(OS_FAIL_THREAD, 2); /* the first is sysmon's */ }
static void first_go_without_m(void) { refuse(OS_FAIL_MALLOC, 1); }
static void first_go_without_slab(void) { refuse(OS_FAIL_MALLOC, 2); }
static void first_go_without_stack(void) { refuse(OS_FAIL_MMAP, 1); }
static void first_go_without_guard(void) { refuse(OS_FAIL_GUARD, 1); }

static void without_sysmon(void)
{
    os_fail_set(OS_FAIL_THREAD, 1, 1);
    gort_maxprocs(0);
    all_is_well();
}
static void without_further_threads(void)
{
    _Atomic int64_t n = 0;
    go(count_one, (void *)&n);
    UNTIL(atomic_load(&n) == 1);
    os_fail_set(OS_FAIL_THREAD, 1, 1 << 30);
    CHECK(gort_maxprocs(8) >= 1);
    pair p = { gort_chan_new(GORT_I64, 0), gort_chan_new(GORT_I64, 0), 2000, 0 };
    go(feed, &p);
    go(pass_on, &p);
    int64_t v;
    while (gort_chan_recv(p.b, &v) == GORT_OK) p.sum += v;
    CHECK_EQ(p.sum, p.n * (p.n - 1) / 2);
    for (int i = 0; i < 1000; i++) go(count_one, (void *)&n);
    UNTIL(atomic_load(&n) == 1001);
    CHECK(gort_native.nm <= 2);
    gort_chan_unref(p.a);
    gort_chan_unref(p.b);
    UNTIL(atomic_load(&gort_native.nmspinning) == 0);
    all_is_well();
    UNTIL(({ go(count_one, (void *)&n); gort_native.nm > 2; })); /* they come when they can be had */
    all_is_well();
}

/* ---- calls that allocate -------------------------------------------------------------------- */
static void malloc_fails(int64_t after) { os_fail_set(OS_FAIL_MALLOC, after, 1); }

static void channels_groups_jobs(void)
{
    gort_maxprocs(0);
    malloc_fails(1);
    CHECK(!gort_chan_new(GORT_I64, 0));
    malloc_fails(1);
    CHECK(!gort_chan_new(GORT_I64, 3));
    malloc_fails(2);
    CHECK(!gort_chan_new(GORT_I64, 3));
    malloc_fails(1);
    CHECK(!gort_wg_new());
    _Atomic int64_t n = 0;
    malloc_fails(1);
    CHECK(!job_start(count_one, (void *)&n));
    malloc_fails(2);
    CHECK(!job_start(count_one, (void *)&n));
    fail_off();
    if (!SANITIZED) CHECK(!gort_chan_new(GORT_I64, (size_t)1 << 43)); /* of itself: more than there is */
    CHECK_EQ(n, 0);
    all_is_well();
}

static void large_selects(void *arg)
{
    (void)arg;
    gort_chan *c[9];
    gort_case k[9];
    int64_t v = 5;
    for (int i = 0; i < 9; i++) {
        c[i] = gort_chan_new(GORT_I64, (size_t)i % 2);
        k[i] = i == 1 ? (gort_case){ .c = c[i], .dir = GORT_SEND, .elem = &v, .ok = -1 }
                      : (gort_case){ .c = c[i], .dir = GORT_RECV, .elem = &v, .ok = -1 };
    }
    for (int after = 1; after <= 2; after++)
        for (int t = 0; t < 3; t++) {
            malloc_fails(after);
            CHECK_EQ(gort_select(k, 9, t == 2 ? GORT_FOREVER : t), GORT_ENOMEM);
            for (int i = 0; i < 9; i++) CHECK(gort_chan_len(c[i]) == 0 && !receivers(c[i]) && !senders(c[i]) && k[i].ok == -1);
        }
    CHECK_EQ(gort_select(k, 9, GORT_FOREVER), 1);
    CHECK_EQ(gort_chan_len(c[1]), 1);
    malloc_fails(1);
    CHECK_EQ(gort_select(k, 8, 0), GORT_EAGAIN); /* up to eight need no memory */
    fail_off();
    for (int i = 0; i < 9; i++) gort_chan_unref(c[i]);
}
static void selects(void)
{
    large_selects(NULL);
    gort_wg *wg = group();
    start(wg, false, large_selects, NULL);
    finish(wg);
    all_is_well();
}

static void timed_waits_in_goroutine(void *arg)
{
    gort_chan *c = gort_chan_new(GORT_I64, 0);
    int64_t v = 1;
    gort_mutex m = { .shared = true, .locked = true };
    gort_sema s = { .shared = true };
    waitopt o = within(1000 * MS);
    gort_case k = { .c = c, .dir = GORT_RECV, .elem = &v };
    os_fail_set(OS_FAIL_MALLOC, 1, 7); /* this P's first timer */
    CHECK_EQ(gort_sleep_ns(MS), GORT_ENOMEM);
    CHECK_EQ(gort_chan_recv_timeout(c, &v, MS), GORT_ENOMEM);
    CHECK_EQ(gort_chan_send_timeout(c, &v, MS), GORT_ENOMEM);
    CHECK_EQ(gort_select(&k, 1, MS), GORT_ENOMEM);
    CHECK_EQ(mutex_lock(&m, true, &o), GORT_ENOMEM);
    CHECK_EQ(sema_acquire(&s, 1, true, &o), GORT_ENOMEM);
    CHECK_EQ(gort_chan_recv_timeout(NULL, &v, MS), GORT_ENOMEM);
    CHECK_EQ(gort_chan_recv_timeout(c, &v, MS), GORT_ETIMEDOUT); /* from here on there is memory */
    CHECK(!receivers(c) && !senders(c) && !waiting(&m.lock, &m.q) && !waiting(&s.lock, &s.q));
    CHECK_EQ(v, 1);
    gort_chan_unref(c);
    count_one(arg);
}
static void timed_waits(void)
{
    _Atomic int64_t n = 0;
    gort_maxprocs(1);
    go(timed_waits_in_goroutine, (void *)&n);
    UNTIL(atomic_load(&n) == 1);
    os_fail_set(OS_FAIL_MALLOC, 1, 100); /* a thread's wait needs none */
    CHECK_OK(gort_sleep_ns(MS));
    all_is_well();
}

/* ---- at any moment ------------------------------------------------------------------------------ */
typedef struct storm { _Atomic int64_t ran, asked, refused, waits, nomem; } storm;
static void storm_one(void *arg)
{
    storm *s = arg;
    int64_t v = 0;
    gort_chan *c = gort_chan_new(GORT_I64, 1);
    if (c) {
        gort_case k[9];
        for (int i = 0; i < 9; i++) k[i] = (gort_case){ .c = i ? NULL : c, .dir = GORT_RECV, .elem = &v };
        int r = gort_select(k, 9, 20000);
        CHECK(r == GORT_ETIMEDOUT || r == GORT_ENOMEM);
        r = gort_sleep_ns(10000);
        CHECK(r == GORT_OK || r == GORT_ENOMEM);
        atomic_fetch_add(r ? &s->nomem : &s->waits, 1);
        CHECK(!receivers(c));
        gort_chan_unref(c);
    }
    atomic_fetch_add(&s->ran, 1);
}
static void spawn_in_storm(void *arg)
{
    storm *s = arg;
    rnd r = { ctest_seed() };
    for (int64_t i = scaled(TSAN ? 500 : 3000, 200); i > 0; i--) {
        if (rnd_below(&r, 4) == 0)
            os_fail_set((int)rnd_below(&r, OS_FAIL_COUNT_), 1 + rnd_below(&r, 5), 1 + rnd_below(&r, 5));
        int e = gort_go(storm_one, s);
        CHECK(e == GORT_OK || e == GORT_ENOMEM);
        atomic_fetch_add(e ? &s->refused : &s->asked, 1);
        if (rnd_below(&r, 32) == 0) gort_yield();
    }
}
static void a_storm_of_failures(void)
{
    storm s = {0};
    gort_maxprocs(4);
    gort_wg *wg = group();
    for (int i = 0; i < 3; i++) {
        fail_off(); /* for the start itself */
        start(wg, i == 2, spawn_in_storm, &s);
    }
    finish(wg);
    fail_off();
    ctest_settle();
    CHECK_EQ(s.ran, s.asked);
    all_is_well();
}

/* ---- the parent ------------------------------------------------------------------------------------ */
static const struct { const char *name; void (*fn)(void); } children[] = {
#define ONE(f) { #f, f }
    ONE(first_go_without_thread), ONE(first_go_without_m), ONE(first_go_without_slab), ONE(first_go_without_stack),
    ONE(first_go_without_guard), ONE(without_sysmon), ONE(without_further_threads), ONE(channels_groups_jobs),
    ONE(selects), ONE(timed_waits), ONE(a_storm_of_failures),
};
static void test_each_failure_is_reported_and_survived(void)
{
    for (size_t i = 0; i < COUNT(children); i++)
        for (int procs = 0; procs < 2; procs++)
            ctest_child_ok(children[i].name, (const char *[]){ procs ? "GOMAXPROCS=4" : "GOMAXPROCS=1", NULL });
}
static void test_injection_counts_as_told(void)
{
    static const struct { int64_t after, times; const char *fails; } t[] = {
        { 1, 1, "x...." }, { 2, 1, ".x..." }, { 1, 3, "xxx.." }, { 3, 2, "..xx." }, { 1, 0, "....." },
    };
    for (size_t i = 0; i < COUNT(t); i++) {
        os_fail_set(OS_FAIL_GUARD, t[i].after, t[i].times);
        for (int k = 0; k < 5; k++) {
            CHECK(!os_fail(OS_FAIL_MMAP));
            CHECK_EQ(os_fail(OS_FAIL_GUARD), t[i].fails[k] == 'x');
        }
    }
    fail_off();
}

int main(int argc, char **argv)
{
    ctest_begin(argc, argv);
    for (size_t i = 0; i < COUNT(children); i++)
        if (argc > 1 && strcmp(argv[1], children[i].name) == 0) {
            ctest_name = children[i].name;
            children[i].fn();
            return 0;
        }
    RUN(test_injection_counts_as_told);
    RUN(test_each_failure_is_reported_and_survived);
    return ctest_end();
}
