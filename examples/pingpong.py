"""Two goroutines pass a ball to and fro over two channels; the last hit ends the match."""

import sys

import gort


def player(name: str, inbox: gort.Chan[int], outbox: gort.Chan[int], last: int) -> None:
    """Hit every ball that comes, until the last one; then the other one's inbox is closed."""
    for hits in inbox:
        print(f"{name}: hit {hits}")
        if hits == last:
            break
        outbox.send(hits + 1)
    outbox.close()


def main(last: int = 10) -> None:
    left, right = gort.Chan[int](), gort.Chan[int]()
    players = [gort.go(player, "ping", left, right, last), gort.go(player, "pong", right, left, last)]
    left.send(1)
    for p in players:
        p.join()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
