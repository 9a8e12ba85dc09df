"""grpcio: calls over one channel to a server in the same process, streams, deadlines, cancellation, shutdown.

Give grpc.server() a gort.futures.Executor: each call is then served by a goroutine, with as many workers as there
are calls. (A ThreadPoolExecutor works too; a stream has one of its threads for as long as it lasts.) grpcio's
sockets and timers are those of its C core, with threads of its own. A call that waits (`stub(request)`) does so in
C, without the GIL: its goroutine has an OS thread meanwhile, patched or not. Its mode for gevent is of no use to
gort.
"""

from __future__ import annotations

import recipe

recipe.patch_if_asked()

import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures

import grpc

import gort
import gort.futures
from gort.sync import WaitGroup

NAME = "gort.Recipe"


class Service:
    """Bytes in, bytes out: no protobuf here."""

    def __init__(self) -> None:
        self.waiting = WaitGroup()
        self.cancelled = WaitGroup()

    def double(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        metadata = dict(context.invocation_metadata())
        return request * 2 + metadata["who"].encode()

    def count(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        for n in range(int(request)):
            yield b"%d" % n

    def collect(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        return b" ".join(requests)

    def chat(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for request in requests:
            yield b"re: " + request

    def hang(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        ended = gort.Chan[None]()
        assert context.add_callback(ended.close)  # called from one of grpcio's threads
        self.waiting.done()
        ended.recv_ok()
        self.cancelled.done()
        return b""

    def late(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        ended = gort.Chan[None]()
        if context.add_callback(ended.close):
            ended.recv_ok()
        return b""

    def fail(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"not so, {request.decode()}")
        raise AssertionError("abort() raises")

    def handlers(self) -> grpc.GenericRpcHandler:
        methods = {
            "double": grpc.unary_unary_rpc_method_handler(self.double),
            "count": grpc.unary_stream_rpc_method_handler(self.count),
            "collect": grpc.stream_unary_rpc_method_handler(self.collect),
            "chat": grpc.stream_stream_rpc_method_handler(self.chat),
            "hang": grpc.unary_unary_rpc_method_handler(self.hang),
            "late": grpc.unary_unary_rpc_method_handler(self.late),
            "fail": grpc.unary_unary_rpc_method_handler(self.fail),
        }
        return grpc.method_handlers_generic_handler(NAME, methods)


def serve(service: Service, pool: futures.Executor, port: int = 0) -> tuple[grpc.Server, int]:
    server = grpc.server(pool, handlers=[service.handlers()], options=[("grpc.so_reuseport", 0)])
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server, port


class Client:
    def __init__(self, channel: grpc.Channel) -> None:
        self.double = channel.unary_unary(f"/{NAME}/double")
        self.count = channel.unary_stream(f"/{NAME}/count")
        self.collect = channel.stream_unary(f"/{NAME}/collect")
        self.chat = channel.stream_stream(f"/{NAME}/chat")
        self.hang = channel.unary_unary(f"/{NAME}/hang")
        self.late = channel.unary_unary(f"/{NAME}/late")
        self.fail = channel.unary_unary(f"/{NAME}/fail")


def calls(client: Client) -> None:
    def work(i: int) -> None:
        for k in range(5):
            assert client.double(b"%d-%d " % (i, k), metadata=[("who", f"client {i}")], timeout=60) == (
                b"%d-%d %d-%d client %d" % (i, k, i, k, i)
            )
        try:
            client.fail(b"client %d" % i, timeout=60)
        except grpc.RpcError as e:
            assert (e.code(), e.details()) == (grpc.StatusCode.FAILED_PRECONDITION, f"not so, client {i}")
        else:
            raise AssertionError("no error")

    recipe.each(work)


def streams(client: Client) -> None:
    def work(i: int) -> None:
        assert list(client.count(b"10", timeout=60)) == [b"%d" % n for n in range(10)]
        assert client.collect((b"%d" % (i + n) for n in range(10)), timeout=60) == (
            b" ".join(b"%d" % (i + n) for n in range(10))
        )
        questions = gort.Chan[bytes]()
        answers = client.chat(iter(questions), timeout=60)  # grpcio reads them in a thread of its own
        for n in range(3):
            questions.send(b"%d %d" % (i, n))
            assert next(answers) == b"re: %d %d" % (i, n)
        questions.close()
        assert list(answers) == []

    recipe.each(work)


def deadlines(client: Client, service: Service) -> None:
    """Half wait for longer than they want to; half are cancelled by another goroutine, and the server gets to know."""
    for group in (service.waiting, service.cancelled):
        group.add(recipe.GOROUTINES // 2)

    def work(i: int) -> None:
        if i % 2:
            expected = grpc.StatusCode.DEADLINE_EXCEEDED
            call = client.late.future(b"", timeout=0.3)
        else:
            expected = grpc.StatusCode.CANCELLED
            call = client.hang.future(b"", timeout=60)
            service.waiting.wait()
            gort.go(call.cancel)
        with recipe.raises(grpc.RpcError, grpc.FutureCancelledError):
            call.result()
        assert call.code() == expected, call.code()

    recipe.each(work)
    service.cancelled.wait(timeout=60)


def child_processes(client: Client) -> None:
    """Children are started while calls are in progress: the fork handlers of grpcio and of gort."""

    def work(i: int) -> None:
        if i % 20 == 0:
            command = [sys.executable, "-c", f"print({i})"]
            assert subprocess.run(command, capture_output=True, check=True).stdout == b"%d\n" % i
        else:
            for _ in range(3):
                assert client.double(b"x", metadata=[("who", "y")], timeout=60) == b"xxy"

    recipe.each(work)


def stopped(service: Service, pool: futures.Executor) -> None:
    """The server stops while all wait, at once: UNAVAILABLE or CANCELLED; the same channel finds the next one."""
    server, port = serve(service, pool)
    for group in (service.waiting, service.cancelled):
        group.add(recipe.GOROUTINES)
    back = gort.Chan[None]()
    options = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 200)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        client = Client(channel)

        def work(i: int) -> bytes:
            try:
                client.hang(b"", timeout=60)
            except grpc.RpcError as e:
                assert e.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED), e
            else:
                raise AssertionError("an answer of a stopped server")
            back.recv_ok()
            return client.double(b"%d " % i, metadata=[("who", "again")], timeout=60, wait_for_ready=True)

        def restart() -> None:
            service.waiting.wait()
            server.stop(None).wait()
            next_servers.append(serve(service, pool, port)[0])
            back.close()

        next_servers: list[grpc.Server] = []
        restarting = gort.go(restart)
        assert recipe.each(work) == [b"%d %d again" % (i, i) for i in range(recipe.GOROUTINES)]
        restarting.join()
        next_servers[0].stop(None).wait()
    service.cancelled.wait(timeout=60)


def main() -> None:
    service = Service()
    with gort.futures.Executor() as pool:
        server, port = serve(service, pool)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            client = Client(channel)
            with recipe.step("calls over one channel"):
                calls(client)
            with recipe.step("streams"):
                streams(client)
            with recipe.step("deadlines, cancellation"):
                deadlines(client, service)
            with recipe.step("child processes meanwhile"):
                child_processes(client)
        server.stop(None).wait()
        with recipe.step("server stopped"):
            stopped(service, pool)
    with futures.ThreadPoolExecutor(max_workers=16) as threads:
        server, port = serve(service, threads)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, recipe.step("a server of 16 threads"):
            calls(Client(channel))
        server.stop(None).wait()


recipe.run(main, "grpcio")
