"""Every test leaves the runtime as it found it: one goroutine, no thread, no unseen failure."""

from __future__ import annotations

import gc
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import gort

MODELS = [f"model_{name}" for name in ("support", "actors", "native", "chan", "sync", "stress")]
pytest.register_assert_rewrite(*MODELS)

settings.register_profile("gort", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("gort")

# A test run in the background of a shell inherits an ignored SIGINT and would pass it on to the
# programs that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long a goroutine that is ending may take to be gone; only a leak waits that long.
ENDING = 5.0


def _others() -> int:
    """The number of goroutines besides main, once those that are ending have ended."""
    deadline = time.monotonic() + ENDING
    while gort.num_goroutine() != 1 and time.monotonic() < deadline:
        gort.gosched()
    return gort.num_goroutine() - 1


def _threads() -> set[threading.Thread]:
    return {t for t in threading.enumerate() if not isinstance(t, threading._DummyThread)}


@pytest.fixture
def panics() -> list[tuple[Any, BaseException]]:
    """What the excepthook was called with; a test that does not ask for it must cause no such call."""
    return []


@pytest.fixture(autouse=True)
def leaves_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    expected = "panics" in request.fixturenames
    seen: list[tuple[Any, BaseException]] = request.getfixturevalue("panics") if expected else []
    procs, threads, hook = gort.gomaxprocs(), _threads(), gort.excepthook
    gort.excepthook = lambda goroutine, exc: seen.append((goroutine, exc))
    yield
    wrong = []
    if left := _others():
        wrong.append(f"{left} goroutines left behind\n{gort.stack(all=True)}")
        gort.run(lambda: None)  # unwinds them with GoroutineExit
    if extra := _threads() - threads:
        wrong.append(f"threads left behind: {extra}")
    gc.collect()
    gc.freeze()  # what pytest keeps of this test is none of the next collection's business
    if seen and not expected:
        wrong.append(f"exceptions nobody joined: {[exc for _, exc in seen]}")
    seen.clear()
    gort.excepthook = hook
    gort.gomaxprocs(procs)
    if wrong:
        pytest.fail("\n".join(wrong), pytrace=False)


@pytest.fixture(scope="session")
def native_lib(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The C functions of model_native.py, compiled against gort.h and loaded with ctypes."""
    import model_native

    return model_native.load(tmp_path_factory.mktemp("native"))


@pytest.fixture(scope="session")
def native_path(native_lib: Any) -> Path:
    """The shared library behind `native_lib`, for cffi."""
    return Path(native_lib._name)
