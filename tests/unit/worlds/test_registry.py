"""The registry finds worlds by id and explains every mistake in one line."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from worlds import World, WorldError, available, entry_points, make, register, registry, world_class
from worlds.graph.world import GraphWorld


def _error(world_id, options=None):
    with pytest.raises(WorldError) as caught:
        make(world_id, 2, options)
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.fixture
def entries(monkeypatch):
    """Third-party worlds, as installed packages would declare them."""
    found: list[EntryPoint] = []
    monkeypatch.setattr(entry_points, "entry_points", lambda group: found)
    return lambda name, value: found.append(EntryPoint(name, value, registry.DOOR.group))


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})


def test_built_in_worlds_are_available_and_carry_the_id_they_are_found_by(registered):
    assert available() == ["echo-v0", "facts-v0", "graph-v0", "numbers-v0", "split-numbers-v0", "vault-v0"]
    for world_id in available():
        assert world_class(world_id).id == world_id


def test_options_reach_the_world():
    world = make("graph-v0", 2, {"rooms": 7, "doors": 1})
    assert isinstance(world, GraphWorld)
    assert (world.options.rooms, world.options.doors, world.possible_agents) == (7, 1, ["a0", "a1"])


def test_misspelt_world_names_the_nearest_and_the_available_ones(registered):
    line = _error("grpah-v0")
    assert "'grpah-v0'" in line
    assert "did you mean graph-v0?" in line
    assert "Available: echo-v0, facts-v0, graph-v0, numbers-v0, split-numbers-v0, vault-v0" in line


def test_unrelated_world_name_gets_no_false_suggestion(registered):
    line = _error("xyzzy")
    assert "did you mean" not in line
    assert "Available: echo-v0" in line


@pytest.mark.parametrize("wrong", ["numbers-v3", "numbers"])
def test_known_world_in_another_version_names_the_available_version(wrong):
    assert _error(wrong) == f"{wrong} not found; available version: numbers-v0"


def test_several_versions_are_all_named(entries):
    entries("numbers-v1", "somewhere:Numbers")
    assert _error("numbers-v2") == "numbers-v2 not found; available versions: numbers-v0, numbers-v1"


def test_misspelt_option_names_the_nearest_valid_one():
    assert _error("graph-v0", {"romms": 3}) == "options of graph-v0: unknown option 'romms'; did you mean 'rooms'?"


def test_option_like_no_other_lists_the_valid_ones():
    assert "valid options: degree, doors, max_steps, rooms" in _error("graph-v0", {"qqq": 1})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rooms": "many"}, ["'rooms'", "integer", "'many'"]),
        ({"doors": 99}, ["'doors'", "less than or equal to 8", "99"]),
        ({"rooms": 1, "doors": -1}, ["'rooms'", "'doors'"]),
        ({"rooms": 3, "doors": 4}, ["'rooms' is 3", "at least 6"]),
        ([("rooms", 3)], ["must be a mapping"]),
    ],
)
def test_wrong_option_values_say_which_and_why(options, words):
    line = _error("graph-v0", options)
    assert line.startswith("options of graph-v0")
    assert [word for word in words if word not in line] == []
    assert "pydantic" not in line


def test_no_agents_is_a_world_error():
    with pytest.raises(WorldError, match="at least 1 agent"):
        make("graph-v0", 0)


class _Maze(GraphWorld):
    id = "maze-v1"


def test_registered_world_is_made_by_its_id(registered):
    assert register(_Maze) is _Maze
    assert "maze-v1" in available()
    assert isinstance(make("maze-v1", 1), _Maze)


def test_registering_twice_is_harmless_but_an_id_has_one_owner(registered):
    register(_Maze)
    register(_Maze)
    other = type("Other", (GraphWorld,), {"id": "maze-v1"})
    with pytest.raises(WorldError, match="maze-v1 is taken"):
        register(other)


def test_built_in_ids_cannot_be_taken_over(registered):
    with pytest.raises(WorldError, match="graph-v0 is taken"):
        register(type("Impostor", (GraphWorld,), {"id": "graph-v0"}))


@pytest.mark.parametrize("bad_id", ["maze", "Maze-v0", "maze-v", "", None, "maze v0", "maze-v0\n"])
def test_ids_without_a_version_are_refused(registered, bad_id):
    with pytest.raises(WorldError, match="a version, like 'maze-v0'"):
        register(type("Nameless", (GraphWorld,), {"id": bad_id}))


def test_only_worlds_can_be_registered(registered):
    with pytest.raises(WorldError, match="not a world"):
        register(dict)


def test_entry_point_world_is_found(entries):
    entries("maze-v1", f"{__name__}:_Maze")
    assert "maze-v1" in available()
    assert issubclass(world_class("maze-v1"), World)


def test_broken_entry_point_is_named_only_when_asked_for(entries):
    entries("broken-v0", "no_such_package.worlds:Broken")
    assert "broken-v0" in available()
    make("graph-v0", 1)
    line = _error("broken-v0")
    assert "no_such_package.worlds:Broken" in line
    assert "ModuleNotFoundError" in line


def test_entry_point_that_is_no_world_or_has_another_id_is_explained(entries):
    entries("dict-v0", "builtins:dict")
    entries("other-v0", f"{__name__}:_Maze")
    assert "not a subclass of worlds.protocol.World" in _error("dict-v0")
    assert "has the id 'maze-v1'" in _error("other-v0")


def test_two_packages_with_one_world_id_are_both_named(entries):
    entries("twin-v0", "first_package:Twin")
    entries("twin-v0", "second_package:Twin")
    line = _error("twin-v0")
    assert "first_package:Twin" in line
    assert "second_package:Twin" in line


def test_installed_package_is_named_with_its_version(tmp_path, monkeypatch):
    info = tmp_path / "maze_pack-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: maze-pack\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[ulm_swarm.worlds]\nmaze-v9 = maze_pack_missing:Maze\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "maze-v9" in available()
    assert "package maze-pack 1.2 (maze_pack_missing:Maze)" in _error("maze-v9")
