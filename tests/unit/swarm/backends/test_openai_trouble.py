"""Endpoints in trouble: what is asked again, for how long, what is given up, and what it costs."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from typing import Any

import pytest
from fakes.endpoint import Endpoint, Handler, Reply, busy, by_prompt, fails, hangs, hangs_up, lists, resets, says, sends
from fakes.endpoint_model import CHAT, HELLO, KEY, MOST, PLAIN, PROBE, ask, cost, fault_of, model_at
from fakes.endpoint_quirks import DRIPS, QUIRKS

from swarm.backends.openai import OpenAIModel
from swarm.backends.protocol import TextRequest, TextResult
from swarm.config.engine import OpenAIEngine
from swarm.errors import Outage, SwarmError

pytestmark = pytest.mark.thorough


@pytest.fixture
def closed(endpoint: Endpoint) -> Endpoint:
    """An endpoint that is down."""
    endpoint.stop()
    return endpoint


# Trying again.


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 503, 529])
def test_what_may_pass_is_tried_again(endpoint: Endpoint, status: int) -> None:
    endpoint.replies += [busy(status)] * 3
    assert ask(endpoint) == HELLO
    assert len(endpoint.asked) == 4


@pytest.mark.parametrize("status", [400, 413, 418, 422])
def test_a_request_that_is_refused_is_a_fault_and_not_tried_again(endpoint: Endpoint, status: int) -> None:
    endpoint.reply = sends({"error": "no\x1b"}, status)
    assert ask(endpoint) == TextResult.failed(f"HTTP {status}: no·")
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize("reply", [hangs_up, resets, QUIRKS["cut in the body"].reply, QUIRKS["not HTTP"].reply])
def test_tries_that_were_not_answered_are_counted_apart_and_not_charged(endpoint: Endpoint, reply: Reply) -> None:
    """Failed at e48e5b3: they were charged, so that a journal told of the weather."""
    endpoint.replies += [reply] * 2
    told: list[tuple[str, Any]] = []
    model = model_at(endpoint, on_event=lambda kind, **facts: told.append((kind, facts)))
    assert model.generate([PLAIN]) == [HELLO]
    assert (model.lost.tries, model.lost.most_tokens) == (2, 2 * sum(MOST))
    model.close()
    assert [kind for kind, _ in told] == ["endpoint_waits", "endpoint_back", "endpoint_lost"]
    assert told[-1][1] == {"tries": 2, "most_tokens": 2 * sum(MOST)}


def test_refused_connections_and_rate_limits_cost_nothing(endpoint: Endpoint) -> None:
    async def comes_back(_: float) -> None:
        endpoint.stop()
        endpoint.start()

    endpoint.replies += [busy(429), busy(503)]
    model = model_at(endpoint, sleep=comes_back)
    assert model.generate([PLAIN]) == [HELLO]
    assert model.lost.tries == 0


def delays(at: Endpoint, **settings: Any) -> list[float]:
    """Ask once in vain; return the waits, without waiting."""
    noted: list[float] = []

    async def sleep(delay_s: float) -> None:
        noted.append(round(delay_s, 1))

    with pytest.raises(Outage):
        ask(at, sleep=sleep, **settings)
    return noted


def test_delays_double_up_to_half_a_minute_and_end_with_patience(endpoint: Endpoint) -> None:
    endpoint.reply = busy(500)
    assert delays(endpoint, patience_s=100) == pytest.approx([0.5, 1, 2, 4, 8, 16, 30, 30, 8.5], abs=0.5)


@pytest.mark.parametrize(
    ("after", "waits"),
    [("45", [45, 45, 10]), ("0", delays), ("999999999", [100]), ("Wed, 21 Oct 2099 07:28:00 GMT", [100])],
)
def test_retry_after_is_obeyed_for_as_long_as_patience_lasts(endpoint: Endpoint, after: str, waits: Any) -> None:
    endpoint.reply = busy(429, after)
    found = delays(endpoint, patience_s=100)
    assert found == pytest.approx([0.5, 1, 2, 4, 8, 16, 30, 30, 8.5] if waits is delays else waits, abs=0.5)


def test_a_retry_after_is_really_waited_for(endpoint: Endpoint) -> None:
    endpoint.replies.append(busy(429, 0.6))
    assert OpenAIModel("tiny", OpenAIEngine(model="tiny", url=endpoint.url)).generate([PLAIN]) == [HELLO]
    assert endpoint.asked[1].at_s - endpoint.asked[0].at_s >= 0.595


@pytest.mark.parametrize("quirk", [name for name, quirk in QUIRKS.items() if quirk.means == "outage"])
def test_a_passing_outage_leaves_no_trace_and_a_lasting_one_ends_the_run(endpoint: Endpoint, quirk: str) -> None:
    """Failed at e48e5b3: what did not pass after four retries was a fault of the call."""
    timeout_s = 0.1 if quirk in ("silence", "slow bytes") else 20.0
    endpoint.replies.append(QUIRKS[quirk].reply)
    model = model_at(endpoint, timeout_s=timeout_s)
    assert model.generate([CHAT]) == [HELLO]
    endpoint.reply = QUIRKS[quirk].reply
    with pytest.raises(Outage, match=r"no answer from the endpoint .* for 2 s .*raise faults\.patience_s") as caught:
        model.generate([CHAT])
    assert str(caught.value).isprintable()


def test_a_request_that_alone_makes_an_endpoint_fail_is_a_fault_in_the_end(endpoint: Endpoint) -> None:
    another = threading.Event()  # until another request is answered, nobody can tell whose fault it is

    def fine_answer(handler: Handler) -> None:
        says("hello")(handler)
        another.set()

    def cannot_parse(handler: Handler) -> None:
        another.wait(20)
        time.sleep(0.1)  # until that answer has been read
        fails(500, "cannot parse")(handler)

    endpoint.reply = by_prompt({"bad": cannot_parse, "fine": fine_answer})
    odd, *fine = model_at(endpoint, connections=2).generate([TextRequest("bad"), *[TextRequest("fine")] * 9])
    assert re.fullmatch(r"HTTP 500: cannot parse \(tries: [2-4]\)", fault_of(odd))
    assert cost(odd) == (0, 0)
    assert fine == [HELLO] * 9


# What makes every further call pointless.


@pytest.mark.parametrize("quirk", [name for name, quirk in QUIRKS.items() if quirk.means == "refused"])
def test_what_is_refused_for_good_ends_the_run_at_once_in_the_endpoints_words(endpoint: Endpoint, quirk: str) -> None:
    """Failed at e48e5b3: exhausted credit was retried, redirects were faults."""
    endpoint.reply = QUIRKS[quirk].reply
    with pytest.raises(Outage, match=r"HTTP [1-5]") as caught:
        model_at(endpoint, KEY, connections=1).generate([PLAIN] * 5)
    assert [asked.path for asked in endpoint.asked].count("/v1/completions") == 1
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (fails(401, "who?"), r"refuses the key: check what is in MY_KEY \(HTTP 401: who\?"),
        (fails(403, "who?"), r"refuses the key: check what is in MY_KEY \(HTTP 403: who\?"),
        (QUIRKS["no credit"].reply, r"no credit left for this key: .*\(HTTP 429: The quota is used up"),
        (QUIRKS["proxy's page"].reply, r"something before the endpoint .*proxy or a firewall.*Blocked by policy"),
        (QUIRKS["redirect"].reply, r"HTTP 307: a redirect, and those are not followed; give engine\.url"),
        (QUIRKS["unknown path"].reply, r"or no /completions \(HTTP 404: 404 page not found\).*; correct"),
    ],
)
def test_a_refusal_says_what_to_do(endpoint: Endpoint, reply: Reply, message: str) -> None:
    endpoint.reply, endpoint.models = reply, fails(404)
    with pytest.raises(Outage, match=message):
        ask(endpoint, key=KEY)


def test_an_endpoint_that_wants_a_key_says_how_to_give_one(endpoint: Endpoint) -> None:
    endpoint.reply = fails(401)
    with pytest.raises(Outage, match=r"refuses the key: set engine\.key_env"):
        ask(endpoint)


def test_an_unknown_model_is_told_with_those_that_are_listed(endpoint: Endpoint) -> None:
    endpoint.reply, endpoint.models = fails(404), lists("tinny", KEY, "big")
    with pytest.raises(Outage, match=r"no model 'tiny'.*HTTP 404.*offers tinny, \[key\], big; did you mean tinny\?"):
        ask(endpoint, key=KEY)
    assert [asked.path for asked in endpoint.asked] == ["/v1/completions", "/v1/models"]


def test_a_proxy_is_named_where_it_may_be_to_blame(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed at e48e5b3: a proxy's 403 page was "the endpoint refuses the key"."""
    monkeypatch.setenv("http_proxy", endpoint.url.replace("http://", "http://me:secret@").removesuffix("/v1"))
    monkeypatch.setenv("no_proxy", "")
    endpoint.reply = QUIRKS["proxy's page"].reply
    with pytest.raises(
        SwarmError, match=r"through the proxy 127\.0\.0\.1:[0-9]+ that .*add far\.invalid to NO_PROXY"
    ) as e:
        model_at("http://far.invalid/v1").check(PROBE)
    assert "secret" not in str(e.value)
    endpoint.stop()
    with pytest.raises(SwarmError, match=r"no endpoint at http://far\.invalid/v1: .*through the proxy"):
        model_at("http://far.invalid/v1").check(PROBE)


@pytest.mark.parametrize("reply", [hangs_up, QUIRKS["not HTTP"].reply])
def test_an_endpoint_that_was_never_there_is_the_users_mistake(endpoint: Endpoint, reply: Reply) -> None:
    endpoint.reply = reply
    with pytest.raises(SwarmError, match=rf"no endpoint at {endpoint.url}: start it or correct engine\.url"):
        model_at(endpoint, patience_s=60).check(PROBE)
    assert len(endpoint.asked) == 4
    endpoint.stop()
    with pytest.raises(SwarmError, match=rf"no endpoint at {endpoint.url}: start it or correct engine\.url .*Refused"):
        model_at(endpoint).check(PROBE)


def test_an_endpoint_that_comes_back_while_it_is_tried_is_found(closed: Endpoint) -> None:
    async def sleep(_: float) -> None:
        closed.start()

    assert ask(closed, sleep=sleep) == HELLO


# Many at once.


def test_each_answer_is_told_as_it_arrives_and_those_before_an_outage_are_not_lost(endpoint: Endpoint) -> None:
    """Failed at e48e5b3: answers of an interrupted call were lost, and paid twice."""
    told: dict[int, TextResult] = {}
    refused = threading.Event()

    def late(handler: Handler) -> None:
        refused.wait(20)
        time.sleep(0.1)
        says("hello")(handler)

    def refuse(handler: Handler) -> None:
        fails(401)(handler)
        refused.set()

    endpoint.reply = by_prompt({"fine": says("hello"), "late": late, "refused": refuse})
    requests = [TextRequest(prompt) for prompt in ("fine", "late", "refused", "fine")]
    with pytest.raises(Outage, match="refuses the key"):
        model_at(endpoint, connections=2).generate(requests, None, told.__setitem__)
    assert told == {0: HELLO, 1: HELLO}
    assert len(endpoint.asked) == 3


def test_an_outage_ends_calls_that_hang(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarm.backends.openai.GRACE_S", 0.1)
    endpoint.reply = by_prompt({PLAIN.prompt: hangs, "refused": fails(401)})
    model = model_at(endpoint)
    with pytest.raises(Outage, match="refuses the key"):
        model.generate([PLAIN, TextRequest("refused")])
    assert endpoint.cut.wait(5)
    assert model.lost.tries == 1


def test_a_model_answers_again_after_calls_were_cut(endpoint: Endpoint) -> None:
    model = model_at(endpoint, timeout_s=0.1, patience_s=0)
    endpoint.reply = by_prompt({"slow": hangs, "drip": DRIPS["body"], "fine": says("hello")})
    with pytest.raises(Outage):
        model.generate([TextRequest("slow"), TextRequest("drip")])
    assert model.generate([TextRequest("fine")] * 2) == [HELLO] * 2


def test_a_slow_answer_is_cut_and_asked_for_again(endpoint: Endpoint) -> None:
    endpoint.replies += [hangs, DRIPS["body"]]
    model = model_at(endpoint, timeout_s=0.3)
    assert model.generate([PLAIN]) == [HELLO]
    assert model.lost.tries == len(endpoint.asked) - 1 >= 2


def test_an_outage_that_ends_in_a_slow_answer_names_the_time_limit(endpoint: Endpoint) -> None:
    endpoint.reply = DRIPS["headers"]
    with pytest.raises(
        Outage, match=r"timeout: no answer within 0\.1 s; tries: 1\): raise faults\.call_timeout_s or lower"
    ):
        ask(endpoint, timeout_s=0.1, patience_s=0)


def test_an_endpoint_that_comes_and_goes_gives_the_answers_of_one_that_stays(endpoint: Endpoint) -> None:
    """Failed at e48e5b3: half of the calls were faults."""
    troubles = [busy(429), busy(503), hangs_up, resets, fails(500), QUIRKS["cut in the body"].reply]
    turn = 0

    def comes_and_goes(handler: Handler) -> None:
        nonlocal turn
        with endpoint.lock:
            turn += 1
            mine = turn
        (troubles[mine % len(troubles)] if mine % 30 < 10 else says(f"re {handler.asked.prompt}"))(handler)

    async def shortly(delay_s: float) -> None:
        await asyncio.sleep(delay_s / 500)

    endpoint.reply = comes_and_goes
    model = model_at(endpoint, sleep=shortly, patience_s=600)
    results = model.generate([TextRequest(str(number)) for number in range(300)])
    assert results == [TextResult(f"re {number}", 11, 3, "end") for number in range(300)]
    assert model.lost.tries > 20


def test_a_deadline_is_no_reason_for_a_fault(endpoint: Endpoint) -> None:
    endpoint.replies += [busy(503)] * 3
    assert model_at(endpoint).generate([PLAIN], time.monotonic() - 1) == [HELLO]
