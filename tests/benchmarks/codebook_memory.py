"""Agents over the twenty episodes of a run, with memories of the same bytes: experiments/codebook.yaml.

    python tests/benchmarks/codebook_memory.py --out runs/codebook-memory --seeds 1 2 3

Resumes by the same command. Every arm has the bytes of 256 items (`--arms` ending in 64: of 64). Printed for episodes
11 to 20: the share of vaults opened for recurring, changed and one-off notes with intervals over vaults, tokens per
opened vault and pages read; consolidations that merged something; and the share opened in episodes 1 to 10, so that a
decline would be seen. `forced` merges without the test, `blind` merges what is not the same (null controls).
"""

import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from swarm.config.load import load_experiment
from swarm.record.journal import read_records
from swarm.run.experience import experience
from swarm.run.runner import start_run
from swarm.stats import format_interval, rate_interval
from worlds.codebook.world import CLOSED

sys.path.insert(0, str(Path(__file__).parent))
from arms import arms_parser

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "codebook.yaml"
SLOTS: dict[int, dict[str, int]] = {256: {"capacity": 128, "slots": 456}, 64: {"capacity": 64, "slots": 150}}
"""Places that take the bytes of so many items (an item 1,112 bytes, beside slots 1,084, a slot 320); of 64 between
calls, when a third of the places for items are taken at most."""

RULES: dict[int, dict[str, float]] = {256: {}, 64: {"at": 0.33, "keep": 0.33}}


def memories(size: int) -> dict[str, dict[str, Any] | None]:
    """Return arm -> settings of the long-term memory; None for one that ends with the episode."""
    slots, rules = SLOTS[size], RULES[size]
    return {
        f"first in first out {size}": {"policy": {"capacity": size}},
        f"overwrite {size}": {"policy": {"capacity": size, "overwrite": 0.9}},
        f"consolidated {size}": {"policy": slots, "consolidate": rules},
        f"consolidated, overwrite {size}": {"policy": {**slots, "overwrite": 0.9}, "consolidate": rules},
        f"mass one {size}": {"policy": slots, "consolidate": {**rules, "mass": "one"}},
        f"not merged {size}": {"policy": slots, "consolidate": {**rules, "same_key": 1.0}},
        f"forced {size}": {"policy": slots, "consolidate": {**rules, "gate": False}},
        f"blind {size}": {"policy": slots, "consolidate": {**rules, "gate": False, "same_key": 0.5}},
    }


ARMS = {"one episode": None, **memories(256), **memories(64)}


def settings(arm: str) -> str:
    """Return the override of `agents.memory` of an arm."""
    memory = ARMS[arm]
    if memory is None:
        return "agents.memory=[stm, ltm]"
    told = ", ".join(f"{name}: {_flow(value)}" for name, value in memory.items())
    return f"agents.memory=[stm, {{kind: ltm, span: run, {told}}}]"


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_flow(one)}" for name, one in value.items()) + "}"
    return str(value).lower()


def main() -> None:
    """Run all arms, or go on with them, and print what they opened."""
    parser = arms_parser(__doc__, ARMS)
    asked = parser.parse_args()
    for arm in asked.arms:
        opened: dict[tuple[str, int], list[bool]] = defaultdict(list)
        pages, tokens, vaults, slept, merged = 0, 0, 0, 0, 0
        for seed in asked.seeds:
            config = load_experiment(EXPERIMENT, [settings(arm), *asked.overrides, f"seed={seed}"])
            folder = asked.out / f"{arm.replace(', ', '-').replace(' ', '-')}-s{seed}"
            run_dir = start_run(config, EXPERIMENT, folder).run_dir
            half = config.episodes // 2
            for call in experience(run_dir):
                if call.role != "agent" or call.fault is not None or not (match := CLOSED.fullmatch(call.feedback)):
                    continue
                late = int(call.key[0] >= half)
                opened[match["kind"], late].append(match["result"] == "right")
                pages, vaults = pages + late * int(match["pages"]), vaults + late
            for record in read_records(run_dir / "journal.jsonl"):
                if record["kind"] == "episode_end" and record["episode"] >= half:
                    tokens += record["tokens"]
                if record["kind"] == "change" and record["cause"] == "consolidate":
                    slept, merged = slept + 1, merged + all(test["passed"] for test in record["tests"])
        told = f"{slept} consolidations, {merged} merged; " if slept else ""
        late_opened = sum(sum(right) for (_, late), right in opened.items() if late)
        print(
            f"{arm}: {told}{tokens / max(1, late_opened):.0f} tokens an opened vault, "
            f"{pages / max(1, vaults):.2f} pages a vault"
        )
        for kind in ("recurring", "changed", "one-off"):
            early, last = opened[kind, 0], opened[kind, 1]
            before = f"   episodes 1-{half}: {sum(early) / max(1, len(early)):.3f}"
            print(f"  {kind:>10} {format_interval(rate_interval(last))} n={len(last)}{before}", flush=True)


if __name__ == "__main__":
    main()
