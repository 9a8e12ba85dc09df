"""Well-known libraries with their real servers, in 200 goroutines: see programs/, each a recipe and a test of
itself.

Each runs in a process of its own, the library as it is and made cooperative by gort.monkey. What is asserted is in
the programs; how long the longest stall of a ticking goroutine was is printed at the end of the run.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import runner
import servers

# One way of patching is as good as the other; that both do it, three programs show.
WAYS = [(name, way) for name in runner.RECIPES for way in ("unpatched", "patched")]
WAYS += [(name, "python -m gort") for name in ("redis_", "requests_", "sqlite3_")]


def _left(folder: str) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith("gort-")]


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def test_every_program_is_run() -> None:
    assert {path.stem for path in runner.PROGRAMS.glob("*_.py")} == set(runner.RECIPES)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "way"), WAYS)
def test_recipe(name: str, way: str, recipes_dir: str, recipe_rows: list[list[str]]) -> None:
    if lacking := runner.missing(name):
        pytest.skip(f"{name}: {lacking}")
    try:
        report = runner.run(name, way, recipes_dir)
    except RuntimeError as e:
        pytest.fail(str(e), pytrace=False)
    finally:
        _until(lambda: not _left(recipes_dir), "a server is left behind")
    recipe_rows.append(runner.row(name, way, report))


START = """
import sys, servers
server = servers.start("redis")
print(server.port, server._process.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("who", ["program", "supervisor"])
def test_no_server_is_left_when_somebody_is_killed(who: str, recipes_dir: str) -> None:
    try:
        servers.KINDS["redis"].find()
    except servers.NotInstalled as e:
        pytest.skip(str(e))
    program = subprocess.Popen(
        [sys.executable, "-c", START],
        cwd=runner.PROGRAMS,
        env=os.environ | {"GORT_RECIPES_DIR": recipes_dir},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with program:
        assert program.stdout is not None
        supervisor = int(program.stdout.readline().split()[1])
        (server,) = servers.children(supervisor)
        assert _left(recipes_dir)
        os.kill(program.pid if who == "program" else supervisor, signal.SIGKILL)
        _until(lambda: servers.gone(server), "the server goes on")
        if who == "program":
            _until(lambda: not _left(recipes_dir), "its directory is still there")
        program.kill()
    for name in _left(recipes_dir):  # the killed supervisor could not remove it
        shutil.rmtree(f"{recipes_dir}/{name}")


class Unlucky(servers.Kind):
    def command(self, data: Path, port: int) -> list[str]:
        return ["sh", "-c", "echo no luck >&2; exit 3"]


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    supervisor = servers.Supervisor(Unlucky(), "unlucky", tmp_path, servers.free_port())
    supervisor.prepare(None)
    with pytest.raises(RuntimeError, match="unlucky ended, status 3\nno luck"):
        supervisor.start()
