/* How long is a round trip between two native goroutines over unbuffered
 * channels? Go's counterpart: ../go/native_channels.go. */
#include "bench.h"

typedef struct pair {
    gort_chan *there, *back;
    long n;
    gort_wg *done;
} pair;

static void echo(void *arg)
{
    pair *p = arg;
    for (long i = 0; i < p->n; i++) {
        int64_t v;
        gort_chan_recv(p->there, &v);
        gort_chan_send(p->back, &v);
    }
    gort_wg_done(p->done);
}

static int64_t pingpong(long n)
{
    pair p = { bench_chan(0), bench_chan(0), n, bench_wg(1) };
    bench_go(echo, &p);
    int64_t start = gort_now_ns(), sum = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t v;
        gort_chan_send(p.there, &i);
        gort_chan_recv(p.back, &v);
        sum += v;
    }
    int64_t ns = gort_now_ns() - start;
    gort_wg_wait(p.done);
    BENCH_CHECK(sum == (int64_t)n * (n - 1) / 2);
    gort_wg_free(p.done);
    gort_chan_unref(p.there);
    gort_chan_unref(p.back);
    return ns;
}

BENCH_MAIN({ "native_pingpong", 1, pingpong })
