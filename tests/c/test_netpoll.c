/* test_netpoll.c - the poller with native goroutines and threads: waits, turns, deadlines, close. */
#include "ctest.h"
#include "netpoll.h"

#include <fcntl.h>
#include <sys/socket.h>

static const waitopt forever = { .deadline = GORT_FOREVER };

typedef struct pair { gort_pd *a, *b; } pair;

static pair sockets(void)
{
    int fd[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd) == 0);
    pair p = { pd_open(fd[0], false), pd_open(fd[1], false) };
    CHECK(p.a && p.b);
    return p;
}
static void end(gort_pd *pd)
{
    pd_close(pd);
    pd_free(pd);
}
static void end_both(pair p)
{
    end(p.a);
    end(p.b);
}
static int64_t read_some(gort_pd *pd, void *buf, size_t n, const waitopt *o)
{
    int64_t r = pd_turn(pd, PD_READ, o);
    if (r) return r;
    r = sock_read(pd, buf, n, o);
    pd_done(pd, PD_READ);
    return r;
}
static int64_t write_all(gort_pd *pd, const void *buf, size_t n, const waitopt *o)
{
    size_t done = 0;
    int64_t r = pd_turn(pd, PD_WRITE, o);
    if (r) return r;
    r = sock_write(pd, buf, n, &done, o);
    pd_done(pd, PD_WRITE);
    return r;
}
static bool parked(gort_pd *pd, int side)
{
    gmutex_lock(&pd->lock);
    bool yes = pd->side[side].q.first != NULL;
    gmutex_unlock(&pd->lock);
    return yes;
}

/* ---- there and back -------------------------------------------------------------- */
typedef struct talk { pair p; int64_t rounds; } talk;
static void pinger(void *arg)
{
    talk *t = arg;
    for (int64_t i = 0; i < t->rounds; i++) {
        int64_t got = -1;
        CHECK_OK(write_all(t->p.a, &i, sizeof i, &forever));
        CHECK_EQ(read_some(t->p.a, &got, sizeof got, &forever), sizeof got);
        CHECK_EQ(got, i);
    }
    CHECK_OK(pd_close(t->p.a));
}
static void ponger(void *arg)
{
    talk *t = arg;
    int64_t v;
    for (int64_t r; (r = read_some(t->p.b, &v, sizeof v, &forever)) != 0;) {
        CHECK_EQ(r, sizeof v);
        CHECK_OK(write_all(t->p.b, &v, sizeof v, &forever));
    }
}
static void talks(int n, bool threads, int64_t rounds)
{
    talk *t = calloc((size_t)n, sizeof *t);
    gort_wg *wg = group();
    for (int i = 0; i < n; i++) {
        t[i] = (talk){ sockets(), rounds };
        start(wg, threads && i % 2, pinger, &t[i]);
        start(wg, threads && i % 3 == 0, ponger, &t[i]);
    }
    finish(wg);
    for (int i = 0; i < n; i++) end_both(t[i].p);
    free(t);
}
static void test_two_goroutines_talk(void) { talks(1, false, scaled(20000, 2000)); }
static void test_many_goroutines_talk(void) { talks(50, false, scaled(1000, 100)); }
static void test_threads_and_goroutines_talk(void) { talks(12, true, scaled(500, 50)); }
static void test_two_threads_talk(void)
{
    talk t = { sockets(), scaled(500, 50) };
    gort_wg *wg = group();
    start(wg, true, pinger, &t);
    start(wg, true, ponger, &t);
    finish(wg);
    end_both(t.p);
}

/* ---- deadlines ------------------------------------------------------------------------ */
typedef struct reader { gort_pd *pd; _Atomic int64_t result; _Atomic bool done; int side; } reader;
static void wait_side(void *arg)
{
    reader *r = arg;
    char buf[1 << 16];
    int64_t v;
    if (r->side == PD_READ) {
        v = read_some(r->pd, buf, sizeof buf, &forever);
    } else {
        memset(buf, 0, sizeof buf);
        do v = write_all(r->pd, buf, sizeof buf, &forever);
        while (v == 0);
    }
    atomic_store(&r->result, v);
    atomic_store(&r->done, true);
}
static void test_a_deadline_ends_the_wait_of_its_side_only(void)
{
    for (int side = 0; side < 2; side++) {
        pair p = sockets();
        reader r[2] = { { .pd = p.a, .side = 0 }, { .pd = p.a, .side = 1 } };
        gort_wg *wg = group();
        for (int i = 0; i < 2; i++) start(wg, false, wait_side, &r[i]);
        UNTIL(parked(p.a, 0) && parked(p.a, 1));
        CHECK_OK(pd_set_deadline(p.a, 1 << side, gort_now_ns() + 2 * MS));
        UNTIL(atomic_load(&r[side].done));
        CHECK_EQ(r[side].result, GORT_ETIMEDOUT);
        CHECK(parked(p.a, !side));
        char c;
        CHECK_EQ(side ? write_all(p.a, "x", 1, &forever) : read_some(p.a, &c, 1, &forever), GORT_ETIMEDOUT);
        CHECK_OK(pd_set_deadline(p.a, 3, gort_now_ns() - 1));
        finish(wg);
        CHECK_EQ(r[!side].result, GORT_ETIMEDOUT);
        end_both(p);
    }
}
static void test_a_stale_deadline_does_nothing(void)
{
    pair p = sockets();
    reader r = { .pd = p.a, .side = PD_READ };
    gort_wg *wg = group();
    start(wg, false, wait_side, &r);
    UNTIL(parked(p.a, PD_READ));
    for (int i = 0; i < 200; i++) {
        CHECK_OK(pd_set_deadline(p.a, 3, gort_now_ns() + 50000));
        if (i % 2) compute_ns(30000);
        CHECK_OK(pd_set_deadline(p.a, 3, gort_now_ns() + 1000000 * MS));
        if (atomic_load(&r.done)) { /* the first was quicker than the second */
            CHECK_EQ(r.result, GORT_ETIMEDOUT);
            start(wg, false, wait_side, &r);
            atomic_store(&r.done, false);
        }
    }
    CHECK_OK(pd_set_deadline(p.a, 3, GORT_FOREVER));
    CHECK_OK(write_all(p.b, "xyz", 3, &forever));
    finish(wg);
    CHECK(r.result == 3 || r.result == GORT_ETIMEDOUT);
    end_both(p);
}
static void test_a_timeout_of_the_call_ends_it(void)
{
    pair p = sockets();
    waitopt o = within(MS);
    char c;
    CHECK_EQ(read_some(p.a, &c, 1, &o), GORT_ETIMEDOUT); /* a thread's */
    CHECK_EQ(read_some(p.a, &c, 1, NULL), GORT_EAGAIN);
    CHECK_OK(write_all(p.b, "x", 1, &forever));
    CHECK_EQ(read_some(p.a, &c, 1, &forever), 1);
    end_both(p);
}

/* ---- turns ---------------------------------------------------------------------------------- */
typedef struct turner { gort_pd *pd; int place, saw; _Atomic bool in; } turner;
static void take_a_turn(void *arg)
{
    turner *t = arg;
    char c;
    atomic_store(&t->in, true);
    CHECK_EQ(read_some(t->pd, &c, 1, &forever), 1);
    t->saw = c;
}
static void test_readers_get_their_turn_in_order(void)
{
    enum { N = 20 };
    pair p = sockets();
    turner t[N];
    gort_wg *wg = group();
    for (int i = 0; i < N; i++) {
        t[i] = (turner){ .pd = p.a, .place = i };
        start(wg, i % 4 == 3, take_a_turn, &t[i]);
        if (i == 0) UNTIL(parked(p.a, PD_READ));
        else UNTIL(waiting(&p.a->lock, &p.a->side[PD_READ].turns) == i);
    }
    for (char c = 0; c < N; c++) CHECK_OK(write_all(p.b, &c, 1, &forever));
    finish(wg);
    for (int i = 0; i < N; i++) CHECK_EQ(t[i].saw, i);
    end_both(p);
}

/* ---- close ------------------------------------------------------------------------------------- */
static void test_close_wakes_everybody_and_frees_the_descriptor(void)
{
    pair p = sockets();
    reader r[8];
    int fd = p.a->fd;
    gort_wg *wg = group();
    for (int i = 0; i < 8; i++) {
        r[i] = (reader){ .pd = p.a, .side = i % 2 };
        start(wg, i >= 6, wait_side, &r[i]);
        UNTIL(i < 2 ? parked(p.a, i) : waiting(&p.a->lock, &p.a->side[i % 2].turns) == i / 2);
    }
    CHECK_OK(pd_close(p.a));
    CHECK(fcntl(fd, F_GETFD) < 0);
    CHECK_EQ(pd_close(p.a), GORT_ECLOSED);
    finish(wg);
    for (int i = 0; i < 8; i++) CHECK_EQ(r[i].result, GORT_ECLOSED);
    char c;
    CHECK_EQ(read_some(p.a, &c, 1, &forever), GORT_ECLOSED);
    CHECK_EQ(pd_set_deadline(p.a, 3, GORT_FOREVER), GORT_ECLOSED);
    CHECK_EQ(pd_use(p.a), -1);
    end_both(p);
}
static void test_close_waits_for_who_is_in_a_call(void)
{
    pair p = sockets();
    int fd = p.a->fd;
    CHECK_OK(pd_turn(p.a, PD_READ, &forever)); /* as if in recv */
    CHECK_EQ(pd_use(p.a), fd);
    CHECK_OK(pd_close(p.a));
    CHECK(fcntl(fd, F_GETFD) >= 0);
    CHECK_EQ(pd_wait(p.a, PD_READ, &forever), GORT_ECLOSED);
    pd_done(p.a, PD_READ);
    CHECK(fcntl(fd, F_GETFD) >= 0);
    pd_unuse(p.a);
    CHECK(fcntl(fd, F_GETFD) < 0);
    end_both(p);
}

/* ---- all at once: goroutines read, write, close and set deadlines on the same pairs ------------ */
typedef struct storm { pair p; _Atomic int64_t sent, got; _Atomic int writers; int64_t rounds; rnd r; } storm;
static void storm_reader(void *arg)
{
    storm *s = arg;
    char buf[3000];
    for (;;) {
        int64_t n = read_some(s->p.b, buf, sizeof buf, &forever);
        if (n > 0) atomic_fetch_add(&s->got, n);
        else if (n == GORT_ETIMEDOUT) CHECK_OK(pd_set_deadline(s->p.b, 1, GORT_FOREVER));
        else if (n == 0) return;
        else CHECK_EQ(n, GORT_ECLOSED);
    }
}
static void storm_writer(void *arg)
{
    storm *s = arg;
    char buf[5000];
    memset(buf, 1, sizeof buf);
    for (int64_t i = s->rounds; i > 0; i--) {
        size_t done = 0;
        int64_t r = pd_turn(s->p.a, PD_WRITE, &forever);
        if (r == GORT_OK) {
            r = sock_write(s->p.a, buf, sizeof buf, &done, &forever);
            pd_done(s->p.a, PD_WRITE);
        }
        atomic_fetch_add(&s->sent, (int64_t)done);
        if (r == GORT_ETIMEDOUT) pd_set_deadline(s->p.a, 2, GORT_FOREVER);
        else CHECK_OK(r);
    }
    atomic_fetch_sub(&s->writers, 1);
}
static void storm_maker(void *arg)
{
    storm *s = arg;
    while (atomic_load(&s->writers) > 0) {
        int64_t when = gort_now_ns() + (int64_t)rnd_below(&s->r, 300000) - 50000;
        pd_set_deadline(rnd_below(&s->r, 2) ? s->p.a : s->p.b, 1 + (int)rnd_below(&s->r, 3), when);
        gort_sleep_ns(rnd_below(&s->r, 200000));
    }
    CHECK_OK(pd_close(s->p.a)); /* the reader sees the end of the stream */
}
static void test_a_storm_of_deadlines_loses_no_byte(void)
{
    enum { N = 12 };
    static storm s[N];
    gort_wg *wg = group();
    for (int i = 0; i < N; i++) {
        memset(&s[i], 0, sizeof s[i]);
        s[i].p = sockets();
        s[i].rounds = scaled(500, 50);
        s[i].writers = 2;
        s[i].r.s = ctest_seed() + (uint64_t)i;
        start(wg, i == 0, storm_reader, &s[i]);
        start(wg, i == 1, storm_writer, &s[i]);
        start(wg, false, storm_writer, &s[i]);
        start(wg, i == 2, storm_maker, &s[i]);
    }
    finish(wg);
    for (int i = 0; i < N; i++) {
        CHECK_EQ(s[i].got, s[i].sent);
        end_both(s[i].p);
    }
}

static void closer(void *arg)
{
    pair *p = arg;
    rnd r = { ctest_seed() };
    compute_ns(rnd_below(&r, 20000));
    pd_close(p->a);
}
static void reads_until_closed(void *arg)
{
    pair *p = arg;
    char c;
    int64_t r;
    while ((r = read_some(p->a, &c, 1, &forever)) == 1) {}
    CHECK_EQ(r, GORT_ECLOSED);
}
static void writes_until_gone(void *arg)
{
    pair *p = arg;
    int64_t r;
    while ((r = write_all(p->b, "x", 1, &forever)) == 0) {}
    CHECK(r == NET_SYS - EPIPE || r == NET_SYS - ECONNRESET);
}
static void test_close_at_any_moment(void)
{
    for (int64_t i = scaled(1500, 150); i > 0; i--) {
        pair p = sockets();
        gort_wg *wg = group();
        start(wg, i % 16 == 0, reads_until_closed, &p);
        start(wg, false, reads_until_closed, &p);
        start(wg, i % 16 == 1, writes_until_gone, &p);
        start(wg, false, closer, &p);
        finish(wg);
        end_both(p); /* slot and number are used again by the next */
    }
}

/* ---- more ------------------------------------------------------------------------------------------ */
static void test_sockets_beside_computing_goroutines(void)
{
    talk t = { sockets(), 20 };
    gort_wg *wg = group();
    start(wg, false, pinger, &t);
    start(wg, false, ponger, &t);
    int n = gort_maxprocs(0);
    for (int i = 0; i < n; i++) start(wg, false, (void (*)(void *))(void *)compute_ns, (void *)(uintptr_t)(50 * MS));
    finish(wg);
    end_both(t.p);
}
static void test_no_memory_for_a_descriptor(void)
{
    enum { N = 1000 };
    static gort_pd *pd[N];
    int n = 0;
    os_fail_set(OS_FAIL_MALLOC, 1, 1000000);
    while (n < N && (pd[n] = pd_open(dup(0), false))) n++;
    os_fail_set(OS_FAIL_MALLOC, 0, 0);
    CHECK(n < N);
    gort_pd *again = pd_open(dup(0), false);
    CHECK(again != NULL);
    end(again);
    while (n > 0) end(pd[--n]);
}
static void test_what_epoll_does_not_take(void)
{
    gort_pd *pd = pd_open(open("/dev/null", O_RDONLY | O_NONBLOCK), false);
    CHECK_OK(pd_turn(pd, PD_READ, &forever));
    CHECK_EQ(pd_wait(pd, PD_READ, &forever), NET_SYS - EPERM);
    pd_done(pd, PD_READ);
    end(pd);
}

/* ---- fork: the child has the descriptors, and must not have the parent's epoll ------------------------ */
static void *polls(void *arg)
{
    while (!atomic_load((_Atomic bool *)arg)) {
        netpoll_now(NULL);
        nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
    }
    return NULL;
}
static void *writes_later(void *arg)
{
    UNTIL(parked(((pair *)arg)->a, PD_READ));
    CHECK_OK(write_all(((pair *)arg)->b, "x", 1, &forever));
    return NULL;
}
static void test_a_forked_child_polls_for_itself(void)
{
    if (SANITIZED) return; /* they do not follow threads that a forked child starts */
    pair p = sockets();
    reader r = { .pd = p.a, .side = PD_READ };
    gort_wg *wg = group();
    start(wg, false, wait_side, &r);
    UNTIL(parked(p.a, PD_READ));
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        _Atomic bool over = false;
        pthread_t poller, writer;
        char c = 0;
        netpoll_fork_child();
        pair own = sockets();
        if (pthread_create(&poller, NULL, polls, &over) || pthread_create(&writer, NULL, writes_later, &own)) _exit(2);
        bool ok = read_some(own.a, &c, 1, &forever) == 1 && c == 'x';
        ok = ok && pd_close(p.a) == 0 && pd_close(p.b) == 0; /* the parent's go on */
        atomic_store(&over, true);
        pthread_join(poller, NULL);
        _exit(ok ? 0 : 1);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK_EQ(status, 0);
    CHECK(!atomic_load(&r.done));
    CHECK_OK(write_all(p.b, "yz", 2, &forever));
    finish(wg);
    CHECK_EQ(r.result, 2);
    end_both(p);
}

int main(int argc, char **argv)
{
    ctest_begin(argc, argv);
    RUN(test_two_goroutines_talk);
    RUN(test_many_goroutines_talk);
    RUN(test_two_threads_talk);
    RUN(test_threads_and_goroutines_talk);
    RUN(test_a_deadline_ends_the_wait_of_its_side_only);
    RUN(test_a_stale_deadline_does_nothing);
    RUN(test_a_timeout_of_the_call_ends_it);
    RUN(test_readers_get_their_turn_in_order);
    RUN(test_close_wakes_everybody_and_frees_the_descriptor);
    RUN(test_close_waits_for_who_is_in_a_call);
    RUN(test_a_storm_of_deadlines_loses_no_byte);
    RUN(test_close_at_any_moment);
    RUN(test_sockets_beside_computing_goroutines);
    RUN(test_no_memory_for_a_descriptor);
    RUN(test_what_epoll_does_not_take);
    RUN(test_a_forked_child_polls_for_itself);
    return ctest_end();
}
