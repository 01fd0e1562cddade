"""A long-term memory once its agent has learned: emptied, or written anew by the new weights from what was read."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from fakes.hosts import host_spec
from fakes.learned_run import steps_here
from fakes.learning import learning_config
from fakes.memory_policy import shared, write_policy

from swarm.agents.delta import delta_path
from swarm.agents.host import Host
from swarm.agents.local_pool import LocalPool
from swarm.agents.ltm import KEPT_TEXTS, LongTermMemory, LtmSection
from swarm.agents.memory import Place
from swarm.config.experiment import AgentsConfig
from swarm.learn.accept import keep_delta
from swarm.messages import ActReply, ActRequest, Handle
from swarm.record.change import Change
from swarm.record.journal import read_records
from swarm.run.runner import resume_run, start_run
from swarm.seeds import derive_seed
from ulm.checkpoint import load_checkpoint
from ulm.decode.engine import Engine, GenerationRequest, GenerationResult
from ulm.delta import Delta
from ulm.memory.state import LTMState

PAGES = [f"room {i} page {i} of 4 : note key{i} lamp . read first {i * i}\n" for i in range(4)]
LASTING = {"kind": "ltm", "span": "run", "on_change": "re-embed"}


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_policy(tmp_path_factory.mktemp("policies") / "remembers")


@pytest.fixture(scope="module")
def host(policy: Path) -> Host:
    agents = AgentsConfig.model_validate(
        {
            "engine": {"kind": "ulm", "model": "somewhere"},
            "temperature": 1.0,
            "memory": ["stm", "delta", LASTING],
            "max_new_tokens": 6,
        }
    )
    return Host(host_spec(agents, device="cpu", dtype="float32", threads_per_host=1), {"somewhere": shared(policy)})


@pytest.fixture(scope="module")
def learned(policy: Path) -> Delta:
    """A delta that changes what is written and read."""
    model = load_checkpoint(policy).model
    delta = Delta.new(model, 2, 5)
    generator = torch.Generator().manual_seed(6)
    factors = {name: (a, torch.randn(b.shape, generator=generator) * 0.2) for name, (a, b) in delta.factors.items()}
    return Delta(factors, delta.ids_E, delta.rows_EC)


class Agent:
    """One agent whose calls are made as the tick loop makes them."""

    def __init__(self, host: Host, folder: Path, **settings: Any) -> None:
        self.host, self.folder = host, folder
        self.ltm = LongTermMemory(LtmSection.model_validate(LASTING | settings), Place(folder))
        self.delta: tuple[Handle, ...] = ()
        self.tick = 0

    def reads(self, page: str) -> ActReply:
        handle = self.ltm.handle(0, "a0")
        memories = (*self.delta, *([handle] if handle else []))
        self.ltm.asked(0, "a0", page)
        (reply,) = self.host.act([ActRequest((0, self.tick, "a0"), page, 6, None, memories)])
        assert reply.fault is None
        record: Any = {
            "kind": "tick", "episode": 0, "tick": self.tick, "memory": {},
            "agents": [{"agent": "a0", "action": reply.text}],
        }  # fmt: skip
        self.ltm.after_tick(record, cast("Any", None), {"a0": dict(reply.updates)["ltm"]})
        self.ltm.save(0, self.tick)
        self.ltm.fold(record)
        self.tick += 1
        return reply

    def learns(self, delta: Delta) -> None:
        name = keep_delta(self.folder, delta)
        self.delta = (Handle("delta", (name, 0), delta_path(self.folder, name)),)
        self.ltm.fold(Change("delta", "a0", "learn", "", name).as_record())

    def resumed(self) -> Agent:
        """Return the agent as a resumed run has it."""
        again = Agent(self.host, self.folder)
        again.ltm._calls, again.ltm._last = self.ltm._calls, self.ltm._last  # what follows from the journal
        again.ltm._outdated, again.delta, again.tick = self.ltm._outdated, self.delta, self.tick
        again.ltm.load()
        return again


def fresh(policy: Path, delta: Delta, texts: Sequence[str], last: str, seed: int) -> tuple[GenerationResult, int]:
    """Return the last call of an agent whose memory is written by the new weights from the start, and tokens before."""
    checkpoint = load_checkpoint(policy)
    engine = Engine(delta.applied(checkpoint.model), checkpoint.tokenizer, pack=False)
    memory, tokens = None, 0
    for text in texts:
        (result,) = engine.generate([GenerationRequest(text, 0, 1, 0.0, memory=memory)])
        memory, tokens = result.memory, tokens + result.prompt_tokens
    return engine.generate([GenerationRequest(last, seed, 6, 1.0, stop=("\n",), memory=memory)])[0], tokens


def test_what_was_read_is_remembered_as_the_new_weights_write_it(
    policy: Path, host: Host, learned: Delta, tmp_path: Path
) -> None:
    agent, config = Agent(host, tmp_path), load_checkpoint(policy).model.config.ltm
    assert config is not None
    said = [agent.reads(page) for page in PAGES]
    texts = [page + reply.text for page, reply in zip(PAGES, said, strict=True)]
    agent.learns(learned)
    reply = agent.reads("ask next\n")
    seed = derive_seed(7, "act", 0, len(PAGES), "a0")
    wanted, tokens = fresh(policy, learned, texts, "ask next\n", seed)
    empty, _ = fresh(policy, learned, [], "ask next\n", seed)
    assert wanted.memory is not None
    held = LTMState.from_bytes(agent.ltm._held["run"]["a0"], config)
    assert torch.equal(held.position_BM, wanted.memory.position_BM)
    assert torch.allclose(held.keys_BMX, wanted.memory.keys_BMX, atol=1e-4)
    assert torch.allclose(held.values_BMX, wanted.memory.values_BMX, atol=1e-4)
    assert reply.text == wanted.text != empty.text  # what it remembers decides what it says
    assert reply.prompt_tokens == wanted.prompt_tokens + tokens  # what is read again is charged, once
    assert agent.ltm.version(0, "a0") == ("run/a0", 6)
    assert agent.reads("ask next\n").prompt_tokens == wanted.prompt_tokens


def test_without_the_setting_it_is_empty(host: Host, learned: Delta, tmp_path: Path) -> None:
    agent = Agent(host, tmp_path, on_change="empty")
    agent.reads(PAGES[0])
    agent.learns(learned)
    assert agent.ltm.handle(0, "a0") is None
    assert not agent.ltm._texts


def test_a_resumed_run_writes_the_same(host: Host, learned: Delta, tmp_path: Path) -> None:
    agent = Agent(host, tmp_path / "one")
    for page in PAGES:
        agent.reads(page)
    agent.learns(learned)
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    handle, again = agent.ltm.handle(0, "a0"), agent.resumed()
    assert handle is not None
    assert again.ltm.handle(0, "a0") == handle
    assert handle.version == ("run/a0/texts", 5)


def test_the_last_texts_are_kept(tmp_path: Path) -> None:
    ltm = LongTermMemory(LtmSection.model_validate(LASTING), Place(tmp_path))
    for tick in range(KEPT_TEXTS + 3):
        ltm.asked(0, "a0", f"page {tick}\n")
        record: Any = {"kind": "tick", "episode": 0, "tick": tick, "agents": [{"agent": "a0", "action": "go"}]}
        ltm.after_tick(record, cast("Any", None), {"a0": b"memory"})
    assert len(ltm._texts["run"]["a0"]) == KEPT_TEXTS
    assert ltm._texts["run"]["a0"][-1] == f"page {KEPT_TEXTS + 2}\ngo"


class KilledError(Exception):
    """Stands for SIGKILL: nothing of the run is tidied up."""


def kill_after(monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    """Let runs die in the model call that follows so many others."""
    real, left = LocalPool.act, iter([True] * calls)

    def act(pool: LocalPool, requests: Sequence[ActRequest]) -> list[ActReply]:
        if not next(left, False):
            raise KilledError
        return real(pool, requests)

    monkeypatch.setattr(LocalPool, "act", act)


def test_a_run_that_learns_and_is_killed_reads_again_what_an_undisturbed_one_does(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents = {
        "count": 1,
        "engine": {"kind": "ulm", "model": str(policy)},
        "memory": ["stm", "delta", LASTING],
        "temperature": 1.0,
        "max_new_tokens": 4,
    }
    # What is imitated are relabelled random attempts; the acceptance test plays with a memory of its own.
    learning = {"every": 4, "steps": 1, "test": {"on": False, "probe": 0, "tasks": 0.3}}
    config = learning_config(policy, learning=learning, agents=agents, concurrency=1, budget={"ticks": 1})
    monkeypatch.setattr("swarm.learn.learner.run_steps", steps_here)
    whole = start_run(config, tmp_path / "x.yaml", tmp_path / "whole")
    ticks = [r for r in read_records(whole.run_dir / "journal.jsonl") if r["kind"] == "tick"]
    read = [tick["agents"][0]["prompt_tokens"] for tick in ticks]
    assert read[4] > 2 * max(read[:4])  # the first call after the learning step reads all before it again
    assert max(read[5:]) < read[4]
    for calls in (4, 5):
        with pytest.MonkeyPatch.context() as patch:
            kill_after(patch, calls)
            with pytest.raises(KilledError):
                start_run(config, tmp_path / "x.yaml", tmp_path / f"killed-{calls}")
        assert resume_run(tmp_path / f"killed-{calls}").journal_hash == whole.journal_hash
