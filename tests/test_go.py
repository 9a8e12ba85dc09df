"""go, the Goroutine handle and the functions that ask about the runtime."""

from __future__ import annotations

import functools
import os
import time
from typing import Any

import pytest
from model_support import EVERYWHERE, PlainThread, finish, from_thread, output_of, park, settle, spin_until

import gort

# ---- go and join ------------------------------------------------------------------


def test_join_returns_the_functions_result() -> None:
    assert gort.go(lambda: 42).join() == 42


def test_go_passes_positional_and_keyword_arguments() -> None:
    def body(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    assert gort.go(body, 1, 2, a=3, b=4).join() == ((1, 2), {"a": 3, "b": 4})


@pytest.mark.parametrize(
    ("fn", "args", "result"),
    [
        (len, ([1, 2, 3],), 3),
        ("abc".upper, (), "ABC"),
        (functools.partial(pow, 2), (10,), 1024),
        (dict, ([("a", 1)],), {"a": 1}),
        (type("Callable", (), {"__call__": lambda self, x: x + 1})(), (1,), 2),
    ],
    ids=["builtin", "method", "partial", "class", "instance"],
)
def test_go_takes_any_callable(fn: Any, args: tuple[Any, ...], result: Any) -> None:
    assert gort.go(fn, *args).join() == result


@pytest.mark.parametrize("value", [5, None, "print", object()])
def test_go_of_a_non_callable_raises_type_error_at_once(value: Any) -> None:
    before = gort.num_goroutine()
    with pytest.raises(TypeError):
        gort.go(value)
    assert gort.num_goroutine() == before


def test_go_without_a_function_raises_type_error() -> None:
    with pytest.raises(TypeError):
        gort.go()  # type: ignore[call-arg]


@pytest.mark.parametrize("where", EVERYWHERE)
def test_go_works_from_everywhere(where: Any) -> None:
    assert where(lambda: gort.go(lambda: "here").join()) == "here"


def test_go_does_not_wait() -> None:
    gate = gort.Chan()
    g = gort.go(gate.recv)
    assert not g.done
    gate.send("through")
    assert g.join() == "through"


def test_join_reraises_the_functions_exception() -> None:
    error = ValueError("no")

    def body() -> None:
        raise error

    with pytest.raises(ValueError) as caught:
        gort.go(body).join()
    assert caught.value is error


def test_the_reraised_exception_shows_where_it_was_raised() -> None:
    def the_culprit() -> None:
        raise ValueError

    with pytest.raises(ValueError) as caught:
        gort.go(the_culprit).join()
    assert "the_culprit" in [entry.name for entry in caught.traceback]


def test_join_again_gives_the_same_again() -> None:
    def fail() -> None:
        raise KeyError("again")

    g, bad = gort.go(lambda: [1]), gort.go(fail)
    assert g.join() is g.join()
    for _ in range(2):
        with pytest.raises(KeyError, match="again"):
            bad.join()


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), BaseException("base")])
def test_join_reraises_base_exceptions_too(error: BaseException) -> None:
    def body() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        gort.go(body).join()
    assert caught.value is error


def test_many_join_one() -> None:
    gate = gort.Chan()
    g = gort.go(gate.recv)
    joiners = [park(g.join) for _ in range(10)]
    thread = PlainThread(g.join)
    gate.send("all")
    assert [j.join() for j in joiners] == ["all"] * 10
    assert thread.result() == "all"


def test_many_join_a_failing_one() -> None:
    gate = gort.Chan()

    def body() -> None:
        gate.recv()
        raise LookupError("for all")

    g = gort.go(body)
    joiners = [park(g.join) for _ in range(5)]
    gate.send(None)
    for j in joiners:
        with pytest.raises(LookupError, match="for all"):
            j.join()
    with pytest.raises(LookupError, match="for all"):
        g.join()


def test_joining_oneself_raises_runtime_error() -> None:
    def body() -> str:
        with pytest.raises(RuntimeError):
            gort.current().join()
        return "went on"

    assert gort.go(body).join() == "went on"


def test_main_joining_itself_raises_runtime_error() -> None:
    with pytest.raises(RuntimeError):
        gort.current().join()


def test_join_of_a_deep_chain_of_goroutines() -> None:
    def link(n: int) -> int:
        return 0 if n == 0 else 1 + gort.go(link, n - 1).join()

    assert gort.go(link, 500).join() == 500


def test_goroutines_may_outlive_the_one_that_started_them() -> None:
    out = gort.Chan(1)
    gate = gort.Chan()

    def child() -> None:
        out.send(gate.recv())

    def parent() -> Any:
        return gort.go(child)

    child_handle = gort.go(parent).join()
    assert not child_handle.done
    gate.send("after the parent")
    assert out.recv() == "after the parent"
    child_handle.join()


def test_go_returns_before_and_the_goroutine_runs_after_though_its_handle_is_gone() -> None:
    out = gort.Chan()
    gort.go(out.send, "ran")
    assert out.recv() == "ran"


def test_a_generator_function_as_goroutine_returns_its_generator() -> None:
    def numbers() -> Any:
        yield from range(3)

    assert list(gort.go(numbers).join()) == [0, 1, 2]


# ---- the handle's attributes --------------------------------------------------------


def test_ids_are_unique_and_grow() -> None:
    gs = [gort.go(lambda: None) for _ in range(100)]
    ids = [g.id for g in gs]
    assert len(set(ids)) == 100
    assert ids == sorted(ids)
    for g in gs:
        g.join()


def test_an_id_is_never_used_again() -> None:
    seen = set()
    for _ in range(200):
        g = gort.go(lambda: None)
        assert g.id not in seen
        seen.add(g.id)
        g.join()


def test_name_is_a_text() -> None:
    g = gort.go(lambda: None)
    assert isinstance(g.name, str)
    g.join()


def test_state_runs_from_runnable_over_waiting_to_dead() -> None:
    gate = gort.Chan()
    states = []

    def body() -> None:
        states.append(gort.current().state)
        gate.recv()

    g = gort.go(body)
    assert g.state in ("runnable", "running", "waiting")
    settle(g)
    assert g.state == "waiting"
    gate.send(None)
    g.join()
    assert g.state == "dead"
    assert states == ["running"]


def test_a_readied_goroutine_is_runnable_until_it_runs() -> None:
    gate = gort.Chan()
    g = park(gate.recv)
    gate.send(None)
    assert g.state in ("runnable", "running", "dead")
    g.join()


def test_main_is_running_where_it_asks() -> None:
    assert gort.current().state == "running"


def test_wait_reason_is_empty_where_nothing_is_waited_for() -> None:
    g = gort.go(lambda: gort.current().wait_reason)
    assert not g.join()
    assert not g.wait_reason
    assert not gort.current().wait_reason


def test_a_goroutine_in_a_blocking_call_is_in_a_syscall() -> None:
    r, w = os.pipe()
    g = gort.go(gort.blocking, os.read, r, 1)
    spin_until(lambda: g.state == "syscall", "state syscall")
    os.write(w, b"x")
    assert g.join() == b"x"
    os.close(r)
    os.close(w)


def test_done_tells_whether_it_ended() -> None:
    gate = gort.Chan()
    g = park(gate.recv)
    assert g.done is False
    gate.send(None)
    g.join()
    assert g.done is True


def test_repr_of_a_handle_names_its_id() -> None:
    g = gort.go(lambda: None)
    assert str(g.id) in repr(g)
    g.join()


def test_handles_are_hashable_and_compare_by_goroutine() -> None:
    a, b = gort.go(lambda: None), gort.go(lambda: None)
    assert a != b
    assert a == a
    assert len({a, b, a}) == 2
    a.join()
    b.join()


# ---- current, num_goroutine, num_cpu, gomaxprocs -------------------------------------------


def test_main_is_goroutine_1() -> None:
    assert gort.current().id == 1


def test_current_is_the_running_goroutines_handle() -> None:
    g = gort.go(lambda: gort.current().id)
    assert g.join() == g.id


def test_current_is_none_in_a_plain_thread() -> None:
    assert PlainThread(gort.current).result() is None


def test_current_stays_the_same_across_waits() -> None:
    def body() -> list[int]:
        ids = []
        for _ in range(5):
            ids.append(gort.current().id)
            gort.gosched()
        return ids

    gs = [gort.go(body) for _ in range(4)]
    for g in gs:
        assert g.join() == [g.id] * 5


def test_num_goroutine_counts_the_living_and_main() -> None:
    gate = gort.Chan()
    assert gort.num_goroutine() == 1
    gs = [park(gate.recv_ok) for _ in range(10)]
    assert gort.num_goroutine() == 11
    gate.close()
    for g in gs:
        g.join()
    spin_until(lambda: gort.num_goroutine() == 1, "one goroutine left")


def test_a_goroutine_that_did_not_run_yet_counts() -> None:
    gs = [gort.go(lambda: None) for _ in range(3)]
    assert 1 <= gort.num_goroutine() <= 4
    for g in gs:
        g.join()


def test_a_plain_thread_is_no_goroutine() -> None:
    assert from_thread(gort.num_goroutine) == 1


def test_num_cpu_is_what_this_process_may_use() -> None:
    assert gort.num_cpu() == len(os.sched_getaffinity(0))


def test_gomaxprocs_sets_and_returns_the_previous() -> None:
    was = gort.gomaxprocs()
    assert gort.gomaxprocs(3) == was
    assert gort.gomaxprocs() == 3
    assert gort.gomaxprocs(was) == 3
    assert gort.gomaxprocs() == was


@pytest.mark.parametrize("n", [0, -1, -100])
def test_gomaxprocs_below_one_changes_nothing(n: int) -> None:
    was = gort.gomaxprocs()
    assert gort.gomaxprocs(n) == was
    assert gort.gomaxprocs() == was


def test_gomaxprocs_may_change_while_goroutines_run() -> None:
    ch = gort.Chan()

    def ping() -> None:
        for i in range(50):
            ch.send(i)

    g = gort.go(ping)
    for i in range(50):
        gort.gomaxprocs(1 + i % 4)
        assert ch.recv() == i
    g.join()


def test_gomaxprocs_starts_from_the_environment() -> None:
    assert output_of("import gort; print(gort.gomaxprocs())", GOMAXPROCS="3") == "3\n"


def test_gomaxprocs_starts_at_the_number_of_cpus_at_most() -> None:
    procs, cpus = output_of("import gort; print(gort.gomaxprocs(), gort.num_cpu())").split()
    assert 1 <= int(procs) <= int(cpus)


@pytest.mark.parametrize("value", ["0", "-2", "many", ""])
def test_a_bad_gomaxprocs_in_the_environment_is_as_none(value: str) -> None:
    assert int(output_of("import gort; print(gort.gomaxprocs())", GOMAXPROCS=value)) >= 1


# ---- gosched, sleep, goexit ---------------------------------------------------------------


def test_gosched_lets_others_run() -> None:
    ran = []
    g = gort.go(lambda: ran.append(True))
    spin_until(lambda: ran, "the other goroutine's turn")
    g.join()


def test_gosched_takes_turns() -> None:
    turns: list[str] = []

    def body(name: str) -> None:
        for _ in range(20):
            turns.append(name)
            gort.gosched()

    a, b = gort.go(body, "a"), gort.go(body, "b")
    a.join()
    b.join()
    assert sorted(turns) == ["a"] * 20 + ["b"] * 20
    assert "ab" in "".join(turns) and "ba" in "".join(turns)


def test_each_gosched_lets_at_least_one_of_the_runnable_others_run() -> None:
    """Also where they are more than a P's own queue of 256 holds."""
    ran: list[int] = []
    gs = [gort.go(ran.append, i) for i in range(2000)]
    yields = 0
    while len(ran) < len(gs):
        gort.gosched()
        yields += 1
    for g in gs:
        g.join()
    assert yields <= len(gs)


@pytest.mark.parametrize("where", EVERYWHERE)
def test_gosched_alone_returns(where: Any) -> None:
    assert where(gort.gosched) is None


@pytest.mark.parametrize("where", EVERYWHERE)
def test_sleep_takes_at_least_its_time(where: Any) -> None:
    def nap() -> int:
        start = time.monotonic_ns()
        assert gort.sleep(0.05) is None
        return time.monotonic_ns() - start

    assert where(nap) >= 50_000_000


@pytest.mark.parametrize("where", EVERYWHERE)
@pytest.mark.parametrize("seconds", [0, 0.0, -1, -0.5, -1e9, 1e-12])
def test_sleep_of_nothing_or_less_returns(where: Any, seconds: float) -> None:
    where(lambda: gort.sleep(seconds))


def test_many_sleep_at_once_and_none_too_short() -> None:
    def nap(seconds: float) -> float:
        start = time.monotonic_ns()
        gort.sleep(seconds)
        return (time.monotonic_ns() - start) / 1e9 - seconds

    gs = [gort.go(nap, 0.0001 * (i * 7919 % 500)) for i in range(500)]
    assert min(g.join() for g in gs) >= -2e-9


def test_others_run_while_one_sleeps() -> None:
    sleeper = park(gort.sleep, 3600)
    assert gort.go(lambda: "meanwhile").join() == "meanwhile"
    sleeper.kill()
    sleeper.join()


@pytest.mark.parametrize("value", ["1", None, [], 1j])
def test_sleep_of_no_number_raises_type_error(value: Any) -> None:
    with pytest.raises(TypeError):
        gort.sleep(value)


def test_sleep_of_nan_raises_value_error() -> None:
    with pytest.raises(ValueError):
        gort.sleep(float("nan"))


def test_goexit_ends_the_goroutine_and_runs_finally() -> None:
    log = []

    def inner() -> None:
        try:
            gort.goexit()
        finally:
            log.append("inner")
        log.append("never")

    def body() -> str:
        try:
            inner()
        except Exception:
            log.append("no exception")
        finally:
            log.append("outer")
        return "never"

    assert gort.go(body).join() is None
    assert log == ["inner", "outer"]


def test_goexit_is_no_failure(panics: list[Any]) -> None:
    g = gort.go(gort.goexit)
    finish(g)
    del g
    assert panics == []


# ---- lock_os_thread -----------------------------------------------------------------------


def os_thread() -> int:
    """The kernel's id of the running OS thread, past any patching."""
    return int(os.readlink("/proc/thread-self").rsplit("/", 1)[1])


def test_a_locked_goroutine_stays_on_its_thread_and_has_it_alone() -> None:
    others: set[int] = set()
    locked: gort.Chan[None] = gort.Chan()
    left = 8

    def body() -> set[int]:
        gort.lock_os_thread()
        locked.close()
        seen = set()
        while left:
            seen.add(os_thread())
            gort.gosched()
            gort.sleep(0)
        gort.unlock_os_thread()
        return seen

    def other() -> None:
        nonlocal left
        locked.recv_ok()
        for _ in range(50):
            others.add(os_thread())
            gort.gosched()
        left -= 1

    g = gort.go(body)
    gs = [gort.go(other) for _ in range(left)]
    mine = g.join()
    for o in gs:
        o.join()
    assert len(mine) == 1
    assert not mine & others


def test_lock_os_thread_nests() -> None:
    def body() -> int:
        gort.lock_os_thread()
        gort.lock_os_thread()
        gort.unlock_os_thread()
        seen = set()
        for _ in range(20):
            seen.add(os_thread())
            gort.sleep(0.0001)
        gort.unlock_os_thread()
        return len(seen)

    gs = [gort.go(body) for _ in range(4)]
    assert [g.join() for g in gs] == [1] * 4


@pytest.mark.parametrize("where", EVERYWHERE)
def test_one_unlock_too_many_does_nothing(where: Any) -> None:
    def body() -> str:
        gort.unlock_os_thread()
        gort.lock_os_thread()
        gort.unlock_os_thread()
        gort.unlock_os_thread()
        gort.gosched()
        return "fine"

    assert where(body) == "fine"


def test_a_goroutine_that_ends_locked_harms_nobody() -> None:
    for _ in range(5):
        gort.go(gort.lock_os_thread).join()
        assert gort.go(lambda: 1).join() == 1


def test_a_locked_goroutine_meets_others_over_channels() -> None:
    ping, pong = gort.Chan(), gort.Chan()

    def body() -> int:
        gort.lock_os_thread()
        thread = os_thread()
        total = 0
        for v in ping:
            assert os_thread() == thread
            total += v
            pong.send(v)
        gort.unlock_os_thread()
        return total

    g = gort.go(body)
    for i in range(100):
        ping.send(i)
        assert pong.recv() == i
    ping.close()
    assert g.join() == sum(range(100))


def test_the_main_goroutine_may_lock_and_unlock() -> None:
    thread = os_thread()
    gort.lock_os_thread()
    gort.go(lambda: None).join()
    assert os_thread() == thread
    gort.unlock_os_thread()
    gort.go(lambda: None).join()
    assert os_thread() == thread


# ---- blocking ------------------------------------------------------------------------------


@pytest.mark.parametrize("where", EVERYWHERE)
def test_blocking_returns_the_functions_result(where: Any) -> None:
    assert where(lambda: gort.blocking(divmod, 7, 2)) == (3, 1)
    assert where(lambda: gort.blocking(dict, a=1)) == {"a": 1}


@pytest.mark.parametrize("where", EVERYWHERE)
def test_blocking_passes_the_functions_exception_on(where: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        where(lambda: gort.blocking(divmod, 1, 0))


@pytest.mark.parametrize("where", EVERYWHERE)
def test_others_run_while_one_blocks(where: Any) -> None:
    r, w = os.pipe()
    g = gort.go(os.write, w, b"x")
    assert where(lambda: gort.blocking(os.read, r, 1)) == b"x"
    assert g.join() == 1
    os.close(r)
    os.close(w)


def test_many_goroutines_block_at_once() -> None:
    pipes = [os.pipe() for _ in range(20)]
    gs = [gort.go(gort.blocking, os.read, r, 1) for r, _ in pipes]
    spin_until(lambda: all(g.state == "syscall" for g in gs), "all in a blocking call")
    for _, w in reversed(pipes):
        os.write(w, b"x")
    assert [g.join() for g in gs] == [b"x"] * 20
    for pair in pipes:
        for fd in pair:
            os.close(fd)


def test_gort_calls_inside_blocking_work() -> None:
    ch = gort.Chan()
    g = gort.go(gort.blocking, ch.recv)
    ch.send("inside")
    assert g.join() == "inside"


def test_a_goroutine_rejoins_after_blocking() -> None:
    ch = gort.Chan()

    def body() -> int:
        total = 0
        for _ in range(20):
            gort.blocking(time.sleep, 0)
            total += ch.recv()
        return total

    g = gort.go(body)
    for i in range(20):
        ch.send(i)
    assert g.join() == sum(range(20))


def test_blocking_of_a_non_callable_raises_type_error() -> None:
    with pytest.raises(TypeError):
        gort.blocking(3)  # type: ignore[arg-type]


def test_a_c_call_that_releases_the_gil_stalls_only_its_goroutine() -> None:
    """Not even `blocking` is needed: the P is handed off while main sits in read()."""
    r, w = os.pipe()
    g = gort.go(os.write, w, b"x")
    assert os.read(r, 1) == b"x"
    g.join()
    os.close(r)
    os.close(w)


# ---- a hundred thousand -----------------------------------------------------------------------


@pytest.mark.slow
def test_a_hundred_thousand_goroutines_park_and_end() -> None:
    gate, n = gort.Chan(), 100_000
    gs = [gort.go(gate.recv) for _ in range(n)]
    settle(*gs)
    assert gort.num_goroutine() == n + 1
    for i in range(n):
        gate.send(i)
    assert sum(g.join() for g in gs) == n * (n - 1) // 2
