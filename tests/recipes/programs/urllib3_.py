"""urllib3: one PoolManager for everybody, with a pool that makes requests wait for a free connection.

`maxsize` is how many connections to a host are kept, `block=True` makes it their limit too. With TLS, pass an
`ssl_context=`: by default each new connection loads all certificates, which takes 20 ms of computing.
"""

from __future__ import annotations

import recipe

recipe.patch_if_asked()

import ssl

import servers
import urllib3
from http_server import CHUNK, chunk

import gort
from gort.sync import WaitGroup


def pool(connections: int = 50, **options: object) -> urllib3.PoolManager:
    retries = urllib3.Retry(connect=0, read=0, redirect=1)
    return urllib3.PoolManager(maxsize=connections, block=True, retries=retries, **options)


def small(http: urllib3.PoolManager, url: str) -> None:
    def work(i: int) -> None:
        for k in range(5):
            response = http.request("GET", f"{url}/text/{i}-{k}")
            assert (response.status, response.data.decode()) == (200, f"{i}-{k}")
        assert http.request("GET", f"{url}/redirect/{i}").data == str(i).encode()

    recipe.each(work)
    assert int(http.request("GET", f"{url}/count").data) <= 50  # they were kept and used again


def streams(http: urllib3.PoolManager, url: str) -> None:
    def work(i: int) -> None:
        response = http.request("GET", f"{url}/stream/20", preload_content=False)
        for k in range(20):
            assert response.read(CHUNK) == chunk(k)
        assert response.read() == b""
        response.release_conn()
        body = chunk(i) * 4
        assert http.request("POST", f"{url}/echo", body=body).data == body

    recipe.each(work)


def timeouts(url: str) -> None:
    with pool(recipe.GOROUTINES) as http:

        def work(i: int) -> None:
            with recipe.raises(urllib3.exceptions.TimeoutError, urllib3.exceptions.MaxRetryError):
                http.request("GET", f"{url}/slow/3", timeout=urllib3.Timeout(connect=30, read=0.2))

        recipe.each(work)


def killed(server: servers.Server, url: str) -> None:
    with pool(recipe.GOROUTINES) as http:
        waiting = WaitGroup()
        waiting.add(recipe.GOROUTINES)
        gone = gort.Chan[None]()

        def work(i: int) -> None:
            response = http.request("GET", f"{url}/stream/1000000", preload_content=False)
            assert response.read(CHUNK) == chunk(0)
            waiting.done()
            gone.recv_ok()
            with recipe.raises(urllib3.exceptions.ProtocolError):
                while response.read(CHUNK):
                    pass  # what the kernel still had

        def killer() -> None:
            waiting.wait()
            server.kill()
            gone.close()

        killing = gort.go(killer)
        recipe.each(work)
        killing.join()
        with recipe.raises(urllib3.exceptions.MaxRetryError):
            http.request("GET", f"{url}/text/gone")
        server.restart()
        texts = recipe.each(lambda i: http.request("GET", f"{url}/text/{i}").data)
        assert texts == [b"%d" % i for i in range(recipe.GOROUTINES)]


def main() -> None:
    with servers.start("http") as server:
        url = f"http://127.0.0.1:{server.port}"
        with pool() as http:
            with recipe.step("a pool of 50 connections"):
                small(http, url)
            with recipe.step("streams"):
                streams(http, url)
        with recipe.step("timeouts"):
            timeouts(url)
        with recipe.step("server killed"):
            killed(server, url)
    with servers.start("https") as server:
        context = ssl.create_default_context(cafile=str(server.data / "cert.pem"))
        with pool(ssl_context=context) as http, recipe.step("TLS"):
            small(http, f"https://127.0.0.1:{server.port}")
            streams(http, f"https://127.0.0.1:{server.port}")
        with pool() as stranger, recipe.raises(urllib3.exceptions.SSLError, urllib3.exceptions.MaxRetryError):
            stranger.request("GET", f"https://127.0.0.1:{server.port}/text/a")  # signed by nobody it knows


recipe.run(main, "urllib3")
