"""Freed memory stays in the process: the kernel is asked once for a block that is used many times."""

import os
import subprocess
import sys

import pytest

from atomrl.util.glibc_malloc import keep_freed_memory

FAULTS = """
import ctypes, resource, sys
from pathlib import Path
from atomrl.util.glibc_malloc import freed_memory_kept, keep_freed_memory
assert "torch" not in sys.modules
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        block = ctypes.c_void_p(library.malloc(ctypes.c_size_t(64 << 20)))
        ctypes.memset(block, 1, 64 << 20)
        library.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])
if sys.argv[1] == "keep":
    keep_freed_memory()
if sys.argv[1] == "for a while":
    with freed_memory_kept():
        print(faults(), resident())
print(faults(), resident())
"""

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc has mallopt")


def faults(mode: str, **environment: str) -> list[list[int]]:
    """Page faults of the same work, and the pages that are resident after it; a pair for each time it was done."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, mode],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    return [[int(word) for word in line.split()] for line in done.stdout.splitlines()]


@LINUX
def test_freed_blocks_are_used_again() -> None:
    assert faults("keep")[0][0] < 0.3 * faults("leave")[0][0]


@LINUX
def test_a_program_that_goes_on_gets_its_memory_back() -> None:
    (kept, held), (handed_back, left) = faults("for a while")
    assert kept < 0.3 * handed_back
    assert left < 0.5 * held


@LINUX
@pytest.mark.parametrize(
    "environment", [{"MALLOC_TOP_PAD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072"}]
)
def test_what_the_environment_says_of_the_allocator_stands(environment: dict[str, str]) -> None:
    assert faults("keep", **environment)[0][0] > 0.7 * faults("leave")[0][0]


def test_nothing_happens_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
