/* netpoll.h - the network poller: poll descriptors, and what the scheduler asks of it.
 *
 * The protocol stands at the head of netpoll.c; sockets are in netsock.c.
 */
#ifndef GORT_NETPOLL_H
#define GORT_NETPOLL_H
#include "runtime.h"

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

enum { PD_READ = 0, PD_WRITE = 1 };

typedef struct gort_pdside {
    waitq q;                    /* the holder of the turn, while it waits for readiness */
    waitq turns;                /* who waits for the turn, in order */
    bool locked;                /* somebody has the turn */
    bool inuse;                 /* ... and may be in a system call on fd */
    _Atomic bool ready;         /* an edge that nobody has consumed */
    _Atomic bool expired;       /* the deadline has passed */
    _Atomic bool drained;       /* the holder's: the last read took all there was */
    uint64_t seq;               /* a deadline timer of another number is stale */
    timer t;
} gort_pdside;

typedef struct gort_pd {
    gmutex lock;                /* guards all below but what is atomic */
    int fd;                     /* -1: closed */
    uint32_t seq;               /* an epoll event of another number is stale; goes up with each use of the slot */
    int misc;                   /* other calls on fd in progress */
    bool closing;
    bool armed;                 /* epoll knows it */
    bool stream;                /* constant: TCP, where a short read has taken all there was */
    bool borrowed;              /* constant: fd is closed by others, after pd_close() */
    int dup;                    /* what epoll knows instead of fd, which another slot has told it of; or -1 */
    _Atomic bool hup;           /* the other side has ended, there is an error, or urgent data */
    gort_pdside side[2];
    struct gort_pd *link;       /* pool */
} gort_pd;

/* A slot for fd, which must not block; it belongs to the slot from then on. NULL: no memory. */
gort_pd *pd_open(int fd, bool stream);
/* The same for a descriptor that remains its owner's, who does the calls on it. */
gort_pd *pd_borrow(int fd, bool stream);
/* Refuse all further calls, wake who waits; GORT_ECLOSED: that had been done. The
 * descriptor is closed when the last call has left the system. */
int pd_close(gort_pd *pd);
void pd_free(gort_pd *pd);      /* closed, and no call in progress */
/* The turn to read or to write: one has it at a time, others queue. o NULL: do not
 * wait. After GORT_OK the caller owes pd_done(). */
int pd_turn(gort_pd *pd, int side, const waitopt *o);
void pd_done(gort_pd *pd, int side);
/* With the turn: wait until a system call is worth another try. GORT_OK, GORT_ECLOSED,
 * GORT_ETIMEDOUT (also for the deadline), GORT_EKILLED, ..., or NET_SYS - errno. */
int pd_wait(gort_pd *pd, int side, const waitopt *o);
/* when: on gort_now_ns()'s scale, GORT_FOREVER: none. sides: 1 read, 2 write, 3 both. */
int pd_set_deadline(gort_pd *pd, int sides, int64_t when);
/* For calls that neither read nor write: the descriptor, or -1. Then pd_unuse(). */
int pd_use(gort_pd *pd);
void pd_unuse(gort_pd *pd);
/* Let others have a share of the processor that goes on and on without a wait. */
int pd_fair(void);
/* Who keeps the GIL from a system call to pd_turn() needs no turn for the call. Any edge
 * after pd_try() is about what the call that follows does not see yet. */
static inline void pd_try(gort_pd *pd, int side)
{
    gort_pdside *s = &pd->side[side];
    if (atomic_load_explicit(&s->ready, memory_order_relaxed)) atomic_store(&s->ready, false);
}
static inline void pd_took(gort_pd *pd, bool all)
{
    atomic_store_explicit(&pd->side[PD_READ].drained, all && pd->stream, memory_order_relaxed);
}
/* The last read took all there was, and nothing has come since. */
static inline bool pd_dry(gort_pd *pd)
{
    gort_pdside *s = &pd->side[PD_READ];
    return atomic_load_explicit(&s->drained, memory_order_relaxed) && !atomic_load(&pd->hup) && !atomic_load(&s->ready);
}
static inline bool pd_busy(const gort_pd *pd, int side) { return pd->side[side].locked; }
static inline void pd_again(gort_pd *pd, int side) { atomic_store(&pd->side[side].ready, true); }

/* ---- what the scheduler asks; see "The office" in netpoll.c ---------------- */
extern _Atomic int32_t netpoll_waiters;
extern _Atomic int64_t netpoll_last;   /* coarse time of the last look; 0: the office is held */
static inline bool netpoll_any(void)
{
    return unlikely(atomic_load_explicit(&netpoll_waiters, memory_order_relaxed) > 0);
}
/* Somebody waits, and nobody polls. */
static inline bool netpoll_wanted(void)
{
    return netpoll_any() && atomic_load(&netpoll_last) != 0;
}
int netpoll_now(Dom *d);        /* ready what is; how many. d: the caller has a P there, or NULL */
bool netpoll_enter(void);       /* take the office, for an M that is about to sleep */
int netpoll_sleep(M *m, int64_t timeout_ns); /* instead of on its futex; events to deliver */
int netpoll_leave(int n);       /* deliver n events, give the office up; goroutines readied */
void netpoll_break(void);       /* wake who sleeps in it */
bool netpoll_watch(int64_t now);/* sysmon: poll if nobody did; shall it look again soon, for plain threads? */
void netpoll_fork_child(void);  /* everything anew; only the calling thread exists */
void sched_poller_wanted(void); /* proc.c: have an idle M poll */

/* ---- netsock.c ------------------------------------------------------------- */
/* With the turn of their side. o NULL: do not wait, GORT_EAGAIN. They give a
 * count, 0 or more, a GORT_E* of the wait, or NET_SYS - errno. */
#define NET_SYS (-1000)
typedef union sockany {
    struct sockaddr sa;
    struct sockaddr_storage all;
} sockany;
int64_t sock_read(gort_pd *pd, void *buf, size_t n, const waitopt *o);
int64_t sock_write(gort_pd *pd, const void *buf, size_t n, size_t *done, const waitopt *o); /* all of it */
int64_t sock_writev(gort_pd *pd, struct iovec *v, int n, size_t *done, const waitopt *o);   /* changes v */
int64_t sock_recvfrom(gort_pd *pd, void *buf, size_t n, sockany *from, socklen_t *len, const waitopt *o);
int64_t sock_sendto(gort_pd *pd, const void *buf, size_t n, const sockany *to, socklen_t len, const waitopt *o);
int64_t sock_accept(gort_pd *pd, sockany *from, socklen_t *len, const waitopt *o);
int64_t sock_connect(gort_pd *pd, const sockany *to, socklen_t len, const waitopt *o);
int64_t sock_sendfile(gort_pd *pd, int from, off_t at, size_t n, const waitopt *o);
int64_t sock_new(int family, int type, int proto);      /* non-blocking, close-on-exec */
int64_t sock_stream_options(int fd);                    /* TCP_NODELAY and keep-alive, as in Go */
int64_t sock_option(int fd, int level, int name, int value);
int64_t sock_listen(int fd, const sockany *at, socklen_t len, int backlog, bool reuse_port);
int64_t sock_bind(int fd, const sockany *at, socklen_t len);
/* "127.0.0.1:80", "[::1%lo]:80", "unix:/path", "unix:@abstract" in out; its length. */
int sock_format(const sockany *a, socklen_t len, char *out, size_t room);
/* From a literal IP; 0: it is none. zone: an interface's name or number, or "". */
socklen_t sock_parse_ip(const char *host, const char *zone, uint16_t port, sockany *out);
socklen_t sock_parse_unix(const char *path, size_t n, sockany *out); /* 0: too long */
#define SOCK_NAME_MAX 160
#endif
