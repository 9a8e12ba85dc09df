"""`python -m benchmarks.soak`: everything at once, for an hour, and nothing may be lost or grow.

The parts (`--list`, `_soak_parts.py`) run beside each other in *laps*. Within a
lap each part does round after round in one or more goroutines; at its end all of
them have come home, and there may be one goroutine, no native one, no thread and
no child process left of it. Then memory, threads and descriptors are weighed.
After warm-up (the first third of the laps) these must not grow.

It ends with 0, or at once with

- 1: something was lost, mixed up, left behind or has grown; the text says what;
- 3: no round of a worker ended for `--stuck` seconds: where all goroutines and
  threads stand is printed.

A crash is gort's own report, or a signal. `--seed` gives the same choices again,
though not the same interleaving; `--only` and `--without` find the guilty part.
"""

import argparse
import ctypes
import faulthandler
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from random import Random
from statistics import median
from typing import Any, NoReturn

import gort
import gort.native
from benchmarks import _proc
from benchmarks._soak_parts import (
    KILLABLE_PLACES,
    PARTS,
    PLACES,
    SIGNALS,
    Expected,
    Part,
    deepen,
    native_library,
    unseen,
)

ALARM = 0.02  # seconds between two SIGALRM
PROGRESS = 5.0  # seconds between two lines
# What may be had more at the end than after warm-up. Threads: how many Ms there are
# is how many goroutines ever blocked at once, so a record may still be set.
SLACK = {"bytes": 4 << 20, "threads": 6, "descriptors": 0}
SHARE = 0.02  # of the bytes
CROWD = 1000  # more goroutines than ever are at once


class Soak:
    """One run: what is going on, and what came out."""

    def __init__(self, parts: list[Part], seed: int, stuck: float) -> None:
        self.parts = parts
        self.seed = seed
        self.stuck = stuck
        self.began = time.monotonic()
        self.done: Counter[str] = Counter()
        self.rounds: Counter[str] = Counter()
        self.progress: dict[str, float] = {}  # worker -> when its last round ended
        self.stopping = True
        self.failure: str | None = None
        self.lap = 0
        self.weights: list[dict[str, int]] = []

    # -- running --
    def work(self, part: Part, worker: str) -> None:
        """One worker of a lap: rounds until it is to stop."""
        rng = Random(f"{self.seed} {self.lap} {worker}")
        try:
            while not self.stopping:
                self.progress[worker] = time.monotonic()
                n = part.round(rng)
                self.done[part.name] += n
                self.rounds[part.name] += 1
                gort.sleep(rng.random() * 0.02)
        except BaseException:
            self.fail(f"part {part.name}, seed {self.seed}, lap {self.lap}", traceback.format_exc())
        finally:
            self.progress.pop(worker, None)

    def run_lap(self, seconds: float) -> None:
        """All parts for so long; then nothing of them may be left."""
        self.lap += 1
        self.stopping = False
        end = time.monotonic() + seconds
        shown = time.monotonic()
        alarms = SIGNALS.alarms
        signal.setitimer(signal.ITIMER_REAL, ALARM, ALARM)
        workers = [gort.go(self.work, part, f"{part.name}/{k}") for part in self.parts for k in range(part.workers)]
        while time.monotonic() < end and not self.failure:
            # The handler raises only while the window is open, and shuts it: so
            # never outside the try.
            try:
                SIGNALS.window = True
                gort.sleep(0.05)
                SIGNALS.window = False
            except KeyboardInterrupt:
                SIGNALS.caught += 1
            if SIGNALS.unasked:
                self.fail("stopped by Ctrl-C")
            if time.monotonic() - shown >= PROGRESS:
                shown = time.monotonic()
                self.say()
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.stopping = True
        for g in workers:
            g.join()
        if self.failure:
            self.give_up()
        if SIGNALS.alarms == alarms:
            self.fail("no SIGALRM was handled in a lap")
        if SIGNALS.raised != SIGNALS.caught:
            self.fail(f"{SIGNALS.raised} KeyboardInterrupts were raised, the main goroutine saw {SIGNALS.caught}")
        self.nothing_left()

    def nothing_left(self) -> None:
        """Goroutines, threads and children of the lap are gone, at the latest after some seconds."""
        end = time.monotonic() + 30
        while left := self.left():
            gort.sleep(0.01)
            if time.monotonic() > end:
                self.fail(f"left behind by lap {self.lap}: {', '.join(left)}")
                self.give_up()
        if self.failure:
            self.give_up()

    def left(self) -> list[str]:
        """What a lap has left behind."""
        own = {threading.main_thread(), self.watchdog}
        threads = [t for t in threading.enumerate() if t not in own and not isinstance(t, threading._DummyThread)]
        found = [f"thread {t.name}" for t in threads]
        if gort.num_goroutine() > 1:
            found.append(f"{gort.num_goroutine() - 1} goroutines")
        if gort.native.num_goroutine():
            found.append(f"{gort.native.num_goroutine()} native goroutines")
        found += [f"process {p.pid}" for p in multiprocessing.active_children()]
        return found

    # -- weighing --
    def weigh(self) -> None:
        """Memory, threads and descriptors, while nothing goes on."""
        for _ in range(3):
            gc.collect()
        _libc.malloc_trim(0)
        self.weights.append(_proc.weights())
        self.say(" | lap's end")

    def grown(self) -> list[str]:
        """What is more at the end than after warm-up."""
        laps = len(self.weights)
        warm = self.weights[laps // 3 :]
        k = max(1, len(warm) // 3)
        found = []
        for what, slack in SLACK.items():
            first, last = (median(w[what] for w in part) for part in (warm[:k], warm[-k:]))
            if last > first + slack + (first * SHARE if what == "bytes" else 0):
                found.append(f"{what} from {first:,.0f} to {last:,.0f}")
        return found

    # -- telling --
    def say(self, more: str = "") -> None:
        """A line of progress."""
        w = _proc.weights()
        print(
            f"{time.monotonic() - self.began:7.0f} s  lap {self.lap}  {sum(self.done.values()):,} done in "
            f"{sum(self.rounds.values()):,} rounds  {w['bytes'] / 2**20:.1f} MB  {w['threads']} threads  "
            f"{w['descriptors']} fds{more}",
            flush=True,
        )

    def fail(self, what: str, details: str = "") -> None:
        """The first failure counts; the lap ends early."""
        if self.failure is None:
            self.failure = what
            print(f"FAILED: {what}\n{details}", flush=True)
            self.stopping = True

    def give_up(self) -> NoReturn:
        """No orderly end, for who knows what works."""
        self.summary()
        print(f"FAILED: {self.failure}", flush=True)
        sys.stderr.flush()
        os._exit(1)

    def summary(self) -> None:
        """What each part did."""
        for part in self.parts:
            print(f"  {part.name:14}{self.rounds[part.name]:>9,} rounds {self.done[part.name]:>12,} done")
        print(
            f"  signals: {SIGNALS.ints} SIGINT, {SIGNALS.caught} KeyboardInterrupts, {SIGNALS.users} SIGUSR1, "
            f"{SIGNALS.alarms} SIGALRM; the slowest handler began after {SIGNALS.worst * 1e3:.0f} ms, within "
            + ", ".join(
                f"{bound * 1e3:.0f} ms {100 * n / max(SIGNALS.ints + SIGNALS.users, 1):.2f} %"
                for bound, n in sorted(SIGNALS.within.items())
            )
        )

    # -- watching --
    def watch(self) -> None:
        """In a plain thread: has a worker been in one round for too long?"""
        while True:
            time.sleep(1.0)
            # Should even this thread come to a halt, because somebody keeps the GIL:
            faulthandler.dump_traceback_later(self.stuck + 30, exit=True)
            now = time.monotonic()
            late = {w: now - since for w, since in list(self.progress.items()) if now - since > self.stuck}
            if late:
                print(f"STUCK, seed {self.seed}, lap {self.lap}: no round ended of", flush=True)
                for worker, seconds in late.items():
                    print(f"  {worker} for {seconds:.0f} s", flush=True)
                faulthandler.dump_traceback(all_threads=True)
                print(gort.stack(all=True), file=sys.stderr, flush=True)
                os._exit(3)

    def start_watching(self) -> None:
        self.watchdog = threading.Thread(target=self.watch, name="watchdog", daemon=True)
        self.watchdog.start()

    # -- hooks: what nobody should see --
    def on_goroutine(self, g: Any, error: BaseException) -> None:
        if isinstance(error, Expected):
            unseen.add(1)
        else:
            self.fail(f"goroutine {g.id} ended in an exception", "".join(traceback.format_exception(error)))

    def on_thread(self, args: Any) -> None:
        self.fail(f"thread {args.thread} ended in an exception", "".join(traceback.format_exception(args.exc_value)))

    def on_unraisable(self, args: Any) -> None:
        if isinstance(args.exc_value, KeyboardInterrupt):  # the main goroutine was in a callback of the collector
            SIGNALS.caught += 1
            return
        details = "".join(traceback.format_exception(args.exc_value))
        self.fail(f"unraisable: {args.err_msg or ''} in {args.object!r}", details)


_libc = ctypes.CDLL(None)


def chosen(only: str, without: str) -> list[Part]:
    """The parts asked for; the places not to wait in are taken off their lists."""
    names = only.split(",") if only else list(PARTS)
    leave = without.split(",") if without else []
    places = {place.__name__.strip("_"): place for place in PLACES}
    if unknown := {*names} - PARTS.keys() | {*leave} - PARTS.keys() - places.keys():
        raise SystemExit(f"no such part: {', '.join(sorted(unknown))}; there are: {', '.join([*PARTS, *places])}")
    for name in leave:
        for kept in (PLACES, KILLABLE_PLACES):
            kept[:] = [place for place in kept if place is not places.get(name)]
    return [PARTS[name] for name in names if name not in leave]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="for how long (60)")
    parser.add_argument("--lap", type=float, help="seconds of a lap (a tenth of all, at least 3, at most 20)")
    parser.add_argument("--seed", type=int, help="of the random choices (one is made up and printed)")
    parser.add_argument("--only", default="", metavar="PART,...", help="these parts")
    parser.add_argument(
        "--without",
        default="",
        metavar="PART,...",
        help="all but these, for example fork,mp_fork; also odd places to wait in, for example in_del",
    )
    parser.add_argument("--stuck", type=float, default=120.0, help="seconds after which a round is stuck (120)")
    parser.add_argument("--list", action="store_true", help="show the parts")
    args = parser.parse_args()
    if args.list:
        for part in PARTS.values():
            print(f"{part.name:14}x{part.workers}  {part.about}")
        print(f"places to wait in: {', '.join(place.__name__.strip('_') for place in PLACES)}")
        return 0
    seed = args.seed if args.seed is not None else int.from_bytes(os.urandom(4))
    soak = Soak(chosen(args.only, args.without), seed, args.stuck)
    # Python warns of every fork beside threads; that it works is the question here.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    if any(part.name == "native" for part in soak.parts):
        native_library()
    gort.excepthook = soak.on_goroutine
    threading.excepthook, sys.unraisablehook = soak.on_thread, soak.on_unraisable
    signal.signal(signal.SIGINT, SIGNALS.on_int)
    signal.signal(signal.SIGUSR1, SIGNALS.on_user)
    signal.signal(signal.SIGALRM, SIGNALS.on_alarm)
    soak.start_watching()
    gort.go(deepen, CROWD).join()
    lap = args.lap or min(max(args.seconds / 10, 3.0), 20.0)
    print(f"seed {seed}, laps of {lap:g} s: {', '.join(part.name for part in soak.parts)}", flush=True)
    while time.monotonic() - soak.began < args.seconds:
        soak.run_lap(lap)
        soak.weigh()
    faulthandler.cancel_dump_traceback_later()
    soak.summary()
    if len(soak.weights) < 6:
        print("too short to see whether anything grows (6 laps are needed)")
    elif grown := soak.grown():
        print(f"FAILED: grown after warm-up: {', '.join(grown)}")
        return 1
    print("nothing was lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
