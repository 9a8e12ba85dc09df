/* test_config.c - the environment: numbers, sizes, GORT_DEBUG; what is said of nonsense. */
#include "ctest.h"

/* What f(env) gives for this value; *said: it was complained of, on stderr. */
static int64_t read_as(int64_t (*f)(const char *, int64_t, int64_t, int64_t), const char *val, int64_t min,
                       int64_t max, bool *said)
{
    int fd[2], save = dup(2);
    CHECK(pipe(fd) == 0 && dup2(fd[1], 2) == 2);
    close(fd[1]);
    if (val) setenv("CTEST_VALUE", val, 1);
    else unsetenv("CTEST_VALUE");
    int64_t v = f("CTEST_VALUE", 42, min, max);
    dup2(save, 2);
    close(save);
    static char out[512];
    ssize_t n = read(fd[0], out, sizeof out - 1);
    close(fd[0]);
    out[n > 0 ? n : 0] = 0;
    *said = n > 0;
    if (*said) CHECK(strstr(out, "CTEST_VALUE=") && strstr(out, "using 42") && out[n - 1] == '\n');
    return v;
}
typedef struct reading { const char *val; int64_t want; bool bad; } reading;
static void read_all(int64_t (*f)(const char *, int64_t, int64_t, int64_t), const reading *r, size_t n, int64_t min,
                     int64_t max)
{
    for (size_t i = 0; i < n; i++) {
        bool said;
        int64_t v = read_as(f, r[i].val, min, max, &said);
        if (v != r[i].want || said != r[i].bad) {
            fprintf(stderr, "\"%s\" is read as %" PRId64 ", complained of: %d\n", r[i].val ? r[i].val : "(none)", v, said);
            CHECK(!"as expected");
        }
    }
}

static void test_numbers(void)
{
    static const reading r[] = {
        { NULL, 42, 0 }, { "", 42, 0 }, { "1", 1, 0 }, { "7", 7, 0 }, { "1024", 1024, 0 }, { "1025", 42, 1 },
        { "0", 42, 1 }, { "-1", 42, 1 }, { "abc", 42, 1 }, { "5x", 42, 1 }, { "5K", 42, 1 }, { " ", 42, 1 },
        { "5 ", 42, 1 }, { "1.5", 42, 1 }, { "0x10", 42, 1 }, { "99999999999999999999", 42, 1 },
        { "-99999999999999999999", 42, 1 },
    };
    read_all(config_int, r, COUNT(r), 1, 1024);
    static const reading whole[] = { { "-5", -5, 0 }, { "9223372036854775807", INT64_MAX, 0 } };
    read_all(config_int, whole, COUNT(whole), INT64_MIN, INT64_MAX);
    static char longer[1000];
    memset(longer, '9', sizeof longer - 1);
    static const reading l[] = { { longer, 42, 1 } };
    read_all(config_int, l, 1, 1, 1024);
}

static void test_sizes(void)
{
    static const reading r[] = {
        { NULL, 42, 0 }, { "", 42, 0 }, { "16384", 16384, 0 }, { "16K", 16384, 0 }, { "16k", 16384, 0 },
        { "16KB", 16384, 0 }, { "16384B", 16384, 0 }, { "1M", 1 << 20, 0 }, { "2mb", 2 << 20, 0 },
        { "1024M", 1 << 30, 0 }, { "1025M", 42, 1 }, { "15K", 42, 1 }, { "K", 42, 1 }, { "16KK", 42, 1 },
        { "16KBx", 42, 1 }, { "-1K", 42, 1 }, { "-16384", 42, 1 }, { "-1", 42, 1 }, { "1G", 42, 1 },
        { "9223372036854775807K", 42, 1 }, { "-18014398509481968K", 42, 1 }, /* 16K modulo 2^64 */
        { "-9223372036854775808M", 42, 1 },
    };
    read_all(config_size, r, COUNT(r), 16 << 10, 1 << 30);
}

static void test_debug_keys(void)
{
    static const struct { const char *env, *key; int64_t want; } t[] = {
        { "schedtrace=100,maxms=7", "schedtrace", 100 }, { "schedtrace=100,maxms=7", "maxms", 7 },
        { "schedtrace=100,maxms=7", "turn", 5 },         { "blocked=100ms,turn=20us", "blocked", 100 },
        { "blocked=100ms,turn=20us", "turn", 20 },       { "blocked=100us", "blocked", 5 },
        { "turn=20ms", "turn", 5 },                      { "turn=", "turn", 5 },
        { "turn=x", "turn", 5 },                         { "turn=0", "turn", 5 },
        { "turn=7x,turn=8", "turn", 8 },                 { "turns=7", "turn", 5 },
        { "tur=7", "turn", 5 },                          { "maxms=0", "maxms", 5 },
        { "maxms=-3", "maxms", 5 },                      { "maxms=10001", "maxms", 5 },
        { "maxms=99999999999999999999", "maxms", 5 },    { ",,turn=3,", "turn", 3 },
        { "", "turn", 5 },                               { "stockswap=1", "stockswap", 1 },
        { "stockswap=2", "stockswap", 5 },               { "turn", "turn", 5 },
    };
    for (size_t i = 0; i < COUNT(t); i++) {
        setenv("GORT_DEBUG", t[i].env, 1);
        int64_t v = config_debug(t[i].key, 5);
        if (v == t[i].want) continue;
        fprintf(stderr, "%s of GORT_DEBUG=%s is read as %" PRId64 "\n", t[i].key, t[i].env, v);
        CHECK(!"as expected");
    }
    unsetenv("GORT_DEBUG");
    CHECK_EQ(config_debug("turn", 5), 5);
}

/* ---- in a process of its own, where they are read ------------------------------------- */
static void count_one(void *n) { atomic_fetch_add((_Atomic int *)n, 1); }
static void start_up(void)
{
    _Atomic int n = 0;
    go(count_one, (void *)&n);
    UNTIL(atomic_load(&n) == 1);
    fprintf(stderr, "procs=%d stack=%zu\n", gort_maxprocs(0), gort_stack_bytes);
    if (getenv("GORT_DEBUG")) nanosleep(&(struct timespec){ .tv_nsec = 100 * MS }, NULL);
}
static void test_what_the_runtime_reads_at_its_start(void)
{
    char cpus[32], out[8192];
    snprintf(cpus, sizeof cpus, "procs=%d ", os_ncpu());
    const struct { const char *env, *says, *not; } t[] = {
        { "GOMAXPROCS=3", "procs=3 ", "gort:" },      { "GOMAXPROCS=", cpus, "gort:" },
        { "GOMAXPROCS=0", cpus, "procs=0" },          { "GOMAXPROCS=0", "GOMAXPROCS=0 is not understood", "procs=0" },
        { "GOMAXPROCS=1025", cpus, "procs=1025" },    { "GORT_STACK=64K", "stack=65536\n", "gort:" },
        { "GORT_STACK=1M", "stack=1048576\n", "gort:" }, { "GORT_STACK=1K", "stack=262144\n", "SCHED" },
        { "GORT_STACK=-1K", "GORT_STACK=-1K is not understood", "stack=-" },
        { "GORT_DEBUG=schedtrace=10", "ms: gomaxprocs=", "gort:" },
        { "GORT_DEBUG=schedtrace=10", "idleprocs=", "gort:" }, { "GORT_DEBUG=nonsense", "procs=", "SCHED" },
        { "GORT_DEBUG=turn=20us,blocked=1h,maxms=5", "gort: blocked=1h in GORT_DEBUG is not understood", "turn" },
        { "GORT_PANIC=crash", "procs=", "gort:" },
        { "GORT_PANIC=1", "gort: GORT_PANIC=1 is not understood", "SCHED" },
    };
    unsetenv("GOMAXPROCS");
    unsetenv("GORT_STACK");
    for (size_t i = 0; i < COUNT(t); i++) {
        int st = ctest_child("start_up", (const char *[]){ t[i].env, NULL }, out, sizeof out);
        if (st || !strstr(out, t[i].says) || strstr(out, t[i].not)) {
            fprintf(stderr, "%s: status %d, it says:\n%s\n", t[i].env, st, out);
            CHECK(!"as expected");
        }
    }
}

int main(int argc, char **argv)
{
    ctest_begin(argc, argv);
    CHILD(start_up);
    RUN(test_numbers);
    RUN(test_sizes);
    RUN(test_debug_keys);
    RUN(test_what_the_runtime_reads_at_its_start);
    return ctest_end();
}
