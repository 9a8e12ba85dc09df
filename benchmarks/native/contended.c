/* What does an item cost through one channel that four native goroutines send on
 * and four receive from, unbuffered and at capacity 128? Go's counterpart:
 * ../go/native_channels.go. */
#include "bench.h"

enum { PRODUCERS = 4, CONSUMERS = 4, CAP = 128 };

typedef struct crowd {
    gort_chan *c;
    long n;
    int64_t sum; /* atomic */
    gort_wg *done;
} crowd;

static void produce(void *arg)
{
    crowd *w = arg;
    for (int64_t i = 0; i < w->n / PRODUCERS; i++)
        gort_chan_send(w->c, &i);
    gort_wg_done(w->done);
}

static void consume(void *arg)
{
    crowd *w = arg;
    int64_t v, sum = 0;
    for (long i = 0; i < w->n / CONSUMERS; i++) {
        gort_chan_recv(w->c, &v);
        sum += v;
    }
    __atomic_fetch_add(&w->sum, sum, __ATOMIC_RELAXED);
    gort_wg_done(w->done);
}

static int64_t contended(long n, size_t cap)
{
    crowd w = { bench_chan(cap), n, 0, bench_wg(PRODUCERS + CONSUMERS) };
    int64_t start = gort_now_ns();
    for (int i = 0; i < PRODUCERS; i++)
        bench_go(produce, &w);
    for (int i = 0; i < CONSUMERS; i++)
        bench_go(consume, &w);
    gort_wg_wait(w.done);
    int64_t ns = gort_now_ns() - start, each = n / PRODUCERS;
    BENCH_CHECK(w.sum == PRODUCERS * (each * (each - 1) / 2));
    gort_wg_free(w.done);
    gort_chan_unref(w.c);
    return ns;
}

static int64_t unbuffered(long n)
{
    return contended(n, 0);
}

static int64_t buffered(long n)
{
    return contended(n, CAP);
}

BENCH_MAIN({ "native_contended", PRODUCERS, unbuffered },
           { "native_contended128", PRODUCERS, buffered })
