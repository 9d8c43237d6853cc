"""Performance settings of the whole process: allocator, garbage collector and gRPC's engine."""

import ctypes
import gc
import os

_GRPC_EXPERIMENTS = "-event_engine_client,-event_engine_listener"

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>
_DEFAULT_THRESHOLDS = gc.get_threshold()
_FRAME_BYTES = 2 * 1024 * 1024
_KEPT_BYTES = 16 * 1024 * 1024


def keep_buffers() -> None:
    """Let the allocator keep freed buffers of up to 2 MiB for the next frame, 16 MiB in all.

    glibc returns freed memory above 128 KiB to the kernel, so that every frame causes page faults again.
    Other C libraries have no mallopt, and work without it.
    """
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_M_MMAP_THRESHOLD, _FRAME_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def collect_rarely() -> None:
    """Collect garbage once in 100,000 new objects until `settle_heap`; call it before the large imports.

    Imported modules are no garbage, and a look at all of them after each 700 objects takes a tenth of the
    processor time of a start.
    """
    gc.set_threshold(100_000)


def settle_heap() -> None:
    """Exclude all existing objects from later garbage collections, which come as often as Python's default.

    Call it when the process is set up.

    Modules and settings are most of the heap of a process that has just started, and a scan of them stops
    every connection for as long as it takes.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_DEFAULT_THRESHOLDS)


def choose_grpc_engine() -> None:
    """Let gRPC poll its sockets in its caller's thread; call before grpc is imported.

    Its newer engine passes every message through threads of its own, which costs a third of the processor
    time of a transfer and a third of a round trip. A release of gRPC without the choice ignores it, and an
    operator's own value stays.
    """
    os.environ.setdefault("GRPC_EXPERIMENTS", _GRPC_EXPERIMENTS)
