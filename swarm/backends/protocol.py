"""What a text-generation backend is: requests in, as many results out, in the same order.

Owns the values that travel and the one promise on errors: what goes wrong with one request is that result's `fault`,
so that its neighbours keep their answers; only what makes every further call pointless is raised. It refuses to know
any engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from swarm.messages import Handle, Update

if TYPE_CHECKING:
    from ulm.decode.engine import Engine


@dataclass(frozen=True, slots=True)
class Structure:
    """The form that an answer must have.

    One of them, or several that describe the same texts: an engine takes the one that it serves best.

    Attributes:
        regex: the whole answer matches it (`ulm.decode.constraint.Constraint.from_regex` says what is understood).
        choices: the answer is one of these.
        json_schema: the answer is JSON that fits this schema.
        grammar: a context-free grammar that begins at `root`, in GBNF (vLLM: the EBNF of xgrammar).
    """

    regex: str | None = None
    choices: tuple[str, ...] = ()
    json_schema: dict[str, Any] | None = None
    grammar: str | None = None

    def __post_init__(self) -> None:
        if not (self.regex or self.choices or self.json_schema or self.grammar):
            raise ValueError("a structure needs a regex, choices, a JSON Schema or a grammar")

    def best(self, *forms: str) -> tuple[str, Any]:
        """Return the first of these forms that it has, by field name, and its value."""
        return next((form, value) for form in forms if (value := getattr(self, form)))


@dataclass(frozen=True, slots=True)
class TextRequest:
    """One answer that is wanted.

    Attributes:
        prompt: the text to continue; in a chat, what the user says.
        system: None for plain text; otherwise the prompt is a chat's and this opens it ("" where nothing does).
        seed: seeds the sampling of this request, where the engine can.
        max_new_tokens: at least 1.
        temperature: 0 takes the most likely token.
        stop: the answer ends before the first of these strings.
        structure: form of the answer, None for any; what is to be followed by a stop is written without it.
        memories: what the one who is asked keeps, for engines with a `MemoryReader` of each kind (`ulm`).
        inline: answers the text while it is written, where it ends with `=` (engine `ulm` alone); pure.
    """

    prompt: str
    system: str | None = None
    seed: int = 0
    max_new_tokens: int = 32
    temperature: float = 1.0
    stop: tuple[str, ...] = ()
    structure: Structure | None = None
    memories: tuple[Handle, ...] = ()
    inline: Callable[[str], str | None] | None = None


@dataclass(frozen=True, slots=True)
class TextResult:
    """One answer and what it cost, in the engine's own tokens.

    Attributes:
        text: the answer without the stop string; empty after a fault.
        prompt_tokens: tokens that were read, the chat's own marks and inline answers included.
        generated_tokens: tokens that were sampled, the one that ended the answer included.
        finish: `stop` (a stop string), `end` (end of text) or `length`; `fault` when there is no answer.
        fault: what went wrong, in a line.
        updates: the memories that the call has changed.
        thoughts: what a model that thinks wrote beside its answer (`swarm.backends.thoughts`); charged, and no answer.
        inlined: the spans of the text, in characters, that inline answers appended.
    """

    text: str
    prompt_tokens: int
    generated_tokens: int
    finish: Literal["stop", "end", "length", "fault"]
    fault: str | None = None
    updates: tuple[Update, ...] = ()
    thoughts: str = ""
    inlined: tuple[tuple[int, int], ...] = ()

    @classmethod
    def failed(cls, fault: str, prompt_tokens: int = 0, generated_tokens: int = 0) -> TextResult:
        """Return a result without an answer; tokens that were used all the same are charged."""
        return cls("", prompt_tokens, generated_tokens, "fault", fault)


class TextModel(Protocol):
    """A model that writes text.

    `generate` takes any number of requests at once and batches them as it sees fit.

    Attributes:
        max_length: tokens of prompt and answer together that the model can take.
    """

    max_length: int

    def generate(self, requests: Sequence[TextRequest], deadline_s: float | None = None) -> list[TextResult]:
        """Answer every request.

        Args:
            requests: any number, any mixture of settings.
            deadline_s: `time.monotonic()` value after which what has no answer yet is a fault.

        Raises:
            Outage: nobody answers, or requests are refused for good: no further call can succeed for now.
        """

    def count_prompts(self, requests: Sequence[TextRequest]) -> list[int]:
        """Return the tokens that each request's prompt has, the chat's own marks included."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text on its own."""

    def close(self) -> None:
        """Give back what it holds; idempotent."""


@dataclass(frozen=True, slots=True)
class ReadAgain:
    """A long-term memory that a model writes before a call, from texts, with what its agent has learned by then.

    Attributes:
        texts: prompts with their answers, oldest first.
    """

    texts: tuple[str, ...]


class MemoryReader:
    """The host's half of a kind of memory, one for each engine; the driver's is `swarm.agents.memory.AgentMemory`.

    Args:
        settings: the section of `agents.memory`.
        engine: whose calls it reads for.
    """

    def __init__(self, settings: Any, engine: Engine) -> None:
        self.settings = settings
        self.engine = engine

    def open(self, handle: Handle) -> Mapping[str, Any]:
        """Return fields of `ulm.decode.engine.GenerationRequest`: what the engine takes for this memory.

        Only `inline` is another: it receives the prompt, too, and is asked after the world's inline answers.

        Asked once for each version in a batch. What it returns is used until the batch is answered; a batch never has
        two versions of one memory.

        Raises:
            ValueError, OSError: it cannot be read.
        """
        raise NotImplementedError

    def update(self, result: Any) -> bytes | None:
        """Return what the memory holds after a call (a `GenerationResult`), None where it has not changed."""
        return None
