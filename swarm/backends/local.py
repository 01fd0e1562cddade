"""What all engines of this cluster have in common: they read prompts themselves, and refuse what they cannot answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Generic, TypeVar

from swarm.backends.models import ChatFormat
from swarm.backends.prompts import PromptReader
from swarm.backends.protocol import Structure, TextRequest, TextResult
from swarm.backends.thoughts import open_thought, without_thoughts
from ulm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from ulm.decode.constraint import Constraint

LATE = "timeout: decoding passed its deadline"

_Call = TypeVar("_Call")


class LocalModel(PromptReader, ABC, Generic[_Call]):
    """A `TextModel` whose tokenizer is here; subclasses say what their engine is given, and ask it.

    Args:
        tokenizer, chat: as of `PromptReader`.
        max_length: tokens of prompt and answer together.
    """

    def __init__(self, tokenizer: Tokenizer, chat: ChatFormat | None, max_length: int) -> None:
        super().__init__(tokenizer, chat)
        self.max_length = max_length

    def generate(self, requests: Sequence[TextRequest], deadline_s: float | None = None) -> list[TextResult]:
        """Answer every request; one that does not fit, or cannot be asked, is a fault of its own."""
        results: dict[int, TextResult] = {}
        calls: dict[int, _Call] = {}
        for number, (request, ids) in enumerate(zip(requests, self.read(requests), strict=True)):
            try:
                if len(ids) + request.max_new_tokens > self.max_length:
                    raise ValueError(
                        f"the prompt has {len(ids)} tokens and the answer may take {request.max_new_tokens}, "
                        f"the model {self.max_length}"
                    )
                calls[number] = self._call(request, ids)
            except ValueError as error:
                results[number] = TextResult.failed(str(error)[:300])
        results.update(zip(calls, self._answers(list(calls.values()), deadline_s), strict=True))
        return [self._counted(request, results[number]) for number, request in enumerate(requests)]

    def _counted(self, request: TextRequest, result: TextResult) -> TextResult:
        """Return what counts of an answer; one that was kept to a form, or continues a text, counts as it is."""
        if request.system is None or request.structure is not None or result.fault is not None:
            return result
        said = without_thoughts(self._begun + result.text, is_cut=result.finish == "length")
        if said.fault is not None:
            failed = TextResult.failed(said.fault, result.prompt_tokens, result.generated_tokens)
            return replace(failed, thoughts=said.thoughts)
        return replace(result, text=said.text, thoughts=said.thoughts)

    @cached_property
    def _begun(self) -> str:
        """The mark of a thought that every chat of this model ends in, "" where there is none."""
        return open_thought(self.chat.render("", "x")) if self.chat else ""

    @abstractmethod
    def _call(self, request: TextRequest, ids: list[int]) -> _Call:
        """Return what the engine is given for a request whose prompt has these ids.

        Raises:
            ValueError: it cannot be asked; the message is the request's fault.
        """

    @abstractmethod
    def _answers(self, calls: list[_Call], deadline_s: float | None) -> list[TextResult]:
        """Return the answer of each call, a fault where there was none before the deadline."""

    def constraint(self, structure: Structure | None) -> Constraint | None:
        """Return what keeps an answer to its structure, for an engine whose decoding is ours to steer.

        Raises:
            ValueError: the structure is not understood, or the tokenizer can write no such text.
        """
        if structure is None:
            return None
        from ulm.decode.constraint import Constraint

        form, value = structure.best("choices", "regex", "json_schema", "grammar")
        try:
            found: Constraint = getattr(Constraint, f"from_{form}")(value, self.tokenizer)
        except ValueError as error:
            raise ValueError(f"the form of the answer cannot be kept: {error}") from error
        return found

    def close(self) -> None:
        """Give nothing back: its memory is that of the process."""
