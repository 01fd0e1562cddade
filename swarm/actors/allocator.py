"""Has a host process give memory back once a decode is done, so that many hosts fit a machine.

Owns two settings of two allocators. The C library keeps what was freed once large blocks came and went, and MKL keeps
the buffers of its matrix products; for a model of 100 MB both together came to 12 MB per host
(tests/benchmarks/bench_memory.py).
"""

from __future__ import annotations

import ctypes
import os

__all__ = ["return_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
LARGE_BYTES = 1 << 18


def return_freed_memory() -> bool:
    """Return large freed blocks of this process to the system from now on; call it before the first decode.

    Returns:
        Whether the C library has such a setting: glibc does.
    """
    os.environ.setdefault("MKL_DISABLE_FAST_MM", "1")  # MKL looks at it when it first allocates
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # A threshold that is set no longer grows with the largest block that was ever freed.
    return all(mallopt(option, LARGE_BYTES) == 1 for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD))
