"""websockets.sync: clients and their server in one process, echo, broadcast, timeouts, lost connections.

Set the server's `backlog=`: of more clients at once than that, some wait a second and try again. Each connection has
a thread of its own that receives, and one more for its keep-alive pings unless `ping_interval=None`; unpatched they
are OS threads, patched they are goroutines. One goroutine may send while another receives.
"""

from __future__ import annotations

import recipe

recipe.patch_if_asked()

import contextlib
import logging
import socket
from collections.abc import Iterator

from websockets.exceptions import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import Server, ServerConnection, serve

import gort
from gort.sync import Mutex, WaitGroup

logging.getLogger("websockets.server").setLevel(logging.CRITICAL)  # it reports each lost connection
MESSAGES = 10


class Service:
    def __init__(self) -> None:
        self.members: list[ServerConnection] = []
        self.mutex = Mutex()
        self.joined = WaitGroup()

    def handle(self, connection: ServerConnection) -> None:
        path = connection.request.path
        if path == "/echo":
            for message in connection:
                connection.send(message)
        elif path == "/news":
            with self.mutex:
                self.members.append(connection)
            self.joined.done()
            connection.recv()
        elif path == "/silent":
            connection.recv()
        elif path == "/broken":
            connection.recv()
            connection.socket.shutdown(socket.SHUT_RDWR)  # without the closing handshake

    def news(self) -> None:
        for n in range(MESSAGES):
            for connection in self.members:
                connection.send(f"news {n}")


@contextlib.contextmanager
def serving(service: Service, port: int = 0) -> Iterator[Server]:
    with serve(service.handle, "127.0.0.1", port, compression=None, ping_interval=None, backlog=1024) as server:
        running = gort.go(server.serve_forever)
        try:
            yield server
        finally:
            server.shutdown()
            running.join()


def client(server: Server, path: str) -> ClientConnection:
    url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}{path}"
    return connect(url, compression=None, ping_interval=None, open_timeout=60, close_timeout=60)


def echo(server: Server) -> None:
    """One goroutine sends, another receives, on the same connection."""

    def work(i: int) -> None:
        messages = [f"{i} {k} é" if k % 2 else b"%d %d" % (i, k) * 100 for k in range(MESSAGES)]
        with client(server, "/echo") as ws:

            def sender() -> None:
                for message in messages:
                    ws.send(message)
                ws.send(["in ", "three ", "fragments"])

            sending = gort.go(sender)
            assert [ws.recv(timeout=60) for _ in messages] == messages
            assert "".join(ws.recv_streaming()) == "in three fragments"
            sending.join()

    recipe.each(work)


def broadcast(server: Server, service: Service) -> None:
    service.joined.add(recipe.GOROUTINES)

    def work(i: int) -> None:
        with client(server, "/news") as ws:
            assert [ws.recv(timeout=60) for _ in range(MESSAGES)] == [f"news {n}" for n in range(MESSAGES)]

    def reporter() -> None:
        service.joined.wait()
        service.news()

    reporting = gort.go(reporter)
    recipe.each(work)
    reporting.join()


def timeouts(server: Server) -> None:
    def work(i: int) -> None:
        with client(server, "/silent") as ws, recipe.raises(TimeoutError):
            ws.recv(timeout=0.2)

    recipe.each(work)


def broken(server: Server) -> None:
    """The connection breaks while the client waits."""

    def work(i: int) -> None:
        with client(server, "/broken") as ws:
            ws.send("break")
            with recipe.raises(ConnectionClosedError):
                ws.recv()
        with client(server, "/echo") as ws:
            ws.send("again")
            assert ws.recv(timeout=60) == "again"

    recipe.each(work)


def shut_down() -> None:
    """The server shuts down while all wait: the clients are told so, and connect to the next one."""
    connected = WaitGroup()
    connected.add(recipe.GOROUTINES)
    back = gort.Chan[Server](recipe.GOROUTINES)

    def work(i: int) -> str:
        with client(first, "/silent") as ws:
            connected.done()
            with recipe.raises(ConnectionClosedOK):
                ws.recv()
            assert ws.close_code == 1001  # going away
        with recipe.raises(ConnectionClosed):
            ws.send("too late")
        with client(back.recv(timeout=60), "/echo") as ws:
            ws.send(f"hello {i}")
            return ws.recv(timeout=60)

    with contextlib.ExitStack() as first_one, contextlib.ExitStack() as second_one:
        first = first_one.enter_context(serving(Service()))

        def restart() -> None:
            connected.wait()
            first_one.close()
            second = second_one.enter_context(serving(Service()))
            for _ in range(recipe.GOROUTINES):
                back.send(second)

        restarting = gort.go(restart)
        assert recipe.each(work) == [f"hello {i}" for i in range(recipe.GOROUTINES)]
        restarting.join()


def main() -> None:
    service = Service()
    with serving(service) as server:
        with recipe.step("echo, 200 connections"):
            echo(server)
        with recipe.step("broadcast"):
            broadcast(server, service)
        with recipe.step("timeouts"):
            timeouts(server)
        with recipe.step("broken connections"):
            broken(server)
    with recipe.step("shutdown and reconnect"):
        shut_down()


recipe.run(main, "websockets")
