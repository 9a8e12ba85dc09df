# atomic.pxi - gort.atomic: Int64, Bool, Ref. Each operation is one step under the GIL.

cdef int64_t to_i64(object v) except? -1:
    if not isinstance(v, int):
        raise TypeError(f"an Int64 takes an int, not {v!r}")
    if not -0x8000000000000000 <= v <= 0x7FFFFFFFFFFFFFFF:
        raise OverflowError(f"{v!r} does not fit an Int64")
    return v


@cython.final
cdef class Int64:
    """A 64-bit integer with atomic operations; `add` wraps around, as in Go."""
    cdef int64_t v
    cdef object __weakref__

    def __init__(self, value=0):
        self.v = to_i64(value)

    def load(self):
        """The value."""
        point(b"Int64.load")
        return self.v

    def store(self, value):
        """Set it. OverflowError if it does not fit 64 bits."""
        point(b"Int64.store")
        self.v = to_i64(value)

    def swap(self, value):
        """Set it, and return the previous."""
        point(b"Int64.swap")
        cdef int64_t n = to_i64(value), old = self.v
        self.v = n
        return old

    def compare_and_swap(self, old, new):
        """Set `new` if it is `old`; whether it was."""
        point(b"Int64.compare_and_swap")
        cdef int64_t a = to_i64(old), b = to_i64(new)
        if self.v != a:
            return False
        self.v = b
        return True

    def add(self, delta=1):
        """Add `delta`, wrapping around, and return the new value."""
        point(b"Int64.add")
        cdef uint64_t d = <uint64_t>to_i64(delta)
        self.v = <int64_t>(<uint64_t>self.v + d)
        return self.v

    def __repr__(self):
        return f"Int64({self.v})"


@cython.final
cdef class Bool:
    """A truth value with atomic operations."""
    cdef bint v
    cdef object __weakref__

    def __init__(self, value=False):
        self.v = bool(value)

    def load(self):
        """The value."""
        point(b"Bool.load")
        return self.v

    def store(self, value):
        """Set it to the truth of `value`."""
        point(b"Bool.store")
        self.v = bool(value)

    def swap(self, value):
        """Set it, and return the previous."""
        point(b"Bool.swap")
        cdef bint n = bool(value), old = self.v
        self.v = n
        return old

    def compare_and_swap(self, old, new):
        """Set `new` if it is `old`; whether it was."""
        point(b"Bool.compare_and_swap")
        cdef bint a = bool(old), b = bool(new)
        if self.v != a:
            return False
        self.v = b
        return True

    def __repr__(self):
        return f"Bool({self.v})"


@cython.final
cdef class Ref:
    """A reference to any object with atomic operations; compared by identity."""
    cdef object v
    cdef object __weakref__

    def __init__(self, value=None):
        self.v = value

    @classmethod
    def __class_getitem__(cls, item):
        return _types.GenericAlias(cls, item)

    def load(self):
        """The object."""
        point(b"Ref.load")
        return self.v

    def store(self, value):
        """Set it."""
        point(b"Ref.store")
        self.v = value

    def swap(self, value):
        """Set it, and return the previous."""
        point(b"Ref.swap")
        old = self.v
        self.v = value
        return old

    def compare_and_swap(self, old, new):
        """Set `new` if it is the very object `old`; whether it was."""
        point(b"Ref.compare_and_swap")
        if self.v is not old:
            return False
        self.v = new
        return True

    def __repr__(self):
        return f"Ref({self.v!r})"
