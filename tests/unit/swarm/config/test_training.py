"""Where a training or a run computes: devices that are there, and one line about those that are not."""

from __future__ import annotations

import pytest

from swarm.config.training import PlaceSection, resolve_device
from swarm.errors import SwarmError


@pytest.mark.parametrize(
    ("name", "there", "found"),
    [
        ("auto", set(), "cpu"),
        ("auto", {"cuda"}, "cuda"),
        ("auto", {"mps"}, "cpu"),  # it has to be asked for
        ("cpu", {"cuda"}, "cpu"),
        ("cuda", {"cuda"}, "cuda"),
        ("mps", {"mps"}, "mps"),
    ],
)
def test_a_device_is_resolved_by_what_torch_sees(
    monkeypatch: pytest.MonkeyPatch, name: str, there: set[str], found: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: "cuda" in there)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: "mps" in there)
    assert resolve_device(name) == found
    if name in ("cuda", "mps"):
        monkeypatch.setattr(f"torch.{'backends.mps' if name == 'mps' else name}.is_available", lambda: False)
        with pytest.raises(SwarmError, match=f"device '{name}' was asked for but torch sees no such GPU here; set"):
            resolve_device(name)


def test_the_one_gpu_of_a_mac_has_one_worker() -> None:
    with pytest.raises(ValueError, match="device mps has one GPU for 2 workers; set workers: 1"):
        PlaceSection(device="mps", workers=2)
