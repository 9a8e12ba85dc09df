"""requests: one Session for everybody, streams both ways, TLS, timeouts, redirects, and a server that dies.

Give the Session an adapter with a pool as large as there are requests at once, or with pool_block=True, which makes
requests wait for a free connection. By default the pool keeps 10 connections, and the others are closed after use. With
TLS, let the adapter's connections share an SSLContext: by default each new one loads all certificates, which takes
20 ms of computing.
"""

from __future__ import annotations

import recipe

recipe.patch_if_asked()

import ssl
from collections.abc import Iterator
from typing import Any

import requests
import servers
from http_server import chunk
from requests.adapters import HTTPAdapter

import gort
from gort.sync import WaitGroup


class Adapter(HTTPAdapter):
    """Its connections share `context`, which says whom to trust."""

    def __init__(self, context: ssl.SSLContext, **options: Any) -> None:
        self.context = context
        super().__init__(**options)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self.context, **options)

    def cert_verify(self, *args: Any) -> None:
        pass  # it would have each connection load requests' certificates


def session(connections: int = 50, cafile: str | None = None) -> requests.Session:
    s = requests.Session()
    s.trust_env = False  # no proxies, no .netrc
    adapter = Adapter(
        ssl.create_default_context(cafile=cafile), pool_connections=1, pool_maxsize=connections, pool_block=True
    )
    s.mount("http://", adapter)
    s.mount("https://", adapter)
    return s


def small(s: requests.Session, url: str) -> None:
    def work(i: int) -> None:
        for k in range(3):
            response = s.get(f"{url}/text/{i}-{k}")
            response.raise_for_status()
            assert response.text == f"{i}-{k}"
        assert s.get(f"{url}/redirect/{i}").text == str(i)

    recipe.each(work)
    assert int(s.get(f"{url}/count").text) <= 50  # they were kept and used again


def streams(s: requests.Session, url: str) -> None:
    def work(i: int) -> None:
        with s.get(f"{url}/stream/10", stream=True) as response:
            body = response.raw.read(decode_content=True) if i % 2 else b"".join(response.iter_content(1000))
        assert body == b"".join(map(chunk, range(10)))

        def pieces() -> Iterator[bytes]:
            for k in range(3):
                yield chunk(i + k)
                gort.gosched()

        assert s.post(f"{url}/echo", data=pieces()).content == chunk(i) + chunk(i + 1) + chunk(i + 2)

    recipe.each(work)


def timeouts(url: str) -> None:
    with session(recipe.GOROUTINES) as s:

        def work(i: int) -> None:
            if i % 2:
                with recipe.raises(requests.Timeout):
                    s.get(f"{url}/slow/3", timeout=0.2)
            else:
                assert s.get(f"{url}/slow/0.2", timeout=30).text == "done"

        recipe.each(work)


def killed(server: servers.Server, url: str) -> None:
    """The server is killed while half read a stream and half wait for an answer."""
    with session(recipe.GOROUTINES) as s:
        waiting = WaitGroup()
        waiting.add(recipe.GOROUTINES)
        gone = gort.Chan[None]()

        def work(i: int) -> None:
            if i % 2:
                response = s.get(f"{url}/stream/1000000", stream=True)
                pieces = response.iter_content(8192)
                assert next(pieces) == chunk(0)
                waiting.done()
                gone.recv_ok()
                with recipe.raises(requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
                    for _ in pieces:
                        pass  # what the kernel still had
            else:
                waiting.done()
                with recipe.raises(requests.ConnectionError):
                    s.get(f"{url}/slow/60")

        def killer() -> None:
            waiting.wait()
            server.kill()
            gone.close()

        killing = gort.go(killer)
        recipe.each(work)
        killing.join()
        with recipe.raises(requests.ConnectionError):
            s.get(f"{url}/text/gone")
        server.restart()
        assert recipe.each(lambda i: s.get(f"{url}/text/{i}").text) == [str(i) for i in range(recipe.GOROUTINES)]


def main() -> None:
    with servers.start("http") as server:
        url = f"http://127.0.0.1:{server.port}"
        with session() as s:
            with recipe.step("a Session of 50 connections"):
                small(s, url)
            with recipe.step("streams"):
                streams(s, url)
            with recipe.raises(requests.exceptions.ChunkedEncodingError):
                s.get(f"{url}/cut/100")
        with recipe.step("timeouts"):
            timeouts(url)
        with recipe.step("server killed"):
            killed(server, url)
    with servers.start("https") as server, session(cafile=str(server.data / "cert.pem")) as s:
        with recipe.step("TLS"):
            small(s, f"https://127.0.0.1:{server.port}")
        with session() as stranger, recipe.raises(requests.exceptions.SSLError):
            stranger.get(f"https://127.0.0.1:{server.port}/text/a")  # signed by nobody it knows


recipe.run(main, "requests", "urllib3")
