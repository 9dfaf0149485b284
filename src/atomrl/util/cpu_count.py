"""How many processor cores there are to use."""

from __future__ import annotations

import os


def cores() -> int:
    """Cores that this process may run on: what SLURM, cpusets or `taskset` leave it, where the system can tell."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
