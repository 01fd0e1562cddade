"""One YAML file as plain data that remembers where every key came from.

Owns safe loading (YAML 1.2 core scalars, so `no` stays text and `3e-4` is a number; no tags, alias bombs or
duplicate keys) and `--set` overrides. It refuses to know any schema: `swarm.config.load` validates.
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

import yaml

from swarm.errors import SwarmError, nearest

MAX_BYTES = 1_000_000
MAX_NODES = 20_000
MAX_DEPTH = 32
MAX_PROBLEMS = 10

KeyPath = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"


class _CoreLoader(yaml.SafeLoader):
    """SafeLoader with the scalars of the YAML 1.2 core schema: no `yes` booleans, octals or dates."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own way to replace the inherited table


_SCALARS: dict[str, tuple[str, list[str], Callable[[str], Any]]] = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""], lambda _: None),
    "bool": (
        r"true|True|TRUE|false|False|FALSE",
        list("tTfF"),
        lambda text: {"true": True, "false": False}[text.lower()],
    ),
    "int": (
        r"[-+]?[0-9]+|0x[0-9a-fA-F]+",
        list("-+0123456789"),
        lambda text: int(text, 16 if text.startswith("0x") else 10),
    ),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
        lambda text: float(re.sub(r"\.(?=inf|nan)", "", text.lower())),
    ),
}
"""Tag -> what a scalar of it looks like, the characters that it may begin with, and what reads it."""

for _name, (_pattern, _first, _) in _SCALARS.items():
    _CoreLoader.add_implicit_resolver(_TAG + _name, re.compile(f"^(?:{_pattern})$"), _first)


@dataclass(slots=True)
class Document:
    """Plain data, where each key of it came from, and what is wrong with it.

    Attributes:
        label: names the file, or the override, in messages.
        origins: path of a key -> its place among the problems, and what a message about it begins with: a line of the
            file, or the override that set it.
        problems: (place, line for the user).
    """

    label: str
    data: dict[str, Any] = field(default_factory=dict)
    origins: dict[KeyPath, tuple[int, str]] = field(default_factory=dict)
    problems: list[tuple[int, str]] = field(default_factory=list)
    _num_nodes: int = 0

    def complain(self, path: KeyPath, message: str) -> None:
        """Note a problem, marked with the origin of the nearest known key at or above `path`."""
        paths = (path[:length] for length in range(len(path), 0, -1))
        place, origin = next((self.origins[known] for known in paths if known in self.origins), (0, self.label))
        self.problems.append((place, f"{origin}: {message}"))

    def error(self) -> SwarmError:
        """Return one error that lists the problems in the order of the file, at most `MAX_PROBLEMS` of them."""
        unique = list(dict.fromkeys(text for _, text in sorted(self.problems, key=itemgetter(0))))
        more = [f"... and {len(unique) - MAX_PROBLEMS} more"] if len(unique) > MAX_PROBLEMS else []
        return SwarmError("\n".join([*unique[:MAX_PROBLEMS], *more]))

    def build(self, node: yaml.Node, path: KeyPath = ()) -> Any:
        """Return nodes as plain data with their lines as origins; whatever is not plain becomes a problem."""
        # Aliases are expanded here, so this count stops an alias bomb, and the depth a self-reference.
        self._num_nodes += 1
        if self._num_nodes > MAX_NODES:
            raise SwarmError(f"{self.label}: more than {MAX_NODES} values once its aliases are expanded")
        if len(path) > MAX_DEPTH:
            raise SwarmError(f"{self._mark(node)[1]}: nested too deeply (more than {MAX_DEPTH} levels)")
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            self.origins |= {(*path, index): self._mark(item) for index, item in enumerate(node.value)}
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        kind = node.tag.removeprefix(_TAG)
        if not isinstance(node, yaml.ScalarNode) or kind not in ("str", *_SCALARS):
            return self._refuse(node, f"the tag {node.tag.replace(_TAG, '!!')} is not allowed; write plain values")
        if not _is_text(node.value):
            return self._refuse(node, f"{shown(node.value)} holds a zero byte or half a character")
        try:
            value = node.value if kind == "str" else _SCALARS[kind][2](node.value)
        except (ValueError, KeyError):
            wrong = "neither true nor false" if kind == "bool" else "not a number that can be read"
            return self._refuse(node, f"{shown(node.value)} is {wrong}")
        if isinstance(value, float) and not math.isfinite(value):
            return self._refuse(node, f"{node.value} is not a finite number")
        if isinstance(value, int) and value.bit_length() > 64:
            return self._refuse(node, f"{shown(node.value)} is too large a number")
        return value

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode):
                self._refuse(key_node, "a key must be plain text")
            elif not _is_text(key):
                self._refuse(key_node, f"the key {shown(key)} holds a zero byte or half a character")
            elif key == "<<":
                self._refuse(key_node, "merge keys (<<) are not supported; write the keys out")
            elif key in data:
                first = self.origins[(*path, key)][0]
                self._refuse(key_node, f"the key '{key}' is given twice (first in line {first}); keep one")
            else:
                self.origins[(*path, key)] = self._mark(key_node)
                data[key] = self.build(value_node, (*path, key))
        return data

    def _refuse(self, node: yaml.Node, message: str) -> None:
        line, origin = self._mark(node)
        self.problems.append((line, f"{origin}: {message}"))

    def _mark(self, node: yaml.Node) -> tuple[int, str]:
        line = node.start_mark.line + 1
        return line, f"{self.label}:{line}"


def _is_text(value: str) -> bool:
    """Return whether a file or a path can hold it: YAML's escapes can write more."""
    return "\0" not in value and not any("\ud800" <= char <= "\udfff" for char in value)


def read_document(path: Path, overrides: Sequence[str] = ()) -> Document:
    """Read one YAML mapping and set dotted keys in it; an override that cannot be set is a problem of the document.

    Raises:
        SwarmError: it is missing, unreadable, too large, empty, not YAML, or holds what is refused here.
    """
    document = Document(str(path))
    node = _compose(_read_text(path), document.label)
    if node is None or (isinstance(node, yaml.ScalarNode) and not node.value):
        raise SwarmError(f"{path}: the file is empty; it needs keys such as `world:` or `name:`")
    if not isinstance(node, yaml.MappingNode):
        raise SwarmError(f"{document._mark(node)[1]}: the file must be a mapping of keys to values, such as `seed: 1`")
    document.data = document.build(node)
    if document.problems:
        raise document.error()
    for text in overrides:
        try:
            _apply_override(document, text)
        except SwarmError as error:
            document.problems.append((-1, str(error)))
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
    if near := nearest(path.name, files) or next((name for name in files if Path(name).stem == path.stem), None):
        return f"; did you mean {files[near]}?"
    return f"; {folder} has {', '.join(list(files)[:8])}" if files else ""


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
    except (ValueError, OverflowError) as error:  # an escape of no character, or a directive with a huge number
        raise SwarmError(f"{label}: not valid YAML: {error}") from None


def _yaml_reason(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "not valid YAML"
    if "\\t" in problem:
        return "a tab is used for indentation; use spaces"
    if "but found another document" in problem or "expected a single document" in (error.context or ""):
        return "a second document (`---`) starts here; keep one experiment per file"
    return f"not valid YAML: {error.context + ', ' if error.context else ''}{problem}"


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
            document.origins[tuple(keys[:depth])] = (-1, origin)
        elif not isinstance(inner, dict):
            raise SwarmError(f"{origin}: '{whole}' is a single value and holds no keys")
        target = inner
    path = tuple(keys)
    target[keys[-1]] = value
    document.origins = {known: mark for known, mark in document.origins.items() if known[: len(path)] != path}
    document.origins[path] = (-1, origin)


def _override_value(raw: str, label: str) -> Any:
    try:
        node = _compose(raw, label)
    except SwarmError:
        raise SwarmError(f"{label}: the value is not valid YAML; quote it or write a plain value") from None
    if node is None:
        return None
    if isinstance(node, yaml.MappingNode):
        raise SwarmError(f"{label}: set single values or lists, one key at a time")
    override = Document(label)
    value = override.build(node)
    if override.problems:
        raise SwarmError(override.problems[0][1].replace(f"{label}:1:", f"{label}:"))
    return value


def shown(value: Any) -> str:
    """Return a value as the user wrote it, cut to a readable length."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
