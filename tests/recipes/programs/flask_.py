"""Flask on gort.wsgi, and on Werkzeug's threaded server: contexts, sessions, streams, uploads.

Nothing to set. `g`, `request` and `session` are context variables, and each goroutine has its own. gort.wsgi serves
each connection in a goroutine, patched or not. Werkzeug's server, which is for development, starts a thread for each
connection; patched, that is a goroutine. Its listening socket has room for 128 clients that wait; more than that wait
a second and try again, unless `listen()` says otherwise.
"""

from __future__ import annotations

import recipe

recipe.patch_if_asked()

import contextlib
import http.client
import json
import logging
from collections.abc import Iterator

from flask import Flask, Response, abort, copy_current_request_context, g, request, session, stream_with_context
from werkzeug.serving import make_server

import gort
from gort.sync import WaitGroup

try:
    from gort import wsgi
except ImportError:  # it needs httptools
    wsgi = None

logging.getLogger("werkzeug").setLevel(logging.ERROR)
app = Flask(__name__)
app.secret_key = "a recipe's"
together = WaitGroup()


@app.before_request
def remember() -> None:
    g.who = request.headers.get("X-Who")


@app.get("/together/<int:i>")
def all_together(i: int) -> dict[str, object]:
    """Answers when all 200 requests are here: each still has its own context then."""
    before = (g.who, request.path)
    together.done()
    together.wait()
    assert (g.who, request.path) == before
    return {"i": i, "who": g.who, "path": request.path}


@app.get("/visit")
def visit() -> str:
    session["visits"] = session.get("visits", 0) + 1
    gort.gosched()
    return f"{g.who} {session['visits']}"


@app.get("/stream/<int:n>")
def stream(n: int) -> Response:
    def lines() -> Iterator[str]:
        for k in range(n):
            yield f"{g.who} {k}\n"
            gort.gosched()

    return Response(stream_with_context(lines()), mimetype="text/plain")


@app.post("/upload")
def upload() -> dict[str, object]:
    file = request.files["file"]
    return {"name": file.filename, "size": len(file.read()), "who": request.form["who"]}


@app.get("/fan")
def fan() -> dict[str, object]:
    """Goroutines of a request, each with a copy of its context: one for each, a copy is for one at a time."""

    def part(k: int) -> str:
        gort.gosched()
        return f"{request.headers['X-Who']} {k}"

    goroutines = [gort.go(copy_current_request_context(part), k) for k in range(3)]
    return {"parts": [goroutine.join() for goroutine in goroutines]}


@app.get("/error/<kind>")
def error(kind: str) -> str:
    if kind == "abort":
        abort(418)
    raise ValueError("a bug in the program")


@contextlib.contextmanager
def on_gort() -> Iterator[int]:
    with wsgi.Server(app, "127.0.0.1:0") as server:
        running = gort.go(server.serve_forever)
        try:
            yield server.addr.port
        finally:
            server.shutdown()
            running.join()


@contextlib.contextmanager
def on_werkzeug() -> Iterator[int]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    server.socket.listen(1024)
    running = gort.go(server.serve_forever, 0.05)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        running.join()
        server.server_close()


class Client:
    def __init__(self, port: int, who: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.headers = {"X-Who": who}

    def __call__(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, str]:
        self.connection.request(method, path, body, self.headers | headers)
        response = self.connection.getresponse()
        if cookie := response.headers["Set-Cookie"]:
            self.headers["Cookie"] = cookie.partition(";")[0]
        return response.status, response.read().decode()


def contexts(port: int) -> None:
    together.add(recipe.GOROUTINES)

    def work(i: int) -> None:
        status, body = Client(port, f"client {i}")(f"/together/{i}")
        assert (status, json.loads(body)) == (200, {"i": i, "who": f"client {i}", "path": f"/together/{i}"})

    recipe.each(work)


def sessions(port: int) -> None:
    def work(i: int) -> None:
        client = Client(port, f"client {i}")
        assert [client("/visit") for _ in range(3)] == [(200, f"client {i} {n}") for n in (1, 2, 3)]

    recipe.each(work)


def bodies(port: int) -> None:
    def work(i: int) -> None:
        client = Client(port, f"client {i}")
        assert client("/stream/20") == (200, "".join(f"client {i} {k}\n" for k in range(20)))
        status, body = client("/fan")
        assert (status, json.loads(body)) == (200, {"parts": [f"client {i} {k}" for k in range(3)]})
        parts = (
            f'--xx\r\nContent-Disposition: form-data; name="who"\r\n\r\n{i}\r\n'
            f'--xx\r\nContent-Disposition: form-data; name="file"; filename="{i}.bin"\r\n\r\n'
            f"{'x' * 50_000}\r\n--xx--\r\n"
        )
        kind = {"Content-Type": "multipart/form-data; boundary=xx"}
        status, body = client("/upload", "POST", parts.encode(), **kind)
        assert (status, json.loads(body)) == (200, {"name": f"{i}.bin", "size": 50_000, "who": str(i)})

    recipe.each(work)


def errors(port: int) -> None:
    app.logger.disabled = True

    def work(i: int) -> None:
        client = Client(port, f"client {i}")
        assert client("/error/abort")[0] == 418
        assert client("/error/bug")[0] == 500
        assert client("/nowhere")[0] == 404
        assert client("/visit") == (200, f"client {i} 1")

    recipe.each(work)


def main() -> None:
    for name, serving in (("gort.wsgi", on_gort), ("Werkzeug", on_werkzeug)):
        if serving is on_gort and wsgi is None:
            print("  not on gort.wsgi, which lacks httptools")
            continue
        with serving() as port:
            with recipe.step(f"{name}: 200 requests in progress"):
                contexts(port)
            with recipe.step(f"{name}: sessions"):
                sessions(port)
            with recipe.step(f"{name}: streams, uploads, a request's goroutines"):
                bodies(port)
            with recipe.step(f"{name}: errors"):
                errors(port)


recipe.run(main, "Flask", "Werkzeug")
