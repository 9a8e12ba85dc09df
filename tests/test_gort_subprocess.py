"""gort.subprocess without any patch: processes and their pipes, waited for by parking."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess as stock
import sys
from typing import Any

import pytest
from model_support import PlainThread, descriptors, output_of, park, spin_until

import gort
from gort import subprocess

PYTHON = sys.executable
CAT = [PYTHON, "-c", "import sys; sys.stdout.write(sys.stdin.read())"]


def waits(*command: str, **kw: Any) -> Any:
    """A process that runs until its standard input ends."""
    return subprocess.Popen(["cat", *command], stdin=subprocess.PIPE, **kw)


def test_the_names_of_the_standard_module() -> None:
    assert set(subprocess.__all__) == set(stock.__all__)
    assert subprocess.Popen is not stock.Popen and issubclass(subprocess.Popen, stock.Popen)
    assert subprocess.CalledProcessError is stock.CalledProcessError
    assert subprocess.TimeoutExpired is stock.TimeoutExpired


def test_run() -> None:
    done = subprocess.run(["echo", "hello"], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr, done.returncode) == ("hello\n", "", 0)
    assert subprocess.check_output("echo $0; exit 0", shell=True, text=True).strip() != ""
    assert subprocess.call(["false"]) == 1
    assert subprocess.getoutput("echo out; echo err >&2") == "out\nerr"
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.check_call(["false"])
    with pytest.raises(FileNotFoundError):
        subprocess.run(["/no/such/program"], check=False)


def test_wait_parks() -> None:
    child = waits()
    g = park(child.wait)
    assert g.state == "waiting" and g.wait_reason == "IO wait"
    child.stdin.close()
    assert g.join() == 0
    assert child.wait() == 0 and child.poll() == 0


def test_wait_in_time() -> None:
    child = waits()
    with pytest.raises(subprocess.TimeoutExpired) as error:
        child.wait(0.01)
    assert (error.value.timeout, error.value.cmd) == (0.01, child.args)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0)
    g = park(child.wait, 3600)
    child.kill()
    assert g.join() == -signal.SIGKILL
    child.stdin.close()


def test_several_wait_for_one() -> None:
    child = waits()
    gs = [park(child.wait) for _ in range(3)] + [park(child.wait, 3600)]
    child.stdin.close()
    assert [g.join() for g in gs] == [0] * 4


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("size", [0, 10, 100_000, 1_000_000])
def test_communicate(size: int, text: bool) -> None:
    data: Any = "x" * size if text else b"x" * size
    done = subprocess.run(CAT, input=data, stdout=subprocess.PIPE, text=text, check=True)
    assert done.stdout == data


def test_communicate_with_all_pipes() -> None:
    code = "import sys; d = sys.stdin.read(); sys.stderr.write(d[::-1]); sys.stdout.write(d)"
    child = subprocess.Popen([PYTHON, "-c", code], stdin=-1, stdout=-1, stderr=-1, text=True)
    out, err = child.communicate("abc" * 50_000, timeout=3600)
    assert (out, err) == ("abc" * 50_000, "cba" * 50_000)


def test_communicate_in_time() -> None:
    child = subprocess.Popen(["sleep", "3600"], stdout=subprocess.PIPE)
    with pytest.raises(subprocess.TimeoutExpired):
        child.communicate(timeout=0.01)
    child.kill()
    assert child.communicate() == (b"", None)


def test_a_line_from_a_pipe_parks() -> None:
    child = waits(stdout=subprocess.PIPE, text=True)
    g = park(child.stdout.readline)
    assert g.state == "waiting"
    child.stdin.write("a line\nand")
    child.stdin.flush()
    assert g.join() == "a line\n"
    rest = park(child.stdout.read)
    child.stdin.close()
    assert rest.join() == "and"
    child.stdout.close()
    assert child.wait() == 0


@pytest.mark.parametrize("bufsize", [-1, 0, 100])
def test_a_write_to_a_full_pipe_parks(bufsize: int) -> None:
    child = subprocess.Popen(["sleep", "3600"], stdin=subprocess.PIPE, bufsize=bufsize)
    assert child.stdin is not None
    g = park(child.stdin.write, b"x" * 1_000_000)
    assert g.state == "waiting"
    child.kill()
    with pytest.raises(BrokenPipeError):
        g.join()
    child.wait()
    with contextlib.suppress(BrokenPipeError):
        child.stdin.close()


@pytest.mark.parametrize("bufsize", [-1, 0, 1, 1000])
def test_what_pipes_are(bufsize: int, recwarn: pytest.WarningsRecorder) -> None:
    child = waits(stdout=subprocess.PIPE, bufsize=bufsize)
    assert isinstance(child.stdin, io.BufferedWriter if bufsize else io.FileIO)
    assert isinstance(child.stdout, io.BufferedReader if bufsize else io.FileIO)
    assert os.get_blocking(child.stdin.fileno()) and os.get_blocking(child.stdout.fileno())
    assert child.stdin.write(b"abc" * 10_000) == 30_000
    child.stdin.close()
    assert child.stdout.read(4) == b"abca"
    rest = b"".join(iter(lambda: child.stdout.read(65536), b""))
    assert rest == (b"abc" * 10_000)[4:]
    assert child.stdout.read() == b""
    child.stdout.close()
    assert child.wait() == 0
    assert [w.category for w in recwarn] == ([RuntimeWarning] * 2 if bufsize == 1 else [])


def test_two_at_one_pipe_take_turns() -> None:
    child = waits(stdout=subprocess.PIPE)
    first, second = park(child.stdout.readline), park(child.stdout.readline)
    child.stdin.write(b"1\n2\n")
    child.stdin.close()
    assert sorted([first.join(), second.join()]) == [b"1\n", b"2\n"]
    assert child.stdout.read() == b""
    child.stdout.close()
    child.wait()


def test_a_killed_reader_leaves_the_pipe_usable() -> None:
    child = waits(stdout=subprocess.PIPE)
    g = park(child.stdout.readline)
    g.kill()
    g.join()
    child.stdin.write(b"line\n")
    child.stdin.close()
    assert child.stdout.read() == b"line\n"
    child.stdout.close()
    child.wait()


def test_a_context_manager_waits_and_closes() -> None:
    with waits(stdout=subprocess.PIPE) as child:
        child.stdin.close()
    assert child.returncode == 0 and child.stdout.closed


def test_in_a_plain_thread() -> None:
    def body() -> Any:
        done = subprocess.run(CAT, input=b"abc" * 50_000, stdout=subprocess.PIPE, check=True, timeout=3600)
        child = waits()
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.01)
        child.stdin.close()
        return len(done.stdout), child.wait()

    assert PlainThread(body).result() == (150_000, 0)


def test_who_waits_holds_up_nobody() -> None:
    child = waits()
    g = gort.go(child.wait)
    spin_until(lambda: g.state == "waiting")
    ticks = [gort.go(int).join() for _ in range(100)]
    assert ticks == [0] * 100 and not g.done
    child.stdin.close()
    g.join()


def test_a_hundred_processes_without_a_thread_each() -> None:
    children = [waits(stdout=subprocess.PIPE) for _ in range(100)]
    gs = [park([c.wait, c.stdout.read, lambda c=c: c.wait(3600)][i % 3]) for i, c in enumerate(children)]
    assert {(g.state, g.wait_reason) for g in gs} == {("waiting", "IO wait")}  # none in a system call
    for c in children:
        c.stdin.close()
    assert [g.join() for g in gs] == [b"" if i % 3 == 1 else 0 for i in range(100)]
    for c in children:
        c.stdout.close()
        assert c.wait() == 0


def test_nothing_is_left_open() -> None:
    subprocess.run(["true"], check=True)
    before = descriptors()
    for _ in range(5):
        subprocess.run(CAT, input=b"x" * 100_000, stdout=subprocess.PIPE, check=True, timeout=3600)
        with pytest.raises(subprocess.TimeoutExpired):
            subprocess.run(["sleep", "3600"], check=True, timeout=0.01)
    assert descriptors() == before


def test_ctrl_c_while_it_waits() -> None:
    source = """
    import os, signal, gort
    from gort import subprocess
    child = subprocess.Popen(["sleep", "3600"])
    gort.go(lambda: (gort.sleep(0.05), os.kill(os.getpid(), signal.SIGINT)))
    try:
        child.wait()
    except KeyboardInterrupt:
        print("interrupted", child.poll())
    child.kill()
    print(child.wait())
    """
    assert output_of(source) == f"interrupted None\n{-signal.SIGKILL}\n"
