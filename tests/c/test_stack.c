/* test_stack.c - goroutine stacks: slots, guards, reuse, overflow, one page each. */
#include "ctest.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

/* Can the kernel read it? Asked without a fault, and behind the sanitizers' backs. */
static bool readable(const void *p)
{
    static int fd[2];
    if (!fd[1]) CHECK(pipe2(fd, O_NONBLOCK) == 0);
    char c;
    bool ok = syscall(SYS_write, fd[1], p, 1) == 1;
    if (ok) CHECK(syscall(SYS_read, fd[0], &c, 1) == 1);
    else CHECK_EQ(errno, EFAULT);
    return ok;
}
static int64_t resident(const char *lo, const char *hi)
{
    static unsigned char v[1 << 16];
    size_t page = os_page_size(), n = 0, len = (size_t)(hi - lo) / page;
    CHECK(len <= sizeof v);
    CHECK(mincore((void *)(uintptr_t)lo, len * page, v) == 0);
    for (size_t i = 0; i < len; i++) n += v[i] & 1;
    return (int64_t)n;
}
static int count_g(G *g, void *n)
{
    (void)g;
    return ++*(int *)n < 1000000;
}
static int stop_at_two(G *g, void *n)
{
    (void)g;
    return ++*(int *)n < 2;
}

/* ---- pools of our own: never returned, as all of them ------------------------------ */
static struct stackpool *pools[10]; /* so that the leak checker finds them */
static void test_slots_are_apart_and_guarded(void)
{
    static const struct { size_t size, head, tail; int n; } t[] = {
        { 16 << 10, 0, 0, 100 },      { 64 << 10, 1000, 16 << 10, 100 }, { 256 << 10, 0, 0, 600 }, /* three slabs */
        { 256 << 10, 1024, 16 << 10, 50 }, { 300001, 100, 5000, 20 }, { 1 << 20, 512, 20 << 10, 70 },
        { (size_t)100 << 20, 0, 0, 2 }, /* more than a slab */
    };
    size_t page = os_page_size();
    for (size_t k = 0; k < COUNT(t); k++) {
        struct stackpool *sp = pools[k] = stackpool_new(t[k].size, t[k].head, t[k].tail);
        CHECK(sp && stack_size(sp) >= t[k].size && stack_size(sp) % page == 0);
        G *g[600];
        int seen = 0;
        stack_each(sp, count_g, &seen);
        CHECK_EQ(seen, 0);
        for (int i = 0; i < t[k].n; i++) {
            G *p = g[i] = stack_alloc(sp);
            CHECK(p && p->stack_hi == (char *)p && (uintptr_t)p % 16 == 0);
            char *slot = p->stack_lo - page, *end = slot + stack_size(sp);
            CHECK((uintptr_t)slot % page == 0 && p->ds_hi == end);
            CHECK(p->ds_lo >= (char *)(p + 1) && p->ds_hi - p->ds_lo >= (ptrdiff_t)(t[k].head + t[k].tail));
            CHECK(p->stack_hi - p->stack_lo + (ptrdiff_t)(2 * page) >= (ptrdiff_t)t[k].size);
            CHECK(!readable(slot) && !readable(slot + page - 1) && readable(p->stack_lo) && readable(end - 1));
            CHECK(stack_owner(sp, slot) == p && stack_owner(sp, p->stack_lo) == p && stack_owner(sp, end - 1) == p);
            CHECK(stack_owner(sp, slot - 1) != p && stack_owner(sp, end) != p);
            for (int j = 0; j < i; j++) CHECK(g[j]->ds_hi <= slot || g[j]->stack_lo - page >= end);
            p->id = 5;
        }
        stack_each(sp, count_g, &seen);
        CHECK_EQ(seen, t[k].n);
        seen = 0;
        stack_each(sp, stop_at_two, &seen);
        CHECK_EQ(seen, 2);
        CHECK(!stack_owner(sp, &sp) && !stack_owner(sp, NULL));
    }
    CHECK(!stack_owner(NULL, &pools));
}

static void test_a_slot_given_back_is_reused_as_zeros(void)
{
    enum { N = 1500 }; /* the free list grows once */
    struct stackpool *sp = pools[7] = stackpool_new(64 << 10, 64, 16 << 10);
    static G *g[N];
    for (int i = 0; i < N; i++) {
        CHECK((g[i] = stack_alloc(sp)) != NULL);
        memset(g[i]->stack_lo, 1, 100);
        g[i]->id = 7;
        memset(g[i]->ds_lo, 1, (size_t)(g[i]->ds_hi - g[i]->ds_lo));
    }
    for (int i = 0; i < N; i++) {
        char *lo = g[i]->stack_lo, *hi = g[i]->ds_hi;
        stack_free(sp, g[i]);
        CHECK_EQ(resident(lo, hi), 0);
    }
    for (int i = N - 1; i >= 0; i--) { /* the warmest first */
        G *p = stack_alloc(sp);
        CHECK(p == g[i] && p->id == 0 && !readable(p->stack_lo - 1));
        for (const char *c = p->ds_lo; c < p->ds_hi; c++) CHECK(!*c);
        for (int k = 0; k < 100; k++) CHECK(!p->stack_lo[k]);
    }
    int seen = 0;
    stack_each(sp, count_g, &seen);
    CHECK_EQ(seen, N);
}

static void test_a_warning_zone_opens_in_steps_and_closes(void)
{
    enum { STEP = 8 << 10, STEPS = 4, BAND = 16 << 10 };
    static Dom dom;
    struct stackpool *sp = dom.stacks = pools[8] = stackpool_new(128 << 10, 64, 16 << 10);
    stackpool_zone(sp, STEPS * STEP + 100);
    G *g = stack_alloc(sp), *next = stack_alloc(sp);
    g->dom = next->dom = &dom;
    char *lo = g->stack_lo, *top = lo + STEPS * STEP, *high = top + 1000;
    CHECK(!readable(top - BAND) && readable(top - BAND - 1) && readable(lo - 1)); /* its edge alone is closed */
    for (int round = 0; round < 3; round++) {
        CHECK(!readable(top - 1) && readable(top) && (!round || (!readable(lo - 1) && !readable(lo))));
        CHECK(!stack_deep(g, top, high) && !stack_deep(g, lo - 1, high) && !stack_deep(next, top - 1, high) && !g->deep);
        CHECK(stack_deep(g, top - 1, high) && g->deep == 1);
        CHECK(readable(top - STEP) && !readable(top - STEP - 1) && !readable(lo) && !readable(lo - 1));
        top[-1] = 1;
        CHECK(!stack_deep(g, top - STEP, high));                                /* open already */
        CHECK(stack_deep(g, lo + STEP, high) && g->deep == 3 && top[-1] == 1);  /* and all that is skipped */
        for (char *p = lo + STEP; p < top; p += STEP / 2) *p = 1;
        CHECK(!readable(lo + STEP - 1));
        if (round == 1) {
            CHECK(stack_deep(g, lo + STEP - 1, lo - 1) && g->deep == STEPS); /* the next touch is an overflow */
            CHECK(readable(lo) && !readable(lo - 1));
        }
        CHECK(!stack_deep(g, lo - 1, high));
        CHECK(stack_is_shallow(g, g->stack_hi - 1) && !stack_is_shallow(g, top) && !stack_is_shallow(g, &sp));
        os_fail_set(OS_FAIL_GUARD, 1, 1);
        stack_shallow(g);
        CHECK(g->deep >= 3 && readable(top - 1)); /* stays open: the next time, then */
        if (round < 2) stack_shallow(g);
        else stack_free(sp, g), CHECK(stack_alloc(sp) == g);
        CHECK(g->deep == 0);
        g->dom = &dom;
    }
    CHECK(!readable(lo) && !readable(top - 1) && !readable(next->stack_lo + STEPS * STEP - 1));
}

static void test_what_skipped_the_edge_of_the_zone_stays(void)
{
    enum { ZONE = 64 << 10, BAND = 16 << 10 };
    static Dom dom;
    struct stackpool *sp = dom.stacks = pools[9] = stackpool_new(256 << 10, 64, 16 << 10);
    stackpool_zone(sp, ZONE);
    G *g = stack_alloc(sp);
    g->dom = &dom;
    char *top = g->stack_lo + ZONE, *below = top - BAND - 5000;
    memset(below - 128, 3, 500); /* a frame, and what lies in its red zone */
    os_fail_set(OS_FAIL_GUARD, 1, 1);
    CHECK(!stack_deep(g, top - 100, below) && g->deep == 0 && below[-128] == 3);
    CHECK(stack_deep(g, top - 100, below) && g->deep == 3);
    CHECK(readable(top - 1) && readable(top - BAND) && below[-128] == 3 && below[300] == 3);
    CHECK(!readable(g->stack_lo) && !readable(g->stack_lo + ZONE - 3 * (8 << 10) - 1));
}

/* ---- of goroutines ---------------------------------------------------------------------- */
static NOINLINE int dig(volatile char *above, size_t bytes) /* use that much stack */
{
    volatile char room[512];
    memset((char *)room, 1, sizeof room);
    if (bytes <= sizeof room) return room[0];
    return dig(room, bytes - sizeof room - 64) + above[0];
}
static NOINLINE int dig_for_ever(volatile char *above)
{
    volatile char room[256];
    room[0] = above[0];
    return room[0] ? 0 : dig_for_ever(room) + room[0];
}

static void dig_most(void *p)
{
    size_t n = (size_t)(getm()->curg->stack_hi - getm()->curg->stack_lo);
    volatile char c = 1;
    if (!SANITIZED) CHECK(dig(&c, n / 5 * 2) > 0); /* a frame may be twice its array */
    atomic_fetch_add((_Atomic int *)p, 1);
}
static void dig_in_child(void)
{
    _Atomic int n = 0;
    int64_t size = strtol(getenv("GORT_STACK"), NULL, 10) << 10;
    int many = size > 1 << 20 ? 2 : 300; /* in a second slab too, if that is cheap */
    for (int i = 0; i < many; i++) go(dig_most, (void *)&n);
    UNTIL(atomic_load(&n) == many);
    CHECK((int64_t)stack_size(gort_native.stacks) >= size);
}
static void test_stacks_are_as_large_as_asked_for(void)
{
    static const char *const sizes[] = { "GORT_STACK=16K", "GORT_STACK=256K", "GORT_STACK=1024K", "GORT_STACK=102400K" };
    for (size_t i = SANITIZED; i < COUNT(sizes); i++)
        ctest_child_ok("dig_in_child", (const char *[]){ sizes[i], NULL });
}

typedef struct called { char *lo, *hi; int depth, parked; } called;
static NOINLINE void on_large(void *p)
{
    called *c = p;
    char *here = __builtin_frame_address(0);
    CHECK(here > c->lo && here < c->hi && (uintptr_t)here % 16 == 0);
    if (--c->depth) gort_call_on(here - (64 << 10), on_large, c); /* lower down on the same one */
    g_yield();
    c->parked++;
    here = __builtin_frame_address(0);
    CHECK(here > c->lo && here < c->hi);
}
static void call_on_large(void *arg)
{
    called c = { os_reserve(1 << 20), NULL, 5, 0 };
    c.hi = c.lo + (1 << 20);
    volatile char before = 7;
    gort_call_on(c.hi, on_large, &c);
    CHECK(before == 7 && c.parked == 5);
    os_release(c.lo, 1 << 20);
    atomic_fetch_add((_Atomic int *)arg, 1);
}
static void test_a_call_on_a_stack_that_is_borrowed(void)
{
    if (SANITIZED) return; /* they know nothing of it */
    _Atomic int n = 0;
    for (int i = 0; i < 50; i++) go(call_on_large, (void *)&n);
    UNTIL(atomic_load(&n) == 50);
}

/* Into the warning zone with the last bytes before the stack is left: whose it is
 * is then not the one that the M runs. */
static void leave_near(void *arg)
{
    size_t *at = arg;
    char *here = __builtin_frame_address(0), *edge = getm()->curg->stack_lo + (64 << 10) + at[0];
    volatile char *room = __builtin_alloca((size_t)(here - edge));
    room[0] = 1;
    g_yield();
    atomic_fetch_add((_Atomic size_t *)&at[1], room[0] == 1);
}
static void leave_in_child(void)
{
    enum { N = 256 };
    static size_t at[N][2];
    gort_maxprocs(1);
    stackpool_zone(gort_native.stacks, 64 << 10);
    for (size_t i = 0; i < N; i++) {
        at[i][0] = i * 16;
        go(leave_near, at[i]);
    }
    for (size_t i = 0; i < N; i++) UNTIL(atomic_load((_Atomic size_t *)&at[i][1]) == 1);
}
static void test_a_zone_may_be_entered_while_leaving(void)
{
    if (SANITIZED) return;
    ctest_child_ok("leave_in_child", NULL);
}

static void park_on(void *c) { gort_chan_recv(c, NULL); }
typedef struct pages { int gs; int64_t sum, most; } pages;
static int add_pages(G *g, void *arg)
{
    pages *k = arg;
    if (atomic_load(&g->status) != G_WAITING) return true;
    int64_t n = resident(g->stack_lo, g->ds_hi);
    k->gs++;
    k->sum += n;
    if (n > k->most) k->most = n;
    return true;
}
static void park_in_child(void)
{
    enum { N = 2000 };
    pages k = {0};
    gort_chan *c = gort_chan_new(GORT_I64, 0);
    for (int i = 0; i < N; i++) go(park_on, c);
    UNTIL(receivers(c) == N);
    gort_maxprocs(1);
    UNTIL(({ k = (pages){0}; stack_each(gort_native.stacks, add_pages, &k); k.gs == N; }));
    CHECK_EQ(k.sum, N);
    CHECK_EQ(k.most, 1);
}
static void test_a_parked_goroutine_takes_one_page(void)
{
    if (SANITIZED) return; /* their frames are larger */
    ctest_child_ok("park_in_child", NULL);
}

/* ---- the end ------------------------------------------------------------------------------- */
static void overflow(void *p)
{
    (void)p;
    volatile char c = 0;
    dig_for_ever(&c);
}
static void overflow_in_child(void)
{
    gort_chan *c = gort_chan_new(GORT_I64, 0);
    for (int i = 0; i < 3; i++) go(park_on, c);
    UNTIL(receivers(c) == 3);
    go(overflow, NULL);
    UNTIL(false);
}
static void touch_null(void *p) { ++*(volatile int *)p; }
static void segfault_in_child(void)
{
    go(touch_null, NULL);
    UNTIL(false);
}
static void segfault_in_thread(void)
{
    gort_maxprocs(0);
    touch_null(NULL);
}
static bool died_of(int status, int sig) { return WIFSIGNALED(status) && WTERMSIG(status) == sig; }

static void test_overflow_and_faults_are_reported(void)
{
    if (SANITIZED) return; /* they report faults themselves */
    static char out[65536];
    struct rlimit none = {0};
    setrlimit(RLIMIT_CORE, &none);
    static const char *const sizes[] = { "GORT_STACK=16K", "GORT_STACK=256K", "GORT_STACK=8M" };
    for (size_t i = 0; i < COUNT(sizes); i++) {
        CHECK(died_of(ctest_child("overflow_in_child", (const char *[]){ sizes[i], NULL }, out, sizeof out), SIGABRT));
        CHECK(strstr(out, "goroutine stack exceeds") && strstr(out, "stack overflow"));
        CHECK(strstr(out, "[running]") && strstr(out, "[chan receive, native]"));
    }
    CHECK(died_of(ctest_child("segfault_in_child", NULL, out, sizeof out), SIGSEGV));
    CHECK(strstr(out, "SIGSEGV") && strstr(out, "in goroutine") && !strstr(out, "exceeds"));
    CHECK(died_of(ctest_child("segfault_in_thread", NULL, out, sizeof out), SIGSEGV));
    CHECK(!strstr(out, "goroutine")); /* none of ours */
}

int main(int argc, char **argv)
{
    ctest_begin(argc, argv);
    CHILD(dig_in_child);
    CHILD(leave_in_child);
    CHILD(park_in_child);
    CHILD(overflow_in_child);
    CHILD(segfault_in_child);
    CHILD(segfault_in_thread);
    RUN(test_slots_are_apart_and_guarded);
    RUN(test_a_slot_given_back_is_reused_as_zeros);
    RUN(test_a_warning_zone_opens_in_steps_and_closes);
    RUN(test_what_skipped_the_edge_of_the_zone_stays);
    RUN(test_stacks_are_as_large_as_asked_for);
    RUN(test_a_call_on_a_stack_that_is_borrowed);
    RUN(test_a_zone_may_be_entered_while_leaving);
    RUN(test_a_parked_goroutine_takes_one_page);
    RUN(test_overflow_and_faults_are_reported);
    return ctest_end();
}
