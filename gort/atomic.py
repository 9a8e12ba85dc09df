"""Atomic values, as in Go's `sync/atomic`."""

from gort._core._runtime import Bool, Int64, Ref

__all__ = ["Bool", "Int64", "Ref"]
