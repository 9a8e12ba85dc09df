/* bench.h - what the native benchmarks share: size them, run them, print them.
 *
 *     prog [-n N] [-target SECONDS] [-repeat N] CASE
 *
 * The same command line and output as ../go/main.go: `p P`, `n N`, then a line
 * `CASE NANOSECONDS_PER_OPERATION` for each repetition. A case runs in a
 * goroutine; main is a plain OS thread that waits for it. P is gort's own, from
 * GOMAXPROCS.
 */
#ifndef GORT_BENCH_H
#define GORT_BENCH_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gort.h"

typedef struct bench_case {
    const char *name;
    long step;                  /* n is a multiple of this */
    int64_t (*run)(long n);     /* does n operations, returns the nanoseconds */
} bench_case;

/* Refuse to time work that was not done. */
static inline void bench_fail(const char *what)
{
    fprintf(stderr, "failed: %s\n", what);
    exit(1);
}

#define BENCH_CHECK(condition)          \
    do {                                \
        if (!(condition))               \
            bench_fail(#condition);     \
    } while (0)

static inline gort_wg *bench_wg(int64_t n)
{
    gort_wg *wg = gort_wg_new();
    BENCH_CHECK(wg != NULL);
    BENCH_CHECK(gort_wg_add(wg, n) == GORT_OK);
    return wg;
}

static inline void bench_go(void (*fn)(void *), void *arg)
{
    BENCH_CHECK(gort_go(fn, arg) == GORT_OK);
}

static inline gort_chan *bench_chan(size_t cap)
{
    gort_chan *c = gort_chan_new(GORT_I64, cap);
    BENCH_CHECK(c != NULL);
    return c;
}

typedef struct bench_job {
    const bench_case *c;
    long n;
    int64_t ns;
    gort_wg *done;
} bench_job;

static inline void bench_job_run(void *arg)
{
    bench_job *job = arg;
    job->ns = job->c->run(job->n);
    gort_wg_done(job->done);
}

static inline int64_t bench_measure(const bench_case *c, long n)
{
    bench_job job = { c, n, 0, bench_wg(1) };
    bench_go(bench_job_run, &job);
    BENCH_CHECK(gort_wg_wait(job.done) == GORT_OK);
    gort_wg_free(job.done);
    return job.ns;
}

static inline long bench_round_up(double n, long step)
{
    long steps = ((long)n + step - 1) / step;
    return (steps > 0 ? steps : 1) * step;
}

/* An n that takes about `target` nanoseconds: see _child.calibrate. */
static inline long bench_calibrate(const bench_case *c, double target)
{
    long n = 1000;
    for (;;) {
        n = bench_round_up(n, c->step);
        double took = bench_measure(c, n);
        if (took >= target / 4)
            return bench_round_up(n * target / took, c->step);
        double grow = 10;
        if (took > 0 && grow > 0.5 * target / took)
            grow = 0.5 * target / took;
        n = (long)(n * (grow < 2 ? 2 : grow));
    }
}

static inline int bench_main(int argc, char **argv, const bench_case *cases, size_t count)
{
    long n = 0, repeat = 5;
    double target = 0.3;
    int at = 1;
    for (; at + 1 < argc && argv[at][0] == '-'; at += 2) {
        if (strcmp(argv[at], "-n") == 0)
            n = atol(argv[at + 1]);
        else if (strcmp(argv[at], "-target") == 0)
            target = atof(argv[at + 1]);
        else if (strcmp(argv[at], "-repeat") == 0)
            repeat = atol(argv[at + 1]);
        else
            bench_fail("unknown option");
    }
    const bench_case *c = NULL;
    for (size_t i = 0; at + 1 == argc && i < count; i++)
        if (strcmp(cases[i].name, argv[at]) == 0)
            c = &cases[i];
    if (c == NULL)
        bench_fail("no such case");
    if (n == 0)
        n = bench_calibrate(c, target * 1e9);
    printf("p %d\nn %ld\n", gort_maxprocs(0), n);
    while (repeat-- > 0) {
        printf("%s %.3f\n", c->name, (double)bench_measure(c, n) / (double)n);
        fflush(stdout);
    }
    return 0;
}

#define BENCH_MAIN(...)                                                     \
    int main(int argc, char **argv)                                         \
    {                                                                       \
        const bench_case cases[] = { __VA_ARGS__ };                         \
        return bench_main(argc, argv, cases, sizeof cases / sizeof *cases); \
    }

#endif /* GORT_BENCH_H */
