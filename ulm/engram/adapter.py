"""One Engram of a model: its tables, its facts, what it knows of paraphrases; and what it asks of a tokenizer."""

import hashlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import tokenizers
from torch import nn
from transformers import PreTrainedTokenizerBase

from ulm.engram.features import ContentTier
from ulm.engram.tables import EngramConfig, EngramTables
from ulm.memory.exact import ExactMemory
from ulm.memory.ngrams import compressed

_NUMBERS = itertools.count()


class Vocabulary:
    """What an Engram wants to know of a tokenizer.

    Args:
        tokenizer: of transformers, one that `tokenizers` does the work for.
        size: tokens that the model knows; those that the tokenizer lacks are never compressed.

    Raises:
        ValueError: there is none, or it is of another kind.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase | None, size: int) -> None:
        inner = getattr(tokenizer, "backend_tokenizer", None)
        if tokenizer is None or inner is None:
            raise ValueError(
                "an Engram needs the model's fast tokenizer: add_engram(model, config, tokenizer=AutoTokenizer."
                "from_pretrained(...))"
            )
        if inner.get_vocab_size() > size:
            raise ValueError(
                f"the tokenizer has {inner.get_vocab_size()} tokens and the model {size}: they do not belong together"
            )
        self.tokenizer, self.size = tokenizer, size
        self.end_id: int | None = tokenizer.eos_token_id
        self._inner: tokenizers.Tokenizer = inner
        parts = json.loads(inner.to_str())
        kept = {name: parts.get(name) for name in ("added_tokens", "normalizer", "pre_tokenizer", "model")}
        self.digest = hashlib.blake2b(json.dumps(kept, sort_keys=True).encode(), digest_size=8).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Return a text's tokens; markers such as those of a chat template count as such."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, markers included."""
        return self._inner.decode(list(ids), skip_special_tokens=False)

    def numbers(self, compress: bool) -> list[int]:
        """Return a number per token: the same for tokens that differ in case, accents or spacing alone."""
        if not compress:
            return list(range(self.size))
        numbers = compressed([self.decode([i]) for i in range(self._inner.get_vocab_size())])
        first = max(numbers) + 1
        return numbers + list(range(first, first + self.size - len(numbers)))


class EngramAdapter(nn.Module):
    """One memory: its tiers, those that are on.

    Args:
        config: what it consists of.
        vocabulary: of the model.
        d_model: width of the model.
        facts: SQLite file of the exact tier; None keeps facts in memory.

    Attributes:
        number: of this process's adapters; what was read with one means nothing to another.
    """

    def __init__(self, config: EngramConfig, vocabulary: Vocabulary, d_model: int, facts: Path | None) -> None:
        super().__init__()
        self.number = next(_NUMBERS)
        self.config = config
        self.tables = EngramTables(config, vocabulary.numbers(config.compress), d_model) if config.layers else None
        end = (vocabulary.end_id,) if config.terminate and vocabulary.end_id is not None else ()
        self.memory = (
            ExactMemory(vocabulary.encode, vocabulary.digest, facts, end, config.conflicts) if config.exact else None
        )
        self.content = ContentTier() if config.content else None
