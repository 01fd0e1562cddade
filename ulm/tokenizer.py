"""Text to token ids and back, through the `tokenizers` library.

Owns one wrapper for byte and trained BPE tokenizers and for any Hugging Face tokenizer by name or path.
Ids 0, 1, 2 are padding, end of text and unknown in the tokenizers made here. It refuses to know models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from ulm.files import write_whole

SPECIAL = ["<pad>", "<eot>", "<unk>"]


class Tokenizer:
    """A tokenizer that encodes any text and decodes to text.

    Args:
        inner: the `tokenizers` object that does the work.
        pad_id, eot_id: ids for padding and end of text.
    """

    def __init__(self, inner: tokenizers.Tokenizer, pad_id: int = 0, eot_id: int = 1) -> None:
        # A text that happens to contain "<eot>" is text, not the end of it.
        inner.encode_special_tokens = True
        self.inner = inner
        self.pad_id = pad_id
        self.eot_id = eot_id

    @classmethod
    def bytes(cls) -> Tokenizer:
        """Return the byte tokenizer: 256 bytes and three specials; encodes any text."""
        return cls.train([], vocab_size=256 + len(SPECIAL))

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        digits: int = 3,
        pieces: str = "",
        whole: Sequence[str] = (),
        marks: Sequence[str] = (),
    ) -> Tokenizer:
        """Train a byte-level BPE whose tokens never mix digits with other characters but a space before them.

        Args:
            texts: the corpus; the same texts in the same order give the same tokenizer.
            vocab_size: upper limit; a small corpus gives fewer, `whole` may give more.
            digits: longest run of digits in one token. 3 is what recent large models use; our agent
                learned faster when a number is one token (experiments/LOG.md, 2026-11-22).
            pieces: regular expression of what else is never cut before the merges, such as mentions; "" for nothing.
            whole: texts that become one token each, wherever they occur, such as names of relations.
            marks: further special tokens, which no text is encoded as (`ulm.data.infill.MARKS`).
        """
        inner = tokenizers.Tokenizer(models.BPE())
        inner.pre_tokenizer = _pre_tokenizer((pieces and f"{pieces}|") + rf" ?\d{{1,{digits}}}")
        inner.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - len(whole),
            special_tokens=[*SPECIAL, *marks],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        inner.train_from_iterator(texts, trainer)
        inner.add_tokens([tokenizers.AddedToken(text, normalized=False) for text in whole])
        return cls(inner)

    def spelled(self) -> Tokenizer:
        """Return this tokenizer, made by `train`, with numbers after a space spelled digit by digit, up to four digits.

        The first digit carries the space. The vocabulary stays, so weights trained with it still fit. A number that no
        training text held in that place is then read from its digits, where a token of its own would mean nothing.
        """
        copy = tokenizers.Tokenizer.from_str(self.to_json())
        copy.pre_tokenizer = _pre_tokenizer(r" \d|(?<= \d)\d|(?<= \d\d)\d|\d{1,3}")
        return Tokenizer(copy, self.pad_id, self.eot_id)

    @classmethod
    def load(cls, name_or_path: str | Path) -> Tokenizer:
        """Load a `tokenizer.json`, a folder that holds one, or a Hugging Face tokenizer by name.

        Raises:
            ValueError: nothing is there, or it cannot be read.
        """
        path = Path(name_or_path)
        file = path / "tokenizer.json" if path.is_dir() else path
        if file.is_file():
            try:
                inner = tokenizers.Tokenizer.from_file(str(file))
            except Exception as error:  # the library raises bare Exception
                raise ValueError(f"cannot read tokenizer {file}: {error}") from error
        else:
            try:
                from transformers import AutoTokenizer

                inner = AutoTokenizer.from_pretrained(str(name_or_path)).backend_tokenizer
            except Exception as error:
                raise ValueError(
                    f"no tokenizer at {name_or_path}: give a folder with tokenizer.json or a Hugging Face name that "
                    f"this machine can reach"
                ) from error
        pad, eot = inner.token_to_id("<pad>"), inner.token_to_id("<eot>")
        foreign = [inner.token_to_id(token) for token in ("<|im_end|>", "<|endoftext|>", "</s>", "<eos>")]
        if eot is None and (own := [token_id for token_id in foreign if token_id is not None]):
            pad = eot = own[0]
        return cls(inner, pad or 0, eot or 0)

    def save(self, path: Path) -> None:
        """Write `tokenizer.json`."""
        write_whole(path, self.inner.to_str(pretty=True))

    def to_json(self) -> str:
        """Return what `save` writes, on one line."""
        return str(self.inner.to_str())

    @classmethod
    def from_json(cls, text: str) -> Tokenizer:
        """Build from `to_json`'s text."""
        return cls(tokenizers.Tokenizer.from_str(text))

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return int(self.inner.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, without special tokens."""
        return list(self.inner.encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of many texts."""
        return [list(e.ids) for e in self.inner.encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, special tokens left out."""
        return str(self.inner.decode(list(ids), skip_special_tokens=True))

    @cached_property
    def token_texts(self) -> list[str]:
        """The text of every id on its own; byte pieces that are no UTF-8 show as the replacement character."""
        return [self.decode([i]) for i in range(self.vocab_size)]


def encode_after(encode: Callable[[str], Sequence[int]], before: str, text: str) -> tuple[list[int], list[int]]:
    """Return the tokens of two texts of which one follows the other.

    The second is split as it is where it follows the first; if the two melt together, as it is split alone.
    """
    first, both = list(encode(before)), list(encode(before + text))
    return first, both[len(first) :] if both[: len(first)] == first else list(encode(text))


def _pre_tokenizer(numbers: str) -> pre_tokenizers.PreTokenizer:
    """Return what cuts a text into numbers, words, and single other characters, before the merges of the BPE.

    Args:
        numbers: regular expression of one piece of a number.
    """
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(numbers + r"| ?\p{L}+|\n|[^\s\d\p{L}]|\s"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
