"""Channels and select against the model of model_chan.py, driven by hypothesis.

Several goroutines are told one operation at a time; after each, who waits and
who got what, lengths and closedness must be what the model allows. A failure
shrinks to a little program:

    a = gort.Chan(0)
    g0 = gort.go(a.send, 0)                     # g0 gets None

    # the model allows: g0 waits
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)
from model_actors import Actors, Mismatch
from model_chan import Case, Channel, ChanWorld

import gort

ACTORS = 4
NAMES = "abcd"

VALUES = st.integers(0, 9)
# How an operation is tried; timeouts of 0 and less do not wait, tiny ones really run out.
HOW = st.sampled_from(["wait"] * 6 + ["nowait", "timeout=0", "timeout=-1", "timeout=0.0001"])
TIMEOUT = {"wait": None, "nowait": None, "timeout=0": 0, "timeout=-1": -1, "timeout=0.0001": 0.0001}


class ChannelMachine(RuleBasedStateMachine):
    """`make_chan` may be replaced: the machine is tested on broken channels below."""

    make_chan: Any = gort.Chan

    actors: Actors

    @initialize(
        kinds=st.lists(
            st.tuples(st.integers(0, 3), st.sampled_from([None, "i64", "f64", "u8", "ptr"])), min_size=1, max_size=4
        )
    )
    def make(self, kinds: list[tuple[int, str | None]]) -> None:
        self.channels = [type(self).make_chan(cap, dtype=dtype) for cap, dtype in kinds]
        world = ChanWorld([Channel(cap, dtype) for cap, dtype in kinds])
        world.outcomes = dict.fromkeys(range(ACTORS), ("returned", None))
        program = [
            f"{name} = gort.Chan({cap}{f', dtype={dtype!r}' if dtype else ''})"
            for name, (cap, dtype) in zip(NAMES, kinds, strict=False)
        ]
        self.actors = Actors(ACTORS, world, program, self.look)

    def look(self, world: ChanWorld) -> list[str]:
        wrong = []
        for name, real, model in zip(NAMES, self.channels, world.channels, strict=False):
            if len(real) != len(model.buffer):
                wrong.append(f"len({name}) == {len(model.buffer)}, not {len(real)}")
            if real.closed != model.closed:
                wrong.append(f"{name}.closed is {model.closed}")
        if gort.num_goroutine() != 1 + ACTORS:
            wrong.append(f"{1 + ACTORS} goroutines, not {gort.num_goroutine()}")
        return wrong

    # ---- rules; `who` and `where` are taken modulo what there is --------------------------------
    # No preconditions: who is idle may depend on a random choice of select, and
    # hypothesis must see the same rules again when it replays a run.

    @rule(who=st.integers(0, 3), where=st.integers(0, 3), value=VALUES, how=HOW)
    def send(self, who: int, where: int, value: int, how: str) -> None:
        ch = where % len(self.channels)
        real, name = self.channels[ch], NAMES[ch]
        if how == "nowait":
            text, call = f"{name}.send_nowait, {value}", lambda: real.send_nowait(value)
        else:
            text, call = f"{name}.send, {value}{_keyword(how)}", lambda: real.send(value, timeout=TIMEOUT[how])
        self.actors.tell(who, text, call, lambda world, actor: world.send(actor, ch, value, how), how)

    @rule(who=st.integers(0, 3), where=st.integers(0, 3), how=HOW, ok=st.booleans())
    def recv(self, who: int, where: int, how: str, ok: bool) -> None:
        ch = where % len(self.channels)
        real, name = self.channels[ch], NAMES[ch]
        if how == "nowait":
            ok = False
            text, call = f"{name}.recv_nowait", real.recv_nowait
        else:
            method = "recv_ok" if ok else "recv"
            text = f"{name}.{method}{_keyword(how)}"
            call = lambda: getattr(real, method)(timeout=TIMEOUT[how])  # noqa: E731
        self.actors.tell(who, text, call, lambda world, actor: world.recv(actor, ch, how, ok), how)

    @rule(who=st.integers(0, 3), where=st.integers(0, 3))
    def close(self, who: int, where: int) -> None:
        ch = where % len(self.channels)
        self.actors.tell(
            who, f"{NAMES[ch]}.close", self.channels[ch].close, lambda world, actor: world.close(actor, ch)
        )

    @rule(
        who=st.integers(0, 3),
        cases=st.lists(st.tuples(st.integers(0, 4), st.booleans(), VALUES), max_size=5),
        how=st.sampled_from(["wait"] * 4 + ["default", "timeout=0", "timeout=0.0001"]),
    )
    def select(self, who: int, cases: list[tuple[int, bool, int]], how: str) -> None:
        model = tuple(Case(None if where == 4 else where % len(self.channels), send, v) for where, send, v in cases)
        real = [self._real_case(case) for case in model]
        keywords: dict[str, Any] = {"default": True} if how == "default" else {"timeout": TIMEOUT[how]}
        text = ", ".join(["gort.select", *map(_case_text, model)])
        text += ", default=True" if how == "default" else _keyword(how)
        self.actors.tell(
            who, text, lambda: gort.select(*real, **keywords), lambda world, actor: world.select(actor, model, how), how
        )

    def _real_case(self, case: Case) -> Any:
        ch = None if case.ch is None else self.channels[case.ch]
        return (ch, case.value) if case.send else ch

    @rule(who=st.integers(0, 3))
    def kill(self, who: int) -> None:
        self.actors.kill(who)

    def teardown(self) -> None:
        if hasattr(self, "actors"):
            self.actors.stop()


def _keyword(how: str) -> str:
    return f", {how}" if how.startswith("timeout") else ""


def _case_text(case: Case) -> str:
    name = "None" if case.ch is None else NAMES[case.ch]
    return f"({name}, {case.value})" if case.send else name


class NarrowMachine(ChannelMachine):
    """One or two channels: waiters pile up, selects meet selects."""

    @initialize(kinds=st.lists(st.tuples(st.integers(0, 1), st.sampled_from([None, "i64"])), min_size=1, max_size=2))
    def make(self, kinds: list[tuple[int, str | None]]) -> None:
        super().make(kinds)


MODEL = settings(max_examples=250, stateful_step_count=40, deadline=None)


def test_channels_and_select_do_what_the_model_allows() -> None:
    run_state_machine_as_test(ChannelMachine, settings=MODEL)


def test_crowded_channels_do_what_the_model_allows() -> None:
    run_state_machine_as_test(NarrowMachine, settings=MODEL)


# ---- the machine itself -------------------------------------------------------------------


class Roomy:
    """A broken channel: one more fits than it says."""

    def __init__(self, cap: int, dtype: Any = None) -> None:
        self._ch = gort.Chan(cap + 1, dtype=dtype)

    def __len__(self) -> int:
        return len(self._ch)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ch, name)


class Forgetful(Roomy):
    """A broken channel: every third value it is sent is lost."""

    def __init__(self, cap: int, dtype: Any = None) -> None:
        self._ch = gort.Chan(cap, dtype=dtype)
        self._sent = 0

    def send(self, value: Any, timeout: Any = None) -> None:
        self._sent += 1
        if self._sent % 3:
            self._ch.send(value, timeout=timeout)


# No explain phase, which would run the failing program hundreds of times more.
ONCE = settings(
    max_examples=200,
    stateful_step_count=15,
    deadline=None,
    database=None,
    derandomize=True,
    report_multiple_bugs=False,
    phases=[Phase.generate, Phase.shrink],
)


@pytest.mark.parametrize(("broken", "lines"), [(Roomy, 2), (Forgetful, 8)])
def test_the_machine_finds_a_broken_channel_and_shows_a_little_program(broken: Any, lines: int) -> None:
    class OnBroken(ChannelMachine):
        make_chan = broken

        @rule()
        def select(self) -> None:  # gort.select wants real channels
            pass

    with pytest.raises(Mismatch) as caught:
        run_state_machine_as_test(OnBroken, settings=ONCE)
    program = str(caught.value).strip().split("\n")
    assert program[0].startswith("a = gort.Chan(")
    assert any("gort.go(a." in line for line in program)
    assert "# the model allows: " in program[-1]
    assert len([line for line in program if line and not line.startswith("#")]) <= lines, "\n".join(program)
