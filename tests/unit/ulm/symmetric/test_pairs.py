"""Examples of three directions from pairs: what is shown, what is learned, and which files are refused."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ulm.symmetric.pairs import (
    Mixture,
    Pair,
    asking,
    can_teach,
    parsing,
    question,
    read_pairs,
    relations_of,
    verbalizing,
    whole_tokens,
    write_pairs,
)
from ulm.symmetric.propositions import Proposition, read
from ulm.tokenizer import Tokenizer


def pair(text: str, said: str) -> Pair:
    return Pair(text, tuple(read(said)[0]))


FIRM = pair("[4] , at home in [5 Tarn] , employs [9 Mara] .", "[9] works_for [4] ; [4] seat [5]")


def test_a_text_is_parsed_in_its_own_order_with_handles_by_place_and_no_name() -> None:
    prompt, completion = parsing(FIRM)
    assert prompt == "parse : [0] , at home in [1] , employs [2] .\n"
    assert completion == "[0] seat [1] ; [2] works_for [0]\n"


def test_a_text_is_written_from_propositions_without_a_name() -> None:
    prompt, completion = verbalizing(FIRM)
    assert prompt == "verbalize : [0] works_for [1] ; [1] seat [2]\n"
    assert completion == "[1] , at home in [2] , employs [0] .\n"


def test_a_question_hides_all_but_where_its_path_begins() -> None:
    asked = {question(FIRM, np.random.default_rng(seed)) for seed in range(40)}
    assert asked == {
        ("[4] , at home in [?] , employs [_] .", "[4] : seat ="),
        ("[?] , at home in [_] , employs [9 Mara] .", "[9] : works_for ="),
        ("[_] , at home in [?] , employs [9 Mara] .", "[9] : works_for seat ="),
    }
    assert asking("[_] , at home in [?] , employs [9 Mara] .", "[9] : works_for seat =") == (
        "ask : [_] , at home in [?] , employs [0] .\n",
        "[0] : works_for seat =",
    )


def test_what_a_pair_cannot_teach_is_not_drawn_for_it() -> None:
    untold = pair("[0] knows [1] and [2] .", "[0] knows [1]")
    assert [can_teach(direction, untold) for direction in ("parse", "verbalize", "ask")] == [True, False, True]
    drawn = Mixture([untold, FIRM], {"verbalize": 1.0})
    assert {drawn(number) for number in range(20)} == {verbalizing(FIRM)}
    with pytest.raises(ValueError, match="no pair teaches verbalize; add some"):
        Mixture([untold])
    kept = Mixture([FIRM._replace(teaches=("ask",)), FIRM._replace(text="[9] [4] [5]", teaches=("parse",))],
                   {"parse": 1.0, "ask": 1.0})  # fmt: skip
    assert {text.split()[2] for text, _ in map(kept, range(40)) if text.startswith("parse")} == {"[0]"}


def test_an_example_follows_from_seed_and_number_and_shares_are_kept() -> None:
    one, same, other = Mixture([FIRM], seed=3), Mixture([FIRM], seed=3), Mixture([FIRM], seed=4)
    drawn = [one(number) for number in range(400)]
    assert drawn == [same(number) for number in reversed(range(400))][::-1]
    assert drawn != [other(number) for number in range(400)]
    found = Counter(prompt.split()[0] for prompt, _ in drawn)
    assert found["parse"] == pytest.approx(180, abs=40)
    assert found["verbalize"] == pytest.approx(140, abs=40)
    assert found["ask"] == pytest.approx(80, abs=40)


def test_relations_and_beginnings_are_one_token_each_whatever_the_texts() -> None:
    whole = whole_tokens(relations_of([FIRM]))
    tokenizer = Tokenizer.train(["the works_for of seats"], 300, whole=whole)
    for text in whole:
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert len(tokenizer.encode(text)) == 1
    again = Tokenizer.from_json(tokenizer.to_json())
    assert again.encode("parse : [0] works_for [1]") == tokenizer.encode("parse : [0] works_for [1]")
    assert tokenizer.decode(tokenizer.encode("the seats , works_forever")) == "the seats , works_forever"


def test_pairs_come_back_from_their_file(tmp_path: Path) -> None:
    pairs = [FIRM, FIRM._replace(teaches=("parse",)), Pair("[0] naïve .", (Proposition(0, "is", 1),))]
    write_pairs(tmp_path / "pairs.jsonl", pairs)
    assert read_pairs(tmp_path / "pairs.jsonl") == pairs


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"pairs.jsonl, line 2: "),
        ("[1]", "line 2: needs `text`, on one line, and `propositions`"),
        (json.dumps({"text": "[0]\n[1]", "propositions": ""}), "line 2: needs `text`, on one line"),
        (json.dumps({"text": "[0]", "propositions": "[0] works for [1]"}), "line 2: not a proposition: "),
        (
            json.dumps({"text": "[0]", "propositions": "", "teaches": ["sing"]}),
            "line 2: `teaches` is .'sing'.; allowed",
        ),
    ],
)
def test_a_line_that_is_no_pair_is_named(line: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    write_pairs(file, [FIRM])
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(ValueError, match=message) as caught:
        read_pairs(file)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_or_empty_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot read pairs: "):
        read_pairs(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="holds no pairs; write one JSON object"):
        read_pairs(tmp_path / "empty.jsonl")
