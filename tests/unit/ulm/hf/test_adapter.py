"""A delta of a pretrained Llama, loaded by PEFT, is the same model."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.hf_models import CONFIGS
from transformers import AutoModelForCausalLM

from ulm.delta import Delta
from ulm.hf.adapter import save_adapter
from ulm.hf.llama import from_llama
from ulm.model import Decoder

peft = pytest.importorskip("peft")
IDS = torch.tensor([[5, 9, 77, 3, 200, 5, 9]])


def llama(*, tied: bool) -> Any:
    config = copy.deepcopy(CONFIGS["llama"])
    config.tie_word_embeddings = tied
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def a_delta(base: Decoder, ids: list[int]) -> Delta:
    new, luck = Delta.new(base, 4, 1, ids), torch.Generator().manual_seed(3)
    factors = {name: (a, 0.1 * torch.randn(b.shape, generator=luck)) for name, (a, b) in new.factors.items()}
    return Delta(factors, new.ids_E, 0.3 * torch.randn(new.rows_EC.shape, generator=luck))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("ids", [[], [5, 9, 77]])
@torch.no_grad()
def test_logits_agree_with_those_of_the_merged_model(tmp_path: Path, tied: bool, ids: list[int]) -> None:
    theirs = llama(tied=tied)
    base, _ = from_llama(theirs)
    delta = a_delta(base, ids)
    before = base(IDS)
    save_adapter(delta, base, "some/model", tmp_path / "adapter", {"run": "r"})
    loaded = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    base.load_state_dict(delta.merged(base))
    assert torch.allclose(loaded(IDS).logits, base(IDS), atol=5e-5)
    assert not torch.allclose(before, base(IDS), atol=0.1)
    assert json.loads((tmp_path / "adapter" / "learned.json").read_text()) == {"run": "r"}


def test_another_model_and_a_folder_of_something_else_are_refused(tmp_path: Path) -> None:
    base, _ = from_llama(llama(tied=True))
    delta = a_delta(base, [])
    with pytest.raises(ValueError, match="another shape"):
        save_adapter(delta, Decoder(dataclasses.replace(base.config, d_ff=64)), "some/model", tmp_path / "new", {})
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"not empty \(it holds notes.txt\)"):
        save_adapter(delta, base, "some/model", tmp_path, {})
