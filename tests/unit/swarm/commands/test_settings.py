"""Every setting of every kind of file explains itself: on the terminal, on the reference page, in an editor."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from swarm.commands.settings import FILES, page, sections_of
from swarm.config.describe import SectionText, Setting, describe, json_schema
from swarm.config.document import read_document
from swarm.config.section import Section
from worlds.registry import available, world_class

ROOT = Path(__file__).parents[4]
MOST = 133
"""Settings of an experiment file, at most, those of learning included: one that is added lets another one go, and a
new kind of memory brings its own."""

FIRST_KEYS = {"agents": "experiment", "kind": "train", "corpus": "lab", "tasks": "mqar", "learn": "eval"}
"""Which kind of file a YAML file is, by a key at its top."""


def sections(file: str) -> list[SectionText]:
    return describe(*sections_of(file))


def settings(file: str) -> list[Setting]:
    return [one for section in sections(file) for one in section.settings]


def all_sections(of: type[Section] = Section) -> Iterator[type[Section]]:
    for section in of.__subclasses__():
        yield section
        yield from all_sections(section)


@pytest.fixture
def printed(swarm: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Return a function that gives the command: its exit code and what it printed."""
    return lambda *arguments: (swarm("settings", *arguments), "".join(capsys.readouterr()))


# What the sections say


@pytest.mark.parametrize("file", FILES)
def test_every_section_and_every_setting_is_explained(file: str) -> None:
    assert [section for section in sections(file) if not section.about.endswith((".", "?"))] == []
    assert [one.name for one in settings(file) if not one.meaning.endswith(".")] == []


def test_every_option_of_our_worlds_is_explained() -> None:
    ours = [world for world in map(world_class, available()) if world.__module__.startswith("worlds.")]
    options = [one for world in ours for section in describe(world.Options) for one in section.settings]
    assert len(options) > 20
    assert [one.name for one in options if not one.meaning.endswith(".")] == []


def test_a_section_lists_its_settings_nowhere_else() -> None:
    for file in FILES:
        sections_of(file)  # imports them
    ours = [section for section in all_sections() if section.__module__.startswith(("swarm.", "worlds."))]
    assert len(ours) > 40
    assert [section.__name__ for section in ours if "Attributes:" in (section.__doc__ or "")] == []


def test_an_experiment_has_no_more_settings_than_can_be_read_in_one_go() -> None:
    kept = [one for one in settings("experiment") if not one.is_section]
    assert 60 < len(kept) <= MOST
    # And so by name: what several kinds of engine have counts once, and again for the coordinator's engine.
    again = {one.name.replace("agents", "coordinator") for one in kept if one.name.startswith("agents.engine.")}
    assert len({one.name for one in kept} | again) <= MOST


# On the terminal


@pytest.mark.parametrize("file", FILES)
def test_the_command_prints_every_setting_within_eighty_columns(
    printed: Callable[..., tuple[int, str]], file: str
) -> None:
    code, text = printed(file)
    assert code == 0
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("\n  ") > 0
    for one in settings(file):
        key = one.name.rpartition(".")[2]
        assert f"  {key}: " in text
        assert one.meaning.split()[-1] in text


def test_no_name_is_an_experiment(printed: Callable[..., tuple[int, str]]) -> None:
    assert printed() == printed("experiment")


@pytest.mark.parametrize(
    ("name", "wanted", "unwanted"),
    [
        ("agents", ["agents.engine, kind: vllm", "  count: default 8; "], "budget"),
        ("agents.engine", ["  engine: required; ", "kind: echo"], "  count:"),
        ("agents.engine.openai", ["  url: required; text"], "vllm,"),
        ("agents.engine.num_gpus", ["agents.engine, kind: vllm\n  num_gpus: default 0; a number >= 0\n"], "url"),
        ("agents.memory", ["agents.memory[], kind: facts", "  shared: default true; "], "  count:"),
        ("budget.tokens", ["budget\n  tokens: default null; a whole number >= 1 or null\n"], "calls"),
        ("runtime", ["  device: default auto; one of auto, cpu, cuda, mps\n"], "agents.engine"),
        ("train.kind", ["  kind: required; one of policy, memory, reward, text, lora, symmetric\n"], "seed"),
        ("lab.train", ["  stride: default 64; a whole number >= 1\n"], "corpus"),
    ],
)
def test_a_section_or_a_setting_is_printed_alone(
    printed: Callable[..., tuple[int, str]], name: str, wanted: list[str], unwanted: str
) -> None:
    code, text = printed(name)
    assert code == 0
    assert [words for words in wanted if words not in text] == []
    assert unwanted not in text


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["agnets"], "error: no settings of the name 'agnets'; did you mean 'agents'?\n"),
        (
            ["agents.engine.vlm"],
            "error: no settings of the name 'agents.engine.vlm'; did you mean 'agents.engine.vllm'?",
        ),
        (["lab.trian"], "error: no settings of the name 'lab.trian'; did you mean 'lab.train'?\n"),
        (
            ["xyzzy"],
            "error: no settings of the name 'xyzzy'; there are: name, seed, episodes, concurrency, world, agents, ",
        ),
        (["trian", "--schema"], "error: no settings of the name 'trian'; did you mean 'train'?\n"),
    ],
)
def test_a_wrong_name_is_one_line_with_the_nearest(
    printed: Callable[..., tuple[int, str]], arguments: list[str], line: str
) -> None:
    code, text = printed(*arguments)
    assert code == 2
    assert text.startswith(line)
    assert text.count("\n") == 1


# On the reference page


def test_the_reference_page_is_current() -> None:
    written = (ROOT / "docs/reference/settings.md").read_text(encoding="utf-8")
    assert written == page(), "write it again: swarm settings --page > docs/reference/settings.md"


def test_the_page_has_a_row_for_every_setting(printed: Callable[..., tuple[int, str]]) -> None:
    code, text = printed("--page")
    assert code == 0
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) > sum(len(settings(file)) for file in FILES)
    assert "### split-numbers-v0" in text
    assert {row.replace("\\|", "").count("|") for row in rows} == {5}


# In an editor


def test_the_schema_accepts_every_shipped_file() -> None:
    checked = 0
    for path in sorted((ROOT / "experiments").glob("*.yaml")):
        data = read_document(path).data
        file = next((FIRST_KEYS[key] for key in FIRST_KEYS if key in data), "exact-match")
        jsonschema.validate(data, json_schema(*sections_of(file)))
        checked += 1
    assert checked > 15


@pytest.mark.parametrize(
    "engine",
    [
        {"model": "m"},
        {"kind": "ulm"},
        {"kind": "ulm", "model": "m", "url": "http://x"},
        {"kind": "vllm", "model": "m", "num_gpus": "two"},
        {"kind": "unheard-of"},
    ],
)
def test_the_schema_refuses_what_is_no_engine(printed: Callable[..., tuple[int, str]], engine: dict[str, Any]) -> None:
    code, text = printed("--schema")
    schema = json.loads(text)
    file = {"world": {"id": "graph-v0"}, "agents": {"engine": {"kind": "ulm", "model": "m"}}}
    jsonschema.validate(file, schema)
    assert code == 0
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**file, "agents": {"engine": engine}}, schema)
