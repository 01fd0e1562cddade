"""Towns: what pages say is what is so, hand-written rules read all of it, and names are those that they should be."""

from __future__ import annotations

import random
import re

import pytest

from worlds.archive.grammar import mentions, parse_note, read_page, read_question
from worlds.archive.schema import RELATIONS
from worlds.archive.town import FORGED, NOW, Town, is_kept


@pytest.fixture(scope="module", params=range(3))
def town(request: pytest.FixtureRequest) -> Town:
    return Town(random.Random(request.param), 40, True, "both")


def test_rules_read_every_page_and_every_question(town: Town) -> None:
    for document in town.documents():
        page = document.page
        assert read_page(page.text) == list(page.claims), page.text
        assert mentions(page.text) == dict(enumerate(page.mentions))
        assert parse_note(" ; ".join(map(str, page.claims)), mentions(page.text)) == (list(page.claims), [])
    for hops in (1, 2, 3, 4):
        for answerable in (True, False):
            question = town.question(hops, answerable)
            assert question is not None
            assert read_question(question.text) == question.query, question.text


def test_pages_say_what_is_so(town: Town) -> None:
    for document in town.documents():
        for claim in document.page.claims:
            thing = town.things[document.page.things[claim.subject]]
            value = document.page.things[claim.object] if isinstance(claim.object, int) else claim.object
            facts = {fact[1]: fact[0] for fact in thing.facts[claim.relation]}
            assert value in facts
            assert claim.year is None or claim.year == facts[value]
            if document.year == NOW and claim.year is None:
                assert value == thing.now(claim.relation)


def test_the_newest_year_says_what_is_so_today(town: Town) -> None:
    """All documents together give every fact back: nothing is said that a later year does not correct."""
    known: dict[tuple[int, str], tuple[int, object]] = {}
    for document in town.documents():
        for claim in document.page.claims:
            subject = document.page.things[claim.subject]
            value = document.page.things[claim.object] if isinstance(claim.object, int) else claim.object
            year = document.year if claim.year is None else claim.year
            before = known.get((subject, claim.relation), (-1, None))
            known[subject, claim.relation] = max(before, (year, value), key=lambda fact: fact[0])
    for (subject, relation), (_, value) in known.items():
        assert town.things[subject].now(relation) == value


def test_a_mention_means_one_thing_and_who_has_a_namesake_is_told_apart(town: Town) -> None:
    for document in town.documents():
        page = document.page
        assert len(set(page.mentions)) == len(page.mentions)
        for name, thing in zip(page.mentions, page.things, strict=True):
            assert name in (town.things[thing].name, *town.things[thing].short)
        told = {page.things[claim.subject] for claim in page.claims if claim.relation == "trade"}
        assert all(thing in told for thing in page.things if town.is_namesake(town.things[thing]))


def test_persons_share_names() -> None:
    people = [one for seed in range(10) for one in _people(seed)]
    shares = [
        sum(word in other.name.split() for other in crowd if other is not person) > 0
        for person, crowd in people
        for word in person.name.split()[:1]
    ]
    namesakes = [any(other.name == person.name and other is not person for other in crowd) for person, crowd in people]
    assert sum(shares) / len(shares) > 0.3
    assert 0.05 < sum(namesakes) / len(namesakes) < 0.2


def _people(seed: int):
    crowd = [one for one in Town(random.Random(seed), 40, True).things if one.type == "person"]
    return [(person, crowd) for person in crowd]


def test_names_and_sentences_of_evaluation_are_those_of_no_lesson() -> None:
    kept, seen = (Town(random.Random(1), 24, held_out) for held_out in (True, False))
    for town, is_for_evaluation in ((kept, True), (seen, False)):
        words = {word for thing in town.things for word in thing.name.split()}
        words -= {"brothers", "works", "mills", "trading"}
        assert all(is_kept(word) == is_for_evaluation for word in words)
    for relation in RELATIONS.values():
        assert not set(relation.held_out) & set(relation.wordings)
        assert len(relation.wordings) + len(relation.held_out) >= 8


def test_a_forged_document_says_what_is_true_of_nobody(town: Town) -> None:
    about = next(thing for thing in town.things if thing.type == "person")
    document = town.forgery(999, about.number)
    assert document.year == FORGED
    for relation, value in document.lies.items():
        assert value not in [fact[1] for fact in about.facts[relation]]
    assert set(document.lies) <= set(about.facts) - {"trade", "married_to"}
    assert [c for c in document.page.claims if c.relation in document.lies]


def test_questions_end_where_their_path_leads(town: Town) -> None:
    for hops in (1, 2, 3, 4):
        question = town.question(hops)
        assert question is not None
        assert len(question.path) == hops
        end = town.follow(question)
        assert (town.things[end].name if isinstance(end, int) else end) == question.answer[0]
        nobody = town.question(hops, answerable=False)
        assert nobody is not None
        assert town.follow(nobody) is None


@pytest.mark.parametrize(
    ("note", "wrong"),
    [
        ("[0] works_for [7]", r"no \[7\] on this page"),
        ("[0] works_for smith", "works_for leads to a handle"),
        ("[0] trade [1]", "trade leads to a word"),
        ("[0] owns [1]", "unknown relation owns"),
        ("[0] works_for [1] [2]", "not a claim"),
        ("works_for", "not a claim"),
        ("[0] works_for [1] ;", "not a claim"),
    ],
)
def test_a_claim_that_makes_no_sense_is_left_out(note: str, wrong: str) -> None:
    found, told = parse_note(f"{note} ; [0] works_for [1]", {0: "mara voss", 1: "tarn"})
    assert [str(claim) for claim in found] == ["[0] works_for [1]"] * len(found)
    assert len(told) == 1
    assert re.match(wrong, told[0])
