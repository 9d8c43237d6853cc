"""How the C library's allocator treats buffers of a frame's size."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>
_FRAME_BYTES = 2 * 1024 * 1024
_KEPT_BYTES = 16 * 1024 * 1024


def keep_buffers() -> None:
    """Have freed buffers of up to 2 MiB kept for the next frame, 16 MiB in all.

    glibc gives everything above 128 KiB back to the kernel when it is freed, so that every frame pays
    for its page faults anew. Other C libraries have no mallopt, and do without.
    """
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_M_MMAP_THRESHOLD, _FRAME_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
