"""Agents with a long-term memory: theirs alone, kept from call to call and through a kill, as long as was asked for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes.hosts import host_spec
from fakes.memory_policy import LTM, shared, versions_given, write_policy
from pydantic import ValidationError

from swarm.agents.host import Host
from swarm.agents.local_pool import LocalPool
from swarm.agents.ltm_files import MemoryStore
from swarm.config.experiment import AgentsConfig, ExperimentConfig
from swarm.config.section import logical_settings
from swarm.errors import SwarmError
from swarm.messages import ActReply, ActRequest, Handle
from swarm.record.journal import read_records
from swarm.run.experience import experience
from swarm.run.runner import RunOutcome, check_files, resume_run, start_run
from swarm.view.replay import replay_run
from ulm.config import LTMConfig
from ulm.memory.state import LTMState
from worlds.echo.world import EchoOptions, EchoWorld
from worlds.protocol import Info
from worlds.registry import register

pytestmark = pytest.mark.thorough

PAGES = [f"room {i} page {i} of 4 : note key{i} lamp . read first {i * i}\n" for i in range(5)]


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_policy(tmp_path_factory.mktemp("policies") / "remembers")


@pytest.fixture(scope="session")
def bare_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_policy(tmp_path_factory.mktemp("policies") / "forgets", with_ltm=False)


# ---- one host


def host(folder: Path, memory: Sequence[str] = ("stm", "ltm"), dtype: str = "float32") -> Host:
    agents = AgentsConfig.model_validate(
        {"engine": {"kind": "ulm", "model": "somewhere"}, "temperature": 1.0, "memory": memory}
    )
    spec = host_spec(agents, device="cpu", dtype=dtype, threads_per_host=1)
    return Host(spec, {"somewhere": shared(folder)})


def request(agent: str, tick: int, memory: bytes | None = None, pages: Sequence[str] = PAGES) -> ActRequest:
    held = () if memory is None else (Handle("ltm", (agent, tick), memory),)
    return ActRequest((0, tick, agent), pages[tick], 8, None, held)


def remembered(reply: ActReply) -> bytes | None:
    """What an agent's long-term memory holds after a call."""
    return dict(reply.updates).get("ltm")


def calls(here: Host, agent: str, company: Sequence[str] = (), count: int = 4) -> list[ActReply]:
    """Let an agent be asked several times, each time with what it remembered and among others."""
    memories: dict[str, bytes | None] = {}
    replies = []
    for tick in range(count):
        names = [*company[: len(company) // 2], agent, *company[len(company) // 2 :]]
        others = [f"{name} " + page for name, page in zip(names, PAGES * 3, strict=False)]
        batch = [
            request(name, tick, memories.get(name), PAGES if name == agent else [others[i]] * count)
            for i, name in enumerate(names)
        ]
        answered = here.act(batch)
        memories = {reply.key[2]: remembered(reply) for reply in answered}
        replies += [reply for reply in answered if reply.key[2] == agent]
    assert [reply.fault for reply in replies] == [None] * count
    return replies


def read(memory: bytes | None) -> LTMState:
    assert memory is not None
    return LTMState.from_bytes(memory, LTMConfig.from_dict(LTM))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_memory_has_seen_all_that_its_agent_read_and_grows_until_it_is_full(policy: Path, dtype: str) -> None:
    seen, tokens, counts = [], [], []
    for reply in calls(host(policy, dtype=dtype), "a0"):
        state = read(remembered(reply))
        seen.append(int(state.clock_B[0]))
        tokens.append(reply.prompt_tokens + reply.generated_tokens - 1)  # the last token is not read
        counts.append(int((state.position_BM >= 0).sum()))
    assert seen == [sum(tokens[: i + 1]) for i in range(len(tokens))]
    assert 0 < counts[0] < counts[-1] == LTM["capacity"]
    assert counts == sorted(counts)


def test_a_memory_depends_on_its_agents_own_calls_alone(policy: Path) -> None:
    alone = calls(host(policy), "a3")
    assert calls(host(policy), "a3", ["a0", "a1", "a2", "a4", "a5", "a6", "a7", "a8", "a9"]) == alone
    assert calls(host(policy), "a4")[-1].updates != alone[-1].updates  # other answers, so other memories


def test_what_an_agent_remembers_decides_what_it_says(policy: Path) -> None:
    last = request("a0", 4)
    fresh = host(policy).act([last])[0]
    remembering = host(policy).act([request("a0", 4, remembered(calls(host(policy), "a0")[-1]))])[0]
    assert remembering.text != fresh.text
    assert host(policy).act([last])[0] == fresh


def test_a_retried_call_gets_the_memory_of_the_first_one(policy: Path) -> None:
    here = host(policy)
    first = here.act([request("a0", 0)])
    assert here.act([request("a0", 0)]) == first
    assert remembered(first[0]) is not None


def test_a_memory_that_cannot_be_read_is_a_fault_of_its_agent_alone(policy: Path) -> None:
    replies = host(policy).act([request("a0", 0), request("a1", 0, b"damaged")])
    assert replies[0].fault is None
    assert remembered(replies[0]) is not None
    assert replies[1].fault is not None
    assert "memory ltm cannot be read: this is no memory of the model" in replies[1].fault
    assert replies[1].updates == ()


def test_with_the_window_alone_a_model_answers_as_if_it_had_never_had_a_memory(policy: Path, bare_policy: Path) -> None:
    requests = [request(f"a{i}", i) for i in range(5)]
    without = host(policy, ("stm",)).act(requests)
    assert without == host(bare_policy, ("stm",)).act(requests)
    assert [reply.updates for reply in without] == [()] * 5
    assert [reply.text for reply in host(policy).act(requests)] != [reply.text for reply in without]


def test_a_memory_asked_of_a_model_without_one_is_one_clear_line(vault: Experiment, bare_policy: Path) -> None:
    made = vault(agents={"engine": {"kind": "ulm", "model": str(bare_policy)}})
    with pytest.raises(SwarmError, match=r"agents.memory names ltm, but .* was trained without one") as error:
        check_files(*made)
    assert len(str(error.value).splitlines()) == 1


# ---- what a file may say

EXPERIMENT: dict[str, Any] = {"world": {"id": "echo-v0"}, "agents": {"engine": {"kind": "echo"}}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"agents": {"memory": []}}, "must name `stm`"),
        ({"agents": {"memory": ["ltm"]}}, "must name `stm`"),
        ({"agents": {"memory": ["stm", "ltm", "ltm"]}}, "other kinds once"),
        ({"agents": {"memory": ["stm", {"kind": "ltm", "span": "run"}]}, "concurrency": 2}, "set concurrency: 1"),
        ({"agents": {"memory": ["stm", {"kind": "stm", "span": "run"}]}}, "span"),
        (
            {"agents": {"memory": ["stm", {"kind": "ltm", "on_change": "re-embed"}]}},
            "needs span: run",
        ),
        ({"agents": {"memory": ["stm", "engram"]}}, "hashed n-gram tables, .* write facts"),
        ({"agents": {"memory": ["stm", "dreams"]}}, "no memory 'dreams'; There are stm, ltm, facts"),
        ({"agents": {"memory": ["stm", "fact"]}}, "did you mean 'facts'?"),
        ({"agents": {"memory": ["stm", {"shared": True}]}}, "a section with its `kind`"),
    ],
)
def test_memories_that_do_not_fit_are_refused(changes: dict[str, Any], words: str) -> None:
    agents = {**EXPERIMENT["agents"], **changes.pop("agents")}
    with pytest.raises(ValidationError, match=words):
        ExperimentConfig.model_validate({**EXPERIMENT, "agents": agents, **changes})


def test_names_and_sections_mean_the_same_and_are_written_out_in_full() -> None:
    made = [
        logical_settings(
            ExperimentConfig.model_validate({**EXPERIMENT, "agents": {**EXPERIMENT["agents"], "memory": memory}})
        )
        for memory in (["ltm", "stm"], [{"kind": "ltm", "span": "episode"}, {"kind": "stm"}])
    ]
    assert made[0] == made[1]
    ltm = {"kind": "ltm", "span": "episode", "on_change": "empty", "policy": {}, "consolidate": None}
    assert made[0]["agents"]["memory"] == [ltm, {"kind": "stm"}]
    assert json.loads(json.dumps(made[0])) == made[0]


# ---- whole runs


class KilledError(Exception):
    """Stands for SIGKILL: nothing of the run is tidied up."""


@register
class HurriedWorld(EchoWorld):
    """An episode ends before those that began before it."""

    id = "hurried-v0"

    def reset(self, seed: int, options: Mapping[str, Any] | None = None) -> tuple[dict[str, str], dict[str, Info]]:
        self.options = EchoOptions(max_steps=1 if (options or {}).get("episode", 0) >= 5 else 3)
        return super().reset(seed, options)


Experiment = Callable[..., tuple[ExperimentConfig, Path]]
VAULT = {"id": "vault-v0", "options": {"rooms": 4, "pages": 2, "notes": 1, "sentences": 1}}
BUDGET = {"tokens": None, "ticks": 3}
WHOLE_RUN = ["stm", {"kind": "ltm", "span": "run"}]


@pytest.fixture
def vault(experiment: Experiment, policy: Path) -> Experiment:
    """Agents that remember and talk noise, which the world takes for wrong actions."""

    def make(**sections: Any) -> tuple[ExperimentConfig, Path]:
        agents = {
            "count": 2,
            "engine": {"kind": "ulm", "model": str(policy)},
            "memory": ["stm", "ltm"],
            "max_new_tokens": 8,
            **sections.pop("agents", {}),
        }
        return experiment(
            **{"world": VAULT, "coordinator": {"kind": "none"}, "budget": BUDGET, **sections, "agents": agents}
        )

    return make


def play(made: tuple[ExperimentConfig, Path], folder: Path) -> RunOutcome:
    return start_run(*made, folder)


def kill_after(monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    """Let runs die in the model call that follows so many others."""
    real = LocalPool.act
    left = iter([True] * calls)

    def act(pool: LocalPool, requests: Sequence[ActRequest]) -> list[ActReply]:
        if not next(left, False):
            raise KilledError
        return real(pool, requests)

    monkeypatch.setattr(LocalPool, "act", act)


def killed(made: tuple[ExperimentConfig, Path], folder: Path, calls: int) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, calls)
        with pytest.raises(KilledError):
            play(made, folder)
    return folder


def journal(folder: Path) -> bytes:
    return (folder / "journal.jsonl").read_bytes()


def actions(folder: Path) -> list[Any]:
    records = [r for r in read_records(folder / "journal.jsonl") if r["kind"] == "tick"]
    return [[entry["action"] for entry in record["agents"]] for record in records]


@pytest.mark.parametrize(
    ("sections", "kills"),
    [
        ({"episodes": 2}, (1, 2, 3, 5)),
        ({"episodes": 2, "agents": {"memory": WHOLE_RUN}}, (2, 3, 4)),
        ({"episodes": 7, "concurrency": 6, "world": {"id": "hurried-v0"}}, (1, 2)),
    ],
    ids=["in turn", "handed on", "at once"],
)
def test_a_run_killed_anywhere_and_resumed_writes_the_same_journal(
    vault: Experiment, tmp_path: Path, sections: dict[str, Any], kills: tuple[int, ...]
) -> None:
    made = vault(**sections)
    whole = play(made, tmp_path / "whole")
    assert replay_run(whole.run_dir, check=True).finished
    assert whole.faults == 0
    for number in kills:
        folder = killed(made, tmp_path / f"killed-{number}", number)
        assert resume_run(folder).journal_hash == whole.journal_hash, f"killed after {number} calls"


def test_a_resumed_run_needs_the_memories_that_were_saved(
    vault: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = vault(episodes=1)
    whole = play(made, tmp_path / "whole")
    folder = killed(made, tmp_path / "killed", 2)
    shutil.copytree(folder, tmp_path / "robbed")
    monkeypatch.setattr(MemoryStore, "load", lambda self, episode, tick: {})
    assert resume_run(folder).journal_hash != whole.journal_hash  # the null control: nothing is remembered
    monkeypatch.undo()
    for file in (tmp_path / "robbed" / "memory").iterdir():
        file.unlink()
    with pytest.raises(SwarmError, match=r"e0-t1\.safetensors is missing or damaged .* agents would forget"):
        resume_run(tmp_path / "robbed")


def test_memories_written_for_a_tick_that_never_came_on_record_are_not_taken(vault: Experiment, tmp_path: Path) -> None:
    made = vault(episodes=1)
    whole = play(made, tmp_path / "whole")
    folder = killed(made, tmp_path / "killed", 2)
    lines = journal(folder).splitlines(keepends=True)
    (folder / "journal.jsonl").write_bytes(b"".join(lines[:-1]))  # killed between the memory and the record
    assert resume_run(folder).journal_hash == whole.journal_hash


def test_a_tick_comes_on_record_only_when_its_memories_are_safe(vault: Experiment, tmp_path: Path) -> None:
    made = vault(episodes=1)
    whole = play(made, tmp_path / "whole")
    real = MemoryStore.save

    def save(store: MemoryStore, episode: int, tick: int, memories: Mapping[str, bytes]) -> None:
        if tick == 1:
            raise KilledError
        real(store, episode, tick, memories)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryStore, "save", save)
        with pytest.raises(KilledError):
            play(made, tmp_path / "killed")
    assert len(actions(tmp_path / "killed")) == 1
    assert resume_run(tmp_path / "killed").journal_hash == whole.journal_hash


def test_memories_that_are_handed_on_must_be_there_between_episodes_too(vault: Experiment, tmp_path: Path) -> None:
    made = vault(episodes=2, agents={"memory": WHOLE_RUN})
    whole = play(made, tmp_path / "whole")
    lines = journal(whole.run_dir).splitlines(keepends=True)
    (closing,) = [i for i, line in enumerate(lines) if b'"kind":"episode_end"' in line and b'"episode":0' in line]
    for name, count in (("ended", closing + 1), ("begun", closing + 2)):
        folder = shutil.copytree(whole.run_dir, tmp_path / name)
        (folder / "journal.jsonl").write_bytes(b"".join(lines[:count]))
        robbed = shutil.copytree(folder, tmp_path / f"{name}-robbed")
        assert resume_run(folder).journal_hash == whole.journal_hash
        shutil.rmtree(robbed / "memory")
        with pytest.raises(SwarmError, match="agents would forget"):
            resume_run(robbed)


def test_memories_end_with_the_episode_unless_they_last_the_whole_run(vault: Experiment, tmp_path: Path) -> None:
    first_calls: dict[str, list[bytes | Path | None]] = {}
    for span in ("episode", "run"):
        made = vault(episodes=3, agents={"memory": ["stm", {"kind": "ltm", "span": span}]})
        with pytest.MonkeyPatch.context() as patch:
            given: dict[int, bytes | Path | None] = {}
            real = LocalPool.act

            def act(pool: LocalPool, requests: Sequence[ActRequest]) -> list[ActReply]:
                for asked in requests:
                    if asked.key[1:] == (0, "a0"):
                        held = {handle.kind: handle.content for handle in asked.memories}
                        given[asked.key[0]] = held.get("ltm")  # noqa: B023
                return real(pool, requests)  # noqa: B023

            patch.setattr(LocalPool, "act", act)
            run_dir = play(made, tmp_path / span).run_dir
        first_calls[span] = [given[episode] for episode in range(3)]
        store = MemoryStore(run_dir / "memory")
        assert list(store.episodes()) == [0, 1, 2]
        if span == "run":
            last = [store.load(episode, store.episodes()[episode][-1])["a0"] for episode in range(2)]
            assert first_calls[span] == [None, *last]
    assert first_calls["episode"] == [None, None, None]
    assert actions(tmp_path / "run") != actions(tmp_path / "episode")


def test_experience_names_the_version_that_each_call_was_given(
    vault: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = versions_given(monkeypatch)
    run_dir = play(vault(episodes=2, agents={"memory": WHOLE_RUN}), tmp_path / "run").run_dir
    assert {call.key: call.versions for call in experience(run_dir)} == given
    assert given[0, 0, "a0"] == {}
    assert given[1, 1, "a0"] == {"ltm": ("run/a0", 4)}


def test_a_run_without_long_term_memory_keeps_no_memories(vault: Experiment, tmp_path: Path) -> None:
    run_dir = play(vault(agents={"memory": ["stm"]}), tmp_path / "run").run_dir
    assert not (run_dir / "memory").exists()


def test_agents_that_only_draw_actions_may_be_said_to_have_a_memory(vault: Experiment, tmp_path: Path) -> None:
    run_dir = play(vault(agents={"engine": {"kind": "random"}}), tmp_path / "run").run_dir
    assert replay_run(run_dir, check=True).finished
