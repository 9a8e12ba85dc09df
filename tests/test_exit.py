"""The end of a program, in whatever state its goroutines are: bounded, quiet, never a crash or a hang."""

from __future__ import annotations

import random
import signal
import subprocess
import textwrap
from typing import Any

import pytest
from model_stress import scaled
from model_support import output_of, run_program

PRELUDE = """
import atexit, os, signal, subprocess, sys, threading, time, weakref
import gort, gort.sync, gort.time
"""

# What goroutines may be at when the program ends: an expression that never returns by itself. Calls
# in C may sit on the main thread, or leave it free if made by blocking().
STATES = {
    "parked": "gort.Chan().recv()",
    "asleep": "gort.sleep(1000)",
    "selecting": "gort.select(gort.Chan(), gort.time.after(1000))",
    "yielding": "[gort.gosched() for _ in iter(int, 1)]",
    "napping": "[gort.sleep(0.0001) for _ in iter(int, 1)]",
    "computing": "[None for _ in iter(int, 1)]",
    "computing in C": "[gort.blocking(sum, range(10_000)) for _ in iter(int, 1)]",
    "blocked for ever": "gort.blocking(os.read, os.pipe()[0], 1)",
    "blocked again and again": "[gort.blocking(time.sleep, 0.0005) for _ in iter(int, 1)]",
    "blocked beyond the end": "[gort.blocking(time.sleep, 1.02) for _ in iter(int, 1)]",
    "blocked on any thread": "os.read(os.pipe()[0], 1)",
    "blocked now and then": "[time.sleep(0.0005) for _ in iter(int, 1)]",
    "on a lock": "gort.blocking(held.acquire)",
    "on a lock on any thread": "held.acquire()",
    "catching the end": "catch()",
    "starting others": "start()",
    "in a subprocess": "gort.blocking(subprocess.run, ['sleep', '2'])",
}
HELPERS = """
held = threading.Lock()
held.acquire()
def catch():
    while True:
        try:
            gort.sleep(1000)
        except gort.GoroutineExit:
            pass
def start():
    try:
        gort.sleep(1000)
    finally:
        gort.go(start)
def state(fn):
    try:
        fn()
    finally:
        ended.append(1)
ended = []
def settled(gs):
    while not all(g.state in ("waiting", "syscall", "dead") for g in gs):
        gort.sleep(0.0005)
"""
ENDS = {
    "falls off": ("pass", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "raises": ("raise KeyError('boo')", 1),
    "os._exit": ("os._exit(4)", 4),
    "in a goroutine by os._exit": ("gort.go(os._exit, 5); gort.sleep(1000)", 5),
    "of run": ("gort.run(lambda: sys.exit(6))", 6),
    "interrupted": ("os.kill(os.getpid(), signal.SIGINT); gort.sleep(1000)", -signal.SIGINT),
}
# run() waits for the end of all, without a bound.
ENDLESS = {"computing", "computing in C", "blocked for ever", "blocked again and again", "blocked beyond the end"}
ENDLESS |= {"blocked on any thread", "blocked now and then", "on a lock", "on a lock on any thread"}
ENDLESS |= {"catching the end", "starting others", "yielding", "napping", "in a subprocess"}


def program(source: str) -> str:
    return output_of(PRELUDE + HELPERS + textwrap.dedent(source))


def ending(source: str, **env: str) -> subprocess.CompletedProcess[str]:
    return run_program(PRELUDE + HELPERS + textwrap.dedent(source), timeout=60, **env)


@pytest.mark.parametrize("what", STATES)
def test_a_program_ends_whatever_its_goroutines_are_at(what: str) -> None:
    done = ending(
        f"""
        gs = [gort.go(state, lambda: {STATES[what]}) for _ in range(3)]
        for _ in range(20):
            gort.sleep(0.0005)
        print("end", flush=True)
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


@pytest.mark.parametrize("end", ENDS)
def test_each_way_to_end_unwinds_the_goroutines(end: str) -> None:
    code, status = ENDS[end]
    done = ending(
        f"""
        def waits():
            try:
                gort.Chan().recv()
            finally:
                gort.sleep(0.001)
                print("finally", flush=True)
        settled([gort.go(waits)])
        {code}
        """
    )
    assert (done.returncode, done.stdout) == (status, "" if "_exit" in code else "finally\n"), done.stderr
    assert ("boo" in done.stderr) == (end == "raises")


def test_sys_exit_ends_its_goroutine_alone_and_is_raised_by_join() -> None:
    done = ending(
        """
        g = gort.go(sys.exit, 3)
        gort.sleep(0.001)
        gort.go(sys.exit, 4)
        gort.sleep(0.001)
        print("goes on", flush=True)
        g.join()
        print("not here")
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "goes on\n", "")


def test_the_main_goroutine_waits_as_a_thread_once_all_is_unwound() -> None:
    """In atexit functions that were registered before gort was imported, and in finalisers."""
    done = run_program(
        """
        import atexit, os

        class Late:
            def __del__(self, write=os.write):
                write(1, b"del\\n")
                self.use()

        def use():
            ch = gort.Chan(1)
            ch.send(1)
            assert ch.recv() == 1
            gort.sleep(0.001), gort.gosched(), gort.blocking(os.getpid), gort.lock_os_thread()
            for wait in (ch.recv, gort.sync.WaitGroup().wait, lambda: gort.select(ch)):
                if wait == ch.recv:
                    try:
                        ch.recv(timeout=0.001)
                    except TimeoutError:
                        print("timed out")
                try:
                    wait()
                except gort.Deadlock as e:
                    print(e)
                wg = gort.sync.WaitGroup()
                wg.add(1)
                try:
                    wg.wait()
                except gort.Deadlock:
                    print("deadlock")
            try:
                gort.go(print)
            except RuntimeError as e:
                print(e)
            assert gort.current() is not None
            print("used", flush=True)

        atexit.register(use)
        import gort, gort.sync, sys

        def catches():
            while True:
                try:
                    gort.sleep(0.001)
                except BaseException:
                    pass

        for _ in range(5):
            gort.go(catches)
        late = Late()
        late.use = lambda sleep=gort.sleep, write=os.write: sleep(0.001) or write(1, b"slept\\n")
        """,
        timeout=60,
    )
    text = "the program is ending: no goroutine is left to end the wait\n"
    assert done.stdout == (
        f"timed out\n{text}deadlock\ndeadlock\n{text}deadlock\ngo(): the program is ending\nused\ndel\nslept\n"
    ), done.stderr
    assert done.returncode == 0


def test_atexit_functions_use_goroutines() -> None:
    out = program(
        """
        def late():
            ch = gort.Chan()
            gort.go(ch.send, 5)
            print(ch.recv(), gort.go(lambda: 6).join())
            gort.sleep(0.001)
        atexit.register(late)
        settled([gort.go(state, gort.Chan().recv)])
        atexit.register(lambda: print(ended))
        """
    )
    assert out == "[]\n5 6\n"


def test_a_finalisers_goroutine_runs_before_the_end() -> None:
    out = program(
        """
        class Thing: pass
        thing = Thing()
        weakref.finalize(thing, lambda: print(gort.go(lambda: 5).join()))
        """
    )
    assert out == "5\n"


def test_threads_that_use_gort_at_the_end() -> None:
    """Others are waited for, daemons are not."""
    out = program(
        """
        ch, gate = gort.Chan(), gort.Chan()

        def daemon(**options):
            while True:
                try:
                    ch.recv(**options)
                except TimeoutError:
                    pass

        for options in ({}, {"timeout": 0.0001}, {"timeout": 1000}):
            threading.Thread(target=daemon, kwargs=options, daemon=True).start()

        def waited_for():
            gate.recv()
            print(gort.go(lambda: 7).join())
        threading.Thread(target=waited_for).start()
        gort.go(lambda: [gort.sleep(0.02), gate.send(1)])
        """
    )
    assert out == "7\n"


def test_ctrl_c_while_the_goroutines_are_unwound_ends_that() -> None:
    done = ending(
        """
        def catches():
            try:
                gort.sleep(1000)
            finally:
                os.kill(os.getpid(), signal.SIGINT)
                catch()
        settled([gort.go(catches)])
        """
    )
    assert done.returncode == 0
    assert "KeyboardInterrupt" in done.stderr


def test_native_goroutines_do_not_hold_up_the_end() -> None:
    out = program(
        """
        import ctypes
        from gort import native
        libc = ctypes.CDLL(None)
        for _ in range(3):
            native.go(ctypes.cast(libc.pause, ctypes.c_void_p).value)
            native.go(ctypes.cast(libc.sleep, ctypes.c_void_p).value, 1)
        print("end")
        """
    )
    assert out == "end\n"


def test_many_parked_goroutines_at_the_end() -> None:
    done = ending(
        """
        ch = gort.Chan()
        gs = [gort.go(state, ch.recv) for _ in range(50_000)]
        settled(gs[-1:])
        class Last:
            def __del__(self, ended=ended, write=os.write):
                write(1, b"some\\n" if ended else b"none\\n")
        last = Last()
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "some\n", "")


def test_a_goroutine_comes_back_to_the_main_thread_while_python_ends() -> None:
    """Up to 3.13 CPython ends the thread then, and glibc on the stack that the main goroutine uses elsewhere."""
    done = ending(
        """
        import _thread
        r, w = os.pipe()
        class Out:
            closed = False
            write = sys.stdout.write
            def flush(self, out=sys.stdout):
                out.flush()
                if sys.is_finalizing():
                    os.write(w, b"x" * calls)
                    for _ in range(20):
                        time.sleep(0.005)
                    os.write(1, b"finalising\\n")
        sys.stdout = Out()
        calls = 0
        while _thread.get_native_id() == os.getpid():
            gort.go(os.read, r, 1)
            calls += 1
            gort.sleep(0.02)
        print("away", flush=True)
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "away\nfinalising\n", "")


def random_end(rnd: random.Random) -> tuple[str, int, dict[str, Any]]:
    """A program in a random state that ends in a random way; its status; how it is run."""
    end, status = ENDS[rnd.choice(list(ENDS))]
    states = [s for s in STATES if "run" not in end or s not in ENDLESS]
    lines = [f"gort.go(state, lambda: {STATES[rnd.choice(states)]})" for _ in range(rnd.randrange(1, 12))]
    if rnd.random() < 0.3:
        lines.append("threading.Thread(target=lambda: gort.Chan().recv(), daemon=True).start()")
    if rnd.random() < 0.3:
        lines.append(
            "threading.Thread(target=lambda: [gort.go(int).join() for _ in iter(int, 1)], daemon=True).start()"
        )
    if rnd.random() < 0.3:
        lines.append("atexit.register(lambda: gort.go(int).join())")
    if rnd.random() < 0.3:
        lines.append("os.waitpid(os.fork() or os._exit(0), 0)")
    rnd.shuffle(lines)
    lines += [f"gort.sleep({rnd.choice([0, 0.0001, 0.001, 0.012, 0.03])})"] * rnd.randrange(2)
    env = {"GORT_DEBUG": "stockswap=1"} if rnd.random() < 0.2 else {}
    env |= {"PYTHONDEVMODE": "1"} if rnd.random() < 0.2 else {}
    return "\n".join([*lines, end]), status, env


@pytest.mark.stress
@pytest.mark.parametrize("seed", range(scaled(12)))
def test_random_states_and_ends(seed: int) -> None:
    source, status, env = random_end(random.Random(seed))
    done = ending(source, **env)
    assert done.returncode == status, f"{source}\n{done.stdout}\n{done.stderr}"
