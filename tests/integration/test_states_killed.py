"""A training that is killed a hundred times: what comes back, and what kills leave behind."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import struct
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ulm.train.states import RollingStates

pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.timeout(900), pytest.mark.usefixtures("one_thread")]

KILLS = 100
EXTRA = {"fixed": torch.randn(300, 300, generator=torch.Generator().manual_seed(0))}


def model_at(step: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """What a training has after a step: weights that all change, moments of which few rows do."""
    generator = torch.Generator().manual_seed(step)
    model = nn.ModuleDict({"dense": nn.Linear(150, 150), "table": nn.Embedding(6000, 64)})
    optimizer = torch.optim.AdamW(model.parameters())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.zero_()
            if name == "table.weight":
                parameter[step % 100 :: 100] = step
            else:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
            optimizer.state[parameter] = {"step": torch.tensor(float(step)), "mean": parameter / 2}
    return model, optimizer


def tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    parameters = list(model.parameters())
    return parameters + [value for p in parameters for _, value in sorted(optimizer.state[p].items())]


def go_on(folder: Path, told: int) -> None:
    """Load, then save one state after the other for ever; tell of each once it is saved."""
    states, (model, optimizer) = RollingStates(folder), model_at(0)
    found = states.load(model, optimizer)
    step = found.progress["step"] if found else 0
    os.write(told, struct.pack("q", step))
    while True:
        step += 1
        states.save(step, *model_at(step), {}, EXTRA)
        os.write(told, struct.pack("q", step))


def killed_after(folder: Path, seconds: float) -> int:
    """Have another process go on, kill it so long after it has loaded; the last step that it said was saved."""
    reading, told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            go_on(folder, told)
        finally:
            os._exit(1)
    os.close(told)
    steps = os.read(reading, 8)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the training ended by itself"
    while more := os.read(reading, 8):
        steps = more
    os.close(reading)
    return int(struct.unpack("q", steps)[0])


def named(folder: Path) -> set[str]:
    """Objects that manifests name."""
    texts = [json.dumps(json.loads(path.read_text())["state"]) for path in folder.glob("*.json")]
    return {name for text in texts for name in re.findall(r"\b[0-9a-f]{64}\b", text)}


def test_a_hundred_kills_lose_nothing_that_was_saved_and_leave_no_rubbish(tmp_path: Path) -> None:
    chance, in_a_save, states_saved = random.Random(0), 0, 0
    began = time.monotonic()
    measured = RollingStates(tmp_path / "measured")
    for step in range(8):
        measured.save(step, *model_at(step), {}, EXTRA)
    save_s, tmp_path = (time.monotonic() - began) / 8, tmp_path / "states"
    for _ in range(KILLS):
        saved = killed_after(tmp_path, chance.uniform(0, 4 * save_s))
        rubbish = {path.name for path in (tmp_path / "objects").glob("*")} - named(tmp_path)
        in_a_save += bool(rubbish)
        warnings: list[str] = []
        model, optimizer = model_at(0)
        found = RollingStates(tmp_path).load(model, optimizer, warnings.append)
        assert warnings == []
        if found is None:
            assert saved == 0
            continue
        step = found.progress["step"]
        assert saved <= step <= saved + 1  # killed after the manifest took its name, before it could tell
        assert step >= states_saved
        states_saved = step
        assert all(torch.equal(a, b) for a, b in zip(tensors(model, optimizer), tensors(*model_at(step)), strict=True))
        assert torch.equal(found.extra["fixed"], EXTRA["fixed"])
        assert len(RollingStates(tmp_path).steps()) <= 3  # killed before the oldest went
        assert len(rubbish) <= 60  # of one save; the next one clears it
    assert in_a_save >= KILLS // 5
    assert states_saved >= KILLS // 5
    RollingStates(tmp_path).save(states_saved + 1, *model_at(states_saved + 1), {}, EXTRA)
    assert {path.name for path in (tmp_path / "objects").iterdir()} == named(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "objects", f"step-{states_saved:08d}.json", f"step-{states_saved + 1:08d}.json"
    ]  # fmt: skip
