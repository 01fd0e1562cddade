"""Facts on disk: transactions, revisions, readers, and files that are not what they should be."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from ulm.memory.fact_store import Fact, FactStore


def fact(number: int, source: str = "test") -> Fact:
    return Fact(f"key {number}", f" value {number}", (1, number), (2, number, 3), source)


def test_facts_survive_reopening_with_source_and_revision(tmp_path: Path) -> None:
    store = FactStore(tmp_path / "m.sqlite", "t")
    store.put([fact(1, "a book"), fact(2)])
    store.put([fact(3)])
    store.close()
    store = FactStore(tmp_path / "m.sqlite", "t")
    found = store.get((1, 1))
    assert found is not None
    assert (found.key, found.value, found.value_ids, found.source, found.revision) == (
        "key 1", " value 1", (2, 1, 3), "a book", 1,
    )  # fmt: skip
    assert [f.revision for f in store.since(1)] == [2, 3]
    assert store.get((1, 9)) is None


def test_forgotten_facts_are_gone_but_readers_learn_of_it(tmp_path: Path) -> None:
    store = FactStore(tmp_path / "m.sqlite", "t")
    store.put([fact(1), fact(2)])
    reader = FactStore(tmp_path / "m.sqlite", "t", read_only=True)
    known = reader.since()[-1].revision
    assert store.forget((1, 1), "a correction")
    assert not store.forget((1, 1))
    assert store.get((1, 1)) is None
    (change,) = reader.since(known)
    assert (change.key, change.forgotten, change.source, change.revision) == ("key 1", True, "a correction", 3)


def test_a_transaction_that_fails_leaves_nothing(tmp_path: Path) -> None:
    store = FactStore(tmp_path / "m.sqlite", "t")
    with pytest.raises(OverflowError):
        store.put([fact(1), fact(2**40)])
    assert store.since() == []
    store.put([fact(1)])
    assert [found.revision for found in store.since()] == [1]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"not a database, but long enough to be one of some sort or other" * 40, "is damaged"),
        (b"", None),  # an empty file is where a new memory begins
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, says: str | None) -> None:
    path = tmp_path / "m.sqlite"
    path.write_bytes(content)
    if says is None:
        assert FactStore(path, "t").since() == []
    else:
        with pytest.raises(ValueError, match=says):
            FactStore(path, "t")


def test_database_of_something_else_is_refused(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "m.sqlite")
    other.execute("CREATE TABLE cakes (name TEXT)")
    other.commit()
    other.close()
    with pytest.raises(ValueError, match="something else"):
        FactStore(tmp_path / "m.sqlite", "t")


def test_memory_of_another_tokenizer_or_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    FactStore(path, "one").close()
    with pytest.raises(ValueError, match="another tokenizer"):
        FactStore(path, "two")
    raw = sqlite3.connect(path)
    raw.execute("UPDATE about SET value = '99' WHERE name = 'format'")
    raw.commit()
    raw.close()
    with pytest.raises(ValueError, match="format 99"):
        FactStore(path, "one")


def test_changed_bytes_are_found(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    store = FactStore(path, "t")
    store.put([fact(n) for n in range(200)])
    store.close()
    raw = sqlite3.connect(path)
    raw.execute("UPDATE facts SET value = ' wrong' WHERE revision = 7")
    raw.commit()
    raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw.close()
    with pytest.raises(ValueError, match="damaged"):
        FactStore(path, "t").since()
    data = bytearray(path.read_bytes())
    data[5000:9000] = b"\xff" * 4000
    path.write_bytes(data)
    with pytest.raises(ValueError, match="damaged"):
        FactStore(path, "t").since()


def test_reading_needs_a_file_and_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no memory at"):
        FactStore(tmp_path / "none.sqlite", "t", read_only=True)
    FactStore(tmp_path / "m.sqlite", "t").close()
    reader = FactStore(tmp_path / "m.sqlite", "t", read_only=True)
    with pytest.raises(ValueError, match="readonly"):
        reader.put([fact(1)])


def _write_until_killed(path: Path, first: int, told: Connection) -> None:
    store = FactStore(path, "t")
    for number in range(first, first + 10_000):
        store.put([fact(2 * number), fact(2 * number + 1)])  # both or none
        told.send(number)


@pytest.mark.process
@pytest.mark.slow
def test_killing_the_writer_a_hundred_times_loses_and_tears_nothing(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    context = multiprocessing.get_context("fork")
    reader: FactStore | None = None
    committed = first = 0
    for trial in range(100):
        receiver, sender = context.Pipe(duplex=False)
        writer = context.Process(target=_write_until_killed, args=(path, first, sender))
        writer.start()
        sender.close()
        assert receiver.poll(20)
        time.sleep(0.001 * (trial % 17))
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        try:
            while True:
                committed = receiver.recv() + 1
        except EOFError:
            pass
        if reader is None:
            reader = FactStore(path, "t", read_only=True)
        numbers = {f.key_ids[1] for f in reader.since()}
        pairs = len(numbers) // 2
        assert numbers == set(range(2 * pairs))  # no hole, no half
        assert pairs in (committed, committed + 1)  # at most the one that was not told any more
        first = pairs
    assert FactStore(path, "t").since()[-1].revision == 2 * first


def test_a_copy_over_the_own_file_loses_nothing(tmp_path: Path) -> None:
    store = FactStore(tmp_path / "m.sqlite", "t")
    store.put([fact(n) for n in range(300)])
    store.copy_to(tmp_path / "m.sqlite")
    store.put([fact(n) for n in range(300, 600)])
    store.close()
    assert len(FactStore(tmp_path / "m.sqlite", "t").since()) == 600


def test_a_copy_is_one_file_also_after_reading(tmp_path: Path) -> None:
    store = FactStore(tmp_path / "m.sqlite", "t")
    store.put([fact(1)])
    (tmp_path / "copies").mkdir()
    store.copy_to(tmp_path / "copies" / "c.sqlite")
    assert FactStore(tmp_path / "copies" / "c.sqlite", "t", read_only=True).get((1, 1)) is not None
    assert [path.name for path in (tmp_path / "copies").iterdir()] == ["c.sqlite"]


def _open_often(folder: Path, start: Any, failed: Any) -> None:
    start.wait()
    for number in range(25):
        try:
            FactStore(folder / f"{number}.sqlite", "t").close()
        except ValueError as error:
            failed.put(str(error))


@pytest.mark.process
def test_several_may_make_a_new_file_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start, failed = context.Event(), context.SimpleQueue()
    processes = [context.Process(target=_open_often, args=(tmp_path, start, failed)) for _ in range(4)]
    for process in processes:
        process.start()
    start.set()
    for process in processes:
        process.join()
    assert failed.empty()
    assert FactStore(tmp_path / "24.sqlite", "t").put([fact(1)])


def test_a_mistake_of_the_caller_is_not_called_damage(tmp_path: Path) -> None:
    store = FactStore(tmp_path / "m.sqlite", "t")
    with (
        ThreadPoolExecutor() as pool,
        pytest.raises(ValueError, match=r"belongs to the thread that opened it; open its file anew"),
    ):
        pool.submit(store.put, [fact(1)]).result()
    assert store.put([fact(1)])
    store.close()
    with pytest.raises(ValueError, match=r"cannot be used: .*closed"):
        store.put([fact(2)])


def test_a_full_file_is_reported_as_such_and_can_be_written_later(tmp_path: Path) -> None:
    store = FactStore(tmp_path / "m.sqlite", "t")
    store.put([fact(1)])
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(ValueError, match="full"):
        store.put([fact(n) for n in range(2, 2000)])
    store._connection.execute("PRAGMA max_page_count = 100000")
    assert [f.revision for f in store.put([fact(2)])] == [2]
