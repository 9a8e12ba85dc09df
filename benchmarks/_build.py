"""Compile the Go programs and the C programs, into build/benchmarks/."""

import os
import subprocess
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from benchmarks._peers import ROOT, go_tool

OUT = ROOT / "build" / "benchmarks"
LIBGORT = ROOT / "build" / "libgort.a"
# Nothing is fetched: the programs use the standard library only.
GO_ENV = {"GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local", "GOPROXY": "off", "CGO_ENABLED": "0"}


class BuildError(Exception):
    """A program cannot be compiled here; the text says why."""


def _stale(target: Path, sources: Iterable[Path]) -> bool:
    return not target.exists() or any(s.stat().st_mtime > target.stat().st_mtime for s in sources)


def _run(command: list[str], cwd: Path, env: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)}:\n{done.stderr.strip()}")


def go_command() -> list[str]:
    """How the Go programs are compiled."""
    return [str(go_tool()), "build", "-o", str(OUT / "gobench"), "."]


@cache
def go_program() -> Path:
    """All Go programs are one binary, compiled when a source is newer."""
    program, folder = OUT / "gobench", ROOT / "benchmarks" / "go"
    if _stale(program, [*folder.glob("*.go"), folder / "go.mod"]):
        OUT.mkdir(parents=True, exist_ok=True)
        _run(go_command(), folder, GO_ENV)
    load_program()
    return program


def c_command(name: str) -> list[str]:
    """How a native program is compiled, from the root of the repository."""
    source = f"benchmarks/native/{name}.c"
    program = str((OUT / f"native_{name}").relative_to(ROOT))
    return ["cc", "-O2", "-g", "-Icsrc/include", source, "-o", program, "build/libgort.a", "-lpthread", "-lm"]


@cache
def load_program() -> Path:
    """What loads the echo servers: plain C, beside the Go program, which starts it too."""
    program, source = OUT / "echo_load", ROOT / "benchmarks" / "native" / "echo_load.c"
    if _stale(program, [source]):
        OUT.mkdir(parents=True, exist_ok=True)
        _run(["cc", "-O2", str(source), "-o", str(program)], ROOT)
    return program


@cache
def c_program(name: str) -> Path:
    """A native program, compiled against gort's static library when either is newer."""
    if not LIBGORT.exists():
        raise BuildError("build/libgort.a is missing (make lib)")
    program, folder = OUT / f"native_{name}", ROOT / "benchmarks" / "native"
    if _stale(program, [folder / f"{name}.c", folder / "bench.h", LIBGORT]):
        OUT.mkdir(parents=True, exist_ok=True)
        _run(c_command(name), ROOT)
    return program
