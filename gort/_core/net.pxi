# net.pxi - connections, listeners and packet sockets; gort/net.py finds addresses and dials.
#
# Every call tries the system call first, with the GIL held, and parks only if it
# would block (csrc/netsock.c). No method is atomic against a handler of signals: one
# that raises in the middle of write() leaves a part written, as a timeout does.
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.number cimport PyNumber_AsSsize_t, PyNumber_Check
from libc.errno cimport EDESTADDRREQ
from libc.string cimport memcpy
from gort._core.netpoll cimport *

cdef extern from *:
    """
    static char gort_scratch[65536]; /* GIL: between a read and the copy of what it gave */
    """
    char gort_scratch[65536]
    int PyErr_ResourceWarning(object source, Py_ssize_t level, const char *format, ...) except -1
    int _PyBytes_Resize(PyObject **b, Py_ssize_t n) except -1
    PyObject *new_bytes "PyBytes_FromStringAndSize"(char *p, Py_ssize_t n) except NULL

cdef enum:
    SCRATCH = 65536     # bytes read at once where nothing is known of how many there are
    MANY = 16384        # a read that gave so many: the next one goes into the result itself
    MOST = 1 << 20      # bytes of one read


class ErrClosed(OSError):
    """A call on a connection or listener that this side has closed. Source: Go's net.ErrClosed."""

class IncompleteRead(EOFError):
    """The stream ended before as many bytes had come as were asked for; `partial` has those that did."""

    def __init__(self, partial, expected):
        super().__init__(f"the stream ended after {len(partial)} of {expected} bytes")
        self.partial = partial
        self.expected = expected

    def __reduce__(self):
        return IncompleteRead, (self.partial, self.expected)

for _cls in (ErrClosed, IncompleteRead):
    _cls.__module__ = "gort.net"


# ---- addresses -------------------------------------------------------------------
class Addr(str):
    """An address as text, as `listen()` and `dial()` take it: `host:port` or `unix:/path`."""

    __module__ = "gort.net"
    __slots__ = ("_raw",)

    @property
    def host(self):
        """The IP address, without brackets; the path of a Unix socket."""
        if self.startswith("unix:"):
            return self[5:]
        return self.rpartition(":")[0].strip("[]")

    @property
    def port(self):
        """The port; 0 for a Unix socket."""
        return 0 if self.startswith("unix:") else int(self.rpartition(":")[2])

    def __reduce__(self):
        return str, (str(self),)


cdef object addr_of(const sockany *a, socklen_t n):
    cdef char text[SOCK_NAME_MAX]
    cdef int k = sock_format(a, n, text, SOCK_NAME_MAX)
    addr = Addr(text[:k].decode("utf-8", "surrogateescape"))
    addr._raw = PyBytes_FromStringAndSize(<const char *>a, n)
    return addr


cdef socklen_t raw_addr(object addr, sockany *to) except 0:
    cdef bytes raw = addr._raw
    if not raw:
        raise OSError(EDESTADDRREQ, "the socket has no name to send to")
    memcpy(to, PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw))
    return <socklen_t>PyBytes_GET_SIZE(raw)


def _ip_addr(str host not None, str zone not None, int port):
    """The Addr of a literal IP address, or None if it is none."""
    cdef sockany a
    cdef socklen_t n = sock_parse_ip(host.encode(), zone.encode(), <uint16_t>port, &a)
    return addr_of(&a, n) if n else None


def _unix_addr(bytes path not None):
    """The Addr of a Unix socket's path, or None if it is too long."""
    cdef sockany a
    cdef socklen_t n = sock_parse_unix(path, len(path), &a)
    return addr_of(&a, n) if n else None


def _addr_family(addr):
    cdef sockany a
    raw_addr(addr, &a)
    return a.sa.sa_family


# ---- what all sockets share ------------------------------------------------------------
cdef Py_ssize_t to_size(object n, str name) except -1:
    """A number of bytes."""
    cdef Py_ssize_t k
    if isinstance(n, float) or not PyNumber_Check(n):
        raise TypeError(f"{name} must be an int, not {n!r}")
    try:
        k = PyNumber_AsSsize_t(n, OverflowError)
    except OverflowError:
        raise OverflowError(f"{name} is too large: {n!r}") from None
    if k < 0:
        raise ValueError(f"{name} must not be negative: {n!r}")
    return k


cdef class Socket:
    """What a descriptor of the network poller has, whatever it is for."""
    cdef gort_pd *pd
    cdef object _local, _remote     # Addr, once known
    cdef object path                # of the file that binding a Unix socket made
    cdef object __weakref__

    def __init__(self):
        raise TypeError(f"a {type(self).__name__} is not made directly; see gort.net")

    def __del__(self):
        if self.pd != NULL and not self.pd.closing:
            PyErr_ResourceWarning(self, 1, "unclosed %R", <PyObject *>self)

    def __dealloc__(self):
        if self.pd != NULL:
            pd_close(self.pd)
            pd_free(self.pd)

    cdef int adopt(self, int64_t fd, bint stream) except -1:
        """Take fd over, also if it fails."""
        self.pd = pd_open(<int>fd, stream)
        if self.pd == NULL:
            c_close(<int>fd)
            raise MemoryError("gort: no memory for a socket")
        return 0

    cdef object name(self, bint remote):
        cdef sockany a
        cdef socklen_t n = sizeof(a)
        cdef int r, fd
        kept = self._remote if remote else self._local
        if kept is not None or self.pd == NULL:
            return kept
        fd = pd_use(self.pd)
        if fd < 0:
            return None
        r = getpeername(fd, &a.sa, &n) if remote else getsockname(fd, &a.sa, &n)
        pd_unuse(self.pd)
        if r < 0:
            return None
        kept = addr_of(&a, n)
        if remote:
            self._remote = kept
        else:
            self._local = kept
        return kept

    @property
    def closed(self):
        """Whether this side has closed it."""
        return self.pd == NULL or self.pd.closing

    def fileno(self):
        """Its file descriptor, -1 once it is closed. It is in non-blocking mode."""
        if self.pd == NULL or self.pd.closing:
            return -1
        return self.pd.fd

    def close(self):
        """Close it: who waits in a call on it gets ErrClosed, and so do later calls. Does not park.

        Closing it again does nothing. The file of a Unix socket that was bound here is removed.
        """
        if self.pd == NULL or self.pd.closing:
            return
        self.name(False)  # both stay known
        self.name(True)
        path, self.path = self.path, None
        if path is not None:  # first, or it might be that of the next one at this address
            import os
            try:
                os.unlink(path)
            except OSError:
                pass
        pd_close(self.pd)

    def set_deadline(self, seconds):
        """After `seconds` from now every call that waits or would wait raises TimeoutError, until it is set anew.

        None: never. 0: at once, also for who waits now. Does not park.
        """
        self.deadline(3, seconds)

    def set_read_deadline(self, seconds):
        """As `set_deadline()`, of reads (and accepts) alone."""
        self.deadline(1, seconds)

    def set_write_deadline(self, seconds):
        """As `set_deadline()`, of writes alone."""
        self.deadline(2, seconds)

    cdef int deadline(self, int sides, object seconds) except -1:
        cdef int64_t when = GORT_FOREVER, now = gort_now_ns()
        cdef double d
        cdef int r
        self.made()
        if seconds is not None:
            d = to_seconds(seconds, "seconds")
            if d < MAX_SECONDS:
                when = now + <int64_t>(d * 1e9)
        r = pd_set_deadline(self.pd, sides, when)
        if r != GORT_OK:
            self.failed(r, None, -1)
        return 0

    cdef int failed(self, int64_t r, object ctx, Py_ssize_t written) except -1:
        """Raise what the result of a call means. Returns if the call is to be tried again."""
        if r <= NET_SYS or r == GORT_ECLOSED or r == GORT_ETIMEDOUT:
            raise_os(r, self.name(True) or self.name(False), written)
        if r == GORT_EAGAIN:
            try:
                not_in_time(ctx)
            except TimeoutError as e:
                if written >= 0 and type(e) is TimeoutError:
                    e.written = written
                raise
        raise_wait(<int>r, ctx)
        return 0

    cdef int made(self) except -1:
        if self.pd == NULL:
            raise TypeError(f"a {type(self).__name__} is not made directly; see gort.net")
        return 0

    cdef int in_use(self) except -1:
        """The descriptor, for a call that neither reads nor writes; pd_unuse() is owed."""
        self.made()
        cdef int fd = pd_use(self.pd)
        if fd < 0:
            raise_os(GORT_ECLOSED, self.name(True) or self.name(False), -1)
        return fd

    cdef int turn(self, int side, const waitopt *o, object ctx) except -1:
        cdef int r
        if self.pd == NULL:
            self.made()
        while True:
            r = pd_turn(self.pd, side, o)
            if r == GORT_OK:
                return 0
            self.failed(r, ctx, -1)

    cdef int option(self, int level, int name, int value) except -1:
        cdef int64_t r = sock_option(self.in_use(), level, name, value)
        pd_unuse(self.pd)
        if r:
            self.failed(r, None, -1)
        return 0

    def set_option(self, level, name, value):
        """Set an integer option of the socket, as `socket.setsockopt(level, name, value)`."""
        self.option(level, name, value)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def __repr__(self):
        if self.pd == NULL:
            return f"<{type(self).__name__} not made>"
        state = " closed" if self.pd.closing else f" fd={self.pd.fd}"
        ends = self.name(False) or "?"
        if self.name(True):
            ends += f" to {self._remote}"
        return f"<{type(self).__name__}{state} {ends}>"


cdef int raise_os(int64_t r, object addr, Py_ssize_t written) except -1:
    import errno, os
    if r == GORT_ECLOSED:
        e = ErrClosed(errno.EBADF, "use of closed network connection", addr)
    elif r == GORT_ETIMEDOUT:
        e = TimeoutError(errno.ETIMEDOUT, "timed out", addr)
    else:
        e = OSError(NET_SYS - r, os.strerror(NET_SYS - r), addr)
    if written >= 0:
        e.written = written
    raise e


cdef inline const waitopt *net_options(waitopt *o, object timeout, object ctx) except? NULL:
    """How to wait; NULL: not at all."""
    if timeout is None and ctx is None:
        return &FOREVER
    return o if wait_options(o, timeout, ctx) else NULL


# ---- streams ---------------------------------------------------------------------------
@cython.final
cdef class Conn(Socket):
    """A connection: TCP or Unix stream. Made by `dial()`, `Listener.accept()` and `pipe()`.

    One goroutine may read and another write at once; further readers or writers
    queue, so that what one `write()` sends stays together. TCP_NODELAY is on, and
    keep-alive probes are sent after 15 s of silence, as in Go. With `timeout` 0 a
    call does what it can without waiting.
    """
    cdef object back                # bytes: had come for a read_exactly() that failed
    cdef bint many                  # the last read gave a lot

    @property
    def local_addr(self):
        """This end's Addr."""
        return self.name(False)

    @property
    def remote_addr(self):
        """The other end's Addr; None if it was gone before anybody asked."""
        return self.name(True)

    def read(self, n, *, timeout=None, ctx=None):
        """Wait until there is something, and return it: at most `n` bytes, b"" at the end of the stream. May park."""
        cdef waitopt o
        cdef Py_ssize_t k = to_size(n, "n")
        cdef const waitopt *op = net_options(&o, timeout, ctx)
        self.turn(PD_READ, op, ctx)
        try:
            return self.read_some(k, op, ctx)
        finally:
            pd_done(self.pd, PD_READ)

    cdef object read_some(self, Py_ssize_t n, const waitopt *o, object ctx):
        cdef int64_t r
        cdef PyObject *b
        if n == 0:
            return b""
        if self.back is not None:
            data = self.back
            self.back = data[n:] if len(data) > n else None
            return data[:n]
        while True:
            if self.many and n > MANY:
                n = min(n, MOST)
                b = new_bytes(NULL, n)
                r = sock_read(self.pd, PyBytes_AS_STRING(<object>b), n, NULL)
                if r >= 0:
                    self.many = r >= MANY
                    _PyBytes_Resize(&b, r)
                    return gort_take(b)
                Py_DECREF(<object>b)  # not kept while it waits
                if r == GORT_EAGAIN and o != NULL:
                    r = pd_wait(self.pd, PD_READ, o)
            else:
                r = sock_read(self.pd, gort_scratch, min(n, SCRATCH), o)
                if r >= 0:
                    self.many = r >= MANY
                    return PyBytes_FromStringAndSize(gort_scratch, r)
            if r != GORT_OK:
                self.failed(r, ctx, -1)

    def read_into(self, buffer, *, timeout=None, ctx=None):
        """As `read()`, into a writable buffer that can be used again; how many bytes, 0 at the end. May park."""
        cdef waitopt o
        cdef Py_buffer view
        cdef int64_t r = 0
        cdef Py_ssize_t k
        cdef const waitopt *op = net_options(&o, timeout, ctx)
        PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
        try:
            self.turn(PD_READ, op, ctx)
            try:
                if view.len == 0:
                    return 0
                if self.back is not None:
                    data = self.read_some(view.len, op, ctx)
                    k = len(data)
                    memcpy(view.buf, PyBytes_AS_STRING(data), k)
                    return k
                while True:
                    r = sock_read(self.pd, view.buf, view.len, op)
                    if r >= 0:
                        return r
                    self.failed(r, ctx, -1)
            finally:
                pd_done(self.pd, PD_READ)
        finally:
            PyBuffer_Release(&view)

    def read_exactly(self, n, *, timeout=None, ctx=None):
        """Wait for `n` bytes, neither less nor more. May park.

        Raises IncompleteRead, an EOFError, if the stream ends before. Of a call that
        ends in another exception the bytes that had come are read by the next one.
        """
        cdef waitopt o
        cdef Py_ssize_t k = to_size(n, "n"), got = 0
        cdef int64_t r
        cdef bytes data = PyBytes_FromStringAndSize(NULL, k)
        cdef char *p = PyBytes_AS_STRING(data)
        cdef const waitopt *op = net_options(&o, timeout, ctx)
        self.turn(PD_READ, op, ctx)
        try:
            if self.back is not None and k:
                first = self.read_some(k, op, ctx)
                got = len(first)
                memcpy(p, PyBytes_AS_STRING(first), got)
            while got < k:
                r = sock_read(self.pd, p + got, k - got, op)
                if r > 0:
                    got += r
                elif r == 0:
                    partial, got = PyBytes_FromStringAndSize(p, got), 0
                    raise IncompleteRead(partial, k)
                else:
                    self.failed(r, ctx, -1)
            got = 0
            return data
        finally:
            if got:
                self.back = PyBytes_FromStringAndSize(p, got)
            pd_done(self.pd, PD_READ)

    def write(self, data, *, timeout=None, ctx=None):
        """Write all of `data`, a bytes-like object. May park.

        An OSError (also TimeoutError) that ends it has `written`, how many bytes went out before.
        """
        cdef waitopt o
        cdef Py_buffer view
        cdef const waitopt *op = net_options(&o, timeout, ctx)
        if type(data) is bytes:
            self.write_all(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), op, ctx)
            return
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self.write_all(<char *>view.buf, view.len, op, ctx)
        finally:
            PyBuffer_Release(&view)

    cdef int write_all(self, const char *p, Py_ssize_t n, const waitopt *o, object ctx) except -1:
        cdef size_t done = 0
        cdef int64_t r
        self.turn(PD_WRITE, o, ctx)
        try:
            while True:
                r = sock_write(self.pd, p, n, &done, o)
                if r == GORT_OK:
                    return 0
                self.failed(r, ctx, done)
        finally:
            pd_done(self.pd, PD_WRITE)

    def writev(self, buffers, *, timeout=None, ctx=None):
        """Write all of these bytes-like objects, in order and together, without joining them first. May park.

        See `write()` for errors.
        """
        cdef waitopt o
        cdef const waitopt *op = net_options(&o, timeout, ctx)
        cdef list pieces = list(buffers)
        cdef Py_ssize_t n = len(pieces), held = 0, i
        cdef size_t done = 0
        cdef int64_t r
        cdef Py_buffer *views = <Py_buffer *>PyMem_Malloc((n + 1) * sizeof(Py_buffer))
        cdef iovec *v = <iovec *>PyMem_Malloc((n + 1) * sizeof(iovec))
        try:
            if views == NULL or v == NULL:
                raise MemoryError()
            for i in range(n):
                PyObject_GetBuffer(pieces[i], &views[i], PyBUF_SIMPLE)
                held = i + 1
                v[i].iov_base = views[i].buf
                v[i].iov_len = views[i].len
            self.turn(PD_WRITE, op, ctx)
            try:
                while True:
                    r = sock_writev(self.pd, v, <int>n, &done, op)
                    if r == GORT_OK:
                        return
                    self.failed(r, ctx, done)
            finally:
                pd_done(self.pd, PD_WRITE)
        finally:
            for i in range(held):
                PyBuffer_Release(&views[i])
            PyMem_Free(views)
            PyMem_Free(v)

    def sendfile(self, file, offset=0, count=None, *, timeout=None, ctx=None):
        """Send a file from byte `offset` on, at most `count` bytes (None: to its end); how many were sent. May park.

        By sendfile(2); the file, an open one with a descriptor or that itself, keeps its position. See
        `write()` for errors.
        """
        cdef waitopt o
        cdef const waitopt *op = net_options(&o, timeout, ctx)
        cdef int64_t at = to_size(offset, "offset"), r
        cdef size_t left = 1 << 62 if count is None else to_size(count, "count"), sent = 0
        cdef int fd
        try:
            fd = file if isinstance(file, int) else file.fileno()
        except AttributeError:
            raise TypeError(f"file must be an open file or a descriptor, not {file!r}") from None
        cdef gort_pd *pd = self.pd
        self.turn(PD_WRITE, op, ctx)
        try:
            while left:
                with nogil:  # it may have to wait for the disk
                    r = sock_sendfile(pd, fd, at, left, NULL)
                if r == GORT_EAGAIN and op != NULL:
                    r = pd_wait(pd, PD_WRITE, op)
                    if r == GORT_OK:
                        continue
                if r == 0:
                    break
                if r > 0:
                    at += r
                    left -= r
                    sent += r
                else:
                    self.failed(r, ctx, sent)
            return sent
        finally:
            pd_done(pd, PD_WRITE)

    def close_write(self):
        """Tell the other end that no more comes; reading goes on. Does not park."""
        self.half(SHUT_WR)

    def close_read(self):
        """Read no more; b"" is read from now on. Does not park."""
        self.half(SHUT_RD)

    cdef int half(self, int how) except -1:
        cdef int r = shutdown(self.in_use(), how)
        e = c_errno if r < 0 else 0
        pd_unuse(self.pd)
        if e:
            raise_os(NET_SYS - e, self.name(True), -1)
        return 0

    def set_no_delay(self, on):
        """Send small pieces at once (True, the default), or gather them (Nagle's algorithm)."""
        self.option(6, 1, bool(on))  # IPPROTO_TCP, TCP_NODELAY

    def set_keep_alive(self, idle):
        """Probe the other end after `idle` seconds of silence and then as often; None: never. 15 by default."""
        cdef double d
        if idle is None:
            self.option(SOL_SOCKET, 9, 0)  # SO_KEEPALIVE
            return
        d = to_seconds(idle, "idle")
        if not 1 <= d <= 32767:
            raise ValueError(f"idle must be from 1 to 32767 seconds, not {idle!r}")
        self.option(SOL_SOCKET, 9, 1)
        self.option(6, 4, <int>d)  # TCP_KEEPIDLE
        self.option(6, 5, <int>d)  # TCP_KEEPINTVL

    def set_linger(self, seconds):
        """What close() does with what is not sent yet: None sends it in the background, 0 discards it (RST)."""
        cdef int[2] v
        cdef int r
        v[0] = seconds is not None
        v[1] = 0 if seconds is None else <int>to_seconds(seconds, "seconds")
        r = setsockopt(self.in_use(), SOL_SOCKET, SO_LINGER, v, sizeof(v))
        e = c_errno if r < 0 else 0
        pd_unuse(self.pd)
        if e:
            raise_os(NET_SYS - e, self.name(True), -1)


cdef Conn new_conn(int64_t fd, bint tcp):
    cdef Conn c = Conn.__new__(Conn)
    c.adopt(fd, tcp)
    return c


def pipe():
    """Two connections, each the other end of the other: a pair of Unix sockets. Does not park."""
    cdef int[2] fds
    import os
    if c_socketpair(AF_UNIX, SOCK_STREAM | 0o2004000, 0, fds) < 0:  # SOCK_NONBLOCK, SOCK_CLOEXEC
        e = c_errno
        raise OSError(e, os.strerror(e))
    try:
        a = new_conn(fds[0], False)
    except BaseException:
        c_close(fds[1])
        raise
    try:
        return a, new_conn(fds[1], False)
    except BaseException:
        a.close()
        raise


# ---- dialing and listening -----------------------------------------------------------------
cdef int64_t new_fd(int family, int type, object addr) except -1:
    cdef int64_t fd = sock_new(family, type, 0)
    if fd < 0:
        raise_os(fd, addr, -1)
    return fd


def _connect(addr, local, timeout, ctx):
    """Connect a stream to one address; `local`, if not None, is the Addr to come from. Parks."""
    cdef sockany to, frm
    cdef waitopt o
    cdef const waitopt *op = net_options(&o, timeout, ctx)
    cdef socklen_t n = raw_addr(addr, &to), nfrom
    cdef int64_t fd, r
    cdef bint tcp = to.sa.sa_family != AF_UNIX
    cdef Conn c = new_conn(new_fd(to.sa.sa_family, SOCK_STREAM, addr), tcp)
    try:
        fd = c.pd.fd
        r = sock_stream_options(<int>fd) if tcp else 0
        if r == 0 and local is not None:
            nfrom = raw_addr(local, &frm)
            r = sock_bind(<int>fd, &frm, nfrom)
        if r:
            raise_os(r, addr, -1)
        c.turn(PD_WRITE, &FOREVER, None)
        try:
            while True:
                r = sock_connect(c.pd, &to, n, op)
                if r == GORT_OK:
                    return c
                if r <= NET_SYS or r == GORT_ETIMEDOUT:
                    raise_os(r, addr, -1)
                c.failed(r, ctx, -1)
        finally:
            pd_done(c.pd, PD_WRITE)
    except BaseException:
        c.close()
        raise


def _listen(addr, int backlog, bint reuse_port):
    cdef sockany at
    cdef socklen_t n = raw_addr(addr, &at)
    cdef Listener ls = Listener.__new__(Listener)
    cdef int64_t r
    ls.tcp = at.sa.sa_family != AF_UNIX
    ls.adopt(new_fd(at.sa.sa_family, SOCK_STREAM, addr), False)
    r = sock_listen(ls.pd.fd, &at, n, backlog, reuse_port)
    if r:
        ls.close()
        raise_os(r, addr, -1)
    if not ls.tcp and addr.host and not addr.host.startswith("@"):
        ls.path = addr.host
    ls.name(False)
    return ls


def _adopt_listener(int fd, bint tcp):
    """The Listener of a descriptor that listens already and does not block; it belongs to the Listener then."""
    cdef Listener ls = Listener.__new__(Listener)
    cdef int64_t r = sock_stream_options(fd) if tcp else 0
    if r:
        raise_os(r, None, -1)
    ls.tcp = tcp
    ls.adopt(fd, False)
    ls.name(False)
    return ls


@cython.final
cdef class Listener(Socket):
    """Waits for connections. Made by `listen()`; iterating over it accepts until it is closed."""
    cdef bint tcp

    @property
    def addr(self):
        """Where it listens."""
        return self.name(False)

    def accept(self, *, timeout=None, ctx=None):
        """Wait for the next connection and return it, a Conn. May park.

        Without a descriptor to be had (EMFILE and the like) it tries again, at first
        after 5 ms, later after up to a second. Raises ErrClosed once it is closed.
        """
        cdef waitopt o
        cdef const waitopt *op = net_options(&o, timeout, ctx)
        cdef sockany a
        cdef socklen_t n = 0
        cdef int64_t r
        self.turn(PD_READ, op, ctx)
        try:
            while True:
                r = sock_accept(self.pd, &a, &n, op)
                if r >= 0:
                    break
                self.failed(r, ctx, -1)
        finally:
            pd_done(self.pd, PD_READ)
        c = new_conn(r, self.tcp)
        c._remote = addr_of(&a, n)
        return c

    def __iter__(self):
        return self

    def __next__(self):
        try:
            return self.accept()
        except ErrClosed:
            raise StopIteration from None


# ---- packets ---------------------------------------------------------------------------------
def _packet(addr, bint connect, bint reuse_port):
    """A packet socket bound or connected to addr."""
    cdef sockany a
    cdef socklen_t n = raw_addr(addr, &a)
    cdef PacketConn c = PacketConn.__new__(PacketConn)
    cdef int family = a.sa.sa_family
    cdef int64_t r = 0
    c.adopt(new_fd(family, SOCK_DGRAM, addr), False)
    if family != AF_UNIX:
        r = sock_option(c.pd.fd, SOL_SOCKET, 6, 1)  # SO_BROADCAST, as in Go
    if r == 0 and reuse_port:
        r = sock_option(c.pd.fd, SOL_SOCKET, 15, 1)  # SO_REUSEPORT
    if r == 0 and connect:
        c.turn(PD_WRITE, NULL, None)
        r = sock_connect(c.pd, &a, n, NULL)
        pd_done(c.pd, PD_WRITE)
        c.connected = True
    elif r == 0:
        if family == AF_INET6:
            sock_option(c.pd.fd, 41, 26, addr.host != "::")  # IPPROTO_IPV6, IPV6_V6ONLY
        r = sock_bind(c.pd.fd, &a, n)
    if r:
        c.close()
        raise_os(r, addr, -1)
    if not connect and family == AF_UNIX and addr.host and not addr.host.startswith("@"):
        c.path = addr.host
    return c


@cython.final
cdef class PacketConn(Socket):
    """Sends and receives packets: UDP or Unix. Made by `listen_packet()` and `dial_packet()`.

    One goroutine may receive and another send at once; further ones queue.
    """
    cdef bint connected

    @property
    def local_addr(self):
        """Its own Addr."""
        return self.name(False)

    @property
    def remote_addr(self):
        """Where `dial_packet()` connected it; else None."""
        return self.name(True) if self.connected else None

    def read_from(self, n, *, timeout=None, ctx=None):
        """Wait for a packet; (its first `n` bytes, the sender's Addr). What does not fit is lost. May park."""
        cdef waitopt o
        cdef const waitopt *op = net_options(&o, timeout, ctx)
        cdef Py_ssize_t k = min(to_size(n, "n"), <Py_ssize_t>SCRATCH)
        cdef sockany a
        cdef socklen_t len = 0
        data = self.receive(k, &a, &len, op, ctx)
        return data, addr_of(&a, len)

    def read(self, n, *, timeout=None, ctx=None):
        """Wait for a packet and return its first `n` bytes. May park."""
        cdef waitopt o
        cdef const waitopt *op = net_options(&o, timeout, ctx)
        cdef Py_ssize_t k = min(to_size(n, "n"), <Py_ssize_t>SCRATCH)
        cdef sockany a
        cdef socklen_t len = 0
        return self.receive(k, &a, &len, op, ctx)

    cdef object receive(self, Py_ssize_t k, sockany *a, socklen_t *len, const waitopt *op, object ctx):
        cdef int64_t r
        self.turn(PD_READ, op, ctx)
        try:
            while True:
                r = sock_recvfrom(self.pd, gort_scratch, k, a, len, op)
                if r >= 0:
                    return PyBytes_FromStringAndSize(gort_scratch, r)
                self.failed(r, ctx, -1)
        finally:
            pd_done(self.pd, PD_READ)

    def write_to(self, data, addr, *, timeout=None, ctx=None):
        """Send a packet to `addr`: an Addr, or text with a literal IP address. May park, but hardly does."""
        cdef waitopt o
        cdef const waitopt *op = net_options(&o, timeout, ctx)
        cdef sockany a
        cdef socklen_t len
        if getattr(addr, "_raw", None) is None:  # text, or an Addr made of text
            from gort.net import _literal
            addr = _literal(addr)
        len = raw_addr(addr, &a)
        if self.pd != NULL and a.sa.sa_family == AF_INET and self.is_inet6():
            addr = _ip_addr("::ffff:" + addr.host, "", addr.port)
            len = raw_addr(addr, &a)
        self.send(data, &a, len, op, ctx, addr)

    cdef bint is_inet6(self) except -1:
        local = self.name(False)
        return local is not None and _addr_family(local) == AF_INET6

    def write(self, data, *, timeout=None, ctx=None):
        """Send a packet to where `dial_packet()` connected it. May park, but hardly does."""
        cdef waitopt o
        self.send(data, NULL, 0, net_options(&o, timeout, ctx), ctx, None)

    cdef int send(self, object data, const sockany *a, socklen_t len, const waitopt *op, object ctx, object to) except -1:
        cdef Py_buffer view
        cdef int64_t r
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self.turn(PD_WRITE, op, ctx)
            try:
                while True:
                    r = sock_sendto(self.pd, view.buf, view.len, a, len, op)
                    if r >= 0:
                        return 0
                    if r <= NET_SYS and to is not None:
                        raise_os(r, to, -1)
                    self.failed(r, ctx, -1)
            finally:
                pd_done(self.pd, PD_WRITE)
        finally:
            PyBuffer_Release(&view)
