"""Agents that play codebook-v0 by rule, with perfect memories of several spans.

`python tests/fakes/codebooks.py` prints what they come to in the second half of a run.
"""

from __future__ import annotations

import sys
from collections import deque
from statistics import fmean

from worlds import make
from worlds.codebook.lessons import Reader
from worlds.codebook.playbook import CodebookPlaybook
from worlds.codebook.world import CodebookWorld
from worlds.protocol import Report, Situation, Turn

MEMORIES = {"all of the run": None, "the last 128 notes": 128, "the last 64 notes": 64, "this episode": "episode"}


class LastNotes(Reader):
    """Remembers the last notes alone, repeated ones included."""

    def __init__(self, capacity):
        super().__init__()
        self.notes = deque(maxlen=capacity)


def play_run(memory, seed=0, num_agents=1, directed=False, **options):
    """Play a run of codebook `seed`.

    Returns:
        turns, and beside each the tokens of its prompt and action, in words.
    """
    options = {"codebook": seed, "episodes": 20} | options
    world = make("codebook-v0", num_agents, options)
    played, readers = [], {}
    for episode in range(options["episodes"]):
        if not readers or memory == "episode":
            capacity = None if memory == "episode" else memory
            readers = {agent: LastNotes(capacity) for agent in world.possible_agents}
        seen, infos = world.reset(1000 * seed + episode, {"episode": episode})
        reports = []
        while world.agents:
            reports += [Report(0, agent, info["report"]) for agent, info in infos.items() if "report" in info]
            situation = Situation(world.goal(), tuple(world.agents), tuple(reports))
            told = CodebookPlaybook().rules(situation) if directed else {}
            actions = {agent: readers[agent].act(seen[agent], told.get(agent, "")) for agent in world.agents}
            result = world.step(actions)
            infos = result.infos
            for agent, action in actions.items():
                tokens = len(f"{seen[agent]} {told.get(agent, '')} {action}".split())
                info, reward = infos[agent], result.rewards[agent]
                turn = Turn(episode, agent, seen[agent], action, info["valid"], reward, info["feedback"])
                played.append((turn, tokens))
            seen = result.observations
    return played


def figures(played, first=0):
    """Return what the world measures from an episode on, and the tokens per opened vault."""
    late = [(turn, tokens) for turn, tokens in played if turn.episode >= first]
    opened = sum(turn.reward > 0 for turn, _ in late)
    measured = CodebookWorld.measures([turn for turn, _ in late])
    return measured | {"tokens per opened vault": sum(tokens for _, tokens in late) / opened}


def table(seeds, **settings):
    """Print means over seeds, with their range."""
    for name, memory in MEMORIES.items():
        rows = [figures(play_run(memory, seed, **settings), 10) for seed in seeds]
        print(f"{name}:")
        for figure in rows[0]:
            found = [row[figure] for row in rows]
            print(f"    {figure:<24} {fmean(found):8.3f}   {min(found):.3f} to {max(found):.3f}")


if __name__ == "__main__":
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
    print(f"codebook-v0, episodes 11-20, {len(seeds)} codebooks, one agent")
    table(seeds)
    for directed in (False, True):
        print(f"four agents, vaults ask for what any of them was told, {'directed' if directed else 'each alone'}")
        table(seeds, num_agents=4, rooms=4, foreign=True, directed=directed)
