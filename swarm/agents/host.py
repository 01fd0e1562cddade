"""What one host process does: it owns models and runs their calls.

A `Host` knows nothing of Ray: `swarm.agents.local_pool.LocalPool` keeps one in this process, `swarm.actors` wraps many
in actors.
Models that answer from other processes are handed to it; a host without them leaves their agents to another.
It holds no state between calls except the reply to the last call of each key, so a retried call is answered, not
repeated. A model that raises or returns garbage becomes a fault of the request that caused it.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from swarm.backends.models import ChatFormat, ModelFolder
from swarm.backends.prompts import CHAT_MARKS, PromptReader
from swarm.backends.protocol import Structure, TextModel, TextRequest, TextResult
from swarm.config.engine import AnyEngine, EchoEngine, ModelEngine, OpenAIEngine, TransformersEngine, UlmEngine
from swarm.config.experiment import ExperimentConfig
from swarm.config.memory import find_memory
from swarm.config.training import resolve_device
from swarm.coordinator.kinds import make_coordinator
from swarm.coordinator.protocol import Coordinator, checked_replies
from swarm.errors import SwarmError
from swarm.messages import ActReply, ActRequest, CallKey, DirectReply, DirectRequest
from swarm.process.machine import is_out_of_memory, memory_full, told_when_full
from swarm.prompt import STOP
from swarm.seeds import derive_seed
from swarm.text import FENCE, one_line
from ulm.tokenizer import Tokenizer
from worlds.registry import world_class

if TYPE_CHECKING:
    import torch

    from ulm.decode.engine import Engine

AT_ONCE = 8
"""Calls of a pretrained model that are taken to be answered in the time of one."""

MAX_ACTION_CHARACTERS = 4096

_CODE = re.compile(r"(`{1,3})([^`]+)\1")

MEMORY_REMEDY = "lower runtime.agents_per_host, runtime.hosts or concurrency, or take a smaller model"


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
class ResolvedModel:
    """What agents or the coordinator run on, found and checked; weights of our own engine are apart (`SharedModel`).

    Attributes:
        engine: its settings, with the paths of this machine.
        tokenizer: `tokenizer.json` as text; None where its files are not here.
        chat: its chat format, None without one.
        folder: the model's files, for the engines `transformers` and `vllm`.
        form: how an endpoint is asked for answers in a form.
    """

    engine: AnyEngine | None = None
    tokenizer: str | None = None
    chat: ChatFormat | None = None
    folder: ModelFolder | None = None
    form: str = "pattern"


@dataclass(frozen=True, slots=True)
class HostSpec:
    """Everything a host needs to know beside the weights.

    Attributes:
        config: the experiment. Decoding stops after its `faults.call_timeout_s`.
        agents, coordinator: their models. Without a tokenizer of the agents' model, a token is a byte.
        tools: the world's actions, for coordinators that were not trained on it.
        system: what opens the agents' chats; None where they read plain text.
    """

    config: ExperimentConfig
    agents: ResolvedModel
    coordinator: ResolvedModel
    tools: tuple[Mapping[str, Any], ...] = ()
    system: str | None = None

    @property
    def needs_hosts(self) -> bool:
        """Whether anything computes in host processes; otherwise one `Host` beside the runtime does all there is."""
        coordinator = self.coordinator.engine
        return not self.config.agents.engine.is_remote or (coordinator is not None and not coordinator.is_remote)

    def calls_limit_s(self, model: ResolvedModel, count: int) -> float:
        """Return how long so many calls of a model may take, some of which may have to wait for others."""
        engine, at_once = model.engine, max(1, count)
        if isinstance(engine, OpenAIEngine):
            at_once = engine.connections
        elif isinstance(engine, ModelEngine) and (engine.chats or not isinstance(engine, UlmEngine)):
            at_once = AT_ONCE
        return self.config.faults.call_timeout_s * -(-count // at_once)

    def limit_s(self, count: int) -> float:
        """Return after how long a host that has not answered so many calls counts as hung.

        Directing an episode takes up to two calls of the coordinator's model, a briefing for each part of the swarm.
        A model of transformers looks at the clock between two tokens, and reading prompts is one of those steps.
        """
        slow = any(isinstance(model.engine, TransformersEngine) for model in (self.agents, self.coordinator))
        acting, directing = self.calls_limit_s(self.agents, count), self.calls_limit_s(self.coordinator, 2 * count)
        return max(acting, directing) + (self.config.faults.call_timeout_s if slow else 0.0)


class TokenCounter:
    """Counts tokens as the agents' model would; bytes when agents have no model.

    Args:
        spec: has the tokenizer and the chat format.
    """

    def __init__(self, spec: HostSpec) -> None:
        self.spec = spec
        self._reader = None
        if spec.agents.tokenizer is not None:
            self._reader = PromptReader(Tokenizer.from_json(spec.agents.tokenizer), spec.agents.chat)

    def count_prompts(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens that an agent reads when it is asked with each of these prompts."""
        system = self.spec.system
        if system is None or not texts:
            return self.count_tokens(texts)
        if self._reader is None or self._reader.chat is None:
            opening = self.count_tokens([system])[0] + 2 * CHAT_MARKS
            return [opening + count for count in self.count_tokens(texts)]
        return self._reader.count_prompts([TextRequest(text, system) for text in texts])

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text under the agents' tokenizer."""
        if self._reader is None:
            return [len(text.encode()) for text in texts]
        return self._reader.count_tokens(texts)


class Host(TokenCounter):
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
        models: Mapping[str, SharedModel],
        remote: Mapping[str, TextModel] = MappingProxyType({}),
        computes: bool = True,
    ) -> None:
        super().__init__(spec)
        self._models, self._remote, self._computes = models, remote, computes
        self._engines: dict[tuple[str, frozenset[str]], Engine] = {}
        self._pretrained: dict[tuple[str, str | None], TextModel] = {}
        self._answered: dict[CallKey, ActReply] = {}
        self._inline = world_class(spec.config.world.id).inline if spec.config.agents.inline else None
        with told_when_full("loading the models", MEMORY_REMEDY):
            self._agents = self._text_model("agents", spec.agents)
            model = self._text_model("coordinator", spec.coordinator)
        self._coordinator: Coordinator | None = None
        if model is not None or spec.coordinator.engine is None:  # otherwise another host asks its model
            limit_s = partial(spec.calls_limit_s, spec.coordinator)
            self._coordinator = make_coordinator(
                spec.config.coordinator, spec.config.world.id, model, self.count_tokens, spec.tools, limit_s
            )

    def _text_model(self, whose: str, model: ResolvedModel) -> TextModel | None:
        """Return the model of agents or coordinator, None where there is none or this host does not ask it."""
        engine = model.engine
        if not isinstance(engine, UlmEngine | TransformersEngine):
            return self._remote.get(whose)
        if not self._computes:
            return None
        if isinstance(engine, TransformersEngine):
            return self._transformers(model, engine)
        from swarm.backends.ulm import UlmModel

        kinds = [(find_memory(memory.kind), memory) for memory in self.spec.config.agents.memory if whose == "agents"]
        own = self._engine(engine.model, frozenset(kind.part for kind, _ in kinds if kind.part))
        readers = {kind.kind: kind.Reader(memory, own) for kind, memory in kinds if kind.Reader}
        return UlmModel(own, model.chat, readers=readers)

    def _transformers(self, model: ResolvedModel, engine: TransformersEngine) -> TextModel:
        key = engine.model, engine.adapter
        if key not in self._pretrained:
            from swarm.backends.transformers import TransformersModel

            if model.folder is None:
                raise AssertionError("a model of transformers without its files")
            adapter = Path(engine.adapter) if engine.adapter else None
            self._pretrained[key] = TransformersModel(model.folder, *self._device_and_dtype(), adapter)
        return self._pretrained[key]

    def _device_and_dtype(self) -> tuple[str, torch.dtype]:
        """Return where and with what this process computes; from now on it does with as many threads as it shall."""
        import torch

        runtime = self.spec.config.runtime
        if runtime.threads_per_host:
            torch.set_num_threads(runtime.threads_per_host)
        return resolve_device(runtime.device), getattr(torch, runtime.dtype)

    def _engine(self, path: str, parts: frozenset[str]) -> Engine:
        """Return the engine of a model with these of its optional parts (`ulm.config.PARTS`) and no other."""
        if (path, parts) not in self._engines:
            import torch

            from ulm.checkpoint import build_model
            from ulm.config import PARTS, ModelConfig
            from ulm.decode.engine import Engine

            device, dtype = self._device_and_dtype()
            shared = self._models[path]
            config, arrays = shared.config, shared.arrays
            for part in PARTS:
                if part not in parts:  # a memory that was not asked for is not there at all
                    config = {key: value for key, value in config.items() if key != part}
                    arrays = {name: array for name, array in arrays.items() if not name.startswith(f"{part}.")}
            model = build_model(ModelConfig.from_dict(config), arrays)
            if device != "cpu" or dtype != torch.float32:
                with torch.inference_mode():  # shared weights are inference tensors, and so must their copies be
                    model = model.to(device=device, dtype=dtype)
            tokenizer = Tokenizer.from_json(shared.tokenizer)
            tokenizer.pad_id, tokenizer.eot_id = shared.pad_id, shared.eot_id
            self._engines[path, parts] = Engine(model, tokenizer, compile=self.spec.config.runtime.compile)
        return self._engines[path, parts]

    def act(self, requests: Sequence[ActRequest]) -> list[ActReply]:
        """Run agent calls; one that was answered in the last call gets the same reply again."""
        fresh = [request for request in requests if request.key not in self._answered]
        deadline_s = time.monotonic() + self.spec.calls_limit_s(self.spec.agents, len(fresh))
        replies = {reply.key: reply for reply in _each_answered("model", partial(self._act, deadline_s), fresh)}
        result = [replies.get(request.key) or self._answered[request.key] for request in requests]
        self._answered = {reply.key: reply for reply in result}
        return result

    def _act(self, deadline_s: float, requests: Sequence[ActRequest]) -> list[ActReply]:
        """Ask the agents' model.

        A chat may open with an empty line, so what it is asked is a line only where a pattern keeps it to one.
        """
        agents, system = self.spec.config.agents, self.spec.system
        if isinstance(agents.engine, EchoEngine):
            return [_echo(request) for request in requests]
        if self._agents is None:
            raise SwarmError("these agents are asked by another host")
        stop = (STOP,) if system is None or agents.constrained else ()
        results = self._agents.generate(
            [
                TextRequest(
                    request.prompt,
                    system,
                    derive_seed(self.spec.config.seed, "act", *request.key),
                    request.max_new_tokens,
                    0.0 if request.greedy else agents.temperature,
                    stop,
                    Structure(regex=request.pattern) if agents.constrained and request.pattern else None,
                    request.memories,
                    None if self._inline is None else partial(self._inline, request.observation or ""),
                )
                for request in requests
            ],
            deadline_s=deadline_s,
        )
        return [self._reply(request.key, found) for request, found in zip(requests, results, strict=True)]

    def _reply(self, key: CallKey, found: TextResult) -> ActReply:
        action, fault, updates = found.text, found.fault, found.updates
        if self.spec.system is not None:
            action = _action(action)
            if fault is None and not action:
                fault, updates = f"the answer holds no action: {one_line(found.text)[:100]}", ()
        elif not isinstance(self.spec.config.agents.engine, UlmEngine):  # ours continues a prompt to the line's end
            action = _first_line(action)
        thoughts = found.thoughts if self.spec.config.keep_thoughts else ""
        cost = found.prompt_tokens, found.generated_tokens
        return _checked(ActReply(key, action, *cost, fault, updates, thoughts, found.inlined))

    def direct(self, requests: Sequence[DirectRequest]) -> list[DirectReply]:
        """Run coordinator calls."""
        coordinator = self._coordinator
        if coordinator is None:
            return [DirectReply(request.key) for request in requests]
        replies = _each_answered("coordinator", lambda some: checked_replies(some, coordinator.direct(some)), requests)
        return replies if self.spec.config.keep_thoughts else [replace(reply, thoughts="") for reply in replies]


def _each_answered(who: str, call: Callable[[Sequence[Any]], list[Any]], requests: Sequence[Any]) -> list[Any]:
    """Return the reply to each request; one that makes a model or coordinator raise does not take others down.

    Raises:
        SwarmError: no further call can succeed.
    """
    try:
        return call(requests) if requests else []
    except SwarmError:
        raise
    except Exception as error:  # it is anybody's code
        if len(requests) == 1:
            if is_out_of_memory(error):  # of no call's making
                raise memory_full(f"the {who}", MEMORY_REMEDY) from error
            return [requests[0].failed(f"{who} raised {type(error).__name__}: {error}"[:300])]
        # Which one it was is found by asking each alone.
        return [reply for request in requests for reply in _each_answered(who, call, [request])]


def _first_line(text: str) -> str:
    """Return the first line of an answer that says something."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _action(text: str) -> str:
    """Return the same of an answer in a chat; what sets it off as code is no part of it."""
    lines = (line for line in text.replace("\ufeff", "").splitlines() if not FENCE.fullmatch(line))
    line = _first_line("\n".join(lines))
    return code[2].strip() if (code := _CODE.fullmatch(line)) else line


def _checked(reply: ActReply) -> ActReply:
    """Return the reply, or one that says that its text is none."""
    with contextlib.suppress(AttributeError, UnicodeEncodeError):  # no `str`; lone surrogates, which no file can hold
        reply.text.encode()
        if reply.fault is not None or len(reply.text) <= MAX_ACTION_CHARACTERS:
            return reply
    return replace(
        reply, text="", fault="model returned garbage: no text, or far too much of it", updates=(), inlined=()
    )


def _echo(request: ActRequest) -> ActReply:
    text = request.prompt.rstrip("\n").rpartition("\n")[2][: request.max_new_tokens]
    return ActReply(request.key, text, len(request.prompt), len(text))
