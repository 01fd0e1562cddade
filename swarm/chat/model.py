"""The model that a person talks with, as text in and text out: a µLM of ours, or a pretrained Llama in our core.

Owns how a request becomes what the model reads, and an answer what it learns. Every request stands alone: the model
reads no earlier ones.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from swarm.agents.models import names_checkpoint
from swarm.backends.models import ChatFormat, find_model, folder_hash, open_model
from swarm.errors import SwarmError
from swarm.files import path_in
from swarm.learn.samples import Sample
from swarm.prompt import STOP
from swarm.text import without
from ulm.checkpoint import Checkpoint

if TYPE_CHECKING:
    from ulm.decode.engine import Engine, GenerationResult
    from ulm.delta import Delta
    from ulm.memory.exact import ExactIndex

SYSTEM = "Answer in one short sentence."
"""What opens the chats of models that have a chat format."""

ANSWER_TOKENS = 48


@dataclass(frozen=True, eq=False)
class ChatModel:
    """A model with its way of chatting.

    Attributes:
        sha256: of its weights and its tokenizer.
        checkpoint: model and tokenizer; the tokenizer reads the marks of the chat format.
        chat: the chat format; None reads a request as a line and writes a line.
        end: text that ends an answer.
    """

    sha256: str
    checkpoint: Checkpoint
    chat: ChatFormat | None
    end: str

    def prompt(self, request: str) -> str:
        """Return what the model reads."""
        return f"{request}\n" if self.chat is None else self.chat.render(SYSTEM, request)

    def sample(self, request: str, answer: str) -> Sample:
        """Return an answer as it is learned; marks of the chat format in it are left out."""
        marks = [] if self.chat is None else [re.escape(mark) for mark in self.chat.special]
        plain = without(answer, re.compile("|".join(marks))) if marks else answer
        return Sample(self.prompt(request), plain + self.end)

    @cached_property
    def engine(self) -> Engine:
        """What decodes."""
        from ulm.decode.engine import Engine

        return Engine(self.checkpoint.model, self.checkpoint.tokenizer, pack=False)

    def answer(
        self,
        requests: list[str],
        delta: Delta | None = None,
        facts: ExactIndex | None = None,
        tokens: int = ANSWER_TOKENS,
    ) -> list[GenerationResult]:
        """Return the most likely answer to each request."""
        from ulm.decode.engine import GenerationRequest

        encoded = self.checkpoint.tokenizer.encode_batch([self.prompt(request) for request in requests])
        stop = (STOP,) if self.chat is None else ()
        return self.engine.generate(
            [GenerationRequest(tuple(ids), 0, tokens, 0.0, stop=stop, facts=facts, delta=delta) for ids in encoded]
        )


def hash_of(name: str, base_dir: Path) -> str:
    """Return what identifies a model by its files.

    Raises:
        SwarmError: there is no such model.
    """
    from ulm.checkpoint import checkpoint_hash

    if not names_checkpoint(base_dir, name):
        return folder_hash(find_model(name, base_dir))
    try:
        return checkpoint_hash(path_in(base_dir, name))
    except ValueError as error:
        raise SwarmError(str(error)) from error


@lru_cache(maxsize=1)
def open_chat(name: str, base_dir: Path, sha256: str) -> ChatModel:
    """Return a model, kept from step to step; `sha256` tells versions of it apart.

    Raises:
        SwarmError: there is no such model, or none that can learn here.
    """
    from ulm.checkpoint import load_checkpoint

    if not names_checkpoint(base_dir, name):
        return _pretrained(name, base_dir, sha256)
    try:
        checkpoint = load_checkpoint(path_in(base_dir, name))
    except ValueError as error:
        raise SwarmError(str(error)) from error
    if checkpoint.config.ltm is not None:
        raise SwarmError(f"model {name} has a long-term memory, which `swarm chat` cannot use; take one without")
    return ChatModel(sha256, checkpoint, None, STOP)


def _pretrained(name: str, base_dir: Path, sha256: str) -> ChatModel:
    """Return a pretrained Llama in our core."""
    import tokenizers
    from transformers.utils import logging

    from ulm.hf.llama import from_llama

    folder = find_model(name, base_dir)
    opened = open_model(name, folder)
    logging.disable_progress_bar()
    try:
        model, _ = from_llama(folder)
    except ValueError as error:
        raise SwarmError(f"model {name}: {error}") from error
    tokenizer = opened.tokenizer()
    inner = tokenizers.Tokenizer.from_str(tokenizer.to_json())
    marked = type(tokenizer)(inner, opened.ends[0], opened.ends[0])
    marked.inner.encode_special_tokens = False  # prompts are chats, whose marks are the model's own
    end = str(inner.id_to_token(opened.ends[0]))
    if opened.chat is None:
        raise SwarmError(f"model {name} has no chat format, so nobody can talk with it")
    return ChatModel(sha256, Checkpoint(model, marked, model.config, {}), opened.chat, end)
