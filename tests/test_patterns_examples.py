"""The programs in examples/patterns run, and print what they should."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from model_support import program_env

EXAMPLES = Path(__file__).parent.parent / "examples" / "patterns"

OUTPUT = {
    "orders.py": """\
28 orders written, worth 324.50
8 refused with 404 NO_SUCH_ITEM
4 refused with 400 EMPTY_ORDER
""",
}


@pytest.mark.parametrize("name", sorted(p.name for p in EXAMPLES.glob("*.py")))
def test_an_example_prints_what_it_should(name: str) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        env=program_env(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == sorted(OUTPUT[name].splitlines())
