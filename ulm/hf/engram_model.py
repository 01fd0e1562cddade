"""Engram for any causal language model of transformers, handled as PEFT handles adapters.

- `add_engram(model, EngramConfig(...), tokenizer)` leaves the model's modules and weights as they are: the learned
  tier is added to the input of chosen blocks and the exact tier to the logits, by hooks.
- What decoding needs of the past lies in the KV cache (`ulm.hf.engram_cache`), so steps, chunks, left padding and
  beams equal the full forward pass.
- Several adapters may be there by name, one is active; beside them PEFT's own adapters (LoRA) work as usual.
- Writes adapter_config.json, adapter_model.safetensors and memory.sqlite; refuses what does not fit to the last key.

Axes: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import tokenizers
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ulm.hf.engram_cache import EngramCacheLayer, engram_layer
from ulm.memory.engram import EngramConfig, EngramTables
from ulm.memory.exact import ExactMemory, recall
from ulm.memory.ngrams import NOTHING, compressed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["EngramAdapter", "EngramModel", "add_engram"]

FORMAT = 1
_CONFIG, _WEIGHTS, _FACTS, _TABLE = "adapter_config.json", "adapter_model.safetensors", "memory.sqlite", "table_{}.npy"


def add_engram(
    model: nn.Module,
    config: EngramConfig | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    adapter_name: str = "default",
    *,
    facts: Path | None = None,
) -> EngramModel:
    """Give a causal language model an Engram; its own weights are frozen, as PEFT does.

    Args:
        model: of transformers, or one that PEFT has wrapped.
        config: what the memory consists of; the default is the exact tier alone.
        tokenizer: the model's own.
        adapter_name: what it is called.
        facts: SQLite file of the exact tier; None keeps facts in memory until they are saved.

    Raises:
        ValueError: the model has no such blocks, or the tokenizer is not of a kind that fits.
    """
    wrapped = model if isinstance(model, EngramModel) else EngramModel(model, tokenizer)
    wrapped.add_adapter(adapter_name, config or EngramConfig(), facts=facts)
    return wrapped


class EngramAdapter(nn.Module):
    """One memory: its learned tables, if any, and its facts, if any.

    Args:
        config: what it consists of.
        vocabulary: of the model.
        d_model: width of the model.
        facts: SQLite file of the exact tier; None keeps facts in memory.
    """

    def __init__(self, config: EngramConfig, vocabulary: Vocabulary, d_model: int, facts: Path | None) -> None:
        super().__init__()
        self.config = config
        self.tables: EngramTables | None = None
        if config.layers:
            self.tables = EngramTables(config, vocabulary.numbers(config.compress), d_model)
        self.memory: ExactMemory | None = None
        if config.exact:
            end = (vocabulary.end_id,) if config.terminate and vocabulary.end_id is not None else ()
            self.memory = ExactMemory(vocabulary.encode, vocabulary.digest, facts, end, config.conflicts)

    @property
    def reaches(self) -> list[int]:
        """How many inputs each convolution looks back."""
        return [] if self.tables is None else [layer.reach for layer in self.tables]


class Vocabulary:
    """What an Engram wants to know of a tokenizer.

    Args:
        tokenizer: of transformers, one that `tokenizers` does the work for.
        size: tokens that the model knows; those that the tokenizer lacks are never compressed.

    Raises:
        ValueError: there is none, or it is of another kind.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase | None, size: int) -> None:
        inner = getattr(tokenizer, "backend_tokenizer", None)
        if tokenizer is None or inner is None:
            raise ValueError(
                "an Engram needs the model's fast tokenizer: add_engram(model, config, tokenizer=AutoTokenizer."
                "from_pretrained(...))"
            )
        if inner.get_vocab_size() > size:
            raise ValueError(
                f"the tokenizer has {inner.get_vocab_size()} tokens and the model {size}: they do not belong together"
            )
        self.tokenizer = tokenizer
        self.size = size
        self.end_id: int | None = tokenizer.eos_token_id
        self._inner: tokenizers.Tokenizer = inner
        parts = json.loads(inner.to_str())
        kept = {name: parts.get(name) for name in ("added_tokens", "normalizer", "pre_tokenizer", "model")}
        self.digest = hashlib.blake2b(json.dumps(kept, sort_keys=True).encode(), digest_size=8).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Return a text's tokens; markers such as those of a chat template count as such."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def numbers(self, compress: bool) -> list[int]:
        """Return a number per token: the same for tokens that differ in case, accents or spacing alone."""
        if not compress:
            return list(range(self.size))
        texts = [self._inner.decode([i], skip_special_tokens=False) for i in range(self._inner.get_vocab_size())]
        numbers = compressed(texts)
        first = max(numbers) + 1
        return numbers + list(range(first, first + self.size - len(numbers)))


@dataclass(slots=True)
class _Reading:
    """What the hooks of one forward pass share: all tokens, those that are new, and where they come from."""

    ids_BT: Tensor
    new: int
    real_BT: Tensor | None
    past: EngramCacheLayer | None


class EngramModel(nn.Module):
    """A causal language model with an Engram.

    Args:
        base_model: of transformers, or wrapped by PEFT.
        tokenizer: its tokenizer.

    Attributes:
        adapters: by name.
        gates: after a forward pass, the gates of each learned layer, (B, T).
    """

    def __init__(self, base_model: nn.Module, tokenizer: PreTrainedTokenizerBase | None) -> None:
        super().__init__()
        causal = _causal_model(base_model)
        self.base_model = base_model
        text = causal.config.get_text_config(decoder=True)
        self.vocabulary = Vocabulary(tokenizer, text.vocab_size)
        self.blocks_name, blocks = _blocks(causal, text.num_hidden_layers)
        self.num_blocks = len(blocks)
        self.d_model = int(text.hidden_size)
        self.adapters = nn.ModuleDict()
        self.active_adapter: str | None = None
        self.gates: dict[int, Tensor] = {}
        self._enabled = True
        self._reading: _Reading | None = None
        self._signature = inspect.signature(causal.forward)
        if not hasattr(base_model, "peft_config"):  # PEFT has frozen what it does not train
            base_model.requires_grad_(False)
        causal.register_forward_pre_hook(self._before, with_kwargs=True)
        causal.register_forward_hook(self._after, with_kwargs=True, always_call=True)
        for number, block in enumerate(blocks):
            block.register_forward_pre_hook(_block_hook(self, number), with_kwargs=True)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base_model":  # not there yet
                raise
            return getattr(self.base_model, name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model with the active memory; arguments and results are the model's own."""
        return self.base_model(*args, **kwargs)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Generate with the active memory, as transformers does."""
        return self.base_model.generate(*args, **kwargs)  # type: ignore[operator]

    @property
    def adapter(self) -> EngramAdapter:
        """The active adapter.

        Raises:
            ValueError: there is none.
        """
        if self.active_adapter is None:
            raise ValueError("this model has no Engram; add one with add_adapter")
        return self._named(self.active_adapter)

    @property
    def memory(self) -> ExactMemory:
        """The facts of the active adapter.

        Raises:
            ValueError: its exact tier is off.
        """
        if self.adapter.memory is None:
            raise ValueError(f"the exact tier of adapter {self.active_adapter!r} is off (exact=False)")
        return self.adapter.memory

    def add_adapter(self, name: str, config: EngramConfig, *, facts: Path | None = None) -> None:
        """Add a memory and make it the active one.

        Raises:
            ValueError: the name is taken, or the model has no such blocks.
        """
        if name in self.adapters:
            raise ValueError(f"there is an adapter {name!r} already; delete it, or take another name")
        if config.layers and config.layers[-1] >= self.num_blocks:
            raise ValueError(
                f"engram: no block {config.layers[-1]} in {self.blocks_name}, which has blocks 0 to "
                f"{self.num_blocks - 1}"
            )
        adapter = EngramAdapter(config, self.vocabulary, self.d_model, facts)
        self.adapters[name] = adapter.to(next(self.base_model.parameters()).device)
        self.set_adapter(name)

    def delete_adapter(self, name: str) -> None:
        """Remove a memory; its file of facts, if it has one, stays."""
        if (memory := self._named(name).memory) is not None:
            memory.close()
        del self.adapters[name]
        if self.active_adapter == name:
            self.active_adapter = next(iter(self.adapters), None)

    def set_adapter(self, name: str) -> None:
        """Make a memory the active one, the only one that is trained."""
        self._named(name)
        self.active_adapter = name
        for other, adapter in self.adapters.items():
            adapter.requires_grad_(other == name)

    def _named(self, name: str) -> EngramAdapter:
        if name not in self.adapters:
            raise ValueError(f"there is no adapter {name!r}; there are: {', '.join(self.adapters) or 'none'}")
        return cast("EngramAdapter", self.adapters[name])

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Run the model without its memory inside a `with` block."""
        before, self._enabled = self._enabled, False
        try:
            yield
        finally:
            self._enabled = before

    def get_nb_trainable_parameters(self) -> tuple[int, int]:
        """Return how many parameters are trained, and how many there are."""
        parameters = list(self.parameters())
        return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)

    def print_trainable_parameters(self) -> None:
        """Print how many parameters are trained."""
        trained, every = self.get_nb_trainable_parameters()
        print(f"trainable params: {trained:,} || all params: {every:,} || trainable%: {100 * trained / every:.4f}")  # noqa: T201

    # ------------------------------------------------------------------ reading

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._reading = None
        self.gates = {}
        if not self._enabled or self.active_adapter is None:
            return None
        given = self._signature.bind_partial(*args, **kwargs).arguments
        ids_BT = given.get("input_ids")
        if ids_BT is None:
            raise ValueError("an Engram reads input_ids; with inputs_embeds alone use disable_adapter()")
        cache, mask = given.get("past_key_values"), given.get("attention_mask")
        if mask is not None and (not isinstance(mask, Tensor) or mask.dim() != 2):
            raise ValueError("an Engram needs attention_mask as (batch, tokens); do not set cache_implementation")
        wanted = given.get("use_cache")
        if cache is None and (module.config.use_cache if wanted is None else wanted) and not module.training:  # type: ignore[union-attr]
            from transformers import DynamicCache

            kwargs["past_key_values"] = cache = DynamicCache(config=module.config)
        new = ids_BT.shape[1]
        real_BT = None
        if mask is not None:
            real_BT = mask[:, mask.shape[1] - new :].bool()
            real_BT = None if bool(real_BT.all()) else real_BT
        marked_BT = ids_BT if real_BT is None else ids_BT.masked_fill(~real_BT, NOTHING)
        past = None if cache is None else engram_layer(cache, self.adapter.reaches, self.num_blocks)
        if past is not None:
            marked_BT = past.extend_ids(marked_BT)
        self._reading = _Reading(marked_BT, new, real_BT, past)
        return args, kwargs

    def _before_block(self, number: int, x_BTC: Tensor) -> Tensor | None:
        """Return the input of a block with what the learned tier adds, None where nothing is added."""
        reading, adapter = self._reading, None if self.active_adapter is None else self.adapter
        if reading is None or adapter is None or adapter.tables is None or number not in adapter.config.layers:
            return None
        tables, index = adapter.tables, adapter.config.layers.index(number)
        rows = tables.hash(reading.ids_BT, reading.new, index)
        tail = None if reading.past is None else reading.past.tail(index)
        added_BTC, gate_BT, line = tables[index](x_BTC, rows, reading.real_BT, tail)
        if reading.past is not None:
            reading.past.extend_tail(index, line)
        self.gates[number] = gate_BT.detach()
        changed: Tensor = x_BTC + added_BTC
        return changed

    def _after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        reading, self._reading = self._reading, None
        if output is None or reading is None or self.adapter.memory is None or not len(self.adapter.memory):
            return output
        logits_BTV = output.logits if hasattr(output, "logits") else output[0]
        keep = kwargs.get("logits_to_keep", 0)
        last = reading.new if isinstance(keep, Tensor) else logits_BTV.shape[1]
        next_BT = self.memory.index.following(reading.ids_BT.cpu().numpy(), last)
        if isinstance(keep, Tensor):
            next_BT = next_BT[:, keep.cpu().numpy()]
        changed = recall(logits_BTV, next_BT, self.adapter.config.certainty)
        if changed is logits_BTV:
            return output
        if not hasattr(output, "logits"):
            raise ValueError("an Engram needs return_dict=True")
        output.logits = changed
        labels = self._signature.bind_partial(*args, **kwargs).arguments.get("labels")
        if labels is not None:
            output.loss = module.loss_function(logits=changed, labels=labels, vocab_size=changed.shape[-1])  # type: ignore[operator]
        return output

    # ------------------------------------------------------------------ files

    def save_pretrained(self, folder: str | Path, selected_adapters: Sequence[str] | None = None) -> None:
        """Write adapters: the one called `default` into the folder itself, others into folders of their names.

        Raises:
            ValueError: there is no such adapter.
        """
        for name in selected_adapters or list(self.adapters):
            adapter = self._named(name)
            place = Path(folder) if name == "default" else Path(folder) / name
            place.mkdir(parents=True, exist_ok=True)
            weights = {key: tensor.detach().cpu().contiguous() for key, tensor in adapter.state_dict().items()}
            save_file(weights, place / _WEIGHTS)
            if adapter.tables is not None and adapter.config.table == "disk":
                for i, layer in enumerate(adapter.tables):
                    layer.table.save_file(place / _TABLE.format(i))
            if adapter.memory is not None:
                adapter.memory.copy_to(place / _FACTS)
            about = {
                "format": FORMAT,
                "kind": "engram",
                "tokenizer": self.vocabulary.digest,
                "d_model": self.d_model,
                "blocks": self.num_blocks,
                "vocab_size": self.vocabulary.size,
                "engram": adapter.config.to_dict(),
            }
            (place / _CONFIG).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(
        cls,
        model: nn.Module,
        folder: str | Path,
        tokenizer: PreTrainedTokenizerBase | None = None,
        adapter_name: str = "default",
    ) -> EngramModel:
        """Add what `save_pretrained` wrote to a model, or to one that has memories already.

        Raises:
            ValueError: a file is missing, damaged or of another version, or the memory was made for another
                tokenizer, another width or other hashes.
        """
        wrapped = model if isinstance(model, EngramModel) else cls(model, tokenizer)
        wrapped.load_adapter(folder, adapter_name)
        return wrapped

    def load_adapter(self, folder: str | Path, adapter_name: str) -> None:
        """Add what `save_pretrained` wrote under a name; errors as of `from_pretrained`."""
        folder = Path(folder)
        about = _read_about(folder)
        config = EngramConfig.from_dict(about["engram"])
        mine = {
            "tokenizer": self.vocabulary.digest,
            "d_model": self.d_model,
            "blocks": self.num_blocks,
            "vocab_size": self.vocabulary.size,
        }
        if other := [f"{key} {about.get(key)}, here {value}" for key, value in mine.items() if about.get(key) != value]:
            raise ValueError(f"the Engram in {folder} was made for another model or tokenizer: {'; '.join(other)}")
        try:
            weights = load_file(folder / _WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"cannot read {folder / _WEIGHTS}: {error}") from error
        self.add_adapter(adapter_name, config)
        try:
            self._fill(self.adapter, weights, folder)
        except ValueError:
            self.delete_adapter(adapter_name)
            raise

    def _fill(self, adapter: EngramAdapter, weights: dict[str, Tensor], folder: Path) -> None:
        own = adapter.state_dict()
        wrong = [
            f"{key}: " + ("missing" if key not in weights else "unknown" if key not in own else "another shape")
            for key in sorted(set(own) | set(weights))
            if key not in weights or key not in own or weights[key].shape != own[key].shape
        ]
        # Hashes are buffers: with others the tables would be read at the wrong places.
        wrong += [
            f"{key}: other values"
            for key in own
            if key.startswith("tables.hash.") and key in weights and not torch.equal(own[key].cpu(), weights[key])
        ]
        if wrong:
            raise ValueError(f"the Engram in {folder} does not fit its configuration: {'; '.join(wrong)}")
        adapter.load_state_dict(weights)
        if adapter.tables is not None and adapter.config.table == "disk":
            for i, layer in enumerate(adapter.tables):
                layer.table.map_file(folder / _TABLE.format(i))
        if adapter.memory is not None:
            if not (folder / _FACTS).is_file():
                raise ValueError(f"the Engram in {folder} has no {_FACTS}")
            adapter.memory.copy_from(folder / _FACTS)


def _read_about(folder: Path) -> dict[str, Any]:
    file = folder / _CONFIG
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"there is no Engram in {folder}: {_CONFIG} is missing") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {file}: {error}") from error
    if not isinstance(about, dict) or about.get("kind") != "engram":
        raise ValueError(f"{file} describes no Engram; PEFT's own adapters load with PeftModel.from_pretrained")
    if about.get("format") != FORMAT:
        raise ValueError(f"{file} has format {about.get('format')}, this version reads {FORMAT}")
    return about


def _causal_model(model: nn.Module) -> PreTrainedModel:
    """Return the causal language model inside wrappers such as PEFT's."""
    from transformers import PreTrainedModel

    for module in model.modules():
        if isinstance(module, PreTrainedModel) and module.can_generate():
            return module
    raise ValueError(f"an Engram needs a causal language model of transformers, got {type(model).__name__}")


def _blocks(causal: PreTrainedModel, count: int) -> tuple[str, nn.ModuleList]:
    """Return the list of decoder blocks and its name."""
    lists = {name: module for name, module in causal.named_modules() if isinstance(module, nn.ModuleList)}
    for name, found in lists.items():
        if len(found) == count:
            return name, found
    there = ", ".join(f"{name} ({len(found)})" for name, found in lists.items()) or "none"
    raise ValueError(f"found no list of {count} blocks in {type(causal).__name__}; lists of modules there: {there}")


def _block_hook(owner: EngramModel, number: int) -> Any:
    def before(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x_BTC = args[0] if args else kwargs["hidden_states"]
        changed = owner._before_block(number, x_BTC)
        if changed is None:
            return None
        return ((changed, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": changed})

    return before
