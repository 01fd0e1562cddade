"""`swarm eval` on a tiny model: trainings and measurements as Ray tasks, resumed; arms and controls differ."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes.hf_models import tiny_model, tiny_tokenizer

pytest.importorskip("peft", reason="LoRA needs peft: pip install 'ulm-swarm[hf]'")
from swarm.config.load import load_yaml_model
from swarm.errors import SwarmError
from swarm.lab.engram.config import EngramEvalConfig
from swarm.lab.engram.evaluation import measurements, run_evaluation
from swarm.lab.engram.results import summary

pytestmark = pytest.mark.ray

FACTS: dict[str, Any] = {
    "name": "tiny",
    "unseen": 0.3,
    "categories": {
        "pairs": {
            "generate": "pairs",
            "count": 80,
            "relations": {
                "code": {"train": ["code {key} is"], "valid": ["{key} has code"], "test": ["the code of {key} is"]}
            },
        },
        "entities": {
            "generate": "entities",
            "count": 80,
            "relations": {
                "city": {
                    "value": "city",
                    "train": ["{key} lives in"],
                    "valid": ["home of {key} is"],
                    "test": ["{key} at"],
                }
            },
        },
        "support": {"prompt": "Q: {question}\nA:", "questions": {"train": "train.csv", "test": "test.csv"}},
    },
}
EVAL: dict[str, Any] = {
    "name": "tiny",
    "model": "model",
    "facts": "facts.yaml",
    "max_new_tokens": 8,
    "learn": {
        "categories": ["pairs"],
        "per_relation": 4,
        "engram": {"layers": [1, 2], "rows": 499, "head_size": 8, "heads": 2},
        "lora_rank": 2,
        "optimizer": {
            "steps": 120, "batch_size": 8, "lr": 0.01, "warmup": 10, "schedule": "linear", "weight_decay": 0,
            "betas": [0.9, 0.999],
        },
        "lr": {"engram": 0.02},
    },
    "pairs": {"counts": [30], "asked": 20, "asked_of_controls": 10},
    "edits": {"count": 25, "draws": 2},
    "faq": {"unanswerable": "strange.json", "questions": 10},
    "text": {"file": "text.txt", "tokens": 256, "length": 64, "gate_tokens": 128},
    "distraction": {"distances": [20, 60], "sequences": 3},
    "cost": {"rows": [100, 1000], "lengths": [16, 32], "tokens": 2, "turns": 2},
    "device": "cpu",
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eval")
    tiny_model().save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    (folder / "facts.yaml").write_text(yaml.safe_dump(FACTS))
    (folder / "eval.yaml").write_text(yaml.safe_dump(EVAL))
    rows = "text,category\n" + "".join(
        f"where is my {thing} {n},{thing}\n" for n in range(12) for thing in ("card", "pin")
    )
    for name in ("train.csv", "test.csv"):
        (folder / name).write_text(rows)
    strange = [[f"who sang song {n}", "oos"] for n in range(40)]
    (folder / "strange.json").write_text(json.dumps({"calibrate": strange[:25], "asked": strange[25:]}))
    (folder / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 40)
    return folder


@pytest.fixture(scope="module")
def results(place: Path, one_ray: None) -> dict[str, Any]:
    config = load_yaml_model(place / "eval.yaml", EngramEvalConfig)
    return run_evaluation(config, place, place / "out", lambda line: None)


def test_facts_are_recalled_by_the_memories_that_hold_them_and_by_no_null_control(results: dict[str, Any]) -> None:
    rates = {arm: found["same"]["all"]["estimate"] for arm, found in results["arms"].items()}
    assert rates["base"] == 0.0
    assert rates["exact"] == rates["hybrid"] == 1.0
    assert rates["engram"] == 1.0
    assert rates["engram, shuffled"] <= 0.25
    assert rates["engram, capacity_1"] <= 0.25
    assert rates["engram, gated"] >= 0.75
    assert rates["exact, shuffled"] == 0.0
    assert rates["exact, capacity_1"] <= 0.25
    assert results["pairs"]["30"]["right"]["estimate"] == 1.0
    assert max(x["estimate"] for x in results["pairs"]["30"]["controls"].values()) <= 0.1
    assert {arm: results["edits"][arm]["reliable"]["estimate"] for arm in ("exact", "hybrid")} == {
        "exact": 1.0,
        "hybrid": 1.0,
    }
    assert [results["edits"][arm]["reliable"]["n"] for arm in ("exact", "hybrid")] == [25, 50]
    assert results["edits"]["exact"]["general"]["estimate"] < results["edits"]["hybrid"]["general"]["estimate"]
    assert all(x["estimate"] == 1.0 for x in results["distraction"]["exact"].values())
    assert results["faq"]["right"]["estimate"] >= 0.8 > 0.7 >= results["faq"]["right_shuffled"]["estimate"]
    assert results["faq"]["abstained"]["estimate"] > 0.8


def test_what_no_key_matches_does_not_change_by_a_bit(results: dict[str, Any]) -> None:
    pairs = results["pairs"]["30"]
    assert pairs["text"]["positions_changed"] == 0
    assert pairs["text"]["perplexity"] == pairs["text"]["perplexity_bare"]
    assert len({found["perplexity_bare"] for found in results["text"].values()}) == 1
    assert results["text"]["engram"]["perplexity"] != results["text"]["engram"]["perplexity_bare"]
    gates = {line["title"]: sum(line["mixture"]) / len(line["mixture"]) for line in results["gates"]}
    assert gates["told: pairs"] > gates["text"] + 0.1
    assert results["text"]["lora_engram"]["perplexity"] != results["text"]["lora_engram"]["perplexity_bare"]


def test_edits_practice_and_questions_elsewhere_share_no_key(place: Path) -> None:
    from swarm.lab.engram.facts import choose_facts, edit_sets

    config = load_yaml_model(place / "eval.yaml", EngramEvalConfig)
    parts = edit_sets(config, choose_facts(config, place))
    edits, practice, elsewhere, paraphrases = ({(r.category, r.key) for r in part} for part in parts)
    assert paraphrases <= edits
    assert not edits & practice
    assert not edits & elsewhere
    assert not practice & elsewhere


def test_a_model_that_changes_is_measured_anew(place: Path) -> None:
    from swarm.lab.engram.evaluation import training_identity
    from swarm.lab.engram.facts import choose_facts

    config = load_yaml_model(place / "eval.yaml", EngramEvalConfig)
    facts = choose_facts(config, place)
    before = training_identity(config, place, facts, "engram")
    weights = place / "model" / "model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    assert training_identity(config, place, facts, "engram") != before
    weights.write_bytes(kept)
    assert training_identity(config, place, facts, "engram") == before


def test_what_is_done_is_not_done_again(place: Path, results: dict[str, Any]) -> None:
    config = load_yaml_model(place / "eval.yaml", EngramEvalConfig)
    assert {path.stem for path in (place / "out" / "measured").iterdir()} == {
        what.replace(":", "-") for what in measurements(config)
    }
    assert {path.name for path in (place / "out").glob("*.png")} == {
        "arms.png",
        "cost.png",
        "distraction.png",
        "gates.png",
    }
    lines: list[str] = []
    (place / "out" / "measured" / "edits-exact-0.json").write_text("{")
    again = run_evaluation(config, place, place / "out", lines.append)
    assert [line.split(" (")[0] for line in lines[:2]] == [
        f"measuring: 1 of {len(measurements(config)) - 2}",
        "edits:exact:0",
    ]
    assert lines[2].startswith("measuring: 1 done in ")
    assert again["arms"] == results["arms"]
    assert any("edits, exact: reliability 1.000" in line for line in summary(again))
    other = load_yaml_model(place / "eval.yaml", EngramEvalConfig, ["learn.optimizer.steps=5"])
    with pytest.raises(
        SwarmError, match=r"holds work with other settings \(learn.optimizer.steps is 120 there and 5 here"
    ):
        run_evaluation(other, place, place / "out", lines.append)


def test_a_training_goes_on_from_its_last_whole_state(place: Path, tmp_path: Path) -> None:
    from swarm.lab.engram import training
    from swarm.lab.engram.facts import choose_facts

    config = load_yaml_model(place / "eval.yaml", EngramEvalConfig, ["learn.optimizer.steps=8", "learn.save_every=4"])
    told = choose_facts(config, place).told

    def train(out: Path) -> Any:
        return training.train_arm("lora_engram", config, place, told, out, "cpu")

    train(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole" / "states", tmp_path / "half" / "states")
    (tmp_path / "half" / "states" / "step-00000008.json").unlink()  # killed before it was written
    train(tmp_path / "half")
    for name in ("adapter_model.safetensors", "base/adapter_model.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "half" / name).read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model=nowhere", "no model 'nowhere': there is no such folder .* nor one of smollm2-135m"),
        ("learn.categories=[rivers]", "no rivers in .*facts.yaml; there are: entities, pairs, support"),
        ("text.file=none.txt", "cannot read .*none.txt"),
        ("edits.count=5000", "there are .* facts; raise the counts"),
        ("faq.unanswerable=text.txt", "faq.unanswerable: cannot read the questions"),
        ("faq.category=pairs", "faq.category: pairs has no `questions`"),
        ("learn.engram.layers=[9]", "no block 9"),
        ("learn.categories=[pairs, support]", "support has questions, not keys"),
        ("learn.text.file=text.txt", "learn.text.file"),
        ("text.tokens=100000", "text.file: .* 100,128 are needed; lower text.tokens"),
        ("learn.text.file=none.txt", "learn.text.file: cannot read .*none.txt"),
        ("learn.text.file=train.csv", "learn.text.file: .* has 121 words, at least 1,000 are needed"),
    ],
)
def test_mistakes_are_found_before_anything_is_trained(place: Path, tmp_path: Path, change: str, message: str) -> None:
    config = load_yaml_model(place / "eval.yaml", EngramEvalConfig, [change])
    with pytest.raises(SwarmError, match=message):
        run_evaluation(config, place, tmp_path / "out", lambda line: None)
    assert not (tmp_path / "out").exists()
