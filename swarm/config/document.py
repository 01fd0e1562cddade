"""One YAML file as plain data that remembers where every key came from.

Owns safe loading (YAML 1.2 core scalars, so `no` stays text and `3e-4` is a number; no tags, alias bombs or
duplicate keys) and `--set` overrides. It refuses to know any schema: `swarm.config.load` validates.
"""

import difflib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from swarm.errors import SwarmError

MAX_BYTES = 1_000_000
MAX_NODES = 20_000
MAX_DEPTH = 32
MAX_PROBLEMS = 10

KeyPath = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"


class _CoreLoader(yaml.SafeLoader):
    """SafeLoader with the scalars of the YAML 1.2 core schema: no `yes` booleans, octals or dates."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own way to replace the inherited table


for _name, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    _CoreLoader.add_implicit_resolver(_TAG + _name, re.compile(f"^(?:{_pattern})$"), _first)


@dataclass(frozen=True, slots=True)
class Problem:
    """One line for the user, and where in the list of lines it belongs."""

    order: int
    text: str


@dataclass(slots=True)
class Document:
    """Plain data plus where each key came from: a line of the file, or the override that set it."""

    label: str
    data: dict[str, Any] = field(default_factory=dict)
    lines: dict[KeyPath, int] = field(default_factory=dict)
    flags: dict[KeyPath, str] = field(default_factory=dict)

    def problem(self, path: KeyPath, message: str) -> Problem:
        """Return `message` marked with the origin of the nearest known key at or above `path`."""
        for length in range(len(path), 0, -1):
            if (flag := self.flags.get(path[:length])) is not None:
                return Problem(-1, f"{flag}: {message}")
            if (line := self.lines.get(path[:length])) is not None:
                return Problem(line, f"{self.label}:{line}: {message}")
        return Problem(0, f"{self.label}: {message}")


def read_document(path: Path) -> Document:
    """Read one YAML mapping.

    Raises:
        SwarmError: it is missing, unreadable, too large, empty, not YAML, or holds what is refused here.
    """
    document = Document(str(path))
    text = _read_text(path)
    node = _compose(text, document.label)
    if node is None or (isinstance(node, yaml.ScalarNode) and not node.value):
        raise SwarmError(f"{path}: the file is empty; it needs keys such as `world:` or `name:`")
    if not isinstance(node, yaml.MappingNode):
        line = node.start_mark.line + 1
        raise SwarmError(f"{path}:{line}: the file must be a mapping of keys to values, such as `seed: 1`")
    builder = _Builder(document.label)
    document.data = builder.build(node, ())
    document.lines = builder.lines
    if builder.problems:
        raise problems_error(builder.problems)
    return document


def _read_text(path: Path) -> str:
    try:
        if path.is_file() and path.stat().st_size > MAX_BYTES:
            raise SwarmError(f"{path}: larger than {MAX_BYTES // 10**6} MB; that is no experiment file")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SwarmError(f"{path}: no such file{_nearest_file(path)}") from None
    except IsADirectoryError:
        raise SwarmError(f"{path}: is a folder; name a YAML file{_nearest_file(path / 'x')}") from None
    except UnicodeDecodeError as error:
        raise SwarmError(f"{path}: not UTF-8 text (byte {error.start}); is it a YAML file?") from None
    except OSError as error:
        raise SwarmError(f"{path}: cannot be read: {error.strerror or error}") from None


def _nearest_file(path: Path) -> str:
    """Return a hint that names the YAML file which was probably meant, or an empty text."""
    folder = path.parent if path.parent.is_dir() else Path("experiments")
    files = {file.name: file for file in sorted(folder.glob("[!.]*.y*ml"))} if folder.is_dir() else {}
    if near := difflib.get_close_matches(path.name, files, n=1) or _same_stem(path, files):
        return f"; did you mean {files[near[0]]}?"
    return f"; {folder} has {', '.join(list(files)[:8])}" if files else ""


def _same_stem(path: Path, names: Mapping[str, Path]) -> list[str]:
    return [name for name in names if Path(name).stem == path.stem]


def _compose(text: str, label: str) -> yaml.Node | None:
    """Parse one YAML document into nodes; `label` marks errors as `label:line`."""
    try:
        return yaml.compose(text, Loader=_CoreLoader)
    except RecursionError:
        raise SwarmError(f"{label}: nested too deeply (more than {MAX_DEPTH} levels)") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SwarmError(f"{label}:{line}: a character that YAML does not allow (code {error.character})") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{label}:{mark.line + 1}" if mark else label
        raise SwarmError(f"{where}: {_yaml_reason(error)}") from None


def _yaml_reason(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "not valid YAML"
    if "\\t" in problem:
        return "a tab is used for indentation; use spaces"
    if "but found another document" in problem or "expected a single document" in (error.context or ""):
        return "a second document (`---`) starts here; keep one experiment per file"
    return f"not valid YAML: {error.context + ', ' if error.context else ''}{problem}"


class _Builder:
    """Turns nodes into plain data, with line marks, and refuses whatever is not plain."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.lines: dict[KeyPath, int] = {}
        self.problems: list[Problem] = []
        self.num_nodes = 0

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        # Aliases are expanded here, so this count stops an alias bomb, and the depth a self-reference.
        self.num_nodes += 1
        if self.num_nodes > MAX_NODES:
            raise SwarmError(f"{self.label}: more than {MAX_NODES} values once its aliases are expanded")
        if len(path) > MAX_DEPTH:
            raise SwarmError(f"{self.label}:{_line(node)}: nested too deeply (more than {MAX_DEPTH} levels)")
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            for index, item in enumerate(node.value):
                self.lines[(*path, index)] = _line(item)
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        return self._refuse(node, f"the tag {_short_tag(node.tag)} is not allowed; write plain values")

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode):
                self._refuse(key_node, "a key must be plain text")
            elif key == "<<":
                self._refuse(key_node, "merge keys (<<) are not supported; write the keys out")
            elif key in data:
                first = self.lines[(*path, key)]
                self._refuse(key_node, f"the key '{key}' is given twice (first in line {first}); keep one")
            else:
                self.lines[(*path, key)] = _line(key_node)
                data[key] = self.build(value_node, (*path, key))
        return data

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        value, kind = node.value, node.tag.removeprefix(_TAG)
        try:
            if kind == "str":
                return value
            if kind == "null":
                return None
            if kind == "bool" and value.lower() in ("true", "false"):
                return value.lower() == "true"
            if kind == "int":
                return int(value, 16) if value.startswith("0x") else int(value)
            if kind == "float":
                number = float(re.sub(r"\.(?=inf|nan)", "", value.lower()))
                return number if math.isfinite(number) else self._refuse(node, f"{value} is not a finite number")
        except ValueError:
            return self._refuse(node, f"{shown(value)} is not a number that can be read")
        return self._refuse(node, f"the tag {_short_tag(node.tag)} is not allowed here; write plain values")

    def _refuse(self, node: yaml.Node, message: str) -> None:
        self.problems.append(Problem(_line(node), f"{self.label}:{_line(node)}: {message}"))


def _line(node: yaml.Node) -> int:
    line: int = node.start_mark.line
    return line + 1


def _short_tag(tag: str) -> str:
    return tag.replace(_TAG, "!!")


def apply_overrides(document: Document, overrides: Sequence[str]) -> list[Problem]:
    """Set dotted keys in `document`; return a problem for each override that cannot be set."""
    problems = []
    for text in overrides:
        try:
            _apply_override(document, text)
        except SwarmError as error:
            problems.append(Problem(-1, str(error)))
    return problems


def _apply_override(document: Document, text: str) -> None:
    label = f"--set {text}"
    dotted, equals, raw = text.partition("=")
    if not equals or not all(dotted.strip().split(".")):
        raise SwarmError(f"{label}: write it as --set key.key=value, for example --set agents.count=4")
    set_key(document, dotted.strip(), _override_value(raw, label), label)


def set_key(document: Document, dotted: str, value: Any, origin: str) -> None:
    """Set one dotted key; a later problem with it, or with what it holds, names `origin` in place of a line.

    Raises:
        SwarmError: a key on the way is a single value or a list.
    """
    keys = dotted.split(".")
    target = document.data
    for depth, key in enumerate(keys[:-1], start=1):
        inner = target.get(key)
        whole = ".".join(keys[:depth])
        if isinstance(inner, list):
            raise SwarmError(f"{origin}: '{whole}' is a list; give it whole, as in {whole}=[1,2]")
        if inner is None:
            inner = target[key] = {}
            document.flags[tuple(keys[:depth])] = origin
        elif not isinstance(inner, dict):
            raise SwarmError(f"{origin}: '{whole}' is a single value and holds no keys")
        target = inner
    path = tuple(keys)
    target[keys[-1]] = value
    for known in [known for known in (*document.lines, *document.flags) if known[: len(path)] == path]:
        document.lines.pop(known, None)
        document.flags.pop(known, None)
    document.flags[path] = origin


def _override_value(raw: str, label: str) -> Any:
    try:
        node = _compose(raw, label)
    except SwarmError:
        raise SwarmError(f"{label}: the value is not valid YAML; quote it or write a plain value") from None
    if node is None:
        return None
    if isinstance(node, yaml.MappingNode):
        raise SwarmError(f"{label}: set single values or lists, one key at a time")
    builder = _Builder(label)
    value = builder.build(node, ())
    if builder.problems:
        raise SwarmError(builder.problems[0].text.replace(f"{label}:1:", f"{label}:"))
    return value


def problems_error(problems: Sequence[Problem]) -> SwarmError:
    """Return one error that lists the problems in the order of the file, at most `MAX_PROBLEMS` of them."""
    unique = dict.fromkeys(problem.text for problem in sorted(problems, key=lambda problem: problem.order))
    shown = list(unique)[:MAX_PROBLEMS]
    if len(unique) > len(shown):
        shown.append(f"... and {len(unique) - len(shown)} more")
    return SwarmError("\n".join(shown))


def shown(value: Any) -> str:
    """Return a value as the user wrote it, cut to a readable length."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
