"""How well a µLM reads pages of archive-v0, and asks: claims it notes, and look-ups it writes.

`python tests/benchmarks/archive_claims.py experiments/policies/archive-agent` prints F1 of the set of claims of a page
over all claims, for sentences of lessons and those that no lesson has, and names of lessons and others; claims that
make no sense; the null control (claims against another page); and look-ups that are right, by relations. With
`--pattern` notes are kept to the world's grammar, as those of agents with `constrained: true` are.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from swarm.prompt import STOP, agent_prompt
from ulm.checkpoint import load_checkpoint
from ulm.decode.constraint import Constraint
from ulm.decode.engine import Engine, GenerationRequest
from worlds.archive.grammar import mentions, parse_note
from worlds.archive.town import NOW, Page, Town
from worlds.archive.world import note_pattern

LONGEST = 160
BATCH = 64


def pages(count: int, held_out: bool, wordings: str, seed: int) -> list[Page]:
    """Return pages of so many towns, one of each."""
    found = []
    for number in range(count):
        town = Town(random.Random(f"{seed} {number}"), 16, held_out, wordings)
        found.append(town.page(town.rng.choice([thing for thing in town.things if thing.type != "region"]), NOW))
    return found


def answers(engine: Engine, observations: Sequence[str], handles: Sequence[int] = ()) -> list[str]:
    """Return what the model says, greedily; with the number of handles of each page, in the grammar of notes."""
    forms = {count: Constraint.from_regex(f"({note_pattern(count)}){STOP}", engine.tokenizer) for count in set(handles)}
    requests = [
        GenerationRequest(agent_prompt(text), 0, LONGEST, 0.0, stop=(STOP,), constraint=forms[count] if forms else None)
        for text, count in zip(observations, handles or [0] * len(observations), strict=True)
    ]
    batches = [requests[at : at + BATCH] for at in range(0, len(requests), BATCH)]
    return [result.text for batch in batches for result in engine.generate(batch)]


def f1_of(said: Sequence[set[str]], true: Sequence[set[str]], seed: int = 0) -> str:
    """Return F1 over all claims with its interval, pages resampled."""
    both = np.array([len(s & t) for s, t in zip(said, true, strict=True)])
    some = np.array([len(s) + len(t) for s, t in zip(said, true, strict=True)])
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(both), (2000, len(both)))
    low, high = np.quantile(2 * both[drawn].sum(1) / some[drawn].sum(1), [0.025, 0.975])
    return f"{2 * both.sum() / some.sum():.4f} [{low:.4f}, {high:.4f}] of {sum(map(len, true)):,} claims"


def main() -> None:
    """Read, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("policy", type=Path)
    parser.add_argument("--pages", type=int, default=600, help="of each kind")
    parser.add_argument("--pattern", action="store_true", help="keep notes to the grammar of the world")
    args = parser.parse_args()
    checkpoint = load_checkpoint(args.policy)
    engine = Engine(checkpoint.model, checkpoint.tokenizer)
    malformed = claims = 0
    for name, held_out, wordings in (
        ("sentences and names of lessons", False, "seen"),
        ("names that no lesson has", True, "seen"),
        ("sentences that no lesson has", False, "held_out"),
        ("neither names nor sentences of lessons", True, "held_out"),
    ):
        some = pages(args.pages, held_out, wordings, 7)
        shown = [f"doc {number % 120} year {NOW} : {page.text}" for number, page in enumerate(some)]
        texts = answers(engine, shown, [len(page.mentions) for page in some] if args.pattern else ())
        said = []
        for page, text in zip(some, texts, strict=True):
            found, wrong = parse_note(text.strip().removeprefix("note").strip(), mentions(page.text))
            malformed, claims = malformed + len(wrong), claims + len(found) + len(wrong)
            said.append(set(map(str, found)))
        true = [set(map(str, page.claims)) for page in some]
        exact = sum(s == t for s, t in zip(said, true, strict=True)) / len(true)
        print(f"{name:<40} F1 {f1_of(said, true)}; whole pages {exact:.3f}", flush=True)
    print(f"{'null control: the next page':<40} F1 {f1_of(said, true[1:] + true[:1])}")
    print(f"claims that make no sense: {malformed} of {claims:,}")
    for hops in (1, 2, 3, 4):
        asked = []
        for number in range(args.pages // 2):
            question = Town(random.Random(f"ask {hops} {number}"), 16, True).question(hops)
            asked += [] if question is None else [question]
        texts = answers(engine, [f"asked q{number % 40} : {one.text}" for number, one in enumerate(asked)])
        right = sum(t.startswith(f"answer {q.query}") for t, q in zip(texts, asked, strict=True))
        print(f"look-ups over {hops} relations right: {right / len(asked):.4f} of {len(asked)}", flush=True)


if __name__ == "__main__":
    main()
