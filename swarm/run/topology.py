"""Who reads whose reports: the communication graph of a run.

Owns the networkx graph behind the `topology` section. Knows no messages.
"""

from collections.abc import Sequence
from pathlib import Path

import networkx as nx

from swarm.config.experiment import TopologyConfig
from swarm.errors import SwarmError
from swarm.files import path_in
from swarm.seeds import derive_seed

SMALL_WORLD = (4, 0.1)
"""Neighbours of each agent in a small world, and the share of its links that are moved (Watts and Strogatz 1998)."""


def neighbours(config: TopologyConfig, agents: Sequence[str], seed: int, base_dir: Path) -> dict[str, tuple[str, ...]]:
    """Return, for every agent, the agents whose reports it reads, in fixed order.

    Args:
        config: kind and its settings.
        agents: all agent ids in order.
        seed: run seed; a small world is drawn from it.
        base_dir: folder that a topology file's path is relative to.

    Raises:
        SwarmError: the file is missing, malformed, or names an agent that does not exist.
    """
    n = len(agents)
    graph: nx.Graph
    match config.kind:
        case "none" | "star":
            graph = nx.empty_graph(n)
        case "ring":
            graph = nx.cycle_graph(n) if n > 2 else nx.path_graph(n)
        case "complete":
            graph = nx.complete_graph(n)
        case "small_world":
            degree, moved = SMALL_WORLD
            graph = nx.watts_strogatz_graph(n, min(degree, n - 1), moved, seed=derive_seed(seed, "topology") % 2**32)
        case "file":
            graph = _from_file(path_in(base_dir, str(config.path)), n)
    return {a: tuple(agents[j] for j in sorted(graph.neighbors(i)) if j != i) for i, a in enumerate(agents)}


def _from_file(path: Path, n: int) -> nx.Graph:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SwarmError(f"cannot read topology file {path}: {error}") from error
    graph = nx.empty_graph(n)
    for number, line in enumerate(lines, 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or not all(word.isdigit() and int(word) < n for word in words):
            raise SwarmError(f"{path}:{number}: expected two agent numbers below {n}, got {line.strip()!r}")
        graph.add_edge(int(words[0]), int(words[1]))
    return graph
