"""A file is whole or not there, whoever reads it and whatever interrupts its writer."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from swarm.errors import SwarmError
from swarm.files import FolderLock, is_locked, write_whole
from ulm import files as model_files


def test_a_failed_write_leaves_what_was_there_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    write_whole(path, "µ and \ud800")
    assert path.read_bytes() == "µ and \\ud800".encode()

    def broken(fresh: Path) -> None:
        fresh.write_text("half")
        raise OSError(28, "No space left on device")

    for write in (write_whole, model_files.write_whole):
        with pytest.raises(OSError, match="No space"):
            write(path, broken)
        assert [file.name for file in tmp_path.iterdir()] == ["data.json"]
    assert path.read_bytes() == "µ and \\ud800".encode()


@pytest.mark.process
def test_a_writer_that_is_killed_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    write_whole(path, "old")
    script = (
        "import os, signal, sys; from pathlib import Path; from swarm.files import write_whole\n"
        "write_whole(Path(sys.argv[1]), lambda fresh: (fresh.write_text('ne'), os.kill(os.getpid(), signal.SIGKILL)))"
    )
    assert subprocess.run([sys.executable, "-c", script, str(path)], check=False, timeout=60).returncode == -9
    assert path.read_text() == "old"


def test_files_are_on_the_disk_before_they_have_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (happened.append("sync"), sync(fd)))
    monkeypatch.setattr(Path, "replace", lambda self, target: (happened.append("rename"), replace(self, target)))
    write_whole(tmp_path / "a", b"1")
    model_files.write_whole(tmp_path / "b", lambda fresh: fresh.write_bytes(b"1"))
    assert happened == ["sync", "rename", "sync"] * 2


@pytest.mark.process
def test_of_several_that_create_a_file_one_succeeds(tmp_path: Path) -> None:
    path = tmp_path / "mine"

    def create(number: int) -> bool:
        script = (
            "import sys; from pathlib import Path; from swarm.files import write_whole\n"
            "write_whole(Path(sys.argv[1]), sys.argv[2], create=True)"
        )
        done = subprocess.run([sys.executable, "-c", script, str(path), str(number)], check=False, capture_output=True)
        assert done.returncode == 0 or b"FileExistsError" in done.stderr
        return done.returncode == 0

    with ThreadPoolExecutor(4) as threads:
        created = list(threads.map(create, range(4)))
    assert sum(created) == 1
    assert path.read_text() == str(created.index(True))


def test_a_lock_excludes_others_until_it_is_released(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    lock = FolderLock(tmp_path)
    assert is_locked(tmp_path)
    with pytest.raises(SwarmError, match=rf"written by another process \(pid {os.getpid()}\)"):
        FolderLock(tmp_path)
    lock.close()
    lock.close()
    assert not is_locked(tmp_path)
    FolderLock(tmp_path).close()
    with pytest.raises(SwarmError, match="cannot write in"):
        FolderLock(tmp_path / "nowhere")
