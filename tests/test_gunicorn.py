"""gort.gunicorn: gunicorn itself, in a process of its own, with workers of goroutines."""

from __future__ import annotations

import http.client
import importlib.metadata
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from model_support import PATIENCE, program_env, settle, spin_until

import gort
from gort import go, net

pytest.importorskip("gunicorn", reason="gunicorn is not installed: gort.gunicorn is NOT TESTED")
pytest.importorskip("httptools", reason="httptools is not installed: gort.gunicorn is NOT TESTED")

from wsgi_support import (
    CERTIFICATE,
    GET,
    Answer,
    answer,
    client_context,
    nothing_left,
    read_all,
    read_answer,
)

APP = """
import ctypes, json, os, sys, time

def application(environ, start_response):
    path = environ["PATH_INFO"]
    text = f"{os.getpid()}"
    if path == "/environ":
        text = json.dumps({k: v for k, v in environ.items() if isinstance(v, (str, bool))})
    elif path == "/sleep":
        time.sleep(float(environ["QUERY_STRING"]))
    elif path == "/hold":  # the GIL, so that nothing runs in this process
        ctypes.PyDLL(None).sleep(int(environ["QUERY_STRING"]))
    elif path == "/fail":
        raise ZeroDivisionError("in the application")
    elif path == "/errors":
        environ["wsgi.errors"].write("to wsgi.errors\\n")
    elif path == "/echo":
        text = environ["wsgi.input"].read().decode()
    elif path == "/slow":
        def slow():
            yield b"a"
            time.sleep(float(environ["QUERY_STRING"]))
            yield b"b"
        start_response("200 OK", [])
        return slow()
    elif path == "/modules":
        text = str("gort" in sys.modules)
    elif path == "/patched":
        from gort import monkey
        text = str(monkey.is_patched("time"))
    elif path == "/threads":
        text = str(len(os.listdir("/proc/self/task")))
    elif path == "/version":
        text = "1"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [text.encode()]
"""


@pytest.fixture(autouse=True)
def leaves_nothing() -> Iterator[None]:
    with nothing_left():
        yield


class Gunicorn:
    """gunicorn and its log."""

    def __init__(self, folder: Path, *args: str, bind: str = "127.0.0.1:0", config: str = "") -> None:
        self.folder = folder
        self.log = ""
        (folder / "my_app.py").write_text(APP)
        (folder / "gunicorn.conf.py").write_text(textwrap.dedent(config))
        command = [sys.executable, "-m", "gunicorn", "-k", "gort.gunicorn.Worker", "-b", bind, *args, "my_app"]
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=program_env(HOME=str(folder)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        reader = go(gort.blocking, self.process.stdout.readline)
        try:
            line: str = reader.join(PATIENCE)
        except TimeoutError:
            self.process.kill()  # which ends the reader
            reader.join()
            raise AssertionError(f"nothing new in\n{self.log}") from None
        self.log += line
        return line

    def expect(self, pattern: str) -> re.Match[str]:
        """Wait for a line of the log."""
        while line := self.line():
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"no {pattern!r} in\n{self.log}")

    def expect_in_all(self, **counts: int) -> None:
        """Wait until these have been logged so often, in whatever order."""
        while any(self.log.count(text) < count for text, count in counts.items()):
            assert self.line(), self.log

    def boot(self, workers: int = 1) -> None:
        where = self.expect(r"Listening at: (?:https?://|unix:)(\S+)")[1]
        self.address = f"unix:{where}" if where.startswith("/") else where
        for _ in range(workers):
            self.expect("Booting worker")
        spin_until(self.answers)

    def answers(self) -> bool:
        try:
            return self.get("/").status == 200
        except OSError:
            return False

    def get(self, path: str, *headers: str) -> Answer:
        with self.dial() as conn:
            conn.write("\r\n".join([f"GET {path} HTTP/1.1", "Host: x", "Connection: close", *headers, "", ""]).encode())
            return answer(read_all(conn))

    def text(self, path: str, *headers: str) -> str:
        got = self.get(path, *headers)
        assert got.status == 200, got
        return got.body.decode()

    def dial(self) -> net.Conn:
        conn = net.dial(self.address)
        conn.set_deadline(PATIENCE)
        return conn

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """Wait for its end; the exit status."""
        while self.line():
            pass
        code: int = gort.blocking(self.process.wait, PATIENCE)
        return code

    def __enter__(self) -> Gunicorn:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                gort.blocking(self.process.wait, PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                gort.blocking(self.process.wait)
        assert self.process.stdout is not None
        self.process.stdout.close()


def booted(folder: Path, *args: str, workers: int = 1, **kw: Any) -> Gunicorn:
    gunicorn = Gunicorn(folder, *args, **kw)
    try:
        gunicorn.boot(workers)
    except BaseException:
        gunicorn.__exit__()
        raise
    return gunicorn


def test_it_serves(tmp_path: Path) -> None:
    with booted(tmp_path) as gunicorn:
        assert gunicorn.text("/modules") == "True"
        with gunicorn.dial() as conn:
            for _ in range(3):
                conn.write(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
                assert read_answer(conn).body == b"abc"
        assert int(gunicorn.text("/")) != gunicorn.process.pid
        gunicorn.signal(signal.SIGTERM)
        assert gunicorn.end() == 0
    assert "Using worker: gort.gunicorn.Worker" in gunicorn.log
    assert "Traceback" not in gunicorn.log and "rror" not in gunicorn.log


def test_environ(tmp_path: Path) -> None:
    with booted(tmp_path, "--env", "SCRIPT_NAME=/my", workers=1) as gunicorn:
        import json

        environ = json.loads(gunicorn.text("/my/environ?a=b"))
    assert environ["PATH_INFO"] == "/environ" and environ["SCRIPT_NAME"] == "/my"
    assert environ["SERVER_SOFTWARE"].startswith("gunicorn")
    assert environ["wsgi.multithread"] is True and environ["wsgi.multiprocess"] is False
    assert environ["RAW_URI"] == "/my/environ?a=b"


def test_waiting_requests_do_not_hold_up_others(tmp_path: Path) -> None:
    with booted(tmp_path) as gunicorn:
        slow = [go(gunicorn.text, "/sleep?1") for _ in range(50)]
        for _ in range(10):
            gunicorn.text("/")
        assert not any(g.done for g in slow)
        assert len({g.join() for g in slow}) == 1


def test_the_standard_library_is_patched(tmp_path: Path) -> None:
    """Requests that wait in it need no thread each."""
    pytest.importorskip("gort.monkey", reason="gort.monkey is not there: the worker's patching is NOT TESTED")
    with booted(tmp_path) as gunicorn:
        assert gunicorn.text("/patched") == "True"
        slow = [go(gunicorn.text, "/sleep?2") for _ in range(200)]
        settle(*slow)
        assert int(gunicorn.text("/threads")) < 50
        assert len({g.join() for g in slow}) == 1


def test_workers(tmp_path: Path) -> None:
    """All of them accept; one that is killed is replaced."""
    with booted(tmp_path, "-w", "3", workers=3) as gunicorn:
        found: set[str] = set()

        def collect() -> bool:
            clients = [go(gunicorn.text, "/sleep?0.01") for _ in range(20)]
            found.update(g.join() for g in clients)
            return len(found) == 3

        spin_until(collect, "every worker serves")
        victim = found.pop()
        os.kill(int(victim), signal.SIGKILL)
        gunicorn.expect("Booting worker")
        spin_until(lambda: collect() and victim not in found)


def test_preload(tmp_path: Path) -> None:
    with booted(tmp_path, "-w", "2", "--preload", workers=2) as gunicorn:
        assert int(gunicorn.text("/sleep?0.01")) != gunicorn.process.pid


def test_unix_socket(tmp_path: Path) -> None:
    with booted(tmp_path, bind=f"unix:{tmp_path}/socket") as gunicorn:
        assert gunicorn.address == f"unix:{tmp_path}/socket"
        assert gunicorn.text("/environ")
        gunicorn.signal(signal.SIGTERM)
        assert gunicorn.end() == 0
    assert not (tmp_path / "socket").exists()


def test_tls(tmp_path: Path) -> None:
    with Gunicorn(tmp_path, "--certfile", str(CERTIFICATE), "--keyfile", str(CERTIFICATE)) as gunicorn:
        port = int(gunicorn.expect(r"Listening at: https://\S+:(\d+)")[1])
        gunicorn.expect("Booting worker")
        conn = http.client.HTTPSConnection("127.0.0.1", port, context=client_context(), timeout=PATIENCE)
        gort.blocking(conn.request, "GET", "/environ")
        assert b'"wsgi.url_scheme": "https"' in gort.blocking(lambda: conn.getresponse().read())
        conn.close()


# ---- signals ---------------------------------------------------------------------------------


def test_term_lets_requests_end(tmp_path: Path) -> None:
    with booted(tmp_path) as gunicorn, gunicorn.dial() as conn, gunicorn.dial() as idle:
        idle.write(GET)
        read_answer(idle)
        conn.write(b"GET /slow?1 HTTP/1.1\r\nHost: x\r\n\r\n")
        data = conn.read(1000)
        gunicorn.signal(signal.SIGTERM)
        assert idle.read(1) == b""
        assert answer(data + read_all(conn)).body == b"ab"
        assert gunicorn.end() == 0


def test_graceful_timeout(tmp_path: Path) -> None:
    with booted(tmp_path, "--graceful-timeout", "1") as gunicorn, gunicorn.dial() as conn:
        conn.write(b"GET /slow?600 HTTP/1.1\r\nHost: x\r\n\r\n")
        conn.read(1000)
        gunicorn.signal(signal.SIGTERM)
        try:
            assert b"b" not in read_all(conn)
        except ConnectionResetError:
            pass
        gunicorn.end()


def test_quit_ends_at_once(tmp_path: Path) -> None:
    config = """
        def worker_int(worker):
            worker.log.info("worker_int was called")
    """
    with booted(tmp_path, config=config) as gunicorn, gunicorn.dial() as conn:
        conn.write(b"GET /slow?600 HTTP/1.1\r\nHost: x\r\n\r\n")
        conn.read(1000)
        gunicorn.signal(signal.SIGQUIT)
        try:
            assert b"b" not in read_all(conn)
        except ConnectionResetError:
            pass
        gunicorn.end()
    assert "worker_int was called" in gunicorn.log


def test_hup_reloads_and_lets_requests_end(tmp_path: Path) -> None:
    with booted(tmp_path) as gunicorn, gunicorn.dial() as conn:
        before = gunicorn.text("/version")
        conn.write(b"GET /slow?1 HTTP/1.1\r\nHost: x\r\n\r\n")
        data = conn.read(1000)
        (tmp_path / "my_app.py").write_text(APP.replace('text = "1"', 'text = "2 is new"'))
        gunicorn.signal(signal.SIGHUP)
        assert answer(data + read_all(conn)).body == b"ab"
        gunicorn.expect_in_all(**{"Booting worker": 2, "Worker exiting": 1})
        assert (before, gunicorn.text("/version")) == ("1", "2 is new")


def test_hup_under_load_loses_no_request(tmp_path: Path) -> None:
    with booted(tmp_path, "-w", "2", workers=2) as gunicorn:
        over: list[int] = []
        statuses: list[int] = []

        def client() -> None:
            while not over:
                statuses.append(gunicorn.get("/slow?0.01").status)

        clients = [go(client) for _ in range(20)]
        for generation in (1, 2, 3):
            gunicorn.signal(signal.SIGHUP)
            gunicorn.expect_in_all(**{"Booting worker": 2 * generation + 2, "Worker exiting": 2 * generation})
        over.append(1)
        for g in clients:
            g.join()
    assert set(statuses) == {200}


def test_usr2_starts_another_master(tmp_path: Path) -> None:
    with booted(tmp_path, "--pid", str(tmp_path / "pid")) as gunicorn:
        gunicorn.signal(signal.SIGUSR2)
        gunicorn.expect("Booting worker")
        second = int((tmp_path / "pid.2").read_text())
        gunicorn.signal(signal.SIGTERM)
        gort.blocking(gunicorn.process.wait, PATIENCE)
        spin_until(gunicorn.answers)
        os.kill(second, signal.SIGTERM)
        spin_until(lambda: not is_running(second))


def test_reload(tmp_path: Path) -> None:
    with booted(tmp_path, "--reload", "--reload-engine", "poll") as gunicorn:
        assert gunicorn.text("/version") == "1"
        source = tmp_path / "my_app.py"
        source.write_text(APP.replace('text = "1"', 'text = "2 is new"'))
        stamp = source.stat().st_mtime

        def reloaded() -> bool:
            nonlocal stamp
            stamp += 1  # it may not have looked yet when the file was changed first
            os.utime(source, (stamp, stamp))
            gort.sleep(0.1)
            return gunicorn.answers() and gunicorn.text("/version") == "2 is new"

        spin_until(reloaded)
        gunicorn.expect("Worker reloading")


def test_usr1_reopens_the_logs(tmp_path: Path) -> None:
    log = tmp_path / "access"
    with booted(
        tmp_path, "--access-logfile", str(log), "--access-logformat", "%(r)s %(s)s %(B)s %({x-a}i)s"
    ) as gunicorn:
        gunicorn.get("/echo", "X-A: 7")
        spin_until(lambda: "GET /echo HTTP/1.1 200 0 7" in log.read_text())
        log.rename(tmp_path / "old")
        gunicorn.signal(signal.SIGUSR1)
        spin_until(lambda: gunicorn.answers() and log.exists() and "GET / HTTP/1.1 200 " in log.read_text())


# ---- the life of a worker ------------------------------------------------------------------------


def test_max_requests(tmp_path: Path) -> None:
    """The request that is one too many is answered all the same, as are those beside it."""
    with booted(tmp_path, "--max-requests", "10", "--max-requests-jitter", "2") as gunicorn:
        workers = {gunicorn.text("/") for _ in range(40)}
        assert len(workers) > 2
        assert gunicorn.log.count("Booting worker") == 1
        gunicorn.expect("Autorestarting worker")
        gunicorn.expect("Booting worker")
        slow = [go(gunicorn.get, "/slow?0.2") for _ in range(30)]
        assert [g.join().body for g in slow] == [b"ab"] * 30


def test_a_worker_that_stands_still_is_killed(tmp_path: Path) -> None:
    with booted(tmp_path, "--timeout", "2") as gunicorn:
        worker = gunicorn.text("/sleep?4")  # a request that waits is not the worker's standstill
        assert gunicorn.text("/") == worker
        with gunicorn.dial() as conn:
            conn.write(b"GET /hold?600 HTTP/1.1\r\nHost: x\r\n\r\n")
            gunicorn.expect("WORKER TIMEOUT")
            gunicorn.expect("Booting worker")
        assert gunicorn.text("/") != worker


def test_a_worker_notices_that_its_master_is_gone(tmp_path: Path) -> None:
    with booted(tmp_path) as gunicorn:
        worker = int(gunicorn.text("/"))
        gunicorn.process.kill()
        gort.blocking(gunicorn.process.wait)
        spin_until(lambda: not is_running(worker))


def is_running(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_an_application_that_does_not_load(tmp_path: Path) -> None:
    with Gunicorn(tmp_path) as gunicorn:
        gunicorn.expect("Listening")
        (tmp_path / "my_app.py").write_text("1 / 0")
    (tmp_path / "broken.py").write_text("1 / 0")
    with Gunicorn(tmp_path, "--name", "x") as gunicorn:
        pass
    command = [sys.executable, "-m", "gunicorn", "-k", "gort.gunicorn.Worker", "-b", "127.0.0.1:0", "broken:app"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=program_env(HOME=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 3 and "ZeroDivisionError" in done.stderr


# ---- settings -------------------------------------------------------------------------------------


def test_limits(tmp_path: Path) -> None:
    limits = ["--limit-request-line", "100", "--limit-request-fields", "5", "--limit-request-field_size", "50"]
    with booted(tmp_path, *limits) as gunicorn:
        assert gunicorn.get("/" + "a" * 90).status == 200
        assert gunicorn.get("/" + "a" * 110).status == 414
        assert gunicorn.get("/", "A: 1", "B: 2", "C: 3").status == 200
        assert gunicorn.get("/", "A: 1", "B: 2", "C: 3", "D: 4").status == 431
        assert gunicorn.get("/", "A: " + "a" * 40).status == 200
        assert gunicorn.get("/", "A: " + "a" * 60).status == 431


def test_worker_connections(tmp_path: Path) -> None:
    with booted(tmp_path, "--worker-connections", "2") as gunicorn:
        first, second, third = (gunicorn.dial() for _ in range(3))
        for conn in (first, second):
            conn.write(GET)
            read_answer(conn)
        third.write(GET)
        with pytest.raises(TimeoutError):
            third.read(1, timeout=0.3)
        first.close()
        assert read_answer(third).status == 200
        second.close()
        third.close()


def test_keepalive(tmp_path: Path) -> None:
    with booted(tmp_path, "--keep-alive", "0") as gunicorn, gunicorn.dial() as conn:
        conn.write(GET)
        assert answer(read_all(conn))["Connection"] == "close"
    with booted(tmp_path, "--keep-alive", "1") as gunicorn, gunicorn.dial() as conn:
        conn.write(GET)
        assert answer(read_all(conn))["Connection"] is None


def test_scheme_headers_of_a_trusted_proxy(tmp_path: Path) -> None:
    https, http_ = '"wsgi.url_scheme": "https"', '"wsgi.url_scheme": "http"'
    with booted(tmp_path, "--forwarded-allow-ips", "10.0.0.1,127.0.0.1") as gunicorn:
        assert https in gunicorn.text("/environ", "X-Forwarded-Proto: https")
        assert http_ in gunicorn.text("/environ", "X-Forwarded-Proto: http")
        assert http_ in gunicorn.text("/environ")
        assert gunicorn.get("/environ", "X-Forwarded-Proto: https", "X-Forwarded-Ssl: off").status == 400
    with booted(tmp_path, "--forwarded-allow-ips", "10.0.0.1") as gunicorn:
        assert http_ in gunicorn.text("/environ", "X-Forwarded-Proto: https")


def test_hooks_and_errors(tmp_path: Path) -> None:
    config = """
        def pre_request(worker, req):
            worker.log.info("before %s %s", req.method, req.path)

        def post_request(worker, req, environ, resp):
            worker.log.info("after %s: %s", req.path, resp.status)
    """
    with booted(tmp_path, config=config) as gunicorn:
        gunicorn.get("/errors")
        gunicorn.expect("before GET /errors")
        gunicorn.expect("to wsgi.errors")
        gunicorn.expect("after /errors: 200 OK")
        assert gunicorn.get("/fail").status == 500
        gunicorn.expect("ZeroDivisionError: in the application")
        gunicorn.expect("after /fail: 500")
        assert gunicorn.answers()


def test_the_plain_name() -> None:
    """`-k gort`: gunicorn seeks it among its own workers, to which what setup.py installs adds it."""
    added = Path(gort.__file__).with_name("gort-gunicorn.pth").read_text()
    (line,) = added.splitlines()  # which Python executes when it starts
    assert line.startswith("import ")
    program = f"{line}\nfrom gunicorn.util import load_class\nprint(load_class('gort'))"
    for name, text in (("/usr/bin/gunicorn", "<class 'gort.gunicorn.Worker'>\n"), ("program", "")):
        done = subprocess.run(
            [sys.executable, "-c", program, name], capture_output=True, text=True, env=program_env(), check=False
        )
        assert done.stdout == text


def test_the_entry_point() -> None:
    """`-k egg:gort#gort` finds it, without that."""
    try:
        distribution = importlib.metadata.distribution("gort")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("gort is not installed as a distribution")
    found = [e for e in distribution.entry_points if e.group == "gunicorn.workers"]
    assert [(e.name, e.value) for e in found] == [("gort", "gort.gunicorn:Worker")]
