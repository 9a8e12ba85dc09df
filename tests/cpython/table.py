"""docs/cpython_tests.md from the results of runs: python tests/cpython/table.py RESULTS.json ...

Of runs with `--place patched`: docs/cpython_monkey.md.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import known

HEAD = """\
# CPython's own tests in a goroutine

Each module of CPython's `test` package ran in a process of its own, inside one goroutine; what did not pass there ran
again in a plain `threading.Thread` and in the main thread, without gort. Made by `tests/cpython/table.py` from what
these wrote, one for each interpreter:

    python tests/cpython/run.py --json RESULTS.json

Resources (network, gigabytes, minutes of CPU) are off, as in `python -m test` without `-u`.

What may come of a test that did not pass:

| | |
| --- | --- |
| crash, hang | the process died or the test did not end, but not so in a plain thread |
| differs | passes in a plain thread but not in a goroutine |
| main thread | passes in the main thread alone: a plain thread fails too |
| baseline | fails in every place on the machine of the run |
| unsteady | failed once, then passed in a goroutine |
"""


HEAD_PATCHED = """\
# CPython's own tests under `python -m gort`

Modules of CPython's `test` package, each in a process of its own, run as `python -m gort` runs a program: in the main
goroutine, with the whole standard library patched, so that each `threading.Thread` of theirs is a goroutine. Beside it
each module ran without gort. Made by `tests/cpython/table.py` from what these wrote, one for each interpreter:

    python tests/cpython/run.py --place patched --json RESULTS.json

Resources (network, gigabytes, minutes of CPU) are off, as in `python -m test` without `-u`; but test_socketserver has
the network, of which it needs the loopback alone.

What may come of a test that did not pass:

| | |
| --- | --- |
| crash, hang | the process died or the test did not end, but not so without gort |
| differs | passes without gort |
| baseline | fails without gort too, on the machine of the run |
| unsteady | failed once, then passed under `python -m gort` |
"""


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def short(name: str) -> str:
    return f"`{name.split('.', 2)[2]}`"


Row = tuple[str, str, str, str]  # name, outcome, verdict, explanation


def by_class(rows: dict[Row, list[str]]) -> dict[Row, list[str]]:
    """One row instead of four or more that differ in the method alone."""
    groups: dict[tuple[Row, tuple[str, ...]], list[Row]] = {}
    for row, where in rows.items():
        groups.setdefault(((row[0].rpartition(".")[0], *row[1:]), tuple(where)), []).append(row)
    out: dict[Row, list[str]] = {}
    for (whole, where), members in groups.items():
        if len(members) > 3:
            members = [(f"{whole[0]}.* ({len(members)})", *whole[1:])]
        for row in members:
            out.setdefault(row, []).extend(where)
    return out


def counts(m: dict[str, Any]) -> str:
    if m["state"]:
        return "skipped"
    c = m["counts"]
    failed = sum(c.get(k, 0) for k in ("failed", "error", "crash", "hang"))
    return f"{c.get('passed', 0) + c.get('expected failure', 0)}/{failed}/{c.get('skipped', 0)}"


Modules = dict[str, dict[str, Any]]


def failures(versions: list[str], by_name: list[Modules], place: str) -> list[str]:
    out = ["| test | version | outcome | verdict | explanation |\n| --- | --- | --- | --- | --- |"]
    seen: dict[Row, list[str]] = {}
    for version, modules in zip(versions, by_name, strict=True):
        minor = int(version.split(".")[1])
        for name in sorted(modules):
            for t in modules[name]["bad"]:
                why = known.why(t["name"], t["verdict"], (3, minor), place) or known.GENERAL.get(t["verdict"], "")
                key = (t["name"].removeprefix("test."), t["outcome"], t["verdict"], why)
                seen.setdefault(key, []).append(f"3.{minor}")
    for (name, outcome, verdict, why), where in sorted(by_class(seen).items()):
        out.append(f"| `{cell(name)}` | {', '.join(where)} | {outcome} | {verdict} | {cell(why)} |")
    return out


def patched(versions: list[str], by_name: list[Modules]) -> None:
    """docs/cpython_monkey.md"""
    out = [HEAD_PATCHED, "## Modules\n"]
    out.append("passed/failed/skipped; in brackets, of those that pass without gort, how many do so here\n")
    out.append("| module | " + " | ".join(versions) + " |\n| --- |" + " --- |" * len(versions))

    def entry(m: dict[str, Any]) -> str:
        return counts(m) + (f" ({m['kept']} of {m['stock']})" if m["stock"] else "")

    for name in sorted(set().union(*by_name)):
        out.append(f"| {name} | " + " | ".join(entry(m[name]) if name in m else "" for m in by_name) + " |")
    totals = []
    for modules in by_name:
        kept, stock = (sum(m[k] for m in modules.values()) for k in ("kept", "stock"))
        totals.append(f"{kept:,} of {stock:,}: {100 * kept / stock:.2f} %")
    out.append("| **all that pass without gort** | " + " | ".join(totals) + " |")
    out.append("\n## What did not pass\n")
    print("\n".join(out + failures(versions, by_name, "patched")))


def main() -> None:
    runs = [json.loads(Path(p).read_text()) for p in sys.argv[1:]]
    versions = sorted({r["version"] for r in runs})
    by_name: list[Modules] = [
        {m["name"]: m for r in runs if r["version"] == version for m in r["modules"]} for version in versions
    ]
    if all(r["place"] == "patched" for r in runs):
        patched(versions, by_name)
        return
    out = [HEAD, "## Totals\n", "| version | modules | passed | failed | skipped | of the failed |"]
    out.append("| --- | --- | --- | --- | --- | --- |")
    for version, modules in zip(versions, by_name, strict=True):
        ran = [m for m in modules.values() if not m["state"]]
        total = [sum(int(counts(m).split("/")[i]) for m in ran) for i in range(3)]
        verdicts = [t["verdict"] for m in ran for t in m["bad"]]
        kinds = ", ".join(f"{verdicts.count(k)} {k}" for k in sorted(set(verdicts)))
        out.append(f"| {version} | {len(ran)} | {total[0]:,} | {total[1]} | {total[2]} | {kinds} |")
    out.append("\n## What did not pass\n")
    out += failures(versions, by_name, "goroutine")
    out.append("\n## Tests left out\n\n| module | tests |\n| --- | --- |")
    out += [f"| {m} | {', '.join(short(t) for t in tests)} |" for m, tests in known.LEFT_OUT.items()]
    out.append("\n" + known.WHY_LEFT_OUT)
    out.append("\n## Modules left out\n\n| module | why |\n| --- | --- |")
    out += [f"| {m} | {why} |" for m, why in known.NOT_RUN.items()]
    out.append("\n## Modules\n\npassed/failed/skipped\n")
    out.append("| module | " + " | ".join(versions) + " |\n| --- |" + " --- |" * len(versions))
    for name in sorted(set().union(*by_name)):
        out.append(f"| {name} | " + " | ".join(counts(m[name]) if name in m else "" for m in by_name) + " |")
    print("\n".join(out))


if __name__ == "__main__":
    main()
