"""Exact memory: what follows a whole key, sources, conflicts, and limits."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ulm.memory.exact import MAX_TOKENS, NOTHING, ConflictError, ExactMemory, recall
from ulm.tokenizer import Tokenizer

BYTES = Tokenizer.bytes()


def memory(path: Path | None = None, **options: object) -> ExactMemory:
    return ExactMemory(BYTES.encode, "bytes", path, **options)  # type: ignore[arg-type]


def continued(store: ExactMemory, text: str, tokens: int = 50) -> str:
    """What the memory alone says after a text, token by token."""
    ids = BYTES.encode(text)
    start = len(ids)
    for _ in range(tokens):
        token = int(store.index.following(np.array([ids]), 1)[0, 0])
        if token == NOTHING:
            break
        ids.append(token)
    return BYTES.decode(ids[start:])


def _write_own_values(path: Path, name: str, won: Any) -> None:
    memory = ExactMemory(BYTES.encode, "bytes", path)
    for number in range(60):
        try:
            memory.write(f"key {number}", f" {name}", name)
            won.append(number)
        except ConflictError:
            pass


@pytest.mark.process
def test_of_several_writers_at_once_one_wins_and_the_others_are_told(tmp_path: Path) -> None:
    path = tmp_path / "facts.sqlite"
    ExactMemory(BYTES.encode, "bytes", path).close()
    context = multiprocessing.get_context("fork")
    with context.Manager() as manager:
        won = {name: manager.list() for name in "abcd"}
        writers = [context.Process(target=_write_own_values, args=(path, name, won[name])) for name in won]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        wins = {name: list(numbers) for name, numbers in won.items()}
    assert sorted(number for numbers in wins.values() for number in numbers) == list(range(60))
    memory = ExactMemory(BYTES.encode, "bytes", path)
    for name, numbers in wins.items():
        for number in numbers:
            fact = memory.get(f"key {number}")
            assert fact is not None
            assert fact.value == f" {name}"


def test_a_value_is_recalled_to_its_end_after_its_whole_key_alone() -> None:
    store = memory()
    store.write("capital of France:", " Paris")
    assert continued(store, "The capital of France:") == " Paris"
    assert continued(store, "capital of France: Pa") == "ris"
    for text in ("capital of France", "capital of france:", "capital of Franc:", "France:", "capital of France: X", ""):
        assert continued(store, text) == ""


def test_terminator_follows_every_value() -> None:
    store = memory(terminator=(BYTES.eot_id,))
    store.write("a=", "b")
    assert int(store.index.following(np.array([BYTES.encode("a=b")]), 1)[0, 0]) == BYTES.eot_id


def test_longest_key_wins_and_a_key_wins_over_a_value_that_is_recalled() -> None:
    store = memory()
    store.write("x:", "1")
    store.write("at x:", "2")
    store.write("p", "qrs")
    store.write("pq", "!")
    assert continued(store, "x:") == "1"
    assert continued(store, "at x:") == "2"
    assert continued(store, "pq") == "!"


def test_a_key_found_after_a_space_gives_way_to_a_key_that_has_the_space() -> None:
    store = memory()
    store.write("k", "1")
    assert continued(store, " k") == "1"
    store.write(" k", "2")
    assert continued(store, " k") == "2"
    store.forget(" k")
    assert continued(store, " k") == "1"


def test_forgetting_leaves_no_trace_in_lookups() -> None:
    store = memory()
    store.write("one", "1")
    store.write("two", "22")
    assert store.forget("one")
    assert not store.forget("one")
    assert store.get("one") is None
    assert store.forget("two")
    assert len(store) == 0
    assert store.index.longest == 0
    assert not store.index._next


def test_conflicting_values_are_refused_by_default_naming_both_sources(tmp_path: Path) -> None:
    store = memory(tmp_path / "m.sqlite")
    store.write("k", "1", "agent a0")
    with pytest.raises(ConflictError, match=r"'k' has the value '1' from agent a0, and agent a1 says '2'"):
        store.write_all([("other", "3", ""), ("k", "2", "agent a1")])
    assert store.get("other") is None  # all or none
    assert store.write("k", "1", "agent a1").source == "agent a0"  # the same again is no conflict
    with pytest.raises(ConflictError):
        store.write_all([("new", "1", ""), ("new", "2", "")])
    store.close()
    assert memory(tmp_path / "m.sqlite", conflicts="keep").write("k", "2").value == "1"
    replacing = memory(tmp_path / "m.sqlite", conflicts="replace")
    assert replacing.write("k", "2", "agent a1").value == "2"
    assert continued(replacing, "k") == "2"
    with pytest.raises(ValueError, match="'refuse', 'replace' or 'keep'"):
        memory(conflicts="ask")


def test_empty_and_oversized_keys_and_values_are_refused() -> None:
    store = memory()
    with pytest.raises(ValueError, match="key must not be empty"):
        store.write("", "x")
    with pytest.raises(ValueError, match=r"value must not be empty \(key 'x'\)"):
        store.write("x", "")
    for key, value, name in (("y" * (MAX_TOKENS + 1), "x", "key"), ("x", "y" * (MAX_TOKENS + 1), "value")):
        with pytest.raises(ValueError, match=f"{name} has at most {MAX_TOKENS} tokens, 'yyy"):
            store.write(key, value)
    assert len(store) == 0


def test_another_process_sees_what_was_written_after_refresh(tmp_path: Path) -> None:
    writer = memory(tmp_path / "m.sqlite")
    reader = memory(tmp_path / "m.sqlite", read_only=True)
    writer.write("k", "1")
    writer.write("j", "2")
    assert continued(reader, "k") == ""
    assert reader.refresh() == 2
    assert continued(reader, "k") == "1"
    writer.forget("k")
    reader.refresh()
    assert continued(reader, "k") == ""
    assert [fact.key for fact in reader] == ["j"]


def test_export_lists_everything_in_order(tmp_path: Path) -> None:
    store = memory()
    store.write_all([("ä", "1", "x"), ("b", "2", "y")])
    assert store.export(tmp_path / "facts.jsonl") == 2
    lines = [json.loads(line) for line in (tmp_path / "facts.jsonl").read_text().splitlines()]
    assert lines[0] == {"key": "ä", "value": "1", "source": "x", "revision": 1}


def test_value_is_split_as_it_is_after_its_key() -> None:
    words = Tokenizer.train(["the answer is forty two"] * 20, 300)
    store = ExactMemory(words.encode, "words")
    fact = store.write("the answer is", " forty two")
    assert fact.key_ids + fact.value_ids == tuple(words.encode("the answer is forty two"))


def test_recall_raises_what_the_memory_says_and_nothing_else() -> None:
    logits = torch.randn(2, 5, 11, generator=torch.Generator().manual_seed(0))
    logits[1, 4, 3] = 50.0
    says = np.full((2, 5), NOTHING)
    says[0, 2], says[1, 4] = 7, 3
    raised = recall(logits, says, certainty=0.99)
    assert raised[0, 2].softmax(-1)[7].item() == pytest.approx(0.99, abs=1e-5)
    assert torch.equal(raised[1, 4], logits[1, 4])  # the model knows it: left alone
    changed = torch.zeros(2, 5, 11, dtype=torch.bool)
    changed[0, 2, 7] = True
    assert torch.equal(raised[~changed], logits[~changed])
    nothing = np.full((2, 5), NOTHING)
    assert recall(logits, nothing) is logits


def test_what_was_written_is_returned_even_if_another_forgets_it_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = memory(tmp_path / "m.sqlite", conflicts="keep"), memory(tmp_path / "m.sqlite")
    store.write("a", " 1")
    refresh = store.refresh

    def after_the_other() -> int:
        if not store._store._connection.in_transaction:
            other.forget("a")
            other.forget("b")
        return refresh()

    monkeypatch.setattr(store, "refresh", after_the_other)
    assert [fact.value for fact in store.write_all([("a", " 2", ""), ("b", " 3", "")])] == [" 1", " 3"]
    assert len(store) == 0
