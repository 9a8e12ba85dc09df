"""`python -m benchmarks.churn`: connections come and go beside many that wait; nothing may be left of them.

A server with a goroutine a connection holds 10,000 that wait, while another process makes 200 a second
and ends each in one of four ways: in order, after an answer; by a reset; half closed; without a word.
Goroutines, descriptors, OS threads and memory are weighed after ten seconds of that and at its end, when
they must be what they were (memory: within 1 MB and 1 %); goroutines and descriptors again when all are
closed. Ends with 1, and says what grew, if they are not.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import gort
from benchmarks import _build, _proc

WARM_UP = 10.0  # seconds
GRACE = 10.0  # how long those that have ended may take to be gone
SLACK, SHARE = 1 << 20, 0.01


def client(port: int, rate: float) -> None:
    """Make connections until standard input ends; one line for each second: how many, and the slowest answer in ms."""
    os.set_blocking(0, False)
    began, count, slowest = time.monotonic(), 0, 0.0
    while True:
        start = time.monotonic()
        with socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.2", 0)) as sock:
            way = count % 4
            if way < 3:
                sock.sendall(b"x" * 64)
                if way == 2:
                    sock.shutdown(socket.SHUT_WR)
                got = 0
                while got < 64:
                    got += len(sock.recv(64))
                slowest = max(slowest, time.monotonic() - start)
            if way == 1:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        count += 1
        if count % int(rate) == 0:
            print(count, slowest * 1000, flush=True)
            slowest = 0.0
        try:
            if not os.read(0, 1):
                return
        except BlockingIOError:
            pass
        time.sleep(max(0.0, began + count / rate - time.monotonic()))


def _echo(conn: Any, read: Callable[[int], bytes], write: Callable[[bytes], object]) -> None:
    with conn:
        try:
            while data := read(4096):
                write(data)
        except ConnectionResetError:
            pass


def serve_net() -> int:
    """A server on gort.net; its port."""
    from gort import net

    def accept(listener: net.Listener) -> None:
        for conn in listener:
            gort.go(_echo, conn, conn.read, conn.write)

    listener = net.listen("127.0.0.1:0", backlog=8192)
    gort.go(accept, listener)
    return int(listener.addr.port)


def serve_socket() -> int:
    """The same with gort.socket."""
    from gort import socket as gsocket

    def accept(listener: Any) -> None:
        while True:
            conn, _ = listener.accept()
            gort.go(_echo, conn, conn.recv, conn.sendall)

    listener = gsocket.create_server(("127.0.0.1", 0), backlog=8192)
    gort.go(accept, listener)
    return int(listener.getsockname()[1])


def weigh() -> dict[str, int]:
    """What must not grow."""
    gc.collect()
    return {"goroutines": gort.num_goroutine(), **_proc.weights()}


def _grown(before: dict[str, int], after: dict[str, int]) -> list[str]:
    slack = {"bytes": SLACK + int(before.get("bytes", 0) * SHARE), "threads": 2}
    grown = [name for name in before if after[name] > before[name] + slack.get(name, 0)]
    return [f"{name}: {before[name]:,} -> {after[name]:,}" for name in grown]


def _text(weights: dict[str, int]) -> str:
    return ", ".join(f"{n:,} {name}" for name, n in weights.items())


def settled(before: dict[str, int]) -> dict[str, int]:
    """The weights when those that have ended are gone, or GRACE is over."""
    end = time.monotonic() + GRACE
    while True:
        now = weigh()
        if not _grown(before, now) or time.monotonic() > end:
            return now
        gort.sleep(0.05)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.churn", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--idle", type=int, default=10_000, help="connections that wait (10,000)")
    parser.add_argument("--rate", type=float, default=200, help="connections made a second (200)")
    parser.add_argument("--seconds", type=float, default=60, help="(60)")
    parser.add_argument("--server", choices=["net", "socket"], default="net")
    parser.add_argument("--client", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.client:
        client(options.client, options.rate)
        return 0
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    port = serve_net() if options.server == "net" else serve_socket()
    with socket.create_connection(("127.0.0.1", port)) as first:  # what is made once: the poller
        first.sendall(b"x")
        first.recv(1)
    quiet = settled({"goroutines": 2})
    load = [str(_build.load_program()), str(port), str(options.idle), "0", "idle"]
    comers = [sys.executable, "-m", "benchmarks.churn", "--client", str(port), "--rate", str(options.rate)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(load, **pipes) as idle:
        idle.stdout.readline()
        alone = weigh()
        print(f"{options.idle:,} connections wait:", _text(alone), flush=True)
        with subprocess.Popen(comers, **pipes) as churn:
            began, slowest, warm, count = time.monotonic(), [], alone, 0
            for line in churn.stdout:
                count, slow = int(line.split()[0]), float(line.split()[1])
                slowest.append(slow)
                passed = time.monotonic() - began
                if warm is alone and passed >= min(WARM_UP, options.seconds / 2):
                    warm = weigh()
                if passed >= options.seconds:
                    break
            churn.stdin.close()
            churn.stdout.read()
        slowest.sort()
        median = slowest[len(slowest) // 2]
        print(f"{count:,} came and went, the slowest answer of a second {median:.1f} ms in the median")
        # Those on their way at the first weighing are gone at the second: these two are the idle ones'.
        expected = {**warm, "goroutines": alone["goroutines"], "descriptors": alone["descriptors"]}
        after = settled(expected)
        wrong = _grown(expected, after)
        print("after it:", _text(after), flush=True)
        idle.stdin.close()
    none = {name: quiet[name] for name in ("goroutines", "descriptors")}
    last = settled(none)
    wrong += _grown(none, last)
    print("all closed:", _text(last))
    print("FAILED, left behind: " + "; ".join(wrong) if wrong else "nothing was left behind")
    return 1 if wrong else 0


if __name__ == "__main__":
    status = gort.run(main)
    sys.exit(status)
