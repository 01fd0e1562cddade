"""What one host process does: it owns models and runs their calls.

A `Host` knows nothing of Ray: `swarm.agents.local_pool.LocalPool` keeps one in this process, `swarm.actors` wraps many
in actors.
Models that answer from other processes are handed to it; a host without them leaves their agents to another.
It holds no state between calls except the reply to the last call of each key, so a retried call is answered, not
repeated. A model that raises or returns garbage becomes a fault of the request that caused it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from swarm.backends.models import ChatFormat, ModelFolder
from swarm.backends.prompts import CHAT_MARKS, PromptReader
from swarm.backends.protocol import Structure, TextModel, TextRequest
from swarm.config.coordinator import CoordinatorConfig
from swarm.config.engine import EchoEngine, ModelEngine, OpenAIEngine, TransformersEngine, UlmEngine
from swarm.config.experiment import AgentsConfig
from swarm.config.memory import find_memory
from swarm.config.training import resolve_device
from swarm.coordinator.kinds import make_coordinator
from swarm.coordinator.protocol import Coordinator, checked_replies
from swarm.errors import SwarmError
from swarm.messages import ActReply, ActRequest, CallKey, DirectReply, DirectRequest
from swarm.prompt import STOP
from swarm.seeds import derive_seed

if TYPE_CHECKING:
    import torch

    from ulm.decode.engine import Engine

AT_ONCE = 8
"""Calls of a pretrained model that are taken to be answered in the time of one."""

MAX_ACTION_CHARACTERS = 4096


@dataclass(frozen=True, slots=True)
class SharedModel:
    """A checkpoint in a form that processes can share: read-only arrays, and text for the rest.

    Attributes:
        config: `ModelConfig.to_dict()`.
        tokenizer: `tokenizer.json` as text.
        pad_id, eot_id: its special ids.
        arrays: float32 weights by parameter name; in an object store all hosts map the same memory.
        chat: its chat format, None without one.
    """

    config: dict[str, Any]
    tokenizer: str
    pad_id: int
    eot_id: int
    arrays: dict[str, np.ndarray[Any, Any]]
    chat: ChatFormat | None = None


@dataclass(frozen=True, slots=True)
class HostSpec:
    """Everything a host needs to know beside the weights.

    Attributes:
        seed: the run's seed; a call's randomness is derived from it and the call's key.
        agents, coordinator: their config sections.
        world_id: decides the coordinator's playbook.
        call_timeout_s: decoding stops after this many seconds.
        device, dtype, compile, threads: torch settings.
        tools: the world's actions, for coordinators that were not trained on it.
        system: what opens the agents' chats; None where they read plain text.
        folders: pretrained models by the name that the config gives them.
        adapters: folders of their LoRA adapters, by the path that the config gives them.
        tokenizer: `tokenizer.json` of the agents' model as text, None where there is none; tokens are bytes then.
        chat: chat format of the agents' model.
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
    tools: tuple[Mapping[str, Any], ...] = ()
    system: str | None = None
    folders: Mapping[str, ModelFolder] = field(default_factory=dict)
    adapters: Mapping[str, str] = field(default_factory=dict)
    tokenizer: str | None = None
    chat: ChatFormat | None = None

    @property
    def needs_hosts(self) -> bool:
        """Whether anything computes in host processes; otherwise one `Host` beside the runtime does all there is."""
        engine = self.coordinator.engine
        return not self.agents.engine.is_remote or (engine is not None and not engine.is_remote)

    def calls_limit_s(self, section: AgentsConfig | CoordinatorConfig, count: int) -> float:
        """Return how long so many calls of a section's model may take, some of which may have to wait for others."""
        engine = section.engine
        if isinstance(engine, OpenAIEngine):
            at_once = engine.connections
        elif isinstance(engine, ModelEngine) and (engine.chats or not isinstance(engine, UlmEngine)):
            at_once = AT_ONCE
        else:
            at_once = max(1, count)
        return self.call_timeout_s * -(-count // at_once)

    def limit_s(self, count: int) -> float:
        """Return after how long a host that has not answered so many calls counts as hung.

        Directing an episode takes up to two calls of the coordinator's model, a briefing for each part of the swarm.
        A model of transformers looks at the clock between two tokens, and reading prompts is one of those steps.
        """
        slow = any(isinstance(each.engine, TransformersEngine) for each in (self.agents, self.coordinator))
        acting, directing = self.calls_limit_s(self.agents, count), self.calls_limit_s(self.coordinator, 2 * count)
        return max(acting, directing) + (self.call_timeout_s if slow else 0.0)


class TokenCounter:
    """Counts tokens as the agents' model would; bytes when agents have no model.

    Args:
        spec: names the tokenizer and the chat format.
    """

    def __init__(self, spec: HostSpec) -> None:
        self._system, self._is_known = spec.system, spec.chat is not None
        self._reader = None
        if spec.tokenizer is not None:
            from ulm.tokenizer import Tokenizer

            self._reader = PromptReader(Tokenizer.from_json(spec.tokenizer), spec.chat)

    def prompts(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens that an agent reads when it is asked with each of these prompts."""
        if self._system is None or not texts:
            return self(texts)
        if self._reader is None or not self._is_known:
            opening = self([self._system])[0] + 2 * CHAT_MARKS
            return [opening + count for count in self(texts)]
        return self._reader.count_prompts([TextRequest(text, self._system) for text in texts])

    def __call__(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text."""
        if self._reader is None:
            return [len(text.encode()) for text in texts]
        return self._reader.count_tokens(texts)


class Host:
    """The models of some agents, and of the coordinator when it is asked.

    Args:
        spec: settings.
        models: shared models by the path that the config names them with.
        remote: models in other processes (`is_remote`), by whose they are: `agents`, `coordinator`.
        computes: whether models of other engines are its own to load, or those of other hosts.

    Raises:
        SwarmError: the device is not there, or a model cannot be built.
    """

    def __init__(
        self,
        spec: HostSpec,
        models: dict[str, SharedModel],
        remote: Mapping[str, TextModel] | None = None,
        computes: bool = True,
    ) -> None:
        self.spec = spec
        self._models = models
        self._remote = remote or {}
        self._computes = computes
        self._engines: dict[tuple[str, frozenset[str]], Engine] = {}
        self._pretrained: dict[tuple[str, str | None], TextModel] = {}
        self._answered: dict[CallKey, ActReply] = {}
        self._counter = TokenCounter(spec)
        self._agents = self._text_model("agents", spec.agents)
        self._coordinator: Coordinator | None = None
        model = self._text_model("coordinator", spec.coordinator)
        if model is not None or spec.coordinator.engine is None:  # otherwise another host asks its model
            self._coordinator = make_coordinator(
                spec.coordinator,
                spec.world_id,
                model,
                self.count_tokens,
                spec.tools,
                partial(spec.calls_limit_s, spec.coordinator),
            )

    def _text_model(self, whose: str, section: AgentsConfig | CoordinatorConfig) -> TextModel | None:
        """Return the model of a section, None where it has none or this host is not the one that asks it."""
        engine = section.engine
        if not isinstance(engine, UlmEngine | TransformersEngine):
            return self._remote.get(whose)
        if not self._computes:
            return None
        if isinstance(engine, UlmEngine):
            from swarm.backends.ulm import UlmModel

            sections = section.memory if isinstance(section, AgentsConfig) else ()
            kinds = [(find_memory(memory.kind), memory) for memory in sections]
            own = self._engine(engine.model, frozenset(kind.part for kind, _ in kinds if kind.part))
            readers = {kind.kind: kind.Reader(memory, own) for kind, memory in kinds if kind.Reader}
            return UlmModel(own, self._models[engine.model].chat, readers=readers)
        return self._transformers(engine.model, engine.adapter)

    def _transformers(self, name: str, adapter: str | None) -> TextModel:
        if (name, adapter) not in self._pretrained:
            import torch

            from swarm.backends.transformers import TransformersModel

            device, dtype = self._device_and_dtype()
            if self.spec.threads:
                torch.set_num_threads(self.spec.threads)
            place = Path(self.spec.adapters[adapter]) if adapter else None
            self._pretrained[name, adapter] = TransformersModel(self.spec.folders[name], device, dtype, place)
        return self._pretrained[name, adapter]

    def _device_and_dtype(self) -> tuple[str, torch.dtype]:
        import torch

        return resolve_device(self.spec.device), getattr(torch, self.spec.dtype)

    def ping(self) -> int:
        """Return the process id: the host is up."""
        return os.getpid()

    def _engine(self, path: str, parts: frozenset[str]) -> Engine:
        """Return the engine of a model with these of its optional parts (`ulm.config.PARTS`) and no other."""
        if (path, parts) not in self._engines:
            import torch

            from ulm.checkpoint import build_model
            from ulm.config import PARTS, ModelConfig
            from ulm.decode.engine import Engine
            from ulm.tokenizer import Tokenizer

            if self.spec.threads:
                torch.set_num_threads(self.spec.threads)
            shared = self._models[path]
            config, arrays = shared.config, shared.arrays
            for part in PARTS:
                if part not in parts:  # a memory that was not asked for is not there at all
                    config = {key: value for key, value in config.items() if key != part}
                    arrays = {name: array for name, array in arrays.items() if not name.startswith(f"{part}.")}
            model = build_model(ModelConfig.from_dict(config), arrays)
            device, dtype = self._device_and_dtype()
            if device != "cpu" or dtype != torch.float32:
                with torch.inference_mode():  # shared weights are inference tensors, and so must their copies be
                    model = model.to(device=device, dtype=dtype)
            tokenizer = Tokenizer.from_json(shared.tokenizer)
            tokenizer.pad_id, tokenizer.eot_id = shared.pad_id, shared.eot_id
            self._engines[path, parts] = Engine(model, tokenizer, compile=self.spec.compile)
        return self._engines[path, parts]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text under the agents' tokenizer."""
        return self._counter(texts)

    def count_prompts(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens that an agent reads when it is asked with each of these prompts."""
        return self._counter.prompts(texts)

    def act(self, requests: Sequence[ActRequest]) -> list[ActReply]:
        """Run agent calls; a request whose key was answered last time gets the same reply again."""
        fresh = [request for request in requests if request.key not in self._answered]
        replies = {reply.key: reply for reply in self._act(fresh)} if fresh else {}
        result = [replies.get(request.key) or self._answered[request.key] for request in requests]
        self._answered = {reply.key: reply for reply in result}
        return result

    def _act(self, requests: list[ActRequest], deadline_s: float | None = None) -> list[ActReply]:
        deadline_s = deadline_s or time.monotonic() + self.spec.calls_limit_s(self.spec.agents, len(requests))
        if isinstance(self.spec.agents.engine, EchoEngine):
            return [_echo(request) for request in requests]
        if self._agents is None:
            raise SwarmError("these agents are asked by another host")
        try:
            return self._ask(self._agents, requests, deadline_s)
        except SwarmError:
            raise  # no further call can succeed
        except Exception as error:  # a model is anybody's code
            if len(requests) == 1:
                return [ActReply(requests[0].key, "", 0, 0, f"model raised {type(error).__name__}: {error}"[:300])]
            # One request must not take its neighbours down: find it by asking each alone.
            return [reply for request in requests for reply in self._act([request], deadline_s)]

    def _ask(self, model: TextModel, requests: list[ActRequest], deadline_s: float) -> list[ActReply]:
        """Ask the agents' model.

        A chat may open with an empty line, so what it is asked is a line only where a pattern keeps it to one.
        """
        agents = self.spec.agents
        stop = (STOP,) if self.spec.system is None or agents.constrained else ()
        results = model.generate(
            [
                TextRequest(
                    request.prompt,
                    self.spec.system,
                    derive_seed(self.spec.seed, "act", *request.key),
                    request.max_new_tokens,
                    agents.temperature,
                    stop,
                    Structure(regex=request.pattern) if agents.constrained and request.pattern else None,
                    request.memories,
                )
                for request in requests
            ],
            deadline_s=deadline_s,
        )
        # Our own engine continues a plain prompt up to the end of its line; others may begin with blanks.
        is_line = isinstance(agents.engine, UlmEngine) and self.spec.system is None
        return [
            _checked(
                ActReply(
                    request.key,
                    found.text if is_line else _action(found.text),
                    found.prompt_tokens,
                    found.generated_tokens,
                    found.fault,
                    found.updates,
                )
            )
            for request, found in zip(requests, results, strict=True)
        ]

    def direct(self, requests: Sequence[DirectRequest]) -> list[DirectReply]:
        """Run coordinator calls."""
        if self._coordinator is None:
            return [DirectReply(request.key) for request in requests]
        try:
            return checked_replies(requests, self._coordinator.direct(requests))
        except SwarmError:
            raise  # no further call can succeed
        except Exception as error:  # a model is anybody's code
            if len(requests) == 1:
                return [DirectReply(requests[0].key, fault=f"coordinator raised {type(error).__name__}: {error}"[:300])]
            return [reply for request in requests for reply in self.direct([request])]


def _action(text: str) -> str:
    """Return the first line of an answer that says something."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _checked(reply: ActReply) -> ActReply:
    """Return the reply, or one that says that its text is none."""
    if reply.fault is None and (not _is_text(reply.text) or len(reply.text) > MAX_ACTION_CHARACTERS):
        fault = "model returned garbage: no text, or far too much of it"
        return ActReply(reply.key, "", reply.prompt_tokens, reply.generated_tokens, fault)
    return reply


def _is_text(value: object) -> bool:
    """Return whether a value is text that can be written down: lone surrogates cannot."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def _echo(request: ActRequest) -> ActReply:
    text = request.prompt.rstrip("\n").rpartition("\n")[2][: request.max_new_tokens]
    return ActReply(request.key, text, len(request.prompt), len(text))
