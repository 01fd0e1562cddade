"""A checkpoint of an untrained model with a long-term memory, for the tests of agents that remember."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from swarm.agents.host import SharedModel
from swarm.agents.local_pool import LocalPool
from swarm.config.experiment import ExperimentConfig
from swarm.messages import ActReply, ActRequest, CallKey
from ulm.checkpoint import load_weights_numpy, read_checkpoint_config, save_checkpoint
from ulm.config import preset
from ulm.model import Decoder
from ulm.tokenizer import Tokenizer

LTM: dict[str, Any] = {
    "layers": [0], "n_head": 2, "head_size": 8, "capacity": 80, "segment": 8, "threshold_bits": 4.0, "similarity": 0.5,
}  # fmt: skip


def write_policy(folder: Path, *, with_ltm: bool = True, **changes: Any) -> Path:
    """Write the checkpoint; without memory it is the same model with the same other weights.

    Gates are open and the memory speaks loudly, so that answers depend on what is remembered. `changes` are of `LTM`.
    """
    torch.set_num_threads(1)
    tokenizer = Tokenizer.train(["room page of note ask next open wait say read first key lamp cold 0 1 2 3"] * 3, 300)
    model = Decoder(preset("tiny", tokenizer.vocab_size, window=32, ltm={**LTM, **changes}), seed=1)
    with torch.no_grad():
        for reader in model.ltm.readers:  # type: ignore[union-attr]
            reader.gate.fill_(3.0)  # type: ignore[union-attr,operator]
            reader.out.weight.mul_(30.0)  # type: ignore[union-attr,operator]
    if not with_ltm:
        bare = Decoder(preset("tiny", tokenizer.vocab_size, window=32), seed=2)
        bare.load_state_dict({name: x for name, x in model.state_dict().items() if not name.startswith("ltm.")})
        model = bare
    save_checkpoint(folder, model, tokenizer, {"trained": False})
    return folder


def two_who_talk_noise(ticks: int, **agents: Any) -> ExperimentConfig:
    """Return an experiment of two episodes of two agents with the checkpoint `policy` beside its file."""
    return ExperimentConfig.model_validate(
        {
            "seed": 3,
            "episodes": 2,
            "world": {"id": "vault-v0", "options": {"rooms": 2, "pages": 2, "notes": 1, "sentences": 1}},
            "agents": {
                "count": 2,
                "engine": {"kind": "ulm", "model": "policy"},
                "max_new_tokens": 6,
                "memory": ["stm", "ltm"],
                **agents,
            },
            "budget": {"ticks": ticks},
            "runtime": {"pool": "local", "threads_per_host": 1},
        }
    )


def versions_given(monkeypatch: pytest.MonkeyPatch) -> dict[CallKey, dict[str, tuple[str, int]]]:
    """Write down from now on, by call, which version of each memory it is given in local runs."""
    given: dict[CallKey, dict[str, tuple[str, int]]] = {}
    real = LocalPool.act

    def act(pool: LocalPool, requests: Sequence[ActRequest]) -> list[ActReply]:
        given.update({asked.key: {held.kind: held.version for held in asked.memories} for asked in requests})
        return real(pool, requests)

    monkeypatch.setattr(LocalPool, "act", act)
    return given


def shared(folder: Path) -> SharedModel:
    """Return a checkpoint as hosts get it."""
    config = read_checkpoint_config(folder)
    tokenizer = (folder / "tokenizer.json").read_text()
    return SharedModel(config.model.to_dict(), tokenizer, config.pad_id, config.eot_id, load_weights_numpy(folder))
