"""Texts to propositions and back on WebNLG (dev part), handles given, in so many minutes of one core.

    python tests/benchmarks/webnlg.py --data ../shared/data/webnlg --out runs/webnlg --minutes 40 --arms one shuffled

Resumes by the same command in the same working folder. Mentions are bare handles, numbered as a text has them; roles of
the data's own tags are not shown. An arm takes so many minutes (processor seconds, measured on its first steps) in all
its nets and rounds, beside reading and writing texts of its own.

one         one network on all pairs: what is aimed at (F1 .63, BLEU 40)
shuffled    null control: texts with the propositions of other texts
tenth       one network on a tenth of the entries
rounds      the same, and round trips on texts and propositions of the others, apart from each other
two_halves  the same with a network of half the size for each direction
foreign     null control of `rounds`: what was made of another text

F1 is over all triples of a text's entry, one text at a time, of which .957 have both mentions tagged. BLEU (sacrebleu)
has all texts of an entry as references, and handles as words. Intervals: entries resampled. Trained weights stay here:
the data's licence (CC BY-NC-SA) does not allow to ship them.
"""

import json
import random
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from arms import arms_parser

from swarm.stats import Interval, format_interval, ratio_interval
from swarm.train.recipe import load_recipe
from swarm.train.training import open_training, train_policy
from ulm.symmetric.network import Network, own_claims, own_texts
from ulm.symmetric.pairs import SHARES, Pair, relations_of, write_pairs
from ulm.symmetric.propositions import (
    Numbering,
    Proposition,
    handles_of,
    in_order_of,
    read,
    shared_and_all,
    without_names,
    written,
)
from ulm.train.step import Worker, train_step

TAG = re.compile(r"(?:AGENT|PATIENT|BRIDGE)-[0-9]+")
OWN = 4000
"""Texts, and sets of propositions, of which a round makes pairs."""

SAVED_S = 300
LATER = 0.2
"""Share of the minutes that each round takes; the rest comes before the first."""


@dataclass(frozen=True)
class Arm:
    """What is trained: share of the entries, rounds after that, and null controls."""

    share: float = 1.0
    rounds: int = 0
    halves: bool = False
    foreign: bool = False
    shuffled: bool = False


ARMS = {
    "one": Arm(),
    "shuffled": Arm(shuffled=True),
    "tenth": Arm(0.1),
    "rounds": Arm(0.1, rounds=3),
    "two_halves": Arm(0.1, rounds=3, halves=True),
    "foreign": Arm(0.1, rounds=3, foreign=True),
}
NETS: dict[bool, dict[str, tuple[str, tuple[str, ...]]]] = {
    False: {"net": ("1m", ("parse", "verbalize", "ask"))},
    True: {"reads": ("gpt-1m", ("parse", "ask")), "writes": ("gpt-1m", ("verbalize",))},
}
"""By whether there are two: name -> preset and directions. With 2,048 tokens 1m has 1.44 M parameters, gpt-1m .7 M."""


@dataclass(frozen=True)
class Entry:
    """Propositions, and all texts that say them, with the same handles."""

    propositions: tuple[Proposition, ...]
    texts: tuple[str, ...]


def read_entries(path: Path) -> list[Entry]:
    """Return the entries of a part that have texts."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        names = dict.fromkeys(name for subject, _, other in record["triples"] for name in (subject, other))
        handles = {name: number for number, name in enumerate(names)}
        tags = {one["tag"]: one["entity"] for text in record["texts"] for one in text["references"]}
        known = {tag: f"[{handles[entity]}]" for tag, entity in tags.items() if entity in handles}
        texts = [tagged(one["template"], known) for one in record["texts"]]
        said = [
            Proposition(handles[subject], re.sub(r"[^A-Za-z0-9_]+", "_", relation).strip("_"), handles[other])
            for subject, relation, other in record["triples"]
        ]
        if texts:
            found.append(Entry(tuple(said), tuple(" ".join(text.split()) for text in texts)))
    return found


def tagged(template: str, handles: dict[str, str]) -> str:
    """Return a template with handles in place of its tags; a tag of which nobody says what it stands for stays."""
    return TAG.sub(lambda tag: handles.get(tag[0], tag[0]), template)


def pairs_of(entries: Sequence[Entry]) -> list[Pair]:
    """Return texts with the propositions both of whose mentions they have; none that lacks a tag's entity."""
    found = []
    for entry in entries:
        for text in entry.texts:
            there = set(handles_of(text))
            said = tuple(one for one in entry.propositions if {one.subject, one.object} <= there)
            if said and not TAG.search(text):
                found.append(Pair(text, said))
    return found


def foreign(pairs: Sequence[Pair], seed: int) -> list[Pair]:
    """Return texts with the propositions of other texts that have as many mentions and propositions."""
    groups: dict[tuple[int, int], list[Pair]] = defaultdict(list)
    for pair in pairs:
        groups[len(handles_of(pair.text)), len(pair.propositions)].append(pair)
    rng, found = random.Random(seed), []
    for group in groups.values():
        rng.shuffle(group)
        for pair, other in zip(group, group[1:] + group[:1], strict=True):
            theirs = Numbering(other.text).numbered(written(in_order_of(other.text, other.propositions)))
            found.append(pair._replace(propositions=tuple(read(Numbering(pair.text).original(theirs))[0])))
    return found


class Training:
    """One arm under one seed.

    Args:
        name: of the arm.
        seed: of weights, of draws, and of which entries are a tenth.
        asked: what the command line says.
        train, dev: entries.
    """

    def __init__(self, name: str, seed: int, asked: Any, train: Sequence[Entry], dev: Sequence[Entry]) -> None:
        self.name, self.seed, self.arm = f"{name}-s{seed}", seed, ARMS[name]
        self.asked, self.dev, self.nets = asked, dev, NETS[ARMS[name].halves]
        self.folder = (asked.out / self.name).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        order = random.Random(seed).sample(list(train), len(train))
        cut = round(self.arm.share * len(order))
        self.taught, self.others = order[:cut], order[cut:]
        self.relations = relations_of(pairs_of(train))
        write_pairs(self.folder / "dev.jsonl", pairs_of(dev))

    def run(self) -> dict[str, Network]:
        """Train all nets, round by round; return them by direction."""
        pairs = pairs_of(self.taught)
        if self.arm.shuffled:
            pairs = foreign(pairs, self.seed)
        for number in range(self.arm.rounds + 1):
            file = self.folder / f"pairs-{number}.jsonl"
            if not file.exists():
                own = self._own(number) if number else []
                again = max(1, round(len(own) / 2 / len(pairs)))  # of each direction half is own
                write_pairs(new := file.with_suffix(".new"), pairs * again + own)
                new.rename(file)
            for net in self.nets:
                self._train(net, number)
        return self._open(self.arm.rounds)

    def _open(self, number: int) -> dict[str, Network]:
        nets = {net: Network.load(self.folder / f"{net}-{number}") for net in self.nets}
        return {direction: nets[net] for net, (_, directions) in self.nets.items() for direction in directions}

    def _own(self, number: int) -> list[Pair]:
        """Return what the nets make of texts and of propositions that belong to different entries."""
        nets, rng = self._open(number - 1), random.Random(f"{self.seed} {number}")
        some = rng.sample(self.others, len(self.others))
        texts = [text for entry in some[::2] for text in entry.texts if handles_of(text)][:OWN]
        sets = [entry.propositions for entry in some[1::2]][:OWN]
        claims, said = own_claims(nets["parse"], texts), own_texts(nets["verbalize"], sets)
        print(f"{self.name}, round {number}: kept {len(claims):,} of {len(texts):,} texts and {len(said):,} of "
              f"{len(sets):,} sets of propositions", flush=True)  # fmt: skip
        return [*foreign(claims, number), *foreign(said, number)] if self.arm.foreign else [*claims, *said]

    def _train(self, net: str, number: int) -> None:
        preset, directions = self.nets[net]
        minutes = self.asked.minutes * (LATER if number else 1 - LATER * self.arm.rounds)
        shares = {name: SHARES[name] if name in directions else 0.0 for name in SHARES}
        recipe = {
            "kind": "symmetric",
            "name": f"webnlg-{self.name}-{net}-{number}",
            "seed": self.seed + number,
            "model": {"preset": preset, "window": 256, "vocab_size": 2048},
            "pairs": f"pairs-{number}.jsonl",
            "held_out": "dev.jsonl",
            "relations": self.relations,
            "shares": shares,
            "optimizer": {"kind": "muon", "steps": 1, "batch_size": 64, "micro_batches": 4, "lr": 3e-3, "warmup": 50,
                          "weight_decay": 0.05, "betas": [0.9, 0.98]},
            "place": {"threads": 1, "device": "cpu"},
            "init": f"{net}-{number - 1}" if number else None,
            "out": f"{net}-{number}",
        }  # fmt: skip
        file = self.folder / f"{net}-{number}.yaml"
        if not file.exists():
            (new := self.folder / "new.yaml").write_text(json.dumps(recipe))
            paces = self.folder / f"pace-{net}.json"
            if not paces.exists():
                paces.write_text(json.dumps(pace(new, self.asked.overrides)))
            pace_s = json.loads(paces.read_text())
            recipe["optimizer"] |= {"steps": max(1, round(60 * minutes * sum(shares.values()) / pace_s))}  # type: ignore[operator]
            recipe["save_every"] = max(1, round(SAVED_S / pace_s))
            new.write_text(json.dumps(recipe, indent=1))
            new.rename(file)
        if not (self.folder / f"{net}-{number}").exists():
            train_policy(file, self.asked.overrides)

    def score(self) -> dict[str, Any]:
        """Return F1 and BLEU on the dev part, with intervals; once measured they are kept."""
        file = self.folder / "scores.json"
        if not file.exists():
            began_s = time.monotonic()
            nets = self.run()
            print(f"{self.name}: trained in {(time.monotonic() - began_s) / 60:.1f} minutes of this run", flush=True)
            file.write_text(json.dumps(measured(nets, self.dev)))
        found: dict[str, Any] = json.loads(file.read_text())
        return found


def pace(file: Path, overrides: Sequence[str]) -> float:
    """Return the processor seconds of a step."""
    torch.set_num_threads(1)
    training = open_training(load_recipe(file, overrides), file.parent)
    training.prepare(file.parent)
    objective = training.objective(file.parent, Worker(0, 1, torch.device("cpu"), print))
    for step in range(20):
        if step == 5:
            began_s = time.process_time()
        train_step(objective, step, 1e-3)
    return (time.process_time() - began_s) / 15


def measured(nets: dict[str, Network], dev: Sequence[Entry]) -> dict[str, Any]:
    """Return F1 over triples and BLEU over entries."""
    from sacrebleu.metrics import BLEU  # type: ignore[import-not-found, unused-ignore]

    texts = [(number, text) for number, entry in enumerate(dev) for text in entry.texts]
    both, sizes = [0] * len(dev), [0] * len(dev)
    for (number, _), said in zip(texts, nets["parse"].parse([text for _, text in texts]), strict=True):
        shared, every = shared_and_all(said, dev[number].propositions)
        both[number], sizes[number] = both[number] + shared, sizes[number] + every
    own = [as_words(text) for text in nets["verbalize"].verbalize([entry.propositions for entry in dev])]
    most = max(len(entry.texts) for entry in dev)
    rows = [[as_words(text) for text in entry.texts] + [None] * (most - len(entry.texts)) for entry in dev]
    bleu = BLEU(force=True)  # texts of the data are split into words
    found = bleu.corpus_score(own, [list(column) for column in zip(*rows, strict=True)], n_bootstrap=1000)
    return {
        "texts": len(texts),
        "entries": len(dev),
        "f1": ratio_interval([both], sizes),
        "bleu": [found.score, found._mean - found._ci, found._mean + found._ci],
        "signature": str(bleu.get_signature()),
        "written": own[:10],
    }


def as_words(text: str) -> str:
    """Return a text with handles as words, so that no bracket counts as one."""
    return " ".join(re.sub(r"\[([0-9]+)\]", r" ENT\1 ", without_names(text)).split())


def main() -> None:
    """Train and measure all arms that are asked for."""
    parser = arms_parser(__doc__, ARMS)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.jsonl and dev.jsonl")
    parser.add_argument("--minutes", type=float, default=40.0)
    asked = parser.parse_args()
    if find_spec("sacrebleu") is None:
        parser.error("BLEU needs sacrebleu: pip install sacrebleu")
    train, dev = (read_entries(asked.data / f"{part}.jsonl") for part in ("train", "dev"))
    for name in asked.arms:
        for seed in asked.seeds:
            found = Training(name, seed, asked, train, dev).score()
            bleu, low, high = found["bleu"]
            print(
                f"{name}, seed {seed}: F1 {format_interval(Interval(*found['f1']))} of {found['texts']:,} texts, "
                f"BLEU {bleu:.1f} [{low:.1f}, {high:.1f}] of {found['entries']} entries ({found['signature']})",
                flush=True,
            )


if __name__ == "__main__":
    main()
