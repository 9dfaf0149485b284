"""The C library's memory allocator, told to keep what a program frees.

glibc asks the kernel for each block above a threshold (at most 32 MiB) and hands it back when it is freed. A step of
training on a CPU allocates and frees hundreds of pair tensors of that size, so it spends a good part of its time on
pages that the kernel maps, clears and unmaps again. Kept in the process, they are used again at once.
"""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4
"""Numbers of the parameters, from glibc's malloc.h; `man mallopt` says what they do."""

MAPPED_FROM = 1 << 30
"""Bytes. Larger blocks are still mapped and handed back: they are few, and to keep them would cost memory."""

PAD = 200 << 20
"""Bytes asked for beyond what is needed whenever the heap grows, so that it grows seldom."""

NEVER = -1
"""As a threshold of trimming: never hand memory at the top of the heap back."""


def keep_freed_memory() -> bool:
    """Keep freed memory in this process, for the rest of its life; child processes are not affected.

    Call it before the first tensor is made. It changes how fast memory is had, and nothing that is computed.

    Returns:
        Whether it was done; False on a system without glibc, where nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not (hasattr(library, "gnu_get_libc_version") and hasattr(library, "mallopt")):
        return False  # another C library, e.g. musl
    settings = [(M_TRIM_THRESHOLD, NEVER), (M_TOP_PAD, PAD)]
    done = all(library.mallopt(ctypes.c_int(name), ctypes.c_int(value)) == 1 for name, value in settings)
    # Older versions refuse a threshold above 32 MiB; there blocks of any size come from the heap.
    threshold = library.mallopt(ctypes.c_int(M_MMAP_THRESHOLD), ctypes.c_int(MAPPED_FROM)) == 1
    return done and (threshold or library.mallopt(ctypes.c_int(M_MMAP_MAX), ctypes.c_int(0)) == 1)
