"""Independent pieces of work as Ray tasks, and Ray started for as long as they need it.

Owns starting Ray for work that is no run of a swarm, and handing results on in the order in which they are ready. It
refuses to know what the work is.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from swarm.actors.start import start_ray
from swarm.errors import SwarmError, last_line
from swarm.process.machine import OomWatch, memory_full


@contextlib.contextmanager
def ray_started(address: str | None = None) -> Iterator[None]:
    """Have Ray running; it is stopped afterwards if it was not running before.

    Args:
        address: of a cluster, as of `start_ray`; None starts Ray on this machine.

    Raises:
        SwarmError: Ray cannot be started.
    """
    started = start_ray(address, "place.address")
    try:
        yield
    finally:
        if started:
            import ray

            with contextlib.suppress(Exception):
                ray.shutdown()


def run_tasks(
    work: Callable[..., Any],
    calls: Sequence[tuple[Any, ...]],
    done: Callable[[int, Any], None],
    *,
    titles: Sequence[str],
    device: str = "auto",
) -> None:
    """Call `work(*call, device)` for every call, as many at a time as Ray has processors; a task has one thread.

    Args:
        work: must be picklable, as its arguments; it is called again, at most twice, if its process died.
        calls: arguments of each call but the last.
        done: receives the index of a call and what it gave, as soon as it is there.
        titles: what each call does, for the message when it fails.
        device: `cpu` or `mps`; or `auto` or `cuda` to give each task one GPU where Ray has any.

    Raises:
        SwarmError: Ray cannot be started, or a call failed.
    """
    import ray

    with ray_started():
        use_gpu = device in ("auto", "cuda") and ray.cluster_resources().get("GPU", 0) >= 1
        where = "cuda" if use_gpu else "mps" if device == "mps" else "cpu"

        @ray.remote(num_cpus=1, num_gpus=1 if use_gpu else 0, max_retries=2)
        def task(*arguments: Any) -> Any:
            import torch

            torch.set_num_threads(1)
            return work(*arguments, where)

        watch = OomWatch()
        waiting = {task.remote(*call): index for index, call in enumerate(calls)}
        while waiting:
            (ready,), _ = ray.wait(list(waiting), num_returns=1)
            index = waiting.pop(ready)
            try:
                done(index, ray.get(ready))
            except ray.exceptions.RayError as error:
                if watch.is_full(error):
                    raise memory_full(titles[index], "close other programs, or take a smaller model") from error
                raise SwarmError(f"{titles[index]} failed: {last_line(error)}") from error
