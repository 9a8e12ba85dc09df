"""Goroutine.kill beyond the waits of test_waiting.py: unstarted, running, readied, nested, racing."""

from __future__ import annotations

from typing import Any

import pytest
from model_support import PlainThread, finish, nobody_receives, nobody_sends, park, settle, spin_until

import gort
import gort.sync


def test_kill_before_it_started_means_the_body_never_runs() -> None:
    ran: list[int] = []
    gs = [gort.go(ran.append, i) for i in range(100)]
    for g in gs:
        g.kill()
    for g in gs:
        assert g.join() is None
    # Some may have started first, should another M have been given the P meanwhile.
    assert len(ran) < 50


def test_kill_of_a_dead_goroutine_does_nothing() -> None:
    g = gort.go(lambda: "result")
    assert g.join() == "result"
    g.kill()
    g.kill()
    assert g.join() == "result"


def test_kill_of_a_running_goroutine_strikes_at_its_next_wait() -> None:
    log = []

    def body() -> None:
        gort.current().kill()
        log.append("runs on")
        try:
            gort.Chan().recv()
        finally:
            log.append("next wait")
        log.append("never")

    assert gort.go(body).join() is None
    assert log == ["runs on", "next wait"]


def test_kill_strikes_at_a_sleep_too() -> None:
    def body() -> None:
        gort.current().kill()
        gort.sleep(3600)

    assert gort.go(body).join() is None


def test_kill_of_a_goroutine_that_waits_no_more_lets_it_end() -> None:
    def body() -> str:
        gort.current().kill()
        return "result"

    assert gort.go(body).join() == "result"


def test_kill_during_a_blocking_call_strikes_at_the_next_wait() -> None:
    import os

    r, w = os.pipe()
    got = []

    def body() -> None:
        got.append(gort.blocking(os.read, r, 1))
        gort.Chan().recv()
        got.append("never")

    g = gort.go(body)
    spin_until(lambda: g.state == "syscall")
    g.kill()
    os.write(w, b"x")
    assert g.join() is None
    assert got in ([b"x"], [])
    os.close(r)
    os.close(w)


def test_a_value_handed_over_before_the_kill_is_not_lost() -> None:
    ch, got = gort.Chan(), []

    def body() -> None:
        got.append(ch.recv())
        got.append(ch.recv())

    g = park(body)
    ch.send_nowait("handed over")
    g.kill()
    assert g.join() is None
    assert got == ["handed over"]
    nobody_receives(ch)


def test_a_value_taken_before_the_kill_counts_as_sent() -> None:
    ch, sent = gort.Chan(), []

    def body() -> None:
        for i in range(2):
            ch.send(i)
            sent.append(i)

    g = park(body)
    assert ch.recv_nowait() == 0
    g.kill()
    assert g.join() is None
    assert sent == [0]
    nobody_sends(ch)


def test_a_lock_handed_over_before_the_kill_is_held_and_released() -> None:
    mu, held = gort.sync.Mutex(), []

    def body() -> None:
        with mu:
            held.append(True)
        gort.Chan().recv()

    mu.lock()
    g = park(body)
    mu.unlock()
    g.kill()
    assert g.join() is None
    assert held in ([True], [])
    assert mu.try_lock()
    mu.unlock()


def test_two_kills_at_once_are_one() -> None:
    exits = []

    def body() -> Any:
        try:
            gort.Chan().recv()
        except gort.GoroutineExit:
            exits.append(True)
        return gort.current().state

    g = park(body)
    g.kill()
    g.kill()
    assert g.join() == "running"
    assert exits == [True]


def test_finally_blocks_of_a_killed_goroutine_may_wait() -> None:
    out = gort.Chan()

    def body() -> None:
        try:
            gort.sleep(3600)
        finally:
            out.send("from finally")

    g = park(body)
    g.kill()
    assert out.recv() == "from finally"
    assert g.join() is None


def test_a_second_kill_strikes_in_the_finally_block() -> None:
    log, out = [], gort.Chan()

    def body() -> None:
        try:
            gort.sleep(3600)
        finally:
            try:
                out.send("nobody comes")
            finally:
                log.append("inner")

    g = park(body)
    g.kill()
    spin_until(lambda: g.wait_reason == "chan send")
    g.kill()
    assert g.join() is None
    assert log == ["inner"]
    nobody_sends(out)


def test_goroutine_exit_caught_and_a_result_returned() -> None:
    def body() -> str:
        try:
            gort.sleep(3600)
        except gort.GoroutineExit:
            return "last words"
        return "never"

    g = park(body)
    g.kill()
    assert g.join() == "last words"


def test_an_exception_in_the_killed_goroutines_finally_comes_out_of_join() -> None:
    def body() -> None:
        try:
            gort.sleep(3600)
        finally:
            raise ValueError("in finally")

    g = park(body)
    g.kill()
    with pytest.raises(ValueError, match="in finally") as caught:
        g.join()
    assert isinstance(caught.value.__context__, gort.GoroutineExit)


def test_a_kill_is_no_failure(panics: list[Any]) -> None:
    g = park(gort.sleep, 3600)
    g.kill()
    finish(g)
    del g
    assert panics == []


def test_goroutine_exit_raised_by_hand_ends_quietly(panics: list[Any]) -> None:
    def body() -> None:
        raise gort.GoroutineExit

    assert gort.go(body).join() is None
    assert panics == []


def test_kill_leaves_the_other_waiters_in_their_order() -> None:
    ch, got = gort.Chan(), []
    gs = [park(lambda i=i: got.append((i, ch.recv()))) for i in range(6)]
    gs[0].kill()
    gs[3].kill()
    gs[5].kill()
    for g in (gs[0], gs[3], gs[5]):
        assert g.join() is None
    for v in "abc":
        ch.send(v)
    for g in gs:
        g.join()
    assert sorted(got) == [(1, "a"), (2, "b"), (4, "c")]
    nobody_receives(ch)


def test_a_killed_senders_value_is_withdrawn() -> None:
    ch = gort.Chan(1)
    ch.send("in the buffer")
    gs = [park(ch.send, v) for v in "abc"]
    gs[1].kill()
    assert gs[1].join() is None
    assert [ch.recv() for _ in range(3)] == ["in the buffer", "a", "c"]
    nobody_sends(ch)
    gs[0].join()
    gs[2].join()


def test_a_killed_writer_lets_the_readers_it_held_back_in() -> None:
    rw, out = gort.sync.RWMutex(), gort.Chan(1)

    def reader() -> None:
        with rw.reader():
            out.send("read")

    rw.rlock()
    writer = park(rw.lock)
    held_back = park(reader)
    writer.kill()
    assert out.recv() == "read"
    held_back.join()
    writer.join()
    rw.runlock()
    assert rw.try_lock()
    rw.unlock()


def test_a_killed_big_acquire_lets_the_small_ones_behind_it_in() -> None:
    sem = gort.sync.Semaphore(3)
    sem.acquire(2)
    big = park(sem.acquire, 3)
    small = park(sem.acquire, 1)
    big.kill()
    assert big.join() is None
    small.join()
    sem.release(3)
    assert sem.try_acquire(3)


def test_a_killed_joiner_leaves_its_target_alone() -> None:
    gate = gort.Chan()
    target = park(gate.recv)
    joiner = park(target.join)
    joiner.kill()
    assert joiner.join() is None
    assert target.state == "waiting"
    gate.send("still here")
    assert target.join() == "still here"


def test_joiners_of_a_killed_goroutine_get_none() -> None:
    target = park(gort.sleep, 3600)
    joiners = [park(target.join) for _ in range(5)]
    target.kill()
    assert [j.join() for j in joiners] == [None] * 5


def test_a_killed_cond_waiter_holds_the_lock_again() -> None:
    mu = gort.sync.Mutex()
    cond = gort.sync.Cond(mu)
    log = []

    def body() -> None:
        mu.lock()
        try:
            cond.wait()
        finally:
            log.append(mu.try_lock())
            mu.unlock()

    g = park(body)
    g.kill()
    assert g.join() is None
    assert log == [False]
    assert mu.try_lock()
    mu.unlock()


def test_a_goroutine_may_kill_another_and_join_it() -> None:
    victim = park(gort.sleep, 3600)

    def killer() -> Any:
        victim.kill()
        return victim.join()

    assert gort.go(killer).join() is None


def test_kill_in_generators_and_with_blocks_unwinds_them_all() -> None:
    log = []

    class Block:
        def __enter__(self) -> None:
            log.append("enter")

        def __exit__(self, kind: Any, *rest: Any) -> None:
            log.append(f"exit {kind.__name__}")

    def numbers() -> Any:
        try:
            while True:
                gort.sleep(3600)
                yield 1
        finally:
            log.append("generator")

    def body() -> None:
        with Block():
            for _ in numbers():
                pass

    g = park(body)
    g.kill()
    assert g.join() is None
    assert log == ["enter", "generator", "exit GoroutineExit"]


def test_killing_thousands_of_waiting_goroutines() -> None:
    ch = gort.Chan()
    gs = [gort.go(ch.recv) for _ in range(5000)]
    settle(*gs)
    for g in gs:
        g.kill()
    assert [g.join() for g in gs] == [None] * 5000
    nobody_receives(ch)


def test_kill_and_the_awaited_event_at_once_lose_nothing() -> None:
    """A plain thread kills while main sends: either the value arrives or it stays with the sender."""
    for _ in range(200):
        ch, got = gort.Chan(), []
        g = park(lambda ch=ch, got=got: got.append(ch.recv()))
        killer = PlainThread(g.kill)
        try:
            ch.send("value", timeout=0.001)
            sent = 1
        except TimeoutError:
            sent = 0
        killer.result()
        g.join()
        assert len(got) == sent
