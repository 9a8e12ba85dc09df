/* test_sched.c - spawn, yield, stealing, idle Ms, changing the number of Ps, sleep. */
#include "ctest.h"

#include <math.h>

/* ---- starting goroutines ------------------------------------------------------ */
static _Atomic int64_t counter;
static void count_one(void *p) { (void)p; atomic_fetch_add(&counter, 1); }

static void test_go_without_function_is_refused(void) { CHECK_EQ(gort_go(NULL, NULL), GORT_EINVAL); }

static void test_spawn_from_a_thread_runs_each_once(void)
{
    int64_t n = scaled(TSAN ? 5000 : 50000, 500);
    for (int procs = 1; procs <= 4; procs *= 2) {
        gort_maxprocs(procs);
        atomic_store(&counter, 0);
        for (int64_t i = 0; i < n; i++) {
            go(count_one, NULL);
            if (TSAN && i % 500 == 0) ctest_settle(); /* its fibers are limited */
        }
        ctest_settle();
        CHECK_EQ(atomic_load(&counter), n);
    }
}

static void *spawn_thread(void *p)
{
    for (int64_t i = *(int64_t *)p; i > 0; i--) {
        go(count_one, NULL);
        if (TSAN && i % 200 == 0) ctest_settle();
    }
    return NULL;
}

static void test_spawn_from_several_threads(void)
{
    int64_t n = scaled(TSAN ? 2000 : 20000, 200);
    pthread_t th[4];
    gort_maxprocs(2);
    atomic_store(&counter, 0);
    for (int i = 0; i < 4; i++) CHECK(pthread_create(&th[i], NULL, spawn_thread, &n) == 0);
    for (int i = 0; i < 4; i++) pthread_join(th[i], NULL);
    ctest_settle();
    CHECK_EQ(atomic_load(&counter), 4 * n);
}

/* A tree of goroutines: each leaf counts, each node waits for ten children. */
static int tree_depth;
typedef struct node { gort_chan *up; int depth; int64_t first; } node;
static void tree(void *p)
{
    node *me = p;
    int64_t sum = me->first;
    if (me->depth > 0) {
        int64_t width = 1, v;
        for (int i = 1; i < me->depth; i++) width *= 10;
        node kid[10];
        gort_chan *c = gort_chan_new(GORT_I64, 0);
        for (int i = 0; i < 10; i++) {
            kid[i] = (node){ c, me->depth - 1, me->first + i * width };
            go(tree, &kid[i]);
        }
        sum = 0;
        for (int i = 0; i < 10; i++) {
            CHECK_OK(gort_chan_recv(c, &v));
            sum += v;
        }
        gort_chan_unref(c);
    }
    gort_chan *up = me->up;
    gort_chan_ref(up); /* ours may be the last send that its reader waits for */
    CHECK_OK(gort_chan_send(up, &sum));
    gort_chan_unref(up);
}

static void test_tree_of_goroutines_sums_its_leaves(void)
{
    tree_depth = TSAN ? 3 : ctest_scale() < 0.5 ? 4 : 5;
    for (int procs = 1; procs <= 4; procs *= 2) {
        gort_maxprocs(procs);
        gort_chan *c = gort_chan_new(GORT_I64, 0);
        node root = { c, tree_depth, 0 };
        int64_t sum, n = 1;
        for (int i = 0; i < tree_depth; i++) n *= 10;
        go(tree, &root);
        CHECK_OK(gort_chan_recv(c, &sum));
        CHECK_EQ(sum, n * (n - 1) / 2);
        ctest_settle();
        gort_chan_unref(c);
    }
}

static _Atomic uint64_t ids[1000];
static void note_id(void *p)
{
    uint64_t id = gort_goid();
    gort_yield();
    CHECK(gort_goid() == id);
    atomic_store((_Atomic uint64_t *)p, id);
}
static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void test_goroutine_ids_are_unique_and_kept(void)
{
    gort_maxprocs(4);
    CHECK_EQ(gort_goid(), 0);
    uint64_t seen[2 * COUNT(ids)];
    for (size_t round = 0; round < 2; round++) { /* the second on pooled Gs */
        for (size_t i = 0; i < COUNT(ids); i++) go(note_id, &ids[i]);
        ctest_settle();
        for (size_t i = 0; i < COUNT(ids); i++) seen[round * COUNT(ids) + i] = atomic_load(&ids[i]);
    }
    qsort(seen, COUNT(seen), sizeof *seen, by_value);
    CHECK(seen[0] > 0);
    for (size_t i = 1; i < COUNT(seen); i++) CHECK(seen[i] != seen[i - 1]);
}

/* ---- many at once, and their number ---------------------------------------------- */
static void wait_closed(void *c)
{
    int64_t v = 7;
    CHECK_EQ(gort_chan_recv(c, &v), GORT_ECLOSED);
    CHECK_EQ(v, 0);
}

static void test_ten_thousand_parked_goroutines(void)
{
    int n = TSAN ? 1000 : 10000;
    gort_maxprocs(2);
    gort_chan *c = gort_chan_new(GORT_I64, 0);
    for (int i = 0; i < n; i++) go(wait_closed, c);
    UNTIL(receivers(c) == n);
    CHECK_EQ(gort_num_native(), n);
    CHECK_OK(gort_chan_close(c));
    ctest_settle();
    CHECK_EQ(gort_num_native(), 0);
    gort_chan_unref(c);
}

static _Atomic int stop;
static void spawn_on(void *p)
{
    (void)p;
    while (!atomic_load(&stop)) {
        for (int i = 0; i < 20; i++) go(count_one, NULL);
        gort_yield();
    }
    atomic_store(&stop, 2);
}

static void test_num_native_never_misses_a_living_goroutine(void)
{   /* its counters are spread over the Ps: a sum taken meanwhile may be too
     * high, not too low, or "none is left" would be believed too early */
    gort_maxprocs(4);
    atomic_store(&stop, 0);
    go(spawn_on, NULL);
    int64_t low = INT64_MAX;
    for (int64_t i = scaled(300000, 30000); i > 0; i--) {
        int64_t n = gort_num_native();
        if (n < low) low = n;
    }
    atomic_store(&stop, 1);
    UNTIL(atomic_load(&stop) == 2);
    CHECK(low >= 1);
}

/* ---- yield ------------------------------------------------------------------------ */
typedef struct yielder { _Atomic int64_t n; char pad[56]; } yielder;
static yielder ys[8];
static _Atomic int ys_ready, ys_count;
static void yield_on(void *p)
{
    yielder *y = p;
    atomic_fetch_add(&ys_ready, 1);
    while (atomic_load(&ys_ready) < atomic_load(&ys_count)) gort_yield();
    while (!atomic_load(&stop)) {
        atomic_fetch_add(&y->n, 1);
        gort_yield();
        if (atomic_load(&y->n) == 20000) atomic_store(&stop, 1);
    }
}

static void test_yield_takes_turns_on_one_p(void)
{
    gort_maxprocs(1);
    atomic_store(&stop, 0);
    atomic_store(&ys_ready, 0);
    atomic_store(&ys_count, COUNT(ys));
    for (size_t i = 0; i < COUNT(ys); i++) {
        atomic_store(&ys[i].n, 0);
        go(yield_on, &ys[i]);
    }
    ctest_settle();
    for (size_t i = 0; i < COUNT(ys); i++) CHECK(atomic_load(&ys[i].n) >= 20000 - 2);
}

static void pong(void *p)
{
    gort_chan **c = p;
    int64_t v;
    while (gort_chan_recv(c[0], &v) == GORT_OK) {
        v++;
        CHECK_OK(gort_chan_send(c[1], &v));
    }
}

static void ping(gort_chan **c, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        int64_t v = i;
        CHECK_OK(gort_chan_send(c[0], &v));
        CHECK_OK(gort_chan_recv(c[1], &v));
        CHECK_EQ(v, i + 1);
    }
}
typedef struct pingpong { gort_chan *c[2]; int64_t n; } pingpong;
static void ping_go(void *p)
{
    pingpong *pp = p;
    ping(pp->c, pp->n);
    CHECK_OK(gort_chan_close(pp->c[0]));
}

static void test_two_that_wake_each_other_do_not_starve_a_third(void)
{
    gort_maxprocs(1);
    pingpong pp = { { gort_chan_new(GORT_I64, 0), gort_chan_new(GORT_I64, 0) }, 20000 };
    atomic_store(&stop, 0);
    atomic_store(&ys_ready, 0);
    atomic_store(&ys_count, 1);
    atomic_store(&ys[0].n, 0);
    gort_wg *wg = group();
    go(yield_on, &ys[0]);
    UNTIL(atomic_load(&ys[0].n) > 0);
    int64_t before = atomic_load(&ys[0].n);
    start(wg, false, pong, pp.c);
    start(wg, false, ping_go, &pp);
    finish(wg);
    int64_t turns = atomic_load(&ys[0].n) - before;
    atomic_store(&stop, 1);
    CHECK(turns >= 20000 * 2 / 200 || atomic_load(&ys[0].n) >= 20000);
    ctest_settle();
    gort_chan_unref(pp.c[0]);
    gort_chan_unref(pp.c[1]);
}

static void test_ping_pong(void)
{
    int64_t n = scaled(TSAN ? 5000 : 50000, 500);
    for (int procs = 1; procs <= 4; procs *= 2)
        for (int thread = 0; thread < 2; thread++) { /* with a plain thread on one side */
            gort_maxprocs(procs);
            int64_t rounds = thread ? n / 10 : n;
            pingpong pp = { { gort_chan_new(GORT_I64, 0), gort_chan_new(GORT_I64, 0) }, rounds };
            gort_wg *wg = group();
            start(wg, thread, pong, pp.c);
            start(wg, false, ping_go, &pp);
            finish(wg);
            ctest_settle();
            gort_chan_unref(pp.c[0]);
            gort_chan_unref(pp.c[1]);
        }
}

/* ---- registers and stacks across switches -------------------------------------------- */
static void keep_state(void *p)
{
    int64_t k = (int64_t)(intptr_t)p, a = k, b = k * 3, c = k * 5, d = k * 7, e = k * 11, f = k * 13;
    double x = (double)k, y = x * 0.5;
    char buf[2048];
    CHECK(((uintptr_t)&buf & 0) == 0);
    memset(buf, (int)k, sizeof buf);
    for (int i = 0; i < 200; i++) {
        a += 1, b += 3, c += 5, d += 7, e += 11, f += 13;
        x += 1.0, y += 0.5;
        gort_yield();
    }
    CHECK(a == k + 200 && b == 3 * a && c == 5 * a && d == 7 * a && e == 11 * a && f == 13 * a);
    CHECK(x == (double)a && y == x * 0.5);
    for (size_t i = 0; i < sizeof buf; i++) CHECK(buf[i] == (char)k);
    char text[64]; /* printf of a double needs an aligned stack */
    snprintf(text, sizeof text, "%.1f", x);
    CHECK(atof(text) == x);
}

static void test_registers_and_stack_survive_switches(void)
{
    for (int procs = 1; procs <= 4; procs += 3) {
        gort_maxprocs(procs);
        for (intptr_t i = 0; i < 50; i++) go(keep_state, (void *)i);
        ctest_settle();
    }
}

/* ---- several threads ---------------------------------------------------------------------- */
static _Atomic int arrived, parties;
static _Atomic int tids[64];
/* Computing goroutines here give their time slice to other threads, never to
 * other goroutines. */
static void meet(void *p) /* only as many threads at once get through */
{
    (void)p;
    atomic_store(&tids[atomic_fetch_add(&arrived, 1)], os_gettid());
    while (atomic_load(&arrived) < atomic_load(&parties)) os_yield_cpu();
}
static void meet_from_one(void *p)
{   /* all on one P's queue: the others must steal them, the last its runnext */
    for (int i = 1; i < atomic_load(&parties); i++) go(meet, NULL);
    meet(p);
}

static void test_as_many_threads_run_as_there_are_ps(void)
{
    for (int procs = 2; procs <= 4; procs++) {
        gort_maxprocs(procs);
        for (int64_t round = scaled(200, 20); round > 0; round--) {
            atomic_store(&parties, procs);
            atomic_store(&arrived, 0);
            go(meet_from_one, NULL);
            ctest_settle();
            for (int i = 0; i < procs; i++)
                for (int k = 0; k < i; k++) CHECK(atomic_load(&tids[i]) != atomic_load(&tids[k]));
        }
    }
}

static void test_fewer_ps_lose_no_wake_up(void)
{   /* an M that looks for work on a P too many must not have been counted on */
    atomic_store(&parties, 2);
    for (int64_t round = scaled(3000, 300); round > 0; round--) {
        gort_maxprocs(4);
        for (int i = 0; i < 8; i++) go(count_one, NULL);
        UNTIL(gort_num_native() == 0);
        gort_maxprocs(2);
        atomic_store(&arrived, 0);
        go(meet_from_one, NULL);
        ctest_settle();
    }
}

static _Atomic int flag;
static void await_flag(void *p)
{
    (void)p;
    while (!atomic_load(&flag)) os_yield_cpu();
}
static void yield_to_a_computing_one(void *p)
{
    (void)p;
    go(await_flag, NULL);
    gort_yield();
    atomic_store(&flag, 1);
}

static void test_who_yielded_to_a_computing_one_goes_on_elsewhere(void)
{
    gort_maxprocs(2);
    for (int64_t round = scaled(TSAN ? 2000 : 5000, 200); round > 0; round--) {
        atomic_store(&flag, 0);
        go(yield_to_a_computing_one, NULL);
        ctest_settle();
    }
}

static void spawn_and_compute(void *p)
{
    (void)p;
    go(count_one, NULL);
    while (!atomic_load(&counter)) os_yield_cpu();
}

static void test_the_last_spawned_is_stolen_from_a_computing_one(void)
{
    gort_maxprocs(2);
    for (int64_t round = scaled(TSAN ? 2000 : 5000, 200); round > 0; round--) {
        atomic_store(&counter, 0);
        go(spawn_and_compute, NULL);
        ctest_settle();
    }
}

/* ---- changing the number of Ps --------------------------------------------------------------- */
static void test_maxprocs_returns_what_was(void)
{
    gort_maxprocs(3);
    CHECK_EQ(gort_maxprocs(0), 3);
    CHECK_EQ(gort_maxprocs(-5), 3);
    CHECK_EQ(gort_maxprocs(5), 3);
    CHECK_EQ(gort_maxprocs(1), 5);
    CHECK_EQ(gort_maxprocs(MAXPROCS + 1000), 1);
    CHECK_EQ(gort_maxprocs(2), MAXPROCS);
}

static void load(void *p)
{
    pingpong *pp = p;
    for (int64_t i = 0; i < pp->n; i++) {
        int64_t v = i;
        CHECK_OK(gort_chan_send(pp->c[0], &v));
        if (i % 7 == 0) gort_yield();
        if (i % 31 == 0) CHECK_OK(gort_sleep_ns(20000));
        if (i % 5 == 0) go(count_one, NULL);
        CHECK_OK(gort_chan_recv(pp->c[1], &v));
        CHECK_EQ(v, i + 1);
    }
    CHECK_OK(gort_chan_close(pp->c[0]));
}

static void test_maxprocs_up_and_down_under_load(void)
{
    enum { N = 16 };
    pingpong pp[N];
    gort_wg *wg = group();
    int64_t n = scaled(TSAN ? 300 : 1000, 100);
    rnd r = { 5 };
    atomic_store(&counter, 0);
    for (int i = 0; i < N; i++) {
        pp[i] = (pingpong){ { gort_chan_new(GORT_I64, 0), gort_chan_new(GORT_I64, (size_t)i % 2) }, n };
        start(wg, false, pong, pp[i].c);
        start(wg, i % 8 == 7, load, &pp[i]);
    }
    int changes = 0;
    for (waitopt o = within(0); gort_num_native() > 0; changes++, o = within(0)) {
        (void)o;
        int procs = 1 + (int)rnd_below(&r, 8), was = gort_maxprocs(procs);
        CHECK(was >= 1 && was <= MAXPROCS);
        CHECK_EQ(gort_maxprocs(0), procs);
        nanosleep(&(struct timespec){ .tv_nsec = (long)rnd_below(&r, 400) * 1000 }, NULL);
    }
    finish(wg);
    ctest_settle();
    CHECK(changes > 0);
    CHECK_EQ(atomic_load(&counter), N * ((n + 4) / 5));
    for (int i = 0; i < N; i++) {
        gort_chan_unref(pp[i].c[0]);
        gort_chan_unref(pp[i].c[1]);
    }
}

static void sleep_a_little(void *p)
{
    CHECK_OK(gort_sleep_ns((int64_t)(intptr_t)p * MS));
    atomic_fetch_add(&counter, 1);
}

static void test_timers_of_a_retired_p_still_fire(void)
{
    atomic_store(&counter, 0);
    gort_maxprocs(8);
    for (intptr_t i = 0; i < 200; i++) go(sleep_a_little, (void *)(20 + i % 10));
    while (atomic_load(&gort_native.npidle) < 8) gort_yield();
    gort_maxprocs(1);
    int64_t start_ns = gort_now_ns();
    ctest_settle();
    CHECK_EQ(atomic_load(&counter), 200);
    CHECK(gort_now_ns() - start_ns < 2000 * MS);
}

/* ---- sleep ---------------------------------------------------------------------------------------- */
static void test_sleep_is_never_short(void)
{
    int64_t t = gort_now_ns();
    CHECK_OK(gort_sleep_ns(0));
    CHECK_OK(gort_sleep_ns(-5));
    CHECK_OK(gort_sleep_ns(INT64_MIN));
    CHECK(gort_now_ns() - t < 500 * MS);
    t = gort_now_ns();
    CHECK_OK(gort_sleep_ns(3 * MS)); /* a plain thread */
    CHECK(gort_now_ns() - t >= 3 * MS);
}

typedef struct sleeper { int64_t ns, late; } sleeper;
static void sleep_once(void *p)
{
    sleeper *s = p;
    int64_t t = gort_now_ns();
    CHECK_OK(gort_sleep_ns(s->ns));
    s->late = gort_now_ns() - t - s->ns;
}

static void test_many_sleepers_wake_in_time(void)
{
    int n = TSAN ? 500 : 5000;
    sleeper *s = calloc((size_t)n, sizeof *s);
    rnd r = { 1 };
    for (int procs = 1; procs <= 4; procs *= 2) {
        gort_maxprocs(procs);
        for (int i = 0; i < n; i++) {
            s[i].ns = rnd_below(&r, 30000000);
            go(sleep_once, &s[i]);
        }
        ctest_settle();
        int64_t late = 0;
        for (int i = 0; i < n; i++) {
            CHECK(s[i].late >= 0);
            if (s[i].late > late) late = s[i].late;
        }
        CHECK(late < 2000 * MS);
    }
    free(s);
}

static void wait_long(void *c)
{
    int64_t v;
    CHECK_EQ(gort_chan_recv_timeout(c, &v, 30000 * MS), GORT_ECLOSED);
}

/* An M that sleeps until a late timer must not make others miss early ones. */
static void test_short_sleep_beside_a_long_one(void)
{
    for (int procs = 1; procs <= 4; procs++) {
        gort_maxprocs(procs);
        gort_chan *c = gort_chan_new(GORT_I64, 0);
        go(wait_long, c);
        UNTIL(receivers(c) == 1);
        UNTIL(atomic_load(&gort_native.npidle) == procs);
        for (int i = 0; i < 20; i++) {
            sleeper s[8];
            int64_t t = gort_now_ns();
            for (size_t k = 0; k < COUNT(s); k++) {
                s[k] = (sleeper){ (int64_t)(1 + k) * MS, 0 };
                go(sleep_once, &s[k]);
            }
            UNTIL(gort_num_native() == 1);
            CHECK(gort_now_ns() - t < 2000 * MS);
        }
        CHECK_OK(gort_chan_close(c));
        ctest_settle();
        gort_chan_unref(c);
    }
}

static _Atomic int64_t ticks;
static void tick(void *p)
{
    (void)p;
    while (!atomic_load(&stop)) {
        CHECK_OK(gort_sleep_ns(2 * MS));
        atomic_fetch_add(&ticks, 1);
    }
}
static void compute_on(void *p)
{
    compute_ns((int64_t)(intptr_t)p);
    atomic_store(&stop, 1);
}

static void test_computing_goroutine_does_not_hold_up_timers(void)
{
    for (int procs = 2; procs <= 4; procs++)
        for (int with_long = 0; with_long < 2; with_long++) {
            gort_maxprocs(procs);
            gort_chan *c = gort_chan_new(GORT_I64, 0);
            if (with_long) {
                go(wait_long, c);
                UNTIL(receivers(c) == 1);
            }
            atomic_store(&stop, 0);
            atomic_store(&ticks, 0);
            for (int i = 0; i < procs; i++) go(tick, NULL);
            UNTIL(atomic_load(&ticks) >= procs);
            atomic_store(&ticks, 0);
            go(compute_on, (void *)(intptr_t)(300 * MS));
            UNTIL(atomic_load(&stop));
            /* each would tick 150 times; sysmon looks every 10 ms at the least */
            CHECK(atomic_load(&ticks) >= procs * 5);
            gort_chan_close(c);
            ctest_settle();
            gort_chan_unref(c);
        }
}

/* ---- rest ------------------------------------------------------------------------------------------ */
static int64_t cpu_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void test_idle_runtime_uses_no_cpu(void)
{
    gort_maxprocs(4);
    gort_chan *c = gort_chan_new(GORT_I64, 0);
    for (int i = 0; i < 20; i++) go(wait_long, c); /* with timers far away */
    UNTIL(receivers(c) == 20);
    nanosleep(&(struct timespec){ .tv_nsec = 50 * MS }, NULL);
    int64_t t = cpu_ns();
    nanosleep(&(struct timespec){ .tv_nsec = 300 * MS }, NULL);
    t = cpu_ns() - t;
    CHECK(t < 60 * MS);
    CHECK_EQ(atomic_load(&gort_native.nmspinning), 0);
    CHECK_OK(gort_chan_close(c));
    ctest_settle();
    gort_chan_unref(c);
}

static void test_number_of_threads_stays_small(void)
{   /* Ms are made when no idle one is there, and never freed */
    CHECK(gort_native.nm < 64);
}

int main(int argc, char **argv)
{
    ctest_begin(argc, argv);
    RUN(test_go_without_function_is_refused);
    RUN(test_spawn_from_a_thread_runs_each_once);
    RUN(test_spawn_from_several_threads);
    RUN(test_tree_of_goroutines_sums_its_leaves);
    RUN(test_goroutine_ids_are_unique_and_kept);
    RUN(test_ten_thousand_parked_goroutines);
    RUN(test_num_native_never_misses_a_living_goroutine);
    RUN(test_yield_takes_turns_on_one_p);
    RUN(test_two_that_wake_each_other_do_not_starve_a_third);
    RUN(test_ping_pong);
    RUN(test_registers_and_stack_survive_switches);
    RUN(test_as_many_threads_run_as_there_are_ps);
    RUN(test_fewer_ps_lose_no_wake_up);
    RUN(test_who_yielded_to_a_computing_one_goes_on_elsewhere);
    RUN(test_the_last_spawned_is_stolen_from_a_computing_one);
    RUN(test_maxprocs_returns_what_was);
    RUN(test_maxprocs_up_and_down_under_load);
    RUN(test_timers_of_a_retired_p_still_fire);
    RUN(test_sleep_is_never_short);
    RUN(test_many_sleepers_wake_in_time);
    RUN(test_short_sleep_beside_a_long_one);
    RUN(test_computing_goroutine_does_not_hold_up_timers);
    RUN(test_idle_runtime_uses_no_cpu);
    RUN(test_number_of_threads_stays_small);
    return ctest_end();
}
