# time.pxi - gort.time: timers and tickers on csrc/timer.c, with Go 1.23's channel semantics.
#
# A timer's channel is one of f64 with room for one element that shows neither
# length nor capacity; a firing is sent by whoever runs the P's timers, without
# the GIL. `tseq` numbers the settings of a timer: stop() and reset() take a new
# number under the channel's lock and empty the buffer, so no firing of an
# earlier setting is ever received.

cdef extern from *:
    """
    /* Functions that after_func timers want run: a firing may not touch Python,
     * so it hands the timer to a service goroutine, which starts them. */
    typedef struct gort_functimer {
        timer t;
        void *handle;                     /* the Timer; a reference while pending */
        _Atomic int fired;
        struct gort_functimer *link;
    } gort_functimer;
    static gort_functimer *_Atomic gort_fired;
    static gort_chan *gort_fired_bell;    /* u8, capacity 1: wakes the service */
    static void gort_fire_func(void *arg, uint64_t seq, int64_t now)
    {
        gort_functimer *f = arg;
        uint64_t one = 1;
        (void)seq; (void)now;
        if (atomic_fetch_add(&f->fired, 1) == 0) {
            gort_functimer *head = atomic_load(&gort_fired);
            do f->link = head;
            while (!atomic_compare_exchange_weak(&gort_fired, &head, f));
        }
        chan_send(gort_fired_bell, one, false, &wait_forever_native);
    }
    static gort_functimer *gort_take_fired(void) { return atomic_exchange(&gort_fired, NULL); }
    static int gort_fired_times(gort_functimer *f) { return atomic_exchange(&f->fired, 0); }
    """
    ctypedef struct gort_functimer:
        timer t
        void *handle
        gort_functimer *link
    gort_chan *gort_fired_bell
    void gort_fire_func(void *arg, uint64_t seq, int64_t now) noexcept nogil
    gort_functimer *gort_take_fired()
    int gort_fired_times(gort_functimer *f)


def now():
    """Monotonic seconds, the scale of all timers' channels. In a synctest bubble: its clock's."""
    return gort_clock_ns() / 1e9


@cython.final
cdef class _TimerChan(Chan):
    """The channel of a timer; it owns the timer, so that the channel alone keeps it going."""
    cdef timer t
    cdef gort_bubble *b  # whose clock it runs on; a reference

    def __dealloc__(self):
        timer_del(&self.t)
        bubble_unref(self.b)


cdef _TimerChan timer_chan(double seconds, double period):
    cdef _TimerChan ch = _TimerChan.__new__(_TimerChan)
    Chan.__init__(ch, 1, dtype="f64")
    ch.c.timer = 1
    ch.t.id = -1
    if ch.c.bubble:
        ch.b = bubble_current()
        bubble_ref(ch.b)
    chan_arm(ch, seconds, period)
    return ch


cdef inline int64_t after_now(int64_t now, double seconds) noexcept:
    """A time for a timer; GORT_FOREVER - 1 is never."""
    if seconds >= MAX_SECONDS or <int64_t>(seconds * 1e9) >= GORT_FOREVER - now:
        return GORT_FOREVER - 1
    return now + <int64_t>(seconds * 1e9)


cdef int check_bubble(uint64_t id, object what) except -1:
    """The caller is in the bubble of this id; 0 is anybody's."""
    if id and bubble_foreign(id):
        raise RuntimeError(f"a {what} of a synctest bubble was used from outside of it")
    return 0


cdef int start_timer(timer *t, double seconds, bint real) except -1:
    """On the caller's clock, or on the real one."""
    cdef int64_t now = gort_now_ns() if real else gort_clock_ns()
    cdef timers *tm = timer_home(real)
    if timer_add(t, tm, after_now(now, seconds)) != 0:
        raise MemoryError("gort: no memory for a timer")
    if not real:
        timers_run(tm, now)  # due already: a fake clock need not stand still first
    return 0


cdef int chan_arm(_TimerChan ch, double seconds, double period) except -1:
    cdef timer *t = &ch.t
    t.period = 0
    if period > 0:
        t.period = max(1, <int64_t>(min(period, MAX_SECONDS) * 1e9))
    t.fn = timer_fire_chan
    t.arg = ch.c
    t.seq = ch.c.tseq
    t.kind = TK_CHAN
    start_timer(t, seconds, not ch.c.bubble)
    return 0


cdef bint chan_disarm(_TimerChan ch) except -1:
    """Take the timer back; whether it was pending. No value of it is received afterwards."""
    if ch is None:
        raise RuntimeError("this Ticker was not made by Ticker(d)")
    check_bubble(ch.c.bubble, "timer")
    return timer_stop_chan(&ch.t, ch.c)


cdef class Timer:
    """Sends the time on its channel `c` once, `d` seconds from now. Source: Go's time/sleep.go.

    The channel alone keeps it going. `c` is None for one made by `after_func()`.
    """
    cdef readonly Chan c
    cdef gort_functimer f           # after_func: this, and no channel
    cdef object fn, args
    cdef gort_bubble *b             # after_func: where fn runs, or NULL; a reference
    cdef object __weakref__

    def __dealloc__(self):
        bubble_unref(self.b)

    def __init__(self, d):
        cdef double seconds = to_seconds(d, "d")
        if self.c is not None or self.fn is not None:
            raise RuntimeError("a Timer is made once")
        self.c = timer_chan(seconds, 0)

    cdef int arm_func(self, double seconds) except -1:
        cdef timer *t = &self.f.t
        t.period = 0
        cdef bint fake = self.b != NULL and self.b.fake
        if fake:
            t.fn = <timerfn><void *>fire_in_bubble
        else:
            t.fn = gort_fire_func
        t.arg = &self.f
        t.kind = TK_FUNC
        self.f.handle = <void *>self
        Py_INCREF(self)  # the pending timer's; the firing takes it over
        try:
            start_timer(t, seconds, not fake)
        except MemoryError:
            Py_DECREF(self)
            raise
        return 0

    cdef bint disarm(self) except -1:
        if self.c is not None:
            return chan_disarm(<_TimerChan>self.c)
        if self.fn is None:
            raise RuntimeError("this Timer was not made by Timer(d) or after_func()")
        if self.b != NULL and self.b.fake:
            check_bubble(self.b.id, "timer")
        if not timer_del(&self.f.t):
            return False
        Py_DECREF(self)
        return True

    def stop(self):
        """Prevent it from firing; whether it was still pending. No stale value is received afterwards."""
        return bool(self.disarm())

    def reset(self, d):
        """Fire `d` seconds from now instead; whether it was still pending."""
        cdef double seconds = to_seconds(d, "d")
        cdef bint pending = self.disarm()
        if self.c is not None:
            chan_arm(<_TimerChan>self.c, seconds, 0)
        else:
            self.arm_func(seconds)
        return bool(pending)


cdef class Ticker:
    """Sends the time on its channel `c` every `d` seconds; drops ticks for slow receivers.

    ValueError if `d` is 0 or less. Source: Go's time/tick.go.
    """
    cdef readonly Chan c
    cdef object __weakref__

    def __init__(self, d):
        cdef double seconds = tick_period(d)
        if self.c is not None:
            raise RuntimeError("a Ticker is made once")
        self.c = timer_chan(seconds, seconds)

    def stop(self):
        """Send no more ticks; whether it was still ticking. Does not close the channel."""
        return bool(chan_disarm(<_TimerChan>self.c))

    def reset(self, d):
        """Tick every `d` seconds from now on; whether it was ticking."""
        cdef double seconds = tick_period(d)
        cdef bint pending = chan_disarm(<_TimerChan>self.c)
        chan_arm(<_TimerChan>self.c, seconds, seconds)
        return bool(pending)


cdef double tick_period(object d) except? -1.0:
    cdef double seconds = to_seconds(d, "d")
    if seconds <= 0:
        raise ValueError(f"d must be positive, not {d!r}")
    return seconds


def after(d):
    """A channel that carries the time, once, `d` seconds from now. Does not park."""
    return timer_chan(to_seconds(d, "d"), 0)


def tick(d):
    """The channel of a ticker that never stops; NIL if `d` is 0 or less."""
    cdef double seconds = to_seconds(d, "d")
    return NIL if seconds <= 0 else timer_chan(seconds, seconds)


def after_func(d, fn, /, *args):
    """Call `fn(*args)` in a goroutine of its own, `d` seconds from now; a Timer without channel.

    Its `stop()` and `reset()` work as Go's: `stop()` does not wait for a
    function that has begun.
    """
    cdef double seconds = to_seconds(d, "d")
    if not callable(fn):
        raise TypeError(f"after_func() needs a callable, not {fn!r}")
    cdef Timer t = func_timer(fn, args)
    t.arm_func(seconds)
    return t


cdef Timer func_timer(object fn, tuple args):
    """A timer that will start `fn(*args)`, on the caller's clock and in its bubble; not armed."""
    cdef Timer t = Timer.__new__(Timer)
    start_service()
    t.f.t.id = -1
    t.fn = fn
    t.args = args
    t.b = bubble_current()
    if t.b != NULL:
        bubble_ref(t.b)
    return t


cdef void fire_in_bubble(void *arg, uint64_t seq, int64_t now) noexcept:
    """The function of a timer on a fake clock: its root runs the timers, with the GIL."""
    cdef Timer t = <Timer>(<gort_functimer *>arg).handle
    try:
        spawn(t.fn, t.args, None, None, t.b)
    except BaseException as e:
        unraisable(e)
    Py_DECREF(t)  # the firing's


cdef bint service_running = False


cdef int start_service() except -1:
    global gort_fired_bell, service_running
    cdef Goroutine h
    if service_running:
        return 0
    if gort_fired_bell == NULL:
        gort_fired_bell = gort_chan_new(GORT_U8, 1)
        if gort_fired_bell == NULL:
            raise MemoryError()
    spawn_system(_serve_func_timers)
    service_running = True
    return 0


cdef int fork_service() except -1:
    """In a fork's child: it is not here; contexts may still need it."""
    global service_running
    if service_running:
        service_running = False
        gort_take_fired()  # those are the parent's
        start_service()
    return 0


def _serve_func_timers():
    """The service goroutine: start a goroutine for each function whose time has come."""
    cdef gort_functimer *f
    cdef gort_functimer *next
    cdef Timer t
    cdef uint64_t w
    cdef int n, r
    while True:
        r = chan_recv(gort_fired_bell, &w, True, &FOREVER)
        if r == GORT_EKILLED:
            raise_wait(r, None)
        f = gort_take_fired()
        while f != NULL:
            next = f.link
            n = gort_fired_times(f)
            t = <Timer>f.handle
            while n > 0:
                n -= 1
                try:
                    spawn(t.fn, t.args, None, None, t.b)
                except BaseException as e:
                    unraisable(e)
                Py_DECREF(t)  # the firing's
            t = None
            f = next
