"""What an OpenAI-compatible endpoint answered: judged, and read without trust in its size, form or counts.

Endpoints differ in how they wrap an answer and in where they put an error (some into a 200); what is readable is read.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from swarm.backends.timed_http import MAX_BODY_BYTES, Answer

MAX_TEXT_BYTES = 64 << 10
MAX_TOKENS = 10**9
BYTES_IN_TOKEN = 64
"""A text of so many bytes has a token at least."""

BUSY = {408, 409, 424, 425, 429, 498, 502, 503, 504, 529}
"""The endpoint is there and cannot answer now, or a gateway before it cannot reach it."""

_ADDRESS = {405, 410, 501}
_IN_THE_REQUEST = re.compile(
    r"context.{0,20}(length|size|window)|too (long|large)|moderation|flagged|content.?(filter|policy|management)", re.I
)
_CREDIT = re.compile(
    r"insufficient.{0,10}(quota|balance|credit|funds)|credit balance|billing|out of credits?|arrearage|"
    r"exceeded.{0,20}quota|quota.{0,20}(used up|exhausted)",
    re.I,
)
_AGAIN = re.compile(r"retry|try again|per (minute|second|hour|day)|rate.?limit", re.I)
_KEY = re.compile(
    r"(api.?key|(access|auth\w*|bearer).token).{0,30}(valid|incorrect|missing|wrong)|invalid.{0,10}api.?key", re.I
)
_MODEL = re.compile(
    r"model.?not.?found|unknown.?model|no such model|model .{1,100} (not found|does not exist)|no models? (is )?loaded",
    re.I,
)

Cause = Literal["key", "credit", "model", "proxy", "address"]
Verdict = Literal["answer", "bad request", "refused", "busy", "broken", "away"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an answer means for the request.

    Attributes:
        verdict: `answer`: there is one to be read. `bad request`: this request is refused. `refused`: all requests are,
            for good. What may pass: `busy`, `broken` (something answers, and not the model), `away` (nobody does).
        said: what the endpoint says instead of an answer.
        field: the field of the request that it names.
        cause: of a refusal for good.
    """

    verdict: Verdict
    said: str = ""
    field: str = ""
    cause: Cause | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A completion as the endpoint tells it.

    Attributes:
        text: the answer; "" after a fault.
        reasoning: thoughts that stand beside it.
        usage: tokens of the prompt and of the answer; None where the endpoint does not say, or says the impossible.
        hidden: tokens of thoughts among them that may stand nowhere.
        finish_reason, stop_reason: as they are.
        fault: why there is no text.
    """

    text: str = ""
    reasoning: str = ""
    usage: tuple[int | None, int | None] = (None, None)
    hidden: int = 0
    finish_reason: object = None
    stop_reason: object = None
    fault: str | None = None


def judge(answer: Answer) -> Judgement:
    """Return what an answer means: its status, and what an error says that may stand in a 200."""
    if answer.status == 0:
        return Judgement("away", answer.trouble)
    if 300 <= answer.status < 400:
        said = f"HTTP {answer.status}: a redirect, and those are not followed; give engine.url the final address"
        return Judgement("refused", said, cause="address")
    data, fault = _parse(answer)
    error = _error(data, answer.status)
    if error is None and answer.status == 200 and fault != _NO_JSON:
        return Judgement("answer")
    code, words, field = (500, decode(answer), "") if error is None else error
    status = answer.status if answer.status >= 300 else code
    said = f"HTTP {answer.status}: {words or decode(answer)}"

    def judged(verdict: Verdict, cause: Cause | None = None) -> Judgement:
        return Judgement(verdict, said, field, cause)

    is_theirs = 400 <= status < 500
    can_pass = (answer.retry_after_s > 0 or _AGAIN.search(words)) and "insufficient_quota" not in words
    if (is_theirs or status == 500) and status != 404 and _IN_THE_REQUEST.search(words):
        return Judgement("bad request", said)  # whatever field it names, others will fit
    if status == 402 or (is_theirs and not can_pass and _CREDIT.search(words)):
        return judged("refused", "credit")
    if status == 407 or (status == 403 and data is None and answer.body.strip()):
        return judged("refused", "proxy")
    if status in BUSY or (status == 403 and answer.retry_after_s):
        return judged("busy")
    if status in (401, 403) or (status == 400 and _KEY.search(words)):
        return judged("refused", "key")
    if status == 404 or (is_theirs and _MODEL.search(words)):
        return judged("refused", "model")
    if status in _ADDRESS:
        return judged("refused", "address")
    return judged("broken" if status >= 500 else "bad request")


def read_completion(answer: Answer, is_chat: bool) -> Completion:
    """Return the completion that an answer holds."""
    data, fault = _parse(answer)
    if not isinstance(data, dict):
        return Completion(fault=fault or "the answer is no JSON object")
    usage, hidden = _usage(data), _count(data, "usage", "completion_tokens_details", "reasoning_tokens") or 0
    choice = _at(data, "choices", 0)
    message = _at(choice, "message")
    # Some have but one form for both kinds of request.
    in_message = message is not None and (is_chat or _at(choice, "text") is None)
    text, thoughts = _parts(_at(message, "content") if in_message else _at(choice, "text"))
    fields = (_at(message, name) for name in ("reasoning_content", "reasoning", "thinking"))
    reasoning = next((found for found in fields if isinstance(found, str) and found), thoughts)
    fault = None
    if text is None and not reasoning:
        fault = _textless(message, is_chat)
    elif any("\ud800" <= char <= "\udfff" for char in f"{text}{reasoning}"):
        fault = "the answer's text holds half characters (lone surrogates)"
    elif len((text or "").encode()) > MAX_TEXT_BYTES:
        fault = f"the answer's text is longer than {MAX_TEXT_BYTES} bytes"
    if fault:
        return Completion(usage=usage, hidden=hidden, fault=fault)
    reasons = _at(choice, "finish_reason"), _at(choice, "stop_reason")
    return Completion(text or "", reasoning, usage, hidden, *reasons)


def model_names(answer: Answer) -> list[str]:
    """Return the models that an answer lists, none when it is no listing."""
    entries = _at(_parse(answer)[0], "data") if answer.status == 200 else None
    names = [_at(entry, "id") for entry in entries] if isinstance(entries, list) else []
    return [name for name in names if isinstance(name, str)]


def decode(answer: Answer) -> str:
    """Return the body as text, whatever it is."""
    return answer.body.decode(errors="replace")


_NO_JSON = "the answer cannot be read as JSON in UTF-8"
_UNREADABLE = "the answer is too deep, or of another encoding than UTF-8"


def _parse(answer: Answer) -> tuple[Any, str | None]:
    """Return the JSON of an answer, or why there is none; its content type is often wrong."""
    if len(answer.body) > MAX_BODY_BYTES:
        return None, f"the answer is longer than {MAX_BODY_BYTES} bytes"
    try:
        if re.match(rb"\s*(data|event|id)?:", answer.body):
            return _stream(answer.body.decode()), None
        return json.loads(answer.body), None
    except json.JSONDecodeError:
        return None, _NO_JSON
    except (ValueError, RecursionError):
        return None, _UNREADABLE


def _stream(text: str) -> dict[str, Any]:
    """Return the completion that an event stream spells out: some stream unasked."""
    lines = [line.removeprefix("data:").strip() for line in text.splitlines() if line.startswith("data:")]
    events = [json.loads(line) for line in lines if line != "[DONE]"]
    parts = [part for event in events if (part := _at(event, "choices", 0)) is not None]
    spelt = {
        name: "".join(text for part in parts if isinstance(text := _at(part, "delta", name), str))
        for name in ("content", "reasoning_content", "reasoning")
    }
    whole: dict[str, Any] = {}
    for event in events:
        whole |= {name: value for name, value in event.items() if value is not None} if isinstance(event, dict) else {}
    plain = "".join(text for part in parts if isinstance(text := _at(part, "text"), str))
    ends = [reason for part in parts if (reason := _at(part, "finish_reason"))]
    choice = {"message": spelt, "text": plain, "finish_reason": ends[-1] if ends else "length"}
    return whole | ({"choices": [choice]} if parts else {})


def _error(data: Any, status: int) -> tuple[int, str, str] | None:
    """Return what kind of error (as a status), what it says, and the field that it names; None where there is none."""
    data = _at(data, 0) if isinstance(data, list) and status >= 300 else data
    choices = _at(data, "choices")
    found = _at(data, "error") or _at(data, "errors", 0) or _at(choices, 0, "error")
    if not found and isinstance(data, dict) and (status >= 300 or (not choices and "choices" not in data)):
        found = data if {"message", "detail", "msg"} & set(data) or status >= 300 else None
    if not found and _at(choices, 0, "finish_reason") == "error":
        found = "the answer ends in an error"
    if not found:
        return None
    said = next((v for n in ("message", "detail", "msg", "error") if (v := _at(found, n))), None)
    kinds = [str(kind) for name in ("code", "type", "status") if (kind := _at(found, name)) is not None]
    numbers = [int(kind) for kind in kinds if re.fullmatch("[1-9][0-9]{2}", kind)]
    if status == 200 and isinstance(found, dict) and not said and numbers in ([], [200]):
        return None
    said = found if said is None else said
    words = said if isinstance(said, str) else json.dumps(said)
    kind = " ".join(kind for kind in kinds if not kind.isdigit() and kind.lower() not in words.lower())
    named = next((n for n in numbers if n >= 400), 400 if "invalid_request" in kind else 500)
    field = _at(found, "param") or _at(said, 0, "loc", -1)
    return named, f"{words} ({kind})" if kind else words, field if isinstance(field, str) else ""


def _parts(content: Any) -> tuple[str | None, str]:
    """Return the text of a content that may come in parts, and the thoughts among them."""
    if isinstance(content, str) or content is None:
        return content, ""
    parts = content if isinstance(content, list) else [content]
    texts = [text for part in parts if isinstance(text := _at(part, "text"), str)]
    inner = [thought for part in parts if (thought := _at(part, "thinking") or _at(part, "reasoning"))]
    thoughts = [thought if isinstance(thought, str) else _parts(thought)[0] or "" for thought in inner]
    return "".join(texts) if texts else None, "\n".join(thoughts)


def _textless(message: Any, is_chat: bool) -> str:
    """Return why an answer holds no text."""
    if isinstance(refusal := _at(message, "refusal"), str) and refusal:
        return f"the model refuses to answer: {refusal}"
    if _at(message, "tool_calls"):
        return "the answer calls tools and has no text"
    return f"the answer has no text at choices[0].{'message.content' if is_chat else 'text'}"


def _usage(data: dict[str, Any]) -> tuple[int | None, int | None]:
    prompt, generated = (
        next((count for name in names if (count := _count(data, "usage", name)) is not None), None)
        for names in (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))
    )
    total = _count(data, "usage", "total_tokens")
    if prompt and generated is not None and total is not None:
        generated = max(generated, total - prompt)  # some count thoughts in the total only
    return prompt, generated


def is_plausible(count: int | None, texts: Sequence[str], most: int) -> bool:
    """Return whether a count of tokens can be that of these texts; `most` are as many as there can be."""
    num_bytes = sum(len(text.encode(errors="surrogatepass")) for text in texts)
    return count is not None and -(-num_bytes // BYTES_IN_TOKEN) <= count <= most


def _count(data: Any, *path: str | int) -> int | None:
    count = _at(data, *path)
    return count if type(count) is int and 0 <= count <= MAX_TOKENS else None


def _at(data: Any, *path: str | int) -> Any:
    """Return what is at a path in parsed JSON, None if nothing is."""
    try:
        for key in path:
            data = data[key]
    except (TypeError, LookupError):
        return None
    return data
