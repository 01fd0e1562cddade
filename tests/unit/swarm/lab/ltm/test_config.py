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
    assert LabConfig(name="x", optimizer=OptimizerSection(steps=1)).names == ("baseline",)
    assert lab().names == ("baseline", "with_ltm")


def test_the_arms_have_one_shape_but_for_memory_and_about_as_many_parameters() -> None:
    baseline, with_ltm = (lab().model.config(arm, 320) for arm in ("baseline", "with_ltm"))  # type: ignore[arg-type]
    assert baseline.ltm is None
    assert with_ltm.ltm is not None
    assert (with_ltm.ltm.segment, with_ltm.ltm.capacity, with_ltm.window) == (8, 16, 16)
    assert baseline.num_parameters() == pytest.approx(with_ltm.num_parameters(), rel=0.01)


def test_an_arm_has_what_it_does_not_say_from_the_one_that_it_is_like() -> None:
    arms = {"one": {"noise": 0.2}, "two": {"like": "one", "far": 0.1}, "three": {"like": "two", "noise": 0.0}}
    here = lab(arms=arms)
    assert here.names == ("one", "two", "three")
    two, three = here.arm("two"), here.arm("three")
    assert two is not None
    assert three is not None
    assert (two.noise, two.far) == (0.2, 0.1)
    assert (three.noise, three.far) == (0.0, 0.1)
    assert here.shape("three", 320).ltm is not None


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"arms": {"one": {"like": "two"}}}, "arms.one is like 'two', which is no arm; there are: one"),
        ({"arms": {"a": {"like": "b"}, "b": {"like": "a"}}}, "arms.a is like itself, by way of b"),
        ({"arms": {"one": {"recall_rows": 2, "infill_rows": 2}}}, "leave no row of 4 for text"),
        ({"arms": {"one": {"consistency": 0.5, "coherence": 0.5}}}, "leave nothing of 1 for reconstruction"),
        ({"arms": {"one": {"consistency": 0.5}}}, "set model.ltm.slots"),
        ({"arms": {"one": {"memory": False, "reader_lr": 2.0}}}, "are of a memory; set memory: true"),
        ({"eval": {"policies": {"x": {"consolidate": {}}}}}, "policies.x: consolidate needs places"),
        ({"eval": {"policies": {"x": {"slots": 4, "consolidate": {"keep": 2}}}}}, "keep must be a number above 0"),
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
