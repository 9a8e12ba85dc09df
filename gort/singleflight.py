"""One call of a function for all who ask for the same thing at the same time, as in Go's x/sync/singleflight.

pages: singleflight.Group[str, bytes] = singleflight.Group()
page, shared = pages.do(url, lambda: download(url))
"""

from gort._core._runtime import Result
from gort._core._runtime import SingleFlight as Group

__all__ = ["Group", "Result"]
