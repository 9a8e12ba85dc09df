"""The directory of the recipes' servers, and the recipes' table at the end of the run."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
import runner

_rows: list[list[str]] = []


@pytest.fixture
def recipe_rows() -> list[list[str]]:
    """Rows for the table that ends the run."""
    return _rows


@pytest.fixture(scope="session")
def recipes_dir() -> Iterator[str]:
    """Where servers have their directories, and where the new databases are kept that they copy."""
    with tempfile.TemporaryDirectory(prefix="gort-recipes-") as folder:
        os.chmod(folder, 0o711)  # servers run as other users
        yield folder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _rows:
        return
    terminalreporter.section("recipes")
    for row in [runner.HEAD, *_rows]:
        terminalreporter.write_line("{:<58} {:<14} {:>8} {:>10} {:>7} {:>18}  {}".format(*row))
