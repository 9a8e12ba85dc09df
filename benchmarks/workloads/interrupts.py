"""How soon is Ctrl-C a KeyboardInterrupt in the main goroutine, whatever it does and whatever runs beside it?

Another process sends SIGINT, waits until it is told that the exception came, and
sends the next 20 ms later. Beside the main goroutine eight others compute in
Python, or compress 1 MB again and again. It

- computes as well, and gets one turn in nine by itself;
- waits for a channel;
- sits in `time.sleep`, a call that blocks its OS thread.

Measured are `p50` and `max` from just before `kill()` to the `except` clause.
Only `gort-main`, for it is about the main goroutine.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median
from time import monotonic

from benchmarks import _beside
from benchmarks._workload import Body, Metric, Workload

OTHERS = 8
SIGNALS, SIGNALS_QUICK = 50, 3
SENDER = """
import os, signal, time
while True:
    time.sleep(0.02)
    print(time.monotonic())
    os.kill(os.getppid(), signal.SIGINT)
    input()
"""


def compute() -> None:
    """Some 10 us of Python."""
    for _ in range(200):
        pass


def receive() -> None:
    import gort

    gort.Chan().recv()


@contextmanager
def computing(n: int) -> Iterator[list[_beside.Call]]:
    yield [compute] * n


def _interrupts(wait: Callable[[], object], beside: _beside.Kind) -> Body:
    def run(n: int) -> dict[str, float]:
        import gort

        took: list[float] = []
        stop: list[bool] = []

        def keep_calling(call: _beside.Call) -> None:
            while not stop:
                call()

        with (
            beside(OTHERS) as calls,
            subprocess.Popen(
                [sys.executable, "-u", "-c", SENDER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            ) as sender,
        ):
            assert sender.stdin and sender.stdout
            others = [gort.go(keep_calling, call) for call in calls]
            while len(took) < n:
                try:  # the next signal comes after this line at the earliest
                    if took:
                        print(file=sender.stdin, flush=True)
                    while True:
                        wait()
                except KeyboardInterrupt:
                    now = monotonic()
                took.append(now - float(sender.stdout.readline()))
            sender.kill()
            stop.append(True)
            for g in others:
                g.join()
        return {"p50": median(took) * 1e6, "max": max(took) * 1e6}

    return run


def _workload(name: str, question: str, wait: Callable[[], object], beside: _beside.Kind) -> Workload:
    workload = Workload(
        f"interrupt_{name}",
        question,
        (
            Metric("p50", "us, median", "from kill() to KeyboardInterrupt: median"),
            Metric("max", "us at most", "from kill() to KeyboardInterrupt: greatest"),
        ),
        n=SIGNALS,
        n_quick=SIGNALS_QUICK,
        repeat=1,
        procs=2,
        go=False,
    )
    workload.peer("gort-main")(_interrupts(wait, beside))
    workload.lacks("go", "it has no exception to raise")
    return workload


COMPUTE = _workload("compute", "Ctrl-C while main computes beside 8 that do", compute, computing)
RECV = _workload("recv", "Ctrl-C while main receives beside 8 that compute", receive, computing)
CALL = _workload("call", "Ctrl-C while main is in time.sleep beside 8 that compute", partial(time.sleep, 60), computing)
ZLIB = _workload("zlib", "Ctrl-C while main computes beside 8 that compress", compute, _beside.KINDS["zlib"])
