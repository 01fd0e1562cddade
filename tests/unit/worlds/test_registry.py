"""The registry finds worlds by id and explains every mistake in one line."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint

import pytest

from worlds import (
    World,
    WorldError,
    available,
    entry_points,
    load_lessons,
    load_playbook,
    make,
    register,
    registry,
    world_class,
)
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
    assert available() == list(registry._BUILT_IN)
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
    assert f"Available: {', '.join(available())}" in line


def test_unrelated_world_name_gets_no_false_suggestion(registered):
    line = _error("xyzzy")
    assert "did you mean" not in line
    assert "Available: archive-v0" in line


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
        ([("rooms", 3)], ["should be a valid dictionary"]),
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


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Write the modules of an installed package `maze-pack 1.2`, whose world is maze-v9."""

    def write(**modules):
        name = f"maze_pack_{re.sub(r'[^a-z0-9]', '_', tmp_path.name)}"  # modules stay imported
        folder = tmp_path / name
        folder.mkdir()
        (folder / "__init__.py").write_text("")
        for module, text in modules.items():
            (folder / f"{module}.py").write_text(text.replace("PACKAGE", name))
        info = tmp_path / "maze_pack-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: maze-pack\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[ulm_swarm.worlds]\nmaze-v9 = {name}.world:Maze\n")
        monkeypatch.syspath_prepend(str(tmp_path))

    return write


MAZE = """
from worlds.graph.world import GraphWorld

class Maze(GraphWorld):
    id = "maze-v9"
    playbook = {playbook!r}
    lessons = {lessons!r}
"""


def _maze(playbook=None, lessons=None):
    return MAZE.format(playbook=playbook, lessons=lessons)


BOOK = """
from worlds import Playbook

class Book(Playbook):
    directive, about = "up", "Go up."
    def rules(self, situation):
        return {}
"""
LESSONS = """
from worlds import Lessons

class Taught(Lessons):
    def example(self, task, rng, held_out, kind=None):
        return []
"""


def test_a_package_brings_a_world_with_playbook_and_lessons(package):
    package(
        world=_maze("PACKAGE.book:Book", "PACKAGE.lessons:Taught"),
        book=BOOK
        + "    def briefings(self, situation):\n        return []\n    parse = lambda self, text, briefing: {}\n",
        lessons=LESSONS + "    tasks = {'maze-agent': ('go',)}\n",
    )
    book, lessons = load_playbook("maze-v9"), load_lessons("maze-v9")
    assert (book.rules(None), book.menu, book.declined("", None, False)) == ({}, None, [])
    assert lessons.tasks == {"maze-agent": ("go",)}
    assert isinstance(make("maze-v9", 1), GraphWorld)


def test_a_world_without_playbook_and_lessons_is_a_world(package):
    package(world=_maze())
    assert (load_playbook("maze-v9"), load_lessons("maze-v9")) == (None, None)
    assert isinstance(make("maze-v9", 1), GraphWorld)


BROKEN = {
    "which failed to load": ({"world": "import no_such_module"}, "ModuleNotFoundError"),
    "has no attribute 'Maze'": ({"world": ""}, "failed to load"),
    "which is not a subclass of worlds.protocol.World": ({"world": "class Maze: ..."}, "fix or uninstall it"),
    "whose class has the id 'graph-v0'": (
        {"world": "from worlds.graph.world import GraphWorld as Maze"},
        "make the two equal",
    ),
    "book:Book failed to load": ({"world": _maze("PACKAGE.book:Book")}, "No module named"),
    "has no attribute 'Buch'": ({"world": _maze("PACKAGE.book:Buch"), "book": BOOK}, "failed to load: AttributeError"),
    "whose playbook book names nothing": ({"world": _maze("book")}, "write 'package.module:Name'"),
    "abstract method": ({"world": _maze("PACKAGE.book:Book"), "book": BOOK}, "cannot be made"),
    "is no class": ({"world": _maze("PACKAGE.book:Book"), "book": "Book = 3"}, "whose playbook"),
    "lacks about, menu, rules": (
        {"world": _maze("PACKAGE.book:Book"), "book": "class Book:\n    directive = 'up'"},
        "fix or uninstall it",
    ),
    "lacks tasks": ({"world": _maze(None, "PACKAGE.lessons:Taught"), "lessons": LESSONS}, "whose lessons"),
    "have no tasks": (
        {"world": _maze(None, "PACKAGE.lessons:Taught"), "lessons": LESSONS + "    tasks = {}\n"},
        "name one, or set lessons = None",
    ),
}


@pytest.mark.parametrize("words", BROKEN)
def test_a_broken_package_is_named_with_what_is_missing(package, words):
    modules, more = BROKEN[words]
    package(**modules)
    load = load_lessons if "lessons" in modules else load_playbook
    with pytest.raises(WorldError) as caught:
        load("maze-v9")
    line = str(caught.value)
    assert line.startswith("world 'maze-v9' comes from the package maze-pack 1.2 (maze_pack_")
    assert words in line
    assert more in line
    assert "\n" not in line
