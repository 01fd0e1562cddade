"""Reads a YAML file into a validated model and explains every mistake by file, line and dotted key.

Owns validation and the wording of errors. It refuses to know how YAML is read (`swarm.config.document`), what a
section means (`swarm.config.experiment`, each world's `Options`), and to start anything.
"""

import difflib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from swarm.config.coordinator import COORDINATORS
from swarm.config.describe import choices_of, models_in, tag_of, values_of
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
from swarm.errors import SwarmError

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
    problems = [*problems, *found, *_option_problems(document)]
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
) -> ModelT:
    """Read a YAML file into the model that its content asks for, with the same care and messages as an experiment.

    Args:
        path: the YAML file.
        choose: data of the file, overrides applied -> model class.
        overrides: as for `load_experiment`.

    Raises:
        SwarmError: one line per mistake of the file and the overrides, at most ten.
    """
    document, problems = _read(path, overrides, {})
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


def _option_problems(document: Document) -> list[Problem]:
    """Check the options of world and coordinator, as far as their sections are readable at all."""
    from worlds.protocol import WorldError
    from worlds.registry import world_class

    problems = []
    for where, tag in (("world", "id"), ("coordinator", "kind")):
        section = document.data.get(where)
        if not isinstance(section, dict) or not isinstance(name := section.get(tag), str):
            continue
        try:
            options_class = world_class(name).Options if where == "world" else COORDINATORS.find(name).Options
        except WorldError as error:
            problems.append(document.problem((where, tag), str(error)))
            continue
        except SwarmError:  # the section's own validator has said so
            continue
        options = section.get("options", {})
        if isinstance(options, dict):
            problems += _validate(options_class, document, options, (where, "options"))[1]
    return problems


def _explain(
    error: ValidationError, model_class: type[BaseModel], document: Document, data: Any, prefix: KeyPath
) -> Iterator[Problem]:
    details = error.errors(include_url=False)
    suggested = {
        (*detail["loc"][:-1], near)
        for detail in details
        if detail["type"] == "extra_forbidden"
        and (near := _nearest(str(detail["loc"][-1]), _fields_of(_models_at(model_class, detail["loc"][:-1]))))
    }
    for detail in details:
        loc = detail["loc"]
        path = _path_in(data, loc)
        kind = detail["type"]
        if kind == "extra_forbidden":
            message = _unknown_key(model_class, loc, path, prefix)
        elif kind == "missing":
            if loc in suggested:
                continue  # the misspelt key is already reported with this name
            message = f"missing key '{_dotted((*prefix, *path))}'"
        elif kind.startswith("union_tag"):
            path, message = _wrong_tag(path, prefix, detail)
        else:
            message = _wrong_value(model_class, loc, path, prefix, detail)
        yield document.problem((*prefix, *path), message)


def _unknown_key(model_class: type[BaseModel], loc: KeyPath, path: KeyPath, prefix: KeyPath) -> str:
    key = str(path[-1])
    models = _models_at(model_class, loc[:-1])
    known = _fields_of(models)
    section = _dotted((*prefix, *path[:-1]))
    start = f"unknown key '{key}'" + (f" in '{section}'" if section else "")
    if below := next((home for model in models if (home := _home_of(key, model))), None):
        return f"{start}; it belongs in '{_dotted((*prefix, *path[:-1], *below))}'"
    if near := _nearest(key, known):
        return f"{start}; did you mean '{near}'?"
    if home := _home_of(key, model_class):
        return f"{start}; it belongs in '{_dotted((*prefix, *home))}'"
    of = f" of kind {tag}" if len(models) == 1 and (tag := tag_of(models[0])) else ""
    return f"{start}; known keys{of}: {', '.join(known) or 'none'}"


def _wrong_tag(path: KeyPath, prefix: KeyPath, detail: Mapping[str, Any]) -> tuple[KeyPath, str]:
    """Explain a section whose tag, which says what else may stand in it, is missing or unknown."""
    tag = str(detail["ctx"]["discriminator"]).strip("'")
    name = _dotted((*prefix, *path, tag))
    if detail["type"] == "union_tag_not_found":
        return path, f"missing key '{name}'"
    given, choices = detail["ctx"]["tag"], str(detail["ctx"]["expected_tags"]).replace("'", "")
    near = _nearest(given, choices.split(", "))
    hint = f"; did you mean '{near}'?" if near else ""
    return (*path, tag), f"{name} is {shown(given)}; allowed: one of {choices}{hint}"


def _wrong_value(
    model_class: type[BaseModel], loc: KeyPath, path: KeyPath, prefix: KeyPath, detail: Mapping[str, Any]
) -> str:
    name = _dotted((*prefix, *path))
    if detail["type"] in ("value_error", "assertion_error"):
        reason = str(detail["msg"]).split("error, ", 1)[-1]
        return f"{name}: {reason}" if name else reason
    given = detail["input"]
    found = _field_at(model_class, loc)
    if found is None:
        return f"{name} is {shown(given)}; {str(detail['msg'])[:1].lower()}{str(detail['msg'])[1:]}"
    near = _nearest(given, choices_of(found.annotation)) if isinstance(given, str) else None
    hint = f"; did you mean '{near}'?" if near else ""
    return f"{name} is {shown(given)}; allowed: {values_of(found.annotation, found.metadata)}{hint}"


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


def _models_at(model_class: type[BaseModel], loc: KeyPath) -> list[type[BaseModel]]:
    """Return the section at `loc`: one, or the members of a union whose tag `loc` does not name."""
    models = [model_class]
    for part in loc:
        if isinstance(part, int):
            continue
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        if fields:
            models = list(dict.fromkeys(inner for found in fields for inner in models_in(found.annotation)))
        else:  # a tag, or the name that pydantic gives to the member of a plain union
            models = [model for model in models if tag_of(model) == part] or models
    return models


def _fields_of(models: Sequence[type[BaseModel]]) -> dict[str, FieldInfo]:
    return {name: found for model in models for name, found in model.model_fields.items()}


def _field_at(model_class: type[BaseModel], loc: KeyPath) -> FieldInfo | None:
    """Return the field at `loc`, or None for items of a list and whatever the schema does not name."""
    if not loc or isinstance(loc[-1], int):
        return None
    return _fields_of(_models_at(model_class, loc[:-1])).get(loc[-1])


def _home_of(key: str, model_class: type[BaseModel]) -> KeyPath | None:
    """Return the path of the first section, one level down, that has `key`."""
    for name, found in model_class.model_fields.items():
        if any(key in model.model_fields for model in models_in(found.annotation)):
            return (name,)
    return None
