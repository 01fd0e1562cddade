"""Real stories: who is meant in TinyStories and two books, whether a synonym and a new kind are found, and a cloze.

`python tests/benchmarks/stories.py --data FOLDER` reads FOLDER/tinystories and FOLDER/children_books and prints all
figures; parsed texts are kept under `--out`, so that a second run is quick. It needs the extra `nlp`.

- Identity is fitted on 300 stories and four books, and measured on 300 mentions of 30 other stories and two other
  books, which were labelled by hand (`data/story_mentions.jsonl`: places, names and whom they mean).
- Kinds are words; a synonym is a kind that half of the stories call by another word, a new kind one that the last few
  stories alone have. Words are replaced after the stories are parsed.
- The cloze asks which of ten who are often spoken of in a book a sentence leaves out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from fit_identity import Choice, Teacher, b_cubed

from swarm.stats import format_interval, paired_difference, rate_interval
from ulm.judge import Floats, Judge
from ulm.memory.registry import EntityRegistry, Identity
from ulm.memory.registry.mentions import BEFALLS, DOES, IS, Meant, english, read
from ulm.memory.registry.names import normalised

HERE = Path(__file__).parent / "data"
STORIES = "tinystories/tinystories_train_head.txt"
TRAIN_BOOKS = (
    "Peter-Pan_16",
    "Alice-s-Adventures-in-Wonderland_11",
    "Through-the-Looking-Glass_12",
    "The-Wind-in-the-Willows_289",
)
TEST_BOOKS = ("The-Wonderful-Wizard-of-Oz_55", "The-Jungle-Book_236")
SYNONYMS = (
    ("bunny", "rabbit"), ("puppy", "dog"), ("kitty", "cat"), ("kitten", "cat"), ("mommy", "mom"), ("mother", "mom"),
    ("daddy", "dad"), ("father", "dad"), ("child", "kid"), ("plane", "airplane"), ("lady", "woman"), ("bug", "insect"),
)  # fmt: skip
PART = 100
"""Sentences after which the registry is told what it has read."""
FIRST_TEST = 800
"""The first story that nothing is fitted on."""
TRAIN_STORIES = 300

Said = dict[str, dict[str, set[tuple[str, str]]]]


class Text(NamedTuple):
    """A story or a book: file and place of its first character, name of its scope, the text."""

    file: str
    start: int
    scope: str
    text: str


def stories(data: Path, numbers: Sequence[int]) -> list[Text]:
    """Return stories; single line ends stand between them."""
    text, found, at = (data / STORIES).read_text("utf-8"), list[Text](), 0
    for number, match in enumerate(re.finditer(r"(?<!\n)\n(?!\n)|\Z", text)):
        found.append(Text(STORIES, at, f"story {number}", text[at : match.start()]))
        at = match.end()
    return [found[number] for number in numbers]


def book(data: Path, name: str) -> Text:
    """Return a book without what the library says before and after it."""
    file = f"children_books/{name}.txt"
    text = (data / file).read_text("utf-8")
    start, end = re.search(r"\*\*\* ?START OF.*?\*\*\*", text), re.search(r"\*\*\* ?END OF", text)
    if start is None or end is None:
        raise SystemExit(f"{file} has no marks of Project Gutenberg")
    return Text(file, start.end(), name, text[start.end() : end.start()])


def parsed(texts: Sequence[Text], out: Path) -> list[Any]:
    """Return what spaCy reads of texts, stories or books, kept in files by their hash."""
    from spacy.tokens import DocBin

    nlp = english()
    nlp.max_length = 2_000_000
    out.mkdir(parents=True, exist_ok=True)
    found = []
    step = 50 if texts[0].file == STORIES else 1
    for at in range(0, len(texts), step):
        some = [one.text for one in texts[at : at + step]]
        path = out / f"{hashlib.sha256(json.dumps(some).encode()).hexdigest()[:16]}.spacy"
        if not path.exists():
            part = path.with_suffix(".part")
            part.write_bytes(DocBin(store_user_data=True, docs=nlp.pipe(some, batch_size=8)).to_bytes())
            part.rename(path)
        found += list(DocBin().from_bytes(path.read_bytes()).get_docs(nlp.vocab))
    return found


class Gold(dict[tuple[str, str, str], str]):
    """Who is meant in the texts that identity is fitted on: by name in a scope, books by a table of aliases."""

    def __init__(self) -> None:
        super().__init__()
        self.aliases = {
            (scope, normalised(name)): f"{'Alice' if group[0] in ('Alice', 'Dinah') else scope} {group[0]}"
            for scope, groups in json.loads((HERE / "story_aliases.json").read_text("utf-8")).items()
            for group in groups
            for name in group
        }

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: tuple[str, str, str]) -> str:
        return self.aliases.get(key[:2], f"{key[0]} {key[1]}")


def fitted(data: Path, out: Path) -> Identity:
    """Return an identity fitted on stories and books that nothing is measured on."""
    some, books = stories(data, range(TRAIN_STORIES)), [book(data, name) for name in TRAIN_BOOKS]
    docs = [*parsed(some, out), *parsed(books, out)]
    teacher = Teacher(Gold())  # type: ignore[arg-type]
    registry = EntityRegistry(identity=teacher)
    for text, doc in zip([*some, *books], docs, strict=True):
        read(registry, text.text, text.scope, parsed=doc)
    choices: list[Choice] = teacher.choices
    print(f"fitted on {len(choices)} names with candidates, {sum(c is not None for _, c in choices)} of somebody known")
    return Identity.fit(choices)


def labels() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the files that were labelled, and the mentions."""
    rows = [json.loads(line) for line in (HERE / "story_mentions.jsonl").read_text("utf-8").splitlines()]
    return [row for row in rows if "sha256" in row], [row for row in rows if "who" in row]


def keys_of(identity: Identity, texts: Sequence[Text], docs: Sequence[Any], mentions: Sequence[Any]) -> list[str]:
    """Return what a registry takes each labelled mention for; a mention that it does not find is one of its own."""
    registry = EntityRegistry(identity=identity)
    spans = [read(registry, one.text, one.scope, parsed=doc) for one, doc in zip(texts, docs, strict=True)]
    places = [(one.file, one.start, found) for one, found in zip(texts, spans, strict=True)]
    return [_taken_for(registry, places, number, one) for number, one in enumerate(mentions)]


def _taken_for(registry: EntityRegistry, places: Sequence[tuple[str, int, list[Meant]]], number: int, one: Any) -> str:
    for file, start, found in places:
        for meant in found if file == one["text"].file and start == one["text"].start else ():
            if meant.start + start < one["end"] and one["start"] < meant.end + start:
                return str(registry.representative(meant.entity))
    return f"not found {number}"


def f1_of(found: Sequence[str], gold: Sequence[str], seed: int = 0) -> str:
    """Return B-cubed precision, recall and F1, with an interval: mentions resampled, everybody's own share kept."""
    both, ours, theirs = Counter(zip(found, gold, strict=True)), Counter(found), Counter(gold)
    precision = np.array([both[f, g] / ours[f] for f, g in zip(found, gold, strict=True)])
    recall = np.array([both[f, g] / theirs[g] for f, g in zip(found, gold, strict=True)])
    drawn = np.random.default_rng(seed).integers(0, len(gold), (2000, len(gold)))
    p, r = precision[drawn].mean(1), recall[drawn].mean(1)
    low, high = np.quantile(2 * p * r / (p + r), [0.025, 0.975])
    numbers = {name: number for number, name in enumerate({*found, *gold})}
    P, R, F1 = b_cubed([numbers[f] for f in found], [numbers[g] for g in gold])
    return f"precision {P:.3f} recall {R:.3f} F1 {F1:.3f} [{low:.3f}, {high:.3f}]"


def identities(data: Path, out: Path, learned: Identity) -> None:
    """Print how well mentions are linked and kept apart."""
    files, mentions = labels()
    for row in files:
        if hashlib.sha256((data / row["file"]).read_bytes()).hexdigest() != row["sha256"]:
            raise SystemExit(f"{row['file']} is not the file whose mentions were labelled")
    some, books = stories(data, range(FIRST_TEST, FIRST_TEST + 300)), [book(data, name) for name in TEST_BOOKS]
    texts, docs = [*some, *books], [*parsed(some, out), *parsed(books, out)]
    for one in mentions:
        one["text"] = next(
            text for text in texts
            if text.file == files[one["file"]]["file"] and text.start <= one["start"] < text.start + len(text.text)
        )  # fmt: skip
        before = one["text"].text[: one["start"] - one["text"].start]
        one["part"] = f"{one['text'].scope} {len(re.findall(chr(10) + '{4,}', before))}"
    rules: dict[str, list[str]] = {
        "registry, identity of stories": keys_of(learned, texts, docs, mentions),
        "registry, names in their scopes": keys_of(Identity.by_text(), texts, docs, mentions),
        "registry, identity of made-up towns": keys_of(Identity.load(), texts, docs, mentions),
        "by name": [normalised(one["name"]) for one in mentions],
        "by name in its scope, all found": [f"{one['text'].scope} {normalised(one['name'])}" for one in mentions],
        "ids per story or chapter": [f"{one['part']} {normalised(one['name'])}" for one in mentions],
    }
    missed = sum(key.startswith("not found") for key in rules["registry, identity of stories"])
    print(f"{len(mentions)} mentions labelled by hand, {missed} of them not found")
    for name, wanted in (("all", {0, 1, 2}), ("stories", {0}), ("books", {1, 2})):
        some = [n for n, one in enumerate(mentions) if one["file"] in wanted]
        gold = [f"{mentions[n]['file']} {mentions[n]['who']}" for n in some]
        for rule, keys in rules.items():
            print(f"{name:<8} n {len(some)} {rule:<35} {f1_of([keys[n] for n in some], gold)}")
    apart, merged = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    for key, one in zip(rules["registry, identity of stories"], mentions, strict=True):
        apart[one["who"]].add(key)
        merged[key].add(one["who"])
    print("taken for one:", "; ".join(" = ".join(sorted(some)) for some in merged.values() if len(some) > 1))
    print("taken for several:", ", ".join(f"{who} ({len(some)})" for who, some in apart.items() if len(some) > 1))


def profiles(registry: EntityRegistry) -> Said:
    """Return what is said of kinds: name -> story -> (relation, word)."""
    found: Said = {}
    for number in registry:
        entity = registry.get_entity(number)
        if entity.is_kind:
            by_story = found.setdefault(entity.names[0], {})
            for said in registry.history(number):
                if said.relation in (IS, DOES, BEFALLS):
                    by_story.setdefault(said.source, set()).add((said.relation, str(said.value)))
    return found


def vectors(rows: Sequence[Iterable[set[tuple[str, str]]]]) -> Floats:
    """Return kinds, (N, V), by positive pointwise mutual information of what is said of them (Bullinaria 2007)."""
    counts = [Counter(pair for said in row for pair in said) for row in rows]
    columns = {pair: number for number, pair in enumerate(dict.fromkeys(pair for row in counts for pair in row))}
    count_NV = np.zeros((len(rows), len(columns)), dtype=np.float32)
    for number, row in enumerate(counts):
        count_NV[number, [columns[pair] for pair in row]] = list(row.values())
    expected_NV = count_NV.sum(1, keepdims=True) * count_NV.sum(0) / count_NV.sum() + 1e-9
    value_NV = np.log(np.maximum(count_NV / expected_NV, 1.0))
    unit_NV: Floats = value_NV / (np.linalg.norm(value_NV, axis=1, keepdims=True) + 1e-9)
    return unit_NV


class Renamed(NamedTuple):
    """How a kind is found again under another word: its place among the likest (0: the first), and its likeness."""

    rank: int
    cosine: float


def renamed(said: Said, kind: str, stories_of: Sequence[str], other: str) -> Renamed:
    """Return where `kind` stands among the kinds like a new word by which some stories call `other`."""
    names = list(said)
    rows = [[v for story, v in said[name].items() if name != other or story not in stories_of] for name in names]
    unit_NV = vectors([*rows, [said[other][story] for story in stories_of]])
    cosine_N, mine = unit_NV[:-1] @ unit_NV[-1], names.index(kind)
    before, equal = int((cosine_N > cosine_N[mine]).sum()), int((cosine_N == cosine_N[mine]).sum())
    return Renamed(before + equal // 2, float(cosine_N[mine]))


def kinds(texts: Sequence[Text], docs: Sequence[Any]) -> None:
    """Print how well a synonym and a new kind are found."""
    registry = EntityRegistry(identity=Identity.by_text())
    for one, doc in zip(texts, docs, strict=True):
        read(registry, one.text, one.scope, parsed=doc)
    said = {name: stories_of for name, stories_of in profiles(registry).items() if len(stories_of) >= 5}
    often = sorted(name for name, stories_of in said.items() if len(stories_of) >= 20)
    rng = random.Random(24)
    unit_NV = vectors([list(one.values()) for one in said.values()])
    others = unit_NV @ unit_NV.T - np.eye(len(said))
    print(f"{len(said)} kinds of 5 stories or more, {len(often)} of 20; cosine of two at most {others.max():.2f}")
    halves = {kind: rng.sample(sorted(said[kind]), len(said[kind]) // 2) for kind in often}
    tried = {kind: renamed(said, kind, halves[kind], kind) for kind in often}
    wrong = {kind: renamed(said, kind, halves[o], o) for kind, o in zip(often, often[1:] + often[:1], strict=True)}
    _print_ranks("a synonym, half of the stories", list(tried.values()))
    _print_ranks("  null control: of another kind", list(wrong.values()))
    linked = [one.rank == 0 and one.cosine > others.max() for one in tried.values()]
    print(f"  linked, where no two known kinds may be: {format_interval(rate_interval(linked))} of {len(linked)}")
    half = rng.sample(sorted(said["cat"]), len(said["cat"]) // 2)
    print(f"  cat / feline, of {len(said['cat'])} stories: {renamed(said, 'cat', half, 'cat')}")
    for count in (0, 1, 5):
        some = {kind: rng.sample(sorted(said[kind]), count) for kind in often}
        _print_ranks(f"a new kind after {count} stories", [renamed(said, kind, some[kind], kind) for kind in often])
    names, pairs = list(said), []
    for word, meaning in SYNONYMS:
        if word in said and meaning in said:
            row = others[names.index(word)]
            pairs.append(f"{word} / {meaning} {int((row > row[names.index(meaning)]).sum()) + 1}")
    print(f"words that mean nearly the same, place among {len(names) - 1}: {', '.join(pairs)}")


def _print_ranks(what: str, found: Sequence[Renamed]) -> None:
    first, ten = ([one.rank < most for one in found] for most in (1, 10))
    print(f"{what:<36} first {format_interval(rate_interval(first))}, of the ten likest "
          f"{format_interval(rate_interval(ten))}, n {len(found)}")  # fmt: skip


class Asked(NamedTuple):
    """A sentence that leaves somebody out: how ten compare, (10, F), the right one first."""

    compared: Floats


def questions(text: Text, doc: Any, identity: Identity, seed: int) -> list[Asked]:
    """Return sentences of a book that leave somebody out.

    Features: recency and mentions in the last twenty sentences, whether the sentence speaks of them; then what the
    registry knows from the chapters before: mentions, mentions beside those of the sentence, words said of them.
    """
    rng, registry, asked = random.Random(seed), EntityRegistry(identity=identity), list[Asked]()
    total, beside, recent = Counter[int](), Counter[tuple[int, int]](), list[list[int]]()
    sents = list(doc.sents)
    for at in range(0, len(sents), PART):
        some = sents[at : at + PART]
        known = [one for one, count in total.most_common(20) if count > 2]
        said = {one: {str(v) for name in (IS, DOES, BEFALLS) for v in registry.lookup(one, name)} for one in known}
        part = doc[some[0].start : some[-1].end]
        meant = read(registry, part.text, f"part {at}", text.scope, part.as_doc(), tick=at)
        for sent in some:
            start, end = sent.start_char - part.start_char, sent.end_char - part.start_char
            here = [registry.representative(one.entity) for one in meant if start <= one.start < end]
            if len(known) >= 10 and here and len(here) <= 3:
                true = rng.choice(here)
                if true in known:
                    rest = [one for one in here if one != true]
                    ten = [true, *rng.sample([one for one in known if one != true], 9)]
                    words = {token.lemma_.lower() for token in sent if token.pos_ in ("VERB", "ADJ")}
                    asked.append(_asked(ten, rest, words, recent[-20:], total, beside, said))
            recent.append(here)
        for sent_here in recent[at : at + PART]:
            total.update(sent_here)
            beside.update((a, b) for a in set(sent_here) for b in set(sent_here) if a != b)
    return asked


def _asked(ten: Any, rest: Any, words: set[str], recent: Any, total: Any, beside: Any, said: Any) -> Asked:
    common = Counter(word for one in ten for word in said.get(one, set()) & words)
    rows = []
    for one in ten:
        last = next((number for number, here in enumerate(reversed(recent)) if one in here), 20)
        near = sum(here.count(one) for here in recent)
        together = sum(np.log1p(beside[one, other]) - 0.5 * np.log1p(total[one]) for other in rest)
        fits = sum(1 / common[word] for word in said.get(one, set()) & words)
        rows.append([-np.log1p(last), np.log1p(near), one in rest, np.log1p(total[one]), together, fits])
    return Asked(np.array(rows, dtype=np.float32))


def cloze(books: Sequence[tuple[Text, Any]], train: Sequence[tuple[Text, Any]], identity: Identity) -> None:
    """Print how often the right one of ten is named, with and without what the registry knows."""
    learned_from = [one for text, doc in train for one in questions(text, doc, identity, 1)]
    asked = [one for text, doc in books for one in questions(text, doc, identity, 2)]
    rng = np.random.default_rng(24)
    right: dict[str, list[bool]] = {}
    for name, columns in (("last twenty sentences", (0, 1, 2)), ("with the registry", (0, 1, 2, 3, 4, 5))):
        x = np.concatenate([one.compared[:, columns] for one in learned_from])
        judge = Judge.fit(x, np.arange(len(x)) % 10 == 0)
        right[name] = [_is_right(judge(one.compared[:, columns]), rng) for one in asked]
    shuffled = [np.c_[one.compared[:, :3], rng.permutation(one.compared[:, 3:])] for one in asked]
    right["null control: the registry's shuffled"] = [_is_right(judge(one), rng) for one in shuffled]
    right["the last one spoken of"] = [_is_right(one.compared[:, 0], rng) for one in asked]
    right["the one most often spoken of"] = [_is_right(one.compared[:, 3], rng) for one in asked]
    print(f"cloze, one of ten, fitted on {len(learned_from)} sentences of other books, n {len(asked)}")
    for name, some in right.items():
        print(f"  {name:<40} {format_interval(rate_interval(some))}")
    places = list(range(len(asked)))
    gain = paired_difference(right["with the registry"], right["last twenty sentences"], places)
    print(f"  gain by the registry {format_interval(gain, signed=True)}")


def _is_right(score_N: Floats, rng: np.random.Generator) -> bool:
    """Return whether the first, which is the right one, has the best score; of equals one is drawn."""
    return bool((score_N + 1e-4 * rng.random(len(score_N))).argmax() == 0)


def main() -> None:
    """Fit, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/stories"), help="keeps parsed texts")
    args = parser.parse_args()
    learned = fitted(args.data, args.out)
    identities(args.data, args.out, learned)
    texts = stories(args.data, range(FIRST_TEST))
    kinds(texts, parsed(texts, args.out))
    train, books = ([book(args.data, name) for name in some] for some in (TRAIN_BOOKS, TEST_BOOKS))
    pairs = [list(zip(some, parsed(some, args.out), strict=True)) for some in (books, train)]
    cloze(*pairs, learned)


if __name__ == "__main__":
    main()
