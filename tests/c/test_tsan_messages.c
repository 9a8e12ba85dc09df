/* test_tsan_messages.c - messages through contended channels on four Ps: each
 * arrives once, and what its sender wrote before is seen by its receiver.
 *
 * 200,000 messages by default; GORT_STRESS_SCALE=50 makes it ten million. A
 * message is the index of a plain (not atomic) cell: ThreadSanitizer finds a
 * hand-over that orders nothing, any build one that loses or doubles.
 */
#include "ctest.h"

enum { MAXCHANS = 4 };
typedef struct kind {
    const char *name;
    int chans;              /* more than one: by select */
    size_t cap;
    int producers, consumers;
} kind;
typedef struct mill {
    const kind *k;
    gort_chan *c[MAXCHANS];
    uint32_t *cell;
    int64_t total;
    _Atomic int64_t next;       /* the first message nobody sends yet */
    _Atomic int64_t sent, got, sum;
} mill;

static uint32_t stamp(int64_t v) { return (uint32_t)v * 2654435761u | 1; }

static void send_one(mill *m, int64_t *v)
{
    if (m->k->chans == 1) {
        CHECK_OK(gort_chan_send(m->c[0], v));
        return;
    }
    gort_case cs[MAXCHANS];
    for (int i = 0; i < m->k->chans; i++) cs[i] = (gort_case){ .c = m->c[i], .dir = GORT_SEND, .elem = v };
    int i = gort_select(cs, m->k->chans, GORT_FOREVER);
    CHECK(i >= 0 && i < m->k->chans && cs[i].ok);
}

static void produce(void *p)
{
    enum { SHARE = 100 };
    mill *m = p;
    int64_t sent = 0;
    for (int64_t first; (first = atomic_fetch_add(&m->next, SHARE)) < m->total;)
        for (int64_t v = first; v < first + SHARE && v < m->total; v++) {
            m->cell[v] = stamp(v);
            int64_t w = v;
            send_one(m, &w);
            sent++;
        }
    atomic_fetch_add(&m->sent, sent);
}

static void consume(void *p)
{
    mill *m = p;
    int64_t v, got = 0, sum = 0;
    gort_case cs[MAXCHANS];
    for (int i = 0; i < m->k->chans; i++) cs[i] = (gort_case){ .c = m->c[i], .dir = GORT_RECV, .elem = &v };
    for (int open = m->k->chans; open;) {
        if (m->k->chans == 1) {
            if (gort_chan_recv(m->c[0], &v) == GORT_ECLOSED) break;
        } else {
            int i = gort_select(cs, m->k->chans, GORT_FOREVER);
            CHECK(i >= 0 && i < m->k->chans);
            if (!cs[i].ok) {
                cs[i].c = NULL;
                open--;
                continue;
            }
        }
        CHECK(v >= 0 && v < m->total && m->cell[v] == stamp(v));
        m->cell[v] = 0;
        got++;
        sum += v;
    }
    atomic_fetch_add(&m->got, got);
    atomic_fetch_add(&m->sum, sum);
}

static void run_mill(const kind *k, int64_t total)
{
    mill m = { .k = k, .total = total, .cell = calloc((size_t)total, sizeof *m.cell) };
    CHECK(m.cell != NULL);
    for (int i = 0; i < k->chans; i++) m.c[i] = gort_chan_new(GORT_I64, k->cap);
    gort_wg *from = group(), *to = group();
    int64_t t = gort_now_ns();
    for (int i = 0; i < k->consumers; i++) start(to, false, consume, &m);
    for (int i = 0; i < k->producers; i++) start(from, false, produce, &m);
    finish(from);
    for (int i = 0; i < k->chans; i++) CHECK_OK(gort_chan_close(m.c[i]));
    finish(to);
    t = gort_now_ns() - t;
    CHECK_EQ(atomic_load(&m.sent), total);
    CHECK_EQ(atomic_load(&m.got), total);
    CHECK_EQ(atomic_load(&m.sum), total * (total - 1) / 2);
    for (int64_t i = 0; i < total; i++) CHECK_EQ(m.cell[i], 0);
    for (int i = 0; i < k->chans; i++) gort_chan_unref(m.c[i]);
    free(m.cell);
    printf("    %-32s %9" PRId64 " messages %7.0f ns each\n", k->name, total, (double)t / (double)total);
}

static void test_messages_arrive_once_and_in_order_of_memory(void)
{
    static const kind kinds[] = {
        { "unbuffered, 4 to 4", 1, 0, 4, 4 },         { "unbuffered, 16 to 16", 1, 0, 16, 16 },
        { "unbuffered, 1 to 8", 1, 0, 1, 8 },         { "unbuffered, 8 to 1", 1, 0, 8, 1 },
        { "buffer of 1, 8 to 8", 1, 1, 8, 8 },        { "buffer of 7, 8 to 8", 1, 7, 8, 8 },
        { "select of 4 unbuffered, 8 to 8", 4, 0, 8, 8 }, { "select of 2 buffers of 2, 8 to 8", 2, 2, 8, 8 },
    };
    gort_maxprocs(4);
    int64_t all = scaled(200000, 8000);
    for (size_t i = 0; i < COUNT(kinds); i++) run_mill(&kinds[i], all / (int64_t)COUNT(kinds));
}

int main(int argc, char **argv)
{
    ctest_begin(argc, argv);
    RUN(test_messages_arrive_once_and_in_order_of_memory);
    return ctest_end();
}
