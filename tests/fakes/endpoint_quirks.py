"""What endpoints are reported to do: one of each kind, with what it should come to and cost."""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass
from typing import Any, Literal

from fakes.endpoint import (
    ABSENT,
    SOUND,
    Reply,
    busy,
    completion,
    drips,
    fails,
    hangs,
    hangs_up,
    lists,
    refuses,
    resets,
    says,
    sends,
    thinks,
    writes,
)

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
PAGE = b"<html><title>Sign in</title>\x1b[2J Please sign in.</html>"
DIRECTIVE = json.dumps({"a0": "go"})
WHOLE = json.dumps(completion("hello")).encode()

DRIPS = {
    "status": drips(b"HTTP/1.1 2", b"0"),
    "headers": drips(HEAD + b"X: ", b"x"),
    "body": drips(HEAD + b"Content-Length: 9999\r\n\r\n", b" "),
    "body until the connection ends": drips(HEAD + b"Connection: close\r\n\r\n", b" "),
    "size of a chunk": drips(CHUNKED, b"0"),
    "chunks": drips(CHUNKED, b"1\r\n \r\n"),
}
"""Endpoints that never come to an end, by the part of an answer that they are at."""


LISTINGS = {
    "listed": lists("other", "tiny"),
    "listed with a tag": lists("tiny:latest"),
    "wildcards": lists("*", "vendor/*"),
    "alias": lists("tiny-2026-11-01"),
    "empty": lists(),
    "missing": fails(404),
    "missing, with a page": sends(PAGE, 404, "text/html"),
    "broken": fails(500),
    "not for this key": fails(403),
    "odd entries": sends({"data": [5, {"id": 5}, {}, None]}),
    "no list": sends({"data": "tiny"}),
    "page": sends(PAGE, kind="text/html; charset=utf-8"),
    "deep JSON": sends(b"[" * 100_000),
}
"""What endpoints answer who asks for their models; the one that is meant is `tiny`."""


@dataclass(frozen=True)
class Quirk:
    """Something that endpoints do.

    Attributes:
        reply: does it.
        means: what it should come to: `readable` (there is a usable answer in it), `unusable` (this answer is bad),
            `outage` (nobody answers now; wait and try again), `refused` (no request like this will ever be answered).
        cost: tokens of prompt and answer that are to be charged for an answer; None where nobody can know, and the
            most is to be charged that there can be.
    """

    reply: Reply
    means: Literal["readable", "unusable", "outage", "refused"]
    cost: tuple[int | None, int | None] = (11, 3)


FREE = (0, 0)
UNKNOWN = (None, None)


def uses(cost: tuple[int | None, int | None] = (11, 3), **usage: Any) -> Quirk:
    """Answer with a usage in a form of its own."""
    return Quirk(says("hello", body={"usage": usage}), "readable", cost)


def streams(*events: object) -> Reply:
    """Stream events, unasked."""
    lines = [f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n" for event in events]
    return sends("".join([": PROCESSING\n\n", *lines]).encode(), kind="text/event-stream")


def spells(*texts: str, usage: object = SOUND) -> Reply:
    """Stream an answer of both kinds in pieces."""
    pieces = [{"choices": [{"index": 0, "delta": {"content": text}, "text": text}]} for text in texts]
    return streams(
        *pieces, {"choices": [{"delta": {}, "text": "", "finish_reason": "stop"}]}, {"usage": usage}, "[DONE]"
    )


QUIRKS = {
    # An endpoint that is away, loading or busy.
    "loading": Quirk(busy(503), "outage"),
    "loading, with a page": Quirk(sends(PAGE, 503, "text/html"), "outage"),
    "gateway without a server": Quirk(sends(b"", 502, "text/plain"), "outage"),
    "gateway that waited in vain": Quirk(sends(PAGE, 504, "text/html"), "outage"),
    "overloaded": Quirk(fails(529, type="overloaded_error"), "outage"),
    "a status of Cloudflare": Quirk(sends(PAGE, 522, "text/html"), "outage"),
    "failure": Quirk(fails(500, "The server had an error"), "outage"),
    "request took too long": Quirk(fails(408, "Timed out"), "outage"),
    "conflict": Quirk(fails(409, "Busy"), "outage"),
    "rate limit": Quirk(busy(429, 1), "outage"),
    "rate limit until a date": Quirk(busy(429, "Wed, 21 Oct 2099 07:28:00 GMT"), "outage"),
    "rate limit for ever": Quirk(busy(429, 999_999_999), "outage"),
    "rate limit that talks of billing": Quirk(
        fails(429, "You exceeded your current quota, please check your plan and billing. Please retry in 35 s."),
        "outage",
    ),
    "rate limit of a day": Quirk(
        fails(429, "Rate limit reached for requests per day", code="rate_limit_exceeded"), "outage"
    ),
    "rate limit as a 403": Quirk(fails(403, "Secondary rate limit", {"Retry-After": "1"}), "outage"),
    "rate limit in a 200": Quirk(sends({"error": {"message": "Slow down", "code": 429}}), "outage"),
    "rate limit in words in a 200": Quirk(sends({"error": "model is overloaded"}), "outage"),
    "failure in a 200": Quirk(sends({"error": {"message": "Provider failed", "code": 502}, "choices": None}), "outage"),
    "failure in a choice": Quirk(says("", error={"message": "Provider failed", "code": 502}), "outage"),
    "failure as a reason": Quirk(says("hel", finish_reason="error"), "outage"),
    "failure in a stream": Quirk(streams({"error": {"message": "Provider failed", "code": 502}}), "outage"),
    "failure of FastAPI in a 200": Quirk(sends({"detail": "Internal error"}), "outage"),
    "failure of Cloudflare in a 200": Quirk(
        sends({"success": False, "errors": [{"code": 7009, "message": "Upstream failed"}], "result": None}), "outage"
    ),
    "failures in a list in a 200": Quirk(sends({"error": [{"message": "Provider failed"}]}), "outage"),
    "failure while generating": Quirk(fails(424, "Request failed during generation"), "outage"),
    "no capacity": Quirk(fails(498, "Flex tier capacity exceeded"), "outage"),
    "runner that stopped": Quirk(sends({"error": "llama runner process has terminated"}, 500), "outage"),
    "loading, with the time that it takes": Quirk(
        sends({"error": "Model tiny is currently loading", "estimated_time": 20.0}, 503), "outage"
    ),
    "silence": Quirk(hangs, "outage"),
    "hung up": Quirk(hangs_up, "outage"),
    "reset": Quirk(resets, "outage"),
    "cut in the body": Quirk(writes(HEAD + b"Content-Length: 9999\r\n\r\n", b'{"choices": ['), "outage"),
    "cut in a chunk": Quirk(writes(CHUNKED, b"ff\r\n{"), "outage"),
    "cut in the headers": Quirk(writes(HEAD), "outage"),
    "cut in a stream": Quirk(sends(b'data: {"choices": [{"de', kind="text/event-stream"), "outage"),
    "a length that is too short": Quirk(
        writes(HEAD + b"Content-Length: 20\r\n\r\n", json.dumps(completion("hello")).encode()), "outage"
    ),
    "packed, and cut": Quirk(
        sends(gzip.compress(json.dumps(completion("hello" * 99)).encode())[:40], headers={"Content-Encoding": "gzip"}),
        "outage",
    ),
    "not HTTP": Quirk(writes(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "outage"),
    "a status that is none": Quirk(writes(b"HTTP/1.1 9999 ?\r\n\r\n"), "outage"),
    "endless headers": Quirk(writes(HEAD, b"X: y\r\n" * 50_000), "outage"),
    "slow bytes": Quirk(DRIPS["body"], "outage"),
    "page": Quirk(sends(PAGE, kind="text/html; charset=utf-8"), "outage"),
    "words": Quirk(sends(b"upstream connect error", kind="text/plain"), "outage"),
    "half JSON": Quirk(sends(b'{"choices": ['), "outage"),
    "nothing": Quirk(sends(b""), "outage"),
    "no content": Quirk(writes(b"HTTP/1.1 204 No Content\r\n\r\n"), "outage"),
    "accepted": Quirk(sends({"request_id": "1", "status": "queued"}, 202), "outage"),
    # Refusals for good.
    "key refused": Quirk(fails(401, "Wrong key"), "refused"),
    "key refused as a 400": Quirk(fails(400, "API key not valid. Please pass a valid API key."), "refused"),
    "key refused without a word": Quirk(sends(b"", 401), "refused"),
    "not allowed": Quirk(fails(403, "Not for this key"), "refused"),
    "proxy's page": Quirk(sends(b"<html>Blocked by policy</html>", 403, "text/html", {"Via": "1.1 proxy"}), "refused"),
    "proxy wants a name": Quirk(sends(b"", 407, "text/html", {"Proxy-Authenticate": "Basic"}), "refused"),
    "no credit": Quirk(fails(429, "The quota is used up", code="insufficient_quota"), "refused"),
    "no credit, in OpenAI's words": Quirk(
        fails(429, "You exceeded your current quota, please check your plan.", type="insufficient_quota"), "refused"
    ),
    "no credit as a 400": Quirk(fails(400, "Your credit balance is too low to access the API"), "refused"),
    "no credit in a 200": Quirk(sends({"error": {"message": "Insufficient credits", "code": 402}}), "refused"),
    "payment required": Quirk(fails(402, "Buy credits"), "refused"),
    "unknown model": Quirk(fails(404, "No such model", code="model_not_found"), "refused"),
    "unknown model as a 400": Quirk(fails(400, "model 'tiny' not found, try pulling it first"), "refused"),
    "unknown path": Quirk(sends(b"404 page not found", 404, "text/plain"), "refused"),
    "no model loaded": Quirk(sends({"error": "No models loaded. Please load a model first."}, 400), "refused"),
    "model that is gone": Quirk(fails(410, "This model was retired"), "refused"),
    "method not allowed": Quirk(sends(b"", 405), "refused"),
    "redirect": Quirk(sends(b"", 307, headers={"Location": "/elsewhere"}), "refused"),
    # Refusals of one request, and of a field at the start.
    "prompt too long": Quirk(fails(400, "At most 4096 tokens", code="context_length_exceeded"), "unusable", FREE),
    "prompt too long, naming a field": Quirk(
        fails(400, "'max_tokens' is too large: 7. This model's context length is 8 tokens", param="max_tokens"),
        "unusable",
        FREE,
    ),
    "prompt too long, as a failure": Quirk(
        fails(500, "the request exceeds the available context size"), "unusable", FREE
    ),
    "refusal of vLLM in a 200": Quirk(
        sends({"object": "error", "message": "Bad value", "type": "BadRequestError", "code": 400}), "unusable", FREE
    ),
    "body too long": Quirk(fails(413, "Too large"), "unusable", FREE),
    "filtered prompt": Quirk(fails(400, "Content policy", code="content_filter"), "unusable", FREE),
    "flagged prompt": Quirk(fails(403, "Your input was flagged by moderation"), "unusable", FREE),
    "refusal in a list": Quirk(sends([{"error": {"message": "Bad value", "code": 400}}], 400), "unusable", FREE),
    "refusal in a 200": Quirk(
        sends({"error": {"message": "Bad value", "type": "invalid_request_error"}}), "unusable", FREE
    ),
    "max_tokens": Quirk(refuses("max_tokens", "Unknown 'max_tokens'; send 'max_completion_tokens'."), "unusable", FREE),
    "temperature": Quirk(refuses("temperature", "'temperature' can only be 1 for this model."), "unusable", FREE),
    "seed": Quirk(refuses("seed", status=422), "unusable", FREE),
    "seed, in FastAPI's words": Quirk(
        sends({"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}, 422), "unusable", FREE
    ),
    "response_format": Quirk(refuses("response_format"), "readable"),
    "structured_outputs": Quirk(refuses("structured_outputs"), "readable"),
    # Answers in an unusual wrapping.
    "text/plain": Quirk(says("hello", "text/plain"), "readable"),
    "no content type": Quirk(says("hello", ""), "readable"),
    "event stream by name only": Quirk(says("hello", "text/event-stream"), "readable"),
    "stream": Quirk(spells("hel", "lo"), "readable"),
    "stream without usage": Quirk(spells("hello", usage=None), "readable", UNKNOWN),
    "blanks first": Quirk(sends(b"\n \n" + json.dumps(completion("hello")).encode()), "readable"),
    "BOM": Quirk(sends(b"\xef\xbb\xbf" + json.dumps(completion("hello")).encode()), "readable"),
    "UTF-16": Quirk(sends(json.dumps(completion("hello")).encode("utf-16")), "readable"),
    "packed unasked": Quirk(
        sends(gzip.compress(json.dumps(completion("hello")).encode()), headers={"Content-Encoding": "gzip"}), "readable"
    ),
    "packed otherwise": Quirk(
        sends(zlib.compress(json.dumps(completion("hello")).encode()), headers={"Content-Encoding": "deflate"}),
        "readable",
    ),
    "to be continued first": Quirk(
        writes(b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"Connection: close\r\n\r\n", WHOLE), "readable"
    ),
    "hints first": Quirk(
        writes(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + HEAD + b"Connection: close\r\n\r\n", WHOLE),
        "readable",
    ),
    "an old protocol": Quirk(writes(b"HTTP/1.0 200 OK\r\n\r\n", WHOLE), "readable"),
    "chunks with a trailer": Quirk(
        writes(CHUNKED, b"%x\r\n%s\r\n0\r\nX-Sum: 1\r\n\r\n" % (len(WHOLE), WHOLE)), "readable"
    ),
    "hangs up after each answer": Quirk(writes(HEAD + b"Content-Length: %d\r\n\r\n" % len(WHOLE), WHOLE), "readable"),
    "numbers that are none": Quirk(sends(WHOLE[:-1] + b', "score": NaN}'), "readable"),
    "two choices": Quirk(says("hello", body={"choices": [{"message": {"content": "hello"}}] * 2}), "readable"),
    "no reason": Quirk(says("hello", finish_reason=None), "readable"),
    "a reason of its own": Quirk(says("hello", finish_reason="eos_token", stop_reason={"x": 1}), "readable"),
    "control characters": Quirk(says("hel\x00\x1b[2Jlo"), "readable"),
    "parts": Quirk(says([{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]), "readable"),
    "one part": Quirk(says({"type": "text", "text": "hello"}), "readable"),
    "the other kind's form": Quirk(says("hello", message=ABSENT), "readable"),
    "an error that is none": Quirk(says("hello", body={"error": None}), "readable"),
    "an error that says success": Quirk(says("hello", body={"error": {"code": 200, "message": ""}}), "readable"),
    "a message beside the answer": Quirk(says("hello", body={"message": "success", "code": 0}), "readable"),
    "no usage": Quirk(says("hello", body={"usage": ABSENT}), "readable", UNKNOWN),
    "usage null": Quirk(says("hello", body={"usage": None}), "readable", UNKNOWN),
    "usage 0/0": uses(UNKNOWN, prompt_tokens=0, completion_tokens=0),
    "usage in words": uses(UNKNOWN, prompt_tokens="11"),
    "usage of the answer only": uses((None, 3), completion_tokens=3),
    "usage without a cached prompt": uses((None, 3), prompt_tokens=0, completion_tokens=3, total_tokens=3),
    "usage of the prompt only": uses((11, None), prompt_tokens=11, completion_tokens=0),
    "usage by other names": uses(input_tokens=11, output_tokens=3),
    "usage below zero": uses((None, 3), prompt_tokens=-1, completion_tokens=3),
    "usage in depth": uses(UNKNOWN, prompt_tokens={"text": 11}, completion_tokens=[3]),
    "usage as fractions": uses((11, None), prompt_tokens=11, completion_tokens=3.0),
    "absurd usage": uses((11, None), **{**SOUND, "completion_tokens": 10**12}),
    "more than was allowed": uses((11, None), prompt_tokens=11, completion_tokens=5000),
    "absurd prompt": uses((None, 3), prompt_tokens=10**8, completion_tokens=3),
    "thoughts in the total only": uses((11, 6), prompt_tokens=11, completion_tokens=3, total_tokens=17),
    "hidden thoughts": uses(
        (11, 903), prompt_tokens=11, completion_tokens=903, completion_tokens_details={"reasoning_tokens": 900}
    ),
    "until the connection ends": Quirk(
        writes(HEAD + b"Connection: close\r\n\r\n", json.dumps(completion("hello")).encode()), "readable"
    ),
    # Texts that need reading.
    "a thought first": Quirk(says("<think>1+2 is 3.</think>\n\nhello"), "readable"),
    "a thought that has no beginning": Quirk(says("1+2 is 3.</think>hello"), "readable"),
    "a thought in its own field": Quirk(thinks("1+2 is 3.", "hello"), "readable"),
    "a thought in a part": Quirk(
        says([{"type": "thinking", "thinking": [{"type": "text", "text": "1+2"}]}, {"type": "text", "text": "hello"}]),
        "readable",
    ),
    "fence": Quirk(says(f"```json\n{DIRECTIVE}\n```"), "readable"),
    "prose": Quirk(says(f"Sure! Here it is:\n{DIRECTIVE}\nGood luck!"), "readable"),
    "BOM in the text": Quirk(says(f"\ufeff{DIRECTIVE}"), "readable"),
    "list": Quirk(says("- a0: go"), "readable"),
    # Answers that are none.
    "only a thought": Quirk(thinks("1+2 is 3.", ""), "unusable"),
    "only a thought, and no content": Quirk(thinks("1+2 is 3.", None, "reasoning"), "unusable"),
    "a thought that was cut": Quirk(says("<think>1+2 is", finish_reason="length"), "unusable"),
    "empty": Quirk(says("", finish_reason="stop"), "unusable"),
    "no text": Quirk(says(None), "unusable"),
    "no parts": Quirk(says([]), "unusable"),
    "a number": Quirk(says(5), "unusable"),
    "blanks": Quirk(says(" \n\n "), "unusable"),
    "choices by name": Quirk(says("x", body={"choices": {"0": {"text": "x"}}}), "unusable"),
    "no object": Quirk(sends({}), "unusable", UNKNOWN),
    "refusal": Quirk(says(None, message={"content": None, "refusal": "I cannot help with that."}), "unusable"),
    "call of a tool": Quirk(says(None, message={"content": None, "tool_calls": [{"id": "1"}]}), "unusable"),
    "filtered": Quirk(says("", finish_reason="content_filter"), "unusable"),
    "no choices": Quirk(says("x", body={"choices": []}), "unusable"),
    "half characters": Quirk(says("\ud83d"), "unusable"),
    "long text": Quirk(says("é" * 33_000), "unusable"),
    "not UTF-8": Quirk(sends(json.dumps(completion("é"), ensure_ascii=False).encode("latin-1")), "unusable", UNKNOWN),
    "deep JSON": Quirk(sends(b"[" * 100_000), "unusable", UNKNOWN),
    "packed in a way that nobody knows": Quirk(
        sends(b"\x1b\x07\x00\xf8", headers={"Content-Encoding": "br"}), "unusable", UNKNOWN
    ),
    "a list": Quirk(sends([1, 2]), "unusable", UNKNOWN),
    "a number that is too long": Quirk(sends(b'{"id": ' + b"9" * 9999 + b"}"), "unusable", UNKNOWN),
    "oversized": Quirk(sends(b" " * (5 << 20)), "unusable", UNKNOWN),
}
"""One of each kind, as public bug reports have them."""
