"""What a request to an OpenAI-compatible endpoint says, in the fields that this endpoint takes.

Endpoints differ in how they are asked for a form; those that refuse one way are asked in the next:

    pattern      vLLM's `structured_outputs` (0.12 and later) for patterns, choices and grammars
    json_schema  OpenAI's `response_format`; a pattern stands in the field `answer` of an object
    json_object  any JSON object, where the prompt says which
    none         no form; what has not the wanted one is a fault
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from swarm.backends.completion import Judgement
from swarm.backends.models import chat_messages
from swarm.backends.protocol import Structure, TextRequest
from swarm.config.engine import SENT, OpenAIEngine

FORMS = ("pattern", "json_schema", "json_object", "none")

MAX_SEED = (1 << 31) - 1
"""Some servers refuse larger seeds."""

_MARKS = re.compile(r"<\|[^<>|]{1,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>")
"""What the usual chat formats write between messages; servers may read it as such wherever it stands."""

_OF_A_FORM = re.compile(
    r"structured.?output|response.?format|json.?(schema|object|mode)|guided|grammar|regex|\bschema\b", re.I
)


def write_body(model: str, request: TextRequest, config: OpenAIEngine, form: str) -> tuple[str, bytes]:
    """Return where a request goes, and its JSON.

    Raises:
        TypeError, ValueError: JSON has no words for it.
    """
    fields: dict[str, Any] = {
        "max_tokens": request.max_new_tokens,
        "temperature": request.temperature,
        "top_p": 1.0,  # servers have defaults of their own
        "seed": request.seed & MAX_SEED,
    }
    if request.stop:
        fields["stop"] = list(request.stop)
    if request.structure is not None:
        fields |= _asking_for(request.structure, form)
    names = {name: config.fields.get(name, name) for name in fields}
    payload: dict[str, Any] = {"model": model}
    payload |= {name: fields[own] for own, name in names.items() if name is not None}
    if request.system is None:
        path, payload["prompt"] = "/completions", request.prompt
    else:
        path, payload["messages"] = "/chat/completions", chat_messages(request.system, request.prompt, _MARKS)
        if config.chat_template_kwargs:
            payload["chat_template_kwargs"] = config.chat_template_kwargs
    return path, json.dumps(payload | config.extra, allow_nan=False).encode()


def _asking_for(structure: Structure, form: str) -> dict[str, Any]:
    """Return the fields that ask for a structure in one of the FORMS."""
    schema = _schema(structure)
    if form == "pattern" and not structure.json_schema:
        kind, value = structure.best("regex", "choices", "grammar")
        return {"structured_outputs": {"choice" if kind == "choices" else kind: value}}
    if form in ("pattern", "json_schema") and schema:
        wanted = {"name": "answer", "schema": schema, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": wanted}}
    return {"response_format": {"type": "json_object"}} if form == "json_object" else {}


def _schema(structure: Structure) -> dict[str, Any] | None:
    """Return the JSON Schema of a structure's answers, None where it can have none."""
    if structure.json_schema:
        return structure.json_schema
    if not structure.choices and not structure.regex:
        return None
    inner = {"enum": list(structure.choices)} if structure.choices else {"pattern": f"^(?:{structure.regex})$"}
    wanted = {"answer": {"type": "string", **inner}}
    return {"type": "object", "properties": wanted, "required": ["answer"], "additionalProperties": False}


def next_form(structure: Structure, form: str) -> str:
    """Return how to ask an endpoint that knows nothing of a form."""
    if structure.json_schema:
        return "none" if form == "json_object" else "json_object"
    return "json_schema" if form == "pattern" and _schema(structure) else "none"


def unwrapped(text: str, structure: Structure | None, form: str) -> str:
    """Return what an answer says, without the object that it was asked for in."""
    if structure is None or structure.json_schema or form != "json_schema":
        return text
    try:
        answer = json.loads(text)["answer"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return text
    return answer if isinstance(answer, str) else text


def has_form(text: str, structure: Structure | None) -> bool:
    """Return whether a whole answer has the pattern that was asked for."""
    if structure is None or structure.json_schema or not structure.regex:
        return True
    return re.fullmatch(structure.regex, text.strip(), re.ASCII) is not None


def named_field(found: Judgement, sent: Mapping[str, Any]) -> str:
    """Return the setting that a refusal names among the fields of a request, "" for none."""
    names = [name for name in sent if name not in ("model", "prompt", "messages")]
    if found.field:
        return next((name for name in names if found.field.split(".")[0] == name), "")
    return next((name for name in names if re.search(rf"['\"`.]{re.escape(name)}['\"`:]", found.said)), "") or next(
        (name for name in names if name != "stop" and re.search(rf"\b{re.escape(name)}\b", found.said)), ""
    )


def is_of_a_form(found: Judgement) -> bool:
    """Return whether a refusal is of the form that was asked for."""
    return _OF_A_FORM.search(f"{found.field} {found.said}") is not None


def remedy(words: str, name: str, config: OpenAIEngine) -> str:
    """Return the setting that helps against the refusal of a field."""
    own = next((ours for ours, theirs in config.fields.items() if theirs == name), name)
    if own not in SENT:
        return f"correct or leave out engine.{'' if name in type(config).model_fields else 'extra.'}{name}"
    other = next(iter(re.findall(r"\b(max_completion_tokens|max_output_tokens|max_new_tokens)\b", words)), None)
    if name == "max_tokens" and other:
        return f"set engine.fields: {{max_tokens: {other}}}"
    return f"rename the field, or leave it out: engine.fields: {{{own}: null}}"
