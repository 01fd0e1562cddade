"""What a lab's file may say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes.tiny_lab import lab
from pydantic import ValidationError

from swarm.config.corpus import HUB_SAMPLES, SourceConfig
from swarm.config.training import OptimizerSection
from swarm.lab.ltm.config import LabConfig


def test_the_arm_with_memory_is_off_unless_asked_for() -> None:
    assert LabConfig(name="x", optimizer=OptimizerSection(steps=1)).arms == ("baseline",)
    assert lab().arms == ("baseline", "with_ltm")


def test_the_arms_have_one_shape_but_for_memory_and_about_as_many_parameters() -> None:
    baseline, with_ltm = (lab().model.config(arm, 320) for arm in ("baseline", "with_ltm"))  # type: ignore[arg-type]
    assert baseline.ltm is None
    assert with_ltm.ltm is not None
    assert (with_ltm.ltm.segment, with_ltm.ltm.capacity, with_ltm.window) == (8, 16, 16)
    assert baseline.num_parameters() == pytest.approx(with_ltm.num_parameters(), rel=0.01)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"seeds": []}, "`seeds` must be different whole numbers"),
        ({"seeds": [1, 1]}, "`seeds` must be different whole numbers"),
        ({"seeds": [1, -1]}, "of at least 0"),
        ({"name": "../x"}, "pattern"),
        ({"model": {"size": "3m"}}, "unknown model.size '3m'; available: 1m, 4m, 10m, 70m"),
        ({"model": {"window": 20}}, "segment 8 must divide the window 20"),
        ({"model": {"ltm": {"segment": 32}}}, "segment 32 must not exceed the window 16"),
        ({"model": {"ltm": {"eviction": "mood"}}}, "unknown eviction 'mood'"),
        ({"train": {"span": 40}}, "train.span 40 must be a multiple of the window 16"),
        ({"train": {"mode": "windows", "width": 8}}, "windows of 8 tokens are one segment of 8.*train.mode: documents"),
        ({"recall": {"rows": 4}}, "recall.rows 4 leave no row of 4 for the corpus"),
        ({"place": {"workers": 3}}, "batch_size 4 cannot be shared evenly by 3 workers"),
        ({"place": {"workers": 2}, "optimizer": {"micro_batches": 4}}, "by 2 workers x 4 micro-batches"),
        ({"eval": {"policies": {"odd": {"capacity": 0}}}}, "eval.policies.odd: ltm: capacity"),
        ({"eval": {"policies": {"odd": {"size": 3}}}}, "eval.policies.odd: ltm: unknown keys size"),
        ({"eval": {"controls": ["magic"]}}, "shuffled_values"),
        ({"corpus": {"sources": [{"hub": "a", "files": ["b"]}]}}, "either `hub` .* or `files`"),
        ({"corpus": {"sources": [{}]}}, "either `hub` .* or `files`"),
        ({"corpus": {"val_share": 1.0}}, "less than 1"),
        ({"corpus": {"sources": []}}, "at least 1 item"),
        ({"corpus": {"tokenizer": 1}}, "greater than or equal to 259"),
        ({"corpus": {"tokenizer": 300}, "recall": {"num_keys": 256, "num_values": 256}}, "tokenizer 300 is too small"),
        ({"recall": {"distances": [-4]}}, "greater than or equal to 2"),
        ({"recall": {"distances": []}}, "at least 1 item"),
        ({"recall": {"num_pairs": 8, "spacing": 72, "distances": [72]}}, "at 72 queries fall on pairs"),
    ],
)
def test_a_lab_that_cannot_work_is_refused_when_its_file_is_read(sections: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        lab(**sections)


def test_windows_of_one_segment_are_fine_where_there_is_no_memory_to_read() -> None:
    assert lab(with_ltm=False, train={"mode": "windows", "width": 8}).train.width == 8


def test_sources_are_beside_the_file_and_hubs_are_read_in_part(tmp_path: Path) -> None:
    local = SourceConfig(files=("a.txt", "b/*.txt")).source(tmp_path)
    assert local.files == (str(tmp_path / "a.txt"), str(tmp_path / "b/*.txt"))
    assert local.samples is None
    assert SourceConfig(hub="openwebtext").source(tmp_path).samples == HUB_SAMPLES
    assert SourceConfig(hub="openwebtext", samples=7).source(tmp_path).samples == 7
