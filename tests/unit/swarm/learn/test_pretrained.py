"""Pretrained agents learn as ours do: from the very tokens that they read and wrote, in their chat format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes.hf_models import tiny_model, tiny_tokenizer
from fakes.learned_run import steps_here
from fakes.learning import learning_config, write_base

from swarm.backends.models import folder_hash
from swarm.config.experiment import ExperimentConfig
from swarm.errors import SwarmError
from swarm.learn import accept
from swarm.learn.accept import Outcome, StepTask
from swarm.learn.base import Manner, agents_base, open_base
from swarm.learn.export import export_learned
from swarm.learn.recompute import recompute
from swarm.record.journal import read_header, read_records
from swarm.run.experience import experience
from swarm.run.runner import start_run
from ulm.decode.engine import Engine

TEMPLATE = (
    "{% for message in messages %}{{ message.role[0] + ':' + message.content + '<eot>' }}{% endfor %}"
    "{% if add_generation_prompt %}a:{% endif %}"
)
CHAT = {"kind": "ulm", "model": "llama", "prompt": "chat"}


def write_llama(folder: Path, template: str | None = TEMPLATE) -> Path:
    """Write a tiny Llama of transformers whose weights are random, with a chat format."""
    tiny_model().save_pretrained(folder)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def config_of(*, constrained: bool = False, engine: dict[str, Any] = CHAT, **learning: Any) -> ExperimentConfig:
    made = learning_config(Path("llama"), learning={"test": {"tasks": 0.4, "kl": 50.0, "text": 9.0}} | learning)
    data = made.model_dump(mode="json")
    data["agents"] |= {"engine": engine, "constrained": constrained}
    return ExperimentConfig.model_validate(data)


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> list[StepTask]:
    """The learning steps of a run, which are taken in this process."""
    seen: list[StepTask] = []

    def take(some: Sequence[StepTask]) -> list[Outcome]:
        seen.extend(some)
        return steps_here(some)

    monkeypatch.setattr("swarm.learn.learner.run_steps", take)
    return seen


def test_a_run_learns_what_was_read_in_play_and_every_step_is_recomputed(
    tmp_path: Path, tasks: list[StepTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: set[tuple[int, ...]] = set()
    plain = Engine.generate

    def generate(self: Engine, requests: Any, deadline_s: float | None = None) -> Any:
        read.update(request.prompt for request in requests)
        return plain(self, requests, deadline_s)

    monkeypatch.setattr(Engine, "generate", generate)
    llama = write_llama(tmp_path / "llama")
    run = start_run(config_of(rehearse=0.2), tmp_path / "x.yaml", tmp_path / "run").run_dir
    first, second = (dict(r) for r in read_records(run / "journal.jsonl") if r["kind"] == "change")
    assert first["result"]
    assert second["parent"] == (first["result"] if first["accepted"] else "")
    parts = {part["name"]: part for part in first["tests"]}
    assert list(parts) == ["probe", "kl", "text", "tasks"]
    assert parts["probe"]["before"] == 1.0
    assert parts["probe"]["n"] >= 1
    assert parts["text"]["before"] > 0

    base = agents_base(tasks[0].config, tmp_path, tasks[0].base_sha256)
    assert base.sha256 == folder_hash(llama)
    encode = base.checkpoint.tokenizer.encode
    calls = list(experience(run))
    assert {tuple(encode(base.reads(call.prompt))) for call in calls} <= read
    learned = base.samples(tasks[0].samples)
    assert learned.kinds["hindsight"]
    for kind, some in learned.kinds.items():
        for sample, told in zip(some, tasks[0].samples.kinds[kind], strict=True):
            assert sample.prompt == base.reads(told.prompt)
            assert sample.prompt.startswith("s:You are one agent")
            assert encode(sample.completion) == [*encode(told.completion.removesuffix("\n")), 1]

    monkeypatch.setattr("swarm.learn.accept.ordinary.REHEARSED", 0)  # nobody computes anew what was kept
    header = read_header(run / "journal.jsonl")
    assert header is not None
    assert header["checkpoints"] == {"llama": base.sha256}
    assert recompute(run).equal == 2
    assert export_learned(run, "a0", tmp_path / "out", "") == "adapter"
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["peft_type"] == "LORA"


def test_an_answer_that_is_kept_to_a_pattern_ends_with_its_line(tmp_path: Path) -> None:
    sha256 = folder_hash(write_llama(tmp_path / "llama"))
    free, formed = (agents_base(config_of(constrained=one), tmp_path, sha256) for one in (False, True))
    assert (free.writes("1+2"), formed.writes("1+2")) == ("1+2<eot>", "1+2\n")
    assert free.checkpoint.model is formed.checkpoint.model  # read once
    assert free.writes("1<eot>+2") == "1+2<eot>"


def test_plain_prompts_are_learned_as_they_are(tmp_path: Path) -> None:
    sha256 = folder_hash(write_llama(tmp_path / "llama", None))
    base = agents_base(config_of(engine={"kind": "ulm", "model": "llama"}), tmp_path, sha256)
    assert (base.reads("tiles 1\n"), base.writes("1<eot>")) == ("tiles 1\n", "1<eot>\n")
    assert 1 not in base.checkpoint.tokenizer.encode("1<eot>\n")  # letters, not the end of a text
    with pytest.raises(SwarmError, match="model llama has no chat format"):
        open_base("llama", tmp_path, sha256, Manner("Be brief."))


def test_a_model_that_begins_with_thoughts_is_refused(tmp_path: Path) -> None:
    sha256 = folder_hash(write_llama(tmp_path / "llama", TEMPLATE.replace("a:{%", "a:<think>{%")))
    with pytest.raises(SwarmError, match="model llama thinks before it answers"):
        open_base("llama", tmp_path, sha256, Manner("Be brief."))


def test_a_base_without_lessons_and_chat_format_rehearses_nothing(tmp_path: Path, tasks: list[StepTask]) -> None:
    base = write_base(tmp_path / "base")
    config = learning_config(base, learning={"rehearse": 0.2})
    with pytest.raises(SwarmError, match=r"learning\.rehearse: the agents' model was taught no lessons"):
        start_run(config, tmp_path / "x.yaml", tmp_path / "run")


W = accept.Worth


@pytest.mark.parametrize(
    ("new", "share"),
    [
        ([W(True, 1.0), W(True, 0.0), W(False, 0.0), W(True, 0.0)], 1.0),
        ([W(True, 0.0), W(True, 0.0), W(False, 0.0), W(True, 0.0)], 0.75),
        ([W(True, 0.0), W(True, 0.0), W(True, 0.0), W(True, 0.0)], 1.0),
        ([W(True, 0.0), W(False, 0.0), W(False, 0.0), W(False, 0.0)], 0.25),
        ([W(True, 1.0), W(True, 1.0), W(True, 0.0), W(True, 1.0)], 1.0),
    ],
    ids=["alike", "worse", "one each", "all worse", "better"],
)
def test_a_probe_without_lessons_counts_answers_that_are_worse_less_those_that_are_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new: list[accept.Worth], share: float
) -> None:
    old = [W(True, 1.0), W(True, 0.0), W(False, 0.0), W(True, 0.0)]

    def answered(trial: accept.Trial, episodes: object) -> Any:
        found = {(episode, "a0"): worth for episode, worth in enumerate(new if trial.deltas else old)}
        return found | {(9, "a1"): W(not trial.deltas, 0.0)}, 7  # another agent's

    monkeypatch.setattr(accept.Trial, "first_answers", answered)
    accept._answers_of_base.cache_clear()
    base = open_base(str(write_base(tmp_path / "base")), tmp_path, "x", Manner()).checkpoint
    task = StepTask(config_of(), tmp_path, "x", tmp_path, "a0", "", None, 1, probe=dict.fromkeys(range(4), 0))  # type: ignore[arg-type]
    delta = accept.Delta.new(base.model, 1, 0)
    ((part,), tokens) = accept._probe(task, base, delta)
    assert (part["before"], part["after"], part["n"], tokens) == (1.0, share, 4, 14)
    assert part["passed"] == (share == 1.0)
