"""`swarm check`: what a file would do, all that is missing at once, and nothing left behind."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from fakes.endpoint import Endpoint, lists
from fakes.tiny_lab import lab
from fakes.toy_run import toy_config, write_toy_run
from fakes.training import tiny_recipe, train_tokenizers_on_little

from swarm.check import Plan, check_file, kind_of
from swarm.check import measure as measuring
from swarm.config.document import read_document
from swarm.config.experiment import ExperimentConfig

ROOT = Path(__file__).parents[4]
SHIPPED = {
    "learn_scratch": "train",
    "engram": "eval",
    "exact_match": "exact-match",
    "memory": "lab",
    "memory_hub": "lab",
    "reconstruction": "lab",
    "mqar": "mqar",
}
"""Shipped files whose name does not tell their kind."""


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measuring, "PLAYED_S", 0.2)
    return tmp_path


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def checked(data: dict[str, Any], *overrides: str, name: str = "file.yaml") -> Plan:
    """Check a file of this content; nothing but that file may be there afterwards that was not there before."""
    Path(name).write_text(yaml.safe_dump(data))
    before = files(Path())
    plan = check_file(Path(name), overrides)
    assert files(Path()) == before
    return plan


def told(plan: Plan) -> dict[str, str]:
    return dict(reversed(plan.lines))  # of several lines of a name the first


def toy(**sections: Any) -> dict[str, Any]:
    """Return an experiment in which nobody directs."""
    data: dict[str, Any] = toy_config(coordinator={"kind": "none"}).model_dump(mode="json")
    return {**data, "runtime": {"pool": "local"}, **sections}


@pytest.mark.parametrize("file", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_shipped_file_is_known_for_what_it_is(file: Path) -> None:
    kind = SHIPPED.get(file.stem, "train" if file.stem.startswith("train_") else "experiment")
    assert kind_of(read_document(file).data) == kind


def test_an_experiment_says_what_it_may_use_and_how_long_it_takes_and_leaves_nothing_behind() -> None:
    """Failed at a7f87d3: there was no such command, and a run said nothing of it before it had begun."""
    plan = checked(toy(episodes=5, budget={"tokens": None, "ticks": 6, "calls": None}))
    assert plan.missing == []
    lines = told(plan)
    assert lines["at most"].startswith("an episode: 24 calls, 24 actions, 6 ticks")
    assert ("at most", "the run: 120 calls, 120 actions, 30 ticks") in plan.lines
    assert "toy-guess-v0; options valid" in lines["world"]
    assert "played just now in this process" in lines["time"]
    assert lines["time"].startswith("about ")
    assert lines["disk"].startswith("about ")
    assert "not possible: a comparison at equal compute needs `budget.tokens`" in lines["compare"]
    assert plan.command == "run"


def test_an_earlier_run_of_the_same_settings_is_what_the_time_rests_on(monkeypatch: pytest.MonkeyPatch) -> None:
    write_toy_run(Path("runs/toy-s7"), episodes=4, coordinator={"kind": "none"})
    monkeypatch.setattr("swarm.check.experiment.played", lambda *_: pytest.fail("played though it was known"))
    plan = checked(toy(episodes=400, seed=8))
    assert "as runs/toy-s7 went: 4 episodes in " in told(plan)["time"]
    assert measuring.earlier(toy_config(agents=3, coordinator={"kind": "none"}), Path("runs")) is None


def test_all_that_is_missing_is_listed_not_only_the_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Failed at a7f87d3: `swarm run` named the first thing, then the next one, and so on."""
    monkeypatch.setenv("ULM_SWARM_CACHE", str(tmp_path / "cache"))
    plan = checked(
        toy(
            agents={"count": 4, "engine": {"kind": "ulm", "model": "policies/gone"}},
            coordinator={"kind": "model", "engine": {"kind": "transformers", "model": "smollm2-135m", "adapter": "no"}},
            topology={"kind": "file", "path": "links.txt"},
            compare={"rivals": {"other": {"agents.engine.model": "policies/lost"}}, "arms": ["swarm", "other"]},
        )
    )
    for part in (
        "topology: ",
        "agents: no checkpoint at ",
        "coordinator: model smollm2-135m is not on this machine; get it with: swarm models fetch smollm2-135m",
        "coordinator: no PEFT adapter at ",
        "policies/lost",
    ):
        assert [line for line in plan.missing if part in line], part
    assert len(plan.missing) == len(set(plan.missing))
    assert "unknown: nothing was measured" in told(plan)["time"]


@pytest.mark.parametrize("key", [None, "secret"])
def test_an_endpoint_is_asked_and_its_key_looked_for(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    endpoint.models = lists("default")
    monkeypatch.delenv("TOY_KEY", raising=False)
    if key:
        monkeypatch.setenv("TOY_KEY", key)
    engine = {"kind": "openai", "model": "default", "url": endpoint.url, "key_env": "TOY_KEY"}
    plan = checked(toy(agents={"count": 2, "engine": engine}))
    if key is None:
        assert plan.missing == ["agents: the variable TOY_KEY with the key is not set: export TOY_KEY=..."]
    else:
        assert plan.missing == []
        assert told(plan)["time"].startswith("unknown: engines that answer from elsewhere are not asked")


def test_an_endpoint_that_nobody_serves_is_missing_whatever_else_is() -> None:
    engine = {"kind": "openai", "model": "default", "url": "http://127.0.0.1:9/v1"}
    (line,) = checked(toy(agents={"count": 2, "engine": engine})).missing
    assert "127.0.0.1:9" in line
    gone = {"count": 2, "engine": {"kind": "ulm", "model": "gone"}}
    first, second = checked(toy(agents=gone, coordinator={"kind": "model", "engine": engine})).missing
    assert "no checkpoint at" in first
    assert "127.0.0.1:9" in second


def test_a_model_is_told_with_its_size_and_where_it_is(
    experiment: Callable[..., tuple[ExperimentConfig, Path]], tiny_policy: Path
) -> None:
    _, file = experiment(compare={"arms": ["swarm", "solo"], "seeds": [1, 2], "episodes": 10})
    before = files(file.parent)
    plan = check_file(file)
    assert files(file.parent) == before
    assert plan.missing == []
    model = next(detail for what, detail in plan.lines if what == "model" and "parameters" in detail)
    assert f"in {tiny_policy}" in model
    assert "kB in files" in model
    assert told(plan)["compare"].startswith("2 arms x 2 seeds x 10 episodes = 40; at most 20,000 tokens")
    assert "of it for weights; this machine has" in told(plan)["memory use"]


def test_compare_says_how_many_runs_a_sweep_has() -> None:
    plan = checked(toy(compare={"arms": ["swarm"], "seeds": [1], "episodes": 3, "sweep": {"agents.count": [2, 4]}}))
    assert told(plan)["compare"].startswith("2 values of agents.count x 1 arms x 1 seeds x 3 episodes = 6")


RECIPE = tiny_recipe(optimizer={"steps": 600, "batch_size": 4})


@pytest.fixture
def little_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tokenizers be trained on little."""
    train_tokenizers_on_little(monkeypatch)


@pytest.mark.usefixtures("little_text")
def test_a_training_file_says_steps_memory_and_time() -> None:
    plan = checked(RECIPE)
    assert plan.missing == []
    assert told(plan)["training"] == "tiny, kind policy: 600 steps of 4 = 2,400 examples"
    assert "as steps went that were taken just now" in told(plan)["time"]
    assert plan.command == "train"


def test_a_training_that_goes_on_says_from_where_and_how_long_still() -> None:
    Path("runs/train-tiny").mkdir(parents=True)
    Path("runs/train-tiny/metrics.jsonl").write_text('{"step": 200, "tokens": 9, "loss": 1.0, "seconds": 20.0}\n')
    plan = checked(RECIPE)
    assert told(plan)["goes on"] == "from step 200; 400 are left"
    assert told(plan)["time"].startswith("about 40 s, as its first 200 steps went")


def test_all_that_a_training_lacks_is_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ULM_SWARM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "peft", None)
    monkeypatch.setattr("swarm.check.training.cores", lambda: 2)
    lora = {**RECIPE, "kind": "lora", "model": "smollm2-135m", "init": "policies/before", "task": "none-such"}
    plan = checked(lora, "place.workers=4")
    for part in ("none-such", "swarm models fetch smollm2-135m", "package peft", "policies/before", "4 workers need"):
        assert [line for line in plan.missing if part in line], part


def test_a_lab_says_trainings_corpus_and_time() -> None:
    Path("texts.txt").write_text("\n\n".join(f"text {i} of some words" for i in range(30)))
    plan = checked(lab(optimizer={"steps": 1000}).model_dump(mode="json"))
    assert plan.missing == []
    lines = told(plan)
    assert lines["trainings"] == "4, 0 of them done, in runs/lab-tiny"
    assert lines["corpus"].startswith("texts.txt: 1 file(s), ")
    assert lines["evaluation"].startswith("8 measurements")
    assert lines["time"].startswith("about ")


def test_a_lab_lists_every_text_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    data = lab().model_dump(mode="json")
    data["corpus"]["sources"] = [{"files": ["a.txt"]}, {"files": ["b.txt"]}]
    plan = checked(data)
    assert [name for name in ("a.txt", "b.txt") if any(name in line for line in plan.missing)] == ["a.txt", "b.txt"]


def test_mqar_counts_what_is_done_and_measures_the_rest() -> None:
    data = {
        "name": "small",
        "seeds": [1, 2],
        "tasks": {"plain": {"vocab_size": 64, "length": 40, "pairs": 6}},
        "model": {
            "n_layer": 1,
            "d_model": 16,
            "d_ff": 16,
            "head_size": 8,
            "window": 16,
            "ltm": {"layers": [0], "segment": 8},
        },
        "optimizer": {"steps": 100, "batch_size": 4},
        "device": "cpu",
    }
    plan = checked(data)
    assert plan.missing == []
    assert told(plan)["trainings"] == "0 of 4 done, in runs/mqar-small; on cpu"
    assert told(plan)["time"].startswith("about ")


def test_an_exact_match_file_says_how_many_questions_it_gives_and_which_tables_it_lacks() -> None:
    relation = {"value": "value", "train": ["what is {key}?"]}
    data = {"name": "q", "categories": {"made": {"generate": "pairs", "count": 10, "relations": {"r": relation}}}}
    plan = checked(data)
    assert plan.missing == []
    assert "in train.jsonl" in told(plan)["would write"]
    for name in ("one", "two"):
        data["categories"][name] = {"file": f"{name}.csv", "relations": {"r": relation}}  # type: ignore[index]
    missing = checked(data).missing
    assert [line.partition(":")[0] for line in missing] == ["categories.one.file", "categories.two.file"]


def test_an_evaluation_lists_every_file_that_it_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ULM_SWARM_CACHE", str(tmp_path / "cache"))
    data = {"name": "e", "model": "smollm2-135m", "facts": "facts.yaml", "text": {"file": "text.txt"}}
    plan = checked({**data, "faq": {"unanswerable": "odd.json"}}, "distraction.distances=[50]")
    for part in ("swarm models fetch", "facts.yaml", "text.txt", "odd.json"):
        assert [line for line in plan.missing if part in line], part


def test_the_command_ends_with_the_one_that_runs_the_file_or_with_2(
    swarm: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a file.yaml").write_text(json.dumps(toy()))
    assert swarm("check", "a file.yaml", "--set", "agents.count=3") == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-1].split(maxsplit=1) == ["ready", "swarm run 'a file.yaml' --set agents.count=3"]
    assert shown.err == ""
    assert swarm("check", "a file.yaml", "--set", "agents.engine.kind=ulm", "--set", "agents.engine.model=gone") == 2
    shown = capsys.readouterr()
    assert "ready" not in shown.out
    assert [line for line in shown.err.splitlines() if not line.startswith("error: ")] == []
    assert "no checkpoint at" in shown.err
    assert swarm("check", "a file.yaml", "--set", "agents.cuont=3") == 2
    assert "did you mean 'count'" in capsys.readouterr().err


def test_a_cluster_at_which_nobody_answers_is_missing() -> None:
    plan = checked(toy(runtime={"pool": "ray", "address": "127.0.0.1:9"}))
    assert [line.partition(":")[0] for line in plan.missing] == ["runtime.address"]


def test_a_model_of_the_hub_is_told_with_what_has_to_be_fetched_or_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fetched: a check writes nothing, and the hub may be slow."""
    monkeypatch.setattr("swarm.backends.models._from_cache", lambda name: None)
    monkeypatch.setattr("swarm.backends.models._snapshot", lambda *_, **__: pytest.fail("fetched"))
    files = [SimpleNamespace(rfilename="model.safetensors", size=5_000_000)]
    monkeypatch.setattr("huggingface_hub.model_info", lambda *_, **__: SimpleNamespace(siblings=files))
    data = toy(agents={"count": 2, "engine": {"kind": "transformers", "model": "owner/name"}})
    data["runtime"]["address"] = "auto"  # elsewhere; nothing is played then, for nothing was loaded
    assert told(checked(data))["model"] == "owner/name: not here; the run fetches 5.0 MB from the hub first"

    def refuses(*_: Any, **__: Any) -> None:
        raise OSError("no route")

    monkeypatch.setattr("huggingface_hub.model_info", refuses)
    (line,) = checked(data).missing
    assert line.startswith("agents: model 'owner/name' is not here, and the hub does not give it (no route)")
