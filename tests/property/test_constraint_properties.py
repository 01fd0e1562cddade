from __future__ import annotations

import random
import re

from fakes.constrained import accepts
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ulm.decode.constraint import Constraint
from ulm.tokenizer import Tokenizer

ALPHABET = "ab 12+é€"
CORPUS = ["ab ab abab 12 + é €€ a€ bé"] * 9
TOKENIZERS = {"byte": Tokenizer.bytes(), "trained": Tokenizer.train(CORPUS, vocab_size=280)}
tokenizers = st.sampled_from(sorted(TOKENIZERS)).map(TOKENIZERS.__getitem__)

atoms = st.sampled_from(
    ["a", "b", r"\+", "é", "€", "1", r"\d", r"\w", r"\s", ".", "[ab]", "[^a1]", "[a-é]", "[1€]", " ", "[^é]", r"[\W1]"]
)
quantifiers = st.sampled_from(["*", "+", "?", "{2}", "{1,}", "{,2}", "{0,3}", "{1,2}", "*?", "{1,2}?"])
patterns = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.builds("({})".format, inner),
        st.builds("(?:{}){}".format, inner, quantifiers),
        st.builds("{}{}".format, inner, inner),
        st.builds("(?:{}|{})".format, inner, inner),
    ),
    max_leaves=7,
)


@settings(deadline=None, max_examples=150)
@given(patterns, tokenizers, st.integers(0, 2**32))
def test_a_walk_over_allowed_tokens_that_ends_matches_the_pattern(
    pattern: str, tokenizer: Tokenizer, seed: int
) -> None:
    matcher = Constraint.from_regex(pattern, tokenizer).matcher()
    choose = random.Random(seed)
    ids: list[int] = []
    for _ in range(60):
        allowed = matcher.allowed().nonzero()[0].tolist()
        assert allowed  # never a dead end
        if tokenizer.eot_id in allowed and (len(allowed) == 1 or choose.random() < 0.3):
            break
        ids.append(choose.choice([token for token in allowed if token != tokenizer.eot_id]))
        matcher.advance(ids[-1])
    assume(matcher.allowed()[tokenizer.eot_id])
    assert re.fullmatch(pattern, tokenizer.decode(ids), re.ASCII)


@settings(deadline=None, max_examples=200)
@given(patterns, tokenizers, st.text(ALPHABET, max_size=6))
def test_a_text_is_accepted_exactly_if_re_matches_all_of_it(pattern: str, tokenizer: Tokenizer, text: str) -> None:
    constraint = Constraint.from_regex(pattern, tokenizer)
    assert accepts(constraint, tokenizer, text) == (re.fullmatch(pattern, text, re.ASCII) is not None)


@settings(deadline=None, max_examples=150)
@given(patterns, tokenizers, st.data())
def test_every_text_that_matches_is_accepted(pattern: str, tokenizer: Tokenizer, data: st.DataObject) -> None:
    matching = st.from_regex(re.compile(pattern, re.ASCII), fullmatch=True, alphabet=ALPHABET)
    text = data.draw(matching)
    assert accepts(Constraint.from_regex(pattern, tokenizer), tokenizer, text)


@settings(deadline=None, max_examples=80)
@given(st.lists(st.text(ALPHABET, max_size=6), min_size=1, max_size=6), tokenizers, st.text(ALPHABET, max_size=6))
def test_choices_accept_exactly_themselves(choices: list[str], tokenizer: Tokenizer, other: str) -> None:
    constraint = Constraint.from_choices(choices, tokenizer)
    assert all(accepts(constraint, tokenizer, choice) for choice in choices)
    assert accepts(constraint, tokenizer, other) == (other in choices)
