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
from swarm.coordinator.minds import make_coordinator
from swarm.coordinator.protocol import Coordinator, checked_replies
from swarm.errors import SwarmError
from swarm.messages import ActReply, ActRequest, CallKey, DirectReply, DirectRequest, FactsKnown
from swarm.prompt import STOP
from swarm.seeds import derive_seed

if TYPE_CHECKING:
    import torch

    from ulm.decode.engine import Engine
    from ulm.memory import LTMState
    from ulm.memory.exact import ExactIndex

__all__ = ["Host", "HostSpec", "SharedModel", "TokenCounter"]

AT_ONCE = 8
"""Calls of a pretrained model that are taken to be answered in the time of one."""

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
        return self._reader.count([TextRequest(text, self._system) for text in texts])

    def __call__(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text."""
        if self._reader is None:
            return [len(text.encode()) for text in texts]
        return self._reader.count_texts(texts)


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
        self._engines: dict[tuple[str, bool], Engine] = {}
        self._pretrained: dict[tuple[str, str | None], TextModel] = {}
        self._answered: dict[CallKey, ActReply] = {}
        self._indices: list[tuple[FactsKnown, ExactIndex]] = []
        self._counter = TokenCounter(spec)
        self._chats: PromptReader | None = None
        self._agents = self._text_model("agents", spec.agents)
        if isinstance(spec.agents.engine, UlmEngine) and computes:
            self._engine(spec.agents.engine.model, spec.agents.has_ltm)
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

            if whose == "agents":  # whose memories are more than text
                return None
            return UlmModel(self._engine(engine.model), self._models[engine.model].chat)
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

        device = self.spec.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise SwarmError(f"runtime.device {device!r} was asked for but torch sees no GPU here; set device: cpu")
        return device, getattr(torch, self.spec.dtype)

    def ping(self) -> int:
        """Return the process id: the host is up."""
        return os.getpid()

    def _engine(self, path: str, with_ltm: bool = False) -> Engine:
        if (path, with_ltm) not in self._engines:
            import torch

            from ulm.checkpoint import build_model
            from ulm.config import ModelConfig
            from ulm.decode.engine import Engine
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
            device, dtype = self._device_and_dtype()
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
        try:
            return self._generate(requests, deadline_s)
        except TimeoutError:
            fault = f"timeout: no answer within {self.spec.call_timeout_s:g} s"
            read, written = self.count_prompts([r.prompt for r in requests]), self.spec.agents.max_new_tokens
            return [ActReply(r.key, "", count, written, fault) for r, count in zip(requests, read, strict=True)]
        except SwarmError:
            raise  # no further call can succeed
        except Exception as error:  # a model is anybody's code
            if len(requests) == 1:
                return [ActReply(requests[0].key, "", 0, 0, f"model raised {type(error).__name__}: {error}"[:300])]
            # One request must not take its neighbours down: find it by asking each alone.
            return [reply for request in requests for reply in self._act([request], deadline_s)]

    def _ask(self, model: TextModel, requests: list[ActRequest], deadline_s: float) -> list[ActReply]:
        """Ask a model that is not our own engine.

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
                )
                for request in requests
            ],
            deadline_s=deadline_s,
        )
        return [
            _checked(ActReply(r.key, _action(found.text), found.prompt_tokens, found.generated_tokens, found.fault))
            for r, found in zip(requests, results, strict=True)
        ]

    def _generate(self, requests: list[ActRequest], deadline_s: float) -> list[ActReply]:
        if self._agents is not None:
            return self._ask(self._agents, requests, deadline_s)
        from ulm.decode.constraint import Constraint
        from ulm.decode.engine import GenerationRequest

        agents = self.spec.agents
        engine = self._own_engine()
        indices = self._ready(engine, requests)
        chats = self.spec.system is not None
        prompts: Sequence[str | tuple[int, ...]] = [request.prompt for request in requests]
        openings = [0] * len(requests)
        if chats:
            asked = [TextRequest(request.prompt, self.spec.system) for request in requests]
            self._chats = self._chats or PromptReader(engine.tokenizer, self.spec.chat)  # takes a tenth of a second
            read = self._chats.read(asked)
            prompts, openings = [tuple(ids) for ids in read], self._chats.openings(asked, read)
        stop = () if chats and not agents.constrained else (STOP,)
        results = engine.generate(
            [
                GenerationRequest(
                    prompt,
                    derive_seed(self.spec.seed, "act", *request.key),
                    request.max_new_tokens,
                    agents.temperature,
                    stop=stop,
                    constraint=Constraint.from_regex(f"(?:{request.pattern})\n", engine.tokenizer)
                    if agents.constrained and request.pattern
                    else None,
                    memory=_memory(engine, request),
                    facts=indices.get(id(request.facts)),
                    opening=opening,
                )
                for request, prompt, opening in zip(requests, prompts, openings, strict=True)
            ],
            deadline_s=deadline_s,
        )
        replies: list[ActReply] = []
        for request, result in zip(requests, results, strict=True):
            text = _action(result.text) if chats else result.text
            memory = result.memory.to_bytes() if result.memory is not None else None
            reply = ActReply(request.key, text, result.prompt_tokens, result.generated_tokens, None, memory)
            replies.append(_checked(reply))
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

    def _own_engine(self) -> Engine:
        """Return the engine of agents that run on `ulm`."""
        agents = self.spec.agents
        if not isinstance(agents.engine, UlmEngine):
            raise TypeError(f"agents on {agents.engine.kind} are not asked here")
        return self._engine(agents.engine.model, agents.has_ltm)

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


def _memory(engine: Engine, request: ActRequest) -> LTMState | None:
    """Return the agent's long-term memory as the engine wants it."""
    if request.memory is None or (ltm := engine.model.config.ltm) is None:
        return None
    from ulm.memory import LTMState

    return LTMState.from_bytes(request.memory, ltm, engine.model.device)


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
