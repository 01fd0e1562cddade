"""Any endpoint that speaks OpenAI's HTTP protocol (vLLM, llama.cpp, Ollama, OpenAI) as a model that writes text.

- Nothing in an answer is trusted: size, form, text and token counts are checked, and a fault quotes no more of it than
  one short printable line.
- The key travels in the Authorization header alone; what an endpoint repeats of it is taken out.
- What may pass is tried again, ever later and without dice: the same troubles give the same delays.

Whether an answer has the wanted structure is for the caller to judge: endpoints may ignore what they do not know.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from swarm.backends.prompts import CHAT_MARKS
from swarm.backends.protocol import Structure, TextRequest, TextResult
from swarm.backends.timed_http import MAX_BODY_BYTES, Answer, TimedSession, Watch
from swarm.config.engine import OpenAIEngine
from swarm.errors import SwarmError
from swarm.text import one_line

if TYPE_CHECKING:
    from ulm.tokenizer import Tokenizer

__all__ = ["OpenAIModel"]

BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0
MAX_TEXT_BYTES = 64 << 10
MAX_TOKENS = 10**9
MAX_SEED = (1 << 31) - 1
"""Some servers refuse larger seeds."""

UNKNOWN_LENGTH = 1 << 20
BYTES_PER_TOKEN = 3
"""Of prompts whose tokenizer is not known; English has some four, numbers fewer."""

MIN_SECRET = 16
"""Shorter keys, such as the "EMPTY" of local servers, are words that a model may well say."""

_MARKS = re.compile(r"<\|[^<>|]{1,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>")
_RETRIED = {408, 409, 425, 429}
_LATE = "timeout: no answer from the endpoint before the deadline (faults.call_timeout_s)"
_NO_USAGE = "the endpoint reports no token usage, so nothing can be charged but the most that it can have used"


class OpenAIModel:
    """A model at an OpenAI-compatible endpoint.

    Pickles and copies hold no key: it is read from the environment again where they are loaded.

    Args:
        model: its name at the endpoint.
        config: settings.
        environ: where the variable `config.key_env` is looked up.
        backoff_s: seconds before the first retry; twice as many before each further one, up to MAX_BACKOFF_S.

    Raises:
        SwarmError: there is no key where one should be.
    """

    def __init__(
        self, model: str, config: OpenAIEngine, environ: Mapping[str, str] = os.environ, backoff_s: float = BACKOFF_S
    ) -> None:
        self.model = model
        self._config = config
        self._url = config.url.rstrip("/")
        self._backoff_s = backoff_s
        self._key = _read_key(config.key_env, environ)
        self._session = TimedSession(self._key, config.connections)
        self._is_reached = False

    def __repr__(self) -> str:
        return f"OpenAIModel({self.model!r}, {self._url!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.model, self._config)

    @property
    def max_length(self) -> int:
        """Tokens of prompt and answer together: `engine.max_length`, or 1 << 20 where it is unknown."""
        return self._config.max_length or UNKNOWN_LENGTH

    def check(self) -> None:
        """Look whether the endpoint is there and has the model; to be called once, before a run.

        An endpoint that does not list its models passes.

        Raises:
            SwarmError: nothing answers, or a web page, the key is refused, the model is not listed, or the tokenizer
                cannot be read.
        """
        if self._config.tokenizer is not None:
            _ = self._tokenizer
        watch = Watch(time.monotonic() + self._config.timeout_s)
        answer = watch.run([partial(self._exchange, watch, "GET", "/models")], 1)[0] or Answer()
        if answer.status == 0:
            raise SwarmError(self._nobody(answer))
        if answer.status in (401, 403):
            raise SwarmError(self._refused(answer))
        if answer.status == 200 and "html" in answer.content_type.lower():
            raise SwarmError(
                f"what answers at {self._url} is a web page and no OpenAI-compatible endpoint: correct engine.url, "
                f"which mostly ends in /v1 ({self._quote(_decode(answer))})"
            )
        names = _model_names(answer)
        # Ollama lists a model that goes without a tag under its default one.
        if names and not {self.model, f"{self.model}:latest"} & set(names):
            raise SwarmError(f"the endpoint {self._url} has no model {self.model!r}{self._offer(names)}")

    def generate(self, requests: Sequence[TextRequest], deadline_s: float | None = None) -> list[TextResult]:
        """Answer every request, `engine.connections` of them at a time.

        An answer that does not say what it cost is charged the most that it can have: its prompt by `count_tokens`, and
        all tokens that it was allowed. So is one that never came though it was asked for, also if it came when it was
        asked for again.

        Raises:
            SwarmError: the endpoint refuses the key, does not know the model, or was never there.
        """
        watch = Watch(deadline_s)
        jobs = [partial(self._answer, watch, request) for request in requests]
        return [result or TextResult.failed(_LATE) for result in watch.run(jobs, self._config.connections)]

    def count_prompts(self, requests: Sequence[TextRequest]) -> list[int]:
        """Return the tokens of each prompt: by `engine.tokenizer`, or about as many as it has (BYTES_PER_TOKEN).

        Only the endpoint knows its chat template, so each message of a chat is allowed CHAT_MARKS for its marks. What
        an answer is charged is what the endpoint says.
        """
        return self._count_prompts(requests, 1 if self._config.tokenizer else BYTES_PER_TOKEN)

    def _most(self, request: TextRequest) -> tuple[int, int]:
        """Return the most tokens that an answer can have cost, where nobody says what it did."""
        return self._count_prompts([request], 1)[0], request.max_new_tokens

    def _count_prompts(self, requests: Sequence[TextRequest], per_token: int) -> list[int]:
        prompts, systems = (
            [-(-count // per_token) for count in self.count_tokens(texts)]
            for texts in ([r.prompt for r in requests], [r.system or "" for r in requests])
        )
        return [
            prompt if request.system is None else prompt + system + CHAT_MARKS * len(_messages(request))
            for request, prompt, system in zip(requests, prompts, systems, strict=True)
        ]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text by `engine.tokenizer`, or its UTF-8 bytes, which are hardly ever fewer."""
        if self._config.tokenizer is None:
            return [len(text.encode(errors="surrogatepass")) for text in texts]
        return [len(ids) for ids in self._tokenizer.encode_batch(texts)]

    def close(self) -> None:
        """Close idle connections; idempotent."""
        self._session.close()

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        from ulm.tokenizer import Tokenizer

        try:
            return Tokenizer.load(str(self._config.tokenizer))
        except ValueError as error:
            raise SwarmError(f"engine.tokenizer: {error}") from error

    def _answer(self, watch: Watch, request: TextRequest) -> TextResult:
        try:
            return self._try(watch, request)
        except SwarmError:
            raise
        except Exception as error:  # a request that cannot even be written must not take its neighbours down
            return TextResult.failed(self._quote(f"cannot ask the endpoint: {type(error).__name__}: {error}", 300))

    def _try(self, watch: Watch, request: TextRequest) -> TextResult:
        (num_prompt,) = self.count_prompts([request])
        if self._config.max_length is not None and num_prompt + request.max_new_tokens > self._config.max_length:
            return TextResult.too_long(num_prompt, request.max_new_tokens, self._config.max_length)
        path, payload = self._payload(request)
        # What an endpoint did for a request that it took and never answered is not known: it is charged as if all.
        read = written = 0

        def failed(fault: str) -> TextResult:
            return TextResult.failed(fault, read, written)

        for tries in range(1, self._config.retries + 2):
            answer = self._exchange(watch, "POST", path, payload)
            if answer.status == 200:
                found = self._result(request, answer)
                return replace(
                    found,
                    prompt_tokens=found.prompt_tokens + read,
                    generated_tokens=found.generated_tokens + written,
                )
            if answer.status in (401, 403):
                raise SwarmError(self._refused(answer))
            if answer.status == 404:
                names = _model_names(self._exchange(watch, "GET", "/models"))
                raise SwarmError(
                    f"the endpoint {self._url} knows no model {self.model!r}, or no {path} (HTTP 404)"
                    f"{self._offer(names)}; correct the model's name or engine.url"
                )
            if answer.status == 0 and not answer.is_unreachable:
                read, written = (a + b for a, b in zip((read, written), self._most(request), strict=True))
            if answer.status == 0 and watch.left_s() <= 0:
                return failed(_LATE)
            trouble = self._trouble(answer)
            if 0 < answer.status < 500 and answer.status not in _RETRIED:
                return failed(trouble)
            if tries <= self._config.retries and not watch.sleep(self._delay_s(tries, answer.retry_after_s, watch)):
                return failed(f"timeout: no time before the deadline to try again after {trouble}")
        if answer.is_unreachable and not self._is_reached:
            raise SwarmError(self._nobody(answer))
        return failed(f"{trouble} (tries: {tries})")

    def _delay_s(self, tries: int, retry_after_s: float, watch: Watch) -> float:
        """Return how long to wait after so many tries; without a deadline, Retry-After gets `engine.timeout_s`."""
        limit_s = self._config.timeout_s if watch.left_s() == math.inf else math.inf
        return max(min(self._backoff_s * 2.0 ** (tries - 1), MAX_BACKOFF_S), min(retry_after_s, limit_s))

    def _exchange(self, watch: Watch, method: str, path: str, payload: dict[str, Any] | None = None) -> Answer:
        answer = self._session.exchange(watch, self._config.timeout_s, method, self._url + path, payload)
        self._is_reached |= answer.status > 0
        return answer

    def _payload(self, request: TextRequest) -> tuple[str, dict[str, Any]]:
        payload: dict[str, Any] = {
            "model": self.model,
            "max_tokens": request.max_new_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed & MAX_SEED,
        }
        if request.stop:
            payload["stop"] = list(request.stop)
        if request.structure is not None:
            payload |= _form(request.structure)
        if request.system is None:
            return "/completions", payload | {"prompt": request.prompt}
        return "/chat/completions", payload | {"messages": _messages(request)}

    def _result(self, request: TextRequest, answer: Answer) -> TextResult:
        usage = None
        try:
            data = _parse(answer)
            usage = _usage(data)
            text, choice = _text(data, is_chat=request.system is not None)
            if request.structure is not None and request.structure.regex and not request.structure.json_schema:
                _check_form(request.structure.regex, text, choice)
            if self._key and len(self._key) >= MIN_SECRET and self._key in text:
                raise ValueError("the answer repeats the key")
            if usage is None:
                raise ValueError(_NO_USAGE)
        except ValueError as error:
            fault = f"{self._quote(error, 200)}: {self._quote(_decode(answer))}"
            return TextResult.failed(fault, *(usage or self._most(request)))
        starts = [text.find(stop) for stop in request.stop if stop and stop in text]
        if starts or choice.get("stop_reason") in request.stop:
            return TextResult(text[: min(starts, default=None)], *usage, "stop")
        return TextResult(text, *usage, "length" if choice.get("finish_reason") == "length" else "end")

    def _quote(self, text: object, length: int = 100) -> str:
        """Return the beginning of a text from elsewhere, safe to print, without the key."""
        text = str(text)
        return one_line((text.replace(self._key, "[key]") if self._key else text)[:1000])[:length]

    def _trouble(self, answer: Answer) -> str:
        if answer.status == 0:
            return self._quote(answer.trouble, 200)
        if 300 <= answer.status < 400:
            return f"HTTP {answer.status}: a redirect, and those are not followed; give engine.url the final address"
        return f"HTTP {answer.status}: {self._quote(_decode(answer))}"

    def _nobody(self, answer: Answer) -> str:
        return f"no endpoint at {self._url}: start it or correct engine.url ({self._trouble(answer)})"

    def _refused(self, answer: Answer) -> str:
        variable = self._config.key_env
        way_out = f"check what is in {variable}" if variable else "set engine.key_env to the variable that holds a key"
        return f"the endpoint {self._url} refuses the key: {way_out} ({self._trouble(answer)})"

    def _offer(self, names: Sequence[str]) -> str:
        if not names:
            return ""
        close = difflib.get_close_matches(self.model, names[:1000], n=1)
        offer = ", ".join(self._quote(name) for name in names[:10]) + (", ..." if len(names) > 10 else "")
        return f"; it offers {offer}" + (f"; did you mean {self._quote(close[0])}?" if close else "")


def _read_key(variable: str | None, environ: Mapping[str, str]) -> str | None:
    if variable is None:
        return None
    key = environ.get(variable, "").strip()
    if not key:
        raise SwarmError(
            f"the environment variable {variable} is not set; put the endpoint's key in it (engine.key_env)"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise SwarmError(f"the environment variable {variable} holds no key: keys are one word of printable ASCII")
    return key


def _messages(request: TextRequest) -> list[dict[str, str]]:
    messages = [{"role": "system", "content": _plain(request.system)}] if request.system else []
    return [*messages, {"role": "user", "content": _plain(request.prompt)}]


def _plain(text: str) -> str:
    """Return the text without what the usual chat formats write between messages: servers may read it as such."""
    before = None
    while before != text:  # what is left of one may form another
        before, text = text, _MARKS.sub("", text)
    return text


def _check_form(pattern: str, text: str, choice: dict[str, Any]) -> None:
    """Refuse an answer of an endpoint that ignored its form; one that was cut short is no sign of that."""
    if choice.get("finish_reason") != "length" and not re.fullmatch(pattern, text.strip(), re.ASCII):
        raise ValueError("the answer has not the form that was asked for; the endpoint may not know structured_outputs")


def _form(structure: Structure) -> dict[str, Any]:
    """Return the fields that ask for a structure: OpenAI's own for JSON, vLLM's (0.12 and later) for the others."""
    if structure.json_schema:
        schema = {"name": "answer", "schema": structure.json_schema, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    if structure.regex:
        return {"structured_outputs": {"regex": structure.regex}}
    if structure.choices:
        return {"structured_outputs": {"choice": list(structure.choices)}}
    return {"structured_outputs": {"grammar": structure.grammar}}


def _decode(answer: Answer) -> str:
    return answer.body.decode(errors="replace")


def _parse(answer: Answer) -> dict[str, Any]:
    """Return the JSON object of an answer; a ValueError says why there is none."""
    if answer.is_cut:
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
    usage = data.get("usage")
    if not isinstance(usage, dict):
        return None
    prompt, generated = (usage.get(name, -1) for name in ("prompt_tokens", "completion_tokens"))
    is_sound = all(type(count) is int and 0 <= count <= MAX_TOKENS for count in (prompt, generated))
    return (prompt, generated) if is_sound else None


def _text(data: dict[str, Any], is_chat: bool) -> tuple[str, dict[str, Any]]:
    """Return the text of an answer and the choice that holds it; a ValueError says why there is none."""
    where = "choices[0].message.content" if is_chat else "choices[0].text"
    choices = data.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    holder = choice.get("message") if is_chat and isinstance(choice, dict) else choice
    text = holder.get("content" if is_chat else "text") if isinstance(holder, dict) else None
    if not isinstance(choice, dict) or not isinstance(text, str):
        raise ValueError(f"the answer has no text at {where}")
    try:
        length = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError("the answer's text holds half characters (lone surrogates)") from None
    if length > MAX_TEXT_BYTES:
        raise ValueError(f"the answer's text is longer than {MAX_TEXT_BYTES} bytes")
    return text, choice


def _model_names(answer: Answer) -> list[str]:
    """Return the models that an answer lists, none when it is no listing."""
    try:
        listed = _parse(answer).get("data") if answer.status == 200 else None
    except ValueError:
        return []
    entries = listed if isinstance(listed, list) else []
    return [entry["id"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
