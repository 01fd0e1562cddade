"""Where learning steps are computed: Ray tasks, or children of a run with the local pool; never in a host.

A child reads tasks from its standard input and ends when that does, so none outlives a run that was killed by more than
the step it is at.
"""

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, Protocol

from swarm.config.experiment import ExperimentConfig
from swarm.errors import SwarmError
from swarm.learn.accept import Outcome
from swarm.process.children import python_path
from swarm.process.machine import cores


class Task(Protocol):
    """Something to learn that can be sent to another process."""

    @property
    def title(self) -> str:
        """What it is, for people."""

    def compute(self) -> Outcome:
        """Do it; what it gives depends on the task alone."""


class RunTask(Task, Protocol):
    """One that belongs to a run, which says where it is computed."""

    @property
    def config(self) -> ExperimentConfig:
        """The experiment."""


_children: "list[_Child]" = []
_lock = threading.Lock()


def run_steps(tasks: Sequence[RunTask]) -> list[Outcome]:
    """Compute learning steps, several at a time; what each gives depends on it alone.

    Raises:
        SwarmError: one failed, and would again.
    """
    if not tasks:
        return []
    if tasks[0].config.runtime.pool == "ray":
        from swarm.actors.ray_tasks import run_tasks

        found: dict[int, Outcome] = {}
        titles = [task.title for task in tasks]
        run_tasks(_compute, [(task,) for task in tasks], found.__setitem__, titles=titles, device="cpu")
        return [found[index] for index in range(len(tasks))]
    count = min(len(tasks), cores())
    if count == 1 and len(tasks) == 1:
        return [_child(0).ask(tasks[0])]
    with ThreadPoolExecutor(count) as threads:
        parts = [tasks[index::count] for index in range(count)]
        done = list(threads.map(lambda index: [_child(index).ask(task) for task in parts[index]], range(count)))
    return [done[index % count][index // count] for index in range(len(tasks))]


def _compute(task: Task, device: str) -> Outcome:
    """Do a task; it computes on the CPU, wherever it is."""
    return task.compute()


def run_alone(task: Task) -> Outcome:
    """Compute one task in a child, whatever else there is.

    Raises:
        SwarmError: it failed, and would again.
    """
    return _child(0).ask(task)


def _child(index: int) -> "_Child":
    with _lock:
        while len(_children) <= index:
            _children.append(_Child())
        if _children[index].process.poll() is not None:
            _children[index] = _Child()
        return _children[index]


def close_children() -> None:
    """End all children."""
    while _children:
        _children.pop().close()


class _Child:
    """A child interpreter that computes one step after the other."""

    def __init__(self) -> None:
        # Ctrl-C is for the run: it ends its children.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "swarm.learn.workers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": python_path()},
            start_new_session=True,
        )

    def ask(self, task: Task) -> Outcome:
        """Return what a step came to.

        Raises:
            SwarmError: it failed, or the child died.
        """
        stdin, stdout = self.process.stdin, self.process.stdout
        if stdin is None or stdout is None:
            raise AssertionError
        try:
            pickle.dump(task, stdin)
            stdin.flush()
            answer = pickle.load(stdout)  # noqa: S301 - written by `main` below
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            code = self.process.wait()
            raise SwarmError(f"the {task.title} died (exit {code})") from error
        except BaseException:
            self.close()
            raise
        if isinstance(answer, str):
            raise SwarmError(f"the {task.title} failed: {answer}")
        found: Outcome = answer
        return found

    def close(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()


def main(source: BinaryIO, sink: BinaryIO) -> None:
    """Compute the steps that come in until no more do."""
    while True:
        try:
            task = pickle.load(source)  # noqa: S301 - written by `_Child.ask`
        except EOFError:
            return
        answer: Any
        try:
            answer = task.compute()
        except Exception as error:  # told to the run, which ends with it
            answer = f"{type(error).__name__}: {error}"
        pickle.dump(answer, sink)
        sink.flush()


if __name__ == "__main__":
    # What libraries print must not get among the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    main(sys.stdin.buffer, answers)
