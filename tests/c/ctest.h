/* ctest.h - what the C tests share: checks, a runner, a watchdog, helpers.
 *
 * A program lists its tests in main: RUN(test_name); ... return ctest_end(); A
 * failed CHECK says where and ends the program with status 1. A test that takes
 * too long is ended by the watchdog, a thread, which prints the runtime's state
 * and aborts. (No alarm(): ThreadSanitizer puts signals off, and in a thread
 * that hangs in a futex for good.)
 *
 * A test in need of a process of its own (environment, first use, death) is
 * named with CHILD(name) and started with ctest_child(): the program runs itself
 * anew with that name, so nothing is left of the parent's threads.
 *
 * Environment: GORT_STRESS_SCALE (how long stress tests run, 1), CTEST_ONLY (a
 * part of the names of the tests to run), CTEST_REPEAT (each that many times),
 * CTEST_WATCHDOG (seconds a test may take).
 */
#ifndef GORT_CTEST_H
#define GORT_CTEST_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "runtime.h"
#include "schedint.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__SANITIZE_THREAD__)
#define TSAN 1
#else
#define TSAN 0
#endif
#if defined(__SANITIZE_ADDRESS__)
#define ASAN 1
#else
#define ASAN 0
#endif
#define SANITIZED (TSAN || ASAN)

#define MS ((int64_t)1000000)
#define COUNT(a) (sizeof(a) / sizeof(a)[0])
#define UNUSED __attribute__((unused))

/* ---- checks --------------------------------------------------------------- */
static const char *ctest_name = "start";

static UNUSED _Noreturn void ctest_fail(const char *file, int line, const char *what)
{
    fflush(stdout);
    fprintf(stderr, "%s:%d: %s: CHECK failed: %s\n", file, line, ctest_name, what);
    _exit(1);
}
#define CHECK(x) ((x) ? (void)0 : ctest_fail(__FILE__, __LINE__, #x))
/* Two integers; both are printed. */
#define CHECK_EQ(a, b) do { \
    int64_t a_ = (int64_t)(a), b_ = (int64_t)(b); \
    if (a_ != b_) { \
        char buf_[1024]; \
        snprintf(buf_, sizeof buf_, "%s is %" PRId64 ", should be %s, %" PRId64, #a, a_, #b, b_); \
        ctest_fail(__FILE__, __LINE__, buf_); \
    } } while (0)
#define CHECK_OK(x) CHECK_EQ(x, GORT_OK)
/* Wait for something another thread does; the watchdog bounds it. */
#define UNTIL(x) do { for (int n_ = 0; !(x); n_++) ctest_nap(n_); } while (0)

static UNUSED void ctest_nap(int n)
{
    if (n < 50) gort_yield();
    else if (gort_goid()) gort_sleep_ns(20000);
    else nanosleep(&(struct timespec){ .tv_nsec = 20000 }, NULL);
}

/* ---- scale ---------------------------------------------------------------- */
static UNUSED double ctest_scale(void)
{
    static double s = 0;
    if (s == 0) {
        const char *e = getenv("GORT_STRESS_SCALE");
        s = e && atof(e) > 0 ? atof(e) : 1;
    }
    return s;
}
/* n rounds of a stress test, at least `least`. */
static UNUSED int64_t scaled(double n, int64_t least)
{
    int64_t v = (int64_t)(n * ctest_scale());
    return v < least ? least : v;
}

/* ---- random numbers: repeatable within a thread ---------------------------- */
typedef struct rnd { uint64_t s; } rnd;
static UNUSED uint64_t rnd_u64(rnd *r)
{   /* splitmix64 */
    uint64_t z = r->s += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}
static UNUSED uint32_t rnd_below(rnd *r, uint32_t n) { return (uint32_t)(rnd_u64(r) >> 32) % n; }
static UNUSED uint64_t ctest_seed(void)
{
    const char *e = getenv("CTEST_SEED");
    return e ? strtoull(e, NULL, 0) : (uint64_t)gort_now_ns();
}

/* ---- the runtime's state, for the watchdog ---------------------------------- */
static UNUSED void ctest_state(void)
{
    Dom *d = &gort_native;
    int64_t now = gort_now_ns();
    fprintf(stderr, "native: nprocs=%d npidle=%d spinning=%d nm=%d nmidle=%d runqsize=%d lock=%u goroutines=%" PRId64
            " timer_m=%d timer_when=%+.3f ms\n",
            d->nprocs, d->npidle, d->nmspinning, d->nm, d->nmidle, d->runqsize, d->lock.v, sched_ngo(d),
            d->timer_m ? (int)d->timer_m->id : -1, (double)(d->timer_when - now) / 1e6);
    for (int i = 0; i < d->nallp; i++) {
        P *p = d->allp[i];
        if (p->status == P_DEAD && p->tm.n == 0 && runq_empty(p)) continue;
        fprintf(stderr, "  P%d status=%d m=%d ring=%u runnext=%p tick=%u timers=%d next=%+.3f ms\n", i, p->status,
                p->m ? (int)((M *)p->m)->id : -1, p->runq_tail - p->runq_head, (void *)p->runnext, p->schedtick,
                p->tm.n, p->tm.next == GORT_FOREVER ? 0.0 : (double)(p->tm.next - now) / 1e6);
    }
    for (M *m = d->allm; m; m = m->alllink)
        fprintf(stderr, "  M%u tid=%d idle=%d spinning=%d note=%u p=%d curg=%" PRIu64 "\n", m->id, m->tid, m->idle,
                m->spinning, m->note, m->p ? m->p->id : -1, m->curg ? m->curg->id : 0);
    fatal_print_goroutines(2);
}

/* ---- watchdog --------------------------------------------------------------- */
static _Atomic int64_t ctest_due = INT64_MAX;
static int64_t ctest_limit;

static UNUSED void *ctest_watch(void *arg)
{
    (void)arg;
    while (os_now_ns() < atomic_load(&ctest_due)) nanosleep(&(struct timespec){ .tv_nsec = 50 * MS }, NULL);
    fflush(stdout);
    fprintf(stderr, "%s: no end after %" PRId64 " s; the state is\n", ctest_name, ctest_limit / 1000000000);
    ctest_state();
    signal(SIGABRT, SIG_DFL);
    abort();
}

static UNUSED void ctest_watchdog(void)
{
    const char *e = getenv("CTEST_WATCHDOG");
    pthread_t th;
    ctest_limit = (int64_t)(e ? atof(e) : 60 * (SANITIZED ? 3 : 1) * (ctest_scale() > 1 ? ctest_scale() : 1)) * 1000000000;
    atomic_store(&ctest_due, os_now_ns() + ctest_limit);
    if (pthread_create(&th, NULL, ctest_watch, NULL) == 0) pthread_detach(th);
}

/* ---- runner ------------------------------------------------------------------ */
static int ctest_ran, ctest_argc;
static char **ctest_argv;
static int64_t ctest_began;

/* What is to hold between tests: nobody is left. */
static UNUSED void ctest_settle(void) { UNTIL(gort_num_native() == 0); }

static UNUSED void ctest_begin(int argc, char **argv)
{
    ctest_argc = argc;
    ctest_argv = argv;
    ctest_began = os_now_ns();
    setvbuf(stdout, NULL, _IOLBF, 0);
    ctest_scale(); /* read here, before there are others */
    if (TSAN && argc == 1) { /* or each child would wait a second at its end */
        const char *e = getenv("TSAN_OPTIONS");
        char all[1024];
        snprintf(all, sizeof all, "%s:atexit_sleep_ms=20", e ? e : "");
        setenv("TSAN_OPTIONS", all, 1);
    }
    ctest_watchdog();
}

static UNUSED void ctest_run(const char *name, void (*fn)(void))
{
    const char *only = getenv("CTEST_ONLY"), *rep = getenv("CTEST_REPEAT");
    if (ctest_argc > 1 || (only && !strstr(name, only))) return;
    for (int n = rep ? atoi(rep) : 1; n > 0; n--) {
        int64_t start = os_now_ns();
        ctest_name = name;
        atomic_store(&ctest_due, start + ctest_limit);
        fn();
        ctest_settle();
        printf("  %-60s %7.1f ms\n", name, (double)(os_now_ns() - start) / 1e6);
    }
    ctest_ran++;
}
#define RUN(fn) ctest_run(#fn, fn)

static UNUSED int ctest_end(void)
{
    if (ctest_argc > 1) ctest_fail(__FILE__, __LINE__, "no such child test");
    printf("%s: %d tests passed in %.1f s\n", program_invocation_short_name, ctest_ran,
           (double)(os_now_ns() - ctest_began) / 1e9);
    return 0;
}

/* ---- child processes ----------------------------------------------------------- */
#define CHILD(fn) do { \
    if (ctest_argc > 1 && strcmp(ctest_argv[1], #fn) == 0) { \
        ctest_name = #fn; \
        fn(); \
        fflush(stdout); \
        exit(0); \
    } } while (0)

/* Run the child test with more environment ("A=b" ..., NULL) and collect what it
 * says on stderr. Returns its wait status. */
static UNUSED int ctest_child(const char *name, const char *const *env, char *out, size_t room)
{
    int fd[2];
    CHECK(pipe(fd) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        dup2(fd[1], 2);
        close(fd[0]);
        close(fd[1]);
        for (; env && *env; env++) putenv((char *)(uintptr_t)*env);
        const char *run = getenv("CTEST_RUN"); /* an emulator's path: the kernel cannot run us itself */
        if (run) execl(run, run, ctest_argv[0], name, (char *)NULL);
        else execl("/proc/self/exe", ctest_argv[0], name, (char *)NULL);
        _exit(127);
    }
    close(fd[1]);
    size_t n = 0;
    char sink[4096];
    for (ssize_t k; (k = read(fd[0], sink, sizeof sink)) > 0;)
        for (ssize_t i = 0; i < k && out && n + 1 < room; i++) out[n++] = sink[i];
    if (out) out[n] = 0;
    close(fd[0]);
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    return status;
}
/* The same for a child that is to succeed. */
static UNUSED void ctest_child_ok(const char *name, const char *const *env)
{
    static char out[65536];
    int st = ctest_child(name, env, out, sizeof out);
    if (!WIFEXITED(st) || WEXITSTATUS(st)) {
        fprintf(stderr, "%s: status %x, it said:\n%s\n", name, (unsigned)st, out);
        ctest_fail(__FILE__, __LINE__, name);
    }
}

/* ---- goroutines and threads alike ------------------------------------------------ */
static UNUSED void go(void (*fn)(void *), void *arg) { CHECK_OK(gort_go(fn, arg)); }

typedef struct task {
    void (*fn)(void *);
    void *arg;
    gort_wg *wg;
} task;
static UNUSED void task_go(void *p)
{
    task t = *(task *)p;
    free(p);
    t.fn(t.arg);
    gort_wg_done(t.wg);
}
static UNUSED void *task_thread(void *p)
{
    task_go(p);
    return NULL;
}
/* Start fn(arg) as a goroutine or a plain thread that counts down wg at its end. */
static UNUSED void start(gort_wg *wg, bool thread, void (*fn)(void *), void *arg)
{
    task *t = malloc(sizeof *t);
    *t = (task){ fn, arg, wg };
    CHECK_OK(gort_wg_add(wg, 1));
    if (!thread) {
        go(task_go, t);
        return;
    }
    pthread_t th;
    pthread_attr_t a;
    pthread_attr_init(&a);
    pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&a, (size_t)256 << 10);
    CHECK(pthread_create(&th, &a, task_thread, t) == 0);
    pthread_attr_destroy(&a);
}
static UNUSED gort_wg *group(void)
{
    gort_wg *wg = gort_wg_new();
    CHECK(wg != NULL);
    return wg;
}
static UNUSED void finish(gort_wg *wg)
{
    CHECK_OK(gort_wg_wait(wg));
    gort_wg_free(wg);
}

/* How many wait in q, which l guards. */
static UNUSED int waiting(gmutex *l, waitq *q)
{
    int n = 0;
    gmutex_lock(l);
    for (sudog *s = q->first; s; s = s->next) n++;
    gmutex_unlock(l);
    return n;
}
static UNUSED int receivers(gort_chan *c) { return waiting(&c->lock, &c->recvq); }
static UNUSED int senders(gort_chan *c) { return waiting(&c->lock, &c->sendq); }

static UNUSED void compute_ns(int64_t ns)
{
    for (int64_t end = gort_now_ns() + ns; gort_now_ns() < end;) os_pause();
}
static UNUSED waitopt within(int64_t ns) { return (waitopt){ .deadline = gort_now_ns() + ns }; }
#endif
