"""`swarm train` with a pretrained model: a LoRA adapter through real Ray Train, on a tiny random model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from fakes.hf_models import tiny_model, tiny_tokenizer
from fakes.won_run import write_run
from safetensors.torch import load_file

from swarm.backends.models import open_model
from swarm.backends.protocol import TextRequest
from swarm.errors import SwarmError
from swarm.train.progress import read_metrics
from swarm.train.training import train_policy

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

RECIPE: dict[str, Any] = {
    "kind": "lora", "name": "tiny-lora", "model": "model", "world": "split-numbers-v0",
    "task": "puzzle-coordinator-play", "seed": 3, "rank": 4,
    "optimizer": {
        "steps": 6, "batch_size": 4, "lr": 0.02, "warmup": 1, "schedule": "linear", "weight_decay": 0,
        "betas": [0.9, 0.999],
    },
    "place": {"device": "cpu"}, "save_every": 3, "log_every": 2, "score_examples": 4, "out": "adapter",
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    tiny_model("llama").save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    return folder


def train(folder: Path, *overrides: str, **changes: Any) -> Path:
    file = folder / "train.yaml"
    file.write_text(yaml.safe_dump({**RECIPE, **changes}))
    return train_policy(file, overrides, echo=lambda line: None)


def answers(place: Path, adapter: Path | None) -> list[str]:
    from swarm.backends.transformers import TransformersModel

    model = TransformersModel(open_model("model", place / "model"), adapter=adapter)
    prompts = [f"half 1 {n} 7 make 4 9\n" for n in range(2, 8)]
    return [result.text for result in model.generate([TextRequest(p, None, 0, 12, 0.0) for p in prompts])]


def test_an_adapter_is_trained_scored_and_shipped(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    out = train(place)
    weights = load_file(out / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert any(tensor.abs().sum() > 0 for name, tensor in weights.items() if "lora_B" in name)
    told = json.loads((out / "training.json").read_text())
    assert told["examples"] == 24
    assert told["scores"]["tuned"]["n"] == told["scores"]["untuned"]["n"] == 4
    assert str(place) not in "".join(file.read_text() for file in out.glob("*.json"))
    assert answers(place, out) != answers(place, None)
    with pytest.raises(SwarmError, match=r"other settings .optimizer.lr is 0.02 there and 0.5 here"):
        train(place, "optimizer.lr=0.5")


def test_training_goes_on_from_an_adapter(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = train(place, name="first", out=str(tmp_path / "first"))
    changes = {"name": "still", "init": str(first), "out": str(tmp_path / "still")}
    still = train(place, "optimizer.lr=1e-12", "optimizer.steps=1", **changes)
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (first, still))
    assert all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(SwarmError, match="has rank and alpha"):
        train(place, name="other", init=str(first), rank=2)
    with pytest.raises(SwarmError, match="no LoRA adapter at"):
        train(place, name="other", init="nowhere")


def test_an_adapter_that_is_missing_names_the_recipe_that_makes_it(place: Path) -> None:
    (place / "first_part.yaml").write_text("name: first\nout: policies/first\n", encoding="utf-8")
    with pytest.raises(SwarmError, match=r"no LoRA adapter at .*; make it first: swarm train .*first_part\.yaml"):
        train(place, name="other", init="policies/first")


def test_two_workers_with_compiled_layers_in_bfloat16_learn_marks(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    where = {"device": "cpu", "dtype": "bfloat16", "compile": True, "workers": 2, "threads": 1}
    out = train(place, name="marks", task="puzzle-coordinator-marks", place=where, out=str(tmp_path / "adapter"))
    weights = load_file(out / "adapter_model.safetensors")
    assert all(tensor.abs().sum() > 0 for tensor in weights.values())
    assert all(name.startswith("base_model.model.model.layers.") for name in weights)  # no names of compiled modules
    assert 0 <= json.loads((out / "training.json").read_text())["scores"]["tuned"]["marks"] <= 1
    assert 0 < read_metrics(tmp_path / "runs" / "train-marks" / "metrics.jsonl")[0]["loss"] < 10
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(SwarmError, match="needs the C\\+\\+ compiler no-such-compiler, which is not here"):
        train(place, "place.compile=true", name="other")


def test_an_adapter_learns_from_runs_that_were_won(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = write_run(tmp_path / "won", [True] * 60)
    out = train(place, name="won", task="runs", runs=[str(run)], out=str(tmp_path / "adapter"))
    told = json.loads((out / "training.json").read_text())
    assert told["scores"]["tuned"]["n"] >= 1
    with pytest.raises(SwarmError, match="`runs` names run folders for task 'runs'"):
        train(place, name="other", task="runs")


def test_a_training_that_was_killed_goes_on_to_the_same_adapter(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = load_file(train(place, name="whole", out=str(tmp_path / "whole")) / "adapter_model.safetensors")
    (tmp_path / "runs" / "train-whole" / "states" / "step-00000006.json").unlink()  # as if killed after step 3
    again = load_file(train(place, name="whole", out=str(tmp_path / "again")) / "adapter_model.safetensors")
    assert all(torch.equal(whole[name], again[name]) for name in whole)
