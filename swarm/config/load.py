"""Reads a YAML file into a validated model and explains every mistake by file, line and dotted key.

Owns validation and the wording of errors. It refuses to know how YAML is read (`swarm.config.document`), what a
section means (`swarm.config.experiment`, each world's `Options`), and to start anything.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from swarm.config.coordinator import COORDINATORS
from swarm.config.describe import choices_of, models_in, tag_of, values_of
from swarm.config.document import Document, KeyPath, read_document, set_key, shown
from swarm.config.experiment import ExperimentConfig
from swarm.config.shipped import find_file
from swarm.errors import SwarmError, did_you_mean, nearest

ModelT = TypeVar("ModelT", bound=BaseModel)


def load_experiment(path: str | Path, overrides: Sequence[str] = (), seed: int | None = None) -> ExperimentConfig:
    """Read an experiment file, apply overrides, and validate it, the world's own options included.

    Args:
        path: the YAML file, named in messages as given, or the name of a shipped one, such as `puzzle`.
        overrides: texts such as ``agents.count=4``; the value is a YAML scalar or list.
        seed: replaces the file's seed.

    Raises:
        SwarmError: one line per mistake of the file and the overrides, at most ten.
    """
    document = read_document(find_file(Path(path)), overrides)
    if seed is not None:
        set_key(document, "seed", seed, f"--seed {seed}")
    return experiment_of(document)


def experiment_of(document: Document) -> ExperimentConfig:
    """Validate an experiment that has been read, the world's own options included.

    Raises:
        SwarmError: one line per mistake, those that the document has among them, at most ten.
    """
    config = _validate(ExperimentConfig, document, document.data)
    _check_options(document)
    if config is None or document.problems:
        raise document.error()
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
    document = read_document(Path(path), overrides)
    model = _validate(choose(document.data), document, document.data)
    if model is None or document.problems:
        raise document.error()
    return model


def _validate(model_class: type[ModelT], document: Document, data: Any, prefix: KeyPath = ()) -> ModelT | None:
    """Return `data`, which stands at `prefix` in the document, as a model; None where the document got problems."""
    try:
        # Strict JSON mode: `true` is no number and "8" no count, yet lists may become tuples and ints floats.
        return model_class.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        for path, message in _explain(error, model_class, data, prefix):
            document.complain(path, message)
        return None


def _check_options(document: Document) -> None:
    """Check the options of world and coordinator, as far as their sections are readable at all."""
    from worlds.entry_points import error_line
    from worlds.protocol import World, WorldError
    from worlds.registry import world_class

    for where, tag in (("world", "id"), ("coordinator", "kind")):
        section = document.data.get(where)
        if not isinstance(section, dict) or not isinstance(name := section.get(tag), str):
            continue
        try:
            options_class = world_class(name).Options if where == "world" else COORDINATORS.find(name).Options
        except (WorldError, SwarmError) as error:
            if where == "world":  # of the coordinator the section's own validator has said so
                document.complain((where, tag), str(error))
            continue
        agents = document.data.get("agents")
        silent = where == "world" and world_class(name).inline is World.inline
        if silent and isinstance(agents, dict) and agents.get("inline") is True:
            document.complain(("agents", "inline"), f"{name} answers nothing inline; leave agents.inline out")
        options = section.get("options", {})
        if isinstance(options, dict):
            try:
                _validate(options_class, document, options, (where, "options"))
            except (Exception, SystemExit) as error:  # its validators may be anybody's code
                document.complain(
                    (where, "options"), f"{where}.options of {name} cannot be checked: {error_line(error)}"
                )


def _explain(
    error: ValidationError, model_class: type[BaseModel], data: Any, prefix: KeyPath
) -> Iterator[tuple[KeyPath, str]]:
    """Yield the place of each mistake in `data`, which stands at `prefix`, and what is wrong there."""
    details = error.errors(include_url=False)
    suggested = {
        (*detail["loc"][:-1], nearest(str(detail["loc"][-1]), _fields_of(_models_at(model_class, detail["loc"][:-1]))))
        for detail in details
        if detail["type"] == "extra_forbidden"
    }
    for detail in details:
        loc, kind = detail["loc"], detail["type"]
        # The tag of a section says what else may stand in it; where it is wrong, the mistake is the section's.
        tag = [str(detail["ctx"]["discriminator"]).strip("'")] if kind.startswith("union_tag") else []
        path = (*prefix, *_path_in(data, loc), *tag)
        if kind in ("missing", "union_tag_not_found"):
            if loc not in suggested:  # else the misspelt key is reported with this name
                yield path, f"missing key '{_dotted(path)}'"
        elif kind == "extra_forbidden":
            yield path, _unknown_key(model_class, loc, path, prefix, detail["input"])
        else:
            yield path, _wrong_value(model_class, loc, _dotted(path), detail)


def _unknown_key(model_class: type[BaseModel], loc: KeyPath, path: KeyPath, prefix: KeyPath, value: Any) -> str:
    key, section = str(path[-1]), path[:-1]
    models = _models_at(model_class, loc[:-1])
    known = _fields_of(models)
    start = f"unknown key '{key}'" + (f" in '{_dotted(section)}'" if section else "")
    if inside := [name for name in value if name in known] if isinstance(value, dict) else []:
        return f"{start}; did you mean '{_dotted((*section, inside[0]))}'?"
    if below := next((home for model in models if (home := _home_of(key, model))), None):
        return f"{start}; it belongs in '{_dotted((*section, *below))}'"
    if nearest(key, known) is None and (home := _home_of(key, model_class)):
        return f"{start}; it belongs in '{_dotted((*prefix, *home))}'"
    of = f" of kind {tag}" if len(models) == 1 and (tag := tag_of(models[0])) else ""
    return start + did_you_mean(key, known, f"; known keys{of}: {', '.join(known) or 'none'}")


def _wrong_value(model_class: type[BaseModel], loc: KeyPath, name: str, detail: ErrorDetails) -> str:
    given, message, choices = detail["input"], detail["msg"], list[str]()
    if detail["type"] in ("value_error", "assertion_error"):
        reason = message.split("error, ", 1)[-1]
        return f"{name}: {reason}" if name else reason
    if detail["type"] == "union_tag_invalid":
        given, choices = detail["ctx"]["tag"], str(detail["ctx"]["expected_tags"]).replace("'", "").split(", ")
        wanted = f"allowed: one of {', '.join(choices)}"
    elif found := _fields_of(_models_at(model_class, loc[:-1])).get(str(loc[-1])) if loc else None:
        choices, wanted = choices_of(found.annotation), f"allowed: {values_of(found.annotation, found.metadata)}"
    else:  # an item of a list, or whatever the schema does not name
        wanted = message[:1].lower() + message[1:]
    hint = did_you_mean(given, choices) if isinstance(given, str) else ""
    return f"{name} is {shown(given)}; {wanted}{hint}"


def _dotted(path: KeyPath) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _path_in(data: Any, loc: KeyPath) -> KeyPath:
    """Return `loc` without the names of union members, which pydantic puts between the keys of the data."""
    path: list[str | int] = []
    for index, part in enumerate(loc):
        inside = (isinstance(data, dict) and part in data) or (isinstance(data, list) and isinstance(part, int))
        if inside:
            data = data[part]
        if inside or index == len(loc) - 1:
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


def _fields_of(models: Iterable[type[BaseModel]]) -> dict[str, FieldInfo]:
    return {name: found for model in models for name, found in model.model_fields.items()}


def _home_of(key: str, model_class: type[BaseModel]) -> KeyPath | None:
    """Return the path of the first section, one level down, that has `key`."""
    fields = model_class.model_fields.items()
    return next(((name,) for name, found in fields if key in _fields_of(models_in(found.annotation))), None)
