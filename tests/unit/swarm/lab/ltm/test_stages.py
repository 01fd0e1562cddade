"""The stages of the lab without Ray: what they reuse and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.tiny_lab import lab

from swarm.actors.ray_train import METRICS
from swarm.errors import SwarmError
from swarm.files import FolderLock, make_folder
from swarm.identity import claim
from swarm.lab.ltm import evaluator as lm_evaluator
from swarm.lab.ltm import trainer as lm_trainer
from swarm.lab.ltm.config import LabConfig
from swarm.lab.ltm.stages import run_lab
from ulm.checkpoint import save_checkpoint
from ulm.data.corpus import Corpus
from ulm.model import Decoder
from ulm.tokenizer import Tokenizer

PNG = b"\x89PNG\r\n\x1a\n"
WORDS = ("the", "a", "cat", "dog", "sat", "ran", "on", "under", "mat", "hill", "old", "then", "it", "was", "good")


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    generator = np.random.default_rng(2)
    texts = [" ".join(generator.choice(WORDS, 30)) + f" n{i} é" for i in range(24)]
    (tmp_path / "texts.txt").write_text("\n\n".join(texts), encoding="utf-8")
    return tmp_path


class Lab:
    """Runs stages in a folder and keeps what was said."""

    def __init__(self, beside: Path) -> None:
        self.beside, self.folder = beside, beside / "lab"
        self.lines: list[str] = []

    def __call__(self, *stages: Any, config: LabConfig | None = None) -> list[str]:
        self.lines = []
        run_lab(config or lab(), self.beside, self.folder, stages, self.lines.append)
        return self.lines


@pytest.fixture
def run(beside: Path) -> Lab:
    return Lab(beside)


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Let trainings end at once with untrained weights; return what was trained."""
    done: list[tuple[str, int]] = []

    def train(config: LabConfig, arm: Any, seed: int, corpus: Corpus, folder: Path) -> None:
        make_folder(folder)
        claim(folder / "recipe.json", lm_trainer._recipe(config, arm, seed, corpus))
        (folder / METRICS).write_text('{"step": 1, "ltm_hit_rate": 0.25}\n{"step": 2, "ltm_hit_rate": 0.5}\n')
        model = Decoder(config.model.config(arm, corpus.tokenizer.vocab_size), seed)
        save_checkpoint(folder / "checkpoint", model, corpus.tokenizer, {})
        done.append((arm, seed))

    monkeypatch.setattr(lm_trainer, "train_language_model", train)
    return done


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, str]]:
    """Let evaluations be made up, and speed too; return what was evaluated."""
    done: list[tuple[Path, str]] = []

    def run_tasks(
        work: Any, calls: Sequence[tuple[Any, ...]], report: Callable[[int, Any], None], **options: Any
    ) -> None:
        for index, (_, config, data, checkpoint, condition) in enumerate(calls):
            sizes = Corpus.open(data).sizes("val")
            nothing = [0] * sizes.shape[1]
            scores = {"recalled": [1, 2], "hits": [0, 0], "written": [1, 1]}
            measured = {
                "documents": {"nats": (2.0 * sizes[2]).tolist(), "written": nothing, "readings": nothing},
                "recall": {"quiet": {str(d): scores for d in config.recall.distances}, "text": {}},
            }
            report(index, {"measured": measured})
            done.append((checkpoint, condition))

    monkeypatch.setattr("swarm.lab.measurements.run_tasks", run_tasks)
    monkeypatch.setattr(
        lm_evaluator,
        "measure_speed",
        lambda config, corpus, models: {kind: {arm: [10.0, 20.0] for arm in models} for kind in ("read", "train")},
    )
    return done


def test_what_is_prepared_already_is_opened_and_not_made_again(run: Lab) -> None:
    assert any("held out" in line for line in run("prepare"))
    files = {path: path.stat().st_mtime_ns for path in (run.folder / "data").iterdir()}
    assert run("prepare") == []
    assert {path: path.stat().st_mtime_ns for path in (run.folder / "data").iterdir()} == files
    assert json.loads((run.folder / "lab.json").read_text())["name"] == "tiny"


@pytest.mark.parametrize("changes", [{"seed": 5}, {"val_share": 0.3}, {"tokenizer": 330}])
def test_a_folder_with_data_of_another_recipe_is_refused_and_left_alone(run: Lab, changes: dict[str, Any]) -> None:
    run("prepare")
    before = (run.folder / "data" / "manifest.json").read_bytes()
    with pytest.raises(SwarmError, match=r"/data holds work with other settings \(.*\); choose another --out"):
        run("prepare", config=lab(corpus=changes))
    assert (run.folder / "data" / "manifest.json").read_bytes() == before


def test_texts_that_are_not_there_are_one_line_of_the_stage(run: Lab) -> None:
    with pytest.raises(SwarmError, match=r"^prepare: ") as error:
        run("prepare", config=lab(corpus={"sources": [{"files": ["nothing.txt"]}]}))
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("stage", ["train", "eval", "plot"])
def test_a_stage_before_prepare_names_prepare(run: Lab, stage: str) -> None:
    with pytest.raises(SwarmError, match=r"no prepared corpus in .*; run the stage `prepare` first"):
        run(stage)


def test_eval_before_train_names_train_and_plot_before_eval_names_eval(run: Lab) -> None:
    with pytest.raises(SwarmError, match="baseline, seed 1 is not trained; run the stage `train` first"):
        run("prepare", "eval")
    with pytest.raises(SwarmError, match=r"no .*results\.json; run the stage `eval` first"):
        run("plot")


def test_a_tokenizer_too_small_for_recall_is_refused_before_anything_is_trained(run: Lab) -> None:
    with pytest.raises(SwarmError, match=r"lower recall.num_keys and recall.num_values, or take a larger tokenizer"):
        run("prepare", "train", config=lab(recall={"num_keys": 158, "num_values": 158}))


def test_damaged_data_is_found_when_it_is_opened(run: Lab) -> None:
    run("prepare")
    path = run.folder / "data" / "train.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(SwarmError, match=r"train\.bin is missing or damaged; .* prepare it again"):
        run("plot")


def test_every_arm_is_trained_once_per_seed(run: Lab, no_training: list[tuple[str, int]]) -> None:
    lines = run("train", "prepare")
    assert no_training == [("baseline", 1), ("with_ltm", 1), ("baseline", 2), ("with_ltm", 2)]
    assert any("parameters, checkpoint in" in line for line in lines)
    assert run("train") == [f"{arm}, seed {seed}: trained already" for arm, seed in no_training]
    assert len(no_training) == 4
    with pytest.raises(SwarmError, match=r"s1/baseline holds work with other settings \(optimizer.lr is"):
        run("train", config=lab(optimizer={"lr": 0.9}))
    run("train", config=lab(seeds=[1, 2, 3], train={"save_every": 7}))  # neither changes what was trained
    assert no_training[4:] == [("baseline", 3), ("with_ltm", 3)]


def test_what_is_measured_already_is_not_measured_again_unless_the_question_changed(
    run: Lab, no_training: list[tuple[str, int]], no_ray: list[tuple[Path, str]]
) -> None:
    lines = run("prepare", "train", "eval", "plot")
    conditions = ["none", "no_reads", "policy:by_use"]
    wanted = [("baseline", "none"), *(("with_ltm", name) for name in conditions)]
    by_seed = [(run.folder / seed / arm / "checkpoint", name) for seed in ("s1", "s2") for arm, name in wanted]
    assert no_ray == by_seed
    found = json.loads((run.folder / "results.json").read_text())
    assert found["meta"]["hit_rate_over_training"] == {seed: [[1, 0.25], [2, 0.5]] for seed in "12"}
    assert list(found["verdict"].values()) == lines[-3:-1]
    assert (run.folder / "results.png").read_bytes().startswith(PNG)

    no_ray.clear()
    run("eval")
    assert no_ray == []  # nothing new
    run("eval", config=lab(recall={"sequences": 3}))
    assert no_ray == by_seed  # another question
    no_ray.clear()
    (run.folder / "s2" / "with_ltm" / "eval" / "no_reads.json").write_text("{damaged")
    policies = {"by_use": {"eviction": "age"}, "by_surprisal": {"eviction": "surprisal"}}
    run("eval", config=lab(recall={"sequences": 3}, eval={"policies": policies}))
    first, second = (run.folder / seed / "with_ltm" / "checkpoint" for seed in ("s1", "s2"))
    assert no_ray == [
        (first, "policy:by_use"),
        (first, "policy:by_surprisal"),
        (second, "no_reads"),
        (second, "policy:by_use"),
        (second, "policy:by_surprisal"),
    ]


def test_a_checkpoint_of_another_tokenizer_is_not_evaluated(
    run: Lab, no_training: list[tuple[str, int]], no_ray: list[tuple[Path, str]]
) -> None:
    run("prepare", "train")
    place = run.folder / "s1" / "with_ltm" / "checkpoint"
    other = Tokenizer.train(["quite another text"] * 5, 300)
    save_checkpoint(place, Decoder(lab().model.config("with_ltm", other.vocab_size)), other, {})
    with pytest.raises(SwarmError, match=r"with_ltm/checkpoint has another tokenizer than .*; train it on this corpus"):
        run("eval")
    assert no_ray == []


def test_damaged_results_are_not_drawn(run: Lab) -> None:
    run("prepare")
    (run.folder / "results.json").write_text("{")
    with pytest.raises(SwarmError, match=r"results\.json is damaged .*; run the stage `eval` again"):
        run("plot")
    assert not (run.folder / "results.png").exists()


def test_a_folder_that_cannot_be_written_is_one_line(beside: Path) -> None:
    (beside / "file").write_text("")
    run = Lab(beside)
    run.folder = beside / "file" / "lab"
    with pytest.raises(SwarmError, match=r"cannot write to .*lab: Not a directory"):
        run("prepare")


def test_a_refused_lab_leaves_everything_as_it_was(run: Lab, no_training: list[tuple[str, int]]) -> None:
    run("prepare", "train")
    before = (run.folder / "lab.json").read_bytes()
    for stages in (("train",), ("plot",)):
        with pytest.raises(SwarmError, match="other settings"):
            run(*stages, config=lab(optimizer={"lr": 0.9}))
    assert (run.folder / "lab.json").read_bytes() == before


def test_a_folder_of_something_else_or_in_use_is_refused(run: Lab) -> None:
    run.folder.mkdir()
    (run.folder / "journal.jsonl").write_text("{}")
    with pytest.raises(SwarmError, match=r"holds something else \(journal.jsonl\); choose another --out"):
        run("prepare")
    (run.folder / "journal.jsonl").unlink()
    lock = FolderLock(run.folder, "lab")
    with pytest.raises(SwarmError, match="being written by another process"):
        run("prepare")
    lock.close()
    run("prepare")


def test_what_is_missing_is_said_before_the_corpus_is_prepared(run: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SwarmError, match="no such GPU"):
        run("prepare", "train", config=lab(place={"device": "cuda"}))
    assert not run.folder.exists()
