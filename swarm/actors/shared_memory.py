"""Makes shared weights unwritable for this process.

Owns one system call. Ray maps its object store writable, and torch does not know read-only memory: an in-place
operation on a weight would silently change it for every host. After `protect`, such a write kills the host that tried
it (SIGSEGV), which the pool records as a host death, and nobody's weights change.
"""

import ctypes
import mmap
import os
from collections.abc import Iterable
from typing import Any

import numpy as np


def protect(arrays: Iterable[np.ndarray[Any, Any]]) -> None:
    """Forbid this process to write to arrays that lie in shared memory: the whole pages between the first and the last.

    Args:
        arrays: read-only arrays of one object of the store; writable ones are private and left alone.

    Raises:
        OSError: the kernel refuses.
    """
    spans = [(a.ctypes.data, a.ctypes.data + a.nbytes) for a in arrays if a.nbytes and not a.flags.writeable]
    # Only whole pages can be protected; the ones at both ends may hold something else of the store.
    start = -(-min((low for low, _ in spans), default=0) // mmap.PAGESIZE) * mmap.PAGESIZE
    size = max((high for _, high in spans), default=0) // mmap.PAGESIZE * mmap.PAGESIZE - start
    libc = ctypes.CDLL(None, use_errno=True)
    if size > 0 and libc.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(size), mmap.PROT_READ) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mprotect of shared weights: {os.strerror(number)}")
