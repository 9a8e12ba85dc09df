"""A pipeline in three stages with a fan-out in the middle, each stage goroutines between channels.

A stage ends when its inbox is closed, and closes its outbox when its last
goroutine has ended, so the whole drains from the source to the end.
"""

from collections.abc import Iterable

import gort
from gort import sync


def source(numbers: Iterable[int]) -> gort.Chan[int]:
    out = gort.Chan[int]()

    def emit() -> None:
        for n in numbers:
            out.send(n)
        out.close()

    gort.go(emit)
    return out


def squares(inbox: gort.Chan[int], workers: int) -> gort.Chan[int]:
    out = gort.Chan[int](workers)
    group = sync.WaitGroup()

    def work() -> None:
        for n in inbox:
            out.send(n * n)

    def close_after_all() -> None:
        group.wait()
        out.close()

    for _ in range(workers):
        group.go(work)
    gort.go(close_after_all)
    return out


def main() -> None:
    total = sum(squares(source(range(1000)), workers=4))
    print(f"the first 1000 squares sum up to {total}")


if __name__ == "__main__":
    main()
