"""Mutex, RWMutex, Semaphore and WaitGroup in plain Python, as model_chan.py does it for channels.

Where Go leaves the order open (may readers that wait behind a waiting writer
go in when a writer unlocks?) the model allows each order that keeps the
promises: exclusion, no one left waiting who could go in, FIFO among equals.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from model_actors import WAITS, Outcome, raised, returned

import gort


@dataclass
class LockWorld:
    """One structure: `queue` has who waits (actor, kind or weight), in order of coming."""

    outcomes: dict[int, Outcome] = field(default_factory=dict)
    queue: tuple[tuple[int, int], ...] = ()

    def copy(self) -> LockWorld:
        return type(self)(**{**vars(self), "outcomes": dict(self.outcomes)})

    def after(self, actor: int, outcome: Outcome) -> LockWorld:
        self.outcomes[actor] = outcome
        return self

    def fails(self, actor: int, error: type[BaseException]) -> Iterator[LockWorld]:
        yield self.copy().after(actor, raised(error))

    def would_wait(self, actor: int, what: int, how: str) -> Iterator[LockWorld]:
        world = self.copy()
        if how == "try":
            world.outcomes[actor] = returned(False)
        elif how.startswith("timeout"):
            world.outcomes[actor] = raised(TimeoutError)
        else:
            world.queue += ((actor, what),)
            world.outcomes[actor] = WAITS
        yield world

    def got(self, how: str) -> Outcome:
        return returned(True) if how == "try" else returned()

    def admit(self) -> Iterator[LockWorld]:
        """Let in who can go in now; every allowed order."""
        raise NotImplementedError

    def kill(self, actor: int) -> Iterator[LockWorld]:
        world = self.copy()
        world.queue = tuple(w for w in world.queue if w[0] != actor)
        world.outcomes[actor] = raised(gort.GoroutineExit)
        yield from world.admit()

    def enter(self, places: list[tuple[int, int]]) -> LockWorld:
        """These waiters go in: off the queue, their calls return."""
        world = self.copy()
        world.queue = tuple(w for w in world.queue if w not in places)
        for actor, _ in places:
            world.outcomes[actor] = returned()
        return world


@dataclass
class MutexWorld(LockWorld):
    locked: bool = False

    def lock(self, actor: int, how: str) -> Iterator[LockWorld]:
        if self.locked:
            yield from self.would_wait(actor, 0, how)
        else:
            world = self.copy()
            world.locked = True
            yield world.after(actor, self.got(how))

    def unlock(self, actor: int) -> Iterator[LockWorld]:
        if not self.locked:
            yield from self.fails(actor, RuntimeError)
            return
        world = self.copy().after(actor, returned())
        world.locked = False
        yield from world.admit()

    def admit(self) -> Iterator[LockWorld]:
        if self.locked or not self.queue:
            yield self
            return
        world = self.enter([self.queue[0]])
        world.locked = True
        yield world


READER, WRITER = 0, 1


@dataclass
class RWMutexWorld(LockWorld):
    readers: int = 0
    writer: bool = False

    def rlock(self, actor: int, how: str) -> Iterator[LockWorld]:
        if self.writer or any(kind == WRITER for _, kind in self.queue):
            yield from self.would_wait(actor, READER, how)
        else:
            world = self.copy()
            world.readers += 1
            yield world.after(actor, self.got(how))

    def lock(self, actor: int, how: str) -> Iterator[LockWorld]:
        if self.writer or self.readers:
            yield from self.would_wait(actor, WRITER, how)
        else:
            world = self.copy()
            world.writer = True
            yield world.after(actor, self.got(how))

    def runlock(self, actor: int) -> Iterator[LockWorld]:
        if not self.readers:
            yield from self.fails(actor, RuntimeError)
            return
        world = self.copy().after(actor, returned())
        world.readers -= 1
        yield from world.admit()

    def unlock(self, actor: int) -> Iterator[LockWorld]:
        if not self.writer:
            yield from self.fails(actor, RuntimeError)
            return
        world = self.copy().after(actor, returned())
        world.writer = False
        yield from world.admit()

    def admit(self) -> Iterator[LockWorld]:
        readers = [w for w in self.queue if w[1] == READER]
        writers = [w for w in self.queue if w[1] == WRITER]
        if self.writer or not self.queue or (self.readers and not readers):
            yield self
            return
        if self.readers:
            # Behind the first writer nobody goes in; before it all do.
            first = self._first_readers()
            if first:
                yield self._with_readers(first)
            else:
                yield self
            return
        if writers and (not readers or self.queue[0][1] == WRITER):
            world = self.enter([writers[0]])
            world.writer = True
            yield world
        if readers:
            # Go: all who wait; a strict queue: those before the first writer.
            yield self._with_readers(readers)
            if first := self._first_readers():
                yield self._with_readers(first)

    def _first_readers(self) -> list[tuple[int, int]]:
        first = []
        for w in self.queue:
            if w[1] == WRITER:
                break
            first.append(w)
        return first

    def _with_readers(self, places: list[tuple[int, int]]) -> LockWorld:
        world = self.enter(places)
        world.readers += len(places)
        return world


@dataclass
class SemaphoreWorld(LockWorld):
    size: int = 1
    held: int = 0
    # Who asked for more than there is waits aside and holds up nobody.
    hopeless: tuple[int, ...] = ()

    def acquire(self, actor: int, n: int, how: str) -> Iterator[LockWorld]:
        if n > self.size:
            for world in self.would_wait(actor, n, how):
                world.queue = tuple(w for w in world.queue if w[0] != actor)
                if world.outcomes[actor] == WAITS:
                    world.hopeless += (actor,)
                yield world
        elif self.queue or self.held + n > self.size:
            yield from self.would_wait(actor, n, how)
        else:
            world = self.copy()
            world.held += n
            yield world.after(actor, self.got(how))

    def release(self, actor: int, n: int) -> Iterator[LockWorld]:
        if n > self.held:
            yield from self.fails(actor, RuntimeError)
            return
        world = self.copy().after(actor, returned())
        world.held -= n
        yield from world.admit()

    def admit(self) -> Iterator[LockWorld]:
        world = self
        while world.queue and world.held + world.queue[0][1] <= world.size:
            n = world.queue[0][1]
            world = world.enter([world.queue[0]])
            world.held += n
        yield world

    def kill(self, actor: int) -> Iterator[LockWorld]:
        for world in super().kill(actor):
            world.hopeless = tuple(a for a in world.hopeless if a != actor)
            yield world


@dataclass
class WaitGroupWorld(LockWorld):
    count: int = 0

    def add(self, actor: int, n: int) -> Iterator[LockWorld]:
        if self.count + n < 0:
            yield from self.fails(actor, RuntimeError)
            return
        world = self.copy().after(actor, returned())
        world.count += n
        yield from world.admit()

    def wait(self, actor: int, how: str) -> Iterator[LockWorld]:
        if self.count:
            yield from self.would_wait(actor, 0, how)
        else:
            yield self.copy().after(actor, returned())

    def admit(self) -> Iterator[LockWorld]:
        yield self if self.count else self.enter(list(self.queue))
