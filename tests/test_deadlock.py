"""Deadlock: raised in main when nobody is left to wake anybody; what is hope and what is not.

That every kind of wait can deadlock is tested in test_waiting.py.
"""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
from model_support import PlainThread, nobody_receives, nobody_sends, output_of, park, settle

import gort
import gort.sync
import gort.time


def stuck_in_this_function(ch: Any) -> None:
    ch.recv()


def test_the_text_has_the_dump_of_all_goroutines() -> None:
    ch = gort.Chan()
    g = park(stuck_in_this_function, ch)
    with pytest.raises(gort.Deadlock) as caught:
        gort.Chan().send(1)
    text = str(caught.value)
    assert "goroutine 1 [chan send" in text
    assert f"goroutine {g.id} [chan receive]:" in text
    assert "stuck_in_this_function" in text
    assert "test_the_text_has_the_dump_of_all_goroutines" in text
    ch.close()
    with pytest.raises(gort.ChanClosed):
        g.join()


def test_main_may_catch_it_and_go_on() -> None:
    ch = gort.Chan()
    g = park(ch.recv)
    for _ in range(3):
        with pytest.raises(gort.Deadlock):
            gort.Chan().recv()
    assert g.state == "waiting"
    ch.send("the others are unharmed")
    assert g.join() == "the others are unharmed"


def test_goroutines_that_deadlock_among_themselves_leave_main_alone() -> None:
    a, b = gort.sync.Mutex(), gort.sync.Mutex()

    def body(first: Any, second: Any) -> None:
        with first:
            gort.gosched()
            with second:
                pass

    gs = [gort.go(body, a, b), gort.go(body, b, a)]
    settle(*gs)
    assert gort.go(lambda: "unharmed").join() == "unharmed"
    if any(g.state == "waiting" for g in gs):
        with pytest.raises(gort.Deadlock):
            gs[0].join()
    for g in gs:
        g.kill()
        g.join()


def test_deadlock_that_comes_later_is_found() -> None:
    ch = gort.Chan()

    def body() -> None:
        for i in range(3):
            ch.send(i)
        gort.Chan().recv()

    g = gort.go(body)
    assert [ch.recv() for _ in range(3)] == [0, 1, 2]
    with pytest.raises(gort.Deadlock):
        ch.recv()
    nobody_receives(ch)
    g.kill()
    g.join()


def test_deadlock_after_the_last_goroutine_ended_is_found() -> None:
    ch = gort.Chan()
    gort.go(gort.gosched)
    with pytest.raises(gort.Deadlock):
        ch.recv()
    nobody_receives(ch)


def test_deadlock_after_the_last_sleeper_woke_is_found() -> None:
    ch = gort.Chan()
    gort.go(gort.sleep, 0.01)
    with pytest.raises(gort.Deadlock):
        ch.recv()


def test_deadlock_after_the_last_thread_ended_is_found() -> None:
    ch = gort.Chan()
    thread = PlainThread(lambda: None)
    with pytest.raises(gort.Deadlock):
        ch.recv()
    thread.result()


def test_a_deadlock_in_a_once_that_calls_itself() -> None:
    once = gort.sync.Once()
    with pytest.raises(gort.Deadlock):
        once.do(lambda: once.do(lambda: None))


# ---- no hope -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: gort.time.after(3600),
        lambda: gort.time.Timer(3600),
        lambda: gort.time.Ticker(3600),
        lambda: gort.time.Timer(0),
        lambda: gort.time.Ticker(0.001),
        lambda: gort.time.tick(3600),
    ],
    ids=["after", "Timer", "Ticker", "Timer-due", "Ticker-due", "tick"],
)
def test_a_timer_whose_channel_nobody_waits_on_is_no_hope(make: Any) -> None:
    timer = make()
    with pytest.raises(gort.Deadlock):
        gort.Chan().recv()
    if hasattr(timer, "stop"):
        timer.stop()


def test_a_stopped_timer_is_no_hope() -> None:
    timer = gort.time.Timer(3600)
    timer.stop()
    with pytest.raises(gort.Deadlock):
        timer.c.recv()


def test_a_stopped_after_func_is_no_hope() -> None:
    timer = gort.time.after_func(3600, lambda: None)
    timer.stop()
    with pytest.raises(gort.Deadlock):
        gort.Chan().recv()


def test_the_timeout_of_a_killed_goroutine_is_no_hope() -> None:
    g = park(gort.sleep, 3600)
    g.kill()
    g.join()
    with pytest.raises(gort.Deadlock):
        gort.Chan().recv()


def test_the_timeout_of_a_wait_that_ended_is_no_hope() -> None:
    ch = gort.Chan()
    g = park(lambda: ch.recv(timeout=3600))
    ch.send(1)
    assert g.join() == 1
    with pytest.raises(gort.Deadlock):
        ch.recv()


# ---- hope ---------------------------------------------------------------------------------


def test_a_sleeping_goroutine_is_hope() -> None:
    ch = gort.Chan()

    def body() -> None:
        gort.sleep(0.02)
        ch.send("slept")

    g = gort.go(body)
    assert ch.recv() == "slept"
    g.join()


def test_a_timer_somebody_waits_on_is_hope() -> None:
    ch = gort.Chan()

    def body() -> None:
        gort.time.after(0.02).recv()
        ch.send("fired")

    g = gort.go(body)
    assert ch.recv() == "fired"
    g.join()


def test_a_timer_main_selects_on_is_hope() -> None:
    assert gort.select(gort.Chan(), gort.time.after(0.01))[0] == 1


def test_an_after_func_is_hope() -> None:
    ch = gort.Chan()
    gort.time.after_func(0.02, ch.send, "called")
    assert ch.recv() == "called"


def test_a_timeout_in_another_goroutine_is_hope() -> None:
    done = gort.Chan()

    def body() -> None:
        with pytest.raises(TimeoutError):
            gort.Chan().recv(timeout=0.02)
        done.close()

    g = gort.go(body)
    assert done.recv_ok() == (None, False)
    g.join()


def test_a_goroutine_in_a_blocking_call_is_hope() -> None:
    ch = gort.Chan()
    r, w = os.pipe()

    def body() -> None:
        ch.send(gort.blocking(os.read, r, 1))

    g = gort.go(body)
    thread = PlainThread(lambda: os.write(w, b"x"))
    assert ch.recv() == b"x"
    g.join()
    thread.result()
    os.close(r)
    os.close(w)


def test_a_goroutine_in_a_c_call_that_released_the_gil_is_hope() -> None:
    ch = gort.Chan()

    def body() -> None:
        time.sleep(0.05)
        ch.send("back")

    g = gort.go(body)
    assert ch.recv() == "back"
    g.join()


def test_another_python_thread_is_hope() -> None:
    ch = gort.Chan()

    def body() -> None:
        time.sleep(0.05)
        ch.send("from a thread")

    thread = PlainThread(body)
    assert ch.recv() == "from a thread"
    thread.result()


def test_a_running_goroutine_is_hope() -> None:
    ch = gort.Chan()

    def body() -> None:
        total = 0
        for i in range(300_000):
            total += i
        ch.send(total)

    g = gort.go(body)
    assert ch.recv() == sum(range(300_000))
    g.join()


def test_after_a_deadlock_the_same_channel_works() -> None:
    ch = gort.Chan()
    with pytest.raises(gort.Deadlock):
        ch.recv()
    with pytest.raises(gort.Deadlock):
        ch.send(1)
    nobody_sends(ch)
    nobody_receives(ch)
    g = gort.go(ch.send, "works")
    assert ch.recv() == "works"
    g.join()


def test_a_signal_handler_may_end_the_wait() -> None:
    """As in Go, where signal.Notify ends the report of deadlocks; Python's own handler of SIGINT is none of these."""
    program = """
        import signal
        import gort

        stop = gort.Chan(1)
        signal.signal(signal.SIGALRM, lambda *a: stop.send("alarm"))
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        print(stop.recv())
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        try:
            stop.recv()
        except gort.Deadlock:
            print("deadlock")
    """
    assert output_of(program) == "alarm\ndeadlock\n"
