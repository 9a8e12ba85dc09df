"""Profilers, debuggers and dumps see goroutines, as docs/tools.md says.

What is not installed is skipped with a reason: `pip install coverage py-spy`, and gdb.
"""

from __future__ import annotations

import cProfile
import faulthandler
import io
import json
import os
import profile
import pstats
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
from model_support import PATIENCE, finish, park, program_env, run_program

import gort
from gort import Chan, go

SINCE_312 = sys.version_info >= (3, 12)
GDB_SCRIPT = Path(gort.__file__).parent / "gort-gdb.py"


# ---- what CPython itself knows of goroutines ---------------------------------------


def receive(ch: Chan[Any]) -> Any:
    value = ch.recv()
    return value


def receive_in_except(ch: Chan[Any]) -> Any:
    try:
        raise ValueError("being handled")
    except ValueError:
        return ch.recv()


def test_current_frames_are_keyed_by_the_goroutines_number() -> None:
    ch: Chan[int] = Chan()
    waiting = [park(receive, ch) for _ in range(3)]
    frames = sys._current_frames()
    assert [frames[g.id].f_code.co_name for g in waiting] == ["receive"] * 3
    assert frames[threading.main_thread().ident or 0] is sys._getframe()
    assert len(frames) == 4
    del frames
    for _ in waiting:
        ch.send(1)
    finish(*waiting)


def test_current_exceptions_are_the_goroutines_own() -> None:
    ch: Chan[int] = Chan()
    handling, not_handling = park(receive_in_except, ch), park(receive, ch)
    current: dict[int, Any] = sys._current_exceptions()

    def value(key: int) -> Any:
        return current[key] if SINCE_312 else current[key][1]

    assert isinstance(value(handling.id), ValueError) and value(not_handling.id) is None
    assert value(threading.main_thread().ident or 0) is None
    current.clear()
    for _ in range(2):
        ch.send(1)
    finish(handling, not_handling)


def test_an_asynchronous_exception_goes_to_whom_it_is_addressed() -> None:
    done = run_program(
        """
        import ctypes, threading, gort

        def throw(ident, exc):
            return ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(exc))

        try:
            assert throw(threading.main_thread().ident, KeyError) == 1
            for _ in range(1000): pass
            print("nothing")
        except KeyError:
            print("main")

        ch = gort.Chan()
        g = gort.go(ch.recv)
        gort.gosched()
        assert throw(g.id, IndexError) == 1
        ch.send(1)
        print(g.join())  # it ends in C

        def two():
            ch.recv()
            for _ in range(1000): pass

        g = gort.go(two)
        gort.gosched()
        assert throw(g.id, IndexError) == 1
        ch.send(1)
        try:
            g.join()
        except IndexError:
            print("goroutine")
        """
    )
    assert (done.stdout, done.stderr) == ("main\n1\ngoroutine\n", "")


def test_faulthandler_shows_goroutines_by_number() -> None:
    ch: Chan[int] = Chan()
    g = park(receive, ch)
    with tempfile.TemporaryFile("w+") as f:
        faulthandler.dump_traceback(f, all_threads=True)
        f.seek(0)
        text = f.read()
    ch.send(1)
    finish(g)
    if "..." not in text:  # CPython shows a hundred, the newest first; dead ones are kept and count
        assert re.search(rf"Thread 0x0*{g.id:x} [^\n]*\n  File .* in receive\n", text), text
        ident = threading.main_thread().ident or 0
        assert len(re.findall(rf"hread 0x0*{ident:x} ", text)) == 1, text


def test_dump_traceback_later_comes_while_all_wait() -> None:
    done = run_program(
        """
        import faulthandler, threading, gort
        faulthandler.dump_traceback_later(0.05, exit=True)
        threading.Thread(target=threading.Event().wait, daemon=True).start()

        def for_ever():
            gort.Chan().recv()

        gort.go(for_ever)
        gort.Chan().recv()
        """
    )
    assert done.returncode == 1
    assert "Timeout" in done.stderr and "in for_ever\n" in done.stderr and "in <module>\n" in done.stderr


def test_tracemalloc_knows_where_a_parked_goroutine_allocated() -> None:
    def hoard(ch: Chan[int]) -> list[bytes]:
        mine = [bytes(10_000) for _ in range(100)]
        ch.recv()
        return mine

    ch: Chan[int] = Chan()
    tracemalloc.start()
    try:
        g = park(hoard, ch)
        top = tracemalloc.take_snapshot().statistics("lineno")[0]
    finally:
        tracemalloc.stop()
    ch.send(1)
    finish(g)
    line = hoard.__code__.co_firstlineno + 1
    assert (top.traceback[0].filename, top.traceback[0].lineno) == (__file__, line) and top.size >= 1_000_000


# ---- trace functions -------------------------------------------------------------


@contextmanager
def threads_traced(install: Callable[[Any], None], hook: Any) -> Iterator[None]:
    install(hook)
    try:
        yield
    finally:
        install(None)
        sys.settrace(None)
        sys.setprofile(None)


def follow(seen: list[tuple[int, str, str]], *names: str) -> Any:
    """A trace function that notes the goroutine, the event and the function."""

    def hook(frame: FrameType, event: str, arg: object) -> Any:
        if frame.f_code.co_name in names and event in ("call", "return", "line"):
            me = gort.current()
            seen.append((me.id if me is not None else 0, event, frame.f_code.co_name))
            return hook

    return hook


def test_new_goroutines_are_traced_as_new_threads_are() -> None:
    seen: list[tuple[int, str, str]] = []
    ch: Chan[int] = Chan()
    with threads_traced(threading.settrace, follow(seen, "receive")):
        a, b = park(receive, ch), park(receive, ch)
        ch.send(1)
        ch.send(2)
        finish(a, b)
    c = go(sys.gettrace)
    assert c.join() is None
    for g in (a, b):
        mine = [event for n, event, _ in seen if n == g.id]
        assert mine == ["call", "line", "line", "return"]


def test_new_goroutines_are_profiled_as_new_threads_are() -> None:
    seen: list[tuple[int, str, str]] = []
    ch: Chan[int] = Chan()
    with threads_traced(threading.setprofile, follow(seen, "receive")):
        a, b = park(receive, ch), park(receive, ch)
        ch.send(1)
        ch.send(2)
        finish(a, b)
    assert go(sys.getprofile).join() is None
    for g in (a, b):
        assert [event for n, event, _ in seen if n == g.id] == ["call", "return"]


@pytest.mark.skipif(not SINCE_312, reason="threading.setprofile_all_threads is new in 3.12")
def test_all_threads_includes_parked_goroutines() -> None:
    seen: list[tuple[int, str, str]] = []
    ch: Chan[int] = Chan()
    g = park(receive, ch)
    with threads_traced(threading.setprofile_all_threads, follow(seen, "receive")):
        ch.send(1)
        finish(g)
    assert (g.id, "return", "receive") in seen
    seen.clear()
    g = park(receive, ch)
    with threads_traced(threading.settrace_all_threads, follow(seen, "receive", "inner")):
        pass
    ch.send(1)
    finish(g)
    assert not seen


@pytest.mark.skipif(not SINCE_312, reason="sys.monitoring is new in 3.12")
def test_monitoring_events_come_in_the_goroutine_that_runs() -> None:
    monitoring: Any = sys.monitoring
    tool, seen = monitoring.DEBUGGER_ID, []

    def note(code: CodeType, *rest: object) -> None:
        me = gort.current()
        if code is receive.__code__ and me is not None:
            seen.append(me.id)

    ch: Chan[int] = Chan()
    early = park(receive, ch)
    monitoring.use_tool_id(tool, "test_tools")
    try:
        monitoring.register_callback(tool, monitoring.events.LINE, note)
        monitoring.set_events(tool, monitoring.events.LINE)
        late = park(receive, ch)
        ch.send(1)
        ch.send(2)
        finish(early, late)
    finally:
        monitoring.set_events(tool, 0)
        monitoring.free_tool_id(tool)
    # the one that was parked when events were turned on has its last line left
    assert sorted(seen) == [early.id, late.id, late.id]


# ---- cProfile and profile -----------------------------------------------------------


def mine(ch: Chan[int]) -> None:
    for _ in range(3):
        ch.recv()


def theirs(ch: Chan[int]) -> None:
    for i in range(3):
        ch.send(i)


def profiled(make: Callable[[], Any]) -> dict[str, int]:
    """Calls by function, of a goroutine that profiles itself while another runs."""
    ch: Chan[int] = Chan()
    p = make()

    def run() -> None:
        other = go(theirs, ch)
        p.runcall(mine, ch)
        other.join()

    go(run).join()
    stats: Any = pstats.Stats(p, stream=io.StringIO())
    return {name: calls for (_, _, name), (_, calls, *_) in stats.stats.items()}


def test_profile_measures_its_goroutine_alone() -> None:
    calls = profiled(profile.Profile)
    assert calls["mine"] == 1 and calls["recv"] == 3
    assert "theirs" not in calls and "send" not in calls


def test_cprofile_measures_its_goroutine_up_to_3_11_and_all_from_3_12() -> None:
    calls = profiled(cProfile.Profile)
    assert calls["mine"] == 1
    assert calls.get("theirs", 0) == (1 if SINCE_312 else 0)


# ---- pdb -------------------------------------------------------------------------------


def test_pdb_steps_through_one_goroutine(tmp_path: Path) -> None:
    source = tmp_path / "prog.py"
    source.write_text(
        textwrap.dedent(
            """
            import pdb
            import gort

            def add(n, ch):
                total = 0
                for i in range(n):
                    total += i
                    gort.gosched()
                ch.send(total)

            def debugged(n, ch):
                pdb.set_trace()
                add(n, ch)

            def other():
                for _ in range(50):
                    gort.gosched()
                return "other"

            ch = gort.Chan()
            g = gort.go(debugged, 4, ch)
            h = gort.go(other)
            print(ch.recv(), g.join(), h.join())
            """
        )
    )
    lines = source.read_text().splitlines()
    inner = lines.index("        total += i") + 1
    commands = [f"break {inner}", "continue", "p ('at', i, total, gort.current().id)", "where", "next", "next"]
    commands += ["p ('now', i)", f"clear {source}:{inner}", "continue"]
    done = subprocess.run(
        [sys.executable, str(source)],
        input="\n".join(commands) + "\n",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=program_env(),
    )
    assert done.returncode == 0, done.stderr
    out = done.stdout
    assert "('at', 0, 0, 2)" in out
    assert re.search(r"prog\.py\(\d+\)debugged\(\)(.|\n)*prog\.py\(\d+\)add\(\)", out)  # where
    assert "('now', 0)" in out or "('now', 1)" in out  # over the gosched(), in the same goroutine
    assert "other()" not in out and "6 None other" in out


# ---- coverage.py ---------------------------------------------------------------------------


@pytest.mark.parametrize("core", ["ctrace", "pytrace", *(["sysmon"] if SINCE_312 else [])])
def test_coverage_is_right_without_a_concurrency_setting(core: str, tmp_path: Path) -> None:
    pytest.importorskip("coverage", reason="coverage.py is not installed")
    source = tmp_path / "prog.py"
    source.write_text(
        textwrap.dedent(
            """\
            import gort
            def both(n):
                if n % 2:
                    gort.gosched()
                    return 1
                gort.sleep(0.0001)
                return 2
            def one(n):
                if n < 100:
                    gort.gosched()
                    return 3
                return 4
            def never():
                return 5
            def loop(ch):
                for v in ch:
                    if v > 3:
                        gort.gosched()
            def main():
                ch = gort.Chan()
                gs = [gort.go(f, i) for f in (both, one) for i in range(6)]
                gs += [gort.go(loop, ch) for _ in range(3)]
                for i in range(9):
                    ch.send(i)
                ch.close()
                for g in gs:
                    g.join()
            gort.run(main)
            """
        )
    )
    env = program_env(COVERAGE_CORE=core, COVERAGE_FILE=str(tmp_path / "data"))
    arguments = [sys.executable, "-m", "coverage"]
    run = subprocess.run(
        [*arguments, "run", "--branch", str(source)],
        capture_output=True,
        text=True,
        env=env,
        cwd=tmp_path,
        timeout=PATIENCE,
    )
    assert run.returncode == 0, run.stderr
    report = [*arguments, "json", "-q", "-o", "-", f"--include={source}"]
    text = subprocess.run(report, capture_output=True, text=True, env=env, cwd=tmp_path, timeout=PATIENCE).stdout
    (found,) = json.loads(text)["files"].values()
    assert found["missing_lines"] == [12, 14]
    assert found["missing_branches"] == [[9, 12]]


# ---- from outside: py-spy, gdb, SIGQUIT ---------------------------------------------------------

OUTSIDE = """
import json, os, sys, threading, time
import gort

def receiver(ch):
    return ch.recv()

def sender(ch):
    ch.send(1)

def nested(n, ch):
    if n:
        return nested(n - 1, ch)
    return (ch.
            recv())

class Thing:
    def m\u00e9thode(self):
        gort.sleep(1000)

def sits():
    gort.blocking(time.sleep, 1000)

def report(handles):
    while any(h.state != "waiting" for h in handles if h is not handles[-1]) or handles[-1].state != "syscall":
        time.sleep(0.001)
    chan = gort.Chan(dtype="i64")
    print(json.dumps({"ids": [h.id for h in handles]}), flush=True)
    if "abort" in sys.argv:
        os.abort()
    time.sleep(1000)

def main():
    ch, ch2 = gort.Chan(), gort.Chan()
    handles = [gort.current(), gort.go(receiver, ch), gort.go(sender, ch2), gort.go(nested, 2, ch)]
    handles += [gort.go(Thing().m\u00e9thode), gort.go(sits)]
    handles[1].name = "the receiver"
    threading.Thread(target=report, args=(handles,), daemon=True).start()
    gort.Chan().recv()

gort.run(main)
"""
MAIN, RECEIVER, SENDER, NESTED, METHOD, SITS = range(6)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "outside.py"
    path.write_text(OUTSIDE, encoding="utf-8")
    return path


@contextmanager
def started(source: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """The program once all its goroutines are where they stay, and their numbers."""
    with subprocess.Popen(
        [sys.executable, str(source), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=program_env(),
    ) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())["ids"]
        finally:
            process.kill()


def tool(name: str) -> str:
    """Its path, beside this Python or anywhere."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def outside(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    text = done.stdout + done.stderr
    for refusal in ("Operation not permitted", "Permission Denied", "ptrace: "):
        if refusal.lower() in text.lower():
            pytest.skip(f"{command[0]} may not look at other processes here: {text.strip()[-200:]}")
    return text


def test_pyspy_dumps_goroutines(source: Path) -> None:
    with started(source) as (process, _):
        text = outside(tool("py-spy"), "dump", "--pid", str(process.pid))
    threads = re.split(r"(?m)^(?=Thread )", text)

    def of(function: str) -> str:
        (found,) = [t for t in threads if re.search(rf"(?m)^    {function} \(outside\.py:", t)]
        return found

    receiver, sits = of("receiver"), of("sits")
    assert of("nested").count("nested (outside.py") == 3
    assert "MainThread" in of("main")
    assert of(r"Thing\.m\u00e9thode") and of("sender")
    # it is no work of the thread that last ran it
    assert receiver.split()[1] != sits.split()[1]


def gdb_lines(*command: str) -> str:
    return outside(tool("gdb"), "-nx", "-q", "-batch", *command)


def look(ids: list[int]) -> list[str]:
    asked = ["info goroutines", f"goroutine {ids[RECEIVER]} bt", f"goroutine {ids[NESTED]} bt 3", "info gort"]
    asked += [f"goroutine {ids[SITS]} bt", f"goroutine {ids[SENDER]} wait", "goroutine all bt 1", "goroutine 999 bt"]
    asked += [f"goroutine {ids[RECEIVER]} frame function chan_recv", "info goroutines 2"]
    return [word for command in asked for word in ("-ex", "echo \\n==\\n", "-ex", command)]


def check_gdb(text: str, ids: list[int]) -> None:
    parts = text.split("\n==\n")[1:]
    assert len(parts) == 10, text
    listing, receiver, nested, gort_info, sits, wait, everything, nobody, frame, two = parts
    for i, name, why, where in (
        (MAIN, "main", "chan receive", "in main"),
        (RECEIVER, "the receiver", "chan receive", "in receiver"),
        (SENDER, "sender", "chan send", "in sender"),
        (NESTED, "nested", "chan receive", "in nested"),
        (METHOD, "Thing.m\u00e9thode", "sleep", "in Thing.m\u00e9thode"),
        (SITS, "sits", "syscall", "in sits"),
    ):
        pattern = rf"(?m)^[* ] {ids[i]} +\[{why}[^\]]*\] {re.escape(name)}  \S*outside\.py:\d+ {where}$"
        assert re.search(pattern, listing), (pattern, listing)
    assert re.search(rf"(?m)^\* {ids[SITS]} ", listing)
    line = OUTSIDE.splitlines().index("    return ch.recv()") + 1
    assert f"outside.py:{line} in receiver\n" in receiver
    # its C stack from the switch to its first function, and nothing of the thread gdb stopped in
    stack = re.findall(r"(?m)^#\d+ +(?:0x\w+ in )?(\w+)", receiver)
    assert {"chan_recv", "wait_on", "g_entry"} <= set(stack) and stack[-1] == "gort_g_tramp", receiver
    assert re.search(r"(?m)^#0 ", receiver)
    assert nested.count("in nested\n") == 3 and len(re.findall(r"(?m)^#\d+ ", nested)) == 3, nested
    assert "runs goroutine" in gort_info and "Python: global queue" in gort_info
    assert "nanosleep" in sits, sits
    assert "not claimed, parked" in wait
    assert all(f"goroutine {n} [" in everything for n in ids)
    assert "there is no goroutine 999" in text and not nobody.strip()
    assert "chan_recv" in frame
    assert "... and 4 more" in two


@pytest.mark.slow
def test_gdb_shows_goroutines_of_a_live_process(source: Path) -> None:
    tool("gdb")
    with started(source) as (process, ids):
        text = gdb_lines("-p", str(process.pid), "-ex", f"source {GDB_SCRIPT}", *look(ids))
        assert process.poll() is None
    check_gdb(text, ids)


@pytest.mark.slow
def test_gdb_shows_goroutines_of_a_core_file(source: Path, tmp_path: Path) -> None:
    tool("gdb")
    limit = resource.getrlimit(resource.RLIMIT_CORE)
    if limit[1] != resource.RLIM_INFINITY:
        pytest.skip(f"core files are limited to {limit[1]} bytes here")
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, limit[1]))
    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        with started(source, "abort") as (process, ids):
            process.wait(PATIENCE)
    finally:
        os.chdir(here)
        resource.setrlimit(resource.RLIMIT_CORE, limit)
    cores = list(tmp_path.glob("core*"))
    if not cores:
        pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
        pytest.skip(f"core files go elsewhere: core_pattern is {pattern}")
    check_gdb(gdb_lines(sys.executable, str(cores[0]), "-ex", f"source {GDB_SCRIPT}", *look(ids)), ids)


def test_gdb_without_gort_says_what_is_missing() -> None:
    text = gdb_lines(sys.executable, "-ex", f"source {GDB_SCRIPT}", "-ex", "info goroutines")
    assert "gort is not loaded in this program" in text


def test_sigquit_shows_every_goroutine_and_exits(tmp_path: Path) -> None:
    path = tmp_path / "outside.py"
    default = "import signal; signal.signal(signal.SIGQUIT, signal.SIG_DFL)\n"  # a shell may have it ignored
    path.write_text(default + OUTSIDE, encoding="utf-8")
    with started(path) as (process, ids):
        process.send_signal(signal.SIGQUIT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert err.startswith("SIGQUIT: quit\n")
    assert f"goroutine {ids[RECEIVER]} [chan receive]:\nreceiver()\n\t{path}:" in err
    assert f"goroutine {ids[SENDER]} [chan send]:" in err and f"goroutine {ids[SITS]} [syscall]:" in err
    assert "goroutine 1 [chan receive]:\nmain()" in err


@pytest.mark.parametrize("before", [True, False])
def test_sigquit_is_left_to_the_programs_own_handler(before: bool) -> None:
    install = "signal.signal(signal.SIGQUIT, lambda *_: print('mine'))"
    lines = ["import signal, os", *([install, "import gort"] if before else ["import gort", install])]
    done = run_program("\n".join([*lines, "os.kill(os.getpid(), signal.SIGQUIT)", "gort.gosched()", "print('on')"]))
    assert (done.returncode, done.stdout, done.stderr) == (0, "mine\non\n", "")


def test_sigquit_stays_ignored() -> None:
    done = run_program(
        """
        import os, signal
        signal.signal(signal.SIGQUIT, signal.SIG_IGN)
        import gort
        os.kill(os.getpid(), signal.SIGQUIT)
        print("on")
        """
    )
    assert (done.returncode, done.stdout) == (0, "on\n")
