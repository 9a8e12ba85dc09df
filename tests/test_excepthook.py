"""excepthook: called once for a failure that nobody joined, never for one that somebody saw."""

from __future__ import annotations

import gc
import sys
from typing import Any

import pytest
from model_support import finish, output_of, park, run_program, spin_until

import gort
import gort.sync

Panics = list[tuple[Any, BaseException]]


def fail(text: str = "nobody sees this") -> None:
    raise ValueError(text)


def test_called_at_once_if_the_handle_is_gone(panics: Panics) -> None:
    gort.go(fail)
    spin_until(lambda: panics)
    ((goroutine, exc),) = panics
    assert isinstance(goroutine, gort.Goroutine)
    assert goroutine.done
    assert isinstance(exc, ValueError)
    assert str(exc) == "nobody sees this"


def test_called_with_the_goroutine_that_failed(panics: Panics) -> None:
    ids: list[int] = []

    def body() -> None:
        ids.append(gort.current().id)
        fail()

    for _ in range(3):
        gort.go(body)
    spin_until(lambda: len(panics) == 3)
    assert sorted(g.id for g, _ in panics) == sorted(ids)


def test_not_called_while_a_handle_may_still_join(panics: Panics) -> None:
    g = gort.go(fail)
    finish(g)
    assert panics == []
    with pytest.raises(ValueError):
        g.join()
    del g
    gc.collect()
    assert panics == []


def test_called_when_the_handle_goes_away(panics: Panics) -> None:
    g = gort.go(fail)
    number = g.id
    finish(g)
    assert panics == []
    del g
    spin_until(lambda: panics)
    ((goroutine, exc),) = panics
    assert goroutine.id == number
    assert isinstance(exc, ValueError)


def test_called_once_though_the_handle_it_gets_goes_away_too(panics: Panics) -> None:
    gort.go(fail)
    spin_until(lambda: panics)
    panics.clear()
    gc.collect()
    gort.gosched()
    assert panics == []


def test_called_when_a_handle_in_a_cycle_is_collected(panics: Panics) -> None:
    cycle: dict[str, Any] = {}
    cycle["self"] = cycle
    cycle["g"] = gort.go(fail)
    finish(cycle["g"])
    del cycle
    assert panics == []
    gc.collect()
    spin_until(lambda: panics)
    assert len(panics) == 1


def test_a_join_that_timed_out_has_not_seen_it(panics: Panics) -> None:
    gate = gort.Chan()

    def body() -> None:
        gate.recv()
        fail()

    g = park(body)
    with pytest.raises(TimeoutError):
        g.join(timeout=0)
    gate.send(None)
    finish(g)
    del g
    spin_until(lambda: panics)
    assert len(panics) == 1


def test_a_join_by_another_goroutine_has_seen_it(panics: Panics) -> None:
    def joiner(g: Any) -> str:
        with pytest.raises(ValueError):
            g.join()
        return "seen"

    assert gort.go(joiner, gort.go(fail)).join() == "seen"
    gc.collect()
    assert panics == []


@pytest.mark.parametrize("error", [gort.GoroutineExit, None])
def test_not_called_for_a_goroutine_that_did_not_fail(panics: Panics, error: Any) -> None:
    def body() -> None:
        if error:
            raise error

    g = gort.go(body)
    finish(g)
    del g
    gc.collect()
    gort.gosched()
    assert panics == []


def test_called_for_base_exceptions_too(panics: Panics) -> None:
    class Odd(BaseException):
        pass

    def body() -> None:
        raise Odd

    gort.go(body)
    spin_until(lambda: panics)
    assert isinstance(panics[0][1], Odd)


def test_the_exception_carries_its_traceback(panics: Panics) -> None:
    gort.go(fail)
    spin_until(lambda: panics)
    trace, names = panics[0][1].__traceback__, []
    while trace:
        names.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert names[-1] == "fail"


def test_the_others_go_on(panics: Panics) -> None:
    ch = gort.Chan()
    g = park(ch.recv)
    gort.go(fail)
    spin_until(lambda: panics)
    ch.send("unharmed")
    assert g.join() == "unharmed"


def test_the_hook_may_use_gort() -> None:
    out = gort.Chan(1)
    gort.excepthook = lambda g, exc: out.send((g.id, str(exc)))
    g = gort.go(fail, "told")
    number = g.id
    finish(g)
    del g
    assert out.recv() == (number, "told")


def test_a_hook_that_fails_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def hook(g: Any, exc: BaseException) -> None:
        calls.append(exc)
        raise RuntimeError("the hook is broken")

    monkeypatch.setattr(sys, "unraisablehook", lambda args: None)
    monkeypatch.setattr(sys, "excepthook", lambda *args: None)
    gort.excepthook = hook
    for _ in range(3):
        gort.go(fail)
    spin_until(lambda: len(calls) == 3)
    assert gort.go(lambda: 1).join() == 1


def test_waitgroup_go_reports_at_once(panics: Panics) -> None:
    wg = gort.sync.WaitGroup()
    wg.go(fail, "in a wait group")
    wg.wait()
    spin_until(lambda: panics)
    assert str(panics[0][1]) == "in a wait group"


# ---- the default hook -------------------------------------------------------------


def test_the_default_prints_the_traceback_and_the_program_goes_on() -> None:
    done = run_program(
        """
        import gort
        def the_culprit():
            raise ValueError("boom")
        g = gort.go(the_culprit)
        number = g.id
        del g
        ch = gort.Chan()
        gort.go(lambda: ch.send("went on"))
        print(ch.recv())
        while gort.num_goroutine() > 1:
            gort.gosched()
        print(number)
        """
    )
    assert done.returncode == 0, done.stderr
    went_on, number = done.stdout.split("\n")[:2]
    assert went_on == "went on"
    assert f"panic in goroutine {number}" in done.stderr
    assert "the_culprit" in done.stderr
    assert "ValueError: boom" in done.stderr


def test_a_failure_whose_handle_lives_to_the_end_is_reported_at_exit() -> None:
    done = run_program(
        """
        import gort
        def fail():
            raise ValueError("kept to the end")
        g = gort.go(fail)
        while not g.done:
            gort.gosched()
        print("end of program")
        """
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "end of program\n"
    assert "panic in goroutine" in done.stderr
    assert "ValueError: kept to the end" in done.stderr


def test_a_joined_failure_is_not_reported_at_exit() -> None:
    done = run_program(
        """
        import gort
        g = gort.go(divmod, 1, 0)
        try:
            g.join()
        except ZeroDivisionError:
            print("seen")
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "seen\n", "")


def test_the_default_hook_can_be_called_and_restored() -> None:
    out = output_of(
        """
        import gort
        default, seen = gort.excepthook, []
        gort.excepthook = lambda g, exc: seen.append(repr(exc))
        gort.go(divmod, 1, 0)
        while not seen:
            gort.gosched()
        gort.excepthook = default
        print(seen, callable(default))
        """
    )
    assert "ZeroDivisionError" in out
    assert out.endswith("True\n")


def test_gort_panic_crash_ends_the_process_as_go_does() -> None:
    done = run_program(
        """
        import gort
        def the_culprit():
            raise ValueError("fatal")
        gort.go(the_culprit)
        gort.sleep(30)
        print("never")
        """,
        GORT_PANIC="crash",
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "panic" in done.stderr
    assert "ValueError: fatal" in done.stderr
    assert "the_culprit" in done.stderr


def test_gort_panic_crash_leaves_joined_failures_alone() -> None:
    done = run_program(
        """
        import gort
        g = gort.go(divmod, 1, 0)
        try:
            g.join()
        except ZeroDivisionError:
            print("seen")
        """,
        GORT_PANIC="crash",
    )
    assert (done.returncode, done.stdout) == (0, "seen\n"), done.stderr


@pytest.mark.parametrize("hook", ["None", "lambda g, exc: [][1]"])
def test_an_exception_whose_hook_fails_is_printed_all_the_same(hook: str) -> None:
    done = run_program(f"""
        import gort
        gort.excepthook = {hook}
        gort.go(lambda: 1 / 0)
        gort.gosched()
        print("on")
    """)
    assert done.stdout == "on\n"
    assert "ZeroDivisionError" in done.stderr
    assert "not callable" in done.stderr or "IndexError" in done.stderr
