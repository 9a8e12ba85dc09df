# rate.pxi - gort.rate: the token bucket of x/time/rate. The GIL guards its state.
#
# Times are whole nanoseconds on the scale of now(), as Go's are: seconds in a
# float would grant the tenth token of a second now and then a hair too late.
# Each call asks now() and sleep() anew, so a limiter follows a fake clock.

cdef extern from "<math.h>" nogil:
    double INFINITY
    long long llround(double x)

cdef int64_t NEVER = 1 << 62            # some 146 years; Go's InfDuration
cdef int64_t REFUSED = -NEVER
cdef double MAX_MOMENT = 4.5e9          # seconds; below it differences cannot overflow


cdef double to_number(object value, str name, str what) except? -1.0:
    """A real number but NaN; one too large for a float is infinite."""
    cdef double d
    if isinstance(value, (str, bytes)) or not (hasattr(value, "__float__") or hasattr(value, "__index__")):
        raise TypeError(f"{name} must be {what}, not {value!r}")
    try:
        d = float(value)
    except OverflowError:
        d = INFINITY if value > 0 else -INFINITY
    if d != d:
        raise ValueError(f"{name} must be {what}, not {value!r}")
    return d


cdef int64_t moment(object at) except? -1:
    """`at`, a time on the scale of now(), in nanoseconds; the present for None."""
    cdef double t = now() if at is None else to_number(at, "at", "a time in seconds, as now() tells it")
    if not -MAX_MOMENT <= t <= MAX_MOMENT:
        raise ValueError(f"at must be a time in seconds, as now() tells it, not {at!r}")
    return llround(t * 1e9)


cdef double to_limit(object value) except? -1.0:
    cdef double d = to_number(value, "limit", "a number of tokens per second")
    if d < 0:
        raise ValueError(f"limit must not be negative, not {value!r}")
    return d


cdef int64_t tokens_take(double tokens, double limit) noexcept:
    """How long `tokens` take to come, in nanoseconds."""
    cdef double ns
    if limit <= 0:
        return NEVER if tokens > 0 else -NEVER
    ns = tokens / limit * 1e9
    return NEVER if ns >= NEVER else -NEVER if ns <= -NEVER else <int64_t>ns


cdef double tokens_of(int64_t ns, double limit) noexcept:
    """How many tokens come in `ns` nanoseconds."""
    return ns / 1e9 * limit if limit > 0 else 0.0


@cython.final
cdef class Limiter:
    """Limiter(limit_per_second, burst): lets events happen at that rate, and `burst` of them at once.

    A token bucket of size `burst` (an int), full at the start, refilled with
    `limit_per_second` tokens a second; `math.inf` is no limit, whatever the
    burst, and 0 refills nothing. An event takes one token, `n` events take `n`.
    `at=` is a time on the scale of `gort.time.now()` to be taken for the
    present. Source: Go's x/time/rate.
    """
    cdef double rate
    cdef int64_t size
    cdef double tokens_then         # at `last`; negative if some are reserved in advance
    cdef int64_t last               # when tokens_then was right
    cdef int64_t last_event         # the latest time of an event, past or to come
    cdef object __weakref__

    def __cinit__(self, limit_per_second, burst):
        self.rate = to_limit(limit_per_second)
        self.size = weight(burst, "burst")
        self.tokens_then = <double>self.size

    cdef double tokens_at(self, int64_t t) noexcept:
        cdef double n = self.tokens_then
        if t > self.last:
            n += tokens_of(t - self.last, self.rate)
        return min(n, <double>self.size)

    cdef int64_t take(self, int64_t t, int64_t n, int64_t longest) noexcept:
        """Reserve `n` tokens at `t`; when they may be used, or REFUSED if that is over `longest` away."""
        cdef double tokens
        cdef int64_t wait = 0
        if self.rate == INFINITY:
            return t
        tokens = self.tokens_at(t) - n
        if tokens < 0:
            wait = tokens_take(-tokens, self.rate)
        if n > self.size or wait > longest:
            return REFUSED
        self.last = t
        self.tokens_then = tokens
        self.last_event = NEVER if wait >= NEVER - t else t + wait
        return self.last_event

    cdef void give_back(self, int64_t t, int64_t n, int64_t act, double rate) noexcept:
        """At `t`, undo that `n` tokens were reserved for `act` at this rate.

        What was reserved after them has moved its own time by theirs; so many
        tokens do not come back.
        """
        cdef double back, tokens
        cdef int64_t before
        if self.rate == INFINITY or n == 0 or act < t:
            return
        back = n - tokens_of(self.last_event - act, rate)
        if back <= 0:
            return
        tokens = self.tokens_at(t) + back
        self.tokens_then = min(tokens, <double>self.size)
        self.last = t
        if -2 <= act - self.last_event <= 2:
            # It was the last. Go asks whether they are equal, but `before` is the time of
            # the one before but for rounding: the second to be cancelled would not be.
            before = act + tokens_take(-<double>n, rate)
            if before >= t:
                self.last_event = before

    def allow(self, n=1, *, at=None):
        """Take `n` tokens if they are there; whether they were. Does not park."""
        return self.take(moment(at), weight(n, "n"), 0) != REFUSED

    def reserve(self, n=1, *, at=None):
        """Take `n` tokens, of those to come if need be; a Reservation says from when on they may be used.

        It is not `ok`, and nothing is taken, if `n` is more than the burst. Does not park.
        """
        cdef Reservation r = Reservation.__new__(Reservation)
        r.n = weight(n, "n")
        r.act = self.take(moment(at), r.n, NEVER)
        r.ok = r.act != REFUSED
        r.limiter = self
        r.rate = self.rate
        return r

    def wait(self, n=1, ctx=None, *, timeout=None):
        """Take `n` tokens; wait until they may be used. Parks.

        Raises ValueError if `n` is more than the burst, and DeadlineExceeded (a
        TimeoutError) at once, having taken nothing, if that would take longer
        than `timeout` seconds or past the deadline of `ctx`. If the wait is cut
        short, by the context or by `kill()`, the tokens are given back.
        """
        cdef int64_t k = weight(n, "n"), t, act, longest = NEVER
        cdef double rate = self.rate
        if k > self.size and rate != INFINITY:
            raise ValueError(f"n must be at most the burst of {self.size}, not {n!r}")
        if timeout is not None:
            longest = <int64_t>(min(to_seconds(timeout, "timeout"), MAX_MOMENT) * 1e9)
        t = moment(None)
        if ctx is not None:
            longest = min(longest, time_left(ctx, t))
        act = self.take(t, k, longest)
        if act == REFUSED:
            raise class_deadline(f"{n} tokens would take longer to come than there is time")
        if act <= t:
            return
        try:
            sleep((act - t) / 1e9 if act < NEVER else INFINITY, ctx=ctx)
        except BaseException:
            self.give_back(moment(None), k, act, rate)
            raise

    def tokens(self, *, at=None):
        """How many tokens there are; negative if some are reserved in advance."""
        return self.tokens_at(moment(at))

    @property
    def limit(self):
        """Tokens per second."""
        return self.rate

    @property
    def burst(self):
        """The size of the bucket: how many tokens one call may take."""
        return self.size

    def set_limit(self, limit_per_second, *, at=None):
        """Refill at another rate from now on. Reservations made before keep their times."""
        cdef double rate = to_limit(limit_per_second)
        cdef int64_t t = moment(at)
        self.tokens_then = self.tokens_at(t)
        self.last = t
        self.rate = rate

    def set_burst(self, burst, *, at=None):
        """Change the size of the bucket. Reservations made before keep their times."""
        cdef int64_t size = weight(burst, "burst")
        cdef int64_t t = moment(at)
        self.tokens_then = self.tokens_at(t)
        self.last = t
        self.size = size

    def __repr__(self):
        return f"<Limiter {self.rate:g}/s burst {self.size}>"


cdef int64_t time_left(object ctx, int64_t t) except? -1:
    """Until the deadline of `ctx`; raises its error if it has ended."""
    cdef waitopt o
    cdef double when
    wait_options(&o, None, ctx)  # a TypeError if it is no context
    error = to_raise(ctx)
    if error is not None:
        raise error
    deadline = getattr(ctx, "deadline", None)
    at = None if deadline is None else deadline()
    if at is None:
        return NEVER
    when = to_number(at, "ctx.deadline()", "a time in seconds, as now() tells it")
    return llround(max(-MAX_MOMENT, min(when, MAX_MOMENT)) * 1e9) - t


@cython.final
cdef class Reservation:
    """Tokens taken from a Limiter for use after a delay; `Limiter.reserve()` makes it."""
    cdef readonly bint ok           # whether they are reserved
    cdef Limiter limiter
    cdef int64_t n, act
    cdef double rate                # of the limiter then

    def __init__(self):
        raise TypeError("a Reservation is made by Limiter.reserve()")

    cdef double after(self, int64_t t) noexcept:
        if not self.ok or self.act >= NEVER:
            return INFINITY
        return max(self.act - t, 0) / 1e9

    @property
    def delay(self):
        """Seconds from now until they may be used; `math.inf` if it is not `ok`."""
        return self.after(moment(None))

    def delay_from(self, at):
        """`delay` as seen at `at`, a time on the scale of `gort.time.now()`."""
        return self.after(moment(check_at(at)))

    def cancel(self):
        """Do not use them: give back what later reservations do not count on already."""
        if self.ok:
            self.limiter.give_back(moment(None), self.n, self.act, self.rate)

    def cancel_at(self, at):
        """`cancel()` at `at`, a time on the scale of `gort.time.now()`."""
        cdef int64_t t = moment(check_at(at))
        if self.ok:
            self.limiter.give_back(t, self.n, self.act, self.rate)

    def __repr__(self):
        return f"<Reservation of {self.n}, {f'delay {self.delay:.6g}' if self.ok else 'not ok'}>"


cdef object check_at(object at):
    if at is None:
        raise TypeError("at must be a time in seconds, as now() tells it, not None")
    return at
