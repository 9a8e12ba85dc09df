"""What the kernel says about this process: memory in bytes, threads, descriptors."""

import os


def _kib(path: str, key: str) -> int:
    with open(path) as file:
        for line in file:
            if line.startswith(key):
                return int(line.split()[1]) * 1024
    raise LookupError(f"{key} is not in {path}")


def rss() -> int:
    """Resident memory, counted page by page (statm is off by a few dozen pages)."""
    return _kib("/proc/self/smaps_rollup", "Rss:")


def page_tables() -> int:
    """Memory that the kernel spends on this process's page tables."""
    return _kib("/proc/self/status", "VmPTE:")


def weights() -> dict[str, int]:
    """What must not grow."""
    return {
        "bytes": rss() + page_tables(),
        "threads": len(os.listdir("/proc/self/task")),
        "descriptors": len(os.listdir("/proc/self/fd")),
    }
