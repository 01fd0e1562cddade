"""Endpoints in trouble: what is tried again, what is given up, and when."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from fakes.endpoint import (
    DRIPS,
    QUIRKS,
    Endpoint,
    Reply,
    busy,
    by_prompt,
    fails,
    hangs,
    hangs_up,
    lists,
    resets,
    says,
    sends,
)
from fakes.endpoint_model import CHAT, HELLO, KEY, LATE, MOST, PLAIN, ask, cost, fault_of, model_at

from swarm.backends.openai import OpenAIModel
from swarm.backends.protocol import TextRequest, TextResult
from swarm.config.engine import OpenAIEngine
from swarm.errors import SwarmError

pytestmark = pytest.mark.thorough


@pytest.fixture
def closed(endpoint: Endpoint) -> Endpoint:
    """An endpoint that is down."""
    endpoint.stop()
    return endpoint


# Trying again.


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 503, 529])
def test_what_may_pass_is_tried_again(endpoint: Endpoint, status: int) -> None:
    endpoint.replies += [busy(status)] * 2
    assert ask(endpoint) == HELLO
    assert len(endpoint.asked) == 3


@pytest.mark.parametrize("status", [201, 400, 402, 405, 413, 418, 422])
def test_what_will_not_pass_is_not_tried_again(endpoint: Endpoint, status: int) -> None:
    endpoint.reply = sends({"error": "no\x1b"}, status)
    assert ask(endpoint) == TextResult.failed(f'HTTP {status}: {{"error": "no\\u001b"}}')
    assert len(endpoint.asked) == 1


def test_a_redirect_is_a_fault_that_says_what_to_do(endpoint: Endpoint) -> None:
    endpoint.reply = QUIRKS["redirect"].reply
    assert fault_of(ask(endpoint)).startswith("HTTP 307: a redirect, and those are not followed; give engine.url")


@pytest.mark.parametrize("reply", [hangs_up, resets, QUIRKS["cut in the body"].reply, QUIRKS["not HTTP"].reply])
def test_a_try_that_was_never_answered_is_charged_the_most(endpoint: Endpoint, reply: Reply) -> None:
    endpoint.replies += [reply] * 2
    assert ask(endpoint) == TextResult("hello", 11 + 2 * MOST[0], 3 + 2 * MOST[1], "end")


def test_after_the_last_retry_the_last_trouble_is_the_fault(endpoint: Endpoint) -> None:
    endpoint.replies += [busy(500), hangs_up]
    endpoint.reply = sends(b"too \x1b[31m hot", 503)
    assert fault_of(ask(endpoint)) == "HTTP 503: too ·[31m hot (tries: 3)"
    assert len(endpoint.asked) == 3


def delays(at: Endpoint, **settings: Any) -> list[float]:
    """Ask once; return the waits before retries, without waiting."""
    noted: list[float] = []

    async def sleep(delay_s: float) -> None:
        noted.append(delay_s)

    ask(at, sleep=sleep, **settings)
    return noted


def test_delays_double_up_to_half_a_minute(endpoint: Endpoint) -> None:
    endpoint.reply = busy(500)
    assert delays(endpoint, retries=8) == [0.5, 1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize(("after", "delay_s"), [("45", 45), ("0", 0.5), ("999999999", 60), ("soon", 0.5)])
def test_retry_after_is_obeyed_for_as_long_as_a_request_may_take(
    endpoint: Endpoint, after: str, delay_s: float
) -> None:
    endpoint.replies.append(busy(429, after))
    assert delays(endpoint, timeout_s=60) == [delay_s]


def test_a_retry_after_is_really_waited_for(endpoint: Endpoint) -> None:
    endpoint.replies.append(busy(429, 0.6))
    assert OpenAIModel("tiny", OpenAIEngine(model="tiny", url=endpoint.url)).generate([PLAIN]) == [HELLO]
    assert endpoint.asked[1].at_s - endpoint.asked[0].at_s >= 0.595


def test_a_wait_beyond_the_deadline_is_not_begun(endpoint: Endpoint) -> None:
    endpoint.reply = busy(429, 999_999_999)
    started_s = time.monotonic()
    fault = fault_of(ask(endpoint, limit_s=20))
    assert time.monotonic() - started_s < 10
    assert fault.startswith("timeout: no time before the deadline to try again after HTTP 429: ")


# What makes every further call pointless.


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_the_users_mistake_and_not_tried_again(endpoint: Endpoint, status: int) -> None:
    endpoint.reply = fails(status, "who?")
    with pytest.raises(SwarmError, match=rf"refuses the key: check what is in MY_KEY \(HTTP {status}: .*who\?"):
        model_at(endpoint, KEY, connections=1).generate([PLAIN] * 5)
    assert len(endpoint.asked) == 1


def test_an_endpoint_that_wants_a_key_says_how_to_give_one(endpoint: Endpoint) -> None:
    endpoint.reply = endpoint.models = fails(401)
    for call in (lambda model: model.generate([PLAIN]), OpenAIModel.check):
        with pytest.raises(SwarmError, match=r"refuses the key: set engine\.key_env"):
            call(model_at(endpoint))


def test_an_unknown_model_is_the_users_mistake_and_the_known_ones_are_listed(endpoint: Endpoint) -> None:
    endpoint.reply, endpoint.models = fails(404), lists("tinny", KEY, "big")
    with pytest.raises(
        SwarmError, match=r"no model 'tiny'.*HTTP 404.*offers tinny, \[key\], big; did you mean tinny\?"
    ):
        ask(endpoint, key=KEY)
    assert [asked.path for asked in endpoint.asked] == ["/v1/completions", "/v1/models"]


def test_an_unknown_path_is_the_users_mistake_even_if_no_models_are_listed(endpoint: Endpoint) -> None:
    endpoint.reply = endpoint.models = QUIRKS["unknown path"].reply
    with pytest.raises(SwarmError, match=r"or no /chat/completions \(HTTP 404\); correct"):
        ask(endpoint, CHAT)


def test_an_endpoint_that_was_never_there_is_the_users_mistake(closed: Endpoint) -> None:
    for call in (lambda model: model.generate([PLAIN] * 3), OpenAIModel.check):
        with pytest.raises(
            SwarmError, match=rf"no endpoint at {closed.url}: start it or correct engine\.url .*Refused"
        ):
            call(model_at(closed))


@pytest.mark.parametrize("reach", [lambda model: model.generate([PLAIN]), OpenAIModel.check])
def test_an_endpoint_that_goes_away_later_costs_faults_that_charge_nothing(
    endpoint: Endpoint, reach: Callable[[OpenAIModel], object]
) -> None:
    model = model_at(endpoint)
    reach(model)
    endpoint.stop()
    result = model.generate([PLAIN])[0]
    assert "Refused" in fault_of(result)
    assert cost(result) == (0, 0)


def test_an_endpoint_that_comes_up_while_it_is_tried_is_found(closed: Endpoint) -> None:
    async def sleep(_: float) -> None:
        closed.start()

    assert ask(closed, sleep=sleep) == HELLO


# Time.


def test_without_a_deadline_a_slow_answer_ends_with_its_time_out(endpoint: Endpoint) -> None:
    endpoint.reply = DRIPS["headers"]
    assert fault_of(ask(endpoint, timeout_s=0.1, retries=0)) == "timeout: no answer within 0.1 s (tries: 1)"


def test_answers_from_before_the_deadline_are_kept(endpoint: Endpoint) -> None:
    endpoint.reply = by_prompt({PLAIN.prompt: hangs, "fine": says("hello")})
    late, fine = model_at(endpoint).generate([PLAIN, TextRequest("fine")], time.monotonic() + 1)
    assert fault_of(late) == LATE
    assert fine == HELLO


def test_a_time_out_is_tried_again(endpoint: Endpoint) -> None:
    endpoint.replies += [hangs, DRIPS["body"]]
    result = ask(endpoint, timeout_s=0.3, retries=8)
    lost = len(endpoint.asked) - 1
    assert lost >= 2
    assert result == TextResult("hello", 11 + lost * MOST[0], 3 + lost * MOST[1], "end")


def test_requests_that_were_not_started_before_the_deadline_are_faults_without_a_charge(endpoint: Endpoint) -> None:
    endpoint.reply = hangs
    results = model_at(endpoint, connections=2).generate([PLAIN] * 20, time.monotonic() + 0.5)
    assert results == [TextResult.failed(LATE, *MOST)] * 2 + [TextResult.failed(LATE)] * 18
    assert len(endpoint.asked) == 2


def test_after_the_deadline_nothing_is_sent(endpoint: Endpoint) -> None:
    assert ask(endpoint, limit_s=-1) == TextResult.failed(LATE)
    assert endpoint.asked == []


def test_a_refused_key_ends_calls_that_hang(endpoint: Endpoint) -> None:
    endpoint.reply = by_prompt({PLAIN.prompt: hangs, "refused": fails(401)})
    with pytest.raises(SwarmError, match="refuses the key"):
        model_at(endpoint).generate([PLAIN, TextRequest("refused")])
    assert endpoint.cut.wait(5)


def test_a_model_answers_again_after_calls_were_cut(endpoint: Endpoint) -> None:
    model = model_at(endpoint)
    endpoint.reply = by_prompt({"slow": hangs, "drip": DRIPS["body"], "fine": says("hello")})
    model.generate([TextRequest("slow"), TextRequest("drip")], time.monotonic() + 0.1)
    assert model.generate([TextRequest("fine")] * 2) == [HELLO] * 2
