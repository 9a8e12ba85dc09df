"""Goroutines that are told one operation at a time, and the comparison of what they did with a model.

A machine (test_model_*.py) gives `Actors.tell` an operation and the set of
worlds the model allows after it. When all goroutines are at rest, each actor
has finished its operation or waits; only the worlds that say the same remain.
None left is the failure, reported as a little program.

A world is any object with `outcomes`: what each actor's last operation came
to, or WAITS. A model may allow several worlds (a random choice of select, for
example); what is seen decides among them, so nothing is assumed of the choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from model_support import spin_until

import gort

WAITS = ("waits",)
Outcome = tuple[Any, ...]


def returned(value: object = None) -> Outcome:
    return ("returned", value)


def raised(error: type[BaseException]) -> Outcome:
    return ("raised", error.__name__)


class World(Protocol):
    outcomes: dict[int, Outcome]


@dataclass
class Step:
    """One line of the program: `text`, and how the outcomes changed."""

    text: str
    notes: list[str]

    def __str__(self) -> str:
        return f"{self.text:<44}# {'; '.join(self.notes)}" if self.notes else self.text


class Actor:
    """A goroutine that runs the calls from its inbox and keeps the outcome of each."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.inbox: Any = gort.Chan(1)
        self.outcome: Outcome = returned()
        self.busy = False
        self.timed = False
        self.goroutine = gort.go(self._work)

    def _work(self) -> None:
        for call in self.inbox:
            try:
                outcome = returned(call())
            except (Exception, gort.GoroutineExit) as error:
                outcome = raised(type(error))
            self.outcome = outcome
            self.busy = False

    def tell(self, call: Callable[[], object], timed: bool) -> None:
        assert not self.busy
        self.busy, self.timed = True, timed
        self.inbox.send(call)

    def at_rest(self) -> bool:
        """Done with what it was told, or waiting; a wait with a timeout is no rest."""
        if self.busy:
            return self.goroutine.state == "waiting" and not self.timed
        return self.goroutine.state in ("waiting", "dead")

    def seen(self) -> Outcome:
        return WAITS if self.busy else self.outcome

    def stop(self) -> None:
        if self.busy:
            self.goroutine.kill()
        self.inbox.close()
        self.goroutine.join()


class Mismatch(AssertionError):
    """The model allows nothing of what was seen; the text is the program that shows it."""


class Actors:
    """The actors of one run, the worlds still possible, and the program so far."""

    def __init__(self, n: int, world: Any, setup: list[str], look: Callable[[Any], list[str]]) -> None:
        """`look(world)` names what of the structures themselves contradicts a world."""
        self.actors = [Actor(i) for i in range(n)]
        self.worlds = [world]
        self.program = [Step(line, []) for line in setup]
        self.look = look
        self.settle()

    def settle(self) -> None:
        spin_until(lambda: all(a.at_rest() for a in self.actors), "the actors at rest")

    def tell(
        self, who: int, text: str, call: Callable[[], object], model: Callable[[Any, int], Iterable[Any]], how: str = ""
    ) -> None:
        """Let an idle actor run `call`, if one is; `model(world, actor)` is what may be afterwards.

        `who` is taken modulo the number of idle ones. A call tried with a
        timeout that is not over at once is waited for until it is.
        """
        if idle := [a for a in self.actors if not a.busy]:
            actor = idle[who % len(idle)]
            n = actor.number
            worlds = [after for world in self.worlds for after in model(world, n)]
            self._step(f"g{n} = gort.go({text})", lambda: actor.tell(call, how == "timeout=0.0001"), worlds, n)

    def kill(self, who: int) -> None:
        """Kill a waiting actor, if one is: its call ends in GoroutineExit, which it survives."""
        if waiting := [a for a in self.actors if a.busy]:
            actor = waiting[who % len(waiting)]
            worlds = [after for world in self.worlds for after in world.kill(actor.number)]
            self._step(f"g{actor.number}.kill()", actor.goroutine.kill, worlds)

    def _step(self, text: str, act: Callable[[], object], allowed: list[Any], teller: int | None = None) -> None:
        before = {a.number: a.seen() for a in self.actors}
        act()
        self.settle()
        seen = {a.number: a.seen() for a in self.actors}
        notes = [_note(i, outcome) for i, outcome in sorted(seen.items()) if i == teller or outcome != before[i]]
        self.program.append(Step(text, notes))
        complaints = []
        self.worlds = []
        for world in allowed:
            wrong = [f"g{i} {_words(world.outcomes[i])}" for i in seen if world.outcomes[i] != seen[i]] or self.look(
                world
            )
            if wrong:
                complaints.append(" and ".join(wrong))
            elif world not in self.worlds:
                self.worlds.append(world)
        if not self.worlds:
            raise Mismatch(self.listing(complaints))

    def listing(self, complaints: list[str]) -> str:
        lines = ["", *map(str, self.program), ""]
        lines += [f"# the model allows: {c}" for c in dict.fromkeys(complaints)]
        return "\n".join(lines)

    def stop(self) -> None:
        for a in self.actors:
            a.stop()


def _words(outcome: Outcome) -> str:
    if outcome == WAITS:
        return "waits"
    kind, what = outcome
    return f"gets {what!r}" if kind == "returned" else f"gets {what}"


def _note(actor: int, outcome: Outcome) -> str:
    return f"g{actor} {_words(outcome)}"
