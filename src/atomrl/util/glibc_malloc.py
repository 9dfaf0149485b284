"""The C library's memory allocator, told to keep what a program frees.

glibc asks the kernel for each block above a threshold (at most 32 MiB) and hands it back when it is freed. A step of
training on a CPU allocates and frees hundreds of pair tensors of that size, so it spends a good part of its time on
pages that the kernel maps, clears and unmaps again. Kept in the process, they are used again at once.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4
"""Numbers of the parameters, from glibc's malloc.h; `man mallopt` says what they do."""

MAPPED_FROM = 1 << 30
"""Bytes. Larger blocks are still mapped and handed back: they are few, and to keep them would cost memory."""

PAD = 200 << 20
"""Bytes asked for beyond what is needed whenever the heap grows, so that it grows seldom."""

NEVER = -1
"""As a threshold of trimming: never hand memory at the top of the heap back."""

USUAL = {M_MMAP_THRESHOLD: 32 << 20, M_TRIM_THRESHOLD: 64 << 20, M_TOP_PAD: 128 << 10, M_MMAP_MAX: 65536}
"""What glibc itself comes to in a process that once freed a block of 32 MiB: the thresholds follow what is freed."""

TOLD = ("mmap_threshold", "trim_threshold", "top_pad", "mmap_max")
"""The same parameters, as the environment names them: `MALLOC_TOP_PAD_`, `GLIBC_TUNABLES=glibc.malloc.top_pad=...`."""


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Around a part of a program: its process keeps freed memory, and at the end hands back what is free.

    For a process that is not ours alone, such as a notebook's, which goes on with other work.
    """
    kept = keep_freed_memory()
    try:
        yield
    finally:
        if kept:
            library = ctypes.CDLL(None)
            for name, value in USUAL.items():
                library.mallopt(ctypes.c_int(name), ctypes.c_int(value))
            library.malloc_trim(ctypes.c_size_t(0))


def keep_freed_memory() -> bool:
    """Keep freed memory in this process, for the rest of its life; child processes are not affected.

    Call it before the first tensor is made. It changes how fast memory is had, and nothing that is computed.

    Returns:
        Whether it was done; False where nothing happens: on a system without glibc, and where the environment says
        what the allocator shall do.
    """
    if not sys.platform.startswith("linux") or _told():
        return False
    library = ctypes.CDLL(None)
    if not (hasattr(library, "gnu_get_libc_version") and hasattr(library, "mallopt")):
        return False  # another C library, e.g. musl
    settings = [(M_TRIM_THRESHOLD, NEVER), (M_TOP_PAD, PAD)]
    done = all(library.mallopt(ctypes.c_int(name), ctypes.c_int(value)) == 1 for name, value in settings)
    # Older versions refuse a threshold above 32 MiB; there blocks of any size come from the heap.
    threshold = library.mallopt(ctypes.c_int(M_MMAP_THRESHOLD), ctypes.c_int(MAPPED_FROM)) == 1
    return done and (threshold or library.mallopt(ctypes.c_int(M_MMAP_MAX), ctypes.c_int(0)) == 1)


def _told() -> bool:
    """Whether the user's environment sets what we would."""
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    return any(f"glibc.malloc.{name}=" in tunables or f"MALLOC_{name.upper()}_" in os.environ for name in TOLD)
