"""What sentences and questions of the bAbI tasks say, written down by hand: the labels that the parser is trained on.

A labelled sentence comes with its propositions over words, and each word with the name that it stands for (`mice` for
a mouse). Nothing here knows a task. These labels are supervision beyond the answers that the data come with.
"""

from __future__ import annotations

import re

from ulm.memory.registry import Relation

RELATIONS = (
    Relation("in", functional=True),
    Relation("not_in"),
    Relation("held_by", functional=True),
    Relation("not_held_by"),
    Relation("is_a", functional=True, constant=True),
    Relation("afraid_of", functional=True, constant=True),
    Relation("colour", functional=True, constant=True),
    Relation("n", inverse="s"),
    Relation("e", inverse="w"),
    Relation("giver", functional=True, constant=True),
    Relation("gift", functional=True, constant=True),
    Relation("receiver", functional=True, constant=True),
)
"""How relations behave; from the kitchen one goes `n` to what is north of it."""

SINGULAR = {"mice": "mouse", "cats": "cat", "wolves": "wolf"}
TIMES = {"yesterday": 1, "this morning": 2, "this afternoon": 3, "this evening": 4}

_WHEN = re.compile(rf"\b({'|'.join(TIMES)})\b")
_AFTER = r"(?:(?:after that|afterwards|following that|then) )?"
_GO, _TAKE = "(?:moved|went back|went|journeyed|travelled)", "(?:got|took|grabbed|picked up)"
_DROP, _GIVE = "(?:dropped|left|discarded|put down)", "(?:gave|handed|passed)"
_PATTERNS = {
    r"where is (?:the )?(\w+)": "0 in ?",
    r"where was (?:the )?(\w+) before the (\w+)": "0 in ? before 1",
    r"is (\w+) in the (\w+)": "0 in 1",
    r"what did (\w+) give to (\w+)": "* giver 0 ; * receiver 1 ; * gift ?",
    r"who gave the (\w+) to (\w+)": "* gift 0 ; * receiver 1 ; * giver ?",
    r"who did (\w+) give the (\w+) to": "* giver 0 ; * gift 1 ; * receiver ?",
    r"who gave the (\w+)": "* gift 0 ; * giver ?",
    r"who received the (\w+)": "* gift 0 ; * receiver ?",
    r"how many objects is (\w+) carrying": "# held_by 0",
    r"what is (\w+) carrying": "? held_by 0",
    r"what is (\w+) afraid of": "0 afraid_of ?",
    r"what color is (\w+)": "0 colour ?",
    r"how do you go from the (\w+) to the (\w+)": "0 ? 1",
    rf"{_AFTER}(\w+)(?: and (\w+))? (?:{_GO} to|is in) the (\w+)": "",  # several may go
    r"(\w+) is (?:no longer|not) in the (\w+)": "0 not_in 1",
    rf"(\w+) {_TAKE} the (\w+)(?: there)?": "1 held_by 0",
    rf"(\w+) {_DROP} the (\w+)(?: there)?": "1 not_held_by 0",
    rf"(\w+) {_GIVE} the (\w+) to (\w+)": "1 held_by 2 ; * giver 0 ; * gift 1 ; * receiver 2",
    r"(\w+) is a (\w+)": "0 is_a 1",
    r"(\w+) are afraid of (\w+)": "0 afraid_of 1",
    r"(\w+) is (\w+)": "0 colour 1",
    r"the (\w+) is north of the (\w+)": "1 n 0",
    r"the (\w+) is south of the (\w+)": "1 s 0",
    r"the (\w+) is east of the (\w+)": "1 e 0",
    r"the (\w+) is west of the (\w+)": "1 w 0",
}


def _named(word: str) -> str:
    return f"[{word}/{SINGULAR.get(word, word)}]"


def labelled(words: str, previous: str) -> str:
    """Return what a sentence or question says: `[mary/mary] in [kitchen/kitchen]`, each word and its name.

    Args:
        words: in lower case, without the mark at the end.
        previous: the sentence before, which says who `they` are.
    """
    when = _WHEN.search(words)
    plain = _WHEN.sub("", words).strip() if when else words
    for form, says in _PATTERNS.items():
        match = re.fullmatch(form, plain)
        if match and not says:
            *who, place = (word for word in match.groups() if word)
            if who[0] in ("he", "she", "they"):
                before = re.match(r"(\w+)(?: and (\w+))?", previous)
                who = [word for word in before.groups() if word] if before else []
            says = " ; ".join(f"{_named(one)} in {_named(place)}" for one in who)
        elif match:
            says = " ".join(_named(match[int(part) + 1]) if part.isdigit() else part for part in says.split())
        if match:
            return says + (f" @{TIMES[when[1]]}" if when else "")
    raise ValueError(f"no label for {words!r}")
