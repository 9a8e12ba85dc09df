"""Build gort's one extension module, gort._core._runtime.

It is the Cython module gort/_core/_runtime.pyx linked with the C runtime in
csrc/. Cython builds the former as usual; the latter is compiled here, because
its flags are its own: strict warnings for our sources, none for Cython's.

Environment: GORT_DEBUG_BUILD=1 (assertions, -O1 -g3), GORT_WERROR=1 (warnings
in our own C are errors; CI sets it). Everything else stands in pyproject.toml.
"""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Distribution, Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
DEBUG = os.environ.get("GORT_DEBUG_BUILD", "0") not in ("", "0")
WERROR = os.environ.get("GORT_WERROR", "0") not in ("", "0")
MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}

# For Cython's C file as well. initial-exec: the current G is one load away, and
# the library is loaded once and for good, so the static TLS block has room.
# -g: tools/gort-gdb.py reads the runtime's structures, and CPython's, by these types.
COMMON = ["-std=gnu11", "-fno-strict-aliasing", "-fvisibility=hidden", "-ftls-model=initial-exec", "-g"]
COMMON += ["-O1", "-g3", "-DGORT_DEBUG_LEVEL=2"] if DEBUG else ["-O2"]
# For csrc/ only. -fno-exceptions: some distributions' Python hands its own -fexceptions on (see g0_entry).
STRICT = ["-fno-exceptions", "-Wall", "-Wextra", *(["-Werror"] if WERROR else [])]


def paths(*patterns: str) -> list[str]:
    """What matches under this directory, relative to it as setuptools wants it."""
    return sorted(str(p.relative_to(ROOT)) for pattern in patterns for p in ROOT.glob(pattern))


def runtime_sources() -> list[str]:
    """The C runtime: csrc/*.c and the context switch of this machine."""
    machine = MACHINES.get(platform.machine().lower())
    if not sys.platform.startswith("linux") or machine is None:
        sys.exit(f"gort runs on Linux on x86-64 and aarch64, not on {sys.platform} {platform.machine()}")
    return paths("csrc/*.c", f"csrc/switch_{machine}.S")


class BuildExt(build_ext):
    """Compile csrc/ with its own flags and hand the objects to the linker."""

    def build_extension(self, ext: Extension) -> None:
        objdir = Path("build") / f"obj-{sys.implementation.cache_tag}{getattr(sys, 'abiflags', '')}"
        stamp = self.flags_stamp(objdir, [*self.compiler.compiler_so, *COMMON, *STRICT])
        # A change of a header or of the flags recompiles and relinks everything.
        headers = [*paths("csrc/*.h", "csrc/include/*.h"), stamp]
        ext.depends = [*ext.depends, *runtime_sources(), *headers]
        if ".S" not in self.compiler.src_extensions:
            self.compiler.src_extensions = [*self.compiler.src_extensions, ".S"]

        def compile_one(source: str) -> str:
            obj = objdir / (source + ".o")
            newest = max(os.path.getmtime(f) for f in (source, *headers))
            if self.force or not obj.exists() or obj.stat().st_mtime <= newest:
                made = self.compiler.compile(
                    [source],
                    output_dir=str(objdir),
                    include_dirs=ext.include_dirs,
                    extra_postargs=[*COMMON, *STRICT],
                )
                os.replace(made[0], obj)
            return str(obj)

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            ext.extra_objects = list(pool.map(compile_one, runtime_sources()))
        super().build_extension(ext)  # runs Cython

    @staticmethod
    def flags_stamp(objdir: Path, flags: list[str]) -> str:
        """The file that holds the flags the objects were made with; new when they differ."""
        stamp = objdir / "flags.txt"
        if not stamp.exists() or stamp.read_text() != " ".join(flags):
            objdir.mkdir(parents=True, exist_ok=True)
            stamp.write_text(" ".join(flags))
        return str(stamp)


extension = Extension(
    "gort._core._runtime",
    sources=["gort/_core/_runtime.pyx"],
    depends=paths("gort/_core/*.pyx", "gort/_core/*.pxi", "gort/**/*.pxd"),
    # pyctx.c includes CPython's internal headers, some of which look beside themselves.
    include_dirs=["csrc/include", "csrc", f"{sysconfig.get_path('include')}/internal"],
    extra_compile_args=COMMON,
    extra_link_args=["-pthread", "-Wl,-z,noexecstack"],
)

# gunicorn looks for a worker's plain name among its own only, entry points included. This file, which Python reads when
# it starts, adds `-k gort`, in processes whose command line names gunicorn. It goes beside the packages, also if the
# install is editable.
SITE_PACKAGES = os.path.relpath(sysconfig.get_path("purelib"), sysconfig.get_path("data"))


class Dist(Distribution):
    """editable_wheel asks for data files by this name, which Distribution does not know."""

    def has_data(self) -> bool:
        return bool(self.data_files)


setup(
    distclass=Dist,
    # visualize/ needs nothing of the runtime and so lives apart; gort/visualize
    # is to be a symlink to it, as gort/include/gort.h is one to the C header, and
    # gort/gort-gdb.py to the gdb script.
    packages=find_packages(include=["gort", "gort.*"]),
    py_modules=["gort_pytest"],
    # Said explicitly, so that an editable install is a line in a .pth file: Cython
    # finds `cimport gort` only on sys.path.
    package_dir={"": "."},
    package_data={"": ["py.typed", "*.pyi", "*.pxd"], "gort": ["include/*.h"]},
    include_package_data=False,
    data_files=[(SITE_PACKAGES, ["gort/gort-gunicorn.pth"])],
    ext_modules=[extension],
    cmdclass={"build_ext": BuildExt},
    zip_safe=False,
)
