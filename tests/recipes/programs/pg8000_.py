"""pg8000 with PostgreSQL, all in Python: a pool that is a channel, transactions, COPY, a server that dies.

Set `ssl_context=False`, or an SSLContext that all share: by default each connection makes one, with the system's
certificates, which takes some 20 ms of computing. A connection is for one goroutine at a time; a channel that holds
them is all of a pool: who wants one receives it and sends it back. `timeout=` of connect() is the socket's: a wait
longer than that ends in an error.
"""

from __future__ import annotations

import recipe

recipe.patch_if_asked()

import contextlib
import io
from collections.abc import Iterator

import pg8000
import pg8000.native
import servers

import gort
from gort.sync import WaitGroup

ROWS = 10


def connect(server: servers.Server, **options: object) -> pg8000.native.Connection:
    return pg8000.native.Connection("postgres", host="127.0.0.1", port=server.port, ssl_context=False, **options)


class Pool:
    def __init__(self, server: servers.Server, size: int) -> None:
        self.free = gort.Chan[pg8000.native.Connection](size)
        for _ in range(size):
            self.free.send(connect(server))

    @contextlib.contextmanager
    def connection(self) -> Iterator[pg8000.native.Connection]:
        db = self.free.recv(timeout=60)
        try:
            yield db
        finally:
            self.free.send(db)

    def close(self) -> None:
        for _ in range(self.free.cap):
            self.free.recv().close()


def inserts(pool: Pool) -> None:
    def work(i: int) -> None:
        with pool.connection() as db:
            for k in range(3):
                db.run("begin")
                for n in range(ROWS):
                    db.run("insert into item values (:i, :k, :text)", i=i, k=k, text=f"{n} é")
                db.run("rollback" if k == 2 else "commit")
            counts = db.run("select k, count(*) from item where i = :i group by k order by k", i=i)
            assert counts == [[0, ROWS], [1, ROWS]]

    recipe.each(work)
    with pool.connection() as db:
        n = recipe.GOROUTINES
        rows = db.run("select count(*), count(distinct i), sum(i), min(text), max(text) from item")
        assert rows == [[n * 2 * ROWS, n, n * (n - 1) * ROWS, "0 é", f"{ROWS - 1} é"]]


def errors(pool: Pool) -> None:
    """An error ends the statement, not the connection."""

    def work(i: int) -> None:
        with pool.connection() as db:
            with recipe.raises(pg8000.DatabaseError):
                db.run("select 1 / 0")
            assert db.run("select :i * 2", i=i) == [[i * 2]]

    recipe.each(work)


def copies(pool: Pool) -> None:
    def work(i: int) -> None:
        with pool.connection() as db:
            db.run("begin")
            db.run("create temporary table copied (n int, text text) on commit drop")
            rows = "".join(f"{i + n}\trow {n}\n" for n in range(100)).encode()
            db.run("copy copied from stdin", stream=io.BytesIO(rows))
            out = io.BytesIO()
            db.run("copy (select * from copied order by n) to stdout", stream=out)
            assert out.getvalue() == rows
            db.run("commit")

    recipe.each(work)


def timeouts(server: servers.Server) -> None:
    def work(i: int) -> None:
        with recipe.raises(pg8000.InterfaceError, TimeoutError):
            db = connect(server, timeout=0.3)
            try:
                db.run("select pg_sleep(60)")
            finally:
                with contextlib.suppress(pg8000.InterfaceError, OSError):
                    db.close()

    recipe.each(work)


def killed(server: servers.Server) -> None:
    """The server is killed while 200 wait for an answer: an error for each; connecting anew is up to the program."""
    waiting = WaitGroup()
    waiting.add(recipe.GOROUTINES)
    back = gort.Chan[None]()

    def work(i: int) -> int:
        db = connect(server)
        db.run("select 1")
        waiting.done()
        with recipe.raises(pg8000.InterfaceError, pg8000.DatabaseError):
            db.run("select pg_sleep(60)")
        with contextlib.suppress(pg8000.InterfaceError, OSError):
            db.close()
        back.recv_ok()
        db = connect(server)
        ((count,),) = db.run("select count(*) from item where i = :i", i=i)
        db.close()
        return count

    def killer() -> None:
        waiting.wait()
        server.kill()
        with recipe.raises(pg8000.InterfaceError):
            connect(server)
        server.restart()
        back.close()

    killing = gort.go(killer)
    assert recipe.each(work) == [2 * ROWS] * recipe.GOROUTINES
    killing.join()


def main() -> None:
    with servers.start("postgres") as server:
        db = connect(server)
        db.run("create table item (i int, k int, text text)")
        db.run("create index on item (i)")
        db.close()
        pool = Pool(server, 20)
        with recipe.step("20 connections in a channel"):
            inserts(pool)
            errors(pool)
        with recipe.step("COPY"):
            copies(pool)
        pool.close()
        with recipe.step("timeouts, a connection each"):
            timeouts(server)
        with recipe.step("server killed"):
            killed(server)


recipe.run(main, "pg8000")
