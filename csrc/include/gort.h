/* gort.h - the public C interface of the gort runtime.
 *
 * For C code that runs as native goroutines (gort_go) or in any OS thread of
 * the process. Nothing here needs Python or the GIL. A call that has to wait
 * parks the calling goroutine; in a plain OS thread it blocks the thread.
 *
 * A native goroutine runs on a stack of GORT_STACK bytes (256 KiB unless told
 * otherwise) and may be resumed by another OS thread after any call that can
 * wait, so do not keep the address of a thread-local variable across one.
 *
 * Topics: results, goroutines, time, channels, select, wait groups, runtime.
 */
#ifndef GORT_H
#define GORT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define GORT_API __attribute__((visibility("default")))
#else
#define GORT_API
#endif

/* ---- results: 0 or more is success, below 0 one of these --------------- */
enum {
    GORT_OK = 0,
    GORT_ECLOSED = -1,  /* the channel is closed */
    GORT_EAGAIN = -2,   /* would have to wait */
    GORT_ETIMEDOUT = -3,/* the time was up */
    GORT_ENOMEM = -4,   /* out of memory, or of threads */
    GORT_EINVAL = -5,   /* an argument is out of range */
    GORT_EKILLED = -6,  /* the waiting goroutine was killed (Python ones) */
    GORT_EDEADLOCK = -7,/* nobody is left to end the wait (Python main) */
    GORT_EINTR = -8,    /* a signal is to be handled (Python main) */
    GORT_ECTX = -9,     /* the context given with the wait has ended */
    GORT_EBUBBLE = -10, /* the channel belongs to a test bubble that the caller is not in */
};

#define GORT_FOREVER INT64_MAX /* a timeout that never comes */

/* ---- goroutines ------------------------------------------------------- */
/* Run fn(arg) as a native goroutine. From any thread. Returns 0 or GORT_ENOMEM. */
GORT_API int gort_go(void (*fn)(void *), void *arg);
/* Let others run. Does nothing in a plain OS thread but sched_yield(). */
GORT_API void gort_yield(void);
/* The calling goroutine's id, 0 in a plain OS thread. */
GORT_API uint64_t gort_goid(void);

/* ---- time ------------------------------------------------------------- */
GORT_API int64_t gort_now_ns(void);          /* monotonic */
GORT_API int gort_sleep_ns(int64_t ns);      /* 0, or why the wait was cut short */

/* ---- channels --------------------------------------------------------- */
typedef struct gort_chan gort_chan;

/* Element types. An element of any of them is passed by address and is
 * gort_chan_elemsize() bytes wide. */
enum { GORT_OBJ = 0, GORT_I64 = 1, GORT_F64 = 2, GORT_U8 = 3, GORT_PTR = 4 };

/* A channel with one reference; NULL when out of memory or arguments are bad. */
GORT_API gort_chan *gort_chan_new(int dtype, size_t cap);
GORT_API void gort_chan_ref(gort_chan *c);
GORT_API void gort_chan_unref(gort_chan *c);
GORT_API size_t gort_chan_elemsize(const gort_chan *c);
GORT_API size_t gort_chan_len(gort_chan *c);
GORT_API size_t gort_chan_cap(const gort_chan *c);

/* timeout_ns: GORT_FOREVER waits for ever, 0 or less does not wait
 * (GORT_EAGAIN for 0, as gort_chan_try_*). A NULL channel is Go's nil channel.
 * send: GORT_OK or GORT_ECLOSED, GORT_EAGAIN, GORT_ETIMEDOUT.
 * recv: GORT_OK, or GORT_ECLOSED with *elem zeroed, GORT_EAGAIN, GORT_ETIMEDOUT.
 * Who received the last message may unref the channel at once; to use it after a
 * call that let others go on, hold a reference of your own. */
GORT_API int gort_chan_send(gort_chan *c, const void *elem);
GORT_API int gort_chan_recv(gort_chan *c, void *elem);
GORT_API int gort_chan_send_timeout(gort_chan *c, const void *elem, int64_t timeout_ns);
GORT_API int gort_chan_recv_timeout(gort_chan *c, void *elem, int64_t timeout_ns);
GORT_API int gort_chan_try_send(gort_chan *c, const void *elem);
GORT_API int gort_chan_try_recv(gort_chan *c, void *elem);
GORT_API int gort_chan_close(gort_chan *c);  /* GORT_ECLOSED if it was closed */

/* ---- select ----------------------------------------------------------- */
enum { GORT_RECV = 0, GORT_SEND = 1 };
typedef struct gort_case {
    gort_chan *c;   /* NULL: never ready */
    int dir;        /* GORT_RECV or GORT_SEND */
    void *elem;     /* sent from, or received into (NULL: dropped) */
    int ok;         /* out, for the chosen case: 0 = channel closed */
} gort_case;
/* Wait for one of n cases; among several ready ones the choice is uniform.
 * Returns the index of the chosen case, or GORT_EAGAIN (timeout_ns is 0),
 * GORT_ETIMEDOUT, GORT_ENOMEM. A send case on a closed channel, if chosen,
 * returns its index with ok = 0. */
GORT_API int gort_select(gort_case *cases, int n, int64_t timeout_ns);

/* ---- wait groups ------------------------------------------------------ */
typedef struct gort_wg gort_wg;
GORT_API gort_wg *gort_wg_new(void);
GORT_API void gort_wg_free(gort_wg *wg);             /* nobody may be waiting */
GORT_API int gort_wg_add(gort_wg *wg, int64_t n);    /* GORT_EINVAL: below zero */
GORT_API int gort_wg_done(gort_wg *wg);
GORT_API int gort_wg_wait(gort_wg *wg);

/* ---- runtime ---------------------------------------------------------- */
/* The number of Ps of the native domain; with n >= 1 set it first. Returns
 * the previous number. It is read from GOMAXPROCS at the start. */
GORT_API int gort_maxprocs(int n);
GORT_API int64_t gort_num_native(void);              /* living native goroutines */

#ifdef __cplusplus
}
#endif
#endif /* GORT_H */
