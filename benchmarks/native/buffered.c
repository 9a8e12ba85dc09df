/* What does an item cost from one native goroutine to another through a channel
 * of capacity 128? Go's counterpart: ../go/native_channels.go. */
#include "bench.h"

enum { CAP = 128 };

typedef struct flow {
    gort_chan *c;
    long n;
    int64_t sum;
    gort_wg *done;
} flow;

static void produce(void *arg)
{
    flow *f = arg;
    for (int64_t i = 0; i < f->n; i++)
        gort_chan_send(f->c, &i);
    gort_wg_done(f->done);
}

static void consume(void *arg)
{
    flow *f = arg;
    int64_t v, sum = 0;
    for (long i = 0; i < f->n; i++) {
        gort_chan_recv(f->c, &v);
        sum += v;
    }
    f->sum = sum;
    gort_wg_done(f->done);
}

static int64_t buffered(long n)
{
    flow f = { bench_chan(CAP), n, 0, bench_wg(2) };
    int64_t start = gort_now_ns();
    bench_go(produce, &f);
    bench_go(consume, &f);
    gort_wg_wait(f.done);
    int64_t ns = gort_now_ns() - start;
    BENCH_CHECK(f.sum == (int64_t)n * (n - 1) / 2);
    gort_wg_free(f.done);
    gort_chan_unref(f.c);
    return ns;
}

BENCH_MAIN({ "native_buffered", 1, buffered })
