"""Dumps in Go's form, a goroutine's own stack, and GORT_DEBUG=schedtrace in Go's line format."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from model_support import PlainThread, park, program_env, run_program

import gort

HEADER = re.compile(r"^goroutine (\d+) \[([a-zA-Z. ()]+)(, \d+ minutes)?(, locked to thread)?\]:$", re.MULTILINE)


def waits_here(ch: Any) -> None:
    ch.recv()


def calls_it(ch: Any) -> None:
    waits_here(ch)


def test_stack_is_the_calling_goroutines() -> None:
    text = gort.stack()
    assert text.startswith("goroutine 1 [running")
    assert "test_stack_is_the_calling_goroutines" in text
    assert len(HEADER.findall(text)) == 1


def test_stack_in_a_goroutine_is_its_own() -> None:
    def in_the_goroutine() -> str:
        return gort.stack()

    g = gort.go(in_the_goroutine)
    text = g.join()
    assert text.startswith(f"goroutine {g.id} [running]:\n")
    assert "in_the_goroutine" in text
    assert "test_stack_in_a_goroutine_is_its_own" not in text


def test_stack_all_has_every_goroutine_in_gos_form() -> None:
    gate = gort.Chan()
    gs = [park(calls_it, gate) for _ in range(3)] + [park(gort.sleep, 3600)]
    text = gort.stack(all=True)
    headers = {int(number): reason for number, reason, *_ in HEADER.findall(text)}
    assert headers == {1: "running"} | {g.id: "chan receive" for g in gs[:3]} | {gs[3].id: "sleep"}
    for g in gs[:3]:
        (block,) = (b for b in text.split("\n\n") if b.startswith(f"goroutine {g.id} "))
        assert "waits_here" in block
        assert "calls_it" in block
        assert "test_stack.py" in block
    gate.close()
    for g in gs[:3]:
        with pytest.raises(gort.ChanClosed):
            g.join()
    gs[3].kill()
    gs[3].join()


def test_stack_all_starts_with_the_caller() -> None:
    g = gort.go(lambda: gort.stack(all=True))
    assert g.join().startswith(f"goroutine {g.id} [running]:\n")


def test_stack_without_all_has_no_others() -> None:
    g = park(gort.sleep, 3600)
    assert f"goroutine {g.id} " not in gort.stack()
    assert f"goroutine {g.id} " not in gort.stack(all=False)
    g.kill()
    g.join()


def test_a_goroutine_that_did_not_start_yet_is_in_the_dump() -> None:
    g = gort.go(lambda: None)
    text = gort.stack(all=True)
    assert f"goroutine {g.id} [" in text or g.done
    g.join()


def test_the_dead_are_not_in_the_dump() -> None:
    g = gort.go(lambda: None)
    g.join()
    assert f"goroutine {g.id} [" not in gort.stack(all=True)


def test_stack_all_from_a_plain_thread() -> None:
    g = park(gort.sleep, 3600)
    text = PlainThread(lambda: gort.stack(all=True)).result()
    assert f"goroutine {g.id} [sleep]:" in text
    assert "goroutine 1 [" in text
    g.kill()
    g.join()


def test_a_goroutines_stack_is_traceback_frames_outermost_first() -> None:
    gate = gort.Chan()
    g = park(calls_it, gate)
    frames = g.stack()
    names = [frame.name for frame in frames]
    assert names[-2:] == ["calls_it", "waits_here"]
    assert frames[-1].filename == __file__
    assert frames[-1].line == "ch.recv()"
    assert frames[-1].lineno == waits_here.__code__.co_firstlineno + 1
    gate.send(None)
    g.join()


def test_the_stack_of_a_dead_goroutine_is_empty() -> None:
    g = gort.go(lambda: None)
    g.join()
    assert not g.stack()


def test_the_stack_of_the_running_goroutine_is_its_own() -> None:
    def body() -> list[str]:
        return [frame.name for frame in gort.current().stack()]

    assert "body" in gort.go(body).join()


def test_generators_that_wait_are_in_the_stack() -> None:
    gate = gort.Chan()

    def numbers() -> Any:
        yield gate.recv()

    def consume() -> list[Any]:
        return list(numbers())

    g = park(consume)
    assert [frame.name for frame in g.stack()][-2:] == ["consume", "numbers"]
    gate.send(1)
    assert g.join() == [1]


def test_a_dump_of_thousands_is_taken_in_one_piece() -> None:
    gate = gort.Chan()
    gs = [gort.go(waits_here, gate) for _ in range(2000)]
    for g in gs:
        while g.state != "waiting":
            gort.gosched()
    text = gort.stack(all=True)
    assert {int(n) for n, *_ in HEADER.findall(text)} == {1} | {g.id for g in gs}
    for _ in gs:
        gate.send(None)
    for g in gs:
        g.join()


def test_taking_stacks_while_goroutines_run_harms_nobody() -> None:
    ch = gort.Chan()

    def ping() -> None:
        for i in range(200):
            ch.send(i)

    g = gort.go(ping)
    for i in range(200):
        gort.stack(all=True)
        g.stack()
        assert ch.recv() == i
    g.join()


CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <time.h>
static _Atomic long skipped;
void skip_time(long seconds) { atomic_fetch_add(&skipped, seconds); }
int clock_gettime(clockid_t id, struct timespec *t)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int r = real(id, t);
    t->tv_sec += atomic_load(&skipped);
    return r;
}
"""


def test_a_dump_tells_for_how_many_minutes_a_goroutine_has_waited(tmp_path: Path) -> None:
    """A preloaded clock jumps three minutes ahead; nobody has to wait for them."""
    source, library = tmp_path / "clock.c", tmp_path / "libclock.so"
    source.write_text(CLOCK)
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-shared", "-fPIC", str(source), "-o", str(library), "-ldl"], check=True)
    done = run_program(
        """
        import ctypes, gort
        ch = gort.Chan()
        old, dead = gort.go(ch.recv), gort.go(gort.sleep, 1)
        while not old.state == dead.state == "waiting":
            gort.gosched()
        print(f"goroutine {old.id} [chan receive]:" in gort.stack(all=True))
        ctypes.CDLL(None).skip_time(181)
        dead.join()
        print(f"goroutine {old.id} [chan receive, 3 minutes]:" in gort.stack(all=True))
        # The clock of dumps is some 10 ms old: one who comes a little later has not waited for minutes.
        while True:
            new = gort.go(ch.recv)
            while new.state != "waiting":
                gort.gosched()
            if f"goroutine {new.id} [chan receive]:" in gort.stack(all=True):
                print(True)
                break
            new.kill()
            new.join()
        """,
        LD_PRELOAD=str(library),
    )
    assert (done.returncode, done.stdout) == (0, "True\nTrue\nTrue\n"), done.stderr


def test_schedtrace_prints_gos_lines() -> None:
    source = """
        import gort, sys
        def ping(ch):
            for i in range(10**9):
                ch.send(i)
        ch = gort.Chan()
        gort.go(ping, ch)
        end = gort.go(gort.blocking, sys.stdin.readline)
        while not end.done:
            ch.recv()
    """
    line = re.compile(
        r"SCHED (\d+)ms: gomaxprocs=3 idleprocs=(\d+) threads=(\d+) spinningthreads=(\d+)"
        r" needspinning=(\d+) idlethreads=(\d+) runqueue=(\d+) \[ ?\d+( \d+)* ?\]"
    )
    times = []
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=program_env(GORT_DEBUG="schedtrace=1000", GOMAXPROCS="3"),
    ) as child:
        assert child.stdin and child.stderr
        while len(times) < 3:
            text = child.stderr.readline()
            assert text, f"no more lines after {times}"
            match = line.match(text)
            assert match, text
            times.append(int(match[1]))
            assert int(match[2]) <= 3
        child.stdin.write("end\n")
        child.stdin.close()
        child.stderr.read()
    assert child.returncode == 0
    assert times[1] - times[0] >= 900
    assert times[2] - times[1] >= 900


def test_no_schedtrace_without_being_asked() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import gort; gort.sleep(0.05)"],
        capture_output=True,
        text=True,
        env=program_env(),
        check=True,
    )
    assert done.stderr == ""


@pytest.mark.parametrize("value", ["schedtrace=x", "schedtrace", "unknown=1", ",,", "schedtrace=-5"])
def test_a_bad_gort_debug_harms_nobody(value: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import gort; print(gort.go(lambda: 1).join())"],
        capture_output=True,
        text=True,
        env=program_env(GORT_DEBUG=value),
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
