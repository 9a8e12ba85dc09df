"""Deep recursion ends in RecursionError, or in Go's report of a stack overflow; never in a bare segfault.

Each case is a program of its own, for a crash would take the test run with it.
"""

from __future__ import annotations

import subprocess
import textwrap

import pytest
from model_support import run_program

DEEP = {
    "python": """
        def f(n):
            return 0 if n == 0 else 1 + f(n - 1)
        work = lambda: f(10**6)
    """,
    "sorted-key": """
        def f(x):
            return sorted([1, 2], key=f)
        work = lambda: f(0)
    """,
    "json-dumps": """
        import json
        x = []
        for _ in range(10**5):
            x = [x]
        work = lambda: json.dumps(x)
    """,
    "json-loads": """
        import json
        text = "[" * 10**5 + "]" * 10**5
        work = lambda: json.loads(text)
    """,
    "repr": """
        x = []
        for _ in range(10**5):
            x = [x]
        work = lambda: repr(x)
    """,
    "compare": """
        a, b = [], []
        for _ in range(10**5):
            a, b = [a], [b]
        work = lambda: a == b
    """,
    "getattr": """
        class A:
            def __getattr__(self, name):
                return getattr(self, name + "x")
        work = lambda: A().x
    """,
    "str-format": """
        class A:
            def __format__(self, spec):
                return "{}".format(self)
        work = lambda: "{}".format(A())
    """,
    "reduce": """
        import functools
        def f(a, b):
            return functools.reduce(f, [1, 2])
        work = lambda: f(1, 2)
    """,
    "pickle": """
        import pickle
        class A:
            def __reduce__(self):
                return A, (A(),)
        work = lambda: pickle.dumps(A())
    """,
    "iterators": """
        import itertools
        x = iter([1])
        for _ in range(10**5):
            x = map(abs, x)
        work = lambda: list(x)
    """,
    "isinstance": """
        class Meta(type):
            def __instancecheck__(cls, x):
                return isinstance(x, cls)
        class A(metaclass=Meta):
            pass
        work = lambda: isinstance(1, A)
    """,
}

# What outruns the C stack on the main thread too crashes plain CPython; it may only end in Go's report here.
RUN = """
import gort
{work}
def body():
    gort.gosched()
    try:
        work()
    except RecursionError:
        print("RecursionError")
    else:
        print("fine")
g = gort.go(body)
g.join()
print(gort.go(lambda: "the others go on").join())
"""


def ends_well(done: subprocess.CompletedProcess[str]) -> bool:
    return done.returncode == 0 and done.stdout in (
        "RecursionError\nthe others go on\n",
        "fine\nthe others go on\n",
    )


def is_gos_report(done: subprocess.CompletedProcess[str]) -> bool:
    return (
        done.returncode != 0
        and "goroutine stack exceeds" in done.stderr
        and "-byte limit" in done.stderr
        and "\ngoroutine " in done.stderr
    )


@pytest.mark.parametrize("name", DEEP)
def test_endless_recursion_is_an_error_or_gos_report(name: str) -> None:
    done = run_program(RUN.format(work=textwrap.dedent(DEEP[name])))
    assert ends_well(done) or is_gos_report(done), f"{done.returncode}\n{done.stdout}\n{done.stderr[-3000:]}"


def test_endless_python_recursion_is_a_recursion_error() -> None:
    done = run_program(RUN.format(work=textwrap.dedent(DEEP["python"])))
    assert ends_well(done), f"{done.returncode}\n{done.stdout}\n{done.stderr[-3000:]}"


def test_a_thousand_deep_recursion_is_fine_or_a_recursion_error() -> None:
    done = run_program(
        """
        import gort
        def f(n):
            return 0 if n == 0 else 1 + f(n - 1)
        def body():
            try:
                return f(1000)
            except RecursionError:
                return "RecursionError"
        print(gort.go(body).join() in (1000, "RecursionError"))
        print(all(gort.go(f, 900).join() == 900 for _ in range(20)))
        """
    )
    assert (done.returncode, done.stdout) == (0, "True\nTrue\n"), done.stderr


def test_a_raised_recursion_limit_holds_in_goroutines() -> None:
    done = run_program(
        """
        import gort, sys
        sys.setrecursionlimit(20_000)
        def f(n):
            return 0 if n == 0 else 1 + f(n - 1)
        print(gort.go(f, 10_000).join())
        """
    )
    assert (done.returncode, done.stdout) == (0, "10000\n"), done.stderr


def test_a_larger_gort_stack_takes_deeper_c_recursion() -> None:
    source = """
        import gort, sys
        sys.setrecursionlimit(10**6)
        def f(n):
            return n and sorted([n], key=lambda n: f(n - 1))
        try:
            gort.go(f, 150).join()
            print("fine")
        except RecursionError:
            print("RecursionError")
    """
    done = run_program(source, GORT_STACK="8M")
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr


def test_main_overflowing_is_no_worse_than_without_gort() -> None:
    done = run_program(
        """
        import gort
        def f():
            return f()
        try:
            f()
        except RecursionError:
            print("RecursionError")
        """
    )
    assert (done.returncode, done.stdout) == (0, "RecursionError\n"), done.stderr
