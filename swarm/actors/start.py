"""Starts Ray on this machine, or connects to a cluster, whatever the surroundings are.

- Without an address it is a Ray of our own on loopback: no cluster that somebody started is joined, whatever
  RAY_ADDRESS says.
- A cluster is asked first by a plain TCP connection: Ray tries a dead one for a quarter of an hour.
- Ray starts in a thread of its own, so that the time limit and Ctrl-C hold while it waits inside C++. The thread stays:
  on Linux what it has started ends with it.
"""

import atexit
import contextlib
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from socket import create_connection
from typing import Any

from swarm.backends.daemon import DaemonThread
from swarm.config.training import split_address
from swarm.errors import SwarmError
from swarm.process.children import python_path
from swarm.process.machine import cores, is_out_of_memory, memory_bytes
from swarm.process.progress import progress
from swarm.process.signals import kept

LIMIT_S = 90.0
CONNECT_S = 5.0

_SOCKET = "session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store"
_SOCKET_BYTES = 107 if sys.platform == "linux" else 103
"""The longest path of a Unix socket."""

_STORE_BYTES = 80 * 2**20
"""The least object store that Ray accepts, and a little."""

_ELSEWHERE = ("RAY_ADDRESS", "RAY_REDIS_ADDRESS", "RAY_GCS_SERVER_PORT", "RAY_JOB_CONFIG_JSON_ENV_VAR")
"""Variables by which a Ray of our own would become part of another one."""

_REMEDIES = (
    ("version mismatch", "install the cluster's versions of Ray and Python here"),
    ("uthentication", "the cluster wants its token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"),
    ("find any running ray", "start one with `ray start --head`, or give its host:port"),
    ("too many open files", "raise `ulimit -n`"),
    ("new thread", "raise `ulimit -u`, or the container's limit of processes"),
    ("temporarily unavailable", "raise `ulimit -u`, or the container's limit of processes"),
    ("no space left", "free some disk, or set RAY_TMPDIR to a folder with more"),
    ("/dev/shm", "give it more room (docker: --shm-size)"),  # noqa: S108
    ("address already in use", "end what uses the port"),
)
"""What Ray says, in lower case, and what helps."""

_pending: "list[Future[None]]" = []
_threads: list[DaemonThread] = []


def start_ray(address: str | None = None, setting: str = "", otherwise: str = "") -> bool:
    """Connect to a Ray cluster, or start a local one, unless this process has Ray already; return whether it had not.

    Args:
        address: of a cluster: host:port, ray://host:port, or `auto`; None starts Ray on this machine.
        setting: name of the setting that gives the address, for messages.
        otherwise: what helps in any case, for messages.

    Raises:
        SwarmError: Ray cannot be started or reached, or not in time.
    """
    import ray

    if ray.is_initialized():
        return False
    if _pending and not _pending[0].done():
        raise SwarmError("Ray is still being started in this process, which was given up; start a new process")
    for name, value in {
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray gives its workers the lowest priority but one; here they do the main work of the machine.
        "RAY_worker_niceness": "0",
        "MALLOC_ARENA_MAX": "1",  # glibc can give back all of the first arena, of others only parts
    }.items():
        os.environ.setdefault(name, value)
    os.environ["PYTHONPATH"] = python_path()
    where = f"at {address} ({setting})" if address else "on this machine"
    with _surroundings(address), kept():
        _threads[:] = _threads or [DaemonThread("ray")]
        _pending[:] = [_threads[0].submit(lambda: _connect(address, setting))]
        try:
            _wait(_pending[0], f"Ray {where}")
            _pending[0].result()
        except SwarmError:
            raise
        except Exception as error:
            raise SwarmError(f"Ray could not be started {where}: {_explained(error, address)}{otherwise}") from error
    return True


def _wait(started: "Future[None]", what: str) -> None:
    """Wait for a start, up to the limit.

    Raises:
        SwarmError: it takes too long.
    """
    import ray

    try:
        with progress(f"waiting for {what}", limit_s=LIMIT_S):
            if not wait([started], LIMIT_S).done:
                raise TimeoutError(f"no answer within {LIMIT_S:g} s")
    except BaseException:
        atexit.unregister(ray.shutdown)  # it would wait for the start, which may never return
        raise


def _connect(address: str | None, setting: str) -> None:
    import ray

    settings: dict[str, Any] = {}
    if address is None:
        settings = {
            "num_cpus": cores(),  # Ray takes half a CPU for none, and does not know affinity
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",  # whatever network, proxy or firewall there is
            "_temp_dir": str(temp_folder()),
            **_store(),
        }
    else:
        _look(address, setting)
    if not (address or "").startswith("ray://"):
        settings["job_config"] = _job()
    ray.init(address or "local", logging_level="ERROR", log_to_driver=False, **settings)


def _job() -> Any:
    """Return what keeps the folder that one happens to be in, and the script's, out of the search path of workers.

    A user's queue.py would run there. A checkout's own folder stands in their place.
    """
    from ray.job_config import JobConfig

    root = Path(__file__).parents[2]
    job = JobConfig(_py_driver_sys_path=[str(root)] if (root / "pyproject.toml").is_file() else [])
    job._runtime_env_has_working_dir = lambda: True  # all that Ray looks at before it adds them
    return job


def _store() -> dict[str, int]:
    """Return the size of the object store where there is less memory than Ray sees."""
    there = memory_bytes()
    if there >= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
        return {}
    return {"object_store_memory": max(_STORE_BYTES, int(0.2 * there)), "_memory": int(there)}


def _look(address: str, setting: str) -> None:
    """Find out whether anybody answers at an address, as far as that can be known without Ray.

    Raises:
        SwarmError: nobody does.
    """
    if address == "auto":
        file, named, source = temp_folder() / "ray_current_cluster", os.environ.get("RAY_ADDRESS"), "RAY_ADDRESS"
        with contextlib.suppress(OSError, UnicodeDecodeError):
            named, source = (named, source) if named else (file.read_text(encoding="utf-8").strip(), str(file))
        if named in (None, "", "auto", "local"):
            return  # Ray looks for processes of its own
        address, setting = named, f"{setting} is auto, and {source} names it"
    try:
        create_connection(split_address(address), CONNECT_S).close()
    except (OSError, ValueError) as error:
        raise SwarmError(
            f"no Ray answers at {address} ({setting}): {getattr(error, 'strerror', None) or error}; start the cluster "
            f"there, or correct the address; null starts Ray on this machine"
        ) from error


def temp_folder() -> Path:
    """Return where Ray keeps its sockets and logs."""
    names = ("RAY_TMPDIR", "TMPDIR") if sys.platform == "linux" else ("RAY_TMPDIR",)
    return Path(next(filter(None, map(os.environ.get, names)), "/tmp")).absolute() / "ray"  # noqa: S108 - as Ray does


def check_temp_folder() -> None:
    """Check that Ray can keep its sockets and logs.

    Raises:
        SwarmError: it cannot, and what helps.
    """
    folder = temp_folder()
    room = _SOCKET_BYTES - len(f"/ray/{_SOCKET}")
    if len(os.fsencode(folder.parent)) > room:
        raise SwarmError(
            f"Ray keeps its sockets in {folder}, whose name is too long for a socket; set RAY_TMPDIR to a folder of at "
            f"most {room} letters, such as /tmp"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise SwarmError(
            f"Ray keeps its sockets and logs in {folder}, which cannot be written ({error.strerror}); set RAY_TMPDIR "
            f"to a folder that can"
        ) from error


@contextlib.contextmanager
def _surroundings(address: str | None) -> Iterator[None]:
    """Keep what would lead a Ray of our own elsewhere out of the environment while it starts."""
    if address is not None:
        yield
        return
    check_temp_folder()
    if not os.access(os.environ.get("HOME", ""), os.W_OK):  # where Ray would keep its token
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    hidden = {name: os.environ.pop(name) for name in _ELSEWHERE if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _explained(error: Exception, address: str | None) -> str:
    """Return what Ray says, in one line, and what helps."""
    said = " ".join(str(error).partition("Last connection error")[0].split())[:400] or type(error).__name__
    full, cause = said, error.__cause__
    while cause is not None:  # which says more
        full, cause = f"{full} {cause}", cause.__cause__
    if is_out_of_memory(error) or "memory on this node" in full or "object store memory" in full:
        return f"{said}; too little memory is free"
    for word, remedy in _REMEDIES:
        if word in full.lower():
            return f"{said}; {remedy}"
    if address is None:
        return f"{said}; its logs are in {temp_folder() / 'session_latest' / 'logs'}"
    return f"{said}; is this the port of a Ray head (6379, with ray:// 10001)?"
