"""What agents of archive-v0 write, and how its texts can be read by hand-written rules.

- A note is claims: `[0] works_for [2] ; [0] lives_in [1] @3`. A look-up is a mention, what is known of it, and the
  relations to follow: `[0] trade smith : works_for seat =`.
- The rules know the sentences of `schema`, so they read every page without an error. They are what a µLM is compared
  with, never what it is given.
"""

import re
from collections.abc import Mapping, Sequence

from worlds.archive.schema import RELATIONS, TRADES
from worlds.archive.town import HandleClaim
from worlds.protocol import Claim

UNKNOWN = "unknown"
"""The answer to a question that has none."""

HANDLE = re.compile(r"\[(?P<handle>[0-9]{1,2}) (?P<name>[^\[\]\n]{1,60})\]")
_CLAIM = re.compile(
    r"\[(?P<subject>[0-9]{1,2})\] (?P<relation>[a-z_]{1,20}) (?:\[(?P<object>[0-9]{1,2})\]|(?P<text>[a-z]{1,20}))"
    r"(?: @(?P<year>[0-9]{1,3}))?"
)
_TOLD = re.compile(
    r"\[(?P<subject>[^\[\]]{1,60})\] (?P<relation>[a-z_]{1,20}) (?:\[(?P<object>[^\[\]]{1,60})\]|(?P<text>[a-z]{1,20}))"
    r" @(?P<year>[0-9]{1,3})"
)
_DATED = re.compile(r"(?:since|from) year (?P<year>[0-9]{1,3}) (?P<rest>.*)")
_TRADE = "|".join(TRADES)
_WHO = r"(?:\[[0-9]{1,2} [^\[\]]+\](?: the (?:" + _TRADE + r"))?|he|she|it)"
_NOUNS = {noun: name for name, relation in RELATIONS.items() for noun in (relation.noun, *relation.nouns)}
_ANY = "|".join(sorted(map(re.escape, _NOUNS), key=len, reverse=True))
_QUESTION = re.compile(
    rf"(?P<before>.*?)\[0 [^\[\]]+\](?: the (?P<trade>{_TRADE}))?(?P<behind>(?: 's (?:{_ANY}))*) [.?]"
)


def mentions(text: str) -> dict[int, str]:
    """Return handle -> name of a page or question."""
    return {int(match["handle"]): match["name"] for match in HANDLE.finditer(text)}


def parse_note(text: str, known: Mapping[int, str]) -> tuple[list[HandleClaim], list[str]]:
    """Return the claims of a note that make sense, and what is wrong with the others; total on any text.

    Args:
        text: without the word `note`; "" for a page that says nothing.
        known: handle -> name, of the page.
    """
    found: list[HandleClaim] = []
    wrong: list[str] = []
    for part in text.split(" ; ") if text else ():
        try:
            found.append(_parse_claim(part.strip(), known))
        except ValueError as error:
            wrong.append(str(error))
    return found, wrong


def claims_of(noted: Sequence[HandleClaim], names: Mapping[int, str], source: str, year: int) -> list[Claim]:
    """Return what is said of handles as a registry takes it, by names; what has no year of its own has the source's."""
    return [
        Claim(
            source,
            names[one.subject],
            RELATIONS[one.relation].domain,
            one.relation,
            names[one.object] if isinstance(one.object, int) else one.object,
            RELATIONS[one.relation].range,
            year if one.year is None else one.year,
        )
        for one in noted
    ]


def tell(claims: Sequence[Claim]) -> str:
    """Return claims as a report tells them: by names, for whoever has not read the page."""
    ends = (f"[{one.object}]" if one.object_type else one.object for one in claims)
    rows = zip(claims, ends, strict=True)
    return " ; ".join(f"[{one.subject}] {one.relation} {end} @{one.valid_from}" for one, end in rows)


def read_told(text: str, source: str) -> list[Claim]:
    """Return what `tell` has told of a source; total on any text."""
    found = (match for match in _TOLD.finditer(text) if match["relation"] in RELATIONS)
    return [
        Claim(
            source,
            match["subject"],
            RELATIONS[match["relation"]].domain,
            match["relation"],
            match["object"] or match["text"],
            RELATIONS[match["relation"]].range,
            int(match["year"]),
        )
        for match in found
        if bool(RELATIONS[match["relation"]].range) == bool(match["object"])
    ]


def _parse_claim(text: str, known: Mapping[int, str]) -> HandleClaim:
    match = _CLAIM.fullmatch(text)
    if match is None:
        raise ValueError("not a claim; write: [0] works_for [1] ; [0] trade smith")
    relation = RELATIONS.get(match["relation"])
    if relation is None:
        raise ValueError(f"unknown relation {match['relation']}")
    if bool(relation.range) == (match["object"] is None):
        raise ValueError(f"{match['relation']} leads to {'a handle' if relation.range else 'a word'}")
    handles = [int(match[name]) for name in ("subject", "object") if match[name] is not None]
    if unknown := [handle for handle in handles if handle not in known]:
        raise ValueError(f"no [{unknown[0]}] on this page")
    other = match["text"] if match["object"] is None else int(match["object"])
    return HandleClaim(handles[0], match["relation"], other, int(match["year"]) if match["year"] else None)


def _patterns() -> list[tuple[str, re.Pattern[str]]]:
    found = []
    for name, relation in RELATIONS.items():
        for wording in relation.wordings + relation.held_out:
            other = _WHO if relation.range else rf"(?:{_TRADE})"
            text = re.escape(wording).replace(r"\{s\}", f"(?P<s>{_WHO})").replace(r"\{o\}", f"(?P<o>{other})")
            found.append((name, re.compile(text)))
    return found


_PATTERNS = _patterns()


def read_page(text: str) -> list[HandleClaim]:
    """Return what a page says, by rules that know all its sentences."""
    claims: list[HandleClaim] = []
    before = 0
    for sentence in text.removesuffix(" .").split(" . "):
        dated = _DATED.fullmatch(sentence)
        rest, year = (dated["rest"], int(dated["year"])) if dated else (sentence, None)
        for name, pattern in _PATTERNS:
            if match := pattern.fullmatch(rest):
                extra: list[HandleClaim] = []
                who: dict[str, int | str] = {}
                for role in ("s", "o"):
                    spoken = HANDLE.match(match[role])
                    who[role] = int(spoken["handle"]) if spoken else match[role]
                    if spoken and (trade := match[role].partition("] the ")[2]):
                        extra.append(HandleClaim(int(spoken["handle"]), "trade", trade))
                subject = who["s"] if isinstance(who["s"], int) else before
                claims += [HandleClaim(subject, name, who["o"], year), *extra]
                before = subject
                break
    return claims


def read_question(text: str) -> str | None:
    """Return the look-up that answers a question, None for a text that is none."""
    match = _QUESTION.search(text)
    if match is None:
        return None
    behind = [_NOUNS[noun] for noun in re.findall(rf" 's ({_ANY})", match["behind"])]
    around = [_NOUNS[noun] for noun in re.findall(rf"the ({_ANY}) of ", match["before"])]
    given = ["trade", match["trade"]] if match["trade"] else []
    return " ".join(["[0]", *given, ":", *behind, *reversed(around), "="])
