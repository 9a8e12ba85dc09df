"""Measure one Python peer on one workload, in this process, and print JSON.

The harness starts it as `python -m benchmarks._child WORKLOAD PEER`. By hand it
is the way to profile one workload: `perf record python -X perf -m benchmarks._child
unbuffered gort --n 1000000`.
"""

import argparse
import gc
import json
import os
import sys

from benchmarks import _peers
from benchmarks._workload import Body, Outcome, Workload, check, load_all


def round_up(n: float, step: int) -> int:
    """A multiple of `step`, at least one step."""
    return max(-(-int(n) // step), 1) * step


def calibrate(workload: Workload, peer: str, body: Body, target: float) -> int:
    """Find an n that takes about `target` seconds; warms everything up as well.

    go/main.go and native/bench.h do it in the same steps.
    """
    n: float = 1000
    while True:
        n = round_up(n, workload.step)
        took = seconds(_peers.drive(peer, body, int(n)))
        if took >= target / 4:
            return round_up(n * target / took, workload.step)
        n *= max(min(10, 0.5 * target / took if took > 0 else 10), 2)


def seconds(outcome: Outcome) -> float:
    """The outcome of a workload that is measured per operation."""
    if isinstance(outcome, dict):
        raise TypeError(f"seconds are wanted, not {outcome}")
    return outcome


def measure(workload: Workload, peer: str, n: int | None, target: float, repeat: int) -> dict[str, object]:
    """Run it `repeat` times; every metric becomes a list of as many values."""
    body = workload.peers[peer]
    if n is None:
        n = calibrate(workload, peer, body, target)
    values: dict[str, list[float]] = {metric.name: [] for metric in workload.metrics}
    for _ in range(repeat):
        gc.collect()
        outcome = _peers.drive(peer, body, n)
        if not isinstance(outcome, dict):
            outcome = {"ns": outcome * 1e9 / n}
        check(set(outcome), set(values))
        for name, value in outcome.items():
            values[name].append(value)
    return {"n": n, "values": values}


def find(name: str) -> Workload:
    """The workload of that name."""
    for workloads in load_all().values():
        for workload in workloads:
            if workload.name == name:
                return workload
    raise SystemExit(f"no workload is called {name}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks._child", description=__doc__)
    parser.add_argument("workload")
    parser.add_argument("peer")
    parser.add_argument("--n", type=int, help="operations (default: as many as fill the target)")
    parser.add_argument("--target", type=float, default=0.3, help="seconds per repetition")
    parser.add_argument("--repeat", type=int, default=5, help="repetitions")
    args = parser.parse_args()
    workload = find(args.workload)
    if args.peer not in workload.peers:
        reason = workload.cannot.get(args.peer, f"it knows {', '.join(workload.peers)}")
        raise SystemExit(f"{args.workload} is not for {args.peer}: {reason}")
    n = workload.n if args.n is None else args.n
    os.environ.update(_peers.ENVIRONMENT.get(args.peer, {}))  # before the peer is imported
    json.dump(measure(workload, args.peer, n, args.target, args.repeat), sys.stdout)
    print()


if __name__ == "__main__":
    main()
