"""Work in threads that do not keep the process alive.

Python waits at exit for the threads of a `ThreadPoolExecutor`, also for one that hangs in a name look-up or in a model
that never returns, which nothing can cancel.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

_Job = tuple[Callable[[], Any], "Future[Any]"]


class DaemonThread:
    """One thread that carries out calls in turn."""

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while job := self._jobs.get():
            call, outcome = job
            try:
                outcome.set_result(call())
            except BaseException as error:  # raised again where the result is read
                outcome.set_exception(error)

    def submit(self, call: Callable[[], Any]) -> "Future[Any]":
        """Queue a call and return its outcome to come."""
        outcome: Future[Any] = Future()
        outcome.set_running_or_notify_cancel()  # so that a result that comes too late is not an error
        self._jobs.put((call, outcome))
        return outcome

    def stop(self, wait_s: float = 0.0) -> None:
        """End the thread once it has returned from what it does, and wait for that, at most so long."""
        self._jobs.put(None)
        self._thread.join(wait_s)
