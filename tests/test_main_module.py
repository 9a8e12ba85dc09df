"""`python -m gort PROGRAM`: the program finds what it would find under `python PROGRAM`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from model_support import program_env

SHOW = """\
import sys, os
main = sys.modules["__main__"]
print(__name__, sys.argv, main.__dict__ is globals(), __builtins__ is sys.modules["builtins"])
print(os.path.realpath(sys.path[0]) if sys.path[0] else "", __file__ if "__file__" in globals() else None)
print(__spec__ and __spec__.name, __package__, type(__loader__).__name__, __doc__)
print(sorted(set(globals()) - {"sys", "os", "main", "__cached__", "__annotations__"}))
"""


def python(
    *args: str, cwd: Path, gort: bool = False, options: tuple[str, ...] = (), input: str | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "faulthandler", *options, *(["-m", "gort"] if gort else []), *args]
    return subprocess.run(
        command, cwd=cwd, env=program_env(**env), input=input, capture_output=True, text=True, timeout=120, check=False
    )


def same(*args: str, cwd: Path, **more: Any) -> str:
    """What the program prints under `python -m gort`, having seen that `python` does the same."""
    stock, ours = python(*args, cwd=cwd, **more), python(*args, cwd=cwd, gort=True, **more)
    assert (ours.stdout, ours.stderr, ours.returncode) == (stock.stdout, stock.stderr, stock.returncode)
    return ours.stdout


def test_a_script(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "show.py").write_text(SHOW)
    assert "['sub/show.py', '-m', 'x']" in same("sub/show.py", "-m", "x", cwd=tmp_path)


def test_a_script_through_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "show.py").write_text(SHOW)
    (tmp_path / "link.py").symlink_to(tmp_path / "real" / "show.py")
    assert str(tmp_path / "real") in same("link.py", cwd=tmp_path)


def test_a_module(tmp_path: Path) -> None:
    (tmp_path / "show.py").write_text('"doc"\n' + SHOW)
    assert "__main__" in same("-m", "show", "a", "b", cwd=tmp_path)
    assert "__main__" in same("-mshow", cwd=tmp_path)


def test_a_package(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("")
    (tmp_path / "pack" / "__main__.py").write_text(SHOW)
    assert "pack.__main__ pack" in same("-m", "pack", cwd=tmp_path)


def test_code(tmp_path: Path) -> None:
    assert "['-c', 'x']" in same("-c", SHOW, "x", cwd=tmp_path)


def test_a_directory_and_a_zip_file(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__main__.py").write_text(SHOW)
    with zipfile.ZipFile(tmp_path / "app.zip", "w") as z:
        z.writestr("__main__.py", SHOW)
    assert "['app', 'x']" in same("app", "x", cwd=tmp_path)
    assert "['app.zip', 'x']" in same("app.zip", "x", cwd=tmp_path)


def test_standard_input(tmp_path: Path) -> None:
    assert "['-', 'x']" in same("-", "x", cwd=tmp_path, input=SHOW)


def test_safe_path(tmp_path: Path) -> None:
    (tmp_path / "show.py").write_text(SHOW)
    same("show.py", cwd=tmp_path, options=("-P",))


@pytest.mark.parametrize(
    "code",
    [
        "import sys; sys.exit(7)",
        "import sys; sys.exit('a text')",
        "raise SystemExit",
        "def f():\n    1 / 0\nf()\n",
        "x = (\n",
        "import os; os._exit(3)",
        "import atexit; atexit.register(print, 'at exit'); raise ValueError('it')",
    ],
)
def test_how_a_program_ends(code: str, tmp_path: Path) -> None:
    (tmp_path / "end.py").write_text(code)
    same("end.py", cwd=tmp_path)


def test_an_interrupted_program_ends_by_the_signal(tmp_path: Path) -> None:
    (tmp_path / "end.py").write_text("raise KeyboardInterrupt")
    same("end.py", cwd=tmp_path)
    assert python("end.py", cwd=tmp_path, gort=True).returncode == -signal.SIGINT


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    done = python("nothing.py", cwd=tmp_path, gort=True)
    assert done.returncode == 2
    assert f"can't open file '{tmp_path}/nothing.py': [Errno 2]" in done.stderr


def test_a_module_that_is_not_there(tmp_path: Path) -> None:
    done = python("-m", "no_such_module", cwd=tmp_path, gort=True)
    assert done.returncode == 1
    assert "No module named no_such_module" in done.stderr


@pytest.mark.parametrize("args", [(), ("-m",), ("-c",), ("--nonsense",)])
def test_bad_arguments(args: tuple[str, ...], tmp_path: Path) -> None:
    done = python(*args, cwd=tmp_path, gort=True)
    assert done.returncode == 2
    assert "usage: python -m gort" in done.stderr


@pytest.mark.parametrize("option", ["-h", "--help", "-V", "--version"])
def test_help_and_version(option: str, tmp_path: Path) -> None:
    done = python(option, cwd=tmp_path, gort=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "gort" in done.stdout


def test_the_program_is_patched_before_its_first_line(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text(
        "import threading, gort\n"
        "threads = [threading.Thread(target=lambda: seen.append(gort.current())) for _ in range(3)]\n"
        "seen = []\n"
        "for t in threads: t.start()\n"
        "for t in threads: t.join()\n"
        "print(len({g.id for g in seen}), gort.current() in seen)\n"
    )
    done = python("p.py", cwd=tmp_path, gort=True)
    assert (done.stdout, done.stderr) == ("3 False\n", "")


def test_threads_go_on_with_the_names_of_the_main_module(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text(
        "import threading, time\n"
        "def work():\n"
        "    time.sleep(0.05)\n"
        "    print('still', NAME, __name__)\n"
        "NAME = 'here'\n"
        "threading.Thread(target=work).start()\n"
    )
    assert same("p.py", cwd=tmp_path) == "still here __main__\n"


def test_functions_of_the_main_module_can_be_pickled(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text(
        "import pickle\nclass C:\n    pass\nprint(type(pickle.loads(pickle.dumps(C()))) is C)\n"
    )
    assert same("p.py", cwd=tmp_path) == "True\n"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(method: str, tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text(
        "import multiprocessing, sys\n"
        "def double(x):\n    return 2 * x\n"
        "if __name__ == '__main__':\n"
        "    multiprocessing.set_start_method(sys.argv[1])\n"
        "    with multiprocessing.Pool(2) as pool:\n"
        "        print(pool.map(double, range(5)))\n"
        "    q = multiprocessing.Queue()\n"
        "    p = multiprocessing.Process(target=q.put, args=(double(4),))\n"
        "    p.start()\n"
        "    print(q.get(timeout=60))\n"
        "    p.join()\n"
        "    print(p.exitcode)\n"
    )
    assert python("p.py", method, cwd=tmp_path, gort=True).stdout == "[0, 2, 4, 6, 8]\n8\n0\n"


def test_pdb_under_it(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text("x = 41\nx += 1\nprint('x is', x)\n")
    done = python("-m", "pdb", "p.py", cwd=tmp_path, gort=True, input="next\nnext\np x * 2\ncontinue\nquit\n")
    assert "84" in done.stdout
    assert "x is 42" in done.stdout


def test_coverage_over_it(tmp_path: Path) -> None:
    pytest.importorskip("coverage")
    (tmp_path / "p.py").write_text(
        "import threading\n"
        "def work():\n"
        "    done.append(1)\n"
        "done = []\n"
        "t = threading.Thread(target=work)\n"
        "t.start()\n"
        "t.join()\n"
    )
    env = {"COVERAGE_FILE": str(tmp_path / "data")}
    ran = python("-m", "coverage", "run", "p.py", cwd=tmp_path, gort=True, **env)
    assert (ran.returncode, ran.stderr) == (0, "")
    report = python("-m", "coverage", "report", cwd=tmp_path, **env)
    assert "100%" in report.stdout, report.stdout + report.stderr


def test_ctrl_c_interrupts_the_main_thread_that_waits_for_a_thread(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text(
        "import threading, os, sys\n"
        "go = threading.Event()\n"
        "t = threading.Thread(target=go.wait)\n"
        "t.start()\n"
        "try:\n"
        "    print('ready', flush=True)\n"
        "    t.join()\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
        "go.set()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-m", "gort", "p.py"],
        cwd=tmp_path, env=program_env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    os.kill(child.pid, signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert (out, err, child.returncode) == ("interrupted\n", "", 0)
