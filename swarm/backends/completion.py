"""What an OpenAI-compatible endpoint answered: judged by its status, read without trust in its size, form or counts."""

import json
from dataclasses import dataclass
from typing import Any, Literal

from swarm.backends.timed_http import MAX_BODY_BYTES, Answer

MAX_TEXT_BYTES = 64 << 10
MAX_TOKENS = 10**9

_PASSING = {408, 409, 425, 429}


@dataclass(frozen=True, slots=True)
class Completion:
    """A completion as the endpoint tells it.

    Attributes:
        text: the answer; "" after a fault.
        usage: tokens of the prompt and of the answer; None if the endpoint does not say, or says the impossible.
        finish_reason, stop_reason: as they are.
        fault: why there is no text.
    """

    text: str = ""
    usage: tuple[int, int] | None = None
    finish_reason: object = None
    stop_reason: object = None
    fault: str | None = None


def judge(answer: Answer) -> Literal["completion", "key refused", "not found", "bad request", "may pass"]:
    """Return what an answer means for the request: `may pass` is worth another try, `bad request` is not."""
    if answer.status in (401, 403):
        return "key refused"
    if answer.status == 404:
        return "not found"
    if answer.status == 0 or answer.status >= 500 or answer.status in _PASSING:
        return "may pass"
    return "completion" if answer.status == 200 else "bad request"


def read_completion(answer: Answer, is_chat: bool) -> Completion:
    """Return the completion that an answer holds."""
    try:
        data = _parse(answer)
    except ValueError as error:
        return Completion(fault=str(error))
    usage = _usage(data)
    choice = _at(data, "choices", 0)
    text = _at(choice, "message", "content") if is_chat else _at(choice, "text")
    fault = None
    if not isinstance(text, str):
        fault = f"the answer has no text at choices[0].{'message.content' if is_chat else 'text'}"
    elif any("\ud800" <= char <= "\udfff" for char in text):
        fault = "the answer's text holds half characters (lone surrogates)"
    elif len(text.encode()) > MAX_TEXT_BYTES:
        fault = f"the answer's text is longer than {MAX_TEXT_BYTES} bytes"
    if fault:
        return Completion(usage=usage, fault=fault)
    return Completion(text, usage, _at(choice, "finish_reason"), _at(choice, "stop_reason"))


def model_names(answer: Answer) -> list[str]:
    """Return the models that an answer lists, none when it is no listing."""
    try:
        entries = _at(_parse(answer), "data") if answer.status == 200 else None
    except ValueError:
        return []
    names = [_at(entry, "id") for entry in entries] if isinstance(entries, list) else []
    return [name for name in names if isinstance(name, str)]


def decode(answer: Answer) -> str:
    """Return the body as text, whatever it is."""
    return answer.body.decode(errors="replace")


def _parse(answer: Answer) -> dict[str, Any]:
    """Return the JSON object of an answer; a ValueError says why there is none."""
    if len(answer.body) > MAX_BODY_BYTES:
        raise ValueError(f"the answer is longer than {MAX_BODY_BYTES} bytes")
    if "json" not in answer.content_type.lower():
        raise ValueError(f"the answer is of type {answer.content_type[:50]!r}, not JSON")
    try:
        data = json.loads(answer.body.decode())
    except (ValueError, RecursionError):
        raise ValueError("the answer cannot be read as JSON in UTF-8") from None
    if not isinstance(data, dict):
        raise ValueError("the answer is no JSON object")
    return data


def _usage(data: dict[str, Any]) -> tuple[int, int] | None:
    prompt, generated = (_at(data, "usage", name) for name in ("prompt_tokens", "completion_tokens"))
    is_sound = all(type(count) is int and 0 <= count <= MAX_TOKENS for count in (prompt, generated))
    return (prompt, generated) if is_sound else None


def _at(data: Any, *path: str | int) -> Any:
    """Return what is at a path in parsed JSON, None if nothing is."""
    try:
        for key in path:
            data = data[key]
    except (TypeError, LookupError):
        return None
    return data
