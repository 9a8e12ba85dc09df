/* netsock.c - the system calls on sockets, each tried first and waited for after,
 * as in Go's internal/poll/fd_unix.go.
 *
 * The caller has the turn (pd_turn) of the side it uses. Calls do not block, so a
 * Python caller keeps the GIL through them; it goes only where the goroutine parks.
 * sock_sendfile may wait for a disk and is to be called without the GIL.
 *
 * A read of a TCP stream that gave less than was asked for has emptied it; the next
 * one waits without trying, unless an edge came meanwhile or the other side has ended
 * (epoll(7), "Do I need to continuously read/write ...", as libuv does).
 */
#define _GNU_SOURCE
#include "netpoll.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/un.h>
#include <unistd.h>

#define KEEP_IDLE 15            /* seconds, as are Go's */
#define KEEP_INTERVAL 15
#define KEEP_COUNT 9
#define BACKOFF_MIN 5000000     /* ns, between two tries of accept without descriptors (Go's http.Server) */
#define BACKOFF_MAX 1000000000
#define SENDFILE_PIECE ((size_t)4 << 20) /* Go's maxSendfileSize */

/* Any edge after this is about what the next system call does not see yet. */
static inline void try_again(gort_pdside *s)
{
    if (atomic_load_explicit(&s->ready, memory_order_relaxed)) atomic_store(&s->ready, false);
}

/* EAGAIN, or not: wait or say what it is. GORT_OK: try again. */
static int blocked(gort_pd *pd, int side, const waitopt *o)
{
    if (errno == EINTR) return GORT_OK;
    if (errno != EAGAIN && errno != EWOULDBLOCK) return NET_SYS - errno;
    return o ? pd_wait(pd, side, o) : GORT_EAGAIN;
}

/* ---- streams ------------------------------------------------------------------ */
int64_t sock_read(gort_pd *pd, void *buf, size_t n, const waitopt *o)
{
    gort_pdside *s = &pd->side[PD_READ];
    int r = pd_fair();
    if (unlikely(r)) return r;
    if (atomic_load_explicit(&s->drained, memory_order_relaxed) && o && !atomic_load(&pd->hup) &&
        !atomic_load(&s->ready)) {
        if ((r = pd_wait(pd, PD_READ, o))) return r;
    } else {
        try_again(s);
    }
    for (;;) {
        ssize_t got = recv(pd->fd, buf, n, MSG_DONTWAIT);
        if (likely(got >= 0)) {
            atomic_store_explicit(&s->drained, pd->stream && got && (size_t)got < n, memory_order_relaxed);
            return got;
        }
        if ((r = blocked(pd, PD_READ, o))) return r;
    }
}

int64_t sock_write(gort_pd *pd, const void *buf, size_t n, size_t *done, const waitopt *o)
{
    int r = pd_fair();
    if (unlikely(r)) return r;
    try_again(&pd->side[PD_WRITE]);
    while (*done < n) {
        ssize_t sent = send(pd->fd, (const char *)buf + *done, n - *done, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (likely(sent >= 0)) *done += (size_t)sent;
        else if ((r = blocked(pd, PD_WRITE, o))) return r;
    }
    return 0;
}

int64_t sock_writev(gort_pd *pd, struct iovec *v, int n, size_t *done, const waitopt *o)
{
    int r = pd_fair();
    if (unlikely(r)) return r;
    try_again(&pd->side[PD_WRITE]);
    for (;;) {
        while (n > 0 && v->iov_len == 0) v++, n--;
        if (n == 0) return 0;
        struct msghdr m = { .msg_iov = v, .msg_iovlen = (size_t)(n < IOV_MAX ? n : IOV_MAX) };
        ssize_t sent = sendmsg(pd->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0) {
            if ((r = blocked(pd, PD_WRITE, o))) return r;
            continue;
        }
        *done += (size_t)sent;
        for (size_t left = (size_t)sent; left > 0;) { /* `left` bytes of v are gone */
            size_t k = left < v->iov_len ? left : v->iov_len;
            v->iov_base = (char *)v->iov_base + k;
            v->iov_len -= k;
            left -= k;
            if (v->iov_len == 0) v++, n--;
        }
    }
}

/* From `at` on, at most n bytes: how many in one go. 0: the file has no more. */
int64_t sock_sendfile(gort_pd *pd, int from, off_t at, size_t n, const waitopt *o)
{
    int r;
    try_again(&pd->side[PD_WRITE]);
    for (;;) {
        ssize_t sent = sendfile(pd->fd, from, &at, n < SENDFILE_PIECE ? n : SENDFILE_PIECE);
        if (sent >= 0) return sent;
        if ((r = blocked(pd, PD_WRITE, o))) return r;
    }
}

/* ---- packets -------------------------------------------------------------------- */
int64_t sock_recvfrom(gort_pd *pd, void *buf, size_t n, sockany *from, socklen_t *len, const waitopt *o)
{
    int r = pd_fair();
    if (unlikely(r)) return r;
    try_again(&pd->side[PD_READ]);
    for (;;) {
        *len = sizeof *from;
        ssize_t got = recvfrom(pd->fd, buf, n, MSG_DONTWAIT, &from->sa, len);
        if (got >= 0) return got;
        if ((r = blocked(pd, PD_READ, o))) return r;
    }
}

int64_t sock_sendto(gort_pd *pd, const void *buf, size_t n, const sockany *to, socklen_t len, const waitopt *o)
{
    int r = pd_fair();
    if (unlikely(r)) return r;
    try_again(&pd->side[PD_WRITE]);
    for (;;) {
        ssize_t sent = sendto(pd->fd, buf, n, MSG_DONTWAIT | MSG_NOSIGNAL, to ? &to->sa : NULL, to ? len : 0);
        if (sent >= 0) return sent;
        if ((r = blocked(pd, PD_WRITE, o))) return r;
    }
}

/* ---- connecting --------------------------------------------------------------------- */
/* The next try of accept, when there is no descriptor to be had: at the end of the
 * back-off, or at an edge, for then somebody may have closed some. */
static int back_off(gort_pd *pd, int64_t *pause, const waitopt *o)
{
    int64_t now = gort_now_ns();
    waitopt w = *o;
    *pause = *pause ? *pause * 2 : BACKOFF_MIN;
    if (*pause > BACKOFF_MAX) *pause = BACKOFF_MAX;
    bool ours = *pause < o->deadline - now;
    if (ours) w.deadline = now + *pause;
    int r = pd_wait(pd, PD_READ, &w);
    return r == GORT_ETIMEDOUT && ours && !pd->side[PD_READ].expired ? GORT_OK : r;
}

static bool no_room(int err) { return err == EMFILE || err == ENFILE || err == ENOBUFS || err == ENOMEM; }

int64_t sock_accept(gort_pd *pd, sockany *from, socklen_t *len, const waitopt *o)
{
    int64_t pause = 0;
    int r = pd_fair();
    if (unlikely(r)) return r;
    try_again(&pd->side[PD_READ]);
    for (;;) {
        *len = sizeof *from;
        int fd = accept4(pd->fd, &from->sa, len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) return fd;
        if (errno == ECONNABORTED) continue; /* it had gone before it was accepted */
        r = no_room(errno) && o ? back_off(pd, &pause, o) : blocked(pd, PD_READ, o);
        if (r) return r;
    }
}

/* Needs the turn to write. Called again after GORT_EINTR, it goes on. */
int64_t sock_connect(gort_pd *pd, const sockany *to, socklen_t len, const waitopt *o)
{
    while (connect(pd->fd, &to->sa, len) < 0) {
        int e = errno, r;
        socklen_t n = sizeof e;
        if (e == EISCONN) return 0;
        if (e == EINTR) continue;
        if (e != EINPROGRESS && e != EALREADY) return NET_SYS - e; /* EAGAIN too: a Unix listener's queue is full */
        if (!o) return GORT_EAGAIN;
        if ((r = pd_wait(pd, PD_WRITE, o))) return r;
        if (getsockopt(pd->fd, SOL_SOCKET, SO_ERROR, &e, &n) < 0) e = errno;
        if (e && e != EINPROGRESS && e != EALREADY && e != EINTR) return NET_SYS - e;
        sockany peer; /* the wait may have been ended for nothing (Go's issue 14548) */
        n = sizeof peer;
        if (!e && getpeername(pd->fd, &peer.sa, &n) == 0) return 0;
    }
    return 0;
}

/* ---- sockets and their options ---------------------------------------------------------- */
int64_t sock_new(int family, int type, int proto)
{
    int fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, proto);
    return fd < 0 ? NET_SYS - errno : fd;
}

int64_t sock_option(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof value) < 0 ? NET_SYS - errno : 0;
}

/* An accepted socket has those of its listener, which has them set for just that. */
int64_t sock_stream_options(int fd)
{
    static const struct { int level, name, value; } opts[] = {
        { IPPROTO_TCP, TCP_NODELAY, 1 },           { SOL_SOCKET, SO_KEEPALIVE, 1 },
        { IPPROTO_TCP, TCP_KEEPIDLE, KEEP_IDLE },  { IPPROTO_TCP, TCP_KEEPINTVL, KEEP_INTERVAL },
        { IPPROTO_TCP, TCP_KEEPCNT, KEEP_COUNT },
    };
    for (size_t i = 0; i < sizeof opts / sizeof *opts; i++) {
        int64_t r = sock_option(fd, opts[i].level, opts[i].name, opts[i].value);
        if (r) return r;
    }
    return 0;
}

int64_t sock_bind(int fd, const sockany *at, socklen_t len)
{
    return bind(fd, &at->sa, len) < 0 ? NET_SYS - errno : 0;
}

/* An IPv6 socket bound to no address serves IPv4 as well, whatever the system's default. */
int64_t sock_listen(int fd, const sockany *at, socklen_t len, int backlog, bool reuse_port)
{
    int64_t r = 0;
    int family = at->sa.sa_family;
    if (family != AF_UNIX) {
        r = sock_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
        if (!r && reuse_port) r = sock_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
        if (!r) r = sock_stream_options(fd);
    }
    if (!r && family == AF_INET6) {
        const struct in6_addr *ip = &((const struct sockaddr_in6 *)at)->sin6_addr;
        r = sock_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, !IN6_IS_ADDR_UNSPECIFIED(ip));
    }
    if (!r) r = sock_bind(fd, at, len);
    if (!r && listen(fd, backlog) < 0) r = NET_SYS - errno;
    return r;
}

/* ---- addresses ----------------------------------------------------------------------------- */
int sock_format(const sockany *a, socklen_t len, char *out, size_t room)
{
    char ip[INET6_ADDRSTRLEN], zone[IF_NAMESIZE + 1] = "";
    if (len < sizeof a->sa.sa_family) return snprintf(out, room, "unix:");
    if (a->sa.sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)a;
        inet_ntop(AF_INET, &in->sin_addr, ip, sizeof ip);
        return snprintf(out, room, "%s:%u", ip, ntohs(in->sin_port));
    }
    if (a->sa.sa_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)a;
        if (IN6_IS_ADDR_V4MAPPED(&in->sin6_addr)) {
            inet_ntop(AF_INET, &in->sin6_addr.s6_addr[12], ip, sizeof ip);
            return snprintf(out, room, "%s:%u", ip, ntohs(in->sin6_port));
        }
        inet_ntop(AF_INET6, &in->sin6_addr, ip, sizeof ip);
        if (in->sin6_scope_id) {
            zone[0] = '%';
            if (!if_indextoname(in->sin6_scope_id, zone + 1)) snprintf(zone + 1, sizeof zone - 1, "%u", in->sin6_scope_id);
        }
        return snprintf(out, room, "[%s%s]:%u", ip, zone, ntohs(in->sin6_port));
    }
    if (a->sa.sa_family == AF_UNIX) {
        const struct sockaddr_un *un = (const struct sockaddr_un *)a;
        size_t n = len - offsetof(struct sockaddr_un, sun_path);
        if (n > 0 && !un->sun_path[0]) return snprintf(out, room, "unix:@%.*s", (int)n - 1, un->sun_path + 1);
        return snprintf(out, room, "unix:%.*s", (int)n, un->sun_path);
    }
    return snprintf(out, room, "family %d", a->sa.sa_family);
}

socklen_t sock_parse_ip(const char *host, const char *zone, uint16_t port, sockany *out)
{
    struct sockaddr_in *in = (struct sockaddr_in *)out;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;
    memset(out, 0, sizeof *out);
    if (!*zone && inet_pton(AF_INET, host, &in->sin_addr) == 1) {
        in->sin_family = AF_INET;
        in->sin_port = htons(port);
        return sizeof *in;
    }
    if (inet_pton(AF_INET6, host, &in6->sin6_addr) != 1) return 0;
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(port);
    if (*zone) {
        char *end;
        in6->sin6_scope_id = if_nametoindex(zone);
        if (!in6->sin6_scope_id) in6->sin6_scope_id = (uint32_t)strtoul(zone, &end, 10);
        if (!in6->sin6_scope_id) return 0;
    }
    return sizeof *in6;
}

/* A path that begins with @ is in the abstract namespace. */
socklen_t sock_parse_unix(const char *path, size_t n, sockany *out)
{
    struct sockaddr_un *un = (struct sockaddr_un *)out;
    memset(out, 0, sizeof *out);
    if (n >= sizeof un->sun_path) return 0;
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, path, n);
    bool abstract = n > 0 && path[0] == '@';
    if (abstract) un->sun_path[0] = 0;
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + !abstract);
}
