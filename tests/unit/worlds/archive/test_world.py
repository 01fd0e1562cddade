"""archive-v0: who may open what, when the archives close, what is told of a forged document, and what is right."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from pydantic import ValidationError

from worlds import make
from worlds.archive.grammar import read_told
from worlds.archive.playbook import ArchivePlaybook
from worlds.archive.world import ArchiveWorld, read_by_rules
from worlds.protocol import Report, Situation


def world(num_agents: int = 4, **options) -> ArchiveWorld:
    made = make("archive-v0", num_agents, options)
    assert isinstance(made, ArchiveWorld)
    return made


def test_everybody_opens_documents_of_their_own_archives_only() -> None:
    made = world()
    seen, _ = made.reset(1)
    numbers = {agent: re.findall(r"(?:: |\| )([0-9]+) ", text) for agent, text in seen.items()}
    assert sum(map(len, numbers.values())) == len({n for some in numbers.values() for n in some}) == len(made.documents)
    other = numbers["a1"][0]
    result = made.step({"a0": f"open {other}", "a1": f"open {other}"})
    assert not result.infos["a0"]["valid"]
    assert result.infos["a1"]["valid"]
    assert result.observations["a1"].startswith(f"doc {other} year ")
    assert not made.step({"a1": "open 1"}).infos["a1"]["valid"]  # a page is noted first


def test_a_note_is_claims_with_their_source_and_year() -> None:
    made = world()
    made.reset(1)
    number = made._catalogue("a0")[0]
    made.step({"a0": f"open {number}"})
    document = made.documents[number]
    result = made.step({"a0": read_by_rules(made.observe("a0"))})
    claims = result.infos["a0"]["claims"]
    assert result.infos["a0"]["report"] == f"read {number}"
    assert len(claims) == len(document.page.claims)
    for claim, marked in zip(claims, document.page.claims, strict=True):
        assert claim.source == f"doc {number}"
        assert claim.subject == document.page.mentions[marked.subject]
        assert claim.valid_from == (document.year if marked.year is None else marked.year)
        assert (claim.object_type == "") == (claim.relation == "trade")


def test_a_note_closes_its_page_and_what_makes_no_sense_is_not_noted() -> None:
    made = world()
    made.reset(1)
    number = made._catalogue("a0")[0]
    made.step({"a0": f"open {number}"})
    result = made.step({"a0": "note [0] owns [1] ; [0] trade smith"})
    assert result.infos["a0"]["feedback"] == "noted 1; 1 not: unknown relation owns"
    assert not result.infos["a0"]["valid"]
    assert len(result.infos["a0"]["claims"]) == 1
    assert result.observations["a0"].startswith("open : ")


def test_archives_close_when_a_share_of_all_is_read_and_then_questions_are_asked() -> None:
    made = world(reading=0.1, forged=False)
    made.reset(2)
    opened = 0
    while any(made.observe(agent).startswith(("open", "doc")) for agent in made.agents):
        actions = {agent: read_by_rules(made.observe(agent)) for agent in made.agents}
        opened += sum(text.startswith("open") for text in actions.values())
        made.step({agent: text for agent, text in actions.items() if not text.startswith("answer")})
    assert opened >= round(0.1 * len(made.documents))
    assert len(made._closed) == round(0.1 * len(made.documents))
    assert all(made.observe(agent).startswith(("asked", "done")) for agent in made.agents)


def test_who_is_ready_is_asked_at_once() -> None:
    made = world()
    made.reset(1)
    result = made.step({"a0": "ready"})
    assert result.observations["a0"].startswith("asked q")
    assert result.observations["a1"].startswith("open")


@pytest.mark.parametrize("told", ["answer {}", "answer [0] : works_for = {}"])
def test_what_is_right_is_paid_once_and_a_lookup_counts_by_its_end(told: str) -> None:
    made = world(num_agents=1, questions=4, unanswerable=0.5)
    made.reset(3)
    made.step({"a0": "ready"})
    rewards = 0.0
    while (number := made.asks("a0")) is not None:
        answer = made.questions[number].answer
        rewards += made.step({"a0": told.format(answer[0] if answer else "unknown")}).rewards["a0"]
    assert rewards == pytest.approx(1.0)
    assert made.solved
    made.reset(3)
    made.step({"a0": "ready"})
    for _ in range(4):
        result = made.step({"a0": told.format("nobody at all")})
        assert result.rewards["a0"] == 0.0
        assert result.infos["a0"]["feedback"] == "wrong"
    assert not made.solved
    assert not made.agents


def test_everybody_is_told_once_that_a_document_is_forged() -> None:
    made = world()
    made.reset(4)
    told: dict[str, list[str]] = {agent: [] for agent in made.possible_agents}
    for _ in range(200):
        if not made.agents:
            break
        result = made.step({agent: read_by_rules(made.observe(agent)) for agent in made.agents})
        for agent, info in result.infos.items():
            told[agent] += info.get("forged", [])
            if "forged" in info:
                assert f"forged {made.forged}" in info["report"]
    assert all(sources == [f"doc {made.forged}"] for sources in told.values())
    assert made.forged not in made._catalogue("a0")


def test_without_a_forged_document_nothing_is_told() -> None:
    made = world(forged=False)
    made.reset(4)
    assert made.forged is None
    for _ in range(200):
        if not made.agents:
            break
        result = made.step({agent: read_by_rules(made.observe(agent)) for agent in made.agents})
        assert not any("forged" in info for info in result.infos.values())


def test_reports_tell_what_was_noted_where_that_is_wanted() -> None:
    made = world(tells="claims")
    made.reset(1)
    number = made._catalogue("a0")[0]
    made.step({"a0": f"open {number}"})
    info = made.step({"a0": read_by_rules(made.observe("a0"))}).infos["a0"]
    head, _, told = info["report"].partition(" : ")
    assert head == f"read {number}"
    assert read_told(told, f"doc {number}") == info["claims"]
    assert read_told("[0 x] : y = ; [a] trade [b] @1 ; [a] owns [b] @1 ; [a] works_for b @1", "doc 1") == []


def test_nobody_passes_on_what_is_known_to_be_forged() -> None:
    made = world(1, tells="claims", archives=1)
    made.reset(4)
    for number in [number for number in made.documents if number != made.forged][: made._left - made._tells_at - 1]:
        made.step({"a0": f"open {number}"})
        assert " : [" in made.step({"a0": read_by_rules(made.observe("a0"))}).infos["a0"]["report"]
    assert made.step({"a0": f"open {made.forged}"}).infos["a0"]["report"] == f"forged {made.forged}"
    info = made.step({"a0": read_by_rules(made.observe("a0"))}).infos["a0"]
    assert info["report"] == f"read {made.forged}"
    assert info["claims"]  # a registry leaves them out by their source


def test_equal_seeds_give_equal_towns_and_others_other_ones() -> None:
    states = []
    for seed in (1, 1, 2):
        made = world()
        made.reset(seed)
        states.append(made.state())
    assert states[0] == states[1] != states[2]


def test_questions_need_several_archives_from_two_relations_on() -> None:
    for seed in range(5):
        made = world()
        made.reset(seed)
        for question in made.questions:
            about = {made._archive[n] for n, d in made.documents.items() if d.about in question.things}
            assert len(question.path) == 1 or len(about) > 1
        assert sum(not question.answer for question in made.questions) == 1


@pytest.mark.parametrize("options", [{"persons": 3}, {"hops": 5}, {"reading": 0}, {"wordings": "odd"}])
def test_options_that_make_no_world_are_refused(options) -> None:
    with pytest.raises((ValueError, ValidationError)):
        world(**options)


# ---- the playbook

HOLDS = [
    Report(
        -1, "a0", "holds 1 mara voss smith 8 | 2 tarn place 8 ; asked q0 what is the seat of [0 mara voss] 's firm ?"
    ),
    Report(-1, "a1", "holds 3 brask mills firm 8 | 4 brask mills firm 3 | 5 mara voss weaver 8 ; asked "),
]


def situation(known: dict[str, str], *reports: Report, directives=()) -> Situation:
    return Situation(
        "goal", ("a0", "a1"), (*HOLDS, *reports), tuple(directives), lookup=lambda text: known.get(text, "unknown")
    )


def test_the_documents_of_whom_a_question_is_about_are_opened() -> None:
    book = ArchivePlaybook()
    assert book.rules(situation({})) == {"a0": "open 1", "a1": "wait"}
    told = [(0, "a0", "open 1")]
    assert book.rules(situation({}, directives=told)) == {"a0": "wait", "a1": "wait"}
    # a namesake is no help where the trade is known
    asked = Report(-1, "a0", "holds  ; asked q1 what is the seat of [0 mara voss] the weaver 's firm ?")
    assert Situation("", ("a1",), (asked, HOLDS[1]), lookup=lambda text: "unknown")
    assert book.rules(
        Situation("", ("a1",), (asked, HOLDS[1]), lookup=lambda text: "unknown")
    ) == {"a1": "open 5"}  # fmt: skip


def test_what_is_known_leads_to_the_next_document_the_newest_first() -> None:
    book = ArchivePlaybook()
    known = {"[mara voss] : works_for =": "brask mills"}
    read = Report(3, "a0", "read 1")
    assert book.rules(situation(known, read))["a1"] == "open 3"
    assert book.rules(situation(known, read, Report(5, "a1", "read 3")))["a1"] == "open 4"
    short = {"[mara voss] : works_for =": "brask"}
    assert book.rules(situation(short, read))["a1"] == "open 3"


def test_an_order_that_was_not_followed_twice_is_not_given_again() -> None:
    book = ArchivePlaybook()
    once = [(0, "a0", "open 1"), *((tick, "a0", "wait") for tick in (1, 2, 3))]
    assert book.rules(situation({}, directives=once))["a0"] == "open 1"
    twice = [*once, (4, "a0", "open 1")]
    assert book.rules(situation({}, directives=twice)) == {"a0": "wait", "a1": "wait"}
    later = [*twice, *((tick, "a0", "wait") for tick in (5, 6, 7))]
    assert book.rules(situation({}, directives=later))["a0"] != "open 1"
    assert "open 1" not in book.rules(replace(situation({}, directives=later), goal="one is forged")).values()


def test_nobody_reads_on_when_all_is_known_or_nothing_is_left() -> None:
    book = ArchivePlaybook()
    known = {"[mara voss] : works_for =": "brask mills", "[mara voss] : works_for seat =": "tarn"}
    assert book.rules(situation(known)) == {"a0": "ready", "a1": "ready"}
    assert book.rules(replace(situation(known), goal="one is forged")) == {"a0": "open 1", "a1": "open 3"}
    told = replace(situation(known, Report(3, "a0", "forged 5")), goal="one is forged")
    assert book.rules(told) == {"a0": "ready", "a1": "ready"}
    read = [Report(1, "a0", "read 1 ; forged 5"), Report(1, "a1", "read 3"), Report(2, "a1", "read 4")]
    assert book.rules(situation({}, *read)) == {"a0": "ready", "a1": "ready"}
    assert book.rules(Situation("", ("a0", "a1"), tuple(HOLDS))) == {}  # nothing to look into
