"""The journal's bytes: one line per record, a chain that shows every change, and a tail that may be torn."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from swarm.errors import SwarmError
from swarm.record import journal
from swarm.record.journal import (
    GENESIS,
    JournalError,
    JournalReader,
    JournalWriter,
    RunLock,
    read_records,
    state_hash,
)
from swarm.record.telemetry import TelemetryWriter, read_telemetry


def write_run(path: Path, ticks: int = 3) -> list[str]:
    with JournalWriter(path) as writer:
        hashes = [writer.append("header", {"format": 1, "config": {"hash": "a key named hash", "name": "µLM"}})]
        hashes += [
            writer.append("tick", {"tick": i, "text": 'quote " and\nnewline', "agents": []}) for i in range(ticks)
        ]
    return hashes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def test_every_line_is_canonical_json_and_its_hash_covers_all_but_itself(path: Path) -> None:
    hashes = write_run(path)
    prev = GENESIS
    lines = path.read_text().splitlines()
    for seq, line in enumerate(lines):
        record = json.loads(line)
        assert line == json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        claimed = record.pop("hash")
        bare = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert claimed == hashlib.sha256(bare.encode()).hexdigest() == hashes[seq]
        assert (record["seq"], record["prev"]) == (seq, prev)
        prev = claimed
    assert len(lines) == 4


def test_a_record_without_a_body_and_text_that_utf8_cannot_carry_read_back(path: Path) -> None:
    with JournalWriter(path) as writer:
        writer.append("end", {})
        writer.append("tick", {"action": "\ud800 and \u2028"})
    assert [record.get("action") for record in read_records(path)] == [None, "\ud800 and \u2028"]


def test_a_reserved_key_and_not_a_number_are_refused_and_leave_no_trace(path: Path) -> None:
    with JournalWriter(path) as writer:
        for body in ({"seq": 1}, {"hash": "x"}, {"reward": float("nan")}):
            with pytest.raises(ValueError, match=r"reserved|may not use|JSON compliant"):
                writer.append("tick", body)
        writer.append("tick", {})
    assert len(list(read_records(path))) == 1


def test_state_hash_ignores_key_order_and_sees_every_value() -> None:
    assert state_hash({"a": 1, "b": [2]}) == state_hash({"b": [2], "a": 1})
    assert state_hash({"a": 1}) != state_hash({"a": 1.0})
    assert state_hash({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()


def test_tick_durability_syncs_commits_only_and_before_append_returns(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(journal, "_sync_data", lambda fd: synced.append(os.fstat(fd).st_size))
    with JournalWriter(path) as writer:
        for kind, syncs in (("header", 0), ("episode", 0), ("tick", 1), ("episode_end", 2), ("end", 3)):
            writer.append(kind, {})
            assert len(synced) == syncs
        assert synced[-1] == path.stat().st_size


def test_group_durability_shares_one_sync_among_many_records(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    happened = threading.Event()

    def sync(fd: int) -> None:
        synced.append(os.fstat(fd).st_size)
        happened.set()

    monkeypatch.setattr(journal, "_sync_data", sync)
    with JournalWriter(path, "group", group_ms=20) as writer:
        for _ in range(50):
            writer.append("tick", {})
        assert happened.wait(5), "nothing was synced although the loss window passed"
        assert len(synced) < 10
    assert synced[-1] == path.stat().st_size
    assert len(list(read_records(path))) == 50


def test_a_failing_background_sync_stops_the_next_append(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(journal, "_sync_data", broken)
    writer = JournalWriter(path, "group", group_ms=1)
    writer.append("tick", {})
    assert writer._syncer is not None
    writer._syncer.join(5)
    with pytest.raises(SwarmError, match="Input/output error"):
        writer.append("tick", {})
    with pytest.raises(SwarmError, match="Input/output error"):
        writer.close()
    RunLock(path.parent).release()


def test_a_full_disk_is_one_line_and_leaves_the_file_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_write = os.write
    writer = JournalWriter(path)
    writer.append("header", {"format": 1})

    def full(fd: int, data: bytes) -> int:
        if len(data) > 40:
            return real_write(fd, data[:40])  # a short write first, as a filling disk gives
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: full(fd, data[:60]))
        with pytest.raises(SwarmError, match="No space left on device") as caught:
            writer.append("tick", {"text": "x" * 40})
    assert "\n" not in str(caught.value)
    assert path.read_bytes().count(b"\n") == 1
    assert path.read_bytes().endswith(b"\n")
    writer.append("tick", {"text": "after the disk was cleaned"})
    writer.close()
    assert [record["kind"] for record in read_records(path)] == ["header", "tick"]


def test_short_writes_are_continued(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real_write(fd, data[:7]))
    write_run(path)
    assert len(list(read_records(path))) == 4


def test_an_interrupt_inside_a_write_leaves_no_half_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_write = os.write
    writer = JournalWriter(path)

    def interrupted(fd: int, data: bytes) -> int:
        real_write(fd, data[:10])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            writer.append("tick", {})
    writer.append("tick", {"tick": 0})
    writer.close()
    assert [record["tick"] for record in read_records(path)] == [0]


def test_missing_folder_and_existing_run_are_clear_errors(path: Path) -> None:
    with pytest.raises(SwarmError, match="cannot write in"):
        JournalWriter(path.parent / "nowhere" / "journal.jsonl")
    write_run(path)
    with pytest.raises(SwarmError, match=r"already holds a run.*swarm resume"):
        JournalWriter(path)
    with pytest.raises(SwarmError, match="no journal at"):
        list(read_records(path.parent / "other.jsonl"))
    with pytest.raises(SwarmError, match="no journal at"):
        JournalWriter.resume(path.parent / "other.jsonl")


def test_a_torn_tail_is_dropped_quietly_and_resume_continues_the_same_chain(path: Path) -> None:
    write_run(path, ticks=4)
    undisturbed = path.read_bytes()
    lines = undisturbed.splitlines(keepends=True)
    for cut in (1, 30, len(lines[3]) - 1):
        path.write_bytes(b"".join(lines[:3]) + lines[3][:cut])
        assert len(list(read_records(path))) == 3
        with JournalWriter.resume(path) as writer:
            assert writer.next_seq == 3
            for line in lines[3:]:
                writer.append("tick", {key: json.loads(line)[key] for key in ("tick", "text", "agents")})
        assert path.read_bytes() == undisturbed


def test_resume_of_a_journal_torn_in_its_first_line_starts_anew(path: Path) -> None:
    path.write_bytes(b'{"config":{')
    with JournalWriter.resume(path) as writer:
        assert (writer.next_seq, writer.last_hash) == (0, GENESIS)
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda lines: [lines[0], lines[1].replace(b'"tick":0', b'"tick":7'), *lines[2:]], "line 2.*altered"),
        (lambda lines: [lines[0], *lines[2:]], "line 2.*seq 2 where 1"),
        (lambda lines: [*lines[:-1], lines[-1].replace(b'"tick":2', b'"tick":3')], "line 4.*altered"),
        (lambda lines: [lines[0], b"half a rec\n", *lines[2:]], "line 2.*not JSON"),
        (lambda lines: [lines[0], b"[]\n", *lines[2:]], "line 2.*not a JSON object"),
        (lambda lines: [lines[0], lines[1].replace(b',"kind"', b', "kind"'), *lines[2:]], "line 2.*altered"),
        (lambda lines: [lines[0], b"\n", *lines[1:]], "line 2.*not JSON"),
    ],
)
def test_corruption_names_its_line_in_reader_and_resume(path: Path, damage, message: str) -> None:  # type: ignore[no-untyped-def]
    write_run(path)
    path.write_bytes(b"".join(damage(path.read_bytes().splitlines(keepends=True))))
    broken = path.read_bytes()
    with pytest.raises(JournalError, match=message):
        list(read_records(path))
    with pytest.raises(JournalError, match=message):
        JournalWriter.resume(path)
    assert path.read_bytes() == broken, "a corrupt journal must be left as evidence"


def test_a_rehashed_record_breaks_the_link_of_the_next(path: Path) -> None:
    write_run(path)
    lines = path.read_bytes().splitlines()
    record = json.loads(lines[1])
    record["tick"] = 7
    del record["hash"]
    record["hash"] = state_hash(record)
    lines[1] = journal.canonical_json(record)
    path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(JournalError, match=r"line 3.*does not follow"):
        list(read_records(path))


def test_two_writers_of_one_run_exclude_each_other(path: Path) -> None:
    with JournalWriter(path) as writer:
        writer.append("header", {"format": 1})
        with pytest.raises(SwarmError, match=rf"written by another process \(pid {os.getpid()}\)"):
            JournalWriter.resume(path)
    JournalWriter.resume(path).close()


def test_a_killed_writer_leaves_the_lock_free_and_its_records_readable(path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from swarm.record.journal import JournalWriter\n"
        "writer = JournalWriter(Path(sys.argv[1]), 'group', 10_000)\n"
        "for i in range(5): writer.append('tick', {'tick': i})\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False, timeout=60)
    assert done.returncode == -9
    with JournalWriter.resume(path) as writer:
        assert writer.next_seq == 5


def test_a_reader_picks_up_a_growing_file_and_waits_at_a_torn_tail(path: Path) -> None:
    write_run(path, ticks=2)
    whole = path.read_bytes()
    path.unlink()
    reader = JournalReader(path)
    assert list(reader.poll()) == []
    seen: list[int] = []
    for end in range(0, len(whole) + 1, 50):
        path.write_bytes(whole[:end])
        seen += [record["seq"] for record in reader.poll()]
    path.write_bytes(whole)
    seen += [record["seq"] for record in reader.poll()]
    assert seen == [0, 1, 2]
    assert reader.last_hash == json.loads(whole.splitlines()[-1])["hash"]


def test_following_ends_with_the_end_record(path: Path) -> None:
    def write() -> None:
        with JournalWriter(path) as writer:
            for kind in ("header", "tick", "tick", "end"):
                writer.append(kind, {})

    thread = threading.Thread(target=write)
    records = read_records(path, follow=True, poll_s=0.005)
    thread.start()
    assert [record["kind"] for record in records] == ["header", "tick", "tick", "end"]
    thread.join()


def test_following_can_be_stopped(path: Path) -> None:
    assert list(read_records(path, follow=True, poll_s=0.001, stop=lambda: True)) == []


def test_telemetry_survives_a_torn_line_and_a_bad_path(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.jsonl"
    with TelemetryWriter(path) as telemetry:
        telemetry.emit("start", hosts=2)
    path.write_bytes(path.read_bytes() + b'{"at_s":12.0,"ki')
    with TelemetryWriter(path) as telemetry:
        telemetry.emit("resume")
        telemetry.emit("commit", not_json=object())
    facts = list(read_telemetry(path))
    assert [fact["kind"] for fact in facts] == ["start", "resume"]
    assert facts[0]["hosts"] == 2
    assert facts[0]["at_s"] > 1e9
    TelemetryWriter(tmp_path / "nowhere" / "telemetry.jsonl").emit("start")
