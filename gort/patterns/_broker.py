"""Publish and subscribe, with a policy for each subscriber that is too slow.

A broker has no goroutine. A subscription is a channel and a `_Seat`, the
broker's side of it; the broker holds the seat only, so a subscription that is
forgotten closes its channel, and the seat is swept out when the broker next
comes by. Lists of seats are never changed but replaced, so publishers, which
may have to wait, hold no lock.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, Self, TypeAlias, TypeVar, get_args

import gort
from gort import atomic, sync, time
from gort.patterns._stream import Owner, check_count, check_seconds, close_quietly

if TYPE_CHECKING:
    from gort._core._runtime import _Context, _Seconds

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Policy: TypeAlias = Literal["block", "drop_oldest", "drop_newest", "disconnect"]


class SlowConsumer(Exception):
    """A subscription of the policy "disconnect" had no room for a message."""


class Message(NamedTuple, Generic[T]):
    """What a subscription gives."""

    topic: Hashable
    value: T


class _Seat:
    __slots__ = ("ch", "dropped", "error", "policy")

    def __init__(self, policy: Policy, buffer: int) -> None:
        self.ch = gort.Chan[Any](buffer)
        self.policy = policy
        self.dropped = atomic.Int64()
        self.error: SlowConsumer | None = None

    def offer(self, message: Message[Any]) -> bool | None:
        """Whether it has it; None if it has to be waited for. Does not wait."""
        while True:
            try:
                self.ch.send_nowait(message)
                return True
            except gort.ChanClosed:
                return False
            except gort.WouldBlock:
                pass
            if self.policy == "block":
                return None
            if self.policy == "drop_oldest":
                try:
                    self.ch.recv_nowait()
                except (gort.WouldBlock, gort.ChanClosed):
                    continue  # its reader, on another OS thread, was quicker
                self.dropped.add(1)
                continue
            if self.policy == "disconnect":
                self.error = SlowConsumer(f"a subscription with a buffer of {self.ch.cap} had no room for {message!r}")
                close_quietly(self.ch)
            self.dropped.add(1)
            return False


class Subscription(Owner[T_co]):
    """The messages of a broker's topics, an iterator and a `Receiver`. `Broker.subscribe()` makes it.

    It ends when it or its broker is closed, or, with "disconnect", when it is
    too slow: then, after what is in its buffer, SlowConsumer is raised. As the
    last reference to it goes, it is closed.
    """

    _seat: _Seat
    _broker: Broker[Any]
    topics: tuple[Hashable, ...]
    """What it was subscribed to; nothing for all topics."""

    @property
    def policy(self) -> Policy:
        """What happens when its buffer is full."""
        return self._seat.policy

    @property
    def dropped(self) -> int:
        """How many messages it did not get because its buffer was full."""
        return self._seat.dropped.load()

    def close(self) -> None:
        """Unsubscribe; what is in the buffer is dropped, and who waits to publish to it goes on. Does not park."""
        super().close()

    def _give_up(self) -> None:
        self._broker._sweep()

    def _why(self, timeout: _Seconds | None, ctx: _Context | None) -> BaseException | None:
        error = self._seat.error
        return None if error is None else error.with_traceback(None)

    def __repr__(self) -> str:
        return f"<Subscription {'ended' if self.closed else 'open'} {self.policy!r} buffer={self.cap} len={len(self)}>"


class Broker(Generic[T]):
    """Hands each published message to all who have subscribed to its topic.

    Topics are any hashable values. Usable from goroutines and plain threads
    alike; a subscriber gets the messages of one publisher in their order.

    >>> with Broker[str]() as broker:
    ...     news = broker.subscribe("news", buffer=8)
    ...     broker.publish("news", "gort is out"), broker.publish("weather", "rain")
    (1, 0)
    >>> list(news)
    [Message(topic='news', value='gort is out')]
    """

    def __init__(self) -> None:
        self._changing = sync.Mutex()
        self._seats: dict[Hashable, tuple[_Seat, ...]] = {}
        self._on_all: tuple[_Seat, ...] = ()
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return self._closed

    def subscribe(self, *topics: Hashable, buffer: int = 16, policy: Policy = "block") -> Subscription[Message[T]]:
        """Get what is published from now on to `topics`, or to all if none is named. May park, for a moment.

        `buffer` messages may wait for the subscriber. If there is one more:
        "block" lets the publisher wait, "drop_oldest" drops the oldest of the
        buffer (which must have room for one), "drop_newest" that one, and
        "disconnect" ends the subscription. Raises ChanClosed if the broker is
        closed, TypeError or ValueError for a bad argument.
        """
        if policy not in get_args(Policy):
            raise ValueError(f"policy must be one of {', '.join(map(repr, get_args(Policy)))}, not {policy!r}")
        check_count(buffer, "buffer", 1 if policy == "drop_oldest" else 0)
        topics = tuple(dict.fromkeys(topics))
        seat = _Seat(policy, buffer)
        subscription: Subscription[Message[T]] = Subscription.__new__(Subscription, seat.ch)  # type: ignore[call-arg]
        subscription._seat = seat
        subscription._out = seat.ch
        subscription._broker = self
        subscription.topics = topics
        subscription._gone = atomic.Bool()
        with self._changing:
            self._check_open()
            for topic in topics:
                self._seats[topic] = (*self._seats.get(topic, ()), seat)
            if not topics:
                self._on_all += (seat,)
        return subscription

    def publish(
        self, topic: Hashable, value: T, timeout: _Seconds | None = None, *, ctx: _Context | None = None
    ) -> int:
        """Hand `value` to the subscribers of `topic`; how many have it. Parks while one that blocks has no room.

        All others get it first. Raises TimeoutError after `timeout` seconds and
        the context's error when `ctx` ends: then some have it and some not.
        ChanClosed if the broker is, or becomes, closed.
        """
        until = None if timeout is None else time.now() + check_seconds(timeout, "timeout")
        self._check_open()
        message = Message(topic, value)
        count, waiting, swept = 0, [], False
        for seat in (*self._seats.get(topic, ()), *self._on_all):
            taken = seat.offer(message)
            if taken:
                count += 1
            elif taken is None:
                waiting.append(seat)
            elif seat.ch.closed:
                swept = True
        if swept:
            self._sweep()
        while waiting:
            left = None if until is None else until - time.now()
            try:
                i, _, _ = gort.select(*[(seat.ch, message) for seat in waiting], timeout=left, ctx=ctx)
            except gort.ChanClosed:
                self._check_open()
                waiting = [seat for seat in waiting if not seat.ch.closed]
                continue
            count += 1
            del waiting[i]
        return count

    def close(self) -> None:
        """End all subscriptions, each after what is in its buffer. Closing it again does nothing."""
        with self._changing:
            self._closed = True
            seats = [seat for seats in (*self._seats.values(), self._on_all) for seat in seats]
            self._seats, self._on_all = {}, ()
        for seat in seats:
            close_quietly(seat.ch)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise gort.ChanClosed("the broker is closed")

    def _sweep(self) -> None:
        """Forget closed seats, unless somebody is at the lists: a finaliser may be here, so it does not wait."""
        if not self._changing.try_lock():
            return
        try:
            for topic, seats in list(self._seats.items()):
                if any(seat.ch.closed for seat in seats):
                    self._seats[topic] = tuple(seat for seat in seats if not seat.ch.closed)
                    if not self._seats[topic]:
                        del self._seats[topic]
            self._on_all = tuple(seat for seat in self._on_all if not seat.ch.closed)
        finally:
            self._changing.unlock()
