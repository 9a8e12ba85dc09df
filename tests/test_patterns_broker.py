"""gort.patterns.Broker: topics, policies, and the ends of subscriptions."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_support import EVERYWHERE, PlainThread, park, settle

import gort
from gort import context
from gort.patterns import Broker, Message, SlowConsumer, Subscription

POLICIES = ["block", "drop_oldest", "drop_newest", "disconnect"]


def values(subscription: Subscription[Message[Any]]) -> list[Any]:
    return [m.value for m in subscription]


def now(subscription: Subscription[Message[Any]]) -> list[Any]:
    """What is in its buffer."""
    found = []
    try:
        while True:
            found.append(subscription.recv_nowait().value)
    except (gort.WouldBlock, gort.ChanClosed):
        return found


# ---- topics ------------------------------------------------------------------------


def test_a_message_goes_to_those_who_subscribed_to_its_topic() -> None:
    broker = Broker[int]()
    a, b, ab = broker.subscribe("a"), broker.subscribe("b"), broker.subscribe("a", "b", "a")
    everything = broker.subscribe()
    assert [broker.publish(t, n) for n, t in enumerate("abc")] == [3, 3, 1]
    late = broker.subscribe("a")
    broker.close()
    assert list(a) == [Message("a", 0)]
    assert list(b) == [Message("b", 1)]
    assert list(ab) == [("a", 0), ("b", 1)]
    assert list(everything) == [("a", 0), ("b", 1), ("c", 2)]
    assert list(late) == []
    assert (a.topics, ab.topics, everything.topics) == (("a",), ("a", "b"), ())


@pytest.mark.parametrize("topic", ["a", 7, None, ("a", 1), frozenset()])
def test_any_hashable_value_is_a_topic(topic: Any) -> None:
    broker = Broker[str]()
    s = broker.subscribe(topic)
    assert broker.publish(topic, "x") == 1
    assert s.recv() == Message(topic, "x")


def test_a_message_to_nobody_is_gone() -> None:
    assert Broker[int]().publish("a", 1) == 0


@pytest.mark.parametrize("where", EVERYWHERE)
def test_a_broker_works_from_everywhere(where: Callable[[Callable[[], Any]], Any]) -> None:
    broker = Broker[int]()

    def use() -> list[int]:
        with broker.subscribe("a", buffer=2) as s:
            reader = PlainThread(lambda: [s.recv().value for _ in range(100)])
            for n in range(100):
                broker.publish("a", n)
            return reader.result()  # type: ignore[no-any-return]

    assert where(use) == list(range(100))
    assert not broker._seats


def test_threads_and_goroutines_publish_at_once() -> None:
    broker = Broker[tuple[int, int]]()
    subscriptions = [broker.subscribe("a", buffer=n) for n in (0, 1, 7)]

    def publish(who: int) -> None:
        for n in range(200):
            assert broker.publish("a", (who, n)) == 3

    readers = [gort.go(values, s) for s in subscriptions]
    threads = [PlainThread(publish, i) for i in range(3)]
    goroutines = [gort.go(publish, i) for i in range(3, 5)]
    for t in threads:
        t.result()
    for g in goroutines:
        g.join()
    broker.close()
    for r in readers:
        got = r.join()
        for who in range(5):  # in order of each publisher
            assert [n for w, n in got if w == who] == list(range(200))


# ---- policies, against a model ----------------------------------------------------------


class ModelSubscription:
    def __init__(self, policy: str, buffer: int) -> None:
        self.policy, self.buffer = policy, buffer
        self.queue: deque[int] = deque()
        self.dropped = 0
        self.connected = True

    def publish(self, value: int) -> bool:
        if not self.connected:
            return False
        if len(self.queue) < self.buffer:
            self.queue.append(value)
            return True
        self.dropped += 1
        if self.policy == "drop_oldest":
            self.queue.popleft()
            self.queue.append(value)
            return True
        if self.policy == "disconnect":
            self.connected = False
        return False


@given(
    st.lists(st.tuples(st.sampled_from(POLICIES[1:]), st.integers(1, 4)), min_size=1, max_size=4),
    st.lists(st.one_of(st.just(-1), st.integers(0, 3)), max_size=40),
)
def test_policies_are_as_in_the_model(kinds: list[tuple[Any, int]], steps: list[int]) -> None:
    broker = Broker[int]()
    pairs = [(broker.subscribe("t", buffer=n, policy=p), ModelSubscription(p, n)) for p, n in kinds]
    for value, step in enumerate(steps):
        if step == -1:
            assert broker.publish("t", value) == sum([m.publish(value) for _, m in pairs])
        elif step < len(pairs):
            s, m = pairs[step]
            if m.queue:
                assert s.recv_nowait().value == m.queue.popleft()
            else:
                with pytest.raises(gort.WouldBlock if m.connected else SlowConsumer):
                    s.recv_nowait()
        for s, m in pairs:
            assert (len(s), s.dropped, s.closed) == (len(m.queue), m.dropped, not m.connected)
    broker.close()
    for s, m in pairs:
        assert now(s) == list(m.queue) if m.connected else True


def test_a_blocking_subscription_holds_its_publisher_only() -> None:
    broker = Broker[int]()
    slow = broker.subscribe("t", buffer=1)
    quick = broker.subscribe("t", buffer=5)
    assert broker.publish("t", 0) == 2
    publisher = park(broker.publish, "t", 1)
    assert now(quick) == [0, 1]  # all others got it first
    assert slow.recv().value == 0
    assert publisher.join() == 2
    assert slow.recv().value == 1
    assert slow.dropped == 0


def test_an_unbuffered_subscription_gets_it_if_it_waits() -> None:
    broker = Broker[int]()
    dropping = broker.subscribe("t", buffer=0, policy="drop_newest")
    assert broker.publish("t", 0) == 0
    assert dropping.dropped == 1
    reader = park(dropping.recv)
    assert broker.publish("t", 1) == 1
    assert reader.join() == ("t", 1)


def test_a_slow_consumer_is_disconnected_after_what_it_has() -> None:
    broker = Broker[int]()
    s = broker.subscribe("t", buffer=2, policy="disconnect")
    assert [broker.publish("t", n) for n in range(4)] == [1, 1, 0, 0]
    assert not broker._seats
    assert (s.recv().value, s.recv().value) == (0, 1)
    for read in (s.recv, s.recv_ok, s.recv_nowait, lambda: next(s)):
        with pytest.raises(SlowConsumer, match="buffer of 2"):
            read()
    s.close()
    assert list(s) == []


def test_publish_ends_with_time_and_context_and_kill() -> None:
    broker = Broker[int]()
    slow, quick = broker.subscribe("t", buffer=0), broker.subscribe("t")
    with pytest.raises(TimeoutError):
        broker.publish("t", 0, 0.001)
    with pytest.raises(TimeoutError):
        broker.publish("t", 1, timeout=0)
    ctx, cancel = context.with_cancel(context.background())
    g = park(lambda: broker.publish("t", 2, ctx=ctx))
    cancel()
    with pytest.raises(context.Canceled):
        g.join()
    g = park(broker.publish, "t", 3)
    g.kill()
    assert g.join() is None
    assert now(quick) == [0, 1, 2, 3]
    assert now(slow) == []


# ---- the ends of subscriptions ---------------------------------------------------------------


def test_unsubscribing_frees_who_waits_to_publish() -> None:
    broker = Broker[int]()
    a, b = broker.subscribe("t", buffer=0), broker.subscribe("t", buffer=0)
    publisher = park(broker.publish, "t", 1)
    a.close()
    settle(publisher)
    assert publisher.state == "waiting"
    assert b.recv().value == 1
    assert publisher.join() == 1
    publisher = park(broker.publish, "t", 2)
    b.close()
    assert publisher.join() == 0
    assert not broker._seats


def test_a_subscription_ends_for_who_waits_on_it() -> None:
    broker = Broker[int]()
    s = broker.subscribe("t")
    reader = park(list, s)
    s.close()
    assert reader.join() == []
    with pytest.raises(gort.ChanClosed):
        s.recv()
    s.close()


def test_a_block_unsubscribes() -> None:
    broker = Broker[int]()
    with broker.subscribe("t") as s:
        broker.publish("t", 1)
    assert list(s) == []
    assert broker.publish("t", 2) == 0


@pytest.mark.parametrize("topics", [("t",), ()])
def test_a_subscription_that_is_forgotten_is_closed(topics: tuple[str, ...]) -> None:
    broker = Broker[int]()
    gc.disable()
    try:
        s = broker.subscribe(*topics, buffer=0)
        publisher = park(broker.publish, "t", 1)
        del s
        assert publisher.join() == 0
        assert (broker._seats, broker._on_all) == ({}, ())
    finally:
        gc.enable()


def test_a_subscription_that_is_forgotten_at_a_bad_moment_is_swept_out_later() -> None:
    broker = Broker[int]()
    s = broker.subscribe("t")
    with broker._changing:  # as a finaliser might find it
        del s
        gc.collect()
        assert broker._seats
    assert broker.publish("t", 1) == 0
    assert not broker._seats


def test_a_loop_over_a_subscription_keeps_it() -> None:
    broker = Broker[int]()
    reader = park(lambda: [m.value for m in broker.subscribe("t")])
    gc.collect()
    assert broker.publish("t", 1) == 1
    broker.close()
    assert reader.join() == [1]


@pytest.mark.parametrize("policy", POLICIES)
def test_close_ends_all_after_what_they_have(policy: Any) -> None:
    with Broker[int]() as broker:
        s = broker.subscribe("t", buffer=3, policy=policy)
        assert not broker.closed
        broker.publish("t", 1)
    assert broker.closed
    broker.close()
    assert values(s) == [1]
    assert s.recv_ok() == (None, False)
    for call in (lambda: broker.publish("t", 1), lambda: broker.subscribe("t")):
        with pytest.raises(gort.ChanClosed, match="the broker is closed"):
            call()


def test_close_ends_who_waits_to_publish() -> None:
    broker = Broker[int]()
    s = broker.subscribe("t", buffer=0)
    publisher = park(broker.publish, "t", 1)
    broker.close()
    with pytest.raises(gort.ChanClosed, match="the broker is closed"):
        publisher.join()
    assert list(s) == []


def test_a_subscription_can_be_selected_from() -> None:
    broker = Broker[int]()
    a, b = broker.subscribe("a"), broker.subscribe("b")
    broker.publish("b", 1)
    assert gort.select(a, b) == (1, ("b", 1), True)


def test_a_subscription_says_what_it_is() -> None:
    s = Broker[int]().subscribe("t", buffer=3, policy="drop_oldest")
    assert repr(s) == "<Subscription open 'drop_oldest' buffer=3 len=0>"
    assert s.policy == "drop_oldest"


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda b: b.subscribe("t", policy="wait"), ValueError, "policy must be one of 'block', .*not 'wait'"),
        (lambda b: b.subscribe("t", policy=["block"]), ValueError, "policy must be"),
        (lambda b: b.subscribe("t", buffer=-1), ValueError, "buffer must be at least 0, not -1"),
        (lambda b: b.subscribe("t", buffer=0, policy="drop_oldest"), ValueError, "buffer must be at least 1, not 0"),
        (lambda b: b.subscribe("t", buffer="1"), TypeError, "buffer must be an int, not '1'"),
        (lambda b: b.subscribe(["t"]), TypeError, "unhashable"),
        (lambda b: b.publish(["t"], 1), TypeError, "unhashable"),
        (lambda b: b.publish("t", 1, "1"), TypeError, "timeout must be"),
    ],
)
def test_bad_input_is_named(call: Callable[[Any], object], error: type[Exception], words: str) -> None:
    broker = Broker[int]()
    with pytest.raises(error, match=words):
        call(broker)
    assert not broker._seats
