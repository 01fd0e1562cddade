"""What of a chat model's answer counts: models that think write their thoughts beside it, each kind in its own marks.

One rule for all engines. Thoughts are dropped from the text and charged like all tokens; an answer that is nothing but
thoughts, or nothing at all, is a fault that names what helps. Plain-prompt engines are not concerned: they continue a
text. It refuses to know engines.
"""

import re
from dataclasses import dataclass

REMEDY = "raise max_new_tokens, or turn thinking off (engine.chat_template_kwargs: {enable_thinking: false})"

_TAGS = "think|thinking|thoughts?|reasoning|reason|scratchpad|inner_monologue"
_MARK = re.compile(
    rf"< ?(?P<end>/)? ?(?:\w{{1,20}}:)?(?:{_TAGS}) ?>"  # DeepSeek, Qwen, EXAONE, and most that are told to
    r"|\[(?P<end2>/)?THINK\]"  # Magistral
    r"|\u25c1(?P<end3>/)?think\u25b7"  # Kimi
    r"|<\|(?:begin|(?P<end4>end))_of_thought\|>"  # OpenThinker, Sky-T1
    r"|<\|(?:START|(?P<end5>END))_THINKING\|>"  # Command A
    r"|<unused94>(?:thought)?|(?P<end6><unused95>)"  # MedGemma
    r"|<\|channel>\s?thought\b|(?P<end7><channel\|>)",  # Gemma 4
    re.IGNORECASE,
)
_CHANNEL = re.compile(
    r"(?:<\|start\|>\w{0,20})?(?:<\|channel\|>)?"
    r"\b(analysis|commentary|final)\b[^<]{0,100}(?:<\|constrain\|>[^<]{0,40})?<\|message\|>"
)
"""Where a part of an answer in OpenAI's harmony format begins (gpt-oss)."""

_BARE_CHANNELS = re.compile(r"\s*(?:analysis|commentary)(?=[A-Z\"'(\d])(.*?)(?:assistantfinal(.*))?", re.DOTALL)
"""The same by a server that leaves out special tokens."""

_HARMONY = {f"<|{word}|>" for word in ("start", "end", "return", "call", "channel", "constrain", "message")}

_HARMONY_END = re.compile(r"<\|(?:end|return|call)\|>|<\|start\|>\w{0,20}$")
_WRAP = re.compile(r"<(answer|response|final|output)>(.*?)(?:</\1>)?", re.DOTALL | re.IGNORECASE)
"""What some models that think put around the rest."""


@dataclass(frozen=True, slots=True)
class Said:
    """What an answer says.

    Attributes:
        text: what counts of it; as it was where there were no thoughts.
        thoughts: the rest, without its marks.
        fault: why nothing counts, and what helps; None where something does.
    """

    text: str
    thoughts: str = ""
    fault: str | None = None


def without_thoughts(text: str, reasoning: str = "", is_cut: bool = False) -> Said:
    """Return what counts of an answer: total on any text.

    Args:
        text: the answer. Where the prompt has opened a thought already, with that mark (`open_thought`) before it.
        reasoning: what the server has taken out of it as thoughts.
        is_cut: the answer ended at its token limit.
    """
    thoughts, rest = _parted(text)
    said = "\n".join(part for part in (reasoning.strip(), *thoughts) if part)
    if rest.strip():
        return Said(rest, said)
    what = "thoughts and no answer" if said else "nothing"
    where = " before the token limit" if is_cut else ""
    return Said("", said, f"the model wrote {what}{where}: {REMEDY}")


def open_thought(prompt: str) -> str:
    """Return the mark of a thought that a rendered chat ends in, as some templates do; "" without one."""
    marks = list(_MARK.finditer(prompt[-200:]))
    is_open = marks and not _ends(marks[-1]) and not prompt[-200:][marks[-1].end() :].strip()
    return marks[-1][0] if is_open else ""


def is_mark(token: str) -> bool:
    """Return whether a token parts thoughts from the rest, so that texts are read with it."""
    return token in _HARMONY or _MARK.fullmatch(token) is not None


def _parted(text: str) -> tuple[list[str], str]:
    """Return the thoughts of an answer, and the rest."""
    if parts := _channels(text):
        return parts
    depth, place, has_mark = 0, 0, False
    thoughts, rest = list[str](), list[str]()
    for mark in _MARK.finditer(text):
        has_mark = True
        (thoughts if depth else rest).append(text[place : mark.start()])
        place = mark.end()
        if not _ends(mark):
            depth += 1
        elif depth:
            depth -= 1
        else:  # the prompt had opened it
            thoughts, rest = [*thoughts, *rest], []
    (thoughts if depth else rest).append(text[place:])
    if not has_mark:
        return [], text
    answer = "".join(rest).strip()
    if wrap := _WRAP.fullmatch(answer):
        answer = wrap[2].strip()
    return [part.strip() for part in thoughts], answer


def _channels(text: str) -> tuple[list[str], str] | None:
    """Return the same of an answer in harmony's channels, of which only `final` is for others; None of any other."""
    places = list(_CHANNEL.finditer(text))
    if not places:
        bare = _BARE_CHANNELS.fullmatch(text)
        return ([bare[1].strip()], (bare[2] or "").strip()) if bare else None
    thoughts, rest = [text[: places[0].start()]], list[str]()
    for place, following in zip(places, [*places[1:], None], strict=True):
        part = text[place.end() : following.start() if following else None]
        (rest if place[1] == "final" else thoughts).append(part)
    thoughts, rest = ([_HARMONY_END.sub("", part).strip() for part in parts] for parts in (thoughts, rest))
    return thoughts, "\n".join(part for part in rest if part)


def _ends(mark: re.Match[str]) -> bool:
    return any(mark.groupdict().values())
