"""Memories of other packages: they reach prompt and engine, survive kills, and fail in one line that names them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fakes.cuts import resume_from_cuts
from fakes.memory_policy import write_policy
from fakes.packages import install
from pydantic import ValidationError
from typer.testing import CliRunner

from swarm.agents.local_pool import LocalPool
from swarm.backends.protocol import MemoryReader, TextRequest
from swarm.backends.ulm import UlmModel
from swarm.cli import app
from swarm.config.experiment import AgentsConfig, ExperimentConfig
from swarm.messages import Handle
from swarm.record.change import Change
from swarm.record.journal import read_records
from swarm.run.runner import start_run
from swarm.view.replay import replay_run
from ulm.memory.exact import ExactIndex
from ulm.tokenizer import Tokenizer
from worlds.protocol import WorldError

GROUP = "ulm_swarm.memories"

SOURCE = '''
import json

from swarm.agents.memory import AgentMemory, MemoryReader
from swarm.config.memory import KeptSection
from swarm.messages import Handle
from swarm.record.change import Change
from ulm.memory.exact import ExactIndex


class DiarySection(KeptSection):
    kind: str = "diary"
    pages: int = 2


class Diary(AgentMemory[DiarySection]):
    """What the team did last, in every prompt; a page is torn out when an episode ends."""

    kind = "diary"
    Section = DiarySection

    def __init__(self, settings, place):
        super().__init__(settings, place)
        self.pages, self.torn = [], 0

    def lines(self, episode, agent):
        return [f"diary {page}" for page in self.pages[-self.settings.pages :]]

    def after_tick(self, record, result, updates):
        return {"wrote": [entry["agent"] for entry in record["agents"]]}

    def fold(self, record):
        if record["kind"] == "tick":
            self.pages.append(f"{record['tick']} " + " ".join(record["memory"]["diary"]["wrote"]))
        elif record["kind"] == "change" and record["memory"] == "diary":
            self.pages, self.torn = self.pages[1:], self.torn + 1
        elif record["kind"] == "episode_end":
            self.torn = 0

    def after_episode(self, ending, live):
        while self.torn < 2:
            yield Change("diary", None, "forget", str(len(self.pages)), str(len(self.pages) - 1))


class WhisperSection(KeptSection):
    kind: str = "whisper"


class WhisperReader(MemoryReader):
    def open(self, handle):
        index = ExactIndex()
        index.add(self.engine.tokenizer.encode(".\\n"), self.engine.tokenizer.encode(handle.content.decode() + "\\n"))
        return {"facts": index}

    def update(self, result):
        return str(result.generated_tokens).encode()


class Whisper(AgentMemory[WhisperSection]):
    """Tells the engine what to say: how many tokens the agent wrote last."""

    kind = "whisper"
    Section = WhisperSection
    Reader = WhisperReader

    def __init__(self, settings, place):
        super().__init__(settings, place)
        self.said, self.count = {}, 0

    def handle(self, episode, agent):
        if agent in self.said:
            return Handle("whisper", (agent, self.count), f"say {self.said[agent]}".encode())

    def after_tick(self, record, result, updates):
        return {agent: int(data) for agent, data in updates.items()}

    def fold(self, record):
        if record["kind"] == "tick":
            self.count += 1
            self.said |= record["memory"].get("whisper", {})
'''

Experiment = Callable[..., tuple[ExperimentConfig, Path]]


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of packages that Python finds."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for path in folder.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture
def toybox(packages: Path) -> None:
    install(packages, "toybox", SOURCE, {GROUP: {"diary": "toybox:Diary", "whisper": "toybox:Whisper"}})


@pytest.fixture
def make(experiment: Experiment, tmp_path: Path) -> Callable[[list[Any]], tuple[ExperimentConfig, Path]]:
    policy = write_policy(tmp_path / "policy", with_ltm=False)

    def made(memory: list[Any]) -> tuple[ExperimentConfig, Path]:
        return experiment(
            episodes=2,
            world={"id": "vault-v0", "options": {"rooms": 4, "pages": 2, "notes": 1, "sentences": 1}},
            coordinator={"kind": "none"},
            budget={"tokens": None, "ticks": 3},
            agents={
                "count": 2,
                "engine": {"kind": "ulm", "model": str(policy)},
                "memory": memory,
                "temperature": 0.0,
                "max_new_tokens": 8,
            },
        )

    return made


Make = Callable[[list[Any]], tuple[ExperimentConfig, Path]]
HF = {"kind": "transformers", "model": "m"}
DIARY: list[Any] = ["stm", {"kind": "diary", "pages": 1}]


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [record for record in read_records(folder / "journal.jsonl") if record["kind"] == kind]


def prompts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Write down what agents of local runs are asked from now on."""
    asked: list[str] = []
    real = LocalPool.act
    monkeypatch.setattr(LocalPool, "act", lambda self, r: (asked.extend(q.prompt for q in r), real(self, r))[1])
    return asked


@pytest.mark.usefixtures("toybox")
def test_a_memory_of_a_package_reaches_the_prompt_and_is_charged(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = prompts(monkeypatch)
    folder = start_run(*make(DIARY), tmp_path / "run").run_dir
    assert ["diary" in prompt for prompt in asked[:4]] == [False, False, True, True]
    assert asked[2].splitlines()[1] == "diary 0 a0 a1"
    bare = start_run(*make(["stm"]), tmp_path / "bare").run_dir
    costs = [[entry["prompt_tokens"] for entry in records(f, "tick")[1]["agents"]] for f in (folder, bare)]
    assert costs[0] > costs[1]
    config = next(iter(read_records(folder / "journal.jsonl")))["config"]["agents"]["memory"]
    assert config == [{"kind": "stm"}, {"kind": "diary", "span": "episode", "pages": 1}]
    shown = CliRunner().invoke(app, ["memory", "show", str(folder), "a0", "--kind", "diary"])
    assert shown.exit_code == 0, shown.output
    assert '{"wrote": ["a0", "a1"]}' in shown.output


@pytest.mark.usefixtures("toybox")
def test_what_a_memory_puts_on_record_is_plain_data_or_a_line_that_names_it(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failed at a7f87d3: TypeError: Object of type int64 is not JSON serializable, exit 70."""
    plain = start_run(*make(DIARY), tmp_path / "plain").run_dir
    diary = importlib.import_module("toybox").Diary
    real = diary.after_tick
    monkeypatch.setattr(diary, "after_tick", lambda *a: {"wrote": np.array(real(*a)["wrote"])})
    other = start_run(*make(DIARY), tmp_path / "numpy").run_dir
    assert [tick["memory"] for tick in records(other, "tick")] == [tick["memory"] for tick in records(plain, "tick")]
    monkeypatch.setattr(diary, "after_tick", lambda *a: {"wrote": float("nan")})
    with pytest.raises(WorldError, match=r"^memory diary: after_tick\(\) returned nan in 'wrote'$"):
        start_run(*make(DIARY), tmp_path / "nan")


@pytest.mark.usefixtures("toybox")
def test_a_memory_of_a_package_reaches_the_engine(make: Make, tmp_path: Path) -> None:
    folder = start_run(*make(["stm", "whisper"]), tmp_path / "run").run_dir
    ticks = records(folder, "tick")
    before = {entry["agent"]: entry["generated_tokens"] for entry in ticks[0]["agents"]}
    assert ticks[0]["memory"]["whisper"] == before
    assert {entry["agent"]: entry["action"] for entry in ticks[1]["agents"]} == {
        agent: f"say {count}" for agent, count in before.items()
    }


@pytest.mark.usefixtures("toybox")
@pytest.mark.parametrize("memory", [DIARY, ["stm", "whisper"]], ids=["diary", "whisper"])
def test_a_run_cut_off_after_any_record_is_resumed_with_what_was_kept(
    make: Make, tmp_path: Path, memory: list[Any]
) -> None:
    folder = start_run(*make(memory), tmp_path / "run").run_dir
    assert replay_run(folder, check=True).finished
    resume_from_cuts(folder)


@pytest.mark.usefixtures("toybox")
def test_what_changes_at_the_end_of_an_episode_is_on_record_before_its_end(make: Make, tmp_path: Path) -> None:
    folder = start_run(*make(DIARY), tmp_path / "run").run_dir
    kinds = [record["kind"] for record in read_records(folder / "journal.jsonl")]
    one = ["episode", "tick", "tick", "tick", "change", "change", "episode_end"]
    assert kinds == ["header", *one, *one, "end"]
    assert Change.from_record(records(folder, "change")[1]) == Change("diary", None, "forget", "2", "1")


class Both(MemoryReader):
    def open(self, handle: Handle) -> dict[str, Any]:
        return {"facts": ExactIndex()}


def test_two_memories_may_not_be_the_same_part_of_the_engine() -> None:
    engine: Any = SimpleNamespace(tokenizer=Tokenizer.bytes(), generate=lambda requests, deadline_s: [])
    model = UlmModel(engine, readers={kind: Both(None, engine) for kind in ("diary", "whisper")})
    held = tuple(Handle(kind, ("a0", 1), b"") for kind in ("diary", "whisper"))
    (result,) = model.generate([TextRequest("x", memories=held)])
    assert result.fault == "whisper and another memory both are the engine's `facts`; leave one out"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise RuntimeError('no disk')", r"package broken 1.0 \(broken:Memory\), which failed to load: RuntimeError"),
        ("Memory = dict", r"package broken 1.0 \(broken:Memory\), which is not a subclass of swarm.agents.memory"),
        ("", r"package broken 1.0 .* has no attribute 'Memory'"),
        (
            "from swarm.agents.memory import AgentMemory\nclass Memory(AgentMemory): kind = 'odd'",
            "'odd' comes from broken, whose Memory lacks Section",
        ),
        (
            "from swarm.agents.memory import Window\nclass Memory(Window): pass",
            "whose Memory has the kind 'stm'; make the two equal",
        ),
    ],
)
def test_a_broken_package_is_one_line_that_names_it(packages: Path, source: str, words: str) -> None:
    install(packages, "broken", source, {GROUP: {"odd": "broken:Memory"}})
    with pytest.raises(ValidationError, match=words):
        AgentsConfig.model_validate({"engine": {"kind": "echo"}, "memory": ["stm", "odd"]})


@pytest.mark.usefixtures("toybox")
def test_settings_of_a_package_are_checked_as_ours_are() -> None:
    with pytest.raises(ValidationError, match=r"memory\.1\.pages"):
        AgentsConfig.model_validate({"engine": {"kind": "echo"}, "memory": ["stm", {"kind": "diary", "pages": "all"}]})
    with pytest.raises(ValidationError, match="unknown key 'page'; did you mean 'pages'"):
        AgentsConfig.model_validate({"engine": {"kind": "echo"}, "memory": ["stm", {"kind": "diary", "page": 1}]})
    with pytest.raises(ValidationError, match="memory whisper needs engine 'ulm'"):
        AgentsConfig.model_validate({"engine": HF, "memory": ["stm", "whisper"]})
    assert AgentsConfig.model_validate({"engine": HF, "memory": DIARY}).memory[1].kind == "diary"
