# bubble.pxi - what gort.testing is made of: goroutines apart from the others, with a
# fake clock, a seeded schedule, or both, on csrc/bubble.c.

cdef inline int point(const char *op) except -1:
    """Before an operation that other goroutines can see: a seeded schedule may let one of them run first. Parks."""
    if gort_nseeded:
        step(op)
        bubble_point()
    return 0


cdef int step(const char *op) except -1:
    """Note it; the end of a goroutine whose schedule takes too many."""
    cdef G *g = gort_curg()
    if g == NULL or g.bubble == NULL or not g.bubble.seeded:
        return 0
    if g.bubble.owner != NULL:
        (<Bubble>g.bubble.owner).note(g, op)
    if g.bubble.limit and g.bubble.steps > g.bubble.limit:
        raise GoroutineExit()
    return 0


cdef inline uint64_t fake_bubble() noexcept:
    """The id of the caller's bubble if that has a clock of its own, or 0."""
    cdef gort_bubble *b = bubble_current()
    return b.id if b != NULL and b.fake else 0


cdef gort_bubble *bubble_of(Goroutine h) noexcept:
    h.settle()
    return NULL if h._done else h.node.bubble if h.g == NULL else h.g.bubble


cdef bint is_member(Goroutine h) noexcept:
    """Is it in the caller's bubble?"""
    cdef gort_bubble *b = bubble_of(h)
    return b != NULL and b == bubble_current()


cdef bint caught(Goroutine h, Failure f) noexcept:
    """Does a bubble keep the failures of its goroutines? Then it has this one now."""
    cdef gort_bubble *b = bubble_of(h)
    if b == NULL or b.owner == NULL or (<Bubble>b.owner).failures is None:
        return False
    try:
        (<Bubble>b.owner).failures.append((h, f))
    except MemoryError:
        return False
    return True


@cython.final
cdef class Bubble:
    """Goroutines apart from the others. Source: Go's runtime/synctest.go.

    `fake`: they have a clock of their own, which `drive()` lets go on when all
    of them are durably blocked. `seed` (an int, or None): the schedule is drawn
    from it; `changes` (at most 8 step numbers) makes it one by priorities, with
    a change of priority at each of them (Burckhardt et al., "A Randomized
    Scheduler with Probabilistic Guarantees of Finding Bugs", 2010); else each
    choice is uniform. `catch`: failures nobody saw go to `failures`, not to the
    excepthook.
    """
    cdef gort_bubble *b
    cdef list failures              # (goroutine, Failure), or None
    cdef list notes                 # (goroutine, operation, file, line) of each step, or None
    cdef readonly bint idle         # drive() found all of them blocked for ever

    def __cinit__(self, *, bint fake, seed=None, changes=None, uint64_t limit=0, bint catch=False, bint trace=False):
        cdef int i
        self.b = bubble_new(fake, seed is not None, <uint64_t>(seed or 0),
                            BUBBLE_RANDOM if changes is None else BUBBLE_PCT)
        if self.b == NULL:
            raise MemoryError()
        self.b.owner = <void *>self
        self.b.limit = limit
        for i, step in enumerate((changes or ())[:BUBBLE_CHANGES]):
            self.b.change[i] = step
            self.b.nchange = i + 1
        self.failures = [] if catch else None
        self.notes = [] if trace else None

    def __dealloc__(self):
        if self.b != NULL:
            self.b.owner = NULL
            bubble_unref(self.b)

    @staticmethod
    def inside():
        """Whether the caller is in a bubble with a fake clock."""
        return fake_bubble() != 0

    @property
    def steps(self):
        """How many decisions its schedule has taken."""
        return self.b.steps

    @property
    def overrun(self):
        """Whether it took more steps than its limit allows."""
        return self.b.limit != 0 and self.b.steps > self.b.limit

    @property
    def trace(self):
        """(goroutine, operation, file, line) of each operation, in their order."""
        return self.notes

    cdef int note(self, G *g, const char *op) except -1:
        if self.notes is not None and g.handle != NULL:
            frame = pyctx_frame_or_none(g)  # None: a builtin is all that it runs
            where = ("", 0) if frame is None else (frame.f_code.co_filename, frame.f_lineno)
            self.notes.append((<Goroutine>g.handle, (<bytes>op).decode(), *where))
        return 0

    def go(self, fn, /, *args):
        """Start `fn(*args)` in it."""
        return spawn(fn, args, None, None, self.b)

    def members(self):
        """Its living goroutines, by id."""
        return [h for h in goroutines() if bubble_of(<Goroutine>h) == self.b]

    def unseen(self):
        """(goroutine, exception) of those that failed and that nobody joined; then they count as seen."""
        found = []
        for h, f in self.failures or ():
            if not (<Failure>f).seen:
                (<Failure>f).seen = True
                found.append((h, (<Failure>f).exc))
        return found

    def drive(self, Goroutine main not None, bint frozen=True, int64_t jumps=0x7FFFFFFFFFFFFFFF):
        """Be its clock until all its goroutines have ended; True if they have. Parks.

        False: they are blocked for ever, or its limit of steps is reached, or the
        clock has gone on `jumps` times. With `frozen` the clock stops once `main`
        has ended, as in Go.
        """
        cdef waitopt o
        cdef int r
        wait_options(&o, None, None)
        self.idle = False
        while True:
            r = bubble_wait_idle(self.b, &o)
            if r != GORT_OK:
                raise_wait(r, None)
            elif self.b.total == 0:
                return True
            elif self.overrun:
                return False
            elif bubble_wake_waiter(self.b):
                continue
            elif jumps <= 0 or (frozen and main._done) or not bubble_advance(self.b):
                self.idle = True
                return False
            jumps -= 1

    def unwind(self, Goroutine main not None):
        """End what lives in it by GoroutineExit, and see to it until all have ended. Parks.

        True if they have; False for some that catch GoroutineExit again and again.
        """
        put_off = None
        self.b.limit = 0
        for _ in range(100):
            for h in self.members():
                (<Goroutine>h).kill()
            try:
                if self.drive(main, False, 1000):
                    break
            except (GoroutineExit, KeyboardInterrupt) as e:
                put_off = e
        self.close()
        if put_off is not None:
            raise put_off
        return self.b.total == 0

    def close(self):
        """Drop the functions that its timers would still run."""
        cdef timer *t
        while True:
            t = bubble_any_func_timer(self.b)
            if t == NULL or not timer_del(t):
                return
            Py_DECREF(<Timer>(<gort_functimer *>t.arg).handle)

    def dump(self):
        """Its goroutines in Go's form."""
        return "\n".join([dump_one(<Goroutine>h) for h in self.members()])


def bubble_wait_others():
    """In a bubble: wait until all its other goroutines are durably blocked. Parks.

    RuntimeError outside of a bubble, and if another goroutine of it waits so already.
    """
    cdef waitopt o
    cdef int r
    if not fake_bubble():
        raise RuntimeError("synctest.wait() was called outside of a bubble")
    wait_options(&o, None, None)
    r = bubble_wait(bubble_current(), &o)
    if r == GORT_EINVAL:
        raise RuntimeError("synctest.wait() is in progress in another goroutine of the bubble")
    if r != GORT_OK:
        raise_wait(r, None)
