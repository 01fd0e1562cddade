"""Engram for any causal language model of transformers, handled as PEFT handles adapters.

- `add_engram(model, EngramConfig(...), tokenizer)` leaves the model's modules and weights as they are: the learned
  tier is added to the input of chosen blocks and the exact tier to the logits, by hooks.
- What decoding needs of the past lies in the KV cache (`ulm.engram.cache`), so steps, chunks, left padding and
  beams equal the full forward pass.
- Several adapters may be there by name, one is active; beside them PEFT's own adapters (LoRA) work as usual.
- With the content tier, `generate` also answers prompts that say a stored key in other words: for that call, the whole
  prompt is one more key of the fact that it means.
- Files are `ulm.engram.files`, what one memory consists of is `ulm.engram.adapter`.

Axes: B rows, T tokens, V vocabulary.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import DynamicCache, PreTrainedTokenizerBase

from ulm.engram.adapter import EngramAdapter, Vocabulary
from ulm.engram.blocks import causal_model, decoder_blocks
from ulm.engram.cache import EngramCacheLayer, engram_layer
from ulm.engram.features import ContentTier, text_features
from ulm.engram.files import fill_adapter, read_about, write_adapter
from ulm.engram.tables import EngramConfig, EngramTables
from ulm.hf.llama import to_fast_tokenizer, to_mistral
from ulm.memory.exact import ExactIndex, ExactMemory, recall
from ulm.memory.fact_store import Fact
from ulm.memory.ngrams import NOTHING
from ulm.model import Decoder
from ulm.tokenizer import Tokenizer

_MARK = "_has_engram"
"""Attribute of a causal model that has our hooks."""


def add_engram(
    model: nn.Module,
    config: EngramConfig | None = None,
    tokenizer: PreTrainedTokenizerBase | Tokenizer | None = None,
    adapter_name: str = "default",
    *,
    facts: str | Path | None = None,
) -> "EngramModel":
    """Give a causal language model an Engram; its own weights are frozen, as PEFT does.

    Args:
        model: of transformers, one that PEFT has wrapped, or a µLM, which is exported first (`to_mistral`).
        config: what the memory consists of; the default is the exact tier alone.
        tokenizer: the model's own.
        adapter_name: what it is called.
        facts: SQLite file of the exact tier; None keeps facts in memory until they are saved.

    Raises:
        ValueError: the model has no such blocks, the tokenizer is not of a kind that fits, or a µLM has a long-term
            memory, which an export would lose.
    """
    if isinstance(tokenizer, Tokenizer):
        if isinstance(model, Decoder):
            model = to_mistral(model, tokenizer)
        tokenizer = to_fast_tokenizer(tokenizer)
    if isinstance(model, Decoder):
        raise ValueError("a µLM comes with its own tokenizer: add_engram(model, config, tokenizer=Tokenizer.load(...))")
    wrapped = model if isinstance(model, EngramModel) else EngramModel(model, tokenizer)
    wrapped.add_adapter(adapter_name, config or EngramConfig(), facts=facts)
    return wrapped


@dataclass(slots=True)
class _Reading:
    """What the hooks of one forward pass share: memory, all tokens, those that are new, what was before, the rows."""

    adapter: EngramAdapter
    ids_BT: Tensor
    new: int
    real_BT: Tensor | None
    past: EngramCacheLayer | None
    rows_LBTH: Tensor | None


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
        causal = causal_model(base_model)
        if getattr(causal, _MARK, False):
            raise ValueError("this model has an Engram already; use its add_adapter(), or unload() it first")
        self.base_model = base_model
        text = causal.config.get_text_config(decoder=True)
        self.vocabulary = Vocabulary(tokenizer, text.vocab_size)
        self.num_blocks = len(decoder_blocks(causal, text.num_hidden_layers)[1])
        self.d_model = int(text.hidden_size)
        self.adapters = nn.ModuleDict()
        self.active_adapter: str | None = None
        self.gates: dict[int, Tensor] = {}
        self._enabled = True
        self._reading: _Reading | None = None
        self._meant = ExactIndex()
        self._signature = inspect.signature(causal.forward)
        if not hasattr(base_model, "peft_config"):  # PEFT has frozen what it does not train
            base_model.requires_grad_(False)
        setattr(causal, _MARK, True)
        self._hooks: dict[str | int, RemovableHandle] = {
            "before": causal.register_forward_pre_hook(self._before, with_kwargs=True),
            "after": causal.register_forward_hook(self._after, with_kwargs=True, always_call=True),
        }

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
        ids_BT = args[0] if args else kwargs.get("inputs", kwargs.get("input_ids"))
        active = self._enabled and self.active_adapter is not None
        if active and self.adapter.content is not None and isinstance(ids_BT, Tensor):
            self._look_up(ids_BT, kwargs.get("attention_mask"))
        try:
            return self.base_model.generate(*args, **kwargs)  # type: ignore[operator]
        finally:
            self._meant = ExactIndex()

    def _look_up(self, ids_BT: Tensor, mask_BT: Tensor | None) -> None:
        """Make prompts that mean a fact, and end with no key, keys of that fact."""
        real_BT = torch.ones_like(ids_BT, dtype=torch.bool) if mask_BT is None else mask_BT.bool()
        prompts = [tuple(row[real].tolist()) for row, real in zip(ids_BT, real_BT, strict=True)]
        for prompt, (fact, _) in zip(prompts, self._meanings(prompts), strict=True):
            if fact is not None:  # from its first token on: another row may end with the same words
                self._meant.add((NOTHING, *prompt), (*fact.value_ids, *self.memory.terminator))

    def _meanings(self, prompts: Sequence[Sequence[int]]) -> list[tuple[Fact | None, float]]:
        return self._content.meant(prompts, self.memory, self._features, self.vocabulary.decode)

    def meant(self, prompts: Sequence[str]) -> list[tuple[Fact | None, float]]:
        """Return which stored fact each prompt means in other words, None for none, and the log odds of the likeliest.

        Prompts that end with a key itself need no paraphrase, and give None and minus infinity.

        Raises:
            ValueError: the content tier is off, or has learned nothing yet.
        """
        return self._meanings([self.vocabulary.encode(prompt) for prompt in prompts])

    def prepopulate(self, phrases: Sequence[str], strength: float = 1.0) -> int:
        """Fill the learned tier before training: the end of a phrase adds the mean of its tokens' embeddings.

        Args:
            phrases: such as names of things; each is also found after a space.
            strength: size of what is added before the gate, in multiples of that mean.

        Returns:
            Rows that were written.

        Raises:
            ValueError: the learned tier is off, or its tables are on disk.
        """
        tables = cast("EngramTables", self._tier("tables", "learned tier", "no layers"))
        embedding_VC = causal_model(self.base_model).get_input_embeddings().weight
        lines = [self.vocabulary.encode(form) for phrase in phrases for form in (phrase, " " + phrase)]
        return tables.prepopulate([(ids, strength * embedding_VC[ids].mean(0)) for ids in lines if ids])

    def fit_content(
        self,
        texts: Sequence[str],
        groups: Sequence[object],
        unanswerable: Sequence[str],
        abstain: float = 0.95,
        topics: Sequence[object] | None = None,
    ) -> None:
        """Learn what paraphrases are, and when to abstain.

        Args:
            texts: prompts; those of a group mean the same. Facts need not be among them.
            groups: of each text.
            unanswerable: prompts that no stored fact answers, at least 20; store the facts first.
            abstain: share of them that shall be left unanswered.
            topics: of each text; those of a topic ask the same about different things, as all questions for a
                capital do. None takes the groups.

        Raises:
            ValueError: the content tier is off, or there is too little to learn from.
        """
        content, encode = self._content, self.vocabulary.encode
        read = [tuple(encode(text)) for text in texts]
        features_NF = self._features(read)
        content.fit(features_NF, texts, groups, topics)
        content.embed(self.memory, self._features, dict(zip(read, features_NF, strict=True)))
        content.calibrate(self._features([encode(text) for text in unanswerable]), unanswerable, abstain)

    def _features(self, texts: Sequence[Sequence[int]]) -> Any:
        with self.disable_adapter():
            return text_features(self.base_model, texts)

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
        return cast("ExactMemory", self._tier("memory", "exact tier", "exact=False"))

    @property
    def _content(self) -> ContentTier:
        return cast("ContentTier", self._tier("content", "content tier", "content=False"))

    def _tier(self, attribute: str, name: str, off: str) -> Any:
        if (tier := getattr(self.adapter, attribute)) is None:
            raise ValueError(f"the {name} of adapter {self.active_adapter!r} is off ({off})")
        return tier

    def add_adapter(self, name: str, config: EngramConfig, *, facts: str | Path | None = None) -> None:
        """Add a memory and make it the active one.

        Raises:
            ValueError: the name is taken, or the model has no such blocks.
        """
        if name in self.adapters:
            raise ValueError(f"there is an adapter {name!r} already; delete it, or take another name")
        place, blocks = decoder_blocks(causal_model(self.base_model), self.num_blocks)
        if config.layers and config.layers[-1] >= len(blocks):
            raise ValueError(
                f"engram: no block {config.layers[-1]} in {place}, which has blocks 0 to {len(blocks) - 1}"
            )
        for number in set(config.layers) - self._hooks.keys():  # a hook costs time even where nothing is read
            self._hooks[number] = blocks[number].register_forward_pre_hook(
                partial(self._before_block, number), with_kwargs=True
            )
        adapter = EngramAdapter(config, self.vocabulary, self.d_model, None if facts is None else Path(facts))
        self.adapters[name] = adapter.to(next(self.base_model.parameters()).device)
        self.set_adapter(name)

    def delete_adapter(self, name: str) -> None:
        """Remove a memory; its file of facts, if it has one, stays."""
        if (memory := self._named(name).memory) is not None:
            memory.close()
        del self.adapters[name]
        if self.active_adapter == name:
            self.active_adapter = None
            if self.adapters:
                self.set_adapter(next(iter(self.adapters)))

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

    def unload(self) -> nn.Module:
        """Take the memories off the model and return it; this object is of no use afterwards."""
        for hook in self._hooks.values():
            hook.remove()
        delattr(causal_model(self.base_model), _MARK)
        for name in list(self.adapters):
            self.delete_adapter(name)
        return self.base_model

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
            kwargs["past_key_values"] = cache = DynamicCache(config=module.config)
        new = ids_BT.shape[1]
        real_BT = None if mask is None else mask[:, mask.shape[1] - new :].bool()
        if real_BT is not None and real_BT.all():
            real_BT = None
        marked_BT = ids_BT if real_BT is None else ids_BT.masked_fill(~real_BT, NOTHING)
        adapter = self.adapter
        past = None
        if cache is not None:
            past = engram_layer(
                cache, adapter.number, len(adapter.config.layers), adapter.config.reach, self.num_blocks
            )
            marked_BT = past.extend_ids(marked_BT)
        rows_LBTH = None if adapter.tables is None else adapter.tables.hash(marked_BT, new)
        self._reading = _Reading(adapter, marked_BT, new, real_BT, past, rows_LBTH)
        return args, kwargs

    def _before_block(self, number: int, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Add to the input of a block what the learned tier says."""
        reading = self._reading
        if reading is None or reading.rows_LBTH is None or number not in reading.adapter.config.layers:
            return None
        index = reading.adapter.config.layers.index(number)
        layer = cast("EngramTables", reading.adapter.tables).layers[index]
        x_BTC = args[0] if args else kwargs["hidden_states"]
        tail = None if reading.past is None else reading.past.tail(index)
        added_BTC, gate_BT, line = layer(x_BTC, reading.rows_LBTH[index], reading.real_BT, tail)
        if reading.past is not None:
            reading.past.extend_tail(line)
        self.gates[number] = gate_BT.detach()
        x_BTC = x_BTC + added_BTC
        return ((x_BTC, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": x_BTC})

    def _after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        reading, self._reading = self._reading, None
        if output is None or reading is None or not reading.adapter.memory:  # off, or empty
            return output
        logits_BTV = output.logits if hasattr(output, "logits") else output[0]
        keep = kwargs.get("logits_to_keep", 0)
        last = reading.new if isinstance(keep, Tensor) else logits_BTV.shape[1]
        ids_BT = reading.ids_BT.cpu().numpy()
        next_BT = reading.adapter.memory.index.following(ids_BT, last)
        if self._meant.longest:
            whole_BT = np.pad(ids_BT, ((0, 0), (1, 0)), constant_values=NOTHING)
            next_BT = np.where(next_BT == NOTHING, self._meant.following(whole_BT, last), next_BT)
        if isinstance(keep, Tensor):
            next_BT = next_BT[:, keep.cpu().numpy()]
        changed = recall(logits_BTV, next_BT, reading.adapter.config.certainty)
        if changed is logits_BTV:
            return output
        if not hasattr(output, "logits"):
            raise ValueError("an Engram needs return_dict=True")
        output.logits = changed
        if (labels := self._signature.bind_partial(*args, **kwargs).arguments.get("labels")) is not None:
            output.loss = module.loss_function(logits=changed, labels=labels, vocab_size=changed.shape[-1])  # type: ignore[operator]
        return output

    # ------------------------------------------------------------------ files

    def _base(self) -> dict[str, Any]:
        """Return what must be the same where an adapter is loaded."""
        return {
            "tokenizer": self.vocabulary.digest,
            "d_model": self.d_model,
            "blocks": self.num_blocks,
            "vocab_size": self.vocabulary.size,
        }

    def save_pretrained(
        self, folder: str | Path, selected_adapters: Sequence[str] | None = None, *, tables_on_disk: bool = False
    ) -> None:
        """Write adapters: the one called `default` into the folder itself, others into folders of their names.

        Args:
            folder: made if it is not there.
            selected_adapters: names; None takes all.
            tables_on_disk: write tables so that they are memory-mapped where the adapter is loaded, and not trainable.

        Raises:
            ValueError: there is no such adapter.
        """
        for name in selected_adapters or list(self.adapters):
            subfolder = "" if name == "default" else name
            write_adapter(self._named(name), self._base(), Path(folder) / subfolder, tables_on_disk)

    @classmethod
    def from_pretrained(
        cls,
        model: nn.Module,
        folder: str | Path,
        tokenizer: PreTrainedTokenizerBase | None = None,
        adapter_name: str = "default",
    ) -> "EngramModel":
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
        before = self.active_adapter
        self.add_adapter(adapter_name, read_about(Path(folder), self._base()))
        try:
            fill_adapter(self.adapter, Path(folder))
        except BaseException:
            self.delete_adapter(adapter_name)
            if before is not None:
                self.set_adapter(before)
            raise
