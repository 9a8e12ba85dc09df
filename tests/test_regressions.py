"""Bugs that were found by review and fixed: one test each, most in a program of its own."""

from __future__ import annotations

import ctypes
import gc
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from model_support import finish, park, run_program

import gort
import gort.sync

# Only bounds how long a broken build hangs.
HANG = 30.0


def words_of(source: str) -> list[str]:
    done = run_program(source, timeout=HANG)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout.split()


def prints(source: str, expected: str) -> None:
    assert words_of(source) == expected.split()


# ---- threads: hand-off, masks, failures ------------------------------------------------


def test_python_callbacks_in_native_goroutines_park_and_yield() -> None:
    """A ctypes callback that slept or yielded in a native goroutine crashed."""
    prints(
        """
        import ctypes, gort, gort.native

        def body(_):
            gort.sleep(0.01)
            for _ in range(100):
                gort.gosched()
            done.append(1)

        done = []
        callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(body)
        for g in [gort.native.go(callback) for _ in range(4)]:
            g.join()
        print(len(done))
        """,
        "4",
    )


def test_goroutines_run_beside_a_system_call_after_blocking() -> None:
    """sysmon slept on after blocking(), and nobody took the P from a main that sat in a system call."""
    prints(
        """
        import os, time, gort

        gort.blocking(time.sleep, 0.05)
        r, w = os.pipe()

        def body():
            for _ in range(3):
                gort.sleep(0.01)
            os.write(w, b"x")

        g = gort.go(body)
        print(os.read(r, 1).decode())
        g.join()
        """,
        "x",
    )


def test_a_computing_plain_thread_does_not_stop_goroutines() -> None:
    """Beside a thread that computed, nobody took the P from a main that sat in a system call."""
    prints(
        """
        import os, threading, gort

        stop = False

        def compute():
            while not stop:
                sum(range(1000))

        r, w = os.pipe()

        def body():
            for _ in range(5):
                gort.sleep(0.01)
            os.write(w, b"x")

        g = gort.go(body)
        gort.sleep(0.05)
        thread = threading.Thread(target=compute)
        thread.start()
        print(os.read(r, 1).decode())
        stop = True
        thread.join()
        g.join()
        """,
        "x",
    )


def test_a_locked_main_that_waits_for_ever_is_a_deadlock() -> None:
    """With main locked to its thread the deadlock was not seen."""
    prints(
        """
        import gort

        gort.lock_os_thread()
        try:
            gort.Chan().recv()
        except gort.Deadlock:
            print("deadlock")
        """,
        "deadlock",
    )


def test_a_deadlock_is_seen_after_a_thread_went_idle_without_a_p() -> None:
    """The last thread to go idle came out of a system call without a P, and did not look."""
    prints(
        """
        import time, gort

        def calls():
            time.sleep(0.3)  # long enough to lose the P

        def yields():
            for _ in range(3):
                gort.gosched()

        def main():
            gort.go(yields)
            gort.go(calls)
            try:
                gort.Chan().recv()
            except gort.Deadlock:
                print("deadlock")

        gort.run(main)
        """,
        "deadlock",
    )


def test_what_goroutines_start_inherits_no_signal_mask() -> None:
    """Threads and processes started on one of gort's threads had all signals blocked."""
    prints(
        """
        import signal, subprocess, threading

        def of_thread():
            masks = []
            thread = threading.Thread(target=lambda: masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, [])))
            thread.start()
            thread.join()
            return masks

        def of_child():
            return subprocess.check_output(["grep", "SigBlk", "/proc/self/status"])

        before = of_thread(), of_child()

        import gort

        def body():
            gort.lock_os_thread()  # on a thread other than main's
            return of_thread(), of_child()

        print(gort.go(body).join() == before, (of_thread(), of_child()) == before)
        """,
        "True True",
    )


def test_a_goroutine_is_run_though_no_thread_can_be_made() -> None:
    """After a thread's creation failed, the P it was made for was lost."""
    prints(
        """
        import time, gort
        from gort._core import _runtime

        _runtime.fail_next("thread", 1, 100000)
        ch = gort.Chan()

        def main():
            gort.go(time.sleep, 0.2)
            gort.go(ch.send, "sent")
            gort.go(time.sleep, 0.2)
            print(ch.recv())

        gort.go(time.sleep, 0.2)
        gort.run(main)
        """,
        "sent",
    )


# ---- goroutines that cannot start --------------------------------------------------------


# A first failure is tried again if it was met on a goroutine, not if on a scheduler's own stack.
FAILED_START = [(1, {"5", "MemoryError"}), (2, {"MemoryError"})]


@pytest.mark.parametrize(("times", "outcomes"), FAILED_START)
def test_a_failed_start_is_not_counted(times: int, outcomes: set[str]) -> None:
    """num_goroutine() went on counting a goroutine for which there was no stack."""
    words = words_of(
        f"""
        import gort
        from gort._core import _runtime

        _runtime.fail_next("guard", 1, {times})
        g = gort.go(lambda: 5)
        try:
            print(g.join())
        except MemoryError:
            print("MemoryError")
        print(gort.num_goroutine())
        """
    )
    outcome, left = words
    assert outcome in outcomes
    assert left == "1"


FAILED_START_HOOK = """
    import gort
    from gort._core import _runtime

    log = []

    def hook(goroutine, exc):
        gort.sleep(0.01)
        log.append(type(exc).__name__)

    gort.excepthook = hook

    def body(fails):
        ch, gate = gort.Chan(), gort.Chan()
        sleepers = [gort.go(gate.recv_ok) for _ in range(6)]  # use up the stacks there are
        sender = gort.go(lambda: [gort.sleep(0.1), ch.send("sent")])
        while any(g.state != "waiting" for g in [*sleepers, sender]):
            gort.gosched()
        _runtime.fail_next("guard", 1, fails)
        g = gort.go(lambda: 5)
        print(ch.recv())
        for _ in range(100):
            gort.sleep(0.001)
        try:
            print(g.join())
        except MemoryError:
            print("MemoryError")
        gate.close()
        for sleeper in sleepers:
            sleeper.join()
        sender.join()
"""


@pytest.mark.parametrize(("times", "outcomes"), FAILED_START)
def test_an_excepthook_may_park_when_a_start_failed(times: int, outcomes: set[str]) -> None:
    """The hook ran on whichever goroutine was switching, and its park lost that one's wake-up."""
    words = words_of(FAILED_START_HOOK + f"\n    gort.go(body, {times}).join()\n    print(gort.num_goroutine())")
    sent, outcome, left = words
    assert (sent, left) == ("sent", "1")
    assert outcome in outcomes


def test_an_excepthook_is_told_of_a_failed_start_nobody_holds() -> None:
    """The handle died with the failed start, and a hook that parked there hung its goroutine."""
    prints(
        """
        import gort
        from gort._core import _runtime

        ch = gort.Chan()

        def hook(goroutine, exc):
            gort.sleep(0.01)
            print(type(exc).__name__, flush=True)
            ch.close()

        gort.excepthook = hook

        def body():
            gort.gosched()
            _runtime.fail_next("guard", 1, 2)
            gort.go(lambda: None)
            print(ch.recv_ok())

        gort.go(body).join()
        print(gort.num_goroutine())
        """,
        "MemoryError (None, False) 1",
    )


# ---- failures ------------------------------------------------------------------------------


def test_a_failure_in_a_reference_cycle_is_reported(panics: list[Any]) -> None:
    """The collector cleared (handle, exception, frame) before the handle could report."""

    def body() -> None:
        me = gort.current()
        raise LookupError(me.id)

    gc.collect()
    g = gort.go(body)
    finish(g)
    number = g.id
    assert panics == []
    del g
    gc.collect()
    assert [(goroutine.id, type(exc)) for goroutine, exc in panics] == [(number, LookupError)]


def test_an_excepthook_that_raises_is_reported_by_pythons_own() -> None:
    """sys.unraisablehook was given an argument it refuses."""
    done = run_program(
        """
        import gort

        def hook(goroutine, exc):
            raise LookupError("in the hook")

        gort.excepthook = hook
        g = gort.go(divmod, 1, 0)
        while not g.done:
            gort.gosched()
        del g
        print("end")
        """,
        timeout=HANG,
    )
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr
    assert "LookupError: in the hook" in done.stderr
    assert "UnraisableHookArgs" not in done.stderr


@pytest.mark.parametrize("error", ["gort.GoroutineExit", "KeyboardInterrupt", "SystemExit"])
def test_a_callable_whose_getattr_raises_a_base_exception_can_be_joined(error: str) -> None:
    """Looking for its name while it ended raised, and its joiners were never woken."""
    prints(
        f"""
        import gort

        class Function:
            def __init__(self, fails):
                self.fails = fails

            def __call__(self):
                return 1 // (not self.fails)

            def __getattr__(self, name):
                raise {error}

        print(gort.go(Function(False)).join())
        try:
            gort.go(Function(True)).join()
        except ZeroDivisionError:
            print("raised")
        """,
        "1 raised",
    )


# ---- signals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["raise KeyboardInterrupt", "os.kill(os.getpid(), signal.SIGINT)"])
def test_a_keyboard_interrupt_is_kept_while_main_is_runnable(how: str) -> None:
    """It came while main was runnable, not waiting, and main's next wait did not raise it."""
    prints(
        f"""
        import os, signal, gort

        ch = gort.Chan()

        def body():
            {how}

        gort.go(lambda: [gort.sleep(1.5), ch.close()])
        gort.gosched()
        try:
            gort.go(body)
            gort.gosched()
            ch.recv()
        except KeyboardInterrupt:
            print("interrupt")
        """,
        "interrupt",
    )


def test_the_second_signals_handler_runs_though_the_first_raised() -> None:
    """A handler that raised ended the round, and a signal that came with it was forgotten."""
    prints(
        """
        import os, signal, sys, threading, time, gort

        got = []

        def first(*args):
            got.append(1)
            raise LookupError

        signal.signal(signal.SIGUSR1, first)
        signal.signal(signal.SIGUSR2, lambda *args: got.append(2))
        main = gort.current()
        sys.setswitchinterval(1)  # so that both are there when main looks

        def send():
            while main.state != "waiting":
                time.sleep(0)
            pid, kill = os.getpid(), os.kill
            kill(pid, signal.SIGUSR1), kill(pid, signal.SIGUSR2)

        thread = threading.Thread(target=send)
        thread.start()
        try:
            gort.Chan().recv()
        except LookupError:
            pass
        until = time.monotonic() + 2
        while len(got) < 2 and time.monotonic() < until:
            pass
        print(got, time.monotonic() < until)  # a later wait finds what was forgotten
        thread.join()
        """,
        "[1, 2] True",
    )


# ---- waiting -----------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", [0, 1])
def test_cond_passes_a_signal_on_when_its_waiter_is_killed(victim: int) -> None:
    """A signal given to a waiter that was being killed woke nobody."""
    mu = gort.sync.Mutex()
    cond = gort.sync.Cond(mu)
    woken = []

    def body(i: int) -> None:
        with mu:
            cond.wait()
            woken.append(i)

    waiters = [park(body, i) for i in range(2)]
    waiters[victim].kill()
    cond.signal()
    finish(*waiters)
    assert woken == [1 - victim]


def test_a_context_whose_done_gives_a_new_channel_each_time_raises_type_error() -> None:
    """Nobody owned that channel, and the wait went on with freed memory."""
    prints(
        """
        import gort, gort.sync, gort.time

        class Context:
            def done(self):
                return gort.time.after(0.3)

            def err(self):
                return RuntimeError("the context ended")

        ch, mu = gort.Chan(), gort.sync.Mutex()
        mu.lock()
        for wait in (ch.recv, ch.recv_ok, lambda **kw: ch.send(1, **kw), mu.lock, lambda **kw: gort.select(ch, **kw)):
            try:
                wait(timeout=2, ctx=Context())
            except TypeError as e:
                print("same" in str(e))
        """,
        "True " * 5,
    )


# ---- objects, states, modules ------------------------------------------------------------------


@pytest.mark.parametrize(
    "use",
    [
        "new(gort.time.Ticker).stop()",
        "new(gort.time.Ticker).reset(1)",
        "repr(new(_runtime.NativeGoroutine))",
        "new(_runtime.NativeGoroutine).join()",
        "new(gort.Sender).send(1)",
        "gort.select((new(gort.Sender), 1), default=True)",
        "new(gort.Receiver).recv()",
        "gort.select(new(gort.Receiver), default=True)",
    ],
)
def test_an_object_made_by_new_alone_raises(use: str) -> None:
    """What __init__ had not filled in was used all the same: a crash."""
    prints(
        f"""
        import gort, gort.time
        from gort._core import _runtime

        def new(cls):
            return cls.__new__(cls)

        try:
            {use}
        except (TypeError, RuntimeError, AttributeError):
            print("raised")
        """,
        "raised",
    )


@pytest.mark.parametrize("end", ["gate.close()", "pass"], ids=["released", "unwound"])
def test_seventy_thousand_goroutines_end_at_once(end: str) -> None:
    """More ended than the pool of thread states keeps: "tstate is still current"."""
    prints(
        f"""
        import gort

        gate = gort.Chan()

        def main():
            last = [gort.go(gate.recv_ok) for _ in range(70_000)][-1]
            while last.state != "waiting":
                gort.gosched()
            {end}

        gort.run(main)
        print(gort.num_goroutine())
        """,
        "1",
    )


def test_settrace_in_one_goroutine_while_others_run() -> None:
    """A 3.13 thread state swapped in with an old instrumentation version span for ever."""
    prints(
        """
        import sys, gort

        def spin(n):
            for _ in range(n):
                gort.gosched()

        def traced():
            events = []

            def trace(frame, event, arg):
                events.append(event)
                return trace

            for _ in range(50):
                sys.settrace(trace)
                spin(3)
                sys.settrace(None)
                gort.gosched()
            return events.count("call"), events.count("return")

        def main():
            others = [gort.go(spin, 1000) for _ in range(4)]
            print(*gort.go(traced).join())
            for g in others:
                g.join()

        gort.run(main)
        """,
        "50 50",
    )


@pytest.mark.parametrize("wait", ["gort.gosched()", "gort.sleep(0.001)", "gort.blocking(time.sleep, 0.001)"])
def test_goroutines_that_import_one_slow_module_get_one_whole_module(tmp_path: Path, wait: str) -> None:
    """Import locks took all goroutines of a thread for one, and the second got a half-made module."""
    (tmp_path / "slow_module.py").write_text(
        f"import sys, time, gort\nsys.runs.append(1)\nfor _ in range(20):\n    {wait}\nlast = object()\n"
    )
    source = f"""
        import sys, gort

        sys.path.insert(0, {str(tmp_path)!r})
        sys.runs = []

        def body():
            import slow_module
            return slow_module.last

        found = [g.join() for g in [gort.go(body) for _ in range(3)]]
        print(len(set(found)), len(sys.runs))
    """
    prints(source, "1 1")


def test_who_waits_in_a_callback_from_c_goes_on_on_its_os_thread() -> None:
    """C code that calls back may hold locks which know it by its OS thread: SQLite's connections hung so."""
    gate = gort.Chan[None]()
    threads: list[tuple[int, int]] = []

    def waits() -> None:
        before = threading.get_native_id()
        gate.recv_ok()
        gort.gosched()
        threads.append((before, threading.get_native_id()))

    callback = ctypes.CFUNCTYPE(None)(waits)
    waiting = [gort.go(callback) for _ in range(3)]
    gort.gosched()
    sleeping = gort.go(time.sleep, 0.05)  # the OS thread that all of them have run on is not free now
    gort.gosched()
    gate.close()
    for g in [*waiting, sleeping]:
        g.join()
    assert len(threads) == 3
    assert all(before == after for before, after in threads), threads
