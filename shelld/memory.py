"""Settings of the C library's allocator for buffers of a frame's size, and of the garbage collector."""

from __future__ import annotations

import ctypes
import gc

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>
_KEPT_BYTES = 8 * 1024 * 1024
_DEFAULT_THRESHOLDS = gc.get_threshold()


def keep_buffers() -> None:
    """Let the allocator keep buffers of a frame's size instead of returning each to the kernel.

    By default glibc maps anything above 128 KiB anew and unmaps it when it is freed, so that every
    frame causes 256 page faults: two thirds of all processor time of a download, measured. Other
    C libraries have no mallopt, and need it less.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES // 4)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def collect_rarely() -> None:
    """Collect garbage once in 100,000 new objects until `settle_heap`; call it before the large imports.

    Imported modules are no garbage, and to look at them takes a tenth of the processor time of a start.
    """
    gc.set_threshold(100_000)


def settle_heap() -> None:
    """Exclude all existing objects from later collections, which come as often as Python's default."""
    gc.freeze()
    gc.set_threshold(*_DEFAULT_THRESHOLDS)
