"""What an endpoint takes: fields by other names, forms that it refuses or ignores, and what is said of it."""

from __future__ import annotations

from typing import Any

import pytest
from fakes.endpoint import Endpoint, Handler, Reply, fails, refuses, says, sends
from fakes.endpoint_model import PROBE, ask, cost, model_at

from swarm.backends.protocol import Structure, TextRequest
from swarm.errors import SwarmError


@pytest.mark.parametrize(
    ("refusal", "remedy"),
    [
        (
            refuses("max_tokens", "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."),
            "{max_tokens: max_completion_tokens}",
        ),
        (refuses("temperature", "Unsupported value: only the default (1) is supported."), "{temperature: null}"),
        (sends({"detail": [{"loc": ["body", "seed"], "msg": "extra"}]}, 422), "{seed: null}"),
        (sends({"message": "top_p: extra fields not permitted"}, 400), "{top_p: null}"),
    ],
)
def test_a_refusal_that_names_a_field_is_quoted_whole_with_its_remedy(
    endpoint: Endpoint, refusal: Reply, remedy: str
) -> None:
    """Failed at e48e5b3: each call was a fault, cut before its remedy."""
    endpoint.reply = refusal
    with pytest.raises(SwarmError, match=r"refuses the request: HTTP 4.*; .*engine\.fields: ") as caught:
        model_at(endpoint).check(PROBE)
    assert str(caught.value).endswith(f"engine.fields: {remedy}")


def test_fields_are_renamed_left_out_and_added(endpoint: Endpoint) -> None:
    """Failed at e48e5b3: there were no such settings."""
    changes = {"max_tokens": "max_completion_tokens", "temperature": None, "top_p": None, "stop": "stop_sequences"}
    extra = {"reasoning_effort": "low", "seed": 1}
    assert ask(endpoint, TextRequest("x", stop=(";",)), fields=changes, extra=extra).text == "hello"
    payload = endpoint.asked[0].payload
    assert payload == {
        "model": "tiny",
        "prompt": "x",
        "max_completion_tokens": 32,
        "stop_sequences": [";"],
        "reasoning_effort": "low",
        "seed": 1,
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fields": {"max_token": None}}, "max_token is not sent; what is sent is max_tokens, temperature"),
        ({"fields": {"seed": "model"}}, "`model` cannot be set"),
        ({"fields": {"seed": "s", "stop": "s"}}, "each needs a name of its own"),
        ({"extra": {"stream": True, "n": 3}}, "`stream, n` cannot be set"),
    ],
)
def test_fields_that_cannot_be_sent_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model_at("http://localhost/v1", **settings)


REGEX, OWN = Structure(regex="(?:yes|no)"), Structure(json_schema={"type": "object"})
FORMS = {"structured_outputs": "pattern", "json_schema": "json_schema", "json_object": "json_object", "": "none"}


def form_of(payload: dict[str, Any]) -> str:
    """Return in which form a request asks for its structure."""
    return FORMS[
        "structured_outputs"
        if "structured_outputs" in payload
        else payload.get("response_format", {"type": ""})["type"]
    ]


NOT_KNOWN = fails(400, "response_format is not supported")


def knows(*forms: str, wrong: Reply = NOT_KNOWN) -> Reply:
    """Answer requests in these forms as they want it, others wrong."""

    def reply(handler: Handler) -> None:
        form = form_of(handler.asked.payload)
        text = {"pattern": "yes", "none": "maybe"}.get(form, '{"answer": "yes"}')
        (says(text) if form in forms else wrong)(handler)

    return reply


@pytest.mark.parametrize(
    ("structure", "known", "asked", "text"),
    [
        (REGEX, ["pattern"], ["pattern"], "yes"),
        (REGEX, ["json_schema"], ["pattern", "json_schema"], "yes"),
        (Structure(choices=("yes", "no")), ["json_schema"], ["pattern", "json_schema"], "yes"),
        (REGEX, ["none"], ["pattern", "json_schema", "none"], ""),
        (Structure(grammar="root ::= x"), ["none"], ["pattern", "none"], "maybe"),
        (OWN, ["json_schema"], ["json_schema"], '{"answer": "yes"}'),
        (OWN, ["json_object"], ["json_schema", "json_object"], '{"answer": "yes"}'),
        (OWN, ["none"], ["json_schema", "json_object", "none"], "maybe"),
    ],
)
def test_a_form_that_is_refused_is_asked_for_in_the_next_way_and_that_is_said_once(
    endpoint: Endpoint, structure: Structure, known: list[str], asked: list[str], text: str
) -> None:
    """Failed at e48e5b3: each answer was a fault."""
    endpoint.reply = knows(*known)
    told: list[str] = []
    model = model_at(endpoint, on_event=lambda kind, **facts: told.append(facts["text"]), connections=1)
    results = model.generate([TextRequest("x", "", structure=structure)] * 3)
    assert [form_of(each.payload) for each in endpoint.asked] == [*asked, *asked[-1:] * 2]
    assert [result.text for result in results] == [text] * 3
    assert len(told) == len(asked) - 1
    assert all("response_format is not supported: it is asked" in note for note in told)


def test_a_check_finds_the_form_that_an_endpoint_does_not_ignore(endpoint: Endpoint) -> None:
    """Failed at e48e5b3: what was ignored was a fault of each call."""
    endpoint.reply = knows("json_schema", wrong=says("whatever comes"))
    form, result = model_at(endpoint).check(TextRequest("x", "", structure=REGEX))
    assert (form, result.text, *cost(result)) == ("json_schema", "yes", 22, 6)
    assert len(endpoint.asked) == 2


def test_a_form_that_the_user_leaves_out_is_not_tried(endpoint: Endpoint) -> None:
    endpoint.reply = knows("json_schema", "pattern", wrong=says("whatever comes"))
    model = model_at(endpoint, fields={"structured_outputs": None})
    assert model.check(TextRequest("x", "", structure=REGEX))[0] == "json_schema"
