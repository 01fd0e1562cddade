"""A tokenizer of one token per character, as none of ours is: no merges, no bytes, and unknown characters."""

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers

from ulm.tokenizer import SPECIAL, Tokenizer


def characters(alphabet: str) -> Tokenizer:
    """Return it; characters outside of the alphabet become `<unk>`."""
    vocab = {token: i for i, token in enumerate([*SPECIAL, *sorted(set(alphabet))])}
    inner = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))  # noqa: S106 - not a password
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    inner.decoder = decoders.Fuse()
    inner.add_special_tokens(SPECIAL)
    return Tokenizer(inner)
