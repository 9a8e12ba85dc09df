"""httpx: one Client for everybody, limits that make requests wait, streams, TLS, timeouts, and a server that dies.

Set `limits` to what the server may see, and the pool timeout to None or to the time that a request may wait for a
connection: by default 100 connections, and 5 seconds of waiting for one of them. `trust_env=False` skips the proxies of the
environment; and make the SSLContext once, since loading the certificates takes tens of milliseconds.
"""

from __future__ import annotations

import recipe

recipe.patch_if_asked()

import ssl
from collections.abc import Iterator

import httpx
import servers
from http_server import chunk

import gort
from gort.sync import WaitGroup


def client(connections: int = 50, **options: object) -> httpx.Client:
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    timeout = httpx.Timeout(60, pool=None)
    return httpx.Client(limits=limits, timeout=timeout, trust_env=False, follow_redirects=True, **options)


def small(http: httpx.Client, url: str) -> None:
    def work(i: int) -> None:
        for k in range(2):
            response = http.get(f"{url}/text/{i}-{k}")
            assert (response.status_code, response.text) == (200, f"{i}-{k}")
        assert http.get(f"{url}/redirect/{i}").text == str(i)

    recipe.each(work)
    assert int(http.get(f"{url}/count").text) <= 50


def streams(http: httpx.Client, url: str) -> None:
    def work(i: int) -> None:
        with http.stream("GET", f"{url}/stream/10") as response:
            body = b"".join(response.iter_bytes(1000) if i % 2 else response.iter_raw())
        assert body == b"".join(map(chunk, range(10)))

        def pieces() -> Iterator[bytes]:
            for k in range(3):
                yield chunk(i + k)
                gort.gosched()

        assert http.post(f"{url}/echo", content=pieces()).content == chunk(i) + chunk(i + 1) + chunk(i + 2)

    recipe.each(work)


def timeouts(url: str) -> None:
    with client(recipe.GOROUTINES) as http:

        def work(i: int) -> None:
            with recipe.raises(httpx.ReadTimeout):
                http.get(f"{url}/slow/3", timeout=httpx.Timeout(30, read=0.2))

        recipe.each(work)


def killed(server: servers.Server, url: str) -> None:
    with client(recipe.GOROUTINES) as http:
        waiting = WaitGroup()
        waiting.add(recipe.GOROUTINES)
        gone = gort.Chan[None]()

        def work(i: int) -> None:
            with http.stream("GET", f"{url}/stream/1000000") as response:
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
        with client() as http:
            with recipe.step("a Client of 50 connections"):
                small(http, url)
            with recipe.step("streams"):
                streams(http, url)
            with recipe.raises(httpx.RemoteProtocolError):
                http.get(f"{url}/cut/100")
        with recipe.step("timeouts"):
            timeouts(url)
        with recipe.step("server killed"):
            killed(server, url)
    with servers.start("https") as server:
        context = ssl.create_default_context(cafile=str(server.data / "cert.pem"))
        with client(verify=context) as http, recipe.step("TLS"):
            small(http, f"https://127.0.0.1:{server.port}")


recipe.run(main, "httpx", "httpcore")
