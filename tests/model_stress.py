"""What the stress tests share: the scale, counting, and stopping at the first failure."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import pytest

import gort

SCALE = float(os.environ.get("GORT_STRESS_SCALE", "1"))

stress = pytest.mark.stress


def scaled(n: int, least: int = 1) -> int:
    """`n` at scale 1; never less than `least`."""
    return max(least, int(n * SCALE))


def share(n: int, parts: int) -> list[range]:
    """The numbers 0..n-1 in `parts` consecutive ranges."""
    return [range(n * i // parts, n * (i + 1) // parts) for i in range(parts)]


def exactly_once(got: Iterable[int], n: int) -> None:
    """Fail unless `got` has each of 0..n-1 once: name the lost and the doubled."""
    seen = bytearray(n)
    doubled = []
    for v in got:
        if seen[v]:
            doubled.append(v)
        seen[v] = 1
    lost = [i for i, flag in enumerate(seen) if not flag]
    assert not lost and not doubled, f"lost {len(lost)}: {lost[:10]}, doubled {len(doubled)}: {doubled[:10]}"


def in_senders_order(got: Iterable[int], parts: list[range]) -> None:
    """Fail unless the values of each sender come in the order it sent them."""
    last = {id(part): -1 for part in parts}
    where = sorted((part.start, part.stop, id(part)) for part in parts)
    for v in got:
        key = next(key for start, stop, key in where if start <= v < stop)
        assert v > last[key], f"{v} after {last[key]}"
        last[key] = v


def join_all(workers: list[Any]) -> list[Any]:
    """The results of goroutines and of plain threads."""
    return [w.join() if isinstance(w, gort.Goroutine) else w.result() for w in workers]
