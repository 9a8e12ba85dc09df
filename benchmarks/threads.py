"""What a `threading.Thread` costs: CPython's own, one under gort.monkey, and one under gevent.monkey.

    python -m benchmarks.threads [--rounds N] [--quick]

Each program runs in a process of its own, on one core (`taskset`), in turn with the others; the best of the rounds.

- parked: start 10,000 threads, each of which waits for an Event; microseconds and KB of memory a thread
- start+join: one at a time; microseconds
- lock: acquire and release an uncontended Lock; nanoseconds
- queue: an item from one thread to another and back, through two `queue.Queue`; microseconds
- simple: the same through two `queue.SimpleQueue`
- pool: a call by a ThreadPoolExecutor of 8, of 1,000 submitted at once; microseconds
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

PEERS = {
    "threads": "",
    "gort": "from gort import monkey; monkey.patch_all()",
    "gort.threading": "",
    "gevent": "from gevent import monkey; monkey.patch_all()",
}

PROGRAM = """
import threading, queue, time, json, os, sys, gc
from concurrent.futures import ThreadPoolExecutor
if PEER == "gort.threading":
    from gort import threading, queue
now, out = time.perf_counter, {}

def status(name):
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith(name))

def parked(n):
    go, ready = threading.Event(), threading.Semaphore(0)
    def work():
        ready.release()
        go.wait()
    gc.collect()
    before = status("VmRSS:") + status("VmPTE:")
    began = now()
    ts = [threading.Thread(target=work) for _ in range(n)]
    for t in ts:
        t.start()
    for t in ts:
        ready.acquire()
    out["parked us"] = (now() - began) / n * 1e6
    out["parked KB"] = (status("VmRSS:") + status("VmPTE:") - before) / n
    began = now()
    go.set()
    for t in ts:
        t.join()
    out["end us"] = (now() - began) / n * 1e6

def start_join(n):
    began = now()
    for _ in range(n):
        t = threading.Thread(target=int)
        t.start()
        t.join()
    out["start+join us"] = (now() - began) / n * 1e6

def lock(n):
    l = threading.Lock()
    began = now()
    for _ in range(n):
        l.acquire()
        l.release()
    out["lock ns"] = (now() - began) / n * 1e9
    began = now()
    for _ in range(n):
        with l:
            pass
    out["with ns"] = (now() - began) / n * 1e9

def ping(kind, n, name):
    a, b = kind(), kind()
    def other():
        for _ in range(n):
            b.put(a.get())
    t = threading.Thread(target=other)
    t.start()
    began = now()
    for i in range(n):
        a.put(i)
        b.get()
    out[name] = (now() - began) / n * 1e6
    t.join()

def pool(n):
    if PEER == "gort.threading":
        from gort.futures import Executor
        make = Executor
    else:
        make = ThreadPoolExecutor
    with make(8) as p:
        p.submit(int).result()
        began = now()
        for f in [p.submit(int) for _ in range(n)]:
            f.result()
        out["pool us"] = (now() - began) / n * 1e6

start_join(200 // Q)
start_join(5000 // Q)
lock(1000000 // Q)
ping(queue.Queue, 10000 // Q, "queue us")
ping(queue.SimpleQueue, 10000 // Q, "simple us")
pool(1000)
parked(10000 // Q)
print(json.dumps(out))
"""


def once(peer: str, quick: bool, cpu: str) -> dict[str, float]:
    source = f"{PEERS[peer]}\nPEER, Q = {peer!r}, {100 if quick else 1}\n{PROGRAM}"
    command = ["taskset", "-c", cpu, sys.executable, "-c", source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{peer}: {done.stderr}")
    return dict(json.loads(done.stdout))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--peers", default=",".join(PEERS))
    options.add_argument("--cpu", default="0")
    options.add_argument("--quick", action="store_true", help="only try whether it runs")
    given = options.parse_args()
    peers = given.peers.split(",")
    best: dict[str, dict[str, float]] = {}
    for _ in range(1 if given.quick else given.rounds):
        for peer in peers:
            for name, value in once(peer, given.quick, given.cpu).items():
                best.setdefault(name, {})[peer] = min(value, best.get(name, {}).get(peer, value))
    print(f"{'':16}" + "".join(f"{peer:>16}" for peer in peers))
    for name, row in best.items():
        print(f"{name:16}" + "".join(f"{row[peer]:16.2f}" for peer in peers))


if __name__ == "__main__":
    main()
