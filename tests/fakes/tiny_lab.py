"""A small lab, for the tests of `swarm lab`."""

from __future__ import annotations

from typing import Any

from swarm.lab.ltm.config import LabConfig


def lab(**sections: Any) -> LabConfig:
    """Return a small lab with sections changed."""
    data: dict[str, Any] = {
        "name": "tiny",
        "seeds": [1, 2],
        "with_ltm": True,
        "corpus": {"sources": [{"files": ["texts.txt"], "separator": "\n\n"}], "tokenizer": 320},
        "model": {"window": 16, "ltm": {"segment": 8, "capacity": 16}},
        "recall": {
            "rows": 1, "filler": " it was good", "num_keys": 8, "num_values": 8, "num_pairs": 2, "spacing": 8,
            "distances": [12, 20], "sequences": 2,
        },
        "train": {"span": 32},
        "optimizer": {"steps": 10, "batch_size": 4},
        "place": {"device": "cpu"},
        "eval": {"controls": ["no_reads"], "policies": {"by_use": {"eviction": "use"}}},
    }  # fmt: skip
    for name, value in sections.items():
        data[name] = {**data.get(name, {}), **value} if isinstance(value, dict) else value
    return LabConfig.model_validate(data)
