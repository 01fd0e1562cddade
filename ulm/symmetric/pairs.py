"""Pairs of a text and its propositions, and the examples of three directions that are made of them.

    parse      a text           -> its propositions, in the order in which it says them
    verbalize  propositions     -> a text
    ask        a question       -> the look-up that answers it, as `ulm.memory.registry.asking` reads it

A question is a text that names one mention and hides the others: `[0] is run by [_] , whose hub is [?] .` asks for
`[0] : operator hub =`. An example follows from its number alone, so the cursor of a training is one number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np

from ulm.symmetric.propositions import (
    HIDDEN,
    HOLE,
    Numbering,
    Proposition,
    checked_relation,
    handles_of,
    in_order_of,
    is_whole,
    read,
    without_names,
    written,
)

Direction = Literal["parse", "verbalize", "ask"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
SHARES: Mapping[Direction, float] = {"parse": 0.45, "verbalize": 0.35, "ask": 0.2}
STOP = "\n"
PIECES = r" ?\[(?:\d{1,2}|[?_])\]?| ?[;:=]"
"""What a tokenizer leaves whole, before the merges."""

MOST_HOPS = 3


class Pair(NamedTuple):
    """A text and what it says.

    Attributes:
        text: with its mentions as handles.
        propositions: about these handles.
        teaches: directions that may be learned from it.
    """

    text: str
    propositions: tuple[Proposition, ...]
    teaches: tuple[Direction, ...] = DIRECTIONS


def read_pairs(path: Path) -> list[Pair]:
    """Return the pairs of a JSONL file: `{"text": "[0] works for [1] .", "propositions": "[0] works_for [1]"}`.

    `"teaches": ["parse"]` keeps a pair to some directions.

    Raises:
        ValueError: there is no such file, or a line of it is no pair; the message says which and why.
    """
    found = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read pairs: {error}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append(_pair(json.loads(line)))
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
    if not found:
        raise ValueError(f"{path} holds no pairs; write one JSON object with text and propositions per line")
    return found


def _pair(record: object) -> Pair:
    fields = record if isinstance(record, dict) else {}
    text, said, teaches = fields.get("text"), fields.get("propositions"), fields.get("teaches", list(DIRECTIONS))
    if not isinstance(text, str) or not isinstance(said, str) or "\n" in text:
        raise ValueError("needs `text`, on one line, and `propositions`, such as '[0] works_for [1] ; [1] seat [2]'")
    if not isinstance(teaches, list) or not teaches or not set(teaches) <= set(DIRECTIONS):
        raise ValueError(f"`teaches` is {teaches!r}; allowed: some of {', '.join(DIRECTIONS)}")
    propositions, wrong = read(said)
    if wrong:
        raise ValueError(wrong[0])
    return Pair(text, tuple(propositions), tuple(teaches))


def write_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    """Write what `read_pairs` reads."""
    with path.open("w", encoding="utf-8") as file:
        for pair in pairs:
            record = {"text": pair.text, "propositions": written(pair.propositions), "teaches": list(pair.teaches)}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def relations_of(pairs: Sequence[Pair]) -> list[str]:
    """Return the relations that pairs have, sorted."""
    return sorted({checked_relation(one.relation) for pair in pairs for one in pair.propositions})


def whole_tokens(relations: Sequence[str]) -> list[str]:
    """Return what is one token each: how prompts begin, and relations with the space before them."""
    return [*(f"{direction} :" for direction in DIRECTIONS), *(f" {checked_relation(name)}" for name in relations)]


def parse_prompt(text: str) -> str:
    """Return what a network reads before it writes the propositions of a text."""
    return f"parse : {_bare(text)}\n"


def _bare(text: str) -> str:
    return Numbering(text).numbered(without_names(text))


def verbalize_prompt(propositions: Sequence[Proposition]) -> str:
    """Return what a network reads before it writes a text that says propositions."""
    said = written(propositions)
    return f"verbalize : {Numbering(said).numbered(said)}\n"


def ask_prompt(question: str) -> str:
    """Return what a network reads before it writes the look-up that answers a question."""
    return f"ask : {_bare(question)}\n"


def parsing(pair: Pair) -> tuple[str, str]:
    """Return prompt and completion of the direction `parse`."""
    said = Numbering(pair.text).numbered(written(in_order_of(pair.text, pair.propositions)))
    return parse_prompt(pair.text), said + STOP


def verbalizing(pair: Pair) -> tuple[str, str]:
    """Return prompt and completion of the direction `verbalize`."""
    numbering = Numbering(written(pair.propositions))
    return verbalize_prompt(pair.propositions), numbering.numbered(without_names(pair.text)) + STOP


def question(pair: Pair, rng: np.random.Generator) -> tuple[str, str]:
    """Return a question that a text answers, and its look-up: up to `MOST_HOPS` relations, one after the other."""
    ways = _between(pair)
    path, hops = [ways[rng.integers(len(ways))]], rng.integers(1, MOST_HOPS + 1)
    while len(path) < hops:
        known = {path[0].subject, *(one.object for one in path)}
        more = [one for one in ways if one.subject == path[-1].object and one.object not in known]
        if not more:
            break
        path.append(more[rng.integers(len(more))])
    start = path[0].subject
    return _hidden(pair.text, start, path[-1].object), f"[{start}] : {' '.join(one.relation for one in path)} ="


def asking(asked: str, look_up: str) -> tuple[str, str]:
    """Return prompt and completion of the direction `ask`, of a question and its look-up."""
    return ask_prompt(asked), Numbering(asked).numbered(look_up)


def _between(pair: Pair) -> list[Proposition]:
    """Return the propositions about two mentions of a text."""
    mentioned = set(handles_of(pair.text))
    return [one for one in pair.propositions if {one.subject, one.object} <= mentioned and one.subject != one.object]


def _hidden(text: str, named: int, asked: int) -> str:
    """Return a text that names one of its mentions, asks for another, and hides the rest."""
    for handle in handles_of(text):
        if handle != named:
            text = re.sub(rf"\[{handle}(?: [^\[\]\n]*)?\]", HOLE if handle == asked else HIDDEN, text)
    return text


class Mixture:
    """Numbered examples of all directions.

    A text that mentions what no proposition is about cannot be written from them, so it does not teach `verbalize`.

    Args:
        pairs: to learn from.
        shares: direction -> how often it is drawn, relative to the others.
        seed: of the draws.

    Raises:
        ValueError: a direction that shall be drawn has no pair.
    """

    def __init__(self, pairs: Sequence[Pair], shares: Mapping[Direction, float] = SHARES, seed: int = 0) -> None:
        self._drawn: dict[Direction, list[Pair]] = {}
        for direction in (name for name in DIRECTIONS if shares.get(name, 0) > 0):
            fit = [pair for pair in pairs if direction in pair.teaches and can_teach(direction, pair)]
            if not fit:
                raise ValueError(f"no pair teaches {direction}; add some, or set its share to 0")
            self._drawn[direction] = fit
        self._until = np.cumsum([shares[direction] for direction in self._drawn])
        self._made: dict[tuple[Direction, int], tuple[str, str]] = {}
        self.seed = seed

    def __call__(self, number: int) -> tuple[str, str]:
        """Return prompt and completion of an example."""
        rng = np.random.Generator(np.random.PCG64([self.seed, number]))
        place = int(np.searchsorted(self._until, rng.random() * self._until[-1], side="right"))
        direction = list(self._drawn)[place]
        number = int(rng.integers(len(self._drawn[direction])))
        pair = self._drawn[direction][number]
        if direction == "ask":
            return asking(*question(pair, rng))
        if (direction, number) not in self._made:
            self._made[direction, number] = parsing(pair) if direction == "parse" else verbalizing(pair)
        return self._made[direction, number]


def can_teach(direction: Direction, pair: Pair) -> bool:
    """Return whether a direction can be learned from a pair, or asked of it."""
    if direction == "parse":
        return bool(handles_of(pair.text))
    return is_whole(pair.text, pair.propositions) if direction == "verbalize" else bool(_between(pair))
