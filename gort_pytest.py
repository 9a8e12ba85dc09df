"""The pytest plugin `gort`: its options, and the switch to `gort.testing.plugin`.

pytest imports this in every environment in which gort is installed, by the entry
point in pyproject.toml. So it stands outside of the package and does not import
gort, whose import starts a runtime, until a test is to run as a goroutine. What
the options mean stands in `gort/testing/plugin.py` and docs/testing.md.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Generator

import pytest

MARKER = (
    "gort(enabled=True, *, leaks=True, panics=True, seed=None): run the test as a goroutine of its own, or do not; "
    "leaks=False lets goroutines be left, panics=False lets exceptions of goroutines go unseen, "
    "seed=N draws its schedule from N"
)


def seed(text: str) -> int | str:
    """A number, or "random"."""
    return text if text == "random" else int(text)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gort", "goroutines")
    group.addoption("--gort", action="store_true", help="run each test function as a goroutine")
    group.addoption(
        "--gort-seed",
        type=seed,
        metavar="N",
        help='as --gort, each test under a schedule drawn from N; "random" draws an N, which the header shows',
    )
    parser.addini("gort", "run each test function as a goroutine", type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)
    if config.option.gort_seed == "random":
        config.option.gort_seed = random.randrange(1 << 32)  # pytest-xdist hands it to its workers


def pytest_report_header(config: pytest.Config) -> str | None:
    n = config.option.gort_seed
    return None if n is None else f"gort: --gort-seed={n}"


def wanted(item: pytest.Function) -> bool:
    """Whether the test is to run as a goroutine."""
    marker = item.get_closest_marker("gort")
    if marker is not None:
        return bool(marker.args[0] if marker.args else marker.kwargs.get("enabled", True))
    config = item.config
    return bool(config.option.gort or config.option.gort_seed is not None or config.getini("gort"))


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    fn = pyfuncitem.obj
    if not wanted(pyfuncitem) or inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn):
        return (yield)
    from gort.testing.plugin import as_goroutine

    pyfuncitem.obj = as_goroutine(pyfuncitem, fn)
    try:
        return (yield)
    finally:
        pyfuncitem.obj = fn
