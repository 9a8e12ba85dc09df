"""fork(): the child has the goroutine or thread that forked, and all of gort works there."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from model_support import output_of

PRELUDE = '''
import os, signal, sys, threading, time, traceback, warnings
import gort, gort.sync, gort.time
from gort import context

warnings.simplefilter("ignore", DeprecationWarning)  # of 3.12 on: the process has threads

def forked(fn, *args):
    """Fork; the child calls `fn` and ends: with status 0, or 1 and a traceback if that raises."""
    pid = os.fork()
    if pid == 0:
        try:
            fn(*args)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def in_thread(fn, *args):
    result = []
    thread = threading.Thread(target=lambda: result.append(fn(*args)))
    thread.start()
    gort.blocking(thread.join)
    return result[0]

FORKERS = {
    "main": lambda fn, *args: fn(*args),
    "goroutine": lambda fn, *args: gort.go(fn, *args).join(),
    "blocking": lambda fn, *args: gort.go(gort.blocking, fn, *args).join(),
    "thread": in_thread,
}
'''

USE_EVERYTHING = """
def use_everything():
    me = gort.current()
    assert gort.num_goroutine() == 1
    assert [g.id for g in gort._core._runtime._goroutines()] == [me.id]
    assert threading.current_thread() is threading.main_thread() and threading.active_count() == 1
    ch = gort.Chan()
    for i in range(50):
        gort.go(ch.send, i)
    assert sorted(ch.recv() for _ in range(50)) == list(range(50))
    gort.sleep(0.002)
    ticks = gort.Chan()
    g = gort.go(lambda: [gort.sleep(0.001) or ticks.send(i) for i in range(3)])
    assert [ticks.recv(timeout=30) for i in range(3)] == [0, 1, 2]
    g.join()
    seen = gort.go(threading.Event.wait, event := threading.Event())
    gort.go(event.set)
    gort.blocking(event.wait)
    seen.join()
    thread = threading.Thread(target=ch.send, args=(4,))
    thread.start()
    assert ch.recv() == 4
    thread.join()
    try:
        ch.recv()
    except gort.Deadlock as e:
        assert f"goroutine {me.id} [chan receive]" in str(e)
    else:
        raise AssertionError("no Deadlock")
    with context.timeout(0.002) as ctx:
        assert isinstance(ctx.wait(), context.DeadlineExceeded)
    hits = gort.Chan(1)
    signal.signal(signal.SIGUSR1, lambda *a: hits.send_nowait(1))
    os.kill(os.getpid(), signal.SIGUSR1)
    hits.recv(timeout=30)
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)  # while there is a handler, nothing is a deadlock
    assert gort.run(lambda: 7) == 7 if me.name == "main" else True
    assert gort.num_goroutine() == 1, gort.stack(all=True)
"""


def program(source: str) -> str:
    return output_of(PRELUDE + USE_EVERYTHING + textwrap.dedent(source))


@pytest.mark.parametrize("forker", ["main", "goroutine", "blocking", "thread"])
def test_everything_works_in_the_child_and_in_its_child(forker: str) -> None:
    out = program(
        f"""
        def child():
            use_everything()
            assert forked(use_everything) == 0

        stop = gort.Chan()
        parked = [gort.go(stop.recv_ok) for _ in range(10)]
        print(FORKERS[{forker!r}](forked, child))
        stop.close()
        print([g.join() for g in parked] == [(None, False)] * 10, gort.num_goroutine())
        """
    )
    assert out == "0\nTrue 1\n"


@pytest.mark.parametrize("forker", ["main", "goroutine", "blocking", "thread"])
def test_forks_in_the_midst_of_everything(forker: str) -> None:
    """Goroutines that park, wake each other, compute, sit in C; threads; typed channels; timers."""
    out = program(
        f"""
        stop = threading.Event()
        typed, ping, pong = gort.Chan(3, dtype="i64"), gort.Chan(), gort.Chan()

        def sleeps():
            while not stop.is_set():
                gort.sleep(0.0005)

        def blocks():
            while not stop.is_set():
                time.sleep(0.0005)

        def computes():
            while not stop.is_set():
                sum(range(1000))

        def feeds():
            while not stop.is_set():
                try:
                    typed.send(1, timeout=0.0005)
                except TimeoutError:
                    typed.recv()

        def plays(a, b):
            while not stop.is_set():
                try:
                    a.send(1, timeout=0.01)
                    b.recv(timeout=0.01)
                except TimeoutError:
                    pass

        work = [gort.go(f) for f in (sleeps, blocks, feeds, feeds, computes)]
        work += [gort.go(plays, ping, pong), gort.go(plays, pong, ping)]
        threads = [threading.Thread(target=f) for f in (feeds, blocks, sleeps)]
        for t in threads:
            t.start()
        ticker = gort.time.Ticker(0.0005)
        for _ in range(8):
            assert FORKERS[{forker!r}](forked, use_everything) == 0
        stop.set()
        for g in work:
            g.join()
        for t in threads:
            gort.blocking(t.join)
        print("ok", gort.num_goroutine())
        """
    )
    assert out == "ok 1\n"


def test_a_handle_of_the_parents_goroutine_has_ended_in_the_child() -> None:
    out = program(
        """
        ch = gort.Chan()
        waits, ended = gort.go(ch.recv), gort.go(lambda: 9)
        ended.join()
        while waits.state != "waiting":
            gort.sleep(0.001)
        fresh = gort.go(ch.recv)

        def child():
            for g in waits, fresh:
                assert (g.done, g.state, g.wait_reason, g.name) == (True, "dead", "", "Chan.recv")
                assert g.join() is None and list(g.stack()) == []
                g.kill()
            assert ended.join() == 9

        assert forked(child) == 0
        assert gort.go(forked, child).join() == 0
        ch.send(1)
        ch.send(2)
        print(waits.join(), fresh.join())
        """
    )
    assert out == "1 2\n"


def test_nothing_is_given_to_those_who_wait_in_the_parent() -> None:
    out = program(
        """
        chans = [gort.Chan(), gort.Chan(dtype="i64")]
        waits = [gort.go(ch.recv_ok) for ch in chans] + [gort.go(gort.select, *chans)]
        threads = [threading.Thread(target=ch.recv_ok) for ch in chans]
        for t in threads:
            t.start()
        full = gort.Chan(1)
        full.send(1)
        sender = gort.go(full.send, 2)
        while not all(g.state == "waiting" for g in [*waits, sender]):
            gort.sleep(0.001)

        def child():
            for ch in chans:
                try:
                    ch.send_nowait(5)
                except gort.WouldBlock:
                    pass
                else:
                    raise AssertionError("somebody took it")
                g = gort.go(ch.recv)
                ch.send(6)
                assert g.join() == 6
                ch.close()
            assert (full.recv(), len(full)) == (1, 0)

        for _ in range(3):
            assert forked(child) == 0
        for ch in chans:
            ch.close()
        for t in threads:
            gort.blocking(t.join)
        print([g.join()[-1] for g in waits], full.recv(), full.recv(), sender.join())
        """
    )
    assert out == "[False, False, False] 1 2 None\n"


def test_locks_stay_as_they_are_and_forget_their_waiters() -> None:
    out = program(
        """
        mu, rw, sem, wg = gort.sync.Mutex(), gort.sync.RWMutex(), gort.sync.Semaphore(1), gort.sync.WaitGroup()
        cond = gort.sync.Cond(gort.sync.Mutex())
        rlock = threading.RLock()
        mu.lock(), rw.rlock(), sem.acquire(), wg.add(1)

        def wait_for_cond():
            with cond.L:
                cond.wait()

        waits = [gort.go(f) for f in (mu.lock, rw.lock, sem.acquire, wg.wait, wait_for_cond)]
        other = gort.Chan()
        def holds():
            with rlock:
                other.recv()
        holder = gort.go(holds)
        while not all(g.state == "waiting" for g in [*waits, holder]):
            gort.sleep(0.001)

        def child():
            assert not mu.try_lock() and not sem.try_acquire() and rw.try_rlock()
            mu.unlock(), rw.runlock(), rw.runlock(), sem.release(), wg.done(), cond.broadcast()
            g = gort.go(wait_for_cond)
            while g.state != "waiting":
                gort.gosched()
            cond.signal()
            g.join()
            with mu, rw.writer():
                sem.acquire()
            wg.wait()
            assert not rlock.acquire(blocking=False)
            rlock._at_fork_reinit()
            assert rlock.acquire(blocking=False)

        assert forked(child) == 0
        assert gort.go(forked, child).join() == 0
        print("ok", flush=True)
        os._exit(0)
        """
    )
    assert out == "ok\n"


def test_a_lock_held_by_the_forker_is_still_its_own() -> None:
    out = program(
        """
        lock = threading.RLock()

        def child():
            lock.release()
            assert lock.acquire() and lock._is_owned()

        def forks():
            with lock:
                return forked(child)

        print([FORKERS[name](forks) for name in FORKERS])
        """
    )
    assert out == "[0, 0, 0, 0]\n"


def test_timers_that_feed_channels_and_deadlines_go_on_and_functions_do_not() -> None:
    out = program(
        """
        def forks():
            called = []
            timer, ticker = gort.time.Timer(0.05), gort.time.Ticker(0.001)
            func = gort.time.after_func(0.05, called.append, 1)
            ctx, cancel = context.with_timeout(context.background(), 0.05)

            def child():
                timer.c.recv(timeout=30)
                ticker.c.recv(timeout=30), ticker.c.recv(timeout=30)
                assert isinstance(ctx.wait(timeout=30), context.DeadlineExceeded)
                gort.sleep(0.02)
                assert not called and not func.stop()
                func.reset(0.001)
                while not called:
                    gort.sleep(0.001)

            return forked(child)

        print(forks(), gort.go(forks).join())
        """
    )
    assert out == "0 0\n"


@pytest.mark.parametrize(
    ("forker", "end", "status", "stderr"),
    [
        ("goroutine", "return 5", 0, ""),
        ("goroutine", "sys.exit(7)", 7, ""),
        ("goroutine", "sys.exit('no')", 1, "no\n"),
        ("goroutine", "raise ValueError('boo')", 1, "boo"),
        ("goroutine", "gort.goexit()", 0, ""),
        ("thread", "return 5", 0, ""),
        ("main", "away(); sys.exit(7)", 7, ""),
        ("goroutine", "away(); return", 0, ""),
        ("thread", "away(); return", 0, ""),
        ("thread", "threading.Thread(target=time.sleep, args=(0.05,)).start(); away(); return", 0, ""),
        ("thread", "chain(3); away(); return", 0, "the third"),
    ],
)
def test_the_program_ends_where_the_forkers_function_ends(forker: str, end: str, status: int, stderr: str) -> None:
    """As if the main thread's code had ended: atexit functions, finally blocks, what is buffered."""
    out = program(
        f"""
        import _thread, atexit

        def waits(started):
            try:
                started.close()
                gort.Chan().recv()
            finally:
                print("finally")

        def away():  # another goroutine's call gets the main thread, and the main goroutine another
            while os.getpid() == _thread.get_native_id():
                gort.go(time.sleep, 1000)
                gort.sleep(0.02)

        def chain(n):  # of threads, each started at the end of the one before
            def late():
                time.sleep(0.05)
                chain(n - 1) if n > 1 else os.write(2, b"the third")
            threading.Thread(target=late).start()

        def forks():
            r, w = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.dup2(w, 2)
                atexit.register(print, "atexit")
                gort.go(waits, started := gort.Chan())
                started.recv_ok()
                print("child")
                {end}
            os.close(w)
            status = os.waitpid(pid, 0)[1]
            with open(r) as f:
                print(os.waitstatus_to_exitcode(status), {stderr!r} in f.read(), flush=True)

        print("parent", flush=True)
        FORKERS[{forker!r}](forks)
        """
    )
    assert out == f"parent\nchild\natexit\nfinally\n{status} True\n"


def test_the_child_goes_on_with_mains_run() -> None:
    out = program(
        """
        def main():
            gort.go(gort.Chan().recv)
            gort.gosched()
            pid = os.fork()
            gort.go(gort.Chan().recv)
            gort.gosched()
            n = gort.num_goroutine()
            if pid:
                os.waitpid(pid, 0)
            return n
        print(gort.run(main), flush=True)
        """
    )
    assert out == "2\n3\n"


def test_a_module_that_another_goroutine_imports_is_imported_anew_in_the_child() -> None:
    out = program(
        """
        import tempfile
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "slow.py"), "w") as f:
                f.write("import gort, __main__\\n__main__.gate.recv_ok()\\nvalue = 5\\n")
            sys.path.insert(0, folder)
            gate = gort.Chan()

            def imports():
                import slow
                return slow.value

            g = gort.go(imports)
            while g.state != "waiting":
                gort.sleep(0.001)

            def child():
                gate.close()
                assert imports() == 5

            print(forked(child), gort.go(forked, child).join())
            gate.close()
            print(g.join(), imports())
        """
    )
    assert out == "0 0\n5 5\n"


def test_failures_of_the_parent_are_not_told_by_the_child() -> None:
    out = program(
        """
        gort.excepthook = lambda g, exc: os.write(1, f"{exc} in {os.getpid() == parent}\\n".encode())
        parent = os.getpid()
        def fails():
            raise ValueError("boo")
        kept = gort.go(fails)
        gort.sleep(0.001)
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
        """
    )
    assert out == "boo in True\n"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_from_several_goroutines(method: str, tmp_path: Path) -> None:
    path = str(tmp_path / "program.py")
    with open(path, "w") as f:
        f.write(
            textwrap.dedent(
                f"""
                import concurrent.futures, multiprocessing, sys, time, warnings
                import gort

                warnings.simplefilter("ignore", DeprecationWarning)
                context = multiprocessing.get_context({method!r})

                def work(n):
                    ch = gort.Chan()
                    for i in range(n):
                        gort.go(ch.send, i)
                    return sum(ch.recv() for _ in range(n))

                def target(q):
                    q.put(work(10))

                def process():
                    q = context.SimpleQueue()
                    p = context.Process(target=target, args=(q,))
                    p.start()
                    n = q.get()
                    p.join()
                    return n, p

                def pool():
                    with context.Pool(2) as p:
                        return p.map(work, [3, 4, 5])

                def executor():
                    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as ex:
                        return [f.result() for f in [ex.submit(work, n) for n in (3, 4, 5)]]

                if __name__ == "__main__":
                    stop = gort.Chan()
                    computes = gort.go(lambda: [sum(range(1000)) for _ in iter(lambda: stop.closed, True)])
                    (n, _), *others = [g.join() for g in [gort.go(f) for f in (process, pool, executor)]]
                    # Each start() asks after all children, and two that do so at once may spoil an
                    # exit code, in CPython: one is looked at when nobody else starts.
                    again, p = process()
                    print(n, others, again, p.exitcode)
                    stop.close()
                """
            )
        )
    # as a program: its file is what a child imports
    out = output_of(f"import os, sys; os.execv(sys.executable, [sys.executable, {path!r}])")
    assert out == "45 [[3, 6, 10], [3, 6, 10]] 45 0\n"


def test_subprocesses_from_several_goroutines() -> None:
    out = program(
        """
        import pty, subprocess

        def run():
            assert subprocess.run(["cat"], input="x" * 200000, capture_output=True, text=True).stdout == "x" * 200000
            assert subprocess.run(["true"], preexec_fn=lambda: use_everything()).returncode == 0
            assert os.popen("echo a").read() == "a\\n" and os.system("exit 3") == 3 << 8
            return os.waitstatus_to_exitcode(os.waitpid(os.posix_spawn("/bin/true", ["true"], os.environ), 0)[1])

        def terminal():
            pid, fd = pty.fork()
            if pid == 0:
                use_everything()
                print("in the child", flush=True)
                os._exit(3)
            text = b""
            try:
                while chunk := os.read(fd, 1000):
                    text += chunk
            except OSError:  # how the end of a terminal is told
                pass
            return text.decode().strip(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        gs = [gort.go(run) for _ in range(4)] + [gort.go(terminal)]
        print([g.join() for g in gs])
        """
    )
    assert out == "[0, 0, 0, 0, ('in the child', 3)]\n"


def test_native_goroutines_at_work_while_python_forks(native_path: Path) -> None:
    path = str(native_path)
    out = program(
        f"""
        import ctypes
        from gort import native
        native.load_global()
        lib = ctypes.CDLL({path!r})
        flag = ctypes.c_int32()
        long = native.go(ctypes.cast(ctypes.CDLL(None).pause, ctypes.c_void_p).value)

        def child():
            assert long.done and long.join() is None and native.num_goroutine() == 0
            g = native.go(ctypes.cast(lib.set_flag, ctypes.c_void_p).value, ctypes.addressof(flag))
            g.join()
            assert flag.value == 1
            use_everything()

        print([forker(forked, child) for forker in FORKERS.values()], long.done, flush=True)
        os._exit(0)
        """
    )
    assert out == "[0, 0, 0, 0] False\n"
