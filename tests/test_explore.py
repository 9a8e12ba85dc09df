"""gort.testing.explore: it finds classic bugs, replays them, and finds none where there is none."""

import subprocess
import sys
import threading

import pytest

import gort
from gort import Chan, Deadlock, atomic, go, gosched, select, sleep
from gort.sync import Cond, Mutex, Once, RWMutex, Semaphore, WaitGroup
from gort.testing import ExploreError, explore, replay, synctest


# ---- classic bugs -----------------------------------------------------------------
def lost_update():
    """A counter that is read and written with a park between."""
    n = 0

    def add():
        nonlocal n
        seen = n
        gosched()
        n = seen + 1

    for g in [go(add), go(add)]:
        g.join()
    assert n == 2, "an update was lost"


def lost_update_of_an_atomic():
    """Each operation is atomic, the two together are not."""
    n = atomic.Int64()

    def add():
        n.store(n.load() + 1)

    for g in [go(add), go(add)]:
        g.join()
    assert n.load() == 2, "an update was lost"


def double_close():
    """Look, then close: two that both look first."""
    ch = Chan()

    def close_once():
        if not ch.closed:
            busy.lock()
            busy.unlock()
            ch.close()

    busy = Mutex()
    for g in [go(close_once), go(close_once)]:
        g.join()


def lock_order():
    a, b = Mutex(), Mutex()

    def take(first, second):
        with first, second:
            pass

    for g in [go(take, a, b), go(take, b, a)]:
        g.join()


def missed_signal():
    """The waiter does not look at the condition, so a signal before its wait is lost."""
    m = Mutex()
    changed = Cond(m)

    def wait():
        with m:
            changed.wait()

    waiter = go(wait)
    with m:
        changed.signal()
    waiter.join()


def leaked_producer():
    """The consumer takes the first answer and goes."""
    answers = Chan()
    go(answers.send, 1)
    go(answers.send, 2)
    answers.recv()


def late_add():
    """The counter goes up in the goroutine instead of before it."""
    wg, done = WaitGroup(), []

    def work(i):
        wg.add(1)
        done.append(i)
        wg.done()

    for i in range(3):
        go(work, i)
    wg.wait()
    assert len(done) == 3, "wait() was over too early"


def check_then_act_under_rwmutex():
    """The reader's lock is given up before the writer's is taken."""
    m, made = RWMutex(), []

    def get():
        with m.reader():
            missing = not made
        if missing:
            with m.writer():
                made.append(1)

    for g in [go(get), go(get)]:
        g.join()
    assert len(made) == 1, "made twice"


def deadline_against_work():
    """Whether the answer or the timeout wins is open; the code believes it is not."""
    answer = Chan(1)

    def work():
        sleep(1)
        answer.send(42)

    go(work)
    i, _, _ = select(answer, gort.time.after(1))
    assert i == 0, "the timeout won"


BUGS = [
    (lost_update, AssertionError),
    (lost_update_of_an_atomic, AssertionError),
    (double_close, gort.ChanClosed),
    (lock_order, Deadlock),
    (missed_signal, Deadlock),
    (leaked_producer, Deadlock),
    (late_add, AssertionError),
    (check_then_act_under_rwmutex, AssertionError),
    (deadline_against_work, AssertionError),
]


@pytest.mark.parametrize("strategy", ["mixed", "random", "priority"])
@pytest.mark.parametrize(("bug", "error"), BUGS)
def test_a_classic_bug_is_found_and_replayed(bug, error, strategy):
    for seed in range(5):
        with pytest.raises(ExploreError) as info:
            explore(bug, runs=1000, seed=seed, strategy=strategy)
        failure = info.value.failure
        assert type(failure.error) is error
        assert info.value.__cause__ is failure.error
        assert failure.exact
        assert failure.schedule in str(info.value)
        for _ in range(3):
            with pytest.raises(error) as again:
                replay(bug, failure.schedule)
            assert str(again.value).partition("\n")[0] == str(failure.error).partition("\n")[0]


def test_the_same_seed_explores_the_same_way():
    def found():
        with pytest.raises(ExploreError) as info:
            explore(late_add, seed=7)
        f = info.value.failure
        return f.schedule, f.run, [s[1:] for s in f.trace]

    assert found() == found()


def test_the_trace_names_each_step():
    with pytest.raises(ExploreError) as info:
        explore(lock_order, seed=1)
    trace = info.value.failure.trace
    assert {s.operation for s in trace} <= {"go", "join", "Mutex.lock", "Mutex.unlock"}
    assert trace[0].operation == "go"
    assert trace[0].goroutine == 0
    assert trace[0].file == __file__
    assert {s.goroutine for s in trace} == {0, 1, 2}
    assert "lock_order" in trace[0].name
    assert f"{trace[0].operation:<22} test_explore.py:{trace[0].line}" in str(info.value)


# ---- what is right is found right ---------------------------------------------------
def guarded_counter():
    m, n = Mutex(), 0

    def add():
        nonlocal n
        for _ in range(2):
            with m:
                seen = n
                gosched()
                n = seen + 1

    for g in [go(add) for _ in range(4)]:
        g.join()
    assert n == 8


def condition_in_a_loop():
    m, ready = Mutex(), False
    changed = Cond(m)

    def wait():
        with m:
            while not ready:
                changed.wait()

    waiters = [go(wait) for _ in range(3)]
    with m:
        ready = True
        changed.broadcast()
    for w in waiters:
        w.join()


def pipeline():
    a, b = Chan(1), Chan()

    def produce():
        for i in range(5):
            a.send(i)
        a.close()

    def double():
        for v in a:
            b.send(2 * v)
        b.close()

    go(produce)
    go(double)
    assert list(b) == [0, 2, 4, 6, 8]


def polling():
    """It spins: a schedule by priorities must not let it do so for ever."""
    flag = atomic.Bool()
    go(flag.store, True)
    while not flag.load():
        gosched()


def everything_once():
    once, calls, sem, wg = Once(), [], Semaphore(2), WaitGroup()

    def work():
        with sem:
            once.do(lambda: (gosched(), calls.append(1)))
            assert calls == [1]

    for _ in range(4):
        wg.go(work)
    wg.wait()


def retries_with_timeouts():
    start = gort.time.now()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            Chan().recv(timeout=10)
    assert gort.time.now() == start + 30


@pytest.mark.parametrize(
    "fn", [guarded_counter, condition_in_a_loop, pipeline, polling, everything_once, retries_with_timeouts]
)
@pytest.mark.parametrize("strategy", ["mixed", "random", "priority"])
def test_no_bug_is_found_where_there_is_none(fn, strategy):
    before = gort.num_goroutine()
    explore(fn, runs=200, strategy=strategy)
    assert gort.num_goroutine() == before


# ---- coverage -------------------------------------------------------------------------
@pytest.mark.parametrize("strategy", ["mixed", "random"])
def test_every_interleaving_comes_up(strategy):
    seen = set()

    def two_of_three():
        order = []

        def steps(name):
            for _ in range(3):
                order.append(name)
                gosched()

        for g in [go(steps, "a"), go(steps, "b")]:
            g.join()
        seen.add("".join(order))

    explore(two_of_three, runs=3000, seed=1, strategy=strategy)
    assert len(seen) == 20  # 6! / (3! 3!)


def test_the_choice_of_select_is_part_of_the_schedule():
    seen = []

    def choose():
        a, b, c = Chan(1), Chan(1), Chan(1)
        for ch in (a, b, c):
            ch.send(1)
        seen.append(select(a, b, c)[0])

    explore(choose, runs=100, seed=3)
    first = seen.copy()
    assert set(first) == {0, 1, 2}
    seen.clear()
    explore(choose, runs=100, seed=3)
    assert seen == first


def test_a_bug_that_needs_one_goroutine_to_sleep_through_many_steps():
    """Uniform choices hardly ever starve one for long; priorities do."""

    def starve():
        go(lambda: done.store(True))
        done = atomic.Bool()
        for _ in range(30):
            if done.load():
                return
        raise AssertionError("starved")

    with pytest.raises(ExploreError):
        explore(starve, runs=1000, seed=0, strategy="priority")


# ---- other ways to fail ------------------------------------------------------------------
def failing(fn, **kw):
    with pytest.raises(ExploreError) as info:
        explore(fn, **{"runs": 5, "seed": 0, **kw})
    return info.value.failure


def test_a_failure_that_nobody_saw_fails_the_run_and_is_not_reported_elsewhere(monkeypatch):
    reported = []
    monkeypatch.setattr(gort, "excepthook", lambda g, e: reported.append(e))

    def child():
        raise ZeroDivisionError("in a child")

    def parent():
        go(child)

    f = failing(parent)
    assert type(f.error) is ZeroDivisionError
    assert "child" in f.goroutine

    def waits():
        wg = WaitGroup()
        wg.go(child)
        wg.wait()

    assert type(failing(waits).error) is ZeroDivisionError
    assert reported == []


def test_a_failure_that_somebody_saw_is_none():
    def child():
        raise ZeroDivisionError

    def parent():
        with pytest.raises(ZeroDivisionError):
            go(child).join()

    explore(parent, runs=20)


def test_no_end_in_sight():
    def spins():
        while True:
            gosched()

    f = failing(spins, max_steps=100)
    assert type(f.error) is TimeoutError
    assert "100 steps" in str(f.error)

    def ticks():
        while True:
            sleep(1)

    assert type(failing(ticks, max_steps=100).error) is TimeoutError

    def tries():
        m = Mutex()
        m.lock()
        while not m.try_lock():
            pass

    assert type(failing(tries, max_steps=100).error) is TimeoutError


def test_those_left_behind_are_unwound():
    unwound = []

    def left():
        try:
            Chan().recv()
        finally:
            sleep(1)  # the clock goes on while they end
            unwound.append(1)

    def leaves():
        go(left)
        gosched()

    before = gort.num_goroutine()
    f = failing(leaves, strategy="random", runs=50)
    assert "blocked goroutines remain" in str(f.error)
    assert "left" in str(f.error)  # their stacks
    assert unwound
    assert gort.num_goroutine() == before


def test_a_function_that_depends_on_more_than_the_schedule_is_told_so():
    calls = 0

    def counts():
        nonlocal calls
        calls += 1
        for _ in range(calls):
            gosched()
        raise AssertionError

    f = failing(counts)
    assert not f.exact


def test_goexit_and_kill_are_no_failures():
    def kills():
        g = go(Chan().recv)
        gosched()
        g.kill()
        g.join()
        gort.goexit()

    explore(kills, runs=50)


# ---- where it may be called -----------------------------------------------------------------
def test_from_a_goroutine_and_from_a_plain_thread():
    assert go(explore, guarded_counter, runs=10).join() is None
    found = []

    def in_thread():
        try:
            explore(lost_update, seed=0)
        except ExploreError as e:
            found.append(e)

    t = threading.Thread(target=in_thread)
    t.start()
    t.join()
    assert type(found[0].failure.error) is AssertionError


def test_several_at_once():
    def find():
        with pytest.raises(ExploreError) as info:
            explore(late_add, seed=11)
        return info.value.failure.schedule

    assert len({g.join() for g in [go(find) for _ in range(10)]}) == 1


def test_not_within_a_bubble():
    with pytest.raises(RuntimeError, match="bubble"):
        synctest.run(lambda: explore(guarded_counter))
    with pytest.raises(RuntimeError, match="bubble"):
        synctest.run(lambda: replay(guarded_counter, "0" * 16))


def test_a_schedule_holds_in_another_process():
    with pytest.raises(ExploreError) as info:
        explore(late_add, seed=5)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_explore import late_add; from gort.testing import replay\n"
        f"try: replay(late_add, {info.value.failure.schedule!r})\n"
        "except AssertionError as e: print(e)"
    )
    here = __file__.rpartition("/")[0]
    out = subprocess.run([sys.executable, "-c", code, here], capture_output=True, text=True, check=True)
    assert "too early" in out.stdout


@pytest.mark.parametrize(
    ("kw", "error", "says"),
    [
        ({"runs": 0}, ValueError, "runs.*0"),
        ({"runs": "x"}, TypeError, "runs.*'x'"),
        ({"runs": True}, TypeError, "runs.*True"),
        ({"seed": 1.5}, TypeError, "seed.*1.5"),
        ({"strategy": "best"}, ValueError, "strategy.*'best'"),
        ({"max_steps": 0}, ValueError, "max_steps.*0"),
        ({"max_steps": None}, TypeError, "max_steps.*None"),
    ],
)
def test_bad_arguments(kw, error, says):
    with pytest.raises(error, match=says):
        explore(guarded_counter, **kw)


@pytest.mark.parametrize("schedule", ["", "xyz", "0" * 15, "0" * 16 + "/a", "0" * 16 + "/1,,x"])
def test_bad_schedules(schedule):
    with pytest.raises(ValueError, match="schedule"):
        replay(guarded_counter, schedule)


def test_bad_functions():
    with pytest.raises(TypeError, match=r"callable.*3"):
        explore(3)
    with pytest.raises(TypeError, match=r"callable.*3"):
        replay(3, "0" * 16)
    with pytest.raises(TypeError, match=r"schedule.*3"):
        replay(guarded_counter, 3)


# ---- blocking() gives up the turn ----------------------------------------------------------
def test_blocking_may_wait_for_another_goroutine():
    def waits():
        event = threading.Event()
        go(event.set)
        assert gort.blocking(event.wait, 60)
        m = Mutex()
        with m:
            g = go(gort.blocking, m.lock)
        g.join()

    explore(waits, runs=30)


def test_goroutines_that_come_back_from_blocking_queue_for_the_turn():
    def works():
        inside = 0

        def work():
            nonlocal inside
            for _ in range(3):
                gort.blocking(pow, 3, 1000)
                assert inside == 0
                inside += 1
                inside -= 1

        for g in [go(work) for _ in range(4)]:
            g.join()

    explore(works, runs=50)
