"""A gate between a model as it was and the same model with its memory, or any other adapter.

- Both are asked; the gate decides position by position how much of the answer is the tuned model's:
  p = g p_tuned + (1 - g) p_base. Where a memory has nothing to say, the base model is left alone.
- `threshold` is the confidence bypass: g is 0 where the base model gives its likeliest token at least so much
  probability, and 1 elsewhere. `learned` is a logistic regression over how sure both models are and where they differ,
  and over the base model's last hidden state; only it is trained, on answers that the memory should give and on text
  that should stay as it is.
- The price is a second forward pass; `generate` keeps a KV cache for each.

Axes: B rows, T tokens, V vocabulary, F statistics, C width.
"""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache

from ulm.engram.model import EngramModel
from ulm.files import write_whole

STATISTICS = (
    "log odds of the base model's likeliest token",
    "log odds of the tuned model's likeliest token",
    "entropy of the base model, in nats",
    "entropy of the tuned model, in nats",
    "log probability of the tuned model's likeliest token under the base model",
    "log probability of the base model's likeliest token under the tuned model",
)
"""What a learned gate looks at beside the hidden state."""

_FILE, _WEIGHTS, FORMAT = "gate.json", "gate.safetensors", 1


@contextmanager
def without_adapters(model: Any) -> Iterator[None]:
    """Run a model inside a `with` block as it was before any adapter: without a memory and, below it, without PEFT's.

    Args:
        model: an `EngramModel` or a `PeftModel`.
    """
    below: Any = model.base_model if isinstance(model, EngramModel) else None
    with model.disable_adapter(), below.disable_adapter() if hasattr(below, "peft_config") else nullcontext():
        yield


@dataclass(slots=True)
class GatedOutput:
    """What a forward pass gives.

    Attributes:
        logits: log probabilities, (B, T, V).
        gates: share of the tuned model, (B, T).
        loss: mean cross entropy of the labels that follow, in nats; None without labels.
    """

    logits: Tensor
    gates: Tensor
    loss: Tensor | None = None


class GatedEngramAdapter(nn.Module):
    """A model with a memory that is asked only where it helps.

    Args:
        model: an `EngramModel`, or a `PeftModel`: whatever has `disable_adapter()`. All of it is frozen.
        kind: `learned`, or `threshold`.
        threshold: of the confidence bypass, a probability.

    Raises:
        ValueError: the model has nothing that could be disabled, or the threshold is no probability.
    """

    model: Any

    def __init__(
        self,
        model: nn.Module,
        kind: Literal["learned", "threshold"] = "learned",
        *,
        threshold: float = 0.9,
    ) -> None:
        super().__init__()
        if not hasattr(model, "disable_adapter"):
            raise ValueError(f"a gate needs a model with adapters, {type(model).__name__} has no disable_adapter()")
        if kind not in ("learned", "threshold"):
            raise ValueError(f"a gate is 'learned' or 'threshold', got {kind!r}")
        if not 0.0 < threshold <= 1.0:
            raise ValueError(f"threshold must be above 0 and at most 1, got {threshold!r}")
        self.kind, self.threshold = kind, threshold
        self.from_statistics = nn.Linear(len(STATISTICS), 1)
        self.from_hidden = nn.Linear(model.config.get_text_config(decoder=True).hidden_size, 1, bias=False)  # type: ignore[operator, union-attr]
        for parameter in self.parameters():
            nn.init.zeros_(parameter)
        self.to(next(model.parameters()).device)
        self.model = model.requires_grad_(False)

    def mix(self, base_BTV: Tensor, tuned_BTV: Tensor, hidden_BTC: Tensor) -> tuple[Tensor, Tensor]:
        """Return log probabilities of the mixture, and the gates, (B, T).

        Args:
            base_BTV: logits of the base model.
            tuned_BTV: logits of the tuned model.
            hidden_BTC: last hidden state of the base model.
        """
        base_BTV, tuned_BTV = base_BTV.float().log_softmax(-1), tuned_BTV.float().log_softmax(-1)
        if self.kind == "threshold":
            gate_BT = (base_BTV.max(-1).values < math.log(self.threshold)).float()
            return torch.where(gate_BT[..., None] > 0, tuned_BTV, base_BTV), gate_BT
        score_BT = self._score(_statistics(base_BTV, tuned_BTV), hidden_BTC)
        mixed_BTV = torch.logaddexp(
            F.logsigmoid(score_BT)[..., None] + tuned_BTV, F.logsigmoid(-score_BT)[..., None] + base_BTV
        )
        return mixed_BTV, score_BT.sigmoid()

    def _score(self, statistics: Tensor, hidden: Tensor) -> Tensor:
        """Return log odds of the tuned model, from (..., F) and (..., C)."""
        width = hidden.shape[-1]
        # Divided by the root of the width, so that a step of Adam moves the score by a little, however wide.
        from_hidden = self.from_hidden(F.rms_norm(hidden.float(), (width,)))[..., 0] * width**-0.5
        return cast("Tensor", self.from_statistics(statistics)[..., 0] + from_hidden)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None, **kwargs: Any
    ) -> GatedOutput:
        """Ask both models and mix.

        Args:
            input_ids: (B, T).
            attention_mask: (B, T); None where nothing is padded.
            labels: (B, T), -100 where nothing is learned.
            kwargs: as of the model, such as `position_ids` or `logits_to_keep`.
        """
        bare, tuned = self._both({"input_ids": input_ids, "attention_mask": attention_mask, **kwargs})
        kept = bare.logits.shape[1]
        logits_BTV, gate_BT = self.mix(bare.logits, tuned.logits, bare.hidden_states[-1][:, -kept:])
        output = GatedOutput(logits_BTV, gate_BT)
        if labels is not None:
            output.loss = F.nll_loss(logits_BTV[:, :-1].flatten(0, 1), labels[:, -kept:][:, 1:].flatten())
        return output

    @torch.no_grad()
    def _both(self, inputs: dict[str, Any]) -> tuple[Any, Any]:
        """Return what the base model, with hidden states, and the tuned one make of inputs."""
        inputs["use_cache"] = False
        with without_adapters(self.model):
            bare = self.model(output_hidden_states=True, **inputs)
        return bare, self.model(**inputs)

    @torch.no_grad()
    def generate(self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Generate from the mixture, greedily or by sampling; arguments as of transformers' `generate`.

        What transformers forbids (`suppress_tokens`, `bad_words_ids`, `min_new_tokens`) is forbidden to both models.

        Raises:
            ValueError: beams or a penalty were asked for, which would be applied to the tuned model alone.
        """
        for name in ("num_beams", "repetition_penalty", "encoder_repetition_penalty", "guidance_scale"):
            if (value := kwargs.get(name)) not in (None, 1):
                raise ValueError(f"a gated model cannot generate with {name}={value!r}; leave it out")
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        processors = [_Gate(self, mask), *kwargs.pop("logits_processor", [])]
        return cast(
            "Tensor", self.model.generate(input_ids, attention_mask=mask, logits_processor=processors, **kwargs)
        )

    def fit(self, batches: Sequence[dict[str, Tensor]], *, steps: int = 500) -> list[float]:
        """Train the gate and return the loss of each step, in nats per label.

        Args:
            batches: input_ids, attention_mask and labels, both of answers that the adapter should give (from an
                `AnswerCollator`) and of text that should stay as it is; every label counts alike.
            steps: of AdamW, each over all batches.

        Raises:
            ValueError: the gate is a threshold, or there are no batches.
        """
        if self.kind != "learned":
            raise ValueError("a threshold is not learned; take kind='learned'")
        if not batches:
            raise ValueError("a gate learns from at least one batch")
        # The models do not change, so they are asked once, and all that a step needs of them is a few numbers.
        statistics_NF, hidden_NC, base_N, tuned_N = map(torch.cat, zip(*map(self._seen, batches), strict=True))
        optimizer = torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=0.02, weight_decay=1e-3)
        losses = []
        for _ in range(steps):
            score_N = self._score(statistics_NF, hidden_NC)
            loss = -torch.logaddexp(F.logsigmoid(score_N) + tuned_N, F.logsigmoid(-score_N) + base_N).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
        return losses

    @torch.no_grad()
    def _seen(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return statistics, hidden states, and what both models give the next token, at positions with a label."""
        bare, tuned = self._both({name: value for name, value in batch.items() if name != "labels"})
        labelled = batch["labels"][:, 1:] >= 0
        wanted_N1 = batch["labels"][:, 1:][labelled][:, None]
        base_NV, tuned_NV = (found.logits[:, :-1][labelled].float().log_softmax(-1) for found in (bare, tuned))
        hidden_NC = bare.hidden_states[-1][:, :-1][labelled]
        base_N, tuned_N = (x.gather(1, wanted_N1)[:, 0] for x in (base_NV, tuned_NV))
        return _statistics(base_NV, tuned_NV), hidden_NC, base_N, tuned_N

    def save_pretrained(self, folder: str | Path) -> None:
        """Write gate.json and gate.safetensors; the memory beside it is the wrapped model's business."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        about = {
            "format": FORMAT,
            "kind": self.kind,
            "threshold": self.threshold,
            "width": self.from_hidden.in_features,
        }
        write_whole(folder / _WEIGHTS, lambda fresh: save_file(self._gate_state(), fresh))
        write_whole(folder / _FILE, json.dumps(about, indent=1) + "\n")

    @classmethod
    def from_pretrained(cls, model: nn.Module, folder: str | Path) -> Self:
        """Give a model the gate that `save_pretrained` wrote.

        Raises:
            ValueError: a file is missing, damaged or of another version, or the gate belongs to another width.
        """
        folder = Path(folder)
        try:
            about = json.loads((folder / _FILE).read_text(encoding="utf-8"))
            weights = load_file(folder / _WEIGHTS)
            if about["format"] != FORMAT:
                raise ValueError(f"format {about['format']}, this version reads {FORMAT}")
            gate = cls(model, about["kind"], threshold=about["threshold"])
        except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
            raise ValueError(f"cannot read the gate in {folder}: {error}") from error
        shapes, own = ({name: tensor.shape for name, tensor in of.items()} for of in (weights, gate._gate_state()))
        if shapes != own:
            raise ValueError(f"the gate in {folder} was made for another model: width {about['width']}")
        gate.load_state_dict(weights, strict=False)
        return gate

    def _gate_state(self) -> dict[str, Tensor]:
        return {name: tensor.cpu() for name, tensor in self.state_dict().items() if name.startswith("from_")}


class _Gate:
    """A logits processor: what the tuned model says is mixed with what the base model says of the same tokens."""

    def __init__(self, owner: GatedEngramAdapter, mask_BT: Tensor) -> None:
        self._owner, self._mask_BT = owner, mask_BT
        self._cache = DynamicCache(config=owner.model.config)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        new = input_ids.shape[1] - self._mask_BT.shape[1]
        copies = input_ids.shape[0] // self._mask_BT.shape[0]  # of each row, with num_return_sequences
        mask_BT = F.pad(self._mask_BT.repeat_interleave(copies, 0), (0, new), value=1)
        read = self._cache.get_seq_length()
        with without_adapters(self._owner.model):
            bare = self._owner.model(
                input_ids=input_ids[:, read:],
                attention_mask=mask_BT,
                position_ids=(mask_BT.cumsum(1) - 1).clamp(min=0)[:, read:],
                past_key_values=self._cache,
                output_hidden_states=True,
                logits_to_keep=1,
            )
        mixed_BTV, _ = self._owner.mix(bare.logits, scores[:, None], bare.hidden_states[-1][:, -1:])
        return mixed_BTV[:, 0].masked_fill(scores == -math.inf, -math.inf)


def _statistics(base: Tensor, tuned: Tensor) -> Tensor:
    """Return `STATISTICS` of log probabilities (..., V), (..., F)."""
    (sure, likeliest), (tuned_sure, tuned_likeliest) = base.max(-1), tuned.max(-1)
    found = (
        _log_odds(sure),
        _log_odds(tuned_sure),
        -(base.exp() * base).sum(-1),
        -(tuned.exp() * tuned).sum(-1),
        base.gather(-1, tuned_likeliest[..., None])[..., 0].clamp(min=-20.0),
        tuned.gather(-1, likeliest[..., None])[..., 0].clamp(min=-20.0),
    )
    return torch.stack(found, -1) / 10  # of about the size of 1, so that no step of Adam moves the score by much


def _log_odds(log_probability: Tensor) -> Tensor:
    """Return log odds, at most 20 in size, of log probabilities."""
    return (log_probability - torch.log1p(-log_probability.exp().clamp(max=1 - 1e-9))).clamp(-20.0, 20.0)
