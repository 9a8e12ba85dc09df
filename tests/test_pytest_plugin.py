"""The pytest plugin: test functions as goroutines of their own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent
PLUGIN = ("-p", "gort.testing.plugin", "-p", "no:cacheprovider")


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write a test module and run pytest on it in a process of its own."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def go(source: str, *args: str, on: bool = True, stdin: bytes = b"") -> pytest.RunResult:
        pytester.makepyfile("import gort, pytest\n" + source)
        return pytester.run(sys.executable, "-m", "pytest", *PLUGIN, *(["--gort"] if on else []), *args, stdin=stdin)

    return go


WHICH = """
def test_which():
    assert gort.current().id != 1
"""


# ---- on and off -------------------------------------------------------------------
def test_off_unless_asked(run: Any) -> None:
    run(WHICH, on=False).assert_outcomes(failed=1)


def test_on_by_option(run: Any) -> None:
    run(WHICH).assert_outcomes(passed=1)


def test_on_by_ini(run: Any, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\ngort = true\naddopts = --strict-markers --strict-config")
    run(WHICH, on=False).assert_outcomes(passed=1)


def test_on_by_seed(run: Any) -> None:
    run(WHICH, "--gort-seed=1", on=False).assert_outcomes(passed=1)


def test_on_by_marker(run: Any) -> None:
    source = """
def test_main():
    assert gort.current().id == 1

@pytest.mark.gort
def test_one():
    assert gort.current().id != 1

@pytest.mark.gort(leaks=False)
class TestAll:
    def test_method(self):
        assert gort.current().id != 1

    @pytest.mark.gort(False)
    def test_not_this(self):
        assert gort.current().id == 1
"""
    run(source, "--strict-markers", on=False).assert_outcomes(passed=4)


def test_off_by_marker(run: Any) -> None:
    source = "@pytest.mark.gort(False)\ndef test_main():\n    assert gort.current().id == 1"
    run(source).assert_outcomes(passed=1)


def test_gort_is_not_imported_while_it_is_off(pytester: pytest.Pytester, run: Any) -> None:
    pytester.makepyfile("import sys\ndef test_not():\n    assert 'gort' not in sys.modules")
    pytester.runpytest_subprocess("-p", "gort_pytest").assert_outcomes(passed=1)


def test_named_twice(run: Any, pytester: pytest.Pytester) -> None:
    pytester.makeconftest("pytest_plugins = ['gort_pytest', 'gort.testing.plugin']")
    run(WHICH, "-p", "gort_pytest").assert_outcomes(passed=1)


def test_beside_the_entry_point(run: Any, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    info = pytester.mkdir("site") / "gort-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gort\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[pytest11]\ngort_pytest = gort_pytest\n")
    (info / "RECORD").write_text("gort_pytest.py,,\n")
    pytester.syspathinsert(info.parent)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{info.parent}")
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    run(WHICH).assert_outcomes(passed=1)
    pytester.runpytest_subprocess("-p", "no:cacheprovider", "--gort").assert_outcomes(passed=1)


def test_unknown_marker_argument(run: Any) -> None:
    result = run("@pytest.mark.gort(leak=False)\ndef test_a(): pass")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*TypeError*'leak'*"])


# ---- what pytest does, it still does ------------------------------------------------
def test_outcomes_reach_pytest(run: Any) -> None:
    source = """
def test_pass(): pass
def test_skip(): pytest.skip("not today")
def test_xfail(): pytest.xfail("known")
def test_fail(): pytest.fail("on purpose")
def test_error(): {}["missing"]
def test_importorskip(): pytest.importorskip("no_such_module")
@pytest.mark.xfail
def test_marked(): assert False
@pytest.mark.parametrize("n", [1, 2, 3])
def test_param(n): assert n
def test_system_exit(): raise SystemExit(3)
"""
    result = run(source, "-rA")
    result.assert_outcomes(passed=4, skipped=2, xfailed=2, failed=3)
    expected = ["*SKIPPED*not today", "*XFAIL*known", "*Failed: on purpose", "*KeyError: 'missing'"]
    result.stdout.fnmatch_lines_random(expected)


def test_traceback_is_the_tests_own(run: Any) -> None:
    source = """
def helper(xs):
    assert xs == [1, 3]

def test_a():
    helper([1, 2])
"""
    for style in ("auto", "long", "short"):
        result = run(source, f"--tb={style}")
        result.stdout.fnmatch_lines(["*At index 1 diff: 2 != 3*"])  # the assertion is rewritten
        text = result.stdout.str()
        assert "in helper" in text or "def helper" in text
        assert "plugin.py" not in text and "gort_pytest.py" not in text


def test_exit_ends_the_session(run: Any) -> None:
    result = run("def test_a(): pytest.exit('enough', returncode=7)\ndef test_b(): pass")
    assert result.ret == 7
    result.stdout.fnmatch_lines(["*Exit: enough*"])


def test_stop_at_the_first_failure(run: Any) -> None:
    run("def test_a(): assert 0\ndef test_b(): pass", "-x").assert_outcomes(failed=1)


def test_collect_only(run: Any) -> None:
    result = run("def test_a(): gort.nonsense", "--collect-only", "-q")
    result.stdout.fnmatch_lines(["*::test_a", "1 test collected*"])


def test_fixtures(run: Any) -> None:
    source = """
import contextvars, logging, warnings
var = contextvars.ContextVar("var", default=0)
log = []

@pytest.fixture
def around():
    assert gort.current().id == 1
    token = var.set(5)
    log.append("up")
    yield gort.Chan(1)
    var.reset(token)
    log.append("down")

def test_yield(around):
    assert var.get() == 5
    gort.go(around.send, 1).join()
    assert around.recv() == 1
    log.append("test")

def test_order():
    assert log == ["up", "test", "down"] and var.get() == 0

def test_capsys(capsys):
    def say():
        print("hello")
    gort.go(say).join()
    assert capsys.readouterr().out == "hello\\n"

def test_caplog(caplog):
    gort.go(logging.warning, "careful").join()
    assert caplog.messages == ["careful"]

def test_monkeypatch(monkeypatch, tmp_path):
    monkeypatch.setenv("X", "1")
    monkeypatch.chdir(tmp_path)

def test_raises():
    with pytest.raises(ZeroDivisionError):
        gort.go(lambda: 1 / 0).join()

def test_recwarn(recwarn):
    warnings.warn("oh")
    assert len(recwarn) == 1

def test_warns():
    with pytest.warns(UserWarning, match="oh"):
        warnings.warn("oh")
"""
    result = run(source)
    result.assert_outcomes(passed=8)


def test_printed_output_is_captured(run: Any) -> None:
    result = run("def test_a():\n    print('said this')\n    assert 0")
    result.stdout.fnmatch_lines(["*Captured stdout call*", "said this"])


def test_async_and_unittest_are_left_alone(run: Any) -> None:
    source = """
import unittest

class Case(unittest.TestCase):
    def test_case(self):
        assert gort.current().id == 1

async def test_coroutine():
    pass
"""
    result = run(source)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*async def functions are not natively supported*"])


def test_return_value_is_warned_of(run: Any) -> None:
    run("def test_a(): return 5").assert_outcomes(passed=1, warnings=1)


def test_breakpoint_in_a_test(run: Any) -> None:
    source = """
def test_a():
    secret = 40
    breakpoint()
    assert secret == 41
"""
    result = run(source, stdin=b"p secret + 2\nsecret = 41\nc\n")
    result.stdout.fnmatch_lines(["*(Pdb)*42*"])
    result.assert_outcomes(passed=1)


def test_post_mortem(run: Any) -> None:
    source = "def test_a():\n    secret = 40\n    assert secret == 41"
    result = run(source, "--pdb", stdin=b"p secret + 2\nq\n")
    result.stdout.fnmatch_lines(["*(Pdb)*42*"])


def test_trace(run: Any) -> None:
    result = run("def test_a():\n    secret = 40\n    gort.gosched()", "--trace", stdin=b"n\nn\np secret + 2\nc\n")
    result.stdout.fnmatch_lines(["*(Pdb)*42*"])
    result.assert_outcomes(passed=1)


def test_keyboard_interrupt_stops_pytest(pytester: pytest.Pytester, run: Any) -> None:
    pytester.makepyfile("""
        import gort
        def test_a():
            try:
                open("begun", "w").close()
                gort.Chan().recv(timeout=300)
            finally:
                open("unwound", "w").close()
        def test_b():
            open("b", "w").close()
    """)
    args = [sys.executable, "-m", "pytest", *PLUGIN, "--gort"]
    p = subprocess.Popen(args, stdout=subprocess.PIPE, text=True, cwd=pytester.path)
    while not (pytester.path / "begun").exists() and p.poll() is None:
        time.sleep(0.01)
    p.send_signal(signal.SIGINT)
    out, _ = p.communicate(timeout=60)
    assert p.returncode == 2 and "KeyboardInterrupt" in out
    assert (pytester.path / "unwound").exists() and not (pytester.path / "b").exists()


def test_raised_keyboard_interrupt_stops_pytest(run: Any) -> None:
    result = run("def test_a(): raise KeyboardInterrupt\ndef test_b(): pass")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.no_fnmatch_line("*1 passed*")


# ---- leaks, deadlocks, panics --------------------------------------------------------
def test_leaks_fail_and_are_unwound(run: Any) -> None:
    source = """
log = []

def left(ch):
    try:
        ch.recv()
    finally:
        log.append("unwound")

def test_leaks():
    gort.go(left, gort.Chan())

def test_next_starts_clean():
    assert log == ["unwound"] and gort.num_goroutine() == 2
"""
    result = run(source)
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["1 goroutine is left:", "goroutine * ?chan receive?:", "left(...)"])


def test_those_about_to_end_are_no_leak(run: Any) -> None:
    run("def test_a():\n    for _ in range(1000): gort.go(gort.gosched)").assert_outcomes(passed=1)


def test_leaks_of_a_failed_test_are_told_too(run: Any) -> None:
    result = run("def test_a():\n    gort.go(gort.Chan().recv)\n    assert 1 == 2")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*assert 1 == 2*", "*Captured goroutines call*", "1 goroutine is left:"])


def test_leaks_fail_a_test_that_skips(run: Any) -> None:
    result = run("def test_a():\n    gort.go(gort.Chan().recv)\n    pytest.skip('late')")
    result.assert_outcomes(failed=1)


def test_leaks_allowed_by_marker(run: Any) -> None:
    source = """
@pytest.mark.gort(leaks=False)
def test_leaks():
    gort.go(gort.Chan().recv)

def test_unwound():
    assert gort.num_goroutine() == 2
"""
    run(source).assert_outcomes(passed=2)


def test_goroutines_of_fixtures_are_no_leak(run: Any) -> None:
    source = """
@pytest.fixture
def server():
    ch = gort.Chan()
    g = gort.go(ch.recv)
    yield ch
    assert not g.done
    ch.send(None)
    g.join()

def test_a(server): pass
"""
    run(source).assert_outcomes(passed=1)


def test_one_that_catches_goroutine_exit_does_not_hang_it(run: Any) -> None:
    source = """
def stubborn(ch):
    while True:
        try:
            ch.recv()
        except gort.GoroutineExit:
            pass

def test_a(): gort.go(stubborn, gort.Chan())
def test_b(): pass
import atexit, os
atexit.register(os._exit, 0)
"""
    result = run(source)
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["kill() does not end them: 1 goroutine is left:"])


def test_deadlock(run: Any) -> None:
    source = """
log = []

def other(ch):
    try:
        ch.send(1)
    finally:
        log.append("other")

def test_deadlock():
    gort.go(other, gort.Chan())
    try:
        gort.Chan().recv()
    finally:
        log.append("test")

def test_next_starts_clean():
    assert sorted(log) == ["other", "test"] and gort.num_goroutine() == 2
"""
    result = run(source)
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(
        [
            "deadlock: all goroutines wait*",
            "goroutine * ?chan receive?:",
            "test_deadlock(...)",
            "goroutine * ?chan send?:",
            "other(...)",
        ]
    )


def test_panic_nobody_saw(run: Any) -> None:
    source = """
def broken():
    raise ValueError("lost")

def test_a():
    gort.go(broken)

def test_seen():
    with pytest.raises(ValueError):
        gort.go(broken).join()

@pytest.mark.gort(panics=False)
def test_allowed():
    gort.go(broken)

def test_hook_is_restored():
    hook, gort.excepthook = gort.excepthook, print
    gort.excepthook = hook
"""
    result = run(source)
    result.assert_outcomes(failed=1, passed=3)
    result.stdout.fnmatch_lines(["panic in goroutine * (broken), which nobody joined:", "ValueError: lost"])


def test_goexit_fails(run: Any) -> None:
    result = run(
        "def test_a(): gort.goexit()\ndef test_b(): gort.current().kill()\ndef test_c():\n"
        "    gort.current().kill()\n    gort.gosched()"
    )
    result.assert_outcomes(failed=2, passed=1)
    result.stdout.fnmatch_lines(["the test was ended by goexit() or kill()"])


# ---- seeds -----------------------------------------------------------------------------
ORDER = """
import pathlib

@pytest.mark.parametrize("k", range(4))
def test_order(k):
    order = []
    gs = [gort.go(order.append, i) for i in range(12)]
    for g in gs:
        g.join()
    with open("orders", "a") as f:
        f.write(f"{k} {order}\\n")
    assert k != 2
"""


def orders(pytester: pytest.Pytester) -> list[str]:
    path = pytester.path / "orders"
    text = path.read_text()
    path.unlink()
    return text.splitlines()


def test_seed_replays_all_and_one_alone(run: Any, pytester: pytest.Pytester) -> None:
    run(ORDER, "--gort-seed=11")
    first = orders(pytester)
    run(ORDER, "--gort-seed=11")
    assert orders(pytester) == first
    assert len({line[2:] for line in first}) > 1  # each test has its own
    run(ORDER, "--gort-seed=11", "-k", "test_order and 3")
    assert orders(pytester) == first[3:]
    run(ORDER, "--gort-seed=12")
    assert orders(pytester) != first


def test_failure_names_its_seed(run: Any) -> None:
    result = run(ORDER, "--gort-seed=11")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["gort: --gort-seed=11", "*Captured gort call*", "--gort-seed=11 replays*"])


def test_random_seed_is_in_the_header(run: Any, pytester: pytest.Pytester) -> None:
    result = run(ORDER, "--gort-seed=random")
    found = re.search(r"^gort: --gort-seed=(\d+)$", result.stdout.str(), re.M)
    assert found is not None
    first = orders(pytester)
    run(ORDER, f"--gort-seed={found[1]}")
    assert orders(pytester) == first


def test_seed_by_marker(run: Any, pytester: pytest.Pytester) -> None:
    source = ORDER.replace("@pytest", "@pytest.mark.gort(seed=5)\n@pytest", 1)
    result = run(source, on=False)
    result.stdout.fnmatch_lines(["the schedule is drawn from the marker's seed=5"])
    first = orders(pytester)
    assert len({line[2:] for line in first}) == 1  # the seed itself, whatever the test's name
    run(source, "--gort-seed=77")
    assert orders(pytester) == first


def test_seeded_leaks_and_deadlocks(run: Any) -> None:
    source = """
def test_leak(): gort.go(gort.Chan().recv)
def test_deadlock(): gort.Chan().recv()
def test_sleep(): gort.sleep(0.001)
def test_clean(): assert gort.num_goroutine() == 2
"""
    run(source, "--gort-seed=3").assert_outcomes(failed=2, passed=2)


@pytest.mark.parametrize("bad", ["x", "1.5", ""])
def test_bad_seed(run: Any, bad: str) -> None:
    result = run(WHICH, f"--gort-seed={bad}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--gort-seed*"])
