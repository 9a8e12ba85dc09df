/* How long does a tree of native goroutines take that is split down to leaves of
 * real work, and how much shorter is it on two Ps? Go's: ../go/native_forkjoin.go.
 *
 * Every inner node starts a goroutine for its left half, does the right half
 * itself and waits for the left. A leaf turns a xorshift generator 500 to 3,499
 * times, by its number: about 4 us on average, uneven, so that the tree must be
 * balanced by stealing. Each turn depends on the one before, six cycles whatever
 * the compiler, so the leaves cost the same in C and in Go, and the difference
 * is the runtime's. An operation is a leaf; there are as many inner nodes, less
 * one. The sum of the leaves is checked. */
#include "bench.h"

typedef struct node {
    uint64_t low, high, sum;
    gort_wg *done;
} node;

static uint64_t leaf(uint64_t i)
{
    uint64_t x = (i + 1) * UINT64_C(0x9E3779B97F4A7C15);
    for (uint64_t turns = 500 + (x >> 40) % 3000; turns > 0; turns--) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    return x;
}

static uint64_t tree(uint64_t low, uint64_t high);

static void left_half(void *arg)
{
    node *left = arg;
    left->sum = tree(left->low, left->high);
    gort_wg_done(left->done);
}

static uint64_t tree(uint64_t low, uint64_t high)
{
    if (high - low == 1)
        return leaf(low);
    uint64_t middle = low + (high - low) / 2;
    node left = { low, middle, 0, bench_wg(1) };
    bench_go(left_half, &left);
    uint64_t right = tree(middle, high);
    gort_wg_wait(left.done);
    gort_wg_free(left.done);
    return left.sum + right;
}

static int64_t forkjoin(long n)
{
    static long wanted_n;
    static uint64_t wanted_sum;
    int64_t start = gort_now_ns();
    uint64_t sum = tree(0, (uint64_t)n);
    int64_t ns = gort_now_ns() - start;
    if (wanted_n != n) {
        wanted_n = n;
        wanted_sum = 0;
        for (long i = 0; i < n; i++)
            wanted_sum += leaf((uint64_t)i);
    }
    BENCH_CHECK(sum == wanted_sum);
    return ns;
}

BENCH_MAIN({ "native_forkjoin", 1, forkjoin })
