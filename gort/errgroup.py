"""Groups of goroutines that work on one task and share its first error, as in Go's x/sync/errgroup."""

from gort._core._runtime import ErrGroup as Group

__all__ = ["Group"]
