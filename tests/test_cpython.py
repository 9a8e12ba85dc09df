"""A quick selection of CPython's own tests, in a goroutine and under `python -m gort`. All of them: cpython/run.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("test.support", reason="this Python comes without its tests")

RUN = Path(__file__).parent / "cpython" / "run.py"

# Deep C recursion, callbacks from C into Python, generators and contexts, threads and signals.
QUICK = [
    "test_ast",
    "test_contextlib",
    "test_context",
    "test_copy",
    "test_coroutines",
    "test_ctypes",
    "test_decimal",
    "test_descr",
    "test_exceptions",
    "test_functools",
    "test_gc",
    "test_generators",
    "test_isinstance",
    "test_json",
    "test_marshal",
    "test_memoryview",
    "test_pickle",
    "test_re",
    "test_richcmp",
    "test_sort",
    "test_sqlite3",
    "test_struct",
    "test_syntax",
    "test_thread",
    "test_zlib",
]


@pytest.mark.slow
@pytest.mark.parametrize("module", QUICK)
def test_cpythons_own_tests_pass_in_a_goroutine_as_in_a_thread(module: str) -> None:
    command = [sys.executable, str(RUN), "-v", module]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# Quick, and about what it replaces (test_queue takes 10 s each way, test_selectors 15 s).
PATCHED = [
    "test_sched",
    "test_select",
    "test_thread",
    "test_threading_local",
    "test_threadsignals",
]


@pytest.mark.slow
@pytest.mark.parametrize("module", PATCHED)
def test_cpythons_own_tests_pass_under_python_m_gort_as_without(module: str) -> None:
    command = [sys.executable, str(RUN), "-v", "--place", "patched", module]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
