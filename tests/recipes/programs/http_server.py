"""http_server.py PORT [DIRECTORY of cert.pem and key.pem]: the HTTP clients' server; threads, no gort.

GET  /text/WORD         WORD
POST /echo              the body, with a length or in chunks, as it came
GET  /stream/N          N chunks of CHUNK bytes, in chunked encoding: chunk k is `chunk(k)`
GET  /slow/SECONDS      "done", after so long
GET  /cut/N             claims 2 N bytes, sends N and closes
GET  /redirect/WORD     to /text/WORD
GET  /count             how many connections there were, about
"""

from __future__ import annotations

import socket
import ssl
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CHUNK = 8192


def chunk(k: int) -> bytes:
    return (b"%08d" % k) * (CHUNK // 8)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body in one packet

    def setup(self) -> None:
        if isinstance(self.request, ssl.SSLSocket):
            self.request.do_handshake()  # here, in this connection's thread
        super().setup()
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)  # little is left when it is killed
        self.counted = False

    def parse_request(self) -> bool:
        if not self.counted:
            self.counted = True
            self.server.connections += 1  # type: ignore[attr-defined]
        return super().parse_request()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        _, what, argument = f"{self.path}/".split("/", 2)
        argument = argument.rstrip("/")
        if what == "text":
            self._answer(argument.encode())
        elif what == "stream":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for k in range(int(argument)):
                self.wfile.write(b"%x\r\n%b\r\n" % (CHUNK, chunk(k)))
            self.wfile.write(b"0\r\n\r\n")
        elif what == "slow":
            time.sleep(float(argument))
            self._answer(b"done")
        elif what == "cut":
            self.send_response(200)
            self.send_header("Content-Length", str(2 * int(argument)))
            self.end_headers()
            self.wfile.write(b"x" * int(argument))
            self.close_connection = True
        elif what == "redirect":
            self._answer(b"", 302, Location=f"/text/{argument}")
        elif what == "count":
            self._answer(str(self.server.connections).encode())  # type: ignore[attr-defined]
        else:
            self._answer(b"", 404)

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            self._answer(b"".join(self._chunks()))
        else:
            self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _chunks(self) -> Iterator[bytes]:
        while True:
            size = int(self.rfile.readline(), 16)
            data = self.rfile.read(size)
            self.rfile.readline()
            if not size:
                return
            yield data


class Server(ThreadingHTTPServer):
    request_queue_size = 1024
    connections = 0

    def get_request(self) -> tuple[socket.socket, Any]:
        sock, address = super().get_request()
        if context is not None:
            sock = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return sock, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that time out and go


context: ssl.SSLContext | None = None

if __name__ == "__main__":
    if len(sys.argv) > 2:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(f"{sys.argv[2]}/cert.pem", f"{sys.argv[2]}/key.pem")
    Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
