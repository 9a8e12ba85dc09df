/* test_runq.c - run queues: order, overflow, stealing; an owner and its thieves.
 *
 * The queues are a domain's of our own that runs nothing, so Gs are only counted.
 */
#include "ctest.h"

static P *new_p(Dom *d, int id)
{
    P *p = aligned_alloc(64, (sizeof *p + 63) / 64 * 64);
    memset(p, 0, sizeof *p);
    p->id = id;
    p->dom = d;
    atomic_store(&d->allp[id], p);
    d->nallp = id + 1;
    d->nprocs = id + 1;
    return p;
}
static void free_ps(Dom *d)
{
    for (int i = 0; i < d->nallp; i++) free(atomic_load(&d->allp[i]));
    memset(d, 0, sizeof *d);
}
static Dom dom;
static G gs[1024];

/* The i-th of what comes out is number want[i]. */
static void comes_out(P *p, const int *want, int n)
{
    for (int i = 0; i < n; i++) {
        G *g = runq_get(p);
        CHECK(g != NULL);
        CHECK_EQ(g - gs, want[i]);
    }
    CHECK(!runq_get(p) && runq_empty(p));
}

static void test_first_in_first_out_but_for_the_next(void)
{
    for (int solo = 0; solo < 2; solo++)
        for (uint32_t at = 0; at < 2; at++) {
            P *p = new_p(&dom, 0);
            p->solo = solo;
            atomic_store(&p->runq_head, at * (UINT32_MAX - 1)); /* the indices wrap around */
            atomic_store(&p->runq_tail, at * (UINT32_MAX - 1));
            CHECK(runq_empty(p) && !runq_get(p));
            for (int i = 0; i < 4; i++) runq_put(p, &gs[i], false);
            CHECK(!runq_empty(p));
            comes_out(p, (int[]){ 0, 1, 2, 3 }, 4);
            runq_put(p, &gs[0], false);
            runq_put(p, &gs[1], true);
            runq_put(p, &gs[2], true); /* kicks 1 out to the end of the ring */
            runq_put(p, &gs[3], false);
            comes_out(p, (int[]){ 2, 0, 1, 3 }, 4);
            runq_put(p, &gs[5], true);
            CHECK(!runq_empty(p));
            comes_out(p, (int[]){ 5 }, 1);
            free_ps(&dom);
        }
}

static void test_the_next_does_not_starve_the_ring(void)
{
    P *p = new_p(&dom, 0);
    runq_put(p, &gs[0], false);
    int n = 0;
    for (;; n++) {
        runq_put(p, &gs[1], true);
        if (runq_get(p) == &gs[0]) break;
        CHECK(n < 100);
    }
    CHECK(n >= 10); /* it is favoured all the same */
    comes_out(p, (int[]){ 1 }, 1);
    for (n = 0; n < 500; n++) { /* with nothing else there is nobody to starve */
        runq_put(p, &gs[1], true);
        comes_out(p, (int[]){ 1 }, 1);
    }
    free_ps(&dom);
}

static void test_overflow_goes_to_the_global_queue_in_order(void)
{
    P *p = new_p(&dom, 0);
    for (int i = 0; i < (int)RUNQ_SIZE; i++) runq_put(p, &gs[i], false);
    CHECK_EQ(atomic_load(&dom.runqsize), 0);
    runq_put(p, &gs[RUNQ_SIZE], false);
    CHECK_EQ(atomic_load(&dom.runqsize), RUNQ_SIZE / 2 + 1);
    int want[RUNQ_SIZE / 2];
    for (int i = 0; i < (int)RUNQ_SIZE / 2; i++) want[i] = (int)RUNQ_SIZE / 2 + i;
    comes_out(p, want, (int)RUNQ_SIZE / 2);
    for (int i = 0; i < (int)RUNQ_SIZE / 2; i++) CHECK_EQ(globq_get(&dom, p, 1) - gs, i);
    CHECK_EQ(globq_get(&dom, p, 1) - gs, RUNQ_SIZE);
    CHECK(!globq_get(&dom, p, 1) && !dom.runq_first && !dom.runq_last);
    CHECK(runq_empty(p));
    free_ps(&dom);
}

static void test_the_global_queue_gives_a_fair_share(void)
{
    static const struct { int n, procs, max, share; } t[] = {
        { 1, 1, 0, 1 }, { 10, 1, 0, 10 }, { 10, 4, 0, 3 }, { 10, 4, 1, 1 }, { 10, 4, 2, 2 }, { 3, 8, 0, 1 },
        { 1000, 1, 0, RUNQ_SIZE / 2 },
    };
    for (size_t k = 0; k < COUNT(t); k++) {
        P *p = new_p(&dom, 0);
        atomic_store(&dom.nprocs, t[k].procs);
        for (int i = 0; i < t[k].n; i++) globq_put(&dom, &gs[i]);
        CHECK_EQ(globq_get(&dom, p, t[k].max) - gs, 0);
        CHECK_EQ(atomic_load(&dom.runqsize), t[k].n - t[k].share);
        for (int i = 1; i < t[k].share; i++) CHECK_EQ(runq_get(p) - gs, i);
        CHECK(runq_empty(p));
        free_ps(&dom);
    }
}

/* 0 is the next, 1 to 3 on the ring, 4 to 6 in the global queue, 7 to 9 preempted; 10 nowhere. */
static void test_one_is_pulled_from_wherever_it_is(void)
{
    for (int pulled = 0; pulled <= 10; pulled++)
        for (int solo = 0; solo < 2; solo++)
            for (int full = 0; full < 2; full++) {
                P *p = new_p(&dom, 0);
                p->solo = solo;
                int ring = full ? (int)RUNQ_SIZE : 3;
                for (int i = 1; i <= 3; i++) runq_put(p, &gs[i], false);
                for (int i = 4; i <= ring; i++) runq_put(p, &gs[100 + i], false);
                runq_put(p, &gs[0], true);
                for (int i = 4; i <= 6; i++) globq_put(&dom, &gs[i]);
                for (int i = 7; i <= 9; i++) preq_put(&dom, &gs[i]);
                CHECK_EQ(runq_pull(&dom, p, &gs[pulled]), pulled < 10);
                CHECK(!runq_pull(&dom, p, &gs[pulled]) && !gs[pulled].link);
                CHECK_EQ(atomic_load(&dom.npreq), 3 - (pulled >= 7 && pulled <= 9));
                CHECK_EQ(atomic_load(&dom.runqsize), 6 - (pulled >= 4 && pulled <= 9));
                for (int i = 0; i <= 3; i++)
                    if (i != pulled) CHECK(runq_get(p) == &gs[i]);
                for (int i = 4; i <= ring; i++) CHECK(runq_get(p) == &gs[100 + i]);
                for (int i = 4; i <= 6; i++)
                    if (i != pulled) CHECK(globq_get(&dom, p, 1) == &gs[i]);
                globq_put(&dom, &gs[11]); /* the ends of the lists are right */
                preq_put(&dom, &gs[12]);
                CHECK(globq_get(&dom, p, 1) == &gs[11] && !globq_get(&dom, p, 1));
                for (int i = 7; i <= 9; i++)
                    if (i != pulled) CHECK(preq_get(&dom) == &gs[i]);
                CHECK(preq_get(&dom) == &gs[12] && !preq_get(&dom) && runq_empty(p));
                CHECK_EQ(atomic_load(&dom.runqsize), 0);
                free_ps(&dom);
            }
}

static void test_a_thief_takes_half(void)
{
    for (int n = 0; n <= (int)RUNQ_SIZE; n++) {
        P *p = new_p(&dom, 0), *q = new_p(&dom, 1);
        for (int i = 0; i < n; i++) runq_put(p, &gs[i], false);
        int half = n - n / 2;
        G *g = runq_steal(q, p, false);
        CHECK(half ? g == &gs[half - 1] : !g); /* the last one, to be run at once */
        int want[RUNQ_SIZE];
        for (int i = 0; i < half - 1; i++) want[i] = i;
        comes_out(q, want, half ? half - 1 : 0);
        for (int i = half; i < n; i++) want[i - half] = i;
        comes_out(p, want, n - half);
        free_ps(&dom);
    }
}

static void test_the_next_is_stolen_last_and_only_when_asked(void)
{
    P *p = new_p(&dom, 0), *q = new_p(&dom, 1);
    runq_put(p, &gs[0], false);
    runq_put(p, &gs[1], true);
    CHECK(runq_steal(q, p, true) == &gs[0]);
    CHECK(!runq_steal(q, p, false));
    CHECK(runq_steal(q, p, true) == &gs[1]);
    CHECK(!runq_steal(q, p, true) && runq_empty(p) && runq_empty(q));
    free_ps(&dom);
}

/* ---- an owner and its thieves ------------------------------------------------------- */
enum { THIEVES = 3 };
static _Atomic uint8_t *taken;
static G *many;
static _Atomic int64_t ntaken, stolen;
static _Atomic bool finished;

static void take(G *g)
{
    CHECK_EQ(g->id, g - many); /* what its maker wrote is seen */
    CHECK_EQ(atomic_fetch_add_explicit(&taken[g - many], 1, memory_order_relaxed), 0);
    atomic_fetch_add_explicit(&ntaken, 1, memory_order_relaxed);
}
static void take_global(P *p)
{
    gmutex_lock(&dom.lock);
    G *g = globq_get(&dom, p, 0);
    gmutex_unlock(&dom.lock);
    if (g) take(g);
}
static void *steal_on(void *arg)
{
    P *p = arg;
    rnd r = { (uint64_t)p->id };
    while (!atomic_load(&finished)) {
        G *g;
        while (rnd_below(&r, 64) && (g = runq_get(p))) take(g);
        if (!runq_empty(p)) continue; /* who steals needs room: half a ring */
        P *victim = atomic_load(&dom.allp[(p->id + 1 + (int)rnd_below(&r, THIEVES)) % (THIEVES + 1)]);
        if ((g = runq_steal(p, victim, rnd_below(&r, 2)))) {
            take(g);
            atomic_fetch_add(&stolen, 1);
        } else if (rnd_below(&r, 16) == 0) {
            take_global(p);
        }
    }
    return NULL;
}

static void test_owner_and_thieves_take_each_once(void)
{
    int64_t n = scaled(TSAN ? 200000 : 1000000, 10000);
    many = calloc((size_t)n, sizeof *many);
    taken = calloc((size_t)n, 1);
    CHECK(many && taken);
    atomic_store(&ntaken, 0);
    atomic_store(&finished, false);
    P *p = new_p(&dom, 0);
    pthread_t th[THIEVES];
    for (int i = 0; i < THIEVES; i++) new_p(&dom, i + 1);
    for (int i = 0; i < THIEVES; i++)
        CHECK(pthread_create(&th[i], NULL, steal_on, atomic_load(&dom.allp[i + 1])) == 0);
    rnd r = { ctest_seed() };
    for (int64_t i = 0; i < n;) {
        /* bursts, some beyond the ring's size, and then some taken again */
        for (uint32_t k = rnd_below(&r, rnd_below(&r, 50) ? 8 : 400); k && i < n; k--, i++) {
            many[i].id = (uint64_t)i;
            runq_put(p, &many[i], rnd_below(&r, 3) == 0);
        }
        G *g;
        for (uint32_t k = rnd_below(&r, 6); k && (g = runq_get(p)); k--) take(g);
        if (rnd_below(&r, 8) == 0 && runq_empty(p)) take_global(p);
    }
    UNTIL(({ for (G *g; (g = runq_get(p));) take(g); take_global(p); atomic_load(&ntaken) == n; }));
    atomic_store(&finished, true);
    for (int i = 0; i < THIEVES; i++) pthread_join(th[i], NULL);
    for (int64_t i = 0; i < n; i++) CHECK_EQ(atomic_load(&taken[i]), 1);
    for (int i = 0; i <= THIEVES; i++) CHECK(runq_empty(atomic_load(&dom.allp[i])));
    CHECK_EQ(atomic_load(&dom.runqsize), 0);
    CHECK(atomic_load(&stolen) > 0);
    free_ps(&dom);
    free(many);
    free((void *)taken);
}

/* A queue with something in it never looks empty, though that moves from the
 * next's place to the ring meanwhile. */
static void *watch_empty(void *arg)
{
    while (!atomic_load(&finished)) CHECK(!runq_empty(arg));
    return NULL;
}
static void test_a_queue_with_work_never_looks_empty(void)
{
    P *p = new_p(&dom, 0), *q = new_p(&dom, 1);
    pthread_t th;
    atomic_store(&finished, false);
    runq_put(p, &gs[0], true);
    CHECK(pthread_create(&th, NULL, watch_empty, p) == 0);
    for (int64_t until = os_now_ns() + scaled(300, 50) * MS; os_now_ns() < until;)
        for (int i = 0; i < 100; i++) {
            G *next = &gs[2 * i + 1], *then = &gs[2 * i + 2];
            p->next_streak = 0;
            runq_put(p, next, true); /* the one before goes to the ring */
            CHECK(runq_get(p) == next);
            runq_put(p, then, true);
            CHECK(runq_steal(q, p, false) != NULL);
        }
    atomic_store(&finished, true);
    pthread_join(th, NULL);
    free_ps(&dom);
}

int main(int argc, char **argv)
{
    ctest_begin(argc, argv);
    RUN(test_first_in_first_out_but_for_the_next);
    RUN(test_the_next_does_not_starve_the_ring);
    RUN(test_overflow_goes_to_the_global_queue_in_order);
    RUN(test_the_global_queue_gives_a_fair_share);
    RUN(test_one_is_pulled_from_wherever_it_is);
    RUN(test_a_thief_takes_half);
    RUN(test_the_next_is_stolen_last_and_only_when_asked);
    RUN(test_owner_and_thieves_take_each_once);
    RUN(test_a_queue_with_work_never_looks_empty);
    return ctest_end();
}
