"""The concurrent prime sieve: a chain of goroutines, one for each prime found, that filter its multiples."""

import sys
from itertools import count

import gort


def generate(out: gort.Chan[int]) -> None:
    for n in count(2):
        out.send(n)


def keep_indivisible(inbox: gort.Chan[int], out: gort.Chan[int], prime: int) -> None:
    for n in inbox:
        if n % prime:
            out.send(n)


def primes(how_many: int) -> list[int]:
    """The first primes. The chain goes on for ever; run() unwinds it at its end."""
    ch = gort.Chan[int]()
    gort.go(generate, ch)
    found = []
    for _ in range(how_many):
        prime = ch.recv()
        found.append(prime)
        rest = gort.Chan[int]()
        gort.go(keep_indivisible, ch, rest, prime)
        ch = rest
    return found


if __name__ == "__main__":
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    print(*gort.run(primes, wanted))
