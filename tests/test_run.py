"""run(), and how programs end with and without it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from model_support import output_of, program_env, run_program

import gort


def test_run_returns_mains_result() -> None:
    assert gort.run(lambda a, b=0: a + b, 1, b=2) == 3


def test_run_raises_mains_exception() -> None:
    with pytest.raises(ZeroDivisionError):
        gort.run(divmod, 1, 0)


def test_run_again_and_again() -> None:
    for i in range(20):
        assert gort.run(lambda i=i: gort.go(lambda: i).join()) == i


@pytest.mark.parametrize("value", [5, None, "main"])
def test_run_of_a_non_callable_raises_type_error(value: Any) -> None:
    with pytest.raises(TypeError):
        gort.run(value)


def test_main_of_run_is_a_goroutine() -> None:
    assert gort.run(lambda: gort.current() is not None)


def test_run_unwinds_the_goroutines_still_alive() -> None:
    log = []

    def body(i: int) -> None:
        try:
            gort.Chan().recv()
        except gort.GoroutineExit:
            log.append(("exit", i))
            raise
        finally:
            log.append(("finally", i))

    def main() -> str:
        for i in range(3):
            gort.go(body, i)
        while "\n".join(gort.stack(all=True).split("\n")).count("[chan receive]") < 3:
            gort.gosched()
        return "result"

    assert gort.run(main) == "result"
    assert gort.num_goroutine() == 1
    assert sorted(log) == [("exit", 0), ("exit", 1), ("exit", 2), ("finally", 0), ("finally", 1), ("finally", 2)]


def test_run_unwinds_them_when_main_fails_too() -> None:
    log, started = [], gort.Chan()

    def body() -> None:
        try:
            started.send(None)
            gort.sleep(3600)
        finally:
            log.append("finally")

    def main() -> None:
        gort.go(body)
        started.recv()
        raise LookupError("main")

    with pytest.raises(LookupError, match="main"):
        gort.run(main)
    assert log == ["finally"]


def test_run_joins_what_it_unwinds() -> None:
    """A finally block that waits is waited for."""
    log, started = [], gort.Chan()

    def body() -> None:
        try:
            started.send(None)
            gort.sleep(3600)
        finally:
            gort.sleep(0.02)
            log.append("after a wait")

    def main() -> None:
        gort.go(body)
        started.recv()

    gort.run(main)
    assert log == ["after a wait"]


def test_run_unwinds_goroutines_that_wait_for_each_other() -> None:
    log, a, b = [], gort.Chan(), gort.Chan()

    def first() -> None:
        try:
            a.send(None)
            gort.Chan().recv()
        finally:
            b.send("handed over")

    def second() -> None:
        try:
            a.send(None)
            gort.Chan().recv()
        except gort.GoroutineExit:
            log.append(b.recv())

    def main() -> None:
        gort.go(first)
        gort.go(second)
        a.recv()
        a.recv()

    gort.run(main)
    assert log == ["handed over"]


def test_run_unwinds_goroutines_in_every_kind_of_wait() -> None:
    from model_support import OPERATIONS

    log = []

    def body(op: Any) -> None:
        wait = op.make()
        try:
            wait.call()
        finally:
            log.append(op.name)

    def main() -> int:
        gs = [gort.go(body, op) for op in OPERATIONS]
        while not all(g.state == "waiting" for g in gs):
            gort.gosched()
        return len(gs)

    assert gort.run(main) == len(log)


def test_handles_live_on_after_run() -> None:
    kept: list[Any] = []

    def main() -> None:
        kept.append(gort.go(gort.sleep, 3600))
        kept.append(gort.go(lambda: "done"))
        kept[1].join()

    gort.run(main)
    assert kept[0].done
    assert kept[0].join() is None
    assert kept[1].join() == "done"


def test_deadlock_in_main_comes_out_of_run() -> None:
    with pytest.raises(gort.Deadlock):
        gort.run(lambda: gort.Chan().recv())


# ---- the end of a program --------------------------------------------------------------


def test_importing_gort_is_enough() -> None:
    assert (
        output_of(
            """
            import gort
            ch = gort.Chan()
            gort.go(ch.send, "hello")
            print(ch.recv())
            """
        )
        == "hello\n"
    )


def test_live_goroutines_are_unwound_at_the_end() -> None:
    out = output_of(
        """
        import gort
        started = gort.Chan()
        def body(i):
            try:
                started.send(i)
                gort.Chan().recv()
            except gort.GoroutineExit:
                print("exit", i, flush=True)
                raise
            finally:
                print("finally", i, flush=True)
        for i in range(3):
            gort.go(body, i)
        for i in range(3):
            started.recv()
        print("end")
        """
    )
    lines = out.splitlines()
    assert lines[0] == "end"
    assert sorted(lines[1:]) == ["exit 0", "exit 1", "exit 2", "finally 0", "finally 1", "finally 2"]


def test_nothing_is_waited_for_at_the_end() -> None:
    assert (
        output_of(
            """
            import gort
            g = gort.go(gort.sleep, 100000)
            while g.state != "waiting":
                gort.gosched()
            print("end")
            """
        )
        == "end\n"
    )


def test_a_finally_block_that_never_ends_does_not_keep_the_program() -> None:
    done = run_program(
        """
        import gort
        started = gort.Chan()
        def body():
            while True:
                try:
                    started.send(None, timeout=100000)
                    gort.sleep(100000)
                except gort.GoroutineExit:
                    pass
        gort.go(body)
        started.recv()
        print("end")
        """
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "end\n"


def test_a_goroutine_in_a_blocking_call_is_left_behind() -> None:
    done = run_program(
        """
        import gort, os
        r, w = os.pipe()
        g = gort.go(gort.blocking, os.read, r, 1)
        while g.state != "syscall":
            gort.gosched()
        print("end")
        """
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "end\n"


def test_the_exit_code_is_mains() -> None:
    done = run_program(
        """
        import gort, sys
        gort.go(gort.sleep, 100000)
        gort.gosched()
        sys.exit(7)
        """
    )
    assert done.returncode == 7


def test_an_exception_in_main_ends_the_program_with_its_traceback() -> None:
    done = run_program(
        """
        import gort
        gort.go(gort.sleep, 100000)
        gort.gosched()
        raise ValueError("in main")
        """
    )
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("ValueError: in main")


def test_an_uncaught_deadlock_ends_the_program_with_the_dump() -> None:
    done = run_program(
        """
        import gort
        def stuck():
            gort.Chan().recv()
        gort.go(stuck)
        gort.Chan().recv()
        """
    )
    assert done.returncode == 1
    assert "Deadlock" in done.stderr
    assert "goroutine 1 [chan receive" in done.stderr
    assert "stuck" in done.stderr


def test_run_inside_a_program_runs_the_finally_blocks() -> None:
    assert (
        output_of(
            """
            import gort
            def body(ch):
                try:
                    ch.send(1)
                    gort.sleep(100000)
                finally:
                    print("finally")
            def main():
                ch = gort.Chan()
                gort.go(body, ch)
                return ch.recv()
            print(gort.run(main))
            """
        )
        == "finally\n1\n"
    )


def test_atexit_functions_may_still_use_goroutines_or_fail_cleanly() -> None:
    done = run_program(
        """
        import atexit, gort
        def late():
            try:
                print(gort.go(lambda: "late").join())
            except RuntimeError:
                print("late")
        atexit.register(late)
        print("end")
        """
    )
    assert (done.returncode, done.stdout) == (0, "end\nlate\n"), done.stderr


def test_a_thousand_parked_goroutines_at_exit() -> None:
    out = output_of(
        """
        import gort
        n = 0
        def body():
            global n
            try:
                gort.Chan().recv()
            finally:
                n += 1
                if n == 1000:
                    print("all unwound", flush=True)
        gs = [gort.go(body) for _ in range(1000)]
        while not all(g.state == "waiting" for g in gs):
            gort.gosched()
        """
    )
    assert out == "all unwound\n"


# ---- signals ------------------------------------------------------------------------------


def test_a_signal_handler_runs_while_main_waits_and_the_wait_goes_on() -> None:
    import os

    # With room for it: the main goroutine, which waits, may be what runs the handler.
    log, ch = [], gort.Chan(1)

    def handler(number: int, frame: Any) -> None:
        log.append(number)
        ch.send_nowait("from the handler")

    old = signal.signal(signal.SIGUSR1, handler)
    try:
        g = gort.go(os.kill, os.getpid(), signal.SIGUSR1)
        assert ch.recv(timeout=60) == "from the handler"
        g.join()
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert log == [signal.SIGUSR1]


# Preloaded, it sends a signal where none is expected: after the last look for one, before the sleep.
LATE_SIGNAL = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>

int armed; /* how many sleeps of the main thread are to be hit */

static void hit(void)
{
    if (armed > 0 && gettid() == getpid()) {
        armed--;
        tgkill(getpid(), getpid(), SIGUSR1);
    }
}

long syscall(long number, ...)
{
    long a[6], (*real)(long, ...) = dlsym(RTLD_NEXT, "syscall");
    va_list ap;
    va_start(ap, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(ap, long);
    va_end(ap);
    if (number == SYS_epoll_pwait2 || (number == SYS_futex && (a[1] & 127) == 0)) hit(); /* FUTEX_WAIT */
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
"""


@pytest.mark.parametrize("network", [False, True], ids=["futex", "poller"])
def test_a_signal_just_before_the_main_thread_sleeps_is_not_lost(tmp_path: Path, network: bool) -> None:
    source, shim = tmp_path / "late.c", tmp_path / "late.so"
    source.write_text(LATE_SIGNAL)
    subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", str(source), "-o", str(shim), "-ldl"], check=True)
    program = f"""
        import ctypes, signal
        import gort
        from gort import net

        if {network}:
            ends = net.pipe()
            gort.go(ends[0].read, 1)
        gort.go(gort.sleep, 1000)
        ch = gort.Chan(9)
        signal.signal(signal.SIGUSR1, lambda *a: ch.send_nowait(1))
        armed = ctypes.c_int.in_dll(ctypes.CDLL({str(shim)!r}), "armed")
        gort.sleep(0.1)
        for i in range(3):
            armed.value = 1
            print(ch.recv(), armed.value)
    """
    assert output_of(program, LD_PRELOAD=str(shim)) == "1 0\n" * 3


def test_sigint_is_keyboard_interrupt_in_main_wherever_it_waits() -> None:
    assert (
        output_of(
            """
            import gort, os, signal
            ch = gort.Chan()
            other = gort.go(ch.recv_ok)
            def interrupt():
                os.kill(os.getpid(), signal.SIGINT)
                gort.sleep(100000)
            for wait in (ch.recv, lambda: gort.sleep(100000), lambda: gort.select(ch), other.join):
                g = gort.go(interrupt)
                try:
                    wait()
                except KeyboardInterrupt:
                    print("KeyboardInterrupt")
                g.kill()
                g.join()
            ch.close()
            print(other.join())
            """
        )
        == "KeyboardInterrupt\n" * 4 + "(None, False)\n"
    )


def test_ctrl_c_from_outside_ends_a_waiting_program() -> None:
    source = """
        import gort
        try:
            g = gort.go(gort.sleep, 100000)
            while g.state != "waiting":
                gort.gosched()
            print("ready", flush=True)
            gort.Chan().recv()
        finally:
            print("finally", flush=True)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=program_env(),
    ) as child:
        assert child.stdout
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    assert out == "finally\n"
    assert "KeyboardInterrupt" in err
    assert child.returncode in (-signal.SIGINT, 130, 1)
