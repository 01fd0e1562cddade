"""Has a host process give memory back when it has nothing to do, so that many hosts fit a machine.

Owns the trimming of two allocators. After large blocks came and went the C library keeps their room, and MKL keeps the
buffers of its matrix products; for a model of 100 MB both together come to 12 MB per host. Giving back after every
decode would cost up to two thirds of the speed (experiments/LOG.md, 2026-11-23), so it is done in pauses.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["PauseTrimmer"]


class PauseTrimmer:
    """Trims this process once in every pause of its work.

    Args:
        pause_s: idle time after which memory is given back.
        trim: gives it back.
    """

    def __init__(self, pause_s: float = 1.0, trim: Callable[[], None] | None = None) -> None:
        self._pause_s = pause_s
        self._trim = trim or give_back
        self._at_work = threading.Lock()
        self._worked = threading.Event()
        threading.Thread(target=self._watch, daemon=True, name="pause-trimmer").start()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Mark what runs inside as work: nothing is trimmed meanwhile."""
        with self._at_work:
            try:
                yield
            finally:
                self._worked.set()

    def _watch(self) -> None:
        while True:
            self._worked.wait()
            self._worked.clear()
            if self._worked.wait(self._pause_s):
                continue
            with self._at_work:
                if not self._worked.is_set():  # else work filled the pause while this waited for its end
                    self._trim()


def give_back() -> None:
    """Return what this process has freed to the system, as far as its libraries can."""
    import torch

    # The call exists in builds of torch with MKL, the other one in glibc.
    for library, function, arguments in (
        (str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"), "mkl_serv_free_buffers", ()),
        (None, "malloc_trim", (0,)),
    ):
        try:
            getattr(ctypes.CDLL(library), function)(*arguments)
        except (OSError, AttributeError):
            continue
