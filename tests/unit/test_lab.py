"""The lab without Ray: what its file may say, what may be claimed of measurements, what stages reuse and refuse."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from swarm import lab_speed
from swarm.actors import lm_evaluator, lm_trainer
from swarm.actors.training_loop import METRICS, WARNINGS
from swarm.errors import SwarmError
from swarm.lab import run_lab, summary
from swarm.lab_config import HUB_SAMPLES, LabConfig, SourceConfig
from swarm.lab_plots import plot_results
from swarm.lab_results import lab_results
from swarm.training_progress import following, progress_lines
from ulm.checkpoint import save_checkpoint
from ulm.corpus import Corpus
from ulm.model import Decoder
from ulm.tokenizer import Tokenizer

PNG = b"\x89PNG\r\n\x1a\n"
CONTROLS = ("shuffled_values", "no_reads")
WINDOW, PAIRS = 128, 4


# ---- what the file may say


def lab(**sections: Any) -> LabConfig:
    """Return a small lab with sections changed."""
    data: dict[str, Any] = {
        "name": "tiny",
        "seeds": [1, 2],
        "with_ltm": True,
        "corpus": {"sources": [{"files": ["texts.txt"], "separator": "\n\n"}], "tokenizer": 320},
        "model": {"window": 16, "ltm": {"segment": 8, "capacity": 16}},
        "recall": {
            "rows": 1, "filler": " it was good", "num_keys": 8, "num_values": 8, "num_pairs": 2, "spacing": 8,
            "distances": [12, 20], "sequences": 2,
        },
        "train": {"batch_size": 4, "span": 32, "device": "cpu"},
        "eval": {"controls": ["no_reads"], "policies": {"by_use": {"eviction": "use"}}},
    }  # fmt: skip
    for name, value in sections.items():
        data[name] = {**data[name], **value} if isinstance(value, dict) else value
    return LabConfig.model_validate(data)


def test_the_arm_with_memory_is_off_unless_asked_for() -> None:
    assert LabConfig(name="x").arms == ("baseline",)
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
        ({"model": {"size": "3m"}}, "unknown model preset 'revena-3m'|unknown model preset 'gpt-3m'"),
        ({"model": {"window": 20}}, "segment 8 must divide the window 20"),
        ({"model": {"ltm": {"segment": 32}}}, "segment 32 must not exceed the window 16"),
        ({"model": {"ltm": {"eviction": "mood"}}}, "unknown eviction 'mood'"),
        ({"train": {"span": 40}}, "train.span 40 must be a multiple of the window 16"),
        ({"train": {"mode": "windows", "width": 8}}, "windows of 8 tokens are one segment of 8.*train.mode: documents"),
        ({"recall": {"rows": 4}}, "recall.rows 4 leave no row of 4 for the corpus"),
        ({"train": {"workers": 3}}, "batch_size 4 cannot be shared evenly by 3 workers x 1 micro-batches"),
        ({"train": {"workers": 2, "micro_batches": 4}}, "by 2 workers x 4 micro-batches"),
        ({"eval": {"policies": {"odd": {"capacity": 0}}}}, "eval.policies.odd: ltm: capacity"),
        ({"eval": {"policies": {"odd": {"size": 3}}}}, "eval.policies.odd: ltm: unknown keys size"),
        ({"eval": {"controls": ["magic"]}}, "shuffled_values"),
        ({"corpus": {"sources": [{"hub": "a", "files": ["b"]}]}}, "either `hub` .* or `files`"),
        ({"corpus": {"sources": [{}]}}, "either `hub` .* or `files`"),
        ({"corpus": {"val_share": 1.0}}, "less than 1"),
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


# ---- from measurements to claims

DOCUMENTS = 60
SIZES = np.random.default_rng(1).integers(50, 500, DOCUMENTS)
TEXT_SIZES = np.array([SIZES // 4, SIZES, SIZES])
FIRST_HALF = np.arange(DOCUMENTS) < DOCUMENTS // 2
SOURCES = {"stories": FIRST_HALF, "books": ~FIRST_HALF}
SPEED: dict[str, dict[str, list[float]]] = {
    "read": {"baseline": [200.0, 220.0, 210.0], "with_ltm": [100.0, 100.0, 105.0]},
    "train": {"baseline": [60.0, 60.0, 60.0], "with_ltm": [20.0, 30.0, 40.0]},
}


def measured(bits: dict[str, float], recall: dict[str, float], seed: int, written: int = 3) -> dict[str, Any]:
    """Return what an evaluation gives; by condition, bits per byte over the corpus and the share of pairs recalled."""
    hard = np.random.default_rng(0).normal(0, 0.3, DOCUMENTS)  # the same documents are hard for everybody
    generator = np.random.default_rng(seed)
    documents = {}
    for name, level in bits.items():
        rate = level + hard + generator.normal(0, 0.01, DOCUMENTS)
        documents[name] = {
            "nats": (rate * SIZES * np.log(2)).tolist(),
            "written": [written] * DOCUMENTS,
            "readings": [2 * written] * DOCUMENTS,
        }

    def scored(share: float) -> dict[str, list[int]]:
        return {"recalled": generator.binomial(PAIRS, share, 40).tolist(), "hits": [1] * 40, "written": [5] * 40}

    near = {name: scored(1.0) for name in recall}
    far = {name: scored(share) for name, share in recall.items()}
    further = {name: scored(share) for name, share in recall.items()}
    return {
        "documents": documents,
        "recall": {
            "quiet": {"64": near, "256": far, "1024": further},
            "text": {"64": {"none": near["none"]}},
        },
    }


def results(
    bits: float = -0.1,
    recall: float = 0.9,
    controls: dict[str, tuple[float, float]] | None = None,
    sizes: np.ndarray = TEXT_SIZES,
    sources: dict[str, np.ndarray] = SOURCES,
) -> dict[str, Any]:
    """Return results of three seeds: a change in bits per byte and recall of the arm with memory, and of controls."""
    controls = dict.fromkeys(CONTROLS, (0.0, 0.05)) if controls is None else controls
    changes = {"none": (bits, recall), **controls}
    arms = {
        "baseline": [measured({"none": 2.0}, {"none": 0.05}, seed, 0) for seed in (1, 2, 3)],
        "with_ltm": [
            measured({n: 2.0 + c for n, (c, _) in changes.items()}, {n: r for n, (_, r) in changes.items()}, 10 + seed)
            for seed in (1, 2, 3)
        ],
    }
    return lab_results(
        arms,
        sizes,
        sources,
        SPEED,
        seeds=(1, 2, 3),
        window=WINDOW,
        num_pairs=PAIRS,
        chance=0.01,
        parameters={"baseline": 1000, "with_ltm": 1001},
    )


def test_a_gain_that_every_control_loses_is_said_to_be_that_of_memory() -> None:
    verdict = results()["verdict"]
    assert verdict["compression"].startswith("bits per byte saved: +")
    assert verdict["compression"].endswith(", gone under every null control")
    assert verdict["recall"].startswith("long-range recall 0.9")
    assert verdict["recall"].endswith("without memory, gone under every null control")


def test_a_gain_that_a_control_keeps_is_not_said_to_be_caused_by_memory() -> None:
    verdict = results(controls={"shuffled_values": (-0.08, 0.8), "no_reads": (0.0, 0.05)})["verdict"]
    assert verdict["compression"].endswith("but not caused by memory: it survives shuffled_values")
    assert verdict["recall"].endswith("but not caused by memory: it survives shuffled_values")


def test_a_gain_that_random_writes_keep_is_that_of_memory_but_not_of_its_routing() -> None:
    controls = {"random_writes": (-0.08, 0.8), "no_reads": (0.0, 0.05)}
    verdict = results(controls=controls)["verdict"]
    words = (
        "but not caused by surprisal routing: it survives random_writes; gone under no_reads, so memory may be a cause"
    )
    assert verdict["compression"].endswith(words)
    assert verdict["recall"].endswith(words)
    both = {**controls, "shuffled_values": (-0.08, 0.8)}
    assert results(controls=both)["verdict"]["recall"].endswith("not caused by memory: it survives shuffled_values")
    alone = results(controls={"random_writes": (-0.08, 0.8)})["verdict"]["recall"]
    assert alone.endswith("but not caused by surprisal routing: it survives random_writes")


@pytest.mark.parametrize(("kept", "survives"), [(-0.02, False), (-0.08, True)])
def test_a_control_keeps_a_gain_if_it_keeps_half_of_it(kept: float, survives: bool) -> None:
    verdict = results(controls={"no_reads": (kept, 0.05)})["verdict"]
    assert ("it survives no_reads" in verdict["compression"]) == survives


def test_without_a_control_the_cause_of_a_gain_is_unknown() -> None:
    verdict = results(controls={})["verdict"]
    assert verdict["compression"].endswith("cause unknown: no null control was run")
    assert verdict["recall"].endswith("cause unknown: no null control was run")


@pytest.mark.parametrize("bits", [0.0, 0.1])
def test_no_saving_is_claimed_where_the_interval_holds_zero_or_more(bits: float) -> None:
    verdict = results(bits=bits, recall=0.05)["verdict"]
    assert verdict["compression"].startswith("no saving in bits per byte is proven: ")
    assert verdict["recall"].endswith("without memory: no gain is proven")


def test_other_write_rules_are_no_controls() -> None:
    found = results(controls={"policy:by_use": (-0.1, 0.9), "no_reads": (0.0, 0.05)})
    assert found["verdict"]["compression"].endswith("gone under every null control")
    assert list(found["with_ltm"]["controls"]) == ["no_reads"]
    assert list(found["with_ltm"]["policies"]) == ["by_use"]


def test_intervals_hold_the_truth_and_pairing_makes_them_narrow() -> None:
    found = results()
    change = found["comparison"]["with_ltm"]["bits_per_byte"]
    assert change["low"] < change["estimate"] < change["high"]
    assert change["low"] <= -0.1 <= change["high"]
    relative = found["comparison"]["with_ltm"]["relative"]
    base = found["baseline"]["details"]["bits_per_byte"]
    assert relative["estimate"] == pytest.approx(change["estimate"] / base["estimate"])
    assert len(found["comparison"]["with_ltm"]["relative_by_seed"]) == 3
    assert change["high"] - change["low"] < (base["high"] - base["low"]) / 5  # hard documents are hard for both
    assert set(found["comparison"]["no_reads"]["relative_by_source"]) == set(SOURCES)


def test_bits_per_byte_of_a_source_are_those_of_its_documents() -> None:
    details = results()["baseline"]["details"]
    by_source = details["bits_per_byte_by_source"]
    parts = [by_source[name]["estimate"] * SIZES[chosen].sum() for name, chosen in SOURCES.items()]
    assert sum(parts) / SIZES.sum() == pytest.approx(details["bits_per_byte"]["estimate"])
    assert by_source["stories"]["estimate"] != by_source["books"]["estimate"]
    assert np.mean(details["bits_per_byte_by_seed"]) == pytest.approx(details["bits_per_byte"]["estimate"])


def test_characters_and_bytes_are_told_apart() -> None:
    ascii_only = results()["baseline"]["details"]
    assert ascii_only["bpc"] == ascii_only["bits_per_byte"]
    accents = results(sizes=np.array([SIZES // 4, SIZES // 2, SIZES]))["baseline"]
    assert accents["details"]["bits_per_byte"] == ascii_only["bits_per_byte"]
    ratio = SIZES.sum() / (SIZES // 2).sum()
    assert accents["bpc"] == pytest.approx(ascii_only["bits_per_byte"]["estimate"] * ratio)
    assert accents["details"]["bits_per_token"]["estimate"] > 3 * accents["details"]["bits_per_byte"]["estimate"]


def test_long_range_recall_is_of_the_distances_beyond_the_window_alone() -> None:
    found = results()["baseline"]
    by_distance = found["details"]["recall_by_distance"]["quiet"]
    assert by_distance["64"]["estimate"] == 1.0
    far = (by_distance["256"]["estimate"] + by_distance["1024"]["estimate"]) / 2
    assert found["long_range_recall"] == pytest.approx(far)
    assert found["long_range_recall"] < 0.2
    assert found["details"]["sequences_per_distance"] == 40


def test_without_distances_beyond_the_window_nothing_is_said_of_recall() -> None:
    arms = {arm: [measured({"none": 2.0}, {"none": 0.5}, 1)] for arm in ("baseline", "with_ltm")}
    for per_seed in arms.values():
        for distance in ("256", "1024"):
            del per_seed[0]["recall"]["quiet"][distance]
    found = lab_results(
        arms, TEXT_SIZES, SOURCES, SPEED,
        seeds=(1,), window=WINDOW, num_pairs=PAIRS, chance=0.01, parameters=dict.fromkeys(arms, 1),
    )  # fmt: skip
    assert found["with_ltm"]["long_range_recall"] is None
    assert found["verdict"]["recall"] == "no distance beyond the window was scored"
    assert "no recall scored" in summary(found)[0]
    assert plot_results(found, WINDOW).startswith(PNG)


def test_the_baseline_alone_is_compared_with_nothing() -> None:
    found = lab_results(
        {"baseline": [measured({"none": 2.0}, {"none": 0.05}, 1)]}, TEXT_SIZES, SOURCES, SPEED,
        seeds=(1,), window=WINDOW, num_pairs=PAIRS, chance=0.01, parameters={"baseline": 1},
    )  # fmt: skip
    assert "verdict" not in found
    assert "comparison" not in found
    assert len(summary(found)) == 1
    assert plot_results(found, WINDOW).startswith(PNG)


def test_speed_is_a_ratio_round_by_round() -> None:
    found = results()
    assert found["baseline"]["tokens_per_sec"] == 210.0
    assert found["with_ltm"]["train_tokens_per_sec"] == 30.0
    assert found["baseline"]["details"]["tokens_per_sec"]["rounds"] == len(SPEED["read"]["baseline"])
    assert found["baseline"]["details"]["tokens_per_sec"]["low"] == min(SPEED["read"]["baseline"])
    assert found["comparison"]["read_time_ratio"] == {"estimate": 2.0, "low": 2.0, "high": 2.2, "rounds": 3}
    assert found["comparison"]["train_time_ratio"] == {"estimate": 2.0, "low": 1.5, "high": 3.0, "rounds": 3}


def test_hits_and_writes_are_shares_of_all_tokens() -> None:
    found = results()["with_ltm"]
    tokens = (SIZES // 4).sum()
    assert found["memory_hit_rate"] == pytest.approx(6 * DOCUMENTS / tokens)
    assert found["details"]["written_share"] == pytest.approx(3 * DOCUMENTS / tokens)
    assert found["n"] == {"documents": DOCUMENTS, "seeds": 3, "bytes": int(SIZES.sum())}


def test_results_are_plain_json_and_the_figure_shows_what_they_hold() -> None:
    found = results()
    assert json.loads(json.dumps(found)) == found
    found["meta"] = {"hit_rate_over_training": {"1": [(10, 0.1), (20, 0.3)], "2": [(10, 0.2), (20, 0.4)]}}
    first = plot_results(json.loads(json.dumps(found)), WINDOW)
    assert first.startswith(PNG)
    assert first == plot_results(found, WINDOW)
    assert first != plot_results(results(recall=0.3), WINDOW)


# ---- progress


def test_progress_names_step_loss_rate_and_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 110.0, 130.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    lines: list[str] = []
    report = progress_lines(1000, lines.append, "baseline, seed 1: ")
    for step in (100, 200, 400):
        report({"step": step, "loss": 2.34567})
    assert lines == [
        "baseline, seed 1: step 100/1000  loss 2.3457  0.0 steps/s  estimating",
        "baseline, seed 1: step 200/1000  loss 2.3457  10.0 steps/s  1.3 min left",
        "baseline, seed 1: step 400/1000  loss 2.3457  10.0 steps/s  1.0 min left",
    ]


def test_following_reports_whole_new_lines_alone(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "é": "é"}\n')
    seen: list[dict[str, Any]] = []
    arrived = threading.Event()

    def report(line: dict[str, Any]) -> None:
        seen.append(line)
        arrived.set()

    def append(text: str) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)

    with following(path, report, every_s=0.005):
        append('{"step": 2')  # a line that is being written
        assert not arrived.wait(0.05)
        append(', "é": "é"}\n')
        assert arrived.wait(5)
        arrived.clear()
        append('{"step": 3}\n')
        assert arrived.wait(5)
        threads = [thread for thread in threading.enumerate() if "follow" in thread.name]
        assert threads
    assert [line["step"] for line in seen] == [2, 3]
    assert not any(thread.is_alive() for thread in threads)


def test_following_waits_for_a_file_that_is_not_there_yet(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    arrived = threading.Event()
    with following(path, lambda line: arrived.set(), every_s=0.005):
        assert not arrived.wait(0.03)
        path.write_text('{"step": 1}\n')
        assert arrived.wait(5)


# ---- stages

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
        run_lab(config or lab(), self.beside, self.folder, stages, self.lines.append, lambda *_: nullcontext())
        return self.lines


@pytest.fixture
def run(beside: Path) -> Lab:
    return Lab(beside)


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Let trainings end at once with untrained weights; return what was trained."""
    done: list[tuple[str, int]] = []

    def train(config: LabConfig, arm: Any, seed: int, corpus: Corpus, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "recipe.json").write_text(json.dumps(lm_trainer._recipe(config, arm, seed, corpus)))
        (folder / METRICS).write_text('{"step": 1, "ltm_hit_rate": 0.25}\n{"step": 2, "ltm_hit_rate": 0.5}\n')
        if seed == 2:
            (folder / WARNINGS).write_text("a state was damaged\n")
        model = Decoder(config.model.config(arm, corpus.tokenizer.vocab_size), seed)
        save_checkpoint(folder / "checkpoint", model, corpus.tokenizer, {})
        done.append((arm, seed))

    monkeypatch.setattr(lm_trainer, "train_language_model", train)
    return done


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, str]]:
    """Let evaluations be made up, and speed too; return what was evaluated."""
    done: list[tuple[Path, str]] = []

    def evaluate(
        config: LabConfig,
        corpus: Corpus,
        wanted: Sequence[tuple[Path, str]],
        report: Callable[[int, dict[str, Any]], None],
    ) -> None:
        sizes = corpus.sizes("val")
        for index, (checkpoint, condition) in enumerate(wanted):
            nothing = [0] * sizes.shape[1]
            scores = {"recalled": [1, 2], "hits": [0, 0], "written": [1, 1]}
            report(
                index,
                {
                    "documents": {"nats": (2.0 * sizes[2]).tolist(), "written": nothing, "readings": nothing},
                    "recall": {"quiet": {str(d): scores for d in config.recall.distances}, "text": {}},
                },
            )
            done.append((checkpoint, condition))

    monkeypatch.setattr(lm_evaluator, "evaluate_all", evaluate)
    monkeypatch.setattr(
        lab_speed,
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
    with pytest.raises(SwarmError, match=r"prepare: .* was prepared from another recipe; choose another folder"):
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
        run("prepare", "train", config=lab(recall={"num_keys": 200, "num_values": 200}))


def test_a_distance_at_which_queries_fall_on_pairs_is_refused(run: Lab) -> None:
    with pytest.raises(SwarmError, match=r"recall.distances: at 8 queries would fall on pairs, which stand 8 apart"):
        run("prepare", config=lab(recall={"distances": [12, 8]}))


def test_damaged_data_is_found_when_it_is_opened(run: Lab) -> None:
    run("prepare")
    path = run.folder / "data" / "train.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(SwarmError, match=r"train\.bin is missing or damaged; .* prepare it again"):
        run("plot")


def test_every_arm_is_trained_once_per_seed_and_warnings_are_passed_on(
    run: Lab, no_training: list[tuple[str, int]]
) -> None:
    lines = run("train", "prepare")
    assert no_training == [("baseline", 1), ("with_ltm", 1), ("baseline", 2), ("with_ltm", 2)]
    assert lines.count("warning: a state was damaged") == 2
    assert any("parameters, checkpoint in" in line for line in lines)
    assert run("train") == [f"{arm}, seed {seed}: trained already" for arm, seed in no_training]
    assert len(no_training) == 4
    with pytest.raises(SwarmError, match="was trained with another recipe"):
        run("train", config=lab(train={"lr": 0.9}))
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
