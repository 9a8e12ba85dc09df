"""Digest every file of a directory tree with bounded goroutines, and pass a token round a big ring.

The first half is the bounded pipeline of "Go Concurrency Patterns: Pipelines
and cancellation" (go.dev/blog/pipelines): one goroutine walks the tree, a fixed
number of goroutines digest what it finds, and the main goroutine collects. A
`done` channel, closed at the first error, stops them all. The same work is then
done with threads and with asyncio, and all the results must be the same.

Reading and hashing block, so the digesters hand them to `gort.blocking`, which
runs them on other OS threads; the goroutines only wait and pass on.

    python examples/digest.py [PATH] [--workers N] [--ring N] [--no-peers]
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TextIO

import gort
from gort import sync


@dataclass(frozen=True, slots=True)
class File:
    """A file and what came of digesting it."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that could not be read, and why; sent where a `File` was expected."""

    error: OSError


class Progress:
    """A line that is rewritten ten times a second on a terminal; elsewhere only what is finished shows."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._live = out.isatty()
        self._next = 0.0

    def show(self, text: str) -> None:
        """Put `text` in the place of the line, if it is time to."""
        if self._live and time.monotonic() >= self._next:
            self._next = time.monotonic() + 0.1
            print(f"\r\x1b[K{text}", end="", file=self._out, flush=True)

    def finish(self, text: str = "") -> None:
        """Wipe the line; `text` stands in its place for good."""
        print("\r\x1b[K" * self._live + text, end="\n" if text else "", file=self._out, flush=True)
        self._next = 0.0


Tally = Callable[[File], None]  # called with every file as it comes in


# ---- what all three ways share ------------------------------------------------


def list_directory(path: str, skip: frozenset[str]) -> tuple[list[str], list[str]]:
    """The subdirectories and the regular files in `path`; links and devices are left out."""
    directories, files = [], []
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in skip:
                    directories.append(entry.path)
            elif entry.is_file(follow_symlinks=False):
                files.append(entry.path)
    return directories, files


def digest_file(path: str) -> File:
    try:
        with open(path, "rb", buffering=0) as f:
            digest = hashlib.file_digest(f, "sha256")
            return File(path, f.tell(), digest.hexdigest())
    except OSError as error:
        error.filename = path  # which read() does not say
        raise


def ordered(files: Iterable[File]) -> list[File]:
    return sorted(files, key=lambda f: f.path)


# ---- goroutines ----------------------------------------------------------------


def walk(
    root: str, skip: frozenset[str], paths: gort.Chan[str], failed: gort.Chan[Failure], done: gort.Chan[None]
) -> None:
    """Send every file below `root`; stop early when `done` is closed. Closes `paths`."""
    with closing(paths):
        waiting = [root]
        while waiting:
            try:
                directories, files = gort.blocking(list_directory, waiting.pop(), skip)
            except OSError as error:
                failed.send(Failure(error))
                return
            waiting += directories
            for path in files:
                if gort.select((paths, path), done)[0] == 1:
                    return


def digester(paths: gort.Chan[str], results: gort.Chan[File | Failure], done: gort.Chan[None]) -> None:
    """Digest what comes in until there is no more, or nobody wants it."""
    for path in paths:
        result: File | Failure
        try:
            result = gort.blocking(digest_file, path)
        except OSError as error:
            result = Failure(error)
        if gort.select((results, result), done)[0] == 1:
            return


def digest_with_goroutines(root: str, skip: frozenset[str], workers: int, tally: Tally) -> list[File]:
    """Digest the tree; the first error cancels the rest and is raised. No goroutine outlives the call."""
    done = gort.Chan[None]()
    paths = gort.Chan[str](workers)
    failed = gort.Chan[Failure](1)  # room for the one that walk() may send, so it never waits there
    results = gort.Chan[File | Failure](workers)
    stages = sync.WaitGroup()

    stages.go(walk, root, skip, paths, failed, done)
    for _ in range(workers):
        stages.go(digester, paths, results, done)

    def close_results() -> None:
        stages.wait()
        results.close()

    closer = gort.go(close_results)
    files = []
    try:
        for result in results:
            if isinstance(result, Failure):
                raise result.error
            tally(result)
            files.append(result)
        if len(failed):
            raise failed.recv().error
    finally:
        done.close()
        closer.join()
    return ordered(files)


# ---- the same with threads, and with asyncio --------------------------------------


def digest_with_threads(root: str, skip: frozenset[str], workers: int, tally: Tally) -> list[File]:
    files = []
    with ThreadPoolExecutor(workers) as pool:
        try:
            futures, waiting = [], [root]
            while waiting:
                directories, paths = list_directory(waiting.pop(), skip)
                waiting += directories
                futures += [pool.submit(digest_file, path) for path in paths]
            for future in futures:
                files.append(future.result())
                tally(files[-1])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return ordered(files)


def digest_with_asyncio(root: str, skip: frozenset[str], workers: int, tally: Tally) -> list[File]:
    files = []

    async def walk(paths: asyncio.Queue[str | None]) -> None:
        waiting = [root]
        while waiting:
            directories, found = await asyncio.to_thread(list_directory, waiting.pop(), skip)
            waiting += directories
            for path in found:
                await paths.put(path)
        for _ in range(workers):
            await paths.put(None)

    async def digester(paths: asyncio.Queue[str | None]) -> None:
        while (path := await paths.get()) is not None:
            file = await asyncio.to_thread(digest_file, path)
            tally(file)
            files.append(file)

    async def main() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(workers))
        paths: asyncio.Queue[str | None] = asyncio.Queue(workers)
        async with asyncio.TaskGroup() as group:  # cancels the rest at the first error
            group.create_task(walk(paths))
            for _ in range(workers):
                group.create_task(digester(paths))

    try:
        asyncio.run(main())
    except* OSError as errors:
        first: BaseException = errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None
    return ordered(files)


# ---- the ring -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ring:
    """What the ring cost."""

    start: float  # seconds, for all of it
    hop: float  # seconds
    resident: float  # bytes for each member and its channel


def resident_bytes() -> int:
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def member(left: gort.Chan[int], right: gort.Chan[int]) -> None:
    """Pass on every token, counted up by one; end, and tell the next, when the ring is closed."""
    for token in left:
        right.send(token + 1)
    right.close()


def run_ring(size: int, laps: int, progress: Progress) -> Ring:
    before, start = resident_bytes(), time.perf_counter()
    first = left = gort.Chan[int]()
    members = []
    for n in range(size):
        right = gort.Chan[int]()
        members.append(gort.go(member, left, right))
        left = right
        if n % 1000 == 0:
            progress.show(f"  {n:,} goroutines")
    last = left

    def lap() -> None:
        first.send(0)
        if (token := last.recv()) != size:
            raise RuntimeError(f"the token came back as {token}, not {size}")

    lap()  # after it, everybody has run and waits
    started, resident = time.perf_counter() - start, (resident_bytes() - before) / size

    start = time.perf_counter()
    for n in range(laps):
        progress.show(f"  lap {n + 1} of {laps}")
        lap()
    hop = (time.perf_counter() - start) / (laps * size)

    first.close()
    for m in members:
        m.join()
    return Ring(started, hop, resident)


# ---- the program ---------------------------------------------------------------


def arguments() -> argparse.Namespace:
    def number(least: int) -> Callable[[str], int]:
        def convert(text: str) -> int:
            if (n := int(text)) < least:
                raise argparse.ArgumentTypeError(f"must be at least {least}")
            return n

        return convert

    parser = argparse.ArgumentParser(description="Digest a directory tree with goroutines, then run a ring of them.")
    parser.add_argument("path", nargs="?", help="the tree to digest (default: Python's standard library)")
    parser.add_argument(
        "--workers", type=number(1), default=4 * gort.num_cpu(), help="digesters at work at once (default: %(default)s)"
    )
    parser.add_argument(
        "--ring", type=number(0), default=100_000, metavar="N", help="goroutines in the ring (default: %(default)s)"
    )
    parser.add_argument("--laps", type=number(1), default=10, help="rounds of the token (default: %(default)s)")
    parser.add_argument("--no-peers", action="store_true", help="goroutines only, no threads and no asyncio")
    return parser.parse_args()


WAYS = {"goroutines": digest_with_goroutines, "threads": digest_with_threads, "asyncio": digest_with_asyncio}


def digest_tree(args: argparse.Namespace, progress: Progress) -> None:
    """Digest the tree in each way, a line for each, and compare the results."""
    # What pip installed is no part of the library, and caches differ from one run to the next.
    root = args.path or sysconfig.get_path("stdlib")
    skip = frozenset() if args.path else frozenset({"site-packages", "dist-packages", "__pycache__"})
    print(f"sha256 of every file below {root}, {args.workers} at once")

    def run(name: str) -> tuple[list[File], str]:
        count = size = 0

        def tally(file: File) -> None:
            nonlocal count, size
            count += 1
            size += file.size
            progress.show(f"  {name:<12}{count:>7,} files {size / 1e6:>9,.1f} MB")

        start = time.perf_counter()
        files = WAYS[name](root, skip, args.workers, tally)
        seconds = time.perf_counter() - start
        rate = size / 1e6 / seconds
        return files, f"  {name:<12}{count:>7,} files {size / 1e6:>9,.1f} MB {seconds:>8.3f} s {rate:>9,.1f} MB/s"

    names = ["goroutines"] if args.no_peers else list(WAYS)
    if len(names) > 1:
        run(names[0])  # not counted: the one that goes first would wait for the disk
    results = []
    for name in names:
        files, line = run(name)
        progress.finish(line)
        results.append(files)
    if any(files != results[0] for files in results):
        raise RuntimeError("the results differ; did the tree change meanwhile?")
    if len(names) > 1:
        print(f"  all {len(names)} results are the same")

    whole = hashlib.sha256()
    for file in results[0]:
        whole.update(os.fsencode(f"{file.sha256}  {os.path.relpath(file.path, root)}\n"))
    print(f"  digest of the {len(results[0]):,} lines 'sha256  path' in order: {whole.hexdigest()}")


def main() -> int:
    args = arguments()
    progress = Progress(sys.stdout)
    try:
        digest_tree(args, progress)
    except OSError as error:
        progress.finish()
        left = gort.num_goroutine() - 1
        print(f"digest.py: cannot read {error.filename}: {error.strerror} ({left} goroutines left)", file=sys.stderr)
        return 1
    except RuntimeError as error:
        print(f"digest.py: {error}", file=sys.stderr)
        return 1
    if args.ring:
        print(f"a token in a ring of {args.ring:,} goroutines, {args.laps} laps")
        ring = run_ring(args.ring, args.laps, progress)
        progress.finish(
            f"  up in {ring.start:.2f} s, {ring.resident / 1e3:.1f} KB each with its channel,"
            f" {ring.hop * 1e9:,.0f} ns a hop"
        )
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
