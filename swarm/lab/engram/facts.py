"""Which facts an evaluation tells, and which questions it asks: one deterministic choice from the exact-match sets.

Owns that choice. It refuses to know models and memories.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from swarm.config.load import load_yaml_model
from swarm.errors import SwarmError
from swarm.files import path_in
from swarm.lab.engram.config import EngramEvalConfig, FaqSection
from swarm.lab.facts.config import ExactMatchConfig
from swarm.lab.facts.exact_match import ExactMatch, build_exact_match
from swarm.seeds import derive_seed


@dataclass(frozen=True, slots=True)
class Facts:
    """What is told and asked.

    Attributes:
        told: to every arm but the bare model.
        asked: in the same words, in other words, and for keys that were never told.
        fitting: paraphrases of what is told from the validation split; the content tier learns from them.
        sets: all records of the splits train, valid and test.
    """

    told: tuple[ExactMatch, ...]
    asked: tuple[ExactMatch, ...]
    fitting: tuple[ExactMatch, ...]
    sets: dict[str, list[ExactMatch]]


def choose_facts(config: EngramEvalConfig, beside: Path) -> Facts:
    """Return the facts of an evaluation.

    Args:
        config: the evaluation.
        beside: folder of its file.

    Raises:
        SwarmError: the facts' file or a table is missing, or has no such category.
    """
    file = path_in(beside, config.facts)
    facts_config = load_yaml_model(file, ExactMatchConfig)
    sets = build_exact_match(facts_config, file.parent)
    if unknown := sorted(set(config.learn.categories) - set(facts_config.categories)):
        raise SwarmError(
            f"learn.categories: no {', '.join(unknown)} in {file}; there are: {', '.join(facts_config.categories)}"
        )
    every = {str(split): records for split, records in sets.items()}
    generator = np.random.Generator(np.random.PCG64(derive_seed(config.seed, "facts")))
    told: list[ExactMatch] = []
    asked: list[ExactMatch] = []
    fitting: list[ExactMatch] = []
    for relation in sorted({r.about[:2] for r in every["train"] if r.category in config.learn.categories}):
        here = {split: [r for r in records if r.about[:2] == relation] for split, records in every.items()}
        order = generator.permutation(len(here["train"]))[: config.learn.per_relation]
        chosen = [here["train"][i] for i in sorted(order)]
        keys = {record.key for record in chosen}
        told += chosen
        asked += [r for r in here["test"] if r.kind == "unseen" or (r.kind == "same" and r.key in keys)]
        asked += _one_each([r for r in here["test"] if r.kind == "paraphrase" and r.key in keys], generator)
        fitting += [record for record in here["valid"] if record.kind == "paraphrase" and record.key in keys]
    return Facts(tuple(told), tuple(asked), tuple(fitting), every)


def _one_each(records: Sequence[ExactMatch], generator: np.random.Generator) -> list[ExactMatch]:
    """Return one of the wordings of each fact, drawn in the order in which the facts come."""
    wordings: dict[tuple[str, str, str], list[ExactMatch]] = {}
    for record in records:
        wordings.setdefault(record.about, []).append(record)
    return [found[int(generator.integers(len(found)))] for found in wordings.values()]


def digest(records: Sequence[ExactMatch]) -> str:
    """Return a hash of records in their order."""
    text = "\n".join(json.dumps(asdict(record), sort_keys=True) for record in records)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def made_pairs(count: int, seed: int) -> list[ExactMatch]:
    """Return random identifiers with random values, no identifier twice."""
    generator = np.random.Generator(np.random.PCG64(seed))
    found = []
    for number, value in zip(
        generator.permutation(max(10_000, count))[:count], generator.integers(0, 10_000, count), strict=True
    ):
        letters = "".join(chr(97 + int(c)) for c in generator.integers(0, 26, 4))
        key, question = f"K{number:04d}-{letters[:2]}", f"The code of K{number:04d}-{letters[:2]} is"
        found.append(ExactMatch("pairs", "code", key, "told", question, question, f" {value:04d}-{letters[2:]}"))
    return found


def edit_sets(
    config: EngramEvalConfig, facts: Facts, draw: int = 0
) -> tuple[list[ExactMatch], list[ExactMatch], list[ExactMatch], list[ExactMatch]]:
    """Return edits, what the content tier learns from, questions about something else, and paraphrases of edits.

    The four share no key, but edits and their paraphrases.

    Raises:
        SwarmError: there are not enough facts.
    """
    sets = {split: [r for r in records if r.relation] for split, records in facts.sets.items()}
    generator = np.random.Generator(np.random.PCG64(derive_seed(config.seed, "edits", draw)))
    keys = sorted({(record.category, record.key) for record in sets["train"]})
    order = generator.permutation(len(keys))
    share = round(config.edits.fit_share * len(keys))
    held, near = ({keys[i] for i in part} for part in (order[:share], order[share : share + share // 2]))
    open_ = [record for record in sets["train"] if (record.category, record.key) not in held | near]
    if len(open_) < config.edits.count:
        raise SwarmError(
            f"edits.count: {config.edits.count}, but there are {len(open_)} facts; raise the counts in {config.facts}, "
            f"or lower edits.fit_share"
        )
    edits = [open_[i] for i in generator.permutation(len(open_))[: config.edits.count]]
    chosen = {record.about for record in edits}
    reworded = [record for record in sets["test"] if record.kind == "paraphrase" and record.about in chosen]
    practice = [
        record
        for record in (*sets["train"], *sets["valid"])
        if (record.category, record.key) in held and record.kind in ("told", "paraphrase")
    ]
    elsewhere = [record for record in sets["test"] if record.kind == "unseen"]
    elsewhere += [record for record in sets["train"] if (record.category, record.key) in near]
    return edits, practice, elsewhere, _one_each(sorted(reworded, key=lambda record: record.about), generator)


def unanswerable(faq: FaqSection, beside: Path) -> dict[str, list[str]]:
    """Return questions that no stored answer fits: those that calibrate, and those that are asked.

    Raises:
        SwarmError: the file is missing or does not hold them.
    """
    file = path_in(beside, faq.unanswerable)
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        lists = {name: data[getattr(faq, name)] for name in ("calibrate", "asked")}
        return {name: [q if isinstance(q, str) else str(q[0]) for q in found] for name, found in lists.items()}
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise SwarmError(f"faq.unanswerable: cannot read the questions in {file} ({error!r})") from error
