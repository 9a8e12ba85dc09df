"""Runs the recipes, each in a process of its own: `python tests/recipes/runner.py [NAME ...]` prints
docs/recipes.md's table.

A name is that of a program without its ending, as redis_; without names all of them run. --way narrows down how.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PROGRAMS = HERE / "programs"
WITHIN = 120.0  # seconds; only a program that hangs takes so long

sys.path.insert(0, str(PROGRAMS))
import servers  # noqa: E402


@dataclass
class Needs:
    """What a recipe needs to be installed: modules, and kinds of servers."""

    modules: list[str] = field(default_factory=list)
    servers: list[str] = field(default_factory=list)


RECIPES = {
    "confluent_kafka_": Needs(["confluent_kafka"], ["kafka"]),
    "flask_": Needs(["flask", "httptools"]),
    "grpcio_": Needs(["grpc"]),
    "httpx_": Needs(["httpx"], ["http", "https"]),
    "kafka_python_": Needs(["kafka"], ["kafka"]),
    "pg8000_": Needs(["pg8000"], ["postgres"]),
    "psycopg_": Needs(["psycopg", "psycopg_pool"], ["postgres"]),
    "pymysql_": Needs(["pymysql"], ["mariadb"]),
    "redis_": Needs(["redis"], ["redis"]),
    "requests_": Needs(["requests"], ["http", "https"]),
    "sqlalchemy_": Needs(["sqlalchemy", "psycopg"], ["postgres"]),
    "sqlite3_": Needs(["sqlite3"]),
    "urllib3_": Needs(["urllib3"], ["http", "https"]),
    "websockets_": Needs(["websockets"]),
}

# How a program is run: what comes before it on the command line, and after.
WAYS = {
    "unpatched": ([], []),
    "patched": ([], ["--patched"]),
    "python -m gort": (["-m", "gort"], []),
}


def missing(name: str) -> str | None:
    """What recipe `name` lacks on this machine, or None."""
    needs = RECIPES[name]
    if absent := [module for module in needs.modules if importlib.util.find_spec(module) is None]:
        return f"{', '.join(absent)} not installed; pip install 'gort[recipes]' brings all of them"
    try:
        for kind in needs.servers:
            servers.KINDS[kind].find()
    except servers.NotInstalled as e:
        return str(e)
    return None


def run(name: str, way: str, folder: str) -> dict[str, Any]:
    """Run recipe `name`, its servers in `folder`, and return its report. Raise RuntimeError if it failed or hung."""
    before, after = WAYS[way]
    command: list[str] = [sys.executable, *before, str(PROGRAMS / f"{name}.py"), *after]
    # From the root of the tree, where a relative PYTHONPATH leads to gort.
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"GORT_RECIPES_DIR": folder},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=WITHIN)
        how = f"exit status {process.returncode}"
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGQUIT)  # gort prints all goroutines
        try:
            output, _ = process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
        how = f"no end after {WITHIN} s"
    finally:
        process.kill()
        process.wait()
    lines = output.splitlines()
    if process.returncode == 0 and lines and lines[-1].startswith("{"):
        report: dict[str, Any] = json.loads(lines[-1])
        assert report["patched"] == (way != "unpatched"), f"{name} was not run {way}"
        return report
    shown = output if len(output) < 40_000 else f"{output[:20_000]}\n[...]\n{output[-20_000:]}"
    raise RuntimeError(f"{' '.join(command)}: {how}\n{shown}")


def row(name: str, way: str, report: dict[str, Any]) -> list[str]:
    """The report as a row of the table."""
    libraries = ", ".join(" ".join(item) for item in report["versions"].items()) or name.rstrip("_")
    worst = max(report["steps"], key=lambda step: step["stall"])
    ticks = sum(step["ticks"] for step in report["steps"])
    seconds = sum(step["seconds"] for step in report["steps"])
    threads = max(step["threads"] for step in report["steps"])
    return [libraries, way, f"{seconds:.1f}", str(threads), str(ticks), f"{worst['stall']:.0f}", worst["name"]]


HEAD = ["library", "way", "seconds", "OS threads", "ticks", "longest stall, ms", "in the step"]


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the recipes and print a table of how they went.")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--runs", type=int, default=1, metavar="N", help="of N runs, that with the shortest stall")
    parser.add_argument("--way", action="append", choices=WAYS, help="default: unpatched and patched")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(RECIPES):
        parser.error(f"no recipe {', '.join(sorted(unknown))}; there are {', '.join(RECIPES)}")
    failed = 0
    print(f"| {' | '.join(HEAD)} |\n|{' --- |' * 2}{' ---: |' * 4} --- |", flush=True)
    with tempfile.TemporaryDirectory(prefix="gort-recipes-") as folder:
        os.chmod(folder, 0o711)  # servers run as other users
        for name in arguments.names or RECIPES:
            if lacking := missing(name):
                print(f"| {name} | not run: {lacking} |", flush=True)
                continue
            for way in arguments.way or ["unpatched", "patched"]:
                try:
                    rows = [row(name, way, run(name, way, folder)) for _ in range(arguments.runs)]
                    best = min(rows, key=lambda r: float(r[5]))
                    print(f"| {' | '.join(best)} |", flush=True)
                except RuntimeError as e:
                    failed += 1
                    print(f"| {name} | {way} | failed |", flush=True)
                    print(e, file=sys.stderr)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
