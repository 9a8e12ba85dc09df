"""sqlite3: a connection for each goroutine, one for all of them behind a mutex, functions in Python that wait.

Always pass `check_same_thread=False`: a goroutine may go on in another OS thread after any wait, and sqlite3 would
refuse its own connection there. A connection that several goroutines use needs a mutex around each transaction, as
with threads. Statements run without the GIL; one that waits for another's lock (`timeout=`) sleeps in C, its
goroutine alone.
"""

from __future__ import annotations

import recipe

recipe.patch_if_asked()

import sqlite3
import tempfile

import gort
from gort.sync import Mutex, WaitGroup


def connect(path: str) -> sqlite3.Connection:
    """In autocommit mode: transactions are begun and ended by statements."""
    return sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)


def writers(path: str) -> None:
    """Each has a connection; BEGIN IMMEDIATE takes the database's lock. A third of the transactions is rolled back."""
    # Waits for the lock are short sleeps of growing length in SQLite, unfair to each other; the mutex is fair.
    turn = Mutex()

    def work(i: int) -> None:
        db = connect(path)
        try:
            for k in range(3):
                with turn:
                    db.execute("begin immediate")
                    (n,) = db.execute("select n from counter").fetchone()
                    gort.gosched()
                    db.execute("update counter set n = ?", (n + 1,))
                    db.execute("insert into item values (?, ?, ?)", (i, k, f"item {i} {k}" * 10))
                    db.execute("rollback" if k == 2 else "commit")
        finally:
            db.close()

    recipe.each(work)
    db = connect(path)
    assert db.execute("select n from counter").fetchone() == (recipe.GOROUTINES * 2,)
    assert db.execute("select count(*), count(distinct i), max(k) from item").fetchone() == (
        recipe.GOROUTINES * 2,
        recipe.GOROUTINES,
        1,
    )
    db.close()


def contenders(path: str) -> None:
    """Without a mutex: SQLite makes them wait for each other."""

    def work(i: int) -> None:
        db = connect(path)
        db.execute("update counter set n = n + 1")
        db.close()

    recipe.each(work)
    db = connect(path)
    assert db.execute("select n from counter").fetchone() == (recipe.GOROUTINES * 3,)
    db.close()


def readers_see_snapshots(path: str) -> None:
    """Readers in transactions of their own, while one moves amounts about: the sum is the same at any time."""
    db = connect(path)
    db.execute("create table account (id integer primary key, amount)")
    db.executemany("insert into account values (?, 100)", ((n,) for n in range(100)))
    stop = gort.Chan[None]()

    def mover() -> int:
        moves = 0
        while gort.select(stop, default=True)[0] == -1:
            db.execute("begin immediate")
            db.execute("update account set amount = amount - 1 where id = ?", (moves % 100,))
            db.execute("update account set amount = amount + 1 where id = ?", (moves * 7 % 100,))
            db.execute("commit")
            moves += 1
        return moves

    def reader(i: int) -> None:
        own = connect(path)
        for _ in range(3):
            own.execute("begin")
            low = own.execute("select sum(amount) from account where id < 50").fetchone()[0]
            gort.gosched()
            high = own.execute("select sum(amount) from account where id >= 50").fetchone()[0]
            own.execute("commit")
            assert low + high == 100 * 100
        own.close()

    moving = gort.go(mover)
    recipe.each(reader)
    stop.close()
    assert moving.join() > 0
    db.close()


def one_connection(path: str) -> None:
    db, mutex = connect(path), Mutex()
    db.execute("create table log (i, k)")

    def work(i: int) -> None:
        for k in range(10):
            with mutex:
                db.execute("begin")
                db.execute("insert into log values (?, ?)", (i, k))
                db.execute("commit")

    recipe.each(work)
    assert db.execute("select count(*), sum(k) from log").fetchone() == (2000, 45 * recipe.GOROUTINES)
    db.close()


def waiting_functions() -> None:
    """SQL that calls Python that waits: the goroutine is bound to its OS thread meanwhile, and 200 of them wait."""
    rounds = [WaitGroup() for _ in range(10)]
    for round in rounds:
        round.add(recipe.GOROUTINES)

    def wait_for_all(k: int, n: int) -> int:
        rounds[k].done()
        rounds[k].wait()
        return n * 2

    def work(i: int) -> None:
        db = connect(":memory:")
        db.create_function("wait_for_all", 2, wait_for_all)
        for k in range(len(rounds)):
            assert db.execute("select wait_for_all(?, ?)", (k, i)).fetchone() == (i * 2,)
        db.close()

    recipe.each(work)


def long_queries() -> None:
    """Queries that compute for long do it without the GIL, in parallel to all else."""

    def work(i: int) -> int:
        db = connect(":memory:")
        query = "with recursive c(x) as (select 1 union all select x + 1 from c where x < 20000) select sum(x) from c"
        (total,) = db.execute(query).fetchone()
        db.close()
        return total

    assert set(recipe.each(work)) == {20000 * 20001 // 2}


def interrupted() -> None:
    """interrupt() from another goroutine."""

    def work(i: int) -> None:
        db = connect(":memory:")
        started = gort.Chan[None](1)
        db.create_function("started", 0, lambda: started.send_nowait(None) if not len(started) else None)

        def interrupter() -> None:
            started.recv()
            db.interrupt()

        interrupting = gort.go(interrupter)
        with recipe.raises(sqlite3.OperationalError):
            endless = "with recursive c as (select started() union all select 1 from c) select count(*) from c"
            db.execute(endless).fetchone()
        interrupting.join()
        db.close()

    recipe.each(work, 20)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="gort-sqlite-") as folder:
        path = f"{folder}/db"
        db = connect(path)
        db.execute("pragma journal_mode = wal")
        db.execute("create table counter (n)")
        db.execute("insert into counter values (0)")
        db.execute("create table item (i, k, text)")
        db.close()
        with recipe.step("a connection each, writing"):
            writers(path)
        with recipe.step("waiting for SQLite's lock"):
            contenders(path)
        with recipe.step("reading snapshots"):
            readers_see_snapshots(path)
        with recipe.step("one connection and a mutex"):
            one_connection(path)
    with recipe.step("functions that wait"):
        waiting_functions()
    with recipe.step("queries that compute"):
        long_queries()
    with recipe.step("interrupt"):
        interrupted()


recipe.run(main)
