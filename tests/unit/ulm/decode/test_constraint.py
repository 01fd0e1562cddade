from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
import torch
from fakes.character_tokenizer import characters
from fakes.constrained import accepts

from ulm.decode.constraint import Constraint, Matcher, mask_logits
from ulm.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def byte_level() -> Tokenizer:
    return Tokenizer.bytes()


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return Tokenizer.train(["move north move south take key héllo héllo"] * 9, vocab_size=300)


def after(constraint: Constraint, tokenizer: Tokenizer, text: str) -> Matcher:
    matcher = constraint.matcher()
    for token in tokenizer.encode(text):
        matcher.advance(token)
    return matcher


def texts(matcher: Matcher, tokenizer: Tokenizer) -> set[str]:
    return {tokenizer.decode([i]) for i in matcher.allowed().nonzero()[0].tolist() if i != tokenizer.eot_id}


def test_end_of_text_is_allowed_exactly_where_the_text_is_complete(byte_level: Tokenizer) -> None:
    constraint = Constraint.from_regex("ab?", byte_level)
    assert not constraint.matcher().allowed()[byte_level.eot_id]
    for text, others in (("a", 1), ("ab", 0)):
        allowed = after(constraint, byte_level, text).allowed()
        assert allowed[byte_level.eot_id]
        assert allowed.sum() == 1 + others


def test_other_special_tokens_are_never_allowed(trained: Tokenizer) -> None:
    allowed = Constraint.from_regex(r"(.|\n)*", trained).matcher().allowed()  # the text "<pad>" included
    assert not allowed[trained.pad_id]
    assert not allowed[trained.inner.token_to_id("<unk>")]
    assert allowed[trained.eot_id]


@pytest.mark.parametrize(
    "make",
    [
        lambda t: Constraint.from_regex("move (north|south)", t),
        lambda t: Constraint.from_choices(("move north", "move south"), t),
        lambda t: Constraint.from_grammar('root ::= "move " ("north" | "south")', t),
        lambda t: Constraint.from_grammar('start: "move " ("north" | "south")', t),
    ],
)
def test_every_spelling_of_a_forced_text_is_allowed(trained: Tokenizer, make: Any) -> None:
    constraint = make(trained)
    assert len(trained.encode("move")) == 1
    assert texts(constraint.matcher(), trained) >= {"m", "move"}
    assert "take" not in texts(constraint.matcher(), trained)
    assert accepts(constraint, trained, "move south")
    assert not accepts(constraint, trained, "move sout")


def test_parts_of_one_character_complete_it(trained: Tokenizer, byte_level: Tokenizer) -> None:
    for tokenizer in (trained, byte_level):
        constraint = Constraint.from_regex("h[éè]llo", tokenizer)
        found = [text for text in ("héllo", "hèllo", "hêllo", "hllo") if accepts(constraint, tokenizer, text)]
        assert found == ["héllo", "hèllo"]


def test_choices_are_literal(byte_level: Tokenizer) -> None:
    constraint = Constraint.from_choices(("a.*", "(b", "/\n", ""), byte_level)
    assert [t for t in ("a.*", "(b", "/\n", "", "axx", "a", "/n") if accepts(constraint, byte_level, t)] == [
        "a.*",
        "(b",
        "/\n",
        "",
    ]


def test_json_is_written_as_json_dumps_does(byte_level: Tokenizer) -> None:
    schema = {
        "type": "object",
        "properties": {"a0": {"type": "string", "pattern": "^(?:|go [0-9]{1,3})$"}, "n": {"enum": [1, 22]}},
        "required": ["a0", "n"],
        "additionalProperties": False,
    }
    constraint = Constraint.from_json_schema(schema, byte_level)
    for value in ({"a0": "go 12", "n": 22}, {"a0": "", "n": 1}):
        assert accepts(constraint, byte_level, json.dumps(value))
        assert not accepts(constraint, byte_level, json.dumps(value, indent=1))
    for value in ({"a0": "go", "n": 1}, {"a0": ""}, {"a0": "", "n": 3}, {"a0": "", "n": 1, "more": 1}, []):
        assert not accepts(constraint, byte_level, json.dumps(value))


def test_branch_that_matches_nothing_is_never_entered(byte_level: Tokenizer) -> None:
    assert texts(Constraint.from_regex(r"a|b[^\s\S]", byte_level).matcher(), byte_level) == {"a"}


def test_token_that_is_not_allowed_does_not_advance(byte_level: Tokenizer) -> None:
    constraint = Constraint.from_regex("ab", byte_level)
    for token in (*byte_level.encode("b"), byte_level.eot_id, byte_level.pad_id, byte_level.vocab_size):
        with pytest.raises(ValueError, match=f"token {token} is not allowed here"):
            constraint.matcher().advance(token)


def test_matchers_of_one_constraint_know_nothing_of_each_other(trained: Tokenizer) -> None:
    constraint = Constraint.from_regex("move (north|south)|take key", trained)
    alone = after(constraint, trained, "move ").allowed()
    together = [after(constraint, trained, text) for text in ("take", "move ", "", "move s")]
    for other in together[2:]:
        other.allowed()
    assert (together[1].allowed() == alone).all()
    assert texts(together[2], trained) > {"m", "t"}


def test_masked_rows_keep_what_is_allowed_and_free_rows_everything(byte_level: Tokenizer) -> None:
    logits = torch.randn(4, byte_level.vocab_size + 5)
    matchers = [None, Constraint.from_regex("[xy]", byte_level).matcher()]
    masked = mask_logits(logits, matchers)
    assert torch.equal(masked[[0, 2, 3]], logits[[0, 2, 3]])
    kept = masked[1].isfinite().nonzero()[:, 0].tolist()
    assert sorted(kept) == sorted(byte_level.encode("xy"))
    assert torch.equal(masked[1, kept], logits[1, kept])


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (r"(a)\1", "backreferences are not supported"),
        ("(?=a)b", "look-around"),
        ("(?<!a)b", "look-around"),
        ("(?i)a", "inline flags"),
        ("(?s:a)", "inline flags"),
        ("(?>a)", "atomic groups"),
        ("a++", "possessive quantifiers"),
        ("(a)(?(1)b|c)", "conditional groups"),
        ("^a", "anchors"),
        (r"\ba", "anchors"),
        ("a**", "multiple repeat at position 2"),
        ("*a", "nothing to repeat at position 0"),
        (r"\p", "bad escape"),
        ("a{99999999999}", "too large"),
        ("(a", r"missing \), unterminated subpattern"),
        ("[a", "unterminated character set"),
        ("[z-a]", "bad character range"),
        ("\ud800", "not a Unicode scalar value"),
        (r"[^\s\S]", "allows no text that this tokenizer can write"),
        ("(" * 9999 + ")" * 9999, "nested too deep"),
    ],
)
def test_unsupported_or_broken_pattern_is_explained_in_one_line(
    byte_level: Tokenizer, pattern: str, words: str
) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        Constraint.from_regex(pattern, byte_level)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"not": {"type": "string"}}, 'Unimplemented keys: \\["not"\\]'),
        ({"type": "nonsense"}, "Invalid type: nonsense"),
        ({"type": "string", "pattern": "("}, "unclosed group"),
    ],
)
def test_schema_that_cannot_be_kept_is_explained_in_one_line(
    byte_level: Tokenizer, schema: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        Constraint.from_json_schema(schema, byte_level)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("grammar", ["nonsense", "root ::= undefined", "root ::= root", "start: /(/"])
def test_grammar_that_is_none_is_explained_in_one_line(byte_level: Tokenizer, grammar: str) -> None:
    with pytest.raises(ValueError, match="constraint grammar") as caught:
        Constraint.from_grammar(grammar, byte_level)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("pattern", ["(a|b)*a(a|b){14}", "((a{99}){99}){99}", "é{1000000000}", "(){5,999999999}a"])
def test_pattern_with_very_many_states_costs_only_those_that_are_reached(byte_level: Tokenizer, pattern: str) -> None:
    start = time.process_time()
    Constraint.from_regex(pattern, byte_level)
    assert time.process_time() - start < 1


def test_choices_and_tokenizers_that_are_none_are_explained(byte_level: Tokenizer) -> None:
    with pytest.raises(ValueError, match="at least one choice"):
        Constraint.from_choices((), byte_level)
    with pytest.raises(ValueError, match=r"a tokenizer that writes bytes: .*Fuse"):
        Constraint.from_regex("a", characters("a"))


def test_classes_are_those_of_ascii_re(byte_level: Tokenizer) -> None:
    patterns = [r"\d", r"\w", r"\s", r"\D", r"\W", r"\S", ".", r"[\d\s_]", r"[^\w-]", r"[^\W_]", "[]a]", "[^]a]"]
    for pattern in [*patterns, "[a-]", "[+--]", "[a&&b]", "[a~~]", "[[a]", r"[\]^]", "[^b]", r"\x7f|\x80"]:
        constraint = Constraint.from_regex(pattern, byte_level)
        for code in (*range(128), 0x80, 0xE9, 0x663, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x10FFFF):
            expected = re.fullmatch(pattern, chr(code), re.ASCII) is not None
            assert accepts(constraint, byte_level, chr(code)) == expected, (pattern, code)
