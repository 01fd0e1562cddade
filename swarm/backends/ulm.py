"""Our own engine behind the protocol of text generation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from swarm.backends.constraints import constraint_of
from swarm.backends.models import ChatFormat
from swarm.backends.prompts import PromptReader
from swarm.backends.protocol import TextRequest, TextResult

if TYPE_CHECKING:
    from ulm.decode.engine import Engine

__all__ = ["UlmModel"]


class UlmModel:
    """A µLM, or a pretrained Llama in our core; what a request gets depends on that request alone.

    Args:
        engine: the model, ready to decode.
        chat: its chat format; without one, requests with a system message are refused.
        max_length: tokens of prompt and answer; our attention slides, so it is a matter of taste.
    """

    def __init__(self, engine: Engine, chat: ChatFormat | None = None, max_length: int = 1 << 20) -> None:
        self._engine = engine
        self._max_length = max_length
        self._reader = PromptReader(engine.tokenizer, chat)

    @property
    def max_length(self) -> int:
        """Tokens of prompt and answer together."""
        return self._max_length

    def generate(self, requests: Sequence[TextRequest], deadline_s: float | None = None) -> list[TextResult]:
        """Answer every request; past the deadline all of them are faults, for they are decoded together."""
        from ulm.decode.engine import GenerationRequest

        prompts = self._reader.read(requests)
        results: dict[int, TextResult] = {}
        asked: dict[int, GenerationRequest] = {}
        openings = self._reader.openings(requests, prompts)
        for number, (request, ids, opening) in enumerate(zip(requests, prompts, openings, strict=True)):
            try:
                constraint = constraint_of(request.structure, self._engine.tokenizer)
            except ValueError as error:
                results[number] = TextResult.failed(f"the form of the answer cannot be kept: {error}"[:300])
                continue
            asked[number] = GenerationRequest(
                tuple(ids),
                request.seed,
                request.max_new_tokens,
                request.temperature,
                stop=request.stop,
                constraint=constraint,
                opening=opening,
            )
        try:
            found = self._engine.generate(list(asked.values()), deadline_s)
        except TimeoutError:
            late = "timeout: decoding passed its deadline"
            results.update({n: TextResult.failed(late, len(prompts[n]), asked[n].max_new_tokens) for n in asked})
        else:
            for number, r in zip(asked, found, strict=True):
                results[number] = TextResult(r.text, r.prompt_tokens, r.generated_tokens, r.finish)
        return [results[number] for number in range(len(requests))]

    def count_prompts(self, requests: Sequence[TextRequest]) -> list[int]:
        """Return the tokens of each prompt."""
        return self._reader.count(requests)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text."""
        return self._reader.count_texts(texts)

    def close(self) -> None:
        """Nothing to give back: hosts own their engines."""
