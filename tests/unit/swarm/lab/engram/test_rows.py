"""Rows that the learned arms of `swarm eval` are trained on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from swarm.lab.engram.config import LearnSection
from swarm.lab.engram.training import practice_rows
from swarm.lab.facts.exact_match import ExactMatch

FACTS = [ExactMatch("pairs", "code", f"k{n}", "told", f"code k{n}", f"code k{n}", f" {n}") for n in range(6)]
WORDS = " ".join(f"word{n}" for n in range(2000))


def test_each_fact_comes_once_before_any_comes_again(tmp_path: Path) -> None:
    learn = LearnSection.model_validate({"categories": ["pairs"], "optimizer": {"steps": 5, "batch_size": 4}})
    rows = practice_rows(learn, tmp_path, FACTS, 1)
    assert len(rows) == 20
    for start in (0, 6, 12):
        assert Counter(row["prompt"] for row in rows[start : start + 6]) == Counter(fact.prompt for fact in FACTS)
    assert rows == practice_rows(learn, tmp_path, FACTS, 1) != practice_rows(learn, tmp_path, FACTS, 2)


def test_text_stands_before_half_of_the_prompts_and_by_itself(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(WORDS)
    text = {"file": "text.txt", "before": 3, "words": 5, "share": 0.25}
    optimizer = {"steps": 100, "batch_size": 8}
    learn = LearnSection.model_validate({"categories": ["pairs"], "optimizer": optimizer, "text": text})
    rows = practice_rows(learn, tmp_path, FACTS, 1)
    alone = [row for row in rows if not row.get("end", True)]
    assert 150 < len(alone) < 250
    assert all(row["prompt"] + row["answer"] in WORDS and len(row["answer"].split()) == 5 for row in alone)
    told = [row for row in rows if row.get("end", True)]
    assert all(row["prompt"].rpartition("\n")[2] in {fact.prompt for fact in FACTS} for row in told)
    before = [row["prompt"].rpartition("\n")[0] for row in told]
    assert all(not text or text in WORDS for text in before)
    counts = Counter(len(text.split()) for text in before)
    assert set(counts) == {0, 1, 2, 3}
    assert 0.4 < counts[0] / len(told) < 0.6
