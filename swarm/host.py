"""What one host process does: it owns the minds and runs their model calls.

A `Host` knows nothing of Ray: `swarm.pool.LocalPool` keeps one in this process, `swarm.actors` wraps many in actors.
It holds no state between calls except the reply to the last call of each key, so a retried call is answered, not
repeated. A model that raises or returns garbage becomes a fault of the request that caused it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from swarm.config import AgentsConfig, CoordinatorConfig
from swarm.errors import SwarmError
from swarm.messages import ActReply, ActRequest, CallKey, DirectReply, DirectRequest, FactsKnown
from swarm.prompt import STOP
from swarm.seeds import derive_seed

if TYPE_CHECKING:
    from ulm.generation import Engine
    from ulm.memory import LTMState
    from ulm.memory.exact import ExactIndex

__all__ = ["Host", "HostSpec", "SharedModel", "TokenCounter"]

MAX_ACTION_CHARACTERS = 4096

MAX_INDICES = 64
"""Exact memories that a host keeps ready: of so many agents, or episodes in flight."""


@dataclass(frozen=True, slots=True)
class SharedModel:
    """A checkpoint in a form that processes can share: read-only arrays, and text for the rest.

    Attributes:
        config: `ModelConfig.to_dict()`.
        tokenizer: `tokenizer.json` as text.
        pad_id, eot_id: its special ids.
        arrays: float32 weights by parameter name; in an object store all hosts map the same memory.
    """

    config: dict[str, Any]
    tokenizer: str
    pad_id: int
    eot_id: int
    arrays: dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True)
class HostSpec:
    """Everything a host needs to know beside the weights.

    Attributes:
        seed: the run's seed; a call's randomness is derived from it and the call's key.
        agents, coordinator: their config sections.
        world_id: decides the coordinator's playbook.
        call_timeout_s: decoding stops after this many seconds.
        device, dtype, compile, threads: torch settings.
    """

    seed: int
    agents: AgentsConfig
    coordinator: CoordinatorConfig
    world_id: str
    call_timeout_s: float
    device: str = "auto"
    dtype: str = "float32"
    compile: bool = False
    threads: int | None = None


class TokenCounter:
    """Counts tokens as the agents' model would; bytes when agents have no model.

    Args:
        model: the agents' shared model, or None.
    """

    def __init__(self, model: SharedModel | None) -> None:
        self._tokenizer = None
        if model is not None:
            from ulm.tokenizer import Tokenizer

            self._tokenizer = Tokenizer.from_json(model.tokenizer)

    def __call__(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text."""
        if self._tokenizer is None:
            return [len(text.encode()) for text in texts]
        return [len(ids) for ids in self._tokenizer.encode_batch(list(texts))] if texts else []


class Host:
    """The minds of some agents, and of the coordinator when it is asked.

    Args:
        spec: settings.
        models: shared models by the path that the config names them with.

    Raises:
        SwarmError: the device is not there, or a model cannot be built.
    """

    def __init__(self, spec: HostSpec, models: dict[str, SharedModel]) -> None:
        self.spec = spec
        self._models = models
        self._engines: dict[tuple[str, bool], Engine] = {}
        self._answered: dict[CallKey, ActReply] = {}
        self._indices: list[tuple[FactsKnown, ExactIndex]] = []
        self._counter = TokenCounter(models[spec.agents.model] if spec.agents.model else None)
        self._constraint = lru_cache(maxsize=64)(self._compile_constraint)
        if spec.agents.policy == "ulm" and spec.agents.model:
            self._engine(spec.agents.model, spec.agents.has_ltm)
        self._coordinator = None
        if spec.coordinator.kind != "none":
            from swarm.coordinator.minds import make_coordinator

            path = spec.coordinator.model if spec.coordinator.kind in ("ulm", "shuffled") else None
            engine = self._engine(path) if path else None
            self._coordinator = make_coordinator(spec.coordinator, spec.world_id, engine, self.count_tokens)

    def ping(self) -> int:
        """Return the process id: the host is up."""
        return os.getpid()

    def _engine(self, path: str, with_ltm: bool = False) -> Engine:
        if (path, with_ltm) not in self._engines:
            import torch

            from ulm.checkpoint import build_model
            from ulm.config import ModelConfig
            from ulm.generation import Engine
            from ulm.tokenizer import Tokenizer

            if self.spec.threads:
                torch.set_num_threads(self.spec.threads)
            shared = self._models[path]
            config, arrays = shared.config, shared.arrays
            if with_ltm and "ltm" not in config:
                raise SwarmError(
                    f"agents.memory names ltm, but {path} was trained without one; leave it out or take another model"
                )
            if not with_ltm:  # a memory that was not asked for is not there at all
                config = {key: value for key, value in config.items() if key != "ltm"}
                arrays = {name: array for name, array in arrays.items() if not name.startswith("ltm.")}
            model = build_model(ModelConfig.from_dict(config), arrays)
            device = self.spec.device
            if device == "auto":
                device = "cuda" if torch.cuda.is_available() else "cpu"
            if device.startswith("cuda") and not torch.cuda.is_available():
                raise SwarmError(f"runtime.device {device!r} was asked for but torch sees no GPU here; set device: cpu")
            dtype = getattr(torch, self.spec.dtype)
            if device != "cpu" or dtype != torch.float32:
                with torch.inference_mode():  # shared weights are inference tensors, and so must their copies be
                    model = model.to(device=device, dtype=dtype)
            tokenizer = Tokenizer.from_json(shared.tokenizer)
            tokenizer.pad_id, tokenizer.eot_id = shared.pad_id, shared.eot_id
            self._engines[path, with_ltm] = Engine(model, tokenizer, compile=self.spec.compile)
        return self._engines[path, with_ltm]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text under the agents' tokenizer."""
        return self._counter(texts)

    def act(self, requests: Sequence[ActRequest]) -> list[ActReply]:
        """Run agent calls; a request whose key was answered last time gets the same reply again."""
        fresh = [request for request in requests if request.key not in self._answered]
        replies = {reply.key: reply for reply in self._act(fresh)} if fresh else {}
        result = [replies.get(request.key) or self._answered[request.key] for request in requests]
        self._answered = {reply.key: reply for reply in result}
        return result

    def _act(self, requests: list[ActRequest]) -> list[ActReply]:
        if self.spec.agents.policy == "echo":
            return [_echo(request) for request in requests]
        try:
            return self._generate(requests)
        except TimeoutError:
            fault = f"timeout: no answer within {self.spec.call_timeout_s:g} s"
            return [ActReply(request.key, "", 0, 0, fault) for request in requests]
        except Exception as error:  # a model is anybody's code
            if len(requests) == 1:
                return [ActReply(requests[0].key, "", 0, 0, f"model raised {type(error).__name__}: {error}"[:300])]
            # One request must not take its neighbours down: find it by asking each alone.
            return [reply for request in requests for reply in self._act([request])]

    def _generate(self, requests: list[ActRequest]) -> list[ActReply]:
        from ulm.generation import GenerationRequest

        agents = self.spec.agents
        engine = self._engine(str(agents.model), agents.has_ltm)
        indices = self._ready(engine, requests)
        results = engine.generate(
            [
                GenerationRequest(
                    request.prompt,
                    derive_seed(self.spec.seed, "act", *request.key),
                    request.max_new_tokens,
                    agents.temperature,
                    agents.top_p,
                    (STOP,),
                    self._constraint(request.pattern) if agents.constrained and request.pattern else None,
                    _memory(engine, request),
                    indices.get(id(request.facts)),
                )
                for request in requests
            ],
            deadline_s=time.monotonic() + self.spec.call_timeout_s,
        )
        replies: list[ActReply] = []
        for request, result in zip(requests, results, strict=True):
            text, fault = result.text, None
            if not _is_text(text) or len(text) > MAX_ACTION_CHARACTERS:
                text, fault = "", "model returned garbage: no text, or far too much of it"
            memory = result.memory.to_bytes() if result.memory is not None and fault is None else None
            replies.append(ActReply(request.key, text, result.prompt_tokens, result.generated_tokens, fault, memory))
        return replies

    def _ready(self, engine: Engine, requests: Sequence[ActRequest]) -> dict[int, ExactIndex]:
        """Return the exact memory of every set of facts that requests name, by the identity of the set.

        One that was only added to since it was last used is extended, unless another request of the batch needs it as
        it was.
        """
        from ulm.memory.exact import ExactIndex
        from ulm.tokenizer import encode_after

        by_id = {id(request.facts): request.facts for request in requests if request.facts}
        found: dict[int, ExactIndex] = {}
        for facts in sorted(by_id.values(), key=len, reverse=True):
            same = [i for i, (known, _) in enumerate(self._indices) if known == facts]
            shorter = [
                i
                for i, (known, index) in enumerate(self._indices)
                if index not in found.values() and facts[: len(known)] == known
            ]
            known, index = self._indices.pop((same or shorter)[0]) if same or shorter else ((), ExactIndex())
            for key, action in facts[len(known) :]:
                index.add(*encode_after(engine.tokenizer.encode, key, action))
            self._indices.insert(0, (facts, index))
            found[id(facts)] = index
        del self._indices[max(MAX_INDICES, len(found)) :]
        return found

    def _compile_constraint(self, pattern: str) -> Any:
        from ulm.constraint import Constraint

        agents = self.spec.agents
        return Constraint.from_regex(f"(?:{pattern})\n", self._engine(str(agents.model), agents.has_ltm).tokenizer)

    def direct(self, requests: Sequence[DirectRequest]) -> list[DirectReply]:
        """Run coordinator calls."""
        if self._coordinator is None:
            return [DirectReply(request.key) for request in requests]
        try:
            return self._coordinator.direct(requests)
        except Exception as error:  # a model is anybody's code
            if len(requests) == 1:
                return [DirectReply(requests[0].key, fault=f"coordinator raised {type(error).__name__}: {error}"[:300])]
            return [reply for request in requests for reply in self.direct([request])]


def _memory(engine: Engine, request: ActRequest) -> LTMState | None:
    """Return the agent's long-term memory as the engine wants it."""
    if request.memory is None or (ltm := engine.model.config.ltm) is None:
        return None
    from ulm.memory import LTMState

    return LTMState.from_bytes(request.memory, ltm, engine.model.device)


def _is_text(value: object) -> bool:
    """Return whether a value is text that can be written down: lone surrogates cannot."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def _echo(request: ActRequest) -> ActReply:
    text = request.prompt.rstrip("\n").rpartition("\n")[2][: request.max_new_tokens]
    return ActReply(request.key, text, len(request.prompt), len(text))
