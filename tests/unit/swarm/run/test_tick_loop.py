import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

from swarm.agents.host import Host
from swarm.backends.protocol import TextModel, TextRequest, TextResult
from swarm.config.experiment import ExperimentConfig
from swarm.coordinator.kinds import BriefedCoordinator
from swarm.coordinator.protocol import Setup
from swarm.errors import SwarmError
from swarm.messages import ActReply, ActRequest, DirectReply, DirectRequest
from swarm.record.journal import JournalWriter, read_records
from swarm.run.runner import resume_run, start_run
from swarm.view.replay import replay_run
from worlds.numbers.world import NumbersWorld
from worlds.split_numbers.playbook import SplitNumbersPlaybook
from worlds.split_numbers.world import SplitNumbersWorld

Experiment = Callable[..., tuple[ExperimentConfig, Path]]


def ticks(run_dir: Path) -> list[dict[str, Any]]:
    return [record for record in read_records(run_dir / "journal.jsonl") if record["kind"] == "tick"]


def run(experiment: Experiment, tmp_path: Path, name: str = "run", **sections: Any) -> Path:
    config, path = experiment(**sections)
    return start_run(config, path, tmp_path / name).run_dir


def scripted(monkeypatch: pytest.MonkeyPatch, act: Callable[[ActRequest], ActReply]) -> None:
    """Let every agent call be answered by `act`."""

    class Scripted(Host):
        def act(self, requests: Sequence[ActRequest]) -> list[ActReply]:
            return [act(request) for request in requests]

    monkeypatch.setattr("swarm.agents.local_pool.Host", Scripted)


def test_same_seed_gives_the_same_journal_and_another_seed_another(experiment: Experiment, tmp_path: Path) -> None:
    first, second = (run(experiment, tmp_path, name).joinpath("journal.jsonl").read_bytes() for name in "ab")
    assert first == second
    assert run(experiment, tmp_path, "c", seed=12).joinpath("journal.jsonl").read_bytes() != first


def test_replay_accepts_what_the_runtime_wrote(experiment: Experiment, tmp_path: Path) -> None:
    assert replay_run(run(experiment, tmp_path), check=True).finished


@pytest.mark.parametrize("concurrency", [1, 2, 5])
def test_concurrency_changes_no_episode(experiment: Experiment, tmp_path: Path, concurrency: int) -> None:
    def by_episode(run_dir: Path) -> dict[int, list[Any]]:
        found: dict[int, list[Any]] = {}
        for record in ticks(run_dir):
            found.setdefault(record["episode"], []).append({k: record[k] for k in ("agents", "directives", "spent")})
        return found

    alone = run(experiment, tmp_path, "alone", episodes=5, budget={"tokens": 300})
    shared = run(experiment, tmp_path, "shared", episodes=5, budget={"tokens": 300}, concurrency=concurrency)
    assert by_episode(alone) == by_episode(shared)


def test_resume_from_every_line_gives_the_same_journal(experiment: Experiment, tmp_path: Path) -> None:
    run_dir = run(
        experiment,
        tmp_path,
        episodes=3,
        concurrency=2,
        budget={"tokens": 250},
        coordinator={"shuffled": True},
    )
    journal = run_dir / "journal.jsonl"
    whole = journal.read_bytes()
    lines = whole.splitlines(keepends=True)
    for cut in range(len(lines)):
        journal.write_bytes(b"".join(lines[:cut]) + lines[cut][: len(lines[cut]) // 2])
        outcome = resume_run(run_dir)
        assert journal.read_bytes() == whole, f"cut after line {cut}"
        assert outcome.reason == "finished"


class _Choosy:
    """A coordinator's model that chooses the first of a menu, or nothing where that is odd."""

    max_length = 1000

    def count_prompts(self, requests: Sequence[TextRequest]) -> list[int]:
        return [5 for _ in requests]

    def generate(self, requests: Sequence[TextRequest], deadline_s: float | None = None) -> list[TextResult]:
        menus = [request.prompt.split("make ")[1].split() for request in requests]
        return [TextResult("-" if int(menu[0]) % 2 else menu[0], 5, 2, "stop") for menu in menus]


def test_what_a_coordinator_declined_is_on_record_and_not_offered_again(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _Choosy()

    class Posting(Host):
        def act(self, requests: Sequence[ActRequest]) -> list[ActReply]:
            replies = []
            for request in requests:
                tiles = request.prompt.split("half ")[1].split(" target")[0].split()
                form = ("{}+{}+{}", "{}*{}+{}", "{}+{}*{}", "{}*{}*{}", "{}-{}+{}")[request.key[1] % 5]
                replies.append(ActReply(request.key, form.format(*tiles), 4, 3))
            return replies

        def direct(self, requests: Sequence[DirectRequest]) -> list[DirectReply]:
            section = self.spec.config.coordinator
            setup = Setup(section, self.count_tokens, SplitNumbersPlaybook(), cast("TextModel", model))
            return BriefedCoordinator(setup).direct(requests)

    monkeypatch.setattr("swarm.agents.local_pool.Host", Posting)
    run_dir = run(experiment, tmp_path, episodes=1, budget={"tokens": 400})
    journal = run_dir / "journal.jsonl"
    whole = journal.read_bytes()
    minds = [record["coordinator"] for record in ticks(run_dir)]
    passed = [text for mind in minds for _, texts in mind.get("declined", []) for text in texts]
    assert len(passed) > 5
    assert len(passed) == len(set(passed))  # what was declined is not offered, so it cannot be again
    assert replay_run(run_dir, check=True).finished
    lines = whole.splitlines(keepends=True)
    for cut in range(2, len(lines), 2):
        journal.write_bytes(b"".join(lines[:cut]))
        resume_run(run_dir)
        assert journal.read_bytes() == whole, f"cut after line {cut}"


def test_unsolved_episode_uses_its_budget_and_overshoots_by_less_than_one_call(
    experiment: Experiment, tmp_path: Path
) -> None:
    run_dir = run(experiment, tmp_path, budget={"tokens": 700})
    for record in read_records(run_dir / "journal.jsonl"):
        if record["kind"] == "episode_end" and not record["solved"]:
            assert 700 <= record["tokens"] < 700 + 60


def test_time_slicing_worker_plays_one_agent_per_tick(experiment: Experiment, tmp_path: Path) -> None:
    run_dir = run(experiment, tmp_path, agents={"turns": "one_at_a_time"})
    acting = [[entry["agent"] for entry in record["agents"]] for record in ticks(run_dir) if record["episode"] == 0]
    assert acting[:5] == [["a0"], ["a1"], ["a2"], ["a3"], ["a0"]]


def test_a_model_that_raises_is_a_fault_and_the_run_goes_on(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(request: ActRequest) -> ActReply:
        if request.key[2] == "a1":
            return ActReply(request.key, "", 0, 0, "model raised ValueError: no")
        return ActReply(request.key, "1", 5, 5)

    scripted(monkeypatch, act)
    run_dir = run(experiment, tmp_path, episodes=1, budget={"ticks": 4, "tokens": None}, faults={"max_faults": 50})
    faulty = [entry for record in ticks(run_dir) for entry in record["agents"] if "fault" in entry]
    assert len(faulty) == 4
    assert {entry["agent"] for entry in faulty} == {"a1"}
    assert replay_run(run_dir, check=True).finished  # it recounts the faults


def test_what_the_world_answers_inline_is_charged_and_on_record(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[ActRequest] = []

    def act(request: ActRequest) -> ActReply:
        seen.append(request)
        spans = ((4, 6),) if request.key[2] == "a1" else ()
        return ActReply(request.key, "3*7=21", 8, 4, inlined=spans)

    scripted(monkeypatch, act)
    run_dir = run(experiment, tmp_path, episodes=1, agents={"inline": True}, budget={"ticks": 3, "tokens": None})
    assert all(request.observation and request.prompt.startswith(request.observation) for request in seen)
    entries = [entry for record in ticks(run_dir) for entry in record["agents"]]
    assert [entry.get("inlined") for entry in entries if entry["agent"] == "a1"] == [[(4, 6)]] * 3
    assert not any("inlined" in entry for entry in entries if entry["agent"] != "a1")
    assert ticks(run_dir)[-1]["spent"]["tokens"] >= 12 * len(entries)
    assert replay_run(run_dir, check=True).finished


def test_a_world_sees_nothing_of_inline_answers_that_nobody_asked_for(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[ActRequest] = []

    def act(request: ActRequest) -> ActReply:
        seen.append(request)
        return ActReply(request.key, "1", 5, 5)

    scripted(monkeypatch, act)
    run(experiment, tmp_path, episodes=1, budget={"ticks": 2, "tokens": None})
    assert {request.observation for request in seen} == {None}


def test_too_many_faults_stop_the_run_with_a_non_zero_exit(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, lambda request: ActReply(request.key, "", 0, 0, "model raised ValueError: no"))
    config, path = experiment(faults={"max_faults": 3})
    outcome = start_run(config, path, tmp_path / "run")
    assert outcome.reason == "faults"
    assert outcome.exit_code == 1


def test_a_hung_model_call_is_cut_at_its_timeout_and_recorded(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(request: ActRequest) -> ActReply:
        if request.key[1] == 1:
            time.sleep(4)
        return ActReply(request.key, "1", 5, 5)

    scripted(monkeypatch, act)
    start = time.monotonic()
    run_dir = run(experiment, tmp_path, episodes=1, budget={"ticks": 3, "tokens": None}, faults={"call_timeout_s": 0.1})
    assert time.monotonic() - start < 3.5
    assert [["fault" in entry for entry in record["agents"]] for record in ticks(run_dir)] == [
        [False] * 4,
        [True] * 4,
        [False] * 4,
    ]


def test_a_world_that_raises_ends_its_episode_as_a_fault(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = SplitNumbersWorld.step

    def step(self: SplitNumbersWorld, actions: Any) -> Any:
        if self.attempts >= 8:
            raise RuntimeError("boom")
        return real(self, actions)

    monkeypatch.setattr(SplitNumbersWorld, "step", step)
    run_dir = run(experiment, tmp_path)
    reasons = [r["reason"] for r in read_records(run_dir / "journal.jsonl") if r["kind"] == "episode_end"]
    assert reasons == ["world fault: world split-numbers-v0: step raised RuntimeError: boom"] * 2
    (end,) = [r for r in read_records(run_dir / "journal.jsonl") if r["kind"] == "end"]
    assert end["faults"] == 2
    assert end["reason"] == "finished"
    closings = [r for r in read_records(run_dir / "journal.jsonl") if r["kind"] == "episode_end"]
    assert all(r["unrecorded"]["tokens"] > 0 and r["unrecorded"]["calls"] > 0 for r in closings)
    played = {tick["episode"]: tick["spent"] for tick in ticks(run_dir)}
    for r in closings:  # the calls of the step that raised are charged, too
        assert r["tokens"] == played[r["episode"]]["tokens"] + r["unrecorded"]["tokens"]
        assert r["calls"] == played[r["episode"]]["calls"] + r["unrecorded"]["calls"]
    assert end["tokens"] == sum(r["tokens"] for r in closings)
    monkeypatch.undo()
    assert replay_run(run_dir, check=True).finished


def test_a_world_that_returns_garbage_is_a_fault(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SplitNumbersWorld, "step", lambda self, actions: ({}, {}, {}, {}, {}))
    run_dir = run(experiment, tmp_path)
    reasons = [r["reason"] for r in read_records(run_dir / "journal.jsonl") if r["kind"] == "episode_end"]
    assert all(reason.startswith("world fault") for reason in reasons)


def test_an_agent_rests_after_too_many_illegal_actions(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, lambda request: ActReply(request.key, "nonsense", 5, 5))
    run_dir = run(experiment, tmp_path, episodes=1, budget={"ticks": 9, "tokens": None})
    assert [len(record["agents"]) for record in ticks(run_dir)] == [4, 4, 4, 0, 4, 4, 4, 0, 4]
    assert replay_run(run_dir, check=True).finished


def test_neighbours_reports_are_heard(experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts: dict[tuple[int, int, str], str] = {}

    def act(request: ActRequest) -> ActReply:
        prompts[request.key] = request.prompt
        return ActReply(request.key, "1", 5, 5)

    scripted(monkeypatch, act)
    run(experiment, tmp_path, episodes=1, topology={"kind": "ring"}, budget={"ticks": 1, "tokens": None})
    lines = prompts[0, 0, "a0"].splitlines()
    assert [line.split(" ", 2)[:2] for line in lines[1:]] == [["heard", "half"], ["heard", "half"]]


def test_history_shows_an_agent_its_own_last_attempts(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts: dict[tuple[int, int, str], str] = {}

    def act(request: ActRequest) -> ActReply:
        prompts[request.key] = request.prompt
        return ActReply(request.key, f"attempt{request.key[1]}", 5, 5)

    scripted(monkeypatch, act)
    run(
        experiment,
        tmp_path,
        episodes=1,
        agents={"history": 1},
        coordinator={"kind": "none"},
        budget={"ticks": 3, "tokens": None},
    )
    assert [line.split()[0] for line in prompts[0, 2, "a0"].splitlines()[1:]] == ["attempt1"]


def test_no_topology_cuts_the_coordinator_off(experiment: Experiment, tmp_path: Path) -> None:
    run_dir = run(experiment, tmp_path, topology={"kind": "none"})
    assert all(record["coordinator"] is None and not record["directives"] for record in ticks(run_dir))


def test_random_policy_is_charged_like_a_model(experiment: Experiment, tmp_path: Path) -> None:
    run_dir = run(experiment, tmp_path, agents={"engine": {"kind": "random"}})
    for record in ticks(run_dir):
        for entry in record["agents"]:
            assert entry["prompt_tokens"] > 5
            assert entry["generated_tokens"] > 1
            assert entry["valid"]


def test_wall_time_ends_a_run_and_is_marked(experiment: Experiment, tmp_path: Path) -> None:
    config, path = experiment(
        budget={"tokens": None, "ticks": 100_000, "wall_time_s": 0.3}, agents={"engine": {"kind": "random"}}
    )
    outcome = start_run(config, path, tmp_path / "run")
    assert outcome.reason == "wall_time"


def test_a_damaged_or_missing_checkpoint_leaves_no_run_folder(experiment: Experiment, tmp_path: Path) -> None:
    config, path = experiment(agents={"engine": {"kind": "ulm", "model": "policies/nowhere"}})
    with pytest.raises(SwarmError, match="nowhere"):
        start_run(config, path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_changed_checkpoint_refuses_to_resume(experiment: Experiment, tmp_path: Path) -> None:
    run_dir = run(experiment, tmp_path)
    journal = run_dir / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    first = json.loads(lines[0])
    path = next(iter(first["checkpoints"]))
    first["checkpoints"][path] = "0" * 64
    journal.unlink()
    with JournalWriter(journal) as writer:
        writer.append({k: first[k] for k in ("kind", "format", "config", "checkpoints")})
    with pytest.raises(SwarmError, match="changed since the run began"):
        resume_run(run_dir)


def test_the_same_command_goes_on_with_an_unfinished_run_and_reports_a_finished_one(
    experiment: Experiment, tmp_path: Path
) -> None:
    config, path = experiment()
    whole = start_run(config, path, tmp_path / "run")
    journal = tmp_path / "run" / "journal.jsonl"
    raw = journal.read_bytes()
    elsewhere = config.model_copy(update={"runtime": config.runtime.model_copy(update={"durability": "group"})})
    for cut in (0, 1, 4):
        journal.write_bytes(b"".join(raw.splitlines(keepends=True)[:cut]) + b'{"hash":"torn')
        outcome = start_run(elsewhere, path, tmp_path / "run")
        assert (outcome.played, outcome.journal_hash, journal.read_bytes()) == (True, whole.journal_hash, raw)
    announced: list[Path] = []
    again = start_run(config, path, tmp_path / "run", announced.append)
    assert (again.played, again.journal_hash, announced) == (False, whole.journal_hash, [])


def test_a_run_of_another_experiment_is_named_by_the_first_setting_that_differs(
    experiment: Experiment, tmp_path: Path
) -> None:
    run(experiment, tmp_path)
    before = (tmp_path / "run" / "journal.jsonl").read_bytes()
    config, path = experiment(agents={"temperature": 0.2}, seed=12)
    with pytest.raises(SwarmError, match=r"other settings \(agents.temperature is 0.7 there and 0.2 here\)"):
        start_run(config, path, tmp_path / "run")
    assert (tmp_path / "run" / "journal.jsonl").read_bytes() == before


def test_a_folder_that_holds_something_else_is_refused_and_left_alone(experiment: Experiment, tmp_path: Path) -> None:
    config, path = experiment()
    before = path.read_bytes()
    with pytest.raises(SwarmError, match=r"holds no run but .*experiment.yaml.*--out"):
        start_run(config, path, path.parent)
    assert path.read_bytes() == before
    assert not (path.parent / "journal.jsonl").exists()


def test_runs_that_start_together_get_folders_of_their_own(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, path = experiment(agents={"engine": {"kind": "echo"}})
    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(lambda _: start_run(config, path, None), range(8)))
    assert len({outcome.run_dir for outcome in outcomes}) == 8


def test_puzzle_files_are_found_beside_the_experiment(experiment: Experiment, tmp_path: Path) -> None:
    (tmp_path / "puzzles.csv").write_text("numbers,target\n1 2 3,6\n2 3 4,24\n")
    run_dir = run(
        experiment,
        tmp_path,
        world={"id": "numbers-v0", "options": {"file": "puzzles.csv", "target_column": "target"}},
        coordinator={"kind": "none"},
    )
    goals = [r["goal"] for r in read_records(run_dir / "journal.jsonl") if r["kind"] == "episode"]
    assert goals == ["target 6", "target 24"]
    assert NumbersWorld.id == "numbers-v0"


def test_after_the_first_tick_agents_without_a_directive_rest_in_turn(experiment: Experiment, tmp_path: Path) -> None:
    agents = {"count": 8, "engine": {"kind": "random"}, "min_active": 3}
    budget = {"ticks": 6, "tokens": 99_999}
    silent = run(
        experiment,
        tmp_path,
        "silent",
        agents=agents,
        coordinator={"kind": "none"},
        budget=budget,
    )
    acted = [[entry["agent"] for entry in tick["agents"]] for tick in ticks(silent)]
    assert len(acted) > 3
    for names, tick in zip(acted, ticks(silent), strict=True):
        assert len(names) == (8 if tick["tick"] == 0 else 3)
        assert names == sorted(names)
    assert {name for names in acted[1:4] for name in names} == {f"a{i}" for i in range(8)}

    directed = run(
        experiment,
        tmp_path,
        "directed",
        agents=agents,
        coordinator={"kind": "rules"},
        budget=budget,
    )
    counts = set()
    for tick in ticks(directed):
        names = {entry["agent"] for entry in tick["agents"]}
        assert set(dict(tick["directives"])) <= names  # nobody who was told to do something rests
        assert len(names) >= 3
        counts.add(len(names))
    assert max(counts) > 3
    assert replay_run(directed, check=True).finished
