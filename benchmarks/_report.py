"""Print the medians and ratios, save everything, draw it."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from benchmarks import _machine
from benchmarks._goals import GOALS
from benchmarks._harness import Figure, Options, Question, Run
from benchmarks._peers import runtime
from benchmarks._workload import Metric

Figures = dict[tuple[str, str, str], Figure]


def number(value: float) -> str:
    """Three or more significant digits, thousands set apart."""
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def reasons(question: Question, runs: Iterable[Run]) -> dict[str, str]:
    """Why a peer has no figure: it cannot, is not there, or failed."""
    failed = {r.peer: f"FAILED: {r.error}" for r in runs if r.workload == question.name and r.error}
    return {**question.cannot, **failed}


def table(asked: Sequence[Question], runs: Sequence[Run], figures: Figures, base: str, out: TextIO) -> None:
    """For each question and metric: every peer's median, its spread, its ratio."""
    for question in asked:
        why = reasons(question, runs)
        for metric in question.metrics:
            name = question.name if metric.name == "ns" else f"{question.name} {metric.name}"
            print(f"\n{name}: {question.text} ({metric.unit})", file=out)
            if metric.meaning != question.text:
                print(f"  {metric.meaning}", file=out)
            reference = figures.get((question.name, metric.name, base))
            for peer in dict.fromkeys([*question.commands, *why]):
                figure = figures.get((question.name, metric.name, peer))
                if figure is None:
                    print(f"  {peer:16}{'-':>12}  {why.get(peer, 'not measured')}", file=out)
                    continue
                spread = f"{number(figure.low)} … {number(figure.high)}"
                print(f"  {peer:16}{number(figure.median):>12}  {ratio(figure, reference):>8}  {spread:>20}", file=out)


def ratio(figure: Figure, reference: Figure | None) -> str:
    """How many times the reference's figure this one is."""
    if reference is None or reference.median <= 0:
        return "-"
    times = figure.median / reference.median
    return f"x{times:.2f}" if times >= 0.1 else f"x{times:.3f}"


def disturbed(runs: Sequence[Run], out: TextIO) -> None:
    """Warn of processes that had to share their core: their figures are too large.

    The workloads keep one core busy, but for `sleepers` and those on all cores.
    """
    alone = [r for r in runs if not r.error and len(r.cpus) == 1 and r.workload != "sleepers"]
    shared = [r for r in alone if r.cpu < 0.9 * r.took]
    if shared:
        print(f"DISTURBED: {len(shared)} of {len(alone)} processes got less than 90 % of their core:", file=out)
        for r in sorted(shared, key=lambda r: r.cpu / r.took)[:5]:
            print(f"  {r.cpu / r.took:.0%} in round {r.round} of {r.workload} on {r.peer}", file=out)


def speed_ups(figures: Figures, out: TextIO) -> None:
    """Two Ps against one: the one comparison that goes across questions."""
    for peer in ("gort", "go"):
        one = figures.get(("native_forkjoin_p1", "ns", peer))
        two = figures.get(("native_forkjoin_p2", "ns", peer))
        if one and two:
            print(f"native_forkjoin on 2 Ps, {peer}: {one.median / two.median:.2f} times as fast as on 1", file=out)


def goals(figures: Figures, out: TextIO) -> None:
    """What was aimed at, and what came out; only what was measured is listed."""

    def median(workload: str, metric: str, peer: str) -> float | None:
        figure = figures.get((workload, metric, peer))
        return figure.median if figure else None

    for goal in GOALS:
        value = goal.came_out(median)
        if value is not None:
            verdict = "reached" if value <= goal.limit else "MISSED"
            print(f"  {verdict:8}{goal!s:55} {number(value)}", file=out)


def print_all(
    asked: Sequence[Question], runs: Sequence[Run], figures: Figures, base: str, quick: bool, out: TextIO = sys.stdout
) -> None:
    """Everything that a reader of the terminal needs."""
    print(f"\nMedians of the rounds; xR is the ratio to {base}; least … greatest round.", file=out)
    if quick:
        print("QUICK: sizes cut down to try the programs out. Not figures to compare.", file=out)
    table(asked, runs, figures, base, out)
    print(file=out)
    disturbed(runs, out)
    speed_ups(figures, out)
    if any(goal.workload in {w for w, _, peer in figures if peer == "gort"} for goal in GOALS) and not quick:
        print("\nGoals (gort's figure, or its ratio):", file=out)
        goals(figures, out)


def save(
    path: Path, asked: Sequence[Question], runs: Sequence[Run], figures: Figures, base: str, options: Options
) -> None:
    """The raw results of all rounds, and what they were measured on and with."""
    settings = {k: v for k, v in os.environ.items() if k.startswith(("GORT_", "GO", "PYTHON", "RUNLOOM_"))}
    told: dict[str, Any] = {
        "schema": 1,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [sys.executable, "-m", "benchmarks", *sys.argv[1:]],
        "options": asdict(options),
        "environment": settings,
        "machine": _machine.machine(),
        "versions": _machine.versions(),
        "base": base,
        "questions": [
            {"name": q.name, "text": q.text, "metrics": [asdict(m) for m in q.metrics], "without": reasons(q, runs)}
            for q in asked
        ],
        "figures": [asdict(f) for f in figures.values()],
        "runs": [asdict(r) for r in runs],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told, indent=1) + "\n")


def plot(path: Path, asked: Sequence[Question], figures: Figures, base: str) -> None:
    """A panel for each question and metric: the peers' medians, on a log scale."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = [
        (question, metric, present)
        for question in asked
        for metric in question.metrics
        if (present := [f for p in question.commands if (f := figures.get((question.name, metric.name, p)))])
    ]
    if not panels:
        raise SystemExit("nothing was measured, so there is nothing to draw")
    columns = min(3, len(panels))
    heights = [max(1.2 + 0.22 * len(p) for *_, p in panels[i : i + columns]) for i in range(0, len(panels), columns)]
    figure, grid = pyplot.subplots(
        len(heights), columns, figsize=(5.6 * columns, sum(heights)), squeeze=False, height_ratios=heights
    )
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, (question, metric, present) in zip(grid.flat, panels, strict=False):
        _panel(axes, question, metric, sorted(present, key=lambda f: f.median), base)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _panel(axes: Any, question: Question, metric: Metric, present: Sequence[Figure], base: str) -> None:
    """Dots, not bars: on a log scale the length of a bar means nothing."""
    from matplotlib.ticker import NullFormatter

    for row, figure in enumerate(present):
        colour = "#00758d" if runtime(figure.peer) == runtime(base) else "#5a6468"
        axes.plot((figure.low, figure.high), (row, row), color=colour, linewidth=1.5)
        axes.plot(figure.median, row, "o", color=colour, markersize=6)
        axes.annotate(
            number(figure.median), (figure.high, row), (7, 0), textcoords="offset points", va="center", size=8
        )
    axes.set_yticks(range(len(present)), [f.peer for f in present])
    axes.set_ylim(len(present) - 0.4, -0.6)
    if all(f.low > 0 for f in present):
        axes.set_xscale("log")
        axes.set_xlim(min(f.low for f in present) / 1.6, max(f.high for f in present) * 3)
        axes.xaxis.set_minor_formatter(NullFormatter())
    title = question.name if metric.name == "ns" else f"{question.name}: {metric.name}"
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    axes.set_xlabel(f"{metric.unit} (less is better)", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", color="#e6eaeb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
