"""A goroutine that computes does not keep the others from running."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading

import pytest
from model_support import run_program

import gort
from gort import Chan, go, gosched, sleep


def test_the_main_goroutine_computes_while_another_runs() -> None:
    done = []
    go(done.append, 1)
    while not done:
        pass


def test_a_goroutine_computes_until_another_ends_it() -> None:
    def until_told() -> int:
        turns = 0
        while not told:
            turns += 1
        return turns

    told: list[int] = []
    gs = [go(until_told) for _ in range(4)]

    def tell() -> None:
        for _ in range(5):
            sleep(0.001)
        told.append(1)

    go(gort.blocking, tell).join()
    assert all(g.join() > 0 for g in gs)


def test_those_that_compute_all_get_on() -> None:
    counts = [0] * 5

    def count(i: int) -> None:
        while min(counts) < 1000:
            counts[i] += 1

    for g in [go(count, i) for i in range(len(counts))]:
        g.join()
    assert min(counts) >= 1000


def test_channels_timers_and_starts_go_on_beside_hogs() -> None:
    stop: list[int] = []

    def hog() -> None:
        while not stop:
            pass

    def work() -> int:
        a, b = Chan[int](), Chan[int](dtype="i64")
        go(lambda: [b.send(v) for v in a])
        total = 0
        for i in range(200):
            a.send(i)
            total += b.recv()
        a.close()
        sleep(0.001)
        for g in [go(gosched) for _ in range(100)]:
            g.join()
        return total

    hogs = [go(hog) for _ in range(3)]
    try:
        assert go(gort.blocking, lambda: go(work).join()).join() == sum(range(200))
    finally:
        stop.append(1)
    for g in hogs:
        g.join()


@pytest.mark.parametrize("turn", ["", "turn=100"])
def test_short_calls_messages_and_threads_all_get_on(turn: str) -> None:
    """Who comes back from a call is let in by who passes messages, and the reverse; nothing is lost."""
    program = """
import sqlite3, threading
from gort import Chan, go, sleep

calls, trips, stop = [0] * 6, [0], []
db = [sqlite3.connect(":memory:", check_same_thread=False) for _ in calls]
query = "with recursive c(n) as (select 1 union all select n + 1 from c where n < 200) select count(*) from c"

def call(i):
    while not stop:
        assert db[i].execute(query).fetchone() == (200,)
        calls[i] += 1

there, back = Chan(), Chan()
def echo():
    for v in there:
        back.send(v)

def ask():
    while not stop:
        there.send(trips[0])
        assert back.recv() == trips[0]
        trips[0] += 1
    there.close()

thread = threading.Thread(target=call, args=(5,))
thread.start()
gs = [go(call, i) for i in range(5)] + [go(echo), go(ask)]
while min(calls) < 200 or trips[0] < 2000:
    sleep(0.001)
stop.append(1)
thread.join()
for g in gs:
    g.join()
print("all")
"""
    env = os.environ | {"GORT_DEBUG": turn}
    r = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env)
    assert (r.stdout, r.stderr, r.returncode) == ("all\n", "", 0)


def test_one_that_lost_its_p_parks_and_is_killed_as_any_other() -> None:
    ch, stop = Chan[int](), []

    def hog() -> int:
        while not stop:
            pass
        return ch.recv()

    g, h = go(hog), go(hog)

    def end() -> None:
        sleep(0.05)
        stop.append(1)
        ch.send(5)

    go(gort.blocking, end).join()
    while not (g.done or h.done):
        gosched()
    assert {x.done for x in (g, h)} == {True, False}
    left = h if g.done else g
    left.kill()
    assert left.join() is None
    assert (g if left is h else h).join() == 5


LATE = """
import gort, os, threading, time
done = []
def main_goes_on():
    t = time.perf_counter()
    g = gort.go(%s)
    gort.sleep(0.001)
    for _ in range(100):
        gort.gosched()
    done.append(g.done)
    return g
g = main_goes_on()
print(done, threading.get_native_id() == os.getpid(), threading.current_thread() is threading.main_thread())
stop.append(1)
g.join()
while threading.get_native_id() != os.getpid():
    gort.sleep(0.001)
print(threading.get_native_id() == os.getpid(), threading.current_thread() is threading.main_thread())
"""


def run_python(code: str) -> list[str]:
    """What a program prints; it has to end by itself, and well."""
    p = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert p.returncode == 0, p.stderr
    return p.stdout.splitlines()


def test_the_main_goroutine_goes_on_when_the_main_thread_is_blocked() -> None:
    code = 'import os\nr, w = os.pipe()\nclass S:\n    append = staticmethod(lambda x: os.write(w, b"x"))\nstop = S()\n'
    assert run_python(code + LATE % "os.read, r, 1") == ["[False] False True", "True True"]


def test_the_main_goroutine_goes_on_beside_hogs() -> None:
    code = "stop = []\ndef hog():\n    while not stop: pass\n"
    assert run_python(code + LATE % "hog")[0].startswith("[False]")


@pytest.mark.parametrize("how", ["hog", "os.read, r, 1"])
@pytest.mark.parametrize("main", ["gort.sleep(60)", "gort.Chan().recv()", "gort.blocking(time.sleep, 60)"])
def test_ctrl_c_reaches_the_main_goroutine(how: str, main: str) -> None:
    code = f"""
import gort, os, signal, threading, time
r, w = os.pipe()
stop = []
def hog():
    while not stop: pass
g = gort.go({how})
gort.sleep(0.001)
threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    {main}
except KeyboardInterrupt:
    print("interrupted")
stop.append(1)
os.write(w, b"x")
g.join()
"""
    assert run_python(code) == ["interrupted"]


@pytest.mark.parametrize("main", ["pass", "gort.gosched()", "time.sleep(0.001)", "gort.sleep(0.001)"])
def test_a_signal_lets_the_main_goroutine_go_first(main: str) -> None:
    """Beside 40 that compute, in turns of 10 ms, a handler would begin some 200 ms late; now after a few."""
    code = f"""
import gort, os, signal, statistics, threading, time
turns, ran, stop = [0] * 40, [], []
def hog(i):
    while not stop: turns[i] += 1
hogs = [gort.go(hog, i) for i in range(40)]
while not all(turns): gort.sleep(0.01)
def handler(*_):
    global before
    if before: ran.append(sum(map(int.__lt__, before, turns)))
    before = None
signal.signal(signal.SIGUSR1, handler)
before = None
def send():
    global before
    while len(ran) < 9:
        time.sleep(0.02)
        if before is None:
            before = list(turns)
            os.kill(os.getpid(), signal.SIGUSR1)
threading.Thread(target=send).start()
while len(ran) < 9:
    {main}
stop.append(1)
print(statistics.median(ran) <= 8 or ran)
"""
    assert run_python(code) == ["True"]


def test_handlers_run_in_the_main_goroutine_wherever_that_is() -> None:
    code = """
import gort, os, signal, threading
r, w = os.pipe()
g = gort.go(os.read, r, 1)
gort.sleep(0.001)
seen = []
before = signal.signal(signal.SIGUSR1, lambda *a: seen.append(gort.current().id))  # off the main thread
os.kill(os.getpid(), signal.SIGUSR1)
while not seen:
    gort.sleep(0.001)
signal.signal(signal.SIGALRM, lambda *a: seen.append(0))
signal.setitimer(signal.ITIMER_REAL, 0.001)
while len(seen) < 2:
    gort.gosched()
os.write(w, b"x")
g.join()
signal.signal(signal.SIGUSR1, before)
print(len(seen))
"""
    assert run_python(code) == ["2"]


def test_one_that_computes_stays_on_its_os_thread() -> None:
    stop: list[int] = []
    seen: list[set[int]] = [set() for _ in range(4)]

    def hog(i: int) -> None:
        gort.lock_os_thread()  # not on the main thread, where it would move
        gort.unlock_os_thread()
        while not stop:
            seen[i].add(threading.get_ident())

    hogs = [go(hog, i) for i in range(4)]
    for _ in range(20):
        sleep(0.002)
    stop.append(1)
    for g in hogs:
        g.join()
    assert [len(s) for s in seen] == [1] * 4


def test_a_callback_from_c_is_preempted_too() -> None:
    proto = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)
    stop: list[int] = []

    @proto
    def compute(n: int) -> int:
        turns = 0
        while not stop:
            turns += 1
        return n + 1

    hogs = [go(compute, i) for i in range(3)]
    sleep(0.02)
    stop.append(1)
    assert [g.join() for g in hogs] == [1, 2, 3]


@pytest.mark.parametrize("turn", [1, 50])
def test_preempted_anywhere(turn: int) -> None:
    """With turns as short as that, between any two bytecodes."""
    code = """
import gort, random
from gort import sync
def work(rng, mu, ch, counts):
    for _ in range(300):
        with mu:
            counts[0] += 1
        try:
            [sorted(range(20), key=lambda x: -x) for _ in range(rng.randint(1, 20))]
            if rng.random() < 0.1: raise KeyError(1)
        except KeyError as e:
            ch.send(sum(i for i in range(50)))
def main():
    mu, ch, counts = sync.Mutex(), gort.Chan(2), [0]
    gs = [gort.go(work, random.Random(i), mu, ch, counts) for i in range(8)]
    def close():
        for g in gs: g.join()
        ch.close()
    gort.go(close)
    assert all(v == 1225 for v in ch)
    assert counts == [2400]
    print("good")
gort.run(main)
"""
    p = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120,
        env={**os.environ, "GORT_DEBUG": f"turn={turn}"},
    )  # fmt: skip
    assert (p.returncode, p.stdout) == (0, "good\n"), p.stderr


FEW_THREADS = """
import os, resource, time
import gort
{limit}
def compute(seconds=0.05):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
def busy():
    for _ in range(3):
        {work}
        ch.send(1)
        gort.sleep(0.001)
ch = gort.Chan(5)
gs = [gort.go(busy) for _ in range(25)]
print(sum(ch.recv() for _ in range(75)))
for g in gs:
    g.join()
print(len(os.listdir("/proc/self/task")) <= 14)
gort.go(compute).join()
"""
NO_MORE = "gort: no more threads to be had: goroutines wait for those that compute or sit in calls\n"


@pytest.mark.parametrize("work", ["compute()", "time.sleep(0.01)", "gort.blocking(time.sleep, 0.01)", "{}"])
@pytest.mark.parametrize("most", [1, 2, 3, 10])
def test_goroutines_get_on_with_few_threads(work: str, most: int) -> None:
    """Each that is preempted keeps its own, and so does each that sits in a call."""
    mixed = "[compute, time.sleep][gort.current().id % 2](0.02); gort.blocking(time.sleep, 0.005)"
    done = run_program(FEW_THREADS.format(limit="", work=work.format(mixed)), GORT_DEBUG=f"maxms={most}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "75\nTrue\n", NO_MORE)


@pytest.mark.skipif(os.getuid() != 0, reason="another user's limit can be set by root only")
def test_the_kernel_gives_no_more_threads() -> None:
    """... and then does again: what waits for a thread gets one."""
    limit = "os.setuid(100_000 + os.getpid()); resource.setrlimit(resource.RLIMIT_NPROC, (12, 12))"
    done = run_program(FEW_THREADS.format(limit=limit, work="compute()"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "75\nTrue\n", NO_MORE)
    source = """
        import os, resource, signal, subprocess
        import gort
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        os.setuid(100_000 + os.getpid())
        child = subprocess.Popen(["sleep", "0.3"])
        resource.setrlimit(resource.RLIMIT_NPROC, (3, 3))  # this thread, sysmon, and the child while it lives
        r, w = os.pipe()
        gort.go(os.write, w, b"x")  # waits for another thread
        print(gort.go(os.read, r, 1).join())  # this one sits here
        """
    done = run_program(source)
    assert (done.returncode, done.stdout, done.stderr) == (0, "b'x'\n", NO_MORE)


LOCKED = {
    "main sleeps": "gort.lock_os_thread(); lack(); gort.sleep(0.3); print('good')",
    "a callback sleeps": "lack(); print(sql(lambda: gort.sleep(0.3) or 'good')[0])",
    "main gets nothing": "gort.lock_os_thread(); lack()\ntry: gort.Chan().recv()\nexcept gort.Deadlock: print('good')",
    "a thread sends": """
ch = gort.Chan(1)
threading.Thread(target=lambda: (time.sleep(0.3), ch.send("good"))).start()
gort.lock_os_thread(); lack()
print(ch.recv())
""",
}
LOCKED_PRELUDE = """
import ctypes, os, sqlite3, threading, time
import gort
from gort._core import _runtime
lack = lambda times=1: _runtime.fail_next("thread", 1, times)
def sql(fn):
    db = sqlite3.connect(":memory:", check_same_thread=False)
    db.create_function("f", 0, fn)
    return db.execute("select f()").fetchone()
"""


@pytest.mark.parametrize("what", LOCKED)
def test_one_thread_that_was_not_to_be_had_costs_nobody_anything(what: str) -> None:
    """The only thread waits for its goroutine, and another one should see to timers, arrivals and deadlocks."""
    done = run_program(LOCKED_PRELUDE + LOCKED[what])
    assert (done.returncode, done.stdout) == (0, "good\n") and done.stderr in ("", NO_MORE)  # there may be one yet


def test_native_goroutines_get_the_threads_that_could_not_be_had_at_first() -> None:
    source = """
call = lambda name, n: _runtime.native_start(ctypes.cast(ctypes.CDLL(None)[name], ctypes.c_void_p).value, n, None)
call("pause", 0)
time.sleep(0.1)
lack(100000)
call("pause", 0)
gs = [call("usleep", 1) for _ in range(2)]
time.sleep(0.1)
lack(0)
for g in gs: g.join()
print("good", flush=True)
os._exit(0)
"""
    done = run_program(LOCKED_PRELUDE + source, GOMAXPROCS="4")
    assert (done.returncode, done.stdout) == (0, "good\n") and done.stderr in ("", NO_MORE)


@pytest.mark.parametrize(
    ("most", "source"),
    [
        (1, "gort.lock_os_thread(); gort.sleep(0.05); print('good')"),
        (1, "print(sql(lambda: gort.sleep(0.05) or 'good')[0])"),
        (
            2,
            """
a, b = gort.Chan(), gort.Chan()
def echo():
    gort.lock_os_thread()
    for _ in range(20): b.send(a.recv())
g = gort.go(echo)
gort.lock_os_thread()
for i in range(20):
    a.send(i)
    assert b.recv() == i
print("good")
""",
        ),
        (
            5,
            """
gs = [gort.go(sql, lambda i=i: gort.sleep(0.05) or i) for i in range(10)]
print("good" if sum(g.join()[0] for g in gs) == 45 else "bad")
""",
        ),
    ],
)
def test_goroutines_locked_to_their_threads_get_on_when_there_are_no_more(most: int, source: str) -> None:
    done = run_program(LOCKED_PRELUDE + source, GORT_DEBUG=f"maxms={most}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "good\n", NO_MORE)


def test_who_holds_the_gil_too_long_is_told() -> None:
    code = """
import gort, re, time
end = time.perf_counter() + 1
def stubborn():
    while time.perf_counter() < end:
        re.match(r"(a+)+$", "a" * 23 + "b")
gort.go(stubborn).join()
"""
    p = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300,
        env={**os.environ, "GORT_DEBUG": "blocked=100ms"},
    )  # fmt: skip
    assert p.returncode == 0
    assert "gort: goroutine 2 held the GIL for " in p.stderr and "stubborn()" in p.stderr


def test_the_end_while_the_main_thread_is_blocked() -> None:
    code = """
import gort, os, threading
r, w = os.pipe()
gort.go(os.read, r, 1)
gort.sleep(0.01)
print(threading.get_native_id() == os.getpid(), flush=True)
threading.Thread(target=print, args=("thread",)).start()
"""
    assert run_python(code) == ["False", "thread"]


def test_ctrl_c_cancels_the_main_task_of_asyncio() -> None:
    code = """
import gort, asyncio, os, signal, threading
async def main():
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        print("cancelled")
        raise
threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
"""
    assert run_python(code) == ["cancelled", "interrupted"]
