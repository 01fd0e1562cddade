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
from fakes.records import bare, end, episode, episode_end, header, tick

from swarm.errors import SwarmError
from swarm.files import FolderLock
from swarm.record import journal
from swarm.record.journal import (
    GENESIS,
    JournalError,
    JournalReader,
    JournalWriter,
    canonical_json,
    read_header,
    read_records,
    state_hash,
)
from swarm.record.telemetry import TelemetryWriter, read_telemetry


def write_run(path: Path, ticks: int = 3) -> list[str]:
    with JournalWriter(path) as writer:
        hashes = [writer.append(header(hash="a key named hash", name="µLM"))]
        hashes += [writer.append(tick(i, 'quote " and\nnewline')) for i in range(ticks)]
    return hashes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def test_every_line_is_its_hash_and_then_the_canonical_json_that_it_covers(path: Path) -> None:
    hashes = write_run(path)
    prev = GENESIS
    lines = path.read_text().splitlines()
    for seq, line in enumerate(lines):
        record = json.loads(line)
        claimed = record.pop("hash")
        rest = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)[1:]
        assert line == f'{{"hash":"{claimed}",{rest}'
        assert claimed == hashlib.sha256(rest.encode()).hexdigest() == hashes[seq]
        assert (record["seq"], record["prev"]) == (seq, prev)
        prev = claimed
    assert len(lines) == 4


def test_text_that_utf8_cannot_carry_reads_back(path: Path) -> None:
    with JournalWriter(path) as writer:
        writer.append(header())
        writer.append(tick(0, "\ud800 and \u2028"))
    _, record = read_records(path)
    assert record["kind"] == "tick"
    assert record["agents"][0]["action"] == "\ud800 and \u2028"


def test_not_a_number_is_refused_and_leaves_no_trace(path: Path) -> None:
    broken = tick()
    broken["agents"][0]["reward"] = float("nan")
    with JournalWriter(path) as writer:
        writer.append(header())
        with pytest.raises(ValueError, match="JSON compliant"):
            writer.append(broken)
        writer.append(tick())
    assert len(list(read_records(path))) == 2


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
        for record, syncs in ((header(), 0), (episode(), 0), (tick(), 1), (episode_end(), 2), (end(), 3)):
            writer.append(record)
            assert len(synced) == syncs
        assert synced[-1] == path.stat().st_size


def test_group_durability_shares_one_sync_among_many_records(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    happened = threading.Event()

    def sync(fd: int) -> None:
        synced.append(os.fstat(fd).st_size)
        happened.set()

    monkeypatch.setattr(journal, "_sync_data", sync)
    with JournalWriter(path, "group") as writer:
        writer.append(header())
        for number in range(50):
            writer.append(tick(number))
        assert happened.wait(5), "nothing was synced although the loss window passed"
        assert len(synced) < 10
    assert synced[-1] == path.stat().st_size
    assert len(list(read_records(path))) == 51


def test_a_failing_background_sync_stops_the_next_append(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(journal, "_sync_data", broken)
    writer = JournalWriter(path, "group")
    writer.append(tick())
    assert writer._syncer is not None
    writer._syncer.join(5)
    with pytest.raises(SwarmError, match="Input/output error"):
        writer.append(tick())
    with pytest.raises(SwarmError, match="Input/output error"):
        writer.close()
    FolderLock(path.parent).close()


def test_a_full_disk_is_one_line_and_leaves_the_file_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_write = os.write
    writer = JournalWriter(path)
    writer.append(header())

    def full(fd: int, data: bytes) -> int:
        if len(data) > 40:
            return real_write(fd, data[:40])  # a short write first, as a filling disk gives
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: full(fd, data[:60]))
        with pytest.raises(SwarmError, match="No space left on device") as caught:
            writer.append(tick(0, "x" * 40))
    assert "\n" not in str(caught.value)
    assert path.read_bytes().count(b"\n") == 1
    assert path.read_bytes().endswith(b"\n")
    writer.append(tick(0, "after the disk was cleaned"))
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
    writer.append(header())

    def interrupted(fd: int, data: bytes) -> int:
        real_write(fd, data[:10])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            writer.append(tick())
    writer.append(tick(3))
    writer.close()
    assert [record.get("tick") for record in read_records(path)] == [None, 3]


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
                writer.append(bare(json.loads(line)))
        assert path.read_bytes() == undisturbed


def test_resume_of_a_journal_torn_in_its_first_line_starts_anew(path: Path) -> None:
    path.write_bytes(b'{"hash":"12')
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
        (lambda lines: [b" " + lines[0], *lines[1:]], "line 1.*altered"),
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


def rehashed(path: Path, number: int, **changes: object) -> None:
    """Change a record and its own hash, but not the chain behind it."""
    lines = path.read_bytes().splitlines()
    record = {**json.loads(lines[number]), **changes}
    del record["hash"]
    rest = canonical_json(record)[1:]
    lines[number] = b'{"hash":"%s",%s' % (hashlib.sha256(rest).hexdigest().encode(), rest)
    path.write_bytes(b"\n".join(lines) + b"\n")


def test_a_rehashed_record_breaks_the_link_of_the_next(path: Path) -> None:
    write_run(path)
    rehashed(path, 1, tick=7)
    with pytest.raises(JournalError, match=r"line 3.*does not follow"):
        list(read_records(path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "poem"}, "line 4: the record is none of this version: .*'poem'"),
        ({"agents": 3}, "line 4: the record is none of this version: tick.agents: Input should be a valid list"),
        ({"terminated": 1}, "tick.terminated: Input should be a valid boolean"),
        ({"mood": "bad"}, "tick.mood: Extra inputs are not permitted"),
        ({"directives": {"a0": "go"}}, "tick.directives: Input should be a valid list"),
        ({"kind": "header", "format": 2, "config": {}, "checkpoints": {}}, "line 4: the record is none of"),
    ],
)
def test_a_record_that_is_none_is_named_by_its_line_and_field(
    path: Path, changes: dict[str, object], message: str
) -> None:
    write_run(path)
    rehashed(path, 3, **changes)
    for verify in (True, False):
        with pytest.raises(JournalError, match=message) as caught:
            list(read_records(path, verify))
        assert "\n" not in str(caught.value)


def test_a_journal_has_one_header_first(path: Path) -> None:
    for number, records in enumerate(([tick()], [header(), header()])):
        with JournalWriter(path.with_name(f"{number}.jsonl")) as writer:
            for record in records:
                writer.append(record)
        with pytest.raises(JournalError, match=rf"line {number + 1}: .*one header, first"):
            list(read_records(path.with_name(f"{number}.jsonl")))


def test_an_old_journal_is_refused_in_one_line_by_reader_and_resume(path: Path) -> None:
    old = {"checkpoints": {}, "config": {}, "format": 1, "hash": "0" * 64, "kind": "header", "prev": GENESIS, "seq": 0}
    path.write_text(json.dumps(old) + "\n")
    for read in (lambda: list(read_records(path)), lambda: read_header(path), lambda: JournalWriter.resume(path)):
        with pytest.raises(JournalError, match=r"has journal format 1, .* reads and writes 2 alone .*CHANGELOG.md"):
            read()


def test_two_writers_of_one_run_exclude_each_other(path: Path) -> None:
    with JournalWriter(path) as writer:
        writer.append(header())
        with pytest.raises(SwarmError, match=rf"written by another process \(pid {os.getpid()}\)"):
            JournalWriter.resume(path)
    JournalWriter.resume(path).close()


@pytest.mark.process
def test_a_killed_writer_leaves_the_lock_free_and_its_records_readable(path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from swarm.record.journal import JournalWriter\n"
        "writer = JournalWriter(Path(sys.argv[1]), 'group')\n"
        "from fakes.records import header, tick\n"
        "for i in range(5): writer.append(header() if i == 0 else tick(i))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False, timeout=60, env=environment)
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
    for size in range(0, len(whole) + 1, 50):
        path.write_bytes(whole[:size])
        seen += [record["seq"] for record in reader.poll()]
    path.write_bytes(whole)
    seen += [record["seq"] for record in reader.poll()]
    assert seen == [0, 1, 2]
    assert reader.last_hash == json.loads(whole.splitlines()[-1])["hash"]


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
