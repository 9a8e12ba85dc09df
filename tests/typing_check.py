"""What type checkers make of gort's stubs. `mypy` reads this file (`make lint`); it is never run.

Every `type: ignore` stands for a mistake that must be found: under
`warn_unused_ignores`, a part of strict, mypy complains if it is not.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from traceback import StackSummary
from typing import Any, assert_type

import gort
from gort import atomic, context, errgroup, errors, native, patterns, rate, singleflight, sync, time


def area(width: int, height: float, *, unit: str = "m") -> str:
    return f"{width * height} {unit}²"


class Context:
    """The least that `ctx=` takes."""

    def done(self) -> gort.Chan[None]:
        return gort.Chan[None]()

    def err(self) -> Exception | None:
        return None


def goroutines() -> None:
    g = gort.go(area, 2, 1.5, unit="cm")
    assert_type(g, gort.Goroutine[str])
    assert_type(g.join(), str)
    assert_type(g.join(timeout=1), str)
    assert_type(g.join(ctx=Context()), str)
    assert_type(g.id, int)
    assert_type(g.stack(), StackSummary)
    assert_type(gort.go(lambda: [1]).join(), list[int])
    g.name = "area"
    g.id = 1  # type: ignore[misc]
    gort.go(area, "2", 1.5)  # type: ignore[arg-type]
    gort.go(area, 2)  # type: ignore[call-arg]
    gort.go(area, 2, 1.5, colour="red")  # type: ignore[call-arg]
    gort.go(3)  # type: ignore[arg-type]
    anything: gort.Goroutine[object] = g
    assert_type(anything.join(), object)
    assert_type(gort.run(area, 2, 1.5), str)
    assert_type(gort.blocking(area, 2, 1.5), str)
    assert_type(gort.current(), gort.Goroutine[Any] | None)
    assert_type(gort.gomaxprocs(2), int)
    assert_type(gort.stack(all=True), str)


def excepthook(goroutine: gort.Goroutine[Any], exc: BaseException) -> None:
    gort.excepthook = excepthook


def channels() -> None:
    words = gort.Chan[str](3, name="words")
    assert_type(words, gort.Chan[str])
    assert_type(words.recv(), str)
    assert_type(words.recv_ok(), tuple[str | Any, bool])
    assert_type(list(words), list[str])
    assert_type(iter(words), Iterator[str])
    assert_type(len(words), int)
    words.send("a", timeout=0.5)
    words.send(1)  # type: ignore[arg-type]
    assert_type(gort.Chan(dtype="i64"), gort.Chan[int])
    assert_type(gort.Chan(8, dtype="u8"), gort.Chan[int])
    assert_type(gort.Chan(dtype="ptr").ptr, int)
    assert_type(gort.Chan(dtype="f64").recv(), float)
    gort.Chan[int](dtype="i64")
    gort.Chan[int](dtype="i32")  # type: ignore[call-overload]
    gort.Chan[int](1.5)  # type: ignore[call-overload]
    words = gort.Chan(dtype="i64")  # type: ignore[assignment]
    declared: gort.Chan[bytes] = gort.Chan()
    assert_type(declared.recv_nowait(), bytes)
    nil: gort.Chan[int] = gort.NIL
    assert_type(nil.recv(), int)


def views() -> None:
    ch = gort.Chan[bool]()
    assert_type(ch.sender(), gort.Sender[bool])
    assert_type(ch.receiver(), gort.Receiver[bool])
    wider: gort.Receiver[int] = ch.receiver()
    narrower: gort.Sender[bool] = gort.Chan[int]().sender()
    assert_type(list(wider), list[int])
    narrower.send(True)
    wider.send(1)  # type: ignore[attr-defined]
    narrower.recv()  # type: ignore[attr-defined]
    not_invariant: gort.Chan[int] = ch  # type: ignore[assignment]
    del not_invariant


def selects(a: gort.Chan[int], b: gort.Chan[int], words: gort.Chan[str]) -> None:
    assert_type(gort.select(a, b.receiver()), tuple[int, int | Any, bool])
    assert_type(gort.select(a, None, default=True), tuple[int, int | Any, bool])
    assert_type(gort.select(a, words), tuple[int, Any, bool])
    assert_type(gort.select((words, "w"), a, (b.sender(), 1), (None, 0), timeout=1), tuple[int, Any, bool])
    i, value, ok = gort.select(a, time.after(1), ctx=Context())
    assert_type((i, ok), tuple[int, bool])
    del value
    gort.select("a")  # type: ignore[call-overload]
    gort.select((a.receiver(), 1))  # type: ignore[arg-type]
    gort.select(words.sender())  # type: ignore[call-overload]


class Parent(Context):
    """The least that contexts derive from."""

    def deadline(self) -> float | None:
        return None

    def value(self, key: object) -> object:
        return None


def trees() -> None:
    ctx, cancel = context.with_cancel(context.background())
    assert_type(ctx, context.Context)
    assert_type(cancel(), None)
    cancel(ValueError())  # type: ignore[call-arg]
    ctx, cancel_cause = context.with_cancel_cause(Parent())
    cancel_cause()
    cancel_cause(cause=ValueError())
    cancel_cause("why")  # type: ignore[arg-type]
    ctx, cancel = context.with_timeout(ctx, 1, ValueError())
    ctx, cancel = context.with_deadline(ctx, time.now() + 1, cause=ValueError())
    context.with_timeout(ctx, "1")  # type: ignore[arg-type]
    ctx = context.without_cancel(context.with_value(context.todo(), int, 1))
    context.with_cancel(None)  # type: ignore[arg-type]
    context.with_cancel(Context())  # type: ignore[arg-type]
    assert_type(ctx.deadline(), float | None)
    assert_type(ctx.done(), gort.Chan[Any])
    assert_type(ctx.err(), BaseException | None)
    assert_type(ctx.wait(timeout=1, ctx=Context()), BaseException | None)
    assert_type(context.cause(ctx), BaseException | None)
    assert_type(context.after_func(ctx, lambda: 1)(), bool)
    assert_type(context.current(), context.Context)
    parent = Parent()
    with context.use(parent) as same:
        assert_type(same, Parent)
    with context.timeout(1, parent, cause=ValueError()) as inner, context.cancelable(parent=inner) as innermost:
        assert_type(inner, context.Context)
        assert_type(innermost, context.Context)
    assert_type(context.go(ctx, area, 2, 1.5, unit="cm"), gort.Goroutine[str])
    context.go(ctx, area, "2", 1.5)  # type: ignore[arg-type]
    gort.sleep(1, ctx=ctx)
    try:
        ctx.wait()
    except (context.Canceled, context.DeadlineExceeded) as e:
        assert_type(e, context.Canceled | context.DeadlineExceeded)


def contexts() -> None:
    gort.sleep(1, ctx=Context())
    gort.sleep(1, ctx=3)  # type: ignore[arg-type]
    gort.sleep("1")  # type: ignore[arg-type]


def locks() -> None:
    mutex, both = sync.Mutex(), sync.RWMutex()
    with mutex as m:
        assert_type(m, sync.Mutex)
    with both.reader(), both.writer():
        pass
    for locker in (mutex, both, both.reader()):
        sync.Cond(locker).wait(timeout=1)
    sync.Cond(3)  # type: ignore[arg-type]
    wg = sync.WaitGroup()
    wg.go(area, 2, 1.5)
    wg.go(area, 2)  # type: ignore[call-arg]
    assert_type(sync.once_value(lambda: 1)(), int)
    assert_type(sync.once_func(lambda: 1)(), None)
    with sync.Semaphore(2) as semaphore:
        assert_type(semaphore.try_acquire(2), bool)


def groups(parent: context.Context) -> None:
    with errgroup.Group(parent, limit=3) as group:
        assert_type(group, errgroup.Group)
        assert_type(group.go(area, 2, height=1.5), None)
        assert_type(group.try_go(area, 2, 1.5, unit="cm"), bool)
        group.go(area, "2", 1.5)  # type: ignore[arg-type]
        group.try_go(area, 2)  # type: ignore[call-arg]
        assert_type(group.ctx, context.Context)
        assert_type(group.limit, int | None)
    errgroup.Group(Context())  # type: ignore[arg-type]
    errgroup.Group(limit=1.5)  # type: ignore[arg-type]
    errgroup.Group(parent, 3, True)  # type: ignore[call-arg]
    group.wait(timeout=1, ctx=Context())


def flights() -> None:
    pages = singleflight.Group[str, bytes]()
    assert_type(pages.do("a", lambda: b""), tuple[bytes, bool])
    pages.do("a", lambda: b"", 1.5, ctx=Context())
    pages.do("a", lambda: "")  # type: ignore[arg-type, return-value]
    pages.do(1, lambda: b"")  # type: ignore[arg-type]
    ch = pages.do_chan("a", lambda: b"")
    assert_type(ch, gort.Chan[singleflight.Result[bytes]])
    value, err, shared = ch.recv()
    assert_type((err, shared), tuple[BaseException | None, bool])
    assert_type(ch.recv().value, bytes | Any)
    del value


def limiters() -> None:
    limiter = rate.Limiter(rate.every(0.1), burst=5)
    assert_type(limiter.allow(2, at=time.now()), bool)
    limiter.wait(1, Context(), timeout=2)
    reservation = limiter.reserve(at=1)
    assert_type(reservation, rate.Reservation)
    assert_type((reservation.ok, reservation.delay), tuple[bool, float])
    reservation.ok = False  # type: ignore[misc]
    reservation.cancel_at("now")  # type: ignore[arg-type]
    limiter.limit = 3  # type: ignore[misc]
    limiter.allow(0.5)  # type: ignore[arg-type]
    rate.Sometimes(first=3, interval=2.5).do(lambda: None)
    rate.Sometimes(3)  # type: ignore[call-arg]


def containers() -> None:
    ages: sync.Map[str, int] = sync.Map()
    assert_type(ages.load("a"), tuple[int | Any, bool])
    assert_type(ages.load_or_store("a", 1), tuple[int, bool])
    ages.store("a", "1")  # type: ignore[arg-type]
    buffers = sync.Pool(bytearray)
    assert_type(buffers.get(), bytearray)
    buffers.put(3)  # type: ignore[arg-type]
    without_new: sync.Pool[bytearray | None] = sync.Pool()
    assert_type(without_new.get(), bytearray | None)


def atomics() -> None:
    assert_type(atomic.Int64(1).add(2), int)
    atomic.Int64(1.5)  # type: ignore[arg-type]
    assert_type(atomic.Bool().swap(True), bool)
    assert_type(atomic.Ref("a").load(), str)
    maybe: atomic.Ref[str | None] = atomic.Ref()
    assert_type(maybe.swap("a"), str | None)
    atomic.Ref[str]("a").store(1)  # type: ignore[arg-type]


def timers() -> None:
    assert_type(time.after(0.1).recv(), float)
    assert_type(time.Ticker(1).c, gort.Chan[float])
    assert_type(time.after_func(1, area, 2, 1.5), time.Timer)
    assert_type(time.after_func(1, area, 2, 1.5).stop(), bool)
    time.after_func(1, area, "2", 1.5)  # type: ignore[arg-type]
    assert_type(time.now(), float)


def natives(fn: ctypes._Pointer[Any]) -> None:
    assert_type(native.go(fn, 1), native.NativeGoroutine)
    assert_type(native.go(fn).join(timeout=1), None)
    assert_type(native.num_goroutine(), int)
    assert_type(gort.get_include(), str)


def failures(err: Exception, anything: BaseException | None) -> None:
    assert_type(errors.wrap(err, "text"), errors.WrapError)
    assert_type(errors.wrap(None, "text"), None)
    errors.wrap(KeyboardInterrupt(), "text")  # type: ignore[call-overload]
    assert_type(errors.as_(err, OSError), OSError | None)
    assert_type(errors.is_(anything, KeyError), bool)
    assert_type(errors.from_error(err), errors.Error)
    assert_type(errors.from_error(anything), errors.Error | None)
    assert_type(errors.not_found("R", "m").with_metadata({"a": "b"}).code, int)
    errors.is_(err, int)  # type: ignore[arg-type]
    errors.Error(404, "R", "m", {"a": 1})  # type: ignore[dict-item]


def length(text: str) -> int:
    return len(text)


def streams(words: gort.Chan[str], ctx: gort.context.Context) -> None:
    assert_type(patterns.generate(words), patterns.Stream[str])
    assert_type(patterns.stage(length, words, 3), patterns.Stream[int])
    assert_type(next(patterns.map(length, ["a"], 3, ordered=False, ctx=ctx)), int)
    assert_type(patterns.pipeline(words, length, (float, 2)), patterns.Stream[float])
    assert_type(patterns.merge(words, patterns.generate("ab")), patterns.Stream[str])
    assert_type(patterns.tee(words), tuple[patterns.Stream[str], ...])
    assert_type(patterns.batch(words, 3, 1.5).recv(timeout=1), list[str])
    assert_type(patterns.or_done(ctx, words).recv_ok(), tuple[str | Any, bool])
    with patterns.debounce(words, 1) as last:
        assert_type(last, patterns.Stream[str])
    patterns.map(length, [1], 3)  # type: ignore[arg-type]
    patterns.for_each(length, words)  # type: ignore[call-arg]


def calls_and_pools(ctx: gort.context.Context) -> None:
    assert_type(patterns.with_timeout(1, lambda c, n: n + 1, 2, ctx=ctx), int)
    assert_type(patterns.hedge(lambda c: c.deadline(), 0.1), float | None)
    assert_type(patterns.first(lambda c: 1, lambda c: 2), int)
    with patterns.WorkerPool(2, ctx=ctx) as pool:
        assert_type(pool.submit(length, "a", timeout=1), patterns.Task[int])
        assert_type(pool.submit(length, "a").result(), int)
        assert_type(pool.try_submit(length, "a"), patterns.Task[int] | None)
        pool.submit(length, 1)  # type: ignore[arg-type]
    with patterns.Broker[int]() as broker:
        news = broker.subscribe("a", "b", buffer=3, policy="drop_oldest")
        assert_type(next(news).value, int)
        assert_type(list(news), list[patterns.Message[int]])
        broker.publish("a", "text")  # type: ignore[arg-type]
        broker.subscribe("a", policy="wait")  # type: ignore[arg-type]


def unreachable() -> int:
    gort.select()


def ends() -> int:
    gort.goexit()
