/* test_fork.c - fork() from threads and goroutines: the child has the forker, and all works there. */
#include "ctest.h"

/* ThreadSanitizer ends a child that starts threads. AddressSanitizer took the locks of its
 * allocator around fork() only in LLVM 18 and gcc 15 (llvm-project pull request 75290): before,
 * a thread that starts while another forks leaves them locked in the child for ever. */
#if defined(__clang__)
#define ASAN_FORKS_LOCKED (ASAN && __clang_major__ < 18)
#else
#define ASAN_FORKS_LOCKED (ASAN && __GNUC__ < 15)
#endif

static void own_watchdog(void) { ctest_watchdog(); } /* the parent's is not here */

/* The child's status, once it has run `fn` and ended. */
static int forked(void (*fn)(void))
{
    fflush(stdout);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        own_watchdog();
        fn();
        _exit(7);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + status;
}

/* ---- what a child does -------------------------------------------------------- */
static _Atomic int64_t counter;
static void count_one(void *p) { (void)p; atomic_fetch_add(&counter, 1); }

static void feed(void *p)
{
    for (int64_t i = 1; i <= 100; i++) CHECK_OK(gort_chan_send(p, &i));
    CHECK_OK(gort_chan_close(p));
}

static void sleeper(void *p)
{
    CHECK_OK(gort_sleep_ns(MS));
    count_one(p);
}

static void use_everything(int64_t already)
{
    CHECK_EQ(gort_num_native(), already);
    atomic_store(&counter, 0);
    for (int i = 0; i < 1000; i++) go(count_one, NULL);
    for (int i = 0; i < 20; i++) go(sleeper, NULL);
    UNTIL(atomic_load(&counter) == 1020);
    for (size_t cap = 0; cap < 4; cap++) {
        gort_chan *c = gort_chan_new(GORT_I64, cap);
        go(feed, c);
        int64_t v, sum = 0;
        while (gort_chan_recv(c, &v) == GORT_OK) sum += v;
        CHECK_EQ(sum, 5050);
        gort_chan_unref(c);
    }
    gort_wg *wg = group();
    for (int i = 0; i < 10; i++) start(wg, i % 2, count_one, NULL);
    finish(wg);
    UNTIL(gort_num_native() == already);
}

static int depth;
static void nested(void)
{
    use_everything(0);
    if (++depth < 3) CHECK_EQ(forked(nested), 7);
}

static void test_a_thread_forks(void)
{
    for (int procs = 1; procs <= 4; procs *= 2) {
        gort_maxprocs(procs);
        depth = 0;
        CHECK_EQ(forked(nested), 7);
    }
}

/* ---- a goroutine forks ----------------------------------------------------------- */
static void in_goroutine(void)
{
    use_everything(1);
    if (++depth < 3) CHECK_EQ(forked(in_goroutine), 7);
}
static void forker(void *p)
{
    depth = 0;
    CHECK_EQ(forked(in_goroutine), 7);
    atomic_store((_Atomic bool *)p, true);
}
static void test_a_goroutine_forks(void)
{
    for (int procs = 1; procs <= 4; procs *= 2) {
        gort_maxprocs(procs);
        _Atomic bool done = false;
        go(forker, (void *)&done);
        UNTIL(atomic_load(&done));
    }
}

/* In the child it may end, and its M does other work: the parent is told by a pipe. */
static int ends_fd[2];
static void told(void *p)
{
    (void)p;
    CHECK(write(ends_fd[1], "x", 1) == 1);
    _exit(0);
}
static void ends(void *p)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        own_watchdog();
        go(told, NULL);
        return;
    }
    *(pid_t *)p = pid;
}
static void test_the_forker_may_end_in_the_child(void)
{
    char c;
    int status;
    volatile pid_t pid = 0;
    CHECK(pipe(ends_fd) == 0);
    go(ends, (void *)(uintptr_t)&pid);
    CHECK(read(ends_fd[0], &c, 1) == 1);
    UNTIL(pid != 0);
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK_EQ(status, 0);
    close(ends_fd[0]);
    close(ends_fd[1]);
}

/* ---- those who waited are not there ---------------------------------------------- */
static gort_chan *held;
static void receiver(void *p)
{
    int64_t v;
    if (gort_chan_recv(p, &v) == GORT_OK) atomic_fetch_add(&counter, v);
}
static void *thread_receiver(void *p)
{
    receiver(p);
    return NULL;
}
static void gives_to_nobody(void)
{
    int64_t v = 5, got = 0;
    CHECK_EQ(gort_chan_try_send(held, &v), GORT_EAGAIN);
    go(receiver, held);
    CHECK_OK(gort_chan_send(held, &v));
    UNTIL(gort_num_native() == 0);
    CHECK_EQ(gort_chan_recv_timeout(held, &got, MS), GORT_ETIMEDOUT);
    CHECK_OK(gort_chan_close(held));
}
static void test_a_child_sends_to_nobody_who_waited_in_the_parent(void)
{
    pthread_t th[2];
    held = gort_chan_new(GORT_I64, 0);
    atomic_store(&counter, 0);
    for (int i = 0; i < 5; i++) go(receiver, held);
    for (int i = 0; i < 2; i++) CHECK(pthread_create(&th[i], NULL, thread_receiver, held) == 0);
    UNTIL(receivers(held) == 7);
    CHECK_EQ(forked(gives_to_nobody), 7);
    CHECK_EQ(receivers(held), 7);
    int64_t one = 1;
    for (int i = 0; i < 7; i++) CHECK_OK(gort_chan_send(held, &one));
    for (int i = 0; i < 2; i++) pthread_join(th[i], NULL);
    UNTIL(gort_num_native() == 0);
    CHECK_EQ(atomic_load(&counter), 7);
    gort_chan_unref(held);
}

static native_job *job;
static void wait_for_held(void *p) { receiver(p); }
static void joins_at_once(void)
{
    CHECK(job_done(job));
    CHECK_OK(job_join(job, &wait_forever_native));
}
static void test_a_job_of_the_parent_has_ended_in_the_child(void)
{
    held = gort_chan_new(GORT_I64, 0);
    job = job_start(wait_for_held, held);
    UNTIL(receivers(held) == 1);
    CHECK_EQ(forked(joins_at_once), 7);
    CHECK(!job_done(job));
    CHECK_OK(gort_chan_close(held));
    CHECK_OK(job_join(job, &wait_forever_native));
    job_unref(job);
    UNTIL(gort_num_native() == 0);
    gort_chan_unref(held);
}

static gort_mutex mutexes[2];
static gort_rwmutex rw;
static void locker(void *p)
{
    CHECK_OK(mutex_lock(p, true, &wait_forever_native));
    CHECK_OK(mutex_unlock(p));
}
static void writer(void *p)
{
    CHECK_OK(rwmutex_lock(p, true, &wait_forever_native));
    CHECK_OK(rwmutex_unlock(p));
}
static void locks_of_the_parent(void)
{
    waitopt soon = within(MS);
    CHECK_EQ(mutex_lock(&mutexes[0], true, &soon), GORT_ETIMEDOUT); /* ours, as it were: it stays locked */
    CHECK_OK(mutex_unlock(&mutexes[0]));
    CHECK_OK(mutex_lock(&mutexes[0], false, &soon));
    CHECK_OK(mutex_unlock(&mutexes[0]));
    CHECK_OK(rwmutex_rlock(&rw, false, &soon)); /* no writer waits here */
    CHECK_OK(rwmutex_runlock(&rw));
    CHECK_OK(rwmutex_runlock(&rw));
    CHECK_OK(rwmutex_lock(&rw, false, &soon));
}
static void test_locks_forget_the_waiters_in_the_child(void)
{
    for (int i = 0; i < 2; i++) mutexes[i].shared = true;
    rw.shared = true;
    CHECK_OK(mutex_lock(&mutexes[0], true, &wait_forever_native));
    CHECK_OK(rwmutex_rlock(&rw, true, &wait_forever_native));
    for (int i = 0; i < 3; i++) go(locker, &mutexes[0]);
    go(writer, &rw);
    UNTIL(waiting(&mutexes[0].lock, &mutexes[0].q) == 3 && waiting(&rw.lock, &rw.q) == 1);
    CHECK_EQ(forked(locks_of_the_parent), 7);
    CHECK_OK(mutex_unlock(&mutexes[0]));
    CHECK_OK(rwmutex_runlock(&rw));
    UNTIL(gort_num_native() == 0);
}

/* ---- in the midst of everything ------------------------------------------------------ */
static _Atomic bool over;
static gort_chan *busy[3];
static void talker(void *p)
{
    rnd r = { (uint64_t)(uintptr_t)p };
    while (!atomic_load(&over)) {
        gort_chan *c = busy[rnd_below(&r, 3)];
        int64_t v = (int64_t)rnd_below(&r, 100);
        switch (rnd_below(&r, 4)) {
        case 0: gort_chan_send_timeout(c, &v, 20000); break;
        case 1: gort_chan_recv_timeout(c, &v, 20000); break;
        case 2: gort_sleep_ns((int64_t)rnd_below(&r, 50000)); break;
        default: gort_yield();
        }
    }
}
static void *talking_thread(void *p)
{
    talker(p);
    return NULL;
}
static void use_the_busy(void)
{
    for (int i = 0; i < 3; i++) { /* whatever state they were caught in */
        int64_t v = 1;
        size_t n = gort_chan_len(busy[i]);
        CHECK(n <= gort_chan_cap(busy[i]));
        for (; n > 0; n--) {
            CHECK_OK(gort_chan_try_recv(busy[i], &v));
            CHECK(v >= 0 && v < 100);
        }
        CHECK_EQ(gort_chan_try_recv(busy[i], &v), GORT_EAGAIN);
        for (n = 0; gort_chan_try_send(busy[i], &v) == GORT_OK; n++) { }
        CHECK_EQ(n, gort_chan_cap(busy[i]));
    }
    use_everything(0);
}
static void test_forks_in_the_midst_of_everything(void)
{
    pthread_t th[2];
    gort_maxprocs(4);
    atomic_store(&over, false);
    for (int i = 0; i < 3; i++) busy[i] = gort_chan_new(GORT_I64, (size_t)i * 3);
    for (uintptr_t i = 1; i <= 12; i++) go(talker, (void *)i);
    for (uintptr_t i = 0; i < 2; i++) CHECK(pthread_create(&th[i], NULL, talking_thread, (void *)(i + 100)) == 0);
    for (int64_t i = scaled(SANITIZED ? 20 : 100, 5); i > 0; i--) CHECK_EQ(forked(use_the_busy), 7);
    atomic_store(&over, true);
    for (int i = 0; i < 2; i++) pthread_join(th[i], NULL);
    UNTIL(gort_num_native() == 0);
    for (int i = 0; i < 3; i++) gort_chan_unref(busy[i]);
}

int main(int argc, char **argv)
{
    if (TSAN || ASAN_FORKS_LOCKED) {
        printf("test_fork: not under this compiler's %s\n", TSAN ? "ThreadSanitizer" : "AddressSanitizer");
        return 0;
    }
    ctest_begin(argc, argv);
    RUN(test_a_thread_forks);
    RUN(test_a_goroutine_forks);
    RUN(test_the_forker_may_end_in_the_child);
    RUN(test_a_child_sends_to_nobody_who_waited_in_the_parent);
    RUN(test_a_job_of_the_parent_has_ended_in_the_child);
    RUN(test_locks_forget_the_waiters_in_the_child);
    RUN(test_forks_in_the_midst_of_everything);
    return ctest_end();
}
