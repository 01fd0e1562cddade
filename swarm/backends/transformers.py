"""Any causal language model of transformers behind the protocol of text generation.

- `generate` of transformers does the decoding; a logits processor of ours does the choosing, so that every row has its
  own uniforms, its own structure and its own end, as in `ulm.decode.engine`.
- Rows are padded on the left. A row's numbers may differ in the last bits with the batch it shares, so runs that must
  not depend on the number of hosts take engine `ulm`.
"""

import time
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from swarm.backends.local import LATE, LocalModel
from swarm.backends.models import ModelFolder
from swarm.backends.protocol import TextRequest, TextResult
from swarm.errors import SwarmError, first_line
from ulm.decode.constraint import Matcher, mask_logits
from ulm.decode.engine import sample
from ulm.tokenizer import Tokenizer

MAX_BATCH = 64
"""Rows that are decoded at once."""


@dataclass(slots=True)
class _Row:
    request: TextRequest
    ids: list[int]
    uniforms: np.ndarray[Any, Any]
    matcher: Matcher | None
    produced: list[int] = field(default_factory=list)
    text: str = ""
    finish: Literal["stop", "end", "length", "fault"] | None = None

    def result(self) -> TextResult:
        """Return the answer; a row that was cut, or never begun, is a fault."""
        if self.finish is None or self.finish == "fault":
            return TextResult.failed(LATE, len(self.ids) if self.finish else 0, len(self.produced))
        return TextResult(self.text, len(self.ids), len(self.produced), self.finish)


class TransformersModel(LocalModel[_Row]):
    """A model that transformers loads.

    Args:
        folder: the model's files.
        device, dtype: where and in which type it computes.
        adapter: folder of a PEFT LoRA adapter, or None.

    Raises:
        SwarmError: transformers cannot load it, the adapter does not fit, or it was made for fewer tokens.
    """

    def __init__(
        self,
        folder: ModelFolder,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        adapter: Path | None = None,
    ) -> None:
        super().__init__(folder.tokenizer(), folder.chat, folder.max_length)
        self._model = _load(folder, torch.device(device), dtype, adapter)
        self._ends = folder.ends
        # Its own would add penalties and the like to what a request asks for.
        from transformers import GenerationConfig

        self._model.generation_config = GenerationConfig(
            eos_token_id=list(folder.ends), pad_token_id=self.tokenizer.pad_id
        )

    def _call(self, request: TextRequest, ids: list[int]) -> _Row:
        constraint = self.constraint(request.structure)
        # The streams of `ulm.decode.engine`: the same seed draws the same uniforms.
        uniforms = np.random.Generator(np.random.PCG64(request.seed)).random(request.max_new_tokens, np.float32)
        return _Row(request, ids, uniforms, constraint.matcher() if constraint else None)

    def _answers(self, calls: list[_Row], deadline_s: float | None) -> list[TextResult]:
        """Decode those of like length together: little padding."""
        rows = sorted(calls, key=lambda row: len(row.ids))
        for start in range(0, len(rows), MAX_BATCH):
            if deadline_s is None or time.monotonic() < deadline_s:
                self._decode(rows[start : start + MAX_BATCH], deadline_s)
        return [row.result() for row in calls]

    @torch.inference_mode()
    def _decode(self, rows: list[_Row], deadline_s: float | None) -> None:
        pad = partial(pad_sequence, batch_first=True, padding_side="left")
        ids = pad([torch.tensor(row.ids) for row in rows], padding_value=self.tokenizer.pad_id)
        seen = pad([torch.ones(len(row.ids), dtype=torch.long) for row in rows])
        self._model.generate(
            input_ids=ids.to(self._model.device),
            attention_mask=seen.to(self._model.device),
            max_new_tokens=max(row.request.max_new_tokens for row in rows),
            logits_processor=[_Choose(rows, self.tokenizer, self._ends, deadline_s)],
        )


@dataclass(slots=True)
class _Choose:
    """A logits processor that leaves each row the one token that its own request takes next."""

    rows: list[_Row]
    tokenizer: Tokenizer
    ends: tuple[int, ...]
    deadline_s: float | None
    step: int = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        is_late = self.deadline_s is not None and time.monotonic() > self.deadline_s
        forced = torch.full_like(scores, -torch.inf)
        by_temperature: defaultdict[float, list[int]] = defaultdict(list)
        for i, row in enumerate(self.rows):
            if is_late:
                row.finish = row.finish or "fault"
            if row.finish is None:
                by_temperature[row.request.temperature].append(i)
            else:
                forced[i, self.tokenizer.eot_id] = 0.0
        for temperature, members in by_temperature.items():
            logits = mask_logits(scores[members].float(), [self.rows[i].matcher for i in members])
            uniforms = torch.tensor([float(self.rows[i].uniforms[self.step]) for i in members], device=logits.device)
            for i, token in zip(members, sample(logits, uniforms, temperature, 1.0).tolist(), strict=True):
                self._accept(self.rows[i], token)
                # What ends an answer here ends it for transformers, too.
                forced[i, token if self.rows[i].finish is None else self.tokenizer.eot_id] = 0.0
        self.step += 1
        return forced

    def _accept(self, row: _Row, token: int) -> None:
        row.produced.append(token)
        if token in self.ends:
            row.finish = "end"
            return
        if row.matcher is not None:
            row.matcher.advance(token)
        row.text = self.tokenizer.decode(row.produced)
        found = [place for stop in row.request.stop if (place := row.text.find(stop)) >= 0]
        if found:
            row.text, row.finish = row.text[: min(found)], "stop"
        elif len(row.produced) == row.request.max_new_tokens:
            row.finish = "length"


def _load(folder: ModelFolder, device: torch.device, dtype: torch.dtype, adapter: Path | None) -> Any:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder.path, dtype=dtype, use_safetensors=True, trust_remote_code=False, local_files_only=True
        )
    except Exception as error:
        raise SwarmError(
            f"transformers cannot load model {folder.name} from {folder.path}: {first_line(error)[:200]}"
        ) from error
    if adapter is not None:
        try:
            from peft import PeftModel

            # Merged, a step costs what it costs without an adapter.
            model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
        except Exception as error:
            raise SwarmError(f"cannot load adapter {adapter}: {first_line(error)[:200]}") from error
    return model.eval().to(device)
