# netpoll.pxd - csrc/netpoll.h, as far as the bindings use it.
from libc.stdint cimport int64_t, uint16_t, uint32_t
from gort._core.runtime cimport waitopt

cdef extern from "netpoll.h" nogil:
    enum: PD_READ, PD_WRITE
    enum: NET_SYS, SOCK_NAME_MAX
    ctypedef unsigned int socklen_t
    struct sockaddr:
        unsigned short sa_family
    struct sockaddr_storage:
        pass
    ctypedef union sockany:
        sockaddr sa
        sockaddr_storage all
    struct iovec:
        void *iov_base
        size_t iov_len
    ctypedef struct gort_pd:
        int fd
        bint closing
    gort_pd *pd_open(int fd, bint stream)
    gort_pd *pd_borrow(int fd, bint stream)
    int pd_close(gort_pd *pd)
    void pd_free(gort_pd *pd)
    int pd_turn(gort_pd *pd, int side, const waitopt *o)
    void pd_done(gort_pd *pd, int side)
    int pd_wait(gort_pd *pd, int side, const waitopt *o)
    int pd_set_deadline(gort_pd *pd, int sides, int64_t when)
    int pd_use(gort_pd *pd)
    void pd_unuse(gort_pd *pd)
    int pd_fair()
    void pd_try(gort_pd *pd, int side)
    void pd_took(gort_pd *pd, bint all)
    bint pd_dry(gort_pd *pd)
    bint pd_busy(const gort_pd *pd, int side)
    void pd_again(gort_pd *pd, int side)

    int64_t sock_read(gort_pd *pd, void *buf, size_t n, const waitopt *o)
    int64_t sock_write(gort_pd *pd, const void *buf, size_t n, size_t *done, const waitopt *o)
    int64_t sock_writev(gort_pd *pd, iovec *v, int n, size_t *done, const waitopt *o)
    int64_t sock_recvfrom(gort_pd *pd, void *buf, size_t n, sockany *frm, socklen_t *len, const waitopt *o)
    int64_t sock_sendto(gort_pd *pd, const void *buf, size_t n, const sockany *to, socklen_t len, const waitopt *o)
    int64_t sock_accept(gort_pd *pd, sockany *frm, socklen_t *len, const waitopt *o)
    int64_t sock_connect(gort_pd *pd, const sockany *to, socklen_t len, const waitopt *o)
    int64_t sock_sendfile(gort_pd *pd, int frm, int64_t at, size_t n, const waitopt *o)
    int64_t sock_new(int family, int type, int proto)
    int64_t sock_stream_options(int fd)
    int64_t sock_option(int fd, int level, int name, int value)
    int64_t sock_listen(int fd, const sockany *at, socklen_t len, int backlog, bint reuse_port)
    int64_t sock_bind(int fd, const sockany *at, socklen_t len)
    int sock_format(const sockany *a, socklen_t len, char *out, size_t room)
    socklen_t sock_parse_ip(const char *host, const char *zone, uint16_t port, sockany *out)
    socklen_t sock_parse_unix(const char *path, size_t n, sockany *out)

cdef extern from "<sys/socket.h>" nogil:
    enum: AF_UNIX, AF_INET, AF_INET6, SOCK_STREAM, SOCK_DGRAM, SHUT_RD, SHUT_WR, SOL_SOCKET, SO_LINGER
    int shutdown(int fd, int how)
    int getsockname(int fd, sockaddr *a, socklen_t *len)
    int getpeername(int fd, sockaddr *a, socklen_t *len)
    int c_socketpair "socketpair"(int family, int type, int proto, int *fds)
    int setsockopt(int fd, int level, int name, const void *value, socklen_t len)

cdef extern from "<errno.h>" nogil:
    int c_errno "errno"

cdef extern from "<unistd.h>" nogil:
    int c_close "close"(int fd)
