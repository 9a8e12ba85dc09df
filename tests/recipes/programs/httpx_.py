"""httpx: Clients in a channel, streams, TLS, timeouts, and a server that dies.

Share Clients out, one for each goroutine at a time: a channel holds them. The connection pool of a Client may close
a connection that it has just given to another goroutine, or thread (encode/httpcore#1110): unpatched that is rare,
patched it happens. Make one SSLContext for all Clients: by default each makes its own, which takes some 20 ms of
computing. `trust_env=False` skips the environment's proxies. A Client's timeouts are 5 s each by default.
"""

from __future__ import annotations

import recipe

recipe.patch_if_asked()

import contextlib
import ssl
from collections.abc import Iterator

import httpx
import servers
from http_server import chunk

import gort
from gort.sync import WaitGroup


class Clients:
    def __init__(self, size: int, verify: ssl.SSLContext | None = None) -> None:
        self.free = gort.Chan[httpx.Client](size)
        context = verify or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for _ in range(size):
            self.free.send(httpx.Client(verify=context, timeout=60, trust_env=False, follow_redirects=True))

    @contextlib.contextmanager
    def one(self) -> Iterator[httpx.Client]:
        client = self.free.recv()
        try:
            yield client
        finally:
            self.free.send(client)

    def get(self, url: str, **options: object) -> httpx.Response:
        with self.one() as client:
            return client.get(url, **options)

    def close(self) -> None:
        for _ in range(self.free.cap):
            self.free.recv().close()


def small(http: Clients, url: str) -> None:
    def work(i: int) -> None:
        for k in range(2):
            response = http.get(f"{url}/text/{i}-{k}")
            assert (response.status_code, response.text) == (200, f"{i}-{k}")
        assert http.get(f"{url}/redirect/{i}").text == str(i)

    recipe.each(work)
    assert int(http.get(f"{url}/count").text) <= 50  # they were kept and used again


def streams(http: Clients, url: str) -> None:
    def work(i: int) -> None:
        with http.one() as client:
            with client.stream("GET", f"{url}/stream/10") as response:
                body = b"".join(response.iter_bytes(1000) if i % 2 else response.iter_raw())
            assert body == b"".join(map(chunk, range(10)))

            def pieces() -> Iterator[bytes]:
                for k in range(3):
                    yield chunk(i + k)
                    gort.gosched()

            assert client.post(f"{url}/echo", content=pieces()).content == chunk(i) + chunk(i + 1) + chunk(i + 2)

    recipe.each(work)


def timeouts(http: Clients, url: str) -> None:
    def work(i: int) -> None:
        with recipe.raises(httpx.ReadTimeout):
            http.get(f"{url}/slow/3", timeout=httpx.Timeout(30, read=0.2))

    recipe.each(work)


def killed(server: servers.Server, http: Clients, url: str) -> None:
    waiting = WaitGroup()
    waiting.add(recipe.GOROUTINES)
    gone = gort.Chan[None]()

    def work(i: int) -> None:
        with http.one() as client, client.stream("GET", f"{url}/stream/1000000") as response:
            pieces = response.iter_raw()
            next(pieces)
            waiting.done()
            gone.recv_ok()
            with recipe.raises(httpx.RemoteProtocolError, httpx.ReadError):
                for _ in pieces:
                    pass  # what the kernel still had

    def killer() -> None:
        waiting.wait()
        server.kill()
        gone.close()

    killing = gort.go(killer)
    recipe.each(work)
    killing.join()
    with recipe.raises(httpx.ConnectError):
        http.get(f"{url}/text/gone")
    server.restart()
    assert recipe.each(lambda i: http.get(f"{url}/text/{i}").text) == [str(i) for i in range(recipe.GOROUTINES)]


def main() -> None:
    with servers.start("http") as server:
        url = f"http://127.0.0.1:{server.port}"
        http = Clients(50)
        with recipe.step("50 Clients"):
            small(http, url)
        with recipe.step("streams"):
            streams(http, url)
        with recipe.raises(httpx.RemoteProtocolError):
            http.get(f"{url}/cut/100")
        http.close()
        http = Clients(recipe.GOROUTINES)
        with recipe.step("timeouts"):
            timeouts(http, url)
        with recipe.step("server killed"):
            killed(server, http, url)
        http.close()
    with servers.start("https") as server:
        http = Clients(50, ssl.create_default_context(cafile=str(server.data / "cert.pem")))
        with recipe.step("TLS"):
            small(http, f"https://127.0.0.1:{server.port}")
        http.close()
        with recipe.raises(httpx.ConnectError):
            httpx.get(f"https://127.0.0.1:{server.port}/text/a", trust_env=False)  # signed by nobody it knows


recipe.run(main, "httpx", "httpcore")
