"""Any endpoint that speaks OpenAI's HTTP protocol (vLLM, llama.cpp, Ollama, OpenAI) as a model that writes text.

- A bad answer is a fault of its call. Where nobody answers, or the endpoint is busy, the same is asked again, ever
  later and without dice, up to a limit; then, and where requests are refused for good, an `Outage` ends the run.
- Tries that got no answer are counted apart (`lost`) and not charged: a journal is that of an undisturbed run.
- A fault quotes no more of an answer than one short printable line.
- The key travels in the Authorization header alone; what an endpoint repeats of it is taken out.
"""

import asyncio
import functools
import json
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from swarm.backends.completion import (
    MAX_TOKENS,
    Completion,
    Judgement,
    decode,
    is_plausible,
    judge,
    model_names,
    read_completion,
)
from swarm.backends.endpoint_body import has_form, is_of_a_form, next_form, unwrapped, write_body
from swarm.backends.endpoint_words import Words
from swarm.backends.prompts import CHAT_MARKS
from swarm.backends.protocol import Structure, TextRequest, TextResult
from swarm.backends.thoughts import Said, without_thoughts
from swarm.backends.timed_http import Answer, TimedClient
from swarm.config.engine import OpenAIEngine
from swarm.errors import Outage, SwarmError
from ulm.tokenizer import Tokenizer

BACKOFF_S, MAX_BACKOFF_S = 0.5, 30.0
"""Seconds before the first retry, twice as many before each further one, and their limit."""

GRACE_S = 2.0
"""Seconds that answers on their way get when another request ends the call: they may be paid for."""

BYTES_PER_TOKEN = 3
"""Of prompts whose tokenizer is not known; English has some four, numbers fewer."""

UNSEEN_TOKENS = 4096
"""Of a prompt at most, that only the endpoint's chat template adds."""

MIN_SECRET = 16
"""Shorter keys, such as the "EMPTY" of local servers, are words that a model may well say."""

_NO_FORM = "the answer has not the form that was asked for; the endpoint may not know structured_outputs"


@dataclass(slots=True)
class Lost:
    """Tries that got no answer and may have cost something all the same; the journal does not charge them.

    Attributes:
        tries: their number.
        most_tokens: what they can have cost at most, prompts included.
    """

    tries: int = 0
    most_tokens: int = 0


class OpenAIModel:
    """A model at an OpenAI-compatible endpoint.

    Pickles and copies hold no key: it is read from the environment again where they are loaded.

    Args:
        model: its name at the endpoint.
        config: settings.
        environ: where the variable `config.key_env` is looked up.
        sleep: waits before a retry.
        timeout_s: time limit of one try.
        patience_s: how long one request is tried again before nobody is taken to answer any more.
        form: how answers in a form are asked for at first; `check` has found it.
        on_event: told, with facts, of `endpoint_waits` (the first try that failed), `endpoint_back` (an answer after
            that), `endpoint_note` (something that a person should know, once) and, at the close, `endpoint_lost`.

    Attributes:
        lost: tries that got no answer.

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
        patience_s: float = 600.0,
        form: str = "pattern",
        on_event: Callable[..., None] = lambda kind, **facts: None,
    ) -> None:
        self.model = model
        self.lost = Lost()
        self._config = config
        self._url = config.url.rstrip("/")
        self._sleep = sleep
        self._timeout_s, self._patience_s = timeout_s, patience_s
        self._key = _read_key(config.key_env, environ)
        self._client = TimedClient(self._key, config.connections, self._url)
        self._words = Words(model, config, self._key, self._client.proxy)
        self._on_event = on_event
        self._form = form
        self._answered = 0
        self._away_since_s: float | None = None
        self._noted: set[str] = set()

    def __repr__(self) -> str:
        return f"OpenAIModel({self.model!r}, {self._url!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        make = functools.partial(type(self), timeout_s=self._timeout_s, patience_s=self._patience_s, form=self._form)
        return make, (self.model, self._config)

    def check(self, probe: TextRequest) -> tuple[str, TextResult]:
        """Ask a small request of the run's own kind, once, before a run; a list of models says too little.

        An endpoint that is still loading or busy is waited for; one that is not there is not. An answer without the
        form that was asked for takes the next form.

        Returns:
            How to ask for answers in a form, and the answer with the cost of all that were needed.

        Raises:
            Outage: nothing usable answers, or the request is refused.
            SwarmError: the tokenizer cannot be read.
        """
        if self._config.tokenizer is not None:
            _ = self._tokenizer
        read = written = 0
        while True:
            result = self._client.run(self._answer(probe, is_start=True))
            read, written = read + result.prompt_tokens, written + result.generated_tokens
            if not (result.fault or "").startswith(_NO_FORM) or probe.structure is None or self._form == "none":
                return self._form, replace(result, prompt_tokens=read, generated_tokens=written)
            self._step_down(probe.structure, self._form, "it answers without the form that was asked for")

    def generate(
        self,
        requests: Sequence[TextRequest],
        deadline_s: float | None = None,
        on_result: Callable[[int, TextResult], None] | None = None,
    ) -> list[TextResult]:
        """Answer every request, `engine.connections` of them at a time.

        What an answer is charged is what the endpoint says, where that can be; otherwise what `engine.tokenizer`
        counts, or the most that it can have cost.

        Args:
            requests: any number.
            deadline_s: not used: each try has its own time limit, and an outage is no fault of the requests.
            on_result: called, in a thread of its own, with each answer as it arrives and the number of its request.

        Raises:
            Outage: nobody has answered a request for `patience_s`, or requests are refused for good.
        """
        return self._client.run(self._answer_all(requests, on_result or (lambda number, result: None)))

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
        if self.lost.tries:
            self._on_event("endpoint_lost", tries=self.lost.tries, most_tokens=self.lost.most_tokens)
            self.lost = Lost()

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        try:
            return Tokenizer.load(str(self._config.tokenizer))
        except ValueError as error:
            raise SwarmError(f"engine.tokenizer: {error}") from error

    async def _answer_all(
        self, requests: Sequence[TextRequest], on_result: Callable[[int, TextResult], None]
    ) -> list[TextResult]:
        results: dict[int, TextResult] = {}
        to_do = iter(enumerate(requests))

        async def work() -> None:
            for index, request in to_do:
                results[index] = await self._answer(request)
                on_result(index, results[index])

        tasks = [asyncio.create_task(work()) for _ in range(min(self._config.connections, len(requests)))]
        try:
            done, running = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION) if tasks else ((), ())
            if running:
                list(to_do)  # nobody begins another
                await asyncio.wait(running, timeout=GRACE_S)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()
        return [results[index] for index in range(len(requests))]

    async def _answer(self, request: TextRequest, *, is_start: bool = False) -> TextResult:
        """Ask until there is an answer, or no use in asking again.

        Raises:
            Outage: nobody answers, or all requests are refused; at the start of a run also if this one is.
        """
        waited_s, answered = 0.0, self._answered
        tries = 0
        while True:
            form = self._form
            try:
                most = self._count_prompts([request], 1)[0], request.max_new_tokens
                path, body = write_body(self.model, request, self._config, form)
            except Exception as error:  # a request that cannot even be written must not take its neighbours down
                fault = self._words.quote(f"cannot ask the endpoint: {type(error).__name__}: {error}", 300)
                if is_start:
                    raise Outage(fault) from error
                return TextResult.failed(fault)
            began_s = time.monotonic()
            answer, found = await self._try(path, body, sum(most))
            if found.verdict == "answer":
                self._is_back()
                if is_start and (unread := read_completion(answer, request.system is not None).fault):
                    raise Outage(self._words.nobody(answer, replace(found, said=f"{unread}: {decode(answer)}")))
                return self._result(request, answer, most, len(body), form)
            if found.verdict == "refused":
                raise Outage(self._words.refusal(found, path, await self._models() if found.cause == "model" else []))
            if found.verdict == "bad request":
                if request.structure and form != "none" and is_of_a_form(found):
                    self._step_down(request.structure, form, self._words.quote(found.said, 200))
                    continue
                if is_start:
                    raise Outage(self._words.refused_request(found, json.loads(body)))
                return TextResult.failed(self._words.quote(found.said, 300))
            tries += 1
            waited_s += time.monotonic() - began_s
            left_s = self._patience_s - waited_s
            if is_start and _is_none(answer, tries):
                raise Outage(self._words.nobody(answer, found))
            if left_s <= 0:
                if found.verdict == "broken" and self._answered > answered:  # only this one is not answered
                    return TextResult.failed(f"{self._words.quote(found.said, 200)} (tries: {tries})")
                raise Outage(self._words.no_answer(found, self._patience_s, tries))
            if self._away_since_s is None:
                self._away_since_s = time.monotonic()
                self._on_event("endpoint_waits", url=self._url, detail=self._words.quote(found.said, 200))
            delay_s = min(BACKOFF_S * 2.0 ** min(tries - 1, 10), MAX_BACKOFF_S)
            delay_s = min(max(delay_s, answer.retry_after_s), left_s)
            waited_s += delay_s
            await self._sleep(delay_s)

    async def _try(self, path: str, body: bytes, most_tokens: int) -> tuple[Answer, Judgement]:
        """Send a request once; what is cut on its way, by an end of the run too, stays counted as lost."""
        self.lost.tries, self.lost.most_tokens = self.lost.tries + 1, self.lost.most_tokens + most_tokens
        answer = await self._client.exchange(self._timeout_s, "POST", self._url + path, body)
        found = judge(answer)
        is_lost = answer.status in (0, 408, 502, 504) or found.verdict == "broken"
        if not (is_lost and answer.was_sent):
            self.lost.tries, self.lost.most_tokens = self.lost.tries - 1, self.lost.most_tokens - most_tokens
        return answer, found

    async def _models(self) -> list[str]:
        """Return the models that the endpoint lists."""
        return model_names(await self._client.exchange(min(self._timeout_s, 10.0), "GET", f"{self._url}/models"))

    def _is_back(self) -> None:
        """Take in that there was an answer."""
        self._answered += 1
        if self._away_since_s is not None:
            self._on_event("endpoint_back", waited_s=round(time.monotonic() - self._away_since_s, 3))
            self._away_since_s = None

    def _note(self, about: str, text: str) -> None:
        """Tell something once."""
        if about not in self._noted:
            self._noted.add(about)
            self._on_event("endpoint_note", text=f"endpoint {self._url}: {text}")

    def _step_down(self, structure: Structure, form: str, why: str) -> None:
        """Ask for forms in the next way from now on."""
        if self._form == form:  # otherwise a request beside this one was refused first
            self._form = next_form(structure, form)
            names = {"none": "without a form; an answer that has not the wanted one is a fault"}
            self._note(form, f"{why}: it is asked {names.get(self._form, f'for a {self._form}')}")

    def _result(self, request: TextRequest, answer: Answer, most: tuple[int, int], body: int, form: str) -> TextResult:
        """Return what an answer is worth.

        Args:
            request: what was asked.
            answer: what came.
            most: tokens that its prompt and the answer were allowed.
            body: bytes of the request.
            form: in which it was asked for.
        """
        is_chat = request.system is not None
        found = read_completion(answer, is_chat)
        is_cut = str(found.finish_reason).lower() in ("length", "max_tokens", "content_filter")
        said = without_thoughts(found.text, found.reasoning, is_cut) if is_chat else Said(found.text)
        text = unwrapped(said.text, request.structure, form)
        fault = found.fault or said.fault
        if fault is None and not is_cut and not has_form(text, request.structure):
            fault = _NO_FORM  # an answer that is cut short is no sign of a form ignored
        if self._key and len(self._key) >= MIN_SECRET and self._key in found.text + found.reasoning:
            fault = "the answer repeats the key"
        usage = self._charge(request, found, most, body, is_cut)
        if fault is not None:
            line = f"{self._words.quote(fault, 200)}: {self._words.quote(decode(answer))}"
            return replace(TextResult.failed(line, *usage), thoughts=said.thoughts)
        starts = [text.find(stop) for stop in request.stop if stop and stop in text]
        if starts or found.stop_reason in request.stop:
            return TextResult(text[: min(starts, default=None)], *usage, "stop", thoughts=said.thoughts)
        return TextResult(text, *usage, "length" if is_cut else "end", thoughts=said.thoughts)

    def _charge(
        self, request: TextRequest, found: Completion, most: tuple[int, int], body: int, is_cut: bool
    ) -> tuple[int, int]:
        """Return the tokens of prompt and answer: as reported where that can be, else counted, else the most."""
        written = [found.text, found.reasoning]
        num_bytes = sum(len(text.encode()) for text in written)
        limit = most[1] + found.hidden
        if found.reasoning or num_bytes > 8 * limit:  # some limit no thoughts, some nothing
            limit = max(limit, num_bytes + 1)
        can_be = limit if self._config.fields.get("max_tokens", "") is not None else MAX_TOKENS
        prompt, generated = found.usage
        is_sound = (
            is_plausible(prompt, [request.prompt, request.system or ""], most[0] + body + UNSEEN_TOKENS),
            is_plausible(generated, written, can_be),
        )
        if not all(is_sound) and found.fault is None:
            what = "no token usage" if found.usage == (None, None) else f"a token usage that cannot be {found.usage}"
            way = (
                "what engine.tokenizer counts"
                if self._config.tokenizer
                else "the most there can be; set engine.tokenizer"
            )
            self._note("usage", f"it reports {what}; charged is {way}")
        if self._config.tokenizer and found.fault is None:
            limit = sum(self.count_tokens(written)) + (not is_cut)
        return (
            prompt if is_sound[0] and prompt is not None else most[0],
            generated if is_sound[1] and generated is not None else limit,
        )


def _is_none(answer: Answer, tries: int) -> bool:
    """Return whether what is at an address at the start is no endpoint, rather than one that loads or is busy."""
    if answer.status:
        return 200 <= answer.status < 300 and b"error" not in answer.body[:1000].lower()
    return not answer.was_sent or (not answer.trouble.startswith("timeout") and tries > 3)


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
