/* What does it cost to start a native goroutine that does nothing, and to know
 * that it ended? 1,000 at a time, with a wait group, as in ../go/spawn.go. */
#include "bench.h"

enum { BATCH = 1000 };

static void finish(void *wg)
{
    gort_wg_done(wg);
}

static int64_t spawn(long n)
{
    gort_wg *wg = bench_wg(0);
    int64_t start = gort_now_ns();
    for (long batch = 0; batch < n / BATCH; batch++) {
        gort_wg_add(wg, BATCH);
        for (int i = 0; i < BATCH; i++)
            bench_go(finish, wg);
        gort_wg_wait(wg);
    }
    int64_t ns = gort_now_ns() - start;
    gort_wg_free(wg);
    return ns;
}

BENCH_MAIN({ "native_spawn", BATCH, spawn })
