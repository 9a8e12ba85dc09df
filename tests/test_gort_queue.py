"""gort.queue without any patch: the standard library's queues, whose waits park."""

from __future__ import annotations

import queue as stock
from typing import Any

import pytest
from model_support import PlainThread, output_of, park

import gort
from gort import queue

KINDS = ["Queue", "LifoQueue", "PriorityQueue", "SimpleQueue"]
each = pytest.mark.parametrize("kind", KINDS)
bounded = pytest.mark.parametrize("kind", KINDS[:3])


def make(kind: str, *args: Any) -> Any:
    return getattr(queue, kind)(*args)


def test_the_names_of_the_standard_module() -> None:
    assert set(queue.__all__) == set(stock.__all__)
    assert queue.Empty is stock.Empty and queue.Full is stock.Full


@each
def test_its_classes_derive_from_the_standard_ones(kind: str) -> None:
    assert isinstance(make(kind), getattr(stock, kind))
    assert getattr(queue, kind) is not getattr(stock, kind)
    assert getattr(queue, kind).__module__ == "gort.queue"
    assert issubclass(queue.LifoQueue, queue.Queue)


@each
def test_get_parks_until_there_is_an_item(kind: str) -> None:
    q = make(kind)
    g = park(q.get)
    assert g.state == "waiting"
    q.put(7)
    assert g.join() == 7
    assert q.empty() and q.qsize() == 0


@each
def test_get_in_time(kind: str) -> None:
    q = make(kind)
    with pytest.raises(queue.Empty):
        q.get(timeout=0.001)
    with pytest.raises(queue.Empty):
        q.get(False)
    with pytest.raises(queue.Empty):
        q.get_nowait()
    with pytest.raises(ValueError, match="non-negative"):
        q.get(timeout=-1)
    q.put(1)
    assert q.get(timeout=3600) == 1
    q.put_nowait(2)
    assert q.get_nowait() == 2


@bounded
def test_put_parks_while_it_is_full(kind: str) -> None:
    q = make(kind, 1)
    q.put(1)
    with pytest.raises(queue.Full):
        q.put(2, timeout=0.001)
    g = park(q.put, 2)
    assert q.get() == 1
    g.join()
    assert q.get() == 2


@bounded
def test_join_parks_until_all_is_done(kind: str) -> None:
    q = make(kind)
    q.put(1)
    g = park(q.join)
    q.get()
    q.task_done()
    g.join()
    with pytest.raises(ValueError, match="too many times"):
        q.task_done()


@each
def test_every_item_arrives_once_among_goroutines_and_threads(kind: str) -> None:
    q = make(kind)

    def produce(start: int) -> None:
        for i in range(start, start + 100):
            q.put(i)
            if i % 7 == 0:
                gort.sleep(0)

    def consume() -> list[int]:
        return [q.get() for _ in range(100)]

    consumers: list[Any] = [gort.go(consume) for _ in range(3)]
    threads = [PlainThread(consume) for _ in range(3)]
    producers = [PlainThread(produce, i * 100) if i % 2 else gort.go(produce, i * 100) for i in range(6)]
    got = [i for g in consumers for i in g.join()] + [i for t in threads for i in t.result()]
    for p in producers:
        _ = p.result() if isinstance(p, PlainThread) else p.join()
    assert sorted(got) == list(range(600))


@each
def test_a_killed_consumer_takes_no_item(kind: str) -> None:
    q = make(kind)
    first, second = park(q.get), park(q.get)
    first.kill()
    first.join()
    q.put(1)
    assert second.join() == 1


def test_the_order_of_each_kind() -> None:
    for kind, expected in ("Queue", [2, 3, 1]), ("LifoQueue", [1, 3, 2]), ("PriorityQueue", [1, 2, 3]):
        q = make(kind)
        for i in 2, 3, 1:
            q.put(i)
        assert [q.get() for _ in range(3)] == expected


@bounded
def test_shutdown(kind: str) -> None:
    q = make(kind)
    if not hasattr(q, "shutdown"):
        pytest.skip("3.13 has it")
    g = park(q.get)
    q.shutdown()
    with pytest.raises(queue.ShutDown):  # type: ignore[attr-defined]
        g.join()


def test_a_simple_queue_may_be_put_to_in_a_finaliser() -> None:
    q: Any = queue.SimpleQueue()

    class Last:
        def __del__(self) -> None:
            q.put("last")

    g = park(q.get)
    Last()
    assert g.join() == "last"


def test_ten_thousand_wait_without_a_thread_each() -> None:
    source = """
    import os, gort
    from gort import queue
    qs = [(queue.SimpleQueue if i % 2 else queue.Queue)() for i in range(10000)]
    gs = [gort.go(q.get) for q in qs]
    while any(g.state != "waiting" for g in gs):
        gort.gosched()
    print(len(os.listdir("/proc/self/task")) < 1000)
    for i, q in enumerate(qs):
        q.put(i)
    print([g.join() for g in gs] == list(range(10000)))
    """
    assert output_of(source) == "True\nTrue\n"
