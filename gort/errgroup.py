"""Groups of goroutines that work on one task and share its first error, as in Go's x/sync/errgroup.

    with errgroup.Group(ctx, limit=10) as group:
        for url in urls:
            group.go(fetch, group.ctx, url)

The first `fetch` that raises cancels `group.ctx`; its exception comes out of the block when all have ended.
"""

from gort._core._runtime import ErrGroup as Group

__all__ = ["Group"]
