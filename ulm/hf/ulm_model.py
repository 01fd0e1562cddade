"""A µLM with its long-term memory as a model of transformers: loads, reads, trains and generates as others do.

- Importing this module registers the class, so `AutoModelForCausalLM.from_pretrained` finds it without foreign code.
- Each row is one document. What the attention mask leaves out is not read, wherever it stands; reading is
  `ulm.streaming`'s, so logits are those of training and of play.
- `generate` is `ulm.decode.engine.Engine`'s, whose texts are token ids here: the same greedy tokens to the last one.
  What the engine lacks (beams, penalties, processors, caches of transformers) is refused, never ignored.
- Knows no tokenizer and no files.

Axes: B rows, T tokens, V vocabulary.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    GenerationMixin,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutput
from transformers.utils import ModelOutput

from ulm.config import ModelConfig
from ulm.decode.engine import Engine, GenerationRequest
from ulm.memory.state import LTMState
from ulm.model import IGNORE, Decoder
from ulm.streaming import read_document
from ulm.tokenizer import Tokenizer

_READ_OPTIONS = {"use_cache", "return_dict", "num_items_in_batch"}
"""Arguments of `forward` that change nothing here, or belong to the loss."""

_OPTIONS = {
    "do_sample", "temperature", "top_p", "max_new_tokens", "max_length", "eos_token_id", "pad_token_id", "bos_token_id",
    "return_dict_in_generate", "use_cache", "transformers_version", "_from_model_config",
    # Of assisted generation; pipelines fill them in, and without an assistant, which is refused, they mean nothing.
    "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold", "assistant_lookbehind",
    "target_lookbehind",
}  # fmt: skip
"""Options of transformers' `generate` that are understood or mean nothing here."""

_OF_SAMPLING = {"top_k", "min_p", "typical_p"}
"""Options that greedy decoding pays no heed to."""

_OFF_AT_ONE = {
    "num_beams", "num_beam_groups", "num_return_sequences", "repetition_penalty", "encoder_repetition_penalty",
    "length_penalty", "typical_p", "guidance_scale",
}  # fmt: skip
"""Options whose 1 means "not wanted"; that of others is 0."""


class UlmConfig(PretrainedConfig):  # type: ignore[misc]
    """What config.json says of a µLM: `ulm` is `ModelConfig.to_dict()`, the rest is transformers' own."""

    model_type = "ulm"
    ulm: dict[str, Any] | None = None

    @property
    def shape(self) -> ModelConfig:
        """The model's shape.

        Raises:
            ValueError: `ulm` is missing or describes none.
        """
        if self.ulm is None:
            raise ValueError("a UlmConfig needs ulm=ModelConfig.to_dict()")
        return ModelConfig.from_dict(self.ulm)

    @property
    def vocab_size(self) -> int:
        """Tokens in the vocabulary."""
        return self.shape.vocab_size

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream."""
        return self.shape.d_model


@dataclass
class UlmGenerateOutput(ModelOutput):  # type: ignore[misc]
    """What `generate` gives with `return_dict_in_generate=True`.

    Attributes:
        sequences: prompts and answers, (B, T).
        memories: what each row's memory holds after its answer, the last token not read; None without one.
    """

    sequences: Tensor | None = None
    memories: list[LTMState | None] | None = None


class IdTokenizer(Tokenizer):
    """A tokenizer whose texts are token ids in decimal, so that an `Engine` continues ids that come without a text.

    Args:
        vocab_size: of the model.
        eot_id: ends a text; -1 for none.
        pad_id: for padding.
    """

    def __init__(self, vocab_size: int, eot_id: int, pad_id: int = 0) -> None:
        self.eot_id, self.pad_id = eot_id, pad_id
        self._size = vocab_size

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self._size

    def encode(self, text: str) -> list[int]:
        """Return the ids that a text names."""
        return [int(word) for word in text.split()]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids that texts name."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text that names ids."""
        return "".join(f"{i} " for i in ids)


class UlmForCausalLM(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """A µLM as transformers wants it.

    Args:
        config: its shape.

    Attributes:
        model: the µLM itself.
    """

    config_class = UlmConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"

    def __init__(self, config: UlmConfig) -> None:
        super().__init__(config)
        self.model = Decoder(config.shape)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Leave weights alone: the `Decoder` has initialised its own."""

    def get_input_embeddings(self) -> nn.Module:
        """Return the embedding."""
        return self.model.embed

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None, **kwargs: Any
    ) -> CausalLMOutput:
        """Read whole documents, from an empty memory on.

        Args:
            input_ids: (B, T).
            attention_mask: (B, T), 0 at padding, which may stand anywhere and is not read; None where nothing is
                padded.
            labels: (B, T) the same tokens, -100 where nothing is learned.
            kwargs: nothing that would change what is read.

        Returns:
            The logits after each token, (B, T, V), meaningless at padding; with labels the loss in nats.

        Raises:
            ValueError: something was asked for that a µLM lacks, such as a cache or embeddings as input.
        """
        _refuse("read with", {name: value for name, value in kwargs.items() if name not in _READ_OPTIONS})
        order_BT = None
        if attention_mask is not None and not bool(attention_mask.all()):
            # Padding goes to the end, where nothing can see it.
            order_BT = attention_mask.long().argsort(dim=1, descending=True, stable=True)
            input_ids = input_ids.gather(1, order_BT)
            if labels is not None:
                labels = labels.masked_fill(attention_mask == 0, IGNORE).gather(1, order_BT)
        logits = read_document(self.model, input_ids).all_logits()
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits, labels, self.config.vocab_size, num_items_in_batch=kwargs.get("num_items_in_batch")
            )
        if order_BT is not None:
            logits = logits.gather(1, order_BT.argsort(dim=1)[..., None].expand_as(logits))
        return CausalLMOutput(loss=loss, logits=logits)

    @torch.no_grad()
    def generate(
        self,
        inputs: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        *,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        memories: Sequence[LTMState | None] | None = None,
        **kwargs: Any,
    ) -> Tensor | UlmGenerateOutput:
        """Continue every row greedily or by sampling, with the window's and the long-term memory.

        Args:
            inputs: token ids, (B, T).
            generation_config: None takes the model's own.
            input_ids: the same as `inputs`, by its other name.
            attention_mask: 0 at padding, on either side; None where nothing is padded.
            memories: what each row's memory holds at the start, such as an earlier call returned; None means nothing.
            kwargs: do_sample, temperature, top_p, max_new_tokens, max_length, eos_token_id, pad_token_id,
                return_dict_in_generate. Samples follow `torch.manual_seed`; there is no top_k but none.

        Returns:
            Prompts and answers, (B, T + longest answer), filled up with padding after their ends; as
            `UlmGenerateOutput` with `return_dict_in_generate`.

        Raises:
            ValueError: something was asked for that the engine lacks, or a row holds no token.
        """
        ids_BT = inputs if input_ids is None else input_ids
        if ids_BT is None or ids_BT.dim() != 2:
            raise ValueError("a µLM continues token ids of shape (rows, tokens): generate(input_ids, ...)")
        config = copy.deepcopy(generation_config or self.generation_config)
        options = {**config.update(**kwargs), **config.to_diff_dict()}
        known = _OPTIONS if config.do_sample else _OPTIONS | _OF_SAMPLING
        _refuse("generate with", {name: value for name, value in options.items() if name not in known})
        ends = config.eos_token_id if isinstance(config.eos_token_id, Sequence) else [config.eos_token_id]
        if len(ends) != 1:
            raise ValueError(f"a µLM cannot generate with several end tokens, got {list(ends)}")
        (eos_id,) = ends
        real_BT = torch.ones_like(ids_BT) if attention_mask is None else attention_mask
        prompts = [ids[real.bool()].tolist() for ids, real in zip(ids_BT, real_BT, strict=True)]
        if not all(prompts):
            raise ValueError("a row without a token cannot be continued; begin it with the end-of-text token")
        if (new_tokens := config.max_new_tokens) is None:
            new_tokens = 20 if config.max_length is None else config.max_length - ids_BT.shape[1]  # as transformers
        if new_tokens < 1:
            raise ValueError(f"max_length {config.max_length} leaves no room after {ids_BT.shape[1]} tokens")
        seeds = torch.randint(2**62, (len(prompts),)).tolist() if config.do_sample else [0] * len(prompts)
        temperature = (1.0 if config.temperature is None else config.temperature) if config.do_sample else 0.0
        top_p = 1.0 if config.top_p is None or not config.do_sample else config.top_p
        tokenizer = IdTokenizer(self.config.vocab_size, -1 if eos_id is None else eos_id)
        # A new one for each call, from the weights as they are: they may have been trained or moved since the last.
        results = Engine(self.model, tokenizer, pack=False).generate(
            [
                GenerationRequest(tokenizer.decode(ids), seed, new_tokens, temperature, top_p, memory=memory)
                for ids, seed, memory in zip(prompts, seeds, memories or [None] * len(prompts), strict=True)
            ]
        )
        pad_id = config.pad_token_id if config.pad_token_id is not None else eos_id or 0
        answers = [
            torch.tensor(tokenizer.encode(result.text) + [eos_id] * (result.finish == "end"), dtype=torch.long)
            for result in results
        ]
        new_BT = nn.utils.rnn.pad_sequence(answers, batch_first=True, padding_value=pad_id)
        sequences = torch.cat((ids_BT, new_BT.to(ids_BT.device, ids_BT.dtype)), dim=1)
        if config.return_dict_in_generate:
            return UlmGenerateOutput(sequences, [result.memory for result in results])
        return sequences


def to_ulm(model: Decoder, tokenizer: Tokenizer | None = None) -> UlmForCausalLM:
    """Return a µLM as a model of transformers that shares its weights.

    Args:
        model: with a long-term memory or without.
        tokenizer: sets the end-of-text and padding ids, where `generate` looks for them.
    """
    config = UlmConfig(ulm=model.config.to_dict(), dtype=model.dtype)
    with torch.device("meta"):  # weights that would be thrown away at once
        wrapped = UlmForCausalLM(config)
    wrapped.model = model
    if tokenizer is not None:
        wrapped.generation_config.eos_token_id = tokenizer.eot_id
        wrapped.generation_config.pad_token_id = tokenizer.pad_id
    wrapped.eval()
    return wrapped


def _refuse(what: str, options: dict[str, Any]) -> None:
    for name, value in options.items():
        if isinstance(value, int | float) and value is not False:
            off = value == (1 if name in _OFF_AT_ONE else 0)
        else:
            off = isinstance(value, bool | Sequence | None) and not value
        if not off:
            shown = value if isinstance(value, int | float | str) else type(value).__name__
            raise ValueError(f"a µLM cannot {what} {name}={shown}; {'give 0' if name == 'top_k' else 'leave it out'}")


AutoConfig.register("ulm", UlmConfig, exist_ok=True)
AutoModelForCausalLM.register(UlmConfig, UlmForCausalLM, exist_ok=True)
