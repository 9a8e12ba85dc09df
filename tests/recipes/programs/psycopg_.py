"""psycopg 3 with PostgreSQL: its pool, transactions, COPY, LISTEN and NOTIFY, timeouts, and a server that dies.

Its C extension waits in C, without the GIL: unpatched that costs an OS thread for each goroutine that waits.
Patched, set `PSYCOPG_WAIT_FUNC=wait_poll` before psycopg is imported: it then waits in Python, by `select.poll`,
which parks the goroutine. All else stays in C. (By itself psycopg does so only if it recognises gevent.)
"""

from __future__ import annotations

import recipe

recipe.patch_if_asked()

import os

if recipe.patched():
    os.environ["PSYCOPG_WAIT_FUNC"] = "wait_poll"

import logging

import psycopg
import servers
from psycopg_pool import ConnectionPool

import gort
from gort.sync import WaitGroup

logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)  # it reports each attempt to reach the dead server
ROWS = 10
COUNTERS = 20


def conninfo(server: servers.Server) -> str:
    return f"host=127.0.0.1 port={server.port} user=postgres dbname=postgres sslmode=disable gssencmode=disable"


def inserts(pool: ConnectionPool) -> None:
    """A block that raises is rolled back; so is an inner transaction, alone."""

    class Undo(Exception):
        pass

    def work(i: int) -> None:
        with pool.connection() as db:
            db.cursor().executemany("insert into item values (%s, 0, %s)", [(i, f"{n} é") for n in range(ROWS)])
            with recipe.raises(Undo), db.transaction():
                db.execute("insert into item values (%s, 1, 'inner')", (i,))
                raise Undo
        with recipe.raises(Undo), pool.connection() as db:
            db.execute("insert into item values (%s, 2, 'outer')", (i,))
            raise Undo
        with pool.connection() as db:
            assert db.execute("select k, count(*) from item where i = %s group by k", (i,)).fetchall() == [(0, ROWS)]

    recipe.each(work)
    with pool.connection() as db:
        row = db.execute("select count(*), count(distinct i), sum(i), min(text), max(text) from item").fetchone()
        n = recipe.GOROUTINES
        assert row == (n * ROWS, n, n * (n - 1) // 2 * ROWS, "0 é", f"{ROWS - 1} é")


def serializable(pool: ConnectionPool) -> None:
    """Read, then write what was read plus 1, at isolation level SERIALIZABLE: again if PostgreSQL says so."""

    def work(i: int) -> int:
        conflicts = 0
        while True:
            try:
                with pool.connection() as db:
                    db.execute("set transaction isolation level serializable")
                    (n,) = db.execute("select n from counter where id = %s", (i % COUNTERS,)).fetchone()
                    db.execute("update counter set n = %s where id = %s", (n + 1, i % COUNTERS))
                return conflicts
            except psycopg.errors.SerializationFailure:
                conflicts += 1

    recipe.each(work)
    with pool.connection() as db:
        rows = db.execute("select n from counter").fetchall()
    assert rows == [(recipe.GOROUTINES // COUNTERS,)] * COUNTERS


def copies(pool: ConnectionPool) -> None:
    def work(i: int) -> None:
        with pool.connection() as db, db.cursor() as cursor:
            cursor.execute("create temporary table copied (n int, text text) on commit drop")
            with cursor.copy("copy copied from stdin") as copy:
                for n in range(50):
                    copy.write_row((i + n, f"row {n}"))
            with cursor.copy("copy (select * from copied order by n) to stdout") as copy:
                assert list(copy.rows()) == [(str(i + n), f"row {n}") for n in range(50)]
            assert cursor.execute("select sum(n) from copied").fetchone() == (50 * i + 1225,)

    recipe.each(work)


def notifications(server: servers.Server) -> None:
    """200 connections listen; each gets all notifications, in their order."""
    listening = WaitGroup()
    listening.add(recipe.GOROUTINES)

    def listener(i: int) -> list[str]:
        with psycopg.connect(conninfo(server), autocommit=True) as db:
            db.execute("listen news")
            listening.done()
            return [notify.payload for notify in db.notifies(timeout=60, stop_after=10)]

    def notifier() -> None:
        listening.wait()
        with psycopg.connect(conninfo(server), autocommit=True) as db:
            for n in range(10):
                db.execute("select pg_notify('news', %s)", (str(n),))

    notifying = gort.go(notifier)
    for received in recipe.each(listener):
        # A backend may hold back what came while it was busy; stop_after counts what came, in whole batches.
        assert received[:10] == [str(n) for n in range(10)]
    notifying.join()


def timeouts(server: servers.Server) -> None:
    """Ended by the server, by another goroutine, and for want of a connection."""

    def work(i: int) -> None:
        with psycopg.connect(conninfo(server), options="-c statement_timeout=300") as db:
            with recipe.raises(psycopg.errors.QueryCanceled):
                db.execute("select pg_sleep(60)")
            db.rollback()
            db.execute("set statement_timeout = 0")
            if i % 20 == 0:
                canceled = gort.Chan[None]()

                def cancel() -> None:
                    """Until it is: the statement may not have begun yet."""
                    while not canceled.closed:
                        db.cancel_safe()
                        gort.sleep(0.1)

                canceling = gort.go(cancel)
                with recipe.raises(psycopg.errors.QueryCanceled):
                    db.execute("select pg_sleep(60)")
                canceled.close()
                canceling.join()

    recipe.each(work)
    with ConnectionPool(conninfo(server), min_size=1, max_size=1, timeout=0.2) as pool, pool.connection():
        with recipe.raises(psycopg.OperationalError):
            pool.getconn()


def killed(server: servers.Server) -> None:
    """The server is killed while 100 wait for an answer, and 100 for a connection; the pool recovers by itself."""
    n = recipe.GOROUTINES
    check = ConnectionPool.check_connection
    with ConnectionPool(conninfo(server), min_size=n // 2, max_size=n // 2, timeout=60, check=check) as pool:
        pool.wait()
        waiting = WaitGroup()
        waiting.add(n // 2)

        def work(i: int) -> int:
            if i < n // 2:
                with recipe.raises(psycopg.OperationalError), pool.connection() as db:
                    waiting.done()
                    db.execute("select pg_sleep(60)")
            with pool.connection() as db:
                return db.execute("select count(*) from item where i = %s", (i,)).fetchone()[0]

        def killer() -> None:
            waiting.wait()
            server.kill()
            with recipe.raises(psycopg.OperationalError):
                psycopg.connect(conninfo(server))
            server.restart()

        killing = gort.go(killer)
        assert recipe.each(work) == [ROWS] * n
        killing.join()


def main() -> None:
    with servers.start("postgres") as server:
        with psycopg.connect(conninfo(server)) as db:
            db.execute("create table item (i int, k int, text text)")
            db.execute("create index on item (i)")
            db.execute("create table counter (id int primary key, n int)")
            db.execute("insert into counter select id, 0 from generate_series(0, %s) as id", (COUNTERS - 1,))
        with ConnectionPool(conninfo(server), min_size=20, max_size=20, timeout=60) as pool:
            pool.wait()
            with recipe.step("a pool of 20 connections"):
                inserts(pool)
            with recipe.step("serializable transactions"):
                serializable(pool)
            with recipe.step("COPY"):
                copies(pool)
        with recipe.step("LISTEN and NOTIFY"):
            notifications(server)
        with recipe.step("timeouts"):
            timeouts(server)
        with recipe.step("server killed"):
            killed(server)


recipe.run(main, "psycopg", "psycopg-binary", "psycopg-pool")
