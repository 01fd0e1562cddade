"""Journal properties: any body survives, any flipped byte shows, any cut resumes to the same bytes."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.errors import SwarmError
from swarm.record.journal import JournalError, JournalWriter, read_records

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
KEYS = (st.text(max_size=8) | st.sampled_from(["has", "hash2", "hasha", "i", ""])).filter(
    lambda key: key not in ("seq", "kind", "prev", "hash")
)
BODIES = st.lists(st.dictionaries(KEYS, VALUES, max_size=4), min_size=1, max_size=5)


def write(path: Path, bodies: list[dict[str, Any]]) -> bytes:
    with JournalWriter(path, "group", 1000) as writer:
        for body in bodies:
            writer.append("tick", body)
    return path.read_bytes()


@settings(max_examples=60, deadline=None)
@given(BODIES)
def test_any_body_reads_back_and_hashes_as_documented(bodies: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        raw = write(path, bodies)
        records = list(read_records(path))
    for body, record, line in zip(bodies, records, raw.decode().split("\n"), strict=False):
        bare = {key: value for key, value in record.items() if key != "hash"}
        text = json.dumps(bare, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert record["hash"] == hashlib.sha256(text.encode()).hexdigest()
        assert line == json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert {key: bare[key] for key in body} == body


@settings(max_examples=60, deadline=None)
@given(BODIES, st.data())
def test_any_changed_byte_is_an_error_or_a_torn_tail(bodies: list[dict[str, Any]], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        raw = bytearray(write(path, bodies))
        where = data.draw(st.integers(0, len(raw) - 1))
        raw[where] ^= data.draw(st.integers(1, 255))
        path.write_bytes(raw)
        try:
            records = list(read_records(path))
        except JournalError as error:
            assert f"line {bytes(raw[:where]).count(10) + 1}:" in str(error)  # noqa: PT017 - both ways are right
        else:
            assert where == len(raw) - 1, "only the last newline may change unseen, which tears the last record"
            assert len(records) == len(bodies) - 1


@settings(max_examples=60, deadline=None)
@given(BODIES, st.data())
def test_a_journal_cut_anywhere_resumes_to_the_same_bytes(bodies: list[dict[str, Any]], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        raw = write(path, bodies)
        path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
        with JournalWriter.resume(path) as writer:
            for body in bodies[writer.next_seq :]:
                writer.append("tick", body)
        assert path.read_bytes() == raw


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_reading_is_total_on_garbage(raw: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        path.write_bytes(raw)
        try:
            assert list(read_records(path)) == []
            assert b"\n" not in raw
        except SwarmError as error:
            assert "\n" not in str(error)  # noqa: PT017 - both ways are right
