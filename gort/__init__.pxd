# gort/__init__.pxd - gort.h for Cython: `cimport gort`, or `from gort cimport gort_chan_send, ...`.
#
# gort.h says what each function does. Compile with include_dirs=[gort.get_include()],
# and call gort.native.load_global() before the compiled module is imported: it
# finds the functions in gort's own extension module. All of them may be called
# without the GIL; one that waits should be, but in a native goroutine, which
# never has it. A goroutine's function is a `void f(void *) noexcept nogil`, and
# is started with gort_go(f, arg) or gort.native.go(<uintptr_t>&f, <uintptr_t>arg).
from libc.stdint cimport int64_t, uint64_t

cdef extern from "gort.h" nogil:
    # results
    enum:
        GORT_OK
        GORT_ECLOSED
        GORT_EAGAIN
        GORT_ETIMEDOUT
        GORT_ENOMEM
        GORT_EINVAL
        GORT_EKILLED
        GORT_EDEADLOCK
        GORT_EINTR
        GORT_ECTX
    const int64_t GORT_FOREVER

    # goroutines
    int gort_go(void (*fn)(void *) noexcept nogil, void *arg)
    void gort_yield()
    uint64_t gort_goid()

    # time
    int64_t gort_now_ns()
    int gort_sleep_ns(int64_t ns)

    # channels
    ctypedef struct gort_chan:
        pass
    enum:
        GORT_OBJ
        GORT_I64
        GORT_F64
        GORT_U8
        GORT_PTR
    gort_chan *gort_chan_new(int dtype, size_t cap)
    void gort_chan_ref(gort_chan *c)
    void gort_chan_unref(gort_chan *c)
    size_t gort_chan_elemsize(const gort_chan *c)
    size_t gort_chan_len(gort_chan *c)
    size_t gort_chan_cap(const gort_chan *c)
    int gort_chan_send(gort_chan *c, const void *elem)
    int gort_chan_recv(gort_chan *c, void *elem)
    int gort_chan_send_timeout(gort_chan *c, const void *elem, int64_t timeout_ns)
    int gort_chan_recv_timeout(gort_chan *c, void *elem, int64_t timeout_ns)
    int gort_chan_try_send(gort_chan *c, const void *elem)
    int gort_chan_try_recv(gort_chan *c, void *elem)
    int gort_chan_close(gort_chan *c)

    # select
    enum:
        GORT_RECV
        GORT_SEND
    ctypedef struct gort_case:
        gort_chan *c
        int dir
        void *elem
        int ok
    int gort_select(gort_case *cases, int n, int64_t timeout_ns)

    # wait groups
    ctypedef struct gort_wg:
        pass
    gort_wg *gort_wg_new()
    void gort_wg_free(gort_wg *wg)
    int gort_wg_add(gort_wg *wg, int64_t n)
    int gort_wg_done(gort_wg *wg)
    int gort_wg_wait(gort_wg *wg)

    # runtime
    int gort_maxprocs(int n)
    int64_t gort_num_native()
