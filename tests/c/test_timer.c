/* test_timer.c - timer heaps: against a model, periods, deletion while firing. */
#include "ctest.h"

/* A P that nobody runs: only our calls fire its timers. */
static Dom dom;
static P *new_p(void)
{
    P *p = aligned_alloc(64, (sizeof *p + 63) / 64 * 64);
    memset(p, 0, sizeof *p);
    p->dom = &dom;
    p->tm.p = p;
    atomic_store(&p->tm.next, GORT_FOREVER);
    return p;
}
static void free_p(P *p)
{
    CHECK_EQ(atomic_load(&p->tm.n), 0);
    CHECK_EQ(p->tm.nchan, 0);
    CHECK(atomic_load(&p->tm.next) == GORT_FOREVER);
    free(p->tm.heap);
    free(p->tm.tab);
    free(p);
}
static void heap_is_valid(timers *tm)
{
    int32_t n = atomic_load(&tm->n);
    for (int32_t i = 0; i < n; i++) {
        timer_entry *e = &tm->tab[tm->heap[i].id];
        CHECK_EQ(e->pos, i);
        CHECK_EQ(e->t->id, tm->heap[i].id);
        if (i) CHECK(tm->heap[(i - 1) / 4].when <= tm->heap[i].when);
    }
    CHECK(atomic_load(&tm->next) == (n ? tm->heap[0].when : GORT_FOREVER));
}

/* ---- model ------------------------------------------------------------------------ */
typedef struct item { timer t; bool pending; int64_t when; int fired; } item;
static int64_t last_when, fired_now;
static void fire_item(void *arg, uint64_t seq, int64_t now)
{
    item *it = arg;
    CHECK(it->pending && seq == it->t.seq && it->when <= now);
    CHECK(it->when >= last_when); /* the earliest first */
    last_when = it->when;
    it->pending = false;
    it->fired++;
    fired_now++;
}

static void test_heap_against_a_model(void)
{
    enum { N = 300 };
    static item it[N];
    rnd r = { ctest_seed() };
    P *p = new_p();
    memset(it, 0, sizeof it);
    for (int i = 0; i < N; i++) it[i].t = (timer){ .fn = fire_item, .arg = &it[i], .id = -1 };
    int64_t now = 0;
    for (int64_t step = scaled(100000, 10000); step > 0; step--) {
        item *k = &it[rnd_below(&r, step % 1000 < 300 ? 5 : N)];
        uint32_t what = rnd_below(&r, 100);
        if (what < 50 && !k->pending) {
            k->when = now - 5 + rnd_below(&r, step % 3000 < 1000 ? 10 : 2000);
            k->pending = true;
            k->t.seq = rnd_u64(&r);
            CHECK_OK(timer_add(&k->t, &p->tm, k->when));
        } else if (what < 80) {
            CHECK_EQ(timer_del(&k->t), k->pending);
            k->pending = false;
        } else {
            now += rnd_below(&r, 100);
            last_when = INT64_MIN;
            fired_now = 0;
            int64_t due = 0, next = GORT_FOREVER;
            for (int i = 0; i < N; i++) {
                due += it[i].pending && it[i].when <= now;
                if (it[i].pending && it[i].when > now && it[i].when < next) next = it[i].when;
            }
            CHECK(timers_run(&p->tm, now) == next);
            CHECK_EQ(fired_now, due);
        }
        if (step % 64 == 0) heap_is_valid(&p->tm);
    }
    last_when = INT64_MIN;
    CHECK(timers_run(&p->tm, INT64_MAX - 1) == GORT_FOREVER);
    for (int i = 0; i < N; i++) CHECK(!it[i].pending && it[i].t.id == -1);
    free_p(p);
}

/* ---- periods ------------------------------------------------------------------------ */
static void count_fire(void *arg, uint64_t seq, int64_t now)
{
    (void)seq;
    (void)now;
    ++*(int *)arg;
}
static void test_periodic_timer_stays_in_step(void)
{
    P *p = new_p();
    int n = 0, others = 0;
    timer t = { .fn = count_fire, .arg = &n, .period = 10 }, o[20];
    CHECK_OK(timer_add(&t, &p->tm, 105));
    for (int i = 0; i < 20; i++) {
        o[i] = (timer){ .fn = count_fire, .arg = &others };
        CHECK_OK(timer_add(&o[i], &p->tm, 100 + i * 7));
    }
    CHECK_EQ(timers_run(&p->tm, 99), 100);
    CHECK_EQ(n, 0);
    timers_run(&p->tm, 105);
    CHECK_EQ(n, 1);
    CHECK_EQ(t.tm->heap[t.tm->tab[t.id].pos].when, 115);
    timers_run(&p->tm, 114);
    CHECK_EQ(n, 1);
    timers_run(&p->tm, 148); /* those missed are one */
    CHECK_EQ(n, 2);
    CHECK_EQ(t.tm->heap[t.tm->tab[t.id].pos].when, 155);
    heap_is_valid(&p->tm);
    for (int64_t now = 149; now < 1155; now++) timers_run(&p->tm, now);
    CHECK_EQ(n, 102);
    CHECK_EQ(others, 20);
    CHECK(timer_del(&t) && !timer_del(&t));
    timers_run(&p->tm, 5000);
    CHECK_EQ(n, 102);
    free_p(p);
}

/* ---- a function that changes the heap ------------------------------------------------- */
typedef struct chain { timer t, *other; P *p; int n; } chain;
static void add_again(void *arg, uint64_t seq, int64_t now)
{
    chain *c = arg;
    CHECK_EQ(c->t.id, -1); /* it is out before it fires */
    if (c->other) CHECK(timer_del(c->other));
    if (++c->n < 100) CHECK_OK(timer_add(&c->t, &c->p->tm, now + (int64_t)seq));
}
static void test_a_firing_timer_may_add_and_delete(void)
{
    P *p = new_p();
    int n = 0;
    timer o = { .fn = count_fire, .arg = &n };
    chain c = { .t = { .fn = add_again, .arg = &c, .seq = 3 }, .p = p };
    CHECK_OK(timer_add(&c.t, &p->tm, 0));
    for (int64_t now = 0; now < 1000; now++) timers_run(&p->tm, now);
    CHECK_EQ(c.n, 100);
    c = (chain){ .t = { .fn = add_again, .arg = &c, .seq = 0 }, .p = p }; /* due again at once */
    CHECK_OK(timer_add(&c.t, &p->tm, 0));
    CHECK(timers_run(&p->tm, 5) == GORT_FOREVER);
    CHECK_EQ(c.n, 100);
    c = (chain){ .t = { .fn = add_again, .arg = &c }, .other = &o, .p = p, .n = 99 };
    CHECK_OK(timer_add(&o, &p->tm, 50));
    CHECK_OK(timer_add(&c.t, &p->tm, 10));
    CHECK(timers_run(&p->tm, 20) == GORT_FOREVER);
    CHECK_EQ(n, 0);
    free_p(p);
}

static void test_deleting_what_was_never_added(void)
{
    timer t = { .id = -1 };
    CHECK(!timer_del(&t));
}

/* ---- a timer's channel --------------------------------------------------------------------- */
static void test_channel_timers_drop_what_is_stale_or_full(void)
{
    P *p = new_p();
    gort_chan *c = gort_chan_new(GORT_F64, 1);
    double v;
    timer t = { .fn = timer_fire_chan, .arg = c, .kind = TK_CHAN, .seq = 7 };
    c->tseq = 7;
    CHECK_OK(timer_add(&t, &p->tm, 1));
    CHECK_EQ(p->tm.nchan, 1);
    CHECK(!timers_hope(&p->tm)); /* nobody waits for it */
    timers_run(&p->tm, 2000000000);
    CHECK_OK(gort_chan_try_recv(c, &v));
    CHECK(v == 2.0);
    c->tseq = 8; /* stopped between its firing and its send */
    CHECK_OK(timer_add(&t, &p->tm, 1));
    timers_run(&p->tm, 5);
    CHECK_EQ(gort_chan_len(c), 0);
    t.seq = 8;
    t.period = 10;
    CHECK_OK(timer_add(&t, &p->tm, 1000000000));
    timers_run(&p->tm, 1000000000);
    timers_run(&p->tm, 3000000000); /* full: dropped */
    CHECK_OK(gort_chan_try_recv(c, &v));
    CHECK(v == 1.0);
    CHECK_EQ(gort_chan_try_recv(c, &v), GORT_EAGAIN);
    CHECK(timer_del(&t));
    CHECK_EQ(atomic_load(&c->refs), 1);
    timer w = { .fn = count_fire };
    CHECK_OK(timer_add(&w, &p->tm, 1));
    CHECK(timers_hope(&p->tm)); /* any other kind may wake somebody */
    CHECK(timer_del(&w) && !timers_hope(&p->tm));
    gort_chan_unref(c);
    free_p(p);
}

/* A firing that is off the heap but not sent yet, as a stop() sees it. */
static timer *stopped;
static bool was_pending;
static void stop_on_the_way(void *arg, uint64_t seq, int64_t now)
{
    was_pending = timer_stop_chan(stopped, arg);
    timer_fire_chan(arg, seq, now);
}

static void test_stop_of_a_timer_whose_value_is_on_its_way(void)
{
    P *p = new_p();
    gort_chan *c = gort_chan_new(GORT_F64, 1);
    timer t = { .fn = stop_on_the_way, .arg = c, .kind = TK_CHAN };
    stopped = &t;
    for (int i = 0; i < 3; i++) { /* stopped, it was pending, and nothing is received; once */
        t.seq = c->tseq;
        was_pending = false;
        CHECK_OK(timer_add(&t, &p->tm, 1));
        timers_run(&p->tm, 5);
        CHECK(was_pending);
        CHECK_EQ(c->count, 0);
        CHECK(!timer_stop_chan(&t, c));
    }
    t.fn = timer_fire_chan;
    for (int received = 0; received < 2; received++) {
        double v;
        t.seq = c->tseq;
        CHECK_OK(timer_add(&t, &p->tm, 1));
        timers_run(&p->tm, 5);
        if (received) CHECK_OK(gort_chan_try_recv(c, &v));
        CHECK_EQ(timer_stop_chan(&t, c), !received);
        CHECK_EQ(gort_chan_try_recv(c, &v), GORT_EAGAIN);
    }
    gort_chan_unref(c);
    free_p(p);
}

/* ---- races ------------------------------------------------------------------------------- */
/* Owners add and delete, two threads fire: each timer added is either deleted or
 * fired, never both. */
enum { OWNERS = 3, EACH = 16 };
typedef struct shot { timer t; _Atomic int64_t fired; int64_t added, deleted; } shot;
static P *race_p;
static _Atomic int64_t clock_ns;
static _Atomic bool finished;
static int64_t race_rounds;

static void fire_shot(void *arg, uint64_t seq, int64_t now)
{
    (void)now;
    shot *s = arg;
    CHECK_EQ(seq, atomic_fetch_add(&s->fired, 1) + 1);
}
static void *fire_on(void *arg)
{
    (void)arg;
    while (!atomic_load(&finished)) timers_run(&race_p->tm, atomic_fetch_add(&clock_ns, 1));
    return NULL;
}
static void *add_and_delete(void *arg)
{
    shot *s = arg;
    rnd r = { (uint64_t)(uintptr_t)arg };
    for (int64_t i = 0; i < race_rounds; i++) {
        shot *k = &s[rnd_below(&r, EACH)];
        if (k->added > k->deleted + atomic_load(&k->fired)) { /* pending, or just firing */
            if (timer_del(&k->t)) k->deleted++;
            else UNTIL(k->added == k->deleted + atomic_load(&k->fired));
            CHECK(k->added == k->deleted + atomic_load(&k->fired));
        } else {
            k->added++;
            k->t.seq = (uint64_t)(atomic_load(&k->fired) + 1);
            CHECK_OK(timer_add(&k->t, &race_p->tm, atomic_load(&clock_ns) + rnd_below(&r, 1u << rnd_below(&r, 16))));
        }
    }
    for (int i = 0; i < EACH; i++) {
        if (timer_del(&s[i].t)) s[i].deleted++;
        UNTIL(s[i].added == s[i].deleted + atomic_load(&s[i].fired));
    }
    return NULL;
}

static void race(int64_t *fired, int64_t *deleted)
{
    static shot s[OWNERS][EACH];
    memset(s, 0, sizeof s);
    race_p = new_p();
    atomic_store(&finished, false);
    for (int i = 0; i < OWNERS; i++)
        for (int k = 0; k < EACH; k++) s[i][k].t = (timer){ .fn = fire_shot, .arg = &s[i][k], .id = -1 };
    pthread_t th[OWNERS], fire[2];
    for (int i = 0; i < 2; i++) CHECK(pthread_create(&fire[i], NULL, fire_on, NULL) == 0);
    for (int i = 0; i < OWNERS; i++) CHECK(pthread_create(&th[i], NULL, add_and_delete, s[i]) == 0);
    for (int i = 0; i < OWNERS; i++) pthread_join(th[i], NULL);
    atomic_store(&finished, true);
    for (int i = 0; i < 2; i++) pthread_join(fire[i], NULL);
    for (int i = 0; i < OWNERS * EACH; i++) {
        *fired += s[i / EACH][i % EACH].fired;
        *deleted += s[i / EACH][i % EACH].deleted;
    }
    free_p(race_p);
}

static void test_deletion_races_with_firing(void)
{
    int64_t fired = 0, deleted = 0;
    race_rounds = scaled(TSAN ? 5000 : 15000, 1000);
    /* On a busy machine the one or the other side may not get a turn. */
    for (int i = 0; i < 4 || !fired || !deleted; i++) race(&fired, &deleted);
}

/* In the scheduler: sleepers' timers are on stacks that are gone soon after. */
static void sleep_or_recv(void *p)
{
    rnd r = { (uint64_t)(uintptr_t)p ^ gort_goid() };
    int64_t v;
    for (int64_t i = scaled(200, 20); i > 0; i--) {
        if (rnd_below(&r, 2)) CHECK_OK(gort_sleep_ns(rnd_below(&r, 200000)));
        else CHECK_EQ(gort_chan_recv_timeout(p, &v, 1 + rnd_below(&r, 200000)), GORT_ETIMEDOUT);
    }
}
static void test_waits_leave_no_timer_behind(void)
{
    for (int procs = 1; procs <= 4; procs *= 2) {
        gort_maxprocs(procs);
        gort_chan *c = gort_chan_new(GORT_I64, 0);
        gort_wg *wg = group();
        for (int i = 0; i < 40; i++) start(wg, i % 8 == 7, sleep_or_recv, c);
        finish(wg);
        ctest_settle();
        for (int i = 0; i < gort_native.nallp; i++) CHECK_EQ(atomic_load(&atomic_load(&gort_native.allp[i])->tm.n), 0);
        CHECK_EQ(receivers(c), 0);
        gort_chan_unref(c);
    }
}

int main(int argc, char **argv)
{
    ctest_begin(argc, argv);
    RUN(test_heap_against_a_model);
    RUN(test_periodic_timer_stays_in_step);
    RUN(test_a_firing_timer_may_add_and_delete);
    RUN(test_deleting_what_was_never_added);
    RUN(test_channel_timers_drop_what_is_stale_or_full);
    RUN(test_stop_of_a_timer_whose_value_is_on_its_way);
    RUN(test_deletion_races_with_firing);
    RUN(test_waits_leave_no_timer_behind);
    return ctest_end();
}
