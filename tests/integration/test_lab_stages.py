"""The lab through real Ray: all stages, and a training that is killed, resumed or shared by two workers."""

import json
import os
import random
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.ray_workers import workers
from fakes.training import damage_newest_state, saved_tensors

from swarm.errors import SwarmError
from swarm.lab.ltm.config import LabConfig
from swarm.lab.ltm.stages import STAGES, run_lab
from swarm.train.progress import read_metrics
from ulm.train.states import RollingStates

STEPS = 12
WORDS = (
    "the",
    "a",
    "cat",
    "dog",
    "sat",
    "ran",
    "on",
    "under",
    "mat",
    "hill",
    "old",
    "big",
    "then",
    "it",
    "was",
    "good",
)


def lab(place: dict[str, Any] | None = None, save_every: int = 4, **optimizer: Any) -> LabConfig:
    return LabConfig.model_validate(
        {
            "name": "tiny",
            "seeds": [1],
            "with_ltm": True,
            "corpus": {"sources": [{"files": ["texts.txt"], "separator": "\n\n"}], "tokenizer": 320},
            "model": {"size": "1m", "window": 16, "ltm": {"segment": 8, "capacity": 16}},
            "recall": {
                "rows": 1, "practice_tokens": 64, "filler": " it was very good and then", "num_keys": 12,
                "num_values": 12, "num_pairs": 2, "spacing": 8, "distances": [12, 20], "sequences": 3,
            },
            "train": {"span": 32, "save_every": save_every, "log_every": 1},
            "optimizer": {"steps": STEPS, "batch_size": 4, "warmup": 2, "lr": 0.003, **optimizer},
            "place": {"threads": 1, "device": "cpu", **(place or {})},
            "eval": {"policies": {"by_use": {"eviction": "use"}}, "speed_tokens": 1024, "speed_rounds": 3},
        }
    )  # fmt: skip


pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("one_ray")]


def run(config: LabConfig, root: Path, *stages: str, lines: list[str] | None = None) -> Path:
    echo = (lines if lines is not None else []).append
    return run_lab(config, root, root / "lab", stages or STAGES, echo)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lab that nothing disturbed, all stages done."""
    root = tmp_path_factory.mktemp("whole")
    rng = random.Random(1)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(20, 90))) + "." for _ in range(40)]
    (root / "texts.txt").write_text("\n\n".join(texts))
    lines: list[str] = []
    run(lab(), root, lines=lines)
    (root / "echo.txt").write_text("\n".join(lines))
    return root


def begin_like(whole: Path, root: Path) -> Path:
    """A lab whose corpus is prepared and where nothing is trained."""
    root.mkdir(exist_ok=True)
    shutil.copy(whole / "texts.txt", root / "texts.txt")
    shutil.copytree(whole / "lab" / "data", root / "lab" / "data")
    shutil.copy(whole / "lab" / "lock", root / "lab")  # it says whose the folder is
    return root


def weights(root: Path, arm: str) -> dict[str, torch.Tensor]:
    return saved_tensors(root / "lab" / "s1" / arm / "states")


def losses(root: Path, arm: str) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in read_metrics(root / "lab" / "s1" / arm / "metrics.jsonl")}


def saved_step(root: Path, arm: str) -> int:
    return max(RollingStates(root / "lab" / "s1" / arm / "states").steps(), default=0)


def test_all_stages_leave_results_in_the_promised_shape(whole: Path) -> None:
    results = json.loads((whole / "lab" / "results.json").read_text())
    for arm in ("baseline", "with_ltm"):
        assert results[arm]["bpc"] > 0
        assert 0 <= results[arm]["long_range_recall"] <= 1
        assert results[arm]["tokens_per_sec"] > 0
        assert results[arm]["n"]["seeds"] == 1
        low, high = (results[arm]["details"]["bpc"][end] for end in ("low", "high"))
        assert low <= results[arm]["bpc"] <= high
    assert results["baseline"]["memory_hit_rate"] == 0
    assert set(results["with_ltm"]["controls"]) == {"shuffled_values", "random_writes", "capacity_1", "no_reads"}
    assert set(results["with_ltm"]["policies"]) == {"by_use"}
    assert abs(results["baseline"]["parameters"] / results["with_ltm"]["parameters"] - 1) < 0.01
    assert (whole / "lab" / "results.png").read_bytes().startswith(b"\x89PNG")


def test_metrics_say_what_memory_does(whole: Path) -> None:
    for arm in ("baseline", "with_ltm"):
        lines = read_metrics(whole / "lab" / "s1" / arm / "metrics.jsonl")
        last = lines[-1]
        assert last["LTM_enabled"] == (arm == "with_ltm")
        assert last["tokens_per_s"] > 0
        assert last["eta_s"] == 0
        assert ({"routed_token_ratio", "avg_surprisal_routed", "ltm_hit_rate"} <= set(last)) == (arm == "with_ltm")
    assert lines[0]["routed_token_ratio"] > 0.5  # an untrained model is surprised by everything
    seen = losses(whole, "with_ltm")
    assert list(seen) == list(range(1, STEPS + 1))
    assert seen[STEPS] < seen[1] - 0.3


def test_what_is_done_is_not_done_again(whole: Path) -> None:
    lines: list[str] = []
    before = {path: path.stat().st_mtime_ns for path in (whole / "lab" / "s1").rglob("*.safetensors")}
    run(lab(), whole, "prepare", "train", lines=lines)
    assert [line for line in lines if "trained already" in line] == [
        "baseline, seed 1: trained already",
        "with_ltm, seed 1: trained already",
    ]
    assert {path: path.stat().st_mtime_ns for path in (whole / "lab" / "s1").rglob("*.safetensors")} == before


def test_another_recipe_in_the_same_folder_is_refused(whole: Path) -> None:
    with pytest.raises(SwarmError, match=r"other settings .optimizer.lr is 0.003 there and 0.001 here"):
        run(lab(lr=0.001), whole, "train")


def kill_a_worker_of(root: Path, arm: str) -> tuple[threading.Thread, list[int]]:
    """Kill one worker as soon as the arm has saved a state that is not its last."""
    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and saved_step(root, arm) < STEPS:
            if saved_step(root, arm) >= 2:
                killed.extend(workers()[:1])
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)
                return
            time.sleep(0.002)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    return killer, killed


def test_a_training_whose_worker_is_killed_ends_bit_equal(whole: Path, tmp_path: Path) -> None:
    root = begin_like(whole, tmp_path / "killed")
    killer, killed = kill_a_worker_of(root, "with_ltm")
    run(lab(save_every=2), root, "train")
    killer.join()
    assert killed
    expected, found = weights(whole, "with_ltm"), weights(root, "with_ltm")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor) or tensor.isnan().any(), name
    assert losses(root, "with_ltm")[STEPS] == losses(whole, "with_ltm")[STEPS]


def test_two_workers_one_of_which_is_killed_learn_what_one_worker_learns(whole: Path, tmp_path: Path) -> None:
    root = begin_like(whole, tmp_path / "two")
    killer, killed = kill_a_worker_of(root, "with_ltm")
    run(lab({"workers": 2}, save_every=2), root, "train")
    killer.join()
    assert killed
    alone, together = losses(whole, "with_ltm"), losses(root, "with_ltm")
    for step, loss in alone.items():
        assert together[step] == pytest.approx(loss, abs=2e-3)


def test_a_damaged_newest_state_is_passed_over_and_said(whole: Path, tmp_path: Path) -> None:
    root = begin_like(whole, tmp_path / "damaged")
    place = root / "lab" / "s1" / "baseline"
    shutil.copytree(whole / "lab" / "s1" / "baseline", place)
    shutil.rmtree(place / "checkpoint")
    damage_newest_state(place / "states")
    run(lab(), root, "train")
    notices = (place / "metrics.jsonl").read_text()
    assert "is damaged" in notices
    assert "going back to the state before it" in notices
    for name, tensor in weights(whole, "baseline").items():
        assert torch.equal(weights(root, "baseline")[name], tensor), name


def test_a_loss_that_is_no_number_ends_the_training_and_keeps_the_last_good_state(whole: Path, tmp_path: Path) -> None:
    root = begin_like(whole, tmp_path / "diverged")
    with pytest.raises(SwarmError, match=r"baseline, seed 1: training diverged at step \d+ .*nan.*lower lr"):
        run(lab(lr=1e30, warmup=1, save_every=1), root, "train")
    assert saved_step(root, "baseline") >= 1
    assert not (root / "lab" / "s1" / "baseline" / "checkpoint").exists()


def test_arms_that_learn_in_different_ways_are_compared_in_one_table(tmp_path: Path) -> None:
    """All of it on small models: what is learned beside the next token, memories that are consolidated, the plot."""
    words = [f"The {one} sat on the {other} n{i}." for i, one in enumerate(WORDS) for other in WORDS]
    texts = [" ".join(words[start : start + 12]) for start in range(0, len(words), 12)]
    (tmp_path / "texts.txt").write_text("\n\n".join(texts))
    data = lab(steps=3, kind="muon").model_dump(mode="json") | {
        "with_ltm": False,
        "arms": {
            "next_token": {"recall_rows": 1},
            "all": {
                "recall_rows": 1, "infill_rows": 1, "practice_text": 0.5, "noise": 0.1, "longest": 16,
                "coherence": 0.1, "consistency": 0.1, "curriculum": "adaptive", "reader_lr": 2.0, "conditions": True,
            },
        },
        "model": {"size": "1m", "window": 64, "ltm": {"segment": 8, "capacity": 16, "slots": 8}},
        "train": {"span": 64},
        "eval": {
            "controls": ["no_reads"], "passages": 4,
            "policies": {"slots": {"slots": 16, "threshold_bits": 0.1, "consolidate": {}}},
        },
    }  # fmt: skip
    small, lines = LabConfig.model_validate(data), []
    run(small, tmp_path, lines=lines)
    table = json.loads((tmp_path / "lab" / "results.json").read_text())["arms"]
    assert set(table) == {"next_token", "all"}
    assert table["next_token"]["bits_per_byte"]["relative"]["estimate"] == 0.0
    assert set(table["all"]["memory"]) == {"no_reads", "slots"}
    assert table["all"]["memory"]["slots"]["consolidations"]["all"] > 0
    assert "both_sides_against_prefix" in table["all"]
    assert (tmp_path / "lab" / "results.png").stat().st_size > 1000
    assert any(line.startswith("all: ") for line in lines)
    lines.clear()
    run(small, tmp_path, "train", lines=lines)
    assert lines == ["next_token, seed 1: trained already", "all, seed 1: trained already"]
