"""From a request to the token ids that a model reads: one way for every engine, and for counting.

Owns the difference between plain text, in which `<|im_end|>` is eleven letters, and a chat, whose marks are the model's
special tokens. It refuses to know engines.
"""

from collections.abc import Sequence
from functools import cached_property
from itertools import takewhile
from typing import Any

from swarm.backends.models import ChatFormat
from swarm.backends.protocol import TextRequest
from swarm.errors import SwarmError
from ulm.tokenizer import Tokenizer

CHAT_MARKS = 16
"""Tokens that the marks around one message of a chat are taken for where the chat format is not known."""

PROBES = ("0", "x")
"""Messages with nothing in common: what their chats have in common is the opening of all chats."""


class PromptReader:
    """Reads requests as a model does.

    Args:
        tokenizer: the model's; plain text is read with it.
        chat: the model's chat format, None without one.
    """

    def __init__(self, tokenizer: Tokenizer, chat: ChatFormat | None) -> None:
        self.tokenizer = tokenizer
        self.chat = chat
        self._openings: dict[str, list[int]] = {}

    def read(self, requests: Sequence[TextRequest]) -> list[list[int]]:
        """Return the ids of each request's prompt; an empty one is read as the end of a text before it.

        Raises:
            SwarmError: a chat is asked for, and the model has no chat format.
        """
        plain = [request.prompt for request in requests if request.system is None]
        encoded = iter(self.tokenizer.encode_batch(plain) if plain else ())
        return [
            (next(encoded) if request.system is None else self._chat_ids(request.system, request.prompt))
            or [self.tokenizer.eot_id]
            for request in requests
        ]

    @cached_property
    def _marked(self) -> Any:
        """The tokenizer as chats need it; a copy takes a tenth of a second, and plain prompts need none."""
        import tokenizers

        # A copy, for whether special tokens are read in a text is a property of the object.
        marked = tokenizers.Tokenizer.from_str(self.tokenizer.to_json())
        marked.encode_special_tokens = False
        return marked

    def _chat_ids(self, system: str, prompt: str) -> list[int]:
        if self.chat is None:
            raise SwarmError("this model has no chat format; set engine.prompt: plain")
        return list(self._marked.encode(self.chat.render(system, prompt), add_special_tokens=False).ids)

    def opening(self, request: TextRequest, ids: Sequence[int]) -> int:
        """Return how many ids at the beginning of a prompt, as `read` returns it, open all chats with its system."""
        if request.system is None:
            return 0
        if request.system not in self._openings:
            pairs = zip(*(self._chat_ids(request.system, probe) for probe in PROBES), strict=False)
            self._openings[request.system] = [one for one, other in takewhile(lambda pair: pair[0] == pair[1], pairs)]
        opening = self._openings[request.system]
        # A first word may be read together with what stands before it.
        return len(opening) if len(ids) > len(opening) and list(ids[: len(opening)]) == opening else 0

    def count_prompts(self, requests: Sequence[TextRequest]) -> list[int]:
        """Return the tokens of each request's prompt, the chat's own marks included."""
        return [len(ids) for ids in self.read(requests)]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text on its own."""
        return [len(ids) for ids in self.tokenizer.encode_batch(list(texts))] if texts else []
