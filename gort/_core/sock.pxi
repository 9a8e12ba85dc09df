# sock.pxi - what is fast in gort.socket, whose class `socket` gets the methods from here.
#
# A cooperative socket is a stdlib socket. What it has besides, a SockState, is in a slot
# that Python code cannot see. Its descriptor is in the mode it would have in the stdlib;
# the calls say MSG_DONTWAIT, and accept and connect, which cannot, change the mode. The
# stdlib's C part knows -1 (blocking) or 0 as its timeout, so that it never waits itself
# where we make it try.
#
# Every call keeps the GIL from its system call to pd_turn(), and so needs no turn for
# a single read or write: see pd_try() in netpoll.h. Only sendall() has one, so that two
# do not mix.

cdef extern from *:
    """
    #include <fcntl.h>
    #include <arpa/inet.h>
    #include <netinet/in.h>
    #include <structmember.h>
    #include <sys/un.h>

    static Py_ssize_t gort_sock_at; /* where its slot is in an instance of gort.socket.socket */
    static int gort_sock_find(PyObject *descr)
    {
        if (Py_TYPE(descr) != &PyMemberDescr_Type) return -1;
        gort_sock_at = ((PyMemberDescrObject *)descr)->d_member->offset;
        return 0;
    }
    #define gort_sock_slot(self) (*(PyObject **)(void *)((char *)(self) + gort_sock_at))

    /* accept4() of a descriptor that others may have put into blocking mode. */
    static int gort_accept(int fd, sockany *from, socklen_t *len)
    {
        int mode = fcntl(fd, F_GETFL);
        if (mode >= 0 && !(mode & O_NONBLOCK)) fcntl(fd, F_SETFL, mode | O_NONBLOCK);
        memset(from, 0, sizeof *from);
        *len = sizeof *from;
        return accept4(fd, &from->sa, len, SOCK_CLOEXEC);
    }
    static int64_t gort_sock_limit(int fd, int name)
    {
        struct timeval tv = {0};
        socklen_t n = sizeof tv;
        if (getsockopt(fd, SOL_SOCKET, name, &tv, &n) < 0) return 0;
        return (int64_t)tv.tv_sec * 1000000000 + (int64_t)tv.tv_usec * 1000;
    }
    static PyObject *gort_sock_name(const sockany *a, socklen_t len)
    {
        char ip[INET6_ADDRSTRLEN];
        if (a->sa.sa_family == AF_INET) {
            const struct sockaddr_in *in = (const struct sockaddr_in *)a;
            inet_ntop(AF_INET, &in->sin_addr, ip, sizeof ip);
            return Py_BuildValue("si", ip, ntohs(in->sin_port));
        }
        if (a->sa.sa_family == AF_INET6) {
            const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)a;
            inet_ntop(AF_INET6, &in->sin6_addr, ip, sizeof ip);
            return Py_BuildValue("siII", ip, ntohs(in->sin6_port), ntohl(in->sin6_flowinfo), in->sin6_scope_id);
        }
        const struct sockaddr_un *un = (const struct sockaddr_un *)a;
        size_t path = offsetof(struct sockaddr_un, sun_path);
        if (len > path && !un->sun_path[0]) return PyBytes_FromStringAndSize(un->sun_path, (Py_ssize_t)(len - path));
        return PyUnicode_DecodeFSDefault(un->sun_path);
    }
    """
    int gort_sock_find(object descr)
    PyObject *gort_sock_slot(PyObject *self)
    int gort_accept(int fd, sockany *frm, socklen_t *len)
    int64_t gort_sock_limit(int fd, int name)
    object gort_sock_name(const sockany *a, socklen_t len)
    object PyDescr_NewMethod(PyTypeObject *t, PyMethodDef *d)
    object PyErr_SetFromErrno(object cls)
    enum: METH_O

cdef extern from "<sys/socket.h>" nogil:
    enum: MSG_DONTWAIT, MSG_OOB, MSG_ERRQUEUE, MSG_WAITALL, MSG_PEEK, SO_ERROR, SO_RCVTIMEO, SO_SNDTIMEO
    Py_ssize_t c_recv "recv"(int fd, void *buf, size_t n, int flags)
    Py_ssize_t c_send "send"(int fd, const void *buf, size_t n, int flags)
    int c_getsockopt "getsockopt"(int fd, int level, int name, void *value, socklen_t *len)

cdef extern from "<errno.h>" nogil:
    enum: EAGAIN, EINTR, EBADF, EINPROGRESS, EALREADY

cdef int64_t NOT_YET = 0    # a deadline that is not computed
cdef int64_t FULL_NS = 5000000 # from one try to the next of sending to a Unix socket whose queue is full

cdef object base_socket = None      # _socket.socket and its methods, as they are without us
cdef object socket_class = None     # gort.socket.socket
cdef object base_setblocking, base_settimeout, base_gettimeout, base_close, base_del
cdef object base_connect_ex, base_fileno, base_recv


@cython.final
cdef class SockState:
    """What a cooperative socket has beside the stdlib's."""
    cdef gort_pd *pd            # from its first wait on
    cdef int fd                 # -1: closed, or detached
    cdef int family, type, proto
    cdef int mode               # of the descriptor: 1 non-blocking, 0 blocking, -1 not known
    cdef int64_t timeout        # ns; -1: none, 0: non-blocking
    cdef int64_t[2] limits      # ns: SO_RCVTIMEO, SO_SNDTIMEO of a blocking one; 0: none
    cdef bint forced            # always non-blocking underneath: TLS
    cdef bint many              # the last read gave a lot
    cdef bint switched          # accept() has changed the descriptor's mode

    def __dealloc__(self):
        if self.pd != NULL:
            pd_close(self.pd)
            pd_free(self.pd)


cdef inline SockState state_of(object self):
    cdef PyObject *p = gort_sock_slot(<PyObject *>self)
    if p == NULL:
        return bad_descriptor()
    return <SockState>p


cdef SockState bad_descriptor():
    """Of a socket that is not, or no more."""
    import os
    raise OSError(EBADF, os.strerror(EBADF))


# ---- waiting -----------------------------------------------------------------------
cdef int64_t deadline_in(int64_t ns) noexcept:
    cdef int64_t now
    if ns < 0:
        return GORT_FOREVER
    now = gort_clock_ns()
    return GORT_FOREVER if ns >= GORT_FOREVER - now else now + ns


cdef int pd_pause(gort_pd *pd, int side, const waitopt *o) noexcept:
    """Wait until a call that just gave EAGAIN is worth another try; a code of the wait."""
    cdef int r = pd_turn(pd, side, NULL)
    if r == GORT_EAGAIN:  # another waits, and has the next try after its own
        r = pd_turn(pd, side, o)
        if r == GORT_OK:
            pd_done(pd, side)
    elif r == GORT_OK:
        r = pd_wait(pd, side, o)
        pd_done(pd, side)
    return r


cdef int64_t deadline_of(SockState st, int side) noexcept:
    """Of a call that begins now."""
    return deadline_in(st.limits[side] if st.timeout < 0 and st.limits[side] > 0 else st.timeout)


cdef int raise_pause(int r, bint limited) except -1:
    """Raise what the result of pd_pause() means. Returns if the call is to be tried again."""
    import os
    if r == GORT_OK:
        return 0
    if r == GORT_ETIMEDOUT:
        if limited:  # by the kernel's own timeout
            raise BlockingIOError(EAGAIN, os.strerror(EAGAIN))
        raise TimeoutError("timed out")
    if r == GORT_ECLOSED:
        bad_descriptor()
    if r <= NET_SYS:
        raise OSError(NET_SYS - r, os.strerror(NET_SYS - r))
    raise_wait(r, None)
    return 0


cdef int sock_poller(SockState st) except -1:
    """Have its place in the poller."""
    if st.fd < 0:
        bad_descriptor()
    if st.pd == NULL:
        st.pd = pd_borrow(st.fd, st.type == SOCK_STREAM and st.family != AF_UNIX)
        if st.pd == NULL:
            raise MemoryError("gort: no memory for a wait")
    return 0


cdef int sock_wait(SockState st, int side, int64_t *deadline) except -1:
    """Wait until the side is worth another try. `deadline` is that of the call, or NOT_YET."""
    cdef waitopt o
    cdef int r
    sock_poller(st)
    if deadline[0] == NOT_YET:
        deadline[0] = deadline_of(st, side)
    o.deadline = deadline[0]
    o.done = NULL
    o.python = True
    r = pd_pause(st.pd, side, &o)
    if r != GORT_OK:
        raise_pause(r, st.timeout < 0)
    return 0


cdef inline int share() except -1:
    """Give others their turn, now and then."""
    cdef int r = pd_fair()
    if r != GORT_OK:
        raise_wait(r, None)
    return 0


# ---- receiving -----------------------------------------------------------------------
cdef inline Py_ssize_t as_size(PyObject *o) except? -1:
    return PyNumber_AsSsize_t(<object>o, OverflowError)


cdef int as_int(PyObject *o) except? -1:
    cdef Py_ssize_t v = PyNumber_AsSsize_t(<object>o, OverflowError)
    if v != <int>v:
        raise OverflowError("Python int too large to convert to C int")
    return <int>v


cdef Py_ssize_t receive(SockState st, void *buf, Py_ssize_t n, int64_t *deadline, bint *waited) except -2:
    """One recv(), waited for if need be; -1: do come again."""
    cdef gort_pd *pd = st.pd
    cdef Py_ssize_t r
    if st.fd < 0:
        bad_descriptor()
    if pd != NULL:
        if not waited[0] and st.timeout != 0 and pd_dry(pd):
            waited[0] = True
            sock_wait(st, PD_READ, deadline)
            return -1
        pd_try(pd, PD_READ)
    r = c_recv(st.fd, buf, n, MSG_DONTWAIT)
    if r >= 0:
        if pd != NULL:
            pd_took(pd, 0 < r < n)
            if pd_busy(pd, PD_READ):  # who has the turn may have tried before what came, and not wait yet
                pd_again(pd, PD_READ)
        return r
    if c_errno == EINTR:
        return -1
    if c_errno != EAGAIN or st.timeout == 0:
        PyErr_SetFromErrno(OSError)
    waited[0] = True
    sock_wait(st, PD_READ, deadline)
    return -1


cdef object sock_recv(object self, PyObject *const *args, Py_ssize_t nargs):
    cdef SockState st = state_of(self)
    cdef Py_ssize_t n, r, most
    cdef int64_t deadline = NOT_YET
    cdef bint waited = False
    cdef PyObject *b
    if nargs != 1:
        if nargs != 2:
            raise TypeError(f"recv expected 1 or 2 arguments, got {nargs}")
        flags = as_int(args[1])
        if flags:
            return recv_flags(self, st, as_size(args[0]), flags)
    n = as_size(args[0])
    if n < 0:
        raise ValueError("negative buffersize in recv")
    if n == 0:
        return b""
    share()
    while True:
        if n <= SCRATCH or (st.type == SOCK_STREAM and not st.many):
            most = min(n, <Py_ssize_t>SCRATCH)
            r = receive(st, gort_scratch, most, &deadline, &waited)
            if r >= 0:
                st.many = r >= MANY
                return PyBytes_FromStringAndSize(gort_scratch, r)
        else:
            most = min(n, <Py_ssize_t>MOST) if st.type == SOCK_STREAM else n
            b = new_bytes(NULL, most)
            try:
                r = receive(st, PyBytes_AS_STRING(<object>b), most, &deadline, &waited)
            except BaseException:
                Py_DECREF(<object>b)
                raise
            if r >= 0:
                st.many = r >= MANY
                _PyBytes_Resize(&b, r)
                return gort_take(b)
            Py_DECREF(<object>b)


cdef object recv_flags(object self, SockState st, Py_ssize_t n, int flags):
    if flags & MSG_WAITALL and st.timeout < 0 and st.type == SOCK_STREAM and not flags & MSG_PEEK and n > 0:
        buf = bytearray(n)
        return bytes(memoryview(buf)[:receive_all(self, st, buf, n, flags)])
    return _sock_retry(self, base_recv, (self, n, flags | MSG_DONTWAIT), PD_READ, flags)


cdef Py_ssize_t receive_all(object self, SockState st, object buf, Py_ssize_t n, int flags) except -1:
    """MSG_WAITALL, which means nothing together with MSG_DONTWAIT."""
    cdef Py_ssize_t got = 0, r
    flags &= ~MSG_WAITALL
    with memoryview(buf).cast("B") as view:
        while got < n:
            r = self.recv_into(view[got:], n - got, flags)
            if r == 0:
                break
            got += r
    return got


cdef object RECV_INTO = ("buffer", "nbytes", "flags")


cdef object sock_recv_into(object self, PyObject *const *args, Py_ssize_t nargs, PyObject *names):
    cdef SockState st = state_of(self)
    cdef Py_ssize_t n = 0, r, i
    cdef int flags = 0
    cdef int64_t deadline = NOT_YET
    cdef bint waited = False
    cdef Py_buffer view
    cdef PyObject *buffer = args[0] if nargs > 0 else NULL
    if nargs > 3:
        raise TypeError(f"recv_into() takes at most 3 arguments ({nargs} given)")
    if nargs > 1:
        n = as_size(args[1])
    if nargs > 2:
        flags = as_int(args[2])
    if names != NULL:
        for i in range(len(<tuple>names)):
            name = (<tuple>names)[i]
            if name not in RECV_INTO or RECV_INTO.index(name) < nargs:
                raise TypeError(f"recv_into() got an unexpected or repeated argument {name!r}")
            if name == "buffer":
                buffer = args[nargs + i]
            elif name == "nbytes":
                n = as_size(args[nargs + i])
            else:
                flags = as_int(args[nargs + i])
    if buffer == NULL:
        raise TypeError("recv_into() missing required argument 'buffer' (pos 1)")
    try:
        PyObject_GetBuffer(<object>buffer, &view, PyBUF_WRITABLE)
    except BufferError:
        raise TypeError(f"recv_into() argument 1 must be read-write bytes-like object, not {type(<object>buffer).__name__}") from None
    try:
        if n < 0:
            raise ValueError("negative buffersize in recv_into")
        if n == 0:
            n = view.len
        if view.len < n:
            raise ValueError("buffer too small for requested bytes")
        if n == 0:
            return 0
        if flags:
            if flags & MSG_WAITALL and st.timeout < 0 and st.type == SOCK_STREAM and not flags & MSG_PEEK:
                return receive_all(self, st, <object>buffer, n, flags)
            return _sock_retry(self, base_socket.recv_into, (self, <object>buffer, n, flags | MSG_DONTWAIT), PD_READ, flags)
        share()
        while True:
            r = receive(st, view.buf, n, &deadline, &waited)
            if r >= 0:
                return r
    finally:
        PyBuffer_Release(&view)


# ---- sending ---------------------------------------------------------------------------
cdef Py_ssize_t send_some(SockState st, const char *p, Py_ssize_t n, int flags, int64_t *deadline) except -1:
    cdef Py_ssize_t r
    share()
    while True:
        if st.fd < 0:
            bad_descriptor()
        if st.pd != NULL:
            if pd_busy(st.pd, PD_WRITE) and may_wait(st, flags):  # not into the middle of what another sends
                sock_wait(st, PD_WRITE, deadline)
                continue
            pd_try(st.pd, PD_WRITE)
        r = c_send(st.fd, p, n, flags | MSG_DONTWAIT)
        if r >= 0:
            return r
        if c_errno == EINTR:
            continue
        if c_errno != EAGAIN or not may_wait(st, flags):
            PyErr_SetFromErrno(OSError)
        sock_wait(st, PD_WRITE, deadline)


cdef int send_all(SockState st, const char *p, Py_ssize_t n, int flags) except -1:
    cdef int64_t deadline = NOT_YET
    cdef Py_ssize_t done = 0, r
    cdef waitopt o
    cdef int code
    share()
    if st.fd < 0:
        bad_descriptor()
    if st.pd == NULL or not pd_busy(st.pd, PD_WRITE):
        if st.pd != NULL:
            pd_try(st.pd, PD_WRITE)
        done = c_send(st.fd, p, n, flags | MSG_DONTWAIT)
        if done == n:
            return 0
        if done < 0:
            if c_errno != EINTR and (c_errno != EAGAIN or not may_wait(st, flags)):
                PyErr_SetFromErrno(OSError)
            done = 0
    if not may_wait(st, flags):
        while done < n:
            r = c_send(st.fd, p + done, n - done, flags | MSG_DONTWAIT)
            if r < 0:
                PyErr_SetFromErrno(OSError)
            done += r
        return 0
    sock_poller(st)
    o.deadline = deadline_of(st, PD_WRITE)
    o.done = NULL
    o.python = True
    while True:
        code = pd_turn(st.pd, PD_WRITE, &o)
        if code == GORT_OK:
            break
        raise_pause(code, st.timeout < 0)
    try:
        while True:
            if st.fd < 0:
                bad_descriptor()
            pd_try(st.pd, PD_WRITE)
            r = c_send(st.fd, p + done, n - done, flags | MSG_DONTWAIT)
            if r >= 0:
                done += r
                if done == n:
                    return 0
            elif c_errno == EAGAIN:
                code = pd_wait(st.pd, PD_WRITE, &o)
                if code != GORT_OK:
                    raise_pause(code, st.timeout < 0)
            elif c_errno != EINTR:
                PyErr_SetFromErrno(OSError)
    finally:
        pd_done(st.pd, PD_WRITE)


cdef inline bint may_wait(SockState st, int flags) noexcept:
    """Whether the stdlib would wait: the kernel never does for these."""
    return st.timeout != 0 and not flags & (MSG_OOB | MSG_ERRQUEUE) and not (flags & MSG_DONTWAIT and st.timeout < 0)


cdef object sock_send(object self, PyObject *const *args, Py_ssize_t nargs):
    return send_any(self, args, nargs, False)


cdef object sock_sendall(object self, PyObject *const *args, Py_ssize_t nargs):
    return send_any(self, args, nargs, True)


cdef object send_any(object self, PyObject *const *args, Py_ssize_t nargs, bint whole):
    cdef SockState st = state_of(self)
    cdef int flags = 0
    cdef int64_t deadline = NOT_YET
    cdef Py_buffer view
    if not 1 <= nargs <= 2:
        raise TypeError(f"{'sendall' if whole else 'send'} expected 1 or 2 arguments, got {nargs}")
    if nargs == 2:
        flags = as_int(args[1])
    data = <object>args[0]
    if type(data) is bytes:
        if whole:
            send_all(st, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), flags)
            return None
        return send_some(st, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), flags, &deadline)
    if isinstance(data, str):
        raise TypeError("a bytes-like object is required, not 'str'")
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if whole:
            send_all(st, <char *>view.buf, view.len, flags)
            return None
        return send_some(st, <char *>view.buf, view.len, flags, &deadline)
    finally:
        PyBuffer_Release(&view)


# ---- all the others --------------------------------------------------------------------
def _sock_retry(self, method, tuple args, int side, int flags):
    """Call a method of the stdlib's, told MSG_DONTWAIT, until it has something to say. May park.

    `flags` are the caller's own.
    """
    cdef SockState st = state_of(self)
    cdef waitopt o
    cdef int code
    cdef int64_t deadline, soon
    share()
    if st.pd == NULL or not may_wait(st, flags):
        try:
            return method(*args)
        except BlockingIOError:
            if not may_wait(st, flags):
                raise
    sock_poller(st)
    o.deadline = deadline = deadline_of(st, side)
    o.done = NULL
    o.python = True
    # The method may let go of the GIL: with the turn no edge is lost meanwhile.
    while True:
        code = pd_turn(st.pd, side, &o)
        if code == GORT_OK:
            break
        raise_pause(code, st.timeout < 0)
    try:
        while True:
            pd_try(st.pd, side)
            if side == PD_READ:
                pd_took(st.pd, False)
            try:
                return method(*args)
            except BlockingIOError:
                pass
            if side == PD_WRITE and st.family == AF_UNIX and st.type == SOCK_DGRAM:
                soon = gort_clock_ns() + FULL_NS  # nothing tells of room in an address's queue
                o.deadline = min(soon, deadline)
            code = pd_wait(st.pd, side, &o)
            if code != GORT_OK and not (code == GORT_ETIMEDOUT and o.deadline < deadline):
                raise_pause(code, st.timeout < 0)
    finally:
        pd_done(st.pd, side)


def _sock_connect(self, address):
    """As `connect_ex()`, but a time-out raises TimeoutError. `address` needs no look-up. May park."""
    cdef SockState st = state_of(self)
    cdef int64_t deadline = NOT_YET
    cdef bint switch = st.mode != 1
    cdef int e
    cdef socklen_t n
    cdef sockany peer
    if st.timeout == 0 or st.type == SOCK_DGRAM:
        return base_connect_ex(self, address)
    if switch:
        base_setblocking(self, False)
    try:
        e = base_connect_ex(self, address)
        while e == EINPROGRESS or e == EINTR or (e == EALREADY and st.timeout < 0):
            sock_wait(st, PD_WRITE, &deadline)
            if st.fd < 0:
                bad_descriptor()
            n = sizeof(e)
            if c_getsockopt(st.fd, SOL_SOCKET, SO_ERROR, &e, &n) < 0:
                e = c_errno
            if e == 0:
                n = sizeof(peer)
                if getpeername(st.fd, &peer.sa, &n) == 0:
                    return 0
                e = EINPROGRESS  # woken for nothing
    finally:
        if switch and st.fd >= 0 and st.mode != 1:
            base_setblocking(self, True)
            st.mode = 0
    if e == EAGAIN and st.family == AF_UNIX and st.timeout < 0:  # the listener's queue is full: nothing to poll for
        return blocking(base_connect_ex, self, address)
    return e


cdef object sock_accept_(object self, PyObject *unused):
    cdef SockState st = state_of(self)
    cdef int64_t deadline = NOT_YET
    cdef sockany a
    cdef socklen_t n
    cdef int fd
    share()
    while True:
        if st.fd < 0:
            bad_descriptor()
        if st.pd != NULL:
            pd_try(st.pd, PD_READ)
        fd = gort_accept(st.fd, &a, &n)
        if st.mode == 0:
            st.switched = True
        if fd >= 0:
            break
        if c_errno == EINTR:
            continue
        if c_errno != EAGAIN or st.timeout == 0:
            PyErr_SetFromErrno(OSError)
        sock_wait(st, PD_READ, &deadline)
    sock = socket_class.__new__(socket_class)
    try:
        socket_class.__init__(sock, st.family, st.type, st.proto, fd)
    except BaseException:
        if base_fileno(sock) < 0:
            c_close(fd)
        raise
    if st.family == AF_INET or st.family == AF_INET6 or st.family == AF_UNIX:
        return sock, gort_sock_name(&a, n)
    return sock, sock.getpeername()


# ---- timeouts ------------------------------------------------------------------------------
cdef int set_mode(object self, SockState st, int64_t ns) except -1:
    cdef int mode = ns >= 0 or st.forced
    if st.fd < 0 or st.mode != mode or (st.switched and not mode):
        base_setblocking(self, not mode)  # raises if it is closed
        st.mode = mode
        st.switched = False
    st.timeout = ns
    return 0


cdef object sock_settimeout(object self, object value):
    cdef SockState st = state_of(self)
    cdef double d = -1.0
    if value is None:
        set_mode(self, st, -1)
        return None
    if type(value) is float or type(value) is int:
        try:
            d = value
        except OverflowError:
            pass
    if not 0 <= d <= 1e9:  # rare; the stdlib's says what is wrong with it
        base_settimeout(self, value)
        d = base_gettimeout(self)
        st.mode = -1
    set_mode(self, st, min(<int64_t>ceil(d * 1e9), GORT_FOREVER - 1))


cdef object sock_gettimeout(object self, PyObject *unused):
    cdef PyObject *p = gort_sock_slot(<PyObject *>self)
    if p == NULL:
        return base_gettimeout(self)
    if (<SockState>p).timeout < 0:
        return None
    return (<SockState>p).timeout / 1e9


cdef object sock_setblocking(object self, object flag):
    set_mode(self, state_of(self), -1 if flag else 0)


cdef object sock_getblocking(object self, PyObject *unused):
    cdef PyObject *p = gort_sock_slot(<PyObject *>self)
    return p == NULL or (<SockState>p).timeout != 0

cdef extern from "<math.h>" nogil:
    double ceil(double x)


cdef void read_limits(SockState st) noexcept:
    st.limits[PD_READ] = gort_sock_limit(st.fd, SO_RCVTIMEO)
    st.limits[PD_WRITE] = gort_sock_limit(st.fd, SO_SNDTIMEO)


def _sock_limits(self):
    """Somebody has set SO_RCVTIMEO or SO_SNDTIMEO."""
    read_limits(state_of(self))


# ---- its beginning and its end -------------------------------------------------------------
def _sock_begin(self, bint given, bint forced):
    """After the stdlib's `__init__`. given: of a descriptor that was there before."""
    cdef SockState st = SockState.__new__(SockState)
    cdef PyObject *old
    timeout = base_gettimeout(self)
    st.fd = base_fileno(self)
    st.family = base_socket.family.__get__(self)
    st.type = base_socket.type.__get__(self)
    st.proto = base_socket.proto.__get__(self)
    st.mode = 1 if timeout is not None else -1 if given else 0
    st.timeout = -1 if timeout is None else <int64_t>(timeout * 1e9)
    st.forced = forced
    if forced or st.timeout > 0:
        base_setblocking(self, False)
        st.mode = 1
    if given:
        read_limits(st)
    old = gort_sock_slot(<PyObject *>self)
    Py_INCREF(st)
    gort_sock_put(<PyObject *>self, <PyObject *>st)
    Py_XDECREF(old)

cdef extern from *:
    """
    #define gort_sock_put(self, st) (gort_sock_slot(self) = (st))
    """
    void gort_sock_put(PyObject *self, PyObject *st)


cdef int sock_let_go(object self) except -1:
    """The descriptor is about to be closed, or somebody else's: who waits for it gets EBADF."""
    cdef PyObject *p = gort_sock_slot(<PyObject *>self)
    cdef SockState st
    if p == NULL:
        return 0
    st = <SockState>p
    if st.fd < 0:
        return 0
    st.fd = -1
    if st.pd != NULL:
        pd_close(st.pd)
    return 0


cdef object sock_real_close(object self, PyObject *unused):
    sock_let_go(self)
    base_close(self)


cdef object sock_del(object self, PyObject *unused):
    sock_let_go(self)
    base_del(self)  # warns, and closes it


def _sock_detach(self):
    """Before the stdlib's `detach()`: the descriptor is as the stdlib's would be."""
    cdef SockState st = state_of(self)
    if st.fd >= 0 and st.timeout < 0 and (st.forced or st.switched):
        base_setblocking(self, True)
    sock_let_go(self)


def _sock_force(self, bint on):
    """Whether the descriptor is in non-blocking mode whatever the timeout: TLS."""
    cdef SockState st = state_of(self)
    st.forced = on
    set_mode(self, st, st.timeout)


cdef PyMethodDef[12] SOCK_DEFS

cdef int sock_method(int i, object cls, const char *name, void *fn, int flags, const char *doc) except -1:
    cdef PyMethodDef *d = &SOCK_DEFS[i]
    d.ml_name = name
    d.ml_meth = fn
    d.ml_flags = flags
    d.ml_doc = doc
    setattr(cls, name.decode(), PyDescr_NewMethod(<PyTypeObject *>cls, d))
    return 0


def _sock_class(cls, base):
    """Complete gort.socket.socket, a subclass of `base`, _socket.socket."""
    global socket_class, base_socket, base_setblocking, base_settimeout, base_gettimeout, base_close, base_del
    global base_connect_ex, base_fileno, base_recv
    if socket_class is not None or gort_sock_find(cls.__dict__["_state"]) < 0:
        raise TypeError("gort.socket.socket is made once")
    del cls._state
    base_socket = base
    base_setblocking = base.setblocking
    base_settimeout = base.settimeout
    base_gettimeout = base.gettimeout
    base_close = base.close
    base_del = base.__del__
    base_connect_ex = base.connect_ex
    base_fileno = base.fileno
    base_recv = base.recv
    sock_method(0, cls, b"recv", <void *>sock_recv, METH_FASTCALL,
                b"As the stdlib's; waiting parks the goroutine alone.")
    sock_method(1, cls, b"recv_into", <void *>sock_recv_into, METH_FASTCALL | METH_KEYWORDS,
                b"As the stdlib's; waiting parks the goroutine alone.")
    sock_method(2, cls, b"send", <void *>sock_send, METH_FASTCALL,
                b"As the stdlib's; waiting parks the goroutine alone.")
    sock_method(3, cls, b"sendall", <void *>sock_sendall, METH_FASTCALL,
                b"As the stdlib's; waiting parks the goroutine alone. What two of them send does not mix.")
    sock_method(4, cls, b"accept", <void *>sock_accept_, METH_NOARGS,
                b"As the stdlib's; waiting parks the goroutine alone.")
    sock_method(5, cls, b"settimeout", <void *>sock_settimeout, METH_O, b"As the stdlib's.")
    sock_method(6, cls, b"gettimeout", <void *>sock_gettimeout, METH_NOARGS, b"As the stdlib's.")
    sock_method(7, cls, b"setblocking", <void *>sock_setblocking, METH_O, b"As the stdlib's.")
    sock_method(8, cls, b"getblocking", <void *>sock_getblocking, METH_NOARGS, b"As the stdlib's.")
    sock_method(9, cls, b"_real_close", <void *>sock_real_close, METH_NOARGS,
                b"Close it: who waits in a call on it gets OSError(EBADF).")
    sock_method(10, cls, b"__del__", <void *>sock_del, METH_NOARGS, b"Close it, with a ResourceWarning.")
    socket_class = cls


# ---- descriptors that are not ours ------------------------------------------------------------
@cython.final
cdef class Watch:
    """Waits for a descriptor that others own and use: a pipe, an epoll instance."""
    cdef gort_pd *pd
    cdef int fd
    cdef object __weakref__

    def __cinit__(self, int fd):
        self.fd = fd
        self.pd = pd_borrow(fd, False)
        if self.pd == NULL:
            raise MemoryError("gort: no memory for a wait")

    def __dealloc__(self):
        if self.pd != NULL:
            pd_close(self.pd)
            pd_free(self.pd)

    def wait(self, bint write, deadline=None):
        """Wait until it became readable (or writable, with `write`), or may have; False if `deadline` is first.

        What became so since the last wait counts. `deadline` is a result of `_deadline()`, or None.
        Raises OSError(EBADF) once it is closed, PermissionError for what is always ready (a file). Parks.
        """
        cdef waitopt o
        cdef int r
        o.deadline = GORT_FOREVER if deadline is None else deadline
        o.done = NULL
        o.python = True
        while True:
            r = pd_pause(self.pd, PD_WRITE if write else PD_READ, &o)
            if r == GORT_OK:
                return True
            if r == GORT_ETIMEDOUT:
                return False
            raise_pause(r, False)

    def close(self):
        """Forget the descriptor, before it is closed: who waits for it gets OSError(EBADF)."""
        pd_close(self.pd)


def _deadline(seconds):
    """The time `seconds` from now, for `Watch.wait()`."""
    return deadline_after(to_seconds(seconds, "timeout"))


def _time_left(deadline):
    """Seconds until a result of `_deadline()`; 0 if it has passed."""
    cdef int64_t left = <int64_t>deadline - gort_clock_ns()
    return left / 1e9 if left > 0 else 0.0


# ---- TLS ------------------------------------------------------------------------------------
cdef object class_want_read = None, class_want_write = None
cdef int64_t CROSS_NS = 20000000  # see Engine.go_on


@cython.final
cdef class Engine:
    """What `_ssl` makes for a socket, made to wait by parking: `SSLSocket._sslobj`.

    OpenSSL's object is used by one at a time (`lock`), which nobody holds while it waits
    for the network. A write that has begun must be gone on with before there is another
    (`writing`).
    """
    cdef object obj
    cdef object obj_read, obj_write, obj_pending # its methods
    cdef SockState st
    cdef gort_mutex lock, writing
    cdef int[2] users           # calls in progress that wait for this side
    cdef uint64_t owner         # of `lock`
    cdef bint ended             # a read has said so, and may without a look at the network
    cdef object __weakref__

    def __cinit__(self, obj, sock):
        self.obj = obj
        self.obj_read = obj.read
        self.obj_write = obj.write
        self.obj_pending = obj.pending
        self.st = state_of(sock)

    cdef int take(self, gort_mutex *m, int64_t deadline) except -1:
        cdef waitopt o
        cdef int r
        o.deadline = deadline
        o.done = NULL
        o.python = True
        while True:
            r = mutex_lock(m, True, &o)
            if r == GORT_OK:
                return 0
            raise_pause(r, False)

    cdef int go_on(self, int side, bint cross, int64_t *deadline) except -1:
        """Wait for the network.

        A write that wants to read, or the like, may be helped on by another's read, and must
        not keep an edge from it.
        """
        cdef SockState st = self.st
        cdef waitopt o
        cdef int r
        cdef int64_t soon
        sock_poller(st)
        o.deadline = deadline[0]
        o.done = NULL
        o.python = True
        if cross:
            soon = gort_clock_ns() + CROSS_NS
            if soon < o.deadline:
                o.deadline = soon
        r = pd_pause(st.pd, side, &o)
        if cross:
            if r == GORT_OK:
                pd_again(st.pd, side)
            elif r == GORT_ETIMEDOUT and o.deadline < deadline[0]:
                r = GORT_OK
        if r != GORT_OK:
            raise_pause(r, False)
        return 0

    cdef bint dry(self) except -1:
        """Whether a read would find nothing. A look costs a tenth of what OpenSSL and the exception would."""
        cdef SockState st = self.st
        cdef char c
        if st.pd == NULL or st.fd < 0 or st.timeout == 0 or self.ended or self.obj_pending():
            return False
        pd_try(st.pd, PD_READ)
        return c_recv(st.fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) < 0 and c_errno == EAGAIN

    cdef object run(self, object method, tuple args, int side, str what):
        cdef SockState st = self.st
        cdef int64_t deadline = deadline_in(st.timeout if st.timeout else -1)
        cdef int wants
        self.users[side] += 1
        try:
            if method is self.obj_read and self.dry():
                self.go_on(PD_READ, False, &deadline)
            while True:
                self.take(&self.lock, deadline)
                self.owner = whoami()
                try:
                    if st.fd < 0:
                        bad_descriptor()  # OpenSSL would use what has its number now
                    if st.pd != NULL:
                        pd_try(st.pd, side)
                        pd_took(st.pd, False)
                    result = method(*args)
                    if self.users[side] > 1 and st.pd != NULL:
                        pd_again(st.pd, side)
                    return result
                except class_want_read:
                    if st.timeout == 0:
                        raise
                    wants = PD_READ
                except class_want_write:
                    if st.timeout == 0:
                        raise
                    wants = PD_WRITE
                finally:
                    self.owner = 0
                    mutex_unlock(&self.lock)
                self.go_on(wants, wants != side, &deadline)
        except TimeoutError:
            raise TimeoutError(f"The {what} operation timed out") from None
        finally:
            self.users[side] -= 1

    def read(self, *args):
        """As `_ssl`'s. May park."""
        try:
            result = self.run(self.obj_read, args, PD_READ, "read")
        except (TimeoutError, class_want_read):
            raise
        except OSError:
            self.ended = True
            raise
        if not result:
            self.ended = True
        return result

    def write(self, data):
        """As `_ssl`'s. May park."""
        self.take(&self.writing, deadline_in(self.st.timeout if self.st.timeout else -1))
        try:
            return self.run(self.obj_write, (data,), PD_WRITE, "write")
        finally:
            mutex_unlock(&self.writing)

    def write_all(self, view):
        """Write all of a memoryview of bytes, which does not mix with what others write. May park."""
        cdef Py_ssize_t done = 0, n = len(view)
        self.take(&self.writing, deadline_in(self.st.timeout if self.st.timeout else -1))
        try:
            while done < n:
                done += self.run(self.obj_write, (view[done:] if done else view,), PD_WRITE, "write")
        finally:
            mutex_unlock(&self.writing)

    def apart(self, fn):
        """Call `fn()`, which closes the descriptor, while nobody is in OpenSSL with it. May park."""
        if self.owner == whoami():  # a callback of OpenSSL's
            fn()
            return
        self.take(&self.lock, GORT_FOREVER)
        try:
            fn()
        finally:
            mutex_unlock(&self.lock)

    def do_handshake(self):
        """As `_ssl`'s. May park."""
        return self.run(self.obj.do_handshake, (), PD_READ, "handshake")

    def shutdown(self):
        """As `_ssl`'s. May park."""
        return self.run(self.obj.shutdown, (), PD_READ, "shutdown")

    def __getattr__(self, name):
        return getattr(self.obj, name)

    def __setattr__(self, name, value):
        setattr(self.obj, name, value)


def _tls_errors(want_read, want_write):
    """`_ssl`'s classes, which gort does not import itself."""
    global class_want_read, class_want_write
    class_want_read = want_read
    class_want_write = want_write
