"""Three ways to stop waiting: a timeout in select, a timer channel among the cases, and a done channel."""

import gort
from gort import time


def fetch(seconds: float, answer: str) -> gort.Chan[str]:
    """A channel that gets the answer after a while; it has room, so nobody has to take it."""
    out = gort.Chan[str](1)

    def work() -> None:
        gort.sleep(seconds)
        out.send(answer)

    gort.go(work)
    return out


def main() -> None:
    # The first of two answers.
    index, answer, _ = gort.select(fetch(0.05, "tortoise"), fetch(0.01, "hare"))
    print(f"case {index} came first: {answer}")

    # No answer in time.
    try:
        gort.select(fetch(0.2, "too late"), timeout=0.02)
    except TimeoutError:
        print("gave up after 20 ms")

    # One deadline over many waits: the timer is a case like any other.
    ticker, deadline = time.Ticker(0.01), time.after(0.055)
    ticks = 0
    while gort.select(ticker.c, deadline)[0] == 0:
        ticks += 1
    ticker.stop()
    print(f"{ticks} ticks before the deadline")

    # Closing a channel tells everybody who waits on it.
    done = gort.Chan[None]()
    waiters = [gort.go(gort.select, fetch(9, "never"), done) for _ in range(3)]
    done.close()
    print("all three stopped:", [w.join()[0] for w in waiters] == [1, 1, 1])


if __name__ == "__main__":
    gort.run(main)
