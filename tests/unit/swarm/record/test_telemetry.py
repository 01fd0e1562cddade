"""Wall-clock facts: what a summary tells of them."""

from __future__ import annotations

from pathlib import Path

from swarm.record.telemetry import TelemetryWriter, endpoint_lines


def test_a_summary_tells_notes_once_and_adds_up_what_is_not_charged(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.jsonl"
    assert endpoint_lines(path) == []
    with TelemetryWriter(path) as telemetry:
        for whose in ("agents", "coordinator"):
            telemetry.emit("endpoint_check", whose=whose, prompt_tokens=20, generated_tokens=2)
            telemetry.emit("endpoint_note", whose=whose, text="no usage")
            telemetry.emit("endpoint_lost", whose=whose, tries=3, most_tokens=600)
        telemetry.emit("endpoint_lost", tries="3", most_tokens=None)
        telemetry.emit("endpoint_back", waited_s=3)
    assert endpoint_lines(path) == [
        "no usage",
        "44 tokens of trial requests at the start, not charged",
        "6 tries got no answer: 1,200 tokens at most, not charged",
    ]
