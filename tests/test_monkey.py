"""gort.monkey: each scenario in a program of its own, for a patch is for good."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from model_support import output_of, program_env, run_program

from gort import monkey

PARTS = ["os", "queue", "select", "signal", "socket", "ssl", "subprocess", "threading", "time"]


PARKED = """
import gort
def parks(fn, *args, **kwargs):
    '''Whether fn parks its goroutine, instead of blocking an OS thread; then it is killed.'''
    g = gort.go(fn, *args, **kwargs)
    for _ in range(3000):  # only what does not park takes all of it
        if g.state == "waiting" or g.done:
            break
        gort.sleep(0.001)
    state, reason = g.state, g.wait_reason
    g.kill()
    g.join()
    return state == "waiting" and bool(reason)
"""


def lines(source: str, **env: str) -> list[str]:
    return output_of(source, **env).splitlines()


# ---- arguments ----------------------------------------------------------------------------


def test_nothing_is_patched_by_importing_it() -> None:
    assert lines(f"from gort import monkey\nprint([p for p in {PARTS} if monkey.is_patched(p)])") == ["[]"]


@pytest.mark.parametrize("part", PARTS)
def test_one_part_alone(part: str) -> None:
    source = f"""
    from gort import monkey
    parts = {PARTS}
    monkey.patch_all(**{{p: p == {part!r} for p in parts}})
    print([p for p in parts if monkey.is_patched(p)])
    """
    assert lines(source) == [f"['{part}']"]


@pytest.mark.parametrize("part", PARTS)
def test_all_but_one_part(part: str) -> None:
    source = f"""
    from gort import monkey
    parts = {PARTS}
    monkey.patch_all({part}=False)
    print([p for p in parts if not monkey.is_patched(p)])
    monkey.patch_all()
    print(all(monkey.is_patched(p) for p in parts))
    """
    assert lines(source) == [f"['{part}']", "True"]


ALONE = {
    "os": "lambda: __import__('os').read(__import__('os').pipe()[0], 1)",
    "queue": "lambda: __import__('queue').Queue().get()",
    "select": "lambda: __import__('select').select([__import__('os').pipe()[0]], [], [])",
    "socket": "lambda: (lambda ends: ends[0].recv(1))(__import__('socket').socketpair())",
    "subprocess": "lambda: __import__('subprocess').run(['sleep', '3600'], stdout=-1)",
    "threading": "lambda: __import__('threading').Event().wait()",
    "time": "lambda: __import__('time').sleep(3600)",
}


@pytest.mark.parametrize("part", ALONE)
def test_what_parks_by_one_part_alone(part: str) -> None:
    source = f"""
    import os, queue, select, socket, subprocess, threading, time
    {PARKED.replace(chr(10), chr(10) + "    ")}
    from gort import monkey
    monkey.patch_all(**{{p: p == {part!r} for p in {PARTS}}})
    print(parks({ALONE[part]}))
    """
    assert lines(source) == ["True"]


def test_a_bad_argument_patches_nothing() -> None:
    source = f"""
    from gort import monkey
    for bad in 1, "yes", None:
        try:
            monkey.patch_all(time=bad)
        except TypeError as e:
            print(e)
    try:
        monkey.patch_all(sockets=True)
    except TypeError as e:
        print("sockets" in str(e))
    print(any(monkey.is_patched(p) for p in {PARTS}))
    """
    assert lines(source) == [
        "time must be a bool, not 1",
        "time must be a bool, not 'yes'",
        "time must be a bool, not None",
        "True",
        "False",
    ]


def test_is_patched_of_a_bad_name() -> None:
    with pytest.raises(ValueError, match=r"name must be one of os, queue, .*, not 'sockets'"):
        monkey.is_patched("sockets")
    with pytest.raises(TypeError, match="name must be a str, not 3"):
        monkey.is_patched(3)  # type: ignore[arg-type]


# ---- order ----------------------------------------------------------------------------------


def test_what_was_imported_before_parks() -> None:
    source = f"""
    import threading, time, os, queue, _thread
    from time import sleep
    from threading import Lock, Event, Condition, Thread, Semaphore, RLock
    from os import read
    from queue import SimpleQueue, Queue
    import time as t
    def default(s=sleep, n=3600):
        s(n)
    class K:
        nap = time.sleep
        pause = staticmethod(time.sleep)
    table = {{"sleep": time.sleep}}
    {PARKED.replace(chr(10), chr(10) + "    ")}
    from gort import monkey
    monkey.patch_all()
    print(parks(sleep, 3600), parks(t.sleep, 3600), parks(default), parks(K.nap, 3600), parks(K.pause, 3600))
    print(parks(table["sleep"], 3600))
    lock = Lock(); lock.acquire()
    print(parks(lock.acquire), parks(Event().wait), parks(Semaphore(0).acquire))
    c = Condition()
    def wait():
        with c:
            c.wait()
    print(parks(wait))
    r, w = os.pipe()
    print(parks(read, r, 1), parks(SimpleQueue().get), parks(Queue().get))
    """
    assert lines(source) == ["True True True True True", "True", "True True True", "True", "True True True"]


def test_what_was_made_before_parks() -> None:
    source = f"""
    import threading, queue
    lock, event, cond, sem = threading.Lock(), threading.Event(), threading.Condition(), threading.Semaphore(0)
    barrier, simple, q = threading.Barrier(2), queue.SimpleQueue(), queue.Queue()
    lock.acquire()
    bound = lock.acquire
    {PARKED.replace(chr(10), chr(10) + "    ")}
    from gort import monkey
    monkey.patch_all()
    def wait():
        with cond:
            cond.wait()
    print(*[parks(f) for f in (lock.acquire, bound, lock.__enter__, event.wait, wait, sem.acquire, simple.get, q.get)])
    print(parks(barrier.wait))
    lock.release()
    print(lock.acquire(False), lock.acquire(timeout=0.01), lock.locked())
    """
    assert lines(source) == [" ".join(["True"] * 8), "True", "True False True"]


def test_threads_that_were_made_before_are_goroutines() -> None:
    source = """
    import threading, gort
    from threading import Thread
    class Mine(Thread):
        def run(self):
            seen.append(gort.current())
    seen = []
    def see():
        seen.append(gort.current())
    early = [Mine(), Thread(target=see), threading.Timer(0, see)]
    from gort import monkey
    monkey.patch_all()
    for t in early:
        t.start()
    for t in early:
        t.join()
    print(len({g.id for g in seen}), [t.is_alive() for t in early])
    """
    assert lines(source) == ["3 [False, False, False]"]


def test_a_thread_that_runs_already_goes_on() -> None:
    source = """
    import threading, queue
    lock, event, q, simple = threading.Lock(), threading.Event(), queue.Queue(), queue.SimpleQueue()
    lock.acquire()
    got = []
    def work():
        with lock:
            got.append("lock")
        event.wait()
        got.append("event")
        got.append(q.get())
        got.append(simple.get())
    t = threading.Thread(target=work)
    t.start()
    from gort import monkey
    monkey.patch_all()
    lock.release()
    event.set()
    q.put("queue")
    simple.put("simple")
    t.join()
    print(got, t.is_alive())
    """
    assert lines(source) == ["['lock', 'event', 'queue', 'simple'] False"]


def test_goroutines_and_plain_threads_share_what_was_made_before() -> None:
    source = """
    import threading, _thread, gort
    start = gort._core._runtime._keep(_thread.start_new_thread)
    lock, done = threading.Lock(), threading.Semaphore(0)
    n = 0
    def work():
        global n
        for _ in range(300):
            with lock:
                before = n
                if before % 50 == 0:
                    gort.sleep(0)
                n = before + 1
        done.release()
    from gort import monkey
    monkey.patch_all()
    for _ in range(4):
        start(work, ())
        gort.go(work)
    for _ in range(8):
        done.acquire()
    print(n)
    """
    assert lines(source) == ["2400"]


def test_twice_and_from_a_goroutine_and_from_a_thread() -> None:
    source = """
    import time, threading, gort
    from gort import monkey
    start = threading.Thread
    gort.go(monkey.patch_all).join()
    sleep = time.sleep
    monkey.patch_all()
    t = start(target=monkey.patch_all)
    t.start()
    t.join()
    gs = [gort.go(monkey.patch_all) for _ in range(5)]
    print([g.join() for g in gs], time.sleep is sleep, monkey.is_patched("threading"))
    """
    assert lines(source) == ["[None, None, None, None, None] True True"]


def test_names_keep_their_identity() -> None:
    source = """
    import threading, time, os, queue, subprocess, _thread
    before = [threading.Thread, threading.Lock, threading.Event, time.sleep, os.read, queue.Queue, queue.SimpleQueue,
              subprocess.Popen, subprocess.run, type(threading.Lock())]
    from gort import monkey
    monkey.patch_all()
    after = [threading.Thread, threading.Lock, threading.Event, time.sleep, os.read, queue.Queue, queue.SimpleQueue,
             subprocess.Popen, subprocess.run, type(threading.Lock())]
    print(all(a is b for a, b in zip(before, after)), isinstance(threading.Lock(), _thread.LockType))
    """
    assert lines(source) == ["True True"]


# ---- what threads are then ----------------------------------------------------------------------


def patched(source: str) -> str:
    import textwrap

    return "from gort import monkey\nmonkey.patch_all()\n" + textwrap.dedent(source)


def test_threads_have_names_and_numbers_of_their_own() -> None:
    source = """
    import threading, sys
    def work():
        me = threading.current_thread()
        inside.append((me, me.ident == threading.get_ident(), me.name, me.is_alive(), me.daemon))
        ready.release()
        go.wait()
    inside, ready, go = [], threading.Semaphore(0), threading.Event()
    ts = [threading.Thread(target=work, name=f"worker {i}") for i in range(3)]
    for t in ts:
        t.start()
    for _ in ts:
        ready.acquire()
    print([x[0] for x in inside] == ts, sorted(x[1:] for x in inside))
    print(len({t.ident for t in ts}), threading.active_count())
    print(set(threading.enumerate()) == {*ts, threading.main_thread()})
    print(all(t.ident in sys._current_frames() for t in ts))
    print(threading.current_thread() is threading.main_thread())
    go.set()
    for t in ts:
        t.join()
    print(threading.active_count(), [t.is_alive() for t in ts], threading.enumerate() == [threading.main_thread()])
    """
    assert lines(patched(source)) == [
        "True [(True, 'worker 0', True, False), (True, 'worker 1', True, False), (True, 'worker 2', True, False)]",
        "3 4",
        "True",
        "True",
        "True",
        "1 [False, False, False] True",
    ]


def test_locals_and_contexts_are_each_threads_own() -> None:
    source = """
    import threading, contextvars, time
    local, var = threading.local(), contextvars.ContextVar("var", default=None)
    def work(i):
        local.x = i
        var.set(i)
        time.sleep(0.001)
        ok.append((local.x, var.get()) == (i, i))
    ok = []
    ts = [threading.Thread(target=work, args=(i,)) for i in range(20)]
    for t in ts: t.start()
    for t in ts: t.join()
    print(ok == [True] * 20, hasattr(local, "x"), var.get())
    """
    assert lines(patched(source)) == ["True False None"]


def test_an_exception_in_a_thread_goes_to_the_hook() -> None:
    source = """
    import threading, sys, _thread
    def hook(args):
        print(args.exc_type.__name__, args.thread.name)
    def boom():
        1 / 0
    threading.excepthook = hook
    t = threading.Thread(target=boom, name="T")
    t.start()
    t.join()
    threading.excepthook = threading.__excepthook__
    t = threading.Thread(target=sys.exit, args=(3,))
    t.start()
    t.join()
    sys.unraisablehook = lambda u: print(type(u.exc_value).__name__, "unraisable")
    done = threading.Event()
    def raw():
        try:
            1 / 0
        finally:
            done.set()
    _thread.start_new_thread(raw, ())
    done.wait()
    import gort
    gort.sleep(0.01)
    """
    assert lines(patched(source)) == ["ZeroDivisionError T", "ZeroDivisionError unraisable"]


def test_the_default_hook_prints_as_it_always_does() -> None:
    done = run_program(patched("import threading\nthreading.Thread(target=int, args=('x',), name='T').start()\n"))
    assert "Exception in thread T:" in done.stderr
    assert "ValueError: invalid literal" in done.stderr
    assert done.returncode == 0


def test_the_end_waits_for_threads_but_not_for_daemons() -> None:
    source = """
    import threading, time
    def work():
        time.sleep(0.05)
        print("worker is done")
    def daemon():
        try:
            while True:
                time.sleep(0.001)
        finally:
            print("never printed")
    def stuck():
        try:
            threading.Event().wait()
        finally:
            print("never printed")
    threading.Thread(target=daemon, daemon=True).start()
    threading.Thread(target=stuck, daemon=True).start()
    threading.Thread(target=work).start()
    import atexit
    atexit.register(print, "at exit")
    print("main is done")
    """
    assert lines(patched(source)) == ["main is done", "worker is done", "at exit"]


def test_a_daemon_that_computes_is_left_behind() -> None:
    source = """
    import threading, time
    def hog():
        while True:
            pass
    for _ in range(3):
        threading.Thread(target=hog, daemon=True).start()
    time.sleep(0.01)
    print("end")
    """
    assert lines(patched(source)) == ["end"]


def test_threads_may_start_threads_while_the_program_ends() -> None:
    source = """
    import threading, time
    def work(n):
        time.sleep(0.01)
        if n:
            threading.Thread(target=work, args=(n - 1,)).start()
        print(n)
    work(0)
    threading.Thread(target=work, args=(3,)).start()
    """
    assert sorted(lines(patched(source))) == ["0", "0", "1", "2", "3"]


def test_run_leaves_threads_alone() -> None:
    source = """
    import threading, time, gort
    def work():
        time.sleep(0.05)
        print("thread is done")
    def main():
        threading.Thread(target=work).start()
        gort.go(gort.sleep, 3600)
        return "result"
    print(gort.run(main))
    """
    assert lines(patched(source)) == ["result", "thread is done"]


def test_a_main_thread_that_waits_for_a_signal_is_no_deadlock() -> None:
    source = """
    import signal, threading, os, time
    stop = threading.Event()
    signal.signal(signal.SIGALRM, lambda *a: stop.set())
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    print(stop.wait())
    lock = threading.Lock()
    lock.acquire()
    class Out(Exception): pass
    def out(*a): raise Out
    signal.signal(signal.SIGALRM, out)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        lock.acquire()
    except Out:
        print("out", lock.locked())
    """
    assert lines(patched(source)) == ["True", "out True"]


def test_a_wait_among_goroutines_alone_is_a_deadlock() -> None:
    source = """
    import threading, gort
    lock = threading.Lock()
    lock.acquire()
    gort.go(lock.acquire)
    try:
        gort.Chan().recv()
    except gort.Deadlock as e:
        print("sync.Mutex.Lock" in str(e))
    """
    assert lines(patched(source)) == ["True"]


def test_ctrl_c_at_each_wait_of_the_main_thread() -> None:
    source = """
    import threading, queue, time, os, subprocess, signal
    r, w = os.pipe()
    lock = threading.Lock(); lock.acquire()
    t = threading.Thread(target=threading.Event().wait, daemon=True); t.start()
    child = subprocess.Popen(["sleep", "3600"])
    def cond():
        c = threading.Condition()
        with c:
            c.wait()
    for wait in (lock.acquire, threading.Event().wait, queue.Queue().get, queue.SimpleQueue().get, t.join, cond,
                 lambda: time.sleep(3600), lambda: os.read(r, 1), lambda: os.waitpid(child.pid, 0),
                 threading.Semaphore(0).acquire, lambda: lock.acquire(timeout=3600), threading.Barrier(2).wait):
        threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            wait()
        except KeyboardInterrupt:
            print("interrupted")
    child.kill()
    child.wait()
    """
    assert lines(patched(source)) == ["interrupted"] * 12


def test_only_the_main_thread_sets_handlers() -> None:
    source = """
    import signal, threading
    def work():
        for f in (lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN), lambda: signal.set_wakeup_fd(-1)):
            try:
                f()
            except ValueError as e:
                print(e)
    t = threading.Thread(target=work); t.start(); t.join()
    print(signal.signal(signal.SIGUSR1, signal.SIG_IGN) is signal.SIG_DFL, signal.set_wakeup_fd(-1))
    """
    assert lines(patched(source)) == [
        "signal only works in main thread of the main interpreter",
        "set_wakeup_fd only works in main thread of the main interpreter",
        "True -1",
    ]


def test_pthread_kill_of_a_thread_that_is_a_goroutine() -> None:
    source = """
    import signal, threading, time
    got = []
    signal.signal(signal.SIGUSR1, lambda *a: got.append(threading.current_thread() is threading.main_thread()))
    t = threading.Thread(target=time.sleep, args=(0.2,)); t.start()
    signal.pthread_kill(t.ident, signal.SIGUSR1)
    t2 = threading.Thread(target=lambda: signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)); t2.start()
    t2.join(); t.join()
    time.sleep(0.01)
    print(got)
    """
    assert lines(patched(source)) == ["[True, True]"]


def test_fork_in_a_thread() -> None:
    source = """
    import os, threading, time
    def work():
        pid = os.fork()
        if pid == 0:
            me = threading.current_thread()
            t = threading.Thread(target=print, args=("thread of the child",))
            t.start(); t.join()
            print(me is threading.main_thread(), me.name, threading.active_count(), other.is_alive(), flush=True)
            os._exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    stop = threading.Event()
    other = threading.Thread(target=stop.wait); other.start()
    t = threading.Thread(target=work, name="forks"); t.start(); t.join()
    pid = os.fork()
    if pid == 0:
        main = threading.current_thread() is threading.main_thread()
        print(main, threading.active_count(), other.is_alive(), flush=True)
        lock = threading.Lock(); lock.acquire()
        threading.Timer(0.01, lock.release).start()
        lock.acquire()
        os._exit(8)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    stop.set(); other.join()
    """
    assert lines(patched(source)) == ["thread of the child", "True forks 1 False", "7", "True 1 False", "8"]


def test_a_child_of_fork_that_ends_by_itself() -> None:
    source = """
    import os, threading, time, sys
    def work():
        if os.fork() == 0:
            threading.Thread(target=lambda: (time.sleep(0.02), print("child's thread", flush=True))).start()
            return
        os.wait()
    t = threading.Thread(target=work); t.start(); t.join()
    print("parent")
    """
    assert lines(patched(source)) == ["child's thread", "parent"]


def test_reads_and_writes_of_descriptors() -> None:
    source = """
    import os, threading, tempfile, pty, time
    r, w = os.pipe()
    def error(f, *args):
        try:
            return f(*args)
        except OSError as e:
            return type(e).__name__
    print(error(os.write, r, b"x"), error(os.read, w, 1), error(os.read, 12345, 1), error(os.read, -1, 1))
    os.set_blocking(r, False)
    print(error(os.read, r, 1))
    os.set_blocking(r, True)
    threading.Timer(0.01, os.write, (w, b"late")).start()
    print(os.read(r, 10), os.get_blocking(r), os.get_blocking(w))
    def drain():
        time.sleep(0.01)
        got.append(os.read(r, 1 << 20))
    got = []
    t = threading.Thread(target=drain); t.start()
    os.set_blocking(w, False)
    n = 0
    while (k := error(os.write, w, b"x" * 4096)) != "BlockingIOError":
        n += k
    os.set_blocking(w, True)
    print(os.write(w, b"y"))
    t.join()
    print(len(got[0]) == n)
    threading.Timer(0.01, os.close, (w,)).start()
    os.read(r, 1)
    print(os.read(r, 1))
    with tempfile.TemporaryFile() as f:
        print(os.write(f.fileno(), b"abc"), os.lseek(f.fileno(), 0, 0), os.read(f.fileno(), 10))
    master, slave = pty.openpty()
    threading.Timer(0.01, os.write, (master, b"line\\n")).start()
    print(os.read(slave, 100))
    """
    assert lines(patched(source)) == [
        "OSError OSError OSError OSError",
        "BlockingIOError",
        "b'late' True True",
        "1",
        "True",
        "b''",
        "3 0 b'abc'",
        "b'line\\n'",
    ]


def test_two_readers_of_one_pipe() -> None:
    source = """
    import os, threading
    r, w = os.pipe()
    got = []
    ts = [threading.Thread(target=lambda: got.append(os.read(r, 1))) for _ in range(4)]
    for t in ts: t.start()
    for c in b"abcd": os.write(w, bytes([c]))
    for t in ts: t.join()
    print(sorted(got))
    """
    assert lines(patched(source)) == ["[b'a', b'b', b'c', b'd']"]


# ---- what is made of threads -----------------------------------------------------------------------


def test_concurrent_futures() -> None:
    source = """
    import concurrent.futures as cf, time, gort
    with cf.ThreadPoolExecutor(100) as pool:
        began = time.monotonic()
        results = list(pool.map(lambda i: (time.sleep(0.1), i)[1], range(100)))
        print(results == list(range(100)))
        fs = [pool.submit(gort.current) for _ in range(3)]
        print(all(f.result() is not None for f in cf.as_completed(fs)))
    with cf.ProcessPoolExecutor(2) as pool:
        print(list(pool.map(abs, [-1, -2])))
    pool = cf.ThreadPoolExecutor(2)
    pool.submit(print, "left to the end")
    """
    assert lines(patched(source)) == ["True", "True", "[1, 2]", "left to the end"]


def test_multiprocessing_dummy_and_sched_and_logging() -> None:
    source = """
    import multiprocessing.dummy, sched, time, logging, logging.handlers, queue, sys
    with multiprocessing.dummy.Pool(10) as pool:
        print(pool.map(lambda x: (time.sleep(0.01), x * x)[1], range(5)))
    s = sched.scheduler()
    s.enter(0.02, 1, print, ("second",))
    s.enter(0.01, 1, print, ("first",))
    s.run()
    q = queue.SimpleQueue()
    listener = logging.handlers.QueueListener(q, logging.StreamHandler(sys.stdout))
    listener.start()
    logger = logging.getLogger()
    logger.addHandler(logging.handlers.QueueHandler(q))
    logger.warning("by queue")
    listener.stop()
    """
    assert lines(patched(source)) == ["[0, 1, 4, 9, 16]", "first", "second", "by queue"]


def test_asyncio() -> None:
    source = """
    import asyncio, time, threading
    async def main():
        loop = asyncio.get_running_loop()
        def late(i):
            time.sleep(0.01)
            return i
        print(await asyncio.gather(*[loop.run_in_executor(None, late, i) for i in range(5)]))
        print(await asyncio.to_thread(lambda: threading.current_thread() is threading.main_thread()))
        p = await asyncio.create_subprocess_exec("echo", "hello", stdout=asyncio.subprocess.PIPE)
        print((await p.communicate())[0], p.returncode)
    asyncio.run(main())
    t = threading.Thread(target=asyncio.run, args=(asyncio.sleep(0.01),))
    t.start(); t.join()
    print("end")
    """
    assert lines(patched(source)) == ["[0, 1, 2, 3, 4]", "False", "b'hello\\n' 0", "end"]


def test_many_threads_need_few_os_threads() -> None:
    source = """
    import threading, os
    go, ready = threading.Event(), threading.Semaphore(0)
    def work():
        ready.release()
        go.wait()
    ts = [threading.Thread(target=work) for _ in range(2000)]
    for t in ts: t.start()
    for t in ts: ready.acquire()
    n = len(os.listdir("/proc/self/task"))
    go.set()
    for t in ts: t.join()
    print(n < 200 or n)
    """
    assert lines(patched(source)) == ["True"]


def test_a_lock_passes_on_to_who_has_waited_long() -> None:
    source = """
    import threading, time
    lock = threading.Lock()
    stop = []
    def hog():
        while not stop:
            with lock:
                time.sleep(0.003)
    hogs = [threading.Thread(target=hog) for _ in range(2)]
    for t in hogs: t.start()
    for _ in range(5):
        with lock:
            pass
    stop.append(1)
    for t in hogs: t.join()
    print("got it")
    """
    assert lines(patched(source)) == ["got it"]


def test_a_subinterpreter_is_left_alone() -> None:
    pytest.importorskip("_testcapi")
    source = """
    import _testcapi
    r = _testcapi.run_in_subinterp('''
    import threading, time, _thread
    lock = threading.Lock()
    with lock: pass
    print(lock.acquire(), lock.acquire(timeout=0.01))
    lock.release()
    time.sleep(0.001)
    import queue
    q = queue.SimpleQueue(); q.put(1)
    print(q.get())
    ''')
    import gort
    print(r)
    g = gort.go(_testcapi.run_in_subinterp, "import time; time.sleep(0.01); print('in a goroutine')")
    print(g.join())
    """
    assert lines(patched(source)) == ["True False", "1", "0", "in a goroutine", "0"]


# ---- warnings -----------------------------------------------------------------------------------------


def test_references_to_what_is_replaced_by_another_object() -> None:
    source = """
    import sys, types, functools, warnings, gc
    import gort.monkey as monkey
    owner = types.ModuleType("owner")
    class Old: pass
    def old_function(): return "old"
    owner.Old, owner.f = Old, old_function
    sys.modules["owner"] = owner
    other = types.ModuleType("other")
    exec('''
    from owner import Old, f
    def default(x=f, *, y=Old): return x, y
    def outer():
        g = f
        def inner(): return g
        return inner
    inner = outer()
    class K:
        a = f
        b = staticmethod(f)
        c = Old
    class Sub(Old): pass
    table = {"f": f}
    items = [f, Old]
    fixed = (f,)
    import functools
    part = functools.partial(f)
    ''', other.__dict__)
    sys.modules["other"] = other
    class New(Old): pass
    def new_function(): return "new"
    patches = types.ModuleType("gort.patches")
    patches._PATCHES = {"owner": {"Old": New, "f": new_function}}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        monkey._replace_references(monkey._patch(patches))
    print(owner.Old is New, owner.f is new_function, other.Old is New, other.f is new_function)
    print(other.default() == (new_function, New), other.inner() is new_function)
    print(vars(other.K)["a"] is new_function, other.K.b is new_function, other.K.c is New)
    print(issubclass(other.Sub, New), issubclass(New, Old))
    print(other.table["f"] is new_function, other.items == [new_function, New], other.part() == "new")
    print([str(w.message) for w in caught if "owner.f" in str(w.message)])
    print(all(issubclass(w.category, monkey.MonkeyPatchWarning) for w in caught))
    """
    assert lines(source) == [
        "True True True True",
        "True True",
        "True True True",
        "True True",
        "True True True",
        "['gort.monkey: owner.f is still used unpatched by a tuple of module other']",
        "True",
    ]


@pytest.mark.parametrize("wait", ["threading.Event().wait()", "time.sleep(3600)", "queue.SimpleQueue().get()"])
def test_an_unhandled_ctrl_c_ends_the_program(wait: str) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", patched(f"import threading, time, queue\nprint('ready', flush=True)\n{wait}")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=program_env(),
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in err


def test_a_database_connection_of_a_thread_goes_with_it() -> None:
    source = """
    import sqlite3, threading, time
    local = threading.local()
    def work(i):
        local.db = sqlite3.connect(":memory:")
        local.db.execute("create table t (x)")
        for k in range(20):
            time.sleep(0.0005)
            with local.db:
                local.db.execute("insert into t values (?)", (k,))
            if not k % 5:
                gort.blocking(lambda: None)
        sums.append(local.db.execute("select sum(x) from t").fetchone()[0])
        local.db.close()
    import gort
    sums = []
    ts = [threading.Thread(target=work, args=(i,)) for i in range(20)]
    for t in ts: t.start()
    for t in ts: t.join()
    print(sums == [190] * 20)
    """
    assert lines(patched(source)) == ["True"]
