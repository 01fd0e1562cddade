"""Journal properties: any text survives, any flipped byte shows, any cut resumes to the same bytes."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

from fakes.records import bare, header, tick
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.errors import SwarmError
from swarm.record.journal import JournalError, JournalWriter, read_records
from swarm.record.records import Record

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
CONFIGS = st.dictionaries(st.text(max_size=8) | st.sampled_from(["hash", "kind", "seq"]), VALUES, max_size=4)
TEXTS = st.lists(st.text(), max_size=4)


def records(config: dict[str, Any], texts: list[str]) -> list[Record]:
    return [header(**{"": 0, **config}), *(tick(number, text) for number, text in enumerate(texts))]


def write(path: Path, wanted: list[Record]) -> bytes:
    with JournalWriter(path, "group") as writer:
        for record in wanted:
            writer.append(record)
    return path.read_bytes()


@settings(max_examples=60, deadline=None)
@given(CONFIGS, TEXTS)
def test_any_record_reads_back_and_hashes_as_documented(config: dict[str, Any], texts: list[str]) -> None:
    wanted = records(config, texts)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        raw = write(path, wanted)
        found = list(read_records(path))
    assert [bare(record) for record in found] == wanted
    for record, line in zip(found, raw.split(b"\n"), strict=False):
        rest = {key: value for key, value in record.items() if key != "hash"}
        text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)[1:]
        data = text.encode("utf-8", "backslashreplace")
        assert record["hash"] == hashlib.sha256(data).hexdigest()
        assert line == b'{"hash":"%s",%s' % (record["hash"].encode(), data)


@settings(max_examples=60, deadline=None)
@given(CONFIGS, TEXTS, st.data())
def test_any_changed_byte_is_an_error_or_a_torn_tail(
    config: dict[str, Any], texts: list[str], data: st.DataObject
) -> None:
    wanted = records(config, texts)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        raw = bytearray(write(path, wanted))
        where = data.draw(st.integers(0, len(raw) - 1))
        raw[where] ^= data.draw(st.integers(1, 255))
        path.write_bytes(raw)
        try:
            found = list(read_records(path))
        except JournalError as error:
            line = bytes(raw[:where]).count(10) + 1
            assert f"line {line}:" in str(error) or (line == 1 and "format" in str(error))  # noqa: PT017 - both are right
        else:
            assert where == len(raw) - 1, "only the last newline may change unseen, which tears the last record"
            assert len(found) == len(wanted) - 1


@settings(max_examples=60, deadline=None)
@given(CONFIGS, TEXTS, st.data())
def test_a_journal_cut_anywhere_resumes_to_the_same_bytes(
    config: dict[str, Any], texts: list[str], data: st.DataObject
) -> None:
    wanted = records(config, texts)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        raw = write(path, wanted)
        path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
        with JournalWriter.resume(path) as writer:
            for record in wanted[writer.next_seq :]:
                writer.append(record)
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
