"""vLLM in a Ray actor: one engine that all agents and the coordinator ask at once.

- The engine steps in a thread of the actor; what is asked meanwhile joins the running batch.
  It runs in the actor's own process, so killing the actor kills the engine (with several GPUs, vLLM's own workers end
  when they miss it).
- Prompts travel as token ids of our own reading of the tokenizer, so what is charged is what the engine read.
- LoRA adapters are per request: all that use one base model share its engine, whatever their adapters.
- An engine that dies is started anew and asked again with the same requests: they were not answered, so nothing has
  been applied.
"""

import contextlib
import itertools
import json
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayActorError, RayError

from swarm.backends.daemon import DaemonThread
from swarm.backends.local import LocalModel
from swarm.backends.models import ChatFormat, ModelFolder
from swarm.backends.protocol import Structure, TextRequest, TextResult
from swarm.backends.vllm import LORA_RANKS, cpu_cache_gb, require_vllm
from swarm.config.engine import VllmEngine
from swarm.errors import Outage, SwarmError, first_line
from swarm.process.machine import OomWatch, cores, memory_full
from swarm.process.progress import progress

START_TIMEOUT_S = 900.0
CPU_BATCH = 256
"""Requests that an engine on CPUs computes at once, if none of them samples."""

CPU_SAMPLED_BATCH = 48
"""The same if any of them samples: with 64 that do, vLLM 0.32 takes 20 s for a token of each, with 48 .8 s
(SmolLM2-135M, 2 cores, 2026-11-24)."""

CPU_BLOCK = 32
"""Tokens of a block of the KV cache on CPUs, the unit in which prompts' common beginnings are read once.

vLLM takes 128, more than a prompt of an agent: calls of 32 prompts of 117 tokens that begin with the same 91, with
16 new tokens each, took 1.9 to 2.2 s and take .8 s (SmolLM2-135M, bfloat16, 2 cores, 2026-11-27)."""

FREED_S = 10.0
"""How long GPUs that another engine has are waited for."""

GRACE_S = 5.0
"""How much longer than a call's own limit its answer is waited for."""

_Call = tuple[list[int], TextRequest]

_TIMEOUT = "timeout: no answer before the deadline"

_MEMORY_REMEDY = (
    "lower engine.max_length, engine.gpu_memory_utilization or VLLM_CPU_KVCACHE_SPACE, or take a smaller model"
)


@dataclass(slots=True, eq=False)
class _Asked:
    """A request inside the engine."""

    ids: list[int]
    request: TextRequest
    adapter: str | None
    deadline_s: float
    answer: Future[TextResult]


def _environment(settings: VllmEngine) -> dict[str, str]:
    """Return the environment that vLLM reads while it is imported."""
    found = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": str(cpu_cache_gb()),
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "ERROR"),
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    if not settings.num_gpus and "VLLM_CPU_OMP_THREADS_BIND" not in os.environ:
        # Ray has set one thread.
        found |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(cores())}
    return found


class EngineLoop:
    """Steps an engine: runs as many requests as it takes well, lets others wait, ends all of them by their deadlines.

    Args:
        engine: vLLM's `LLMEngine`.
        loras: adapter folder -> vLLM's `LoRARequest`.
        sampled_batch: most requests that run together if any of them samples; None: as many as there are.
        sampling: turns a request into vLLM's `SamplingParams`.
    """

    def __init__(
        self,
        engine: Any,
        loras: Mapping[str, Any],
        sampled_batch: int | None,
        sampling: Callable[[TextRequest], Any] | None = None,
    ) -> None:
        self.engine, self._loras, self._sampled_batch = engine, loras, sampled_batch
        self._sampling = sampling or _sampling
        self._inbox: SimpleQueue[_Asked] = SimpleQueue()
        self._waiting: deque[_Asked] = deque()
        self._running: dict[str, _Asked] = {}
        self._names = map(str, itertools.count(1))

    def ask(self, ids: list[int], request: TextRequest, adapter: str | None, deadline_s: float) -> Future[TextResult]:
        """Hand in a request from any thread; it is started in the order of asking."""
        asked = _Asked(ids, request, adapter, deadline_s, Future())
        self._inbox.put(asked)
        return asked.answer

    def turn(self, wait: bool = True) -> None:
        """Take in what was asked, start what there is room for, step once; first wait for something to do."""
        with contextlib.suppress(Empty):
            self._waiting.append(self._inbox.get(block=wait and not self._running and not self._waiting))
            while True:
                self._waiting.append(self._inbox.get_nowait())
        while self._waiting and self._has_room(self._waiting[0].request):
            self._start(self._waiting.popleft())
        self._abort_late()
        for output in self.engine.step():
            if output.finished and (asked := self._running.pop(output.request_id, None)) is not None:
                asked.answer.set_result(_result(output))

    def _has_room(self, request: TextRequest) -> bool:
        """Return whether a request may join those that run."""
        return (
            self._sampled_batch is None
            or len(self._running) < self._sampled_batch
            or not any(each.temperature for each in (request, *(asked.request for asked in self._running.values())))
        )

    def _start(self, asked: _Asked) -> None:
        name = next(self._names)
        try:
            lora = self._loras[asked.adapter] if asked.adapter is not None else None
            self.engine.add_request(
                name, {"prompt_token_ids": asked.ids}, self._sampling(asked.request), lora_request=lora
            )
        except Exception as error:  # this request is refused; the engine lives
            asked.answer.set_result(TextResult.failed(f"vLLM refuses the request: {first_line(error)[:200]}"))
        else:
            self._running[name] = asked

    def _abort_late(self) -> None:
        now = time.monotonic()
        names = [name for name, asked in self._running.items() if now > asked.deadline_s]
        if names:
            self.engine.abort_request(names)
        for asked in map(self._running.pop, names):
            # How much it had written is not known: it is charged as if all.
            asked.answer.set_result(TextResult.failed(_TIMEOUT, len(asked.ids), asked.request.max_new_tokens))
        for asked in [asked for asked in self._waiting if now > asked.deadline_s]:
            self._waiting.remove(asked)
            asked.answer.set_result(TextResult.failed(_TIMEOUT))  # the engine has not seen it


@ray.remote(max_restarts=0, max_task_retries=0, max_concurrency=1024)
class VllmActor:
    """A vLLM engine and the thread that steps it."""

    def __init__(self, folder: ModelFolder, settings: VllmEngine, adapters: Sequence[str]) -> None:
        os.environ.update(_environment(settings))
        self._dead: BaseException | None = None
        thread = DaemonThread("engine")

        def make() -> EngineLoop:
            engine = _engine(folder, settings, adapters)
            batch = None if settings.num_gpus else CPU_SAMPLED_BATCH
            # The marks around thoughts may be special tokens, and a text is read with them.
            shows = partial(_sampling, shows_special=folder.marks_thoughts)
            return EngineLoop(engine, _lora_requests(adapters), batch, shows)

        # Made and stepped in one thread: OpenMP gives each thread that computes helpers of its own, and with more of
        # them than cores they sleep between products (SmolLM2-135M, 64 rows, 2 cores: 114 ms per step instead of 76,
        # 2026-11-27).
        self._loop: EngineLoop = thread.submit(make).result()
        thread.submit(self._step)

    def ready(self) -> tuple[int, int]:
        """Return the process id and the longest prompt and answer together."""
        return os.getpid(), self._loop.engine.model_config.max_model_len

    def generate(self, asked: list[_Call], limit_s: float, adapter: str | None) -> list[TextResult]:
        """Answer requests within a time, with an adapter; those that take longer are aborted."""
        deadline_s = time.monotonic() + limit_s
        answers = [self._loop.ask(ids, request, adapter, deadline_s) for ids, request in asked]
        if self._dead is not None:
            raise self._dead
        return [answer.result() for answer in answers]

    def _step(self) -> None:
        try:
            while True:
                self._loop.turn()
        except BaseException as error:  # the engine is gone: let the client start another one
            self._dead = error
            os._exit(1)


def _engine(folder: ModelFolder, settings: VllmEngine, adapters: Sequence[str]) -> Any:
    """Return vLLM's `LLMEngine` for a model, with places for adapters."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    # vLLM 0.32 on CPUs dies of half a prompt that samples with a seed, which chunked prefill makes.
    on_cpus: dict[str, Any] = {"max_num_seqs": CPU_BATCH, "block_size": CPU_BLOCK, "enable_chunked_prefill": False}
    more = {"gpu_memory_utilization": settings.gpu_memory_utilization} if settings.num_gpus else on_cpus
    if adapters:
        rank = max(json.loads(Path(a, "adapter_config.json").read_text(encoding="utf-8"))["r"] for a in adapters)
        more |= {
            "enable_lora": True,
            # On CPUs vLLM 0.32 gives a request without an adapter the one in the last place, if another request in its
            # batch has one; a place that is never filled changes nothing.
            "max_loras": len(adapters) + (0 if settings.num_gpus else 1),
            "max_lora_rank": next(limit for limit in LORA_RANKS if limit >= rank),
        }
    return LLMEngine.from_engine_args(
        EngineArgs(
            model=folder.path,
            dtype=settings.dtype,
            max_model_len=settings.max_length,
            tensor_parallel_size=settings.tensor_parallel_size,
            enforce_eager=settings.eager,
            disable_log_stats=True,
            trust_remote_code=False,
            **more,
        )
    )


def _lora_requests(adapters: Sequence[str]) -> dict[str, Any]:
    """Return adapter folder -> vLLM's `LoRARequest`."""
    from vllm.lora.request import LoRARequest

    return {adapter: LoRARequest(f"adapter{i}", i, adapter) for i, adapter in enumerate(adapters, start=1)}


def _sampling(request: TextRequest, shows_special: bool = False) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=request.temperature,
        seed=request.seed % 2**63,
        max_tokens=request.max_new_tokens,
        stop=list(request.stop),
        output_kind=RequestOutputKind.FINAL_ONLY,
        skip_special_tokens=not shows_special,
        structured_outputs=_structured(request.structure) if request.structure else None,
    )


def _structured(structure: Structure) -> Any:
    from vllm.sampling_params import StructuredOutputsParams

    form, value = structure.best("regex", "choices", "json_schema", "grammar")
    return StructuredOutputsParams(**{{"choices": "choice", "json_schema": "json"}.get(form, form): value})


def _result(output: Any) -> TextResult:
    answer = output.outputs[0]
    read, written = len(output.prompt_token_ids or ()), len(answer.token_ids)
    if answer.finish_reason == "length":
        return TextResult(answer.text, read, written, "length")
    if answer.finish_reason != "stop":
        return TextResult.failed(f"vLLM ended the answer early: {answer.finish_reason}", read, written)
    return TextResult(answer.text, read, written, "stop" if isinstance(answer.stop_reason, str) else "end")


class VllmServer:
    """The engine as this process sees it: starts it, asks it, and starts it anew when it dies.

    Args:
        folder: the model's files.
        settings: of the engine.
        adapters: folders of PEFT LoRA adapters that may be asked for.
        on_event: told about starts, deaths and replacements: (kind, facts).

    Raises:
        SwarmError: vLLM is not installed, or cannot be started with this model.
    """

    max_deaths = 20
    """Times that a dead engine is replaced before the run gives up."""

    max_full = 2
    """Times in turn that it may die for want of memory."""

    def __init__(
        self,
        folder: ModelFolder,
        settings: VllmEngine,
        adapters: Sequence[str | Path] = (),
        on_event: Callable[..., None] = lambda kind, **facts: None,
    ) -> None:
        require_vllm(settings.num_gpus)
        self.folder, self.num_gpus = folder, settings.num_gpus
        self._settings, self._adapters = settings, [str(adapter) for adapter in adapters]
        self._on_event = on_event
        self._deaths = self._full = 0
        self._watch = OomWatch()
        self._actor: Any = None
        # Ray would wait for ever for GPUs that another engine has.
        self._start(_free_gpus(settings.num_gpus))
        self._on_event("engine_start", engine="vllm", pid=self.pid)

    def _start(self, num_gpus: float) -> None:
        if self.num_gpus > num_gpus:
            raise SwarmError(
                f"engine.num_gpus is {self.num_gpus:g}, but this cluster has {num_gpus:g} free; lower it, or set it to "
                f"0 for vLLM on CPUs"
            )
        actor = VllmActor.options(num_cpus=0, num_gpus=self.num_gpus)  # type: ignore[attr-defined]
        self._actor = actor.remote(self.folder, self._settings, self._adapters)
        try:
            with progress(f"starting vLLM with {self.folder.name}", limit_s=START_TIMEOUT_S):
                self.pid, self.max_length = ray.get(self._actor.ready.remote(), timeout=START_TIMEOUT_S)
        except BaseException as error:
            self.close()
            if not isinstance(error, RayError):
                raise
            if self._watch.is_full(error):
                raise memory_full(f"vLLM with model {self.folder.name}", _MEMORY_REMEDY) from error
            raise SwarmError(f"vLLM cannot be started with model {self.folder.name}: {_reason(error)}") from error

    def answers(self, calls: list[_Call], deadline_s: float | None, adapter: str | None) -> list[TextResult]:
        """Answer every request with one of the engine's adapters, or None; a dead engine is replaced and asked again.

        The time that a new engine takes to load is not the requests' fault: they get their whole time again.

        Raises:
            Outage: the engine died too often, or does not start again.
        """
        limit_s = 3600.0 if deadline_s is None else max(0.0, deadline_s - time.monotonic())
        for _ in range(2 if calls else 0):
            try:
                answers = ray.get(self._actor.generate.remote(calls, limit_s, adapter), timeout=limit_s + GRACE_S)
            except GetTimeoutError:
                self._replace("hung; killed")
                return [TextResult.failed(_TIMEOUT, len(ids), request.max_new_tokens) for ids, request in calls]
            except (RayActorError, OutOfMemoryError) as error:
                full = self._watch.is_full(error)
                self._full += full
                self._replace("out of memory" if full else _reason(error))
                if self._full > self.max_full:
                    raise memory_full(f"the vLLM engine, {self._full} times in turn,", _MEMORY_REMEDY) from error
            else:
                self._full = 0
                return list(answers)
        if len(calls) == 1:
            return [TextResult.failed("the engine died of this request, twice", len(calls[0][0]))]
        # One of them may be what kills it: ask each alone.
        return [self.answers([call], time.monotonic() + limit_s, adapter)[0] for call in calls]

    def _replace(self, why: str) -> None:
        self._deaths += 1
        self._on_event("engine_death", engine="vllm", detail=why)
        self.close()
        if self._deaths > self.max_deaths:
            raise Outage(
                f"the vLLM engine died {self._deaths} times, and a run survives {self.max_deaths}; last: {why}"
            )
        started = time.monotonic()
        try:
            self._start(ray.cluster_resources().get("GPU", 0.0))  # what the dead one had may not be counted as free yet
        except SwarmError as error:
            raise Outage(str(error)) from error
        self._on_event("engine_ready", engine="vllm", pid=self.pid, recovered_s=round(time.monotonic() - started, 3))

    def close(self) -> None:
        """Kill the engine; idempotent."""
        if self._actor is not None:
            with contextlib.suppress(Exception):
                ray.kill(self._actor)
            self._actor = None


class VllmModel(LocalModel[_Call]):
    """An engine as those see it who ask with one of its adapters, or with none."""

    def __init__(self, server: VllmServer, adapter: str | Path | None = None, chat: ChatFormat | None = None) -> None:
        super().__init__(server.folder.tokenizer(), chat or server.folder.chat, server.max_length)
        self.server, self._adapter = server, None if adapter is None else str(adapter)

    def _call(self, request: TextRequest, ids: list[int]) -> _Call:
        return ids, request

    def _answers(self, calls: list[_Call], deadline_s: float | None) -> list[TextResult]:
        return self.server.answers(calls, deadline_s, self._adapter)

    def close(self) -> None:
        """Kill the engine, for all that share it; idempotent."""
        self.server.close()


def _free_gpus(wanted: float) -> float:
    """Return how many GPUs are free; those of an engine that has just ended are counted as free a little later."""
    deadline_s = time.monotonic() + FREED_S
    there = ray.cluster_resources().get("GPU", 0.0)
    while (
        free := float(ray.available_resources().get("GPU", 0.0))
    ) < wanted <= there and time.monotonic() < deadline_s:
        time.sleep(0.2)
    return free


def _reason(error: BaseException) -> str:
    """Return the line of an engine's error that says most: the last one, without the traceback before it.

    pydantic, which checks vLLM's settings, ends its errors with a link and its reasons with what was put in.
    """
    lines = map(str.strip, str(error).splitlines())
    said = [line for line in lines if line and not line.startswith("For further information visit")]
    return (said[-1].partition(" [type=")[0] if said else type(error).__name__)[:300]
