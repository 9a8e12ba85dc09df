"""CPython's own regression tests, inside a goroutine.

    python tests/cpython/run.py [-j N] [--place goroutine|busy|patched|network] [--json FILE] [MODULE ...]

Runs each test module of the interpreter that runs this (all that apply, or those
named: test_json, test_re, ...) in a process of its own, as the body of a
goroutine. What fails there is run again in a goroutine, then in a plain
threading.Thread, then in the main thread, the last two without gort. So each
test that does not pass is one of:

    crash, hang     the process died or the test did not end, but not so in a plain thread
    differs         passes in a plain thread but not in a goroutine
    main thread     passes in the main thread alone: a plain thread fails too
    baseline        fails everywhere on this machine
    unsteady        failed once, then passed in a goroutine

A crash does not end a module: it goes on behind the test that crashed. The exit
status is 1 if there is a crash, a hang or a difference that known.py does not
explain. With `--place patched` the modules run as `python -m gort` runs a program,
in the main goroutine with the standard library patched, and are compared with the
main thread without gort: by default those of known.PATCHED. `--json` collects the
results of a run, tests/cpython/table.py makes docs/cpython_tests.md of several, or
docs/cpython_monkey.md.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import known

CHILD = str(Path(__file__).resolve().with_name("child.py"))
GOOD = ("passed", "expected failure")
BAD = ("failed", "error", "crash", "hang")


@dataclass
class Test:
    """A test that did not pass in a goroutine."""

    name: str
    outcome: str
    text: str = ""
    verdict: str = ""
    why: str = ""


@dataclass
class Module:
    name: str
    state: str = ""  # "", or why nothing ran
    counts: dict[str, int] = field(default_factory=dict)
    bad: list[Test] = field(default_factory=list)
    seconds: float = 0.0
    stock: int = 0  # patched: how many pass without gort,
    kept: int = 0  # and how many of these with it


@dataclass
class Pass:
    """What one or more processes said about one module."""

    outcomes: dict[str, tuple[str, str]] = field(default_factory=dict)
    state: str = ""


def test_dir() -> Path:
    import test

    return Path(next(iter(test.__path__)))


def exists(name: str) -> bool:
    return (test_dir() / name).is_dir() or (test_dir() / f"{name}.py").exists()


def all_modules() -> list[str]:
    names = {p.stem for p in test_dir().iterdir() if p.name.startswith("test_") and (p.is_dir() or p.suffix == ".py")}
    return sorted(n for n in names if n not in known.NOT_RUN)


def read_events(path: str) -> list[dict[str, str]]:
    if not os.path.exists(path):
        return []
    with open(path) as f:
        return [json.loads(line) for line in f if line.endswith("\n")]


def prepare() -> None:
    """In the child, before exec."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job ignores it


def run_process(place: str, module: str, events: str, only: str, skip: str, patience: float) -> tuple[int | None, str]:
    """One child. Its exit status (None: it hung and was killed) and the end of what it printed."""
    work = tempfile.mkdtemp(prefix="gort-cpython-")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "GORT_"))}
    env.update({k: v for k, v in os.environ.items() if k.startswith("GORT_")}, TMPDIR=work)
    command = [sys.executable, "-u", "-W", "default", "-bb", CHILD, place, module, events]
    command += [f"--only={only}"] * bool(only) + [f"--skip={skip}"] * bool(skip)
    log = os.path.join(work, "log")
    try:
        with open(log, "wb") as out:
            child = subprocess.Popen(command, cwd=work, env=env, stdin=subprocess.DEVNULL, stdout=out,
                                     stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=prepare)  # fmt: skip
        status: int | None = None
        seen, since = -1, time.monotonic()
        while True:
            try:
                status = child.wait(0.5 if patience > 5 else 0.1)
                break
            except subprocess.TimeoutExpired:
                pass
            size = os.path.getsize(events) if os.path.exists(events) else 0
            if size != seen:
                seen, since = size, time.monotonic()
            elif time.monotonic() - since > patience:
                child.send_signal(signal.SIGABRT)
                time.sleep(1)
                break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # what a test left behind too
        child.wait()
        text = Path(log).read_bytes()[-6000:].decode(errors="replace")
        return status, text
    finally:
        shutil.rmtree(work, ignore_errors=True)


def run_pass(place: str, module: str, only: set[str], patience: float) -> Pass:
    """One module in one place, in as many processes as its crashes make necessary."""
    result = Pass()
    left_out = {t for pattern, tests in known.LEFT_OUT.items() if fnmatch.fnmatch(module, pattern) for t in tests}
    with tempfile.TemporaryDirectory(prefix="gort-cpython-") as files:
        only_file = os.path.join(files, "only") if only else ""
        if only:
            Path(only_file).write_text("\n".join(sorted(only)))
        for attempt in range(20):
            skip_file = os.path.join(files, "skip")
            Path(skip_file).write_text("\n".join(sorted(left_out | set(result.outcomes))))
            events_file = os.path.join(files, f"events{attempt}")
            status, text = run_process(place, module, events_file, only_file, skip_file, patience)
            running = ""
            end: dict[str, str] = {}
            for event in read_events(events_file):
                if "start" in event:
                    running = event["start"]
                elif "end" in event:
                    running = ""
                    result.outcomes[event["end"]] = (event["outcome"], event["text"])
                else:
                    end = event
            if end.get("module") == "skipped":
                result.state = "skipped: " + end["text"]
            elif end.get("module") == "error":
                result.outcomes[f"test.{module}"] = ("error", end["text"])
            if end.get("module") == "interrupted":
                continue
            if end and status == 0:
                return result
            if end.get("module") == "error" and status == 1:
                return result
            # It died. A finished module that died at exit is a crash of its own.
            outcome = "hang" if status is None else "crash"
            name = running or (f"test.{module} (at exit)" if end else f"test.{module} (between tests)")
            result.outcomes[name] = (outcome, f"exit status {status}\n{text}")
            if not running:
                return result
    result.outcomes[f"test.{module} (given up)"] = ("crash", "20 processes died")
    return result


def judge(module: str, place: str, patience: float) -> Module:
    began = time.monotonic()
    done = Module(module)
    first = run_pass(place, module, set(), patience)
    done.state = first.state
    done.counts = dict(Counter(outcome for outcome, _ in first.outcomes.values()))
    done.bad = [Test(name, outcome, text) for name, (outcome, text) in first.outcomes.items() if outcome in BAD]
    stock: Pass | None = None
    if place == "patched":
        stock = run_pass("main", module, set(), patience)
        good = {n for n, (outcome, _) in stock.outcomes.items() if outcome in GOOD}
        done.stock, done.kept = len(good), len(good - {t.name for t in done.bad})
    if done.bad:
        names = {t.name for t in done.bad}
        whole = any("(" in n or n == f"test.{module}" or " " in n for n in names)  # fixtures: run it all again

        def again(where: str, left: set[str]) -> dict[str, str]:
            if not left:
                return {}
            found = run_pass(where, module, set() if whole else left, patience).outcomes
            # a fixture that nothing is said of was fine; so was the module
            fixture = {n: " " in n or n == f"test.{module}" for n in left}
            return {n: found[n][0] if n in found else "passed" if fixture[n] else "not run" for n in left}

        def fine(outcomes: dict[str, str]) -> set[str]:
            return {n for n, o in outcomes.items() if o not in BAD and o != "not run"}

        steady = fine(again(place, names))
        done.kept += len(steady & good) if stock else 0
        thread = again("thread", names - steady) if not stock else {}
        in_thread = fine(thread) if not stock else set()
        in_main = fine(again("main", names - steady - in_thread))
        for t in done.bad:
            if t.name in steady:
                t.verdict = "unsteady"
            elif t.name in in_thread:
                t.verdict = "differs"
            elif t.name in in_main:
                t.verdict = "differs" if stock else "main thread"
            else:
                t.verdict = "baseline"
            elsewhere = stock.outcomes.get(t.name, ("",))[0] if stock else thread.get(t.name)
            if t.outcome in ("crash", "hang") and elsewhere != t.outcome:
                t.verdict = f"{t.outcome} ({t.verdict})"
            t.why = known.why(t.name, t.verdict, sys.version_info[:2], place)
    done.seconds = round(time.monotonic() - began, 1)
    return done


def is_wrong(t: Test) -> bool:
    if t.outcome == "crash":
        return not t.why
    return not t.why and t.verdict not in ("baseline", "main thread", "unsteady")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", metavar="MODULE")
    parser.add_argument("-j", type=int, default=1, metavar="N", help="that many modules at once")
    parser.add_argument("--place", choices=["goroutine", "busy", "patched", "network"], default="goroutine")
    parser.add_argument("--json", metavar="FILE", help="write the results there as they come")
    parser.add_argument("--patience", type=float, default=60, metavar="S", help="a test that takes longer hangs")
    parser.add_argument("-v", action="store_true", help="print what the tests that differ said")
    args = parser.parse_args()
    modules = args.modules or (all_modules() if args.place != "patched" else [m for m in known.PATCHED if exists(m)])
    for name in modules:
        if not exists(name):
            parser.error(f"{test_dir()} has no {name}")
    results: dict[str, Module] = {}
    lock = threading.Lock()

    def one(name: str) -> None:
        m = judge(name, args.place, args.patience)
        with lock:
            results[name] = m
            counts = ", ".join(f"{n} {outcome}" for outcome, n in sorted(m.counts.items())) or m.state or "nothing"
            kept = f"; of {m.stock} that pass without gort {m.kept}" if m.stock else ""
            print(f"[{len(results)}/{len(modules)}] {name}: {counts}{kept} ({m.seconds:.0f} s)", flush=True)
            for t in m.bad:
                print(f"    {t.verdict}{'' if is_wrong(t) else ', known'}: {t.outcome} {t.name}", flush=True)
                if args.v and is_wrong(t):
                    print("        " + "\n        ".join(t.text.splitlines()), flush=True)
            if args.json:
                data = {"version": sys.version.split()[0], "place": args.place,
                        "modules": [asdict(results[n]) for n in sorted(results)]}  # fmt: skip
                Path(args.json).write_text(json.dumps(data, indent=1))

    with ThreadPoolExecutor(args.j) as pool:
        list(pool.map(one, modules))
    total: Counter[str] = sum((Counter(m.counts) for m in results.values()), Counter())
    wrong = [t for m in results.values() for t in m.bad if is_wrong(t)]
    print(f"Python {sys.version.split()[0]}: {sum(not m.state for m in results.values())} modules, "
          + ", ".join(f"{n} {o}" for o, n in total.most_common()))  # fmt: skip
    if args.place == "patched":
        stock, kept = sum(m.stock for m in results.values()), sum(m.kept for m in results.values())
        print(f"{kept} of the {stock} that pass without gort, {100 * kept / max(stock, 1):.2f} %")
    for t in wrong:
        print(f"UNEXPLAINED {t.verdict}: {t.name}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
