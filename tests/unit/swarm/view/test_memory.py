"""What an agent remembers, in words: the right ticks, texts and counts, and one line where there is nothing to show."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.memory_policy import LTM as SMALL
from fakes.memory_policy import two_who_talk_noise, write_policy

from swarm.agents.ltm_files import MemoryStore
from swarm.errors import SwarmError
from swarm.record.journal import read_records
from swarm.run.runner import start_run
from swarm.view.memory import view_memory
from ulm.config import LTMConfig
from ulm.memory.state import SHOWN_TOKENS, LTMState
from ulm.tokenizer import Tokenizer

LTM = {**SMALL, "capacity": 500}  # nothing is lost
TICKS = 4


def play(folder: Path, **agents: Any) -> Path:
    """Two episodes of two agents that talk noise."""
    policy = folder / "policy"
    if not policy.exists():
        write_policy(policy, **LTM)
    config = two_who_talk_noise(TICKS, **agents)
    return start_run(config, folder / "experiment.yaml", folder / f"run-{len(list(folder.iterdir()))}").run_dir


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("view")


@pytest.fixture(scope="module")
def run_dir(place: Path) -> Path:
    return play(place)


def calls(run_dir: Path, agent: str) -> list[tuple[int, int, int]]:
    """Episode, tick and tokens read of each call of an agent."""
    return [
        (record["episode"], record["tick"], entry["prompt_tokens"] + entry["generated_tokens"] - 1)
        for record in read_records(run_dir / "journal.jsonl")
        if record["kind"] == "tick"
        for entry in record["agents"]
        if entry["agent"] == agent
    ]


def stored(run_dir: Path, agent: str, episode: int) -> LTMState:
    store = MemoryStore(run_dir / "memory")
    memory = store.load(episode, store.episodes()[episode][-1])[agent]
    return LTMState.from_bytes(memory, LTMConfig.from_dict(LTM))


def test_every_item_is_shown_with_the_tick_at_which_its_token_was_read(run_dir: Path) -> None:
    for episode in (0, 1):
        view = view_memory(run_dir, "a1", episode)
        state = stored(run_dir, "a1", episode)
        read = [call for call in calls(run_dir, "a1") if call[0] == episode]
        assert int(state.clock_B[0]) == sum(tokens for *_, tokens in read)
        tick_of = [tick for _, tick, tokens in read for _ in range(tokens)]
        positions = sorted(p for p in state.position_BM[0].tolist() if p >= 0)
        assert [(item.episode, item.tick) for item in view.items] == [(episode, tick_of[p]) for p in positions]
        assert len({item.tick for item in view.items}) > 1
        assert (view.agent, view.episode, view.tick, view.capacity) == ("a1", episode, TICKS - 1, LTM["capacity"])


def test_an_item_shows_what_was_stored_and_the_words_before_it(run_dir: Path, place: Path) -> None:
    tokenizer = Tokenizer.load(place / "policy")
    first = next(record for record in read_records(run_dir / "journal.jsonl") if record["kind"] == "episode")
    read = tokenizer.encode(first["agents"][0]["observation"] + "\n")  # the first prompt of the agent
    state = stored(run_dir, "a0", 0)
    order = state.position_BM[0].argsort()
    order = order[state.position_BM[0][order] >= 0]
    view = view_memory(run_dir, "a0", 0)
    shown = dict(zip(state.position_BM[0][order].tolist(), view.items, strict=True))
    checked = 0
    for position, item in shown.items():
        if position < len(read):
            start = max(0, position + 1 - SHOWN_TOKENS)
            assert item.token == tokenizer.decode(read[position : position + 1])
            assert item.before == tokenizer.decode(read[start:position])
            checked += 1
    assert checked > 3
    assert [item.surprisal_bits for item in view.items] == state.surprisal_BM[0][order].tolist()
    assert [item.reads for item in view.items] == state.reads_BM[0][order].tolist()
    assert all(item.surprisal_bits > LTM["threshold_bits"] for item in view.items)
    assert any(item.reads for item in view.items)
    assert not all(item.reads for item in view.items)


def test_the_last_episode_is_shown_unless_another_is_asked_for(run_dir: Path) -> None:
    assert view_memory(run_dir, "a0") == view_memory(run_dir, "a0", 1) != view_memory(run_dir, "a0", 0)


def test_a_memory_of_the_whole_run_names_the_episode_of_each_item(place: Path) -> None:
    run_dir = play(place, memory=["stm", {"kind": "ltm", "span": "run"}])
    view = view_memory(run_dir, "a0")
    assert {item.episode for item in view.items} == {0, 1}
    when = [(item.episode, item.tick) for item in view.items]
    assert when == sorted(when)
    tick_of = [(episode, tick) for episode, tick, tokens in calls(run_dir, "a0") for _ in range(tokens)]
    assert int(stored(run_dir, "a0", 1).clock_B[0]) == len(tick_of)
    positions = sorted(p for p in stored(run_dir, "a0", 1).position_BM[0].tolist() if p >= 0)
    assert when == [tick_of[p] for p in positions]


# ---- nothing to show


@pytest.fixture
def copied(run_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run_dir, tmp_path / "run"))


def test_a_run_without_memories_says_how_to_get_some(copied: Path) -> None:
    shutil.rmtree(copied / "memory")
    with pytest.raises(SwarmError, match=r"holds no memories; run with agents.memory: \[stm, ltm\]"):
        view_memory(copied, "a0")


def test_an_unknown_agent_is_answered_with_those_there_are(run_dir: Path) -> None:
    with pytest.raises(SwarmError, match=r"agent 'a7' has no memory in episode 1; agents: a0, a1"):
        view_memory(run_dir, "a7")


def test_an_unknown_episode_is_answered_with_those_there_are(run_dir: Path) -> None:
    with pytest.raises(SwarmError, match=r"no memories of episode 5 in .*; there are: 0, 1"):
        view_memory(run_dir, "a0", 5)


def test_a_damaged_memory_file_is_one_line(copied: Path) -> None:
    path = copied / "memory" / f"e1-t{TICKS - 1}.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(SwarmError, match="is missing or damaged"):
        view_memory(copied, "a0")


@pytest.mark.parametrize("damage", ["gone", "other shape", "no memory"])
def test_a_checkpoint_that_no_longer_fits_is_one_line(copied: Path, tmp_path: Path, damage: str) -> None:
    if damage == "no memory":
        write_policy(tmp_path / "policy", with_ltm=False)
    elif damage == "other shape":
        write_policy(tmp_path / "policy", **LTM)
        config = json.loads((tmp_path / "policy" / "config.json").read_text())
        config["model"]["ltm"]["head_size"] = 16
        (tmp_path / "policy" / "config.json").write_text(json.dumps(config))
    manifest = json.loads((copied / "manifest.json").read_text())
    (copied / "manifest.json").write_text(json.dumps({**manifest, "base_dir": str(tmp_path)}))
    with pytest.raises(SwarmError, match="the memory of a0 cannot be read: ") as error:
        view_memory(copied, "a0")
    assert len(str(error.value).splitlines()) == 1


# ---- the command


@pytest.fixture
def show(
    swarm: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", "160")
        return swarm("memory", "show", *arguments), *capsys.readouterr()

    return call


Show = Callable[..., tuple[int, str, str]]


def rows(printed: str) -> list[tuple[int, float, int]]:
    """Tick, bits and reads of the printed rows."""
    cells = [line.replace("│", " ").split() for line in printed.splitlines() if line.startswith("│")]
    return [(int(cell[0]), float(cell[1]), int(cell[2])) for cell in cells]


@pytest.mark.parametrize(
    ("sort", "column", "falling"), [("time", 0, False), ("surprisal", 1, True), ("reads", 2, True)]
)
def test_the_command_sorts_as_asked(run_dir: Path, show: Show, sort: str, column: int, falling: bool) -> None:
    code, printed, _ = show(run_dir, "a0", "--sort", sort, "--limit", 500)
    assert code == 0
    values = [row[column] for row in rows(printed)]
    assert values == sorted(values, reverse=falling)
    assert len(set(values)) > 1


def test_the_command_shows_the_view_and_says_how_much_there_is(run_dir: Path, show: Show) -> None:
    view = view_memory(run_dir, "a0", 0)
    code, printed, _ = show(run_dir, "a0", "--episode", 0, "--limit", 3)
    assert code == 0
    assert [row[:1] + row[2:] for row in rows(printed)] == [(item.tick, item.reads) for item in view.items[:3]]
    assert f"a0 after tick {TICKS - 1} of episode 0" in printed
    read = sum(item.reads > 0 for item in view.items)
    assert f"{len(view.items)} of {LTM['capacity']} items, {read} were read; 3 shown" in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a0", "--sort", "size"), "unknown order 'size'; available: time, surprisal, reads"),
        (("a9",), "agent 'a9' has no memory"),
        (("a0", "--episode", 9), "no memories of episode 9"),
    ],
)
def test_the_command_answers_a_mistake_with_one_line(
    run_dir: Path, show: Show, arguments: tuple[object, ...], words: str
) -> None:
    code, _, error = show(run_dir, *arguments)
    assert code == 2
    assert error.startswith("error: ")
    assert words in error
    assert len(error.splitlines()) == 1


def test_a_folder_that_is_no_run_is_said_to_be_none(tmp_path: Path, show: Show) -> None:
    code, _, error = show(tmp_path, "a0")
    assert code == 2
    assert "is no run folder" in error
