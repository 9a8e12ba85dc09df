"""How fast is a web server that says hello, alone and through Flask, to 64 clients at once?

The server, one process of one worker, has one core; the load comes from the other, from wrk, whose 64 connections
ask again as soon as they are answered. `gevent` is its pywsgi without a log and with TCP_NODELAY, `gunicorn-gevent`
and `gunicorn-gort` are gunicorn with either worker, `go` is net/http. Measured are

- `ns`: wall time per request, all connections together;
- `p50`, `p99`: from a request to its answer, as wrk sees it;
- `cpu`: CPU time of the server's process (of gunicorn's worker) per request. Where the server is what limits it, that
  is `ns`, but it suffers less from a busy machine.

An answer other than 200, or an error of a connection, fails the measurement.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import _http_app
from benchmarks._peers import ROOT
from benchmarks._workload import Metric, Workload, check

CONNECTIONS = 64
SECONDS, SECONDS_QUICK = 3, 1
WARM_UP = 1  # seconds
BACKLOG = 1024
WRK = ROOT / "benchmarks" / "_wrk.py"


def _workload(name: str, question: str, go: bool) -> Workload:
    return Workload(
        name,
        question,
        (
            Metric("ns", "ns per request", "wall time per request"),
            Metric("p50", "us, median", "from a request to its answer: median"),
            Metric("p99", "us, 99th percentile", "from a request to its answer: 99th percentile"),
            Metric("cpu", "ns of CPU", "CPU time of the server per request"),
        ),
        n=SECONDS,
        n_quick=SECONDS_QUICK,
        repeat=1,
        go=go,
    )


HTTP_HELLO = _workload("http_hello", "HTTP: hello to 64 connections", go=True)
HTTP_FLASK = _workload("http_flask", "HTTP: hello by Flask to 64 connections", go=False)
HTTP_FLASK.lacks("go", "Flask is Python's")
APPS = {"http_hello": "hello", "http_flask": "flask()"}


def _load(port: int, seconds: int, cpu_time: Callable[[], float]) -> dict[str, float]:
    """Load the server; it must be called where its blocking disturbs nobody."""
    _wrk(port, WARM_UP)
    cpu = cpu_time()
    requests, took, p50, p99 = _wrk(port, seconds)
    cpu = cpu_time() - cpu
    return {"ns": took / requests * 1e9, "p50": p50, "p99": p99, "cpu": cpu / requests * 1e9}


def _wrk(port: int, seconds: int) -> tuple[float, float, float, float]:
    command = [sys.executable, str(WRK), str(port), str(CONNECTIONS), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    requests, took, p50, p99, errors = map(float, done.stdout.split())
    check(errors, 0)
    return requests, took, p50, p99


def _app(workload: str) -> Any:
    return _http_app.hello if workload == "http_hello" else _http_app.flask()


def _register(workload: Workload) -> None:
    @workload.peer("gort")
    def gort(n: int) -> dict[str, float]:
        from gort import blocking, go, wsgi

        with wsgi.Server(_app(workload.name), "127.0.0.1:0", backlog=BACKLOG) as server:
            go(server.serve_forever)
            outcome: dict[str, float] = blocking(_load, server.addr.port, n, time.process_time)
        return outcome

    @workload.peer("gevent")
    def gevent(n: int) -> dict[str, float]:
        import socket

        from gevent import get_hub, pywsgi

        class Handler(pywsgi.WSGIHandler):  # type: ignore[misc, unused-ignore]
            def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                super().__init__(sock, *args, **kwargs)

        app = _app(workload.name)
        server = pywsgi.WSGIServer(("127.0.0.1", 0), app, log=None, handler_class=Handler, backlog=BACKLOG)
        server.start()
        outcome: dict[str, float] = get_hub().threadpool.spawn(_load, server.server_port, n, time.process_time).get()
        return outcome

    for name, worker in (("gunicorn-gevent", "gevent"), ("gunicorn-gort", "gort.gunicorn.Worker")):

        @workload.peer(name)
        def gunicorn(n: int, worker: str = worker) -> dict[str, float]:
            app = f"benchmarks._http_app:{APPS[workload.name]}"
            command = [sys.executable, "-m", "gunicorn", "-k", worker, "-b", "127.0.0.1:0", app]
            with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
                try:
                    port = int(_expect(process, r"Listening at: http://127.0.0.1:(\d+)"))
                    pid = int(_expect(process, r"Booting worker with pid: (\d+)"))
                    return _load(port, n, lambda: _cpu_time(pid))
                finally:
                    process.kill()  # and its worker follows; it has nothing to finish
                    _gone(pid)


def _expect(process: subprocess.Popen[str], pattern: str) -> str:
    assert process.stderr is not None
    log = ""
    for line in process.stderr:
        log += line
        if found := re.search(pattern, line):
            return found[1]
    raise RuntimeError(f"gunicorn did not start: {log}")


def _cpu_time(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _gone(pid: int) -> None:
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        pass


_register(HTTP_HELLO)
_register(HTTP_FLASK)
