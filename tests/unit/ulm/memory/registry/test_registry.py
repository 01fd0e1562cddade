"""The entity registry: what holds now, who says so, and what is refused."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.identity import plain_identity

from ulm.memory import sqlite_file
from ulm.memory.registry import Claim, EntityRegistry, Origin, Relation, name_index

PAGE, OTHER = Origin("page 1", "a0", 1), Origin("page 2", "a1", 2)


@pytest.fixture
def registry() -> EntityRegistry:
    made = EntityRegistry(identity=plain_identity())
    made.declare(Relation("works_for", functional=True, inverse="employs"))
    made.declare(Relation("married_to", functional=True, symmetric=True))
    made.declare(Relation("knows", symmetric=True))
    made.declare(Relation("part_of", transitive=True))
    made.declare(Relation("trade", functional=True, is_property=True))
    return made


def people(registry: EntityRegistry, *names: str) -> list[int]:
    return [registry.create(name, "person", origin=PAGE) for name in names]


def test_a_kind_is_one_wherever_it_is_met_and_an_individual_is_not(registry: EntityRegistry) -> None:
    cat = registry.get_or_create("cat", "animal", PAGE)
    assert registry.get_or_create(" CAT ", "animal", OTHER) == cat
    assert registry.get_or_create("cat", "boat", OTHER) != cat
    assert registry.create("Tom", "cat") != registry.create("Tom", "cat")
    assert registry.num_entities == 4
    assert registry.get_entity(cat).sources == ("page 1", "page 2")


def test_the_newest_valid_value_of_a_functional_relation_counts_and_the_former_one_comes_back(registry) -> None:
    mara, brask, tarn = people(registry, "Mara", "Brask", "Tarn")
    registry.add_relation(mara, "works_for", brask, PAGE, valid_from=3)
    registry.add_relation(mara, "works_for", tarn, OTHER, valid_from=5)
    registry.add_relation(mara, "works_for", brask, Origin("page 3"), valid_from=4)
    assert registry.lookup(mara, "works_for") == [tarn]
    assert (registry.lookup(tarn, "employs"), registry.lookup(brask, "employs")) == ([mara], [])
    assert registry.get_entity(mara).contested == ("works_for",)
    registry.forget("page 2")
    assert registry.lookup(mara, "works_for") == [brask]
    assert [said.gone > 0 for said in registry.history(mara) if said.relation == "works_for"] == [False, True, False]


def test_relations_follow_their_flags(registry: EntityRegistry) -> None:
    a, b, c = people(registry, "A", "B", "C")
    registry.add_relation(a, "knows", b, PAGE)
    assert registry.lookup(b, "knows") == [a]
    registry.add_relation(a, "part_of", b, PAGE)
    registry.add_relation(b, "part_of", c, PAGE)
    assert registry.lookup(a, "part_of") == [b, c]
    registry.add_relation(a, "married_to", b, PAGE)
    registry.add_relation(c, "married_to", b, OTHER)
    assert (registry.lookup(b, "married_to"), registry.lookup(c, "married_to")) == ([c], [b])


def test_paths_lead_over_several_relations(registry: EntityRegistry) -> None:
    mara, tom, brask = people(registry, "Mara", "Tom", "Brask")
    registry.add_relation(mara, "knows", tom, PAGE)
    registry.add_relation(tom, "works_for", brask, OTHER)
    registry.add_property(tom, "trade", "smith", OTHER)
    assert registry.path(mara, ["knows", "works_for"]) == [brask]
    assert registry.path(mara, ["knows", "trade"]) == ["smith"]
    assert registry.path(mara, ["works_for", "knows"]) == []
    assert registry.paths(mara, brask) == [[("knows", tom), ("works_for", brask)]]
    assert registry.paths(mara, brask, max_hops=1) == []
    assert registry.graph().edges[mara, tom, 0] == {"relation": "knows"}


def test_merged_entities_are_one_under_all_their_numbers_until_they_are_split(registry: EntityRegistry) -> None:
    mara, voss, brask = people(registry, "Mara", "Voss", "Brask")
    registry.add_relation(voss, "works_for", brask, PAGE)
    assert registry.merge(voss, mara, Origin("editor")) == mara
    assert registry.get_entity(voss) == registry.get_entity(mara)
    assert registry.lookup(mara, "works_for") == [brask]
    assert registry.lookup(brask, "employs") == [mara]
    registry.split(mara, voss)
    assert registry.lookup(mara, "works_for") == []
    with pytest.raises(ValueError, match="not held to be one"):
        registry.split(mara, voss)


def test_a_kind_is_no_individual(registry: EntityRegistry) -> None:
    cat, tom = registry.get_or_create("cat"), registry.create("Tom")
    with pytest.raises(ValueError, match="kind"):
        registry.merge(cat, tom)


def test_names_are_found_in_any_script_and_with_a_typing_error(registry: EntityRegistry) -> None:
    mara, wang, ida = people(registry, "Mara Voss", "王芳", "İda Şen")
    for asked, wanted in (
        ("mara  VOSS", mara),
        ("Mxra Voss", mara),
        ("Vos Mara", mara),
        ("王芳", wang),
        ("i̇da şen", ida),
    ):
        assert wanted in registry.like(asked), asked
    assert registry.named("MARA voss") == [mara]
    assert registry.like("Page 27") == []
    people(registry, "Page 28")
    assert registry.like("Page 27") == registry.like("Page") != []
    assert registry.named("Page 27") == []


def test_words_that_many_have_find_somebody_together(registry: EntityRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name_index, "COMMON", 3)
    people(registry, "John Voss", "John Tarn", "John Brask", "Mara Smith", "Tom Smith", "Ida Smith", "Ida Gorm")
    (wanted,) = people(registry, "John Smith")
    assert registry.like("Jon Smiht") == [wanted]
    assert [registry.names(one)[0] for one in registry.like("Ida Smith")] == ["Ida Smith", "Ida Gorm"]
    assert registry.like("Smith") == []


def test_a_name_that_several_sources_give_stays_when_the_first_one_is_forgotten(registry: EntityRegistry) -> None:
    (mara,) = people(registry, "Mara Voss")
    registry.add_name(mara, "Mara Voss", "person", OTHER)
    registry.add_property(mara, "trade", "smith", OTHER, valid_from=7)
    registry.forget("page 1")
    assert registry.named("mara voss") == [mara]
    assert registry.get_entity(mara).names == ("Mara Voss",)
    assert [(said.source, said.agent, said.tick, said.valid_from) for said in registry.history(mara)] == [
        ("page 1", "a0", 1, 1), ("page 2", "a1", 2, 2), ("page 2", "a1", 2, 7),
    ]  # fmt: skip


def test_more_candidates_take_no_more_statements(registry: EntityRegistry) -> None:
    counts, statements = [], list[str]()
    registry.resolve("Mara Voss", "person", "", [("works_for", "Brask")], PAGE)
    for _ in range(2):
        for mara in people(registry, *["Mara Voss"] * 4):
            registry.add_relation(mara, "works_for", people(registry, "Tarn")[0], PAGE)
        registry.store._connection.set_trace_callback(statements.append)
        resolution = registry.resolve("Mara Vos", "person", "", [("works_for", "Brask")], PAGE)
        registry.store._connection.set_trace_callback(None)
        counts.append((len(resolution.ranked), len(statements)))
        statements.clear()
    (few, some), (many, others) = counts
    assert few < many
    assert others <= some


def test_who_is_meant_is_one_within_a_scope_and_over_scopes_on_evidence(registry: EntityRegistry) -> None:
    first = registry.resolve("Mara Voss", "person", "page 1", [("works_for", "Brask")], PAGE)
    again = registry.resolve("Mara Voss", "person", "page 1", (), PAGE)
    assert (first.decision, again.entity) == ("new", first.entity)
    registry.add_relation(first.entity, "works_for", registry.create("Brask", origin=PAGE), PAGE)
    same = registry.resolve("Mara Voss", "person", "page 2", [("works_for", "Brask")], OTHER)
    assert same.decision == "same"
    assert registry.representative(same.entity) == first.entity
    other = registry.resolve("Mara Voss", "person", "page 3", [("works_for", "Tarn")], Origin("page 3"))
    assert other.decision != "same"
    registry.forget("page 1")
    assert registry.representative(same.entity) == same.entity


def test_a_text_may_call_a_country_and_its_capital_alike(registry: EntityRegistry) -> None:
    claim = Claim("page 1", "Monaco", "country", "capital", "Monaco", "city", 1)
    meant = registry.note([claim, Claim("page 1", "Monaco", "country", "currency", "euro", "currency", 1)])
    country, city = meant["page 1", "Monaco", "country"], meant["page 1", "Monaco", "city"]
    assert registry.representative(country) != registry.representative(city)
    assert registry.lookup(country, "capital") == [city]
    assert registry.lookup(city, "currency") == []
    assert registry.resolve("Monaco", "", "page 1", (), Origin("page 1")).entity in (country, city)


def test_without_an_identity_nothing_is_decided(tmp_path: Path, registry: EntityRegistry) -> None:
    registry.resolve("Mara Voss", "person", "page 1", (), PAGE)
    registry.resolve("Mara Vos", "person", "page 2", (), OTHER)
    registry.save(tmp_path / "r.db")
    bare = EntityRegistry.load(tmp_path / "r.db")
    before = bare.digest
    for decide in (lambda: bare.resolve("Tom"), lambda: bare.forget("page 1")):
        with pytest.raises(ValueError, match="with an `identity`"):
            decide()
    assert bare.digest == before


@pytest.mark.parametrize("name", ["", "   ", "\n"])
def test_an_empty_name_is_refused_and_nothing_is_written(registry: EntityRegistry, name: str) -> None:
    before = registry.digest
    for make in (registry.create, registry.get_or_create, registry.resolve):
        with pytest.raises(ValueError, match="empty"):
            make(name)
    assert registry.digest == before


def test_claims_that_do_not_fit_are_refused(registry: EntityRegistry) -> None:
    (mara,) = people(registry, "Mara")
    with pytest.raises(ValueError, match="'works_for' is a relation: its value is an entity"):
        registry.add_property(mara, "works_for", "Brask")
    with pytest.raises(ValueError, match="'trade' is a property: its value is a text"):
        registry.add_relation(mara, "trade", mara)
    with pytest.raises(ValueError, match="no entity 99"):
        registry.add_relation(mara, "knows", 99)
    with pytest.raises(ValueError, match="declared otherwise"):
        registry.declare(Relation("works_for"))
    with pytest.raises(ValueError, match="no direction"):
        registry.declare(Relation("colour", is_property=True, symmetric=True))


def test_under_refuse_a_contradiction_is_an_error_that_names_the_source(registry: EntityRegistry) -> None:
    strict = EntityRegistry(conflicts="refuse")
    strict.declare(Relation("trade", functional=True, is_property=True))
    mara = strict.create("Mara")
    strict.add_property(mara, "trade", "smith", PAGE)
    strict.add_property(mara, "trade", "smith", OTHER, valid_from=1)
    with pytest.raises(ValueError, match="'smith' by page 1"):
        strict.add_property(mara, "trade", "baker", Origin("page 3", tick=1))
    strict.add_property(mara, "trade", "baker", Origin("page 3", tick=9))
    assert strict.lookup(mara, "trade") == ["baker"]


def test_a_file_keeps_everything_and_can_be_saved_while_it_is_open(tmp_path: Path) -> None:
    registry = EntityRegistry(tmp_path / "r.db")
    mara = registry.create("Mara", "person", origin=PAGE)
    registry.save(tmp_path / "copy.db")
    registry.add_property(mara, "trade", "smith", PAGE)
    registry.close()
    assert EntityRegistry.load(tmp_path / "r.db").get_entity(mara).properties == {"trade": ("smith",)}
    assert EntityRegistry.load(tmp_path / "copy.db").get_entity(mara).properties == {}


def test_files_that_are_something_else_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no registry"):
        EntityRegistry.load(tmp_path / "none.db")
    (tmp_path / "text.db").write_text("no database, and long enough to be read as one" * 99)
    with pytest.raises(ValueError, match="damaged"):
        EntityRegistry(tmp_path / "text.db")
    EntityRegistry(tmp_path / "newer.db").close()
    with sqlite3.connect(tmp_path / "newer.db") as connection:
        connection.execute("UPDATE about SET value = '99' WHERE name = 'format'")
    connection.close()
    with pytest.raises(ValueError, match="format 99, this version reads"):
        EntityRegistry(tmp_path / "newer.db")


def test_what_holds_is_exported_for_others(registry: EntityRegistry, tmp_path: Path) -> None:
    mara, tom = people(registry, "Mara", "Tom")
    registry.add_relation(mara, "knows", tom, PAGE)
    assert registry.export(tmp_path / "r.jsonl") == 2
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [row["relations"] for row in rows] == [{"knows": [tom]}, {"knows": [mara]}]
    registry.export(tmp_path / "r.csv")
    assert (tmp_path / "r.csv").read_text().splitlines()[1] == f"{mara},person,Mara,knows,{tom}"


def test_a_second_writer_waits_and_then_gives_up_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "WAIT_S", 0.2)
    first, second = EntityRegistry(tmp_path / "r.db"), EntityRegistry(tmp_path / "r.db")
    with first.writing():
        mara = first.create("Mara", origin=PAGE)
        with pytest.raises(
            ValueError, match=r"registry .*r.db is being written by another process, .* 0.2 s; try again"
        ):
            second.create("Tom", origin=OTHER)
        assert list(second) == []  # reading does not wait
    tom = second.create("Tom", origin=OTHER)
    assert first.get_entity(tom).names == ("Tom",)
    assert second.get_entity(mara).names == ("Mara",)
    assert first.digest == second.digest


@pytest.mark.process
def test_two_processes_write_one_file_without_losing_anything(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    EntityRegistry(path).close()
    code = (
        "import sys; from pathlib import Path; from ulm.memory.registry import EntityRegistry, Origin\n"
        "registry = EntityRegistry(Path(sys.argv[1]))\n"
        "for n in range(40): registry.get_or_create(f'kind {n}', origin=Origin(sys.argv[2]))\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in ("one", "two")]
    assert [child.wait() for child in children] == [0, 0]
    registry = EntityRegistry.load(path)
    assert registry.num_entities == 40
    assert all(set(registry.get_entity(number).sources) == {"one", "two"} for number in registry)
