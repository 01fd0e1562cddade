"""Pretrained models as users name them: where their files are, what identifies them, and how they chat.

Owns the way from a name in a YAML file to a folder that every engine loads, and the checks that can be made before one
does. Never downloads during a run what `swarm models fetch` was meant to get, but for names of the hub, which are taken
from its cache or fetched once. It refuses to know engines.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from swarm.backends.thoughts import is_mark
from swarm.errors import SwarmError, first_line
from swarm.files import path_in, read_text
from swarm.process import machine
from swarm.text import without
from ulm.files import sha256
from ulm.tokenizer import Tokenizer

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_WANTED = ["*.json", "*.safetensors", "*.jinja", "*.model"]
"""Files of a model on the hub."""

DATE = datetime(2025, 1, 1)  # noqa: DTZ001 - templates format it, and know no time zones
"""What templates that ask for today's date are told."""

_DECIDES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
"""Files that decide what a model says, beside its weights; licences and cards do not."""


def chat_messages(system: str | None, prompt: str, marks: re.Pattern[str]) -> list[dict[str, str]]:
    """Return a chat of one question, without what opens or closes a message: what agents write may do neither."""
    said = [("system", system), ("user", prompt)] if system else [("user", prompt)]
    return [{"role": role, "content": without(text, marks)} for role, text in said]


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """How a model wants a chat to be written.

    Attributes:
        template: Jinja source, as transformers has it.
        special: texts of its added tokens; nobody may write them into a message.
        names: special tokens that templates use by name, such as `bos_token`.
        has_system: whether it knows system messages; otherwise the user's message begins with what they would say.
        arguments: what the template is told beside the messages (`engine.chat_template_kwargs`).
    """

    template: str
    special: tuple[str, ...]
    names: dict[str, str]
    has_system: bool = True
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def render(self, system: str, prompt: str) -> str:
        """Return the text of a chat of one question, up to where the answer begins.

        Templates that write today's date are told DATE, for a run must read the same on another day.
        """
        from transformers.utils.chat_template_utils import render_jinja_template

        if system and not self.has_system:
            system, prompt = "", f"{system}\n\n{prompt}"
        messages = chat_messages(system, prompt, re.compile("|".join(map(re.escape, self.special))))
        date = {"strftime_now": DATE.strftime, "date_string": DATE.strftime("%d %b %Y")}
        names = {**self.names, **date, **self.arguments}
        rendered = render_jinja_template([messages], chat_template=self.template, add_generation_prompt=True, **names)
        return str(rendered[0][0])


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model on this machine.

    Attributes:
        name: as the user wrote it.
        path: its folder: config.json, safetensors, tokenizer.json.
        chat: its chat format, None without one.
        max_length: tokens it was made for.
        ends: ids that end an answer, the one that pads first.
    """

    name: str
    path: str
    chat: ChatFormat | None
    max_length: int
    ends: tuple[int, ...]

    @property
    def marks_thoughts(self) -> bool:
        """Whether special tokens of its tokenizer part thoughts from the rest."""
        return _marks_thoughts(Tokenizer.load(self.path))

    def tokenizer(self) -> Tokenizer:
        """Return its tokenizer, which ends texts as the model does."""
        tokenizer = with_marks(Tokenizer.load(self.path))
        tokenizer.pad_id = tokenizer.eot_id = self.ends[0]
        return tokenizer


def with_marks(tokenizer: Tokenizer) -> Tokenizer:
    """Return the tokenizer, or one whose texts keep the marks around thoughts where those are special tokens."""
    if not _marks_thoughts(tokenizer):
        return tokenizer
    data = json.loads(tokenizer.to_json())
    for token in data["added_tokens"]:
        token["special"] &= not is_mark(token["content"])
    return Tokenizer.from_json(json.dumps(data))


def _marks_thoughts(tokenizer: Tokenizer) -> bool:
    return any(
        token.special and is_mark(token.content) for token in tokenizer.inner.get_added_tokens_decoder().values()
    )


def find_model(name: str, base_dir: Path) -> Path:
    """Return the folder of a pretrained model.

    Args:
        name: a short name of `swarm models list`, a folder or a GGUF file (relative to `base_dir`), or a name of the
            Hugging Face hub.
        base_dir: folder of the YAML file.

    Raises:
        SwarmError: there is no such model here, and how to get it.
    """
    from ulm.hf.pretrained import KNOWN, fetched, from_gguf

    path = path_in(base_dir, name)
    if path.is_file():
        if path.suffix != ".gguf":
            raise SwarmError(f"model {name} is a file, but no .gguf; name a folder with config.json and safetensors")
        try:
            return from_gguf(path, machine.memory_bytes())
        except ValueError as error:
            raise SwarmError(str(error)) from error
    if path.is_dir():
        return path
    if name in KNOWN:
        if (folder := fetched(name)) is None:
            raise SwarmError(f"model {name} is not on this machine; get it with: swarm models fetch {name}")
        return folder
    if not _HUB_NAME.fullmatch(name):
        raise SwarmError(
            f"no model {name!r}: there is no such folder or GGUF file at {path}, and it is neither a name of the hub "
            f"(owner/name) nor one of {', '.join(KNOWN)}"
        )
    if (here := _from_cache(name)) is not None:  # it stays what it was, whatever the hub has by now
        return here
    try:
        return _snapshot(name)
    except Exception as error:
        raise SwarmError(
            f"no model {name!r}: there is no folder {path}, and the hub does not give it ({first_line(error)[:150]}); "
            f"check the name and the network, or give the path of a folder"
        ) from error


def find_here(name: str, base_dir: Path) -> Path | None:
    """Return the folder as `find_model` does, None where it would have to be fetched.

    Raises:
        SwarmError: it is a file that cannot be read.
    """
    from ulm.hf.pretrained import KNOWN, fetched

    if path_in(base_dir, name).exists():
        return find_model(name, base_dir)
    return fetched(name) if name in KNOWN else _from_cache(name)


def _snapshot(name: str, **settings: Any) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, allow_patterns=_WANTED, **settings))


def _from_cache(name: str) -> Path | None:
    with contextlib.suppress(Exception):
        return _snapshot(name, local_files_only=True)
    return None


def open_model(name: str, folder: Path, arguments: Mapping[str, Any] = MappingProxyType({})) -> ModelFolder:
    """Read what is needed to write prompts for a model.

    Args:
        name: as the user wrote it.
        folder: its files.
        arguments: what its chat template is told beside the messages.

    Raises:
        SwarmError: files are missing or damaged, or the template cannot be rendered.
    """
    config = _json(name, folder / "config.json")
    if not list(folder.glob("*.safetensors")):
        raise SwarmError(f"model {name}: no *.safetensors in {folder}; only safetensors are loaded")
    if not (folder / "tokenizer.json").is_file():
        raise SwarmError(f"model {name}: no tokenizer.json in {folder}")
    if "model_type" not in config:
        raise SwarmError(f"model {name}: {folder / 'config.json'} names no model_type, as transformers' configs do")
    length = config.get("max_position_embeddings")
    length = length if isinstance(length, int) else 1 << 20
    return ModelFolder(name, str(folder), _chat(name, folder, dict(arguments)), length, _ends(name, folder, config))


def _ends(name: str, folder: Path, config: dict[str, Any]) -> tuple[int, ...]:
    """Return the ids that end an answer, as generation_config.json, config.json or the tokenizer name them."""
    for source in (_json(name, folder / "generation_config.json", needed=False), config):
        ids = source.get("eos_token_id")
        ids = ids if isinstance(ids, list) else [ids]
        if ids and all(type(i) is int for i in ids):
            return tuple(ids)
    token = _token(_json(name, folder / "tokenizer_config.json", needed=False).get("eos_token"))
    added = _json(name, folder / "tokenizer.json").get("added_tokens", [])
    if found := [t["id"] for t in added if t.get("content") == token]:
        return tuple(found)
    raise SwarmError(f"model {name}: neither its configs nor its tokenizer in {folder} name a token that ends a text")


def _chat(name: str, folder: Path, arguments: dict[str, Any]) -> ChatFormat | None:
    config = _json(name, folder / "tokenizer_config.json", needed=False)
    jinja = folder / "chat_template.jinja"
    template = read_text(f"model {name}", jinja) if jinja.is_file() else config.get("chat_template")
    if isinstance(template, list):  # several by name
        template = next((t["template"] for t in template if t.get("name") == "default"), None)
    if not isinstance(template, str):
        return None
    added = _json(name, folder / "tokenizer.json").get("added_tokens", [])
    special = tuple(sorted((t["content"] for t in added), key=len, reverse=True))
    tokens = {key: _token(config.get(key)) for key in ("bos_token", "eos_token", "unk_token", "pad_token")}
    names = {key: text for key, text in tokens.items() if isinstance(text, str)}
    chat = ChatFormat(template, special, names, arguments=arguments)
    with contextlib.suppress(Exception):  # templates without system messages say so, in words of their own
        chat.render("a", "b")
        return chat
    chat = replace(chat, has_system=False)
    try:
        chat.render("a", "b")
    except Exception as error:
        raise SwarmError(f"model {name}: its chat template cannot be rendered ({error})") from error
    return chat


def _token(value: Any) -> Any:
    """Return the text of a token as tokenizer_config.json has it: alone, or with its properties."""
    return value.get("content") if isinstance(value, dict) else value


def _json(name: str, file: Path, *, needed: bool = True) -> dict[str, Any]:
    if not needed and not file.is_file():
        return {}
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SwarmError(f"model {name}: no {file.name} in {file.parent}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise SwarmError(f"model {name}: cannot read {file}: {error}") from error
    if not isinstance(data, dict):
        raise SwarmError(f"model {name}: {file} is no JSON object")
    return data


def folder_hash(folder: Path) -> str:
    """Return the hex SHA-256 of all files that decide what a model says, weights and adapters included."""
    digest = hashlib.sha256()
    names = {*_DECIDES, "adapter_config.json"} & {file.name for file in folder.iterdir()}
    for name in sorted(names | {file.name for file in folder.glob("*.safetensors")}):
        digest.update(f"{name} {sha256(folder / name)}\n".encode())
    return digest.hexdigest()
