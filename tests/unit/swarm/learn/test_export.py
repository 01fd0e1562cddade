"""What an agent learned leaves the run as a model of its own, which says where it came from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fakes.hf_models import tiny_model, tiny_tokenizer
from fakes.learned_run import LearnedPool, learned_config, scripted, write_learned_run

from swarm.agents.delta import delta_path
from swarm.backends.models import folder_hash
from swarm.config.section import logical_settings
from swarm.errors import SwarmError
from swarm.learn.accept import keep_delta
from swarm.learn.export import export_learned
from swarm.learn.undo import held, undo
from swarm.record.change import Change
from swarm.record.folder import write_folder
from swarm.record.journal import JournalWriter, read_records
from swarm.record.records import FORMAT
from ulm.checkpoint import checkpoint_hash, load_checkpoint
from ulm.delta import Delta
from ulm.hf.llama import from_llama
from ulm.train.delta import DeltaModel

IDS = torch.tensor([[5, 6, 7, 8, 9, 5]])


@pytest.fixture(autouse=True)
def _steps_are_taken_here() -> Iterator[None]:
    with scripted(LearnedPool()):
        yield


def test_a_checkpoint_computes_as_base_and_delta_do(tmp_path: Path) -> None:
    write_learned_run(tmp_path / "run")
    assert export_learned(tmp_path / "run", "a1", tmp_path / "a1", "the command") == "checkpoint"
    base, found = load_checkpoint(tmp_path / "policy"), load_checkpoint(tmp_path / "a1")
    version = held(tmp_path / "run").of("a1")
    delta = Delta.from_bytes(delta_path(tmp_path / "run" / "memory", version).read_bytes())
    assert torch.allclose(found.model(IDS), DeltaModel(base.model, delta)(IDS), atol=1e-5)
    assert not torch.allclose(found.model(IDS), base.model(IDS), atol=1e-3)
    learned = found.meta["learned"]
    assert found.meta["trained"] is False  # the base's own meta stays
    assert (learned["base_sha256"], learned["delta"]) == (checkpoint_hash(tmp_path / "policy"), version)
    *_, last = read_records(tmp_path / "run" / "journal.jsonl")
    assert (learned["journal"], learned["agent"], learned["command"]) == (last["hash"], "a1", "the command")
    assert [step["round"] for step in learned["changes"]] == [0, 1]
    assert learned["changes"][1]["parent"] == learned["changes"][0]["result"]


def test_what_was_undone_is_not_exported(tmp_path: Path) -> None:
    write_learned_run(tmp_path / "run")
    undo(tmp_path / "run", "a0")
    export_learned(tmp_path / "run", "a0", tmp_path / "a0", "")
    assert load_checkpoint(tmp_path / "a0").meta["learned"]["delta"] == held(tmp_path / "run").of("a0")
    undo(tmp_path / "run", "a0")
    with pytest.raises(SwarmError, match="a0 has learned nothing; there are: a1"):
        export_learned(tmp_path / "run", "a0", tmp_path / "again", "")


def test_a_team_needs_no_name_and_agents_do(tmp_path: Path) -> None:
    write_learned_run(tmp_path / "team", learner="team")
    export_learned(tmp_path / "team", None, tmp_path / "out", "")
    assert load_checkpoint(tmp_path / "out").meta["learned"]["agent"] == "team"
    write_learned_run(tmp_path / "run")
    with pytest.raises(SwarmError, match="name an agent: a0, a1"):
        export_learned(tmp_path / "run", None, tmp_path / "out", "")
    with pytest.raises(SwarmError, match="a7 has learned nothing; there are: a0, a1"):
        export_learned(tmp_path / "run", "a7", tmp_path / "out", "")


def test_another_base_and_a_damaged_delta_are_refused(tmp_path: Path) -> None:
    write_learned_run(tmp_path / "run")
    path = delta_path(tmp_path / "run" / "memory", held(tmp_path / "run").of("a0"))
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(SwarmError, match=r"the file of delta \w+ cannot be read: damaged delta"):
        export_learned(tmp_path / "run", "a0", tmp_path / "out", "")
    (tmp_path / "policy").rename(tmp_path / "gone")
    with pytest.raises(SwarmError, match="model policy is not here as it was when the run began"):
        export_learned(tmp_path / "run", "a0", tmp_path / "out", "")
    assert not (tmp_path / "out").exists()


def test_a_pretrained_base_gives_an_adapter_and_stays_where_it_is(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path / "llama")
    tiny_tokenizer().save_pretrained(tmp_path / "llama")
    base, _ = from_llama(tmp_path / "llama")
    delta = Delta.new(base, 2, 1, [5])
    delta = replace(delta, rows_EC=torch.ones(1, base.config.d_model))
    config = learned_config()
    agents = config.agents.model_copy(update={"engine": config.agents.engine.model_copy(update={"model": "llama"})})
    config = config.model_copy(update={"agents": agents})
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    manifest = {"base_dir": str(tmp_path), "source": str(tmp_path / "x.yaml")}
    write_folder(run_dir, config.model_dump(mode="json"), manifest)
    keep_delta(run_dir / "memory", delta)
    with JournalWriter(run_dir / "journal.jsonl", "group") as journal:
        hashes = {"llama": folder_hash(tmp_path / "llama")}
        journal.append({"kind": "header", "format": FORMAT, "config": logical_settings(config), "checkpoints": hashes})
        journal.append(Change("delta", "a0", "learn", "", delta.sha256, settings={"round": 0}).as_record())
    assert export_learned(run_dir, "a0", tmp_path / "out", "the command") == "adapter"
    learned = json.loads((tmp_path / "out" / "learned.json").read_text())
    assert (learned["base"], learned["base_sha256"], learned["delta"]) == ("llama", hashes["llama"], delta.sha256)
    adapter = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == str(tmp_path / "llama")
    assert adapter["trainable_token_indices"] == {"embed_tokens": [5]}
