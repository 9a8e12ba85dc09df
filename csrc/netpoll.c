/* netpoll.c - the network poller: edge-triggered epoll, after Go's netpoll.go,
 * netpoll_epoll.go and internal/poll/fd_mutex.go.
 *
 * A poll descriptor (gort_pd) stands for one descriptor from pd_open to pd_free.
 * Slots are type-stable: they go back to a pool, never to the allocator, for an
 * event of epoll or a timer's firing may come late; each carries the number that
 * the slot (seq) or the deadline (side.seq) had then, and a stale one is dropped.
 *
 * Each of the two sides, reading and writing, is one of (Go's rg and wg):
 *   idle     nothing known                                   ready 0, q empty
 *   ready    an edge came that nobody has consumed           ready 1, q empty
 *   waiting  the holder of the turn waits, as a sudog on q   ready 0, q not empty
 *   idle    -> ready    an event, and nobody waits
 *   idle    -> waiting  pd_wait; Go's pdWait, a wait that is not committed yet, is
 *                       the wait word's business (runtime.h)
 *   ready   -> idle     pd_wait, at once; or who is about to try the system call,
 *                       for any edge after that means something new
 *   waiting -> idle     an event, the deadline, close: they take the sudog off and
 *                       claim it. A kill, a context, a timeout claim it only; then
 *                       the waiter takes it off itself, and an event that finds it
 *                       there meanwhile leaves `ready`: no edge is lost
 * Who was woken tries its call again and comes back if it was for nothing.
 *
 * The turn (Go's fdMutex): a caller must have the turn of its side to use it, one
 * at a time, the others queue and get it in order, handed over by pd_done. So
 * whole writes of several goroutines do not mix.
 *
 * Close: from pd_close on every call is refused and every waiter woken with
 * WC_CLOSED. The descriptor itself is closed by whoever finds that no call is in
 * the system with it: pd_close, or the last pd_done. A waiter is not (inuse is off
 * while it waits, its waker turns it on again), and must not touch fd after close.
 *
 * Epoll learns of a descriptor at its first wait (`armed`): a short connection whose
 * bytes are there already costs no epoll_ctl. EPOLL_CTL_ADD reports what is ready
 * then, so nothing is missed. It takes a descriptor once only; a second slot for the
 * same one gives it a duplicate.
 *
 * The office: one thread at a time may be in epoll_wait; it swaps netpoll_last to 0
 * and back to the time when it has delivered. It is one of
 *   - an M with a P that found nothing to run, or has not looked for long: no wait;
 *   - an M without work that goes to sleep: it waits in epoll instead of on its
 *     futex (proc.c, m_idle_once), until the domain's first timer. To wake it, its
 *     note is set and netpoll_break writes to an eventfd. In a domain of one P it
 *     does so on behalf of the idle P; should another M get that P, the first time
 *     that one finds nothing to run it sends the sleeper off (netpoll_now): two
 *     threads would hand each event over from core to core;
 *   - sysmon, if nobody looked for 1 ms, or sooner for plain threads that wait.
 * Whoever gives it up while an M may have found it taken and gone to sleep without
 * (sysmon) calls sched_poller_wanted.
 *
 * Lock order: pd->lock -> timers.lock, dom.lock. The pool's lock is innermost.
 */
#define _GNU_SOURCE
#include "netpoll.h"
#include "schedint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define EVENTS 256              /* taken from the kernel at once */
#define WATCH_NS 1000000        /* sysmon polls if nobody did for so long; Go: 10 ms, but its threads poll too */
#define SLOTS 64                /* descriptors allocated at once */
#define FAIR_CALLS 64           /* so many calls on sockets, then others get their turn */

#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441    /* Linux 5.11 */
#endif

typedef struct slab {
    struct slab *next;
    gort_pd *pds;               /* SLOTS of them, aligned to PD_ALIGN */
} slab;
#define PD_ALIGN 64u

_Atomic int32_t netpoll_waiters;
_Atomic int64_t netpoll_last = 1;
static _Atomic int32_t thread_waiters;
static _Atomic bool asleep;      /* the holder of the office is in a wait */
static _Atomic uint32_t broken;  /* the eventfd is written, and not read yet */
static int epfd = -1, evfd = -1;
static _Atomic int started;      /* 1: they are open */
static gmutex pool_lock;
static gort_pd *pool;
static slab *slabs;
static struct epoll_event events[EVENTS]; /* the office's */

/* ---- the kernel's side ---------------------------------------------------- */
static int open_epoll(void)
{
    int ep = epoll_create1(EPOLL_CLOEXEC), ev = ep < 0 ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event e = { .events = EPOLLIN, .data.u64 = 0 };
    if (ev < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, ev, &e) < 0) {
        int err = errno;
        if (ep >= 0) close(ep);
        if (ev >= 0) close(ev);
        return NET_SYS - err;
    }
    epfd = ep;
    evfd = ev;
    return 0;
}

static int start(void)
{
    if (likely(atomic_load_explicit(&started, memory_order_acquire))) return 0;
    gmutex_lock(&pool_lock);
    int r = atomic_load(&started) ? 0 : open_epoll();
    if (r == 0) atomic_store(&started, 1);
    gmutex_unlock(&pool_lock);
    return r;
}

/* An event carries the slot's address and 16 bits of its number. */
static uint64_t tag(gort_pd *pd) { return (uint64_t)(uintptr_t)pd << 16 | (pd->seq & 0xffff); }
static gort_pd *tag_pd(uint64_t v) { return (gort_pd *)(uintptr_t)(v >> 16); }

static int arm(gort_pd *pd) /* lock held */
{
    int r = start();
    if (r) return r;
    struct epoll_event e = { .events = EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET, .data.u64 = tag(pd) };
    if (pd->dup < 0 && epoll_ctl(epfd, EPOLL_CTL_ADD, pd->fd, &e) < 0) {
        if (errno != EEXIST) return NET_SYS - errno;
        pd->dup = fcntl(pd->fd, F_DUPFD_CLOEXEC, 0);
        if (pd->dup < 0) return NET_SYS - errno;
    }
    if (pd->dup >= 0 && epoll_ctl(epfd, EPOLL_CTL_ADD, pd->dup, &e) < 0) return NET_SYS - errno;
    pd->armed = true;
    return 0;
}

/* timeout_ns < 0: for ever. Rounds up to milliseconds on kernels before 5.11. */
static int wait_events(int64_t timeout_ns)
{
    static _Atomic bool coarse;
    if (timeout_ns > 0 && !atomic_load_explicit(&coarse, memory_order_relaxed)) {
        struct timespec ts = { timeout_ns / 1000000000, timeout_ns % 1000000000 };
        int n = (int)syscall(SYS_epoll_pwait2, epfd, events, EVENTS, &ts, NULL, 0);
        if (n >= 0 || errno != ENOSYS) return n;
        atomic_store(&coarse, true);
    }
    int64_t ms = timeout_ns < 0 ? -1 : timeout_ns > INT32_MAX * INT64_C(1000000) ? INT32_MAX : (timeout_ns + 999999) / 1000000;
    return epoll_wait(epfd, events, EVENTS, (int)ms);
}

/* ---- events -------------------------------------------------------------------- */
/* lock held: end the wait on this side, if there is one. What has to be readied
 * after unlocking is appended to *last. */
static bool side_wake(gort_pd *pd, int side, int code, G ***last)
{
    gort_pdside *s = &pd->side[side];
    G *ready = NULL;
    if (!s->q.first || !waitq_give(&s->q, 0, code, &ready)) return false;
    if (!pd->closing) s->inuse = true;
    if (ready) chain_add(last, ready);
    return true;
}

static void side_ready(gort_pd *pd, int side, G ***last)
{
    if (!side_wake(pd, side, WC_OK, last)) atomic_store(&pd->side[side].ready, true);
}

/* The office is held. In the order of the events, each at the end of the queue. */
static int deliver(int n)
{
    G *first = NULL, **last = &first;
    int threads = atomic_load_explicit(&thread_waiters, memory_order_relaxed);
    for (int i = 0; i < n; i++) {
        uint32_t ev = events[i].events;
        uint64_t data = events[i].data.u64;
        if (!data) {
            uint64_t v;
            /* A break between the two is lost, which is right: nobody sleeps here now. */
            if (read(evfd, &v, sizeof v) < 0 && errno != EAGAIN) gort_throw("netpoll: the eventfd cannot be read");
            atomic_store(&broken, 0);
            continue;
        }
        gort_pd *pd = tag_pd(data);
        gmutex_lock(&pd->lock);
        if ((pd->seq & 0xffff) == (data & 0xffff) && !pd->closing) {
            /* A read that stops at urgent data has not drained the socket either. */
            if (ev & (EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) atomic_store(&pd->hup, true);
            if (ev & (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) side_ready(pd, PD_READ, &last);
            if (ev & (EPOLLOUT | EPOLLHUP | EPOLLERR)) side_ready(pd, PD_WRITE, &last);
        }
        gmutex_unlock(&pd->lock);
    }
    int woken = g_ready_list(first);
    return woken ? woken : threads > 0 && n > 0;
}

/* ---- the office -------------------------------------------------------------------- */
bool netpoll_enter(void) { return netpoll_any() && atomic_exchange(&netpoll_last, 0) != 0; }

int netpoll_leave(int n)
{
    int ready = n > 0 ? deliver(n) : 0;
    atomic_store(&netpoll_last, gort_now_ns() | 1);
    return ready;
}

int netpoll_now(Dom *d)
{
    if (!netpoll_any()) return 0;
    if (atomic_exchange(&netpoll_last, 0) == 0) {
        if (d && d->solo && atomic_load(&asleep)) netpoll_break();
        return 0;
    }
    int n = atomic_load(&started) ? wait_events(0) : 0;
    return netpoll_leave(n);
}

int netpoll_sleep(M *m, int64_t timeout_ns)
{
    int n = 0;
    atomic_store(&m->in_poll, true); /* then the note is looked at; m_wake does it the other way round */
    atomic_store(&asleep, true);
    if (atomic_load(&m->note) == 0) n = wait_events(timeout_ns);
    atomic_store(&asleep, false);
    atomic_store(&m->in_poll, false);
    atomic_store(&m->note, 0);
    return n > 0 ? n : 0;
}

void netpoll_break(void)
{
    uint32_t zero = 0;
    if (!atomic_compare_exchange_strong(&broken, &zero, 1)) return;
    uint64_t one = 1;
    while (write(evfd, &one, sizeof one) < 0 && errno == EINTR) {}
}

bool netpoll_watch(int64_t now)
{
    if (!netpoll_any()) return false;
    int64_t last = atomic_load(&netpoll_last);
    if (last == 0 || (now - last < WATCH_NS && atomic_load(&thread_waiters) == 0)) return false;
    bool did = netpoll_now(NULL) > 0;
    sched_poller_wanted();
    return did && atomic_load(&thread_waiters) > 0;
}

/* ---- descriptors ---------------------------------------------------------------------- */
static bool more_slots(void) /* pool_lock held */
{
    slab *s = os_fail(OS_FAIL_MALLOC) ? NULL : malloc(sizeof *s);
    size_t each = (sizeof(gort_pd) + PD_ALIGN - 1) / PD_ALIGN * PD_ALIGN;
    char *mem = s ? aligned_alloc(PD_ALIGN, SLOTS * each) : NULL;
    if (!mem) {
        free(s);
        return false;
    }
    memset(mem, 0, SLOTS * each);
    for (int i = SLOTS - 1; i >= 0; i--) {
        gort_pd *pd = (gort_pd *)(void *)(mem + (size_t)i * each);
        pd->fd = pd->dup = -1;
        pd->side[0].t.id = pd->side[1].t.id = -1;
        pd->link = pool;
        pool = pd;
    }
    s->pds = (gort_pd *)(void *)mem;
    s->next = slabs;
    slabs = s;
    return true;
}

static gort_pd *open_slot(int fd, bool stream, bool borrowed)
{
    gmutex_lock(&pool_lock);
    gort_pd *pd = pool || more_slots() ? pool : NULL;
    if (pd) pool = pd->link;
    gmutex_unlock(&pool_lock);
    if (!pd) return NULL;
    gmutex_lock(&pd->lock);
    pd->fd = fd;
    pd->seq++;
    pd->closing = pd->armed = false;
    pd->stream = stream;
    pd->borrowed = borrowed;
    atomic_store(&pd->hup, false);
    for (int i = 0; i < 2; i++) {
        gort_pdside *s = &pd->side[i];
        GASSERT(!s->locked && !s->inuse && !s->q.first && !s->turns.first);
        atomic_store(&s->ready, false);
        atomic_store(&s->drained, false);
        s->expired = false;
    }
    gmutex_unlock(&pd->lock);
    return pd;
}

gort_pd *pd_open(int fd, bool stream) { return open_slot(fd, stream, false); }
gort_pd *pd_borrow(int fd, bool stream) { return open_slot(fd, stream, true); }

void pd_free(gort_pd *pd)
{
    gmutex_lock(&pd->lock);
    GASSERT(pd->closing && pd->fd < 0);
    pd->seq++;
    gmutex_unlock(&pd->lock);
    gmutex_lock(&pool_lock);
    pd->link = pool;
    pool = pd;
    gmutex_unlock(&pool_lock);
}

/* lock held, released here: close the descriptor if nobody needs it any more. A borrowed
 * one's owner will do that at once, and its number may then be another's. */
static void unlock_close(gort_pd *pd)
{
    int fd = -1, dup = -1;
    bool armed = pd->armed, borrowed = pd->borrowed;
    if (pd->closing && (borrowed || (!pd->side[0].inuse && !pd->side[1].inuse && pd->misc == 0))) {
        fd = pd->fd;
        dup = pd->dup;
        pd->fd = pd->dup = -1;
        pd->armed = false;
    }
    gmutex_unlock(&pd->lock);
    if (fd < 0) return;
    struct epoll_event none = {0};
    if (armed) epoll_ctl(epfd, EPOLL_CTL_DEL, dup < 0 ? fd : dup, &none); /* others may have duplicates of it */
    if (dup >= 0) close(dup);
    if (!borrowed) close(fd);
}

int pd_close(gort_pd *pd)
{
    G *first = NULL, **last = &first;
    gmutex_lock(&pd->lock);
    if (pd->closing) {
        gmutex_unlock(&pd->lock);
        return GORT_ECLOSED;
    }
    pd->closing = true;
    for (int i = 0; i < 2; i++) {
        gort_pdside *s = &pd->side[i];
        s->seq++;
        timer_del(&s->t);
        side_wake(pd, i, WC_CLOSED, &last);
        for (G *ready; s->turns.first;)
            if (waitq_give(&s->turns, 0, WC_CLOSED, &ready) && ready) chain_add(&last, ready);
    }
    unlock_close(pd);
    g_ready_list(first);
    return GORT_OK;
}

int pd_use(gort_pd *pd)
{
    gmutex_lock(&pd->lock);
    int fd = pd->closing ? -1 : pd->fd;
    if (fd >= 0) pd->misc++;
    gmutex_unlock(&pd->lock);
    return fd;
}

void pd_unuse(gort_pd *pd)
{
    gmutex_lock(&pd->lock);
    pd->misc--;
    unlock_close(pd);
}

/* ---- the turn ----------------------------------------------------------------------------- */
int pd_turn(gort_pd *pd, int side, const waitopt *o)
{
    gort_pdside *s = &pd->side[side];
    int r = GORT_OK;
    gmutex_lock(&pd->lock);
    if (unlikely(s->locked && !pd->closing)) {
        if (!o) {
            gmutex_unlock(&pd->lock);
            return GORT_EAGAIN;
        }
        sudog d;
        int code = wait_on(&s->turns, &d, getg_waiter(o->python), &pd->lock, true, R_IO, o, false);
        if (code == WC_CLOSED) return GORT_ECLOSED;
        if (code != WC_OK) return wait_error(code);
        gmutex_lock(&pd->lock); /* it is ours */
        if (!pd->closing && !s->expired) {
            s->inuse = true;
            gmutex_unlock(&pd->lock);
            return GORT_OK;
        }
        r = pd->closing ? GORT_ECLOSED : GORT_ETIMEDOUT;
        gmutex_unlock(&pd->lock);
        pd_done(pd, side);
        return r;
    }
    if (unlikely(pd->closing)) r = GORT_ECLOSED;
    else if (unlikely(s->expired)) r = GORT_ETIMEDOUT;
    else s->locked = s->inuse = true;
    gmutex_unlock(&pd->lock);
    return r;
}

void pd_done(gort_pd *pd, int side)
{
    gort_pdside *s = &pd->side[side];
    G *ready = NULL;
    gmutex_lock(&pd->lock);
    GASSERT(s->locked);
    s->inuse = false;
    if (likely(!s->turns.first) || !waitq_give(&s->turns, 0, WC_OK, &ready)) s->locked = false;
    if (unlikely(pd->closing)) unlock_close(pd);
    else gmutex_unlock(&pd->lock);
    if (unlikely(ready != NULL)) g_ready_last(ready);
}

int pd_fair(void)
{
    M *m = getm();
    G *g = m ? m->curg : NULL;
    if (unlikely(!g || !m->p) || likely(++m->p->io_calls < FAIR_CALLS)) return GORT_OK;
    m->p->io_calls = 0;
    if (unlikely(g->kind == GK_NATIVE && gort_py)) return GORT_OK; /* a callback of its runs Python code */
    netpoll_now(m->dom);
    g_yield_on(m);
    return unlikely(g->kill_pending) ? GORT_EKILLED : GORT_OK;
}

/* ---- waiting ----------------------------------------------------------------------------------- */
int pd_wait(gort_pd *pd, int side, const waitopt *o)
{
    gort_pdside *s = &pd->side[side];
    int r;
    gmutex_lock(&pd->lock);
    GASSERT(s->locked && !s->q.first);
    if (unlikely(pd->closing)) {
        r = GORT_ECLOSED;
    } else if (unlikely(s->expired)) {
        r = GORT_ETIMEDOUT;
    } else if (atomic_load_explicit(&s->ready, memory_order_relaxed)) {
        atomic_store_explicit(&s->ready, false, memory_order_relaxed);
        r = GORT_OK;
    } else if (likely(pd->armed) || (r = arm(pd)) == 0) {
        sudog d;
        G *g = getg_waiter(o->python);
        bool thread = g->kind == GK_THREAD;
        s->inuse = false;
        atomic_fetch_add(&netpoll_waiters, 1);
        if (unlikely(thread)) {
            atomic_fetch_add(&thread_waiters, 1);
            sched_poller_wanted(); /* all Ms may sleep on their futexes */
        }
        int code = wait_on(&s->q, &d, g, &pd->lock, true, R_IO, o, false);
        atomic_fetch_sub(&netpoll_waiters, 1);
        if (unlikely(thread)) atomic_fetch_sub(&thread_waiters, 1);
        if (likely(code == WC_OK)) return GORT_OK;
        if (code == WC_CLOSED) return GORT_ECLOSED;
        gmutex_lock(&pd->lock);
        r = wait_error(code);
        if (!pd->closing) s->inuse = true;
        else if (code == WC_TIMEOUT || code == WC_INTR) r = GORT_ECLOSED; /* its descriptor is gone */
    }
    gmutex_unlock(&pd->lock);
    return r;
}

/* ---- deadlines -------------------------------------------------------------------------------------- */
static void expire(gort_pd *pd, int side, uint64_t seq)
{
    G *first = NULL, **last = &first;
    gort_pdside *s = &pd->side[side];
    gmutex_lock(&pd->lock);
    if (s->seq == seq && !pd->closing) {
        s->expired = true;
        side_wake(pd, side, WC_OK, &last);
    }
    gmutex_unlock(&pd->lock);
    g_ready_list(first);
}
static void expire_read(void *pd, uint64_t seq, int64_t now) { (void)now; expire(pd, PD_READ, seq); }
static void expire_write(void *pd, uint64_t seq, int64_t now) { (void)now; expire(pd, PD_WRITE, seq); }

int pd_set_deadline(gort_pd *pd, int sides, int64_t when)
{
    G *first = NULL, **last = &first;
    int r = GORT_OK;
    bool passed = when != GORT_FOREVER && when <= gort_now_ns();
    gmutex_lock(&pd->lock);
    if (pd->closing) r = GORT_ECLOSED;
    for (int i = 0; i < 2 && r == GORT_OK; i++) {
        gort_pdside *s = &pd->side[i];
        if (!(sides & 1 << i)) continue;
        timer_del(&s->t);
        s->seq++;
        s->expired = passed;
        if (passed) {
            side_wake(pd, i, WC_OK, &last);
        } else if (when != GORT_FOREVER) {
            s->t.fn = i == PD_READ ? expire_read : expire_write;
            s->t.arg = pd;
            s->t.seq = s->seq;
            s->t.kind = TK_WAIT;
            s->t.inherited = true;
            s->t.period = 0;
            r = timer_add(&s->t, timer_home(true), when);
        }
    }
    gmutex_unlock(&pd->lock);
    g_ready_list(first);
    return r;
}

/* ---- fork ------------------------------------------------------------------------------------------------ */
/* In the child there is one thread, and nobody waits. The parent's epoll instance is
 * shared with it, so it gets one of its own; descriptors join that at their next wait. */
void netpoll_fork_child(void)
{
    pool_lock = (gmutex){0};
    for (slab *s = slabs; s; s = s->next) {
        size_t each = (sizeof(gort_pd) + PD_ALIGN - 1) / PD_ALIGN * PD_ALIGN;
        for (int i = 0; i < SLOTS; i++) {
            gort_pd *pd = (gort_pd *)(void *)((char *)s->pds + (size_t)i * each);
            pd->lock = (gmutex){0};
            pd->armed = false;
            pd->misc = 0;
            for (int k = 0; k < 2; k++) {
                pd->side[k].q = pd->side[k].turns = (waitq){0};
                pd->side[k].locked = pd->side[k].inuse = false;
                atomic_store(&pd->side[k].drained, false);
            }
        }
    }
    atomic_store(&netpoll_waiters, 0);
    atomic_store(&thread_waiters, 0);
    atomic_store(&asleep, false);
    atomic_store(&broken, 0);
    atomic_store(&netpoll_last, 1);
    if (!atomic_exchange(&started, 0)) return;
    close(epfd);
    close(evfd);
    epfd = evfd = -1;
}
