/* test_sema.c - Mutex, RWMutex, WaitGroup, Semaphore, notify lists, jobs; each by
 * goroutines and threads alike (shared = true).
 */
#include "ctest.h"

#define NO_WAIT false, &wait_forever_native
#define WAIT true, &wait_forever_native

/* Start n of them, every `threads`-th as a thread (0: none), and wait for all. */
static void crowd(int n, int threads, void (*fn)(void *), void *arg)
{
    gort_wg *wg = group();
    for (int i = 0; i < n; i++) start(wg, threads && i % threads == 0, fn, arg);
    finish(wg);
}
static void in_all_kinds(void (*fn)(int threads))
{
    for (int procs = 1; procs <= 4; procs *= 2)
        for (int threads = 0; threads < 3; threads++) {
            gort_maxprocs(procs);
            fn(threads);
        }
}
static bool at_rest(gmutex *l, waitq *q) { return waiting(l, q) == 0; }

/* ---- Mutex ---------------------------------------------------------------------------- */
static void test_mutex_results(void)
{
    gort_mutex m = { .shared = true };
    CHECK_EQ(mutex_unlock(&m), GORT_EINVAL);
    CHECK_OK(mutex_lock(&m, NO_WAIT));
    CHECK_EQ(mutex_lock(&m, NO_WAIT), GORT_EAGAIN);
    waitopt o = within(2 * MS);
    CHECK_EQ(mutex_lock(&m, true, &o), GORT_ETIMEDOUT);
    CHECK(gort_now_ns() >= o.deadline && at_rest(&m.lock, &m.q));
    CHECK_OK(mutex_unlock(&m));
    CHECK_EQ(mutex_unlock(&m), GORT_EINVAL);
    CHECK_OK(mutex_lock(&m, WAIT));
    CHECK_OK(mutex_unlock(&m));
}

typedef struct bank { gort_mutex m; int64_t n, balance; _Atomic int64_t done; } bank;
static void deposit(void *p)
{
    bank *b = p;
    rnd r = { (uint64_t)(uintptr_t)&r ^ gort_goid() };
    for (int64_t i = b->n; i > 0;) {
        waitopt o = rnd_below(&r, 4) ? wait_forever_native : within(rnd_below(&r, 30000));
        int e = mutex_lock(&b->m, rnd_below(&r, 8), &o);
        if (e) {
            CHECK(e == GORT_EAGAIN || e == GORT_ETIMEDOUT);
            gort_yield();
            continue;
        }
        int64_t v = b->balance; /* a plain variable: exclusion, and order of memory */
        if (rnd_below(&r, 16) == 0) gort_yield();
        b->balance = v + 1;
        CHECK_OK(mutex_unlock(&b->m));
        i--;
    }
    atomic_fetch_add(&b->done, b->n);
}
static void mutex_kind(int threads)
{
    bank b = { .m.shared = true, .n = scaled(threads ? 500 : 3000, 50) };
    crowd(8, threads, deposit, &b);
    CHECK_EQ(b.balance, b.done);
    CHECK_EQ(b.balance, 8 * b.n);
    CHECK(!b.m.locked && !b.m.starving && !b.m.woken && at_rest(&b.m.lock, &b.m.q));
}
static void test_mutex_excludes(void) { in_all_kinds(mutex_kind); }

typedef struct hungry { gort_mutex m; _Atomic bool got, go_on; } hungry;
static void wait_hungry(void *p)
{
    hungry *h = p;
    CHECK_OK(mutex_lock(&h->m, WAIT));
    atomic_store(&h->got, true);
    UNTIL(atomic_load(&h->go_on));
    CHECK_OK(mutex_unlock(&h->m));
}
static bool is_starving(gort_mutex *m)
{
    gmutex_lock(&m->lock);
    bool s = m->starving;
    gmutex_unlock(&m->lock);
    return s;
}
/* Who unlocks and locks again at once would always win against a waiter that has
 * to be woken first. After 1 ms of that the mutex is handed over. */
static void test_mutex_is_handed_to_a_starving_waiter(void)
{
    gort_maxprocs(2);
    for (int thread = 0; thread < 2; thread++)
        for (int starved = 0; !starved;) {
            hungry h = { .m.shared = true };
            gort_wg *wg = group();
            CHECK_OK(mutex_lock(&h.m, WAIT));
            start(wg, thread, wait_hungry, &h);
            UNTIL(waiting(&h.m.lock, &h.m.q) == 1);
            for (;;) {
                compute_ns(2 * MS);
                if ((starved = is_starving(&h.m))) break;
                CHECK_OK(mutex_unlock(&h.m));
                if (mutex_lock(&h.m, NO_WAIT)) break; /* it was quick; try anew */
            }
            if (starved) {
                CHECK_EQ(waiting(&h.m.lock, &h.m.q), 1);
                CHECK_OK(mutex_unlock(&h.m));
                CHECK_EQ(mutex_lock(&h.m, NO_WAIT), GORT_EAGAIN); /* it is the other's by now */
            }
            UNTIL(atomic_load(&h.got));
            CHECK(!is_starving(&h.m)); /* it was the last who waited */
            atomic_store(&h.go_on, true);
            finish(wg);
            CHECK(!h.m.locked && !h.m.starving);
        }
}
static void test_starving_waiter_that_gives_up_leaves_the_mutex_usable(void)
{
    gort_mutex m = { .shared = true, .locked = true, .starving = true };
    CHECK_OK(mutex_unlock(&m));
    CHECK(!m.locked && !m.starving);
    CHECK_OK(mutex_lock(&m, NO_WAIT));
}

/* ---- RWMutex ----------------------------------------------------------------------------- */
static void test_rwmutex_results(void)
{
    gort_rwmutex m = { .shared = true };
    CHECK_EQ(rwmutex_unlock(&m), GORT_EINVAL);
    CHECK_EQ(rwmutex_runlock(&m), GORT_EINVAL);
    CHECK_OK(rwmutex_rlock(&m, NO_WAIT));
    CHECK_OK(rwmutex_rlock(&m, NO_WAIT));
    CHECK_EQ(rwmutex_lock(&m, NO_WAIT), GORT_EAGAIN);
    CHECK_EQ(rwmutex_unlock(&m), GORT_EINVAL);
    waitopt o = within(MS);
    CHECK_EQ(rwmutex_lock(&m, true, &o), GORT_ETIMEDOUT);
    CHECK_OK(rwmutex_rlock(&m, NO_WAIT)); /* the writer that gave up holds nobody up */
    for (int i = 0; i < 3; i++) CHECK_OK(rwmutex_runlock(&m));
    CHECK_OK(rwmutex_lock(&m, NO_WAIT));
    CHECK_EQ(rwmutex_rlock(&m, NO_WAIT), GORT_EAGAIN);
    CHECK_EQ(rwmutex_runlock(&m), GORT_EINVAL);
    o = within(MS);
    CHECK_EQ(rwmutex_rlock(&m, true, &o), GORT_ETIMEDOUT);
    CHECK_OK(rwmutex_unlock(&m));
    CHECK(at_rest(&m.lock, &m.q) && m.waiting_writers == 0);
}

typedef struct rw { gort_rwmutex m; _Atomic int in, out; _Atomic bool leave; int64_t timeout; } rw;
static void read_once(void *p)
{
    rw *w = p;
    CHECK_OK(rwmutex_rlock(&w->m, WAIT));
    atomic_fetch_add(&w->in, 1);
    UNTIL(atomic_load(&w->leave));
    CHECK_OK(rwmutex_runlock(&w->m));
    atomic_fetch_add(&w->out, 1);
}
static void write_once(void *p)
{
    rw *w = p;
    waitopt o = w->timeout ? within(w->timeout) : wait_forever_native;
    int e = rwmutex_lock(&w->m, true, &o);
    CHECK_EQ(e, w->timeout ? GORT_ETIMEDOUT : GORT_OK);
    if (!e) CHECK_OK(rwmutex_unlock(&w->m));
}
/* A waiting writer holds back new readers; they come in together after it, or
 * when it gives up. */
static void test_waiting_writer_holds_back_readers(void)
{
    for (int i = 0; i < 4; i++) {
        rw w = { .m.shared = true, .timeout = i & 1 ? 20 * MS : 0 };
        gort_wg *wg = group(), *writer = group();
        CHECK_OK(rwmutex_rlock(&w.m, WAIT));
        start(writer, i & 2, write_once, &w);
        UNTIL(waiting(&w.m.lock, &w.m.q) == 1 || (i & 1));
        for (int k = 0; k < 5; k++) start(wg, k % 2, read_once, &w);
        if (!(i & 1)) {
            UNTIL(waiting(&w.m.lock, &w.m.q) == 6);
            CHECK_EQ(atomic_load(&w.in), 0);
            CHECK_EQ(rwmutex_rlock(&w.m, NO_WAIT), GORT_EAGAIN);
            CHECK_OK(rwmutex_runlock(&w.m));
        }
        UNTIL(atomic_load(&w.in) == 5); /* all of them at once: none leaves before */
        finish(writer);
        atomic_store(&w.leave, true);
        if (i & 1) CHECK_OK(rwmutex_runlock(&w.m));
        finish(wg);
        CHECK(w.m.readers == 0 && !w.m.writer && w.m.waiting_writers == 0);
    }
}

typedef struct library { gort_rwmutex m; int64_t n, book; _Atomic int readers, writers, maxreaders; _Atomic int64_t wrote; } library;
static void read_and_write(void *p)
{
    library *l = p;
    rnd r = { (uint64_t)(uintptr_t)&r ^ gort_goid() };
    for (int64_t i = 0; i < l->n; i++) {
        bool write = rnd_below(&r, 4) == 0;
        waitopt o = rnd_below(&r, 3) ? wait_forever_native : within(rnd_below(&r, 40000));
        bool block = rnd_below(&r, 8);
        int e = write ? rwmutex_lock(&l->m, block, &o) : rwmutex_rlock(&l->m, block, &o);
        if (e) {
            CHECK(e == GORT_EAGAIN || e == GORT_ETIMEDOUT);
            continue;
        }
        int others = atomic_fetch_add(write ? &l->writers : &l->readers, 1) + 1;
        int64_t seen = l->book;
        if (write) CHECK(others == 1 && atomic_load(&l->readers) == 0);
        else CHECK_EQ(atomic_load(&l->writers), 0);
        if (rnd_below(&r, 8) == 0) gort_yield();
        CHECK_EQ(l->book, seen); /* nobody else wrote */
        if (write) {
            l->book++;
            atomic_fetch_add(&l->wrote, 1);
        } else if (others > atomic_load(&l->maxreaders)) {
            atomic_store(&l->maxreaders, others);
        }
        atomic_fetch_sub(write ? &l->writers : &l->readers, 1);
        CHECK_OK(write ? rwmutex_unlock(&l->m) : rwmutex_runlock(&l->m));
    }
}
static void rwmutex_kind(int threads)
{
    library l = { .m.shared = true, .n = scaled(threads ? 500 : 2000, 50) };
    crowd(10, threads, read_and_write, &l);
    CHECK_EQ(l.book, l.wrote);
    CHECK(l.book > 0 && atomic_load(&l.maxreaders) > 0);
    CHECK(l.m.readers == 0 && !l.m.writer && l.m.waiting_writers == 0 && at_rest(&l.m.lock, &l.m.q));
}
static void test_rwmutex_readers_share_writers_exclude(void) { in_all_kinds(rwmutex_kind); }

/* ---- WaitGroup --------------------------------------------------------------------------------- */
static void test_wait_group_results(void)
{
    gort_wg *w = group();
    CHECK_OK(gort_wg_wait(w));
    CHECK_EQ(gort_wg_done(w), GORT_EINVAL);
    CHECK_EQ(gort_wg_add(w, -1), GORT_EINVAL);
    CHECK_OK(gort_wg_add(w, INT64_MAX));
    CHECK_EQ(gort_wg_add(w, 1), GORT_EINVAL);
    CHECK_OK(gort_wg_add(w, -INT64_MAX + 1));
    waitopt o = within(MS);
    CHECK_EQ(wg_wait(w, &o), GORT_ETIMEDOUT);
    CHECK(at_rest(&w->lock, &w->q));
    CHECK_OK(gort_wg_done(w));
    CHECK_OK(gort_wg_wait(w));
    gort_wg_free(w);
    gort_wg_free(NULL);
}

/* Rounds: all add up a plain array before done(), and read it after wait(). */
enum { MEMBERS = 6 };
typedef struct rounds { gort_wg *w; int64_t n, cell[MEMBERS][8]; _Atomic int next; } rounds;
static void work_a_round(void *p)
{
    rounds *r = p;
    r->cell[atomic_fetch_add(&r->next, 1) % MEMBERS][0]++;
    CHECK_OK(gort_wg_done(r->w));
}
static void await_round(void *p)
{
    rounds *r = p;
    CHECK_OK(gort_wg_wait(r->w));
    for (int i = 0; i < MEMBERS; i++) CHECK_EQ(r->cell[i][0], r->n);
}
static void wait_group_kind(int threads)
{
    rounds r = { .w = group() };
    for (int64_t i = scaled(threads ? (TSAN ? 15 : 60) : TSAN ? 100 : 400, 5); i > 0; i--) {
        gort_wg *wg = group();
        r.n++;
        CHECK_OK(gort_wg_add(r.w, MEMBERS));
        for (int k = 0; k < 3; k++) start(wg, threads && k % threads == 0, await_round, &r);
        for (int k = 0; k < MEMBERS; k++) start(wg, threads && k % threads == 0, work_a_round, &r);
        await_round(&r);
        finish(wg);
    }
    gort_wg_free(r.w);
}
static void test_wait_group_releases_all_who_wait(void) { in_all_kinds(wait_group_kind); }

/* ---- Semaphore ---------------------------------------------------------------------------------- */
static void test_semaphore_results(void)
{
    gort_sema s = { .shared = true, .size = 5 };
    CHECK_OK(sema_acquire(&s, 3, NO_WAIT));
    CHECK_EQ(sema_acquire(&s, 3, NO_WAIT), GORT_EAGAIN);
    CHECK_OK(sema_acquire(&s, 2, NO_WAIT));
    CHECK_OK(sema_acquire(&s, 0, NO_WAIT));
    CHECK_EQ(sema_release(&s, 6), GORT_EINVAL);
    CHECK_OK(sema_release(&s, 5));
    CHECK_EQ(sema_release(&s, 1), GORT_EINVAL);
    waitopt o = within(MS);
    CHECK_EQ(sema_acquire(&s, 6, true, &o), GORT_ETIMEDOUT); /* more than there is */
    CHECK_EQ(sema_acquire(&s, 6, NO_WAIT), GORT_EAGAIN);
    CHECK_OK(sema_acquire(&s, 5, NO_WAIT));
    CHECK(at_rest(&s.lock, &s.q));
}

typedef struct ask { gort_sema *s; int64_t n, timeout; int r; _Atomic int at; _Atomic bool late; } ask;
static _Atomic int asked;
static void acquire_once(void *p)
{
    ask *a = p;
    waitopt o = a->timeout ? within(a->timeout) : wait_forever_native;
    a->r = sema_acquire(a->s, a->n, true, &o);
    if (a->r) atomic_store(&a->late, true);
    else atomic_store(&a->at, 1 + atomic_fetch_add(&asked, 1));
}
static void test_semaphore_serves_in_order_and_a_big_one_holds_up_small_ones(void)
{
    for (int threads = 0; threads < 3; threads++) {
        static const int64_t want[] = { 2, 7, 1, 1, 10, 3 };
        enum { N = COUNT(want) };
        gort_sema s = { .shared = true, .size = 10 };
        ask a[N];
        gort_wg *wg = group();
        CHECK_OK(sema_acquire(&s, 10, WAIT));
        atomic_store(&asked, 0);
        for (int i = 0; i < N; i++) {
            a[i] = (ask){ .s = &s, .n = want[i] };
            start(wg, threads && i % threads == 0, acquire_once, &a[i]);
            UNTIL(waiting(&s.lock, &s.q) == i + 1);
        }
        CHECK_OK(sema_release(&s, 2));
        UNTIL(atomic_load(&a[0].at) == 1);
        CHECK_OK(sema_release(&s, 6)); /* not enough for the 7, so the ones wait too */
        CHECK_EQ(sema_acquire(&s, 1, NO_WAIT), GORT_EAGAIN);
        CHECK_EQ(waiting(&s.lock, &s.q), 5);
        CHECK_OK(sema_release(&s, 2)); /* 8 free: the 7 and one 1 */
        UNTIL(atomic_load(&a[1].at) && atomic_load(&a[2].at));
        CHECK_EQ(waiting(&s.lock, &s.q), 3);
        CHECK_OK(sema_release(&s, 1));
        UNTIL(atomic_load(&a[3].at) == 4);
        CHECK_EQ(s.cur, 10);
        CHECK_OK(sema_release(&s, 9));
        CHECK_EQ(waiting(&s.lock, &s.q), 2); /* the 3 waits behind the 10 */
        CHECK_OK(sema_release(&s, 1));
        UNTIL(atomic_load(&a[4].at) == 5);
        CHECK_EQ(waiting(&s.lock, &s.q), 1);
        CHECK_OK(sema_release(&s, 10));
        finish(wg);
        CHECK_EQ(atomic_load(&a[5].at), 6);
        CHECK_EQ(s.cur, 3);
    }
}
static void test_big_acquire_that_gives_up_lets_small_ones_in(void)
{
    for (int thread = 0; thread < 2; thread++) {
        gort_sema s = { .shared = true, .size = 4 };
        ask big = { .s = &s, .n = 4, .timeout = 20 * MS }, small = { .s = &s, .n = 1 };
        gort_wg *wg = group();
        CHECK_OK(sema_acquire(&s, 2, WAIT));
        start(wg, thread, acquire_once, &big);
        UNTIL(waiting(&s.lock, &s.q) == 1 || atomic_load(&big.late));
        start(wg, thread, acquire_once, &small);
        finish(wg);
        CHECK_EQ(big.r, GORT_ETIMEDOUT);
        CHECK_OK(small.r);
        CHECK_EQ(s.cur, 3);
    }
}

typedef struct pool { gort_sema s; int64_t n; _Atomic int64_t held; } pool;
static void hold_some(void *p)
{
    pool *k = p;
    rnd r = { (uint64_t)(uintptr_t)&r ^ gort_goid() };
    for (int64_t i = 0; i < k->n; i++) {
        int64_t n = 1 + rnd_below(&r, (uint32_t)k->s.size);
        waitopt o = rnd_below(&r, 3) ? wait_forever_native : within(rnd_below(&r, 40000));
        int e = sema_acquire(&k->s, n, rnd_below(&r, 8), &o);
        if (e) {
            CHECK(e == GORT_EAGAIN || e == GORT_ETIMEDOUT);
            continue;
        }
        CHECK(atomic_fetch_add(&k->held, n) + n <= k->s.size);
        if (rnd_below(&r, 8) == 0) gort_yield();
        atomic_fetch_sub(&k->held, n);
        CHECK_OK(sema_release(&k->s, n));
    }
}
static void semaphore_kind(int threads)
{
    pool k = { .s = { .shared = true, .size = 7 }, .n = scaled(threads ? 500 : 2000, 50) };
    crowd(10, threads, hold_some, &k);
    CHECK_EQ(k.s.cur, 0);
    CHECK(at_rest(&k.s.lock, &k.s.q));
}
static void test_semaphore_never_gives_more_than_there_is(void) { in_all_kinds(semaphore_kind); }

/* ---- notify lists, jobs ------------------------------------------------------------------------------ */
typedef struct sleeper { gort_notify *n; _Atomic bool up; int r; } sleeper;
static void sleep_on(void *p)
{
    sleeper *s = p;
    gmutex_lock(&s->n->lock);
    s->r = notify_wait(s->n, R_COND, &wait_forever_native);
    atomic_store(&s->up, true);
}
static void test_notify_wakes_the_first_or_all(void)
{
    enum { N = 6 };
    gort_notify n = { .shared = true };
    notify_wake(&n, false); /* nobody is there: nothing is kept */
    notify_wake(&n, true);
    sleeper s[N] = {0};
    gort_wg *wg = group();
    for (int i = 0; i < N; i++) {
        s[i].n = &n;
        start(wg, i % 3 == 1, sleep_on, &s[i]);
        UNTIL(waiting(&n.lock, &n.q) == i + 1);
    }
    for (int i = 0; i < 3; i++) {
        notify_wake(&n, false);
        UNTIL(atomic_load(&s[i].up));
        CHECK_EQ(waiting(&n.lock, &n.q), N - 1 - i);
    }
    notify_wake(&n, true);
    finish(wg);
    for (int i = 0; i < N; i++) CHECK_OK(s[i].r);
}

static void count_job(void *p) { atomic_fetch_add((_Atomic int64_t *)p, 1); }
static void join_job(void *p)
{
    CHECK_OK(job_join(p, &wait_forever_native));
    CHECK(job_done(p));
    job_unref(p);
}
static void test_jobs_are_joined_before_during_and_after_their_end(void)
{
    _Atomic int64_t ran = 0;
    int64_t n = scaled(TSAN ? 300 : 1000, 100);
    gort_wg *wg = group();
    for (int64_t i = 0; i < n; i++) {
        native_job *j = job_start(count_job, (void *)&ran);
        CHECK(j != NULL);
        atomic_fetch_add(&j->refs, 2);
        start(wg, false, join_job, j);
        if (i % 16 == 0) start(wg, true, join_job, j);
        else job_unref(j);
        if (i % 3 == 0) UNTIL(job_done(j));
        join_job(j);
    }
    finish(wg);
    CHECK_EQ(ran, n);
}

int main(int argc, char **argv)
{
    ctest_begin(argc, argv);
    RUN(test_mutex_results);
    RUN(test_mutex_excludes);
    RUN(test_mutex_is_handed_to_a_starving_waiter);
    RUN(test_starving_waiter_that_gives_up_leaves_the_mutex_usable);
    RUN(test_rwmutex_results);
    RUN(test_waiting_writer_holds_back_readers);
    RUN(test_rwmutex_readers_share_writers_exclude);
    RUN(test_wait_group_results);
    RUN(test_wait_group_releases_all_who_wait);
    RUN(test_semaphore_results);
    RUN(test_semaphore_serves_in_order_and_a_big_one_holds_up_small_ones);
    RUN(test_big_acquire_that_gives_up_lets_small_ones_in);
    RUN(test_semaphore_never_gives_more_than_there_is);
    RUN(test_notify_wakes_the_first_or_all);
    RUN(test_jobs_are_joined_before_during_and_after_their_end);
    return ctest_end();
}
