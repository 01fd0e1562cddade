"""What a shared registry is worth in archive-v0: arms against each other, at equal reading.

`python tests/benchmarks/archive.py --out runs/archive --episodes 100 --seeds 1 2 3` plays each arm with agents that
read by hand-written rules and never err: what is measured is the registry, who is meant, and who reads what.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swarm.config.experiment import ExperimentConfig
from swarm.run.episode import start_of
from swarm.stats import rate_interval
from worlds.archive.grammar import UNKNOWN
from worlds.archive.world import ArchiveWorld

sys.path.insert(0, str(Path(__file__).parents[1]))
from fakes.archive_reader import ArchiveReaders
from fakes.scripted_run import play

REGISTRY = {"kind": "registry"}
ARMS: Mapping[str, Mapping[str, Any]] = {
    "shared": {},
    "private": {"memory": {"shared": False}},
    "no registry": {"memory": None},
    "solo": {"count": 1},
    "not directed": {"coordinator": "none"},
    "directives shuffled": {"shuffled": True},
    "by name": {"memory": {"control": "by_name"}},
    "by text": {"memory": {"control": "by_text"}},
    "values shuffled": {"memory": {"control": "shuffled_values"}},
    "subjects shuffled": {"memory": {"control": "shuffled_subjects"}},
    "capacity 1": {"memory": {"control": "capacity_1"}},
    "no reads": {"memory": {"control": "no_reads"}},
}
"""What differs from a swarm of four with one registry, which the rules direct."""


@dataclass(slots=True)
class Answers:
    """What came of questions.

    Attributes:
        right: hops -> for each question, whether it was answered right; 0 are those without an answer.
        unknown: for each question that has an answer, whether it was called unknown.
        forged: for each question that a forged document answers otherwise, whether it was answered so.
        tokens, ticks: of each episode.
    """

    right: dict[int, list[bool]] = field(default_factory=lambda: defaultdict(list))
    unknown: list[bool] = field(default_factory=list)
    forged: list[bool] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    ticks: list[int] = field(default_factory=list)


def config_of(arm: str, seed: int, episodes: int, options: Mapping[str, Any]) -> ExperimentConfig:
    """Return the experiment of an arm."""
    changed = ARMS[arm]
    registry = changed.get("memory", {})
    memory = ["stm", *([] if registry is None else [REGISTRY | registry])]
    agents = {"count": changed.get("count", 4), "engine": {"kind": "ulm", "model": "rules"}, "memory": memory}
    return ExperimentConfig.model_validate(
        {
            "name": "archive",
            "seed": seed,
            "world": {"id": ArchiveWorld.id, "options": dict(options)},
            "agents": agents | {"max_new_tokens": 400},
            "coordinator": {"kind": changed.get("coordinator", "rules"), "shuffled": changed.get("shuffled", False)},
            "episodes": episodes,
        }
    )


def answers_of(config: ExperimentConfig, run_dir: Path) -> Answers:
    """Return what came of a run, its worlds stepped again."""
    found, worlds = Answers(), dict[int, ArchiveWorld]()
    for line in (run_dir / "journal.jsonl").read_text("utf-8").splitlines():
        record = json.loads(line)
        if record["kind"] == "episode":
            options = ArchiveWorld.Options.model_validate(dict(config.world.options))
            world = worlds[record["episode"]] = ArchiveWorld(config.agents.count, options)
            seed, start = start_of(config, record["episode"], 0)
            world.reset(seed, start)
        elif record["kind"] == "tick":
            world = worlds[record["episode"]]
            for entry in record["agents"]:
                if (number := world.asks(entry["agent"])) is not None and entry["action"].startswith("answer "):
                    _take(found, world, number, entry)
            world.step({entry["agent"]: entry["action"] for entry in record["agents"] if "fault" not in entry})
        elif record["kind"] == "episode_end":
            found.tokens.append(record["tokens"])
            found.ticks.append(worlds[record["episode"]].steps)
    return found


def _take(found: Answers, world: ArchiveWorld, number: int, entry: Mapping[str, Any]) -> None:
    question = world.questions[number]
    said = entry["action"].removeprefix("answer ").rpartition("=")[2].strip()
    found.right[len(question.path) if question.answer else 0].append(entry["reward"] > 0)
    if question.answer:
        found.unknown.append(said == UNKNOWN)
    if world.forged is not None:
        lied, true = (world.town.follow(question, one) for one in (world.documents[world.forged], None))
        if isinstance(lied, int) and lied != true:
            found.forged.append(said in world.town.things[lied].names)


def share(values: Sequence[bool]) -> str:
    """Return a share with its interval."""
    if not values:
        return "-"
    found = rate_interval(values)
    return f"{found.estimate:.3f} [{found.low:.3f}, {found.high:.3f}] n={len(values)}"


def main() -> None:
    """Play, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=[*ARMS])
    parser.add_argument("--set", nargs="*", default=[], metavar="OPTION=VALUE", help="options of the world")
    args = parser.parse_args()
    options = {name: json.loads(value) for name, _, value in (one.partition("=") for one in args.set)}
    for arm in args.arms:
        total = Answers()
        began_s = time.monotonic()
        for seed in args.seeds:
            config = config_of(arm, seed, args.episodes, options)
            run_dir = args.out / f"{arm.replace(' ', '-')}-s{seed}"
            run_dir.parent.mkdir(parents=True, exist_ok=True)
            play(run_dir, config, ArchiveReaders(config))
            one = answers_of(config, run_dir)
            for hops, values in one.right.items():
                total.right[hops] += values
            for name in ("unknown", "forged", "tokens", "ticks"):
                getattr(total, name).extend(getattr(one, name))
        print(f"{arm}: {time.monotonic() - began_s:.0f} s, {sum(total.ticks) / len(total.ticks):.0f} ticks and "
              f"{sum(total.tokens) / len(total.tokens):,.0f} tokens an episode", flush=True)  # fmt: skip
        for hops in range(1, 5):
            print(f"  {hops} hops right       {share(total.right[hops])}", flush=True)
        print(f"  none left alone    {share(total.right[0])}")
        print(f"  false unknown      {share(total.unknown)}")
        print(f"  forged answers     {share(total.forged)}", flush=True)


if __name__ == "__main__":
    main()
