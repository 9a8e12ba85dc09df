"""How fast is an echo server of 64 bytes, with 1, 50, 500 and 5,000 connections?

The server has one core; the load comes from the other, from a program in C
(native/echo_load.c) that has one request on its way on each connection. A server
is written as the peer's users would: a goroutine (greenlet, fiber, task) a
connection that reads and writes in a loop; `uvloop-protocol` and
`asyncio-protocol` are callbacks instead. Measured are

- `ns`: wall time per request, all connections together;
- `p50`, `p99`: from a request to its answer, as the load sees it;
- `cpu`: CPU time of the server's process per request, connecting included. Where the
  server is what limits it, that is `ns`, but it suffers less from a busy machine.

`idle_conns` asks for the memory of the server's process that each of 10,000
connections holds which has had one request and waits for the next: growth of the
resident set and of the page tables. The kernel's own memory is not counted.
"""

import asyncio
import gc
import resource
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any

from benchmarks import _build, _proc
from benchmarks._workload import Metric, Workload, check

CONNECTIONS = (1, 50, 500, 5000)
MILLISECONDS, MILLISECONDS_QUICK = 2000, 100
IDLE, IDLE_QUICK = 10_000, 500
SIZE = 4096  # what a server offers to read at once
WARM_UP = 10  # connections before idle ones are weighed


def _echo(connections: int) -> Workload:
    return Workload(
        f"echo_{connections}",
        f"echo of 64 bytes, {connections:,} connection{'s' * (connections > 1)}",
        (
            Metric("ns", "ns per request", "wall time per request"),
            Metric("p50", "us, median", "from a request to its answer: median"),
            Metric("p99", "us, 99th percentile", "from a request to its answer: 99th percentile"),
            Metric("cpu", "ns of CPU", "CPU time of the server per request"),
        ),
        n=MILLISECONDS,
        n_quick=MILLISECONDS_QUICK,
        repeat=1,
    )


ECHO = {connections: _echo(connections) for connections in CONNECTIONS}
ECHO_1, ECHO_50, ECHO_500, ECHO_5000 = ECHO.values()
IDLE_CONNS = Workload(
    "idle_conns",
    "memory of a connection that waits, at 10,000",
    (
        Metric("resident", "bytes per connection", "growth of the resident set"),
        Metric("tables", "bytes per connection", "growth of the page tables"),
    ),
    n=IDLE,
    n_quick=IDLE_QUICK,
    repeat=1,
)


# ---- the load, as a server's process sees it ----------------------------------------
def _many_descriptors() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _load(port: int, connections: int, milliseconds: int) -> dict[str, float]:
    """Load the server; it must be called where its blocking disturbs nobody."""
    command = [str(_build.load_program()), str(port), str(connections), str(milliseconds)]
    cpu = time.process_time()
    done = subprocess.run(command, capture_output=True, text=True)
    cpu = time.process_time() - cpu
    if done.returncode != 0:
        raise RuntimeError(f"the load failed: {done.stderr.strip()}")
    count, seconds, p50, p99, _, everything = map(float, done.stdout.split())
    return {"ns": seconds / count * 1e9, "p50": p50, "p99": p99, "cpu": cpu / everything * 1e9}


@contextmanager
def _idle(port: int, connections: int) -> Iterator[subprocess.Popen[str]]:
    """Connect; who reads its first line knows that all have been served once."""
    command = [str(_build.load_program()), str(port), str(connections), "0", "idle"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as load:
        yield load


def _first_line(load: subprocess.Popen[str]) -> None:
    assert load.stdout is not None
    check(load.stdout.readline(), "answered\n")


class _Scale:
    """Weighs the process at its making and at `result`."""

    def __init__(self) -> None:
        gc.collect()
        self.rss, self.tables = _proc.rss(), _proc.page_tables()

    def result(self, n: int) -> dict[str, float]:
        gc.collect()
        return {"resident": (_proc.rss() - self.rss) / n, "tables": (_proc.page_tables() - self.tables) / n}


# A peer is a function that starts its server and gives the port and, for a call that
# blocks, the function that makes it where that disturbs nobody.
Block = Callable[..., Any]
Start = Callable[[], tuple[int, Block]]


def _plain(peer: str, start: Start) -> None:
    for connections, workload in ECHO.items():

        def run(n: int, connections: int = connections) -> dict[str, float]:
            _many_descriptors()
            port, block = start()
            outcome: dict[str, float] = block(_load, port, connections, n)
            return outcome

        workload.peer(peer)(run)

    def idle(n: int) -> dict[str, float]:
        _many_descriptors()
        port, block = start()
        block(_load, port, WARM_UP, 20)  # what is made once
        scale = _Scale()
        with _idle(port, n) as load:
            block(_first_line, load)
            return scale.result(n)

    IDLE_CONNS.peer(peer)(idle)


def _async(peer: str, start: Any) -> None:
    for connections, workload in ECHO.items():

        async def run(n: int, connections: int = connections) -> dict[str, float]:
            _many_descriptors()
            server = await start()
            port = server.sockets[0].getsockname()[1]
            return await asyncio.to_thread(_load, port, connections, n)

        workload.peer(peer)(run)

    async def idle(n: int) -> dict[str, float]:
        _many_descriptors()
        server = await start()
        port = server.sockets[0].getsockname()[1]
        await asyncio.to_thread(_load, port, WARM_UP, 20)
        scale = _Scale()
        with _idle(port, n) as load:
            await asyncio.to_thread(_first_line, load)
            return scale.result(n)

    IDLE_CONNS.peer(peer)(idle)


# ---- the servers -------------------------------------------------------------------------
def _start_gort() -> tuple[int, Block]:
    from gort import blocking, go, net

    def serve(conn: net.Conn) -> None:
        with conn:
            while data := conn.read(SIZE):
                conn.write(data)

    def accept(listener: net.Listener) -> None:
        for conn in listener:
            go(serve, conn)

    listener = net.listen("127.0.0.1:0", backlog=8192)
    go(accept, listener)
    return listener.addr.port, blocking


def _start_gort_socket() -> tuple[int, Block]:
    """Blocking-style sockets."""
    from gort import blocking, go
    from gort import socket as gsocket

    def serve(conn: gsocket.socket) -> None:
        while data := conn.recv(SIZE):
            conn.sendall(data)
        conn.close()

    def accept(listener: gsocket.socket) -> None:
        while True:
            conn, _ = listener.accept()
            conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            go(serve, conn)

    listener = gsocket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(8192)
    go(accept, listener)
    return listener.getsockname()[1], blocking


def _start_gevent() -> tuple[int, Block]:
    import gevent
    from gevent import socket as gsocket

    def serve(conn: Any) -> None:
        while data := conn.recv(SIZE):
            conn.sendall(data)
        conn.close()

    def accept(listener: Any) -> None:
        while True:
            conn, _ = listener.accept()
            conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            gevent.spawn(serve, conn)

    listener: Any = gsocket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(8192)
    gevent.spawn(accept, listener)
    return listener.getsockname()[1], _gevent_block


def _gevent_block(fn: Callable[..., Any], *args: Any) -> Any:
    import gevent

    return gevent.get_hub().threadpool.spawn(fn, *args).get()


def _start_runloom() -> tuple[int, Block]:
    """Its own connections, which are faster than its patched sockets."""
    import runloom

    def serve(conn: Any) -> None:
        while data := conn.recv(SIZE):
            conn.send_all(data)
        conn.close()

    over: list[bool] = []

    def accept(listener: Any) -> None:
        while True:
            conn = listener.accept()
            if over:
                return
            conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, struct.pack("i", 1))
            runloom.fiber(partial(serve, conn))

    listener = runloom.TCPConn.listen("127.0.0.1", 0, 8192)
    with socket.socket(fileno=listener.fileno()) as s:
        port = s.getsockname()[1]
        s.detach()
    runloom.fiber(accept, listener)
    return port, _runloom_block(port, over)


def _start_runloom_socket() -> tuple[int, Block]:
    """Python's own sockets, patched."""
    import runloom

    import_module("runloom.monkey").patch(subprocess=False)

    def serve(conn: socket.socket) -> None:
        while data := conn.recv(SIZE):
            conn.sendall(data)
        conn.close()

    over: list[bool] = []

    def accept(listener: socket.socket) -> None:
        while True:
            conn, _ = listener.accept()
            if over:
                return
            conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            runloom.fiber(partial(serve, conn))

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(8192)
    port = listener.getsockname()[1]
    runloom.fiber(partial(accept, listener))
    return port, _runloom_block(port, over)


def _runloom_block(port: int, over: list[bool]) -> Block:
    import runloom

    def block(fn: Callable[..., Any], *args: Any) -> Any:
        result = runloom.blocking(fn, *args)
        if fn is _first_line or args[1] != WARM_UP:  # its run() waits for all fibers
            over.append(True)
            runloom.blocking(socket.create_connection, ("127.0.0.1", port)).close()
        return result

    return block


class _Protocol(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def _start_protocol() -> Any:
    return await asyncio.get_running_loop().create_server(_Protocol, "127.0.0.1", 0, backlog=8192)


async def _start_streams() -> Any:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(SIZE):
            writer.write(data)
            await writer.drain()
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0, backlog=8192)


_plain("gort", _start_gort)
_plain("gort-socket", _start_gort_socket)
_plain("gevent", _start_gevent)
_plain("runloom", _start_runloom)
_plain("runloom-socket", _start_runloom_socket)
_async("uvloop", _start_streams)
_async("uvloop-protocol", _start_protocol)
_async("asyncio", _start_streams)
_async("asyncio-protocol", _start_protocol)
