"""The stdlib's `selectors`, over `gort.polling`. Source: Python's selectors."""

from __future__ import annotations

import selectors as _stdlib
from selectors import *  # noqa: F403

from gort import polling as _polling

__all__ = [name for name in vars(_stdlib) if not name.startswith("_") and name[0].isupper()]


class SelectSelector(_stdlib.SelectSelector):  # type: ignore[no-redef]
    """The stdlib's selector on `gort.polling.select`."""

    _select = staticmethod(_polling.select)


class PollSelector(_stdlib.PollSelector):  # type: ignore[no-redef]
    """The stdlib's selector on `gort.polling.poll`."""

    _selector_cls = _polling.poll


class EpollSelector(_stdlib.EpollSelector):  # type: ignore[no-redef]
    """The stdlib's selector on `gort.polling.epoll`."""

    _selector_cls = _polling.epoll


DefaultSelector = EpollSelector  # type: ignore[misc,assignment]

_PATCHES: dict[str, dict[str, object]] = {}


def _patched() -> None:
    """In place, so that whoever has one of the stdlib's classes by now waits by parking too."""
    _stdlib.SelectSelector._select = staticmethod(_polling.select)  # type: ignore[attr-defined]
    _stdlib.PollSelector._selector_cls = _polling.poll  # type: ignore[attr-defined]
    _stdlib.EpollSelector._selector_cls = _polling.epoll  # type: ignore[attr-defined]
