"""The log of a training that was interrupted."""

from __future__ import annotations

import json
from pathlib import Path

from swarm.train.loop import _rewind


def test_what_will_be_done_again_is_taken_out_of_the_log(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    _rewind(metrics, 3)
    assert not metrics.exists()
    metrics.write_text("".join(json.dumps({"step": step}) + "\n" for step in (10, 20, 30)) + '{"step": 4')
    _rewind(metrics, 20)
    assert [json.loads(line)["step"] for line in metrics.read_text().splitlines()] == [10, 20]
