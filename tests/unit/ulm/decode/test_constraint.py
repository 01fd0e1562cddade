from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
import tokenizers
import torch
from tokenizers import decoders, models

from ulm.decode.automaton import MAX_STATES
from ulm.decode.constraint import Constraint
from ulm.tokenizer import Tokenizer


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def byte_level() -> Tokenizer:
    return Tokenizer.bytes()


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return Tokenizer.train(["move north move south take key héllo héllo"] * 9, vocab_size=300)


@pytest.fixture(scope="module")
def characters() -> Tokenizer:
    return Tokenizer.characters("0123456789+-*/() abcé")


def texts(constraint: Constraint, tokenizer: Tokenizer, state: int) -> set[str]:
    ids = constraint.allowed(state).nonzero()[:, 0].tolist()
    return {tokenizer.decode([i]) for i in ids if i != tokenizer.eot_id}


def accepts(constraint: Constraint, tokenizer: Tokenizer, text: str) -> bool:
    state = constraint.start
    for token in tokenizer.encode(text):
        if not constraint.allowed(state)[token]:
            return False
        state = constraint.advance(state, token)
    return constraint.is_final(state) and bool(constraint.allowed(state)[tokenizer.eot_id])


def test_only_tokens_that_can_continue_are_allowed(characters: Tokenizer) -> None:
    constraint = Constraint.from_regex(r"1\+[23]", characters)
    mask = constraint.allowed(constraint.start)
    assert (mask.shape, mask.dtype) == ((characters.vocab_size,), torch.bool)
    assert texts(constraint, characters, constraint.start) == {"1"}
    state = constraint.advance(constraint.start, *characters.encode("1"))
    state = constraint.advance(state, *characters.encode("+"))
    assert texts(constraint, characters, state) == {"2", "3"}


def test_end_of_text_is_allowed_exactly_where_the_text_is_complete(byte_level: Tokenizer) -> None:
    constraint = Constraint.from_regex("ab?", byte_level)
    state = constraint.start
    assert not constraint.is_final(state)
    assert not constraint.allowed(state)[byte_level.eot_id]
    for text, others in (("a", 1), ("b", 0)):
        state = constraint.advance(state, *byte_level.encode(text))
        assert constraint.is_final(state)
        assert constraint.allowed(state)[byte_level.eot_id]
        assert constraint.allowed(state).sum() == 1 + others
        assert constraint.advance(state, byte_level.eot_id) == state


@pytest.mark.parametrize("name", ["byte_level", "trained", "characters"])
def test_other_special_tokens_are_never_allowed(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(name)
    constraint = Constraint.from_regex(r"(.|\n)*", tokenizer)  # everything, the texts "<pad>" and "<unk>" included
    mask = constraint.allowed(constraint.start)
    assert not mask[tokenizer.pad_id]
    assert not mask[tokenizer.inner.token_to_id("<unk>")]
    assert mask[tokenizer.eot_id]


def test_token_of_many_characters_is_allowed_where_all_of_it_fits(trained: Tokenizer) -> None:
    constraint = Constraint.from_regex("move (north|south)", trained)
    whole = trained.encode("move")
    assert len(whole) == 1
    assert constraint.allowed(constraint.start)[whole[0]]
    assert "m" in texts(constraint, trained, constraint.start)
    assert "take" not in texts(constraint, trained, constraint.start)


def test_parts_of_one_character_complete_it(trained: Tokenizer, byte_level: Tokenizer) -> None:
    for tokenizer in (trained, byte_level):
        constraint = Constraint.from_regex("h[éè]llo", tokenizer)
        assert accepts(constraint, tokenizer, "héllo")
        assert accepts(constraint, tokenizer, "hèllo")
        assert not accepts(constraint, tokenizer, "hêllo")
        assert not accepts(constraint, tokenizer, "hllo")


def test_choices_are_accepted_and_nothing_else(trained: Tokenizer) -> None:
    choices = ["move north", "move south", "move", "héllo", "take key 12"]
    constraint = Constraint.from_choices(choices, trained)
    assert all(accepts(constraint, trained, choice) for choice in choices)
    assert not any(accepts(constraint, trained, text) for text in ("", "mov", "move nort", "move northh", "take key"))


def test_choices_are_literal(byte_level: Tokenizer) -> None:
    constraint = Constraint.from_choices(["a.*", "(b"], byte_level)
    assert accepts(constraint, byte_level, "a.*")
    assert accepts(constraint, byte_level, "(b")
    assert not accepts(constraint, byte_level, "axx")


def test_empty_choice_means_the_text_may_end_at_once(byte_level: Tokenizer) -> None:
    constraint = Constraint.from_choices(["", "a"], byte_level)
    assert constraint.is_final(constraint.start)


def test_branch_that_this_tokenizer_cannot_write_is_never_entered(characters: Tokenizer) -> None:
    constraint = Constraint.from_regex("1x2|1a|(3y)?", characters)  # it has no x and no y
    assert texts(constraint, characters, constraint.start) == {"1"}  # or the end
    state = constraint.advance(constraint.start, *characters.encode("1"))
    assert texts(constraint, characters, state) == {"a"}


def test_branch_that_matches_nothing_is_never_entered(byte_level: Tokenizer) -> None:
    constraint = Constraint.from_regex(r"a|b[^\s\S]", byte_level)
    assert texts(constraint, byte_level, constraint.start) == {"a"}
    with pytest.raises(ValueError, match="is not allowed"):
        constraint.advance(constraint.start, *byte_level.encode("b"))


def test_token_that_is_not_allowed_does_not_advance(byte_level: Tokenizer) -> None:
    constraint = Constraint.from_regex("ab", byte_level)
    for token in (*byte_level.encode("b"), byte_level.eot_id, byte_level.pad_id, -1, byte_level.vocab_size):
        with pytest.raises(ValueError, match="is not allowed in state"):
            constraint.advance(constraint.start, token)


def test_masks_are_built_once_per_state(byte_level: Tokenizer) -> None:
    constraint = Constraint.from_regex("a*", byte_level)
    assert constraint.allowed(0) is constraint.allowed(0)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (r"(a)\1", r"character 6: backreference \\1"),
        ("(?=a)b", "lookahead"),
        ("(?!a)b", "lookahead"),
        ("(?<=a)b", "lookbehind"),
        ("(?P<x>a)", "named group"),
        ("(?i)a", "inline flag"),
        ("(?>a)", "atomic group"),
        ("a*?", "lazy quantifiers"),
        ("a++", "possessive quantifiers"),
        ("a**", "a quantifier follows a quantifier"),
        ("a{2}{3}", "a quantifier follows a quantifier"),
        ("*a", r"quantifier \* has nothing to repeat"),
        ("^a", r"anchor \^"),
        ("a$", r"anchor \$"),
        (r"\ba", r"anchor \\b"),
        (r"\p", r"escape \\p"),
        (r"\x0", r"\\x needs 2 hexadecimal digits"),
        (r"\u12g4", r"\\u needs 4 hexadecimal digits"),
        ("a\\", "the pattern ends too early"),
        ("(a", "a group is not closed"),
        ("a)", r"unbalanced \)"),
        ("[a", "a class is not closed"),
        ("[]", "a class is not closed"),
        ("[z-a]", "a range that is none"),
        (r"[a-\d]", "a range that is none"),
        ("a{3,1}", "bounds in the wrong order"),
        ("a{x}", "begins no"),
        (r"[^\s\S]", "matches no text"),
        ("(" * 200 + ")" * 200, "nested deeper than"),
    ],
)
def test_unsupported_or_broken_pattern_is_explained(byte_level: Tokenizer, pattern: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        Constraint.from_regex(pattern, byte_level)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(a|b)*a(a|b){14}", f"needs over {MAX_STATES} states"),
        ("((a{99}){99}){99}", "too large"),
        ("é{1000000000}", "too large"),
        ("(((){50000}){50000}){50000}", "too large"),
    ],
)
def test_explosive_pattern_is_refused_in_bounded_time(byte_level: Tokenizer, pattern: str, words: str) -> None:
    start = time.process_time()
    with pytest.raises(ValueError, match=words):
        Constraint.from_regex(pattern, byte_level)
    assert time.process_time() - start < 20


def test_endless_repetition_of_nothing_is_nothing(byte_level: Tokenizer) -> None:
    constraint = Constraint.from_regex("(()()){999999999}(){5,999999999}a", byte_level)
    assert accepts(constraint, byte_level, "a")
    assert not accepts(constraint, byte_level, "")


def test_nothing_to_choose_from_is_explained(byte_level: Tokenizer, characters: Tokenizer) -> None:
    with pytest.raises(ValueError, match="at least one choice"):
        Constraint.from_choices([], byte_level)
    with pytest.raises(ValueError, match="no text that this tokenizer can write"):
        Constraint.from_choices(["xyz"], characters)
    with pytest.raises(ValueError, match=f"more than {MAX_STATES} states"):
        Constraint.from_choices([f"{i:09}" for i in range(MAX_STATES)], byte_level)


def test_tokenizer_that_writes_in_another_way_is_refused_by_name() -> None:
    inner = tokenizers.Tokenizer(models.WordLevel({"<pad>": 0, "<eot>": 1, "a": 2}))
    inner.decoder = decoders.WordPiece()
    with pytest.raises(ValueError, match="this one decodes by: WordPiece"):
        Constraint.from_regex("a", Tokenizer(inner))


def test_every_character_but_a_surrogate_matches_a_negated_class(byte_level: Tokenizer) -> None:
    constraint = Constraint.from_regex("[^b]", byte_level)
    edges = [0, 0x61, 0x63, 0x7F, 0x80, 0x7FF, 0x800, 0xFFF, 0x1000, 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x3FFFF, 0x40000]
    for code in (*edges, 0xFFFFF, 0x100000, 0x10FFFF):
        assert accepts(constraint, byte_level, chr(code)), hex(code)
    assert not accepts(constraint, byte_level, "b")


@pytest.mark.parametrize("bounds", [(0x61, 0x7A), (0x70, 0x90), (0x7F0, 0x810), (0x1F600, 0x1F64F), (0xFFF0, 0x10010)])
def test_class_range_ends_where_it_says(byte_level: Tokenizer, bounds: tuple[int, int]) -> None:
    low, high = bounds
    constraint = Constraint.from_regex(f"[{chr(low)}-{chr(high)}]", byte_level)
    for code in (low - 1, low, (low + high) // 2, high, high + 1):
        assert accepts(constraint, byte_level, chr(code)) == (low <= code <= high), hex(code)


def test_classes_are_those_of_ascii_re(byte_level: Tokenizer) -> None:
    for pattern in (
        r"\d",
        r"\w",
        r"\s",
        r"\D",
        r"\W",
        r"\S",
        ".",
        r"[\d\s_]",
        r"[^\w-]",
        r"[]a]",
        r"[^]a]",
        "[a-]",
        "[+--]",
    ):
        constraint = Constraint.from_regex(pattern, byte_level)
        for code in (*range(128), 0x663, 0xE9):
            expected = re.fullmatch(pattern, chr(code), re.ASCII) is not None
            assert accepts(constraint, byte_level, chr(code)) == expected, (pattern, code)
