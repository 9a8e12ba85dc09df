"""no_leaks(): no goroutine is left behind."""

from collections.abc import Iterator
from contextlib import contextmanager


class LeakError(AssertionError):
    """Goroutines are left; the text has their stacks."""


@contextmanager
def no_leaks() -> Iterator[None]:
    """placeholder"""
    yield
