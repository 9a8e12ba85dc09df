"""Deep recursion ends in RecursionError where CPython counts it, else in Go's report of a stack overflow.

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
    "sorted-compare": """
        class A:
            def __lt__(self, other):
                sorted([A(), A()])
                return True
        work = lambda: sorted([A(), A()])
    """,
    "sorted-cmp": """
        import functools
        def f(a, b):
            return len(sorted([1, 2], key=functools.cmp_to_key(f)))
        work = lambda: f(1, 2)
    """,
    "codec": """
        import codecs
        def f(error):
            return ("é".encode("ascii", "again") and "", error.end)
        codecs.register_error("again", f)
        work = lambda: "é".encode("ascii", "again")
    """,
    "unpickle": """
        import pickle
        class A:
            def __setstate__(self, state):
                pickle.loads(data)
            def __getstate__(self):
                return 1
        data = pickle.dumps(A())
        work = lambda: pickle.loads(data)
    """,
    "expat": """
        from xml.parsers import expat
        def work(*args):
            parser = expat.ParserCreate()
            parser.StartElementHandler = work
            parser.Parse("<a/>", 1)
    """,
    "regular-expression": """
        import re
        work = lambda match=None: re.sub("a", work, "a")
    """,
    "exec": """
        work = lambda: exec("work()")
    """,
    "class": """
        def work():
            class A:
                work()
    """,
    "attributes-compiled": """
        source = "a" + ".b" * 10**5
        work = lambda: compile(source, "", "eval")
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

# CPython does not count these: on a thread they crash it, a little later.
UNCOUNTED = {
    "iterators": """
        x = iter([1])
        for _ in range(10**5):
            x = map(abs, x)
        work = lambda: list(x)
    """,
    "hash": """
        x = ()
        for _ in range(10**5):
            x = (x,)
        work = lambda: hash(x)
    """,
}

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
def test_endless_recursion_is_a_recursion_error(name: str) -> None:
    done = run_program(RUN.format(work=textwrap.dedent(DEEP[name])))
    assert (done.returncode, done.stdout) == (0, "RecursionError\nthe others go on\n"), done.stderr[-3000:]


@pytest.mark.parametrize("name", ["sorted-compare", "json-loads", "codec", "python"])
def test_endless_recursion_on_a_small_stack_is_a_recursion_error(name: str) -> None:
    done = run_program(RUN.format(work=textwrap.dedent(DEEP[name])), GORT_STACK="128K")
    assert (done.returncode, done.stdout) == (0, "RecursionError\nthe others go on\n"), done.stderr[-3000:]


@pytest.mark.parametrize("name", UNCOUNTED)
def test_endless_recursion_that_nobody_counts_is_gos_report(name: str) -> None:
    done = run_program(RUN.format(work=textwrap.dedent(UNCOUNTED[name])))
    assert is_gos_report(done) or ends_well(done), f"{done.returncode}\n{done.stdout}\n{done.stderr[-3000:]}"


SORTS = """
    import gort, json
    text = "[" * 10**5 + "]" * 10**5
    def sorts(x=0):
        return sorted([1, 2], key=sorts)
    def bounded(n):  # as many nested calls of C as fit easily
        return n and sorted([n], key=lambda n: bounded(n - 1))
    def fails(work, *args):
        try:
            work(*args)
        except RecursionError:
            return True
        return False
"""


def test_one_recursion_error_after_another_in_one_goroutine() -> None:
    """Thin calls first: the count that is cut for them would be too much for fat ones."""
    done = run_program(
        SORTS
        + """
    def body():
        return [fails(json.loads, text) and fails(sorts) for _ in range(30)]
    print(all(gort.go(body).join()))
    print(all(all(gort.go(body).join()) for _ in range(5)))
    """
    )
    assert (done.returncode, done.stdout) == (0, "True\nTrue\n"), done.stderr[-3000:]


def test_depth_is_back_after_a_wait_and_for_the_next_goroutine() -> None:
    done = run_program(
        SORTS
        + """
    def depth():  # of brackets that are read
        low, high = 0, 10**5
        while high - low > 1:
            n = (low + high) // 2
            low, high = (low, n) if fails(json.loads, "[" * n + "]" * n) else (n, high)
            gort.gosched()
        return low
    def body():
        before = depth()
        print(before > 300)
        print(fails(sorts))
        gort.sleep(0.001)
        print(depth() == before)
        return before
    before = gort.go(body).join()
    print(gort.go(lambda: depth()).join() == before)  # on the same stack
    """
    )
    assert (done.returncode, done.stdout) == (0, "True\nTrue\nTrue\nTrue\n"), done.stderr[-3000:]


def test_a_recursion_error_deep_down_may_be_handled_there() -> None:
    done = run_program(
        SORTS
        + """
    caught = 0
    def stubborn(x=0):
        global caught
        try:
            return sorted([1, 2], key=stubborn)
        except RecursionError:
            caught += 1
            import getpass, socket  # something that takes stack
            gort.gosched()
            if caught > 20:
                raise
            return 1
    print(fails(stubborn), caught > 20)
    caught = 0
    gort.go(fails, stubborn).join()
    print(caught > 1)
    """
    )
    assert done.returncode == 0 and done.stdout.endswith("True\n"), f"{done.stdout}{done.stderr[-3000:]}"


def test_goroutines_recurse_deeply_side_by_side() -> None:
    done = run_program(
        SORTS
        + """
    def body(n):
        bounded(n)
        gort.gosched()
        return fails(sorts)
    print(all([g.join() for g in [gort.go(body, n % 40) for n in range(200)]]))
    """
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr[-3000:]


def test_goroutines_wait_in_the_warning_zone_and_go_on_elsewhere() -> None:
    done = run_program(
        SORTS
        + """
    import threading
    gate, inside, threads = gort.Chan(), gort.sync.WaitGroup(), set()
    def body():
        waited = False
        def deep(x=0):
            nonlocal waited
            try:
                return sorted([1], key=deep)
            except RecursionError:
                if not waited:
                    waited = True
                    inside.done()
                    gate.recv_ok()
                    threads.add(gort.blocking(threading.get_ident))
                raise
        return fails(deep) and waited and fails(sorts)
    for _ in range(2):  # the second time on the same stacks
        inside.add(100)
        gs = [gort.go(body) for _ in range(100)]
        inside.wait()
        gate.close()
        print(all(g.join() for g in gs))
        gate = gort.Chan()
    """
    )
    assert (done.returncode, done.stdout) == (0, "True\nTrue\n"), done.stderr[-3000:]


def test_the_compiler_is_not_held_to_a_count_that_was_cut() -> None:
    done = run_program(
        SORTS
        + """
    source = "a" + ".b" * 1000
    def compiles():
        return not fails(compile, source, "", "eval")
    def body():
        return fails(sorts), compiles()
    print(gort.go(body).join() == (True, compiles()))
    """
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr[-3000:]


def test_faulthandler_enabled_later_does_not_make_it_a_crash() -> None:
    done = run_program(
        SORTS
        + """
    import faulthandler
    faulthandler.disable()
    gort.go(lambda: None).join()
    faulthandler.enable()
    print(gort.go(fails, sorts).join())
    """
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr[-3000:]


SOURCES = {
    "minus": "'-' * 10**5 + '1'",
    "not": "'not ' * 10**5 + '1'",
    "lambda": "'lambda: ' * 10**5 + '1'",
    "if-else": "'1 if 1 else ' * 10**5 + '1'",
    "elif": "'if 1: pass\\n' + 'elif 1: pass\\n' * 10**5",
}


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("call", ["compile(source, '', 'exec')", "exec(source)"])
def test_source_too_deep_for_the_parser_is_the_error_it_always_is(name: str, call: str) -> None:
    program = f"""
        import gort
        source = {SOURCES[name]}
        def body():
            try:
                {call}
            except (MemoryError, RecursionError) as exc:
                return type(exc).__name__
        here = body()
        print(here, gort.go(body).join() == here)
    """
    done = run_program(program)
    assert done.returncode == 0 and done.stdout in ("MemoryError True\n", "RecursionError True\n"), (
        f"{done.stdout}{done.stderr[-3000:]}"
    )


def test_a_short_source_may_be_deep_on_a_small_stack() -> None:
    done = run_program(
        """
        import gort
        source = "[" * 95 + "]" * 95
        print(gort.go(lambda: eval(source)).join() == eval(source))
        gort.go(lambda: exec("x = " + source)).join()
        """,
        GORT_STACK="64K",
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr[-3000:]


def test_marshal_goes_as_deep_in_a_goroutine_as_elsewhere() -> None:
    done = run_program(
        """
        import gort, marshal
        x = ()
        for _ in range(1900):
            x = (x,)
        def body():
            return marshal.dumps(marshal.loads(marshal.dumps(x)))
        print(gort.go(body).join() == body())
        """
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr[-3000:]


def test_code_that_was_given_as_a_text_may_wait() -> None:
    done = run_program(
        """
        import gort
        source = "ch.send(gort.current().id); ch.recv()"
        def body(ch):
            try:
                exec(source, {"ch": ch, "gort": gort})
            except gort.GoroutineExit:
                done.append("killed")
                raise
            done.append("fine")
        done = []
        chans = [gort.Chan() for _ in range(40)]
        gs = [gort.go(body, ch) for ch in chans]
        print([ch.recv() for ch in chans] == [g.id for g in gs])
        for ch, g in zip(chans[:30], gs[:30]):
            ch.send(None)
        for g in gs[30:]:
            g.kill()
        for g in gs:
            g.join()
        print(done.count("fine"), done.count("killed"))
        """
    )
    assert (done.returncode, done.stdout) == (0, "True\n30 10\n"), done.stderr[-3000:]


@pytest.mark.parametrize(
    "before", ["", "faulthandler.disable()", "faulthandler.enable()", "faulthandler.disable(); faulthandler.enable()"]
)
@pytest.mark.parametrize("where", ["gort.go(ctypes.string_at, 0).join()", "ctypes.string_at(0)"])
def test_a_true_fault_ends_the_program_once_reported(before: str, where: str) -> None:
    done = run_program(f"import ctypes, faulthandler, gort\n{before}\n{where}\nprint('alive')")
    assert (done.returncode, done.stdout) == (-11, "")
    assert done.stderr.count("SIGSEGV: segmentation violation") == where.startswith("gort")
    assert done.stderr.count("Fatal Python error: Segmentation fault") == (before != "faulthandler.disable()")


def test_a_signal_of_ones_own_making_ends_the_program_as_ever() -> None:
    """raise() does not happen again by itself once the handler that was there is back."""
    done = run_program(
        """
        import faulthandler, gort, signal
        faulthandler.disable()
        gort.go(signal.raise_signal, signal.SIGSEGV).join()
        print("alive")
        """
    )
    assert (done.returncode, done.stdout) == (-11, ""), done.stderr[-3000:]


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
