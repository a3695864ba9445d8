"""Keeps freed memory in the process, so that each block does not pay for fresh pages.

Blocks and packs come and go by the megabyte. glibc gives such memory back to the kernel at once and takes it anew for
the next block, page fault by page fault, which costs encoding a fifth of its time and decoding a third.
"""

from __future__ import annotations

import ctypes
import os

from fairlead.sync.store.codec import BLOCK_MAX_BYTES

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8
# The most that glibc takes as the threshold, and far above the blocks.
_FROM_HEAP_UP_TO = 4 * BLOCK_MAX_BYTES
_KEPT_BYTES = 256 * 2**20
_GROWN_BY = 64 * 2**20


def keep_freed_memory() -> bool:
    """Let this process keep up to 256 MiB that it freed; whether its C library can be told so (glibc can).

    For processes that move bytes for a living: it changes how the whole process allocates, and is harmless to repeat.
    """
    if "CS_GNU_LIBC_VERSION" not in os.confstr_names or not os.confstr("CS_GNU_LIBC_VERSION"):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = (
        # Threads that share one heap find there what another one freed.
        (_M_ARENA_MAX, 1),
        (_M_MMAP_THRESHOLD, _FROM_HEAP_UP_TO),
        (_M_TRIM_THRESHOLD, _KEPT_BYTES),
        (_M_TOP_PAD, _GROWN_BY),
    )
    return sum(mallopt(ctypes.c_int(name), ctypes.c_int(value)) for name, value in settings) == len(settings)
