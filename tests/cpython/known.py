"""What is known about CPython's tests in goroutines: modules not run, tests left out, differences explained."""

from __future__ import annotations

import fnmatch

# Whole modules that say nothing about goroutines, for they test other programs
# than the one they run in, or take very long.
NOT_RUN = {
    "test_idle": "needs a display",
    "test_tkinter": "needs a display",
    "test_ttk": "needs a display",
    "test_tk": "needs a display",
    "test_tcl": "needs a display",
    "test_turtle": "needs a display",
    "test_gdb": "runs gdb on other processes",
    "test_regrtest": "runs python -m test in other processes",
    "test_tools": "tests programs of the source tree",
    "test_peg_generator": "compiles parsers, minutes",
    "test_c_locale_coercion": "runs other processes only",
    "test_embed": "runs other processes only",
    "test_ensurepip": "tests pip",
    "test_venv": "tests pip",
    "test_zipfile64": "gigabytes",
    "test_lib2to3": "minutes, pure Python",
    "test_distutils": "compiles with tools of the machine",
    "test_cppext": "compiles with tools of the machine",
    "test_cext": "compiles with tools of the machine",
    "test_freeze": "compiles CPython",
    "test_perf_profiler": "runs other processes only",
    "test_perfmaps": "runs other processes only",
    "test_pyrepl": "needs a terminal",
    "test_multiprocessing_fork": "minutes, in processes; by name it runs",
    "test_multiprocessing_forkserver": "minutes, in processes; by name it runs",
    "test_multiprocessing_spawn": "minutes, in processes; by name it runs",
    "test_concurrent_futures": "minutes, in processes; by name it runs",
    "test_bigmem": "needs gigabytes",
    "test_bigaddrspace": "needs gigabytes",
    "test_largefile": "needs gigabytes",
}

# module: tests that are not run.
LEFT_OUT: dict[str, list[str]] = {
    "test_asyncio": [
        "test.test_asyncio.test_runners.RunTests.test_asyncio_run_without_uncancel",
        "test.test_asyncio.test_runners.RunnerTests.test_interrupt_call_soon",
        "test.test_asyncio.test_runners.RunnerTests.test_interrupt_wait",
    ],
    "test_io": [
        f"test.test_io.{kind}SignalsTest.test_interrupted_write_{how}"
        for kind in ("Py", "C")
        for how in ("buffered", "text", "unbuffered")
    ],
}

WHY_LEFT_OUT = """\
These wait for a signal that interrupts them, and belong to the main thread: a plain thread cannot run them either (it
may not set a handler). A goroutine on the main OS thread may set one. It then runs late, or in the main goroutine,
which waits for the end of the test."""

# What a verdict says by itself.
GENERAL = {
    "main thread": "signals or something else that only the main thread may; a goroutine is there by chance",
    "baseline": "nothing to do with gort: the machine, or how the tests are loaded",
    "unsteady": "depends on time; passed when it was run again",
}

# (test id pattern, verdict pattern, versions or (), explanation)
EXPLAINED: list[tuple[str, str, tuple[tuple[int, int], ...], str]] = [
    (
        "test.test_signal.*",
        "hang (main thread)",
        ((3, 13),),
        "CPython 3.13 tells only the main thread state of a signal: a goroutine that computes on the main OS thread "
        "hears of it at its next switch, and these compute until they hear of it. In a plain thread they fail at once.",
    ),
    (
        "test.test_functools.TestLRUC.test_lru_recursion",
        "differs",
        ((3, 13),),
        "2,857 nested lru_cache calls, each with a C frame: a thread's 8 MiB take them, a goroutine's 256 KiB end in "
        "RecursionError before. `GORT_STACK=4M` lets it pass.",
    ),
    (
        "test.test_threading.SubinterpThreadingTests.test_threads_join*",
        "*",
        ((3, 13),),
        "CPython 3.13.0's own: Py_EndInterpreter, outside the main thread, does not wait for the subinterpreter's "
        "threads and aborts. In a plain thread, without gort, it does so nearly every time; in a goroutine if it runs "
        "on another OS thread than the main one.",
    ),
    (
        "test.test_threading.ExceptHookTests.test_excepthook_thread_None",
        "differs",
        (),
        "Without a Thread, CPython's hook prints the number of the OS thread, and `get_ident()` is the goroutine's.",
    ),
    (
        "test.test_sys.SysModuleTest.test_current_exceptions",
        "differs",
        (),
        "`sys._current_exceptions()` has a thread 0: the state that gort's monitoring thread uses.",
    ),
    (
        "test.test_tracemalloc.TestTracemallocEnabled.*",
        "differs",
        (),
        "Want a stack of 10 frames; a goroutine's has 9, for it has no frames of `threading` below.",
    ),
]


# The modules that run under `python -m gort`: those whose subject it replaces, and those that are made of it.
PATCHED = [
    "test_asyncio",
    "test_asyncore",
    "test_concurrent_futures",
    "test_epoll",
    "test_ftplib",
    "test_httplib",
    "test_httpservers",
    "test_imaplib",
    "test_logging",
    "test_poll",
    "test_poplib",
    "test_queue",
    "test_sched",
    "test_select",
    "test_selectors",
    "test_signal",
    "test_smtplib",
    "test_socket",
    "test_socketserver",
    "test_ssl",
    "test_subprocess",
    "test_telnetlib",
    "test_thread",
    "test_threadedtempfile",
    "test_threading",
    "test_threading_local",
    "test_threadsignals",
    "test_time",
    "test_urllib",
    "test_urllib2",
    "test_urllib2_localnet",
    "test_urllib_response",
    "test_urlparse",
    "test_xmlrpc",
]

# As EXPLAINED, under `python -m gort`.
EXPLAINED_PATCHED: list[tuple[str, str, tuple[tuple[int, int], ...], str]] = [
    (
        "test.test_threading.ThreadTests.test_various_ops*",
        "differs",
        (),
        "Wants an OS thread for each thread, by its `native_id`. Goroutines share a few.",
    ),
    (
        "test.test_threading.ThreadTests.test_foreign_thread",
        "differs",
        ((3, 11), (3, 12)),
        "Wants what it takes for a leak: up to 3.12 threading keeps the stand-in for a thread that it has not started. "
        "gort drops it with the goroutine, as CPython does from 3.13 on.",
    ),
    (
        "test.test_threading.ThreadTests.test_ident_of_no_threading_threads",
        "differs",
        ((3, 11), (3, 12)),
        "As test_foreign_thread.",
    ),
    (
        "test.test_socket.ThreadedVSOCKSocketStreamTest.testStream",
        "*baseline*",
        (),
        "The machine's vsock leads nowhere; it fails or hangs without gort too.",
    ),
    (
        "test.test_socket.GeneralModuleTests.testRefCountGetNameInfo",
        "differs",
        (),
        "Counts the references to an argument of `socket.getnameinfo` while the exception it raised is there: that "
        "refers to a frame, for the function is in Python.",
    ),
]


def why(name: str, verdict: str, version: tuple[int, int], place: str = "goroutine") -> str:
    """The explanation on record, or ""."""
    for pattern, verdicts, versions, text in EXPLAINED_PATCHED if place == "patched" else EXPLAINED:
        if (
            fnmatch.fnmatchcase(name, pattern)
            and fnmatch.fnmatch(verdict, verdicts)
            and (not versions or version in versions)
        ):
            return text
    return ""
