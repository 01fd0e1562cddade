"""Any endpoint that speaks OpenAI's HTTP protocol (vLLM, llama.cpp, Ollama, OpenAI) as a model that writes text.

- A fault quotes no more of an answer than one short printable line.
- The key travels in the Authorization header alone; what an endpoint repeats of it is taken out.
- What may pass is retried, ever later and without dice: the same troubles give the same delays.

Whether an answer has the wanted structure is for the caller to judge: endpoints may ignore what they do not know.
"""

import asyncio
import difflib
import functools
import json
import math
import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from swarm.backends.completion import decode, judge, model_names, read_completion
from swarm.backends.models import chat_messages
from swarm.backends.prompts import CHAT_MARKS
from swarm.backends.protocol import Structure, TextRequest, TextResult
from swarm.backends.timed_http import Answer, TimedClient
from swarm.config.engine import OpenAIEngine
from swarm.errors import SwarmError
from swarm.text import one_line
from ulm.tokenizer import Tokenizer

BACKOFF_S, MAX_BACKOFF_S = 0.5, 30.0
"""Seconds before the first retry, twice as many before each further one, and their limit."""

MAX_SEED = (1 << 31) - 1
"""Some servers refuse larger seeds."""

BYTES_PER_TOKEN = 3
"""Of prompts whose tokenizer is not known; English has some four, numbers fewer."""

MIN_SECRET = 16
"""Shorter keys, such as the "EMPTY" of local servers, are words that a model may well say."""

_MARKS = re.compile(r"<\|[^<>|]{1,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>")
"""What the usual chat formats write between messages; servers may read it as such wherever it stands."""

_LATE = "timeout: no answer from the endpoint before the deadline (faults.call_timeout_s)"
_NO_FORM = "the answer has not the form that was asked for; the endpoint may not know structured_outputs"
_NO_USAGE = "the endpoint reports no token usage, so nothing can be charged but the most that it can have used"


class OpenAIModel:
    """A model at an OpenAI-compatible endpoint.

    Pickles and copies hold no key: it is read from the environment again where they are loaded.

    Args:
        model: its name at the endpoint.
        config: settings.
        environ: where the variable `config.key_env` is looked up.
        sleep: waits before a retry.
        timeout_s: time limit of one request; a try that is cut is repeated, within the deadline of the call.
        retries: times that a failed request is sent again, each after a longer wait.

    Raises:
        SwarmError: no key where one should be, or a proxy that cannot be used.
    """

    max_length = 1 << 20
    """Tokens of prompt and answer together, which only the endpoint knows."""

    def __init__(
        self,
        model: str,
        config: OpenAIEngine,
        environ: Mapping[str, str] = os.environ,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        *,
        timeout_s: float = 60.0,
        retries: int = 4,
    ) -> None:
        self.model = model
        self._config = config
        self._url = config.url.rstrip("/")
        self._sleep = sleep
        self._timeout_s, self._retries = timeout_s, retries
        self._key = _read_key(config.key_env, environ)
        self._client = TimedClient(self._key, config.connections)
        self._is_reached = False

    def __repr__(self) -> str:
        return f"OpenAIModel({self.model!r}, {self._url!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        make = functools.partial(type(self), timeout_s=self._timeout_s, retries=self._retries)
        return make, (self.model, self._config)

    def check(self) -> None:
        """Look whether the endpoint is there and has the model; to be called once, before a run.

        An endpoint that does not list its models passes.

        Raises:
            SwarmError: nothing answers, or a web page, the key is refused, the model is not listed, or the tokenizer
                cannot be read.
        """
        if self._config.tokenizer is not None:
            _ = self._tokenizer
        answer = self._client.run(self._exchange("GET", "/models"))
        if answer.status == 0:
            raise SwarmError(self._nobody(answer))
        if judge(answer) == "key refused":
            raise SwarmError(self._refused(answer))
        if answer.status == 200 and "html" in answer.content_type.lower():
            raise SwarmError(
                f"what answers at {self._url} is a web page and no OpenAI-compatible endpoint: correct engine.url, "
                f"which mostly ends in /v1 ({self._quote(decode(answer))})"
            )
        names = model_names(answer)
        # Ollama lists a model that goes without a tag under its default one.
        if names and not {self.model, f"{self.model}:latest"} & set(names):
            raise SwarmError(f"the endpoint {self._url} has no model {self.model!r}{self._offer(names)}")

    def generate(self, requests: Sequence[TextRequest], deadline_s: float | None = None) -> list[TextResult]:
        """Answer every request, `engine.connections` of them at a time.

        An answer that does not say what it cost is charged the most that it can have: its prompt by `count_tokens`, and
        all tokens that it was allowed. So is every try that was sent and not answered.

        Raises:
            SwarmError: the endpoint refuses the key, does not know the model, or was never there.
        """
        return self._client.run(self._answer_all(requests, math.inf if deadline_s is None else deadline_s))

    def count_prompts(self, requests: Sequence[TextRequest]) -> list[int]:
        """Return the tokens of each prompt: by `engine.tokenizer`, or about as many as it has (BYTES_PER_TOKEN).

        Only the endpoint knows its chat template, so each message of a chat is allowed CHAT_MARKS for its marks. What
        an answer is charged is what the endpoint says.
        """
        return self._count_prompts(requests, 1 if self._config.tokenizer else BYTES_PER_TOKEN)

    def _count_prompts(self, requests: Sequence[TextRequest], per_token: int) -> list[int]:
        prompts, systems = (
            [-(-count // per_token) for count in self.count_tokens(texts)]
            for texts in ([r.prompt for r in requests], [r.system or "" for r in requests])
        )
        return [
            prompt if request.system is None else prompt + system + CHAT_MARKS * (1 + bool(request.system))
            for request, prompt, system in zip(requests, prompts, systems, strict=True)
        ]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text by `engine.tokenizer`, or its UTF-8 bytes, which are hardly ever fewer."""
        if self._config.tokenizer is None:
            return [len(text.encode(errors="surrogatepass")) for text in texts]
        return [len(ids) for ids in self._tokenizer.encode_batch(texts)]

    def close(self) -> None:
        """Close idle connections; idempotent."""
        self._client.close()

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        try:
            return Tokenizer.load(str(self._config.tokenizer))
        except ValueError as error:
            raise SwarmError(f"engine.tokenizer: {error}") from error

    async def _answer_all(self, requests: Sequence[TextRequest], deadline_s: float) -> list[TextResult]:
        results: dict[int, TextResult] = {}
        to_do = iter(enumerate(requests))

        async def work() -> None:
            for index, request in to_do:
                results[index] = await self._answer(request, deadline_s)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._config.connections, len(requests))):
                    group.create_task(work())
        except ExceptionGroup as errors:  # the first has cancelled the other tasks
            raise errors.exceptions[0] from None
        return [results[index] for index in range(len(requests))]

    async def _answer(self, request: TextRequest, deadline_s: float) -> TextResult:
        """Ask until there is an answer, or no use in asking again."""
        try:
            most = self._count_prompts([request], 1)[0], request.max_new_tokens
            path, body = self._body(request)
        except Exception as error:  # a request that cannot even be written must not take its neighbours down
            return TextResult.failed(self._quote(f"cannot ask the endpoint: {type(error).__name__}: {error}", 300))
        unanswered = 0

        def charged(result: TextResult) -> TextResult:
            """Add what the tries that were sent and not answered may have cost."""
            return replace(
                result,
                prompt_tokens=result.prompt_tokens + unanswered * most[0],
                generated_tokens=result.generated_tokens + unanswered * most[1],
            )

        for tries in range(1, self._retries + 2):
            answer = await self._exchange("POST", path, body, deadline_s)
            verdict = judge(answer)
            if verdict == "completion":
                return charged(self._result(request, answer, most))
            if verdict == "key refused":
                raise SwarmError(self._refused(answer))
            if verdict == "not found":
                raise SwarmError(
                    f"the endpoint {self._url} knows no model {self.model!r}, or no {path} (HTTP 404)"
                    f"{self._offer(model_names(await self._exchange('GET', '/models', b'', deadline_s)))}; "
                    "correct the model's name or engine.url"
                )
            trouble = self._trouble(answer)
            if verdict == "bad request":
                return charged(TextResult.failed(trouble))
            if answer.status == 0:
                unanswered += answer.was_sent
                if time.monotonic() >= deadline_s:
                    return charged(TextResult.failed(_LATE))
            if tries <= self._retries:
                delay_s = self._delay_s(tries, answer.retry_after_s, deadline_s)
                if time.monotonic() + delay_s >= deadline_s:
                    fault = f"timeout: no time before the deadline to try again after {trouble}"
                    return charged(TextResult.failed(fault))
                await self._sleep(delay_s)
        if not (answer.was_sent or self._is_reached):
            raise SwarmError(self._nobody(answer))
        return charged(TextResult.failed(f"{trouble} (tries: {tries})"))

    def _delay_s(self, tries: int, retry_after_s: float, deadline_s: float) -> float:
        """Return how long to wait after so many tries; without a deadline, Retry-After gets one request's limit."""
        limit_s = self._timeout_s if deadline_s == math.inf else math.inf
        return max(min(BACKOFF_S * 2.0 ** (tries - 1), MAX_BACKOFF_S), min(retry_after_s, limit_s))

    async def _exchange(self, method: str, path: str, body: bytes = b"", deadline_s: float = math.inf) -> Answer:
        limit_s = min(self._timeout_s, deadline_s - time.monotonic())
        answer = await self._client.exchange(limit_s, method, self._url + path, body)
        self._is_reached |= answer.status > 0
        return answer

    def _body(self, request: TextRequest) -> tuple[str, bytes]:
        """Return where a request goes, and its JSON."""
        payload: dict[str, Any] = {
            "model": self.model,
            "max_tokens": request.max_new_tokens,
            "temperature": request.temperature,
            "top_p": 1.0,  # servers have defaults of their own
            "seed": request.seed & MAX_SEED,
        }
        if request.stop:
            payload["stop"] = list(request.stop)
        if request.structure is not None:
            payload |= _form(request.structure)
        if request.system is None:
            path, payload["prompt"] = "/completions", request.prompt
        else:
            path, payload["messages"] = "/chat/completions", chat_messages(request.system, request.prompt, _MARKS)
        return path, json.dumps(payload, allow_nan=False).encode()

    def _result(self, request: TextRequest, answer: Answer, most: tuple[int, int]) -> TextResult:
        """Return what an answer is worth; `most` are the tokens to charge if it does not say what it cost."""
        found = read_completion(answer, is_chat=request.system is not None)
        text, usage, structure = found.text, found.usage or most, request.structure
        form = structure.regex if structure and not structure.json_schema else None
        is_cut = found.finish_reason == "length"  # an answer that is cut short is no sign of a form ignored
        fault = found.fault
        if fault is None and form and not is_cut and not re.fullmatch(form, text.strip(), re.ASCII):
            fault = _NO_FORM
        if fault is None and self._key and len(self._key) >= MIN_SECRET and self._key in text:
            fault = "the answer repeats the key"
        if fault is None and found.usage is None:
            fault = _NO_USAGE
        if fault is not None:
            return TextResult.failed(f"{self._quote(fault, 200)}: {self._quote(decode(answer))}", *usage)
        starts = [text.find(stop) for stop in request.stop if stop and stop in text]
        if starts or found.stop_reason in request.stop:
            return TextResult(text[: min(starts, default=None)], *usage, "stop")
        return TextResult(text, *usage, "length" if is_cut else "end")

    def _quote(self, text: object, length: int = 100) -> str:
        """Return the beginning of a text from elsewhere, safe to print, without the key."""
        text = str(text)
        return one_line((text.replace(self._key, "[key]") if self._key else text)[:1000])[:length]

    def _trouble(self, answer: Answer) -> str:
        if answer.status == 0:
            return self._quote(answer.trouble, 200)
        if 300 <= answer.status < 400:
            return f"HTTP {answer.status}: a redirect, and those are not followed; give engine.url the final address"
        return f"HTTP {answer.status}: {self._quote(decode(answer))}"

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


def _form(structure: Structure) -> dict[str, Any]:
    """Return the fields that ask for a structure: OpenAI's own for JSON, vLLM's (0.12 and later) for the others."""
    form, value = structure.best("json_schema", "regex", "choices", "grammar")
    if form == "json_schema":
        return {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": value, "strict": True},
            }
        }
    return {"structured_outputs": {"choice" if form == "choices" else form: value}}
