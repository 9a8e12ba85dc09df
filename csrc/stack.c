/* stack.c - goroutine stacks: slabs of slots with guard pages, one page when shallow.
 *
 * A pool hands out slots of one size. A slot, from low to high addresses:
 *
 *   | guard page | C stack, grows down  ......  | G | datastack chunk ......... |
 *                                   hot page:  [====================]
 *
 * The end of the C stack, the G and the first `ds_head` bytes of the datastack
 * chunk (CPython's frames of this goroutine) share one page, the hot page, so a
 * shallow parked goroutine keeps 4 KiB resident. The chunk goes on for `ds_tail`
 * bytes on pages that stay untouched until Python's frames need them: it is as
 * large as CPython's own chunk, and calls at its edge do not map and unmap
 * memory again and again.
 *
 * In the pool of Python goroutines the deep end of the stack is a warning zone:
 * CPython counts nested C calls, but calls differ in size by a factor of twenty,
 * so a count that is safe for all would forbid most of what fits. Whoever first
 * gets into the zone faults; stack_deep opens it down to there, in steps, and has
 * CPython's counter cut, so that the next counted call is a RecursionError. The
 * steps are for calls that come later and are fatter than those of the count at
 * the first fault; the zone as a whole is room for C code that does not count.
 * Once the goroutine is found to be shallow again, at the end of a wait or its
 * own, what was opened is closed (stack_shallow) and the counter as before.
 *
 * Closed is, of a new stack, only the edge of the zone, not the guard page at its
 * end: each page costs time. From the first fault on the zone and the guard page
 * are one guard that ends at the last opened step. It is one piece always: on
 * kernels where guards split mappings a stack takes no more of them than without a
 * zone. g->deep, the steps that are open, belongs to the thread that runs g.
 *
 * Slabs of 64 MiB are reserved at once and never returned; the slots of dead
 * goroutines are (stack_free), which keeps the address space and the guard.
 *
 * sp->lock guards the slab list's end and the free list. `used` and the list
 * itself only grow, so walkers (dumps, the fault handler) read them without it.
 */
#include "runtime.h"

#include <stdlib.h>
#include <string.h>

#define SLAB_BYTES ((size_t)64 << 20)
#define ZONE_STEP ((size_t)8 << 10)
#define BAND ((size_t)16 << 10) /* the edge of a zone: no frame that counts is larger */
#define RED_ZONE 128            /* x86-64: what a function may use below its stack pointer */

typedef struct slab {
    struct slab *_Atomic next;
    char *base;
    size_t slots;
    _Atomic size_t used;
    size_t guarded;             /* slots that have their guard */
} slab;

struct stackpool {
    gmutex lock;
    size_t size, ds_head, ds_tail, zone;
    slab *_Atomic first;
    slab *last;
    char **free;                /* slots given back: they read as zeros */
    size_t nfree, capfree;
};

size_t gort_stack_bytes = (size_t)256 << 10;

static size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

struct stackpool *stackpool_new(size_t size, size_t ds_head, size_t ds_tail)
{
    struct stackpool *sp = calloc(1, sizeof *sp);
    if (!sp) return NULL;
    size_t page = os_page_size();
    sp->ds_head = round_up(ds_head, 16);
    sp->ds_tail = round_up(ds_tail, page);
    sp->size = round_up(size, page) + sp->ds_tail;
    /* Slots that divide 2 MiB evenly share page-table pages best. */
    sp->size = round_up(sp->size, (size_t)64 << 10);
    if (round_up(size, page) + sp->ds_tail > sp->size - page) sp->size = round_up(size + sp->ds_tail, page);
    return sp;
}

static size_t zone_step(void)
{
    size_t page = os_page_size();
    return page > ZONE_STEP ? page : ZONE_STEP;
}

void stackpool_zone(struct stackpool *sp, size_t bytes)
{
    size_t steps = bytes / zone_step();
    sp->zone = (steps < UINT8_MAX ? steps : UINT8_MAX) * zone_step(); /* G.deep counts them */
}

size_t stack_size(const struct stackpool *sp) { return sp->size; }

static G *slot_g(const struct stackpool *sp, char *slot)
{
    return (G *)(void *)(slot + sp->size - sp->ds_tail - sp->ds_head - round_up(sizeof(G), 64));
}

static char *slab_slot(struct stackpool *sp) /* sp->lock held */
{
    slab *s = sp->last;
    if (!s || atomic_load_explicit(&s->used, memory_order_relaxed) == s->slots) {
        size_t n = SLAB_BYTES / sp->size;
        if (n < 1) n = 1;
        slab *t = os_malloc(sizeof *t);
        if (!t) return NULL;
        if (!(t->base = os_reserve(n * sp->size))) {
            free(t);
            return NULL;
        }
        t->slots = n;
        t->guarded = 0;
        atomic_init(&t->next, NULL);
        atomic_init(&t->used, 0);
        if (s) atomic_store(&s->next, t);
        else atomic_store(&sp->first, t);
        sp->last = s = t;
    }
    size_t i = atomic_load_explicit(&s->used, memory_order_relaxed);
    char *slot = s->base + i * sp->size;
    if (i == s->guarded) { /* one system call for many, once there are some */
        size_t n = i < s->slots - i ? i : s->slots - i;
        if (n > OS_GUARDS) n = OS_GUARDS;
        if (n < 1) n = 1;
        size_t end = os_page_size() + sp->zone, bytes = end < BAND ? end : BAND;
        if (bytes < os_page_size()) bytes = os_page_size();
        if (os_guard(slot + end - bytes, bytes, sp->size, n) != 0) return NULL;
        s->guarded += n;
    }
    atomic_store_explicit(&s->used, i + 1, memory_order_release);
    return slot;
}

G *stack_alloc(struct stackpool *sp)
{
    gmutex_lock(&sp->lock);
    char *slot = sp->nfree ? sp->free[--sp->nfree] : slab_slot(sp);
    gmutex_unlock(&sp->lock);
    if (!slot) return NULL;
    G *g = slot_g(sp, slot);
    g->stack_lo = slot + os_page_size();
    g->stack_hi = (char *)g;
    g->ds_lo = (char *)g + round_up(sizeof(G), 64);
    g->ds_hi = slot + sp->size;
    return g;
}

void stack_free(struct stackpool *sp, G *g)
{
    char *slot = g->stack_lo - os_page_size();
    if (g->deep) stack_shallow(g);
    os_discard(g->stack_lo, sp->size - os_page_size());
    gmutex_lock(&sp->lock);
    if (sp->nfree == sp->capfree) {
        size_t cap = sp->capfree ? sp->capfree * 2 : 1024;
        char **f = realloc(sp->free, cap * sizeof *f);
        if (f) { sp->free = f; sp->capfree = cap; }
    }
    /* Without room to remember it the slot's address space is lost, no memory. */
    if (sp->nfree < sp->capfree) sp->free[sp->nfree++] = slot;
    gmutex_unlock(&sp->lock);
}

void stack_each(struct stackpool *sp, int (*fn)(G *, void *), void *arg)
{
    if (!sp) return;
    for (slab *s = atomic_load(&sp->first); s; s = atomic_load(&s->next)) {
        size_t n = atomic_load_explicit(&s->used, memory_order_acquire);
        for (size_t i = 0; i < n; i++) {
            G *g = slot_g(sp, s->base + i * sp->size);
            if (g->gen == gort_fork_gen && !fn(g, arg)) return;
        }
    }
}

G *stack_owner(struct stackpool *sp, const void *addr)
{
    if (!sp) return NULL;
    const char *a = addr;
    for (slab *s = atomic_load(&sp->first); s; s = atomic_load(&s->next))
        if (a >= s->base && a < s->base + s->slots * sp->size)
            return slot_g(sp, s->base + (size_t)(a - s->base) / sp->size * sp->size);
    return NULL;
}

/* On the signal stack of the thread that runs g. addr: in g's slot; sp: the stack
 * pointer then. What lies between is in use, if not touched yet. */
bool stack_deep(G *g, const void *addr, const void *sp)
{
    const char *a = addr, *s = (const char *)sp - RED_ZONE;
    size_t step = zone_step();
    char *open = g->stack_lo + g->dom->stacks->zone - g->deep * step, *base = g->stack_lo - os_page_size();
    if (a < g->stack_lo || a >= open) return false;
    if (s >= base && s < a) a = s > g->stack_lo ? s : g->stack_lo;
    size_t steps = ((size_t)(open - a) + step - 1) / step;
    char *edge = open - steps * step;
    if (!g->deep && os_guard(base, (size_t)(edge - base), 0, 1) != 0) return false;
    if (os_unguard(edge, (size_t)(open - edge)) != 0) return false;
    g->deep = (uint8_t)(g->deep + steps);
    if (gort_py) gort_py->deep(g, (size_t)(g->stack_hi - a));
    return true;
}

bool stack_is_shallow(const G *g, const void *sp)
{
    const char *a = sp;
    return a > g->stack_lo + (g->stack_hi - g->stack_lo) / 2 && a < g->stack_hi;
}

void stack_shallow(G *g)
{
    size_t n = g->deep * zone_step();
    char *open = g->stack_lo + g->dom->stacks->zone - n;
    os_discard(open, n);
    if (os_guard(open, n, 0, 1) == 0) g->deep = 0;
}

/* In a fork's child the slots of those that are not there stay as they are: what they
 * hold may be referred to, and their pages are the parent's as long as nobody writes. */
void stackpool_fork(struct stackpool *sp, int when)
{
    if (!sp) return;
    if (when == FORK_BEFORE) gmutex_lock(&sp->lock);
    else if (when == FORK_PARENT) gmutex_unlock(&sp->lock);
    else atomic_store(&sp->lock.v, 0);
}
