"""Learned rows of entities grow over four corpora: do old answers stay, and does a killed training resume equal?

    python tests/benchmarks/entity_slots.py --out runs/slots [--sizes 1000 5000 20000 100000] [--seeds 1 2 3]

Each corpus brings entities with three facts each, drawn by seed. A small reader answers `which value has this entity
under this relation, on a page that mentions others?` from rows alone. It is trained with the rows of the first corpus
and frozen; later corpora train rows. Each arm and seed is written to `--out` and not run again.

Measured at each growth, on 2,000 questions about entities of earlier corpora:
- answers and logits that are the same just after it, on pages that mention new entities, too (`grown`),
- and after the new corpus is learned, on pages that mention old entities (`learned`), or new ones (`mixed`);
- right answers about the new corpus, and about all at the end.

Arms: rows of zeros and lazy Adam (ours); the same with AdamW; null controls: random rows; and what `expand_embeddings`
of the proposal does, which replaces the parameter and leaves the optimizer with the old one.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swarm.stats import rate_interval
from ulm.engram.optimizer import EngramAdam
from ulm.files import sha256, write_whole
from ulm.memory.registry.slots import EntitySlots

WIDTH, RELATIONS, VALUES, BESIDE = 32, 3, 64, 3
BATCH, ASKED, RATE = 2048, 2000, 0.3
FIRST, EPOCHS = 400, 30
"""Steps of the first corpus, and how often each fact of the others is seen."""

ARMS = ("zeros, lazy Adam", "zeros, AdamW", "null: random rows", "null: parameter replaced")


class Reader(nn.Module):
    """Answers a question about one entity of a page from the rows of all that the page mentions."""

    def __init__(self) -> None:
        super().__init__()
        self.relation = nn.Embedding(RELATIONS, WIDTH)
        self.layers = nn.Sequential(nn.Linear(3 * WIDTH, 128), nn.GELU(), nn.Linear(128, VALUES))

    def forward(self, slots: EntitySlots, asked_B: Tensor, beside_BN: Tensor, relation_B: Tensor) -> Tensor:
        """Return logits of values, (B, V)."""
        parts = slots(asked_B), slots(beside_BN).mean(1), self.relation(relation_B)
        found: Tensor = self.layers(torch.cat(parts, 1))
        return found


class Training:
    """Rows, reader and optimizer over all corpora.

    Args:
        arm: see `ARMS`.
        seed: of facts, reader and batches.
        sizes: entities known after each corpus.
        steps: of each corpus; 0 for as many as it takes to learn.
    """

    def __init__(self, arm: str, seed: int, sizes: Sequence[int], steps: int = 0) -> None:
        torch.manual_seed(seed)
        self.arm, self.seed, self.ends, self._steps = arm, seed, [0, *sizes], steps
        self.value_ER = torch.randint(VALUES, (sizes[-1] + 1, RELATIONS), generator=self._generator(0))
        self.slots, self.reader = EntitySlots(WIDTH, sparse=arm != "zeros, AdamW"), Reader()
        groups = [{"params": [self.slots.weight]}, {"params": list(self.reader.parameters()), "lr": 3e-3}]
        self.optimizer = EngramAdam(groups, weight_decay=0.0, foreach=False)

    def _generator(self, *place: int) -> torch.Generator:
        """Return a generator of its own for each place."""
        return torch.Generator().manual_seed(functools.reduce(lambda at, n: at * 1_000_003 + n, place, self.seed))

    def steps(self, corpus: int) -> int:
        """Return the steps that a corpus takes."""
        facts = (self.ends[corpus + 1] - self.ends[corpus]) * RELATIONS
        return self._steps or (max(100, EPOCHS * facts // BATCH) if corpus else FIRST)

    def grow(self, corpus: int) -> None:
        """Give the entities of a corpus their rows."""
        for entity in range(self.ends[corpus] + 1, self.ends[corpus + 1] + 1):
            self.slots.want(entity)
        self.slots.grow(None if self.arm == "null: parameter replaced" and corpus else self.optimizer)
        if self.arm.startswith("null") and corpus:
            with torch.no_grad():
                rows = self.slots.row_E[self.ends[corpus] + 1 : self.ends[corpus + 1] + 1]
                self.slots.weight[rows] = torch.randn(len(rows), WIDTH, generator=self._generator(1, corpus))

    def step(self, corpus: int, step: int) -> None:
        """Learn a batch of a corpus; the reader learns from the first one alone."""
        self.reader.requires_grad_(corpus == 0)
        for group in self.optimizer.param_groups[:1]:
            group["lr"] = RATE * (1 - step / self.steps(corpus)) + 0.001
        self.optimizer.zero_grad(set_to_none=True)
        asked, beside, relation = self.questions(self.ends[corpus], corpus, BATCH, self._generator(2, corpus, step))
        logits = self.reader(self.slots, asked, beside, relation)
        (F.cross_entropy(logits, self.value_ER[asked, relation], reduction="sum") / BATCH).backward()
        self.optimizer.step()

    def questions(
        self, above: int, corpus: int, count: int, generator: torch.Generator, beside: tuple[int, int] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return questions about entities above a number, up to a corpus, on pages that mention those of `beside`."""
        draw = functools.partial(torch.randint, generator=generator)
        low, high = beside or (above, self.ends[corpus + 1])
        asked = draw(above + 1, self.ends[corpus + 1] + 1, (count,))
        return asked, draw(low + 1, high + 1, (count, BESIDE)), draw(RELATIONS, (count,))

    @torch.no_grad()
    def logits(self, questions: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Return what the reader says, (B, V)."""
        found: Tensor = self.reader(self.slots, *questions)
        return found

    def right(self, questions: tuple[Tensor, Tensor, Tensor]) -> list[bool]:
        """Return for each question whether it is answered right."""
        found = self.logits(questions).argmax(1) == self.value_ER[questions[0], questions[2]]
        return [bool(one) for one in found]

    def save(self, path: Path, corpus: int, step: int) -> None:
        """Write all that it takes to go on after a step."""
        extra = {f"reader.{name}": value for name, value in self.reader.state_dict().items()}
        for name, parameter in self.reader.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                extra[f"moment.{key}.{name}"] = torch.as_tensor(value)
        self.slots.save(path, self.optimizer, extra | {"at": torch.tensor([corpus, step])})

    def load(self, path: Path) -> tuple[int, int]:
        """Go back to what was saved; return corpus and step that come next."""
        extra = self.slots.load(path, self.optimizer)
        named = dict(self.reader.named_parameters())
        for key, value in extra.items():
            kind, _, name = key.partition(".")
            if kind == "reader":
                named[name].data.copy_(value)
            elif kind == "moment":
                moment, _, name = name.partition(".")
                self.optimizer.state[named[name]][moment] = value
        corpus, step = extra["at"].tolist()
        return corpus, step


def measured(arm: str, seed: int, sizes: Sequence[int]) -> list[dict[str, list[bool]]]:
    """Return, for each corpus, what came of the old answers, and which new ones are right."""
    training, table = Training(arm, seed, sizes), list[dict[str, list[bool]]]()
    for corpus in range(len(sizes)):
        old, new = training.ends[corpus], training.ends[corpus + 1]
        row: dict[str, list[bool]] = {}
        if corpus:
            draw = functools.partial(training.questions, 0, corpus - 1, ASKED)
            mixed, own = draw(training._generator(3, corpus), (old, new)), draw(training._generator(4, corpus))
            before = training.logits(mixed), training.logits(own)
        training.grow(corpus)
        if corpus:
            _compare(row, "grown", before[0], training.logits(mixed))
        for step in range(training.steps(corpus)):
            training.step(corpus, step)
        if corpus:
            _compare(row, "learned", before[1], training.logits(own))
            _compare(row, "mixed", before[0], training.logits(mixed))
        row["new ones right"] = training.right(training.questions(old, corpus, ASKED, training._generator(5, corpus)))
        table.append(row)
    for corpus, row in enumerate(table):
        asked = training.questions(training.ends[corpus], corpus, ASKED, training._generator(6, corpus))
        row["right at the end"] = training.right(asked)
    return table


def _compare(row: dict[str, list[bool]], when: str, before_BV: Tensor, after_BV: Tensor) -> None:
    row[f"{when}: same logits"] = (before_BV == after_BV).all(1).tolist()
    row[f"{when}: same answers"] = (before_BV.argmax(1) == after_BV.argmax(1)).tolist()


def work(path: Path, sizes: Sequence[int], told: Any = None) -> None:
    """Train for a few steps a corpus, each saved, from where the file has it; tell what is being done."""
    training, (corpus, step) = Training(ARMS[0], 1, sizes, steps=3), (0, 0)
    say: Callable[[str], None] = told.send if told else lambda word: None
    if path.exists():
        corpus, step = training.load(path)
    while corpus < len(sizes):
        if step == 0:
            say("growing")
            training.grow(corpus)
        say("training")
        training.step(corpus, step)
        corpus, step = (corpus, step + 1) if step + 1 < training.steps(corpus) else (corpus + 1, 0)
        say("saving")
        training.save(path, corpus, step)
    say("done")


def killed(folder: Path, kills: int, sizes: Sequence[int]) -> dict[str, Any]:
    """Kill a training so often, mostly while it grows; return what it was doing, and how often it ended equal."""
    whole, cut, rng, doing, equal = folder / "whole", folder / "cut", random.Random(1), Counter[str](), list[bool]()
    for path in (whole, cut):
        path.unlink(missing_ok=True)
    work(whole, sizes)
    context = multiprocessing.get_context("fork")  # torch is imported already
    word = ""
    while sum(doing.values()) < kills or word != "done":
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=work, args=(cut, sizes, theirs))
        child.start()
        theirs.close()
        wanted = rng.choice(["growing", "growing", "saving", "training"]) if sum(doing.values()) < kills else "done"
        said = iter(functools.partial(_heard, ours), "")
        word = next((word for word in said if word in (wanted, "done")), "")
        if word != "done":
            time.sleep(0.03 * rng.random() ** 3)
            child.kill()
            word = [word, *said][-1]
        child.join()
        if word == "done":
            equal.append(sha256(cut) == sha256(whole))
            cut.unlink()
        else:
            doing[word] += 1
    return {"trainings": len(equal), "equal": sum(equal), "killed while": doing}


def _heard(pipe: Any) -> str:
    """Return the next word, "" where no more will come."""
    try:
        return str(pipe.recv())
    except EOFError:
        return ""


def once(path: Path, measure: Callable[[], Any]) -> Any:
    """Return what was measured, now or before."""
    if not path.exists():
        write_whole(path, json.dumps(measure()))
    return json.loads(path.read_text("utf-8"))


def show(arm: str, sizes: Sequence[int], tables: Sequence[Sequence[Mapping[str, Sequence[bool]]]]) -> None:
    """Print an arm, all seeds together."""
    for corpus, size in enumerate(sizes):
        for name in tables[0][corpus]:
            one = rate_interval([hit for table in tables for hit in table[corpus][name]])
            interval = f"{one.estimate:.4f} [{one.low:.4f}, {one.high:.4f}]"
            print(f"{arm:<26} {size:>7,} entities  {name:<22} {interval}", flush=True)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 5000, 20_000, 100_000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--arms", nargs="*", choices=ARMS, default=[*ARMS], help="none: kills alone")
    parser.add_argument("--kills", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(1)  # so that a process can fork
    args.out.mkdir(parents=True, exist_ok=True)
    for arm in args.arms:
        tables = [
            once(
                args.out / f"{ARMS.index(arm)}-{'-'.join(map(str, args.sizes))}-s{seed}.json",
                lambda arm=arm, seed=seed: measured(arm, seed, args.sizes),
            )
            for seed in args.seeds
        ]
        show(arm, args.sizes, tables)
    if args.kills:
        what = once(args.out / f"killed-{args.kills}.json", lambda: killed(args.out, args.kills, args.sizes[:3]))
        print(f"killed {what['killed while']}: {what['equal']} of {what['trainings']} trainings ended equal")


if __name__ == "__main__":
    main()
