"""How long does it take to hash, or to compress, a tree of files?

Files of 1 MB in a few folders, in the page cache; each is read whole and its
SHA-256 taken, or compressed by zlib. Reading, hashing and compressing release
the GIL, so whoever runs them in several threads uses all cores. gort does so
where nobody asked for threads: four goroutines take paths from a channel and
send what came out on another, Go's usual pipeline.

`gevent` and `asyncio` call in their one thread. `asyncio-threads`,
`gevent-threads` and `threading` use a pool of four threads.
"""

import asyncio
import hashlib
import tempfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks._beside import text
from benchmarks._workload import Body, Metric, Workload, check

FOLDERS, WORKERS = 8, 4
SIZE = 1 << 20

Digest = Callable[[Path], str]
Walk = Callable[[Digest, list[Path]], dict[Path, str]]


def sha256(path: Path) -> str:
    """As in `sha256sum`."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def compress(path: Path) -> str:
    """How many bytes it comes to, and the checksum of these."""
    packed = zlib.compress(path.read_bytes())
    return f"{len(packed)} {zlib.crc32(packed):08x}"


@contextmanager
def tree(files: int) -> Iterator[list[Path]]:
    """Files of differing contents, in folders."""
    prose = text(SIZE, 1)
    with tempfile.TemporaryDirectory() as root:
        paths = [Path(root, str(i % FOLDERS), f"{i}.txt") for i in range(files)]
        for i, path in enumerate(paths):
            path.parent.mkdir(exist_ok=True)
            cut = i * 4099 % SIZE
            path.write_bytes(prose[cut:] + prose[:cut])
        yield [path for folder in sorted(Path(root).iterdir()) for path in sorted(folder.iterdir())]


def _gort(digest: Digest, paths: list[Path]) -> dict[Path, str]:
    from gort import Chan, go

    todo: Chan[Path] = Chan()
    done: Chan[tuple[Path, str]] = Chan()

    def work() -> None:
        for path in todo:
            done.send((path, digest(path)))

    def feed() -> None:
        for path in paths:
            todo.send(path)
        todo.close()

    for worker in [feed] + [work] * WORKERS:
        go(worker)
    return dict(done.recv() for _ in paths)


def _gevent(digest: Digest, paths: list[Path]) -> dict[Path, str]:
    from gevent.pool import Pool

    found: dict[Path, str] = dict(zip(paths, Pool(WORKERS).map(digest, paths), strict=True))
    return found


def _gevent_threads(digest: Digest, paths: list[Path]) -> dict[Path, str]:
    import gevent

    pool: Any = gevent.get_hub().threadpool
    pool.maxsize = WORKERS
    return dict(zip(paths, pool.map(digest, paths), strict=True))


def _threading(digest: Digest, paths: list[Path]) -> dict[Path, str]:
    with ThreadPoolExecutor(WORKERS) as pool:
        return dict(zip(paths, pool.map(digest, paths), strict=True))


async def _asyncio(digest: Digest, paths: list[Path]) -> dict[Path, str]:
    async def work(path: Path) -> str:
        return digest(path)

    return dict(zip(paths, await asyncio.gather(*map(work, paths)), strict=True))


async def _asyncio_threads(digest: Digest, paths: list[Path]) -> dict[Path, str]:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(WORKERS) as pool:
        jobs = [loop.run_in_executor(pool, digest, path) for path in paths]
        return dict(zip(paths, await asyncio.gather(*jobs), strict=True))


WALKS: dict[str, Walk] = {
    "gort": _gort,
    "gevent": _gevent,
    "gevent-threads": _gevent_threads,
    "threading": _threading,
}
ASYNC_WALKS = {"asyncio": _asyncio, "asyncio-threads": _asyncio_threads}


def _plain(digest: Digest, walk: Walk) -> Body:
    def run(n: int) -> dict[str, float]:
        with tree(n) as paths:
            start = perf_counter()
            found = walk(digest, paths)
            seconds = perf_counter() - start
            _check(digest, paths, found)
        return {"ns": seconds * 1e9 / n}

    return run


def _async(digest: Digest, walk: Callable[[Digest, list[Path]], Any]) -> Body:
    async def run(n: int) -> dict[str, float]:
        with tree(n) as paths:
            start = perf_counter()
            found = await walk(digest, paths)
            seconds = perf_counter() - start
            _check(digest, paths, found)
        return {"ns": seconds * 1e9 / n}

    return run


def _check(digest: Digest, paths: list[Path], found: dict[Path, str]) -> None:
    check(found.keys(), set(paths))
    check(found[paths[-1]], digest(paths[-1]))


def _files(name: str, question: str, digest: Digest, n: int) -> Workload:
    metric = Metric("ns", "ns per file of 1 MB", question)
    workload = Workload(f"files_{name}", question, (metric,), n=n, n_quick=8, repeat=1, procs=2, go=False)
    for peer, walk in WALKS.items():
        workload.peer(peer)(_plain(digest, walk))
    for peer, async_walk in ASYNC_WALKS.items():
        workload.peer(peer)(_async(digest, async_walk))
    workload.lacks("go", "its zlib and SHA-256 are others")
    return workload


SHA256 = _files("sha256", "the SHA-256 of each file of a tree", sha256, 300)
ZLIB = _files("zlib", "each file of a tree compressed", compress, 48)
