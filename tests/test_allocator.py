"""Freed memory stays in the process: the kernel is asked once for a block that is used many times."""

import subprocess
import sys

import pytest

from atomrl.util.glibc_malloc import keep_freed_memory

FAULTS = """
import ctypes, resource, sys
from atomrl.util.glibc_malloc import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
assert "torch" not in sys.modules
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    block = ctypes.c_void_p(library.malloc(ctypes.c_size_t(64 << 20)))
    ctypes.memset(block, 1, 64 << 20)
    library.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc has mallopt")
def test_freed_blocks_are_used_again() -> None:
    assert faults("keep") < 0.3 * faults("leave")


def test_nothing_happens_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
