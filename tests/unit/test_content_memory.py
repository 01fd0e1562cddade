"""Content memory: paraphrases are found, what is meant by no fact is left unanswered."""

from __future__ import annotations

import numpy as np
import pytest

from ulm.memory.content import ABSTAIN, ContentIndex, Projection, calibrated


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
    assert Projection.fit(features, group.tolist(), size=5).map_FE.shape == (32, 5)


def test_what_no_fact_means_is_left_unanswered_as_often_as_asked_for() -> None:
    features, group = paraphrases(200, 12)
    known = group < 100
    project = Projection.fit(features[known], group[known].tolist())
    index = ContentIndex(project.map_FE.shape[1])
    for number, vector in zip(group[known], project(features[known]), strict=True):
        index.add(int(number), vector)
    strange = project(features[~known])
    threshold = calibrated(index.nearest(strange[::2])[1], 0.9)
    found, _ = index.search(strange[1::2], threshold)
    assert 0.85 <= (found == ABSTAIN).mean() <= 0.95
    queries, wanted = paraphrases(100, 3, seed=2)
    found, _ = index.search(project(queries), threshold)
    assert (found == wanted).mean() > 0.8


def test_facts_come_and_go() -> None:
    index = ContentIndex(2)
    assert index.nearest(np.eye(2, dtype=np.float32))[0].tolist() == [ABSTAIN, ABSTAIN]
    axes = np.eye(2, dtype=np.float32)
    for number in range(100):
        index.add(number, axes[number % 2])
    for number in range(98):
        index.remove(number)
    index.remove(5)
    assert len(index) == 2
    assert index.nearest(axes)[0].tolist() == [98, 99]
    index.add(98, axes[1])
    index.remove(99)
    assert index.nearest(axes)[0].tolist() == [98, 98]
    assert index.search(axes, 0.5)[0].tolist() == [ABSTAIN, 98]


def test_too_little_to_learn_from_is_refused() -> None:
    features, group = paraphrases(4, 3)
    with pytest.raises(ValueError, match="two groups"):
        Projection.fit(features, ["one"] * 12)
    with pytest.raises(ValueError, match="two texts that mean the same"):
        Projection.fit(features, list(range(12)))
    with pytest.raises(ValueError, match="shrinkage"):
        Projection.fit(features, group.tolist(), shrinkage=0.0)
    with pytest.raises(ValueError, match="at least 20"):
        calibrated(np.zeros(3, dtype=np.float32), 0.9)
