"""A ring of goroutines that pass a token round: what does a hop cost, and a goroutine?"""

import sys
import time

import gort


def member(left: gort.Chan[int], right: gort.Chan[int]) -> None:
    """Pass on every token, counted up by one; end, and tell the next, when the ring is closed."""
    for token in left:
        right.send(token + 1)
    right.close()


def ring(size: int) -> tuple[gort.Chan[int], gort.Chan[int]]:
    """Start the goroutines; what is sent into the first channel comes out of the last."""
    first = left = gort.Chan[int]()
    for _ in range(size):
        right = gort.Chan[int]()
        gort.go(member, left, right)
        left = right
    return first, left


def main(size: int = 100_000, laps: int = 10) -> None:
    start = time.perf_counter()
    first, last = ring(size)
    print(f"{gort.num_goroutine():,} goroutines after {time.perf_counter() - start:.2f} s")
    start = time.perf_counter()
    for _ in range(laps):
        first.send(0)
        assert last.recv() == size
    hop = (time.perf_counter() - start) / (laps * size)
    print(f"{laps} laps, {hop * 1e9:.0f} ns a hop")
    first.close()
    last.recv_ok()  # returns when the close has come round


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
