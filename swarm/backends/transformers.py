"""Any causal language model of transformers behind the protocol of text generation.

- `generate` of transformers does the decoding; a logits processor of ours does the choosing, so that every row has its
  own uniforms, its own structure and its own end, as in `ulm.decode.engine`.
- Rows are padded on the left. A row's numbers may differ in the last bits with the batch it shares, so runs that must
  not depend on the number of hosts take engine `ulm`.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from swarm.backends.constraints import constraint_of
from swarm.backends.models import ModelFolder
from swarm.backends.prompts import PromptReader
from swarm.backends.protocol import MAX_BATCH, TextRequest, TextResult
from swarm.errors import SwarmError, first_line
from ulm.decode.constraint import Matcher, mask_logits
from ulm.decode.engine import sample
from ulm.tokenizer import Tokenizer


@dataclass(slots=True)
class _Row:
    request: TextRequest
    ids: list[int]
    uniforms: np.ndarray[Any, Any]
    matcher: Matcher | None
    produced: list[int] = field(default_factory=list)
    text: str = ""
    finish: str | None = None


class TransformersModel:
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
        self._max_length = folder.max_length
        self._tokenizer = Tokenizer.load(folder.path)
        self._tokenizer.pad_id = self._tokenizer.eot_id = folder.ends[0]
        self._reader = PromptReader(self._tokenizer, folder.chat)
        self._device = torch.device(device)
        self._model = _load(folder, self._device, dtype, adapter)
        self._ends = list(folder.ends)
        # Its own would add penalties and the like to what a request asks for.
        from transformers import GenerationConfig

        self._model.generation_config = GenerationConfig(eos_token_id=self._ends, pad_token_id=self._tokenizer.pad_id)

    @property
    def max_length(self) -> int:
        """Tokens of prompt and answer together."""
        return self._max_length

    def count_prompts(self, requests: Sequence[TextRequest]) -> list[int]:
        """Return the tokens of each prompt."""
        return self._reader.count(requests)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text."""
        return self._reader.count_texts(texts)

    def generate(self, requests: Sequence[TextRequest], deadline_s: float | None = None) -> list[TextResult]:
        """Answer every request, those of like length together."""
        results: dict[int, TextResult] = {}
        rows: list[tuple[int, _Row]] = []
        for number, (request, ids) in enumerate(zip(requests, self._reader.read(requests), strict=True)):
            if len(ids) + request.max_new_tokens > self._max_length:
                results[number] = TextResult.too_long(len(ids), request.max_new_tokens, self._max_length)
                continue
            try:
                constraint = constraint_of(request.structure, self._tokenizer)
            except ValueError as error:
                results[number] = TextResult.failed(f"the form of the answer cannot be kept: {error}"[:300])
                continue
            # The streams of `ulm.decode.engine`: the same seed draws the same uniforms.
            uniforms = np.random.Generator(np.random.PCG64(request.seed)).random(
                request.max_new_tokens, dtype=np.float32
            )
            rows.append((number, _Row(request, ids, uniforms, constraint.matcher() if constraint else None)))
        rows.sort(key=lambda pair: len(pair[1].ids))  # little padding
        for start in range(0, len(rows), MAX_BATCH):
            part = rows[start : start + MAX_BATCH]
            if deadline_s is None or time.monotonic() < deadline_s:
                self._decode([row for _, row in part], deadline_s)
            results.update((number, _result(row)) for number, row in part)
        return [results[number] for number in range(len(requests))]

    @torch.inference_mode()
    def _decode(self, rows: list[_Row], deadline_s: float | None) -> None:
        from transformers import GenerationConfig

        width = max(len(row.ids) for row in rows)
        ids = torch.full((len(rows), width), self._tokenizer.pad_id)
        seen = torch.zeros((len(rows), width), dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, width - len(row.ids) :] = torch.tensor(row.ids)
            seen[i, width - len(row.ids) :] = 1
        settings = GenerationConfig(
            max_new_tokens=max(row.request.max_new_tokens for row in rows),
            do_sample=False,
            eos_token_id=self._ends,
            pad_token_id=self._tokenizer.pad_id,
        )
        choose = _Choose(rows, self._tokenizer, set(self._ends), deadline_s)
        self._model.generate(
            input_ids=ids.to(self._device),
            attention_mask=seen.to(self._device),
            generation_config=settings,
            logits_processor=[choose],
        )

    def close(self) -> None:
        """Nothing to give back before the process ends."""


def _result(row: _Row) -> TextResult:
    if row.finish in (None, "timeout"):  # cut, or never begun
        fault = "timeout: decoding passed its deadline"
        return TextResult.failed(fault, len(row.ids) if row.finish else 0, len(row.produced))
    finish = {"stop": "stop", "end": "end"}.get(str(row.finish), "length")
    return TextResult(row.text, len(row.ids), len(row.produced), finish)  # type: ignore[arg-type]


class _Choose:
    """A logits processor that leaves each row the one token that its own request takes next."""

    def __init__(self, rows: list[_Row], tokenizer: Tokenizer, ends: set[int], deadline_s: float | None) -> None:
        self.rows = rows
        self.tokenizer = tokenizer
        self.ends = ends
        self.deadline_s = deadline_s
        self.step = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self.deadline_s is not None and time.monotonic() > self.deadline_s:
            for row in self.rows:
                row.finish = row.finish or "timeout"
        forced = torch.full_like(scores, -torch.inf)
        live = [i for i, row in enumerate(self.rows) if row.finish is None]
        by_temperature: dict[float, list[int]] = {}
        for i in live:
            by_temperature.setdefault(self.rows[i].request.temperature, []).append(i)
        for temperature, members in by_temperature.items():
            logits = mask_logits(scores[members].float(), [self.rows[i].matcher for i in members])
            uniforms = torch.tensor([float(self.rows[i].uniforms[self.step]) for i in members], device=logits.device)
            for i, token in zip(members, sample(logits, uniforms, temperature, 1.0).tolist(), strict=True):
                self._accept(self.rows[i], token)
                # What ends an answer here ends it for transformers, too.
                forced[i, token if self.rows[i].finish is None else self.tokenizer.eot_id] = 0.0
        for i, row in enumerate(self.rows):
            if row.finish is not None and i not in live:
                forced[i, self.tokenizer.eot_id] = 0.0
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

    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder.path, dtype=dtype, use_safetensors=True, trust_remote_code=False, local_files_only=True
        )
    except Exception as error:
        reason = first_line(error)[:200]
        raise SwarmError(f"transformers cannot load model {folder.name} from {folder.path}: {reason}") from error
    if adapter is not None:
        model = _with_adapter(model, adapter)
    return model.eval().to(device)


def _with_adapter(model: Any, adapter: Path) -> Any:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise SwarmError("engine.adapter needs the package peft: pip install 'ulm-swarm[hf]'") from error
    try:
        json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        # Merged, a step costs what it costs without an adapter.
        return PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    except Exception as error:
        reason = first_line(error)[:200]
        raise SwarmError(f"cannot load adapter {adapter}: {reason}") from error
