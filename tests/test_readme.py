"""README.md's Python programs run, and print what stands below them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from model_support import program_env

README = Path(__file__).parent.parent / "README.md"

# A Python block, and the text block that follows it directly, if one does.
PROGRAM = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)


def programs() -> list[object]:
    text = README.read_text(encoding="utf-8")
    found = PROGRAM.finditer(text)
    return [pytest.param(*m.groups(), id=f"line {text.count(chr(10), 0, m.start()) + 1}") for m in found]


@pytest.mark.parametrize(("source", "expected"), programs())
def test_readme_program_prints_what_is_written(source: str, expected: str | None, tmp_path: Path) -> None:
    if "import cffi" in source:
        pytest.importorskip("cffi")
    (tmp_path / "tour.py").write_text(source, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "tour.py"],
        cwd=tmp_path,
        env=program_env(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.replace(f"{tmp_path}/", "") == (expected or "")


def test_every_python_block_of_the_readme_was_found() -> None:
    blocks = README.read_text(encoding="utf-8").count("```python\n")
    assert len(programs()) == blocks > 0
