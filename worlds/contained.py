"""A function in a child interpreter, with limits of time and memory; and worlds that run there.

Owns the child: it gets JSON and returns JSON over a socket, one call at a time, imports what this process can import
but nothing from the current folder, and ends with this process, however that ends. For code that may hang where no
signal reaches it, swallow every exception, or eat the memory; it is no wall against code that means harm.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from itertools import count
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from worlds.checked import CheckedWorld, answer, checked
from worlds.entry_points import load
from worlds.protocol import World, WorldError
from worlds.registry import build, make, world_class
from worlds.results import LIMIT_S, MAX_BYTES, CallError, plain, text_of

START_S = 60.0
"""How long an interpreter may take to start."""

_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from worlds.contained import serve; serve(*sys.argv[2:])"
)


class Contained:
    """A function in a child interpreter; one that dies or is late is ended, and the next call starts another.

    Args:
        function: "package.module:function", whose arguments and result are JSON-able.
        memory_mb: address space of the child, in MiB.

    Attributes:
        lock: held during a call.
        life: a number that changes when a child ends, and with it whatever it held.
    """

    def __init__(self, function: str, memory_mb: int) -> None:
        self.function, self.memory_mb = function, memory_mb
        self.lock = threading.RLock()
        self.life = 0
        self._child: tuple[subprocess.Popen[bytes], Connection] | None = None
        self._end: Callable[[], object] = lambda: None

    def is_running(self) -> bool:
        """Return whether there is a child."""
        if self._child is not None and self._child[0].poll() is not None:
            self.close()  # it has ended while nothing was asked
        return self._child is not None

    def __call__(self, arguments: Sequence[Any], limit_s: float = LIMIT_S) -> bytes:
        """Return what the function returns, as JSON text.

        Raises:
            CallError: it raised, was late, ended its process, or returned what is no data.
        """
        with self.lock:
            try:
                if not self.is_running():
                    self._exchange(*self._start(), None, START_S)
                return self._exchange(*self._start(), json.dumps(arguments).encode(), limit_s)
            except CallError:
                raise
            except BaseException:  # an answer that comes yet would be taken for that to the next call
                self.close()
                raise

    def _start(self) -> tuple[subprocess.Popen[bytes], Connection]:
        """Return the child; start it, if there is none."""
        if self._child is not None:
            return self._child
        ours, its = Pipe()
        path = json.dumps([folder for folder in sys.path if folder])
        arguments = [path, str(its.fileno()), self.function, str(self.memory_mb), str(os.getpid())]
        with its:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-c", _BOOT, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # what a world prints is no answer
                pass_fds=[its.fileno()],
                start_new_session=True,  # Ctrl-C is for this process, which then ends the child
            )
        self._child = process, ours
        self._end = weakref.finalize(self, _end, process, ours)
        return self._child

    def _exchange(
        self, process: subprocess.Popen[bytes], line: Connection, request: bytes | None, limit_s: float
    ) -> bytes:
        reply, fault = b"", f"took longer than {limit_s:g} s"
        try:
            if request is not None:
                line.send_bytes(request)
            if line.poll(limit_s):
                reply = line.recv_bytes(MAX_BYTES + 1)
        except (EOFError, OSError):
            fault = "ended its process"
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(1)
                fault += f" by {signal.Signals(-code).name}" if code < 0 else f" with exit code {code}"
        if not reply:
            self.close()
            raise CallError(fault)
        if reply[:1] == b"-":
            raise CallError(reply[1:].decode())
        return reply[1:]

    def close(self) -> None:
        """End the child, if there is one."""
        self.life += 1
        self._child = None
        self._end()


def _end(process: subprocess.Popen[bytes], line: Connection) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    line.close()


def serve(line: str, function: str, memory_mb: str, parent: str) -> None:
    """Answer calls until the other end is closed; the main function of the child."""
    _end_with(int(parent))
    _limit_memory(int(memory_mb) * 2**20)
    with Connection(int(line)) as there, suppress(EOFError, OSError):
        try:
            call = load(function, f"function {function!r}", CallError)
            there.send_bytes(b"+")
        except CallError as error:
            there.send_bytes(b"-" + str(error).encode(errors="replace"))
            os._exit(1)
        while True:
            arguments = json.loads(there.recv_bytes())
            try:
                reply = b"+" + text_of(partial(call, *arguments))
            except CallError as error:
                reply = b"-" + str(error).encode(errors="replace")
            there.send_bytes(reply)
    os._exit(0)  # whatever threads there still are


def _end_with(parent: int) -> None:
    """Have this process killed when its parent ends; where the system cannot do that, it ends at its next call."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it has ended before
            os._exit(0)


def _limit_memory(limit: int) -> None:
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = limit if most == resource.RLIM_INFINITY else min(limit, most)
    with suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


# Worlds.

_worlds: dict[int, World] = {}
"""In the child: the worlds that run there."""


def world_answer(gone: Sequence[int], number: int, name: str, arguments: Sequence[Any]) -> Any:
    """Answer for a world of the child; to `make`, return why there is none, None where there is one.

    Args:
        gone: worlds that nobody asks any more.
        number: of the world.
        name: attribute or method.
        arguments: of the method.
    """
    for other in gone:
        _worlds.pop(other, None)
    if name == "make":
        path, num_agents, options = arguments
        try:
            _worlds[number] = build(load(path, f"world {path}", WorldError), num_agents, options)
        except WorldError as error:
            return str(error)
        return None
    if name == "sample_action":
        agent, directive, state = arguments
        rng = _random(state)
        return _worlds[number].sample_action(agent, directive, rng), rng.getstate()
    return answer(_worlds[number], name, arguments)


def _random(state: Sequence[Any]) -> random.Random:
    """Return a generator in a state that has gone through JSON."""
    version, numbers, gauss = state
    rng = random.Random()  # noqa: S311  a policy, not a secret
    rng.setstate((version, tuple(numbers), gauss))
    return rng


class _Shared(Contained):
    """The child that worlds share; `gone` are those that nobody asks any more."""

    def __init__(self, memory_mb: int) -> None:
        super().__init__(f"{__name__}:world_answer", memory_mb)
        self.gone: list[int] = []


_shared = cache(_Shared)
_numbers = count()


class _Far:
    """Asks a world in the child. In a new child it is brought to where it was: all it does follows from its calls."""

    def __init__(self, making: Sequence[Any], limit_s: float, memory_mb: int) -> None:
        self._child, self._limit_s = _shared(memory_mb), limit_s
        self._number, self._life = next(_numbers), -1
        self._past: list[tuple[str, Sequence[Any]]] = [("make", making)]
        weakref.finalize(self, self._child.gone.append, self._number)

    def __call__(self, name: str, arguments: Sequence[Any]) -> bytes:
        if name == "make":
            return self._ask(*self._past[0])
        with self._child.lock:
            if not self._child.is_running() or self._life != self._child.life:
                for call in self._past:
                    self._ask(*call)
            if name == "sample_action":
                agent, directive, rng = arguments
                said, state = json.loads(self._ask(name, (agent, directive, rng.getstate())))
                rng.setstate(_random(state).getstate())
                return json.dumps(said).encode()
            found = self._ask(name, arguments)
        if name == "reset":
            del self._past[1:]
        if name in ("reset", "step"):
            self._past.append((name, arguments))
        return found

    def _ask(self, name: str, arguments: Sequence[Any]) -> bytes:
        self._life = self._child.life
        gone = [self._child.gone.pop() for _ in list(self._child.gone)]
        limit_s = max(self._limit_s, START_S) if name == "make" else self._limit_s
        return self._child((gone, self._number, name, arguments), limit_s)


def open_checked(
    world_id: str,
    num_agents: int,
    options: Mapping[str, Any] | None = None,
    limit_s: float = LIMIT_S,
    contained_mb: int | None = None,
) -> CheckedWorld:
    """Return a world that is not reset yet and whose answers are checked.

    Args:
        world_id: versioned id.
        num_agents: how many agents act in it.
        options: its own options.
        limit_s: seconds that one answer may take.
        contained_mb: the memory of the child that it runs in; None runs it in this process.

    Raises:
        WorldError: as of `worlds.make`.
    """
    cls = world_class(world_id)
    if contained_mb is None:
        return checked(make(world_id, num_agents, options), limit_s)
    far = _Far([f"{cls.__module__}:{cls.__qualname__}", num_agents, options], limit_s, contained_mb)
    if (refused := plain(f"world {world_id}", "constructor", str | None, lambda: far("make", ()))) is not None:
        raise WorldError(refused)
    return CheckedWorld(cls, cls.Options.model_validate(options or {}), far)
