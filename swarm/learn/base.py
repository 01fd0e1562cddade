"""The base that learns, as text in and text out: a µLM of ours, or a pretrained Llama in our core.

Owns how what is asked becomes what the model reads, and an answer what it learns: the same tokens as in play, where
`swarm.backends.prompts` lays prompts out and `swarm.agents.host` says what ends an answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from swarm.agents.models import names_checkpoint
from swarm.backends.models import ChatFormat, find_model, folder_hash, open_model
from swarm.backends.thoughts import open_thought
from swarm.config.experiment import ExperimentConfig
from swarm.errors import SwarmError
from swarm.files import path_in
from swarm.learn.samples import Samples
from swarm.prompt import STOP, agent_system
from swarm.run.episode import world_of
from swarm.text import without
from ulm.checkpoint import Checkpoint, checkpoint_hash, load_checkpoint
from ulm.model import Decoder

if TYPE_CHECKING:
    from ulm.decode.engine import Engine, GenerationResult
    from ulm.delta import Delta
    from ulm.memory.exact import ExactIndex


class Manner(NamedTuple):
    """How a base is asked.

    Attributes:
        system: what opens its chats; None lets it continue plain text.
        is_line: whether its answers end with their line in a chat, too, for they are kept to a pattern.
        arguments: what its chat template is told beside the messages, as JSON.
    """

    system: str | None = None
    is_line: bool = False
    arguments: str = "{}"


@dataclass(frozen=True, eq=False)
class Base:
    """A model, and how it is asked.

    Attributes:
        sha256: of its weights and its tokenizer.
        checkpoint: model and tokenizer; of a model that chats, the tokenizer reads the marks of its chat format.
        manner: how it is asked.
        chat: the model's chat format, None without one.
        end: text that ends an answer.
        is_pretrained: whether it was made elsewhere.
    """

    sha256: str
    checkpoint: Checkpoint
    manner: Manner
    chat: ChatFormat | None = None
    end: str = STOP
    is_pretrained: bool = False

    def reads(self, prompt: str) -> str:
        """Return what the model reads when it is asked with a prompt."""
        if self.chat is None or self.manner.system is None:
            return prompt
        return self.chat.render(self.manner.system, prompt)

    def asked(self, request: str) -> str:
        """Return the prompt of a request: for a model that continues texts, a line."""
        return request + STOP if self.manner.system is None else request

    def writes(self, answer: str) -> str:
        """Return an answer as it is learned; marks of the chat format in it are left out."""
        if self.chat is None or self.manner.system is None:
            return answer + self.end
        return without(answer, re.compile("|".join(map(re.escape, self.chat.special)))) + self.end

    def samples(self, samples: Samples) -> Samples:
        """Return samples of prompts and lines as the model reads and writes them."""
        if self.manner.system is None:
            return samples
        kinds = {
            kind: [
                sample._replace(
                    prompt=self.reads(sample.prompt), completion=self.writes(sample.completion.removesuffix(STOP))
                )
                for sample in some
            ]
            for kind, some in samples.kinds.items()
        }
        return Samples(kinds, samples.counts)

    @cached_property
    def engine(self) -> Engine:
        """What decodes."""
        from ulm.decode.engine import Engine

        return Engine(self.checkpoint.model, self.checkpoint.tokenizer, pack=False)

    def answer(
        self, prompts: Sequence[str], tokens: int, delta: Delta | None = None, facts: ExactIndex | None = None
    ) -> list[GenerationResult]:
        """Return the most likely answer to each prompt, of at most so many tokens."""
        from ulm.decode.engine import GenerationRequest

        encoded = self.checkpoint.tokenizer.encode_batch([self.reads(prompt) for prompt in prompts])
        stop = (STOP,) if self.end == STOP else ()
        return self.engine.generate(
            [GenerationRequest(tuple(ids), 0, tokens, 0.0, stop=stop, facts=facts, delta=delta) for ids in encoded]
        )


def hash_of(name: str, base_dir: Path) -> str:
    """Return what identifies a model by its files, as the header of a journal has it.

    Raises:
        SwarmError: there is no such model, or it is damaged.
    """
    if not names_checkpoint(base_dir, name):
        return folder_hash(find_model(name, base_dir))
    try:
        return checkpoint_hash(path_in(base_dir, name))
    except ValueError as error:
        raise SwarmError(str(error)) from error


def agents_base(config: ExperimentConfig, base_dir: Path, sha256: str) -> Base:
    """Return the model of an experiment's agents, asked as they are; `sha256` tells versions of it apart.

    Raises:
        SwarmError: as of `open_base`.
    """
    agents, engine = config.agents, _engine(config)
    system = agent_system(world_of(config, base_dir).tools()) if engine.chats else None
    manner = Manner(system, agents.constrained, json.dumps(engine.chat_template_kwargs, sort_keys=True))
    return open_base(engine.model, base_dir, sha256, manner)


def agents_hash(config: ExperimentConfig, base_dir: Path) -> str:
    """Return what identifies the model of an experiment's agents; errors as of `hash_of`."""
    return hash_of(_engine(config).model, base_dir)


def _engine(config: ExperimentConfig) -> Any:
    return config.agents.engine


@lru_cache(maxsize=4)
def open_base(name: str, base_dir: Path, sha256: str, manner: Manner) -> Base:
    """Return a model, kept from step to step; `sha256` tells versions of it apart.

    Raises:
        SwarmError: there is no such model, none that can learn here, or it cannot be asked so.
    """
    if names_checkpoint(base_dir, name):
        if manner.system is not None:
            raise SwarmError(f"model {name} has no chat format; set engine.prompt: plain")
        return Base(sha256, _checkpoint(path_in(base_dir, name), sha256), manner)
    return _pretrained(name, base_dir, sha256, manner)


@lru_cache(maxsize=2)
def _checkpoint(folder: Path, sha256: str) -> Checkpoint:
    """Return a checkpoint without its long-term memory: a step learns from what stands in the prompt."""
    try:
        loaded = load_checkpoint(folder)
    except ValueError as error:
        raise SwarmError(str(error)) from error
    if loaded.model.ltm is None:
        return loaded
    bare = Decoder(replace(loaded.config, ltm=None))
    state = loaded.model.state_dict()
    bare.load_state_dict({name: tensor for name, tensor in state.items() if not name.startswith("ltm.")})
    return replace(loaded, model=bare.eval().requires_grad_(False), config=bare.config)


@lru_cache(maxsize=2)
def _llama(name: str, folder: Path, sha256: str) -> Any:
    """Return the decoder of a pretrained Llama."""
    from transformers.utils import logging

    from ulm.hf.llama import from_llama

    logging.disable_progress_bar()
    try:
        return from_llama(folder)[0]
    except ValueError as error:
        raise SwarmError(f"model {name}: {error}") from error


def _pretrained(name: str, base_dir: Path, sha256: str, manner: Manner) -> Base:
    import tokenizers

    folder = find_model(name, base_dir)
    opened = open_model(name, folder, json.loads(manner.arguments))
    model, tokenizer, end = _llama(name, folder, sha256), opened.tokenizer(), STOP
    if manner.system is not None:
        if opened.chat is None:
            raise SwarmError(f"model {name} has no chat format, so nobody can talk with it")
        if open_thought(opened.chat.render("", "x")):
            raise SwarmError(f"model {name} thinks before it answers, and thoughts are not learned; take another model")
        # A copy, whose prompts are chats: their marks are the model's own.
        tokenizer = type(tokenizer)(tokenizers.Tokenizer.from_str(tokenizer.to_json()), *[opened.ends[0]] * 2)
        tokenizer.inner.encode_special_tokens = False
        end = STOP if manner.is_line else str(tokenizer.inner.id_to_token(opened.ends[0]))
    return Base(sha256, Checkpoint(model, tokenizer, model.config, {}), manner, opened.chat, end, True)
