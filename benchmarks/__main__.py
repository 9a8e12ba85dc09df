"""`python -m benchmarks`: gort and its peers, in turn, within one run."""

import argparse
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from benchmarks import _harness, _peers, _report


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--workload", type=_names, default=(), metavar="NAME,...", help="workloads, or their files")
    parser.add_argument("--peers", type=_names, default=(), metavar="NAME,...", help="peers, or runtimes")
    parser.add_argument("--rounds", type=int, help="rounds over the peers (5; 1 if --quick)")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions in each process (3)")
    parser.add_argument("--target", type=float, help="seconds per repetition (0.2; 0.02 if --quick)")
    parser.add_argument("--cpu", type=int, help="the core to pin to (the last)")
    parser.add_argument("--base", default="gort", help="the peer that ratios refer to (gort)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything there")
    parser.add_argument("--plot", type=Path, metavar="OUT.png", help="draw the medians there")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round: does it all work?")
    parser.add_argument("--list", action="store_true", help="show the workloads and their peers")
    return parser.parse_args()


def _show(run: _harness.Run) -> None:
    figures = ", ".join(f"{name} {_report.number(min(values))}" for name, values in run.values.items())
    text = run.error or figures
    print(f"  {run.round:2}  {run.workload:20} {run.peer:16} {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Measure, report; 1 if a peer that is there failed in what it can do."""
    args = _arguments()
    options = _harness.Options(
        workloads=args.workload,
        peers=args.peers,
        rounds=args.rounds or (1 if args.quick else 5),
        repeat=args.repeat,
        target=args.target or (0.02 if args.quick else 0.2),
        quick=args.quick,
        cpu=args.cpu,
    )
    for name in options.peers:
        if _peers.runtime(name) not in _peers.RUNTIMES:
            raise SystemExit(f"no peer is called {name}; there are: {', '.join(_peers.RUNTIMES)}")
    if options.cpu is not None and options.cpu not in os.sched_getaffinity(0):
        raise SystemExit(f"core {options.cpu} is not among {sorted(os.sched_getaffinity(0))}")
    if args.plot and find_spec("matplotlib") is None:
        raise SystemExit("--plot needs matplotlib (pip install matplotlib)")
    asked = _harness.questions(options)
    if args.list:
        for question in asked:
            print(f"{question.name:22} {question.text}\n{'':22} on {', '.join(question.commands)}")
            for peer, reason in question.cannot.items():
                print(f"{'':22} not on {peer}: {reason}")
        return 0
    runs = _harness.run(asked, options, _show)
    figures = _harness.figures(runs)
    _report.print_all(asked, runs, figures, args.base, args.quick)
    if args.json:
        _report.save(args.json, asked, runs, figures, args.base, options)
    if args.plot:
        _report.plot(args.plot, asked, figures, args.base)
    return 1 if any(run.error for run in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
