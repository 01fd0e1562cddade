"""What a shared registry is worth in archive-v0: arms against each other, at equal reading.

`python tests/benchmarks/archive.py --out runs/archive --episodes 30 --seeds 1 2 3` plays each arm with agents that
read by hand-written rules and never err: what is measured is the memory, who is meant, and who reads what. The same
command goes on with what is there. With `--set file='"countries.json"'` it does so on real countries.

Every rival may read as many documents and use as many tokens as it likes for that; what it used is printed. Rivals
(`tests/fakes/archive_rivals.py`) were tuned on `--set names='"seen"' --seeds 101`, which no result is measured on.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swarm.config.experiment import ExperimentConfig
from swarm.run.episode import start_of
from swarm.run.runner import start_run
from swarm.stats import paired_difference, rate_interval
from worlds.archive.grammar import UNKNOWN
from worlds.archive.world import ArchiveWorld

sys.path.insert(0, str(Path(__file__).parents[1]))
from fakes.archive_reader import ArchiveReaders
from fakes.archive_rivals import RivalReaders
from fakes.scripted_run import play

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "archive.yaml"
REGISTRY = {"kind": "registry"}
HEARD = {"memory": None, "topology": "complete", "options": {"tells": "claims"}}
LESS = {**HEARD, "options": {"tells": "claims", "reading": 0.14}}
"""Messages at about the tokens of a registry: of less that is read."""
ARMS: Mapping[str, Mapping[str, Any]] = {
    "shared": {},
    "solo": {"count": 1},
    "private": {"memory": {"shared": False}, "rival": {"rival": "alone"}},
    "private reads on": {"memory": {"shared": False}, "rival": {"rival": "alone", "reads_on": True}},
    "exact": {"memory": None, "rival": {"rival": "strings"}},
    "messages 192": {**HEARD, "rival": {"rival": "messages", "window": 192}},
    "messages 192 reads on": {**HEARD, "rival": {"rival": "messages", "window": 192, "reads_on": True}},
    "messages 1024": {**HEARD, "rival": {"rival": "messages", "window": 1024}},
    "messages 1024 reads on": {**HEARD, "rival": {"rival": "messages", "window": 1024, "reads_on": True}},
    "messages 1024 less read": {**LESS, "rival": {"rival": "messages", "window": 1024}},
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

Key = tuple[int, int, int]
"""(seed, episode, question)."""


@dataclass(slots=True)
class Answer:
    """What came of a question.

    Attributes:
        hops: relations that it needs; 0 where it has no answer.
        right: whether it was answered right. unknown: whether it was called unknown.
        lied: whether it was answered as a forged document has it, after that was told; None where that is no matter.
    """

    hops: int
    right: bool = False
    unknown: bool = False
    lied: bool | None = None


@dataclass(slots=True)
class Played:
    """What came of an arm: answers, and tokens and ticks of each episode."""

    answers: dict[Key, Answer]
    tokens: list[int]
    ticks: list[int]


def config_of(
    arm: str, seed: int, episodes: int, agents: int, options: Mapping[str, Any], policy: Path | None = None
) -> ExperimentConfig:
    """Return the experiment of an arm, as that of archive.yaml if a policy plays it."""
    changed = ARMS[arm]
    engine = {"kind": "ulm", "model": "rules" if policy is None else str(policy.resolve())}
    spoken = {"max_new_tokens": 400} if policy is None else {"max_new_tokens": 96, "temperature": 0.0}
    registry = changed.get("memory", {})
    memory = ["stm", *([] if registry is None else [REGISTRY | registry])]
    count = {"count": changed.get("count", agents), "engine": engine, "memory": memory}
    return ExperimentConfig.model_validate(
        {
            "name": "archive",
            "seed": seed,
            "world": {"id": ArchiveWorld.id, "options": {**options, **changed.get("options", {})}},
            "agents": count | spoken,
            "topology": {"kind": changed.get("topology", "star")},
            "coordinator": {"kind": changed.get("coordinator", "rules"), "shuffled": changed.get("shuffled", False)},
            "episodes": episodes,
            "concurrency": 1 if policy is None else 5,
            "runtime": {"pool": "local"},
        }
    )


def play_arm(arm: str, args: argparse.Namespace, options: Mapping[str, Any]) -> Played:
    """Play an arm with all seeds, or go on where it was left."""
    found = Played({}, [], [])
    for seed in args.seeds:
        config = config_of(arm, seed, args.episodes, args.agents, options, args.policy)
        run_dir = args.out / f"{arm.replace(' ', '-')}-s{seed}"
        run_dir.parent.mkdir(parents=True, exist_ok=True)
        rival = ARMS[arm].get("rival")
        if args.policy is not None:
            start_run(config, EXPERIMENT, run_dir)
        else:
            play(run_dir, config, RivalReaders(config, **rival) if rival else ArchiveReaders(config))
        _take_in(found, config, run_dir)
    return found


def _take_in(found: Played, config: ExperimentConfig, run_dir: Path) -> None:
    """Take in what came of a run, its worlds stepped again; what was never answered was not answered right."""
    worlds: dict[int, ArchiveWorld] = {}
    options = ArchiveWorld.Options.model_validate(dict(config.world.options))
    for line in (run_dir / "journal.jsonl").read_text("utf-8").splitlines():
        record = json.loads(line)
        if record["kind"] == "episode":
            world = worlds[record["episode"]] = ArchiveWorld(config.agents.count, options)
            world.reset(*start_of(config, record["episode"], 0))
            for number, question in enumerate(world.questions):
                hops = len(question.path) if question.answer else 0
                found.answers[config.seed, record["episode"], number] = Answer(hops)
        elif record["kind"] == "tick":
            world = worlds[record["episode"]]
            for entry in record["agents"]:
                if (number := world.asks(entry["agent"])) is not None and entry["action"].startswith("answer "):
                    _take(found.answers[config.seed, record["episode"], number], world, number, entry)
            world.step({entry["agent"]: entry["action"] for entry in record["agents"] if "fault" not in entry})
        elif record["kind"] == "episode_end":
            found.tokens.append(record["tokens"])
            found.ticks.append(worlds.pop(record["episode"]).steps)


def _take(found: Answer, world: ArchiveWorld, number: int, entry: Mapping[str, Any]) -> None:
    question = world.questions[number]
    said = entry["action"].removeprefix("answer ").rpartition("=")[2].strip()
    found.right, found.unknown = entry["reward"] > 0, said == UNKNOWN
    if world.forged is not None and entry["agent"] in world.state()["told"]:
        lied, true = (world.town.follow(question, one) for one in (world.documents[world.forged], None))
        if isinstance(lied, int) and lied != true:
            found.lied = said in world.town.things[lied].names


def share(answers: Mapping[Key, bool]) -> str:
    """Return a share with its interval, by episodes."""
    if not answers:
        return "-"
    found = rate_interval([*answers.values()], [key[:2] for key in answers])
    return f"{found.estimate:.3f} [{found.low:.3f}, {found.high:.3f}] n={len(answers)}"


def difference(a: Played, b: Played, hops: Sequence[int]) -> str:
    """Return how many more questions one arm answers right than another, of the same episodes."""
    keys = [key for key, answer in a.answers.items() if answer.hops in hops and key in b.answers]
    if not keys:
        return "-"
    right = ([played.answers[key].right for key in keys] for played in (a, b))
    found = paired_difference(*right, clusters=[key[:2] for key in keys])
    return f"{found.estimate:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def tell(arm: str, played: Played, shared: Played | None) -> None:
    """Print what came of an arm, and what sharing a registry is worth against it."""
    answers, ticks = played.answers, sum(played.ticks) / len(played.ticks)
    print(f"{arm}: {ticks:.1f} ticks and {sum(played.tokens) / len(played.tokens):,.0f} tokens an episode")
    for hops in range(1, 5):
        more = f"   shared - this {difference(shared, played, [hops])}" if shared and shared is not played else ""
        print(f"  {hops} hops right       {share({k: a.right for k, a in answers.items() if a.hops == hops})}{more}")
    print(f"  none left alone    {share({k: a.right for k, a in answers.items() if not a.hops})}")
    print(f"  false unknown      {share({k: a.unknown for k, a in answers.items() if a.hops})}")
    print(f"  forged answers     {share({k: a.lied for k, a in answers.items() if a.lied is not None})}")
    if shared and shared is not played:
        ratio = sum(shared.ticks) / len(shared.ticks) / ticks
        print(f"  shared - this from 2 hops on {difference(shared, played, [2, 3, 4])}; its ticks / this {ratio:.2f}")


def main() -> None:
    """Play, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--agents", type=int, default=4)
    parser.add_argument("--policy", type=Path, help="a trained µLM plays, not rules; for arms that are no rivals")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=[*ARMS])
    parser.add_argument("--set", nargs="*", default=[], metavar="OPTION=VALUE", help="options of the world, as JSON")
    args = parser.parse_args()
    options = {name: json.loads(value) for name, _, value in (one.partition("=") for one in args.set)}
    shared: Played | None = None
    for arm in args.arms:
        began_s = time.process_time()
        played = play_arm(arm, args, options)
        shared = played if arm == "shared" else shared
        tell(arm, played, shared)
        print(f"  {time.process_time() - began_s:.0f} s of a core", flush=True)


if __name__ == "__main__":
    main()
