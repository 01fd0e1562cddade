"""Reads a YAML file into a validated model and explains every mistake by file, line and dotted key.

Owns validation and the wording of errors. It refuses to know how YAML is read (`swarm.config.document`), what a
section means (`swarm.config.experiment`, each world's `Options`), and to start anything.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from swarm.config.document import (
    Document,
    KeyPath,
    Problem,
    apply_overrides,
    problems_error,
    read_document,
    shown,
)
from swarm.config.experiment import ExperimentConfig

__all__ = ["experiment_of", "load_chosen_model", "load_experiment", "load_yaml_model"]

ModelT = TypeVar("ModelT", bound=BaseModel)


def load_experiment(path: str | Path, overrides: Sequence[str] = (), seed: int | None = None) -> ExperimentConfig:
    """Read an experiment file, apply overrides, and validate it, the world's own options included.

    Args:
        path: the YAML file; it is named in messages as given.
        overrides: texts such as ``agents.count=4``; the value is a YAML scalar or list.
        seed: replaces the file's seed.

    Raises:
        SwarmError: one line per mistake of the file and the overrides, at most ten.
    """
    return experiment_of(*_read(path, overrides, {"seed": seed}))


def experiment_of(document: Document, problems: Sequence[Problem] = ()) -> ExperimentConfig:
    """Validate an experiment that has been read, the world's own options included.

    Raises:
        SwarmError: one line per mistake, `problems` among them, at most ten.
    """
    config, found = _validate(ExperimentConfig, document, document.data, ())
    problems = [*problems, *found, *_world_problems(document)]
    if config is None or problems:
        raise problems_error(problems)
    return config


def load_yaml_model(path: str | Path, model_class: type[ModelT], overrides: Sequence[str] = ()) -> ModelT:
    """Read a YAML file into any pydantic model, with the same care and messages as an experiment.

    Raises:
        SwarmError: one line per mistake of the file and the overrides, at most ten.
    """
    return load_chosen_model(path, lambda _: model_class, overrides)


def load_chosen_model(
    path: str | Path,
    choose: Callable[[Mapping[str, Any]], type[ModelT]],
    overrides: Sequence[str] = (),
    options: Mapping[str, object] = MappingProxyType({}),
) -> ModelT:
    """Read a YAML file into the model that its content asks for, with the same care and messages as an experiment.

    Args:
        path: the YAML file.
        choose: data of the file, overrides and options applied -> model class.
        overrides: as for `load_experiment`.
        options: key -> value from the command-line option of that name; None where it was not given.

    Raises:
        SwarmError: one line per mistake of the file, the overrides and the options, at most ten.
    """
    document, problems = _read(path, overrides, options)
    model, found = _validate(choose(document.data), document, document.data, ())
    problems += found
    if model is None or problems:
        raise problems_error(problems)
    return model


def _read(path: str | Path, overrides: Sequence[str], options: Mapping[str, object]) -> tuple[Document, list[Problem]]:
    document = read_document(Path(path))
    problems = apply_overrides(document, overrides)
    for key, value in options.items():
        if value is not None:
            document.data[key] = value
            document.flags[(key,)] = f"--{key} {value}"
    return document, problems


def _validate(
    model_class: type[ModelT], document: Document, data: Any, prefix: KeyPath
) -> tuple[ModelT | None, list[Problem]]:
    try:
        # Strict JSON mode: `true` is no number and "8" no count, yet lists may become tuples and ints floats.
        return model_class.model_validate_json(json.dumps(data), strict=True), []
    except ValidationError as error:
        return None, list(_explain(error, model_class, document, data, prefix))


def _world_problems(document: Document) -> list[Problem]:
    """Check the world id and its options, as far as the `world` section is readable at all."""
    world = document.data.get("world")
    if not isinstance(world, dict) or not isinstance(world.get("id"), str):
        return []
    from worlds.protocol import WorldError
    from worlds.registry import world_class

    try:
        options_class = world_class(world["id"]).Options
    except WorldError as error:
        return [document.problem(("world", "id"), str(error))]
    options = world.get("options", {})
    if not isinstance(options, dict):
        return []
    return _validate(options_class, document, options, ("world", "options"))[1]


def _explain(
    error: ValidationError, model_class: type[BaseModel], document: Document, data: Any, prefix: KeyPath
) -> Iterator[Problem]:
    details = error.errors(include_url=False)
    suggested = {
        (*detail["loc"][:-1], near)
        for detail in details
        if detail["type"] == "extra_forbidden"
        and (near := _nearest(str(detail["loc"][-1]), _fields_at(model_class, detail["loc"][:-1])))
    }
    for detail in details:
        path = _path_in(data, detail["loc"])
        kind = detail["type"]
        if kind == "extra_forbidden":
            message = _unknown_key(model_class, path, prefix)
        elif kind == "missing":
            if detail["loc"] in suggested:
                continue  # the misspelt key is already reported with this name
            message = f"missing key '{_dotted((*prefix, *path))}'"
        else:
            message = _wrong_value(model_class, path, prefix, detail)
        yield document.problem((*prefix, *path), message)


def _unknown_key(model_class: type[BaseModel], path: KeyPath, prefix: KeyPath) -> str:
    key = str(path[-1])
    known = _fields_at(model_class, path[:-1])
    section = _dotted((*prefix, *path[:-1]))
    start = f"unknown key '{key}'" + (f" in '{section}'" if section else "")
    if near := _nearest(key, known):
        return f"{start}; did you mean '{near}'?"
    if home := _home_of(key, model_class):
        return f"{start}; it belongs in '{_dotted((*prefix, *home))}'"
    return f"{start}; known keys: {', '.join(known) or 'none'}"


def _wrong_value(model_class: type[BaseModel], path: KeyPath, prefix: KeyPath, detail: Mapping[str, Any]) -> str:
    name = _dotted((*prefix, *path))
    if detail["type"] in ("value_error", "assertion_error"):
        reason = str(detail["msg"]).split("error, ", 1)[-1]
        return f"{name}: {reason}" if name else reason
    given = detail["input"]
    found = _field_at(model_class, path)
    allowed = _allowed(found) if found else None
    if not allowed:
        return f"{name} is {shown(given)}; {str(detail['msg'])[:1].lower()}{str(detail['msg'])[1:]}"
    near = _nearest(given, _choices(found.annotation)) if found and isinstance(given, str) else None
    return f"{name} is {shown(given)}; allowed: {allowed}" + (f"; did you mean '{near}'?" if near else "")


def _dotted(path: KeyPath) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _nearest(word: str, words: Sequence[str] | Mapping[str, Any]) -> str | None:
    near = difflib.get_close_matches(word.lower(), list(words), n=1, cutoff=0.6)
    return near[0] if near else None


def _path_in(data: Any, loc: KeyPath) -> KeyPath:
    """Return `loc` without the names of union members, which pydantic puts between the keys of the data."""
    path: list[str | int] = []
    for index, part in enumerate(loc):
        inside = (isinstance(data, dict) and part in data) or (isinstance(data, list) and isinstance(part, int))
        if inside:
            data = data[part]
        elif index < len(loc) - 1:
            continue
        path.append(part)
    return tuple(path)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _fields_at(model_class: type[BaseModel], path: KeyPath) -> dict[str, FieldInfo]:
    """Return the fields of the section at `path` (of all members where a section is a union)."""
    models = [model_class]
    for part in path:
        if isinstance(part, int):
            continue
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        models = [inner for found in fields for inner in _models_in(found.annotation)]
    return {name: found for model in models for name, found in model.model_fields.items()}


def _field_at(model_class: type[BaseModel], path: KeyPath) -> FieldInfo | None:
    """Return the field at `path`, or None for items of a list and whatever the schema does not name."""
    if not path or isinstance(path[-1], int):
        return None
    return _fields_at(model_class, path[:-1]).get(path[-1])


def _home_of(key: str, model_class: type[BaseModel]) -> KeyPath | None:
    """Return the path of the first section, one level down, that has `key`."""
    for name, found in model_class.model_fields.items():
        if any(key in model.model_fields for model in _models_in(found.annotation)):
            return (name,)
    return None


def _choices(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    return [choice for argument in get_args(annotation) for choice in _choices(argument)]


def _allowed(found: FieldInfo) -> str | None:
    """Say in words which values a field takes, or None where its type is not a plain one."""
    members = get_args(found.annotation) if NoneType in get_args(found.annotation) else (found.annotation,)
    kinds = [member for member in members if member is not NoneType]
    if len(kinds) != 1:
        return None
    kind = get_origin(kinds[0]) or kinds[0]
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}
    if choices := _choices(kinds[0]):
        text = f"one of {', '.join(choices)}"
    elif kind in (list, tuple):
        text = "a list"
    elif sections := list(_models_in(kinds[0])):
        text = f"a section with keys {', '.join(sections[0].model_fields)}"
    elif kind is dict:
        text = "a section of keys and values"
    elif kind in names:
        text = names[kind]
    else:
        return None
    signs = (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"))
    limits = [
        f"{sign} {getattr(rule, name):g}" if abs(getattr(rule, name)) < 10**6 else f"{sign} {getattr(rule, name)}"
        for name, sign in signs
        for rule in found.metadata
        if getattr(rule, name, None) is not None
    ]
    patterns = [rule.pattern for rule in found.metadata if getattr(rule, "pattern", None) is not None]
    lengths = [rule.min_length for rule in found.metadata if getattr(rule, "min_length", None)]
    text += f" {' and '.join(limits)}" if limits else ""
    text += f" that matches {patterns[0]}" if patterns else ""
    text += f" of at least {lengths[0]}" if lengths else ""
    return text + (" or null" if NoneType in members else "")
