"""Build collatz.pyx in a temporary directory and run it: python examples/native_cython

Needs Cython, setuptools and a C compiler: pip install gort[examples]
"""

import importlib
import sys
import tempfile
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Distribution, Extension

import gort
import gort.native


def build(source: Path, folder: str) -> None:
    """Compile the Cython module at `source` into `folder`."""
    extension = Extension(source.stem, [str(source)], include_dirs=[gort.get_include()])
    modules = cythonize([extension], build_dir=folder, quiet=True)
    command = Distribution({"ext_modules": modules}).get_command_obj("build_ext")
    command.build_lib = command.build_temp = folder
    command.ensure_finalized()
    command.run()


def main(limit: int = 1_000_000) -> None:
    with tempfile.TemporaryDirectory() as folder:
        build(Path(__file__).with_name("collatz.pyx"), folder)
        sys.path.insert(0, folder)
        gort.native.load_global()  # where the module finds gort_chan_send and its like
        collatz = importlib.import_module("collatz")
    number, steps = collatz.longest_chain(limit)
    print(f"below {limit:,} the longest Collatz chain starts at {number:,}: {steps} steps")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
