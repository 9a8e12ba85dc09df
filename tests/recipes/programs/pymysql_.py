"""PyMySQL with MariaDB: a connection for each goroutine, transactions, streamed results, a server that dies.

Set `ssl_disabled=True`, or `ssl=` to an SSLContext that all share. By default PyMySQL makes one for each connection,
in case the server has TLS, and to load the system's certificates into it takes some 20 ms of computing. A connection
is for one goroutine at a time, as for threads; SQLAlchemy has a pool, or take a gort.Chan of connections
(pg8000_.py). `read_timeout=` and `connect_timeout=` end a wait; the connection is of no use after that.
"""

from __future__ import annotations

import recipe

recipe.patch_if_asked()

import pymysql
import servers
from pymysql.cursors import SSCursor

import gort
from gort.sync import WaitGroup

ROWS = 10
ACCOUNTS = 20


def connect(server: servers.Server, **options: object) -> pymysql.Connection:
    options = {"user": "root", "database": "recipe", "ssl_disabled": True} | options
    return pymysql.connect(host="127.0.0.1", port=server.port, **options)


def inserts(server: servers.Server) -> None:
    """Every third transaction is rolled back; the others are there, complete."""

    def work(i: int) -> None:
        with connect(server) as db, db.cursor() as cursor:
            for k in range(3):
                db.begin()
                cursor.executemany("insert into item values (%s, %s, %s)", [(i, k, f"{n} é") for n in range(ROWS)])
                if k == 2:
                    db.rollback()
                else:
                    db.commit()
            cursor.execute("select k, count(*) from item where i = %s group by k order by k", (i,))
            assert cursor.fetchall() == ((0, ROWS), (1, ROWS))

    recipe.each(work)
    with connect(server) as db, db.cursor() as cursor:
        cursor.execute("select count(*), count(distinct i), sum(i), min(text), max(text) from item")
        n = recipe.GOROUTINES
        assert cursor.fetchone() == (n * 2 * ROWS, n, n * (n - 1) // 2 * 2 * ROWS, "0 é", f"{ROWS - 1} é")


def transfers(server: servers.Server) -> None:
    """Rows locked with FOR UPDATE, in one order, by half of them; the others see the same sum in every snapshot."""

    def work(i: int) -> None:
        with connect(server) as db, db.cursor() as cursor:
            for k in range(3):
                db.begin()
                if i % 2:
                    a, b = sorted((i % ACCOUNTS, (i * 7 + k + 1) % ACCOUNTS))
                    rows = "select id, amount from account where id in (%s, %s) order by id for update"
                    cursor.execute(rows, (a, b))
                    amounts = dict(cursor.fetchall())
                    gort.gosched()
                    amounts[a] -= 1
                    amounts[b] += 1
                    for account, amount in amounts.items():
                        cursor.execute("update account set amount = %s where id = %s", (amount, account))
                else:
                    cursor.execute("select sum(amount) from account where id < %s", (ACCOUNTS // 2,))
                    (low,) = cursor.fetchone()
                    gort.gosched()
                    cursor.execute("select sum(amount) from account where id >= %s", (ACCOUNTS // 2,))
                    assert low + cursor.fetchone()[0] == 100 * ACCOUNTS
                db.commit()

    recipe.each(work)
    expected = [100] * ACCOUNTS
    for i in range(1, recipe.GOROUTINES, 2):
        for k in range(3):
            a, b = sorted((i % ACCOUNTS, (i * 7 + k + 1) % ACCOUNTS))
            expected[a] -= 1
            expected[b] += 1
    with connect(server) as db, db.cursor() as cursor:
        cursor.execute("select amount from account order by id")
        assert [amount for (amount,) in cursor.fetchall()] == expected


def streamed(server: servers.Server) -> None:
    """SSCursor: rows as they come, without holding them all."""

    def work(i: int) -> None:
        with connect(server, cursorclass=SSCursor) as db, db.cursor() as cursor:
            cursor.execute("select seq, repeat('x', seq %% 100) from seq_%s_to_%s", (i, i + 199))
            for n, (seq, text) in enumerate(cursor):
                assert (seq, len(text)) == (i + n, (i + n) % 100)
            assert n == 199

    recipe.each(work)


def timeouts(server: servers.Server) -> None:
    def work(i: int) -> None:
        with recipe.raises(pymysql.OperationalError):
            db = connect(server, read_timeout=0.3)
            with db.cursor() as cursor:
                cursor.execute("select sleep(2)")

    recipe.each(work)


def killed(server: servers.Server) -> None:
    """The server is killed while 200 wait for an answer: error 2013 for each; connect() connects them anew."""
    waiting = WaitGroup()
    waiting.add(recipe.GOROUTINES)
    back = gort.Chan[None]()

    def work(i: int) -> int:
        db = connect(server)
        with db.cursor() as cursor:
            waiting.done()
            try:
                cursor.execute("select sleep(60)")
            except pymysql.OperationalError as e:
                assert e.args[0] == pymysql.constants.CR.CR_SERVER_LOST, e
            else:
                raise AssertionError("an answer of a dead server")
        back.recv_ok()
        db.connect()
        with db.cursor() as cursor:
            cursor.execute("select count(*) from item where i = %s", (i,))
            (count,) = cursor.fetchone()
        db.close()
        return count

    def killer() -> None:
        waiting.wait()
        server.kill()
        with recipe.raises(pymysql.OperationalError):
            connect(server)
        server.restart()
        back.close()

    killing = gort.go(killer)
    assert recipe.each(work) == [2 * ROWS] * recipe.GOROUTINES  # what was committed is there
    killing.join()


def main() -> None:
    with servers.start("mariadb") as server:
        with connect(server, database=None) as db, db.cursor() as cursor:
            cursor.execute("create database recipe character set utf8mb4")
            cursor.execute("use recipe")
            cursor.execute("create table item (i int, k int, text varchar(100), index (i))")
            cursor.execute("create table account (id int primary key, amount int)")
            cursor.executemany("insert into account values (%s, 100)", [(n,) for n in range(ACCOUNTS)])
            db.commit()
        with recipe.step("inserts, a connection each"):
            inserts(server)
        with recipe.step("FOR UPDATE beside snapshots"):
            transfers(server)
        with recipe.step("streamed results"):
            streamed(server)
        with recipe.step("timeouts"):
            timeouts(server)
        with recipe.step("server killed"):
            killed(server)


recipe.run(main, "PyMySQL")
