"""Run every workload on every peer in turn, within one run.

A **round** of a workload measures each of its peers once, each in a process of
its own; the next round does so again, in the opposite order. So whatever
disturbs the machine for a while disturbs all peers, and what is compared was
measured within seconds of each other. Every process is pinned to one core,
unless the workload is about two.

Nothing is left out silently: a peer that is not installed, cannot do a workload
or failed in it is reported with the reason, and a failure is the harness's own
exit status.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median

from benchmarks import _build, _peers
from benchmarks._native import NATIVE, Native
from benchmarks._workload import Metric, Workload, load_all

TIMEOUT = 600.0  # seconds for one process


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    workloads: tuple[str, ...] = ()  # of workloads or of their files; none: all
    peers: tuple[str, ...] = ()  # or runtimes; none: all
    rounds: int = 5
    repeat: int = 3
    target: float = 0.2
    quick: bool = False
    cpu: int | None = None  # None: the last one we may use


@dataclass
class Run:
    """One process: one peer, one workload, one round."""

    workload: str
    peer: str
    round: int
    command: list[str]
    cpus: list[int]
    load: float  # of the machine just before
    took: float = 0.0  # seconds, with the process's start
    cpu: float = 0.0  # seconds of user and system time that it got
    n: int = 0
    values: dict[str, list[float]] = field(default_factory=dict)
    error: str | None = None


@dataclass
class Question:
    """A workload as the harness sees it: how to run each peer, and who cannot."""

    name: str
    case: str  # what a program in Go or C calls it
    text: str
    metrics: tuple[Metric, ...]
    procs: int
    commands: dict[str, Callable[[], list[str]]]
    cannot: dict[str, str]


def _wanted(peer: str, options: Options) -> bool:
    return not options.peers or peer in options.peers or _peers.runtime(peer) in options.peers


def _python_command(workload: Workload, peer: str, options: Options) -> list[str]:
    command = [sys.executable, "-m", "benchmarks._child", workload.name, peer]
    return [*command, *_sizes("--", workload, options)]


def _go_command(workload: Workload, options: Options) -> list[str]:
    return [str(_build.go_program()), *_sizes("-", workload, options), workload.name]


def _sizes(dash: str, workload: Workload, options: Options) -> list[str]:
    repeat = 1 if options.quick else workload.repeat or options.repeat
    if workload.n is None:
        return [f"{dash}target", str(options.target), f"{dash}repeat", str(repeat)]
    n = workload.n_quick if options.quick else workload.n
    return [f"{dash}n", str(n), f"{dash}repeat", str(repeat)]


def _native_command(native: Native, go: bool, options: Options) -> list[str]:
    program = _build.go_program() if go else _build.c_program(native.program)
    repeat = 1 if options.quick else options.repeat
    return [str(program), "-target", str(options.target), "-repeat", str(repeat), native.case]


def _question(workload: Workload, options: Options) -> Question:
    commands: dict[str, Callable[[], list[str]]] = {}
    names = list(workload.peers)
    if workload.go:
        names.insert(sum(_peers.runtime(p) == "gort" for p in names), "go")
    for peer in names:
        if peer == "go":
            commands[peer] = lambda: _go_command(workload, options)
        else:
            commands[peer] = lambda peer=peer: _python_command(workload, peer, options)  # type: ignore[misc]
    w = workload
    return Question(w.name, w.name, w.question, w.metrics, w.procs, commands, dict(w.cannot))


def _native_question(native: Native, options: Options) -> Question:
    metric = Metric("ns", f"ns per {native.op}", native.question)
    commands: dict[str, Callable[[], list[str]]] = {
        "gort": lambda: _native_command(native, False, options),
        "go": lambda: _native_command(native, True, options),
    }
    return Question(native.name, native.case, native.question, (metric,), native.procs, commands, {})


def questions(options: Options) -> list[Question]:
    """The questions that were asked for, with the peers that were asked for."""
    chosen: list[Question] = []
    known: set[str] = {"native"}
    for file, workloads in load_all().items():
        known.update({file, *(w.name for w in workloads)})
        chosen += [
            _question(w, options) for w in workloads if not options.workloads or {file, w.name} & set(options.workloads)
        ]
    for native in NATIVE:
        known.update({native.name, native.case})
        if not options.workloads or {"native", native.case, native.name} & set(options.workloads):
            chosen.append(_native_question(native, options))
    if unknown := set(options.workloads) - known:
        raise SystemExit(f"no such workload: {', '.join(sorted(unknown))}; there are: {', '.join(sorted(known))}")
    for question in chosen:
        for peer in list(question.commands):
            if not _wanted(peer, options):
                del question.commands[peer]
            elif reason := _unable(question, peer):
                del question.commands[peer]
                question.cannot[peer] = reason
        question.cannot = {p: r for p, r in question.cannot.items() if _wanted(p, options)}
    return chosen


def _unable(question: Question, peer: str) -> str | None:
    native_c = question.name.startswith("native_") and peer == "gort"
    if not native_c and (reason := _peers.missing(peer)):
        return reason
    if question.procs > len(os.sched_getaffinity(0)):
        return f"needs {question.procs} cores"
    return None


def _parse(question: Question, text: str) -> tuple[int, dict[str, list[float]]]:
    """The output of a child in Python (JSON), or of a program in Go or C (lines)."""
    if text.startswith("{"):
        told = json.loads(text)
        return int(told["n"]), told["values"]
    n, procs, values = 0, 0, {metric.name: list[float]() for metric in question.metrics}
    for line in text.splitlines():
        key, value = line.split()
        if key == "n":
            n = int(value)
        elif key == "p":
            procs = int(value)
        else:
            values["ns" if key == question.case else key].append(float(value))
    if procs != question.procs:
        raise ValueError(f"it ran on {procs} Ps, not on {question.procs}")
    return n, values


def measure(question: Question, peer: str, round_: int, options: Options) -> Run:
    """Run one process and read what it measured."""
    usable = sorted(os.sched_getaffinity(0))
    core = usable[-1] if options.cpu is None else options.cpu
    cpus = [core] if question.procs == 1 else usable
    run = Run(question.name, peer, round_, [], cpus, os.getloadavg()[0])
    start, cpu = time.monotonic(), _children_cpu()
    try:
        run.command = question.commands[peer]()
        start, cpu = time.monotonic(), _children_cpu()  # again: it may have been compiled
        done = subprocess.run(
            run.command,
            cwd=_peers.ROOT,
            env={**os.environ, "GOMAXPROCS": str(question.procs)},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            preexec_fn=lambda: os.sched_setaffinity(0, cpus),
        )
        if done.returncode != 0:
            run.error = _failure(done)
        else:
            run.n, run.values = _parse(question, done.stdout)
    except (_build.BuildError, subprocess.TimeoutExpired, OSError, ValueError, KeyError) as problem:
        run.error = f"{type(problem).__name__}: {problem}"
    run.took, run.cpu = time.monotonic() - start, _children_cpu() - cpu
    return run


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _failure(done: subprocess.CompletedProcess[str]) -> str:
    """How a process ended, and what it said of it: a fatal report's first line, or the last line."""
    status = f"signal {-done.returncode}" if done.returncode < 0 else f"exit status {done.returncode}"
    said = (done.stderr.strip() or done.stdout.strip()).splitlines() or [""]
    fatal = [line for line in said if line.lower().startswith(("fatal", "panic", "runtime:"))]
    return f"{status}: {(fatal or said[-1:])[0]}"


def run(asked: Iterable[Question], options: Options, progress: Callable[[Run], None]) -> list[Run]:
    """Measure everything, round by round; a peer that fails is not tried again."""
    runs: list[Run] = []
    for question in asked:
        peers = list(question.commands)
        failed: set[str] = set()
        for round_ in range(1, options.rounds + 1):
            for peer in peers if round_ % 2 else reversed(peers):
                if peer in failed:
                    continue
                one = measure(question, peer, round_, options)
                if one.error:
                    failed.add(peer)
                runs.append(one)
                progress(one)
    return runs


@dataclass(frozen=True)
class Figure:
    """What a peer's rounds come to, for one metric of one workload."""

    workload: str
    metric: str
    peer: str
    median: float  # of the medians of the rounds
    low: float  # the least and the greatest of them
    high: float
    rounds: int


def figures(runs: list[Run]) -> dict[tuple[str, str, str], Figure]:
    """The medians, by workload, metric and peer. Peers that failed once have none."""
    rounds: dict[tuple[str, str, str], list[float]] = {}
    failed = {(r.workload, r.peer) for r in runs if r.error}
    for one in runs:
        if (one.workload, one.peer) in failed:
            continue
        for metric, values in one.values.items():
            rounds.setdefault((one.workload, metric, one.peer), []).append(median(values))
    return {key: Figure(*key, median(v), min(v), max(v), len(v)) for key, v in rounds.items()}
