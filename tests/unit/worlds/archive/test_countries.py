"""Countries from a file: pages say what is so there, rules read them, and what is no such file is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from worlds import WorldError, make
from worlds.archive.countries import Countries, parse_countries
from worlds.archive.grammar import mentions, parse_note, read_page, read_question
from worlds.archive.world import read_by_rules

ROWS = [
    ("AAA", "Arvenia", ["Port Ost"], {"ARV": {"name": "mark"}}, {"arv": "Arven"}, "West", 9.0, ["BBB", "CCC"]),
    ("BBB", "Bastor", ["Bastor"], {"BAS": {"name": "bast"}}, {"bas": "Bast", "arv": "Arvenian"}, "West", 4.0, ["AAA"]),
    ("CCC", "Côte Grise", ["Port Ost"], {"ARV": {"name": "mark"}}, {"gri": "Gris"}, "West", 2.0, ["AAA", "DDD"]),
    ("DDD", "Dunholm", ["East", "West"], [], {}, "", 1.0, ["CCC"]),
    ("EEE", "Elmia", [], {"ELM": {"name": "elm"}}, {"elm": "Elmic"}, "North", 7.0, []),
]  # fmt: skip


def row(code: str, name: str, capital: Any, currencies: Any, languages: Any, subregion: str, area: float, borders: Any):
    about = {"capital": capital, "currencies": currencies, "languages": languages, "subregion": subregion}
    return {"name": {"common": name}, "cca3": code, "area": area, "borders": borders, **about}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "countries.json"
    path.write_text(json.dumps([row(*one) for one in ROWS]), "utf-8")
    return path


def countries(file: Path, seed: int = 0, count: int = 5, wordings: str = "both") -> Countries:
    return Countries(random.Random(seed), parse_countries(file, file.read_text("utf-8")), count, wordings)


def test_a_country_has_what_is_one_in_the_file(file: Path) -> None:
    made = countries(file)
    named = {(thing.type, thing.name): thing for thing in made.things}
    ends = {
        (name, relation): made.things[value].name
        for (type_, name), thing in named.items()
        if type_ == "country"
        for relation in thing.facts
        if isinstance(value := thing.now(relation), int)
    }
    assert ends["arvenia", "largest_neighbour"] == "bastor"
    assert ends["arvenia", "smallest_neighbour"] == "côte grise"
    assert ends["bastor", "largest_neighbour"] == "arvenia"
    assert ("bastor", "smallest_neighbour") not in ends  # it has but one
    assert ("bastor", "language") not in ends  # it has two
    assert not {"capital", "currency", "language", "subregion"} & {r for name, r in ends if name == "dunholm"}
    assert ends["bastor", "capital"] == "bastor"
    assert named["country", "bastor"] is not named["city", "bastor"]


def test_a_neighbour_that_is_not_here_is_the_neighbour_of_nobody(file: Path) -> None:
    for seed in range(5):
        made = countries(file, seed, count=2)
        here = {thing.name for thing in made.things if thing.type == "country"}
        assert len(here) == 2
        for thing in made.things:
            ends = [thing.now(relation) for relation in thing.facts if "neighbour" in relation]
            assert all(isinstance(end, int) and made.things[end].name in here for end in ends)
            # the largest of all neighbours, not the largest of those that are here
            assert thing.name != "arvenia" or "bastor" in here or "largest_neighbour" not in thing.facts


def test_rules_read_every_page_and_every_question(file: Path) -> None:
    for seed in range(10):
        made = countries(file, seed)
        for document in made.documents():
            page = document.page
            assert read_page(page.text) == list(page.claims), page.text
            assert parse_note(" ; ".join(map(str, page.claims)), mentions(page.text)) == (list(page.claims), [])
        for hops in (1, 2, 3):
            question = made.question(hops)
            assert question is not None
            assert read_question(question.text) == question.query
            assert made.things[question.start].name != "port ost"  # two capitals: which one?


def test_a_capital_called_like_its_country_and_one_called_like_another_capital_are_asked_for(file: Path) -> None:
    found = {
        (question.path, question.answer[0]) for seed in range(80) if (question := countries(file, seed).question(1))
    }
    assert (("capital",), "bastor") in found
    assert (("capital",), "port ost") in found
    assert (("capital_of",), "bastor") in found
    pages = [d.page for seed in range(3) for d in countries(file, seed).documents()]
    assert any(claim.relation == "capital" and claim.subject == claim.object for page in pages for claim in page.claims)


def test_a_world_of_countries_is_played_as_one_of_a_town(file: Path) -> None:
    options = {"file": str(file), "persons": 8, "archives": 2, "questions": 4, "hops": 2, "reading": 1}
    made = make("archive-v0", 2, options)
    made.reset(1)
    noted = 0
    for _ in range(60):
        if not made.agents:
            break
        result = made.step({agent: read_by_rules(made.observe(agent)) for agent in made.agents})
        assert all(info["valid"] for info in result.infos.values())
        noted += sum(len(info.get("claims", ())) for info in result.infos.values())
    assert not made.agents
    assert noted > 20


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read"),
        ("no JSON", "the whole file: Invalid JSON"),
        ("{}", "the whole file: Input should be a"),
        ("[]", "holds no countries"),
        ('[{"cca3": "AAA"}]', r"no countries\.json as of .*: 0\.name\.common: Field required"),
        (json.dumps([row("AAA", "[0 x]", [], {}, {}, "", 1.0, [])]), r"0\.name\.common: String should match"),
        (json.dumps([row("AAA", "x", 3, {}, {}, "", 1.0, [])]), r"0\.capital"),
        (json.dumps([row("AAA", "x", [], {"A": {"symbol": "x"}}, {}, "", 1.0, [])]), r"0\.currencies"),
    ],
)
def test_a_file_that_is_none_is_refused_in_one_line(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "countries.json"
    if content is not None:
        path.write_text(content, "utf-8")
    with pytest.raises(WorldError, match=message) as caught:
        make("archive-v0", 2, {"file": str(path)})
    assert len(str(caught.value).splitlines()) == 1
