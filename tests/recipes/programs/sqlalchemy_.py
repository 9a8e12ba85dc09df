"""SQLAlchemy: an engine's pool for everybody, ORM sessions, scoped sessions, pool timeouts, a server that dies.

Nothing to set but the pool's size: `pool_size` and `max_overflow` say how many connections there may be,
`pool_timeout` how long a goroutine may wait for one. `pool_pre_ping=True` replaces connections that died. A
scoped_session is the goroutine's own, since it is kept in a threading.local. For the drivers see psycopg_.py,
pymysql_.py and sqlite3_.py.
"""

from __future__ import annotations

import recipe

recipe.patch_if_asked()

import os

if recipe.patched():
    os.environ["PSYCOPG_WAIT_FUNC"] = "wait_poll"  # see psycopg_.py

import tempfile

import servers
import sqlalchemy as sa
from sqlalchemy import orm

import gort
from gort.sync import WaitGroup

ACCOUNTS = 20


class Base(orm.DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str] = orm.mapped_column(unique=True)
    books: orm.Mapped[list[Book]] = orm.relationship(back_populates="author")


class Book(Base):
    __tablename__ = "book"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    title: orm.Mapped[str]
    author_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("author.id"))
    author: orm.Mapped[Author] = orm.relationship(back_populates="books")


class Account(Base):
    __tablename__ = "account"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True, autoincrement=False)
    amount: orm.Mapped[int]


def sessions(engine: sa.Engine) -> None:
    """Each writes an author with books and reads them again; every second tries something that is rolled back."""

    def work(i: int) -> None:
        with orm.Session(engine) as session, session.begin():
            session.add(Author(name=f"author {i}", books=[Book(title=f"book {i} {k}") for k in range(3)]))
        if i % 2:
            with recipe.raises(sa.exc.IntegrityError), orm.Session(engine) as session, session.begin():
                session.add(Author(name=f"more of {i}"))
                session.flush()
                session.add(Author(name=f"author {i}"))
        with orm.Session(engine) as session:
            author = session.scalars(sa.select(Author).where(Author.name == f"author {i}")).one()
            assert sorted(book.title for book in author.books) == [f"book {i} {k}" for k in range(3)]

    recipe.each(work)
    with orm.Session(engine) as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Author)) == recipe.GOROUTINES
        assert session.scalar(sa.select(sa.func.count()).select_from(Book)) == recipe.GOROUTINES * 3


def transfers(engine: sa.Engine) -> None:
    """Rows locked with FOR UPDATE, in one order."""

    def work(i: int) -> None:
        with orm.Session(engine) as session, session.begin():
            ids = sorted({i % ACCOUNTS, (i * 7 + 1) % ACCOUNTS})
            rows = sa.select(Account).where(Account.id.in_(ids)).order_by(Account.id).with_for_update()
            accounts = {account.id: account for account in session.scalars(rows)}
            gort.gosched()
            accounts[i % ACCOUNTS].amount -= 1
            accounts[(i * 7 + 1) % ACCOUNTS].amount += 1

    recipe.each(work)
    expected = [100] * ACCOUNTS
    for i in range(recipe.GOROUTINES):
        expected[i % ACCOUNTS] -= 1
        expected[(i * 7 + 1) % ACCOUNTS] += 1
    with orm.Session(engine) as session:
        assert list(session.scalars(sa.select(Account.amount).order_by(Account.id))) == expected


def scoped(engine: sa.Engine) -> None:
    registry = orm.scoped_session(orm.sessionmaker(engine))

    def work(i: int) -> None:
        session = registry()
        name = registry.scalar(sa.select(Author.name).where(Author.name == f"author {i}"))
        gort.gosched()
        assert (name, registry()) == (f"author {i}", session)
        registry.remove()

    recipe.each(work)


def pool_timeout(url: str) -> None:
    engine = sa.create_engine(url, pool_size=1, max_overflow=0, pool_timeout=0.2)
    with engine.connect():

        def work(i: int) -> None:
            with recipe.raises(sa.exc.TimeoutError):
                engine.connect()

        recipe.each(work)
    engine.dispose()


def killed(server: servers.Server, url: str) -> None:
    """The server is killed while 100 wait for an answer; the engine, with its dead connections, works afterwards."""
    n = recipe.GOROUTINES
    engine = sa.create_engine(url, pool_size=n // 2, max_overflow=0, pool_timeout=60, pool_pre_ping=True)
    waiting = WaitGroup()
    waiting.add(n // 2)
    back = gort.Chan[None]()

    def work(i: int) -> int:
        if i < n // 2:
            with recipe.raises(sa.exc.DBAPIError), engine.connect() as db:
                waiting.done()
                db.execute(sa.text("select pg_sleep(60)"))
        back.recv_ok()
        with orm.Session(engine) as session:
            books = sa.select(sa.func.count()).select_from(Book).join(Author).where(Author.name == f"author {i}")
            return session.scalar(books)

    def killer() -> None:
        waiting.wait()
        server.kill()
        with recipe.raises(sa.exc.OperationalError):
            sa.create_engine(url).connect()
        server.restart()
        back.close()

    killing = gort.go(killer)
    assert recipe.each(work) == [3] * n
    killing.join()
    engine.dispose()


def prepare(engine: sa.Engine) -> None:
    Base.metadata.create_all(engine)
    with orm.Session(engine) as session, session.begin():
        session.add_all(Account(id=n, amount=100) for n in range(ACCOUNTS))


def main() -> None:
    with servers.start("postgres") as server:
        url = f"postgresql+psycopg://postgres@127.0.0.1:{server.port}/postgres"
        engine = sa.create_engine(url, pool_size=20, max_overflow=0, pool_timeout=60)
        prepare(engine)
        with recipe.step("PostgreSQL, 20 connections"):
            sessions(engine)
            transfers(engine)
        with recipe.step("scoped sessions"):
            scoped(engine)
        engine.dispose()
        with recipe.step("pool timeouts"):
            pool_timeout(url)
        with recipe.step("server killed"):
            killed(server, url)
    with tempfile.TemporaryDirectory(prefix="gort-sqlalchemy-") as folder:
        engine = sa.create_engine(
            f"sqlite:///{folder}/db",
            pool_size=20,
            max_overflow=0,
            pool_timeout=60,
            connect_args={"timeout": 60, "check_same_thread": False, "isolation_level": "IMMEDIATE"},
        )
        prepare(engine)
        with recipe.step("SQLite"):
            sessions(engine)
        engine.dispose()


recipe.run(main, "SQLAlchemy", "psycopg")
