"""Content memory: paraphrases are found, what is meant by no fact is left unanswered."""

from __future__ import annotations

import numpy as np
import pytest

from ulm.engram.content import ContentIndex, Projection, words_of
from ulm.engram.features import ContentTier
from ulm.judge import Judge, calibrated
from ulm.memory.exact import ExactMemory


def paraphrases(groups: int, each: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features in which meaning is small and wording is large: a plain cosine sees the wording."""
    rng = np.random.default_rng(seed)
    meaning = np.random.default_rng(99).normal(size=(200, 12))[:groups]
    group = np.repeat(np.arange(groups), each)
    wording = rng.normal(size=(len(group), 20)) * 6.0
    mixing = np.random.default_rng(98).normal(size=(32, 32))
    return (np.concatenate((meaning[group], wording), 1) @ mixing).astype(np.float32), group


def test_a_fitted_projection_finds_what_a_plain_cosine_misses() -> None:
    features, group = paraphrases(40, 12)
    project = Projection.fit(features, group.tolist())
    queries, wanted = paraphrases(40, 4, seed=1)

    def hits(vectors: np.ndarray, asked: np.ndarray) -> float:
        return float((group[(asked @ vectors.T).argmax(1)] == wanted).mean())

    plain = features / np.linalg.norm(features, axis=1, keepdims=True)
    assert hits(project(features), project(queries)) > 0.9
    assert hits(plain, queries) < 0.5


def test_words_are_compared_without_case_and_accents() -> None:
    assert words_of("What is São Tomé's PORT, e-mail 443?") == words_of("what IS sao tome s port e mail 443")


WORDINGS = ("the code of {} is", "{} has the code", "what code does {} have", "tell me how {} is coded")
SIZES = ("the size of {} is", "{} has the size", "how large is {}", "tell me how big {} is")


def asked(names: list[str], wordings: tuple[str, ...]) -> tuple[list[str], np.ndarray]:
    """Texts, and features that say in a noisy way which wordings they are of, and nothing about the names."""
    rng = np.random.default_rng(len(names))
    texts = [wording.format(name) for name in names for wording in wordings]
    topic = 1.0 if wordings[0] in WORDINGS else -1.0
    noise = rng.normal(size=(len(texts), 16))
    noise[:, 0] = topic + 0.1 * noise[:, 0]
    return texts, noise.astype(np.float32)


def test_what_is_asked_and_about_whom_is_told_apart_and_strangers_are_left_unanswered() -> None:
    names = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeou" for c in "lmnr"]
    practice, known, strange = names[:30], names[30:55], names[55:]
    tier = ContentTier()
    texts, features, groups, topics = [], [], [], []
    for wordings in (WORDINGS, SIZES):
        found, numbers = asked(practice, wordings[:2])
        texts += found
        features.append(numbers)
        groups += [(name, wordings) for name in practice for _ in range(2)]
        topics += [wordings[0]] * len(found)
    tier.fit(np.concatenate(features), texts, groups, topics)
    memory = ExactMemory(lambda text: [ord(c) for c in text], "test")
    memory.write_all([(w[0].format(name), " something", "") for w in (WORDINGS, SIZES) for name in known])
    told = [asked(known, w[:1])[1] for w in (WORDINGS, SIZES)]
    tier.add(tier.pending(memory), np.concatenate(told))
    unknown, numbers = asked(strange, WORDINGS)
    tier.calibrate(numbers[::2], unknown[::2], 0.9)
    left = [fact is None for fact, _ in tier.search(numbers[1::2], unknown[1::2])]
    assert np.mean(left) > 0.8
    for wordings in (WORDINGS, SIZES):
        queries, numbers = asked(known, wordings)
        wanted = [wordings[0].format(name) for name in known for _ in wordings]
        answers = [fact.key if fact else None for fact, _ in tier.search(numbers, queries)]
        assert np.mean([answer == key for answer, key in zip(answers, wanted, strict=True)]) > 0.9
    memory.forget(WORDINGS[0].format(known[0]))
    assert tier.pending(memory) == []
    queries, numbers = asked(known[:1], WORDINGS)
    assert all(fact is None or fact.key != WORDINGS[0].format(known[0]) for fact, _ in tier.search(numbers, queries))


def test_facts_come_and_go() -> None:
    index = ContentIndex()
    axes = np.eye(2, dtype=np.float32)
    assert len(index.compare(axes[0], words_of("a"))[0]) == 0

    def nearest(vector: np.ndarray) -> int:
        facts, compared = index.compare(vector, frozenset())
        return int(facts[compared[:, 0].argmax()])

    for number in range(100):
        index.add(number, axes[number % 2], words_of(f"fact {number}"))
    facts, compared = index.compare(axes[0], words_of("is fact 97 so?"))
    best = facts[compared[:, 4].argmax()]
    assert best == 97
    for number in range(98):
        index.remove(number)
    index.remove(5)
    assert sorted(index.compare(axes[0], frozenset())[0]) == [98, 99]
    assert [nearest(axis) for axis in axes] == [98, 99]
    assert index.compare(axes[0], words_of("fact 97"))[1][:, 4].max() < 0.5
    index.add(98, axes[1], words_of("other"))
    index.remove(99)
    assert [nearest(axis) for axis in axes] == [98, 98]


def test_a_judge_finds_the_log_odds_of_a_known_law() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(4000, 3)).astype(np.float32)
    same = rng.random(4000) < 1 / (1 + np.exp(-3 * features[:, 0] + 2 * features[:, 2]))
    judge = Judge.fit(features, same, decay=1e-6)
    assert np.allclose(judge.weight_F / judge.scale_F, [3, 0, -2], atol=0.35)
    odds = judge(features)
    assert odds[same].mean() > 1 > -1 > odds[~same].mean()
    with pytest.raises(ValueError, match="pairs that do not"):
        Judge.fit(features, np.ones(4000, dtype=bool))


def test_too_little_to_learn_from_is_refused() -> None:
    features, _ = paraphrases(4, 3)
    with pytest.raises(ValueError, match="two groups"):
        Projection.fit(features, ["one"] * 12)
    with pytest.raises(ValueError, match="two texts that mean the same"):
        Projection.fit(features, list(range(12)))
    with pytest.raises(ValueError, match="at least 20"):
        calibrated(np.zeros(3, dtype=np.float32), 0.9)


def test_a_threshold_for_rarer_errors_than_a_sample_shows_is_carried_on_from_its_tail() -> None:
    rng = np.random.default_rng(5)
    samples = [rng.logistic(size=160).astype(np.float32) for _ in range(200)]
    unseen = np.sort(rng.logistic(size=200_000))

    def wrong(abstain: float) -> float:
        thresholds = [calibrated(sample, abstain) for sample in samples]
        return float(np.mean(1 - np.searchsorted(unseen, thresholds) / len(unseen)))

    assert 0.04 < wrong(0.95) < 0.06
    assert 0.004 < wrong(0.995) < 0.009  # here the highest of the sample decides
    assert 0.0005 < wrong(0.999) < 0.002
    assert all(calibrated(sample, 0.999) >= sample.max() for sample in samples)


def test_without_facts_to_compare_with_nothing_is_carried_on() -> None:
    scores = np.full(40, -np.inf, dtype=np.float32)
    assert calibrated(scores, 0.999) == -np.inf
