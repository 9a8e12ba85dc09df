"""gort.native: C functions as goroutines on all processors, never needing the GIL."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from model_native import EAGAIN, ECLOSED, ETIMEDOUT, OK, Job, start
from model_support import EVERYWHERE, PlainThread, nobody_receives, nobody_sends, program_env, run_program, spin_until

import gort
import gort.native

everywhere = pytest.mark.parametrize("where", EVERYWHERE)


# ---- what native.go takes ------------------------------------------------------------


def test_get_include_has_the_header() -> None:
    assert (Path(gort.get_include()) / "gort.h").is_file()


def test_lib_path_is_the_extension_module() -> None:
    assert Path(gort.native.lib_path()).is_file()


@everywhere
def test_a_ctypes_function_runs(native_lib: Any, where: Any) -> None:
    flag = ctypes.c_int32(0)
    g = where(lambda: gort.native.go(native_lib.set_flag, ctypes.addressof(flag)))
    assert g.join() is None
    assert flag.value == 1


def test_an_address_runs(native_lib: Any) -> None:
    flag = ctypes.c_int32(0)
    address = ctypes.cast(native_lib.set_flag, ctypes.c_void_p).value
    gort.native.go(address, ctypes.addressof(flag)).join()
    assert flag.value == 1


def test_a_cffi_function_pointer_runs(native_path: Path) -> None:
    import cffi

    ffi = cffi.FFI()
    ffi.cdef("void set_flag(void *p);")
    lib = ffi.dlopen(str(native_path))
    flag = ffi.new("int32_t *")
    fn = ffi.addressof(lib, "set_flag")
    gort.native.go(fn, int(ffi.cast("uintptr_t", flag))).join()
    assert flag[0] == 1


def test_a_cffi_pointer_may_be_the_argument(native_path: Path) -> None:
    import cffi

    ffi = cffi.FFI()
    ffi.cdef("void set_flag(void *p);")
    lib = ffi.dlopen(str(native_path))
    flag = ffi.new("int32_t *")
    gort.native.go(ffi.addressof(lib, "set_flag"), ffi.cast("void *", flag)).join()
    assert flag[0] == 1


def test_the_argument_is_null_unless_given(native_lib: Any) -> None:
    gort.native.go(native_lib.nothing).join()


@pytest.mark.parametrize("value", ["fn", None, 1.5, [], print, lambda: None])
def test_what_is_no_c_function_raises_type_error(value: Any) -> None:
    with pytest.raises(TypeError):
        gort.native.go(value)


@pytest.mark.parametrize("value", [0, -1, 2**64])
def test_an_address_that_cannot_be_one_raises_value_error(value: int) -> None:
    with pytest.raises((ValueError, OverflowError)):
        gort.native.go(value)


@pytest.mark.parametrize("value", ["arg", None, 1.5, []])
def test_an_argument_that_is_no_pointer_raises_type_error(native_lib: Any, value: Any) -> None:
    with pytest.raises(TypeError):
        gort.native.go(native_lib.nothing, value)


# ---- the handle --------------------------------------------------------------------------


@everywhere
def test_join_waits_until_it_is_done(native_lib: Any, where: Any) -> None:
    ch = gort.Chan(dtype="i64")
    job = Job(inp=ch.ptr)
    g = start(native_lib.consume, job)
    assert g.done is False
    with pytest.raises(TimeoutError):
        where(lambda: g.join(timeout=0.001))
    ch.send(5)
    ch.close()
    assert where(g.join) is None
    assert g.done is True
    assert g.join() is None
    assert (job.count, job.sum, job.status, job.first) == (1, 5, ECLOSED, 0)


def test_join_with_a_timeout_takes_at_least_its_time(native_lib: Any) -> None:
    ch = gort.Chan(dtype="i64")
    job = Job(inp=ch.ptr)
    g = start(native_lib.consume, job)
    begin = time.monotonic_ns()
    with pytest.raises(TimeoutError):
        g.join(timeout=0.03)
    assert time.monotonic_ns() - begin >= 30_000_000
    ch.close()
    g.join()


def test_ids_are_unique_and_what_the_c_side_sees(native_lib: Any) -> None:
    jobs = [Job() for _ in range(20)]
    gs = [start(native_lib.goid, job) for job in jobs]
    for g in gs:
        g.join()
    assert [job.sum for job in jobs] == [g.id for g in gs]
    assert len({g.id for g in gs}) == 20


def test_a_goroutine_runs_on_though_its_handle_is_gone(native_lib: Any) -> None:
    ch = gort.Chan(dtype="i64")
    job = Job(out=ch.ptr, first=1, count=3)
    start(native_lib.produce, job)
    assert [ch.recv() for _ in range(3)] == [1, 2, 3]
    spin_until(lambda: job.shared)


def test_many_join_one_native_goroutine(native_lib: Any) -> None:
    ch = gort.Chan(dtype="i64")
    job = Job(inp=ch.ptr)
    g = start(native_lib.consume, job)
    joiners = [gort.go(g.join) for _ in range(5)]
    threads = [PlainThread(g.join) for _ in range(3)]
    ch.close()
    for j in joiners:
        j.join()
    for t in threads:
        t.result()


# ---- channels between C and Python -------------------------------------------------------


@everywhere
@pytest.mark.parametrize("cap", [0, 1, 5])
def test_python_receives_what_c_sends(native_lib: Any, where: Any, cap: int) -> None:
    ch = gort.Chan(cap, dtype="i64")
    job = Job(out=ch.ptr, first=-50, count=100)
    g = start(native_lib.produce, job)
    assert where(lambda: [ch.recv() for _ in range(100)]) == list(range(-50, 50))
    g.join()
    assert job.status == OK


@everywhere
@pytest.mark.parametrize("cap", [0, 1, 5])
def test_c_receives_what_python_sends(native_lib: Any, where: Any, cap: int) -> None:
    ch = gort.Chan(cap, dtype="i64")
    job = Job(inp=ch.ptr)
    g = start(native_lib.consume, job)

    def send() -> None:
        for i in range(100):
            ch.send(i)
        ch.close()

    where(send)
    g.join()
    assert (job.count, job.sum) == (100, sum(range(100)))


@pytest.mark.parametrize(
    ("dtype", "body", "first", "expected"),
    [
        ("f64", "produce_f64", 1, [1.0, 1.5, 2.0, 2.5]),
        ("u8", "produce_u8", 254, [254, 255, 0, 1]),
        ("ptr", "produce_ptr", 2**63 - 2, [2**63 - 2, 2**63 - 1, 2**63, 2**63 + 1]),
    ],
)
@pytest.mark.parametrize("cap", [0, 2])
def test_every_dtype_crosses(native_lib: Any, dtype: str, body: str, first: int, expected: Any, cap: int) -> None:
    ch = gort.Chan(cap, dtype=dtype)
    job = Job(out=ch.ptr, first=first, count=4)
    g = start(getattr(native_lib, body), job)
    assert [ch.recv() for _ in range(4)] == expected
    g.join()


@pytest.mark.parametrize(("dtype", "size"), [("i64", 8), ("f64", 8), ("u8", 1), ("ptr", 8)])
def test_c_sees_size_length_and_capacity(native_lib: Any, dtype: str, size: int) -> None:
    ch = gort.Chan(3, dtype=dtype)
    ch.send(1)
    job = Job(inp=ch.ptr)
    start(native_lib.measure, job).join()
    assert (job.first, job.count, job.sum) == (size, 1, 3)


def test_a_pipeline_through_c(native_lib: Any) -> None:
    a, b, c = (gort.Chan(cap, dtype="i64") for cap in (0, 2, 0))
    jobs = [Job(inp=a.ptr, out=b.ptr), Job(inp=b.ptr, out=c.ptr)]
    gs = [start(native_lib.relay, job) for job in jobs]

    def feed() -> None:
        for i in range(200):
            a.send(i)
        a.close()

    feeder = gort.go(feed)
    assert list(c) == [(i * 2 + 1) * 2 + 1 for i in range(200)]
    feeder.join()
    for g in gs:
        g.join()
    assert [job.count for job in jobs] == [200, 200]


def test_c_sends_in_order_with_python_and_threads(native_lib: Any) -> None:
    ch = gort.Chan(1, dtype="i64")
    job = Job(out=ch.ptr, first=0, count=100)
    g = start(native_lib.produce, job)
    p = gort.go(lambda: [ch.send(i) for i in range(1000, 1100)])
    t = PlainThread(lambda: [ch.send(i) for i in range(2000, 2100)])
    got = [ch.recv() for _ in range(300)]
    for part in (range(100), range(1000, 1100), range(2000, 2100)):
        assert [v for v in got if v in part] == list(part)
    g.join()
    p.join()
    t.result()


def test_closing_fails_a_waiting_c_sender(native_lib: Any) -> None:
    ch = gort.Chan(1, dtype="i64")
    job = Job(out=ch.ptr, first=7, count=2)
    g = start(native_lib.produce, job)
    spin_until(lambda: len(ch) == 1)
    ch.close()
    g.join()
    assert job.status == ECLOSED
    assert list(ch) == [7]


def test_c_closes_and_python_hears_of_it(native_lib: Any) -> None:
    ch = gort.Chan(dtype="i64")
    g = gort.go(ch.recv_ok)
    job = Job(out=ch.ptr)
    start(native_lib.close_chan, job).join()
    assert g.join() == (0, False)
    assert ch.closed
    assert job.status == OK
    start(native_lib.close_chan, job).join()
    assert job.status == ECLOSED


@pytest.mark.parametrize("timeout_ns", [0, -1, 2_000_000])
def test_timeouts_in_c(native_lib: Any, timeout_ns: int) -> None:
    ch = gort.Chan(dtype="i64")
    wanted = (EAGAIN, ETIMEDOUT) if timeout_ns <= 0 else (ETIMEDOUT,)
    for body, job in ((native_lib.recv_timeout, Job(inp=ch.ptr)), (native_lib.send_timeout, Job(out=ch.ptr))):
        job.timeout_ns = timeout_ns
        start(body, job).join()
        assert job.status in wanted
    nobody_sends(ch)
    nobody_receives(ch)


def test_try_operations_in_c(native_lib: Any) -> None:
    ch = gort.Chan(1, dtype="i64")
    job = Job(inp=ch.ptr, out=ch.ptr, first=9)
    seen = []
    for body in ("try_recv", "try_send", "try_send", "try_recv"):
        start(getattr(native_lib, body), job).join()
        seen.append(job.status)
    assert seen == [EAGAIN, OK, EAGAIN, OK]
    assert job.sum == 9
    ch.close()
    start(native_lib.try_recv, job).join()
    assert (job.status, job.sum) == (ECLOSED, 0)
    start(native_lib.try_send, job).join()
    assert job.status == ECLOSED


def test_a_null_channel_is_gos_nil_channel(native_lib: Any) -> None:
    job = Job(timeout_ns=1_000_000)
    for body in (native_lib.recv_timeout, native_lib.send_timeout):
        start(body, job).join()
        assert job.status == ETIMEDOUT
    for body in (native_lib.try_recv, native_lib.try_send):
        start(body, job).join()
        assert job.status == EAGAIN


def test_select_in_c(native_lib: Any) -> None:
    a, b = gort.Chan(dtype="i64"), gort.Chan(dtype="i64")
    job = Job(inp=a.ptr, out=b.ptr, first=100)
    g = start(native_lib.select_loop, job)
    got = []
    for i in range(50):
        a.send(i)
        got.append(b.recv())
    a.close()
    g.join()
    assert got == list(range(100, 150))
    assert (job.count, job.sum, job.first) == (50, sum(range(50)), 150)


def test_select_in_c_and_select_in_python_meet(native_lib: Any) -> None:
    a, b = gort.Chan(dtype="i64"), gort.Chan(dtype="i64")
    job = Job(inp=a.ptr, out=b.ptr, first=0)
    g = start(native_lib.select_loop, job)
    sent, got = 0, []
    for i in range(500):
        index, value, ok = gort.select((a, i), b)
        assert ok
        if index == 0:
            sent += i
        else:
            got.append(value)
    b.close()
    g.join()
    assert job.sum == sent
    assert got == list(range(len(got)))


def test_select_in_c_times_out(native_lib: Any) -> None:
    a, b = gort.Chan(dtype="i64"), gort.Chan(dtype="i64")
    job = Job(inp=a.ptr, out=b.ptr, timeout_ns=1_000_000)
    start(native_lib.select_loop, job).join()
    assert job.status == ETIMEDOUT
    nobody_sends(b)
    nobody_receives(a)


# ---- no GIL, all processors ---------------------------------------------------------------------


def test_sleep_in_c_takes_at_least_its_time(native_lib: Any) -> None:
    job = Job(timeout_ns=20_000_000)
    start(native_lib.sleep_for, job).join()
    assert job.status == OK
    assert job.sum >= 20_000_000


def test_a_native_goroutine_runs_while_the_gil_is_held(native_lib: Any, native_path: Path) -> None:
    """PyDLL calls keep the GIL: the C loop ends only if the goroutine runs beside it."""
    holding = ctypes.PyDLL(str(native_path))
    holding.spin_until_set.argtypes = [ctypes.c_void_p]
    flag = ctypes.c_int32(0)
    g = gort.native.go(native_lib.set_flag, ctypes.addressof(flag))
    assert holding.spin_until_set(ctypes.addressof(flag)) == 1
    g.join()


def test_native_goroutines_run_at_once_on_several_processors(native_lib: Any) -> None:
    gort.gomaxprocs(3)
    job = Job(count=3)
    gs = [start(native_lib.rendezvous, job) for _ in range(3)]
    for g in gs:
        g.join()
    assert (job.shared, job.status) == (3, 0)


@pytest.mark.parametrize("procs", [1, 2, 4])
def test_goroutines_start_goroutines_in_c(native_lib: Any, procs: int) -> None:
    gort.gomaxprocs(procs)
    job = Job(count=12)
    start(native_lib.grow_tree, job).join()
    assert job.sum == 2**13 - 1
    assert job.status == 0


def test_channels_and_goroutines_all_in_c(native_lib: Any) -> None:
    job = Job(count=1000)
    start(native_lib.all_in_c, job).join()
    assert (job.sum, job.status) == (999 * 1000, ECLOSED)


def test_c_calls_from_a_plain_thread_and_from_main(native_lib: Any) -> None:
    """The C functions called straight, with the GIL released by ctypes: the thread itself waits."""
    ch = gort.Chan(dtype="i64")
    job = Job(inp=ch.ptr)
    thread = PlainThread(native_lib.consume, ctypes.byref(job))
    other = Job(out=ch.ptr, first=0, count=100)
    native_lib.produce(ctypes.byref(other))
    ch.close()
    thread.result()
    assert (job.count, job.sum) == (100, sum(range(100)))


def test_main_waits_in_a_c_call_while_goroutines_go_on(native_lib: Any) -> None:
    ch = gort.Chan(dtype="i64")
    job = Job(inp=ch.ptr)

    def feed() -> None:
        for i in range(10):
            ch.send(i)
        ch.close()

    g = gort.go(feed)
    native_lib.consume(ctypes.byref(job))
    g.join()
    assert job.sum == 45


def test_ten_thousand_native_goroutines(native_lib: Any) -> None:
    ch = gort.Chan(dtype="i64")
    jobs = [Job(out=ch.ptr, first=i, count=1) for i in range(10_000)]
    gs = [start(native_lib.produce, job) for job in jobs]
    assert sorted(ch.recv() for _ in jobs) == list(range(10_000))
    for g in gs:
        g.join()


# ---- deadlock, dumps, the end --------------------------------------------------------------------------


def test_a_native_goroutine_that_will_send_is_hope(native_lib: Any) -> None:
    ch = gort.Chan(dtype="i64")
    job = Job(timeout_ns=20_000_000)
    sleeper = start(native_lib.sleep_for, job)
    other = Job(out=ch.ptr, first=3, count=1)
    g = start(native_lib.produce, other)
    assert ch.recv() == 3
    sleeper.join()
    g.join()


def test_main_joining_a_sleeping_native_goroutine_is_no_deadlock(native_lib: Any) -> None:
    job = Job(timeout_ns=30_000_000)
    start(native_lib.sleep_for, job).join()
    assert job.status == OK


def test_a_program_ends_though_native_goroutines_wait(native_path: Path) -> None:
    done = run_program(
        f"""
        import ctypes, gort, gort.native
        ctypes.CDLL(gort.native.lib_path(), mode=ctypes.RTLD_GLOBAL)
        lib = ctypes.CDLL({str(native_path)!r})
        ch = gort.Chan(dtype="i64")
        job = (ctypes.c_void_p * 16)(ch.ptr)
        g = gort.native.go(lib.consume, ctypes.addressof(job))
        ch.send(1)
        print("end")
        """
    )
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr


@pytest.mark.parametrize("how", ["python", "native"])
def test_a_c_stack_overflow_ends_in_gos_report(native_path: Path, how: str) -> None:
    done = run_program(
        f"""
        import ctypes, gort, gort.native
        ctypes.CDLL(gort.native.lib_path(), mode=ctypes.RTLD_GLOBAL)
        lib = ctypes.CDLL({str(native_path)!r})
        def the_culprit():
            lib.overflow(None)
        g = gort.go(the_culprit) if {how!r} == "python" else gort.native.go(lib.overflow)
        print(g.id, flush=True)
        g.join()
        """,
        GORT_STACK="256K",
    )
    assert done.returncode != 0
    assert "goroutine stack exceeds" in done.stderr
    assert "-byte limit" in done.stderr
    # a native one may have overflowed before its number was printed
    number = done.stdout.strip() or r"\d+"
    assert re.search(rf"goroutine {number} \[running", done.stderr)
    if how == "python":
        assert "the_culprit" in done.stderr


# ---- Cython -----------------------------------------------------------------------------------------------


def test_cython_code_uses_gort_pxd(tmp_path: Path) -> None:
    """gort.pxd: a nogil function as a goroutine and channels by their C names."""
    (tmp_path / "uses_gort.pyx").write_text(
        textwrap.dedent(
            """
            # cython: language_level=3
            from libc.stdint cimport int64_t, uintptr_t
            cimport gort
            import gort.native

            cdef void squares(void *p) noexcept nogil:
                cdef gort.gort_chan *c = <gort.gort_chan *>p
                cdef int64_t i, v
                for i in range(10):
                    v = i * i
                    if gort.gort_chan_send(c, &v) != gort.GORT_OK:
                        return
                gort.gort_chan_close(c)

            def run(ch):
                gort.native.go(<uintptr_t>&squares, ch.ptr)
                return list(ch)
            """
        )
    )
    (tmp_path / "setup.py").write_text(
        textwrap.dedent(
            """
            import gort
            from Cython.Build import cythonize
            from setuptools import Extension, setup
            setup(ext_modules=cythonize([Extension("uses_gort", ["uses_gort.pyx"],
                                                   include_dirs=[gort.get_include()])]))
            """
        )
    )
    env = program_env()
    build = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, build.stdout + build.stderr
    use = "import ctypes, gort, gort.native\n"
    use += "ctypes.CDLL(gort.native.lib_path(), mode=ctypes.RTLD_GLOBAL)\n"
    use += "import uses_gort\nprint(uses_gort.run(gort.Chan(2, dtype='i64')))"
    done = subprocess.run(
        [sys.executable, "-c", use], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.stdout == f"{[i * i for i in range(10)]}\n", done.stderr
