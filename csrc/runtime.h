/* runtime.h - the runtime's core structures: G, M, P, the domain, the wait word.
 *
 * Everything the C files of gort share stands here; gort.h is the public part.
 * Read this file first: the state machines below are what the rest relies on.
 *
 * Kinds of G
 *   GK_PYTHON  runs Python code on its own stack, owns a PyThreadState (ts)
 *   GK_NATIVE  runs a C function on its own stack, never touches Python
 *   GK_THREAD  stands for a plain OS thread that waits in a gort call; it is
 *              never scheduled, its wait is a futex on the wait word
 *   GK_G0      an M's scheduler stack
 *   GK_FRESH   a Python goroutine that has not started: a gfresh, see below
 *
 * G states (g->status; who may change it)
 *   IDLE     -> RUNNABLE  the creator, which owns the G alone
 *   RUNNABLE -> RUNNING   the M that took it off a queue (a G is on one queue)
 *   RUNNING  -> RUNNABLE  the G itself (yield); published by the next stack
 *   RUNNING  -> WAITING   the G itself (park)
 *   RUNNING  -> SYSCALL   the G itself, around blocking(); sysmon, which takes
 *                         the P away while the G sits in a call (with the GIL)
 *   SYSCALL  -> RUNNING   the G itself, back in the runtime
 *   WAITING  -> RUNNABLE  whoever completes the wait (see the wait word)
 *   RUNNING  -> DEAD      the G itself; the next stack puts it into the pool
 *   DEAD     -> IDLE      whoever takes it from the pool
 *   DEAD     -> RUNNING   the G itself, going on as a goroutine that had not started
 *
 * The wait word (g->wake), the one place where waits and wake-ups meet
 *   63..24 sequence number of the wait | 23..8 case index | 7..1 code | 0 PARKED
 *   1. The owner starts a wait: wait_begin() stores seq+1, code 0, PARKED 0 and
 *      gets the word back as its ticket. It may then publish the ticket: in
 *      sudogs on any number of queues, in a timer, to a killer.
 *   2. A waker claims it: CAS from (ticket, code 0, PARKED as it is) to
 *      (ticket, code, index). One waker wins; a loser leaves the G alone. What
 *      the waker hands over (sudog.val) is written before the claim.
 *   3. After the owner's stack is left and its thread state is no longer in
 *      use, the stack that runs next commits the park: fetch_or(PARKED).
 *   4. The later of 2 and 3 makes the G runnable: the claimer if it saw PARKED,
 *      else the committer, which then sees the code. So a wake-up at any moment
 *      after 1 is kept, and a G is never resumed while its stack is in use.
 *   5. The owner, running again, takes all its sudogs and its timer back before
 *      it starts another wait; a late claim fails on the sequence number.
 *   A G's memory stays mapped for ever; a slot whose pages were given back reads
 *   as zeros, and starts again at sequence numbers some 2^20 times n further on,
 *   out of reach of a late claim, which is at most some microseconds old.
 *
 * Lock order (take left before right):
 *   chan locks (several: by address), a pd's -> timers.lock -> dom.lock ->
 *   stackpool.lock; the poller's pool lock is innermost.
 *   A claim's goready is called after the chan lock is released where possible;
 *   it takes dom.lock only. No lock is ever held across a stack switch, and none
 *   while the GIL is waited for but pyctx.c's helper_lock, which comes before it.
 *
 * On a GIL build, all that only Python-domain code touches (object channels,
 * Mutex and its kin, Goroutine handles) is guarded by the GIL: its `shared`
 * flag is 0 and lock_if() does nothing.
 */
#ifndef GORT_RUNTIME_H
#define GORT_RUNTIME_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gort.h"
#include "os.h"

#ifndef GORT_DEBUG_LEVEL
#define GORT_DEBUG_LEVEL 0
#endif
#if GORT_DEBUG_LEVEL > 0
#define GASSERT(x) ((x) ? (void)0 : gort_throw("assertion failed: " #x))
#else
#define GASSERT(x) ((void)0)
#endif

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define NOINLINE __attribute__((noinline))

typedef struct G G;
typedef struct M M;
typedef struct P P;
typedef struct Dom Dom;
typedef struct sudog sudog;
typedef struct waitq waitq;
typedef struct timer timer;
typedef struct timers timers;
typedef struct gort_bubble gort_bubble;
struct gort_mutex;
struct gort_rwmutex;
struct gort_sema;
struct gort_event_q;

/* ---- G ---------------------------------------------------------------- */
enum { G_IDLE = 0, G_RUNNABLE, G_RUNNING, G_SYSCALL, G_WAITING, G_DEAD };
enum { GK_NONE = 0, GK_PYTHON, GK_NATIVE, GK_THREAD, GK_G0, GK_FRESH };

/* Why a G waits; gort_reasons[] has the texts, which are Go's. */
enum {
    R_NONE = 0, R_CHAN_RECV, R_CHAN_SEND, R_CHAN_RECV_NIL, R_CHAN_SEND_NIL,
    R_SELECT, R_SELECT_NONE, R_SLEEP, R_MUTEX, R_RWMUTEX_R, R_RWMUTEX_W, R_COND,
    R_WAITGROUP, R_SEMAPHORE, R_JOIN, R_IO, R_SYSTEM, R_BUBBLE_ROOT, R_BUBBLE_WAIT, R_COUNT_
};
/* With a reason: only a member of the caller's bubble or its clock can end the wait. */
#define R_DURABLE 0x80
extern const char *const gort_reasons[R_COUNT_];

/* What queues see of a G. A Python goroutine that has not started yet is only
 * this much (GK_FRESH, inside its handle): it gets a stack and a thread state, in
 * fact those of the goroutine that just ended, when it is its turn to run. */
#define GHEAD                                                                       \
    G *link;                    /* in a queue or a pool; owned by it */              \
    M *lockedm;                 /* may run on this M only */                         \
    void *handle;               /* PyObject of the Goroutine, a strong reference */  \
    uint64_t id;                                                                     \
    gort_bubble *bubble;        /* whose member it is, or NULL; see bubble.c */       \
    void (*fn)(void *);         /* what it runs */                                   \
    void *arg;                                                                       \
    _Atomic uint8_t status;                                                          \
    uint8_t kind;                                                                    \
    bool kill_pending;          /* GIL; GoroutineExit is due at the next wait */     \
    bool system;                /* not counted, no deadlock of its own */             \
    uint32_t prio               /* in a seeded bubble */
struct G {
    GHEAD;
    uint8_t reason;             /* R_*; read without a lock by dumps */
    bool main;                  /* goroutine 1 */
    bool endless;               /* GK_THREAD: a Python thread waiting without end (GIL) */
    uint8_t lock_depth;         /* nested lock_os_thread calls */
    bool durable;               /* in a bubble: its wait, from before the commit on */
    bool noturn;                /* in a seeded bubble: in blocking(), without the turn */
    uint16_t gen;               /* not gort_fork_gen: a fork's child has it not; see fork.c */
    uint8_t deep;               /* steps of its warning zone that are open; see stack.c */
    int32_t cut;                /* GK_PYTHON: calls taken off its recursion counter */
    void *sp;                   /* saved stack pointer while not running */
    _Atomic uint64_t wake;      /* the wait word */
    void *ts;                   /* PyThreadState, GK_PYTHON only */
    Dom *dom;
    M *m;                       /* the M that runs it, or ran it last */
    int64_t wait_since;         /* gort_coarse_ns at the park */
    char *stack_lo, *stack_hi;  /* usable C stack */
    char *ds_lo, *ds_hi;        /* GK_PYTHON: room for the first datastack chunk */
#if GORT_SANITIZE_FIBERS
    void *fiber;                /* TSan's fiber, or ASan's fake stack */
#endif
};
typedef struct gfresh {
    GHEAD;
    G **slot;                   /* where the handle wants to know its G */
    void (*failed)(void *handle); /* GIL: there was no memory to start it */
} gfresh;

/* ---- wait word -------------------------------------------------------- */
#define WK_PARKED 1u
#define WK_CODE(w) ((int)((w) >> 1 & 0x7f))
#define WK_INDEX(w) ((int)((w) >> 8 & 0xffff))
#define WK_SEQ(w) ((w) & ~(uint64_t)0xffffff)
#define WK_MAKE(ticket, code, index) \
    ((ticket) | (uint64_t)(code) << 1 | (uint64_t)(index) << 8)
#define WK_DONE 0xffff          /* the context's done channel */
#define WK_MAXINDEX 0xfffe
enum { /* codes */
    WC_NONE = 0, WC_OK, WC_CLOSED, WC_TIMEOUT, WC_KILL, WC_DEADLOCK, WC_INTR, WC_CTX, WC_NOMEM,
};

/* A G's place in one wait queue; lives on the waiter's stack. */
struct sudog {
    sudog *next, *prev;
    waitq *q;                   /* the queue it is on, or NULL */
    G *g;
    uint64_t ticket;
    uint64_t val;               /* the element, sent or received; waiter-specific */
    uint16_t index;             /* reported with the claim */
    uint8_t tag;                /* rwmutex: reader or writer */
    gort_chan *c;               /* select */
    int64_t n;                  /* semaphore: weight; mutex: since when */
};
struct waitq { sudog *first, *last; };

/* What may end a wait besides its own event. */
typedef struct waitopt {
    int64_t deadline;           /* gort_now_ns() scale, or GORT_FOREVER */
    gort_chan *done;            /* a context's done channel, or NULL */
    bool python;                /* called with the GIL held */
} waitopt;
extern const waitopt wait_forever_native;

/* ---- timers ----------------------------------------------------------- */
/* Called by the M that runs the timers, without a lock, maybe without the GIL;
 * the timer itself may be gone by then: only the copies are valid. */
typedef void (*timerfn)(void *arg, uint64_t seq, int64_t now);
struct timer {
    timerfn fn;
    void *arg;
    uint64_t seq;
    timers *tm;                 /* which heap holds it, or held it */
    int32_t id;                 /* its number there, -1: it is in none; tm->lock */
    uint8_t kind;               /* TK_* */
    bool inherited;             /* goes on in a fork's child, as all TK_CHAN ones do */
    int64_t period;             /* > 0: fires again and again */
};
enum { TK_WAIT = 0, TK_CHAN, TK_FUNC };
typedef struct timer_slot { int64_t when; int32_t id; } timer_slot;
typedef struct timer_entry { timer *t; int32_t pos; } timer_entry;
struct timers {
    gmutex lock;
    P *p;                       /* whose heap it is */
    timer_slot *heap;           /* 4-ary min-heap on when */
    timer_entry *tab;           /* by number: the timer, and where in the heap it is */
    int32_t cap;
    _Atomic int32_t n;
    int32_t nchan;              /* how many are TK_CHAN */
    _Atomic int64_t next;       /* heap[0].when, or GORT_FOREVER */
};

/* ---- P ---------------------------------------------------------------- */
#define RUNQ_SIZE 256u
enum { P_IDLE = 0, P_RUNNING, P_DEAD };
struct P {
    int id;
    bool solo;                  /* the only P its domain can ever have: no thieves */
    _Atomic int status;         /* dom.lock, but for relaxed reads */
    Dom *dom;
    M *_Atomic m;               /* owner; the owner, or dom.lock while idle */
    P *link;                    /* idle list, dom.lock */
    /* run queue: see runq.c */
    _Atomic uint32_t runq_head;
    _Atomic uint32_t runq_tail;
    G *_Atomic runnext;
    G *_Atomic runq[RUNQ_SIZE];
    /* owner only */
    _Atomic uint32_t schedtick; /* relaxed; sysmon reads it */
    uint32_t next_streak;       /* runnext taken this often in a row */
    uint64_t timer_tsc;         /* cycle counter at the last look at the timers */
    G *gfree;                   /* dead Gs, ready for reuse */
    int32_t ngfree;
    uint32_t io_calls;          /* since others last had their turn, see pd_fair */
    uint64_t poll_tsc;          /* cycle counter at the last look at the network */
    uint64_t far_tsc;           /* ... and since when it runs its own queue's only; 0: begin now */
    bool far_turn;              /* the global queue's or the preempted ones' */
    _Atomic int64_t created, ended; /* goroutines; owner writes, all read */
    timers tm;
};

/* ---- M ---------------------------------------------------------------- */
enum { C_NONE = 0, C_PARK, C_YIELD, C_REJOIN, C_PREEMPT, C_DEAD, C_MOVE };
struct M {
    G *curg;                    /* the goroutine it runs, NULL on g0 */
    P *p;                       /* GIL builds, Python domain: changed under the GIL */
    void *ts;                   /* the PyThreadState attached, NULL: GIL not ours */
    G *prev;                    /* what the last switch left, to be committed ... */
    int commit;                 /* ... so (C_*) */
    Dom *dom;
    G *lockedg;                 /* runs nothing but this G */
    P *nextp;                   /* handed over with the wake-up; dom.lock */
    G *nextg;                   /* a G to run, without a P too; dom.lock */
    M *link;                    /* idle list, dom.lock */
    M *alllink;                 /* dom.lock; never removed */
    bool spinning;
    _Atomic bool demoted;       /* sysmon lets other threads go before its own */
    bool idle;                  /* on the idle list; dom.lock */
    _Atomic int64_t preempt;    /* when sysmon asked its goroutine to let others run; 0: it has */
    _Atomic uint32_t note;      /* futex: 1 = woken */
    _Atomic bool in_poll;       /* it sleeps in the network poller instead; see netpoll_sleep */
    uint32_t rng;
    uint32_t id;
    pthread_t thread;
    _Atomic int tid;
    G g0;
};

/* ---- the domain ------------------------------------------------------- */
#define MAXPROCS 1024
#define MAXMS 10000
struct Dom {
    int kind;                   /* GK_PYTHON or GK_NATIVE: what its Gs are */
    gmutex lock;                /* guards what follows unless it is atomic */
    P *_Atomic allp[MAXPROCS];  /* filled once, never freed */
    _Atomic int nprocs;
    _Atomic int nallp;          /* only grows */
    bool solo;                  /* one P for ever: a GIL build's Python domain */
    P *pidle;
    _Atomic int npidle;
    _Atomic int nmspinning;
    M *midle;
    M *mspare;                  /* for which no thread could be started */
    _Atomic bool starved;       /* ... with a P that is idle therefore: sysmon is to try again */
    int nmidle, nm;
    M *_Atomic allm;
    G *runq_first, *runq_last;  /* global queue */
    _Atomic int32_t runqsize;   /* those and the preempted */
    G *preq_first, *preq_last;  /* preempted: they compute, and go when nobody else can ... */
    _Atomic int32_t npreq;
    _Atomic int64_t preq_since; /* ... or SHARE_NS after the last one came here */
    _Atomic bool main_first;    /* sysmon: a signal waits for the main goroutine, which is queued */
    G *gfree;                   /* global pool of dead Gs */
    _Atomic int32_t ngfree;
    _Atomic int64_t created;    /* by threads that own no P here */
    M *timer_m;                 /* sleeps until timer_when on behalf of all */
    _Atomic int64_t timer_when;
    M *main_m;                  /* Python: the main thread's */
    struct stackpool *stacks;
};
extern Dom gort_native, gort_python;

/* ---- the seam to Python (pyctx.c registers it; NULL without Python) ---- */
typedef struct pyhooks {
    void (*swap)(M *m, G *to);    /* GIL held, m->ts attached: make it to->ts */
    void (*attach)(M *m, G *to);  /* take the GIL with to->ts */
    void (*detach)(M *m);         /* drop the GIL */
    void *(*release)(void);       /* a plain thread is about to wait ... */
    void (*acquire)(void *);      /* ... and is back; both on its own ts */
    int (*deadlock)(M *m);        /* nothing to run: 1 = somebody was readied,
                                     0 = idle, -1 = look again soon */
    bool (*signals)(void);        /* has a signal come in that Python must handle? */
    void (*dump)(int fd, G *g);   /* async-signal-safe Python stack */
    int (*detached)(M *m);        /* is m's G in a call? 1: so it seems; 2: or it waits
                                     for the GIL, which another thread has */
    bool (*has_gil)(M *m);        /* the calling M: does its goroutine hold the GIL? */
    M *(*running)(Dom *d, uint64_t *turn); /* whose goroutine has the GIL, or NULL; turn: another
                                     with each goroutine that runs. A guess, it needs no GIL */
    void (*offer)(M *m);          /* let a thread in that waits for the GIL, if one does */
    bool (*preempt)(M *m);        /* have its goroutine call sched_preempt() soon */
    void *(*gil_enter)(void);     /* sysmon: take the GIL on a state of its own */
    void (*gil_leave)(void *);
    G *(*start)(gfresh *f, G *on); /* give it a G (`on`, or one of its choice); NULL:
                                     no memory, and its handle knows */
    void (*drop)(G *g);           /* free a dead G's thread state (GIL) */
    void (*fork_before)(void);    /* in the thread that forks, around it; in the child */
    void (*fork_parent)(void);    /* `ts` is that thread's state, or NULL */
    void (*fork_child)(void *ts);
    void *(*fork_ts)(void);       /* the thread state of a plain thread, or NULL */
    void (*deep)(G *g, size_t used); /* it has used that much of its C stack: let it
                                     recurse no deeper; async-signal-safe */
    void (*shallow)(G *g);        /* it was deep, and runs: undo that if it is so no more */
} pyhooks;
extern const pyhooks *gort_py;
extern ptrdiff_t gort_ts_slot;
extern size_t gort_ts_callbacks; /* a thread state's int that is above 1 while C code has called back */

/* ---- current M and G -------------------------------------------------- */
/* Not inlined: a compiler may keep a thread-local's address across a switch. */
M *getm(void);                  /* NULL in a plain OS thread */
uint32_t gort_rand(uint32_t n); /* 0 .. n-1 */
int64_t waiters_stuck(void); /* GIL: Python threads that only a wake-up can free */
P *sched_own_p(void);           /* the calling M's, if nobody can take it away meanwhile; or NULL */
G *getg_waiter(bool python);    /* the G that stands for the caller in a wait */

/* ---- fork.c ------------------------------------------------------------ */
/* How often this process's line has forked. Who waited in a channel or lock of an
 * earlier number waits in an ancestor; its first use here finds that out. */
extern uint16_t gort_fork_gen;
void fork_install(void);
void fork_chan(gort_chan *c);
void fork_mutex(struct gort_mutex *m);
void fork_rwmutex(struct gort_rwmutex *m);
void fork_wg(struct gort_wg *w);
void fork_sema(struct gort_sema *s);
void fork_notify(struct gort_event_q *n);
#define fork_check(x) do { \
    if (unlikely(atomic_load_explicit(&(x)->gen, memory_order_acquire) != gort_fork_gen)) \
        _Generic((x), gort_chan *: fork_chan, struct gort_mutex *: fork_mutex, struct gort_rwmutex *: fork_rwmutex, \
                 struct gort_wg *: fork_wg, struct gort_sema *: fork_sema, struct gort_event_q *: fork_notify)(x); \
    } while (0)

#define lock_if(c) do { fork_check(c); if ((c)->shared) gmutex_lock(&(c)->lock); } while (0)
#define unlock_if(c) do { if ((c)->shared) gmutex_unlock(&(c)->lock); } while (0)

/* ---- sched.c ---------------------------------------------------------- */
int gort_init(void);            /* idempotent; called by every public entry */
int gort_init_python(const pyhooks *h, size_t ds_head, size_t ds_tail, void *ts);
G *sched_pool_take(Dom *d);      /* a dead G with its stack, or NULL */
G *g_new(Dom *d);               /* from the pool or fresh; NULL: no memory */
void g_start(G *g);             /* IDLE -> RUNNABLE, into a run queue */
void g_start_fresh(gfresh *f);
void g_discard(G *g);           /* an IDLE G that is not to be started */
uint64_t g_new_id(void);
void sched_each_fresh(Dom *d, void (*fn)(void *handle, void *), void *arg); /* GIL */
void g_ready(G *g);             /* WAITING -> RUNNABLE, after a claim; runs next */
void g_ready_last(G *g);        /* the same, but at the end of the queue */
int g_ready_list(G *first);     /* the same for a chain */
void g_yield(void);
void g_yield_on(M *m);          /* the same for a caller that has looked: m->curg is set */
int sched_set_procs(Dom *d, int n);
void sched_blocking_enter(G *g);/* GIL held: let others run while we block */
void sched_blocking_exit(G *g);
extern _Atomic bool sysmon_no_python;
extern _Atomic int sysmon_tid;
extern int64_t gort_blocked_ns;
int64_t sched_ngo(Dom *d);
void sched_uncount(gfresh *f);  /* it will never start */
void sched_kick(Dom *d, M *m);  /* wake it (NULL: any idle M) to look around */
void sched_timer_added(timers *tm, int64_t when);
void sched_preempt(G *g);       /* the running one; GIL */
bool sched_busy(Dom *d, M *me); /* an M but me runs a G, or has one to run */
void sched_inject(Dom *d, G *g);
extern _Atomic int64_t gort_coarse_ns;  /* the time, some 10 ms old at most */
extern G *gort_main_g;
/* The interpreter is about to go: no other goroutine runs on the main thread, so what the
 * main one still waits for (in atexit functions, finalisers) it waits for as a thread. */
extern _Atomic bool gort_stopped;
extern _Atomic bool gort_main_intr; /* an exception is pending for the main goroutine */

/* ---- wait.c ----------------------------------------------------------- */
uint64_t wait_begin(G *g);
/* 0: lost; 1: claimed; 2: claimed, and the caller must g_ready(g). */
int wait_claim(G *g, uint64_t ticket, int code, int index);
/* Park until claimed; returns the wait word. */
uint64_t wait_park(G *g, uint64_t ticket, int reason, const waitopt *o);
int wait_error(int code);       /* WC_* to GORT_E* */
static inline bool wait_wake(G *g, uint64_t ticket, int code, int index)
{
    int r = wait_claim(g, ticket, code, index);
    if (r == 2) g_ready(g);
    return r != 0;
}
/* End any wait g is in now with this code; false if it is in none. */
bool wait_interrupt(G *g, int code);
/* Append a claimed G to a chain that is readied after unlocking. A parked G is on
 * no queue, so its link is free. A thread may be off before it is woken, and wait
 * elsewhere already, so its record is not chained but woken at once. */
static inline void chain_add(G ***last, G *g)
{
    if (g->kind == GK_THREAD) {
        g_ready(g);
        return;
    }
    g->link = NULL;
    **last = g;
    *last = &g->link;
}
void waitq_push(waitq *q, sudog *s);
void waitq_push_front(waitq *q, sudog *s);
void waitq_remove(sudog *s);
/* Claim the first waiter that still waits, handing it v / taking its value; false:
 * there is none. *ready: whom the caller must g_ready(), after it unlocked. The
 * queue's lock is held. */
bool waitq_give(waitq *q, uint64_t v, int code, G **ready);
bool waitq_take(waitq *q, uint64_t *v, int code, G **ready);

/* ---- runq.c ----------------------------------------------------------- */
G *runq_steal(P *thief, P *victim, bool steal_next);
void globq_put(Dom *d, G *g);           /* dom.lock held */
G *globq_get(Dom *d, P *p, int max);    /* dom.lock held; never a preempted one */
void preq_put(Dom *d, G *g);            /* dom.lock held */
G *preq_get(Dom *d);                    /* dom.lock held */
bool runq_pull(Dom *d, P *p, G *g);     /* out of turn; dom.lock held, and p is the caller's */

/* ---- timer.c ---------------------------------------------------------- */
int timer_add(timer *t, timers *tm, int64_t when);   /* 0 or GORT_ENOMEM */
bool timer_del(timer *t);                      /* true: it was pending */
timers *timer_home(bool real);  /* with real: never a bubble's */
int64_t timers_run(timers *tm, int64_t now);         /* when the next is due */
void timers_poll(void);
bool timers_hope(timers *tm);                        /* would one of them wake a G? */
void timer_fire_chan(void *chan, uint64_t seq, int64_t now);
bool timer_stop_chan(timer *t, gort_chan *c);

/* ---- bubble.c --------------------------------------------------------- */
enum { BUBBLE_RANDOM = 0, BUBBLE_PCT };
#define BUBBLE_LOW (1u << 30)   /* priorities that went down are below, new ones above */
#define BUBBLE_CHANGES 8
struct gort_bubble {
    _Atomic int refs;
    bool fake, seeded;          /* constant, as is id */
    uint64_t id;
    _Atomic int64_t now;        /* the fake clock; the root's */
    _Atomic int64_t total, running; /* members; those not durably blocked */
    timers tm;                  /* on the fake clock; no P */
    void *owner;                /* the Bubble, while it drives it; GIL */
    gort_bubble *all_next;
    gmutex lock;                /* guards all below */
    waitq root_q, wait_q;
    uint64_t rng, steps, limit; /* more steps than limit, if that is not 0: no end in sight */
    uint64_t change[BUBBLE_CHANGES]; /* PCT: at these steps the running one's priority falls */
    int nchange, strategy;
    uint32_t low;               /* the lowest priority given so far */
    int forced;                 /* who is next, if >= 0 */
    bool turn;                  /* a member has the turn */
    G **ready;                  /* members that could run, in the order they became so */
    int nready, cap;
};
extern _Atomic int gort_nseeded;
gort_bubble *bubble_new(bool fake, bool seeded, uint64_t seed, int strategy);
void bubble_ref(gort_bubble *b);
void bubble_unref(gort_bubble *b);
gort_bubble *bubble_current(void);
bool bubble_foreign(uint64_t id);   /* is the caller outside of it? */
int64_t gort_clock_ns(void);        /* the caller's clock: its bubble's, or the real one */
void bubble_enter(gfresh *f);
void bubble_leave(gort_bubble *b);
void bubble_mark(G *g, int reason, const waitopt *o);
void bubble_commit_park(G *prev);
int bubble_wait_idle(gort_bubble *b, const waitopt *o);
int bubble_wait(gort_bubble *b, const waitopt *o); /* GORT_EINVAL: another member does */
bool bubble_wake_waiter(gort_bubble *b);
bool bubble_advance(gort_bubble *b);
uint64_t bubble_rand(gort_bubble *b);
uint32_t bubble_choose(uint32_t n); /* 0 .. n-1, by the caller's seed if it has one */
void bubble_submit(G *g);
void bubble_turn_over(gort_bubble *b);
void bubble_yielded(G *g);
void bubble_yields(G *g);
bool bubble_point(void);
void bubble_each_fresh(void (*fn)(void *handle, void *), void *arg);
timer *bubble_any_func_timer(gort_bubble *b);
static inline int durable_if(bool b) { return b ? R_DURABLE : 0; }

/* ---- stack.c ---------------------------------------------------------- */
struct stackpool *stackpool_new(size_t size, size_t ds_head, size_t ds_tail);
G *stack_alloc(struct stackpool *sp);          /* a zeroed G with bounds set */
void stack_free(struct stackpool *sp, G *g);   /* its pages go to the kernel */
void stack_each(struct stackpool *sp, int (*fn)(G *, void *), void *arg);
G *stack_owner(struct stackpool *sp, const void *addr); /* whose slot it is in, or NULL */
void stackpool_zone(struct stackpool *sp, size_t bytes); /* before the first slot is used */
bool stack_deep(G *g, const void *addr, const void *sp); /* a fault in its warning zone? Open it */
bool stack_is_shallow(const G *g, const void *sp);
void stack_shallow(G *g);                      /* close it again */
size_t stack_size(const struct stackpool *sp);
extern size_t gort_stack_bytes;
void gort_call_on(void *top, void (*fn)(void *), void *arg); /* switch_*.S */
#if defined(__x86_64__) || defined(__aarch64__)
void gort_switch(void **save_sp, void *load_sp);
void gort_g_tramp(void);
#else
#error "gort: this processor is not supported"
#endif

/* ---- fatal.c ---------------------------------------------------------- */
_Noreturn void gort_throw(const char *msg);    /* broken invariant */
_Noreturn void gort_fatal(const char *fmt, ...);
void fatal_install(void);                      /* fatal_take_faults, and SIGQUIT */
void fatal_take_faults(void);                  /* SIGSEGV and SIGBUS come to us, and from us to who had them */
void fatal_leave_faults(void);                 /* who had them has them again */
void fatal_altstack(void);                     /* for the calling thread */
void fatal_print_goroutines(int fd);
const char *g_status_name(G *g);

/* ---- chan.c, select.c: words instead of addresses ---------------------- */
struct gort_chan {
    gmutex lock;                /* guards all but the constants, if shared */
    uint8_t shared, dtype, closed, timer; /* constants but closed (atomic read) */
    _Atomic uint32_t refs;
    _Atomic uint16_t gen;       /* see fork.c */
    size_t cap, count, sendx, recvx;
    waitq recvq, sendq;
    uint64_t bubble;            /* constant: the id of the one it belongs to, or 0 */
    uint64_t tseq;              /* a timer's: firings of another number are stale */
    _Atomic uint64_t tfiring;   /* the firing on its way, plus 1; set under timers.lock, cleared under lock */
    void *buf;                  /* cap elements */
};
int chan_send(gort_chan *c, uint64_t v, bool block, const waitopt *o);
int chan_recv(gort_chan *c, uint64_t *v, bool block, const waitopt *o);
int chan_close(gort_chan *c);    /* by anybody, whatever bubble it belongs to */
int chan_nil_wait(int reason, const waitopt *o);
typedef struct scase { gort_chan *c; uint64_t val; uint8_t dir; } scase;
/* The index, or an error. *ok: 0 = closed. GORT_EAGAIN with block = false. */
int select_go(const scase *cases, int n, bool block, const waitopt *o, uint64_t *val, int *ok);
int chan_send_locked(gort_chan *c, uint64_t v, G **ready);
int chan_recv_locked(gort_chan *c, uint64_t *v, G **ready);
void wait_done_push(gort_chan *done, sudog *ds, G *g, uint64_t ticket);
bool wait_done_pop(gort_chan *done, sudog *ds, uint64_t w);
/* Wait on queue q (guarded by l if shared; held, and released here) and maybe
 * on o->done. Returns W_*; s->val is what the waker left. */
int wait_on(waitq *q, sudog *s, G *g, gmutex *l, bool shared, int reason, const waitopt *o, bool front);

/* ---- sema.c ----------------------------------------------------------- */
/* bubble: made in one with a fake clock, so that only its members wake its waiters. */
typedef struct gort_mutex { gmutex lock; bool shared, locked, starving, woken, bubble; _Atomic uint16_t gen; waitq q; } gort_mutex;
typedef struct gort_rwmutex {
    gmutex lock; bool shared, writer, bubble; _Atomic uint16_t gen; int32_t waiting_writers; int64_t readers; waitq q;
} gort_rwmutex;
struct gort_wg { gmutex lock; bool shared, bubble; _Atomic uint16_t gen; int64_t n; waitq q; };
typedef struct gort_sema { gmutex lock; bool shared, bubble; _Atomic uint16_t gen; int64_t size, cur; waitq q; } gort_sema;
typedef struct gort_event_q { gmutex lock; bool shared; _Atomic uint16_t gen; waitq q; } gort_notify;
int mutex_lock(gort_mutex *m, bool block, const waitopt *o);
int mutex_unlock(gort_mutex *m);
int rwmutex_rlock(gort_rwmutex *m, bool block, const waitopt *o);
int rwmutex_runlock(gort_rwmutex *m);
int rwmutex_lock(gort_rwmutex *m, bool block, const waitopt *o);
int rwmutex_unlock(gort_rwmutex *m);
int wg_add(gort_wg *w, int64_t n);
int wg_wait(gort_wg *w, const waitopt *o);
int sema_acquire(gort_sema *s, int64_t n, bool block, const waitopt *o);
int sema_release(gort_sema *s, int64_t n);
int notify_wait(gort_notify *n, int reason, const waitopt *o); /* entered locked */
void notify_wake(gort_notify *n, bool all);
void notify_wake_last(gort_notify *n);

/* ---- native.c ---------------------------------------------------------- */
typedef struct native_job {
    void (*fn)(void *);
    void *arg;
    gort_notify n;              /* its lock guards done too */
    bool done;
    _Atomic uint64_t id;
    _Atomic int refs;
} native_job;
native_job *job_start(void (*fn)(void *), void *arg);
int job_join(native_job *j, const waitopt *o);
bool job_done(native_job *j);
void job_unref(native_job *j);
int sleep_until(int64_t when, const waitopt *o);

/* ---- what fork.c asks of the others: before, then in the parent or the child --- */
enum { FORK_BEFORE = 0, FORK_PARENT, FORK_CHILD };
void waiters_fork(int when);    /* wait.c: the records of threads */
void bubbles_fork(int when);
void stackpool_fork(struct stackpool *sp, int when);
void timers_fork(timers *tm, int when);
void native_fork(G *g);         /* in the child, which g forked */
void sysmon_fork(int when);

/* ---- config.c --------------------------------------------------------- */
int64_t config_int(const char *env, int64_t dflt, int64_t min, int64_t max);
int64_t config_size(const char *env, int64_t dflt, int64_t min, int64_t max);
int64_t config_debug(const char *key, int64_t dflt);
void config_check(void);
void gort_warn(const char *msg);

static inline uint64_t cycles(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#else
    uint64_t v;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(v));
    return v;
#endif
}
static inline uint32_t fastrand(M *m)
{   /* xorshift32, Marsaglia 2003 */
    uint32_t x = m->rng;
    x ^= x << 13; x ^= x >> 17; x ^= x << 5;
    return m->rng = x;
}
#include "runq.h"
#endif
