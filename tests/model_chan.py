"""Channels and select in plain Python: what Go's memory of them allows, without any waiting.

The model knows, for each channel, the buffer and the queues of who waits, in
order. An operation maps a world to all the worlds that may follow it: one,
unless select has several ready cases, or a waiting select stands in one queue
several times (then any of its places may be served).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from model_actors import WAITS, Outcome, raised, returned

import gort

ZERO: dict[str | None, Any] = {None: None, "i64": 0, "f64": 0.0, "u8": 0, "ptr": 0}


@dataclass(frozen=True)
class Case:
    """A case of select: `ch` is the number of a channel, None is the nil channel."""

    ch: int | None
    send: bool = False
    value: int = 0


@dataclass(frozen=True)
class Place:
    """A waiter's place in a queue: whose, which case (None: a plain send or receive), what it sends."""

    actor: int
    case: int | None = None
    value: int = 0
    wants_ok: bool = False


@dataclass
class Channel:
    cap: int
    dtype: str | None = None
    closed: bool = False
    buffer: tuple[int, ...] = ()
    receivers: tuple[Place, ...] = ()
    senders: tuple[Place, ...] = ()

    @property
    def zero(self) -> Any:
        return ZERO[self.dtype]

    def can_recv(self) -> bool:
        return bool(self.buffer or self.senders or self.closed)

    def can_send(self) -> bool:
        return bool(self.closed or self.receivers or len(self.buffer) < self.cap)


@dataclass
class ChanWorld:
    channels: list[Channel]
    outcomes: dict[int, Outcome] = field(default_factory=dict)

    def copy(self) -> ChanWorld:
        return ChanWorld([Channel(**vars(c)) for c in self.channels], dict(self.outcomes))

    # ---- queues ------------------------------------------------------------------

    def _leave(self, actor: int) -> None:
        for c in self.channels:
            c.receivers = tuple(p for p in c.receivers if p.actor != actor)
            c.senders = tuple(p for p in c.senders if p.actor != actor)

    def _serve(self, place: Place, outcome: Outcome) -> None:
        self._leave(place.actor)
        self.outcomes[place.actor] = outcome

    def _first(self, queue: tuple[Place, ...]) -> list[Place]:
        """The places that may be served next: all those of the first in the queue."""
        return [p for p in queue if p.actor == queue[0].actor]

    # ---- an operation that does not have to wait ----------------------------------------

    def _recv_now(self, ch: int) -> Iterator[tuple[ChanWorld, Any, bool]]:
        """Receive from a channel that can: (world after, value, ok)."""
        c = self.channels[ch]
        if not c.buffer and not c.senders:
            yield self.copy(), c.zero, False
            return
        for place in self._first(c.senders) if c.senders else [None]:
            world = self.copy()
            c = world.channels[ch]
            values = c.buffer
            if place:
                values += (place.value,)
                world._serve(place, returned(None if place.case is None else (place.case, None, True)))
            c.buffer = values[1:]
            yield world, values[0], True

    def _send_now(self, ch: int, value: int) -> Iterator[ChanWorld]:
        """Send to an open channel that can take it."""
        c = self.channels[ch]
        for place in self._first(c.receivers) if c.receivers else [None]:
            world = self.copy()
            if place is None:
                world.channels[ch].buffer += (value,)
            elif place.case is not None:
                world._serve(place, returned((place.case, value, True)))
            else:
                world._serve(place, returned((value, True) if place.wants_ok else value))
            yield world

    def _result(self, actor: int, outcome: Outcome) -> ChanWorld:
        self.outcomes[actor] = outcome
        return self

    # ---- the operations -------------------------------------------------------------------

    def send(self, actor: int, ch: int, value: int, how: str) -> Iterator[ChanWorld]:
        c = self.channels[ch]
        if c.closed:
            yield self.copy()._result(actor, raised(gort.ChanClosed))
        elif c.can_send():
            for world in self._send_now(ch, value):
                yield world._result(actor, returned())
        else:
            yield self._would_wait(actor, how, [(ch, True, Place(actor, value=value))])

    def recv(self, actor: int, ch: int, how: str, wants_ok: bool) -> Iterator[ChanWorld]:
        c = self.channels[ch]
        if not c.can_recv():
            yield self._would_wait(actor, how, [(ch, False, Place(actor, wants_ok=wants_ok))])
            return
        for world, value, ok in self._recv_now(ch):
            if wants_ok:
                yield world._result(actor, returned((value, ok)))
            else:
                yield world._result(actor, returned(value) if ok else raised(gort.ChanClosed))

    def close(self, actor: int, ch: int) -> Iterator[ChanWorld]:
        c = self.channels[ch]
        if c.closed:
            yield self.copy()._result(actor, raised(gort.ChanClosed))
            return
        worlds = [self.copy()]
        worlds[0].channels[ch].closed = True
        for waiter in dict.fromkeys(p.actor for p in c.receivers + c.senders):
            worlds = [after for world in worlds for after in world._woken_by_close(ch, waiter)]
        for world in worlds:
            yield world._result(actor, returned())

    def _woken_by_close(self, ch: int, waiter: int) -> Iterator[ChanWorld]:
        c = self.channels[ch]
        for place in c.receivers:
            if place.actor == waiter:
                if place.case is not None:
                    outcome = returned((place.case, c.zero, False))
                else:
                    outcome = returned((c.zero, False)) if place.wants_ok else raised(gort.ChanClosed)
                world = self.copy()
                world._serve(place, outcome)
                yield world
        for place in c.senders:
            if place.actor == waiter:
                world = self.copy()
                world._serve(place, raised(gort.ChanClosed))
                yield world

    def select(self, actor: int, cases: tuple[Case, ...], how: str) -> Iterator[ChanWorld]:
        ready = False
        for i, case in enumerate(cases):
            if case.ch is None:
                continue
            c = self.channels[case.ch]
            if case.send and c.can_send():
                ready = True
                if c.closed:
                    yield self.copy()._result(actor, raised(gort.ChanClosed))
                else:
                    for world in self._send_now(case.ch, case.value):
                        yield world._result(actor, returned((i, None, True)))
            elif not case.send and c.can_recv():
                ready = True
                for world, value, ok in self._recv_now(case.ch):
                    yield world._result(actor, returned((i, value, ok)))
        if not ready and how == "default":
            yield self.copy()._result(actor, returned((-1, None, False)))
        elif not ready:
            yield self._would_wait(
                actor,
                how,
                [(c.ch, c.send, Place(actor, i, c.value)) for i, c in enumerate(cases) if c.ch is not None],
            )

    def kill(self, actor: int) -> Iterator[ChanWorld]:
        world = self.copy()
        world._leave(actor)
        yield world._result(actor, raised(gort.GoroutineExit))

    def _would_wait(self, actor: int, how: str, places: list[tuple[int, bool, Place]]) -> ChanWorld:
        world = self.copy()
        if how == "nowait":
            return world._result(actor, raised(gort.WouldBlock))
        if how.startswith("timeout"):
            return world._result(actor, raised(TimeoutError))
        for ch, send, place in places:
            c = world.channels[ch]
            if send:
                c.senders += (place,)
            else:
                c.receivers += (place,)
        return world._result(actor, WAITS)
