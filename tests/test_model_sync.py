"""Mutex, RWMutex, Semaphore and WaitGroup against the models of model_sync.py, driven by hypothesis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from model_actors import Actors, Mismatch
from model_sync import LockWorld, MutexWorld, RWMutexWorld, SemaphoreWorld, WaitGroupWorld

from gort.sync import Mutex, RWMutex, Semaphore, WaitGroup

ACTORS = 5
HOW = st.sampled_from(["wait", "wait", "wait", "timeout=0", "timeout=0.0001", "try"])
TIMEOUT = {"wait": None, "timeout=0": 0, "timeout=0.0001": 0.0001}
WHO = st.integers(0, ACTORS - 1)


class SyncMachine(RuleBasedStateMachine):
    """What the four machines share: actors told to call a method, and kill."""

    actors: Actors
    real: Any

    def begin(self, real: Any, world: LockWorld, line: str) -> None:
        self.real = real
        world.outcomes = dict.fromkeys(range(ACTORS), ("returned", None))
        self.actors = Actors(ACTORS, world, [line], lambda world: [])

    def do(
        self, who: int, name: str, args: tuple[int, ...], how: str, model: Callable[[Any, int], Iterator[LockWorld]]
    ) -> None:
        method = getattr(self.real, name if how != "try" else f"try_{name}")
        keywords = {"timeout": TIMEOUT[how]} if how.startswith("timeout") else {}
        text = ", ".join([f"x.{method.__name__}", *map(str, args)] + ([how] if keywords else []))
        self.actors.tell(who, text, lambda: method(*args, **keywords), model, how)

    @rule(who=WHO)
    def kill(self, who: int) -> None:
        self.actors.kill(who)

    def teardown(self) -> None:
        if hasattr(self, "actors"):
            self.actors.stop()


class MutexMachine(SyncMachine):
    make_mutex: Any = Mutex

    @initialize()
    def make(self) -> None:
        self.begin(type(self).make_mutex(), MutexWorld(), "x = gort.sync.Mutex()")

    @rule(who=WHO, how=HOW)
    def lock(self, who: int, how: str) -> None:
        self.do(who, "lock", (), how, lambda world, actor: world.lock(actor, how))

    @rule(who=WHO)
    def unlock(self, who: int) -> None:
        self.do(who, "unlock", (), "wait", lambda world, actor: world.unlock(actor))


class RWMutexMachine(SyncMachine):
    @initialize()
    def make(self) -> None:
        self.begin(RWMutex(), RWMutexWorld(), "x = gort.sync.RWMutex()")

    @rule(who=WHO, how=HOW)
    def lock(self, who: int, how: str) -> None:
        self.do(who, "lock", (), how, lambda world, actor: world.lock(actor, how))

    @rule(who=WHO, how=HOW)
    def rlock(self, who: int, how: str) -> None:
        self.do(who, "rlock", (), how, lambda world, actor: world.rlock(actor, how))

    @rule(who=WHO)
    def unlock(self, who: int) -> None:
        self.do(who, "unlock", (), "wait", lambda world, actor: world.unlock(actor))

    @rule(who=WHO)
    def runlock(self, who: int) -> None:
        self.do(who, "runlock", (), "wait", lambda world, actor: world.runlock(actor))


class SemaphoreMachine(SyncMachine):
    @initialize(size=st.integers(1, 5))
    def make(self, size: int) -> None:
        self.begin(Semaphore(size), SemaphoreWorld(size=size), f"x = gort.sync.Semaphore({size})")

    @rule(who=WHO, n=st.integers(1, 6), how=HOW)
    def acquire(self, who: int, n: int, how: str) -> None:
        self.do(who, "acquire", (n,), how, lambda world, actor: world.acquire(actor, n, how))

    @rule(who=WHO, n=st.integers(1, 5))
    def release(self, who: int, n: int) -> None:
        self.do(who, "release", (n,), "wait", lambda world, actor: world.release(actor, n))


class WaitGroupMachine(SyncMachine):
    @initialize()
    def make(self) -> None:
        self.begin(WaitGroup(), WaitGroupWorld(), "x = gort.sync.WaitGroup()")

    @rule(who=WHO, n=st.integers(-3, 3))
    def add(self, who: int, n: int) -> None:
        self.do(who, "add", (n,), "wait", lambda world, actor: world.add(actor, n))

    @rule(who=WHO)
    def done(self, who: int) -> None:
        self.do(who, "done", (), "wait", lambda world, actor: world.add(actor, -1))

    @rule(who=WHO, how=st.sampled_from(["wait", "wait", "timeout=0", "timeout=0.0001"]))
    def wait(self, who: int, how: str) -> None:
        self.do(who, "wait", (), how, lambda world, actor: world.wait(actor, how))


MODEL = settings(max_examples=200, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize(
    "machine",
    [MutexMachine, RWMutexMachine, SemaphoreMachine, WaitGroupMachine],
    ids=["Mutex", "RWMutex", "Semaphore", "WaitGroup"],
)
def test_it_does_what_the_model_allows(machine: Any) -> None:
    run_state_machine_as_test(machine, settings=MODEL)


class Careless:
    """A broken mutex: whoever times out has locked it all the same."""

    def __init__(self) -> None:
        self._mu = Mutex()

    def lock(self, timeout: float | None = None) -> None:
        if timeout is None:
            self._mu.lock()
        else:
            self._mu.try_lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mu, name)


def test_the_machine_finds_a_broken_mutex_and_shows_a_little_program() -> None:
    class OnBroken(MutexMachine):
        make_mutex = Careless

    with pytest.raises(Mismatch) as caught:
        run_state_machine_as_test(
            OnBroken,
            settings=settings(
                MODEL,
                database=None,
                derandomize=True,
                report_multiple_bugs=False,
                phases=[Phase.generate, Phase.shrink],
            ),
        )
    program = [line for line in str(caught.value).strip().split("\n") if line]
    assert program[0] == "x = gort.sync.Mutex()"
    assert "TimeoutError" in program[-1]
    assert len(program) <= 4, "\n".join(program)
