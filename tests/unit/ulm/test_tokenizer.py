from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ulm.tokenizer import Tokenizer

CORPUS = ["half 3 11 7 target 145", "half 3 11 made 45", "100+[45] 100+(3+7)"] * 5


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return Tokenizer.train(CORPUS, vocab_size=290)


def test_byte_tokenizer_round_trips_any_text() -> None:
    tokenizer = Tokenizer.bytes()
    assert tokenizer.vocab_size == 259
    for text in ("", "half 3 11", "héllo €\n\t\x00 \U0001f600", "  two  spaces "):
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert len(tokenizer.encode(text)) == len(text.encode())


def test_trained_tokenizer_round_trips_what_it_never_saw(trained: Tokenizer) -> None:
    for text in ("half 99 target 24", "héllo €", "\n\n x  y", "100-[3]*7/2"):
        assert trained.decode(trained.encode(text)) == text


def test_words_of_the_corpus_become_short(trained: Tokenizer) -> None:
    assert len(trained.encode(" target")) < len(" target")


def test_no_token_mixes_digits_with_anything_but_a_space_before_them(trained: Tokenizer) -> None:
    with_digits = [t for t in trained.token_texts if any(c.isdigit() for c in t)]
    assert not [t for t in with_digits if not t.removeprefix(" ").isdigit()]


def test_a_number_and_the_space_before_it_can_be_one_token() -> None:
    tokenizer = Tokenizer.train([" " + " ".join(map(str, range(100)))] * 3, 500)
    assert [tokenizer.decode([i]) for i in tokenizer.encode(" 7 42")] == [" 7", " 42"]


def test_numbers_up_to_three_digits_can_be_one_token() -> None:
    tokenizer = Tokenizer.train(["+".join(map(str, range(1000)))] * 3, 1400)
    assert all(len(tokenizer.encode(str(n))) == 1 for n in range(1000))
    assert [tokenizer.decode([i]) for i in tokenizer.encode("145100")] == ["145", "100"]


def test_digits_can_be_kept_apart() -> None:
    tokenizer = Tokenizer.train([" ".join(map(str, range(1000)))] * 3, 1400, digits=1)
    assert [tokenizer.decode([i]) for i in tokenizer.encode("145")] == ["1", "4", "5"]


def test_padding_and_end_of_text_have_the_first_ids(trained: Tokenizer) -> None:
    for tokenizer in (trained, Tokenizer.bytes()):
        assert [tokenizer.inner.id_to_token(i) for i in (tokenizer.pad_id, tokenizer.eot_id)] == ["<pad>", "<eot>"]


def test_special_tokens_leave_no_text(trained: Tokenizer) -> None:
    ids = trained.encode("half 3")
    assert trained.decode([trained.pad_id, *ids, trained.eot_id]) == "half 3"


def test_spelled_tokenizer_spells_numbers_after_a_space_alone_and_keeps_the_ids() -> None:
    tokenizer = Tokenizer.train([" ".join(map(str, range(1000)))] * 3 + ["+".join(map(str, range(1000)))] * 3, 2400)
    spelled = tokenizer.spelled()
    assert spelled.vocab_size == tokenizer.vocab_size
    text = "tiles 3 12 13 target 24 145\n(13-12)*24"
    pieces = [spelled.decode([i]) for i in spelled.encode(text)]
    assert "".join(pieces) == text
    numbers = [piece for piece in pieces if piece.strip().isdigit()]
    assert numbers == [" 3", " 1", "2", " 1", "3", " 2", "4", " 1", "4", "5", "13", "12", "24"]
    assert Tokenizer.from_json(spelled.to_json()).encode(text) == spelled.encode(text)


def test_batches_encode_like_single_texts(trained: Tokenizer) -> None:
    texts = ["half 3", "", "é"]
    assert trained.encode_batch(texts) == [trained.encode(text) for text in texts]


@pytest.mark.process
def test_training_is_deterministic_across_processes(trained: Tokenizer) -> None:
    script = (
        f"from ulm.tokenizer import Tokenizer\nprint(Tokenizer.train({CORPUS!r}, vocab_size=290).to_json(), end='')"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "5"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == trained.to_json()


def test_saved_tokenizer_is_the_same(trained: Tokenizer, tmp_path: Path) -> None:
    trained.save(tmp_path / "tokenizer.json")
    for again in (
        Tokenizer.load(tmp_path),
        Tokenizer.load(tmp_path / "tokenizer.json"),
        Tokenizer.from_json(trained.to_json()),
    ):
        assert again.to_json() == trained.to_json()
        assert (again.pad_id, again.eot_id) == (trained.pad_id, trained.eot_id)


def test_foreign_tokenizer_brings_its_own_end_of_text(tmp_path: Path) -> None:
    import tokenizers
    from tokenizers import models

    inner = tokenizers.Tokenizer(models.WordLevel({"a": 0, "b": 1, "</s>": 2}))
    inner.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.load(tmp_path).eot_id == 2


def test_unreadable_tokenizer_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=r"cannot read tokenizer .*tokenizer\.json"):
        Tokenizer.load(tmp_path)


def test_token_texts_cover_the_vocabulary(trained: Tokenizer) -> None:
    assert len(trained.token_texts) == trained.vocab_size
    ids = trained.encode("half 3 11")
    assert "".join(trained.token_texts[i] for i in ids) == "half 3 11"
