"""What makes the process fast and belongs to no module: the allocator, the collector and gRPC's engine."""

import ctypes
import gc
import os

_GRPC_EXPERIMENTS = "-event_engine_client,-event_engine_listener"

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


def settle_heap() -> None:
    """Keep what was made until now out of every later garbage collection; call when all is built.

    Modules and settings are most of the heap of a process that has just begun, and looking through them
    again stops every connection for as long.
    """
    gc.collect()
    gc.freeze()


def choose_grpc_engine() -> None:
    """Have gRPC poll its sockets in its caller's thread; call before grpc is imported.

    Its newer engine hands every message through threads of its own, which costs a third of the processor
    time of a transfer and a third of a round trip. A release of gRPC without the choice ignores it, and what
    an operator set stays.
    """
    os.environ.setdefault("GRPC_EXPERIMENTS", _GRPC_EXPERIMENTS)
