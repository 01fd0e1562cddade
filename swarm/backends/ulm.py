"""Our own engine behind the protocol of text generation: the one place where it is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from swarm.backends.constraints import constraint_of
from swarm.backends.models import ChatFormat
from swarm.backends.prompts import PromptReader
from swarm.backends.protocol import MemoryReader, TextRequest, TextResult

if TYPE_CHECKING:
    from ulm.decode.constraint import Constraint
    from ulm.decode.engine import Engine

_Opened = dict[tuple[str, str], tuple[int, Mapping[str, Any]]]


class UlmModel:
    """A µLM, or a pretrained Llama in our core; what a request gets depends on that request alone.

    Args:
        engine: the model, ready to decode.
        chat: its chat format; without one, requests with a system message are refused.
        max_length: tokens of prompt and answer; our attention slides, so it is a matter of taste.
        readers: what opens the memories of requests, by kind.
    """

    def __init__(
        self,
        engine: Engine,
        chat: ChatFormat | None = None,
        max_length: int = 1 << 20,
        readers: Mapping[str, MemoryReader] = MappingProxyType({}),
    ) -> None:
        self._engine = engine
        self._max_length = max_length
        self._readers = readers
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
        opened: _Opened = {}
        for number, (request, ids, opening) in enumerate(zip(requests, prompts, openings, strict=True)):
            try:
                constraint = self._constraint(request)
            except ValueError as error:
                results[number] = TextResult.failed(f"the form of the answer cannot be kept: {error}"[:300])
                continue
            try:
                memories = self._memories(request, opened)
            except ValueError as error:
                results[number] = TextResult.failed(str(error)[:300])
                continue
            asked[number] = GenerationRequest(
                tuple(ids),
                request.seed,
                request.max_new_tokens,
                request.temperature,
                stop=request.stop,
                constraint=constraint,
                opening=opening,
                **memories,
            )
        try:
            found = self._engine.generate(list(asked.values()), deadline_s)
        except TimeoutError:
            late = "timeout: decoding passed its deadline"
            results.update({n: TextResult.failed(late, len(prompts[n]), asked[n].max_new_tokens) for n in asked})
        else:
            for number, r in zip(asked, found, strict=True):
                written = ((kind, reader.update(r)) for kind, reader in self._readers.items())
                updates = tuple((kind, data) for kind, data in written if data is not None)
                results[number] = TextResult(r.text, r.prompt_tokens, r.generated_tokens, r.finish, None, updates)
        return [results[number] for number in range(len(requests))]

    def _constraint(self, request: TextRequest) -> Constraint | None:
        form = request.structure
        if form is not None and form.regex is not None and request.stop:
            # The stop ends the answer, so it has to be possible there.
            stop = "".join(f"\\x{byte:02x}" for byte in request.stop[0].encode("ascii"))
            form = replace(form, regex=f"(?:{form.regex}){stop}")
        return constraint_of(form, self._engine.tokenizer)

    def _memories(self, request: TextRequest, opened: _Opened) -> dict[str, Any]:
        """Return what the engine takes for the memories of a request; those of others of its batch are in `opened`."""
        found: dict[str, Any] = {}
        for handle in request.memories:
            name, revision = handle.version
            if (handle.kind, name) not in opened:
                try:
                    opened[handle.kind, name] = revision, self._readers[handle.kind].open(handle)
                except (ValueError, OSError) as error:
                    raise ValueError(f"memory {handle.kind} cannot be read: {error}") from error
            there, fields = opened[handle.kind, name]
            if there != revision:
                raise RuntimeError(f"versions {there} and {revision} of memory {handle.kind} {name} in one batch")
            if taken := sorted(found.keys() & fields.keys()):
                raise ValueError(f"{handle.kind} and another memory both are the engine's `{taken[0]}`; leave one out")
            found |= fields
        return found

    def count_prompts(self, requests: Sequence[TextRequest]) -> list[int]:
        """Return the tokens of each prompt."""
        return self._reader.count(requests)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text."""
        return self._reader.count_texts(texts)

    def close(self) -> None:
        """Nothing to give back: hosts own their engines."""
