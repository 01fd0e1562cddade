"""A ladder of corpora: what is read when, what is measured at the end of a stage, and that a kill changes nothing."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.corpus_files import jsonl, texts_of
from fakes.training import alone, interrupt_after, saved_tensors, tiny_recipe, without_ray

from swarm.check import check_file
from swarm.errors import SwarmError
from swarm.train.recipe import TextRecipe, load_recipe
from swarm.train.text import TextTraining, held_out_bits
from swarm.train.training import train_policy
from ulm.checkpoint import load_checkpoint
from ulm.data.corpus import Corpus

pytestmark = pytest.mark.thorough

NAMES = ("ants", "bees", "cats")


def texts(name: str, count: int = 30) -> list[str]:
    """Texts in which every word begins with the name's first letter."""
    generator = random.Random(name)
    return [" ".join(name[0] + generator.choice("uvwxyz") * 2 for _ in range(20)) for _ in range(count)]


def stage(name: str, **changes: Any) -> dict[str, Any]:
    return {"name": name, "files": [f"{name}.jsonl"], **changes}


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The texts and a training file in an empty working folder."""
    torch.set_num_threads(1)
    without_ray(monkeypatch)
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        jsonl(Path(f"{name}.jsonl"), texts(name))
    recipe = tiny_recipe(
        kind="text",
        model={"preset": "tiny", "window": 16, "vocab_size": 300},
        span=16,
        stages=[stage("ants", share=2), stage("bees", mixing=0.25), stage("cats", mixing=0.5)],
        optimizer={"steps": 8, "batch_size": 4, "warmup": 2},
        score_examples=3,
    )
    for key in ("world", "task"):
        del recipe[key]
    Path("train.yaml").write_text(json.dumps(recipe))


def change(**changes: Any) -> None:
    Path("train.yaml").write_text(json.dumps({**json.loads(Path("train.yaml").read_text()), **changes}))


def train(*overrides: str, out: str = "policy") -> list[str]:
    lines: list[str] = []
    train_policy(Path("train.yaml"), overrides, out=Path(out), echo=lines.append)
    return lines


def records(name: str = "tiny") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(f"runs/train-{name}/metrics.jsonl").read_text().splitlines()]


def read_by_rows() -> list[list[set[str]]]:
    """The first letters of what each row reads, step by step."""
    recipe = load_recipe(Path("train.yaml"))
    assert isinstance(recipe, TextRecipe)
    training = TextTraining(recipe, Path().resolve())
    training.prepare(Path())
    objective, tokenizer = training.objective(Path(), alone()), Corpus.open(Path("data")).tokenizer
    found = []
    for step in range(recipe.optimizer.steps):
        ((_, ids_NBS, _, _),), _ = objective.batch(step)
        found.append([{word[0] for word in tokenizer.decode(row).split()[1:]} for row in ids_NBS[0].tolist()])
    return found


def test_each_stage_reads_its_corpus_and_its_share_of_those_before() -> None:
    steps = read_by_rows()
    assert all(rows == [{"a"}] * 4 for rows in steps[:4])
    assert all(rows == [{"b"}] * 3 + [{"a"}] for rows in steps[4:6])
    assert all(rows[:2] == [{"c"}] * 2 for rows in steps[6:])
    assert all(row <= {"a", "b"} for rows in steps[6:] for row in rows[2:])


def test_the_same_corpora_in_the_other_order() -> None:
    change(order="reversed", stages=[stage("ants", mixing=0.25), stage("bees"), stage("cats")])
    steps = read_by_rows()
    assert all(rows == [{"c"}] * 4 for rows in steps[:3])
    assert all(rows == [{"b"}] * 4 for rows in steps[3:5])
    assert all(rows[:3] == [{"a"}] * 3 and rows[3] <= {"b", "c"} for rows in steps[5:])


def test_what_is_held_out_is_measured_at_the_end_of_each_stage() -> None:
    lines = train()
    ended = [record for record in records() if "held_out" in record]
    assert [(record["stage"], list(record["held_out"])) for record in ended] == [
        ("ants", ["ants"]),
        ("bees", ["ants", "bees"]),
    ]
    scores = load_checkpoint(Path("policy")).meta["scores"]
    assert list(scores) == list(NAMES)
    assert [scores[name].get("at_its_end") for name in NAMES] == [
        ended[0]["held_out"]["ants"]["bits_per_byte"],
        ended[1]["held_out"]["bees"]["bits_per_byte"],
        None,
    ]
    assert all(score["low"] <= score["bits_per_byte"] <= score["high"] for score in scores.values())
    assert any(line.startswith("ants: 30 read, 30 kept") for line in lines)


def test_bits_per_byte_are_those_of_a_uniform_guess_where_nothing_was_learned() -> None:
    train("optimizer.lr=1e-12")
    recipe, corpus = load_recipe(Path("train.yaml")), Corpus.open(Path("runs/train-tiny/data"))
    model = load_checkpoint(Path("policy")).model
    for weight in model.parameters():
        torch.nn.init.zeros_(weight)
    assert isinstance(recipe, TextRecipe)
    found = held_out_bits(model, corpus, "bees", recipe)
    theirs = corpus.sources("val")["bees"]
    tokens, _, size = corpus.sizes("val")[:, theirs]
    assert found["n"] == len(tokens) == 2
    expected = np.log2(corpus.tokenizer.vocab_size) * tokens.sum() / size.sum()
    assert found["bits_per_byte"] == pytest.approx(expected, abs=1e-3)


def test_nothing_that_is_held_out_is_trained_on_in_another_stage() -> None:
    jsonl(Path("bees.jsonl"), [*texts("ants"), *texts("bees")])
    train()
    corpus = Corpus.open(Path("runs/train-tiny/data"))
    assert not set(texts_of(corpus, "train")) & set(texts_of(corpus, "val"))
    meta = load_checkpoint(Path("policy")).meta
    assert meta["texts"]["cleaning"]["bees"] == {"read": 60, "duplicates": 30, "kept": 30}


@pytest.mark.parametrize("done", [1, 3, 4, 5, 6, 7])
def test_a_kill_in_any_stage_changes_nothing(monkeypatch: pytest.MonkeyPatch, done: int) -> None:
    train("name=whole", out="whole")
    interrupt_after(done, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train()
    train()
    found, expected = (saved_tensors(Path(f"runs/train-{name}/states")) for name in ("tiny", "whole"))
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())
    assert load_checkpoint(Path("policy")).meta["scores"] == load_checkpoint(Path("whole")).meta["scores"]


def test_a_kill_while_the_texts_are_prepared_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    train("name=whole", out="whole")
    with monkeypatch.context() as broken:
        broken.setattr("ulm.data.corpus._write_split", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train()
    assert not Path("runs/train-tiny/recipe.json").exists()
    train()
    assert Path("policy/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()


def test_a_training_starts_from_an_earlier_ladder() -> None:
    train()
    train("name=child", "init=policy", out="child")
    assert load_checkpoint(Path("child")).tokenizer.to_json() == load_checkpoint(Path("policy")).tokenizer.to_json()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": []}, "stages"),
        ({"stages": [stage("ants"), stage("ants")]}, "several stages are called .* tell them apart by `name`"),
        ({"stages": [stage("gone")]}, "no corpus file at .*gone.jsonl"),
        ({"stages": [stage("ants"), stage("bees", mixing=0.01)]}, "mixing 0.01 is 0 of 4 rows"),
        ({"stages": [stage("ants"), stage("bees", share=0.001)]}, "steps 8 are too few for stages that end at"),
        ({"model": {"preset": "ltm-1m"}}, "preset ltm-1m has a long-term memory"),
        ({"span": 4096}, "ants: the corpus has .* tokens, too few for one window of 4096; give it more text"),
        (
            {"stages": [stage("ants", cleaning={"length": [9000, 9999]})]},
            r"ants is a single document.* \(30 known or unfit",
        ),
    ],
)
def test_what_cannot_be_learned_is_one_clear_line(changes: dict[str, Any], message: str) -> None:
    change(**changes)
    with pytest.raises(SwarmError, match=message) as caught:
        train()
    assert "\n" not in str(caught.value)
    assert not Path("policy").exists()


def test_a_check_tells_the_stages_and_times_a_step() -> None:
    plan = check_file(Path("train.yaml"), [])
    assert plan.missing == []
    assert [text.split(":")[1] for name, text in plan.lines if name == "stage"] == [
        " 4 steps, 256 tokens",
        " 2 steps, 128 tokens",
        " 2 steps, 128 tokens",
    ]
    assert dict(plan.lines)["time"].startswith("about ")
    assert not Path("runs").exists()


def test_other_texts_in_the_same_folder_are_refused() -> None:
    train()
    jsonl(Path("cats.jsonl"), texts("cows"))
    with pytest.raises(SwarmError, match=r"train-tiny holds work with other settings \(texts"):
        train()
