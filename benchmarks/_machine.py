"""What a figure means nothing without: the machine, the versions, the settings."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

from benchmarks import _peers


def _read(path: str, pattern: str = r"(?s)(.*)") -> str | None:
    try:
        found = re.search(pattern, Path(path).read_text())
    except OSError:
        return None
    return found[1].strip() if found else None


def _git(*args: str) -> str | None:
    try:
        done = subprocess.run(["git", *args], cwd=_peers.ROOT, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def machine() -> dict[str, object]:
    """The machine and its kernel, and the settings that memory figures depend on."""
    return {
        "cpu": _read("/proc/cpuinfo", r"model name\s*:\s*(.*)") or platform.processor(),
        "arch": platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": sorted(os.sched_getaffinity(0)),
        "memory_kb": int(_read("/proc/meminfo", r"MemTotal:\s*(\d+)") or 0),
        "kernel": platform.release(),
        "transparent_hugepage": _read("/sys/kernel/mm/transparent_hugepage/enabled"),
        "max_map_count": _read("/proc/sys/vm/max_map_count"),
        "load_at_start": os.getloadavg(),
    }


def versions() -> dict[str, str | None]:
    """Python, libc, the compiler, gort's commit, and every peer (None: not there)."""
    cc = subprocess.run(["cc", "--version"], capture_output=True, text=True).stdout
    dirty = " with local changes" if _git("status", "--porcelain") else ""
    commit = _git("rev-parse", "HEAD")
    return {
        "python": sys.version,
        "libc": " ".join(platform.libc_ver()),
        "cc": (cc.splitlines() or [""])[0],
        "commit": f"{commit}{dirty}" if commit else None,
        **{name: _peers.version_of(name) for name in _peers.RUNTIMES},
    }
