from pathlib import Path

import pytest

from swarm.config.experiment import TopologyConfig
from swarm.errors import SwarmError
from swarm.run.topology import neighbours

AGENTS = [f"a{i}" for i in range(6)]


def test_star_agents_hear_no_other_agent(tmp_path: Path) -> None:
    assert set(neighbours(TopologyConfig(kind="star"), AGENTS, 0, tmp_path).values()) == {()}


def test_ring_agents_hear_two(tmp_path: Path) -> None:
    heard = neighbours(TopologyConfig(kind="ring"), AGENTS, 0, tmp_path)
    assert heard["a0"] == ("a1", "a5")
    assert all(len(others) == 2 for others in heard.values())


def test_ring_of_two_and_of_one(tmp_path: Path) -> None:
    assert neighbours(TopologyConfig(kind="ring"), ["a0", "a1"], 0, tmp_path) == {"a0": ("a1",), "a1": ("a0",)}
    assert neighbours(TopologyConfig(kind="ring"), ["a0"], 0, tmp_path) == {"a0": ()}


def test_complete_agents_hear_all_others(tmp_path: Path) -> None:
    heard = neighbours(TopologyConfig(kind="complete"), AGENTS, 0, tmp_path)
    assert heard["a3"] == ("a0", "a1", "a2", "a4", "a5")


def test_small_world_follows_from_the_seed(tmp_path: Path) -> None:
    agents = [f"a{i}" for i in range(30)]
    config = TopologyConfig(kind="small_world")
    assert neighbours(config, agents, 1, tmp_path) == neighbours(config, agents, 1, tmp_path)
    assert neighbours(config, agents, 1, tmp_path) != neighbours(config, agents, 2, tmp_path)


def test_file_names_edges(tmp_path: Path) -> None:
    (tmp_path / "edges").write_text("0 2 # first\n\n2 5\n")
    heard = neighbours(TopologyConfig(kind="file", path="edges"), AGENTS, 0, tmp_path)
    assert heard["a2"] == ("a0", "a5")
    assert heard["a1"] == ()


@pytest.mark.parametrize("line", ["0", "0 6", "a b", "1 2 3", "-1 2"])
def test_malformed_edge_names_file_and_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "edges").write_text(f"0 1\n{line}\n")
    with pytest.raises(SwarmError, match=r"edges:2: "):
        neighbours(TopologyConfig(kind="file", path="edges"), AGENTS, 0, tmp_path)


def test_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(SwarmError, match="cannot read topology file"):
        neighbours(TopologyConfig(kind="file", path="nowhere"), AGENTS, 0, tmp_path)
