"""The applications of workloads/http.py, for every server the same."""

from collections.abc import Callable, Iterable
from typing import Any

BODY = b"Hello, World!"


def hello(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
    return [BODY]


def flask() -> Any:
    from flask import Flask

    app = Flask(__name__)

    @app.route("/")
    def index() -> str:
        return BODY.decode()

    return app
