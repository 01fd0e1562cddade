"""The file of a delta: its bytes are its name."""

from __future__ import annotations

from dataclasses import replace

import torch

from ulm import Decoder, ModelConfig
from ulm.delta import Delta

CONFIG = ModelConfig(vocab_size=64, n_layer=1, n_head=2, n_kv_head=1, d_model=16, d_ff=32, window=32)


def test_equal_deltas_have_equal_bytes_however_often_they_are_written() -> None:
    delta = Delta.new(Decoder(CONFIG), 2, 7, ids=[3, 5], base="b" * 64)
    again = [Delta(delta.factors, delta.ids_E, delta.rows_EC, delta.base).to_bytes() for _ in range(24)]
    assert len(set(again)) == 1


def test_a_delta_that_is_read_again_is_written_as_the_same_bytes() -> None:
    delta = replace(Delta.new(Decoder(CONFIG), 2, 7, ids=[3], base="b" * 64), rows_EC=torch.ones(1, 16))
    read = Delta.from_bytes(delta.to_bytes())
    assert read.base == delta.base
    assert Delta(read.factors, read.ids_E, read.rows_EC, read.base).sha256 == delta.sha256
