"""What settings there are: one walk over sections, for `swarm settings`, the reference page and editors.

Names, types, limits, defaults and meanings come from the sections themselves, so nothing is written twice.
"""

import inspect
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Field, TypeAdapter
from pydantic.fields import FieldInfo

_Models = tuple[type[BaseModel], ...]

_PLAIN = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    dict: "a section of keys and values",
}
_LIMITS = (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"))


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of a section.

    Attributes:
        name: dotted, from the top of the file.
        values: its type and limits, in words.
        default: as YAML; "" for a section that may be left out; None where the file must have the key.
        meaning: what it does.
        is_section: whether sections stand there, which are described by themselves.
    """

    name: str
    values: str
    default: str | None
    meaning: str
    is_section: bool = False


@dataclass(frozen=True, slots=True)
class SectionText:
    """A section, or one kind of it.

    Attributes:
        name: dotted; "" for the top of the file. NAME stands for a name that the file gives.
        kind: its tag, where a section has several kinds; None for what all of them have.
        about: what it is.
        settings: its keys, in order.
    """

    name: str
    kind: str | None
    about: str
    settings: tuple[Setting, ...]


def describe(*models: type[BaseModel]) -> list[SectionText]:
    """Return the top of a file, then the sections in it; what stands in two places is described in the first.

    Args:
        models: the file's section; or all kinds of it, told apart by `kind`.
    """
    return list(_walk(models, "", {}))


def json_schema(*models: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON Schema of a file, by which editors complete and check it.

    Args:
        models: as of `describe`.
    """
    file: Any = models[0]
    if len(models) > 1:
        file = Annotated[Union[models], Field(discriminator="kind")]  # noqa: UP007 - of as many as there are
    schema = TypeAdapter(file).json_schema()
    for section in (schema, *schema.get("$defs", {}).values()):
        if "const" in section.get("properties", {}).get("kind", {}):  # only by its tag a section is known
            section["required"] = sorted({"kind", *section.get("required", ())})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _walk(models: _Models, name: str, seen: dict[type[BaseModel], str]) -> Iterator[SectionText]:
    nested: dict[str, _Models] = {}

    def settings(model: type[BaseModel], keys: Iterable[str]) -> tuple[Setting, ...]:
        found = []
        for key in keys:
            field = model.model_fields[key]
            full = f"{name}.{key}" if name else key
            inside = tuple(kind for one in models_in(field.annotation) for kind in _kinds_of(one))
            if new := [one for one in inside if one not in seen]:
                nested[full + _place(field.annotation)] = inside
                seen.update(dict.fromkeys(new, full))
            elsewhere = "" if new else ", ".join(sorted({seen[one] for one in inside}))
            found.append(_setting(full, field, inside, elsewhere))
        return tuple(found)

    if len(models) == 1:
        yield SectionText(name, None, _about(models[0]), settings(models[0], models[0].model_fields))
    else:
        shared = [key for key in models[0].model_fields if key != "kind" and _is_shared(key, models)]
        base = next(base for base in models[0].__mro__ if all(issubclass(model, base) for model in models))
        common = settings(models[0], shared)
        if not name:
            tags = ", ".join(map(str, map(tag_of, models)))
            tag = base.model_fields.get("kind") if issubclass(base, BaseModel) else None
            common = (Setting("kind", f"one of {tags}", None, (tag and tag.description) or ""), *common)
        if common:
            yield SectionText(name, None, _about(base), common)
        for model in models:
            own = [key for key in model.model_fields if key not in ("kind", *shared)]
            yield SectionText(name, tag_of(model), _about(model), settings(model, own))
    for place, inside in nested.items():
        yield from _walk(inside, place, seen)


def _is_shared(key: str, models: _Models) -> bool:
    """Return whether all of several kinds have a key, and mean the same by it."""
    found = [model.model_fields.get(key) for model in models]
    facts = [field and (field.annotation, field.description, field.default, field.default_factory) for field in found]
    return facts.count(facts[0]) == len(facts)


def _setting(name: str, field: FieldInfo, inside: _Models, elsewhere: str) -> Setting:
    """Return the text of a key; `elsewhere` is where the sections that it holds are described, if not here."""
    values = values_of(field.annotation, field.metadata)
    place = _place(field.annotation)
    if len(inside) == 1:
        shapes = {"": "a section", "[]": "a list of sections", ".NAME": "a section for each name"}
        values = shapes[place] + (" or null" if NoneType in _members(field.annotation) else "")
    elif inside and place == "[]":
        values = f"a list of names, or sections with `kind` and more: {', '.join(str(tag_of(one)) for one in inside)}"
    if elsewhere:
        values += f", as in {elsewhere}"
    default = field.get_default(call_default_factory=True)
    plain = isinstance(default, BaseModel) and not default.model_fields_set
    text = None if field.is_required() else "" if plain else _as_yaml(default)
    return Setting(name, values, text, " ".join((field.description or "").split()), len(inside) == 1)


def _kinds_of(model: type[BaseModel]) -> list[type[BaseModel]]:
    """Return the sections that a section stands for: itself, or those of all kinds that packages have added."""
    return model.kinds() if "kinds" in vars(model) else [model]  # type: ignore[attr-defined]


def _place(annotation: Any) -> str:
    """Return what follows a key before the keys of a section that stands in a list or under names."""
    origins = {get_origin(member) for member in _members(annotation)}
    return "[]" if origins & {list, tuple} else ".NAME" if dict in origins else ""


def _about(model: type[BaseModel]) -> str:
    return " ".join(inspect.cleandoc(model.__doc__ or "").split())


def values_of(annotation: Any, rules: Iterable[Any] = ()) -> str:
    """Say in words which values a type takes.

    Args:
        annotation: the type, such as `int | None`.
        rules: the limits of a field, as in `FieldInfo.metadata`.
    """
    if get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        inner = [rule for one in more for rule in (one.metadata if isinstance(one, FieldInfo) else (one,))]
        return values_of(annotation, (*rules, *inner))
    members = _members(annotation)
    plain = [member for member in members if member is not NoneType and not (member is int and float in members)]
    if len(plain) > 1 and not any(models_in(annotation)):
        text = " or ".join(values_of(member, rules) for member in plain)
    else:
        text = _one_type(Union[tuple(plain)], list(rules))  # noqa: UP007 - of as many as there are
    return text + (" or null" if NoneType in members else "")


def _one_type(kind: Any, rules: Sequence[Any]) -> str:
    choices, sections = choices_of(kind), list(models_in(kind))
    origin, inner = get_origin(kind) or kind, get_args(kind)
    if origin in (list, tuple):
        text = "a list"
    elif sections:
        tags = [tag for section in sections if (tag := tag_of(section))]
        keys = f"`kind`, one of {', '.join(tags)}" if len(tags) > 1 else f"keys {', '.join(sections[0].model_fields)}"
        text = f"a section with {keys}"
    elif origin in _PLAIN:
        text = _PLAIN[origin]
    else:
        text = f"one of {', '.join(choices)}" if choices else "any value"
    limits = [f"{sign} {_number(limit)}" for name, sign in _LIMITS for limit in _given(rules, name)]
    text += f" {' and '.join(limits)}" if limits else ""
    text += "".join(f" that matches {pattern}" for pattern in _given(rules, "pattern"))
    text += f" of {len(inner)}" if origin is tuple and Ellipsis not in inner else ""
    text += "".join(f" of at least {length}" for length in _given(rules, "min_length"))
    if origin in (list, tuple) and not sections and inner and inner[0] is not str:
        text += f", each {values_of(inner[0])}"
    if origin is dict and not sections and inner[1] is not Any:
        text += f", each {values_of(inner[1])}"
    return text


def _given(rules: Iterable[Any], name: str) -> list[Any]:
    """Return the limits of this name that the rules set."""
    return [limit for rule in rules if (limit := getattr(rule, name, None)) is not None]


def _number(limit: float) -> str:
    if abs(limit) < 10**6:
        return f"{limit:g}"
    power = int(limit).bit_length() - 1
    return f"2^{power}" if limit == 2**power else str(limit)


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the sections that a type names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)


def tag_of(model: type[BaseModel]) -> str | None:
    """Return the tag of a member of a tagged union, None for other sections."""
    choices = choices_of(model.model_fields["kind"].annotation) if "kind" in model.model_fields else []
    return choices[0] if len(choices) == 1 else None


def choices_of(annotation: Any) -> list[str]:
    """Return the values of the literals in a type."""
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    return [choice for argument in get_args(annotation) for choice in choices_of(argument)]


def _as_yaml(value: Any) -> str:
    """Return a value as one would write it into a YAML file; of a section, what differs from its defaults."""
    if isinstance(value, BaseModel):
        return _as_yaml(value.model_dump(mode="json", include=value.model_fields_set))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_as_yaml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_as_yaml, value)) + "]"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z./][\w./+-]*", value):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)
