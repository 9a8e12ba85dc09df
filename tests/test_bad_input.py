"""Bad input is refused at once, by an error that names the argument and the value.

That each structure stays as it was is tested beside its behaviour (test_chan.py, test_sync.py, ...).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import gort
import gort.native
import gort.sync
import gort.time
from gort.atomic import Int64


def typed(dtype: str) -> gort.Chan[Any]:
    return gort.Chan(1, dtype=dtype)  # type: ignore[call-overload]


# What is called, the error, the argument it must name ("" where the position says it), the value.
CASES: list[tuple[Callable[[], object], type[Exception], str, Any]] = [
    (lambda: gort.go(5), TypeError, "", 5),  # type: ignore[arg-type]
    (lambda: gort.run(5), TypeError, "", 5),  # type: ignore[arg-type]
    (lambda: gort.blocking(5), TypeError, "", 5),  # type: ignore[arg-type]
    (lambda: gort.sleep("1"), TypeError, "", "1"),  # type: ignore[arg-type]
    (lambda: gort.sleep(float("nan")), ValueError, "", float("nan")),
    (lambda: gort.gomaxprocs("2"), TypeError, "", "2"),  # type: ignore[arg-type]
    (lambda: gort.Chan(-1), ValueError, "cap", -1),
    (lambda: gort.Chan(2**62), ValueError, "cap", 2**62),
    (lambda: gort.Chan(2**100), ValueError, "cap", 2**100),
    (lambda: gort.Chan("3"), TypeError, "cap", "3"),  # type: ignore[arg-type]
    (lambda: gort.Chan(1.5), TypeError, "cap", 1.5),  # type: ignore[arg-type]
    (lambda: gort.Chan(dtype="i32"), ValueError, "dtype", "i32"),  # type: ignore[call-overload]
    (lambda: typed("i64").send("x"), TypeError, "", "x"),
    (lambda: typed("i64").send(2**63), OverflowError, "", 2**63),
    (lambda: typed("u8").send(256), OverflowError, "", 256),
    (lambda: typed("u8").send(-1), OverflowError, "", -1),
    (lambda: typed("f64").send("x"), TypeError, "", "x"),
    (lambda: typed("ptr").send(-1), OverflowError, "", -1),
    (lambda: gort.Chan().recv(timeout="1"), TypeError, "timeout", "1"),  # type: ignore[arg-type]
    (lambda: gort.Chan().recv(timeout=float("nan")), ValueError, "timeout", float("nan")),
    (lambda: gort.Chan().recv(ctx=5), TypeError, "ctx", 5),  # type: ignore[arg-type]
    (lambda: gort.select(5), TypeError, "", 5),  # type: ignore[arg-type]
    (lambda: gort.select(gort.Chan(1), (1, 2)), TypeError, "", 1),  # type: ignore[arg-type]
    (lambda: gort.select((typed("u8"), 300)), OverflowError, "", 300),
    (lambda: gort.sync.WaitGroup().add("1"), TypeError, "", "1"),  # type: ignore[arg-type]
    (lambda: gort.sync.WaitGroup().go(5), TypeError, "", 5),  # type: ignore[arg-type]
    (lambda: gort.sync.Once().do(5), TypeError, "", 5),  # type: ignore[arg-type]
    (lambda: gort.sync.Cond(5), TypeError, "", 5),  # type: ignore[arg-type]
    (lambda: gort.sync.Pool(5), TypeError, "", 5),  # type: ignore[arg-type]
    (lambda: gort.sync.Semaphore(-1), ValueError, "", -1),
    (lambda: gort.sync.Semaphore(1).acquire(-1), ValueError, "", -1),
    (lambda: gort.sync.Semaphore(1).release(-1), ValueError, "", -1),
    (lambda: Int64().store("1"), TypeError, "", "1"),  # type: ignore[arg-type]
    (lambda: Int64().store(2**63), OverflowError, "", 2**63),
    (lambda: gort.time.Timer("1"), TypeError, "", "1"),  # type: ignore[arg-type]
    (lambda: gort.time.Ticker(0), ValueError, "", 0),
    (lambda: gort.time.Ticker(-1), ValueError, "", -1),
    (lambda: gort.time.after_func(1, 5), TypeError, "", 5),  # type: ignore[arg-type]
    (lambda: gort.native.go("fn"), TypeError, "", "fn"),  # type: ignore[arg-type]
]


def case_id(case: Any) -> str:
    call, error, _, value = case
    names = [name for name in call.__code__.co_names if name not in ("gort", "float")]
    return f"{'.'.join(names)}-{error.__name__}-{value!r:.12}"


@pytest.mark.parametrize("case", [pytest.param(c, id=case_id(c)) for c in CASES])
def test_the_error_names_the_argument_and_the_value(case: Any) -> None:
    call, error, argument, value = case
    with pytest.raises(error) as caught:
        call()
    text = str(caught.value)
    assert argument in text
    # A value of a wrong type may be told by its type.
    shown = [repr(value), str(value)] + ([type(value).__name__] if error is TypeError else [])
    assert any(s in text for s in shown), text


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: gort.sync.Mutex().unlock(), RuntimeError, "unlock"),
        (lambda: gort.sync.RWMutex().unlock(), RuntimeError, "unlock"),
        (lambda: gort.sync.RWMutex().runlock(), RuntimeError, "unlock"),
        (lambda: gort.sync.WaitGroup().done(), RuntimeError, "negative"),
        (lambda: gort.sync.Semaphore(1).release(), RuntimeError, "release"),
        (lambda: gort.current().join(), RuntimeError, "itself"),
        (lambda: gort.NIL.close(), gort.ChanClosed, "nil"),
    ],
    ids=["Mutex.unlock", "RWMutex.unlock", "RWMutex.runlock", "WaitGroup.done", "Semaphore.release", "join", "NIL"],
)
def test_the_error_says_what_was_wrong(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)


@pytest.mark.parametrize("again", range(3))
def test_the_runtime_is_usable_after_all_of_it(again: int) -> None:
    for call, error, _, _ in CASES:
        with pytest.raises(error):
            call()
    ch = gort.Chan()
    g = gort.go(ch.send, again)
    assert ch.recv() == again
    g.join()
